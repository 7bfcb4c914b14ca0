# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings a host to a document: observe, compare, apply, and undo when something fails.

Every front goes through here: the modules by ``converge``, and by ``reconcile``, for what the host keeps under /etc, the boot
unit, the command and the watcher. What a document needs to be undone is saved before its first change (``_state``).
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import _drift, _firewall_clause, _foreign, _foreign_networkd, _journal, _netns, _nft, _rollback, _state
from ._atomic import discard, missing_folders, remove_empty
from ._difference import Operation, conflicts, difference, in_the_way, missing, taken_endpoints
from ._kernel import NETNS_FILES, Kernel, KernelError, MissingLibrary
from ._model import (
    EVERYTHING,
    LINKS,
    OVERLAY_PROTOCOL,
    PROGRAMS,
    RULES,
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
    interface_of,
    of_type,
    render,
    state_of,
)
from ._state import Failed, Saved, Unwritten, desired_state, load, locked

TROUBLE = (Mistakes, Failed, KernelError, MissingLibrary, OSError)
"""What a run may end with."""
TURNS = (frozenset({LINKS, RULES}), frozenset({PROGRAMS}))
"""In this order parts of the host are repaired: other programs are slow to ask, and may be broken, and keep nothing else waiting."""
MOST_TRIES = 16
"""So often a repair is begun anew without what the kernel refused."""


