# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may pass: a document's ``firewall`` clause as nftables' tables ``inet`` and ``bridge podnet_overlay``. Pure.

``read`` judges the clause, ``tables`` turns it into nft's JSON, ``commands`` says what changes one state of the tables
into another, in one transaction. What grows with the fleet is in sets, so the number of rules does not grow with nodes.

A packet out of the tunnel is judged after it was unpacked, by our own device's name: so an operator's other tunnels are
left alone. Which host sent it is then no longer in its header; the chain ``outer`` notes that as the packet's mark, which
stays with it (``skb_scrub_packet``, net/core/skbuff.c), and the chain ``guard`` compares the two and clears the mark.

Sources: nft(8), libnftables-json(5), linux/netfilter_ipv4.h; for masquerade Flannel's pkg/trafficmngr, for port mappings
CNI's plugins/meta/portmap.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ._model import (
    ALIAS_PREFIX,
    Firewall,
    Mistakes,
    Reader,
    Reading,
    choice,
    destination,
    flag,
    interface_name,
    ipv4,
    mac,
    mac_of,
    number,
    text_of,
)
from ._nft_words import rule_text
from ._nft_words import text as words_of

TABLE = "podnet_overlay"
FAMILIES = ("inet", "bridge")
LONGEST_COMMENT = 128
"""NFTNL_UDATA_COMMENT_MAXLEN, in bytes; nft refuses longer ones."""

Json = dict[str, Any]

_IPIP, _MPLS = 4, 137  # IANA's protocol numbers
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}
_WITH_PORTS = ("tcp", "udp", "sctp")
_MASQUERADED_ELSEWHERE = 0x4000
"""The mark by which kube-proxy says that it masquerades a packet itself; Flannel leaves such packets alone."""
_VXLAN_VNI = {"payload": {"base": "th", "offset": 96, "len": 24}}
"""The network identifier behind the UDP header (8 bytes) and VXLAN's flags (4): RFC 7348."""

# Priorities: linux/netfilter_ipv4.h, netfilter_bridge.h. Ours come just before the usual ones, where the order matters.
_RAW, _DNAT, _FILTER, _SNAT, _BRIDGE_FILTER = -300, -100, 0, 100, -200


# ------------------------------------------------------------------------------------------------ the clause


@dataclass(frozen=True)
class TrustedSource:
    """A host that is no node, and the inner subnets that it may send from through the tunnel."""

    address: str
    subnets: tuple[str, ...]


@dataclass(frozen=True)
class Masquerade:
    """``nodes``: pod to node too; ``exceptions``: networks; ``address``: a fixed source in place of the device's."""

    nodes: bool = True
    exceptions: tuple[str, ...] = ()
    random_fully: bool = True
    address: str | None = None


@dataclass(frozen=True)
class Pod:
    """A pod of this node: what its port of the bridge may send."""

    name: str
    interface: str
    mac: str
    address: str
    group: str | None = None


@dataclass(frozen=True)
class PortMapping:
    """What comes to ``host_port`` of ``host_address`` (None: of any address of the host) goes to the pod."""

    pod: str
    address: str
    port: int
    protocol: str
    host_port: int
    host_address: str | None = None


