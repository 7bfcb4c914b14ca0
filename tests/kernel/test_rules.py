"""The judge of firewall rules against the kernel: what it says of a packet is what becomes of the packet."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _icmp, _netns
from ansible_collections.podnet.overlay.plugins.module_utils._rules import Host as Asked
from ansible_collections.podnet.overlay.plugins.module_utils._rules import Meta, Ruling, merge, passed
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.kernel.hosts import Host, started

ICMP, IPIP, TCP, UDP = 1, 4, 6, 17
TOPOLOGY = """
    ip link add br0 address 02:00:00:00:00:99 type bridge; ip link set br0 up
    for n in a b c d; do
        ip netns add $n; ip link add v$n address 02:00:00:00:01:0$n type veth peer name eth0 address 02:00:00:00:00:0$n netns $n
        ip link set v$n up; ip -n $n link set eth0 up
    done
    ip link set vc master br0; ip link set vd master br0; ip link set va group 7
    ip addr add 10.1.0.1/24 dev va; ip addr add 10.2.0.1/24 dev vb; echo 1 > /proc/sys/net/ipv4/ip_forward
    ip -n a addr add 10.1.0.2/24 dev eth0; ip -n b addr add 10.2.0.2/24 dev eth0
    ip -n c addr add 10.3.0.1/24 dev eth0; ip -n d addr add 10.3.0.2/24 dev eth0
    ip -n a route add default via 10.1.0.1; ip -n b route add default via 10.2.0.1
    ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:0a dev va; ip neigh add 10.2.0.2 lladdr 02:00:00:00:00:0b dev vb
    ip -n a neigh add 10.1.0.1 lladdr 02:00:00:00:01:0a dev eth0; ip -n b neigh add 10.2.0.1 lladdr 02:00:00:00:01:0b dev eth0
    ip -n c neigh add 10.3.0.2 lladdr 02:00:00:00:00:0d dev eth0; ip -n d neigh add 10.3.0.1 lladdr 02:00:00:00:00:0c dev eth0
"""
EMPTY = """
    nft flush ruleset
    if iptables-legacy-save 2> /dev/null | grep -q '^[*]'; then
        for t in raw mangle nat filter; do iptables-legacy -t $t -F; iptables-legacy -t $t -X; done
        for c in INPUT FORWARD OUTPUT; do iptables-legacy -P $c ACCEPT; done
    fi
"""
LISTING = """
    nft -j list ruleset; echo; echo ----; iptables-nft-save 2> /dev/null || true
    echo ----; iptables-legacy-save 2> /dev/null || true
