"""The playbooks on a fleet of namespace hosts: what a user sees, and what the kernels show."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kernel.fleets import UNREACHABLE, Fleet, fleet_of, pods, told
from tests.kernel.looks import routes


def test_the_life_of_an_overlay(pair: Fleet) -> None:
    before = pair.picture()
    predicted = pair.works("overlay", "--check", "--diff")
    assert pair.picture() ^ before == set()
    first = pair.works("overlay", "--diff", "--forks=1")
    assert predicted.changed == first.changed
    assert told(predicted) == told(first)
    assert "+route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto podnet" in told(first)
    assert not any(pair.works("overlay").changed.values())
    addresses = pods(pair)
    pair.works("verify")

    pair.hosts["node1"].sh("ip route del 10.244.1.0/24")
    lost = pair.play("verify")
    assert lost.code != 0
    assert "loss from node1" in lost.out

    for backend, device in (("host-gw", "eth1"), ("vxlan", "flannel.1")):
        pair.group["overlay_backend"] = backend
        assert pair.works("overlay").changed["node2"] == 3  # takes both, sends by the new one, forgets the former one
        assert not any(pair.works("overlay").changed.values())
        assert routes(pair.hosts["node1"])["10.244.1.0/24"][1] == device
        assert pods(pair) == addresses
    assert "flannel.1" in pair.hosts["node2"].links()

    pair.works("teardown")
    assert not [line for line in pair.picture() ^ before if not line.startswith("leases: ")]


def test_teardown_names_what_loses_its_network(pair: Fleet) -> None:
    pair.works("overlay")
    node1 = pair.hosts["node1"]
    node1.sh("ip link add theirs type veth peer name theirs1; ip link set theirs master cni0")
    process = node1.popen("ip", "netns", "exec", "web", "sleep", "60")
    try:
        node1.sh("until ip netns pids web | grep -q .; do sleep 0.01; done")
        for options in (["--check"], []):
            done = pair.works("teardown", *options)
            assert "node1: these are on the overlay still, and go on without it: web, theirs (" in done.out
            assert "node2: these" not in done.out
    finally:
        process.kill()
        process.communicate()
    assert node1.links() >= {"theirs", "theirs1"}
    assert "cni0" not in node1.links()
    node1.sh("ip link add cni0 type bridge; ip link set theirs master cni0")  # of somebody else, now
    assert "these are on the overlay" not in pair.works("teardown").out


def test_part_of_a_fleet(trio: Fleet) -> None:
    trio.works("overlay")
    leases, addresses = trio.leases.read_text(), pods(trio)
    everywhere = {f"10.244.{number}.0/24" for number in range(3)}

    # One host alone: it keeps its peers, and nobody else is touched.
    limited = trio.works("overlay", "--limit=node2")
    assert limited.changed["node2"] == 0
    assert trio.subnets("node2") == everywhere

    # A lost file, and all hosts answer: the same again. One does not: refused.
    trio.leases.unlink()
    assert not any(count for name, count in trio.works("overlay").changed.items() if name in ("node2", "node3"))
    assert trio.leases.read_text() == leases
    trio.leases.unlink()
    sound = trio.variables["node3"]
    trio.variables["node3"] = {**sound, **UNREACHABLE}
    assert "node3: overlay_leases_file: the host did not answer" in trio.refused("overlay")
    trio.leases.write_text(leases)

    trio.variables["node3"] = sound

    # With the file, an unreachable host stops nobody, not even the first, and the others keep their routes to it.
    trio.hosts["node2"].sh("ip route del 10.244.0.0/24; ip route del 10.244.2.0/24")
    trio.variables["node1"], first = {**trio.variables["node1"], **UNREACHABLE}, trio.variables["node1"]
    without = trio.play("overlay")
    assert without.recap["node1"]["unreachable"] == 1
    assert (without.recap["node2"]["failed"], without.recap["node3"]["failed"]) == (0, 0)
    assert trio.subnets("node2") == trio.subnets("node3") == everywhere
    assert trio.leases.read_text() == leases
    unverified = trio.play("verify")
    assert unverified.code != 0
    assert "no result from node1" in unverified.out
    trio.variables["node1"] = first

    # It leaves the inventory: the others drop it, and its lease is remembered.
    del trio.variables["node3"]
    trio.works("overlay")
    assert trio.subnets("node1") == trio.subnets("node2") == {"10.244.0.0/24", "10.244.1.0/24"}
    assert pods(trio) == addresses
    trio.variables["node3"] = sound
    trio.works("overlay")
    assert pods(trio) == addresses
    assert trio.leases.read_text() == leases


# ------------------------------------------------------------------------------------------------ bad input


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two hosts that every run refuses to touch."""
    with fleet_of(2, tmp_path_factory.mktemp("idle")) as fleet:
        yield fleet


