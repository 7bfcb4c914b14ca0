# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A path joined of what hosts explain and what is seen there, with the seed's numbers."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _trace, _trace_seen
from ansible_collections.podnet.overlay.plugins.module_utils._flow import flow
from ansible_collections.podnet.overlay.plugins.module_utils._trace_text import render

from . import seed


class Path:
    """The seed's path. Tests break it, and join it then."""

    def __init__(self, target: str = seed.TARGET, **settings: Any) -> None:
        self.flow = flow(seed.SOURCE, target, seed.NODES, {**seed.SETTINGS, **settings})
        self.walks = seed.walks()
        self.silent: dict[str, str] = {}
        self.frames: dict[str, Any] = {}
        self.verdicts: dict[str, Any] = {}
        self.pings: list[dict[str, Any]] = []

    def captured(self, received: int = 3, underlay: int = 3) -> Path:
        self.frames, self.pings = seed.frames(), seed.pings(received, underlay)
        return self

    def lost_after(self, leg: str, count: int) -> None:
        """Only the first COUNT hops of a leg saw the probe, and of later legs none."""
        self.pings = seed.pings(0)
        for node, own in self.frames.items():
            order = self.flow["order"][leg]
            if leg == "request":
                own[:] = [frame for frame in own if frame["icmp"]["type"] == 8]
            start = sum(len(self.walks[before][leg]["hops"]) for before in order[: order.index(node)])
            kind = 8 if leg == "request" else 0
            ours = [frame for frame in own if frame["icmp"]["type"] == kind]
            for frame in ours[max(0, count - start) :]:
                own.remove(frame)

    def hop(self, node: str, leg: str, number: int) -> dict[str, Any]:
        hop: dict[str, Any] = self.walks[node][leg]["hops"][number]
        return hop

    def join(self) -> _trace.Trace:
        explained = _trace.join(self.flow, self.walks, self.silent)
        return _trace_seen.witness(explained, self.frames, self.verdicts, self.pings)

    def fault(self) -> tuple[str, str, int]:
        """The first fatal problem: its fault, and where."""
        trace = self.join()
        assert trace.works is False
        problem = next(problem for problem in trace.problems if problem.fatal)
        assert problem.reason in trace.verdict
        assert problem.remedy in render(trace)
        return problem.fault, problem.node, problem.number


@pytest.fixture
def path() -> Path:
    return Path()


def test_ten_hops_with_the_lengths_and_ttls_of_the_seed(path: Path) -> None:
    trace = path.join()
    request, reply = trace.legs
    told = [(stop.node, stop.where, stop.hop["length"], stop.ttl) for stop in request.stops]
    assert told == [
        ("k8s-1", "cni-8v2vj/eth0", 98, 64),
        ("k8s-1", "veth5b471bd4", 98, 64),
        ("k8s-1", "cni0", 98, 64),
        ("k8s-1", "flannel.ipip", 84, 63),
        ("k8s-1", "ens33", 118, 63),
        ("k8s-2", "ens33", 118, 63),
        ("k8s-2", "flannel.ipip", 84, 63),
        ("k8s-2", "cni0", 98, 62),
        ("k8s-2", "veth22c373b4", 98, 62),
        ("k8s-2", "cni-w8b7p/eth0", 98, 62),
    ]
    assert [stop.number for stop in reply.stops] == list(range(1, 11))
    assert trace.works
    assert (request.path_mtu, request.ttl) == (1480, 62)
    assert trace.verdict == (
        f"{seed.SOURCE} reaches {seed.TARGET} and back: path MTU 1480, TTL 62 at the end, nothing was sent"
    )


def test_the_receiver_is_told_the_sender_s_mac(path: Path) -> None:
    assert path.join().legs[0].stops[5].hop["source_mac"] == seed.WIRE
    path.walks["k8s-1"]["request"]["left"]["next_hop"] = "172.12.1.2"  # a router, whose MAC nobody told
    assert not path.join().legs[0].stops[5].hop["source_mac"]


def test_the_smallest_of_both_ways_is_told_apart(path: Path) -> None:
    path.hop("k8s-2", "reply", 4)["mtu"] = 1400
    trace = path.join()
    assert [leg.path_mtu for leg in trace.legs] == [1480, 1380]
    assert "path MTU 1480 there, 1380 back, TTL 62" in trace.verdict


# ------------------------------------------------------------------------------------------------ explained


