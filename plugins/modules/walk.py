#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: walk
short_description: Follow a packet through a host, hop by hop, without sending it
version_added: 0.2.0
description:
  - Asks the kernel what it would do with a packet, at every interface on its way through the host's network namespaces.
    Which route matches and why, which MAC and which bridge port it goes to, where it is wrapped and unwrapped, how many
    bytes it has there, and which firewall rule would stop it.
  - Where the packet would not pass, the answer says why, and what to do.
  - It needs no traffic, changes nothing, and needs iproute2 and nft on the host, but not pyroute2.
  - M(podnet.overlay.trace) joins the walks of two hosts and prints them.
extends_documentation_fragment:
  - podnet.overlay.attributes.info
author:
  - The podnet.overlay contributors (@podnet)
options:
  packets:
    description: The packets to follow, each under a name of its own.
    type: dict
    required: true
    suboptions:
      _name:
        description:
          - "A packet: C(namespace) is where it starts, empty for the host's own; C(src) and C(dst) are its addresses."
          - "C(protocol) (V(icmp)), C(ttl) (64), C(size) of the IP packet in bytes (84), C(df) (true) and C(mark) (0) have defaults."
          - "With C(reply) true it answers another one: firewalls take it as part of an established connection."
          - "With C(arrives) true it comes in over the underlay, if C(outer) is given wrapped in a packet with its C(src),
            C(dst) and C(protocol), V(ipip) or V(vxlan)."
          - "C(overlay) says what the overlay wants, so that the answer can tell what is wrong. M(podnet.overlay.flow) makes it."
        type: dict
seealso:
  - module: podnet.overlay.trace
  - module: podnet.overlay.flow
  - module: podnet.overlay.capture
"""

EXAMPLES = r"""
- name: Which way does a packet of pod web take?
  podnet.overlay.walk:
    packets:
      request: {namespace: web, src: 10.244.0.2, dst: 10.244.1.2}
  register: podnet_walk

- name: Show the interfaces that it passes
  ansible.builtin.debug:
    msg: "{{ podnet_walk.walks.request.hops | map(attribute='interface') }}"
"""

RETURN = r"""
walks:
  description: The way of each packet, under its name.
  type: dict
  returned: success
  contains:
    end:
      description: V(delivered), V(left) the host, or V(broken).
      type: str
    left:
      description: Where it left the host, with the packet and the frame's MACs, or none.
      type: dict
    hops:
      description: The interfaces that the packet passes, in order, with the decisions made there.
      type: list
      elements: dict
      contains:
        namespace: {description: "The network namespace, empty for the host's own.", type: str}
        interface: {description: The interface., type: str}
        kind: {description: "Its kind as C(ip -d link) says it, empty for hardware.", type: str}
        index: {description: Its index., type: int}
        does: {description: "What happens there, in words.", type: str}
        link: {description: "V(ethernet), or V(raw) where no Ethernet header is.", type: str}
        length: {description: "Bytes of the frame there, as tcpdump shows them.", type: int}
        source_mac: {description: The frame's source., type: str}
        destination_mac: {description: The frame's destination., type: str}
        next_hop: {description: "The address that the frame is sent to, where one is sent.", type: str}
        packet:
          description:
            - The packet as it looks there, with C(src), C(dst), C(protocol), C(ttl), C(length) of the IP packet and C(df).
            - "C(inner) is the packet that a tunnel carries."
          type: dict
        mtu: {description: The interface's MTU., type: int}
        mtu_left: {description: How many bytes more would fit., type: int}
        route: {description: "The route that matched, and in C(why) why it did.", type: dict}
        outer_route: {description: "At a tunnel, the route of the outer packet.", type: dict}
        neighbour: {description: The neighbour entry of the next hop., type: dict}
        forwarding_entry: {description: The entry of the bridge or of the vxlan device., type: dict}
        peer: {description: The other end of a veth pair., type: dict}
        rules: {description: "Firewall rules that stop the packet, may stop it, or rewrite it.", type: list, elements: dict}
        asked: {description: "The commands that ask the same, for a person.", type: list, elements: str}
        notes: {description: What is worth knowing., type: list, elements: str}
        problems:
          description: "What is wrong there, as C(fault), C(reason), C(remedy), and C(fatal) if the packet ends here."
          type: list
          elements: dict
points:
  description: Each namespace and interface of all hops once, as O(podnet.overlay.capture#module:points) takes them.
  type: list
  elements: dict
  returned: success
  sample: [{namespace: web, interface: eth0}, {namespace: "", interface: veth-web}]
"""

import ipaddress
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._hops import PROTOCOLS
from ..module_utils._look import Look
from ..module_utils._node import NodeError
from ..module_utils._walk import walk

_KEYS = ("namespace", "src", "dst", "protocol", "ttl", "size", "df", "mark", "arrives", "outer", "overlay", "reply")


def main() -> None:
    module = AnsibleModule(argument_spec={"packets": {"type": "dict", "required": True}}, supports_check_mode=True)
    packets = module.params["packets"]
    mistakes = [line for name, packet in packets.items() for line in _mistakes(name, packet)]
    if mistakes:
        module.fail_json(msg="; ".join(mistakes), mistakes=mistakes)
    look = Look(lambda argv, data=None: module.run_command(argv, data=data))
    walks: dict[str, dict[str, t.Any]] = {}
    try:
        walks = {name: walk(look, packet) for name, packet in packets.items()}
    except PermissionError as e:
        module.fail_json(msg=f"looking into network namespaces needs root ({e}): set become: true")
    except (NodeError, OSError) as e:
        module.fail_json(msg=str(e))
    places = {(hop["namespace"], hop["interface"]): None for way in walks.values() for hop in way["hops"]}
    points = [{"namespace": namespace, "interface": interface} for namespace, interface in places if interface]
    module.exit_json(changed=False, walks=walks, points=points)


def _mistakes(name: str, packet: t.Any) -> t.Iterator[str]:
    if not isinstance(packet, dict):
        yield f"packets: {name}: {packet!r} is no dictionary"
        return
    yield from (f"packets: {name}: unknown key {key}" for key in packet if key not in _KEYS)
    addresses = {"src": packet.get("src"), "dst": packet.get("dst")}
    outer = packet.get("outer")
    if outer:
        addresses.update({"outer.src": outer.get("src"), "outer.dst": outer.get("dst")})
        if outer.get("protocol") not in ("ipip", "vxlan"):
            yield f"packets: {name}: outer.protocol: {outer.get('protocol')!r} is neither ipip nor vxlan"
    for key, address in addresses.items():
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            yield f"packets: {name}: {key}: {address!r} is no IPv4 address"
    if (packet.get("protocol") or "icmp") not in PROTOCOLS:
        yield f"packets: {name}: protocol: {packet['protocol']!r} is none of {', '.join(PROTOCOLS)}"
    for key, (least, most) in {"size": (28, 65535), "ttl": (1, 255), "mark": (0, 0xFFFFFFFF)}.items():
        value = packet.get(key)
        if value is not None and not (isinstance(value, int) and least <= value <= most):
            yield f"packets: {name}: {key}: {value!r} is not in {least}..{most}"


if __name__ == "__main__":
    main()
