# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A document's ``firewall`` clause: what it may say, read and judged. Pure; ``_firewall`` makes tables of it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ._model import Mistakes, Reader, Reading, choice, destination, flag, interface_name, ipv4, mac, number, text_of

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1}
_WITH_PORTS = ("tcp", "udp", "sctp")


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
    """The ``firewall`` clause of a document, read. ``policy`` None: no isolation.

    ``also`` is another backend whose packets are taken too, while nodes move from one to the other: its fields of this clause.
    """

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
    direct_routing: bool = False
    masquerade: Masquerade | None = None
    antispoof: bool = False
    pods: tuple[Pod, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    policy: tuple[Allow, ...] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ways(self) -> tuple[Clause, ...]:
        """The clause for each backend whose packets are taken."""
        return (self, replace(self, **self.also)) if self.also else (self,)

    @property
    def tunnelled(self) -> list[Clause]:
        """The same, once for each tunnel."""
        return list({way.tunnel: way for way in self.ways if way.tunnel}.values())

    @property
    def tunnels(self) -> list[str]:
        return [way.tunnel for way in self.tunnelled]

    @property
    def nodes(self) -> list[str]:
        """The underlay's addresses of all nodes."""
        return sorted({*self.peers.values(), *(way.local for way in self.ways if way.local)})


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
    "direct_routing": flag,
    "antispoof": flag,
}
_LISTS = ("peers", "trusted_sources", "masquerade", "pods", "ports", "policy", "groups", "also")
_OF_BACKEND = {"backend": "", "local": "", "tunnel": "", "vni": 1, "port": 8472, "direct_routing": False}
"""What is another's with another backend, and what it is where it is not said."""
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
    "protocol": choice(*PROTOCOLS),
}


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
        also=_also(reading, clause["also"]) if "also" in clause else {},
    )
    if reading.mistakes:
        raise Mistakes(reading.mistakes)
    found = Clause(**fields)
    mistakes = [*_untrusted(found), *_doubled(found.ports), *_unknown_groups(found), *_one_tunnel(found)]
    if mistakes:
        raise Mistakes(mistakes)
    return found


def _also(reading: Reading, raw: Any) -> dict[str, Any]:
    row = reading.mapping("firewall: also", raw, tuple(_OF_BACKEND), ("backend",))
    fields = {**_OF_BACKEND, **reading.fields("firewall: also", row, _READERS)}
    needed = () if fields["backend"] == "host-gw" else ("local", "tunnel")
    reading.mistakes += ["firewall: also: %s is missing" % name for name in needed if not fields[name]]
    return fields


def _one_tunnel(clause: Clause) -> Iterator[str]:
    """Two backends by one device, which is of one kind only, or one by two devices."""
    kinds = {
        (way.backend, *((way.vni, way.port) if way.backend == "vxlan" else ())) for way in clause.ways if way.tunnel
    }
    if len(kinds) > len(clause.tunnels):
        yield "firewall: also: tunnel %s is of another backend already" % clause.tunnel
    if len(kinds) < len(clause.tunnels):
        yield "firewall: also: there is one tunnel of a kind, and not %s" % " and ".join(clause.tunnels)


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
    """Trusted sources that would be let in with a node's own addresses, or with nobody's."""
    taken = {"127.0.0.0/8": "the loopback", "224.0.0.0/4": "multicast"}
    taken.update((subnet, "this node's") for subnet in [clause.subnet] if subnet)
    taken.update((subnet, "the subnet of the node %s" % address) for subnet, address in clause.peers.items())
    taken.update(("%s/32" % address, "the node %s itself" % address) for address in clause.nodes)
    for source in clause.trusted_sources:
        for subnet in map(ipaddress.IPv4Network, source.subnets):
            for other, whose in taken.items():
                if subnet.overlaps(ipaddress.IPv4Network(other)):
                    what = (source.address, subnet, other, whose)
                    yield "firewall: trusted_sources: %s: %s overlaps %s, which is %s" % what


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
