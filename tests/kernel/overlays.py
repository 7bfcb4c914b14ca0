"""Hosts in namespaces with an overlay between them, made by the collection itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Union

from tests.kernel.hosts import Host, started

MTUS = {"ipip": 1480, "vxlan": 1450, "host-gw": 1500}
TUNNELS = {"ipip": "flannel.ipip", "vxlan": "flannel.1", "host-gw": None}
NAMES = ("node1", "node2")
PODS = {"web": 2, "db": 3}
NETWORK = "10.244.0.0/16"


def _node(number: int, public_ip: str) -> dict[str, Any]:
    return {
        "subnet": f"10.244.{number}.0/24",
        "public_ip": public_ip,
        "mtu": 1480,
        "pods": {pod: f"10.244.{number}.{last}" for pod, last in PODS.items()},
    }


Nodes = Mapping[str, Mapping[str, Any]]
NODES: dict[str, dict[str, Any]] = {
    name: _node(number, f"198.51.100.{11 + number}") for number, name in enumerate(NAMES)
}
ROUTED = {**NODES, "node3": _node(2, "203.0.113.13")}
"""node1 and node2 on one segment, node3 on another behind the host ``router``."""
STRANGER = {"stranger": "198.51.100.99"}
"""A machine on the first segment that is no member."""
TABLE = {node["subnet"]: node["public_ip"] for node in NODES.values()}

Firewall = Union[Mapping[str, Any], Callable[[str], Mapping[str, Any]], None]
"""What a test has other than ``clause`` in the document's firewall: the same on all nodes, or from a node's name."""


def table(nodes: Nodes) -> dict[str, str]:
    """The peer table of *nodes*."""
    return {node["subnet"]: node["public_ip"] for node in nodes.values()}


def settings(backend: str) -> dict[str, Any]:
    """As the plan tells them."""
    return {
        "network": NETWORK,
        "backend": backend,
        "direct_routing": False,
        "bridge": "cni0",
        "tunnel": TUNNELS[backend],
        "vni": 1,
        "port": 8472,
    }


def clause(name: str, backend: str, nodes: Nodes = NODES, **changes: Any) -> dict[str, Any]:
    """The document's whole firewall clause as the plan makes it from the defaults; *changes* are keys of it."""
    node = nodes[name]
    tunnelled = {"local": node["public_ip"], "tunnel": TUNNELS[backend]} if TUNNELS[backend] else {}
    return {
        "backend": backend,
        "bridge": "cni0",
        "network": NETWORK,
        "subnet": node["subnet"],
        **tunnelled,
        **({"vni": 1, "port": 8472} if backend == "vxlan" else {}),
        "trusted_sources": [],
        "masquerade": {"nodes": True, "except": [], "random_fully": True, "address": None},
        "antispoof": True,
        "pods": [
            {"name": pod, "interface": f"veth-{pod}", "mac": mac(address), "address": address, "group": None}
            for pod, address in node["pods"].items()
        ],
        "ports": [],
        "policy": None,
        "groups": {},
        **changes,
    }


def document(
    name: str, backend: str, nodes: Nodes = NODES, firewall: Firewall = None, *, direct_routing: bool = False
) -> dict[str, Any]:
    """What a node is, as the plan makes it."""
    node, mtu, tunnel = nodes[name], MTUS[backend], TUNNELS[backend]
    subnet = node["subnet"].removesuffix("0/24")
    links: list[dict[str, Any]] = [
        {
            "name": "cni0",
            "kind": "bridge",
            "mtu": mtu,
            "address": mac(f"{subnet}1"),
            "addresses": [f"{subnet}1/24"],
            "bridge": {"no_linklocal_learn": True},
        }
    ]
    local = {"local": node["public_ip"]}
    if backend == "ipip":
        links.append(
            {"name": tunnel, "kind": "ipip", "ipip": {"mode": "any", "remote": "any", "pmtudisc": False, **local}}
        )
    elif backend == "vxlan":
        vxlan = {"id": 1, "link": "eth1", "port": 8472, "learning": False, **local}
        links.append({"name": tunnel, "kind": "vxlan", "address": vtep(node["subnet"]), "vxlan": vxlan})
    if tunnel:
        links[-1].update(mtu=mtu, addresses=[f"{subnet}0/32"])
    for pod, address in node["pods"].items():
        peer = {"name": "eth0", "namespace": pod, "address": mac(address), "mtu": mtu, "addresses": [f"{address}/24"]}
        link = {"name": f"veth-{pod}", "kind": "veth", "mtu": mtu, "master": "cni0", "port": {"hairpin": True}}
        links.append({**link, "peer": peer})
    if firewall is None:
        minimal = {**local, "backend": backend, "tunnel": tunnel, **({"port": 8472} if backend == "vxlan" else {})}
        walls = {"firewall": minimal} if tunnel else {}
    else:
        walls = {"firewall": clause(name, backend, nodes, **(firewall(name) if callable(firewall) else firewall))}
    return {
        "namespaces": [{"name": pod} for pod in node["pods"]],
        "links": links,
        "routes": [
            {"dst": dst, "via": f"{subnet}1", "dev": "eth0", "namespace": pod}
            for pod in node["pods"]
            for dst in ("default", NETWORK)
        ],
        "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}],
        "peers": {
            "backend": backend,
            "subnet": node["subnet"],
            "public_ip": node["public_ip"],
            "dev": tunnel,
            "interface": "eth1",
            "underlay": str(_segment(node["public_ip"])),
            "direct_routing": direct_routing,
        },
        **walls,
    }


