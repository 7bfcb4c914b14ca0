# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rules of nftables or iptables would stop this packet, judged from listings alone.

    listing = json.loads(read("nft -j list ruleset"))["nftables"]  # without -n, which swaps the bytes of EtherTypes
    listing = merge(listing, read("iptables-nft-save"), read("iptables-legacy-save"))
    judge(listing, "forward", "ip", Meta(iif="cni0", oif="eth1", src="10.244.0.2", dst="10.244.1.2", icmp_type=8))

What rules ask of the host, such as whether an address is its own, comes with a ``Host``.
A test has three outcomes: yes, no, and unsure where the packet's description or the listing does not tell. A rule that is
unsure "may drop"; one that may accept makes unsure what comes after it. So nothing is let through in silence.
Sources: nft(8), libnftables-json(5), net/netfilter/nf_tables_core.c. IPv4; without the rules of ebtables-legacy.
"""

from __future__ import annotations

import operator
import re
import socket
import struct
import typing as t
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ._iptables import LEGACY, Item, legacy, merge
from ._nft_words import rule_text
from ._nft_words import text as words_of

__all__ = ["Host", "Meta", "Ruling", "judge", "legacy", "merge", "passed"]

_SNAT, _DNAT, _SOURCE_BOUND, _DESTINATION_BOUND = 1 << 4, 1 << 5, 1 << 7, 1 << 8  # nf_conntrack_common.h: IPS_*


@dataclass(frozen=True)
class Meta:
    """A packet as a hook sees it, its outermost headers. None: not known."""

    iif: str = ""  # empty: none, as at the hook output
    oif: str = ""
    src: str | None = None
    dst: str | None = None
    protocol: int = 1  # IANA's number: 1 ICMP, 4 IPIP, 17 UDP
    ttl: int | None = None
    length: int | None = None  # bytes, with the IP header
    df: bool | None = None
    mark: int | None = 0
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    source_mac: str | None = None  # empty: none, on a raw device
    destination_mac: str | None = None
    pkttype: str | None = None  # of a bridge's frame: host, other, broadcast, multicast
    vni: int | None = None
    ct: str | None = "new"  # the connection's state: new, established, related, untracked, invalid
    status: int | None = 0  # and its status bits, while it is new
    original: tuple[t.Any, ...] | None = None  # of a translated one: source, destination, sport, dport as they were
    back: tuple[t.Any, ...] | None = None  # the same, as a translated connection's answer gets them back


@dataclass(frozen=True)
class Host:
    """What rules ask of the host. None: not known."""

    type_of: Callable[[str], str | None] = lambda _address: None
    """An address to what it is here: local, unicast, broadcast, multicast."""
    own: Callable[[], str | None] = lambda: None
    """The address that masquerade, or redirect, puts in: the interface's."""


NOWHERE = Host()


@dataclass(frozen=True)
class Ruling:
    """A rule or policy that stops the packet, may stop it, or translates its addresses."""

    hook: str
    verdict: str  # drop, reject, may drop; masquerade, snat, dnat, redirect, or these with "may "
    where: str  # "table inet filter chain forward", "iptables-legacy table filter chain FORWARD"
    rule: str  # as nft or iptables prints it, or the policy
    comment: str = ""
    why_unsure: str = ""

    @property
    def stops(self) -> bool:
        """It surely does."""
        return self.verdict in ("drop", "reject")


def judge(ruleset: Sequence[Item], hook: str, family: str, meta: Meta, host: Host = NOWHERE) -> list[Ruling]:
    """The rulings on a packet at a hook, of every base chain in order of priority: all obstacles at once.

    FAMILY is the layer: "ip" (tables ip and inet; prerouting, input, forward, output, postrouting), "bridge" (the same
    hooks), or "netdev" (ingress of meta.iif, egress of meta.oif). None: the packet passes, and stays as it is.
    """
    return passed(ruleset, hook, family, meta, host)[0]


