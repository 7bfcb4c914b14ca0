"""The guard against packets made for it: each arrives at a pod without it, none does with it, and nothing sound is lost."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.kernel.attacks import (
    AT_LOOPBACK,
    AT_NODE,
    BOX,
    DB1,
    DB2,
    FRIEND,
    GATEWAY,
    IPV4,
    IPV6,
    LOOPBACK,
    MAPPED,
    NODE1,
    NODE2,
    PORT,
    RECORD_ROUTE,
    STRANGER,
    TOKEN,
    TRUSTED,
    UDP,
    VXLAN_PORT,
    WEB1,
    WEB2,
    Attack,
    Outcome,
    arrived,
    at_loopback,
    drops,
    fragments,
    frame,
    from_a_container,
    from_a_pod,
    from_outside,
    inner,
    ip,
    ipv6,
    isolated,
    outcomes,
    send_frames,
    spoofed,
    target,
    to_a_mapped_port,
    udp,
    unpacked,
    wrapped,
)
from tests.kernel.hosts import Host
from tests.kernel.overlays import MTUS, NODES, TABLE, TUNNELS, clause, converge, document, mac, vtep

IPIP = pytest.mark.ipip
BACKENDS = [pytest.param("ipip", marks=IPIP), "vxlan"]
UNPACKED = [pytest.param("ipip", True, marks=IPIP), ("vxlan", True), ("host-gw", False)]
"""Backends, and whether with direct routing, where packets between pods are not in a tunnel."""
LLDP = 0x88CC
Standing = tuple[str, dict[str, Host]]
Fleets = Callable[[str], dict[str, Host]]
BRIDGED = "/proc/sys/net/bridge/bridge-nf-call-iptables"


@pytest.fixture(scope="module")
def fleets() -> Iterator[Fleets]:
    """A backend's two nodes, a machine that is no member, and one that is trusted; they stand once they were asked for."""
    with ExitStack() as stack:
        yield functools.cache(lambda backend: stack.enter_context(target(backend)))


@pytest.fixture(params=BACKENDS)
def standing(request: pytest.FixtureRequest, fleets: Fleets) -> Standing:
    return request.param, fleets(request.param)


@pytest.fixture(params=["0", "1"])
def bridged(request: pytest.FixtureRequest, standing: Standing) -> Iterator[str]:
    """Whether bridged frames meet the table inet too."""
    node = standing[1]["node1"]
    if node.run("test", "-e", BRIDGED, check=False).returncode:
        if request.param == "1":
            pytest.skip("br_netfilter is not loaded")
        yield request.param
        return
    before = node.sh(f"cat {BRIDGED}").strip()
    node.sh(f"echo {request.param} >{BRIDGED}")
    yield request.param
    node.sh(f"echo {before} >{BRIDGED}")


def each(make: Callable[[str], Iterator[Attack]]) -> pytest.MarkDecorator:
    """A test for each packet of each backend."""
    return pytest.mark.parametrize(
        ("standing", "attack"),
        [
            pytest.param(backend, attack, id=attack.name, marks=[IPIP] if backend == "ipip" else [])
            for backend in ("ipip", "vxlan")
            for attack in make(backend)
        ],
        indirect=["standing"],
    )


def outside_and_pods(backend: str) -> Iterator[Attack]:
    yield from from_outside(backend)
    yield from unpacked()
    yield from at_loopback(backend)
    yield from from_a_pod(backend)


def pretending(_backend: str) -> Iterator[Attack]:
    yield from spoofed()
    yield from from_a_container()


@pytest.fixture(scope="module")
def tried(fleets: Fleets) -> Callable[..., dict[str, Outcome]]:
    """All that one maker makes, tried once on a backend, with bridged frames seen by the table inet or not."""

    @functools.cache
    def all_of(make: Callable[[str], Iterator[Attack]], backend: str, _bridged: str = "") -> dict[str, Outcome]:
        return outcomes(fleets(backend), list(make(backend)))

    return all_of


@each(outside_and_pods)
def test_what_reaches_a_pod_without_the_guard_does_not_with_it(standing: Standing, tried: Any, attack: Attack) -> None:
    seen = tried(outside_and_pods, standing[0])[attack.name]
    assert (seen.without, seen.guarded) == (1, 0)
    assert sum(seen.dropped.values()) >= 1


@each(pretending)
def test_on_the_bridge_nobody_is_a_pod_but_itself(standing: Standing, tried: Any, attack: Attack, bridged: str) -> None:
    seen = tried(pretending, standing[0], bridged)[attack.name]
    assert (seen.without, seen.guarded) == (1, 0)
    assert sum(seen.dropped.values()) >= 1


