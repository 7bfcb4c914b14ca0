# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A path from one end to the other: what each host explained, what was seen there, and where it breaks. Pure.

The walks of podnet.overlay.walk are joined hop after hop; what leaves the one host must be what the other takes in.
What was captured comes beside it in ``_trace_seen``.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Data = Mapping[str, t.Any]

LEGS = ("request", "reply")
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
        if len(self.legs) > 1:
            ends += " and back"
        else:
            last = self.legs[-1].stops[-1]
            ends = (
                f"{self.flow['from']} gets to {last.where} of {last.node}; who has {self.flow['to']} there is not known"
            )
        mtus, ttls = (_both([getattr(leg, name) for leg in self.legs]) for name in ("path_mtu", "ttl"))
        return f"{ends}: path MTU {mtus}, TTL {ttls} at the end, {tries}"

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


def join(flow: Data, walks: Mapping[str, Data], silent: Mapping[str, str]) -> Trace:
    """The path as the hosts explain it, as far as it goes.

    Args:
        flow: podnet.overlay.flow's answer.
        walks: by node the walks of podnet.overlay.walk.
        silent: by node why it has no walk, or no capture.
    """
    legs: list[Leg] = []
    for name in LEGS:
        nodes = flow["order"].get(name) or []
        if nodes and (not legs or legs[-1].end == "delivered"):
            legs.append(_leg(name, nodes, walks, flow))
    return Trace(flow, tuple(legs), silent)


def fault(word: str, reason: str, remedy: str) -> dict[str, t.Any]:
    """A problem without its place."""
    return {"fault": word, "reason": reason, "remedy": remedy}


def at(leg: str, stop: Stop | None, node: str = "", **item: t.Any) -> Problem:
    """A problem in its place, or of NODE before any."""
    values = {key: item[key] for key in ("fault", "reason", "remedy", "fatal") if key in item}
    return Problem(leg, stop.node if stop else node, stop.number if stop else 0, stop.where if stop else "", **values)


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
                problems += [at(name, stop, **item) for item in stop.hop.get("problems") or ()]
        last = stops[-1] if stops else None
        if not any(problem.fatal for problem in problems):
            told = {problem.fault for problem in problems}
            key, found = _onward(name, walk, node, after, walks, flow)
            problems += [at(name, last, node=node, **item) for item in found if item["fault"] not in told]
        if any(problem.fatal for problem in problems):
            return Leg(name, tuple(stops), "broken", tuple(problems))
        left = _left(walk)
        if after and left.get("next_hop") != _public_ip(flow, after):
            left["source_mac"] = None  # a router's is not known
    return Leg(name, tuple(stops), "delivered", tuple(problems))


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
    """How it left the host. Where the next hop is not said, the last route's gateway is it, or else the destination."""
    routes = [hop.get("outer_route") or hop.get("route") for hop in walk["hops"]]
    gateway = next((route.get("via") for route in reversed(routes) if route), None)
    left = dict(walk.get("left") or {})
    if left:
        left["next_hop"] = left.get("next_hop") or gateway or left["packet"]["dst"]
    return left


def _public_ip(flow: Data, node: str) -> t.Any:
    return flow["underlay"][flow["nodes"].index(node)]


def _onward(
    name: str, walk: Data, node: str, after: str | None, walks: Mapping[str, Data], flow: Data
) -> tuple[str, list[dict[str, t.Any]]]:
    """Under which key the next host walked what leaves this one, and what is wrong with it."""
    end, left = walk["end"], _left(walk)
    target = flow["destination" if name == "request" else "source"]
    if end == "broken":
        return name, [fault("broken", "the walk ends here, without a word why", "look at its notes")]
    if after is None:
        if end == "delivered":
            return name, []
        if left["next_hop"] == target:
            return name, []  # to a namespace that has no name there
        reason = f"it leaves by {left['interface']} towards {left['next_hop']}, but {target} is on this host"
        return name, [fault("no_route", reason, _CONVERGE)]
    if end == "delivered":
        reason = f"it is delivered here, but {target} is on {after}: two have that address"
        return name, [fault("duplicate_address", reason, f"take {target} from the one here")]
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
        return name, [fault("wrong_gateway", reason, _CONVERGE)]
    address = _public_ip(flow, after)
    outer = (arrivals[key] or {}).get("outer")
    faults = []
    if outer:
        wanted = [("dst", "wrong_gateway"), ("src", "wrong_local"), ("vni", "no_tunnel_for_outer")]
        for field, word in [*wanted, ("port", "no_tunnel_for_outer")]:
            has = packet.get("dport" if field == "port" else field)
            if field in outer and has is not None and str(has) != str(outer[field]):
                words = {"src": "outer source", "dst": "outer destination"}.get(field, field)
                faults.append(fault(word, f"its {words} is {has}, and {after} awaits {outer[field]}", _CONVERGE))
    elif (flow["packets"][node][name].get("overlay") or {}).get("remote") and left.get("next_hop") not in (
        None,
        address,
    ):
        faults.append(fault("wrong_gateway", f"it goes to {left['next_hop']}, and {after} is {address}", _CONVERGE))
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
            yield fault("stale_neighbour", reason, remedy)


def innermost(packet: Data) -> Data:
    """What the tunnels of a packet carry."""
    while packet.get("inner"):
        packet = packet["inner"]
    return packet


def _both(values: list[int | None]) -> str:
    return str(values[0]) if len(set(values)) == 1 else " there, ".join(str(value) for value in values) + " back"
