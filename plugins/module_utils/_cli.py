# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``podnet-overlay``, for whoever is on the host without Ansible: the boot unit, the watcher, an operator."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import _journal, _metrics, _rollback, _state
from ._engine import TROUBLE, TURNS, Result, confirm, converge, reconcile, repair, roll_back
from ._model import Mistakes

FINE, DIFFERS, FAILED = 0, 1, 2
"""Exit codes, those of diff(1)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.act(given))
    except KeyboardInterrupt:
        return 130
    except TROUBLE as error:
        _complain(str(error))
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podnet-overlay",
        description="The pod network of this host, brought to its documents in %s." % _state.DOCUMENT_FOLDER,
        epilog="Exit codes: 0 all is as desired, or now is; 1 something differs (diff, status); 2 it failed.",
    )
    acts = parser.add_subparsers(required=True, metavar="ACT")

    def add(name: str, about: str, act: Callable[[argparse.Namespace], int], *, documents: bool = True) -> Any:
        parsed = acts.add_parser(name, help=about, description=about)
        parsed.set_defaults(act=act)
        if documents:
            parsed.add_argument("names", nargs="*", metavar="DOCUMENT", help="default: all")
            parsed.add_argument("--json", action="store_true", help="print JSON")
        return parsed

    add("apply", "bring the host to its documents, as at boot", _apply)
    add("diff", "what apply would change", _diff)
    parsed = add("status", "documents, routes, drift, repairs and the last probes", _status, documents=False)
    parsed.add_argument("--json", action="store_true", help="print JSON")
    parsed = add("watch", "repair what changes, until ended", _watch, documents=False)
    parsed.add_argument("--interval", type=float, default=300.0, metavar="SECONDS", help="between full checks (300)")
    parsed.add_argument(
        "--metrics", default=_metrics.FILE, metavar="FILE", help="counters for Prometheus (%(default)s)"
    )
    add("teardown", "remove what documents made, and forget them", _teardown)
    parsed = add("confirm", "keep the last change of a document", _confirm, documents=False)
    parsed.add_argument("name", metavar="DOCUMENT")
    parsed = add(
        "rollback", "undo the last change of a document, unless it is confirmed in time", _rollback_due, documents=False
    )
    parsed.add_argument("name", metavar="DOCUMENT")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write("podnet-overlay: %s\n" % text)


@dataclass
class _Told:
    """What became of one document."""

    operations: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def _apply(given: argparse.Namespace) -> int:
    told = {}
    for name in _rollback.names():
        try:
            roll_back(name, due=True)  # a reboot is no confirmation
        except TROUBLE as error:
            told[name] = _Told(errors=["its last change cannot be undone: %s" % error])
    return _each(given, _in_order(given.names), [partial(repair, parts=parts) for parts in TURNS], told=told)


def _diff(given: argparse.Namespace) -> int:
    return _each(given, _in_order(given.names), [partial(reconcile, check=True)], found=DIFFERS)


def _teardown(given: argparse.Namespace) -> int:
    names = [*reversed(_in_order(given.names)), *(name for name in _state.names() if name not in _state.documents())]
    return _each(given, names if not given.names else given.names, [_torn_down])


def _torn_down(name: str) -> Result:
    known = name in _state.names()
    result = converge({}, owner=name)  # also of one that lost its files: what it made is marked
    if not known and not result.operations:
        raise _unknown(name)
    return result


def _unknown(name: str) -> Mistakes:
    return Mistakes(["there is no document %s in %s" % (name, _state.DOCUMENT_FOLDER)])


def _each(
    given: argparse.Namespace,
    names: Sequence[str],
    acts: Sequence[Callable[[str], Result]],
    found: int = FINE,
    told: Mapping[str, _Told] | None = None,
) -> int:
    """Do one thing after the other with each document, whatever becomes of the others; *found* is the code where something differed.

    Args:
        told: what there is to tell of documents already.
    """
    told = {**{name: _Told() for name in names}, **(told or {})}
    for act, name in itertools.product(acts, names):
        try:
            result = act(name)
        except TROUBLE as error:
            told[name].errors.append(str(error))
            continue
        told[name].operations += map(str, result.operations)
        # Refused, or something foreign is in the way, or a link is not there yet.
        told[name].held += map(str, result.held)
        told[name].warnings += [*result.warnings, *result.shadowed]
    for name, document in told.items():
        document.errors = list(dict.fromkeys(document.errors))  # what cannot be read cannot be read each time
        for line in document.operations if not given.json else ():
            _say("%s: %s" % (name, line))
        for line in [*(document.warnings if not given.json else ()), *document.errors]:
            _complain("%s: %s" % (name, line))
    if given.json:
        _say(json.dumps([_as_json(name, document) for name, document in told.items()], indent=2))
    if any(document.errors or document.held for document in told.values()):
        return FAILED
    return found if any(document.operations for document in told.values()) else FINE


def _as_json(name: str, told: _Told) -> dict[str, Any]:
    return {
        "document": name,
        "operations": told.operations,
        "held": told.held,
        "warnings": told.warnings,
        "error": "; ".join(told.errors),
    }


def _in_order(names: Sequence[str]) -> list[str]:
    """The documents, those first that stand on nothing of another's: a pod of its own needs the overlay's bridge."""
    chosen = list(names) or _state.documents()

    def leans(name: str) -> bool:
        try:
            saved = _state.load(name)
        except (Mistakes, OSError):  # told when its turn comes
            return True
        links = saved.document.get("links") if saved else None
        return isinstance(links, list) and any(isinstance(link, dict) and bool(link.get("external")) for link in links)

    return sorted(chosen, key=leans)


def _status(given: argparse.Namespace) -> int:
    from . import _status  # what it reads no other act needs

    status = _status.read()
    _say(json.dumps(status, indent=2) if given.json else _status.text(status))
    documents = status["documents"]
    if any(document["error"] for document in documents):
        return FAILED
    return DIFFERS if any(document["drift"] for document in documents) else FINE


def _watch(given: argparse.Namespace) -> int:
    from ._watch import watch

    watch(given.interval, given.metrics)
    return FINE


def _confirm(given: argparse.Namespace) -> int:
    if confirm(given.name):
        _say("confirmed")
        return FINE
    return _nothing_waits(given.name)


def _nothing_waits(name: str) -> int:
    if name not in _state.names():
        raise _unknown(name)
    _say("nothing of %s waits to be confirmed" % name)
    return FINE


def _rollback_due(given: argparse.Namespace) -> int:
    """Wait for the deadline, which may move, and undo the change if it is still there."""
    change = _rollback.pending(given.name)
    if change is None:
        return _nothing_waits(given.name)
    while change is not None:
        try:
            if change.left:
                time.sleep(min(change.left, 1.0))
            elif roll_back(given.name, due=True) is not None:
                break
        except TROUBLE as error:
            _journal.log(
                "document %s: its last change cannot be undone, and is tried again: %s" % (given.name, error),
                _journal.ERROR,
                PODNET_DOCUMENT=given.name,
            )
            time.sleep(_rollback.RETRY)
        change = _rollback.pending(given.name)
    return FINE
