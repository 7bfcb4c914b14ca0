"""playbooks/trace.yml on a fleet of namespace hosts, used badly: what it says, and that nothing is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kernel.fleets import Fleet, fleet_of

ENDS = ("-e", "from=web@node1", "-e", "to=web@node2")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    pytest.importorskip("scapy")
    with fleet_of(3, tmp_path_factory.mktemp("trace")) as fleet:
        fleet.works("overlay")
        yield fleet


def remains(fleet: Fleet) -> list[str]:
    """What captures have left on the hosts."""
    look = "ls /run; nft list tables; ip netns exec web nft list tables"
    lines = [line for host in fleet.hosts.values() for line in host.sh(look).splitlines()]
    return [line for line in lines if "podnet-overlay-capture" in line or "podnet_overlay_" in line]


def test_two_at_once_do_not_take_each_others_frames(fleet: Fleet) -> None:
    def trace(folder: str) -> str:
        return fleet.works("trace", *ENDS, "-e", "capture=true", "-e", f"dest={fleet.folder / folder}").out

    with ThreadPoolExecutor() as pool:
        for out in pool.map(trace, ("one", "two")):
            assert "3 of 3 probes answered" in out
            assert "not here" not in out
    assert len(list((fleet.folder / "one").iterdir())) == 10
    assert remains(fleet) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--limit", "node3"), "--limit leaves out node1 and node2"),
        (("--limit", "node1"), "node2: was not asked (does --limit leave it out?)"),
        (("-e", "capture=true", "-e", "port=80"), "the probe is an echo request, which goes to no port: leave out one"),
        (("-e", "capture=maybe"), "argument 'capture' is of type str and we were unable to convert to bool"),
        (("-e", "capture=true", "-e", "output=yaml"), "value of output must be one of: text, json, got: yaml"),
    ],
)
def test_what_cannot_be_told_fails(fleet: Fleet, options: tuple[str, ...], says: str) -> None:
    done = fleet.play("trace", *ENDS, *options)
    assert done.code != 0
    assert says in " ".join(done.out.replace("''", "'").split())
    assert remains(fleet) == []


def test_what_a_node_sees_of_a_pod_under_its_own_address_is_followed_there_and_back(fleet: Fleet) -> None:
    folder = fleet.folder / "masqueraded"
    path = ("-e", "from=web@node1", "-e", "to=198.51.100.2")
    out = fleet.works("trace", *path, "-e", "capture=true", "-e", f"dest={folder}").out
    assert "masquerade: its source 10.244.0.2 becomes 198.51.100.1," in out
    assert "answers a translated connection: its destination 198.51.100.1 becomes 10.244.0.2" in out
    assert "web@node1 reaches 198.51.100.2 and back" in out
    assert "3 of 3 probes answered" in out
    assert "not here" not in out  # also where masquerade has given the probe another identifier


def test_an_address_of_the_world_is_followed_until_it_leaves(fleet: Fleet) -> None:
    node1, path = fleet.hosts["node1"], ("-e", "from=web@node1", "-e", "to=192.0.2.77", "-e", "port=443")
    assert "no route at node1, cni0 (request, hop 3)" in fleet.play("trace", *path).out
    node1.sh("ip route add 192.0.2.0/24 via 198.51.100.3")
    try:
        out = fleet.works("trace", *path).out
    finally:
        node1.sh("ip route del 192.0.2.0/24")
    assert "web@node1 may reach 192.0.2.77 and back" in out
    assert "it leaves node1 by eth1 as 198.51.100.1, and what comes then is not known" in out
    assert remains(fleet) == []


def test_hosts_one_after_the_other_capture_the_same_probe(fleet: Fleet) -> None:
    done = fleet.works("trace", *ENDS, "-e", "capture=true", "-e", f"dest={fleet.folder / 'slow'}", "--forks=1")
    assert "3 of 3 probes answered" in done.out
    assert "not here" not in done.out
    assert remains(fleet) == []


@pytest.mark.parametrize("lacks", ["net_raw", "net_admin"])
def test_a_host_without_the_privilege_to_capture_is_told(fleet: Fleet, lacks: str) -> None:
    try:
        fleet.interpreter("node2", "setpriv", f"--bounding-set=-{lacks}", "--inh-caps=-all", sys.executable)
        done = fleet.play("trace", *ENDS, "-e", "capture=true", "-e", f"dest={fleet.folder / lacks}")
    finally:
        fleet.interpreter("node2", sys.executable)
    assert done.code != 0
    assert "cannot be told: node2: capture failed: capturing needs root" in done.out
    assert "3 of 3 probes were answered" in done.out
    assert "not here" not in done.out  # where nothing could be seen
    assert remains(fleet) == []


def test_an_address_that_nobody_has_is_in_doubt_only_where_somebody_could(fleet: Fleet) -> None:
    path = (*ENDS[:2], "-e", "to=10.244.1.77")
    done = fleet.play("trace", *path)
    assert done.code != 0
    assert "nobody on the segment of cni0 has 10.244.1.77" in done.out
    node2 = fleet.hosts["node2"]
    node2.sh("ip link add foreign type vxlan id 99 dstport 9999; ip link set foreign up master cni0")
    try:
        out = fleet.works("trace", *path).out
    finally:
        node2.sh("ip link del foreign")
    assert "web@node1 may reach 10.244.1.77: path MTU" in out
    assert "it gets to cni0 of node2, and who has 10.244.1.77 there is not known" in out
