"""What is left on a host after teardown, against before its first converge: nothing."""

from __future__ import annotations

import difflib
import os
import re

import pytest

from tests.life.conftest import Fleet, record

# What the kernel loads by itself for a bridge and for rules, with its settings; the folder that iproute2 makes and keeps; this lab's.
NOT_OURS = re.compile(
    r"(bridge|llc|stp|veth|ip_tunnel|tunnel4|nf_\w+|nft_\w+|nfnetlink\w*|x_tables|libcrc32c|crc\w+|ip_set\w*)$"
    r"|net[.]netfilter[.]|net[.]nf_conntrack|net[.]bridge[.]|/run/netns$|/run/measure|/run/writes"
)


def lines(text: str) -> list[str]:
    return sorted(line.rstrip() for line in text.splitlines() if line.strip() and not NOT_OURS.match(line))


@pytest.mark.skipif(
    "PODNET_LAB" in os.environ and "PODNET_LIFE_END" not in os.environ, reason="would end the overlay that stays"
)
def test_a_host_is_as_before(fleet: Fleet) -> None:
    done = fleet.play("teardown")
    assert done.returncode == 0, done.stdout
    everything = []
    for name in ("node1", "node2"):
        node = fleet.machine(name)
        left = difflib.ndiff(lines(node.sh("cat /root/before")), lines(node.sh("sh /root/everything.sh", timeout=200)))
        changes = [line for line in left if line[0] in "+-"]
        record("life", f"{name} after teardown, against before", "; ".join(changes) or "no difference")
        everything += changes
    assert everything == []
