# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A path as a task: what is printed, returned and written, from what the hosts have registered."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.podnet.overlay.plugins.action import trace
from ansible_collections.podnet.overlay.plugins.module_utils import _frames
from ansible_collections.podnet.overlay.plugins.module_utils._flow import flow

from ..module_utils import seed


class Hosts:
    """k8s-1 and k8s-2 after their tasks, and a controller."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.variables: dict[str, Any] = {
            node: {"podnet_walk": {"walks": walks, "points": []}} for node, walks in seed.walks().items()
        }

    def capture(self) -> None:
        for node, frames in seed.frames().items():
            told = [{**frame, "link": "ethernet"} for frame in frames]
            self.variables[node]["podnet_started"] = {"changed": True}
            self.variables[node]["podnet_capture"] = {"frames": told, "verdicts": [], "lost": 0}
        self.variables["k8s-1"]["podnet_ping"] = {"paths": seed.pings()}

    def run(
        self, *, check: bool = False, without: Sequence[str] = (), mark: int = 0, **options: Any
    ) -> tuple[dict[str, Any], str]:
        path = flow(seed.SOURCE, seed.TARGET, seed.NODES, seed.SETTINGS, mark=mark)
        path = {key: value for key, value in path.items() if key not in without}
        task = MagicMock(args={"flow": path, **options}, async_val=0, check_mode=check)
        task.environment = []
        action = trace.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
        result = action.run(task_vars={"hostvars": self.variables})
        return result, self.capsys.readouterr().out


@pytest.fixture
def hosts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Hosts:
    monkeypatch.setattr(_frames, "decode", lambda frame: frame)
    monkeypatch.setattr(_frames, "write_pcap", lambda path, frames: pathlib.Path(path).write_text(str(len(frames))))
    monkeypatch.chdir(tmp_path)
    return Hosts(capsys)


def test_a_path_that_works_is_printed_and_returned(hosts: Hosts) -> None:
    result, shown = hosts.run()
    assert not result.get("failed")
    assert result["works"]
    assert result["verdict"] in shown
    assert result["pcaps"] == []
    assert len(result["legs"]["request"]["hops"]) == 10


def test_a_broken_path_fails_with_the_verdict_alone(hosts: Hosts) -> None:
    hosts.variables["k8s-1"]["podnet_walk"]["walks"]["request"]["left"]["destination_mac"] = "00:0c:29:00:00:99"
    result, shown = hosts.run()
    assert result["failed"]
    assert "stale neighbour at k8s-1, ens33 (request, hop 5)" in result["msg"]
    assert result["msg"] in shown
    assert "\n" not in result["msg"]
    assert [problem["fault"] for problem in result["problems"]] == ["stale_neighbour"]
    assert "legs" not in result


def test_a_path_in_doubt_does_not_fail(hosts: Hosts) -> None:
    rule = {
        "hook": "forward",
        "verdict": "may drop",
        "where": "table ip filter chain FORWARD",
        "rule": "-m recent -j DROP",
    }
    hosts.variables["k8s-1"]["podnet_walk"]["walks"]["request"]["hops"][2]["rules"] = [rule]
    result, shown = hosts.run()
    assert not result.get("failed")
    assert result["works"] is None
    assert "; 1 rule may drop it: hop 3" in result["verdict"]
    assert result["verdict"] in shown


@pytest.mark.parametrize("broken", [False, True])
def test_json_can_be_cut_out_of_what_is_printed(hosts: Hosts, broken: bool) -> None:
    if broken:
        del hosts.variables["k8s-2"]["podnet_walk"]
    result, shown = hosts.run(output="json")
    lines = re.search(r"^\{.*?^\}", shown, re.MULTILINE | re.DOTALL)
    assert lines
    data = json.loads(lines[0])
    assert data["works"] is not broken
    assert data["legs"] == result["legs"]


@pytest.mark.parametrize(
    ("variable", "outcome", "reason"),
    [
        ("podnet_walk", {"unreachable": True, "msg": "Task failed: ssh: timed out"}, "unreachable: ssh: timed out"),
        ("podnet_walk", {"failed": True, "msg": "needs root\nmore"}, "failed: needs root"),
        ("podnet_walk", {}, "was not asked (does --limit leave it out?)"),
        ("podnet_started", {"failed": True, "msg": "capturing needs root"}, "capture failed: capturing needs root"),
        ("podnet_ping", {"failed": True, "msg": "no"}, "probe failed: no"),
    ],
)
def test_a_host_that_does_not_tell_is_named(hosts: Hosts, variable: str, outcome: dict[str, Any], reason: str) -> None:
    hosts.variables["k8s-2"][variable] = outcome
    result, shown = hosts.run()
    assert result["failed"]
    assert result["silent"] == {"k8s-2": reason}
    assert f"k8s-2: {reason}" in result["msg"]
    assert reason in shown


def test_frames_are_written_by_node_and_interface(hosts: Hosts, tmp_path: pathlib.Path) -> None:
    hosts.capture()
    result, shown = hosts.run()
    folder = tmp_path / f"trace-{seed.SOURCE}-{seed.TARGET}"
    assert result["pcaps"][0] == str(folder / "k8s-1-cni-8v2vj-eth0.pcap")
    assert len(list(folder.iterdir())) == len(result["pcaps"]) == 10
    assert (folder / "k8s-2-ens33.pcap").read_text() == "2"
    assert f"frames in {folder}" in shown
    assert "3 of 3 probes answered" in result["verdict"]


def test_no_answer_of_a_host_names_a_file_elsewhere_or_that_of_another_point(
    hosts: Hosts, tmp_path: pathlib.Path
) -> None:
    hosts.capture()
    frames = hosts.variables["k8s-1"]["podnet_capture"]["frames"]
    points = [("../../up", "eth0"), ("web", "eth0"), ("", "web-eth0"), ("\udcff\0", "/")]
    told = [{**frames[0], "namespace": n, "interface": i, "icmp": None} for n, i in points]
    hosts.variables["k8s-1"]["podnet_capture"]["frames"] = told
    result, _shown = hosts.run(dest="caps")
    names = [pathlib.Path(path).name for path in result["pcaps"] if "k8s-1" in path]
    assert names == [
        "k8s-1-.._.._up-eth0.pcap",
        "k8s-1-web-eth0.pcap",
        "_k8s-1-web-eth0.pcap",
        "k8s-1-?_-_.pcap",
    ]
    assert {path.name for path in (tmp_path / "caps").iterdir()} >= set(names)


def test_what_is_no_flow_and_no_frame_is_told(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "flow: to, size: not there" in hosts.run(without=("to", "size"))[0]["msg"]
    hosts.variables["k8s-1"]["podnet_walk"]["walks"]["request"] = "all well"
    assert "flow, podnet_walk: not as podnet.overlay.flow and walk return" in hosts.run()[0]["msg"]
    hosts.variables["k8s-1"]["podnet_walk"]["walks"] = seed.walks()["k8s-1"]
    hosts.capture()
    monkeypatch.setattr(_frames, "decode", MagicMock(side_effect=ValueError("no frame")))
    assert hosts.run()[0]["silent"] == {"controller": "no frame"}
    del hosts.variables["k8s-1"]
    assert "flow: k8s-1: not there" in hosts.run()[0]["msg"]


def test_a_mark_is_not_on_the_probe(hosts: Hosts) -> None:
    hosts.capture()
    assert "note: the probe had no mark: what is explained for 0x10" in hosts.run(mark=16)[1]
    assert "no mark" not in hosts.run()[1]


def test_check_mode_and_a_folder_that_cannot_be(hosts: Hosts, tmp_path: pathlib.Path) -> None:
    hosts.capture()
    assert hosts.run(check=True)[0]["pcaps"] == []
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    result, shown = hosts.run(dest="file/caps")
    assert result["msg"] == f"dest: {tmp_path}/file/caps cannot be written: Not a directory"
    assert "3 of 3 probes answered" in shown


def test_a_host_without_capture_has_seen_nothing(hosts: Hosts) -> None:
    hosts.capture()
    hosts.variables["k8s-2"]["podnet_started"] = {"failed": True, "msg": "capturing needs root"}
    hosts.variables["k8s-2"]["podnet_capture"]["frames"] = []  # it was stopped all the same
    result, shown = hosts.run()
    assert result["silent"] == {"k8s-2": "capture failed: capturing needs root"}
    assert "not here" not in shown


def test_frames_that_were_not_kept_are_told(hosts: Hosts) -> None:
    hosts.capture()
    hosts.variables["k8s-2"]["podnet_capture"]["lost"] = 3
    assert "note: k8s-2: 3 frames or verdicts were not kept" in hosts.run()[1]


def test_without_scapy_the_explanation_stands(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.capture()
    monkeypatch.setattr(_frames, "decode", MagicMock(side_effect=_frames.MissingLibrary("no scapy: pip install scapy")))
    result, shown = hosts.run()
    assert result["silent"] == {"controller": "no scapy: pip install scapy"}
    assert result["pcaps"] == []
    assert "delivers" in shown
