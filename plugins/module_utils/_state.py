# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host keeps of its documents, and the one lock of all fronts.

A document lies under /etc as it was given: it is what the host is brought to at boot. What undoing it needs lies under
/var/lib: sysctls and folders from before, and the documents of runs that did not come to their end, whose objects may still
be there. That is written before the first change, and the document after the last one: so what is under /etc has been
reached, and a run that was killed is forgotten at the next boot, or continued by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import _firewall
from ._atomic import discard, prepare, remove, text_of
from ._model import Key, Mistakes, State, Sysctl, document_name, parse, state_of
from ._peers import expand, others

DOCUMENT_FOLDER = "/etc/podnet-overlay"
STATE_FOLDER = "/var/lib/podnet-overlay"
STATE_VERSION = 2
KNOWN_VERSIONS = (1, STATE_VERSION)
"""Version 1, of release 0.3.0 and older, had the document in it."""
LOCK_FILE = "/run/podnet-overlay.lock"
LOCK_TIMEOUT = 120.0
_WIDTH = 160


class Failed(Exception):
    """A run failed; the message says what, where, why, and what became of what had been done.

    ``refused`` are the objects that the kernel did not take, if it was that.
    """

    def __init__(self, message: str, refused: Collection[Key] = ()) -> None:
        super().__init__(message)
        self.refused = refused


class Unwritten(Failed):
    """A run's files cannot be written or removed, which it makes sure of before its first change."""


@dataclass(frozen=True)
class Saved:
    """What is kept of a document on the host: the document as it was given, and what was there before."""

    name: str
    document: Mapping[str, Any]
    before: tuple[Sysctl, ...] = ()
    previous: tuple[Mapping[str, Any], ...] = ()
    """Documents of runs that did not come to their end: what they made may still be there."""
    folders: tuple[str, ...] = ()
    """Folders that were made for files, the outermost first."""
    files: tuple[str, ...] = ()
    """The document's files, and those of runs that did not come to their end: they go also if the document is lost."""

    @cached_property
    def desired(self) -> State:
        """What the document desires, and what those before it did that may still be there."""
        states = [self._read(item) for item in self.previous if item]
        return {key: item for state in (*states, self.reached) for key, item in state.items()}

    @cached_property
    def reached(self) -> State:
        """What the document desires, which a run has brought the host to."""
        return self._read(self.document) if self.document else {}

    def _read(self, document: Mapping[str, Any]) -> State:
        try:
            return desired_state(document, self.name)
        except Mistakes as error:
            where = "what is saved of the document %s (%s, %s): " % (
                self.name,
                document_path(self.name),
                _state_path(self.name),
            )
            raise Mistakes([where + line for line in error.lines]) from None

    def as_json(self) -> str:
        """The file under /var/lib."""
        before = [
            {
                "namespace": item.namespace,
                "name": item.name,
                "value": item.value,
                "restores": [list(pair) for pair in item.restores],
            }
            for item in self.before
        ]
        state = {
            "version": STATE_VERSION,
            "name": self.name,
            "before": before,
            "previous": self.previous,
            "folders": self.folders,
            "files": self.files,
        }
        return json.dumps(state, sort_keys=True) + "\n"


# ------------------------------------------------------------------------------------------------ reading


def load(name: str) -> Saved | None:
    """What is kept of one document, or None.

    Raises:
        Mistakes: it cannot be read, or another release wrote it.
    """
    found = _load(name)
    known = _last.get(name)
    if found is None or found != known:
        _last[name] = known = found
    return known


_last: dict[str, Saved | None] = {}
"""What was read last: the watcher reads the same again and again, and to parse it takes longer than to compare it."""


