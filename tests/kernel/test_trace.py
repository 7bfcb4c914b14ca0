"""playbooks/trace.yml on a fleet of namespace hosts, used badly: what it says, and that nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kernel.test_playbooks import Fleet, fleet_of

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
        (("-e", "capture=maybe"), "argument 'capture' is of type str and we were unable to convert to bool"),
    ],
)
def test_what_cannot_be_told_fails(fleet: Fleet, options: tuple[str, ...], says: str) -> None:
    done = fleet.play("trace", *ENDS, *options)
    assert done.code != 0
    assert says in " ".join(done.out.replace("''", "'").split())
    assert remains(fleet) == []
