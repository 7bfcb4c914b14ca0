"""The guard's mark of a packet is nobody else's business."""

from __future__ import annotations

import pytest

from tests.kernel.overlays import NODES, overlay

BACKENDS = [pytest.param("ipip", marks=pytest.mark.ipip), "vxlan"]
PING = ("ip", "netns", "exec", "web", "ping", "-c", "1", "-W", "1", "10.244.1.3")
HIGH = {name: {**node, "public_ip": f"192.168.255.{number}"} for number, (name, node) in enumerate(NODES.items(), 1)}
"""Addresses that, as numbers, have the bits that kubelet (0x8000) and kube-proxy (0x4000) look for."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_drops_by_a_mark_drops_nothing_of_the_tunnel(backend: str) -> None:
    with overlay(backend, HIGH, {}) as hosts:
        for hook in ("INPUT", "FORWARD"):
            for mark in ("0x4000/0x4000", "0x8000/0x8000"):
                hosts["node2"].sh(f"iptables -w -I {hook} -m mark --mark {mark} -j DROP")
        done = hosts["node1"].run(*PING, check=False)
        assert done.returncode == 0, hosts["node2"].run("iptables -nvL").stdout
