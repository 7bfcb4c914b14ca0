# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory: from the variables of the whole group to what is asked for, before any host is contacted.

``read`` gives an ``Inventory``, whatever the variables. What is wrong with them are lines in it,
``HOST: VARIABLE: what; what to do``. Pure, and linear in nodes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from . import _netconf, _passing, _readers
from ._files import LONGEST
from ._firewall_clause import group_name
from ._model import choice, interface_name, ipv4, number
from ._passing import PortMapping, port_mapping
from ._peers import BACKENDS

Network = ipaddress.IPv4Network
T = TypeVar("T")

GROUP_DEFAULTS: dict[str, Any] = {
    "overlay_network": "10.244.0.0/16",
    "overlay_subnet_len": None,
    "overlay_subnet_min": None,
    "overlay_subnet_max": None,
    "overlay_backend": "ipip",
    "overlay_direct_routing": False,
    "overlay_mtu": "auto",
    "overlay_bridge": "cni0",
    "overlay_tunnel": None,
    "overlay_vni": 1,
    "overlay_port": 8472,
    "overlay_masquerade": True,
    "overlay_masquerade_nodes": True,
    "overlay_masquerade_random_fully": True,
    "overlay_no_masquerade": [],
    "overlay_trusted_sources": [],
    "overlay_antispoof": True,
    "overlay_hairpin": True,
    "overlay_policy": None,
    "overlay_cni": False,
    "overlay_docker": False,
    "overlay_podman": False,
    "overlay_net_conf": None,
    "overlay_leases_file": None,
}
"""Variables that must be the same on every node."""
_ON = {name for name, default in GROUP_DEFAULTS.items() if default is True}
HOST_VARIABLES = (
    "overlay_public_ip",
    "overlay_interface",
    "overlay_subnet",
    "overlay_pods",
    "overlay_pod_nameservers",
    "overlay_snat_address",
    "overlay_install",
)
OTHER_VARIABLES = (
    "overlay_forget",
    "overlay_renumber",
    "overlay_move_without",
    "overlay_watch",
    "overlay_confirm_timeout",
    "overlay_serial",
)


@dataclass(frozen=True)
class Settings:
    """What holds for every node.

    ``mtu`` None is each underlay's, less the encapsulation. ``subnet_min`` and ``subnet_max`` are the first addresses of
    the first and the last subnet to be given out. ``trusted_sources`` and ``policy`` are as in a document's ``firewall``.
    """

    network: Network
    subnet_len: int
    backend: str = "ipip"
    direct_routing: bool = False
    mtu: int | None = None
    bridge: str = "cni0"
    tunnel: str | None = "flannel.ipip"
    vni: int = 1
    port: int = 8472
    subnet_min: ipaddress.IPv4Address | None = None
    subnet_max: ipaddress.IPv4Address | None = None
    masquerade: bool = True
    masquerade_nodes: bool = True
    masquerade_random_fully: bool = True
    no_masquerade: tuple[str, ...] = ()
    trusted_sources: tuple[Mapping[str, Any], ...] = ()
    antispoof: bool = True
    hairpin: bool = True
    policy: tuple[Mapping[str, Any], ...] | None = None
    cni: bool = False
    docker: bool = False
    podman: bool = False

    @property
    def shared_with(self) -> list[str]:
        """The variables because of which pods have only a part of their node's subnet."""
        return [f"overlay_{name}" for name in ("cni", "docker", "podman") if getattr(self, name)]

    def as_dict(self) -> dict[str, Any]:
        """The settings in what goes into JSON."""
        texts = {name: value and str(value) for name, value in vars(self).items() if name in _ADDRESSES}
        return {**dataclasses.asdict(self), **texts}


_ADDRESSES = ("network", "subnet_min", "subnet_max")


@dataclass(frozen=True)
class Pod:
    """A pod that is asked for; without an address it gets one."""

    name: str
    address: str | None = None
    ports: tuple[PortMapping, ...] = ()
    group: str | None = None

    @property
    def interface(self) -> str:
        """Its interface on the host; a hash where the pod's name makes it too long."""
        name = f"veth-{self.name}"
        return name if len(name) <= 15 else f"veth{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


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
    snat_address: str | None = None


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


