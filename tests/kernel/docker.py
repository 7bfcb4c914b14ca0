"""A real Docker on a host of the kernel tests: its daemon with that host's /etc/docker/daemon.json, and all its state there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.kernel.hosts import CHECKOUT, Host

FOLDER = CHECKOUT / ".cache" / "docker" / "usr"
"""Where ``make`` unpacks Debian's."""
PATH = f"{FOLDER}/bin:{FOLDER}/sbin:{os.environ.get('PATH', '')}"
PATIENCE = 30.0
SOCKET, LOG = "/run/docker.sock", "/run/docker.log"
# overlayfs does not stand on overlayfs, and systemd is not everywhere.
DAEMON = (
    "dockerd --storage-driver=vfs --exec-opt=native.cgroupdriver=cgroupfs --data-root=/run/docker-data"
    f" --exec-root=/run/docker-exec --host=unix://{SOCKET} --pidfile=/run/docker.pid"
)
IMAGE = "podnet-test"


def lacks() -> str:
    """What Docker lacks here to be run, or nothing."""
    return ", ".join(name for name in ("dockerd", "runc", "busybox") if not shutil.which(name, path=PATH))


@dataclass(frozen=True)
class Docker:
    """A running daemon."""

    host: Host
    words = ("env", f"PATH={PATH}", "docker", f"--host=unix://{SOCKET}")

    def __call__(self, *words: str) -> str:
        """Run a ``docker`` command; what it prints."""
        return self.host.run(*self.words, *words).stdout.strip()

    def start(self, name: str, *options: str) -> str:
        """A container that sleeps; the address it got. Its network namespace is in the host's /run/netns as *name*."""
        self("run", "--detach", "--name", name, *options, IMAGE, "/bin/sleep", "1000")
        self.host.sh(f"ip netns attach {name} {self('inspect', '--format', '{{.State.Pid}}', name)}")
        return self("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name)

    def remove(self, name: str) -> None:
        self.host.run("ip", "netns", "del", name)
        self("rm", "--force", name)


@contextmanager
def running(host: Host) -> Iterator[Docker]:
    """The daemon on *host*, with an image that holds busybox; its containers end with it."""
    docker = Docker(host)
    group = f"podnet-{host.pid}"
    command = f"exec {DAEMON} --cgroup-parent={group} >{LOG} 2>&1"
    daemon = host.popen("sh", "-c", command, env={**os.environ, "PATH": PATH})
    try:
        deadline = time.monotonic() + PATIENCE
        while host.run(*docker.words, "version", check=False).returncode:
            ended = daemon.poll() is not None or time.monotonic() > deadline
            assert not ended, host.run("cat", LOG, check=False).stdout
            time.sleep(0.1)
        host.sh(
            f"mkdir -p /run/image/bin; cp {shutil.which('busybox')} /run/image/bin/; ln -s busybox /run/image/bin/sleep;"
            f"tar -C /run/image -c . | {' '.join(docker.words)} import - {IMAGE}"
        )
        yield docker
    finally:
        daemon.terminate()
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            raise
        host.sh(f"find /sys/fs/cgroup -depth -type d -path '*/{group}*' -exec rmdir {{}} +")
