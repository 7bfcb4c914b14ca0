# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A path from one end to the other: what each host explained, what was seen there, and where it breaks. Pure.

The walks of podnet.overlay.walk are joined hop after hop, the frames of podnet.overlay.capture are laid beside them,
and what is in the one and not in the other is where packets are lost.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ._icmp import Answer

Data = Mapping[str, t.Any]

_LEGS = {"request": 8, "reply": 0}  # ICMP types of RFC 792
_ERRORS = {  # ICMP type and code: what it is a sign of
    (3, 0): "no_route",
    (3, 1): "no_neighbour",
    (3, 2): "no_tunnel_for_outer",
    (3, 4): "mtu",
    (3, 9): "filtered",
    (3, 10): "filtered",
    (3, 13): "filtered",
    (11, 0): "routing_loop",
}
_REMEDIES = {
    "no_route": "give the sender of the message a route to that address",
    "no_neighbour": "see whether the destination is up and on the network that the sender of the message looks for it",
    "no_tunnel_for_outer": "run overlay.yml, which brings the tunnel of the host that says so",
    "mtu": "set overlay_mtu to that less the tunnel's bytes, or raise the MTU there",
    "filtered": "let it pass in the firewall of the sender of the message",
    "routing_loop": "overlay.yml --check --diff on both hosts shows the route that points back",
    "filter": "take that rule away, or let the overlay's network pass before it",
}
_CONVERGE = "run overlay.yml; with --check --diff it shows what differs"


@dataclass(frozen=True)
class Problem:
    """What is wrong at a hop."""

    leg: str
    node: str
    number: int  # of the hop in its leg; 0 before the first
    where: str
    fault: str
    reason: str
    remedy: str
    fatal: bool = True

    @property
    def what(self) -> str:
        return self.fault.replace("_", " ")


@dataclass(frozen=True)
class Seen:
    """The probe's frame at a hop."""

    time: float
    since_ms: float  # from the probe's first frame on that host
    length: int
    ttl: int
    text: str  # in tcpdump's manner


@dataclass(frozen=True)
class Stop:
    """A hop in its place on the path."""

    node: str
    number: int
    hop: Data
    captured: bool = False
    seen: Seen | None = None

    @property
    def where(self) -> str:
        """Namespace and interface."""
        return "/".join(filter(None, (self.hop.get("namespace"), self.hop["interface"])))

    @property
    def ttl(self) -> int:
        """The innermost header's."""
        return int(innermost(self.hop["packet"])["ttl"])

    @property
    def path_mtu(self) -> int:
        """The largest innermost packet that passes here."""
        packet = self.hop["packet"]
        return int(self.hop["mtu"] - (packet["length"] - innermost(packet)["length"]))


@dataclass(frozen=True)
class Leg:
    """One direction. ``end`` is delivered, broken, or unknown where a host did not tell."""

    name: str
    stops: tuple[Stop, ...]
    end: str
    problems: tuple[Problem, ...] = ()

    @property
    def path_mtu(self) -> int | None:
        return min((stop.path_mtu for stop in self.stops if stop.hop.get("mtu")), default=None)

    @property
    def ttl(self) -> int | None:
        return self.stops[-1].ttl if self.stops else None


