# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ping
short_description: Ping many addresses from network namespaces
version_added: 0.1.0
description:
  - Sends echo requests from any number of a host's network namespaces to any number of addresses, all at the same time,
    and reports each path on its own.
  - Starts no process and needs no C(ping) on the host.
  - Loss is a result, not a failure. M(podnet.overlay.report) judges.
  - Changes nothing of the host's network. With O(record=true) the results are kept in a file below C(/run).
extends_documentation_fragment:
  - podnet.overlay.attributes.info
author:
  - The podnet.overlay contributors (@podnet)
options:
  probes:
    description: From where to where.
    type: list
    elements: dict
    required: true
    suboptions:
      namespace:
        description: Name of a network namespace. The host's own if empty.
        type: str
        default: ""
      targets:
        description:
          - IPv4 addresses, or dictionaries with an C(address) and anything else, which the result repeats.
        type: list
        elements: raw
        required: true
  sizes:
    description:
      - Sizes of the IP packets in bytes, headers included. V(0) is V(84), as C(ping) sends.
      - Each path is tried with each size.
    type: list
    elements: int
    default: [0]
  df:
    description:
      - Whether no packet may be fragmented.
      - What the kernel has learned of a path's MTU from earlier packets does not count. Each request tries anew.
    type: bool
    default: false
  count:
    description: Requests per path and size.
    type: int
    default: 3
  interval:
    description: Seconds between two requests of one path.
    type: float
    default: 0.2
  timeout:
    description: Seconds to wait for each answer.
    type: float
    default: 3
  record:
    description:
      - Whether the results are kept in C(/run/podnet-overlay/probes.json), in place of all that were recorded before and until
        the host boots, so that M(podnet.overlay.status) can tell result and age of each path's last probe.
      - Not in check mode. The file does not count as a change.
    type: bool
    default: false
    version_added: 0.4.0
seealso:
  - module: podnet.overlay.status
  - module: podnet.overlay.report
"""

EXAMPLES = r"""
- name: Can web reach the pods of two other nodes at the overlay's full MTU?
  podnet.overlay.ping:
    probes:
      - namespace: web
        targets:
          - 10.244.1.2
          - {address: 10.244.2.2, pod: cache, node: node3}
    sizes: [0, 1480]
    df: true
  register: podnet_ping
"""

RETURN = r"""
paths:
  description: One entry for each namespace, target and size, in the order of O(probes) and O(sizes).
  type: list
  elements: dict
  returned: success
  contains:
    namespace:
      description: The namespace that the requests left from.
      type: str
    address:
      description: The target. Whatever else the target's dictionary had stands beside it.
      type: str
    size:
      description: Bytes of the IP packet.
      type: int
    sent:
      description: Number of requests.
      type: int
    received:
      description: Number of replies.
      type: int
    ttl:
      description: Time to live of the last reply, or none.
      type: int
    identifier:
      description:
        - ICMP identifier of the requests, by which captured frames can be told. Each path and size has its own.
        - None if there is no such namespace.
      type: int
      version_added: 0.2.0
    rtt_ms:
      description: Least, average and greatest round trip time in milliseconds, or none.
      type: dict
    error:
      description: Empty, or why replies are missing.
      type: str
"""

import ipaddress
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _icmp, _probe_record


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "namespace": {"type": "str", "default": ""},
                    "targets": {"type": "list", "elements": "raw", "required": True},
                },
            },
            "sizes": {"type": "list", "elements": "int", "default": [0]},
            "df": {"type": "bool", "default": False},
            "count": {"type": "int", "default": 3},
            "interval": {"type": "float", "default": 0.2},
            "timeout": {"type": "float", "default": 3.0},
            "record": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    sizes = [size or _icmp.DEFAULT_SIZE for size in options["sizes"]]
    mistakes = [f"sizes: {size} is not in 28..65535" for size in sizes if not _icmp.HEADERS <= size <= 65535]
    if options["count"] < 1:
        mistakes.append("count: at least 1")

    paths: list[_icmp.Path] = []
    targets: list[dict[str, t.Any]] = []
    for probe in options["probes"]:
        if "/" in probe["namespace"]:
            mistakes.append(f"probes: {probe['namespace']} is no name of a namespace")
        for given in probe["targets"]:
            target = given if isinstance(given, dict) else {"address": given}
            try:
                address = str(ipaddress.IPv4Address(target.get("address")))
            except ValueError as e:
                mistakes.append(f"probes: {e}")
                continue
            for size in sizes:
                paths.append(_icmp.Path(probe["namespace"], address, size))
                targets.append(target)
    if mistakes:
        module.fail_json(msg="; ".join(mistakes))

    try:
        _icmp.ping(
            paths,
            count=options["count"],
            timeout=options["timeout"],
            interval=options["interval"],
            df=options["df"],
        )
    except PermissionError as e:
        module.fail_json(msg=f"raw sockets and network namespaces need root ({e}): set become: true")
    results = [{**target, **path.result()} for target, path in zip(targets, paths)]
    if options["record"] and not module.check_mode:
        try:
            _probe_record.write(results, time.time())
        except OSError as e:
            module.warn(
                f"{_probe_record.PATH} cannot be written ({e.strerror}), so the status has no result of this run"
            )
    module.exit_json(changed=False, paths=results)


if __name__ == "__main__":
    main()