@pytest.fixture
def spared(idle: Fleet) -> Iterator[Fleet]:
    group, variables = dict(idle.group), {name: dict(own) for name, own in idle.variables.items()}
    yield idle
    idle.group, idle.variables = group, variables
    for name in idle.hosts:
        idle.interpreter(name, sys.executable)


def test_all_mistakes_of_an_inventory_are_told_before_a_host_is_contacted(spared: Fleet) -> None:
    spared.group |= {"overlay_mtu": 500, "overlay_backend": "gre", "overlay_bridge": "a-name-of-sixteen"}
    spared.variables["node1"] |= {"overlay_public_ip": "198.51.100.2", "overlay_subnet": "10.9.0.0/24"}
    spared.variables["node2"] |= {
        "overlay_public_ip": "198.51.100.2",
        "overlay_interface": "{{ nothing.of_that_name }}",
    }
    said = spared.refused("overlay")
    assert "node2: overlay_interface: cannot be templated" in said
    spared.variables["node2"] |= {
        "overlay_interface": "eth/1",
        "overlay_pods": [
            {"name": "web", "address": "10.244.7.1"},
            {"name": "db", "address": "10.244.7.1"},
            {"nam": "x"},
        ],
        "overlay_subnet": "10.244.7.0/24",
    }
    said = spared.refused("overlay")
    for line in (
        "overlay: overlay_backend: 'gre' is none of ipip, vxlan, host-gw",
        "overlay: overlay_mtu: 500 is below 576; choose more, or auto",
        "overlay: overlay_bridge: 'a-name-of-sixteen' has 17 bytes, and an interface name has 1 to 15",
        "node2: overlay_interface: 'eth/1' is no interface name: no slash, colon or white space, nor . or ..",
        "node2: overlay_public_ip: 198.51.100.2 is also that of node1; each node needs its own",
        "node1: overlay_subnet: 10.9.0.0/24 is outside overlay_network 10.244.0.0/16; choose one inside",
        "node2: overlay_pods: web: 10.244.7.1 is the gateway's; choose another of 10.244.7.0/24",
        "node2: overlay_pods: db: 10.244.7.1 is there twice; choose another",
        "node2: overlay_pods: {'nam': 'x'} is no mapping with a name; write it as {name: web}",
    ):
        assert line in said
    assert not spared.contacted.exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("version: 1\nnetwork: 10.244.0.0/16\nnodes: {", "is not YAML"),
        ("version: 1\nnetwork: 10.244.0.0/16\nnodes: {}\n", "removed: is missing; the file is torn"),
        (
            "version: 1\nnetwork: 10.9.0.0/16\nnodes: {}\nremoved: {}\n",
            "network: 10.9.0.0/16 is not overlay_network 10.244.0.0/16",
        ),
    ],
)
def test_a_bad_leases_file_stops_all_before_a_host_is_contacted(spared: Fleet, text: str, line: str) -> None:
    spared.leases.parent.mkdir(exist_ok=True)
    spared.leases.write_text(text)
    try:
        assert f"{spared.leases}: {line}" in spared.refused("overlay")
        assert not spared.contacted.exists()
    finally:
        spared.leases.unlink()


