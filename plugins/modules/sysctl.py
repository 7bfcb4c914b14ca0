#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctl
short_description: A sysctl, live in any network namespace, and kept for the next boot
description:
  - Sets a sysctl of the running kernel in the host's or a named namespace, and for the host's keeps it in a file that is read at boot.
  - Values are compared word by word, so that tabs and spaces between the numbers of C(net.ipv4.tcp_rmem) do not count.
  - O(state=absent) removes the line from the file. The running kernel keeps its value, since nobody knows what it should be instead.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.single
  - podnet.overlay.attributes
options:
  name:
    description:
      - Name of the sysctl as sysctl(8) has it, with the dots of an interface's name as slashes (V(net.ipv4.conf.eth1/100.rp_filter)).
    type: str
    required: true
  value:
    description: Value. Required with O(state=present).
    type: str
  namespace:
    description: Named network namespace in which it is set, for sysctls of C(net). Empty is the host's own.
    type: str
    default: ""
  persist:
    description:
      - Whether O(sysctl_file) has the value too. It is V(true) for the host's own namespace unless given.
      - A named namespace does not outlive a boot, so nothing is kept for it.
    type: bool
  sysctl_file:
    description: File of sysctl.d(5). Its other lines stay. It is written whole or not at all, and removed when nothing is left in it.
    type: path
    default: /etc/sysctl.d/60-podnet-overlay.conf
notes:
  - C(net.ipv4.ip_forward) also turns the C(forwarding) of every interface and, when it goes from V(1) to V(0), sets
    C(net.ipv4.conf.all.accept_redirects) to V(1). Set those after it.
"""

EXAMPLES = r"""
- name: The host forwards packets, also after a boot
  podnet.overlay.sysctl:
    name: net.ipv4.ip_forward
    value: "1"

- name: A namespace forwards packets
  podnet.overlay.sysctl:
    name: net.ipv4.ip_forward
    value: "1"
    namespace: ns1

- name: Now only
  podnet.overlay.sysctl:
    name: net.ipv4.conf.all.rp_filter
    value: "2"
    persist: false

- name: No longer at boot
  podnet.overlay.sysctl:
    name: net.ipv4.ip_forward
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - change sysctl net.ipv4.ip_forward = 1
    - add line net.ipv4.ip_forward = 1 in /etc/sysctl.d/60-podnet-overlay.conf
mistakes:
  description: Each thing that is wrong with the arguments or in their way.
  returned: when the arguments or the host's state do not allow it
  type: list
  elements: str
  sample:
    - "sysctl net.ipv4.ip_forwarding is not there: a misspelt name, or a missing link or kernel module"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    Mistakes,
    State,
    Sysctl,
    SysctlLine,
    of_type,
    parse,
    state_of,
)
from ansible_collections.podnet.overlay.plugins.module_utils._module import NAMESPACE, STATE, run


def read(params: dict[str, Any]) -> State:
    """The sysctl, and the file's line where it is kept; with ``state`` absent only that."""
    namespace, persist = params["namespace"], params["persist"]
    if persist and namespace:
        raise Mistakes(["persist: a sysctl is kept for the host's own namespace only"])
    document = {"sysctls": [{"name": params["name"], "value": params["value"] or ""}]}
    (sysctl,) = of_type(parse(document, namespace=namespace), Sysctl)
    lines = [] if namespace or persist is False else [SysctlLine(params["sysctl_file"], sysctl.name, sysctl.value)]
    return state_of(lines if params["state"] == "absent" else [sysctl, *lines])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "value": {"type": "str"},
            "state": STATE,
            "namespace": NAMESPACE,
            "persist": {"type": "bool"},
            "sysctl_file": {"type": "path", "default": "/etc/sysctl.d/60-podnet-overlay.conf"},
        },
        required_if=[("state", "present", ["value"])],
        supports_check_mode=True,
    )
    run(module, lambda: read(module.params), named=True)


if __name__ == "__main__":
    main()
