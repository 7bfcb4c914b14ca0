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

from ._inventory import Settings
from ._leases import Lease, Leases
from ._moves import Way, sending_by, way_of
from ._peers import digest
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
    def passed(self) -> bool:
        return self.received == self.sent

    @property
    def way(self) -> tuple[str, str, str]:
        """Which path it is, whatever the size."""
        return self.source, self.target, self.address

    def data(self) -> dict[str, t.Any]:
        words = {"from": self.source, "to": self.target, "address": self.address, "size": self.size}
        return {**words, "sent": self.sent, "received": self.received, "error": self.error, "age": round(self.age)}


@dataclass(frozen=True)
class Row:
    """A node. What is not known of it is empty or None."""

    node: str
    state: str  # one of STATES
    reason: str = ""  # why nothing is known, or what could not be done
    lease: Lease | None = None
    document: Mapping[str, t.Any] | None = None  # as _status.read has it, that of the overlay
    others: tuple[Mapping[str, t.Any], ...] = ()  # of other names
    watcher: Mapping[str, t.Any] | None = None
    paths: tuple[Path, ...] = ()
    now: float = 0.0  # by the host's clock
    peers: int | None = None  # how many other nodes there are, by the leases
    peers_digest: str = ""  # of the table of nodes, by the leases; empty where those are not known
    way: Way | None = None  # how nodes send, by the inventory

    def told(self, key: str) -> str:
        """What the host says, else what the lease says."""
        told = (self.document or {}).get(key)
        lease = None if self.lease is None or self.lease.freed else self.lease
        return str(told or getattr(lease, key, None) or "")

    @property
    def drift(self) -> list[str]:
        return list((self.document or {}).get("drift") or [])

    @property
    def drift_count(self) -> int:
        return _drift_count(self.document or {})

    @property
    def repairs(self) -> int | None:
        return None if self.watcher is None else sum((self.watcher.get("repairs") or {}).values())

    def data(self) -> dict[str, t.Any]:
        own = self.document or {}
        return {
            "node": self.node,
            "state": self.state,
            "reason": self.reason,
            "subnet": self.told("subnet"),
            "public_ip": self.told("public_ip"),
            "backend": own.get("backend") or "",
            "mtu": own.get("mtu"),
            "routes": own.get("routes"),
            "drift": self.drift,
            "drift_count": self.drift_count,
            "shadowed": list(own.get("shadowed") or []),
            "unconfirmed": own.get("unconfirmed"),
            "watcher": self.watcher,
            "probes": [path.data() for path in self.paths],
            "remarks": list(_remarks(self)),
        }


def _drift_count(document: Mapping[str, t.Any]) -> int:
    return int(document.get("drift_count") or 0)


# ------------------------------------------------------------------------------------------------ judging


def rows(
    hosts: Sequence[str],
    told: Mapping[str, Mapping[str, t.Any]],
    leases: Leases | None,
    name: str,
    whole: bool,
    settings: Settings | None = None,
) -> list[Row]:
    """A row for each of *hosts*, and for the removed nodes that are not among them.

    Args:
        hosts: the inventory's, that were asked.
        told: what podnet.overlay.status registered on each; with ``unreachable`` or ``failed`` and ``msg`` where it did not.
        leases: who has which subnet; None where that cannot be told.
        name: the overlay's document. Of others no more than what is wrong with them is told.
        whole: whether no host was left out, so that removed nodes are of interest.
        settings: the inventory's, if they are known.
    """
    known = leases.nodes if leases else {}
    removed = leases.removed if leases else {}
    peers_digest = digest({str(lease.subnet): lease.public_ip for lease in known.values()}) if leases else ""
    way = _nameless(sending_by(settings)) if settings else None
    found = []
    for host in hosts:
        row = _row(host, told.get(host) or {}, known.get(host) or removed.get(host), name)
        peers = len(known) - 1 if host in known else None
        row = replace(row, peers=peers, peers_digest=peers_digest, way=way)
        found.append(replace(row, state=REMOVED) if leases and kept_out(host, leases) else _judged(row))
    asked = set(hosts)
    gone = [node for node in removed if whole and node not in asked]
    return found + [Row(node, REMOVED, lease=removed[node]) for node in gone]


def _row(node: str, told: Mapping[str, t.Any], lease: Lease | None, name: str) -> Row:
    state, reason = _silence(told)
    if state:
        return Row(node, state, reason, lease)
    documents = {item["name"]: item for item in told["documents"]}
    return Row(
        node,
        OK,
        lease=lease,
        document=documents.pop(name, None),
        others=tuple(documents.values()),
        watcher=told.get("watcher"),
        paths=tuple(_path(node, probe, told["time"]) for probe in told.get("probes") or []),
        now=told["time"],
    )


