"""node: what a host needs besides packages. Real kernel modules are tested on virtual machines; here modprobe only says that it did it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _module, _netns

from tests.kernel import kills
from tests.kernel.hosts import CHECKOUT, Host
from tests.kernel.looks import files

BOOT = "/etc/modules-load.d/podnet-overlay.conf"
PROTOCOL = "/etc/iproute2/rt_protos.d/podnet-overlay.conf"
DIGEST = "/usr/local/lib/podnet-overlay/DIGEST"
MISSING = [
    "pyroute2",
    "module:bridge",
    "boot:bridge",
    "boot:veth",
    "kernel:vxlan",
    "file:rt_protos",
]  # bridge, vxlan are here
MODPROBE = f"""\
#!/bin/sh
way=$1; shift
cat {BOOT} >/run/noted 2>/dev/null
for name; do
    case $way in
    --all) mkdir -p /sys/module/$name; echo 0 >/sys/module/$name/refcnt;;
    --remove) rm -r /sys/module/$name;;
    esac
done
"""
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >>/run/asked
wants=/etc/systemd/system/multi-user.target.wants
mkdir -p $wants
case $1 in
enable) ln -sf ../$3 $wants/$3;;
disable) for unit; do rm -f $wants/$unit; done;;
restart) flock --nonblock /run/podnet-overlay.lock true || echo "$2 would wait for the lock" >>/run/asked;;
esac
"""


def program(host: Host, name: str, script: str) -> None:
    host.run("sh", "-euc", f"cat >/usr/local/sbin/{name} <<'EOF'\n{script}EOF\nchmod 755 /usr/local/sbin/{name}")


