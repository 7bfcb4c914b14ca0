# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""firewalld's firewall: policies of our own (firewalld 0.9 and newer), for what is forwarded and for tunnelled packets.

They go by addresses and not by zones, so that no interface changes its zone for us, and whatever zone others (Docker, CNI's
plugin firewall) put a pod's address into. Their priority is below 0, so that they come before the zones. They are on disk
and in the running configuration. What a policy holds can be changed while firewalld runs; that a policy comes or goes
takes a reload (firewall-cmd(1): only --permanent has --new-policy), so there is one when the overlay comes, one when it
goes, and one between host-gw, which has no tunnelled packets, and the other backends. It loses what others have in the
running configuration only and, before firewalld 2.0, all rules of iptables (firewalld#863); so that is put back.

Sources: firewalld.policies(5), firewalld.policy(5), firewall-cmd(1), firewalld's core/fw.py and core/io/policy.py.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from ._atomic import write_atomically
from ._command import attempt, found, run, runs
from ._model import ALIAS_PREFIX

_FOLDER = "/etc/firewalld/policies"
_FORWARD, _INPUT = "podnet-forward", "podnet-input"
_ABOUT = {_FORWARD: "Pods reach other hosts and are reached.", _INPUT: "Tunnelled packets reach this node."}
_FIXED = ("priority", "target")  # while a policy runs they cannot be changed
_LISTS = {  # what --list-all-zones and --list-all-policies call a list, and the option that adds to it
    "ingress-zones": "ingress-zone",
    "egress-zones": "egress-zone",
    "sources": "source",
    "interfaces": "interface",
    "services": "service",
    "ports": "port",
    "protocols": "protocol",
    "source-ports": "source-port",
    "icmp-blocks": "icmp-block",
    "forward-ports": "forward-port",
    "rich rules": "rich-rule",
}
_SWITCHES = ("forward", "masquerade", "icmp-block-inversion")
_RULE = re.compile(r'rule family="ipv4" (source|destination) address="(\S+)" accept')
_RULE_CHILDREN = [[(side, ["address"], 0), ("accept", [], 0)] for side in ("source", "destination")]
_TRIES = 5


class _Setting(NamedTuple):
    """One thing that a zone, a policy, an ipset or the direct interface holds, in the words of firewall-cmd's options."""

    place: str
    option: str
    value: str

    def __str__(self) -> str:
        return "%s: %s %s" % self


def active() -> bool:
    """Whether firewalld runs, or will have our policies when it does: a run while it is stopped leaves them there."""
    return found("firewall-cmd") and (any(_stored(policy)[1] for policy in _ABOUT) or _runs())


def _runs() -> bool:
    return found("firewall-cmd") and runs("firewalld")


def rules(*, network: str, backend: str, port: int | None) -> list[str]:
    """What has to be in our policies."""
    address = 'rule family="ipv4" %s address="' + network + '" accept'
    held = {_FORWARD: [("rich-rule", address % side) for side in ("source", "destination")]}
    if backend == "ipip":
        held[_INPUT] = [("protocol", "4")]  # "ipip" is 94 in /etc/protocols, and 4 is "ipencap"
    elif backend == "vxlan":
        held[_INPUT] = [("port", "%d/udp" % (port or 8472))]
    for policy, egress in ((_FORWARD, "ANY"), (_INPUT, "HOST")):
        if policy in held:
            held[policy] += [("ingress-zone", "ANY"), ("egress-zone", egress)]
            held[policy] += [("priority", "-1"), ("target", "CONTINUE")]
    return [str(_Setting("policy " + policy, *item)) for policy, items in held.items() for item in items]


def paths(_owner: str) -> tuple[str, ...]:
    """The files that hold our policies."""
    return tuple(map(_path, _ABOUT))


def read() -> tuple[list[str], str]:
    """What our policies hold, and whose they are."""
    owner = ""
    stored: list[_Setting] = []
    for policy in _ABOUT:
        settings, whose = _stored(policy)
        owner = owner or whose
        stored += settings if whose else []
    if not _runs():
        return [str(setting) for setting in stored], owner
    running = _running_policies()
    mine = []
    for setting in {*stored, *running}:
        note = " (not permanent)" if setting not in stored else " (not in force)" if setting not in running else ""
        mine.append(str(setting) + note)
    return mine, owner


def write(owner: str, rules: Iterable[str]) -> None:
    """Make our policies hold this."""
    wanted = [_Setting(place, *rest.split(" ", 1)) for place, _colon, rest in (rule.partition(": ") for rule in rules)]
    for policy in _ABOUT:
        if os.path.exists(_path(policy)) and not _stored(policy)[1]:
            text = "%s is there and not ours: rename that policy, or remove it" % _path(policy)
            raise OSError(errno.EEXIST, text)
    for policy in _ABOUT:
        _store(policy, owner, [setting for setting in wanted if setting.place == "policy " + policy])
    if not _runs():
        return
    running = _running_policies()
    if {item for item in running if item.option in _FIXED} != {item for item in wanted if item.option in _FIXED}:
        _reload()
    else:
        _change("remove", [item for item in running if item not in wanted])
        _change("add", [item for item in wanted if item not in running])


# ------------------------------------------------------------------------------------------------ on disk


def _path(policy: str) -> str:
    return "%s/%s.xml" % (_FOLDER, policy)


def _stored(policy: str) -> tuple[list[_Setting], str]:
    """What a policy holds on disk, and its owner; empty if it is not ours."""
    try:
        root = ET.parse(_path(policy)).getroot()  # noqa: S314 - root's own file
    except (FileNotFoundError, ET.ParseError):
        return [], ""
    short = root.findtext("short") or ""
    if not short.startswith(ALIAS_PREFIX):
        return [], ""
    place = "policy " + policy
    settings = [_Setting(place, "priority", root.get("priority", "-1"))]
    settings.append(_Setting(place, "target", root.get("target", "CONTINUE")))
    elements = [element for element in root if element.tag not in ("short", "description")]
    settings += [_Setting(place, *_words(element)) for element in elements]
    return settings, short[len(ALIAS_PREFIX) :]


def _words(element: ET.Element) -> tuple[str, str]:
    """An element of a policy's file as option and value."""
    if element.tag == "port":
        return element.tag, "%s/%s" % (element.get("port"), element.get("protocol"))
    if element.tag == "rule":
        children = [(child.tag, list(child.attrib), len(child)) for child in element]
        if element.attrib == {"family": "ipv4"} and children in _RULE_CHILDREN:
            return "rich-rule", 'rule family="ipv4" %s address="%s" accept' % (
                element[0].tag,
                element[0].get("address"),
            )
        return "rich-rule", " ".join(ET.tostring(element, encoding="unicode").split())
    return element.tag, " ".join(element.attrib.values())


def _xml(setting: _Setting) -> str:
    """A setting as an element of a policy's file."""
    if setting.option == "rich-rule":
        side, address = _RULE.fullmatch(setting.value).groups()  # type: ignore[union-attr]  # it is of our own making
        return '<rule family="ipv4"><%s address=%s/><accept/></rule>' % (side, quoteattr(address))
    if setting.option == "port":
        port, _slash, protocol = setting.value.partition("/")
        return "<port port=%s protocol=%s/>" % (quoteattr(port), quoteattr(protocol))
    key = "value" if setting.option == "protocol" else "name"
    return "<%s %s=%s/>" % (setting.option, key, quoteattr(setting.value))


def _store(policy: str, owner: str, settings: list[_Setting]) -> None:
    """Write a policy's file, or remove it if it holds nothing."""
    present, whose = _stored(policy)
    if not settings:
        if whose:
            os.unlink(_path(policy))
        return
    if (sorted(present), whose) == (sorted(settings), owner):
        return
    if not os.path.isdir(_FOLDER):
        raise OSError(errno.ENOENT, "%s is not there: policies need firewalld 0.9 or newer" % _FOLDER)
    fixed = {setting.option: setting.value for setting in settings if setting.option in _FIXED}
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<policy target=%s priority=%s>" % (quoteattr(fixed["target"]), quoteattr(fixed["priority"])),
        "  <short>%s%s</short>" % (ALIAS_PREFIX, owner),
        "  <description>%s</description>" % _ABOUT[policy],
        *("  " + _xml(setting) for setting in settings if setting.option not in _FIXED),
        "</policy>",
        "",
    ]
    write_atomically(_path(policy), "\n".join(lines))


