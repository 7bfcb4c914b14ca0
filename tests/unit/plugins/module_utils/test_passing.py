# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan makes of what may pass: each node's firewall and files, the groups of all, and who may have which address."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _files, _inventory, _leases, _plan, _shares
from ansible_collections.podnet.overlay.plugins.module_utils._facts import Facts
from ansible_collections.podnet.overlay.plugins.module_utils._leases import Lease, Leases
from ansible_collections.podnet.overlay.plugins.module_utils._model import Firewall, of_type
from ansible_collections.podnet.overlay.plugins.module_utils._state import desired_state
from hypothesis import given
from hypothesis import strategies as st

from . import fleet
from .test_plan import changed, mistakes, planned, subnets

NETWORK = ipaddress.IPv4Network("10.244.0.0/16")
PODS = [
    {"name": "web", "ports": ["8080:80", "127.0.0.1:53:5353/udp"], "group": "web"},
    {"name": "db", "group": "database"},
]
POLICY = {"allow": [{"to": "database", "from": "web", "protocol": "tcp", "ports": [5432]}]}


def document(**own: Any) -> dict[str, Any]:
    group = {name: own.pop(name) for name in list(own) if name not in ("overlay_pods", "overlay_snat_address")}
    return dict(planned(changed(fleet.variables(1, **group), "node1", **own)).documents["node1"])


# ------------------------------------------------------------------------------------------------ the document


def test_a_documents_firewall_says_all_that_may_pass() -> None:
    own = {
        "overlay_pods": PODS,
        "overlay_snat_address": "172.16.0.1",
        "overlay_policy": POLICY,
        "overlay_trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.250.0.0/24"]}],
        "overlay_no_masquerade": ["192.0.2.0/24"],
        "overlay_masquerade_nodes": False,
    }
    assert document(**own)["firewall"] == {
        "backend": "ipip",
        "direct_routing": False,
        "bridge": "cni0",
        "network": "10.244.0.0/16",
        "subnet": "10.244.0.0/24",
        "local": "172.16.0.1",
        "tunnel": "flannel.ipip",
        "trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.250.0.0/24"]}],
        "masquerade": {"nodes": False, "except": ["192.0.2.0/24"], "random_fully": True, "address": "172.16.0.1"},
        "antispoof": True,
        "pods": [
            {
                "name": "web",
                "interface": "veth-web",
                "mac": "0a:58:0a:f4:00:02",
                "address": "10.244.0.2",
                "group": "web",
            },
            {
                "name": "db",
                "interface": "veth-db",
                "mac": "0a:58:0a:f4:00:03",
                "address": "10.244.0.3",
                "group": "database",
            },
        ],
        "ports": [
            {
                "pod": "web",
                "address": "10.244.0.2",
                "port": 80,
                "protocol": "tcp",
                "host_port": 8080,
                "host_address": None,
            },
            {
                "pod": "web",
                "address": "10.244.0.2",
                "port": 5353,
                "protocol": "udp",
                "host_port": 53,
                "host_address": "127.0.0.1",
            },
        ],
        "policy": [{"to": "database", "from": "web", "network": None, "protocol": "tcp", "ports": ["5432"]}],
    }


@pytest.mark.parametrize(
    ("backend", "own"),
    [
        ("ipip", {"local": "172.16.0.1", "tunnel": "flannel.ipip"}),
        ("vxlan", {"local": "172.16.0.1", "tunnel": "flannel.7", "vni": 7, "port": 4789}),
        ("host-gw", {}),
    ],
)
def test_each_backend_has_a_firewall(backend: str, own: dict[str, Any]) -> None:
    firewall = document(overlay_backend=backend, overlay_vni=7, overlay_port=4789)["firewall"]
    tunnelled = {name: value for name, value in firewall.items() if name in ("local", "tunnel", "vni", "port")}
    assert (firewall["backend"], tunnelled) == (backend, own)


def test_what_is_switched_off_is_off() -> None:
    made = document(overlay_masquerade=False, overlay_antispoof=False, overlay_hairpin=False)
    assert (made["firewall"]["masquerade"], made["firewall"]["antispoof"], made["firewall"]["policy"]) == (
        None,
        False,
        None,
    )
    assert {link["port"]["hairpin"] for link in made["links"] if "port" in link} == {False}
    assert {link["port"]["hairpin"] for link in document()["links"] if "port" in link} == {True}
    assert "FLANNEL_IPMASQ=false\n" in made["files"][0]["content"]


def test_a_bridge_routes_from_loopback_where_it_has_ports() -> None:
    assert [item["name"] for item in document()["sysctls"]] == ["net.ipv4.ip_forward"]
    assert [item["name"] for item in document(overlay_pods=PODS)["sysctls"]] == [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.cni0.route_localnet",
    ]
    dotted = document(overlay_pods=PODS, overlay_bridge="br.7")["sysctls"][1]
    assert dotted == {"name": "net.ipv4.conf.br/7.route_localnet", "value": "1"}


