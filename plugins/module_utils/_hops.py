# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the walk of a packet speaks of: packets, the interfaces that see them, and what is wrong there. Pure."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field

Facts = dict[str, t.Any]

ETHERNET, IP, UDP, VXLAN = 14, 20, 8, 8  # bytes of headers
TRANSLATIONS = {"masquerade": "src", "snat": "src", "dnat": "dst", "redirect": "dst"}
"""What rules may do to a packet's addresses, and to which."""
PROTOCOLS = {"icmp": 1, "ipip": 4, "tcp": 6, "udp": 17}


@dataclass(frozen=True)
class Packet:
    """An IPv4 packet as it looks at one interface. ``length`` is the IP header's; ``inner`` is what a tunnel carries."""

    src: str
    dst: str
    protocol: str = "icmp"
    ttl: int = 64
    length: int = 84
    df: bool = True
    sport: int = 0
    dport: int = 0
    vni: int = 0
    inner: Packet | None = None
    inner_source_mac: str = ""
    inner_destination_mac: str = ""

    @property
    def innermost(self) -> Packet:
        return self.inner.innermost if self.inner else self

    def as_data(self) -> Facts:
        data = {key: value for key, value in asdict(self).items() if value not in ("", 0) or key in ("ttl", "df")}
        return {**data, "inner": self.inner.as_data() if self.inner else None}


@dataclass(frozen=True)
class Overlay:
    """What the plan wants of this host for the packet's destination, as podnet.overlay.flow says it. All may be unknown."""

    subnet: str = ""
    """The destination's."""
    remote: str = ""
    """The public_ip of the node that has it, if it is not this one."""
    via: str = ""
    """The gateway of the route to it: with vxlan the far tunnel's own address, else *remote*."""
    dev: str = ""
    """The device of that route; not known with host-gw."""
    tunnel: str = ""
    local: str = ""
    """This host's public_ip."""
    backend: str = ""
    direct_routing: bool = False

    @property
    def route(self) -> str:
        onlink = f" dev {self.dev} onlink" if self.tunnel else ""
        return f"{self.subnet} via {self.via}{onlink}"


@dataclass(frozen=True)
class Problem:
    """Why the packet does not pass, or with ``fatal`` false, why larger or later ones may not."""

    fault: str
    reason: str
    remedy: str
    fatal: bool = True


@dataclass
class Hop:
    """One interface that the packet is seen at, and what is decided there."""

    namespace: str
    interface: str
    does: str
    packet: Packet
    kind: str = ""
    index: int = 0
    link: str = "ethernet"
    mtu: int = 0
    source_mac: str | None = None
    destination_mac: str | None = None
    next_hop: str = ""
    macs: list[str] = field(default_factory=list)
    """Where a packet comes in from the underlay, the MACs that this host has there: it answers ARP with any of them."""
    route: Facts | None = None
    outer_route: Facts | None = None
    neighbour: Facts | None = None
    forwarding_entry: Facts | None = None
    peer: Facts | None = None
    rules: list[Facts] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def as_data(self) -> Facts:
        length = self.packet.length + (ETHERNET if self.link == "ethernet" else 0)
        data = {key: getattr(self, key) for key in self.__dataclass_fields__}
        problems = [asdict(problem) for problem in self.problems]
        left = self.mtu - self.packet.length if self.mtu else None
        return {**data, "packet": self.packet.as_data(), "length": length, "mtu_left": left, "problems": problems}


def kind_of(link: Facts) -> str:
    """iproute2's kind of a link; '' for hardware."""
    return "loopback" if link.get("link_type") == "loopback" else str(link.get("linkinfo", {}).get("info_kind", ""))


def is_up(link: Facts) -> bool:
    """Whether the administrator has it up."""
    return "UP" in link.get("flags", [])


def addresses_of(link: Facts) -> list[str]:
    """Its IPv4 addresses."""
    return [item["local"] for item in link.get("addr_info", []) if item["family"] == "inet"]


def given(address: str | None) -> str:
    """A tunnel's end, '' for any."""
    return "" if address in (None, "any", "0.0.0.0") else str(address)
