# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Captured frames as words and as pcap files. Scapy knows the protocols. For the controller alone."""

from __future__ import annotations

import base64
import os
import time
import typing as t

from ._hops import PROTOCOLS

RAW = "raw"

_LINKTYPES = {"ethernet": 1, RAW: 101}  # tcpdump.org/linktypes.html
_BROADCAST, _NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
_ETHERTYPES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6"}
_PROTOCOLS = {number: name for name, number in PROTOCOLS.items()}
_ECHOES = {0: "echo reply", 8: "echo request"}
_UNREACHABLE = {
    0: "net {dst} unreachable",
    1: "host {dst} unreachable",
    2: "{dst} protocol {number} unreachable",
    3: "{dst} {protocol} port {port} unreachable",
    4: "{dst} unreachable - need to frag (mtu {mtu})",
    9: "net {dst} unreachable - admin prohibited",
    10: "host {dst} unreachable - admin prohibited",
    13: "host {dst} unreachable - admin prohibited filter",
}
_EXCEEDED = {0: "time exceeded in-transit", 1: "ip reassembly time exceeded"}
_FLAGS = (("F", "F"), ("S", "S"), ("R", "R"), ("P", "P"), ("A", "."), ("U", "U"), ("E", "E"), ("C", "W"))
"""Flags of TCP as Scapy and as tcpdump write them."""

Frame = t.Mapping[str, t.Any]
Decoded = dict[str, t.Any]


class MissingLibrary(Exception):
    """Scapy is not there."""


def _scapy() -> t.Any:
    """Scapy's layers; not its ``all``, which looks at the controller's interfaces and takes seconds."""
    try:
        from scapy.layers import inet, l2, vxlan
    except ImportError as e:
        raise MissingLibrary(f"{e}. Frames are decoded by Scapy, here on the controller: pip install scapy") from e
    return inet, l2, vxlan


def decode(frame: Frame) -> Decoded:
    """What a frame of podnet.overlay.capture says, layer by layer and as one line as tcpdump prints it.

    A layer that is not there is None; ``ip`` lists all IPv4 headers, outermost first. All else of FRAME but its data is kept.
    Raises MissingLibrary, and ValueError if it is no such frame.
    """
    inet, l2, _vxlan = _scapy()
    try:
        data, length = base64.b64decode(frame["data"], validate=True), int(frame["length"])
        link, when = frame["link"], float(frame["time"])
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"no frame of podnet.overlay.capture: {e!r}") from e
    found: Decoded = {name: value for name, value in frame.items() if name != "data"}
    found.update(ethernet=None, arp=None, ip=[], udp=None, tcp=None, icmp=None, inner_ethernet=None)
    if len(data) < (20 if link == RAW else 14):  # Scapy forgives a short layer anywhere but at the start
        text = f"[too short], length {length}"
    elif link == RAW:
        text = _packet(inet.IP(data), found)
    else:
        text = _ethernet(l2.Ether(data), found, length, "ethernet")
    seconds, microseconds = divmod(round(when * 1_000_000), 1_000_000)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    found["text"] = f"{clock}.{microseconds:06} {'ip: ' if link == RAW else ''}{text}"
    return found


def write_pcap(path: str | os.PathLike[str], frames: t.Iterable[Frame]) -> None:
    """Write the frames of one kind of link, by time, to a file that tcpdump and Wireshark open.

    Raises MissingLibrary, OSError, and ValueError where links of both kinds are mixed.
    """
    _scapy()
    from scapy.utils import RawPcapWriter

    ordered = sorted(frames, key=lambda frame: float(frame["time"]))
    links = {frame["link"] for frame in ordered} or {"ethernet"}
    if len(links) > 1:
        raise ValueError(f"{os.fspath(path)}: a pcap file has one kind of link, not {' and '.join(sorted(links))}")
    with RawPcapWriter(os.fspath(path), linktype=_LINKTYPES[links.pop()]) as writer:
        writer.write_header(None)
        for frame in ordered:
            seconds, microseconds = divmod(round(float(frame["time"]) * 1_000_000), 1_000_000)
            data = base64.b64decode(frame["data"])
            writer.write_packet(data, sec=seconds, usec=microseconds, caplen=len(data), wirelen=frame["length"])


def _ethernet(layer: t.Any, found: Decoded, length: int, name: str) -> str:
    inet, l2, _vxlan = _scapy()
    if not isinstance(layer, l2.Ether):
        return f"[no Ethernet], length {length}"
    found[name] = {"source": layer.src, "destination": layer.dst, "type": layer.type}
    kind = f"{_ETHERTYPES.get(layer.type, 'Unknown')} (0x{layer.type:04x})"
    destination = "Broadcast" if layer.dst == _BROADCAST else layer.dst
    head = f"{layer.src} > {destination}, ethertype {kind}, length {length}"
    if isinstance(layer.payload, l2.ARP):
        return f"{head}: {_arp(layer.payload, found)}, length {length - 14}"
    if isinstance(layer.payload, inet.IP):
        return f"{head}: {_packet(layer.payload, found)}"
    return head


