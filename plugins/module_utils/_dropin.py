# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of ours in the folder that another program keeps for its users' settings, such as ``conf.d``: one for each document.

Its first line says whose it is. So a file of that name that the operator made is told from ours, and is never written over.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable
from typing import NamedTuple

from ._atomic import missing_folders, remove_empty, text_of, write_atomically
from ._model import ALIAS_PREFIX

_MARK = "# " + ALIAS_PREFIX
_CAME = "# came with this file: "


class DropIn(NamedTuple):
    """What a file of ours holds: its lines without those on itself."""

    owner: str
    lines: tuple[str, ...]
    came: str = ""
    """The outermost of the folders that were made for it."""


def read(path: str) -> DropIn | None:
    """The file at *path*, if it is ours."""
    first, *lines = text_of(path).split("\n")
    if not first.startswith(_MARK):
        return None
    came = next((line[len(_CAME) :] for line in lines if line.startswith(_CAME)), "")
    held = tuple(line for line in lines if not line.startswith(_CAME))
    return DropIn(first[len(_MARK) :], held[:-1] if held and not held[-1] else held, came)


def owners(pattern: str) -> set[str]:
    """The documents that have a file of ours; in *pattern* ``%s`` is for a document's name."""
    before, _name, after = pattern.partition("%s")
    paths = [path for path in glob.glob(glob.escape(before) + "*" + glob.escape(after)) if read(path)]
    return {path[len(before) : len(path) - len(after)] for path in paths}


def check(path: str) -> None:
    """Raise where somebody else's file has the place of ours.

    Raises:
        OSError: that is so.
    """
    if read(path) is None and os.path.lexists(path):
        raise OSError(errno.EEXIST, "%s is there and not ours: rename that file, or remove it" % path)


def write(path: str, owner: str, lines: Iterable[str]) -> bool:
    """Make the file hold this; without lines it goes, with the folders that came with it. Whether that was a change.

    Raises:
        OSError: it cannot be written, or a file that is not ours is there.
    """
    check(path)
    there, wanted = read(path), tuple(lines)
    if not wanted:
        return _remove(path, there)
    if there and (there.owner, there.lines) == (owner, wanted):
        return False
    came = there.came if there else _coming(path)
    write_atomically(path, "\n".join([_MARK + owner, *([_CAME + came] if came else []), *wanted, ""]))
    return True


def _coming(path: str) -> str:
    """The outermost folder that comes with a new file, or came with another one of ours: the last of them takes it along."""
    missing = missing_folders(path)
    if missing:
        return missing[0]
    folder = os.path.dirname(path)
    others = [read(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]
    return next((other.came for other in others if other and other.came), "")


def _remove(path: str, there: DropIn | None) -> bool:
    if there is None:
        return False
    os.unlink(path)
    folder = os.path.dirname(path)
    folders: list[str] = []
    while there.came and (folder + "/").startswith(there.came + "/"):
        folders.insert(0, folder)
        folder = os.path.dirname(folder)
    remove_empty(folders)
    return True
