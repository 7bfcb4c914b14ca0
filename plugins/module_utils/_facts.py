# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts say: the results of node_info, and what they mean for the plan. Pure.

A mistake here is ``VARIABLE: what; what to do``, without the host's name.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._inventory import Network, Node, Settings
from ._peers import BACKENDS
from ._readers import LOWEST_MTU, OVERHEAD


@dataclass(frozen=True)
class Address:
    """An IPv4 address of a host."""

    interface: str
    ip: str
    network: Network
    mtu: int


@dataclass(frozen=True)
class Facts:
    """What ``podnet.overlay.node_info`` says of a host. ``links`` and ``namespaces`` map a name to its owner, '' if foreign."""

    addresses: tuple[Address, ...] = ()
    default_interface: str = ""
    default_source: str = ""
    hostname: str = ""
    kernel: str = ""
    privileged: bool = True
    backends: Mapping[str, bool | None] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    routes: tuple[Mapping[str, Any], ...] = ()
    carries: Mapping[str, Any] | None = None
    sends: Mapping[str, Any] | None = None
    also: Mapping[str, Any] | None = None
    resolv_conf: str = ""
    os_family: str = ""
    python: str = ""
    missing: tuple[str, ...] = ()
    obstacles: tuple[Mapping[str, Any], ...] = ()
    listening: frozenset[tuple[str, str, int]] = frozenset()
    strict: frozenset[str] = frozenset()

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Facts:
        """The facts in a result of node_info."""
        default = result.get("default_route") or {}
        addresses = []
        for item in result["addresses"]:
            interface = ipaddress.IPv4Interface(item["address"])
            addresses.append(Address(item["interface"], str(interface.ip), interface.network, item["mtu"]))
        return cls(
            tuple(addresses),
            default.get("interface") or "",
            default.get("source") or "",
            result.get("hostname", ""),
            result.get("kernel", ""),
            result["privileged"],
            result["backends"],
            {item["name"]: item["owner"] for item in result["links"]},
            {item["name"]: item["owner"] for item in result["namespaces"]},
            tuple(result["routes"]),
            result.get("carries"),
            (result.get("carries") or {}).get("sends"),
            (result.get("carries") or {}).get("also"),
            result.get("resolv_conf") or "",
            result["os_family"],
            result["python"],
            tuple(result["missing"]),
            tuple(result["obstacles"]),
            frozenset((item["protocol"], item["address"], item["port"]) for item in result.get("listening") or ()),
            frozenset(result.get("strict") or ()),
        )


@dataclass(frozen=True)
class Underlay:
    """Where a host's tunnel ends: its address, the interface that packets leave by, and that one's network and MTU."""

    public_ip: str
    interface: str
    network: Network
    mtu: int


def underlay_of(node: Node, facts: Facts, owner: str) -> Underlay:
    """Where the host's tunnel ends: by variable, ansible_host, or the default route.

    Raises:
        ValueError: ``VARIABLE: what; what to do``.
    """
    own = [address for address in facts.addresses if facts.links.get(address.interface) != owner]
    reachable = [address for address in own if not ipaddress.IPv4Address(address.ip).is_loopback]
    here = ", ".join(f"{address.ip} ({address.interface})" for address in reachable) or "none"
    if node.interface:
        reachable = [address for address in reachable if address.interface == node.interface]
        if not reachable:
            raise ValueError(
                f"overlay_interface: {node.interface} is no interface of the host with an IPv4 address; it has {here}"
            )
    if node.public_ip:
        found = [address for address in reachable if address.ip == node.public_ip]
        if not found:
            raise ValueError(
                f"overlay_public_ip: {node.public_ip} is not an address of the host{_on(node.interface)}; it has {here}"
            )
    elif node.interface:
        found = reachable
    else:
        found = [address for address in reachable if address.ip == node.ansible_host]
        found = found or [address for address in reachable if address.ip == facts.default_source]
        if not found:
            raise ValueError(
                f"overlay_public_ip: the host has no default route to take its address from; choose one of {here}"
            )
    chosen = found[0]
    if chosen.interface == "lo":  # an address of the host's own: its packets leave by the default route
        device = next((address for address in own if address.interface == facts.default_interface), chosen)
        return Underlay(chosen.ip, device.interface, device.network, device.mtu)
    return Underlay(chosen.ip, chosen.interface, chosen.network, chosen.mtu)


def _on(interface: str | None) -> str:
    return f" on {interface}" if interface else ""


