# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Flannel's net-conf.json (pkg/subnet/config.go) as the inventory's variables. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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


def variables_of(raw: Any, group: str, mistakes: list[str]) -> dict[str, Any]:
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
