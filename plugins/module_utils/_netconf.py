# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Flannel's net-conf.json (pkg/subnet/config.go, and each backend's own keys) as the inventory's variables. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ._model import number
from ._peers import BACKENDS
from ._readers import OVERHEAD, truth

_VARIABLES = {  # in lower case, since Flannel reads its keys without regard to case
    "network": "overlay_network",
    "subnetlen": "overlay_subnet_len",
    "subnetmin": "overlay_subnet_min",
    "subnetmax": "overlay_subnet_max",
    "backend.directrouting": "overlay_direct_routing",
    "backend.vni": "overlay_vni",
    "backend.port": "overlay_port",
}
_OTHER_BACKENDS = (
    "udp",
    "wireguard",
    "ipsec",
    "extension",
    "alloc",
    "aws-vpc",
    "gce",
    "ali-vpc",
    "tencent-vpc",
)
_NOT_SERVED = {
    "ipv6network",
    "ipv6subnetmin",
    "ipv6subnetmax",
    "ipv6subnetlen",
    "backend.gbp",
    "backend.learning",
    "backend.macprefix",
    "backend.psk",
    "backend.listenport",
    "backend.mode",
    "backend.persistentkeepaliveinterval",
}
_SWITCHES = {
    "enableipv4": (True, "the overlay carries IPv4"),
    "enableipv6": (False, "the overlay carries IPv4 only"),
}


def variables_of(raw: Any, group: str, mistakes: list[str], warnings: list[str]) -> dict[str, Any]:
    """The variables that a net-conf.json, as mapping or text, stands for. What is wrong or worth a word is added."""
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
    backends = {key: value for key, value in conf.items() if key.lower() == "backend"}
    if not isinstance(raw, Mapping) or not all(isinstance(backend, Mapping) for backend in backends.values()):
        mistakes.append(
            f"{group}: overlay_net_conf: {raw!r} is no net-conf.json; it is a mapping, and so is its Backend"
        )
        return {}
    flat = {key: value for key, value in conf.items() if key not in backends}
    flat.update((f"{name}.{key}", value) for name, backend in backends.items() for key, value in backend.items())
    kind = next((str(value).lower() for key, value in flat.items() if key.lower() == "backend.type"), "")
    variables: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for key, value in flat.items():
        first = spelled.setdefault(key.lower(), key)
        if flat[first] != value:
            mistakes.append(
                f"{group}: overlay_net_conf: {key}: {value!r} contradicts {first}, which says {flat[first]!r}; "
                "Flannel takes them for one key, so keep one of them"
            )
        if first != key:
            continue
        try:
            variables.update(_variable(key, value, kind))
        except ValueError as error:
            mistakes.append(f"{group}: overlay_net_conf: {key}: {error}")
        if key.lower() == "enablenftables" and str(value).lower() == "false":
            warnings.append(
                f"{group}: overlay_net_conf: {key}: {value!r} changes nothing; the rules are nftables always"
            )
    return variables


def _variable(key: str, value: Any, backend: str) -> Iterator[tuple[str, Any]]:
    """What one key stands for.

    Raises:
        ValueError: it is refused.
    """
    known = key.lower()
    if known in _VARIABLES:
        yield _VARIABLES[known], value
    elif known == "backend.type":
        if backend in _OTHER_BACKENDS:
            raise ValueError(f"Flannel's {backend} is not served; choose one of {', '.join(BACKENDS)}")
        if backend not in BACKENDS:
            raise ValueError(f"{value!r} is none of {', '.join(BACKENDS)}")
        yield "overlay_backend", backend
    elif known == "backend.mtu":
        if backend != "vxlan":
            raise ValueError(
                f"is not served with {backend or 'no Type'}, nor by Flannel; set overlay_mtu, the pods' own"
            )
        if number(0, 65535)(value):  # Flannel's is the MTU of the outgoing packets, 0 being the interface's
            yield "overlay_mtu", number(0, 65535)(value) - OVERHEAD["vxlan"]
    elif known in _SWITCHES:
        served, why = _SWITCHES[known]
        if truth(value) is not served:
            raise ValueError(f"{value!r} is not served: {why}; leave it out")
    elif known == "enablenftables":
        truth(value)
    elif known not in _NOT_SERVED:
        raise ValueError(f"{value!r} is not known; leave it out")
    elif value not in (False, None):
        raise ValueError("is not served by this version; leave it out")
