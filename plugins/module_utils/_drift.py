# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the life of a host does to an overlay that was there: what a document implies, what shadows it, what is fought over. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from ._difference import Operation, merge
from ._model import (
    MAIN_TABLE,
    OVERLAY_PROTOCOL,
    Address,
    Ipip,
    Key,
    Link,
    Namespace,
    Object,
    Route,
    State,
    Veth,
    Vxlan,
    describe,
    of_type,
)

KERNEL_PROTOCOL = 2  # rtnetlink(7): RTPROT_KERNEL

PATIENCE = 5
"""So many repairs of one thing, each soon after the other, are made at once; then whoever undoes it is fought with pauses."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds
CALM = 3.0
"""After so many seconds without a repair, or twice the pause, it is no fight any more."""
LONG_CALM = 600.0
"""Who comes back within so many seconds is counted too, and told after PATIENCE repairs: Flannel looks every 10 s, Calico every 10 to
90 s, cron every minute. No pause meets those: a repair a minute costs nothing, and a pause would be an outage."""


def connected(desired: State, observed: State) -> State:
    """The kernel's own routes of addresses that are there, where they are not: nothing but a route brings them back.

    An address that is yet to be made brings its route along.
    """
    found: State = {}
    for address in of_type(desired, Address):
        link = observed.get(("link", address.namespace, address.dev))
        wanted = desired.get(("link", address.namespace, address.dev))
        if observed.get(address.key) != address or not isinstance(link, Link) or not link.up or address.peer:
            continue
        if not isinstance(wanted, Link) or wanted.external or merge(wanted, link) != link:
            continue  # it is about to be changed, or made anew
        local = ipaddress.IPv4Interface(address.address)
        if local.network.prefixlen == 32:
            continue
        route = Route(
            address.namespace, str(local.network), dev=address.dev, src=str(local.ip), protocol=KERNEL_PROTOCOL
        )
        present = observed.get(route.key)
        if not isinstance(present, Route) or present.protocol != KERNEL_PROTOCOL:
            found[route.key] = route
    return found


def shadowable(desired: State) -> dict[ipaddress.IPv4Network, Route | Address]:
    """What a more specific route would take packets from: the overlay's routes, and the networks of the node's own addresses."""
    found: dict[ipaddress.IPv4Network, Route | Address] = {
        ipaddress.IPv4Interface(address.address).network: address
        for address in of_type(desired, Address)
        if not address.namespace and not address.peer
    }
    found.update(
        (ipaddress.IPv4Network(route.dst), route)
        for route in of_type(desired, Route)
        if not route.namespace and route.table == MAIN_TABLE and route.protocol == OVERLAY_PROTOCOL
    )
    return found


def shadows(desired: State, observed: State) -> Iterator[str]:
    """Foreign routes that take packets of ours, or of a link of ours, away, since they are more specific. Linear in routes."""
    ours = shadowable(desired)
    lengths = sorted({network.prefixlen for network in ours})
    made = {link.name for link in of_type(desired, Link) if not link.namespace and not link.external}
    for route in of_type(observed, Route):
        if route.namespace or route.table != MAIN_TABLE or route.protocol == OVERLAY_PROTOCOL:
            continue
        if route.protocol == KERNEL_PROTOCOL and route.dev in made:
            continue
        network = ipaddress.IPv4Network(route.dst)
        for length in lengths:
            shadowed = ours.get(network.supernet(new_prefix=length)) if length < network.prefixlen else None
            if shadowed is not None and not (isinstance(shadowed, Address) and shadowed.dev == route.dev):
                yield "%s takes packets from %s" % (describe(route), describe(shadowed))


# ------------------------------------------------------------------------------------------------ what is fought over


@dataclass
class Fight:
    """How often one object was repaired, when last, how long it is left alone, and who undid it."""

    repairs: int = 0
    last: float = 0.0
    pause: float = 0.0
    who: str = ""
    begun: float = 0.0
    """When it was repaired first, without a long calm since then, and"""
    often: int = 0
    """how often since."""


@dataclass
class Backoff:
    """Which objects are not repaired just now, because something keeps undoing it, or because the kernel refused."""

    first: float = FIRST_PAUSE
    longest: float = LONGEST_PAUSE
    fights: dict[Key, Fight] = field(default_factory=dict)

    def repaired(self, key: Key, now: float, who: str = "") -> Fight | None:
        """Take note of a repair; the fight, if it has to be told now."""
        fight = self._fight(key, now)
        fight.repairs, fight.last, fight.who = fight.repairs + 1, now, who or fight.who
        fight.begun, fight.often = (fight.begun, fight.often + 1) if fight.often else (now, 1)
        if fight.repairs < PATIENCE:
            fight.pause = 0.0  # of a refusal before
        else:
            fight.pause = self._longer(fight.pause)
        return fight if PATIENCE in (fight.repairs, fight.often) else None

    def refused(self, key: Key, now: float) -> None:
        """The kernel did not take it: try again after a pause."""
        fight = self._fight(key, now)
        fight.last, fight.pause = now, self._longer(fight.pause)

    def _fight(self, key: Key, now: float) -> Fight:
        """What is known of it, as far as that still counts."""
        fight = self.fights.setdefault(key, Fight())
        if now - fight.last > max(CALM, 2 * fight.pause):
            fight.repairs, fight.pause = 0, 0.0
        if now - fight.last > LONG_CALM:
            fight.often = 0
        return fight

    def _longer(self, pause: float) -> float:
        return min(self.longest, max(self.first, pause * 2))

    def excused(self, keys: Collection[Key]) -> None:
        """What they live on is not there, or not usable: nobody fights over them, and they are made as soon as they can be."""
        for key in keys:
            self.fights.pop(key, None)

    def held(self, now: float) -> set[Key]:
        """What has to wait."""
        return {key for key, fight in self.fights.items() if now < fight.last + fight.pause}

    def next(self, waiting: Collection[Key], now: float) -> float | None:
        """Seconds until the first of what is *waiting* may be tried again, None if nothing is."""
        known = [self.fights.get(key, Fight()) for key in waiting]
        return max(0.0, min(fight.last + fight.pause for fight in known) - now) if known else None

    def forget(self, now: float) -> None:
        """Drop what has been calm for long."""
        self.fights = {
            key: fight for key, fight in self.fights.items() if now - fight.last <= max(LONG_CALM, 2 * fight.pause)
        }


def parted(
    operations: Iterable[Operation], held: Collection[Key], foreign: Collection[Key], desired: State, observed: State
) -> tuple[list[Operation], list[Operation]]:
    """The operations that can be carried out while something is left as it is, and those that have to wait for it.

    Args:
        operations: all of them.
        held: what is not to be touched; nor is what lives on it, where it is not as it should be.
        foreign: that of it in whose place something foreign is, on which nothing of ours may live.
        desired: what should be there.
        observed: what is there.
    """

    operations = list(operations)
    changing = {operation.item.key for operation in operations}
    stuck = set(held)

    def lacks(place: Key) -> bool:
        nowhere = place not in observed and place not in desired
        return place in foreign or (place in stuck and place in changing) or nowhere

    def waits(operation: Operation) -> bool:
        item = operation.item
        return item.key in stuck or _other_end(item) in stuck or any(map(lacks, _places(item)))

    # What waits holds up what lives on it, and its own deletion where it is to be made anew.
    while more := {operation.item.key for operation in operations if waits(operation)} - stuck:
        stuck |= more
    possible = [operation for operation in operations if not waits(operation)]
    return possible, [operation for operation in operations if waits(operation)]


def cut_off(desired: State, observed: State) -> dict[Key, str]:
    """Routes that the kernel cannot take as long as a link that the document does not make is as it is, and why.

    A link that is down takes its routes along, and an address those to the gateways in its network: what brings them back is for
    the kernel to tell, and no fight.
    """
    made = {key for key, item in desired.items() if isinstance(item, Link) and not item.external}
    near: dict[tuple[str, str], list[ipaddress.IPv4Network]] = {}
    for route in (*of_type(observed, Route), *of_type(desired, Route)):
        if not route.via and route.type == "unicast":
            for dev in (route.dev, ""):
                near.setdefault((route.namespace, dev), []).append(ipaddress.IPv4Network(route.dst))
    found = {}
    for route in of_type(desired, Route):
        place = ("link", route.namespace, route.dev)
        link = observed.get(place)
        if route.namespace or observed.get(route.key) == route or route.type != "unicast" or place in made:
            continue
        if route.dev and not isinstance(link, Link):
            found[route.key] = "a route needs the link %s, which is not there" % route.dev
        elif isinstance(link, Link) and not link.up:
            found[route.key] = "a route needs the link %s, which is down" % route.dev
        elif route.via and not route.onlink:
            gateway = ipaddress.IPv4Address(route.via)
            if not any(gateway in network for network in near.get(("", route.dev), ())):
                where = "the link %s" % route.dev if route.dev else "the host"
                found[route.key] = "a route needs %s to have an address in the network of its gateway" % where
    return found


def _other_end(item: Object) -> Key | None:
    """The other end of a veth pair: whoever touches the one touches both."""
    if isinstance(item, Link) and isinstance(item.options, Veth) and item.options.peer:
        return ("link", item.options.peer_namespace or "", item.options.peer)
    return None


def _places(item: Object) -> Iterator[Key]:
    """The namespace and the links that an object lives on."""
    namespace = getattr(item, "namespace", "")
    if namespace and not isinstance(item, Namespace):
        yield ("namespace", namespace)
    under = item.options.link if isinstance(item, Link) and isinstance(item.options, (Ipip, Vxlan)) else ""
    for name in (getattr(item, "dev", ""), getattr(item, "master", ""), under):
        if name:
            yield ("link", namespace, name)
