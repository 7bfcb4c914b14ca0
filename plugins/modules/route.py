#!/usr/bin/python
# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: route
short_description: IPv4 routes, one or ten thousand in a task
description:
  - Makes one route, or a list of them in one send. What is already right is not touched, and a route that differs is replaced in place.
  - There is one route for each destination, table and metric. One with another protocol than O(protocol) was made by someone else (a
    routing daemon, DHCP, the kernel). It is an error which says so, unless O(adopt=true).
  - With O(state=absent) routes go by destination, table and metric.
version_added: 0.1.0
author: podnet.overlay contributors (@podnet)
extends_documentation_fragment:
  - podnet.overlay.single
  - podnet.overlay.attributes
options:
  dst:
    description: Destination, a network such as V(10.244.1.0/24), an address, or V(default).
    type: str
  routes:
    description:
      - Several routes, each with the options of this module from O(dst) to O(namespace) as its keys.
      - What one of them leaves out has the value that is given beside O(routes).
    type: list
    elements: dict
  via:
    description: Gateway.
    type: str
  dev:
    description: Link by which packets leave. Without it the kernel finds it by the gateway.
    type: str
  onlink:
    description: Whether the gateway is taken to be on O(dev) although no address of the host says so.
    type: bool
  table:
    description: Routing table, V(main), V(default), V(local) or a number. It is V(main) unless given.
    type: str
  metric:
    description: Metric; the lowest wins. It is V(0) unless given.
    type: int
  src:
    description: Address of the host that packets of its own have as their source.
    type: str
  mtu:
    description: MTU for this destination in bytes.
    type: int
  type:
    description: What becomes of packets, V(unicast) unless given, V(blackhole), V(unreachable) or V(prohibit).
    type: str
  protocol:
    description:
      - Who made the route, a name that ip-route(8) knows or a number. It is V(static) unless given.
      - V(podnet) (244) is the overlay's own and is refused.
    type: str
  namespace:
    description: Named network namespace of the routes. Empty is the host's own.
    type: str
    default: ""
  adopt:
    description: Whether a route of another protocol is replaced or deleted. Never one of the overlay.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Each namespace reaches the other by the host
  podnet.overlay.route:
    routes:
      - {namespace: ns1, dst: 10.1.2.0/24, via: 10.1.1.1}
      - {namespace: ns2, dst: 10.1.1.0/24, via: 10.1.2.1}

- name: A pod's two routes
  podnet.overlay.route:
    namespace: web
    via: 10.244.0.1
    routes:
      - dst: default
      - dst: 10.244.0.0/16

- name: The subnets of other nodes through Flannel's tunnel
  podnet.overlay.route:
    dev: flannel.ipip
    onlink: true
    routes:
      - {dst: 10.244.1.0/24, via: 172.12.1.12}
      - {dst: 10.244.2.0/24, via: 172.12.1.13}

- name: No way to a network
  podnet.overlay.route:
    dst: 203.0.113.0/24
    type: blackhole

- name: Gone
  podnet.overlay.route:
    dst: 203.0.113.0/24
    state: absent
"""

RETURN = r"""
operations:
  description: What was done, or in check mode would be, in order.
  returned: success
  type: list
  elements: str
  sample:
    - add route 10.1.2.0/24 via 10.1.1.1 proto static (namespace ns1)
    - add route default via 10.1.1.1 proto static (namespace ns1)
mistakes:
  description: Each thing that is wrong with the arguments or in their way.
  returned: when the arguments or the host's state do not allow it
  type: list
  elements: str
  sample:
    - "routes[10.1.2.0/24]: needs via, dev or both"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    OVERLAY_PROTOCOL,
    Mistakes,
    Route,
    State,
    of_type,
    parse,
)
from ansible_collections.podnet.overlay.plugins.module_utils._module import NAMESPACE, STATE, run

ROUTE = {
    "dst": {"type": "str"},
    "via": {"type": "str"},
    "dev": {"type": "str"},
    "onlink": {"type": "bool"},
    "table": {"type": "str"},
    "metric": {"type": "int"},
    "src": {"type": "str"},
    "mtu": {"type": "int"},
    "type": {"type": "str"},
    "protocol": {"type": "str"},
}
NAMING = ("dst", "table", "metric", "protocol", "namespace")


def read(params: dict[str, Any]) -> State:
    """The routes of the arguments."""
    common = {"protocol": "static", **{key: params[key] for key in ROUTE if params[key] is not None}}
    routes = [{**common, **route} for route in params["routes"]] if params["routes"] is not None else [common]
    if params["state"] == "absent":
        # A type that needs no gateway: what names a route is not how it leads.
        routes = [{**{key: route[key] for key in NAMING if key in route}, "type": "blackhole"} for route in routes]
    state = parse({"routes": routes}, namespace=params["namespace"])
    if any(route.protocol == OVERLAY_PROTOCOL for route in of_type(state, Route)):
        raise Mistakes([f"protocol: podnet ({OVERLAY_PROTOCOL}) marks the routes of an overlay: choose another"])
    return state


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ROUTE,
            "routes": {"type": "list", "elements": "dict"},
            "state": STATE,
            "namespace": NAMESPACE,
            "adopt": {"type": "bool", "default": False},
        },
        required_one_of=[("dst", "routes")],
        mutually_exclusive=[("dst", "routes")],
        supports_check_mode=True,
    )
    run(module, lambda: read(module.params), named=True, adopt=module.params["adopt"])


if __name__ == "__main__":
    main()