@dataclass(frozen=True)
class Trace:
    """All that is known of a path. ``probe`` is ping's outcome, ``silent`` says why a host did not tell."""

    flow: Data
    legs: tuple[Leg, ...]
    silent: Mapping[str, str]
    probe: Data | None = None
    underlay: Data | None = None
    errors: tuple[str, ...] = ()  # of ICMP, with who sent them
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> list[Problem]:
        return [problem for leg in self.legs for problem in leg.problems]

    @property
    def works(self) -> bool:
        delivered = bool(self.legs) and all(leg.end == "delivered" for leg in self.legs)
        return delivered and not self.silent and not any(problem.fatal for problem in self.problems)

    @property
    def verdict(self) -> str:
        """A line."""
        ends = "{from} {verb} {to}".format(verb="reaches" if self.works else "does not reach", **self.flow)
        fatal = next((problem for problem in self.problems if problem.fatal), None)
        if fatal:
            place = f"{fatal.node}, {fatal.where} ({fatal.leg}, hop {fatal.number})" if fatal.number else fatal.node
            although = ", although the probe was answered" if self.probe and self.probe["received"] else ""
            return f"{ends}: {fatal.what} at {place}: {fatal.reason}{although}"
        if self.silent:
            told = "; ".join(f"{node}: {reason}" for node, reason in self.silent.items())
            tried = f"; {self.probe['received']} of {self.probe['sent']} probes were answered" if self.probe else ""
            return f"{self.flow['from']} to {self.flow['to']} cannot be told: {told}{tried}"
        if not self.works:
            return f"{ends}: the walk ends on the way"
        tries = "nothing was sent"
        if self.probe:
            mean = self.probe["rtt_ms"]["avg"] if self.probe.get("rtt_ms") else 0.0
            tries = f"{self.probe['received']} of {self.probe['sent']} probes answered, {mean:.2f} ms"
        back = " and back" if len(self.legs) > 1 else "; whose address it is, and so the way back, is not known here"
        mtus, ttls = (_both([getattr(leg, name) for leg in self.legs]) for name in ("path_mtu", "ttl"))
        return f"{ends}{back}: path MTU {mtus}, TTL {ttls} at the end, {tries}"

    def data(self) -> dict[str, t.Any]:
        """As podnet.overlay.trace returns it."""
        names = ("from", "to", "source", "destination", "size", "df")
        return {
            **{name: self.flow[name] for name in names},
            "works": self.works,
            "verdict": self.verdict,
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "legs": {
                leg.name: {
                    "end": leg.end,
                    "path_mtu": leg.path_mtu,
                    "ttl": leg.ttl,
                    "hops": [
                        {
                            "number": stop.number,
                            "node": stop.node,
                            **stop.hop,
                            "problems": [dataclasses.asdict(p) for p in leg.problems if p.number == stop.number],
                            "seen": dataclasses.asdict(stop.seen) if stop.seen else None,
                        }
                        for stop in leg.stops
                    ],
                }
                for leg in self.legs
            },
            "silent": dict(self.silent),
            "probe": self.probe,
            "underlay": self.underlay,
            "errors": list(self.errors),
            "notes": list(self.notes),
        }


def join(
    flow: Data,
    walks: Mapping[str, Data],
    silent: Mapping[str, str],
    frames: Mapping[str, Sequence[Data]],
    verdicts: Mapping[str, Sequence[Data]],
    pings: Sequence[Data],
    notes: Sequence[str] = (),
) -> Trace:
    """The path, as far as it goes.

    Args:
        flow: podnet.overlay.flow's answer.
        walks: by node the walks of podnet.overlay.walk.
        silent: by node why it has no walk, or no capture.
        frames: by node that was captured on, decoded.
        verdicts: by node what nft traced.
        pings: the paths that podnet.overlay.ping answered on the source's node; empty if nothing was sent.
        notes: of the capture.
    """
    legs: list[Leg] = []
    for name in _LEGS:
        nodes = flow["order"].get(name) or []
        if nodes and (not legs or legs[-1].end == "delivered"):
            legs.append(_leg(name, nodes, walks, flow))
    probe, underlay = _outcomes(flow, pings)
    trace = Trace(flow, tuple(legs), silent, probe, underlay, notes=tuple(notes))
    if not frames and not pings:
        return trace
    identifier = probe.get("identifier") if probe else None
    trace = dataclasses.replace(trace, legs=_sight(legs, frames, identifier, probe))
    errors = {says: fault for own in frames.values() for fault, says in _errors(own, flow["size"], identifier)}
    trace = dataclasses.replace(trace, errors=tuple(errors))
    if any(problem.fatal for problem in trace.problems) or (probe and probe["received"] >= probe["sent"]):
        return trace
    return _diagnosed(trace, errors, verdicts)


# ------------------------------------------------------------------------------------------------ what hosts explain


