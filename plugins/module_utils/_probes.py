# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which pods probe which others, to prove the overlay. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ._leases import Lease

ALL_PAIRS = 2500
"""Up to this many pairs of pods are all probed; beyond, each pod probes ``SAMPLE`` others."""
SAMPLE = 8


def probes(leases: Mapping[str, Lease], hosts: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Which pods of *hosts* probe which of other nodes: all pairs of a small fleet, else a sample that has every node on both sides."""
    pods = [(node, name, address) for node, lease in leases.items() for name, address in lease.pods.items()]
    sizes = Counter(node for node, _name, _address in pods)
    pairs = sum((len(pods) - size) * size for size in sizes.values())
    chosen: dict[int, list[int]] = {}
    start = dict(_starts(sizes))
    for index, (node, _name, _address) in enumerate(pods):
        others = len(pods) - sizes[node]  # they follow the node's own pods in the circle
        count = others if pairs <= ALL_PAIRS else min(SAMPLE, others)
        own = index - start[node]
        steps = sorted({(own + step * others // count) % others for step in range(count)}) if count else ()
        chosen[index] = [(start[node] + sizes[node] + step) % len(pods) for step in steps]
    reached = {pods[target][0] for targets in chosen.values() for target in targets}
    for node, first in start.items():
        if node not in reached and len(sizes) > 1:
            chosen[(first + sizes[node]) % len(pods)].append(first)
    result: dict[str, list[dict[str, Any]]] = {host: [] for host in hosts}
    for index, targets in chosen.items():
        node, name, _address = pods[index]
        if node in result and targets:
            to = [{"address": pods[target][2], "pod": pods[target][1], "node": pods[target][0]} for target in targets]
            result[node].append({"namespace": name, "targets": to})
    return result


def _starts(sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    first = 0
    for node, size in sizes.items():
        yield node, first
        first += size
