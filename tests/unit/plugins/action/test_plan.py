# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan as a task: variables, facts and the leases file in, documents and the leases file out."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.podnet.overlay.plugins.action import plan

from ..module_utils import fleet


class Fleet:
    """Three hosts with an inventory in a folder, and a controller that runs plan on them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.leases = folder / ".overlay-leases.yml"
        self.variables: dict[str, dict[str, Any]] = {
            name: {**own, "inventory_dir": str(folder), "podnet_node": fleet.answer(int(name[4:]))}
            for name, own in fleet.variables(3).items()
        }

    def run(
        self,
        state: str = "present",
        play: Sequence[str] = (),
        *,
        check: bool = False,
        diff: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        task = MagicMock(args={"state": state, **options}, async_val=0, check_mode=check, diff=diff)
        task.environment = []
        templar = MagicMock()
        templar.copy_with_new_env.return_value.template = lambda value: value
        action = plan.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), templar, MagicMock())
        hostvars = MagicMock(raw_get=self.variables.__getitem__)
        names = list(self.variables)
        return action.run(
            task_vars={
                "hostvars": hostvars,
                "groups": {"overlay": names},
                "ansible_play_hosts": list(play or names),
                "ansible_play_hosts_all": list(play or names),
            }
        )


@pytest.fixture
def hosts(tmp_path: pathlib.Path) -> Fleet:
    return Fleet(tmp_path)


def test_the_first_run_writes_the_leases_and_the_second_changes_nothing(hosts: Fleet) -> None:
    first = hosts.run(diff=True)
    assert first["changed"]
    assert first["diff"][0]["before"] == ""
    assert first["diff"][0]["after"] == hosts.leases.read_text()
    assert sorted(first["documents"]) == ["node1", "node2", "node3"]
    second = hosts.run(diff=True)
    assert not second["changed"]
    assert "diff" not in second
    assert second["documents"] == first["documents"]
    assert list(hosts.folder.iterdir()) == [hosts.leases]


def test_only_a_change_takes_the_lock(hosts: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.run()
    taken, locked = [], plan._leases.locked
    monkeypatch.setattr(plan._leases, "locked", lambda path: taken.append(path) or locked(path))
    assert not hosts.run()["changed"]
    assert not taken
    del hosts.variables["node3"]
    assert hosts.run()["changed"]
    assert taken == [str(hosts.leases)]


def test_leases_that_another_run_gave_meanwhile_are_kept(hosts: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.run()
    theirs = hosts.leases.read_text().replace("10.244.2.", "10.244.9.")
    hosts.leases.unlink()
    locked = plan._leases.locked

    def late(path: str) -> Any:
        hosts.leases.write_text(theirs)
        return locked(path)

    monkeypatch.setattr(plan._leases, "locked", late)
    result = hosts.run()
    assert not result["changed"]
    assert hosts.leases.read_text() == theirs
    assert "10.244.9.0/24" in result["peers"]


def test_check_mode_says_what_it_would_write_and_writes_nothing(hosts: Fleet) -> None:
    result = hosts.run(check=True, diff=True)
    assert result["changed"]
    assert "node3" in result["diff"][0]["after"]
    assert not list(hosts.folder.iterdir())


def test_a_limited_run_has_documents_of_its_hosts_and_peers_of_all(hosts: Fleet) -> None:
    hosts.run()
    for name in ("node2", "node3"):
        del hosts.variables[name]["podnet_node"]
    result = hosts.run(play=["node1"])
    assert list(result["documents"]) == ["node1"]
    assert len(json.loads(result["peers"])) == 3
    assert not result["changed"]


@pytest.mark.parametrize("answer", [{"unreachable": True, "msg": "timed out"}, {"failed": True, "msg": "no ip"}])
def test_a_host_that_did_not_answer_is_planned_by_its_lease(hosts: Fleet, answer: dict[str, Any]) -> None:
    hosts.run()
    hosts.variables["node1"]["podnet_node"] = answer
    result = hosts.run()
    assert sorted(result["documents"]) == ["node2", "node3"]
    assert len(json.loads(result["peers"])) == 3


def test_mistakes_fail_with_a_line_each_and_leave_the_leases(hosts: Fleet) -> None:
    hosts.variables["node1"]["podnet_node"]["privileged"] = False
    hosts.variables["node2"]["podnet_node"]["backends"] = {"ipip": False, "vxlan": True, "host-gw": True}
    result = hosts.run()
    assert result["failed"]
    assert [line[:6] for line in result["msg"].splitlines()] == ["node1:", "node2:"]
    assert not list(hosts.folder.iterdir())


def test_check_needs_no_host_and_tells_the_settings(hosts: Fleet) -> None:
    hosts.run()
    for own in hosts.variables.values():
        del own["podnet_node"]
    result = hosts.run("check")
    assert result["settings"]["tunnel"] == "flannel.ipip"
    assert result["mtus"] == {"node1": 1480, "node2": 1480, "node3": 1480}
    assert [probe["namespace"] for probe in result["probes"]["node2"]] == ["web", "db"]
    assert list(result["nodes"]) == ["node1", "node2", "node3"]
    assert (result["nodes"]["node1"]["subnet"], set(result["nodes"]["node1"]["pods"])) == (
        "10.244.0.0/24",
        {"web", "db"},
    )


def test_the_settings_of_what_may_pass_go_into_json(hosts: Fleet) -> None:
    more = {
        "overlay_subnet_min": "10.244.0.0",
        "overlay_policy": {"allow": [{"to": "web", "network": "192.0.2.0/24"}]},
        "overlay_trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.250.0.0/24"]}],
        "overlay_pods": [{"name": "web", "group": "web", "ports": ["8080:80"]}],
    }
    for own in hosts.variables.values():
        own.update(more)
    said = json.loads(json.dumps(hosts.run("check")["settings"]))
    assert (said["network"], said["subnet_min"], said["subnet_max"]) == ("10.244.0.0/16", "10.244.0.0", None)
    assert said["policy"] == [{"to": "web", "from": None, "network": "192.0.2.0/24", "protocol": None, "ports": []}]
    result = hosts.run()
    assert json.loads(result["groups"]) == {"web": ["10.244.0.2", "10.244.1.2", "10.244.2.2"]}
    assert json.loads(json.dumps(result["documents"])) == result["documents"]


def test_an_inventory_without_folder_needs_to_be_told_the_file(
    hosts: Fleet, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for own in hosts.variables.values():
        own["inventory_dir"] = None
    assert hosts.run("check")["msg"].startswith("overlay: overlay_leases_file: the inventory has no folder")
    for own in hosts.variables.values():
        own["overlay_leases_file"] = "mine.yml"
    assert hosts.run()["leases_file"] == str(tmp_path / "mine.yml")


def test_a_net_conf_file_is_found_beside_the_inventory(hosts: Fleet) -> None:
    (hosts.folder / "net-conf.json").write_text('{"Network": "10.9.0.0/16", "Backend": {"Type": "vxlan", "VNI": 4}}')
    for own in hosts.variables.values():
        own["overlay_net_conf"] = "net-conf.json"
    result = hosts.run("check")["settings"]
    assert (result["network"], result["backend"], result["tunnel"]) == ("10.9.0.0/16", "vxlan", "flannel.4")
    hosts.variables["node2"]["overlay_net_conf"] = "no.json"
    assert "cannot be read: No such file" in hosts.run("check")["msg"]


def test_absent_gives_up_the_leases_of_the_play(hosts: Fleet) -> None:
    hosts.run()
    assert hosts.run("absent", ["node2"])["changed"]
    assert "node2" not in hosts.leases.read_text()
    assert hosts.run("absent")["changed"]
    assert not list(hosts.folder.iterdir())
    assert not hosts.run("absent")["changed"]


def test_removed_plans_for_the_others_and_keeps_the_node_out(hosts: Fleet) -> None:
    hosts.run()
    checked = hosts.run("check", node="node2", lease="free", force="true")
    assert (checked["node"], checked["lease"], checked["force"]) == ("node2", "free", True)
    assert hosts.run("removed", node="node2", check=True)["changed"]
    result = hosts.run("removed", node="node2")
    assert result["changed"]
    assert sorted(result["documents"]) == ["node1", "node3"]
    assert len(json.loads(result["peers"])) == 2
    assert "reason: playbook" in hosts.leases.read_text()
    again = hosts.run("removed", node="node2")
    assert not again["changed"]
    assert again["warnings"][0].startswith("node2: was removed before")
    checked = hosts.run("check")
    assert (checked["kept_out"], sorted(checked["probes"]), sorted(checked["mtus"])) == (
        ["node2"],
        ["node1", "node3"],
        ["node1", "node3"],
    )
    assert hosts.run("removed", node="node2", lease="free")["changed"]
    assert sorted(hosts.run()["documents"]) == ["node1", "node3"]


def test_a_node_where_pods_run_is_removed_only_by_force(hosts: Fleet) -> None:
    hosts.run()
    hosts.variables["node2"]["podnet_node"]["pods"] = [{"name": "web", "processes": 1}]
    assert hosts.run("removed", node="node2")["msg"].startswith("node2: pods run there: web (1 process);")
    assert not hosts.run("removed", node="node1").get("failed")
    assert not hosts.run("removed", node="node2", force=True).get("failed")


@pytest.mark.parametrize("state", ["check", "removed"])
def test_a_limited_run_removes_nobody(hosts: Fleet, state: str) -> None:
    hosts.run()
    before = hosts.leases.read_text()
    result = hosts.run(state, ["node2"], node="node2")
    assert result["msg"].startswith("overlay: --limit leaves out node1, node3")
    assert hosts.leases.read_text() == before


def test_another_network_takes_the_leases_along_only_where_that_is_said(hosts: Fleet) -> None:
    hosts.run()
    for own in hosts.variables.values():
        own["overlay_network"] = "10.201.0.0/16"
    for state in ("check", "present"):
        assert "let overlay.yml give every pod another address with -e overlay_renumber=true" in hosts.run(state)["msg"]
    for state in ("check", "present"):
        said = hosts.run(state, ["node1"], renumber=True)["msg"]
        assert said.startswith("overlay: overlay_renumber: --limit leaves out node2, node3, which would keep")
    assert hosts.run("check", renumber=True)["nodes"]["node2"]["pods"]["web"] == "10.201.1.2"
    assert "10.244.1.0/24" in hosts.leases.read_text()
    result = hosts.run(renumber=True)
    assert result["changed"]
    assert "10.201.1.0/24" in result["peers"]
    assert not hosts.run()["changed"]
