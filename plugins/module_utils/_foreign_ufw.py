# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ufw's firewall: its own rules (``ufw route allow``, ``ufw allow``), each with a comment that marks it as ours.

ufw knows no protocol ipip (util.py: tcp, udp, ah, esp, gre, vrrp, ipv6, igmp), so tunnelled packets are let in by a line
in /etc/ufw/before.rules, the place that ufw keeps for what it has no words for, in a block with our mark. ``ufw reload``
would take the whole firewall down for a moment; the line goes into the running chain by itself instead, at the place where
a reload would put it.

ufw holds two rules that differ in nothing but the comment for one. So a rule that the operator has already is left alone,
and the block remembers in a comment that it is not ours.

Sources: ufw(8), ufw-framework(8), ufw's backend_iptables.py and common.py.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ._atomic import text_of, write_atomically
from ._command import attempt, found, run
from ._model import ALIAS_PREFIX

_CONF = "/etc/ufw/ufw.conf"
_USER_RULES = "/etc/ufw/user.rules"
_BEFORE_RULES = "/etc/ufw/before.rules"
_INPUT = "ufw-before-input"
_RAW = "before.rules: "
_OTHERS = "# there without this: "
_BLOCK = re.compile(r"^# BEGIN %s(.*)\n((?:.*\n)*?)# END %s.*\n" % (ALIAS_PREFIX, ALIAS_PREFIX), re.MULTILINE)
_IPIP = _RAW + "-A %s -p 4 -j ACCEPT" % _INPUT
_ANYWHERE = "0.0.0.0/0"


class _Rule(NamedTuple):
    """A line of user.rules: the words for ufw, whose it is, and how ``iptables -S`` prints it."""

    words: str
    owner: str | None
    live: str


def active() -> bool:
    """Whether ufw is enabled, or will have our rules when it is: a run while it is disabled leaves them there."""
    return found("ufw") and (_enabled() or bool(read()[0]))


def _enabled() -> bool:
    return re.search(r"^ENABLED=[\"']?yes", text_of(_CONF), re.MULTILINE | re.IGNORECASE) is not None


def rules(*, network: str, backend: str, port: int | None) -> list[str]:
    """What has to be there, in ufw's words."""
    wanted = ["route allow from %s" % network, "route allow to %s" % network]
    if backend == "ipip":
        wanted.append(_IPIP)
    elif backend == "vxlan":
        wanted.append("allow proto udp from %s to %s port %d" % (_ANYWHERE, _ANYWHERE, port or 8472))
    return wanted


def paths(_owner: str) -> tuple[str, ...]:
    """The files that hold what it is told."""
    return _USER_RULES, _BEFORE_RULES


def read() -> tuple[list[str], str]:
    """Our rules and whose they are."""
    if not found("ufw"):
        return [], ""
    block = _BLOCK.search(text_of(_BEFORE_RULES))
    marked = _user_rules()
    if not block and not any(rule.owner for rule in marked):
        return [], ""
    owner = block[1] if block else next(rule.owner for rule in marked if rule.owner)
    live = _live()
    mine: list[str] = []
    for rule in marked:
        if rule.owner or (block and _OTHERS + rule.words in block[2].splitlines()):
            notes = [
                "of %s" % rule.owner if rule.owner not in (None, owner) else "",
                "not in force" if rule.owner and live and rule.live not in live else "",
            ]
            mine.append(" ".join([rule.words, *("(%s)" % note for note in notes if note)]))
    for line in block[2].splitlines() if block else []:
        if not line.startswith("#"):
            in_force = not live or line in live
            mine.append(_RAW + _without_mark(line) + ("" if in_force else " (not in force)"))
    return mine, owner or ""


def write(owner: str, rules: Iterable[str]) -> None:
    """Make our rules into these."""
    wanted = list(rules)
    present, _owner = read()
    others = {rule.words for rule in _user_rules() if rule.owner is None}
    for rule in _user_rules():
        if rule.owner and (rule.words not in wanted or rule.words not in present or rule.owner != owner):
            verb, words = _verb(rule.words)
            run("ufw", *verb, "delete", *words)
    left = {rule.words for rule in _user_rules()}
    for text in wanted:
        if not text.startswith(_RAW) and text not in left:
            verb, words = _verb(text)
            run("ufw", *verb, *words, "comment", ALIAS_PREFIX + owner)
    lines = [_OTHERS + text for text in wanted if text in others]
    lines += [_marked(text[len(_RAW) :], owner) for text in wanted if text.startswith(_RAW)]
    _write_block(owner, lines)


