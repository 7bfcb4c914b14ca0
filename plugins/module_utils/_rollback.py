# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change that waits to be confirmed: who cannot reach the host any more cannot undo it, so the host does it itself.

The document from before lies in a file with a deadline, and a process of its own waits for it. Whoever removes the file has
confirmed the change. After a reboot what is still there is undone before anything is applied.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ._atomic import discard, remove, remove_empty
from ._command import run
from ._model import Mistakes
from ._state import STATE_FOLDER, Failed, names_in, prepared, read_json

FOLDER = os.path.join(STATE_FOLDER, "rollback")
COMMAND = "/usr/local/sbin/podnet-overlay"
RETRY = 5.0
"""Seconds after which what could not be undone is tried again."""
_DETACHED = ("systemd-run", "--quiet", "--collect")


@dataclass(frozen=True)
class Pending:
    """The document to go back to (None: there was none), and until when the change may be confirmed."""

    name: str
    document: Mapping[str, Any] | None
    timeout: float
    """In seconds."""
    deadline: float
    """In seconds since boot: setting the clock does not move it."""
    boot: str

    @property
    def left(self) -> float:
        """Seconds until it is undone; 0 if that is due, as after a reboot."""
        return max(0.0, self.deadline - _since_boot()) if self.boot == _boot() else 0.0


def arm(name: str, document: Mapping[str, Any] | None, timeout: float) -> bool:
    """See to it that *name* goes back to *document* unless that is confirmed; whether nothing was pending before.

    What was pending already is what is gone back to: it was confirmed last.

    Raises:
        Failed: it cannot be arranged; nothing was changed.
    """
    if not os.access(COMMAND, os.X_OK):
        raise Failed(
            "%s is not there, which would undo an unconfirmed change: run the role podnet.overlay.node, "
            "or leave out confirm_timeout" % COMMAND
        )
    before = pending(name)
    now = before or Pending(name, document, timeout, 0.0, _boot())
    _write(replace(now, timeout=timeout, deadline=_since_boot() + timeout, boot=_boot()))
    try:
        _wait_for_it(name)
    except OSError as error:
        if before is None:
            disarm(name)
        raise Failed(
            "%s does not start, which would undo an unconfirmed change (%s): run the role podnet.overlay.node"
            % (COMMAND, error.strerror)
        ) from error
    return before is None


def _wait_for_it(name: str) -> None:
    """Start what waits, so that it outlives the connection that the change may cut, and the session, whose processes systemd may end."""
    if os.path.isdir("/run/systemd/system"):
        run(*_DETACHED, COMMAND, "rollback", name)
        return
    subprocess.Popen(
        [COMMAND, "rollback", name],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def extend(name: str) -> None:
    """Count the time from now on: the change has been made."""
    now = pending(name)
    if now is not None:
        _write(replace(now, deadline=_since_boot() + now.timeout))


def disarm(name: str) -> bool:
    """Confirm the change; whether there was one to confirm."""
    discard(_path(name))
    there = remove(_path(name))
    remove_empty([STATE_FOLDER, FOLDER])
    return there


def pending(name: str) -> Pending | None:
    """The unconfirmed change of a document.

    Raises:
        Mistakes: its file cannot be read.
    """
    raw = read_json(_path(name), "unconfirmed change")
    if raw is None:
        return None
    try:
        document = None if raw["document"] is None else dict(raw["document"])
        return Pending(str(raw["name"]), document, float(raw["timeout"]), float(raw["deadline"]), str(raw["boot"]))
    except (KeyError, TypeError, ValueError):
        raise Mistakes(["the unconfirmed change %s is damaged: remove it to keep the change" % _path(name)]) from None


def is_due(name: str) -> bool:
    """Whether a change should be undone by now. Of a file that cannot be read, who undoes it tells."""
    try:
        change = pending(name)
    except Mistakes:
        return False
    return change is not None and not change.left


def names() -> list[str]:
    """The documents with unconfirmed changes."""
    return sorted(names_in(FOLDER))


def _write(change: Pending) -> None:
    prepared(_path(change.name), json.dumps(asdict(change)) + "\n")()


def _path(name: str) -> str:
    return os.path.join(FOLDER, name + ".json")


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
