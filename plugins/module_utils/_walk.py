# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follows a packet through a host, from interface to interface, by the kernel's own answers (``Look``).

It does in order what the kernel does: look up a route, ask the rules, find the neighbour, cross the veth pair, look into
the bridge's table, wrap and unwrap. Where the kernel would drop the packet it ends, and ``_faults`` says why. Nothing is sent.

A hop is one interface at which the packet can be seen, with the decisions made there. What leaves by an interface whose
other end is in no namespace of this host has left it, and the other host's walk goes on from there.

A packet whose addresses a rule translates goes on with the new ones. What was translated is kept as connection tracking
keeps it, so that the walk of the answer gets them back.

Sources: ip_output.c, ip_input.c, ip_tunnel.c, vxlan_core.c and br_input.c of the kernel; RFC 2003 (IPIP), RFC 7348 (VXLAN).
"""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import asdict, dataclass, replace
from functools import partial

from . import _faults as faults
from ._hops import (
    ETHERNET,
    IP,
    PROTOCOLS,
    TRANSLATIONS,
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
from ._rules import Host, Meta, passed
from ._segment import device_facts, holders, mac_at, port_towards, segment

_MOST_HOPS = 64
_ECHO, _ECHO_REPLY = 8, 0  # RFC 792
_ASKED = ("icmp", "tcp", "udp")  # what ip-route(8) knows as ipproto
_Ends = tuple[str, str, int, int]  # source, destination, and their ports


class _End(Exception):
    """The walk is over: ``delivered``, ``left``, ``translated`` or ``broken``."""


@dataclass(frozen=True)
class _Connection:
    """What connection tracking has of a translated one: the packet as it was first, and as it is now."""

    namespace: str
    protocol: str
    first: _Ends
    now: _Ends

    def back(self, packet: Packet) -> _Ends | None:
        """What an answer gets in place of its ends, None for what is no answer."""
        (source, destination, sport, dport), first = self.now, self.first
        wanted = (destination, source, dport, sport)
        same = all(has == want or not (has and want) for has, want in zip(_ends(packet), wanted))
        return (first[1], first[0], first[3], first[2]) if same and packet.protocol == self.protocol else None


def walk_all(look: Look, options: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, Facts]:
    """Follow packets one after the other; *options* and the answer are as podnet.overlay.walk documents them.

    Raises:
        NodeError: the host does not answer.
    """
    walks: dict[str, Facts] = {}
    connections: list[_Connection] = []
    for option in options:
        answered = walks.get(option.get("answers") or "")
        walks[option["name"]] = walk(look, {**option, **_answer_to(answered)}, connections)
    return walks


def walk(look: Look, option: t.Mapping[str, t.Any], connections: list[_Connection] | None = None) -> Facts:
    """Follow one packet. *connections* are those that walks before it have translated; its own are added."""
    wanted = option.get("overlay") or {}
    known = {key: wanted[key] for key in Overlay.__dataclass_fields__ if wanted.get(key) is not None}
    return _Walker(look, Overlay(**known), option, [] if connections is None else connections).go()


def _answer_to(walked: Facts | None) -> Facts:
    """What answers the packet of another walk, and where it starts: where that was delivered, or outside where it left."""
    end: Facts | None = (walked["delivered"] or walked["left"]) if walked else None
    if not walked or not end or walked["end"] == "broken" or end["packet"].get("inner"):
        return {}
    packet, place = end["packet"], {"namespace": end["namespace"], "arrives": not walked["delivered"]}
    place.update({"interface": end["interface"]} if walked["left"] else {})
    ports = {"sport": packet.get("dport", 0), "dport": packet.get("sport", 0)}
    return {"src": packet["dst"], "dst": packet["src"], **ports, **place}


class _Walker:
    """One packet's way. Each step is named for what the kernel does, and ends in the next one or in the end of the walk."""

    def __init__(
        self, look: Look, overlay: Overlay, option: t.Mapping[str, t.Any], connections: list[_Connection]
    ) -> None:
        self.look, self.overlay, self.option, self.connections = look, overlay, option, connections
        self.mark: int | None = int(option.get("mark") or 0)
        self._untracked()
        self.hops: list[Hop] = []
        self.left: Facts | None = None
        self.delivered: Facts | None = None
        self.learned: tuple[Hop, Problem] | None = None
        """What the kernel believes of the path's MTU, in case nothing better explains a packet that is too long."""

    @property
    def here(self) -> Hop:
        return self.hops[-1]

    def _untracked(self) -> None:
        """From here on it belongs to no connection yet, as after nf_reset_ct()."""
        self.state: str | None = "established" if self.option.get("reply") else "new"
        self.status: int | None = 0
        self.first: _Ends | None = None
        """Where a rule has translated its connection: how the packet was before."""
        self.back: _Ends | None = None
        """Where it answers a translated one: what it gets back."""

    def go(self) -> Facts:
        option = self.option
        packet = Packet(
            option["src"],
            option["dst"],
            option.get("protocol") or "icmp",
            option.get("ttl") or 64,
            option.get("size") or 84,
            option.get("df") is not False,
            option.get("sport") or 0,
            option.get("dport") or 0,
        )
        namespace = option.get("namespace") or ""
        try:
            if option.get("arrives"):
                self._arrive(namespace, _wrapped(packet, option.get("outer")))
            else:
                self._send(namespace, packet)
        except _End as end:
            return self._answer(str(end))

    def _answer(self, end: str) -> Facts:
        if self.learned and end != "broken":
            hop, problem = self.learned
            hop.problems.append(problem)
            end = "broken"
        if not self.option.get("arrives"):
            faults.of_room(self.hops)
        delivered = self.delivered if end == "delivered" else None
        return {"end": end, "left": self.left, "delivered": delivered, "hops": [hop.as_data() for hop in self.hops]}

    def _hop(self, namespace: str, name: str, does: str, packet: Packet) -> Hop:
        link = self.look.links(namespace).get(name, {}) if self.look.exists(namespace) else {}
        link_type = "raw" if link.get("link_type") in ("ipip", "none") else "ethernet"
        hop = Hop(namespace, name, does, packet, kind_of(link), link.get("ifindex", 0), link_type, link.get("mtu", 0))
        self.hops.append(hop)
        if len(self.hops) > _MOST_HOPS:
            self._stop(Problem("loop", "the packet goes in a circle", "look at the routes named above: one leads back"))
        return hop

    def _stop(self, problem: Problem | None) -> None:
        """End here if there is a problem."""
        if problem is not None:
            self.here.problems.append(problem)
            raise _End("broken")

    def _doubt(self, fault: str, reason: str, remedy: str) -> None:
        self.here.problems.append(Problem(fault, reason, remedy, fatal=False))

    # -------------------------------------------------------------------------------------------- layer 3

    def _send(self, namespace: str, packet: Packet) -> t.NoReturn:
        """A packet that is made in *namespace*."""
        self._expect(namespace, packet)
        lookup = self._route(namespace, packet, packet.src)
        first = self._first_interface(namespace)
        hop = self._hop(namespace, "lo" if lookup.type == "local" else lookup.dev or first, "sends", packet)
        own = self._own(namespace)
        if packet.src not in (*own, *addresses_of(self.look.links(namespace).get("lo", {}))):
            reason = (
                f"{namespace or 'this host'} does not have the address {packet.src}; it has {', '.join(own) or 'none'}"
            )
            raise self._broken("no_address", reason, faults.AGAIN)
        if lookup.error and first != "lo":
            self._stop(faults.of_link(namespace, self.look.links(namespace)[first]))
        self._decide(namespace, lookup, packet)
        self._transmit(namespace, lookup, packet, hop=hop)

    def _expect(self, namespace: str, packet: Packet) -> None:
        if not self.look.exists(namespace):
            self._hop(namespace, "", "would be", packet)
            raise self._broken("no_namespace", f"there is no network namespace {namespace}", faults.AGAIN)

    def _arrive(self, namespace: str, packet: Packet) -> t.NoReturn:
        """A packet that comes over the underlay: by the interface that leads to its sender."""
        self._expect(namespace, packet)
        links = self.look.links(namespace)
        left_by = self.option.get("interface")  # the packet that it answers
        target = packet.dst if packet.inner else self.overlay.local or packet.dst
        having = [name for name, link in links.items() if target in addresses_of(link)]
        physical = [name for name, link in links.items() if not kind_of(link)]
        back = self.look.route(namespace, packet.src)
        dev = (
            back.dev
            if having and packet.inner and back.dev in links and back.dev != "lo"
            else next(iter(having + physical), "")
        )
        dev = left_by if left_by in links else dev
        hop = self._hop(namespace, dev, "takes in", packet)
        hop.destination_mac = mac_at(self.look, (namespace, dev)) or None
        hop.macs = [link["address"] for link in links.values() if link.get("link_type") == "ether" and is_up(link)]
        if not having and not left_by:
            reason = f"{target}, which the packets are sent to, is no address of this host"
            remedy = "give the host its public_ip back, or change overlay_public_ip and run overlay.yml"
            raise self._broken("foreign_outer", reason, remedy)
        down = next((links[name] for name in having[:1] if not is_up(links[name])), links[dev])
        self._stop(faults.of_link(namespace, down))
        self._input(namespace, dev, packet)

    def _input(self, namespace: str, dev: str, packet: Packet) -> t.NoReturn:
        """ip_rcv: what comes in by *dev* is for this host, or to be forwarded."""
        self._ask_rules(namespace, "ingress", packet, iif=dev)
        packet = self._ask_rules(namespace, "prerouting", packet, iif=dev)
        lookup = self._route(namespace, packet, packet.src, iif=dev)
        self._decide(namespace, lookup, packet, dev)
        if lookup.type == "local":
            self._deliver(namespace, self._ask_rules(namespace, "input", packet, iif=dev))
        if packet.ttl <= 1:
            raise self._broken("ttl", "the time to live is used up here", "look for a loop in the routes named above")
        forwarded = replace(packet, ttl=packet.ttl - 1)
        self._ask_rules(namespace, "forward", forwarded, iif=dev, oif=lookup.dev)
        self._transmit(namespace, lookup, forwarded, iif=dev)

    def _route(self, namespace: str, packet: Packet, src: str, **options: str) -> Lookup:
        protocol = packet.protocol if packet.protocol in _ASKED else ""
        return self.look.route(namespace, packet.dst, src, mark=self.mark or 0, protocol=protocol, **options)

    def _decide(self, namespace: str, lookup: Lookup, packet: Packet, dev: str = "") -> None:
        """Note the route, and end where there is none or it is not the one that the overlay wants."""
        self.here.asked.append(lookup.asked)
        if lookup.error:
            self._stop(faults.of_lookup(self.look, self.overlay, namespace, packet, lookup, dev))
        self.here.route = _route_facts(lookup)
        if lookup.type not in ("unicast", "local"):
            raise self._broken(
                "no_route", f"{packet.dst} is a {lookup.type} address here", "send to an address of one host"
            )
        nexthops = len((lookup.route or {}).get("nexthops", []))
        if nexthops > 1:
            self.here.notes.append(f"one of {nexthops} next hops: other packets may go by another")
        self._stop(faults.off_course(self.look, self.overlay, namespace, packet, lookup))

    def _transmit(
        self, namespace: str, lookup: Lookup, packet: Packet, *, iif: str = "", hop: Hop | None = None
    ) -> t.NoReturn:
        """ip_output: by *lookup*'s device to its gateway. *iif* is where a forwarded packet came in."""
        if not iif:
            before, packet = packet, self._ask_rules(namespace, "output", packet, oif=lookup.dev)
            if packet.dst != before.dst:  # ip_route_me_harder
                lookup, hop = self._reroute(namespace, packet, hop)
        packet = self._ask_rules(namespace, "postrouting", packet, iif=iif, oif=lookup.dev, next_hop=lookup.via)
        if lookup.type == "local":
            hop = hop or self._hop(namespace, "lo", "delivers", packet)
            hop.packet = packet
            packet = self._ask_rules(namespace, "prerouting", packet, iif="lo")
            self._deliver(namespace, self._ask_rules(namespace, "input", packet, iif="lo"))
        link = self.look.links(namespace)[lookup.dev]
        hop = hop or self._hop(namespace, lookup.dev, "sends", packet)
        hop.packet = packet
        hop.next_hop = lookup.via or packet.dst
        self._ask_rules(namespace, "egress", packet, oif=lookup.dev)
        self._check_size(packet, lookup, hop, made_here=not iif)
        if hop.kind == "ipip":
            self._stop(faults.of_link(namespace, link))
            self._wrap_ipip(namespace, link, lookup, packet)
        if hop.link == "ethernet":
            self._resolve(namespace, lookup.dev, hop)
        self._stop(faults.of_link(namespace, link))
        if hop.kind == "vxlan":
            self._wrap_vxlan(namespace, link, packet)
        self._frame(namespace, lookup.dev, hop)

    def _reroute(self, namespace: str, packet: Packet, hop: Hop | None) -> tuple[Lookup, Hop | None]:
        """Another way for what was made here and got another destination. It is not seen where it would have gone before."""
        lookup = self._route(namespace, packet, packet.src)
        if hop is not None:
            self.hops.remove(hop)
            name = "lo" if lookup.type == "local" else lookup.dev or hop.interface
            again = self._hop(namespace, name, hop.does, packet)
            again.rules, again.notes, again.problems, again.asked = hop.rules, hop.notes, hop.problems, hop.asked
            hop = again
        self._decide(namespace, lookup, packet)
        return lookup, hop

    def _check_size(self, packet: Packet, lookup: Lookup, hop: Hop, *, made_here: bool) -> None:
        mtu = min(hop.mtu, lookup.mtu or hop.mtu)
        self._stop(faults.of_size(packet, hop, mtu))
        if packet.length > mtu:
            hop.notes.append(f"goes in fragments: {packet.length} bytes, MTU {mtu}")
        if 0 < lookup.learned < mtu:
            hop.notes.append(f"the kernel has learned from ICMP that the path takes {lookup.learned} bytes")
            problem = faults.of_size(packet, hop, lookup.learned) if made_here else None
            self.learned = (hop, problem) if problem else self.learned

    def _deliver(self, namespace: str, packet: Packet) -> t.NoReturn:
        """The packet is for this host: for a tunnel of it, or it has arrived."""
        if packet.inner is None:
            self.here.does = "delivers"
            silent = self.look.sysctl(namespace, "net/ipv4/icmp_echo_ignore_all") == "1"
            if silent and packet.protocol == "icmp" and not self.option.get("reply"):
                where = namespace or "this host"
                raise self._broken(
                    "echo_ignored",
                    f"{where} answers no echo request (net.ipv4.icmp_echo_ignore_all is 1)",
                    f"{_in(namespace)}sysctl -w net.ipv4.icmp_echo_ignore_all=0, or probe it another way",
                )
            self.delivered = {"namespace": namespace, "packet": packet.as_data()}
            raise _End("delivered")
        name = self._tunnel_for(namespace, packet)
        link, inner = self.look.links(namespace)[name], packet.inner
        self._untracked()  # and the mark stays: skb_scrub_packet
        hop = self._hop(namespace, name, "unwraps", inner)
        if packet.protocol == "udp":
            before = self.hops[-2]
            hop.source_mac = packet.inner_source_mac or None
            hop.destination_mac = packet.inner_destination_mac or link["address"]
            self._stop(faults.of_target(self.look, hop, before))
        self._input(namespace, name, inner)

    # -------------------------------------------------------------------------------------------- rules

    def _ask_rules(
        self, namespace: str, hook: str, packet: Packet, *, iif: str = "", oif: str = "", next_hop: str = ""
    ) -> Packet:
        """The hooks of layer 3, and ``ingress`` and ``egress`` of a device. The packet as it leaves them."""
        family = "netdev" if hook in ("ingress", "egress") else "ip"
        meta = self._meta(packet, iif, oif)
        if family == "ip" and self.state == "established":
            found = (each.back(packet) for each in self.connections if each.namespace == namespace)
            self.back = self.back or next(filter(None, found), None)
            meta = replace(meta, back=self.back and (*self.back[:2], *(port or None for port in self.back[2:])))
        after = self._judge(namespace, hook, family, meta, packet, next_hop or packet.dst)
        translated = self._translated(packet, after)
        if translated != packet and self.state == "new":
            self.first = self.first or _ends(packet)
            now = _Connection(namespace, packet.protocol, self.first, _ends(translated))
            kept = [each for each in self.connections if (each.namespace, each.first) != (namespace, self.first)]
            self.connections[:] = [*kept, now]
        return translated

    def _translated(self, packet: Packet, after: Meta) -> Packet:
        """The packet with the addresses that it has after a hook."""
        changed = replace(packet, src=after.src or packet.src, dst=after.dst or packet.dst)
        if self.back or (self.state == "new" and self.status is not None):  # else what may be is told as a problem
            changed = replace(changed, sport=after.sport or 0, dport=after.dport or 0)
        if self.state == "established" and changed != packet:
            sides = ("source", "src") if changed.src != packet.src else ("destination", "dst")
            was, became = (getattr(each, sides[1]) for each in (packet, changed))
            if was != became:
                self.here.notes.append(f"answers a translated connection: its {sides[0]} {was} becomes {became}")
        return changed

    def _meta(self, packet: Packet, iif: str, oif: str, pkttype: str | None = None) -> Meta:
        """What the rules see of a packet. VXLAN's source port is a hash, so its two ways are two connections."""
        hop = self.here
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
            icmp_type=(_ECHO_REPLY if self.option.get("reply") else _ECHO) if packet.protocol == "icmp" else None,
            source_mac=hop.source_mac,
            destination_mac=hop.destination_mac,
            pkttype=pkttype,
            vni=packet.vni if packet.inner else None,
            ct="new" if packet.protocol == "udp" and packet.inner else self.state,
            status=self.status,
            original=self.first,
        )

    def _judge(self, namespace: str, hook: str, family: str, meta: Meta, packet: Packet, next_hop: str = "") -> Meta:
        """Ask the rules of a hook. The packet as they leave it, unless one of them stops it."""
        listing, unread = self.look.rules(namespace)
        device = meta.oif if hook == "postrouting" else meta.iif
        own = partial(self._own_address, namespace, device, next_hop if hook == "postrouting" else "")
        rulings, after = passed(listing, hook, family, meta, Host(partial(self._type_of, namespace), own))
        self.mark, self.state, self.status = after.mark, after.ct, after.status
        self.here.rules += [asdict(ruling) for ruling in rulings]
        for reason in unread:
            if all(reason not in problem.reason for each in self.hops for problem in each.problems):
                remedy = "set become: true" if "not permitted" in reason else "look at the rules there by hand"
                self._doubt("not_judged", reason, remedy)
        for ruling in rulings:
            if ruling.stops:
                self._stop(faults.of_ruling(ruling, packet))
            if ruling.verdict in TRANSLATIONS:
                side = TRANSLATIONS[ruling.verdict]
                if getattr(after, side) is None:
                    self._doubt(
                        "translated",
                        f"{ruling.where} translates its addresses: {ruling.rule}; to what is not known",
                        "keep the overlay's network out of that rule, or see with capture=true what becomes of it",
                    )
                    raise _End("translated")
                self.here.notes.append(_told(ruling.verdict, packet, after))
        return after

    def _type_of(self, namespace: str, address: str) -> str:
        """What an address is to this host: inet_addr_type() looks into the table local only."""
        number = ipaddress.IPv4Address(address)
        if number.is_multicast:
            return "multicast"
        if number in _ZERO or address == _EVERYBODY:
            return "broadcast"
        found = [route for route in self.look.routes(namespace, "table local") if number in _network(route["dst"])]
        longest = max(found, key=lambda route: _network(route["dst"]).prefixlen, default={})
        return str(longest.get("type", "unicast"))

    def _own_address(self, namespace: str, device: str, towards: str) -> str | None:
        """inet_select_addr(): the first address of a device, rather one of the network that it sends into."""
        link = self.look.links(namespace).get(device, {})
        found = [
            item
            for item in link.get("addr_info", [])
            if item["family"] == "inet" and item.get("scope") == "global" and not item.get("secondary")
        ]
        near = [item for item in found if towards and ipaddress.IPv4Address(towards) in _subnet(item)]
        return next((str(item["local"]) for item in near + found), None)

    def _broken(self, fault: str, reason: str, remedy: str) -> _End:
        self.here.problems.append(Problem(fault, reason, remedy))
        return _End("broken")

    # -------------------------------------------------------------------------------------------- layer 2

    def _resolve(self, namespace: str, dev: str, hop: Hop) -> None:
        """The MAC of the next hop: what the neighbour table says, against who really has the address."""
        address = hop.next_hop
        hop.source_mac = mac_at(self.look, (namespace, dev))
        hop.asked.append(faults.command(namespace, f"neigh show {address} dev {dev}"))
        entries = (item for item in self.look.neighbours(namespace) if (item["dst"], item["dev"]) == (address, dev))
        entry = next(entries, None)
        if entry:
            hop.neighbour = {"address": address, "lladdr": entry.get("lladdr"), "state": " ".join(entry["state"])}
        places, whole = segment(self.look, namespace, dev)
        found = holders(self.look, places, address)
        self._stop(faults.of_neighbour(self.look, namespace, dev, address, entry, found))
        if entry and entry.get("lladdr"):
            hop.destination_mac = entry["lladdr"]
            return
        hop.destination_mac = mac_at(self.look, found[0]) if found else None
        if hop.kind == "vxlan":
            reason = f"{dev} has no neighbour entry for {address}, and nobody answers ARP in the tunnel"
            raise self._broken("no_neighbour", reason, faults.AGAIN)
        if whole and not found:
            reason = f"nobody on the segment of {dev} has {address}"
            raise self._broken("no_neighbour", reason, f"is {address} the right address? See the pods' addresses")
        hop.notes.append(f"{address} is not in the neighbour table now: ARP will ask for it")

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
            index = link.get("link_index")
            hop.notes.append(f"the other end, index {index}, is in no namespace that has a name on this host")
        self._leave(namespace, dev, hop)

    def _leave(self, namespace: str, dev: str, hop: Hop) -> t.NoReturn:
        self.left = {
            "namespace": namespace,
            "interface": dev,
            "next_hop": next(each.next_hop for each in reversed(self.hops) if each.next_hop),
            "source_mac": hop.source_mac,
            "destination_mac": hop.destination_mac,
            "packet": hop.packet.as_data(),
        }
        raise _End("left")

    def _receive(self, namespace: str, dev: str, before: Hop) -> t.NoReturn:
        """A frame comes in by *dev*."""
        link = self.look.links(namespace)[dev]
        hop = self._hop(namespace, dev, "takes in", before.packet)
        hop.source_mac, hop.destination_mac = before.source_mac, before.destination_mac
        hop.peer = {"namespace": before.namespace, "interface": before.interface, "index": link.get("link_index")}
        self._untracked()  # skb_scrub_packet
        if namespace != before.namespace:
            self.mark = 0
        self._stop(faults.of_link(namespace, link) or faults.of_frame_size(hop.packet, namespace, link))
        if link.get("master"):
            self._ask_rules(namespace, "ingress", hop.packet, iif=dev)
            self._enter_bridge(namespace, dev, hop)
        self._stop(faults.of_target(self.look, hop, before))
        self._input(namespace, dev, hop.packet)

    def _enter_bridge(self, namespace: str, port: str, hop: Hop) -> t.NoReturn:
        """A frame comes to a bridge's port: it is for the bridge's own stack, or for another port."""
        links = self.look.links(namespace)
        bridge = links[port]["master"]
        hop.does = f"is a port of {bridge}"
        if device_facts(links[bridge]).get("vlan_filtering"):
            self._doubt("not_judged", f"{bridge} filters VLANs, which is not looked at", "see bridge vlan show")
        self._stop(faults.of_port(links[port]) or faults.of_link(namespace, links[bridge]))
        before, own = hop.destination_mac, links[bridge]["address"]
        after = self._ask_bridge_rules(
            namespace, "prerouting", hop.packet, iif=port, pkttype="host" if before == own else "other"
        )
        mac = after.destination_mac
        if mac != before:
            hop.notes.append(f"a rule of the bridge sends it to {mac or 'another MAC'} in place of {before}")
        if mac == own:
            if after.pkttype != "host":
                reason = f"a rule hands it to {bridge} itself, and leaves its packet type at {after.pkttype}: IP takes no such"
                raise self._broken("filtered", reason, "give that rule: meta pkttype set host")
            self._ask_bridge_rules(namespace, "input", hop.packet, iif=port, pkttype="host")
            inner = self._hop(namespace, bridge, "takes in", hop.packet)
            inner.source_mac, inner.destination_mac = hop.source_mac, mac
            self._input(namespace, bridge, hop.packet)
        if self._calls_iptables(namespace, bridge):
            packet = self._ask_rules(namespace, "prerouting", hop.packet, iif=bridge)
            if packet.dst != hop.packet.dst:
                reason = f"br_netfilter has a rule translate what {bridge} passes on, which is not followed"
                self._doubt("translated", reason, "see with capture=true what becomes of it")
                raise _End("translated")
        self._switch(namespace, bridge, hop, port, mac)

    def _switch(self, namespace: str, bridge: str, hop: Hop, came_by: str, mac: str | None = None) -> t.NoReturn:
        """The bridge's table says which port the frame leaves by. *mac* is where it goes, if a rule has changed that."""
        links, mac = self.look.links(namespace), mac or hop.destination_mac
        hop.asked.append(f"{_in(namespace)}bridge fdb show br {bridge}")
        entries = (
            item
            for item in self.look.forwarding_entries(namespace)
            if item["mac"] == mac and item.get("master") == bridge
        )
        entry = next(entries, None)
        if entry:
            port = entry["ifname"]
            hop.forwarding_entry = {"lladdr": entry["mac"], "port": port, "state": entry.get("state") or "learned"}
        else:
            port = port_towards(self.look, namespace, bridge, mac)
            what = mac or "the MAC"
            hop.notes.append(f"{what} is not in the table of {bridge}: the frame goes to all ports")
            if not port:
                self._leave(namespace, bridge, hop)
        self._stop(faults.of_link(namespace, links[port]) or faults.of_ports(links, bridge, came_by, port, bool(entry)))
        self._ask_bridge_rules(namespace, "forward" if came_by else "output", hop.packet, iif=came_by, oif=port)
        packet, called = hop.packet, bool(came_by) and self._calls_iptables(namespace, bridge)
        if called:
            self._ask_rules(namespace, "forward", hop.packet, iif=bridge, oif=bridge)
        self._ask_bridge_rules(namespace, "postrouting", hop.packet, iif=came_by, oif=port)
        if called:
            packet = self._ask_rules(namespace, "postrouting", hop.packet, iif=bridge, oif=bridge)
        out = self._hop(namespace, port, f"is a port of {bridge}", packet)
        out.source_mac, out.destination_mac = hop.source_mac, mac
        self._stop(faults.of_frame_size(packet, namespace, links[port]))
        self._ask_rules(namespace, "egress", packet, oif=port)
        self._frame(namespace, port, out)

    def _ask_bridge_rules(
        self, namespace: str, hook: str, packet: Packet, *, iif: str = "", oif: str = "", pkttype: str | None = None
    ) -> Meta:
        return self._judge(namespace, hook, "bridge", self._meta(packet, iif, oif, pkttype), packet)

    def _calls_iptables(self, namespace: str, bridge: str) -> bool:
        """Whether br_netfilter shows what this bridge passes to the rules of layer 3."""
        everywhere = self.look.sysctl(namespace, "net/bridge/bridge-nf-call-iptables") == "1"
        return everywhere or bool(device_facts(self.look.links(namespace)[bridge]).get("nf_call_iptables"))

    # -------------------------------------------------------------------------------------------- tunnels

    def _wrap_ipip(self, namespace: str, link: Facts, lookup: Lookup, packet: Packet) -> t.NoReturn:
        """ip_tunnel_xmit: a second header, addressed by the device, or by the route's gateway."""
        data = device_facts(link)
        remote, local = given(data.get("remote")) or lookup.via, given(data.get("local"))
        if not remote:
            reason = f"{link['ifname']} has remote any, and the route has no gateway that could be the far end"
            raise self._broken("wrong_gateway", reason, f"give the route a gateway: {self.overlay.route}")
        ttl, df = data.get("ttl") or packet.ttl, bool(data.get("pmtudisc")) or packet.df
        outer = Packet(local, remote, "ipip", ttl, packet.length + IP, df, inner=packet)
        self._wrap(namespace, link, outer, int(str(data.get("fwmark") or 0), 0), oif=link.get("link") or "")

    def _wrap_vxlan(self, namespace: str, link: Facts, packet: Packet) -> t.NoReturn:
        """vxlan_xmit: the forwarding entry of the far device's MAC says to which host the frame goes."""
        hop, name, data = self.here, link["ifname"], device_facts(link)
        hop.asked.append(f"{_in(namespace)}bridge fdb show dev {name}")
        entries = (
            item
            for item in self.look.forwarding_entries(namespace)
            if (item["mac"], item["ifname"]) == (hop.destination_mac, name) and item.get("dst")
        )
        entry = next(entries, None)
        remote = entry["dst"] if entry else given(data.get("remote"))
        if not remote:
            reason = f"{name} has no forwarding entry for {hop.destination_mac}: it does not know to which host"
            raise self._broken("no_forwarding_entry", reason, faults.AGAIN)
        hop.forwarding_entry = {"lladdr": hop.destination_mac, "dst": remote} if entry else None
        outer = Packet(
            given(data.get("local")),
            remote,
            "udp",
            data.get("ttl") or 64,
            packet.length + ETHERNET + VXLAN + UDP + IP,
            data.get("df") == "set",
            dport=int(data.get("port", 4789)),
            vni=int(data.get("id", 0)),
            inner=packet,
            inner_source_mac=hop.source_mac or "",
            inner_destination_mac=hop.destination_mac or "",
        )
        self._wrap(namespace, link, outer, self.mark or 0)

    def _wrap(self, namespace: str, link: Facts, outer: Packet, mark: int, oif: str = "") -> t.NoReturn:
        """*mark* is what the way of the outer packet is looked up by. Rules see the one that the packet had."""
        hop, name = self.here, link["ifname"]
        hop.does = "wraps"
        self._stop(faults.of_local(self.look, self.overlay, namespace, link, outer.src))
        self._untracked()
        own, self.mark = self.mark, mark
        lookup = self._route(namespace, outer, outer.src, oif=oif)
        self.mark = own
        hop.asked.append(lookup.asked)
        if lookup.error:
            reason = f"the far end {outer.dst} cannot be reached: {lookup.error}"
            raise self._broken("no_route", reason, f"bring the underlay up: {lookup.asked}")
        hop.outer_route = _route_facts(lookup)
        if lookup.dev == name:
            reason = f"the route to the far end {outer.dst} leads into the tunnel itself"
            raise self._broken("loop", reason, f"give {outer.dst} a route by the underlay")
        self._transmit(namespace, lookup, replace(outer, src=outer.src or lookup.src))

    def _tunnel_for(self, namespace: str, packet: Packet) -> str:
        """ip_tunnel_lookup: by both ends, by the far one, by the near one, and last a tunl0 that is up. VXLAN by port and VNI."""
        found = {}
        for name, link in self.look.links(namespace).items():
            data = device_facts(link)
            local, remote = given(data.get("local")), given(data.get("remote"))
            if not is_up(link):
                continue
            if packet.protocol == "udp" and kind_of(link) == "vxlan":
                found.update({0: name} if (data.get("id"), data.get("port")) == (packet.vni, packet.dport) else {})
            elif (
                (packet.protocol, kind_of(link)) == ("ipip", "ipip")
                and local in ("", packet.dst)
                and remote in ("", packet.src)
            ):
                found[-2 * bool(remote) - bool(local)] = name
        if not found:
            self._stop(faults.of_no_tunnel(self.look, self.overlay, namespace, packet))
        return found[min(found)]

    # -------------------------------------------------------------------------------------------- small things

    def _own(self, namespace: str) -> list[str]:
        """The addresses of a namespace, without that of lo."""
        links = self.look.links(namespace).values()
        return sorted({address for link in links for address in addresses_of(link)} - {"127.0.0.1"})

    def _first_interface(self, namespace: str) -> str:
        """Where a person would look first: the interface with the packet's source, else the first that is not lo."""
        links = self.look.links(namespace)
        names = [name for name in links if name not in ("lo", "tunl0")]
        holding = [name for name in names if self.option["src"] in addresses_of(links[name])]
        return next(iter(holding + names), "lo")


