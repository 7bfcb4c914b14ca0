# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told to systemd: lines of the journal with fields to search by, and that a service is ready.

Sources: systemd's Native Journal Protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "podnet-overlay"
_STANDARD_ERROR = 2
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3)."""


def log(message: str, priority: int = INFO, **fields: object) -> None:
    """A line of the journal, or of standard error where there is none. Fields are named as the journal has them.

    What does not go out at once is dropped: who repairs does not wait for a journal that does not read.
    """
    entries = {"MESSAGE": message, "PRIORITY": priority, "SYSLOG_IDENTIFIER": IDENTIFIER, **fields}
    datagram = b"".join(_entry(name, str(value)) for name, value in entries.items())
    try:
        _send(SOCKET, datagram, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except OSError:
        _say(message)


def _say(message: str) -> None:
    """On standard error, which is a stream to the journal too, or a pipe: either takes so much at once if it takes anything."""
    with contextlib.suppress(OSError):
        if select.select([], [_STANDARD_ERROR], [], 0)[1]:
            os.write(_STANDARD_ERROR, message.encode("utf-8", "replace")[: select.PIPE_BUF - 1] + b"\n")


def _entry(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def notify(state: str) -> None:
    """Tell the service manager, if one asked for it: ``READY=1``, ``STOPPING=1``."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with contextlib.suppress(OSError):
            _send("\0" + path[1:] if path.startswith("@") else path, state.encode())


def _send(path: str, datagram: bytes, flags: int = 0) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.connect(path)
        sender.send(datagram, flags)
