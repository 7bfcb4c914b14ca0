"""preflight.yml on a fleet of namespace hosts: what would stop the overlay is found, and nothing is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._underlay import listening_time

from tests.kernel.fleets import UNREACHABLE, Fleet, fleet_of
from tests.kernel.hosts import Host


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(3, tmp_path_factory.mktemp("preflight")) as fleet:
        yield fleet


@pytest.fixture
def fleet(hosts: Fleet) -> Iterator[Fleet]:
    """Three hosts, as they were after each test; this kernel can do VXLAN."""
    group, variables = dict(hosts.group), {name: dict(own) for name, own in hosts.variables.items()}
    yield hosts
    hosts.group, hosts.variables = group, variables
    for host in hosts.hosts.values():
        host.sh("nft flush ruleset; ip link set eth1 mtu 1500 up")


def told(fleet: Fleet, *options: str) -> tuple[dict[str, Any], int]:
    """What it says as data, and its exit code. No host is changed by it."""
    before = fleet.picture()
    done = fleet.play("preflight", "-e", "output=json", *options)
    assert fleet.picture() ^ before == set()
    assert not any(done.changed.values())
    found = re.search(r"^\{$.*?^\}$", done.out, re.DOTALL | re.MULTILINE)
    assert found, done.out
    return json.loads(found[0]), done.code


def drop(host: Host, hook: str, rule: str) -> None:
    host.sh(
        f"nft add table ip t; nft 'add chain ip t {hook} {{ type filter hook {hook} priority 0; }}'; nft 'add rule ip t {hook} {rule}'"
    )


def blockers(answer: dict[str, Any], level: str = "error") -> list[tuple[str, str]]:
    return [(item["host"], item["blocker"]) for item in answer["findings"] if item["level"] == level]


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_fleet_that_can_carry_the_overlay_passes_in_check_mode_too(fleet: Fleet, backend: str) -> None:
    fleet.group["overlay_backend"] = backend
    answer, code = told(fleet, *(["--check"] if backend == "vxlan" else []))
    assert (code, blockers(answer)) == (0, [])
    assert answer["paths"] == {"tried": 6, "whole": 6}
    assert set(answer["underlay"]) == {"node1", "node2", "node3"}


def test_all_faults_are_told_at_once_each_in_a_line_with_its_host(fleet: Fleet) -> None:
    one, two, three = fleet.hosts.values()
    drop(one, "input", "udp dport 8472 drop")
    drop(two, "output", "udp dport 8472 ip daddr 198.51.100.3 drop")
    two.run("ip link add cni0 type bridge")
    three.sh("nft add table ip site; nft 'add chain ip site f { type filter hook forward priority 0; policy drop; }'")
    try:
        answer, code = told(fleet)
    finally:
        two.run("ip link del cni0")
    assert code != 0
    assert sorted(blockers(answer)) == [
        (
            "node1",
            "drops UDP port 8472 (VXLAN) from any other host to node1: table ip t chain input: udp dport 8472 drop",
        ),
        (
            "node2",
            (
                "its own rules forbid UDP port 8472 (VXLAN) from node2 to node3: "
                "table ip t chain output: udp dport 8472 ip daddr 198.51.100.3 drop"
            ),
        ),
        ("node2", "overlay_bridge: the host has a link cni0 that is not the overlay's"),
        ("node3", "table ip site chain f: policy drop drops what pods send to other nodes"),
    ]
    assert answer["summary"] == "3 hosts, 3 of 6 paths carry UDP port 8472: 4 errors, 0 warnings"
    assert all(item["remedy"] for item in answer["findings"])


def test_ipip_is_probed_without_an_ipip_device(fleet: Fleet) -> None:
    fleet.group["overlay_backend"] = "ipip"
    drop(fleet.hosts["node3"], "input", "ip protocol 4 drop")
    done = fleet.play("preflight")
    assert done.code != 0
    words = re.sub(r"\s+", " ", done.out)
    assert "3 hosts, 4 of 6 paths carry protocol 4" in words
    assert "error drops protocol 4 (IPIP) from any other host to node3" in words


def test_a_live_overlay_is_not_disturbed_and_a_new_host_is_not_taken_for_a_filtered_one(fleet: Fleet) -> None:
    new = fleet.variables.pop("node3")
    try:
        fleet.works("overlay")
        limited, code = told(fleet, "--limit=node1,node2")
        assert (code, limited["paths"]) == (0, {"tried": 2, "whole": 2})
        fleet.variables["node3"] = new
        answer, code = told(fleet)
        assert (code, blockers(answer)) == (0, [])
        assert answer["paths"] == {"tried": 6, "whole": 6}
        fleet.works("verify", "--limit=node1,node2")
    finally:
        fleet.variables["node3"] = new
        fleet.works("teardown")
        fleet.leases.unlink(missing_ok=True)


def test_who_cannot_be_reached_or_has_no_python_is_told_and_stops_nobody(fleet: Fleet, tmp_path: Path) -> None:
    fleet.variables["node1"] |= UNREACHABLE
    fleet.variables["node2"]["ansible_python_interpreter"] = str(tmp_path / "python3")
    answer, code = told(fleet)
    assert code != 0
    assert [(host, blocker.partition(": ")[0]) for host, blocker in blockers(answer)] == [
        ("node1", "cannot be reached"),
        ("node2", "no Python for Ansible"),
    ]
    assert answer["summary"].startswith("3 hosts, no path was probed: ")


def test_the_hosts_listen_long_enough_for_all_to_send(fleet: Fleet) -> None:
    done = fleet.works("preflight", "-vvv", "--forks=1")
    assert done.out.count(f"timeout: {float(listening_time(3, 1))}\n") == 9  # of three tasks on three hosts


def test_a_mistake_in_the_inventory_is_told_as_by_overlay_yml_before_any_host_is_contacted(fleet: Fleet) -> None:
    fleet.group["overlay_backend"] = "wireguard"
    assert "overlay_backend" in fleet.refused("preflight")
    assert not fleet.contacted.exists()


def test_another_network_is_judged_before_it_is_given_out(fleet: Fleet) -> None:
    try:
        fleet.works("overlay")
        fleet.group["overlay_network"] = "10.99.0.0/16"
        for playbook in ("preflight", "verify"):
            refusal = fleet.refused(playbook)
            assert "let overlay.yml give every pod another address with -e overlay_renumber=true" in refusal
        answer, code = told(fleet, "-e", "overlay_renumber=true")
        assert (code, blockers(answer)) == (0, [])
        assert answer["paths"] == {"tried": 6, "whole": 6}

        fleet.hosts["node2"].run("ip route add 10.99.2.0/24 via 198.51.100.1")
        answer, code = told(fleet, "-e", "overlay_renumber=true")
        assert code != 0
        ((host, blocker),) = blockers(answer)
        assert (host, "10.99.2.0/24 via 198.51.100.1" in blocker) == ("node2", True)
    finally:
        fleet.hosts["node2"].run("ip route del 10.99.2.0/24", check=False)
        fleet.group.pop("overlay_network", None)
        fleet.works("teardown")
        fleet.leases.unlink(missing_ok=True)
