# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would stop the overlay: from what the hosts and their probes told to findings, and their table."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _preflight, _preflight_text, _surroundings
from ansible_collections.podnet.overlay.plugins.module_utils._facts import Facts, Underlay
from ansible_collections.podnet.overlay.plugins.module_utils._inventory import Node, Settings
from ansible_collections.podnet.overlay.plugins.module_utils._preflight import Finding, Prober
from ansible_collections.podnet.overlay.plugins.module_utils._preflight_paths import MOST_WAYS, Paths, ways
from ansible_collections.podnet.overlay.plugins.module_utils._underlay import (
    FORBIDDEN,
    LONGEST,
    Probe,
    full_sizes,
    listening_time,
    sizes,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("node1", "node2", "node3")
ADDRESSES = {name: f"198.51.100.{number}" for number, name in enumerate(NAMES, 1)}
NETWORK = ipaddress.IPv4Network("10.244.0.0/16")


# ------------------------------------------------------------------------------------------------ paths


class Fleet:
    """What the probes of some hosts told. All is well until a method says otherwise."""

    def __init__(self, names: Sequence[str] = NAMES, backend: str = "ipip", size: int = 1500, link: str = "") -> None:
        self.backend = backend
        self.hosts = {name: Prober(ADDRESSES[name], size, "eth1", link) for name in names}
        self.sent: dict[str, dict[str, dict[str, Any]]] = {
            a: {ADDRESSES[b]: {"error": "", "mtu": 0, "echo": size, "rule": ""} for b in names if b != a} for a in names
        }
        self.heard: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.firewalls: dict[str, list[str]] = {name: [] for name in names}

    def hears(self, receiver: str, sender: str, **heard: Any) -> None:
        blank = {"delivered": 0, "seen": 0, "interface": "", "source": "", "fault": "", "text": ""}
        self.heard[receiver].append({"from": [ADDRESSES[sender]], **blank, **heard})

    def sends(self, sender: str, receiver: str, **told: Any) -> None:
        self.sent[sender][ADDRESSES[receiver]].update(told)

    def outcomes(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {
            name: {
                "started": {"surroundings": {"firewalls": self.firewalls[name]}},
                "sent": {"paths": [{"to": [to], **told} for to, told in self.sent[name].items()]},
                "stopped": {"listened": self.backend != "host-gw", "partial": self.heard[name]},
            }
            for name in self.hosts
        }

    def paths(self) -> Paths:
        return Paths(self.hosts, self.outcomes(), self.backend, 8472)

    def findings(self) -> list[Finding]:
        return list(self.paths().findings("overlay"))

    def one(self) -> Finding:
        (finding,) = self.findings()
        return finding


def test_where_all_came_nothing_is_found() -> None:
    paths = Fleet().paths()
    assert (paths.tried, paths.whole, list(paths.findings("overlay"))) == (6, 6, [])


def test_a_protocol_that_is_filtered_both_ways_is_told_from_a_host_that_is_down() -> None:
    fleet = Fleet()
    fleet.hears("node1", "node2")
    fleet.hears("node2", "node1")
    assert fleet.one() == Finding(
        "node1",
        "protocol 4 (IPIP) does not get between node1 and node2, and echo requests do: it is filtered",
        "let protocol 4 pass (security groups, ACLs, routers), or set overlay_backend: vxlan",
    )
    assert fleet.paths().whole == 4
    fleet.sends("node1", "node2", echo=0)
    fleet.sends("node2", "node1", echo=0)
    assert fleet.one().blocker == "neither protocol 4 (IPIP) nor echo requests get between node1 and node2"


def test_a_refusal_by_icmp_is_told() -> None:
    fleet = Fleet(backend="vxlan")
    fleet.hears("node1", "node2")
    fleet.sends("node2", "node1", error="administratively prohibited, says 198.51.100.9")
    assert fleet.one().blocker == (
        "UDP port 8472 (VXLAN) does not get from node2 to node1, and echo requests do: it is filtered "
        "(administratively prohibited, says 198.51.100.9)"
    )


def test_the_receivers_rule_is_its_own_fault_and_one_line_for_all_senders() -> None:
    fleet = Fleet()
    for sender in ("node1", "node3"):
        fleet.hears("node2", sender, seen=1500, interface="eth1", fault="rule", text="table ip t chain c: drop")
    finding = fleet.one()
    assert (finding.host, finding.level) == ("node2", "error")
    assert finding.blocker == "drops protocol 4 (IPIP) from any other host to node2: table ip t chain c: drop"


@pytest.mark.parametrize(
    ("firewall", "text", "level"),
    [
        ("ufw", "iptables table filter chain INPUT: policy drop", "warning"),
        ("ufw", "table inet site chain input: ip protocol 4 drop", "error"),
        ("firewalld", "table inet firewalld chain filter_INPUT: reject", "warning"),
        ("firewalld", "", "warning"),
        ("docker", "", "error"),
    ],
)
def test_what_the_overlay_has_let_through_by_itself_is_a_warning(firewall: str, text: str, level: str) -> None:
    fleet = Fleet()
    fleet.firewalls["node2"] = [firewall]
    fleet.hears("node2", "node1", seen=1500, interface="eth1", fault="rule" if text else "unknown", text=text)
    assert fleet.one().level == level


def test_rp_filter_is_told_with_its_remedy() -> None:
    fleet = Fleet()
    fleet.hears("node2", "node1", seen=1500, interface="eth1", fault="rp_filter", text="by eth1, and back by eth0")
    finding = fleet.one()
    assert finding.blocker == "its rp_filter drops protocol 4 (IPIP) from node1 to node2: by eth1, and back by eth0"
    assert "net.ipv4.conf.eth1.rp_filter" in finding.remedy


def test_the_senders_rule_is_its_own_fault() -> None:
    fleet = Fleet()
    fleet.hears("node2", "node1")
    fleet.sends("node1", "node2", error=FORBIDDEN, rule="table ip t chain c: drop")
    finding = fleet.one()
    assert (finding.host, finding.blocker) == (
        "node1",
        "its own rules forbid protocol 4 (IPIP) from node1 to node2: table ip t chain c: drop",
    )


def test_small_path_mtus_are_told_with_the_overlay_mtu_that_suits_all() -> None:
    fleet = Fleet()
    fleet.hears("node2", "node1", delivered=1420, seen=1420)
    fleet.sends("node1", "node2", mtu=1430)
    fleet.hears("node3", "node1", delivered=1400, seen=1400)
    found = {finding.blocker: finding.remedy for finding in fleet.findings()}
    assert found == {
        f"of packets without fragmentation at most {size} of 1500 bytes get from node1 to {node}": (
            "overlay_mtu: 1380 for the group, or a larger MTU on the way"
        )
        for size, node in ((1430, "node2"), (1400, "node3"))
    }


def test_an_overlay_mtu_that_no_host_could_have_is_not_proposed() -> None:
    fleet = Fleet()
    fleet.hears("node2", "node1", delivered=128, seen=128)
    assert fleet.one().remedy == "a larger MTU on the way"


def test_translated_addresses_are_told() -> None:
    fleet = Fleet()
    fleet.hears("node2", "node1", delivered=1500, seen=1500, source="203.0.113.9")
    assert fleet.one().blocker.startswith("what gets from node1 to node2 comes from 203.0.113.9")


def test_between_hosts_of_one_link_that_route_directly_pings_count_and_the_protocol_does_not() -> None:
    fleet = Fleet(link="198.51.100.0/24")
    fleet.hears("node2", "node1")
    assert fleet.findings() == []
    fleet.sends("node1", "node2", echo=84)
    assert "at most 84 of 1500 bytes get from node1 to node2" in fleet.one().blocker


def test_with_host_gw_pings_tell() -> None:
    fleet = Fleet(backend="host-gw", link="198.51.100.0/24")
    fleet.sends("node1", "node2", echo=0, error="host unreachable, says 198.51.100.1")
    fleet.sends("node1", "node3", echo=1400)
    assert [(finding.blocker, finding.remedy) for finding in fleet.findings()] == [
        (
            "echo requests do not get from node1 to node2 (host unreachable, says 198.51.100.1)",
            "repair the routes between their addresses, or let them through",
        ),
        (
            "of packets without fragmentation at most 1400 of 1500 bytes get from node1 to node3",
            "overlay_mtu: 1400 for the group, or a larger MTU on the way",
        ),
    ]


def test_a_host_whose_probing_failed_is_told_once_and_held_against_nobody() -> None:
    fleet = Fleet()
    fleet.hears("node1", "node2")
    fleet.hears("node3", "node2")
    outcomes = fleet.outcomes()
    outcomes["node2"]["sent"] = {"failed": True, "msg": "raw sockets need root\nand more"}
    paths = Paths(fleet.hosts, outcomes, "ipip", 8472)
    assert list(paths.findings("overlay")) == [Finding("node2", "could not be probed: raw sockets need root", "")]
    assert (paths.tried, paths.whole) == (2, 2)
    outcomes["node2"] = {**fleet.outcomes()["node2"], "stopped": {"listened": False}}
    (finding,) = Paths(fleet.hosts, outcomes, "ipip", 8472).findings("overlay")
    assert finding.blocker == "could not be probed: its listening ended early"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("12 13 21 23 31 32", [("", "between any two hosts")]),
        ("12 13", [("1", "from 1 to any other host")]),
        ("12 32", [("2", "from any other host to 2")]),
        ("12 21 23 32", [("2", "between 2 and any other host")]),
        ("12 21", [("1", "between 1 and 2")]),
        ("12", [("1", "from 1 to 2")]),
    ],
)
def test_pairs_in_few_words(pairs: str, said: list[tuple[str, str]]) -> None:
    assert list(ways([(pair[0], pair[1]) for pair in pairs.split()], "123")) == said


