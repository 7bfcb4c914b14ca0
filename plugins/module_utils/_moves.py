# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From one backend to another while pods talk: every node takes what either brings before the first one sends by the new. Pure.

Two nodes of different backends do not hear each other. So a fleet moves in three steps, each node by node if that is asked for:
all take both and send as before; all send by the new one; all forget the former one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ._documents import document_of
from ._facts import Facts, Underlay
from ._inventory import Node, Settings
from ._leases import Lease
from ._readers import OVERHEAD

Documents = dict[str, dict[str, Any]]


class Way(NamedTuple):
    """How a node sends; only what counts with its backend is there."""

    backend: str
    tunnel: str = ""
    direct_routing: bool = False
    vni: int = 0
    port: int = 0

    def __str__(self) -> str:
        of_vxlan = f" (VNI {self.vni}, port {self.port})" if self.backend == "vxlan" else ""
        return self.backend + of_vxlan + (" with direct routing" if self.direct_routing else "")


def way_of(backend: str, tunnel: str | None, direct_routing: object, vni: int | None, port: int | None) -> Way:
    """How a node sends, by what its settings or its document say."""
    if backend == "host-gw":
        return Way(backend)
    if backend == "ipip":
        return Way(backend, tunnel or "", bool(direct_routing))
    return Way(backend, tunnel or "", bool(direct_routing), vni or 0, port or 0)


def sending_by(settings: Settings) -> Way:
    """How nodes of these settings send."""
    return way_of(settings.backend, settings.tunnel, settings.direct_routing, settings.vni, settings.port)


def former(settings: Settings, facts: Iterable[Facts]) -> Settings | None:
    """The settings that nodes still send by, or whose packets they take because others may: they have not finished their move.

    None where there are none, or where nodes send by several others or cannot have both at a time, since a link is of one kind
    and two of a kind have no room.
    """
    new, known = sending_by(settings), list(facts)
    sent = {way_of(**its.sends) for its in known if its.sends} - {new}
    taken = {way_of(**its.also) for its in known if its.also} - {new}
    others = sent or taken
    if len(others) != 1:
        return None
    old = others.pop()
    if old.tunnel and new.tunnel and (old.tunnel == new.tunnel) != (_link(old) == _link(new)):
        return None
    return dataclasses.replace(
        settings,
        backend=old.backend,
        tunnel=old.tunnel or None,
        direct_routing=old.direct_routing,
        vni=old.vni or settings.vni,
        port=old.port or settings.port,
    )


def smaller(mtu: int, underlay: Underlay, old: Settings) -> int:
    """The pods' MTU while packets may come and go by either backend."""
    return min(mtu, underlay.mtu - OVERHEAD[old.backend])


def taking_both(
    settings: Settings,
    old: Settings,
    ready: bool,
    nodes: Mapping[str, Node],
    leases: Mapping[str, Lease],
    underlays: Mapping[str, Underlay],
    facts: Mapping[str, Facts],
    owner: str,
) -> Documents:
    """The documents with which the nodes of *underlays* take what either backend brings.

    They send by the new one if all others are *ready* for that; else as before, a node that carries nothing yet by the old one.
    """
    made = {}
    for name, underlay in underlays.items():
        sends = facts[name].sends
        by, also = (settings, old) if ready or (sends and way_of(**sends) == sending_by(settings)) else (old, settings)
        lease = leases[name]
        lease = dataclasses.replace(lease, mtu=smaller(lease.mtu or underlay.mtu, underlay, old))
        made[name] = document = document_of(by, nodes[name], lease, underlay, facts[name], owner, also)
        document["sysctls"] += _from_either(filter(None, {by.tunnel, also.tunnel, underlay.interface}), facts[name])
    return made


def steps(
    settings: Settings,
    old: Settings,
    nodes: Mapping[str, Node],
    leases: Mapping[str, Lease],
    underlays: Mapping[str, Underlay],
    facts: Mapping[str, Facts],
    owner: str,
) -> tuple[Documents, ...]:
    """The documents of the steps before the last, which is each node's own document without another backend.

    None where all nodes send by the new backend already. A node that carries nothing yet comes with the last step.
    """
    if not any((sends := facts[name].sends) and way_of(**sends) != sending_by(settings) for name in underlays):
        return ()
    there = {name: underlay for name, underlay in underlays.items() if facts[name].carries is not None}
    first, second = (taking_both(settings, old, ready, nodes, leases, there, facts, owner) for ready in (False, True))
    return first, second


def _link(way: Way) -> tuple[object, ...]:
    """What the kernel has one tunnel of, whatever its name, and cannot change."""
    return way.backend, way.vni, way.port


def _from_either(interfaces: Iterable[str], facts: Facts) -> list[dict[str, str]]:
    """A peer's packets come by one interface while its route is by another, which a strict reverse path filter drops."""
    loosened = (facts.carries or {}).get("loosened") or ()
    strict = (
        interface
        for interface in sorted(interfaces)
        if interface in loosened or (interface if interface in facts.links else "default") in facts.strict
    )
    names = (interface.replace(".", "/") for interface in strict)  # as sysctl(8) has an interface's dots
    return [{"name": f"net.ipv4.conf.{name}.rp_filter", "value": "2"} for name in names]
