# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A trace for people: a line for each hop, and below it what is decided there. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from ._hops import PROTOCOLS
from ._trace import Data, Leg, Placed, Stop, Trace

OUTPUTS = ["text", "json"]

_INDENT = " " * 5
_PAIRS = (("src", "sport"), ("dst", "dport"))
_PROTOCOLS = {name: f"{name.upper()} ({number})" for name, number in PROTOCOLS.items()}


def render(trace: Trace) -> str:
    """The whole path and the verdict. The reply, which mirrors the request, is told more briefly."""
    size = "{size} bytes{df}".format(size=trace.flow["size"], df=", DF" if trace.flow["df"] else "")
    pairs = (("from", "source"), ("to", "destination"))
    ends = [" ".join(dict.fromkeys(str(trace.flow[key]) for key in pair)) for pair in pairs]
    port = " port {port}/{protocol}".format_map(trace.flow) if trace.flow.get("port") else ""
    lines = [f"{' to '.join(ends)}{port}, {size}"]
    for leg in trace.legs:
        lines += _leg(leg, trace, brief=leg.name == "reply")
    heard = [f"heard: {line}" for line in trace.errors] + [f"note: {line}" for line in trace.notes]
    return "\n".join(map(_shown, [*lines, *([""] if heard else []), *heard, "", trace.verdict]))


def _shown(line: str) -> str:
    """What hosts name themselves, as a rule's comment, moves no cursor and begins no line."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)


def _leg(leg: Leg, trace: Trace, *, brief: bool) -> Iterator[str]:
    width = max((len(stop.where) for stop in leg.stops), default=0)
    numbers = {stop.number: (f"{stop.hop['length']} bytes", f"TTL {stop.ttl}", _room(stop.hop)) for stop in leg.stops}
    widths = [max(len(cells[i]) for cells in numbers.values()) for i in range(3)] if numbers else []
    node, above = "", [""]
    for stop, after in zip(leg.stops, [*leg.stops[1:], None]):
        if stop.node != node:
            node, above = stop.node, [""]
            yield from _heading(f"{leg.name} on {node}")
        cells = (cell.ljust(w) for cell, w in zip(numbers[stop.number], widths))
        yield "  ".join([f"{stop.number:>3}  {stop.where.ljust(width)}", *cells, stop.hop.get("does") or ""]).rstrip()
        lost = stop.captured and not stop.seen and not trace.works
        frame = [] if brief or lost else list(_frame(stop.hop))
        yield from (_INDENT + line for line in (["the same frame"] if frame == above else frame))
        above = frame or above
        yield from (
            _INDENT + line for line in ([_said("seen", "not here")] if lost else _stop(stop, after, brief=brief))
        )
        yield from _problems(leg, stop.number)
    if not leg.stops or any(problem.number == 0 for problem in leg.problems):
        yield ""
        yield from _problems(leg, 0)
    told = {stop.node for stop in leg.stops}
    for silent, reason in trace.silent.items():
        if leg.end == "unknown" and silent not in told:
            yield from _heading(f"{leg.name} on {silent}")
            yield _INDENT + reason


def _heading(text: str) -> list[str]:
    return ["", text, "-" * len(text)]


def _room(hop: Data) -> str:
    return f"MTU {hop['mtu']}, {hop['mtu_left']} left" if hop.get("mtu") else ""


def _stop(stop: Stop, after: Stop | None, *, brief: bool) -> Iterator[str]:
    """What is decided at a hop. Below the line, since a person reads the interfaces first."""
    hop = stop.hop
    for label in ("route", "outer_route"):
        if hop.get(label):
            yield _said(label.replace("_", " "), _route(hop[label]))
    if after and after.hop["packet"].get("inner") and not hop["packet"].get("inner"):
        outer = after.hop["packet"]
        more = outer["length"] - hop["packet"]["length"]
        protocol = _PROTOCOLS.get(outer["protocol"], outer["protocol"])
        yield _said("outer", f"{outer['src']} > {outer['dst']}, proto {protocol}, {more} bytes more")
    if not brief:
        yield from _layer2(hop)
    for rule in hop.get("rules") or ():
        if rule["verdict"].startswith("may "):
            continue  # told as a problem
        more = "".join(f" ({rule[key]})" for key in ("comment", "why_unsure") if rule.get(key))
        yield _said("rule", "{hook} {verdict}: {where}: {rule}".format(**rule) + more)
    for note in hop.get("notes") or ():
        yield _said("note", note)
    if stop.captured:
        yield _said("seen", _seen(stop))


def _said(label: str, text: str) -> str:
    return f"{label:<11} {text}"


def _frame(hop: Data) -> Iterator[str]:
    """The frame in tcpdump's manner (-nev)."""
    macs = (hop.get("source_mac"), hop.get("destination_mac"))
    yield from _headers(hop["packet"], hop["length"] if hop.get("link") != "raw" else None, macs)


