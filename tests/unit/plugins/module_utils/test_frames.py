# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _frames
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scapy")

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

# The seed's own captures: 2021-07-31, a request at a pod, in a bridge, on a tunnel and on an underlay.
SEED = 1627722783.636646
LEFT, RIGHT = "26:e9:e2:4b:ff:e9", "42:58:a1:ed:f4:d3"
ETHER = Ether(src=LEFT, dst=RIGHT)
ECHO = ICMP(id=42491, seq=1) / (b"." * 56)
INNER = IP(src="10.10.100.10", dst="10.10.200.10", ttl=63, id=7, flags="DF") / ECHO
PODS = IP(src="10.1.1.2", dst="10.1.2.2") / ECHO


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def frame(packet: Any, link: str = "ethernet", snap: int = 256, **more: Any) -> dict[str, Any]:
    data = bytes(packet)
    return {
        "namespace": "v1",
        "interface": "veth0",
        "link": link,
        "direction": "in",
        "time": SEED,
        "length": len(data),
        "data": base64.b64encode(data[:snap]).decode(),
        **more,
    }


def text(packet: Any, **more: Any) -> str:
    line: str = _frames.decode(frame(packet, **more))["text"]
    return line.split(" ", 1)[1]


def test_lines_are_the_seeds() -> None:
    assert _frames.decode(frame(ETHER / PODS))["text"] == (
        "09:13:03.636646 26:e9:e2:4b:ff:e9 > 42:58:a1:ed:f4:d3, ethertype IPv4 (0x0800), length 98: "
        "10.1.1.2 > 10.1.2.2: ICMP echo request, id 42491, seq 1, length 64"
    )
    who = Ether(src=LEFT, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=LEFT, psrc="10.1.1.2", pdst="10.1.1.1")
    assert text(who) == (
        "26:e9:e2:4b:ff:e9 > Broadcast, ethertype ARP (0x0806), length 42: Request who-has 10.1.1.1 tell 10.1.1.2, length 28"
    )
    reply = Ether(src=RIGHT, dst=LEFT) / ARP(op=2, hwsrc=RIGHT, psrc="10.1.1.1", hwdst=LEFT, pdst="10.1.1.2")
    assert text(reply) == (
        "42:58:a1:ed:f4:d3 > 26:e9:e2:4b:ff:e9, ethertype ARP (0x0806), length 42: "
        "Reply 10.1.1.1 is-at 42:58:a1:ed:f4:d3, length 28"
    )
    assert text(INNER, link="raw") == ("ip: 10.10.100.10 > 10.10.200.10: ICMP echo request, id 42491, seq 1, length 64")
    assert text(ETHER / IP(src="10.10.10.2", dst="10.10.20.2") / INNER) == (
        "26:e9:e2:4b:ff:e9 > 42:58:a1:ed:f4:d3, ethertype IPv4 (0x0800), length 118: 10.10.10.2 > 10.10.20.2: "
        "10.10.100.10 > 10.10.200.10: ICMP echo request, id 42491, seq 1, length 64 (ipip-proto-4)"
    )


def test_layers_are_told_outermost_first() -> None:
    found = _frames.decode(frame(ETHER / IP(src="10.10.10.2", dst="10.10.20.2", ttl=63) / INNER))
    assert found["ethernet"] == {"source": LEFT, "destination": RIGHT, "type": 0x800}
    assert [(ip["src"], ip["ttl"], ip["protocol"], ip["length"], ip["df"]) for ip in found["ip"]] == [
        ("10.10.10.2", 63, "ipip", 104, False),
        ("10.10.100.10", 63, "icmp", 84, True),
    ]
    assert found["icmp"] == {"type": 8, "code": 0, "id": 42491, "seq": 1, "mtu": None, "about": None}
    assert (found["arp"], found["udp"], found["tcp"], found["inner_ethernet"]) == (None, None, None, None)
    assert (found["namespace"], found["interface"], found["direction"], found["length"]) == ("v1", "veth0", "in", 118)
    assert "data" not in found


def test_an_arp_is_told() -> None:
    asked = ARP(op=1, hwsrc=LEFT, psrc="10.1.1.2", hwdst=RIGHT, pdst="10.1.1.1")
    assert _frames.decode(frame(ETHER / asked))["arp"] == {
        "op": "request", "sender": "10.1.1.2", "sender_mac": LEFT, "target": "10.1.1.1", "target_mac": RIGHT,
    }  # fmt: skip
    assert f"who-has 10.1.1.1 ({RIGHT}) tell 10.1.1.2" in text(ETHER / asked)


def test_an_arp_about_other_addresses_is_data_for_machines_too() -> None:
    for wrong in ({"hwtype": 255}, {"hwlen": 1}, {"plen": 2}, {"ptype": 0x86DD}):
        packet = bytes(ETHER / ARP(hwsrc=LEFT, psrc="10.0.0.1", pdst="10.0.0.2", hwdst=RIGHT))
        packet = bytearray(packet)
        packet[14:16] = wrong.get("hwtype", 1).to_bytes(2, "big")
        packet[16:18] = wrong.get("ptype", 0x0800).to_bytes(2, "big")
        packet[18:20] = wrong.get("hwlen", 6), wrong.get("plen", 4)
        found = _frames.decode(frame(packet))
        assert found["arp"] is None
        assert "op 1 about addresses of" in json.dumps(found)


