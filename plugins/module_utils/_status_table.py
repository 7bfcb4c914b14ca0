# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status of a fleet, from what each host says of itself and what the leases say of all: as a table, and as data. Pure."""

from __future__ import annotations

import textwrap
import typing as t
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ._leases import Lease, Leases
from ._report import align
from ._shares import kept_out

OK, OUTDATED, UNCONFIRMED, DRIFT, ERROR = "ok", "outdated", "unconfirmed", "drift", "error"
NOTHING, UNREACHABLE, FAILED, REMOVED = "no overlay", "unreachable", "failed", "removed"
STATES = (FAILED, UNREACHABLE, ERROR, DRIFT, UNCONFIRMED, OUTDATED, NOTHING, REMOVED, OK)
"""The worst first."""
SILENT = (FAILED, UNREACHABLE)
LINES = 8
"""So many lines of drift of one node are shown."""


@dataclass(frozen=True)
class Path:
    """A path from a pod to another, and what the last probe of one size has found."""

    source: str  # pod@node
    target: str
    address: str
    size: int  # bytes of the IP packet
    sent: int
    received: int
    error: str
    age: float  # seconds

    @property
    def passed(paths: Sequence[Path]) -> str:
    """How many of how many paths passed with all sizes that they were tried with."""
    lossy = {path.way for path in paths if not path.passed}
    ways = {path.way for path in paths}
    return f"{len(ways) - len(lossy)}/{len(ways)}"


def render(of: Sequence[Row], most: int) -> str:
    """The table of nodes, that of paths, what there is to say of each, the summary. MOST lines of each, the worst first."""
    if len(of) > most:
        of = sorted(of, key=lambda row: STATES.index(row.state))
    parts = [_cut(_table(of[:most]), len(of) - most, "nodes")]
    paths = [path for row in of for path in row.paths]
    if 0 < len({path.way for path in paths}) <= most:
        parts.append(_paths(paths))
    remarks = [f"{row.node}: {line}" for row in of for line in _remarks(row)]
    parts.append(_cut(remarks[:most], len(remarks) - most, "remarks: -e output=json has all"))
    return "\n\n".join("\n".join(part) for part in [*parts, [summary(of)]] if part)


def _cut(lines: list[str], left: int, what: str) -> list[str]:
    return [*lines, f"and {left} more {what}"] if left > 0 else lines


def _table(of: Sequence[Row]) -> list[str]:
    head = [
        "node",
        "state",
        "subnet",
        "public_ip",
        "backend",
        "watcher",
        "routes",
        "drift",
        "repairs",
        "paths",
        "probed",
    ]
    return align([head, *([cell or "-" for cell in _cells(row)] for row in of)], left=6)


def _cells(row: Row) -> list[str]:
    own = row.document
    routes = (own or {}).get("routes") or {}
    oldest = max((path.age for path in row.paths), default=None)
    return [
        row.node,
        row.state,
        row.told("subnet"),
        row.told("public_ip"),
        (own or {}).get("backend") or "",
        "" if row.watcher is None else "running" if row.watcher.get("running") else "stopped",
        f"{routes['present']}/{routes['wanted']}" if routes else "",
        "" if own is None or own.get("error") else str(row.drift_count),
        "" if row.repairs is None else str(row.repairs),
        passed(row.paths) if row.paths else "",
        "" if oldest is None else ago(oldest),
    ]


def _paths(paths: Sequence[Path]) -> list[str]:
    """A line for each path, with its sizes from the smallest."""
    table = [["from", "to", "address", "bytes: received/sent", "probed"]]
    for way, sizes in _by_way(paths).items():
        results = ", ".join(f"{path.size}: {path.received}/{path.sent}" for path in sizes)
        table.append([*way, results, ago(max(path.age for path in sizes))])
    return align(table, left=5)


def _by_way(paths: Sequence[Path]) -> dict[tuple[str, str, str], list[Path]]:
    ways: dict[tuple[str, str, str], list[Path]] = {path.way: [] for path in paths}
    for path in sorted(paths, key=lambda path: path.size):
        ways[path.way].append(path)
    return ways


def _losses(paths: Sequence[Path]) -> Iterator[str]:
    for (source, target, address), sizes in _by_way([path for path in paths if not path.passed]).items():
        lost = [f"{path.size} bytes: {path.sent - path.received} of {path.sent} lost, {path.error}" for path in sizes]
        yield f"{source} to {target} {address}, {'; '.join(lost)}; {ago(max(path.age for path in sizes))}"


def _remarks(row: Row) -> Iterator[str]:
    """What the table has no room for."""
    own = row.document or {}
    if row.state == REMOVED:
        yield from _of_removed(row)
    elif row.state in (*SILENT, ERROR):
        yield f"{row.state}: {row.reason}" if row.reason else row.state
    elif row.state == NOTHING:
        yield "has no overlay: run overlay.yml on it"
    else:
        yield from _outdated(row)
    if own.get("unconfirmed") is not None:
        yield f"a change waits to be confirmed, and is undone in {round(own['unconfirmed'])} s"
    yield from _wrong(own, "")
    for other in row.others:
        yield from _wrong(other, f"document {other['name']}: ")
        if other.get("error"):
            yield f"document {other['name']}: {other['error']}"
    yield from _counters(row)
    yield from _losses(row.paths)


def _of_removed(row: Row) -> Iterator[str]:
    if row.document is not None:
        yield "is removed, and still carries the overlay: run teardown.yml on it"
    elif row.reason:
        yield f"is removed, and did not answer ({row.reason}): if it comes back, run teardown.yml on it"


def _wrong(document: Mapping[str, t.Any], where: str) -> Iterator[str]:
    yield from (f"{where}drift: {line}" for line in (document.get("drift") or [])[:LINES])
    if _drift_count(document) > LINES:
        yield f"{where}drift: and {_drift_count(document) - LINES} more"
    yield from (f"{where}shadowed: {line}" for line in document.get("shadowed") or [])


def _counters(row: Row) -> Iterator[str]:
    watcher = row.watcher or {}
    parts = [f"{count} {kind}" for kind, count in sorted((watcher.get("repairs") or {}).items()) if count]
    said = ["repaired " + ", ".join(parts)] if parts else []
    said += [f"{watcher[key]} {words}" for key, words in _COUNTERS.items() if watcher.get(key)]
    if said:
        last = watcher.get("last_repair")
        yield "watcher: " + "; ".join(said) + (f"; last repair {ago(max(0.0, row.now - last))}" if last else "")


_COUNTERS = {"failures": "repairs failed", "held": "objects left alone, since something keeps undoing the repair"}


def ago(seconds: float) -> str:
    """A time that has passed, in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"
