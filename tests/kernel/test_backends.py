"""The three backends under one set of tests, a mixed underlay, and the change from one to another under traffic."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.attacks import (
    DB2,
    ETH_P_ALL,
    PORT,
    UDP,
    WEB1,
    arrived,
    from_outside,
    ip,
    listening,
    send,
    socket_in,
    token,
    udp,
)
from tests.kernel.hosts import Host
from tests.kernel.looks import everything
from tests.kernel.overlays import MTUS, NODES, ROUTED, STRANGER, TUNNELS, clause, converge, overlay, underlay, vtep

IPIP = pytest.mark.ipip
BACKENDS = [pytest.param("ipip", marks=IPIP), "vxlan", "host-gw"]
TUNNELLED = [pytest.param("ipip", marks=IPIP), "vxlan"]
Fleet = tuple[str, dict[str, Host]]

FRONT, BACK = ["10.244.0.2", "10.244.1.3"], ["10.244.0.3", "10.244.1.2"]
"""web of node1 and db of node2, and the other two."""


def policy(name: str) -> dict[str, Any]:
    """Two groups, one of which may be pinged by the other."""
    pods = [{**pod, "group": "front" if pod["address"] in FRONT else "back"} for pod in clause(name, "host-gw")["pods"]]
    groups = {"front": FRONT, "back": BACK}
    return {"pods": pods, "groups": groups, "policy": [{"to": "front", "from": "back", "protocol": "icmp"}]}


@pytest.fixture(scope="module", params=BACKENDS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with overlay(request.param, firewall={}, others=STRANGER) as hosts:
        yield request.param, hosts


def pinged(host: Host, pod: str, address: str, *words: str, count: int = 3) -> int:
    """How many of *count* pings are answered."""
    ping = ("ping", "-q", "-c", str(count), "-i", "0.02", "-W", "1", *words, address)
    done = host.run("ip", "netns", "exec", pod, *ping, check=False)
    received = re.search(r"(\d+) received", done.stdout)
    return int(received.group(1)) if received else 0


def test_pods_reach_pods_at_full_mtu_both_ways(fleet: Fleet) -> None:
    backend, hosts = fleet
    full = MTUS[backend] - 28
    ends = [(name, pod, address) for name in NODES for pod, address in NODES[name]["pods"].items()]
    for (name, pod, _own), (_name, _pod, address) in itertools.permutations(ends, 2):
        assert pinged(hosts[name], pod, address, "-M", "do", "-s", str(full)) == 3
    assert pinged(hosts["node1"], "web", DB2, "-M", "do", "-s", str(full + 1), count=1) == 0


def test_the_source_that_a_pod_sees_is_the_others_own(fleet: Fleet) -> None:
    _backend, hosts = fleet
    mark, last = token(), token()
    with listening(hosts["node2"], "db") as count:
        send(hosts["node1"], [ip(WEB1, DB2, UDP, udp(mark, PORT)), ip(WEB1, DB2, UDP, udp(last, PORT))], "web")
        whole = bytes(map(int, WEB1.split("."))) + bytes(map(int, DB2.split(".")))
        assert count(whole, last) == 1


def test_a_second_converge_changes_nothing(fleet: Fleet) -> None:
    backend, hosts = fleet
    before = everything(hosts["node1"])
    again = converge(hosts, backend, firewall={}, on=["node1"])["node1"]
    assert (again["changed"], again["operations"]) == (False, [])
    assert everything(hosts["node1"]) == before


@pytest.mark.parametrize("kind", ["ipip", "vxlan"])
def test_nobody_else_sends_through_the_tunnel(fleet: Fleet, kind: str) -> None:
    """Nor where there is none, or another."""
    _backend, hosts = fleet
    assert arrived(hosts, next(from_outside(kind))) == 0


def test_a_policy_is_in_force(fleet: Fleet) -> None:
    backend, hosts = fleet
    web1, db1, web2, db2 = FRONT[0], BACK[0], BACK[1], FRONT[1]
    assert pinged(hosts["node1"], "web", db1) == 3
    converge(hosts, backend, firewall=policy, on=["node1"])
    try:
        assert pinged(hosts["node2"], "db", web1) == 3  # one group
        assert pinged(hosts["node2"], "web", web1) == 3  # allowed
        assert pinged(hosts["node2"], "db", db1, count=1) == 0
        assert pinged(hosts["node1"], "web", db1, count=1) == 0  # of the same node
        assert pinged(hosts["node1"], "web", db2) == 3
        assert pinged(hosts["node1"], "web", web2) == 3  # node2 isolates nothing
    finally:
        converge(hosts, backend, firewall={}, on=["node1"])
    assert pinged(hosts["node2"], "db", db1) == 3


def test_vxlan_has_flannels_entries() -> None:
    """flannel/pkg/backend/vxlan: the device's MAC is of the subnet, and each peer has a neighbour and a forwarding entry."""
    with overlay("vxlan", ROUTED, firewall={}) as hosts:
        node = hosts["node1"]
        (device,) = node.json("ip -j -d link show flannel.1")
        assert (device["address"], device["mtu"]) == ("0e:58:0a:f4:00:00", 1450)
        data = device["linkinfo"]["info_data"]
        assert (data["id"], data["port"], data["local"], data["learning"]) == (1, 8472, "198.51.100.11", False)
        others = [ROUTED[name] for name in ("node2", "node3")]
        entries = {item["mac"]: item["dst"] for item in node.json("bridge -j fdb show dev flannel.1") if "dst" in item}
        assert entries == {vtep(other["subnet"]): other["public_ip"] for other in others}
        neighbours = {item["dst"]: item["lladdr"] for item in node.json("ip -j neigh show dev flannel.1 nud permanent")}
        assert neighbours == {other["subnet"].split("/")[0]: vtep(other["subnet"]) for other in others}
        far = hosts["node3"].json("ip -j link show flannel.1")[0]["address"]
        assert far == "0e:58:0a:f4:02:00"


