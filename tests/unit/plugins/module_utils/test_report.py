# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.podnet.overlay.plugins.module_utils import _report

PROBES = [{"namespace": "web", "targets": [{"address": "10.244.1.2", "pod": "db", "node": "node2"}]}]


def path(size: int, received: int = 3, address: str = "10.244.1.2") -> dict[str, Any]:
    return {
        "namespace": "web",
        "address": address,
        "size": size,
        "sent": 3,
        "received": received,
        "ttl": 62 if received else None,
        "rtt_ms": {"min": 1.0, "avg": 1.25, "max": 2.0} if received else None,
        "error": "" if received == 3 else "no answer",
    }


def test_the_table_of_a_small_fleet_names_every_path() -> None:
    rows = _report.rows("node1", PROBES, {"paths": [path(1480), path(84)]})
    assert _report.render(rows, {}, 40).splitlines() == [
        "from       to        address     84 B  1480 B DF  ttl    ms",
        "-----------------------------------------------------------",
        "web@node1  db@node2  10.244.1.2   3/3        3/3   62  1.25",
        "",
        "1 of 1 paths, 1480 bytes with DF, 0 lost",
    ]


def test_loss_is_told_by_size_and_reason() -> None:
    (row,) = _report.rows("node1", PROBES, {"paths": [path(84), path(1480, 1)]})
    assert not row.passed
    assert row.complaints == ["web@node1 to db@node2 10.244.1.2, 1480 bytes: 2 of 3 lost, no answer"]
    assert _report.summary([row]) == "0 of 1 paths, 1480 bytes with DF, 2 lost"


def test_a_path_without_result_has_not_passed() -> None:
    (row,) = _report.rows("node1", PROBES, {"unreachable": True, "msg": "no route"})
    assert not row.passed
    assert _report.summary([row]) == "0 of 1 paths, 0 lost, 1 not tried"
    assert "node1: unreachable" in _report.render([row], {"node1": "unreachable"}, 40)


def test_the_reason_of_a_silent_node_is_told() -> None:
    assert _report.trouble({"paths": []}) == ""
    assert _report.trouble({"unreachable": True, "msg": "Task failed: timed out\nand more"}) == "unreachable: timed out"
    assert _report.trouble({"failed": True, "msg": "raw sockets need root"}) == "failed: raw sockets need root"
    assert _report.trouble({}) == "was not asked, or failed before"


def test_a_large_fleet_shows_nodes_with_losses_first() -> None:
    rows = [
        row
        for number in range(100)
        for row in _report.rows(
            f"node{number}", PROBES, {"paths": [path(84), path(1480 - number % 2, 0 if number == 42 else 3)]}
        )
    ]
    lines = _report.render(rows, {}, 10).splitlines()
    assert lines[0] == "node    paths  lost    ms"
    assert lines[2] == "node42    0/1     3  1.25"
    assert "and 90 more nodes" in lines
    assert lines[-1] == "99 of 100 paths, 1479 to 1480 bytes with DF, 3 lost"
    assert len(lines) < 20
