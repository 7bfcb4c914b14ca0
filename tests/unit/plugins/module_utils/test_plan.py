"""What the plan decides, what it refuses, and what holds whatever the fleet."""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Network
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import (
    _facts,
    _inventory,
    _plan,
    _probes,
    _removal,
    _shares,
)
from ansible_collections.podnet.overlay.plugins.module_utils._difference import difference
from ansible_collections.podnet.overlay.plugins.module_utils._engine import desired_state
from ansible_collections.podnet.overlay.plugins.module_utils._leases import Lease, Leases, overlaps
from ansible_collections.podnet.overlay.plugins.module_utils._model import Firewall, Mistakes, State, of_type, parse
from ansible_collections.podnet.overlay.plugins.module_utils._peers import expand
from hypothesis import given, settings
from hypothesis import strategies as st

from . import fleet


def planned(variables: dict[str, dict[str, Any]], leases: Leases | None = None, facts: Any = None) -> _plan.Plan:
    inventory = _inventory.read("overlay", variables)
    assert not list(_plan.judge(inventory, leases))
    return _plan.plan(inventory, leases, fleet.facts(len(variables)) if facts is None else facts)


def mistakes(variables: dict[str, dict[str, Any]], leases: Leases | None = None, facts: Any = None) -> list[str]:
    with pytest.raises(Mistakes) as caught:
        planned(variables, leases, facts)
    return caught.value.lines


def changed(variables: dict[str, dict[str, Any]], host: str, **more: Any) -> dict[str, dict[str, Any]]:
    return {**variables, host: {**variables[host], **more}}


def subnets(plan: _plan.Plan) -> dict[str, str]:
    return {name: str(lease.subnet) for name, lease in plan.leases.nodes.items()}


# ------------------------------------------------------------------------------------------------ what it decides


def test_three_nodes_get_the_first_subnets_and_a_table_of_all() -> None:
    plan = planned(fleet.variables(3))
    assert subnets(plan) == {"node1": "10.244.0.0/24", "node2": "10.244.1.0/24", "node3": "10.244.2.0/24"}
    assert json.loads(plan.peers) == {
        "10.244.0.0/24": "172.16.0.1",
        "10.244.1.0/24": "172.16.0.2",
        "10.244.2.0/24": "172.16.0.3",
    }
    assert plan.leases.nodes["node2"].pods == {"web": "10.244.1.2", "db": "10.244.1.3"}
    assert not plan.warnings


def test_the_tunnel_is_the_one_that_flanneld_makes() -> None:
    links = {link["name"]: link for link in planned(fleet.variables(3)).documents["node2"]["links"]}
    assert links["flannel.ipip"] == {
        "name": "flannel.ipip",
        "kind": "ipip",
        "mtu": 1480,
        "addresses": ["10.244.1.0/32"],
        "ipip": {"mode": "any", "local": "172.16.0.2", "remote": "any", "ttl": "inherit", "tos": 0, "pmtudisc": False},
    }
    assert links["cni0"]["address"] == "0a:58:0a:f4:01:01"


@pytest.mark.parametrize("backend", ["ipip", "vxlan", "host-gw"])
def test_the_engine_takes_every_document(backend: str) -> None:
    plan = planned(fleet.variables(3, overlay_backend=backend))
    for document in plan.documents.values():
        own = dict(document)
        clause = own.pop("peers")
        state = expand(parse(own, "overlay"), clause, json.loads(plan.peers))
        assert len([route for route in of_type(state, _plan_route()) if not route.namespace]) == 2


def _plan_route() -> Any:
    from ansible_collections.podnet.overlay.plugins.module_utils._model import Route

    return Route


@pytest.mark.parametrize(
    ("backend", "mtu", "tunnel"),
    [("ipip", 1480, "flannel.ipip"), ("vxlan", 1450, "flannel.7"), ("host-gw", 1500, None)],
)
def test_a_backend_has_its_mtu_and_tunnel(backend: str, mtu: int, tunnel: str | None) -> None:
    plan = planned(fleet.variables(2, overlay_backend=backend, overlay_vni=7))
    assert set(plan.mtus.values()) == {mtu}
    document = plan.documents["node1"]
    assert document["peers"]["dev"] == tunnel
    assert document["firewall"].get("tunnel") == tunnel
    assert document["firewall"].get("vni") == (7 if backend == "vxlan" else None)


