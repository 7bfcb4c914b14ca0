# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings a host to a document: observe, compare, apply, and undo when something fails.

Every front (module, and later the boot unit, the command and the watcher) goes through ``converge``.
What a document needs to be undone (values from before its first change) is saved before that change is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from . import _firewall, _firewall_clause, _foreign, _nft
from ._atomic import write_atomically
from ._difference import Operation, conflicts, difference, missing
from ._kernel import Kernel, KernelError
from ._model import (
    OVERLAY_PROTOCOL,
    Accept,
    Address,
    File,
    Firewall,
    ForwardingEntry,
    Ipip,
    Key,
    Link,
    Mistakes,
    Namespace,
    NamespaceFile,
    Neighbour,
    Object,
    Route,
    State,
    Sysctl,
    SysctlLine,
    Vxlan,
    describe,
    document_name,
    interface_of,
    of_type,
    parse,
    render,
    state_of,
)
from ._peers import expand, others

STATE_FOLDER = "/var/lib/podnet-overlay"
STATE_VERSION = 1
LOCK_FILE = "/run/podnet-overlay.lock"
LOCK_TIMEOUT = 120.0


class Failed(Exception):
    """A run failed; the message says what, where, why, and what became of what had been done."""


@dataclass(frozen=True)
class Result:
    """What a run did, or in check mode would do. ``before`` and ``after`` hold a line for each object that changes."""

    operations: tuple[Operation, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.operations)

    @property
    def before(self) -> str:
        return _lines((operation.before, operation.after) for operation in self.operations)

    @property
    def after(self) -> str:
        return _lines((operation.after, operation.before) for operation in self.operations)


def _lines(pairs: Iterator[tuple[Object | None, Object | None]]) -> str:
    """A line for the first of each pair; where only the owner differs, it says that. Of firewalls, a line for each rule."""
    lines, rules = [], []
    for item, other in pairs:
        if isinstance(item, Firewall):
            known = set(_nft.lines(other)) if isinstance(other, Firewall) else set()
            rules += ["firewall %s\n" % line for line in _nft.lines(item) if line not in known]
        elif isinstance(item, Accept):
            kept = other.rules if isinstance(other, Accept) and other.owner == item.owner else ()
            rules += ["accept in %s: %s\n" % (item.program, rule) for rule in item.rules if rule not in kept]
        elif item is not None:
            same = other is not None and describe(item) == describe(other)
            lines.append(describe(item) + (" of %s" % (getattr(item, "owner", "") or "nobody") if same else "") + "\n")
    return "".join([*sorted(lines), *rules])


# ------------------------------------------------------------------------------------------------ saved state


@dataclass(frozen=True)
class Saved:
    """What is kept of a document on the host: the document as it was given, and what was there before."""

    name: str
    document: Mapping[str, Any]
    before: tuple[Sysctl, ...] = ()
    previous: tuple[Mapping[str, Any], ...] = ()
    """Documents of runs that did not come to their end: what they made may still be there."""

    @cached_property
    def desired(self) -> State:
        """What the document desires, and what those before it did that may still be there."""
        try:
            states = [desired_state(item, self.name) for item in (*self.previous, self.document) if item]
            return {key: item for state in states for key, item in state.items()}
        except Mistakes as error:
            where = "the saved state %s: " % _state_path(self.name)
            raise Mistakes([where + line for line in error.lines]) from None

    def as_json(self) -> str:
        before = [
            {
                "namespace": item.namespace,
                "name": item.name,
                "value": item.value,
                "restores": [list(pair) for pair in item.restores],
            }
            for item in self.before
        ]
        return (
            json.dumps(
                {
                    "version": STATE_VERSION,
                    "name": self.name,
                    "document": self.document,
                    "before": before,
                    "previous": self.previous,
                },
                sort_keys=True,
            )
            + "\n"
        )


def load(name: str) -> Saved | None:
    """The saved state of one document.

    Raises:
        Mistakes: it cannot be read, or another release wrote it.
    """
    path = _state_path(document_name(name))
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        raise Mistakes(
            [
                "the saved state %s cannot be read (%s): restore it, or remove it to start from the kernel's state"
                % (path, error)
            ]
        ) from None
    if isinstance(raw, dict) and raw.get("version") != STATE_VERSION:
        raise Mistakes(
            ["the saved state %s has version %r, and this release knows %d" % (path, raw.get("version"), STATE_VERSION)]
        )
    try:
        before = tuple(_sysctl(item) for item in raw["before"])
        return Saved(name, dict(raw["document"]), before, tuple(dict(item) for item in raw.get("previous", ())))
    except (KeyError, TypeError, ValueError):
        raise Mistakes(
            ["the saved state %s is damaged: restore it, or remove it to start from the kernel's state" % path]
        ) from None


