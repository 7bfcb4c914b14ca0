# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Do a backend's packets get from this host to others? Real ones are sent, and heard behind the rules of the hook input.

No device is needed for them, and none is in the way: raw sockets hear a copy. What is packed in them harms nobody where an
overlay lives, ours or another's. It is an ICMP error about nothing, which no kernel answers (RFC 1122, 3.2.2), from and to
addresses of documentation (RFC 5737), which our guard drops, with no hop left, so that nobody forwards it. For VXLAN it is
in a network (VNI) that no device of ours has.

Sources: raw(7), packet(7), ip(7), RFC 792, RFC 2003, RFC 7348; net/ipv4/raw.c, icmp.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
import typing as t
from dataclasses import dataclass, field

from . import _bpf, _icmp
from ._nftrace import Condition
from ._recorder import Recorder

KIND = "underlay-probe"
FORBIDDEN = "sending is forbidden by a local firewall rule"
SMALL = 128
"""Bytes of an IP packet that passes everywhere."""
_LADDER = (1280, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500, 4000, 8500, 8900, 9000)
"""The path MTUs that are met: IPv6's least, tunnels', PPPoE's, Ethernet's, clouds' and jumbo frames'."""
_ECHO_COUNT, _ECHO_INTERVAL = 2, 0.3

_IPIP, _UDP, _ICMP = 4, 17, 1  # IANA's protocol numbers
_UNREACHABLE, _BY_HOST = 3, 1  # of ICMP
_FRAGMENTATION_NEEDED = 4
_INNER_SOURCE, _INNER_DESTINATION = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
_MAGIC = b"\0pod"  # where the IP header of the packet in error would begin: of version 0, so it is about nothing
_NOTE = struct.Struct("!4s8s4sH")  # magic, token, the sender's address, the size of the packet
_NOBODY = b"\x02podne"  # a MAC that is administered here (the bit 0x02) and no device has
_VNI = 0xFFFFFF
_HEADERS = {_IPIP: 0, _UDP: 8 + 8 + 14}  # bytes between the outer IP header and the inner one: UDP, VXLAN, Ethernet
_SNAP = 128  # enough for all of them and the note
_SO_RCVBUFFORCE, _RECEIVE_BUFFER = 33, 4 << 20
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE, _IP_RECVERR, _ETH_P_ALL = 10, 3, 11, 3  # linux/in.h, linux/if_ether.h
_BY_ICMP = 2  # linux/errqueue.h
_GAP = 0.0005  # seconds between packets: a burst overflows queues, and is no loss of the path's
_TURN = 10_000
LONGEST = 7 * 86400
"""Seconds that a host listens at most."""


@dataclass(frozen=True)
class Probe:
    """What is sent: PROTOCOL is ``ipip`` or ``udp``, the latter to PORT; TOKEN, 8 bytes, tells this run's from all others."""

    protocol: str
    port: int
    token: bytes

    @property
    def number(self) -> int:
        """IANA's, of the protocol."""
        return _IPIP if self.protocol == "ipip" else _UDP

    def payload(self, address: str, size: int) -> bytes:
        """What follows the outer IP header, or UDP's, in a packet of SIZE bytes that ADDRESS sends."""
        vxlan = struct.pack("!II", 0x08000000, _VNI << 8) + _NOBODY + _NOBODY + b"\x08\0" if self.port else b""
        note = _NOTE.pack(_MAGIC, self.token, socket.inet_aton(address), size)
        room = size - 20 - _HEADERS[self.number] - 28
        return vxlan + _inner(note.ljust(room, b"\0"))

    def conditions(self, address: str) -> list[Condition]:
        """The probes that come to ADDRESS, for the kernel's filter."""
        note = _HEADERS[self.number] + 28
        port: list[Condition] = [("transport", 2, struct.pack("!H", self.port))] if self.port else []
        return [
            ("network", 9, bytes([self.number])),
            ("network", 16, socket.inet_aton(address)),
            *port,
            ("transport", note, _MAGIC),
            ("transport", note + 4, self.token[:4]),
            ("transport", note + 8, self.token[4:]),
        ]

    def read(self, packet: bytes) -> tuple[str, str, int] | None:
        """Who says that it sent this IP packet, the packet's source, and its size; None for what is no probe."""
        at = (packet[0] & 0xF if packet else 0) * 4 + _HEADERS[self.number] + 28
        if len(packet) < at + _NOTE.size:
            return None
        magic, token, sender, size = _NOTE.unpack_from(packet, at)
        if (magic, token) != (_MAGIC, self.token):
            return None
        return socket.inet_ntoa(sender), socket.inet_ntoa(packet[12:16]), size


