"""A handful of kills on machines with real IPIP: nothing is torn, and one further run makes all right.

Hundreds more, at points chosen one by one, are in tests/kernel/test_killed.py. What follows from one seed is chosen anew in
each run, and PODNET_SEED repeats it.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.life.conftest import POD, Fleet, Machine, look, record
from tests.life.test_faults import FAULTS

SEED = int(os.environ.get("PODNET_SEED") or int.from_bytes(os.urandom(4), "big"))
KILLS, KILLS_OF_THE_CONTROLLER = 4, 3
BREAKING = [fault.script for fault in FAULTS if "systemd" not in fault.script]
WHOLE = "for file in /etc/podnet-overlay/*.json /var/lib/podnet-overlay/*.json; do python3 -m json.tool <$file >/dev/null; done"


def told(what: str, kills: int) -> None:
    record(
        "life", f"{kills} times kill -9 of {what} (PODNET_SEED={SEED})", "nothing torn; as before after one further run"
    )


@pytest.fixture
def unwatched(node1: Machine) -> Iterator[None]:
    node1.sh("systemctl stop podnet-overlay-watch")
    yield
    node1.sh("systemctl start podnet-overlay-watch")


@pytest.mark.usefixtures("unwatched")
def test_a_killed_apply_tears_nothing_and_the_next_one_makes_all_right(node1: Machine) -> None:
    chance, before, kills = random.Random(f"{SEED} apply"), look(node1), 0
    began = time.monotonic()
    node1.sh("ip link del cni0; podnet-overlay apply")
    whole = time.monotonic() - began
    while kills < KILLS:
        faults, delay = "; ".join(chance.sample(BREAKING, 3)), chance.uniform(0.2, 1) * whole
        said = node1.sh(
            f"({faults}) || true; set +e; timeout -s KILL {delay:.2f} podnet-overlay apply >/dev/null; echo $?"
        )
        kills += said.split()[-1] == "137"
        node1.sh(f"{WHOLE}; podnet-overlay apply")
        assert look(node1) == before, f"PODNET_SEED={SEED}: killed after {delay:.2f} s, after {faults}"
    told("podnet-overlay apply", kills)


def test_a_killed_watcher_is_started_again_and_repairs(node1: Machine) -> None:
    chance, before = random.Random(f"{SEED} watcher"), look(node1)
    for _kill in range(KILLS):
        faults, delay = "; ".join(chance.sample(BREAKING, 3)), chance.uniform(0, 1)
        node1.sh(f"({faults}) || true; sleep {delay:.2f}; systemctl kill -s KILL podnet-overlay-watch; {WHOLE}")
        node1.sh("for _ in $(seq 60); do podnet-overlay diff >/dev/null && exit; sleep 0.5; done; exit 1", timeout=200)
        assert look(node1) == before, f"PODNET_SEED={SEED}: killed {delay:.2f} s after {faults}"
    told("the watcher", KILLS)


def test_a_killed_controller_tears_nothing_and_the_next_run_makes_all_right(fleet: Fleet) -> None:
    chance, nodes = random.Random(f"{SEED} controller"), [fleet.machine(name) for name in POD]
    before = [look(node) for node in nodes]
    began = time.monotonic()
    assert fleet.play("overlay").returncode == 0
    whole, kills = time.monotonic() - began, 0
    while kills < KILLS_OF_THE_CONTROLLER:
        delay = chance.uniform(0.2, 1.2) * whole
        with fleet.playing("overlay", "-e", "overlay_mtu=1400") as run:
            time.sleep(delay)
            kills += run.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
        step = f"PODNET_SEED={SEED}: killed after {delay:.1f} s"
        for node in nodes:
            node.sh(WHOLE)
        done = fleet.play("overlay")
        assert done.returncode == 0, f"{step}\n{done.stdout}"
        assert [look(node) for node in nodes] == before, step
    assert set(re.findall(r"changed=(\d+)", fleet.play("overlay").stdout)) == {"0"}
    told("the controller", kills)