def _sysctl(raw: Mapping[str, Any]) -> Sysctl:
    restores = tuple((str(name), str(value)) for name, value in raw["restores"])
    return Sysctl(str(raw["namespace"]), str(raw["name"]), str(raw["value"]), restores)


def _state_path(name: str) -> str:
    return os.path.join(STATE_FOLDER, name + ".json")


def _save(saved: Saved | None, name: str) -> None:
    """Write the saved state, or remove it. Raises Failed."""
    path = _state_path(name)
    try:
        if saved is not None:
            write_atomically(path, saved.as_json(), 0o600)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(STATE_FOLDER)
    except OSError as error:
        raise Failed(
            "cannot write %s (%s): make room or make it writable, and run again" % (path, error.strerror)
        ) from error


def saved_names() -> list[str]:
    """The documents of this host."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            name[:-5] for name in os.listdir(STATE_FOLDER) if name.endswith(".json") and not name.startswith(".")
        )
    return []


@contextlib.contextmanager
def locked(timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """The one lock of all fronts. *timeout* in seconds."""
    try:
        opened = open(LOCK_FILE, "w", encoding="utf-8")  # noqa: SIM115
    except PermissionError:
        raise
    except OSError as error:
        raise Failed("cannot write %s (%s): remove it, or make it writable" % (LOCK_FILE, error.strerror)) from None
    with opened as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Failed(
                        "another run holds %s for more than %d s: wait for it, or see who with fuser"
                        % (LOCK_FILE, timeout)
                    ) from None
                time.sleep(0.1)
        yield


# ------------------------------------------------------------------------------------------------ documents


def desired_state(document: Mapping[str, Any], owner: str, namespace: str = "") -> State:
    """A document with its peers expanded.

    Raises:
        Mistakes: all that is wrong with it.
    """
    mistakes: list[str] = []

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


# ------------------------------------------------------------------------------------------------ converging


def converge(
    desired: State,
    *,
    owner: str = "",
    document: Mapping[str, Any] | None = None,
    absent: Sequence[Object] = (),
    purge: bool = True,
    adopt: bool = False,
    check: bool = False,
    further: Callable[[State], State] | None = None,
) -> Result:
    """Bring the host to *desired*.

    Args:
        desired: what should be there.
        owner: the document's name; '' for a single thing that nothing owns.
        document: what to save as that document; None when it is torn down.
        absent: objects to delete by name, whoever made them (for single things).
        purge: delete what *owner* owns and *desired* does not have.
        adopt: take over foreign objects that are in the way.
        check: only say what would be done. What a single thing needs and is not there is a warning then.
        further: what else is desired, in view of what is there.

    Raises:
        Mistakes: something foreign is in the way; nothing was changed.
        Failed: the kernel refused; what had been done was undone.
        MissingLibrary: pyroute2 is not installed.
    """
    lock = contextlib.nullcontext() if check else locked()
    with lock, Kernel() as kernel:
        saved = load(owner) if owner else None
        observed = _observe(kernel, desired, owner, saved, absent)
        if further is not None:
            desired = {**desired, **further(observed)}
        desired = {**desired, **_as_kernel_has_it(kernel, desired, check), **_accepts(document, owner, observed)}
        owned = _ownership(owner, saved, observed)
        mistakes = conflicts(desired, observed, owner, owned, adopt, absent)
        mistakes += _missing_sysctls(desired, observed) + _missing_processes(kernel, desired)
        if not owner:
            mistakes += _claimed({**desired, **state_of(absent)}, observed)
        pending = tuple(missing(desired, observed)) if check and not owner else ()
        mistakes = [line for line in mistakes if line not in pending]
        if mistakes:
            raise Mistakes(mistakes)
        unwanted = {item.key for item in absent}
        restored: State = {item.key: item for item in (saved.before if saved else ())}
        operations = difference(
            desired, observed, lambda item: item.key in unwanted or (purge and bool(owner) and owned(item)), restored
        )
        if not check:
            _carry_out(kernel, operations, owner, saved, document, desired)
        return Result(tuple(operations), pending)


def _as_kernel_has_it(kernel: Kernel, desired: State, check: bool) -> State:
    """The firewall as this host's nft prints it, which also proves that it can be made here.

    A host that lacks nft is given it before a run, but not before check mode.
    """
    if check and not kernel.has_nft():
        return {}
    return state_of([kernel.as_listed(wall) for wall in of_type(desired, Firewall)])


def _accepts(document: Mapping[str, Any] | None, owner: str, observed: State) -> State:
    """What other programs' firewalls have to let pass, of those that are in force here.

    Tables in nft's own words do not tell for whom they are: then what is there stays.
    """
    raw = (document or {}).get("firewall") or {}
    if "nft" in raw:
        return {item.key: item for item in of_type(observed, Accept) if item.owner == owner}
    if not raw.get("network"):
        return {}
    clause = _firewall_clause.read(raw)
    return state_of(
        [
            _foreign.wanted(program, owner, network=clause.network, backend=clause.backend, port=clause.port)
            for program in _foreign.active()
        ]
    )


def _carry_out(
    kernel: Kernel,
    operations: list[Operation],
    owner: str,
    saved: Saved | None,
    document: Mapping[str, Any] | None,
    desired: State,
) -> None:
    """Save what undoing needs, change the kernel, and take it back if that fails."""
    if not owner:
        _perform(kernel, operations)
        return
    before = _before(operations, saved)
    done = Saved(owner, document or {}, tuple(item for item in before if item.key in desired))
    if operations:
        older = tuple(item for item in (saved.document, *saved.previous) if item != done.document) if saved else ()
        _save(replace(done, before=before, previous=older), owner)
        try:
            _perform(kernel, operations)
        except Failed:
            _save(saved, owner)
            raise
    if document is None:
        _save(None, owner)
    elif operations or done != saved:
        _save(done, owner)


def _perform(kernel: Kernel, operations: Sequence[Operation]) -> None:
    try:
        kernel.perform(operations)
    except KernelError as error:
        raise Failed(_failure_text(error, _undo(kernel, error.done))) from error


def _undo(kernel: Kernel, done: Sequence[Operation]) -> list[str]:
    """Take operations back, the last first; what could not be taken back."""
    left = []
    for operation in reversed(done):
        try:
            kernel.perform([operation.inverse])
        except KernelError as error:
            left.append(str(error))
    return left


def _failure_text(error: KernelError, left: list[str]) -> str:
    if not error.done:
        return "%s. Nothing was changed." % error
    if not left:
        return "%s. The %d changes made before it were undone." % (error, len(error.done))
    return "%s. Of the %d changes made before it, these could not be undone: %s. Run again to put the rest right." % (
        error,
        len(error.done),
        "; ".join(left),
    )


def _before(operations: Sequence[Operation], saved: Saved | None) -> tuple[Sysctl, ...]:
    """Each sysctl's value from before its first change."""
    kept = {item.key: item for item in (saved.before if saved else ())}
    for operation in operations:
        before = operation.before
        if isinstance(before, Sysctl) and operation.after is not None and before.key not in kept:
            kept[before.key] = before
    return tuple(kept.values())