@pytest.mark.parametrize("port", [8472, 4789, 51234])
def test_vxlan_is_known_at_any_port(port: int) -> None:
    outer = IP(src="198.51.100.11", dst="198.51.100.12") / UDP(sport=40000, dport=port)
    found = _frames.decode(frame(ETHER / outer / VXLAN(vni=5, flags=8) / Ether(src=RIGHT, dst=LEFT) / INNER))
    assert found["udp"] == {"sport": 40000, "dport": port, "vni": 5}
    assert found["inner_ethernet"] == {"source": RIGHT, "destination": LEFT, "type": 0x800}
    assert [ip["dst"] for ip in found["ip"]] == ["198.51.100.12", "10.10.200.10"]
    assert found["icmp"]["id"] == 42491
    assert f"VXLAN, flags [I] (0x08), vni 5: {RIGHT} > {LEFT}, ethertype IPv4 (0x0800), length 98: " in found["text"]


def test_an_error_names_the_packet_that_it_is_about() -> None:
    error = ICMP(type=3, code=4, nexthopmtu=1400) / IP(bytes(INNER)[:28])
    found = _frames.decode(frame(ETHER / IP(src="10.1.1.1", dst="10.10.100.10") / error))
    assert found["icmp"]["mtu"] == 1400
    about = found["icmp"]["about"]
    assert (about["src"], about["dst"], about["id"], about["length"]) == ("10.10.100.10", "10.10.200.10", 7, 84)
    assert about["icmp"] == {"type": 8, "code": 0, "id": 42491, "seq": 1}
    assert len(found["ip"]) == 1


OUTER = IP(src="10.0.0.1", dst="10.0.0.2")
ABOUT = bytes(INNER)[:28]
ABOUT_UDP = bytes(IP(src="10.0.0.2", dst="10.0.0.9") / UDP(sport=5, dport=53))
PACKETS = [
    ETHER / PODS,
    ETHER / OUTER / INNER,
    ETHER / ARP(op=1, hwsrc=LEFT, psrc="10.1.1.2", pdst="10.1.1.1"),
    ETHER / ARP(op=2, hwsrc=LEFT, psrc="10.1.1.2", pdst="10.1.1.1"),
    *(ETHER / OUTER / ICMP(type=3, code=code, nexthopmtu=1400) / ABOUT for code in (0, 1, 2, 4, 9, 10, 13)),
    ETHER / OUTER / ICMP(type=3, code=3) / ABOUT_UDP,
    *(ETHER / OUTER / ICMP(type=11, code=code) / ABOUT for code in (0, 1)),
    ETHER / OUTER / ICMP(type=5, code=1, gw="10.0.0.9") / ABOUT,
    ETHER / OUTER / TCP(sport=40000, dport=9, flags="S", seq=7, window=64240),
    ETHER / OUTER / TCP(sport=40000, dport=9, flags="PA", seq=7, ack=9) / b"hello",
    ETHER / OUTER / TCP(sport=40001, dport=9, flags="RA", seq=7, ack=9),
    ETHER / OUTER / UDP(sport=40000, dport=9999) / b"hello",
    ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / ECHO,
    ETHER / IP(src="10.0.0.1", dst="10.0.0.2", proto=1, frag=8) / (b"." * 56),
    ETHER / OUTER / UDP(sport=40000, dport=4789) / VXLAN(vni=5, flags=8) / Ether(src=RIGHT, dst=LEFT) / INNER,
]


def read_by_tcpdump(path: Path) -> list[str]:
    if not shutil.which("tcpdump"):
        pytest.skip("no tcpdump here")
    command = ["tcpdump", "-enr", str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"(vni \d+)\n", r"\1: ", out).splitlines()  # a VXLAN packet is on two lines


@pytest.mark.parametrize("link", ["ethernet", "raw"])
def test_tcpdump_reads_the_files_and_says_the_same(tmp_path: Path, link: str) -> None:
    packets = PACKETS if link == "ethernet" else [OUTER / INNER, INNER]
    frames = [frame(packet, link=link, time=SEED + number) for number, packet in enumerate(packets)]
    _frames.write_pcap(tmp_path / "a.pcap", reversed(frames))
    ours = [
        _frames.decode(f)["text"].replace(" (ipip-proto-4)", "") for f in frames
    ]  # older ones and the seed say that
    assert ours == read_by_tcpdump(tmp_path / "a.pcap")


def test_a_file_tells_true_lengths(tmp_path: Path) -> None:
    _frames.write_pcap(tmp_path / "a.pcap", [frame(ETHER / PODS, snap=60, time=1700000000.9999996)])
    data = (tmp_path / "a.pcap").read_bytes()
    assert data[24:40] == b"".join(n.to_bytes(4, "little") for n in (1700000001, 0, 60, 98))
    assert "length 98: 10.1.1.2 > 10.1.2.2: ICMP echo request, id 42491, seq 1, length 64" in text(
        ETHER / PODS, snap=60, length=98
    )


def test_a_file_has_one_kind_of_link(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ethernet and raw"):
        _frames.write_pcap(tmp_path / "a.pcap", [frame(ETHER / PODS), frame(PODS, link="raw")])
    _frames.write_pcap(tmp_path / "empty.pcap", [])
    assert (tmp_path / "empty.pcap").stat().st_size == 24


@given(
    st.sampled_from([bytes(packet) for packet in PACKETS]),
    st.integers(0, 200),
    st.dictionaries(st.integers(12, 60), st.binary(min_size=1, max_size=1), max_size=4),
    st.binary(max_size=20),
    st.booleans(),
)
def test_no_frame_is_too_broken(data: bytes, cut: int, wrong: dict[int, bytes], tail: bytes, raw: bool) -> None:
    for place, byte in wrong.items():
        data = data[:place] + byte + data[place + 1 :]
    found = _frames.decode(frame(data[:cut] + tail, link="raw" if raw else "ethernet"))
    assert "\n" not in json.dumps(found)
    assert "\n" not in found["text"]
