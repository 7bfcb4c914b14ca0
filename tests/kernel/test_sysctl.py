"""sysctl against the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.hosts import Host

Twice = Callable[..., dict[str, Any]]

FILE = "/etc/sysctl.d/60-podnet-overlay.conf"


def live(host: Host, name: str, namespace: str = "") -> str:
    entering = ["ip", "netns", "exec", namespace] if namespace else []
    return host.run(*entering, "sysctl", "-n", name).stdout.strip()


def kept(host: Host, path: str = FILE) -> str:
    return host.run("cat", path, check=False).stdout


def test_a_sysctl_is_set_now_and_for_the_next_boot(host: Host, twice: Twice) -> None:
    host.run("sysctl -w net.ipv4.ip_forward=0")  # a namespace starts with the host's
    done = twice("sysctl", name="net.ipv4.ip_forward", value="1")
    assert done["operations"] == [
        "change sysctl net.ipv4.ip_forward = 1",
        f"add line net.ipv4.ip_forward = 1 in {FILE}",
    ]
    assert (live(host, "net.ipv4.ip_forward"), kept(host)) == ("1", "net.ipv4.ip_forward = 1\n")
    host.run("sysctl -w net.ipv4.ip_forward=0")
    assert len(twice("sysctl", name="net.ipv4.ip_forward", value=1)["operations"]) == 1
    host.run("sysctl", "-p", FILE)
    assert live(host, "net.ipv4.ip_forward") == "1"


def test_absent_takes_the_line_and_leaves_the_value(host: Host, twice: Twice) -> None:
    host.module("sysctl", name="net.ipv4.ip_forward", value="1")
    done = twice("sysctl", name="net.ipv4.ip_forward", state="absent")
    assert done["operations"] == [f"delete line net.ipv4.ip_forward = 1 in {FILE}"]
    assert live(host, "net.ipv4.ip_forward") == "1"
    assert host.run("test", "-e", FILE, check=False).returncode == 1


def test_other_lines_of_a_file_stay(host: Host, twice: Twice) -> None:
    first, last = "# by hand\n; really\n", "-net.ipv4.tcp_syncookies = 1\n\nnet.ipv4.conf.*.rp_filter = 2"
    before = f"{first}net/ipv4/ip_forward=0\nnet.ipv4.ip_forward = 0\n{last}"
    host.sh(f"printf '%s' '{before}' > /etc/sysctl.d/99-mine.conf; ln -s 99-mine.conf /etc/sysctl.d/link.conf")
    twice("sysctl", name="net.ipv4.ip_forward", value="1", sysctl_file="/etc/sysctl.d/link.conf")
    rest = f"{first}{last}\n"
    assert kept(host, "/etc/sysctl.d/99-mine.conf") == rest + "net.ipv4.ip_forward = 1\n"
    twice("sysctl", name="net.ipv4.ip_forward", state="absent", sysctl_file="/etc/sysctl.d/link.conf")
    assert kept(host, "/etc/sysctl.d/99-mine.conf") == rest
    assert host.run("readlink /etc/sysctl.d/link.conf").stdout == "99-mine.conf\n"


def test_a_namespace_has_its_own_and_nothing_is_kept_for_it(host: Host, twice: Twice) -> None:
    host.run("ip netns add ns1")
    before = live(host, "net.ipv4.ip_forward")
    twice("sysctl", name="net.ipv4.ip_forward", value=1 - int(before), namespace="ns1")
    assert live(host, "net.ipv4.ip_forward", "ns1") != before
    assert live(host, "net.ipv4.ip_forward") == before
    assert kept(host) == ""
    assert not twice("sysctl", name="net.ipv4.ip_forward", namespace="ns1", state="absent")["changed"]


def test_spaces_between_words_do_not_count(host: Host, twice: Twice) -> None:
    words = live(host, "net.ipv4.ip_local_port_range").split()
    assert not twice("sysctl", name="net.ipv4.ip_local_port_range", value="  ".join(words), persist=False)["changed"]
    twice("sysctl", name="net.ipv4.ip_local_port_range", value="20000\t30000", persist=True)
    assert live(host, "net.ipv4.ip_local_port_range").split() == ["20000", "30000"]
    assert kept(host) == "net.ipv4.ip_local_port_range = 20000 30000\n"


@pytest.mark.parametrize("name", ["net.ipv4.conf.eth1/100.rp_filter", "net/ipv4/conf/eth1.100/rp_filter"])
def test_an_interface_with_a_dot(host: Host, twice: Twice, name: str) -> None:
    host.run("ip link add eth1.100 type bridge")
    twice("sysctl", name=name, value="2", persist=False)
    assert live(host, "net/ipv4/conf/eth1.100/rp_filter") == "2"


def test_forwarding_that_a_document_wants_is_not_turned_off(host: Host) -> None:
    host.module("topology", document={"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]})
    assert (
        "belongs to the document 'overlay'"
        in host.module("sysctl", name="net.ipv4.ip_forward", value="0", fails=True)["msg"]
    )
    assert live(host, "net.ipv4.ip_forward") == "1"
    host.module("sysctl", name="net.ipv4.ip_forward", value="1")  # as the document has it


def test_a_value_that_the_kernel_refuses_leaves_the_file_alone(host: Host) -> None:
    answer = host.module("sysctl", name="net.ipv4.ip_forward", value="maybe", fails=True)
    assert (
        "cannot change sysctl net.ipv4.ip_forward = maybe: Invalid argument. The kernel does not take this value"
        in answer["msg"]
    )
    assert kept(host) == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "net.ipv4.ip_forwarding", "value": "1"}, "sysctl net.ipv4.ip_forwarding is not there"),
        ({"name": "net.ipv4.conf.eth7.rp_filter", "value": "1"}, "sysctl net.ipv4.conf.eth7.rp_filter is not there"),
        ({"name": "../../etc/passwd", "value": "1"}, "is no sysctl name"),
        ({"name": "forwarding", "value": "1"}, "is no sysctl name"),
        ({"name": "net.ipv4.ip_forward", "value": "1", "namespace": "gone"}, "namespace gone is not there"),
        ({"name": "kernel.pid_max", "value": "1", "namespace": "ns1"}, "no sysctls of its own but those of net"),
        (
            {"name": "net.ipv4.ip_forward", "value": "1", "namespace": "ns1", "persist": True},
            "kept for the host's own namespace only",
        ),
        ({"name": "net.ipv4.ip_forward"}, "state is present but all of the following are missing: value"),
    ],
)
def test_bad_input_is_told_and_nothing_is_changed(host: Host, arguments: dict[str, Any], told: str) -> None:
    host.run("ip netns add ns1")
    assert told in host.module("sysctl", fails=True, **arguments)["msg"]
    assert kept(host) == ""


def test_a_links_sysctl_is_there_again_when_the_link_was_made_anew(host: Host) -> None:
    def document(vni: int, *sysctls: dict[str, str]) -> dict[str, Any]:
        tunnel = {"name": "flannel.1", "kind": "vxlan", "vxlan": {"id": vni, "local": "192.0.2.1"}}
        return {"links": [tunnel], "sysctls": list(sysctls)}

    setting = {"name": "net.ipv4.conf.flannel/1.rp_filter", "value": "2"}
    host.sh("echo 1 >/proc/sys/net/ipv4/conf/default/rp_filter")
    value = "sysctl -n net.ipv4.conf.flannel/1.rp_filter"
    for vni in (1, 2):
        assert host.module("topology", document=document(vni, setting))["changed"]
        assert host.sh(value) == "2\n"
        assert not host.module("topology", document=document(vni, setting))["changed"]
    host.module("topology", document=document(2))
    assert host.sh(value) == "1\n"  # what a new link has
    host.module("topology", document=document(2, setting))
    host.module("topology", state="absent")
    assert host.links() == {"lo"}