def test_a_subnet_comes_from_variable_then_lease_then_host_then_the_first_free_one() -> None:
    variables = changed(fleet.variables(4), "node1", overlay_subnet="10.244.40.0/24")
    leases = Leases(
        IPv4Network("10.244.0.0/16"),
        {
            name: Lease(IPv4Network(f"10.244.{number}.0/24"), "172.16.0.9")
            for name, number in (("node1", 8), ("node2", 9))
        },
    )
    carries = {"network": "10.244.0.0/16", "subnet": "10.244.30.0/24", "pods": {"web": "10.244.30.7"}}
    facts = {**fleet.facts(4), "node3": _facts.Facts.of(fleet.answer(3, carries=carries))}
    plan = planned(variables, leases, facts)
    assert subnets(plan) == {
        "node1": "10.244.40.0/24",
        "node2": "10.244.9.0/24",
        "node3": "10.244.30.0/24",
        "node4": "10.244.0.0/24",
    }
    assert plan.leases.nodes["node3"].pods == {"web": "10.244.30.7", "db": "10.244.30.2"}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"overlay_public_ip": "192.0.2.1"}, "192.0.2.1"),
        ({"overlay_interface": "eth0"}, "192.0.2.1"),
        ({"ansible_host": "192.0.2.1"}, "192.0.2.1"),
        ({"ansible_host": "127.0.0.1"}, "172.16.0.1"),
        ({"ansible_host": "203.0.113.7"}, "172.16.0.1"),
    ],
)
def test_public_ip_comes_from_variable_interface_ansible_host_or_default_route(
    own: dict[str, str], expected: str
) -> None:
    answer = fleet.answer(1)
    answer["addresses"].append({"interface": "eth0", "address": "192.0.2.1/24", "mtu": 1500})
    plan = planned({"node1": own}, facts={"node1": _facts.Facts.of(answer)})
    assert plan.leases.nodes["node1"].public_ip == expected


def test_an_address_on_lo_has_the_mtu_of_the_default_route() -> None:
    answer = fleet.answer(1)
    answer["addresses"].append({"interface": "lo", "address": "192.0.2.1/32", "mtu": 65536})
    plan = planned({"node1": {"overlay_public_ip": "192.0.2.1"}}, facts={"node1": _facts.Facts.of(answer)})
    assert plan.mtus == {"node1": 1480}


def test_a_limited_run_keeps_the_peers_that_it_does_not_reach() -> None:
    first = planned(fleet.variables(3))
    facts = {"node1": fleet.facts(1)["node1"]}
    second = planned(fleet.variables(3), first.leases, facts)
    assert second.leases == first.leases
    assert second.peers == first.peers
    assert list(second.documents) == ["node1"]


def test_a_new_node_costs_another_one_route_and_one_element_of_each_set() -> None:
    """With ipip; the kernel tests see the same of the others."""
    first = planned(fleet.variables(3))
    after = planned(fleet.variables(4), first.leases)
    before, now = (node1_of(plan) for plan in (first, after))
    rules, route = difference(now, before)
    assert str(route) == "add route 10.244.3.0/24 via 172.16.0.4 dev flannel.ipip onlink proto podnet"
    assert isinstance(rules.before, Firewall)
    assert isinstance(rules.after, Firewall)
    assert rules.before.objects == rules.after.objects
    added = {(family, name) for family, name, _element in set(rules.after.elements) - set(rules.before.elements)}
    assert added == {("inet", "nodes"), ("inet", "peers"), ("inet", "sources")}
    assert len(rules.after.elements) - len(rules.before.elements) == 3


def node1_of(plan: _plan.Plan) -> State:
    document = plan.documents["node1"]
    return desired_state({**document, "peers": {**document["peers"], "table": json.loads(plan.peers)}}, "overlay")


def test_a_host_without_lease_that_is_not_reached_is_left_out() -> None:
    first = planned(fleet.variables(2))
    plan = planned(fleet.variables(3), first.leases, fleet.facts(2))
    assert plan.leases == first.leases
    assert plan.warnings == ("node3: not reached and without a lease, so left out; run on them too",)