def sound(backend: str) -> Iterator[Attack]:
    """What members, trusted sources, containers and those who ask for a mapped port may send."""
    member, friend, box, gateway = ("node2", ""), ("friend", ""), ("node1", "box"), mac(GATEWAY)
    plain = wrapped(backend, NODE2, inner(WEB2))
    yield Attack("from a pod", [plain], member)
    yield Attack("outer in fragments", fragments(plain), member)
    yield Attack("outer with IPv4 options", [wrapped(backend, NODE2, inner(WEB2), options=RECORD_ROUTE)], member)
    yield Attack("inner with IPv4 options", [wrapped(backend, NODE2, inner(WEB2, options=RECORD_ROUTE))], member)
    yield Attack("inner in fragments", [wrapped(backend, NODE2, part) for part in fragments(inner(WEB2))], member)
    yield Attack("from the far tunnel's own address", [wrapped(backend, NODE2, inner("10.244.1.0"))], member)
    yield Attack("from a trusted source", [wrapped(backend, FRIEND, inner("10.250.0.9"))], friend)
    yield Attack("of the node's loopback", [ip(LOOPBACK, LOOPBACK, UDP, udp(TOKEN, AT_LOOPBACK))], ("node1", ""))
    yield Attack("to a mapped port", [ip(STRANGER, NODE1, UDP, udp(TOKEN, AT_NODE))])
    yield Attack(
        "of a pod to a mapped port of another node", [ip(DB2, NODE1, UDP, udp(TOKEN, AT_NODE))], ("node2", "db")
    )
    yield Attack(
        "of a pod to a mapped port, by the bridge", [ip(DB2, GATEWAY, UDP, udp(TOKEN, AT_NODE))], ("node2", "db")
    )
    for where, pod, to, by in (("its neighbour", "node1", DB1, mac(DB1)), ("another node", "node2", DB2, gateway)):
        content = frame(mac(BOX), by, IPV4, inner(BOX, to))
        yield Attack(f"of a container to {where}", [content], box, (pod, "db"), frames=True)


@each(sound)
def test_what_may_pass_passes(standing: Standing, attack: Attack) -> None:
    _backend, hosts = standing
    before = drops(hosts["node1"])
    assert arrived(hosts, attack) == 1
    assert drops(hosts["node1"]) == before


def test_a_pod_of_another_node_asks_for_a_mapped_port_under_its_own_address(standing: Standing) -> None:
    """Without masquerade to nodes it comes unpacked: to the guard, it looks like anybody's on the underlay."""
    backend, hosts = standing
    name = "of a pod to a mapped port of another node"
    attack = next(attack for attack in sound(backend) if attack.name == name)

    def other(node: str) -> dict[str, Any]:
        mine = clause(node, backend)["masquerade"] | {"nodes": False}
        return {**walls(node), "masquerade": mine}

    def walls(node: str) -> dict[str, Any]:
        return {"trusted_sources": TRUSTED, "ports": MAPPED if node == "node1" else []}

    converge(hosts, backend, firewall=other)
    try:
        assert arrived(hosts, attack) == 1
    finally:
        converge(hosts, backend, firewall=walls)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_has_no_friends_outside_the_tunnel(backend: str) -> None:
    with target(backend, isolated) as hosts:
        seen = outcomes(hosts, [*unpacked(), to_a_mapped_port()])
        assert {name: (found.without, found.guarded) for name, found in seen.items()} == dict.fromkeys(seen, (1, 0))


@pytest.mark.parametrize(("backend", "direct"), UNPACKED)
def test_where_pods_packets_come_unpacked_those_of_other_nodes_can_be_anybodys(backend: str, direct: bool) -> None:
    """And no others, and nobody else's loopback."""
    with target(backend, isolated, direct_routing=direct) as hosts:
        seen = outcomes(hosts, [*unpacked(), *at_loopback("host-gw")])  # nothing in a tunnel
        passed = {name for name, found in seen.items() if found.guarded}
        assert {found.without for found in seen.values()} == {1}
        assert passed == {name for name in seen if name.startswith("no tunnel, source a pod of another node")}


def test_a_node_without_pods_of_its_own_has_containers_that_are_no_gateway() -> None:
    """Whatever is on the bridge is somebody else's then: web and db too."""
    with target("vxlan", {"pods": [], "ports": []}) as hosts:
        seen = outcomes(hosts, [attack for attack in from_a_container() if "gateway" in attack.name])
        assert len(seen) > 4
        assert {name: (found.without, found.guarded) for name, found in seen.items()} == dict.fromkeys(seen, (1, 0))
        before = drops(hosts["node1"])
        for attack in sound("vxlan"):
            if "container" in attack.name:
                assert arrived(hosts, attack) == 1
        assert " 0% packet loss" in hosts["node1"].run(f"ip netns exec web ping -q -c 3 -i 0.1 -W 2 {DB2}").stdout
        assert drops(hosts["node1"]) == before


@pytest.mark.parametrize("standing", ["vxlan"], indirect=True)
@pytest.mark.parametrize("thief", ["db", "box"])
@pytest.mark.parametrize("last", ["00", "02", "03", "0e", "0f", "21"])
def test_a_pods_mac_stays_at_its_port(standing: Standing, thief: str, last: str) -> None:
    """A bridge learns from frames of the link (LLDP's is 0e) that it shows to no rule of nftables."""
    _backend, hosts = standing
    node = hosts["node1"]
    node.run(f"ip netns exec web ping -q -c 1 -w 5 {GATEWAY}")
    send_frames(node, [frame(mac(WEB1), f"01:80:c2:00:00:{last}", LLDP, b"." * 50)], thief)
    (port,) = {item["ifname"] for item in node.json("bridge -j fdb show br cni0") if item["mac"] == mac(WEB1)}
    assert port == "veth-web"


