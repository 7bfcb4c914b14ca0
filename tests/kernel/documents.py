"""The document of one node, for tests that need no second one to answer."""

from __future__ import annotations

from typing import Any

PEERS = {"10.244.0.0/24": "198.51.100.11", "10.244.1.0/24": "198.51.100.12", "10.244.2.0/24": "198.51.100.13"}


def node(**changes: Any) -> dict[str, Any]:
    """The document of a node of the vxlan backend, which every test machine's kernel has."""
    document: dict[str, Any] = {
        "namespaces": [{"name": "web", "files": {"hosts": "127.0.0.1 localhost\n10.244.0.2 web\n"}}],
        "links": [
            {
                "name": "cni0",
                "kind": "bridge",
                "mtu": 1450,
                "address": "0a:58:0a:f4:00:01",
                "addresses": ["10.244.0.1/24"],
            },
            {
                "name": "veth-web",
                "kind": "veth",
                "mtu": 1450,
                "master": "cni0",
                "port": {"hairpin": True},
                "peer": {"name": "eth0", "namespace": "web", "mtu": 1450, "addresses": ["10.244.0.2/24"]},
            },
            {
                "name": "flannel.1",
                "kind": "vxlan",
                "mtu": 1450,
                "address": "0e:58:0a:f4:00:00",
                "addresses": ["10.244.0.0/32"],
                "vxlan": {"id": 1, "local": "198.51.100.11", "link": "eth1", "port": 8472, "learning": False},
            },
        ],
        "routes": [{"dst": "default", "via": "10.244.0.1", "dev": "eth0", "namespace": "web"}],
        "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}],
        "firewall": {"local": "198.51.100.11", "backend": "vxlan", "port": 8472},
        "peers": {"backend": "vxlan", "subnet": "10.244.0.0/24", "public_ip": "198.51.100.11", "dev": "flannel.1"},
    }
    return {**document, **changes}


# Routes that the kernel refuses once the host's own address is another, since they name it as their source.
RENUMBERED = "ip addr add 198.51.100.77/25 dev eth1; ip addr del 198.51.100.11/24 dev eth1"
AS_BEFORE = "ip addr add 198.51.100.11/24 dev eth1; ip addr del 198.51.100.77/25 dev eth1"


def sourced(count: int = 1) -> list[dict[str, Any]]:
    """Such routes, and those of the document."""
    routes = [
        {"dst": f"10.50.{number}.0/24", "via": "198.51.100.12", "src": "198.51.100.11"} for number in range(count)
    ]
    return [*node()["routes"], *routes]
