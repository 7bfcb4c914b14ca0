# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _status_table
from ansible_collections.podnet.overlay.plugins.module_utils._inventory import Settings
from ansible_collections.podnet.overlay.plugins.module_utils._leases import Lease, Leases
from ansible_collections.podnet.overlay.plugins.module_utils._peers import digest
from ansible_collections.podnet.overlay.plugins.module_utils._status_table import Row

NOW = 1_800_000_000.0
UNREACHABLE = {"unreachable": True, "msg": "Task failed: timed out\nand more"}
WATCHER: dict[str, Any] = {"running": True, "repairs": {}, "failures": 0, "held": 0, "last_repair": None}


def lease(number: int, **more: Any) -> Lease:
    return Lease(ipaddress.IPv4Network(f"10.244.{number}.0/24"), f"198.51.100.{number}", **more)


def leases(*numbers: int, **removed: Lease) -> Leases:
    nodes = {f"node{number}": lease(number) for number in numbers}
    return Leases(ipaddress.IPv4Network("10.244.0.0/16"), nodes, removed)


def document(number: int, wanted: int = 1, **changes: Any) -> dict[str, Any]:
    drift = changes.get("drift", [])
    return {
        "name": "overlay",
        "backend": "ipip",
        "network": "10.244.0.0/16",
        "subnet": f"10.244.{number}.0/24",
        "public_ip": f"198.51.100.{number}",
        "mtu": 1480,
        "routes": {"wanted": wanted, "present": wanted},
        "drift": drift,
        "drift_count": len(drift),
        "shadowed": [],
        "unconfirmed": None,
        "error": "",
        **changes,
    }


def probe(received: int = 3, age: float = 150, size: int = 84, number: int = 2, **more: Any) -> dict[str, Any]:
    words = {"namespace": "web", "address": f"10.244.{number}.2", "pod": "db", "node": f"node{number}"}
    error = "" if received == 3 else "no answer"
    return {**words, "size": size, "sent": 3, "received": received, "error": error, "time": NOW - age, **more}


def host(*documents: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"version": 1, "time": NOW, "documents": list(documents), "watcher": WATCHER, "probes": [], **changes}


def rows(
    told: dict[str, dict[str, Any]], known: Leases | None, whole: bool = True, settings: Settings | None = None
) -> list[Row]:
    return _status_table.rows(list(told), told, known, "overlay", whole, settings)


def one(told: dict[str, Any], known: Leases | None = None, settings: Settings | None = None) -> Row:
    return rows({"node1": told}, known or leases(1, 2), settings=settings)[0]


def remarks(row: Row) -> list[str]:
    found: list[str] = row.data()["remarks"]
    return found


def test_a_fleet_as_a_table() -> None:
    drift = "add route 10.244.1.0/24 via 198.51.100.1 dev flannel.ipip onlink proto podnet"
    missing = {"routes": {"wanted": 2, "present": 1}, "drift": [drift]}
    repaired = {**WATCHER, "repairs": {"route": 2, "link": 1}, "last_repair": NOW - 7300}
    told = {
        "node1": host(document(1, 2), watcher=repaired, probes=[probe(), probe(0, 7200, 1480)]),
        "node2": host(document(2, **missing), watcher={**WATCHER, "running": False}),
        "node3": UNREACHABLE,
        "node4": host(watcher=None),
    }
    found = rows(told, leases(1, 2, 3, node7=lease(7, reason="playbook")))
    assert _status_table.render(found, 40).splitlines() == [
        "node   state        subnet         public_ip     backend  watcher  routes  drift  repairs  paths   probed",
        "---------------------------------------------------------------------------------------------------------",
        "node1  ok           10.244.1.0/24  198.51.100.1  ipip     running     2/2      0        3    0/1  2 h ago",
        "node2  drift        10.244.2.0/24  198.51.100.2  ipip     stopped     1/2      1        0      -        -",
        "node3  unreachable  10.244.3.0/24  198.51.100.3  -        -             -      -        -      -        -",
        "node4  no overlay   -              -             -        -             -      -        -      -        -",
        "node7  removed      10.244.7.0/24  198.51.100.7  -        -             -      -        -      -        -",
        "",
        "from       to        address     bytes: received/sent  probed",
        "--------------------------------------------------------------",
        "web@node1  db@node2  10.244.2.2  84: 3/3, 1480: 0/3    2 h ago",
        "",
        "node1: watcher: repaired 1 link, 2 route; last repair 2 h ago",
        "node1: web@node1 to db@node2 10.244.2.2, 1480 bytes: 3 of 3 lost, no answer; 2 h ago",
        f"node2: drift: {drift}",
        "node3: unreachable: timed out",
        "node4: has no overlay: run overlay.yml on it",
        "",
        "5 nodes: 1 ok, 1 removed, 1 no overlay, 1 drift, 1 unreachable; 0/1 paths passed when last probed, the oldest probe 2 h ago",
    ]


