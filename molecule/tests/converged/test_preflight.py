"""playbooks/preflight.yml beside a live overlay: real packets between any two hosts, and nothing left behind."""

from __future__ import annotations

import json
import re

NAMES = {"ipip": "ip protocol 4", "vxlan": "udp dport 8472"}


def test_who_drops_the_tunnels_packets_is_told_and_nothing_is_changed(playbook, nodes, lab):
    nodes["node3"].host.check_output(
        "nft 'table inet site { chain input { type filter hook input priority 0; %s drop; }; }'", NAMES[lab["backend"]]
    )
    try:
        before = {name: node.state() for name, node in nodes.items()}
        done = playbook("preflight", "-e", "output=json")
        changed = {name: node.differences(before[name]) for name, node in nodes.items()}
    finally:
        nodes["node3"].run("nft delete table inet site")

    found = re.search(r"^\{$.*?^\}$", done.stdout, re.DOTALL | re.MULTILINE)
    assert found, done.stdout + done.stderr
    answer = json.loads(found[0])
    assert done.returncode == 2
    assert answer["paths"] == {"tried": 6, "whole": 4}
    (error,) = [item for item in answer["findings"] if item["level"] == "error"]
    assert error["host"] == "node3"
    assert " from any other host to node3: table inet site chain input: " in error["blocker"]
    assert changed == {name: [] for name in nodes}
