# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventory says of what may pass, and Flannel's net-conf.json: read, and refused by name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _firewall_clause, _inventory, _passing
from ansible_collections.podnet.overlay.plugins.module_utils._passing import PortMapping, port_mapping
from hypothesis import given
from hypothesis import strategies as st

from . import fleet


def read(**group: Any) -> _inventory.Inventory:
    return _inventory.read("overlay", fleet.variables(2, **group))


def with_pods(*pods: dict[str, Any], **group: Any) -> _inventory.Inventory:
    variables = fleet.variables(2, **group)
    return _inventory.read("overlay", {**variables, "node2": {**variables["node2"], "overlay_pods": list(pods)}})


def settings(**group: Any) -> _inventory.Settings:
    inventory = read(**group)
    assert not inventory.mistakes
    assert inventory.settings
    return inventory.settings


# ------------------------------------------------------------------------------------------------ ports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", PortMapping(80, "tcp", 8080)),
        ("8080:80/UDP", PortMapping(80, "udp", 8080)),
        ("127.0.0.1:53:5353/udp", PortMapping(5353, "udp", 53, "127.0.0.1")),
        ("0.0.0.0:9:9/sctp", PortMapping(9, "sctp", 9)),
    ],
)
def test_a_port_mapping_is_as_in_cni(text: str, expected: PortMapping) -> None:
    assert port_mapping(text) == expected


@given(
    st.integers(1, 65535),
    st.integers(1, 65535),
    st.sampled_from(_passing.WITH_PORTS),
    st.none() | st.ip_addresses(v=4).filter(lambda address: not address.is_unspecified).map(str),
)
def test_a_port_mapping_reads_what_it_prints(port: int, host_port: int, protocol: str, address: str | None) -> None:
    mapping = PortMapping(port, protocol, host_port, address)
    assert port_mapping(str(mapping)) == mapping


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("8080", "'8080' is no port mapping; write it as HOSTPORT:PORT or ADDRESS:HOSTPORT:PORT"),
        (3233, '3233 is a number, as YAML reads 53:53; write the mapping in quotes: "53:53/udp"'),
        ("8080:80/icmp", "'icmp' is none of tcp, udp, sctp"),
        ("8080:80/", "'' is none of tcp, udp, sctp"),
        ("8080:70000", "70000 is not between 1 and 65535"),
        ("0:80", "0 is not between 1 and 65535"),
        ("[::1]:80:80", "'[::1]:80:80' is no port mapping"),
        ("localhost:80:80", "'localhost' is no IPv4 address"),
        (":80:80", "'' is no IPv4 address"),
        (True, "True is no port mapping"),
        (None, "None is no port mapping"),
    ],
)
def test_what_is_no_port_mapping_is_said(value: Any, said: str) -> None:
    inventory = with_pods({"name": "web", "ports": [value]})
    (line,) = inventory.mistakes
    assert line.startswith(f"node2: overlay_pods: web: ports: {said}")


def test_a_port_goes_to_one_pod() -> None:
    inventory = with_pods(
        {"name": "web", "ports": ["8080:80", "127.0.0.1:53:53", "53:53/udp", "192.0.2.1:9:9"]},
        {"name": "db", "ports": ["127.0.0.1:8080:81", "53:53", "192.0.2.2:9:9", "192.0.2.1:9:8"]},
    )
    assert inventory.mistakes == (
        "node2: overlay_pods: db: 127.0.0.1:8080:81/tcp: the port goes to web already; choose another host port or address",
        "node2: overlay_pods: db: 53:53/tcp: the port goes to web already; choose another host port or address",
        "node2: overlay_pods: db: 192.0.2.1:9:8/tcp: the port goes to web already; choose another host port or address",
    )


def test_the_tunnels_own_port_is_not_mapped() -> None:
    pod = {"name": "web", "ports": ["8472:80/udp", "8472:80/tcp"]}
    assert with_pods(pod).mistakes == ()
    (line,) = with_pods(pod, overlay_backend="vxlan").mistakes
    assert line == (
        "node2: overlay_pods: web: 8472:80/udp: the port is overlay_port, to which the other nodes' tunnels send; "
        "choose another host port"
    )


