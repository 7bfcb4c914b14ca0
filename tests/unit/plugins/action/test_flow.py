# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ends of a path as a task."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from ansible_collections.podnet.overlay.plugins.action import flow

from ..module_utils.seed import NODES, SETTINGS, SOURCE, TARGET


def resolve(**options: Any) -> dict[str, Any]:
    task = MagicMock(args={"from": SOURCE, "to": TARGET, "nodes": NODES, "settings": SETTINGS, **options}, async_val=0)
    task.environment = []
    return flow.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock()).run(task_vars={})


def test_words_of_the_command_line_become_numbers() -> None:
    result = resolve(size="1480", df="no", mark="0x10")
    packet = result["packets"]["k8s-1"]["request"]
    assert (packet["size"], packet["df"], packet["mark"]) == (1480, False, 16)
    assert not result["changed"]


def test_mistakes_fail_with_a_line_each() -> None:
    result = resolve(size="9", to="192.0.2.1", hosts=["k8s-1"])
    assert result["failed"]
    assert [line.split(":")[0] for line in result["msg"].splitlines()] == ["size", "to"]
