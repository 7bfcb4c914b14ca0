# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why this host drops what the overlay sends, takes in or forwards: judged from its routes and rules, read only."""

from __future__ import annotations

import ipaddress
import typing as t

from . import _rules
from ._look import Look
from ._node import OWN_TABLE, answered
from ._rules import Host, Meta, Ruling

Facts = dict[str, t.Any]


def on_entry(look: Look, protocol: int, port: int, address: str, peer: str, interface: str) -> Facts:
    """Why a packet of PEER's that came to INTERFACE did not get past the host's own rules."""
    back = look.route("", peer)
    settings = [look.sysctl("", f"net/ipv4/conf/{name}/rp_filter") for name in ("all", interface)]
    strict = max((int(value) for value in settings if value.isdigit()), default=0)
    if strict and (back.error or (strict == 1 and back.dev != interface)):
        where = f"by {back.dev}" if back.dev else f"nowhere ({back.error})"
        return {"fault": "rp_filter", "text": f"it comes by {interface}, and its way back is {where}"}
    meta = Meta(iif=interface, src=peer, dst=address, protocol=protocol, df=True, dport=port or None)
    here = Host(lambda asked: "local" if asked == address else None)
    listing, _unread = look.rules("")
    rulings = [r for hook in ("prerouting", "input") for r in _rules.judge(listing, hook, "ip", meta, here)]
    return _first(rulings)


def on_exit(look: Look, protocol: int, port: int, address: str, peer: str) -> Facts:
    """Which rule forbids a packet to PEER."""
    device = look.route("", peer, address).dev
    meta = Meta(oif=device, src=address, dst=peer, protocol=protocol, df=True, dport=port or None)
    listing, _unread = look.rules("")
    rulings = [r for hook in ("output", "postrouting") for r in _rules.judge(listing, hook, "ip", meta)]
    return _first(rulings)


def on_forward(look: Look, network: str, bridge: str, out: str) -> list[Facts]:
    """The rules that stop, or may stop, what pods of NETWORK send to another node's and get from there.

    Our own table, and those where the overlay itself asks for what it needs, do not count.
    """
    listing, _unread = look.rules("")
    chains: dict[tuple[str, str], list[str]] = {}
    for item in listing:
        if "chain" in item:
            chains.setdefault((item["chain"]["family"], item["chain"]["table"]), []).append(item["chain"]["name"])
    spared = {key for key, names in chains.items() if key[1] == OWN_TABLE or answered(key[1], names)}
    others = [item for item in listing if not any(_table(body) in spared for body in item.values())]
    pods = ipaddress.IPv4Network(network)
    ends = [str(pods[2]), str(pods[-2])]
    found: dict[str, Facts] = {}
    for iif, oif in ((bridge, out), (out, bridge)):
        for ruling in _rules.judge(
            others, "forward", "ip", Meta(iif=iif, oif=oif, src=ends[0], dst=ends[1], protocol=6)
        ):
            if ruling.stops or ruling.verdict == "may drop":
                text = _text(ruling)
                found[text] = {"text": text, "surely": ruling.stops and found.get(text, {}).get("surely", True)}
    return list(found.values())


def _table(body: t.Any) -> tuple[str, str]:
    if not isinstance(body, dict):
        return "", ""
    return str(body.get("family", "")), str(body.get("table", ""))


def _first(rulings: t.Sequence[Ruling]) -> Facts:
    """The first that stops, else one that may, else nothing that is known."""
    stopping = [r for r in rulings if r.stops] or [r for r in rulings if r.verdict == "may drop"]
    if not stopping:
        return {"fault": "unknown", "text": ""}
    return {"fault": "rule", "text": _text(stopping[0])}


def _text(ruling: Ruling) -> str:
    return f"{ruling.where}: {ruling.rule}"
