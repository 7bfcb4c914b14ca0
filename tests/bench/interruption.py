"""Packets lost while the overlay changes: a train of pings from a pod of node1 to one of node2, 50 a second, during each kind of run.

    sudo PYTHONPATH=.:.collections .venv/bin/python tests/bench/interruption.py [namespaces|lab [100%|1]]

Three hosts, in namespaces here (vxlan), or with ``lab`` machines of the lab (ipip), once all hosts at a time and once node by node
(``overlay_serial: 1``). Where a change gives the pod another address, either of its addresses counts as reached.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.kernel.fleets import Fleet, fleet_of

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
LAB = "bench"
INTERVAL = 0.02
TITLES = {"100%": "all at a time", "1": "node by node"}
SETTLE = 1.0
"""Seconds of the train before and after the run."""


class Stage(Protocol):
    """Three hosts and their inventory."""

    tunnels: tuple[str, ...]
    """The backends that the kernel has, but for host-gw; the overlay starts with the first."""
    leases: Path

    def play(self, playbook: str, settings: dict[str, Any]) -> None: ...

    def train(self, *addresses: str) -> subprocess.Popen[str]: ...

    def run(self, host: str, script: str) -> None: ...

    def watching(self) -> AbstractContextManager[object]: ...


class Namespaces:
    """Hosts that are namespaces of this machine."""

    tunnels: tuple[str, ...] = ("vxlan",)

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.leases = fleet.leases

    def play(self, playbook: str, settings: dict[str, Any]) -> None:
        self.fleet.works(playbook, "-e", json.dumps(settings))

    def train(self, *addresses: str) -> subprocess.Popen[str]:
        words = ("ip", "netns", "exec", "web", sys.executable, str(HERE / "train.py"), str(INTERVAL), *addresses)
        return self.fleet.hosts["node1"].popen(*words, stdin=subprocess.PIPE)

    def run(self, host: str, script: str) -> None:
        self.fleet.hosts[host].sh(script)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """No systemd is there to run the watcher."""
        process = self.fleet.hosts["node1"].popen("podnet-overlay", "watch")
        try:
            time.sleep(SETTLE)
            yield
        finally:
            process.terminate()
            process.wait()


class Machines:
    """Hosts that are machines of the lab."""

    tunnels: tuple[str, ...] = ("ipip", "vxlan")
    leases = CHECKOUT / ".lab" / LAB / "overlay-leases.yml"

    def play(self, playbook: str, settings: dict[str, Any]) -> None:
        command = ["ansible-playbook", "-i", "inventories/lab", f"playbooks/{playbook}.yml", "-e", json.dumps(settings)]
        environment = {**os.environ, "PODNET_LAB": LAB}
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{playbook} failed:\n{done.stdout}{done.stderr}")

    def train(self, *addresses: str) -> subprocess.Popen[str]:
        command = f"ip netns exec web python3 /root/train.py {INTERVAL} {' '.join(addresses)}"
        words = [sys.executable, "-m", "lab", "shell", LAB, "node1", "--", command]
        return subprocess.Popen(words, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, host: str, script: str, **options: Any) -> None:
        subprocess.run(
            [sys.executable, "-m", "lab", "shell", LAB, host, "--", script], cwd=CHECKOUT, check=True, **options
        )

    def watching(self) -> AbstractContextManager[object]:
        return nullcontext()


@contextmanager
def namespaces() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as folder, fleet_of(3, Path(folder)) as fleet:
        yield Namespaces(fleet)


@contextmanager
def machines() -> Iterator[Stage]:
    def lab(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "lab", *words], cwd=CHECKOUT, check=True)

    try:
        lab("up", LAB, "--hosts", "3", "--kind", "vm")
        stage = Machines()
        stage.run("node1", "cat >/root/train.py", input=(HERE / "train.py").read_text(), text=True)
        yield stage
    finally:
        lab("down", LAB)


@dataclass(frozen=True)
class Row:
    """What became of a train."""

    sent: int
    lost: int
    gap: float
    """The longest time without an answer, in seconds."""


def row(text: str) -> Row:
    """From what train.py prints."""
    told = json.loads(text)
    sent, answered = told["sent"], told["answered"]
    gaps = [after - before - 1 for before, after in zip([-1, *answered], [*answered, sent])]
    return Row(sent, sent - len(answered), max(gaps) * INTERVAL)


@dataclass
class Overlay:
    """The overlay of a stage, and the variables that it has by now."""

    stage: Stage
    settings: dict[str, Any] = field(default_factory=dict)

    def during(self, work: Callable[[], object], *more: str) -> Row:
        """What a train loses while *work* is done; *more* are addresses that the pod gets by it."""
        node = re.search(r"^  node2: .*pods: {web: ([\d.]+)", self.stage.leases.read_text(), re.MULTILINE)
        assert node
        train = self.stage.train(node[1], *more)
        time.sleep(SETTLE)
        work()
        time.sleep(SETTLE)
        return row(train.communicate("", timeout=60)[0])

    def change(self, *more: str, **settings: Any) -> Row:
        self.settings.update(settings)
        return self.during(lambda: self.stage.play("overlay", self.settings), *more)

    def repair(self) -> Row:
        """The watcher brings back the route to the other node."""
        with self.stage.watching():
            return self.during(lambda: self.stage.run("node1", "ip route del 10.244.1.0/24"))

    def remove(self) -> Row:
        return self.during(lambda: self.stage.play("remove", {**self.settings, "node": "node3"}))

    def add(self) -> Row:
        self.stage.leases.write_text(self.stage.leases.read_text().replace(", reason: playbook", ""))
        return self.change()


def of_node2(value: str) -> str:
    """A variable that only node2 has."""
    return f"{{{{ '{value}' if inventory_hostname == 'node2' else none }}}}"


def measured(stage: Stage, serial: str) -> Iterator[tuple[str, Row]]:
    """Each kind of change, one after the other on the same hosts."""
    first, *others = stage.tunnels
    start = {"overlay_backend": first, "overlay_serial": serial, "overlay_pods": [{"name": "web"}]}
    overlay = Overlay(stage, start)
    stage.play("overlay", start)
    yield "no change", overlay.change()
    yield "watcher: a lost route", overlay.repair()
    yield "a node is removed", overlay.remove()
    yield "a node is added", overlay.add()
    yield "MTU", overlay.change(overlay_mtu=1400)
    yield "direct routing on", overlay.change(overlay_direct_routing=True)
    yield "direct routing off", overlay.change(overlay_direct_routing=False)
    tunnel = first
    for backend in (*others, "host-gw", first):
        yield f"{tunnel} to {backend}", overlay.change(overlay_backend=backend)
        tunnel = backend
    stage.run("node2", "ip addr add 198.51.100.102/24 dev eth1")
    yield "public_ip of a node", overlay.change(overlay_public_ip=of_node2("198.51.100.102"))
    yield "subnet of a node", overlay.change("10.244.77.2", overlay_subnet=of_node2("10.244.77.0/24"))
    network = {"overlay_network": "10.201.0.0/16", "overlay_subnet": None, "overlay_renumber": True}
    yield "network", overlay.change("10.201.77.2", **network)


def main(where: str = "namespaces", *serials: str) -> None:
    found: dict[str, dict[str, Row]] = {}
    for serial in serials or TITLES:
        rows = found[TITLES[serial]] = {}
        with machines() if where == "lab" else namespaces() as stage:
            for change, its in measured(stage, serial):
                rows[change] = its
                print(f"{TITLES[serial]}, {change}: {its.lost} of {its.sent} lost", flush=True)
    print(f"\npackets of a train of 50 a second from pod to pod, {where}\n")
    print(f"{'':24}" + "".join(f"{title:>30}" for title in found))
    print(f"{'':24}" + f"{'sent':>12}{'lost':>8}{'seconds':>10}" * len(found))
    for change in next(iter(found.values())):
        cells = (rows[change] for rows in found.values())
        print(f"{change:24}" + "".join(f"{cell.sent:12}{cell.lost:8}{cell.gap:10.2f}" for cell in cells))


if __name__ == "__main__":
    main(*sys.argv[1:])
