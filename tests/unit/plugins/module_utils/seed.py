# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The seed's fleet as the plan answers it: k8s-1 and k8s-2, and what is needed to make their paths."""

from __future__ import annotations

from typing import Any

NODES: dict[str, Any] = {
    "k8s-1": {"subnet": "10.244.0.0/24", "public_ip": "172.12.1.11", "mtu": 1480, "pods": {"cni-8v2vj": "10.244.0.3"}},
    "k8s-2": {
        "subnet": "10.244.1.0/24",
        "public_ip": "172.12.1.12",
        "mtu": 1480,
        "pods": {"cni-w8b7p": "10.244.1.7", "dns": "10.244.1.4"},
    },
}
SETTINGS: dict[str, Any] = {
    "network": "10.244.0.0/16",
    "backend": "ipip",
    "direct_routing": False,
    "bridge": "cni0",
    "tunnel": "flannel.ipip",
    "vni": 1,
    "port": 8472,
}
SOURCE, TARGET = "cni-8v2vj@k8s-1", "cni-w8b7p@k8s-2"
