"""`make demo`: hosts with kernels of their own, the overlay on them, and the proof that it carries packets."""

from __future__ import annotations

import os
import subprocess
import time

from . import labs, machines
from .process import LabError, say

NAME = "demo"
INVENTORY = "inventories/lab"


def demo() -> None:
    """Makes the demo's lab and plays overlay.yml and verify.yml on it. The hosts stay, to be looked at."""
    began = time.monotonic()
    lab = labs.up(NAME, 3, "vm", 1)
    for playbook, purpose in (("overlay", "making the overlay"), ("verify", "pinging between all pods")):
        say(f"{purpose}: ansible-playbook -i {INVENTORY} playbooks/{playbook}.yml")
        _play(f"playbooks/{playbook}.yml")
    print(_closing(lab, time.monotonic() - began))


def _play(playbook: str) -> None:
    environment = os.environ | {"PODNET_LAB": NAME}
    command = ["ansible-playbook", "-i", INVENTORY, playbook]
    if subprocess.run(command, cwd=labs.CHECKOUT, env=environment, check=False).returncode:
        raise LabError(
            f"{playbook} failed; what is wrong stands above. The hosts are still up:\n"
            "    make demo-shell HOST=node1    to look at one\n"
            "    make demo                     to begin again with new hosts\n"
            "    make demo-down                to end them"
        )


def _closing(lab: labs.Lab, seconds: float) -> str:
    kernel = subprocess.run(lab.ssh("node1", "uname", "-r"), capture_output=True, text=True, check=True).stdout.strip()
    hosts = "\n".join(f"    {host.name}  {host.underlay[0]}" for host in lab.hosts)
    return f"""
Made in {seconds:.0f} s: {len(lab.hosts)} machines under QEMU ({machines.accelerator()}) with kernel {kernel},
two pods on each, joined by the {lab.backend} backend.
{hosts}

To look further:
    make demo-shell HOST=node1                        a shell on a host; there for example
        ip -d address show flannel.ipip                   the tunnel
        ip route show dev flannel.ipip                    a route for each other host
        ip netns exec web ping 10.244.13.10               from pod web to pod db of node3
        tcpdump -ni eth1 proto 4                          the packets of the tunnel on the wire
    .venv/bin/ansible-playbook -i {INVENTORY} playbooks/overlay.yml --check --diff
                                                      what it would change (nothing; break something, and see)
    .venv/bin/ansible-playbook -i {INVENTORY} playbooks/teardown.yml
                                                      the hosts as they were before
    make demo-down                                    ends the hosts
"""
