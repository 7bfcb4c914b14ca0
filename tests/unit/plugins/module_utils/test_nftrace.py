# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct

from ansible_collections.podnet.overlay.plugins.module_utils import _nftrace
from hypothesis import given
from hypothesis import strategies as st

LISTING = """\
table inet filter { # handle 3
    set peers { # handle 9
        type ipv4_addr
        elements = { 198.51.100.11, 198.51.100.12,
            198.51.100.13 }
    }

    ct helper ftp { # handle 4
        type "ftp" protocol tcp
        l3proto inet
    }

    chain forward { # handle 1
        type filter hook forward priority 0; policy drop;
        ip saddr { 10.244.0.0/24, 10.244.1.0/24,
            10.244.2.0/24 } accept # handle 5
        ip protocol 1 counter drop comment "a # handle 8" # handle 6
    }

    chain other { # handle 2
    }
}
table ip nat { # handle 4
    chain POSTROUTING { # handle 1
        type nat hook postrouting priority 100; policy accept;
        counter xt target "MASQUERADE" # handle 5
    }
}
""".replace("    ", "\t")


def test_rules_and_hooks_are_read_from_a_listing() -> None:
    listing = _nftrace.Listing.parse(LISTING)
    assert listing.rules == {
        ("inet", "filter", 5): "ip saddr { 10.244.0.0/24, 10.244.1.0/24, 10.244.2.0/24 } accept",
        ("inet", "filter", 6): 'ip protocol 1 counter drop comment "a # handle 8"',
        ("ip", "nat", 5): 'counter xt target "MASQUERADE"',
    }
    assert listing.hooks == {("inet", "filter", "forward"): "forward", ("ip", "nat", "POSTROUTING"): "postrouting"}


def test_a_comment_may_have_lines_that_look_like_others() -> None:
    text = LISTING.replace('"a # handle 8"', '"a\ntable\n\tchain\n\t}\n # handle 8"').replace(
        "policy drop;", 'comment "x"'
    )
    listing = _nftrace.Listing.parse(text)
    assert listing.rules["inet", "filter", 6].startswith('ip protocol 1 counter drop comment "a\ntable')
    assert listing.hooks == _nftrace.Listing.parse(LISTING).hooks
    assert listing.rules.keys() == _nftrace.Listing.parse(LISTING).rules.keys()


@given(st.lists(st.one_of(st.sampled_from(LISTING.split()), st.sampled_from(["\n", "\t", " ", '"', "²"]), st.text())))
def test_no_listing_is_too_broken(parts: list[str]) -> None:
    _nftrace.Listing.parse(" ".join(parts))
    _nftrace.Listing.parse("\t".join(parts))


def test_an_empty_listing_has_nothing() -> None:
    assert _nftrace.Listing.parse("") == _nftrace.Listing({}, {})


def message(identifier: int, handle: int, code: int, *more: bytes, table: bytes = b"filter") -> bytes:
    parts = [
        _nftrace._attribute(1, table + b"\0"),
        _nftrace._attribute(2, b"forward\0"),
        _nftrace._attribute(3, struct.pack("!Q", handle)),
        _nftrace._attribute(4, _nftrace._be32(3)),
        _nftrace._nest(5, _nftrace._attribute(1, _nftrace._be32(code))),
        _nftrace._attribute(6, _nftrace._be32(identifier)),
        *more,
    ]
    return _nftrace._message((10 << 8) + 17, 0, 1, 0, *parts)


def headers(source: str, destination: str) -> list[bytes]:
    ends = b"".join(bytes(int(part) for part in address.split(".")) for address in (source, destination))
    network = struct.pack("!BBHHHBBH", 0x45, 0, 84, 0, 0, 63, 1, 0) + ends
    return [
        _nftrace._attribute(8, network),
        _nftrace._attribute(9, struct.pack("!BBHHH", 8, 0, 0, 42491, 1)),
        _nftrace._attribute(10, _nftrace._be32(2)),
        _nftrace._attribute(12, _nftrace._be32(9)),
    ]


def test_what_the_first_message_tells_of_a_packet_holds_for_its_later_ones() -> None:
    listing = _nftrace.Listing.parse(LISTING)
    messages = [
        (1.0, message(7, 5, -1, *headers("10.244.0.2", "10.244.1.2")) + message(8, 5, 1)),
        (2.0, message(7, 6, 0)),
        (3.0, message(7, 1, -1, table=b"podnet_overlay_trace")),
    ]
    first, other, last = _nftrace.verdicts("web", messages, listing, {2: "cni0"})
    assert last == {
        "time": 2.0, "namespace": "web", "id": "00000007", "hook": "forward", "family": "inet", "table": "filter",
        "chain": "forward", "handle": 6, "verdict": "drop", "text": 'ip protocol 1 counter drop comment "a # handle 8"',
        "iif": "cni0", "oif": "9", "src": "10.244.0.2", "dst": "10.244.1.2", "protocol": "icmp", "ttl": 63,
        "icmp": {"type": 8, "code": 0, "id": 42491, "seq": 1}, "inner": None,
    }  # fmt: skip
    assert (first["verdict"], first["src"]) == ("continue", "10.244.0.2")
    assert (other["verdict"], other["src"], other["iif"]) == ("accept", None, "")


@given(st.binary(max_size=200))
def test_no_message_is_too_broken(data: bytes) -> None:
    head = struct.pack("=IHHII", 16 + len(data), (10 << 8) + 17, 0, 0, 0)
    _nftrace.verdicts("", [(0.0, data), (0.0, head + data)], _nftrace.Listing({}, {}), {})
