"""The five systems: each proves what it claims, a second time too, leaves nothing, and takes nothing over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Place, Run

Choose = Callable[[str], Place]
SHARED = "shared_namespace"

PROVED = {
    SHARED: (
        "Each reaches the other on lo",
        "They are in one network namespace and have one address",
        "They have one port space, so the second is refused the first one's port",
        "pings it: 3 of 3 answered, TTL 64",
        'on lo the first found "second" at port 8081, and the second "first" at port 8080',
        "Address already in use",
    ),
    "veth_pair": (
        "3 of 3 answered, TTL 64",
        "The peer of an end is found by its interface index, as with ethtool -S",
        "veth0 of ns1 has index 2 and peer_ifindex 3; index 3 of ns2 is veth1",
        "length 98: 10.1.1.2 > 10.1.1.3: ICMP echo request",
    ),
    "bridge": (
        "3 of 3 answered, TTL 64",
        "br0: 1a:7e:30:46:72:11 is behind br-veth0   # ns1",
        "br0: 06:b5:78:d9:7b:75 is behind br-veth1   # ns2",
    ),
    "ip_forward": (
        "with forwarding: 3 of 3 answered, TTL 63",
        "26:e9:e2:4b:ff:e9 > 42:58:a1:ed:f4:d3, ethertype IPv4 (0x0800), length 98: 10.1.1.2 > 10.1.2.2: ICMP echo request",
        "root/v2_r                  98 bytes  TTL 63",
        "26:e9:e2:4b:ff:e9 > Broadcast, ethertype ARP (0x0806), length 42: Request who-has 10.1.1.1 tell 10.1.1.2, length 28",
        "42:58:a1:ed:f4:d3 > 26:e9:e2:4b:ff:e9, ethertype ARP (0x0806), length 42: Reply 10.1.1.1 is-at 42:58:a1:ed:f4:d3",
        "The route table of ns1 is this and no more",
        "10.1.2.0/24 via 10.1.1.1 dev v1",
    ),
    "ipip_tunnel": (
        "3 of 3 answered, TTL 64",
        " ip: 10.10.100.10 > 10.10.200.10: ICMP echo request",
        "2a:32:a4:68:2d:fb > 52:0c:6d:7a:80:12, ethertype IPv4 (0x0800), length 118: 10.10.10.2 > 10.10.20.2: 10.10.100.10 > 10.10.200.10",
        "TTL at v2: outer 63, inner 64",
        "ns1/tunl1                  84 bytes  inner TTL 64",
        "The route table of ns1 is this and no more",
        "10.10.200.10 dev tunl1",
    ),
    "flannel_ipip": (
        "3 of 3 answered, TTL 62",
        "cni-8v2vj/eth0             98 bytes  TTL 64",
        "k8s-1/flannel.ipip         84 bytes  TTL 63",
        "k8s-1/ens33               118 bytes  TTL 63",
        "cni-w8b7p/eth0             98 bytes  TTL 62",
        "The pods' route tables are Flannel's",
        "The nodes' route tables are Flannel's",
        "10.244.1.0/24 via 172.12.1.12 dev flannel.ipip",
        "remote any local 172.12.1.11 ttl inherit nopmtudisc",
    ),
}
IN_THE_WAY = {SHARED: "pod", "flannel_ipip": "cni-8v2vj"}


def lives(there: Place, name: str, *options: str) -> Run:
    """From nothing to made, and made again: what the first making said."""
    assert there.works(name, "--check").changed
    assert "ns1" not in there.sh("ip netns")
    first = there.works(name, *options)
    second = there.works(name)
    assert (bool(first.changed), second.changed) == (True, 0)
    for run in (first, second):
        assert [line for line in PROVED[name] if line not in run.out] == []
    return first


def goes(there: Place, name: str, before: list[str]) -> None:
    assert there.works(name, "-e", "state=absent").changed
    assert there.picture() == before


def running(there: Place, pids: list[str]) -> list[str]:
    return there.sh(f"ps --no-headers --pid {','.join(pids)} || true").splitlines()


@pytest.mark.parametrize("name", [name for name in PROVED if name != SHARED])
def test_a_lab_proves_its_claims_and_leaves_nothing(place: Choose, name: str) -> None:
    there = place(name)
    before = there.picture()
    first = lives(there, name)
    if name == "ip_forward":
        assert "without forwarding: 0 of 2 answered" in first.out
    goes(there, name, before)


def test_two_containers_share_a_namespace(place: Choose) -> None:
    there = place(SHARED)
    before = there.picture()
    first = lives(there, SHARED)
    if "two containers of " not in first.out:
        pytest.skip("no container engine works here")
    assert "They have separate file systems and process lists" in first.out
    assert '/srv/name says "first" in the one and "second" in the other' in first.out
    there.sh("podman kill lab-shared-namespace-first")
    assert "A namespace pod that this lab left goes with state=absent" in " ".join(there.play(SHARED).out.split())
    goes(there, SHARED, before)
    there.works(SHARED)
    there.sh("ip netns del root")  # and with it all that is marked as the lab's
    goes(there, SHARED, before)


def test_two_processes_share_it_where_no_container_engine_works(place: Choose) -> None:
    """And an engine that works later changes nothing."""
    there = place(SHARED)
    before = there.picture()
    first = lives(there, SHARED, "-e", '{"lab_engines": []}')
    assert "No container engine works here." in first.out
    assert "two processes in one network namespace" in first.out
    pids = there.sh("ip netns pids pod").split()
    assert len(pids) == 2
    assert there.sh(f"readlink /proc/{pids[0]}/cwd") == "/\n"
    goes(there, SHARED, before)
    assert not running(there, pids)


def test_processes_go_though_the_name_of_their_namespace_is_gone(place: Choose) -> None:
    there = place(SHARED)
    before = there.picture()
    there.works(SHARED, "-e", '{"lab_engines": []}')
    pids = there.sh("ip netns pids pod").split()
    there.sh("ip netns del pod")
    assert len(running(there, pids)) == 2
    goes(there, SHARED, before)
    assert not running(there, pids)


def test_nothing_is_started_where_the_topology_cannot_be_made(place: Choose) -> None:
    there = place(SHARED)
    there.sh("ip netns add root")
    try:
        before = there.picture()
        refused = there.play(SHARED)
        assert (bool(refused.code), refused.changed) == (True, 0)
        assert "namespace root is there already" in refused.out
        assert there.picture() == before
    finally:
        there.sh("ip netns del root")


@pytest.mark.parametrize("name", PROVED)
def test_a_foreign_namespace_in_the_way_is_left_alone(place: Choose, name: str) -> None:
    there, namespace = place(name), IN_THE_WAY.get(name, "ns1")
    there.sh(f"ip netns add {namespace}")
    try:
        before = there.picture()
        refused = there.play(name)
        assert refused.code != 0
        assert refused.changed == 0
        assert f"namespace {namespace} is there already" in refused.out
        if name == SHARED:  # which has more to look for than a document's own
            assert there.works(name, "-e", "state=absent").changed == 0
        assert there.picture() == before
    finally:
        there.sh(f"ip netns del {namespace}")


def test_a_host_that_is_not_there_is_refused(place: Choose) -> None:
    refused = place("bridge").play("bridge", "-e", "lab_host=nodex")
    assert refused.code != 0
    assert "The inventory has no host nodex" in refused.out


def test_what_does_not_hold_is_told(place: Choose) -> None:
    there = place("veth_pair")
    before = there.picture()
    there.works("veth_pair")
    assert "lab-veth-pair" in there.play("bridge").out  # whose ns1 is in the way
    there.sh("ip netns exec ns2 sysctl -qw net.ipv4.icmp_echo_ignore_all=1")
    broken = there.play("veth_pair")
    assert broken.code != 0
    assert "ns1 does not reach ns2" in broken.out
    goes(there, "veth_pair", before)
