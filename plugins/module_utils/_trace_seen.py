# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A trace and what was captured on its hosts: the frame of each hop, and where a probe was lost and why. Pure."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ._icmp import Answer
from ._trace import Data, Leg, Seen, Stop, Trace, at, fault, innermost

_TYPES = {"request": 8, "reply": 0}  # of ICMP, RFC 792
ERRORS = {  # ICMP type and code: what it is a sign of
    (3, 0): "no_route",
    (3, 1): "no_neighbour",
    (3, 2): "tunnel_missing",
    (3, 3): "tunnel_missing",
    (3, 4): "mtu",
    (3, 9): "filtered",
    (3, 10): "filtered",
    (3, 13): "filtered",
    (11, 0): "loop",
}
OTHER_ERROR = "refused"
_REMEDIES = {
    "no_route": "give the sender of the message a route to that address",
    "no_neighbour": "see whether the destination is up and on the network that the sender of the message looks for it",
    "tunnel_missing": "run overlay.yml, which brings the tunnel of the host that says so",
    "mtu": "set overlay_mtu to that less the tunnel's bytes, or raise the MTU there",
    "filtered": "let it pass in the firewall of the sender of the message",
    "loop": "overlay.yml --check --diff on both hosts shows the route that points back",
    "filter": "take that rule away, or let the overlay's network pass before it",
}


def witness(
    trace: Trace,
    frames: Mapping[str, Sequence[Data]],
    verdicts: Mapping[str, Sequence[Data]],
    pings: Sequence[Data],
    notes: Sequence[str] = (),
) -> Trace:
    """The trace with the probe's frames at its hops, and where a lost one was seen last.

    Args:
        trace: the path as the hosts explain it.
        frames: by node that was captured on, decoded.
        verdicts: by node what nft traced.
        pings: the paths that podnet.overlay.ping answered on the source's node; empty if nothing was sent.
        notes: of the capture.
    """
    probe, underlay = _outcomes(trace.flow, pings)
    marked = f"the probe had no mark: what is explained for {trace.mark:#x} may not be what was seen"
    notes = [*notes, marked] if probe and trace.mark else notes
    trace = dataclasses.replace(trace, probe=probe, underlay=underlay, notes=tuple(notes))
    if not frames and not pings:
        return trace
    identifier = probe.get("identifier") if probe else None
    errors = {says: word for own in frames.values() for word, says in _errors(trace, own, identifier)}
    trace = dataclasses.replace(trace, legs=_sight(trace.legs, frames, identifier, probe), errors=tuple(errors))
    if any(problem.fatal for problem in trace.problems) or (probe and probe["received"] >= probe["sent"]):
        return trace
    return _diagnosed(trace, errors, verdicts)


def _outcomes(flow: Data, pings: Sequence[Data]) -> tuple[Data | None, Data | None]:
    """Ping's result for the path and for the underlay."""
    by = {(path["namespace"], path["address"]): path for path in pings}
    namespace = flow["from"].split("@")[0]
    first = next((path for path in pings if path["address"] == flow["destination"]), None)
    underlay = by.get(("", flow["underlay"][1])) if len(flow.get("underlay") or ()) > 1 else None
    return by.get((namespace, flow["destination"]), first), underlay


def _sight(
    legs: Sequence[Leg], frames: Mapping[str, Sequence[Data]], identifier: int | None, probe: Data | None
) -> tuple[Leg, ...]:
    """The legs with the frames of one request and its reply: of a lost one, if any was."""
    changed = _translated(legs)
    ours = {node: [frame for frame in own if _is_probe(frame, identifier, changed)] for node, own in frames.items()}
    sequences = sorted({frame["icmp"]["seq"] for own in ours.values() for frame in own})
    sights = [
        tuple(_sighted(leg, {node: _of(own, sequence) for node, own in ours.items()}) for leg in legs)
        for sequence in sequences or [0]
    ]
    counts = [sum(stop.seen is not None for leg in sight for stop in leg.stops) for sight in sights]
    lost = probe is not None and probe["received"] < probe["sent"]
    return sights[counts.index((min if lost else max)(counts))]


