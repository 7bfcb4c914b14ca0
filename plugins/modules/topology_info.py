#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: topology_info
short_description: A host's network as a document
description:
  - Returns what a document of M(podnet.overlay.topology) owns on the host, as it is in the kernel now, in the form of a document.
    Links that it only refers to are there with C(external=true).
  - Feeding the answer back to M(podnet.overlay.topology) changes nothing.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.attributes.info
options:
  name:
    description: Name of the document.
    type: str
    default: overlay
"""

EXAMPLES = r"""
- name: Read what the overlay has made of the host
  podnet.overlay.topology_info:
  register: overlay_state

- name: Bring the host to where it is already
  podnet.overlay.topology:
    document: "{{ overlay_state.document }}"
"""

RETURN = r"""
document:
  description: The document. Its parts are described in M(podnet.overlay.topology).
  returned: success
  type: dict
  sample:
    version: 1
    name: overlay
    links:
      - name: flannel.ipip
        kind: ipip
        mtu: 1480
        master: ""
        addresses: [10.244.0.0/32]
        ipip: {local: 198.51.100.11, remote: 0.0.0.0, ttl: 0, tos: 0, pmtudisc: false, link: "", mode: 0}
    routes:
      - {dst: 10.244.1.0/24, via: 198.51.100.12, dev: flannel.ipip, onlink: true}
    sysctls:
      - {name: net.ipv4.ip_forward, value: "1"}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._module import read_inventory


def main() -> None:
    module = AnsibleModule(argument_spec={"name": {"type": "str", "default": "overlay"}}, supports_check_mode=True)
    module.exit_json(changed=False, document=read_inventory(module, module.params["name"]))


if __name__ == "__main__":
    main()