def passed(
    ruleset: Sequence[Item], hook: str, family: str, meta: Meta, host: Host = NOWHERE
) -> tuple[list[Ruling], Meta]:
    """What ``judge`` says, and the packet as it leaves the hook: rules set marks and translate addresses."""
    judgement = _Judgement(ruleset, hook, family, meta, host)
    translates = _TRANSLATES_AT.get(hook, 0) if family == "ip" else None

    def order(chain: Item) -> tuple[int, int]:
        """Chains of type nat are all called from one place; their own priorities tell only which of them is first."""
        return translates if chain["type"] == "nat" and translates else int(chain["prio"]), int(chain["prio"])

    bases = sorted(judgement.bases, key=order)
    for chain in bases:
        if translates is not None and order(chain)[0] >= translates:
            judgement.restore()
        judgement.base(chain)
    judgement.restore()
    judgement.bind()
    return judgement.rulings, judgement.meta


# ------------------------------------------------------------------------------------------------ values


class _Unsure(Exception):
    """Neither yes nor no. The message: what it depends on."""


class _Absent(Exception):
    """The packet has no such field: the rule does not match, be its operator == or !=."""


@dataclass(frozen=True)
class _Unknown:
    """A value that cannot be told from here."""

    what: str


_Value = t.Union[int, str, _Unknown, tuple[t.Any, ...]]  # a number, a word such as an interface's name, a concatenation

_ATTRIBUTES = {  # what rules can change, too
    "meta iif": "iif",
    "meta iifname": "iif",
    "meta oif": "oif",
    "meta oifname": "oif",
    "meta l4proto": "protocol",
    "meta mark": "mark",
    "ip protocol": "protocol",
    "ip saddr": "src",
    "ip daddr": "dst",
    "ip ttl": "ttl",
    "ip length": "length",
    "icmp type": "icmp_type",
    "ether saddr": "source_mac",
    "ether daddr": "destination_mac",
    "ct state": "ct",
    "@th,96,24": "vni",
    **{f"{layer} {port}": port for layer in ("tcp", "udp", "th") for port in ("sport", "dport")},
}
_WORDS = ("meta iif", "meta iifname", "meta oif", "meta oifname")  # compared as words, not as numbers
_LAYERS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "esp": 50,
    "ah": 51,
    "comp": 108,
    "sctp": 132,
    "udplite": 136,
}
_NUMBERS = {
    name: int(number)
    for name, number in re.findall(
        r"(\S+)=(\d+)",
        "invalid=1 established=2 related=4 new=8 untracked=64"  # linux/netfilter/nf_conntrack_common.h
        " echo-reply=0 destination-unreachable=3 source-quench=4 redirect=5 echo-request=8 router-advertisement=9"
        " router-solicitation=10 time-exceeded=11 parameter-problem=12 timestamp-request=13 timestamp-reply=14"
        " info-request=15 info-reply=16 address-mask-request=17 address-mask-reply=18"  # ICMP types
        " net-unreachable=0 host-unreachable=1 prot-unreachable=2 port-unreachable=3 frag-needed=4"  # and codes
        " net-prohibited=9 host-prohibited=10 admin-prohibited=13"
        " expected=1 seen-reply=2 assured=4 confirmed=8 snat=16 dnat=32 dying=512",  # ct status
    )
}
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": operator.lshift,
    ">>": operator.rshift,
}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "in": lambda value, bits: value & bits != 0,
    "!": lambda value, bits: value & bits == 0,
}


def _computed(meta: Meta, hook: str, family: str) -> dict[str, int | str | None]:
    routed = family == "ip" and hook in ("prerouting", "input", "forward")
    new = meta.ct == "new"
    original = meta.original or (meta.src, meta.dst, meta.sport, meta.dport)
    names = (("ip saddr", "saddr"), ("ip daddr", "daddr"), ("proto-src",), ("proto-dst",))
    return {
        **{f"ct original {name}": value if new else None for value, known in zip(original, names) for name in known},
        "ct original protocol": meta.protocol if new else None,
        "ct status": meta.status if new else None,
        "meta nfproto": "ipv4",
        "meta protocol": "ip",
        "meta length": None if hook == "egress" else meta.length,  # the frame's there
        "meta pkttype": "host" if routed else meta.pkttype if family == "bridge" else None,
        "ether type": "ip",
        "ip version": 4,
        "ip hdrlength": 5,
        "ip frag-off": None if meta.df is None else 0x4000 * meta.df,
        "icmp code": 0 if meta.icmp_type in (0, 8) else None,
        "udp length": None if meta.length is None else meta.length - 20,
        "ct direction": "original" if meta.ct == "new" else None,
    }


