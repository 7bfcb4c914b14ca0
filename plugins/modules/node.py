# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node
short_description: Load the kernel modules of the overlay, now and at boot, and name its routes
version_added: 0.1.0
description:
  - Does in one call what a host needs besides packages, and takes it away again. The role P(podnet.overlay.node#role) uses it.
extends_documentation_fragment:
  - podnet.overlay.attributes
author:
  - The podnet.overlay contributors (@podnet)
options:
  state:
    description:
      - V(present) brings what O(missing) names.
      - V(absent) removes C(/etc/modules-load.d/podnet-overlay.conf) and C(/etc/iproute2/rt_protos.d/podnet-overlay.conf),
        and unloads ipip if this module loaded it and neither a link nor a named network namespace is left that may use
        it. With ipip goes C(tunl0), which the kernel makes with it.
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
seealso:
  - module: podnet.overlay.node_info
"""

EXAMPLES = r"""
- name: Bring what is missing
  podnet.overlay.node:
    missing: [module:ipip, boot:bridge, boot:veth, boot:ipip, file:rt_protos]

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
"""

import contextlib
import json
import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _netns, _node

PROTOCOL = f"{_node.OWN_PROTOCOLS[0]}\t{_node.OWN_PROTOCOLS[1]}\n"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "missing": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    before = {path: _text(path) for path in (_node.BOOT_FILE, _node.PROTOCOL_FILE)}
    load: list[str] = []
    unload: list[str] = []
    if module.params["state"] == "absent":
        after = dict.fromkeys(before, "")
        unload = ["ipip"] if "ipip" in _node.loaded_by_role(before[_node.BOOT_FILE]) and _unused(module) else []
    else:
        missing = module.params["missing"]
        wanted = _named(missing, "module", "kernel")
        load = [name for name in wanted if not os.path.isdir(f"/sys/module/{name}")]
        after = _files(before, wanted, _named(missing, "boot", "kernel"), protocol="file:rt_protos" in missing)

    if not module.check_mode:
        for words in (["--all", *load] if load else [], ["--remove", *unload] if unload else []):
            if words:
                module.run_command([module.get_bin_path("modprobe", required=True), *words], check_rc=True)
        for path, text in after.items():
            if text != before[path]:
                _write(path, text)
    module.exit_json(
        changed=bool(load or unload or after != before),
        loaded=load,
        unloaded=unload,
        diff=[
            {"before_header": path, "after_header": path, "before": before[path], "after": after[path]}
            for path in after
            if after[path] != before[path]
        ],
    )


def _named(missing: list[str], *kinds: str) -> list[str]:
    return [item.partition(":")[2] for item in missing if item.partition(":")[0] in kinds]


def _files(before: dict[str, str], load: list[str], boot: list[str], *, protocol: bool) -> dict[str, str]:
    after = dict(before)
    if boot:
        note = dict.fromkeys([*_node.loaded_by_role(before[_node.BOOT_FILE]), *load])
        lines = [
            "# Written by podnet.overlay. Of these it has loaded itself, and may unload again:",
            f"# loaded: {' '.join(note)}",
            *boot,
        ]
        after[_node.BOOT_FILE] = "".join(f"{line}\n" for line in lines)
    if protocol:
        after[_node.PROTOCOL_FILE] = PROTOCOL
    return after


def _unused(module: AnsibleModule) -> bool:
    """Whether ipip is loaded and nobody uses it, as far as can be seen: a tunnel in a container's namespace cannot."""
    if not os.path.isdir("/sys/module/ipip") or (os.path.isdir(_netns.FOLDER) and os.listdir(_netns.FOLDER)):
        return False
    ip = module.get_bin_path("ip", required=True, opt_dirs=["/usr/sbin", "/sbin"])
    _code, out, _err = module.run_command([ip, "-j", "link", "show", "type", "ipip"], check_rc=True)
    return all(link.get("ifname", "tunl0") == "tunl0" for link in json.loads(out or "[]"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    """Write the file whole, or remove it if there is no text."""
    if not text:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    os.rename(f"{path}.new", path)


if __name__ == "__main__":
    main()
