# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The form of netlink's messages and their attributes (netlink(7)), whatever they say. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")  # linux/netlink.h: nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # nlattr
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER


class Message(NamedTuple):
    """One message: its type, sequence number, the port that caused it (0 is the kernel), and what follows the header."""

    kind: int
    number: int
    port: int
    payload: bytes


def messages(part: bytes) -> Iterator[Message]:
    """The messages of a datagram."""
    at = 0
    while at + HEADER.size <= len(part):
        size, kind, _flags, number, port = HEADER.unpack_from(part, at)
        yield Message(kind, number, port, part[at + HEADER.size : at + size])
        at += max(HEADER.size, (size + 3) & ~3)


def attributes(part: bytes, at: int = 0, end: int | None = None) -> dict[int, bytes]:
    """The attributes between two offsets, by type."""
    found: dict[int, bytes] = {}
    end = len(part) if end is None else end
    while at + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(part, at)
        if length < ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = part[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + b"\0" * (-len(data) % 4)
