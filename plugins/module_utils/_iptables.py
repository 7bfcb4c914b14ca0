# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What iptables-save prints, in the words of ``nft -j``: one judge (``_rules``) then serves both.

``nft -j`` leaves out what an iptables-nft match or target says (``{"xt": {"type": "match", "name": "conntrack"}}``), and
does not see iptables-legacy at all. Sources: iptables-extensions(8), libnftables-json(5).
"""

from __future__ import annotations

import re
import shlex
import typing as t
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

LEGACY = "iptables-legacy"
NFT = "iptables"  # as people call iptables-nft

Item = Mapping[str, t.Any]
_Read = Callable[[Item, str], tuple[Item, t.Any]]  # from a field and a word to both sides of a match

_HOOKS = {  # a table's type and the priorities of its chains: linux/netfilter_ipv4.h
    "raw": ("filter", {"PREROUTING": -300, "OUTPUT": -300}),
    "mangle": ("filter", dict.fromkeys(("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"), -150)),
    "nat": ("nat", {"PREROUTING": -100, "OUTPUT": -100, "INPUT": 100, "POSTROUTING": 100}),
    "filter": ("filter", dict.fromkeys(("INPUT", "FORWARD", "OUTPUT"), 0)),
    "security": ("filter", dict.fromkeys(("INPUT", "FORWARD", "OUTPUT"), 50)),
}
_COMMENT = re.compile(r' -m comment --comment ("(?:\\.|[^"\\])*"|\S+)')


def merge(nft: Sequence[Item], iptables_nft_save: str = "", iptables_legacy_save: str = "") -> list[Item]:
    """nft's listing with what iptables knows better: the rules of its own chains, and all of iptables-legacy.

    A text may be empty where a tool is missing. A chain stays as nft tells it unless iptables has as many rules for it:
    iptables passes over what it does not understand in a table of its own name.
    """
    ours = legacy(iptables_nft_save, NFT)
    lengths = _lengths(nft)
    known = {place for place, length in _lengths(ours).items() if lengths[place] == length} - {None}
    merged: list[Item] = []
    for item in nft:
        kind, body = next(iter(item.items()))
        if _place(item) not in known:
            merged.append(item)
        elif kind == "chain":
            merged.append({"chain": {**body, "tool": NFT}})
    merged += [item for item in ours if "rule" in item and _place(item) in known]
    return merged + legacy(iptables_legacy_save)


def _place(item: Item) -> tuple[str, str] | None:
    """The table and chain of an item, if it is one of IPv4 alone."""
    kind, body = next(iter(item.items()))
    if kind not in ("chain", "rule") or body["family"] != "ip":
        return None
    return body["table"], body["name" if kind == "chain" else "chain"]


def _lengths(listing: Sequence[Item]) -> Counter[tuple[str, str] | None]:
    """The number of items of every chain, itself included."""
    return Counter(map(_place, listing))


def legacy(text: str, tool: str = LEGACY) -> list[Item]:
    """iptables-save's text as nft's listing. Chains and rules also have "tool", rules their line as "text"."""
    listing: list[Item] = []
    home: dict[str, str] = {}
    chains: set[str] = set()
    for printed in text.splitlines():
        line = re.sub(r"^\[\d+:\d+\] ", "", printed)  # iptables-save -c
        if line.startswith("*"):
            home = {"family": "ip", "table": line[1:].strip(), "tool": tool}
            chains = set()
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains.add(name)
            kind, priorities = _HOOKS.get(home["table"], ("filter", {}))
            base = {"type": kind, "hook": name.lower(), "prio": priorities.get(name), "policy": policy.lower()}
            listing.append({"chain": {**home, "name": name, **(base if name in priorities else {})}})
        elif line.startswith("-A "):
            said = _COMMENT.search(line)
            shown = _COMMENT.sub("", line)
            try:
                words = shlex.split(shown) if '"' in shown else shown.split()  # shlex is slow
                expressions = _rule(words[2:], chains)
            except (IndexError, ValueError):  # no rule as we know them: a doubt, and no reason to give up
                expressions = [{"xt": {"type": "rule", "name": "of a new kind"}}]
            rule = {**home, "chain": line.split()[1], "expr": expressions, "text": shown}
            if said:
                rule["comment"] = re.sub(r"\\(.)", r"\1", said[1].strip('"'))
            listing.append({"rule": rule})
    return listing


def _rule(words: list[str], chains: Collection[str]) -> list[Item]:
    """A rule's matches and target."""
    expressions: list[Item] = []
    module = ""
    while words:
        word = words.pop(0)
        equal = word != "!"
        if not equal:
            word = words.pop(0)
        option = _OPTIONS.get((module, word)) or _OPTIONS.get(("", word))
        if word == "-j":
            return [*expressions, {"jump": {"target": words[0]}} if words[0] in chains else _target(*words)]
        if word == "-g":
            return [*expressions, {"goto": {"target": words[0]}}]
        if word == "-m":
            module = words.pop(0)
        if option:
            field, operator, read = option
            left, right = read(field, words.pop(0) if read is not _fragment else "")
            expressions.append(
                {"match": {"op": operator if equal else _OPPOSITE[operator], "left": left, "right": right}}
            )
        elif word != "-m" or module not in _MODULES:  # nobody here knows it: neither yes nor no
            expressions.append({"xt": {"type": "match", "name": module}})
            while words and words[0] not in ("-m", "-j", "-g"):
                words.pop(0)
    return expressions


