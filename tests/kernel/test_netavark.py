"""Podman's netavark on a node of an overlay, with the network file that the overlay writes, called as Podman does."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._files import PODMAN, anchor, files, parts

from tests.kernel.far_end import PROTOCOLS, Place, asked
from tests.kernel.hosts import Host
from tests.kernel.looks import bridge, ports
from tests.kernel.overlays import MTUS, NETWORK, NODES, TABLE, document, overlay

NETAVARK = "/usr/lib/podman/netavark"
BACKEND, CLIENT = "vxlan", "198.51.100.99"
NODE = NODES["node1"]["public_ip"]
SUBNET = ipaddress.IPv4Network(NODES["node1"]["subnet"])
ADDRESSES = iter(range(*(int(ipaddress.IPv4Address(item)) for item in parts(SUBNET)["podman"])))
"""Podman itself chooses the addresses, one after another, since neighbours remember the last holder's MAC."""

pytestmark = pytest.mark.skipif(not Path(NETAVARK).exists(), reason="needs netavark")


def wanted(*, pods: bool = True, anchored: bool = True) -> dict[str, Any]:
    """node1's document with overlay_podman."""
    nodes = NODES if pods else {**NODES, "node1": {**NODES["node1"], "pods": {}}}
    made = files(
        bridge="cni0",
        network=ipaddress.IPv4Network(NETWORK),
        subnet=SUBNET,
        mtu=MTUS[BACKEND],
        masquerade=True,
        hairpin=True,
        cni=False,
        docker=False,
        podman=True,
    )
    whole = document("node1", BACKEND, nodes, firewall={})
    held = [anchor("cni0", MTUS[BACKEND])] if anchored else []
    return {**whole, "files": made, "links": [*whole["links"], *held]}


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Host]]:
    with overlay(BACKEND, firewall={}, others={"client": CLIENT}) as made:
        converge(made["node1"])
        yield made


def converge(host: Host, **options: bool) -> bool:
    return bool(host.module("topology", name="overlay", document=wanted(**options), peers=TABLE)["changed"])


@contextmanager
def container(host: Host) -> Iterator[tuple[Place, str]]:
    """A namespace c1 on the network, whose port 80 is the node's 8080; its address."""
    address = str(ipaddress.IPv4Address(next(ADDRESSES)))
    mapping = {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 1}
    network = host.json("cat", PODMAN)
    told = {
        "container_id": "c1",
        "container_name": "c1",
        "port_mappings": [{**mapping, "protocol": protocol} for protocol in PROTOCOLS],
        "networks": {network["name"]: {"static_ips": [address], "interface_name": "eth0"}},
        "network_info": {network["name"]: network},
    }

    def netavark(act: str) -> str:
        command = f"{NETAVARK} --config /run/netavark {act} /run/netns/c1"
        return host.sh(f"printf %s {shlex.quote(json.dumps(told))} | {command}")

    host.sh("mkdir -p /run/netavark; ip netns add c1; ip -n c1 link set lo up")
    netavark("setup")
    try:
        yield Place(host, "c1"), address
    finally:
        netavark("teardown")
        host.run("ip netns del c1")


def test_a_container_is_on_the_overlays_bridge_and_changes_nothing_of_it(hosts: dict[str, Host]) -> None:
    node = hosts["node1"]
    before, known = bridge(node), ports(node).keys()
    with container(node) as (_inside, address):
        (link,) = node.json("ip", "-n", "c1", "-j", "-4", "address", "show", "dev", "eth0")
        assert (link["addr_info"][0]["local"], link["mtu"]) == (address, MTUS[BACKEND])
        routes = {item["dst"]: item.get("gateway") for item in node.json("ip", "-n", "c1", "-j", "route")}
        assert routes == {"default": "10.244.0.1", str(SUBNET): None}
        during = ports(node).keys()
        assert (len(during - known), converge(node), ports(node).keys()) == (1, False, during)
        assert bridge(node) == before
    assert (bridge(node), ports(node).keys()) == (before, known)


def test_pod_to_pod_keeps_its_address_although_netavark_masquerades(hosts: dict[str, Host]) -> None:
    with container(hosts["node1"]) as (inside, address):
        assert "masquerade" in hosts["node1"].run("nft list chain ip nat NETAVARK-4308E9B30E489", check=False).stdout
        for name, node in NODES.items():
            pod = Place(hosts[name], "db")
            for protocol in PROTOCOLS:
                out = asked(inside, (node["pods"]["db"], 7000), pod, protocol=protocol)
                back = asked(pod, (address, 7000), inside, protocol=protocol)
                assert (out.address, out.answered) == (address, True), name
                assert (back.address, back.answered) == (node["pods"]["db"], True), name
        out = asked(inside, (CLIENT, 7000), Place(hosts["client"]))
        assert (out.address, out.answered) == (NODE, True)


def test_a_published_port_is_reached_from_everywhere_but_the_container_itself(hosts: dict[str, Host]) -> None:
    """Netavark 1.4 leaves its ports without hairpin."""
    with container(hosts["node1"]) as (inside, _address):
        clients = {
            "outside": Place(hosts["client"]),
            "a pod of another node": Place(hosts["node2"], "web"),
            "a pod of the node": Place(hosts["node1"], "web"),
            "the node": Place(hosts["node1"]),
        }
        seen = {
            (protocol, who): asked(client, (NODE, 8080), inside, protocol=protocol, listen=80)
            for who, client in clients.items()
            for protocol in PROTOCOLS
        }
    assert {case: str(found) for case, found in seen.items() if not found.answered} == {}


def test_the_bridge_outlives_the_last_container_of_a_node_without_pods(hosts: dict[str, Host]) -> None:
    node = hosts["node1"]
    try:
        assert converge(node, pods=False, anchored=False)
        with container(node):
            pass
        assert "cni0" not in node.links()  # which is why there is an anchor
        converge(node, pods=False)
        before = bridge(node)
        with container(node):
            pass
        assert bridge(node) == before
    finally:
        converge(node)
