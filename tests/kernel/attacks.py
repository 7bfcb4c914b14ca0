"""Packets that a guard has to stop, made by hand and sent at a node, and what arrives of them at a pod.

    .venv/bin/python -m tests.kernel.attacks vxlan    # as root: the table of all of them, with the guard and without it

By hand, because a lab machine has no Scapy, and because most of them are nothing that a library would make.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, TUNNELS, Firewall, clause, mac, overlay, vtep

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 0x0003
IPV4, ARP, VLAN, SERVICE_VLAN, IPV6 = 0x0800, 0x0806, 0x8100, 0x88A8, 0x86DD
IPIP, UDP, ICMPV6, MPLS = 4, 17, 58, 137
VXLAN_PORT, PORT, AT_LOOPBACK, AT_NODE = 8472, 9999, 5353, 5354
NODE1, NODE2, STRANGER, FRIEND = "198.51.100.11", "198.51.100.12", "198.51.100.99", "198.51.100.98"
WEB1, DB1, WEB2, DB2 = "10.244.0.2", "10.244.0.3", "10.244.1.2", "10.244.1.3"
GATEWAY = "10.244.0.1"
SECOND_ADDRESS = "192.0.2.11"
"""Another address of node1, as a host with several networks has."""
BOX = "10.244.0.99"
"""A container of node1 that somebody else made, on a port of the bridge of its own."""
NODE_MAC, STRANGER_MAC = "02:00:00:00:00:0b", "02:00:00:00:00:63"
LOOPBACK = "127.0.0.1"
OTHERS = {"stranger": STRANGER, "friend": FRIEND}
TRUSTED = [{"address": FRIEND, "subnets": ["10.250.0.0/24"]}]
LABEL = 100

# ------------------------------------------------------------------------------------------------ packets


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(
    src: str, dst: str, protocol: int, payload: bytes, *, options: bytes = b"", at: int = 0, more: bool = False
) -> bytes:
    """An IPv4 packet; *at* and *more* make it a fragment (offset in bytes)."""
    words = 5 + len(options) // 4
    fields = [0x40 | words, 0, 4 * words + len(payload), 0x4242, more << 13 | at // 8, 64, protocol, 0]
    for _ in range(2):
        header = struct.pack("!BBHHHBBH4s4s", *fields, socket.inet_aton(src), socket.inet_aton(dst)) + options
        fields[-1] = _checksum(header)
    return header + payload


def ipv6(src: str, dst: str, following: int, payload: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 255) + ends + payload


def udp(payload: bytes, port: int, source: int = 40000) -> bytes:
    return struct.pack("!HHHH", source, port, 8 + len(payload), 0) + payload


def frame(src: str, dst: str, kind: int, payload: bytes, *, tags: Sequence[int] = ()) -> bytes:
    """An Ethernet frame; each of *tags* is an Ethernet type of a VLAN's tag, for VLAN 0: that is a priority alone, which any
    host takes off, be there one or several."""
    ends = bytes.fromhex((dst + src).replace(":", ""))
    return ends + b"".join(struct.pack("!HH", tag, 0) for tag in tags) + struct.pack("!H", kind) + payload


def arp(sender_mac: str, sender: str, target_mac: str, target: str, token: bytes, *, reply: bool = True) -> bytes:
    """ARP, with *token* behind it where Ethernet has its padding."""
    macs = [bytes.fromhex(item.replace(":", "")) for item in (sender_mac, target_mac)]
    ends = macs[0] + socket.inet_aton(sender) + macs[1] + socket.inet_aton(target)
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, 2 if reply else 1) + ends + token


def fragments(packet: bytes, first: int = 8) -> list[bytes]:
    """A packet without options in two, the first with *first* bytes: 8 hold a UDP header, and nothing that follows it."""
    src, dst, payload = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]), packet[20:]
    return [
        ip(src, dst, packet[9], payload[:first], more=True),
        ip(src, dst, packet[9], payload[first:], at=first),
    ]


def wrapped(
    backend: str,
    src: str,
    inner: bytes,
    *,
    dst: str = NODE1,
    options: bytes = b"",
    vni: int = 1,
    tags: Sequence[int] = (),
    kind: int = IPV4,
    subnet: str = NODES["node1"]["subnet"],
) -> bytes:
    """*inner* in the tunnel's packet from *src* to *dst*, the node of *subnet*."""
    if backend == "ipip":
        return ip(src, dst, IPIP, inner, options=options)
    inside = frame("0e:58:0a:f4:07:00", vtep(subnet), kind, inner, tags=tags)
    return ip(src, dst, UDP, udp(struct.pack("!II", 1 << 27, vni << 8) + inside, VXLAN_PORT), options=options)


