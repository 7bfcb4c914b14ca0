# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has which part of the network: the nodes' subnets and their pods' addresses. Pure, and linear in nodes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import _files
from ._facts import Facts
from ._inventory import Network, Node, Settings
from ._leases import Lease, Leases, overlaps


def lease_of(name: str, leases: Leases) -> Lease | None:
    """The lease of a node, also of one that has come back to the inventory."""
    removed = leases.removed.get(name)
    return leases.nodes.get(name) or (None if removed and removed.freed else removed)


def kept_out(name: str, leases: Leases) -> bool:
    """Whether a playbook removed the node: it stays out until it is let in again."""
    return name not in leases.nodes and name in leases.removed and leases.removed[name].reason == "playbook"


def claimed(
    nodes: Mapping[str, Node], settings: Settings, leases: Leases, facts: Mapping[str, Facts], mistakes: list[str]
) -> dict[str, Network]:
    """The subnets that are decided already: by variable, by lease, or by what the host carries."""
    network = settings.network
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
            elif outside(settings, node.subnet):
                mistakes.append(
                    f"{name}: overlay_subnet: {node.subnet} is outside {_given_out(settings)}; choose one inside"
                )
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
    subnets = {name: subnet for name, (_origin, subnet) in claims.items()}
    mistakes += _not_to_be_shared(settings, subnets)
    mistakes += _trusted_inside(settings, subnets)
    return subnets


def _not_to_be_shared(settings: Settings, subnets: Mapping[str, Network]) -> Iterator[str]:
    for name, subnet in subnets.items():
        if settings.shared_with and settings.subnet_len <= _files.LONGEST < subnet.prefixlen:
            yield (
                f"{name}: overlay_subnet: {subnet} is too small to be shared by pods and {', '.join(settings.shared_with)}; "
                f"choose a /{_files.LONGEST} or larger"
            )


def _trusted_inside(settings: Settings, subnets: Mapping[str, Network]) -> Iterator[str]:
    """Nodes with whose addresses a trusted source could send."""
    trusted = [(source["address"], *_span(Network(text))) for source, text in _trusted(settings)]
    for name, subnet in subnets.items():
        first, after = _span(subnet)
        for address, start, end in trusted:
            if start < after and first < end:
                yield (
                    f"{name}: overlay_trusted_sources: what {address} may send from includes {subnet}, which is the node's; "
                    "take it out there, or give the node another overlay_subnet"
                )


def trusted_as_nodes(settings: Settings, public_ips: Mapping[str, str]) -> Iterator[str]:
    """Nodes as which a trusted source could send: what has a node's own address is let in, and answered, as the node's."""
    trusted = [(source["address"], text, *_span(Network(text))) for source, text in _trusted(settings)]
    for name, public_ip in public_ips.items() if trusted else ():
        value = int(ipaddress.IPv4Address(public_ip))
        for address, text, start, end in trusted:
            if start <= value < end:
                yield (
                    f"{name}: overlay_trusted_sources: what {address} may send from, {text}, includes {public_ip}, the node's own "
                    "overlay_public_ip; take it out there"
                )


def _trusted(settings: Settings) -> list[tuple[Mapping[str, Any], str]]:
    return [(source, subnet) for source in settings.trusted_sources for subnet in source["subnets"]]


def outside(settings: Settings, subnet: Network) -> bool:
    """Whether a subnet is not among those that are given out."""
    first, after = _span(subnet)
    start, end = _range(settings)
    return not (start <= first and after <= end)


def _range(settings: Settings) -> tuple[int, int]:
    """The first address of the subnets that are given out, and the one after the last."""
    first, end = _span(settings.network)
    if settings.subnet_min:
        first = int(settings.subnet_min)
    if settings.subnet_max:
        end = int(settings.subnet_max) + (1 << 32 - settings.subnet_len)
    return first, end


def _given_out(settings: Settings) -> str:
    first, end = _range(settings)
    last = Network((end - (1 << 32 - settings.subnet_len), settings.subnet_len))
    return f"overlay_subnet_min to overlay_subnet_max, {Network((first, settings.subnet_len))} to {last}"


def not_given_out(settings: Settings, subnets: Mapping[str, Network]) -> Iterator[str]:
    """A warning of nodes that stay although their subnets would not be given out any longer."""
    names = [name for name, subnet in subnets.items() if outside(settings, subnet)]
    if names:
        yield f"{some(names)}: their subnets stay, although they are outside {_given_out(settings)}"


