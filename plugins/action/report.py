# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils import _report

display = Display()


class ActionModule(ActionBase):
    """Judge the pings of all nodes; see the documentation of podnet.overlay.report."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "probes": {"type": "dict", "required": True},
                "variable": {"type": "str", "default": "podnet_ping"},
                "rows": {"type": "int", "default": 40},
            }
        )
        hostvars = variables["hostvars"]
        hosts = variables.get("ansible_play_hosts_all", [])
        nodes = [host for host in hosts if host in options["probes"]]
        outcomes = {node: hostvars[node].get(options["variable"]) or {} for node in nodes}
        rows = [row for node in nodes for row in _report.rows(node, options["probes"][node], outcomes[node])]
        if not rows:
            raise AnsibleActionFail("there are no pods on different nodes among these hosts: nothing was verified")

        silent = {node: reason for node, reason in ((n, _report.trouble(outcomes[n])) for n in nodes) if reason}
        if len(nodes) < len(hosts):
            strangers = [host for host in hosts if host not in options["probes"]]
            display.warning(f"not verified, since not planned as part of the overlay: {_report.some(strangers)}")
        display.display(_report.render(rows, silent, options["rows"]))
        result: dict[str, t.Any] = {
            "changed": False,
            "summary": _report.summary(rows),
            "lost": sum(cell.lost for row in rows for cell in row.cells),
            "silent": silent,
        }
        if not silent and all(row.passed for row in rows):
            return {**result, "rows": [row.data() for row in rows]}
        result["losses"] = [complaint for row in rows for complaint in row.complaints]
        losing = sorted({row.node for row in rows if row.complaints})
        says = [f"loss from {_report.some(losing)}"] if losing else []
        says += [f"no result from {_report.some(sorted(silent))}"] if silent else []
        return {**result, "failed": True, "msg": f"{result['summary']}: {'; '.join(says)}"}
