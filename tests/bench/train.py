"""A train of pings, in a file of its own because it runs wherever there is a Python: in a pod, here or on a machine of the lab.

    ip netns exec web python3 train.py SECONDS ADDRESS...

Sends a packet to each address every SECONDS until its input ends. Prints the numbers of the packets that were answered by any of
them, and how many were sent to each, as JSON. Sending that fails is a loss like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

PATIENCE = 1.0
"""Seconds that an answer may take. In a minute's train every number is there once."""


def request(number: int) -> bytes:
    """An echo request, RFC 792."""
    words = (8 << 8, 0, os.getpid() & 0xFFFF, number)
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!4H", words[0], ~total & 0xFFFF, *words[2:])


def main(interval: float, addresses: list[str]) -> None:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setblocking(False)
    start, sent, end, answered = time.monotonic(), 0, 0.0, set()
    while not end or time.monotonic() < end:
        due = end or start + sent * interval
        ready, _w, _x = select.select([raw] if end else [raw, sys.stdin], [], [], max(0, due - time.monotonic()))
        if raw in ready:
            packet = raw.recv(2048)[20:]
            kind, _code, _sum, identity, number = struct.unpack("!BBHHH", packet[:8])
            if kind == 0 and identity == os.getpid() & 0xFFFF:
                answered.add(number)
        elif ready:
            end = time.monotonic() + PATIENCE
        elif not end:
            for address in addresses:
                with contextlib.suppress(OSError):
                    raw.sendto(request(sent & 0xFFFF), (address, 0))
            sent += 1
    print(json.dumps({"sent": sent, "answered": sorted(answered)}))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
