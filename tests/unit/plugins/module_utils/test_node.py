# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""node_info's judgement, fed with what iproute2 6.1 printed on a node with a bridge, a tunnel and foreign routes."""

from __future__ import annotations

import copy
import socket
from pathlib import Path

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _model, _nft, _node, _package, _rollback, _state

LINKS, DEFAULT, ROUTES = _node.decode((Path(__file__).parent / "data" / "ip.json").read_text(encoding="utf-8"))


def fact(name: str) -> dict:
    return next(link for link in _node.link_facts(LINKS) if link["name"] == name)


def test_a_link_is_described_with_its_owner_and_addresses() -> None:
    assert fact("cni0") == {
        "name": "cni0",
        "kind": "bridge",
        "owner": "overlay",
        "alias": "podnet.overlay:overlay",
        "mtu": 1450,
        "local": "",
        "addresses": ["10.244.0.1/24"],
    }
    assert (fact("flannel.1")["kind"], fact("flannel.1")["local"]) == ("vxlan", "198.51.100.11")
    assert (fact("lo")["kind"], fact("lo")["owner"]) == ("", "")


def test_link_scope_and_ipv6_are_no_addresses_of_a_node() -> None:
    assert fact("eth0")["addresses"] == ["10.0.2.15/24"]


def test_an_address_with_a_peer_is_the_local_one() -> None:
    assert fact("eth1")["addresses"] == ["198.51.100.11/24", "192.0.2.1/32"]


def test_the_default_route_of_the_least_metric_counts() -> None:
    assert _node.default_route(DEFAULT, LINKS) == {"interface": "eth0", "source": "10.0.2.15"}
    assert _node.default_route(list(reversed(DEFAULT)), LINKS) == {"interface": "eth0", "source": "10.0.2.15"}


def test_the_source_is_the_routes_own_then_the_gateways_neighbour_then_the_first() -> None:
    second = DEFAULT[1]
    assert _node.default_route([{**second, "prefsrc": "192.0.2.1"}], LINKS) == {
        "interface": "eth1",
        "source": "192.0.2.1",
    }
    swapped = copy.deepcopy(LINKS)
    next(link for link in swapped if link["ifname"] == "eth1")["addr_info"].reverse()
    assert _node.default_route([second], swapped) == {"interface": "eth1", "source": "198.51.100.11"}
    assert _node.default_route([{"dst": "default", "dev": "eth1"}], LINKS) == {
        "interface": "eth1",
        "source": "198.51.100.11",
    }


def test_no_default_route_is_none() -> None:
    assert _node.default_route([], LINKS) is None
    assert _node.default_route([{"type": "unreachable", "dst": "default"}], LINKS) is None
    assert _node.default_route([{"dst": "default", "dev": "cni9"}], LINKS) is None


def test_our_own_routes_do_not_travel() -> None:
    assert [(r["dst"], r["protocol"]) for r in _node.foreign_routes(ROUTES)] == [
        ("10.244.0.0/24", "kernel"),
        ("10.244.7.7/32", "bird"),
        ("10.244.8.0/24", "boot"),
        ("10.244.9.0/24", "boot"),
    ]
    assert _node.foreign_routes([{**ROUTES[0], "protocol": "podnet"}]) == []


def test_a_node_without_state_file_is_read_from_its_links() -> None:
    links = _node.link_facts(LINKS)
    assert _node.carried_by_links(links, "overlay", "10.244.0.0/16", "cni0", None) == {
        "network": "10.244.0.0/16",
        "subnet": "10.244.0.0/24",
        "public_ip": "198.51.100.11",
        "backend": "vxlan",
        "pods": {},
    }
    assert _node.carried_by_links(links, "another", "10.244.0.0/16", "cni0", None) is None
    other = _node.carried_by_links(links, "overlay", "10.99.0.0/16", "cni0", "flannel.ipip")
    assert other is not None
    assert (other["network"], other["backend"], other["public_ip"]) == (None, "host-gw", None)