@dataclass(frozen=True)
class Result:
    """What a run did, or in check mode would do. ``before`` and ``after`` hold a line for each object that changes."""

    operations: tuple[Operation, ...]
    warnings: tuple[str, ...] = ()
    shadowed: tuple[str, ...] = ()
    """Foreign routes that take packets of ours away: they are told, never removed."""
    held: tuple[Operation, ...] = ()
    """What would have been done too, but is left as it is for now, and"""
    cut_off: frozenset[Key] = frozenset()
    """what of that only because a link that the document does not make is not usable."""

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
            rules += ["%s: %s\n" % (item.place, rule) for rule in item.rules if rule not in kept]
        elif item is not None:
            same = other is not None and describe(item) == describe(other)
            lines.append(describe(item) + (" of %s" % (getattr(item, "owner", "") or "nobody") if same else "") + "\n")
    return "".join([*sorted(lines), *rules])


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
    confirm_timeout: float = 0,
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
        confirm_timeout: seconds after which a change is undone unless ``confirm`` is called; 0 for never.

    Raises:
        Mistakes: something foreign is in the way; nothing was changed.
        Failed: the kernel refused; what had been done was undone.
        MissingLibrary: pyroute2 is not installed.
    """
    with _exclusively(check), Kernel() as kernel:
        saved = load(owner) if owner else None
        found = _compare(kernel, desired, owner, saved, document, absent, purge, adopt, check, further)
        if not check:
            _carry_out(kernel, found, owner, saved, document, confirm_timeout)
        return found.result


def reconcile(
    name: str,
    *,
    check: bool = False,
    parts: Collection[str] = EVERYTHING,
    held: Collection[Key] = (),
) -> Result:
    """Bring the host to the document that it keeps: what the boot unit, the command and the watcher do.

    Args:
        name: the document.
        check: only say what would be done.
        parts: where to look.
        held: what to leave as it is for now.

    Raises:
        As ``converge``; Mistakes too where there is no such document, and Failed where its last change is to be undone.
    """
    with _exclusively(check), Kernel() as kernel:
        if not check and _rollback.is_due(name):
            raise Failed("its last change was not confirmed and is to be undone before anything is brought back")
        saved = load(name)
        if saved is None or not saved.document:
            raise Mistakes(["there is no document %s in %s" % (name, _state.DOCUMENT_FOLDER)])
        document = saved.document
        found = _compare(kernel, saved.reached, name, saved, document, check=check, parts=parts, held=held, repair=True)
        if not check:
            _carry_out(kernel, found, name, saved, document)
        return found.result


def repair(name: str, *, parts: Collection[str], aside: set[Key] | None = None) -> Result:
    """As ``reconcile``, as far as the kernel takes it: one obstacle is no reason to leave a host without its overlay.

    Args:
        aside: what to leave as it is for now. What the kernel refuses comes to it.

    Raises:
        As ``reconcile``.
    """
    return _as_far_as_possible(lambda held: reconcile(name, parts=parts, held=held), set() if aside is None else aside)


def _as_far_as_possible(act: Callable[[Collection[Key]], Result], aside: set[Key]) -> Result:
    """Do it without what the kernel refuses, which is set aside and told as a warning.

    What is refused once may be so because the host changed while it was looked at. So it is tried twice.
    """
    refusals: Counter[Key] = Counter()
    reasons: dict[Key, str] = {}
    tries = 0
    while True:
        try:
            result = act(aside)
        except Failed as error:
            tries += 1
            if not error.refused or tries == MOST_TRIES:
                raise
            refusals.update(error.refused)
            reasons[next(iter(error.refused))] = str(error.__cause__)
            aside |= {key for key, times in refusals.items() if times > 1}
        else:
            warnings = [*result.warnings, *(reason for key, reason in reasons.items() if key in aside)]
            return replace(result, warnings=tuple(dict.fromkeys(warnings)))


def confirm(name: str) -> bool:
    """Keep the last change of a document; whether one was waiting for it."""
    with locked():
        return _rollback.disarm(name)


def roll_back(name: str, *, due: bool = False) -> Result | None:
    """Undo a change that nobody has confirmed, with *due* only if its time is over; None if there is nothing to undo.

    Raises:
        As ``converge``.
    """
    with locked(), Kernel() as kernel:
        change = _rollback.pending(name)
        if change is None or (due and change.left):
            return None
        saved = load(name)
        document = change.document
        desired = desired_state(document, name) if document else {}

        def back(held: Collection[Key]) -> Result:
            found = _compare(kernel, desired, name, saved, document, held=held, repair=True)
            try:
                _carry_out(kernel, found, name, saved, document)
            except Unwritten as error:
                # A full disk must not keep a host cut off. The change is still pending, so what is kept is put right when it can be.
                _perform(kernel, found.result.operations)
                raise Failed("the host is as before it, but not yet what is kept of it: %s" % error) from error
            return found.result

        # Where there was no document what is left would be forgotten with it.
        result = _as_far_as_possible(back, set()) if document else back(())
        _rollback.disarm(name)
    if due:
        lines = [*map(str, result.operations), *result.warnings]
        _journal.log(
            "document %s: its last change was not confirmed within %.0f s, and is undone: %s"
            % (name, change.timeout, "; ".join(lines) or "nothing was left of it"),
            _journal.WARNING,
            PODNET_DOCUMENT=name,
        )
    return result


def _exclusively(check: bool) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if check else locked()


@dataclass(frozen=True)
class _Found:
    """What a comparison found out: all that is desired, wherever was looked, and what has to be done."""

    desired: State
    result: Result
    heirs: tuple[Saved, ...] = ()
    """Other documents, with the values from before of sysctls that they need as they are."""


def _compare(
    kernel: Kernel,
    desired: State,
    owner: str,
    saved: Saved | None,
    document: Mapping[str, Any] | None,
    absent: Sequence[Object] = (),
    purge: bool = True,
    adopt: bool = False,
    check: bool = False,
    further: Callable[[State], State] | None = None,
    parts: Collection[str] = EVERYTHING,
    held: Collection[Key] = (),
    repair: bool = False,
) -> _Found:
    """What has to be done; the arguments are those of ``converge`` and ``reconcile``.

    With *repair* a foreign route in place of one that was reached is drift, which a controller's run leaves to the operator; and
    what something foreign is in the way of is left as it is, with a warning, so that the rest can be repaired.

    Raises:
        Mistakes: something foreign is in the way.
    """
    observed = _observe(kernel, desired, owner, saved, absent, parts)
    if further is not None:
        desired = {**desired, **further(observed)}
    if RULES in parts:
        desired = {**desired, **_as_kernel_has_it(kernel, desired, check)}
    if PROGRAMS in parts:
        desired = {**desired, **_accepts(document, owner, desired, observed)}
    everywhere = desired  # what undoing needs is kept, wherever one looks
    if EVERYTHING - set(parts):
        desired = {key: item for key, item in desired.items() if part_of(item) in parts}
    implied = _drift.connected(desired, observed) if owner else {}
    desired = {**implied, **desired, **implied}  # these first: a gateway may be in one of them
    owned = _ownership(owner, saved, observed)
    ours = {**saved.reached, **implied} if saved and repair else {}

    def replaced(item: Object) -> bool:
        """Whether *item* stands in place of a route that was ours."""
        return isinstance(item, Route) and item.key in ours

    def known(item: Object) -> bool:
        return owned(item) or replaced(item)

    mistakes = conflicts(desired, observed, owner, known, adopt, absent)
    mistakes += _missing_sysctls(desired, observed) + _missing_processes(kernel, desired)
    if not owner:
        mistakes += _claimed({**desired, **state_of(absent)}, observed)
    pending = mistakes if repair else missing(desired, observed) if check and not owner else []
    mistakes = [line for line in mistakes if line not in pending]
    if mistakes:
        raise Mistakes(mistakes)
    unwanted = {item.key for item in absent}
    restored: State = {item.key: item for item in (saved.before if saved else ())}
    operations = difference(
        desired, observed, lambda item: item.key in unwanted or (purge and bool(owner) and owned(item)), restored
    )
    warnings = list(pending)
    left: list[Operation] = []
    cut: dict[Key, str] = {}
    if repair:
        blocked = in_the_way(desired, observed, owner, known, adopt)
        cut = _drift.cut_off(desired, observed)
        warnings += sorted({*cut.values()} - {*warnings})
        operations, left = _drift.parted(
            operations, {*held, *blocked, *cut, *taken_endpoints(desired, observed, known)}, blocked, desired, observed
        )
    heirs: tuple[Saved, ...] = ()
    if owner:
        needed, heirs = _needed(kernel, owner, operations, desired, observed, torn_down=document is None)
        operations = [item for item in operations if item.item.key not in needed]
        warnings += ["%s stays: %s" % (key[2], reason) for key, reason in needed.items()]
    shadowed = tuple(_drift.shadows(desired, observed)) if owner else ()
    result = Result(tuple(operations), tuple(warnings), shadowed, tuple(left), frozenset(cut))
    return _Found(everywhere, result, heirs)


def part_of(item: Object) -> str:
    """Where to look for an object of this kind."""
    return RULES if isinstance(item, Firewall) else PROGRAMS if isinstance(item, Accept) else LINKS


def _as_kernel_has_it(kernel: Kernel, desired: State, check: bool) -> State:
    """The firewall as this host's nft prints it, which also proves that it can be made here.

    A host that lacks nft is given it before a run, but not before check mode.
    """
    if check and not kernel.has_nft():
        return {}
    return state_of([kernel.as_listed(wall) for wall in of_type(desired, Firewall)])


def _accepts(document: Mapping[str, Any] | None, owner: str, desired: State, observed: State) -> State:
    """What other programs have to be told, of those that are in force here.

    Tables in nft's own words do not tell for whom they are: then what is there stays.
    """
    if document is None:
        return {}
    raw = document.get("firewall") or {}
    if "nft" in raw:
        return {item.key: item for item in of_type(observed, Accept) if item.owner == owner}
    firewalls: dict[str, Any] = {}
    if raw.get("network"):
        clause = _firewall_clause.read(raw)
        firewalls = {"network": clause.network, "backends": [(way.backend, way.port) for way in clause.ways]}
    links = [item.name for item in of_type(desired, Link) if not item.namespace and not item.external]
    routes = [item for item in of_type(desired, Route) if not item.namespace and item.type == "unicast"]
    return state_of(
        _foreign.accepts(
            owner, links=links, uplinks={item.dev for item in routes if item.dev not in links}, **firewalls
        )
    )


_FORWARDING = Sysctl("", "net.ipv4.ip_forward", "1")
_SAME_AS_FORWARDING = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding")
_ROUTING_KINDS = ("bridge", "wireguard", "tun", "ipip", "gre", "vxlan")
_SYSCTL_FILES = (
    "/usr/lib/sysctl.d/*.conf",
    "/usr/local/lib/sysctl.d/*.conf",
    "/run/sysctl.d/*.conf",
    "/etc/sysctl.d/*.conf",
    "/etc/sysctl.conf",
    "/etc/ufw/sysctl.conf",
)


def _needed(
    kernel: Kernel, owner: str, operations: Sequence[Operation], desired: State, observed: State, *, torn_down: bool
) -> tuple[dict[Key, str], tuple[Saved, ...]]:
    """The sysctls that *operations* would write back and that something else needs as they are, each with what that is.

    Another document that needs one writes it back in the end. For that it is given the value from before: what is to be kept
    of such documents comes second.
    """
    back = [
        (operation.before, operation.after)
        for operation in operations
        if isinstance(operation.after, Sysctl) and operation.after.key not in desired
    ]
    others = [_readable(name) for name in _state.names() if back and name != owner]
    reasons: dict[Key, str] = {}
    heirs: dict[str, Saved] = {}
    for before, after in back:
        key = after.key
        heir = next((other for other in others if other and other.reached.get(key) == before), None)
        if heir is not None:
            reasons[key] = "the document %s needs it" % heir.name
            heir = heirs.get(heir.name, heir)
            if key not in (item.key for item in heir.before):
                heirs[heir.name] = replace(heir, before=(*heir.before, after))
        elif torn_down and key == _FORWARDING.key:
            reason = _needs_forwarding(kernel, owner, observed, after)
            reasons.update({key: reason} if reason else {})
    return reasons, tuple(heirs.values())


def _needs_forwarding(kernel: Kernel, owner: str, observed: State, before: Sysctl) -> str:
    """Why the host should go on forwarding when the document *owner* is gone; '' for no reason.

    A virtual link of others that packets can take is one: of kinds that are made to forward any, of all kinds those that came
    after *before*, since which the host forwards. The others, such as its uplink, did without.
    """
    for name in _state.names():
        if name != owner and _readable(name) is None:
            return "the document %s cannot be read, and may need it" % name
    ways = {item.dev for item in observed.values() if isinstance(item, (Address, Route)) and not item.namespace}
    older = {interface_of(name) for name, _value in before.restores}
    for link in of_type(observed, Link):
        routing = link.kind in _ROUTING_KINDS or (link.kind and link.name not in older)
        if not link.namespace and routing and link.up and link.name in ways and link.owner != owner:
            return "the %s %s is there, for which someone may forward" % (link.kind, link.name)
    for path in (path for pattern in _SYSCTL_FILES for path in sorted(glob.glob(pattern))):
        lines = [kernel.sysctl_line(path, name) for name in _SAME_AS_FORWARDING]
        if any(line is not None and line.value == _FORWARDING.value for line in lines):
            return "%s asks for it" % path
    path = _foreign_networkd.forwards()
    return "%s asks networkd for it" % path if path else ""


def _carry_out(
    kernel: Kernel,
    found: _Found,
    owner: str,
    saved: Saved | None,
    document: Mapping[str, Any] | None,
    confirm_timeout: float | None = None,
) -> None:
    """Save what undoing needs, change the kernel, and take it back if that fails.

    Args:
        confirm_timeout: None leaves an unconfirmed change as it is; 0 confirms it, since who can ask for a run reaches the host.
    """
    operations = found.result.operations
    if not owner:
        _perform(kernel, operations)
        return
    now = saved or Saved(owner, {})
    before = _before(kernel, operations, saved)
    made = [
        folder for operation in operations for path in _paths_of(operation.after) for folder in missing_folders(path)
    ]
    folders = tuple(dict.fromkeys([*now.folders, *made]))
    files = tuple(path for path in map(_path_of, found.desired.values()) if path)
    unfinished = [document] if document is not None and document != now.document else []
    previous = (*unfinished, *(item for item in now.previous if item not in unfinished))
    known = tuple(dict.fromkeys([*now.files, *files]))
    during = replace(now, before=before, previous=previous, folders=folders, files=known)
    kept = tuple(item for item in before if item.key in found.desired)
    after = Saved(owner, document or {}, kept, (), folders, files)
    armed = bool(confirm_timeout and operations) and _rollback.arm(owner, now.document or None, confirm_timeout or 0)
    try:
        for heir in found.heirs:
            _state.keep(heir, heir.name)
        if document is None:
            _state.can_forget(owner)
        end = _state.begin(saved, during if operations else now, after) if document is not None else None
        try:
            _perform(kernel, operations)
        except Failed:
            if end is not None:
                _state.keep(saved, owner)
            raise
    except Failed:
        remove_empty(made)
        if armed:
            _rollback.disarm(owner)
        raise
    _clear([*known, *_foreign.paths(owner)], {**now.desired, **found.desired})
    if not after.desired or any(operation.after is None for operation in operations):
        remove_empty(list(folders))
    if confirm_timeout == 0:
        # Neither after the end, since a kill in between would have what has ended undone; nor before the first change, since a
        # run that fails or is killed confirms nothing. A kill between this and the end leaves a run that did not come to its
        # end, as any other.
        _rollback.disarm(owner)
    if end is not None:
        end()
    else:
        _state.keep(None, owner)
    if confirm_timeout:
        _rollback.extend(owner)


def _path_of(item: Object | None) -> str:
    if isinstance(item, NamespaceFile):
        return os.path.join(NETNS_FILES, item.namespace, item.name)
    return item.path if isinstance(item, File) else ""


def _paths_of(item: Object | None) -> tuple[str, ...]:
    return tuple(_foreign.paths(item.owner, item.program)) if isinstance(item, Accept) else (_path_of(item),)


def _clear(files: Sequence[str], state: State) -> None:
    """Remove what a run that was killed has left half made: of files, and of *state*'s namespaces those with a name only."""
    for path in files:
        discard(path)
    named = _netns.names()
    for item in of_type(state, Namespace):
        if item.name not in named:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(_netns.FOLDER, item.name))