# ------------------------------------------------------------------------------------------------ observing


def _observe(kernel: Kernel, desired: State, owner: str, saved: Saved | None, absent: Sequence[Object]) -> State:
    namespaces = {"", *_places(desired.values()), *_places(absent)}
    if owner:
        namespaces |= {name for name, holder in kernel.namespace_owners().items() if holder == owner}
        namespaces |= _places(saved.desired.values()) if saved else set()
    entries = any(isinstance(item, (Neighbour, ForwardingEntry)) for item in (*desired.values(), *absent))
    firewall = bool(owner) or any(of_type(desired, Firewall))
    tables = {item.table for item in of_type(desired, Route)}
    observed = kernel.observe(sorted(namespaces), entries, firewall, tables)
    sysctls = {item.key: item for item in (*of_type(desired, Sysctl), *(saved.before if saved else ()))}
    for wanted in sysctls.values():
        if wanted.namespace and ("namespace", wanted.namespace) not in observed:
            continue
        present = kernel.sysctl(wanted.namespace, wanted.name)
        if present is not None:
            if present.name == "net.ipv4.ip_forward" and present != desired.get(present.key, present):
                present = replace(present, restores=kernel.before_forwarding(present.namespace))
            observed[present.key] = present
    for item in of_type(desired, Namespace):
        if item.pid is not None and item.key in observed and kernel.is_namespace_of(item.name, item.pid):
            observed[item.key] = replace(observed[item.key], pid=item.pid)  # type: ignore[type-var]
    kept = [*desired.values(), *(saved.desired.values() if saved else ())]
    found = [
        *(kernel.file(item.path) for item in kept if isinstance(item, File)),
        *(kernel.sysctl_line(item.path, item.name) for item in (*kept, *absent) if isinstance(item, SysctlLine)),
    ]
    return {**observed, **state_of([item for item in found if item])}


