# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watcher: the kernel says that something changed, the engine looks whether it was ours, and brings it back.

It holds no state that matters. What it repairs to is the document under /etc, and packets flow without it.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from . import _journal, _metrics, _rollback, _state
from ._atomic import write_atomically
from ._difference import Operation
from ._drift import Backoff
from ._engine import reconcile, roll_back
from ._events import Interest, Listener
from ._kernel import Kernel, KernelError
from ._model import (
    EVERYTHING,
    LINKS,
    OVERLAY_PROTOCOL,
    PROGRAMS,
    RULES,
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
from ._state import Failed

INTERVAL = 300.0
"""Seconds between looks at everything, for what the kernel does not tell."""
MOST_REFUSALS = 8
"""So many objects that the kernel does not take are set aside in one go."""
SHARE = 0.3
"""Of one processor, for looking at a host that is changed all the time, and"""
AHEAD = 3.0  # seconds of it that may be taken beforehand: what breaks in several steps is brought back without a pause

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

    def stop(_number: int, _frame: object) -> None:
        raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    watcher = _Watcher(interval, metrics)
    try:
        with Listener(_state.LOCK_FILE) as listener:
            _journal.notify("READY=1")
            watcher.run(listener)
    except Stopped:
        _journal.notify("STOPPING=1")


@dataclass
class _Watcher:
    interval: float
    metrics: str
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    counters: dict[_metrics.Sample, float] = field(default_factory=dict)
    left: dict[str, set[Key]] = field(default_factory=dict)
    """What looks at each document left as it is, since all was last looked at, and"""
    waiting: dict[str, set[Key]] = field(default_factory=dict)
    """what of that for a while only."""
    told: dict[str, str] = field(default_factory=dict)
    """The last trouble of each document, and of each look at it: the same is not told twice."""

    def run(self, listener: Listener) -> None:
        seen: tuple[tuple[str, int, int], ...] | None = None
        interest, parts = Interest(), EVERYTHING
        who: tuple[str, ...] = ()
        full, since = 0.0, time.monotonic()
        debt, ended = 0.0, since
        while True:
            now = time.monotonic()
            documents = signature()
            if documents != seen or now >= full:
                Kernel.as_listed.cache_clear()  # another document, or another nft by now
                seen, interest, parts, full = documents, interest_of(_desired()), EVERYTHING, now + self.interval
            due = self._undo_due()
            self._check([name for name, *_stat in documents], parts, who, since)
            parts, who = frozenset(), ()
            debt, ended = max(0.0, debt - SHARE * (now - ended)) + time.monotonic() - now, time.monotonic()
            time.sleep(min(1.0, max(0.0, debt - AHEAD) / SHARE))
            now = time.monotonic()
            # The pause may be over by now, since looking takes its time: then at once.
            again = [self.backoffs[name].next(now) or 0.0 for name, some in self.waiting.items() if some]
            events = listener.wait(interest, max(0.0, min([full - now, due, *again])))
            since = time.monotonic()
            parts, who = (events.parts, events.who) if events else (EVERYTHING if again else frozenset(), ())

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
            except (Mistakes, Failed, KernelError, OSError) as error:
                self._trouble("%s (its last change)" % name, str(error))
                waits.append(self.interval)
        return min(waits, default=self.interval)

    def _check(self, names: Collection[str], parts: Collection[str], who: tuple[str, ...], since: float) -> None:
        if set(parts) >= EVERYTHING:
            self.left, self.waiting = {}, {}
        # What is slow to read comes last, and does not keep the rest waiting.
        for some in ({LINKS, RULES} & set(parts), {PROGRAMS} & set(parts)):
            for name in names if some else ():
                self._bring_back(name, some, who, since)
        if parts:
            for gone in set(self.backoffs) - set(names):
                del self.backoffs[gone]
                self.left.pop(gone, None)
                self.waiting.pop(gone, None)
            self._write(names, parts)

    def _bring_back(self, name: str, parts: Collection[str], who: tuple[str, ...], since: float) -> None:
        backoff = self.backoffs.setdefault(name, Backoff())
        failures = _metrics.sample("podnet_overlay_repair_failures_total", document=name)
        suspected: Key | None = None
        for _attempt in range(2 * MOST_REFUSALS):
            held = backoff.held(time.monotonic())
            try:
                result = reconcile(name, parts=parts, held=held)
            except Failed as error:
                if error.refused is not None and error.refused != suspected:
                    suspected = error.refused  # the host may have changed while it was looked at: look again
                    continue
                self.counters[failures] = self.counters.get(failures, 0) + 1
                self._trouble(name, str(error))
                if error.refused is None:
                    return
                backoff.refused(error.refused, time.monotonic())
                suspected = None
            except (Mistakes, KernelError, OSError) as error:
                if name not in _state.documents():  # it was torn down just now
                    return
                self.counters[failures] = self.counters.get(failures, 0) + 1
                self._trouble(name, str(error))
                return
            else:
                look = "%s: %s" % (name, PROGRAMS) if PROGRAMS in parts else name
                self._trouble(name, "; ".join((*result.warnings, *result.shadowed)), look)
                backoff.excused(result.cut_off)
                held -= result.cut_off
                left = {operation.item.key for operation in result.held}
                self.left[name] = self.left.get(name, set()) | left
                self.waiting[name] = self.waiting.get(name, set()) | (left & held)
                self.counters[_metrics.sample("podnet_overlay_drift", document=name)] = len(self.left[name])
                self._repaired(name, backoff, result.operations, who, since)
                return
        self.waiting[name] = self.waiting.get(name, set()) | backoff.held(time.monotonic())

    def _repaired(
        self, name: str, backoff: Backoff, operations: Collection[Operation], who: tuple[str, ...], since: float
    ) -> None:
        if not operations:
            return
        now, seconds = time.monotonic(), time.monotonic() - since
        for operation in list(operations)[:MOST_LINES]:
            looks_like = suspect(operation, who)
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
                    "%s is undone again and again, it looks like by %s: repaired %d times, and with growing pauses from now on"
                    % (describe(operation.item), fight.who or "a program that cannot be told", fight.repairs),
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

    def _trouble(self, name: str, text: str, look: str = "") -> None:
        """Tell it once, and again when it is another."""
        if text and self.told.get(look or name) != text:
            _journal.log("document %s: %s" % (name, text), _journal.WARNING, PODNET_DOCUMENT=name)
        self.told[look or name] = text

    def _write(self, names: Collection[str], parts: Collection[str]) -> None:
        now = time.monotonic()
        self.counters = {
            sample: value
            for sample, value in self.counters.items()
            if dict(sample[1]).get("document", "") in ("", *names)
        }
        for name in names:
            backoff = self.backoffs[name]
            backoff.forget(now)
            self.counters[_metrics.sample("podnet_overlay_held", document=name)] = len(backoff.held(now))
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
    shadowable = [route for route in routes if not route.namespace and route.protocol == OVERLAY_PROTOCOL]
    return Interest(
        frozenset(names - {""}),
        frozenset({*connected, *(_destination(route.dst) for route in routes)}),
        frozenset(_destination(route.dst) for route in shadowable),
        frozenset(neighbours),
        frozenset(item.path for item in of_type(desired, File)),
    )


def _destination(text: str) -> tuple[int, int]:
    network = ipaddress.IPv4Interface(text).network
    return int(network.network_address), network.prefixlen


def suspect(operation: Operation, who: Iterable[str]) -> str:
    """Who undid what *operation* brings back: as the kernel told, or by the mark of what stood in its place."""
    names = [name for name in who if name]
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
