# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: flow
short_description: Resolve the two ends of a path through the overlay
version_added: 0.2.0
description:
  - From names or addresses, which hosts a packet and its answer pass, and the packets that
    M(podnet.overlay.walk) is to follow on each.
  - Contacts no host. Fails with all mistakes at once.
  - Runs on the controller. Set C(run_once).
extends_documentation_fragment:
  - podnet.overlay.attributes.info
  - podnet.overlay.attributes.action
author:
  - The podnet.overlay contributors (@podnet)
options:
  from:
    description: The pod that the path starts at, as C(POD@NODE).
    type: str
    required: true
  to:
    description:
      - Where it ends. C(POD@NODE); the name of a pod that is on one node only; the address of a pod; another address of a
        node's subnet, such as its gateway; a node's public_ip; or, since 0.3.0, an address outside of the overlay.
      - Where the address belongs to nobody that the leases know, there is no walk of the answer.
    type: str
    required: true
  nodes:
    description: The nodes, as M(podnet.overlay.plan) returns them with O(podnet.overlay.plan#module:state=check).
    type: dict
    required: true
  settings:
    description: What holds for all nodes, from the same place.
    type: dict
    required: true
  hosts:
    description: All hosts of the overlay, so that one without a lease is told from a typing error.
    type: list
    elements: str
    default: []
  size:
    description: Bytes of the IP packet, headers included, from 28 to 65535.
    type: int
    default: 84
  df:
    description: Whether the packet may not be fragmented.
    type: bool
    default: true
  mark:
    description: Firewall mark of the request where it starts, a decimal or hexadecimal number. Policy routing may ask for it.
    type: str
    default: "0"
  port:
    description:
      - The port that the packet goes to, such as V(8080), V(8080/tcp) or V(53/udp), as for a mapped port of a node.
        Without it, it is an echo request.
    type: str
    default: ""
    version_added: 0.3.0
  capture:
    description: Whether frames will be captured on the path. The probe is an echo request, so not together with O(port).
    type: bool
    default: false
  output:
    description: How O(podnet.overlay.trace#module:output) will tell it. Checked here, before anything is sent.
    type: str
    choices: [text, json]
    default: text
seealso:
  - module: podnet.overlay.plan
  - module: podnet.overlay.walk
  - module: podnet.overlay.trace
"""

EXAMPLES = r"""
- name: Read the leases
  podnet.overlay.plan:
    state: check
  run_once: true
  register: podnet_plan

- name: Resolve the path
  podnet.overlay.flow:
    from: web@node1
    to: 10.244.1.2
    nodes: "{{ podnet_plan.nodes }}"
    settings: "{{ podnet_plan.settings }}"
  run_once: true
  register: podnet_flow
"""

RETURN = r"""
from:
  description: The source, as C(POD@NODE).
  type: str
  returned: success
  sample: web@node1
to:
  description: The destination, as C(POD@NODE) where it is a pod, else its address.
  type: str
  returned: success
  sample: db@node2
source:
  description: The source's address.
  type: str
  returned: success
  sample: 10.244.0.2
destination:
  description: The destination's address.
  type: str
  returned: success
  sample: 10.244.1.3
size:
  description: Bytes of the IP packet.
  type: int
  returned: success
  sample: 84
df:
  description: Whether it may not be fragmented.
  type: bool
  returned: success
  sample: true
nodes:
  description: The one or two hosts of the path, the source's first.
  type: list
  elements: str
  returned: success
  sample: [node1, node2]
order:
  description: For each leg the hosts in the order that it passes them. Empty where the leg cannot be walked.
  type: dict
  returned: success
  sample: {request: [node1, node2], reply: [node2, node1]}
packets:
  description:
    - For each host the O(podnet.overlay.walk#module:packets) to follow there, C(request) and C(reply) by name.
    - With direct routing an arrival may come without the tunnel as well. That is C(request-direct) or C(reply-direct).
    - Between a pod and a node's public_ip its addresses may be translated. That is C(request-translated) or C(reply-translated).
  type: dict
  returned: success
  sample:
    node1:
      - name: request
        namespace: web
        src: 10.244.0.2
        dst: 10.244.1.3
        protocol: icmp
        ttl: 64
        size: 84
        df: true
        mark: 0
    node2:
      - name: request
        namespace: ""
        arrives: true
        src: 10.244.0.2
        dst: 10.244.1.3
        protocol: icmp
        ttl: 63
        size: 84
        df: true
        outer: {src: 198.51.100.11, dst: 198.51.100.12, protocol: ipip, ttl: 63}
protocol:
  description: What the packet carries.
  type: str
  returned: success
  sample: icmp
port:
  description: The port that it goes to, or 0.
  type: int
  returned: success
  sample: 0
outside:
  description: Whether the destination is outside of the overlay. Then only the source's host is asked.
  type: bool
  returned: success
  sample: false
probes:
  description: The O(podnet.overlay.ping#module:probes) that try the path, and the underlay below it.
  type: dict
  returned: success
  sample:
    node1:
      - {namespace: web, targets: [{address: 10.244.1.3, name: db@node2}]}
      - {namespace: "", targets: [{address: 198.51.100.12, name: node2}]}
addresses:
  description: The addresses of both ends.
  type: list
  elements: str
  returned: success
  sample: [10.244.0.2, 10.244.1.3]
underlay:
  description: The public_ip of each host of the path.
  type: list
  elements: str
  returned: success
  sample: [198.51.100.11, 198.51.100.12]
capture:
  description: With O(capture) a O(podnet.overlay.capture#module:name) that no other run has, else none.
  type: str
  returned: success
  sample: trace_5f1c09ae
output:
  description: As it was given.
  type: str
  returned: success
  sample: text
"""