@pytest.mark.parametrize(
    ("pod", "line"),
    [
        ({"ports": "8080:80"}, "web: ports: '8080:80' is no list; write it as [\"8080:80/tcp\"]"),
        ({"port": ["8080:80"]}, "web: unknown key 'port'; a pod has name, address, ports, group"),
        ({"group": "1st"}, "web: group: '1st' is no group's name: "),
    ],
)
def test_a_mistake_of_a_pod_is_named(pod: dict[str, Any], line: str) -> None:
    (said,) = with_pods({"name": "web", **pod}).mistakes
    assert said.startswith(f"node2: overlay_pods: {line}")


# ------------------------------------------------------------------------------------------------ who may pass


def test_by_default_all_is_as_with_flannel() -> None:
    said = settings()
    assert (said.masquerade, said.masquerade_nodes, said.masquerade_random_fully, said.no_masquerade) == (
        True,
        True,
        True,
        (),
    )
    assert (said.antispoof, said.hairpin, said.policy, said.trusted_sources) == (True, True, None, ())
    assert said.shared_with == []


@pytest.mark.parametrize(
    "name",
    [
        "masquerade",
        "masquerade_nodes",
        "masquerade_random_fully",
        "antispoof",
        "hairpin",
        "cni",
        "docker",
        "podman",
        "direct_routing",
    ],
)
def test_each_switch_is_read(name: str) -> None:
    assert getattr(settings(**{f"overlay_{name}": "yes"}), name) is True
    assert getattr(settings(**{f"overlay_{name}": False}), name) is False
    (line,) = read(**{f"overlay_{name}": "perhaps"}).mistakes
    assert line == f"overlay: overlay_{name}: 'perhaps' is neither true nor false"


def test_networks_are_made_ready_for_a_set() -> None:
    assert settings(overlay_no_masquerade=["192.0.2.128/25", "192.0.2.0/24", "198.51.100.7"]).no_masquerade == (
        "192.0.2.0/24",
        "198.51.100.7/32",
    )
    twice = [
        {"address": "203.0.113.9", "subnets": ["10.250.0.0/24", "10.250.0.0/25"]},
        {"address": "203.0.113.9", "subnets": ["10.250.1.0/24"]},
    ]
    assert settings(overlay_trusted_sources=twice).trusted_sources == (
        {"address": "203.0.113.9", "subnets": ["10.250.0.0/23"]},
    )


@pytest.mark.parametrize(
    ("subnet", "of"),
    [
        ("127.0.0.1", "the loopback (127.0.0.0/8)"),
        ("126.0.0.0/7", "the loopback (127.0.0.0/8)"),
        ("239.1.0.0/16", "multicast (224.0.0.0/4)"),
        ("192.0.0.0/2", "multicast (224.0.0.0/4)"),
        ("0.0.0.0/0", "the loopback (127.0.0.0/8) and multicast (224.0.0.0/4)"),
    ],
)
def test_a_trusted_source_sends_from_no_loopback_and_no_group(subnet: str, of: str) -> None:
    trusted = [{"address": "203.0.113.9", "subnets": [subnet, "10.250.0.0/24"]}]
    said = f"{IPv4Network(subnet)} overlaps {of}, which nobody sends from; name the networks behind it"
    assert read(overlay_trusted_sources=trusted).mistakes == (
        f"overlay: overlay_trusted_sources: [0]: subnets: {said}",
    )


def test_a_policy_is_read_into_what_a_document_has() -> None:
    rule = {"to": "db", "from": "web", "protocol": "tcp", "ports": [5432, "8000-8100", "8050-8200", "5432"]}
    inventory = with_pods(
        {"name": "web", "group": "web"},
        {"name": "db", "group": "db"},
        overlay_policy={"allow": [rule, {"to": "web", "network": "192.0.2.0/24", "protocol": "icmp"}]},
    )
    assert inventory.mistakes == ()
    assert inventory.settings
    assert inventory.settings.policy == (
        {"to": "db", "from": "web", "network": None, "protocol": "tcp", "ports": ["5432", "8000-8200"]},
        {"to": "web", "from": None, "network": "192.0.2.0/24", "protocol": "icmp", "ports": []},
    )
    assert settings(overlay_policy={}).policy == ()


