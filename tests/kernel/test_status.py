"""status against the kernel, and the playbook on a fleet of namespace hosts."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.documents import PEERS, node
from tests.kernel.fleets import UNREACHABLE, Fleet, Run
from tests.kernel.hosts import Host
from tests.kernel.looks import everything

BOOT = Path("/proc/sys/kernel/random/boot_id")


@pytest.fixture
def joined(underlay: Host) -> Host:
    """A node of an overlay of three."""
    underlay.module("topology", document=node(), peers=PEERS)
    return underlay


def status(host: Host, **options: Any) -> dict[str, Any]:
    before = everything(host)
    found = host.module("status", **options)
    assert not found["changed"]
    assert everything(host) == before
    return found


def only(host: Host) -> dict[str, Any]:
    (document,) = status(host)["documents"]
    assert isinstance(document, dict)
    return document


def test_a_host_without_an_overlay_has_no_documents(host: Host) -> None:
    found = status(host, check=True)
    assert (found["documents"], found["watcher"], found["probes"]) == ([], None, [])
    assert abs(found["time"] - time.time()) < 60


def test_a_sound_node(joined: Host) -> None:
    assert only(joined) == {
        "name": "overlay",
        "backend": "vxlan",
        "also": "",
        "network": "",
        "subnet": "10.244.0.0/24",
        "public_ip": "198.51.100.11",
        "peers_digest": "5aed56fa17a6e341",
        "mtu": 1450,
        "sends": {"backend": "vxlan", "tunnel": "flannel.1", "direct_routing": False, "vni": 1, "port": 8472},
        "routes": {"wanted": 2, "present": 2},
        "drift": [],
        "drift_count": 0,
        "shadowed": [],
        "unconfirmed": None,
        "error": "",
    }


def test_routes_that_are_gone_or_lead_elsewhere_are_drift_and_not_present(joined: Host) -> None:
    joined.sh("ip route del 10.244.1.0/24; ip route replace 10.244.2.0/24 via 198.51.100.12 proto 244")
    found = only(joined)
    assert found["routes"] == {"wanted": 2, "present": 0}
    assert found["drift_count"] == len(found["drift"]) == 2
    assert "add route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto podnet" in found["drift"]
    assert any(re.match("(change|replace) route 10.244.2.0/24 ", line) for line in found["drift"])


def test_a_deleted_tunnel_takes_its_routes_along(joined: Host) -> None:
    joined.sh("ip link del flannel.1; sysctl -qw net.ipv4.ip_forward=0")
    found = only(joined)
    assert found["routes"] == {"wanted": 2, "present": 0}
    assert any("link flannel.1" in line for line in found["drift"])
    assert any("net.ipv4.ip_forward" in line for line in found["drift"])


def test_what_a_pod_lacks_is_drift_and_no_route_of_the_node(joined: Host) -> None:
    joined.sh("ip -n web route del default")
    found = only(joined)
    assert (found["routes"], found["drift_count"]) == ({"wanted": 2, "present": 2}, 1)


def test_much_drift_is_counted_and_not_told_line_by_line(underlay: Host) -> None:
    peers = {f"10.244.{number}.0/24": f"198.51.100.{11 + number}" for number in range(151)}
    underlay.module("topology", document=node(), peers=peers)
    underlay.sh("ip route flush proto 244")
    found = only(underlay)
    assert (len(found["drift"]), found["drift_count"]) == (100, 150)
    assert found["routes"] == {"wanted": 150, "present": 0}


@pytest.mark.parametrize(
    ("theirs", "ours"), [("10.244.1.128/25", "10.244.1.0/24"), ("10.244.0.128/25", "10.244.0.1/24")]
)
def test_a_more_specific_foreign_route_is_told_and_is_no_drift(joined: Host, theirs: str, ours: str) -> None:
    joined.sh(f"ip route add {theirs} via 198.51.100.12 proto static; ip route add 10.244.0.77 dev cni0 proto static")
    found = only(joined)
    assert found["drift"] == []
    (line,) = found["shadowed"]
    assert f"route {theirs} " in line
    assert f" {ours} dev " in line or f" {ours} via " in line


def test_several_documents_are_told_each(joined: Host) -> None:
    joined.module("topology", name="lab", document={"links": [{"name": "br-lab", "kind": "bridge"}]})
    joined.sh("ip link del br-lab")
    lab, overlay = sorted(status(joined)["documents"], key=lambda item: str(item["name"]))
    assert (lab["name"], lab["drift_count"], lab["routes"]) == ("lab", 1, {"wanted": 0, "present": 0})
    assert (lab["backend"], lab["mtu"]) == ("", None)
    assert overlay["drift"] == []


def test_what_cannot_be_read_is_told_in_its_place(joined: Host) -> None:
    joined.sh("echo '{\"peers' > /etc/podnet-overlay/overlay.json")
    found = only(joined)
    assert "/etc/podnet-overlay/overlay.json cannot be read" in found["error"]
    assert found["routes"] == {"wanted": 0, "present": 0}


def test_a_first_run_that_was_killed_is_told(host: Host) -> None:
    state = {"version": 2, "name": "overlay", "before": [], "previous": [node(namespaces=[])], "folders": []}
    host.sh(f"mkdir /var/lib/podnet-overlay; echo '{json.dumps(state)}' > /var/lib/podnet-overlay/overlay.json")
    assert only(host)["error"] == "the run that brought it was killed before its end: run it again"


def test_a_change_that_nobody_has_confirmed_is_told_with_the_time_that_is_left(joined: Host) -> None:
    pending = {"name": "overlay", "document": None, "timeout": 30.0, "boot": BOOT.read_text().strip()}
    pending["deadline"] = time.clock_gettime(time.CLOCK_BOOTTIME) + 1000
    joined.sh(
        f"mkdir /var/lib/podnet-overlay/rollback; echo '{json.dumps(pending)}' > /var/lib/podnet-overlay/rollback/overlay.json"
    )
    assert 900 < only(joined)["unconfirmed"] <= 1000
    joined.sh('sed -i \'s/"boot": "[^"]*/&0/\' /var/lib/podnet-overlay/rollback/overlay.json')
    assert only(joined)["unconfirmed"] == 0


def test_the_recorded_probes_are_told_with_their_time(joined: Host) -> None:
    target = {"address": "10.244.0.1", "pod": "db", "node": "node2"}
    joined.module("ping", probes=[{"namespace": "web", "targets": [target]}], count=1, record=True)
    found = status(joined)
    (probe,) = found["probes"]
    assert 0 <= found["time"] - probe.pop("time") < 60
    assert probe == {**target, "namespace": "web", "size": 84, "sent": 1, "received": 1, "error": ""}


METRICS = """# HELP podnet_overlay_repairs_total Objects brought back, by document and kind.
# TYPE podnet_overlay_repairs_total counter
podnet_overlay_repairs_total{document="lab",kind="route"} 1.0
podnet_overlay_repairs_total{document="overlay",kind="link"} 1.0
podnet_overlay_repairs_total{document="overlay",kind="route"} 2.0
podnet_overlay_repair_failures_total{document="overlay"} 4.0
podnet_overlay_held{document="lab"} 1
podnet_overlay_held{document="overlay"} 2
podnet_overlay_last_repair_timestamp_seconds{document="lab"} 1795468400.5
podnet_overlay_last_repair_timestamp_seconds{document="overlay"} 1795468500.5
"""


def test_the_watchers_counters_are_those_of_all_documents(joined: Host) -> None:
    assert status(joined)["watcher"] is None
    joined.sh(f"mkdir -p /run/podnet-overlay; cat > /run/podnet-overlay/metrics.prom <<'end'\n{METRICS}end")
    counted = {"repairs": {"route": 3, "link": 1}, "failures": 4, "held": 3, "last_repair": 1795468500.5}
    assert status(joined)["watcher"] == {**counted, "running": False}


@pytest.mark.parametrize(("ends", "running"), [("true", True), ("false", False)])
def test_whether_the_watcher_runs_is_what_systemd_says(host: Host, ends: str, running: bool) -> None:
    host.sh(
        f"printf '#!/bin/sh\n{ends}\n' > /run/systemctl; chmod +x /run/systemctl; mount --bind /run/systemctl $(command -v systemctl);"
        "mkdir -p /etc/systemd/system; touch /etc/systemd/system/podnet-overlay-watch.service"
    )
    nothing = {"repairs": {}, "failures": 0, "held": 0, "last_repair": None}
    assert status(host)["watcher"] == {**nothing, "running": running}


# ------------------------------------------------------------------------------------------------ the playbook


def table(out: str) -> dict[str, list[str]]:
    """The cells of the nodes' rows."""
    rows = [line.split() for line in out.splitlines() if re.match(r"node\d +\w", line)]
    return {row[0]: row for row in rows}