@given(st.sets(st.sampled_from(list(permutations([f"n{i}" for i in range(7)], 2)))))
def test_no_pair_is_lost_in_few_words(pairs: set[tuple[str, str]]) -> None:
    names = [f"n{i}" for i in range(7)]

    def whom(text: str, but: str) -> list[str]:
        found = re.findall(r"n\d", text)
        return [name for name in names if name != but] if "any other host" in text else found

    told: set[tuple[str, str]] = set()
    for host, way in ways(pairs, names):
        if not host:
            told |= set(permutations(names, 2))
        elif way.startswith("between"):
            for other in whom(way.partition(" and ")[2], host):
                told |= {(host, other), (other, host)}
        elif way.startswith(f"from {host} "):
            told |= {(host, other) for other in whom(way.partition(" to ")[2], host)}
        else:
            told |= {(other, host) for other in whom(way.partition(" to ")[0], host)}
    if not any("others" in way for _host, way in ways(pairs, names)):
        assert told == pairs


def test_a_thousand_hosts_that_cannot_talk_are_judged_quickly_and_in_few_lines() -> None:
    names = [f"n{i}" for i in range(1000)]
    assert list(ways(set(permutations(names, 2)), names)) == [("", "between any two hosts")]
    odd = {(a, b) for a, b in permutations(names[:200], 2) if int(a[1:]) % 2 and not int(b[1:]) % 3}
    assert len(list(ways(odd, names))) <= MOST_WAYS + 1