def _perform(kernel: Kernel, operations: Sequence[Operation]) -> None:
    try:
        kernel.perform(operations)
    except KernelError as error:
        refused = [operation.item.key for operation in (error.operation, *error.others) if operation]
        raise Failed(_failure_text(error, _undo(kernel, error.done)), refused) from error


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


def _before(kernel: Kernel, operations: Sequence[Operation], saved: Saved | None) -> tuple[Sysctl, ...]:
    """Each sysctl's value from before its first change; that of a link that is yet to be made is what new links get.

    One that was as desired before and is not any more was turned by somebody since then.
    """
    kept = {item.key: item for item in (saved.before if saved else ())}
    since = saved.reached if saved else {}
    for operation in operations:
        before, after = operation.before, operation.after
        if before is None and isinstance(after, Sysctl) and not after.namespace and interface_of(after.name):
            words = after.name.split(".")
            of_new = kernel.sysctl("", ".".join([*words[:3], "default", *words[4:]]))
            before = of_new and replace(of_new, name=after.name)
        if isinstance(before, Sysctl) and operation.after is not None and before.key not in {**kept, **since}:
            kept[before.key] = before
    return tuple(kept.values())


# ------------------------------------------------------------------------------------------------ observing


def _observe(
    kernel: Kernel,
    desired: State,
    owner: str,
    saved: Saved | None,
    absent: Sequence[Object],
    parts: Collection[str] = EVERYTHING,
) -> State:
    programs = PROGRAMS in parts and (bool(owner) or any(of_type(desired, Firewall)))
    rules = RULES in parts and (bool(owner) or any(of_type(desired, Firewall)))
    if LINKS not in parts:
        return kernel.observe((), rules=rules, programs=programs)
    namespaces = {"", *_places(desired.values()), *_places(absent)}
    if owner:
        namespaces |= {name for name, holder in kernel.namespace_owners().items() if holder == owner}
        namespaces |= _places(saved.desired.values()) if saved else set()
    entries = any(isinstance(item, (Neighbour, ForwardingEntry)) for item in (*desired.values(), *absent))
    tables = {item.table for item in of_type(desired, Route)}
    observed = kernel.observe(sorted(namespaces), entries, rules=rules, programs=programs, tables=tables)
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
    seen = {_path_of(item) for item in observed.values()}
    paths = [item.path for item in kept if isinstance(item, File)]
    paths += [path for path in (saved.files if saved else ()) if path not in seen]
    found = [
        *map(kernel.file, dict.fromkeys(paths)),
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
    for name in _state.names():
        saved = load(name)
        for key, item in (saved.desired if saved else {}).items():
            if isinstance(item, (Route, Sysctl)) and key in wanted and wanted[key] != observed.get(key):
                found.append(
                    "%s belongs to the document %r: change it through that document, or tear that one down"
                    % (describe(item), name)
                )
    return found


def _readable(name: str) -> Saved | None:
    """What is kept of another document; None where it is damaged, which is told when its own turn comes."""
    try:
        saved = load(name)
        if saved is not None:
            len(saved.desired)  # read, and kept
        return saved
    except Mistakes:
        return None


def _ownership(owner: str, saved: Saved | None, observed: State) -> Callable[[Object], bool]:
    """Whether an observed object is the document's: by its mark in the kernel, and by no other document's claim.

    Routes have one mark for all documents, and files have none. Those that the saved document names are its own; other
    marked routes are too where their link is, or where no other document is on the host.
    """
    links = {item.key for item in of_type(observed, Link) if owner and item.owner == owner}
    foreign = {item.name for item in of_type(observed, Namespace) if item.owner != owner}
    before = {item.key for item in (saved.before if saved else ())}
    named = saved.desired if saved else {}
    files = saved.files if saved else ()
    guarding = any(of_type(named, Firewall))
    others = [_readable(name) for name in _state.names() if owner and name != owner]
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
            return item.key in named or item.path in files
        if isinstance(item, NamespaceFile):
            return item.namespace not in foreign and (item.key in named or _path_of(item) in files)
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
