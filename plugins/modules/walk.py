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
    description: The packets to follow.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name that the packet's walk has in the answer.
        type: str
        required: true
      namespace:
        description: The network namespace that it starts in. The host's own if empty.
        type: str
        default: ""
      src:
        description: Its source, an IPv4 address.
        type: str
        required: true
      dst:
        description: Its destination, an IPv4 address.
        type: str
        required: true
      protocol:
        description: What it carries. An V(icmp) packet is an echo request, or the reply to one.
        type: str
        choices: [icmp, tcp, udp]
        default: icmp
      sport:
        description: The source port of V(tcp) and V(udp). Not known if V(0).
        type: int
        default: 0
        version_added: 0.3.0
      dport:
        description: Its destination port.
        type: int
        default: 0
        version_added: 0.3.0
      ttl:
        description: Its time to live.
        type: int
        default: 64
      size:
        description: Bytes of the IP packet.
        type: int
        default: 84
      df:
        description: Whether it may not be fragmented.
        type: bool
        default: true
      mark:
        description: Its firewall mark.
        type: int
        default: 0
      reply:
        description: Whether it answers another one. Firewalls take it as part of an established connection then.
        type: bool
        default: false
      answers:
        description:
          - The name of a packet before it in the list that this one answers.
          - Where that was delivered, this one starts, and where that has left the host, this one comes in. It has the addresses and
            ports that the other had in the end, so that it is an answer also where rules have translated them.
          - If that packet was not followed to an end, O(packets[].namespace), O(packets[].src) and so on say where it starts.
        type: str
        version_added: 0.3.0
      arrives:
        description: Whether it comes in over the underlay, instead of being made in O(packets[].namespace).
        type: bool
        default: false
      outer:
        description: The header that it is wrapped in when it arrives. Without it, it comes as it is.
        type: dict
        suboptions:
          src: {description: "The other host's public_ip.", type: str, required: true}
          dst: {description: "This host's public_ip.", type: str, required: true}
          protocol: {description: The encapsulation., type: str, choices: [ipip, vxlan], required: true}
          ttl: {description: "Its time to live, that of the packet if not given.", type: int}
          port: {description: The UDP port of V(vxlan)., type: int, default: 8472}
          vni: {description: The network identifier of V(vxlan)., type: int, default: 1}
      overlay:
        description:
          - What the overlay wants of this host for the packet's destination, so that the answer can tell what is wrong.
          - M(podnet.overlay.flow) makes it. All of it may be left out.
        type: dict
        suboptions:
          network: {description: The pods' network., type: str}
          subnet: {description: The subnet of the destination's node., type: str}
          remote: {description: "The public_ip of that node, if it is not this host.", type: str}
          via: {description: The gateway of the route to the subnet., type: str}
          dev: {description: The device of that route., type: str}
          tunnel: {description: The tunnel device., type: str}
          bridge: {description: The pods' bridge., type: str}
          interface: {description: The underlay's interface., type: str}
          local: {description: This host's public_ip., type: str}
          backend: {description: The overlay's backend., type: str}
          direct_routing: {description: "Whether the route may leave the tunnel out.", type: bool, default: false}
seealso:
  - module: podnet.overlay.trace
  - module: podnet.overlay.flow
  - module: podnet.overlay.capture
"""

EXAMPLES = r"""
- name: Which way does a packet of pod web take?
  podnet.overlay.walk:
    packets:
      - {name: request, namespace: web, src: 10.244.0.2, dst: 10.244.1.2}
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
      description: V(delivered), V(left) the host, V(translated) by a rule into what is not known, or V(broken).
      type: str
    left:
      description: Where it left the host, with the packet and the frame's MACs, or none.
      type: dict
    delivered:
      description: Where it was delivered, the namespace, and the packet as it was then, or none.
      type: dict
      version_added: 0.3.0
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
        macs:
          description: Where the packet comes in from the underlay, the MACs of the host's interfaces.
          type: list
          elements: str
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

from ..module_utils._look import Look
from ..module_utils._node import NodeError
from ..module_utils._walk import walk_all

OVERLAY = ("network", "subnet", "remote", "via", "dev", "tunnel", "bridge", "interface", "local", "backend")
PACKET: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "default": ""},
    "src": {"type": "str", "required": True},
    "dst": {"type": "str", "required": True},
    "protocol": {"type": "str", "choices": ["icmp", "tcp", "udp"], "default": "icmp"},
    "sport": {"type": "int", "default": 0},
    "dport": {"type": "int", "default": 0},
    "ttl": {"type": "int", "default": 64},
    "size": {"type": "int", "default": 84},
    "df": {"type": "bool", "default": True},
    "mark": {"type": "int", "default": 0},
    "reply": {"type": "bool", "default": False},
    "answers": {"type": "str"},
    "arrives": {"type": "bool", "default": False},
    "outer": {
        "type": "dict",
        "options": {
            "src": {"type": "str", "required": True},
            "dst": {"type": "str", "required": True},
            "protocol": {"type": "str", "choices": ["ipip", "vxlan"], "required": True},
            "ttl": {"type": "int"},
            "port": {"type": "int", "default": 8472},
            "vni": {"type": "int", "default": 1},
        },
    },
    "overlay": {
        "type": "dict",
        "options": {**{key: {"type": "str"} for key in OVERLAY}, "direct_routing": {"type": "bool", "default": False}},
    },
}
RANGES = {
    "sport": (0, 65535),
    "dport": (0, 65535),
    "size": (28, 65535),
    "ttl": (1, 255),
    "mark": (0, 0xFFFFFFFF),
    "port": (1, 65535),
    "vni": (0, 0xFFFFFF),
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"packets": {"type": "list", "elements": "dict", "required": True, "options": PACKET}},
        supports_check_mode=True,
    )
    packets = module.params["packets"]
    names = [packet["name"] for packet in packets]
    mistakes = [line for packet in packets for line in _mistakes(packet)]
    mistakes += [f"packets: {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if mistakes:
        module.fail_json(msg="; ".join(mistakes), mistakes=mistakes)
    walks: dict[str, dict[str, t.Any]] = {}
    try:
        look = Look(
            lambda argv, data=None: module.run_command(argv, data=data), [packet["namespace"] for packet in packets]
        )
        walks = walk_all(look, packets)
    except PermissionError as e:
        module.fail_json(msg=f"looking into network namespaces needs root ({e}): set become: true")
    except (NodeError, OSError) as e:
        module.fail_json(msg=str(e))
    places = {(hop["namespace"], hop["interface"]): None for way in walks.values() for hop in way["hops"]}
    points = [{"namespace": namespace, "interface": interface} for namespace, interface in places if interface]
    module.exit_json(changed=False, walks=walks, points=points)


def _mistakes(packet: dict[str, t.Any]) -> t.Iterator[str]:
    outer, overlay = packet["outer"] or {}, packet["overlay"] or {}
    ends = {
        "src": packet["src"],
        "dst": packet["dst"],
        **{f"outer.{key}": outer[key] for key in ("src", "dst") if outer},
    }
    ends.update({f"overlay.{key}": overlay[key] for key in ("remote", "via", "local") if overlay.get(key)})
    for key, value in ends.items():
        yield from _refusal(packet, key, value, ipaddress.IPv4Address)
    if overlay.get("subnet"):
        yield from _refusal(packet, "overlay.subnet", overlay["subnet"], ipaddress.IPv4Network)
    for key, (least, most) in RANGES.items():
        value = {**outer, **packet}.get(key)
        if value is not None and not least <= value <= most:
            yield f"packets: {packet['name']}: {key}: {value} is not in {least}..{most}"


def _refusal(packet: dict[str, t.Any], key: str, value: str, read: t.Callable[[str], t.Any]) -> t.Iterator[str]:
    try:
        read(value)
    except ValueError as e:
        yield f"packets: {packet['name']}: {key}: {e}"


if __name__ == "__main__":
    main()