# ------------------------------------------------------------------------------------------------ hosts


def test_the_plans_lines_become_findings() -> None:
    def of(line: str) -> Finding:
        return _preflight.of_line(line, NAMES, "overlay", "error")

    assert of("node1: overlay_bridge: a link is there; it is not ours; remove it") == Finding(
        "node1", "overlay_bridge: a link is there; it is not ours", "remove it"
    )
    assert of("overlay: overlay_backend: none") == Finding("overlay", "overlay_backend: none", "")
    assert of("node1, node2 and 3 others: not reached").host == "node1, node2 and 3 others"
    assert of("the nodes' MTUs differ: much; set overlay_mtu") == Finding(
        "overlay", "the nodes' MTUs differ: much", "set overlay_mtu"
    )


@pytest.mark.parametrize(
    ("outcome", "blocker"),
    [
        ({"version": 1}, None),
        ({"unreachable": True, "msg": "Task failed: timed out\nmore"}, "cannot be reached: timed out"),
        (
            {"failed": True, "msg": "host x has no program ip: install the package iproute2"},
            "host x has no program ip",
        ),
        (
            {"failed": True, "msg": "", "module_stdout": "/bin/sh: 1: /usr/bin/python3: not found"},
            "no Python for Ansible: /bin/sh: 1: /usr/bin/python3: not found",
        ),
        ({"failed": True, "msg": "broken"}, "cannot be looked at: broken"),
        ({}, "was not asked"),
    ],
)
def test_a_host_that_could_not_be_looked_at_says_why(outcome: Mapping[str, Any], blocker: str | None) -> None:
    finding = _preflight.of_silence("node1", outcome)
    assert (finding and finding.blocker) == blocker


