# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watcher: the kernel says that something changed, the engine looks whether it was ours, and brings it back.

It holds no state that matters. What it repairs to is the document under /etc, and packets flow without it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from . import _foreign, _journal, _metrics, _rollback, _state
from ._atomic import write_atomically
from ._difference import Operation
from ._drift import Backoff, shadowable
from ._engine import TROUBLE, TURNS, Result, part_of, repair, roll_back
from ._events import Events, Interest, Listener
from ._kernel import Kernel
from ._model import (
    EVERYTHING,
    OVERLAY_PROTOCOL,
    PROGRAMS,
    Accept,
    Address,
    File,
    ForwardingEntry,
    Key,
    Link,
    Mistakes,
    Neighbour,
    Route,
    State,
    Veth,
    Vxlan,
    describe,
    of_type,
    protocol_name,
)

INTERVAL = 300.0
"""Seconds between looks at everything, for what the kernel does not tell."""
FIRST_RETRY = 1.0
"""Seconds after which a look that failed as a whole is repeated; each further pause is twice the one before."""
SHARE = 0.3
"""Of one processor, for looking at a host that is changed all the time, and"""
AHEAD = 3.0  # seconds of it that may be taken beforehand: what breaks in several steps is brought back without a pause
LONGEST_REST = 1.0
MOST_LINES = 100
"""So many repairs of one check are told one by one."""


class Stopped(BaseException):
    """Somebody asked the watcher to end."""


def watch(interval: float = INTERVAL, metrics: str = _metrics.FILE) -> None:
    """Watch all documents of this host, until SIGTERM or SIGINT.

    Args:
        interval: seconds between looks at everything.
        metrics: where the counters are written.

    Raises:
        OSError: the kernel gives no notifications.
    """
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    watcher = _Watcher(interval, metrics, stop)
    try:
        with Listener(_state.LOCK_FILE) as listener:
            _journal.notify("READY=1")
            watcher.run(listener)
    except Stopped:
        _journal.notify("STOPPING=1")


class _Stop:
    """Ends the watcher where it waits, and nowhere else: a change of the kernel is not left half done."""

    def __init__(self) -> None:
        self._asked = self._waits = False

    def ask(self, _number: int, _frame: object) -> None:
        """Take note of a signal."""
        self._asked = True
        if self._waits:
            raise Stopped

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Where it may end."""
        self._waits = True
        try:
            if self._asked:
                raise Stopped
            yield
        finally:
            self._waits = False


@dataclass
class Budget:
    """How much of the processor has been taken beyond the share that is the watcher's."""

    now: float
    used: float
    debt: float = 0.0

    def rest(self, now: float, used: float) -> float:
        """Seconds to rest at the time *now*, when *used* seconds of the processor have been taken since the start."""
        self.debt = max(0.0, self.debt - SHARE * (now - self.now)) + used - self.used
        self.now, self.used = now, used
        return min(LONGEST_REST, max(0.0, self.debt - AHEAD) / SHARE)


def _used() -> float:
    """Seconds of the processor that this process and its children took."""
    return sum(os.times()[:4])


