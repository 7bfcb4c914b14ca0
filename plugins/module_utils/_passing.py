# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Readers of what may pass: port mappings, networks, trusted sources and policy. Pure.

A reader of a list takes ``tell``, which it calls with each mistake, and returns what is right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ._firewall_clause import group_name, port_range
from ._model import choice, ipv4, number
from ._readers import network_of, usable

Tell = Callable[[str], None]

WITH_PORTS = ("tcp", "udp", "sctp")
"""The protocols that have ports."""
PROTOCOLS = (*WITH_PORTS, "icmp")
_MAPPING = re.compile(r"(?:([^:/]*):)?([0-9]+):([0-9]+)(?:/([^:/]*))?")
_NOBODYS = {"127.0.0.0/8": "the loopback", "224.0.0.0/4": "multicast"}
_ALLOW = ("to", "from", "network", "protocol", "ports")


@dataclass(frozen=True)
class PortMapping:
    """What comes to ``host_port`` of ``host_address`` (None: of any address of the host) goes to the pod's ``port``."""

    port: int
    protocol: str
    host_port: int
    host_address: str | None = None

    def __str__(self) -> str:
        where = f"{self.host_address}:" if self.host_address else ""
        return f"{where}{self.host_port}:{self.port}/{self.protocol}"


def port_mapping(value: Any) -> PortMapping:
    """``HOSTPORT:PORT[/PROTOCOL]`` or ``ADDRESS:HOSTPORT:PORT[/PROTOCOL]``, as in CNI's and Docker's command lines."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'{value!r} is a number, as YAML reads 53:53; write the mapping in quotes: "53:53/udp"')
    found = _MAPPING.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(
            f"{value!r} is no port mapping; write it as HOSTPORT:PORT or ADDRESS:HOSTPORT:PORT, with /udp or /sctp "
            "behind it where it is not tcp"
        )
    address, host_port, port, protocol = found.groups()
    any_port = number(1, 65535)
    return PortMapping(
        any_port(port),
        "tcp" if protocol is None else choice(*WITH_PORTS)(protocol.lower()),
        any_port(host_port),
        None if address in (None, "0.0.0.0") else ipv4(address),
    )


def networks(raw: Any, tell: Tell) -> tuple[str, ...]:
    """IPv4 networks, without those that others contain."""
    return _collapsed(_each(raw, network_of, "networks, as in [192.0.2.0/24]", tell))


def trusted_sources(raw: Any, tell: Tell) -> tuple[Mapping[str, Any], ...]:
    """Hosts that are no nodes, each once, with the inner subnets that it may send from."""
    subnets: dict[str, list[ipaddress.IPv4Network]] = {}
    form = "mappings, as in [{address: 203.0.113.9, subnets: [10.250.0.0/24]}]"
    for index, item in enumerate(_list(raw, form, tell)):
        where = f"[{index}]"
        if not isinstance(item, Mapping):
            tell(f"{where}: {item!r} is no mapping; write it as {{address: 203.0.113.9, subnets: [10.250.0.0/24]}}")
            continue
        _keys(where, item, ("address", "subnets"), tell)
        address = _read(f"{where}: address", item.get("address"), usable, tell)
        inner = [*_each(item.get("subnets"), _inner, "subnets", _prefixed(tell, f"{where}: subnets: "))]
        if not item.get("subnets"):
            tell(f"{where}: subnets: is missing; name the networks that it may send from through the tunnel")
        if address:
            subnets.setdefault(address, []).extend(inner)
    return tuple({"address": address, "subnets": list(_collapsed(inner))} for address, inner in subnets.items())


def _inner(value: Any) -> ipaddress.IPv4Network:
    network = network_of(value)
    held = [f"{whose} ({text})" for text, whose in _NOBODYS.items() if network.overlaps(ipaddress.IPv4Network(text))]
    if held:
        raise ValueError(
            f"{network} overlaps {' and '.join(held)}, which nobody sends from; name the networks behind it"
        )
    return network


def policy(raw: Any, tell: Tell) -> tuple[Mapping[str, Any], ...] | None:
    """What is allowed between groups of pods; None is no isolation."""
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        tell(f"{raw!r} is no mapping; write it as {{allow: [{{to: db, from: web, protocol: tcp, ports: [5432]}}]}}")
        return None
    _keys("", raw, ("allow",), tell)
    form = "mappings, as in [{to: db, from: web, protocol: tcp, ports: [5432]}]"
    rules = _list(raw.get("allow"), form, _prefixed(tell, "allow: "))
    return tuple(_allowed(item, _prefixed(tell, f"allow[{index}]: ")) for index, item in enumerate(rules))


def _allowed(item: Any, tell: Tell) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        tell(f"{item!r} is no mapping; write it as {{to: db, from: web, protocol: tcp, ports: [5432]}}")
        return {}
    _keys("", item, _ALLOW, tell)

    def get(name: str, reader: Callable[[Any], Any]) -> Any:
        return None if item.get(name) is None else _read(name, item[name], reader, tell)

    if item.get("to") is None:
        tell("to: is missing; name the group that may be reached")
    if item.get("from") is not None and item.get("network") is not None:
        tell("from, network: only one of them; write two rules")
    network = get("network", network_of)
    protocol = get("protocol", choice(*PROTOCOLS))
    ports = [*_each(item.get("ports"), _port_range, 'ports, as in [5432, "8000-8100"]', _prefixed(tell, "ports: "))]
    if ports and protocol not in WITH_PORTS and item.get("protocol") in (None, "icmp"):
        tell(f"ports: need a protocol that has them: {', '.join(WITH_PORTS)}")
    return {
        "to": get("to", group_name),
        "from": get("from", group_name),
        "network": None if network is None else str(network),
        "protocol": protocol,
        "ports": list(_joined(ports)),
    }


def _port_range(value: Any) -> tuple[int, int]:
    first, _dash, last = port_range(value).partition("-")
    return int(first), int(last or first)


def _joined(ports: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Ranges of ports without overlaps, which an nftables set refuses."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return (str(first) if first == last else f"{first}-{last}" for first, last in merged)


def _collapsed(found: Iterable[ipaddress.IPv4Network]) -> tuple[str, ...]:
    """Networks without overlaps, which an nftables set refuses."""
    return tuple(map(str, ipaddress.collapse_addresses(found)))


def _prefixed(tell: Tell, prefix: str) -> Tell:
    return lambda mistake: tell(prefix + mistake)


def _list(raw: Any, form: str, tell: Tell) -> Sequence[Any]:
    if raw is None:
        return ()
    if isinstance(raw, (str, Mapping)) or not isinstance(raw, Sequence):
        tell(f"{raw!r} is no list of {form}")
        return ()
    return raw


def _each(raw: Any, reader: Callable[[Any], Any], form: str, tell: Tell) -> Iterator[Any]:
    for item in _list(raw, form, tell):
        try:
            yield reader(item)
        except ValueError as error:
            tell(str(error))


def _read(where: str, raw: Any, reader: Callable[[Any], Any], tell: Tell) -> Any:
    try:
        return reader(raw)
    except ValueError as error:
        tell(f"{where}: {error}")
        return None


def _keys(where: str, raw: Mapping[Any, Any], known: Sequence[str], tell: Tell) -> None:
    for key in raw:
        if key not in known:
            tell(f"{where}{': ' if where else ''}unknown key {key!r}; the keys are {', '.join(known)}")