# ------------------------------------------------------------------------------------------------ running


def _running_policies() -> list[_Setting]:
    """What our policies hold while firewalld runs."""
    return [item for item in _listed("policy", "policies") if item.place.split(" ", 1)[1] in _ABOUT]


def _listed(kind: str, plural: str) -> Iterator[_Setting]:
    """What all zones or policies hold while firewalld runs."""
    place = option = ""
    for line in run("firewall-cmd", "--list-all-" + plural).splitlines():
        if not line.startswith((" ", "\t")):
            place = "%s %s" % (kind, line.split(" ")[0])
        elif line.startswith("\t"):
            yield _Setting(place, option, line.strip())
        else:
            name, _colon, values = line.strip().partition(":")
            option = _LISTS.get(name, name)
            if name in _LISTS:
                yield from (_Setting(place, option, value) for value in values.split())
            elif name in _FIXED:
                yield _Setting(place, name, values.strip())
            elif name in _SWITCHES and values.strip() == "yes":
                yield _Setting(place, name, "")


def _running() -> list[_Setting]:
    """What can be changed without a reload and does not outlast one, without our own policies."""
    held = [*_listed("zone", "zones"), *_listed("policy", "policies"), *_further()]
    ours = ["policy " + policy for policy in _ABOUT]
    return [item for item in held if item.option not in _FIXED and item.place not in ours]


