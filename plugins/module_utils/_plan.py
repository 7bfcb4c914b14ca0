# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: from inventory, leases and what the hosts say to each node's document and the table of all nodes.

``judge`` finds what is wrong with the inventory before any host is contacted, ``plan`` decides once every host has been
looked at. Pure, and linear in nodes. A mistake is a line ``HOST: VARIABLE: what; what to do``, and all of them are
raised together.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ._documents import document_of
from ._facts import Facts, Underlay, fit, mistakes_of, obstacle, off_link, underlay_of
from ._inventory import Inventory, Network, Node, Settings
from ._leases import Lease, Leases, overlaps
from ._model import Mistakes
from ._moves import Documents, former, sending_by, smaller, steps, taking_both, way_of
from ._probes import probes
from ._shares import (
    allocate,
    claimed,
    exhausted,
    kept_out,
    lease_of,
    not_given_out,
    pod_addresses,
    pods_of_no_subnet_yet,
    some,
    trusted_as_nodes,
)

MOST_OBSTACLES = 20
"""Warned of in one run; a fleet's hosts mostly have the same ones, which are one."""


@dataclass(frozen=True)
class Plan:
    """What comes of it. ``peers``, the table of all nodes, and ``groups``, the addresses of each group's pods, are JSON."""

    leases: Leases
    peers: str
    groups: str
    documents: Mapping[str, Mapping[str, Any]]
    steps: Sequence[Mapping[str, Mapping[str, Any]]]
    """The documents that a fleet has in turn before these, while it moves to another backend."""
    probes: Mapping[str, Sequence[Mapping[str, Any]]]
    mtus: Mapping[str, int]
    warnings: tuple[str, ...]


def judge(inventory: Inventory, leases: Leases | None) -> Iterator[str]:
    """What inventory and leases show to be wrong, before any host is contacted."""
    yield from inventory.mistakes
    public_ips = {
        name: node.public_ip
        for name, node in inventory.nodes.items()
        if node.public_ip and not (leases and kept_out(name, leases))
    }
    yield from _duplicates(public_ips)
    if inventory.settings is None:
        return
    settings, known = inventory.settings, leases or Leases(inventory.settings.network)
    mistakes = [*_underlay_inside(inventory.nodes, settings.network), *trusted_as_nodes(settings, public_ips)]
    subnets = claimed(inventory.nodes, settings, known, {}, mistakes)
    waiting = [name for name in inventory.nodes if name not in subnets and not kept_out(name, known)]
    whole = dataclasses.replace(settings, subnet_min=None, subnet_max=None)  # a host may carry one outside of these
    if len(allocate(whole, waiting, subnets, ())) < len(waiting):
        mistakes.append(exhausted(inventory.group, whole, len(inventory.nodes)))
    for name, subnet in subnets.items():
        pod_addresses(settings, inventory.nodes[name], subnet, lease_of(name, known), None, mistakes)
    for name in waiting:
        mistakes += pods_of_no_subnet_yet(inventory.nodes[name], settings)
    yield from mistakes


def _underlay_inside(nodes: Mapping[str, Node], network: Network) -> Iterator[str]:
    for node in nodes.values():
        if node.public_ip and ipaddress.IPv4Address(node.public_ip) in network:
            yield (
                f"{node.name}: overlay_public_ip: {node.public_ip} is inside overlay_network {network}; "
                "choose another network for pods"
            )