def mac(address: str, prefix: str = "0a:58") -> str:
    """The MAC that the plan gives to the holder of *address*."""
    return f"{prefix}:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))


def vtep(subnet: str) -> str:
    """The MAC of a node's vxlan device."""
    return mac(subnet.split("/", maxsplit=1)[0], "0e:58")


def _segment(address: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"{address}/24", strict=False)


@contextmanager
def underlay(nodes: Nodes = NODES, others: Mapping[str, str] = {}) -> Iterator[dict[str, Host]]:
    """The hosts of *nodes* and *others* (name to address) with addresses on eth1, and nothing of an overlay.

    Two hosts have a wire between them; more have a switch for each /24, and a host ``router`` with .1 where there are several.
    """
    addresses = {**{name: str(node["public_ip"]) for name, node in nodes.items()}, **others}
    segments = sorted({_segment(address) for address in addresses.values()})
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(contextmanager(started)()) for name in addresses}
        if len(hosts) == 2:
            first, second = hosts.values()
            first.sh(f"ip link add eth1 type veth peer name eth1 netns {second.pid}")
        else:
            switch = stack.enter_context(contextmanager(started)())
            if len(segments) > 1:
                hosts["router"] = stack.enter_context(contextmanager(started)())
                hosts["router"].sh("sysctl -qw net.ipv4.ip_forward=1")
            # The switch is a machine of its own: no filter of the hosts' kernel looks into its frames.
            switch.sh("echo 0 2>/dev/null >/proc/sys/net/bridge/bridge-nf-call-iptables || true")
            for number, segment in enumerate(segments, 1):
                switch.sh(f"ip link add br{number} type bridge; ip link set br{number} up")
                if "router" in hosts:
                    _plug(switch, number, hosts["router"], f"eth{number}")
                    hosts["router"].sh(f"ip addr add {segment[1]}/24 dev eth{number}; ip link set eth{number} up")
            for name, address in addresses.items():
                _plug(switch, segments.index(_segment(address)) + 1, hosts[name], "eth1")
        for name, address in addresses.items():
            gateway = f"; ip route add default via {_segment(address)[1]}" if "router" in hosts else ""
            hosts[name].sh(f"ip addr add {address}/24 dev eth1; ip link set eth1 up{gateway}")
        yield hosts


def _plug(switch: Host, number: int, host: Host, interface: str) -> None:
    """A cable from *host* to a bridge of *switch*."""
    port = f"p{host.pid}-{number}"
    switch.sh(
        f"ip link add {port} type veth peer name {interface} netns {host.pid}; ip link set {port} master br{number} up"
    )


def converge(
    hosts: Mapping[str, Host],
    backend: str,
    nodes: Nodes = NODES,
    firewall: Firewall = None,
    *,
    direct_routing: bool = False,
    on: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """Bring every node, or those named by *on*, to the overlay of *backend*; the module's answers."""
    return {
        name: hosts[name].module(
            "topology",
            name="overlay",
            document=document(name, backend, nodes, firewall, direct_routing=direct_routing),
            peers=table(nodes),
        )
        for name in on or nodes
    }


@contextmanager
def overlay(
    backend: str,
    nodes: Nodes = NODES,
    firewall: Firewall = None,
    others: Mapping[str, str] = {},
    *,
    direct_routing: bool = False,
) -> Iterator[dict[str, Host]]:
    """*nodes* (and *others*, which are no members) with the overlay of *backend*; a ping has gone through."""
    with underlay(nodes, others) as hosts:
        converge(hosts, backend, nodes, firewall, direct_routing=direct_routing)
        first, *rest = nodes
        for name in rest:
            hosts[first].run("ip", "netns", "exec", "web", "ping", "-c", "1", "-w", "5", nodes[name]["pods"]["db"])
        yield hosts
