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

from ._flow import TRANSLATED

Data = Mapping[str, t.Any]

LEGS = ("request", "reply")
_CONVERGE = "run overlay.yml; with --check --diff it shows what differs"
_MAY = {"may_be_filtered": "drop", "may_be_translated": "translate"}  # what a rule that the walk is not sure of may do
_BY_CHANCE = "duplicate_address"  # the next probe may go to the other one


@dataclass(frozen=True)
class Placed:
    """What is wrong, or in doubt, at a hop."""

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

    @property
    def doubtful(self) -> bool:
        """Whether the path may work all the same."""
        return is_doubt(self.fault)

    @property
    def told(self) -> str:
        place = f"{self.node}, {self.where} ({self.leg}, hop {self.number})" if self.number else self.node
        return f"{self.what} at {place}: {self.reason}"


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
    """One direction. ``end`` is delivered; left, to whom is not known; translated into what was not followed; broken;
    or unknown, where a host did not tell.
    """

    name: str
    stops: tuple[Stop, ...]
    end: str
    problems: tuple[Placed, ...] = ()
    key: str = ""
    """The name of its packet on the last host that it came to."""

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
    def problems(self) -> list[Placed]:
        return [problem for leg in self.legs for problem in leg.problems]

    @property
    def mark(self) -> int:
        """Of the request. The probe has none, and so may go another way."""
        return int(packet_of(self.flow, self.flow["nodes"][0], "request").get("mark") or 0)

    @property
    def answered(self) -> bool:
        """Whether all probes came back, and so the path works, whatever is held against it."""
        return self.probe is not None and self.probe["received"] >= self.probe["sent"] and not self.mark

    @property
    def broken(self) -> Placed | None:
        """What ends the path."""
        fatal = (problem for problem in self.problems if problem.fatal)
        return next((problem for problem in fatal if not self.answered or problem.fault == _BY_CHANCE), None)

    @property
    def works(self) -> bool | None:
        """None where it is in doubt."""
        ends = {leg.end for leg in self.legs}
        if self.silent or self.broken:
            return False
        if self.answered:
            return True
        if not ends or ends & {"broken", "unknown"}:
            return False
        sure = ends == {"delivered"} and len(self.legs) == len(LEGS) and not any(p.doubtful for p in self.problems)
        return True if sure else None

    @property
    def verdict(self) -> str:
        """A line."""
        heard = f"{self.probe['received']} of {self.probe['sent']} probes" if self.probe else ""
        some = bool(self.probe and self.probe["received"])
        verb = {True: "reaches", None: "may reach", False: "does not always reach" if some else "does not reach"}
        ends = "{from} {verb} {to}".format(verb=verb[self.works], **self.flow)
        if self.broken:
            return f"{ends}: {self.broken.told}" + (f"; {heard} were answered" if some else "")
        if self.silent:
            told = "; ".join(f"{node}: {reason}" for node, reason in self.silent.items())
            tried = f"; {heard} were answered" if heard else ""
            return f"{self.flow['from']} to {self.flow['to']} cannot be told: {told}{tried}"
        if self.works is False:
            return f"{ends}: the walk ends on the way"
        tries = "nothing was sent"
        if self.probe:
            mean = self.probe["rtt_ms"]["avg"] if self.probe.get("rtt_ms") else 0.0
            tries = f"{heard} answered, {mean:.2f} ms"
        ends += " and back" if len(self.legs) > 1 or self.answered else ""
        but = next((f"but: {problem.told}" for problem in self.problems if problem.fatal), "")
        if not but:  # else what is explained ends on the way
            mtus, ttls = (_both([getattr(leg, name) for leg in self.legs]) for name in ("path_mtu", "ttl"))
            tries = f"path MTU {mtus}, TTL {ttls} at the end, {tries}"
        return "; ".join([f"{ends}: {tries}", *self._doubts(), *filter(None, [but])])

    def _doubts(self) -> Iterator[str]:
        for leg in self.legs:
            for fault_word, does in _MAY.items():
                hops = [str(problem.number) for problem in leg.problems if problem.fault == fault_word]
                places = list(dict.fromkeys(hops))
                if hops:
                    it = "it" if leg.name == "request" else "the reply"
                    yield f"{_count(hops, 'rule')} may {does} {it}: hop{'s' * (len(places) > 1)} {', '.join(places)}"
        others = {problem.fault: problem for problem in reversed(self.problems) if problem.doubtful}
        yield from (problem.told for word, problem in others.items() if word not in _MAY)
        last = self.legs[-1]
        if self.flow.get("outside") and self.legs[0].end == "left":
            stop, packet = self.legs[0].stops[-1], innermost(self.legs[0].stops[-1].hop["packet"])
            yield f"it leaves {stop.node} by {stop.where} as {packet['src']}, and what comes then is not known"
        elif last.end == "left" or (last.end == "delivered" and len(self.legs) < len(LEGS)):
            unknown = f"who has {self.flow['to']} there" if last.end == "left" else "the way back"
            stop = last.stops[-1]
            yield f"it gets to {stop.where} of {stop.node}, and {unknown} is not known"

    def data(self) -> dict[str, t.Any]:
        """As podnet.overlay.trace returns it."""
        names = ("from", "to", "source", "destination", "size", "df")
        return {
            **{name: self.flow[name] for name in names},
            "protocol": self.flow.get("protocol", "icmp"),
            "port": self.flow.get("port", 0),
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
        on = {"delivered", "left"} if flow.get("outside") else {"delivered"}
        if nodes and (not legs or legs[-1].end in on):
            translated = bool(legs) and legs[-1].key.endswith(TRANSLATED)
            legs.append(_leg(name, name + TRANSLATED * translated, nodes, walks, flow))
    return Trace(flow, tuple(legs), silent)


def fault(word: str, reason: str, remedy: str) -> dict[str, t.Any]:
    """A problem without its place."""
    return {"fault": word, "reason": reason, "remedy": remedy}


def is_doubt(word: str) -> bool:
    """Whether a fault is none for sure."""
    return word in _MAY or word == "translated" or word.startswith("not_judged")


def at(leg: str, stop: Stop | None, node: str = "", **item: t.Any) -> Placed:
    """A problem in its place, or of NODE before any."""
    word, reason, remedy = (
        " ".join(item[key].split()) for key in ("fault", "reason", "remedy")
    )  # tools answer in lines
    fatal = item.get("fatal", True) and not is_doubt(word)
    place = (stop.node, stop.number, stop.where) if stop else (node, 0, "")
    return Placed(leg, *place, word, reason, remedy, fatal)


def packet_of(flow: Data, node: str, name: str) -> Data:
    """The packet of that name which NODE was to follow, or an empty one."""
    return next((packet for packet in flow["packets"].get(node) or () if packet["name"] == name), {})


def _leg(name: str, key: str, nodes: Sequence[str], walks: Mapping[str, Data], flow: Data) -> Leg:
    """A direction; *key* is the name of its packet on the first host."""
    stops: list[Stop] = []
    problems: list[Placed] = []
    left: dict[str, t.Any] = {}
    for node, after in zip(nodes, [*nodes[1:], None]):
        walk = walks.get(node, {}).get(key)
        if walk is None:
            return Leg(name, tuple(stops), "unknown", tuple(problems))
        hops = _addressed(walk["hops"], left)
        own = [Stop(node, number, hop) for number, hop in enumerate(hops, len(stops) + 1)]
        problems += [at(name, stop, **item) for stop in own for item in _told(stop.hop)]
        stops += own
        last = stops[-1] if stops else None
        found: list[dict[str, t.Any]] = []
        onward = key
        if not any(problem.fatal for problem in problems):
            onward, found = _onward(name, key, walk, node, after, walks, flow)
            told = {problem.fault for problem in problems}
            problems += [at(name, last, node=node, **item) for item in found if item["fault"] not in told]
        if any(problem.fatal for problem in problems):
            return Leg(name, tuple(stops), "broken", tuple(problems))
        if after is None or walk["end"] == "translated":
            return Leg(name, tuple(stops), walk["end"], tuple(problems), key)
        if not onward:
            return Leg(name, tuple(stops), "translated", tuple(problems), key)
        key, left = onward, _left(walk)
        if left.get("next_hop") != _public_ip(flow, after):
            left["source_mac"] = None  # a router's is not known
    return Leg(name, tuple(stops), "unknown", tuple(problems))


def _told(hop: Data) -> Iterator[Data]:
    """The problems of a hop, and as such the rules that the walk is not sure of."""
    for rule in hop.get("rules") or ():
        may, _space, verdict = rule["verdict"].partition(" ")
        if may == "may":
            word = "may_be_filtered" if verdict == "drop" else "may_be_translated"
            unsure = f" ({rule['why_unsure']})" if rule.get("why_unsure") else ""
            reason = "{where} {verdict} it at {hook}: {rule}".format(**rule) + unsure
            yield {**fault(word, reason, "-e capture=true shows whether it passes"), "fatal": False}
    yield from hop.get("problems") or ()


def _addressed(hops: Sequence[Data], left: Data) -> list[Data]:
    """The hops of an arrival with the MACs that only the sender could tell."""
    packet = left.get("packet") or {}
    inner = {name: packet[name] for name in ("inner_source_mac", "inner_destination_mac") if packet.get(name)}
    macs = [left.get("source_mac"), inner.get("inner_source_mac")]
    told = [{**hop, "source_mac": hop.get("source_mac") or mac} for hop, mac in zip(hops, macs)]
    if told and inner:
        told[0]["packet"] = {**told[0]["packet"], **inner}
    used = left.get("destination_mac")
    if told and used and not _same(used, told[0].get("destination_mac")) and _has(told[0], used):
        note = f"comes to {used}, another interface of this host: it answers ARP for any address by any (arp_ignore)"
        told[0].update(destination_mac=used, notes=[*(told[0].get("notes") or ()), note])
    return [*told, *hops[len(told) :]]


def _same(mac: str, other: str | None) -> bool:
    return mac.lower() == (other or "").lower()


def _has(hop: Data, mac: str) -> bool:
    """Whether the host of an arriving hop takes a frame to that MAC."""
    return any(_same(mac, own) for own in (hop.get("destination_mac"), *(hop.get("macs") or ())))


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
    name: str, key: str, walk: Data, node: str, after: str | None, walks: Mapping[str, Data], flow: Data
) -> tuple[str, list[dict[str, t.Any]]]:
    """Under which key the next host walked what leaves this one, empty if it did not; and what is wrong with it."""
    end, left = walk["end"], _left(walk)
    target = flow["destination" if name == "request" else "source"]
    if end == "broken":
        return key, [fault("broken", "the walk ends here, without a word why", "look at its notes")]
    if end == "translated":
        reason = "a rule translates its addresses, and what comes after is not explained"
        return key, [fault("translated", reason, "-e capture=true shows whether it arrives")]
    if after is None:
        return key, _astray(name, walk, left, flow, node)
    if end == "delivered" and _mapped(walk, target):
        reason = f"a rule of {node} has it delivered there, and it does not come to {after}"
        return "", [fault("translated", reason, "trace to where it goes, if that is meant")]
    if end == "delivered":
        reason = f"it is delivered here, but {target} is on {after}: two have that address"
        return key, [fault("duplicate_address", reason, f"take {target} from the one here")]
    return _crossing(name, key, left, node, after, walks, flow)