def test_what_is_in_the_way_on_one_host_stops_all_before_any_is_changed(spared: Fleet) -> None:
    """Nothing is changed on the sound host either, nor is a lease given."""
    host = spared.hosts["node2"]
    host.sh(
        "ip link add cni0 type bridge; ip link add flannel.1 type bridge; ip netns add web;"
        "ip route add 10.244.0.0/24 via 198.51.100.1 proto static"
    )
    spared.group["overlay_mtu"] = 1490
    try:
        said = spared.refused("overlay")
    finally:
        host.sh("ip link del cni0; ip link del flannel.1; ip netns del web; ip route del 10.244.0.0/24")
    for line in (
        "node1: overlay_mtu: 1490 is over 1450, the MTU of eth1 (1500) less 50 of vxlan; choose 1450 or less, or auto",
        "node2: overlay_bridge: the host has a link cni0 that is not the overlay's; remove it, or choose another name",
        "node2: overlay_tunnel: the host has a link flannel.1 that is not the overlay's; remove it, or choose another name",
        "node2: overlay_pods: the host has a namespace web that is not the overlay's; remove it, or choose another name",
        "route to 10.244.0.0/24 via 198.51.100.1 dev eth1 proto static, where node1 belongs; remove it",
    ):
        assert line in said
    assert not spared.leases.exists()


def test_a_kernel_without_the_backend_says_what_it_can_do(spared: Fleet) -> None:
    probe = "ip link add probe type ipip local 192.0.2.1 && ip link del probe"
    if spared.hosts["node1"].run("sh", "-c", probe, check=False).returncode == 0:
        pytest.skip("this kernel has IPIP")
    spared.group["overlay_backend"] = "ipip"
    said = spared.refused("overlay")
    assert re.search(r"node1: overlay_backend: the host's kernel \S+ has no ipip; what it can do: vxlan, host-gw", said)


def test_whoever_is_not_root_is_told_to_become_it(spared: Fleet) -> None:
    spared.interpreter("node2", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3")
    said = spared.refused("overlay")
    assert "node2: ansible_become: the tasks do not run as root; use --become, or set ansible_become: true" in said


def test_an_inventory_without_the_group_is_refused(spared: Fleet) -> None:
    spared.variables = {}
    for playbook in ("overlay", "teardown"):
        assert "The inventory has no hosts in a group overlay." in spared.refused(playbook)


# ------------------------------------------------------------------------------------------------ pyroute2


BARE = ("env", "-u", "PYTHONPATH", sys.executable, "-I", "-S")
"""A Python with the standard library alone."""
BRIDGE = """
- hosts: node1
  gather_facts: false
  tasks:
    - podnet.overlay.bridge: {name: br-test}
"""


def test_without_pyroute2_one_error_names_host_interpreter_and_package(spared: Fleet) -> None:
    host = spared.hosts["node1"]
    (spared.folder / "bridge.yml").write_text(BRIDGE)
    spared.interpreter("node1", *BARE)
    host.sh("for folder in /usr/lib/python3/dist-packages; do [ ! -d $folder ] || mount -t tmpfs none $folder; done")
    try:
        single = spared.refused(str(spared.folder / "bridge"))
        spared.group["overlay_install"] = False
        whole = spared.refused("overlay")
    finally:
        host.sh("umount /usr/lib/python3/dist-packages || true")
    assert f"pyroute2 is not installed for {sys.executable}." in single
    assert "(package python3-pyroute2, " in single
    assert (
        f"node1: overlay_install: the host lacks python3-pyroute2 (for its interpreter {sys.executable}); install"
        in whole
    )


def test_another_python_that_has_pyroute2_is_used(spared: Fleet) -> None:
    if subprocess.run(["/usr/bin/python3", "-I", "-c", "import pyroute2"], capture_output=True, check=False).returncode:
        pytest.skip("this machine's distribution brings no pyroute2")
    (spared.folder / "bridge.yml").write_text(BRIDGE)
    spared.interpreter("node1", *BARE)
    try:
        assert spared.works(str(spared.folder / "bridge")).changed["node1"] == 1
        assert "br-test" in spared.hosts["node1"].links()
    finally:
        spared.hosts["node1"].run("ip link del br-test")
