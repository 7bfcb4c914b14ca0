"""A change that cuts a host off from its controller is undone by the host itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab import labs
from tests.life.conftest import INVENTORY, POD, Fleet, Machine, record

TIMEOUT = 15
CONTROLLER = "10.0.2.2"
"""Where ssh comes from on a lab's machine."""


def test_a_change_that_cuts_the_host_off_is_undone_by_the_host(fleet: Fleet, node1: Machine) -> None:
    arguments = {
        "name": "cut",
        "document": {"routes": [{"dst": f"{CONTROLLER}/32", "type": "blackhole"}]},
        "confirm_timeout": TIMEOUT,
    }
    ansible = Path(sys.executable).parent / "ansible"
    since = node1.sh("date +%s").strip()
    began = time.monotonic()
    done = subprocess.run(
        [str(ansible), "-i", INVENTORY, "node1", "-m", "podnet.overlay.topology", "-a", json.dumps(arguments)],
        cwd=labs.CHECKOUT,
        env={**os.environ, "PODNET_LAB": fleet.lab.name},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode != 0, done.stdout
    node1.sh(
        f"for _ in $(seq 60); do journalctl -t podnet-overlay --since @{since} -o cat --no-pager | grep 'cut: .*undone' && exit;"
        "sleep 1; done; exit 1",
        timeout=240,
    )
    seconds = time.monotonic() - began
    told = node1.sh(f"journalctl -t podnet-overlay --since @{since} -o cat --no-pager")
    assert f"document cut: its last change was not confirmed within {TIMEOUT} s, and is undone" in told
    assert "blackhole" not in node1.sh("ip route")
    assert node1.sh("ls /etc/podnet-overlay /var/lib/podnet-overlay").split().count("cut.json") == 0
    node1.sh("podnet-overlay diff")
    record(
        "life",
        f"a change that cuts ssh, to be confirmed within {TIMEOUT} s",
        f"undone by the host; {seconds:.0f} s in all",
    )


def test_a_change_of_two_hosts_is_confirmed_over_new_connections(fleet: Fleet) -> None:
    """Over ssh with ControlPersist, as users have it: the connection that the change was made through tells nothing."""
    for mtu in (1400, 1480):
        done = fleet.play("overlay", "-e", "overlay_confirm_timeout=60", "-e", f"overlay_mtu={mtu}", "-vvv")
        assert done.returncode == 0, done.stdout[-9000:]
        assert done.stdout.count("sending connection stop") >= len(POD)
        for name in POD:
            node = fleet.machine(name)
            assert node.sh("cat /sys/class/net/cni0/mtu") == f"{mtu}\n"
            assert node.run("ls /var/lib/podnet-overlay/rollback").returncode != 0