def test_a_saved_document_says_what_is_carried() -> None:
    peers = {
        "backend": "ipip",
        "subnet": "10.244.0.0/24",
        "public_ip": "198.51.100.11",
        "network": "10.244.0.0/16",
        "table": {},
    }
    links = [
        {"name": "cni0", "kind": "bridge", "addresses": ["10.244.0.1/24"]},
        {"name": "v1", "kind": "veth", "peer": {"name": "eth0", "namespace": "web", "addresses": ["10.244.0.2/24"]}},
        {
            "name": "v2",
            "kind": "veth",
            "peer": {"name": "eth0", "namespace": "db", "addresses": [{"address": "10.244.0.3"}]},
        },
    ]
    carried = {
        "network": "10.244.0.0/16",
        "subnet": "10.244.0.0/24",
        "public_ip": "198.51.100.11",
        "backend": "ipip",
        "pods": {"web": "10.244.0.2", "db": "10.244.0.3"},
    }
    by_ipip = {"backend": "ipip", "tunnel": None, "direct_routing": False, "vni": None, "port": None}
    assert _node.carried_by_document({"peers": peers, "links": links}) == {
        **carried,
        "sends": by_ipip,
        "also": None,
        "loosened": [],
    }
    links += [{"name": f"flannel.{vni}", "kind": "vxlan", "vxlan": {"id": vni, "port": 8472}} for vni in (1, 2)]
    peers.update(backend="vxlan", dev="flannel.2", direct_routing=True)
    by_vxlan = {"backend": "vxlan", "tunnel": "flannel.2", "direct_routing": True, "vni": 2, "port": 8472}
    sysctls = [{"name": name, "value": "2"} for name in ("net.ipv4.ip_forward", "net.ipv4.conf.flannel/2.rp_filter")]
    firewall = {"also": {"backend": "ipip", "local": "198.51.100.11", "tunnel": "flannel.ipip", "direct_routing": True}}
    document = {"peers": peers, "links": links, "sysctls": sysctls, "firewall": firewall}
    assert _node.carried_by_document(document) == {
        **carried,
        "backend": "vxlan",
        "sends": by_vxlan,
        "also": {**by_ipip, "tunnel": "flannel.ipip", "direct_routing": True},
        "loosened": ["flannel.2"],
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"all": "0", "default": "0", "eth1": "1"}, ["eth1"]),
        ({"all": "1", "default": "0", "eth1": "2"}, ["default"]),
        ({"all": "2", "default": "1", "eth1": "1"}, []),
        ({"all": "", "default": "", "eth1": ""}, []),
    ],
)
def test_the_higher_value_of_rp_filter_counts(values: dict[str, str], expected: list[str]) -> None:
    assert _node.strict(values) == expected


def test_a_host_without_a_document_carries_nothing() -> None:
    assert _node.carried_by_document({}) is None


@pytest.mark.parametrize(
    ("text", "behind_stub", "expected"),
    [
        (
            "nameserver 198.51.100.53\nsearch example.com lan\n",
            "nameserver 9.9.9.9",
            "nameserver 198.51.100.53\nsearch example.com lan\n",
        ),
        (
            "nameserver 127.0.0.53\noptions edns0\nsearch .\n",
            "nameserver 10.0.0.2\nsearch lan\n",
            "nameserver 10.0.0.2\nsearch lan\n",
        ),
        ("nameserver ::1\nnameserver fe80::1%eth0\n", "", ""),
        ("domain lan\nnameserver 127.0.0.1\n", "", "search lan\n"),
        ("# nameserver 1.2.3.4\n", "", ""),
        ("", "", ""),
    ],
)
def test_pods_get_nameservers_that_they_can_reach(text: str, behind_stub: str, expected: str) -> None:
    assert _node.resolv_conf(text, behind_stub) == expected