def _silence(told: Mapping[str, t.Any]) -> tuple[str, str]:
    """Why a host has not told its status: state and reason; empty where it has."""
    text = str(told.get("msg") or "").strip().splitlines()
    reason = textwrap.shorten(text[0].replace("Task failed: ", "", 1), 200, placeholder=" …") if text else ""
    if told.get("unreachable"):
        return UNREACHABLE, reason
    if told.get("failed") or "documents" not in told:
        return FAILED, reason or "was not asked, or failed before"
    return "", ""


def _judged(row: Row) -> Row:
    own = row.document
    if row.state in SILENT:
        return row
    if own is None:
        state = NOTHING
    elif own.get("error"):
        state = ERROR
    elif row.drift_count:
        state = DRIFT
    elif own.get("unconfirmed") is not None:
        state = UNCONFIRMED
    else:
        state = OUTDATED if list(_outdated(row)) else OK
    return replace(row, state=state, reason=str((own or {}).get("error") or ""))


def _outdated(row: Row) -> Iterator[str]:
    """Where the host's document is not what the leases and the inventory say by now."""
    own, lease = row.document or {}, row.lease
    moving = own.get("also")  # then its backend and its MTU are those of a step
    if moving:
        yield f"takes what {moving} brings too, on the way from one backend to another: run overlay.yml on all nodes"
    elif row.way and own.get("sends") and (sends := _nameless(way_of(**own["sends"]))) != row.way:
        yield f"sends by {sends}, and the inventory says {row.way}: run overlay.yml on it"
    if lease is None:
        if row.peers_digest:
            yield "has no lease: run overlay.yml on it"
        return
    told = {key: (own.get(key), getattr(lease, key)) for key in ("subnet", "public_ip", *(() if moving else ("mtu",)))}
    differ = {key: pair for key, pair in told.items() if all(pair) and str(pair[0]) != str(pair[1])}
    for key, (has, leased) in differ.items():
        yield f"has {key} {has}, and its lease says {leased}: run overlay.yml on it"
    wanted = (own.get("routes") or {}).get("wanted")
    if wanted is not None and row.peers is not None and wanted != row.peers:
        yield f"its document has routes to {wanted} other nodes, and there are {row.peers}: run overlay.yml on it"
    elif own.get("peers_digest", row.peers_digest) != row.peers_digest and not differ.keys() & {"subnet", "public_ip"}:
        yield "its document has other subnets or addresses of nodes than the leases: run overlay.yml on it"


def _nameless(way: Way) -> Way:
    """How a node sends, whatever its tunnel is called: that is nobody else's matter."""
    return way._replace(tunnel="")


def _path(node: str, probe: Mapping[str, t.Any], now: float) -> Path:
    return Path(
        _at(probe.get("namespace") or "", node),
        _at(probe.get("pod") or "", probe.get("node") or "") or probe["address"],
        probe["address"],
        probe["size"],
        probe["sent"],
        probe["received"],
        probe.get("error") or "",
        max(0.0, now - probe["time"]),
    )


def _at(pod: str, node: str) -> str:
    return f"{pod}@{node}" if pod and node else pod or node


# ------------------------------------------------------------------------------------------------ telling


def data(of: Sequence[Row], mistakes: Sequence[str] = ()) -> dict[str, t.Any]:
    """All of it, for machines. MISTAKES are the inventory's."""
    return {"version": 1, "summary": summary(of), "mistakes": [*mistakes], "nodes": [row.data() for row in of]}


def summary(of: Sequence[Row]) -> str:
    """One line: how many nodes are in which state, and how many paths passed when they were last probed."""
    states = Counter(row.state for row in of)
    nodes = ", ".join(f"{states[state]} {state}" for state in reversed(STATES) if states[state])
    paths = [path for row in of for path in row.paths]
    if not paths:
        return f"{_nodes(len(of))}: {nodes}; no path was probed since its host has booted"
    oldest = max(path.age for path in paths)
    return f"{_nodes(len(of))}: {nodes}; {passed(paths)} paths passed when last probed, the oldest probe {ago(oldest)}"


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


def passed(paths: Sequence[Path]) -> str:
    """How many of how many paths passed with all sizes that they were tried with."""
    lossy = {path.way for path in paths if not path.passed}
    ways = {path.way for path in paths}
    return f"{len(ways) - len(lossy)}/{len(ways)}"


def render(of: Sequence[Row], most: int, mistakes: Sequence[str] = ()) -> str:
    """The table of nodes, that of paths, what there is to say of each, the inventory's MISTAKES, the summary. MOST lines of
    each, the worst first."""
    if len(of) > most:
        of = sorted(of, key=lambda row: STATES.index(row.state))
    parts = [_cut(_table(of[:most]), len(of) - most, "nodes")]
    paths = [path for row in of for path in row.paths]
    if 0 < len({path.way for path in paths}) <= most:
        parts.append(_paths(paths))
    remarks = [f"{row.node}: {line}" for row in of for line in _remarks(row)]
    parts.append(_cut(remarks[:most], len(remarks) - most, "remarks: -e output=json has all"))
    wrong = [f"inventory: {line}" for line in mistakes]
    parts.append(_cut(wrong[:most], len(wrong) - most, "mistakes in the inventory"))
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
