"""The leases file: readable, whole, and refused where it cannot be right."""

from __future__ import annotations

import os
import pathlib
import stat
import threading
from ipaddress import IPv4Network
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _leases
from ansible_collections.podnet.overlay.plugins.module_utils._leases import (
    Lease,
    Leases,
    load,
    locked,
    overlaps,
    parse,
    render,
    save,
)
from ansible_collections.podnet.overlay.plugins.module_utils._model import Mistakes
from hypothesis import given
from hypothesis import strategies as st

NETWORK = IPv4Network("10.244.0.0/16")
LEASES = Leases(
    NETWORK,
    {
        "node10": Lease(IPv4Network("10.244.1.0/24"), "198.51.100.12", 1480),
        "node2": Lease(IPv4Network("10.244.0.0/24"), "198.51.100.11", 1480, {"web": "10.244.0.2", "on": "10.244.0.3"}),
    },
    {"198.51.100.13": Lease(IPv4Network("10.244.2.0/24"), "198.51.100.13", reason="inventory")},
)
TEXT = """\
# The leases of podnet.overlay, written by overlay.yml: who has which subnet. Commit this file.
version: 1
network: 10.244.0.0/16
nodes:
  node2: {subnet: 10.244.0.0/24, public_ip: 198.51.100.11, mtu: 1480, pods: {web: 10.244.0.2, "on": 10.244.0.3}}
  node10: {subnet: 10.244.1.0/24, public_ip: 198.51.100.12, mtu: 1480}
removed:
  "198.51.100.13": {subnet: 10.244.2.0/24, public_ip: 198.51.100.13, reason: inventory}
"""


def test_a_line_for_each_node_in_their_natural_order() -> None:
    assert render(LEASES) == TEXT
    assert parse(TEXT, "leases") == LEASES


names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)
leases = st.dictionaries(names, st.integers(0, 255), max_size=8).map(
    lambda blocks: Leases(
        NETWORK,
        {
            name: Lease(IPv4Network(f"10.244.{block}.0/24"), "192.0.2.1", None, {name: f"10.244.{block}.9"})
            for name, block in {block: (name, block) for name, block in blocks.items()}.values()
        },
    )
)


@given(leases)
def test_what_is_written_is_read_back(item: Leases) -> None:
    assert parse(render(item), "leases", NETWORK) == item


def test_a_freed_subnet_is_in_nobodys_way() -> None:
    freed = Lease(IPv4Network("10.244.1.0/24"), "198.51.100.14", reason="playbook", freed=True)
    item = Leases(NETWORK, LEASES.nodes, {"node7": freed})
    assert render(item).endswith(
        "  node7: {subnet: 10.244.1.0/24, public_ip: 198.51.100.14, reason: playbook, freed: true}\n"
    )
    assert parse(render(item), "leases", NETWORK) == item


def test_leases_move_to_another_network_with_all_that_is_in_them() -> None:
    there = _leases.moved(LEASES, IPv4Network("172.30.0.0/20"), "leases")
    assert render(there) == TEXT.replace("10.244.0.0/16", "172.30.0.0/20").replace("10.244.", "172.30.")
    assert _leases.moved(there, NETWORK, "leases") == LEASES
    with pytest.raises(Mistakes) as caught:
        _leases.moved(LEASES, IPv4Network("172.30.0.0/23"), "leases")
    assert caught.value.lines == [
        "leases: 198.51.100.13: subnet: 10.244.2.0/24 of 10.244.0.0/16 has no counterpart in 172.30.0.0/23; choose a larger network"
    ]