def test_other_programs_get_their_files() -> None:
    assert document()["files"] == [
        {
            "path": "/run/flannel/subnet.env",
            "content": (
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1480\nFLANNEL_IPMASQ=true\n"
            ),
            "mode": "0644",
        }
    ]
    asked = document(overlay_cni=True, overlay_docker=True, overlay_podman=True)["files"]
    assert [file["path"] for file in asked] == [_files.SUBNET_ENV, _files.CONFLIST, _files.DOCKER, _files.PODMAN]


@pytest.mark.parametrize("backend", ["ipip", "vxlan", "host-gw"])
def test_the_engine_takes_all_that_may_pass(backend: str) -> None:
    variables = fleet.variables(2, overlay_backend=backend, overlay_policy=POLICY, overlay_cni=True)
    variables = changed(variables, "node1", overlay_pods=PODS[:1])
    plan = planned(changed(variables, "node2", overlay_pods=PODS[1:]))
    for made in plan.documents.values():
        peers = {**made["peers"], "table": json.loads(plan.peers)}
        firewall = {**made["firewall"], "groups": json.loads(plan.groups)}
        state = desired_state({**made, "peers": peers, "firewall": firewall}, "overlay")
        (wall,) = of_type(state, Firewall)
        assert "10.244.0.2" in str(wall)  # node1's pod, whose group may come to node2's


# ------------------------------------------------------------------------------------------------ groups


def test_groups_have_the_addresses_of_all_nodes_in_order() -> None:
    variables = fleet.variables(12, overlay_policy=POLICY)
    for name in variables:
        variables = changed(variables, name, overlay_pods=PODS)
    groups = json.loads(planned(variables).groups)
    assert list(groups) == ["database", "web"]
    assert groups["web"] == [f"10.244.{number}.2" for number in range(12)]


def test_a_node_that_is_not_reached_stays_in_its_groups() -> None:
    variables = changed(fleet.variables(2, overlay_policy=POLICY), "node2", overlay_pods=PODS)
    first = planned(variables)
    again = planned(variables, first.leases, {"node1": fleet.facts(1)["node1"]})
    assert again.groups == first.groups == '{"database":["10.244.1.3"],"web":["10.244.1.2"]}'


def test_a_group_whose_node_is_kept_out_is_known_and_empty() -> None:
    variables = changed(fleet.variables(2, overlay_policy=POLICY), "node2", overlay_pods=PODS)
    first = planned(variables).leases
    removed = Lease(first.nodes["node2"].subnet, "172.16.0.2", reason="playbook")
    plan = planned(variables, Leases(first.network, {"node1": first.nodes["node1"]}, {"node2": removed}))
    assert json.loads(plan.groups) == {"database": [], "web": []}


def test_without_a_policy_there_are_no_groups() -> None:
    assert planned(changed(fleet.variables(1), "node1", overlay_pods=PODS)).groups == "{}"


# ------------------------------------------------------------------------------------------------ what hosts say


def answered(listening: Sequence[tuple[str, str, int]] = (), **own: Any) -> list[str]:
    said = [{"protocol": protocol, "address": address, "port": port} for protocol, address, port in listening]
    links = [{"name": "cni0", "owner": "overlay"}, {"name": "eth1", "owner": ""}]
    answer = fleet.answer(1, listening=said, links=links)
    answer["addresses"].append({"interface": "cni0", "address": "10.244.0.1/24", "mtu": 1480})
    return mistakes(changed(fleet.variables(1), "node1", **own), facts={"node1": Facts.of(answer)})


@pytest.mark.parametrize(
    ("mapping", "taken"),
    [
        ("8080:80", ("tcp", "0.0.0.0", 8080)),
        ("8080:80", ("tcp", "127.0.0.1", 8080)),
        ("8080:80", ("tcp", "::", 8080)),
        ("172.16.0.1:8080:80", ("tcp", "172.16.0.1", 8080)),
        ("172.16.0.1:8080:80/udp", ("udp", "0.0.0.0", 8080)),
    ],
)
def test_a_port_that_a_process_listens_on_is_not_mapped(mapping: str, taken: tuple[str, str, int]) -> None:
    (line,) = answered([taken], overlay_pods=[{"name": "web", "ports": [mapping]}])
    text = mapping if "/" in mapping else f"{mapping}/tcp"
    assert line == (
        f"node1: overlay_pods: web: {text}: a process of the host listens on {taken[1]} port 8080/{taken[0]} already; "
        "choose another host port, or stop it (ss -lnp 'sport = :8080')"
    )