"""


LOCAL = {"10.1.0.1": "local", "10.2.0.1": "local", "10.1.0.255": "broadcast", "224.0.0.1": "multicast"}
ASKED = Asked(lambda address: LOCAL.get(address, "unicast"), lambda: "10.2.0.1")


@dataclass(frozen=True)
class Way:
    """From whom to whom, and the hooks on it with what changes there."""

    sender: str
    receiver: str
    packet: Meta
    hooks: tuple[tuple[str, str, dict[str, Any]], ...]


def packet(source: str, destination: str, **more: Any) -> Meta:
    return Meta(src=source, dst=destination, length=84, ttl=64, df=False, icmp_type=8, **more)


FORWARD = Way(
    "a",
    "b",
    packet("10.1.0.2", "10.2.0.2", source_mac="02:00:00:00:00:0a", destination_mac="02:00:00:00:01:0a"),
    (
        ("ingress", "netdev", {"iif": "va"}),
        ("prerouting", "ip", {}),
        ("forward", "ip", {"oif": "vb", "ttl": 63}),
        ("postrouting", "ip", {}),
        ("egress", "netdev", {"source_mac": "02:00:00:00:01:0b", "destination_mac": "02:00:00:00:00:0b"}),
    ),
)
INPUT = Way("a", "", packet("10.1.0.2", "10.1.0.1"), (("prerouting", "ip", {"iif": "va"}), ("input", "ip", {})))
OUTPUT = Way("", "a", packet("10.1.0.1", "10.1.0.2"), (("output", "ip", {"oif": "va"}), ("postrouting", "ip", {})))
BRIDGE = Way(
    "c",
    "d",
    packet(
        "10.3.0.1", "10.3.0.2", source_mac="02:00:00:00:00:0c", destination_mac="02:00:00:00:00:0d", pkttype="other"
    ),
    (
        ("prerouting", "bridge", {"iif": "vc"}),
        ("forward", "bridge", {"oif": "vd"}),
        ("postrouting", "bridge", {"iif": ""}),
    ),
)


class Machine:
    """A router between the namespaces a and b, and a bridge between c and d."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.sh(TOPOLOGY)
        self.sockets: dict[tuple[str, int], socket.socket] = {}

    def socket(self, namespace: str, protocol: int) -> socket.socket:
        """A raw socket in a namespace; empty: the router's own."""
        if (namespace, protocol) not in self.sockets:
            folder = f"/proc/{self.host.pid}/"
            raw = _netns.inside(
                folder + (f"root/run/netns/{namespace}" if namespace else "ns/net"),
                lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol),
            )
            raw.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT: no DF
            self.sockets[namespace, protocol] = raw
        return self.sockets[namespace, protocol]

    def install(self, rules: str, tool: str = "nft") -> None:
        """A rule set alone: nft's text, or the arguments of iptables a line."""
        script = (
            f"nft -f - << END\n{rules}\nEND"
            if tool == "nft"
            else re.sub("^ *(?=.)", f"{tool} ", rules, flags=re.MULTILINE)
        )
        self.host.sh(EMPTY + script)

    def judge(self, way: Way, packet: Meta) -> list[Ruling]:
        """The rulings at all hooks on the way."""
        nft, *saved = self.host.sh(LISTING).split("----\n")
        listing = merge(json.loads(nft)["nftables"], *saved)
        rulings: list[Ruling] = []
        for hook, family, change in way.hooks:
            found, packet = passed(listing, hook, family, replace(packet, **change), ASKED)
            rulings += found
        return rulings

    def arrives(self, way: Way, packet: Meta, patience: float) -> str:
        """Send the packet, and return the source that it arrives with; empty if it does not within the seconds."""
        receiver = self.socket(way.receiver, packet.protocol)
        sender = self.socket(way.sender, packet.protocol)
        assert packet.length is not None
        tag = os.urandom(8)
        vxlan = struct.pack("!II", 0x08000000, packet.vni << 8) if packet.vni else b""
        payload = (vxlan + tag).ljust(packet.length - 28, b".")
        if packet.protocol == ICMP:
            data = struct.pack("!BBHHH", 8, 0, 0, *struct.unpack("!HH", tag[:4])) + payload
            data = data[:2] + struct.pack("!H", _icmp.checksum(data)) + data[4:]
        elif packet.protocol == UDP:
            data = struct.pack("!HHHH", packet.sport or 0, packet.dport or 0, packet.length - 20, 0) + payload
        else:
            data = b"\x45" + bytes(7) + payload
        with contextlib.suppress(PermissionError):  # the hook output says so to the sender
            sender.sendto(data, (str(packet.dst), 0))
        end = time.monotonic() + patience
        while select.select([receiver], [], [], max(0.0, end - time.monotonic()))[0]:
            arrived = receiver.recv(2000)
            if tag in arrived:
                return socket.inet_ntoa(arrived[12:16])
        return ""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    hosts = started()
    made = Machine(next(hosts))
    yield made
    for raw in made.sockets.values():
        raw.close()
    next(hosts, None)


def table(rules: str, hook: str = "forward", policy: str = "accept", family: str = "inet", more: str = "") -> str:
    rules = rules.replace("; ", "\n")
    return f"table {family} t {{\n{more}\nchain base {{\ntype filter hook {hook} priority 0; policy {policy};\n{rules}\n}}\n}}\n"


SETS = """
    set peers { type ipv4_addr; flags interval; elements = { 10.1.0.0/30, 192.0.2.1-192.0.2.9 } }
    set pairs { type ipv4_addr . inet_service; elements = { 10.1.0.2 . 53 } }
    set ports { typeof iifname . ip saddr; flags interval; elements = { "v*" . 10.1.0.0/24, "eth*" . 10.0.0.0/8 } }
    map verdicts { type ipv4_addr : verdict; flags interval; elements = { 10.1.0.0/24 : jump sub, 10.0.0.1 : drop } }
    map marks { type ipv4_addr : mark; elements = { 10.1.0.2 : 7 } }
    set none { type ipv4_addr; }
    set sources { type mark . ipv4_addr; flags interval; elements = { 7 . 10.1.0.0/24, 8 . 10.2.0.0/24, 9 . 10.3.0.1-10.3.0.9 } }
    map owners { type ipv4_addr : mark; flags interval; elements = { 10.1.0.2 : 7, 10.2.0.0/24 : 8 } }
    set allowed { type ipv4_addr . inet_proto . inet_service; flags interval;
        elements = { 10.1.0.0/24 . udp . 50-60, 10.1.0.0/24 . tcp . 80, 10.1.0.9 . icmp . 0-65535 } }
    set pinged { type ipv4_addr . inet_proto . inet_service; flags interval; elements = { 10.1.0.0/24 . icmp . 0-65535 } }
    map isolated { type ipv4_addr . inet_proto : verdict; elements = { 10.2.0.2 . icmp : drop, 10.2.0.2 . udp : goto sub } }
    map networks { type ipv4_addr . mark : verdict; flags interval; elements = { 10.2.0.0/16 . 0 : drop, 10.9.0.0/16 . 0 : accept } }
    chain sub {
        ip daddr 10.9.9.9 return
        udp dport 53 accept
        ip protocol icmp drop
    }
"""
DNS = {"protocol": UDP, "sport": 40000, "dport": 53}
TUNNELLED = {"protocol": IPIP}