def test_without_leases_every_host_has_to_answer() -> None:
    lines = mistakes(fleet.variables(3), facts=fleet.facts(2))
    assert [line.split(": the host")[0] for line in lines] == ["node3: overlay_leases_file"]
    stated = changed(fleet.variables(3), "node3", overlay_subnet="10.244.9.0/24")
    assert subnets(planned(stated, facts=fleet.facts(2)))["node3"] == "10.244.9.0/24"


def test_a_lost_leases_file_renumbers_nobody() -> None:
    carried = {
        f"node{number}": _facts.Facts.of(
            fleet.answer(
                number,
                carries={
                    "network": "10.244.0.0/16",
                    "subnet": f"10.244.{9 - number}.0/24",
                    "pods": {"web": f"10.244.{9 - number}.9"},
                },
            )
        )
        for number in (1, 2, 3)
    }
    plan = planned(fleet.variables(3), facts=carried)
    assert subnets(plan) == {"node1": "10.244.8.0/24", "node2": "10.244.7.0/24", "node3": "10.244.6.0/24"}
    assert plan.leases.nodes["node1"].pods["web"] == "10.244.8.9"


def test_a_removed_nodes_subnet_is_given_out_last_and_given_back() -> None:
    small = {"overlay_network": "10.244.0.0/22"}
    first = planned(fleet.variables(3, **small))
    two = {name: own for name, own in fleet.variables(3, **small).items() if name != "node2"}
    without = planned(two, first.leases, fleet.facts(3))
    assert without.leases.removed["node2"].reason == "inventory"
    assert "10.244.1.0/24" not in json.loads(without.peers)
    assert planned(fleet.variables(3, **small), without.leases).leases == first.leases
    four = {name: own for name, own in fleet.variables(4, **small).items() if name != "node2"}
    assert subnets(planned(four, without.leases, fleet.facts(4)))["node4"] == "10.244.3.0/24"
    five = {name: own for name, own in fleet.variables(5, **small).items() if name != "node2"}
    full = planned(five, without.leases, fleet.facts(5))
    assert subnets(full)["node5"] == "10.244.1.0/24"
    assert not full.leases.removed


def test_a_node_that_a_playbook_removed_stays_out() -> None:
    first = planned(fleet.variables(3)).leases
    nodes = dict(first.nodes)
    removed = {"node2": dataclasses.replace(nodes.pop("node2"), reason="playbook")}
    plan = planned(fleet.variables(3), Leases(first.network, nodes, removed))
    assert list(plan.documents) == ["node1", "node3"]
    assert plan.leases.removed == removed
    assert plan.warnings[0].startswith("node2: removed by a playbook")


def test_a_node_that_a_playbook_removed_stays_out_when_another_has_its_subnet() -> None:
    small = {"overlay_network": "10.244.0.0/23", "overlay_subnet_len": 24}
    first = planned(fleet.variables(2, **small)).leases
    out = _removal.without(first, "node2", free=False)
    others = {name: own for name, own in fleet.variables(3, **small).items() if name != "node2"}
    full = planned(others, out, fleet.facts(3))
    assert subnets(full) == {"node1": "10.244.0.0/24", "node3": "10.244.1.0/24"}
    assert full.leases.removed["node2"].freed
    small["overlay_network"] = "10.244.0.0/16"
    back = {"node1": full.leases.nodes["node1"], "node3": full.leases.nodes["node3"]}
    wide = Leases(IPv4Network("10.244.0.0/16"), back, full.leases.removed)
    plan = planned(fleet.variables(3, **small), wide)
    assert list(plan.documents) == ["node1", "node3"]
    assert plan.leases == wide


def test_a_freed_subnet_is_given_out_before_a_kept_one() -> None:
    first = planned(fleet.variables(3)).leases
    for free, expected in ((True, "10.244.1.0/24"), (False, "10.244.3.0/24")):
        out = _removal.without(first, "node2", free=free)
        assert subnets(planned(fleet.variables(4), out))["node4"] == expected


def test_who_has_the_address_of_a_removed_node_is_no_mistake() -> None:
    out = _removal.without(planned(fleet.variables(3)).leases, "node3", free=False)
    variables = changed(fleet.variables(4), "node4", overlay_public_ip=fleet.address(3))
    facts = {**fleet.facts(2), "node4": fleet.facts(3)["node3"]}
    assert list(planned(variables, out, facts).leases.nodes) == ["node1", "node2", "node4"]


