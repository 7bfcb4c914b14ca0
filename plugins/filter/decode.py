# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils import _frames

DOCUMENTATION = r"""
name: decode
short_description: What captured frames say
version_added: 0.2.0
description:
  - Decodes the frames of M(podnet.overlay.capture), each layer by layer and as one line as C(tcpdump -e) prints it.
author:
  - The podnet.overlay contributors (@podnet)
requirements:
  - scapy (on the controller)
options:
  _input:
    description: RV(podnet.overlay.capture#module:frames) of M(podnet.overlay.capture).
    type: list
    elements: dict
    required: true
seealso:
  - module: podnet.overlay.capture
"""

EXAMPLES = r"""
- name: Show what was captured, as tcpdump would
  ansible.builtin.debug:
    msg: "{{ podnet_capture.frames | podnet.overlay.decode | map(attribute='text') }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary for each frame, with what the frame had besides C(data).
    - A layer that is not there is none.
  type: list
  elements: dict
  contains:
    ethernet:
      description: C(source), C(destination) and C(type).
      type: dict
    arp:
      description: C(op), C(sender), C(sender_mac), C(target) and C(target_mac).
      type: dict
    ip:
      description:
        - All IPv4 headers, outermost first.
        - Each with C(src), C(dst), C(ttl), C(protocol), C(length), C(id), C(df), C(mf) and C(offset).
      type: list
      elements: dict
    udp:
      description: C(sport), C(dport), and C(vni) with VXLAN.
      type: dict
    inner_ethernet:
      description: The Ethernet header inside VXLAN, as C(ethernet).
      type: dict
    tcp:
      description: C(sport), C(dport), C(flags), C(seq), C(ack), C(window) and C(length).
      type: dict
    icmp:
      description:
        - C(type) and C(code). C(id) and C(seq) of an echo. C(mtu) where fragmentation is needed.
        - With an error also C(about), the packet that it is about, an entry as in C(ip) with its C(icmp), C(sport), C(dport).
      type: dict
    text:
      description: One line as C(tcpdump -e) prints it, in the controller's time zone.
      type: str
"""


def decode(frames: t.Any) -> list[dict[str, t.Any]]:
    """The frames of podnet.overlay.capture, decoded."""
    if not isinstance(frames, (list, tuple)):
        raise AnsibleFilterError(
            "podnet.overlay.decode: a list of frames is wanted, as podnet.overlay.capture returns it"
        )
    try:
        return [_frames.decode(frame) for frame in frames]
    except (_frames.MissingLibrary, ValueError) as e:
        raise AnsibleFilterError(f"podnet.overlay.decode: {e}") from e


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"decode": decode}
