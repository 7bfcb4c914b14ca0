"""The source address that the far end sees, of every kind of traffic of pods and nodes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.kernel.far_end import DOUBT, LOST, PATIENCE, PROTOCOLS, Place, Seen, asked
from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, TABLE, document, overlay

BACKENDS = [pytest.param("ipip", marks=pytest.mark.ipip), "vxlan", "host-gw"]
once = pytest.mark.parametrize("backend", ["vxlan"], indirect=True)
"""What has nothing to do with the way between nodes."""
OTHERS = {"internet": "198.51.100.99", "office": "198.51.100.77"}
"""Machines that are no members: one that knows no way to pods, and one that does."""
EXCEPTED, MARKED = "198.51.100.77", "198.51.100.78"
"""The office's addresses: the first is an exception from masquerade, to the second somebody marks as kube-proxy does."""
FIXED = "198.51.100.111"
GROUP = "239.1.2.3"
POD, NODE, BRIDGE = "10.244.0.2", "198.51.100.11", "10.244.0.1"
TUNNEL = "10.244.0.0"

Hosts = Mapping[str, Host]


@dataclass(frozen=True)
class Case:
    """Somebody speaks to somebody; ``client`` and ``server`` are ``node1``, ``web@node1`` and the like."""

    client: str
    target: str
    server: str
    source: str = ""
    port: int = 7000
    listen: int = 7000

    def place(self, hosts: Hosts, name: str) -> Place:
        pod, _at, host = name.rpartition("@")
        return Place(hosts[host], pod)

    def ask(self, hosts: Hosts, protocol: str, patience: float = PATIENCE) -> Seen:
        # A server on a node answers from the address that was asked, as a good UDP server does.
        listen = ("" if "@" in self.server else self.target, self.listen)
        return asked(
            self.place(hosts, self.client),
            (self.target, self.port),
            self.place(hosts, self.server),
            protocol=protocol,
            listen=listen,
            source=(self.source, 0) if self.source else None,
            patience=patience,
        )


CASES = {
    "pod -> itself": Case("web@node1", POD, "web@node1"),
    "pod -> pod, same node": Case("web@node1", "10.244.0.3", "db@node1"),
    "pod -> pod, other node": Case("web@node1", "10.244.1.3", "db@node2"),
    "pod -> other node": Case("web@node1", "198.51.100.12", "node2"),
    "pod -> other node's bridge": Case("web@node1", "10.244.1.1", "node2"),
    "pod -> own node": Case("web@node1", NODE, "node1"),
    "pod -> own node's bridge": Case("web@node1", BRIDGE, "node1"),
    "pod -> internet": Case("web@node1", OTHERS["internet"], "internet"),
    "pod -> excepted network": Case("web@node1", EXCEPTED, "office"),
    "pod -> internet, mark 0x4000": Case("web@node1", MARKED, "office"),
    "node -> own pod": Case("node1", POD, "web@node1"),
    "node, underlay address -> own pod": Case("node1", POD, "web@node1", source=NODE),
    "node -> remote pod": Case("node1", "10.244.1.3", "db@node2"),
    "node, underlay address -> remote pod": Case("node1", "10.244.1.3", "db@node2", source=NODE),
    "node -> internet": Case("node1", OTHERS["internet"], "internet"),
    "internet -> mapped port": Case("internet", NODE, "web@node1", port=8080),
    "office -> pod, routed": Case("office", POD, "web@node1"),
    "office -> remote pod, routed": Case("office", "10.244.1.3", "db@node2"),
}
MULTICAST = "pod -> multicast"
NO_WAY_BACK = str(Seen(POD, answered=False))
KEPT = {
    "pod -> itself": POD,
    "pod -> pod, same node": POD,
    "pod -> pod, other node": POD,
    "pod -> other node": POD,
    "pod -> other node's bridge": POD,
    "pod -> own node": POD,
    "pod -> own node's bridge": POD,
    "pod -> internet": NO_WAY_BACK,
    "pod -> excepted network": POD,
    "pod -> internet, mark 0x4000": POD,
    "node -> own pod": BRIDGE,
    "node, underlay address -> own pod": NODE,
    "node -> remote pod": TUNNEL,
    "node, underlay address -> remote pod": NODE,
    "node -> internet": NODE,
    "internet -> mapped port": OTHERS["internet"],
    "office -> pod, routed": EXCEPTED,
    "office -> remote pod, routed": EXCEPTED,
    MULTICAST: POD,
}
"""Without masquerade everybody is seen as who he is."""
OFF = "off"
SETTINGS: dict[str, dict[str, Any] | None] = {
    "default": {},
    "nodes": {"nodes": False},
    "fixed": {"address": FIXED},
    "not random": {"random_fully": False},
    "site": {"except": ["198.51.100.0/24"]},
    OFF: None,
}