OBSTACLE = {"what": "nft chain ip filter FORWARD has policy drop", "why": "", "remedy": "accept it", "fatal": False}
FORWARD = {**OBSTACLE, "why": "packets to and from pods are forwarded, and an accept in another table does not help"}


def test_what_a_host_lacks_is_a_warning_where_it_is_brought_and_else_the_plans_mistake() -> None:
    facts = Facts(os_family="Debian", missing=("pyroute2", "file:rt_protos"), obstacles=(OBSTACLE,))
    node = Node("node1")
    lack, obstacle = _preflight.of_facts("node1", facts, node, probes=True)
    assert (lack.blocker, lack.level) == ("lacks python3-pyroute2", "warning")
    assert (obstacle.blocker, obstacle.level) == (OBSTACLE["what"], "warning")
    assert len(list(_preflight.of_facts("node1", facts, Node("node1", install=False), probes=True))) == 1


def test_a_forward_policy_is_judged_by_whoever_probes() -> None:
    facts = Facts(obstacles=(FORWARD,))
    assert list(_preflight.of_facts("node1", facts, Node("node1"), probes=True)) == []
    assert len(list(_preflight.of_facts("node1", facts, Node("node1"), probes=False))) == 1


def test_who_else_is_there_is_told() -> None:
    told = {
        "overlays": ["Flannel"],
        "takers": {"/etc/systemd/network/0-all.network": ["cni0"]},
        "forward": [{"text": "policy drop", "surely": True}, {"text": "limit", "surely": False}],
    }
    assert [(finding.blocker, finding.level) for finding in _preflight.of_surroundings("node1", told)] == [
        ("Flannel runs there", "warning"),
        ("/etc/systemd/network/0-all.network has systemd-networkd configure cni0", "error"),
        ("policy drop drops what pods send to other nodes", "error"),
        ("limit may drop what pods send to other nodes", "warning"),
    ]


def test_who_probes_and_with_which_size() -> None:
    def of(backend: str, **words: Any) -> dict[str, Prober]:
        network = ipaddress.IPv4Network("198.51.100.0/24")
        underlays = {name: Underlay(ADDRESSES[name], "eth1", network, 1500) for name in NAMES}
        underlays["node3"] = Underlay(ADDRESSES["node1"], "eth1", network, 1500)  # a mistake that the plan tells
        return _preflight.probers(Settings(NETWORK, 24, backend, **words), underlays)

    assert of("ipip") == {name: Prober(ADDRESSES[name], 1500, "eth1", "") for name in NAMES[:2]}
    assert of("vxlan", mtu=1400)["node1"].size == 1450
    assert of("vxlan", mtu=9000)["node1"].size == 1500
    assert of("ipip", direct_routing=True)["node1"].link == of("host-gw")["node1"].link == "198.51.100.0/24"


# ------------------------------------------------------------------------------------------------ probes


@pytest.mark.parametrize(("protocol", "port", "outer"), [("ipip", 0, 20), ("udp", 8472, 28)])
@given(size=st.integers(128, 9000))
def test_a_probe_has_its_size_and_is_read_back(protocol: str, port: int, outer: int, size: int) -> None:
    probe = Probe(protocol, port, b"12345678")
    payload = probe.payload("198.51.100.1", size)
    assert len(payload) + outer == size
    udp = b"\0" * 8 if protocol == "udp" else b""
    head = b"\x45" + b"\0" * 11 + bytes([203, 0, 113, 1]) + b"\0" * 4
    assert probe.read(head + udp + payload) == ("198.51.100.1", "203.0.113.1", size)
    assert Probe(protocol, port, b"87654321").read(head + udp + payload) is None