def read(group: str, variables: Mapping[str, Mapping[str, Any]]) -> Inventory:
    """The inventory in the variables of each host of *group*. ``overlay_net_conf`` has to be a mapping or its text."""
    mistakes: list[str] = []
    warnings = [*_unknown(variables)]
    settings = _settings(group, variables, mistakes, warnings)
    nodes = {host: _node(host, values, mistakes) for host, values in variables.items()}
    for node in nodes.values():
        mistakes += _port_mistakes(node, settings)
    if settings is not None:
        mistakes += _unknown_groups(group, settings, nodes)
        if not settings.masquerade:
            warnings += [
                f"{node.name}: overlay_snat_address: has no use, since overlay_masquerade is false"
                for node in nodes.values()
                if node.snat_address
            ]
    return Inventory(group, settings, nodes, tuple(warnings), tuple(mistakes))


def _settings(
    group: str, variables: Mapping[str, Mapping[str, Any]], mistakes: list[str], warnings: list[str]
) -> Settings | None:
    """What holds for every node; None where the network is not known."""
    values = {name: _common(name, default, variables, mistakes) for name, default in GROUP_DEFAULTS.items()}
    explicit = {name for own in variables.values() for name in own if own[name] is not None}
    for name, value in _netconf.variables_of(values["overlay_net_conf"], group, mistakes, warnings).items():
        if name in explicit and _plain(values[name]) != _plain(value):
            mistakes.append(
                f"{group}: {name}: {values[name]!r} contradicts overlay_net_conf, which says {value!r}; keep one of them"
            )
        values[name] = value

    def get(name: str, reader: Callable[[Any], T], fallback: T) -> T:
        value = None if values[name] is None else _value(group, name, values[name], reader, mistakes)
        return fallback if value is None else value

    def told(name: str, reader: Callable[[Any, _passing.Tell], T]) -> T:
        return reader(values[name], lambda mistake: mistakes.append(f"{group}: {name}: {mistake}"))

    def switch(name: str) -> bool:
        return get(name, _readers.truth, fallback=name in _ON)

    backend = get("overlay_backend", choice(*BACKENDS), "")
    network = _value(
        group, "overlay_network", values["overlay_network"], lambda value: _readers.network(value, backend), mistakes
    )
    if network is None:
        return None
    by_default = 24 if network.prefixlen <= 22 else network.prefixlen + 2  # Flannel's
    if values["overlay_subnet_len"] is None:
        _value(
            group,
            "overlay_subnet_len (not set)",
            by_default,
            lambda value: _readers.subnet_len(value, network),
            mistakes,
        )
    subnet_len = get("overlay_subnet_len", lambda value: _readers.subnet_len(value, network), min(by_default, 30))
    vni, port = get("overlay_vni", number(1, 2**24 - 1), 1), get("overlay_port", number(1, 65535), 8472)
    bridge = get("overlay_bridge", interface_name, "cni0")
    tunnel = get("overlay_tunnel", interface_name, f"flannel.{vni}" if backend == "vxlan" else "flannel.ipip")
    if bridge == tunnel:
        mistakes.append(f"{group}: overlay_tunnel: {tunnel} is overlay_bridge too; choose another name")
    mtu = None if values["overlay_mtu"] == "auto" else get("overlay_mtu", _readers.mtu, 0) or None
    first, last = (
        None
        if values[name] is None
        else _value(
            group, name, values[name], lambda value: _readers.subnet_start(value, network, subnet_len), mistakes
        )
        for name in ("overlay_subnet_min", "overlay_subnet_max")
    )
    if first and last and first > last:
        mistakes.append(f"{group}: overlay_subnet_min: {first} is after overlay_subnet_max {last}; exchange them")
        first = last = None
    settings = Settings(
        network,
        subnet_len,
        backend,
        switch("overlay_direct_routing"),
        mtu,
        bridge,
        None if backend == "host-gw" else tunnel,
        vni,
        port,
        first,
        last,
        switch("overlay_masquerade"),
        switch("overlay_masquerade_nodes"),
        switch("overlay_masquerade_random_fully"),
        told("overlay_no_masquerade", _passing.networks),
        told("overlay_trusted_sources", _passing.trusted_sources),
        switch("overlay_antispoof"),
        switch("overlay_hairpin"),
        told("overlay_policy", _passing.policy),
        switch("overlay_cni"),
        switch("overlay_docker"),
        switch("overlay_podman"),
    )
    mistakes += _contradictions(group, settings)
    return settings