def _further() -> Iterator[_Setting]:
    """What ipsets and the direct interface hold."""
    for name in run("firewall-cmd", "--get-ipsets").split():
        for entry in run("firewall-cmd", "--ipset=" + name, "--get-entries").splitlines():
            yield _Setting("ipset " + name, "entry", entry)
    for option in ("chain", "rule", "passthrough"):
        for line in run("firewall-cmd", "--direct", "--get-all-%ss" % option).splitlines():
            if line:
                yield _Setting("direct", option, line)


def _change(verb: str, settings: Iterable[_Setting]) -> None:
    """Add settings to the running configuration or remove them from it: one command for each place and option."""
    commands: dict[tuple[str, ...], list[str]] = {}
    for item in settings:
        option = "--%s-%s" % (verb, item.option)
        if item.place == "direct":
            commands.setdefault(("--direct", option, *shlex.split(item.value)), [])
            continue
        if (verb, item.option) == ("add", "interface"):
            option = "--change-interface"  # it may be in another zone by now
        arguments = commands.setdefault(("--%s=%s" % tuple(item.place.split(" ", 1)), option), [])
        arguments.append("%s=%s" % (option, item.value) if item.value else option)
    failures = []
    for key, arguments in commands.items():
        words = [*key[:1], *arguments] if arguments else list(key)
        try:
            run("firewall-cmd", *words)
        except OSError as error:
            failures.append(error)
    if failures:
        raise OSError(failures[0].errno, "; ".join(str(error.strerror) for error in failures))


def _reload() -> None:
    """Have firewalld read what is on disk, and put back what others lose by that.

    What someone has put on disk for a later reload is not in force after this one either.
    """
    programs = [program for program in ("iptables", "ip6tables") if found(program + "-save")]
    saved = {program: attempt(program + "-save").stdout for program in programs}
    before = _running()
    run("firewall-cmd", "--reload")
    after = _running()
    _change("remove", [item for item in after if item not in before])
    _change("add", [item for item in before if item not in after])
    for program, text in saved.items():
        for tries_left in reversed(range(_TRIES)):
            lost = _lost(text, attempt(program + "-save").stdout)
            try:
                if lost:
                    run(program + "-restore", "-w", "-n", text=lost)
                break
            except OSError:  # Docker puts back its own at the same time
                if not tries_left:
                    raise


class _Table(NamedTuple):
    """A table as iptables-save prints it: the policies of its chains, "-" for one that is no hook's, and their rules."""

    policies: dict[str, str]
    rules: dict[str, list[str]]


def _lost(before: str, after: str) -> str:
    """What iptables-save printed before and does not now, as one input of ``iptables-restore -n``.

    A rule that is lost comes back before the rule that it stood before, so that a REJECT at the end stays at the end.
    """
    text = ""
    there = _tables(after)
    for name, table in _tables(before).items():
        now = there.get(name, _Table({}, {}))
        commands = []
        for chain, policy in table.policies.items():
            if policy == "-" and chain not in now.policies:
                commands.append("-N " + chain)
            elif policy not in ("-", now.policies.get(chain, "ACCEPT")):
                commands.append("-P %s %s" % (chain, policy))
        for chain, rules in table.rules.items():
            working = list(now.rules.get(chain, ()))
            left, place = Counter(working), len(working)
            for rule in reversed(rules):
                if left[rule]:
                    left[rule] -= 1
                    place = working.index(rule) if rule in working[:place] else place
                else:
                    working.insert(place, rule)
                    commands.append("-I %s %d %s" % (chain, place + 1, rule))
        if commands:
            text += "\n".join(["*" + name, *commands, "COMMIT", ""])
    return text


def _tables(saved: str) -> dict[str, _Table]:
    """iptables-save's text, without the chains that our policies have with firewalld's backend iptables."""
    tables: dict[str, _Table] = {}
    table = _Table({}, {})
    for line in saved.splitlines():
        if any(policy in line for policy in _ABOUT):
            continue
        if line.startswith("*"):
            table = tables[line[1:].strip()] = _Table({}, {})
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            table.policies[chain] = policy
        elif line.startswith("-A "):
            _append, chain, rule = line.split(" ", 2)
            table.rules.setdefault(chain, []).append(rule)
    return tables
