# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ends of a path by name or address, and the packets to walk."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._flow import flow
from ansible_collections.podnet.overlay.plugins.module_utils._model import Mistakes

from .seed import NODES, SETTINGS, SOURCE, TARGET


def resolve(source: str = SOURCE, target: str = TARGET, **changes: Any) -> dict[str, Any]:
    options = {key: changes.pop(key) for key in ("size", "df", "mark", "hosts", "port") if key in changes}
    return flow(source, target, NODES, {**SETTINGS, **changes}, **options)


def packets_of(path: dict[str, Any], node: str) -> dict[str, dict[str, Any]]:
    return {packet["name"]: packet for packet in path["packets"][node]}


def mistakes(source: str, target: str, **options: Any) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        resolve(source, target, **options)
    return caught.value.lines


def test_a_packet_departs_with_64_and_arrives_in_the_tunnel_with_63() -> None:
    path = resolve()
    assert path["nodes"] == ["k8s-1", "k8s-2"]
    assert path["order"] == {"request": ["k8s-1", "k8s-2"], "reply": ["k8s-2", "k8s-1"]}
    departs, arrives = packets_of(path, "k8s-1")["request"], packets_of(path, "k8s-2")["request"]
    assert (departs["namespace"], departs["src"], departs["dst"]) == ("cni-8v2vj", "10.244.0.3", "10.244.1.7")
    assert (departs["ttl"], departs["size"], departs["df"], departs["mark"]) == (64, 84, True, 0)
    assert "arrives" not in departs
    assert (arrives["namespace"], arrives["arrives"], arrives["ttl"], arrives["size"]) == ("", True, 63, 84)
    assert arrives["outer"] == {"src": "172.12.1.11", "dst": "172.12.1.12", "protocol": "ipip", "ttl": 63}
    back = packets_of(path, "k8s-1")["reply"]
    assert (back["src"], back["dst"], back["outer"]["src"]) == ("10.244.1.7", "10.244.0.3", "172.12.1.12")
    assert path["addresses"] == ["10.244.0.3", "10.244.1.7"]
    assert path["underlay"] == ["172.12.1.11", "172.12.1.12"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, ("172.12.1.12", "flannel.ipip")),
        ({"backend": "vxlan", "tunnel": "flannel.1"}, ("10.244.1.0", "flannel.1")),
        ({"backend": "host-gw", "tunnel": None}, ("172.12.1.12", None)),
    ],
)
def test_the_walk_is_told_what_the_plan_wants(settings: dict[str, Any], wanted: tuple[str, str | None]) -> None:
    path = resolve(**settings)
    overlay = packets_of(path, "k8s-1")["request"]["overlay"]
    assert (overlay["via"], overlay["dev"]) == wanted
    assert (overlay["subnet"], overlay["local"], overlay["remote"]) == ("10.244.1.0/24", "172.12.1.11", "172.12.1.12")
    there = packets_of(path, "k8s-2")["request"]["overlay"]
    assert (there["subnet"], there["dev"], there["local"]) == ("10.244.1.0/24", "cni0", "172.12.1.12")
    assert "remote" not in there


@pytest.mark.parametrize(
    ("settings", "outers"),
    [
        ({"direct_routing": True}, {"request": "ipip", "request-direct": None}),
        ({"backend": "vxlan", "tunnel": "flannel.1"}, {"request": "vxlan"}),
        ({"backend": "host-gw", "tunnel": None, "direct_routing": True}, {"request": None}),
    ],
)
def test_how_a_packet_may_arrive(settings: dict[str, Any], outers: dict[str, str | None]) -> None:
    arrivals = {k: v for k, v in packets_of(resolve(**settings), "k8s-2").items() if "arrives" in v}
    assert {key: item.get("outer", {}).get("protocol") for key, item in arrivals.items()} == outers


def test_a_vxlan_arrival_has_a_header_of_its_own() -> None:
    outer = packets_of(resolve(backend="vxlan", tunnel="flannel.1"), "k8s-2")["request"]["outer"]
    assert (outer["port"], outer["vni"], outer["ttl"]) == (8472, 1, 64)