def _mapped(walk: Data, target: str) -> bool:
    """Whether a rule has given it another destination than *target*, where it was delivered then."""
    delivered = walk.get("delivered") or {}
    return "packet" in delivered and innermost(delivered["packet"])["dst"] != target


def _astray(name: str, walk: Data, left: Data, flow: Data, node: str) -> list[dict[str, t.Any]]:
    """What is wrong with the end of a leg on its last host: is it where the other leg starts?"""
    other, end, address = ("reply", "to", "destination") if name == "request" else ("request", "from", "source")
    target, namespace = flow[address], packet_of(flow, node, other).get("namespace")  # None: nobody knows it
    if _mapped(walk, target) or (name == "request" and flow.get("outside")):
        return []
    if walk["end"] == "delivered":
        where = walk["hops"][-1]["namespace"] if walk["hops"] else namespace
        goes = f"is delivered {f'in namespace {where}' if where else 'on the host itself'}"
        right = namespace in (None, where)
    else:
        goes, right = f"leaves by {left['interface']}", namespace is None
        if left["next_hop"] != target:
            reason = f"it {goes} towards {left['next_hop']}, but {target} is on this host"
            return [fault("no_route", reason, _CONVERGE)]
    pod = f"into pod {flow[end].split('@')[0]}" if namespace else "to the host itself"
    remedy = f"see on {node} with ip neigh and bridge fdb show who is taken for it; {_CONVERGE}"
    return [] if right else [fault("not_delivered", f"{target} {goes} and not {pod}", remedy)]