# What a route of a backend says: its device and gateway.
THROUGH = {
    "ipip": ("flannel.ipip", "{public_ip}"),
    "vxlan": ("flannel.1", "{first}"),
    "host-gw": ("eth1", "{public_ip}"),
}


def way(host: Host, backend: str, subnet: str, public_ip: str) -> None:
    """Assert that *subnet* is reached as the backend does it."""
    (route,) = host.json(f"ip -j route show {subnet}")
    device, gateway = THROUGH[backend]
    expected = (device, gateway.format(public_ip=public_ip, first=subnet.split("/", maxsplit=1)[0]))
    assert (route["dev"], route["gateway"]) == expected


@contextmanager
def wire(host: Host) -> Iterator[Callable[[bytes], str]]:
    """Hear a node's eth1: call for the outermost source of the first packet with *mark*."""
    with socket_in(host, "", socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as raw:
        raw.bind(("eth1", ETH_P_ALL))
        raw.settimeout(10)
        heard = iter(lambda: raw.recv(65536), b"")
        yield lambda mark: next(socket.inet_ntoa(data[26:30]) for data in heard if mark in data)


@pytest.mark.parametrize("backend", TUNNELLED)
def test_direct_routing_where_nodes_share_a_segment_and_the_tunnel_elsewhere(backend: str) -> None:
    with overlay(backend, ROUTED, firewall={}, direct_routing=True) as hosts:
        for name, other in itertools.permutations(ROUTED, 2):
            direct = "node3" not in (name, other)
            way(hosts[name], "host-gw" if direct else backend, ROUTED[other]["subnet"], ROUTED[other]["public_ip"])
            source, target = ROUTED[name]["pods"]["web"], ROUTED[other]["pods"]["db"]
            assert pinged(hosts[name], "web", target, "-M", "do", "-s", str(MTUS[backend] - 28)) == 3
            packet = ip(source, target, UDP, udp(token(), PORT))
            with listening(hosts[other], "db") as count, wire(hosts[name]) as sent:
                send(hosts[name], [packet], "web")
                assert sent(packet[20:]) == (source if direct else ROUTED[name]["public_ip"])
                assert count(packet[20:], packet[12:]) == 0  # under its own source


PAIRS = [
    pytest.param(old, new, marks=[IPIP] if "ipip" in (old, new) else [], id=f"{old} to {new}")
    for old, new in itertools.pairwise(("ipip", "vxlan", "ipip", "host-gw", "ipip"))
] + [pytest.param("vxlan", "host-gw"), pytest.param("host-gw", "vxlan")]
"""Each begins where the one before it ended."""


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[dict[str, Host], list[str]]]:
    """Two nodes that go from backend to backend, and where they have been."""
    with underlay() as hosts:
        yield hosts, [""]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_live_pair_changes_its_backend(
    pair: tuple[dict[str, Host], list[str]], old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts, been = pair
    if been[-1] != old:
        converge(hosts, old, firewall={})
    been.append(new)
    assert pinged(hosts["node1"], "web", DB2) == 3
    ping = hosts["node1"].popen("ip", "netns", "exec", "web", "ping", "-q", "-i", "0.02", "-W", "1", DB2)
    start = time.monotonic()
    done = converge(hosts, new, firewall={})
    seconds = time.monotonic() - start
    time.sleep(0.2)
    ping.send_signal(signal.SIGINT)
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", ping.communicate(timeout=10)[0])
    assert counts
    sent, received = map(int, counts.groups())
    with capsys.disabled():
        print(f"\n{old} to {new}: {sent - received} of {sent} pings lost, one node after the other in {seconds:.1f} s")
    for name, other in (("node1", "node2"), ("node2", "node1")):
        host, far = hosts[name], NODES[other]
        way(host, new, far["subnet"], far["public_ip"])
        assert [item["dst"] for item in host.json("ip -j route show proto 244")] == [far["subnet"]]
        links = {item["ifname"]: item["mtu"] for item in host.json("ip -j link")}
        assert set(links) & {*TUNNELS.values()} == {TUNNELS[new]} - {None}
        assert {links[link] for link in ("cni0", "veth-web", "veth-db")} == {MTUS[new]}
        assert host.json("ip -j -n web link show eth0")[0]["mtu"] == MTUS[new]
        left = host.sh("nft list ruleset; ip route show table all; ip neigh; bridge fdb")
        assert not (TUNNELS[old] and TUNNELS[old] in left)
    for source, address in (("node1", DB2), ("node2", WEB1)):
        assert pinged(hosts[source], "db", address, "-M", "do", "-s", str(MTUS[new] - 28)) == 3
    assert converge(hosts, new, firewall={}, on=["node1"])["node1"]["operations"] == []
    for answer in done.values():
        assert_always_guarded(answer["operations"], old, new)


def assert_always_guarded(operations: list[str], old: str, new: str) -> None:
    """The firewall knows one tunnel: the old one goes before it changes, and the new one comes after."""
    steps = [f"delete link {TUNNELS[old]} ", "change firewall ", f"add link {TUNNELS[new]} "]
    wanted = [step for step in steps if " None " not in step]
    found = [step for text in operations for step in steps if text.startswith(step)]
    assert found == wanted
