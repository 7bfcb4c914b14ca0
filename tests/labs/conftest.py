"""Where a lab is played: a namespace host on this kernel, or a virtual machine where that has no ipip."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from lab import labs
from lab.process import run as lab_run
from tests.kernel.hosts import CHECKOUT, started

MACHINE = "test-labs"
PICTURE = """
ip -d link | sed 's/gc_timer *[0-9.]*//'; ip -4 address; ip -4 route show table all; ip neighbour show nud permanent
nft list ruleset; ip netns; find /etc/netns /run/podnet* /run/lab* /etc/podnet* /var/lib/podnet* /srv 2>/dev/null || true
sysctl -a 2>/dev/null | grep -E 'forward|accept_redirects' || true
! command -v podman >/dev/null || { podman ps --all --quiet; podman images --quiet; }
"""
"""All that a lab may touch. The lock file stays."""


@dataclass(frozen=True)
class Run:
    """What a playbook said."""

    code: int
    out: str

    @property
    def changed(self) -> int:
        return int(re.findall(r"changed=(\d+)", self.out)[-1])


@dataclass(frozen=True)
class Place:
    """A host that labs are played on."""

    enter: tuple[str, ...]
    """What goes before a command to run it there."""
    play_by: tuple[str, ...]
    """What goes before ansible-playbook, and its options."""
    options: tuple[str, ...]
    folder: Path

    def sh(self, script: str) -> str:
        done = subprocess.run([*self.enter, script], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def picture(self) -> list[str]:
        return [line for line in self.sh(PICTURE).splitlines() if not line.endswith("podnet-overlay.lock")]

    def play(self, name: str, *options: str) -> Run:
        command = [str(Path(sys.executable).parent / "ansible-playbook"), f"playbooks/labs/{name}.yml"]
        dest = ["-e", f"dest={self.folder / 'frames'}"]
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(self.folder / "home"),
            "PODNET_LAB": MACHINE,
        }
        done = subprocess.run(
            [*self.play_by, *command, *self.options, *dest, *options],
            cwd=CHECKOUT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=180,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return Run(done.returncode, done.stdout)

    def works(self, name: str, *options: str) -> Run:
        done = self.play(name, *options)
        assert done.code == 0, done.out
        return done


@cache
def _has_ipip() -> bool:
    probe = ["unshare", "--net", "ip", "link", "add", "probe0", "type", "ipip", "local", "192.0.2.1"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@contextmanager
def _here(folder: Path) -> Iterator[Place]:
    for host in started():
        into = ("nsenter", f"--mount=/proc/{host.pid}/ns/mnt", f"--net=/proc/{host.pid}/ns/net", f"--wdns={CHECKOUT}")
        yield Place((*into, "sh", "-ec"), into, (), folder)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One virtual machine for all labs that need it. It is ended however the tests end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lab = labs.up(MACHINE, 1, "vm", 1)
    try:
        lab_run(lab.ssh("node1", "modprobe ipip"), what="modprobe")  # which brings a tunl0 along
        options = ("-i", "inventories/lab", "-e", json.dumps({"lab_host": "node1"}))
        yield Place(tuple(lab.ssh("node1")), (), options, tmp_path_factory.mktemp("machine"))
    finally:
        labs.down(MACHINE)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    """The place that a lab can be played at."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces")
    with _here(tmp_path) as here:

        def choose(name: str) -> Place:
            text = (CHECKOUT / "playbooks" / "labs" / f"{name}.yml").read_text()
            if "kind: ipip" in text and not _has_ipip():
                found: Place = request.getfixturevalue("machine")
                return found
            return here

        yield choose
