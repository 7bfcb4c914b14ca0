# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NetworkManager: each document's links are left alone.

It takes a bridge that others made as "connected (externally)" and does not touch it, and veth pairs are kept from it by a
udev rule of its own. But a tunnel that it manages, and has no profile for, it takes the addresses from as soon as it starts,
and with ``managed=1`` for all devices it takes pods' ends out of their bridge and asks DHCP there (measured with 1.42).

``unmanaged-devices`` ends that, at once where it runs already, and is remembered. ``managed=0`` of a device section does
not: of a link that NetworkManager has managed once, that word is in /run and goes before it. ``+=`` adds to the
operator's list; files are read in the order of their names.

Sources: NetworkManager.conf(5), nmcli(1).
"""

from __future__ import annotations

from collections.abc import Iterable

from . import _dropin
from ._command import found, run, runs

CONF = "/etc/NetworkManager/conf.d/zz-podnet-%s.conf"
"""For the document of that name."""
_UNMANAGED = " unmanaged"
_KEY = "unmanaged-devices+="
_MATCH = "interface-name:="


def active() -> bool:
    """Whether it is there, running or not: told before it starts it does no harm."""
    return bool(owners()) or found("NetworkManager") or _runs()


def _runs() -> bool:
    return runs("NetworkManager")


def rules(*, links: Iterable[str], **_words: object) -> list[str]:
    """What it has to be told: *links* are the document's."""
    return [name + _UNMANAGED for name in links]


def paths(owner: str) -> tuple[str, ...]:
    """The files that tell it for a document."""
    return (CONF % owner,)


def owners() -> list[str]:
    """The documents for which it is told something."""
    return sorted(_dropin.owners(CONF))


def read(owner: str) -> list[str]:
    """What it is told for a document."""
    there = _dropin.read(CONF % owner)
    if there is None:
        return []
    names = [
        spec[len(_MATCH) :]
        for line in there.lines
        if line.startswith(_KEY)
        for spec in line[len(_KEY) :].split(",")
        if spec.startswith(_MATCH)
    ]
    edited = "" if (there.owner, there.lines) == (owner, _conf(names)) else " (edited)"
    return [name + _UNMANAGED + edited for name in names] or ["nothing" + edited]


def write(owner: str, rules: Iterable[str]) -> None:
    """Tell it this, now if it runs."""
    names = [rule.split(_UNMANAGED)[0] for rule in rules if _UNMANAGED in rule]
    if _dropin.write(CONF % owner, owner, _conf(names)) and _runs() and found("nmcli"):
        run("nmcli", "general", "reload", "conf")


def _conf(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        "# NetworkManager leaves these links alone. Written and removed by podnet.overlay.",
        "[keyfile]",
        _KEY + ",".join(_MATCH + name for name in names),
    )
