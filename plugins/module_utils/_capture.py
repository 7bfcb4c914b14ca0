# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frames and nftables' verdicts at many points of a host at once, recorded by a process in the background.

All that it changes on the host, the trace, the kernel undoes at the process's end.
Sources: packet(7), linux/if_packet.h.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import time
import typing as t
from dataclasses import dataclass, field

from . import _bpf, _netns, _nftrace
from ._nftrace import Condition
from ._recorder import Failed, Recorder

KIND = "capture"

ETHERNET, RAW = "ethernet", "raw"
_ETHER_HEADER = 14
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_ETH_P_ALL = 3
_IP, _ARP = b"\x08\x00", b"\x08\x06"
_ICMP, _IPIP, _UDP = b"\x01", b"\x04", b"\x11"
_VXLAN = b"\x08"  # RFC 7348: the flag of a valid VNI
_ERRORS = b"\x03\x05\x0b"  # of ICMP: unreachable, redirect, time exceeded

_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 6, 8
_SIOCGIFHWADDR = 0x8927
_BUFFER = 4 << 20
_TRACES, _MOST_TRACES = 8, 50_000  # messages of nftables for each frame of the limit, and of a namespace
_TURN = 10_000  # packets of one socket, more than its buffer holds, before another has its turn
_PATIENCE = 20  # seconds for nft to answer


def chosen(addresses: t.Sequence[str], underlay: t.Sequence[str], *, everything: bool) -> list[list[Condition]]:
    """The packets to record, as alternatives that each are conditions.

    ICMP from or to ADDRESSES, plain or in IPIP or VXLAN; between UNDERLAY addresses; ICMP errors to any of them; ARP about
    them. EVERYTHING adds the other protocols between two of ADDRESSES.
    """
    pods, hosts = ([socket.inet_aton(address) for address in group] for group in (addresses, underlay))
    ip: Condition = ("protocol", 0, _IP)

    def inner(base: str, start: int, outer: list[Condition]) -> t.Iterator[list[Condition]]:
        for pod in pods:
            for at in (12, 16):  # source, destination
                yield [*outer, (base, start + 9, _ICMP), (base, start + at, pod)]
        if everything:
            for source, destination in itertools.permutations(pods, 2):
                yield [*outer, (base, start + 12, source), (base, start + 16, destination)]

    found = list(inner("network", 0, [ip]))
    for source, destination in itertools.permutations(hosts, 2):
        found.append([ip, ("network", 9, _ICMP), ("network", 12, source), ("network", 16, destination)])
    for host in hosts:
        for kind in _ERRORS:
            error: Condition = ("transport", 0, bytes([kind]))
            found.append([ip, ("network", 9, _ICMP), ("network", 16, host), error])
    # A condition that looks beyond a packet's end refuses it for good, so the short ones come first.
    for at in (14, 24):  # the sender's, the target's
        found += [[("protocol", 0, _ARP), ("network", at, address)] for address in (*pods, *hosts)]
    found += inner("transport", 0, [ip, ("network", 9, _IPIP)])
    vxlan: list[Condition] = [ip, ("network", 9, _UDP), ("transport", 8, _VXLAN)]
    found += inner("transport", 30, [*vxlan, ("transport", 28, _IP)])
    return found


