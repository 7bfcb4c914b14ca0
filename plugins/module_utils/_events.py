# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the kernel tells by itself: netlink's notifications of links, addresses, routes, forwarding and nftables, and inotify's of files.

One socket hears all network namespaces that the host's own has a number for, as it has for each pod at the other end of a
veth, and keeps none of them alive. What does not concern a document is dropped here, since a host may route much else.

Sources: rtnetlink(7), netlink(7) (NETLINK_LISTEN_ALL_NSID), inotify(7), linux/rtnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from . import _nft
from ._model import EVERYTHING, LINKS, PROGRAMS, RULES
from ._netlink import Message, attributes, messages
from ._netns import FOLDER as NETNS_FOLDER

QUIET = 0.02
"""Seconds without an event after which a burst is over, and"""
LONGEST_BURST = 0.2  # which is not waited for any longer

_SOL_NETLINK, _ADD_MEMBERSHIP, _LISTEN_ALL_NSID, _SO_RCVBUFFORCE = 270, 1, 8, 33
_NETFILTER = 12
_LINK_GROUP, _NEIGHBOUR_GROUP, _ADDRESS_GROUP, _ROUTE_GROUP, _NETCONF_GROUP, _NFTABLES_GROUP = 1, 3, 5, 7, 24, 7
_LINK, _ADDRESS, _ROUTE, _NEIGHBOUR, _NETCONF = (16, 17), (20, 21), (24, 25), (28, 29), (80, 81)
_NEWGEN, _NFTABLES = 15, 10  # NFT_MSG_NEWGEN, NFNL_SUBSYS_NFTABLES
_PROC_NAME = 3  # NFTA_GEN_PROC_NAME
_IFNAME, _LABEL, _DST, _LLADDR, _FORWARDING = 3, 3, 1, 2, 2
_LOCAL_TABLE = 255
_PROGRAM_TABLES = ("filter", "firewalld")  # of Docker's, ufw's and firewalld's rules
_CLOSED, _MOVED_FROM, _MOVED_TO, _DELETED = 0x8, 0x40, 0x80, 0x200  # inotify(7)
_OVERFLOW = 0x4000
_INOTIFY = struct.Struct("=iIII")
_HIGHEST_PID = 1 << 22


@dataclass(frozen=True)
class Interest:
    """What documents have to do with: names of links, destinations of routes, addresses of neighbours, paths of files."""

    links: frozenset[str] = frozenset()
    routes: frozenset[tuple[int, int]] = frozenset()
    """(address, prefix length) of each route."""
    covering: frozenset[tuple[int, int]] = frozenset()
    """Those that a more specific route would shadow."""
    neighbours: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    """Paths of files that tell other programs."""
    paths: frozenset[str] = frozenset()

    @cached_property
    def widths(self) -> frozenset[int]:
        """The prefix lengths of *covering*: few, however many routes there are."""
        return frozenset(width for _address, width in self.covering)


Events = Mapping[str, Collection[str]]
"""Which parts have changed, and who did each, as far as the kernel knows. Of none where only a front has ended its run."""
_RUN_ENDED = "run ended"
"""What is heard in place of a part then: there may be another document."""