@dataclass
class _Watcher:
    interval: float
    metrics: str
    stop: _Stop
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    counters: dict[_metrics.Sample, float] = field(default_factory=dict)
    left: dict[str, set[Key]] = field(default_factory=dict)
    """What looks at each document left as it is, since all was last looked at, and"""
    waiting: dict[str, set[Key]] = field(default_factory=dict)
    """what of that for a while only."""
    told: dict[str, dict[str, str]] = field(default_factory=dict)
    """The last trouble of each document, by what was tried: the same is not told twice."""
    interest: Interest = field(default_factory=Interest)
    documents: tuple[tuple[str, int, int], ...] | None = None
    full: float = 0.0
    """When all is looked at again, whatever the kernel tells."""

    def __post_init__(self) -> None:
        self.failed = Backoff(FIRST_RETRY, self.interval)
        """Looks that failed as a whole, by document and part."""

    def run(self, listener: Listener) -> None:
        budget = Budget(time.monotonic(), _used())
        events: Events = {}
        since = time.monotonic()
        while True:
            if self._renewed(since):
                events = {**dict.fromkeys(EVERYTHING, ()), **events}
            due = self._undo_due()
            self._check(events, since)
            with self.stop.waiting():
                time.sleep(budget.rest(time.monotonic(), _used()))
                events, since = self._next(listener, due)

    def _renewed(self, now: float) -> bool:
        """Whether all has to be looked at: there is another document, or it is time."""
        documents = signature()
        if documents == self.documents and now < self.full:
            return False
        Kernel.as_listed.cache_clear()  # another document, or another nft by now
        self.documents, self.interest, self.full = documents, interest_of(_desired()), now + self.interval
        return True

    def _next(self, listener: Listener, due: float) -> tuple[Events, float]:
        """What has changed, and when; what has waited long enough counts as changed."""
        now = time.monotonic()
        pauses = [self.backoffs[name].next(keys, now) for name, keys in self.waiting.items()]
        pauses += [self.failed.next(self.failed.fights, now), self.full - now, due]
        events = listener.wait(self.interest, max(0.0, min(pause for pause in pauses if pause is not None))) or {}
        now = time.monotonic()
        return {**dict.fromkeys(self._again(now), ()), **events}, now

    def _again(self, now: float) -> Collection[str]:
        """Parts in which something has waited long enough."""
        if any(self.backoffs[name].next(keys, now) == 0 for name, keys in self.waiting.items()):
            return EVERYTHING
        return {part for _name, part in self.failed.fights.keys() - self.failed.held(now)}

    def _undo_due(self) -> float:
        """Undo changes that nobody has confirmed in time, should whoever waits for that be gone; seconds until the next look."""
        waits = []
        for name in _rollback.names():
            try:
                change = _rollback.pending(name)
                if change is not None and not change.left:
                    roll_back(name, due=True)
                    change = _rollback.pending(name)
                if change is not None:
                    waits.append(change.left + 1.0)
            except TROUBLE as error:
                self._trouble(name, "its last change cannot be undone: %s" % error, "rollback")
                waits.append(_rollback.RETRY)
        return min(waits, default=self.interval)

    def _check(self, events: Events, since: float) -> None:
        parts, names = set(events), [name for name, *_stat in self.documents or ()]
        if parts >= EVERYTHING:
            self.left, self.waiting = {}, {}
        for turn in TURNS:
            for name in names if turn & parts else ():
                self._look(name, turn & parts, events, since)
        if parts:
            for gone in set(self.backoffs) - set(names):
                del self.backoffs[gone]
                self.left.pop(gone, None)
                self.waiting.pop(gone, None)
                self.failed.excused([(gone, part) for part in EVERYTHING])
            self._write(names, parts)

    def _look(self, name: str, parts: Collection[str], events: Events, since: float) -> None:
        backoff = self.backoffs.setdefault(name, Backoff())
        held = backoff.held(time.monotonic())
        aside = set(held)
        kind = PROGRAMS if PROGRAMS in parts else ""
        looks = [(name, part) for part in parts]
        result = None
        try:
            result = repair(name, parts=parts, aside=aside)
        except TROUBLE as error:
            if name not in _state.documents():  # it was torn down just now
                return
            self._trouble(name, str(error), kind)
            for look in looks:
                self.failed.refused(look, time.monotonic())
        for key in aside - held:
            backoff.refused(key, time.monotonic())
        failures = _metrics.sample("podnet_overlay_repair_failures_total", document=name)
        self.counters[failures] = self.counters.get(failures, 0) + len(aside - held) + (result is None)
        if result is not None:
            self.failed.excused(looks)
            self._trouble(name, "; ".join((*result.warnings, *result.shadowed)), kind)
            self._looked(name, backoff, result, aside)
            self._repaired(name, backoff, result.operations, events, since)

    def _looked(self, name: str, backoff: Backoff, result: Result, aside: Collection[Key]) -> None:
        """Take note of what was left as it is."""
        backoff.excused(result.cut_off)
        left = {operation.item.key for operation in result.held}
        self.left[name] = self.left.get(name, set()) | left
        self.waiting[name] = self.waiting.get(name, set()) | (left & (set(aside) - result.cut_off))
        self.counters[_metrics.sample("podnet_overlay_drift", document=name)] = len(self.left[name])

    def _repaired(
        self, name: str, backoff: Backoff, operations: Collection[Operation], events: Events, since: float
    ) -> None:
        if not operations:
            return
        now, seconds = time.monotonic(), time.monotonic() - since
        for operation in list(operations)[:MOST_LINES]:
            looks_like = suspect(operation, events.get(part_of(operation.item), ()))
            _journal.log(
                "repaired in %.2f s: %s%s" % (seconds, operation, ", undone by %s" % looks_like if looks_like else ""),
                _journal.NOTICE,
                PODNET_DOCUMENT=name,
                PODNET_OPERATION=operation.verb,
                PODNET_KIND=kind_of(operation),
                PODNET_OBJECT=describe(operation.item),
                PODNET_BY=looks_like,
                PODNET_SECONDS="%.3f" % seconds,
            )
            fight = backoff.repaired(operation.item.key, now, looks_like)
            if fight is not None:
                _journal.log(
                    "%s is undone again and again, it looks like by %s: repaired %d times in %.0f s%s"
                    % (
                        describe(operation.item),
                        fight.who or "a program that cannot be told",
                        fight.often,
                        now - fight.begun,
                        ", and with growing pauses from now on" if fight.pause else "",
                    ),
                    _journal.WARNING,
                    PODNET_DOCUMENT=name,
                    PODNET_KIND=kind_of(operation),
                    PODNET_OBJECT=describe(operation.item),
                    PODNET_BY=fight.who,
                )
        for operation in list(operations)[MOST_LINES:]:
            backoff.repaired(operation.item.key, now)
        for kind, count in Counter(map(kind_of, operations)).items():
            sample = _metrics.sample("podnet_overlay_repairs_total", document=name, kind=kind)
            self.counters[sample] = self.counters.get(sample, 0) + count
        self.counters[_metrics.sample("podnet_overlay_last_repair_timestamp_seconds", document=name)] = time.time()
        self.counters[_metrics.sample("podnet_overlay_last_repair_seconds", document=name)] = round(seconds, 3)

    def _trouble(self, name: str, text: str, kind: str = "") -> None:
        """Tell it once, and again when it is another; *kind* is what was tried."""
        told = self.told.setdefault(name, {})
        if text and text not in told.values():
            _journal.log("document %s: %s" % (name, text), _journal.WARNING, PODNET_DOCUMENT=name)
        told[kind] = text

    def _write(self, names: Collection[str], parts: Collection[str]) -> None:
        now = time.monotonic()
        self.counters = {
            sample: value
            for sample, value in self.counters.items()
            if dict(sample[1]).get("document", "") in ("", *names)
        }
        for name in names:
            self.backoffs[name].forget(now)
            self.counters[_metrics.sample("podnet_overlay_held", document=name)] = len(self.waiting.get(name, ()))
            self.counters.setdefault(_metrics.sample("podnet_overlay_repair_failures_total", document=name), 0)
        if set(parts) >= EVERYTHING:
            self.counters[_metrics.sample("podnet_overlay_last_check_timestamp_seconds")] = round(time.time(), 3)
        try:
            write_atomically(self.metrics, _metrics.render(self.counters))
        except OSError as error:
            self._trouble("", "the counters cannot be written to %s: %s" % (self.metrics, error.strerror))


