# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the kernel's notifications concern a document."""

from __future__ import annotations

import ipaddress
import os
import pathlib
import socket
import struct
from collections.abc import Iterator

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _events
from ansible_collections.podnet.overlay.plugins.module_utils._events import Interest, Listener, concerns, process_name
from ansible_collections.podnet.overlay.plugins.module_utils._model import LINKS
from ansible_collections.podnet.overlay.plugins.module_utils._netlink import Message, attribute
from ansible_collections.podnet.overlay.plugins.module_utils._watch import _destination
from hypothesis import given
from hypothesis import strategies as st

INTEREST = Interest(
    frozenset({"cni0", "eth0", "tun"}),
    frozenset({_destination("10.244.1.0/24"), _destination("0.0.0.0/0")}),
    frozenset({_destination("10.244.1.0/24")}),
    frozenset({"10.244.1.0", "0e:58:0a:f4:01:00"}),
)


def link(name: str, kind: int = 16) -> Message:
    return Message(kind, 0, 0, bytes(16) + attribute(3, name.encode() + b"\0"))


def address(label: str) -> Message:
    return Message(20, 0, 0, struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 5) + attribute(3, label.encode() + b"\0"))


def route(destination: str, family: int = socket.AF_INET, table: int = 254) -> Message:
    network = ipaddress.IPv4Network(destination)
    header = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, table, 4, 0, 1, 0)
    return Message(24, 0, 0, header + (attribute(1, network.network_address.packed) if network.prefixlen else b""))


def neighbour(family: int, text: str) -> Message:
    header = struct.pack("=BxxxiHBB", family, 5, 0x80, 0, 1)
    if family == socket.AF_INET:
        return Message(28, 0, 0, header + attribute(1, socket.inet_aton(text)))
    return Message(28, 0, 0, header + attribute(2, bytes.fromhex(text.replace(":", ""))))


def test_a_link_counts_by_its_name() -> None:
    assert concerns(link("cni0"), INTEREST)
    assert concerns(link("cni0", 17), INTEREST)
    assert not concerns(link("docker0"), INTEREST)
    assert not concerns(Message(16, 0, 0, bytes(16)), INTEREST)


def test_an_address_counts_by_its_link() -> None:
    assert concerns(address("cni0"), INTEREST)
    assert concerns(address("cni0:1"), INTEREST)
    assert not concerns(address("cni01"), INTEREST)


def test_routes_of_ipv6_and_of_the_table_local_are_not_ours() -> None:
    assert concerns(route("10.244.1.0/24"), INTEREST)
    assert concerns(route("0.0.0.0/0"), INTEREST)
    assert not concerns(route("10.244.1.0/24", table=255), INTEREST)
    assert not concerns(route("10.244.1.0/24", family=socket.AF_INET6), INTEREST)


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_a_route_counts_if_it_is_one_of_ours_or_more_specific(number: int, length: int) -> None:
    network = ipaddress.IPv4Network((number, length), strict=False)
    ours = ipaddress.IPv4Network("10.244.1.0/24")
    expected = str(network) in ("0.0.0.0/0", "10.244.1.0/24") or network.subnet_of(ours)
    assert concerns(route(str(network)), INTEREST) == expected


@given(st.integers(0, 255), st.integers(24, 32))
def test_a_route_within_ours_counts(number: int, length: int) -> None:
    network = ipaddress.IPv4Network((f"10.244.1.{number}", length), strict=False)
    assert concerns(route(str(network)), INTEREST)


def test_neighbours_count_by_their_address_and_forwarding_entries_by_their_mac() -> None:
    assert concerns(neighbour(socket.AF_INET, "10.244.1.0"), INTEREST)
    assert not concerns(neighbour(socket.AF_INET, "10.244.3.0"), INTEREST)
    assert concerns(neighbour(socket.AF_BRIDGE, "0e:58:0a:f4:01:00"), INTEREST)
    assert not concerns(neighbour(socket.AF_BRIDGE, "0e:58:0a:f4:02:00"), INTEREST)
    assert not concerns(Message(28, 0, 0, struct.pack("=BxxxiHBB", socket.AF_INET6, 5, 2, 0, 1)), INTEREST)


