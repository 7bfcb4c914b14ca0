# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a packet does not pass, and what to do: each function looks at one thing and returns what is wrong with it. Pure over ``Look``."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ._hops import Facts, Hop, Overlay, Packet, Problem, addresses_of, given, is_up, kind_of
from ._look import Look, Lookup
from ._rules import Ruling
from ._segment import Place, device_facts, elsewhere, link_at, mac_at, port_facts

AGAIN = "run overlay.yml again, which brings it back"
_VLAN = 4  # bytes that a device takes beyond its MTU: is_skb_forwardable() of the kernel


def place(namespace: str, interface: str) -> str:
    """An interface in words."""
    return f"{interface} of {namespace}" if namespace else interface


def command(namespace: str, words: str) -> str:
    """A command of iproute2 for that namespace."""
    return f"ip -n {namespace} {words}" if namespace else f"ip {words}"


def listed(words: t.Iterable[str]) -> str:
    """Words with an 'and' before the last."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


# ------------------------------------------------------------------------------------------------ devices


def of_link(namespace: str, link: Facts, found: str = "") -> Problem | None:
    """A link that is down, or that has no carrier. *found* says what it was asked for."""
    name = link.get("ifname", "")
    what = place(namespace, name) + found
    if not is_up(link):
        remedy = f"{command(namespace, f'link set {name} up')}, and its routes, which do not come back by themselves; or {AGAIN}"
        return Problem("interface_down", f"{what} is down", remedy)
    if "LOWER_UP" not in link.get("flags", []):  # NO-CARRIER comes up to a second later
        remedy = (
            "bring its other end up"
            if kind_of(link) == "veth"
            else "look at the cable, the switch port and the other end"
        )
        return Problem("no_carrier", f"{what} has no carrier: nothing is alive at its other end", remedy)
    return None


def of_size(packet: Packet, hop: Hop, mtu: int) -> Problem | None:
    """A packet with DF that is longer than layer 3 lets out by an interface."""
    over = packet.length - mtu
    if over <= 0 or not packet.df:
        return None
    return Problem(
        "mtu",
        f"the packet has {packet.length} bytes and DF, and {hop.interface} takes {mtu}: it is refused "
        "with ICMP fragmentation needed",
        f"lower the MTU of whoever sends it to {packet.innermost.length - over} (overlay_mtu)",
    )


def of_frame_size(packet: Packet, namespace: str, link: Facts) -> Problem | None:
    """A frame that is longer than layer 2 takes: nobody says so to the sender."""
    if packet.length <= link["mtu"] + _VLAN:
        return None
    return Problem(
        "mtu",
        f"the packet has {packet.length} bytes, and {place(namespace, link['ifname'])} takes {link['mtu']}: "
        "it is dropped without a word",
        f"{command(namespace, 'link set %s mtu %d' % (link['ifname'], packet.length))}, or a smaller overlay_mtu",
    )


def of_room(hops: list[Hop]) -> None:
    """Note where packets as large as the first interface lets out do not fit."""
    first = hops[0]
    for hop in hops[1:]:
        room = hop.mtu - (hop.packet.length - hop.packet.innermost.length)
        if any(problem.fault == "mtu" for problem in hop.problems) or not 0 < room < first.mtu:
            continue
        hop.problems.append(
            Problem(
                "mtu",
                f"{first.interface} lets packets of {first.mtu} bytes out, and only {room} fit through {hop.interface} "
                f"(MTU {hop.mtu}): larger ones with DF are refused here",
                f"set the MTU of {place(first.namespace, first.interface)} to {room} (overlay_mtu)",
                fatal=False,
            )
        )
        return


# ------------------------------------------------------------------------------------------------ routes


def of_lookup(look: Look, overlay: Overlay, namespace: str, packet: Packet, lookup: Lookup, dev: str) -> Problem:
    """Why the kernel refuses to route a packet that came in by *dev*, or is made here without one."""
    if dev and look.sysctl(namespace, f"net/ipv4/conf/{dev}/forwarding") == "0":
        return _forwarding_off(look, namespace, packet, dev)
    problem = _reverse_path(look, namespace, packet, dev) if dev else None
    return (
        problem or off_course(look, overlay, namespace, packet, lookup) or _unroutable(look, namespace, packet, lookup)
    )


def _forwarding_off(look: Look, namespace: str, packet: Packet, dev: str) -> Problem:
    everywhere = look.sysctl(namespace, "net/ipv4/ip_forward")
    setting = "net.ipv4.ip_forward" if everywhere == "0" else _setting(dev, "forwarding")
    return Problem(
        "forwarding_off",
        f"forwarding is off here (net.ipv4.ip_forward is {everywhere}, that of {dev} 0), "
        f"and {packet.dst} is no address of this host",
        f"{'ip netns exec %s ' % namespace if namespace else ''}sysctl -w {setting}=1, and find out who turned it off",
    )


def _reverse_path(look: Look, namespace: str, packet: Packet, dev: str) -> Problem | None:
    modes = [look.sysctl(namespace, f"net/ipv4/conf/{name}/rp_filter") or "0" for name in ("all", dev)]
    back = look.route(namespace, packet.src)
    if not (max(modes) == "1" and back.dev != dev) and not (max(modes) == "2" and back.error):
        return None
    way = f"goes by {back.dev}" if back.dev else f"does not exist ({back.error})"
    return Problem(
        "rp_filter",
        f"the reverse path filter refuses the source {packet.src}: the way back to it {way}, and not by {dev} "
        f"(rp_filter of all is {modes[0]}, of {dev} {modes[1]})",
        f"put the route back to {packet.src} right ({back.asked}), or sysctl -w net.ipv4.conf.all.rp_filter=2 "
        f"{_setting(dev, 'rp_filter')}=2",
    )


def _setting(dev: str, key: str) -> str:
    """A sysctl of an interface, whose name may have dots."""
    return f"net/ipv4/conf/{dev}/{key}" if "." in dev else f"net.ipv4.conf.{dev}.{key}"


def _unroutable(look: Look, namespace: str, packet: Packet, lookup: Lookup) -> Problem:
    matches = look.routes(namespace, f"table all match {packet.dst}")
    refusing = [item for item in matches if item.get("type") in ("prohibit", "unreachable", "blackhole")]
    if refusing:
        route = f"{refusing[0]['type']} {refusing[0]['dst']}"
        return Problem(
            "prohibited",
            f"a route refuses it: {route} ({lookup.error})",
            f"{command(namespace, f'route del {route}')}, if nobody needs it",
        )
    if "denied" in lookup.error.lower():
        return Problem("prohibited", f"a policy rule refuses it ({lookup.error})", f"see {command(namespace, 'rule')}")
    return Problem(
        "no_route",
        f"there is no route to {packet.dst}: {lookup.error}",
        f"see {command(namespace, 'route')}; in an overlay {AGAIN}",
    )


def off_course(look: Look, overlay: Overlay, namespace: str, packet: Packet, lookup: Lookup) -> Problem | None:
    """On the node itself: a way to another node's subnet that is not the overlay's."""
    if namespace or packet.inner or not overlay.remote:
        return None
    if ipaddress.ip_address(packet.dst) not in ipaddress.ip_network(overlay.subnet):
        return None
    direct = overlay.direct_routing and lookup.via == overlay.remote and lookup.dev != overlay.tunnel
    if not lookup.error and (direct or (lookup.via, lookup.dev) == (overlay.via, overlay.dev or lookup.dev)):
        return None
    problem = _tunnel_gone(look, overlay)
    if problem:
        return problem
    found = (lookup.route or {}).get("dst", "")
    own = look.routes("", f"table main exact {overlay.subnet}")
    if found == overlay.subnet:
        return Problem(
            "wrong_gateway",
            f"the route goes via {lookup.via or 'no gateway'} dev {lookup.dev}, and {overlay.subnet} is behind "
            f"{overlay.remote}: the overlay has {overlay.route}",
            AGAIN,
        )
    if not own:
        instead = lookup.error or f"{found} matches, by {lookup.dev}"
        return Problem("no_route", f"the route of the overlay is missing: {overlay.route}; instead: {instead}", AGAIN)
    if lookup.error:
        return None
    return Problem(
        "wrong_route",
        f"{found} of table {(lookup.route or {}).get('table', 'main')} is taken, by {lookup.dev}, before the overlay's "
        f"{overlay.route}",
        f"find out who put it there: {lookup.asked}; ip rule; ip route show table all match {packet.dst}",
    )


def _tunnel_gone(look: Look, overlay: Overlay) -> Problem | None:
    """Routes go with their device."""
    link = look.links("").get(overlay.tunnel, {})
    if not overlay.tunnel or is_up(link):
        return None
    if link:
        return Problem(
            "tunnel_down",
            f"the tunnel {overlay.tunnel} is down, and its routes went with it: {overlay.route}",
            f"ip link set {overlay.tunnel} up does not bring the routes back: {AGAIN}",
        )
    reason = f"the tunnel {overlay.tunnel} is not there, and its routes neither: {overlay.route}"
    return Problem("tunnel_missing", reason, AGAIN)


# ------------------------------------------------------------------------------------------------ neighbours and bridges


def of_neighbour(
    look: Look, namespace: str, dev: str, address: str, entry: Facts | None, found: list[Place]
) -> Problem | None:
    """An address of the segment that cannot be reached by it. *found* are the interfaces of it that have the address."""
    if len(found) > 1:
        return Problem(
            "duplicate_address",
            f"{address} is held by {listed(place(*each) for each in found)}: which one answers is chance",
            "take the address from all but one of them",
        )
    if found and (problem := of_link(*_at(look, found[0]), f", which has {address},")):
        return problem
    if not found and (problem := _port_missing(look, namespace, dev, address)):
        return problem
    states = " ".join((entry or {}).get("state", []))
    if entry and entry.get("lladdr") and found and entry["lladdr"] != mac_at(look, found[0]):
        finding = " nud permanent, and find out who wrote the entry" if "PERMANENT" in states else ""
        return Problem(
            "stale_neighbour",
            f"the neighbour table says that {address} is at {entry['lladdr']} ({states}), "
            f"and {place(*found[0])} has {mac_at(look, found[0])}",
            f"{command(namespace, f'neigh flush to {address} dev {dev}')}{finding}",
        )
    silent = [each for each in [(namespace, dev), *found] if "NOARP" in link_at(look, each).get("flags", [])]
    if silent and not (entry and entry.get("lladdr")):
        remedy = command(silent[0][0], f"link set {silent[0][1]} arp on")
        return Problem("no_neighbour", f"{place(*silent[0])} does no ARP, and no entry says where {address} is", remedy)
    if "FAILED" in states and not found:
        remedy = f"is {address} up and on this segment? See {command(namespace, f'neigh show {address}')}"
        return Problem("no_neighbour", f"nobody answers to {address} on {dev}", remedy)
    return None


def _at(look: Look, where: Place) -> tuple[str, Facts]:
    return where[0], link_at(look, where)


def _port_missing(look: Look, namespace: str, dev: str, address: str) -> Problem | None:
    """The address is behind a veth of this namespace that should be a port of the bridge."""
    if kind_of(look.links(namespace)[dev]) != "bridge":
        return None
    for other in elsewhere(look, namespace, address):
        peer = look.peer(other[0], link_at(look, other))
        if peer and peer[0] == namespace:
            return Problem(
                "bridge_port_missing",
                f"{peer[1]}, behind which {place(*other)} has {address}, is no port of {dev}",
                f"{command(namespace, f'link set {peer[1]} master {dev}')}; or {AGAIN}",
            )
    return None


def of_target(look: Look, hop: Hop, before: Hop) -> Problem | None:
    """A frame that is for another MAC than that of the interface it comes to."""
    links = look.links(hop.namespace)
    own = links[hop.interface]["address"]
    if hop.destination_mac in (None, own):
        return None
    for name, link in links.items():
        if kind_of(link) == "bridge" and link["address"] == hop.destination_mac:
            return Problem(
                "bridge_port_missing",
                f"{hop.interface} is no port of {name}, which the frame is for ({hop.destination_mac})",
                f"{command(hop.namespace, f'link set {hop.interface} master {name}')}; or {AGAIN}",
            )
    reason = (
        f"the frame is for {hop.destination_mac}, and {place(hop.namespace, hop.interface)} has {own}: it is not taken"
    )
    if before.forwarding_entry or before.does.startswith("is a port"):
        remedy = f"bridge fdb del {hop.destination_mac} dev {before.interface} master"
        where = f"ip netns exec {before.namespace} " if before.namespace else ""
        return Problem("stale_forwarding_entry", reason, f"{where}{remedy}")
    return Problem("stale_neighbour", reason, command(before.namespace, f"neigh flush dev {before.interface}"))


def of_port(link: Facts) -> Problem | None:
    """A bridge's port that is up, and passes nothing."""
    state = port_facts(link).get("state", "forwarding")
    if state == "forwarding":
        return None
    return Problem(
        "bridge_port_blocked",
        f"the port {link['ifname']} of {link['master']} is {state}",
        f"see bridge link show dev {link['ifname']}: spanning tree, or a forward_delay that runs",
    )


