"""systemd-networkd (the real one) and NetworkManager (a stand-in) configure a node's links, and leave the overlay's alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kernel.far_end import PATIENCE, Place, passes
from tests.kernel.firewalls import bus, ended, needs
from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, converge, document, underlay

DAEMON = "/usr/lib/systemd/systemd-networkd"
UNDERLAY = "[Match]\\nName=eth1\\n[Network]\\nAddress=198.51.100.11/24\\nLinkLocalAddressing=no\\n"
ALL = "[Match]\\nName=*\\n[Network]\\nLinkLocalAddressing=no\\n"
OURS = "/etc/systemd/network/0-podnet-overlay.network"
CONF = "/etc/systemd/networkd.conf.d/podnet-overlay.conf"
NM_CONF = "/etc/NetworkManager/conf.d/zz-podnet-overlay.conf"
LINKS = ["cni0", "flannel.1", "veth-db", "veth-web"]


@contextmanager
def networkd(host: Host) -> Iterator[None]:
    """It runs on the host and has taken up the links that it is told of, which is eth1 in any case.

    A /sys that cannot be written tells it that there is no udev to wait for.
    """
    state = "/run/systemd/netif/state"
    with ended(host, [DAEMON]):
        host.sh(f"for i in $(seq 100); do grep -qs ADDRESS_STATE=routable {state} && exit; sleep 0.1; done; exit 1")
        yield
    host.sh(f"rm -f {state}")


@contextmanager
def nodes(networks: dict[str, str]) -> Iterator[dict[str, Host]]:
    """Two hosts, the first of which is networkd's, though it does not run yet; *networks* are its files.

    It gives eth1 its address too: an address that is there without a broadcast address keeps networkd 252 busy for ever.
    """
    if not os.path.exists(DAEMON):
        pytest.skip("systemd-networkd is not installed")
    needs("networkctl")
    with underlay(NODES) as hosts, bus(hosts["node1"]):
        files = "; ".join(f"printf '{text}' >/etc/systemd/network/{name}" for name, text in networks.items())
        hosts["node1"].sh(
            "ip addr flush dev eth1; mount -t sysfs -o ro none /sys; mkdir -p /run/systemd /etc/systemd/network;"
            f"rm -rf /etc/systemd/network/*; {files}"
        )
        yield hosts


def carries(hosts: dict[str, Host], patience: float = PATIENCE) -> bool:
    return passes(Place(hosts["node1"], "web"), Place(hosts["node2"], "web"), "10.244.1.2", patience)


def repaired(hosts: dict[str, Host]) -> list[str]:
    """What another run has to do on node1, after which nothing is left to be done."""
    operations: list[str] = converge(hosts, "vxlan", firewall={}, on=["node1"])["node1"]["operations"]
    assert not converge(hosts, "vxlan", firewall={}, on=["node1"])["node1"]["changed"]
    assert carries(hosts)
    return operations


def etc(host: Host) -> str:
    return host.sh("find /etc/systemd /etc/NetworkManager -printf '%p %M %l\\n' 2>/dev/null | sort || true")


TOLD = "add settings of systemd-networkd: " + "; ".join(f"{name} unmanaged" for name in LINKS)


def test_networkd_that_has_a_file_for_all_links_leaves_the_overlays_alone() -> None:
    with nodes({"20-underlay.network": UNDERLAY, "00-all.network": ALL.replace("*", "!eth1")}) as hosts:
        node1 = hosts["node1"]
        before = etc(node1)
        with networkd(node1):
            first = converge(hosts, "vxlan", firewall={})["node1"]["operations"]
            assert TOLD in first
            assert first.index(TOLD) < next(index for index, text in enumerate(first) if text.startswith("add link"))
            assert carries(hosts)
            states = node1.run("networkctl list --no-legend --no-pager").stdout
            assert {line.split()[1] for line in states.splitlines() if "unmanaged" in line} >= set(LINKS)
            assert not converge(hosts, "vxlan", firewall={})["node1"]["changed"]
        with networkd(node1):
            time.sleep(1)
            assert carries(hosts, 0.5)
            assert repaired(hosts) == []
            node1.run("networkctl reload")
            time.sleep(1)
            assert carries(hosts, 0.5)
            assert repaired(hosts) == []

            node1.sh(f"rm {OURS}; networkctl reload; sleep 1")
            assert not carries(hosts, 0.5), "networkd took nothing away: this test shows nothing"
            assert TOLD in repaired(hosts)
            node1.sh(f"sed -i s/=yes/=no/ {OURS}")
            edited = "change settings of systemd-networkd: " + "; ".join(f"{name} unmanaged" for name in LINKS)
            assert repaired(hosts) == [edited]
            node1.module("topology", name="overlay", state="absent")
            assert node1.links() == {"lo", "eth1"}
        assert etc(node1) == before


POD = {
    "namespaces": [{"name": "x"}],
    "links": [
        {"name": "cni0", "external": True},
        {
            "name": "veth-x",
            "kind": "veth",
            "master": "cni0",
            "peer": {"name": "eth0", "namespace": "x", "addresses": ["10.244.0.50/24"]},
        },
    ],
}
"""A pod by hand, as the role pod makes it."""


def test_networkd_leaves_the_link_of_a_pod_by_hand_alone_too() -> None:
    with nodes({"20-underlay.network": UNDERLAY, "00-all.network": ALL.replace("*", "!eth1")}) as hosts:
        node1 = hosts["node1"]
        before = etc(node1)
        with networkd(node1):
            converge(hosts, "vxlan", firewall={})
            node1.module("topology", name="pod-x", document=POD)
        with networkd(node1):
            node1.run("networkctl reload")
            time.sleep(1)
            (link,) = node1.json("ip -j link show veth-x")
            assert link.get("master") == "cni0"
            assert not node1.module("topology", name="pod-x", document=POD)["changed"]
            assert repaired(hosts) == []
            node1.module("topology", name="pod-x", state="absent")
            node1.module("topology", name="overlay", state="absent")
        assert etc(node1) == before


def test_networkd_with_a_file_for_the_uplink_alone_keeps_what_is_made_and_what_is_made_later() -> None:
    with nodes({"20-underlay.network": UNDERLAY}) as hosts:
        for backend, more in (("vxlan", False), ("host-gw", True)):
            with networkd(hosts["node1"]):
                converge(hosts, backend, firewall={})
                assert carries(hosts)
            with networkd(hosts["node1"]):
                converge(hosts, backend, firewall={})
                assert carries(hosts)
                assert hosts["node1"].run("test", "-e", CONF, check=False).returncode == (not more)
        hosts["node1"].module("topology", name="overlay", state="absent")
        assert "podnet" not in etc(hosts["node1"])


def test_nothing_is_told_to_who_neither_runs_nor_will(host: Host) -> None:
    before = etc(host)
    host.module("topology", name="overlay", document=bridge())
    assert etc(host) == before


def test_networkd_that_starts_at_the_next_boot_is_told_too(host: Host) -> None:
    unit = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
    before = etc(host)
    host.sh(f"mkdir -p $(dirname {unit}); ln -s /x {unit}")
    host.module("topology", name="overlay", document=bridge())
    assert "Name=cni0\n" in host.sh(f"cat {OURS}")
    host.sh(f"rm {unit}")
    assert not host.module("topology", name="overlay", document=bridge())["changed"]
    host.module("topology", name="overlay", state="absent")
    assert etc(host) == before


def test_networkmanager_that_is_installed_is_told_before_it_starts(host: Host) -> None:
    before = etc(host)
    host.sh("mount -t tmpfs none /usr/local/sbin; touch /usr/local/sbin/NetworkManager; chmod +x /usr/local/sbin/*")
    host.module("topology", name="overlay", document=bridge())
    assert "interface-name:=cni0" in host.sh(f"cat {NM_CONF}")
    host.module("topology", name="overlay", state="absent")
    assert etc(host) == before


def bridge() -> dict[str, object]:
    """A node's document without pods and peers."""
    whole = document("node1", "host-gw", firewall={"pods": []})
    return {key: whole[key] for key in ("firewall",)} | {"links": whole["links"][:1]}


