# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: underlay_probe
short_description: Try whether a backend's packets get from host to host
version_added: 0.4.0
description:
  - Sends packets as the overlay's backend does, IPIP (protocol 4) or VXLAN (UDP), to all other hosts, and tells on each host
    which of them came, up to its own firewall and past it. Echo requests go along, so that a host that is down can be told
    from a protocol that is filtered.
  - Three tasks on all hosts, each finished everywhere before the next begins. They listen (O(state=started)), send
    (O(state=sent)) and tell (O(state=stopped)).
  - Needs no tunnel, no kernel module and no pyroute2, and works where an overlay lives. What the probes carry is a packet that
    no kernel answers or forwards and that an overlay's guard drops, and counts.
  - Loss is a result, not a failure. M(podnet.overlay.preflight) judges.
extends_documentation_fragment:
  - podnet.overlay.attributes.info
author:
  - The podnet.overlay contributors (@podnet)
options:
  state:
    description:
      - V(started) returns when the host listens, in the background, and tells who else has to do with its network.
      - V(sent) returns when all is sent and answers had their time.
      - V(stopped) ends the listening and tells what came. Nothing is left on the host.
    type: str
    choices: [started, sent, stopped]
    required: true
  run:
    description: 16 hexadecimal digits that tell this run's probes from all others. M(podnet.overlay.preflight) makes one.
    type: str
    required: true
  protocol:
    description: What is sent. With V(none) echo requests only, and nobody listens.
    type: str
    choices: [ipip, udp, none]
    required: true
  port:
    description: The port, with O(protocol=udp).
    type: int
    default: 8472
  address:
    description: The address of this host in O(sizes).
    type: str
    required: true
  sizes:
    description:
      - From the address of each host, this one too, to the largest IP packet that it sends and takes, in bytes.
      - Between two hosts the smaller one is tried, with DF, and smaller ones, so that the path's MTU is found.
    type: dict
    required: true
  timeout:
    description: Seconds after which the listening ends by itself, at most a week. All hosts have to have sent by then.
    type: float
    default: 600
  count:
    description: How often each packet is sent. One that comes is enough.
    type: int
    default: 3
  wait:
    description: Seconds to wait for the answer to an echo request.
    type: float
    default: 1
  network:
    description: The overlay's network. What is forwarded in it is judged by the host's rules with O(state=started).
    type: str
  bridge:
    description: The name that the overlay's bridge has or will have.
    type: str
    default: cni0
  tunnel:
    description: The name that the overlay's tunnel has or will have, or none.
    type: str
  interface:
    description: The underlay's interface, of which is told who configures it.
    type: str
notes:
  - The listening is a process and a socket in C(/run), both gone after O(state=stopped), or after O(timeout).
  - In check mode it does the same, since it changes nothing.
seealso:
  - module: podnet.overlay.preflight
"""

EXAMPLES = r"""
- name: Probe from any host to any other
  vars:
    probe: &probe
      run: 0123456789abcdef
      protocol: ipip
      address: "{{ overlay_public_ip }}"
      sizes: {198.51.100.11: 1500, 198.51.100.12: 1500}
  block:
    - name: Listen
      podnet.overlay.underlay_probe:
        <<: *probe
        state: started

    - name: Send
      podnet.overlay.underlay_probe:
        <<: *probe
        state: sent

    - name: What came?
      podnet.overlay.underlay_probe:
        <<: *probe
        state: stopped
      register: podnet_heard
"""

RETURN = r"""
surroundings:
  description: Who else has to do with the host's network.
  type: dict
  returned: when O(state=started)
  contains:
    manager:
      description: Who configures the underlay's interface, or empty.
      type: str
    overlays:
      description: Other overlays whose processes run.
      type: list
      elements: str
    firewalls:
      description: Firewalls in force where M(podnet.overlay.topology) will ask for what the overlay needs.
      type: list
      elements: str
    takers:
      description: Files by which systemd-networkd would configure the overlay's links although it is told to leave them.
      type: dict
    forward:
      description: The rules that stop what pods send to other nodes, with C(surely) false for those that may stop it.
      type: list
      elements: dict
  sample:
    manager: systemd-networkd (/etc/systemd/network/10-eth1.network)
    overlays: []
    firewalls: [ufw]
    takers: {/etc/systemd/network/00-all.network: [cni0, flannel.ipip]}
    forward: [{text: "table inet site chain forward: policy drop", surely: true}]