def _crossing(
    name: str, key: str, left: Data, node: str, after: str, walks: Mapping[str, Data], flow: Data
) -> tuple[str, list[dict[str, t.Any]]]:
    """What leaves one host against what the other has walked as arriving. *key* is its name on the first."""
    packet, tunnelled = left["packet"], bool(left["packet"].get("inner"))
    ends = tuple(innermost(packet)[end] for end in ("src", "dst"))
    arrivals = {way: packet_of(flow, after, way) for way in (name, f"{name}-direct", name + TRANSLATED)}
    ways = {way: item for way, item in arrivals.items() if item and bool(item.get("outer")) == tunnelled}
    onward = next((way for way, item in ways.items() if (item["src"], item["dst"]) == ends), None)
    if ways and onward is None:
        reason = f"it goes on as {ends[0]} to {ends[1]}, and how {after} takes that was not asked"
        return "", [fault("translated", reason, "-e capture=true shows whether it arrives")]
    if onward is None:
        reason = "it leaves {} a tunnel, and {} awaits it {} one".format(
            *(("in", after, "without") if tunnelled else ("without", after, "in"))
        )
        return key, [fault("wrong_gateway", reason, _CONVERGE)]
    address = _public_ip(flow, after)
    outer = arrivals[onward].get("outer")
    faults = []
    if outer:
        wanted = {"dst": "wrong_gateway", "src": "wrong_local", "vni": "wrong_vni", "port": "wrong_port"}
        for field, word in wanted.items():
            has = packet.get("dport" if field == "port" else field)
            if field in outer and has is not None and str(has) != str(outer[field]):
                words = {"src": "outer source", "dst": "outer destination"}.get(field, field)
                faults.append(fault(word, f"its {words} is {has}, and {after} awaits {outer[field]}", _CONVERGE))
    elif packet_of(flow, node, key).get("overlay", {}).get("remote") and left["next_hop"] != address:
        faults.append(fault("wrong_gateway", f"it goes to {left['next_hop']}, and {after} is {address}", _CONVERGE))
    hops = walks.get(after, {}).get(onward, {}).get("hops") or []
    vtep: Data = next((hop for hop in reversed(walks[node][key]["hops"]) if hop.get("kind") == "vxlan"), {})
    return onward, [*faults, *_stale(left, vtep, hops, node, after, address)]