@pytest.mark.parametrize(
    ("told", "state", "remark"),
    [
        (host(document(1)), "ok", ""),
        (host(document(1), watcher=None), "ok", ""),
        (host(document(1, drift=["add link cni0"])), "drift", "drift: add link cni0"),
        (host(document(1, shadowed=["route 10.244.2.0/25 dev eth1"])), "ok", "shadowed: route 10.244.2.0/25 dev eth1"),
        (
            host(document(1, unconfirmed=12.4)),
            "unconfirmed",
            "a change waits to be confirmed, and is undone in 12 s",
        ),
        (host(document(1, error="the saved state is torn")), "error", "error: the saved state is torn"),
        (host(document(9)), "outdated", "has subnet 10.244.9.0/24, and its lease says 10.244.1.0/24: run"),
        (
            host(document(1, public_ip="203.0.113.1")),
            "outdated",
            "has public_ip 203.0.113.1, and its lease says 198.51.100.1: run overlay.yml on it",
        ),
        (
            host(document(1, 4)),
            "outdated",
            "its document has routes to 4 other nodes, and there are 1: run overlay.yml on it",
        ),
        (UNREACHABLE, "unreachable", "unreachable: timed out"),
        ({"failed": True, "msg": "pyroute2 is not installed"}, "failed", "failed: pyroute2 is not installed"),
        ({}, "failed", "failed: was not asked, or failed before"),
        (host(), "no overlay", "has no overlay: run overlay.yml on it"),
        (
            host(document(1), document(9, name="lab", drift=["add link br0"], error="")),
            "ok",
            "document lab: drift: add link br0",
        ),
        (
            host(document(1), watcher={**WATCHER, "failures": 1, "held": 2}),
            "ok",
            "watcher: 1 repairs failed; 2 objects left alone, since something keeps undoing the repair",
        ),
    ],
)
def test_the_state_of_a_node_and_why(told: dict[str, Any], state: str, remark: str) -> None:
    row = one(told)
    assert row.state == state
    assert (not remarks(row)) if not remark else any(line.startswith(remark) for line in remarks(row))


def test_without_leases_a_node_is_told_all_the_same() -> None:
    (row,) = rows({"node1": host(document(1, drift=["x"]))}, None)
    assert row.state == "drift"
    (row,) = rows({"node1": host(document(1))}, None)
    assert (row.state, remarks(row)) == ("ok", [])
    (row,) = rows({"node1": host(document(1))}, leases())
    assert (row.state, remarks(row)) == ("outdated", ["has no lease: run overlay.yml on it"])


def table(*addresses: str) -> dict[str, str]:
    return {f"10.244.{number}.0/24": address for number, address in enumerate(addresses, 1)}


def test_who_has_another_table_of_nodes_than_the_leases_is_outdated() -> None:
    old, new = table("198.51.100.1", "198.51.100.9"), table("198.51.100.1", "198.51.100.2")
    row = one(host(document(1, peers_digest=digest(old))))
    assert row.state == "outdated"
    assert remarks(row) == [
        "its document has other subnets or addresses of nodes than the leases: run overlay.yml on it"
    ]
    assert one(host(document(1, peers_digest=digest(new)))).state == "ok"
    kept_out = leases(1, 2, node3=lease(3, reason="playbook"))
    assert one(host(document(1, peers_digest=digest(new))), kept_out).state == "ok"


def test_a_node_of_another_address_or_of_more_nodes_is_told_so_once() -> None:
    changed = document(1, public_ip="198.51.100.9", peers_digest=digest(table("198.51.100.9", "198.51.100.2")))
    assert len(remarks(one(host(changed)))) == 1
    more = document(1, 2, peers_digest=digest(table("198.51.100.1", "198.51.100.2", "198.51.100.3")))
    assert len(remarks(one(host(more)))) == 1


def test_a_node_that_came_back_to_the_inventory_is_outdated_until_the_others_know_it() -> None:
    known = leases(2, 3, node1=lease(1, reason="inventory"))
    assert one(host(document(1, 2, peers_digest=digest(table("198.51.100.1")))), known).state == "outdated"


def test_an_mtu_that_is_not_the_leases_is_outdated() -> None:
    known = Leases(leases().network, {"node1": lease(1, mtu=1400), "node2": lease(2)})
    row = one(host(document(1, mtu=1450)), known)
    assert row.state == "outdated"
    assert remarks(row) == ["has mtu 1450, and its lease says 1400: run overlay.yml on it"]
    assert one(host(document(1, mtu=1400)), known).state == "ok"


SETTINGS = Settings(leases().network, 24, "vxlan", tunnel="flannel.1")
SENDS = {"backend": "vxlan", "tunnel": "flannel.1", "direct_routing": False, "vni": 1, "port": 8472}


