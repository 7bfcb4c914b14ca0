"""Lab hosts as Podman containers with systemd: quick, as root, on the machine's own kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from ipaddress import IPv4Network

from .image import Image
from .process import LabError, run, say

REPOSITORY = "localhost/podnet-lab"


def carry_ipip() -> bool:
    """Whether containers here can have IPIP devices: root, Podman, and a kernel that makes one in a throw-away namespace."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        return False
    test = ["unshare", "--net", "ip", "link", "add", "probe0", "type", "ipip", "local", "192.0.2.1"]
    return run(test, what="probing for ipip", check=False).returncode == 0


def prepare(lab: str, image: Image, networks: tuple[IPv4Network, ...]) -> IPv4Network:
    """Podman's image and the lab's two bridges; returns the first of NETWORKS that no other lab has."""
    if os.geteuid() != 0:
        raise LabError("containers that change networking need root. Ask for machines, which do not: --kind vm.")
    _import(image)
    _podman("network", "create", "--disable-dns", _network(lab, "management"))
    create = ("network", "create", "--internal", "--disable-dns", _network(lab, "underlay"))
    for network in networks:
        if _podman(*create, f"--subnet={network}", check=False).returncode == 0:
            return network
    taken = ", ".join(map(str, networks))
    raise LabError(
        f"no network is free for the underlay of lab {lab}: {taken} are taken. End another lab of containers."
    )


def _import(image: Image) -> None:
    """The image in Podman's store, instead of those of former recipes that no container uses."""
    if _podman("image", "exists", _tag(image), check=False).returncode:
        say("importing the image into Podman")
        _podman("import", str(image.archive), _tag(image))
        for tag in _podman("images", "--format={{.Repository}}:{{.Tag}}", REPOSITORY).stdout.split():
            if tag != _tag(image):
                _podman("rmi", tag, check=False)


def start(lab: str, image: Image, host: str, address: str) -> None:
    """Starts one container with systemd as its first process."""
    _podman(
        *("run", "--detach", f"--name={_name(lab, host)}", f"--hostname={host}", "--privileged", "--systemd=always"),
        *("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096", f"--label=podnet-lab={lab}"),
        f"--network={_network(lab, 'management')}:interface_name=eth0",
        f"--network={_network(lab, 'underlay')}:interface_name=eth1,ip={address}",
        *(_tag(image), "/sbin/init"),
    )


def address(lab: str, host: str) -> str:
    """The management address that Podman gave to a host."""
    (found,) = json.loads(_podman("inspect", _name(lab, host)).stdout)
    return str(found["NetworkSettings"]["Networks"][_network(lab, "management")]["IPAddress"])


def down(lab: str) -> None:
    """Removes the lab's containers and bridges. Safe to repeat."""
    there = _podman("ps", "--all", "--quiet", f"--filter=label=podnet-lab={lab}").stdout.split()
    if there:
        _podman("rm", "--force", "--time=0", "--volumes", *there)
    for which in ("management", "underlay"):
        if _podman("network", "exists", _network(lab, which), check=False).returncode == 0:
            _podman("network", "rm", "--force", _network(lab, which))


def is_running(lab: str) -> bool:
    return bool(_podman("ps", "--quiet", f"--filter=label=podnet-lab={lab}").stdout)


def _podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    # crun refuses hosts with hybrid cgroups; runc does not.
    runtime = ["--runtime=runc"] if shutil.which("runc") else []
    return run(["podman", *runtime, *words], what=f"podman {words[0]}", check=check)


def _tag(image: Image) -> str:
    return f"{REPOSITORY}:{image.key}"


def _name(lab: str, host: str) -> str:
    return f"podnet-lab-{lab}-{host}"


def _network(lab: str, which: str) -> str:
    return f"podnet-lab-{lab}-{which}"
