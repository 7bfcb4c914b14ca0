"""Who is seen at the far end: sockets in pods and on hosts, without a process for each."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ansible_collections.podnet.overlay.plugins.module_utils._netns import inside

from tests.kernel.hosts import Host
from tests.kernel.overlays import mac

T = TypeVar("T")
TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
PROTOCOLS = tuple(TYPES)
PATIENCE = 2.0
"""Seconds: what comes, comes at once, but the machine may be busy."""
DOUBT = 0.4
"""Seconds to wait for what should not come."""


@dataclass(frozen=True)
class Place:
    """A host, or one of its pods."""

    host: Host
    pod: str = ""

    def do(self, work: Callable[[], T]) -> T:
        """What *work* returns in there."""
        folder = f"/proc/{self.host.pid}"
        return inside(f"{folder}/root/run/netns/{self.pod}" if self.pod else f"{folder}/ns/net", work)

    def socket(self, protocol: str = "udp", source: tuple[str, int] | None = None) -> socket.socket:
        """A socket of this place, which it stays wherever it is used."""
        made = self.do(lambda: socket.socket(socket.AF_INET, TYPES[protocol]))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(PATIENCE)
        if source is not None:
            self.do(lambda: made.bind(source))
        return made


@dataclass(frozen=True)
class Seen:
    """What became of a question: the client's address and port as the server sees them, and whether the answer came."""

    address: str
    port: int = 0
    answered: bool = True

    def __str__(self) -> str:
        return self.address + ("" if self.answered else ", no answer")


LOST, REFUSED = Seen("lost", 0, False), Seen("refused", 0, False)


def asked(
    client: Place,
    target: tuple[str, int],
    server: Place,
    *,
    protocol: str = "tcp",
    listen: tuple[str, int] | int | None = None,
    source: tuple[str, int] | None = None,
    patience: float = PATIENCE,
) -> Seen:
    """A client asks *target*, and *server* answers, which listens on another port where a mapping is in between."""
    where = listen if isinstance(listen, tuple) else ("", listen or target[1])
    with ExitStack() as stack:
        listener = stack.enter_context(server.socket(protocol, where))
        sender = stack.enter_context(client.socket(protocol, source))
        sender.settimeout(patience)
        listener.settimeout(patience)
        if protocol == "tcp":
            listener.listen()
        try:
            sender.connect(target)
            sender.send(b"question")
            if protocol == "tcp":
                peer, address = listener.accept()
                stack.enter_context(peer)
                peer.send(b"answer")
            else:
                ready, _writable, _odd = select.select([listener, sender], [], [], patience)
                if listener not in ready:
                    return REFUSED if ready else LOST
                address = listener.recvfrom(99)[1]
                with contextlib.suppress(OSError):  # no way back: then the client waits for nothing
                    listener.sendto(b"answer", address)
        except ConnectionRefusedError:
            return REFUSED
        except TimeoutError:
            return LOST
        try:
            answered = sender.recv(99) == b"answer"
        except (TimeoutError, ConnectionRefusedError):
            answered = False
        return Seen(address[0], address[1], answered)


def br_netfilter(host: Host, value: int) -> None:
    """Whether frames between ports of one bridge pass the IP hooks of a host, as on most hosts that have containers."""
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    host.sh(f"[ -e {switch} ] || [ {value} = 0 ] || modprobe br_netfilter; [ ! -e {switch} ] || echo {value} >{switch}")


def forged(source: str, target: str, port: int, to_mac: str) -> bytes:
    """A UDP datagram as a pod puts it on its wire, in a frame to whatever MAC; it says "x"."""
    udp = struct.pack("!HHHH", 4000, port, 9, 0) + b"x"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, *map(socket.inet_aton, (source, target)))
    total = sum(struct.unpack("!10H", ip))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    frame = bytes.fromhex((to_mac + mac(source)).replace(":", "")) + b"\x08\x00"
    return frame + ip[:10] + struct.pack("!H", checksum) + ip[12:] + udp


@contextmanager
def heard(place: Place, protocol: int) -> Iterator[Callable[[], list[bytes]]]:
    """The IP packets of a protocol that come to a place meanwhile; call what this gives for those since the last call."""
    listener = place.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
    with listener:
        listener.settimeout(DOUBT)

        def packets() -> list[bytes]:
            found = []
            with contextlib.suppress(TimeoutError):
                while True:
                    found.append(listener.recv(65535))
            return found

        yield packets


def passes(client: Place, server: Place, address: str, patience: float) -> bool:
    """Whether a datagram goes there and its answer comes back; every one is a new connection to the filters."""
    with server.socket("udp", (address, 5353)) as listener, client.socket("udp") as sender:
        listener.settimeout(patience)
        sender.settimeout(patience)
        sender.connect((address, 5353))
        sender.send(b"question")
        try:
            listener.sendto(b"answer", listener.recvfrom(99)[1])
            return sender.recv(99) == b"answer"
        except OSError:  # nothing comes, or the firewall tells the client so
            return False
