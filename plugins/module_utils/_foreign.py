# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs that stop an overlay, and what each has to be told so that it does not.

Firewalls: an accept in our table never overrides a drop in another's. So a drop of Docker's, firewalld's or ufw's is answered
at the place that the program itself keeps for such rules: ``_foreign_docker``, ``_foreign_firewalld``, ``_foreign_ufw``. They
let pass whom it may concern; who may send at all is the business of our own table.

Those that configure links, systemd-networkd and NetworkManager: in their own drop-ins they are told to leave ours alone.

Nothing else of theirs is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from . import _foreign_docker, _foreign_firewalld, _foreign_networkd, _foreign_networkmanager, _foreign_ufw
from ._model import NETWORKD, NETWORKMANAGER, Accept

_MANAGERS: dict[str, Any] = {NETWORKD: _foreign_networkd, NETWORKMANAGER: _foreign_networkmanager}
_FIREWALLS: dict[str, Any] = {
    "firewalld": _foreign_firewalld,  # before Docker: its reload flushes the iptables of Docker
    "docker": _foreign_docker,
    "ufw": _foreign_ufw,
}
_PROGRAMS = {**_MANAGERS, **_FIREWALLS}


def accepts(
    owner: str,
    *,
    links: Collection[str],
    uplinks: Collection[str],
    network: str = "",
    backends: Sequence[tuple[str, int]] = (),
) -> list[Accept]:
    """What the programs that are in force on this host now, or have something of ours, have to be told. None of them is started.

    Firewalls let pass the network both ways, and to this node the tunnel's packets. What pods send to the node itself is
    the operator's to let in, as it is with Flannel. The others leave *links* alone, which are the document's, and its routes
    through *uplinks*, which are not.

    Args:
        backends: each backend whose packets are taken, and its UDP port. A document without a network has none.
    """
    told = {
        program: set(module.rules(links=links, uplinks=uplinks))
        for program, module in _MANAGERS.items()
        if module.active()
    }
    for program, module in _FIREWALLS.items():
        if backends and module.active():
            ways = [module.rules(network=network, backend=backend, port=port) for backend, port in backends]
            told[program] = {rule for rules in ways for rule in rules}
    return [Accept(program, tuple(sorted(rules)), owner) for program, rules in told.items() if rules]


def read() -> Iterator[Accept]:
    """What of ours is there, of programs that are not in force now too.

    A rule that is there in part, or not as it was made, has a word on it in brackets, and so is not the wanted one.
    """
    for program, module in _MANAGERS.items():
        for owner in module.owners():
            yield Accept(program, tuple(sorted(module.read(owner))), owner)
    for program, module in _FIREWALLS.items():
        rules, owner = module.read()
        if rules:
            yield Accept(program, tuple(sorted(rules)), owner)


def paths(owner: str, program: str = "") -> Iterator[str]:
    """The files that tell them, or one of them, for a document, whether they are there or not."""
    for name, module in _PROGRAMS.items():
        if program in ("", name):
            yield from module.paths(owner)


def write(before: Accept | None, after: Accept | None) -> None:
    """Make what is there of ours into *after*, whatever is there now; None is nothing at all.

    Raises:
        OSError: the program refused; its text is in the program's own words.
    """
    item = after or before
    if item is not None:
        _PROGRAMS[item.program].write(item.owner, after.rules if after else ())
