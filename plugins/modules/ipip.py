#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ipip
short_description: An IPIP tunnel (IPv4 in IPv4)
description:
  - Makes a tunnel device, to one remote or to any, and changes in place what the kernel can change.
  - From any remote to a fixed one, or back, the kernel has no way but to make the device anew, and then its routes go.
  - Options that are not given stay as they are. A new tunnel has the kernel's defaults.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.single
  - podnet.overlay.single.link
  - podnet.overlay.attributes
options:
  mode:
    description:
      - Which inner packets the tunnel takes, as in ip-link(8). V(ipip) is IPv4 only, as a new tunnel has it; Flannel's has V(any).
      - A change makes the device anew.
    type: str
    choices: [any, ipip, mplsip]
  local:
    description: Source of the outer packets, an address of this host, or V(any). A new tunnel has any.
    type: str
  remote:
    description:
      - Destination of the outer packets, or V(any), where routes through the tunnel name it as their gateway (C(onlink)).
      - A new tunnel has any.
      - There is one tunnel at most for each pair of O(local) and O(remote).
    type: str
  ttl:
    description: TTL of the outer packets, V(1) to V(255), or V(inherit) (from the inner packet), as a new tunnel has it.
    type: str
  tos:
    description: TOS of the outer packets, V(0) to V(255), or V(inherit). A new tunnel has V(0).
    type: str
  pmtudisc:
    description:
      - Whether outer packets carry DF, for path MTU discovery. A new tunnel does. Flannel's does not.
      - V(false) goes with O(ttl=inherit) only.
    type: bool
  link:
    description: Interface by which the outer packets leave. Empty for none, and then the routes decide.
    type: str
  mtu:
    description: MTU in bytes, 20 less than the underlay's. Without it, a new tunnel with any remote and no O(link) has 1480.
"""

EXAMPLES = r"""
- name: One end of a tunnel between the namespaces ns1 and ns2
  podnet.overlay.ipip:
    name: tunl1
    namespace: ns1
    local: 10.10.10.2
    remote: 10.10.20.2
    addresses:
      - address: 10.10.100.10
        peer: 10.10.200.10

- name: Flannel's device, which reaches all nodes by their routes
  podnet.overlay.ipip:
    name: flannel.ipip
    mode: any
    local: 172.12.1.11
    remote: any
    ttl: inherit
    pmtudisc: false
    mtu: 1480
    addresses: [10.244.0.0/32]

- name: Gone
  podnet.overlay.ipip:
    name: tunl1
    namespace: ns1
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - add link tunl1 kind ipip up local 10.10.10.2 remote 10.10.20.2 (namespace ns1)
    - add address 10.10.100.10 peer 10.10.200.10/32 dev tunl1 (namespace ns1)
mistakes:
  description: Each thing that is wrong with the arguments or in their way.
  returned: when the arguments or the host's state do not allow it
  type: list
  elements: str
  sample:
    - "links[tunl1]: ipip: remote: 'fe80::1' is no IPv4 address"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._module import LINK, link, run_single

OPTIONS = {
    "mode": {"type": "str", "choices": ["any", "ipip", "mplsip"]},
    "local": {"type": "str"},
    "remote": {"type": "str"},
    "ttl": {"type": "str"},
    "tos": {"type": "str"},
    "pmtudisc": {"type": "bool"},
    "link": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec={**LINK, **OPTIONS}, supports_check_mode=True)
    tunnel = {key: module.params[key] for key in OPTIONS}
    run_single(module, {"links": [link(module.params, "ipip", ipip=tunnel)]})


if __name__ == "__main__":
    main()
