# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: trace
short_description: Show a packet's path hop by hop, and where it breaks
version_added: 0.2.0
description:
  - Joins what M(podnet.overlay.walk) registered on each host of a path, checks that what leaves the one host is what the
    other takes in, prints the path, and fails if it is broken or a host did not tell. A path in doubt does not fail.
  - Where M(podnet.overlay.capture) and M(podnet.overlay.ping) have registered something too, it lays each frame beside the
    hop that it was seen at, tells where the probe was lost and why, and writes C(.pcap) files.
  - Runs on the controller. Set C(run_once).
extends_documentation_fragment:
  - podnet.overlay.attributes.info
  - podnet.overlay.attributes.action
attributes:
  check_mode:
    details:
      - Prints the path. Writes no C(.pcap) files in check mode.
author:
  - The podnet.overlay contributors (@podnet)
options:
  flow:
    description:
      - The ends, hosts and order of the path, as M(podnet.overlay.flow) returns them.
      - By hand it needs C(from), C(to), C(source), C(destination), C(size), C(df), C(nodes), C(order) and C(packets). For one
        host C(nodes) is C([inventory_hostname]), as is each leg of C(order), and C(packets) has what was walked there.
    type: dict
    required: true
  output:
    description: V(text) for people. V(json) prints what is returned as one indented JSON object.
    type: str
    choices: [text, json]
    default: text
  dest:
    description:
      - Folder on the controller for the C(.pcap) files, one for each host and interface. It is made.
      - By default C(trace-FROM-TO) where C(ansible-playbook) was started. Only with a capture.
    type: path
  walk:
    description: The variable that the result of M(podnet.overlay.walk) was registered in.
    type: str
    default: podnet_walk
  started:
    description: The same for M(podnet.overlay.capture) with O(podnet.overlay.capture#module:state=started).
    type: str
    default: podnet_started
  capture:
    description: The same for M(podnet.overlay.capture) with O(podnet.overlay.capture#module:state=stopped).
    type: str
    default: podnet_capture
  ping:
    description: The same for M(podnet.overlay.ping), on the first host of O(flow).
    type: str
    default: podnet_ping
seealso:
  - module: podnet.overlay.flow
  - module: podnet.overlay.walk
  - module: podnet.overlay.capture
  - module: podnet.overlay.ping
"""

EXAMPLES = r"""
- name: Walk a path on one host
  podnet.overlay.walk:
    packets: &packets
      - {name: request, namespace: ns1, src: 10.1.1.2, dst: 10.1.1.3}
      - {name: reply, namespace: ns2, src: 10.1.1.3, dst: 10.1.1.2, reply: true}
  register: podnet_walk

- name: Tell it
  vars:
    packets: *packets
  podnet.overlay.trace:
    flow:
      from: ns1
      to: ns2
      source: 10.1.1.2
      destination: 10.1.1.3
      size: 84
      df: true
      nodes: ["{{ inventory_hostname }}"]
      order: {request: ["{{ inventory_hostname }}"], reply: ["{{ inventory_hostname }}"]}
      packets: "{{ {inventory_hostname: packets} }}"
  run_once: true
"""

RETURN = r"""
works:
  description:
    - Whether the packet arrives, and its answer too. None where it is in doubt, as when a rule may drop it.
    - If all probes were answered the path works, whatever is explained, unless C(duplicate_address) makes that chance.
  type: bool
  returned: success or O(output=json)
  sample: true
verdict:
  description: The outcome in a line, with its doubts. The same as C(msg) on failure.
  type: str
  returned: success or O(output=json)
  sample: "web@node1 reaches db@node2 and back: path MTU 1480, TTL 62 at the end, 3 of 3 probes answered, 1.20 ms"
problems:
  description:
    - What is wrong, in the order of the path. It ends at the first that is C(fatal).
    - docs/operations/trace-a-path.md has a table of all C(fault) words.
  type: list
  elements: dict
  returned: always
  sample:
    - leg: request
      node: node1
      number: 4
      where: flannel.ipip
      fault: tunnel_down
      reason: "the tunnel flannel.ipip is down, and its routes went with it: 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink"
      remedy: run overlay.yml again, which brings it back
      fatal: true
legs:
  description: C(request) and C(reply).
  type: dict
  returned: success or O(output=json)
  contains:
    end:
      description:
        - V(delivered); V(left), to whom is not known, or the overlay; V(translated) by a rule into what is not known; V(broken);
          or V(unknown), where a host did not tell.
      type: str
    path_mtu:
      description: The largest IP packet that passes.
      type: int
    ttl:
      description: Time to live at the last hop.
      type: int
    hops:
      description:
        - The hops in order, each as the RV(podnet.overlay.walk#module:walks) have it, with C(number), C(node) and C(seen).
        - "C(seen) is none or the probe's frame there: C(time), C(since_ms) from its first one on that host, C(length), C(ttl) and
          C(text) in tcpdump's manner."
      type: list
      elements: dict
  sample:
    request:
      end: delivered
      path_mtu: 1480
      ttl: 62
      hops:
        - number: 1
          node: node1
          namespace: web
          interface: eth0
          kind: veth
          does: sends
          length: 98
          mtu: 1480
          mtu_left: 1396
          packet: {src: 10.244.0.2, dst: 10.244.1.3, protocol: icmp, ttl: 64, length: 84, df: true, inner: null}
          problems: []
          seen:
            time: 1784637243.636646
            since_ms: 0.0
            length: 98
            ttl: 64
            text: "11:54:03.636646 0a:58:0a:f4:00:02 > 0a:58:0a:f4:00:01, ethertype IPv4 (0x0800), length 98: ..."
silent:
  description: The hosts that did not tell, and why.
  type: dict
  returned: always
  sample: {}
probe:
  description: What M(podnet.overlay.ping) said of the path, or none.
  type: dict
  returned: success or O(output=json)
underlay:
  description: What it said of the way between the hosts' public_ip, or none.
  type: dict
  returned: success or O(output=json)
errors:
  description: ICMP errors about the probe, with who sent them.
  type: list
  elements: str
  returned: success or O(output=json)
  sample: ["packet of 1480 bytes exceeds path MTU 1400, says 198.51.100.1"]
notes:
  description: What else is worth knowing, as frames that the capture had no room for.
  type: list
  elements: str
  returned: success or O(output=json)
  sample: []
pcaps:
  description: The files written.
  type: list
  elements: str
  returned: always
  sample: [/srv/fleet/trace-web@node1-db@node2/node1-web-eth0.pcap]
"""