def _leg(name: str, nodes: Sequence[str], walks: Mapping[str, Data], flow: Data) -> Leg:
    stops: list[Stop] = []
    problems: list[Problem] = []
    key = name
    left: dict[str, t.Any] = {}
    for node, after in zip(nodes, [*nodes[1:], None]):
        walk = walks.get(node, {}).get(key)
        if walk is None:
            return Leg(name, tuple(stops), "unknown", tuple(problems))
        hops = _addressed(walk["hops"], left)
        stops += [Stop(node, number, hop) for number, hop in enumerate(hops, len(stops) + 1)]
        for stop in stops:
            if stop.node == node:
                problems += [_at(name, stop, **item) for item in stop.hop.get("problems") or ()]
        last = stops[-1] if stops else None
        if not any(problem.fatal for problem in problems):
            told = {problem.fault for problem in problems}
            key, found = _onward(name, walk, node, after, walks, flow)
            problems += [_at(name, last, node=node, **item) for item in found if item["fault"] not in told]
        if any(problem.fatal for problem in problems):
            return Leg(name, tuple(stops), "broken", tuple(problems))
        left = _left(walk)
        if after and left.get("next_hop") != _public_ip(flow, after):
            left["source_mac"] = None  # a router's is not known
    return Leg(name, tuple(stops), "delivered", tuple(problems))


def _at(leg: str, stop: Stop | None, node: str = "", **item: t.Any) -> Problem:
    values = {key: item[key] for key in ("fault", "reason", "remedy", "fatal") if key in item}
    return Problem(leg, stop.node if stop else node, stop.number if stop else 0, stop.where if stop else "", **values)


def _fault(fault: str, reason: str, remedy: str) -> dict[str, t.Any]:
    return {"fault": fault, "reason": reason, "remedy": remedy}


def _addressed(hops: Sequence[Data], left: Data) -> list[Data]:
    """The hops of an arrival with the MACs that only the sender could tell."""
    packet = left.get("packet") or {}
    inner = {name: packet[name] for name in ("inner_source_mac", "inner_destination_mac") if packet.get(name)}
    macs = [left.get("source_mac"), inner.get("inner_source_mac")]
    told = [{**hop, "source_mac": hop.get("source_mac") or mac} for hop, mac in zip(hops, macs)]
    if told and inner:
        told[0]["packet"] = {**told[0]["packet"], **inner}
    return [*told, *hops[len(told) :]]


def _left(walk: Data) -> dict[str, t.Any]:
    """How it left the host; the next hop is that of the last neighbour entry where it is not said."""
    last = walk["hops"][-1] if walk["hops"] else {}
    return {"next_hop": (last.get("neighbour") or {}).get("address"), **(walk.get("left") or {})}


def _public_ip(flow: Data, node: str) -> t.Any:
    return flow["underlay"][flow["nodes"].index(node)]


def _onward(
    name: str, walk: Data, node: str, after: str | None, walks: Mapping[str, Data], flow: Data
) -> tuple[str, list[dict[str, t.Any]]]:
    """Under which key the next host walked what leaves this one, and what is wrong with it."""
    end, left = walk["end"], _left(walk)
    target = flow["destination" if name == "request" else "source"]
    if end == "broken":
        return name, [_fault("broken", "the walk ends here, without a word why", "look at its notes")]
    if after is None:
        if end == "delivered":
            return name, []
        reason = f"it leaves by {left.get('interface')} towards {left.get('next_hop')}, but {target} is on this host"
        return name, [_fault("no_route", reason, _CONVERGE)]
    if end == "delivered":
        reason = f"it is delivered here, but {target} is on {after}: two have that address"
        return name, [_fault("duplicate_address", reason, f"take {target} from the one here")]
    return _crossing(name, left, node, after, walks, flow)


