# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs' firewalls (placeholder: FOREIGN overwrites this file whole)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._model import Accept


def active() -> list[str]:
    return []


def wanted(program: str, owner: str, **words: Any) -> Accept:
    return Accept(program, tuple(words), owner)


def read() -> Iterator[Accept]:
    return iter(())


def write(before: Accept | None, after: Accept | None) -> None:
    raise OSError("%s %s" % (before, after))
