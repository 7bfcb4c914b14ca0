"""Documents: read, written, and refused with every mistake at once."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._difference import merge
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    Ipip,
    Link,
    Mistakes,
    Namespace,
    Object,
    State,
    describe,
    interface_name,
    mac_of,
    parse,
    render,
    sysctl_name,
)
from hypothesis import given

from .states import OWNER, states


def owned_by_one(state: State) -> State:
    """The same with one owner, as a document has."""

    def own(item: Object) -> Object:
        import dataclasses

        return dataclasses.replace(item, owner=OWNER) if hasattr(item, "owner") else item

    return {key: own(item) for key, item in state.items()}


@given(states())
def test_a_rendered_state_is_read_back_to_itself(state: State) -> None:
    state = {
        key: item
        for key, item in owned_by_one(state).items()
        if not (item.key[0] == "file" and ("namespace", item.key[1]) not in state)
        and item.key != ("firewall",)  # it is read and rendered by _firewall
    }
    read = parse(render(state, OWNER), OWNER)
    assert {key: merge(item, state[key]) for key, item in read.items()} == state


@given(states())
def test_every_object_is_described_in_one_line(state: State) -> None:
    assert all("\n" not in describe(item) and describe(item) for item in state.values())


def test_the_designs_words_are_understood() -> None:
    state = parse(
        {
            "version": 1,
            "namespaces": [{"name": "web"}],
            "links": [
                {
                    "name": "flannel.ipip",
                    "kind": "ipip",
                    "ipip": {"local": "198.51.100.11", "remote": "any", "ttl": "inherit"},
                    "mtu": 1480,
                },
                {
                    "name": "tunl1",
                    "kind": "ipip",
                    "ipip": {"local": "10.10.10.2", "remote": "10.10.20.2"},
                    "addresses": [{"address": "10.10.100.10", "peer": "10.10.200.10"}],
                },
            ],
            "routes": [
                {
                    "dst": "default",
                    "via": "10.244.0.1",
                    "dev": "eth0",
                    "namespace": "web",
                    "table": "main",
                    "protocol": "static",
                }
            ],
        },
        OWNER,
    )
    assert state["link", "", "flannel.ipip"] == Link(
        "", "flannel.ipip", "ipip", True, 1480, options=Ipip("198.51.100.11", "0.0.0.0", 0), owner=OWNER
    )
    assert ("address", "", "tunl1", "10.10.100.10", "10.10.200.10/32", "global") in state
    assert state["route", "web", 254, "0.0.0.0/0", 0].protocol == 4  # type: ignore[union-attr]
    assert state["namespace", "web"] == Namespace("web", OWNER)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"version": 2}, "version: 2 is not 1"),
        ({"links": [{"name": "sixteen-bytes-xx", "kind": "bridge"}]}, "16 bytes"),
        ({"links": [{"name": "a/b", "kind": "bridge"}]}, "no slash"),
        ({"links": [{"name": "x", "kind": "gre"}]}, "kind 'gre' is none of"),
        ({"links": [{"kind": "bridge"}]}, "name is missing"),
        ({"links": [{"name": "x", "kind": "bridge", "mtu": "big"}]}, "mtu: 'big' is no whole number"),
        ({"links": [{"name": "x", "kind": "bridge", "up": "yes"}]}, "neither true nor false"),
        ({"links": [{"name": "x", "kind": "bridge", "address": "01:00:5e:00:00:01"}]}, "multicast"),
        ({"links": [{"name": "x", "kind": "veth"}]}, "peer: name is missing"),
        ({"links": [{"name": "x", "kind": "veth", "peer": {"name": "x"}}]}, "both ends have the same name"),
        ({"links": [{"name": "x", "kind": "vxlan"}]}, "id is missing"),
        ({"links": [{"name": "x", "kind": "bridge", "ipip": {}}]}, "unknown key 'ipip'"),
        ({"links": [{"name": "x", "kind": "bridge"}, {"name": "x", "kind": "bridge"}]}, "there twice"),
        ({"links": "none"}, "no list"),
        ({"routes": [{"dst": "10.0.0.1/24", "dev": "x"}]}, "host bits"),
        ({"routes": [{"dst": "10.0.0.0/24", "via": "::1"}]}, "no IPv4 address"),
        ({"routes": [{"dst": "10.0.0.0/24"}]}, "needs via, dev or both"),
        ({"routes": [{"dst": "10.0.0.0/24", "via": "10.1.1.1", "onlink": True}]}, "onlink needs both"),
        ({"namespaces": [{"name": "../etc"}]}, "no namespace name"),
        ({"namespaces": [{"name": "web", "files": {"../passwd": "x"}}]}, "no namespace name"),
        ({"sysctls": [{"name": "../../etc", "value": "1"}]}, "no sysctl name"),
        ({"files": [{"path": "etc/x", "content": ""}]}, "no absolute path"),
        ({"files": [{"path": "/etc/../x", "content": ""}]}, "no absolute path"),
        ({"files": [{"path": "/x", "content": "", "mode": "rw"}]}, "no permissions"),
        ({"files": [{"path": "/x"}]}, "content is missing"),
        ([], "no mapping"),
    ],
)
def test_a_mistake_is_told_where_it_stands(document: Any, told: str) -> None:
    with pytest.raises(Mistakes) as raised:
        parse(document, OWNER)
    assert told in str(raised.value)


@pytest.mark.parametrize("name", ["eth0", "flannel.ipip", "a" * 15, "veth-ü"])
def test_names_that_the_kernel_takes_are_taken(name: str) -> None:
    assert interface_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a:b", "a\tb", "a" * 16, "ü" * 8])
def test_names_that_the_kernel_refuses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="interface name"):
        interface_name(name)


def test_the_mac_of_an_address_is_cnis() -> None:
    assert mac_of("10.244.0.1") == "0a:58:0a:f4:00:01"


def test_a_sysctl_of_an_interface_with_a_dot_keeps_it() -> None:
    assert sysctl_name("net/ipv4/conf/eth0.1/rp_filter") == "net.ipv4.conf.eth0/1.rp_filter"
    assert sysctl_name("net.ipv4.conf.eth0/1.rp_filter") == "net.ipv4.conf.eth0/1.rp_filter"