@pytest.fixture
def manager(host: Host) -> Iterator[Callable[[], list[str]]]:
    """A process called NetworkManager, and nmcli, whose commands since the last call are returned."""
    host.sh(
        "mount -t tmpfs none /usr/local/sbin; cp /bin/sleep /run/NetworkManager; touch /run/said;"
        "printf '#!/bin/sh\\necho $* >>/run/said\\n' >/usr/local/sbin/nmcli; chmod +x /usr/local/sbin/nmcli"
    )
    with ended(host, ["/run/NetworkManager", "infinity"]):
        host.sh("until grep -qx NetworkManager /proc/[0-9]*/comm 2>/dev/null; do sleep 0.01; done")
        yield lambda: host.sh("cat /run/said; : >/run/said").splitlines()


def test_networkmanager_is_told_and_told_again_and_in_the_end_told_nothing(
    host: Host, manager: Callable[[], list[str]]
) -> None:
    before = etc(host)
    done = host.module("topology", name="overlay", document=bridge())
    assert "add settings of NetworkManager: cni0 unmanaged" in done["operations"]
    assert "settings of NetworkManager: cni0 unmanaged\n" in done["diff"]["after"]
    assert manager() == ["general reload conf"]
    made = host.sh(f"cat {NM_CONF}")
    assert "[keyfile]\nunmanaged-devices+=interface-name:=cni0\n" in made
    assert not host.module("topology", name="overlay", document=bridge())["changed"]
    as_it_is = host.module("topology_info")["document"]
    assert not host.module("topology", document=as_it_is)["changed"]
    assert manager() == []

    host.sh(f"sed -i s/+=/=/ {NM_CONF}")
    assert host.module("topology", name="overlay", document=bridge())["operations"] == [
        "change settings of NetworkManager: cni0 unmanaged"
    ]
    assert (host.sh(f"cat {NM_CONF}"), manager()) == (made, ["general reload conf"])
    host.module("topology", name="overlay", state="absent")
    assert (etc(host), manager()) == (before, ["general reload conf"])