def test_pods_of_one_node_need_one_host() -> None:
    path = resolve("dns@k8s-2", "cni-w8b7p")
    assert path["nodes"] == ["k8s-2"]
    assert path["order"] == {"request": ["k8s-2"], "reply": ["k8s-2"]}
    assert [packet["namespace"] for packet in path["packets"]["k8s-2"]] == ["dns", "cni-w8b7p"]
    assert len(path["probes"]["k8s-2"]) == 1


@pytest.mark.parametrize("word", ["cni-w8b7p@k8s-2", "cni-w8b7p", "10.244.1.7"])
def test_a_pod_by_any_of_its_names(word: str) -> None:
    assert resolve(target=word)["to"] == TARGET


@pytest.mark.parametrize(("address", "tunnelled"), [("10.244.1.0", True), ("10.244.1.1", True), ("172.12.1.12", False)])
def test_a_node_itself_answers_from_its_own_namespace(address: str, tunnelled: bool) -> None:
    path = resolve(target=address)
    assert path["to"] == address
    reply, arrives = (packets_of(path, "k8s-2")[leg] for leg in ("reply", "request"))
    assert (reply["namespace"], reply["src"]) == ("", address)
    assert ("outer" in arrives) is tunnelled
    assert ("subnet" in arrives["overlay"]) is tunnelled
    assert arrives["overlay"]["local"] == "172.12.1.12"
    assert packets_of(path, "k8s-1")["reply"]["ttl"] == 64  # its host has not forwarded it


@pytest.mark.parametrize(("port", "protocol"), [("8080", "tcp"), ("8080/tcp", "tcp"), ("8080/udp", "udp")])
def test_a_port_is_the_destination_s_there_and_the_source_s_back(port: str, protocol: str) -> None:
    path = resolve(port=port)
    there, back = (packets_of(path, "k8s-1")[leg] for leg in ("request", "reply"))
    assert (there["protocol"], there["dport"], there.get("sport")) == (protocol, 8080, None)
    assert (back["protocol"], back["sport"], back.get("dport")) == (protocol, 8080, None)
    assert (path["protocol"], path["port"]) == (protocol, 8080)


@pytest.mark.parametrize("backend", ["ipip", "host-gw"])
def test_what_a_node_gets_of_a_pod_may_be_masqueraded_and_is_answered_as_it_came(backend: str) -> None:
    path = resolve(target="172.12.1.12", backend=backend)
    here, there = (packets_of(path, node) for node in ("k8s-1", "k8s-2"))
    assert [there[f"request{way}"]["src"] for way in ("", "-translated")] == ["10.244.0.3", "172.12.1.11"]
    assert [there[f"reply{way}"]["dst"] for way in ("", "-translated")] == ["10.244.0.3", "172.12.1.11"]
    assert [there[f"reply{way}"]["answers"] for way in ("", "-translated")] == ["request", "request-translated"]
    assert (here["reply-translated"]["dst"], here["reply-translated"]["answers"]) == ("172.12.1.11", "request")
    assert "outer" not in here["reply-translated"]
    for packets in path["packets"].values():  # what answers comes after what it answers
        names = [packet["name"] for packet in packets]
        assert all(names.index(p["answers"]) < names.index(p["name"]) for p in packets if "answers" in p)


def test_outside_of_the_overlay_only_the_source_s_node_is_asked() -> None:
    path = resolve(target="192.0.2.1")
    assert path["outside"]
    assert path["nodes"] == ["k8s-1"]
    assert path["order"] == {"request": ["k8s-1"], "reply": ["k8s-1"]}
    there, back = (packets_of(path, "k8s-1")[leg] for leg in ("request", "reply"))
    assert "subnet" not in there["overlay"]
    assert (back["answers"], back["arrives"], back["src"]) == ("request", True, "192.0.2.1")
    assert len(path["probes"]["k8s-1"]) == 1


def test_an_address_of_nobody_has_no_reply_to_walk() -> None:
    path = resolve(target="10.244.1.200")
    assert path["order"]["reply"] == []
    assert not any("reply" in packets_of(path, node) for node in path["nodes"])