def test_the_path_ends_at_the_first_fatal_problem(path: Path) -> None:
    broken = path.walks["k8s-1"]["request"]
    problem = {"fault": "tunnel_down", "reason": "flannel.ipip is down", "remedy": "run overlay.yml"}
    broken.update(end="broken", hops=broken["hops"][:3])
    broken["hops"][2]["problems"] = [{**problem, "fatal": True}]
    assert path.fault() == ("tunnel_down", "k8s-1", 3)
    trace = path.join()
    assert [leg.name for leg in trace.legs] == ["request"]
    assert len(trace.legs[0].stops) == 3
    assert trace.verdict == (
        f"{seed.SOURCE} does not reach {seed.TARGET}: tunnel down at k8s-1, cni0 (request, hop 3): flannel.ipip is down"
    )


def test_a_warning_does_not_end_the_path(path: Path) -> None:
    warning = {"fault": "mtu", "reason": "only 1400 fit", "remedy": "set overlay_mtu", "fatal": False}
    path.hop("k8s-2", "reply", 0)["problems"] = [warning]
    trace = path.join()
    assert trace.works
    assert [problem.leg for problem in trace.problems] == ["reply"]


def test_a_walk_that_ends_without_a_word_is_broken(path: Path) -> None:
    path.walks["k8s-2"]["request"]["end"] = "broken"
    assert path.fault() == ("broken", "k8s-2", 10)


def test_a_packet_that_came_nowhere_is_told_of_its_host(path: Path) -> None:
    path.walks["k8s-1"]["request"] = {"end": "broken", "hops": [], "left": None}
    assert path.fault() == ("broken", "k8s-1", 0)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"dst": "172.12.1.13"}, "wrong_gateway"),
        ({"src": "172.12.1.99"}, "wrong_local"),
        ({"inner": None}, "wrong_gateway"),
    ],
)
def test_what_leaves_is_not_what_the_other_awaits(path: Path, changes: dict[str, Any], fault: str) -> None:
    left = path.walks["k8s-1"]["request"]["left"]
    left["packet"] = {**left["packet"], **changes}
    assert path.fault() == (fault, "k8s-1", 5)


def test_a_vxlan_of_another_number_is_not_taken() -> None:
    path = Path(backend="vxlan", tunnel="flannel.1")
    for node in path.walks:
        packet = path.walks[node]["request" if node == "k8s-1" else "reply"]["left"]["packet"]
        packet.update(protocol="udp", dport=8472, vni=1)
    assert path.join().works
    path.walks["k8s-1"]["request"]["left"]["packet"]["dport"] = 4789
    assert path.fault() == ("wrong_port", "k8s-1", 5)
    path.walks["k8s-1"]["request"]["left"]["packet"]["dport"] = 8472
    path.walks["k8s-1"]["request"]["left"]["packet"]["vni"] = 2
    assert path.fault() == ("wrong_vni", "k8s-1", 5)


def test_a_direct_route_is_followed_without_the_tunnel() -> None:
    path = Path(direct_routing=True)
    assert path.join().works  # still by the tunnel: the hosts are in different networks
    left = path.walks["k8s-1"]["request"]["left"]
    left["packet"] = left["packet"]["inner"]
    path.walks["k8s-2"]["request-direct"] = path.walks["k8s-2"].pop("request")
    assert path.join().works
    left["next_hop"] = "172.12.1.2"
    assert path.fault() == ("wrong_gateway", "k8s-1", 5)


@pytest.mark.parametrize("known", ["172.12.1.12", None])
def test_a_neighbour_entry_with_another_mac_is_stale(path: Path, known: str | None) -> None:
    left = path.walks["k8s-1"]["request"]["left"]
    left["destination_mac"] = "00:0c:29:00:00:99"
    if known is None:
        del left["next_hop"]  # then the route says it
    assert path.fault() == ("stale_neighbour", "k8s-1", 5)


def test_any_interface_of_the_receiver_may_have_answered_arp(path: Path) -> None:
    other = "00:0C:29:00:00:02"
    path.walks["k8s-1"]["request"]["left"]["destination_mac"] = other
    path.hop("k8s-2", "request", 0)["macs"] = [seed.FAR_WIRE, other.lower()]
    trace = path.join()
    assert trace.works
    hop = trace.legs[0].stops[5].hop
    assert hop["destination_mac"] == other
    assert "another interface of this host" in hop["notes"][0]
    assert not path.hop("k8s-2", "request", 0)["notes"]


def test_the_remedy_is_for_the_sender_s_interface() -> None:
    path = Path(backend="vxlan", tunnel="flannel.1")
    for node in path.walks:
        left = path.walks[node]["request" if node == "k8s-1" else "reply"]["left"]
        left["packet"].update(protocol="udp", dport=8472, vni=1, inner_destination_mac=seed.FAR_POD)
    path.hop("k8s-1", "request", 3).update(kind="vxlan", interface="flannel.1", next_hop="10.244.1.0")
    path.hop("k8s-2", "request", 1).update(kind="vxlan", interface="theirs", destination_mac=seed.POD)
    assert path.fault() == ("stale_neighbour", "k8s-1", 5)
    assert "ip neigh flush to 10.244.1.0 dev flannel.1 nud all" in path.join().problems[0].remedy