def mistakes_of(node: Node, facts: Facts, settings: Settings, subnets: Mapping[str, str], owner: str) -> Iterator[str]:
    """What is wrong with a host that answered, without its name."""
    if not facts.privileged:
        yield "ansible_become: the tasks do not run as root; use --become, or set ansible_become: true"
    yield from (obstacle(item) for item in facts.obstacles if item["fatal"])
    packages = lacks(facts)
    if packages and not (node.install and facts.os_family):
        remedy = (
            ", or set overlay_install: true" if facts.os_family else " by hand, since its distribution is not known"
        )
        yield f"overlay_install: the host lacks {', '.join(packages)} (for its interpreter {facts.python}); install that{remedy}"
    if facts.backends.get(settings.backend) is False and f"kernel:{settings.backend}" not in facts.missing:
        able = ", ".join(name for name in BACKENDS if facts.backends.get(name)) or "none"
        yield f"overlay_backend: the host's kernel {facts.kernel} has no {settings.backend}; what it can do: {able}"
    ours = [name for name in (settings.bridge, settings.tunnel) if name]
    foreign = {name for name, by in facts.links.items() if by != owner}
    for variable, names in (
        ("overlay_bridge", ours[:1]),
        ("overlay_tunnel", ours[1:]),
        ("overlay_pods", [pod.interface for pod in node.pods]),
    ):
        for name in names:
            if name in foreign:
                yield f"{variable}: the host has a link {name}{_of(facts.links[name])}; remove it, or choose another name"
    for pod in node.pods:
        if facts.namespaces.get(pod.name, owner) != owner:
            yield f"overlay_pods: the host has a namespace {pod.name}{_of(facts.namespaces[pod.name])}; remove it, or choose another name"
    yield from _port_mistakes(node, facts, owner)
    for address in facts.addresses:
        if address.interface in foreign - set(ours) and address.network.overlaps(settings.network):
            yield (
                f"overlay_network: {settings.network} overlaps {address.ip}/{address.network.prefixlen} of the host's {address.interface}; "
                "choose another network"
            )
    for route in facts.routes:
        own = route.get("protocol") == "kernel" and route.get("dev") in facts.links.keys() - foreign
        if route["dst"] in subnets and not route.get("metric") and not own:
            via = f" via {route['via']}" if route.get("via") else ""
            yield (
                f"overlay_network: the host has a route to {route['dst']}{via} dev {route.get('dev')} proto {route.get('protocol')}, "
                f"where {subnets[route['dst']]} belongs; remove it"
            )


def _port_mistakes(node: Node, facts: Facts, owner: str) -> Iterator[str]:
    """Addresses that a host would have to have for its port mappings and for masquerade, and ports that it uses itself."""
    if not node.snat_address and not any(pod.ports for pod in node.pods):
        return
    own = {address.ip: address.interface for address in facts.addresses if facts.links.get(address.interface) != owner}
    here = ", ".join(f"{ip} ({interface})" for ip, interface in own.items() if interface != "lo") or "none"
    if node.snat_address and node.snat_address not in own:
        yield f"overlay_snat_address: {node.snat_address} is not an address of the host; it has {here}"
    for pod in node.pods:
        for mapping in pod.ports:
            where, address = f"overlay_pods: {pod.name}: {mapping}", mapping.host_address
            if address and address not in own and not ipaddress.IPv4Address(address).is_loopback:
                yield f"{where}: {address} is not an address of the host; it has {here}, or leave it out for any"
            taken = [
                at
                for protocol, at, port in sorted(facts.listening)
                if (protocol, port) == (mapping.protocol, mapping.host_port)
                and (address is None or at in (address, "0.0.0.0", "::"))
            ]
            if taken:
                yield (
                    f"{where}: a process of the host listens on {taken[0]} port {mapping.host_port}/{mapping.protocol} already; "
                    f"choose another host port, or stop it (ss -lnp 'sport = :{mapping.host_port}')"
                )


def lacks(facts: Facts) -> list[str]:
    """The packages that the role node would install."""
    pyroute2 = "python-pyroute2" if facts.os_family == "Archlinux" else "python3-pyroute2"
    packages = [pyroute2 if item == "pyroute2" else item for item in facts.missing if ":" not in item]
    kernel = [item.partition(":")[2] for item in facts.missing if item.startswith("kernel:")]
    return packages + [f"the extra package of kernel {facts.kernel} with {', '.join(kernel)}"] * bool(kernel)


def obstacle(item: Mapping[str, Any]) -> str:
    return f"{item['what']:.300}; {item['remedy']:.300}"


def _of(owner: str) -> str:
    return f" of the document {owner}" if owner else " that is not the overlay's"


def fit(settings: Settings, underlay: Underlay) -> int:
    """The pods' MTU on a host.

    Raises:
        ValueError: ``VARIABLE: what; what to do``.
    """
    most = underlay.mtu - OVERHEAD[settings.backend]
    if settings.mtu is None:
        if most < LOWEST_MTU:
            raise ValueError(
                f"overlay_mtu: {underlay.interface} leaves {most} bytes for a packet, fewer than {LOWEST_MTU}; raise its MTU"
            )
        return most
    if settings.mtu > most:
        raise ValueError(
            f"overlay_mtu: {settings.mtu} is over {most}, the MTU of {underlay.interface} ({underlay.mtu}) less "
            f"{OVERHEAD[settings.backend]} of {settings.backend}; choose {most} or less, or auto"
        )
    return settings.mtu


def off_link(underlays: Mapping[str, Underlay], public_ips: Mapping[str, str]) -> Iterator[str]:
    """host-gw: the nodes that are not on the subnet of the others."""
    if not underlays:
        return
    network = Counter(underlay.network for underlay in underlays.values()).most_common(1)[0][0]
    for name, public_ip in public_ips.items():
        if ipaddress.IPv4Address(public_ip) not in network:
            yield (
                f"{name}: overlay_backend: host-gw needs all nodes on one subnet, and {public_ip} is not on {network}; "
                "choose ipip, or vxlan with overlay_direct_routing"
            )
