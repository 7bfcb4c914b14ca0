# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils import _leases, _report, _status_table
from ..module_utils._model import Mistakes

display = Display()


class ActionModule(ActionBase):
    """Show the status of all nodes; see the documentation of podnet.overlay.status_report."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "default": "overlay"},
                "group": {"type": "str", "default": "overlay"},
                "leases_file": {"type": "path"},
                "output": {"type": "str", "choices": ["text", "json"], "default": "text"},
                "variable": {"type": "str", "default": "podnet_status"},
                "rows": {"type": "int", "default": 40},
            }
        )
        hosts = [str(host) for host in variables.get("ansible_play_hosts_all", [])]
        told = {host: variables["hostvars"][host].get(options["variable"]) or {} for host in hosts}
        try:
            leases = _leases.load(options["leases_file"]) if options["leases_file"] else None
        except Mistakes as e:
            return {"failed": True, "msg": "\n".join(e.lines)}
        whole = set(hosts) >= set(variables.get("groups", {}).get(options["group"], []))
        rows = _status_table.rows(hosts, told, leases, options["name"], whole)
        data = _status_table.data(rows)
        if options["output"] == "json":
            display.display(json.dumps(data, indent=2))
        else:
            display.display("\n" + _status_table.render(rows, options["rows"]))
        silent = [row.node for row in rows if row.state in _status_table.SILENT]
        if not silent:
            return {"changed": False, **data}
        # Whoever reads has it above already: no need to dump it below once more.
        return {"changed": False, "failed": True, "msg": f"no status from {_report.some(silent)}"}