def signature() -> tuple[tuple[str, int, int], ...]:
    """Which documents there are, and which versions of them."""
    found = []
    for name in _state.documents():
        try:
            status = os.stat(_state.document_path(name))
        except FileNotFoundError:
            continue
        found.append((name, status.st_ino, status.st_mtime_ns))
    return tuple(found)


def _desired() -> State:
    state: State = {}
    for name in _state.documents():
        try:
            saved = _state.load(name)
            state.update(saved.reached if saved else {})
        except (Mistakes, OSError):  # told when it is checked
            continue
    return state


def interest_of(desired: State) -> Interest:
    """Which events concern what is desired."""
    routes = list(of_type(desired, Route))
    links = list(of_type(desired, Link))
    names = {route.dev for route in routes}
    for link in links:
        names |= {link.name, link.master or ""}
        if isinstance(link.options, Veth):
            names.add(link.options.peer or "")
        if isinstance(link.options, Vxlan):
            names.add(link.options.link or "")
    neighbours = {item.dst for item in of_type(desired, Neighbour)}
    neighbours |= {item.lladdr for item in of_type(desired, ForwardingEntry)}
    connected = {_destination(address.address) for address in of_type(desired, Address) if not address.peer}
    return Interest(
        frozenset(names - {""}),
        frozenset({*connected, *(_destination(route.dst) for route in routes)}),
        frozenset((int(network.network_address), network.prefixlen) for network in shadowable(desired)),
        frozenset(neighbours),
        frozenset(path for owner in {link.owner for link in links} - {""} for path in _foreign.paths(owner)),
        frozenset(item.path for item in of_type(desired, File)),
    )


def _destination(text: str) -> tuple[int, int]:
    network = ipaddress.IPv4Interface(text).network
    return int(network.network_address), network.prefixlen


def suspect(operation: Operation, who: Iterable[str]) -> str:
    """Who undid what *operation* brings back: as the kernel told, or by the mark of what stood in its place."""
    # A repair of rules is told as nft's too: where another did something besides, it was that one.
    names = [name for name in who if name != "nft"] or list(who)
    if names:
        return " or ".join(names)
    before = operation.before
    if isinstance(before, Route) and before.protocol != OVERLAY_PROTOCOL:
        return "who made the route with protocol %s" % protocol_name(before.protocol)
    return ""


def kind_of(operation: Operation) -> str:
    """The kind of object, as a label: route, link, address, firewall."""
    item = operation.item
    return item.program if isinstance(item, Accept) else type(item).__name__.lower()
