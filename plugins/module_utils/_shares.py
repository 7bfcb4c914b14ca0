# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has which part of the network: the nodes' subnets and their pods' addresses. Pure, and linear in nodes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ._facts import Facts
from ._inventory import Network, Node, Settings
from ._leases import Lease, Leases, overlaps


def lease_of(name: str, leases: Leases) -> Lease | None:
    """The lease of a node, also of one that has come back to the inventory."""
    return leases.nodes.get(name) or leases.removed.get(name)


def kept_out(name: str, leases: Leases) -> bool:
    """Whether a playbook removed the node: it stays out until it is let in again."""
    return name not in leases.nodes and name in leases.removed and leases.removed[name].reason == "playbook"


def claimed(
    nodes: Mapping[str, Node], network: Network, leases: Leases, facts: Mapping[str, Facts], mistakes: list[str]
) -> dict[str, Network]:
    """The subnets that are decided already: by variable, by lease, or by what the host carries."""
    claims: dict[str, tuple[str, Network]] = {}
    taken = {lease.subnet for name, lease in leases.nodes.items() if name in nodes}
    taken |= {node.subnet for node in nodes.values() if node.subnet}
    for name, node in nodes.items():
        if kept_out(name, leases):
            continue
        lease, carried = lease_of(name, leases), facts[name].carries if name in facts else None
        returning = name not in leases.nodes
        if node.subnet is not None:
            claims[name] = ("overlay_subnet", node.subnet)
            if not node.subnet.subnet_of(network):
                mistakes.append(
                    f"{name}: overlay_subnet: {node.subnet} is outside overlay_network {network}; choose one inside"
                )
            elif node.subnet.prefixlen > 30:
                mistakes.append(f"{name}: overlay_subnet: {node.subnet} has no room for pods; choose a /30 or larger")
        elif lease is not None and not (returning and lease.subnet in taken):
            claims[name] = ("the lease", lease.subnet)
        elif carried:
            claims[name] = ("what the host carries", Network(carried["subnet"]))
            if carried["network"] != str(network):
                mistakes.append(
                    f"{name}: overlay_network: the host carries {carried['subnet']} of {carried['network'] or 'another network'}, "
                    f"not of {network}; restore the variable, or run teardown.yml first"
                )
    for pair in overlaps((name, subnet) for name, (_origin, subnet) in claims.items()):
        one, other = sorted(
            pair, key=lambda name: claims[name][0] != "overlay_subnet"
        )  # the one that the inventory can change
        (origin, subnet), (origin_of_other, of_other) = claims[one], claims[other]
        mistakes.append(
            f"{one}: overlay_subnet: {subnet} (by {origin}) overlaps {of_other} of {other} (by {origin_of_other}); choose another"
        )
    return {name: subnet for name, (_origin, subnet) in claims.items()}


def allocate(
    settings: Settings, names: Sequence[str], taken: Mapping[str, Network], reserved: Iterable[Network]
) -> dict[str, Network]:
    """First free subnets for *names*; reserved ones only when there is no other. Those that got none are left out."""
    given: dict[str, Network] = {}
    for held in ([*taken.values(), *reserved], [*taken.values()]):
        waiting = [name for name in names if name not in given]
        if waiting:
            given.update(zip(waiting, _free(settings, [*held, *given.values()])))
    return given


def _free(settings: Settings, taken: Iterable[Network]) -> Iterator[Network]:
    """The free subnets, in order."""
    size = 1 << 32 - settings.subnet_len
    cursor, end = _span(settings.network)
    for first, after in sorted(map(_span, taken)):
        yield from (Network((start, settings.subnet_len)) for start in range(cursor, first - size + 1, size))
        cursor = max(cursor, first - first % size, -(-after // size) * size)
    yield from (Network((start, settings.subnet_len)) for start in range(cursor, end - size + 1, size))


def _span(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + network.num_addresses


def exhausted(who: str, settings: Settings, nodes: int) -> str:
    room = 1 << settings.subnet_len - settings.network.prefixlen
    return (
        f"{who}: overlay_network: {settings.network} is too small: it has {room} subnets of overlay_subnet_len {settings.subnet_len} "
        f"for {nodes} nodes; choose a larger network, or a larger overlay_subnet_len (smaller subnets)"
    )


def pod_addresses(
    node: Node, subnet: Network, lease: Lease | None, carried: Mapping[str, Any] | None, mistakes: list[str]
) -> dict[str, str]:
    """Each pod's address: as asked for, as leased, as carried, else the first free one after the gateway."""
    first, after = _span(subnet)
    pods = range(first + 2, after - 1)
    old = {**((carried or {}).get("pods") or {}), **(lease.pods if lease else {})}
    numbers = {name: int(ipaddress.IPv4Address(address)) for name, address in old.items()}
    given: dict[str, int] = {}
    owners: dict[int, str] = {}
    for pod in node.pods:
        if pod.address:
            value = int(ipaddress.IPv4Address(pod.address))
            if value not in pods:
                special = {
                    first: "is the subnet's own address",
                    first + 1: "is the gateway's",
                    after - 1: "is the broadcast address",
                }
                why = special.get(value, "is outside the node's subnet")
                mistakes.append(
                    f"{node.name}: overlay_pods: {pod.name}: {pod.address} {why}; choose another of {subnet}"
                )
            given[pod.name], owners[value] = value, pod.name
    for pod in node.pods:
        value = numbers.get(pod.name, 0)
        if pod.name not in given and value in pods:
            if value in owners:
                mistakes.append(
                    f"{node.name}: overlay_pods: {owners[value]}: {ipaddress.IPv4Address(value)} is leased to {pod.name}; choose another"
                )
            given[pod.name] = value
            owners.setdefault(value, pod.name)
    free = (value for value in pods if value not in owners)
    for pod, value in zip([pod for pod in node.pods if pod.name not in given], free):
        given[pod.name] = value
    if len(given) < len(node.pods):
        mistakes.append(
            f"{node.name}: overlay_pods: {len(node.pods)} pods do not fit into {subnet}, which holds {len(pods)}; choose fewer"
        )
    return {pod.name: str(ipaddress.IPv4Address(given[pod.name])) for pod in node.pods if pod.name in given}


def pods_of_no_subnet_yet(node: Node, settings: Settings) -> Iterator[str]:
    """What is wrong with a node's pods, whichever subnet it gets."""
    room = (1 << 32 - settings.subnet_len) - 3
    if len(node.pods) > room:
        yield (
            f"{node.name}: overlay_pods: {len(node.pods)} pods do not fit into a subnet of overlay_subnet_len "
            f"{settings.subnet_len}, which holds {room}; choose fewer"
        )
    for pod in node.pods:
        if pod.address and ipaddress.IPv4Address(pod.address) not in settings.network:
            yield (
                f"{node.name}: overlay_pods: {pod.name}: {pod.address} is outside overlay_network {settings.network}; "
                "choose another"
            )