def test_the_mac_of_a_router_is_its_own_matter(path: Path) -> None:
    path.walks["k8s-1"]["request"]["left"].update(destination_mac="00:0c:29:00:00:99", next_hop="172.12.1.2")
    assert path.join().works


def test_a_packet_that_is_delivered_too_early_has_a_double(path: Path) -> None:
    path.walks["k8s-1"]["request"].update(end="delivered", left=None)
    assert path.fault() == ("duplicate_address", "k8s-1", 5)


def test_a_packet_that_leaves_its_own_host_has_no_route(path: Path) -> None:
    path.walks["k8s-2"]["request"].update(end="left", left=path.walks["k8s-1"]["request"]["left"])
    assert path.fault() == ("no_route", "k8s-2", 10)


def test_a_packet_that_leaves_by_another_port_is_not_delivered(path: Path) -> None:
    left = {"interface": "veth-other", "next_hop": "10.244.1.7", "packet": seed.packet("", "10.244.1.7", 62)}
    path.walks["k8s-2"]["request"].update(end="left", left=left)
    assert path.fault() == ("not_delivered", "k8s-2", 10)
    assert "10.244.1.7 leaves by veth-other and not into pod cni-w8b7p" in path.join().verdict


def test_a_packet_that_is_delivered_in_another_namespace_is_not(path: Path) -> None:
    path.hop("k8s-1", "reply", 4)["namespace"] = "other"
    assert path.fault() == ("not_delivered", "k8s-1", 10)
    assert "10.244.0.3 is delivered in namespace other and not into pod cni-8v2vj" in path.join().verdict


def test_a_silent_host_is_named_with_its_reason(path: Path) -> None:
    del path.walks["k8s-2"]
    path.silent["k8s-2"] = "unreachable: timed out"
    trace = path.join()
    assert not trace.works
    assert trace.legs[0].end == "unknown"
    assert trace.verdict == f"{seed.SOURCE} to {seed.TARGET} cannot be told: k8s-2: unreachable: timed out"
    assert "request on k8s-2\n----------------\n     unreachable: timed out" in render(trace)


def test_an_address_of_nobody_has_no_way_back() -> None:
    path = Path("10.244.1.200")
    path.walks = {
        "k8s-1": {"request": seed.departure("k8s-1", "k8s-2")},
        "k8s-2": {"request": seed.arrival("k8s-1", "k8s-2")},
    }
    path.walks["k8s-1"]["request"]["left"]["packet"]["inner"]["dst"] = "10.244.1.200"
    trace = path.join()
    assert trace.works is None
    assert trace.verdict.startswith(f"{seed.SOURCE} may reach 10.244.1.200: path MTU 1480")
    assert trace.verdict.endswith("; it gets to cni-w8b7p/eth0 of k8s-2, and the way back is not known")
    last = path.walks["k8s-2"]["request"]
    last.update(
        end="left", left={"interface": "cni0", "packet": seed.packet("", "10.244.1.200", 62)}, hops=last["hops"][:3]
    )
    trace = path.join()
    assert trace.works is None
    assert trace.legs[0].end == "left"
    assert trace.verdict.endswith("; it gets to cni0 of k8s-2, and who has 10.244.1.200 there is not known")
    assert "10.244.0.3 to 10.244.1.200, 84 bytes" in render(trace)
    path.pings = [{**seed.pings()[0], "address": "10.244.1.200"}]
    trace = path.join()
    assert trace.works
    assert trace.verdict.startswith(f"{seed.SOURCE} reaches 10.244.1.200 and back: path MTU 1480")


def test_one_host_needs_no_more_than_its_walks() -> None:
    walk = {**seed.arrival("k8s-1", "k8s-2"), "end": "delivered"}
    hand_made = {"from": "ns1", "to": "ns2", "source": "10.1.1.2", "destination": "10.1.1.3", "size": 84, "df": True}
    hand_made.update(nodes=["here"], order={"request": ["here"], "reply": ["here"]}, packets={})
    trace = _trace.join(hand_made, {"here": {"request": walk, "reply": walk}}, {})
    assert trace.works
    assert len(trace.legs) == 2


# ------------------------------------------------------------------------------------------------ seen


