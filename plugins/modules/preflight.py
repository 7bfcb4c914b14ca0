# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Judge what would stop the overlay before anything is changed
version_added: 0.4.0
description:
  - Chooses what the hosts of the play have to probe, and judges what they and their probes told. What would stop the overlay is
    shown as a table of blocker, host and remedy. Fails if there is an error in it.
  - Changes nothing. Runs on the controller. Set C(run_once).
  - C(playbooks/preflight.yml) does all of it.
extends_documentation_fragment:
  - podnet.overlay.attributes.info
  - podnet.overlay.attributes.action
author:
  - The podnet.overlay contributors (@podnet)
options:
  state:
    description:
      - V(planned) reads the inventory and what M(podnet.overlay.node_info) has registered as C(podnet_node), and returns what
        to give to M(podnet.overlay.underlay_probe).
      - V(judged) shows and judges all.
    type: str
    choices: [planned, judged]
    required: true
  name:
    description: The overlay's name.
    type: str
    default: overlay
  group:
    description: The inventory's group of nodes.
    type: str
    default: overlay
  renumber:
    description: As O(podnet.overlay.plan#module:renumber), with O(state=planned).
    type: bool
    default: false
  plan:
    description: What O(state=planned) has returned. For O(state=judged).
    type: dict
  output:
    description: How it is shown.
    type: str
    choices: [text, json]
    default: text
  started:
    description: The variable that the result of M(podnet.overlay.underlay_probe) with C(state=started) was registered in.
    type: str
    default: podnet_started
  sent:
    description: The same of C(state=sent).
    type: str
    default: podnet_sent
  stopped:
    description: The same of C(state=stopped).
    type: str
    default: podnet_heard
seealso:
  - module: podnet.overlay.underlay_probe
  - module: podnet.overlay.node_info
  - module: podnet.overlay.plan
"""

EXAMPLES = r"""
- name: Choose what to probe
  podnet.overlay.preflight:
    state: planned
  run_once: true
  register: podnet_preflight

- name: Listen
  podnet.overlay.underlay_probe:
    state: started
    run: "{{ podnet_preflight.run }}"
    protocol: "{{ podnet_preflight.protocol }}"
    address: "{{ podnet_preflight.hosts[inventory_hostname].address }}"
    sizes: "{{ podnet_preflight.sizes }}"
    timeout: "{{ podnet_preflight.timeout }}"
  register: podnet_started

- name: Judge
  podnet.overlay.preflight:
    state: judged
    plan: "{{ podnet_preflight }}"
  run_once: true
"""

RETURN = r"""
run:
  description: What tells this run's probes from others, for O(podnet.overlay.underlay_probe#module:run).
  type: str
  returned: when O(state=planned)
  sample: 0123456789abcdef
protocol:
  description: For O(podnet.overlay.underlay_probe#module:protocol).
  type: str
  returned: when O(state=planned)
  sample: ipip
timeout:
  description: For O(podnet.overlay.underlay_probe#module:timeout), by the number of hosts and of forks.
  type: int
  returned: when O(state=planned)
  sample: 630
sizes:
  description: For O(podnet.overlay.underlay_probe#module:sizes).
  type: dict
  returned: when O(state=planned)
  sample: {198.51.100.11: 1500, 198.51.100.12: 1500}
hosts:
  description: For each host that can probe its address, the size of its largest packet, its interface, and the network in which
    it sends to others without a tunnel.
  type: dict
  returned: when O(state=planned)
  sample:
    node1: {address: 198.51.100.11, size: 1500, interface: eth1, link: ""}
settings:
  description: What holds for every node, as M(podnet.overlay.plan) returns it.
  type: dict
  returned: when O(state=planned)
  sample: {network: 10.244.0.0/16, backend: ipip, bridge: cni0, tunnel: flannel.ipip}
members:
  description: The hosts that are looked at.
  type: list
  elements: str
  returned: when O(state=planned)
  sample: [node1, node2]
findings:
  description: What is in the way. With O(state=planned) as far as it is known by then. Not returned where a text was shown and it fails.
  type: list
  elements: dict
  returned: success, or O(output=json)
  contains:
    host:
      description: The host, or the group if it is about all.
      type: str
    blocker:
      description: What is wrong.
      type: str
    remedy:
      description: What to do about it.
      type: str
    level:
      description: V(error), with which the overlay does not work, or V(warning).
      type: str
  sample:
    - host: node1
      blocker: "protocol 4 (IPIP) does not get between node1 and node2, and echo requests do: it is filtered"
      remedy: "let protocol 4 pass (security groups, ACLs, routers), or set overlay_backend: vxlan"
      level: error
summary:
  description: The verdict in a line.
  type: str
  returned: when O(state=judged)
  sample: "3 hosts, 4 of 6 paths carry protocol 4: 1 error, 0 warnings"
paths:
  description: How many paths from host to host were tried, and how many carry all that the overlay sends.
  type: dict
  returned: when O(state=judged)
  sample: {tried: 6, whole: 4}
underlay:
  description: The underlay's interface of each host, and who configures it, where that could be told.
  type: dict
  returned: when O(state=judged)
  sample:
    node1: {interface: eth1, manager: systemd-networkd (/etc/systemd/network/10-eth1.network)}
"""
