# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may pass: a document's ``firewall`` clause as nftables' tables ``inet`` and ``bridge podnet_overlay``. Pure.

``tables`` reads as the list of rules that it is. What grows with the fleet is in sets, so the number of rules does not grow
with nodes.

A packet out of the tunnel is judged after it was unpacked, by our own device's name: so an operator's other tunnels are
left alone. Which host sent it is then no longer in its header; the chain ``outer`` notes that as the packet's mark, which
stays with it (``skb_scrub_packet``, net/core/skbuff.c), and the chain ``guard`` compares the two and clears the mark.

Sources: nft(8), libnftables-json(5), linux/netfilter_ipv4.h; for masquerade Flannel's pkg/trafficmngr, for port mappings
CNI's plugins/meta/portmap.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import _nft
from ._firewall_clause import PROTOCOLS, Allow, Clause, Masquerade, read
from ._model import ALIAS_PREFIX, Firewall, mac_of
from ._nft import TABLE, Json, in_order, text_of

LONGEST_COMMENT = 128
"""NFTNL_UDATA_COMMENT_MAXLEN, in bytes; nft refuses longer ones."""

_IPIP, _MPLS = 4, 137  # IANA's protocol numbers
_MASQUERADED_ELSEWHERE = 0x4000
"""The mark by which kube-proxy says that it masquerades a packet itself; Flannel leaves such packets alone."""
_ARP = 0x0806  # an Ethernet type
_VLAN_IDS = (("ll", 112), ("nh", 0))
"""Where the VLAN of the first tag stands, and that of the second."""
_VXLAN_VNI = {"payload": {"base": "th", "offset": 96, "len": 24}}
"""The network identifier behind the UDP header (8 bytes) and VXLAN's flags (4): RFC 7348."""

# Priorities: linux/netfilter_ipv4.h, netfilter_bridge.h. Ours come just before the usual ones, where the order matters.
_RAW, _DNAT, _FILTER, _SNAT, _LAST, _BRIDGE_FILTER = -300, -100, 0, 100, 300, -200


def desired(raw: Any, owner: str, peers: Mapping[str, str]) -> Firewall:
    """What a document's ``firewall`` asks for; *peers*, from subnet to address, are added to the clause's own.

    It is a clause, or the tables themselves under ``nft``, as ``topology_info`` returns them.

    Raises:
        Mistakes: all that is wrong with it.
    """
    if isinstance(raw, Mapping) and "nft" in raw:
        return _nft.given(raw, owner)
    clause = read(raw)
    return tables(replace(clause, peers={**clause.peers, **peers}), owner)


# ------------------------------------------------------------------------------------------------ words of nft


def _payload(protocol: str, field: str) -> Json:
    return {"payload": {"protocol": protocol, "field": field}}


def _match(left: Any, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str, right: Any, op: str = "==") -> Json:
    return _match({"meta": {"key": key}}, right, op)


def _concat(*parts: Any) -> Json:
    return {"concat": list(parts)}


def _prefix(network: str) -> Any:
    """A network in nft's JSON; a single address is written without a length."""
    address, _slash, length = network.partition("/")
    return address if length in ("", "32") else {"prefix": {"addr": address, "len": int(length)}}


def _mark(value: Any) -> Json:
    return {"mangle": {"key": _MARK, "value": value}}


_SADDR, _DADDR = _payload("ip", "saddr"), _payload("ip", "daddr")
_MARK, _IIFNAME = {"meta": {"key": "mark"}}, {"meta": {"key": "iifname"}}
_SOURCE_MAC, _CT_STATUS = _payload("ether", "saddr"), {"ct": {"key": "status"}}
_LOCAL_ADDRESS = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
_LOOPBACK, _MULTICAST = "127.0.0.0/8", "224.0.0.0/4"
_COUNTED_DROP = ({"counter": None}, {"drop": None})
_ACCEPT, _RETURN = {"accept": None}, {"return": None}
_UNCHANGED = {"snat": {"family": "ip", "addr": _SADDR}}
"""Its source stays as it is, whatever a later chain says: one translation is all that a connection gets."""


def mark_of(address: str) -> int:
    """The mark of what a host sent through the tunnel: its address as a number."""
    return int(ipaddress.IPv4Address(address))