@given(st.integers(0, len(TEXT) - 2))
def test_a_torn_file_is_refused_or_has_lost_no_node(length: int) -> None:
    try:
        read = parse(TEXT[:length], "leases")
    except Mistakes:
        return
    assert read.nodes == LEASES.nodes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty or torn"),
        ("nodes: [", "is not YAML"),
        ("<<<<<<< HEAD\nversion: 1\n", "is not YAML"),
        ("version: 1\nnetwork: 10.244.0.0/16\nnodes: {a: 2001-99-99}\nremoved: {}\n", "is not YAML (month must be in"),
        (TEXT.replace("version: 1", "version: !!bool perhaps"), "is not YAML"),
        (TEXT.replace("version: 1", "version: 2"), "version: 2 is not 1"),
        (TEXT.replace("10.244.0.0/16", "10.245.0.0/16"), "network: 10.245.0.0/16 is not overlay_network 10.244.0.0/16"),
        (TEXT[: TEXT.index("removed")], "removed: is missing"),
        (TEXT.replace("10.244.1.0/24", "10.244.0.128/25"), "overlaps 10.244.0.0/24 of node2"),
        (TEXT.replace("10.244.1.0/24", "10.1.1.0/24"), "nodes: node10: subnet: 10.1.1.0/24 is outside 10.244.0.0/16"),
        (
            TEXT.replace("web: 10.244.0.2", "web: 10.244.9.2"),
            "nodes: node2: pods: web: 10.244.9.2 is outside 10.244.0.0/24",
        ),
        (TEXT.replace("public_ip: 198.51.100.12, ", ""), "nodes: node10: 'None' is no IPv4 address"),
        (TEXT.replace("mtu: 1480}", "mut: 1480}"), "nodes: node10: unknown key mut"),
        (
            TEXT.replace("reason: inventory", "reason: mood"),
            "removed: 198.51.100.13: reason: 'mood' is none of inventory, playbook",
        ),
        (
            TEXT.replace("reason: inventory", "freed: 1"),
            "removed: 198.51.100.13: freed: 1 is neither true nor false",
        ),
        (TEXT.replace("mtu: 1480}", "freed: true}"), "nodes: node10: unknown key freed"),
    ],
)
def test_a_file_that_can_not_be_right_is_refused(text: str, says: str) -> None:
    with pytest.raises(Mistakes) as caught:
        parse(text, "/x/leases.yml", NETWORK)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith("/x/leases.yml: ")
    assert says in caught.value.lines[0]


@given(st.lists(st.tuples(st.integers(0, 63), st.integers(24, 30)), max_size=12))
def test_every_subnet_that_overlaps_is_found(items: list[tuple[int, int]]) -> None:
    subnets = [
        (str(at), IPv4Network((0x0AF40000 + 16 * block, length), strict=False))
        for at, (block, length) in enumerate(items)
    ]
    found = list(overlaps(subnets))
    known = dict(subnets)
    assert all(known[one].overlaps(known[other]) for one, other in found)
    guilty = {name for name, subnet in subnets for other, its in subnets if other != name and subnet.overlaps(its)}
    assert {name for pair in found for name in pair} == guilty


def test_a_file_keeps_its_mode_and_leaves_nothing_beside_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "leases.yml"
    assert load(str(path)) is None
    save(str(path), LEASES)
    path.chmod(0o640)
    save(str(path), Leases(NETWORK))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert load(str(path), NETWORK) == Leases(NETWORK)
    assert os.listdir(tmp_path) == ["leases.yml"]
    save(str(path), None)
    assert os.listdir(tmp_path) == []


def test_a_link_stays_a_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "leases.yml"
    link.symlink_to(tmp_path / "real" / "leases.yml")
    save(str(link), LEASES)
    assert link.is_symlink()
    assert load(str(link)) == LEASES


def test_a_failed_write_leaves_the_old_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "leases.yml"
    save(str(path), LEASES)

    def full(_descriptor: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_leases.os, "fsync", full)
    with pytest.raises(Mistakes, match="cannot be written: No space left"):
        save(str(path), Leases(NETWORK))
    assert load(str(path)) == LEASES
    assert os.listdir(tmp_path) == ["leases.yml"]


def test_a_folder_that_is_not_there_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Mistakes, match="cannot be written: No such file"):
        save(str(tmp_path / "no" / "leases.yml"), LEASES)
    with pytest.raises(Mistakes, match="cannot be made: No such file"), locked(str(tmp_path / "no" / "leases.yml")):
        pytest.fail("the lock was given")
    assert not os.listdir(tmp_path)


def test_only_one_holds_the_lock(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "leases.yml")
    with locked(path):
        assert os.listdir(tmp_path) == [".leases.yml.lock"]
        with pytest.raises(Mistakes, match="another run has held its lock"), locked(path, 0.05):
            pytest.fail("the lock was given twice")
        assert os.listdir(tmp_path) == [".leases.yml.lock"]
    assert os.listdir(tmp_path) == []


def test_the_lock_keeps_out_all_others_at_any_time(tmp_path: pathlib.Path) -> None:
    path, inside, most = str(tmp_path / "leases.yml"), [], []

    def work() -> None:
        for _round in range(20):
            with locked(path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80
