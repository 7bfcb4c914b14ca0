"""Hosts for the kernel tests: a network namespace with its own /run, /etc and /var/lib, as shared/lab.md calls the seed's own trick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
MODULES = "ansible_collections.podnet.overlay.plugins.modules"
PRIVATE = (
    "mount -t tmpfs none /run && mkdir /run/netns /run/etc && cp -a /etc/. /run/etc && mount --bind /run/etc /etc"
    " && mount -t tmpfs none /var/lib && ip link set lo up && echo ready && exec sleep infinity"
)


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

    def sh(self, script: str) -> str:
        """Run a shell script on the host."""
        return self.run("sh", "-euc", script).stdout

    def module(self, name: str, /, *, check: bool = False, fails: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run one of the collection's modules on the host, as Ansible would; its answer."""
        arguments["_ansible_check_mode"] = check
        arguments["_ansible_diff"] = True
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"ANSIBLE_MODULE_ARGS": arguments}, file)
            file.flush()
            path = os.pathsep.join(
                part for part in (os.environ.get("PYTHONPATH", ""), str(CHECKOUT / ".collections")) if part
            )
            process = self.popen(
                sys.executable, "-m", f"{MODULES}.{name}", file.name, env={**os.environ, "PYTHONPATH": path}
            )
            out, err = process.communicate(timeout=60)
        assert out.strip(), err
        answer: dict[str, Any] = json.loads(out)
        assert bool(answer.get("failed")) == fails, answer.get("msg")
        return answer


def started() -> Iterator[Host]:
    process = subprocess.Popen(["unshare", "-mn", "sh", "-c", PRIVATE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Host(process.pid)
    finally:
        process.kill()
        process.wait()
