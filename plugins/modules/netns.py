#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: netns
short_description: A named network namespace
description:
  - Makes a network namespace with its C(lo) up, as C(ip netns add) and C(ip link set lo up) do, or gives the namespace of a
    process a name, as C(ip netns attach) does.
  - The files that C(ip netns exec) shows under C(/etc) can be written along.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.single
  - podnet.overlay.attributes
options:
  name:
    description: Name of the namespace, a file name.
    type: str
    required: true
  pid:
    description:
      - A process whose namespace gets the name instead of a new one, for example the first process of a container.
      - A namespace of this name which is another one is an error. Nothing in the process's namespace is changed, its C(lo) neither.
    type: int
  files:
    description:
      - A mapping from a file's name, such as V(resolv.conf) or V(hosts), to its text. They are written to C(/etc/netns/NAME).
      - With O(state=absent) those that are named here are removed, and others stay.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: A namespace with a resolver of its own
  podnet.overlay.netns:
    name: ns1
    files:
      resolv.conf: "nameserver 192.0.2.53\n"

- name: The namespace of a running container gets a name
  podnet.overlay.netns:
    name: web
    pid: "{{ container.State.Pid }}"

- name: The two hosts of a system in namespaces
  podnet.overlay.netns:
    name: "{{ item }}"
  loop: [ns1, ns2]

- name: Gone, with its file
  podnet.overlay.netns:
    name: ns1
    files: {resolv.conf: ""}
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - add namespace ns1
    - add file /etc/netns/ns1/resolv.conf (22 bytes)
mistakes:
  description: Each thing that is wrong with the arguments or in their way.
  returned: when the arguments or the host's state do not allow it
  type: list
  elements: str
  sample:
    - "namespace web is there already and not ours (it is not the namespace of process 4242): remove it, or choose another name"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._module import STATE, run_single


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": STATE,
            "pid": {"type": "int"},
            "files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    keys = ("name", "files", "pid") if module.params["state"] == "present" else ("name", "files")
    run_single(module, {"namespaces": [{key: module.params[key] for key in keys}]})


if __name__ == "__main__":
    main()