FORWARDED = [  # rules of nft, what they say, the packet if it is not a ping
    ("accept", "", {}),
    ("drop", "drop", {}),
    ('counter; log prefix "x"; drop', "drop", {}),
    ("reject", "reject", {}),
    ("accept; drop", "", {}),
    ("return; drop", "", {}),
    ("continue; drop", "drop", {}),
    ("ip saddr 10.1.0.2 drop", "drop", {}),
    ("ip saddr != 10.1.0.2 drop", "", {}),
    ("ip saddr 10.1.0.0/24 ip daddr != 10.1.0.0/24 drop", "drop", {}),
    ("ip daddr { 10.2.0.1-10.2.0.3, 192.0.2.1 } drop", "drop", {}),
    ("ip daddr != { 10.2.0.1-10.2.0.3, 192.0.2.1 } drop", "", {}),
    ("ip saddr & 255.0.0.255 == 10.0.0.2 drop", "drop", {}),
    ("ip saddr > 10.1.0.1 drop", "drop", {}),
    ("ip saddr @peers drop", "drop", {}),
    ("ip saddr != @peers drop", "", {}),
    ("ip saddr @none drop", "", {}),
    ("ip saddr . udp dport @pairs drop", "drop", DNS),
    ("ip saddr . udp dport @pairs drop", "", {}),
    ("ip saddr . udp dport != @pairs drop", "", {}),
    ("iifname . ip saddr @ports drop", "drop", {}),
    ("ip saddr vmap @verdicts", "drop", {}),
    ("ip saddr vmap @verdicts; drop", "", DNS),
    ("ip saddr vmap @verdicts", "", TUNNELLED),
    ("ip saddr vmap { 10.9.0.1 : drop }", "", {}),
    ('iifname vmap { "va" : drop, "vb" : accept }', "drop", {}),
    ('iif . oif vmap { "va" . "vb" : drop }', "drop", {}),
    ("jump sub", "drop", {}),
    ("jump sub; drop", "", DNS),
    ("jump sub; drop", "drop", TUNNELLED),
    ("goto sub; drop", "", TUNNELLED),
    ('iifname "v*" oifname "vb" drop', "drop", {}),
    ('iifname "v\\*" drop', "", {}),
    ("iif != va drop", "", {}),
    ('oifname { "vx", "vb" } drop', "drop", {}),
    ("meta l4proto { icmp, udp } drop", "", TUNNELLED),
    ("ip protocol 4 drop", "drop", TUNNELLED),
    ("ip protocol != icmp drop", "", {}),
    ("ip protocol ipip drop", "", TUNNELLED),
    ("icmp type echo-request drop", "drop", {}),
    ("icmp type { echo-reply, echo-request } icmp code 0 drop", "drop", {}),
    ("icmp type != echo-reply drop", "", DNS),
    ("udp dport 53 drop", "drop", DNS),
    ("udp dport 50-60 udp sport != 53 drop", "drop", DNS),
    ("udp dport != 53 drop", "", {}),
    ("tcp dport 53 drop", "", DNS),
    ("th dport 53 drop", "drop", DNS),
    ("udp length 64 drop", "drop", DNS),
    ("ip6 saddr != ::1 drop", "", {}),
    ("icmpv6 type echo-request drop", "", {}),
    ("ip ttl 63 drop", "drop", {}),
    ("ip ttl < 63 drop", "", {}),
    ("ip length 84 meta length 84 drop", "drop", {}),
    ("meta length > 84 drop", "", {}),
    ("ip frag-off & 0x4000 != 0 drop", "", {}),
    ("ip version 4 ip hdrlength 5 drop", "drop", {}),
    ("meta nfproto ipv4 meta protocol ip drop", "drop", {}),
    ("meta protocol != ip drop", "", {}),
    ("meta pkttype host drop", "drop", {}),
    ("fib daddr type local drop", "", {}),
    ("fib daddr type unicast drop", "drop", {}),
    ("ether saddr 02:00:00:00:00:0a drop", "drop", {}),
    ("ether daddr & ff:ff:ff:ff:00:00 == 02:00:00:00:00:00 drop", "drop", {}),
    ("ct state new drop", "drop", {}),
    ("ct state established,related drop", "", {}),
    ("ct state { established, new } drop", "drop", {}),
    ("ct state vmap { established : accept, new : drop }", "drop", {}),
    ("ct state != new drop", "", {}),
    ("ct direction original drop", "drop", {}),
    ("meta mark 0 drop", "drop", {}),
    ("meta mark set 0x4005; meta mark & 0xff00 == 0x4000 drop", "drop", {}),
    ("meta mark set 7; meta mark set meta mark & 0xfe | 8; meta mark 0xe drop", "drop", {}),
    ("meta mark set ip saddr map @marks; meta mark 7 drop", "drop", {}),
    ("ip daddr 10.9.9.9 meta mark set 5; meta mark 5 drop", "", {}),
    ("ip ttl set 5; ip ttl 5 drop", "drop", {}),
    ("meta mark set ip saddr map @owners; meta mark . ip saddr != @sources drop", "", {}),
    ("meta mark set ip saddr map @owners; meta mark . ip saddr @sources drop", "drop", {}),
    ("meta mark set ip daddr map @owners; meta mark . ip saddr != @sources drop", "drop", {}),
    ("meta mark set 1; meta mark . ip saddr != @sources drop", "drop", {}),
    ("meta mark set 7; meta mark set ip ttl map { 1 : 8 } accept; meta mark 7 drop", "drop", {}),
    ("ip saddr . meta l4proto . th dport @allowed accept; drop", "", DNS),
    ("ip saddr . meta l4proto . th dport @allowed accept; drop", "drop", {**DNS, "dport": 61}),
    ("ip saddr . meta l4proto . th dport @allowed accept; drop", "drop", {}),
    ("ip saddr . meta l4proto . th dport @pinged drop", "drop", {}),
    ("meta l4proto . th dport { udp . 50-60, tcp . 80 } drop", "drop", DNS),
    ("meta l4proto . th dport { udp . 54-60, tcp . 53 } drop", "", DNS),
    ("ip daddr . meta l4proto vmap @isolated", "drop", {}),
    ("ip daddr . meta l4proto vmap @isolated; drop", "", DNS),
    ("ip daddr . meta mark vmap @networks", "drop", {}),
    ("meta mark set 1; ip daddr . meta mark vmap @networks", "", {}),
    ("fib saddr type unicast drop", "drop", {}),
    ("fib saddr type { local, broadcast } drop", "", {}),
    ("ct status dnat drop", "", {}),
    ("ct status snat,confirmed drop", "", {}),
    ("ct original ip daddr 10.2.0.2 drop", "drop", {}),
    ("meta l4proto udp ct original proto-dst 53 drop", "drop", DNS),
    ("udp dport 53 @th,96,24 8 drop", "drop", {**DNS, "vni": 8}),
    ("udp dport 53 @th,96,24 7 drop", "", {**DNS, "vni": 8}),
]