def _crossing(
    name: str, left: Data, node: str, after: str, walks: Mapping[str, Data], flow: Data
) -> tuple[str, list[dict[str, t.Any]]]:
    """What leaves one host against what the other has walked as arriving."""
    packet, tunnelled = left["packet"], bool(left["packet"].get("inner"))
    arrivals = {key: flow["packets"][after].get(key) for key in (name, f"{name}-direct")}
    key = next((key for key, item in arrivals.items() if item and bool(item.get("outer")) == tunnelled), None)
    if key is None:
        reason = "it leaves {} a tunnel, and {} awaits it {} one".format(
            *(("in", after, "without") if tunnelled else ("without", after, "in"))
        )
        return name, [_fault("wrong_gateway", reason, _CONVERGE)]
    address = _public_ip(flow, after)
    outer = (arrivals[key] or {}).get("outer")
    faults = []
    if outer:
        wanted = [("dst", "wrong_gateway"), ("src", "wrong_local"), ("vni", "no_tunnel_for_outer")]
        for field, fault in [*wanted, ("port", "no_tunnel_for_outer")]:
            has = packet.get("dport" if field == "port" else field)
            if field in outer and has is not None and str(has) != str(outer[field]):
                words = {"src": "outer source", "dst": "outer destination"}.get(field, field)
                faults.append(_fault(fault, f"its {words} is {has}, and {after} awaits {outer[field]}", _CONVERGE))
    elif (flow["packets"][node][name].get("overlay") or {}).get("remote") and left.get("next_hop") not in (
        None,
        address,
    ):
        faults.append(_fault("wrong_gateway", f"it goes to {left['next_hop']}, and {after} is {address}", _CONVERGE))
    hops = walks.get(after, {}).get(key, {}).get("hops") or []
    return key, [*faults, *_stale(left, hops, node, after, address)]


def _stale(left: Data, hops: Sequence[Data], node: str, after: str, address: str) -> Iterator[dict[str, t.Any]]:
    """A neighbour entry that names another MAC than the receiver has: of the underlay, and inside of a vxlan."""
    pairs = []
    if hops and left.get("next_hop") == address:  # else the frame goes to a router
        pairs.append((left.get("destination_mac"), hops[0], f"to {address} dev {left['interface']}"))
    if len(hops) > 1 and hops[1].get("kind") == "vxlan":
        pairs.append((left["packet"].get("inner_destination_mac"), hops[1], f"dev {hops[1]['interface']}"))
    for used, hop, entry in pairs:
        has = hop.get("destination_mac")
        if used and has and used.lower() != has.lower():
            reason = f"{node} sends to {used}, and {hop['interface']} of {after} has {has}"
            remedy = f"on {node}: ip neigh flush {entry} nud all; if the entry comes back, find out who writes it"
            yield _fault("stale_neighbour", reason, remedy)


def innermost(packet: Data) -> Data:
    """What the tunnels of a packet carry."""
    while packet.get("inner"):
        packet = packet["inner"]
    return packet


def _both(values: list[int | None]) -> str:
    return str(values[0]) if len(set(values)) == 1 else " there, ".join(str(value) for value in values) + " back"


# ------------------------------------------------------------------------------------------------ what is seen


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
    ours = {node: [frame for frame in own if _is_probe(frame, identifier)] for node, own in frames.items()}
    sequences = sorted({frame["icmp"]["seq"] for own in ours.values() for frame in own})
    sights = [
        tuple(_sighted(leg, {node: _of(own, sequence) for node, own in ours.items()}) for leg in legs)
        for sequence in sequences or [0]
    ]
    counts = [sum(stop.seen is not None for leg in sight for stop in leg.stops) for sight in sights]
    lost = probe is not None and probe["received"] < probe["sent"]
    return sights[counts.index((min if lost else max)(counts))]


def _is_probe(frame: Data, identifier: int | None) -> bool:
    icmp = frame.get("icmp") or {}
    return icmp.get("type") in _LEGS.values() and (identifier is None or icmp.get("id") == identifier)


def _of(frames: Sequence[Data], sequence: int) -> list[Data]:
    return sorted((f for f in frames if f["icmp"]["seq"] == sequence), key=lambda frame: float(frame["time"]))


def _sighted(leg: Leg, frames: Mapping[str, list[Data]]) -> Leg:
    left = {node: [f for f in own if f["icmp"]["type"] == _LEGS[leg.name]] for node, own in frames.items()}
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


