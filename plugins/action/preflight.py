# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import secrets
import typing as t
from collections.abc import Mapping

from ansible.utils.display import Display

from ..module_utils import _facts, _inventory, _leases, _plan, _preflight, _preflight_paths, _preflight_text, _underlay
from ..module_utils._model import Mistakes
from ..module_utils._preflight import ERROR, WARNING, Finding
from ..module_utils._shares import kept_out
from ..module_utils._trace_text import OUTPUTS
from . import plan

display = Display()

_PROTOCOLS = {"ipip": "ipip", "vxlan": "udp", "host-gw": "none"}
_WHAT = {"ipip": "protocol 4", "vxlan": "UDP port {port}", "host-gw": "full-size packets"}
_VARIABLES = {"started": "podnet_started", "sent": "podnet_sent", "stopped": "podnet_heard"}


class ActionModule(plan.ActionModule):
    """Choose what to probe, and judge; see the documentation of podnet.overlay.preflight."""

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super(plan.ActionModule, self).run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["planned", "judged"], "required": True},
                "name": {"type": "str", "default": "overlay"},
                "group": {"type": "str", "default": "overlay"},
                "renumber": {"type": "bool", "default": False},
                "plan": {"type": "dict"},
                "output": {"type": "str", "choices": OUTPUTS, "default": OUTPUTS[0]},
                **{name: {"type": "str", "default": default} for name, default in _VARIABLES.items()},
            },
            required_if=[("state", "judged", ["plan"])],
        )
        variables = task_vars or {}
        try:
            return self._planned(options, variables) if options["state"] == "planned" else _judged(options, variables)
        except Mistakes as e:
            return {"failed": True, "msg": "\n".join(e.lines)}

    def _planned(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        group, hostvars = options["group"], task_vars["hostvars"]
        hosts = [str(host) for host in task_vars["groups"].get(group, [])]
        play = [str(host) for host in task_vars.get("ansible_play_hosts_all", []) if host in set(hosts)]
        variables, facts = self._read(hostvars, hosts, set(play))
        path = plan.leases_file(group, variables)
        plan.net_conf(group, variables)
        inventory = _inventory.read(group, variables)
        settings = inventory.settings
        if settings is None:
            raise Mistakes(inventory.mistakes)
        leases = _leases.load(path, None if options["renumber"] else settings.network)
        if leases and options["renumber"]:
            leases = _leases.moved(leases, settings.network, path)
        members = [name for name in play if leases is None or not kept_out(name, leases)]
        findings = []
        for name in members:
            if name not in facts:
                finding = _preflight.of_silence(name, hostvars.raw_get(name).get("podnet_node") or {})
                findings += [finding] if finding else []
        silent = {finding.host for finding in findings}

        underlays: dict[str, _facts.Underlay] = {}
        for name in members:
            if name in facts:
                try:
                    underlays[name] = _facts.underlay_of(inventory.nodes[name], facts[name], options["name"])
                except ValueError:
                    continue  # the plan complains
        probing = _preflight.probers(settings, underlays)
        findings += [
            finding
            for finding in _of_plan(inventory, leases, facts, path, options["name"])
            if finding.host not in silent or "overlay_leases_file" not in finding.blocker
        ]
        for name in members:
            if name in facts:
                findings += _preflight.of_facts(name, facts[name], inventory.nodes[name], probes=name in probing)
        return {
            "changed": False,
            "run": secrets.token_hex(8),
            "protocol": _PROTOCOLS[settings.backend],
            "timeout": _underlay.listening_time(len(probing), task_vars["ansible_forks"]),
            "sizes": {prober.address: prober.size for prober in probing.values()},
            "hosts": {name: dataclasses.asdict(prober) for name, prober in probing.items()},
            "settings": settings.as_dict(),
            "members": members,
            "findings": [finding.data() for finding in findings],
        }


def _of_plan(
    inventory: _inventory.Inventory,
    leases: _leases.Leases | None,
    facts: Mapping[str, _facts.Facts],
    path: str,
    owner: str,
) -> t.Iterator[Finding]:
    """What overlay.yml would refuse or warn of, but for obstacles that are told as findings of their own."""
    fatal = {
        name: dataclasses.replace(own, obstacles=tuple(item for item in own.obstacles if item["fatal"]))
        for name, own in facts.items()
    }
    try:
        lines, level = _plan.plan(inventory, leases, fatal, path, owner).warnings, WARNING
    except Mistakes as e:
        lines, level = tuple(e.lines), ERROR
    for line in lines:
        if line not in inventory.warnings:
            yield _preflight.of_line(line, inventory.nodes, inventory.group, level)


def _judged(options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
    planned, hostvars = options["plan"], task_vars["hostvars"]
    try:
        settings = planned["settings"]
        probing = {name: _preflight.Prober(**prober) for name, prober in planned["hosts"].items()}
        findings = [Finding(**finding) for finding in planned["findings"]]
        members = planned["members"]
        backend, port = settings["backend"], settings["port"]
    except (AttributeError, KeyError, TypeError) as e:
        return {"failed": True, "msg": f"plan: not as podnet.overlay.preflight returns it with state: planned: {e!r}"}
    outcomes = {name: {state: hostvars[name].get(options[state]) or {} for state in _VARIABLES} for name in probing}
    surroundings = {name: own["started"].get("surroundings") or {} for name, own in outcomes.items()}
    paths = _preflight_paths.Paths(probing, outcomes, backend, port)
    findings += paths.findings(options["group"])
    for name, told in surroundings.items():
        findings += _preflight.of_surroundings(name, told)
    managers = {
        name: f"{probing[name].interface}{' by ' if told.get('manager') else ''}{told.get('manager') or ''}"
        for name, told in surroundings.items()
    }
    what = _WHAT[backend].format(port=port)
    verdict = _preflight_text.summary(findings, len(members), paths.tried, paths.whole, what)
    result: dict[str, t.Any] = {
        "changed": False,
        "summary": verdict,
        "findings": [finding.data() for finding in findings],
        "paths": {"tried": paths.tried, "whole": paths.whole},
        "underlay": {
            name: {"interface": probing[name].interface, "manager": told.get("manager", "")}
            for name, told in surroundings.items()
        },
    }
    if options["output"] == "json":
        display.display(json.dumps(result, indent=2))
    else:
        display.display("\n" + _preflight_text.render(findings, managers, verdict))
    if not any(finding.level == ERROR for finding in findings):
        return result
    if options["output"] == "text":  # a person has read it: no need to dump it below once more
        result = {"changed": False, "paths": result["paths"]}
    return {**result, "failed": True, "msg": verdict}