@pytest.mark.parametrize(
    ("rules", "verdict", "change"), FORWARDED, ids=[f"{rules} {change}" for rules, _v, change in FORWARDED]
)
def test_a_forwarded_packet(machine: Machine, rules: str, verdict: str, change: dict[str, Any]) -> None:
    machine.install(table(rules, more=SETS))
    agree(machine, FORWARD, verdict, **change)


def agree(machine: Machine, way: Way, verdict: str, **change: Any) -> list[Ruling]:
    """The judge says the verdict (empty: none, with no doubt), and the kernel does it."""
    packet = replace(way.packet, **change)
    rulings = machine.judge(way, packet)
    stops = [ruling.verdict for ruling in rulings if ruling.stops or ruling.verdict == "may drop"]
    assert stops == ([verdict] if verdict else []), rulings
    assert bool(machine.arrives(way, packet, 0.03 if verdict else 2)) == (not verdict)
    return rulings


@pytest.mark.parametrize(
    ("way", "hook", "rules", "verdict", "change"),
    [
        (FORWARD, "prerouting", "iifname va oifname != vb ip ttl 64 drop", "drop", {}),
        (FORWARD, "prerouting", "oifname vb drop", "", {}),
        (FORWARD, "postrouting", "iifname va oifname vb ip ttl 63 drop", "drop", {}),
        (FORWARD, "prerouting", "fib daddr type local drop", "", {}),
        (FORWARD, "prerouting", "fib daddr type != local drop", "drop", {}),
        (INPUT, "prerouting", "fib daddr type local drop", "drop", {}),
        (OUTPUT, "output", "fib daddr type local drop", "", {}),
        (OUTPUT, "output", "fib saddr type local drop", "drop", {}),
        (FORWARD, "input", "drop", "", {}),
        (FORWARD, "output", "drop", "", {}),
        (INPUT, "input", "iifname va fib daddr type local drop", "drop", {}),
        (INPUT, "input", "ip protocol 4 ip saddr != 10.1.0.9 drop", "drop", TUNNELLED),
        (INPUT, "prerouting", "icmp type echo-request reject", "reject", {}),
        (INPUT, "forward", "drop", "", {}),
        (OUTPUT, "output", "oifname va iifname != va drop", "drop", {}),
        (OUTPUT, "output", "udp dport 53 drop", "", {}),
        (OUTPUT, "postrouting", "udp dport 53 drop", "drop", DNS),
    ],
)
def test_another_hook(machine: Machine, way: Way, hook: str, rules: str, verdict: str, change: dict[str, Any]) -> None:
    machine.install(table(rules, hook))
    agree(machine, way, verdict, **change)