def _load(name: str) -> Saved | None:
    name = document_name(name)
    document = read_json(document_path(name), "document")
    path = _state_path(name)
    raw = read_json(path, "saved state")
    if raw is None:
        return None if document is None else Saved(name, document)
    if raw.get("version") not in KNOWN_VERSIONS:
        raise Mistakes(
            ["the saved state %s has version %r, and this release knows %d" % (path, raw.get("version"), STATE_VERSION)]
        )
    try:
        if document is None:
            document = dict(raw.get("document", {}))
        before = tuple(_sysctl(item) for item in raw["before"])
        previous = tuple(dict(item) for item in raw.get("previous", ()))
        folders, files = (tuple(str(item) for item in raw.get(key, ())) for key in ("folders", "files"))
        return Saved(name, document, before, previous, folders, files)
    except (KeyError, TypeError, ValueError):
        raise Mistakes(
            ["the saved state %s is damaged: restore it, or remove it to start from the kernel's state" % path]
        ) from None


def read_json(path: str, what: str) -> dict[str, Any] | None:
    """The mapping in the file at *path*, or None where there is none.

    Raises:
        Mistakes: it cannot be read; *what* says which file it is.
    """
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
        if not isinstance(raw, dict):
            raise ValueError("no mapping")
        return raw
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        raise Mistakes(
            [
                "the %s %s cannot be read (%s): restore it, or remove it to start from the kernel's state"
                % (what, path, error)
            ]
        ) from None


def _sysctl(raw: Mapping[str, Any]) -> Sysctl:
    restores = tuple((str(name), str(value)) for name, value in raw["restores"])
    return Sysctl(str(raw["namespace"]), str(raw["name"]), str(raw["value"]), restores)


def document_path(name: str) -> str:
    """Where a document lies."""
    return os.path.join(DOCUMENT_FOLDER, name + ".json")


def _state_path(name: str) -> str:
    return os.path.join(STATE_FOLDER, name + ".json")


def names() -> list[str]:
    """The documents of this host, those of which a run that was killed left only a state too."""
    return sorted({name for folder in (DOCUMENT_FOLDER, STATE_FOLDER) for name in names_in(folder)})


def documents() -> list[str]:
    """The documents that the host is brought to."""
    return sorted(names_in(DOCUMENT_FOLDER))


