# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The paths between hosts, by what their probes told: which do not carry the overlay's packets, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._preflight import ERROR, WARNING, Finding, Prober
from ._readers import LOWEST_MTU, OVERHEAD
from ._shares import some
from ._underlay import FORBIDDEN

MOST_WAYS = 30
"""Findings of one fault between hosts, one for each host in its middle; what is beyond is counted."""
_NAMES = 5  # of hosts in one finding
_UNKNOWN = "by which rule is not known"

Pair = tuple[str, str]


@dataclass(frozen=True)
class _Fault:
    """What is wrong with pairs of hosts. ``{way}`` in its text is where; ``host`` where it is one host's own fault."""

    text: str
    remedy: str
    level: str = ERROR
    host: str = ""


class Paths:
    """The paths between the hosts that probed, and what is wrong with them."""

    def __init__(
        self,
        hosts: Mapping[str, Prober],
        outcomes: Mapping[str, Mapping[str, Mapping[str, Any]]],
        backend: str,
        port: int,
    ) -> None:
        """*outcomes*: for each host what podnet.overlay.underlay_probe returned as ``started``, ``sent``, ``stopped``."""
        self._hosts, self._outcomes, self._backend = hosts, outcomes, backend
        self._tunnel = {"ipip": "protocol 4 (IPIP)", "vxlan": f"UDP port {port} (VXLAN)"}.get(backend, "")
        self._names = {prober.address: name for name, prober in hosts.items()}
        self.silent = [*self._silence()]
        mute = {finding.host for finding in self.silent}
        self._probed = [name for name in hosts if name not in mute]
        self.tried = len(self._probed) * (len(self._probed) - 1)
        self._faults: dict[_Fault, set[Pair]] = {}
        self._told: dict[str, dict[str, Mapping[str, Any]]] = {}  # by sender, to an address
        self._passing: dict[Pair, int] = {}  # bytes of the largest packet, where it is not the one that it should be
        known = set(self._probed)
        for sender in self._probed:
            self._direct(sender, known)
        for receiver in self._probed if self._tunnel else ():
            self._tunnelled(receiver, known)
        self._too_small()

    @property
    def whole(self) -> int:
        """How many of the tried carry all that the overlay sends."""
        return self.tried - len(set().union(*self._faults.values()))

    def findings(self, group: str) -> Iterator[Finding]:
        """All that is wrong, what many hosts have in common told once."""
        yield from self.silent
        for fault, pairs in self._faults.items():
            for host, way in ways(pairs, self._probed):
                yield Finding(fault.host or host or group, fault.text.replace("{way}", way), fault.remedy, fault.level)

    def _silence(self) -> Iterator[Finding]:
        for name in self._hosts:
            for state in ("started", "sent", "stopped"):
                outcome = self._outcomes.get(name, {}).get(state) or {}
                wanted = {"started": "surroundings", "sent": "paths", "stopped": "listened"}[state]
                deaf = state == "stopped" and self._tunnel and not outcome.get("listened")
                if wanted not in outcome or deaf:
                    text = str(outcome.get("msg") or ("its listening ended early" if deaf else "no result"))
                    yield Finding(name, f"could not be probed: {text.splitlines()[0]:.300}", "")
                    break

    def _direct(self, sender: str, known: set[str]) -> None:
        """Hosts that need no tunnel between them: pings tell."""
        link = self._hosts[sender].link
        if not link and self._tunnel:
            return
        for group in self._outcomes[sender]["sent"]["paths"]:
            for address in group["to"]:
                to = self._names.get(address, "")
                if to not in known or not self._is_direct(sender, to):
                    continue
                full = min(self._hosts[sender].size, self._hosts[to].size)
                if not group["echo"]:
                    self._add(_nothing("echo requests do not get {way}", group["error"]), sender, to)
                elif group["echo"] < full:
                    self._passing[sender, to] = max(group["echo"], group["mtu"])

    def _is_direct(self, one: str, other: str) -> bool:
        return not self._tunnel or self._hosts[one].link == self._hosts[other].link != ""

    def _tunnelled(self, receiver: str, known: set[str]) -> None:
        """Hosts that reach each other through the tunnel: what came there tells, and what the sender knows says why not."""
        for group in self._outcomes[receiver]["stopped"]["partial"]:
            for address in group["from"]:
                sender = self._names.get(address, "")
                if sender in known and not self._is_direct(sender, receiver):
                    self._judge(sender, receiver, group)

    def _judge(self, sender: str, receiver: str, heard: Mapping[str, Any]) -> None:
        what = self._tunnel
        if heard["seen"] > heard["delivered"]:
            self._add(self._on_entry(receiver, heard), sender, receiver)
            return
        if heard["delivered"]:
            if heard["source"]:
                text = f"what gets {{way}} comes from {heard['source']}: something translates addresses on the way"
                remedy = (
                    "take it away; overlay_public_ip has to be the address that the other hosts see, and the host's own"
                )
                self._add(_Fault(text, remedy), sender, receiver)
            if heard["delivered"] < min(self._hosts[sender].size, self._hosts[receiver].size):
                self._passing[sender, receiver] = max(heard["delivered"], self._sent(sender, receiver)["mtu"])
            return
        sent = self._sent(sender, receiver)
        if sent["error"] == FORBIDDEN:
            text = f"its own rules forbid {what} {{way}}: {sent['rule'] or _UNKNOWN}"
            self._add(_Fault(text, f"let {what} pass there", host=sender), sender, receiver)
        elif sent["echo"]:
            said = f" ({sent['error']})" if sent["error"] else ""
            self._add(
                _Fault(f"{what} does not get {{way}}, and echo requests do: it is filtered{said}", self._open()),
                sender,
                receiver,
            )
        else:
            self._add(_nothing(f"neither {what} nor echo requests get {{way}}", sent["error"]), sender, receiver)

    def _on_entry(self, receiver: str, heard: Mapping[str, Any]) -> _Fault:
        """The receiver itself drops what comes to its interface."""
        firewalls = self._outcomes[receiver]["started"]["surroundings"]["firewalls"]
        over = f" over {heard['delivered']} bytes" if heard["delivered"] else ""
        text = f"drops {self._tunnel}{over} {{way}}: {heard['text'] or _UNKNOWN}"
        if heard["fault"] == "rp_filter":
            remedy = (
                f"repair the way back, or set net.ipv4.conf.{heard['interface']}.rp_filter and that of all to 2 (loose)"
            )
            return _Fault(f"its rp_filter {text}", remedy, host=receiver)
        answering = next((name for name in firewalls if _belongs(name, heard["text"])), "")
        if answering:
            return _Fault(f"its {answering} {text}", "overlay.yml has it let through", WARNING, receiver)
        return _Fault(text, f"let {self._tunnel} pass there", host=receiver)

    def _open(self) -> str:
        """The remedy for a protocol that is filtered between hosts."""
        if self._backend == "ipip":
            return "let protocol 4 pass (security groups, ACLs, routers), or set overlay_backend: vxlan"
        return "let it pass (security groups, ACLs, routers), or choose another overlay_port"

    def _sent(self, sender: str, receiver: str) -> Mapping[str, Any]:
        if sender not in self._told:
            groups = self._outcomes[sender]["sent"]["paths"]
            self._told[sender] = {address: group for group in groups for address in group["to"]}
        return self._told[sender].get(self._hosts[receiver].address, {"error": "", "mtu": 0, "echo": 0, "rule": ""})

    def _too_small(self) -> None:
        """Paths that do not take the largest packets; what would help all of them is in each remedy."""
        if not self._passing:
            return
        least = min(self._passing.values()) - OVERHEAD[self._backend]
        remedy = "a larger MTU on the way"
        if least >= LOWEST_MTU:
            remedy = f"overlay_mtu: {least} for the group, or {remedy}"
        for (sender, receiver), size in self._passing.items():
            full = min(self._hosts[sender].size, self._hosts[receiver].size)
            text = f"of packets without fragmentation at most {size} of {full} bytes get {{way}}"
            self._add(_Fault(text, remedy), sender, receiver)

    def _add(self, fault: _Fault, sender: str, receiver: str) -> None:
        self._faults.setdefault(fault, set()).add((sender, receiver))


