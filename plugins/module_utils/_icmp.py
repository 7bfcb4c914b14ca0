# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Echo requests from network namespaces to many targets at once, without a process for each."""

from __future__ import annotations

import errno
import math
import os
import random
import select
import socket
import struct
import time
import typing as t
from collections import deque
from dataclasses import dataclass, field

from . import _netns

HEADERS = 28  # bytes of IP and ICMP before the payload
DEFAULT_SIZE = 84  # what ping(8) sends

_ECHO_REPLY, _UNREACHABLE, _ECHO, _TIME_EXCEEDED = 0, 3, 8, 11  # RFC 792
_FRAGMENTATION_NEEDED = 4
_SAYS = {
    (_UNREACHABLE, 0): "network unreachable",
    (_UNREACHABLE, 1): "host unreachable",
    (_UNREACHABLE, 2): "protocol unreachable",
    (_UNREACHABLE, 3): "port unreachable",
    (_UNREACHABLE, 9): "network prohibited",
    (_UNREACHABLE, 10): "host prohibited",
    (_UNREACHABLE, 13): "administratively prohibited",
    (_TIME_EXCEEDED, 0): "time to live exceeded: a routing loop",
}

_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT, _IP_PMTUDISC_PROBE, _IP_MTU = 10, 0, 3, 14  # linux/in.h
_SOL_RAW, _ICMP_FILTER = 255, 1  # linux/icmp.h
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_RECEIVE_BUFFER = 4 << 20
_GAP = 0.001  # seconds between packets: a burst to a thousand targets overflows queues, and is no loss of the path's


@dataclass
class Path:
    """One target at one size, and what came of it."""

    namespace: str  # empty: the host's own
    address: str
    size: int  # bytes of the IP packet
    sent: int = 0
    rtts: list[float] = field(default_factory=list)  # seconds
    ttl: int | None = None
    identifier: int | None = None  # of the requests; no other path of this run has it
    error: str = ""

    def result(self) -> dict[str, t.Any]:
        """The outcome as podnet.overlay.ping returns it."""
        ms = [rtt * 1000 for rtt in self.rtts]
        return {
            "namespace": self.namespace,
            "address": self.address,
            "size": self.size,
            "sent": self.sent,
            "received": len(ms),
            "ttl": self.ttl,
            "identifier": self.identifier,
            "rtt_ms": {k: round(v, 3) for k, v in (("min", min(ms)), ("avg", sum(ms) / len(ms)), ("max", max(ms)))}
            if ms
            else None,
            "error": (self.error or "no answer") if len(ms) < self.sent else "",
        }


@dataclass(frozen=True)
class Answer:
    """An ICMP message about one of our requests."""

    identifier: int
    sequence: int
    sender: str
    ttl: int
    kind: int
    code: int
    mtu: int  # of the next hop, with fragmentation needed

    def complaint(self, size: int) -> str:
        """What went wrong, in words, or empty for a reply."""
        if self.kind == _ECHO_REPLY:
            return ""
        if (self.kind, self.code) == (_UNREACHABLE, _FRAGMENTATION_NEEDED):
            return f"{too_big(size, self.mtu)}, says {self.sender}"
        text = _SAYS.get((self.kind, self.code), f"ICMP type {self.kind} code {self.code}")
        return f"{text}, says {self.sender}"


def too_big(size: int, mtu: int) -> str:
    """The error of a packet that may not be fragmented."""
    return f"packet of {size} bytes exceeds path MTU {mtu}"


def checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(identifier: int, sequence: int, size: int) -> bytes:
    """An echo request that makes an IP packet of SIZE bytes."""
    payload = bytes(i & 0xFF for i in range(size - HEADERS))
    head = struct.pack("!BBHHH", _ECHO, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", _ECHO, 0, checksum(head + payload), identifier, sequence) + payload


def parse(packet: bytes) -> Answer | None:
    """The answer in an IP packet from a raw socket, or None if it is no answer to an echo request."""
    start = (packet[0] & 0xF) * 4
    if len(packet) < start + 8:
        return None
    kind, code, _sum, identifier, sequence = struct.unpack_from("!BBHHH", packet, start)
    mtu = 0
    if kind in (_UNREACHABLE, _TIME_EXCEEDED):
        mtu = sequence
        inner = start + 8  # the packet that was refused follows
        if len(packet) < inner + 20:
            return None
        inner += (packet[inner] & 0xF) * 4
        if len(packet) < inner + 8 or packet[inner] != _ECHO:
            return None
        identifier, sequence = struct.unpack_from("!HH", packet, inner + 4)
    elif kind != _ECHO_REPLY:
        return None
    return Answer(identifier, sequence, socket.inet_ntoa(packet[12:16]), packet[8], kind, code, mtu)


class _Namespace:
    """A namespace's raw socket. It stays where it was made, so nobody needs to go back in to use it."""

    def __init__(self, name: str, df: bool) -> None:
        self.name = name
        self.sequence = 0
        self.waiting: dict[int, tuple[Path, float]] = {}  # by sequence, oldest first
        self.icmp = _netns.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        wanted = 1 << _ECHO_REPLY | 1 << _UNREACHABLE | 1 << _TIME_EXCEEDED
        self.icmp.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~wanted & 0xFFFFFFFF))
        self.icmp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        # PROBE: DF, and what an earlier packet has learned of the path's MTU does not count.
        self.icmp.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE if df else _IP_PMTUDISC_DONT)

    def send(self, path: Path) -> None:
        self.sequence = (self.sequence + 1) & 0xFFFF
        path.sent += 1
        try:
            self.icmp.sendto(request(path.identifier or 0, self.sequence, path.size), (path.address, 0))
        except OSError as e:
            path.error = too_big(path.size, self._mtu(path.address)) if e.errno == errno.EMSGSIZE else _reason(e)
        else:
            self.waiting[self.sequence] = (path, time.monotonic())

    def receive(self) -> None:
        while True:
            try:
                packet = self.icmp.recv(65536, socket.MSG_DONTWAIT)
            except OSError:  # nothing more
                return
            answer = parse(packet)
            if answer is None or answer.sequence not in self.waiting:
                continue
            path, since = self.waiting[answer.sequence]
            if answer.identifier != path.identifier:
                continue
            del self.waiting[answer.sequence]
            complaint = answer.complaint(path.size)
            if complaint:
                path.error = complaint
            elif answer.sender == path.address:
                path.rtts.append(time.monotonic() - since)
                path.ttl = answer.ttl

    def oldest(self) -> float:
        """When the request was sent that waits longest."""
        return next(iter(self.waiting.values()))[1]

    def expire(self, before: float) -> None:
        while self.waiting and self.oldest() <= before:
            del self.waiting[next(iter(self.waiting))]

    def _mtu(self, address: str) -> int:
        def look() -> int:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.connect((address, 9))  # no packet: the kernel only looks up the route
                return udp.getsockopt(socket.IPPROTO_IP, _IP_MTU)

        return _netns.inside(self.name, look)


def ping(paths: list[Path], *, count: int, timeout: float, interval: float, df: bool) -> None:
    """Send COUNT requests along each path, all paths at the same time, and note in each what came back.

    TIMEOUT is a packet's, INTERVAL is between two packets of one path; both in seconds.
    Raises PermissionError where raw sockets are forbidden. A namespace that is not there is its paths' error.
    """
    namespaces: dict[str, _Namespace] = {}
    first = random.getrandbits(16)  # tells two runs apart
    try:
        for number, path in enumerate(paths):
            if path.namespace not in namespaces and not path.error:
                try:
                    namespaces[path.namespace] = _Namespace(path.namespace, df)
                except FileNotFoundError:
                    _refuse(paths, path.namespace, count, f"no network namespace {path.namespace} on this host")
            if path.namespace in namespaces:
                # To conntrack each path is a flow: of one whose first two packets come at once, it drops the second.
                path.identifier = (first + number) & 0xFFFF
        start = time.monotonic()
        _run(
            namespaces,
            deque(
                (start + turn * interval + number * _GAP, path)
                for turn in range(count)
                for number, path in enumerate(p for p in paths if p.namespace in namespaces)
            ),
            timeout,
        )
    finally:
        for namespace in namespaces.values():
            namespace.icmp.close()


def _run(namespaces: dict[str, _Namespace], due: deque[tuple[float, Path]], timeout: float) -> None:
    sockets = {namespace.icmp.fileno(): namespace for namespace in namespaces.values()}
    poll = select.poll()  # select(2) ends at 1024 descriptors
    for descriptor in sockets:
        poll.register(descriptor, select.POLLIN)
    while True:
        now = time.monotonic()
        if due and due[0][0] <= now:
            path = due.popleft()[1]
            namespaces[path.namespace].send(path)
        for namespace in sockets.values():
            namespace.expire(now - timeout)
        moments = [namespace.oldest() + timeout for namespace in sockets.values() if namespace.waiting]
        if due:
            moments.append(due[0][0])
        if not moments:
            return
        pause = max(0.0, min(moments) - time.monotonic())
        for ready, _events in poll.poll(math.ceil(pause * 1000)):
            sockets[ready].receive()


def _refuse(paths: list[Path], namespace: str, count: int, error: str) -> None:
    for path in paths:
        if path.namespace == namespace:
            path.sent, path.error = count, error


def _reason(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "sending is forbidden by a local firewall rule"
    return os.strerror(error.errno or 0).lower()
