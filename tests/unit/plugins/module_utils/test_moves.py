"""A fleet moves to another backend, and at no point a node sends what another one does not take."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _firewall_clause, _inventory, _node, _plan
from ansible_collections.podnet.overlay.plugins.module_utils._facts import Facts
from ansible_collections.podnet.overlay.plugins.module_utils._moves import Way, way_of

from . import fleet

BACKENDS: dict[str, dict[str, Any]] = {
    "ipip": {"overlay_backend": "ipip"},
    "ipip with direct routing": {"overlay_backend": "ipip", "overlay_direct_routing": True},
    "vxlan": {"overlay_backend": "vxlan"},
    "vxlan with direct routing": {"overlay_backend": "vxlan", "overlay_direct_routing": True},
    "another vxlan": {"overlay_backend": "vxlan", "overlay_vni": 7, "overlay_port": 4789},
    "host-gw": {"overlay_backend": "host-gw"},
}
Documents = Mapping[str, Mapping[str, Any]]


def planned(
    variables: Mapping[str, Any],
    before: Documents | None = None,
    count: int = 3,
    strict: Sequence[str] = (),
    *,
    unreached: Sequence[str] = (),
    move_without: bool = False,
) -> _plan.Plan:
    """The plan of a fleet that has the documents of before."""
    carried = {name: _node.carried_by_document(dict(document)) for name, document in (before or {}).items()}
    facts = {
        name: Facts.of(fleet.answer(number, carries=carried.get(name), strict=strict))
        for number, name in enumerate(fleet.variables(count), 1)
        if name not in unreached
    }
    inventory = _inventory.read("overlay", fleet.variables(count, overlay_network="10.244.0.0/16", **variables))
    leases = planned(variables, count=count).leases if unreached else None
    return _plan.plan(inventory, leases, facts, move_without=move_without)


def sends(document: Mapping[str, Any]) -> Way:
    carried = _node.carried_by_document(dict(document))
    assert carried is not None
    return way_of(**carried["sends"])


def takes(document: Mapping[str, Any]) -> set[Way]:
    """By rules and by links."""
    clause = _firewall_clause.read(document["firewall"])
    links = {link["name"]: link for link in document["links"]}
    found = set()
    for way in clause.ways:
        here = Way(*way_of(way.backend, way.tunnel, way.direct_routing, way.vni, way.port))
        if here.tunnel:
            link = links[here.tunnel]
            assert link["kind"] == here.backend
            assert here.backend != "vxlan" or (link["vxlan"]["id"], link["vxlan"]["port"]) == (here.vni, here.port)
        found.add(here)
    return found


def hears(sender: Way, receiver: set[Way]) -> bool:
    """Whether a node takes what another sends: to a peer on its own subnet unpacked, with direct routing."""
    unpacked = any(way.direct_routing or way.backend == "host-gw" for way in receiver)
    packed = {way._replace(direct_routing=False) for way in receiver}
    if sender.backend == "host-gw":
        return unpacked
    return sender._replace(direct_routing=False) in packed and (unpacked or not sender.direct_routing)


MOVES = list(itertools.permutations(BACKENDS, 2))


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_at_no_point_of_a_move_a_node_sends_what_another_does_not_take(old: str, new: str) -> None:
    before = planned(BACKENDS[old]).documents
    plan = planned(BACKENDS[new], before)
    stages = [before, *plan.steps, plan.documents]
    assert len(stages) == 4
    for earlier, later in itertools.pairwise(stages):
        for one, other in itertools.permutations(before, 2):
            for sender, receiver in itertools.product((earlier[one], later[one]), (earlier[other], later[other])):
                assert hears(sends(sender), takes(receiver)), (old, new, one, other)


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_pods_have_the_smaller_mtu_while_both_are_taken(old: str, new: str) -> None:
    before = planned(BACKENDS[old]).documents
    plan = planned(BACKENDS[new], before)
    least = min(before["node1"]["links"][0]["mtu"], plan.documents["node1"]["links"][0]["mtu"])
    assert {link["mtu"] for step in plan.steps for link in step["node1"]["links"]} == {least}


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_moves_nowhere_takes_no_steps(backend: str) -> None:
    assert planned(BACKENDS[backend]).steps == ()
    assert planned(BACKENDS[backend], planned(BACKENDS[backend]).documents).steps == ()


def test_another_mtu_subnet_or_pod_is_no_move() -> None:
    before = planned({}).documents
    assert planned({"overlay_mtu": 1400, "overlay_subnet_len": 24, "overlay_antispoof": False}, before).steps == ()


def test_a_run_that_was_interrupted_goes_on_and_nobody_goes_back() -> None:
    old = planned(BACKENDS["ipip"]).documents
    plan = planned(BACKENDS["vxlan"], old)
    half = {**plan.steps[0], "node1": plan.steps[1]["node1"]}
    again = planned(BACKENDS["vxlan"], half)
    assert again.steps[0]["node1"] == plan.steps[1]["node1"]
    assert again.steps[0]["node2"] == plan.steps[0]["node2"]
    assert again.steps[1] == plan.steps[1]
    assert planned(BACKENDS["vxlan"], plan.steps[1]).steps == ()  # all send by it already: only the last is left


def test_a_new_node_comes_with_the_last_step_since_nobody_talks_with_it_yet() -> None:
    before = planned(BACKENDS["vxlan"], count=2).documents
    plan = planned(BACKENDS["ipip"], before, count=3)
    assert [set(step) for step in plan.steps] == [{"node1", "node2"}] * 2
    assert sends(plan.documents["node3"]).backend == "ipip"


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_while_a_node_was_not_reached_the_others_take_both_and_send_nothing_that_it_does_not_take(
    old: str, new: str
) -> None:
    before = planned(BACKENDS[old]).documents
    whole = planned(BACKENDS[new], before)
    for stage in (before, *whole.steps):  # wherever an earlier run ended
        plan = planned(BACKENDS[new], stage, unreached=["node3"])
        assert plan.steps == ()
        everyone = {**plan.documents, "node3": stage["node3"]}
        for one, other in itertools.permutations(everyone, 2):
            assert hears(sends(everyone[one]), takes(everyone[other])), (old, new, one, other)
        assert [sends(plan.documents[name]) for name in plan.documents] == [
            sends(stage[name]) for name in plan.documents
        ]
        least = min(document["links"][0]["mtu"] for document in (before["node1"], whole.documents["node1"]))
        assert {plan.leases.nodes[name].mtu for name in plan.documents} == {least} == set(plan.mtus.values())
        assert [line for line in plan.warnings if "overlay_move_without=true" in line]


def test_a_move_without_a_node_that_was_not_reached_is_made_where_that_is_said() -> None:
    before = planned(BACKENDS["vxlan"]).documents
    plan = planned(BACKENDS["host-gw"], before, unreached=["node3"], move_without=True)
    assert len(plan.steps) == 2
    assert plan.warnings[0].startswith("node1, node2: move from vxlan (VNI 1, port 8472) to host-gw in steps")
    assert plan.warnings[1].startswith("node1, node2: move from vxlan (VNI 1, port 8472) to host-gw without node3")
    # It comes back alone: nobody can tell that all others have moved, but who runs it.
    for move_without, backend in ((False, "vxlan"), (True, "host-gw")):
        plan = planned(BACKENDS["host-gw"], before, unreached=["node1", "node2"], move_without=move_without)
        assert sends(plan.documents["node3"]).backend == backend


def test_who_has_moved_waits_for_nobody() -> None:
    after = planned(BACKENDS["host-gw"]).documents
    plan = planned(BACKENDS["host-gw"], after, unreached=["node1"])
    assert (plan.steps, plan.warnings) == ((), ())
    assert plan.documents == {name: after[name] for name in ("node2", "node3")}


def test_a_new_node_comes_along_while_a_move_waits_and_hears_all_others() -> None:
    before = planned(BACKENDS["vxlan"], count=2).documents
    plan = planned(BACKENDS["ipip"], before, count=3, unreached=["node2"])
    new = plan.documents["node3"]
    assert sends(new).backend == "vxlan"
    assert {way.backend for way in takes(new)} == {"vxlan", "ipip"}


def loosened(document: Mapping[str, Any]) -> set[str]:
    return {item["name"] for item in document["sysctls"] if item["name"].endswith(".rp_filter")}


@pytest.mark.parametrize(
    ("strict", "expected"),
    [
        ([], set()),
        (["eth1"], {"eth1"}),
        (["default"], {"flannel/1", "flannel/ipip"}),  # neither is there in what the host says
        (["default", "eth1", "eth9"], {"eth1", "flannel/1", "flannel/ipip"}),
    ],
)
def test_only_a_strict_reverse_path_filter_is_loosened_and_stays_so_until_the_end(
    strict: list[str], expected: set[str]
) -> None:
    before = planned(BACKENDS["ipip"]).documents
    plan = planned(BACKENDS["vxlan"], before, strict=strict)
    names = {f"net.ipv4.conf.{name}.rp_filter" for name in expected}
    assert [loosened(step["node1"]) for step in plan.steps] == [names, names]
    assert loosened(plan.documents["node1"]) == set()
    again = planned(BACKENDS["vxlan"], plan.steps[0])  # the filters are not strict any more
    assert [loosened(step["node1"]) for step in again.steps] == [names, names]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"overlay_tunnel": "pods"}, {"overlay_tunnel": "pods", "overlay_backend": "vxlan"}),
        ({"overlay_backend": "vxlan"}, {"overlay_backend": "vxlan", "overlay_port": 4789}),
        ({"overlay_backend": "vxlan"}, {"overlay_backend": "vxlan", "overlay_tunnel": "pods"}),
        ({"overlay_backend": "ipip"}, {"overlay_backend": "ipip", "overlay_tunnel": "pods"}),
    ],
    ids=["another kind", "another port", "another name of a vxlan", "another name of an ipip"],
)
def test_a_host_cannot_have_both_so_the_move_is_made_at_once(first: dict[str, Any], then: dict[str, Any]) -> None:
    assert planned(then, planned(first).documents).steps == ()


def test_nodes_of_three_backends_move_at_once() -> None:
    mixed = {
        **planned(BACKENDS["vxlan"]).documents,
        "node1": planned(BACKENDS["host-gw"]).documents["node1"],
    }
    assert planned(BACKENDS["ipip"], mixed).steps == ()


def test_a_host_that_lost_its_document_is_no_reason_for_steps() -> None:
    carried = {"network": "10.244.0.0/16", "subnet": "10.244.0.0/24", "backend": "vxlan", "pods": {}}
    facts = {"node1": Facts.of(fleet.answer(1, carries=carried))}
    inventory = _inventory.read("overlay", fleet.variables(1, overlay_network="10.244.0.0/16"))
    assert _plan.plan(inventory, None, facts).steps == ()
