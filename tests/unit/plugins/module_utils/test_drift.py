# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the life of a host does: what is fought over, what shadows a route, which routes the kernel would have made."""

from __future__ import annotations

import dataclasses
import ipaddress
import math

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._difference import Operation
from ansible_collections.podnet.overlay.plugins.module_utils._drift import (
    CALM,
    FIRST_PAUSE,
    KERNEL_PROTOCOL,
    LONG_CALM,
    LONGEST_PAUSE,
    PATIENCE,
    Backoff,
    connected,
    cut_off,
    parted,
    shadows,
)
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    Address,
    Link,
    Namespace,
    Object,
    Route,
    Veth,
    Vxlan,
    describe,
    state_of,
)
from hypothesis import given
from hypothesis import strategies as st

KEY = Route("", "10.244.1.0/24", dev="tun").key
OTHER = Route("", "10.244.2.0/24", dev="tun").key
gaps = st.lists(st.sampled_from((0.0, 0.01, 0.3, 1.0, 3.0, 9.0, CALM + 0.1, 25.0, 700.0)), min_size=1, max_size=60)


# ------------------------------------------------------------------------------------------------ what is fought over


def fought(waits: list[float]) -> tuple[list[float], int]:
    """When one object is repaired that is undone so long after each repair, and how many fights were told."""
    backoff, now, repairs, told = Backoff(), 1000.0, [], 0
    for wait in waits:
        now += wait
        if KEY in backoff.held(now):
            left = backoff.next([KEY], now)
            assert left is not None
            assert left > 0
            now += left
            assert KEY not in backoff.held(now + 1e-6)
            now += 1e-6
        told += backoff.repaired(KEY, now, "somebody") is not None
        repairs.append(now)
        backoff.forget(now)
    return repairs, told


@given(gaps)
def test_what_is_fought_over_is_not_repaired_more_often_than_allowed(waits: list[float]) -> None:
    repairs, _told = fought(waits)
    for begin in repairs:
        assert sum(begin <= time < begin + CALM for time in repairs) <= PATIENCE + math.log2(CALM / FIRST_PAUSE) + 1


@given(gaps)
def test_a_fight_is_told_once_until_it_is_calm_and_a_slow_one_once_besides(waits: list[float]) -> None:
    _repairs, told = fought(waits)
    assert told <= 2 + sum(wait > CALM for wait in waits)


@pytest.mark.parametrize("period", [3.5, 10.0, 60.0, 90.0, LONG_CALM])
def test_whoever_comes_back_every_so_often_is_told_once_and_met_without_a_pause(period: float) -> None:
    backoff, told = Backoff(), []
    for number in range(1, 1001):
        fight = backoff.repaired(KEY, number * period, "flanneld" if number == 3 else "")
        told += [(number, fight.who, fight.often, fight.last - fight.begun)] if fight else []
        assert backoff.held(number * period) == set()
        backoff.forget(number * period)
    assert told == [(PATIENCE, "flanneld", PATIENCE, (PATIENCE - 1) * period)]


def test_whoever_stays_away_for_long_is_told_again() -> None:
    backoff = Backoff()
    moments = [number * 60.0 for number in range(PATIENCE)]
    for begin in (1000.0, 1000.0 + moments[-1] + LONG_CALM + 1):
        told = [backoff.repaired(KEY, begin + moment) for moment in moments]
        assert [fight is not None for fight in told] == [False] * (PATIENCE - 1) + [True]


def test_whoever_is_seldom_is_not_told() -> None:
    backoff = Backoff()
    assert not any(backoff.repaired(KEY, number * (LONG_CALM + 1)) for number in range(1, 100))


def test_whoever_undoes_it_at_once_is_met_with_growing_pauses() -> None:
    repairs, told = fought([0.0] * 20)
    pauses = [round(later - earlier, 3) for earlier, later in zip(repairs, repairs[1:])]
    assert pauses[: PATIENCE - 1] == [0.0] * (PATIENCE - 1)
    assert pauses[PATIENCE - 1 :][:4] == [2.0, 4.0, 8.0, 16.0]
    assert pauses[-1] == LONGEST_PAUSE
    assert told == 1


def test_after_a_calm_time_it_is_repaired_at_once_again() -> None:
    backoff = Backoff()
    for _time in range(PATIENCE):
        backoff.repaired(KEY, 0.0)
    assert backoff.held(1.0) == {KEY}
    calm = max(CALM, 2 * FIRST_PAUSE)
    assert backoff.repaired(KEY, calm + 0.2) is None
    assert backoff.held(calm + 0.2) == set()
    backoff.forget(calm + 0.2 + LONG_CALM + 0.1)
    assert backoff.fights == {}


def test_one_object_does_not_wait_for_another() -> None:
    backoff = Backoff()
    for _time in range(PATIENCE):
        backoff.repaired(KEY, 0.0)
    backoff.repaired(OTHER, 0.0)
    assert backoff.held(0.0) == {KEY}


