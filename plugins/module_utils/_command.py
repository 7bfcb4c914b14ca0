# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs: whether they are there and run, and what their commands say when they fail."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import signal
import subprocess

# Ansible's PATH may lack what root's has.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

LONGEST = 60.0
"""Seconds that a command may take: the lock of all fronts is held meanwhile. firewalld's take 20 on a slow machine."""


def found(name: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(name, path=_PATH) is not None


def runs(name: str) -> bool:
    """Whether there is a process of this name, of which the kernel knows 15 bytes, in this network namespace."""
    here = os.stat("/proc/self/ns/net").st_ino
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/comm" % pid, encoding="utf-8", errors="replace") as file:
                named = file.read() == name[:15] + "\n"
            if named and os.stat("/proc/%s/ns/net" % pid).st_ino == here:
                return True
        except OSError:  # it has ended
            continue
    return False


def enabled(unit: str) -> bool:
    """Whether systemd starts a unit at boot."""
    return bool(glob.glob("/etc/systemd/system/*.wants/" + unit))


def run(*words: str, text: str = "") -> str:
    """What a command prints, with *text* on its standard input.

    Raises:
        OSError: it failed; the text is its own, after its name.
    """
    answer = attempt(*words, text=text)
    if answer.returncode:
        said = " ".join((answer.stderr or answer.stdout).split()) or "ended with %d" % answer.returncode
        denied = os.geteuid() != 0 or "Permission denied" in said or "not permitted" in said
        raise OSError(errno.EPERM if denied else errno.EINVAL, "%s: %s" % (" ".join(words), said))
    return answer.stdout


def attempt(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """The same, where failing is an answer too.

    Raises:
        OSError: it did not end.
    """
    pipe, environment = subprocess.PIPE, {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    with subprocess.Popen(
        words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(text, LONGEST)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started: nothing of it may come later
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            said = "it did not end within %.0f s, and was ended: see what it waits for, and run again" % LONGEST
            raise OSError(errno.ETIMEDOUT, "%s: %s" % (" ".join(words), said)) from None
    return subprocess.CompletedProcess(words, process.returncode, out, err)