def test_every_hop_finds_its_frame(path: Path) -> None:
    trace = path.captured().join()
    assert trace.works
    assert all(stop.seen and stop.seen.length == stop.hop["length"] for leg in trace.legs for stop in leg.stops)
    seen = [stop.seen for stop in trace.legs[0].stops]
    assert [round(item.since_ms, 2) for item in seen if item] == [0.0, 0.01, 0.02, 0.04, 0.05] * 2
    assert trace.verdict.endswith("3 of 3 probes answered, 0.36 ms")


def test_frames_of_another_ping_are_not_ours(path: Path) -> None:
    path.captured()
    for own in path.frames.values():
        for frame in own:
            frame["icmp"]["id"] = 1
    assert not any(stop.seen for leg in path.join().legs for stop in leg.stops)
    path.pings = seed.pings(identifier=None)  # of a ping that does not say its own
    assert all(stop.seen for leg in path.join().legs for stop in leg.stops)


def test_of_three_probes_the_lost_one_is_shown(path: Path) -> None:
    path.captured()
    path.lost_after("request", 5)
    whole = [seed.frames(seq) for seq in (2, 3)]
    for node, own in path.frames.items():
        own += [frame for frames in whole for frame in frames[node]]
    path.pings = seed.pings(2)
    assert path.fault() == ("lost_between_hosts", "k8s-1", 5)
    assert path.join().verdict.startswith(f"{seed.SOURCE} does not always reach {seed.TARGET}: lost between hosts")
    assert path.join().verdict.endswith("; 2 of 3 probes were answered")


def test_protocol_4_filtered_between_the_hosts(path: Path) -> None:
    path.captured()
    path.lost_after("request", 5)
    assert path.fault() == ("lost_between_hosts", "k8s-1", 5)
    problem = path.join().problems[0]
    assert "left k8s-1 by ens33 and never came in at ens33 of k8s-2" in problem.reason
    assert "a ping between the public addresses is answered; IP protocol 4 is filtered" in problem.reason
    assert "Azure" in problem.remedy
    assert "MTU" not in problem.remedy
    path.flow["size"] = 1480
    assert "MTU is too small" in path.join().problems[0].remedy


def test_the_reply_may_be_lost_as_well(path: Path) -> None:
    path.captured()
    path.lost_after("reply", 5)
    assert path.fault() == ("lost_between_hosts", "k8s-2", 5)
    assert path.join().problems[0].leg == "reply"


def test_an_underlay_that_loses_all_is_the_cause(path: Path) -> None:
    path.captured()
    path.lost_after("request", 5)
    path.pings = seed.pings(0, underlay=0)
    assert path.fault() == ("underlay_down", "k8s-1", 5)


def test_a_rule_that_nft_has_traced_is_named(path: Path) -> None:
    path.captured()
    path.lost_after("request", 7)
    verdict = {"hook": "forward", "family": "inet", "table": "filter", "chain": "forward", "namespace": ""}
    verdict.update(text="ip daddr 10.244.1.0/24 drop", verdict="drop", icmp={"id": seed.IDENTIFIER})
    path.verdicts["k8s-2"] = [
        {**verdict, "verdict": "accept"},
        {**verdict, "icmp": {"id": 9}, "text": "other"},
        verdict,
    ]
    assert path.fault() == ("filtered", "k8s-2", 7)
    reason = path.join().problems[0].reason
    assert reason == "dropped at forward, table inet filter chain forward: ip daddr 10.244.1.0/24 drop"


def test_without_a_rule_the_counters_are_next(path: Path) -> None:
    path.captured()
    path.lost_after("request", 7)
    assert path.fault() == ("lost_in_host", "k8s-2", 7)
    assert "seen at flannel.ipip and not at cni0" in path.join().verdict
    path.hop("k8s-2", "request", 1)["rules"] = [{**RULE, "verdict": "may drop"}]
    reason = "nft traced no rule that drops it; table ip filter chain FORWARD may drop it at forward: -m recent -j DROP"
    assert reason in path.join().verdict


def test_a_pod_that_does_not_answer(path: Path) -> None:
    path.captured()
    path.lost_after("request", 10)
    assert path.fault() == ("no_answer", "k8s-2", 1)
    assert path.join().problems[0].leg == "reply"


def test_a_probe_that_was_not_sent(path: Path) -> None:
    path.captured()
    path.lost_after("request", 0)
    path.pings[0]["error"] = "network is unreachable"
    assert path.fault() == ("not_sent", "k8s-1", 1)
    assert "network is unreachable" in path.join().verdict


