"""Lab hosts for assertions: looked at with iproute2, nft and tcpdump, never with the code under test."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import testinfra

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / ".lab" / os.environ["PODNET_LAB"]
STATE = LAB / "state-before.json"

# Everything that an overlay may touch, as text that stays the same while nobody touches it, once IPv6 has found its addresses free.
LOOK = """
for try in $(seq 50); do ip -6 address show tentative | grep -q . || break; sleep 0.1; done
ip -d address | sed 's/ valid_lft .*//; s/^[0-9]*: /link /; s/ [a-z_]*_timer *[0-9.]*//g'
ip route show table all
ip -6 route show table all | grep -v ' expires '
ip rule
ip neigh show nud permanent
ip netns list
bridge vlan show
nft --stateless list ruleset
sysctl -a --pattern '^net[.]ipv[46][.](conf|ip_forward|neigh)' 2>/dev/null | grep -v -e stable_secret
find /etc/netns /etc/modules-load.d /etc/sysctl.d /etc/iproute2 /etc/podnet-overlay /var/lib/podnet-overlay /run/podnet-overlay* \
    /etc/systemd /etc/NetworkManager /usr/local /run/flannel /etc/docker 2>/dev/null | sort
find /etc/cni /etc/containers ! -type d ! -name '*.lock' 2>/dev/null | sort
true
"""


class Node:
    """One lab host."""

    def __init__(self, name, underlay):
        self.name = name
        self.public_ip = underlay.split("/")[0]
        self.host = testinfra.get_host(f"ssh://{name}", ssh_config=str(LAB / "ssh_config"), controlpersist=0)

    def run(self, command, *arguments):
        return self.host.run(command, *arguments)

    def json(self, command, *arguments):
        return json.loads(self.host.check_output(command, *arguments))

    def link(self, name, namespace=None):
        inside = f"-n {namespace} " if namespace else ""
        (link,) = self.json(f"ip {inside}-d -j address show dev {name}")
        return link

    def state(self):
        return self.host.check_output(LOOK).splitlines()

    def differences(self, before):
        """The lines of the state that came and went since BEFORE."""
        return [line for line in difflib.ndiff(before, self.state()) if line[0] in "+-"]


@pytest.fixture(scope="session")
def lab():
    return json.loads((LAB / "lab.json").read_text())


@pytest.fixture(scope="session")
def nodes(lab):
    return {host["name"]: Node(host["name"], host["underlay"][0]) for host in lab["hosts"]}


@pytest.fixture(scope="session")
def saved_state():
    """Where the state before the first converge is kept, for the comparison after teardown."""
    return STATE


@pytest.fixture(scope="session")
def playbook():
    """Plays a playbook of the product on the lab's hosts, however it ends."""

    def run(name, *arguments):
        command = ["ansible-playbook", "-i", "inventories/lab", f"playbooks/{name}.yml", *arguments]
        plain = os.environ | {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(command, cwd=CHECKOUT, env=plain, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def play(playbook):
    """Plays one that is to succeed; returns what it printed and how many changes it counts on each host."""

    def run(name, *arguments):
        done = playbook(name, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        recap = done.stdout.rpartition("PLAY RECAP")[2]
        return done.stdout, {
            name: int(count) for name, count in re.findall(r"^(\S+)\s.*changed=(\d+)", recap, re.MULTILINE)
        }

    return run
