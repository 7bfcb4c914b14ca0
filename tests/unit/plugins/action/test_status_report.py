# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fleet's status, from what each of its hosts has registered and from the leases file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.podnet.overlay.plugins.action import status_report

LEASES = """
version: 1
network: 10.244.0.0/16
nodes:
  node1: {subnet: 10.244.0.0/24, public_ip: 198.51.100.1}
  node2: {subnet: 10.244.1.0/24, public_ip: 198.51.100.2}
removed:
  node7: {subnet: 10.244.6.0/24, public_ip: 198.51.100.7, reason: playbook}
"""
SOUND = {"time": 1.0, "documents": [], "watcher": None, "probes": []}


@pytest.fixture
def leases(tmp_path: Path) -> Path:
    path = tmp_path / "leases.yml"
    path.write_text(LEASES)
    return path


def tell(
    capsys: pytest.CaptureFixture[str], registered: dict[str, Any], group: list[str] | None = None, **options: Any
) -> tuple[dict[str, Any], str]:
    task = MagicMock(args={key: str(value) for key, value in options.items()}, async_val=0)
    task.environment = []
    action = status_report.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    hostvars = {node: {"podnet_status": result} for node, result in registered.items()}
    variables = {
        "hostvars": hostvars,
        "ansible_play_hosts_all": list(registered),
        "groups": {"overlay": group or list(registered)},
    }
    return action.run(task_vars=variables), capsys.readouterr().out


def test_all_nodes_are_told_the_removed_ones_too(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    result, shown = tell(capsys, {"node1": SOUND, "node2": SOUND}, leases_file=leases)
    assert not result.get("failed")
    assert [(node["node"], node["state"]) for node in result["nodes"]] == [
        ("node1", "no overlay"),
        ("node2", "no overlay"),
        ("node7", "removed"),
    ]
    assert result["summary"] in shown


def test_under_limit_the_others_are_not_told(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    result, _shown = tell(capsys, {"node1": SOUND}, ["node1", "node2"], leases_file=leases)
    assert [node["node"] for node in result["nodes"]] == ["node1"]


def test_json_is_all_that_is_shown(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    result, shown = tell(capsys, {"node1": SOUND}, leases_file=leases, output="json")
    assert json.loads(shown) == {key: result[key] for key in ("version", "summary", "nodes")}


def test_a_host_that_does_not_answer_is_a_row_and_a_failure(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    registered = {"node1": SOUND, "node2": {"unreachable": True, "msg": "timed out"}}
    result, shown = tell(capsys, registered, leases_file=leases)
    assert result["failed"]
    assert result["msg"] == "no status from node2"
    assert "node2: unreachable: timed out" in shown


def test_it_works_without_leases_and_says_when_they_are_torn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert not tell(capsys, {"node1": SOUND}, leases_file=tmp_path / "none.yml")[0].get("failed")
    (tmp_path / "torn.yml").write_text("version: 1\n")
    result, _shown = tell(capsys, {"node1": SOUND}, leases_file=tmp_path / "torn.yml")
    assert result["failed"]
    assert "torn.yml" in result["msg"]
