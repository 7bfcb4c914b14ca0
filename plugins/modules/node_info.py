# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Read what the overlay's plan must know of a host
version_added: 0.1.0
description:
  - Reads a host's addresses, links, namespaces, routes, what its kernel can do, what it lacks, what stands in the way
    and what it carries already.
  - Changes nothing and does not need pyroute2, so it is the first task on a host. M(podnet.overlay.plan) takes its
    result.
  - Where the host has no module tree for its kernel, as in a container, it finds out what the kernel can do by making a
    link in a network namespace that ends with the task.
extends_documentation_fragment:
  - podnet.overlay.attributes.info
author:
  - The podnet.overlay contributors (@podnet)
options:
  name:
    description: The document to look for on the host.
    type: str
    default: overlay
  backend:
    description:
      - The overlay's backend, which decides what RV(missing) has to name.
    type: str
    choices: [ipip, vxlan, host-gw]
    default: ipip
  network:
    description:
      - The overlay's network in CIDR notation. Foreign routes inside it are returned as RV(routes), else none.
    type: str
  bridge:
    description: The overlay's bridge, from whose address the subnet is read if the host lost its saved state.
    type: str
    default: cni0
  tunnel:
    description: The overlay's tunnel device, likewise. Any that the document owns if not given.
    type: str
  namespaces:
    description: Names of the network namespaces to report on. All if not given.
    type: list
    elements: str
  pods:
    description:
      - Tell what runs in the overlay's pods, as RV(pods). It takes root, who alone may see where a process is.
    type: bool
    default: false
    version_added: 0.4.0
  engine:
    description:
      - The digest of the engine that is to stay on the host, as M(podnet.overlay.plan) returns it. Where another one or none is
        installed, or its units are not enabled as wanted, RV(missing) has C(file:engine). Not looked at if not given.
    type: str
    version_added: 0.4.0
  watch:
    description: Whether the watcher is to be enabled.
    type: bool
    default: true
    version_added: 0.4.0
requirements:
  - iproute2 4.18 or newer (C(ip -json -batch))
seealso:
  - module: podnet.overlay.plan
  - module: podnet.overlay.topology
"""

EXAMPLES = r"""
- name: Look at every host of the overlay
  podnet.overlay.node_info:
    network: 10.244.0.0/16
  register: podnet_node

- name: Say what is missing
  ansible.builtin.debug:
    var: podnet_node.missing
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
kernel:
  description: The kernel's release.
  type: str
  returned: success
  sample: 6.1.0-32-cloud-amd64
os_family:
  description: V(Debian), V(RedHat), V(Suse), V(Archlinux) or empty.
  type: str
  returned: success
  sample: Debian
privileged:
  description: Whether the task ran as root.
  type: bool
  returned: success
  sample: true
python:
  description: The interpreter that ran this task.
  type: str
  returned: success
  sample: /usr/bin/python3.11
pyroute2:
  description: The version of pyroute2 that this interpreter has, or none.
  type: str
  returned: success
  sample: 0.7.2
nft:
  description: The version of nftables, or none.
  type: str
  returned: success
  sample: 1.0.6
addresses:
  description: The host's IPv4 addresses, but for those of link scope, with the MTU of their interface.
  type: list
  elements: dict
  returned: success
  contains:
    interface:
      description: Name of the link.
      type: str
    address:
      description: Address and prefix length.
      type: str
    mtu:
      description: MTU of the link in bytes.
      type: int
  sample:
    - {interface: lo, address: 127.0.0.1/8, mtu: 65536}
    - {interface: eth1, address: 198.51.100.11/24, mtu: 1500}
default_route:
  description: Interface and source address of the preferred default route of the main table, or none.
  type: dict
  returned: success
  sample: {interface: eth0, source: 10.0.2.15}
listening:
  description:
    - The ports that processes of the host listen on, with C(protocol) (V(tcp), V(udp) or V(sctp)), C(address) and C(port), so
      that no port mapping takes them. V(::) is any address, as V(0.0.0.0) is; other IPv6 addresses are not there.
  type: list
  elements: dict
  returned: success
  version_added: 0.3.0
  sample: [{protocol: tcp, address: 0.0.0.0, port: 22}, {protocol: udp, address: 127.0.0.53, port: 53}]
backends:
  description: The overlay's backends and whether this host's kernel can do them; none where that is unknown.
  type: dict
  returned: success
  sample: {host-gw: true, ipip: true, vxlan: true}
missing:
  description:
    - What the host still needs for this backend. Empty on a host that is ready.
    - V(pyroute2) and V(nftables) are packages, C(module:NAME) is a kernel module to load, C(boot:NAME) one to name in
      C(/etc/modules-load.d/podnet-overlay.conf) (all of them if one is not there), C(kernel:NAME) one that the kernel's
      main package lacks and an extra package of this distribution may bring, C(file:rt_protos) the name of the
      overlay's routes for C(ip route), C(file:engine) what brings the overlay back after a reboot and repairs it.
  type: list
  elements: str
  returned: success
  sample: [pyroute2, module:ipip, boot:ipip, boot:bridge, boot:veth, file:rt_protos]
