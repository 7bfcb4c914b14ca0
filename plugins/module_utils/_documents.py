# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node's document: what it has to be, in the terms of podnet.overlay.topology. Pure."""

from __future__ import annotations

from typing import Any

from ._facts import Facts, Underlay
from ._inventory import Node, Pod, Settings
from ._leases import Lease
from ._model import DOCUMENT_VERSION, mac_of
from ._peers import vtep_mac


def document_of(
    settings: Settings, node: Node, lease: Lease, underlay: Underlay, facts: Facts, owner: str
) -> dict[str, Any]:
    """What one host has to be, in the terms of podnet.overlay.topology. Its size does not depend on the number of nodes."""
    subnet, length = lease.subnet, lease.subnet.prefixlen
    gateway = str(subnet[1])
    files = _files(node, lease, facts, gateway)
    links: list[dict[str, Any]] = [
        {
            "name": settings.bridge,
            "kind": "bridge",
            "address": mac_of(gateway),
            "mtu": lease.mtu,
            "addresses": [f"{gateway}/{length}"],
        }
    ]
    links += filter(None, [_tunnel(settings, lease, underlay)])
    links += [
        {
            "name": Pod(name).interface,
            "kind": "veth",
            "mtu": lease.mtu,
            "master": settings.bridge,
            "port": {"hairpin": True},
            "peer": {
                "name": "eth0",
                "namespace": name,
                "address": mac_of(address),
                "mtu": lease.mtu,
                "addresses": [f"{address}/{length}"],
            },
        }
        for name, address in lease.pods.items()
    ]
    document: dict[str, Any] = {
        "version": DOCUMENT_VERSION,
        "name": owner,
        "namespaces": [{"name": name, "files": files} for name in lease.pods],
        "links": links,
        "routes": [
            {"dst": dst, "via": gateway, "dev": "eth0", "namespace": name}
            for name in lease.pods
            for dst in ("default", str(settings.network))
        ],
        "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}],
        "peers": {
            "backend": settings.backend,
            "subnet": str(subnet),
            "public_ip": lease.public_ip,
            "dev": settings.tunnel,
            "interface": underlay.interface,
            "underlay": str(underlay.network),
            "direct_routing": settings.direct_routing,
            "network": str(settings.network),
        },
    }
    if settings.tunnel:
        document["firewall"] = {"local": lease.public_ip, "backend": settings.backend}
        if settings.backend == "vxlan":
            document["firewall"]["port"] = settings.port
    return document


def _tunnel(settings: Settings, lease: Lease, underlay: Underlay) -> dict[str, Any] | None:
    """The tunnel device, exactly flanneld's (pkg/backend/ipip, vxlan)."""
    common = {
        "name": settings.tunnel,
        "kind": settings.backend,
        "mtu": lease.mtu,
        "addresses": [f"{lease.subnet[0]}/32"],
    }
    if settings.backend == "ipip":
        return {
            **common,
            "ipip": {
                "mode": "any",
                "local": lease.public_ip,
                "remote": "any",
                "ttl": "inherit",
                "tos": 0,
                "pmtudisc": False,
            },
        }
    if settings.backend == "vxlan":
        vxlan = {
            "id": settings.vni,
            "local": lease.public_ip,
            "link": underlay.interface,
            "port": settings.port,
            "learning": False,
        }
        return {**common, "address": vtep_mac(str(lease.subnet)), "vxlan": vxlan}
    return None


def _files(node: Node, lease: Lease, facts: Facts, gateway: str) -> dict[str, str]:
    """What ``ip netns exec`` shows under /etc: names of the host and its pods, and a resolver that a pod can reach."""
    names = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{gateway}\t{facts.hostname or node.name}",
    ]
    files = {
        "hosts": "".join(
            f"{line}\n" for line in [*names, *(f"{address}\t{name}" for name, address in lease.pods.items())]
        )
    }
    resolver = "".join(f"nameserver {address}\n" for address in node.nameservers) or facts.resolv_conf
    return {**files, "resolv.conf": resolver} if resolver else files