def test_the_probe_tries_the_path_and_the_underlay() -> None:
    pod, host = resolve()["probes"]["k8s-1"]
    assert (pod["namespace"], pod["targets"][0]["address"]) == ("cni-8v2vj", "10.244.1.7")
    assert (host["namespace"], host["targets"][0]["address"]) == ("", "172.12.1.12")


@pytest.mark.parametrize("mark", [16, "16", "0x10"])
def test_a_mark_is_on_the_request_only(mark: str | int) -> None:
    path = resolve(mark=mark)
    assert packets_of(path, "k8s-1")["request"]["mark"] == 16
    assert packets_of(path, "k8s-2")["reply"]["mark"] == 0


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("", TARGET, "from: is missing; say -e from=POD@NODE"),
        ("dns", TARGET, "from: dns names no node; say POD@NODE, as in dns@k8s-2"),
        ("10.244.0.3", TARGET, "from: 10.244.0.3 names no node; say POD@NODE"),
        ("dns@k8s-9", TARGET, "from: there is no node k8s-9; the nodes are k8s-1, k8s-2, k8s-3"),
        ("web@k8s-3", TARGET, "from: node k8s-3 has no lease yet: run overlay.yml first"),
        ("web@k8s-2", TARGET, "from: node k8s-2 has no pod web; its pods are cni-w8b7p, dns"),
        ("@k8s-2", TARGET, "from: @k8s-2 names no pod; its pods are cni-w8b7p, dns"),
        (SOURCE, "", "to: is missing; say -e to=POD@NODE or an address"),
        (SOURCE, "10.244.9.1", "to: 10.244.9.1 is in 10.244.0.0/16, but in no node's subnet"),
        (
            SOURCE,
            "224.0.0.1",
            "to: 224.0.0.1 is the address of no one host",
        ),
        (
            SOURCE,
            "10.244.1.255",
            "to: 10.244.1.255 is the broadcast address of k8s-2's subnet 10.244.1.0/24, and nobody's",
        ),
        (SOURCE, "k8s-2", "to: k8s-2 is a node; say POD@k8s-2 or an address of it"),
        (SOURCE, "wbe", "to: wbe is neither a pod nor an IPv4 address; the pods are cni-8v2vj, cni-w8b7p, dns"),
        (SOURCE, "10.244.0.3", f"to: is {SOURCE} itself, where the path starts"),
    ],
)
def test_a_mistake_says_what_there_is_instead(source: str, target: str, says: str) -> None:
    assert mistakes(source, target, hosts=["k8s-1", "k8s-2", "k8s-3"]) == [says]


def test_without_a_tunnel_the_subnets_first_address_is_nobodys() -> None:
    assert mistakes(SOURCE, "10.244.1.0", backend="host-gw") == [
        "to: 10.244.1.0 is the network address of k8s-2's subnet 10.244.1.0/24, and nobody's"
    ]


def test_all_mistakes_at_once() -> None:
    lines = mistakes("dns", "127.0.0.1", size=27, mark="red", port="80/icmp")
    assert [line.split(":")[0] for line in lines] == ["size", "mark", "port", "from", "to"]


@pytest.mark.parametrize("port", ["http", "0", "65536", "80/sctp", "80:80", "-1", "²"])
def test_what_is_no_port_is_told(port: str) -> None:
    assert mistakes(SOURCE, TARGET, port=port) == [f"port: {port} is no port, such as 8080, 8080/tcp or 53/udp"]


def test_a_name_of_two_pods_is_refused() -> None:
    nodes = {**NODES, "k8s-1": {**NODES["k8s-1"], "pods": {"dns": "10.244.0.9", "cni-8v2vj": "10.244.0.3"}}}
    with pytest.raises(Mistakes, match="pod dns is on 2 nodes; say which: dns@k8s-1, dns@k8s-2"):
        flow(SOURCE, "dns", nodes, SETTINGS)


def test_a_fleet_that_never_ran() -> None:
    with pytest.raises(Mistakes, match="no node has a lease"):
        flow(SOURCE, TARGET, {}, SETTINGS, hosts=["k8s-1"])