loaded:
  description: The kernel modules that the role P(podnet.overlay.node#role) has loaded.
  type: list
  elements: str
  returned: success
  sample: [ipip]
links:
  description: All links of the host's own namespace.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name of the link.
      type: str
    kind:
      description: C(bridge), C(veth), C(ipip) and so on; empty for hardware and C(lo).
      type: str
    owner:
      description: Name of the document that owns the link, or empty.
      type: str
    alias:
      description: The link's alias.
      type: str
    mtu:
      description: MTU in bytes.
      type: int
    local:
      description: Local address of a tunnel, or empty.
      type: str
    addresses:
      description: IPv4 addresses with prefix length.
      type: list
      elements: str
  sample:
    - name: flannel.ipip
      kind: ipip
      owner: overlay
      alias: podnet.overlay:overlay
      mtu: 1480
      local: 198.51.100.11
      addresses: [10.244.0.0/32]
namespaces:
  description: The named network namespaces and the document that owns each, or empty.
  type: list
  elements: dict
  returned: success
  sample: [{name: web, owner: overlay}]
routes:
  description: Routes of the main table that lie inside O(network) and are not the overlay's own by their protocol.
  type: list
  elements: dict
  returned: success
  sample: [{dst: 10.244.0.0/24, via: null, dev: cni0, protocol: kernel, metric: 0}]
carries:
  description:
    - What the host carries already, from its saved state, else from the links that the document owns, then without pods and
      C(sends) and what follows. None if it carries nothing.
    - C(sends) says by which backend the host sends, C(also) which other one's packets it takes while the fleet moves from one to
      the other, C(loosened) on which interfaces the document sets C(rp_filter).
  type: dict
  returned: success
  sample:
    network: 10.244.0.0/16
    subnet: 10.244.0.0/24
    public_ip: 198.51.100.11
    backend: ipip
    pods: {web: 10.244.0.2}
    sends: {backend: ipip, tunnel: flannel.ipip, direct_routing: false, vni: null, port: null}
    also:
    loosened: []
strict:
  description:
    - The interfaces with an IPv4 address whose reverse path filter (C(rp_filter)) is strict, and V(default) if that of a new one is.
  type: list
  elements: str
  returned: success
  version_added: 0.4.0
  sample: [default, eth1]
pods:
  description:
    - The document's own namespaces in which processes run, with their number, and the ports of O(bridge) that are not the
      document's, as containers have, without a number.
  type: list
  elements: dict
  returned: success and O(pods=true)
  version_added: 0.4.0
  sample: [{name: web, processes: 3}, {name: veth1a2b3c4, processes: null}]
resolv_conf:
  description: A resolv.conf for pods, with those of the host's nameservers that a pod can reach and its search list.
  type: str
  returned: success
  sample: "nameserver 198.51.100.53\nsearch example.com\n"
obstacles:
  description:
    - What may keep packets from passing, or tasks on the host from working, such as a kernel module that modprobe.d(5) or
      C(kernel.modules_disabled) keeps from being loaded.
    - What Docker, firewalld and ufw do not forward is none, since M(podnet.overlay.topology) has that accepted in each by its own
      means.
  type: list
  elements: dict
  returned: success
  contains:
    what:
      description: The finding.
      type: str
    why:
      description: What it does to the overlay.
      type: str
    remedy:
      description: What to do about it.
      type: str
    fatal:
      description: Whether no task can bring the overlay to the host before that is done.
      type: bool
  sample:
    - what: nft chain ip filter FORWARD, which looks like that of kube-proxy, has policy drop
      why: packets to and from pods are forwarded, and an accept in another table does not help
      remedy: accept the overlay's network there, as source and as destination
      fatal: false
"""

import ipaddress

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _node


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "overlay"},
            "backend": {"type": "str", "choices": ["ipip", "vxlan", "host-gw"], "default": "ipip"},
            "network": {"type": "str"},
            "bridge": {"type": "str", "default": "cni0"},
            "tunnel": {"type": "str"},
            "namespaces": {"type": "list", "elements": "str"},
            "pods": {"type": "bool", "default": False},
            "engine": {"type": "str"},
            "watch": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if module.params["network"] is not None:
        try:
            ipaddress.IPv4Network(module.params["network"])
        except ValueError as e:
            module.fail_json(msg=f"network: {e}")

    def run(argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        try:
            code, out, err = module.run_command(
                argv, data=data, environ_update={"LC_ALL": "C"}, handle_exceptions=False
            )
        except OSError as e:  # it ended before it had read its input, as busybox's ip does
            return 1, "", str(e)
        return code, out, err

    try:
        module.exit_json(changed=False, **_node.read(run, **module.params))
    except _node.NodeError as e:
        module.fail_json(msg=str(e))


if __name__ == "__main__":
    main()
