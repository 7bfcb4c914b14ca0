# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory: from the variables of the whole group to what is asked for, before any host is contacted.

``read`` gives an ``Inventory``, whatever the variables. What is wrong with them are lines in it,
``HOST: VARIABLE: what; what to do``. Pure, and linear in nodes.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, TypeVar

from . import _netconf, _readers
from ._model import choice, interface_name, ipv4, number
from ._peers import BACKENDS

Network = ipaddress.IPv4Network
T = TypeVar("T")

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
    settings = _settings(group, variables, mistakes)
    nodes = {host: _node(host, values, mistakes) for host, values in variables.items()}
    return Inventory(group, settings, nodes, tuple(_unknown(variables)), tuple(mistakes))


def _settings(group: str, variables: Mapping[str, Mapping[str, Any]], mistakes: list[str]) -> Settings | None:
    """What holds for every node; None where the network is not known."""
    values = {name: _common(name, default, variables, mistakes) for name, default in GROUP_DEFAULTS.items()}
    explicit = {name for own in variables.values() for name in own if own[name] is not None}
    for name, value in _netconf.variables_of(values["overlay_net_conf"], group, mistakes).items():
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
    direct = get("overlay_direct_routing", _readers.truth, fallback=False)
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
        get("overlay_public_ip", _readers.usable),
        get("overlay_interface", interface_name),
        get("overlay_subnet", lambda value: Network(str(value))),
        tuple(_pods(host, values.get("overlay_pods"), mistakes)),
        get("overlay_pod_nameservers", _readers.addresses) or (),
        str(values.get("ansible_host") or host),
        get("overlay_install", _readers.truth) is not False,
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
        name = _value(host, "overlay_pods", item["name"], _readers.pod_name, mistakes)
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