@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 200)), max_size=8))
def test_a_rules_ports_stay_the_same_and_do_not_overlap(ranges: list[tuple[int, int]]) -> None:
    asked = [f"{first}-{min(first + more, 65535)}" for first, more in ranges]
    (rule,) = _passing.policy({"allow": [{"to": "web", "protocol": "udp", "ports": asked}]}, pytest.fail) or ()

    def covered(texts: list[str]) -> list[int]:
        return [port for text in texts for port in range(int(text.split("-")[0]), int(text.split("-")[-1]) + 1)]

    assert covered(rule["ports"]) == sorted(set(covered(asked)))
    clause = {"backend": "host-gw", "bridge": "cni0", "network": "10.0.0.0/8", "subnet": "10.1.0.0/24"}
    assert _firewall_clause.read({**clause, "policy": [rule], "groups": {"web": []}}).policy


@pytest.mark.parametrize(
    ("variables", "lines"),
    [
        (
            {"overlay_no_masquerade": ["192.0.2.0/24", "192.0.2.300", "192.0.2.1/24", "fd00::/8"]},
            [
                (
                    "overlay_no_masquerade: '192.0.2.300' is no IPv4 network (Octet 300 (> 255) not permitted in '192.0.2.300'); "
                    "write it as 192.0.2.0/24"
                ),
                (
                    "overlay_no_masquerade: '192.0.2.1/24' is no IPv4 network (192.0.2.1/24 has host bits set); "
                    "write it as 192.0.2.0/24"
                ),
                (
                    "overlay_no_masquerade: 'fd00::/8' is no IPv4 network (Expected 4 octets in 'fd00::'); "
                    "write it as 192.0.2.0/24"
                ),
            ],
        ),
        (
            {"overlay_no_masquerade": "192.0.2.0/24"},
            ["overlay_no_masquerade: '192.0.2.0/24' is no list of networks, as in [192.0.2.0/24]"],
        ),
        (
            {"overlay_trusted_sources": [{"address": "x", "subnet": []}, "203.0.113.9"]},
            [
                "overlay_trusted_sources: [0]: unknown key 'subnet'; the keys are address, subnets",
                "overlay_trusted_sources: [0]: address: 'x' is no IPv4 address",
                "overlay_trusted_sources: [0]: subnets: is missing; name the networks that it may send from through the tunnel",
                (
                    "overlay_trusted_sources: [1]: '203.0.113.9' is no mapping; "
                    "write it as {address: 203.0.113.9, subnets: [10.250.0.0/24]}"
                ),
            ],
        ),
        (
            {"overlay_trusted_sources": [{"address": "203.0.113.9", "subnets": ["127.0.0.0/8", "10.0.0.0/8"]}]},
            [
                (
                    "overlay_trusted_sources: [0]: subnets: 127.0.0.0/8 overlaps the loopback (127.0.0.0/8), which nobody sends "
                    "from; name the networks behind it"
                ),
                (
                    "overlay_trusted_sources: 203.0.113.9: 10.0.0.0/8 has all of overlay_network in it, "
                    "so it could send as any pod; name the networks behind it"
                ),
            ],
        ),
        (
            {"overlay_policy": {"allowed": [], "allow": "all"}},
            [
                "overlay_policy: unknown key 'allowed'; the keys are allow",
                "overlay_policy: allow: 'all' is no list of mappings, as in [{to: db, from: web, protocol: tcp, ports: [5432]}]",
            ],
        ),
        (
            {"overlay_policy": ["web"]},
            [
                (
                    "overlay_policy: ['web'] is no mapping; "
                    "write it as {allow: [{to: db, from: web, protocol: tcp, ports: [5432]}]}"
                )
            ],
        ),
        (
            {
                "overlay_policy": {
                    "allow": [
                        {"from": "web", "network": "x", "port": 80},
                        {"to": "web", "ports": [80]},
                        {"to": "web", "protocol": "icmp", "ports": [80, "90-80", 70000]},
                        {"to": "web", "protocol": "gre", "ports": [80]},
                        {"to": "wbe", "from": "other"},
                    ]
                }
            },
            [
                "overlay_policy: allow[0]: unknown key 'port'; the keys are to, from, network, protocol, ports",
                "overlay_policy: allow[0]: to: is missing; name the group that may be reached",
                "overlay_policy: allow[0]: from, network: only one of them; write two rules",
                (
                    "overlay_policy: allow[0]: network: 'x' is no IPv4 network (Expected 4 octets in 'x'); "
                    "write it as 192.0.2.0/24"
                ),
                "overlay_policy: allow[1]: ports: need a protocol that has them: tcp, udp, sctp",
                "overlay_policy: allow[2]: ports: '90-80' ends before it begins",
                "overlay_policy: allow[2]: ports: 70000 is not between 1 and 65535",
                "overlay_policy: allow[2]: ports: need a protocol that has them: tcp, udp, sctp",
                "overlay_policy: allow[3]: protocol: 'gre' is none of tcp, udp, sctp, icmp",
                "overlay_policy: allow[4]: to: no pod of the inventory is in the group wbe; do you mean web?",
                (
                    "overlay_policy: allow[4]: from: no pod of the inventory is in the group other; "
                    "set group: other at a pod in overlay_pods"
                ),
            ],
        ),
        (
            {"overlay_subnet_len": 29, "overlay_cni": True},
            [
                "overlay_subnet_len: 29 leaves subnets too small to be shared by pods and overlay_cni; choose 28 or less",
            ],
        ),
    ],
)
def test_mistakes_of_what_may_pass_come_at_once(variables: dict[str, Any], lines: list[str]) -> None:
    inventory = with_pods({"name": "web", "group": "web"}, **variables)
    assert list(inventory.mistakes) == [f"overlay: {line}" for line in lines]


