# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import struct

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _icmp
from hypothesis import given
from hypothesis import strategies as st


def ip(payload: bytes, source: str = "10.244.1.2", ttl: int = 62) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, ttl, 1, 0)
    return header + socket.inet_aton(source) + socket.inet_aton("10.244.0.2") + payload


def refusal(kind: int, code: int, mtu: int, request: bytes) -> bytes:
    return ip(struct.pack("!BBHHH", kind, code, 0, 0, mtu) + ip(request)[:28], source="10.244.0.1")


@given(st.binary(max_size=100))
def test_a_checksum_makes_the_sum_of_the_whole_zero(data: bytes) -> None:
    padded = data + b"\0" * (len(data) % 2)
    assert _icmp.checksum(padded + struct.pack("!H", _icmp.checksum(padded))) == 0


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(_icmp.HEADERS, 1600))
def test_a_request_has_its_size_and_a_right_checksum(identifier: int, sequence: int, size: int) -> None:
    packet = _icmp.request(identifier, sequence, size)
    assert len(packet) + 20 == size
    assert _icmp.checksum(packet) == 0


def test_a_reply_is_recognised() -> None:
    reply = b"\0" + _icmp.request(7, 9, 84)[1:]
    answer = _icmp.parse(ip(reply))
    assert answer is not None
    assert (answer.identifier, answer.sequence, answer.sender, answer.ttl) == (7, 9, "10.244.1.2", 62)
    assert answer.complaint(84) == ""


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [
        (3, 4, "packet of 1480 bytes exceeds path MTU 1400, says 10.244.0.1"),
        (3, 1, "host unreachable, says 10.244.0.1"),
        (3, 13, "administratively prohibited, says 10.244.0.1"),
        (11, 0, "time to live exceeded: a routing loop, says 10.244.0.1"),
        (3, 99, "ICMP type 3 code 99, says 10.244.0.1"),
    ],
)
def test_a_refusal_belongs_to_the_request_inside_it(kind: int, code: int, text: str) -> None:
    answer = _icmp.parse(refusal(kind, code, 1400, _icmp.request(7, 9, 1480)))
    assert answer is not None
    assert (answer.identifier, answer.sequence) == (7, 9)
    assert answer.complaint(1480) == text


def test_another_ones_traffic_is_no_answer() -> None:
    assert _icmp.parse(ip(_icmp.request(7, 9, 84))) is None  # a request
    assert _icmp.parse(refusal(3, 1, 0, b"\0" + _icmp.request(7, 9, 84)[1:])) is None  # a refused reply


@given(st.binary(min_size=20, max_size=60))
def test_no_packet_is_too_odd_to_parse(packet: bytes) -> None:
    _icmp.parse(packet)


def test_a_result_names_a_reason_only_for_loss() -> None:
    path = _icmp.Path("web", "10.244.1.2", 84, sent=2, rtts=[0.001, 0.003], ttl=62, error="host unreachable")
    assert path.result()["error"] == ""
    assert path.result()["rtt_ms"] == {"min": 1.0, "avg": 2.0, "max": 3.0}
    assert _icmp.Path("web", "10.244.1.2", 84, sent=2).result()["error"] == "no answer"