@pytest.mark.parametrize(
    ("kind", "code", "fault", "says"),
    [
        (3, 4, "mtu", "packet of 84 bytes exceeds path MTU 1400, says 172.12.1.2"),
        (3, 13, "filtered", "administratively prohibited, says 172.12.1.2"),
        (3, 2, "tunnel_missing", "protocol unreachable, says 172.12.1.2"),
        (3, 5, "refused", "ICMP type 3 code 5, says 172.12.1.2"),
        (11, 0, "loop", "time to live exceeded: a routing loop, says 172.12.1.2"),
    ],
)
def test_an_error_of_icmp_is_told_with_who_sent_it(path: Path, kind: int, code: int, fault: str, says: str) -> None:
    path.captured()
    path.lost_after("request", 5)
    about = {"src": "172.12.1.11", "dst": "172.12.1.12", "protocol": "ipip", "dport": None, "icmp": None}
    error = {"type": kind, "code": code, "mtu": 1400 if code == 4 else None, "about": about}
    frame = {**path.frames["k8s-1"][4], "icmp": error, "ip": [{"src": "172.12.1.2", "dst": "172.12.1.11", "ttl": 64}]}
    path.frames["k8s-1"] += [frame, frame]
    assert path.fault() == (fault, "k8s-1", 5)
    trace = path.join()
    assert trace.errors == (says,)
    assert f"heard: {says}" in render(trace)


@pytest.mark.parametrize(
    ("about", "heard"),
    [
        ({"src": "10.244.0.3", "dst": "10.244.1.7", "protocol": "icmp", "icmp": {"id": seed.IDENTIFIER}}, True),
        ({"src": "10.244.0.3", "dst": "10.244.1.7", "protocol": "icmp", "icmp": {"id": 9}}, False),
        ({"src": "172.12.1.12", "dst": "172.12.1.11", "protocol": "ipip", "icmp": None}, True),
        ({"src": "172.12.1.11", "dst": "172.12.1.99", "protocol": "ipip", "icmp": None}, False),
        ({"src": "172.12.1.11", "dst": "172.12.1.12", "protocol": "udp", "dport": 53, "icmp": None}, False),
        (None, False),
    ],
)
def test_an_error_about_anything_else_is_not_ours(path: Path, about: dict[str, Any] | None, heard: bool) -> None:
    path.captured()
    path.lost_after("reply", 5)
    error = {"type": 3, "code": 3, "about": about}
    path.frames["k8s-1"].append({**path.frames["k8s-1"][4], "icmp": error, "ip": [{"src": "172.12.1.12"}]})
    assert bool(path.join().errors) is heard
    assert path.fault()[0] == ("tunnel_missing" if heard else "lost_between_hosts")


def test_an_answered_probe_is_right_whatever_is_explained(path: Path) -> None:
    path.captured()
    path.walks["k8s-1"]["request"]["left"]["destination_mac"] = "00:0c:29:00:00:99"
    trace = path.join()
    assert trace.works
    assert trace.verdict.startswith(
        f"{seed.SOURCE} reaches {seed.TARGET} and back: 3 of 3 probes answered, 0.36 ms; "
        "but: stale neighbour at k8s-1, ens33 (request, hop 5): k8s-1 sends to"
    )
    path.flow["packets"]["k8s-1"][0]["mark"] = 1  # and the probe went without it
    assert path.fault() == ("stale_neighbour", "k8s-1", 5)


def test_an_address_that_two_have_works_by_chance(path: Path) -> None:
    path.captured()
    path.walks["k8s-1"]["request"].update(end="delivered", left=None)
    assert path.fault() == ("duplicate_address", "k8s-1", 5)
    assert path.join().verdict.startswith(f"{seed.SOURCE} does not always reach {seed.TARGET}: duplicate address")
    assert path.join().verdict.endswith("; 3 of 3 probes were answered")


# ------------------------------------------------------------------------------------------------ doubted


RULE = {
    "hook": "forward",
    "where": "table ip filter chain FORWARD",
    "rule": "-m recent -j DROP",
    "why_unsure": "recent",
}


def test_rules_that_may_drop_it_are_in_the_verdict(path: Path) -> None:
    for node, leg, number in (("k8s-1", "request", 2), ("k8s-2", "request", 1), ("k8s-2", "reply", 1)):
        path.hop(node, leg, number)["rules"] = [{**RULE, "verdict": "may drop"}, {**RULE, "verdict": "accept"}]
    path.hop("k8s-2", "reply", 2)["rules"] = [{**RULE, "verdict": "may masquerade"}]
    trace = path.join()
    assert trace.works is None
    assert [problem.fault for problem in trace.problems] == ["may_be_filtered"] * 3 + ["may_be_translated"]
    assert not any(problem.fatal for problem in trace.problems)
    assert (
        trace.problems[0].reason == "table ip filter chain FORWARD may drop it at forward: -m recent -j DROP (recent)"
    )
    assert trace.verdict.startswith(f"{seed.SOURCE} may reach {seed.TARGET} and back: path MTU 1480")
    assert trace.verdict.endswith(
        ", nothing was sent; 2 rules may drop it: hops 3, 7; 1 rule may drop the reply: hop 2; "
        "1 rule may translate the reply: hop 3"
    )
    assert path.captured().join().works
    assert "3 of 3 probes answered, 0.36 ms; 2 rules may drop it" in path.join().verdict


