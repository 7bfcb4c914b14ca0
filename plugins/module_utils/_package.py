# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stays on a host: the engine as a package, its command, and two units of systemd.

They are the very files that the modules are made of: a module carries them to the host anyway. A digest tells whether a host
has the current ones.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from ._rollback import COMMAND
from ._rollback import FOLDER as ROLLBACK

FOLDER = "/usr/local/lib/podnet-overlay"
DIGEST = os.path.join(FOLDER, "DIGEST")
BOOT, WATCHER = "podnet-overlay.service", "podnet-overlay-watch.service"
UNITS = "/etc/systemd/system"
_LOADER: Any = globals()["__loader__"]  # of a zip file where a module runs

PARTS = (
    "_atomic",
    "_cli",
    "_command",
    "_conntrack",
    "_difference",
    "_drift",
    "_dropin",
    "_engine",
    "_events",
    "_firewall",
    "_firewall_clause",
    "_foreign",
    "_foreign_docker",
    "_foreign_firewalld",
    "_foreign_networkd",
    "_foreign_networkmanager",
    "_foreign_ufw",
    "_journal",
    "_kernel",
    "_metrics",
    "_model",
    "_netlink",
    "_netns",
    "_nft",
    "_nft_words",
    "_package",
    "_peers",
    "_probe_record",
    "_rollback",
    "_sends",
    "_state",
    "_status",
    "_watch",
)
"""The files that the command needs."""

_COMMAND = """\
#!{interpreter}
# The pod network of this host: podnet-overlay --help. Installed by the Ansible collection podnet.overlay.
import sys

sys.path.insert(0, "{folder}")
from podnet_overlay._cli import main

sys.exit(main())
"""

_BOOT = """\
# Written by podnet.overlay. Brings the host to its documents in /etc/podnet-overlay.
[Unit]
Description=Pod network of podnet.overlay
# The underlay comes first. So do firewalls, since some flush all rules when they start.
Wants=network-online.target
After=network-online.target systemd-networkd.service NetworkManager.service networking.service
After=systemd-modules-load.service systemd-sysctl.service
After=nftables.service netfilter-persistent.service iptables.service firewalld.service ufw.service
# Who starts containers finds the bridge.
Before=docker.service containerd.service podman.service podman-restart.service kubelet.service
# Either: a change that nobody has confirmed is undone, also where there was no document before it.
ConditionDirectoryNotEmpty=|/etc/podnet-overlay
ConditionDirectoryNotEmpty=|{rollback}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} apply

[Install]
WantedBy=multi-user.target
"""

_WATCHER = """\
# Written by podnet.overlay. Repairs what others undo of the pod network; packets flow without it.
[Unit]
Description=Watcher of podnet.overlay
After=podnet-overlay.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command} watch
Restart=always
RestartSec=2
# What it has begun ends, and so do nft and other programs that it has called for that.
KillMode=mixed
# It may be waiting for the lock of the very module that stops it.
TimeoutStopSec=10
RuntimeDirectory=podnet-overlay
RuntimeDirectoryPreserve=yes

[Install]
WantedBy=multi-user.target
"""


def digest() -> str:
    """What names these very files, whatever the interpreter."""
    whole = hashlib.sha256()
    for path, text in sorted(_files("", systemd=True).items()):
        whole.update(("%s\0%s\0" % (path, text)).encode())
    return whole.hexdigest()[:16]


def contents(interpreter: str, *, systemd: bool) -> dict[str, str]:
    """The files by path.

    Args:
        interpreter: the Python that has pyroute2.
        systemd: whether the host has it.
    """
    return {**_files(interpreter, systemd=systemd), DIGEST: digest() + "\n"}


def _files(interpreter: str, *, systemd: bool) -> dict[str, str]:
    files = {os.path.join(FOLDER, "podnet_overlay", name + ".py"): _source(name) for name in PARTS}
    files[os.path.join(FOLDER, "podnet_overlay", "__init__.py")] = '"""The engine of podnet.overlay."""\n'
    files[COMMAND] = _COMMAND.format(interpreter=interpreter, folder=FOLDER)
    if systemd:
        files[os.path.join(UNITS, BOOT)] = _BOOT.format(command=COMMAND, rollback=ROLLBACK)
        files[os.path.join(UNITS, WATCHER)] = _WATCHER.format(command=COMMAND)
    return files


def installed() -> dict[str, str]:
    """The files that are there and have to go, by path, without text."""
    folder = os.path.join(FOLDER, "podnet_overlay")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return dict.fromkeys([*paths, DIGEST, COMMAND, os.path.join(UNITS, BOOT), os.path.join(UNITS, WATCHER)], "")


def of_engine(files: dict[str, str]) -> list[str]:
    """Those of *files* that a running watcher has read."""
    return [path for path in files if path.startswith(FOLDER) or path == COMMAND]


def _source(name: str) -> str:
    path = os.path.join(os.path.dirname(__file__), name + ".py")
    data: bytes = _LOADER.get_data(path)
    return data.decode()
