"""route against the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.hosts import Host

Twice = Callable[..., dict[str, Any]]


def routes(host: Host, *words: str) -> dict[str, dict[str, Any]]:
    return {item["dst"]: item for item in host.json("ip", "-j", "-d", "route", "show", *words)}


def test_one_route_with_all_its_options(underlay: Host, twice: Twice) -> None:
    twice(
        "route", dst="10.244.1.0/24", via="198.51.100.12", dev="eth1", table="100", metric=5, src="198.51.100.11", mtu=1400, protocol="bgp"
    )  # fmt: skip
    made = routes(underlay, "table", "100")["10.244.1.0/24"]
    assert (made["gateway"], made["dev"], made["metric"], made["prefsrc"]) == (
        "198.51.100.12",
        "eth1",
        5,
        "198.51.100.11",
    )
    assert (made["metrics"], made["protocol"]) == ([{"mtu": 1400}], "bgp")
    assert "10.244.1.0/24" not in routes(underlay)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (
            {"dst": "10.1.2.0/24", "via": "198.51.100.12"},
            {"gateway": "198.51.100.12", "dev": "eth1", "protocol": "static"},
        ),
        ({"dst": "default", "via": "198.51.100.12"}, {"gateway": "198.51.100.12"}),
        ({"dst": "10.9.9.9", "dev": "eth1"}, {"dev": "eth1", "scope": "link"}),
        ({"dst": "10.1.2.0/24", "via": "203.0.113.9", "dev": "eth1", "onlink": True}, {"flags": ["onlink"]}),
        ({"dst": "203.0.113.0/24", "type": "blackhole"}, {"type": "blackhole"}),
        ({"dst": "203.0.113.0/24", "type": "unreachable", "metric": 9}, {"type": "unreachable", "metric": 9}),
        ({"dst": "203.0.113.0/24", "type": "prohibit", "protocol": 199}, {"type": "prohibit", "protocol": "199"}),
    ],
)
def test_kinds_of_routes_come_and_go(
    underlay: Host, twice: Twice, arguments: dict[str, Any], shown: dict[str, Any]
) -> None:
    before = underlay.run("ip -4 route show table all").stdout
    twice("route", **arguments)
    made = routes(underlay)[arguments["dst"]]
    assert {key: made[key] for key in shown} == shown
    named = {key: arguments[key] for key in ("dst", "metric", "protocol") if key in arguments}
    assert len(twice("route", state="absent", **named)["operations"]) == 1
    assert underlay.run("ip -4 route show table all").stdout == before


def test_the_seeds_router_between_two_namespaces(host: Host, twice: Twice) -> None:
    for number in (1, 2):
        host.module("netns", name=f"ns{number}")
        peer = {"name": "v", "namespace": f"ns{number}", "addresses": [f"10.1.{number}.2/24"]}
        host.module("veth", name=f"v{number}_r", addresses=[f"10.1.{number}.1/24"], peer=peer)
    ways = [("ns1", "10.1.2.0/24", "10.1.1.1"), ("ns2", "10.1.1.0/24", "10.1.2.1")]
    twice("route", routes=[dict(zip(("namespace", "dst", "via"), way)) for way in ways])
    for value, answers in (("0", False), ("1", True)):
        host.module("sysctl", name="net.ipv4.ip_forward", value=value, persist=False)
        ping = host.run("ip netns exec ns1 ping -c 1 -W 1 10.1.2.2", check=False)
        assert (ping.returncode == 0) is answers


def test_a_list_in_several_namespaces(underlay: Host, twice: Twice) -> None:
    listed = [
        {"namespace": "wire", "dst": "10.1.2.0/24", "via": "198.51.100.11"},
        {"dst": "10.1.1.0/24", "via": "198.51.100.12"},
        {"dst": "10.1.3.0/24", "via": "198.51.100.13", "protocol": "boot"},
    ]
    twice("route", routes=listed, metric=3)
    assert routes(underlay)["10.1.1.0/24"]["metric"] == 3
    assert routes(underlay)["10.1.3.0/24"]["protocol"] == "boot"
    assert underlay.json("ip -j -n wire route show 10.1.2.0/24")[0]["gateway"] == "198.51.100.11"


def test_a_route_that_differs_is_replaced_and_one_that_is_right_is_not_touched(underlay: Host, twice: Twice) -> None:
    listed = [{"dst": "10.1.1.0/24", "via": "198.51.100.12"}, {"dst": "10.1.2.0/24", "via": "198.51.100.12"}]
    twice("route", routes=listed)
    listed[1]["via"] = "198.51.100.99"
    done = twice("route", routes=listed)
    assert done["diff"]["before"] == "route 10.1.2.0/24 via 198.51.100.12 dev eth1 proto static\n"
    assert done["diff"]["after"].startswith("route 10.1.2.0/24 via 198.51.100.99")
    assert routes(underlay)["10.1.2.0/24"]["gateway"] == "198.51.100.99"


def test_another_metric_or_table_is_another_route(underlay: Host, twice: Twice) -> None:
    for place in ({}, {"metric": 50}, {"table": "77"}):
        twice("route", dst="10.1.1.0/24", via="198.51.100.12", **place)
    assert underlay.run("ip route show table all 10.1.1.0/24").stdout.count("via") == 3
    twice("route", dst="10.1.1.0/24", metric=50, state="absent")
    assert underlay.run("ip route show table all 10.1.1.0/24").stdout.count("via") == 2
    twice("route", dst="10.1.1.0/24", table="77", state="absent")
    assert routes(underlay)["10.1.1.0/24"]["gateway"] == "198.51.100.12"


def test_a_route_of_another_protocol_is_told_and_taken_over_only_if_asked(underlay: Host, twice: Twice) -> None:
    underlay.run("ip route add 10.1.1.0/24 via 198.51.100.99 proto dhcp")
    arguments = {"dst": "10.1.1.0/24", "via": "198.51.100.12"}
    for changes in ({}, {"state": "absent"}):
        answer = underlay.module("route", fails=True, **arguments, **changes)
        assert "protocol dhcp" in answer["msg"]
        assert "adopt: true" in answer["msg"]
    assert routes(underlay)["10.1.1.0/24"]["gateway"] == "198.51.100.99"
    twice("route", adopt=True, **arguments)
    assert (routes(underlay)["10.1.1.0/24"]["gateway"], routes(underlay)["10.1.1.0/24"]["protocol"]) == (
        "198.51.100.12",
        "static",
    )
    underlay.run("ip route replace 10.1.1.0/24 via 198.51.100.99 proto dhcp")
    twice("route", dst="10.1.1.0/24", state="absent", adopt=True)
    assert "10.1.1.0/24" not in routes(underlay)


def test_the_overlays_routes_are_never_taken(underlay: Host) -> None:
    document = {"routes": [{"dst": "10.2.0.0/16", "via": "198.51.100.99", "protocol": "static"}]}
    underlay.module("topology", document=document)
    underlay.run("ip route add 10.1.1.0/24 via 198.51.100.99 proto 244")
    before = underlay.run("ip route").stdout
    for arguments in (
        {"dst": "10.1.1.0/24", "via": "198.51.100.12", "adopt": True},
        {"dst": "10.1.1.0/24", "state": "absent", "adopt": True},
        {"dst": "10.2.0.0/16", "via": "198.51.100.12"},
        {"dst": "10.2.0.0/16", "state": "absent"},
    ):
        underlay.module("route", fails=True, **arguments)
    assert (
        "belongs to the document 'overlay'"
        in underlay.module("route", dst="10.2.0.0/16", state="absent", fails=True)["msg"]
    )
    assert (
        "marks the routes of an overlay"
        in underlay.module("route", dst="10.3.0.0/16", dev="eth1", protocol="podnet", fails=True)["msg"]
    )
    assert underlay.run("ip route").stdout == before


def test_a_gateway_that_is_nowhere_is_told_and_the_others_are_undone(underlay: Host) -> None:
    before = underlay.run("ip route").stdout
    listed = [{"dst": "10.1.1.0/24", "via": "198.51.100.12"}, {"dst": "10.1.2.0/24", "via": "203.0.113.1"}]
    answer = underlay.module("route", routes=listed, fails=True)
    assert "Network is unreachable" in answer["msg"]
    assert "The gateway 203.0.113.1 is on no network of the host" in answer["msg"]
    assert underlay.run("ip route").stdout == before


def test_ten_thousand_in_one_task(underlay: Host) -> None:
    listed = [{"dst": f"10.{128 + n // 256}.{n % 256}.0/24", "via": "198.51.100.12"} for n in range(10_000)]
    assert underlay.module("route", routes=listed, dev="eth1")["changed"]
    assert underlay.run("ip route show proto static").stdout.count("\n") == 10_000
    assert not underlay.module("route", routes=listed, dev="eth1")["changed"]
    underlay.module("route", routes=[{"dst": route["dst"]} for route in listed], state="absent")
    assert underlay.run("ip route show proto static").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"routes": [{"dst": "10.0.0.1/8", "via": "fe80::1", "dev": "an-interface-name", "colour": 1}, {"dst": "10.1.0.0/16"}]}, (
            "'10.0.0.1/8' is no IPv4 destination", "'fe80::1' is no IPv4", "'an-interface-name' has 17 bytes", "unknown key 'colour'",
            "routes[10.1.0.0/16]: needs via, dev or both")),
        ({"dst": "10.1.0.0/16", "via": "198.51.100.12", "onlink": True}, ("onlink needs both via and dev",)),
        ({"dst": "10.1.0.0/16", "via": "198.51.100.12", "mtu": 10, "metric": -1, "table": "blue", "protocol": 256, "type": "multicast"}, (
            "mtu: 10", "metric: -1", "'blue' is no whole number", "protocol: 256", "'multicast' is none of unicast")),
        ({"dst": "10.1.0.0/16", "dev": "eth7"}, ("a route needs the link eth7, which is not there",)),
        ({"dst": "10.1.0.0/16", "dev": "eth1", "namespace": "gone"}, ("namespace gone is not there",)),
        ({"routes": [{"dst": "10.1.0.0/16", "dev": "eth1"}] * 2}, ("is there twice",)),
        ({"routes": [{"via": "198.51.100.12"}]}, ("dst is missing",)),
        ({}, ("one of the following is required: dst, routes",)),
        ({"dst": "10.1.0.0/16", "routes": []}, ("mutually exclusive",)),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_nothing_is_changed(
    underlay: Host, arguments: dict[str, Any], told: tuple[str, ...]
) -> None:
    before = underlay.run("ip route").stdout
    answer = underlay.module("route", fails=True, **arguments)
    for part in told:
        assert part in answer["msg"]
    assert underlay.run("ip route").stdout == before