def _translated(legs: Sequence[Leg]) -> set[tuple[str, str]]:
    """The addresses that the probe and its answer have where a rule has changed them. Their identifier may be another too."""
    found = set()
    for leg in legs:
        ends = [(packet["src"], packet["dst"]) for packet in (innermost(stop.hop["packet"]) for stop in leg.stops)]
        found |= set(ends) - {ends[0] if leg.name == "request" else ends[-1]} if ends else set()
    return found


def _is_probe(frame: Data, identifier: int | None, translated: set[tuple[str, str]]) -> bool:
    icmp, packet = frame.get("icmp") or {}, (frame.get("ip") or [{}])[-1]
    ours = identifier in (None, icmp.get("id")) or (packet.get("src"), packet.get("dst")) in translated
    return icmp.get("type") in _TYPES.values() and ours


def _of(frames: Sequence[Data], sequence: int) -> list[Data]:
    return sorted((f for f in frames if f["icmp"]["seq"] == sequence), key=lambda frame: float(frame["time"]))


def _sighted(leg: Leg, frames: Mapping[str, list[Data]]) -> Leg:
    left = {node: [f for f in own if f["icmp"]["type"] == _TYPES[leg.name]] for node, own in frames.items()}
    stops = []
    for stop in leg.stops:
        own = left.get(stop.node, [])
        place = (stop.hop.get("namespace") or "", stop.hop["interface"])
        match = next((f for f in own if (f.get("namespace") or "", f["interface"]) == place), None)
        seen = None
        if match is not None:
            own.remove(match)  # a frame that goes in and out of one interface is two hops
            since = round((match["time"] - frames[stop.node][0]["time"]) * 1000, 3)
            seen = Seen(match["time"], since, match["length"], match["ip"][-1]["ttl"], match.get("text", ""))
        stops.append(dataclasses.replace(stop, captured=stop.node in frames, seen=seen))
    return dataclasses.replace(leg, stops=tuple(stops))


def _errors(trace: Trace, frames: Sequence[Data], identifier: int | None) -> Iterator[tuple[str, str]]:
    """The ICMP errors about the probe or its tunnel: what each is a sign of, and its words with who says so."""
    packets = [stop.hop["packet"] for leg in trace.legs for stop in leg.stops]
    size, ours = trace.flow["size"], {_wire(packet) for packet in packets if packet.get("inner")}
    for frame in frames:
        icmp = frame.get("icmp") or {}
        about = icmp.get("about") or {}
        echo = (about.get("icmp") or {}).get("id")
        mine = identifier in (None, echo) if echo is not None else bool(about) and _wire(about) in ours
        if icmp.get("type") in (3, 11) and mine:
            kind = (icmp["type"], icmp.get("code", 0))
            answer = Answer(0, 0, frame["ip"][-1]["src"], 0, *kind, icmp.get("mtu") or 0)
            yield ERRORS.get(kind, OTHER_ERROR), answer.complaint(size)


def _wire(packet: Data) -> tuple[t.Any, ...]:
    """What tells a tunnel's packets from others. The source port of VXLAN is a hash."""
    return packet["src"], packet["dst"], packet["protocol"], packet.get("dport") or None


def _diagnosed(trace: Trace, errors: Mapping[str, str], verdicts: Mapping[str, Sequence[Data]]) -> Trace:
    """The trace with the place that the probe was last seen at as a problem."""
    path = [(leg.name, stop) for leg in trace.legs for stop in leg.stops if stop.captured]
    last = max((i for i, (_leg_name, stop) in enumerate(path) if stop.seen), default=-1)
    if last == len(path) - 1 and (trace.probe is None or trace.silent):
        return trace  # all that can be known was seen
    before = path[last] if last >= 0 else None
    after = path[last + 1] if last + 1 < len(path) else None
    leg, stop = before or after or (trace.legs[0].name, None)
    if before and after and before[0] != after[0]:
        leg, stop = after  # delivered, and not answered
    found = _loss(trace, before, after, errors, verdicts)
    problem = at(leg, stop, node=trace.flow["nodes"][0], **found)
    legs = [
        dataclasses.replace(item, end="broken", problems=(*item.problems, problem)) if item.name == leg else item
        for item in trace.legs
    ]
    return dataclasses.replace(trace, legs=tuple(legs[: [item.name for item in legs].index(leg) + 1]))