def _number(word: t.Any) -> int:
    """A rule's number, address or name as a number."""
    if isinstance(word, list):  # flags
        return sum({_number(flag) for flag in word})
    if isinstance(word, dict) and "|" in word:
        return _number(word["|"])
    if isinstance(word, int):
        return word
    text = str(word)
    if text in _NUMBERS:
        return _NUMBERS[text]
    if re.fullmatch(r"\d+|0x[0-9a-f]+", text):
        return int(text, 16 if text.startswith("0x") else 10)
    if re.fullmatch(r"\d+(\.\d+){3}", text):
        return int(struct.unpack("!I", socket.inet_aton(text))[0])
    if re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text):
        return int(text.replace(":", ""), 16)
    try:
        return socket.getprotobyname(text)  # as nft has it from this host's /etc/protocols
    except OSError:
        raise _Unsure(words_of(word)) from None


def _some(tests: Iterable[Callable[[], bool]]) -> bool:
    """Whether a test holds. Unsure if none surely does and one may."""
    doubt: _Unsure | None = None
    for test in tests:
        try:
            if test():
                return True
        except _Unsure as unsure:
            doubt = doubt or unsure
    if doubt:
        raise doubt
    return False


# ------------------------------------------------------------------------------------------------ the judgement

_FAMILIES = {"ip": ("ip", "inet"), "bridge": ("bridge",), "netdev": ("netdev", "inet")}
_TRANSLATIONS = {"masquerade": "src", "snat": "src", "dnat": "dst", "redirect": "dst"}
_TRANSLATES_AT = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}  # nf_nat_proto.c, in priority
_BINDS = {
    "prerouting": _DESTINATION_BOUND,
    "output": _DESTINATION_BOUND,
    "input": _SOURCE_BOUND,
    "postrouting": _SOURCE_BOUND,
}
_STOPS = {"drop": "drop", "reject": "reject", "fwd": "drop"}
_VERDICTS = {"accept", "continue", "return", "jump", "goto", "queue", *_STOPS, *_TRANSLATIONS}
_LIMITS = {"limit", "quota", "ct count", "meter"}
_HARMLESS = {"counter", "log", "set", "dup", "flow", "last", "ct helper", "ct timeout", "ct expectation", "secmark"}
_HARMLESS_TARGETS = re.compile(
    "AUDIT|C(HECKSUM|LASSIFY|ONN(SEC)?MARK|T)|DSCP|ECN|(NF|U)?LOG|SECMARK|SET|TCPMSS|TEE|TOS|TRACE"
)