def expected(setting: str, backend: str) -> dict[str, str]:
    """Where masquerade changes what is seen."""
    tunnel = {"host-gw": NODE}.get(backend, TUNNEL)
    found = {**KEPT, "node -> remote pod": tunnel}
    if setting == OFF:
        if backend != "host-gw":  # what node2's guard cannot tell from a forgery
            found["office -> remote pod, routed"] = str(LOST)
        return found
    outside = FIXED if setting == "fixed" else NODE
    found.update(
        {
            "pod -> internet": outside,
            "pod -> other node": POD if setting in ("nodes", "site") else outside,
            "node, underlay address -> remote pod": tunnel,
            "office -> remote pod, routed": tunnel,
        }
    )
    if setting == "site":  # an exception that covers the nodes
        found["pod -> internet"] = NO_WAY_BACK
    return found


def masquerade(setting: str) -> dict[str, Any] | None:
    changes = SETTINGS[setting]
    whole = {"nodes": True, "except": [f"{EXCEPTED}/32"], "random_fully": True, "address": None}
    return None if changes is None else {**whole, **changes}


def converge(hosts: Hosts, backend: str, setting: str = "default") -> None:
    ports = {
        "node1": [
            {
                "pod": "web",
                "address": POD,
                "port": 7000,
                "protocol": protocol,
                "host_port": 8080,
                "host_address": None,
            }
            for protocol in PROTOCOLS
        ]
    }
    for name in NODES:
        wall = {"masquerade": masquerade(setting), "ports": ports.get(name, [])}
        if name != "node1" and setting == "fixed":
            wall["masquerade"] = masquerade("default")  # the address is node1's
        hosts[name].module("topology", name="overlay", document=document(name, backend, firewall=wall), peers=TABLE)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def hosts(backend: str) -> Iterator[Hosts]:
    with overlay(backend, firewall={}, others=OTHERS) as made:
        made["node1"].sh(
            f"ip addr add {FIXED}/24 dev eth1; nft add table ip marks;"
            "nft 'add chain ip marks c { type filter hook prerouting priority mangle; }';"
            f"nft add rule ip marks c ip daddr {MARKED} meta mark set 0x4000"
        )
        made["office"].sh(
            f"ip addr add {MARKED}/24 dev eth1; ip route add 10.244.0.0/16 via {NODE};"
            "sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth1.accept_redirects=0"
        )
        yield made