@pytest.mark.parametrize(
    ("os_release", "family"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "Debian"),
        ("NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\n", "Debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "RedHat"),
        ("ID=fedora\n", "RedHat"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "Suse"),
        ("ID=arch\n", "Archlinux"),
        ("ID=alpine\n", ""),
        ("", ""),
    ],
)
def test_the_family_is_ansibles_word(os_release: str, family: str) -> None:
    assert _node.os_family(os_release) == family


def test_a_module_is_built_in_loaded_available_or_absent() -> None:
    builtin = "kernel/net/core/skb.ko\nkernel/drivers/net/veth.ko\n"
    available = "kernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/tunnel4.ko.xz\nkernel/net/bridge/bridge.ko: \n"
    states = _node.module_states(("ipip", "bridge", "veth", "vxlan", "ip"), ["bridge"], builtin, available)
    assert states == {"ipip": "available", "bridge": "loaded", "veth": "builtin", "vxlan": "absent", "ip": "absent"}
    assert [_node.usable(state) for state in ("available", "builtin", "absent", "unknown")] == [True, True, False, None]


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (
            "insmod /lib/modules/6.1.0/kernel/net/ipv4/tunnel4.ko \ninsmod /lib/modules/6.1.0/kernel/net/ipv4/ipip.ko \n",
            "",
        ),
        ("install /bin/false \n", "install /bin/false"),
        ("install true\n", "install true"),
        ("insmod /lib/modules/6.1.0/a.ko\ninstall /usr/bin/false\n", "install /usr/bin/false"),
        ("install /sbin/modprobe --ignore-install ipip && /bin/true\n", ""),
        ("install /opt/true-loader ipip\n", ""),
        ("", ""),
    ],
)
def test_a_module_that_modprobe_d_has_replaced_by_nothing_is_never_loaded(shown: str, line: str) -> None:
    assert _node.never_loaded(shown) == line


def test_no_process_asks_after_modules_that_need_no_loading() -> None:
    assert _node._unloadable(pytest.fail, {"bridge": "builtin", "veth": "loaded", "ipip": "absent"}) == {}


def missing(**changes: object) -> list[str]:
    ready = {
        "kernel": {"bridge": "loaded", "ipip": "loaded"},
        "extra_kernel_package": False,
        "pyroute2": "0.7.2",
        "nft": "1.0.6",
        "boot": "bridge\nipip\n",
        "protocol_file": True,
        "engine": True,
    }
    return _node.missing(**{**ready, **changes})  # type: ignore[arg-type]


def test_a_ready_host_lacks_nothing() -> None:
    assert missing() == []
    assert missing(kernel={"bridge": "builtin", "ipip": "unknown"}, boot="") == []


def test_each_thing_that_is_lacking_is_named() -> None:
    assert missing(engine=False) == ["file:engine"]
    assert missing(pyroute2=None, nft=None, protocol_file=False) == ["pyroute2", "nftables", "file:rt_protos"]
    assert missing(pyroute2="0.6.9") == ["pyroute2"]
    assert missing(pyroute2="unknown") == []
    assert missing(kernel={"bridge": "loaded", "ipip": "available"}) == ["module:ipip"]
    assert missing(boot="# loaded: ipip\nbridge\n") == ["boot:bridge", "boot:ipip"]
    assert missing(boot="bridge\n") == ["boot:bridge", "boot:ipip"]
    assert missing(kernel={"ipip": "absent"}) == []
    assert missing(kernel={"ipip": "absent"}, extra_kernel_package=True) == ["kernel:ipip"]


def test_the_words_are_the_engines() -> None:
    """They are not imported, since the first task on a host is to be quick."""
    assert _node.OWNER == _model.ALIAS_PREFIX
    assert _node.OWN_PROTOCOLS[0] == str(_model.OVERLAY_PROTOCOL)
    assert _model.ROUTE_PROTOCOLS[_node.OWN_PROTOCOLS[1]] == _model.OVERLAY_PROTOCOL
    assert _node.OWN_TABLE == _nft.TABLE
    assert (_node.DOCUMENT_FOLDER, _node.STATE_FOLDER) == (_state.DOCUMENT_FOLDER, _state.STATE_FOLDER)
    assert _node.STATE_VERSIONS == _state.KNOWN_VERSIONS
    assert (_node.ENGINE_DIGEST, _node.UNIT_FOLDER) == (_package.DIGEST, _package.UNITS)
    assert _node.COMMAND == _rollback.COMMAND
    assert (_node.BOOT_UNIT, _node.WATCH_UNIT) == (_package.BOOT, _package.WATCHER)


