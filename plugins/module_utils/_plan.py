# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan: from inventory, leases and what the hosts say to each node's document and the table of all nodes.

``read`` turns the variables of the whole group into an ``Inventory``, ``judge`` finds what is wrong with it before any
host is contacted, ``plan`` decides once every host has been looked at. All pure, and linear in nodes. A mistake is a
line ``HOST: VARIABLE: what; what to do``, and all of them are raised together.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Callable, TypeVar

from ._leases import Lease, Leases, overlaps
from ._model import DOCUMENT_VERSION, Mistakes, choice, interface_name, ipv4, mac_of, number
from ._peers import BACKENDS, vtep_mac

Network = ipaddress.IPv4Network
T = TypeVar("T")

OVERHEAD = {"ipip": 20, "vxlan": 50, "host-gw": 0}
"""What a backend adds to a packet, in bytes."""
LOWEST_MTU = 576
ALL_PAIRS = 2500
"""Up to this many pairs of pods are all probed; beyond, each pod probes ``SAMPLE`` others."""
SAMPLE = 8
MOST_OBSTACLES = 20
"""Warned of in one run; a fleet's hosts mostly have the same ones, which are one."""
GROUP_DEFAULTS: dict[str, Any] = {
    "overlay_network": "10.244.0.0/16",
    "overlay_subnet_len": None,
    "overlay_backend": "ipip",
    "overlay_direct_routing": False,
    "overlay_mtu": "auto",
    "overlay_bridge": "cni0",
    "overlay_tunnel": None,
    "overlay_vni": 1,
    "overlay_port": 8472,
    "overlay_net_conf": None,
    "overlay_leases_file": None,
}
"""Variables that must be the same on every node."""
HOST_VARIABLES = (
    "overlay_public_ip",
    "overlay_interface",
    "overlay_subnet",
    "overlay_pods",
    "overlay_pod_nameservers",
    "overlay_install",
)
OTHER_VARIABLES = ("overlay_forget",)


@dataclass(frozen=True)
class Settings:
    """What holds for every node. ``mtu`` None is each underlay's, less the encapsulation."""

    network: Network
    subnet_len: int
    backend: str = "ipip"
    direct_routing: bool = False
    mtu: int | None = None
    bridge: str = "cni0"
    tunnel: str | None = "flannel.ipip"
    vni: int = 1
    port: int = 8472


@dataclass(frozen=True)
class Pod:
    """A pod that is asked for; without an address it gets one."""

    name: str
    address: str | None = None


@dataclass(frozen=True)
class Node:
    """What the inventory says of one host."""

    name: str
    public_ip: str | None = None
    interface: str | None = None
    subnet: Network | None = None
    pods: tuple[Pod, ...] = ()
    nameservers: tuple[str, ...] = ()
    ansible_host: str = ""
    install: bool = True


@dataclass(frozen=True)
class Inventory:
    """The group: its settings and nodes, in the inventory's order, and what is wrong with single variables.

    A mistaken variable counts as not set, so that the rest can be judged too.
    """

    group: str
    settings: Settings | None
    nodes: Mapping[str, Node]
    warnings: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()


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
    resolv_conf: str = ""
    os_family: str = ""
    python: str = ""
    missing: tuple[str, ...] = ()
    obstacles: tuple[Mapping[str, Any], ...] = ()

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
            result.get("resolv_conf") or "",
            result["os_family"],
            result["python"],
            tuple(result["missing"]),
            tuple(result["obstacles"]),
        )


@dataclass(frozen=True)
class Underlay:
    """Where a host's tunnel ends: its address, the interface that packets leave by, and that one's network and MTU."""

    public_ip: str
    interface: str
    network: Network
    mtu: int


@dataclass(frozen=True)
class Plan:
    """What comes of it. ``peers`` is the table of all nodes, as JSON."""

    leases: Leases
    peers: str
    documents: Mapping[str, Mapping[str, Any]]
    probes: Mapping[str, Sequence[Mapping[str, Any]]]
    mtus: Mapping[str, int]
    warnings: tuple[str, ...]


# ------------------------------------------------------------------------------------------------ the inventory


def read(group: str, variables: Mapping[str, Mapping[str, Any]]) -> Inventory:
    """The inventory in the variables of each host of *group*. ``overlay_net_conf`` has to be a mapping or its text."""
    mistakes: list[str] = []
    settings = _settings(group, variables, mistakes)
    nodes = {host: _node(host, values, mistakes) for host, values in variables.items()}
    return Inventory(group, settings, nodes, tuple(_unknown(variables)), tuple(mistakes))


