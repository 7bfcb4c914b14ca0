"""Two hosts in namespaces with an overlay between them, made by the collection itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.kernel.hosts import Host, started

MTUS = {"ipip": 1480, "vxlan": 1450, "host-gw": 1500}
TUNNELS = {"ipip": "flannel.ipip", "vxlan": "flannel.1", "host-gw": None}
NAMES = ("node1", "node2")
PODS = {"web": 2, "db": 3}
NODES: dict[str, dict[str, Any]] = {
    name: {
        "subnet": f"10.244.{number}.0/24",
        "public_ip": f"198.51.100.{11 + number}",
        "mtu": 1480,
        "pods": {pod: f"10.244.{number}.{last}" for pod, last in PODS.items()},
    }
    for number, name in enumerate(NAMES)
}
TABLE = {node["subnet"]: node["public_ip"] for node in NODES.values()}


def settings(backend: str) -> dict[str, Any]:
    """As the plan tells them."""
    return {
        "network": "10.244.0.0/16",
        "backend": backend,
        "direct_routing": False,
        "bridge": "cni0",
        "tunnel": TUNNELS[backend],
        "vni": 1,
        "port": 8472,
    }


def document(name: str, backend: str) -> dict[str, Any]:
    """What a node is, as the plan makes it."""
    node, mtu, tunnel = NODES[name], MTUS[backend], TUNNELS[backend]
    subnet = node["subnet"].removesuffix("0/24")
    links: list[dict[str, Any]] = [
        {"name": "cni0", "kind": "bridge", "mtu": mtu, "address": _mac(f"{subnet}1"), "addresses": [f"{subnet}1/24"]}
    ]
    local = {"local": node["public_ip"]}
    if backend == "ipip":
        links.append(
            {"name": tunnel, "kind": "ipip", "ipip": {"mode": "any", "remote": "any", "pmtudisc": False, **local}}
        )
    elif backend == "vxlan":
        vxlan = {"id": 1, "link": "eth1", "port": 8472, "learning": False, **local}
        mac = _mac(f"{subnet}0").replace("0a:58", "0e:58")
        links.append({"name": tunnel, "kind": "vxlan", "address": mac, "vxlan": vxlan})
    if tunnel:
        links[-1].update(mtu=mtu, addresses=[f"{subnet}0/32"])
    for pod, address in node["pods"].items():
        peer = {"name": "eth0", "namespace": pod, "address": _mac(address), "mtu": mtu, "addresses": [f"{address}/24"]}
        link = {"name": f"veth-{pod}", "kind": "veth", "mtu": mtu, "master": "cni0", "port": {"hairpin": True}}
        links.append({**link, "peer": peer})
    firewall = {"firewall": {**local, "backend": backend, **({"port": 8472} if backend == "vxlan" else {})}}
    return {
        "namespaces": [{"name": pod} for pod in PODS],
        "links": links,
        "routes": [
            {"dst": dst, "via": f"{subnet}1", "dev": "eth0", "namespace": pod}
            for pod in PODS
            for dst in ("default", "10.244.0.0/16")
        ],
        "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}],
        "peers": {
            "backend": backend,
            "subnet": node["subnet"],
            "public_ip": node["public_ip"],
            "dev": tunnel,
            "interface": "eth1",
        },
        **(firewall if tunnel else {}),
    }


def _mac(address: str) -> str:
    return "0a:58:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))


@contextmanager
def overlay(backend: str) -> Iterator[dict[str, Host]]:
    """node1 and node2 with a wire between them and the overlay of *backend* on it; a ping has gone through."""
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(contextmanager(started)()) for name in NAMES}
        first, second = hosts.values()
        first.sh(f"ip link add eth1 type veth peer name eth1 netns {second.pid}")
        for name, host in hosts.items():
            host.sh(f"ip addr add {NODES[name]['public_ip']}/24 dev eth1; ip link set eth1 up")
        for name, host in hosts.items():
            host.module("topology", name="overlay", document=document(name, backend), peers=TABLE)
        first.run("ip netns exec web ping -c 1 -w 5 10.244.1.3")
        yield hosts