def _nothing(text: str, error: str) -> _Fault:
    said = f" ({error})" if error else ""
    return _Fault(text + said, "repair the routes between their addresses, or let them through")


def _belongs(firewall: str, text: str) -> bool:
    """Whether a rule is that of a firewall where the overlay asks for what it needs itself; so is what nobody can name."""
    if firewall == "firewalld":
        return not text or "table inet firewalld " in text or "table ip firewalld " in text
    return firewall == "ufw" and (not text or "ufw-" in text or "chain INPUT: policy" in text)


def ways(pairs: Iterable[Pair], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of hosts in few words, each with the host in its middle, '' where it is all of them."""
    left = set(pairs)
    others = len(names) - 1
    if others > 1 and len(left) == len(names) * others:
        yield "", "between any two hosts"
        return
    order = {name: place for place, name in enumerate(names)}
    for _number in range(MOST_WAYS):
        if not left:
            return
        out, into = Counter(a for a, _b in left), Counter(b for _a, b in left)
        both = Counter(a for a, b in left if (b, a) in left)
        stars = [(2 * both[name], 3, name) for name in both]
        stars += [(out[name], 2, name) for name in out] + [(into[name], 1, name) for name in into]
        _size, kind, host = max(stars, key=lambda star: (star[0], star[1], -order[star[2]]))
        if kind == 3:
            ends = [b for a, b in left if a == host and (b, a) in left]
            left -= {(host, end) for end in ends} | {(end, host) for end in ends}
        elif kind == 2:
            ends = [b for a, b in left if a == host]
            left -= {(host, end) for end in ends}
        else:
            ends = [a for a, b in left if b == host]
            left -= {(end, host) for end in ends}
        whom = "any other host" if len(ends) == others > 1 else some(sorted(ends, key=order.__getitem__), _NAMES)
        yield host, (f"from {whom} to {host}", f"from {host} to {whom}", f"between {host} and {whom}")[kind - 1]
    if left:
        yield "", f"between {len(left)} more pairs of hosts"
