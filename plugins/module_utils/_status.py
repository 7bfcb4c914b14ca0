# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a host's overlay is: its documents against the kernel, the watcher's counters, the results of the last probes.

It only looks, and waits for nobody's lock.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from . import _command, _engine, _metrics, _package, _peers, _probe_record, _rollback, _sends, _state
from ._kernel import KernelError
from ._model import Mistakes, Route, of_type

VERSION = 1
MOST_LINES = 100
"""So many lines of drift are told: a thousand hosts that lack a thousand routes each would send 100 MB."""
_REPAIRS, _LAST_REPAIR = "podnet_overlay_repairs_total", "podnet_overlay_last_repair_timestamp_seconds"
_FAILURES, _HELD = "podnet_overlay_repair_failures_total", "podnet_overlay_held"


def read() -> dict[str, Any]:
    """The host's status, as goes into JSON. What cannot be told of a document is its ``error``.

    Raises:
        MissingLibrary: there are documents, and pyroute2 is not installed.
        PermissionError: this needs root.
    """
    return {
        "version": VERSION,
        "hostname": platform.node(),
        "time": time.time(),
        "documents": [_document(name) for name in _state.names()],
        "watcher": _watcher(),
        "probes": _probe_record.read(),
    }


def text(status: Mapping[str, Any]) -> str:
    """The same for an operator on the host."""
    lines = []
    for document in status["documents"]:
        named = [document["backend"], *("%s %s" % (key, document[key]) for key in ("subnet", "public_ip", "mtu"))]
        lines.append("%s: %s" % (document["name"], ", ".join(named) if document["subnet"] else "not of the overlay"))
        lines.append("  %s" % (document["error"] or _compared(document)))
        lines += ["  %s" % line for line in document["drift"]]
        if document["drift_count"] > len(document["drift"]):
            lines.append("  and %d more" % (document["drift_count"] - len(document["drift"])))
        lines += ["  shadowed: %s" % line for line in document["shadowed"]]
        if document["unconfirmed"] is not None:
            lines.append("  its last change is undone in %.0f s if nobody confirms it" % document["unconfirmed"])
    watcher = status["watcher"]
    if watcher:
        repairs = ", ".join("%d %s" % (count, kind) for kind, count in sorted(watcher["repairs"].items())) or "nothing"
        last = ", last %s" % _clock(watcher["last_repair"]) if watcher["last_repair"] else ""
        lines.append("watcher: %s; repaired %s%s" % ("running" if watcher["running"] else "stopped", repairs, last))
        lines.append("  %d repairs failed, %d objects left alone for now" % (watcher["failures"], watcher["held"]))
    for probe in status["probes"]:
        lines.append("probe: %s" % _probed(probe))
    return "\n".join(lines or ["no documents: this host has no overlay"])


def _compared(document: Mapping[str, Any]) -> str:
    state = (
        "%d operations from its document" % document["drift_count"] if document["drift_count"] else "as it should be"
    )
    return "%s; %d of %d routes there" % (state, document["routes"]["present"], document["routes"]["wanted"])


def _probed(probe: Mapping[str, Any]) -> str:
    target = " ".join(filter(None, [probe["pod"], probe["node"], probe["address"]]))
    error = ", " + probe["error"] if probe["error"] else ""
    result = "%d bytes, %d of %d answered%s" % (probe["size"], probe["received"], probe["sent"], error)
    return "%s to %s: %s, %s" % (probe["namespace"] or "host", target, result, _clock(probe["time"]))


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _document(name: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": name,
        **dict.fromkeys(("backend", "also", "network", "subnet", "public_ip", "peers_digest"), ""),
        "mtu": None,
        "sends": None,
        "routes": {"wanted": 0, "present": 0},
        "drift": [],
        "drift_count": 0,
        "shadowed": [],
        "unconfirmed": None,
        "error": "",
    }
    try:
        saved = _state.load(name)
        if saved is None:  # it was torn down just now
            return {**told, "error": "its files are gone"}
        if not saved.document:
            return {**told, "error": "the run that brought it was killed before its end: run it again"}
        told.update(_named(saved.document))
        pending = _rollback.pending(name)
        told["unconfirmed"] = None if pending is None else round(pending.left, 1)
        wanted = {route.key for route in of_type(saved.reached, Route) if not route.namespace}
        result = _engine.reconcile(name, check=True)
        amiss = {operation.item.key for operation in (*result.operations, *result.held)}
        told["routes"] = {"wanted": len(wanted), "present": len(wanted - amiss)}
        told["drift"] = [str(operation) for operation in result.operations[:MOST_LINES]]
        told["drift_count"] = len(result.operations)
        told["shadowed"] = list(result.shadowed[:MOST_LINES])
        told["error"] = "; ".join(result.warnings)
    except Mistakes as error:
        told["error"] = "; ".join(error.lines)
    except (_state.Failed, KernelError) as error:
        told["error"] = str(error)
    return told


def _named(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the document calls itself by."""
    clause = document.get("peers") or {}
    mtus = [link.get("mtu") for link in document.get("links") or [] if link.get("kind") == "bridge"]
    named = {key: clause.get(key) or "" for key in ("backend", "network", "subnet", "public_ip")}
    also = (_sends.also(document) or {}).get("backend") or ""
    told = {**named, "also": also, "mtu": mtus[0] if mtus else None}
    if clause:
        told.update(sends=_sends.sends(document), peers_digest=_peers.digest(clause.get("table") or {}))
    return told


def _watcher() -> dict[str, Any] | None:
    """Whether the watcher runs and what it has counted since it was started; None where there is none."""
    values = _counted()
    if not values and not os.path.exists(os.path.join(_package.UNITS, _package.WATCHER)):
        return None
    repairs: Counter[str] = Counter()
    for (metric, labels), value in values.items():
        if metric == _REPAIRS:
            repairs[dict(labels).get("kind", "")] += int(value)
    last = [value for (metric, _labels), value in values.items() if metric == _LAST_REPAIR]
    return {
        "running": _runs(),
        "repairs": dict(repairs),
        "failures": _total(values, _FAILURES),
        "held": _total(values, _HELD),
        "last_repair": max(last) if last else None,
    }


def _counted() -> dict[_metrics.Sample, float]:
    try:
        with open(_metrics.FILE, encoding="utf-8") as file:
            return _metrics.parse(file.read())
    except (OSError, ValueError):
        return {}


def _runs() -> bool:
    return _command.found("systemctl") and _command.attempt("systemctl", "is-active", _package.WATCHER).returncode == 0


def _total(values: Mapping[_metrics.Sample, float], name: str) -> int:
    return int(sum(value for (metric, _labels), value in values.items() if metric == name))
