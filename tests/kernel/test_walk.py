"""The walk of a packet against what the kernel does with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._flow import flow

from tests.kernel.hosts import Host
from tests.kernel.looks import everything
from tests.kernel.overlays import NODES, TABLE, TUNNELS, document, overlay, settings

BACKENDS = [pytest.param("ipip", marks=pytest.mark.ipip), "vxlan", "host-gw"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hosts(backend: str) -> Iterator[dict[str, Host]]:
    with overlay(backend, firewall={}) as made:
        yield made


def walks(hosts: dict[str, Host], backend: str, source: str, target: str, **options: Any) -> dict[str, Any]:
    """Each leg of the path: the hops of all hosts on it, in order, as far as the packet comes."""
    path = flow(source, target, NODES, settings(backend), **options)
    answers = {name: hosts[name].module("walk", packets=path["packets"][name])["walks"] for name in path["nodes"]}
    legs = {}
    for leg, names in path["order"].items():
        hops: list[dict[str, Any]] = []
        for name in names:
            hops += [{"node": name, **hop} for hop in answers[name][leg]["hops"]]
            if answers[name][leg]["end"] == "broken":
                break
        legs[leg] = hops
    return legs


def seen(hops: list[dict[str, Any]]) -> list[tuple[str, str, int, int]]:
    """Where, which interface, how many bytes, and the TTL of the innermost packet."""
    found = []
    for hop in hops:
        packet = hop["packet"]
        while packet["inner"]:
            packet = packet["inner"]
        found.append((hop["namespace"] or hop["node"], hop["interface"], hop["length"], packet["ttl"]))
    return found


def problems(legs: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (leg, hop["node"], hop["interface"], problem["fault"])
        for leg, hops in legs.items()
        for hop in hops
        for problem in hop["problems"]
    ]


ON_THE_WAY = {
    "ipip": [
        ("node1", "flannel.ipip", 84, 63),
        ("node1", "eth1", 118, 63),
        ("node2", "eth1", 118, 63),
        ("node2", "flannel.ipip", 84, 63),
    ],
    "vxlan": [
        ("node1", "flannel.1", 98, 63),
        ("node1", "eth1", 148, 63),
        ("node2", "eth1", 148, 63),
        ("node2", "flannel.1", 98, 63),
    ],
    "host-gw": [("node1", "eth1", 98, 63), ("node2", "eth1", 98, 63)],
}


def test_a_sound_path_has_the_seeds_numbers(hosts: dict[str, Host], backend: str) -> None:
    legs = walks(hosts, backend, "web@node1", "db@node2")
    assert problems(legs) == []
    assert seen(legs["request"]) == [
        ("web", "eth0", 98, 64),
        ("node1", "veth-web", 98, 64),
        ("node1", "cni0", 98, 64),
        *ON_THE_WAY[backend],
        ("node2", "cni0", 98, 62),
        ("node2", "veth-db", 98, 62),
        ("db", "eth0", 98, 62),
    ]
    assert seen(legs["reply"])[0] == ("db", "eth0", 98, 64)
    assert seen(legs["reply"])[-1] == ("web", "eth0", 98, 62)


ALL = ("ipip", "vxlan", "host-gw")


@dataclass(frozen=True)
class Fault:
    """What breaks a path: a command on a host, where the walk tells it, and the fault's word."""

    name: str
    node: str
    breaks: str
    told: tuple[str, str, str, str]
    mends: str = ""
    backends: tuple[str, ...] = ALL
    passes: bool | None = False
    """None: by chance."""
    options: dict[str, Any] = field(default_factory=dict)