def _errors(frames: Sequence[Data], size: int, identifier: int | None) -> Iterator[tuple[str, str]]:
    """The ICMP errors about the probe: what each is a sign of, and its words with who says so."""
    for frame in frames:
        icmp = frame.get("icmp") or {}
        about = ((icmp.get("about") or {}).get("icmp") or {}).get("id")
        if icmp.get("type") in (3, 11) and (about is None or identifier is None or about == identifier):
            kind = (icmp["type"], icmp.get("code", 0))
            answer = Answer(0, 0, frame["ip"][-1]["src"], 0, *kind, icmp.get("mtu") or 0)
            yield _ERRORS.get(kind, "refused"), answer.complaint(size)


# ------------------------------------------------------------------------------------------------ where it is lost


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
    problem = _at(leg, stop, node=trace.flow["nodes"][0], **found)
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
    some = f"{probe['sent'] - probe['received']} of {probe['sent']} probes lost; " if probe.get("received") else ""
    for says, fault in errors.items():
        return _fault(fault, some + says, _REMEDIES.get(fault, "look at the sender of the message"))
    here, there = (place[1] if place else None for place in (before, after))
    if here and there and here.node != there.node:
        return _between(trace, here, there, some)
    node = here.node if here else there.node if there else trace.flow["nodes"][0]
    for verdict in verdicts.get(node, ()):
        if verdict["verdict"] == "drop" and (verdict.get("icmp") or {}).get("id") in (None, probe.get("identifier")):
            return _fault("filtered", f"{some}{_ruled(verdict)}", _REMEDIES["filter"])
    if here is None:
        return _fault(
            "not_sent", f"{some}{probe.get('error') or 'no frame left'}", "see whether the pod has its link, up"
        )
    if there is None:
        return _fault("no_answer", f"{some}{probe.get('error') or 'no answer'}", "see what the last hop's host says")
    if before and after and before[0] != after[0]:
        remedy = f"look into {trace.flow['to']}: its routes, its own rules, net.ipv4.icmp_echo_ignore_all"
        return _fault("no_answer", f"{some}the request was delivered, and no reply came out", remedy)
    reason = f"{some}seen at {here.where} and not at {there.where}; nft traced no rule that drops it"
    remedy = f"on {node}: nstat -az | grep -iE 'drop|discard|filter'; ip -s link show; bridge link show"
    return _fault("lost_in_host", reason, remedy)


def _between(trace: Trace, here: Stop, there: Stop, some: str) -> dict[str, t.Any]:
    """Lost on the underlay."""
    tried, packet = trace.underlay, here.hop["packet"]
    way = f"{some}left {here.node} by {here.where} and never came in at {there.where} of {there.node}"
    if tried and not tried["received"]:
        reason = f"{way}; a ping between the public addresses is lost as well: {tried['error']}"
        return _fault("underlay_down", reason, "repair the network between the hosts; the overlay is not the cause")
    answered = "; a ping between the public addresses is answered" if tried else ""
    smaller = (
        "" if trace.flow["size"] <= 548 else "; or its MTU is too small: does -e size=84 pass? Then set overlay_mtu"
    )
    if not packet.get("inner"):
        remedy = (
            "allow the pods' addresses on the port (AWS: source/destination check; OpenStack: allowed address pairs)"
        )
        return _fault("lost_between_hosts", way + answered + "; pods' addresses are filtered", remedy + smaller)
    if packet["protocol"] == "ipip":
        remedy = (
            "security group and firewall must let IP protocol 4 pass; Azure always drops it: overlay_backend: vxlan"
        )
        return _fault("lost_between_hosts", f"{way}{answered}; IP protocol 4 is filtered on the way", remedy + smaller)
    port = f"UDP port {packet.get('dport')}"
    remedy = f"security group and firewall must let {port} pass"
    return _fault("lost_between_hosts", f"{way}{answered}; {port} is filtered on the way", remedy + smaller)


def _ruled(verdict: Data) -> str:
    place = "{hook}, table {family} {table} chain {chain}: {text}".format(**verdict)
    return f"dropped at {place}" + (f" (in namespace {verdict['namespace']})" if verdict.get("namespace") else "")