def _verb(words: str) -> tuple[list[str], list[str]]:
    """ufw wants ``route delete allow``, and not ``delete route allow``."""
    split = words.split()
    return (split[:1], split[1:]) if split[0] == "route" else ([], split)


def _write_block(owner: str, lines: list[str]) -> None:
    """Our block in before.rules, at the end of its table filter, and its rules in the running chain."""
    text = text_of(_BEFORE_RULES)
    new = _BLOCK.sub("", text)
    if lines:
        mark = ALIAS_PREFIX + owner
        block = "\n".join(["# BEGIN " + mark, *lines, "# END " + mark, ""])
        start = re.search(r"^\*filter$", new, re.MULTILINE)
        end = re.compile(r"^COMMIT$", re.MULTILINE).search(new, start.end()) if start else None
        if end is None:
            raise OSError(
                errno.EINVAL, "%s has no table filter that ends with COMMIT: ufw cannot work with it" % _BEFORE_RULES
            )
        new = new[: end.start()] + block + new[end.start() :]
    if new != text:
        write_atomically(_BEFORE_RULES, new, os.stat(_BEFORE_RULES).st_mode & 0o777)
    chain = [line for line in _live() if line.startswith("-A %s " % _INPUT)]
    if not chain:  # ufw is not in force
        return
    for line in chain:
        if _without_mark(line) != line:
            run("iptables", "-w", "-D", *line.split()[1:])
    chain = [line for line in chain if _without_mark(line) == line]
    jump = "-A %s -j ufw-user-input" % _INPUT  # the rules of before.rules are all before it
    place = chain.index(jump) + 1 if jump in chain else len(chain) + 1
    for number, line in enumerate((line for line in lines if not line.startswith("#")), place):
        run("iptables", "-w", "-I", _INPUT, str(number), *line.split()[2:])


def _live() -> list[str]:
    """The filter table's rules as they are in force; nothing where ufw's chains are not there."""
    if not _enabled():
        return []
    answer = attempt("iptables", "-w", "-S")
    lines = answer.stdout.replace(" -p ipencap ", " -p 4 ").replace('"', "").splitlines()  # as /etc/protocols calls it
    return lines if answer.returncode == 0 and "-N ufw-user-input" in lines else []


def _user_rules() -> list[_Rule]:
    """The rules that ufw's commands made, those for IPv4."""
    prefix = "### tuple ### "
    lines = text_of(_USER_RULES).splitlines()
    return [_rule(line[len(prefix) :].split()) for line in lines if line.startswith(prefix)]


def _rule(fields: list[str]) -> _Rule:
    """A rule from its "tuple" (``UFWRule.format_rule`` and ``backend_iptables._write_rules``)."""
    owner = None
    if fields[-1].startswith("comment="):
        comment = bytes.fromhex(fields.pop()[len("comment=") :]).decode("utf-8", "replace")
        if comment.startswith(ALIAS_PREFIX):
            owner = comment[len(ALIAS_PREFIX) :]
    action, protocol, dport, dst, sport, src = fields[:6]
    routed = action.startswith("route:")
    verb, _line, logged = action.replace("route:", "").partition("_")
    words = ["route", verb] if routed else [verb]
    live = ["-A", "ufw-user-forward" if routed else "ufw-user-input"]
    sides: list[str] = []
    for field in fields[-1].split("!"):
        side, _line, interface = field.partition("_")
        if interface:
            words += [side, "on", interface]
            sides += ["-i" if side == "in" else "-o", interface]
        elif side == "out":
            words.append(side)
    words += [logged] if logged else []
    words += ["proto", protocol] if protocol != "any" else []
    for name, option, address, port in (("from", "-s", src, sport), ("to", "-d", dst, dport)):
        if address != _ANYWHERE:
            live += [option, address]
        if address != _ANYWHERE or protocol != "any":
            words += [name, address]
        if port != "any":
            words += ["port", port]
    live += sides
    if protocol != "any":
        live += ["-p", protocol, "-m", protocol]
        live += ["--dport", dport] if dport != "any" else []
    return _Rule(" ".join(words), owner, " ".join([*live, "-j", "ACCEPT"]))


def _marked(line: str, owner: str) -> str:
    match, _j, target = line.partition(" -j ")
    return "%s -m comment --comment %s%s -j %s" % (match, ALIAS_PREFIX, owner, target)


def _without_mark(line: str) -> str:
    return re.sub(r" -m comment --comment %s\S+" % ALIAS_PREFIX, "", line)
