# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Bring the host to its document, and confirm that over a new connection; see the documentation of podnet.overlay.topology.

    Both are one task, since a task of its own would begin when the slowest host has finished the one before it.
    """

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        in_background = self._task.async_val and not self._connection.has_native_async
        result: dict[str, t.Any] = self._execute_module(task_vars=task_vars, wrap_async=in_background)
        if not result.get("unconfirmed") or result.get("failed") or self._task.check_mode:
            return result
        host, timeout = (task_vars or {}).get("inventory_hostname"), self._task.args["confirm_timeout"]
        undone = f"{host} undoes its change by itself within {timeout} s, since it cannot be confirmed"
        try:
            self._connection.reset()
            confirm = {"name": self._task.args.get("name", "overlay"), "state": "confirmed"}
            answer = self._execute_module(module_args=confirm, task_vars=task_vars)
        except AnsibleConnectionFailure as e:
            raise AnsibleConnectionFailure(undone) from e
        if answer.get("failed"):
            return {**result, **answer, "msg": f"{undone}: {answer.get('msg')}"}
        if not answer["changed"]:
            late = f"{host} has undone its change by itself, since {timeout} s were over before it could be confirmed"
            return {**result, "failed": True, "msg": f"{late}: give it more (confirm_timeout, overlay_confirm_timeout)"}
        return {**result, "unconfirmed": False}
