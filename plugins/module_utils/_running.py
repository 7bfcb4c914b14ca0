# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs on the overlay of a host: processes in its pods, and what others have put on its bridge, such as containers.

With nothing but the standard library, as node_info needs it.
"""

from __future__ import annotations

import os
import typing as t
from collections import Counter

from . import _netns

Identity = tuple[int, int]


def pods(namespaces: t.Iterable[str], ports: t.Iterable[str]) -> list[dict[str, t.Any]]:
    """The namespaces with processes in them, and the ports, of which nobody knows.

    Args:
        namespaces: names of the overlay's own.
        ports: of its bridge, those that are not its own.
    """
    inside: Counter[Identity | None] = Counter(_processes())
    found: list[dict[str, t.Any]] = [{"name": name, "processes": inside[_identity(name)]} for name in namespaces]
    return [pod for pod in found if pod["processes"]] + [{"name": name, "processes": None} for name in ports]


def _identity(name: str) -> Identity | None:
    try:
        return _netns.identity(name)
    except OSError:  # it went meanwhile
        return None


def _processes() -> t.Iterator[Identity | None]:
    """The network namespace of each process."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found = os.stat(f"/proc/{entry}/ns/net")
            except OSError:  # it ended meanwhile, or is a zombie
                continue
            yield found.st_dev, found.st_ino