def test_a_change_that_some_do_not_learn_of_is_told() -> None:
    first = planned(fleet.variables(3)).leases
    variables, facts = fleet.variables(4), fleet.facts(4)
    del facts["node1"]
    assert planned(variables, first, facts).warnings == (
        "node1: not reached, so what they know of node4 is from before; run on them too",
    )
    assert planned(fleet.variables(3), first, {"node2": facts["node2"]}).warnings == ()


def test_a_backend_that_only_some_move_to_is_told() -> None:
    first = planned(fleet.variables(3)).leases
    carries = {"subnet": "10.244.1.0/24", "network": "10.244.0.0/16", "backend": "ipip"}
    facts = {"node2": _facts.Facts.of(fleet.answer(2, carries=carries))}
    assert planned(fleet.variables(3, overlay_backend="vxlan"), first, facts).warnings[0] == (
        "node2: move from ipip to vxlan (VNI 1, port 8472) without node1, node3, which were not reached: "
        "no packets between them until those "
        "have moved too; run on them too"
    )


def test_pods_keep_their_addresses() -> None:
    first = planned(fleet.variables(1))
    pods = [{"name": "new"}, {"name": "db"}, {"name": "web"}]
    plan = planned(changed(fleet.variables(1), "node1", overlay_pods=pods), first.leases)
    assert plan.leases.nodes["node1"].pods == {"new": "10.244.0.4", "db": "10.244.0.3", "web": "10.244.0.2"}


def test_pods_get_names_and_a_resolver() -> None:
    own = changed(fleet.variables(1), "node1", overlay_pod_nameservers=["192.0.2.53"])
    files = planned(own).documents["node1"]["namespaces"][0]["files"]
    assert files["resolv.conf"] == "nameserver 192.0.2.53\n"
    assert "10.244.0.1\tnode1\n10.244.0.2\tweb\n10.244.0.3\tdb\n" in files["hosts"]
    assert (
        planned(fleet.variables(1)).documents["node1"]["namespaces"][0]["files"]["resolv.conf"]
        == "nameserver 172.16.255.53\n"
    )


def test_a_long_pod_name_has_a_short_interface() -> None:
    assert _inventory.Pod("web").interface == "veth-web"
    assert _inventory.Pod("averyverylongpo").interface == "veth5858db4b"


@pytest.mark.parametrize(
    "form",
    [
        {"Network": "10.10.0.0/16", "SubnetLen": 26, "Backend": {"Type": "ipip", "DirectRouting": True}},
        '{"network": "10.10.0.0/16", "subnetLen": 26, "EnableIPv4": true, "Backend": {"type": "IPIP", "directrouting": true}}',
    ],
)
def test_flannels_net_conf_is_taken(form: Any) -> None:
    said = _inventory.read("overlay", fleet.variables(1, overlay_net_conf=form)).settings
    assert said
    assert (str(said.network), said.subnet_len, said.backend, said.direct_routing) == ("10.10.0.0/16", 26, "ipip", True)


def test_nodes_of_different_mtu_are_warned_of() -> None:
    answer = fleet.answer(2)
    answer["addresses"][1]["mtu"] = 1400
    plan = planned(fleet.variables(2), facts={"node1": fleet.facts(1)["node1"], "node2": _facts.Facts.of(answer)})
    assert "node2" in plan.warnings[0]
    assert "1380" in plan.warnings[0]


def test_a_misspelt_variable_is_warned_of() -> None:
    assert _inventory.read("overlay", fleet.variables(1, overlay_netwrok="x")).warnings == (
        "node1: overlay_netwrok: is not read; do you mean overlay_network?",
    )