def _stale(
    left: Data, vtep: Data, hops: Sequence[Data], node: str, after: str, address: str
) -> Iterator[dict[str, t.Any]]:
    """A neighbour entry that names another MAC than the receiver has: of the underlay, and inside of a vxlan."""
    pairs: list[tuple[str | None, Data, str | None, str]] = []
    if hops and left["next_hop"] == address:  # else the frame goes to a router
        pairs.append((left.get("destination_mac"), hops[0], address, left["interface"]))
    if vtep and len(hops) > 1 and hops[1].get("kind") == "vxlan":
        used = left["packet"].get("inner_destination_mac")
        pairs.append((used, hops[1], vtep.get("next_hop"), vtep["interface"]))
    for used, hop, to, dev in pairs:
        if used and hop.get("destination_mac") and not _has(hop, used):
            reason = f"{node} sends to {used}, and {hop['interface']} of {after} has {hop['destination_mac']}"
            entry = f"to {to} dev {dev}" if to else f"dev {dev}"
            remedy = f"on {node}: ip neigh flush {entry} nud all; if the entry comes back, find out who writes it"
            yield fault("stale_neighbour", reason, remedy)


def innermost(packet: Data) -> Data:
    """What the tunnels of a packet carry."""
    while packet.get("inner"):
        packet = packet["inner"]
    return packet


def _count(items: Sequence[t.Any], word: str) -> str:
    return f"{len(items)} {word}{'s' * (len(items) > 1)}"


def _both(values: list[int | None]) -> str:
    return str(values[0]) if len(set(values)) == 1 else " there, ".join(str(value) for value in values) + " back"