def _headers(packet: Data, length: int | None, macs: tuple[str | None, str | None]) -> Iterator[str]:
    frame = "ip" if length is None else f"{macs[0] or '?'} > {macs[1] or '?'}, ethertype IPv4 (0x0800), length {length}"
    yield f"{frame}: {_header(packet)}"
    inner = packet.get("inner")
    if packet["protocol"] == "udp" and inner:
        sport = f".{packet['sport']}" if packet.get("sport") else ""
        yield f"    {packet['src']}{sport} > {packet['dst']}.{packet.get('dport')}: VXLAN, vni {packet.get('vni')}"
        macs = (packet.get("inner_source_mac"), packet.get("inner_destination_mac"))
        yield from ("    " + line for line in _headers(inner, inner["length"] + 14, macs))
        return
    while inner:
        yield f"    {packet['src']} > {packet['dst']}: {_header(inner)}"
        packet, inner = inner, inner.get("inner")
    what = "ICMP echo request" if packet["protocol"] == "icmp" else str(packet["protocol"]).upper()
    source, target = (".".join(str(packet[key]) for key in pair if packet.get(key)) for pair in _PAIRS)
    yield f"    {source} > {target}: {what}"


def _header(packet: Data) -> str:
    protocol = _PROTOCOLS.get(packet["protocol"], packet["protocol"])
    flags = "DF" if packet["df"] else "none"
    return f"(ttl {packet['ttl']}, flags [{flags}], proto {protocol}, length {packet['length']})"


def _route(route: Data) -> str:
    if route.get("type") == "local":
        return f"{route['dst']} is an address of this host"
    words = [route.get("dst") or "?"]
    for key, word in (("via", "via"), ("dev", "dev"), ("src", "src"), ("metric", "metric")):
        words += [word, str(route[key])] if route.get(key) else []
    words += ["table", str(route["table"])] if route.get("table", "main") != "main" else []
    words += ["onlink"] if route.get("onlink") else []
    return " ".join(words) + (f": {route['why']}" if route.get("why") else "")


def _layer2(hop: Data) -> Iterator[str]:
    neighbour, entry, peer = hop.get("neighbour"), hop.get("forwarding_entry"), hop.get("peer")
    if neighbour:
        yield _said("neighbour", "{address} is at {lladdr} ({state})".format(**neighbour))
    if entry:
        where = f"is behind port {entry['port']}" if entry.get("port") else f"is at {entry.get('dst')}"
        yield _said("forwarding", f"{entry['lladdr']} {where}" + (f" ({entry['state']})" if entry.get("state") else ""))
    if peer:
        where = f" in namespace {peer['namespace']}" if peer.get("namespace") else " of the host"
        yield _said("peer", f"index {peer['index']}: {peer['interface']}{where}")


def _seen(stop: Stop) -> str:
    seen = stop.seen
    if not seen:
        return "not here"
    clock = dt.datetime.fromtimestamp(seen.time, dt.timezone.utc).astimezone().strftime("%H:%M:%S.%f")
    wanted = {"length": (seen.length, stop.hop["length"]), "TTL": (seen.ttl, stop.ttl)}
    differs = [f"{name} {has}, not {told}" for name, (has, told) in wanted.items() if has != told]
    says = f"{clock}, +{seen.since_ms:.3f} ms, {seen.length} bytes, TTL {seen.ttl}"
    return says + (f": explained otherwise: {'; '.join(differs)}" if differs else "")


def _problems(leg: Leg, number: int) -> Iterator[str]:
    for problem in leg.problems:
        if problem.number == number:
            yield from (_INDENT + line for line in _problem(problem))


def _problem(problem: Placed) -> list[str]:
    return [
        f"{'*** ' if problem.fatal else '* '}{problem.what}",
        _said("why", problem.reason),
        _said("remedy", problem.remedy),
    ]


def pcap_name(node: str, namespace: str, interface: str) -> str:
    """The file of one point. A host's answer names no other folder."""
    return plain("-".join(filter(None, (node, namespace, interface)))) + ".pcap"


def plain(name: str) -> str:
    """A name that a file can have."""
    return name.encode(errors="replace").decode().replace("/", "_").replace("\0", "_")
