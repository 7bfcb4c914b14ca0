# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two ends of a path by name or address, and the packets that each host on it is to walk. Pure."""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ._icmp import DEFAULT_SIZE, HEADERS
from ._model import Mistakes

Node = Mapping[str, t.Any]  # subnet, public_ip, mtu, pods: as the plan's check answers

_TTL = 64  # net.ipv4.ip_default_ttl
_LARGEST = 65535
TRANSLATED = "-translated"
"""What the names of packets end with that are followed in case a rule has changed their addresses on the host before."""


@dataclass(frozen=True)
class End:
    """An end of the path. ``namespace`` is empty for the host's own, None where it is not known.

    ``node`` is empty outside of the overlay.
    """

    name: str
    node: str
    namespace: str | None
    address: str

    @property
    def forwarded(self) -> bool:
        """Whether its host forwards what it sends, and takes one off the TTL."""
        return self.namespace != ""


def flow(
    source: str,
    target: str,
    nodes: Mapping[str, Node],
    settings: Mapping[str, t.Any],
    size: int = DEFAULT_SIZE,
    df: bool = True,
    mark: str | int = 0,
    hosts: Iterable[str] = (),
    port: str = "",
) -> dict[str, t.Any]:
    """From POD@NODE to POD@NODE, a pod or an address: hosts, order, packets and probes of the path.

    Args:
        source, target: the ends as the operator names them.
        nodes, settings: as the plan's check answers them.
        size: bytes of the IP packet.
        mark: of the request; as ``ip route get`` takes it.
        hosts: all of the inventory, since those without a lease are not in *nodes*.
        port: ``8080``, ``8080/tcp`` or ``53/udp`` of the target; else it is an echo request.

    Raises:
        Mistakes: all that is wrong with the words.
    """
    lines: list[str] = []
    if not HEADERS <= size <= _LARGEST:
        lines.append(f"size: {size} is not in {HEADERS}..{_LARGEST}")
    number = _mark(mark, lines)
    protocol, dport = _port(port, lines)
    ends: list[End] = []
    nodes = {**{host: {} for host in hosts}, **nodes}
    if not any(nodes.values()):
        lines.append("no node has a lease: run overlay.yml first")
    else:
        for option, word in (("from", source), ("to", target)):
            try:
                ends.append(_end(option, word, nodes, settings))
            except ValueError as error:
                lines.append(f"{option}: {error}")
    if len(ends) == 2 and ends[0].address == ends[1].address:
        lines.append(f"to: is {ends[0].name} itself, where the path starts")
    if lines:
        raise Mistakes(lines)
    here, there = ends
    shape = {"size": size, "df": df, "protocol": protocol, **({"port": dport} if dport else {})}
    return _paths(here, there, nodes, settings, shape, number)


