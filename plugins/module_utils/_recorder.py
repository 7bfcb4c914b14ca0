# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process in the background that keeps what it hears, from one task to a later one.

It listens at a socket in /run. Whoever connects and says so gets what it has, and the process ends; a socket that refuses
is the remains of a killed one. It ends by itself after its time. Sources: unix(7), flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time
import typing as t
from dataclasses import dataclass

FOLDER = "/run"

_STOP = b"stop"
_PATIENCE = 20  # seconds for a recorder to answer


class Failed(Exception):
    """A recorder that cannot be started or read, in words."""


class Reader(t.Protocol):
    """A socket, and what was heard there."""

    socket: socket.socket

    def read(self) -> None:
        """Take what has come, and not what a flood goes on to send."""


Readers = t.Sequence[Reader]


@dataclass(frozen=True)
class Recorder:
    """One of a kind, such as ``capture``, by its name."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Its socket."""
        return os.path.join(FOLDER, f"podnet-overlay-{self.kind}.{self.name}")

    def running(self) -> bool:
        """Whether it lives."""
        with contextlib.suppress(OSError), self._connected():
            return True
        return False

    def start(
        self, open_all: t.Callable[[contextlib.ExitStack], Readers], answer: t.Callable[[], t.Any], *, timeout: float
    ) -> None:
        """Record with the readers that OPEN_ALL opens, until ``stop`` or for TIMEOUT seconds; ANSWER, in JSON, is what it has.

        When it returns, the recording runs. Raises Failed, and what OPEN_ALL raises; then nothing was started.
        """
        with contextlib.ExitStack() as opened:
            if not opened.enter_context(self._cleared()):
                raise Failed(f"a {self} runs already on this host: stop it first, or give this one another name")
            readers = open_all(opened)
            listener = opened.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(self.path)
            os.chmod(self.path, 0o600)
            listener.listen()
            try:
                child = os.fork()
            except OSError:
                os.unlink(self.path)
                raise
            if not child:
                _background(self.path, listener, readers, answer, time.monotonic() + timeout)

    def stop(self) -> t.Any | None:
        """End it and return what it has. None where none runs.

        Raises Failed, and PermissionError. Nothing is left in any case.
        """
        try:
            with self._connected() as recorder:
                recorder.sendall(_STOP)
                recording = self._received(recorder)
        except (FileNotFoundError, ConnectionError):
            recording = b""
        if not recording:  # nothing there, the remains of a killed one, or one that just ended by itself
            with self._cleared():
                return None
        try:
            return json.loads(recording)
        except ValueError as e:
            raise Failed(f"the {self} was ended while it told what it has: nothing of it can be used") from e

    def _received(self, recorder: socket.socket) -> bytes:
        # Linux tells who listens, so this is no process id that another process may have by now.
        pid = struct.unpack_from("=i", recorder.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        received = bytearray()
        try:
            while part := recorder.recv(1 << 20):
                received += part
            return bytes(received)
        except socket.timeout as e:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            raise Failed(f"the {self} (process {pid}) did not answer in {_PATIENCE} s and was killed") from e

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_PATIENCE)
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _cleared(self) -> t.Iterator[bool]:
        """Whether none of this name runs; its remains are gone.

        One at a time: two that start at once do not take each other's fresh socket for remains.
        """
        folder = os.open(FOLDER, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._lock(folder)
            free = not self.running()
            if free:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
            yield free
        finally:
            os.close(folder)

    def _lock(self, folder: int) -> None:
        """Not for ever: whoever can read the folder can lock it."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failed(f"another process has {FOLDER} locked: see fuser {FOLDER}. No {self}") from None
                time.sleep(0.05)


def _end(_number: int, _frame: t.Any) -> t.NoReturn:
    """By way of the end, which clears up."""
    raise SystemExit


def _background(
    path: str, listener: socket.socket, readers: Readers, answer: t.Callable[[], t.Any], deadline: float
) -> t.NoReturn:
    """The process in the background. It never returns into the module that it was forked from."""
    try:
        os.setsid()
        os.chdir("/")
        signal.signal(signal.SIGTERM, _end)
        listener.listen()  # once more: who connects is told the process that did this last
        _keep({listener.fileno(), *(reader.socket.fileno() for reader in readers)})
        asking = _record(listener, readers, deadline)
        told = json.dumps(answer()).encode() if asking else b""
    except BaseException:  # noqa: BLE001  # nobody is left to tell; stop finds nothing
        asking, told = None, b""
    try:
        # Who gets the answer finds nothing left of us.
        for reader in readers:
            reader.socket.close()
        os.unlink(path)
        if asking:
            asking.settimeout(_PATIENCE)
            asking.sendall(told)
    finally:
        os._exit(0)


def _keep(kept: set[int]) -> None:
    """Close all other descriptors: an inherited pipe would keep the connection's ssh waiting for its end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if descriptor > 2 and descriptor not in kept:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _record(listener: socket.socket, readers: Readers, deadline: float) -> socket.socket | None:
    """Record until somebody asks, and return the connection to answer to, or until the deadline."""
    by_descriptor = {reader.socket.fileno(): reader for reader in readers}
    poll = select.poll()
    for descriptor in (listener.fileno(), *by_descriptor):
        poll.register(descriptor, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        for descriptor, _event in poll.poll(left * 1000):
            if descriptor in by_descriptor:
                by_descriptor[descriptor].read()
            elif connection := _asked(listener):
                for reader in readers:
                    reader.read()
                return connection


def _asked(listener: socket.socket) -> socket.socket | None:
    connection = listener.accept()[0]
    connection.settimeout(1)
    with contextlib.suppress(OSError):
        if connection.recv(len(_STOP)) == _STOP:
            return connection
    connection.close()  # somebody only wanted to know whether we live
    return None
