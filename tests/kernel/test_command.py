"""The command podnet-overlay, and what all fronts do when the disk or the machine does not play along."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.kernel import kills, overlays
from tests.kernel.documents import AS_BEFORE, PEERS, RENUMBERED, node, sourced
from tests.kernel.hosts import Host
from tests.kernel.looks import FOLDERS, everything, files, picture, routes

DOCUMENT = "/etc/podnet-overlay/overlay.json"
STATE = "/var/lib/podnet-overlay/overlay.json"


@pytest.fixture
def underlay(underlay: Host) -> Host:
    """A host with the command."""
    underlay.module("node", missing=["file:engine"])
    return underlay


def run(underlay: Host, *words: str) -> tuple[int, str, str]:
    done = underlay.run("podnet-overlay", *words, check=False)
    return done.returncode, done.stdout, done.stderr


# ------------------------------------------------------------------------------------------------ what it does


def test_its_exit_codes_are_those_of_diff(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    assert run(underlay, "diff") == (0, "", "")
    assert run(underlay, "apply") == (0, "", "")
    underlay.sh("ip route del 10.244.1.0/24")
    code, out, err = run(underlay, "diff")
    assert (code, err) == (1, "")
    assert out.startswith("overlay: add route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 ")
    code, again, err = run(underlay, "apply")
    assert (code, again, err) == (0, out, "")
    assert run(underlay, "diff") == (0, "", "")
    code, out, err = run(underlay, "diff", "nothere")
    assert (code, out) == (2, "")
    assert err == "podnet-overlay: nothere: there is no document nothere in /etc/podnet-overlay\n"


@pytest.mark.parametrize("act", ["apply", "diff", "teardown", "confirm", "rollback"])
def test_a_document_that_is_not_there_is_an_error_in_every_act(underlay: Host, act: str) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    before, kept = picture(underlay), files(underlay)
    code, out, err = run(underlay, act, "overlya")
    assert (code, out) == (2, "")
    assert "there is no document overlya in /etc/podnet-overlay" in err
    assert (picture(underlay), files(underlay)) == (before, kept)


@pytest.mark.parametrize("act", ["confirm", "rollback"])
def test_where_nothing_waits_to_be_confirmed_it_is_told(underlay: Host, act: str) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    assert run(underlay, act, "overlay") == (0, "nothing of overlay waits to be confirmed\n", "")


def test_teardown_finds_what_a_document_made_that_lost_its_files(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh("rm -r /etc/podnet-overlay /var/lib/podnet-overlay")
    assert run(underlay, "teardown", "overlay")[0] == 0
    assert not underlay.links() & {"cni0", "flannel.1", "veth-web"}
    assert run(underlay, "teardown", "overlay")[0] == 2
    assert run(underlay, "teardown") == (0, "", "")


def test_as_json(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh("ip link set cni0 mtu 1400; ip route add 10.244.1.128/25 via 198.51.100.12")
    code, out, _err = run(underlay, "diff", "--json")
    (told,) = json.loads(out)
    assert code == 1
    assert (told["document"], told["error"]) == ("overlay", "")
    assert [line.split()[:3] for line in told["operations"]] == [["change", "link", "cni0"]]
    assert "10.244.1.128/25" in told["warnings"][0]


def test_after_a_boot_all_is_as_before(underlay: Host) -> None:
    """A boot leaves files, and neither links nor rules nor names of namespaces."""
    underlay.module("topology", document=node(), peers=PEERS)
    before = picture(underlay)
    underlay.sh(
        "ip link del cni0; ip link del flannel.1; ip netns del web; nft flush ruleset; sysctl -qw net.ipv4.ip_forward=0"
    )
    underlay.sh(
        "rm -rf /run/podnet-overlay*; for n in $(seq 50); do ip link show veth-web >/dev/null 2>&1 || break; sleep 0.1; done"
    )
    assert run(underlay, "apply")[0] == 0
    assert picture(underlay) == before
    underlay.run("ip netns exec web ping -c 1 -W 2 10.244.0.1")


def test_a_boot_beside_a_firewall_that_does_not_answer_brings_all_but_its_rules(underlay: Host) -> None:
    underlay.module("topology", document=overlays.document("node1", "vxlan", firewall={}))
    before = picture(underlay)
    fail = "#!/bin/sh\\necho FirewallD is not running >&2; exit 252\\n"
    underlay.sh(f"printf '{fail}' >/usr/local/sbin/firewall-cmd; chmod +x /usr/local/sbin/firewall-cmd")
    underlay.sh(
        "cp /bin/sleep /run/firewalld; ip link del cni0; ip link del flannel.1; nft flush ruleset; ip netns del web"
    )
    firewalld = underlay.popen("/run/firewalld", "99")
    try:
        code, _out, err = run(underlay, "apply")
        assert code == 2
        assert err.count("FirewallD is not running") == 1
        assert picture(underlay) == before
    finally:
        firewalld.kill()
        firewalld.communicate()
    assert run(underlay, "apply") == (0, "", "")


@pytest.mark.parametrize("count", [1, 60])
def test_what_the_kernel_refuses_is_told_and_the_rest_is_done(underlay: Host, count: int) -> None:
    underlay.module("topology", document=node(routes=sourced(count)), peers=PEERS)
    wanted = picture(underlay)
    underlay.sh(f"{RENUMBERED}; ip link set cni0 down; ip route del 10.244.2.0/24")
    code, out, err = run(underlay, "apply", "--json")
    (told,) = json.loads(out)
    assert (code, told["error"]) == (2, "")
    assert {line.split()[2] for line in told["operations"]} >= {"cni0", "10.244.2.0/24"}
    assert {line.split()[2] for line in told["held"]} == {f"10.50.{number}.0/24" for number in range(count)}
    assert "cannot add route 10.50.0.0/24 " in told["warnings"][0]
    assert "undone" not in out + err
    assert "10.244.2.0/24" in routes(underlay)
    underlay.sh(AS_BEFORE)
    assert run(underlay, "apply")[0] == 0
    assert picture(underlay) == wanted


def test_a_document_that_stands_on_anothers_bridge_comes_after_it_and_goes_before_it(underlay: Host) -> None:
    before = everything(underlay)
    own = {"name": "veth-own", "kind": "veth", "master": "cni0", "peer": {"name": "eth9"}}
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.module("topology", name="a-pod", document={"links": [own, {"name": "cni0", "external": True}]})
    underlay.sh("ip link del cni0; ip link del veth-own")
    assert run(underlay, "apply")[0] == 0
    assert underlay.json("ip -j link show veth-own")[0]["master"] == "cni0"
    assert run(underlay, "teardown")[0] == 0
    assert everything(underlay) == before


def test_one_damaged_document_does_not_keep_the_others_waiting(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.module("topology", name="lab", document={"links": [{"name": "br-lab", "kind": "bridge"}]})
    underlay.sh("ip link del br-lab")
    for text in (
        '{"links": [',
        "[]",
        '{"links": ["cni0"]}',
        '{"links": {"name": "x"}}',
        '{"links": 7}',
        '{"peers": 3}',
        "",
    ):
        underlay.run("sh", "-c", f"cat > {DOCUMENT} <<'EOF'\n{text}\nEOF")
        code, out, err = run(underlay, "diff")
        assert code == 2, text
        assert "lab: add link br-lab" in out, text
        assert "Traceback" not in err, text
        assert "podnet-overlay: overlay: " in err, text
        assert DOCUMENT in err, text


def test_a_file_of_no_documents_name_is_told(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    underlay.sh("echo '{}' > '/etc/podnet-overlay/my \"copy\".json'; ip route del 10.244.1.0/24")
    code, out, err = run(underlay, "apply")
    assert code == 2
    assert "10.244.1.0/24" in out
    assert "no document's name" in err


# ------------------------------------------------------------------------------------------------ a disk that does not take it


def full(underlay: Host, folder: str) -> None:
    """Put *folder*, with what is in it, on a disk that has no room left."""
    underlay.sh(
        f"mkdir -p {folder} /run/kept; cp -a {folder}/. /run/kept; mount -t tmpfs -o size=64k none {folder}; cp -a /run/kept/. {folder};"
        f"rm -r /run/kept; dd if=/dev/zero of={folder}/fill bs=4096 2>/dev/null || true"
    )


def read_only(underlay: Host, folder: str) -> None:
    top = "/" + "/".join(folder.split("/")[1:-1])
    underlay.sh(f"mount --bind {top} {top}; mount -o remount,ro,bind {top}")


@pytest.mark.parametrize("folder", ["/etc/podnet-overlay", "/var/lib/podnet-overlay"])
@pytest.mark.parametrize("way", [full, read_only])
@pytest.mark.parametrize("first", [True, False])
def test_what_cannot_be_written_is_told_and_nothing_is_changed(
    underlay: Host, folder: str, way: Any, first: bool
) -> None:
    if not first:
        underlay.module("topology", document=node(), peers=PEERS)
    way(underlay, folder)
    before, kept = picture(underlay), files(underlay)
    answer = underlay.module("topology", document=changed(), peers=PEERS, fails=True)
    assert f"cannot write {folder}/overlay.json (" in answer["msg"], answer
    assert "make room or make it writable" in answer["msg"]
    assert picture(underlay) == before
    assert files(underlay) - {"/run/podnet-overlay.lock"} == kept - {"/run/podnet-overlay.lock"}
    if not first:  # what is there goes on
        underlay.sh("ip route del 10.244.1.0/24; ip link del flannel.1; sysctl -qw net.ipv4.ip_forward=0")
        assert run(underlay, "apply")[::2] == (0, "")
        assert picture(underlay) == before
    underlay.sh(f"umount {folder} || umount {folder.rpartition('/')[0]}")
    underlay.module("topology", document=node(), peers=PEERS)
    assert run(underlay, "diff") == (0, "", "")


def changed() -> dict[str, Any]:
    """Another document, and a longer one: pages that the old one took do not do."""
    many = [{"dst": f"10.9.{number}.0/24", "via": "198.51.100.12"} for number in range(200)]
    return node(routes=[*node()["routes"], *many])


def test_a_change_that_the_kernel_refuses_is_told_on_a_full_disk_too(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    before = picture(underlay)
    bad = node(routes=[*node()["routes"], {"dst": "10.5.0.0/24", "via": "203.0.113.9"}])
    underlay.sh(
        "mount -t tmpfs -o size=16k none /mnt; cp -a /var/lib/podnet-overlay/. /mnt; mount --move /mnt /var/lib/podnet-overlay"
    )
    answer = underlay.module("topology", document=bad, peers=PEERS, fails=True)
    assert "10.5.0.0/24" in answer["msg"]
    assert picture(underlay) == before
    underlay.module("topology", document=node(), peers=PEERS)
    assert run(underlay, "diff") == (0, "", "")


def test_a_teardown_that_cannot_forget_says_so_and_can_be_run_again(underlay: Host) -> None:
    before = everything(underlay)
    underlay.module("topology", document=node(), peers=PEERS)
    wanted = picture(underlay)
    for folder in FOLDERS[:2]:
        underlay.sh(f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}")
        answer = underlay.module("topology", state="absent", fails=True)
        assert answer["msg"].startswith(f"cannot remove {folder}/overlay.json: "), answer["msg"]
        assert picture(underlay) == wanted
        underlay.sh(f"umount {folder}")
    underlay.module("topology", state="absent")
    assert everything(underlay) == before


@pytest.mark.parametrize("folder", ["/usr/local/lib/podnet-overlay", "/usr/local/sbin"])
def test_an_installation_without_room_is_told(underlay: Host, folder: str) -> None:
    underlay.sh(f"mkdir -p {folder}; mount -t tmpfs -o ro none {folder}")
    answer = underlay.module("node", missing=["file:engine"], fails=True)
    assert f"cannot write {folder}" in answer["msg"]
    assert "Read-only file system" in answer["msg"]


# ------------------------------------------------------------------------------------------------ two at once


def test_two_controllers_at_once_leave_the_document_of_one(underlay: Host) -> None:
    other = changed()
    pictures = []
    for document in (node(), other):
        underlay.module("topology", document=document, peers=PEERS)
        pictures.append(picture(underlay))
    runs = [kills.module("topology", document=document, peers=PEERS) for document in (node(), other)]
    for _round in range(4):
        processes = [kills.started(underlay, run) for run in (*runs, kills.command("apply"))]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        assert picture(underlay) in pictures
        document = json.loads(underlay.run("cat", DOCUMENT).stdout)
        winner = pictures.index(picture(underlay))
        assert len(document["routes"]) == len((node(), other)[winner]["routes"])
        assert json.loads(underlay.run("cat", STATE).stdout)["previous"] == []


def test_who_waits_too_long_for_the_lock_is_told(underlay: Host) -> None:
    underlay.module("topology", document=node(), peers=PEERS)
    holder = underlay.popen("flock", "/run/podnet-overlay.lock", "sleep", "3")
    time.sleep(0.3)
    assert run(underlay, "diff")[0] == 0
    begun = time.monotonic()
    assert run(underlay, "apply")[0] == 0
    assert time.monotonic() - begun > 1
    holder.communicate()


# ------------------------------------------------------------------------------------------------ of older releases


def test_a_host_of_0_3_0_is_taken_over_without_a_change_and_its_state_moves(underlay: Host) -> None:
    before = everything(underlay)
    underlay.module("topology", document=node(), peers=PEERS)
    as_0_3_0(underlay)
    wanted = picture(underlay)
    again = underlay.module("topology", document=node(), peers=PEERS)
    assert again["operations"] == []
    assert picture(underlay) == wanted
    assert json.loads(underlay.run("cat", DOCUMENT).stdout)["namespaces"] == node()["namespaces"]
    state = json.loads(underlay.run("cat", STATE).stdout)
    assert state["version"] == 2
    assert "document" not in state
    underlay.sh("ip link del cni0")
    assert run(underlay, "apply")[0] == 0
    assert picture(underlay) == wanted
    underlay.module("topology", state="absent")
    assert everything(underlay) == before


@pytest.mark.parametrize("front", ["module", "command"])
def test_a_host_of_0_3_0_can_be_torn_down_as_it_is(underlay: Host, front: str) -> None:
    before = everything(underlay)
    underlay.module("topology", document=node(), peers=PEERS)
    as_0_3_0(underlay)
    underlay.module("topology", state="absent") if front == "module" else underlay.run("podnet-overlay teardown")
    assert everything(underlay) == before


def test_what_a_document_of_0_3_0_no_longer_names_goes(underlay: Host) -> None:
    underlay.module("topology", document=changed(), peers=PEERS)
    as_0_3_0(underlay)
    underlay.module("topology", document=node(), peers=PEERS)
    assert "10.9.7.0/24" not in routes(underlay)


def as_0_3_0(underlay: Host) -> None:
    """The files as that release left them."""
    document = json.loads(underlay.run("cat", DOCUMENT).stdout)
    state = json.loads(underlay.run("cat", STATE).stdout)
    old = {**state, "version": 1, "document": document}
    underlay.run("sh", "-c", f"rm -r /etc/podnet-overlay; cat > {STATE} <<'EOF'\n{json.dumps(old)}\nEOF")


def test_a_foreign_veth_in_place_of_the_bridge_stays_with_its_other_end() -> None:
    with overlays.overlay("vxlan", firewall={}) as hosts:
        node1 = hosts["node1"]
        node1.module("node", missing=["file:engine"])
        node1.sh("ip link del cni0; ip link add cni0 type veth peer name cnix; ip link set flannel.1 mtu 1300")
        applied = node1.run("podnet-overlay apply", check=False)
        assert (applied.returncode, "link cni0 is there already" in applied.stderr) == (2, True)
        assert "delete" not in applied.stdout
        links = {link["ifname"]: link for link in node1.json("ip -j link")}
        assert {"cni0", "cnix"} <= set(links)
        assert links["flannel.1"]["mtu"] == 1450


def test_one_damaged_unconfirmed_change_does_not_keep_the_documents_from_being_applied() -> None:
    with overlays.overlay("vxlan", firewall={}) as hosts:
        node1 = hosts["node1"]
        node1.module("node", missing=["file:engine"])
        folder = "/var/lib/podnet-overlay/rollback"
        for damage in ("{}", "garbage"):
            node1.sh(f"mkdir -p {folder}; echo '{damage}' >{folder}/other.json; ip link del cni0")
            applied = node1.run("podnet-overlay apply", check=False)
            assert (applied.returncode, f"{folder}/other.json" in applied.stderr) == (2, True)
            assert "cni0" in node1.links()
        told = json.loads(node1.run("podnet-overlay apply --json", check=False).stdout)
        assert {entry["document"]: f"{folder}/other.json" in entry["error"] for entry in told} == {
            "overlay": False,
            "other": True,
        }


def test_nobody_but_root_can_hold_the_lock() -> None:
    with overlays.overlay("vxlan", firewall={}) as hosts:
        assert hosts["node1"].run("stat -c %a /run/podnet-overlay.lock").stdout == "600\n"