PODS = """
    set pods { type ifname . ether_addr . ipv4_addr
        elements = { "vc" . 02:00:00:00:00:0c . 10.3.0.1, "vd" . 02:00:00:00:00:0d . 10.3.0.2 } }
"""


@pytest.mark.parametrize(
    ("hook", "rules", "verdict"),
    [
        ("forward", "iifname vc oifname vd drop", "drop"),
        ("forward", "ip saddr 10.3.0.1 ether saddr 02:00:00:00:00:0c drop", "drop"),
        ("forward", "ether type arp drop", ""),
        ("forward", "ether type ip drop", "drop"),
        ("prerouting", "ether daddr 02:00:00:00:00:0d drop", "drop"),
        ("prerouting", "oifname vd drop", ""),
        ("postrouting", "oifname vd drop", "drop"),
        ("input", "drop", ""),
        ("prerouting", "iifname . ether saddr . ip saddr != @pods drop", ""),
        ("prerouting", "iifname . ether saddr . ip saddr @pods drop", "drop"),
        ("prerouting", "ip saddr set 10.3.0.7; iifname . ether saddr . ip saddr != @pods drop", "drop"),
        ("prerouting", "iifname . ether saddr . ip saddr { vc . 02:00:00:00:00:0d . 10.3.0.1 } drop", ""),
        ("prerouting", "iifname vc arp saddr ip != 10.3.0.1 drop", ""),
        ("prerouting", "iifname . arp saddr ether . arp saddr ip != @pods drop", ""),
        ("prerouting", "ether type != { ip, arp } drop", ""),
        ("prerouting", "ether type { ip, arp } drop", "drop"),
        ("prerouting", "meta pkttype other drop", "drop"),
        ("prerouting", "meta pkttype set host; meta pkttype other drop", ""),
        ("prerouting", "meta pkttype != other drop", ""),
        (
            "prerouting",
            "ip daddr 10.3.0.2 ether daddr set 02:00:00:00:00:99; ether daddr 02:00:00:00:00:99 drop",
            "drop",
        ),
        ("forward", "meta pkttype host drop", ""),
    ],
)
def test_a_bridged_packet(machine: Machine, hook: str, rules: str, verdict: str) -> None:
    machine.install(table(rules, hook, family="bridge", more=PODS))
    agree(machine, BRIDGE, verdict)


@pytest.mark.parametrize("verdict", ["drop", "accept"])
def test_a_netdev_chain_whose_device_nft_does_not_tell_is_in_doubt(machine: Machine, verdict: str) -> None:
    machine.install(
        f"table netdev t {{\nchain base {{\ntype filter hook ingress device va priority 0;\n{verdict}\n}}\n}}"
    )
    rulings = machine.judge(FORWARD, FORWARD.packet)
    assert bool(rulings) == (verdict == "drop")
    assert bool(machine.arrives(FORWARD, FORWARD.packet, 0.03 if rulings else 2)) == (not rulings)


@pytest.mark.parametrize(
    ("rules", "verdicts"),
    [
        (table("", policy="drop"), ["drop"]),
        (table("accept", policy="drop"), []),
        (table("jump sub", policy="drop", more="chain sub {\n accept \n}"), []),
        (table("jump sub", policy="drop", more="chain sub {\n return \n}"), ["drop"]),
        (table("goto sub; accept", policy="drop", more="chain sub {\n return \n}"), ["drop"]),
        (table("accept") + "\n" + table("drop").replace("table inet t", "table ip u"), ["drop"]),
        (
            table("meta mark set 5").replace("priority 0", "priority -5") + table("meta mark 5 drop", family="ip"),
            ["drop"],
        ),
        (table("meta mark set 5").replace("priority 0", "priority 5") + table("meta mark 5 drop", family="ip"), []),
        (table("meta mark set 5", "prerouting") + table("meta mark 5 drop", family="ip"), ["drop"]),
        (
            table("notrack", "prerouting").replace("priority 0", "priority -300")
            + table("ct state untracked drop", family="ip"),
            ["drop"],
        ),
        (table("drop", family="ip6"), []),
    ],
)
def test_policies_and_tables(machine: Machine, rules: str, verdicts: list[str]) -> None:
    machine.install(rules)
    agree(machine, FORWARD, "".join(verdicts))


def test_a_table_with_flags_is_in_doubt_as_nft_garbles_them(machine: Machine) -> None:
    machine.install(table("drop").replace("table inet t {", "table inet t {\nflags dormant"))
    rulings = agree_on_stops(machine, FORWARD.packet)
    assert [ruling.verdict for ruling in rulings] in ([], ["may drop"])


