"""The firewall clause and the tables that it becomes."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._firewall import desired, tables
from ansible_collections.podnet.overlay.plugins.module_utils._firewall_clause import Clause, read
from ansible_collections.podnet.overlay.plugins.module_utils._model import Firewall, Mistakes
from ansible_collections.podnet.overlay.plugins.module_utils._nft import commands, lines, listed, udp_mappings, verbatim
from hypothesis import given

from .states import OWNER, clauses

CLAUSE: dict[str, Any] = {
    "backend": "ipip",
    "bridge": "cni0",
    "network": "10.244.0.0/16",
    "subnet": "10.244.0.0/24",
    "local": "198.51.100.11",
    "tunnel": "flannel.ipip",
    "masquerade": {},
}
WEB = {"pod": "web", "address": "10.244.0.2", "port": 80, "protocol": "tcp", "host_port": 8080}


def elements(wall: Firewall, name: str) -> list[Any]:
    return [json.loads(element) for _family, of, element in wall.elements if of == name]


def applied(before: Firewall | None, after: Firewall | None) -> Firewall | None:
    """What nft makes of the commands, in the simplest way."""
    objects = [json.loads(text) for text in before.objects] if before else []
    held = list(before.elements) if before else []
    for command in commands(before, after):
        ((verb, body),) = command.items()
        ((kind, what),) = body.items()
        if kind == "element":
            some = [(what["family"], what["name"], json.dumps(item, sort_keys=True)) for item in what["elem"]]
            gone = [(family, name, bare(element)) for family, name, element in some]
            held = [*held, *some] if verb == "add" else [item for item in held if item not in gone]
        elif (verb, kind) == ("delete", "table"):
            objects = [item for item in objects if next(iter(item.values()))["family"] != what["family"]]
            held = [item for item in held if item[0] != what["family"]]
        elif (verb, kind) != ("add", "table"):
            objects.append(body)
    found = listed([*objects])
    return dataclasses.replace(found, elements=tuple(sorted(held))) if found else None


def bare(element: str) -> str:
    """A network of one address as nft lists it."""
    return re.sub(r'{"prefix": {"addr": ("[0-9.]+"), "len": 32}}', r"\1", element)


def without_tables(wall: Firewall | None) -> Any:
    return wall and (wall.owner, [text for text in wall.objects if '"table": {' not in text], wall.elements)


@given(clauses(), clauses())
def test_the_commands_from_one_clause_to_another_lead_there(one: Clause, other: Clause) -> None:
    before, after = tables(one, OWNER), tables(other, OWNER)
    assert without_tables(applied(before, after)) == without_tables(after)
    assert without_tables(applied(None, after)) == without_tables(after)
    assert applied(after, None) is None
    assert commands(after, after) == []


@given(clauses())
def test_a_listing_of_the_tables_is_read_back_to_them_and_is_a_document_too(clause: Clause) -> None:
    wall = tables(clause, OWNER)
    listing = [{"metainfo": {"version": "1.0.6"}}, *verbatim(wall)]
    for item in listing:
        for body in item.values():
            body["handle"] = 7
            for part in body.get("expr", ()):
                if "counter" in part:
                    part["counter"] = {"packets": 4, "bytes": 99}
    assert listed(listing) == wall
    assert desired({"nft": verbatim(wall)}, OWNER, {}) == wall


@given(clauses())
def test_every_rule_says_whose_it_is_and_what_for_in_the_length_that_nft_takes(clause: Clause) -> None:
    for text in tables(clause, OWNER).objects:
        rule = json.loads(text).get("rule")
        if rule:
            assert rule["comment"].startswith(f"podnet.overlay:{OWNER} ")
            assert len(rule["comment"].encode()) <= 128


def test_a_thousand_nodes_and_pods_cost_elements_and_no_rules() -> None:
    few = desired({**CLAUSE, "policy": [], "groups": {"web": ["10.244.1.2"]}}, OWNER, {"10.244.1.0/24": "192.0.2.1"})
    fleet = {
        f"10.{244 + number // 256}.{number % 256}.0/24": f"192.0.{2 + number // 250}.{number % 250 + 1}"
        for number in range(1, 1000)
    }
    many = desired({**CLAUSE, "policy": [], "groups": {"web": ["10.244.1.2"]}}, OWNER, fleet)
    assert len(many.objects) == len(few.objects)
    assert len(elements(many, "peers")) == len(elements(many, "sources")) == 999


def test_people_read_the_rules_as_nft_prints_them() -> None:
    pods = [{"name": "web", "interface": "veth-web", "mac": "0a:58:0a:f4:00:02", "address": "10.244.0.2"}]
    told = lines(desired({**CLAUSE, "antispoof": True, "pods": pods}, OWNER, {"10.244.1.0/24": "192.0.2.1"}))
    assert (
        'rule bridge prerouting: iifname @interfaces jump antispoof comment "podnet.overlay:overlay pods\' ports"'
        in told
    )
    assert "element inet peers: 192.0.2.1 : 3221225985" in told


def test_a_new_peer_costs_one_element_of_each_of_its_sets() -> None:
    one = desired(CLAUSE, OWNER, {"10.244.1.0/24": "192.0.2.1"})
    two = desired({**CLAUSE, "peers": {"10.244.2.0/24": "192.0.2.2"}}, OWNER, {"10.244.1.0/24": "192.0.2.1"})
    told = [
        (verb, body["element"]["name"], len(body["element"]["elem"]))
        for step in commands(one, two)
        for verb, body in step.items()
    ]
    assert told == [("add", "nodes", 1), ("add", "peers", 1), ("add", "sources", 1)]
    assert len(set(lines(two)) - set(lines(one))) == 3


def test_a_trusted_source_may_send_from_its_subnets_only_without_overlaps() -> None:
    clause = {
        **CLAUSE,
        "masquerade": {},
        "trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.9.0.0/16", "10.9.1.0/24"]}],
    }
    found = elements(desired(clause, OWNER, {}), "sources")
    assert found == [{"concat": [0xCB007109, {"prefix": {"addr": "10.9.0.0", "len": 16}}]}]


@pytest.mark.parametrize(
    ("masquerade", "own"),
    [
        ({}, False),
        (None, True),
        ({"nodes": False}, True),
        ({"except": ["192.0.2.0/24"]}, True),
        ({"except": ["198.51.100.0/24"]}, False),
    ],
)
def test_a_peer_that_sees_the_pods_addresses_answers_under_its_own(masquerade: Any, own: bool) -> None:
    found = elements(desired({**CLAUSE, "masquerade": masquerade}, OWNER, {"10.244.1.0/24": "192.0.2.1"}), "sources")
    assert ({"concat": [0xC0000201, "192.0.2.1"]} in found) == own


def test_what_two_backends_bring_is_judged_as_strictly_as_what_each_brings_alone() -> None:
    """But for packets that come unpacked, which one of them may bring."""
    vxlan = {"backend": "vxlan", "local": "198.51.100.11", "tunnel": "flannel.1", "vni": 1, "port": 8472}
    peers = {"10.244.1.0/24": "192.0.2.1"}
    one, other = desired(CLAUSE, OWNER, peers), desired({**CLAUSE, **vxlan}, OWNER, peers)
    both = desired({**CLAUSE, "also": vxlan}, OWNER, peers)
    unpacked = "pods' addresses come by flannel"
    told = {line for wall in (one, other) for line in lines(wall) if unpacked not in line}
    assert {line for line in lines(both) if unpacked not in line} == told
    assert [line for line in lines(both) if unpacked in line]
    direct = desired({**CLAUSE, "also": {"backend": "host-gw"}}, OWNER, peers)
    assert set(lines(direct)) == {line for line in lines(one) if unpacked not in line}


def test_a_changed_udp_mapping_is_told_apart_from_the_others() -> None:
    def wall(*ports: dict[str, Any]) -> Firewall:
        return desired({**CLAUSE, "ports": list(ports)}, OWNER, {})

    dns = {**WEB, "protocol": "udp", "host_port": 53, "host_address": "192.0.2.1"}
    before, after = wall(WEB, dns), wall(WEB, {**dns, "port": 5353})
    assert {(address, port) for address, port, _rule in udp_mappings(before) ^ udp_mappings(after)} == {
        ("192.0.2.1", 53)
    }
    assert udp_mappings(wall(WEB)) == set()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"backend": "gre"}, "none of ipip, vxlan, host-gw"),
        ({"tunnel": None}, "tunnel is missing"),
        ({"colour": "red"}, "unknown key 'colour'"),
        ({"peers": {"10.244.1.5/24": "x"}}, "host bits"),
        ({"masquerade": {"except": ["everything"]}}, "no IPv4 destination"),
        ({"masquerade": "yes"}, "no mapping"),
        ({"trusted_sources": [{"address": "203.0.113.9"}]}, "subnets is missing"),
        ({"trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.244.0.0/16"]}]}, "which is this node's"),
        (
            {"trusted_sources": [{"address": "203.0.113.9", "subnets": ["198.51.100.0/24"]}]},
            "the node 198.51.100.11 itself",
        ),
        ({"trusted_sources": [{"address": "203.0.113.9", "subnets": ["127.0.0.1"]}]}, "which is the loopback"),
        ({"ports": [{**WEB, "protocol": "icmp"}]}, "none of tcp, udp, sctp"),
        ({"ports": [WEB, {**WEB, "pod": "db"}]}, "8080/tcp of any address goes to web already"),
        ({"ports": [{**WEB, "host_address": "192.0.2.1"}, {**WEB, "pod": "db"}]}, "goes to web already"),
        ({"policy": [{"to": "nobody"}]}, "nobody is no group"),
        ({"policy": [{"to": "a b"}]}, "no group's name"),
        ({"policy": [{"to": "x", "ports": ["80"]}], "groups": {"x": []}}, "ports need a protocol"),
        (
            {"policy": [{"to": "x", "protocol": "tcp", "ports": ["90-80"]}], "groups": {"x": []}},
            "ends before it begins",
        ),
        ({"also": {"backend": "gre"}}, "also: backend: 'gre' is none of"),
        ({"also": {"backend": "vxlan", "local": "198.51.100.11"}}, "also: tunnel is missing"),
        (
            {"also": {"backend": "vxlan", "local": "198.51.100.11", "tunnel": "flannel.ipip"}},
            "tunnel flannel.ipip is of another backend already",
        ),
        (
            {"also": {"backend": "ipip", "local": "198.51.100.11", "tunnel": "pods"}},
            "there is one tunnel of a kind, and not flannel.ipip and pods",
        ),
        ({"nft": [{"table": {"family": "inet", "name": "others"}}]}, "no listing of the tables podnet_overlay"),
    ],
)
def test_a_mistake_is_told_where_it_stands(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Mistakes) as raised:
        desired({**CLAUSE, **changes}, OWNER, {})
    assert told in str(raised.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Mistakes) as raised:
        read({"backend": "ipip", "local": "x", "antispoof": "yes", "ports": [{}]})
    assert len(raised.value.lines) == 11
