# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker's firewall: rules of ours in its chain DOCKER-USER, which it jumps to first and leaves to others.

Docker sets the policy of iptables' FORWARD to DROP when it is dockerd that turned net.ipv4.ip_forward on. It has no rules
for what comes to the host itself. The chain is in the iptables that dockerd found, iptables-nft or iptables-legacy; after
a change from one to the other it may be in both, and both are in force. Docker's nftables backend has no such chain, and
drops nothing but what is for its own bridges, so there is nothing to be said.

Sources: docs.docker.com/engine/network/firewall-iptables, daemon/libnetwork/firewall_linux.go of moby, iptables(8).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterable, Iterator

from ._command import attempt, found, run
from ._model import ALIAS_PREFIX

_CHAIN = "DOCKER-USER"
_RETURN = "-A %s -j RETURN" % _CHAIN
_TRACES = ("/run/docker.sock", "/run/docker.pid", "/var/lib/docker", "/etc/docker")


def active() -> bool:
    """Whether the chain is there, in one iptables or the other."""
    return any(True for _command in _homes())


def rules(*, network: str, **_words: object) -> list[str]:
    """What has to be in the chain, in iptables' words."""
    return ["-s %s -j ACCEPT" % network, "-d %s -j ACCEPT" % network]


def paths(_owner: str) -> tuple[str, ...]:
    """It keeps none on disk."""
    return ()


def read() -> tuple[list[str], str]:
    """Our rules in the chain, and whose they are."""
    owner = ""
    homes: dict[str, list[str]] = {}
    for command, lines in _homes():
        mine: list[str] = []
        for place, line in enumerate(lines):
            rule, whose = _parsed(line)
            if not whose:
                continue
            owner = owner or whose
            notes = [
                "after RETURN" if _RETURN in lines[:place] else "",
                "twice" if rule in mine else "",
                "of %s" % whose if whose != owner else "",
            ]
            mine.append(" ".join([rule, *("(%s)" % note for note in notes if note)]))
        homes[command] = mine
    seen = sorted({rule for mine in homes.values() for rule in mine})
    return [
        " ".join([rule, *("(not in %s)" % command for command, mine in homes.items() if rule not in mine)])
        for rule in seen
    ], owner


def write(owner: str, rules: Iterable[str]) -> None:
    """Make our rules in the chain into these: one transaction in each iptables, before Docker's RETURN if it has one.

    What others have put into the chain goes first: someone who drops there has a reason.
    """
    for command, lines in _homes():
        ours = [line for line in lines if _parsed(line)[1]]
        others = [line for line in lines if line not in ours]
        place = others.index(_RETURN) + 1 if _RETURN in others else len(others) + 1
        commands = [line.replace("-A", "-D", 1) for line in ours]
        for number, rule in enumerate(rules, place):
            match, _j, target = rule.partition(" -j ")
            mark = "-m comment --comment %s%s" % (ALIAS_PREFIX, owner)
            commands.append("-I %s %d %s %s -j %s" % (_CHAIN, number, match, mark, target))
        if commands:
            run(command + "-restore", "-w", "-n", text="\n".join(["*filter", *commands, "COMMIT", ""]))


def _homes() -> Iterator[tuple[str, list[str]]]:
    """Every iptables that has the chain, with the chain's rules as ``iptables -S`` prints them."""
    if not (_has_link("docker0") or found("dockerd") or any(map(os.path.exists, _TRACES))):
        return
    commands = [name for name in ("iptables-nft", "iptables-legacy") if found(name)]
    if not commands and found("iptables"):
        commands = ["iptables"]  # older than 1.8, or a distribution that has only the one
    for command in commands:
        if command == "iptables-legacy" and not _has_legacy_filter():
            continue  # to ask would load it
        answer = attempt(command, "-w", "-S", _CHAIN)
        if answer.returncode == 0:
            yield command, [line for line in answer.stdout.splitlines() if line.startswith("-A ")]


def _has_link(name: str) -> bool:
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(name) > 0
    return False


def _has_legacy_filter() -> bool:
    try:
        with open("/proc/net/ip_tables_names", encoding="ascii") as names:
            return "filter" in names.read().split()
    except OSError:
        return False


def _parsed(line: str) -> tuple[str, str]:
    """A rule of the chain without its comment, and the owner if the comment is our mark."""
    words = shlex.split(line)[2:]
    with contextlib.suppress(ValueError):
        at = words.index("--comment")
        if words[at + 1].startswith(ALIAS_PREFIX):
            owner = words[at + 1][len(ALIAS_PREFIX) :]
            return " ".join(words[: at - 2] + words[at + 2 :]), owner
    return " ".join(words), ""