def _inner(note: bytes) -> bytes:
    """An ICMP error that holds NOTE in place of the packet in error, in an IP packet that goes nowhere."""
    icmp = struct.pack("!BBHI", _UNREACHABLE, _BY_HOST, 0, 0) + note
    icmp = icmp[:2] + struct.pack("!H", _icmp.checksum(icmp)) + icmp[4:]
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0x4000, 1, _ICMP, 0, _INNER_SOURCE, _INNER_DESTINATION
    )
    return head[:10] + struct.pack("!H", _icmp.checksum(head)) + head[12:] + icmp


def sizes(full: int) -> list[int]:
    """The sizes to try on a path that should take FULL bytes: small, the usual path MTUs, full."""
    return [SMALL, *(size for size in _LADDER if size < full), full]


def full_sizes(address: str, table: t.Mapping[str, int]) -> dict[str, int]:
    """For each other host of TABLE, from address to the largest packet there, the largest between it and ADDRESS."""
    return {other: min(size, table[address]) for other, size in table.items() if other != address}


def listening_time(hosts: int, forks: int) -> int:
    """Seconds after which a host may end its listening, where HOSTS do what they have to in turns of FORKS at a time.

    In each turn the slowest host begins to listen, sends to all others, and tells. To another one it sends some 50 packets
    and pings it: 30 ms, of which 100 are allowed.
    """
    turns = -(-hosts // forks)
    return min(LONGEST, 600 + turns * (30 + hosts // 10))


# ------------------------------------------------------------------------------------------------ hearing


@dataclass
class Heard:
    """What came from one host."""

    delivered: int = 0  # bytes of the largest packet that the rules let in
    seen: int = 0  # and of the largest that came to an interface
    interface: str = ""
    source: str = ""  # where it is another address than the host's own

    def outcome(self) -> tuple[int, int, str, str]:
        return self.delivered, self.seen, self.interface, self.source


@dataclass
class Listener:
    """A socket that hears probes, at an interface (packet(7)) or behind all rules of input (raw(7))."""

    probe: Probe
    address: str
    heard: dict[str, Heard]
    at_interfaces: bool
    socket: socket.socket = field(init=False)

    def open(self) -> None:
        """From here on nothing is missed. Raises OSError."""
        conditions = self.probe.conditions(self.address)
        if self.at_interfaces:
            # On all interfaces from its first moment; what it hears before it has its filter, read() leaves.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            conditions = [("protocol", 0, b"\x08\0"), *conditions]
        else:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, self.probe.number)
        _bpf.attach(self.socket, _bpf.program([conditions], start=0, snap=_SNAP))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)

    def read(self) -> None:
        """Take what has come, and not what a flood goes on to send."""
        for _turn in range(_TURN):
            try:
                packet, sender = self.socket.recvfrom(_SNAP, socket.MSG_DONTWAIT)
            except OSError:
                return
            note = self.probe.read(packet)
            if note is None or (self.at_interfaces and sender[2] == socket.PACKET_OUTGOING):
                continue
            name, source, size = note
            one = self.heard.setdefault(name, Heard())
            if self.at_interfaces:
                one.seen, one.interface = max(one.seen, size), sender[0]
            else:
                one.delivered = max(one.delivered, size)
                one.source = source if source != name else ""


def listen(probe: Probe, name: str, address: str, table: t.Mapping[str, int], *, timeout: float) -> None:
    """Hear probes to ADDRESS from now on, in the background, for TIMEOUT seconds or until ``collect``.

    Raises Failed where it listens already, and OSError.
    """
    heard: dict[str, Heard] = {}

    def open_all(opened: contextlib.ExitStack) -> list[Listener]:
        listeners = [Listener(probe, address, heard, at_interfaces) for at_interfaces in (False, True)]
        for listener in listeners:
            listener.open()
            opened.callback(listener.socket.close)
        return listeners

    Recorder(KIND, name).start(open_all, lambda: told(heard, full_sizes(address, table)), timeout=timeout)


def collect(name: str) -> dict[str, t.Any] | None:
    """What was heard, as ``told`` tells it. None where nobody listens. Raises Failed, PermissionError."""
    found: dict[str, t.Any] | None = Recorder(KIND, name).stop()
    return found


def told(heard: t.Mapping[str, Heard], full: t.Mapping[str, int]) -> dict[str, t.Any]:
    """From how many all came whole, and what came of those from which it did not: those of one outcome together."""
    groups: dict[tuple[int, int, str, str], list[str]] = {}
    whole = 0
    for other, size in full.items():
        one = heard.get(other, Heard())
        if one.delivered == size and not one.source:
            whole += 1
        else:
            groups.setdefault(one.outcome(), []).append(other)
    return {
        "whole": whole,
        "partial": [
            {"from": others, "delivered": delivered, "seen": seen, "interface": interface, "source": source}
            for (delivered, seen, interface, source), others in groups.items()
        ],
    }


# ------------------------------------------------------------------------------------------------ sending


@dataclass
class Sent:
    """What became of the packets to one host, as far as the sender is told."""

    error: str = ""
    mtu: int = 0  # of the path, where a router said so
    echo: int = 0  # bytes of the largest echo request that was answered


def send(probe: Probe | None, address: str, table: t.Mapping[str, int], *, count: int, timeout: float) -> list[Sent]:
    """Send to all hosts of TABLE, in its order, and ping them; TIMEOUT seconds is how long an answer may take.

    Without PROBE they are pinged only, with packets of all sizes. Raises OSError.
    """
    full = full_sizes(address, table)
    results = {other: Sent() for other in full}
    if probe is not None:
        with _sender(probe, address) as sender:
            for _turn in range(count):
                for step in range(len(_LADDER) + 2):
                    for other, size in full.items():
                        steps = sizes(size)
                        if step < len(steps):
                            _send(sender, probe, address, other, steps[step], results)
                            time.sleep(_GAP)
            time.sleep(min(timeout, 0.2))
            _complaints(sender, results)
    paths = [
        _icmp.Path("", other, size)
        for other, most in full.items()
        for size in ((_icmp.DEFAULT_SIZE, most) if probe is not None else sizes(most))
    ]
    _icmp.ping(paths, count=_ECHO_COUNT, timeout=timeout, interval=_ECHO_INTERVAL, df=True)
    for path in paths:
        result = results[path.address]
        if path.rtts:
            result.echo = max(result.echo, path.size)
        elif path.error and (probe is None or not result.error):
            result.error = path.error
    return list(results.values())


@contextlib.contextmanager
def _sender(probe: Probe, address: str) -> t.Iterator[socket.socket]:
    """A socket whose packets have ADDRESS as source and may not be fragmented, whatever was learned of a path before."""
    kind, protocol = (socket.SOCK_RAW, _IPIP) if probe.protocol == "ipip" else (socket.SOCK_DGRAM, 0)
    with socket.socket(socket.AF_INET, kind, protocol) as sender:
        _bpf.attach(sender, _bpf.program([], start=0, snap=0))  # it hears nothing
        sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        sender.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sender.bind((address, 0))
        yield sender


def _send(sender: socket.socket, probe: Probe, address: str, to: str, size: int, results: t.Mapping[str, Sent]) -> None:
    payload = probe.payload(address, size)
    for _try in range(2):
        try:
            sender.sendto(payload, (to, probe.port))
            return
        except OSError as e:
            if not _complaints(sender, results):  # else it was about an earlier packet, or has been told
                results[to].error = FORBIDDEN if e.errno == errno.EPERM else os.strerror(e.errno or 0).lower()
                return


def _complaints(sender: socket.socket, results: t.Mapping[str, Sent]) -> int:
    """Note what ICMP says about earlier packets; how many complaints there were."""
    number = 0
    while True:
        try:
            _packet, about, _flags, to = sender.recvmsg(256, 256, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return number
        number += 1
        for level, kind, data in about:
            if (level, kind) != (socket.IPPROTO_IP, _IP_RECVERR) or to[0] not in results:
                continue
            _errno, origin, icmp_type, code, _pad, info, _data = struct.unpack_from("=IBBBBII", data)
            if origin != _BY_ICMP or (icmp_type, code) == (_UNREACHABLE, _FRAGMENTATION_NEEDED):
                results[to[0]].mtu = min(info, results[to[0]].mtu or info)
            else:
                who = socket.inet_ntoa(data[20:24])
                results[to[0]].error = _icmp.Answer(0, 0, who, 0, icmp_type, code, 0).complaint(0)