def _duplicates(public_ips: Mapping[str, str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for host, public_ip in public_ips.items():
        if public_ip in first:
            yield (
                f"{host}: overlay_public_ip: {public_ip} is also that of {first[public_ip]}; "
                "each node needs its own: set overlay_public_ip or overlay_interface"
            )
        first.setdefault(public_ip, host)


def plan(
    inventory: Inventory,
    leases: Leases | None,
    facts: Mapping[str, Facts],
    leases_file: str = "the leases file",
    owner: str = "overlay",
    move_without: bool = False,
) -> Plan:
    """Decide. *facts* are of the hosts that answered; all other nodes stay as their leases say.

    Args:
        owner: the document's name.
        leases_file: its path, for errors.
        move_without: whether nodes move to another backend although not all were reached.

    Raises:
        Mistakes: everything that is wrong; then no host may be changed.
    """
    if inventory.mistakes or inventory.settings is None:
        raise Mistakes(inventory.mistakes)
    settings = inventory.settings
    known = leases or Leases(settings.network)
    mistakes: list[str] = []
    warnings = [*inventory.warnings, *_kept_out_warning(inventory.nodes, known)]

    members = [name for name in inventory.nodes if not kept_out(name, known)]
    lost = [name for name in members if name not in facts and not _knows(name, inventory.nodes[name], known)]
    if lost and leases is None:
        remedy = "restore the file, run on all hosts, or set overlay_subnet and overlay_public_ip"
        mistakes += [
            f"{name}: overlay_leases_file: the host did not answer, and {leases_file}, which would know its subnet, is not there; {remedy}"
            for name in lost
        ]
    elif lost:
        warnings.append(f"{some(lost)}: not reached and without a lease, so left out; run on them too")
    left_out = set(lost)
    members = [name for name in members if name not in left_out]
    nodes = {name: inventory.nodes[name] for name in members}
    for name in members:
        if name not in facts and lease_of(name, known):  # a new overlay_subnet counts when the host is reached
            nodes[name] = dataclasses.replace(nodes[name], subnet=None)

    mistakes += _underlay_inside(nodes, settings.network)
    subnets = claimed(nodes, settings, known, facts, mistakes)
    warnings += _renumbered(subnets, facts)
    if not mistakes:
        warnings += not_given_out(settings, subnets)
    gone = {name: lease for name, lease in {**known.removed, **known.nodes}.items() if name not in subnets}
    waiting = [name for name in members if name not in subnets]
    reserved = [lease.subnet for lease in gone.values() if not lease.freed]
    subnets.update(allocate(settings, waiting, subnets, reserved))
    mistakes += [exhausted(name, settings, len(members)) for name in waiting if name not in subnets]
    subnets = {name: subnets[name] for name in members if name in subnets}

    underlays: dict[str, Underlay] = {}
    mtus: dict[str, int] = {}
    table = {str(subnet): name for name, subnet in subnets.items()}
    for name in (name for name in members if name in facts):
        try:
            underlays[name] = underlay_of(nodes[name], facts[name], owner)
            mtus[name] = fit(settings, underlays[name])
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
        mistakes += [f"{name}: {mistake}" for mistake in mistakes_of(nodes[name], facts[name], settings, table, owner)]

    unaware = [name for name in members if name not in facts]
    old = former(settings, (facts[name] for name in underlays))
    waits = old is not None and bool(unaware) and not move_without
    if old and waits:
        mtus = {name: smaller(mtu, underlays[name], old) for name, mtu in mtus.items()}

    new = {}
    for name, subnet in subnets.items():
        new[name] = _new_lease(
            settings, nodes[name], subnet, known, facts.get(name), underlays.get(name), mtus.get(name), mistakes
        )
    public_ips = {name: lease.public_ip for name, lease in new.items() if lease.public_ip}
    mistakes += [line for line in _duplicates(public_ips) if line not in mistakes]
    mistakes += trusted_as_nodes(settings, public_ips)
    if settings.backend == "host-gw":
        mistakes += off_link(underlays, public_ips)
    if mistakes:
        raise Mistakes(list(dict.fromkeys(mistakes)))

    stages: tuple[Documents, ...] = ()
    if old and waits:  # who was not reached may send, and take, by the old backend alone
        documents = taking_both(settings, old, False, nodes, new, underlays, facts, owner)
        warnings.append(_waiting(unaware, old, settings))
    else:
        documents = {
            name: document_of(settings, nodes[name], new[name], underlays[name], facts[name], owner)
            for name in underlays
        }
    if old and not waits:
        stages = steps(settings, old, nodes, new, underlays, facts, owner)
        warnings += _moving(stages, old, settings)
    if leases is not None:
        warnings += _behind(unaware, leases, new)
    warnings += () if waits else _parted(unaware, settings, facts)
    warnings += _uneven(new)
    warnings += _obstacles({name: facts[name] for name in underlays})
    peers = {str(lease.subnet): lease.public_ip for lease in new.values()}
    return Plan(
        Leases(settings.network, new, _removed(gone, known, new)),
        json.dumps(peers, separators=(",", ":")),
        json.dumps(_groups(settings, inventory.nodes, new), separators=(",", ":")),
        documents,
        stages,
        probes(new, underlays),
        mtus,
        tuple(warnings),
    )


def _knows(name: str, node: Node, leases: Leases) -> bool:
    """Whether a node that was not reached can be a peer: by its lease, or because the inventory says it all."""
    return lease_of(name, leases) is not None or bool(node.subnet and node.public_ip)


def _new_lease(
    settings: Settings,
    node: Node,
    subnet: Network,
    known: Leases,
    facts: Facts | None,
    underlay: Underlay | None,
    mtu: int | None,
    mistakes: list[str],
) -> Lease:
    lease = lease_of(node.name, known)
    if facts is None:  # what it has is what it was given last
        if lease is not None and lease.subnet == subnet:
            return dataclasses.replace(lease, reason="")
        public_ip = lease.public_ip if lease else node.public_ip
        return Lease(subnet, public_ip or "", pods=pod_addresses(settings, node, subnet, lease, None, mistakes))
    pods = pod_addresses(settings, node, subnet, lease, facts.carries, mistakes)
    return Lease(subnet, underlay.public_ip if underlay else "", mtu, pods)


def _groups(settings: Settings, nodes: Mapping[str, Node], leases: Mapping[str, Lease]) -> dict[str, list[str]]:
    """The addresses of each group's pods on all nodes; none without a policy, for which alone they are."""
    if settings.policy is None:
        return {}
    groups: dict[str, list[str]] = {pod.group: [] for node in nodes.values() for pod in node.pods if pod.group}
    for name, lease in leases.items():
        for pod in nodes[name].pods:
            if pod.group and pod.name in lease.pods:
                groups[pod.group].append(lease.pods[pod.name])
    return {name: sorted(groups[name], key=socket.inet_aton) for name in sorted(groups)}


def _removed(gone: Mapping[str, Lease], known: Leases, new: Mapping[str, Lease]) -> dict[str, Lease]:
    """The leases of nodes that have left. Of one whose subnet another node has by now there is nothing to keep, unless
    it is what keeps the node out."""
    reasons = {name: known.removed[name].reason for name in known.removed}
    left = {
        name: dataclasses.replace(lease, reason="inventory" if name in known.nodes else reasons[name])
        for name, lease in gone.items()
        if name not in new
    }
    everyone = [(name, lease.subnet) for name, lease in (*left.items(), *new.items()) if not lease.freed]
    for pair in overlaps(everyone):
        name = next((name for name in pair if name in left), "")
        lease = left.pop(name, None)
        if lease and lease.reason == "playbook":
            left[name] = dataclasses.replace(lease, freed=True)
    return left


def _kept_out_warning(nodes: Mapping[str, Node], known: Leases) -> Iterator[str]:
    out = [name for name in nodes if kept_out(name, known)]
    if out:
        remedy = "delete 'reason: playbook' in its line of the leases file to let it in again"
        yield f"{some(out)}: removed by a playbook, so left out; {remedy}"


def _renumbered(subnets: Mapping[str, Network], facts: Mapping[str, Facts]) -> Iterator[str]:
    for name, subnet in subnets.items():
        carried = facts[name].carries if name in facts else None
        if carried and carried["subnet"] != str(subnet):
            yield f"{name}: carries {carried['subnet']} and is renumbered to {subnet}, which its variable or lease says"


def _behind(unaware: Sequence[str], before: Leases, after: Mapping[str, Lease]) -> Iterator[str]:
    """Nodes that were not reached, as under ``--limit``, while the table of all nodes changes."""
    old, new = ({name: (its.subnet, its.public_ip) for name, its in of.items()} for of in (before.nodes, after))
    changed = [name for name in {**new, **old} if old.get(name) != new.get(name) and name not in unaware]
    if unaware and changed:
        yield f"{some(unaware)}: not reached, so what they know of {some(changed)} is from before; run on them too"


def _moving(stages: Sequence[Documents], old: Settings, new: Settings) -> Iterator[str]:
    """Said before, since whoever fails on the way may be the last to say anything."""
    if stages:
        yield (
            f"{some(list(stages[0]))}: move from {sending_by(old)} to {sending_by(new)} in steps; if the run ends on the way, all go on "
            "talking: run again, and it goes on from there"
        )


def _waiting(unaware: Sequence[str], old: Settings, new: Settings) -> str:
    """Nodes for which the others wait with their move to another backend."""
    return (
        f"{some(unaware)}: not reached, so the move from {sending_by(old)} to {sending_by(new)} waits: the others take what either "
        "brings and send as before; run on all, or take who is gone out with remove.yml, or leave them behind with "
        "-e overlay_move_without=true"
    )


def _parted(unaware: Sequence[str], settings: Settings, facts: Mapping[str, Facts]) -> Iterator[str]:
    """Nodes that move to another backend without all others."""
    new = sending_by(settings)
    moving: dict[str, str] = {}
    for name, its in facts.items():
        known = (its.carries or {}).get("backend")
        if its.sends and way_of(**its.sends) != new:
            moving[name] = str(way_of(**its.sends))
        elif not its.sends and known and known != settings.backend:
            moving[name] = known
    if unaware and moving:
        old = ", ".join(sorted(set(moving.values())))
        yield (
            f"{some(list(moving))}: move from {old} to {new} without {some(unaware)}, which were not reached: "
            "no packets between them until those have moved too; run on them too"
        )


def _uneven(leases: Mapping[str, Lease]) -> Iterator[str]:
    mtus = Counter(lease.mtu for lease in leases.values() if lease.mtu)
    if len(mtus) > 1:
        least = min(mtus)
        low = [name for name, lease in leases.items() if lease.mtu == least]
        yield f"the nodes' MTUs differ, and large packets to {some(low)} will be lost or cut up; set overlay_mtu to {least} for the group"


def _obstacles(facts: Mapping[str, Facts]) -> Iterator[str]:
    hosts: dict[str, list[str]] = {}
    for name, its in facts.items():
        for item in its.obstacles:
            hosts.setdefault(obstacle(item), []).append(name)
    yield from (f"{some(names, 2)}: {text}" for text, names in islice(hosts.items(), MOST_OBSTACLES))
    if len(hosts) > MOST_OBSTACLES:
        yield f"{len(hosts) - MOST_OBSTACLES} other obstacles are in the hosts' podnet_node.obstacles"