paths:
  description: What the sender knows, for all others with the same outcome together.
  type: list
  elements: dict
  returned: when O(state=sent)
  contains:
    to:
      description: Their addresses.
      type: list
      elements: str
    error:
      description: Empty, or what the kernel or an ICMP error said.
      type: str
    mtu:
      description: The path's MTU where a router told it, else 0.
      type: int
    echo:
      description: Bytes of the largest echo request that was answered, or 0.
      type: int
    rule:
      description: The host's own rule that forbids sending, as far as it was found.
      type: str
  sample: [{to: [198.51.100.12], error: "", mtu: 0, echo: 1500, rule: ""}]
whole:
  description: From how many hosts all came, with every size.
  type: int
  returned: when O(state=stopped)
  sample: 1
partial:
  description: What came from the other hosts, for those with the same outcome together.
  type: list
  elements: dict
  returned: when O(state=stopped)
  contains:
    from:
      description: Their addresses.
      type: list
      elements: str
    delivered:
      description: Bytes of the largest packet that got past the host's own rules, or 0.
      type: int
    seen:
      description: Bytes of the largest packet that came to an interface, or 0.
      type: int
    interface:
      description: The interface that it came to.
      type: str
    source:
      description: The packets' source address, if it is not the sender's.
      type: str
    fault:
      description: Why less was delivered than seen, V(rule), V(rp_filter), V(unknown), or empty.
      type: str
    text:
      description: The rule, or the way back.
      type: str
  sample:
    - from: [198.51.100.13]
      delivered: 0
      seen: 1500
      interface: eth1
      source: ""
      fault: rule
      text: "table inet site chain input: ip protocol 4 drop"
listened:
  description: Whether it still listened. If not, RV(partial) and RV(whole) say nothing.
  type: bool
  returned: when O(state=stopped)
  sample: true