def _settings(group: str, variables: Mapping[str, Mapping[str, Any]], mistakes: list[str]) -> Settings | None:
    """What holds for every node; None where the network is not known."""
    values = {name: _common(name, default, variables, mistakes) for name, default in GROUP_DEFAULTS.items()}
    explicit = {name for own in variables.values() for name in own if own[name] is not None}
    for name, value in _net_conf(values["overlay_net_conf"], group, mistakes).items():
        if name in explicit and _plain(values[name]) != _plain(value):
            mistakes.append(
                f"{group}: {name}: {values[name]!r} contradicts overlay_net_conf, which says {value!r}; keep one of them"
            )
        values[name] = value

    def get(name: str, reader: Callable[[Any], T], fallback: T) -> T:
        value = None if values[name] is None else _value(group, name, values[name], reader, mistakes)
        return fallback if value is None else value

    backend = get("overlay_backend", choice(*BACKENDS), "")
    network = _value(
        group, "overlay_network", values["overlay_network"], lambda value: _network(value, backend), mistakes
    )
    if network is None:
        return None
    by_default = 24 if network.prefixlen <= 22 else network.prefixlen + 2  # Flannel's
    if values["overlay_subnet_len"] is None:
        _value(group, "overlay_subnet_len (not set)", by_default, lambda value: _subnet_len(value, network), mistakes)
    subnet_len = get("overlay_subnet_len", lambda value: _subnet_len(value, network), min(by_default, 30))
    vni, port = get("overlay_vni", number(1, 2**24 - 1), 1), get("overlay_port", number(1, 65535), 8472)
    bridge = get("overlay_bridge", interface_name, "cni0")
    tunnel = get("overlay_tunnel", interface_name, f"flannel.{vni}" if backend == "vxlan" else "flannel.ipip")
    if bridge == tunnel:
        mistakes.append(f"{group}: overlay_tunnel: {tunnel} is overlay_bridge too; choose another name")
    mtu = None if values["overlay_mtu"] == "auto" else get("overlay_mtu", _mtu, 0) or None
    direct = get("overlay_direct_routing", _truth, fallback=False)
    tunnelled = None if backend == "host-gw" else tunnel
    return Settings(network, subnet_len, backend, direct, mtu, bridge, tunnelled, vni, port)


def _common(name: str, default: Any, variables: Mapping[str, Mapping[str, Any]], mistakes: list[str]) -> Any:
    """A group variable's value, which most hosts have; the others are mistaken."""
    said = {host: own.get(name, default) for host, own in variables.items()}
    count = Counter(map(_plain, said.values()))
    most = count.most_common(1)[0][0]
    common = next(value for value in said.values() if _plain(value) == most)
    if len(count) > 1:
        differs = "is not set on the others" if common is None else f"differs from {common!r}, which the others have"
        mistakes += [
            f"{host}: {name}: {value!r} {differs}; set it for the whole group"
            for host, value in said.items()
            if _plain(value) != most
        ]
    return common


def _node(host: str, values: Mapping[str, Any], mistakes: list[str]) -> Node:
    def get(name: str, reader: Callable[[Any], T]) -> T | None:
        raw = values.get(name)
        return None if raw is None else _value(host, name, raw, reader, mistakes)

    return Node(
        host,
        get("overlay_public_ip", _usable),
        get("overlay_interface", interface_name),
        get("overlay_subnet", lambda value: Network(str(value))),
        tuple(_pods(host, values.get("overlay_pods"), mistakes)),
        get("overlay_pod_nameservers", _addresses) or (),
        str(values.get("ansible_host") or host),
        get("overlay_install", _truth) is not False,
    )


