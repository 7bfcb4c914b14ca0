# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Judge the pings of all nodes and show them as a table
version_added: 0.1.0
description:
  - Gathers what M(podnet.overlay.ping) registered on each host of the play, prints a table, and fails if anything was
    lost, if a host could not be reached or if there was nothing to judge.
  - Runs on the controller. Set C(run_once).
extends_documentation_fragment:
  - podnet.overlay.attributes.info
  - podnet.overlay.attributes.action
author:
  - The podnet.overlay contributors (@podnet)
options:
  probes:
    description:
      - For each host the paths that were to be tried, as in the O(podnet.overlay.ping#module:probes) of
        M(podnet.overlay.ping). M(podnet.overlay.plan) returns it.
    type: dict
    required: true
  variable:
    description: The variable that the result of M(podnet.overlay.ping) was registered in.
    type: str
    default: podnet_ping
  rows:
    description: Above this number of paths only the losses and a line per node are shown, this many at most of each.
    type: int
    default: 40
seealso:
  - module: podnet.overlay.ping
  - module: podnet.overlay.plan
"""

EXAMPLES = r"""
- name: Show and judge
  podnet.overlay.report:
    probes: "{{ podnet_plan.probes }}"
  run_once: true
"""

RETURN = r"""
summary:
  description: The verdict in a line.
  type: str
  returned: always
  sample: 6 of 6 paths, 1480 bytes with DF, 0 lost
lost:
  description: Number of packets that were not answered.
  type: int
  returned: always
  sample: 0
silent:
  description: The hosts without a result, and why.
  type: dict
  returned: always
  sample: {}
losses:
  description: What is wrong, a line for each path and size.
  type: list
  elements: str
  returned: failure
  sample:
    - "web@node1 to db@node2 10.244.1.2, 1480 bytes: 3 of 3 lost, no answer"
rows:
  description: The table.
  type: list
  elements: dict
  returned: success
  sample:
    - from: web@node1
      to: db@node2
      address: 10.244.1.2
      sizes: {"84": {sent: 3, received: 3}, "1480": {sent: 3, received: 3}}
      ttl: 62
      rtt_ms: 1.204
"""