def test_other_listeners_are_not_in_the_way() -> None:
    said = [("udp", "0.0.0.0", 8080), ("tcp", "0.0.0.0", 80), ("tcp", "127.0.0.1", 8080)]
    listening = [{"protocol": protocol, "address": address, "port": port} for protocol, address, port in said]
    own = changed(fleet.variables(1), "node1", overlay_pods=[{"name": "web", "ports": ["172.16.0.1:8080:80"]}])
    planned(own, facts={"node1": Facts.of(fleet.answer(1, listening=listening))})


def test_a_mapping_is_of_an_address_that_the_host_has() -> None:
    ports = ["127.0.0.53:53:53/udp", "172.16.0.1:53:53", "172.16.0.2:80:80", "10.244.0.1:81:80"]
    assert answered(overlay_pods=[{"name": "web", "ports": ports}]) == [
        f"node1: overlay_pods: web: {mapping}: {mapping.split(':', maxsplit=1)[0]} is not an address of the host; "
        "it has 172.16.0.1 (eth1), or leave it out for any"
        for mapping in ("172.16.0.2:80:80/tcp", "10.244.0.1:81:80/tcp")
    ]


def test_a_snat_address_is_one_of_the_host() -> None:
    (line,) = answered(overlay_snat_address="172.16.0.9")
    assert line == "node1: overlay_snat_address: 172.16.0.9 is not an address of the host; it has 172.16.0.1 (eth1)"


# ------------------------------------------------------------------------------------------------ shares

RANGE = {"overlay_subnet_min": "10.244.8.0", "overlay_subnet_max": "10.244.9.0"}


def test_new_subnets_are_of_the_range_and_others_stay() -> None:
    leases = Leases(NETWORK, {"node1": Lease(ipaddress.IPv4Network("10.244.3.0/24"), "172.16.0.1")})
    carries = {"network": "10.244.0.0/16", "subnet": "10.244.4.0/24", "pods": {}}
    facts = {**fleet.facts(4), "node2": Facts.of(fleet.answer(2, carries=carries))}
    plan = planned(fleet.variables(4, **RANGE), leases, facts)
    assert subnets(plan) == {
        "node1": "10.244.3.0/24",
        "node2": "10.244.4.0/24",
        "node3": "10.244.8.0/24",
        "node4": "10.244.9.0/24",
    }
    assert plan.warnings == (
        (
            "node1, node2: their subnets stay, although they are outside overlay_subnet_min to overlay_subnet_max, "
            "10.244.8.0/24 to 10.244.9.0/24"
        ),
    )


def test_a_range_that_is_full_or_left_is_said() -> None:
    said = "overlay_subnet_min to overlay_subnet_max, 10.244.8.0/24 to 10.244.9.0/24"
    assert mistakes(fleet.variables(3, **RANGE)) == [
        (
            f"node3: overlay_network: {said}, are 2 subnets for 3 nodes; "
            "set overlay_subnet_min and overlay_subnet_max wider apart, or choose a larger overlay_subnet_len (smaller subnets)"
        )
    ]
    own = changed(fleet.variables(2, **RANGE), "node2", overlay_subnet="10.244.10.0/24")
    assert list(_plan.judge(_inventory.read("overlay", own), None)) == [
        f"node2: overlay_subnet: 10.244.10.0/24 is outside {said}; choose one inside"
    ]


@given(
    st.lists(st.integers(0, 15), max_size=8, unique=True),
    st.integers(0, 15),
    st.integers(0, 15),
    st.lists(st.integers(0, 15), max_size=2),
)
def test_what_is_given_out_is_free_and_of_the_range(taken: list[int], one: int, other: int, trusted: list[int]) -> None:
    first, last = sorted((one, other))
    said = _inventory.Settings(
        NETWORK,
        20,
        subnet_min=NETWORK[first * 4096],
        subnet_max=NETWORK[last * 4096],
        trusted_sources=tuple({"address": "203.0.113.9", "subnets": [f"10.244.{item * 16}.0/24"]} for item in trusted),
    )
    held = {str(item): ipaddress.IPv4Network((int(NETWORK[item * 4096]), 20)) for item in taken}
    given_out = _shares.allocate(said, [f"n{number}" for number in range(16)], held, ())
    assert [(int(subnet[0]) >> 12) & 15 for subnet in given_out.values()] == [
        item for item in range(first, last + 1) if item not in taken and item not in trusted
    ]


def test_a_trusted_source_has_no_nodes_subnet() -> None:
    trusted = [{"address": "203.0.113.9", "subnets": ["10.244.0.0/24", "10.244.2.0/23"]}]
    variables = fleet.variables(2, overlay_trusted_sources=trusted)
    assert subnets(planned(variables)) == {"node1": "10.244.1.0/24", "node2": "10.244.4.0/24"}
    own = changed(variables, "node2", overlay_subnet="10.244.3.0/24")
    assert list(_plan.judge(_inventory.read("overlay", own), None)) == [
        (
            "node2: overlay_trusted_sources: what 203.0.113.9 may send from includes 10.244.3.0/24, which is the node's; "
            "take it out there, or give the node another overlay_subnet"
        )
    ]