@pytest.mark.parametrize("text", ['{"version": 1, "docu', '{"version": 3, "document": {}}', "[]", ""])
def test_a_saved_state_that_cannot_be_read_is_fatal(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_node, "STATE_FOLDER", str(tmp_path))
    monkeypatch.setattr(_node, "DOCUMENT_FOLDER", str(tmp_path / "etc"))
    assert _node._saved_state("overlay") == (None, "")
    (tmp_path / "overlay.json").write_text(text)
    carried, damage = _node._saved_state("overlay")
    assert carried is None
    assert damage.startswith(f"the saved state {tmp_path}/overlay.json is ")
    (told,) = _node.obstacles(
        [], legacy="", rp_filter="0", capable=True, refusal="", elsewhere=None, damage=damage, unloadable={}
    )
    assert (told["fatal"], told["remedy"].split(",")[0]) == (True, "restore it")


def test_what_the_role_loaded_is_read_back() -> None:
    assert _node.loaded_by_role("# Written by podnet.overlay.\n# loaded: ipip veth\nbridge\nipip\n") == ["ipip", "veth"]
    assert _node.loaded_by_role("bridge\n") == []


def obstacles(**changes: object) -> list[str]:
    none = {
        "chains": [],
        "legacy": "",
        "rp_filter": "0",
        "capable": True,
        "refusal": "",
        "elsewhere": None,
        "damage": "",
        "unloadable": {},
    }
    return [item["what"] for item in _node.obstacles(**{**none, **changes})]  # type: ignore[arg-type]


def test_a_forward_policy_of_drop_is_an_obstacle_unless_it_is_our_own() -> None:
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    assert obstacles(chains=[chain]) == ["nft chain ip filter FORWARD has policy drop"]
    assert (
        obstacles(
            chains=[{**chain, "table": "podnet_overlay"}, {**chain, "hook": "input"}, {**chain, "policy": "accept"}]
        )
        == []
    )
    assert obstacles(legacy="-P FORWARD DROP\n") == ["iptables-legacy has policy DROP for FORWARD"]


@pytest.mark.parametrize(
    ("table", "others"), [("filter", ["DOCKER-USER"]), ("filter", ["ufw-before-forward"]), ("firewalld", [])]
)
def test_what_the_overlay_answers_at_its_owner_is_no_obstacle(table: str, others: list[str]) -> None:
    forward = {"family": "inet", "table": table, "name": "FORWARD", "hook": "forward", "policy": "drop"}
    chains = [forward, *({"family": "inet", "table": table, "name": name} for name in others)]
    assert obstacles(chains=chains) == []
    elsewhere = [{**chain, "table": "mine"} if chain is forward else chain for chain in chains]
    assert obstacles(chains=elsewhere) == ["nft chain inet mine FORWARD has policy drop"]


def test_docker_in_iptables_legacy_is_answered_too() -> None:
    assert obstacles(legacy="-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n") == []
    assert obstacles(legacy="-P FORWARD DROP\n-A FORWARD -m conntrack -j KUBE-FORWARD\n") == [
        "iptables-legacy, by what looks like kube-proxy, has policy DROP for FORWARD"
    ]


