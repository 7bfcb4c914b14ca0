"""A real Docker on a node of an overlay, with the daemon.json that the overlay writes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._files import files, parts

from tests.kernel import docker
from tests.kernel.far_end import PROTOCOLS, Place, asked
from tests.kernel.hosts import Host
from tests.kernel.looks import bridge, ports
from tests.kernel.overlays import MTUS, NETWORK, NODES, TABLE, document, overlay

BACKEND = "vxlan"
CLIENT = "198.51.100.99"
NODE = NODES["node1"]["public_ip"]
SUBNET = ipaddress.IPv4Network(NODES["node1"]["subnet"])

pytestmark = pytest.mark.skipif(bool(docker.lacks()), reason=f"lacks {docker.lacks()}")


def wanted() -> dict[str, Any]:
    """node1's document with overlay_docker."""
    made = files(
        bridge="cni0",
        network=ipaddress.IPv4Network(NETWORK),
        subnet=SUBNET,
        mtu=MTUS[BACKEND],
        masquerade=True,
        hairpin=True,
        cni=False,
        docker=True,
        podman=False,
    )
    return {**document("node1", BACKEND, firewall={}), "files": made}


def converge(hosts: dict[str, Host]) -> bool:
    return bool(hosts["node1"].module("topology", name="overlay", document=wanted(), peers=TABLE)["changed"])


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Host]]:
    with overlay(BACKEND, firewall={}, others={"client": CLIENT}) as made:
        converge(made)
        yield made


@pytest.fixture(scope="module")
def daemon(hosts: dict[str, Host]) -> Iterator[docker.Docker]:
    before = bridge(hosts["node1"])
    with docker.running(hosts["node1"]) as running:
        assert bridge(hosts["node1"]) == before
        assert converge(hosts)  # Docker's firewall is there now, and is told of the overlay
        yield running
    assert bridge(hosts["node1"]) == before


@pytest.fixture
def container(daemon: docker.Docker) -> Iterator[str]:
    """The address of a container, whose port 80 is the node's 8080, in the namespace c1."""
    yield daemon.start("c1", "--publish", "8080:80/tcp", "--publish", "8080:80/udp")
    daemon.remove("c1")


def test_a_container_gets_an_address_of_dockers_part_on_the_overlays_bridge(
    hosts: dict[str, Host], container: str
) -> None:
    first, last = (ipaddress.IPv4Address(item) for item in parts(SUBNET)["docker"])
    assert first <= ipaddress.IPv4Address(container) <= last
    (link,) = hosts["node1"].json("ip", "-n", "c1", "-j", "-4", "address", "show", "dev", "eth0")
    assert link["mtu"] == MTUS[BACKEND]
    routes = {item["dst"]: item.get("gateway") for item in hosts["node1"].json("ip", "-n", "c1", "-j", "route")}
    assert routes == {"default": "10.244.0.1", "10.244.0.0/24": None}


def test_a_container_and_the_pods_of_all_nodes_see_each_others_own_addresses(
    hosts: dict[str, Host], container: str
) -> None:
    inside = Place(hosts["node1"], "c1")
    for name, node in NODES.items():
        pod = Place(hosts[name], "db")
        for protocol in PROTOCOLS:
            out = asked(inside, (node["pods"]["db"], 7000), pod, protocol=protocol)
            back = asked(pod, (container, 7000), inside, protocol=protocol)
            assert (out.address, out.answered) == (container, True), name
            assert (back.address, back.answered) == (node["pods"]["db"], True), name


def test_the_world_sees_a_container_as_its_node_and_its_published_port_is_reached(
    hosts: dict[str, Host], container: str
) -> None:
    inside = Place(hosts["node1"], "c1")
    for protocol in PROTOCOLS:
        out = asked(inside, (CLIENT, 7000), Place(hosts["client"]), protocol=protocol)
        assert (out.address, out.answered) == (NODE, True)
        for client in (Place(hosts["client"]), Place(hosts["node2"], "web"), Place(hosts["node1"])):
            assert asked(client, (NODE, 8080), inside, protocol=protocol, listen=80).answered, client


def test_a_converge_leaves_containers_alone(hosts: dict[str, Host], container: str) -> None:
    before = ports(hosts["node1"]).keys()
    assert (converge(hosts), ports(hosts["node1"]).keys()) == (False, before)
