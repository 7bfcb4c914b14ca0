# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Forget the UDP flows that stick to an old port mapping.

The kernel translates a flow as its first packet was, for as long as the flow's entry lives. A TCP connection ends with
its pod; a UDP flow (a resolver's, a game's, a log's) goes on, to a pod that is no more or past a mapping that is new.
By netlink and without a library; where the kernel can, it picks the flows itself out of the hundred thousands.

Sources: linux/netfilter/nfnetlink_conntrack.h, linux/netfilter/nfnetlink.h, linux/rtnetlink.h, netlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from ._netlink import HEADER, attribute, attributes, messages

_NETLINK_NETFILTER, _SOL_NETLINK, _CAP_ACK, _STRICT, _SO_RCVBUFFORCE = 12, 270, 10, 12, 33
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_BATCH = 500

_GET, _DELETE = (1 << 8) + 1, (1 << 8) + 2  # NFNL_SUBSYS_CTNETLINK
_GENERIC = struct.pack("!BBH", socket.AF_INET, 0, 0)
_ORIGINAL, _ID, _ZONE, _FILTER = 1, 12, 18, 25
_IP, _PROTO = 1, 2
_IP_DESTINATION = 2
_NUMBER, _DESTINATION_PORT = 1, 3
_ORIGINAL_FLAGS = 1
_BY_NUMBER, _BY_DESTINATION_PORT = 1 << 3, 1 << 5  # what of the original tuple CTA_FILTER compares
_NESTED = 0x8000
_FEW = 16
"""So many dumps that the kernel filters by port cost less than one of all UDP entries."""

_GETROUTE, _NEWROUTE = 26, 24
_ROUTE = struct.Struct("=BBBBBBBBI")
_TABLE_LOCAL, _TYPE_LOCAL = 255, 2
_RTA_DST = 1


def forget_udp(mappings: Iterable[tuple[str, int]]) -> int:
    """Delete the UDP flows that were sent to one of these addresses and ports of the host, in this thread's namespace.

    Args:
        mappings: (IPv4 address, port) as the mapping has them; the address is ``""`` for every local one. Flows that
            only pass the host, to another's port of the same number, are nobody's mapping and stay.

    Returns:
        How many flows were forgotten; one that ended by itself meanwhile does not count.

    Raises:
        OSError: the kernel has no netlink for conntrack (module nf_conntrack_netlink), or forbids it.
    """
    wanted: dict[int, set[bytes]] = {}
    for address, port in mappings:
        wanted.setdefault(port, set()).add(socket.inet_aton(address) if address else b"")
    if not wanted:
        return 0
    local = _local() if any(b"" in addresses for addresses in wanted.values()) else None
    ports: list[int | None] = [*sorted(wanted)] if len(wanted) <= _FEW else [None]
    with _opened(_NETLINK_NETFILTER) as netfilter:
        found = []
        for picked in ports:
            for entry in _dump(netfilter, _GET, _GENERIC + _only_udp(picked)):
                destination = _destination(entry)
                addresses = wanted.get(destination[1], ()) if destination else ()
                if destination and (
                    destination[0] in addresses or (b"" in addresses and local is not None and local(destination[0]))
                ):
                    found.append(_naming(entry))
        return sum(_delete(netfilter, found[start : start + _BATCH]) for start in range(0, len(found), _BATCH))


# ------------------------------------------------------------------------------------------------ conntrack's messages


def _only_udp(port: int | None) -> bytes:
    """A dump's filter (Linux 5.8; older kernels do not know it and send everything, so the answer is looked at too)."""
    proto = attribute(_NUMBER, bytes([socket.IPPROTO_UDP]))
    flags = _BY_NUMBER
    if port is not None:
        proto += attribute(_DESTINATION_PORT, struct.pack("!H", port))
        flags |= _BY_DESTINATION_PORT
    wanted = attribute(_ORIGINAL | _NESTED, attribute(_PROTO | _NESTED, proto))
    return wanted + attribute(_FILTER | _NESTED, attribute(_ORIGINAL_FLAGS, struct.pack("=I", flags)))


def _destination(entry: bytes) -> tuple[bytes, int] | None:
    """Where the first packet of an IPv4 UDP flow was sent to, before any translation; None for another flow."""
    if entry[0] != socket.AF_INET:
        return None
    tuple_ = attributes(attributes(entry, 4).get(_ORIGINAL, b""))
    proto = attributes(tuple_.get(_PROTO, b""))
    if proto.get(_NUMBER) != bytes([socket.IPPROTO_UDP]):
        return None
    address = attributes(tuple_.get(_IP, b"")).get(_IP_DESTINATION, b"")
    return address, int.from_bytes(proto.get(_DESTINATION_PORT, b""), "big")


def _naming(entry: bytes) -> bytes:
    """What names this very entry: another flow between the same ends has another id."""
    known = attributes(entry, 4)
    parts = [attribute(_ORIGINAL | _NESTED, known[_ORIGINAL])]
    parts += [attribute(kind, known[kind]) for kind in (_ID, _ZONE) if kind in known]
    return _GENERIC + b"".join(parts)


def _delete(netfilter: socket.socket, entries: Sequence[bytes]) -> int:
    """Send the requests at once. Only the last is acknowledged: refusals always are."""
    last = len(entries) - 1
    netfilter.send(
        b"".join(
            HEADER.pack(16 + len(body), _DELETE, _REQUEST | (_ACK if number == last else 0), number, 0) + body
            for number, body in enumerate(entries)
        )
    )
    gone = 0
    while True:
        for kind, number, _port, payload in messages(netfilter.recv(1 << 17)):
            code = -struct.unpack_from("=i", payload)[0] if kind == _ERROR else 0
            if code not in (0, errno.ENOENT):
                raise OSError(code, os.strerror(code), "conntrack")
            gone += code == errno.ENOENT
            if kind == _ERROR and number == last:
                return len(entries) - gone


# ------------------------------------------------------------------------------------------------ the host's addresses


def _local() -> Callable[[bytes], bool]:
    """Whether an address is the host's own, as nft's ``fib daddr type local`` has it."""
    whole, networks = set(), []
    query = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_LOCAL, 0, 0, _TYPE_LOCAL, 0)
    with _opened(socket.NETLINK_ROUTE) as rtnetlink:
        for route in _dump(rtnetlink, _GETROUTE, query):
            _family, bits, _source, _tos, table, _protocol, _scope, kind, _flags = _ROUTE.unpack_from(route)
            address = attributes(route, _ROUTE.size).get(_RTA_DST, b"\0\0\0\0")
            if (table, kind) != (_TABLE_LOCAL, _TYPE_LOCAL):
                continue
            if bits == 32:
                whole.add(address)
            else:
                networks.append((int.from_bytes(address, "big") >> (32 - bits), 32 - bits))

    def is_local(address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        return address in whole or any(number >> shift == network for network, shift in networks)

    return is_local


# ------------------------------------------------------------------------------------------------ netlink


@contextlib.contextmanager
def _opened(protocol: int) -> Iterator[socket.socket]:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    with netlink:
        for option in (_CAP_ACK, _STRICT):
            with contextlib.suppress(OSError):
                netlink.setsockopt(_SOL_NETLINK, option, 1)
        with contextlib.suppress(OSError):
            netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        yield netlink


def _dump(netlink: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    """What the kernel answers, message by message, without their headers."""
    netlink.send(HEADER.pack(16 + len(body), kind, _REQUEST | _DUMP, 0, 0) + body)
    while True:
        for answer, _number, _port, payload in messages(netlink.recv(1 << 17)):
            if answer == _DONE:
                return
            if answer == _ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code == errno.EINVAL and kind == _GET:
                    raise OSError(errno.EOPNOTSUPP, "the kernel has no nf_conntrack_netlink", "conntrack")
                raise OSError(code, os.strerror(code), "conntrack" if kind == _GET else "rtnetlink")
            yield payload