@pytest.mark.parametrize("told", [False, True])
def test_what_is_translated_is_not_followed(path: Path, told: bool) -> None:
    walk = path.walks["k8s-1"]["request"]
    walk.update(end="translated", left=None, hops=walk["hops"][:3])
    if told:
        problem = {"fault": "translated", "reason": "postrouting masquerades it", "remedy": "r", "fatal": False}
        path.hop("k8s-1", "request", 2)["problems"] = [problem]
    trace = path.join()
    assert trace.works is None
    assert [(leg.name, leg.end) for leg in trace.legs] == [("request", "translated")]
    assert [problem.fault for problem in trace.problems] == ["translated"]
    reason = "postrouting masquerades it" if told else "a rule translates its addresses"
    assert f"; translated at k8s-1, cni0 (request, hop 3): {reason}" in trace.verdict
    assert path.captured().join().works


def masqueraded(target: str) -> Path:
    """The seed's path to k8s-2 itself or the world, with a source that k8s-1 has changed as it sent it."""
    path = Path(target)
    out = seed.departure("k8s-1", "k8s-2")
    near, far = seed.SECTION5["k8s-1"][5], seed.SECTION5["k8s-2"][5]
    sent, masked = seed.packet("10.244.0.3", target, 64), seed.packet(near, target, 63)
    hops = [*({**hop, "packet": sent} for hop in out["hops"][:3]), {**out["hops"][4], "packet": masked}]
    hops[2]["notes"] = [f"masquerade: its source 10.244.0.3 becomes {near}"]
    request = {"end": "left", "hops": hops, "left": {**out["left"], "packet": masked}, "delivered": None}
    back = seed.arrival("k8s-2", "k8s-1")
    answer = {**back, "hops": back["hops"][:1] + back["hops"][2:], "left": None}
    answer["hops"][0]["packet"] = seed.packet(target, near, 64)
    path.walks = {"k8s-1": {"request": request}}
    if target != far:
        path.walks["k8s-1"]["reply"] = answer
        return path
    path.walks["k8s-1"]["reply-translated"] = answer
    taken = seed.hop("ens33", "delivers", masked, ("", seed.FAR_WIRE))
    left = {**seed.departure("k8s-2", "k8s-1")["left"], "packet": seed.packet(far, near, 64)}
    replies = {"end": "left", "left": left, "hops": [seed.hop("ens33", "sends", left["packet"], ("", ""))]}
    path.walks["k8s-2"] = {
        "request-translated": {"end": "delivered", "left": None, "hops": [taken]},
        "reply-translated": replies,
    }
    return path


def test_a_masqueraded_packet_and_its_answer_are_joined() -> None:
    path = masqueraded("172.12.1.12")
    trace = path.join()
    assert trace.works, trace.verdict
    assert [leg.end for leg in trace.legs] == ["delivered", "delivered"]
    assert [stop.node for stop in trace.legs[0].stops] == ["k8s-1"] * 4 + ["k8s-2"]
    assert [stop.node for stop in trace.legs[1].stops] == ["k8s-2"] + ["k8s-1"] * 4


def test_a_source_that_the_next_host_was_not_asked_about_leaves_it_in_doubt() -> None:
    path = masqueraded("172.12.1.12")
    path.walks["k8s-1"]["request"]["left"]["packet"]["src"] = "172.12.1.99"
    trace = path.join()
    assert trace.works is None
    assert [leg.end for leg in trace.legs] == ["translated"]
    assert "it goes on as 172.12.1.99 to 172.12.1.12, and how k8s-2 takes that was not asked" in trace.verdict


def test_what_is_outside_of_the_overlay_is_in_doubt_and_its_answer_is_told() -> None:
    trace = masqueraded("192.0.2.1").join()
    assert trace.works is None
    assert [leg.end for leg in trace.legs] == ["left", "delivered"]
    assert trace.verdict.endswith("; it leaves k8s-1 by ens33 as 172.12.1.11, and what comes then is not known")
    assert "note        masquerade: its source 10.244.0.3 becomes 172.12.1.11" in render(trace)


