"""topology and topology_info against the kernel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.documents import PEERS, node
from tests.kernel.hosts import CHECKOUT, Host
from tests.kernel.looks import everything, files, routes

Twice = Callable[..., dict[str, Any]]


def test_a_document_becomes_what_the_kernel_shows(underlay: Host, twice: Twice) -> None:
    twice("topology", document=node(), peers=PEERS)
    links = {item["ifname"]: item for item in underlay.json("ip -j -d link")}
    assert links["cni0"]["linkinfo"]["info_kind"] == "bridge"
    assert (links["cni0"]["mtu"], links["cni0"]["address"]) == (1450, "0a:58:0a:f4:00:01")
    assert links["veth-web"]["master"] == "cni0"
    assert links["veth-web"]["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert {links[name]["ifalias"] for name in ("cni0", "veth-web", "flannel.1")} == {"podnet.overlay:overlay"}
    assert "UP" in links["flannel.1"]["flags"]
    found = routes(underlay)
    assert found["10.244.1.0/24"] == ("10.244.1.0", "flannel.1")
    assert found["10.244.2.0/24"] == ("10.244.2.0", "flannel.1")
    assert routes(underlay, "web")["default"] == ("10.244.0.1", "eth0")
    entries = [
        (item["mac"], item["dst"]) for item in underlay.json("bridge -j fdb show dev flannel.1") if "dst" in item
    ]
    assert sorted(entries) == [("0e:58:0a:f4:01:00", "198.51.100.12"), ("0e:58:0a:f4:02:00", "198.51.100.13")]
    assert underlay.run("sysctl -n net.ipv4.ip_forward").stdout == "1\n"
    assert underlay.run("ip netns exec web cat /etc/hosts").stdout.endswith("10.244.0.2 web\n")
    underlay.run("ip netns exec web ping -c 1 -W 2 10.244.0.1")


def test_absent_leaves_the_host_as_it_was(underlay: Host, twice: Twice) -> None:
    before = everything(underlay)
    underlay.module("topology", document=node(), peers=PEERS)
    assert everything(underlay) != before
    twice("topology", state="absent")
    assert everything(underlay) == before


def test_what_topology_info_returns_changes_nothing_when_fed_back(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    document = underlay.module("topology_info")["document"]
    assert {"name": "eth1", "external": True} in document["links"]
    answer = underlay.module("topology", document=document)
    assert answer["operations"] == []


def test_purge_removes_what_the_document_no_longer_names_and_nothing_foreign(underlay: Host, twice: Twice) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh(
        "ip link add veth-docker type veth peer name v9; ip link set veth-docker master cni0; ip route add 10.9.0.0/24 dev cni0"
    )
    fewer = {subnet: address for subnet, address in PEERS.items() if subnet != "10.244.2.0/24"}
    done = twice("topology", document=node(), peers=fewer)
    assert sorted(operation.split()[0:2] for operation in done["operations"]) == [
        ["change", "firewall"],
        ["delete", "fdb"],
        ["delete", "neighbour"],
        ["delete", "route"],
    ]
    assert "10.244.2.0/24" not in routes(underlay)
    assert routes(underlay)["10.9.0.0/24"] == (None, "cni0")
    assert underlay.json("ip -j link show veth-docker")[0]["master"] == "cni0"


def test_two_documents_never_purge_each_other(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    second = {
        "links": [{"name": "br-two", "kind": "bridge", "addresses": ["10.99.0.1/24"]}],
        "routes": [
            {"dst": "10.98.0.0/24", "via": "10.99.0.2", "dev": "br-two"},
            {"dst": "10.97.0.0/24", "via": "198.51.100.77", "dev": "eth1"},
        ],
    }
    underlay.module("topology", name="two", document=second)
    assert underlay.module("topology", document=node(), peers=PEERS)["operations"] == []
    assert underlay.module("topology", name="two", document=second)["operations"] == []
    underlay.module("topology", state="absent")
    assert {"10.98.0.0/24", "10.97.0.0/24"} <= set(routes(underlay))
    assert "10.244.1.0/24" not in routes(underlay)


@pytest.mark.parametrize(
    ("preparation", "named"),
    [
        ("ip link add cni0 type bridge", "link cni0"),
        ("ip link add flannel.1 type dummy || ip link add flannel.1 type bridge", "link flannel.1"),
        ("ip netns add web", "namespace web"),
        ("ip route add 10.244.1.0/24 via 198.51.100.99 proto static", "route 10.244.1.0/24"),
        ("nft add table inet podnet_overlay", "table inet podnet_overlay"),
    ],
)
def test_something_foreign_in_the_way_is_named_and_nothing_is_changed(
    underlay: Host, preparation: str, named: str
) -> None:
    underlay.sh(preparation)
    before = everything(underlay)
    answer = underlay.module("topology", document=node(), peers=PEERS, fails=True)
    assert len(answer["mistakes"]) == 1
    assert named in answer["msg"]
    assert "not ours" in answer["msg"]
    assert everything(underlay) == before


def test_adopt_takes_foreign_things_over_but_never_another_documents(underlay: Host) -> None:
    underlay.sh(
        "ip link add cni0 type bridge; ip netns add web; ip route add 10.244.1.0/24 via 198.51.100.99 proto static"
    )
    underlay.module("topology", document=node(), peers=PEERS, adopt=True)
    assert routes(underlay)["10.244.1.0/24"] == ("10.244.1.0", "flannel.1")
    answer = underlay.module(
        "topology", name="two", document={"links": [{"name": "cni0", "kind": "bridge"}]}, adopt=True, fails=True
    )
    assert "belongs to the document 'overlay'" in answer["msg"]


def test_a_refused_change_undoes_those_before_it(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    before = everything(underlay)
    bad = node(routes=[{"dst": "10.5.0.0/24", "via": "203.0.113.9"}])
    bad["links"] = [*bad["links"], {"name": "br-new", "kind": "bridge", "addresses": ["10.5.1.1/24"]}]
    answer = underlay.module("topology", document=bad, peers=PEERS, fails=True)
    assert "10.5.0.0/24" in answer["msg"]
    assert "Network is unreachable" in answer["msg"]
    assert "were undone" in answer["msg"]
    assert everything(underlay) == before


def test_a_node_that_gets_another_subnet_keeps_the_way_to_its_peers(underlay: Host, twice: Twice) -> None:
    """A new MAC takes the device's permanent neighbours along."""
    underlay.module("topology", document=node(), peers=PEERS)
    bridge, pair, tunnel = node()["links"]
    renumbered = node(
        links=[
            {**bridge, "address": "0a:58:0a:f4:09:01", "addresses": ["10.244.9.1/24"]},
            {**pair, "peer": {**pair["peer"], "addresses": ["10.244.9.2/24"]}},
            {**tunnel, "address": "0e:58:0a:f4:09:00", "addresses": ["10.244.9.0/32"]},
        ],
        routes=[{"dst": "default", "via": "10.244.9.1", "dev": "eth0", "namespace": "web"}],
        peers={**node()["peers"], "subnet": "10.244.9.0/24"},
    )
    twice("topology", document=renumbered, peers={**PEERS, "10.244.9.0/24": "198.51.100.11"})
    neighbours = {item["dst"] for item in underlay.json("ip -j neigh show dev flannel.1 nud permanent")}
    assert neighbours == {"10.244.0.0", "10.244.1.0", "10.244.2.0"}


