# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status_report
short_description: Show the status of all nodes as a table
version_added: 0.4.0
description:
  - Gathers what M(podnet.overlay.status) registered on each host of the play, compares it with the leases and the inventory's
    backend and prints a table of nodes, one of the paths that were probed, and what is wrong with each node.
  - It finds the leases file as M(podnet.overlay.plan) does. Mistakes in the inventory or the leases are told too. They are no
    failure, and keep nothing else from being told; what could not be read because of them is not compared.
  - Fails if a host was not reached or could not tell its status. Drift and lost packets are no failure; M(podnet.overlay.report)
    judges packets.
  - Runs on the controller. Set C(run_once).
extends_documentation_fragment:
  - podnet.overlay.attributes.info
  - podnet.overlay.attributes.action
author:
  - The podnet.overlay contributors (@podnet)
options:
  name:
    description: The overlay's document. Of other documents on a host only what is wrong with them is told.
    type: str
    default: overlay
  group:
    description: The inventory's group of nodes. If all of its hosts are in the play, removed nodes are told of too.
    type: str
    default: overlay
  output:
    description: Tables for people, or the same as JSON.
    type: str
    choices: [text, json]
    default: text
  variable:
    description: The variable that the result of M(podnet.overlay.status) was registered in.
    type: str
    default: podnet_status
  rows:
    description: At most this many lines of each table, those of the nodes with the gravest trouble first.
    type: int
    default: 40
seealso:
  - module: podnet.overlay.status
  - module: podnet.overlay.plan
"""

EXAMPLES = r"""
- name: Tell
  podnet.overlay.status_report:
  run_once: true
"""

RETURN = r"""
version:
  description: The version of this result's form.
  type: int
  returned: success
  sample: 1
summary:
  description: How many nodes are in which state, and what the last probes found.
  type: str
  returned: success
  sample: "2 nodes: 1 ok, 1 drift; 2/2 paths passed when last probed, the oldest probe 5 min ago"
mistakes:
  description: What is wrong with the inventory or the leases, as M(podnet.overlay.plan) says it.
  type: list
  elements: str
  returned: success
  sample: ["node2: overlay_public_ip: 198.51.100.11 is also that of node1; each node needs its own"]
nodes:
  description: A row for each node. O(output=json) prints it also where the task fails.
  type: list
  elements: dict
  returned: success
  contains:
    node:
      description: Its name in the inventory.
      type: str
    state:
      description:
        - V(ok).
        - V(outdated), if its document is not what the leases and the inventory say by now, as that of a host which was not reached
          by the last run. What is compared is its subnet, its public_ip, its MTU, how it sends (the backend, C(overlay_direct_routing),
          of vxlan C(overlay_vni) and C(overlay_port)) and the table of all nodes.
        - V(unconfirmed), if a change waits for the controller to confirm it.
        - V(drift), if the kernel is not as the document says.
        - V(error), if that could not be told. RV(nodes[].reason) says why.
        - V(no overlay), V(unreachable), V(failed).
        - V(removed), by the playbook C(remove.yml) or because the inventory lacks it.
      type: str
    reason:
      description: Why it is V(error), V(unreachable) or V(failed). Empty else.
      type: str
    subnet:
      description: Its subnet as the host says, else as its lease says.
      type: str
    public_ip:
      description: Its underlay address, likewise.
      type: str
    backend:
      description: As the host says.
      type: str
    mtu:
      description: Its pods' MTU.
      type: int
    routes:
      description: How many routes to other nodes its document wants, and how many of them are there as wanted.
      type: dict
    drift:
      description: What is to be done to bring it back to its document, a line for each of the first 100 operations.
      type: list
      elements: str
    drift_count:
      description: How many operations these are.
      type: int
    shadowed:
      description: Foreign routes that take packets from the overlay's, since they are more specific.
      type: list
      elements: str
    unconfirmed:
      description: Seconds until a change is undone that the controller has not confirmed. Else none.
      type: float
    watcher:
      description: Whether it runs, and its counters, as M(podnet.overlay.status) returns them. None where there is none.
      type: dict
    probes:
      description: The last probe of each path and size from this node's pods, with its age in seconds.
      type: list
      elements: dict
    remarks:
      description: What there is to say of the node, in lines.
      type: list
      elements: str
  sample:
    - node: node1
      state: drift
      reason: ""
      subnet: 10.244.0.0/24
      public_ip: 198.51.100.11
      backend: ipip
      mtu: 1480
      routes: {wanted: 1, present: 0}
      drift: [add route 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink proto podnet]
      drift_count: 1
      shadowed: []
      unconfirmed:
      watcher: {running: true, repairs: {route: 2}, failures: 0, held: 0, last_repair: 1795468500.1}
      probes:
        - {from: web@node1, to: db@node2, address: 10.244.1.2, size: 84, sent: 3, received: 3, error: "", age: 312}
      remarks:
        - "drift: add route 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink proto podnet"
        - "watcher: repaired 2 route; last repair 5 min ago"
"""
