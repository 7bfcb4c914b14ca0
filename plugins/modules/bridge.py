#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bridge
short_description: A bridge and its ports
description:
  - Makes a bridge, sets its options, and makes links its ports with the options of each.
  - Options that are not given stay as they are. A new bridge has the kernel's defaults.
  - With O(state=absent) the bridge goes, and its ports stay as links of their own.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.single
  - podnet.overlay.single.link
  - podnet.overlay.attributes
options:
  address:
    description: MAC address. Without it, the lowest of the ports'.
    type: str
  stp:
    description: Whether the bridge speaks the Spanning Tree Protocol.
    type: bool
  ageing_time:
    description: Seconds for which a learned MAC address is kept. V(0) keeps none, so that all frames go to all ports.
    type: int
  forward_delay:
    description: Seconds of listening, and again of learning, before a port forwards. With O(stp=true) it is V(2) to V(30).
    type: int
  hello_time:
    description: Seconds between two hello packets of the root bridge, V(1) to V(10).
    type: int
  max_age:
    description: Seconds after which a root bridge that is silent is lost, V(6) to V(40).
    type: int
  priority:
    description: Priority in the election of the root bridge, V(0) to V(65535). The lowest wins.
    type: int
  vlan_filtering:
    description: Whether ports take and give only frames of their VLANs.
    type: bool
  ports:
    description:
      - Links of the same namespace that are to be ports. They must be there, and not be ports of another bridge.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the link.
        type: str
        required: true
      hairpin:
        description: Whether a frame may leave by the port that it came in by.
        type: bool
      isolated:
        description: Whether the port exchanges frames only with ports that are not isolated.
        type: bool
      learning:
        description: Whether the MAC addresses that are seen at this port are learned.
        type: bool
      priority:
        description: Priority of the port in the Spanning Tree Protocol, V(0) to V(63).
        type: int
      cost:
        description: Cost of the path in the Spanning Tree Protocol, V(1) to V(65535).
        type: int
  purge_ports:
    description: Whether ports that O(ports) does not list leave the bridge.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A bridge
  podnet.overlay.bridge:
    name: br0

- name: A bridge as a gateway, with exactly these two ports
  podnet.overlay.bridge:
    name: br0
    address: "0a:58:0a:01:01:01"
    addresses: [10.1.1.1/24]
    stp: false
    ageing_time: 300
    ports:
      - name: br-veth0
        hairpin: true
      - name: br-veth1
        isolated: true
    purge_ports: true

- name: The bridge gone, its ports left
  podnet.overlay.bridge:
    name: br0
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - add link br0 kind bridge up
    - change link br-veth0 kind veth up mtu 1500 address ee:f0:25:52:f1:ba master br0 hairpin on
    - add address 10.1.1.1/24 dev br0
mistakes:
  description: Each thing that is wrong with the arguments or in their way.
  returned: when the arguments or the host's state do not allow it
  type: list
  elements: str
  sample:
    - bridge br0 needs the link br-veth1, which is not there
"""

from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._model import Link, State, of_type
from ansible_collections.podnet.overlay.plugins.module_utils._module import LINK, MAC, link, run_single

OPTIONS = {
    "stp": {"type": "bool"},
    "ageing_time": {"type": "int"},
    "forward_delay": {"type": "int"},
    "hello_time": {"type": "int"},
    "max_age": {"type": "int"},
    "priority": {"type": "int"},
    "vlan_filtering": {"type": "bool"},
}
PORT_OPTIONS = {
    "hairpin": {"type": "bool"},
    "isolated": {"type": "bool"},
    "learning": {"type": "bool"},
    "priority": {"type": "int"},
    "cost": {"type": "int"},
}


def main() -> None:
    port = {"name": {"type": "str", "required": True}, **PORT_OPTIONS}
    module = AnsibleModule(
        argument_spec={
            **LINK,
            **MAC,
            **OPTIONS,
            "ports": {"type": "list", "elements": "dict", "options": port, "default": []},
            "purge_ports": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    links = [link(params, "bridge", bridge={key: params[key] for key in OPTIONS})]
    if params["state"] == "present":
        for item in params["ports"]:
            options = {key: item[key] for key in PORT_OPTIONS if item[key] is not None}
            links.append({"name": item["name"], "external": True, "master": params["name"], "port": options or None})
    listed = {item["name"] for item in params["ports"]}

    def others_leave(observed: State) -> State:
        return {
            item.key: replace(item, master="", port=None)
            for item in of_type(observed, Link)
            if (item.namespace, item.master) == (params["namespace"], params["name"]) and item.name not in listed
        }

    run_single(module, {"links": links}, further=others_leave if params["purge_ports"] else None)


if __name__ == "__main__":
    main()