def test_what_the_kernel_refused_once_and_then_took_is_repaired_at_once_the_next_time() -> None:
    backoff = Backoff()
    backoff.refused(KEY, 0.0)
    assert backoff.held(1.0) == {KEY}
    assert backoff.repaired(KEY, FIRST_PAUSE + 0.1) is None
    assert backoff.held(FIRST_PAUSE + 0.2) == set()


def test_a_fight_in_which_the_kernel_refused_is_told_too() -> None:
    backoff = Backoff()
    backoff.refused(KEY, 0.0)
    told = [backoff.repaired(KEY, 3.0 + number / 10) for number in range(PATIENCE + 3)]
    assert [number for number, fight in enumerate(told, 1) if fight] == [PATIENCE]


def test_what_the_kernel_keeps_refusing_is_tried_less_and_less() -> None:
    backoff, now, pauses = Backoff(), 0.0, []
    for _time in range(10):
        backoff.refused(KEY, now)
        pauses.append(backoff.next([KEY], now))
        now += pauses[-1] or 0.0
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses[-1] == LONGEST_PAUSE


def test_what_was_refused_long_ago_is_tried_soon_again() -> None:
    backoff = Backoff()
    for now in (0.0, 2.0, 6.0):
        backoff.refused(KEY, now)
    assert backoff.next([KEY], 6.0) == 8.0
    backoff.refused(KEY, 6.0 + 2 * 8.0 + 0.1)
    assert backoff.next([KEY], 6.0 + 2 * 8.0 + 0.1) == FIRST_PAUSE


def test_pauses_can_be_others() -> None:
    backoff, pauses, now = Backoff(first=1.0, longest=5.0), [], 0.0
    for _time in range(5):
        backoff.refused(KEY, now)
        pauses.append(backoff.next([KEY], now) or 0.0)
        now += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_what_waits_is_tried_when_its_own_pause_is_over_whatever_else_waits() -> None:
    backoff = Backoff()
    backoff.refused(KEY, 0.0)
    for _time in range(12):
        backoff.refused(OTHER, 0.0)
    assert backoff.held(2.1) == {OTHER}
    assert backoff.next([KEY, OTHER], 2.1) == 0.0  # its pause ran out during a look
    assert backoff.next([OTHER], 2.1) == LONGEST_PAUSE - 2.1
    assert backoff.next([], 2.1) is None
    assert backoff.next([Route("", "10.244.3.0/24").key], 2.1) == 0.0  # it is not remembered any more


# ------------------------------------------------------------------------------------------------ what shadows a route

networks = st.tuples(st.integers(0, 3), st.integers(8, 32)).map(
    lambda pair: str(ipaddress.IPv4Network((f"10.244.{pair[0]}.77", pair[1]), strict=False))
)
routes = st.builds(
    Route,
    st.sampled_from(("", "", "web")),
    networks,
    dev=st.sampled_from(("tun", "eth1")),
    table=st.sampled_from((254, 254, 100)),
    protocol=st.sampled_from((244, 244, KERNEL_PROTOCOL, 3, 4)),
)


@given(st.lists(routes, max_size=12), st.lists(routes, max_size=12))
def test_each_more_specific_foreign_route_is_found(ours: list[Route], theirs: list[Route]) -> None:
    desired, observed = state_of(ours), state_of(theirs)
    expected = {
        (describe(one), describe(other))
        for other in desired.values()
        for one in observed.values()
        if not one.namespace and not other.namespace and one.table == other.table == 254
        if other.protocol == 244 and one.protocol != 244 and (one.protocol, one.dev) != (KERNEL_PROTOCOL, "tun")
        and one.dst != other.dst and ipaddress.IPv4Network(one.dst).subnet_of(ipaddress.IPv4Network(other.dst))
    }  # fmt: skip
    desired.update(state_of([Link("", "tun", "ipip"), Link("", "eth1", external=True)]))
    assert {tuple(line.split(" takes packets from ")) for line in shadows(desired, observed)} == expected


# ------------------------------------------------------------------------------------------------ the kernel's own routes

addresses = st.tuples(st.integers(1, 254), st.integers(8, 32)).map(lambda pair: f"10.244.3.{pair[0]}/{pair[1]}")
bridges = st.lists(addresses, max_size=4, unique=True)


@given(bridges, bridges, st.booleans(), st.booleans(), st.lists(routes, max_size=4))
def test_a_connected_route_is_missed_where_its_address_is_there_and_the_link_is_up(
    wanted: list[str], there: list[str], up: bool, external: bool, others: list[Route]
) -> None:
    link = Link("", "cni0", "bridge", up=True, external=external)
    desired = state_of([link, *(Address("", "cni0", text) for text in wanted)])
    observed = state_of([Link("", "cni0", "bridge", up=up), *(Address("", "cni0", text) for text in there), *others])
    found = connected(desired, observed)
    interfaces = [ipaddress.IPv4Interface(text) for text in wanted if text in there]
    expected = {str(one.network) for one in interfaces if up and not external and one.network.prefixlen < 32}
    there_is = [
        route for route in others if (route.namespace, route.table, route.metric, route.protocol) == ("", 254, 0, 2)
    ]
    present = {route.dst for route in there_is}
    assert {route.dst for route in found.values()} == expected - present
    assert all(route.protocol == KERNEL_PROTOCOL and route.dev == "cni0" for route in found.values())
    assert connected(desired, {**observed, **found}) == {}