def _pods(host: str, raw: Any, mistakes: list[str]) -> Iterator[Pod]:
    if raw is not None and (isinstance(raw, (str, Mapping)) or not isinstance(raw, Sequence)):
        mistakes.append(f"{host}: overlay_pods: {raw!r} is no list; write it as [{{name: web}}, {{name: db}}]")
        return
    seen: dict[str, str] = {}
    for item in raw or ():
        if not isinstance(item, Mapping) or "name" not in item:
            mistakes.append(f"{host}: overlay_pods: {item!r} is no mapping with a name; write it as {{name: web}}")
            continue
        where = f"overlay_pods: {item['name']}"
        mistakes += [
            f"{host}: {where}: unknown key {key!r}; a pod has name and address"
            for key in item
            if key not in ("name", "address")
        ]
        name = _value(host, "overlay_pods", item["name"], _pod_name, mistakes)
        address = None if item.get("address") is None else _value(host, where, item["address"], ipv4, mistakes)
        for what in filter(None, (name, address)):
            if what in seen:
                mistakes.append(f"{host}: {where}: {what} is there twice; choose another")
            seen[what] = what
        if name:
            yield Pod(name, address)


def _unknown(variables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Warnings of variables that look like a misspelt one."""
    known = (*GROUP_DEFAULTS, *HOST_VARIABLES, *OTHER_VARIABLES)
    where = {
        name: host
        for host, own in variables.items()
        for name in own
        if name.startswith("overlay_") and name not in known
    }
    for name, host in sorted(where.items()):
        for close in difflib.get_close_matches(name, known, 1, 0.85):
            yield f"{host}: {name}: is not read; do you mean {close}?"


_SERVED = {  # in lower case, since Flannel reads its keys without regard to case
    "network": "overlay_network",
    "subnetlen": "overlay_subnet_len",
    "backend.type": "overlay_backend",
    "backend.directrouting": "overlay_direct_routing",
    "backend.vni": "overlay_vni",
    "backend.port": "overlay_port",
}
_NOT_SERVED = {
    "ipv6network",
    "enableipv6",
    "enablenftables",
    "subnetmin",
    "subnetmax",
    "ipv6subnetmin",
    "ipv6subnetmax",
    "ipv6subnetlen",
    "backend.mtu",
    "backend.gbp",
    "backend.learning",
    "backend.macprefix",
    "backend.psk",
    "backend.listenport",
    "backend.mode",
    "backend.persistentkeepaliveinterval",
}


def _net_conf(raw: Any, group: str, mistakes: list[str]) -> dict[str, Any]:
    """The variables that Flannel's net-conf.json (pkg/subnet/config.go) stands for."""
    if raw is None:
        return {}
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            mistakes.append(
                f"{group}: overlay_net_conf: is not JSON ({error}); give Flannel's net-conf.json as text, mapping or file"
            )
            return {}
    conf = {str(key): value for key, value in raw.items()} if isinstance(raw, Mapping) else {}
    backends = [value for key, value in conf.items() if key.lower() == "backend"]
    if not isinstance(raw, Mapping) or not all(isinstance(backend, Mapping) for backend in backends):
        mistakes.append(
            f"{group}: overlay_net_conf: {raw!r} is no net-conf.json; it is a mapping, and so is its Backend"
        )
        return {}
    flat = {key: value for key, value in conf.items() if key.lower() != "backend"}
    for backend in backends:
        flat.update({f"Backend.{key}": value for key, value in backend.items()})
    variables = {}
    for key, value in flat.items():
        if key.lower() in _SERVED:
            is_type = key.lower() == "backend.type"
            variables[_SERVED[key.lower()]] = str(value).lower() if is_type else value
        elif key.lower() in _NOT_SERVED and value not in (False, None):
            mistakes.append(f"{group}: overlay_net_conf: {key} is not served by this version; leave it out")
        elif key.lower() not in _NOT_SERVED and (key.lower(), value) != ("enableipv4", True):
            mistakes.append(f"{group}: overlay_net_conf: {key}: {value!r} is not known; leave it out")
    return variables


def _value(where: str, name: str, raw: Any, reader: Callable[[Any], T], mistakes: list[str]) -> T | None:
    try:
        return reader(raw)
    except ValueError as error:
        mistakes.append(f"{where}: {name}: {error}")
        return None


def _network(value: Any, backend: str | None) -> Network:
    network = ipaddress.ip_network(str(value))
    if isinstance(network, ipaddress.IPv6Network):
        why = "ipip cannot carry" if backend == "ipip" else "is not served yet"
        raise ValueError(f"{network} is IPv6, which {why}; choose an IPv4 network")
    if network.is_multicast or network.is_loopback or network.is_link_local or network.prefixlen not in range(4, 31):
        raise ValueError(f"{network} cannot be a pod network; choose a private one such as 10.244.0.0/16")
    return network


def _subnet_len(value: Any, network: Network) -> int:
    length = number(1, 32)(value)
    if not network.prefixlen <= length <= 30:
        raise ValueError(
            f"{length} does not fit: a subnet of {network} has {network.prefixlen} to 30; choose one of these"
        )
    return length


def _usable(value: Any) -> str:
    address = ipaddress.IPv4Address(ipv4(value))
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError(f"{address} cannot be reached by other hosts; choose the host's address on the underlay")
    return str(address)


def _addresses(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise ValueError(f"{value!r} is no list of addresses")
    return tuple(str(ipaddress.ip_address(item)) for item in value)


def _pod_name(value: Any) -> str:
    name = interface_name(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name.startswith("-"):
        raise ValueError(f"{name!r} is no pod name; use letters, digits, '-', '_' and '.'")
    return name


def _mtu(value: Any) -> int:
    mtu = number(0, 65535)(value)
    if mtu < LOWEST_MTU:
        raise ValueError(f"{mtu} is below {LOWEST_MTU}; choose more, or auto")
    return mtu


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None


def _plain(value: Any) -> str:
    """A value as an inventory may also write it: 24 and "24" are one, true and "True" too."""
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text


# ------------------------------------------------------------------------------------------------ judging


def judge(inventory: Inventory, leases: Leases | None) -> Iterator[str]:
    """What inventory and leases show to be wrong, before any host is contacted."""
    yield from inventory.mistakes
    yield from _duplicates({node.name: node.public_ip for node in inventory.nodes.values() if node.public_ip})
    if inventory.settings is None:
        return
    settings, known = inventory.settings, leases or Leases(inventory.settings.network)
    mistakes = [*_underlay_inside(inventory.nodes, settings.network)]
    subnets = _claims(inventory.nodes, settings.network, known, {}, mistakes)
    waiting = [name for name in inventory.nodes if name not in subnets and not _kept_out(name, known)]
    if len(_allocate(settings, waiting, subnets, ())) < len(waiting):
        mistakes.append(_exhausted(inventory.group, settings, len(inventory.nodes)))
    for name, subnet in subnets.items():
        _pod_addresses(inventory.nodes[name], subnet, _lease_of(name, known), None, mistakes)
    for name in waiting:
        mistakes += _pods_of_no_subnet_yet(inventory.nodes[name], settings)
    yield from mistakes


def _pods_of_no_subnet_yet(node: Node, settings: Settings) -> Iterator[str]:
    """What is wrong with a node's pods, whichever subnet it gets."""
    room = (1 << 32 - settings.subnet_len) - 3
    if len(node.pods) > room:
        yield (
            f"{node.name}: overlay_pods: {len(node.pods)} pods do not fit into a subnet of overlay_subnet_len "
            f"{settings.subnet_len}, which holds {room}; choose fewer"
        )
    for pod in node.pods:
        if pod.address and ipaddress.IPv4Address(pod.address) not in settings.network:
            yield (
                f"{node.name}: overlay_pods: {pod.name}: {pod.address} is outside overlay_network {settings.network}; "
                "choose another"
            )


def _underlay_inside(nodes: Mapping[str, Node], network: Network) -> Iterator[str]:
    for node in nodes.values():
        if node.public_ip and ipaddress.IPv4Address(node.public_ip) in network:
            yield (
                f"{node.name}: overlay_public_ip: {node.public_ip} is inside overlay_network {network}; "
                "choose another network for pods"
            )


def _duplicates(public_ips: Mapping[str, str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for host, public_ip in public_ips.items():
        if public_ip in first:
            yield (
                f"{host}: overlay_public_ip: {public_ip} is also that of {first[public_ip]}; "
                "each node needs its own: set overlay_public_ip or overlay_interface"
            )
        first.setdefault(public_ip, host)


def _lease_of(name: str, leases: Leases) -> Lease | None:
    """The lease of a node, also of one that has come back to the inventory."""
    return leases.nodes.get(name) or leases.removed.get(name)


def _kept_out(name: str, leases: Leases) -> bool:
    """Whether a playbook removed the node: it stays out until it is let in again."""
    return name not in leases.nodes and name in leases.removed and leases.removed[name].reason == "playbook"


def _claims(
    nodes: Mapping[str, Node], network: Network, leases: Leases, facts: Mapping[str, Facts], mistakes: list[str]
) -> dict[str, Network]:
    """The subnets that are decided already: by variable, by lease, or by what the host carries."""
    claims: dict[str, tuple[str, Network]] = {}
    taken = {lease.subnet for name, lease in leases.nodes.items() if name in nodes}
    taken |= {node.subnet for node in nodes.values() if node.subnet}
    for name, node in nodes.items():
        if _kept_out(name, leases):
            continue
        lease, carried = _lease_of(name, leases), facts[name].carries if name in facts else None
        returning = name not in leases.nodes
        if node.subnet is not None:
            claims[name] = ("overlay_subnet", node.subnet)
            if not node.subnet.subnet_of(network):
                mistakes.append(
                    f"{name}: overlay_subnet: {node.subnet} is outside overlay_network {network}; choose one inside"
                )
            elif node.subnet.prefixlen > 30:
                mistakes.append(f"{name}: overlay_subnet: {node.subnet} has no room for pods; choose a /30 or larger")
        elif lease is not None and not (returning and lease.subnet in taken):
            claims[name] = ("the lease", lease.subnet)
        elif carried:
            claims[name] = ("what the host carries", Network(carried["subnet"]))
            if carried["network"] != str(network):
                mistakes.append(
                    f"{name}: overlay_network: the host carries {carried['subnet']} of {carried['network'] or 'another network'}, "
                    f"not of {network}; restore the variable, or run teardown.yml first"
                )
    for pair in overlaps((name, subnet) for name, (_origin, subnet) in claims.items()):
        one, other = sorted(
            pair, key=lambda name: claims[name][0] != "overlay_subnet"
        )  # the one that the inventory can change
        (origin, subnet), (origin_of_other, of_other) = claims[one], claims[other]
        mistakes.append(
            f"{one}: overlay_subnet: {subnet} (by {origin}) overlaps {of_other} of {other} (by {origin_of_other}); choose another"
        )
    return {name: subnet for name, (_origin, subnet) in claims.items()}


def _allocate(
    settings: Settings, names: Sequence[str], taken: Mapping[str, Network], reserved: Iterable[Network]
) -> dict[str, Network]:
    """First free subnets for *names*; reserved ones only when there is no other. Those that got none are left out."""
    given: dict[str, Network] = {}
    for held in ([*taken.values(), *reserved], [*taken.values()]):
        waiting = [name for name in names if name not in given]
        if waiting:
            given.update(zip(waiting, _free(settings, [*held, *given.values()])))
    return given


def _free(settings: Settings, taken: Iterable[Network]) -> Iterator[Network]:
    """The free subnets, in order."""
    size = 1 << 32 - settings.subnet_len
    cursor, end = _span(settings.network)
    for first, after in sorted(map(_span, taken)):
        yield from (Network((start, settings.subnet_len)) for start in range(cursor, first - size + 1, size))
        cursor = max(cursor, first - first % size, -(-after // size) * size)
    yield from (Network((start, settings.subnet_len)) for start in range(cursor, end - size + 1, size))


def _span(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + network.num_addresses


def _exhausted(who: str, settings: Settings, nodes: int) -> str:
    room = 1 << settings.subnet_len - settings.network.prefixlen
    return (
        f"{who}: overlay_network: {settings.network} is too small: it has {room} subnets of overlay_subnet_len {settings.subnet_len} "
        f"for {nodes} nodes; choose a larger network, or a larger overlay_subnet_len (smaller subnets)"
    )


def _pod_addresses(
    node: Node, subnet: Network, lease: Lease | None, carried: Mapping[str, Any] | None, mistakes: list[str]
) -> dict[str, str]:
    """Each pod's address: as asked for, as leased, as carried, else the first free one after the gateway."""
    first, after = _span(subnet)
    pods = range(first + 2, after - 1)
    old = {**((carried or {}).get("pods") or {}), **(lease.pods if lease else {})}
    numbers = {name: int(ipaddress.IPv4Address(address)) for name, address in old.items()}
    given: dict[str, int] = {}
    owners: dict[int, str] = {}
    for pod in node.pods:
        if pod.address:
            value = int(ipaddress.IPv4Address(pod.address))
            if value not in pods:
                special = {
                    first: "is the subnet's own address",
                    first + 1: "is the gateway's",
                    after - 1: "is the broadcast address",
                }
                why = special.get(value, "is outside the node's subnet")
                mistakes.append(
                    f"{node.name}: overlay_pods: {pod.name}: {pod.address} {why}; choose another of {subnet}"
                )
            given[pod.name], owners[value] = value, pod.name
    for pod in node.pods:
        value = numbers.get(pod.name, 0)
        if pod.name not in given and value in pods:
            if value in owners:
                mistakes.append(
                    f"{node.name}: overlay_pods: {owners[value]}: {ipaddress.IPv4Address(value)} is leased to {pod.name}; choose another"
                )
            given[pod.name] = value
            owners.setdefault(value, pod.name)
    free = (value for value in pods if value not in owners)
    for pod, value in zip([pod for pod in node.pods if pod.name not in given], free):
        given[pod.name] = value
    if len(given) < len(node.pods):
        mistakes.append(
            f"{node.name}: overlay_pods: {len(node.pods)} pods do not fit into {subnet}, which holds {len(pods)}; choose fewer"
        )
    return {pod.name: str(ipaddress.IPv4Address(given[pod.name])) for pod in node.pods if pod.name in given}


# ------------------------------------------------------------------------------------------------ the hosts


def _underlay(node: Node, facts: Facts, owner: str) -> Underlay:
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


def _host_mistakes(
    node: Node, facts: Facts, settings: Settings, subnets: Mapping[str, str], owner: str
) -> Iterator[str]:
    """What is wrong with a host that answered, without its name."""
    if not facts.privileged:
        yield "ansible_become: the tasks do not run as root; use --become, or set ansible_become: true"
    yield from (_obstacle(item) for item in facts.obstacles if item["fatal"])
    lacks = _lacks(facts)
    if lacks and not (node.install and facts.os_family):
        remedy = (
            ", or set overlay_install: true" if facts.os_family else " by hand, since its distribution is not known"
        )
        yield f"overlay_install: the host lacks {', '.join(lacks)} (for its interpreter {facts.python}); install that{remedy}"
    if facts.backends.get(settings.backend) is False and f"kernel:{settings.backend}" not in facts.missing:
        able = ", ".join(name for name in BACKENDS if facts.backends.get(name)) or "none"
        yield f"overlay_backend: the host's kernel {facts.kernel} has no {settings.backend}; what it can do: {able}"
    ours = [name for name in (settings.bridge, settings.tunnel) if name]
    foreign = {name for name, by in facts.links.items() if by != owner}
    for variable, names in (
        ("overlay_bridge", ours[:1]),
        ("overlay_tunnel", ours[1:]),
        ("overlay_pods", map(veth_name, node.pods)),
    ):
        for name in names:
            if name in foreign:
                yield f"{variable}: the host has a link {name}{_of(facts.links[name])}; remove it, or choose another name"
    for pod in node.pods:
        if facts.namespaces.get(pod.name, owner) != owner:
            yield f"overlay_pods: the host has a namespace {pod.name}{_of(facts.namespaces[pod.name])}; remove it, or choose another name"
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


def _lacks(facts: Facts) -> list[str]:
    """The packages that the role node would install."""
    pyroute2 = "python-pyroute2" if facts.os_family == "Archlinux" else "python3-pyroute2"
    packages = [pyroute2 if item == "pyroute2" else item for item in facts.missing if ":" not in item]
    kernel = [item.partition(":")[2] for item in facts.missing if item.startswith("kernel:")]
    return packages + [f"the extra package of kernel {facts.kernel} with {', '.join(kernel)}"] * bool(kernel)


def _obstacle(item: Mapping[str, Any]) -> str:
    return f"{item['what']:.300}; {item['remedy']:.300}"


def _of(owner: str) -> str:
    return f" of the document {owner}" if owner else " that is not the overlay's"


def _fit(settings: Settings, underlay: Underlay) -> int:
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


def _off_link(underlays: Mapping[str, Underlay], public_ips: Mapping[str, str]) -> Iterator[str]:
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


# ------------------------------------------------------------------------------------------------ the plan


def plan(
    inventory: Inventory,
    leases: Leases | None,
    facts: Mapping[str, Facts],
    leases_file: str = "the leases file",
    owner: str = "overlay",
) -> Plan:
    """Decide. *facts* are of the hosts that answered; all other nodes stay as their leases say.

    Args:
        owner: the document's name.
        leases_file: its path, for errors.

    Raises:
        Mistakes: everything that is wrong; then no host may be changed.
    """
    if inventory.mistakes or inventory.settings is None:
        raise Mistakes(inventory.mistakes)
    settings = inventory.settings
    known = leases or Leases(settings.network)
    mistakes: list[str] = []
    warnings = [*inventory.warnings, *_kept_out_warning(inventory.nodes, known)]

    members = [name for name in inventory.nodes if not _kept_out(name, known)]
    lost = [name for name in members if name not in facts and not _knows(name, inventory.nodes[name], known)]
    if lost and leases is None:
        remedy = "restore the file, run on all hosts, or set overlay_subnet and overlay_public_ip"
        mistakes += [
            f"{name}: overlay_leases_file: the host did not answer, and {leases_file}, which would know its subnet, is not there; {remedy}"
            for name in lost
        ]
    elif lost:
        warnings.append(f"{_some(lost)}: not reached and without a lease, so left out; run on them too")
    left_out = set(lost)
    members = [name for name in members if name not in left_out]
    nodes = {name: inventory.nodes[name] for name in members}
    for name in members:
        if name not in facts and _lease_of(name, known):  # a new overlay_subnet counts when the host is reached
            nodes[name] = dataclasses.replace(nodes[name], subnet=None)

    mistakes += _underlay_inside(nodes, settings.network)
    subnets = _claims(nodes, settings.network, known, facts, mistakes)
    warnings += _renumbered(subnets, facts)
    gone = {name: lease for name, lease in {**known.removed, **known.nodes}.items() if name not in subnets}
    waiting = [name for name in members if name not in subnets]
    subnets.update(_allocate(settings, waiting, subnets, [lease.subnet for lease in gone.values()]))
    mistakes += [_exhausted(name, settings, len(members)) for name in waiting if name not in subnets]
    subnets = {name: subnets[name] for name in members if name in subnets}

    underlays: dict[str, Underlay] = {}
    mtus: dict[str, int] = {}
    table = {str(subnet): name for name, subnet in subnets.items()}
    for name in (name for name in members if name in facts):
        try:
            underlays[name] = _underlay(nodes[name], facts[name], owner)
            mtus[name] = _fit(settings, underlays[name])
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
        mistakes += [
            f"{name}: {mistake}" for mistake in _host_mistakes(nodes[name], facts[name], settings, table, owner)
        ]

    new = {}
    for name, subnet in subnets.items():
        new[name] = _new_lease(
            nodes[name], subnet, known, facts.get(name), underlays.get(name), mtus.get(name), mistakes
        )
    public_ips = {name: lease.public_ip for name, lease in new.items() if lease.public_ip}
    mistakes += [line for line in _duplicates(public_ips) if line not in mistakes]
    if settings.backend == "host-gw":
        mistakes += _off_link(underlays, public_ips)
    if mistakes:
        raise Mistakes(list(dict.fromkeys(mistakes)))

    warnings += _uneven(new)
    warnings += _obstacles({name: facts[name] for name in underlays})
    peers = {str(lease.subnet): lease.public_ip for lease in new.values()}
    return Plan(
        Leases(settings.network, new, _removed(gone, known, new)),
        json.dumps(peers, separators=(",", ":")),
        {name: _document(settings, nodes[name], new[name], underlays[name], facts[name], owner) for name in underlays},
        probes(new, underlays),
        mtus,
        tuple(warnings),
    )


def _knows(name: str, node: Node, leases: Leases) -> bool:
    """Whether a node that was not reached can be a peer: by its lease, or because the inventory says it all."""
    return _lease_of(name, leases) is not None or bool(node.subnet and node.public_ip)


def _new_lease(
    node: Node,
    subnet: Network,
    known: Leases,
    facts: Facts | None,
    underlay: Underlay | None,
    mtu: int | None,
    mistakes: list[str],
) -> Lease:
    lease = _lease_of(node.name, known)
    if facts is None:  # what it has is what it was given last
        if lease is not None and lease.subnet == subnet:
            return dataclasses.replace(lease, reason="")
        public_ip = lease.public_ip if lease else node.public_ip
        return Lease(subnet, public_ip or "", pods=_pod_addresses(node, subnet, lease, None, mistakes))
    pods = _pod_addresses(node, subnet, lease, facts.carries, mistakes)
    return Lease(subnet, underlay.public_ip if underlay else "", mtu, pods)


def _removed(gone: Mapping[str, Lease], known: Leases, new: Mapping[str, Lease]) -> dict[str, Lease]:
    """The leases of nodes that have left, but for those whose subnet another node has by now."""
    reasons = {name: known.removed[name].reason for name in known.removed}
    left = {
        name: dataclasses.replace(lease, reason="inventory" if name in known.nodes else reasons[name])
        for name, lease in gone.items()
        if name not in new
    }
    everyone = [(name, lease.subnet) for name, lease in (*left.items(), *new.items())]
    for name, other in overlaps(everyone):
        left.pop(name if name in left else other, None)
    return left


def _kept_out_warning(nodes: Mapping[str, Node], known: Leases) -> Iterator[str]:
    out = [name for name in nodes if _kept_out(name, known)]
    if out:
        yield f"{_some(out)}: removed by a playbook, so left out; delete the line under removed in the leases file to let it in again"


def _renumbered(subnets: Mapping[str, Network], facts: Mapping[str, Facts]) -> Iterator[str]:
    for name, subnet in subnets.items():
        carried = facts[name].carries if name in facts else None
        if carried and carried["subnet"] != str(subnet):
            yield f"{name}: carries {carried['subnet']} and is renumbered to {subnet}, which its variable or lease says"


def _uneven(leases: Mapping[str, Lease]) -> Iterator[str]:
    mtus = Counter(lease.mtu for lease in leases.values() if lease.mtu)
    if len(mtus) > 1:
        least = min(mtus)
        low = [name for name, lease in leases.items() if lease.mtu == least]
        yield f"the nodes' MTUs differ, and large packets to {_some(low)} will be lost or cut up; set overlay_mtu to {least} for the group"


def _obstacles(facts: Mapping[str, Facts]) -> Iterator[str]:
    hosts: dict[str, list[str]] = {}
    for name, its in facts.items():
        for item in its.obstacles:
            hosts.setdefault(_obstacle(item), []).append(name)
    yield from (f"{_some(names, 2)}: {text}" for text, names in islice(hosts.items(), MOST_OBSTACLES))
    if len(hosts) > MOST_OBSTACLES:
        yield f"{len(hosts) - MOST_OBSTACLES} other obstacles are in the hosts' podnet_node.obstacles"


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return ", ".join(islice(names, most)) + more


# ------------------------------------------------------------------------------------------------ the documents


def veth_name(pod: Pod) -> str:
    """A pod's interface on the host; a hash where the pod's name makes it too long."""
    name = f"veth-{pod.name}"
    return name if len(name) <= 15 else f"veth{hashlib.sha256(pod.name.encode()).hexdigest()[:8]}"


def _document(
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
            "name": veth_name(Pod(name)),
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


# ------------------------------------------------------------------------------------------------ probes


def probes(leases: Mapping[str, Lease], hosts: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Which pods of *hosts* probe which of other nodes: all pairs of a small fleet, else a sample that has every node on both sides."""
    pods = [(node, name, address) for node, lease in leases.items() for name, address in lease.pods.items()]
    sizes = Counter(node for node, _name, _address in pods)
    pairs = sum((len(pods) - size) * size for size in sizes.values())
    chosen: dict[int, list[int]] = {}
    start = dict(_starts(sizes))
    for index, (node, _name, _address) in enumerate(pods):
        others = len(pods) - sizes[node]  # they follow the node's own pods in the circle
        count = others if pairs <= ALL_PAIRS else min(SAMPLE, others)
        own = index - start[node]
        steps = sorted({(own + step * others // count) % others for step in range(count)}) if count else ()
        chosen[index] = [(start[node] + sizes[node] + step) % len(pods) for step in steps]
    reached = {pods[target][0] for targets in chosen.values() for target in targets}
    for node, first in start.items():
        if node not in reached and len(sizes) > 1:
            chosen[(first + sizes[node]) % len(pods)].append(first)
    result: dict[str, list[dict[str, Any]]] = {host: [] for host in hosts}
    for index, targets in chosen.items():
        node, name, _address = pods[index]
        if node in result and targets:
            to = [{"address": pods[target][2], "pod": pods[target][1], "node": pods[target][0]} for target in targets]
            result[node].append({"namespace": name, "targets": to})
    return result


def _starts(sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    first = 0
    for node, size in sizes.items():
        yield node, first
        first += size
