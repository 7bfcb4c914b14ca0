# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress
import json
import typing as t

from ansible.utils.display import Display

from ..module_utils import _inventory, _leases, _plan, _report, _status_table
from ..module_utils._model import Mistakes
from . import plan

display = Display()

_NO_LEASES = _leases.Leases(ipaddress.IPv4Network("0.0.0.0/0"))  # where there is no file: nobody has one


class ActionModule(plan.ActionModule):
    """Show the status of all nodes; see the documentation of podnet.overlay.status_report."""

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super(plan.ActionModule, self).run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "default": "overlay"},
                "group": {"type": "str", "default": "overlay"},
                "output": {"type": "str", "choices": ["text", "json"], "default": "text"},
                "variable": {"type": "str", "default": "podnet_status"},
                "rows": {"type": "int", "default": 40},
            }
        )
        hosts = [str(host) for host in variables.get("ansible_play_hosts_all", [])]
        told = {host: variables["hostvars"][host].get(options["variable"]) or {} for host in hosts}
        leases, settings, mistakes = self._known(options["group"], variables)
        whole = set(hosts) >= set(variables["groups"].get(options["group"], []))
        rows = _status_table.rows(hosts, told, leases, options["name"], whole, settings)
        data = _status_table.data(rows, mistakes)
        if options["output"] == "json":
            display.display(json.dumps(data, indent=2))
        else:
            display.display("\n" + _status_table.render(rows, options["rows"], mistakes))
        silent = [row.node for row in rows if row.state in _status_table.SILENT]
        if not silent:
            return {"changed": False, **data}
        # Whoever reads has it above already: no need to dump it below once more.
        return {"changed": False, "failed": True, "msg": f"no status from {_report.some(silent)}"}

    def _known(
        self, group: str, task_vars: dict[str, t.Any]
    ) -> tuple[_leases.Leases | None, _inventory.Settings | None, list[str]]:
        """The leases and the settings as far as they can be read, and what is wrong with them and the inventory.

        No mistake keeps the hosts from being told of: when there is one, it is late to mend it first.
        """
        leases = settings = None
        try:
            hosts = [str(host) for host in task_vars["groups"].get(group, [])]
            variables, _facts = self._read(task_vars["hostvars"], hosts, set())
            path = plan.leases_file(group, variables)
            found = _leases.load(path)
            leases = found or _NO_LEASES
            plan.net_conf(group, variables)
            inventory = _inventory.read(group, variables)
            settings = inventory.settings
            if found and settings:
                _leases.require(found.network, settings.network, path)
            return leases, settings, list(_plan.judge(inventory, found))
        except Mistakes as e:
            return leases, settings, e.lines