@given(st.binary(max_size=200))
def test_what_is_no_probe_is_read_as_none(packet: bytes) -> None:
    assert Probe("ipip", 0, b"12345678").read(packet) is None


def test_sizes_go_from_small_to_full() -> None:
    assert sizes(1500)[0] == 128
    assert sizes(1500) == sorted(set(sizes(1500)))
    assert sizes(1500)[-1] == 1500
    assert sizes(600) == [128, 600]
    assert full_sizes("a", {"a": 9000, "b": 1500, "c": 9000}) == {"b": 1500, "c": 9000}


# ------------------------------------------------------------------------------------------------ networkd


@pytest.mark.parametrize(
    ("match", "name", "kind", "taken"),
    [
        ({"Name": "*"}, "cni0", "bridge", True),
        ({"Name": "eth* cni?"}, "cni0", "bridge", True),
        ({"Name": "!eth* cni0"}, "cni0", "bridge", False),
        ({"Name": "!eth*"}, "flannel.ipip", "ipip", True),
        ({"Type": "ether"}, "cni0", "bridge", True),
        ({"Type": "ether"}, "flannel.ipip", "ipip", False),
        ({"Kind": "vxlan"}, "flannel.1", "vxlan", True),
        ({"Name": "*", "MACAddress": "02:00:00:00:00:01"}, "cni0", "bridge", False),
        ({}, "cni0", "bridge", True),
    ],
)
def test_which_links_a_match_of_networkd_takes(match: dict[str, str], name: str, kind: str, taken: bool) -> None:
    assert _surroundings.matches(match, name, kind) is taken


def test_other_overlays_are_known_by_their_processes() -> None:
    assert _surroundings.overlays({"flanneld", "calico-node", "calico-felix", "sshd"}) == ["Calico", "Flannel"]


# ------------------------------------------------------------------------------------------------ text


def test_errors_come_first_and_what_hosts_have_in_common_is_one_row() -> None:
    findings = [
        Finding("node1", "slow", "wait", "warning"),
        Finding("node1", "broken", "repair it"),
        Finding("node2", "broken", "repair it"),
        Finding("node3", "x" * 70 + "\x1b[2J", "", "error"),
    ]
    verdict = _preflight_text.summary(findings, 3, 6, 4, "protocol 4")
    lines = _preflight_text.render(findings, {"node1": "eth1 by ifupdown", "node2": "eth1"}, verdict).splitlines()
    assert [line.split() for line in lines[2:3]] == [["error", "broken", "node1,", "node2", "repair", "it"]]
    assert lines[-1] == "3 hosts, 4 of 6 paths carry protocol 4: 3 errors, 1 warning"
    assert "underlay: eth1 by ifupdown on node1" in lines
    assert any(line.startswith("warning") for line in lines[3:])
    assert not any("\x1b" in line for line in lines)


def test_nothing_found_is_a_line() -> None:
    assert _preflight_text.render([], {}, _preflight_text.summary([], 1, 0, 0, "protocol 4")) == (
        "1 host, no path was probed: 0 errors, 0 warnings"
    )


@pytest.mark.parametrize("forks", [5, 20, 1000])
@pytest.mark.parametrize("hosts", [2, 360, 1000, 5000])
def test_listeners_wait_for_all_hosts_however_few_send_at_a_time(hosts: int, forks: int) -> None:
    others, turns = hosts - 1, math.ceil(hosts / forks)
    packets = 3 * len(sizes(9001)) * others * 0.0005 + 4 * others * 0.001
    answers, three_tasks = 1.2, 10
    assert 600 + turns * (packets + answers + three_tasks) < listening_time(hosts, forks) < LONGEST
    assert listening_time(3, 5) < 660
    assert listening_time(100_000, 1) == LONGEST