class _Tables:
    """Collects chains, sets, their elements and rules, in nft's JSON."""

    def __init__(self, owner: str) -> None:
        self._mark = ALIAS_PREFIX + owner
        self._family = "inet"
        self.objects: list[Json] = []
        self.elements: list[tuple[str, str, Any]] = []

    def family(self, name: str) -> None:
        self._family = name
        self.objects.append({"table": {"family": name, "name": TABLE}})

    def chain(self, name: str, kind: str = "", hook: str = "", priority: int = 0) -> None:
        base = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"} if kind else {}
        self.objects.append({"chain": {"family": self._family, "table": TABLE, "name": name, **base}})

    def set(self, name: str, kind: Any, elements: Iterable[Any], *, interval: bool = False, data: str = "") -> None:
        body: Json = {"family": self._family, "table": TABLE, "name": name, "type": kind}
        if interval:
            body["flags"] = ["interval"]
        self.objects.append({"map": {**body, "map": data}} if data else {"set": body})
        self.elements += [(self._family, name, element) for element in elements]

    def rule(self, chain: str, purpose: str, *statements: Json) -> None:
        comment = ("%s %s" % (self._mark, purpose)).encode()[:LONGEST_COMMENT].decode(errors="ignore")
        body = {"family": self._family, "table": TABLE, "chain": chain, "expr": list(statements), "comment": comment}
        self.objects.append({"rule": body})


# ------------------------------------------------------------------------------------------------ the tables


def tables(clause: Clause, owner: str) -> Firewall:
    """The tables that a clause asks for."""
    made = _Tables(owner)
    made.family("inet")
    if clause.tunnels:
        _outer(made, clause)
    _guard(made, clause)
    _forward(made, clause)
    if clause.ports:
        _ports(made, clause)
    if clause.network and clause.subnet:
        _postrouting(made, clause)
    if clause.ports or clause.policy is not None:
        made.chain("output", "filter", "output", _FILTER - 10)
        redirect = _match(_payload("icmp", "type"), "redirect")
        made.rule(
            "output",
            "pods are not told to go round this node",
            _meta("oifname", clause.bridge),
            redirect,
            *_COUNTED_DROP,
        )
    if clause.antispoof or (clause.pods and clause.policy is not None):
        made.family("bridge")
        _bridge(made, clause)
    return Firewall(
        owner,
        tuple(text_of(item) for item in in_order(made.objects)),
        tuple(sorted((family, name, text_of(element)) for family, name, element in made.elements)),
    )


def _outer(made: _Tables, clause: Clause) -> None:
    """On what comes to the tunnel's end, before it is unpacked: who sent it."""
    senders = {address: [subnet] for subnet, address in clause.peers.items()}
    for source in clause.trusted_sources:
        senders.setdefault(source.address, []).extend(source.subnets)
    for address in clause.peers.values():
        if _keeps_source(clause.masquerade, address):
            senders[address] = [*senders[address], "%s/32" % address]
    made.set("peers", "ipv4_addr", [[address, mark_of(address)] for address in senders], data="mark")
    made.set(
        "sources",
        ["mark", "ipv4_addr"],
        [_concat(mark_of(address), _prefix(subnet)) for address, own in senders.items() for subnet in _disjoint(own)],
        interval=True,
    )
    made.chain("outer", "filter", "input", _LAST)  # past other programs' rules, which have marks of their own
    for way in clause.tunnelled:
        _into_tunnel(made, way)


def _into_tunnel(made: _Tables, clause: Clause) -> None:
    if clause.backend == "ipip":
        protocol, local = _payload("ip", "protocol"), _match(_DADDR, clause.local)
        made.rule(
            "outer", "no MPLS into %s" % clause.tunnel, local, _match(protocol, _MPLS), *_COUNTED_DROP
        )  # a device of mode any takes that too
        to_tunnel = [local, _match(protocol, _IPIP)]
    else:  # a vxlan device takes what is for its port and VNI, to whichever address of the host
        to_tunnel = [_match(_payload("udp", "dport"), clause.port), _match(_VXLAN_VNI, clause.vni)]
    if clause.bridge:  # whatever source it bears: without antispoof a pod may pretend to be a peer
        from_pods = _meta("iifname", clause.bridge)
        made.rule("outer", "pods send nothing packed to their node", from_pods, *to_tunnel, *_COUNTED_DROP)
    by_sender = {"map": {"key": _SADDR, "data": "@peers"}}
    made.rule("outer", "who is no peer has no mark", *to_tunnel, _mark(0))
    made.rule("outer", "a peer's packets get its address as mark", *to_tunnel, _mark(by_sender))
    if clause.backend == "vxlan":  # the device is known by its VNI here; of IPIP only the guard can tell
        nobody = _match(_MARK, 0)
        made.rule("outer", "into %s only from peers" % clause.tunnel, *to_tunnel, nobody, *_COUNTED_DROP)