class _Judgement:
    """One packet at one hook."""

    def __init__(self, ruleset: Sequence[Item], hook: str, family: str, meta: Meta, host: Host) -> None:
        self.hook, self.family, self.host = hook, family, host
        self.rulings: list[Ruling] = []
        self.bases: list[Item] = []
        self.flags: dict[tuple[t.Any, ...], set[str]] = {}  # of tables
        self.rules: dict[tuple[t.Any, ...], list[Item]] = {}
        self.sets: dict[tuple[t.Any, ...], list[t.Any]] = {}
        self.home: tuple[t.Any, ...] = ()  # the table where we are
        self.may_be_bound = ""  # why a rule of an earlier chain may have translated it
        self.meta = meta
        self._change()
        for kind, body in (next(iter(item.items())) for item in ruleset):
            if kind == "table" and "flags" in body:
                self.flags[_home({**body, "table": body["name"]})] = set(_listed(body["flags"]))
            elif kind == "chain" and body.get("hook") == hook and body["family"] in _FAMILIES[family]:
                self.bases.append(body)
            elif kind == "rule":
                self.rules.setdefault((_home(body), body["chain"]), []).append(body)
            elif kind in ("set", "map"):
                self.sets[_home(body), body["name"]] = body.get("elem", [])

    def base(self, chain: Item) -> None:
        self.home, doubt = _home(chain), ""
        if (
            chain["type"] == "nat"
        ):  # only a connection's first packet comes here, and one translation at a hook is all it gets
            bound = self.meta.status is not None and self.meta.status & _BINDS.get(self.hook, 0)
            if bound or self.meta.ct in ("established", "untracked", "invalid"):
                return
            doubt = self.may_be_bound or (
                "" if self.meta.ct and self.meta.status is not None else "depends on ct state"
            )
        flags = self.flags.get(self.home, set()) - {"owner", "persist"}
        if "dormant" in flags:
            return
        if flags:  # 1.0.6 prints anything
            doubt = "this version of nft does not tell whether the table is dormant"
        if self.family == "netdev":
            devices = _listed(chain.get("dev", []))
            if devices and (self.meta.iif if self.hook == "ingress" else self.meta.oif) not in devices:
                return
            doubt = doubt if devices else "this version of nft does not tell the chain's device"
        accepted = self._walk(chain["name"], doubt)
        if accepted is not None and chain.get("policy") == "drop":
            policy = f"-P {chain['name']} DROP" if "tool" in chain else "policy drop"
            self._rule("drop", {**chain, "chain": chain["name"], "text": policy}, accepted or doubt)

    def restore(self) -> None:
        """Connection tracking undoes in an answer what was translated."""
        binds = _BINDS.get(self.hook) if self.family == "ip" else None
        if self.meta.back and binds:
            source, destination, sport, dport = self.meta.back
            towards = binds == _DESTINATION_BOUND
            self._change(**({"dst": destination, "dport": dport} if towards else {"src": source, "sport": sport}))

    def bind(self) -> None:
        """What no rule has translated here stays as it is from now on."""
        binds = _BINDS.get(self.hook) if self.family == "ip" else None
        if binds and self.meta.ct == "new" and self.meta.status is not None:
            self._change(status=self.meta.status | binds)

    def _walk(self, name: str, doubt: str) -> str | None:
        """Take the packet through a chain, which it enters surely if DOUBT is empty.

        Returns why it may have been accepted in there, empty if it surely was not; None if it does not come out at all.
        A doubtful return counts up to the end of its chain, a doubtful accept up to the end of the base chain.
        """
        accepted = ""
        for rule in self.rules.get((self.home, name), ()):
            for kind, body, why in self._outcomes(rule, doubt):
                if kind == "continue":
                    continue
                unless = why and f"unless this takes it before: {rule_text(rule)}"
                if kind in ("jump", "goto"):
                    inner = self._walk(body["target"], why)
                    if inner is None:
                        return None
                    accepted = accepted or inner
                    if kind == "jump":
                        unless = inner
                elif kind in _TRANSLATIONS:
                    if self._translate(body, why):
                        self._rule(kind, rule, why)
                    self.may_be_bound = self.may_be_bound or unless
                    accepted = accepted or unless
                elif kind != "return":
                    self._rule(kind, rule, why)
                    if kind in _STOPS:
                        unless = ""
                    accepted = accepted or unless
                if not why and kind != "jump":
                    return accepted if kind in ("return", "goto") else None
                doubt = doubt or unless
        return accepted

    def _rule(self, kind: str, rule: Item, why: str) -> None:
        if kind == "accept":
            return
        verdict = kind
        if kind not in _TRANSLATIONS:
            why = why or ("" if kind in _STOPS else "a program decides" if kind == "queue" else f"depends on {kind}")
            verdict = _STOPS.get(kind, "drop")
        owner = f"{rule['tool']} table" if "tool" in rule else f"table {rule['family']}"
        where = f"{owner} {rule['table']} chain {rule['chain']}"
        verdict = verdict if not why else f"may {verdict}" if kind in _TRANSLATIONS else "may drop"
        self.rulings.append(Ruling(self.hook, verdict, where, rule_text(rule), rule.get("comment", ""), why))

    def _outcomes(self, rule: Item, doubt: str) -> Iterator[tuple[str, t.Any, str]]:
        """The verdicts that a rule may come to, each with its doubt. Its changes to the packet are done on the way."""
        for statement in rule["expr"]:
            ((kind, body),) = statement.items()
            try:
                if kind == "match":
                    if not self._matches(body["left"], body["op"], body["right"]):
                        return
                elif kind == "vmap":
                    for verdict, unsure in self._mapped(body):
                        ((word, chain),) = verdict.items()
                        yield word, chain, doubt or (unsure and f"depends on {unsure}")
                elif kind == "mangle":
                    self._mangle(body["key"], body["value"], doubt)
                elif kind == "notrack":
                    self._change(ct=None if doubt else "untracked")
                elif kind in _TRANSLATIONS:
                    if (body or {}).get("family") != "ip6":
                        yield self._translation(kind, body or {}, doubt)
                elif kind in _VERDICTS:
                    yield kind, body, doubt
                elif _may_hold_back(kind, body):
                    raise _Unsure(words_of(statement))
                elif not _is_harmless(kind, body):
                    yield kind, body, doubt or f"depends on {words_of(statement)}"
            except _Absent:
                return
            except _Unsure as unsure:
                doubt = doubt or f"depends on {unsure}"

    def _change(self, **attributes: t.Any) -> None:
        self.meta = replace(self.meta, **attributes)
        self.computed = _computed(self.meta, self.hook, self.family)

    def _translation(self, kind: str, body: Item, doubt: str) -> tuple[str, t.Any, str]:
        """A translation with the address and port that it puts in. None: not known."""
        side = _TRANSLATIONS[kind]
        port = {"src": "sport", "dst": "dport"}[side]
        puts = {side: getattr(self.meta, side), port: getattr(self.meta, port)}
        try:
            if kind in ("masquerade", "redirect"):
                puts[side] = "127.0.0.1" if kind == "redirect" and self.hook == "output" else self.host.own()
            elif "addr" in body:
                value = self._value(body["addr"])
                address, *number = value if isinstance(value, tuple) else (value,)
                puts[side] = socket.inet_ntoa(struct.pack("!I", address)) if isinstance(address, int) else None
                puts.update({port: number[0]} if number else {})
            elif "port" not in body:  # iptables' with more than one
                puts[side] = None
        except _Unsure as unsure:
            puts[side], doubt = None, doubt or f"depends on {unsure}"
        if "port" in body:
            puts[port] = body["port"]
        if kind == "masquerade" or "random" in str(body.get("flags", "")):
            puts[port] = None  # another one, where that is taken
        return kind, {**puts, port: puts[port] if isinstance(puts[port], int) else None}, doubt

    def _translate(self, puts: Item, why: str) -> bool:
        """Put other addresses in, and say whether they are others: a translation to what is there binds it to stay so."""
        had = {name: getattr(self.meta, name) for name in puts}
        changes = any(value != had[name] for name, value in puts.items() if value or name in ("src", "dst"))
        status = None if self.meta.status is None else self.meta.status | _BINDS.get(self.hook, 0)
        if not changes:
            self._change(status=None if why else status)
        elif why:
            self._change(**{name: value if had[name] == value else None for name, value in puts.items()}, status=None)
        else:
            was = (self.meta.src, self.meta.dst, self.meta.sport, self.meta.dport)
            bit = _SNAT if "src" in puts else _DNAT
            self._change(**puts, status=status and status | bit, original=self.meta.original or was)
        return changes

    def _mangle(self, key: Item, new: t.Any, doubt: str) -> None:
        name = words_of(key)
        attribute = "pkttype" if name == "meta pkttype" else _ATTRIBUTES.get(name)
        self._value(key)  # absent?
        value: t.Any = new if isinstance(new, str) else None
        try:
            if attribute not in ("src", "dst", "source_mac", "destination_mac", "pkttype"):
                value = self._value(new)
        except _Unsure:  # it may have, and the rule may end here
            if attribute:
                self._change(**{attribute: None})
            raise
        if attribute:
            known = isinstance(value, (int, str)) and not doubt
            self._change(**{attribute: value if known else None})

    def _matches(self, left: t.Any, comparison: str, right: t.Any) -> bool:
        value = self._value(left)
        if comparison not in _COMPARISONS:
            return self._holds(value, right) == (comparison == "==")
        if not isinstance(value, int):
            raise _Unsure(words_of(left))
        return _COMPARISONS[comparison](value, _number(right))

    def _value(self, expression: t.Any) -> _Value:
        """What the packet has for an expression."""
        if not isinstance(expression, dict):
            return _number(expression)
        kind, body = next(iter(expression.items()))
        if kind == "concat":
            return tuple(self._value(part) for part in body)
        if kind in _OPERATIONS:
            result = self._value(body[0])
            for part in body[1:]:
                if not isinstance(result, int):
                    break
                value = self._value(part)
                result = _OPERATIONS[kind](result, value) if isinstance(value, int) else value
            return result
        if kind == "map":
            for found, unsure in self._mapped(body):
                if unsure:
                    raise _Unsure(unsure)
                return self._value(found)
            raise _Absent
        name = words_of(expression)
        if kind == "payload":
            layer = body.get("protocol", "")
            if layer in ("ip6", "icmpv6", "arp") or self.meta.protocol != _LAYERS.get(layer, self.meta.protocol):
                raise _Absent
        if kind == "ct" and name != "ct state" and self.meta.ct == "untracked":
            raise _Absent
        if kind == "fib":
            return self._type_of(name)
        known: t.Any = getattr(self.meta, _ATTRIBUTES[name]) if name in _ATTRIBUTES else self.computed.get(name)
        if known is None or "tunnel" in (body or ()):
            return _Unknown(name)
        if known == "" and kind == "payload":
            raise _Absent
        return known if name in _WORDS or name in self.computed else _number(known)

    def _type_of(self, name: str) -> _Value:
        """What an address of the packet is to this host."""
        addresses = {"fib daddr type": self.meta.dst, "fib saddr type": self.meta.src}
        found = self.host.type_of(addresses.get(name) or "") if addresses.get(name) else None
        if found is None and name == "fib daddr type":
            found = {"forward": "unicast", "input": "local"}.get(self.hook)
        return found or _Unknown(name)

    def _holds(self, value: _Value, wanted: t.Any) -> bool:
        """Whether a value is the one wanted, or among them."""
        if isinstance(wanted, str) and wanted.startswith("@"):
            return self._holds(value, {"set": self.sets.get((self.home, wanted[1:]), [])})
        kind, body = next(iter(wanted.items())) if isinstance(wanted, dict) else ("", wanted)
        if kind == "elem":
            return self._holds(value, body["val"])
        if kind == "set":
            return _some(partial(self._holds, value, element) for element in body)
        if kind == "concat" and isinstance(value, tuple):
            return not _some(partial(self._differs, part, want) for part, want in zip(value, body))
        if isinstance(value, _Unknown):
            if kind == "range" and body == [0, 65535] and value.what.endswith("port"):  # so says a set of "any port"
                return True
            raise _Unsure(value.what)
        if isinstance(value, str) and isinstance(wanted, str):
            if wanted.endswith("*") and not wanted.endswith("\\*"):
                return value.startswith(wanted[:-1])
            return value == wanted.replace("\\*", "*")
        if isinstance(value, int) and kind == "range":
            return _number(body[0]) <= value <= _number(body[1])
        if isinstance(value, int) and kind == "prefix":
            rest: int = (48 if ":" in body["addr"] else 32) - body["len"]
            return value >> rest == _number(body["addr"]) >> rest
        if isinstance(value, int):
            return value == _number(wanted)
        raise _Unsure(words_of(wanted))  # nft 1.0.6 loses a name with a wildcard in a set, for one

    def _differs(self, value: _Value, wanted: t.Any) -> bool:
        return not self._holds(value, wanted)

    def _mapped(self, mapping: Item) -> Iterator[tuple[t.Any, str]]:
        """What a map has for the packet; if that is not sure, all that it may have, with the doubt."""
        value, data = self._value(mapping["key"]), mapping["data"]
        possible = []
        for key, found in self.sets.get((self.home, data[1:]), []) if isinstance(data, str) else data["set"]:
            try:
                if self._holds(value, key):
                    yield found, ""
                    return
            except _Unsure as unsure:
                possible.append((found, str(unsure)))
        yield from possible


def _may_hold_back(kind: str, body: t.Any) -> bool:
    """Whether a statement can end its rule here, as a match does."""
    return kind in _LIMITS or (
        isinstance(body, dict) and ("stmt" in body or (kind == "xt" and body["type"] == "match"))
    )


def _is_harmless(kind: str, body: t.Any) -> bool:
    return kind in _HARMLESS or bool(kind == "xt" and body and _HARMLESS_TARGETS.fullmatch(body["name"]))


def _home(item: Item) -> tuple[t.Any, ...]:
    """A table's identity: iptables-legacy and iptables-nft may have the same."""
    return item.get("tool") == LEGACY, item["family"], item["table"]


def _listed(value: t.Any) -> list[t.Any]:
    return value if isinstance(value, list) else [value]