def test_forwarding_counts_whatever_the_interface_and_nothing_else_does() -> None:
    assert concerns(Message(80, 0, 0, struct.pack("=Bxxx", socket.AF_INET) + attribute(2, bytes(4))), INTEREST)
    assert not concerns(Message(80, 0, 0, struct.pack("=Bxxx", socket.AF_INET) + attribute(3, bytes(4))), INTEREST)
    assert not concerns(Message(3, 0, 0, b""), INTEREST)


def test_a_process_that_caused_it_has_a_name_but_not_the_kernel_or_this_one() -> None:
    assert process_name(0) == ""
    assert process_name(os.getpid()) == ""
    assert process_name(os.getppid()) == pathlib.Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8").strip()
    assert process_name(1 << 31) == ""


def test_the_first_process_of_a_container_and_threads_of_the_kernel_are_not_named() -> None:
    """A container's processes have its own numbers as ports, which are others' here."""
    threads = [path.parent.name for path in pathlib.Path("/proc").glob("[0-9]*/exe") if not _is_program(path)]
    for port in (1, *map(int, threads)):
        assert process_name(port) == ""


def _is_program(path: pathlib.Path) -> bool:
    try:
        return bool(os.readlink(path))
    except OSError:
        return False


class _Read(frozenset[tuple[int, int]]):
    """Counts how often it is gone through."""

    times = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        _Read.times += 1
        return super().__iter__()


def test_a_foreign_route_costs_the_same_however_many_routes_there_are() -> None:
    interest = Interest(covering=_Read({_destination("10.244.1.0/24"), _destination("10.244.2.0/24")}))
    for _event in range(5):
        assert not concerns(route("203.0.113.0/25"), interest)
        assert concerns(route("10.244.2.128/25"), interest)
    assert _Read.times == 1


@pytest.fixture
def _no_namespaces(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others on this machine may delete some."""
    monkeypatch.setattr(_events, "NETNS_FOLDER", str(tmp_path / "netns"))


@pytest.mark.usefixtures("_no_namespaces")
def test_files_of_interest_and_the_end_of_a_run_are_heard(tmp_path: pathlib.Path) -> None:
    ours, other, lock = tmp_path / "ours.conf", tmp_path / "other.conf", tmp_path / "lock"
    interest = Interest(paths=frozenset({str(ours)}))
    with Listener(str(lock)) as listener:
        assert listener.wait(interest, 0.05) is None
        other.write_text("x")
        assert listener.wait(interest, 0.1) is None
        ours.write_text("x")
        heard = listener.wait(interest, 1)
        assert heard is not None
        assert set(heard) == {LINKS}
        (tmp_path / ".new").write_text("y")
        os.replace(tmp_path / ".new", ours)
        assert listener.wait(interest, 1) is not None
        ours.unlink()
        assert listener.wait(interest, 1) is not None
        with open(lock, "w", encoding="utf-8"):
            pass
        heard = listener.wait(interest, 1)
        assert heard == {}


@pytest.mark.usefixtures("_no_namespaces")
def test_files_of_other_programs_are_heard_in_folders_that_come_later_too(tmp_path: pathlib.Path) -> None:
    told = tmp_path / "conf.d" / "told.conf"
    interest = Interest(settings=frozenset({str(told)}))
    with Listener(str(tmp_path / "lock")) as listener:
        assert listener.wait(interest, 0.05) is None
        told.parent.mkdir()
        told.write_text("x")
        assert listener.wait(interest, 0.05) is None
        told.unlink()
        assert listener.wait(interest, 1) is not None


@pytest.mark.usefixtures("_no_namespaces")
def test_more_files_than_the_kernel_remembers_may_have_been_any(tmp_path: pathlib.Path) -> None:
    ours = tmp_path / "ours.conf"
    most = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    with Listener(str(tmp_path / "lock")) as listener:
        interest = Interest(paths=frozenset({str(ours)}))
        assert listener.wait(interest, 0.05) is None
        for number in range(most // 2 + 10):
            name = str(tmp_path / str(number % 2))
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT))
            os.unlink(name)
        ours.write_text("x")
        heard = listener.wait(interest, 2)
        assert heard