@dataclass(frozen=True)
class Allow:
    """New connections that pods of the group ``to`` take; None does not matter. ``ports`` are "80" or "8000-8100"."""

    to: str
    from_group: str | None = None
    network: str | None = None
    protocol: str | None = None
    ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clause:
    """The ``firewall`` clause of a document, read. ``policy`` None: no isolation."""

    backend: str
    bridge: str = ""
    network: str = ""
    subnet: str = ""
    local: str = ""
    tunnel: str = ""
    vni: int = 1
    port: int = 8472
    peers: Mapping[str, str] = field(default_factory=dict)
    trusted_sources: tuple[TrustedSource, ...] = ()
    masquerade: Masquerade | None = None
    antispoof: bool = False
    pods: tuple[Pod, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    policy: tuple[Allow, ...] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def nodes(self) -> list[str]:
        """The underlay's addresses of all nodes."""
        return sorted({*self.peers.values(), *([self.local] if self.local else [])})


def group_name(value: Any) -> str:
    """A group of pods: it becomes a part of the names of a chain and of a set."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,62}", text):
        raise ValueError("%r is no group's name: a letter, then letters, digits, '_', '.' and '-', 63 at most" % text)
    return text


def port_range(value: Any) -> str:
    """``80``, or ``8000-8100``."""
    first, dash, last = str(value).partition("-")
    read = number(1, 65535)
    low, high = read(first), read(last) if dash else read(first)
    if low > high:
        raise ValueError("%r ends before it begins" % str(value))
    return "%d-%d" % (low, high) if low < high else str(low)


_READERS: dict[str, Reader] = {
    "backend": choice("ipip", "vxlan", "host-gw"),
    "bridge": interface_name,
    "network": destination,
    "subnet": destination,
    "local": ipv4,
    "tunnel": interface_name,
    "vni": number(1, 2**24 - 1),
    "port": number(1, 65535),
    "antispoof": flag,
}
_LISTS = ("peers", "trusted_sources", "masquerade", "pods", "ports", "policy", "groups")
_MASQUERADE: dict[str, Reader] = {"nodes": flag, "random_fully": flag, "address": ipv4}
_POD: dict[str, Reader] = {
    "name": text_of,
    "interface": interface_name,
    "mac": mac,
    "address": ipv4,
    "group": group_name,
}
_PORT: dict[str, Reader] = {
    "pod": text_of,
    "address": ipv4,
    "port": number(1, 65535),
    "protocol": choice(*_WITH_PORTS),
    "host_port": number(1, 65535),
    "host_address": ipv4,
}
_ALLOW: dict[str, Reader] = {
    "to": group_name,
    "from": group_name,
    "network": destination,
    "protocol": choice(*_PROTOCOLS),
}


def desired(raw: Any, owner: str, peers: Mapping[str, str]) -> Firewall:
    """What a document's ``firewall`` asks for; *peers*, from subnet to address, are added to the clause's own.

    It is a clause, or the tables themselves under ``nft``, as ``topology_info`` returns them.

    Raises:
        Mistakes: all that is wrong with it.
    """
    if isinstance(raw, Mapping) and "nft" in raw:
        return _verbatim(raw, owner)
    clause = read(raw)
    return tables(replace(clause, peers={**clause.peers, **peers}), owner)


def _verbatim(raw: Mapping[str, Any], owner: str) -> Firewall:
    """Tables in nft's own JSON, which must be ours."""
    items = raw["nft"]
    ours = isinstance(items, Sequence) and all(map(_is_ours, items)) and set(raw) == {"nft"}
    found = listed(items) if ours else None
    if found is None:
        raise Mistakes(["firewall: nft: is no listing of the tables %s (nft -j list table inet %s)" % (TABLE, TABLE)])
    return replace(found, owner=owner)


def _is_ours(item: Any) -> bool:
    """Whether an object of a listing is one of our tables or in one."""
    if not isinstance(item, Mapping) or len(item) != 1:
        return False
    ((kind, body),) = item.items()
    place = "name" if kind == "table" else "table"
    return (
        kind in ("table", "chain", "set", "map", "rule")
        and isinstance(body, Mapping)
        and body.get("family") in FAMILIES
        and body.get(place) == TABLE
        and ("expr" in body if kind == "rule" else "name" in body)
    )


def read(raw: Any) -> Clause:
    """The clause as it stands in a document.

    Raises:
        Mistakes: all that is wrong with it.
    """
    reading = Reading("")
    clause = reading.mapping("firewall", raw, (*_READERS, *_LISTS), ("backend",))
    fields = reading.fields("firewall", clause, _READERS)
    needed = [] if fields.get("backend") == "host-gw" else ["local", "tunnel"]
    if any(clause.get(name) for name in ("masquerade", "antispoof", "ports", "pods")) or "policy" in clause:
        needed += ["bridge", "network", "subnet"]
    reading.mistakes += ["firewall: %s is missing" % name for name in needed if not clause.get(name)]
    fields.update(
        peers=_peers(reading, clause.get("peers", {})),
        trusted_sources=tuple(_trusted_sources(reading, clause.get("trusted_sources", []))),
        masquerade=_masquerade(reading, clause.get("masquerade")),
        pods=tuple(_rows(reading, "pods", clause.get("pods", []), _POD, Pod, ("name", "interface", "mac", "address"))),
        ports=tuple(_rows(reading, "ports", clause.get("ports", []), _PORT, PortMapping, tuple(_PORT)[:5])),
        policy=tuple(_policy(reading, clause["policy"])) if "policy" in clause else None,
        groups=_groups(reading, clause.get("groups", {})),
    )
    if reading.mistakes:
        raise Mistakes(reading.mistakes)
    found = Clause(**fields)
    mistakes = [*_untrusted(found), *_doubled(found.ports), *_unknown_groups(found)]
    if mistakes:
        raise Mistakes(mistakes)
    return found


def _peers(reading: Reading, raw: Any) -> dict[str, str]:
    table = reading.mapping("firewall: peers", raw, list(raw) if isinstance(raw, Mapping) else ())
    return {
        reading.value("firewall: peers", subnet, destination, "?"): reading.value(
            "firewall: peers: %s" % subnet, address, ipv4, "?"
        )
        for subnet, address in table.items()
    }


def _rows(
    reading: Reading, name: str, raw: Any, readers: Mapping[str, Reader], kind: Any, needs: Sequence[str]
) -> Iterator[Any]:
    """The rows of one of the clause's lists."""
    for index, item in enumerate(reading.sequence("firewall: %s" % name, raw)):
        label = item.get("name", item.get("pod", index)) if isinstance(item, Mapping) else index
        where = "firewall: %s[%s]" % (name, label)
        row = reading.fields(where, reading.mapping(where, item, tuple(readers), needs), readers)
        if set(needs) <= set(row):
            yield kind(**row)


def _trusted_sources(reading: Reading, raw: Any) -> Iterator[TrustedSource]:
    for index, item in enumerate(reading.sequence("firewall: trusted_sources", raw)):
        where = "firewall: trusted_sources[%d]" % index
        row = reading.mapping(where, item, ("address", "subnets"), ("address", "subnets"))
        address = reading.value("%s: address" % where, row.get("address", "0.0.0.0"), ipv4, "?")
        listed = reading.sequence("%s: subnets" % where, row.get("subnets", []))
        subnets = [reading.value("%s: subnets" % where, subnet, destination, "?") for subnet in listed]
        yield TrustedSource(address, tuple(subnets))


def _masquerade(reading: Reading, raw: Any) -> Masquerade | None:
    if raw is None:
        return None
    row = reading.mapping("firewall: masquerade", raw, (*_MASQUERADE, "except"))
    listed = reading.sequence("firewall: masquerade: except", row.get("except", []))
    exceptions = [reading.value("firewall: masquerade: except", item, destination, "?") for item in listed]
    return Masquerade(exceptions=tuple(exceptions), **reading.fields("firewall: masquerade", row, _MASQUERADE))


def _policy(reading: Reading, raw: Any) -> Iterator[Allow]:
    for index, item in enumerate(reading.sequence("firewall: policy", raw)):
        where = "firewall: policy[%d]" % index
        row = reading.mapping(where, item, (*_ALLOW, "ports"), ("to",))
        listed = reading.sequence("%s: ports" % where, row.get("ports", []))
        ports = [reading.value("%s: ports" % where, port, port_range, "?") for port in listed]
        fields = reading.fields(where, row, _ALLOW)
        if ports and fields.get("protocol") not in _WITH_PORTS:
            reading.mistakes.append("%s: ports need a protocol that has them: %s" % (where, ", ".join(_WITH_PORTS)))
        fields["from_group"] = fields.pop("from", None)
        yield Allow(**{"to": "?", **fields}, ports=tuple(ports))


def _groups(reading: Reading, raw: Any) -> dict[str, tuple[str, ...]]:
    table = reading.mapping("firewall: groups", raw, list(raw) if isinstance(raw, Mapping) else ())
    found = {}
    for name, listed in table.items():
        where = "firewall: groups: %s" % name
        members = [reading.value(where, item, ipv4, "?") for item in reading.sequence(where, listed)]
        found[reading.value(where, name, group_name, "?")] = tuple(members)
    return found


def _untrusted(clause: Clause) -> Iterator[str]:
    """Trusted sources that would be let in with a node's own addresses."""
    nodes = {subnet: "this node's" for subnet in [clause.subnet] if subnet}
    nodes.update((subnet, "of the node %s" % address) for subnet, address in clause.peers.items())
    for source in clause.trusted_sources:
        for subnet in map(ipaddress.IPv4Network, source.subnets):
            for other, whose in nodes.items():
                if subnet.overlaps(ipaddress.IPv4Network(other)) and clause.peers.get(other) != source.address:
                    yield "firewall: trusted_sources: %s: %s overlaps %s, which is %s" % (
                        source.address,
                        subnet,
                        other,
                        whose,
                    )


def _doubled(ports: Iterable[PortMapping]) -> Iterator[str]:
    """Port mappings that take the same port; one of any address takes that of each."""
    seen: dict[tuple[str, int], dict[str | None, str]] = {}
    for item in ports:
        others = seen.setdefault((item.protocol, item.host_port), {})
        clash = next(
            (pod for at, pod in others.items() if None in (at, item.host_address) or at == item.host_address), None
        )
        if clash is not None:
            yield "firewall: ports: %d/%s of %s goes to %s already, and not to %s too" % (
                item.host_port,
                item.protocol,
                item.host_address or "any address",
                clash,
                item.pod,
            )
        others[item.host_address] = item.pod


def _unknown_groups(clause: Clause) -> Iterator[str]:
    known = {*clause.groups, *(pod.group for pod in clause.pods)}
    for index, allow in enumerate(clause.policy or ()):
        for name in (allow.to, allow.from_group):
            if name is not None and name not in known:
                yield "firewall: policy[%d]: %s is no group: neither groups nor a pod has it" % (index, name)


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
_SOURCE_MAC = _payload("ether", "saddr")
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
    if clause.tunnel:
        _outer(made, clause)
    _guard(made, clause)
    _forward(made, clause)
    if clause.ports:
        _ports(made, clause)
    if clause.network:
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
    if clause.pods and (clause.antispoof or clause.policy is not None):
        made.family("bridge")
        _bridge(made, clause)
    return Firewall(
        owner,
        tuple(_text(item) for item in _in_order(made.objects)),
        tuple(sorted((family, name, _text(element)) for family, name, element in made.elements)),
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
    made.chain("outer", "filter", "input", _FILTER - 10)
    to_tunnel = [_match(_DADDR, clause.local)]
    if clause.backend == "ipip":
        protocol = _payload("ip", "protocol")
        made.rule(
            "outer", "no MPLS into %s" % clause.tunnel, *to_tunnel, _match(protocol, _MPLS), *_COUNTED_DROP
        )  # a device of mode any takes that too
        to_tunnel.append(_match(protocol, _IPIP))
    else:
        to_tunnel += [_match(_payload("udp", "dport"), clause.port), _match(_VXLAN_VNI, clause.vni)]
    by_sender = {"map": {"key": _SADDR, "data": "@peers"}}
    made.rule("outer", "who is no peer has no mark", *to_tunnel, _mark(0))
    made.rule("outer", "a peer's packets get its address as mark", *to_tunnel, _mark(by_sender))
    if clause.backend == "vxlan":  # the device is known by its VNI here; of IPIP only the guard can tell
        nobody = _match(_MARK, 0)
        made.rule(
            "outer", "%s to %s only from peers" % (clause.backend, clause.local), *to_tunnel, nobody, *_COUNTED_DROP
        )


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
    if clause.tunnel:
        unpacked = _meta("iifname", clause.tunnel)
        made.rule("guard", "no IPv6 out of the tunnel", unpacked, _meta("nfproto", "ipv6"), *_COUNTED_DROP)
        made.rule(
            "guard",
            "out of %s only from peers, each with its own subnet" % clause.tunnel,
            unpacked,
            _match(_concat(_MARK, _SADDR), "@sources", "!="),
            *_COUNTED_DROP,
        )
        made.rule("guard", "the mark has served", unpacked, _mark(0))
    from_pods = _meta("iifname", clause.bridge)
    if clause.antispoof:
        foreign = _match(_SADDR, _prefix(clause.subnet), "!=")
        made.rule("guard", "pods send from %s only" % clause.subnet, from_pods, foreign, *_COUNTED_DROP)
    if clause.ports:  # route_localnet, which loopback's mappings need, would let pods in
        loopback = _match(_DADDR, _prefix(_LOOPBACK))
        made.rule("guard", "pods do not reach the node's loopback", from_pods, loopback, *_COUNTED_DROP)


def _forward(made: _Tables, clause: Clause) -> None:
    """On what is routed to and from pods."""
    to_pods = _meta("oifname", clause.bridge)
    if clause.policy is not None:
        _groups_of(made, clause)
    if clause.tunnel or (clause.masquerade and not clause.masquerade.nodes):
        made.set("nodes", "ipv4_addr", clause.nodes)
    if not (clause.tunnel and clause.bridge) and clause.policy is None:
        return
    made.chain("forward", "filter", "forward", _FILTER - 10)
    if clause.tunnel and clause.bridge:
        packed = _match(_payload("udp", "dport"), clause.port)
        if clause.backend == "ipip":
            packed = _match(_payload("ip", "protocol"), {"set": [_IPIP, _MPLS]})
        made.rule(
            "forward",
            "pods send nothing packed to nodes",
            _meta("iifname", clause.bridge),
            _match(_DADDR, "@nodes"),
            packed,
            *_COUNTED_DROP,
        )
    if clause.policy is not None:
        known = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
        made.rule("forward", "what was let in is answered", to_pods, known, _ACCEPT)
        made.rule("forward", "isolated pods", to_pods, {"vmap": {"key": _DADDR, "data": "@isolated"}})


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
        yield _meta("l4proto", _PROTOCOLS[item.protocol])


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

    if clause.ports:
        mapped = _match({"ct": {"key": "status"}}, "dnat", "in")
        subnet = _prefix(clause.subnet)
        to_bridge = _meta("oifname", clause.bridge)
        rule("the node's loopback to a mapped port", _match(_SADDR, _prefix(_LOOPBACK)), to_bridge, as_device)
        rule("a pod to a mapped port of its node", _match(_SADDR, subnet), _match(_DADDR, subnet), mapped, as_device)
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
    rule("what comes to our own pods keeps its source", _match(_DADDR, _prefix(clause.subnet)), _RETURN)
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
        _match({"meta": {"key": "pkttype"}}, "other"),
        _match(_SADDR, _prefix(clause.subnet)),
        _match(_DADDR, "@isolated"),  # untranslated, it would have gone to the node
        _ACCEPT,
    )
    not_arp = _match(_payload("ether", "type"), "arp", "!=")
    purpose = "nothing else to isolated pods past the policy: broadcast, IPv6"
    made.rule("forward", purpose, to_isolated, not_arp, *_COUNTED_DROP)


def _antispoof(made: _Tables) -> None:
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
    ipv6 = _match(_payload("ether", "type"), "ip6")
    let("IPv6 on the link, which is not routed", _concat(*port_and_mac), "@macs", ipv6)
    made.rule("antispoof", "a pod uses its own address and MAC only", *_COUNTED_DROP)


def _gateway(subnet: str) -> str:
    return str(ipaddress.IPv4Network(subnet)[1])


# ------------------------------------------------------------------------------------------------ states and changes


def _text(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _in_order(objects: Sequence[Json]) -> list[Json]:
    """Tables, chains, sets and maps by name, then the rules as they stand: each names only what comes before it."""
    kinds = ("table", "chain", "set", "map")

    def place(item: Json) -> tuple[Any, ...]:
        ((kind, body),) = item.items()
        if kind == "rule":
            return (len(kinds), FAMILIES.index(body["family"]), body["chain"])
        return (kinds.index(kind), FAMILIES.index(body["family"]), body["name"])

    return sorted(objects, key=place)


def listed(listing: Iterable[Mapping[str, Any]]) -> Firewall | None:
    """The tables in a listing of nft; None where it has none. The owner is the one that the rules' comments name."""
    objects: list[Json] = []
    elements: list[tuple[str, str, str]] = []
    owner = ""
    for item in listing:
        ((kind, body),) = item.items()
        if kind == "metainfo":
            continue
        kept = {key: value for key, value in body.items() if key not in ("handle", "index", "elem")}
        if kind == "rule":
            kept["expr"] = [{"counter": None} if "counter" in part else part for part in kept["expr"]]
            comment = str(kept.get("comment", ""))
            if comment.startswith(ALIAS_PREFIX):
                owner = owner or comment[len(ALIAS_PREFIX) :].partition(" ")[0]
        elements += [(body["family"], body["name"], _text(element)) for element in body.get("elem", ())]
        objects.append({kind: kept})
    if not objects:
        return None
    return Firewall(owner, tuple(map(_text, _in_order(objects))), tuple(sorted(elements)))


def lines(wall: Firewall) -> list[str]:
    """The tables for people, a line for each chain, set, element and rule; the same whatever order they were made in."""
    found = ["element %s %s: %s" % (family, name, _element_text(element)) for family, name, element in wall.elements]
    for raw in wall.objects:
        ((kind, body),) = json.loads(raw).items()
        if kind == "rule":
            rule = (body["family"], body["chain"], rule_text(body), body.get("comment", ""))
            found.append("rule %s %s: %s comment %s" % (*rule[:3], json.dumps(rule[3])))
        elif kind != "table":
            kept = {key: value for key, value in body.items() if key not in ("family", "table", "name")}
            found.append("%s %s %s %s" % (kind, body["family"], body["name"], _text(kept) if kept else ""))
    return found


def _element_text(element: str) -> str:
    raw = json.loads(element)
    return " : ".join(map(words_of, raw)) if isinstance(raw, list) else words_of(raw)


def verbatim(wall: Firewall) -> list[Json]:
    """The tables in nft's own JSON, as a document has them under ``nft``."""
    of_sets: dict[tuple[str, str], list[Any]] = {}
    for family, name, element in wall.elements:
        of_sets.setdefault((family, name), []).append(json.loads(element))
    objects: list[Json] = [json.loads(text) for text in wall.objects]
    for item in objects:
        ((kind, body),) = item.items()
        if kind in ("set", "map") and (body["family"], body["name"]) in of_sets:
            body["elem"] = of_sets[body["family"], body["name"]]
    return objects


def commands(before: Firewall | None, after: Firewall | None) -> list[Json]:
    """nft's JSON commands from one state of the tables to another, to be sent as one transaction.

    Where only elements of sets differ, only those change: a new peer costs an element of each of its sets, and no
    counter begins anew.
    """
    if before is not None and after is not None and before.objects == after.objects:
        old, new = set(before.elements), set(after.elements)
        return [*_elements("delete", old - new), *_elements("add", new - old)]
    made: list[Json] = []
    for family in FAMILIES:
        table = {"table": {"family": family, "name": TABLE}}
        made += [{"add": table}, {"delete": table}]  # a table that is not there cannot be deleted
    if after is not None:
        objects = [json.loads(text) for text in after.objects]
        rules = [item for item in objects if "rule" in item]
        made += [{"add": item} for item in objects if "rule" not in item]
        made += [*_elements("add", after.elements), *({"add": item} for item in rules)]
    return made


def _elements(verb: str, elements: Iterable[tuple[str, str, str]]) -> Iterator[Json]:
    of_sets: dict[tuple[str, str], list[Any]] = {}
    for family, name, element in sorted(elements):
        of_sets.setdefault((family, name), []).append(json.loads(element))
    for (family, name), some in of_sets.items():
        yield {verb: {"element": {"family": family, "table": TABLE, "name": name, "elem": some}}}


def udp_mappings(wall: Firewall | None) -> set[tuple[str, int, str]]:
    """The UDP port mappings in the tables: host address ("" for any), port, and the whole rule."""
    found = set()
    for text in wall.objects if wall else ():
        rule = json.loads(text).get("rule", {})
        if rule.get("chain") != "ports":
            continue
        rights = {_text(part["match"]["left"]): part["match"]["right"] for part in rule["expr"] if "match" in part}
        port = rights.get(_text(_payload("udp", "dport")))
        if port is not None:
            found.add((str(rights.get(_text(_DADDR), "")), int(port), text))
    return found
