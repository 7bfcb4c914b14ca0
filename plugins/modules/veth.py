#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: veth
short_description: A pair of veth links, both ends in one task
description:
  - Makes a pair, each end in its namespace, with its addresses, MAC, MTU and state.
  - A veth of that name which has another peer is an error and stays.
  - With O(state=absent) the pair goes, since one end takes the other along.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.single
  - podnet.overlay.single.link
  - podnet.overlay.attributes
options:
  address:
    description: MAC address. Without it the kernel's choice stays.
    type: str
  master:
    description: Bridge in the same namespace whose port this end is. Empty for none. Without it, it stays as it is.
    type: str
  peer:
    description: The other end. Required with O(state=present).
    type: dict
    suboptions:
      name:
        description: Name of the link, at most 15 bytes.
        type: str
        required: true
      namespace:
        description: Namespace of this end. Empty is the host's own. Without it, the one of the first end, as ip-link(8) has it.
        type: str
      addresses:
        description: IPv4 addresses, written as in O(addresses).
        type: list
        elements: raw
      address:
        description: MAC address. Without it the kernel's choice stays.
        type: str
      mtu:
        description: MTU in bytes. Without it the kernel's choice stays.
        type: int
      up:
        description: Whether this end is up.
        type: bool
        default: true
"""

EXAMPLES = r"""
- name: Two namespaces, one wire
  podnet.overlay.veth:
    name: veth0
    namespace: ns1
    addresses: [10.1.1.2/24]
    peer:
      name: veth1
      namespace: ns2
      addresses: [10.1.1.3/24]

- name: A namespace on a bridge
  podnet.overlay.veth:
    name: br-veth0
    master: br0
    peer:
      name: veth0
      namespace: ns1
      addresses: [10.1.1.2/24]

- name: A namespace with the host as its router
  podnet.overlay.veth:
    name: v1_r
    addresses: [10.1.1.1/24]
    peer:
      name: v1
      namespace: ns1
      addresses: [10.1.1.2/24]

- name: Both ends gone
  podnet.overlay.veth:
    name: v1_r
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - add link br-veth0 kind veth up master br0 peer veth0 peer_namespace ns1
    - add link veth0 kind veth up peer br-veth0 (namespace ns1)
    - add address 10.1.1.2/24 dev veth0 (namespace ns1)
mistakes:
  description: Each thing that is wrong with the arguments or in their way.
  returned: when the arguments or the host's state do not allow it
  type: list
  elements: str
  sample:
    - namespace ns1 is not there: make it first
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._module import END, LINK, MAC, link, run_single


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **LINK,
            **MAC,
            "master": {"type": "str"},
            "peer": {"type": "dict", "options": {**END, **MAC, "namespace": {"type": "str"}}},
        },
        required_if=[("state", "present", ["peer"])],
        supports_check_mode=True,
    )
    run_single(
        module, {"links": [link(module.params, "veth", master=module.params["master"], peer=module.params["peer"])]}
    )


if __name__ == "__main__":
    main()
