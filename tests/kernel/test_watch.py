"""The watcher on a host of this kernel: what it repairs, what it leaves, what it tells, and what it lives through."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _metrics

from tests.kernel import overlays
from tests.kernel.documents import AS_BEFORE, PEERS, RENUMBERED, node, sourced
from tests.kernel.firewalls import UFW
from tests.kernel.hosts import Host
from tests.kernel.looks import picture, routes

SECONDS = 10.0
"""Far more than it takes: how long it takes is measured on virtual machines, and here others run at the same time."""
ENGINE = "/usr/local/lib/podnet-overlay/podnet_overlay"


class Watched:
    """A host with the overlay and its watcher."""

    def __init__(self, host: Host, document: dict[str, Any] | None = None, *, install: bool = True) -> None:
        self.host = host
        if install:
            host.module("node", missing=["file:engine"])
        host.module("topology", document=document or node(), peers=PEERS)
        self.wanted = picture(host)
        self.process = self.started()

    def started(self) -> subprocess.Popen[str]:
        """A watcher that is ready: its first look has been told."""
        self.host.sh("rm -f /run/podnet-overlay/metrics.prom")
        process = self.host.popen("podnet-overlay", "watch")
        self.until(lambda: bool(self.metrics()))
        return process

    def until(self, done: Callable[[], bool], seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, self.host.run("podnet-overlay diff", check=False)
            time.sleep(0.05)

    def repaired(self) -> None:
        self.until(lambda: picture(self.host) == self.wanted)

    def metrics(self) -> dict[_metrics.Sample, float]:
        return _metrics.parse(self.host.run("cat", "/run/podnet-overlay/metrics.prom", check=False).stdout)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics().get(_metrics.sample(f"podnet_overlay_{name}", **labels), 0)

    def end(self) -> str:
        """End it; what it said."""
        self.process.terminate()
        _out, err = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, err
        return err


@pytest.fixture
def watched(underlay: Host) -> Iterator[Watched]:
    found = Watched(underlay)
    yield found
    with contextlib.suppress(ProcessLookupError):
        found.process.kill()
    found.process.communicate()


def test_what_is_undone_comes_back_and_is_counted(watched: Watched) -> None:
    for fault, kind in (
        ("ip route del 10.244.1.0/24", "route"),
        ("ip route replace 10.244.1.0/24 via 198.51.100.99 dev eth1", "route"),
        ("ip route prepend 10.244.1.0/24 via 198.51.100.99 dev eth1", "route"),
        ("ip route prepend 10.244.0.0/24 via 198.51.100.99 dev eth1", "route"),
        ("ip link del flannel.1", "link"),
        ("ip link set cni0 down", "link"),
        ("ip addr del 10.244.0.1/24 dev cni0", "address"),
        ("ip link set veth-web nomaster", "link"),
        ("ip -n web route del default", "route"),
        ("ip link del veth-web", "link"),
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl"),
        ("nft flush ruleset", "firewall"),
        ("nft flush chain inet podnet_overlay guard", "firewall"),
        ("bridge fdb del 0e:58:0a:f4:01:00 dev flannel.1", "forwardingentry"),
        ("ip neigh del 10.244.1.0 dev flannel.1", "neighbour"),
        ("rm /etc/netns/web/hosts; ip link set flannel.1 mtu 1400", "namespacefile"),
        ("ip netns del web", "namespace"),
    ):
        count = watched.value("repairs_total", document="overlay", kind=kind)
        watched.host.sh(fault)
        watched.until(lambda: watched.value("repairs_total", document="overlay", kind=kind) > count)  # noqa: B023
        watched.repaired()
    assert watched.value("last_repair_timestamp_seconds", document="overlay") <= time.time()
    assert watched.value("held", document="overlay") == 0


def test_a_foreign_route_behind_ours_takes_no_packets_and_stays(watched: Watched) -> None:
    behind = "10.244.1.0/24 via 198.51.100.99 dev eth1 "
    watched.host.sh(f"ip route append {behind}; podnet-overlay diff; ip route del 10.244.2.0/24")
    watched.until(lambda: "10.244.2.0/24" in routes(watched.host))
    assert watched.host.sh("ip route show 10.244.1.0/24").splitlines()[1] == behind
    assert "dev flannel.1" in watched.host.sh("ip route get 10.244.1.7")
    assert watched.value("repairs_total", document="overlay", kind="route") == 1


def test_foreign_routes_before_ours_go_and_a_run_of_the_controller_refuses_them(watched: Watched) -> None:
    host = watched.host
    watched.end()
    for before in (
        "via 198.51.100.99 dev eth1",
        "dev eth1 scope global",
        "nexthop via 198.51.100.98 dev eth1 nexthop via 198.51.100.99 dev eth1",
    ):
        host.sh(f"ip route prepend 10.244.1.0/24 {before}; ip route append 10.244.1.0/24 via 198.51.100.97 dev eth1")
        said = host.module("topology", document=node(), peers=PEERS, fails=True)["msg"]
        assert "route 10.244.1.0/24" in said
        assert "is there already and not ours" in said
        assert "protocol boot" in said
        host.sh("podnet-overlay apply; podnet-overlay diff; ip route del 10.244.1.0/24 via 198.51.100.97")
        assert picture(host) == watched.wanted


def test_several_foreign_routes_before_ours_all_go(watched: Watched) -> None:
    for last in (97, 98, 99):
        watched.host.sh(f"ip route prepend 10.244.1.0/24 via 198.51.100.{last} dev eth1")
    watched.repaired()
    assert watched.value("repair_failures_total", document="overlay") == 0


def test_a_more_specific_foreign_route_is_told_once_and_stays(watched: Watched) -> None:
    watched.host.sh("ip route add 10.244.1.128/25 via 198.51.100.12")
    time.sleep(1)
    watched.host.sh("ip route del 10.244.2.0/24")
    watched.until(lambda: "10.244.2.0/24" in routes(watched.host))
    assert "10.244.1.128/25" in routes(watched.host)
    assert watched.end().count("takes packets from route 10.244.1.0/24") == 1


def test_the_route_of_a_foreign_links_own_address_is_told_too(watched: Watched) -> None:
    """As that of a network of Docker's that overlaps with another node's subnet."""
    watched.host.sh("ip link add br-1 type bridge; ip addr add 10.244.1.129/25 dev br-1; ip link set br-1 up")
    told = "route 10.244.1.128/25 dev br-1 src 10.244.1.129 proto kernel takes packets from route 10.244.1.0/24"
    assert told in watched.host.run("podnet-overlay status", check=False).stdout
    time.sleep(2)
    assert watched.end().count(told) == 1


def test_what_is_fought_over_is_left_alone_and_the_rest_is_not(watched: Watched) -> None:
    fighter = watched.host.popen("sh", "-c", "while :; do ip route del 10.244.1.0/24 2>/dev/null; sleep 0.05; done")
    try:
        watched.until(lambda: watched.value("held", document="overlay") > 0, 20)
        before = watched.value("repairs_total", document="overlay", kind="route")
        watched.host.sh("ip route del 10.244.2.0/24; ip addr flush dev flannel.1")
        watched.until(lambda: "10.244.2.0/24" in routes(watched.host))
        time.sleep(3)
        assert watched.value("repairs_total", document="overlay", kind="route") - before <= 4
    finally:
        fighter.kill()
        fighter.communicate()
    watched.until(lambda: watched.value("held", document="overlay") == 0, 90)
    watched.repaired()
    assert "route 10.244.1.0/24 " in next(line for line in watched.end().splitlines() if "again and again" in line)


@pytest.mark.parametrize("folder", ["/etc", "/var/lib"])
def test_it_goes_on_without_a_disk(watched: Watched, folder: str) -> None:
    watched.host.sh(f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}")
    for fault in ("ip link del flannel.1", "ip netns del web", "nft flush ruleset", "sysctl -qw net.ipv4.ip_forward=0"):
        watched.host.sh(fault)
        time.sleep(0.3)
        watched.repaired()
    assert watched.process.poll() is None


UPLINK = [
    ("ip link set eth1 down", "ip link set eth1 up"),
    ("ip addr del 198.51.100.11/24 dev eth1", "ip addr add 198.51.100.11/24 dev eth1"),
    (
        "ip link set eth1 down; ip link set eth1 name lan0; ip link set lan0 up",
        "ip link set lan0 down; ip link set lan0 name eth1; ip link set eth1 up",
    ),
]


@pytest.mark.parametrize("backend", ["host-gw", "vxlan"])
def test_whatever_happens_to_the_uplink_routes_are_back_as_soon_as_it_is_usable(underlay: Host, backend: str) -> None:
    watched = Watched(underlay, overlays.document("node1", backend))
    index = underlay.json("ip -j link show cni0")[0]["ifindex"]
    wanted = routes(underlay)
    try:
        for down, up in UPLINK:
            underlay.sh(down)
            time.sleep(6)  # as long as a refusal would have been waited out
            underlay.sh(up)
            watched.until(lambda: routes(underlay) == wanted, 3)
        for _flap in range(6):
            underlay.sh("ip link set eth1 down; sleep 0.5; ip link set eth1 up; sleep 0.5")
        watched.until(lambda: routes(underlay) == wanted, 3)
        assert watched.value("repair_failures_total", document="overlay") == 0
        assert underlay.json("ip -j link show cni0")[0]["ifindex"] == index
    finally:
        assert "again and again" not in watched.end()


def test_a_tunnel_is_not_torn_down_where_it_cannot_be_made_anew(underlay: Host) -> None:
    watched = Watched(underlay, overlays.document("node1", "vxlan"))
    try:
        index, wanted = underlay.json("ip -j link show flannel.1")[0]["ifindex"], routes(underlay)
        underlay.sh("ip link set eth1 down; ip link set eth1 name lan0; ip link set lan0 up; ip link set cni0 down")
        watched.until(lambda: routes(underlay).keys() >= wanted.keys() - {"198.51.100.0/24"})
        time.sleep(2)
        assert underlay.json("ip -j link show flannel.1")[0]["ifindex"] == index
        assert watched.value("repair_failures_total", document="overlay") == 0
    finally:
        watched.end()


def test_all_routes_of_a_pod_come_back_at_once(watched: Watched) -> None:
    wanted = routes(watched.host, "web")
    watched.host.sh("ip -n web route flush table main")
    watched.until(lambda: routes(watched.host, "web") == wanted)
    assert watched.value("repair_failures_total", document="overlay") == 0
    watched.end()
    watched.host.sh("ip -n web route flush table main; podnet-overlay apply")
    assert routes(watched.host, "web") == wanted


def test_somebody_elses_tunnel_in_place_of_ours_is_told_and_the_rest_is_repaired(underlay: Host) -> None:
    underlay.module("node", missing=["file:engine"])
    underlay.module("topology", document=node(), peers=PEERS)
    wanted = picture(underlay)
    underlay.sh("ip link del flannel.1; ip link add vx9 type vxlan id 1 dstport 8472 dev eth1; ip link set cni0 down")
    done = underlay.run("podnet-overlay", "apply", check=False)
    assert done.returncode == 2
    assert "change link cni0" in done.stdout
    assert "cannot have the endpoints of link vx9" in done.stderr
    underlay.sh("ip link del vx9; podnet-overlay apply")
    assert picture(underlay) == wanted


def test_it_goes_on_where_its_own_counters_cannot_be_written(watched: Watched) -> None:
    watched.host.sh("rm -r /run/podnet-overlay; touch /run/podnet-overlay; ip link del flannel.1")
    watched.repaired()
    assert "the counters cannot be written to /run/podnet-overlay/metrics.prom" in watched.end()


@pytest.mark.parametrize(
    "undone",
    [
        "rm /etc/NetworkManager/conf.d/zz-podnet-overlay.conf",
        "rm -r /etc/NetworkManager",
        "sed -i s/+=/=/ /etc/NetworkManager/conf.d/zz-podnet-overlay.conf",
        "rm /etc/NetworkManager/conf.d/zz-podnet-pod-x.conf",
        "sed -i '/^### tuple.*comment/d' /etc/ufw/user.rules",
    ],
)
def test_what_other_programs_are_told_in_files_comes_back(underlay: Host, undone: str) -> None:
    with UFW.running(underlay):
        underlay.sh("touch /usr/local/sbin/NetworkManager; chmod +x /usr/local/sbin/NetworkManager")
        watched = Watched(underlay, overlays.document("node1", "vxlan", firewall={}))
        link = {"name": "veth-x", "kind": "veth", "peer": {"name": "eth0", "namespace": "x"}}
        underlay.module("topology", name="pod-x", document={"namespaces": [{"name": "x"}], "links": [link]})
        try:
            told = "cat /etc/NetworkManager/conf.d/zz-podnet-* /etc/ufw/*.rules | sort"
            wanted = underlay.sh(told)
            time.sleep(2)
            underlay.sh(undone)
            watched.until(lambda: underlay.sh(f"{told} 2>/dev/null") == wanted)
        finally:
            watched.end()


def test_a_damaged_document_is_told_once_and_the_others_are_watched(watched: Watched) -> None:
    watched.host.module("topology", name="lab", document={"links": [{"name": "br-lab", "kind": "bridge"}]})
    watched.host.sh("echo '{\"links\": [' >/etc/podnet-overlay/lab.json")
    for _round in range(3):
        watched.host.sh("ip route del 10.244.1.0/24")
        watched.until(lambda: "10.244.1.0/24" in routes(watched.host))
        time.sleep(0.5)
    assert watched.value("repair_failures_total", document="lab") > 0
    assert watched.end().count("/etc/podnet-overlay/lab.json cannot be read") == 1


def test_a_file_of_no_documents_name_does_not_break_the_counters(watched: Watched) -> None:
    watched.host.sh("echo '{}' >'/etc/podnet-overlay/a \"copy\\.json'; ip route del 10.244.1.0/24")
    watched.until(lambda: "10.244.1.0/24" in routes(watched.host))
    watched.until(lambda: watched.value("repair_failures_total", document='a "copy\\') > 0)


def test_a_document_that_changes_or_goes_is_followed(watched: Watched) -> None:
    host = watched.host
    host.module("topology", document=node(), peers=dict(list(PEERS.items())[:2]))
    time.sleep(1)
    assert "10.244.2.0/24" not in routes(host)
    host.sh("ip route del 10.244.1.0/24")
    watched.until(lambda: "10.244.1.0/24" in routes(host))
    host.module("topology", state="absent")
    host.sh("ip link add cni0 type bridge; ip link del cni0")
    time.sleep(1)
    assert "cni0" not in host.links()
    assert watched.process.poll() is None
    host.module("topology", document=node(), peers=PEERS)
    watched.until(lambda: any(dict(labels).get("document") for _name, labels in watched.metrics()))
    host.sh("ip link del flannel.1")
    watched.repaired()


def test_what_another_front_holds_is_waited_for(watched: Watched) -> None:
    """A run that takes long is not disturbed: what it has half done looks like drift."""
    holder = watched.host.popen("flock", "/run/podnet-overlay.lock", "sleep", "2")
    time.sleep(0.3)
    watched.host.sh("ip route del 10.244.1.0/24")
    time.sleep(1)
    assert "10.244.1.0/24" not in routes(watched.host)
    holder.communicate()
    watched.until(lambda: "10.244.1.0/24" in routes(watched.host))


def test_who_holds_the_lock_for_too_long_is_outlived(underlay: Host) -> None:
    underlay.module("node", missing=["file:engine"])
    underlay.sh(f"sed -i 's/^LOCK_TIMEOUT = .*/LOCK_TIMEOUT = 1.0/' {ENGINE}/_state.py")
    watched = Watched(underlay, install=False)
    try:
        holder = underlay.popen("flock", "/run/podnet-overlay.lock", "sleep", "4")
        time.sleep(0.3)
        underlay.sh("ip route del 10.244.1.0/24")
        watched.until(lambda: watched.value("repair_failures_total", document="overlay") > 0)
        holder.communicate()
        watched.repaired()
    finally:
        assert watched.end().count("another run holds /run/podnet-overlay.lock") == 1


def test_a_look_that_failed_is_repeated(watched: Watched) -> None:
    host = watched.host
    host.sh("printf '#!/bin/sh\\necho broken >&2; exit 1\\n' >/usr/local/sbin/nft; chmod +x /usr/local/sbin/nft")
    host.sh("/usr/sbin/nft flush ruleset")
    watched.until(lambda: watched.value("repair_failures_total", document="overlay") > 1)
    host.sh("rm /usr/local/sbin/nft")
    watched.repaired()
    assert watched.end().count("broken") == 1


def test_a_library_that_is_missing_for_a_while_is_told_and_waited_for(underlay: Host) -> None:
    underlay.module("node", missing=["file:engine"])
    underlay.module("topology", document=node(), peers=PEERS)
    wanted = picture(underlay)
    underlay.sh("mkdir -p /run/shadow/pyroute2; touch /run/shadow/pyroute2/__init__.py; ip route del 10.244.1.0/24")
    process = underlay.popen("env", "PYTHONPATH=/run/shadow", "podnet-overlay", "watch")
    try:
        time.sleep(3)
        assert process.poll() is None
        underlay.sh("rm -r /run/shadow")
        deadline = time.monotonic() + SECONDS
        while picture(underlay) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.terminate()
        _out, err = process.communicate(timeout=20)
    assert err.count("pyroute2 of ") == 1


def test_what_the_kernel_refuses_does_not_keep_the_rest_from_being_repaired(underlay: Host) -> None:
    watched = Watched(underlay, node(routes=sourced()))
    watched.host.sh(f"{RENUMBERED}; ip link set cni0 down; ip route del 10.244.2.0/24")
    watched.until(lambda: "10.244.2.0/24" in routes(watched.host))
    assert watched.host.json("ip -j link show cni0")[0]["flags"].count("UP")
    watched.host.sh(AS_BEFORE)
    watched.repaired()
    assert "cannot " in watched.end()


@pytest.mark.parametrize(
    ("fault", "who"),
    [
        ("nft flush ruleset", "nft"),
        ("cp /usr/sbin/nft /run/rulemaker; /run/rulemaker flush chain inet podnet_overlay guard", "rulemaker"),
    ],
)
def test_who_undid_rules_is_told(watched: Watched, fault: str, who: str) -> None:
    watched.host.sh(f"ip link set cni0 down; {fault}")
    watched.repaired()
    time.sleep(0.5)
    (line,) = [line for line in watched.end().splitlines() if "firewall" in line]
    assert line.endswith(f", undone by {who}")


def test_rules_of_others_are_nobodys_who_undid_ours(watched: Watched) -> None:
    watched.host.sh("cp /usr/sbin/nft /run/rulemaker; /run/rulemaker add table inet other; nft flush ruleset")
    watched.repaired()
    assert "rulemaker" not in watched.end()


def test_a_container_is_not_taken_for_the_hosts_first_process(watched: Watched) -> None:
    watched.host.sh("unshare --pid --fork ip route del 10.244.1.0/24")
    watched.repaired()
    (line,) = [line for line in watched.end().splitlines() if "repaired" in line]
    assert "undone by" not in line


def test_a_journal_that_does_not_read_keeps_it_from_nothing(watched: Watched) -> None:
    watched.host.sh("mkdir -p /run/systemd/journal")
    bind = "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('/run/systemd/journal/socket')"
    journal = watched.host.popen("python3", "-c", f"import socket, time; {bind}; time.sleep(99)")
    try:
        watched.until(lambda: watched.host.run("test -S /run/systemd/journal/socket", check=False).returncode == 0)
        queue = int(watched.host.sh("cat /proc/sys/net/unix/max_dgram_qlen"))
        for _line in range(queue // len(PEERS) + 3):
            watched.host.sh("ip route flush proto 244; ip link set cni0 mtu 1400; nft flush ruleset")
            watched.repaired()
    finally:
        journal.kill()
        journal.communicate()


def test_a_repair_is_not_cut_off_by_the_end_of_the_watcher(watched: Watched) -> None:
    """An nft that takes its time stands for any change of several steps."""
    slow = '#!/bin/sh\ntouch /run/begun; sleep 2; exec /usr/sbin/nft "$@"\n'
    watched.host.run("sh", "-c", f"printf '%s' '{slow}' >/usr/local/sbin/nft; chmod +x /usr/local/sbin/nft")
    watched.host.sh("ip link set cni0 down; /usr/sbin/nft flush ruleset")
    watched.until(lambda: watched.host.run("test -e /run/begun", check=False).returncode == 0)
    assert "firewall" in watched.end()
    assert picture(watched.host) == watched.wanted


def test_two_watchers_at_once_do_no_harm(watched: Watched) -> None:
    second = watched.host.popen("podnet-overlay", "watch")
    try:
        time.sleep(1.5)
        for _round in range(3):
            watched.host.sh("ip link del cni0; nft flush ruleset; ip route del 10.244.1.0/24 || true")
            watched.repaired()
        assert watched.process.poll() is None
        assert second.poll() is None
    finally:
        second.kill()
        second.communicate()


def test_it_needs_little_memory_and_no_processor_when_nothing_happens(watched: Watched) -> None:
    def ticks() -> int:
        with open(f"/proc/{watched.process.pid}/stat", encoding="ascii") as file:
            return sum(map(int, file.read().split()[13:15]))

    def status() -> dict[str, Any]:
        with open(f"/proc/{watched.process.pid}/status", encoding="ascii") as file:
            return dict(line.strip().split(":", 1) for line in file)

    time.sleep(1)
    before = ticks()
    time.sleep(3)
    assert ticks() - before <= 1
    # What runs here is a newer pyroute2 than a distribution's, and larger.
    assert int(status()["VmRSS"].split()[0]) < 60_000


def test_what_undoing_needs_outlives_looks_at_a_part_of_the_host(underlay: Host) -> None:
    underlay.sh("sysctl -qw net.ipv4.ip_forward=0")
    watched = Watched(underlay)
    try:
        underlay.sh("nft flush ruleset")
        watched.repaired()
        watched.until(lambda: watched.value("repairs_total", document="overlay", kind="firewall") > 0)
    finally:
        watched.process.terminate()
        watched.process.communicate()
    underlay.module("topology", state="absent", document=None)
    assert underlay.sh("sysctl -n net.ipv4.ip_forward") == "0\n"