def _places(objects: Any) -> set[str]:
    names = {getattr(item, "namespace", "") for item in objects} | {
        item.name for item in objects if isinstance(item, Namespace)
    }
    return names - {""}


def _missing_sysctls(desired: State, observed: State) -> list[str]:
    """Sysctls that this kernel has not, where neither the namespace nor the link that carries them is about to be made."""
    return [
        "sysctl %s is not there%s: a misspelt name, or a missing link or kernel module"
        % (item.name, " in namespace %s" % item.namespace if item.namespace else "")
        for item in of_type(desired, Sysctl)
        if item.key not in observed
        and not (item.namespace and ("namespace", item.namespace) not in observed)
        and ("link", item.namespace, interface_of(item.name)) not in desired
    ]


def _missing_processes(kernel: Kernel, desired: State) -> list[str]:
    return [
        "namespace %s: there is no process %d" % (item.name, item.pid)
        for item in of_type(desired, Namespace)
        if item.pid is not None and not kernel.has_process(item.pid)
    ]


def _claimed(wanted: State, observed: State) -> list[str]:
    """Routes and sysctls of documents, which bear no mark of whose they are, that a single thing would change."""
    found = []
    for name in saved_names():
        saved = load(name)
        for key, item in (saved.desired if saved else {}).items():
            if isinstance(item, (Route, Sysctl)) and key in wanted and wanted[key] != observed.get(key):
                found.append(
                    "%s belongs to the document %r: change it through that document, or tear that one down"
                    % (describe(item), name)
                )
    return found


def _ownership(owner: str, saved: Saved | None, observed: State) -> Callable[[Object], bool]:
    """Whether an observed object is the document's: by its mark in the kernel, and by no other document's claim.

    Routes have one mark for all documents, and files have none. Those that the saved document names are its own; other
    marked routes are too where their link is, or where no other document is on the host.
    """
    links = {item.key for item in of_type(observed, Link) if owner and item.owner == owner}
    namespaces = {item.name for item in of_type(observed, Namespace) if owner and item.owner == owner}
    before = {item.key for item in (saved.before if saved else ())}
    named = saved.desired if saved else {}
    guarding = any(of_type(named, Firewall))
    others = [load(name) for name in saved_names() if owner and name != owner]
    claimed = {item.key for other in others if other for item in of_type(other.desired, Route)}
    alone = not others and not any(item.owner not in ("", owner) for item in of_type(observed, Link))

    def owns_route(route: Route) -> bool:
        if not owner or route.key in claimed:
            return False
        known = named.get(route.key)
        if isinstance(known, Route) and known.protocol == route.protocol:
            return True
        return route.protocol == OVERLAY_PROTOCOL and (alone or ("link", route.namespace, route.dev) in links)

    def owned(item: Object) -> bool:
        if isinstance(item, Route):
            return owns_route(item)
        if isinstance(item, (Address, Neighbour, ForwardingEntry)):
            return ("link", item.namespace, item.dev) in links
        if isinstance(item, File):
            return item.key in named
        if isinstance(item, NamespaceFile):
            return item.namespace in namespaces and item.key in named
        if isinstance(item, Sysctl):
            return item.key in before
        if isinstance(item, Firewall) and not item.owner:
            return guarding  # its rules, and their mark, were flushed
        return bool(owner) and not isinstance(item, SysctlLine) and item.owner == owner

    return owned


# ------------------------------------------------------------------------------------------------ reading


def inventory(owner: str) -> dict[str, Any]:
    """What *owner* owns, as a document, with the links that it only refers to marked external."""
    with Kernel() as kernel:
        saved = load(owner)
        observed = _observe(kernel, {}, owner, saved, ())
        owned = _ownership(owner, saved, observed)
        mine: State = {key: item for key, item in observed.items() if owned(item) and not isinstance(item, Sysctl)}
        for wanted in of_type(saved.desired if saved else {}, Sysctl):
            present = kernel.sysctl(wanted.namespace, wanted.name)
            mine.update({present.key: present} if present else {})
        for key in _references(mine) - set(mine):
            if key in observed:
                mine[key] = Link(key[1], key[2], external=True)
        document = render(mine, owner)
        for wall in of_type(mine, Firewall):
            document["firewall"] = {"nft": _nft.verbatim(wall)}
        return document


def _references(state: State) -> set[Key]:
    """The links that objects name."""
    found: set[Key] = set()
    for item in state.values():
        where = getattr(item, "namespace", "")
        names = [getattr(item, "dev", ""), getattr(item, "master", "")]
        if isinstance(item, Link) and isinstance(item.options, (Ipip, Vxlan)):
            names.append(item.options.link)
        found |= {("link", where, name) for name in names if name}
    return found
