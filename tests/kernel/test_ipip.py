"""ipip against the kernel; most of it wants a kernel with IPIP."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.hosts import Host

Twice = Callable[..., dict[str, Any]]

needs_ipip = pytest.mark.ipip


def tunnel(host: Host, name: str = "tunl1") -> dict[str, Any]:
    found: list[dict[str, Any]] = host.json(f"ip -j -d addr show {name}")
    return found[0]


def options(host: Host, name: str = "tunl1") -> dict[str, Any]:
    data: dict[str, Any] = tunnel(host, name)["linkinfo"]["info_data"]
    return data


@needs_ipip
def test_flannels_device_is_what_flanneld_makes(underlay: Host, twice: Twice) -> None:
    flannels = {"local": "198.51.100.11", "remote": "any", "ttl": "inherit", "pmtudisc": False, "mtu": 1480}
    twice("ipip", name="flannel.ipip", addresses=["10.244.5.0/32"], **flannels)
    shown = underlay.run("ip -d addr show flannel.ipip").stdout
    assert "<NOARP,UP,LOWER_UP> mtu 1480" in shown
    assert " remote any local 198.51.100.11 ttl inherit nopmtudisc" in shown
    assert "inet 10.244.5.0/32 scope global flannel.ipip" in shown


@needs_ipip
def test_a_new_tunnel_has_the_kernels_defaults(host: Host, twice: Twice) -> None:
    twice("ipip", name="tunl1", local="10.10.10.2", remote="10.10.20.2")
    host.run("ip tunnel add tunl2 mode ipip local 10.10.10.2 remote 10.10.20.3")
    mine, by_hand = options(host), options(host, "tunl2")
    assert (mine.pop("remote"), by_hand.pop("remote")) == ("10.10.20.2", "10.10.20.3")
    assert mine == by_hand
    assert mine["pmtudisc"] is True


@needs_ipip
def test_options_change_in_place_and_others_stay(underlay: Host, twice: Twice) -> None:
    ends = {"name": "tunl1", "local": "198.51.100.11", "remote": "198.51.100.12"}
    twice("ipip", **ends, ttl="64", tos="16", mtu=1400)
    index = tunnel(underlay)["ifindex"]
    twice("ipip", name="tunl1", ttl="inherit", tos="inherit", pmtudisc=False, link="eth1")
    made = tunnel(underlay)
    data = made["linkinfo"]["info_data"]
    assert (made["ifindex"], made["mtu"], made["link"]) == (index, 1400, "eth1")
    assert (data["local"], data["remote"], data["ttl"]) == ("198.51.100.11", "198.51.100.12", 0)
    assert data["tos"] in ("inherit", "0x1")  # as the release of iproute2 has it
    assert data["pmtudisc"] is False
    twice("ipip", name="tunl1", remote="198.51.100.13", link="")
    assert (options(underlay)["remote"], tunnel(underlay)["ifindex"]) == ("198.51.100.13", index)
    assert not tunnel(underlay).get("link")


@needs_ipip
def test_from_any_remote_to_a_fixed_one_the_device_is_made_anew(underlay: Host, twice: Twice) -> None:
    ends: dict[str, Any] = {"name": "tunl1", "local": "198.51.100.11", "addresses": ["10.244.0.0/32"]}
    twice("ipip", **ends, ttl="9", mtu=1400)
    underlay.run("ip route add 10.244.1.0/24 via 198.51.100.12 dev tunl1 onlink")
    done = twice("ipip", **ends, remote="198.51.100.12")
    assert [line.split()[0] for line in done["operations"]] == ["delete", "delete", "delete", "add", "add"]
    assert (options(underlay)["remote"], options(underlay)["ttl"]) == ("198.51.100.12", 9)
    assert tunnel(underlay)["mtu"] == 1400
    twice("ipip", **ends, remote="any")
    assert options(underlay)["remote"] == "any"


@needs_ipip
def test_absent_takes_the_device(host: Host, twice: Twice) -> None:
    host.module("ipip", name="tunl1", local="10.10.10.2", remote="10.10.20.2")
    assert len(twice("ipip", name="tunl1", state="absent")["operations"]) == 1
    assert host.run("ip link show tunl1", check=False).returncode == 1


@needs_ipip
def test_endpoints_that_another_tunnel_has_are_told(host: Host) -> None:
    host.run("ip link add mine type ipip local 10.10.10.2 remote 10.10.20.2")
    for check in (True, False):
        answer = host.module("ipip", name="tunl1", local="10.10.10.2", remote="10.10.20.2", check=check, fails=True)
        assert "link tunl1 cannot have the endpoints of link mine" in answer["msg"]


@needs_ipip
def test_what_a_document_owns_stays(underlay: Host) -> None:
    link = {"name": "flannel.ipip", "kind": "ipip", "ipip": {"local": "198.51.100.11"}}
    underlay.module("topology", document={"links": [link]})
    for arguments in ({"ttl": "9"}, {"state": "absent"}):
        assert (
            "belongs to the document 'overlay'"
            in underlay.module("ipip", name="flannel.ipip", fails=True, **arguments)["msg"]
        )
    assert options(underlay, "flannel.ipip")["ttl"] == 0


@needs_ipip
def test_the_seeds_tunnel_between_two_namespaces_carries_packets(host: Host, twice: Twice) -> None:
    for number, other in ((1, 2), (2, 1)):
        name, near, far = f"ns{number}", f"10.10.{number}0", f"10.10.{other}0"
        twice("netns", name=name)
        peer = {"name": f"v{number}", "namespace": name, "addresses": [f"{near}.2/24"]}
        twice("veth", name=f"v{number}_r", addresses=[f"{near}.1/24"], peer=peer)
        twice("route", namespace=name, dst=f"{far}.0/24", via=f"{near}.1")
        address = {"address": f"10.10.{number}00.10", "peer": f"10.10.{other}00.10"}
        ends = {"local": f"{near}.2", "remote": f"{far}.2"}
        twice("ipip", name=f"tunl{number}", namespace=name, addresses=[address], **ends)
    twice("sysctl", name="net.ipv4.ip_forward", value="1")
    counter = "nft add table t; nft add chain t c '{ type filter hook forward priority 0; }'; nft add rule t c ip protocol 4 counter"
    host.sh(counter)
    host.run("ip netns exec ns1 ping -c 2 -i 0.2 -W 3 10.10.200.10")
    assert "packets 4 " in host.run("nft list table t").stdout
    assert "POINTOPOINT" in host.json("ip -j -n ns1 link show tunl1")[0]["flags"]
    assert "10.10.200.10 dev tunl1 proto kernel" in host.run("ip -n ns1 route").stdout


def test_a_kernel_without_ipip_is_told_with_what_it_can_do_instead(host: Host) -> None:
    if host.run("ip link add probe type ipip local 192.0.2.1", check=False).returncode == 0:
        pytest.skip(f"the kernel {platform.release()} has IPIP")
    answer = host.module("ipip", name="tunl1", local="10.10.10.2", addresses=["10.244.0.0/32"], fails=True)
    assert "Operation not supported" in answer["msg"]
    assert (
        "This kernel has no ipip device: load the module ipip, or use another backend (vxlan, host-gw)" in answer["msg"]
    )
    assert host.links() == {"lo"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"remote": "fe80::1"}, "ipip: remote: 'fe80::1' is no IPv4 address"),
        ({"local": "nowhere"}, "ipip: local: 'nowhere' is no IPv4 address"),
        ({"ttl": "64", "pmtudisc": False}, "ipip: ttl 64 needs pmtudisc, or ttl inherit"),
        ({"ttl": "256", "tos": "x", "mtu": 60}, "ttl: 256 is not between 0 and 255"),
        ({"link": "eth9"}, "link tunl1 needs the link eth9, which is not there"),
        ({"name": "a-tunnel-of-17-by"}, "has 17 bytes"),
        ({"addresses": [{"address": "10.0.0.1", "peer": "x"}]}, "peer: 'x' is no IPv4 address"),
    ],
)
def test_bad_input_is_told_and_nothing_is_made(host: Host, arguments: dict[str, Any], told: str) -> None:
    before = host.run("ip link").stdout
    assert told in host.module("ipip", fails=True, **{"name": "tunl1", **arguments})["msg"]
    assert host.run("ip link").stdout == before
