"""Who undoes the overlay again and again is named and not fought for ever; the watcher costs next to nothing when idle."""

from __future__ import annotations

import json

import pytest

from tests.life.conftest import POD, Machine, record

FIGHT = """
touch /run/fight
( while [ -e /run/fight ]; do ip route del 10.244.1.0/24 2>/dev/null || true; sleep 0.2; done ) >/dev/null 2>&1 &
for _ in $(seq 100); do
    journalctl -t podnet-overlay -o cat --since @{since} --no-pager | grep 'undone again and again' && exit
    sleep 1
done
exit 1
"""
OTHER = """
ip link set flannel.ipip mtu 1400
for _ in $(seq 100); do [ "$(cat /sys/class/net/flannel.ipip/mtu)" = 1480 ] && break; sleep 0.1; done
sleep 10
rm /run/fight
"""


# What the tests before have left to be looked at is over, and the slow look at everything is not due in the minute to come.
CALM = """
age() { awk -v now="$(date +%s)" '/^podnet_overlay_last_check/ { print int(now - $2) }' /run/podnet-overlay/metrics.prom; }
sleep 15
while [ "$(age)" -gt 220 ] || [ "$(age)" -lt 5 ]; do sleep 1; done
"""


def repairs(node: Machine, what: str, since: str) -> int:
    lines = node.sh(f"journalctl -t podnet-overlay -o json --since @{since} --no-pager")
    entries = [json.loads(line) for line in lines.splitlines()]
    return sum(what in entry.get("PODNET_OBJECT", "") for entry in entries if entry["MESSAGE"].startswith("repaired"))


def test_what_is_undone_again_and_again_is_repaired_with_growing_pauses(node1: Machine) -> None:
    since = node1.sh("date +%s").strip()
    try:
        told = node1.sh(FIGHT.format(since=since), timeout=200)
        assert "route 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink proto podnet is undone again" in told
        assert "it looks like by ip" in told or "cannot be told" in told  # it has ended by the time one asks
        node1.sh(OTHER)
        assert repairs(node1, "link flannel.ipip", since) == 1
    finally:
        node1.run("rm -f /run/fight")
    count = repairs(node1, "route 10.244.1.0/24", since)
    assert 5 <= count <= 8  # five at once, and then after 2, 4, 8 seconds
    node1.sh("for _ in $(seq 300); do ip route show 10.244.1.0/24 | grep -q via && exit; sleep 0.1; done; exit 1")
    node1.sh(f"ip netns exec web ping -n -q -c 1 -W 5 {POD['node2']}")
    record(
        "life",
        "a route deleted every 0.2 s",
        f"{count} repairs, then pauses; another link's MTU at once",
    )
    node1.sh("podnet-overlay diff")


@pytest.mark.soak
def test_the_watcher_is_small_and_idle(node1: Machine) -> None:
    node1.sh(CALM, timeout=400)
    words = node1.sh("""
        pid=$(systemctl show -P MainPID podnet-overlay-watch)
        cut -d' ' -f14,15 /proc/$pid/stat; grep VmRSS /proc/$pid/status
        sleep 60
        cut -d' ' -f14,15 /proc/$pid/stat""").split()
    before, after = sum(map(int, words[:2])), sum(map(int, words[-2:]))
    megabytes = int(words[3]) / 1024
    record("life", "memory of the watcher (VmRSS)", f"{megabytes:.0f} MB")
    record("life", "its processor time in a minute of calm", f"{(after - before) * 10} ms")
    assert megabytes < 50
    assert after - before <= 3  # hundredths of a second
