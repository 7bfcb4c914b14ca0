"""Fixtures of the kernel tests."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.fleets import Fleet, fleet_of
from tests.kernel.hosts import CHECKOUT, Host, started


@pytest.fixture
def host() -> Iterator[Host]:
    """A fresh host with nothing but ``lo``."""
    yield from started()


@pytest.fixture
def underlay(host: Host) -> Host:
    """A host with an underlay interface eth1 (198.51.100.11/24), the other end of which is in a namespace ``wire``."""
    host.sh(
        "ip netns add wire; ip link add eth1 type veth peer name eth1 netns wire; ip addr add 198.51.100.11/24 dev eth1;"
        "ip link set eth1 up; ip -n wire addr add 198.51.100.12/24 dev eth1; ip -n wire link set eth1 up;"
        "until ip link show eth1 | grep -q 'state UP'; do sleep 0.01; done"  # its routes say linkdown until then
    )
    return host


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Fleet]:
    """Two hosts for playbooks, node1 and node2."""
    with fleet_of(2, tmp_path) as fleet:
        yield fleet


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Fleet]:
    """The same with node3."""
    with fleet_of(3, tmp_path) as fleet:
        yield fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Kernel tests need root; without it they say so instead of failing one by one."""
    if os.geteuid() != 0:
        for item in items:
            if CHECKOUT / "tests" / "kernel" in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root: netlink and namespaces"))


@functools.cache
def _has_ipip() -> bool:
    probe = "ip link add probe type ipip local 192.0.2.1 remote 192.0.2.2"
    return subprocess.run(["unshare", "-n", "sh", "-c", probe], capture_output=True, check=False).returncode == 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``ipip`` say so where this kernel has none, before a fixture tries."""
    if item.get_closest_marker("ipip") and not _has_ipip():
        pytest.skip(f"the kernel {platform.release()} has no IPIP: run this on a lab machine (python3 -m lab up)")


@pytest.fixture
def twice(host: Host) -> Callable[..., dict[str, Any]]:
    """Run a module in check mode, for real, and again: the prediction holds, and the second run changes nothing."""

    def run(name: str, /, **arguments: Any) -> dict[str, Any]:
        predicted = host.module(name, check=True, **arguments)
        done = host.module(name, **arguments)
        for key in ("changed", "operations", "diff"):
            assert predicted[key] == done[key]
        again = host.module(name, **arguments)
        assert (again["changed"], again["operations"]) == (False, [])
        return done

    return run
