# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work inside a network namespace, with nothing but the standard library."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import typing as t

FOLDER = "/run/netns"

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_RTM_GETLINK = 18  # linux/rtnetlink.h
_NLM_F_REQUEST = 1  # linux/netlink.h
_NLMSG_ERROR = 2
_IFLA_IFALIAS = 20  # linux/if_link.h
_LOOPBACK = 1  # the index of lo, in every namespace

T = t.TypeVar("T")


def names() -> list[str]:
    """The namespaces with a name. A file in the folder that is no namespace (a torn creation) does not count."""
    try:
        return sorted(name for name in os.listdir(FOLDER) if _is_namespace(os.path.join(FOLDER, name)))
    except FileNotFoundError:
        return []


def identity(name: str = "") -> tuple[int, int]:
    """What tells a namespace from others, whatever its names; that of this process without a name. Raises OSError."""
    found = os.stat(os.path.join(FOLDER, name) if name else "/proc/self/ns/net")
    return found.st_dev, found.st_ino


def everywhere() -> list[str]:
    """A path for each network namespace that can be seen: this one, those with a name or mounted elsewhere, and those of processes."""
    paths = ["/proc/self/ns/net", *(os.path.join(FOLDER, name) for name in names()), *_mounted()]
    paths += ["/proc/%s/ns/net" % pid for pid in os.listdir("/proc") if pid.isdecimal()]
    found: dict[tuple[int, int], str] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:  # it has ended
            continue
        found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def inside(namespace: str | None, work: t.Callable[[], T]) -> T:
    """Return what WORK returns in the named namespace (or that of a path), right here if the name is empty, or in a new one if it is None.

    setns(2) and unshare(2) move one thread, so a thread goes and the caller's namespace never changes:
    nothing has to be restored, not even after an error. What the thread opens or starts stays in there.
    Raises OSError if the namespace cannot be entered, and whatever WORK raises.
    """
    if namespace == "":
        return work()
    result: list[T] = []
    error: list[BaseException] = []

    def go() -> None:
        try:
            _enter(namespace)
            result.append(work())
        except BaseException as e:  # noqa: BLE001  # it is raised again, over there
            error.append(e)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


def loopback_alias() -> str:
    """The alias of lo in this thread's namespace: there a namespace says who owns it. One request of rtnetlink(7)."""
    header = struct.pack("=IHHII", 32, _RTM_GETLINK, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as rtnetlink:
        rtnetlink.send(header + struct.pack("=BxHiII", 0, 0, _LOOPBACK, 0, 0))
        reply = rtnetlink.recv(65536)
    if struct.unpack_from("=H", reply, 4)[0] == _NLMSG_ERROR:
        return ""
    at = 32
    while at + 4 <= len(reply):
        length, kind = struct.unpack_from("=HH", reply, at)
        if kind == _IFLA_IFALIAS:
            return reply[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += max(4, (length + 3) & ~3)
    return ""


def _mounted() -> list[str]:
    """Where namespaces are mounted (proc_pid_mountinfo(5)): Docker's overlay networks have some with no process in them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split() for line in file]
    return [mount[4] for mount in mounts if mount[3].startswith("net:[")]


def _is_namespace(path: str) -> bool:
    """Whether the nsfs file system is mounted there."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except OSError:
        return False


def _enter(namespace: str | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns and os.unshare came with Python 3.12
    if namespace is None:
        failed = libc.unshare(_CLONE_NEWNET)
    else:
        target = os.open(os.path.join(FOLDER, namespace), os.O_RDONLY | os.O_CLOEXEC)
        try:
            failed = libc.setns(target, _CLONE_NEWNET)
        finally:
            os.close(target)
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), namespace)