# ------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (
            {"overlay_subnet": "10.245.1.0/24"},
            "node2: overlay_subnet: 10.245.1.0/24 is outside overlay_network 10.244.0.0/16; choose one inside",
        ),
        ({"overlay_subnet": "10.244.1.5/24"}, "node2: overlay_subnet: 10.244.1.5/24 has host bits set"),
        (
            {"overlay_public_ip": "172.16.0.1"},
            (
                "node2: overlay_public_ip: 172.16.0.1 is also that of node1; "
                "each node needs its own: set overlay_public_ip or overlay_interface"
            ),
        ),
        (
            {"overlay_public_ip": "10.244.7.7"},
            (
                "node2: overlay_public_ip: 10.244.7.7 is inside overlay_network 10.244.0.0/16; "
                "choose another network for pods"
            ),
        ),
        ({"overlay_public_ip": "fd00::1"}, "node2: overlay_public_ip: 'fd00::1' is no IPv4 address"),
        (
            {"overlay_interface": "a/b"},
            "node2: overlay_interface: 'a/b' is no interface name: no slash, colon or white space, nor . or ..",
        ),
        (
            {"overlay_pods": [{"name": "sixteen-bytes-ab"}]},
            ("node2: overlay_pods: 'sixteen-bytes-ab' has 16 bytes, and an interface name has 1 to 15"),
        ),
        (
            {"overlay_pods": [{"name": "web"}, {"name": "web"}]},
            "node2: overlay_pods: web: web is there twice; choose another",
        ),
        ({"overlay_pods": "web"}, "node2: overlay_pods: 'web' is no list; write it as [{name: web}, {name: db}]"),
        (
            {"overlay_backend": "vxlan"},
            "node2: overlay_backend: 'vxlan' differs from 'ipip', which the others have; set it for the whole group",
        ),
        (
            {"overlay_subnet": "10.244.9.0/24", "overlay_pods": [{"name": "web", "address": "10.244.9.1"}]},
            "node2: overlay_pods: web: 10.244.9.1 is the gateway's; choose another of 10.244.9.0/24",
        ),
        (
            {"overlay_pods": [{"name": "web", "address": "10.9.0.2"}]},
            "node2: overlay_pods: web: 10.9.0.2 is outside overlay_network 10.244.0.0/16; choose another",
        ),
        (
            {"overlay_pods": [{"name": f"pod{number}"} for number in range(254)]},
            "node2: overlay_pods: 254 pods do not fit into a subnet of overlay_subnet_len 24, which holds 253; choose fewer",
        ),
        (
            {"overlay_subnet": "10.244.9.0/24", "overlay_pods": [{"name": "web", "address": "10.244.8.2"}]},
            "node2: overlay_pods: web: 10.244.8.2 is outside the node's subnet; choose another of 10.244.9.0/24",
        ),
    ],
)
def test_a_mistake_of_a_host_names_host_variable_and_value(own: dict[str, Any], line: str) -> None:
    variables = changed(fleet.variables(3), "node2", **own)
    assert list(_plan.judge(_inventory.read("overlay", variables), None)) == [line]


@pytest.mark.parametrize(
    ("group", "line"),
    [
        (
            {"overlay_network": "fd00::/64"},
            "overlay: overlay_network: fd00::/64 is IPv6, which ipip cannot carry; choose an IPv4 network",
        ),
        (
            {"overlay_network": "10.244.0.0/23", "overlay_subnet_len": 24},
            (
                "overlay: overlay_network: 10.244.0.0/23 is too small: it has 2 subnets of "
                "overlay_subnet_len 24 for 3 nodes; choose a larger network, or a larger overlay_subnet_len (smaller subnets)"
            ),
        ),
        ({"overlay_backend": "udp"}, "overlay: overlay_backend: 'udp' is none of ipip, vxlan, host-gw"),
        ({"overlay_mtu": 500}, "overlay: overlay_mtu: 500 is below 576; choose more, or auto"),
        (
            {"overlay_bridge": "sixteen-bytes-ab"},
            "overlay: overlay_bridge: 'sixteen-bytes-ab' has 16 bytes, and an interface name has 1 to 15",
        ),
        ({"overlay_tunnel": "cni0"}, "overlay: overlay_tunnel: cni0 is overlay_bridge too; choose another name"),
        (
            {"overlay_net_conf": {"Network": "10.9.0.0/16"}, "overlay_network": "10.244.0.0/16"},
            "overlay: overlay_network: '10.244.0.0/16' contradicts overlay_net_conf, which says '10.9.0.0/16'; keep one of them",
        ),
    ],
)
def test_a_mistake_of_the_group_names_variable_and_value(group: dict[str, Any], line: str) -> None:
    assert list(_plan.judge(_inventory.read("overlay", fleet.variables(3, **group)), None)) == [line]


