"""Debian's CNI plugins on nodes of an overlay, run as a container runtime does, with the conflist that the overlay writes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._files import CONFLIST, files, parts

from tests.kernel.cni import PLUGINS, Runtime
from tests.kernel.far_end import PROTOCOLS, Place, asked
from tests.kernel.hosts import Host
from tests.kernel.looks import bridge, ports
from tests.kernel.overlays import MTUS, NETWORK, NODES, TABLE, document, overlay

BACKENDS = [pytest.param("ipip", marks=pytest.mark.ipip), "vxlan", "host-gw"]
OTHERS = {"client": "198.51.100.99"}
"""A machine that is no member, and knows no way to pods."""
NODE, BRIDGE = NODES["node1"]["public_ip"], "10.244.0.1"
SUBNET = ipaddress.IPv4Network(NODES["node1"]["subnet"])
HELD = "/var/lib/cni/networks/podnet-overlay"
"""Where host-local keeps who has which address."""

pytestmark = pytest.mark.skipif(not Path(PLUGINS, "portmap").exists(), reason="needs containernetworking-plugins")


def wanted(backend: str, **changes: Any) -> dict[str, Any]:
    """node1's document with overlay_cni."""
    made = files(
        bridge="cni0",
        network=ipaddress.IPv4Network(NETWORK),
        subnet=SUBNET,
        mtu=MTUS[backend],
        masquerade=True,
        hairpin=True,
        cni=True,
        docker=False,
        podman=False,
    )
    return {**document("node1", backend, firewall={}), "files": made, **changes}


@dataclass(frozen=True)
class Fleet:
    """Two nodes, the first of which takes containers by CNI."""

    backend: str
    hosts: Mapping[str, Host]

    @property
    def node(self) -> Host:
        return self.hosts["node1"]

    def converge(self, **changes: Any) -> dict[str, Any]:
        return self.node.module("topology", name="overlay", document=wanted(self.backend, **changes), peers=TABLE)