def as_json(out: str) -> dict[str, dict[str, Any]]:
    found = re.search(r"^\{\n.*?^\}", out, re.MULTILINE | re.DOTALL)
    assert found
    return {row["node"]: row for row in json.loads(found[0])["nodes"]}


def test_the_status_of_a_fleet(trio: Fleet) -> None:
    fresh = table(trio.works("status").out)
    assert {name: row[1:3] for name, row in fresh.items()} == {name: ["no", "overlay"] for name in trio.hosts}

    trio.works("overlay")
    trio.works("verify")
    before = trio.picture()
    sound = trio.works("status")
    assert [row[1] for row in table(sound.out).values()] == ["ok", "ok", "ok"]
    assert table(sound.out)["node2"][1:5] == ["ok", "10.244.1.0/24", "198.51.100.2", "vxlan"]
    assert "3 nodes: 3 ok; 6/6 paths passed when last probed, the oldest probe" in sound.out
    assert "web@node1  web@node3  10.244.2.2" in sound.out

    # Drift, a path that loses, a host that does not answer, one that is not in the inventory any more.
    trio.hosts["node1"].sh("ip route del 10.244.1.0/24")
    assert trio.play("verify").code != 0
    drifted = trio.works("status")
    assert table(drifted.out)["node1"][1] == "drift"
    assert "1/2" in table(drifted.out)["node1"]
    assert "node1: drift: add route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto podnet" in drifted.out
    assert re.search(
        r"^node1: web@node1 to web@node2 10.244.1.2, 84 bytes: 3 of 3 lost, .*; 1450 bytes: 3 of 3 lost, .*; .* ago$",
        drifted.out,
        re.MULTILINE,
    )
    rows = as_json(trio.works("status", "-e", "output=json").out)
    assert rows["node1"]["routes"] == {"wanted": 2, "present": 1}
    assert [probe["received"] for probe in rows["node3"]["probes"]] == [3, 3, 3, 3]
    assert list(table(trio.works("status", "--limit=node2").out)) == ["node2"]

    trio.hosts["node1"].sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 244")
    assert trio.picture() ^ before == set()
    trio.variables["node1"], node1 = {**trio.variables["node1"], **UNREACHABLE}, trio.variables["node1"]
    silent = trio.play("status")
    assert silent.code != 0
    assert "no status from node1" in silent.out
    assert table(silent.out)["node1"][1:4] == ["unreachable", "10.244.0.0/24", "198.51.100.1"]
    assert [table(silent.out)[name][1] for name in ("node2", "node3")] == ["ok", "ok"]

    # A node leaves while another is away: that one's document is outdated when it is back.
    del trio.variables["node3"]
    assert trio.play("overlay").recap["node1"]["unreachable"] == 1
    trio.variables["node1"] = node1
    left = trio.works("status")
    assert [table(left.out)[name][1] for name in ("node1", "node2", "node3")] == ["outdated", "ok", "removed"]
    assert "node1: its document has routes to 2 other nodes, and there are 1: run overlay.yml on it" in left.out