def test_pods_lose_nothing_at_full_mtu_in_fragments_and_in_either_direction(standing: Standing, bridged: str) -> None:
    backend, hosts = standing
    before = {name: drops(hosts[name]) for name in NODES}
    ways = [
        ("node1", "web", NODES["node2"]["pods"]["db"]),
        ("node2", "db", WEB1),
        ("node1", "web", NODES["node1"]["pods"]["db"]),
    ]
    for node, pod, address in ways:
        for size, fragmented in ((56, "do"), (MTUS[backend] - 28, "do"), (4000, "dont")):
            ping = f"ping -q -c 10 -i 0.01 -W 2 -M {fragmented} -s {size} {address}"
            assert " 0% packet loss" in hosts[node].run(f"ip netns exec {pod} {ping}").stdout
    for address in (WEB1, WEB2, "10.244.1.1"):
        hosts["node1"].run(f"ping -q -c 2 -i 0.01 -w 5 {address}")
    hosts["node1"].run(f"ip netns exec web ping -q -c 2 -i 0.01 -w 5 {NODE2}")
    assert {name: drops(hosts[name]) for name in NODES} == before


OTHER_TUNNELS = [
    pytest.param("ipip", "type ipip local {here} remote {there}", id="ipip of a fixed remote", marks=IPIP),
    pytest.param("vxlan", "type vxlan id 7 local {here} remote {there} dstport 8472", id="vxlan of another VNI"),
    pytest.param("vxlan", "type vxlan id 1 local {here} remote {there} dstport 4789", id="vxlan of another port"),
]


@pytest.mark.parametrize(("standing", "device"), OTHER_TUNNELS, indirect=["standing"])
def test_an_operators_other_tunnel_is_left_alone(standing: Standing, device: str) -> None:
    _backend, hosts = standing
    ends = {"node1": (NODE1, STRANGER, "10.99.0.1"), "stranger": (STRANGER, NODE1, "10.99.0.2")}
    try:
        for name, (here, there, address) in ends.items():
            made = device.format(here=here, there=there)
            hosts[name].sh(f"ip link add op0 {made}; ip addr add {address}/24 dev op0; ip link set op0 up")
        before = drops(hosts["node1"])
        for name, other in (("stranger", "10.99.0.1"), ("node1", "10.99.0.2")):
            assert " 0% packet loss" in hosts[name].run(f"ping -q -c 5 -i 0.01 -W 2 {other}").stdout
        assert drops(hosts["node1"]) == before
    finally:
        for name in ends:
            hosts[name].run("ip link del op0", check=False)


@pytest.mark.parametrize("standing", ["vxlan"], indirect=True)
def test_no_ipv6_comes_out_of_the_tunnel(standing: Standing) -> None:
    """Not even from a member: what the overlay carries is IPv4."""
    _backend, hosts = standing
    node = hosts["node1"]
    node.sh(
        "sysctl -qw net.ipv6.conf.all.forwarding=1; ip addr add fd00:1::1/64 dev cni0 nodad;"
        "ip -n web addr add fd00:1::2/64 dev eth0 nodad; ping -c 1 -w 5 fd00:1::2"
    )
    packet = ipv6("fd00:2::9", "fd00:1::2", UDP, udp(TOKEN, PORT))
    inside = frame("0e:58:0a:f4:01:00", vtep(NODES["node1"]["subnet"]), IPV6, packet)
    outer = ip(NODE2, NODE1, UDP, udp(struct.pack("!II", 1 << 27, 1 << 8) + inside, VXLAN_PORT))
    (seen,) = outcomes(hosts, [Attack("IPv6", [outer], ("node2", ""))]).values()
    assert (seen.without, seen.guarded) == (1, 0)
    assert sum(seen.dropped.values()) == 1


def test_made_anew_the_guard_is_up_before_the_tunnel_and_needs_no_antispoof(standing: Standing) -> None:
    """Nor a masquerade, without which conntrack defragments nothing."""
    backend, hosts = standing
    node = hosts["node1"]
    node.module("topology", name="overlay", state="absent")
    changes = {"trusted_sources": TRUSTED, "antispoof": False, "masquerade": None}
    made = document("node1", backend, firewall=changes)
    operations = node.module("topology", name="overlay", document=made, peers=TABLE)["operations"]
    guard, tunnel = (
        next(index for index, operation in enumerate(operations) if operation.startswith(words))
        for words in ("add firewall", f"add link {TUNNELS[backend]} ")
    )
    assert guard < tunnel
    seen = outcomes(hosts, list(from_a_pod(backend)))
    assert {name: (found.without, found.guarded) for name, found in seen.items()} == dict.fromkeys(seen, (1, 0))