def _keeps_source(masquerade: Masquerade | None, address: str) -> bool:
    """Whether a node at *address* sees the pods' own addresses, so that its answers come through the tunnel under its own."""
    if masquerade is None or not masquerade.nodes:
        return True
    return any(ipaddress.IPv4Address(address) in ipaddress.IPv4Network(network) for network in masquerade.exceptions)


def _disjoint(subnets: Sequence[str]) -> list[str]:
    """Networks without those inside others, which an interval set does not take."""
    if len(subnets) == 1:
        return list(subnets)
    return [str(network) for network in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, subnets))]


def _guard(made: _Tables, clause: Clause) -> None:
    """On what comes out of the tunnel and from the pods, first of all: whose address it bears."""
    made.chain("guard", "filter", "prerouting", _RAW)
    for tunnel in clause.tunnels:
        unpacked = _meta("iifname", tunnel)
        made.rule("guard", "no IPv6 out of the tunnel", unpacked, _meta("nfproto", "ipv6"), *_COUNTED_DROP)
        made.rule(
            "guard",
            "out of %s only from peers, each with its own subnet" % tunnel,
            unpacked,
            _match(_concat(_MARK, _SADDR), "@sources", "!="),
            *_COUNTED_DROP,
        )
        made.rule("guard", "the mark has served", unpacked, _mark(0))
    if clause.bridge and clause.subnet:
        outside = _meta("iifname", {"set": ["lo", clause.bridge]}, "!=")
        own = _match(_SADDR, _prefix(clause.subnet))
        made.rule("guard", "our own pods' addresses come by the bridge only", outside, own, *_COUNTED_DROP)
    if clause.antispoof:
        foreign = _match(_SADDR, _prefix(clause.subnet), "!=")
        from_pods = _meta("iifname", clause.bridge)
        made.rule("guard", "pods send from %s only" % clause.subnet, from_pods, foreign, *_COUNTED_DROP)
    if (
        clause.ports
    ):  # translated, before the kernel's own check; and route_localnet, which the node itself needs, lets pods in
        loopback = _match(_DADDR, _prefix(_LOOPBACK))
        made.rule(
            "guard", "nobody else's loopback is this node's", _meta("iifname", "lo", "!="), loopback, *_COUNTED_DROP
        )


def _forward(made: _Tables, clause: Clause) -> None:
    """On what is routed to and from pods."""
    to_pods = _meta("oifname", clause.bridge)
    if clause.policy is not None:
        _groups_of(made, clause)
    if clause.tunnels or (clause.masquerade and not clause.masquerade.nodes):
        made.set("nodes", "ipv4_addr", clause.nodes)
    if not (clause.tunnels and clause.bridge) and clause.policy is None:
        return
    made.chain("forward", "filter", "forward", _FILTER - 10)
    if clause.tunnels and clause.bridge:
        _packed(made, clause)
        if all(way.tunnel and not way.direct_routing for way in clause.ways):
            # Unmasqueraded, a pod of another node that asks for a mapped port comes unpacked.
            elsewhere = _meta("iifname", {"set": [clause.bridge, *clause.tunnels]}, "!=")
            keeping = any(_keeps_source(clause.masquerade, address) for address in clause.nodes)
            unmapped = [_match({"&": [_CT_STATUS, "dnat"]}, 0)] if keeping else []
            of_pods = _match(_SADDR, _prefix(clause.network))
            purpose = "pods' addresses come by %s only" % " and ".join(clause.tunnels)
            made.rule("forward", purpose, elsewhere, to_pods, of_pods, *unmapped, *_COUNTED_DROP)
    if clause.policy is not None:
        known = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
        made.rule("forward", "what was let in is answered", to_pods, known, _ACCEPT)
        made.rule("forward", "isolated pods", to_pods, {"vmap": {"key": _DADDR, "data": "@isolated"}})