PORTS = itertools.count(41000)  # of connections that are not there yet
NAT = "table ip n {{\nchain base {{\ntype nat hook {hook} priority {priority};\n{rules}\n}}\n}}\n"


@pytest.mark.parametrize(
    ("rules", "verdicts", "source"),
    [
        ("ip saddr 10.1.0.0/24 masquerade", ["masquerade"], "10.2.0.1"),
        ("ip saddr 10.1.0.0/24 ip daddr != 10.0.0.0/8 masquerade", [], "10.1.0.2"),
        ("oifname vb snat to 192.0.2.7", ["snat"], "192.0.2.7"),
        ("oifname vb return; masquerade", [], "10.1.0.2"),
        ("ip daddr 10.0.0.0/8 snat to ip saddr; masquerade", [], "10.1.0.2"),
        ("snat to 10.1.0.2; masquerade", [], "10.1.0.2"),
        ("snat to ip saddr map { 10.1.0.2 : 192.0.2.8 }", ["snat"], "192.0.2.8"),
        ("snat to ip saddr map { 10.1.0.3 : 192.0.2.8 }; masquerade fully-random", ["masquerade"], "10.2.0.1"),
        ("ct status dnat masquerade", [], "10.1.0.2"),
        ("fib saddr type != local masquerade", ["masquerade"], "10.2.0.1"),
    ],
)
def test_a_translation_is_told_and_does_not_stop(
    machine: Machine, rules: str, verdicts: list[str], source: str
) -> None:
    machine.install(NAT.format(hook="postrouting", priority=100, rules=rules.replace("; ", "\n")))
    assert [ruling.verdict for ruling in machine.judge(FORWARD, FORWARD.packet)] == verdicts
    assert machine.arrives(FORWARD, FORWARD.packet, 2) == source


def test_the_first_translation_is_the_only_one(machine: Machine) -> None:
    first = NAT.format(hook="postrouting", priority=90, rules="snat to 192.0.2.7")
    machine.install(first + NAT.format(hook="postrouting", priority=100, rules="masquerade").replace("ip n", "ip m"))
    assert [ruling.verdict for ruling in machine.judge(FORWARD, FORWARD.packet)] == ["snat"]
    assert machine.arrives(FORWARD, FORWARD.packet, 2) == "192.0.2.7"


def test_a_translated_destination_is_what_later_rules_see(machine: Machine) -> None:
    nat = NAT.format(hook="prerouting", priority=-100, rules="ip daddr 10.9.9.9 dnat to 10.2.0.2")
    machine.install(nat + table("ip daddr 10.2.0.2 drop"))
    rulings = agree_on_stops(machine, replace(FORWARD.packet, dst="10.9.9.9"))
    assert [ruling.verdict for ruling in rulings] == ["dnat", "drop"]


@pytest.mark.parametrize("rule", ["snat to ip saddr", "masquerade"])
def test_what_a_connection_is_bound_to_no_later_chain_changes(machine: Machine, rule: str) -> None:
    first = NAT.format(hook="postrouting", priority=99, rules=f"ip daddr 10.0.0.0/8 {rule}").replace("ip n", "inet m")
    machine.install(first + NAT.format(hook="postrouting", priority=100, rules="snat to 192.0.2.7"))
    rulings = machine.judge(FORWARD, FORWARD.packet)
    assert [ruling.verdict for ruling in rulings] == (["masquerade"] if rule == "masquerade" else [])
    assert machine.arrives(FORWARD, FORWARD.packet, 2) == ("10.2.0.1" if rulings else "10.1.0.2")


@pytest.mark.parametrize(
    ("rules", "verdicts", "source"),
    [
        ("", ["dnat"], "10.1.0.2"),
        ("ct status dnat masquerade", ["dnat", "masquerade"], "10.2.0.1"),
        ("ct original ip daddr 10.1.0.1 masquerade", ["dnat", "masquerade"], "10.2.0.1"),
        ("ct original ip daddr 10.2.0.2 masquerade", ["dnat"], "10.1.0.2"),
        ("ct status snat masquerade", ["dnat"], "10.1.0.2"),
        ("udp dport 5300 snat to 192.0.2.7", ["dnat", "snat"], "192.0.2.7"),
    ],
)
def test_a_mapped_port(machine: Machine, rules: str, verdicts: list[str], source: str) -> None:
    mapping = "fib daddr type local meta l4proto . th dport { udp . 50-60 } meta l4proto udp dnat ip to 10.2.0.2:5300"
    mapped = NAT.format(hook="prerouting", priority=-100, rules=mapping).replace("ip n", "inet m")
    machine.install(mapped + NAT.format(hook="postrouting", priority=99, rules=rules))
    sent = replace(FORWARD.packet, dst="10.1.0.1", protocol=UDP, sport=next(PORTS), dport=53)
    assert [ruling.verdict for ruling in machine.judge(FORWARD, sent)] == verdicts
    assert machine.arrives(FORWARD, sent, 2) == source


