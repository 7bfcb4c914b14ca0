"""A fleet's nodes come, change and leave: what each change costs the others, and what is left of who left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.fleets import UNREACHABLE, Fleet, Run, pods, told
from tests.kernel.hosts import CHECKOUT, Host
from tests.kernel.looks import routes

EVERYWHERE = {f"10.244.{number}.0/24" for number in range(3)}
BOTH = {"10.244.0.0/24", "10.244.1.0/24"}


def told_of(run: Run) -> dict[str, set[str]]:
    """Each host's lines of the run's diffs."""
    parts = re.split(r"^changed: \[(\S+)\]$", run.out, flags=re.MULTILINE)
    return {host: told(Run(0, lines)) for lines, host in zip(parts[::2], parts[1::2])}


def removed(fleet: Fleet) -> str:
    """The part of the leases file that says who was removed."""
    return fleet.leases.read_text().partition("removed:")[2]


def of_host(fleet: Fleet, name: str) -> set[str]:
    return {line for line in fleet.picture() if line.startswith(f"{name}: ")}


def test_a_node_is_removed_and_stays_out(trio: Fleet) -> None:
    before = of_host(trio, "node3")
    trio.works("overlay")
    addresses = pods(trio)

    predicted = trio.works("remove", "-e", "node=node3", "--check", "--diff")
    assert trio.subnets("node1") == EVERYWHERE
    done = trio.works("remove", "-e", "node=node3", "--diff")
    assert predicted.changed == done.changed
    assert trio.subnets("node1") == trio.subnets("node2") == BOTH
    assert of_host(trio, "node3") == before
    assert re.search(r"node3: {subnet: 10.244.2.0/24, .*reason: playbook}", removed(trio))
    assert "still" not in done.out

    # Nothing is left to do, and no run brings it back.
    again = trio.works("remove", "-e", "node=node3")
    assert "node3: was removed before" in again.out
    later = trio.works("overlay")
    for run in (again, later):
        assert not any(run.changed.values())
    assert "node3: removed by a playbook, so left out" in later.out
    assert of_host(trio, "node3") == before

    # It is let in, and has what it had.
    trio.leases.write_text(trio.leases.read_text().replace(", reason: playbook", ""))
    trio.works("overlay")
    assert pods(trio) == addresses
    assert trio.subnets("node1") == EVERYWHERE


def test_where_pods_run_a_node_stays_unless_forced(trio: Fleet) -> None:
    trio.works("overlay")
    host = trio.hosts["node3"]
    host.sh("ip link add veth0815 type veth peer name eth9; ip link set veth0815 master cni0")
    process = host.popen("ip", "netns", "exec", "web", "sleep", "300")
    try:
        said = trio.refused("remove", "-e", "node=node3")
        assert (
            "node3: pods run there: web (1 process), veth0815 (a port of the bridge that is not the overlay's, as a "
            "container has); end them, or set force=true" in " ".join(said.split())
        )
        trio.works("remove", "-e", "node=node3", "-e", "force=true")
    finally:
        process.kill()
        process.wait()
    assert trio.subnets("node1") == BOTH
    assert "cni0" not in host.links()


def test_who_can_not_be_removed_is_told_before_a_host_is_contacted(trio: Fleet) -> None:
    trio.works("overlay")
    for options, line in (
        ((), "overlay: node: say which one leaves, as in -e node=node1"),
        (("-e", "node=nod3"), "nod3: is neither in the group overlay nor in"),
        (("-e", "node=node3", "--limit=node3"), "overlay: --limit leaves out node1, node2, which would keep"),
    ):
        assert line in trio.refused("remove", *options)
        assert not trio.contacted.exists()


def test_a_variable_node_that_each_host_has_of_its_own_removes_nobody(trio: Fleet) -> None:
    trio.works("overlay")
    for name, own in trio.variables.items():
        own["node"] = name
    assert "give them with -e, as in -e node=node7" in trio.refused("remove")
    assert not trio.contacted.exists()
    assert "lease" in trio.refused("remove", "-e", "node=node3", "-e", "lease=gone")
    assert not trio.contacted.exists()
    path = CHECKOUT / "playbooks" / "remove.yml"
    (trio.folder / "mine.yml").write_text(f"- import_playbook: {path}\n  vars: {{node: node3, lease: free}}\n")
    trio.works(str(trio.folder / "mine"))
    assert "reason: playbook, freed: true}" in removed(trio)
    assert trio.subnets("node1") == trio.subnets("node2") == BOTH
    assert {"cni0" in host.links() for host in trio.hosts.values()} == {True, False}
    assert "cni0" not in trio.hosts["node3"].links()


def test_a_node_that_is_gone_for_good_is_removed_and_named(trio: Fleet) -> None:
    trio.works("overlay")
    sound = trio.variables["node3"]
    trio.variables["node3"] = {**sound, **UNREACHABLE}
    done = trio.works("remove", "-e", "node=node3", "-e", "lease=free")
    assert "node3 did not answer, so its host has the overlay still." in done.out
    assert trio.subnets("node1") == trio.subnets("node2") == BOTH
    assert "reason: playbook, freed: true}" in removed(trio)

    # While the inventory has it still, no run waits for it.
    assert not any(trio.works("overlay").changed.values())
    for playbook in ("verify", "preflight"):
        assert "fatal: [node3]" not in trio.works(playbook).out

    # It comes back while another has its subnet, and stays out.
    trio.variables["node4"] = sound
    del trio.variables["node3"]
    trio.hosts["node3"].sh(teardown(trio, "node3"))
    trio.works("overlay")
    assert re.search(r"node4: {subnet: 10.244.2.0/24", trio.leases.read_text())
    assert re.search(r"node3: {subnet: 10.244.2.0/24.*freed: true}", removed(trio))

    # One that the inventory has no longer.
    del trio.variables["node4"]
    done = trio.works("remove", "-e", "node=node4")
    assert "node4 is not in the inventory, so its host has the overlay still." in done.out
    assert trio.subnets("node1") == BOTH


def teardown(fleet: Fleet, name: str) -> str:
    """A script that clears a host as its operator would."""
    return "ip link del cni0; ip link del flannel.1; ip netns del web; nft flush ruleset; rm -rf /var/lib/* /etc/podnet-overlay"


def test_another_that_does_not_answer_is_named_and_forgets_the_node_later(trio: Fleet) -> None:
    trio.works("overlay")
    sound = trio.variables["node2"]
    trio.variables["node2"] = {**sound, **UNREACHABLE}
    done = trio.play("remove", "-e", "node=node3")
    assert done.code != 0
    assert "These have a route to node3 still: node2." in done.out
    assert trio.subnets("node1") == BOTH
    assert "cni0" not in trio.hosts["node3"].links()
    trio.variables["node2"] = sound
    trio.works("overlay")
    assert trio.subnets("node2") == BOTH


def ping(host: Host, namespace: str, address: str) -> bool:
    words = ("ip", "netns", "exec", namespace, "ping", "-c", "1", "-W", "1", address)
    return not host.run(*words, check=False).returncode


def test_a_replaced_node_keeps_its_subnet(trio: Fleet) -> None:
    """The machine node2 is exchanged for another, which has an address of its own."""
    new = trio.variables.pop("node3")
    trio.works("overlay")
    addresses = pods(Fleet(trio.folder, {name: trio.hosts[name] for name in ("node1", "node2")}))
    trio.hosts["node2"].sh("ip link set eth1 down")
    trio.variables["node2"] = new
    lines = told_of(trio.works("overlay", "--diff"))
    assert pods(Fleet(trio.folder, {"node2": trio.hosts["node3"]})) == {"node2": addresses["node2"]}
    assert ping(trio.hosts["node1"], "web", addresses["node2"])
    assert lines["node1"]


ELEMENTS = {
    "+firewall element inet nodes: 198.51.100.3",
    "+firewall element inet peers: 198.51.100.3 : 3325256707",
    "+firewall element inet sources: 3325256707 . 10.244.2.0/24",
}
COSTS = {
    "vxlan": {
        "+neighbour 10.244.2.0 lladdr 0e:58:0a:f4:02:00 dev flannel.1",
        "+fdb 0e:58:0a:f4:02:00 dev flannel.1 dst 198.51.100.3",
        "+route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto podnet",
        *ELEMENTS,
    },
    "host-gw": {"+route 10.244.2.0/24 via 198.51.100.3 dev eth1 proto podnet"},
}


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_new_node_costs_the_others_one_route_and_one_element_of_each_set(trio: Fleet, backend: str) -> None:
    trio.group["overlay_backend"] = backend
    new = trio.variables.pop("node3")
    trio.works("overlay")
    trio.variables["node3"] = new
    lines = told_of(trio.works("overlay", "--diff"))
    assert lines["node1"] == lines["node2"] == COSTS[backend]


def test_a_change_moves_node_by_node_past_one_that_does_not_answer(trio: Fleet) -> None:
    trio.group["overlay_serial"] = 1
    sound = trio.variables["node2"]
    trio.works("overlay")
    trio.variables["node2"] = {**sound, **UNREACHABLE}
    trio.group["overlay_mtu"] = 1400
    done = trio.play("overlay")
    assert done.code != 0
    assert "Not converged: node2." in done.out
    assert (done.changed["node1"], done.changed["node3"]) == (2, 1)  # the first writes the leases too
    order = re.findall(r"^(?:PLAY \[Converge|changed: \[node[13])", done.out, re.MULTILINE)
    assert order[1:] == ["PLAY [Converge", "changed: [node1", "PLAY [Converge", "PLAY [Converge", "changed: [node3"]


TRAIN = Path(__file__).parents[1] / "bench" / "train.py"


@contextmanager
def train(fleet: Fleet, *more: str) -> Iterator[dict[str, Any]]:
    """Pings from the pod of node1 to that of node2, which gets an address of *more*, 50 a second, and what became of them."""
    address = fleet.hosts["node2"].json("ip -j -4 -n web addr show eth0")[0]["addr_info"][0]["local"]
    words = ["ip", "netns", "exec", "web", sys.executable, str(TRAIN), "0.02", address, *more]
    process = fleet.hosts["node1"].popen(*words, stdin=subprocess.PIPE)
    became: dict[str, Any] = {}
    time.sleep(0.5)
    yield became
    time.sleep(0.5)
    became.update(json.loads(process.communicate("", timeout=30)[0]))


def essence(host: Host) -> tuple[Any, ...]:
    """What does not differ from one making of an overlay to the next."""
    rules = host.sh("nft list ruleset | sed 's/counter packets.*bytes [0-9]*//'; cat /etc/podnet-overlay/overlay.json")
    return host.links(), routes(host), mtu(host), rules, host.sh("grep . /proc/sys/net/ipv4/conf/*/rp_filter")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"overlay_backend": "vxlan"}, {"overlay_backend": "host-gw"}),
        ({"overlay_backend": "host-gw"}, {"overlay_backend": "vxlan"}),
        ({"overlay_backend": "vxlan"}, {"overlay_backend": "vxlan", "overlay_direct_routing": True}),
        ({"overlay_backend": "vxlan"}, {"overlay_backend": "vxlan", "overlay_vni": 7, "overlay_port": 4789}),
    ],
    ids=["to host-gw", "to vxlan", "to direct routing", "to another vxlan"],
)
def test_a_fleet_moves_to_another_backend_node_by_node_and_no_packet_is_lost(
    pair: Fleet, before: dict[str, Any], after: dict[str, Any]
) -> None:
    made: dict[str, Any] = {}
    for host in pair.hosts.values():
        host.sh("for each in all default eth1; do echo 1 >/proc/sys/net/ipv4/conf/$each/rp_filter; done")
    for group in (after, before):
        pair.group.update({"overlay_serial": 1, "overlay_direct_routing": False, "overlay_vni": 1, **group})
        pair.works("overlay")
        made = made or {name: essence(host) for name, host in pair.hosts.items()}
        if group is after:
            pair.works("teardown")
    pair.group.update(after)
    shown = pair.works("overlay", "--check", "--diff")
    with train(pair) as became:
        moved = pair.works("overlay", "--diff")
    assert len(became["answered"]) == became["sent"] > 100
    assert {name: essence(host) for name, host in pair.hosts.items()} == made
    assert moved.out.count("PLAY [Send by the new backend]") == len(pair.hosts)  # node by node
    assert re.search(r"PLAY \[Send by the new backend\] \*+\nskipping: no hosts matched", shown.out)
    assert told(shown)
    assert not any(pair.works("overlay").changed.values())


def test_a_move_waits_for_a_node_that_cannot_take_part_and_no_packet_is_lost(trio: Fleet) -> None:
    trio.works("overlay")
    trio.group["overlay_backend"] = "host-gw"
    node3 = trio.hosts["node3"]
    node3.sh("mount --bind /etc /etc && mount -o remount,ro,bind /etc")
    with train(trio) as became:
        done = trio.play("overlay")
    assert done.code != 0
    assert "/etc/podnet-overlay" in done.out
    assert "PLAY [Send by the new backend]" not in done.out
    assert "Not converged: node3. So the move to another backend waits here" in done.out
    assert len(became["answered"]) == became["sent"]
    node3.sh("umount /etc")
    with train(trio) as became:
        trio.works("overlay")
    assert len(became["answered"]) == became["sent"]
    assert all("flannel.1" not in host.links() for host in trio.hosts.values())


def test_a_node_is_removed_while_the_fleet_moves_and_no_packet_is_lost(trio: Fleet) -> None:
    trio.works("overlay")
    trio.group["overlay_backend"] = "host-gw"
    predicted = trio.works("remove", "-e", "node=node3", "--check", "--diff")
    with train(trio) as became:
        done = trio.works("remove", "-e", "node=node3", "--diff")
    assert len(became["answered"]) == became["sent"]
    assert told_of(predicted) == told_of(done)
    assert predicted.changed == done.changed
    said = trio.works("status").out
    assert "takes what host-gw brings too" in said
    with train(trio) as became:
        trio.works("overlay")
    assert len(became["answered"]) == became["sent"]
    assert routes(trio.hosts["node1"])["10.244.1.0/24"][1] == "eth1"
    assert "flannel.1" not in trio.hosts["node1"].links() | trio.hosts["node3"].links()


def test_a_move_waits_for_a_node_that_was_not_reached_and_no_packet_is_lost(trio: Fleet) -> None:
    trio.works("overlay")
    trio.group["overlay_backend"] = "host-gw"
    sound = trio.variables["node3"]
    with train(trio) as became:
        limited = trio.works("overlay", "--limit=node2")
        trio.variables["node3"] = {**sound, **UNREACHABLE}
        without = trio.play("overlay")
        trio.variables["node3"] = sound
        trio.works("verify")  # at the MTU that pods have meanwhile
    assert became["answered"] == list(range(became["sent"]))
    assert without.code != 0
    assert "Not converged: node3." in without.out
    for done, missing in ((limited, "node1, node3"), (without, "node3")):
        assert f"{missing}: not reached, so the move from vxlan (VNI 1, port 8472) to host-gw waits" in " ".join(
            done.out.split()
        )
    assert all(routes(host)["10.244.1.0/24"][1] == "flannel.1" for host in (trio.hosts["node1"], trio.hosts["node3"]))
    with train(trio) as became:
        trio.works("overlay")
    assert became["answered"] == list(range(became["sent"]))
    assert all("flannel.1" not in host.links() for host in trio.hosts.values())


def test_a_node_that_was_left_behind_moves_alone_when_it_is_back(trio: Fleet) -> None:
    trio.works("overlay")
    trio.group["overlay_backend"] = "host-gw"
    sound = trio.variables["node3"]
    trio.variables["node3"] = {**sound, **UNREACHABLE}
    with train(trio) as became:
        trio.play("overlay", "-e", "overlay_move_without=true")
    assert became["answered"] == list(range(became["sent"]))
    assert "flannel.1" not in trio.hosts["node1"].links() | trio.hosts["node2"].links()
    trio.variables["node3"] = sound
    with train(trio) as became:
        trio.works("overlay", "--limit=node3", "-e", "overlay_move_without=true")
    assert became["answered"] == list(range(became["sent"]))
    assert "flannel.1" not in trio.hosts["node3"].links()
    assert ping(trio.hosts["node1"], "web", pods(trio)["node3"])


def whole(fleet: Fleet) -> str:
    """All that hosts and leases have, and where a node's address or a pod's may stand."""
    more = "cat /etc/podnet-overlay/*.json /etc/netns/*/* /run/flannel/*; ip -n web -4 addr; ip -n web -4 route"
    return "\n".join([*fleet.picture(), *(host.sh(more) for host in fleet.hosts.values())])


def test_another_address_subnet_and_network_leave_nothing_of_the_former_behind(trio: Fleet) -> None:
    trio.works("overlay")
    node2, own = trio.hosts["node2"], trio.variables["node2"]
    node2.sh("echo 1 >/proc/sys/net/ipv4/conf/eth1/promote_secondaries; ip addr add 198.51.100.102/24 dev eth1")

    def change(gone: str, at: str = "", *options: str) -> None:
        assert re.search(gone, whole(trio))
        with train(trio, *([at] if at else [])) as became:
            trio.works("overlay", *options)
        assert became["sent"] - len(became["answered"]) < 100  # two seconds
        node2.sh("ip addr del 198.51.100.2/24 dev eth1 2>/dev/null || true")
        assert not re.findall(f".*(?:{gone}).*", whole(trio))
        for host in trio.hosts.values():
            assert all(ping(host, "web", address) for address in pods(trio).values())

    own |= {"overlay_public_ip": "198.51.100.102", "ansible_host": "198.51.100.102"}
    change(r"198\.51\.100\.2\b|(?i:c6336402)")  # the mark of what it sends
    own["overlay_subnet"] = "10.244.77.0/24"
    change(r"10\.244\.1\.|0a:f4:01:", "10.244.77.2")
    trio.group["overlay_network"], own["overlay_subnet"] = "10.201.0.0/16", "10.201.77.0/24"
    assert "overlay_renumber=true" in trio.refused("overlay")
    assert "--limit leaves out node1, node3" in trio.refused("overlay", "--limit=node2", "-e", "overlay_renumber=true")
    change(r"10\.244\.|0a:f4:", "10.201.77.2", "-e", "overlay_renumber=true")
    assert set(pods(trio).values()) == {"10.201.0.2", "10.201.77.2", "10.201.2.2"}


def test_a_tunnel_gets_another_name(pair: Fleet) -> None:
    """The kernel has one vxlan device of a VNI and port: there is no having both."""
    pair.works("overlay")
    pair.group["overlay_tunnel"] = "pods0"
    pair.works("overlay")
    assert all(host.links() & {"pods0", "flannel.1"} == {"pods0"} for host in pair.hosts.values())
    pair.works("verify")


def test_a_limited_teardown_touches_nobody_else(pair: Fleet) -> None:
    pair.works("overlay")
    before = of_host(pair, "node1")
    lease = re.findall(r"^  node1.*", pair.leases.read_text(), re.MULTILINE)
    pair.works("teardown", "--limit=node2", "-e", "overlay_forget=true")
    assert "cni0" not in pair.hosts["node2"].links()
    assert of_host(pair, "node1") == before
    assert re.findall(r"^  node.*", pair.leases.read_text(), re.MULTILINE) == lease


def mtu(host: Host) -> int:
    found: int = host.json("ip -j link show cni0")[0]["mtu"]
    return found


def test_a_change_that_cuts_a_host_off_is_undone_there_and_nowhere_else(pair: Fleet) -> None:
    pair.works("overlay")
    pair.group["overlay_mtu"] = 1400
    pending = "/var/lib/podnet-overlay/rollback/overlay.json"
    node1, node2 = pair.hosts.values()
    script = pair.folder / "node2"
    sound = script.read_text()
    inside = f"nsenter --mount=/proc/{node2.pid}/ns/mnt"
    script.write_text(sound.replace("#!/bin/sh\n", f"#!/bin/sh\n{inside} test ! -e {pending} || exit 1\n"))
    done = pair.play("overlay", "-e", "overlay_confirm_timeout=8")
    assert done.code != 0
    assert "Not converged: node2." in done.out
    assert "node2 undoes its change by itself within 8 s, since it cannot be confirmed" in done.out
    assert mtu(node1) == 1400
    deadline = time.monotonic() + 20
    while mtu(node2) != 1450 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (mtu(node1), mtu(node2)) == (1400, 1450)
    assert node1.run("test", "-e", pending, check=False).returncode == 1

    script.write_text(sound)
    pair.works("overlay", "-e", "overlay_confirm_timeout=30")
    assert mtu(node2) == 1400
    assert node2.run("test", "-e", pending, check=False).returncode == 1
    assert not any(pair.works("overlay", "-e", "overlay_confirm_timeout=30").changed.values())


def test_a_host_is_confirmed_at_once_and_not_when_slower_ones_are_done(pair: Fleet) -> None:
    pair.works("overlay")
    pair.group["overlay_mtu"] = 1400
    script = pair.folder / "node2"
    script.write_text(script.read_text().replace("#!/bin/sh\n", "#!/bin/sh\nsleep 6\n"))
    done = pair.play("overlay", "-e", "overlay_confirm_timeout=4")
    assert done.code != 0
    assert "Not converged: node2." in done.out
    assert "node2 has undone its change by itself, since 4 s were over before it could be confirmed" in done.out
    assert {name: mtu(host) for name, host in pair.hosts.items()} == {"node1": 1400, "node2": 1450}