def _packed(made: _Tables, clause: Clause) -> None:
    """Who packs a packet is a node."""
    for way in clause.tunnelled:
        packed = _match(_payload("udp", "dport"), way.port)
        if way.backend == "ipip":
            packed = _match(_payload("ip", "protocol"), {"set": [_IPIP, _MPLS]})
        made.rule(
            "forward",
            "pods send nothing packed to nodes",
            _meta("iifname", clause.bridge),
            _match(_DADDR, "@nodes"),
            packed,
            *_COUNTED_DROP,
        )


def _groups_of(made: _Tables, clause: Clause) -> None:
    """A chain for each group that has pods here, and a set for each that may come to them."""
    here = sorted({pod.group for pod in clause.pods if pod.group})
    allowed = [item for item in clause.policy or () if item.to in here]
    for group in sorted({*here, *(item.from_group for item in allowed if item.from_group)}):
        members = {*clause.groups.get(group, ()), *(pod.address for pod in clause.pods if pod.group == group)}
        made.set(_set_of(group), "ipv4_addr", sorted(members))
    for group in here:
        made.chain("to-%s" % group)
        made.rule("to-%s" % group, "%s among themselves" % group, _match(_SADDR, "@%s" % _set_of(group)), _ACCEPT)
        for item in (item for item in allowed if item.to == group):
            made.rule("to-%s" % group, _allowed_words(item), *_allowed(item), _ACCEPT)
        made.rule("to-%s" % group, "%s takes nothing else" % group, *_COUNTED_DROP)
    made.set(
        "isolated",
        "ipv4_addr",
        [[pod.address, {"jump": {"target": "to-%s" % pod.group}}] for pod in clause.pods if pod.group],
        data="verdict",
    )


def _set_of(group: str) -> str:
    return "group-%s" % group


def _allowed(item: Allow) -> Iterator[Json]:
    if item.from_group:
        yield _match(_SADDR, "@%s" % _set_of(item.from_group))
    if item.network and item.network != "0.0.0.0/0":
        yield _match(_SADDR, _prefix(item.network))
    if item.ports:
        ranges = [_range(port) for port in item.ports]
        yield _match(_payload(str(item.protocol), "dport"), {"set": ranges} if len(ranges) > 1 else ranges[0])
    elif item.protocol:
        yield _meta("l4proto", PROTOCOLS[item.protocol])


def _range(port: str) -> Any:
    first, dash, last = port.partition("-")
    return {"range": [int(first), int(last)]} if dash else int(first)


def _allowed_words(item: Allow) -> str:
    who = " ".join(filter(None, (item.from_group, item.network))) or "anybody"
    what = " ".join(filter(None, (item.protocol, ",".join(item.ports))))
    return "%s to %s%s" % (who, item.to, ": " + what if what else "")


def _ports(made: _Tables, clause: Clause) -> None:
    """Port mappings: one rule each, for what comes from elsewhere and for what the node itself sends."""
    made.chain("ports")
    for item in clause.ports:
        at = [_match(_DADDR, item.host_address)] if item.host_address else []
        dnat = {"dnat": {"family": "ip", "addr": item.address, "port": item.port}}
        words = "%s:%d/%s to pod %s" % (item.host_address or "*", item.host_port, item.protocol, item.pod)
        made.rule("ports", words, *at, _match(_payload(item.protocol, "dport"), item.host_port), dnat)
    for hook in ("prerouting", "output"):
        made.chain("ports_%s" % hook, "nat", hook, _DNAT)
        made.rule("ports_%s" % hook, "port mappings", _LOCAL_ADDRESS, {"jump": {"target": "ports"}})