_ZERO, _EVERYBODY = ipaddress.IPv4Network("0.0.0.0/8"), "255.255.255.255"


def _network(destination: str) -> ipaddress.IPv4Network:
    """A route's destination, or nothing where it is none of IPv4."""
    return ipaddress.IPv4Network("0.0.0.0/0" if destination == "default" else destination)


def _subnet(address: Facts) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)


def _ends(packet: Packet) -> _Ends:
    return packet.src, packet.dst, packet.sport, packet.dport


def _told(verdict: str, packet: Packet, after: Meta) -> str:
    """A translation in words."""
    side = TRANSLATIONS[verdict]
    source = side == "src"
    number, became = (packet.sport, after.sport) if source else (packet.dport, after.dport)
    was = getattr(packet, side) + (f" port {number}" if number and became else "")
    now = getattr(after, side) + (f" port {became}" if became and number else "")
    back = f", and connection tracking gives {packet.src} the answers" if source else ""
    return f"{verdict}: its {'source' if source else 'destination'} {was} becomes {now}{back}"


def _wrapped(packet: Packet, outer: t.Mapping[str, t.Any] | None) -> Packet:
    """A packet as it comes over the underlay."""
    if not outer:
        return packet
    src, dst, ttl = outer["src"], outer["dst"], outer.get("ttl") or packet.ttl
    if outer["protocol"] == "ipip":
        return Packet(src, dst, "ipip", ttl, packet.length + IP, packet.df, inner=packet)
    length = packet.length + ETHERNET + VXLAN + UDP + IP
    port, vni = outer.get("port") or 8472, outer.get("vni") or 1
    return Packet(src, dst, "udp", ttl, length, df=False, dport=port, vni=vni, inner=packet)


def _route_facts(lookup: Lookup) -> Facts:
    found = lookup.route or {}
    table = str(found.get("table", "local" if lookup.type == "local" else "main"))
    others = ", ".join(lookup.others)
    why = f"the longest that matches; {others} would too" if others else "the only one that matches"
    if table not in ("main", "local", "default"):
        why += f", in table {table}, which a policy rule chose (ip rule)"
    return {
        "dst": found.get("dst", ""),
        "via": lookup.via,
        "dev": found.get("dev", lookup.dev),
        "src": lookup.src,
        "type": lookup.type,
        "table": table,
        "protocol": str(found.get("protocol", "boot")),
        "metric": found.get("metric", 0),
        "onlink": "onlink" in found.get("flags", []),
        "why": "an address of this host" if lookup.type == "local" else why,
    }


def _in(namespace: str) -> str:
    return f"ip netns exec {namespace} " if namespace else ""