TUNNELLED = ("ipip", "vxlan")
FOREIGN = "nft add table inet foreign; nft 'add chain inet foreign c {{ type filter hook {} priority 0; }}'; nft add rule inet foreign c {}"
FAULTS = [
    Fault("no route", "node1", "ip route del 10.244.1.0/24", ("request", "node1", "cni0", "no_route")),
    Fault("no route back", "node2", "ip route del 10.244.0.0/24", ("reply", "node2", "cni0", "no_route")),
    Fault(
        "no route in the pod",
        "node1",
        "ip -n web route del default; ip -n web route del 10.244.0.0/16",
        ("request", "node1", "eth0", "no_route"),
    ),
    Fault(
        "wrong gateway",
        "node1",
        "ip route replace 10.244.1.0/24 via 198.51.100.99 dev $device onlink proto 244",
        ("request", "node1", "cni0", "wrong_gateway"),
    ),
    Fault(
        "another device",
        "node1",
        "ip route replace 10.244.1.0/24 dev cni0 proto 244",
        ("request", "node1", "cni0", "wrong_gateway"),
    ),
    Fault(
        "tunnel down",
        "node1",
        "ip link set $tunnel down",
        ("request", "node1", "cni0", "tunnel_down"),
        backends=TUNNELLED,
    ),
    Fault(
        "tunnel missing",
        "node1",
        "ip link del $tunnel",
        ("request", "node1", "cni0", "tunnel_missing"),
        backends=TUNNELLED,
    ),
    Fault(
        "far tunnel down",
        "node2",
        "ip link set $tunnel down",
        ("request", "node2", "eth1", "tunnel_down"),
        backends=TUNNELLED,
    ),
    Fault(
        "far tunnel missing",
        "node2",
        "ip link del $tunnel",
        ("request", "node2", "eth1", "tunnel_missing"),
        backends=TUNNELLED,
    ),
    Fault(
        "wrong local address",
        "node1",
        "ip link set $tunnel type ipip local 198.51.100.77 remote any",
        ("request", "node1", "flannel.ipip", "wrong_local"),
        backends=("ipip",),
    ),
    Fault(
        "wrong local address at the far end",
        "node2",
        "ip link set $tunnel type ipip local 198.51.100.77 remote any",
        ("request", "node2", "eth1", "wrong_local"),
        backends=("ipip",),
    ),
    Fault(
        "forwarding off at the first node",
        "node1",
        "sysctl -qw net.ipv4.ip_forward=0",
        ("request", "node1", "cni0", "forwarding_off"),
    ),
    Fault(
        "forwarding off at the far node",
        "node2",
        "sysctl -qw net.ipv4.ip_forward=0",
        ("request", "node2", "{arrival}", "forwarding_off"),
    ),
    Fault(
        "strict rp_filter",
        "node2",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1; ip route replace 10.244.0.0/24 dev cni0",
        ("request", "node2", "{arrival}", "rp_filter"),
        "sysctl -qw net.ipv4.conf.all.rp_filter=0; ip route del 10.244.0.0/24",
    ),
    Fault(
        "DROP in FORWARD by iptables",
        "node1",
        "iptables-nft -P FORWARD DROP",
        ("request", "node1", "cni0", "filtered"),
        "iptables-nft -P FORWARD ACCEPT",
    ),
    Fault(
        "DROP in FORWARD by legacy iptables",
        "node2",
        "iptables-legacy -I FORWARD -d 10.244.1.0/24 -j DROP",
        ("request", "node2", "{arrival}", "filtered"),
        "iptables-legacy -F FORWARD",
    ),
    Fault(
        "DROP in FORWARD by nft",
        "node2",
        FOREIGN.format("forward", "ip daddr 10.244.1.0/24 drop"),
        ("request", "node2", "{arrival}", "filtered"),
        "nft delete table inet foreign",
    ),
    Fault(
        "the tunnel filtered on its way out",
        "node1",
        FOREIGN.format("output", "ip daddr 198.51.100.12 drop"),
        ("request", "node1", "{tunnel}", "filtered"),
        "nft delete table inet foreign",
        TUNNELLED,
    ),
    Fault(
        "the tunnel filtered on its way in",
        "node2",
        FOREIGN.format("input", "ip saddr 198.51.100.11 drop"),
        ("request", "node2", "eth1", "filtered"),
        "nft delete table inet foreign",
        TUNNELLED,
    ),
    Fault(
        "a peer that the guard does not know",
        "node2",
        "nft flush map inet podnet_overlay peers",
        ("request", "node2", "{guard}", "wrong_source"),
        backends=TUNNELLED,
    ),
    Fault(
        "a peer that the guard knows with another subnet",
        "node2",
        "nft flush set inet podnet_overlay sources;"
        "nft add element inet podnet_overlay sources { 198.51.100.11 . 10.244.7.0/24 }".replace(
            "198.51.100.11", str(0xC633640B)
        ),
        ("request", "node2", "{arrival}", "wrong_source"),
        backends=TUNNELLED,
    ),
    Fault(
        "MTU of the pod too large with DF",
        "node1",
        "for dev in veth-web cni0; do ip link set $dev mtu 1500; done; ip -n web link set eth0 mtu 1500",
        ("request", "node1", "{tunnel}", "mtu"),
        backends=TUNNELLED,
        options={"size": 1500},
    ),
    Fault(
        "MTU of the tunnel too large with DF",
        "node1",
        "for dev in veth-web cni0 $tunnel; do ip link set $dev mtu 1500; done; ip -n web link set eth0 mtu 1500",
        ("request", "node1", "eth1", "mtu"),
        backends=("ipip",),
        options={"size": 1500},
    ),
    Fault(
        "pod interface down", "node1", "ip -n web link set eth0 down", ("request", "node1", "eth0", "interface_down")
    ),
    Fault(
        "far pod interface down", "node2", "ip -n db link set eth0 down", ("request", "node2", "cni0", "interface_down")
    ),
    Fault(
        "bridge port missing",
        "node1",
        "ip link set veth-web nomaster",
        ("request", "node1", "veth-web", "bridge_port_missing"),
    ),
    Fault(
        "far bridge port missing",
        "node2",
        "ip link set veth-db nomaster",
        ("request", "node2", "cni0", "bridge_port_missing"),
    ),
    Fault("far bridge down", "node2", "ip link set cni0 down", ("request", "node2", "{arrival}", "no_route")),
    Fault(
        "duplicate pod address",
        "node2",
        "ip netns add other; ip link add veth-other type veth peer name eth0 netns other; ip link set veth-other master cni0 up;"
        "ip -n other addr add 10.244.1.3/24 dev eth0; ip -n other link set eth0 up",
        ("request", "node2", "cni0", "duplicate_address"),
        "ip netns del other",
        passes=True,
    ),
    Fault(
        "stale neighbour",
        "node2",
        "ip neigh replace 10.244.1.3 lladdr 02:00:00:00:00:99 dev cni0 nud permanent",
        ("request", "node2", "cni0", "stale_neighbour"),
        "ip neigh del 10.244.1.3 dev cni0",
    ),
    Fault(
        "stale neighbour in the pod",
        "node1",
        "ip -n web neigh replace 10.244.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        ("request", "node1", "eth0", "stale_neighbour"),
        "ip -n web neigh del 10.244.0.1 dev eth0",
    ),
]


