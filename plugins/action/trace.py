# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import textwrap
import typing as t
from collections.abc import Mapping

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils import _frames, _report, _trace, _trace_seen, _trace_text

display = Display()

_WORK = {"walk": "", "started": "capture", "capture": "capture", "ping": "probe"}
_VARIABLES = {"walk": "podnet_walk", "started": "podnet_started", "capture": "podnet_capture", "ping": "podnet_ping"}
_FLOW = ("from", "to", "source", "destination", "size", "df", "nodes", "order", "packets")
_RECORDING = {"frames", "verdicts", "lost"}


class ActionModule(ActionBase):
    """Join what the hosts of a path told; see the documentation of podnet.overlay.trace."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "flow": {"type": "dict", "required": True},
                "output": {"type": "str", "choices": _trace_text.OUTPUTS, "default": _trace_text.OUTPUTS[0]},
                "dest": {"type": "path"},
                **{name: {"type": "str", "default": default} for name, default in _VARIABLES.items()},
            }
        )
        flow, hostvars = options["flow"], (task_vars or {})["hostvars"]
        missing = [name for name in _FLOW if name not in flow] or [n for n in flow["nodes"] if n not in hostvars]
        if missing:
            return {"failed": True, "msg": f"flow: {', '.join(missing)}: not there. podnet.overlay.flow makes it"}
        told = {node: {name: hostvars[node].get(options[name]) or {} for name in _VARIABLES} for node in flow["nodes"]}
        silent = {node: reason for node, own in told.items() if (reason := _silence(own))}
        recorded = [node for node, own in told.items() if own["capture"].keys() >= _RECORDING]
        captures = {node: told[node]["capture"] for node in recorded if not _trouble(told[node]["started"])}
        walks = {node: own["walk"]["walks"] for node, own in told.items() if "walks" in own["walk"]}
        try:
            frames = {node: [_frames.decode(frame) for frame in own["frames"]] for node, own in captures.items()}
        except (_frames.MissingLibrary, ValueError) as e:
            frames, captures, silent = {}, {}, {**silent, "controller": str(e)}
        try:
            explained = _trace.join(flow, walks, silent)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            return {
                "failed": True,
                "msg": f"flow, {options['walk']}: not as podnet.overlay.flow and walk return: {e!r}",
            }
        trace = _trace_seen.witness(
            explained,
            frames,
            {node: own["verdicts"] for node, own in captures.items()},
            told[flow["nodes"][0]]["ping"].get("paths") or [],
            [f"{node}: {n} frames or verdicts were not kept" for node, own in captures.items() if (n := own["lost"])],
        )
        result: dict[str, t.Any] = {"changed": False, **trace.data(), "pcaps": []}
        folder = os.path.abspath(
            os.path.expanduser(options["dest"] or _trace_text.plain(f"trace-{flow['from']}-{flow['to']}"))
        )
        unsaved = ""
        try:
            result["pcaps"] = [] if self._task.check_mode else _save(folder, captures)
        except OSError as e:
            unsaved = f"dest: {e.filename or folder} cannot be written: {e.strerror}"
        if options["output"] == "json":
            display.display(json.dumps(result, indent=2))
        else:
            saved = [f"\nframes in {folder}"] if result["pcaps"] else []
            display.display("\n".join(["", _trace_text.render(trace), *saved]))
        if trace.works is not False and not unsaved:
            return result
        if options["output"] == "text":  # a person has read it: no need to dump it below once more
            result = {key: result[key] for key in ("changed", "problems", "silent", "pcaps")}
        return {**result, "failed": True, "msg": trace.verdict if trace.works is False else unsaved}


def _save(folder: str, captures: Mapping[str, t.Any]) -> list[str]:
    """The files of frames, one for each node and interface where any were seen."""
    points: dict[tuple[str, str, str], list[t.Any]] = {}
    for node, own in captures.items():
        for frame in own["frames"]:
            points.setdefault((node, frame["namespace"], frame["interface"]), []).append(frame)
    if points:
        os.makedirs(folder, exist_ok=True)
    paths: dict[str, list[t.Any]] = {}
    for point, frames in points.items():
        name = _trace_text.pcap_name(*point)
        while (path := os.path.join(folder, name)) in paths:  # web-eth0 of the host, and eth0 of web
            name = f"_{name}"
        paths[path] = frames
    for path, frames in paths.items():
        _frames.write_pcap(path, frames)
    return list(paths)


def _trouble(outcome: Mapping[str, t.Any]) -> str:
    """Why a task failed, or empty."""
    return textwrap.shorten(_report.trouble({**outcome, "paths": []}), 200, placeholder=" …")


def _silence(own: Mapping[str, Mapping[str, t.Any]]) -> str:
    """Why a host did not tell what it should have, or empty."""
    for name, key in (("walk", "walks"), ("started", ""), ("ping", ""), ("capture", "")):
        if reason := _trouble(own[name]):
            return f"{_WORK[name]} {reason}".strip()
        if key and key not in own[name]:
            return "was not asked (does --limit leave it out?)"
    return ""
