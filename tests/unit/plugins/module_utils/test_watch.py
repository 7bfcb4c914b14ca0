# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watcher's own rules: how much of the processor it takes, whom it suspects, where it may be ended."""

from __future__ import annotations

import signal

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._difference import Operation
from ansible_collections.podnet.overlay.plugins.module_utils._model import Route
from ansible_collections.podnet.overlay.plugins.module_utils._watch import (
    AHEAD,
    LONGEST_REST,
    SHARE,
    Budget,
    Stopped,
    _Stop,
    suspect,
)
from hypothesis import given
from hypothesis import strategies as st

looks = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.3)), max_size=200)
"""(seconds without a look, seconds that the next one takes)."""


@given(looks)
def test_it_takes_no_more_than_its_share_and_what_it_may_beforehand(times: list[tuple[float, float]]) -> None:
    now = used = 0.0
    budget = Budget(now, used)
    for wait, look in times:
        now, used = now + wait + look, used + look
        assert used <= SHARE * now + AHEAD + look + 1e-6
        now += budget.rest(now, used)


def test_a_fault_in_many_steps_is_repaired_without_a_rest() -> None:
    budget = Budget(1000.0, 7.0)
    assert [budget.rest(1000.0 + step / 10, 7.0 + step / 10) for step in range(1, 31)] == [0.0] * 30


def test_waiting_for_something_is_no_work_and_what_was_taken_is_forgotten_in_time() -> None:
    budget = Budget(0.0, 0.0)
    assert budget.rest(500.0, 0.1) == 0.0
    assert budget.rest(510.0, 10.1) == LONGEST_REST
    assert budget.rest(600.0, 10.1) == 0.0


GONE = Operation(None, Route("", "10.244.1.0/24", dev="tun", protocol=244))


def test_who_it_was_is_told_without_the_repairs_of_the_watcher_itself() -> None:
    assert suspect(GONE, ["ip"]) == "ip"
    assert suspect(GONE, ["nft"]) == "nft"
    assert suspect(GONE, ["nft", "firewalld"]) == "firewalld"
    assert suspect(GONE, ["ip", "flanneld"]) == "ip or flanneld"
    assert suspect(GONE, []) == ""
    assert suspect(Operation(GONE.item._replace(protocol=3), GONE.item), []) == "who made the route with protocol boot"


def test_it_ends_where_it_waits_and_nowhere_else() -> None:
    stop = _Stop()
    with stop.waiting():
        pass
    stop.ask(signal.SIGTERM, None)  # in the middle of a repair
    with pytest.raises(Stopped), stop.waiting():
        pytest.fail("it waits although it was asked to end")
    stop = _Stop()
    with pytest.raises(Stopped), stop.waiting():
        stop.ask(signal.SIGTERM, None)
