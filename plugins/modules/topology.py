#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: topology
short_description: Bring a host's network to a document in one call
description:
  - A document names namespaces, links, addresses, routes, neighbours, forwarding entries, sysctls, files and the firewall,
    in the words of ip-link(8), ip-route(8) and bridge(8). This module makes them so, and changes only what differs.
  - What it makes it marks as the document's own, visibly in the kernel. Links carry the alias C(podnet.overlay:NAME), namespaces carry it
    on their C(lo), routes have the protocol 244 (C(podnet)), and the rules live in the nftables table C(inet podnet_overlay).
  - Something foreign in the way (a link, a namespace, a route of the same destination, table and metric, a table) is an error that says
    whose it looks like, and nothing is changed, unless O(adopt=true).
  - When the kernel refuses a change, everything that this run did before is undone.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.attributes
options:
  name:
    description:
      - Name of the document. Two documents on one host never touch each other's objects.
    type: str
    default: overlay
  state:
    description:
      - V(present) brings the host to O(document).
      - V(absent) removes all that the document of this O(name) owns and writes back the sysctls that it changed. Forwarding stays on
        where something else on the host needs it by now, with a warning that says what.
      - V(confirmed) keeps the last change of the document, which O(confirm_timeout) would undo. The controller does that by itself after
        a change, unless the task is C(async).
    type: str
    choices: [present, absent, confirmed]
    default: present
  document:
    description:
      - What should be there. Required with O(state=present). What is not named of a link is left as it is.
      - The order does not matter. An address without a length is a C(/32).
    type: dict
    suboptions:
      version:
        description: Version of the document's format. This release knows V(1).
        type: int
        default: 1
      name:
        description: For readers. The option O(name) decides.
        type: str
      namespaces:
        description:
          - Named network namespaces. Each has C(name), and C(files), a mapping from a file's name to its text, which
            C(ip netns exec) shows under C(/etc) (V(resolv.conf), V(hosts)).
        type: list
        elements: dict
      links:
        description:
          - Interfaces. Each has C(name), C(kind) (V(bridge), V(veth), V(ipip) or V(vxlan)), and may have C(namespace), C(up), C(mtu),
            C(address) (the MAC), C(master), C(addresses), C(port) (C(hairpin), C(isolated), C(learning), C(priority), C(cost)).
          - A V(veth) has C(peer) with the same keys. The others have their options under the name of their kind,
            C(bridge) (C(stp), C(ageing_time), C(forward_delay), C(hello_time), C(max_age), C(priority), C(vlan_filtering),
            C(no_linklocal_learn)),
            C(ipip) (C(mode), C(local), C(remote), C(ttl), C(tos), C(pmtudisc), C(link)),
            C(vxlan) (C(id), C(local), C(link), C(port), C(learning)).
          - C(external=true) names a link that is only referred to. It must be there and is never changed.
        type: list
        elements: dict
      routes:
        description:
          - IPv4 routes with C(dst) (V(default) too), C(via), C(dev), C(onlink), C(table), C(metric), C(src), C(mtu), C(type), C(protocol),
            C(namespace).
        type: list
        elements: dict
      neighbours:
        description: Permanent neighbours with C(dst), C(lladdr), C(dev), C(namespace).
        type: list
        elements: dict
      fdb:
        description: Forwarding entries of vxlan devices with C(lladdr), C(dev), C(dst), C(namespace).
        type: list
        elements: dict
      sysctls:
        description:
          - Sysctls with C(name), C(value), C(namespace). The values from before are written back by O(state=absent), of those that
            other documents need as they are by the last of these.
        type: list
        elements: dict
      files:
        description: Files of the host, whole, with C(path), C(content) and C(mode) (V("0644")). They are removed with the document.
        type: list
        elements: dict
        version_added: 0.3.0
      firewall:
        description:
          - What may pass, in the nftables tables C(inet podnet_overlay) and C(bridge podnet_overlay), written in one transaction.
          - C(backend) (V(ipip), V(vxlan) or V(host-gw)), C(local) (the tunnel's own address), C(tunnel) (its device), C(vni) and C(port)
            of vxlan, C(bridge), C(network), C(subnet) (this node's). C(peers) maps each other node's subnet to its address; those of
            O(peers) are added. From C(tunnel) only packets of peers are taken, each with a source in its own subnet; with
            C(direct_routing) they may come without it. Both are those of C(peers) if not given.
          - C(also), another backend whose packets are taken too, with C(backend), C(local), C(tunnel), C(vni), C(port) and
            C(direct_routing), for nodes that move from one to the other.
          - C(trusted_sources), hosts that are no nodes, each with C(address) and the C(subnets) that it may send from.
          - C(masquerade) with C(nodes), C(except) (networks), C(random_fully) and C(address) (a fixed source). Without it nothing is
            masqueraded.
          - C(antispoof), whether each of C(pods) (C(name), C(interface), C(mac), C(address), C(group)) is held to its own address and MAC.
          - C(ports), port mappings with C(pod), C(address), C(port), C(protocol), C(host_port) and C(host_address).
          - C(policy), a list of what pods in groups take besides their own group and node, each with C(to), C(from), C(network),
            C(protocol) and C(ports); without it there is no isolation. C(groups) are the members of each group, to which those of
            O(groups) are added.
          - C(nft) in place of all that are the tables themselves, in nft's own JSON, as M(podnet.overlay.topology_info) returns them.
        type: dict
      peers:
        description:
          - How this node reaches the others of O(peers), with C(backend) (V(ipip), V(vxlan), V(host-gw)), C(subnet) and
            C(public_ip) of this node, C(dev) (the tunnel), C(interface) and C(underlay) (the network there), C(direct_routing),
            C(network), C(table).
        type: dict
  peers:
    description:
      - The table of all nodes, from subnet to public_ip, the same for every host. The document's C(peers) says what becomes of it.
    type: dict
  groups:
    description:
      - The members of each group of pods, a list of addresses, the same for every host. The document's C(firewall) uses those that its
        C(policy) names.
    type: dict
    version_added: 0.3.0
  confirm_timeout:
    description:
      - Seconds after which the host undoes a change by itself, unless the controller confirms it over a new connection. V(0) for never.
      - The time begins anew when the change is made, and the controller confirms at once, whatever other hosts do. Where it cannot, the
        task fails. What the host goes back to is the document that was confirmed last, or none. A reboot undoes an unconfirmed change
        too. Any run without this confirms, since it has reached the host.
      - It needs what the role P(podnet.overlay.node#role) installs.
    type: int
    default: 0
    version_added: 0.4.0
  namespace:
    description: The namespace of objects that name none. Empty is the host's own.
    type: str
    default: ""
  purge:
    description: Remove what this document owns and no longer names.
    type: bool
    default: true
  adopt:
    description:
      - Take over foreign objects of the same name (or route of the same destination) instead of failing. Never another document's.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: A bridge with one pod and a tunnel to one other node
  podnet.overlay.topology:
    name: overlay
    document:
      namespaces:
        - name: web
      links:
        - name: cni0
          kind: bridge
          mtu: 1480
          addresses: [10.244.0.1/24]
        - name: veth-web
          kind: veth
          master: cni0
          port: {hairpin: true}
          peer: {name: eth0, namespace: web, mtu: 1480, addresses: [10.244.0.2/24]}
        - name: flannel.ipip
          kind: ipip
          mtu: 1480
          ipip: {local: 198.51.100.11, pmtudisc: false}
          addresses: [10.244.0.0/32]
      routes:
        - {dst: 10.244.1.0/24, via: 198.51.100.12, dev: flannel.ipip, onlink: true}
        - {dst: default, via: 10.244.0.1, dev: eth0, namespace: web}
      sysctls:
        - {name: net.ipv4.ip_forward, value: "1"}

- name: The host as before
  podnet.overlay.topology:
    name: overlay
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - add namespace web
    - add firewall podnet_overlay with 21 rules and 14 elements of sets
    - change sysctl net.ipv4.ip_forward = 1
    - add link cni0 kind bridge up mtu 1480 address 0a:58:0a:f4:00:01
    - add link flannel.ipip kind ipip up mtu 1480 local 198.51.100.11 remote any ttl inherit tos 0 pmtudisc off mode any
    - add address 10.244.0.0/32 dev flannel.ipip
    - add route 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink proto podnet
unconfirmed:
  description: Whether a change still waits to be confirmed, as after a task that is C(async).
  returned: success and O(confirm_timeout) is not V(0)
  type: bool
  version_added: 0.4.0
  sample: false
mistakes:
  description: Each thing that is wrong with the document or in its way.
  returned: when the input or the host's state does not allow the document
  type: list
  elements: str
  sample:
    - "link cni0 is there already and not ours (it looks like the bridge of a CNI plugin (Kubernetes, k3s)): remove it, choose
      another name, or take it over with adopt: true"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils import _rollback
from ansible_collections.podnet.overlay.plugins.module_utils._engine import confirm
from ansible_collections.podnet.overlay.plugins.module_utils._model import State, document_name
from ansible_collections.podnet.overlay.plugins.module_utils._module import NAMESPACE, STATE, guarded, run
from ansible_collections.podnet.overlay.plugins.module_utils._state import desired_state

LIST = {"type": "list", "elements": "dict"}
DOCUMENT = {
    "version": {"type": "int", "default": 1},
    "name": {"type": "str"},
    "namespaces": LIST,
    "links": LIST,
    "routes": LIST,
    "neighbours": LIST,
    "fdb": LIST,
    "sysctls": LIST,
    "files": LIST,
    "firewall": {"type": "dict"},
    "peers": {"type": "dict"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "overlay"},
            "state": {**STATE, "choices": ["present", "absent", "confirmed"]},
            "document": {"type": "dict", "options": DOCUMENT},
            "peers": {"type": "dict"},
            "groups": {"type": "dict"},
            "confirm_timeout": {"type": "int", "default": 0},
            "namespace": NAMESPACE,
            "purge": {"type": "bool", "default": True},
            "adopt": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["document"])],
        supports_check_mode=True,
    )
    params = module.params
    document = {key: value for key, value in (params["document"] or {}).items() if value is not None}
    if params["namespace"]:
        document["namespace"] = params["namespace"]
    if params["peers"] is not None and document.get("peers"):
        document["peers"] = {**document["peers"], "table": params["peers"]}
    if params["groups"] and (document.get("firewall") or {}).get("policy") is not None:
        document["firewall"] = {
            **document["firewall"],
            "groups": {**(document["firewall"].get("groups") or {}), **params["groups"]},
        }

    owner = guarded(module, lambda: document_name(params["name"]))
    if params["state"] == "confirmed":
        waiting = guarded(module, lambda: owner in _rollback.names() if module.check_mode else confirm(owner))
        module.exit_json(changed=waiting, operations=[])

    def read() -> State:
        return desired_state(document, params["name"])

    run(
        module,
        read,
        owner=owner,
        document=document if params["state"] == "present" else None,
        purge=params["purge"] or params["state"] == "absent",
        adopt=params["adopt"],
        confirm_timeout=params["confirm_timeout"],
    )


if __name__ == "__main__":
    main()