@pytest.mark.parametrize(
    ("nat", "mangle", "dropped"), [(-190, -150, False), (-190, -99, True), (50, -99, True), (50, -101, False)]
)
def test_chains_of_type_nat_are_all_called_from_one_place(
    machine: Machine, nat: int, mangle: int, dropped: bool
) -> None:
    """nf_nat_proto.c: their priorities order them among themselves only."""
    rules = NAT.format(hook="prerouting", priority=nat, rules="ip daddr 10.9.9.9 dnat to 10.2.0.2")
    machine.install(rules + table("ip daddr 10.2.0.2 drop", "prerouting").replace("priority 0", f"priority {mangle}"))
    rulings = agree_on_stops(machine, replace(FORWARD.packet, dst="10.9.9.9"))
    assert any(ruling.stops for ruling in rulings) == dropped


def test_a_translation_that_may_be_leaves_the_next_in_doubt(machine: Machine) -> None:
    first = NAT.format(hook="postrouting", priority=90, rules="ct mark 3 snat to 192.0.2.7")
    machine.install(first + NAT.format(hook="postrouting", priority=100, rules="masquerade").replace("ip n", "ip m"))
    rulings = machine.judge(FORWARD, FORWARD.packet)
    assert [ruling.verdict for ruling in rulings] == ["may snat", "may masquerade"]
    assert machine.arrives(FORWARD, FORWARD.packet, 2) == "10.2.0.1"


def agree_on_stops(machine: Machine, packet: Meta) -> list[Ruling]:
    """What is surely said is surely so, whatever else is in doubt."""
    rulings = machine.judge(FORWARD, packet)
    dropped = any(ruling.stops for ruling in rulings)
    passes = not dropped and not any(ruling.verdict == "may drop" for ruling in rulings)
    arrived = machine.arrives(FORWARD, packet, 2 if passes else 0.03)
    assert not (dropped and arrived), rulings
    assert not (passes and not arrived), rulings
    return rulings


# ------------------------------------------------------------------------------------------------ iptables

IPTABLES = [  # lines of arguments, what they say, the packet if it is not a ping
    ("-A FORWARD -s 10.1.0.0/24 -d 10.2.0.2 -p icmp -m icmp --icmp-type 8 -j DROP", "drop", {}),
    ("-A FORWARD -p icmp -m icmp --icmp-type 0 -j DROP", "", {}),
    ("-A FORWARD -p icmp -m icmp --icmp-type 8/0 -j DROP", "drop", {}),
    ("-A FORWARD ! -s 10.1.0.0/24 -j DROP", "", {}),
    ("-A FORWARD -s 10.0.0.2/255.0.0.255 -j DROP", "drop", {}),
    ("-A FORWARD -i v+ ! -o vc -j REJECT --reject-with icmp-host-prohibited", "reject", {}),
    ("-A FORWARD -i w+ -j DROP", "", {}),
    ("-A FORWARD -p 4 -j DROP", "drop", TUNNELLED),
    ("-A FORWARD ! -p 4 -j DROP", "", TUNNELLED),
    ("-A FORWARD ! -f -p udp -j DROP", "drop", DNS),
    ("-A FORWARD -f -j DROP", "", {}),
    ("-A FORWARD -p udp --dport 50:60 -j DROP", "drop", DNS),
    ("-A FORWARD -p udp ! --dport 53 -j DROP", "", DNS),
    ("-A FORWARD -p udp -m multiport --dports 22,50:60 -j DROP", "drop", DNS),
    ("-A FORWARD -p tcp --syn -j DROP", "", {}),
    ("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -j DROP", "drop", {}),
    ("-A FORWARD -m state --state NEW -j DROP", "drop", {}),
    ("-A FORWARD -m conntrack ! --ctstate NEW -j DROP", "", {}),
    ("-A FORWARD -m iprange --src-range 10.1.0.1-10.1.0.9 -j DROP", "drop", {}),
    ("-A FORWARD -m length --length 85:1500 -j DROP", "", {}),
    ("-A FORWARD -m length --length 84 -j DROP", "drop", {}),
    ("-A FORWARD -m ttl --ttl-lt 64 -j DROP", "drop", {}),
    ("-A FORWARD -m ttl --ttl-gt 63 -j DROP", "", {}),
    ("-A FORWARD -m mac --mac-source 02:00:00:00:00:0a -j DROP", "drop", {}),
    ("-A FORWARD -m mac ! --mac-source 02:00:00:00:00:0a -j DROP", "", {}),
    ("-A FORWARD -m addrtype --dst-type LOCAL,BROADCAST -j DROP", "", {}),
    ("-A FORWARD -m addrtype ! --dst-type LOCAL -j DROP", "drop", {}),
    ("-A FORWARD -m pkttype --pkt-type unicast -j DROP", "drop", {}),
    ("-A FORWARD -m pkttype --pkt-type broadcast -j DROP", "", {}),
    (
        "-t mangle -A PREROUTING -i va -j MARK --set-xmark 0x4000/0xf000\n-A FORWARD -m mark --mark 0x4000/0x4000 -j DROP",
        "drop",
        {},
    ),
    ("-t mangle -A PREROUTING -i vb -j MARK --set-mark 1\n-A FORWARD -m mark --mark 1 -j DROP", "", {}),
    ("-A FORWARD -m mark ! --mark 0 -j DROP", "", {}),
    ('-A FORWARD -m comment --comment "a -j b" -j DROP', "drop", {}),
    ('-A FORWARD -j LOG --log-prefix "a b"\n-A FORWARD -d 10.2.0.0/24 -j DROP', "drop", {}),
    ("-P FORWARD DROP", "drop", {}),
    ("-P FORWARD DROP\n-A FORWARD -s 10.1.0.0/16 -j ACCEPT", "", {}),
    ("-N SUB\n-A SUB -p udp -j RETURN\n-A SUB -j DROP\n-A FORWARD -j SUB", "drop", {}),
    ("-N SUB\n-A SUB -p udp -j RETURN\n-A SUB -j DROP\n-A FORWARD -j SUB", "", DNS),
    ("-N SUB\n-A FORWARD -g SUB\n-A FORWARD -j DROP", "", {}),
    ("-t raw -A PREROUTING -d 10.2.0.2 -j DROP", "drop", {}),
    ("-t raw -A PREROUTING -j CT --notrack\n-A FORWARD -m conntrack --ctstate UNTRACKED -j DROP", "drop", {}),
    ("-t mangle -A POSTROUTING -o vb -j DROP", "drop", {}),
    ("-A INPUT -j DROP", "", {}),
]


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize(
    ("rules", "verdict", "change"), IPTABLES, ids=[f"{rules} {change}" for rules, _v, change in IPTABLES]
)
def test_iptables(machine: Machine, tool: str, rules: str, verdict: str, change: dict[str, Any]) -> None:
    if not shutil.which(tool):
        pytest.skip(f"no {tool} here: apt install iptables")
    machine.install(rules, tool)
    for ruling in agree(machine, FORWARD, verdict, **change):
        assert ruling.where.startswith("iptables-legacy table" if tool == "iptables-legacy" else "iptables table")
        assert ruling.rule.partition(" ")[0] in ("-A", "-P")


