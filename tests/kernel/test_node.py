"""node: what a host needs besides packages. Kernel modules themselves are tested on virtual machines."""

from __future__ import annotations

from tests.kernel.hosts import Host

BOOT = "/etc/modules-load.d/podnet-overlay.conf"
PROTOCOL = "/etc/iproute2/rt_protos.d/podnet-overlay.conf"
MISSING = [
    "pyroute2",
    "module:bridge",
    "boot:bridge",
    "boot:veth",
    "kernel:vxlan",
    "file:rt_protos",
]  # bridge, vxlan are here


def test_files_are_written_as_predicted_and_once(host: Host) -> None:
    host.sh("rm -rf /etc/iproute2")
    predicted = host.module("node", missing=MISSING, check=True)
    assert host.run("ls", BOOT, check=False).returncode != 0
    done = host.module("node", missing=MISSING)
    assert (done["changed"], done["diff"], done["loaded"]) == (
        predicted["changed"],
        predicted["diff"],
        predicted["loaded"],
    )
    assert done["changed"]
    assert host.run("cat", PROTOCOL).stdout == "244\tpodnet\n"
    assert host.run("cat", BOOT).stdout.splitlines()[1:] == ["# loaded: bridge vxlan", "bridge", "veth", "vxlan"]
    assert not host.module("node", missing=MISSING)["changed"]
    assert "proto podnet" in host.sh("ip route add 10.0.0.0/8 dev lo proto 244; ip route")


def test_nothing_missing_changes_nothing(host: Host) -> None:
    assert not host.module("node", missing=["nftables"])["changed"]


def test_absent_removes_the_files_and_what_node_info_said_is_missing_again(host: Host) -> None:
    host.module("node", missing=MISSING)
    assert "file:rt_protos" not in host.module("node_info")["missing"]
    assert host.module("node", state="absent")["changed"]
    assert not host.module("node", state="absent")["changed"]
    assert "file:rt_protos" in host.module("node_info")["missing"]