def _postrouting(made: _Tables, clause: Clause) -> None:
    """Under which address a packet leaves. Before everyone else's, whose masquerade would hide pods from each other."""
    masquerade = clause.masquerade
    from_pods, to_pods = _match(_SADDR, _prefix(clause.network)), _match(_DADDR, _prefix(clause.network))
    if masquerade and masquerade.exceptions:
        networks = _disjoint(masquerade.exceptions)
        made.set("not_masqueraded", "ipv4_addr", map(_prefix, networks), interval=True)
    made.chain("postrouting", "nat", "postrouting", _SNAT - 1)
    as_device: Json = {"masquerade": {"flags": "fully-random"} if masquerade and masquerade.random_fully else None}

    def rule(purpose: str, *statements: Json) -> None:
        made.rule("postrouting", purpose, *statements)

    subnet = _prefix(clause.subnet)
    mapped = _match(_CT_STATUS, "dnat", "in")  # by our port mappings, or by those of CNI and Docker
    rule("a pod to a mapped port of its node", _match(_SADDR, subnet), _match(_DADDR, subnet), mapped, as_device)
    if clause.ports:
        to_bridge = _meta("oifname", clause.bridge)
        rule("the node's loopback to a mapped port", _match(_SADDR, _prefix(_LOOPBACK)), to_bridge, as_device)
    if masquerade:
        elsewhere = _match({"&": [_MARK, _MASQUERADED_ELSEWHERE]}, _MASQUERADED_ELSEWHERE)
        rule("kube-proxy masquerades these", elsewhere, _RETURN)
    rule("pod to pod is never masqueraded", from_pods, to_pods, _UNCHANGED)
    rule("nor is multicast", from_pods, _match(_DADDR, _prefix(_MULTICAST)), _UNCHANGED)
    if masquerade is None:
        return
    if masquerade.exceptions:
        rule("networks that see the pods' addresses", from_pods, _match(_DADDR, "@not_masqueraded"), _UNCHANGED)
    if not masquerade.nodes:
        rule("nodes see the pods' addresses", from_pods, _match(_DADDR, "@nodes"), _UNCHANGED)
    rule("what comes to our own pods keeps its source", _match(_DADDR, subnet), _RETURN)
    fixed: Json = {"snat": {"family": "ip", "addr": masquerade.address}}
    if masquerade.random_fully:
        fixed["snat"]["flags"] = "fully-random"
    rule("pods to the rest of the world", from_pods, fixed if masquerade.address else as_device)
    rule("from elsewhere to pods of other nodes", to_pods, as_device)


def _bridge(made: _Tables, clause: Clause) -> None:
    """On frames from pods' ports, wherever they go: what stays on the bridge never meets the table inet."""
    made.chain("prerouting", "filter", "prerouting", _RAW)
    if clause.antispoof:
        made.set("interfaces", "ifname", [pod.interface for pod in clause.pods])
        made.set("macs", ["ifname", "ether_addr"], [_concat(pod.interface, pod.mac) for pod in clause.pods])
        made.set(
            "pods",
            ["ifname", "ether_addr", "ipv4_addr"],
            [_concat(pod.interface, pod.mac, pod.address) for pod in clause.pods],
        )
        _antispoof(made)
        made.rule("prerouting", "pods' ports", _match(_IIFNAME, "@interfaces"), {"jump": {"target": "antispoof"}})
        _taken(made, clause)
    isolated = [pod for pod in clause.pods if pod.group] if clause.policy is not None else []
    if not isolated:
        return
    made.set("isolated", "ipv4_addr", [pod.address for pod in isolated])
    for mine, theirs in ((_DADDR, _SADDR), (_SADDR, _DADDR)):
        made.rule(
            "prerouting",
            "to and from isolated pods by way of the node's routing, where the policy is",
            _match({"meta": {"key": "pkttype"}}, "other"),  # to another port, of this bridge or of another's
            _match(theirs, _prefix(clause.subnet)),
            _match(mine, "@isolated"),
            {"mangle": {"key": _payload("ether", "daddr"), "value": mac_of(_gateway(clause.subnet))}},
            {"mangle": {"key": {"meta": {"key": "pkttype"}}, "value": "host"}},
        )
    made.set("isolated_interfaces", "ifname", [pod.interface for pod in isolated])
    made.chain("forward", "filter", "forward", _BRIDGE_FILTER)
    to_isolated = _match({"meta": {"key": "oifname"}}, "@isolated_interfaces")
    made.rule(
        "forward",
        "what br_netfilter translated has met the policy",
        to_isolated,
        _match({"meta": {"key": "pkttype"}}, {"set": ["host", "other"]}),
        _match(_SADDR, _prefix(clause.subnet)),
        _match(_DADDR, "@isolated"),  # untranslated, it would have gone to the node
        _ACCEPT,
    )
    not_arp = _match(_payload("ether", "type"), "arp", "!=")
    purpose = "nothing else to isolated pods past the policy: broadcast, IPv6"
    made.rule("forward", purpose, to_isolated, not_arp, *_COUNTED_DROP)