def _loss(
    trace: Trace,
    before: tuple[str, Stop] | None,
    after: tuple[str, Stop] | None,
    errors: Mapping[str, str],
    verdicts: Mapping[str, Sequence[Data]],
) -> dict[str, t.Any]:
    probe = trace.probe or {}
    for says, word in errors.items():
        return fault(word, says, _REMEDIES.get(word, "look at the sender of the message"))
    here, there = (place[1] if place else None for place in (before, after))
    if here and there and here.node != there.node:
        return _between(trace, here, there)
    node = here.node if here else there.node if there else trace.flow["nodes"][0]
    for verdict in verdicts.get(node, ()):
        if verdict["verdict"] == "drop" and (verdict.get("icmp") or {}).get("id") in (None, probe.get("identifier")):
            return fault("filtered", _ruled(verdict), _REMEDIES["filter"])
    if here is None:
        return fault("not_sent", probe.get("error") or "no frame left", "see whether the pod has its link, up")
    if there is None:
        return fault("no_answer", probe.get("error") or "no answer", "see what the last hop's host says")
    if before and after and before[0] != after[0]:
        remedy = f"look into {trace.flow['to']}: its routes, its own rules, net.ipv4.icmp_echo_ignore_all"
        return fault("no_answer", "the request was delivered, and no reply came out", remedy)
    reason = f"seen at {here.where} and not at {there.where}; nft traced no rule that drops it"
    for doubt in trace.problems:  # rules of iptables-legacy are not in nft's trace
        where = (doubt.leg, doubt.number)
        if (
            doubt.fault == "may_be_filtered"
            and before
            and where in ((before[0], here.number), (before[0], there.number))
        ):
            reason += f"; {doubt.reason}"
    remedy = f"on {node}: nstat -az | grep -iE 'drop|discard|filter'; ip -s link show; bridge link show"
    return fault("lost_in_host", reason, remedy)


def _between(trace: Trace, here: Stop, there: Stop) -> dict[str, t.Any]:
    """Lost on the underlay."""
    tried, packet = trace.underlay, here.hop["packet"]
    way = f"left {here.node} by {here.where} and never came in at {there.where} of {there.node}"
    if tried and not tried["received"]:
        reason = f"{way}; a ping between the public addresses is lost as well: {tried['error']}"
        return fault("underlay_down", reason, "repair the network between the hosts; the overlay is not the cause")
    answered = "; a ping between the public addresses is answered" if tried else ""
    smaller = (
        "" if trace.flow["size"] <= 548 else "; or its MTU is too small: does -e size=84 pass? Then set overlay_mtu"
    )
    if not packet.get("inner"):
        remedy = (
            "allow the pods' addresses on the port (AWS: source/destination check; OpenStack: allowed address pairs)"
        )
        return fault("lost_between_hosts", way + answered + "; pods' addresses are filtered", remedy + smaller)
    if packet["protocol"] == "ipip":
        remedy = (
            "security group and firewall must let IP protocol 4 pass; Azure always drops it: overlay_backend: vxlan"
        )
        return fault("lost_between_hosts", f"{way}{answered}; IP protocol 4 is filtered on the way", remedy + smaller)
    port = f"UDP port {packet.get('dport')}"
    remedy = f"security group and firewall must let {port} pass"
    return fault("lost_between_hosts", f"{way}{answered}; {port} is filtered on the way", remedy + smaller)


def _ruled(verdict: Data) -> str:
    place = "{hook}, table {family} {table} chain {chain}: {text}".format(**verdict)
    return f"dropped at {place}" + (f" (in namespace {verdict['namespace']})" if verdict.get("namespace") else "")