def pod(address: str, *more: str) -> dict[str, Any]:
    """A pod with some addresses and its default route."""
    end = {"name": "eth0", "namespace": "web", "addresses": [address, *more]}
    return {
        "namespaces": [{"name": "web"}],
        "links": [
            {"name": "cni0", "kind": "bridge", "mtu": 1450, "addresses": ["10.244.0.1/24"]},
            {"name": "veth-web", "kind": "veth", "mtu": 1450, "master": "cni0", "peer": {**end, "mtu": 1450}},
        ],
        "routes": [{"dst": "default", "via": "10.244.0.1", "dev": "eth0", "namespace": "web"}],
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["10.244.0.2/24"], ["10.244.0.3/24"]),
        (["10.244.0.3/24", "10.244.0.4/24"], ["10.244.0.4/24"]),
        (["10.244.0.3/24", "10.244.0.4/24"], ["10.244.0.4/24", "10.244.0.5/24"]),
    ],
)
def test_a_changed_address_keeps_the_routes_of_its_device(
    host: Host, twice: Twice, before: list[str], after: list[str]
) -> None:
    host.module("topology", document=pod(*before))
    twice("topology", document=pod(*after))
    assert routes(host, "web")["default"] == ("10.244.0.1", "eth0")
    (eth0,) = host.json("ip -j -4 -n web addr show eth0")
    assert sorted(f"{item['local']}/{item['prefixlen']}" for item in eth0["addr_info"]) == sorted(after)
    host.run("ip netns exec web ping -c 1 -W 2 10.244.0.1")