@pytest.mark.parametrize(
    ("sends", "words"),
    [
        ({}, ""),
        ({"tunnel": "pods0"}, ""),
        ({"backend": "host-gw", "tunnel": None, "vni": None, "port": None}, "host-gw"),
        ({"direct_routing": True}, "vxlan (VNI 1, port 8472) with direct routing"),
        ({"vni": 7}, "vxlan (VNI 7, port 8472)"),
    ],
)
def test_who_sends_otherwise_than_the_inventory_says_is_outdated(sends: dict[str, Any], words: str) -> None:
    row = one(host(document(1, sends={**SENDS, **sends})), settings=SETTINGS)
    assert row.state == ("outdated" if words else "ok")
    said = f"sends by {words}, and the inventory says vxlan (VNI 1, port 8472): run overlay.yml on it"
    assert remarks(row) == ([said] if words else [])


def test_on_the_way_to_another_backend_a_node_is_outdated_by_that_alone() -> None:
    known = Leases(leases().network, {"node1": lease(1, mtu=1500), "node2": lease(2)})
    step = document(1, also="host-gw", mtu=1450, sends=SENDS)
    row = one(host(step), known, Settings(leases().network, 24, "host-gw", tunnel=None))
    assert row.state == "outdated"
    assert remarks(row) == [
        "takes what host-gw brings too, on the way from one backend to another: run overlay.yml on all nodes"
    ]


def test_a_removed_node_is_told_by_what_its_host_still_carries() -> None:
    known = leases(2, node1=lease(1, reason="playbook"), node3=lease(3, reason="inventory"))
    told = {"node1": host(document(1)), "node2": host(document(2, 0)), "node3": host()}
    found = {row.node: row for row in rows(told, known)}
    assert [row.state for row in found.values()] == ["removed", "ok", "no overlay"]
    assert remarks(found["node1"]) == ["is removed, and still carries the overlay: run teardown.yml on it"]
    assert remarks(one(UNREACHABLE, known)) == [
        "is removed, and did not answer (timed out): if it comes back, run teardown.yml on it"
    ]
    assert remarks(one(host(), known)) == []


def test_a_subnet_that_a_removed_node_gave_up_is_not_its() -> None:
    (row,) = rows({}, leases(node7=lease(7, reason="playbook", freed=True)))
    assert row.data()["subnet"] == ""


def test_where_hosts_were_left_out_so_are_removed_nodes() -> None:
    known = leases(1, 2, node7=lease(7, reason="playbook"))
    assert [row.node for row in rows({"node1": host(document(1))}, known, whole=False)] == ["node1"]


def test_as_data() -> None:
    told = {"node1": host(document(1), probes=[probe(2)]), "node2": UNREACHABLE}
    found = json.loads(json.dumps(_status_table.data(rows(told, leases(1, 2)))))
    assert found["nodes"][0] == {
        **{
            key: document(1)[key]
            for key in ("subnet", "public_ip", "backend", "mtu", "routes", "drift", "drift_count", "shadowed")
        },
        "node": "node1",
        "state": "ok",
        "reason": "",
        "unconfirmed": None,
        "watcher": WATCHER,
        "probes": [
            {
                "from": "web@node1",
                "to": "db@node2",
                "address": "10.244.2.2",
                "size": 84,
                "sent": 3,
                "received": 2,
                "error": "no answer",
                "age": 150,
            }
        ],
        "remarks": ["web@node1 to db@node2 10.244.2.2, 84 bytes: 1 of 3 lost, no answer; 2 min ago"],
    }
    assert found["nodes"][1]["subnet"] == "10.244.2.0/24"
    assert found["nodes"][1]["reason"] == "timed out"


def test_a_large_fleet_shows_the_worst_nodes_first_and_no_more_lines_than_asked_for() -> None:
    numbers = range(1, 101)
    told = {f"node{n}": host(document(n, 99), probes=[probe(number=n + 1)]) for n in numbers}
    told["node42"] = host(document(42, 99, drift=[f"add route {n}" for n in range(100)], drift_count=150))
    told["node43"] = UNREACHABLE
    found = rows(told, leases(*numbers))
    lines = _status_table.render(found, 10).splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["node43", "unreachable"],
        ["node42", "drift"],
        ["node1", "ok"],
    ]
    assert "and 90 more nodes" in lines
    assert "node42: drift: and 142 more" in lines
    assert lines[-1].startswith("100 nodes: 98 ok, 1 drift, 1 unreachable; 98/98 paths passed")
    assert len(lines) < 30
    assert (found[41].data()["drift_count"], len(found[41].data()["drift"])) == (150, 100)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s ago"), (119, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (9e5, "10 d ago")]
)
def test_ages(seconds: float, text: str) -> None:
    assert _status_table.ago(seconds) == text
