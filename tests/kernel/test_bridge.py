"""bridge against the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.hosts import Host

Twice = Callable[..., dict[str, Any]]

OPTIONS = {"stp": True, "ageing_time": 120, "forward_delay": 4, "hello_time": 1, "max_age": 6, "priority": 4096}


@pytest.fixture
def wired(host: Host) -> Host:
    """A host with the links p1, p2 and p3, and a namespace ns1."""
    host.sh("for name in p1 p2 p3; do ip link add $name type veth peer name $name-far; done; ip netns add ns1")
    return host


def bridge(host: Host, name: str = "br0") -> dict[str, Any]:
    found: list[dict[str, Any]] = host.json(f"ip -j -d addr show {name}")
    return found[0]


def ports(host: Host) -> dict[str, dict[str, Any]]:
    return {item["ifname"]: item for item in host.json("bridge -j -d link show")}


def test_a_bridge_with_all_its_options(host: Host, twice: Twice) -> None:
    twice("bridge", name="br0", address="0a:58:0a:01:01:01", mtu=1400, addresses=["10.1.1.1/24"], **OPTIONS)
    made = bridge(host)
    data = made["linkinfo"]["info_data"]
    assert (made["address"], made["mtu"], "UP" in made["flags"]) == ("0a:58:0a:01:01:01", 1400, True)
    assert [item["local"] for item in made["addr_info"] if item["family"] == "inet"] == ["10.1.1.1"]
    assert (data["stp_state"], data["priority"]) == (1, 4096)
    assert [data[name] for name in ("ageing_time", "forward_delay", "hello_time", "max_age")] == [12000, 400, 100, 600]
    assert "ifalias" not in made


def test_vlan_filtering(host: Host, twice: Twice) -> None:
    twice("bridge", name="br0", vlan_filtering=False)  # as a kernel that has none has it
    host.run("ip link add probe type bridge")
    if host.run("ip link set probe type bridge vlan_filtering 1", check=False).returncode:
        assert "VLAN filtering" in host.module("bridge", name="br0", vlan_filtering=True, fails=True)["msg"]
        pytest.skip("this kernel's bridges have no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)")
    twice("bridge", name="br0", vlan_filtering=True)
    assert bridge(host)["linkinfo"]["info_data"]["vlan_filtering"] == 1


def test_the_seeds_bridge_joins_two_namespaces(host: Host, twice: Twice) -> None:
    twice("bridge", name="br0")
    for number in (1, 2):
        twice("netns", name=f"n{number}")
        peer = {"name": f"veth{number}", "namespace": f"n{number}", "addresses": [f"10.1.1.{number}/24"]}
        twice("veth", name=f"br-veth{number}", master="br0", peer=peer)
    host.run("ip netns exec n1 ping -c 1 -W 2 10.1.1.2")
    assert set(ports(host)) == {"br-veth1", "br-veth2"}


def test_options_that_are_not_given_stay(host: Host, twice: Twice) -> None:
    host.run("ip link add br0 type bridge stp_state 1 ageing_time 4200")
    assert twice("bridge", name="br0", priority=100, up=False)["operations"]
    data = bridge(host)["linkinfo"]["info_data"]
    assert (data["stp_state"], data["ageing_time"], data["priority"]) == (1, 4200, 100)
    assert not twice("bridge", name="br0", stp=True, ageing_time=42, up=False)["changed"]


def test_ports_have_their_options(wired: Host, twice: Twice) -> None:
    wanted = [
        {"name": "p1", "hairpin": True, "learning": False},
        {"name": "p2", "isolated": True, "priority": 7, "cost": 9},
        {"name": "p3"},
    ]
    twice("bridge", name="br0", ports=wanted)
    found = ports(wired)
    assert {name: item["master"] for name, item in found.items()} == {"p1": "br0", "p2": "br0", "p3": "br0"}
    assert (found["p1"]["hairpin"], found["p1"]["learning"], found["p1"]["isolated"]) == (True, False, False)
    assert (found["p2"]["isolated"], found["p2"]["priority"], found["p2"]["cost"]) == (True, 7, 9)
    assert (found["p3"]["hairpin"], found["p3"]["learning"]) == (False, True)
    assert "UP" not in wired.json("ip -j link show p1")[0]["flags"]  # only its port's side is ours
    wired.run("bridge link set dev p1 hairpin off")
    assert len(twice("bridge", name="br0", ports=wanted)["operations"]) == 1


def test_ports_that_are_not_listed_stay_unless_they_are_purged(wired: Host, twice: Twice) -> None:
    wired.sh(
        "ip link add br0 type bridge; ip link set p1 master br0; ip link add br1 type bridge; ip link set p3 master br1"
    )
    twice("bridge", name="br0", ports=[{"name": "p2"}])
    assert set(ports(wired)) == {"p1", "p2", "p3"}
    done = twice("bridge", name="br0", ports=[{"name": "p2"}], purge_ports=True)
    assert [line.split()[:3] for line in done["operations"]] == [["change", "link", "p1"]]
    assert {name: item["master"] for name, item in ports(wired).items()} == {"p2": "br0", "p3": "br1"}


def test_a_bridge_in_a_namespace(wired: Host, twice: Twice) -> None:
    wired.sh("ip link set p1 netns ns1")
    twice("bridge", name="br0", namespace="ns1", ports=[{"name": "p1"}], addresses=["10.1.1.1/24"])
    assert wired.json("ip -j -n ns1 link show p1")[0]["master"] == "br0"
    assert wired.run("ip -n ns1 -4 addr show br0").stdout.count("10.1.1.1/24") == 1
    twice("bridge", name="br0", namespace="ns1", state="absent")
    assert wired.links("ns1") == {"lo", "p1"}


def test_absent_leaves_the_ports(wired: Host, twice: Twice) -> None:
    wired.module("bridge", name="br0", ports=[{"name": "p1"}])
    twice("bridge", name="br0", ports=[{"name": "p1"}], state="absent")
    assert "master" not in wired.json("ip -j link show p1")[0]
    assert not wired.run("ip link show br0", check=False).stdout


@pytest.mark.parametrize(
    ("preparation", "told"),
    [
        (
            "ip link add br0 type vxlan id 9 dstport 4789",
            "link br0 is there already and not ours (it looks like a vxlan",
        ),
        (
            "ip link add br9 type bridge; ip link set p1 master br9",
            "link p1 is there already and not ours (it is a port of br9)",
        ),
        ("ip link del p1", "bridge br0 needs the link p1, which is not there"),
    ],
)
def test_what_is_in_the_way_is_told_and_stays(wired: Host, preparation: str, told: str) -> None:
    wired.sh(preparation)
    before = wired.sh("ip link")
    assert told in wired.module("bridge", name="br0", ports=[{"name": "p1"}], fails=True)["msg"]
    assert wired.sh("ip link") == before


def test_what_a_document_owns_stays(wired: Host) -> None:
    wired.module(
        "topology",
        document={"links": [{"name": "cni0", "kind": "bridge"}, {"name": "a", "kind": "veth", "peer": {"name": "b"}}]},
    )
    for arguments in (
        {"name": "cni0", "stp": True},
        {"name": "cni0", "state": "absent"},
        {"name": "br0", "ports": [{"name": "a"}]},
    ):
        assert "it belongs to the document 'overlay'" in wired.module("bridge", fails=True, **arguments)["msg"]
    assert bridge(wired, "cni0")["linkinfo"]["info_data"]["stp_state"] == 0
    assert not ports(wired)


def test_a_refused_port_undoes_the_bridge(wired: Host) -> None:
    answer = wired.module("bridge", name="br0", ports=[{"name": "p1"}, {"name": "lo"}], fails=True)
    assert "cannot change link lo" in answer["msg"]
    assert "were undone" in answer["msg"]
    assert "master" not in wired.json("ip -j link show p1")[0]
    assert not wired.run("ip link show br0", check=False).stdout


def test_all_mistakes_are_told_at_once(host: Host) -> None:
    answer = host.module(
        "bridge", name="br:0", mtu=67, priority=65536, hello_time=0, max_age=41, ageing_time=-1, fails=True,
        ports=[{"name": "a b", "priority": 64, "cost": 0}],
    )  # fmt: skip
    for part in (
        "'br:0'",
        "mtu: 67",
        "bridge: priority: 65536",
        "hello_time: 0",
        "max_age: 41",
        "ageing_time: -1",
        "'a b'",
        "priority: 64",
        "cost: 0",
    ):
        assert part in answer["msg"]
    assert host.links() == {"lo"}