@pytest.mark.parametrize("backend", ["ipip", "vxlan"])
def test_a_trusted_source_does_not_send_as_a_node_itself(backend: str) -> None:
    trusted = [{"address": "203.0.113.9", "subnets": ["10.250.0.0/24", "172.16.0.2"]}]
    variables = fleet.variables(3, overlay_trusted_sources=trusted, overlay_backend=backend)
    line = (
        "node2: overlay_trusted_sources: what 203.0.113.9 may send from, 172.16.0.2/32, includes 172.16.0.2, the node's own "
        "overlay_public_ip; take it out there"
    )
    assert list(_plan.judge(_inventory.read("overlay", variables), None)) == [line]
    del variables["node2"]["overlay_public_ip"]
    assert mistakes(variables) == [line]  # known once the host was looked at


def test_pods_have_the_first_quarter_where_others_have_theirs() -> None:
    pods = [{"name": f"pod{number}"} for number in range(62)]
    plan = planned(changed(fleet.variables(1, overlay_docker=True), "node1", overlay_pods=pods))
    assert list(plan.leases.nodes["node1"].pods.values()) == [f"10.244.0.{last}" for last in range(2, 64)]
    more = changed(fleet.variables(1, overlay_docker=True), "node1", overlay_pods=[*pods, {"name": "more"}])
    assert list(_plan.judge(_inventory.read("overlay", more), None)) == [
        (
            "node1: overlay_pods: 63 pods do not fit into their part of a subnet of overlay_subnet_len 24, "
            "which holds 62; choose fewer"
        )
    ]


def test_a_pod_outside_its_part_is_named() -> None:
    pods = [{"name": "web", "address": "10.244.0.64"}, {"name": "db"}]
    own = {"overlay_pods": pods, "overlay_subnet": "10.244.0.0/24"}
    first = planned(changed(fleet.variables(1), "node1", **{**own, "overlay_pods": [*pods[:1], {"name": "old"}]}))
    leases = _leases.parse(_leases.render(first.leases).replace("10.244.0.2", "10.244.0.200"), "leases")
    variables = changed(fleet.variables(1, overlay_cni=True, overlay_podman=True), "node1", **own)
    part = "10.244.0.2 to 10.244.0.63, overlay_pods' part of 10.244.0.0/24 with overlay_cni, overlay_podman"
    assert list(_plan.judge(_inventory.read("overlay", variables), leases)) == [
        f"node1: overlay_pods: web: 10.244.0.64 is outside {part}; choose another of 10.244.0.2 to 10.244.0.63"
    ]
    kept = changed(variables, "node1", overlay_pods=[{"name": "old"}])
    assert list(_plan.judge(_inventory.read("overlay", kept), leases)) == [
        (
            f"node1: overlay_pods: old: it has 10.244.0.200, which is outside {part}; "
            "set address to one of these, which renumbers it"
        )
    ]
    moved = changed(variables, "node1", overlay_pods=[{"name": "old", "address": "10.244.0.9"}])
    assert planned(moved, leases).leases.nodes["node1"].pods == {"old": "10.244.0.9"}


def test_a_small_subnet_of_one_node_is_not_shared() -> None:
    own = changed(fleet.variables(1, overlay_cni=True), "node1", overlay_subnet="10.244.0.0/29")
    assert list(_plan.judge(_inventory.read("overlay", own), None)) == [
        "node1: overlay_subnet: 10.244.0.0/29 is too small to be shared by pods and overlay_cni; choose a /28 or larger"
    ]


@given(st.integers(22, 28), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 5))
def test_no_pod_is_in_anothers_part(length: int, switches: list[bool], count: int) -> None:
    group = dict(zip(("overlay_cni", "overlay_docker", "overlay_podman"), switches))
    own = {"overlay_subnet": f"10.244.0.0/{length}", "overlay_pods": [{"name": f"pod{item}"} for item in range(count)]}
    variables = changed(fleet.variables(1, **group), "node1", **own)
    inventory = _inventory.read("overlay", variables)
    first, last = _files.parts(ipaddress.IPv4Network(f"10.244.0.0/{length}"))["pods"]
    room = range(int(ipaddress.IPv4Address(first)), int(ipaddress.IPv4Address(last)) + 1)
    if list(_plan.judge(inventory, None)):
        assert any(switches)
        assert count > len(room)
        return
    pods = _plan.plan(inventory, None, fleet.facts(1)).leases.nodes["node1"].pods
    assert len(set(pods.values())) == count
    if any(switches):
        assert all(int(ipaddress.IPv4Address(address)) in room for address in pods.values())