@pytest.mark.parametrize(("network", "length"), [("10.244.0.0/29", 31), ("10.244.0.0/30", 32)])
def test_a_small_network_needs_a_subnet_len(network: str, length: int) -> None:
    said = f"overlay: overlay_subnet_len (not set): {length} does not fit: a subnet of {network} has "
    lines = list(_plan.judge(_inventory.read("overlay", fleet.variables(1, overlay_network=network)), None))
    assert [line.startswith(said) for line in lines if "overlay_pods" not in line] == [True]
    own = {"node1": {"overlay_public_ip": "172.16.0.1", "overlay_network": network, "overlay_subnet_len": 30}}
    assert subnets(planned(own)) == {"node1": "10.244.0.0/30"}


def test_a_value_may_be_written_in_several_ways() -> None:
    variables = fleet.variables(3, overlay_subnet_len=24, overlay_direct_routing=True)
    variables = changed(variables, "node2", overlay_subnet_len="24", overlay_direct_routing="True")
    assert planned(variables).documents["node2"]["peers"]["direct_routing"] is True
    variables = changed(fleet.variables(3, overlay_bridge="br-a"), "node2", overlay_bridge="br-A")
    assert next(_plan.judge(_inventory.read("overlay", variables), None)).startswith(
        "node2: overlay_bridge: 'br-A' differs"
    )


LINK = {"name": "flannel.ipip", "owner": ""}


@pytest.mark.parametrize(
    ("answer", "group", "line"),
    [
        (
            {"privileged": False},
            {},
            "node2: ansible_become: the tasks do not run as root; use --become, or set ansible_become: true",
        ),
        (
            {"backends": {"ipip": False, "vxlan": True, "host-gw": True}},
            {},
            "node2: overlay_backend: the host's kernel 6.1.0 has no ipip; what it can do: vxlan, host-gw",
        ),
        (
            {"backends": {"ipip": False, "vxlan": True, "host-gw": True}, "missing": ["kernel:ipip"]},
            {"overlay_install": False},
            (
                "node2: overlay_install: the host lacks the extra package of kernel 6.1.0 with ipip "
                "(for its interpreter /usr/bin/python3); install that, or set overlay_install: true"
            ),
        ),
        (
            {"missing": ["pyroute2", "nftables", "module:ipip"]},
            {"overlay_install": False},
            (
                "node2: overlay_install: the host lacks python3-pyroute2, nftables "
                "(for its interpreter /usr/bin/python3); install that, or set overlay_install: true"
            ),
        ),
        (
            {"obstacles": [{"what": "the saved state x is torn", "why": "", "remedy": "restore it", "fatal": True}]},
            {},
            "node2: the saved state x is torn; restore it",
        ),
        (
            {
                "links": [{"name": "flannel.ipip", "owner": "overlay"}],
                "routes": [
                    {"dst": "10.244.0.0/24", "via": None, "dev": "flannel.ipip", "protocol": "static", "metric": 0}
                ],
            },
            {},
            (
                "node2: overlay_network: the host has a route to 10.244.0.0/24 dev flannel.ipip proto static, "
                "where node1 belongs; remove it"
            ),
        ),
        (
            {"links": [LINK]},
            {},
            (
                "node2: overlay_tunnel: the host has a link flannel.ipip that is not the overlay's; "
                "remove it, or choose another name"
            ),
        ),
        (
            {"links": [{"name": "cni0", "owner": "mine"}]},
            {},
            ("node2: overlay_bridge: the host has a link cni0 of the document mine; remove it, or choose another name"),
        ),
        (
            {"namespaces": [{"name": "web", "owner": ""}]},
            {},
            (
                "node2: overlay_pods: the host has a namespace web that is not the overlay's; "
                "remove it, or choose another name"
            ),
        ),
        (
            {
                "routes": [
                    {"dst": "10.244.0.0/24", "via": "172.16.0.9", "dev": "eth1", "protocol": "static", "metric": 0}
                ]
            },
            {},
            (
                "node2: overlay_network: the host has a route to 10.244.0.0/24 via 172.16.0.9 dev eth1 proto static, "
                "where node1 belongs; remove it"
            ),
        ),
        (
            {},
            {"overlay_mtu": 1490},
            "node2: overlay_mtu: 1490 is over 1480, the MTU of eth1 (1500) less 20 of ipip; choose 1480 or less, or auto",
        ),
        (
            {"addresses": [{"interface": "eth1", "address": "172.16.0.2/12", "mtu": 590}]},
            {},
            "node2: overlay_mtu: eth1 leaves 570 bytes for a packet, fewer than 576; raise its MTU",
        ),
        (
            {"addresses": [{"interface": "eth1", "address": "172.16.0.9/12", "mtu": 1500}]},
            {},
            "node2: overlay_public_ip: 172.16.0.2 is not an address of the host; it has 172.16.0.9 (eth1)",
        ),
        (
            {
                "addresses": [{"interface": "eth1", "address": "172.16.0.2/12", "mtu": 1500}],
                "links": [{"name": "docker0", "owner": ""}],
                "routes": [{"dst": "10.244.0.0/24", "via": None, "dev": "docker0", "protocol": "kernel", "metric": 0}],
            },
            {},
            "node2: overlay_network: the host has a route to 10.244.0.0/24 dev docker0 proto kernel, where node1 belongs; remove it",
        ),
    ],
)
def test_a_mistake_of_a_host_is_found_before_any_is_changed(
    answer: dict[str, Any], group: dict[str, Any], line: str
) -> None:
    facts = {**fleet.facts(3), "node2": _facts.Facts.of(fleet.answer(2, **answer))}
    assert line in mistakes(fleet.variables(3, **group), facts=facts)


