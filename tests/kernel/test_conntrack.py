"""UDP flows that stick to an old mapping are forgotten, and nobody else's."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _conntrack
from ansible_collections.podnet.overlay.plugins.module_utils._conntrack import forget_udp
from ansible_collections.podnet.overlay.plugins.module_utils._netns import inside

from tests.kernel.hosts import FORK, Host

T = TypeVar("T")
TRACKED = "nft add table inet t; nft 'add chain inet t c { type filter hook output priority 0; ct state new counter; }'"
MAPPED = "nft add table ip t; nft 'add chain ip t c { type nat hook output priority -100; }'; nft add rule ip t c "


def at(host: Host, work: Callable[[], T]) -> T:
    return inside(f"/proc/{host.pid}/ns/net", work)


def send(host: Host, *targets: tuple[str, int]) -> None:
    """A datagram to each, from one socket."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for target in targets:
                sender.sendto(b"x", target)

    at(host, work)


def flows(host: Host, port: int, protocol: str = "udp") -> list[str]:
    """The original destinations of the flows to a port."""
    lines = host.run("cat", f"/proc/{host.pid}/net/nf_conntrack").stdout.splitlines()
    fields = [line.split() for line in lines if f" {protocol} " in line]
    named = [[word.partition("=")[::2] for word in words if "=" in word] for words in fields]
    first = [dict(reversed(pairs)) for pairs in named]
    return sorted(flow["dst"] for flow in first if flow["dport"] == str(port))


@pytest.fixture
def tracked(host: Host) -> Host:
    """A host with two addresses that tracks what it sends, also to two places that are not its own."""
    host.sh(
        f"{TRACKED}; ip link add d0 type veth peer name d1; ip link set d0 arp off up; ip link set d1 up; ip addr add 192.0.2.1/24 dev d0;"
        "ip addr add 192.0.2.2/24 dev d0; ip route add default dev d0"
    )
    return host


def test_flows_to_a_mapping_are_forgotten_and_others_stay(tracked: Host) -> None:
    places = ("192.0.2.1", "192.0.2.2", "127.0.0.1", "203.0.113.9")
    send(tracked, *[(place, port) for place in places for port in (53, 54)])
    assert at(tracked, partial(forget_udp, [("192.0.2.1", 53)])) == 1
    assert flows(tracked, 53) == sorted({*places} - {"192.0.2.1"})
    assert flows(tracked, 54) == sorted(places)


def test_any_address_is_any_of_the_hosts_own(tracked: Host) -> None:
    tracked.run("ip route add local 198.18.0.0/15 dev lo")
    own = ("192.0.2.1", "192.0.2.2", "127.0.0.1", "127.7.7.7", "198.19.1.1")
    others = ("192.0.2.9", "203.0.113.9")
    send(tracked, *[(place, 53) for place in (*own, *others)])
    assert at(tracked, partial(forget_udp, [("", 53)])) == len(own)
    assert flows(tracked, 53) == sorted(others)


def test_tcp_ipv6_and_other_ports_stay(tracked: Host) -> None:
    def work() -> None:
        with socket.create_server(("127.0.0.1", 53)), socket.create_connection(("127.0.0.1", 53), 5):
            pass
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("::1", 53))

    at(tracked, work)
    assert at(tracked, partial(forget_udp, [("", 53)])) == 0
    assert flows(tracked, 53, "tcp") == ["127.0.0.1"]
    assert len(flows(tracked, 53)) == 1


def test_a_translated_flow_is_told_by_where_it_was_sent(tracked: Host) -> None:
    tracked.sh(MAPPED + "udp dport 8053 dnat to 203.0.113.9:53")
    send(tracked, ("192.0.2.1", 8053), ("203.0.113.9", 53))
    assert at(tracked, partial(forget_udp, [("", 53), ("203.0.113.9", 8053)])) == 0
    assert at(tracked, partial(forget_udp, [("192.0.2.1", 8053)])) == 1
    assert flows(tracked, 53) == ["203.0.113.9"]


def test_a_sticking_flow_goes_to_the_new_place_once_forgotten(tracked: Host) -> None:
    """What it is for: the same socket, before and after."""
    mapping = "udp dport 8053 dnat to 127.0.0.1:{}"
    tracked.sh(MAPPED + mapping.format(1001))

    def work() -> list[str]:
        seen = []
        receivers = {}
        for port in (1001, 1002):
            receivers[port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receivers[port].bind(("127.0.0.1", port))
            receivers[port].settimeout(0.3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            steps: list[Callable[[], object]] = [
                lambda: None,
                lambda: tracked.sh("nft flush chain ip t c; nft add rule ip t c " + mapping.format(1002)),
                lambda: forget_udp([("127.0.0.1", 8053)]),
            ]
            for step in steps:
                step()
                sender.sendto(b"x", ("127.0.0.1", 8053))
                for port, receiver in receivers.items():
                    try:
                        receiver.recv(9)
                    except TimeoutError:
                        continue
                    seen.append(str(port))
        for receiver in receivers.values():
            receiver.close()
        return seen

    assert at(tracked, work) == ["1001", "1001", "1002"]


@pytest.mark.parametrize("ports", [1, 30])
def test_a_hundred_thousand_flows_do_not_matter(tracked: Host, ports: int) -> None:
    """With few ports the kernel picks by port, with many by protocol; a busy resolver's host has that many flows."""
    crowd = [(f"203.{number >> 16}.{number >> 8 & 255}.{number & 255}", 53) for number in range(100_000)]
    send(tracked, *crowd, *[("192.0.2.1", 8000 + port) for port in range(ports)])
    start = time.process_time()
    assert at(tracked, partial(forget_udp, [("", 8000 + port) for port in range(ports)])) == ports
    took = time.process_time() - start
    assert took < (1 if ports <= _conntrack._FEW else 5)
    assert tracked.run("cat /proc/sys/net/netfilter/nf_conntrack_count").stdout == "100000\n"


def test_a_thousand_flows_to_one_mapping_go_in_batches(tracked: Host) -> None:
    def work() -> None:
        for _number in range(1200):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", ("192.0.2.1", 53))

    at(tracked, work)
    there = len(flows(tracked, 53))
    assert there > 1000
    assert at(tracked, partial(forget_udp, [("", 53)])) == there
    assert flows(tracked, 53) == []


def test_a_kernel_that_cannot_filter_is_answered_too(tracked: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.8 the dump has every flow of the family."""
    monkeypatch.setattr(_conntrack, "_only_udp", lambda port: b"")
    send(tracked, ("192.0.2.1", 53), ("192.0.2.1", 54))
    assert at(tracked, partial(forget_udp, [("", 53)])) == 1
    assert flows(tracked, 54) == ["192.0.2.1"]


def test_nothing_to_forget(host: Host) -> None:
    assert at(host, partial(forget_udp, [])) == 0
    assert at(host, partial(forget_udp, [("", 53)])) == 0


def test_without_privilege_it_says_so(tracked: Host) -> None:
    send(tracked, ("192.0.2.1", 53))
    here, there = FORK.Pipe()

    def unprivileged() -> None:
        os.setuid(65534)
        try:
            forget_udp([("", 53)])
        except OSError as error:
            there.send(str(error))

    def work() -> None:
        process = FORK.Process(target=unprivileged)
        process.start()
        process.join(30)

    at(tracked, work)
    assert here.poll(1)
    assert here.recv() == "[Errno 1] Operation not permitted: 'conntrack'"
    assert flows(tracked, 53) == ["192.0.2.1"]