_TOKENS = itertools.count()


def token() -> bytes:
    """What is in one packet only."""
    return b"podnet.overlay.%d.%d." % (os.getpid(), next(_TOKENS))


# ------------------------------------------------------------------------------------------------ sending and counting


def socket_in(host: Host, namespace: str, *kind: int) -> socket.socket:
    """A socket of a namespace of *host*: a socket stays where it was made, and a thread of its own can go there."""
    path = f"/proc/{host.pid}/root/run/netns/{namespace}" if namespace else f"/proc/{host.pid}/ns/net"
    made: list[socket.socket] = []

    def make() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        assert ctypes.CDLL(None).setns(descriptor, CLONE_NEWNET) == 0
        os.close(descriptor)
        made.append(socket.socket(*kind))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def send(host: Host, packets: Sequence[bytes], namespace: str = "") -> None:
    """Send IPv4 packets as they are; the kernel finds the way, and no source is too wrong for it."""
    with socket_in(host, namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for packet in packets:
            raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))


def send_frames(host: Host, frames: Sequence[bytes], namespace: str = "") -> None:
    """Send frames on the one interface of a pod or a machine."""
    with socket_in(host, namespace, socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind(("eth0" if namespace else "eth1", 0))
        for item in frames:
            raw.send(item)


@contextmanager
def listening(host: Host, namespace: str, interface: str = "eth0") -> Iterator[Callable[[bytes, bytes], int]]:
    """Hear a pod's eth0: call for how many frames with *mark* come for it (or for all) before one with *last*."""
    with (
        socket_in(host, namespace, socket.AF_INET6, socket.SOCK_DGRAM) as taker,
        socket_in(host, namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw,
    ):
        taker.bind(("::", PORT))  # else the pod answers with a message that quotes the packet
        raw.bind((interface, ETH_P_ALL))
        raw.settimeout(10)

        def count(mark: bytes, last: bytes) -> int:
            marked = 0
            while True:
                data, (_interface, _protocol, kind, *_rest) = raw.recvfrom(65536)
                if kind in (socket.PACKET_HOST, socket.PACKET_BROADCAST, socket.PACKET_MULTICAST):
                    if last in data:
                        return marked
                    marked += mark in data

        yield count


# ------------------------------------------------------------------------------------------------ the guard


def rules(host: Host) -> list[dict[str, Any]]:
    """The rules of our tables, as nft lists them."""
    listed = [item["rule"] for item in host.json("nft -j list ruleset")["nftables"] if "rule" in item]
    return [rule for rule in listed if rule["table"] == "podnet_overlay"]


def drops(host: Host) -> dict[str, int]:
    """The packets that each dropping rule of ours has counted, by the rule's comment."""
    found: dict[str, int] = {}
    for rule in rules(host):
        words = {key: value for part in rule["expr"] for key, value in part.items()}
        if "drop" in words and "counter" in words:
            comment = rule["comment"].removeprefix("podnet.overlay:overlay ")
            found[comment] = found.get(comment, 0) + words["counter"]["packets"]
    return found


@contextmanager
def unguarded(host: Host) -> Iterator[None]:
    """Let our tables drop nothing for a while; all else of them stays: a mapped port is still one."""
    guarded, table, chain = [], "", ""
    before = _in_the_kernel(host)
    for line in host.run("nft -a list ruleset").stdout.splitlines():
        words = line.split()
        table = " ".join(words[1:3]) if words[:1] == ["table"] else table
        chain = words[1] if words[:1] == ["chain"] else chain
        dropping = re.fullmatch(r"\t\t(?P<rule>.* drop comment .*) # handle (?P<handle>\d+)", line)
        if dropping and table.endswith(" podnet_overlay"):
            guarded.append((f"replace rule {table} {chain} handle {dropping['handle']}", dropping["rule"]))
    assert guarded
    host.run("nft", "; ".join(f"{which} {rule.replace(' drop comment ', ' comment ')}" for which, rule in guarded))
    try:
        yield
    finally:
        host.run("nft", "; ".join(f"{which} {rule}" for which, rule in guarded))
        assert _in_the_kernel(host) == before


def _in_the_kernel(host: Host) -> list[str]:
    """The rules' parts as the kernel has them, of which a listing leaves out what it thinks clear; without counts."""
    listed = host.run("nft --debug=netlink list ruleset").stdout.splitlines()
    return [re.sub(r"pkts \d+ bytes \d+|__set\d+", "", line) for line in listed if line.startswith("  [ ")]


# ------------------------------------------------------------------------------------------------ the attacks


@dataclass(frozen=True)
class Attack:
    """Packets with ``%TOKEN%`` in them, who sends them, and the pod at which they are counted."""

    name: str
    packets: Sequence[bytes]
    sender: tuple[str, str] = ("stranger", "")
    pod: tuple[str, str] = ("node1", "web")
    frames: bool = False
    """They are frames of the sender's one interface."""
    interface: str = "eth0"
    """Where they are counted."""
    rp_filter: int = 0
    """The node's."""
    alone: bool = False
    """They pass a masquerade only while the node itself sends nothing through its tunnel."""


TOKEN = b"%TOKEN%" + b"." * 32
RECORD_ROUTE = bytes((7, 7, 4, 0, 0, 0, 0, 1))


def inner(src: str, dst: str = WEB1, *, options: bytes = b"") -> bytes:
    """What the attacker wants to arrive."""
    return ip(src, dst, UDP, udp(TOKEN, PORT), options=options)


def from_outside(backend: str) -> Iterator[Attack]:
    """From a machine of the underlay that is no member."""

    def around(src: str, packet: bytes, **options: object) -> bytes:
        return wrapped(backend, src, packet, **options)  # type: ignore[arg-type]

    tunnelled = backend if backend != "ipip" else "IPIP"
    own, member = f"{tunnelled}, own outer source", f"{tunnelled}, a member's outer source"
    sources = {
        "a pod of another node": WEB2,
        "a pod of this node": DB1,
        "the node itself": NODE1,
        "another node": NODE2,
        "loopback": "127.0.0.1",
    }
    for what, source in sources.items():
        yield Attack(f"{own}, inner source {what}", [around(STRANGER, inner(source))])
    nested = around(NODE2, inner(WEB2))
    yield Attack(f"{own}, nested", [around(STRANGER, nested)])
    yield Attack(f"{own}, outer in fragments", fragments(around(STRANGER, inner(WEB2))))
    yield Attack(f"{own}, outer with IPv4 options", [around(STRANGER, inner(WEB2), options=RECORD_ROUTE)])
    yield Attack(f"{own}, inner source of a trusted one", [around(STRANGER, inner("10.250.0.9"))])
    if backend == "vxlan":
        yield Attack(f"{own}, to another address of the node", [around(STRANGER, inner(WEB2), dst=SECOND_ADDRESS)])
        yield Attack(f"{own}, to the broadcast address", [around(STRANGER, inner(WEB2), dst="198.51.100.255")])
        claim = arp(vtep("10.244.7.0/24"), "10.244.1.0", vtep(NODES["node1"]["subnet"]), "10.244.0.0", TOKEN)
        for where, address in (("", NODE1), (", to another address of the node", SECOND_ADDRESS)):
            packets = [around(STRANGER, claim, dst=address, kind=ARP)]
            at_the_tunnel = {"pod": ("node1", ""), "interface": "flannel.1"}
            yield Attack(f"{own}, inner ARP{where}: at the tunnel's device", packets, **at_the_tunnel)  # type: ignore[arg-type]
        yield Attack(f"{own}, inner frame tagged", [around(STRANGER, inner(WEB2), tags=[VLAN])])
    sources.pop("a pod of another node")
    sources |= {"a subnet of nobody": "10.244.7.9", "somewhere else": "192.0.2.9", "a trusted one": "10.250.0.9"}
    for what, source in sources.items():
        yield Attack(f"{member}, inner source {what}", [around(NODE2, inner(source))])
    yield Attack(f"{member}, nested", [around(NODE2, around(WEB2, inner(DB1)))])
    yield Attack(f"{member}, outer in fragments", fragments(around(NODE2, inner(DB1))))
    yield Attack(f"{member}, outer with IPv4 options", [around(NODE2, inner(DB1), options=RECORD_ROUTE)])
    yield Attack(f"{member}, inner with IPv4 options", [around(NODE2, inner(DB1, options=RECORD_ROUTE))])
    yield Attack(f"{member}, inner in fragments", [around(NODE2, part) for part in fragments(inner(DB1))])
    if backend == "vxlan":
        yield Attack(f"{member}, inner frame tagged", [around(NODE2, inner(DB1), tags=[VLAN])])
    yield Attack(
        f"{tunnelled}, a trusted source, inner source a pod",
        [around(FRIEND, inner(WEB2))],
        ("friend", ""),
    )
    if backend == "ipip":
        label = struct.pack("!I", LABEL << 12 | 1 << 8 | 64)
        yield Attack("MPLS in IP, own outer source", [ip(STRANGER, NODE1, MPLS, label + inner(WEB2))])
        yield Attack("MPLS in IP, a member's outer source", [ip(NODE2, NODE1, MPLS, label + inner(WEB2))])


def from_a_pod(backend: str) -> Iterator[Attack]:
    """From web of node1, to its own node and to node2, which takes what comes from node1."""
    sender = ("node1", "web")
    tunnelled = backend if backend != "ipip" else "IPIP"
    for what, packet in (
        ("own outer source", wrapped(backend, WEB1, inner(DB2, DB1))),
        ("a member's outer source", wrapped(backend, NODE2, inner(DB2, DB1))),
    ):
        yield Attack(f"{tunnelled} from a pod to its node, {what}", [packet], sender, ("node1", "db"))
    if backend == "vxlan":
        at_the_gateway = wrapped(backend, WEB1, inner(DB2, DB1), dst=GATEWAY)
        yield Attack(f"{tunnelled} from a pod to its gateway", [at_the_gateway], sender, ("node1", "db"))
    there = wrapped(backend, WEB1, inner(DB1, DB2), dst=NODE2, subnet=NODES["node2"]["subnet"])
    for how, packets in (("", [there]), (", in fragments", fragments(there))):
        name = f"{tunnelled} from a pod to another node{how}"
        yield Attack(name, packets, sender, ("node2", "db"), alone=backend == "ipip")


def spoofed() -> Iterator[Attack]:
    """From web of node1, as if it were another."""
    sender, near, far = ("node1", "web"), ("node1", "db"), ("node2", "db")
    own, other, gateway, everybody = mac(WEB1), mac(DB1), mac(GATEWAY), "ff:ff:ff:ff:ff:ff"

    def one(name: str, pod: tuple[str, str], *content: object, **more: Sequence[int]) -> Attack:
        return Attack(f"a pod sends {name}", [frame(*content, **more)], sender, pod, frames=True)  # type: ignore[arg-type]

    yield one("from another pod's address, to another node", far, own, gateway, IPV4, inner(DB1, DB2))
    yield one("from another pod's address, tagged", far, own, gateway, IPV4, inner(DB1, DB2), tags=[VLAN])
    yield one("from a pod's address of another node, to its neighbour", near, own, other, IPV4, inner(WEB2, DB1))
    yield one("from an address of the subnet that is free", far, own, gateway, IPV4, inner("10.244.0.77", DB2))
    yield one("from the gateway's address, to its neighbour", near, own, other, IPV4, inner(GATEWAY, DB1))
    yield one("from another MAC, to its neighbour", near, "0a:58:0a:f4:00:4d", other, IPV4, inner(WEB1, DB1))
    yield one("from the gateway's MAC, to all", near, gateway, everybody, IPV4, inner(WEB1, "10.244.0.255"))
    claim = arp(own, GATEWAY, other, DB1, TOKEN)
    yield one("ARP: it is the gateway", near, own, other, ARP, claim)
    yield one("ARP: it is the gateway, tagged", near, own, other, ARP, claim, tags=[VLAN])
    yield one("ARP: it is the gateway, to all", near, own, everybody, ARP, arp(own, GATEWAY, own, GATEWAY, TOKEN))
    asks = arp(own, GATEWAY, everybody, DB1, TOKEN, reply=False)
    yield one("ARP: it asks as the gateway", near, own, everybody, ARP, asks)
    its = arp("0a:58:0a:f4:00:4d", WEB1, other, DB1, TOKEN)
    yield one("ARP: its address is at another MAC", near, own, other, ARP, its)
    for what, kind in (("router advertisement", 134), ("redirect", 137)):  # CVE-2020-10749
        message = ipv6("fe80::2", "ff02::1", ICMPV6, bytes((kind, 0, 0, 0)) + TOKEN)
        yield one(f"an IPv6 {what}", near, own, "33:33:00:00:00:01", IPV6, message)


def unpacked() -> Iterator[Attack]:
    """From a machine of the underlay, without any tunnel, from a pod's address; rp_filter 1 would stop the most of it."""
    for kind in (0, 2):
        for what, source in (("a pod of another node", WEB2), ("a pod of this node", DB1)):
            yield Attack(f"no tunnel, source {what}, rp_filter {kind}", [inner(source)], rp_filter=kind)
    yield Attack("no tunnel, source the bridge", [inner(GATEWAY)])


def to_a_mapped_port() -> Attack:
    """From a machine of the underlay as a pod of another node; what pods there ask is masqueraded, or comes by the tunnel."""
    packet = ip(WEB2, NODE1, UDP, udp(TOKEN, AT_NODE))
    return Attack("no tunnel, source a pod of another node, to a mapped port", [packet])


def at_loopback(backend: str) -> Iterator[Attack]:
    """To a port of the node's loopback that is mapped to web, from anybody but the node."""
    tunnelled, mapped = backend if backend != "ipip" else "IPIP", udp(TOKEN, AT_LOOPBACK)
    for kind in (0, 1, 2):
        outside = frame(STRANGER_MAC, NODE_MAC, IPV4, ip(STRANGER, LOOPBACK, UDP, mapped))
        name = f"no tunnel, to a mapped port of the node's loopback, rp_filter {kind}"
        yield Attack(name, [outside], frames=True, rp_filter=kind)
        if TUNNELS[backend]:
            tunnel = wrapped(backend, NODE2, ip(WEB2, LOOPBACK, UDP, mapped))
            name = f"{tunnelled}, a member, to a mapped port of the node's loopback, rp_filter {kind}"
            yield Attack(name, [tunnel], ("node2", ""), rp_filter=kind)
    pod = frame(mac(DB1), mac(GATEWAY), IPV4, ip(DB1, LOOPBACK, UDP, mapped))
    yield Attack("a pod sends to a mapped port of the node's loopback", [pod], ("node1", "db"), frames=True)


def from_a_container() -> Iterator[Attack]:
    """From a container on the bridge that is none of the pods: as a pod, or as the gateway."""
    sender, near, far = ("node1", "box"), ("node1", "db"), ("node2", "db")
    own, pod, gateway, other = mac(BOX), mac(WEB1), mac(GATEWAY), mac(DB1)

    def one(name: str, to: tuple[str, str], *content: object, tags: Sequence[int] = ()) -> Attack:
        return Attack(f"a container sends {name}", [frame(*content, tags=tags)], sender, to, frames=True)  # type: ignore[arg-type]

    yield one("from a pod's address, to its neighbour", near, own, other, IPV4, inner(WEB1, DB1))
    routed = (far, own, gateway, IPV4, inner(WEB1, DB2))
    yield one("from a pod's address, to another node", *routed)
    for how, tags in (
        ("tagged", [VLAN]),
        ("tagged by a provider", [SERVICE_VLAN]),
        ("tagged twice", [VLAN, VLAN]),
        ("tagged by a provider and twice", [SERVICE_VLAN, VLAN]),
        ("tagged three times", [VLAN, SERVICE_VLAN, VLAN]),
    ):
        yield one(f"from a pod's address, to another node, {how}", *routed, tags=tags)
    yield one("from the gateway's address, to its neighbour", near, own, other, IPV4, inner(GATEWAY, DB1))
    yield one("from a pod's address of another node, to its neighbour", near, own, other, IPV4, inner(WEB2, DB1))
    yield one("from a pod's MAC, to its neighbour", near, pod, other, IPV4, inner(BOX, DB1))
    yield one("from the gateway's MAC, to its neighbour", near, gateway, other, IPV4, inner(BOX, DB1))
    for what, address in (("a pod", WEB1), ("the gateway", GATEWAY)):
        claim = arp(own, address, other, DB1, TOKEN)
        yield one(f"ARP: it is {what}", near, own, other, ARP, claim)
        yield one(f"ARP: it is {what}, tagged", near, own, other, ARP, claim, tags=[VLAN])
        asks = arp(own, address, "ff:ff:ff:ff:ff:ff", DB1, TOKEN, reply=False)
        yield one(f"ARP: it asks as {what}", near, own, "ff:ff:ff:ff:ff:ff", ARP, asks)


@dataclass(frozen=True)
class Outcome:
    """What arrived at the pod, and which rule counted how many."""

    without: int
    guarded: int
    dropped: Mapping[str, int]


def arrived(hosts: Mapping[str, Host], attack: Attack) -> int:
    """How many packets of *attack* come to its pod, before a sound packet sent after them does."""
    mark, last = token(), token()
    node, pod = attack.pod
    target = NODES[node]["pods"][pod or "web"]
    other = node if attack.alone else next(name for name in NODES if name != node)
    pause = FORGOTTEN if attack.alone else 0
    time.sleep(pause)
    if attack.alone:  # a flow that has expired is in the way of a fully random one until somebody looks
        for name in NODES:
            hosts[name].run("cat /proc/net/nf_conntrack", check=False)
    hosts[node].sh(f"for conf in /proc/sys/net/ipv4/conf/*; do echo {attack.rp_filter} >$conf/rp_filter; done")
    with listening(hosts[node], pod, attack.interface) as count:
        padded = mark.ljust(len(TOKEN), b".")
        packets = [packet.replace(TOKEN, padded) for packet in attack.packets]  # no checksum is over it
        sender, namespace = attack.sender
        (send_frames if attack.frames else send)(hosts[sender], packets, namespace)
        send(hosts[other], [ip(NODES[other]["pods"]["web"], target, UDP, udp(last, PORT))], "web")
        found = count(mark, last)
    time.sleep(pause)
    return found


def outcomes(hosts: Mapping[str, Host], attacks: Sequence[Attack]) -> dict[str, Outcome]:
    """Try *attacks* on node1 without its guard, and then with it; by their names."""
    guard = hosts["node1"]
    with unguarded(guard):
        without = [arrived(hosts, attack) for attack in attacks]
    guard.run("ip neigh flush dev cni0")  # of which some took a pod's place
    found = {}
    before = drops(guard)
    for attack, count in zip(attacks, without):
        guarded = arrived(hosts, attack)
        after = drops(guard)
        dropped = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
        found[attack.name] = Outcome(count, guarded, dropped)
        before = after
    return found


LENIENT = (
    "for conf in /proc/sys/net/ipv4/conf/*; do echo 1 >$conf/accept_local; echo 1 >$conf/route_localnet; done;"
    "nft 'add table ip foreign; add chain ip foreign nat { type nat hook postrouting priority 100; };"
    "add rule ip foreign nat ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade';"
    "sysctl -qw net.netfilter.nf_conntrack_generic_timeout=1"
)
"""No help from the kernel, as where keepalived wants accept_local and kube-proxy route_localnet; and somebody's masquerade,
which makes a packet from a pod one from its node. IPIP has no ports, so conntrack knows one flow between two hosts only: whoever is
first has it, and the other's packets are lost."""
FORGOTTEN = 1.5  # seconds until such a flow is none any more
MPLS_ROUTER = (
    "modprobe mpls_router; sysctl -qw net.mpls.platform_labels=1000; echo 1 >/proc/sys/net/mpls/conf/flannel.ipip/input;"
    f"ip -f mpls route add {LABEL} via inet {WEB1} dev cni0"
)


MAPPED = [
    {
        "pod": "web",
        "address": WEB1,
        "port": PORT,
        "protocol": "udp",
        "host_port": host_port,
        "host_address": host_address,
    }
    for host_port, host_address in ((AT_LOOPBACK, LOOPBACK), (AT_NODE, None))
]
FRIENDS = [WEB1, DB1, WEB2]


def isolated(name: str) -> dict[str, Any]:
    """The pods of node1, and one of node2, are a group that takes nothing from elsewhere."""
    pods = [{**pod, "group": "friends"} for pod in clause(name, "host-gw")["pods"] if pod["address"] in FRIENDS]
    return {"pods": pods, "policy": [], "groups": {"friends": FRIENDS}, "ports": MAPPED if name == "node1" else []}


@contextmanager
def target(backend: str, firewall: Firewall = None, *, direct_routing: bool = False) -> Iterator[dict[str, Host]]:
    """Two nodes on a segment with two machines that are no members, one of them trusted; the nodes refuse nothing themselves.

    On node1 there is a container besides, and mapped ports.
    """

    def walls(name: str) -> dict[str, Any]:
        changes = firewall(name) if callable(firewall) else firewall or {}
        trusted = TRUSTED if TUNNELS[backend] else []
        return {"trusted_sources": trusted, "ports": MAPPED if name == "node1" else [], **changes}

    with overlay(backend, firewall=walls, others=OTHERS, direct_routing=direct_routing) as hosts:
        node, stranger = hosts["node1"], hosts["stranger"]
        for name in NODES:
            hosts[name].sh(LENIENT)
        container(node)
        # Nobody here is to be deceived by ARP of an attack before; the attacker's own comes back to it by the hairpin.
        for pod in ("web", "db", "box"):
            node.sh(f"ip -n {pod} neigh replace {GATEWAY} lladdr {mac(GATEWAY)} dev eth0 nud permanent")
        node.sh(f"ip addr add {SECOND_ADDRESS}/32 dev eth1; ip link set eth1 address {NODE_MAC}")
        if backend == "ipip":
            node.sh(MPLS_ROUTER)
        for name in (*OTHERS, "node2"):
            hosts[name].sh("ip neigh flush dev eth1")
        stranger.sh(f"ip link set eth1 address {STRANGER_MAC}; ip route add {NODES['node1']['subnet']} via {NODE1}")
        for name in OTHERS:
            hosts[name].sh(f"ip route add {SECOND_ADDRESS} via {NODE1}; ping -c 1 -w 5 {SECOND_ADDRESS}")
        hosts["node2"].run(f"ping -c 1 -w 5 {NODE1}")
        yield hosts


def container(node: Host) -> None:
    """What Docker, Podman and CNI make too: a port of the bridge of which the collection knows nothing."""
    node.sh(
        "ip netns add box; ip link add port-of-box type veth peer name eth0 netns box; ip link set port-of-box master cni0 up;"
        f"ip -n box link set eth0 address {mac(BOX)}; ip -n box addr add {BOX}/24 dev eth0; ip -n box link set eth0 up;"
        f"ip -n box route add default via {GATEWAY}"
    )


def main(backend: str) -> None:
    """Print what arrives of every attack."""
    rows = [("packet", "without guard: counted at the pod", "with guard: counted at the pod", "dropped (counter)")]

    def tell(hosts: Mapping[str, Host], attacks: Sequence[Attack], what: str = "") -> None:
        for name, seen in outcomes(hosts, attacks).items():
            counted = "; ".join(f"{count}: {rule}" for rule, count in seen.dropped.items())
            rows.append((name + what, str(seen.without), str(seen.guarded), counted))

    with target(backend) as hosts:
        outside = [*from_outside(backend), *unpacked(), *at_loopback(backend)]
        tell(hosts, [*outside, *from_a_pod(backend), *spoofed(), *from_a_container()])
    with target(backend, isolated) as hosts:
        tell(hosts, [*unpacked(), to_a_mapped_port()], ", to an isolated pod of its group")
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    main(*sys.argv[1:])
