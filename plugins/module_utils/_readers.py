# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Readers of the inventory's values: each gives a value its type, or raises ValueError with what is wrong with it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._model import interface_name, ipv4, number

Network = ipaddress.IPv4Network

OVERHEAD = {"ipip": 20, "vxlan": 50, "host-gw": 0}
"""What a backend adds to a packet, in bytes."""
LOWEST_MTU = 576


def network(value: Any, backend: str | None) -> Network:
    network = ipaddress.ip_network(str(value))
    if isinstance(network, ipaddress.IPv6Network):
        why = "ipip cannot carry" if backend == "ipip" else "is not served yet"
        raise ValueError(f"{network} is IPv6, which {why}; choose an IPv4 network")
    if network.is_multicast or network.is_loopback or network.is_link_local or network.prefixlen not in range(4, 31):
        raise ValueError(f"{network} cannot be a pod network; choose a private one such as 10.244.0.0/16")
    return network


def network_of(value: Any) -> Network:
    """Any IPv4 network; an address alone is one of its own."""
    try:
        return Network(str(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no IPv4 network ({error}); write it as 192.0.2.0/24") from None


def subnet_start(value: Any, network: Network, length: int) -> ipaddress.IPv4Address:
    """The first address of one of *network*'s subnets of *length*, as Flannel has SubnetMin and SubnetMax."""
    start = ipaddress.IPv4Address(ipv4(value))
    if start not in network:
        raise ValueError(f"{start} is outside overlay_network {network}; choose one inside")
    if int(start) % (1 << 32 - length):
        first = Network((int(start), length), strict=False)[0]
        raise ValueError(f"{start} is not the first address of a subnet of overlay_subnet_len {length}; choose {first}")
    return start


def subnet_len(value: Any, network: Network) -> int:
    length = number(1, 32)(value)
    if not network.prefixlen <= length <= 30:
        raise ValueError(
            f"{length} does not fit: a subnet of {network} has {network.prefixlen} to 30; choose one of these"
        )
    return length


def usable(value: Any) -> str:
    address = ipaddress.IPv4Address(ipv4(value))
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError(f"{address} cannot be reached by other hosts; choose the host's address on the underlay")
    return str(address)


def addresses(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise ValueError(f"{value!r} is no list of addresses")
    return tuple(str(ipaddress.ip_address(item)) for item in value)


def pod_name(value: Any) -> str:
    name = interface_name(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z0-9_][A-Za-z0-9_.-]*", name) or name.startswith("-"):
        raise ValueError(f"{name!r} is no pod name; use letters, digits, '-', '_' and '.'")
    return name


def mtu(value: Any) -> int:
    mtu = number(0, 65535)(value)
    if mtu < LOWEST_MTU:
        raise ValueError(f"{mtu} is below {LOWEST_MTU}; choose more, or auto")
    return mtu


def truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None