def test_a_bridge_keeps_its_mtu_whatever_becomes_of_its_ports(host: Host, twice: Twice) -> None:
    host.module("topology", document=pod("10.244.0.2/24"))
    without = {"links": pod("10.244.0.2/24")["links"][:1]}
    twice("topology", document=without)
    host.sh("ip link add foreign mtu 1500 type veth peer name other; ip link set foreign master cni0")
    assert host.json("ip -j link show cni0")[0]["mtu"] == 1450


def test_a_bridge_made_anew_gets_its_ports_back(host: Host, twice: Twice) -> None:
    """As when someone has put another kind of link in the bridge's place, with our mark on it."""
    host.module("topology", document=pod("10.244.0.2/24"))
    host.sh("ip link set veth-web nomaster; ip link del cni0; ip link add cni0 type veth peer name other")
    host.sh("ip link set cni0 alias podnet.overlay:overlay")
    twice("topology", document=pod("10.244.0.2/24"))
    assert host.json("ip -j link show veth-web")[0]["master"] == "cni0"


def test_a_link_that_comes_between_look_and_change_is_left_alone(host: Host) -> None:
    """The kernel's EEXIST is the last word: seen by making the link where the engine thinks that there is none."""
    script = """
import sys
sys.path.insert(0, ".collections")
from ansible_collections.podnet.overlay.plugins.module_utils import _kernel, _model, _difference
link = _model.Link("", "cni0", "bridge", True, 1450, owner="overlay")
with _kernel.Kernel() as kernel:
    try:
        kernel.perform([_difference.Operation(None, link)])
    except _kernel.KernelError as error:
        print(error)
"""
    host.sh("ip link add cni0 mtu 1400 type bridge")
    assert "File exists" in host.run(sys.executable, "-c", script).stdout
    (cni0,) = host.json("ip -j link show cni0")
    assert (cni0["mtu"], "UP" in cni0["flags"], cni0.get("ifalias")) == (1400, False, None)


@pytest.mark.parametrize("protocol", ["boot", "bgp"])
def test_a_foreign_route_where_ours_was_is_an_error_and_never_deleted(underlay: Host, protocol: str) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh(f"ip route replace 10.244.2.0/24 via 198.51.100.12 dev eth1 proto {protocol}")
    answer = underlay.module("topology", document=node(), peers=PEERS, fails=True)
    assert f"protocol {protocol}" in answer["msg"]
    fewer = {subnet: address for subnet, address in PEERS.items() if subnet != "10.244.2.0/24"}
    underlay.module("topology", document=node(), peers=fewer)
    assert routes(underlay)["10.244.2.0/24"] == ("198.51.100.12", "eth1")