"""

import ipaddress
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _dropped, _foreign_docker, _foreign_firewalld, _foreign_ufw, _surroundings, _underlay
from ..module_utils._look import Look
from ..module_utils._recorder import Failed

_FIREWALLS: dict[str, t.Any] = {"docker": _foreign_docker, "firewalld": _foreign_firewalld, "ufw": _foreign_ufw}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "sent", "stopped"], "required": True},
            "run": {"type": "str", "required": True},
            "protocol": {"type": "str", "choices": ["ipip", "udp", "none"], "required": True},
            "port": {"type": "int", "default": 8472},
            "address": {"type": "str", "required": True},
            "sizes": {"type": "dict", "required": True},
            "timeout": {"type": "float", "default": 600.0},
            "count": {"type": "int", "default": 3},
            "wait": {"type": "float", "default": 1.0},
            "network": {"type": "str"},
            "bridge": {"type": "str", "default": "cni0"},
            "tunnel": {"type": "str"},
            "interface": {"type": "str"},
        },
        supports_check_mode=True,
    )
    options = module.params
    if mistakes := list(_mistakes(options)):
        module.fail_json(msg="; ".join(mistakes))
    table = {address: int(size) for address, size in options["sizes"].items()}
    probe = None
    if options["protocol"] != "none":
        port = options["port"] if options["protocol"] == "udp" else 0
        probe = _underlay.Probe(options["protocol"], port, bytes.fromhex(options["run"]))
    try:
        work = {"started": _start, "sent": _send, "stopped": _stop}[options["state"]]
        module.exit_json(changed=False, **work(module, probe, table))
    except Failed as e:
        module.fail_json(msg=str(e))
    except PermissionError as e:
        module.fail_json(msg=f"raw sockets need root ({e}): set become: true")
    except OSError as e:
        module.fail_json(msg=f"cannot probe from {options['address']}: {e.strerror or e}")


def _start(module: AnsibleModule, probe: _underlay.Probe | None, table: dict[str, int]) -> dict[str, t.Any]:
    options = module.params
    running = _surroundings.processes()
    kinds = {"ipip": "ipip", "udp": "vxlan"}
    links = {options["bridge"]: "bridge"}
    if options["tunnel"]:
        links[options["tunnel"]] = kinds.get(options["protocol"], "")
    out = options["tunnel"] or options["interface"]
    network = options["network"]
    surroundings = {
        "manager": _surroundings.manager(options["interface"]) if options["interface"] else "",
        "overlays": _surroundings.overlays(running),
        "firewalls": [program for program, foreign in _FIREWALLS.items() if foreign.active()],
        "takers": _surroundings.takers(links) if "systemd-network" in running else {},
        "forward": _dropped.on_forward(_look(module), network, options["bridge"], out) if network and out else [],
    }
    if probe is not None:
        _underlay.listen(probe, options["run"], options["address"], table, timeout=options["timeout"])
    return {"surroundings": surroundings}


def _send(module: AnsibleModule, probe: _underlay.Probe | None, table: dict[str, int]) -> dict[str, t.Any]:
    options = module.params
    own = options["address"]
    sent = _underlay.send(probe, own, table, count=options["count"], timeout=options["wait"])
    groups: dict[tuple[str, int, int], list[str]] = {}
    for other, outcome in zip(_underlay.full_sizes(own, table), sent):
        groups.setdefault((outcome.error, outcome.mtu, outcome.echo), []).append(other)
    paths = []
    for (error, mtu, echo), others in groups.items():
        rule = ""
        if probe is not None and error == _underlay.FORBIDDEN:
            rule = _dropped.on_exit(_look(module), probe.number, probe.port, own, others[0])["text"]
        paths.append({"to": others, "error": error, "mtu": mtu, "echo": echo, "rule": rule})
    return {"paths": paths}


def _stop(module: AnsibleModule, probe: _underlay.Probe | None, _table: dict[str, int]) -> dict[str, t.Any]:
    found = _underlay.collect(module.params["run"]) if probe is not None else None
    if probe is None or found is None:
        return {"listened": False, "whole": 0, "partial": []}
    look = None
    for group in found["partial"]:
        group.update(fault="", text="")
        if group["seen"] > group["delivered"]:
            look = look or _look(module)
            first, own = group["from"][0], module.params["address"]
            group.update(_dropped.on_entry(look, probe.number, probe.port, own, first, group["interface"]))
    return {"listened": True, **found}


def _look(module: AnsibleModule) -> Look:
    def run(argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        try:
            code, out, err = module.run_command(
                argv, data=data, environ_update={"LC_ALL": "C"}, handle_exceptions=False
            )
        except OSError as e:
            return 1, "", str(e)
        return code, out, err

    return Look(run)


def _mistakes(options: dict[str, t.Any]) -> t.Iterator[str]:
    if not re.fullmatch(r"[0-9a-f]{16}", options["run"]):
        yield "run: not 16 hexadecimal digits"
    if not 1 <= options["port"] <= 65535:
        yield f"port: {options['port']} is not in 1..65535"
    for address, size in options["sizes"].items():
        try:
            ipaddress.IPv4Address(address)
        except ValueError as e:
            yield f"sizes: {e}"
        if not re.fullmatch(r"\d{3,5}", str(size)) or not _underlay.SMALL < int(size) <= 65535:
            yield f"sizes: {address}: {size} is not in {_underlay.SMALL + 1}..65535"
    if options["address"] not in options["sizes"]:
        yield f"address: {options['address']} is not in sizes"
    for name, least, most in (("count", 1, 3600), ("wait", 0, 3600), ("timeout", 0, _underlay.LONGEST)):
        if not least <= options[name] <= most:
            yield f"{name}: {options[name]} is not in {least}..{most}"
    if options["network"]:
        try:
            if ipaddress.IPv4Network(options["network"]).prefixlen > 30:
                yield f"network: {options['network']} has no room for pods"
        except ValueError as e:
            yield f"network: {e}"


if __name__ == "__main__":
    main()
