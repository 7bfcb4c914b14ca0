"""What a lab needs of the machine it runs on, as Debian's and Ubuntu's package names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .process import LabError, run, say

# command: package
IMAGE = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
    "git": "git",
    "ip": "iproute2",
}
ROOTLESS = {"fakeroot": "fakeroot", "newuidmap": "uidmap"}
MACHINES = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
CONTAINERS = {"podman": "podman", "runc": "runc"}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing(kind: str) -> list[str]:
    """The packages that this machine lacks, in order."""
    needed = IMAGE | (CONTAINERS if kind == "container" else MACHINES)
    if os.geteuid() != 0:
        needed |= ROOTLESS
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    packages = [package for command, package in needed.items() if shutil.which(command, path=path) is None]
    if not KEYRING.exists():
        packages.append("debian-archive-keyring")
    return packages


def check(kind: str, *, install: bool) -> None:
    """Raises the one command that helps, or runs it where INSTALL allows."""
    packages = missing(kind)
    if not packages:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if not install or os.geteuid() != 0:
        raise LabError(f"these packages are missing. Install them, then repeat:\n    sudo {' '.join(command)}")
    say(f"installing {', '.join(packages)}")
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*quiet, "apt-get", "update", "--quiet"], what="apt-get update")
    run([*quiet, *command], what="apt-get install")