def test_a_snat_address_without_masquerade_is_warned_of() -> None:
    assert read(overlay_snat_address="192.0.2.1").warnings == ()
    assert read(overlay_snat_address="192.0.2.1", overlay_masquerade=False).warnings[0] == (
        "node1: overlay_snat_address: has no use, since overlay_masquerade is false"
    )


# ------------------------------------------------------------------------------------------------ net-conf.json

WHOLE = {
    "EnableIPv4": True,
    "EnableIPv6": False,
    "EnableNFTables": True,
    "Network": "10.10.0.0/16",
    "SubnetLen": 26,
    "SubnetMin": "10.10.1.0",
    "SubnetMax": "10.10.9.192",
    "Backend": {"Type": "vxlan", "VNI": 7, "Port": 4789, "DirectRouting": True, "MTU": 9000},
}


def test_all_of_flannels_net_conf_that_is_served() -> None:
    said = settings(overlay_net_conf=WHOLE)
    assert (said.network, said.subnet_len) == (IPv4Network("10.10.0.0/16"), 26)
    assert (said.subnet_min, said.subnet_max) == (IPv4Address("10.10.1.0"), IPv4Address("10.10.9.192"))
    assert (said.backend, said.vni, said.port, said.direct_routing, said.tunnel) == (
        "vxlan",
        7,
        4789,
        True,
        "flannel.7",
    )
    assert said.mtu == 8950  # Flannel's is that of the outgoing packets


def test_rules_are_nftables_always() -> None:
    inventory = read(overlay_net_conf={"EnableNFTables": False})
    assert inventory.mistakes == ()
    assert inventory.warnings == (
        "overlay: overlay_net_conf: EnableNFTables: False changes nothing; the rules are nftables always",
    )