def test_what_a_rule_maps_to_a_pod_is_delivered_there() -> None:
    path = masqueraded("172.12.1.12")
    walk = path.walks["k8s-2"]["request-translated"]
    walk["hops"].append(seed.hop("cni-w8b7p/eth0", "delivers", seed.packet("172.12.1.11", "10.244.1.7", 62), ("", "")))
    assert path.fault()[0] == "not_delivered"
    mapped = seed.packet("172.12.1.11", "10.244.1.7", 62)
    walk["delivered"] = {"namespace": "cni-w8b7p", "packet": mapped}
    assert path.join().works


def test_what_a_rule_keeps_on_the_first_host_does_not_come_to_the_second() -> None:
    path = masqueraded("172.12.1.12")
    mapped = {"namespace": "dns", "packet": seed.packet("10.244.0.3", "10.244.0.9", 63)}
    path.walks["k8s-1"]["request"].update(end="delivered", left=None, delivered=mapped)
    trace = path.join()
    assert trace.works is None
    assert "a rule of k8s-1 has it delivered there, and it does not come to k8s-2" in trace.verdict


def test_a_probe_under_another_identifier_is_seen_where_its_addresses_were_changed() -> None:
    path = masqueraded("172.12.1.12")
    path.pings = [{**seed.pings()[0], "address": "172.12.1.12"}]
    base = {"direction": "out", "time": 1.0, "length": 98, "text": ""}
    for leg, node, key in (
        ("request", "k8s-1", "request"),
        ("request", "k8s-2", "request-translated"),
        ("reply", "k8s-2", "reply-translated"),
        ("reply", "k8s-1", "reply-translated"),
    ):
        for hop in path.walks[node][key]["hops"]:
            changed = "172.12.1.11" in (hop["packet"]["src"], hop["packet"]["dst"])
            icmp = {"type": 8 if leg == "request" else 0, "code": 0, "id": 7 if changed else seed.IDENTIFIER, "seq": 1}
            place = {"namespace": hop["namespace"], "interface": hop["interface"]}
            path.frames.setdefault(node, []).append({**base, **place, "ip": [hop["packet"]], "icmp": icmp})
    trace = path.join()
    assert all(stop.seen for leg in trace.legs for stop in leg.stops)
    for own in path.frames.values():
        own[:] = [{**frame, "icmp": {**frame["icmp"], "id": 9}} for frame in own]
        own.insert(0, {**own[0], "ip": [], "icmp": None})  # ARP
    seen = [stop.hop["interface"] for leg in path.join().legs for stop in leg.stops if stop.seen]
    assert seen == ["ens33"] * 4


def test_what_was_not_judged_is_in_doubt(path: Path) -> None:
    problem = {"fault": "not_judged_rules", "reason": "no nft\non this host\n", "remedy": "install it", "fatal": False}
    for number in (1, 2):
        path.hop("k8s-2", "request", number)["problems"] = [problem]
    trace = path.join()
    assert trace.works is None
    assert trace.verdict.endswith("; not judged rules at k8s-2, flannel.ipip (request, hop 7): no nft on this host")
    assert path.captured().join().works


# ------------------------------------------------------------------------------------------------ seen, in part


def test_what_a_host_without_capture_saw_is_not_held_against_it(path: Path) -> None:
    path.captured()
    del path.frames["k8s-2"]
    path.silent["k8s-2"] = "capture failed: needs root"
    trace = path.join()
    assert not trace.problems
    assert not trace.works
    assert trace.verdict.endswith("k8s-2: capture failed: needs root; 3 of 3 probes were answered")


# ------------------------------------------------------------------------------------------------ told


def test_the_text_reads_like_the_seed(path: Path) -> None:
    lines = render(path.captured().join()).splitlines()
    assert lines[:11] == [
        "cni-8v2vj@k8s-1 10.244.0.3 to cni-w8b7p@k8s-2 10.244.1.7, 84 bytes, DF",
        "",
        "request on k8s-1",
        "----------------",
        "  1  cni-8v2vj/eth0  98 bytes   TTL 64  MTU 1480, 1396 left  sends",
        (
            "     26:32:89:a6:66:6e > 02:45:21:42:c4:9d, ethertype IPv4 (0x0800), length 98: "
            "(ttl 64, flags [DF], proto ICMP (1), length 84)"
        ),
        "         10.244.0.3 > 10.244.1.7: ICMP echo request",
        "     route       10.244.0.0/16 via 10.244.0.1 dev eth0: the longest that matches; default would too",
        "     neighbour   10.244.0.1 is at 02:45:21:42:c4:9d (REACHABLE)",
        "     peer        index 9: veth5b471bd4 of the host",
        f"     seen        {lines[10].split()[1]} +0.000 ms, 98 bytes, TTL 64",
    ]
    assert "     outer       172.12.1.11 > 172.12.1.12, proto IPIP (4), 20 bytes more" in lines
    wire = lines.index("  5  ens33           118 bytes  TTL 63  MTU 1500, 1396 left  sends")
    assert lines[wire + 1 : wire + 4] == [
        (
            "     00:0c:29:bd:fb:4a > 00:0c:29:e2:bf:86, ethertype IPv4 (0x0800), length 118: "
            "(ttl 63, flags [DF], proto IPIP (4), length 104)"
        ),
        "         172.12.1.11 > 172.12.1.12: (ttl 63, flags [DF], proto ICMP (1), length 84)",
        "         10.244.0.3 > 10.244.1.7: ICMP echo request",
    ]
    assert lines.count("     the same frame") == 4
    reply = lines[lines.index("reply on k8s-2") :]
    assert not any("ethertype" in line for line in reply)
    assert any("10.244.0.0/24 via 172.12.1.11 dev flannel.ipip onlink" in line for line in reply)


