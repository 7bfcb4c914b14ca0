# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of a host's last probes, kept until it boots, so that the status can tell how old they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ._atomic import write_atomically

PATH = "/run/podnet-overlay/probes.json"
VERSION = 1
_WORDS = ("namespace", "address", "pod", "node", "error")
_NUMBERS = ("size", "sent", "received")


def write(results: Sequence[Mapping[str, Any]], moment: float) -> None:
    """Record the *results* of podnet.overlay.ping in place of all that were there: of targets that are no more, none stays.

    Args:
        results: as the module returns them; what else a target said of itself is not kept.
        moment: when they were got, in seconds since 1970.

    Raises:
        OSError: the file cannot be written.
    """
    probes = [
        {
            **{key: str(item.get(key) or "") for key in _WORDS},
            **{key: int(item[key]) for key in _NUMBERS},
            "time": moment,
        }
        for item in results
    ]
    write_atomically(PATH, json.dumps({"version": VERSION, "probes": probes}) + "\n")


def read() -> list[dict[str, Any]]:
    """What is recorded: nothing since the host has booted, or what another release wrote, is an empty list."""
    try:
        with open(PATH, encoding="utf-8") as file:
            raw = json.load(file)
    except (OSError, ValueError):
        return []
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        return []
    return list(raw.get("probes") or [])
