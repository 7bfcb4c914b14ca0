"""The pure core by property: what a difference does to one state gives the other."""

from __future__ import annotations

from ansible_collections.podnet.overlay.plugins.module_utils._difference import (
    CREATION_ORDER,
    Operation,
    apply,
    conflicts,
    difference,
    nothing,
)
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    Address,
    Bridge,
    Firewall,
    Ipip,
    Link,
    Namespace,
    Object,
    Port,
    Route,
    State,
    Sysctl,
    Veth,
    Vxlan,
    state_of,
)
from hypothesis import given, settings

from .states import OWNER, states


def everything(_item: Object) -> bool:
    """As if all that is there were ours."""
    return True


@given(states(), states())
@settings(max_examples=300)
def test_applying_the_difference_to_one_state_gives_the_other(desired: State, observed: State) -> None:
    operations = difference(desired, observed, everything)
    reached = apply(observed, operations)
    assert reached.keys() == desired.keys()
    assert difference(desired, reached, everything) == []


@given(states(), states())
def test_undoing_all_operations_in_reverse_gives_the_state_from_before(desired: State, observed: State) -> None:
    operations = difference(desired, observed, everything)
    reached = apply(observed, operations)
    assert apply(reached, [operation.inverse for operation in reversed(operations)]) == observed


@given(states(), states())
def test_what_is_not_owned_and_not_desired_is_left_alone(desired: State, observed: State) -> None:
    operations = difference(desired, observed, lambda item: getattr(item, "owner", "") == OWNER)
    for operation in operations:
        if (
            operation.after is None
            and operation.item.key not in desired
            and getattr(operation.item, "owner", None) is not None
        ):
            assert operation.item.owner == OWNER or operation.item.key[2:] in {("veth0",), ("eth0",)}


@given(states(), states())
def test_final_deletions_come_last_and_additions_in_the_order_of_need(desired: State, observed: State) -> None:
    operations = difference(desired, observed, everything)
    verbs = ["delete" if operation.after is None else "put" for operation in operations]
    puts = [CREATION_ORDER.index(type(operation.item)) for operation in operations if operation.after is not None]
    assert puts == sorted(puts)
    first = verbs.index("put") if "put" in verbs else len(verbs)
    again = [operation.item.key for operation in operations[first:] if operation.after is None]
    assert all(key not in desired for key in again)
    assert "putdeleteput" not in "".join(word for word, before in zip(verbs, ["", *verbs]) if word != before)


def test_a_route_is_replaced_and_not_deleted_and_added() -> None:
    old, new = Route("", "10.244.1.0/24", "192.0.2.2", "eth0"), Route("", "10.244.1.0/24", "192.0.2.3", "eth0")
    assert difference(state_of([new]), state_of([old]), everything) == [Operation(old, new)]


def test_the_guard_is_in_place_before_the_tunnel_and_goes_after_it() -> None:
    wall, tunnel = (
        Firewall(OWNER, ('{"rule": 1}',)),
        Link("", "flannel.ipip", "ipip", up=True, options=Ipip("192.0.2.1"), owner=OWNER),
    )
    both = state_of([tunnel, wall])
    assert [operation.item for operation in difference(both, {})] == [wall, tunnel]
    assert [operation.item for operation in difference({}, both, everything)] == [tunnel, wall]


def test_a_tunnel_that_goes_is_gone_before_the_firewall_forgets_it() -> None:
    old, new = Firewall(OWNER, ("old",)), Firewall(OWNER, ("new",))
    tunnel = Link("", "flannel.ipip", "ipip", up=True, options=Ipip("192.0.2.1"), owner=OWNER)
    told = difference(state_of([new]), state_of([old, tunnel]), everything)
    assert told == [Operation(tunnel, None), Operation(old, new)]


def test_ports_go_before_their_bridge_and_so_come_back_after_it() -> None:
    bridge, port = Link("", "cni0", "bridge", owner=OWNER), Link("", "veth-web", "veth", master="cni0", owner=OWNER)
    assert [operation.item for operation in difference({}, state_of([bridge, port]), everything)] == [port, bridge]


def test_a_tunnel_whose_remote_is_fixed_is_made_anew_with_all_that_lives_on_it() -> None:
    def tunnel(remote: str) -> Link:
        return Link(
            "", "tun", "ipip", True, 1480, master="", options=Ipip("192.0.2.1", remote, 0, 0, False, "", 0), owner=OWNER
        )

    address, route = Address("", "tun", "10.244.0.0/32"), Route("", "10.244.1.0/24", "192.0.2.2", "tun", True)
    observed = state_of([tunnel("0.0.0.0"), address, route])
    operations = difference(state_of([tunnel("192.0.2.2"), address, route]), observed, everything)
    assert [(operation.verb, type(operation.item)) for operation in operations] == [
        ("delete", Route),
        ("delete", Address),
        ("delete", Link),
        ("add", Link),
        ("add", Address),
        ("add", Route),
    ]


