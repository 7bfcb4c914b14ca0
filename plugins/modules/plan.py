# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Plan the overlay of a whole fleet, once
version_added: 0.1.0
description:
  - Turns the variables of all hosts of a group, the leases and what M(podnet.overlay.node_info) has found into a small
    document for each host and one table of all nodes. It reads the group and not the hosts of the play, so a run with
    C(--limit) makes no node forget another.
  - Runs on the controller. Set C(run_once), and keep the play's strategy V(linear).
  - All mistakes are reported together, each with host, variable and what to do about it, before any host is changed.
  - A node's subnet is that of C(overlay_subnet), else its lease's, else what the host carries already, else the first
    free one. Without a leases file every host of the group has to answer (or to have C(overlay_subnet) and
    C(overlay_public_ip)), so that a controller that lost the file renumbers nobody.
  - A node that was not reached stays a peer as its lease says. One without a lease is left out, with a warning.
extends_documentation_fragment:
  - podnet.overlay.attributes
  - podnet.overlay.attributes.action
attributes:
  platform:
    description: Operating systems of the hosts.
    platforms: all
author:
  - The podnet.overlay contributors (@podnet)
options:
  name:
    description: Name of the document. What another document owns on a host is foreign to it.
    type: str
    default: overlay
  group:
    description: The inventory's group of nodes.
    type: str
    default: overlay
  state:
    description:
      - V(check) judges the inventory and the leases alone. No host needs to have been contacted.
      - V(present) plans, and writes the leases if they change. It takes the facts of the hosts of the play from the
        variable C(podnet_node), in which the result of M(podnet.overlay.node_info) has to be registered.
      - V(absent) gives up the leases of the hosts of the play.
    type: str
    choices: [check, present, absent]
    default: present
notes:
  - "It reads these variables of the group, which must be the same on every host: C(overlay_network) (10.244.0.0/16),
    C(overlay_subnet_len) (24), C(overlay_backend) (V(ipip), V(vxlan) or V(host-gw)), C(overlay_direct_routing) (false),
    C(overlay_mtu) (auto: the underlay's less the encapsulation), C(overlay_bridge) (cni0), C(overlay_tunnel)
    (flannel.ipip, with vxlan flannel.VNI), C(overlay_vni) (1) and C(overlay_port) (8472) of vxlan, C(overlay_net_conf)
    (Flannel's net-conf.json as text, mapping or file), C(overlay_leases_file) (C(.overlay-leases.yml) in the
    inventory's folder, where relative paths start too)."
  - "And these of each host: C(overlay_public_ip) (else the address of C(overlay_interface), else C(ansible_host) where
    the host has that address, else the source address of its default route), C(overlay_interface), C(overlay_subnet),
    C(overlay_pods) (each with C(name) and, if it is to be a certain one, C(address)), C(overlay_pod_nameservers) (else
    those of the host that a pod can reach), and C(overlay_install) (true), without which a missing package is a mistake."
  - "It warns of the RV(podnet.overlay.node_info#module:obstacles) that M(podnet.overlay.node_info) has found; a fatal one
    is a mistake."
seealso:
  - module: podnet.overlay.node_info
  - module: podnet.overlay.topology
"""

EXAMPLES = r"""
- name: Judge the inventory before any host is contacted
  podnet.overlay.plan:
    state: check
  run_once: true
  register: podnet_check

- name: Look at every host
  podnet.overlay.node_info:
    network: "{{ podnet_check.settings.network }}"
  register: podnet_node

- name: Plan
  podnet.overlay.plan:
  run_once: true
  register: podnet_plan

- name: Bring every host to its document
  podnet.overlay.topology:
    document: "{{ podnet_plan.documents[inventory_hostname] }}"
    peers: "{{ podnet_plan.peers }}"
"""

RETURN = r"""
leases_file:
  description: The path of the leases file.
  type: str
  returned: success
  sample: /srv/fleet/.overlay-leases.yml
settings:
  description: What holds for every node, defaults and C(overlay_net_conf) included.
  type: dict
  returned: success and O(state=check)
  sample:
    network: 10.244.0.0/16
    subnet_len: 24
    backend: ipip
    direct_routing: false
    mtu:
    bridge: cni0
    tunnel: flannel.ipip
    vni: 1
    port: 8472
nodes:
  description: The leases of the inventory's nodes. A node without one, because it never was converged, is not there.
  type: dict
  returned: success and O(state=check)
  sample:
    node1: {subnet: 10.244.0.0/24, public_ip: 198.51.100.11, mtu: 1480, pods: {web: 10.244.0.2}}
peers:
  description: The table of all nodes, from subnet to public_ip, as JSON, for O(podnet.overlay.topology#module:peers).
  type: str
  returned: success and O(state=present)
  sample: '{"10.244.0.0/24":"198.51.100.11","10.244.1.0/24":"198.51.100.12"}'
documents:
  description: For each host of the play that answered its O(podnet.overlay.topology#module:document).
  type: dict
  returned: success and O(state=present)
  sample:
    node1:
      version: 1
      name: overlay
      namespaces:
        - name: web
          files:
            hosts: "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.244.0.1\tnode1\n10.244.0.2\tweb\n"
            resolv.conf: "nameserver 198.51.100.53\n"
      links:
        - {name: cni0, kind: bridge, address: "0a:58:0a:f4:00:01", mtu: 1480, addresses: [10.244.0.1/24]}
        - name: flannel.ipip
          kind: ipip
          mtu: 1480
          addresses: [10.244.0.0/32]
          ipip: {mode: any, local: 198.51.100.11, remote: any, ttl: inherit, tos: 0, pmtudisc: false}
        - name: veth-web
          kind: veth
          mtu: 1480
          master: cni0
          port: {hairpin: true}
          peer: {name: eth0, namespace: web, address: "0a:58:0a:f4:00:02", mtu: 1480, addresses: [10.244.0.2/24]}
      routes:
        - {dst: default, via: 10.244.0.1, dev: eth0, namespace: web}
        - {dst: 10.244.0.0/16, via: 10.244.0.1, dev: eth0, namespace: web}
      sysctls:
        - {name: net.ipv4.ip_forward, value: "1"}
      peers:
        backend: ipip
        subnet: 10.244.0.0/24
        public_ip: 198.51.100.11
        dev: flannel.ipip
        interface: eth1
        underlay: 198.51.100.0/24
        direct_routing: false
        network: 10.244.0.0/16
      firewall: {local: 198.51.100.11, backend: ipip}
probes:
  description:
    - For each host of the play the O(podnet.overlay.ping#module:probes) that prove the overlay. All pairs of pods on
      different nodes up to 2500, else 8 from each pod, spread so that every node is on both sides.
    - With O(state=check) by the leases alone.
  type: dict
  returned: success and O(state) is not V(absent)
  sample: {node1: [{namespace: web, targets: [{address: 10.244.1.2, pod: db, node: node2}]}]}
mtus:
  description: For each host of the play its pods' MTU.
  type: dict
  returned: success and O(state) is not V(absent)
  sample: {node1: 1480, node2: 1480}
"""
