"""Two machines with Debian's kernel and the overlay on them, for all tests of a fleet's life.

With PODNET_LAB=NAME an overlay that is there already is used and stays: `python3 -m lab up NAME --hosts 2 --kind vm`, then
`PODNET_LAB=NAME ansible-playbook -i tests/life/hosts.yml playbooks/overlay.yml`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import labs

NAME = "test-life"
INVENTORY = "tests/life/hosts.yml"
POD = {"node1": "10.244.0.2", "node2": "10.244.1.2"}
"""The address of each node's pod ``web``."""
HERE = Path(__file__).parent
REPORT = labs.CHECKOUT / ".cache" / "life.md"
HEADINGS = {
    "faults": ("fault", "repaired after", "of a processor"),
    "others": ("other network tools", "longest silence of a pod"),
    "life": ("what", "measured"),
}
_rows: dict[str, list[tuple[str, ...]]] = {}


def record(table: str, *row: str) -> None:
    """A line of a table that is printed at the end, and stands in .cache/life.md."""
    _rows.setdefault(table, []).append(row)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = []
    for table, heading in HEADINGS.items():
        rows = [heading, tuple("---" for _ in heading), *_rows.get(table, ())]
        if len(rows) > 2:
            widths = [max(len(row[column]) for row in rows) for column in range(len(heading))]
            lines += ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows] + [""]
    if lines:
        terminalreporter.write_line("\n" + "\n".join(lines))
        REPORT.parent.mkdir(exist_ok=True)
        with REPORT.open("a") as report:
            report.write("\n".join(lines))


@dataclass(frozen=True)
class Machine:
    """A host of the lab, over ssh."""

    lab: labs.Lab
    name: str

    def run(self, script: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """What a shell script there said; it may fail."""
        command = self.lab.ssh(self.name, "sh", "-s")
        return subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=timeout)

    def sh(self, script: str, *, timeout: float = 120) -> str:
        """What a shell script there printed."""
        done = self.run("set -eu\n" + script, timeout=timeout)
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def send(self, file: Path, place: str) -> None:
        """Put a file there."""
        subprocess.run(self.lab.ssh(self.name, f"cat >{place}"), input=file.read_bytes(), check=True, timeout=60)


@dataclass(frozen=True)
class Fleet:
    """The lab, and its inventory."""

    lab: labs.Lab

    def machine(self, name: str) -> Machine:
        return Machine(self.lab, name)

    def playing(self, playbook: str, *options: str) -> subprocess.Popen[str]:
        """A run of a playbook on the lab, in a session of its own."""
        ansible = Path(sys.executable).parent / "ansible-playbook"
        return subprocess.Popen(
            [str(ansible), "-i", INVENTORY, f"playbooks/{playbook}.yml", *options],
            cwd=labs.CHECKOUT,
            env={**os.environ, "PODNET_LAB": self.lab.name, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook on the lab; it may fail."""
        with self.playing(playbook, *options) as run:
            try:
                said = run.communicate(timeout=600)[0]
            except BaseException:
                os.killpg(run.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(run.args, run.returncode, said)


def look(node: Machine) -> list[str]:
    """All that an overlay has in the node's kernel, in lines that are the same whenever the node is."""
    node.send(HERE / "measure.py", "/run/measure.py")
    found: list[str] = json.loads(node.sh("python3 /run/measure.py look"))
    return found


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """The overlay, converged. The machines end however the tests end."""
    if os.environ.get("PODNET_LAB"):
        yield Fleet(labs.load(os.environ["PODNET_LAB"]))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        made = Fleet(labs.up(NAME, 2, "vm", 1))
        remember(made)
        done = made.play("overlay")
        assert done.returncode == 0, done.stdout
        yield made
    finally:
        labs.down(NAME)


def remember(fleet: Fleet) -> None:
    """Write down on each machine how it is before anything is done to it."""
    for name in POD:
        fleet.machine(name).send(HERE / "everything.sh", "/root/everything.sh")
        fleet.machine(name).sh("sh /root/everything.sh >/root/before")


@pytest.fixture(scope="session")
def measure(fleet: Fleet) -> None:
    """measure.py on the first machine."""
    fleet.machine("node1").send(HERE / "measure.py", "/run/measure.py")
    fleet.machine("node1").sh("rm -f /run/measure.json")


@pytest.fixture
def node1(fleet: Fleet) -> Machine:
    return fleet.machine("node1")


@pytest.fixture
def node2(fleet: Fleet) -> Machine:
    return fleet.machine("node2")
