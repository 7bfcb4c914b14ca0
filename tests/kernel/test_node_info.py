"""node_info against the kernel, and against hosts that lack something."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.kernel.hosts import Host


def test_a_node_is_read_as_it_is(underlay: Host) -> None:
    underlay.sh(
        "ip route add default via 198.51.100.12; ip link add cni0 type bridge; ip link set cni0 alias podnet.overlay:overlay;"
        "ip addr add 10.244.0.1/24 dev cni0; ip route add 10.244.9.0/24 via 198.51.100.12;"
        "ip route add 10.244.1.0/24 via 198.51.100.12 proto 244; ip netns add web; ip -n web link set lo alias podnet.overlay:overlay"
    )
    before = underlay.sh("ip -4 -d addr; ip -4 route show table all; ip netns; ls -R /run /etc /var/lib | sort")
    node = underlay.module("node_info", network="10.244.0.0/16")
    assert before == underlay.sh("ip -4 -d addr; ip -4 route show table all; ip netns; ls -R /run /etc /var/lib | sort")
    assert not node["changed"]
    assert node["privileged"]
    assert node["default_route"] == {"interface": "eth1", "source": "198.51.100.11"}
    assert {"interface": "eth1", "address": "198.51.100.11/24", "mtu": 1500} in node["addresses"]
    assert node["namespaces"] == [{"name": "web", "owner": "overlay"}, {"name": "wire", "owner": ""}]
    assert [route["dst"] for route in node["routes"]] == ["10.244.9.0/24"]
    assert node["carries"]["subnet"] == "10.244.0.0/24"


def test_backends_are_what_the_kernel_really_makes(host: Host) -> None:
    node = host.module("node_info")
    for kind, details in (("ipip", "local 127.0.0.1"), ("vxlan", "id 1 dstport 8472")):
        made = host.run("unshare", "-n", "sh", "-c", f"ip link add probe0 type {kind} {details}", check=False)
        assert node["backends"][kind] == (made.returncode == 0)
    assert node["backends"]["host-gw"] is True


def test_only_the_named_namespaces_are_reported(underlay: Host) -> None:
    assert underlay.module("node_info", namespaces=["web"])["namespaces"] == []


def test_what_runs_in_the_overlays_pods_is_told_where_asked(host: Host) -> None:
    host.sh(
        "for name in web db other; do ip netns add $name; done;"
        "for name in web db; do ip -n $name link set lo alias podnet.overlay:overlay; done;"
        "ip link add cni0 type bridge; ip link add veth-web type veth peer name p1; ip link add veth7 type veth peer name p2;"
        "ip link set veth-web alias podnet.overlay:overlay; ip link set veth-web master cni0; ip link set veth7 master cni0"
    )
    processes = [host.popen("ip", "netns", "exec", name, "sleep", "60") for name in ("web", "web", "other")]
    try:
        while [host.run("ip", "netns", "pids", name).stdout.count("\n") for name in ("web", "other")] != [2, 1]:
            pass
        assert "pods" not in host.module("node_info")
        assert host.module("node_info", pods=True)["pods"] == [
            {"name": "web", "processes": 2},
            {"name": "veth7", "processes": None},
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_leftover_in_run_netns_is_no_stumbling_block(host: Host) -> None:
    host.sh("touch /run/netns/ghost")
    assert host.module("node_info")["namespaces"] == [{"name": "ghost", "owner": ""}]


def test_the_saved_state_says_what_is_carried(host: Host) -> None:
    peers = {"backend": "ipip", "subnet": "10.244.3.0/24", "public_ip": "198.51.100.14", "network": "10.244.0.0/16"}
    save(host, json.dumps({"version": 1, "name": "overlay", "document": {"peers": peers}}))
    sends = {"backend": "ipip", "tunnel": None, "direct_routing": False, "vni": None, "port": None}
    assert host.module("node_info")["carries"] == {**peers, "pods": {}, "sends": sends, "also": None, "loosened": []}


def test_a_torn_state_file_is_told_and_survived(host: Host) -> None:
    save(host, '{"version": 1, "docu')
    node = host.module("node_info")
    assert node["carries"] is None
    assert [("overlay.json is torn" in obstacle["what"], obstacle["fatal"]) for obstacle in node["obstacles"]] == [
        (True, True)
    ]


def test_a_forward_policy_of_drop_is_told(host: Host) -> None:
    host.sh(
        "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'"
    )
    obstacles = host.module("node_info")["obstacles"]
    assert [obstacle["what"] for obstacle in obstacles] == ["nft chain ip filter FORWARD has policy drop"]


def test_a_host_without_ip_gets_a_clear_error(host: Host) -> None:
    for program in ("/usr/sbin/ip", "/usr/bin/ip", "/sbin/ip", "/bin/ip"):
        host.run("sh", "-c", f"test ! -e {program} || mount --bind /dev/null {program}")
    answer = host.module("node_info", fails=True)
    assert answer["msg"] == f"host {os.uname().nodename} has no program ip: install the package iproute2"


def test_an_ip_without_json_gets_a_clear_error(host: Host, tmp_path: Path) -> None:
    fake = tmp_path / "ip"
    fake.write_text("#!/bin/sh\necho 'ip: unrecognized option: batch' >&2\nexit 1\n")
    fake.chmod(0o755)
    real = host.run("sh", "-c", "command -v ip").stdout.strip()
    host.run("mount", "--bind", str(fake), real)
    answer = host.module("node_info", fails=True)
    assert "gave no JSON (" in answer["msg"]
    assert "iproute2" in answer["msg"]


@pytest.mark.parametrize("network", ["10.244.0.0/33", "10.244.0.1/16", "fd00::/8"])
def test_a_network_that_is_none_is_refused(host: Host, network: str) -> None:
    assert host.module("node_info", network=network, fails=True)["msg"].startswith("network: ")


def test_a_ready_host_lacks_nothing(host: Host) -> None:
    host.sh("mkdir -p /etc/iproute2/rt_protos.d; echo 244 podnet > /etc/iproute2/rt_protos.d/podnet-overlay.conf")
    if not Path("/lib/modules", os.uname().release).is_dir():
        assert host.module("node_info")["missing"] == []


@pytest.fixture
def modular(host: Host) -> Host:
    """A host whose kernel has ipip as a module, which is not loaded."""
    if Path("/sys/module/ipip").is_dir():
        pytest.skip("this kernel has ipip")
    tree = f"/lib/modules/{os.uname().release}"
    host.sh(
        "mkdir -p /run/lib/upper /run/lib/work /etc/modprobe.d;"
        "mount -t overlay -o lowerdir=/usr/lib,upperdir=/run/lib/upper,workdir=/run/lib/work none /usr/lib;"
        f"mkdir -p {tree}; depmod; echo 'kernel/net/ipv4/ipip.ko:' > {tree}/modules.dep"
    )
    return host


def refusals(host: Host, backend: str = "ipip") -> list[str]:
    found = host.module("node_info", backend=backend)["obstacles"]
    return [obstacle["what"] for obstacle in found if obstacle["fatal"]]


def test_a_kernel_module_that_modprobe_d_keeps_out_is_told(modular: Host) -> None:
    assert refusals(modular) == []
    modular.sh("echo 'blacklist ipip' > /etc/modprobe.d/site.conf")  # which keeps only an alias from loading it
    assert refusals(modular) == []
    for command in ("/bin/false", "/bin/true"):
        modular.sh(f"echo 'install ipip {command}' > /etc/modprobe.d/site.conf")
        assert refusals(modular) == [f"the kernel module ipip cannot be loaded: modprobe.d has: install {command}"]
    assert refusals(modular, "vxlan") == []


def test_a_kernel_that_takes_no_more_modules_is_told(modular: Host) -> None:
    modular.sh("mount -t tmpfs none /proc/sys/kernel; echo 0 > /proc/sys/kernel/modules_disabled")
    assert refusals(modular) == []
    modular.sh("echo 1 > /proc/sys/kernel/modules_disabled")
    assert refusals(modular) == ["the kernel module ipip cannot be loaded: kernel.modules_disabled is 1"]


def save(host: Host, text: str) -> None:
    folder = "/var/lib/podnet-overlay"
    host.run("sh", "-c", f"mkdir -p {folder} && printf %s '{text}' > {folder}/overlay.json")