def multicast(hosts: Hosts) -> str:
    """The source of a pod's datagram to a group, forwarded by node1 as a multicast router does (linux/mroute.h)."""
    node, pod, far = Place(hosts["node1"]), Place(hosts["node1"], "web"), Place(hosts["internet"])
    indexes = [node.do(partial(socket.if_nametoindex, name)) for name in ("cni0", "eth1")]
    router = node.do(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP))
    with router, far.socket("udp", ("", 7000)) as listener, pod.socket("udp") as sender:
        router.setsockopt(socket.IPPROTO_IP, 200, 1)  # MRT_INIT
        for number, index in enumerate(indexes):  # MRT_ADD_VIF by interface
            router.setsockopt(socket.IPPROTO_IP, 202, struct.pack("=HBBIii", number, 8, 1, 0, index, 0))
        flow = struct.pack("=4s4sH", socket.inet_aton(POD), socket.inet_aton(GROUP), 0)
        way = flow + bytes([0, 1]) + bytes(30) + struct.pack("=2xIIIi", 0, 0, 0, 0)
        router.setsockopt(socket.IPPROTO_IP, 204, way)  # MRT_ADD_MFC: in by the first, out by the second
        member = socket.inet_aton(GROUP) + socket.inet_aton(OTHERS["internet"])
        far.do(lambda: listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
        sender.sendto(b"question", (GROUP, 7000))
        try:
            return str(listener.recvfrom(99)[1][0])
        except TimeoutError:
            return "lost"


def matrix(hosts: Hosts, protocol: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Every case with what is seen."""
    found = {}
    for name, case in CASES.items():
        found[name] = str(case.ask(hosts, protocol, DOUBT if wanted[name] in (NO_WAY_BACK, str(LOST)) else PATIENCE))
    if protocol == "udp":
        found[MULTICAST] = multicast(hosts)
    return found


def differences(hosts: Hosts, wanted: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """(protocol, case, what was seen, what should be). Who gets no answer makes no connection."""
    return [
        (protocol, case, seen, wanted[case])
        for protocol in PROTOCOLS
        for case, seen in matrix(hosts, protocol, wanted).items()
        if seen != (wanted[case] if protocol == "udp" or wanted[case] != NO_WAY_BACK else str(LOST))
    ]


@contextmanager
def sysctl(hosts: Hosts, name: str, value: int) -> Iterator[None]:
    """A sysctl of the nodes, put back afterwards."""
    before = hosts["node1"].run("sysctl", "-n", name).stdout.strip()
    for node in NODES:
        hosts[node].sh(f"sysctl -qw {name}={value}")
    try:
        yield
    finally:
        for node in NODES:
            hosts[node].sh(f"sysctl -qw {name}={before}")


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_source_that_the_far_end_sees(hosts: Hosts, backend: str, setting: str) -> None:
    converge(hosts, backend, setting)
    assert differences(hosts, expected(setting, backend)) == []


@pytest.mark.parametrize("number", [1, 2])
def test_under_reverse_path_filters(hosts: Hosts, backend: str, number: int) -> None:
    """1 is strict, 2 loose. A strict filter wants packets to come where answers would go."""
    converge(hosts, backend)
    with sysctl(hosts, "net.ipv4.conf.all.rp_filter", number):
        assert differences(hosts, expected("default", backend)) == []


def test_pods_own_addresses_on_nodes_need_a_loose_filter(hosts: Hosts, backend: str) -> None:
    """Without masquerade towards nodes, a node's answer comes out of the tunnel with its underlay address."""
    converge(hosts, backend, "nodes")
    with sysctl(hosts, "net.ipv4.conf.all.rp_filter", 2):
        assert differences(hosts, expected("nodes", backend)) == []
    with sysctl(hosts, "net.ipv4.conf.all.rp_filter", 1):
        seen = CASES["pod -> other node"].ask(hosts, "udp", DOUBT)
    assert str(seen) == (POD if backend == "host-gw" else "lost, no answer")


@once
@pytest.mark.parametrize("setting", ["default", OFF])
def test_another_programs_masquerade_leaves_pods_alone(hosts: Hosts, backend: str, setting: str) -> None:
    """As Docker, Podman and CNI's bridge do it for a network of theirs, at srcnat."""
    converge(hosts, backend, setting)
    foreign = "POSTROUTING -s 10.244.0.0/24 -j MASQUERADE"
    hosts["node1"].sh(f"iptables -w -t nat -A {foreign}")
    wanted = expected(setting, backend)
    if setting == OFF:  # then what goes out is theirs to translate
        wanted.update({"pod -> internet": NODE, "pod -> excepted network": NODE, "pod -> other node": NODE})
    wanted["pod -> internet, mark 0x4000"] = NODE  # returned to whoever comes next, as Flannel does
    try:
        assert differences(hosts, wanted) == []
    finally:
        hosts["node1"].sh(f"iptables -w -t nat -D {foreign}")


@once
def test_ports_are_chosen_at_random(hosts: Hosts, backend: str) -> None:
    """Two nodes behind one router that keep their ports meet in one connection, and packets are lost (--random-fully)."""

    def kept(first: int) -> list[int]:
        sources = range(first, first + 8)
        case = CASES["pod -> internet"]
        client, server = case.place(hosts, case.client), case.place(hosts, case.server)
        seen = [asked(client, (case.target, 7000), server, protocol="udp", source=("", port)).port for port in sources]
        return [port for port, source in zip(seen, sources) if port == source]

    for number, setting in enumerate(("default", "fixed")):
        converge(hosts, backend, setting)
        assert len(kept(40000 + 10 * number)) < 2
    converge(hosts, backend, "not random")
    assert len(kept(40100)) == 8