def of_ports(links: t.Mapping[str, Facts], bridge: str, came_by: str, port: str, known: bool) -> Problem | None:
    """A bridge that does not pass a frame from one port to another. *known*: its table has the destination."""
    first, last = port_facts(links[came_by]) if came_by else {}, port_facts(links[port])
    problem = of_port(links[port])
    if problem:
        return problem
    if port == came_by and not last.get("hairpin"):
        reason = f"the frame would leave by {port}, where it came in, and hairpin is off"
        return Problem("hairpin", reason, f"bridge link set dev {port} hairpin on")
    if first.get("isolated") and last.get("isolated"):
        reason = f"{came_by} and {port} are isolated ports of {bridge}: they do not see each other"
        return Problem("bridge_port_isolated", reason, f"bridge link set dev {port} isolated off")
    if not known and last.get("flood") is False:
        reason = f"{bridge} does not know the destination, and does not flood to {port}"
        return Problem("bridge_port_isolated", reason, f"bridge link set dev {port} flood on")
    return None


# ------------------------------------------------------------------------------------------------ rules

_OURS = re.compile(r"table (?:inet|bridge) podnet_overlay chain (\S+)$")


def of_ruling(ruling: Ruling, packet: Packet) -> Problem:
    """A rule that drops the packet. Those of the overlay's own tables say what they are for."""
    ours = _OURS.match(ruling.where)
    reason = f"{ruling.where} drops it at {ruling.hook}: {ruling.rule}"
    if not ours:
        return Problem(
            "filtered",
            reason,
            f"let {packet.src} to {packet.dst} ({packet.protocol}) pass before that rule, "
            "in the configuration of whoever wrote it",
        )
    reason += f" ({ruling.comment})" if ruling.comment else ""
    if ours[1] in ("outer", "guard", "antispoof"):
        return Problem(
            "wrong_source",
            f"{packet.src} is no source that may come this way: {reason}",
            f"{AGAIN} if its node or pod is one of the overlay's; overlay_trusted_sources lets others in",
        )
    if ours[1].startswith("to-"):
        remedy = "allow it in overlay_policy and run overlay.yml, if it should pass"
        return Problem("isolated", f"{packet.dst} takes no such connection from {packet.src}: {reason}", remedy)
    return Problem("filtered", reason, f"that is the overlay's own rule: {AGAIN} if it is out of date")