def quickly(faults: list[Fault]) -> list[Fault]:
    """What has nothing to do with IPIP need not be tried on an emulated machine too."""
    return [
        replace(fault, backends=("vxlan", "host-gw") if fault.backends == ALL else fault.backends) for fault in faults
    ]


VXLAN = ("vxlan",)
STATEFUL = "; ".join(
    f"nft add rule inet foreign c {rule}" for rule in ("ct state established accept", "{} accept", "drop")
)
BRIDGE = (
    "nft add table bridge foreign; nft 'add chain bridge foreign c {{ type filter hook {} priority 0; }}';"
    "nft add rule bridge foreign c ip daddr 10.244.1.3 drop"
)
MORE_FAULTS = [
    Fault(
        "a pod with another MAC than its own",
        "node1",
        "ip -n web link set eth0 address 02:00:00:00:00:98",
        ("request", "node1", "veth-web", "wrong_source"),
    ),
    Fault(
        "a firewall that takes no new VXLAN",
        "node1",
        f"{FOREIGN.format('input', 'icmp type echo-request accept')}; {STATEFUL.format('meta l4proto icmp')}",
        ("reply", "node1", "eth1", "filtered"),
        "nft delete table inet foreign",
        VXLAN,
    ),
    Fault(
        "replies that connection tracking may not know",
        "node1",
        f"{FOREIGN.format('forward', 'counter')}; {STATEFUL.format('iifname cni0')};"
        "nft 'add chain inet foreign raw { type filter hook prerouting priority raw; }';"
        "nft add rule inet foreign raw ip saddr 10.244.1.0/24 notrack",
        ("reply", "node1", "{arrival}", "filtered"),
        "nft delete table inet foreign",
    ),
    *(
        Fault(
            f"a bridge rule at {hook}",
            node,
            BRIDGE.format(hook),
            ("request", node, interface, "filtered"),
            "nft delete table bridge foreign",
        )
        for node, interface, hook in (
            ("node1", "veth-web", "prerouting"),
            ("node1", "veth-web", "input"),
            ("node2", "cni0", "output"),
            ("node2", "cni0", "postrouting"),
        )
    ),
    Fault(
        "a veth end that is too small",
        "node1",
        "ip link set veth-web mtu 1300",
        ("request", "node1", "veth-web", "mtu"),
        options={"size": 1400},
    ),
    Fault(
        "a route with an MTU",
        "node1",
        "ip route replace $(ip route show 10.244.1.0/24 | sed s/podnet/244/) mtu 1000",
        ("request", "node1", "{device}", "mtu"),
        options={"size": 1200},
    ),
    Fault(
        "no carrier",
        "node2",
        "ip link set eth1 down",
        ("request", "node1", "eth1", "no_carrier"),
        "ip link set eth1 up",
    ),
    Fault(
        "duplicate pod address with the same MAC",
        "node2",
        "ip netns add other; ip link add veth-other type veth peer name eth0 netns other; ip link set veth-other master cni0 up;"
        "ip -n other link set eth0 address 0a:58:0a:f4:01:03 up; ip -n other addr add 10.244.1.3/24 dev eth0",
        ("request", "node2", "cni0", "duplicate_address"),
        "ip netns del other",
        passes=None,
    ),
    Fault(
        "a pod that answers no echo request",
        "node2",
        "ip netns exec db sysctl -qw net.ipv4.icmp_echo_ignore_all=1",
        ("request", "node2", "eth0", "echo_ignored"),
        "ip netns exec db sysctl -qw net.ipv4.icmp_echo_ignore_all=0",
    ),
    Fault(
        "a policy rule against ICMP",
        "node1",
        "ip rule add ipproto icmp prohibit",
        ("request", "node1", "cni0", "prohibited"),
        "ip rule del ipproto icmp prohibit",
    ),
    Fault(
        "a route that prohibits",
        "node1",
        "ip route add prohibit 10.244.1.3/32",
        ("request", "node1", "cni0", "prohibited"),
        "ip route del prohibit 10.244.1.3/32",
    ),
    Fault(
        "a more specific route of somebody else",
        "node1",
        "ip route add 10.244.1.3/32 dev cni0",
        ("request", "node1", "cni0", "wrong_route"),
        "ip route del 10.244.1.3/32 dev cni0",
    ),
    Fault(
        "a pod without ARP",
        "node2",
        "ip -n db link set eth0 arp off; ip neigh flush dev cni0",
        ("request", "node2", "cni0", "no_neighbour"),
        "ip -n db link set eth0 arp on",
    ),
    Fault(
        "another VNI at the far end",
        "node2",
        "ip link del flannel.1; ip link add flannel.1 type vxlan id 2 local 198.51.100.12 dev eth1 dstport 8472; ip link set flannel.1 up",
        ("request", "node2", "eth1", "wrong_vni"),
        "ip link del flannel.1",
        VXLAN,
    ),
    Fault(
        "a stale forwarding entry",
        "node2",
        "bridge fdb replace 0a:58:0a:f4:01:03 dev veth-web master static sticky",
        ("request", "node2", "eth0", "stale_forwarding_entry"),
        "bridge fdb del 0a:58:0a:f4:01:03 dev veth-web master",
    ),
    Fault(
        "forwarding off on the bridge alone",
        "node1",
        "sysctl -qw net.ipv4.conf.cni0.forwarding=0",
        ("request", "node1", "cni0", "forwarding_off"),
        "sysctl -qw net.ipv4.conf.cni0.forwarding=1",
    ),
    Fault(
        "no forwarding entry of the far tunnel",
        "node1",
        "bridge fdb del 0e:58:0a:f4:01:00 dev flannel.1",
        ("request", "node1", "flannel.1", "no_forwarding_entry"),
        backends=VXLAN,
    ),
    Fault(
        "no neighbour entry of the far tunnel",
        "node1",
        "ip neigh del 10.244.1.0 dev flannel.1",
        ("request", "node1", "flannel.1", "no_neighbour"),
        backends=VXLAN,
    ),
    Fault(
        "the far end behind the tunnel itself",
        "node1",
        "ip route add 198.51.100.12/32 dev flannel.ipip",
        ("request", "node1", "flannel.ipip", "loop"),
        "ip route del 198.51.100.12/32",
        ("ipip",),
    ),
    Fault(
        "a blocked port",
        "node1",
        "bridge link set dev veth-web state 0",
        ("request", "node1", "veth-web", "bridge_port_blocked"),
        "bridge link set dev veth-web state 3",
    ),
]
SOUND = ("", "", "", "")
PATIENCE = {"ipip": 1, "vxlan": 0.2, "host-gw": 0.2}  # seconds: ipip is tested on emulated machines
ODD_BUT_SOUND = [
    Fault(
        "a /32 of the same way",
        "node1",
        "ip route add $(ip route show 10.244.1.0/24 | sed 's,/24,3/32,; s/podnet/boot/; s/10.244.1.03/10.244.1.3/')",
        SOUND,
        "ip route del 10.244.1.3/32",
    ),
    Fault(
        "a table of its own",
        "node1",
        "ip rule add to 10.244.1.0/24 table 100; ip route add $(ip route show 10.244.1.0/24 | sed s/podnet/boot/) table 100",
        SOUND,
        "ip rule del to 10.244.1.0/24 table 100; ip route flush table 100",
    ),
    Fault(
        "the public_ip on lo too",
        "node2",
        "ip addr add 198.51.100.12/32 dev lo",
        SOUND,
        "ip addr del 198.51.100.12/32 dev lo",
    ),
    Fault(
        "a namespace with a second name",
        "node1",
        "touch /run/netns/again; mount --bind /run/netns/web /run/netns/again",
        SOUND,
        "umount /run/netns/again; rm /run/netns/again",
    ),
    Fault(
        "a neighbour that failed and came back",
        "node2",
        "ip neigh flush dev cni0; ip neigh add 10.244.1.3 dev cni0 nud failed",
        SOUND,
        "true",
    ),
    Fault(
        "loose rp_filter",
        "node2",
        "sysctl -qw net.ipv4.conf.all.rp_filter=2",
        SOUND,
        "sysctl -qw net.ipv4.conf.all.rp_filter=0",
    ),
    Fault(
        "an interface with an odd name",
        "node2",
        "ip link set eth1 down; ip link set eth1 name 'a#b'; ip link set 'a#b' up",
        SOUND,
        "ip link set 'a#b' down; ip link set 'a#b' name eth1; ip link set eth1 up",
        backends=TUNNELLED,
    ),
    Fault(
        "a second address of the pod",
        "node1",
        "ip -n web addr add 10.244.0.99/24 dev eth0",
        SOUND,
        "ip -n web addr del 10.244.0.99/24 dev eth0",
    ),
]


