"""A host that boots, or has lost its power while it was changed, has its overlay again without a controller."""

from __future__ import annotations

import difflib
import random
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _leases

from lab import labs
from tests.life.conftest import POD, Fleet, Machine, look, record

pytestmark = pytest.mark.soak  # minutes each

PATIENCE = 420.0
"""Seconds an emulated machine may take to boot, on a busy one."""
WRITES = """
import ipaddress, shutil, sys
shutil.copytree("/usr/local/lib/podnet-overlay", "/root/engine", dirs_exist_ok=True)
shutil.copy("/root/_leases.py", "/root/engine/podnet_overlay")
sys.path.insert(0, "/root/engine")
from podnet_overlay import _engine, _leases, _state

document = dict(_state.load("overlay").document)
subnets = list(ipaddress.ip_network("10.244.0.0/16").subnets(new_prefix=24))
number = 0
print("writing", flush=True)
while True:  # another route each time: both the document and the kernel change; and the leases of a fleet, as a controller writes them
    number = number % 200 + 1
    route = {"dst": "192.0.2.%d/32" % number, "type": "blackhole"}
    changed = {**document, "routes": [*(each for each in document["routes"] if each["dst"][:7] != "192.0.2"), route]}
    _engine.converge(_state.desired_state(changed, "overlay"), owner="overlay", document=changed)
    nodes = {"node%d" % each: _leases.Lease(subnets[each], "192.0.2.%d" % number) for each in range(200)}
    _leases.save("/root/leases.yml", _leases.Leases(ipaddress.ip_network("10.244.0.0/16"), nodes))
    print(number, flush=True)
"""
SYNC = "sync; sleep 1"


def boot_of(node: Machine) -> str:
    return node.sh("cat /proc/sys/kernel/random/boot_id").strip()


def booted(node: Machine, boot: str, began: float) -> float:
    """Wait for another boot than BOOT and for the overlay; the seconds since BEGAN."""
    ssh = ["ssh", "-F", str(node.lab.ssh_config)]
    subprocess.run([*ssh, "-O", "exit", node.name], capture_output=True, check=False)  # that connection is dead
    script = "cat /proc/sys/kernel/random/boot_id; systemctl is-active podnet-overlay podnet-overlay-watch"
    said = ""
    while time.monotonic() < began + PATIENCE:
        try:
            said = node.run(script, timeout=30).stdout
        except subprocess.TimeoutExpired:
            continue
        if said and boot not in said and said.split()[1:] == ["active", "active"]:
            return time.monotonic() - began
        time.sleep(1)
    raise AssertionError(f"{node.name} is not back after {PATIENCE:.0f} s: {said}")


def cut_power(node: Machine) -> tuple[str, int]:
    """The machine loses its power while documents and leases are written; its boot until then, and the seed of the moment."""
    seed = time.time_ns() % 100000
    node.send(Path(_leases.__file__), "/root/_leases.py")
    node.sh(f"cat >/root/writes.py <<'END'\n{WRITES}\nEND\n{SYNC}")
    boot = boot_of(node)
    node.sh(
        "python3 /root/writes.py >/run/writes 2>&1 </dev/null &"
        " for _ in $(seq 600); do [ $(wc -l </run/writes) -ge 3 ] && exit; sleep 0.1; done; cat /run/writes; exit 1"
    )
    time.sleep(random.Random(seed).uniform(0, 3))
    labs.cut_power(node.lab, node.name)
    return boot, seed


@dataclass(frozen=True)
class Down:
    """Both machines have gone down at once: one was told to, the other lost its power."""

    began: float
    before: list[str]
    boot: str
    cut: tuple[str, int]


@pytest.fixture(scope="module")
def down(fleet: Fleet) -> Down:
    node1, node2 = fleet.machine("node1"), fleet.machine("node2")
    before, boot = look(node1), boot_of(node1)
    cut = cut_power(node2)
    node1.run("(sleep 1; systemctl reboot) >/dev/null 2>&1 &")
    return Down(time.monotonic(), before, boot, cut)


def test_after_a_reboot_all_is_as_before(node1: Machine, down: Down) -> None:
    seconds = booted(node1, down.boot, down.began)
    changes = [line for line in difflib.ndiff(down.before, look(node1)) if line[0] in "+-"]
    assert changes == []
    node1.sh("podnet-overlay diff")
    took = node1.sh("systemd-analyze critical-chain podnet-overlay.service --no-pager | grep podnet-overlay.service")
    own = re.search(r"\+(.+)", took)
    record("life", "reboot until the overlay is there", f"{seconds:.0f} s; its unit {own[1] if own else '?'}")


def test_at_boot_the_underlay_comes_first_and_containers_later(node1: Machine) -> None:
    after = node1.sh("systemctl show -P After podnet-overlay").split()
    assert {"network-online.target", "systemd-networkd.service", "NetworkManager.service", "firewalld.service"} <= {
        *after
    }
    assert "podnet-overlay.service" in node1.sh("systemctl show -P After docker.service").split()
    moments = node1.sh(
        "systemctl show -P ActiveEnterTimestampMonotonic systemd-networkd podnet-overlay podnet-overlay-watch"
    ).split()
    assert sorted(moments, key=int) == moments


@pytest.mark.parametrize("number", [1, *(pytest.param(each, marks=pytest.mark.soak) for each in (2, 3, 4, 5))])
def test_power_lost_in_the_middle_of_a_change_tears_nothing(
    fleet: Fleet, node2: Machine, down: Down, number: int
) -> None:
    boot, seed = down.cut if number == 1 else cut_power(node2)
    seconds = booted(node2, boot, down.began if number == 1 else time.monotonic())
    for folder in ("/etc/podnet-overlay", "/var/lib/podnet-overlay"):
        node2.sh(
            f"for file in {folder}/*.json; do python3 -m json.tool <$file >/dev/null; done; ! ls -A {folder} | grep -v json$"
        )
    leases = _leases.parse(node2.sh("cat /root/leases.yml"), "leases.yml")
    assert len(leases.nodes) == 200
    assert len({lease.public_ip for lease in leases.nodes.values()}) == 1
    node2.sh("podnet-overlay diff")  # whichever document it was, that it has
    done = fleet.play("overlay")
    assert done.returncode == 0, done.stdout
    assert "192.0.2" not in node2.sh("ip route")
    done = fleet.play("overlay")
    assert re.search(r"node2 .* changed=0 ", done.stdout), done.stdout
    node2.sh(f"ip netns exec web ping -n -q -c 3 -i 0.3 -W 5 {POD['node1']}")
    record("life", f"power lost in the middle of a change (seed {seed})", f"nothing torn; back after {seconds:.0f} s")