@pytest.mark.parametrize("last", ["overlay", "pod-x"])
def test_networkmanager_is_told_of_each_documents_links_until_that_one_goes(
    host: Host, manager: Callable[[], list[str]], last: str
) -> None:
    before = etc(host)
    host.module("topology", name="overlay", document=bridge())
    assert (
        "add settings of NetworkManager: veth-x unmanaged"
        in host.module("topology", name="pod-x", document=POD)["operations"]
    )
    files = {"overlay": NM_CONF, "pod-x": NM_CONF.replace("overlay", "pod-x")}
    assert "unmanaged-devices+=interface-name:=veth-x\n" in host.sh(f"cat {files['pod-x']}")
    assert not host.module("topology", name="overlay", document=bridge())["changed"]
    for name in sorted(files, key=last.__eq__):
        assert host.run("test", "-e", files[name]).returncode == 0
        host.module("topology", name=name, state="absent")
        assert host.run("test", "-e", files[name], check=False).returncode == 1
    assert etc(host) == before


def test_a_file_of_the_operators_in_the_place_of_ours_is_told_and_nothing_is_changed(
    host: Host, manager: Callable[[], list[str]]
) -> None:
    host.sh(f"mkdir -p $(dirname {NM_CONF}); echo '[main]' >{NM_CONF}")
    said = host.module("topology", name="overlay", document=bridge(), fails=True)["msg"]
    assert f"{NM_CONF} is there and not ours: rename that file, or remove it" in said
    assert host.links() == {"lo"}
    assert (host.sh(f"cat {NM_CONF}"), manager()) == ("[main]\n", [])


def test_what_networkmanager_refuses_is_told_in_its_own_words_and_undone(
    host: Host, manager: Callable[[], list[str]]
) -> None:
    before = etc(host)
    host.sh("printf '#!/bin/sh\\necho Error: no >&2; exit 1\\n' >/usr/local/sbin/nmcli")
    said = host.module("topology", name="overlay", document=bridge(), fails=True)["msg"]
    assert "nmcli general reload conf: Error: no" in said
    assert (etc(host), host.links()) == (before, {"lo"})