def _taken(made: _Tables, clause: Clause) -> None:
    """What no other port may use: whose containers they are is not known, but whose the addresses are."""
    gateway = _gateway(clause.subnet)
    made.set("taken", "ipv4_addr", sorted({gateway, *(pod.address for pod in clause.pods)}))
    made.set("taken_macs", "ether_addr", sorted({mac_of(gateway), *(pod.mac for pod in clause.pods)}))
    others = _match(_IIFNAME, "@interfaces", "!=")
    for field, of_pods in ((_SADDR, "@taken"), (_payload("arp", "saddr ip"), "@taken"), (_SOURCE_MAC, "@taken_macs")):
        purpose = "containers use no pod's address, nor the gateway's"
        made.rule("prerouting", purpose, others, _match(field, of_pods), *_COUNTED_DROP)
    elsewhere = _match(_SADDR, _prefix(clause.subnet), "!=")
    to_pods = _match(_payload("ether", "daddr"), "@taken_macs")
    made.rule("prerouting", "containers send from %s only" % clause.subnet, others, to_pods, elsewhere, *_COUNTED_DROP)
    # A host takes off all tags of VLAN 0, and looks into what is below. There is no telling the bridge, so this is narrow:
    # another bridge's VLANs and those in VLANs pass.
    network = ipaddress.IPv4Network(clause.subnet)
    of_subnet = _match(_bits("nh", 112, 32, int(network.netmask)), int(network.network_address))
    tagged_arp = _match({"payload": {"base": "ll", "offset": 128, "len": 16}}, _ARP)
    not_ip = _meta("protocol", "ip", "!=")
    made.rule("prerouting", "nor ARP in a VLAN", others, not_ip, tagged_arp, of_subnet, *_COUNTED_DROP)
    twice = [_meta("protocol", {"set": ["8021q", "8021ad"]}), *(_match(_bits(*at, 16, 0x0FFF), 0) for at in _VLAN_IDS)]
    made.rule("prerouting", "nor anything in no VLAN twice", others, *twice, *_COUNTED_DROP)


def _bits(base: str, offset: int, length: int, mask: int) -> Json:
    return {"&": [{"payload": {"base": base, "offset": offset, "len": length}}, mask]}


def _antispoof(made: _Tables) -> None:
    """On what a pod's port sends."""
    made.chain("antispoof")

    def let(purpose: str, left: Any, right: str, *conditions: Json) -> None:
        made.rule("antispoof", purpose, *conditions, _match(left, right), _RETURN)

    port_and_mac = (_IIFNAME, _SOURCE_MAC)
    arp_sender = _payload("arp", "saddr ip")
    let("a pod's own address and MAC", _concat(*port_and_mac, _SADDR), "@pods")
    own_arp = _match(_concat(_IIFNAME, _payload("arp", "saddr ether")), "@macs")
    let("ARP of its own", _concat(*port_and_mac, arp_sender), "@pods", own_arp)
    let(
        "ARP that asks whether an address is free",
        _concat(*port_and_mac),
        "@macs",
        _match(arp_sender, "0.0.0.0"),
        own_arp,
    )
    router = _match(_payload("icmpv6", "type"), {"set": ["nd-router-advert", "nd-redirect"]})
    made.rule("antispoof", "pods are no IPv6 routers", router, *_COUNTED_DROP)  # CVE-2020-10749
    ipv6 = _match(_payload("ether", "type"), "ip6")
    let("IPv6 on the link, which is not routed", _concat(*port_and_mac), "@macs", ipv6)
    made.rule("antispoof", "a pod uses its own address and MAC only", *_COUNTED_DROP)


def _gateway(subnet: str) -> str:
    return str(ipaddress.IPv4Network(subnet)[1])