# ------------------------------------------------------------------------------------------------ any rules at all

YES = (
    "ip saddr 10.1.0.2",
    "iifname va",
    "udp dport 53",
    "ip daddr 10.2.0.0/16",
    "meta mark & 1 == 0",
    "ct state new",
    "ip ttl { 63, 1 }",
)
NO = (
    "ip saddr != 10.1.0.2",
    "iifname vb",
    "udp sport 1",
    "meta length > 1000",
    "meta mark & 1 == 1",
    "ct state invalid",
    "ip ttl 64",
)
MAYBE = (
    "meta random > 0x40000000",
    "ct mark 0",
    "limit rate 1/hour burst 1 packets",
    "meta cpu 0",
    "ip dscp cs0",
    "ip id > 0x8000",
)
CHAINS = ("base", "second", "third")


def rules_of(verdicts: tuple[str, ...]) -> st.SearchStrategy[str]:
    tests = st.lists(st.sampled_from((*YES, *YES, *NO, *MAYBE)), max_size=2)
    return st.lists(st.tuples(tests, st.sampled_from(verdicts)), max_size=4).map(
        lambda rules: "\n".join(" ".join([*tests, verdict]) for tests, verdict in rules)
    )


MARKS = ("meta mark set 1", "meta mark set mark xor 1")
ENDS = ("accept", "drop", "return", "counter", *MARKS)
TABLES = st.builds(
    lambda chains, policy, family: table(chains[0], "forward", policy, family, chains[1]),
    st.tuples(
        rules_of(
            (
                *ENDS,
                "jump second",
                "goto second",
                "jump third",
                "ip saddr vmap { 10.1.0.2 : jump second, 10.1.0.3 : drop }",
            )
        ),
        st.builds(
            "chain third {{\n{}\n}}\nchain second {{\n{}\n}}".format,
            rules_of(ENDS),
            rules_of((*ENDS, "jump third", "goto third")),
        ),
    ),
    st.sampled_from(("accept", "accept", "drop")),
    st.sampled_from(("inet", "ip")),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, TABLES)
def test_what_is_sure_of_any_rules_is_so(machine: Machine, one: str, other: str) -> None:
    note(one + other)
    machine.install(one + other.replace(" t {", " u {", 1).replace("priority 0", "priority 1"))
    agree_on_stops(machine, replace(FORWARD.packet, **DNS))