@pytest.mark.parametrize(
    ("conf", "line"),
    [
        ({"EnableIPv4": False}, "EnableIPv4: False is not served: the overlay carries IPv4; leave it out"),
        ({"EnableIPv6": True}, "EnableIPv6: True is not served: the overlay carries IPv4 only; leave it out"),
        ({"EnableNFTables": "x"}, "EnableNFTables: 'x' is neither true nor false"),
        ({"IPv6Network": "fd00::/64"}, "IPv6Network: is not served by this version; leave it out"),
        (
            {"Backend": {"Type": "WireGuard"}},
            "Backend.Type: Flannel's wireguard is not served; choose one of ipip, vxlan, host-gw",
        ),
        ({"Backend": {"Type": "geneve"}}, "Backend.Type: 'geneve' is none of ipip, vxlan, host-gw"),
        ({"Backend": {"Type": "vxlan", "GBP": True}}, "Backend.GBP: is not served by this version; leave it out"),
        (
            {"Backend": {"Type": "ipip", "MTU": 1400}},
            "Backend.MTU: is not served with ipip, nor by Flannel; set overlay_mtu, the pods' own",
        ),
        ({"Backend": {"Type": "vxlan", "MTU": "big"}}, "Backend.MTU: 'big' is no whole number"),
        ({"Backend": {"Type": "vxlan", "Speed": 1}}, "Backend.Speed: 1 is not known; leave it out"),
        ({"SubnetMinimum": "10.244.1.0"}, "SubnetMinimum: '10.244.1.0' is not known; leave it out"),
    ],
)
def test_what_net_conf_may_not_say_is_named(conf: dict[str, Any], line: str) -> None:
    assert read(overlay_net_conf=conf).mistakes == (f"overlay: overlay_net_conf: {line}",)


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (
            {"Network": "10.10.0.0/16", "network": "10.11.0.0/16"},
            "network: '10.11.0.0/16' contradicts Network, which says '10.10.0.0/16'",
        ),
        (
            '{"SubnetLen": 24, "Network": "10.10.0.0/16", "SUBNETLEN": 25}',
            "SUBNETLEN: 25 contradicts SubnetLen, which says 24",
        ),
        (
            {"Backend": {"Type": "vxlan", "VNI": 1, "vni": 2}},
            "Backend.vni: 2 contradicts Backend.VNI, which says 1",
        ),
        (
            {"Backend": {"Type": "vxlan"}, "backend": {"Type": "ipip"}},
            "backend.Type: 'ipip' contradicts Backend.Type, which says 'vxlan'",
        ),
    ],
)
def test_one_key_of_net_conf_in_two_spellings_has_one_value(conf: Any, said: str) -> None:
    line = f"overlay: overlay_net_conf: {said}; Flannel takes them for one key, so keep one of them"
    assert read(overlay_net_conf=conf).mistakes == (line,)


def test_the_same_value_in_two_spellings_is_no_mistake() -> None:
    twice = {**WHOLE, "network": WHOLE["Network"], "backend": WHOLE["Backend"]}
    assert settings(overlay_net_conf=twice) == settings(overlay_net_conf=WHOLE)


@pytest.mark.parametrize(
    ("group", "line"),
    [
        (
            {"overlay_subnet_min": "10.245.0.0"},
            "overlay_subnet_min: 10.245.0.0 is outside overlay_network 10.244.0.0/16; choose one inside",
        ),
        (
            {"overlay_net_conf": {"SubnetMax": "10.244.9.1"}},
            "overlay_subnet_max: 10.244.9.1 is not the first address of a subnet of overlay_subnet_len 24; choose 10.244.9.0",
        ),
        (
            {"overlay_subnet_min": "10.244.9.0", "overlay_subnet_max": "10.244.8.0"},
            "overlay_subnet_min: 10.244.9.0 is after overlay_subnet_max 10.244.8.0; exchange them",
        ),
        ({"overlay_subnet_min": "10.244.9.0/24"}, "overlay_subnet_min: '10.244.9.0/24' is no IPv4 address"),
    ],
)
def test_a_range_of_subnets_is_of_the_network(group: dict[str, Any], line: str) -> None:
    assert read(**group).mistakes == (f"overlay: {line}",)
