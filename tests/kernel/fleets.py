"""Fleets of namespace hosts that playbooks run on, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel.hosts import CHECKOUT, Host, started
from tests.kernel.looks import everything, routes

UNREACHABLE = {"ansible_pipelining": False, "ansible_remote_tmp": "/proc/none"}
"""A host that Ansible finds no way to work on."""
Recap = dict[str, dict[str, int]]


@dataclass
class Run:
    """What a playbook said."""

    code: int
    out: str

    @property
    def recap(self) -> Recap:
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", self.out, re.MULTILINE)
        return {host: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in lines}

    @property
    def changed(self) -> dict[str, int]:
        return {host: counts["changed"] for host, counts in self.recap.items()}


@dataclass
class Fleet:
    """Hosts node1, node2, … on one underlay, and an inventory of them."""

    folder: Path
    hosts: dict[str, Host]
    group: dict[str, Any] = field(
        default_factory=lambda: {"overlay_backend": "vxlan", "overlay_pods": [{"name": "web"}]}
    )
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, (name, host) in enumerate(self.hosts.items(), 1):
            self.interpreter(name, sys.executable)
            self.variables[name] = {
                "ansible_connection": "local",
                "ansible_host": f"198.51.100.{number}",
                "ansible_python_interpreter": str(self.folder / name),
            }
            assert host.links() >= {"eth1"}

    @property
    def contacted(self) -> Path:
        return self.folder / "contacted"

    @property
    def leases(self) -> Path:
        return self.folder / "inventory" / ".overlay-leases.yml"

    def interpreter(self, name: str, *command: str) -> None:
        """Let the Python of the host *name* be *command*, run inside of it. It notes that the host was contacted."""
        pid = self.hosts[name].pid
        script = self.folder / name
        words = ["exec", "nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--net=/proc/{pid}/ns/net", *command]
        script.write_text(f'#!/bin/sh\necho {name} >>{self.contacted}\n{" ".join(words)} "$@"\n')
        script.chmod(0o755)

    def play(self, playbook: str, *options: str) -> Run:
        """Run a playbook on the fleet."""
        inventory = self.folder / "inventory" / "hosts.json"
        inventory.parent.mkdir(exist_ok=True)
        inventory.write_text(json.dumps({"overlay": {"hosts": self.variables, "vars": self.group}}))
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.folder / "home")}
        path = CHECKOUT / "playbooks" / f"{playbook}.yml"
        self.contacted.unlink(missing_ok=True)
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, path, *options]
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return Run(done.returncode, done.stdout)

    def works(self, playbook: str, *options: str) -> Run:
        done = self.play(playbook, *options)
        assert done.code == 0, done.out
        return done

    def refused(self, playbook: str, *options: str) -> str:
        """The words of a run that fails and leaves every host and the leases as they were."""
        before = self.picture()
        done = self.play(playbook, *options)
        assert done.code != 0, done.out
        assert self.picture() ^ before == set()
        assert not any(done.changed.values())
        return done.out

    def picture(self) -> set[str]:
        """All that the playbooks may touch, in lines."""
        files = "cd /etc; find iproute2 modules-load.d sysctl.d -type f 2>/dev/null || true"
        leases = self.leases.read_text().splitlines() if self.leases.exists() else []
        return {f"leases: {line}" for line in leases} | {
            f"{name}: {line}"
            for name, host in self.hosts.items()
            for line in (everything(host) + host.sh(files)).splitlines()
            if not line.endswith("pref medium")  # a route of IPv6, which comes by itself
        }

    def subnets(self, name: str) -> set[str]:
        """The subnets that a host has routes to."""
        return {dst for dst in routes(self.hosts[name]) if dst.startswith("10.244.")}


@contextmanager
def fleet_of(count: int, folder: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        start = contextmanager(started)
        switch, *hosts = (stack.enter_context(start()) for _ in range(count + 1))
        switch.sh("ip link add switch type bridge; ip link set switch up")
        for number, host in enumerate(hosts, 1):
            port = f"port{number}"
            switch.sh(
                f"ip link add {port} type veth peer name eth1 netns {host.pid}; ip link set {port} up master switch"
            )
            host.sh(f"ip addr add 198.51.100.{number}/24 dev eth1; ip link set eth1 up")
        for host in hosts:
            host.run("ping -c 1 -w 5 198.51.100.1")
        yield Fleet(folder, {f"node{number}": host for number, host in enumerate(hosts, 1)})


def told(run: Run) -> set[str]:
    """The lines of a run's diffs."""
    return set(re.findall(r"^[+-]\w.*", run.out, re.MULTILINE))


def pods(fleet: Fleet) -> dict[str, str]:
    return {
        name: host.json("ip -j -4 -n web addr show eth0")[0]["addr_info"][0]["local"]
        for name, host in fleet.hosts.items()
    }