def some(names: Sequence[str], most: int = 10) -> str:
    """The first of many names."""
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def allocate(
    settings: Settings, names: Sequence[str], taken: Mapping[str, Network], reserved: Iterable[Network]
) -> dict[str, Network]:
    """First free subnets for *names*; reserved ones only when there is no other. Those that got none are left out."""
    given: dict[str, Network] = {}
    always = [*taken.values(), *(Network(text) for _source, text in _trusted(settings))]
    for held in ([*always, *reserved], always):
        waiting = [name for name in names if name not in given]
        if waiting:
            given.update(zip(waiting, _free(settings, [*held, *given.values()])))
    return given


def _free(settings: Settings, taken: Iterable[Network]) -> Iterator[Network]:
    """The free subnets, in order."""
    size = 1 << 32 - settings.subnet_len
    cursor, end = _range(settings)
    for first, after in sorted(map(_span, taken)):
        yield from (Network((start, settings.subnet_len)) for start in range(cursor, min(first, end) - size + 1, size))
        cursor = max(cursor, first - first % size, -(-after // size) * size)
    yield from (Network((start, settings.subnet_len)) for start in range(cursor, end - size + 1, size))


def _span(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + network.num_addresses


def exhausted(who: str, settings: Settings, nodes: int) -> str:
    first, end = _range(settings)
    room = end - first >> 32 - settings.subnet_len
    if (first, end) != _span(settings.network):
        return (
            f"{who}: overlay_network: {_given_out(settings)}, are {room} subnets for {nodes} nodes; "
            "set overlay_subnet_min and overlay_subnet_max wider apart, or choose a larger overlay_subnet_len (smaller subnets)"
        )
    return (
        f"{who}: overlay_network: {settings.network} is too small: it has {room} subnets of overlay_subnet_len {settings.subnet_len} "
        f"for {nodes} nodes; choose a larger network, or a larger overlay_subnet_len (smaller subnets)"
    )


def _pods_part(settings: Settings, subnet: Network) -> range:
    """The addresses of a subnet that overlay_pods may have."""
    first, after = _span(subnet)
    if not settings.shared_with or subnet.prefixlen > _files.LONGEST:
        return range(first + 2, after - 1)
    lowest, highest = _files.parts(subnet)["pods"]
    return range(int(ipaddress.IPv4Address(lowest)), int(ipaddress.IPv4Address(highest)) + 1)


def _ends(part: range) -> str:
    return f"{ipaddress.IPv4Address(part[0])} to {ipaddress.IPv4Address(part[-1])}"


def pod_addresses(
    settings: Settings,
    node: Node,
    subnet: Network,
    lease: Lease | None,
    carried: Mapping[str, Any] | None,
    mistakes: list[str],
) -> dict[str, str]:
    """Each pod's address: as asked for, as leased, as carried, else the first free one after the gateway."""
    first, after = _span(subnet)
    pods, whole = _pods_part(settings, subnet), range(first + 2, after - 1)
    part = (
        f"{_ends(pods)}, overlay_pods' part of {subnet} with {', '.join(settings.shared_with)}" if pods != whole else ""
    )
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
                why = special.get(value, f"is outside {part}" if value in whole else "is outside the node's subnet")
                choice = _ends(pods) if part else subnet
                mistakes.append(
                    f"{node.name}: overlay_pods: {pod.name}: {pod.address} {why}; choose another of {choice}"
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
        elif pod.name not in given and value in whole:
            mistakes.append(
                f"{node.name}: overlay_pods: {pod.name}: it has {ipaddress.IPv4Address(value)}, which is outside {part}; "
                "set address to one of these, which renumbers it"
            )
    free = (value for value in pods if value not in owners)
    for pod, value in zip([pod for pod in node.pods if pod.name not in given], free):
        given[pod.name] = value
    if len(given) < len(node.pods):
        mistakes.append(
            f"{node.name}: overlay_pods: {len(node.pods)} pods do not fit into {part or subnet}, which holds {len(pods)}; choose fewer"
        )
    return {pod.name: str(ipaddress.IPv4Address(given[pod.name])) for pod in node.pods if pod.name in given}


def pods_of_no_subnet_yet(node: Node, settings: Settings) -> Iterator[str]:
    """What is wrong with a node's pods, whichever subnet it gets."""
    room = len(_pods_part(settings, Network((int(settings.network[0]), settings.subnet_len))))
    if len(node.pods) > room:
        what = "their part of a subnet" if settings.shared_with else "a subnet"
        yield (
            f"{node.name}: overlay_pods: {len(node.pods)} pods do not fit into {what} of overlay_subnet_len "
            f"{settings.subnet_len}, which holds {room}; choose fewer"
        )
    for pod in node.pods:
        if pod.address and ipaddress.IPv4Address(pod.address) not in settings.network:
            yield (
                f"{node.name}: overlay_pods: {pod.name}: {pod.address} is outside overlay_network {settings.network}; "
                "choose another"
            )