def test_a_renamed_tunnel_gives_its_endpoints_free_before_the_new_one_comes() -> None:
    old, new = (
        Link("", name, "ipip", True, options=Ipip("192.0.2.1", "0.0.0.0"), owner=OWNER) for name in ("old", "new")
    )
    assert [str(operation).split()[:3] for operation in difference(state_of([new]), state_of([old]), everything)] == [
        ["delete", "link", "old"],
        ["add", "link", "new"],
    ]


def test_an_address_of_the_same_subnet_goes_before_its_successor_comes() -> None:
    """The kernel takes a primary address's secondary ones with it."""
    old, new = Address("", "cni0", "10.244.0.1/24"), Address("", "cni0", "10.244.0.2/24")
    link = Link("", "cni0", "bridge", True, owner=OWNER)
    operations = difference(state_of([link, new]), state_of([link, old]), lambda item: isinstance(item, Address))
    assert [operation.verb for operation in operations] == ["delete", "add"]


def test_what_a_link_does_not_name_stays_as_it_is() -> None:
    present = Link(
        "",
        "cni0",
        "bridge",
        True,
        1480,
        "0a:58:0a:f4:00:01",
        "",
        Bridge(False, 300, 15, 2, 20, 32768, False),
        owner=OWNER,
    )
    assert (
        difference(
            state_of([Link("", "cni0", "bridge", up=True, options=Bridge(ageing_time=300), owner=OWNER)]),
            state_of([present]),
        )
        == []
    )
    changed = difference(
        state_of([Link("", "cni0", "bridge", mtu=1400, options=Bridge(stp=True))]), state_of([present])
    )
    assert changed[0].after == Link(
        "",
        "cni0",
        "bridge",
        True,
        1400,
        "0a:58:0a:f4:00:01",
        "",
        Bridge(True, 300, 15, 2, 20, 32768, False),
        owner=OWNER,
    )


def test_port_options_go_with_a_changed_master() -> None:
    port = Link("", "v0", "veth", True, master="old", options=Veth("e0", ""), port=Port(True, False, True, 32, 2))
    changed = difference(state_of([Link("", "v0", "veth", master="new", options=Veth("e0", ""))]), state_of([port]))
    assert changed[0].after.port is None  # type: ignore[union-attr]


def test_a_sysctl_goes_back_to_the_value_from_before() -> None:
    now, before = Sysctl("", "net.ipv4.ip_forward", "1"), Sysctl("", "net.ipv4.ip_forward", "0")
    assert difference({}, state_of([now]), everything, state_of([before])) == [Operation(now, before)]


def test_a_links_sysctl_goes_with_it_and_comes_back_with_it() -> None:
    def tunnel(vni: int) -> Link:
        return Link("", "flannel.1", "vxlan", owner=OWNER, options=Vxlan(vni, "198.51.100.1", "eth1", 8472, False))

    loose, strict_one = (Sysctl("", "net.ipv4.conf.flannel/1.rp_filter", value) for value in "21")
    strict = state_of([strict_one])
    gone = difference({}, state_of([tunnel(1), loose]), everything, strict)
    assert [operation.item.key for operation in gone] == [loose.key, tunnel(1).key]
    anew = difference(state_of([tunnel(2), loose]), state_of([tunnel(1), loose]), everything, strict)
    assert [str(operation).split()[0:2] for operation in anew] == [
        ["delete", "sysctl"],
        ["delete", "link"],
        ["add", "link"],
        ["add", "sysctl"],
    ]


def test_every_foreign_thing_in_the_way_is_told_at_once() -> None:
    desired = state_of(
        [
            Namespace("web", OWNER),
            Link("", "cni0", "bridge", owner=OWNER),
            Route("", "10.244.1.0/24", "192.0.2.2", "eth0"),
            Firewall(OWNER, ('{"rule": 1}',)),
            Link("", "eth9", external=True),
            Link("", "eth0", external=True),
        ]
    )
    observed = state_of(
        [
            Namespace("web"),
            Link("", "cni0", "bridge", owner="other"),
            Route("", "10.244.1.0/24", "192.0.2.9", "eth0", protocol=16),
            Firewall("", ()),
            Link("", "eth0"),
        ]
    )
    told = conflicts(desired, observed, OWNER, nothing)
    assert len(told) == 5
    assert "dhcp" in "".join(told)
    assert "'other'" in "".join(told)
    assert len(conflicts(desired, observed, OWNER, nothing, adopt=True)) == 2


def test_a_device_that_neither_document_nor_host_has_is_a_mistake() -> None:
    told = conflicts(
        state_of([Address("", "nowhere", "10.0.0.1/24"), Link("", "v0", "veth", master="br9")]),
        {},
        OWNER,
        everything,
    )
    assert len(told) == 2
    assert "nowhere" in "".join(told)
    assert "br9" in "".join(told)
