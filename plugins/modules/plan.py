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
      - V(removed) plans as V(present) does, but without O(node), which the leases then keep out. It is refused if hosts of
        the group are not in the play, as under C(--limit), and while pods run on the node.
      - V(absent) gives up the leases of the hosts of the play.
    type: str
    choices: [check, present, removed, absent]
    default: present
  node:
    description:
      - The node that leaves. Required with O(state=removed). With O(state=check) it is judged whether it can.
      - What runs there is taken from its RV(podnet.overlay.node_info#module:pods) in C(podnet_node). A node that was not
        reached may be gone for good, and is removed all the same.
    type: str
    version_added: 0.4.0
  lease:
    description:
      - What becomes of the subnet of the node that leaves. V(keep) reserves it as long as others are free, V(free) lets the next
        new node have it. In both cases its line in the leases file, with the reason V(playbook), keeps the node out.
      - Delete that reason there to let it in again, with the subnet that it had unless that was freed.
    type: str
    choices: [keep, free]
    default: keep
    version_added: 0.4.0
  force:
    description: Remove the node although pods run there.
    type: bool
    default: false
    version_added: 0.4.0
  renumber:
    description:
      - Move the leases to C(overlay_network) where the file is of another one. Each subnet and pod is as far from the network's
        beginning as it was. Without it another network is a mistake.
      - Refused if hosts of the group are not in the play, as under C(--limit), since those would keep their addresses.
    type: bool
    default: false
    version_added: 0.4.0
  move_without:
    description:
      - Finish a move to another backend although nodes were not reached. Those may send by the former backend and take nothing else,
        so no packets pass between them and the others until they have moved too.
      - Without it the others take what both backends bring meanwhile, and send as before.
    type: bool
    default: false
    version_added: 0.4.0
notes:
  - "It reads these variables of the group, which must be the same on every host: C(overlay_network) (10.244.0.0/16),
    C(overlay_subnet_len) (24), C(overlay_subnet_min) and C(overlay_subnet_max) (the first addresses of the first and last
    subnet to be given out; a node that has another keeps it), C(overlay_backend) (V(ipip), V(vxlan) or V(host-gw)),
    C(overlay_direct_routing) (false), C(overlay_mtu) (auto: the underlay's less the encapsulation), C(overlay_bridge)
    (cni0), C(overlay_tunnel) (flannel.ipip, with vxlan flannel.VNI), C(overlay_vni) (1) and C(overlay_port) (8472) of
    vxlan, C(overlay_net_conf) (Flannel's net-conf.json as text, mapping or file, with C(Network), C(SubnetLen),
    C(SubnetMin), C(SubnetMax), C(EnableIPv4) (true), C(EnableIPv6) (false), C(EnableNFTables) (the rules are nftables
    always) and, under C(Backend), C(Type), C(DirectRouting), and of vxlan C(VNI), C(Port) and C(MTU); any other key is
    refused), C(overlay_leases_file) (C(.overlay-leases.yml) in the inventory's folder, where relative paths start too)."
  - "What may pass, of the group too: C(overlay_masquerade) (true: pods reach what is outside of C(overlay_network) with their
    node's address), C(overlay_masquerade_nodes) (true: the nodes' own addresses too, as Flannel), C(overlay_no_masquerade)
    (networks that see pods' addresses), C(overlay_masquerade_random_fully) (true), C(overlay_trusted_sources) (hosts that are
    no nodes and may send through the tunnel, each with C(address) and the inner C(subnets) that it may use),
    C(overlay_antispoof) (true: a pod sends with its own MAC and address only), C(overlay_hairpin) (true: a pod reaches itself
    by a mapped port), C(overlay_policy) (none; as a mapping it isolates every pod that is in a group: it takes new connections
    from its own group, its node, and as C(allow) lists, each with C(to) (a group), C(from) (a group) or C(network),
    C(protocol) (V(tcp), V(udp), V(sctp) or V(icmp)) and C(ports))."
  - "Other programs' containers on the overlay, of the group too: C(overlay_cni), C(overlay_docker) and C(overlay_podman)
    (false). With any of them each node's subnet has four parts of the same size, for C(overlay_pods), CNI's host-local,
    Docker and Podman in this order. C(/run/flannel/subnet.env) is there always."
  - "And these of each host: C(overlay_public_ip) (else the address of C(overlay_interface), else C(ansible_host) where
    the host has that address, else the source address of its default route), C(overlay_interface), C(overlay_subnet),
    C(overlay_pods) (each with C(name) and, if it is to be a certain one, C(address); C(ports), a list of
    C(HOSTPORT:PORT) or C(ADDRESS:HOSTPORT:PORT), with C(/udp) or C(/sctp) where it is not tcp; and C(group), for
    C(overlay_policy)), C(overlay_snat_address) (the address of the host that pods are masqueraded with, else the outgoing
    interface's), C(overlay_pod_nameservers) (else
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

- name: Plan without a node
  podnet.overlay.plan:
    state: removed
    node: node7
  run_once: true
  register: podnet_plan

- name: Bring every host to its document
  podnet.overlay.topology:
    document: "{{ podnet_plan.documents[inventory_hostname] }}"
    peers: "{{ podnet_plan.peers }}"
    groups: "{{ podnet_plan.groups }}"
"""

RETURN = r"""
leases_file:
  description: The path of the leases file.
  type: str
  returned: success
  sample: /srv/fleet/.overlay-leases.yml
engine:
  description:
    - The digest of the engine that is to stay on the hosts, which M(podnet.overlay.node_info) compares with what is there.
  type: str
  returned: success and O(state=check)
  sample: 6f0c9f0e6f3c1f4b
  version_added: 0.4.0
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
    subnet_min:
    subnet_max:
    masquerade: true
    masquerade_nodes: true
    masquerade_random_fully: true
    no_masquerade: [192.0.2.0/24]
    trusted_sources: [{address: 203.0.113.9, subnets: [10.250.0.0/24]}]
    antispoof: true
    hairpin: true
    policy: [{to: database, from: web, network: null, protocol: tcp, ports: ["5432"]}]
    cni: false
    docker: false
    podman: false
kept_out:
  description: The nodes of the inventory that V(removed) has taken out. There is nothing to do on them.
  type: list
  elements: str
  returned: success and O(state=check)
  version_added: 0.4.0
  sample: []
node:
  description: O(node), and with it RV(lease) and RV(force), for the tasks that follow.
  type: str
  returned: success, O(state=check) and O(node)
  version_added: 0.4.0
  sample: node7
lease:
  description: O(lease).
  type: str
  returned: success, O(state=check) and O(node)
  version_added: 0.4.0
  sample: keep
force:
  description: O(force).
  type: bool
  returned: success, O(state=check) and O(node)
  version_added: 0.4.0
  sample: false
nodes:
  description: The leases of the inventory's nodes. A node without one, because it never was converged, is not there.
  type: dict
  returned: success and O(state=check)
  sample:
    node1: {subnet: 10.244.0.0/24, public_ip: 198.51.100.11, mtu: 1480, pods: {web: 10.244.0.2}}
peers:
  description: The table of all nodes, from subnet to public_ip, as JSON, for O(podnet.overlay.topology#module:peers).
  type: str
  returned: success and O(state=present) or O(state=removed)
  sample: '{"10.244.0.0/24":"198.51.100.11","10.244.1.0/24":"198.51.100.12"}'
groups:
  description:
    - The addresses of each group's pods on all nodes, as JSON, for O(podnet.overlay.topology#module:groups). Empty without
      C(overlay_policy).
  type: str
  returned: success and O(state=present) or O(state=removed)
  version_added: 0.3.0
  sample: '{"database":["10.244.1.2"],"web":["10.244.0.2","10.244.2.2"]}'
documents:
  description: For each host of the play that answered its O(podnet.overlay.topology#module:document).
  type: dict
  returned: success and O(state=present) or O(state=removed)
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
        - {name: net.ipv4.conf.cni0.route_localnet, value: "1"}
      files:
        - path: /run/flannel/subnet.env
          content: |
            FLANNEL_NETWORK=10.244.0.0/16
            FLANNEL_SUBNET=10.244.0.1/24
            FLANNEL_MTU=1480
            FLANNEL_IPMASQ=true
          mode: "0644"
      peers:
        backend: ipip
        subnet: 10.244.0.0/24
        public_ip: 198.51.100.11
        dev: flannel.ipip
        interface: eth1
        underlay: 198.51.100.0/24
        direct_routing: false
        network: 10.244.0.0/16
      firewall:
        backend: ipip
        bridge: cni0
        network: 10.244.0.0/16
        subnet: 10.244.0.0/24
        local: 198.51.100.11
        tunnel: flannel.ipip
        trusted_sources: [{address: 203.0.113.9, subnets: [10.250.0.0/24]}]
        masquerade: {nodes: true, except: [192.0.2.0/24], random_fully: true, address: null}
        antispoof: true
        pods:
          - {name: web, interface: veth-web, mac: "0a:58:0a:f4:00:02", address: 10.244.0.2, group: web}
        ports:
          - {pod: web, address: 10.244.0.2, port: 80, protocol: tcp, host_port: 8080, host_address: null}
        policy:
          - {to: database, from: web, network: null, protocol: tcp, ports: ["5432"]}
steps:
  description:
    - The RV(documents) that all hosts have in turn before those, where C(overlay_backend) or C(overlay_direct_routing) has changed.
      First each takes what both bring and sends as before, then each sends by the new one. So no packet is lost in between.
    - Empty where nothing of that has changed, where both cannot be on a host at a time, and where the move waits for a node that
      was not reached. Then RV(documents) are those of the first step.
  type: list
  elements: dict
  returned: success and O(state=present) or O(state=removed)
  version_added: 0.4.0
  sample: []
probes:
  description:
    - For each host of the play the O(podnet.overlay.ping#module:probes) that prove the overlay. All pairs of pods on
      different nodes up to 2500, else 8 from each pod, spread so that every node is on both sides.
    - With O(state=check) by the leases alone, and for no host of RV(kept_out).
  type: dict
  returned: success and O(state) is not V(absent)
  sample: {node1: [{namespace: web, targets: [{address: 10.244.1.2, pod: db, node: node2}]}]}
mtus:
  description: For each host of the play its pods' MTU.
  type: dict
  returned: success and O(state) is not V(absent)
  sample: {node1: 1480, node2: 1480}
"""