@pytest.mark.parametrize("odd", [pytest.param(odd, id=odd.name) for odd in quickly(ODD_BUT_SOUND)])
def test_an_odd_path_that_works_is_told_as_sound(standing: tuple[str, dict[str, Host]], odd: Fault) -> None:
    backend, hosts = standing
    if backend not in odd.backends:
        pytest.skip(f"nothing for {backend}")
    hosts[odd.node].sh(odd.breaks)
    try:
        told = problems(walks(hosts, backend, "web@node1", "db@node2"))
        hosts["node1"].run("ip netns exec web ping -c 1 -w 5 10.244.1.3")
    finally:
        hosts[odd.node].sh(odd.mends)
    assert told == []


@pytest.fixture(scope="module", params=BACKENDS)
def standing(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, Host]]]:
    """A fleet that stands while one fault after another is done to it and mended."""
    with overlay(request.param, firewall={}) as made:
        yield request.param, made


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in [*FAULTS, *quickly(MORE_FAULTS)]])
def test_a_broken_path_is_told_where_it_breaks(standing: tuple[str, dict[str, Host]], fault: Fault) -> None:
    backend, hosts = standing
    if backend not in fault.backends:
        pytest.skip(f"nothing that {backend} has")
    tunnel = TUNNELS[backend] or ""
    words = {"tunnel": tunnel, "device": tunnel or "eth1", "arrival": tunnel or "eth1"}
    words["guard"] = "eth1" if backend == "vxlan" else tunnel  # of IPIP it tells only who sent it, when it is unpacked
    hosts[fault.node].sh("".join(f"{key}={value}; " for key, value in words.items()) + fault.breaks)
    try:
        size = fault.options.get("size", 84) - 28
        pinged = hosts["node1"].run(
            f"ip netns exec web ping -c 1 -W {PATIENCE[backend]} -M do -s {size} 10.244.1.3", check=False
        )
        assert fault.passes in (None, pinged.returncode == 0), pinged.stdout
        told = problems(walks(hosts, backend, "web@node1", "db@node2", **fault.options))
        assert tuple(part.format(**words) for part in fault.told) in told
        assert [leg for leg, *_ in told if leg == "request"] == [fault.told[0]] * (fault.told[0] == "request")
    finally:
        hosts[fault.node].sh(fault.mends or "true")
        hosts[fault.node].module(
            "topology", name="overlay", document=document(fault.node, backend, firewall={}), peers=TABLE
        )
    # A neighbour that could not be found is unreachable until the kernel has asked once more.
    hosts["node1"].sh("for _ in $(seq 10); do ip netns exec web ping -c 1 -W 1 10.244.1.3 && exit; done; exit 1")


