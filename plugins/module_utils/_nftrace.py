# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nftables decides about chosen packets: its trace, by netlink and without a process.

The rules that turn the trace on stand in tables with the flag ``owner`` (Linux 5.12): they belong to the socket that
made them, and the kernel removes them with it, however its process ends.
Sources: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, nft(8) on ``nftrace``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import typing as t
from dataclasses import dataclass

from ._netlink import attributes, messages

Condition = tuple[str, int, bytes]
"""Where to look (protocol: the EtherType; network, transport: the packet's headers), at which byte, for what."""

PREFIX = "podnet_overlay_"

_SOL_NETLINK, _ADD_MEMBERSHIP, _SO_RCVBUFFORCE = 270, 1, 33
_NETLINK_NETFILTER, _GROUP_TRACE = 12, 9
_REQUEST, _ACK, _CREATE, _APPEND = 1, 4, 0x400, 0x800
_ERROR, _BATCH_BEGIN, _BATCH_END = 2, 0x10, 0x11
_NFTABLES = 10
_NEWTABLE, _NEWCHAIN, _NEWRULE, _TRACE = ((_NFTABLES << 8) + kind for kind in (0, 3, 6, 17))
_NESTED = 0x8000
_OWNER = 2
_INET, _BRIDGE = 1, 7
_FAMILIES = {_INET: "inet", 2: "ip", 3: "arp", 5: "netdev", _BRIDGE: "bridge", 10: "ip6"}
_HOOKS = {"prerouting": 0, "output": 3}
_FIRST = -450  # before conntrack, raw and what others have
_BASES = {"network": 1, "transport": 2}
_META_PROTOCOL, _META_NFTRACE = 1, 12
_REGISTER = 1
_POLICY = 1
_CONTINUE = -1
_CODES = {
    0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat",
    -1: "continue", -2: "break", -3: "jump", -4: "goto", -5: "return",
}  # fmt: skip
_PROTOCOLS = {1: "icmp", 4: "ipip", 6: "tcp", 17: "udp"}


def opened(name: str, alternatives: list[list[Condition]]) -> socket.socket:
    """A socket of this thread's network namespace that hears the trace of the packets of these ALTERNATIVES.

    Raises OSError where the kernel has no nftables or tables have no owner.
    """
    netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        netfilter.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        _commit(netfilter, _batch(_INET, PREFIX + name, alternatives))
        with contextlib.suppress(OSError):  # a kernel that filters no bridges; others' frames meet these hooks first
            _commit(netfilter, _batch(_BRIDGE, PREFIX + name, alternatives))
        netfilter.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_TRACE)
    except OSError:
        netfilter.close()
        raise
    return netfilter


def _commit(netfilter: socket.socket, batch: bytes) -> None:
    netfilter.send(batch)
    netfilter.settimeout(10)
    answer = netfilter.recv(65536)  # one acknowledgement at the batch's end, or the first error
    netfilter.settimeout(None)
    kind, code = struct.unpack_from("=4xH10xi", answer)
    if kind == _ERROR and code:
        raise OSError(-code, os.strerror(-code), "nftables trace")


def _batch(family: int, table: str, alternatives: list[list[Condition]]) -> bytes:
    named = table.encode() + b"\0"
    parts = [
        _message(_BATCH_BEGIN, 0, 0, _NFTABLES),
        _message(_NEWTABLE, _CREATE, family, 0, _attribute(1, named), _attribute(2, _be32(_OWNER))),
    ]
    for hook, number in _HOOKS.items():
        chain = hook.encode() + b"\0"
        where = _nest(4, _attribute(1, _be32(number)), _attribute(2, _be32(_FIRST)))
        parts.append(
            _message(
                _NEWCHAIN, _CREATE, family, 0,
                _attribute(1, named), _attribute(3, chain), where, _attribute(7, b"filter\0"),
            )
        )  # fmt: skip
        for conditions in alternatives:
            expressions = [e for condition in conditions for e in _test(*condition)]
            expressions += [
                _expression("immediate", _register(1), _nest(2, _attribute(1, b"\1"))),
                _expression("meta", _attribute(2, _be32(_META_NFTRACE)), _register(3)),
            ]
            parts.append(
                _message(
                    _NEWRULE, _CREATE | _APPEND, family, 0,
                    _attribute(1, named), _attribute(2, chain), _nest(4, *expressions),
                )
            )  # fmt: skip
    # Acknowledged alone: an answer to each message could overflow the socket.
    parts[-1] = parts[-1][:6] + struct.pack("=H", _REQUEST | _ACK | _CREATE | _APPEND) + parts[-1][8:]
    return b"".join([*parts, _message(_BATCH_END, 0, 0, _NFTABLES)])


def _test(base: str, offset: int, value: bytes) -> list[bytes]:
    if base == "protocol":
        load = _expression("meta", _register(1), _attribute(2, _be32(_META_PROTOCOL)))
    else:
        numbers = (_BASES[base], offset, len(value))
        load = _expression(
            "payload", _register(1), *(_attribute(kind, _be32(number)) for kind, number in enumerate(numbers, 2))
        )
    return [load, _expression("cmp", _register(1), _attribute(2, _be32(0)), _nest(3, _attribute(1, value)))]


def _register(kind: int) -> bytes:
    return _attribute(kind, _be32(_REGISTER))