@dataclass
class Point:
    """An interface, its socket and what was seen there."""

    namespace: str  # empty: the host's own
    interface: str
    limit: int
    snap: int
    frames: list[tuple[float, str, int, bytes]] = field(default_factory=list)  # time, direction, true length, bytes
    lost: int = 0

    def open(self, alternatives: list[list[Condition]]) -> None:
        """From here on nothing is missed. Raises OSError."""
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: hears nothing before it is bound
        request = struct.pack("16s24x", os.fsencode(self.interface))
        self.kind, self.mac = struct.unpack_from("=16xH6s", fcntl.ioctl(self.socket, _SIOCGIFHWADDR, request))
        self.link = ETHERNET if self.kind in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else RAW
        start = _ETHER_HEADER if self.link == ETHERNET else 0
        _bpf.attach(self.socket, _bpf.program(alternatives, start=start, snap=self.snap))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self.socket.bind((self.interface, _ETH_P_ALL))
        self.buffer = bytearray(self.snap)

    def read(self) -> None:
        """Take what has come, and not what a flood goes on to send."""
        for _turn in range(_TURN):
            try:
                size, about, _flags, sender = self.socket.recvmsg_into([self.buffer], 256, socket.MSG_DONTWAIT)
            except OSError:  # nothing more, or the interface is down, which may pass
                return
            out = sender[2] == socket.PACKET_OUTGOING
            if self.kind == _ARPHRD_LOOPBACK:
                if out:
                    continue  # it comes again as received
            elif not out and self.link == ETHERNET and self.buffer[6:12] == self.mac:
                continue  # an Ethernet that gives back what it was sent
            if len(self.frames) == self.limit:
                self.lost += 1
                continue
            when, length = 0.0, size
            for level, kind, data in about:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                    seconds, nanoseconds = struct.unpack("@ll", data)
                    when = seconds + nanoseconds / 1e9
                elif (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                    length = struct.unpack_from("=4xI", data)[0]
            self.frames.append((when, "out" if out else "in", length, bytes(self.buffer[:size])))

    def result(self) -> list[dict[str, t.Any]]:
        """The frames as podnet.overlay.capture returns them. Once only: asking for losses resets the kernel's count."""
        self.lost += struct.unpack("=4xI", self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[0]
        names = {"namespace": self.namespace, "interface": self.interface, "link": self.link}
        return [
            {**names, "direction": way, "time": when, "length": length, "data": base64.b64encode(data).decode()}
            for when, way, length, data in self.frames
        ]


@dataclass
class Trace:
    """What nftables tells in a namespace."""

    namespace: str
    limit: int
    socket: socket.socket
    messages: list[tuple[float, bytes]] = field(default_factory=list)
    lost: int = 0

    def read(self) -> None:
        """Take what has come, and not what a flood goes on to send."""
        for _turn in range(_TURN):
            try:
                message = self.socket.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the kernel says that it dropped some
                self.lost += 1
                return
            if len(self.messages) < self.limit:
                self.messages.append((time.time(), message))
            else:
                self.lost += 1


def running(name: str) -> bool:
    """Whether a recorder of this name lives."""
    return Recorder(KIND, name).running()


def start(
    name: str,
    points: t.Iterable[tuple[str, str]],
    alternatives: list[list[Condition]],
    *,
    timeout: float,
    limit: int,
    snap: int,
) -> list[str]:
    """Record at POINTS, pairs of namespace and interface, until ``stop`` or for TIMEOUT seconds; returns warnings.

    When it returns, the recording runs, and every packet from now on is in it.
    Raises Failed, and PermissionError; then nothing was started.
    """
    readers: list[Point | Trace] = []
    warnings: list[str] = []

    def open_all(opened: contextlib.ExitStack) -> list[Point | Trace]:
        found, said = _opened(name, points, alternatives, limit, snap, opened)
        readers.extend(found)
        warnings.extend(said)
        return found

    Recorder(KIND, name).start(open_all, lambda: _answer(readers), timeout=timeout)
    return warnings


def stop(name: str) -> dict[str, t.Any] | None:
    """End a recording and return it: ``frames``, ``verdicts``, both by time, and ``lost``. None where none runs.

    Raises Failed, and PermissionError. Nothing is left in any case.
    """
    answer = Recorder(KIND, name).stop()
    if answer is None:
        return None
    verdicts: list[dict[str, t.Any]] = []
    for trace in answer.pop("traces"):
        messages = [(when, base64.b64decode(data)) for when, data in trace["messages"]]
        listing, interfaces = _ruleset(trace["namespace"]) if messages else (_nftrace.Listing({}, {}), {})
        verdicts += _nftrace.verdicts(trace["namespace"], messages, listing, interfaces)
    answer["verdicts"] = sorted(verdicts, key=lambda verdict: verdict["time"])
    answer["frames"].sort(key=lambda frame: frame["time"])
    return t.cast("dict[str, t.Any]", answer)


def _opened(
    name: str,
    points: t.Iterable[tuple[str, str]],
    alternatives: list[list[Condition]],
    limit: int,
    snap: int,
    opened: contextlib.ExitStack,
) -> tuple[list[Point | Trace], list[str]]:
    """All sockets, each in its namespace, and warnings. All points that are missing are told at once."""
    readers: list[Point | Trace] = []
    mistakes: list[str] = []
    warnings: list[str] = []
    traced = [
        [condition for condition in conditions if condition[0] != "protocol" or condition[2] == _IP]
        for conditions in alternatives
        if conditions[0][2] == _IP
    ]

    def open_all(namespace: str, interfaces: list[str]) -> None:
        for interface in interfaces:
            point = Point(namespace, interface, limit, snap)
            try:
                point.open(alternatives)
            except PermissionError:
                raise
            except OSError as e:
                place = f"in the network namespace {namespace}" if namespace else "on this host"
                what = "no" if e.errno == errno.ENODEV else "cannot record at"
                mistakes.append(f"{what} interface {interface} {place}: {e.strerror}")
                continue
            opened.callback(point.socket.close)
            readers.append(point)
        try:
            netfilter = _nftrace.opened(name, traced)
        except OSError as e:  # not for want of privilege, without which no point could be opened
            warnings.append(f"no verdicts of nftables from the namespace {namespace or '(host)'}: {e.strerror}")
        else:
            opened.callback(netfilter.close)
            readers.append(Trace(namespace, min(limit * _TRACES, _MOST_TRACES), netfilter))

    by_namespace: dict[str, list[str]] = {}
    for namespace, interface in dict.fromkeys(points):
        by_namespace.setdefault(namespace, []).append(interface)
    for namespace, interfaces in by_namespace.items():
        try:
            _netns.inside(namespace, lambda n=namespace, i=interfaces: open_all(n, i))  # type: ignore[misc]
        except PermissionError:
            raise
        except OSError as e:
            mistakes.append(f"no network namespace {namespace} on this host: {e.strerror}")
    if mistakes:
        raise Failed("; ".join(mistakes))
    return readers, warnings


def _answer(readers: list[Point | Trace]) -> dict[str, t.Any]:
    return {
        "frames": [frame for reader in readers if isinstance(reader, Point) for frame in reader.result()],
        "traces": [
            {
                "namespace": trace.namespace,
                "messages": [(when, base64.b64encode(message).decode()) for when, message in trace.messages],
            }
            for trace in readers
            if isinstance(trace, Trace)
        ],
        "lost": sum(reader.lost for reader in readers),
    }


def _ruleset(namespace: str) -> tuple[_nftrace.Listing, dict[int, str]]:
    """The rules and interfaces of a namespace, as far as they can be had: they are words for what was seen."""

    def look() -> tuple[_nftrace.Listing, dict[int, str]]:
        interfaces = dict(socket.if_nameindex())
        try:
            text = subprocess.run(
                ["nft", "-a", "-n", "-s", "list", "ruleset"],
                capture_output=True,
                encoding="utf-8",
                errors="replace",  # a comment may be anything
                check=False,
                timeout=_PATIENCE,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            text = ""
        return _nftrace.Listing.parse(text), interfaces

    try:
        return _netns.inside(namespace, look)
    except OSError:
        return _nftrace.Listing({}, {}), {}
