"""Other network tools do what they do to a node, and its pods' packets pass meanwhile, or again within a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.life.conftest import POD, Machine, record

pytestmark = pytest.mark.soak  # minutes each, and what other tools leave on a host is not ours to compare

INTERVAL = 0.05
LIMIT = 1.0
"""Seconds without an answer, at most, besides what an emulated machine is silent for when nothing happens to it."""
PINGS = """
import os, select, socket, struct, sys, time
echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
echo.connect((sys.argv[1], 0))
number = 0
while not os.path.exists("/run/enough"):
    number = number % 65000 + 1
    check = 0xFFFF - (0x0800 + number) % 0xFFFF
    due = time.time() + float(sys.argv[2])
    for step in ("send", *["receive"] * 9):
        try:
            if step == "send":
                echo.send(struct.pack("!BBHHH", 8, 0, check, number, 0))
            elif select.select([echo], [], [], max(due - time.time(), 0))[0] and echo.recv(99)[20] == 0:
                print(time.time(), flush=True)
        except OSError:  # a firewall has told that it refuses
            pass
    time.sleep(max(due - time.time(), 0))
"""
"""Each echo request is a new connection to a firewall, which may let pass what is established."""
TRAIN = """
rm -f /run/enough
ip netns exec web python3 -c '{pings}' {pod} {interval} >/run/train 2>&1 &
train=$!
for second in $(seq 30); do [ -s /run/train ] && break; sleep 1; done
sleep 2
date +%s.%N >/run/began
( {script} ) >/run/said 2>&1 </dev/null || echo "ended with $?" >>/run/said
date +%s.%N >/run/done
sleep {after}
touch /run/enough
date +%s.%N >/run/ended
wait $train || true
cat /run/train
"""
FOLDERS = "/etc/systemd /etc/NetworkManager /etc/ufw /etc/firewalld /lib/ufw"


def silence(node: Machine, script: str, after: float = 4.0, *, done: bool = False) -> float:
    """The longest time without an answer from a pod of another node, from when *script* begins, less that before it.

    With *done* from its end on: what drops meanwhile is the script's own matter.
    """
    text = node.sh(
        TRAIN.format(pings=PINGS, interval=INTERVAL, pod=POD["node2"], script=script, after=after), timeout=300
    )
    times = [float(line) for line in text.splitlines()]
    began, over, end, said = node.sh("cat /run/began /run/done /run/ended /run/said; echo").split("\n", 3)
    assert "ended with" not in said, said
    gaps = {later: later - earlier for earlier, later in zip(times, times[1:])}
    before = [gap for later, gap in gaps.items() if later < float(began)]
    assert before, text
    assert float(end) - times[-1] < 1 + max(before), f"no answer any more\n{text[-500:]}"
    since = float(over if done else began)
    return max(max(later - max(later - gap, since) for later, gap in gaps.items() if later >= since) - max(before), 0.0)


def report(what: str, seconds: float) -> None:
    record("others", what, f"{seconds:.2f} s")


@pytest.fixture
def quiet(node1: Machine) -> Iterator[None]:
    """Whatever a test starts on the node ends with it, and the overlay is as before."""
    yield
    node1.run(
        "rm -f /etc/systemd/network/*all.network /run/systemd/network/10-netplan-* /etc/netplan/50-*; networkctl reload;"
        "ufw --force disable; systemctl stop NetworkManager firewalld;"
        "systemctl stop docker.socket docker containerd; rm -rf /run/NetworkManager /etc/NetworkManager/conf.d/50-*;"
        "ip link del docker0; iptables -P FORWARD ACCEPT; iptables -F; iptables -t nat -F; iptables -X; podnet-overlay apply",
        timeout=200,
    )


ALL = r"printf '[Match]\nName=%s\n[Network]\nLinkLocalAddressing=no\n' >/etc/systemd/network/{file}"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("having", "script"),
    [
        ("its defaults", "true"),
        ("a file for all links", ALL.format(file="99-all.network") % "*"),
        ("a file for all links before all others", ALL.format(file="00-all.network") % "[!e]*"),
    ],
)
def test_networkd_is_restarted(node1: Machine, having: str, script: str) -> None:
    seconds = silence(node1, f"{script}; systemctl restart systemd-networkd; sleep 2; networkctl reload")
    report(f"systemd-networkd restarted and reloaded with {having}", seconds)
    assert seconds < LIMIT


TAKES_ALL = r"""printf '[keyfile]\nunmanaged-devices=interface-name:eth*\n[device]\nmatch-device=*\nmanaged=1\n' \
    >/etc/NetworkManager/conf.d/50-all.conf"""


@pytest.mark.usefixtures("quiet")
def test_networkmanager_is_started_beside_and_takes_all_links(node1: Machine) -> None:
    seconds = silence(
        node1, f"{TAKES_ALL}; systemctl start NetworkManager; sleep 6; systemctl restart NetworkManager", 8
    )
    report("NetworkManager, told to manage all devices, started and restarted", seconds)
    states = dict(line.split(":") for line in node1.sh("nmcli -t -f DEVICE,STATE device").splitlines())
    assert {states[link] for link in ("cni0", "flannel.ipip", "veth-web", "veth-db")} == {"unmanaged"}
    assert seconds < LIMIT
    node1.sh("podnet-overlay diff")


@pytest.mark.soak
@pytest.mark.usefixtures("quiet")
def test_networkmanager_that_takes_the_links_is_told_again_by_the_watcher_and_lets_go(node1: Machine) -> None:
    conf = "/etc/NetworkManager/conf.d/zz-podnet-overlay.conf"
    taken = f"rm {conf}; nmcli general reload conf; sleep 6"
    seconds = silence(node1, f"{TAKES_ALL}; systemctl start NetworkManager; sleep 6; {taken}", 6)
    began, ended = map(float, node1.sh(f"date +%s.%N; podnet-overlay diff; date +%s.%N; test -e {conf}").split())
    look = ended - began  # while the watcher looks at other programs, and tells them, it repairs no links
    report(
        f"NetworkManager takes all devices, since what it was told was removed; a look at all takes {look:.2f} s",
        seconds,
    )
    states = dict(line.split(":") for line in node1.sh("nmcli -t -f DEVICE,STATE device").splitlines())
    assert {states[link] for link in ("cni0", "flannel.ipip", "veth-web", "veth-db")} == {"unmanaged"}
    assert seconds < LIMIT + look


NETPLAN = r"""printf 'network: {version: 2, renderer: %s, ethernets: {all: {match: {name: "[cfv]*"}, dhcp4: false}}}\n' \
    RENDERER >/etc/netplan/50-all.yaml; chmod 600 /etc/netplan/50-all.yaml"""


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("renderer", "before", "written"),
    [
        ("networkd", "true", "/run/systemd/network/10-netplan-all.network"),
        ("NetworkManager", TAKES_ALL, "/run/NetworkManager/system-connections/netplan-all.nmconnection"),
    ],
)
def test_netplan_is_applied_for_all_links(node1: Machine, renderer: str, before: str, written: str) -> None:
    yaml = NETPLAN.replace("RENDERER", renderer)
    seconds = silence(node1, f"{before}; {yaml}; netplan apply; sleep 6; netplan apply", 8)
    report(f"netplan applied twice for all links, by {renderer}", seconds)
    assert "[cfv]*" in node1.sh(f"cat {written}")
    assert seconds < LIMIT
    node1.sh("podnet-overlay diff")


@pytest.mark.usefixtures("quiet")
def test_docker_is_started_and_drops_what_is_forwarded(node1: Machine) -> None:
    """Its policy DROP, which it sets where it is dockerd that turns forwarding on, here by hand: forwarding is on."""
    seconds = silence(node1, "systemctl start docker; sleep 10; iptables -P FORWARD DROP", 6)
    report("docker started for the first time, and iptables' FORWARD at DROP", seconds)
    assert "podnet.overlay:overlay" in node1.sh("iptables -S DOCKER-USER")
    assert seconds < LIMIT
    seconds = silence(node1, "systemctl restart docker", 6)
    report("docker restarted", seconds)
    assert seconds < LIMIT


@pytest.mark.soak
@pytest.mark.usefixtures("quiet")
def test_firewalld_is_started_and_reloaded(node1: Machine) -> None:
    seconds = silence(node1, "systemctl start firewalld", 120)
    report("firewalld started for the first time, its own start included", seconds)
    seconds = silence(node1, "firewall-cmd --reload", 6, done=True)
    report("after firewall-cmd --reload", seconds)
    assert seconds < LIMIT


@pytest.mark.soak
@pytest.mark.usefixtures("quiet")
def test_ufw_is_enabled_and_reloaded(node1: Machine) -> None:
    seconds = silence(node1, "ufw allow 22/tcp; ufw --force enable", 120)
    report("ufw enabled for the first time, its own start included", seconds)
    seconds = silence(node1, "ufw reload", 4, done=True)
    report("after ufw reload", seconds)
    assert seconds < LIMIT


@pytest.mark.usefixtures("quiet")
def test_teardown_leaves_nothing_of_ours_with_any_of_them(node1: Machine) -> None:
    node1.sh(
        "systemctl start docker NetworkManager; ufw allow 22/tcp; ufw --force enable; podnet-overlay apply", timeout=200
    )
    ours = f"grep -rl podnet {FOLDERS} 2>/dev/null | grep -v /etc/systemd/system; iptables-save | grep podnet"
    assert node1.run(ours).stdout.count("\n") > 5
    node1.sh("cp -a /etc/podnet-overlay/overlay.json /root")
    try:
        node1.sh("podnet-overlay teardown overlay", timeout=200)
        assert node1.run(ours).stdout == ""
    finally:
        node1.sh(
            "mkdir -p /etc/podnet-overlay; cp -a /root/overlay.json /etc/podnet-overlay/; podnet-overlay apply",
            timeout=200,
        )
