"""underlay_probe against the kernel: hosts with a router between them that filters, translates, or has a small MTU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._preflight import Finding, Prober
from ansible_collections.podnet.overlay.plugins.module_utils._preflight_paths import Paths

from tests.kernel.hosts import Host, started

LEFT, RIGHT = "198.51.100.2", "203.0.113.2"
RUN = "0123456789abcdef"
HOOK = "nft add table ip t; nft 'add chain ip t c {{ type filter hook {0} priority 0; }}'; nft 'add rule ip t c {1}'"
NAMES = {"ipip": "ip protocol 4", "udp": "udp dport 8472"}


@dataclass
class Path:
    """Two hosts, and a router between them."""

    left: Host
    router: Host
    right: Host
    protocol: str
    size: int = 1500

    def module(self, host: Host, state: str, **options: Any) -> dict[str, Any]:
        own = {self.left.pid: LEFT, self.right.pid: RIGHT}[host.pid]
        sizes = {LEFT: self.size, RIGHT: self.size}
        given = {"protocol": self.protocol, "run": RUN, "address": own, "sizes": sizes, "wait": 0.5}
        answer = host.module("underlay_probe", state=state, **{**given, **options})
        assert not answer["changed"]
        return answer

    def probe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """From left to right: what the sender knows, and what the receiver heard."""
        self.module(self.right, "started")
        (sent,) = self.module(self.left, "sent")["paths"]
        heard = self.module(self.right, "stopped")
        assert heard["listened"]
        assert sent["to"] == [RIGHT]
        return sent, heard

    def partial(self) -> tuple[dict[str, Any], dict[str, Any]]:
        sent, heard = self.probe()
        assert heard["whole"] == 0
        (group,) = heard["partial"]
        assert group["from"] == [LEFT]
        return sent, group


def filtered(host: Host, hook: str, rule: str) -> None:
    host.sh(HOOK.format(hook, rule))


@pytest.fixture(params=["ipip", "udp"])
def path(request: pytest.FixtureRequest) -> Iterator[Path]:
    with ExitStack() as stack:
        left, router, right = (stack.enter_context(contextmanager(started)()) for _ in range(3))
        for host, name, net in ((left, "left", "198.51.100"), (right, "right", "203.0.113")):
            router.sh(
                f"ip link add {name} type veth peer name eth1 netns {host.pid};"
                f"ip addr add {net}.1/24 dev {name}; ip link set {name} up"
            )
            host.sh(f"ip addr add {net}.2/24 dev eth1; ip link set eth1 up; ip route add default via {net}.1")
        router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
        left.run(f"ping -c 1 -w 5 {RIGHT}")
        yield Path(left, router, right, request.param)


def test_what_comes_whole_is_counted_and_not_listed(path: Path) -> None:
    sent, heard = path.probe()
    assert sent == {"to": [RIGHT], "error": sent["error"], "mtu": 0, "echo": 1500, "rule": ""}
    assert (heard["whole"], heard["partial"]) == (1, [])


def test_it_changes_nothing_and_leaves_nothing(path: Path) -> None:
    look = (
        "ip -4 addr | grep inet; ip -4 route show table all; nft list ruleset; ls -R /run /etc /var/lib | sort;"
        "ss -anp -f unix,inet,packet | wc -l"
    )
    before = [host.sh(look) for host in (path.left, path.right)]
    path.probe()
    assert before == [host.sh(look) for host in (path.left, path.right)]


def test_a_protocol_filtered_on_the_way_is_told_from_a_host_that_is_down(path: Path) -> None:
    filtered(path.router, "forward", f"{NAMES[path.protocol]} drop")
    sent, heard = path.partial()
    assert (heard["seen"], heard["delivered"], heard["fault"]) == (0, 0, "")
    assert (sent["error"], sent["echo"]) == ("", 1500)

    path.right.run("ip link set eth1 down")
    sent, heard = path.partial()
    assert (heard["seen"], sent["echo"]) == (0, 0)


def test_only_the_direction_that_is_filtered_is_told(path: Path) -> None:
    filtered(path.router, "forward", f"iifname right {NAMES[path.protocol]} drop")
    assert path.probe()[1]["whole"] == 1
    path.module(path.left, "started")
    path.module(path.right, "sent")
    assert path.module(path.left, "stopped")["partial"][0]["seen"] == 0


def test_a_refusal_on_the_way_is_told_with_its_sender(path: Path) -> None:
    filtered(path.router, "forward", f"{NAMES[path.protocol]} reject with icmp admin-prohibited")
    sent, heard = path.partial()
    assert sent["error"] == "administratively prohibited, says 198.51.100.1"
    assert heard["seen"] == 0


def test_the_receivers_own_rule_is_named(path: Path) -> None:
    filtered(path.right, "input", f"{NAMES[path.protocol]} counter drop")
    _sent, heard = path.partial()
    assert (heard["delivered"], heard["seen"], heard["interface"]) == (0, 1500, "eth1")
    assert heard["fault"] == "rule"
    assert heard["text"].startswith("table ip t chain c: ")
    assert heard["text"].endswith("drop")


def test_a_policy_of_drop_at_the_receiver_is_named(path: Path) -> None:
    path.right.sh("nft add table ip t; nft 'add chain ip t c { type filter hook input priority 0; policy drop; }'")
    path.right.sh("nft add rule ip t c ip protocol icmp accept")
    _sent, heard = path.partial()
    assert (heard["fault"], heard["text"]) == ("rule", "table ip t chain c: policy drop")


def test_the_senders_own_rule_is_named(path: Path) -> None:
    filtered(path.left, "output", f"{NAMES[path.protocol]} drop")
    sent, heard = path.partial()
    assert sent["error"] == "sending is forbidden by a local firewall rule"
    assert sent["rule"].startswith("table ip t chain c: ")
    assert (sent["echo"], heard["seen"]) == (1500, 0)


def test_a_smaller_mtu_on_the_way_is_found(path: Path) -> None:
    path.router.run("ip link set right mtu 1430")
    path.right.run("ip link set eth1 mtu 1430")
    sent, heard = path.partial()
    assert (heard["delivered"], heard["seen"]) == (1420, 1420)
    assert sent["mtu"] == 1430


def test_with_the_mtu_that_is_proposed_all_that_the_overlay_sends_passes(path: Path) -> None:
    path.router.run("ip link set left mtu 1430")
    path.left.run("ip link set eth1 mtu 1430")

    def judged() -> list[Finding]:
        ends = {"left": path.left, "right": path.right}
        outcomes: dict[str, dict[str, Any]] = {name: {} for name in ends}
        for state in ("started", "sent", "stopped"):
            for name, host in ends.items():
                outcomes[name][state] = path.module(host, state)
        hosts = {"left": Prober(LEFT, path.size), "right": Prober(RIGHT, path.size)}
        return list(Paths(hosts, outcomes, {"ipip": "ipip", "udp": "vxlan"}[path.protocol], 8472).findings("overlay"))

    (finding,) = judged()
    overhead = {"ipip": 20, "udp": 50}[path.protocol]
    assert finding.blocker == "of packets without fragmentation at most 1430 of 1500 bytes get between left and right"
    assert finding.remedy.startswith(f"overlay_mtu: {1430 - overhead} for the group")
    path.size = 1430
    assert judged() == []


def test_a_smaller_mtu_on_the_way_is_found_where_nobody_tells_it(path: Path) -> None:
    path.router.sh("ip link set right mtu 1430; nft add table ip t")
    path.router.sh(
        "nft 'add chain ip t o { type filter hook output priority 0; }'; nft add rule ip t o ip protocol icmp drop"
    )
    path.right.run("ip link set eth1 mtu 1430")
    sent, heard = path.partial()
    assert (heard["delivered"], sent["mtu"]) == (1420, 0)


def test_a_packet_that_the_own_interface_does_not_take_is_a_small_mtu_too(path: Path) -> None:
    path.left.run("ip link set eth1 mtu 1400")
    sent, heard = path.partial()
    assert (sent["mtu"], sent["error"], heard["delivered"]) == (1400, sent["error"], 1400)


def test_strict_reverse_path_filtering_is_told_where_the_way_back_is_another(path: Path) -> None:
    path.right.sh(
        "ip link add other type veth peer name unused; ip addr add 192.168.7.1/24 dev other; ip link set other up;"
        f"ip link set unused up; ip route add {LEFT}/32 via 192.168.7.2; echo 1 > /proc/sys/net/ipv4/conf/eth1/rp_filter"
    )
    _sent, heard = path.partial()
    assert heard["fault"] == "rp_filter"
    assert heard["text"] == "it comes by eth1, and its way back is by other"


def test_addresses_translated_on_the_way_are_told(path: Path) -> None:
    path.router.sh("nft add table ip t; nft 'add chain ip t p { type nat hook postrouting priority 100; }'")
    path.router.sh("nft add rule ip t p oifname right masquerade")
    _sent, heard = path.partial()
    assert (heard["delivered"], heard["source"]) == (1500, "203.0.113.1")


@pytest.mark.parametrize("path", ["udp"], indirect=True)
def test_a_live_vxlan_device_takes_nothing_of_it_in_and_its_host_answers_nothing(path: Path) -> None:
    # A device of another's that takes every network identifier, behind a host that forwards all that it gets.
    path.right.sh(
        "ip link add vx type vxlan external dstport 8472; ip addr add 10.77.0.1/24 dev vx; ip link set vx up;"
        "echo 1 > /proc/sys/net/ipv4/ip_forward; nft add table ip t;"
        "nft 'add chain ip t p { type filter hook prerouting priority -300; }'; nft add rule ip t p iifname vx counter;"
        "nft 'add chain ip t o { type filter hook postrouting priority 0; }';"
        "nft add rule ip t o ip daddr 192.0.2.0/24 counter"
    )
    _sent, heard = path.probe()
    assert heard["whole"] == 1
    assert counters(path.right)[-1] == 0


@pytest.mark.ipip
@pytest.mark.parametrize("path", ["ipip"], indirect=True)
def test_a_live_ipip_device_forwards_and_answers_nothing_of_it(path: Path) -> None:
    path.right.sh(
        f"ip link add tun type ipip local {RIGHT} remote any; ip link set tun up; echo 1 > /proc/sys/net/ipv4/ip_forward;"
        "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/tun/rp_filter; nft add table ip t;"
        "nft 'add chain ip t p { type filter hook prerouting priority -300; }'; nft add rule ip t p iifname tun counter;"
        "nft 'add chain ip t o { type filter hook postrouting priority 0; }';"
        "nft add rule ip t o ip daddr 192.0.2.0/24 counter"
    )
    _sent, heard = path.probe()
    assert heard["whole"] == 1
    unpacked, left = counters(path.right)
    assert unpacked > 0
    assert left == 0


def counters(host: Host) -> list[int]:
    """The packets that each rule of the host has counted."""
    found = []
    for item in host.json("nft -j list ruleset")["nftables"]:
        found += [part["counter"]["packets"] for part in item.get("rule", {}).get("expr", []) if "counter" in part]
    return found


def test_two_runs_at_once_do_not_hear_each_other(path: Path) -> None:
    path.module(path.right, "started")
    path.module(path.right, "started", run="fedcba9876543210")
    path.module(path.left, "sent")
    assert path.module(path.right, "stopped")["whole"] == 1
    assert path.module(path.right, "stopped", run="fedcba9876543210")["partial"][0]["seen"] == 0


def test_who_did_not_listen_says_so(path: Path) -> None:
    assert path.module(path.right, "stopped") == {
        **path.module(path.right, "stopped"),
        "listened": False,
        "whole": 0,
        "partial": [],
    }


def test_without_a_protocol_echo_requests_find_the_mtu(path: Path) -> None:
    path.protocol = "none"
    path.router.run("ip link set right mtu 1430")
    path.right.run("ip link set eth1 mtu 1430")
    path.module(path.right, "started")
    (sent,) = path.module(path.left, "sent")["paths"]
    assert sent["echo"] == 1420
    assert sent["error"] == "packet of 1500 bytes exceeds path MTU 1430, says 198.51.100.1"
    assert not path.module(path.right, "stopped")["listened"]


def test_what_is_forwarded_is_judged_by_the_hosts_rules(path: Path) -> None:
    host = path.left

    def forward() -> list[dict[str, Any]]:
        answer = path.module(host, "started", network="10.244.0.0/16", tunnel="flannel.1", interface="eth1")
        path.module(host, "stopped")
        found: list[dict[str, Any]] = answer["surroundings"]["forward"]
        return found

    assert forward() == []
    host.sh("nft add table ip site; nft 'add chain ip site f { type filter hook forward priority 0; policy drop; }'")
    assert forward() == [{"text": "table ip site chain f: policy drop", "surely": True}]
    host.sh("nft add rule ip site f ip saddr 10.244.0.0/16 accept")
    assert forward() == []
    host.sh("nft flush chain ip site f; nft add chain ip site DOCKER-USER")  # is answered by the overlay itself
    assert forward() == []


def test_mistakes_are_all_told(path: Path) -> None:
    answer = path.left.module(
        "underlay_probe",
        state="sent",
        protocol="udp",
        run="x",
        port=0,
        address="10.0.0.1",
        sizes={"a": 1500, LEFT: 1},
        count=0,
        timeout=604801,
        network="10.0.0.0/31",
        fails=True,
    )
    for word in (
        "run:",
        "port",
        "'a'",
        f"{LEFT}: 1 ",
        "10.0.0.1 is not in sizes",
        "count",
        "timeout: 604801",
        "no room",
    ):
        assert word in answer["msg"]


def test_who_configures_the_underlay_is_told(path: Path) -> None:
    index = json.loads(path.left.run("ip -j link show eth1").stdout)[0]["ifindex"]

    def manager() -> str:
        answer = path.module(path.left, "started", interface="eth1")
        path.module(path.left, "stopped")
        said: str = answer["surroundings"]["manager"]
        return said

    assert manager() == ""
    path.left.sh("mkdir -p /etc/network; echo 'iface eth1 inet static' > /etc/network/interfaces")
    assert manager() == "ifupdown (/etc/network/interfaces)"
    path.left.sh(
        "mkdir -p /run/systemd/netif/links;"
        f"echo NETWORK_FILE=/run/systemd/network/10-netplan-eth1.network > /run/systemd/netif/links/{index}"
    )
    assert manager() == "netplan, by systemd-networkd (/run/systemd/network/10-netplan-eth1.network)"
