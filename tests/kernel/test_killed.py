"""kill -9 at any point: no file is torn, one further run makes all right, and teardown leaves the host as it was.

What follows from one seed is chosen anew in each run, and PODNET_SEED repeats it.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _leases

from tests.kernel import kills
from tests.kernel.documents import PEERS, node
from tests.kernel.hosts import FORK, Host
from tests.kernel.looks import FOLDERS, everything, files, picture

SOAK = 10 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 1
KILLS: Counter[str] = Counter()
KILLED_PLANS = FORK.Value("i", 0)  # in processes of their own


def controller(folder: Path) -> Any:
    """A fleet with its leases."""
    from tests.unit.plugins.action.test_plan import Fleet

    return Fleet(folder)


def on_the_controller(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a process of its own: a module takes itself for the controller where that has been imported."""

    @pytest.mark.skipif(
        not importlib.util.find_spec("ansible.errors"), reason="a lab machine has a part of ansible-core"
    )
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        process = FORK.Process(target=test, kwargs=fixtures)
        process.start()
        assert _ended(process) == 0

    return run


@pytest.fixture(autouse=True, scope="module")
def _told(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    KILLS.update({"controller": KILLED_PLANS.value} if KILLED_PLANS.value else {})
    if not KILLS:
        return
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        each = ", ".join(f"{count} of {what}" for what, count in sorted(KILLS.items()))
        print(
            f"\n{KILLS.total() if hasattr(KILLS, 'total') else sum(KILLS.values())} kills ({each}); PODNET_SEED={kills.SEED}"
        )


def _fewer() -> dict[str, Any]:
    """Other objects of every kind, and some of the same that differ."""
    bridge, web, tunnel = node()["links"]
    database = {**web, "name": "veth-db", "peer": {**web["peer"], "namespace": "db", "addresses": ["10.244.0.3/24"]}}
    return node(
        namespaces=[
            {"name": "db", "files": {"hosts": "127.0.0.1 localhost\n", "resolv.conf": "nameserver 192.0.2.1\n"}}
        ],
        links=[{**bridge, "mtu": 1400}, database, {**tunnel, "vxlan": {**tunnel["vxlan"], "port": 4789}}],
        routes=[{"dst": "default", "via": "10.244.0.1", "dev": "eth0", "namespace": "db"}],
        sysctls=[{"name": name, "value": "1"} for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.arp_announce")],
        files=[{"path": "/etc/cni/net.d/10-test.conf", "content": "{}\n"}],
        firewall={"local": "198.51.100.11", "backend": "vxlan", "port": 4789},
    )


DOCUMENTS: Mapping[str, dict[str, Any]] = {
    "a": {"document": node(), "peers": PEERS},
    "b": {"document": _fewer(), "peers": dict(list(PEERS.items())[:2])},
    "none": {"state": "absent"},
}


def whole(host: Host) -> None:
    """The files of documents can be read, each of them."""
    for line in host.sh(
        f"cat {' '.join(f'{folder}/*.json' for folder in FOLDERS)} 2>/dev/null | tr -d '\\n' || true"
    ).splitlines():
        decoder, at = json.JSONDecoder(), 0
        while at < len(line):
            _value, at = decoder.raw_decode(line, at)


class Killed:
    """A host whose runs are killed. Each step is told when something goes wrong."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name
        self.random = random.Random(f"{kills.SEED} {name}")
        self.before, self.files = everything(host), files(host)
        self.pictures = {}
        for key in DOCUMENTS:
            host.module("topology", **DOCUMENTS[key])
            self.pictures[key] = picture(host)
        assert everything(host) == self.before
        self.points: dict[tuple[Any, ...], int] = {}
        self.step = ""

    def kill(self, what: str, run: Callable[[], None], *key: str) -> None:
        """Kill *run* at a random point; *key* tells those apart that have other numbers of points."""
        anywhere = self.random.random() < 0.3
        known = self.points.get((what, anywhere, *key), 2000 if anywhere else 100)
        for _try in range(20):
            at = self.random.randint(1, max(1, known))
            self.step = (
                f"PODNET_SEED={kills.SEED}, {self.name}: {what} {' to '.join(key)} killed at {at} (anywhere={anywhere})"
            )
            died, seen = kills.attempt(self.host, run, at, anywhere=anywhere)
            if died:
                KILLS[what] += 1
                self.points[(what, anywhere, *key)] = max(known, at)
                break
            self.points[(what, anywhere, *key)] = known = seen
        else:
            raise AssertionError(self.step)
        whole(self.host)

    def right(self, key: str) -> None:
        """One run brings the host to *key*, and another has nothing left to do."""
        self.host.module("topology", **DOCUMENTS[key])
        again = self.host.module("topology", check=True, **DOCUMENTS[key])
        assert again["operations"] == [], self.step
        assert picture(self.host) == self.pictures[key], self.step

    def gone(self) -> None:
        """The host is as it was."""
        self.right("none")
        assert everything(self.host) == self.before, self.step
        assert files(self.host) == self.files, self.step


@pytest.mark.parametrize("part", range(3 * SOAK))
def test_a_module_killed_at_any_point_is_made_right_by_the_next_run(underlay: Host, part: int) -> None:
    killed = Killed(underlay, f"module {part}")
    now = "none"
    for _number in range(15):
        towards = killed.random.choice([key for key in DOCUMENTS if key != now])
        killed.kill("module", kills.module("topology", **DOCUMENTS[towards]), now, towards)
        now = killed.random.choice(list(DOCUMENTS))
        killed.gone() if now == "none" else killed.right(now)
    killed.gone()


@pytest.mark.parametrize(
    "next_run", [{"state": "absent"}, {"document": {"links": []}}, None], ids=["none", "another", "the same"]
)
def test_what_a_run_killed_with_a_file_or_a_namespace_half_made_left_goes_with_the_document(
    underlay: Host, next_run: dict[str, Any] | None
) -> None:
    underlay.sh("printf '#!/bin/sh\n' >/usr/local/sbin/NetworkManager; chmod +x /usr/local/sbin/NetworkManager")
    document = {
        "namespaces": [{"name": "web", "files": {"hosts": "127.0.0.1 localhost\n"}}],
        "links": [{"name": "cni0", "kind": "bridge"}],
        "files": [{"path": "/etc/cni/net.d/10-test.conf", "content": "{}\n"}],
        "firewall": {"backend": "host-gw", "bridge": "cni0", "network": "10.244.0.0/16", "subnet": "10.244.0.0/24"},
    }
    before = files(underlay)
    run = kills.module("topology", document=document)
    _died, points = kills.attempt(underlay, run, 0, only=kills.HALF_DONE)
    underlay.module("topology", state="absent")
    left: set[str] = set()
    for at in range(1, points + 1):
        assert kills.attempt(underlay, run, at, only=kills.HALF_DONE)[0]
        KILLS["file"] += 1
        left |= files(underlay) - before
        underlay.module("topology", **(next_run or {"document": document}))
        underlay.module("topology", state="absent")
        assert files(underlay) == before, f"killed at {at}"
    assert {
        "/etc/cni/net.d/.10-test.conf.new",
        "/etc/netns/web/.hosts.new",
        "/etc/NetworkManager/conf.d/.zz-podnet-overlay.conf.new",
        "/run/netns/web",
    } <= left


FAULTS = (
    "ip route del 10.244.1.0/24",
    "ip link del flannel.1",
    "ip link set flannel.1 down",
    "ip link del cni0",
    "ip addr flush dev cni0",
    "ip link set veth-web nomaster",
    "ip link del veth-web",
    "ip -n web route del default",
    "ip -n web link set eth0 down",
    "rm -r /etc/netns/web",
    "sysctl -qw net.ipv4.ip_forward=0",
    "nft flush ruleset",
    "bridge fdb del 0e:58:0a:f4:01:00 dev flannel.1",
    "ip netns del web; for n in $(seq 50); do ip link show veth-web >/dev/null 2>&1 || break; sleep 0.1; done",
)


@pytest.mark.parametrize("part", range(SOAK))
def test_the_command_killed_while_it_applies(underlay: Host, part: int) -> None:
    killed = Killed(underlay, f"apply {part}")
    killed.right("a")
    for _number in range(15):
        faults = killed.random.sample(FAULTS, 3)
        underlay.sh("set +e; %s; true" % "; ".join(faults))
        killed.kill("apply", kills.command("apply"))
        if killed.random.random() < 0.5:
            assert kills.attempt(underlay, kills.command("apply"), 0, anywhere=False)[1], killed.step
        killed.right("a")
    killed.gone()


@pytest.mark.parametrize("part", range(SOAK))
def test_the_watcher_killed_while_it_repairs(underlay: Host, part: int) -> None:
    killed = Killed(underlay, f"watcher {part}")
    underlay.module("node", missing=["file:engine"])
    killed.right("a")
    watcher = underlay.popen("podnet-overlay", "watch")
    for _number in range(12):
        fault, delay = killed.random.choice(FAULTS), killed.random.uniform(0, 0.5)
        time.sleep(killed.random.choice((0, 0.7)))  # before it listens, or then
        underlay.sh(f"{fault} || true")
        time.sleep(delay)
        killed.step = f"PODNET_SEED={kills.SEED}: watcher killed {delay:.3f} s after {fault}"
        watcher.kill()
        watcher.communicate()
        KILLS["watcher"] += 1
        whole(underlay)
        watcher = underlay.popen("podnet-overlay", "watch")
        deadline = time.monotonic() + 20
        while picture(underlay) != killed.pictures["a"]:
            assert time.monotonic() < deadline, killed.step
            time.sleep(0.1)
    watcher.terminate()
    watcher.communicate(timeout=20)
    assert watcher.returncode in (0, -signal.SIGTERM)  # or it had not begun yet
    killed.right("a")
    underlay.module("topology", state="absent")
    underlay.module("node", state="absent")
    killed.gone()


@pytest.mark.parametrize("part", range(SOAK))
def test_the_engine_s_installation_killed(underlay: Host, part: int) -> None:
    killed = Killed(underlay, f"node {part}")
    for _number in range(8):
        killed.kill("installation", kills.module("node", missing=["file:engine"]), "install")
        if killed.random.random() < 0.5:
            underlay.module("node", missing=["file:engine"])
            assert underlay.run("podnet-overlay diff").stdout == "", killed.step
            assert not underlay.module("node", missing=["file:engine"])["changed"], killed.step
            killed.kill("removal", kills.module("node", state="absent"), "remove")
        underlay.module("node", state="absent")
        assert files(underlay) == killed.files, killed.step


def test_an_installation_killed_at_the_command_itself_leaves_nothing(underlay: Host) -> None:
    before = files(underlay)
    underlay.sh("touch /usr/local/sbin/.podnet-overlay.new")
    underlay.module("node", state="absent")
    assert files(underlay) == before


@pytest.mark.parametrize("part", range(SOAK))
@on_the_controller
def test_the_controller_killed_while_it_writes_leases(tmp_path: Path, part: int) -> None:
    chance = random.Random(f"{kills.SEED} leases {part}")
    fleet = controller(tmp_path)
    everyone, known = dict(fleet.variables), 50
    for number in range(20):
        names = chance.sample(sorted(everyone), chance.randint(1, 3))
        fleet.variables = {name: {**everyone[name], "overlay_pods": [{"name": f"p{number}"}]} for name in names}
        while True:
            at = chance.randint(1, known)
            died, seen = kills.attempt(None, fleet.run, at, anywhere=False)
            if died:
                break
            known = seen
        KILLED_PLANS.value += 1
        step = f"PODNET_SEED={kills.SEED}: {names} killed at {at}"
        _leases.load(str(fleet.leases))
        fleet.run()
        assert not fleet.run()["changed"], step
        left = {path.name for path in tmp_path.iterdir()} - {f"{fleet.leases.name}.lock"}  # a lock that nobody holds
        assert left == {fleet.leases.name}, step


@on_the_controller
def test_two_plans_at_once_leave_leases_that_both_have_part_in(tmp_path: Path) -> None:
    fleet = controller(tmp_path)
    everyone = dict(fleet.variables)
    for number in range(6):
        processes = []
        for names in (("node1", "node2"), ("node1", "node3"), ("node3",)):
            own = {name: {**everyone[name], "overlay_pods": [{"name": f"p{number}"}]} for name in names}
            fleet.variables = own
            processes.append(kills.started(None, fleet.run))
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        leases = _leases.load(str(fleet.leases))
        assert leases is not None
        assert set(leases.nodes) | set(leases.removed) == set(everyone)
        assert os.listdir(tmp_path) == [fleet.leases.name]
    fleet.variables = everyone
    fleet.run()
    assert not fleet.run()["changed"]


@on_the_controller
def test_leases_on_a_full_disk_stay_as_they_were(host: Host) -> None:
    host.sh("mount -t tmpfs -o size=12k none /mnt")
    fleet = controller(Path("/mnt"))
    assert _ended(kills.started(host, fleet.run)) == 0
    before = host.run("cat", str(fleet.leases)).stdout
    assert "node3" in before
    host.sh("dd if=/dev/zero of=/mnt/fill bs=4096 2>/dev/null || true")
    fleet.variables = {name: {**own, "overlay_pods": [{"name": "new"}]} for name, own in fleet.variables.items()}
    _ended(kills.started(host, fleet.run))
    assert host.run("cat", str(fleet.leases)).stdout == before
    assert host.run("ls", "-A", "/mnt").stdout.split() == [fleet.leases.name, "fill"]
    host.sh("rm /mnt/fill")
    assert _ended(kills.started(host, fleet.run)) == 0
    assert "new" in host.run("cat", str(fleet.leases)).stdout


def _ended(process: Any) -> int:
    process.join(60)
    return int(process.exitcode)
