"""preflight.yml on a fleet of namespace hosts: what would stop the overlay is found, and nothing is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.hosts import Host
from tests.kernel.test_playbooks import UNREACHABLE, Fleet, Run, fleet_of

PROTOCOL = {"ipip": "ip protocol 4", "vxlan": "udp dport 8472"}


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


def shown(fleet: Fleet) -> Run:
    return fleet.play("preflight")


def drop(host: Host, hook: str, rule: str) -> None:
    host.sh(
        f"nft add table ip t; nft 'add chain ip t {hook} {{ type filter hook {hook} priority 0; }}'; nft 'add rule ip t {hook} {rule}'"
    )


def blockers(answer: dict[str, Any], level: str = "error") -> list[tuple[str, str]]:
    return [(item["host"], item["blocker"]) for item in answer["findings"] if item["level"] == level]


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_fleet_that_can_carry_the_overlay_passes(fleet: Fleet, backend: str) -> None:
    fleet.group["overlay_backend"] = backend
    answer, code = told(fleet)
    assert (code, blockers(answer)) == (0, [])
    assert answer["paths"] == {"tried": 6, "whole": 6}
    assert set(answer["underlay"]) == {"node1", "node2", "node3"}


def test_a_filtered_host_and_its_direction_are_one_line(fleet: Fleet) -> None:
    drop(fleet.hosts["node2"], "output", "udp dport 8472 ip daddr 198.51.100.3 drop")
    drop(fleet.hosts["node1"], "input", "udp dport 8472 drop")
    done = shown(fleet)
    assert done.code != 0
    squeezed = re.sub(r"\s+", " ", done.out)
    assert "3 hosts, 3 of 6 paths carry UDP port 8472: 2 errors, 0 warnings" in squeezed
    answer, _code = told(fleet)
    assert sorted(blockers(answer)) == [
        (
            "node1",
            "node1 drops UDP port 8472 (VXLAN) from any other host to node1: table ip t chain input: udp dport 8472 drop",
        ),
        (
            "node2",
            "table ip t chain output: udp dport 8472 ip daddr 198.51.100.3 drop forbids UDP port 8472 (VXLAN) from node2 to node3",
        ),
    ]


def test_ipip_is_probed_without_an_ipip_device(fleet: Fleet) -> None:
    fleet.group["overlay_backend"] = "ipip"
    answer, _code = told(fleet)
    assert answer["paths"] == {"tried": 6, "whole": 6}
    for host in fleet.hosts.values():
        drop(host, "prerouting", "ip protocol 4 drop")
    answer, code = told(fleet)
    assert code != 0
    assert answer["paths"] == {"tried": 6, "whole": 0}


def test_a_live_overlay_is_not_disturbed_and_a_new_host_is_not_taken_for_a_filtered_one(fleet: Fleet) -> None:
    new = fleet.variables.pop("node3")
    try:
        fleet.works("overlay")
        fleet.variables["node3"] = new
        answer, code = told(fleet)
        assert (code, blockers(answer)) == (0, [])
        assert answer["paths"] == {"tried": 6, "whole": 6}
        fleet.works("verify", "--limit=node1,node2")
    finally:
        fleet.works("teardown")
        fleet.leases.unlink(missing_ok=True)


def test_an_unreachable_host_is_told_and_the_others_are_probed(fleet: Fleet) -> None:
    fleet.variables["node1"] |= UNREACHABLE
    answer, code = told(fleet)
    assert code != 0
    ((host, blocker),) = blockers(answer)
    assert (host, blocker.startswith("cannot be reached: ")) == ("node1", True)
    assert answer["paths"] == {"tried": 2, "whole": 2}


def test_a_smaller_path_mtu_names_the_mtu_that_helps_and_with_that_it_passes(fleet: Fleet) -> None:
    for host in (fleet.hosts["node2"], fleet.hosts["node3"]):
        drop(host, "prerouting", "ip length > 1450 counter drop")
    # As a link between would: what is larger than 1450 bytes reaches neither of two hosts.
    drop(fleet.hosts["node1"], "postrouting", "ip length > 1450 counter drop")
    answer, _code = told(fleet)
    assert any(item["remedy"].startswith("overlay_mtu: 1400 for the group") for item in answer["findings"]) or any(
        "ip length" in item["blocker"] for item in answer["findings"]
    )
    fleet.group["overlay_mtu"] = 1400
    answer, code = told(fleet)
    assert (code, blockers(answer)) == (0, [])


def test_what_overlay_yml_would_refuse_and_what_it_would_bring_are_told(fleet: Fleet) -> None:
    fleet.hosts["node1"].sh("ip link add cni0 type bridge")
    try:
        answer, code = told(fleet)
    finally:
        fleet.hosts["node1"].sh("ip link del cni0")
    assert code != 0
    assert blockers(answer) == [("node1", "overlay_bridge: the host has a link cni0 that is not the overlay's")]
    assert answer["findings"][0]["remedy"] == "remove it, or choose another name"


def test_a_mistake_in_the_inventory_is_told_as_by_overlay_yml(fleet: Fleet) -> None:
    fleet.group["overlay_backend"] = "wireguard"
    done = shown(fleet)
    assert done.code != 0
    assert "overlay_backend" in done.out
    assert not fleet.contacted.exists()


def test_a_forward_policy_of_drop_is_an_error_and_a_rule_that_accepts_is_none(fleet: Fleet) -> None:
    host = fleet.hosts["node3"]
    host.sh("nft add table ip site; nft 'add chain ip site f { type filter hook forward priority 0; policy drop; }'")
    answer, code = told(fleet)
    assert code != 0
    assert blockers(answer) == [("node3", "table ip site chain f: policy drop drops what pods send to other nodes")]
    host.sh("nft add rule ip site f ip saddr 10.244.0.0/16 accept")
    answer, code = told(fleet)
    assert (code, blockers(answer)) == (0, [])


def test_a_part_of_the_fleet_is_probed_alone(fleet: Fleet) -> None:
    fleet.works("overlay")
    try:
        answer, code = told(fleet, "--limit=node1,node2")
        assert (code, answer["paths"]) == (0, {"tried": 2, "whole": 2})
    finally:
        fleet.works("teardown")
        fleet.leases.unlink(missing_ok=True)


def test_check_mode_does_the_same(fleet: Fleet) -> None:
    answer, code = told(fleet, "--check")
    assert (code, answer["paths"]) == (0, {"tried": 6, "whole": 6})


def test_no_python_is_told(fleet: Fleet, tmp_path: Path) -> None:
    fleet.variables["node2"]["ansible_python_interpreter"] = str(tmp_path / "python3")
    answer, code = told(fleet)
    assert code != 0
    ((host, blocker),) = blockers(answer)
    assert (host, blocker.startswith("no Python for Ansible")) == ("node2", True)
