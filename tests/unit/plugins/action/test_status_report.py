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
VARIABLES = {
    "node1": {"overlay_public_ip": "198.51.100.1"},
    "node2": {"overlay_public_ip": "198.51.100.2"},
}
SOUND = {"time": 1.0, "documents": [], "watcher": None, "probes": []}


class Hostvars(dict[str, dict[str, Any]]):
    raw_get = dict.__getitem__


@pytest.fixture
def leases(tmp_path: Path) -> Path:
    path = tmp_path / ".overlay-leases.yml"
    path.write_text(LEASES)
    return path


def tell(
    capsys: pytest.CaptureFixture[str],
    registered: dict[str, Any],
    leases: Path,
    group: list[str] | None = None,
    also: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[dict[str, Any], str]:
    """What it says of an inventory beside LEASES. ALSO: further variables of the group."""
    task = MagicMock(args={key: str(value) for key, value in options.items()}, async_val=0)
    task.environment = []
    templar = MagicMock()
    templar.copy_with_new_env.return_value.template = lambda value: value
    action = status_report.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), templar, MagicMock())
    common = {"inventory_dir": str(leases.parent), **(also or {})}
    hostvars = Hostvars({node: {**common, **VARIABLES[node]} for node in group or registered})
    for node, result in registered.items():
        hostvars[node]["podnet_status"] = result
    variables = {
        "hostvars": hostvars,
        "ansible_play_hosts_all": list(registered),
        "groups": {"overlay": group or list(registered)},
    }
    return action.run(task_vars=variables), capsys.readouterr().out


def test_all_nodes_are_told_the_removed_ones_too(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    result, shown = tell(capsys, {"node1": SOUND, "node2": SOUND}, leases)
    assert not result.get("failed")
    assert [(node["node"], node["state"]) for node in result["nodes"]] == [
        ("node1", "no overlay"),
        ("node2", "no overlay"),
        ("node7", "removed"),
    ]
    assert result["summary"] in shown


def test_under_limit_the_others_are_not_told(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    result, _shown = tell(capsys, {"node1": SOUND}, leases, ["node1", "node2"])
    assert [node["node"] for node in result["nodes"]] == ["node1"]


def test_json_is_all_that_is_shown(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    result, shown = tell(capsys, {"node1": SOUND}, leases, output="json")
    assert json.loads(shown) == {key: result[key] for key in ("version", "summary", "mistakes", "nodes")}


def test_a_host_that_does_not_answer_is_a_row_and_a_failure(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    registered = {"node1": SOUND, "node2": {"unreachable": True, "msg": "timed out"}}
    result, shown = tell(capsys, registered, leases)
    assert result["failed"]
    assert result["msg"] == "no status from node2"
    assert "node2: unreachable: timed out" in shown


DOCUMENT = {"name": "overlay", "subnet": "10.244.0.0/24", "public_ip": "198.51.100.1", "error": ""}
SENDS = {"backend": "ipip", "tunnel": "flannel.ipip", "direct_routing": False, "vni": None, "port": None}
JOINED = {**SOUND, "documents": [{**DOCUMENT, "sends": SENDS}]}


def test_without_a_leases_file_nobody_has_a_lease(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result, _shown = tell(capsys, {"node1": JOINED}, tmp_path / "none.yml")
    assert result["nodes"][0]["remarks"] == ["has no lease: run overlay.yml on it"]
    assert not result["mistakes"]


def test_nodes_are_compared_with_the_inventorys_backend(capsys: pytest.CaptureFixture[str], leases: Path) -> None:
    assert tell(capsys, {"node1": JOINED}, leases)[0]["nodes"][0]["state"] == "ok"
    result, _shown = tell(capsys, {"node1": JOINED}, leases, also={"overlay_backend": "host-gw"})
    assert result["nodes"][0]["remarks"] == ["sends by ipip, and the inventory says host-gw: run overlay.yml on it"]


@pytest.mark.parametrize(
    ("also", "mistake"),
    [
        ({"overlay_public_ip": "198.51.100.9"}, "node2: overlay_public_ip: 198.51.100.9 is also that of node1"),
        ({"overlay_network": "10.99.0.0/16"}, "10.244.0.0/16 is not overlay_network 10.99.0.0/16"),
        ({"overlay_network": "10.99"}, "overlay: overlay_network: "),
        ({"overlay_net_conf": "none.json"}, "overlay: overlay_net_conf: "),
    ],
)
def test_a_mistake_in_the_inventory_is_told_beside_the_nodes(
    capsys: pytest.CaptureFixture[str],
    leases: Path,
    monkeypatch: pytest.MonkeyPatch,
    also: dict[str, Any],
    mistake: str,
) -> None:
    monkeypatch.setattr(f"{__name__}.VARIABLES", {"node1": {}, "node2": {}})
    result, shown = tell(capsys, {"node1": JOINED, "node2": SOUND}, leases, also=also)
    assert not result.get("failed")
    assert [node["state"] for node in result["nodes"]] == ["ok", "no overlay", "removed"]
    assert any(mistake in line for line in result["mistakes"])
    assert f"\ninventory: {result['mistakes'][0]}\n" in shown


def test_torn_leases_are_told_and_nothing_is_compared_with_them(
    capsys: pytest.CaptureFixture[str], leases: Path
) -> None:
    leases.write_text("version: 1\n")
    result, shown = tell(capsys, {"node1": JOINED}, leases)
    assert not result.get("failed")
    assert [(node["state"], node["remarks"]) for node in result["nodes"]] == [("ok", [])]
    assert f"inventory: {leases}: network: is missing" in shown
