# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict over the hosts of a play, from what each of them has registered."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.podnet.overlay.plugins.action import report

PASSED = {"namespace": "web", "address": "10.244.1.2", "size": 1480, "sent": 3, "received": 3, "ttl": 62, "error": ""}
PASSED["rtt_ms"] = {"min": 1.0, "avg": 1.0, "max": 1.0}
LOST = {**PASSED, "received": 0, "rtt_ms": None, "error": "no answer"}
PROBES = [{"namespace": "web", "targets": [{"address": "10.244.1.2", "pod": "db", "node": "node2"}]}]


def judge(
    capsys: pytest.CaptureFixture[str], registered: dict[str, Any], probes: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    task = MagicMock(args={"probes": probes}, async_val=0)
    task.environment = []
    action = report.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    hostvars = {node: {"podnet_ping": result} for node, result in registered.items()}
    result = action.run(task_vars={"hostvars": hostvars, "ansible_play_hosts_all": list(registered)})
    return result, capsys.readouterr().out


def test_all_paths_passed(capsys: pytest.CaptureFixture[str]) -> None:
    result, shown = judge(capsys, {"node1": {"paths": [PASSED]}}, {"node1": PROBES})
    assert not result.get("failed")
    assert result["summary"] == "1 of 1 paths, 1480 bytes with DF, 0 lost"
    assert result["rows"][0]["to"] == "db@node2"
    assert result["summary"] in shown


def test_loss_fails_and_names_the_node(capsys: pytest.CaptureFixture[str]) -> None:
    result, shown = judge(capsys, {"node1": {"paths": [LOST]}, "node2": {"paths": []}}, {"node1": PROBES, "node2": []})
    assert result["failed"]
    assert result["msg"] == "0 of 1 paths, 1480 bytes with DF, 3 lost: loss from node1"
    assert result["losses"][0] in shown


def test_a_host_without_result_fails_even_if_it_has_no_pods(capsys: pytest.CaptureFixture[str]) -> None:
    registered = {"node1": {"paths": [PASSED]}, "node2": {"unreachable": True, "msg": "timed out"}}
    result, shown = judge(capsys, registered, {"node1": PROBES, "node2": []})
    assert result["failed"]
    assert result["msg"].endswith("no result from node2")
    assert result["silent"] == {"node2": "unreachable: timed out"}
    assert "node2: unreachable: timed out" in shown


def test_hosts_outside_the_play_are_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    result, _shown = judge(capsys, {"node1": {"paths": [PASSED]}}, {"node1": PROBES, "node2": PROBES})
    assert not result.get("failed")


def test_nothing_to_verify_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="nothing was verified"):
        judge(capsys, {"node1": {"paths": []}}, {"node1": []})