def _mark(mark: str | int, lines: list[str]) -> int:
    try:
        number = int(str(mark), 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        lines.append(f"mark: {mark} is no number in 0..0xffffffff")
    return number


def _port(port: str, lines: list[str]) -> tuple[str, int]:
    """Protocol and number of what the packet goes to."""
    if not port:
        return "icmp", 0
    number, _slash, protocol = str(port).partition("/")
    if protocol not in ("", "tcp", "udp") or not number.isdecimal() or not 1 <= int(number) <= 65535:
        lines.append(f"port: {port} is no port, such as 8080, 8080/tcp or 53/udp")
        return "icmp", 0
    return protocol or "tcp", int(number)


# ------------------------------------------------------------------------------------------------ names


def _end(option: str, word: str, nodes: Mapping[str, Node], settings: Mapping[str, t.Any]) -> End:
    if not word:
        raise ValueError(f"is missing; say -e {option}=POD@NODE" + (" or an address" if option == "to" else ""))
    if "@" in word:
        return _pod_at(word, nodes)
    if option == "from":
        raise ValueError(f"{word} names no node; say POD@NODE{_meant(word, nodes)}")
    try:
        address = ipaddress.IPv4Address(word)
    except ValueError:
        return _pod(word, nodes)
    return _address(address, nodes, settings)


def _pod_at(word: str, nodes: Mapping[str, Node]) -> End:
    pod, name = word.split("@", 1)
    if name not in nodes:
        raise ValueError(f"there is no node {name}; the nodes are {some(nodes)}")
    node = nodes[name]
    if not node:
        raise ValueError(f"node {name} has no lease yet: run overlay.yml first")
    if pod not in node["pods"]:
        has = f"its pods are {some(node['pods'])}" if node["pods"] else "it has none"
        raise ValueError(f"node {name} has no pod {pod}; {has}" if pod else f"{word} names no pod; {has}")
    return End(word, name, pod, node["pods"][pod])


def _pod(word: str, nodes: Mapping[str, Node]) -> End:
    if word in nodes:
        raise ValueError(f"{word} is a node; say POD@{word} or an address of it")
    places = _places(word, nodes)
    if len(places) == 1:
        return _pod_at(places[0], nodes)
    if places:
        raise ValueError(f"pod {word} is on {len(places)} nodes; say which: {some(places)}")
    pods = {pod for node in nodes.values() for pod in node.get("pods") or ()}
    raise ValueError(f"{word} is neither a pod nor an IPv4 address; the pods are {some(pods)}")


def _address(address: ipaddress.IPv4Address, nodes: Mapping[str, Node], settings: Mapping[str, t.Any]) -> End:
    text = str(address)
    for name, node in nodes.items():
        if not node:
            continue
        if text == node["public_ip"]:
            return End(text, name, "", text)
        subnet = ipaddress.IPv4Network(node["subnet"])
        if address in subnet:
            pod = next((pod for pod, own in node["pods"].items() if own == text), None)
            if pod is not None:
                return End(f"{pod}@{name}", name, pod, text)
            nobodys = {subnet.broadcast_address: "broadcast"}
            if settings["backend"] == "host-gw":
                nobodys[subnet.network_address] = "network"
            if address in nobodys:
                raise ValueError(f"{text} is the {nobodys[address]} address of {name}'s subnet {subnet}, and nobody's")
            # The first is the tunnel's, the second the bridge's; what else is on the bridge is nobody's we know.
            own = address in (subnet.network_address, subnet.network_address + 1)
            return End(text, name, "" if own else None, text)
    network = ipaddress.IPv4Network(settings["network"])
    if address in network:
        raise ValueError(f"{text} is in {network}, but in no node's subnet")
    if address.is_multicast or address.is_loopback or int(address) >> 24 == 0 or int(address) == 0xFFFFFFFF:
        raise ValueError(f"{text} is the address of no one host")
    return End(text, "", None, text)


def _places(pod: str, nodes: Mapping[str, Node]) -> list[str]:
    return [f"{pod}@{name}" for name, node in nodes.items() if pod in (node.get("pods") or ())]


def _meant(word: str, nodes: Mapping[str, Node]) -> str:
    places = _places(word, nodes)
    return f", as in {some(places)}" if places else ""


def some(names: Iterable[str], most: int = 20) -> str:
    """Names in a line, not too many."""
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


# ------------------------------------------------------------------------------------------------ packets


def _paths(
    here: End, there: End, nodes: Mapping[str, Node], settings: Mapping[str, t.Any], shape: dict[str, t.Any], mark: int
) -> dict[str, t.Any]:
    names = [here.node] if there.node in ("", here.node) else [here.node, there.node]
    packets: dict[str, list[dict[str, t.Any]]] = {name: [] for name in names}
    order: dict[str, list[str]] = {}
    port = shape.pop("port", 0)
    for leg, first, last in (("request", here, there), ("reply", there, here)):
        if first.namespace is None and first.node:  # whose address it is, and so where the reply starts, is not known
            order[leg] = []
            continue
        order[leg] = names if leg == "request" else names[::-1]
        packet = {"src": first.address, "dst": last.address, "ttl": _TTL, **shape}
        packet.update({"dport" if leg == "request" else "sport": port} if port else {})
        packet.update({"reply": True, "df": False} if leg == "reply" else {})  # the kernel answers without DF
        # Rules of nodes may change the addresses of what is for a node itself, or for the world.
        answers = {"answers": "request"} if leg == "reply" and not first.namespace else {}
        if not first.node:
            wanted = {"overlay": _settled(here, nodes, settings)}
            packets[here.node].append({"name": leg, "namespace": "", "arrives": True, **packet, **answers, **wanted})
            continue
        departs = {"namespace": first.namespace, **packet, "mark": mark if leg == "request" else 0}
        departs.update(_wanted(first, last, nodes, settings))
        packets[first.node].append({"name": leg, **departs, **answers})
        if last.node not in ("", first.node):
            if answers and there.address == nodes[there.node]["public_ip"]:
                other = {"dst": nodes[here.node]["public_ip"], "answers": f"request{TRANSLATED}"}
                packets[first.node].append({"name": f"{leg}{TRANSLATED}", **departs, **other})
            arrives = {"namespace": "", "arrives": True, **packet, "ttl": _TTL - first.forwarded}
            for name, arrival in _arrivals(leg, first, last, nodes, settings):
                packets[last.node].append({"name": name, **arrives, **arrival, **_wanted(last, last, nodes, settings)})
    probes = [{"namespace": here.namespace, "targets": [{"address": there.address, "name": there.name}]}]
    if len(names) > 1:
        target = {"address": nodes[there.node]["public_ip"], "name": there.node}
        probes.append({"namespace": "", "targets": [target]})
    return {
        "from": here.name,
        "to": there.name,
        "source": here.address,
        "destination": there.address,
        **shape,
        "port": port,
        "outside": not there.node,
        "nodes": names,
        "order": order,
        "packets": packets,
        "probes": {here.node: probes},
        "addresses": [here.address, there.address],
        "underlay": [nodes[name]["public_ip"] for name in names],
    }


def _wanted(at: End, last: End, nodes: Mapping[str, Node], settings: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What the plan has on node *at* for a packet to *last*: its own address, and where a route leads to a subnet."""
    wanted = _settled(at, nodes, settings)
    if not last.node:
        return {"overlay": wanted}
    peer, backend, tunnel = nodes[last.node], settings["backend"], settings.get("tunnel")
    same, underlay = at.node == last.node, last.address == peer["public_ip"]
    if not underlay:
        wanted.update(subnet=peer["subnet"], dev=settings["bridge"])
    if not underlay and not same:
        far = str(peer["subnet"]).split("/", maxsplit=1)[0] if backend == "vxlan" else peer["public_ip"]
        wanted.update(remote=peer["public_ip"], via=far, dev=None if backend == "host-gw" else tunnel)
    return {"overlay": wanted}


def _settled(at: End, nodes: Mapping[str, Node], settings: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What holds of the overlay on node *at*, wherever a packet goes."""
    backend = settings["backend"]
    return {
        "network": settings["network"],
        "backend": backend,
        "bridge": settings["bridge"],
        "tunnel": settings.get("tunnel"),
        "local": nodes[at.node]["public_ip"],
        "direct_routing": bool(settings.get("direct_routing")) or backend == "host-gw",
    }


def _arrivals(
    leg: str, first: End, last: End, nodes: Mapping[str, Node], settings: Mapping[str, t.Any]
) -> list[tuple[str, dict[str, t.Any]]]:
    """How a packet may come in: in the tunnel, without it, or either where it depends on the underlay's networks.

    What a pod and a node's public_ip say to each other is masqueraded by the pod's node, or not.
    """
    backend = settings["backend"]
    if last.address == nodes[last.node]["public_ip"]:
        return [(leg, {}), (f"{leg}{TRANSLATED}", {"src": nodes[first.node]["public_ip"]})]
    masked: list[tuple[str, dict[str, t.Any]]] = []
    if first.address == nodes[first.node]["public_ip"]:
        masked = [(f"{leg}{TRANSLATED}", {"dst": nodes[last.node]["public_ip"], "answers": "request"})]
    if backend == "host-gw":
        return [(leg, {}), *masked]
    outer = {"src": nodes[first.node]["public_ip"], "dst": nodes[last.node]["public_ip"], "protocol": backend}
    if backend == "vxlan":
        outer.update(port=settings["port"], vni=settings["vni"], ttl=_TTL)
    else:
        outer.update(ttl=_TTL - first.forwarded)  # ttl inherit
    direct: list[tuple[str, dict[str, t.Any]]] = [(f"{leg}-direct", {})] if settings.get("direct_routing") else []
    return [(leg, {"outer": outer}), *direct, *masked]