def names_in(folder: str) -> Iterator[str]:
    """The documents that a folder has a file of."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.endswith(".json") and not name.startswith("."):
                yield name[:-5]


# ------------------------------------------------------------------------------------------------ writing


def begin(before: Saved | None, during: Saved, after: Saved) -> Callable[[], None]:
    """Write down what a run is about to do, and make sure that its end can be written too.

    Args:
        before: what is kept now.
        during: what has to be known if the run does not come to its end.
        after: what is to be kept then.

    Returns:
        What writes *after*, to be called after the last change. It needs no more room on the disk.

    Raises:
        Unwritten: a file cannot be written; nothing was changed.
    """
    puts = []
    if before is None or during != before:
        prepared(_state_path(during.name), during.as_json())()
    try:
        if before is None or after.document != before.document or not os.path.exists(document_path(after.name)):
            puts.append(prepared(document_path(after.name), render(after.document)))
        if after != during or text_of(_state_path(after.name)) != after.as_json():  # of an older release
            puts.append(prepared(_state_path(after.name), after.as_json()))
    except Failed:
        keep(before, during.name)
        raise

    def end() -> None:
        try:
            for put in puts:
                put()
        except OSError as error:
            raise Failed(_unwritable(error, error.filename or during.name)) from error

    return end


def can_forget(name: str) -> None:
    """Make sure, before the first change, that a document can be forgotten.

    Raises:
        Unwritten: its files cannot be removed; nothing was changed.
    """
    for path in (document_path(name), _state_path(name)):
        if os.path.exists(path) and not os.access(os.path.dirname(path), os.W_OK):
            raise Unwritten("cannot remove %s: make %s writable, and run again" % (path, os.path.dirname(path)))


def keep(saved: Saved | None, name: str) -> None:
    """Keep *saved*, to which a run that failed goes back, or forget the document with None.

    Raises:
        Failed: a file cannot be written.
    """
    for path in (document_path(name), _state_path(name)):
        discard(path)
    if saved is not None:
        prepared(_state_path(name), saved.as_json())()
        return
    try:
        for path in (document_path(name), _state_path(name)):
            remove(path)
    except OSError as error:
        raise Failed(_unwritable(error, error.filename)) from error
    for folder in (DOCUMENT_FOLDER, STATE_FOLDER):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def prepared(path: str, text: str) -> Callable[[], None]:
    """As ``prepare``, for what only root may read.

    Raises:
        Unwritten: it cannot be written.
    """
    try:
        return prepare(path, text, 0o600)
    except OSError as error:
        raise Unwritten(_unwritable(error, path)) from error


def _unwritable(error: OSError, path: str) -> str:
    return "cannot write %s (%s): make room or make it writable, and run again" % (path, error.strerror)


def render(document: Mapping[str, Any]) -> str:
    """A document as people read it: what fits on a line is on one."""

    def lines(value: Any, indent: str) -> str:
        text = json.dumps(value)
        if len(indent) + len(text) <= _WIDTH or not isinstance(value, (dict, list)):
            return text
        inner = indent + "  "
        if isinstance(value, dict):
            parts = ["%s%s: %s" % (inner, json.dumps(key), lines(item, inner)) for key, item in value.items()]
        else:
            parts = [inner + lines(item, inner) for item in value]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        return "%s\n%s\n%s%s" % (opening, ",\n".join(parts), indent, closing)

    return lines(document, "") + "\n"


# ------------------------------------------------------------------------------------------------ the lock


@contextlib.contextmanager
def locked(timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """The one lock of all fronts. *timeout* in seconds. Its file goes with the last document.

    Raises:
        Failed: somebody else holds it for longer, or it cannot be made.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            # Nobody else may open it: to hold the lock, reading it would be enough.
            descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened = open(descriptor, "r+", encoding="utf-8")  # noqa: SIM115
            os.fchmod(descriptor, 0o600)
        except PermissionError:
            raise
        except OSError as error:
            raise Failed("cannot write %s (%s): remove it, or make it writable" % (LOCK_FILE, error.strerror)) from None
        with opened as file:
            if not _acquired(file.fileno(), deadline):
                raise Failed(
                    "another run holds %s for more than %d s: wait for it, or see who with fuser" % (LOCK_FILE, timeout)
                )
            if not _is_at(file.fileno(), LOCK_FILE):  # who held it has removed it with the last document
                continue
            try:
                yield
            finally:
                if not names():
                    with contextlib.suppress(OSError):
                        os.unlink(LOCK_FILE)
            return


def _acquired(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)


def _is_at(descriptor: int, path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


# ------------------------------------------------------------------------------------------------ documents


def desired_state(document: Mapping[str, Any], owner: str, namespace: str = "") -> State:
    """A document with its peers expanded.

    Raises:
        Mistakes: all that is wrong with it.
    """
    mistakes: list[str] = []
    if not namespace and isinstance(document, Mapping):
        namespace = str(document.get("namespace") or "")

    def collected(state: State, work: Callable[[], State]) -> State:
        try:
            return work()
        except Mistakes as error:
            mistakes.extend(error.lines)
            return state

    desired = collected({}, lambda: parse(document, owner, namespace))
    given: Any = document  # whatever the caller was given
    clause, wall = (given.get(key) if isinstance(given, Mapping) else None for key in ("peers", "firewall"))
    table = clause.get("table") or {} if isinstance(clause, Mapping) else {}
    if clause:
        desired = collected(desired, lambda: expand(desired, clause, table, namespace))
    if wall:
        peers = others(clause, table) if clause and not mistakes else {}
        if isinstance(clause, Mapping) and isinstance(wall, Mapping) and wall.get("local"):
            # What the peers' clause says need not be said again; documents of 0.2.0 have it there only.
            wall = {"tunnel": clause.get("dev"), "direct_routing": clause.get("direct_routing"), **wall}
        desired = collected(desired, lambda: {**desired, **state_of([_firewall.desired(wall, owner, peers)])})
    if mistakes:
        raise Mistakes(mistakes)
    return desired
