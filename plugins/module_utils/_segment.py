# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is on an Ethernet segment of this host: through veth pairs and bridges, as far as namespaces have names. Pure over ``Look``."""

from __future__ import annotations

from ._hops import Facts, addresses_of, kind_of
from ._look import Look

Place = tuple[str, str]  # namespace and interface


def segment(look: Look, namespace: str, dev: str) -> tuple[list[Place], bool]:
    """The interfaces with an IP stack of their own that share a segment with *dev*, and whether these are all."""
    ends: list[Place] = []
    bridges: set[Place] = set()
    whole = True
    todo = [(namespace, dev)]
    while todo:
        here, name = todo.pop()
        links = look.links(here)
        bridge = name if kind_of(links[name]) == "bridge" else links[name].get("master", "")
        if (here, bridge) in bridges:
            continue
        if bridge:
            bridges.add((here, bridge))
            ends.append((here, bridge))
        for port in [port for port, link in links.items() if bridge and link.get("master") == bridge] or [name]:
            peer = look.peer(here, links[port]) if kind_of(links[port]) == "veth" else None
            if peer and look.links(peer[0])[peer[1]].get("master"):
                todo.append(peer)
            elif peer:
                ends.append(peer)
            elif port != bridge:
                whole = False
    return [place for place in ends if place != (namespace, dev)], whole


def holders(look: Look, places: list[Place], address: str) -> list[Place]:
    """Those of *places* that have an address."""
    return [place for place in places if address in addresses_of(link_at(look, place))]


def elsewhere(look: Look, namespace: str, address: str) -> list[Place]:
    """The interfaces of other namespaces that have an address."""
    return [
        (other, name)
        for other in look.namespaces()
        if other != namespace
        for name, link in look.links(other).items()
        if name != "lo" and address in addresses_of(link)
    ]


def link_at(look: Look, place: Place) -> Facts:
    """The link at a place, empty if it is not there."""
    return look.links(place[0]).get(place[1], {})


def mac_at(look: Look, place: Place) -> str:
    """The MAC at a place."""
    return str(link_at(look, place).get("address", ""))


def port_towards(look: Look, namespace: str, bridge: str, mac: str | None) -> str:
    """The port of a bridge behind which an interface has *mac*, '' if none is known."""
    for name, link in look.links(namespace).items():
        if link.get("master") == bridge and kind_of(link) == "veth":
            peer = look.peer(namespace, link)
            if peer and mac_at(look, peer) == mac:
                return name
    return ""


def port_facts(link: Facts) -> Facts:
    """What a bridge's port says of itself."""
    facts: Facts = link.get("linkinfo", {}).get("info_slave_data", {})
    return facts


def device_facts(link: Facts) -> Facts:
    """What a link's kind says of itself."""
    facts: Facts = link.get("linkinfo", {}).get("info_data", {})
    return facts
