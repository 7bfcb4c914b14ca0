"""The codec of routes and entries against pyroute2's."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("pyroute2")

from ansible_collections.podnet.overlay.plugins.module_utils._kernel import (
    decode_entries,
    decode_routes,
    encode_entry,
    encode_route,
)
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    ROUTE_TYPES,
    ForwardingEntry,
    Neighbour,
    Route,
)
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from .states import routes

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


addresses = st.ip_addresses(v=4).map(str)
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
entries = st.one_of(
    st.builds(Neighbour, st.just("web"), st.sampled_from(sorted(INDEXES)), addresses, macs),
    st.builds(ForwardingEntry, st.just("web"), st.sampled_from(sorted(INDEXES)), macs, addresses),
)


@given(entries)
def test_an_entry_is_encoded_byte_for_byte_as_pyroute2_does_and_decoded_to_the_same(
    entry: Neighbour | ForwardingEntry,
) -> None:
    message = ndmsg()
    neighbour = isinstance(entry, Neighbour)
    message["header"]["type"], message["header"]["flags"] = 28, 0x401
    message["family"], message["state"] = (socket.AF_INET if neighbour else socket.AF_BRIDGE), 0x80
    message["flags"], message["ifindex"] = (0 if neighbour else 2), INDEXES[entry.dev]
    message["attrs"] = [("NDA_DST", entry.dst), ("NDA_LLADDR", entry.lladdr)]
    message.encode()
    encoded = encode_entry(entry, INDEXES[entry.dev], 28, 0x401)
    assert encoded == bytes(message.data)
    assert list(decode_entries(encoded, "web", NAMES)) == [entry]
