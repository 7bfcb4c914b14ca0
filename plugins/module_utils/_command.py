# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs: whether they are there and run, and what their commands say when they fail."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import subprocess

# Ansible's PATH may lack what root's has.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


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
    """The same, where failing is an answer too."""
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False, env=environment)
