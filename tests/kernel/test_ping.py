"""ping against the kernel: two namespaces with a router between them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.kernel.hosts import Host

LEFT, RIGHT, GATEWAY = "10.9.1.2", "10.9.2.2", "10.9.1.1"


@pytest.fixture
def routed(host: Host) -> Host:
    """left (MTU 1500) - the host as router - right (MTU 1400)."""
    for side, net in (("left", "10.9.1"), ("right", "10.9.2")):
        host.sh(
            f"ip netns add {side}; ip link add {side} type veth peer name eth0 netns {side};"
            f"ip addr add {net}.1/24 dev {side}; ip link set {side} up; ip -n {side} addr add {net}.2/24 dev eth0;"
            f"ip -n {side} link set lo up; ip -n {side} link set eth0 up; ip -n {side} route add default via {net}.1"
        )
    host.sh("ip link set right mtu 1400; ip -n right link set eth0 mtu 1400; echo 1 > /proc/sys/net/ipv4/ip_forward")
    # A link sends only when the kernel has seen its carrier, which a busy kernel does later (net/core/link_watch.c).
    host.sh("for side in left right; do until ip link show $side | grep -q 'state UP'; do sleep 0.01; done; done")
    return host


def paths(host: Host, *targets: Any, namespace: str = "left", **options: Any) -> list[dict[str, Any]]:
    probes = [{"namespace": namespace, "targets": list(targets)}]
    answer = host.module("ping", probes=probes, **{"count": 2, "interval": 0.01, "timeout": 1, **options})
    assert not answer["changed"]
    found: list[dict[str, Any]] = answer["paths"]
    return found


def test_a_path_that_carries_loses_nothing(routed: Host) -> None:
    (path,) = paths(routed, RIGHT)
    assert (path["sent"], path["received"], path["ttl"], path["size"], path["error"]) == (2, 2, 63, 84, "")
    assert 0 <= path["identifier"] <= 0xFFFF
    assert 0 < path["rtt_ms"]["min"] <= path["rtt_ms"]["avg"] <= path["rtt_ms"]["max"] < 1000


def test_each_size_is_a_flow_of_its_own_since_conntrack_drops_the_second_of_two_packets_that_begin_one(
    routed: Host,
) -> None:
    small, large = paths(routed, RIGHT, sizes=[0, 500])
    assert (small["received"], large["received"]) == (2, 2)
    assert small["identifier"] != large["identifier"]


def test_what_a_target_says_of_itself_is_repeated(routed: Host) -> None:
    path = paths(routed, {"address": RIGHT, "pod": "db", "node": "node2"})[0]
    assert (path["pod"], path["node"], path["namespace"]) == ("db", "node2", "left")


def test_sizes_up_to_the_paths_mtu_pass_with_df_and_one_more_byte_does_not(routed: Host) -> None:
    assert [path["received"] for path in paths(routed, RIGHT, sizes=[0, 1400], df=True)] == [2, 2]
    (path,) = paths(routed, RIGHT, sizes=[1401], df=True)
    assert path["received"] == 0
    assert path["error"] == f"packet of 1401 bytes exceeds path MTU 1400, says {GATEWAY}"


def test_a_packet_beyond_the_own_links_mtu_is_refused_at_once(routed: Host) -> None:
    (path,) = paths(routed, GATEWAY, sizes=[1501], df=True)
    assert (path["sent"], path["received"], path["error"]) == (2, 0, "packet of 1501 bytes exceeds path MTU 1500")


def test_without_df_large_packets_are_fragmented(routed: Host) -> None:
    assert paths(routed, RIGHT, sizes=[1500, 20000])[1]["received"] == 2


def test_what_was_learned_of_a_path_does_not_spoil_the_next_test(routed: Host) -> None:
    paths(routed, RIGHT, sizes=[1500], df=True)
    routed.sh("ip link set right mtu 1500; ip -n right link set eth0 mtu 1500")
    assert paths(routed, RIGHT, sizes=[1500], df=True)[0]["received"] == 2


def test_silence_is_loss_and_no_failure(routed: Host) -> None:
    routed.sh(
        "nft add table ip t; nft 'add chain ip t f { type filter hook forward priority 0; }'; nft add rule ip t f drop"
    )
    (path,) = paths(routed, RIGHT)
    assert (path["received"], path["error"]) == (0, "no answer")


def test_a_refusal_is_told_with_its_sender(routed: Host) -> None:
    routed.sh("nft add table ip t; nft 'add chain ip t f { type filter hook forward priority 0; }'")
    routed.sh("nft add rule ip t f reject with icmp admin-prohibited")
    assert paths(routed, RIGHT)[0]["error"] == f"administratively prohibited, says {GATEWAY}"
    routed.sh("ip -n left route del default")
    assert paths(routed, RIGHT)[0]["error"] == "network is unreachable"


def test_a_namespace_that_is_not_there_is_its_paths_error(routed: Host) -> None:
    answer = routed.module("ping", count=1, probes=[{"namespace": n, "targets": [RIGHT]} for n in ("gone", "left")])
    assert [path["error"] for path in answer["paths"]] == ["no network namespace gone on this host", ""]
    assert [path["identifier"] is None for path in answer["paths"]] == [True, False]


def test_both_directions_at_once(routed: Host) -> None:
    probes = [
        {"namespace": "left", "targets": [RIGHT]},
        {"namespace": "right", "targets": [LEFT]},
        {"targets": [LEFT, RIGHT]},
    ]
    answer = routed.module("ping", probes=probes, count=3, interval=0.01, check=True)
    assert [path["received"] for path in answer["paths"]] == [3, 3, 3, 3]


def test_results_are_recorded_where_that_is_asked_for_in_place_of_the_former_ones(routed: Host) -> None:
    folder = "/run/podnet-overlay"
    paths(routed, RIGHT)
    paths(routed, RIGHT, record=True, check=True)
    assert routed.run("ls", folder, check=False).returncode != 0
    paths(routed, "10.9.2.77", GATEWAY, record=True)
    before = time.time()
    paths(routed, {"address": RIGHT, "pod": "db", "node": "node2", "more": 1}, sizes=[0, 1401], df=True, record=True)
    assert routed.sh(f"ls -A {folder}") == "probes.json\n"
    record = routed.json("cat", f"{folder}/probes.json")
    assert record["version"] == 1
    assert all(before <= probe.pop("time") <= time.time() for probe in record["probes"])
    of = {"namespace": "left", "address": RIGHT, "pod": "db", "node": "node2", "sent": 2}
    assert record["probes"] == [
        {**of, "size": 84, "received": 2, "error": ""},
        {**of, "size": 1401, "received": 0, "error": f"packet of 1401 bytes exceeds path MTU 1400, says {GATEWAY}"},
    ]


def test_a_record_that_cannot_be_written_is_a_warning(routed: Host) -> None:
    routed.sh("echo > /run/podnet-overlay")
    answer = routed.module("ping", count=1, probes=[{"namespace": "left", "targets": [RIGHT]}], record=True)
    assert answer["paths"][0]["received"] == 1
    assert "/run/podnet-overlay/probes.json cannot be written" in str(answer["warnings"])


def test_mistakes_are_all_told(routed: Host) -> None:
    probes = [{"namespace": "a/b", "targets": ["10.9.1", {"pod": "x"}]}]
    answer = routed.module("ping", probes=probes, sizes=[27, 70000], count=0, fails=True)
    assert all(word in answer["msg"] for word in ("27", "70000", "count", "a/b", "10.9.1"))
