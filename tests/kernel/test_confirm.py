"""A change that waits to be confirmed: the host undoes it by itself, whoever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import kills
from tests.kernel.documents import PEERS, RENUMBERED, node, sourced
from tests.kernel.hosts import Host
from tests.kernel.looks import everything, files, picture, routes

PENDING = "/var/lib/podnet-overlay/rollback/overlay.json"
CHANGED = node(routes=[*node()["routes"], {"dst": "10.9.0.0/24", "via": "198.51.100.12"}])


@pytest.fixture
def armed(underlay: Host) -> Iterator[Host]:
    """A host with the command and a document that was confirmed; who waits at the end of a test is ended."""
    underlay.module("node", missing=["file:engine"])
    underlay.module("topology", document=node(), peers=PEERS)
    yield underlay
    end_waiters(underlay)


def waiters(host: Host) -> list[int]:
    """The processes on *host* that wait to undo a change."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"rollback" in words and os.readlink(folder / "ns/net") == os.readlink(f"/proc/{host.pid}/ns/net"):
                found.append(int(folder.name))
    return found


def end_waiters(host: Host) -> None:
    for pid in waiters(host):
        os.kill(pid, signal.SIGKILL)


def change(host: Host, timeout: int, document: dict[str, Any] = CHANGED, **more: Any) -> dict[str, Any]:
    return host.module("topology", document=document, peers=PEERS, confirm_timeout=timeout, **more)


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pending(host: Host) -> bool:
    return bool(host.run("cat", PENDING, check=False).stdout)


def test_a_confirmed_change_stays_and_nothing_of_the_waiting_is_left(armed: Host) -> None:
    kept = files(armed)
    assert change(armed, 2)["unconfirmed"]
    wanted = picture(armed)
    assert armed.module("topology", state="confirmed")["changed"]
    assert not armed.module("topology", state="confirmed")["changed"]
    until(lambda: not waiters(armed), 5)
    time.sleep(1.5)
    assert picture(armed) == wanted
    assert files(armed) == kept


def test_an_unconfirmed_change_is_undone_in_time_and_nothing_of_the_waiting_is_left(armed: Host) -> None:
    before, kept = picture(armed), files(armed)
    begun = time.monotonic()
    change(armed, 2)
    assert picture(armed) != before
    until(lambda: not pending(armed), 15)
    assert time.monotonic() - begun >= 2
    until(lambda: not waiters(armed), 5)
    assert picture(armed) == before
    assert files(armed) == kept
    assert armed.run("podnet-overlay diff").stdout == ""
    assert armed.module("topology", document=node(), peers=PEERS)["operations"] == []


def test_what_the_kernel_refuses_does_not_keep_a_change_from_being_undone(armed: Host) -> None:
    armed.module("topology", document=node(routes=sourced()), peers=PEERS)
    change(armed, 2, node(routes=[*sourced(), CHANGED["routes"][-1]]))
    armed.sh(RENUMBERED)
    until(lambda: "10.9.0.0/24" not in routes(armed), 15)
    until(lambda: not pending(armed) and not waiters(armed), 5)


def test_an_unconfirmed_first_document_leaves_the_host_as_it_was(armed: Host) -> None:
    armed.module("topology", state="absent")
    before, kept = everything(armed), files(armed)
    change(armed, 1)
    until(lambda: not pending(armed) and not waiters(armed), 15)
    assert everything(armed) == before
    assert files(armed) == kept


def test_two_changes_go_back_to_what_was_confirmed_last(armed: Host) -> None:
    before = picture(armed)
    change(armed, 60)
    change(armed, 1, node(routes=[*CHANGED["routes"], {"dst": "10.10.0.0/24", "via": "198.51.100.12"}]))
    until(lambda: not pending(armed), 15)
    assert picture(armed) == before
    until(lambda: not waiters(armed), 5)


def test_what_changes_nothing_arms_nothing(armed: Host) -> None:
    assert not change(armed, 30, node())["unconfirmed"]
    assert not pending(armed)
    assert not waiters(armed)


def test_a_teardown_in_between_forgets_it(armed: Host) -> None:
    change(armed, 1)
    armed.module("topology", state="absent")
    until(lambda: not waiters(armed), 5)
    assert "cni0" not in armed.links()
    assert not armed.run("ls", "/var/lib/podnet-overlay", check=False).stdout
    assert armed.run("ls", "/var/lib/podnet-overlay", check=False).returncode != 0


def test_a_change_that_fails_arms_nothing(armed: Host) -> None:
    bad = node(routes=[*node()["routes"], {"dst": "10.5.0.0/24", "via": "203.0.113.9"}])
    change(armed, 30, bad, fails=True)
    assert not pending(armed)
    until(lambda: not waiters(armed), 5)


def test_without_the_command_a_change_that_would_wait_is_refused(underlay: Host) -> None:
    before = everything(underlay)
    answer = change(underlay, 30, fails=True)
    assert "/usr/local/sbin/podnet-overlay is not there" in answer["msg"]
    assert everything(underlay) == before
    assert not pending(underlay)


def test_where_it_cannot_be_armed_nothing_is_changed(armed: Host) -> None:
    before = picture(armed)
    armed.sh("mount --bind /var/lib /var/lib; mount -o remount,ro,bind /var/lib")
    answer = change(armed, 30, fails=True)
    assert f"cannot write {PENDING} (Read-only file system)" in answer["msg"]
    assert picture(armed) == before
    assert not waiters(armed)