def _expression(name: str, *data: bytes) -> bytes:
    return _nest(1, _attribute(1, name.encode() + b"\0"), _nest(2, *data))


def _be32(number: int) -> bytes:
    return struct.pack("!i", number)


def _nest(kind: int, *parts: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(parts))


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _message(kind: int, flags: int, family: int, resource: int, *attributes: bytes) -> bytes:
    body = struct.pack("!BBH", family, 0, resource) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 0, 0) + body


@dataclass(frozen=True)
class Listing:
    """What ``nft -a list ruleset`` tells: the text of rules by (family, table, handle), hooks by base chain."""

    rules: dict[tuple[str, str, int], str]
    hooks: dict[tuple[str, str, str], str]

    @classmethod
    def parse(cls, text: str) -> Listing:
        rules, hooks = {}, {}
        family = table = chain = begun = ""
        for line in _lines(text):
            words = line.split()
            if words[:1] == ["table"] and len(words) > 2:
                family, table, chain = words[1], words[2], ""
            elif line.startswith("\tchain ") and len(words) > 1:
                chain = words[1]
            elif line == "\t}":
                chain = begun = ""
            elif chain and words[:1] == ["type"] and "hook" in words[:-1]:
                hooks[family, table, chain] = words[words.index("hook") + 1]
            elif chain and words[:1] != ["comment"]:
                # A long set goes on in the next line.
                rule, mark, handle = f"{begun} {line.strip()}".strip().rpartition(" # handle ")
                begun = "" if mark else handle
                if mark and handle.isdecimal():
                    rules[family, table, int(handle)] = rule
        return cls(rules, hooks)


def _lines(text: str) -> t.Iterator[str]:
    """The lines of a listing. A comment, in quotes, may have line ends of its own."""
    parts: list[str] = []
    quoted = False
    for part in text.split("\n"):
        parts.append(part)
        quoted ^= part.count('"') % 2 == 1
        if not quoted:
            yield "\n".join(parts)
            parts = []


def verdicts(
    namespace: str, messages: t.Iterable[tuple[float, bytes]], listing: Listing, interfaces: dict[int, str]
) -> list[dict[str, t.Any]]:
    """The trace MESSAGES of a namespace, with the time that each came at, as podnet.overlay.capture returns them."""
    found = []
    known: dict[bytes, dict[str, t.Any]] = {}  # by packet: only the first message of each base chain tells its headers
    for when, datagram in messages:
        for family, parts in _traces(datagram):
            table, chain = (parts.get(kind, b"").rstrip(b"\0").decode(errors="replace") for kind in (1, 2))
            if table.startswith(PREFIX):
                continue
            code, handle = _verdict(parts), int.from_bytes(parts.get(3, b""), "big")
            packet = known.setdefault(parts[6], {"hook": "", "iif": "", "oif": "", **_packet(b"", b"")})
            packet["hook"] = listing.hooks.get((family, table, chain), packet["hook"])
            if 8 in parts:
                packet.update(_packet(parts[8], parts.get(9, b"")))
                for name, number in (("iif", 10), ("oif", 12)):
                    index = int.from_bytes(parts.get(number, b""), "big")
                    packet[name] = interfaces.get(index, str(index)) if index else ""
            kind = int.from_bytes(parts.get(4, b""), "big")
            if kind != _POLICY and not handle:
                continue  # so the kernel marks the end of a chain
            rule = listing.rules.get((family, table, handle), "")
            found.append(
                {
                    "time": when,
                    "namespace": namespace,
                    "id": parts[6].hex(),
                    "family": family,
                    "table": table,
                    "chain": chain,
                    "handle": handle or None,
                    "verdict": code,
                    "text": f"policy {code}" if kind == _POLICY else rule,
                    **packet,
                }
            )
    return found


def _verdict(parts: dict[int, bytes]) -> str:
    code = attributes(parts[5])[1] if 5 in parts else parts.get(16, _be32(_CONTINUE))
    number = struct.unpack("!i", code)[0]
    number = number & 0xFF if number >= 0 else number  # above: the number of a queue, or an errno
    return _CODES.get(number, str(number))


def _packet(network: bytes, transport: bytes) -> dict[str, t.Any]:
    """What the headers of an IPv4 packet say, as far as they are there."""
    packet: dict[str, t.Any] = {"src": None, "dst": None, "protocol": None, "ttl": None, "icmp": None, "inner": None}
    if len(network) >= 20 and network[0] >> 4 == 4:
        packet["ttl"] = network[8]
        packet["protocol"] = _PROTOCOLS.get(network[9], str(network[9]))
        packet["src"], packet["dst"] = socket.inet_ntoa(network[12:16]), socket.inet_ntoa(network[16:20])
        if packet["protocol"] == "icmp" and len(transport) >= 8:
            packet["icmp"] = dict(zip(("type", "code", "id", "seq"), struct.unpack_from("!BBxxHH", transport)))
        if packet["protocol"] == "ipip" and len(transport) >= 20:
            inner = _packet(transport, b"")
            packet["inner"] = {name: inner[name] for name in ("src", "dst", "protocol", "ttl")}
    return packet


def _traces(datagram: bytes) -> t.Iterator[tuple[str, dict[int, bytes]]]:
    for message in messages(datagram):
        parts = attributes(message.payload, 4) if message.kind == _TRACE else {}
        if 6 in parts:
            yield _FAMILIES.get(message.payload[0], str(message.payload[0])), parts