def test_what_the_role_may_install_is_no_mistake() -> None:
    lacking = ["pyroute2", "nftables", "kernel:ipip"]
    planned(fleet.variables(2), facts=fleet.facts(2, backends={"ipip": False}, missing=lacking))


def test_packages_of_an_unknown_distribution_have_to_be_there() -> None:
    facts = fleet.facts(1, missing=["nftables"], os_family="")
    assert "node1: overlay_install: the host lacks nftables " in mistakes(fleet.variables(1), facts=facts)[0]


def test_obstacles_of_a_thousand_hosts_are_a_few_warnings() -> None:
    strict = {"what": "strict", "why": "x", "remedy": "loosen", "fatal": False}
    plan = planned(fleet.variables(1000, overlay_network="10.0.0.0/8"), facts=fleet.facts(1000, obstacles=[strict]))
    assert plan.warnings == ("node1, node2 and 998 others: strict; loosen",)
    each = {
        f"node{number}": _facts.Facts.of(fleet.answer(number, obstacles=[{**strict, "what": "x" * 999 + str(number)}]))
        for number in range(1, 31)
    }
    assert max(map(len, planned(fleet.variables(30), facts=each).warnings)) < 400
    each = {
        f"node{number}": _facts.Facts.of(fleet.answer(number, obstacles=[{**strict, "what": f"chain{number}"}]))
        for number in range(1, 31)
    }
    warnings = planned(fleet.variables(30), facts=each).warnings
    assert warnings[0] == "node1: chain1; loosen"
    assert warnings[20:] == ("10 other obstacles are in the hosts' podnet_node.obstacles",)


def test_the_overlays_own_things_are_not_in_the_way() -> None:
    own = {
        "links": [{"name": name, "owner": "overlay"} for name in ("cni0", "flannel.ipip", "veth-web")],
        "namespaces": [{"name": "web", "owner": "overlay"}],
        "routes": [{"dst": "10.244.0.0/24", "via": None, "dev": "cni0", "protocol": "kernel", "metric": 0}],
    }
    planned(fleet.variables(1), facts={"node1": _facts.Facts.of(fleet.answer(1, **own))})


def test_a_network_on_the_host_must_not_be_the_pods() -> None:
    answer = fleet.answer(1, links=[{"name": "docker0", "owner": ""}])
    answer["addresses"].append({"interface": "docker0", "address": "10.244.3.1/24", "mtu": 1500})
    lines = mistakes(fleet.variables(1), facts={"node1": _facts.Facts.of(answer)})
    assert lines == [
        "node1: overlay_network: 10.244.0.0/16 overlaps 10.244.3.1/24 of the host's docker0; choose another network"
    ]


def test_host_gw_needs_one_subnet() -> None:
    answer = fleet.answer(3, addresses=[{"interface": "eth1", "address": "192.0.2.3/24", "mtu": 1500}])
    variables = changed(fleet.variables(3, overlay_backend="host-gw"), "node3", overlay_public_ip="192.0.2.3")
    lines = mistakes(variables, facts={**fleet.facts(2), "node3": _facts.Facts.of(answer)})
    assert lines == [
        (
            "node3: overlay_backend: host-gw needs all nodes on one subnet, and 192.0.2.3 is not on 172.16.0.0/12; "
            "choose ipip, or vxlan with overlay_direct_routing"
        )
    ]


