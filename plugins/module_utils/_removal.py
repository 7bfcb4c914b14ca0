# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node leaves: what speaks against it, and the leases without it. Pure.

A mistake is a line ``WHO: what; what to do``.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._inventory import Inventory
from ._leases import Leases
from ._shares import kept_out, some


def judge(
    node: str, inventory: Inventory, leases: Leases | None, leases_file: str, left_out: Sequence[str]
) -> Iterator[str]:
    """What speaks against removing *node*, before any host is contacted.

    Args:
        node: its name.
        inventory: the group's.
        leases: those of the file at *leases_file*.
        left_out: hosts of the group that ``--limit`` keeps out of the play.
    """
    known = {**inventory.nodes, **(leases.removed if leases else {}), **(leases.nodes if leases else {})}
    if not node:
        yield f"{inventory.group}: node: say which one leaves, as in -e node={next(iter(inventory.nodes), 'node7')}"
    elif leases is None:
        yield f"{node}: {leases_file}, which would tell what it has, is not there; restore it, or run overlay.yml first"
    elif node not in known:
        close = "".join(f"; do you mean {name}?" for name in difflib.get_close_matches(node, known, 1))
        yield f"{node}: is neither in the group {inventory.group} nor in {leases_file}{close}"
    elif node not in leases.nodes and node not in leases.removed:
        yield f"{node}: has no lease, so it is in no other host's way; take it out of the group {inventory.group}"
    if left_out:
        yield (
            f"{inventory.group}: --limit leaves out {some(left_out)}, which would keep what they have of {node or 'the node'}; "
            "run without it"
        )


def running(node: str, answer: Mapping[str, Any]) -> Iterator[str]:
    """What runs on the node, by its node_info with ``pods``. One that could not be reached says nothing: it may be gone."""
    pods = answer.get("pods") or ()
    if answer.get("failed"):
        why = str(answer.get("msg", "")).rstrip(".")
        yield f"{node}: could not be looked at ({why}), so pods may run there; mend that, or set force=true"
    elif pods:
        told = some([f"{pod['name']} ({_processes(pod['processes'])})" for pod in pods])
        yield f"{node}: pods run there: {told}; end them, or set force=true"


def _processes(number: int | None) -> str:
    if number is None:
        return "a port of the bridge that is not the overlay's, as a container has"
    return f"{number} process{'es' if number > 1 else ''}"


def without(leases: Leases, node: str, *, free: bool) -> Leases:
    """The leases after *node* has left. What was freed once stays so: another node may have it by now."""
    lease = leases.nodes.get(node) or leases.removed[node]
    gone = dataclasses.replace(lease, reason="playbook", freed=free or lease.freed)
    nodes = {name: item for name, item in leases.nodes.items() if name != node}
    return dataclasses.replace(leases, nodes=nodes, removed={**leases.removed, node: gone})


def already(node: str, leases: Leases) -> Iterator[str]:
    """A warning where there is nothing to do but to make sure."""
    if kept_out(node, leases):
        yield f"{node}: was removed before; what hosts still have of it goes now"
