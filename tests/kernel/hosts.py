"""Hosts for the kernel tests: a network namespace with its own /run, /etc, /var/lib and /usr/local."""

from __future__ import annotations

import ctypes
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = "ansible_collections.podnet.overlay.plugins.modules"
PRIVATE = (
    "mount -t tmpfs none /run && mkdir /run/netns /run/etc && cp -a /etc/. /run/etc && mount --bind /run/etc /etc"
    " && mkdir -p /run/local/upper /run/local/work"
    " && mount -t overlay -o lowerdir=/usr/local,upperdir=/run/local/upper,workdir=/run/local/work none /usr/local"
    " && mount -t tmpfs none /var/lib && ip link set lo up"
    # What configures this machine's links is none of the host's.
    " && rm -f /etc/systemd/system/*.wants/systemd-networkd.service"
    " && if [ -e /usr/sbin/NetworkManager ]; then mount --bind /dev/null /usr/sbin/NetworkManager; fi"
    " && echo ready && exec sleep infinity"
)
FORK = multiprocessing.get_context("fork")
"""A module costs a fork, and not a start of Python with all its imports."""


@dataclass(frozen=True)
class Host:
    """A host that lives in namespaces of its own, entered through the process *pid*."""

    pid: int

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on the host."""
        entering = [
            "nsenter",
            f"--mount=/proc/{self.pid}/ns/mnt",
            f"--net=/proc/{self.pid}/ns/net",
            f"--wdns={CHECKOUT}",
        ]
        return subprocess.Popen(
            [*entering, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command on the host; ``host.run("ip link")`` is split at spaces."""
        command = words[0].split() if len(words) == 1 else list(words)
        process = self.popen(*command)
        out, err = process.communicate(timeout=60)
        assert not check or process.returncode == 0, f"{command}: {err}{out}"
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def json(self, *words: str) -> Any:
        """What a command such as ``ip -j link`` prints, decoded."""
        return json.loads(self.run(*words).stdout or "[]")

    def links(self, namespace: str = "") -> set[str]:
        """The names of the links, without what the kernel's tunnel modules put into every namespace."""
        found = self.json(*["ip", "-j", *(["-n", namespace] if namespace else []), "link"])
        return {item["ifname"] for item in found} - {"tunl0"}

    def sh(self, script: str) -> str:
        """Run a shell script on the host."""
        return self.run("sh", "-euc", script).stdout

    def module(self, name: str, /, *, check: bool = False, fails: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run one of the collection's modules on the host, as Ansible would; its answer."""
        arguments["_ansible_check_mode"] = check
        arguments["_ansible_diff"] = True
        main = importlib.import_module(f"{MODULES}.{name}").main
        with tempfile.NamedTemporaryFile("w+", suffix=".json") as file, tempfile.TemporaryFile("w+") as output:
            json.dump({"ANSIBLE_MODULE_ARGS": arguments}, file)
            file.flush()
            process = FORK.Process(target=_inside, args=(self.pid, main, file.name, output))
            process.start()
            process.join(60)
            process.kill()
            process.join()
            output.seek(0)
            out = output.read()
        assert out.strip(), f"{name} ended with {process.exitcode}"
        answer: dict[str, Any] = json.loads(out)
        assert bool(answer.get("failed")) == fails, answer.get("msg")
        return answer


def _inside(pid: int, main: Callable[[], None], arguments: str, output: TextIO) -> None:
    """In a process of its own: enter the host *pid* and run a module's *main* there."""
    for name in ("net", "mnt"):
        descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        assert ctypes.CDLL(None).setns(descriptor, 0) == 0
    os.chdir(CHECKOUT)
    sys.argv[1:] = [arguments]
    sys.stdout = output
    main()


def started() -> Iterator[Host]:
    process = subprocess.Popen(["unshare", "-mn", "sh", "-c", PRIVATE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Host(process.pid)
    finally:
        process.kill()
        process.wait()
