"""Machines move from real IPIP to another backend and back, node by node, and their pods talk on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.life.conftest import POD, Fleet, record

TRAIN = Path(__file__).parents[1] / "bench" / "train.py"
INTERVAL = 0.05
MOST = 0.01
"""Of the packets: an emulated machine that is short of a processor loses some by itself."""


@pytest.mark.soak
@pytest.mark.parametrize(("backend", "left"), [("host-gw", set()), ("ipip", {"flannel.ipip"})])
def test_no_packet_is_lost_on_the_way_to(fleet: Fleet, backend: str, left: set[str]) -> None:
    node1 = fleet.machine("node1")
    node1.send(TRAIN, "/root/train.py")
    command = f"ip netns exec web python3 /root/train.py {INTERVAL} {POD['node2']}"
    with subprocess.Popen(
        fleet.lab.ssh("node1", command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as train:
        done = fleet.play("overlay", "-e", f"overlay_backend={backend}", "-e", "overlay_serial=1")
        answer = json.loads(train.communicate("")[0])
    assert done.returncode == 0, done.stdout
    links = {line.split()[1].rstrip(":@") for line in node1.sh("ip -o link show type ipip").splitlines()}
    assert {link.partition("@")[0] for link in links} - {"tunl0"} == left
    lost = answer["sent"] - len(answer["answered"])
    record("life", f"packets lost on the way to {backend}, node by node", f"{lost} of {answer['sent']}")
    assert lost <= MOST * answer["sent"]
