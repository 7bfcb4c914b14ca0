# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The peer table on a host: every other node becomes what the backend needs to reach its subnet.

All nodes get the same table ``{subnet: public_ip}``; each expands it here, as Flannel's backends do
(``pkg/backend/ipip``, ``hostgw``, ``vxlan``). Pure.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ._model import (
    ForwardingEntry,
    Mistakes,
    Neighbour,
    Object,
    Route,
    State,
    destination,
    interface_name,
    ipv4,
    mac_of,
)

VTEP_PREFIX = "0e:58"
BACKENDS = ("ipip", "vxlan", "host-gw")
_KEYS = ("backend", "subnet", "public_ip", "dev", "interface", "underlay", "direct_routing", "network", "table")


def vtep_mac(subnet: str) -> str:
    """The MAC of a node's vxlan device, derived from its subnet, so that peers need not be told it."""
    return mac_of(subnet.split("/", maxsplit=1)[0], VTEP_PREFIX)


def expand(desired: State, clause: Mapping[str, Any], table: Mapping[str, str], namespace: str = "") -> State:
    """*desired* and what *clause* and *table* add: routes, neighbours and forwarding entries.

    Raises:
        Mistakes: all that is wrong with the clause or the table.
    """
    for where, value in (("peers", clause), ("peers: table", table)):
        if not isinstance(value, Mapping):
            raise Mistakes(["%s: %r is no mapping" % (where, value)])
    mistakes = [*_clause_mistakes(clause), *_table_mistakes(table)]
    if mistakes:
        raise Mistakes(mistakes)
    added = [item for pair in others(clause, table).items() for item in _reach(clause, pair, namespace)]
    return {**desired, **{item.key: item for item in added}}


def others(clause: Mapping[str, Any], table: Mapping[str, str]) -> dict[str, str]:
    """The nodes of *table* but for this one."""
    return {subnet: address for subnet, address in table.items() if subnet != clause["subnet"]}


def digest(table: Mapping[str, str]) -> str:
    """What tells one table of nodes from another: a thousand hosts would have a thousand lines each to send."""
    lines = ["%s %s\n" % node for node in sorted(table.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _reach(clause: Mapping[str, Any], peer: tuple[str, str], namespace: str) -> Iterator[Object]:
    """What reaches one peer's subnet."""
    subnet, public_ip = peer
    backend, dev = clause["backend"], clause.get("dev") or ""
    direct = backend == "host-gw" or (clause.get("direct_routing") and _on_link(public_ip, clause.get("underlay")))
    if direct:
        yield Route(namespace, subnet, via=public_ip, dev=clause.get("interface") or "")
    elif backend == "ipip":
        yield Route(namespace, subnet, via=public_ip, dev=dev, onlink=True)
    else:
        gateway = subnet.split("/")[0]
        yield Route(namespace, subnet, via=gateway, dev=dev, onlink=True)
        yield Neighbour(namespace, dev, gateway, vtep_mac(subnet))
        yield ForwardingEntry(namespace, dev, vtep_mac(subnet), public_ip)


def _on_link(address: str, underlay: Any) -> bool:
    return bool(underlay) and ipaddress.IPv4Address(address) in ipaddress.IPv4Network(underlay)


def _clause_mistakes(clause: Mapping[str, Any]) -> Iterator[str]:
    for key in clause:
        if key not in _KEYS:
            yield "peers: unknown key %r; the keys are %s" % (key, ", ".join(_KEYS))
    for key in ("backend", "subnet"):
        if not clause.get(key):
            yield "peers: %s is missing" % key
    backend = clause.get("backend")
    if backend and backend not in BACKENDS:
        yield "peers: backend %r is none of %s" % (backend, ", ".join(BACKENDS))
    if backend in ("ipip", "vxlan") and not clause.get("dev"):
        yield "peers: dev, the tunnel's name, is missing"
    readers: dict[str, Any] = {
        "subnet": destination,
        "public_ip": ipv4,
        "dev": interface_name,
        "interface": interface_name,
        "underlay": destination,
    }
    for key, reader in readers.items():
        yield from _mistake("peers: %s" % key, clause[key], reader) if clause.get(key) else ()


def _table_mistakes(table: Mapping[str, str]) -> Iterator[str]:
    for subnet, public_ip in table.items():
        yield from _mistake("peers: table", subnet, destination)
        yield from _mistake("peers: table: %s" % subnet, public_ip, ipv4)


def _mistake(where: str, value: Any, reader: Any) -> Iterator[str]:
    try:
        if reader(value) != value:
            yield "%s: %r is not written as %s" % (where, value, reader(value))
    except ValueError as error:
        yield "%s: %s" % (where, error)
