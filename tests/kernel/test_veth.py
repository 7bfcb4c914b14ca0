"""veth against the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.hosts import Host

Twice = Callable[..., dict[str, Any]]


@pytest.fixture
def pods(host: Host) -> Host:
    """A host with the namespaces ns1 and ns2."""
    host.sh("for name in ns1 ns2; do ip netns add $name; ip -n $name link set lo up; done")
    return host


def link(host: Host, name: str, namespace: str = "") -> dict[str, Any]:
    found: list[dict[str, Any]] = host.json(
        *["ip", "-j", "-d", *(["-n", namespace] if namespace else []), "addr", "show", name]
    )
    return found[0]


def inet(item: dict[str, Any]) -> list[tuple[str, int, str | None]]:
    return [
        (found["local"], found["prefixlen"], found.get("address"))
        for found in item["addr_info"]
        if found["family"] == "inet"
    ]


def test_a_wire_between_two_namespaces_carries_packets(pods: Host, twice: Twice) -> None:
    arguments: dict[str, Any] = {
        "name": "veth0",
        "namespace": "ns1",
        "addresses": ["10.1.1.2/24"],
        "peer": {"name": "veth1", "namespace": "ns2", "addresses": ["10.1.1.3/24"]},
    }
    done = twice("veth", **arguments)
    assert [line.split()[:3] for line in done["operations"]] == [
        ["add", "link", "veth0"],
        ["add", "link", "veth1"],
        ["add", "address", "10.1.1.2/24"],
        ["add", "address", "10.1.1.3/24"],
    ]
    pods.run("ip netns exec ns1 ping -c 1 -W 2 10.1.1.3")
    assert pods.links() == {"lo"}


def test_each_end_has_its_own_settings(pods: Host, twice: Twice) -> None:
    pods.run("ip link add br0 type bridge")
    twice(
        "veth", name="v1_r", master="br0", mtu=1400, address="0a:58:0a:01:01:01", up=False,
        addresses=["10.1.1.1/24", {"address": "10.10.100.10", "peer": "10.10.200.10"}],
        peer={"name": "v1", "namespace": "ns1", "mtu": 1300, "address": "0A-58-0A-01-01-02"},
    )  # fmt: skip
    near, far = link(pods, "v1_r"), link(pods, "v1", "ns1")
    assert (near["mtu"], near["address"], near["master"], "UP" in near["flags"]) == (
        1400,
        "0a:58:0a:01:01:01",
        "br0",
        False,
    )
    assert (far["mtu"], far["address"], "UP" in far["flags"]) == (1300, "0a:58:0a:01:01:02", True)
    assert inet(near) == [("10.1.1.1", 24, None), ("10.10.100.10", 32, "10.10.200.10")]


def test_only_what_differs_is_changed(pods: Host, twice: Twice) -> None:
    pair: dict[str, Any] = {"name": "v1_r", "peer": {"name": "v1", "namespace": "ns1"}}
    twice("veth", **pair)
    pods.sh("ip addr add 10.9.9.9/32 dev v1_r; ip link set v1_r mtu 1450")
    index = link(pods, "v1_r")["ifindex"]
    done = twice("veth", **{**pair, "mtu": 1400, "addresses": ["10.1.1.1/24"]})
    assert [line.split()[:3] for line in done["operations"]] == [
        ["change", "link", "v1_r"],
        ["add", "address", "10.1.1.1/24"],
    ]
    assert (link(pods, "v1_r")["mtu"], link(pods, "v1_r")["ifindex"]) == (1400, index)
    assert inet(link(pods, "v1_r")) == [("10.9.9.9", 32, None), ("10.1.1.1", 24, None)]
    twice("veth", **{**pair, "up": False, "peer": {**pair["peer"], "up": False}})
    assert "UP" not in link(pods, "v1_r")["flags"]
    assert "UP" not in link(pods, "v1", "ns1")["flags"]


def test_the_master_can_be_set_and_taken_away(pods: Host, twice: Twice) -> None:
    pods.run("ip link add br0 type bridge")
    pair: dict[str, Any] = {"name": "a", "peer": {"name": "b"}}
    twice("veth", **pair)
    twice("veth", **pair, master="br0")
    assert link(pods, "a")["master"] == "br0"
    assert not twice("veth", **pair)["changed"]
    twice("veth", **pair, master="")
    assert "master" not in link(pods, "a")


@pytest.mark.parametrize(("name", "namespace"), [("v1_r", ""), ("v1", "ns1")])
def test_absent_by_either_end_takes_both(pods: Host, twice: Twice, name: str, namespace: str) -> None:
    pods.module("veth", name="v1_r", peer={"name": "v1", "namespace": "ns1"})
    assert len(twice("veth", name=name, namespace=namespace, state="absent")["operations"]) == 1
    assert pods.links() == {"lo"}
    assert pods.links("ns1") == {"lo"}


@pytest.mark.parametrize(
    ("preparation", "told"),
    [
        ("ip link add v1_r type bridge", "link v1_r is there already and not ours (it looks like a bridge"),
        ("ip link add v1_r type veth peer name other", "its other end is other)"),
        ("ip link add v1_r type veth peer name eth0 netns ns2", "its other end is in a namespace that was not named)"),
        ("ip link add v1 netns ns1 type veth peer name x netns ns1", "link v1 in namespace ns1 is there already"),
        ("ip netns del ns1", "namespace ns1 is not there: make it first"),
    ],
)
def test_what_is_in_the_way_is_told_and_stays(pods: Host, preparation: str, told: str) -> None:
    pods.sh(preparation)
    before = pods.sh("ip link; ip netns")
    answer = pods.module("veth", name="v1_r", peer={"name": "v1", "namespace": "ns1"}, fails=True)
    assert told in answer["msg"]
    assert pods.sh("ip link; ip netns") == before


def test_absent_of_another_kind_is_refused(host: Host) -> None:
    host.run("ip link add br0 type bridge")
    assert (
        "link br0 is not what was named (it looks like a bridge"
        in host.module("veth", name="br0", state="absent", fails=True)["msg"]
    )
    assert host.json("ip -j link show br0")


def test_what_a_document_owns_stays(pods: Host) -> None:
    pair: dict[str, Any] = {"name": "a", "peer": {"name": "b"}}
    pods.module("topology", document={"links": [{"kind": "veth", **pair}]})
    for arguments in (pair, {**pair, "mtu": 1400}, {"name": "a", "state": "absent"}):
        assert "it belongs to the document 'overlay'" in pods.module("veth", fails=True, **arguments)["msg"]
    assert link(pods, "a")["mtu"] == 1500


def test_check_mode_warns_of_what_an_earlier_task_would_make(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {"name": "a", "master": "br0", "peer": {"name": "b", "namespace": "ns1"}}
    answer = host.module("veth", check=True, **arguments)
    assert answer["changed"]
    told = f"{answer.get('warnings')} {capfd.readouterr().err}"  # there, where the controller's code is loaded too
    for line in host.module("veth", fails=True, **arguments)["mistakes"]:
        assert line in told


def test_all_mistakes_are_told_at_once(host: Host) -> None:
    peer = {"name": "a/b", "namespace": "x/y", "mtu": 70000, "address": "zz"}
    addresses = ["10.1.1.300/24", "fe80::1/64", {"peer": "10.0.0.1"}]
    near = {"name": "sixteen-bytes-xy", "mtu": 10, "address": "01:00:5e:00:00:01", "addresses": addresses}
    answer = host.module("veth", fails=True, **near, peer=peer)
    for part in (
        "'sixteen-bytes-xy' has 16 bytes",
        "mtu: 10 is not between 68 and 65535",
        "is a multicast MAC address",
        "'10.1.1.300/24' is no IPv4",
        "'fe80::1/64' is no IPv4",
        "address is missing",
        "'a/b' is no interface name",
        "'x/y' is no namespace name",
        "mtu: 70000",
        "'zz' is no MAC",
    ):
        assert part in answer["msg"]
    assert len(answer["mistakes"]) == 10
    assert host.links() == {"lo"}


def test_both_ends_with_one_name_are_a_mistake(host: Host) -> None:
    assert "both ends have the same name" in host.module("veth", name="a", peer={"name": "a"}, fails=True)["msg"]
