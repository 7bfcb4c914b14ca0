# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would stop the overlay: findings from the plan's mistakes and from what the hosts said. Pure.

A finding is a blocker on a host, its remedy, and whether it is an error, with which the overlay does not work, or a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ._facts import Facts, Underlay, fit, lacks
from ._inventory import Node, Settings
from ._readers import OVERHEAD
from ._surroundings import OWN_NETWORK_FILE

ERROR, WARNING = "error", "warning"
_FORWARDED = "packets to and from pods are forwarded"  # how node_info says why a policy of FORWARD matters


@dataclass(frozen=True)
class Finding:
    """What stops, or may stop, the overlay. ``host`` is the group's name where it is about all."""

    host: str
    blocker: str
    remedy: str
    level: str = ERROR

    def data(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Prober:
    """A host that probes: its address, the largest packet of the overlay's that it sends and takes, and the underlay's
    interface. Hosts with the same ``link``, which is not empty, send each other no tunnel's packets."""

    address: str
    size: int
    interface: str = ""
    link: str = ""


# ------------------------------------------------------------------------------------------------ before the probes


def probers(settings: Settings, underlays: Mapping[str, Underlay]) -> dict[str, Prober]:
    """Who probes. A host whose interface is too small for the overlay probes with what it has: the plan complains."""
    found: dict[str, Prober] = {}
    direct = settings.direct_routing or settings.backend == "host-gw"
    taken: set[str] = set()
    for name, underlay in underlays.items():
        if underlay.public_ip in taken:
            continue  # the plan complains of that too
        taken.add(underlay.public_ip)
        try:
            size = fit(settings, underlay) + OVERHEAD[settings.backend]
        except ValueError:
            size = underlay.mtu
        link = str(underlay.network) if direct else ""
        found[name] = Prober(underlay.public_ip, size, underlay.interface, link)
    return found


def of_line(line: str, names: Iterable[str], group: str, level: str) -> Finding:
    """A line of the plan, ``HOST: what; remedy``, as a finding."""
    host, _colon, rest = line.partition(": ")
    if not rest or host.split(",")[0] not in {*names, group}:
        host, rest = group, line
    what, semicolon, remedy = rest.rpartition("; ")
    return Finding(host, what if semicolon else rest, remedy if semicolon else "", level)


def of_silence(host: str, outcome: Mapping[str, Any]) -> Finding | None:
    """What a host that could not be looked at has said."""
    text = " ".join(str(outcome.get(key) or "") for key in ("msg", "module_stderr", "module_stdout")).strip()
    first = (text.splitlines() or [""])[0].replace("Task failed: ", "", 1)[:160]
    if outcome.get("unreachable"):
        remedy = "repair its connection (ansible_host, SSH); overlay.yml leaves the host as it is, and the others know it by its lease"
        return Finding(host, f"cannot be reached: {first}", remedy)
    if outcome.get("failed"):
        if "python" in text.lower() and ("not found" in text or "No such file" in text or "discover" in text):
            return Finding(
                host, f"no Python for Ansible: {first}", "install python3, or set ansible_python_interpreter"
            )
        what, colon, remedy = first.rpartition(": ")
        return Finding(host, what, remedy) if colon else Finding(host, f"cannot be looked at: {first}", "")
    if "version" not in outcome:
        return Finding(host, "was not asked", "run on it too, or see what failed before")
    return None


def of_facts(host: str, facts: Facts, node: Node, *, probes: bool) -> Iterator[Finding]:
    """What a host lacks and what stands in the way there; what is fatal, the plan has told. Where the host PROBES, what it
    forwards is judged there."""
    if node.install and facts.os_family and (packages := lacks(facts)):
        yield Finding(host, f"lacks {', '.join(packages)}", "overlay.yml installs it (overlay_install)", WARNING)
    for item in facts.obstacles:
        if not item["fatal"] and not (probes and item["why"].startswith(_FORWARDED)):
            yield Finding(host, f"{item['what']:.300}", f"{item['remedy']:.300}", WARNING)


# ------------------------------------------------------------------------------------------------ after the probes


def of_surroundings(host: str, told: Mapping[str, Any]) -> Iterator[Finding]:
    """Who else has to do with a host's network."""
    for name in told.get("overlays") or ():
        remedy = "stop it, or give this overlay an overlay_network, overlay_bridge and overlay_tunnel of its own"
        yield Finding(host, f"{name} runs there", remedy, WARNING)
    for path, links in (told.get("takers") or {}).items():
        remedy = f"name it so that it comes after {OWN_NETWORK_FILE}, or give it a narrower [Match]"
        yield Finding(host, f"{path} has systemd-networkd configure {', '.join(links)}", remedy)
    for item in told.get("forward") or ():
        sure = item["surely"]
        yield Finding(
            host,
            f"{item['text']:.300} {'drops' if sure else 'may drop'} what pods send to other nodes",
            "accept overlay_network there, as source and as destination",
            ERROR if sure else WARNING,
        )