@pytest.fixture(scope="module", params=BACKENDS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    backend = str(request.param)
    with overlay(backend, firewall={}, others=OTHERS) as hosts:
        made = Fleet(backend, hosts)
        made.converge()
        yield made


@pytest.fixture
def runtime(fleet: Fleet) -> Iterator[Runtime]:
    """With the conflist as it is on the node."""
    made = Runtime(fleet.node.sh, fleet.node.run("cat", CONFLIST).stdout)
    yield made
    for container in [*made.results]:
        made.delete(container)


def test_a_container_gets_an_address_of_its_part_and_routes_by_the_bridge(fleet: Fleet, runtime: Runtime) -> None:
    before, known = bridge(fleet.node), ports(fleet.node).keys()
    result = runtime.add("c1")
    first, last = (ipaddress.IPv4Interface(f"{item}/24") for item in parts(SUBNET)["cni"])
    assert first <= ipaddress.IPv4Interface(result["ips"][0]["address"]) <= last
    (link,) = fleet.node.json("ip", "-n", "c1", "-j", "-4", "address", "show", "dev", "eth0")
    assert (f"{link['addr_info'][0]['local']}/24", link["mtu"]) == (result["ips"][0]["address"], MTUS[fleet.backend])
    routes = {item["dst"]: item.get("gateway") for item in fleet.node.json("ip", "-n", "c1", "-j", "route")}
    assert routes == {"default": BRIDGE, "10.244.0.0/24": None, "10.244.0.0/16": BRIDGE}
    (port,) = ports(fleet.node).keys() - known
    assert (ports(fleet.node)[port]["master"], ports(fleet.node)[port]["hairpin"]) == ("cni0", True)
    runtime.check("c1")
    assert bridge(fleet.node) == before


def test_a_container_and_the_pods_of_all_nodes_see_each_others_own_addresses(fleet: Fleet, runtime: Runtime) -> None:
    address = runtime.add("c1")["ips"][0]["address"].split("/")[0]
    container = Place(fleet.node, "c1")
    for name, node in NODES.items():
        pod = Place(fleet.hosts[name], "db")
        for protocol in PROTOCOLS:
            out = asked(container, (node["pods"]["db"], 7000), pod, protocol=protocol)
            back = asked(pod, (address, 7000), container, protocol=protocol)
            assert (out.address, out.answered) == (address, True), name
            assert (back.address, back.answered) == (node["pods"]["db"], True), name


@pytest.mark.parametrize("bridge_nf", ["0", "1"])
def test_a_containers_port_mapping_works_from_everywhere(fleet: Fleet, runtime: Runtime, bridge_nf: str) -> None:
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if fleet.node.run("test", "-e", switch, check=False).returncode == 0:
        fleet.node.sh(f"echo {bridge_nf} >{switch}")
    elif bridge_nf == "1":
        pytest.skip("br_netfilter is not loaded")
    runtime.add("c1", "8080:80/tcp", "8080:80/udp")
    container = Place(fleet.node, "c1")
    seen = {}
    for protocol in PROTOCOLS:
        for who, client, target in (
            ("a machine outside", Place(fleet.hosts["client"]), NODE),
            ("a pod of another node", Place(fleet.hosts["node2"], "web"), NODE),
            ("a pod of its node", Place(fleet.node, "web"), NODE),
            ("a pod of its node, by the bridge", Place(fleet.node, "web"), BRIDGE),
            ("itself", container, NODE),
            ("its node", Place(fleet.node), NODE),
            ("its node's loopback", Place(fleet.node), "127.0.0.1"),
        ):
            seen[protocol, who] = asked(client, (target, 8080), container, protocol=protocol, listen=80)
    assert {case: str(found) for case, found in seen.items() if not found.answered} == {}
    assert seen["tcp", "a machine outside"].address == OTHERS["client"]


def test_containers_outlive_a_converge_and_one_that_changes_nothing_says_so(fleet: Fleet, runtime: Runtime) -> None:
    runtime.add("c1", "8080:80/tcp")
    runtime.add("c2")
    before = ports(fleet.node).keys()
    assert fleet.converge()["changed"] is False
    fewer = wanted(fleet.backend)
    fewer["links"] = [link for link in fewer["links"] if link["name"] != "veth-web"]
    fewer["namespaces"] = [{"name": "db"}]
    fewer["routes"] = [route for route in fewer["routes"] if route["namespace"] == "db"]
    fewer["firewall"]["pods"] = [pod for pod in fewer["firewall"]["pods"] if pod["name"] == "db"]
    try:
        assert fleet.converge(**fewer)["changed"] is True
        assert ports(fleet.node).keys() == before - {"veth-web"}
        runtime.check("c2")
        assert asked(Place(fleet.hosts["client"]), (NODE, 8080), Place(fleet.node, "c1"), listen=80).answered
    finally:
        fleet.converge()


def test_what_is_deleted_leaves_nothing(fleet: Fleet, runtime: Runtime) -> None:
    def state() -> tuple[Any, ...]:
        rules = fleet.node.json("nft", "-j", "list", "ruleset")["nftables"]
        chains = [item["chain"]["name"] for item in rules if "chain" in item]
        targets = [
            str(item["rule"]["expr"]) for item in rules if "rule" in item and "dnat" in str(item["rule"]["expr"])
        ]
        held = [name for name in fleet.node.sh(f"ls {HELD}").split() if name[0].isdigit()]
        return bridge(fleet.node), fleet.node.links(), chains, targets, held, fleet.node.run("ip netns list").stdout

    runtime.add("first", "8080:80/tcp")  # portmap's own chains stay for the next
    runtime.delete("first")
    before = state()
    runtime.add("c1", "8080:80/tcp", "5353:53/udp")
    assert state() != before
    runtime.delete("c1")
    assert state() == before
    afterwards = asked(Place(fleet.hosts["client"]), (NODE, 8080), Place(fleet.node, "web"), listen=80, patience=0.5)
    assert not afterwards.answered