def test_a_mark_that_one_rule_sets_and_another_drops_is_followed(standing: tuple[str, dict[str, Host]]) -> None:
    backend, hosts = standing
    chains = "; ".join(
        f"nft 'add chain inet foreign {hook} {{ type filter hook {hook} priority 0; }}'"
        for hook in ("prerouting", "forward")
    )
    rules = (
        "nft add rule inet foreign prerouting iifname cni0 mark set 7; nft add rule inet foreign forward mark 7 drop"
    )
    hosts["node1"].sh(f"nft add table inet foreign; {chains}; {rules}")
    try:
        told = problems(walks(hosts, backend, "web@node1", "db@node2"))
    finally:
        hosts["node1"].sh("nft delete table inet foreign")
    assert told == [("request", "node1", "cni0", "filtered")]


def test_a_reply_passes_a_stateful_firewall_and_a_request_does_not(standing: tuple[str, dict[str, Host]]) -> None:
    backend, hosts = standing
    rules = "nft add rule inet foreign c ct state established accept; nft add rule inet foreign c iifname cni0 accept"
    hosts["node1"].sh(f"{FOREIGN.format('forward', 'counter')}; {rules}; nft add rule inet foreign c drop")
    try:
        there = problems(walks(hosts, backend, "web@node1", "db@node2"))
        back = problems(walks(hosts, backend, "db@node2", "web@node1"))
    finally:
        hosts["node1"].sh("nft delete table inet foreign")
    assert there == []
    assert [(leg, node, fault) for leg, node, _interface, fault in back] == [("request", "node1", "filtered")]