@pytest.fixture
def modular(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose kernel has nothing built in, and which sees its own processes only, although it shares /proc with others."""
    host.sh("mount -t tmpfs none /sys/module")
    program(host, "modprobe", MODPROBE)
    own, everywhere = os.stat(f"/proc/{host.pid}/ns/mnt").st_ino, _netns.everywhere

    def is_own(path: str) -> bool:
        mounts = path.replace("/net", "/mnt")
        return not path.startswith("/proc/") or (os.path.exists(mounts) and os.stat(mounts).st_ino == own)

    monkeypatch.setattr(_netns, "everywhere", lambda: [path for path in everywhere() if is_own(path)])
    return host


@pytest.fixture
def booted(host: Host) -> Host:
    """A host with systemd, as far as one can tell from outside."""
    host.sh("mkdir -p /run/systemd/system /etc/systemd/system")
    program(host, "systemctl", SYSTEMCTL)
    return host


def loaded(host: Host) -> set[str]:
    return set(host.run("ls /sys/module").stdout.split())


def asked(host: Host) -> list[str]:
    """What systemctl was asked for since the last time."""
    return host.sh("cat /run/asked; rm /run/asked").splitlines()


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


# ------------------------------------------------------------------------------------------------ kernel modules


def test_what_is_loaded_is_written_down_before(modular: Host) -> None:
    assert modular.module("node", missing=["module:ipip", "boot:ipip"])["loaded"] == ["ipip"]
    assert "# loaded: ipip" in modular.run("cat /run/noted").stdout.splitlines()


def test_what_cannot_be_written_down_is_not_loaded(modular: Host) -> None:
    modular.sh("mkdir -p /etc/modules-load.d; mount -t tmpfs -o ro none /etc/modules-load.d")
    answer = modular.module("node", missing=["module:ipip", "boot:ipip"], fails=True)
    assert answer["msg"].startswith(f"cannot write {BOOT} (Read-only file system)")
    assert loaded(modular) == set()


def test_what_was_loaded_and_nobody_uses_is_unloaded(modular: Host) -> None:
    modular.module("node", missing=["module:vxlan", "module:ipip", "module:bridge", "boot:vxlan", "boot:ipip"])
    assert loaded(modular) == {"vxlan", "ipip", "bridge"}
    predicted = modular.module("node", state="absent", check=True)
    done = modular.module("node", state="absent")
    assert predicted["unloaded"] == done["unloaded"] == ["ipip", "vxlan"]
    assert loaded(modular) == {"bridge"}
    assert modular.module("node", state="absent")["unloaded"] == []


def test_what_others_loaded_stays(modular: Host) -> None:
    modular.sh("modprobe --all vxlan")
    modular.module("node", missing=["boot:vxlan"])
    assert modular.module("node", state="absent")["unloaded"] == []
    assert loaded(modular) == {"vxlan"}


def test_a_module_stays_that_the_kernel_needs(modular: Host) -> None:
    modular.module("node", missing=["module:vxlan", "boot:vxlan"])
    modular.sh("echo 1 >/sys/module/vxlan/refcnt")  # as another module that is built on it does
    assert modular.module("node", state="absent")["unloaded"] == []


@pytest.mark.parametrize("where", ["here", "in a namespace", "in a process's", "in one mounted elsewhere"])
def test_a_module_stays_while_a_link_of_it_is_anywhere(modular: Host, where: str) -> None:
    modular.module("node", missing=["module:vxlan", "boot:vxlan"])
    device = "link add theirs type vxlan id 7 dstport 4789"
    if where == "here":
        modular.sh(f"ip {device}")
    else:
        modular.sh(f"ip netns add their; ip -n their {device}")
    holder = modular.popen("nsenter", "--net=/run/netns/their", "sleep", "60") if where == "in a process's" else None
    if holder:
        modular.sh(
            "while ! ip netns pids their | grep -q .; do sleep 0.01; done; umount /run/netns/their; rm /run/netns/their"
        )
    if where == "in one mounted elsewhere":  # as Docker does, of overlay networks without a process in them
        modular.sh("mkdir -p /run/docker/netns; touch /run/docker/netns/their")
        modular.sh("mount --bind /run/netns/their /run/docker/netns/their; ip netns del their")
    try:
        assert modular.module("node", state="absent")["unloaded"] == []
        assert loaded(modular) == {"vxlan"}
    finally:
        if holder:
            holder.kill()
            holder.communicate()


def test_check_mode_takes_the_document_for_gone_and_nothing_else(modular: Host) -> None:
    modular.module("node", missing=["module:vxlan", "boot:vxlan"])
    modular.sh("ip link add flannel.1 type vxlan id 1 dstport 8472; ip link set flannel.1 alias podnet.overlay:overlay")
    assert modular.module("node", state="absent", check=True)["unloaded"] == ["vxlan"]
    modular.sh("ip link set flannel.1 alias podnet.overlay:other")
    assert modular.module("node", state="absent", check=True)["unloaded"] == []
    modular.sh("ip link del flannel.1")
    assert modular.module("node", state="absent")["unloaded"] == ["vxlan"]


def test_a_process_that_ends_meanwhile_is_passed_over(modular: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    modular.module("node", missing=["module:vxlan", "boot:vxlan"])
    everywhere = _netns.everywhere
    ended = ["/proc/4194305/ns/net"]  # no process has that number: PID_MAX_LIMIT
    monkeypatch.setattr(_netns, "everywhere", lambda: [ended.pop()] if ended else everywhere())
    assert modular.module("node", state="absent")["unloaded"] == ["vxlan"]


# ------------------------------------------------------------------------------------------------ what is installed


def test_two_installations_at_once_both_succeed(host: Host) -> None:
    before = files(host)
    for state in ({"missing": ["file:engine", "file:rt_protos"]}, {"state": "absent"}) * 4:
        processes = [kills.started(host, kills.module("node", **state)) for _number in range(2)]
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        assert host.run("test", "-e", DIGEST, check=False).returncode == (1 if "state" in state else 0)
    assert files(host) == before


def test_an_upgrade_or_a_removal_that_cannot_write_says_so(host: Host) -> None:
    host.module("node", missing=["file:engine"])
    host.sh(f"echo old >{DIGEST}; mount --bind /usr/local /usr/local; mount -o remount,ro,bind /usr/local")
    for arguments in ({"missing": ["file:engine"]}, {"state": "absent"}):
        answer = host.module("node", fails=True, **arguments)
        assert "cannot write /usr/local/" in answer["msg"]
        assert "(Read-only file system): make room or make it writable, and run again" in answer["msg"]
    host.sh("umount /usr/local")
    host.module("node", missing=["file:engine"])
    assert host.run("podnet-overlay diff").stdout == ""


def test_a_command_that_was_changed_alone_is_mended_in_one_run(host: Host) -> None:
    host.module("node", missing=["file:engine"])
    host.sh("echo >>/usr/local/sbin/podnet-overlay")
    assert host.module("node", missing=["file:engine"])["changed"]
    assert host.run("cat", DIGEST).stdout.strip()
    assert not host.module("node", missing=["file:engine"])["changed"]


# ------------------------------------------------------------------------------------------------ units


def test_the_units_are_enabled_and_the_watcher_is_started_when_nobody_waits_for_this_run(booted: Host) -> None:
    booted.module("node", missing=["file:engine"])
    assert asked(booted) == [
        "daemon-reload",
        "enable --quiet podnet-overlay.service",
        "enable --quiet podnet-overlay-watch.service",
        "restart podnet-overlay-watch.service",
    ]
    assert not booted.module("node", missing=["file:engine"])["changed"]


@pytest.mark.parametrize("watch", [True, False])
def test_teardown_stops_both_units_enabled_or_not(booted: Host, watch: bool) -> None:
    booted.module("node", missing=["file:engine"], watch=watch)
    asked(booted)
    booted.module("node", state="absent")
    assert asked(booted) == [
        "disable --now --quiet podnet-overlay-watch.service",
        "disable --now --quiet podnet-overlay.service",
        "daemon-reload",
    ]
    assert not booted.module("node", state="absent")["changed"]
    assert booted.run("ls", "/run/asked", check=False).returncode != 0


def test_the_commands_of_the_documentation_leave_nothing(booted: Host) -> None:
    before = files(booted)
    booted.sh("mkdir -p /etc/iproute2/rt_protos.d /etc/modules-load.d /etc/systemd/system/multi-user.target.wants")
    booted.module("node", missing=["boot:bridge", "file:rt_protos", "file:engine"])
    booted.module("topology", name="lab", document={"links": [{"name": "br-lab", "kind": "bridge"}]})
    text = (CHECKOUT / "docs/operations/teardown.md").read_text()
    booted.sh(text.partition("To remove that too:\n\n```\n")[2].partition("```")[0])
    assert "br-lab" not in booted.links()
    assert {path for path in files(booted) - before if not path.endswith((".d", ".wants"))} == {"/run/asked"}


def test_the_units_stay_while_other_documents_need_them(booted: Host) -> None:
    booted.module("node", missing=["file:engine"])
    booted.module("topology", name="lab", document={"links": [{"name": "br-lab", "kind": "bridge"}]})
    asked(booted)
    assert booted.module("node", state="absent")["kept"] == ["lab"]
    assert booted.run("ls", "/run/asked", check=False).returncode != 0


def test_the_boot_unit_runs_too_where_only_an_unconfirmed_change_was_left(booted: Host) -> None:
    booted.module("node", missing=["file:engine"])
    unit = booted.run("cat /etc/systemd/system/podnet-overlay.service").stdout
    for folder in ("/etc/podnet-overlay", "/var/lib/podnet-overlay/rollback"):
        assert f"ConditionDirectoryNotEmpty=|{folder}\n" in unit


def test_the_command_s_python_is_the_distribution_s_by_a_name_that_outlives_an_upgrade(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for lasting, used in (([str(python)], str(python)), (["/nonexistent"], sys.executable)):
        monkeypatch.setattr(_module, "LASTING", lasting)
        host.module("node", missing=["file:engine"])
        assert host.sh("head -n 1 /usr/local/sbin/podnet-overlay") == f"#!{used}\n"
        host.sh("rm /usr/local/sbin/podnet-overlay")


def test_folders_that_were_made_for_the_protocol_s_name_go_with_it(host: Host) -> None:
    host.sh("rm -rf /etc/iproute2")
    host.module("node", missing=["file:rt_protos"])
    assert host.sh("ls /etc/iproute2/rt_protos.d") == "podnet-overlay.conf\n"
    host.module("node", state="absent")
    assert host.run("ls", "/etc/iproute2", check=False).returncode != 0