def test_two_hosts_that_carry_the_same_subnet_are_named() -> None:
    carries = {"network": "10.244.0.0/16", "subnet": "10.244.3.0/24", "pods": {}}
    lines = mistakes(fleet.variables(2), facts=fleet.facts(2, carries=carries))
    assert len(lines) == 1
    assert "10.244.3.0/24 of node" in lines[0]


def test_all_mistakes_come_at_once() -> None:
    variables = changed(
        fleet.variables(3, overlay_mtu=1), "node1", overlay_public_ip="x", overlay_pods=[{"nam": "web"}]
    )
    variables = changed(variables, "node2", overlay_subnet="10.0.0.0/33")
    variables = changed(variables, "node3", overlay_subnet="10.0.0.0/24")
    found = [line[:22] for line in _plan.judge(_inventory.read("overlay", variables), None)]
    assert found == [
        "overlay: overlay_mtu: ",
        "node1: overlay_public_",
        "node1: overlay_pods: {",
        "node2: overlay_subnet:",
        "node3: overlay_subnet:",
    ]


# ------------------------------------------------------------------------------------------------ what always holds

sizes = st.integers(1, 40)


@given(sizes, st.sets(st.integers(1, 40)), st.randoms(use_true_random=False))
def test_a_leased_fleet_keeps_its_numbers(count: int, gone: set[int], random: Any) -> None:
    """Neither another's leaving nor the inventory's order nor a second plan renumbers anyone."""
    variables = fleet.variables(count)
    first = planned(variables)
    assert not list(overlaps((name, lease.subnet) for name, lease in first.leases.nodes.items()))
    assert planned(variables, first.leases).leases == first.leases
    left = [name for name in variables if int(name[4:]) not in gone]
    random.shuffle(left)
    if left:
        second = planned({name: variables[name] for name in left}, first.leases, fleet.facts(count))
        assert second.leases.nodes == {name: first.leases.nodes[name] for name in left}
        assert set(second.leases.nodes) | set(second.leases.removed) == set(variables)
        assert planned(variables, second.leases).leases == first.leases


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(20, 28)), max_size=20), st.integers(18, 28), st.integers(1, 50)
)
def test_what_is_given_out_is_free_and_the_first(taken: list[tuple[int, int]], length: int, count: int) -> None:
    network = IPv4Network("10.244.0.0/16")
    held = {
        str(index): IPv4Network((int(network[0]) + 256 * at, width), strict=False)
        for index, (at, width) in enumerate(taken)
    }
    said = _inventory.Settings(network, length)
    given_out = _shares.allocate(said, [f"n{number}" for number in range(count)], held, ())
    assert all(not subnet.overlaps(other) for subnet in given_out.values() for other in held.values())
    expected = [
        subnet
        for subnet in network.subnets(new_prefix=length)
        if not any(subnet.overlaps(other) for other in held.values())
    ]
    assert list(given_out.values()) == expected[:count]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_a_sample_of_probes_has_every_node_on_both_sides(pods: list[int]) -> None:
    leases = {
        f"n{at}": Lease(
            IPv4Network((0x0AF40000 + 256 * at, 24)), "x", pods={f"p{pod}": f"{at}.{pod}" for pod in range(size)}
        )
        for at, size in enumerate(pods)
    }
    before, _probes.ALL_PAIRS = _probes.ALL_PAIRS, 50
    try:
        probes = _probes.probes(leases, leases)
    finally:
        _probes.ALL_PAIRS = before
    inhabited = {name for name, lease in leases.items() if lease.pods}
    targets = [(host, target["node"]) for host, items in probes.items() for item in items for target in item["targets"]]
    assert all(host != node for host, node in targets)
    if len(inhabited) > 1:
        assert {host for host, _node in targets} == {node for _host, node in targets} == inhabited
    assert len(targets) <= max(50, 8 * sum(pods) + len(inhabited))


def test_a_document_does_not_grow_with_the_fleet() -> None:
    few, many = (len(json.dumps(planned(fleet.variables(count)).documents["node1"])) for count in (3, 200))
    assert few == many
