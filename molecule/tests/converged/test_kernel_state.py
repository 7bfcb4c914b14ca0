"""What the kernels hold after a converge: what flanneld would have made there, but for the routes' protocol."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

NETWORK = "10.244.0.0/16"
SUBNETS = {"node1": "10.244.0.0/24", "node2": "10.244.1.0/24", "node3": "10.244.13.0/24"}
TUNNELS = {"ipip": "flannel.ipip", "vxlan": "flannel.1"}
MTUS = {"ipip": 1480, "vxlan": 1450}
PODS = ("web", "db")


@pytest.fixture(params=SUBNETS)
def node(request, nodes):
    return nodes[request.param]


@pytest.fixture
def subnet(node):
    return ip_network(SUBNETS[node.name])


@pytest.fixture
def backend(lab):
    return lab["backend"]


def inet(link):
    return [(each["local"], each["prefixlen"]) for each in link["addr_info"] if each["family"] == "inet"]


def mac(address):
    """CNI's scheme: a MAC address made of an IPv4 address."""
    return "0a:58:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def test_ipip_device(node, subnet, backend):
    if backend != "ipip":
        pytest.skip(f"the backend here is {backend}")
    link = node.link("flannel.ipip")

    assert {"NOARP", "UP", "LOWER_UP"} <= set(link["flags"])
    assert link["mtu"] == 1480
    assert inet(link) == [(str(subnet[0]), 32)]
    assert [each["scope"] for each in link["addr_info"] if each["family"] == "inet"] == ["global"]
    # iproute2 prints no JSON for `remote any` and `ttl inherit`, so its text is what is compared.
    text = node.host.check_output("ip -d link show flannel.ipip")
    assert f"ipip any remote any local {node.public_ip} ttl inherit nopmtudisc" in " ".join(text.split())


def test_vxlan_device(node, subnet, backend):
    if backend != "vxlan":
        pytest.skip(f"the backend here is {backend}")
    link = node.link("flannel.1")
    data = link["linkinfo"]["info_data"]

    assert "UP" in link["flags"]
    assert link["mtu"] == 1450
    assert inet(link) == [(str(subnet[0]), 32)]
    assert (data["id"], data["local"], data["port"], data["learning"]) == (1, node.public_ip, 8472, False)


def test_bridge(node, subnet, backend):
    bridge = node.link("cni0")

    assert inet(bridge) == [(str(subnet[1]), 24)]
    assert bridge["mtu"] == MTUS[backend]
    assert bridge["address"] == mac(str(subnet[1]))


def test_one_onlink_route_for_each_other_node(node, nodes, backend):
    routes = node.json("ip -j -4 route show dev %s", TUNNELS[backend])
    found = {(route["dst"], route["gateway"], tuple(route["flags"])) for route in routes}
    others = {SUBNETS[name]: other for name, other in nodes.items() if other is not node}

    if backend == "ipip":
        assert found == {(dst, other.public_ip, ("onlink",)) for dst, other in others.items()}
    else:
        assert found == {(dst, str(ip_network(dst)[0]), ("onlink",)) for dst in others}


def test_routes_have_their_own_protocol(node, backend):
    routes = node.json("ip -j -4 route show dev %s", TUNNELS[backend])

    assert {route["protocol"] for route in routes} == {"podnet"}


def test_everything_is_marked_as_ours(node, backend):
    for name in (TUNNELS[backend], "cni0"):
        assert node.link(name)["ifalias"].startswith("podnet.overlay:")


@pytest.mark.parametrize("pod", PODS)
def test_pod(node, subnet, backend, pod):
    link = node.link("eth0", pod)
    ((address, length),) = inet(link)
    routes = {(route["dst"], route.get("gateway")) for route in node.json(f"ip -n {pod} -j -4 route")}

    assert ip_network(f"{address}/{length}", strict=False) == subnet
    assert link["mtu"] == MTUS[backend]
    assert link["address"] == mac(address)
    assert {("default", str(subnet[1])), (NETWORK, str(subnet[1]))} <= routes


def test_fixed_pod_address(nodes):
    assert inet(nodes["node3"].link("eth0", "db")) == [("10.244.13.10", 24)]


def test_pod_ports_are_hairpins(node):
    ports = [port for port in node.json("bridge -j -d link show master cni0") if port["ifname"].startswith("veth-")]

    assert len(ports) == len(PODS)
    assert all(port["hairpin"] for port in ports)


@pytest.mark.parametrize("pod", PODS)
def test_pod_has_its_own_resolver_and_hosts_files(node, pod):
    assert node.host.file(f"/etc/netns/{pod}/resolv.conf").exists
    assert pod in node.host.check_output(f"ip netns exec {pod} cat /etc/hosts")


def test_forwarding_is_on(node):
    assert node.host.check_output("cat /proc/sys/net/ipv4/ip_forward") == "1"


def test_guard_knows_each_peer_with_its_own_subnet_and_no_one_else(node, nodes):
    ruleset = node.json("nft -j list table inet podnet_overlay")["nftables"]
    elements = {
        body["name"]: body.get("elem", []) for item in ruleset for kind, body in item.items() if kind in ("set", "map")
    }
    others = {other.public_ip: SUBNETS[name] for name, other in nodes.items() if other is not node}
    marks = dict(elements["peers"])
    sources = {
        (mark, f"{inner['prefix']['addr']}/{inner['prefix']['len']}") for mark, inner in _pairs(elements["sources"])
    }

    assert set(marks) == set(others)
    assert sources == {(marks[address], own) for address, own in others.items()}


def _pairs(elements):
    return [element["concat"] for element in elements]


def test_check_mode_predicts_nothing(nodes, play):
    before = {name: node.state() for name, node in nodes.items()}

    output, changed = play("overlay", "--check", "--diff")

    assert not any(changed.values()), output
    for name, node in nodes.items():
        assert node.differences(before[name]) == []
