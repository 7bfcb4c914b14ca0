"""The route codec against pyroute2's, and the firewall's words."""

from __future__ import annotations

import pytest

pytest.importorskip("pyroute2")

from ansible_collections.podnet.overlay.plugins.module_utils._kernel import (
    decode_routes,
    encode_route,
    firewall_commands,
    firewall_rules,
    parse_firewall,
)
from ansible_collections.podnet.overlay.plugins.module_utils._model import ROUTE_TYPES, Firewall, Route
from hypothesis import given
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from .states import OWNER, routes

INDEXES = {"cni0": 7, "tun": 9}
NAMES = {index: name for name, index in INDEXES.items()}


def by_pyroute2(route: Route) -> bytes:
    """The same message, by pyroute2's codec."""
    network, _slash, length = route.dst.partition("/")
    message = rtmsg()
    message["family"], message["dst_len"], message["proto"], message["type"] = (
        2,
        int(length),
        route.protocol,
        ROUTE_TYPES[route.type],
    )
    message["table"] = route.table if route.table < 256 else 0
    message["scope"] = 0 if route.via or route.type != "unicast" else 253
    message["flags"] = 4 if route.onlink else 0
    message["header"]["type"], message["header"]["flags"] = 24, 0x401
    attributes: list[tuple[str, object]] = [("RTA_TABLE", route.table)]
    attributes += [("RTA_DST", network)] if int(length) else []
    attributes += [("RTA_GATEWAY", route.via)] if route.via else []
    attributes += [("RTA_OIF", INDEXES[route.dev])]
    attributes += [("RTA_PRIORITY", route.metric)] if route.metric else []
    attributes += [("RTA_PREFSRC", route.src)] if route.src else []
    attributes += [("RTA_METRICS", {"attrs": [("RTAX_MTU", route.mtu)]})] if route.mtu else []
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


@given(routes())
def test_a_route_is_encoded_byte_for_byte_as_pyroute2_does(route: Route) -> None:
    assert encode_route(route, INDEXES[route.dev]) == by_pyroute2(route)


@given(routes())
def test_what_pyroute2_encodes_is_decoded_to_the_same_route(route: Route) -> None:
    assert list(decode_routes(by_pyroute2(route), route.namespace, NAMES)) == [route]


@given(routes())
def test_pyroute2_decodes_what_is_encoded_here(route: Route) -> None:
    message = rtmsg(encode_route(route, INDEXES[route.dev]))
    message.decode()
    assert (message["dst_len"], message["proto"], message["flags"]) == (
        int(route.dst.split("/")[1]),
        route.protocol,
        4 if route.onlink else 0,
    )
    assert (message.get_attr("RTA_GATEWAY") or "", message.get_attr("RTA_TABLE"), message.get_attr("RTA_OIF")) == (
        route.via,
        route.table,
        INDEXES[route.dev],
    )


def test_a_changed_peer_costs_one_element_of_the_set() -> None:
    before = Firewall("192.0.2.1", "ipip", ("192.0.2.2", "192.0.2.3"), owner=OWNER)
    after = Firewall("192.0.2.1", "ipip", ("192.0.2.2", "192.0.2.4"), owner=OWNER)
    commands = list(firewall_commands(before, after))
    assert [(verb, command[verb]["element"]["elem"]) for command in commands for verb in command] == [
        ("add", ["192.0.2.4"]),
        ("delete", ["192.0.2.3"]),
    ]


def test_a_guard_that_someone_changed_is_replaced_whole() -> None:
    broken = Firewall("192.0.2.1", "ipip", owner=OWNER, intact=False)
    verbs = [
        f"{verb} {next(iter(command[verb]))}"
        for command in firewall_commands(broken, Firewall("192.0.2.1", "ipip", owner=OWNER))
        for verb in command
    ]
    assert verbs == ["add table", "delete table", "add table", "add set", "add chain", "add rule"]


@pytest.mark.parametrize(
    "wall",
    [Firewall("192.0.2.1", "ipip", ("192.0.2.2",), owner=OWNER), Firewall("192.0.2.1", "vxlan", (), 8472, OWNER)],
)
def test_a_listing_is_read_back_to_the_guard(wall: Firewall) -> None:
    chain = {
        "family": "inet",
        "table": "podnet_overlay",
        "name": "guard",
        "type": "filter",
        "hook": "input",
        "prio": -10,
        "policy": "accept",
        "handle": 2,
    }
    rules = [{"rule": {**rule, "handle": 3}} for rule in firewall_rules(wall)]
    rules[0]["rule"]["expr"] = [
        {"counter": {"packets": 4, "bytes": 99}} if "counter" in part else part for part in rules[0]["rule"]["expr"]
    ]
    peers = {"set": {"name": "peers", **({"elem": list(wall.peers)} if wall.peers else {})}}
    assert parse_firewall([{"metainfo": {}}, {"table": {}}, peers, {"chain": chain}, *rules]) == wall
    assert not parse_firewall([peers, {"chain": {**chain, "policy": "drop"}}, *rules]).intact
    assert not parse_firewall([peers, {"chain": chain}]).intact
