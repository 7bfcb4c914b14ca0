# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: capture
short_description: Record chosen packets at many points of a host
version_added: 0.2.0
description:
  - Records the frames of a probe at any number of interfaces in any of a host's network namespaces, and what nftables
    decides about them, in the background between two tasks. So all hosts of a path can record before the probe is sent.
  - The kernel filters, so that a busy link costs nothing. Recorded is ICMP from or to O(addresses), plain or inside IPIP or
    VXLAN, ICMP between O(underlay) addresses, ICMP errors to any of them, and ARP about them.
  - Starts no program and needs none on the host. With C(nft) there, the rules of verdicts are told in words.
extends_documentation_fragment:
  - podnet.overlay.attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is recorded in check mode.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details:
      - Stopping a capture that does not run changes nothing. Starting one that runs is an error.
author:
  - The podnet.overlay contributors (@podnet)
options:
  state:
    description:
      - V(started) returns when all points record.
      - V(stopped) returns what was recorded. Nothing is left on the host.
    type: str
    choices: [started, stopped]
    required: true
  name:
    description: Name of the capture, of letters, digits and underscores. Captures of different names may run together.
    type: str
    default: trace
  points:
    description: The interfaces to record at. For O(state=started).
    type: list
    elements: dict
    suboptions:
      namespace:
        description: Name of a network namespace. The host's own if empty.
        type: str
        default: ""
      interface:
        description: Name of an interface. It may be down.
        type: str
        required: true
  addresses:
    description: IPv4 addresses of the probe's ends.
    type: list
    elements: str
    default: []
  underlay:
    description: IPv4 addresses of the hosts.
    type: list
    elements: str
    default: []
  protocol:
    description: V(any) records not only ICMP, but all that two of O(addresses) say to each other.
    type: str
    choices: [icmp, any]
    default: icmp
  timeout:
    description: Seconds after which the capture ends by itself and forgets what it has.
    type: float
    default: 30
  limit:
    description:
      - Most frames to keep of each point. More are counted as RV(lost).
      - All points times O(limit) times O(snap) are at most 256 MiB.
    type: int
    default: 1000
  snap:
    description: Most bytes to keep of each frame.
    type: int
    default: 256
seealso:
  - module: podnet.overlay.ping
  - plugin: podnet.overlay.decode
    plugin_type: filter
notes:
  - Verdicts need Linux 5.12, and say nothing of iptables' legacy rules.
"""

EXAMPLES = r"""
- name: Watch
  podnet.overlay.capture:
    state: started
    points:
      - {namespace: web, interface: eth0}
      - interface: cni0
      - interface: flannel.ipip
      - interface: eth1
    addresses: [10.244.0.2, 10.244.1.2]
    underlay: [198.51.100.11, 198.51.100.12]

- name: Probe
  podnet.overlay.ping:
    probes: [{namespace: web, targets: [10.244.1.2]}]
    count: 1

- name: What was seen?
  podnet.overlay.capture:
    state: stopped
  register: podnet_capture

- name: Show it as tcpdump would
  ansible.builtin.debug:
    msg: "{{ podnet_capture.frames | podnet.overlay.decode | map(attribute='text') }}"
"""

RETURN = r"""
frames:
  description: The frames, oldest first. A packet that passes a bridge may have the same time at two points.
  type: list
  elements: dict
  returned: when O(state=stopped)
  contains:
    namespace:
      description: Where the interface is. Empty for the host's own namespace.
      type: str
    interface:
      description: Where the frame was seen.
      type: str
    link:
      description: V(ethernet), or V(raw) for an IP packet without a frame, as on an IPIP tunnel.
      type: str
    direction:
      description: V(in) or V(out), seen from the interface.
      type: str
    time:
      description: The kernel's time of it, in seconds since 1970.
      type: float
    length:
      description: True length in bytes.
      type: int
    data:
      description: The frame's first bytes in Base64, as many as O(snap).
      type: str
  sample:
    - namespace: left
      interface: eth0
      link: ethernet
      direction: out
      time: 1795444100.3986266
      length: 98
      data: "mnQbCq3IypFv+pT+CABFAABUWgEAAEABCZMKCQECCgkCAggAVFOsmAABAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g\
        ISIjJCUmJygpKissLS4vMDEyMzQ1Njc="