# ------------------------------------------------------------------------------------------------ tunnels


def of_local(look: Look, overlay: Overlay, namespace: str, link: Facts, local: str) -> Problem | None:
    """A tunnel that sends as somebody else."""
    name = link["ifname"]
    wanted = f"ip link set {name} type {kind_of(link)} local {overlay.local or 'ADDRESS'}; or {AGAIN}"
    if local and all(local not in addresses_of(each) for each in look.links(namespace).values()):
        reason = f"{name} sends as {local}, which is no address of this host: the kernel drops what it sends"
        return Problem("wrong_local", reason, wanted)
    if local and overlay.local not in ("", local):
        reason = f"{name} sends as {local}, and the other nodes take from this one only {overlay.local}"
        return Problem("wrong_local", reason, wanted)
    return None


def of_no_tunnel(look: Look, overlay: Overlay, namespace: str, packet: Packet) -> Problem:
    """Why no device takes a tunnelled packet that is for this host."""
    kind, name = "ipip" if packet.protocol == "ipip" else "vxlan", overlay.tunnel
    link = look.links(namespace).get(name)
    if not link:
        return Problem("tunnel_missing", f"there is no {kind} device for what comes to {packet.dst}", AGAIN)
    if not is_up(link):
        return Problem("tunnel_down", f"the tunnel {name} is down", AGAIN)
    data = device_facts(link)
    for fault, key, value in (("wrong_vni", "id", packet.vni), ("wrong_port", "port", packet.dport)):
        if kind == "vxlan" and data.get(key) != value:
            reason = (
                f"{name} has the {'VNI' if key == 'id' else key} {data.get(key)}, and the packet comes with {value}"
            )
            return Problem(fault, reason, f"{AGAIN}; it makes the device anew")
    local = given(data.get("local")) or "any address"
    reason = f"{name} takes what comes to {local}, and the packet comes from {packet.src} to {packet.dst}"
    return Problem("wrong_local", reason, f"ip link set {name} type {kind} local {packet.dst}; or {AGAIN}")
