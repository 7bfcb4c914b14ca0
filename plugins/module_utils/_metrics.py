# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watcher's counters, as the text file that Prometheus' node_exporter collects (--collector.textfile.directory). Pure.

Source: Prometheus' text-based exposition format.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

FILE = "/run/podnet-overlay/metrics.prom"

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and its labels, sorted."""

METRICS = {
    "podnet_overlay_repairs_total": ("counter", "Objects brought back, by document and kind."),
    "podnet_overlay_repair_failures_total": ("counter", "Repairs that the kernel or something foreign refused."),
    "podnet_overlay_held": ("gauge", "Objects not repaired just now, because something keeps undoing it."),
    "podnet_overlay_drift": ("gauge", "Objects that are not as the document has them."),
    "podnet_overlay_last_repair_timestamp_seconds": ("gauge", "When something was last repaired."),
    "podnet_overlay_last_repair_seconds": ("gauge", "How long that took, from the event on."),
    "podnet_overlay_last_check_timestamp_seconds": ("gauge", "When all was last looked at."),
}
_LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"))


def sample(name: str, **labels: str) -> Sample:
    """What a value is kept under."""
    return name, tuple(sorted(labels.items()))


def render(values: Mapping[Sample, float]) -> str:
    """The file."""
    lines = []
    for name, (kind, about) in METRICS.items():
        lines += ["# HELP %s %s" % (name, about), "# TYPE %s %s" % (name, kind)]
        for (named, labels), value in sorted(values.items()):
            if named == name:
                inner = ",".join('%s="%s"' % (label, _escaped(text)) for label, text in labels)
                lines.append("%s%s %s" % (name, "{%s}" % inner if inner else "", repr(value)))
    return "\n".join(lines) + "\n"


def parse(text: str) -> dict[Sample, float]:
    """The values of such a file."""
    found = {}
    for line in text.split("\n"):
        match = None if line.startswith("#") else _LINE.fullmatch(line)
        if match:
            labels = ((label, _plain(escaped)) for label, escaped in _LABEL.findall(match[2] or ""))
            with contextlib.suppress(ValueError):  # no number: not of ours
                found[match[1], tuple(sorted(labels))] = float(match[3])
    return found


def _escaped(text: str) -> str:
    """A label's value may be the name of any file."""
    for plain, escape in _ESCAPES:
        text = text.replace(plain, escape)
    return text


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else str(match[1]), text)
