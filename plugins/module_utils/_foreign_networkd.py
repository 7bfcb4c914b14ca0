# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd-networkd: each document's links are left alone, and its routes through others' links too.

networkd gives a link the first of its .network files that matches, in the order of their names, and takes away what is not
in there. A link that none matches is not touched. So a file for all links (``Name=*``) costs the overlay its addresses and
routes, with any restart or reload, unless a file before it says ``Unmanaged=yes`` for the overlay's links.

Routes of others through a link that networkd does manage go with its start, unless ``ManageForeignRoutes=no``. That is of
use to host-gw and direct routing only, whose routes go through the node's own interface.

netplan is no program of its own in this: it writes files for networkd (10-netplan-*.network in /run) or NetworkManager.

Sources: systemd.network(5), networkd.conf(5), networkctl(1), systemd's networkd-link.c (v252) and netplan-apply(8).
"""

from __future__ import annotations

import glob
import os
import re
import socket
from collections.abc import Iterable

from . import _dropin
from ._atomic import text_of
from ._command import enabled, found, run, runs

NETWORK = "/etc/systemd/network/0-podnet-%s.network"
"""For the document of that name. Before all others: they are sorted as text, and 0- is before 00-."""
CONF = "/etc/systemd/networkd.conf.d/podnet-%s.conf"
_LINKS = "/run/systemd/netif/links"
_BUS = "/run/dbus/system_bus_socket"
_UNMANAGED = " unmanaged"
_ROUTES = "ManageForeignRoutes=no"
_SETTINGS = ("network/*.network", "network/*.network.d/*.conf", "networkd.conf", "networkd.conf.d/*.conf")
_FORWARDS = re.compile(
    r"^\s*(IPForward|IPv4Forwarding|IPMasquerade)\s*=\s*(?i:yes|true|on|1|ipv4|both)\s*$", re.MULTILINE
)
_MANAGED = re.compile(r"^ADMIN_STATE=(configuring|configured|failed)$", re.MULTILINE)


def active() -> bool:
    """Whether networkd runs or will at the next boot, or has our files: they stay while it is stopped."""
    return bool(owners()) or _runs() or enabled("systemd-networkd.service")


def _runs() -> bool:
    return runs("systemd-networkd")


def rules(*, links: Iterable[str], uplinks: Iterable[str]) -> list[str]:
    """What networkd has to be told: *links* are the document's, *uplinks* others' that its routes go through."""
    return [name + _UNMANAGED for name in links] + ([_ROUTES] if list(uplinks) else [])


def paths(owner: str) -> tuple[str, ...]:
    """The files that tell it for a document."""
    return NETWORK % owner, CONF % owner


def owners() -> list[str]:
    """The documents for which it is told something."""
    return sorted(_dropin.owners(NETWORK) | _dropin.owners(CONF))


def read(owner: str) -> list[str]:
    """What it is told for a document."""
    network, conf = _dropin.read(NETWORK % owner), _dropin.read(CONF % owner)
    told = []
    if network:
        names = [name for line in network.lines if line.startswith("Name=") for name in line[5:].split()]
        edited = "" if (network.owner, network.lines) == (owner, _network(names)) else " (edited)"
        running = bool(names) and _runs()
        told += [
            name + _UNMANAGED + edited + (" (not in force)" if running and _is_managed(name) else "") for name in names
        ]
        told = told or ["nothing" + edited]
    if conf:
        told.append(_ROUTES + ("" if (conf.owner, conf.lines) == (owner, _conf()) else " (edited)"))
    return told


def write(owner: str, rules: Iterable[str]) -> None:
    """Tell it this, now if it runs: whoever makes a link after that finds it told."""
    wanted = list(rules)
    names = [rule.split(_UNMANAGED)[0] for rule in wanted if _UNMANAGED in rule]
    for path in paths(owner):
        _dropin.check(path)
    # This one is read when networkd starts, and counts then.
    _dropin.write(CONF % owner, owner, _conf() if any(rule.startswith(_ROUTES) for rule in wanted) else ())
    changed = _dropin.write(NETWORK % owner, owner, _network(names))
    if (changed or any(map(_is_managed, names))) and _runs() and found("networkctl") and os.path.exists(_BUS):
        run("networkctl", "reload")


def forwards() -> str:
    """A file by which networkd makes this host forward, '' for none. Those in /usr are for containers that it may have one day."""
    patterns = ["%s/systemd/%s" % (folder, name) for folder in ("/etc", "/run") for name in _SETTINGS]
    paths = [path for pattern in patterns for path in sorted(glob.glob(pattern))] if active() else []
    return next((path for path in paths if _FORWARDS.search(text_of(path))), "")


def _network(names: Iterable[str]) -> tuple[str, ...]:
    line = " ".join(names)
    about = "# networkd leaves these links alone. Written and removed by podnet.overlay."
    return (about, "[Match]", "Name=" + line, "", "[Link]", "Unmanaged=yes") if line else ()


def _conf() -> tuple[str, ...]:
    about = "# The overlay's routes through this host's own interfaces stay. Written and removed by podnet.overlay."
    return about, "[Network]", _ROUTES


def _is_managed(name: str) -> bool:
    """Whether networkd configures a link that is there."""
    try:
        with open("%s/%d" % (_LINKS, socket.if_nametoindex(name)), encoding="utf-8") as file:
            return _MANAGED.search(file.read()) is not None
    except OSError:
        return False
