# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who else configures this host's network: who brings up the underlay, other overlays, a networkd that takes every link.

Reads files of /etc, /run and /proc, and starts nothing. Sources: systemd.network(5), netplan-generate(8), interfaces(5);
systemd's and NetworkManager's files of /run are as their sources write them.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import socket
import typing as t

from . import _foreign_networkd

_OVERLAYS = {  # the names of processes, of at most 15 bytes: /proc/PID/comm
    "flanneld": "Flannel",
    "calico-node": "Calico",
    "calico-felix": "Calico",
    "cilium-agent": "Cilium",
    "kube-router": "kube-router",
    "weaver": "Weave Net",
    "antrea-agent": "Antrea",
    "ovnkube": "OVN-Kubernetes",
}
_NETWORKD_FOLDERS = ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")  # the first that has a file's name wins
OWN_NETWORK_FILE = os.path.basename(_foreign_networkd.NETWORK % "overlay")


def processes() -> set[str]:
    """The names of all processes of this network namespace."""
    here, found = os.stat("/proc/self/ns/net").st_ino, set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = _text(f"/proc/{pid}/comm").strip()
            if os.stat(f"/proc/{pid}/ns/net").st_ino == here:
                found.add(name)
        except OSError:  # it has ended
            continue
    return found


def overlays(running: t.Iterable[str]) -> list[str]:
    """The other overlays whose processes run."""
    return sorted({_OVERLAYS[name] for name in running if name in _OVERLAYS})


def manager(interface: str) -> str:
    """Who configures an interface, with the file where it says so, as far as can be told; else empty."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return ""
    file = _value(_text(f"/run/systemd/netif/links/{index}"), "NETWORK_FILE")
    if file:
        return f"{'netplan, by ' if 'netplan' in file else ''}systemd-networkd ({file})"
    device = _text(f"/run/NetworkManager/devices/{index}")
    if _value(device, "managed") in ("true", "1") and _value(device, "connection-uuid"):
        netplan = glob.glob("/run/NetworkManager/system-connections/netplan-*")
        return f"{'netplan, by ' if netplan else ''}NetworkManager"
    stanza = rf"^\s*iface\s+{re.escape(interface)}\s"
    for path in ("/etc/network/interfaces", *sorted(glob.glob("/etc/network/interfaces.d/*"))):
        if re.search(stanza, _text(path), re.MULTILINE):
            return f"ifupdown ({path})"
    return ""


def takers(links: t.Mapping[str, str]) -> dict[str, list[str]]:
    """The files of systemd-networkd that would configure LINKS, from name to kind, though they are the overlay's.

    Of all files the first, by name, that matches a link is the one. That the overlay brings is taken to be there.
    """
    files = {OWN_NETWORK_FILE: ""}
    for folder in reversed(_NETWORKD_FOLDERS):
        for path in glob.glob(f"{folder}/systemd/network/*.network"):
            files[os.path.basename(path)] = path
    found: dict[str, list[str]] = {}
    for name, kind in links.items():
        for file in sorted(files):
            if file == OWN_NETWORK_FILE:
                break
            sections = _sections(_text(files[file]))
            if matches(sections.get("Match", {}), name, kind):
                if sections.get("Link", {}).get("Unmanaged", "").lower() not in ("yes", "true", "1", "on"):
                    found.setdefault(files[file], []).append(name)
                break
    return found


def matches(match: t.Mapping[str, str], name: str, kind: str) -> bool:
    """Whether a section [Match] takes a link that is made anew; what it asks of hardware, none of ours has."""
    about = {"Name": name, "Kind": kind, "Type": "tunnel" if kind == "ipip" else "ether"}
    if kind == "bridge":
        about["Type"] = "bridge ether"  # networkctl(1) says bridge, udev's DEVTYPE too
    for key, said in match.items():
        if key not in about:
            return False
        globs = said.split()
        inverted = bool(globs) and globs[0].startswith("!")
        if inverted:
            globs[0] = globs[0][1:]
        if any(fnmatch.fnmatchcase(word, glob) for word in about[key].split() for glob in globs) == inverted:
            return False
    return True


def _sections(text: str) -> dict[str, dict[str, str]]:
    """A file of systemd.syntax(7). What is said again for one key is added, as Name= is."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if line.startswith("[") and line.endswith("]"):
            section = found.setdefault(line[1:-1], {})
        elif "=" in line and line[0] not in "#;":
            key, _equals, value = (word.strip() for word in line.partition("="))
            section[key] = f"{section[key]} {value}" if section.get(key) and value else value
    return found


def _value(text: str, key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
