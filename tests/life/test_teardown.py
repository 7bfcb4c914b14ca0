"""What is left on a host after teardown, against before its first converge: nothing."""

from __future__ import annotations

import difflib
import os

import pytest

from tests.life.conftest import Fleet, record

PACKAGES = ()
"""What packages that the overlay needs would leave; on these machines they are there already."""


def lines(text: str) -> list[str]:
    return sorted(line.rstrip() for line in text.splitlines() if line.strip())


@pytest.mark.skipif(
    "PODNET_LAB" in os.environ and "PODNET_LIFE_END" not in os.environ, reason="would end the overlay that stays"
)
def test_a_host_is_as_before(fleet: Fleet) -> None:
    done = fleet.play("teardown")
    assert done.returncode == 0, done.stdout
    for name in ("node1", "node2"):
        node = fleet.machine(name)
        left = difflib.ndiff(lines(node.sh("cat /root/before")), lines(node.sh("sh /root/everything.sh", timeout=200)))
        changes = [line for line in left if line[0] in "+-"]
        record("life", f"{name} after teardown, against before", "; ".join(changes) or "no difference")
        assert changes == []
