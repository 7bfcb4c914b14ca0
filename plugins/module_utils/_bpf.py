# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sockets that hear chosen packets only: conditions as the kernel's classic BPF. Source: linux/filter.h."""

from __future__ import annotations

import ctypes
import socket
import struct

from ._nftrace import Condition
from ._recorder import Failed

_SO_ATTACH_FILTER = 26
_LOAD, _LOAD_BY_X, _HEADER_TO_X, _EQUAL, _RETURN = 0x20, 0x40, 0xB1, 0x15, 0x06  # linux/bpf_common.h
_WIDTH = {1: 0x10, 2: 0x08, 4: 0x00}
_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL: right with and without an Ethernet header
_MOST_INSTRUCTIONS = 4096

Instruction = tuple[int, int, int, int]


def program(alternatives: list[list[Condition]], *, start: int, snap: int) -> list[Instruction]:
    """The classic BPF program that takes SNAP bytes of these packets, whose IP header is at START, and no others."""
    code: list[Instruction] = [(_HEADER_TO_X, 0, 0, start)]
    for conditions in alternatives:
        for number, (base, offset, value) in enumerate(conditions, 1):
            if base == "protocol":
                code.append((_LOAD, 0, 0, _PROTOCOL))
            else:
                load = _LOAD if base == "network" else _LOAD_BY_X
                code.append((load | _WIDTH[len(value)], 0, 0, start + offset))
            # To the next alternative: two instructions for each condition left, and the return.
            code.append((_EQUAL, 0, 2 * (len(conditions) - number) + 1, int.from_bytes(value, "big")))
        code.append((_RETURN, 0, 0, snap))
    return [*code, (_RETURN, 0, 0, 0)]


def attach(to: socket.socket, code: list[Instruction]) -> None:
    """Let the socket hear what CODE takes. Raises Failed, and OSError."""
    if len(code) > _MOST_INSTRUCTIONS:
        raise Failed("too many addresses for the kernel's filter")
    filled = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(code), ctypes.addressof(filled)))