def _arp(layer: t.Any, found: Decoded) -> str:
    if (layer.hwtype, layer.ptype, layer.hwlen, layer.plen) != (1, 0x0800, 6, 4):
        return f"op {layer.op} about addresses of {layer.hwlen} and {layer.plen} bytes, protocol 0x{layer.ptype:04x}"
    found["arp"] = {
        "op": {1: "request", 2: "reply"}.get(layer.op, str(layer.op)),
        "sender": layer.psrc,
        "sender_mac": layer.hwsrc,
        "target": layer.pdst,
        "target_mac": layer.hwdst,
    }
    if layer.op == 1:
        asked = f" ({layer.hwdst})" if layer.hwdst != _NOBODY else ""
        return f"Request who-has {layer.pdst}{asked} tell {layer.psrc}"
    return f"Reply {layer.psrc} is-at {layer.hwsrc}" if layer.op == 2 else f"op {layer.op}"


def _header(layer: t.Any) -> Decoded:
    return {
        "src": layer.src,
        "dst": layer.dst,
        "ttl": layer.ttl,
        "protocol": _PROTOCOLS.get(layer.proto, str(layer.proto)),
        "length": layer.len,
        "id": layer.id,
        "df": bool(layer.flags.DF),
        "mf": bool(layer.flags.MF),
        "offset": layer.frag * 8,
    }


def _packet(layer: t.Any, found: Decoded) -> str:
    """An IPv4 packet; what it carries is noted in FOUND too."""
    inet, _l2, _vxlan = _scapy()
    if not isinstance(layer, inet.IP) or layer.ihl is None or layer.len is None:
        return "[no IPv4]"
    found["ip"].append(_header(layer))
    inside, size = layer.payload, layer.len - layer.ihl * 4
    ends = f"{layer.src} > {layer.dst}"
    if isinstance(inside, inet.IP):
        return f"{ends}: {_packet(inside, found)} (ipip-proto-4)"
    if isinstance(inside, inet.ICMP):
        return f"{ends}: ICMP {_icmp(inside, found)}, length {size}"
    if isinstance(inside, (inet.UDP, inet.TCP)):
        ends = f"{layer.src}.{inside.sport} > {layer.dst}.{inside.dport}"
        return f"{ends}: {_udp(inside, found) if isinstance(inside, inet.UDP) else _tcp(inside, found, size)}"
    return f"{ends}: ip-proto-{layer.proto}" + ("" if layer.frag else f" {size}")


def _icmp(layer: t.Any, found: Decoded) -> str:
    echo = layer.type in _ECHOES
    found["icmp"] = {
        "type": layer.type,
        "code": layer.code,
        "id": layer.id if echo else None,
        "seq": layer.seq if echo else None,
        "mtu": layer.nexthopmtu if (layer.type, layer.code) == (3, 4) else None,
        "about": None,
    }
    if echo:
        return f"{_ECHOES[layer.type]}, id {layer.id}, seq {layer.seq}"
    about = _about(layer.payload)
    found["icmp"]["about"] = about
    words = {
        "dst": about["dst"] if about else "?",
        "protocol": about["protocol"] if about else "?",
        "number": layer.payload.proto if about else "?",
        "port": about["dport"] if about else "?",
        "mtu": found["icmp"]["mtu"],
    }
    if layer.type == 3:
        return _UNREACHABLE.get(layer.code, "{dst} unreachable - #%d" % layer.code).format_map(words)
    if layer.type == 5:
        return f"redirect {words['dst']} to {'net' if layer.code % 2 == 0 else 'host'} {layer.gw}"
    return _EXCEEDED.get(layer.code, "time exceeded") if layer.type == 11 else f"type-#{layer.type}"


def _about(layer: t.Any) -> Decoded | None:
    """The packet that an ICMP error is about, as far as the error repeats it."""
    inet, _l2, _vxlan = _scapy()
    if not isinstance(layer, inet.IPerror):
        return None
    inside = layer.payload
    ports = isinstance(inside, (inet.UDPerror, inet.TCPerror))
    echo = isinstance(inside, inet.ICMPerror) and inside.type in _ECHOES
    return {
        **_header(layer),
        "sport": inside.sport if ports else None,
        "dport": inside.dport if ports else None,
        "icmp": {"type": inside.type, "code": inside.code, "id": inside.id, "seq": inside.seq} if echo else None,
    }


def _udp(layer: t.Any, found: Decoded) -> str:
    _inet, _l2, vxlan = _scapy()
    found["udp"] = {"sport": layer.sport, "dport": layer.dport, "vni": None}
    inside, data = layer.payload, bytes(layer.payload)
    # VXLAN has any port that its users agree on, so it is known by its header, RFC 7348.
    if len(data) < 22 or data[0] != 8 or any(data[1:4]) or data[7]:
        return f"UDP, length {layer.len - 8}"
    if not isinstance(inside, vxlan.VXLAN):
        inside = vxlan.VXLAN(data)
    found["udp"]["vni"] = inside.vni
    inner = _ethernet(inside.payload, found, layer.len - 16, "inner_ethernet")
    return f"VXLAN, flags [I] (0x08), vni {inside.vni}: {inner}"


def _tcp(layer: t.Any, found: Decoded, size: int) -> str:
    length = size - layer.dataofs * 4
    flags = "".join(sign for name, sign in _FLAGS if name in str(layer.flags)) or "none"
    found["tcp"] = {
        "sport": layer.sport,
        "dport": layer.dport,
        "flags": flags,
        "seq": layer.seq,
        "ack": layer.ack,
        "window": layer.window,
        "length": length,
    }
    words = [f"Flags [{flags}]"]
    if length > 0 or set(flags) & set("FSR"):
        words.append(f"seq {layer.seq}:{layer.seq + length}" if length > 0 else f"seq {layer.seq}")
    if "." in flags:
        words.append(f"ack {layer.ack}")
    return ", ".join([*words, f"win {layer.window}", f"length {length}"])
