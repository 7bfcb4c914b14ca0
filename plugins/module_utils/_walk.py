# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follows a packet through a host, from interface to interface, by the kernel's own answers (``Look``).

It does in order what the kernel does: look up a route, ask the rules, find the neighbour, cross the veth pair, look into
the bridge's table, wrap and unwrap. Where the kernel would drop the packet it says why, and what to do. Nothing is sent.

A hop is one interface at which the packet can be seen, with the decisions made there. What leaves by an interface whose
other end is in no namespace of this host has left it, and the other host's walk goes on from there.

Sources: ip_output.c, ip_input.c, ip_tunnel.c, vxlan_core.c and br_input.c of the kernel; RFC 2003 (IPIP), RFC 7348 (VXLAN).
"""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import asdict, replace

from ._hops import (
    ETHERNET,
    IP,
    PROTOCOLS,
    UDP,
    VXLAN,
    Facts,
    Hop,
    Overlay,
    Packet,
    Problem,
    addresses_of,
    given,
    is_up,
    kind_of,
)
from ._look import Look, Lookup
from ._rules import Meta, passed

_MOST_HOPS = 64
_ECHO, _ECHO_REPLY = 8, 0  # RFC 792
_AGAIN = "run overlay.yml again, which brings it back"
_REWRITES = ("masquerade", "snat", "dnat", "redirect")


class _End(Exception):
    """The walk is over: ``delivered``, ``left`` or ``broken``."""


def walk(look: Look, option: t.Mapping[str, t.Any]) -> Facts:
    """Follow one packet; *option* and the answer are as podnet.overlay.walk documents them.

    Raises:
        NodeError: the host does not answer, or has no such namespace.
    """
    known = {key: value for key, value in (option.get("overlay") or {}).items() if key in Overlay.__dataclass_fields__}
    walker = _Walker(look, Overlay(**{key: value for key, value in known.items() if value is not None}), option)
    return walker.go()


class _Walker:
    def __init__(self, look: Look, overlay: Overlay, option: t.Mapping[str, t.Any]) -> None:
        self.look, self.overlay, self.option = look, overlay, option
        self.mark = int(option.get("mark") or 0)
        self.hops: list[Hop] = []
        self.left: Facts | None = None
        self.here = Hop("", "", "", Packet(option["src"], option["dst"]))
        """Where the packet is. What is decided before it is at any interface is told at the first."""

    def go(self) -> Facts:
        option = self.option
        packet = Packet(
            option["src"],
            option["dst"],
            option.get("protocol") or "icmp",
            int(option.get("ttl") or 64),
            int(option.get("size") or 84),
            bool(option.get("df", True)),
        )
        namespace = option.get("namespace") or ""
        try:
            if option.get("arrives"):
                self._arrive(namespace, self._wrapped(packet, option.get("outer")))
            else:
                self._send(namespace, packet)
        except _End as end:
            self._check_mtus()
            return {"end": str(end), "left": self.left, "hops": [hop.as_data() for hop in self.hops]}

    @staticmethod
    def _wrapped(packet: Packet, outer: t.Mapping[str, t.Any] | None) -> Packet:
        if not outer:
            return packet
        ttl = int(outer.get("ttl") or packet.ttl)
        if outer["protocol"] == "vxlan":
            extra = IP + UDP + VXLAN + ETHERNET
            port, vni = int(outer.get("port") or 8472), int(outer.get("vni") or 1)
            return Packet(outer["src"], outer["dst"], "udp", ttl, packet.length + extra, False, 0, port, vni, packet)
        length = packet.length + IP
        return Packet(outer["src"], outer["dst"], "ipip", ttl, length, packet.df, inner=packet)

    # -------------------------------------------------------------------------------------------- hops and ends

    def _hop(self, namespace: str, name: str, does: str, packet: Packet) -> Hop:
        link = self.look.links(namespace).get(name, {}) if self.look.exists(namespace) else {}
        hop = Hop(
            namespace,
            name,
            does,
            packet,
            kind_of(link),
            link.get("ifindex", 0),
            "raw" if link.get("link_type") in ("ipip", "none") else "ethernet",
            link.get("mtu", 0),
        )
        if not self.hops:
            hop.route, hop.rules, hop.asked, hop.notes = (
                self.here.route,
                self.here.rules,
                self.here.asked,
                self.here.notes,
            )
        self.hops.append(hop)
        self.here = hop
        if len(self.hops) > _MOST_HOPS:
            self._break("loop", "the packet goes in a circle", "look at the routes named above: one leads back")
        return hop

    def _break(self, fault: str, reason: str, remedy: str, *, at: tuple[str, str, Packet] | None = None) -> t.NoReturn:
        """End here. *at* is an interface to say it of, where the packet is at none yet."""
        if not self.hops and at:
            self._hop(at[0], at[1], "would send", at[2])
        self.here.problems.append(Problem(fault, reason, remedy))
        raise _End("broken")

    def _check_mtus(self) -> None:
        """Packets as large as the first interface lets out, with DF: is there room for them everywhere?"""
        if not self.hops or self.option.get("arrives"):
            return
        largest = self.hops[0].mtu
        for hop in self.hops[1:]:
            room = hop.mtu - (hop.packet.length - hop.packet.innermost.length)
            if 0 < room < largest and not any(problem.fault == "mtu" for problem in hop.problems):
                first = self.hops[0]
                hop.problems.append(
                    Problem(
                        "mtu",
                        f"{first.interface} lets packets of {largest} bytes out, and only {room} fit through {hop.interface} "
                        f"(MTU {hop.mtu}): larger ones with DF are refused here",
                        f"set the MTU of {_place(first.namespace, first.interface)} to {room} (overlay_mtu)",
                        fatal=False,
                    )
                )
                return

    # -------------------------------------------------------------------------------------------- layer 3

    def _send(self, namespace: str, packet: Packet) -> t.NoReturn:
        """A packet that is made in *namespace*."""
        if not self.look.exists(namespace):
            self._break(
                "no_namespace",
                f"there is no network namespace {namespace}",
                _AGAIN,
                at=(namespace, "", packet),
            )
        own = sorted(self._own(namespace) - {"127.0.0.1"})
        if packet.src not in own:
            where = namespace or "this host"
            self._break(
                "no_address",
                f"{where} does not have the address {packet.src}; it has {', '.join(own) or 'none'}",
                _AGAIN,
                at=(namespace, self._first_interface(namespace), packet),
            )
        lookup = self.look.route(namespace, packet.dst, packet.src, mark=self.mark)
        self._decide(namespace, lookup, packet)
        self._transmit(namespace, lookup, packet)

    def _arrive(self, namespace: str, packet: Packet) -> t.NoReturn:
        """A packet that comes over the underlay."""
        target = packet.dst if packet.inner else self.overlay.local
        holder = next(
            (name for name, link in self.look.links(namespace).items() if target in addresses_of(link)),
            None,
        )
        if holder is None:
            at = next(
                (name for name, link in self.look.links(namespace).items() if not kind_of(link) and name != "lo"), ""
            )
            self._break(
                "foreign_outer",
                f"{target}, which the packets are sent to, is no address of this host",
                "give the host its public_ip back, or change overlay_public_ip and run overlay.yml",
                at=(namespace, at, packet),
            )
        hop = self._hop(namespace, holder, "takes in", packet)
        hop.destination_mac = self._mac(namespace, holder)
        self._input(namespace, holder, packet)

    def _input(self, namespace: str, dev: str, packet: Packet) -> t.NoReturn:
        """ip_rcv: what comes in by *dev* is for this host, or to be forwarded."""
        self._ask_rules(namespace, "ingress", packet, iif=dev)
        self._ask_rules(namespace, "prerouting", packet, iif=dev)
        lookup = self.look.route(namespace, packet.dst, packet.src, dev, self.mark)
        self._decide(namespace, lookup, packet, dev)
        if lookup.type == "local":
            self._ask_rules(namespace, "input", packet, iif=dev)
            self._deliver(namespace, packet)
        if packet.ttl <= 1:
            self._break("ttl", "the time to live is used up here", "look for a loop in the routes named above")
        forwarded = replace(packet, ttl=packet.ttl - 1)
        self._ask_rules(namespace, "forward", forwarded, iif=dev, oif=lookup.dev)
        self._transmit(namespace, lookup, forwarded, dev)

    def _decide(self, namespace: str, lookup: Lookup, packet: Packet, dev: str = "") -> None:
        """Note the route, and end where there is none or it is not the one that the overlay wants."""
        self.here.asked.append(lookup.asked)
        if lookup.error:
            self._no_route(namespace, lookup, packet, dev)
        self.here.route = _route(lookup)
        self._compare(namespace, lookup, packet)

    def _no_route(self, namespace: str, lookup: Lookup, packet: Packet, dev: str) -> t.NoReturn:
        where = self._first_interface(namespace)
        at = (namespace, where, packet)
        if dev:
            if self.look.sysctl(namespace, f"net/ipv4/conf/{dev}/forwarding") == "0":
                self._break(
                    "forwarding_off",
                    f"forwarding is off here (net.ipv4.ip_forward is {self.look.sysctl(namespace, 'net/ipv4/ip_forward')}, "
                    f"that of {dev} 0), and {packet.dst} is no address of this host",
                    f"sysctl -w net.ipv4.ip_forward=1, and find out who turned it off; or {_AGAIN}",
                )
            self._check_rp_filter(namespace, packet, dev)
        elif where and not is_up(self.look.links(namespace)[where]):
            self._break(
                "interface_down",
                f"{where} is down, and its routes went with it",
                f"{_command(namespace, f'link set {where} up')}; or {_AGAIN}",
                at=at,
            )
        self._compare(namespace, lookup, packet)
        self._break(
            "no_route",
            f"there is no route to {packet.dst}: {lookup.error}",
            f"see {_command(namespace, 'route')}; in an overlay {_AGAIN}",
            at=at,
        )

    def _check_rp_filter(self, namespace: str, packet: Packet, dev: str) -> None:
        modes = [self.look.sysctl(namespace, f"net/ipv4/conf/{name}/rp_filter") or "0" for name in ("all", dev)]
        back = self.look.route(namespace, packet.src)
        strict = max(modes) == "1" and back.dev != dev
        if strict or (max(modes) == "2" and back.error):
            way = f"goes by {back.dev}" if back.dev else f"does not exist ({back.error})"
            self._break(
                "rp_filter",
                f"the reverse path filter refuses the source {packet.src}: the way back to it {way}, and not by {dev} "
                f"(rp_filter of all is {modes[0]}, of {dev} {modes[1]})",
                f"put the route back to {packet.src} right ({back.asked}), or set net.ipv4.conf.all.rp_filter "
                f"and net.ipv4.conf.{dev}.rp_filter to 2",
            )

    def _compare(self, namespace: str, lookup: Lookup, packet: Packet) -> None:
        """On the node itself: is the route to another node's subnet the overlay's?"""
        want = self.overlay
        if namespace or packet.inner or not want.remote:
            return
        if ipaddress.ip_address(packet.dst) not in ipaddress.ip_network(want.subnet):
            return
        found = lookup.route or {}
        if found.get("dst") != want.subnet:
            instead = f"{lookup.error}" if lookup.error else f"{found.get('dst')} matches, by {lookup.dev}"
            self._check_tunnel(namespace)
            self._break(
                "no_route",
                f"the route of the overlay is missing: {want.route}; instead: {instead}",
                _AGAIN,
            )
        direct = want.direct_routing and lookup.via == want.remote and lookup.dev != want.tunnel
        if direct or (lookup.via, lookup.dev) == (want.via, want.dev or lookup.dev):
            return
        self._check_tunnel(namespace)
        self._break(
            "wrong_gateway",
            f"the route goes via {lookup.via or 'no gateway'} dev {lookup.dev}, and {want.subnet} is behind {want.remote}: "
            f"the overlay has {want.route}",
            _AGAIN,
        )

    def _check_tunnel(self, namespace: str) -> None:
        """Routes go with their device."""
        want = self.overlay
        if not want.tunnel:
            return
        link = self.look.links(namespace).get(want.tunnel)
        if link is None:
            self._break(
                "tunnel_missing", f"the tunnel {want.tunnel} is not there, and its routes neither: {want.route}", _AGAIN
            )
        if not is_up(link):
            self._break(
                "tunnel_down",
                f"the tunnel {want.tunnel} is down, and its routes went with it: {want.route}",
                f"ip link set {want.tunnel} up does not bring the routes back: {_AGAIN}",
            )

    def _ask_rules(self, namespace: str, hook: str, packet: Packet, *, iif: str = "", oif: str = "") -> None:
        """The hooks of layer 3, and ``ingress`` and ``egress`` of a device."""
        family = "netdev" if hook in ("ingress", "egress") else "ip"
        self._judge(namespace, hook, family, self._meta(packet, iif, oif), packet)

    def _meta(self, packet: Packet, iif: str, oif: str, hop: Hop | None = None) -> Meta:
        """What the rules see of a packet."""
        answers = bool(self.option.get("reply"))
        return Meta(
            iif=iif,
            oif=oif,
            src=packet.src,
            dst=packet.dst,
            protocol=PROTOCOLS.get(packet.protocol, 0),
            ttl=packet.ttl,
            length=packet.length,
            df=packet.df,
            mark=self.mark,
            sport=packet.sport or None,
            dport=packet.dport or None,
            icmp_type=(_ECHO_REPLY if answers else _ECHO) if packet.protocol == "icmp" else None,
            source_mac=hop.source_mac if hop else None,
            destination_mac=hop.destination_mac if hop else None,
            ct="established" if answers else "new",
        )

    def _judge(self, namespace: str, hook: str, family: str, meta: Meta, packet: Packet) -> None:
        rulings, after = passed(self.look.rules(namespace), hook, family, meta)
        self.mark = self.mark if after.mark is None else after.mark
        self.here.rules += [asdict(ruling) for ruling in rulings]
        for ruling in rulings:
            if ruling.stops:
                self._break(
                    "filtered",
                    f"{ruling.where} drops it at {hook}: {ruling.rule}",
                    f"let {packet.src} to {packet.dst} ({packet.protocol}) pass before that rule, "
                    "in the configuration of whoever wrote it",
                    at=(namespace, self._first_interface(namespace), packet),
                )
            if ruling.verdict in _REWRITES:
                note = f"{ruling.where} rewrites it ({ruling.rule}); the walk goes on with the addresses that it had"
                self.here.notes.append(note)

    def _transmit(self, namespace: str, lookup: Lookup, packet: Packet, iif: str = "") -> t.NoReturn:
        """ip_output: by *lookup*'s device to its gateway. *iif* is where a forwarded packet came in."""
        if not iif:
            self._ask_rules(namespace, "output", packet, oif=lookup.dev)
        self._ask_rules(namespace, "postrouting", packet, iif=iif, oif=lookup.dev)
        if lookup.type == "local":
            self._hop(namespace, "lo", "delivers", packet)
            self._deliver(namespace, packet)
        link = self.look.links(namespace)[lookup.dev]
        hop = self._hop(namespace, lookup.dev, "sends", packet)
        hop.next_hop = lookup.via or packet.dst
        if not is_up(link):
            self._break(
                "interface_down", f"{lookup.dev} is down", f"{_command(namespace, f'link set {lookup.dev} up')}"
            )
        self._ask_rules(namespace, "egress", packet, oif=lookup.dev)
        self._check_size(packet, hop)
        if 0 < lookup.mtu < hop.mtu:
            hop.notes.append(f"the kernel has learned, or its route says, that the path takes {lookup.mtu} bytes")
        if hop.kind == "ipip":
            self._wrap_ipip(namespace, link, lookup, packet)
        elif hop.kind == "vxlan":
            self._resolve(namespace, lookup.dev, hop.next_hop, hop)
            self._wrap_vxlan(namespace, link, packet)
        else:
            self._resolve(namespace, lookup.dev, hop.next_hop, hop)
            self._frame(namespace, lookup.dev, hop)

    def _check_size(self, packet: Packet, hop: Hop) -> None:
        over = packet.length - hop.mtu
        if over > 0 and packet.df:
            self._break(
                "mtu",
                f"the packet has {packet.length} bytes and DF, and {hop.interface} takes {hop.mtu}: it is refused "
                "with ICMP fragmentation needed",
                f"lower the MTU of whoever sends it to {packet.innermost.length - over} (overlay_mtu)",
            )
        if over > 0:
            hop.notes.append(f"goes in fragments: {packet.length} bytes, MTU {hop.mtu}")

    # -------------------------------------------------------------------------------------------- layer 2

    def _resolve(self, namespace: str, dev: str, address: str, hop: Hop) -> None:
        """The MAC of the next hop: what the neighbour table says, against who really has the address."""
        link = self.look.links(namespace)[dev]
        hop.source_mac = link.get("address")
        hop.asked.append(_command(namespace, f"neigh show {address} dev {dev}"))
        entry = next(
            (item for item in self.look.neighbours(namespace) if (item["dst"], item["dev"]) == (address, dev)), None
        )
        states = (entry or {}).get("state", [])
        if entry:
            hop.neighbour = {"address": address, "lladdr": entry.get("lladdr"), "state": " ".join(states)}
        segment = self._segment(namespace, dev)
        holders = [place for place in segment if address in addresses_of(self.look.links(place[0])[place[1]])]
        macs = {self._mac(*place): place for place in holders}
        if len(macs) > 1:
            self._break(
                "duplicate_address",
                f"{address} is held by {_and(_place(*place) for place in holders)}: which one answers is chance",
                "take the address from all but one of them",
            )
        self._check_target(namespace, dev, address, holders)
        if entry and entry.get("lladdr"):
            hop.destination_mac = entry["lladdr"]
            if macs and entry["lladdr"] not in macs:
                ((mac, place),) = macs.items()
                self._break(
                    "stale_neighbour",
                    f"the neighbour table says that {address} is at {entry['lladdr']} ({' '.join(states)}), "
                    f"and {_place(*place)} has {mac}",
                    f"{_command(namespace, f'neigh flush to {address} dev {dev}')}"
                    + (" nud permanent, and find out who wrote the entry" if "PERMANENT" in states else ""),
                )
        elif macs:
            ((mac, _place_of_it),) = macs.items()
            hop.destination_mac = mac
            hop.notes.append(f"{address} is not in the neighbour table now: ARP will ask for it")
        elif "FAILED" in states or hop.kind == "vxlan":
            self._break(
                "no_neighbour",
                f"nobody answers to {address} on {dev}",
                f"is {address} up and on this segment? See {_command(namespace, f'neigh show {address}')}",
            )
        else:
            hop.notes.append(f"{address} is not in the neighbour table now: ARP will ask for it")

    def _check_target(self, namespace: str, dev: str, address: str, holders: list[tuple[str, str]]) -> None:
        """Somebody of this host has the address, and cannot be reached by it."""
        for other in self.look.namespaces():
            for name, link in self.look.links(other).items():
                if name == "lo" or address not in addresses_of(link) or other == namespace:
                    continue
                if (other, name) in holders:
                    if not is_up(link):
                        self._break(
                            "interface_down",
                            f"{_place(other, name)}, which has {address}, is down",
                            f"{_command(other, f'link set {name} up')}; or {_AGAIN}",
                        )
                    continue
                peer = self.look.peer(other, link)
                bridges = self.look.links(namespace)[dev].get("linkinfo", {}).get("info_kind") == "bridge"
                if bridges and not holders and peer and peer[0] == namespace:
                    self._break(
                        "bridge_port_missing",
                        f"{peer[1]}, behind which {_place(other, name)} has {address}, is no port of {dev}",
                        f"{_command(namespace, f'link set {peer[1]} master {dev}')}; or {_AGAIN}",
                    )

    def _segment(self, namespace: str, dev: str) -> list[tuple[str, str]]:
        """The interfaces with an IP stack of their own that share an Ethernet segment with *dev*: through veth pairs and bridges."""
        ends, bridges, todo = [], set(), [(namespace, dev)]
        while todo:
            here, name = todo.pop()
            links = self.look.links(here)
            bridge = name if kind_of(links[name]) == "bridge" else links[name].get("master")
            ports = [port for port, link in links.items() if bridge and link.get("master") == bridge] or [name]
            if (here, bridge) in bridges:
                continue
            if bridge:
                bridges.add((here, bridge))
                ends.append((here, bridge))
            for port in ports:
                peer = self.look.peer(here, links[port]) if kind_of(links[port]) == "veth" else None
                if peer and self.look.links(peer[0])[peer[1]].get("master"):
                    todo.append(peer)
                elif peer:
                    ends.append(peer)
        return [place for place in ends if place != (namespace, dev)]

    def _frame(self, namespace: str, dev: str, hop: Hop) -> t.NoReturn:
        """A frame goes out by *dev*: into a bridge, through a veth pair, or off the host."""
        link = self.look.links(namespace)[dev]
        if hop.kind == "bridge":
            self._switch(namespace, dev, hop, "")
        if hop.kind == "veth":
            peer = self.look.peer(namespace, link)
            if peer:
                hop.peer = {"namespace": peer[0], "interface": peer[1], "index": link.get("link_index")}
                self._receive(*peer, hop)
            hop.notes.append(
                f"the other end, index {link.get('link_index')}, is in no namespace that has a name on this host"
            )
        self.left = {
            "interface": dev,
            "next_hop": hop.next_hop,
            "source_mac": hop.source_mac,
            "destination_mac": hop.destination_mac,
            "packet": hop.packet.as_data(),
        }
        raise _End("left")

    def _receive(self, namespace: str, dev: str, before: Hop) -> t.NoReturn:
        """A frame comes in by *dev*."""
        links = self.look.links(namespace)
        link = links[dev]
        hop = self._hop(namespace, dev, "takes in", before.packet)
        hop.source_mac, hop.destination_mac = before.source_mac, before.destination_mac
        if namespace != before.namespace:
            self.mark = 0  # skb_scrub_packet
        if hop.kind == "veth":
            hop.peer = {"namespace": before.namespace, "interface": before.interface, "index": link.get("link_index")}
        if not is_up(link):
            self._break("interface_down", f"{dev} is down", f"{_command(namespace, f'link set {dev} up')}; or {_AGAIN}")
        master = link.get("master")
        if master:
            self._enter_bridge(namespace, dev, hop)
        target = hop.destination_mac
        if target not in (None, link["address"]):
            bridge = next(
                (name for name, item in links.items() if kind_of(item) == "bridge" and item["address"] == target), ""
            )
            if bridge:
                self._break(
                    "bridge_port_missing",
                    f"{dev} is no port of {bridge}, which the frame is for ({target})",
                    f"{_command(namespace, f'link set {dev} master {bridge}')}; or {_AGAIN}",
                )
            self._break(
                "stale_neighbour",
                f"the frame is for {target}, and {_place(namespace, dev)} has {link['address']}: it is not taken",
                f"{_command(before.namespace, f'neigh flush dev {before.interface}')}",
            )
        self._input(namespace, dev, hop.packet)

    def _enter_bridge(self, namespace: str, port: str, hop: Hop) -> t.NoReturn:
        """A frame comes to a bridge's port."""
        links = self.look.links(namespace)
        bridge = links[port]["master"]
        state = links[port].get("linkinfo", {}).get("info_slave_data", {}).get("state", "forwarding")
        hop.does = f"is a port of {bridge}"
        if not is_up(links[bridge]):
            self._break(
                "interface_down", f"{bridge} is down", f"{_command(namespace, f'link set {bridge} up')}; or {_AGAIN}"
            )
        if state != "forwarding":
            self._break(
                "bridge_port_blocked",
                f"the port {port} of {bridge} is {state}",
                f"see bridge link show dev {port}: spanning tree, or a forward_delay that runs",
            )
        if hop.destination_mac == links[bridge]["address"]:
            inner = self._hop(namespace, bridge, "takes in", hop.packet)
            inner.source_mac, inner.destination_mac = hop.source_mac, hop.destination_mac
            self._input(namespace, bridge, hop.packet)
        self._switch(namespace, bridge, hop, port)

    def _switch(self, namespace: str, bridge: str, hop: Hop, came_by: str) -> t.NoReturn:
        """The bridge's table says which port the frame leaves by."""
        links = self.look.links(namespace)
        hop.asked.append(("ip netns exec %s " % namespace if namespace else "") + f"bridge fdb show br {bridge}")
        entry = next(
            (
                item
                for item in self.look.forwarding_entries(namespace)
                if item["mac"] == hop.destination_mac and item.get("master") == bridge
            ),
            None,
        )
        if entry:
            port = entry["ifname"]
            hop.forwarding_entry = {"lladdr": entry["mac"], "port": port, "state": entry.get("state") or "learned"}
        else:
            port = self._port_towards(namespace, bridge, hop.destination_mac)
            hop.notes.append(
                f"{hop.destination_mac or 'the MAC'} is not in the table of {bridge}: the frame goes to all ports"
            )
            if not port:
                self.left = {"interface": bridge, "packet": hop.packet.as_data()}
                raise _End("left")
        self._bridge_rules(namespace, hop, bridge, came_by, port)
        if port == came_by and not links[port].get("linkinfo", {}).get("info_slave_data", {}).get("hairpin"):
            self._break(
                "hairpin",
                f"the frame would leave by {port}, where it came in, and hairpin is off",
                "bridge link set hairpin on",
            )
        out = self._hop(namespace, port, f"is a port of {bridge}", hop.packet)
        out.source_mac, out.destination_mac = hop.source_mac, hop.destination_mac
        if not is_up(links[port]):
            self._break(
                "interface_down", f"{port} is down", f"{_command(namespace, f'link set {port} up')}; or {_AGAIN}"
            )
        self._frame(namespace, port, out)

    def _bridge_rules(self, namespace: str, hop: Hop, bridge: str, came_by: str, port: str) -> None:
        """Rules of the bridge family, and with br_netfilter those of iptables too."""
        packet = hop.packet
        meta = self._meta(packet, came_by, port, hop)
        self._judge(namespace, "forward" if came_by else "output", "bridge", meta, packet)
        if came_by and self.look.sysctl(namespace, "net/bridge/bridge-nf-call-iptables") == "1":
            self._judge(namespace, "forward", "ip", replace(meta, iif=bridge, oif=bridge), packet)

    def _port_towards(self, namespace: str, bridge: str, mac: str | None) -> str:
        for name, link in self.look.links(namespace).items():
            if link.get("master") == bridge:
                peer = self.look.peer(namespace, link) if kind_of(link) == "veth" else None
                if peer and self._mac(*peer) == mac:
                    return name
        return ""

    # -------------------------------------------------------------------------------------------- tunnels

    def _wrap_ipip(self, namespace: str, link: Facts, lookup: Lookup, packet: Packet) -> t.NoReturn:
        """ip_tunnel_xmit: a second header, addressed by the device, or by the route's gateway."""
        name, data = link["ifname"], link["linkinfo"].get("info_data", {})
        remote = given(data.get("remote")) or lookup.via
        local = given(data.get("local"))
        if not remote:
            self._break(
                "wrong_gateway",
                f"{name} has remote any, and the route has no gateway that could be the far end",
                f"give the route a gateway: {self.overlay.route}"
                if self.overlay.subnet
                else "give the route a gateway",
            )
        self._check_local(namespace, name, local)
        ttl = data.get("ttl") or packet.ttl
        df = bool(data.get("pmtudisc")) or packet.df
        self._wrap(
            namespace, link, local, remote, Packet(local, remote, "ipip", ttl, packet.length + IP, df, inner=packet)
        )

    def _check_local(self, namespace: str, name: str, local: str) -> None:
        if local and local not in self._own(namespace):
            self._break(
                "wrong_local",
                f"{name} sends as {local}, which is no address of this host: the kernel drops what it sends",
                f"ip link set {name} type {kind_of(self.look.links(namespace)[name])} local {self.overlay.local or 'ADDRESS'}; "
                f"or {_AGAIN}",
            )
        if local and self.overlay.local not in ("", local):
            self._break(
                "wrong_local",
                f"{name} sends as {local}, and the other nodes take from this one only {self.overlay.local}",
                f"ip link set {name} type {kind_of(self.look.links(namespace)[name])} local {self.overlay.local}; or {_AGAIN}",
            )

    def _wrap_vxlan(self, namespace: str, link: Facts, packet: Packet) -> t.NoReturn:
        """vxlan_xmit: the forwarding entry of the far device's MAC says to which host the frame goes."""
        hop, name, data = self.here, link["ifname"], link["linkinfo"].get("info_data", {})
        hop.asked.append(f"bridge fdb show dev {name}")
        entry = next(
            (
                item
                for item in self.look.forwarding_entries(namespace)
                if (item["mac"], item["ifname"]) == (hop.destination_mac, name) and item.get("dst")
            ),
            None,
        )
        remote = entry["dst"] if entry else given(data.get("remote"))
        if not remote:
            self._break(
                "no_forwarding_entry",
                f"{name} has no forwarding entry for {hop.destination_mac}: it does not know to which host",
                _AGAIN,
            )
        hop.forwarding_entry = {"lladdr": hop.destination_mac, "dst": remote} if entry else None
        local = given(data.get("local"))
        self._check_local(namespace, name, local)
        length = packet.length + ETHERNET + VXLAN + UDP + IP
        outer = Packet(
            local,
            remote,
            "udp",
            data.get("ttl") or 64,
            length,
            data.get("df") == "set",
            dport=int(data.get("port", 4789)),
            vni=int(data.get("id", 0)),
            inner=packet,
            inner_source_mac=hop.source_mac or "",
            inner_destination_mac=hop.destination_mac or "",
        )
        self._wrap(namespace, link, local, remote, outer)

    def _wrap(self, namespace: str, link: Facts, local: str, remote: str, outer: Packet) -> t.NoReturn:
        hop = self.here
        lookup = self.look.route(namespace, remote, local, mark=self.mark)
        hop.asked.append(lookup.asked)
        hop.does = "wraps"
        if lookup.error:
            self._break(
                "no_route",
                f"the far end {remote} cannot be reached: {lookup.error}",
                f"bring the underlay up: {lookup.asked}",
            )
        hop.outer_route = _route(lookup)
        if lookup.dev == link["ifname"]:
            self._break(
                "loop",
                f"the route to the far end {remote} leads into the tunnel itself",
                f"give {remote} a route by the underlay",
            )
        source = local or lookup.src
        self._transmit(namespace, lookup, replace(outer, src=source))

    def _deliver(self, namespace: str, packet: Packet) -> t.NoReturn:
        """The packet is for this host: for a tunnel of it, or it has arrived."""
        if packet.inner is None:
            self.here.does = "delivers"
            raise _End("delivered")
        name = self._tunnel_for(namespace, packet)
        link = self.look.links(namespace)[name]
        inner = packet.inner
        hop = self._hop(namespace, name, "unwraps", inner)
        if packet.protocol == "udp":
            hop.source_mac = packet.inner_source_mac or None
            hop.destination_mac = packet.inner_destination_mac or link["address"]
            if hop.destination_mac != link["address"]:
                self._break(
                    "stale_neighbour",
                    f"the frame is for {hop.destination_mac}, and {name} has {link['address']}: it is not taken",
                    f"{_AGAIN} on both hosts",
                )
        self._input(namespace, name, inner)

    def _tunnel_for(self, namespace: str, packet: Packet) -> str:
        """ip_tunnel_lookup: by both ends, by the far one, by the near one, and last a tunl0 that is up."""
        kind = "ipip" if packet.protocol == "ipip" else "vxlan"
        candidates = {}
        for name, link in self.look.links(namespace).items():
            data = link.get("linkinfo", {}).get("info_data", {})
            if kind_of(link) != kind or not is_up(link):
                continue
            local, remote = given(data.get("local")), given(data.get("remote"))
            if kind == "vxlan":
                if (data.get("id"), data.get("port")) == (packet.vni, packet.dport):
                    candidates[0] = name
            elif local in ("", packet.dst) and remote in ("", packet.src):
                candidates[-2 * bool(remote) - bool(local)] = name
        if candidates:
            return candidates[min(candidates)]
        return self._no_tunnel(namespace, kind, packet)

    def _no_tunnel(self, namespace: str, kind: str, packet: Packet) -> t.NoReturn:
        name = self.overlay.tunnel
        link = self.look.links(namespace).get(name)
        if not link:
            self._break("tunnel_missing", f"there is no {kind} device for what comes to {packet.dst}", _AGAIN)
        if not is_up(link):
            self._break("tunnel_down", f"the tunnel {name} is down", _AGAIN)
        local = given(link.get("linkinfo", {}).get("info_data", {}).get("local"))
        self._break(
            "wrong_local",
            f"{name} takes what comes to {local or 'any address'}, and the packet comes from {packet.src} to {packet.dst}",
            f"ip link set {name} type {kind} local {packet.dst}; or {_AGAIN}",
        )

    # -------------------------------------------------------------------------------------------- small things

    def _own(self, namespace: str) -> set[str]:
        return {address for link in self.look.links(namespace).values() for address in addresses_of(link)}

    def _mac(self, namespace: str, dev: str) -> str:
        return str(self.look.links(namespace).get(dev, {}).get("address", ""))

    def _first_interface(self, namespace: str) -> str:
        """Where a person would look first: the interface with the packet's source, else the first that is not lo."""
        links = self.look.links(namespace) if self.look.exists(namespace) else {}
        names = [name for name in links if name not in ("lo", "tunl0")]
        holder = [name for name in names if self.option["src"] in addresses_of(links[name])]
        return next(iter(holder + names), "lo")


def _route(lookup: Lookup) -> Facts:
    found = lookup.route or {}
    others = ", ".join(lookup.others)
    why = f"the longest that matches; {others} would too" if others else "the only one that matches"
    if lookup.type == "local":
        why = "an address of this host"
    return {
        "dst": found.get("dst", ""),
        "via": lookup.via,
        "dev": found.get("dev", lookup.dev),
        "src": lookup.src,
        "type": lookup.type,
        "table": str(found.get("table", "local" if lookup.type == "local" else "main")),
        "protocol": str(found.get("protocol", "boot")),
        "metric": found.get("metric", 0),
        "onlink": "onlink" in found.get("flags", []),
        "why": why,
    }


def _place(namespace: str, interface: str) -> str:
    return f"{interface} of {namespace}" if namespace else interface


def _command(namespace: str, words: str) -> str:
    return f"ip -n {namespace} {words}" if namespace else f"ip {words}"


def _and(words: t.Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
