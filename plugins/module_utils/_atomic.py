# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are the old or the new one at any moment, or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable


def text_of(path: str) -> str:
    """What a file says, nothing where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write_atomically(path: str, content: str, mode: int = 0o644) -> None:
    """Write a file so that a reader, or a power loss, finds the old or the new one and never a torn one."""
    prepare(path, content, mode)()


def prepare(path: str, content: str, mode: int = 0o644) -> Callable[[], None]:
    """Write the new file beside its place and on the disk; what is returned puts it there.

    A full disk or a read-only one says so here. Writers of the same file hold a lock, so the name beside it is always the
    same, and what a killed run left there is overwritten.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    folder = os.path.dirname(path)
    made = missing_folders(path)
    temporary = beside(path)
    try:
        for each in made:
            os.mkdir(each)
            os.chmod(each, 0o755)  # noqa: S103 - whatever the umask: pods' processes read in there
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        discard(path)
        remove_empty(made)
        raise

    def put() -> None:
        os.replace(temporary, path)
        sync(folder)

    return put


def remove(path: str) -> bool:
    """Remove a file so that no power loss brings it back; whether it was there.

    Raises:
        OSError: it cannot be removed.
    """
    if not os.path.lexists(path):  # where nothing can be written, unlink would not say so
        return False
    os.unlink(path)
    sync(os.path.dirname(path))
    return True


def sync(folder: str) -> None:
    """See to it that what was put into a folder, or taken out of it, is so on the disk."""
    directory = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def beside(path: str) -> str:
    """The name of the file that is to become *path*."""
    folder, name = os.path.split(path)
    return os.path.join(folder, ".%s.new" % name)


def discard(path: str) -> None:
    """Remove what was prepared for *path*."""
    with contextlib.suppress(OSError):
        os.unlink(beside(path))


def missing_folders(path: str) -> list[str]:
    """The folders that *path* needs and that are not there, the outermost first."""
    missing: list[str] = []
    folder = os.path.dirname(path)
    while folder and not os.path.isdir(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    return missing


def remove_empty(folders: list[str]) -> None:
    """Remove those of *folders*, the outermost first, that nobody has put anything into."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