def test_a_command_that_does_not_start_arms_nothing(armed: Host) -> None:
    before = picture(armed)
    armed.sh("printf '#!/nonexistent/python\\n' >/usr/local/sbin/podnet-overlay")
    answer = change(armed, 30, fails=True)
    assert "/usr/local/sbin/podnet-overlay" in answer["msg"]
    assert picture(armed) == before
    assert not pending(armed)


def test_a_systemd_that_starts_nobody_to_wait_arms_nothing(armed: Host) -> None:
    before = picture(armed)
    armed.sh(
        "mkdir -p /run/systemd/system && printf '#!/bin/sh\necho no bus >&2; exit 1\n' >/usr/local/bin/systemd-run"
    )
    armed.sh("chmod +x /usr/local/bin/systemd-run")
    try:
        answer = change(armed, 30, fails=True)
    finally:
        armed.sh("rm -r /run/systemd /usr/local/bin/systemd-run")
    assert "does not start, which would undo an unconfirmed change" in answer["msg"]
    assert "no bus" in answer["msg"]
    assert picture(armed) == before
    assert not pending(armed)


def test_a_boot_undoes_it_before_anything_is_applied(armed: Host) -> None:
    before = picture(armed)
    change(armed, 1000)
    end_waiters(armed)
    armed.sh('sed -i \'s/"boot": "[^"]*/&0/\' ' + PENDING)
    armed.run("podnet-overlay apply")
    assert picture(armed) == before
    assert not pending(armed)


def test_whoever_waits_is_killed_and_the_watcher_undoes_it_in_time(armed: Host) -> None:
    before = picture(armed)
    watcher = armed.popen("podnet-overlay", "watch")
    try:
        change(armed, 3)
        end_waiters(armed)
        assert pending(armed)
        until(lambda: not pending(armed), 15)
        until(lambda: picture(armed) == before, 5)
    finally:
        watcher.kill()
        watcher.communicate()


@pytest.mark.parametrize("first", [False, True], ids=["a change", "the first document"])
def test_where_nothing_can_be_written_the_kernel_goes_back_in_time_and_the_files_when_there_is_room(
    armed: Host, first: bool
) -> None:
    folder, before = "/var/lib/podnet-overlay", picture(armed)
    if first:
        armed.module("topology", state="absent")
        before = picture(armed)
    armed.sh(
        f"mkdir -p {folder}; mount -t tmpfs -o size=64k none /mnt; cp -a {folder}/. /mnt; mount --bind /mnt {folder}"
    )
    change(armed, 1)
    armed.sh(
        f"mount -o remount,ro,bind {folder}" if first else f"dd if=/dev/zero of={folder}/fill bs=4096 2>&1 || true"
    )
    until(lambda: picture(armed) == before, 15)
    assert pending(armed)
    applied = armed.run("podnet-overlay", "apply", check=False)
    assert (applied.returncode, picture(armed)) == (2, before)
    assert f"cannot {'remove' if first else 'write'} {folder}/" in applied.stderr
    armed.sh(f"mount -o remount,rw,bind {folder}; rm -f {folder}/fill")
    until(lambda: not pending(armed) and not waiters(armed), 15)
    assert picture(armed) == before
    assert armed.run("podnet-overlay", "diff").stdout == ""
    assert armed.run("ls", "-A", folder).stdout.split() == ([] if first else ["overlay.json"])


@pytest.mark.parametrize("last", [{"state": "absent"}, {"document": {"links": []}}], ids=["teardown", "run"])
def test_what_came_to_its_end_is_not_undone_wherever_it_was_killed_then(armed: Host, last: dict[str, Any]) -> None:
    """Looked at is what undoes it: a file with the document from before, where the document is the new one or gone."""
    before = {"links": [{"name": "cni0", "kind": "bridge"}]}
    run = kills.module("topology", **last)
    kept = ("cat", "/etc/podnet-overlay/overlay.json")
    change(armed, 1000, before)
    _died, points = kills.attempt(armed, run, 0, anywhere=False)
    new, ended = armed.run(*kept, check=False).stdout, []
    for at in range(points - 56, points, 2):
        change(armed, 1000, before)
        end_waiters(armed)
        kills.attempt(armed, run, at, anywhere=False)
        ended.append(armed.run(*kept, check=False).stdout == new)
        assert not (ended[-1] and pending(armed)), f"killed at {at} of {points}"
    assert set(ended) == {False, True}


@pytest.mark.parametrize("part", range(6))
def test_a_run_killed_at_any_point_is_undone_too(armed: Host, part: int) -> None:
    chance = random.Random(f"{kills.SEED} confirm {part}")
    before, kept = picture(armed), files(armed)
    run = kills.module("topology", document=CHANGED, peers=PEERS, confirm_timeout=2)
    points = 150
    while True:
        at = chance.randint(1, points)
        died, points = kills.attempt(armed, run, at, anywhere=False)
        if died:
            break
        armed.module("topology", document=node(), peers=PEERS)
    step = f"PODNET_SEED={kills.SEED}: killed at {at}"
    if pending(armed):
        json.loads(armed.run("cat", PENDING).stdout)
        if not waiters(armed):  # killed before it had begun to wait: nothing was changed by then
            assert picture(armed) == before, step
            armed.module("topology", document=node(), peers=PEERS)
        until(lambda: not pending(armed), 20)
    until(lambda: not waiters(armed), 5)
    armed.run("podnet-overlay apply")
    assert picture(armed) == before, step
    assert files(armed) - {"/run/podnet-overlay.lock"} <= kept | {"/run/podnet-overlay.lock"}, step
