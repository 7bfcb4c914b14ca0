"""The shared peer table, expanded for one node."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    ForwardingEntry,
    Mistakes,
    Neighbour,
    Route,
    of_type,
)
from ansible_collections.podnet.overlay.plugins.module_utils._peers import digest, expand, vtep_mac

TABLE = {"10.244.0.0/24": "198.51.100.11", "10.244.1.0/24": "198.51.100.12", "10.244.2.0/24": "203.0.113.13"}
CLAUSE: dict[str, Any] = {
    "subnet": "10.244.0.0/24",
    "public_ip": "198.51.100.11",
    "dev": "flannel.ipip",
    "interface": "eth1",
    "underlay": "198.51.100.0/24",
}


def test_a_digest_is_of_what_the_table_says_and_not_of_its_order() -> None:
    assert digest(TABLE) == digest(dict(reversed(TABLE.items()))) != digest({**TABLE, "10.244.2.0/24": "203.0.113.14"})
    assert len(digest(TABLE)) == 16


def reached(**changes: Any) -> list[Route]:
    return list(of_type(expand({}, {**CLAUSE, **changes}, TABLE), Route))


def test_ipip_is_an_onlink_route_by_the_tunnel_for_every_other_node_as_flanneld_has_it() -> None:
    assert reached(backend="ipip") == [
        Route("", "10.244.1.0/24", "198.51.100.12", "flannel.ipip", True),
        Route("", "10.244.2.0/24", "203.0.113.13", "flannel.ipip", True),
    ]


def test_direct_routing_leaves_the_tunnel_out_where_the_underlay_is_shared() -> None:
    assert reached(backend="ipip", direct_routing=True) == [
        Route("", "10.244.1.0/24", "198.51.100.12", "eth1"),
        Route("", "10.244.2.0/24", "203.0.113.13", "flannel.ipip", True),
    ]


def test_host_gw_routes_by_the_underlays_interface() -> None:
    assert {route.dev for route in reached(backend="host-gw")} == {"eth1"}


def test_vxlan_needs_a_neighbour_and_a_forwarding_entry_beside_the_route() -> None:
    state = expand({}, {**CLAUSE, "backend": "vxlan", "dev": "flannel.1"}, TABLE)
    assert Route("", "10.244.1.0/24", "10.244.1.0", "flannel.1", True) in state.values()
    assert Neighbour("", "flannel.1", "10.244.1.0", "0e:58:0a:f4:01:00") in state.values()
    assert ForwardingEntry("", "flannel.1", vtep_mac("10.244.1.0/24"), "198.51.100.12") in state.values()


def test_all_that_is_wrong_with_clause_and_table_is_told() -> None:
    with pytest.raises(Mistakes) as raised:
        expand({}, {"backend": "gre", "colour": "red", "interface": "a/b"}, {"10.244.1.5/24": "x"})
    assert len(raised.value.lines) == 6