def test_pods_of_one_node_go_by_the_bridge(standing: tuple[str, dict[str, Host]]) -> None:
    backend, hosts = standing
    hosts["node1"].run("ip netns exec web ping -c 1 -w 5 10.244.0.3")
    legs = walks(hosts, backend, "web@node1", "db@node1")
    assert problems(legs) == []
    assert seen(legs["request"]) == [
        ("web", "eth0", 98, 64),
        ("node1", "veth-web", 98, 64),
        ("node1", "veth-db", 98, 64),
        ("db", "eth0", 98, 64),
    ]
    assert legs["request"][1]["forwarding_entry"]["port"] == "veth-db"


def test_what_bridged_packets_meet_of_iptables_depends_on_br_netfilter(standing: tuple[str, dict[str, Host]]) -> None:
    backend, hosts = standing
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if not hosts["node1"].sh(f"test -e {switch} && echo yes || true"):
        pytest.skip("br_netfilter is not loaded")
    hosts["node1"].sh(FOREIGN.format("forward", "ip daddr 10.244.0.3 drop"))
    before = hosts["node1"].sh(f"cat {switch}").strip()
    try:
        for value, told in (("1", [("request", "node1", "veth-web", "filtered")]), ("0", [])):
            hosts["node1"].sh(f"echo {value} >{switch}")
            answered = hosts["node1"].run("ip netns exec web ping -c 1 -W 1 10.244.0.3", check=False).returncode == 0
            assert problems(walks(hosts, backend, "web@node1", "db@node1")) == told
            assert answered == (told == [])
    finally:
        hosts["node1"].sh(f"echo {before} >{switch}; nft delete table inet foreign")


