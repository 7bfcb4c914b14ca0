"""A made-up fleet: what an inventory says of n hosts, and what those answer."""

from __future__ import annotations

from typing import Any

from ansible_collections.podnet.overlay.plugins.module_utils._facts import Facts


def address(number: int) -> str:
    """The underlay's address of a host, in 172.16.0.0/12."""
    return f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}"


def variables(count: int, **group: Any) -> dict[str, dict[str, Any]]:
    return {
        f"node{number}": {
            **group,
            "overlay_public_ip": address(number),
            "overlay_pods": [{"name": "web"}, {"name": "db"}],
        }
        for number in range(1, count + 1)
    }


def answer(number: int, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "hostname": f"node{number}",
        "kernel": "6.1.0",
        "os_family": "Debian",
        "privileged": True,
        "python": "/usr/bin/python3",
        "missing": [],
        "obstacles": [],
        "addresses": [
            {"interface": "lo", "address": "127.0.0.1/8", "mtu": 65536},
            {"interface": "eth1", "address": f"{address(number)}/12", "mtu": 1500},
        ],
        "default_route": {"interface": "eth1", "source": address(number)},
        "backends": {"ipip": True, "vxlan": True, "host-gw": True},
        "links": [{"name": "lo", "owner": ""}, {"name": "eth1", "owner": ""}],
        "namespaces": [],
        "routes": [],
        "carries": None,
        "resolv_conf": "nameserver 172.16.255.53\n",
        **more,
    }


def facts(count: int, **more: Any) -> dict[str, Facts]:
    return {f"node{number}": Facts.of(answer(number, **more)) for number in range(1, count + 1)}
