# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A preflight for people: a table of blocker, host and remedy, errors first. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from ._preflight import ERROR, WARNING, Finding
from ._shares import some

_HEAD = ("", "blocker", "host", "remedy")
_WIDTHS = (7, 60, 24, 60)  # at most, of the columns; what is longer goes on below
_NAMES = 4


def summary(findings: Sequence[Finding], hosts: int, tried: int, whole: int, what: str) -> str:
    """The verdict in a line."""
    errors, warnings = (sum(f.level == level for f in findings) for level in (ERROR, WARNING))
    paths = f"{whole} of {tried} paths carry {what}" if tried else "no path was probed"
    return f"{_count(hosts, 'host')}, {paths}: {_count(errors, 'error')}, {_count(warnings, 'warning')}"


def render(findings: Sequence[Finding], managers: Mapping[str, str], verdict: str) -> str:
    """The table, who configures the underlay, and the verdict. What several hosts have in common is one row."""
    hosts: dict[tuple[str, str, str], list[str]] = {}
    for finding in sorted(findings, key=lambda finding: finding.level != ERROR):
        hosts.setdefault((finding.level, finding.blocker, finding.remedy), []).append(finding.host)
    rows = [(level, blocker, some(names, _NAMES), remedy) for (level, blocker, remedy), names in hosts.items()]
    lines = [*_table([_HEAD, *rows]), ""] if rows else []
    by_manager: dict[str, list[str]] = {}
    for name, manager in managers.items():
        by_manager.setdefault(manager, []).append(name)
    lines += [f"underlay: {manager} on {some(names, _NAMES)}" for manager, names in by_manager.items()]
    return "\n".join(map(_shown, [*lines, verdict]))


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [min(most, max(len(row[i]) for row in rows)) for i, most in enumerate(_WIDTHS)]
    for number, row in enumerate(rows):
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths)]
        for turn in range(max(map(len, cells))):
            parts = [cell[turn] if turn < len(cell) else "" for cell in cells]
            yield "  ".join(part.ljust(width) for part, width in zip(parts, widths)).rstrip()
        if number == 0:
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _shown(line: str) -> str:
    """What hosts name themselves, as a rule's comment, moves no cursor and begins no line."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