def test_a_pod_that_is_not_there_or_has_another_address_is_told(standing: tuple[str, dict[str, Host]]) -> None:
    _backend, hosts = standing
    outer = {"src": "198.51.100.12", "dst": "198.51.100.99", "protocol": "ipip"}
    packets = [
        {"name": "nowhere", "namespace": "ghost", "src": "10.244.0.9", "dst": "10.244.0.3"},
        {"name": "foreign", "namespace": "web", "src": "10.244.0.77", "dst": "10.244.0.3"},
        {"name": "elsewhere", "arrives": True, "src": "10.244.1.2", "dst": "10.244.0.2", "outer": outer},
        {"name": "nobody", "namespace": "web", "src": "10.244.0.2", "dst": "10.244.0.77"},
    ]
    answer = hosts["node1"].module("walk", packets=packets)["walks"]
    faults = {
        name: [problem["fault"] for hop in way["hops"] for problem in hop["problems"]] for name, way in answer.items()
    }
    assert faults == {
        "nowhere": ["no_namespace"],
        "foreign": ["no_address"],
        "elsewhere": ["foreign_outer"],
        "nobody": ["no_neighbour"],
    }


def test_all_mistakes_of_a_packet_are_told_at_once(host: Host) -> None:
    outer = {"src": "x", "dst": "10.0.0.3", "protocol": "vxlan", "port": 0, "vni": 1 << 24}
    packets = [
        {"name": "one", "src": "10.244.0.2.9", "dst": "10.0.0.300", "size": 20, "ttl": 0, "mark": -1},
        {
            "name": "two",
            "src": "10.0.0.1",
            "dst": "10.0.0.2",
            "outer": outer,
            "overlay": {"subnet": "abc", "via": "1.2.3"},
        },
        {"name": "two", "src": "10.0.0.1", "dst": "10.0.0.2"},
    ]
    assert len(host.module("walk", fails=True, packets=packets)["mistakes"]) == 11


def test_a_walk_changes_nothing(standing: tuple[str, dict[str, Host]]) -> None:
    backend, hosts = standing
    before = {name: everything(host) for name, host in hosts.items()}
    walks(hosts, backend, "web@node1", "db@node2")
    assert {name: everything(host) for name, host in hosts.items()} == before