def test_a_problem_has_three_lines_where_it_is(path: Path) -> None:
    path.captured()
    path.lost_after("request", 7)
    lines = render(path.join()).splitlines()
    at = lines.index("     *** lost in host")
    assert lines[at - 1].startswith("     seen ")
    assert lines[at + 1].startswith("     why         seen at flannel.ipip and not at cni0")
    assert lines[at + 2].startswith("     remedy      on k8s-2: nstat")
    assert lines[at + 4] == "     seen        not here"


def test_what_was_seen_otherwise_than_explained_is_marked(path: Path) -> None:
    path.captured()
    path.frames["k8s-2"][0]["length"] = 134
    assert "134 bytes, TTL 63: explained otherwise: length 134, not 118" in render(path.join())


def test_a_vxlan_frame_shows_both_ethernets(path: Path) -> None:
    hop = path.hop("k8s-1", "request", 4)
    hop["packet"].update(protocol="udp", length=134, df=False, ttl=64, dport=8472, vni=1, inner_source_mac=seed.POD)
    hop["packet"]["inner_destination_mac"], hop["length"] = seed.FAR_POD, 148
    text = render(path.join())
    assert "172.12.1.11 > 172.12.1.12.8472: VXLAN, vni 1\n" in text
    assert f"         {seed.POD} > {seed.FAR_POD}, ethertype IPv4 (0x0800), length 98: (ttl 63" in text
    assert "proto UDP (17), 50 bytes more" in text


def test_rules_and_notes_are_told_where_they_are(path: Path) -> None:
    hop = path.hop("k8s-2", "reply", 2)
    hop["rules"] = [{**RULE, "verdict": "may drop"}, {**RULE, "verdict": "masquerade", "why_unsure": ""}]
    hop["notes"] = ["ARP will ask for it"]
    lines = render(path.join()).splitlines()
    at = lines.index("     rule        forward masquerade: table ip filter chain FORWARD: -m recent -j DROP")
    assert lines[at + 1 : at + 5] == [
        "     note        ARP will ask for it",
        "     * may be filtered",
        "     why         table ip filter chain FORWARD may drop it at forward: -m recent -j DROP (recent)",
        "     remedy      -e capture=true shows whether it passes",
    ]


def test_a_comment_of_a_rule_moves_no_cursor(path: Path) -> None:
    path.hop("k8s-2", "reply", 2)["rules"] = [{**RULE, "verdict": "masquerade", "rule": "drop # é\n\x1b[2J\udcff"}]
    assert r": drop # é\n\x1b[2J\udcff" in render(path.join())


def test_the_data_goes_into_json(path: Path) -> None:
    data = json.loads(json.dumps(path.captured().join().data()))
    assert data["works"]
    assert data["legs"]["request"]["hops"][4]["seen"]["length"] == 118
    assert data["legs"]["reply"]["path_mtu"] == 1480
    assert data["probe"]["received"] == data["underlay"]["received"] == 3


def test_every_fault_is_documented() -> None:
    checkout = pathlib.Path(__file__).parents[4]
    names = ("_walk", "_faults", "_trace", "_trace_seen")
    sources = "".join((checkout / f"plugins/module_utils/{name}.py").read_text() for name in names)
    said = re.findall(r'\b(?:Problem|fault|_broken|_doubt)\(\s*"(\w+)"|"((?:wrong|may)_\w+)"', sources)
    words = {word for pair in said for word in pair if word} | {*_trace_seen.ERRORS.values(), _trace_seen.OTHER_ERROR}
    table = (checkout / "docs/operations/trace-a-path.md").read_text().partition("## All faults")[2]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    assert sorted(word for row in rows for word in re.findall(r"\w+", row)) == sorted(words)