verdicts:
  description: Each rule of nftables that a packet met, and the policy at a chain's end, oldest first.
  type: list
  elements: dict
  returned: when O(state=stopped)
  contains:
    namespace:
      description: Where it was decided. Empty for the host's own namespace.
      type: str
    time:
      description: When it was told, in seconds since 1970.
      type: float
    id:
      description: The same for all verdicts about one packet within a namespace, unless the packet is remade, as in a tunnel.
      type: str
    hook:
      description: Where on its way the packet was, for example V(forward).
      type: str
    family:
      description: Family of the table.
      type: str
    table:
      description: The table.
      type: str
    chain:
      description: The chain.
      type: str
    handle:
      description: Handle of the rule, or none for a policy.
      type: int
    text:
      description: The rule as C(nft) prints it, without counters. V(policy drop) or the like for a policy.
      type: str
    verdict:
      description: V(accept), V(drop), V(continue), V(jump), V(goto), V(return), V(queue) and so on.
      type: str
    iif:
      description: Name of the interface that the packet came from, or empty.
      type: str
    oif:
      description: Name of the interface that the packet leaves by, or empty.
      type: str
    src:
      description: Source address.
      type: str
    dst:
      description: Destination address.
      type: str
    protocol:
      description: V(icmp), V(ipip), V(udp), V(tcp) or a number.
      type: str
    ttl:
      description: Time to live.
      type: int
    icmp:
      description: With ICMP its C(type), C(code), C(id) and C(seq).
      type: dict
    inner:
      description: With IPIP C(src), C(dst), C(protocol) and C(ttl) of the packet inside.
      type: dict
  sample:
    - namespace: ""
      time: 1795444100.3990047
      id: 332a4b54
      hook: forward
      family: ip
      table: t
      chain: f
      handle: 2
      text: ip daddr 10.9.2.2 counter drop
      verdict: drop
      iif: left
      oif: right
      src: 10.9.1.2
      dst: 10.9.2.2
      protocol: icmp
      ttl: 63
      icmp: {type: 8, code: 0, id: 44184, seq: 1}
      inner: null
lost:
  description: Number of chosen frames and verdicts that were not kept.
  type: int
  returned: when O(state=stopped)
"""

import ipaddress
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _capture
from ..module_utils._recorder import Failed

_FRAME = 300  # bytes that Python needs to keep a frame, besides its own
_MOST_BYTES = 256 << 20


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
            "name": {"type": "str", "default": "trace"},
            "points": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "namespace": {"type": "str", "default": ""},
                    "interface": {"type": "str", "required": True},
                },
            },
            "addresses": {"type": "list", "elements": "str", "default": []},
            "underlay": {"type": "list", "elements": "str", "default": []},
            "protocol": {"type": "str", "choices": ["icmp", "any"], "default": "icmp"},
            "timeout": {"type": "float", "default": 30.0},
            "limit": {"type": "int", "default": 1000},
            "snap": {"type": "int", "default": 256},
        },
        required_if=[("state", "started", ["points"])],
        supports_check_mode=True,
    )
    if mistakes := _mistakes(module.params):
        module.fail_json(msg="; ".join(mistakes))
    try:
        (_start if module.params["state"] == "started" else _stop)(module)
    except Failed as e:
        module.fail_json(msg=str(e))
    except PermissionError as e:
        module.fail_json(msg=f"capturing needs root ({e}): set become: true")
    except OSError as e:
        module.fail_json(msg=f"cannot capture: {e}")


def _start(module: AnsibleModule) -> None:
    options = module.params
    if module.check_mode:
        module.exit_json(changed=True, msg="check mode: nothing is recorded")
    warnings = _capture.start(
        options["name"],
        [(point["namespace"], point["interface"]) for point in options["points"]],
        _capture.chosen(options["addresses"], options["underlay"], everything=options["protocol"] == "any"),
        timeout=options["timeout"],
        limit=options["limit"],
        snap=options["snap"],
    )
    for warning in warnings:
        module.warn(warning)
    module.exit_json(changed=True)


def _stop(module: AnsibleModule) -> None:
    name = module.params["name"]
    if module.check_mode:
        changed = _capture.running(name)
        module.exit_json(changed=changed, frames=[], verdicts=[], lost=0, msg="check mode: nothing is stopped")
    recording = _capture.stop(name)
    module.exit_json(changed=recording is not None, **(recording or {"frames": [], "verdicts": [], "lost": 0}))


def _mistakes(options: dict[str, t.Any]) -> list[str]:
    mistakes = []
    if not re.fullmatch(r"[A-Za-z0-9_]{1,32}", options["name"]):
        mistakes.append(f"name: {options['name']} is not 1 to 32 letters, digits and underscores")
    for option in ("addresses", "underlay"):
        for address in options[option]:
            try:
                ipaddress.IPv4Address(address)
            except ValueError as e:
                mistakes.append(f"{option}: {e}")
    for point in options["points"] or ():
        for kind, least, most in (("namespace", 0, 255), ("interface", 1, 15)):
            if not _named(point[kind], least, most):
                mistakes.append(f"points: {point[kind]!r} is no name of a{'n' * (kind[0] == 'i')} {kind}")
    if options["state"] == "started" and not (options["addresses"] or options["underlay"]):
        mistakes.append("addresses, underlay: at least one")
    if not 0 < options["timeout"] <= 3600:
        mistakes.append("timeout: at most 3600 and above 0")
    if not 0 < options["limit"] <= 100000:
        mistakes.append("limit: 1..100000")
    if not 64 <= options["snap"] <= 65535:
        mistakes.append("snap: 64..65535")
    size = len(options["points"] or ()) * options["limit"] * (options["snap"] + _FRAME)
    if not mistakes and size > _MOST_BYTES:
        mistakes.append(
            f"points, limit, snap: could take {size >> 20} MiB of the host's memory, and {_MOST_BYTES >> 20} are the most"
        )
    return mistakes


def _named(name: str, least: int, most: int) -> bool:
    """Whether NAME can be one of the kernel's, of LEAST to MOST bytes."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return least <= size <= most and not set(name) & {"/", "\0"} and name not in (".", "..")


if __name__ == "__main__":
    main()