@pytest.mark.parametrize(
    ("table", "name", "program"),
    [
        ("filter", "KUBE-FORWARD", "kube-proxy"),
        ("filter", "LIBVIRT_FWX", "libvirt"),
        ("libvirt_network", "guest_input", "libvirt"),
        ("filter", "cali-FORWARD", "Calico"),
    ],
)
def test_an_obstacle_says_whose_it_looks_like(table: str, name: str, program: str) -> None:
    forward = {"family": "ip", "table": table, "name": "FORWARD", "hook": "forward", "policy": "drop"}
    assert obstacles(chains=[forward, {"family": "ip", "table": table, "name": name}]) == [
        f"nft chain ip {table} FORWARD, which looks like that of {program}, has policy drop"
    ]


def test_an_nft_without_json_is_fatal() -> None:
    for output in (("", "Error: JSON support not compiled-in\n"), ("no JSON", "")):

        def run(argv: list[str], output: tuple[str, str] = output) -> tuple[int, str, str]:
            if argv[1:] == ["--version"]:
                return 0, "nftables v1.0.6 (Lester Gooch #5)\n", ""
            return bool(output[1]), *output

        version, chains, refusal = _node._nft(run)
        assert (version, chains) == ("1.0.6", [])
        assert refusal in ("Error: JSON support not compiled-in", "no JSON")
        assert obstacles(refusal=refusal) == [f"nft cannot tell its chains in JSON ({refusal})"]
        assert obstacles(refusal=refusal, capable=False) == ["root here lacks CAP_NET_ADMIN"]


def test_listening_sockets_are_read_from_proc() -> None:
    """Lines of Linux 6.1 on a little-endian machine."""
    tail = "00000000:00000000 00:00000000 00000000     0        0 635 1 0000000034f092c4 100 0 0 10 0\n"
    lines = {
        "tcp": [
            f"   0: 00000000:0016 00000000:0000 0A {tail}",
            f"   1: 0100007F:1F90 00000000:0000 0A {tail}",
            f"   2: 00000000:0016 00000000:0000 0A {tail}",
        ],
        "tcp6": [
            f"   0: {'0' * 32}:0050 {'0' * 32}:0000 0A {tail}",
            f"   1: {'0' * 24}01000000:0051 {'0' * 32}:0000 0A {tail}",
            f"   2: {'0' * 16}FFFF00000100007F:0052 {'0' * 32}:0000 0A {tail}",
        ],
        "udp": [f"  10: 0B6433C6:0035 00000000:0000 07 {tail}"],
        "sctp": [" 00000000 00000000 2   10  5    3868      0 98765 192.0.2.1 fe80::1\n"],
    }
    if _node.sys.byteorder == "big":
        pytest.skip("the lines are of a little-endian machine")
    assert [(item["protocol"], item["address"], item["port"]) for item in _node.listening(lines)] == [
        ("sctp", "192.0.2.1", 3868),
        ("tcp", "0.0.0.0", 22),
        ("tcp", "127.0.0.1", 82),
        ("tcp", "127.0.0.1", 8080),
        ("tcp", "::", 80),
        ("udp", "198.51.100.11", 53),
    ]


def test_the_listening_sockets_of_this_host_are_found_and_its_connections_are_not() -> None:
    with socket.socket() as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        server.bind(("127.0.0.1", 0))
        server.listen()
        datagrams.bind(("127.0.0.1", 0))
        with socket.create_connection(server.getsockname()) as client, socket.socket(type=socket.SOCK_DGRAM) as asking:
            asking.connect(datagrams.getsockname())
            found = {(item["protocol"], item["port"]) for item in _node.listening(_node._listeners())}
            assert {("tcp", server.getsockname()[1]), ("udp", datagrams.getsockname()[1])} <= found
            assert ("tcp", client.getsockname()[1]) not in found
            assert ("udp", asking.getsockname()[1]) not in found


def test_other_obstacles_are_told_with_a_remedy() -> None:
    assert obstacles() == []
    assert len(obstacles(rp_filter="1", capable=False, elsewhere="0.7.2", damage="x.json is torn")) == 4
    assert obstacles(unloadable={"ipip": "why"}) == ["the kernel module ipip cannot be loaded: why"]