def states(run: Run) -> list[str]:
    return [row[1] for row in table(run.out).values()]


def test_who_holds_the_document_of_an_earlier_run_is_outdated(trio: Fleet) -> None:
    trio.works("overlay")

    # node2 gets another address while node1 is away, which goes on sending to the old one.
    node1 = trio.variables["node1"]
    trio.variables["node1"] = {**node1, **UNREACHABLE}
    trio.hosts["node2"].sh("ip addr del 198.51.100.2/24 dev eth1; ip addr add 198.51.100.22/24 dev eth1")
    trio.variables["node2"]["ansible_host"] = "198.51.100.22"
    trio.play("overlay")
    trio.variables["node1"] = node1
    assert "dst 198.51.100.2 " in trio.hosts["node1"].sh("bridge fdb show dev flannel.1")
    moved = trio.works("status")
    assert states(moved) == ["outdated", "ok", "ok"]
    assert "node1: its document has other subnets or addresses of nodes than the leases: run overlay.yml" in moved.out
    trio.works("overlay")
    assert states(trio.works("status")) == ["ok", "ok", "ok"]

    # node3 alone moves to another backend.
    trio.works("overlay", "--limit=node3", "-e", "overlay_backend=host-gw", "-e", "overlay_move_without=true")
    assert "flannel.1" not in trio.hosts["node3"].links()
    parted = trio.works("status")
    assert states(parted) == ["ok", "ok", "outdated"]
    assert "node3: sends by host-gw, and the inventory says vxlan (VNI 1, port 8472): run overlay.yml" in parted.out
    trio.works("overlay")

    # A run gave out another MTU, and did not come to its end on node2.
    leases = re.sub(r"(node2: .*)mtu: 1450", r"\1mtu: 1400", trio.leases.read_text())
    trio.leases.write_text(leases)
    small = trio.works("status")
    assert states(small) == ["ok", "outdated", "ok"]
    assert "node2: has mtu 1450, and its lease says 1400: run overlay.yml on it" in small.out


def test_no_mistake_in_the_inventory_keeps_the_fleet_from_being_told_of(pair: Fleet) -> None:
    pair.works("overlay")
    pair.group["overlay_public_ip"] = "198.51.100.1"
    answer = pair.works("status")
    assert states(answer) == ["ok", "ok"]
    assert (
        "inventory: node2: overlay_public_ip: 198.51.100.1 is also that of node1; each node needs its own" in answer.out
    )
    assert as_json(pair.works("status", "-e", "output=json").out).keys() == pair.hosts.keys()

    pair.group["overlay_network"] = "10.99.0.0/16"
    pair.leases.write_text(pair.leases.read_text() + "torn: here\n")
    torn = pair.works("status")
    assert states(torn) == ["ok", "ok"]
    assert "torn: unknown key" in torn.out
    pair.variables["node1"]["overlay_pods"] = "{{ nothing }}"
    assert states(pair.works("status")) == ["ok", "ok"]
