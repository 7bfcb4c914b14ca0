# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ends of a path as a task."""

from __future__ import annotations

import re
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.podnet.overlay.plugins.action import flow

from ..module_utils.seed import NODES, SETTINGS, SOURCE, TARGET


def resolve(**options: Any) -> dict[str, Any]:
    task = MagicMock(args={"from": SOURCE, "to": TARGET, "nodes": NODES, "settings": SETTINGS, **options}, async_val=0)
    task.environment = []
    return flow.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock()).run(task_vars={})


def test_words_of_the_command_line_become_numbers() -> None:
    result = resolve(size="1480", df="no", mark="0x10")
    packet = result["packets"]["k8s-1"][0]
    assert (packet["size"], packet["df"], packet["mark"]) == (1480, False, 16)
    assert not result["changed"]


def test_each_run_captures_under_a_name_of_its_own() -> None:
    assert resolve()["capture"] is None
    names = {resolve(capture="yes")["capture"] for _run in range(9)}
    assert len(names) == 9
    assert all(re.fullmatch(r"trace_[0-9a-f]{8}", name) for name in names)


def test_the_output_is_checked_before_anything_is_sent() -> None:
    assert (resolve()["output"], resolve(output="json")["output"]) == ("text", "json")
    with pytest.raises(AnsibleActionFail, match="value of output must be one of: text, json, got: yaml"):
        resolve(output="yaml")


@pytest.mark.parametrize(
    "wrong",
    [{"nodes": {"k8s-1": 3}}, {"nodes": {"k8s-1": {"pods": []}}}, {"settings": {}}],
)
def test_what_is_not_from_the_plan_is_told(wrong: dict[str, Any]) -> None:
    result = resolve(to="10.0.0.1", **wrong)
    assert result["failed"]
    assert "nodes, settings: not as podnet.overlay.plan" in result["msg"]


def test_mistakes_fail_with_a_line_each() -> None:
    result = resolve(size="9", to="224.0.0.1", hosts=["k8s-1"])
    assert result["failed"]
    assert [line.split(":")[0] for line in result["msg"].splitlines()] == ["size", "to"]
