"""A node leaves: what speaks against it, and what the leases say afterwards."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Network

from ansible_collections.podnet.overlay.plugins.module_utils import _inventory, _removal
from ansible_collections.podnet.overlay.plugins.module_utils._leases import Lease, Leases

from . import fleet

INVENTORY = _inventory.read("overlay", fleet.variables(3))
LEASES = Leases(
    IPv4Network("10.244.0.0/16"),
    {f"node{n}": Lease(IPv4Network(f"10.244.{n}.0/24"), f"172.16.0.{n}") for n in (1, 2)},
    {"node9": Lease(IPv4Network("10.244.9.0/24"), "172.16.0.9", reason="inventory")},
)


def said(node: str, leases: Leases | None = LEASES, left_out: tuple[str, ...] = ()) -> list[str]:
    return list(_removal.judge(node, INVENTORY, leases, "leases.yml", left_out))


def test_a_node_of_the_leases_can_leave_whether_the_inventory_has_it_or_not() -> None:
    assert said("node2") == said("node9") == []


def test_what_speaks_against_it_is_told_at_once() -> None:
    assert said("", left_out=("node1", "node3")) == [
        "overlay: node: say which one leaves, as in -e node=node1",
        "overlay: --limit leaves out node1, node3, which would keep what they have of the node; run without it",
    ]
    assert said("nod2") == ["nod2: is neither in the group overlay nor in leases.yml; do you mean node2?"]
    assert said("node3") == ["node3: has no lease, so it is in no other host's way; take it out of the group overlay"]
    assert said("node2", None) == [
        "node2: leases.yml, which would tell what it has, is not there; restore it, or run overlay.yml first"
    ]


def test_a_removed_node_keeps_its_lease_until_that_is_freed_for_good() -> None:
    kept = _removal.without(LEASES, "node2", free=False)
    assert list(kept.nodes) == ["node1"]
    assert kept.removed["node2"] == dataclasses.replace(LEASES.nodes["node2"], reason="playbook")
    assert kept.removed["node9"] == LEASES.removed["node9"]
    assert _removal.without(kept, "node2", free=False) == kept
    freed = _removal.without(kept, "node2", free=True)
    assert freed.removed["node2"].freed
    assert _removal.without(freed, "node2", free=False) == freed


def test_only_one_that_a_playbook_removed_was_removed_already() -> None:
    assert not list(_removal.already("node2", LEASES)) + list(_removal.already("node9", LEASES))
    again = _removal.without(LEASES, "node9", free=False)
    assert list(_removal.already("node9", again)) == ["node9: was removed before; what hosts still have of it goes now"]


def test_whoever_runs_there_is_told_and_who_does_not_answer_runs_nothing() -> None:
    assert not list(_removal.running("node2", {"pods": []}))
    assert not list(_removal.running("node2", {"unreachable": True, "msg": "timed out"}))
    pods = [{"name": "web", "processes": 2}, {"name": "veth1", "processes": None}]
    (line,) = _removal.running("node2", {"pods": pods})
    assert line.startswith("node2: pods run there: web (2 processes), veth1 (a port of the bridge that is not the ")
    assert line.endswith("; end them, or set force=true")
    assert list(_removal.running("node2", {"failed": True, "msg": "no ip."})) == [
        "node2: could not be looked at (no ip), so pods may run there; mend that, or set force=true"
    ]