class Listener:
    """Hears the kernel, from its creation on. A context manager.

    Raises:
        OSError: the kernel gives no such socket.
    """

    def __init__(self, lock_file: str) -> None:
        self._lock_file = lock_file
        groups = (_LINK_GROUP, _NEIGHBOUR_GROUP, _ADDRESS_GROUP, _ROUTE_GROUP, _NETCONF_GROUP)
        self._rtnetlink = _subscribed(socket.NETLINK_ROUTE, groups)
        self._nftables = _subscribed(_NETFILTER, (_NFTABLES_GROUP,))
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, str] = {}
        self._transaction: set[str] = set()
        """Parts that the nftables transaction which is being heard has changed."""

    def __enter__(self) -> Listener:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        self._rtnetlink.close()
        self._nftables.close()
        os.close(self._inotify)

    def wait(self, interest: Interest, timeout: float) -> Events | None:
        """The next burst of events that are of *interest*; None when *timeout* (seconds) is over before."""
        self._follow(
            {os.path.dirname(path) for path in (*interest.paths, *interest.settings, self._lock_file)} | {NETNS_FOLDER}
        )
        sources = [self._rtnetlink, self._nftables, self._inotify]
        end = time.monotonic() + timeout
        heard: dict[str, dict[str, None]] = {}  # the names in order, each once
        begun = 0.0
        while True:
            now = time.monotonic()
            left = min(QUIET, begun + LONGEST_BURST - now) if begun else end - now
            ready = select.select(sources, [], [], max(0.0, left))[0]
            if not ready and (begun or time.monotonic() >= end):
                heard.pop(_RUN_ENDED, None)
                return heard if begun else None
            for source in ready:
                for part, name in self._read(source, interest):
                    heard.setdefault(part, {}).update({name: None} if name else {})
                    begun = begun or time.monotonic()

    def _read(self, source: object, interest: Interest) -> Iterator[tuple[str, str]]:
        """(part, who) of each event that matters; the part is _RUN_ENDED where a front has ended its run."""
        if source is self._inotify:
            yield from self._files(interest)
            return
        netlink = self._rtnetlink if source is self._rtnetlink else self._nftables
        try:
            datagram = netlink.recv(1 << 17)
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # more than fits: anything may have happened
                yield from ((part, "") for part in EVERYTHING)
            elif error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
            return
        if netlink is self._nftables:
            yield from self._rules(datagram)
        else:
            for message in messages(datagram):
                if concerns(message, interest):
                    yield LINKS, process_name(message.port)

    def _rules(self, datagram: bytes) -> Iterator[tuple[str, str]]:
        """Who it was comes last, after all that a transaction has changed, and in a datagram of its own."""
        for message in messages(datagram):
            if message.kind >> 8 != _NFTABLES:
                continue
            found = attributes(message.payload, 4)
            table = _text(found.get(1, b""))  # of each kind of object the first attribute names its table
            if message.kind & 0xFF == _NEWGEN:
                who = _text(found.get(_PROC_NAME, b""))
                yield from ((part, who) for part in self._transaction)
                self._transaction = set()
            elif table == _nft.TABLE or table in _PROGRAM_TABLES:
                part = RULES if table == _nft.TABLE else PROGRAMS
                self._transaction.add(part)
                yield part, ""

    def _follow(self, folders: Collection[str]) -> None:
        for folder in folders:  # again each time: it may be another folder of that name by now
            watch = self._libc.inotify_add_watch(
                self._inotify, os.fsencode(folder), _CLOSED | _MOVED_FROM | _MOVED_TO | _DELETED
            )
            if watch >= 0:
                self._folders[watch] = folder

    def _files(self, interest: Interest) -> Iterator[tuple[str, str]]:
        with contextlib.suppress(BlockingIOError):
            part = os.read(self._inotify, 1 << 16)
            at = 0
            while at + _INOTIFY.size <= len(part):
                watch, mask, _cookie, length = _INOTIFY.unpack_from(part, at)
                raw = part[at + _INOTIFY.size : at + _INOTIFY.size + length]
                at += _INOTIFY.size + length
                if mask & _OVERFLOW:  # more than is remembered: any file may have changed
                    yield from ((part, "") for part in (_RUN_ENDED, *EVERYTHING))
                folder = self._folders.get(watch, "")
                path = os.path.join(folder, os.fsdecode(raw.rstrip(b"\0")))
                if path == self._lock_file:
                    yield _RUN_ENDED, ""
                elif path in interest.paths or (folder == NETNS_FOLDER and mask & _DELETED):
                    yield LINKS, ""
                elif path in interest.settings:
                    yield PROGRAMS, ""


def _subscribed(protocol: int, groups: Collection[int]) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    with contextlib.suppress(OSError):
        netlink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
    if protocol == socket.NETLINK_ROUTE:
        netlink.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
    netlink.bind((0, 0))
    for group in groups:
        netlink.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return netlink


# ------------------------------------------------------------------------------------------------ what an event says


def concerns(message: Message, interest: Interest) -> bool:
    """Whether a notification of rtnetlink is about something of *interest*."""
    payload = message.payload
    if message.kind in _LINK:
        return _text(attributes(payload, 16).get(_IFNAME, b"")) in interest.links
    if message.kind in _ADDRESS:
        return _text(attributes(payload, 8).get(_LABEL, b"")).partition(":")[0] in interest.links
    if message.kind in _ROUTE:
        family, length, _source, _tos, table = struct.unpack_from("=BBBBB", payload)
        if family != socket.AF_INET or table == _LOCAL_TABLE:
            return False
        address = int.from_bytes(attributes(payload, 12).get(_DST, bytes(4)), "big")
        return (address, length) in interest.routes or any(
            width < length and (address >> (32 - width) << (32 - width), width) in interest.covering
            for width in interest.widths
        )
    if message.kind in _NEIGHBOUR:
        found = attributes(payload, 12)
        if payload[0] == socket.AF_INET:
            return len(found.get(_DST, b"")) == 4 and socket.inet_ntoa(found[_DST]) in interest.neighbours
        return found.get(_LLADDR, b"").hex(":") in interest.neighbours
    return message.kind in _NETCONF and _FORWARDING in attributes(payload, 4)


def process_name(port: int) -> str:
    """The process that a notification names as its cause; '' for the kernel itself, or where the process has ended.

    The first netlink socket of a process has its PID as port, and that is of its own PID namespace: in a container's they begin with 1,
    and its small ones are here the kernel's threads.
    """
    if 1 < port < _HIGHEST_PID and port != os.getpid():
        with contextlib.suppress(OSError), open("/proc/%d/comm" % port, encoding="utf-8", errors="replace") as file:
            os.readlink("/proc/%d/exe" % port)  # a thread of the kernel has none
            return file.read().strip()
    return ""


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
