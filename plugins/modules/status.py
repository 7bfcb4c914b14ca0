#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: How a host's overlay is
version_added: 0.4.0
description:
  - Compares each document that the host keeps with the kernel, and returns that with the watcher's counters and the results that
    M(podnet.overlay.ping) has recorded. C(podnet-overlay status --json) on the host prints the same.
  - Drift is a result, not a failure. A host without an overlay has no documents, and does not need pyroute2.
author:
  - The podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.attributes.info
seealso:
  - module: podnet.overlay.status_report
  - module: podnet.overlay.topology
  - module: podnet.overlay.ping
"""

EXAMPLES = r"""
- name: Look at the host
  podnet.overlay.status:
  register: podnet_status

- name: Is there drift?
  ansible.builtin.debug:
    msg: "{{ podnet_status.documents | map(attribute='drift') | flatten }}"
"""

RETURN = r"""
version:
  description: The version of this result's form.
  type: int
  returned: success
  sample: 1
hostname:
  description: The host's own name.
  type: str
  returned: success
  sample: node1
time:
  description: The host's clock, in seconds since 1970, as all times here.
  type: float
  returned: success
  sample: 1795468800.2
documents:
  description: The documents that M(podnet.overlay.topology) has brought to the host.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The document's name.
      type: str
    backend:
      description: The overlay's backend; as the following seven empty or none where the document is no overlay's.
      type: str
    also:
      description: The other backend whose packets the host takes, while nodes move from one to the other.
      type: str
    network:
      description: The overlay's network.
      type: str
    subnet:
      description: The host's subnet of it.
      type: str
    public_ip:
      description: Its underlay address.
      type: str
    peers_digest:
      description: What tells the document's table of all nodes, with their subnets and addresses, from another one.
      type: str
    mtu:
      description: MTU of the overlay's bridge, and so of its pods.
      type: int
    sends:
      description: By which backend the host sends, as in RV(podnet.overlay.node_info#module:carries).
      type: dict
    routes:
      description: How many routes of the host itself the document wants, C(wanted), and how many are there as it says, C(present).
      type: dict
    drift:
      description: What is to be done to bring the kernel back to the document, a line for each of the first 100 operations.
      type: list
      elements: str
    drift_count:
      description: How many operations these are.
      type: int
    shadowed:
      description: The first 100 foreign routes that take packets from the document's, since they are more specific. They are not removed.
      type: list
      elements: str
    unconfirmed:
      description: Seconds until the last change is undone if nobody confirms it. None where none waits.
      type: float
    error:
      description: Why it could not be told. Empty else.
      type: str
  sample:
    - name: overlay
      backend: ipip
      also: ""
      network: 10.244.0.0/16
      subnet: 10.244.0.0/24
      public_ip: 198.51.100.11
      peers_digest: 5aed56fa17a6e341
      mtu: 1480
      sends: {backend: ipip, tunnel: flannel.ipip, direct_routing: false, vni: null, port: null}
      routes: {wanted: 2, present: 1}
      drift: [add route 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink proto podnet]
      drift_count: 1
      shadowed: []
      unconfirmed:
      error: ""
watcher:
  description: The watcher, or none where the host has none.
  type: dict
  returned: success
  contains:
    running:
      description: Whether its unit is active.
      type: bool
    repairs:
      description: How many objects of each kind it has repaired since it was started.
      type: dict
    failures:
      description: How many repairs have failed.
      type: int
    held:
      description: How many objects it leaves alone just now, since something keeps undoing their repair.
      type: int
    last_repair:
      description: When the last repair was. None where none was.
      type: float
  sample: {running: true, repairs: {route: 2, link: 1}, failures: 0, held: 0, last_repair: 1795468500.1}
probes:
  description: What the last M(podnet.overlay.ping) with O(podnet.overlay.ping#module:record=true) has found on each path with each size.
  type: list
  elements: dict
  returned: success
  sample:
    - {namespace: web, address: 10.244.1.2, pod: db, node: node2, size: 84, sent: 3, received: 3, error: "", time: 1795468488.5}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _status
from ..module_utils._module import guarded


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, **guarded(module, _status.read))


if __name__ == "__main__":
    main()