def test_a_foreign_route_before_ours_is_seen(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh("ip route prepend 10.244.2.0/24 via 198.51.100.12 dev eth1 proto static")
    assert "protocol static" in underlay.module("topology", document=node(), peers=PEERS, fails=True)["msg"]


def test_a_sysctl_that_the_document_drops_goes_back_once(host: Host, twice: Twice) -> None:
    wanted = {"sysctls": [{"name": "net.ipv4.conf.all.rp_filter", "value": "2"}]}
    before = host.run("sysctl -n net.ipv4.conf.all.rp_filter").stdout
    host.module("topology", document=wanted)
    twice("topology", document={"links": []})
    assert host.run("sysctl -n net.ipv4.conf.all.rp_filter").stdout == before
    host.sh("sysctl -qw net.ipv4.conf.all.rp_filter=1")
    assert not host.module("topology", document={"links": []})["changed"]
    assert host.run("sysctl -n net.ipv4.conf.all.rp_filter").stdout == "1\n"


def test_a_sysctl_of_a_link_of_the_document_is_set_after_the_link_is_made(host: Host, twice: Twice) -> None:
    name = "net.ipv4.conf.b9.rp_filter"
    twice("topology", document={"links": [{"name": "b9", "kind": "bridge"}], "sysctls": [{"name": name, "value": "2"}]})
    assert host.run(f"sysctl -n {name}").stdout == "2\n"


def test_a_change_that_is_refused_half_way_is_taken_back_whole(host: Host) -> None:
    def document(mac: str, master: str) -> dict[str, Any]:
        bridges = [{"name": name, "kind": "bridge"} for name in ("br0", "br1")]
        bridges[1].update({"address": mac, "master": master})
        return {"links": bridges}

    host.module("topology", document=document("0a:58:00:00:00:01", ""))
    answer = host.module("topology", document=document("0a:58:00:00:00:02", "br0"), fails=True)
    assert "change link br1" in answer["msg"]
    assert host.json("ip -j link show br1")[0]["address"] == "0a:58:00:00:00:01"


@pytest.mark.parametrize("name", ["", "../../run/evil", "my overlay"])
def test_a_name_that_cannot_be_a_documents_is_refused(host: Host, name: str) -> None:
    assert "no document's name" in host.module("topology", name=name, document={"links": []}, fails=True)["msg"]
    assert not host.run("ls /run/evil.json", check=False).stdout


def test_operators_files_for_a_namespace_are_left_alone_and_ours_can_be_read_by_all(host: Host) -> None:
    host.sh("mkdir -p /etc/netns/web; echo mine > /etc/netns/web/nsswitch.conf")
    document = {"namespaces": [{"name": name, "files": {"hosts": "127.0.0.1 localhost\n"}} for name in ("web", "db")]}
    host.sh("umask 077")
    host.module("topology", document=document)
    assert host.run("stat -c %a /etc/netns/db /etc/netns/db/hosts").stdout.split() == ["755", "644"]
    answer = host.module(
        "topology", document={"namespaces": [{"name": "web", "files": {"hosts": "127.0.0.1 localhosT\n"}}]}
    )
    assert answer["diff"]["before"] != answer["diff"]["after"]
    host.module("topology", state="absent")
    assert host.run("cat /etc/netns/web/nsswitch.conf").stdout == "mine\n"
    assert host.run("ls /etc/netns").stdout.split() == ["web"]


def test_what_a_killed_run_leaves_of_an_older_document_goes_with_the_next(underlay: Host) -> None:
    """A run that was killed before its end: its route, which no mark tells, is remembered."""
    route = {"dst": "10.77.0.0/24", "via": "198.51.100.12", "protocol": "static"}
    underlay.module("topology", document={"routes": [route]})
    path = "/var/lib/podnet-overlay/overlay.json"
    saved = json.loads(underlay.run(f"cat {path}").stdout)
    killed = {**saved, "previous": [{"routes": [route]}]}
    underlay.run("sh", "-c", f"rm /etc/podnet-overlay/overlay.json; cat > {path} <<'EOF'\n{json.dumps(killed)}\nEOF")
    underlay.module("topology", document={"links": []})
    assert "10.77.0.0/24" not in routes(underlay)
    assert json.loads(underlay.run(f"cat {path}").stdout)["previous"] == []


@pytest.mark.parametrize("folder", ["/etc/cni/net.d", "/run/flannel"])
def test_a_first_run_that_fails_leaves_no_folders(underlay: Host, folder: str) -> None:
    underlay.sh(f"mkdir -p {folder}; mount -t tmpfs -o ro none {folder}")
    before = files(underlay)
    document = node(files=[{"path": f"{folder}/ours", "content": "x\n"}])
    answer = underlay.module("topology", document=document, peers=PEERS, fails=True)
    assert "changes made before it were undone" in answer["msg"]
    assert files(underlay) == before


def test_a_first_run_that_fails_beside_another_document_leaves_nothing(underlay: Host) -> None:
    underlay.module("topology", name="other", document={"links": []})
    underlay.sh("mount -t tmpfs -o ro none /mnt; mount --bind /mnt /etc/podnet-overlay")
    before = files(underlay)
    assert "/etc/podnet-overlay" in underlay.module("topology", document=node(), peers=PEERS, fails=True)["msg"]
    assert files(underlay) == before


@pytest.mark.parametrize("gone", ["rm /etc/podnet-overlay/overlay.json", "ip netns del web"])
def test_a_teardown_knows_its_files_without_the_document_or_the_namespace(
    underlay: Host, twice: Twice, gone: str
) -> None:
    before = files(underlay), everything(underlay)
    document = node(files=[{"path": "/etc/cni/net.d/10-test.conf", "content": "{}\n"}])
    underlay.module("topology", document=document, peers=PEERS)
    underlay.sh(gone)
    twice("topology", state="absent")
    assert (files(underlay), everything(underlay)) == before


def test_a_state_that_cannot_be_written_is_told_and_nothing_is_changed(underlay: Host) -> None:
    underlay.sh("mount -t tmpfs -o ro none /var/lib")
    answer = underlay.module("topology", document=node(), peers=PEERS, fails=True)
    assert "/var/lib/podnet-overlay/overlay.json" in answer["msg"]
    assert "cni0" not in {item["ifname"] for item in underlay.json("ip -j link")}


def test_a_lock_that_cannot_be_taken_is_told(underlay: Host) -> None:
    underlay.sh("mkdir /run/podnet-overlay.lock")
    answer = underlay.module("topology", document=node(), peers=PEERS, fails=True)
    assert answer["msg"].startswith("cannot write /run/podnet-overlay.lock (Is a directory): ")


def test_all_mistakes_of_a_document_are_told_at_once(host: Host) -> None:
    document = {
        "links": [
            {"name": "an-interface-name", "kind": "bridge"},
            {"name": "a/b", "kind": "bridge"},
            {"name": "x", "kind": "dummyy"},
            {"name": "y", "kind": "bridge", "mtu": 10, "colour": "red"},
        ],
        "routes": [{"dst": "10.0.0.1/8", "via": "fe80::1", "dev": "x"}, {"dst": "10.1.0.0/16"}],
    }
    answer = host.module("topology", document=document, fails=True)
    text = answer["msg"]
    for part in (
        "an-interface-name",
        "'a/b'",
        "dummyy",
        "mtu",
        "colour",
        "10.0.0.1/8",
        "fe80::1",
        "routes[10.1.0.0/16]: needs via",
    ):
        assert part in text
    assert [item["ifname"] for item in host.json("ip -j link")] == ["lo"]


@pytest.mark.parametrize(
    "drift",
    [
        "ip route del 10.244.1.0/24",
        "ip route replace 10.244.1.0/24 via 198.51.100.99 dev eth1 proto 244",
        "ip link set flannel.1 down",
        "ip link set flannel.1 mtu 1400",
        "ip link del flannel.1",
        "ip addr del 10.244.0.0/32 dev flannel.1",
        "ip link del cni0",
        "ip link set cni0 down",
        "ip link set veth-web nomaster",
        "bridge link set dev veth-web hairpin off",
        "ip link del veth-web",
        "ip netns del web",
        "ip -n web link set eth0 down",
        "ip -n web route del default",
        "ip netns exec web ip addr flush dev eth0",
        "sysctl -w net.ipv4.ip_forward=0",
        "nft flush ruleset",
        "nft flush chain inet podnet_overlay guard",
        "nft add element inet podnet_overlay nodes { 203.0.113.5 }",
        "nft add element inet podnet_overlay peers { 203.0.113.5 : 0x1 }",
        "nft delete chain inet podnet_overlay outer",
        "nft add table bridge podnet_overlay",
        "nft insert rule inet podnet_overlay guard accept",
        "bridge fdb del 0e:58:0a:f4:01:00 dev flannel.1",
        "ip neigh replace 10.244.1.0 lladdr 0e:58:0a:f4:09:00 dev flannel.1 nud permanent",
        "ip link del flannel.1; ip link del cni0; ip netns del web; nft flush ruleset",
    ],
)
def test_drift_is_repaired_by_the_next_run_and_only_drift(underlay: Host, twice: Twice, drift: str) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    before = picture(underlay)
    underlay.sh(drift)
    if "netns del" in drift:  # the kernel takes its time to empty a namespace
        underlay.sh("for n in $(seq 50); do ip link show veth-web >/dev/null 2>&1 || break; sleep 0.1; done")
    assert picture(underlay) != before
    done = twice("topology", document=node(), peers=PEERS)
    assert done["changed"]
    assert picture(underlay) == before


def picture(host: Host) -> dict[str, Any]:
    """What drift can change, without what a device made anew has of its own (indexes, random MACs, timers)."""
    found: dict[str, Any] = {"forwarding": host.run("sysctl -n net.ipv4.ip_forward").stdout}
    for namespace in sorted({"", "web"} & {"", *(item["name"] for item in host.json("ip -j netns"))}):
        ip = ["ip", "-j", "-d", *(["-n", namespace] if namespace else [])]
        for link in host.json(*ip, "addr"):
            info = link.get("linkinfo", {})
            port = info.get("info_slave_data", {})
            found[f"{namespace}/{link['ifname']}"] = (
                info.get("info_kind"),
                link["mtu"],
                "UP" in link["flags"],
                link.get("master"),
                link.get("ifalias"),
                port.get("hairpin"),
                info.get("info_data", {}).get("id"),
                sorted(item["local"] for item in link["addr_info"] if item["family"] == "inet"),
            )
        found[f"{namespace} routes"] = sorted(json.dumps(item) for item in host.json(*ip, "route"))
    found["neighbours"] = sorted((item["dst"], item["lladdr"]) for item in host.json("ip -j neigh show nud permanent"))
    found["fdb"] = sorted((item["mac"], item["dst"]) for item in host.json("bridge -j fdb") if "dst" in item)
    found["nft"] = re.sub("packets [0-9]+ bytes [0-9]+", "", host.run("nft list ruleset").stdout)
    return found


@pytest.mark.parametrize("moment", [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
def test_a_kill_at_any_moment_is_made_right_by_the_next_run(underlay: Host, moment: float, tmp_path: Any) -> None:
    many = {f"10.{128 + n // 256}.{n % 256}.0/24": "198.51.100.12" for n in range(3000)}
    arguments = {"ANSIBLE_MODULE_ARGS": {"document": node(), "peers": {**PEERS, **many}}}
    path = tmp_path / "arguments.json"
    path.write_text(json.dumps(arguments))
    process = underlay.popen(
        "sh",
        "-c",
        f"cd {CHECKOUT}/.collections && exec python3 -m ansible_collections.podnet.overlay.plugins.modules.topology {path}",
    )
    try:
        process.wait(moment * 4)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    underlay.module("topology", document=node(), peers=PEERS)
    assert underlay.module("topology", document=node(), peers=PEERS)["operations"] == []
    assert len([dst for dst in routes(underlay) if dst.startswith("10.244.")]) == 3
    assert not [dst for dst in routes(underlay) if dst.startswith("10.128.")]
    underlay.run("ip netns exec web ping -c 1 -W 2 10.244.0.1")


def test_hosts_made_alike_in_namespaces_keep_their_own_pods(host: Host, twice: Twice) -> None:
    """The same interface indexes in each: only the namespace's number tells whose peer is whose."""
    pods = {"red1": "blue2", "red2": "blue1"}
    links = [
        {"name": "veth0", "namespace": name, "kind": "veth", "peer": {"name": "eth0", "namespace": pod}}
        for name, pod in pods.items()
    ]
    twice(
        "topology",
        name="twins",
        document={"namespaces": [{"name": name} for pair in pods.items() for name in pair], "links": links},
    )
    ends = host.module("topology_info", name="twins")["document"]["links"]
    found = {(end.get("namespace"), end["name"]): (end["peer"].get("namespace"), end["peer"]["name"]) for end in ends}
    assert {place: peer for (place, _name), (peer, _other) in found.items()} in (pods, {b: a for a, b in pods.items()})


def test_a_bridge_that_learns_nothing_from_link_local_frames(host: Host) -> None:
    def off() -> bool:
        (link,) = host.json("ip -j -d link show cni0")
        return bool(link["linkinfo"]["info_data"]["no_linklocal_learn"])

    def made(**options: Any) -> dict[str, Any]:
        return host.module("topology", document={"links": [{"name": "cni0", "kind": "bridge", "bridge": options}]})

    assert made()["changed"]
    assert not off()
    assert made(no_linklocal_learn=True)["operations"] == ["change link cni0 kind bridge up " + _words(host)]
    assert off()
    assert not made(no_linklocal_learn=True)["changed"]
    host.module("topology", state="absent")
    made(no_linklocal_learn=True)
    assert off()
    assert not host.module("topology", document=host.module("topology_info")["document"])["changed"]


def _words(host: Host) -> str:
    """The rest of what is told of the bridge."""
    told = host.module("topology_info")["document"]["links"][0]
    mac = told["address"]
    return (
        f"mtu {told['mtu']} address {mac} stp off ageing_time 300 forward_delay 15 hello_time 2 max_age 20 "
        "priority 32768 vlan_filtering off no_linklocal_learn on"
    )


def test_forwarding_that_was_on_before_is_on_afterwards_though_somebody_turned_it_off_meanwhile(underlay: Host) -> None:
    underlay.sh("sysctl -qw net.ipv4.ip_forward=1")
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh("sysctl -qw net.ipv4.ip_forward=0")
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.module("topology", state="absent")
    assert underlay.sh("sysctl -n net.ipv4.ip_forward") == "1\n"


ROUTER = "/etc/sysctl.d/router.conf"
GATEWAY = "/etc/systemd/network/gateway.network"
ENABLED = "/etc/systemd/system/multi-user.target.wants"
NETWORKD = f"mkdir -p {ENABLED} {GATEWAY}.d; touch {ENABLED}/systemd-networkd.service;"


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up", "docker0"),
        ("ip link add cali1 type veth peer name c1; ip link set cali1 up; ip route add 10.7.0.2 dev cali1", "cali1"),
        ("ip link add host type veth peer name c1; ip addr add 10.7.0.1/32 dev host; ip link set host up", "host"),
        ("ip link add v.5 link eth1 type macvlan; ip addr add 10.7.0.1/24 dev v.5; ip link set v.5 up", "v.5"),
        (f"echo net.ipv4.ip_forward=1 >{ROUTER}", ROUTER),
        (f"echo net.ipv4.conf.all.forwarding = 1 >{ROUTER}", ROUTER),
        (f"echo -net/ipv4/conf/all/forwarding=1 >{ROUTER}", ROUTER),
        (f"{NETWORKD} echo IPForward=yes >{GATEWAY}", GATEWAY),
        (f"{NETWORKD} echo IPMasquerade = both >{GATEWAY}.d/1.conf", f"{GATEWAY}.d/1.conf"),
    ],
)
def test_forwarding_stays_where_something_else_needs_it_by_now_and_that_is_told(
    underlay: Host, needs: str, reason: str
) -> None:
    underlay.sh("sysctl -qw net.ipv4.ip_forward=0")
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh(needs)
    gone = underlay.module("topology", state="absent")
    assert f"{reason} " in str(gone.get("warnings")), gone
    assert underlay.sh("sysctl -n net.ipv4.ip_forward") == "1\n"


@pytest.mark.parametrize(
    "other",
    [
        "ip link add c0 type veth peer name c1; ip link set c0 up",
        "ip link add c0 type veth peer name c1; ip addr add 10.7.0.1/32 dev c0",
        f"echo net.ipv4.ip_forward=0 >{ROUTER}",
        f"{NETWORKD} echo IPForward=no >{GATEWAY}",
    ],
)
def test_forwarding_goes_where_nothing_else_needs_it(underlay: Host, other: str) -> None:
    underlay.sh("sysctl -qw net.ipv4.ip_forward=0")
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh(other)
    assert "warnings" not in underlay.module("topology", state="absent")
    assert underlay.sh("sysctl -n net.ipv4.ip_forward") == "0\n"


ARP = {"name": "net.ipv4.conf.all.arp_announce", "value": "1"}
FORWARDING = {"name": "net.ipv4.ip_forward", "value": "1"}


@pytest.mark.parametrize("sysctl", [ARP, FORWARDING], ids=lambda sysctl: sysctl["name"])
@pytest.mark.parametrize("leaves", [{"state": "absent"}, {"document": {"links": []}}], ids=["torn down", "dropped"])
def test_a_sysctl_of_two_documents_goes_back_with_the_last_of_them(
    underlay: Host, twice: Twice, sysctl: dict[str, str], leaves: dict[str, Any]
) -> None:
    def value() -> str:
        return underlay.run("sysctl", "-n", sysctl["name"]).stdout

    underlay.sh("sysctl -qw net.ipv4.ip_forward=0")
    before = everything(underlay)
    for name in ("first", "second"):
        underlay.module("topology", name=name, document={"sysctls": [sysctl]})
    told = twice("topology", name="first", **leaves).get("warnings")
    assert f"{sysctl['name']} stays: the document second needs it" in str(told)
    assert value() == "1\n"
    assert underlay.module("topology", name="second", document={"sysctls": [sysctl]})["operations"] == []
    twice("topology", name="second", **leaves)
    assert value() == "0\n"
    for name in ("first", "second"):
        underlay.module("topology", name=name, state="absent")
    assert everything(underlay) == before


def test_a_sysctl_that_two_documents_want_otherwise_goes_back_with_its_own(host: Host) -> None:
    host.module("topology", name="first", document={"sysctls": [ARP]})
    host.module("topology", name="second", document={"sysctls": [{**ARP, "value": "2"}]})
    host.module("topology", name="second", state="absent")
    assert host.run("sysctl", "-n", ARP["name"]).stdout == "1\n"


def test_a_deleted_connected_route_comes_back(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    before = underlay.sh("ip route")
    underlay.sh("ip route del 10.244.0.0/24 dev cni0")
    underlay.module("topology", document=node(), peers=PEERS)
    assert underlay.sh("ip route") == before


def test_a_more_specific_foreign_route_is_told_and_stays(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh("ip route add 10.244.1.128/25 via 198.51.100.12")
    again = underlay.module("topology", document=node(), peers=PEERS)
    assert not again["changed"]
    told = "route 10.244.1.128/25 via 198.51.100.12 dev eth1 proto boot takes packets from route 10.244.1.0/24 "
    assert told in str(again["warnings"])
    assert "10.244.1.128/25" in routes(underlay)