# ------------------------------------------------------------------------------------------------ matches


def _field(name: str) -> Item:
    layer, _space, field = name.partition(" ")
    if layer in ("meta", "ct"):
        return {layer: {"key": field}}
    if layer == "fib":
        return {"fib": {"flags": [field], "result": "type"}}
    return {"payload": {"protocol": layer, "field": field}}


def _plain(field: Item, word: str) -> tuple[Item, t.Any]:
    return field, word


def _interface(field: Item, word: str) -> tuple[Item, t.Any]:
    return field, re.sub(r"\+$", "*", word)


def _network(field: Item, word: str) -> tuple[Item, t.Any]:
    address, _slash, mask = word.partition("/")
    if "." in mask:
        return {"&": [field, mask]}, address
    return field, {"prefix": {"addr": address, "len": int(mask or 32)}}


def _one_of(field: Item, word: str) -> tuple[Item, t.Any]:
    parts = (part.partition(":") for part in word.lower().split(","))
    return field, {"set": [{"range": [low or "0", high or "65535"]} if colon else low for low, colon, high in parts]}


def _range(field: Item, word: str) -> tuple[Item, t.Any]:
    return field, {"range": word.split("-")}


def _masked(field: Item, word: str) -> tuple[Item, t.Any]:
    value, _slash, mask = word.partition("/")
    return {"&": [field, mask or "0xffffffff"]}, value


def _icmp(field: Item, word: str) -> tuple[Item, t.Any]:
    kind, _slash, code = word.partition("/")
    if word == "any":
        return field, {"range": [0, 255]}
    return ({"concat": [field, _field("icmp code")]}, {"concat": [kind, code]}) if code else (field, kind)


def _fragment(field: Item, _word: str) -> tuple[Item, t.Any]:
    return {"&": [field, 0x1FFF]}, 0


def _packet_type(field: Item, word: str) -> tuple[Item, t.Any]:
    return field, "host" if word == "unicast" else word


_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">": "<="}
_OPTIONS: dict[tuple[str, str], tuple[Item, str, _Read]] = {  # by module and option
    (module, option): (_field(field), operator, read)
    for module, option, field, operator, read in (
        ("", "-s", "ip saddr", "==", _network),
        ("", "-d", "ip daddr", "==", _network),
        ("", "-i", "meta iifname", "==", _interface),
        ("", "-o", "meta oifname", "==", _interface),
        ("", "-p", "meta l4proto", "==", _plain),
        ("", "-f", "ip frag-off", "!=", _fragment),
        ("tcp", "--sport", "tcp sport", "==", _one_of),
        ("tcp", "--dport", "tcp dport", "==", _one_of),
        ("udp", "--sport", "udp sport", "==", _one_of),
        ("udp", "--dport", "udp dport", "==", _one_of),
        ("multiport", "--sports", "th sport", "==", _one_of),
        ("multiport", "--dports", "th dport", "==", _one_of),
        ("icmp", "--icmp-type", "icmp type", "==", _icmp),
        ("conntrack", "--ctstate", "ct state", "==", _one_of),
        ("state", "--state", "ct state", "==", _one_of),
        ("mark", "--mark", "meta mark", "==", _masked),
        ("iprange", "--src-range", "ip saddr", "==", _range),
        ("iprange", "--dst-range", "ip daddr", "==", _range),
        ("length", "--length", "ip length", "==", _one_of),
        ("ttl", "--ttl-eq", "ip ttl", "==", _plain),
        ("ttl", "--ttl-lt", "ip ttl", "<", _plain),
        ("ttl", "--ttl-gt", "ip ttl", ">", _plain),
        ("mac", "--mac-source", "ether saddr", "==", _plain),
        ("addrtype", "--src-type", "fib saddr", "==", _one_of),
        ("addrtype", "--dst-type", "fib daddr", "==", _one_of),
        ("pkttype", "--pkt-type", "meta pkttype", "==", _packet_type),
    )
}
_MODULES = {module for module, _option in _OPTIONS}

# ------------------------------------------------------------------------------------------------ targets


def _target(name: str, *words: str) -> Item:
    if name in ("ACCEPT", "DROP", "REJECT", "RETURN", "NOTRACK"):
        return {name.lower(): None}
    if name in ("QUEUE", "NFQUEUE"):
        return {"queue": None}
    if name == "CT" and "--notrack" in words:
        return {"notrack": None}
    if name in ("MASQUERADE", "SNAT", "DNAT", "REDIRECT"):
        single = re.fullmatch(r"(\d+\.[\d.]+)(?::(\d+))?", words[1] if len(words) > 1 else "")
        return {name.lower(): {"addr": single[1], **({"port": int(single[2])} if single[2] else {})} if single else {}}
    if name == "MARK" and words[0] == "--set-xmark":
        value, mask = (int(word, 16) for word in words[1].split("/"))
        return _change("meta mark", {"^": [{"&": [_field("meta mark"), 0xFFFFFFFF ^ mask]}, value]})
    if name == "CONNMARK" and words[0] == "--restore-mark":
        return _change("meta mark", _field("ct mark"))
    if name == "TTL":
        return _change("ip ttl", {"xt": None})
    return {"xt": {"type": "target", "name": name}}


def _change(field: str, value: Item) -> Item:
    return {"mangle": {"key": _field(field), "value": value}}