# ------------------------------------------------------------------------------------------------ what has to wait

WEB = Namespace("web")
BRIDGE = Link("", "cni0", "bridge")
PAIR = Link("", "veth-web", "veth", master="cni0", options=Veth("eth0", "web"))
END = Link("web", "eth0", "veth", options=Veth("veth-web", ""))
TUNNEL = Link("", "tun", "vxlan", options=Vxlan(1, link="eth1"))
ALL = [
    WEB, BRIDGE, PAIR, END, TUNNEL, Link("", "eth1", external=True), Address("", "cni0", "10.244.3.1/24"),
    Address("web", "eth0", "10.244.3.2/24"), Route("", "10.244.1.0/24", dev="tun"), Route("web", "0.0.0.0/0", "10.244.3.1", "eth0"),
]  # fmt: skip


@given(st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(ALL)), st.sets(st.sampled_from(ALL)))
def test_what_is_held_is_not_touched_nor_is_anything_made_on_what_is_not_there(present, held, foreign) -> None:
    desired, observed = state_of(ALL), state_of(present)
    keys = {item.key for item in held}
    operations = [Operation(None, item) for key, item in desired.items() if key not in observed]
    left, waiting = parted(operations, keys, {item.key for item in foreign & held}, desired, observed)
    assert sorted([*left, *waiting], key=str) == sorted(operations, key=str)
    assert not {operation.item.key for operation in left} & keys
    assert [operation for operation in operations if operation in left] == left
    if not keys:
        assert left == operations
    if TUNNEL in held and TUNNEL not in present:
        assert Route("", "10.244.1.0/24", dev="tun") not in [operation.item for operation in left]
    if WEB in held and WEB not in present:
        assert not [operation for operation in left if getattr(operation.item, "namespace", "") == "web"]


def test_no_route_is_tried_on_a_link_that_is_down_and_held() -> None:
    down = Link("web", "eth0", "veth", up=False, options=Veth("veth-web", ""))
    route = Route("web", "0.0.0.0/0", "10.244.3.1", "eth0")
    operations = [Operation(down, END), Operation(None, route)]
    observed = state_of([WEB, PAIR, down])
    assert parted(operations, {END.key}, (), state_of(ALL), observed) == ([], operations)
    assert parted(operations, (), (), state_of(ALL), observed) == (operations, [])


def test_what_is_to_be_made_anew_stays_where_that_cannot_be_done() -> None:
    def tunnel(port: int) -> Link:
        return Link("", "flannel.1", "vxlan", True, options=Vxlan(1, "198.51.100.1", "eth1", port, False))

    route = Route("", "10.244.1.0/24", "10.244.1.0", "flannel.1", onlink=True)
    anew = [Operation(tunnel(1), None), Operation(None, tunnel(8472)), Operation(None, route)]
    desired, observed = state_of([tunnel(8472), route]), state_of([tunnel(1)])
    assert parted(anew, (), (), desired, observed) == ([], anew)  # eth1 is not there
    there = {**observed, **state_of([Link("", "eth1")])}
    assert parted(anew, (), (), desired, there) == (anew, [])


UPLINK, NEAR = Link("", "eth1", up=True, external=True), Route("", "198.51.100.0/24", dev="eth1", protocol=2)
AWAY = Route("", "10.244.1.0/24", "198.51.100.12", "eth1")


@pytest.mark.parametrize(
    ("observed", "why"),
    [
        ([UPLINK, NEAR], None),
        ([UPLINK, NEAR, AWAY], None),
        ([], "which is not there"),
        ([dataclasses.replace(UPLINK, up=False), NEAR], "which is down"),
        ([UPLINK], "in the network of its gateway"),
        ([UPLINK, NEAR._replace(dev="eth2")], "in the network of its gateway"),
    ],
)
def test_a_route_waits_for_the_uplink_that_it_needs(observed: list[Object], why: str | None) -> None:
    found = cut_off(state_of([AWAY]), state_of(observed))
    assert list(found) == ([AWAY.key] if why else [])
    assert why is None or why in found[AWAY.key]


def test_a_route_by_a_link_of_the_document_is_for_the_engine_to_bring_back() -> None:
    tunnel = Link("", "flannel.1", "vxlan", True, options=Vxlan(1))
    route = Route("", "10.244.1.0/24", "10.244.1.0", "flannel.1", onlink=True)
    down = dataclasses.replace(tunnel, up=False)
    assert cut_off(state_of([tunnel, route]), {}) == cut_off(state_of([tunnel, route]), state_of([down])) == {}


def test_whoever_only_waits_for_a_link_is_in_no_fight() -> None:
    backoff = Backoff()
    backoff.refused(KEY, 0.0)
    backoff.refused(OTHER, 0.0)
    backoff.excused([KEY])
    assert backoff.held(1.0) == {OTHER}
