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

# What the hosts tell of the path, and the frames that the seed has seen there: 98, 84 and 118 bytes, TTL 64, 63 and 62.

POD, BRIDGE, WIRE, FAR_WIRE = "26:32:89:a6:66:6e", "02:45:21:42:c4:9d", "00:0c:29:bd:fb:4a", "00:0c:29:e2:bf:86"
FAR_BRIDGE, FAR_POD = "2a:42:51:c2:20:85", "f2:22:7c:58:d4:db"
SECTION5 = {  # node: (pod, its address, its MAC, the bridge's, the veth, public_ip, the wire's MAC)
    "k8s-1": ("cni-8v2vj", "10.244.0.3", POD, BRIDGE, "veth5b471bd4", "172.12.1.11", WIRE),
    "k8s-2": ("cni-w8b7p", "10.244.1.7", FAR_POD, FAR_BRIDGE, "veth22c373b4", "172.12.1.12", FAR_WIRE),
}
IDENTIFIER = 0x4A00
START = 1627722656.190468


def packet(src: str, dst: str, ttl: int, inner: dict[str, Any] | None = None) -> dict[str, Any]:
    protocol, length = ("ipip", 104) if inner else ("icmp", 84)
    return {"src": src, "dst": dst, "protocol": protocol, "ttl": ttl, "length": length, "df": True, "inner": inner}


def hop(place: str, does: str, holds: dict[str, Any], macs: tuple[str, str] | None, **more: Any) -> dict[str, Any]:
    namespace, _slash, interface = place.rpartition("/")
    mtu = 1500 if interface == "ens33" else 1480
    return {
        "namespace": namespace,
        "interface": interface,
        "kind": {"cni0": "bridge", "flannel.ipip": "ipip", "ens33": ""}.get(interface, "veth"),
        "index": 5,
        "link": "ethernet" if macs else "raw",
        "does": does,
        "packet": holds,
        "length": holds["length"] + (14 if macs else 0),
        "source_mac": macs[0] if macs else None,
        "destination_mac": macs[1] if macs else None,
        "mtu": mtu,
        "mtu_left": mtu - holds["length"],
        **dict.fromkeys(("route", "outer_route", "neighbour", "forwarding_entry", "peer")),
        **{key: [] for key in ("rules", "asked", "notes", "problems")},
        **more,
    }


def way(dst: str, via: str, dev: str, why: str = "the only one that matches", **more: Any) -> dict[str, Any]:
    return {"dst": dst, "via": via, "dev": dev, "type": "unicast", "table": "main", "metric": 0, "why": why, **more}


def departure(node: str, far: str) -> dict[str, Any]:
    """The walk of a packet from the pod of *node* to that of *far*, until it has left."""
    pod, src, mac, bridge, veth, public, wire = SECTION5[node]
    _pod, dst, _mac, _bridge, _veth, other, far_wire = SECTION5[far]
    sent, forwarded = packet(src, dst, 64), packet(src, dst, 63)
    wrapped, gateway = packet(public, other, 63, forwarded), src.rpartition(".")[0] + ".1"
    subnet = dst.rpartition(".")[0] + ".0/24"
    whole = way("10.244.0.0/16", gateway, "eth0", "the longest that matches; default would too")
    neighbour = {"address": other, "lladdr": far_wire, "state": "REACHABLE"}
    return {
        "end": "left",
        "left": {
            "interface": "ens33",
            "next_hop": other,
            "source_mac": wire,
            "destination_mac": far_wire,
            "packet": wrapped,
        },
        "hops": [
            hop(
                f"{pod}/eth0",
                "sends",
                sent,
                (mac, bridge),
                route=whole,
                neighbour={"address": gateway, "lladdr": bridge, "state": "REACHABLE"},
                peer={"namespace": "", "interface": veth, "index": 9},
            ),
            hop(veth, "is a port of cni0", sent, (mac, bridge)),
            hop("cni0", "takes in", sent, (mac, bridge), route=way(subnet, other, "flannel.ipip", onlink=True)),
            hop("flannel.ipip", "wraps", forwarded, None, outer_route=way("172.12.1.0/24", "", "ens33")),
            hop("ens33", "sends", wrapped, (wire, far_wire), neighbour=neighbour),
        ],
    }


def arrival(far: str, node: str) -> dict[str, Any]:
    """The walk of that packet on *node*, from *far*."""
    _pod, src, _mac, _bridge, _veth, other, _wire = SECTION5[far]
    pod, dst, mac, bridge, veth, public, wire = SECTION5[node]
    inner, last = packet(src, dst, 63), packet(src, dst, 62)
    entry = {"lladdr": mac, "port": veth, "state": "learned"}
    return {
        "end": "delivered",
        "left": None,
        "hops": [
            hop("ens33", "takes in", packet(other, public, 63, inner), ("", wire)),
            hop("flannel.ipip", "unwraps", inner, None, route=way(dst.rpartition(".")[0] + ".0/24", "", "cni0")),
            hop("cni0", "sends", last, (bridge, mac), forwarding_entry=entry),
            hop(veth, "is a port of cni0", last, (bridge, mac)),
            hop(f"{pod}/eth0", "delivers", last, (bridge, mac)),
        ],
    }


def walks() -> dict[str, Any]:
    return {
        "k8s-1": {"request": departure("k8s-1", "k8s-2"), "reply": arrival("k8s-2", "k8s-1")},
        "k8s-2": {"request": arrival("k8s-1", "k8s-2"), "reply": departure("k8s-2", "k8s-1")},
    }


def frames(seq: int = 1) -> dict[str, list[dict[str, Any]]]:
    """A probe's frames by node, decoded: one for each hop, 12 microseconds after the other."""
    seen: dict[str, list[dict[str, Any]]] = {"k8s-1": [], "k8s-2": []}
    told, now = walks(), START + seq
    for leg, order in (("request", ["k8s-1", "k8s-2"]), ("reply", ["k8s-2", "k8s-1"])):
        for node in order:
            for item in told[node][leg]["hops"]:
                now += 0.000012
                headers = [item["packet"], *([item["packet"]["inner"]] if item["packet"]["inner"] else [])]
                seen[node].append(
                    {
                        "namespace": item["namespace"],
                        "interface": item["interface"],
                        "direction": "in" if item["does"] in ("takes in", "unwraps", "delivers") else "out",
                        "time": now,
                        "length": item["length"],
                        "ip": headers,
                        "icmp": {"type": 8 if leg == "request" else 0, "code": 0, "id": IDENTIFIER, "seq": seq},
                        "text": "",
                    }
                )
    return seen


def pings(received: int = 3, underlay: int = 3, identifier: int | None = IDENTIFIER) -> list[dict[str, Any]]:
    ends = (("cni-8v2vj", "10.244.1.7", received, identifier), ("", "172.12.1.12", underlay, 7))
    return [
        {
            "namespace": namespace,
            "address": address,
            "size": 84,
            "sent": 3,
            "received": got,
            "ttl": 62 if got else None,
            "rtt_ms": {"min": 0.3, "avg": 0.36, "max": 0.4} if got else None,
            "error": "" if got == 3 else "no answer",
            "identifier": number,
        }
        for namespace, address, got, number in ends
    ]
