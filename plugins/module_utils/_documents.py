# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node's document: what it has to be, in the terms of podnet.overlay.topology. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from . import _files
from ._facts import Facts, Underlay
from ._inventory import Node, Pod, Settings
from ._leases import Lease
from ._model import DOCUMENT_VERSION, mac_of
from ._peers import vtep_mac
from ._readers import LOWEST_MTU


def document_of(
    settings: Settings,
    node: Node,
    lease: Lease,
    underlay: Underlay,
    facts: Facts,
    owner: str,
    also: Settings | None = None,
) -> dict[str, Any]:
    """What one host has to be, in the terms of podnet.overlay.topology. Its size does not depend on the number of nodes.

    Args:
        also: with another backend, whose packets are taken too.
    """
    subnet, length = lease.subnet, lease.subnet.prefixlen
    gateway = str(subnet[1])
    files = _etc(node, lease, facts, gateway)
    links: list[dict[str, Any]] = [
        {
            "name": settings.bridge,
            "kind": "bridge",
            "address": mac_of(gateway),
            "mtu": lease.mtu,
            "addresses": [f"{gateway}/{length}"],
            # Frames to LLDP's address and its like meet no rule; their sources, which may be another pod's, are not learned.
            "bridge": {"no_linklocal_learn": True},
        }
    ]
    tunnels = {each.tunnel: _tunnel(each, lease, underlay) for each in (settings, also) if each}
    links += filter(None, tunnels.values())
    if settings.podman:
        links.append(_files.anchor(settings.bridge, lease.mtu or LOWEST_MTU))
    links += [
        {
            "name": Pod(name).interface,
            "kind": "veth",
            "mtu": lease.mtu,
            "master": settings.bridge,
            "port": {"hairpin": settings.hairpin},
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
    return {
        "version": DOCUMENT_VERSION,
        "name": owner,
        "namespaces": [{"name": name, "files": files} for name in lease.pods],
        "links": links,
        "routes": [
            {"dst": dst, "via": gateway, "dev": "eth0", "namespace": name}
            for name in lease.pods
            for dst in ("default", str(settings.network))
        ],
        "sysctls": [*_sysctls(settings, node)],
        "files": _files.files(
            bridge=settings.bridge,
            network=settings.network,
            subnet=subnet,
            mtu=lease.mtu or LOWEST_MTU,
            masquerade=settings.masquerade,
            hairpin=settings.hairpin,
            cni=settings.cni,
            docker=settings.docker,
            podman=settings.podman,
        ),
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
        "firewall": {**_firewall(settings, node, lease), **({"also": _backend(also, lease)} if also else {})},
    }


def _sysctls(settings: Settings, node: Node) -> Iterator[dict[str, str]]:
    yield {"name": "net.ipv4.ip_forward", "value": "1"}
    if any(
        pod.ports for pod in node.pods
    ):  # else what comes from 127.0.0.1 to a mapped port would not leave by the bridge
        bridge = settings.bridge.replace(".", "/")  # as sysctl(8) has an interface's dots
        yield {"name": f"net.ipv4.conf.{bridge}.route_localnet", "value": "1"}


def _firewall(settings: Settings, node: Node, lease: Lease) -> dict[str, Any]:
    """What may pass on the node. Peers and groups, which are of the whole fleet, are told to all hosts at once."""
    wanted = {pod.name: pod for pod in node.pods}
    masquerade = {
        "nodes": settings.masquerade_nodes,
        "except": list(settings.no_masquerade),
        "random_fully": settings.masquerade_random_fully,
        "address": node.snat_address,
    }
    return {
        **_backend(settings, lease),
        "bridge": settings.bridge,
        "network": str(settings.network),
        "subnet": str(lease.subnet),
        "trusted_sources": [dict(source) for source in settings.trusted_sources],
        "masquerade": masquerade if settings.masquerade else None,
        "antispoof": settings.antispoof,
        "pods": [
            {
                "name": name,
                "interface": wanted[name].interface,
                "mac": mac_of(address),
                "address": address,
                "group": wanted[name].group,
            }
            for name, address in lease.pods.items()
        ],
        "ports": [
            {"pod": name, "address": address, **dataclasses.asdict(mapping)}
            for name, address in lease.pods.items()
            for mapping in wanted[name].ports
        ],
        "policy": None if settings.policy is None else [dict(rule) for rule in settings.policy],
    }


def _backend(settings: Settings, lease: Lease) -> dict[str, Any]:
    """What may come from other nodes."""
    tunnelled: dict[str, Any] = {"local": lease.public_ip, "tunnel": settings.tunnel} if settings.tunnel else {}
    if settings.backend == "vxlan":
        tunnelled.update(vni=settings.vni, port=settings.port)
    return {"backend": settings.backend, **tunnelled, "direct_routing": settings.direct_routing}


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


def _etc(node: Node, lease: Lease, facts: Facts, gateway: str) -> dict[str, str]:
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
