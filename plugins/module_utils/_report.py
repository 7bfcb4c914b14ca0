# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the pings of all nodes amount to: a verdict, and a table for people."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """The requests of one size along a path."""

    size: int
    sent: int
    received: int
    error: str

    @property
    def lost(self) -> int:
        return self.sent - self.received


@dataclass(frozen=True)
class Row:
    """A path from one pod to another."""

    node: str
    source: str  # pod@node
    target: str
    address: str
    cells: tuple[Cell, ...]  # by size
    ttl: int | None
    rtt: float | None  # milliseconds, of the smallest size

    @property
    def passed(self) -> bool:
        return bool(self.cells) and not any(cell.lost for cell in self.cells)

    @property
    def complaints(self) -> list[str]:
        """What is wrong with a path that was tried, a line for each size."""
        return [
            f"{self.source} to {self.target} {self.address}, {c.size} bytes: {c.lost} of {c.sent} lost, {c.error}"
            for c in self.cells
            if c.lost
        ]

    def data(self) -> dict[str, t.Any]:
        return {
            "from": self.source,
            "to": self.target,
            "address": self.address,
            "sizes": {str(cell.size): {"sent": cell.sent, "received": cell.received} for cell in self.cells},
            "ttl": self.ttl,
            "rtt_ms": self.rtt,
        }


def rows(node: str, probes: list[dict[str, t.Any]], outcome: dict[str, t.Any]) -> list[Row]:
    """The rows of one node, from the paths that were to be tried and what podnet.overlay.ping registered there."""
    found: dict[tuple[str, str], list[dict[str, t.Any]]] = {}
    for path in outcome.get("paths") or []:
        found.setdefault((path["namespace"], path["address"]), []).append(path)
    return [
        _row(node, probe.get("namespace", ""), target, found)
        for probe in probes
        for target in (given if isinstance(given, dict) else {"address": given} for given in probe["targets"])
    ]


def trouble(outcome: dict[str, t.Any]) -> str:
    """Why there is no result from a node, or empty."""
    text = str(outcome.get("msg", "")).strip().splitlines()
    reason = ": " + text[0].replace("Task failed: ", "", 1) if text else ""
    if outcome.get("unreachable"):
        return f"unreachable{reason}"
    if outcome.get("failed"):
        return f"failed{reason}"
    return "" if "paths" in outcome else "was not asked, or failed before"


def summary(of: list[Row]) -> str:
    """One line: paths that passed, the largest sizes, packets lost."""
    passed = sum(row.passed for row in of)
    full = sorted({row.cells[-1].size for row in of if row.cells})
    lost = sum(cell.lost for row in of for cell in row.cells)
    untried = sum(not row.cells for row in of)
    size = f", {_span(full)} bytes with DF" if full else ""
    return f"{passed} of {len(of)} paths{size}, {lost} lost" + (f", {untried} not tried" if untried else "")


def render(of: list[Row], silent: dict[str, str], most: int) -> str:
    """The table, beyond MOST paths one of nodes, those with losses first. Then what is wrong, then the summary."""
    lines = _paths(of) if len(of) <= most else _nodes(of, most)
    complaints = [f"{node}: {reason}" for node, reason in silent.items()]
    complaints += [complaint for row in of for complaint in row.complaints]
    if complaints:
        lines += ["", *complaints[:most]]
        if len(complaints) > most:
            lines.append(f"and {len(complaints) - most} more")
    return "\n".join([*lines, "", summary(of)])


def _row(
    node: str,
    namespace: str,
    target: dict[str, t.Any],
    found: dict[tuple[str, str], list[dict[str, t.Any]]],
) -> Row:
    paths = sorted(found.get((namespace, target["address"]), []), key=lambda path: path["size"])
    answered = [path for path in paths if path["rtt_ms"]]
    return Row(
        node=node,
        source=_at(namespace, node),
        target=_at(target.get("pod", ""), target.get("node", "")) or target["address"],
        address=target["address"],
        cells=tuple(Cell(path["size"], path["sent"], path["received"], path["error"]) for path in paths),
        ttl=answered[0]["ttl"] if answered else None,
        rtt=answered[0]["rtt_ms"]["avg"] if answered else None,
    )


def _at(pod: str, node: str) -> str:
    return f"{pod}@{node}" if pod and node else pod or node


def _paths(of: list[Row]) -> list[str]:
    columns = max((len(row.cells) for row in of), default=0)
    sizes = [sorted({row.cells[i].size for row in of if i < len(row.cells)}) for i in range(columns)]
    heads = [f"{_span(size)} B" for size in sizes]
    if columns:
        heads[-1] += " DF"
    table = [["from", "to", "address", *heads, "ttl", "ms"]]
    for row in of:
        cells = [f"{cell.received}/{cell.sent}" for cell in row.cells] + ["-"] * (columns - len(row.cells))
        rtt = "-" if row.rtt is None else f"{row.rtt:.2f}"
        table.append([row.source, row.target, row.address, *cells, str(row.ttl or "-"), rtt])
    return align(table, left=3)


def _nodes(of: list[Row], most: int) -> list[str]:
    nodes: dict[str, list[Row]] = {}
    for row in of:
        nodes.setdefault(row.node, []).append(row)
    table = []
    for node, own in sorted(nodes.items(), key=lambda item: all(row.passed for row in item[1])):
        times = [row.rtt for row in own if row.rtt is not None]
        lost = sum(cell.lost for row in own for cell in row.cells)
        rtt = f"{sum(times) / len(times):.2f}" if times else "-"
        table.append([node, f"{sum(row.passed for row in own)}/{len(own)}", str(lost), rtt])
    lines = align([["node", "paths", "lost", "ms"], *table[:most]], left=1)
    return lines + ([f"and {len(table) - most} more nodes"] if len(table) > most else [])


def align(table: list[list[str]], left: int) -> list[str]:
    """Columns two spaces apart, the first LEFT of them flush left, a line under the head."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in table
    ]
    return [lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])]


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def some(names: Sequence[str], most: int = 20) -> str:
    """The first of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
