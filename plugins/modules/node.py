# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Load the kernel modules of the overlay, name its routes, and install what keeps it over a reboot
version_added: 0.1.0
description:
  - Does in one call what a host needs besides packages, and takes it away again. The role P(podnet.overlay.node#role) uses it.
  - What is installed is the engine that the collection's modules are made of, as a Python package in C(/usr/local/lib/podnet-overlay),
    with the command C(podnet-overlay). Where the host has systemd there are two units. C(podnet-overlay.service) brings the host to its
    documents at boot. C(podnet-overlay-watch.service) repairs what others undo.
extends_documentation_fragment:
  - podnet.overlay.attributes
author:
  - The podnet.overlay contributors (@podnet)
options:
  state:
    description:
      - V(present) brings what O(missing) names.
      - V(absent) removes C(/etc/modules-load.d/podnet-overlay.conf) and C(/etc/iproute2/rt_protos.d/podnet-overlay.conf),
        and unloads ipip and vxlan if this module loaded them and no network namespace that can be seen (of a process, with a
        name, or mounted) has a link of them. With ipip goes C(tunl0), which the kernel makes with it. The modules bridge and veth
        stay, since whoever starts a container may make a link of theirs at any moment. What is installed goes too, unless other
        documents of the host need it.
    type: str
    choices: [present, absent]
    default: present
  missing:
    description:
      - What to bring, as in the RV(podnet.overlay.node_info#module:missing) of M(podnet.overlay.node_info). Packages in
        it are not this module's and are passed over.
    type: list
    elements: str
    default: []
  watch:
    description:
      - Whether the watcher runs and is started at boot. This counts where O(missing) has C(file:engine).
    type: bool
    default: true
    version_added: 0.4.0
  name:
    description: The document that is torn down before O(state=absent). Check mode, which has not torn it down, takes it for gone.
    type: str
    default: overlay
    version_added: 0.4.0
seealso:
  - module: podnet.overlay.node_info
"""

EXAMPLES = r"""
- name: Bring what is missing
  podnet.overlay.node:
    missing: [module:ipip, boot:bridge, boot:veth, boot:ipip, file:rt_protos, file:engine]

- name: The host as before
  podnet.overlay.node:
    state: absent
"""

RETURN = r"""
loaded:
  description: The kernel modules that were loaded.
  type: list
  elements: str
  returned: success
  sample: [ipip]
unloaded:
  description: The kernel modules that were unloaded.
  type: list
  elements: str
  returned: success
  sample: []
kept:
  description: The documents because of which O(state=absent) leaves what is installed.
  type: list
  elements: str
  returned: success
  sample: []
  version_added: 0.4.0
"""

import contextlib
import json
import os
import shutil
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _cli, _netns, _node, _package, _rollback, _state
from ..module_utils._atomic import discard, remove_empty, text_of, write_atomically
from ..module_utils._module import guarded, lasting_python

PROTOCOL = f"{_node.OWN_PROTOCOLS[0]}\t{_node.OWN_PROTOCOLS[1]}\n"
CARRIED = _cli
"""Named, so that Ansible sends all the files along that the command needs."""
RUN = "/run/podnet-overlay"
_FOLDERS = ["/etc/iproute2", os.path.dirname(_node.PROTOCOL_FILE)]
"""Some distributions have theirs below /usr only."""

Files = dict[str, str]
"""Text by path; '' for a file that is not there."""
Answer = dict[str, t.Any]
Calls = list[list[str]]
"""Words for systemctl."""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "missing": {"type": "list", "elements": "str", "default": []},
            "watch": {"type": "bool", "default": True},
            "name": {"type": "str", "default": "overlay"},
        },
        supports_check_mode=True,
    )

    def run() -> Answer:
        # Two runs would prepare the same files.
        with contextlib.nullcontext() if module.check_mode else _state.locked():
            answer, starting = _bring(module)
        if not module.check_mode:
            _systemctl(module, starting)  # by now, since what systemd starts may wait for the lock
        return answer

    module.exit_json(**guarded(module, run))


def _bring(module: AnsibleModule) -> tuple[Answer, Calls]:
    """Bring or take away everything but what systemd starts; the answer, and what to ask systemctl for then."""
    missing, watch = module.params["missing"], module.params["watch"]
    absent = module.params["state"] == "absent"
    boot = text_of(_node.BOOT_FILE)
    gone = {module.params["name"]} if module.check_mode else set()  # by then, which check mode does not see
    kept = [name for name in _state.names() if name not in gone] if absent else []
    load: list[str] = []
    unload: list[str] = []
    if absent:
        own = _node.loaded_by_role(boot)
        unload = [kind for kind in _node.TUNNELS if kind in own and _unused(module, kind, gone)]
        after = {_node.BOOT_FILE: "", _node.PROTOCOL_FILE: "", **({} if kept else _package.installed())}
    else:
        wanted = _named(missing, "module", "kernel")
        load = [name for name in wanted if not os.path.isdir(f"/sys/module/{name}")]
        after = _files(boot, wanted, _named(missing, "boot", "kernel"), protocol="file:rt_protos" in missing)
        if "file:engine" in missing:
            after.update(_package.installed())  # what an older release had and this one has not
            after.update(_package.contents(_python(module), systemd=_node.has_systemd()))
    before = {path: text_of(path) for path in after}
    after = {path: text for path, text in after.items() if text != before[path]}
    units = _units(watch=watch, absent=absent) if "file:engine" in missing or (absent and not kept) else []

    if not module.check_mode:
        if absent:
            _modprobe(module, "--remove", unload)
            _systemctl(module, units)
            for path in before:
                discard(path)  # what a killed run left
        _write(module, after)
        _modprobe(module, "--all", load)  # after the note: a module without one is taken for somebody else's
        if absent and not kept:
            shutil.rmtree(_package.FOLDER, ignore_errors=True)  # with what Python has compiled there
            shutil.rmtree(RUN, ignore_errors=True)
        if absent:
            remove_empty(_FOLDERS)
    starting = [["daemon-reload"]] if _touches_units(after) else []
    if not absent:
        restart = [["restart", _package.WATCHER]] if watch and units + _package.of_engine(after) else []
        starting += [*units, *(restart if _node.has_systemd() else [])]
    answer = {
        "changed": bool(load or unload or after or units),
        "loaded": load,
        "unloaded": unload,
        "kept": kept,
        "diff": [
            {"before_header": path, "after_header": path, "before": before[path], "after": after[path]}
            for path in after
            if not path.startswith(_package.FOLDER) or path == _package.DIGEST
        ],
    }
    return answer, starting


def _named(missing: list[str], *kinds: str) -> list[str]:
    return [item.partition(":")[2] for item in missing if item.partition(":")[0] in kinds]


def _files(present: str, load: list[str], boot: list[str], *, protocol: bool) -> Files:
    after = {}
    if boot:
        note = dict.fromkeys([*_node.loaded_by_role(present), *load])
        lines = [
            "# Written by podnet.overlay. Of these it has loaded itself, and may unload again:",
            f"# loaded: {' '.join(note)}",
            *boot,
        ]
        after[_node.BOOT_FILE] = "".join(f"{line}\n" for line in lines)
    if protocol:
        after[_node.PROTOCOL_FILE] = PROTOCOL
    return after


def _python(module: AnsibleModule) -> str:
    found = lasting_python()
    if found is None:
        module.fail_json(
            msg=f"no Python of this host has pyroute2 ({sys.executable} has not): install python3-pyroute2, "
            "which the role podnet.overlay.node does"
        )
    return t.cast(str, found)


def _units(*, watch: bool, absent: bool) -> Calls:
    """What systemctl has to do so that the units are enabled as wanted. To stop the boot unit changes nothing of the network."""
    if not _node.has_systemd():
        return []
    if absent:  # what runs is stopped, enabled or not
        units = (_package.WATCHER, _package.BOOT)
        there = [unit for unit in units if _node.is_enabled(unit) or os.path.exists(f"{_package.UNITS}/{unit}")]
        return [["disable", "--now", "--quiet", unit] for unit in there]
    wanted = {_package.BOOT: True, _package.WATCHER: watch}
    found = []
    for unit, enabled in wanted.items():
        if _node.is_enabled(unit) != enabled:
            now = ["--now"] if unit == _package.WATCHER and not enabled else []  # it is restarted in the end
            found.append(["enable" if enabled else "disable", *now, "--quiet", unit])
    return found


def _systemctl(module: AnsibleModule, calls: Calls) -> None:
    for words in calls:
        module.run_command([module.get_bin_path("systemctl", required=True), *words], check_rc=True)


def _touches_units(files: Files) -> bool:
    return _node.has_systemd() and any(path.startswith(_package.UNITS) for path in files)


def _modprobe(module: AnsibleModule, way: str, names: list[str]) -> None:
    if names:
        module.run_command([module.get_bin_path("modprobe", required=True), way, *names], check_rc=True)


def _unused(module: AnsibleModule, kind: str, gone: set[str]) -> bool:
    """Whether the module *kind* is loaded, no other module needs it, and no namespace has a link of it but of documents in *gone*.

    Unloading would delete them all, wherever they are: the kernel does not count links as users.
    """
    if text_of(f"/sys/module/{kind}/refcnt").strip() != "0":
        return False
    ip = module.get_bin_path("ip", required=True, opt_dirs=["/usr/sbin", "/sbin"])
    own = {_node.OWNER + name for name in gone}

    def links() -> list[t.Any]:
        _code, out, _err = module.run_command([ip, "-j", "link", "show", "type", kind], check_rc=True)
        found = [link for link in json.loads(out or "[]") if link and link.get("ifalias") not in own]
        return [link for link in found if "UP" in link["flags"] or link.get("ifname") != "tunl0"]  # comes with ipip

    for path in _netns.everywhere():
        try:
            if _netns.inside(path, links):
                return False
        except OSError:
            if os.path.exists(path):
                raise
            return _unused(module, kind, gone)  # a process ended, and others may be in its namespace: look again
    return True


def _write(module: AnsibleModule, files: Files) -> None:
    """Write the files whole, and remove those without text. The digest goes first and comes last: it says that the rest is there."""
    steps = [(path, text) for path, text in files.items() if path != _package.DIGEST]
    if _package.of_engine(files):
        digest = files.get(_package.DIGEST, text_of(_package.DIGEST))
        steps = [(_package.DIGEST, ""), *steps, (_package.DIGEST, digest)]
    for path, text in steps:
        try:
            if text:
                write_atomically(path, text, 0o755 if path == _rollback.COMMAND else 0o644)
            elif os.path.exists(path):
                os.unlink(path)
        except OSError as error:
            module.fail_json(
                msg=f"cannot write {path} ({error.strerror}): make room or make it writable, and run again"
            )


if __name__ == "__main__":
    main()