def _contradictions(group: str, settings: Settings) -> Iterator[str]:
    """What is wrong with the settings together."""
    for source in settings.trusted_sources:
        for subnet in source["subnets"]:
            if settings.network.subnet_of(Network(subnet)):
                yield (
                    f"{group}: overlay_trusted_sources: {source['address']}: {subnet} has all of overlay_network in it, "
                    "so it could send as any pod; name the networks behind it"
                )
    if settings.shared_with and settings.subnet_len > LONGEST:
        yield (
            f"{group}: overlay_subnet_len: {settings.subnet_len} leaves subnets too small to be shared by pods and "
            f"{', '.join(settings.shared_with)}; choose {LONGEST} or less"
        )


def _unknown_groups(group: str, settings: Settings, nodes: Mapping[str, Node]) -> Iterator[str]:
    """The policy's groups that no pod of the inventory is in."""
    known = {pod.group for node in nodes.values() for pod in node.pods if pod.group}
    for index, rule in enumerate(settings.policy or ()):
        for key in ("to", "from"):
            name = rule.get(key)
            if name and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                yield (
                    f"{group}: overlay_policy: allow[{index}]: {key}: no pod of the inventory is in the group {name}; "
                    + (f"do you mean {close[0]}?" if close else f"set group: {name} at a pod in overlay_pods")
                )


def _port_mistakes(node: Node, settings: Settings | None) -> Iterator[str]:
    """A node's ports that go to two pods, or that the tunnel needs."""
    taken: dict[tuple[str, int], dict[str | None, str]] = {}
    for pod in node.pods:
        for mapping in pod.ports:
            where = f"{node.name}: overlay_pods: {pod.name}: {mapping}"
            owners = taken.setdefault((mapping.protocol, mapping.host_port), {})
            if owners and (mapping.host_address is None or None in owners or mapping.host_address in owners):
                other = owners.get(mapping.host_address) or owners.get(None) or min(owners.values())
                yield f"{where}: the port goes to {other} already; choose another host port or address"
            owners[mapping.host_address] = pod.name
            tunnel = settings and settings.backend == "vxlan" and ("udp", settings.port)
            if tunnel == (mapping.protocol, mapping.host_port):
                yield f"{where}: the port is overlay_port, to which the other nodes' tunnels send; choose another host port"


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
        get("overlay_public_ip", _readers.usable),
        get("overlay_interface", interface_name),
        get("overlay_subnet", lambda value: Network(str(value))),
        tuple(_pods(host, values.get("overlay_pods"), mistakes)),
        get("overlay_pod_nameservers", _readers.addresses) or (),
        str(values.get("ansible_host") or host),
        get("overlay_install", _readers.truth) is not False,
        get("overlay_snat_address", _readers.usable),
    )


_POD_KEYS = ("name", "address", "ports", "group")


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
            f"{host}: {where}: unknown key {key!r}; a pod has {', '.join(_POD_KEYS)}"
            for key in item
            if key not in _POD_KEYS
        ]
        name = _value(host, "overlay_pods", item["name"], _readers.pod_name, mistakes)
        address = None if item.get("address") is None else _value(host, where, item["address"], ipv4, mistakes)
        for what in filter(None, (name, address)):
            if what in seen:
                mistakes.append(f"{host}: {where}: {what} is there twice; choose another")
            seen[what] = what
        ports = item.get("ports") or ()
        if isinstance(ports, (str, Mapping)) or not isinstance(ports, Sequence):
            mistakes.append(f'{host}: {where}: ports: {ports!r} is no list; write it as ["8080:80/tcp"]')
            ports = ()
        read_ports = [_value(host, f"{where}: ports", port, port_mapping, mistakes) for port in ports]
        group = None
        if item.get("group") is not None:
            group = _value(host, f"{where}: group", item["group"], group_name, mistakes)
        if name:
            yield Pod(name, address, tuple(filter(None, read_ports)), group)


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


def _value(where: str, name: str, raw: Any, reader: Callable[[Any], T], mistakes: list[str]) -> T | None:
    try:
        return reader(raw)
    except ValueError as error:
        mistakes.append(f"{where}: {name}: {error}")
        return None


def _plain(value: Any) -> str:
    """A value as an inventory may also write it: 24 and "24" are one, true and "True" too."""
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text
