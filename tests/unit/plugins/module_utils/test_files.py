"""The files by which flannel's users, CNI, Docker and Podman join the overlay."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._files import PARTS, anchor, files, parts
from ansible_collections.podnet.overlay.plugins.module_utils._model import Link, of_type, parse
from hypothesis import given
from hypothesis import strategies as st

SUBNET = ipaddress.IPv4Network("10.244.5.0/24")
SUBNET_ENV, CONFLIST, DOCKER, PODMAN = (
    "/run/flannel/subnet.env",
    "/etc/cni/net.d/10-podnet-overlay.conflist",
    "/etc/docker/daemon.json",
    "/etc/containers/networks/podnet-overlay.json",
)


def contents(**changes: Any) -> dict[str, str]:
    settings = {
        "bridge": "cni0",
        "network": ipaddress.IPv4Network("10.244.0.0/16"),
        "subnet": SUBNET,
        "mtu": 1480,
        "masquerade": True,
        "hairpin": True,
        "cni": False,
        "docker": False,
        "podman": False,
        **changes,
    }
    found = files(**settings)
    assert {item["mode"] for item in found} == {"0644"}
    return {item["path"]: item["content"] for item in found}


def test_subnet_env_is_always_there_as_flanneld_writes_it() -> None:
    assert contents() == {
        SUBNET_ENV: "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.5.1/24\nFLANNEL_MTU=1480\nFLANNEL_IPMASQ=true\n"
    }
    assert "FLANNEL_IPMASQ=false\n" in contents(masquerade=False)[SUBNET_ENV]


def test_the_parts_of_a_24() -> None:
    assert parts(SUBNET) == {
        "pods": ("10.244.5.2", "10.244.5.63"),
        "cni": ("10.244.5.64", "10.244.5.127"),
        "docker": ("10.244.5.128", "10.244.5.191"),
        "podman": ("10.244.5.192", "10.244.5.254"),
    }


@given(st.integers(0, 2**32 - 1), st.integers(8, 28))
def test_the_parts_together_are_the_subnet_less_its_three_special_addresses(base: int, length: int) -> None:
    subnet = ipaddress.IPv4Network((base, length), strict=False)
    found = parts(subnet)
    assert tuple(found) == PARTS
    following = subnet.network_address + 2
    for first, last in found.values():
        assert ipaddress.IPv4Address(first) == following <= ipaddress.IPv4Address(last)
        following = ipaddress.IPv4Address(last) + 1
    assert following == subnet.broadcast_address


def test_a_subnet_without_room_for_the_parts_is_refused_only_if_it_has_to_be_shared() -> None:
    small = ipaddress.IPv4Network("10.244.5.0/29")
    assert list(contents(subnet=small)) == [SUBNET_ENV]
    for program in ("cni", "docker", "podman"):
        with pytest.raises(ValueError, match=r"10\.244\.5\.0/29 is too small .* overlay_subnet_len of 28 or less"):
            contents(subnet=small, **{program: True})


def test_cni_has_a_bridge_that_is_the_default_gateway_host_local_and_portmap() -> None:
    conf = json.loads(contents(cni=True)[CONFLIST])
    assert (conf["cniVersion"], conf["name"]) == ("1.0.0", "podnet-overlay")
    bridge, portmap = conf["plugins"]
    ipam = bridge.pop("ipam")
    assert bridge == {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "mtu": 1480,
    }
    assert ipam == {
        "type": "host-local",
        "ranges": [
            [
                {
                    "subnet": "10.244.5.0/24",
                    "rangeStart": "10.244.5.64",
                    "rangeEnd": "10.244.5.127",
                    "gateway": "10.244.5.1",
                }
            ]
        ],
        "routes": [{"dst": "10.244.0.0/16", "gw": "10.244.5.1"}],
    }
    assert portmap == {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    assert json.loads(contents(cni=True, hairpin=False)[CONFLIST])["plugins"][0]["hairpinMode"] is False


def test_docker_gets_its_quarter_as_a_network_and_leaves_masquerade_to_the_overlay() -> None:
    assert json.loads(contents(docker=True)[DOCKER]) == {
        "bridge": "cni0",
        "fixed-cidr": "10.244.5.128/26",
        "ip-masq": False,
        "mtu": 1480,
    }


def test_podman_gets_its_quarter_as_a_lease_range_under_an_id_that_stays() -> None:
    network = json.loads(contents(podman=True)[PODMAN])
    other = json.loads(contents(podman=True, subnet=ipaddress.IPv4Network("10.244.6.0/24"))[PODMAN])
    assert network["id"] == other["id"]
    assert len(bytes.fromhex(network["id"])) == 32
    assert network["subnets"] == [
        {
            "subnet": "10.244.5.0/24",
            "gateway": "10.244.5.1",
            "lease_range": {"start_ip": "10.244.5.192", "end_ip": "10.244.5.254"},
        }
    ]
    assert (network["driver"], network["network_interface"], network["dns_enabled"]) == ("bridge", "cni0", False)
    assert network["options"] == {"mtu": "1480"}


def test_the_anchor_is_a_port_of_the_bridge_that_carries_nothing() -> None:
    bridge = {"name": "cni0", "kind": "bridge"}
    links = {link.name: link for link in of_type(parse({"links": [bridge, anchor("cni0", 1480)]}, "overlay"), Link)}
    assert links.keys() == {"cni0", "podnet-anchor", "podnet-anchor0"}
    assert (links["podnet-anchor"].master, links["podnet-anchor"].mtu) == ("cni0", 1480)
    assert (links["podnet-anchor"].up, links["podnet-anchor0"].up) == (False, False)
