"""netns against the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.hosts import Host

Twice = Callable[..., dict[str, Any]]


def names(host: Host) -> set[str]:
    return {item["name"] for item in host.json("ip -j netns")}


def test_a_namespace_is_made_with_its_loopback_up(host: Host, twice: Twice) -> None:
    done = twice("netns", name="ns1")
    assert done["operations"] == ["add namespace ns1"]
    (loopback,) = host.json("ip -j -n ns1 link show lo")
    assert "UP" in loopback["flags"]
    assert "ifalias" not in loopback
    host.run("ip netns exec ns1 ping -c 1 -W 1 127.0.0.1")


def test_one_that_is_there_stays_as_it_is(host: Host, twice: Twice) -> None:
    host.sh("ip netns add ns1; ip -n ns1 link add br0 type bridge")
    assert not twice("netns", name="ns1")["changed"]
    assert host.json("ip -j -n ns1 link show br0")


def test_absent_unmounts_it_and_leaves_nothing(host: Host, twice: Twice) -> None:
    host.sh("ip netns add ns1; ip netns add ns2")
    assert twice("netns", name="ns1", state="absent")["diff"] == {"before": "namespace ns1\n", "after": ""}
    assert names(host) == {"ns2"}
    assert host.run("ls /run/netns").stdout.split() == ["ns2"]


def test_files_are_seen_inside(host: Host, twice: Twice) -> None:
    files = {"resolv.conf": "nameserver 192.0.2.53\n", "hosts": "127.0.0.1 localhost\n"}
    twice("netns", name="ns1", files=files)
    for name, text in files.items():
        assert host.run(f"ip netns exec ns1 cat /etc/{name}").stdout == text
    twice("netns", name="ns1", files={"hosts": "10.1.1.2 other\n"})
    assert host.run("ip netns exec ns1 cat /etc/hosts").stdout == "10.1.1.2 other\n"
    assert host.run("ip netns exec ns1 cat /etc/resolv.conf").stdout == files["resolv.conf"]


def test_files_outlive_a_boot_and_are_not_told_as_new(host: Host, twice: Twice) -> None:
    host.module("netns", name="ns1", files={"hosts": "text\n"})
    host.run("ip netns del ns1")
    assert twice("netns", name="ns1", files={"hosts": "text\n"})["operations"] == ["add namespace ns1"]


def test_absent_removes_the_files_that_are_named_and_no_others(host: Host, twice: Twice) -> None:
    host.module("netns", name="ns1", files={"hosts": "a\n", "resolv.conf": "b\n"})
    twice("netns", name="ns1", files={"hosts": ""}, state="absent")
    assert host.run("ls /etc/netns/ns1").stdout == "resolv.conf\n"
    twice("netns", name="ns1", files={"resolv.conf": ""}, state="absent")
    assert host.run("ls /etc/netns").stdout == ""


def test_the_namespace_of_a_process_gets_a_name(host: Host, twice: Twice) -> None:
    process = host.popen("unshare", "-n", "sh", "-c", "echo ready; exec sleep 60")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert twice("netns", name="box", pid=process.pid)["operations"] == ["add namespace box"]
        inode = os.stat(f"/proc/{process.pid}/ns/net").st_ino
        assert host.run("stat -L -c %i /run/netns/box").stdout == f"{inode}\n"
        assert host.run(f"ip netns identify {process.pid}").stdout == "box\n"
        assert "UP" not in host.json("ip -j -n box link show lo")[0]["flags"]  # it is someone else's
        twice("netns", name="box", state="absent")
        assert names(host) == set()
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_name_that_another_namespace_has_is_not_taken(host: Host) -> None:
    host.run("ip netns add box")
    before = host.run("stat -L -c %i /run/netns/box").stdout
    for check in (True, False):
        answer = host.module("netns", name="box", pid=host.pid, check=check, fails=True)
        assert (
            f"namespace box is there already and not ours (it is not the namespace of process {host.pid})"
            in answer["msg"]
        )
    assert host.run("stat -L -c %i /run/netns/box").stdout == before


def test_a_process_that_is_gone_is_told(host: Host) -> None:
    process = host.popen("true")
    process.communicate()
    answer = host.module("netns", name="box", pid=process.pid, fails=True)
    assert answer["msg"] == f"namespace box: there is no process {process.pid}"
    assert names(host) == set()


def test_what_a_document_owns_stays(host: Host) -> None:
    host.module("topology", document={"namespaces": [{"name": "web"}]})
    answer = host.module("netns", name="web", state="absent", fails=True)
    assert "it belongs to the document 'overlay'" in answer["msg"]
    assert names(host) == {"web"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "a/b"}, "'a/b' is no namespace name"),
        ({"name": ".."}, "'..' is no namespace name"),
        ({"name": ""}, "the name is empty"),
        ({"name": "n" * 256}, "at most 255 bytes"),
        ({"name": "a", "files": {"../passwd": "x"}}, "'../passwd' is no namespace name"),
        ({"name": "a", "files": {"hosts": 1}}, "files: hosts: 1 is no text"),
        ({"name": "a", "pid": 0}, "pid: 0 is not between"),
    ],
)
def test_bad_input_is_told_and_nothing_is_made(host: Host, arguments: dict[str, Any], told: str) -> None:
    assert told in host.module("netns", fails=True, **arguments)["msg"]
    assert host.module("netns", fails=True, check=True, **arguments)["msg"]
    assert names(host) == set()
