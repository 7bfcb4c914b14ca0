# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be on a host: one frozen type for each kind of object, and the document that names them.

A *state* is a dictionary from an object's key to the object. ``parse`` turns a document into the desired state,
``render`` turns a state into a document. Both are pure. The words are iproute2's.

A namespace is named as under ``/run/netns``; the empty name is the namespace that the engine itself runs in.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, Union

DOCUMENT_VERSION = 1
LINKS, RULES, PROGRAMS = "links", "rules", "programs"
EVERYTHING = frozenset({LINKS, RULES, PROGRAMS})
"""The parts of a host: what rtnetlink, /proc/sys and files hold; our nftables; and other programs' settings, which are slow to read."""

OVERLAY_PROTOCOL = 244
"""The route protocol that marks an overlay's routes (``rt_protos``: 244 podnet)."""
ALIAS_PREFIX = "podnet.overlay:"
"""An owned link's ``ifalias`` is this and the document's name; an owned namespace's is on its ``lo``."""

MAIN_TABLE = 254
ROUTE_TABLES = {"default": 253, "main": 254, "local": 255}
ROUTE_PROTOCOLS = {
    "unspec": 0,
    "redirect": 1,
    "kernel": 2,
    "boot": 3,
    "static": 4,
    "ra": 9,
    "zebra": 11,
    "bird": 12,
    "dhcp": 16,
    "keepalived": 18,
    "babel": 42,
    "calico": 80,
    "bgp": 186,
    "isis": 187,
    "ospf": 188,
    "rip": 189,
    "podnet": OVERLAY_PROTOCOL,
}
ROUTE_TYPES = {
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
    "throw": 9,
}
TUNNEL_MODES = {"any": 0, "ipip": 4, "mplsip": 137}
NETWORKD, NETWORKMANAGER = "systemd-networkd", "NetworkManager"
SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254}

Key = tuple[Any, ...]
T = TypeVar("T")


class Mistakes(ValueError):
    """All that is wrong with an input at once; ``lines`` holds one sentence for each mistake."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = ["\\n".join(line.split("\n")).encode("utf-8", "backslashreplace").decode() for line in lines]
        super().__init__("\n".join(self.lines))


# ------------------------------------------------------------------------------------------------ objects


@dataclass(frozen=True)
class Namespace:
    """A named network namespace. ``pid`` names a process whose namespace gets the name instead of a new one."""

    name: str
    owner: str = ""
    pid: int | None = None

    @property
    def key(self) -> Key:
        return ("namespace", self.name)


@dataclass(frozen=True)
class NamespaceFile:
    """A file that ``ip netns exec`` mounts over /etc (ip-netns(8)), such as resolv.conf."""

    namespace: str
    name: str
    content: str

    @property
    def key(self) -> Key:
        return ("file", self.namespace, self.name)


@dataclass(frozen=True)
class Bridge:
    """Bridge options, in ip-link(8)'s words; times in seconds. None is left as it is."""

    stp: bool | None = None
    ageing_time: int | None = None
    forward_delay: int | None = None
    hello_time: int | None = None
    max_age: int | None = None
    priority: int | None = None
    vlan_filtering: bool | None = None
    no_linklocal_learn: bool | None = None


@dataclass(frozen=True)
class Ipip:
    """IPIP tunnel options. ``remote`` 0.0.0.0 is any; ``ttl`` 0 and ``tos`` 1 are inherit (as the kernel has it).

    ``mode`` is the inner protocol that the device takes: 4 (ipip), 0 (any) as flanneld's, or 137 (mplsip).
    """

    local: str | None = None
    remote: str | None = None
    ttl: int | None = None
    tos: int | None = None
    pmtudisc: bool | None = None
    link: str | None = None
    mode: int | None = None


@dataclass(frozen=True)
class Vxlan:
    """VXLAN options. ``link`` is the underlay's interface, ``port`` the UDP port."""

    id: int | None = None
    local: str | None = None
    link: str | None = None
    port: int | None = None
    learning: bool | None = None


@dataclass(frozen=True)
class Veth:
    """The other end of a veth pair."""

    peer: str | None = None
    peer_namespace: str | None = None


@dataclass(frozen=True)
class Port:
    """Options of a bridge port (``bridge link``)."""

    hairpin: bool | None = None
    isolated: bool | None = None
    learning: bool | None = None
    priority: int | None = None
    cost: int | None = None


Options = Union[Bridge, Ipip, Vxlan, Veth]
OPTIONS: dict[str, type[Any]] = {"bridge": Bridge, "ipip": Ipip, "vxlan": Vxlan, "veth": Veth}


@dataclass(frozen=True)
class Link:
    """An interface. None is not managed; ``master`` "" is no master; ``external`` is only referred to."""

    namespace: str
    name: str
    kind: str = ""
    up: bool | None = None
    mtu: int | None = None
    address: str | None = None
    master: str | None = None
    options: Options | None = None
    port: Port | None = None
    owner: str = ""
    external: bool = False

    @property
    def key(self) -> Key:
        return ("link", self.namespace, self.name)


@dataclass(frozen=True)
class Address:
    """An IPv4 address on a link: ``address`` with its prefix length, or with its peer's where there is one."""

    namespace: str
    dev: str
    address: str
    peer: str = ""
    scope: str = "global"

    @property
    def key(self) -> Key:
        return ("address", self.namespace, self.dev, self.address, self.peer, self.scope)


class Route(NamedTuple):
    """An IPv4 route. A tuple and not a dataclass because ten thousand of them are compared at once."""

    namespace: str
    dst: str
    via: str = ""
    dev: str = ""
    onlink: bool = False
    table: int = MAIN_TABLE
    metric: int = 0
    src: str = ""
    mtu: int = 0
    protocol: int = OVERLAY_PROTOCOL
    type: str = "unicast"

    @property
    def key(self) -> Key:
        return ("route", self[0], self[5], self[1], self[6])


@dataclass(frozen=True)
class Neighbour:
    """A permanent neighbour (ARP) entry."""

    namespace: str
    dev: str
    dst: str
    lladdr: str

    @property
    def key(self) -> Key:
        return ("neighbour", self.namespace, self.dev, self.dst)


@dataclass(frozen=True)
class ForwardingEntry:
    """A vxlan device's forwarding entry: frames to ``lladdr`` go to the host ``dst``."""

    namespace: str
    dev: str
    lladdr: str
    dst: str

    @property
    def key(self) -> Key:
        return ("fdb", self.namespace, self.dev, self.lladdr)


@dataclass(frozen=True)
class Sysctl:
    """A sysctl. ``name`` as sysctl(8) takes it; ``restores`` are further values to write back with it."""

    namespace: str
    name: str
    value: str
    restores: tuple[tuple[str, str], ...] = dataclasses.field(default=(), compare=False)

    @property
    def key(self) -> Key:
        return ("sysctl", self.namespace, self.name)


@dataclass(frozen=True)
class SysctlLine:
    """A sysctl's value for the next boot: a line of a file such as those of sysctl.d(5)."""

    path: str
    name: str
    value: str

    @property
    def key(self) -> Key:
        return ("sysctl line", self.path, self.name)


@dataclass(frozen=True)
class File:
    """A file on the host, whole. ``mode`` is its permissions."""

    path: str
    content: str
    mode: int = 0o644

    @property
    def key(self) -> Key:
        return ("path", self.path)


@dataclass(frozen=True)
class Firewall:
    """The tables ``inet`` and ``bridge podnet_overlay``, in nft's JSON as text.

    ``objects`` are tables, chains, sets and rules, ``elements`` those of the sets: family, set and element.
    """

    owner: str
    objects: tuple[str, ...]
    elements: tuple[tuple[str, str, str], ...] = ()

    @property
    def key(self) -> Key:
        return ("firewall",)


@dataclass(frozen=True)
class Accept:
    """What another program is told, at the place that it keeps for that, so that it lets the overlay be.

    ``program`` is a firewall (docker, firewalld, ufw) or what configures links; ``rules`` are in its own words. A firewall is told
    by the one document that has a network, and what configures links by each document that has some.
    """

    program: str
    rules: tuple[str, ...]
    owner: str = ""

    @property
    def key(self) -> Key:
        return ("accept", self.program, self.owner if self.program in (NETWORKD, NETWORKMANAGER) else "")

    @property
    def place(self) -> str:
        """What it is, in a few words."""
        return "%s %s" % ("settings of" if self.program in (NETWORKD, NETWORKMANAGER) else "accept in", self.program)


Object = Union[
    Namespace,
    NamespaceFile,
    File,
    Link,
    Address,
    Route,
    Neighbour,
    ForwardingEntry,
    Sysctl,
    SysctlLine,
    Firewall,
    Accept,
]
State = dict[Key, Object]


def state_of(objects: Sequence[Object]) -> State:
    """Objects as a state."""
    return {item.key: item for item in objects}


def of_type(state: Mapping[Key, Object], kind: type[T]) -> Iterator[T]:
    """The objects of one type in a state."""
    return (item for item in state.values() if isinstance(item, kind))


def mac_of(address: str, prefix: str = "0a:58") -> str:
    """The MAC that belongs to an IPv4 address: *prefix* and its four bytes, as CNI's bridge does (``0a:58:0a:f4:00:01``)."""
    return prefix + "".join(":%02x" % byte for byte in ipaddress.IPv4Address(address).packed)


def describe(item: Object) -> str:
    """One line in iproute2's words, for diffs and errors."""
    where = getattr(item, "namespace", "")
    tail = " (namespace %s)" % where if where else ""
    if isinstance(item, Namespace):
        return "namespace %s" % item.name
    if isinstance(item, NamespaceFile):
        return "file /etc/netns/%s/%s: %s" % (where, item.name, json.dumps(item.content))
    if isinstance(item, Link):
        return "link %s%s" % (" ".join([item.name, *_link_words(item)]), tail)
    if isinstance(item, Address):
        scope = "" if item.scope == "global" else " scope " + item.scope
        return "address %s%s dev %s%s%s" % (
            item.address,
            " peer " + item.peer if item.peer else "",
            item.dev,
            scope,
            tail,
        )
    if isinstance(item, Route):
        return "route %s%s" % (" ".join(_route_words(item)), tail)
    if isinstance(item, Neighbour):
        return "neighbour %s lladdr %s dev %s%s" % (item.dst, item.lladdr, item.dev, tail)
    if isinstance(item, ForwardingEntry):
        return "fdb %s dev %s dst %s%s" % (item.lladdr, item.dev, item.dst, tail)
    if isinstance(item, Sysctl):
        return "sysctl %s = %s%s" % (item.name, item.value, tail)
    if isinstance(item, SysctlLine):
        return "line %s = %s in %s" % (item.name, item.value, item.path)
    if isinstance(item, File):
        return "file %s (mode %04o): %s" % (item.path, item.mode, json.dumps(item.content))
    if isinstance(item, Accept):
        return "%s: %s" % (item.place, "; ".join(item.rules))
    rules = sum(text.startswith('{"rule"') for text in item.objects)
    return "firewall podnet_overlay with %d rules and %d elements of sets" % (rules, len(item.elements))


def _link_words(link: Link) -> list[str]:
    words = ["kind", link.kind] if link.kind else []
    if link.up is not None:
        words.append("up" if link.up else "down")
    for name in ("mtu", "address", "master"):
        value = getattr(link, name)
        if value not in (None, ""):
            words += [name, str(value)]
    for part in (link.options, link.port):
        for name, value in dataclasses.asdict(part).items() if part else ():
            if value not in (None, ""):
                words += [name, _option_word(name, value)]
    return words


_WORDS = {
    ("mode", 0): "any",
    ("mode", 4): "ipip",
    ("remote", "0.0.0.0"): "any",
    ("local", "0.0.0.0"): "any",
    ("ttl", 0): "inherit",
    ("tos", 1): "inherit",
}


def _option_word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return _WORDS.get((name, value), str(value))


def _route_words(route: Route) -> list[str]:
    words = [] if route.type == "unicast" else [route.type]
    words.append("default" if route.dst == "0.0.0.0/0" else route.dst)
    for name in ("via", "dev", "src"):
        if getattr(route, name):
            words += [name, getattr(route, name)]
    if route.onlink:
        words.append("onlink")
    if route.table != MAIN_TABLE:
        words += ["table", str(route.table)]
    for name in ("metric", "mtu"):
        if getattr(route, name):
            words += [name, str(getattr(route, name))]
    return [*words, "proto", protocol_name(route.protocol)]


def protocol_name(number: int) -> str:
    """The name of a route protocol as ``ip route`` prints it, or its number."""
    return next((name for name, value in ROUTE_PROTOCOLS.items() if value == number), str(number))


# ------------------------------------------------------------------------------------------------ parsing


def interface_name(value: Any) -> str:
    """A name that the kernel takes for an interface (``dev_valid_name``: 1 to 15 bytes, no slash, colon or space)."""
    text = str(value)
    if not 0 < len(text.encode()) <= 15:
        raise ValueError("%r has %d bytes, and an interface name has 1 to 15" % (text, len(text.encode())))
    if text in (".", "..") or re.search(r"[/:\s\x00]", text):
        raise ValueError("%r is no interface name: no slash, colon or white space, nor . or .." % text)
    return text


def optional_name(value: Any) -> str:
    """An interface's name, or '' for none."""
    return interface_name(value) if value else ""


def namespace_name(value: Any) -> str:
    """A name for a file under /run/netns. '' is the engine's own namespace."""
    text = "" if value is None else str(value)
    if text in (".", "..") or len(text.encode()) > 255 or re.search(r"[/\x00]", text):
        raise ValueError("%r is no namespace name: it must be a file name of at most 255 bytes" % text)
    return text


def file_name(value: Any) -> str:
    text = namespace_name(value)
    if not text:
        raise ValueError("the name is empty")
    return text


def ipv4(value: Any) -> str:
    """An IPv4 address in its usual form."""
    try:
        socket.inet_pton(socket.AF_INET, str(value))  # it takes the usual form only, and thousands at once
    except OSError:
        raise ValueError("%r is no IPv4 address" % str(value)) from None
    return str(value)


def ipv4_or_any(value: Any) -> str:
    return "0.0.0.0" if str(value) == "any" else ipv4(value)


def ipv4_interface(value: Any) -> str:
    """``ADDRESS/LENGTH``; without a length, /32 as ip-address(8) has it."""
    try:
        return ipaddress.IPv4Interface(str(value)).with_prefixlen
    except ValueError:
        raise ValueError("%r is no IPv4 address with a prefix length" % str(value)) from None


def destination(value: Any) -> str:
    """A route's destination as ``NETWORK/LENGTH``; ``default`` is 0.0.0.0/0."""
    text = "0.0.0.0/0" if str(value) == "default" else str(value)
    address, _slash, length = text.partition("/")
    try:
        bits = int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big")
        if length in _LENGTHS and not bits & _LENGTHS[length]:
            return text
        return str(ipaddress.IPv4Network(text))
    except (OSError, ValueError) as error:
        raise ValueError("%r is no IPv4 destination (%s)" % (text, error)) from None


_LENGTHS = {str(length): (1 << 32 - length) - 1 for length in range(33)}
"""The host bits of each prefix length."""


def mac(value: Any) -> str:
    text = str(value).lower().replace("-", ":")
    if not re.match(r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$", text):
        raise ValueError("%r is no MAC address" % str(value))
    if int(text[:2], 16) & 1:
        raise ValueError("%r is a multicast MAC address" % str(value))
    return text


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("%r is neither true nor false" % (value,))
    return value


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("%r is no text" % (value,))
    return value.encode().decode()  # refuses half a surrogate pair


def number(lowest: int, highest: int, words: Mapping[str, int] | None = None) -> Callable[[Any], int]:
    """A reader of whole numbers from *lowest* to *highest*, or of one of *words*."""

    def read(value: Any) -> int:
        if words and str(value) in words:
            return words[str(value)]
        try:
            if isinstance(value, (bool, float)):
                raise ValueError
            result = int(value)
        except (TypeError, ValueError):
            known = ", or one of %s" % ", ".join(words) if words else ""
            raise ValueError("%r is no whole number%s" % (value, known)) from None
        if not lowest <= result <= highest:
            raise ValueError("%d is not between %d and %d" % (result, lowest, highest))
        return result

    return read


def choice(*words: str) -> Callable[[Any], str]:
    """A reader of one of *words*."""

    def read(value: Any) -> str:
        if value not in words:
            raise ValueError("%r is none of %s" % (value, ", ".join(words)))
        return str(value)

    return read


read_mtu = number(68, 65535)
read_table = number(1, 2**32 - 1, ROUTE_TABLES)
read_protocol = number(0, 255, ROUTE_PROTOCOLS)

Reader = Callable[[Any], Any]
_PART_READERS: dict[type[Any], dict[str, Reader]] = {
    Bridge: {
        "stp": flag,
        "ageing_time": number(0, 1000000),
        "forward_delay": number(0, 30),
        "hello_time": number(1, 10),
        "max_age": number(6, 40),
        "priority": number(0, 65535),
        "vlan_filtering": flag,
        "no_linklocal_learn": flag,
    },
    Ipip: {
        "mode": number(0, 255, TUNNEL_MODES),
        "local": ipv4_or_any,
        "remote": ipv4_or_any,
        "ttl": number(0, 255, {"inherit": 0}),
        "tos": number(0, 255, {"inherit": 1}),
        "pmtudisc": flag,
        "link": optional_name,
    },
    Vxlan: {
        "id": number(0, 2**24 - 1),
        "local": ipv4,
        "link": optional_name,
        "port": number(1, 65535),
        "learning": flag,
    },
    Port: {"hairpin": flag, "isolated": flag, "learning": flag, "priority": number(0, 63), "cost": number(1, 65535)},
}
_LINK_READERS: dict[str, Reader] = {
    "up": flag,
    "mtu": read_mtu,
    "address": mac,
    "master": optional_name,
    "external": flag,
}
_ROUTE_READERS: dict[str, Reader] = {
    "dst": destination,
    "via": ipv4,
    "dev": interface_name,
    "onlink": flag,
    "table": read_table,
    "metric": number(0, 2**32 - 1),
    "src": ipv4,
    "mtu": read_mtu,
    "protocol": read_protocol,
    "type": choice("unicast", "blackhole", "unreachable", "prohibit"),
}
_SECTIONS = (
    "version",
    "name",
    "namespace",
    "namespaces",
    "links",
    "routes",
    "neighbours",
    "fdb",
    "sysctls",
    "files",
    "firewall",
    "peers",
)


class Reading:
    """Reads a document's parts and collects every mistake with the place where it stands."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.mistakes: list[str] = []

    def value(self, where: str, raw: Any, reader: Callable[[Any], T], fallback: T) -> T:
        try:
            return reader(raw)
        except ValueError as error:
            self.mistakes.append("%s: %s" % (where, error))
            return fallback

    def mapping(self, where: str, raw: Any, keys: Sequence[str], needs: Sequence[str] = ()) -> dict[str, Any]:
        if not isinstance(raw, Mapping):
            self.mistakes.append("%s: %r is no mapping" % (where, raw))
            return {}
        self.mistakes += [
            "%s: unknown key %r; the keys are %s" % (where, key, ", ".join(keys)) for key in raw if key not in keys
        ]
        self.mistakes += ["%s: %s is missing" % (where, key) for key in needs if raw.get(key) is None]
        return {str(key): value for key, value in raw.items() if value is not None and key in keys}

    def sequence(self, where: str, raw: Any) -> Sequence[Any]:
        if isinstance(raw, Sequence) and not isinstance(raw, str):
            return raw
        self.mistakes.append("%s: %r is no list" % (where, raw))
        return ()

    def items(self, document: Mapping[str, Any], section: str) -> Iterator[tuple[str, Any]]:
        for index, item in enumerate(self.sequence(section, document.get(section) or [])):
            name = item.get("name") or item.get("dst") or item.get("lladdr") if isinstance(item, Mapping) else None
            yield "%s[%s]" % (section, name if name is not None else index), item

    def fields(self, where: str, raw: Mapping[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, reader in readers.items():
            if key in raw:
                found[key] = self.value("%s: %s" % (where, key), raw[key], reader, None)
        return found

    def place(self, where: str, raw: Mapping[str, Any]) -> str:
        return self.value("%s: namespace" % where, raw.get("namespace", self.namespace), namespace_name, "")

    def namespaces(self, document: Mapping[str, Any], owner: str) -> Iterator[Object]:
        for where, item in self.items(document, "namespaces"):
            keys = (
                ("name", "files") if owner else ("name", "files", "pid")
            )  # a process's namespace belongs to nobody here
            raw = self.mapping(where, item, keys, ("name",))
            name = self.value("%s: name" % where, raw.get("name", "?"), file_name, "?")
            yield Namespace(name, owner, **self.fields(where, raw, {"pid": number(1, 2**22)}))
            files = raw.get("files", {})
            for file, content in self.mapping(
                "%s: files" % where, files, list(files) if isinstance(files, Mapping) else ()
            ).items():
                yield NamespaceFile(
                    name,
                    self.value("%s: files" % where, file, file_name, "?"),
                    self.value("%s: files: %s" % (where, file), content, text_of, ""),
                )

    def links(self, document: Mapping[str, Any], owner: str) -> Iterator[Object]:
        common = ("name", "kind", "namespace", "addresses", "port", *_LINK_READERS)
        for where, item in self.items(document, "links"):
            kind = item.get("kind") or "" if isinstance(item, Mapping) else ""
            kind = kind if isinstance(kind, str) else repr(kind)
            own = ("peer",) if kind == "veth" else (kind,) if kind in OPTIONS else ()
            raw = self.mapping(where, item, (*common, *own), ("name",))
            namespace = self.place(where, raw)
            if raw.get("external"):
                yield self.external(where, raw, namespace, owner)
                continue
            if kind not in OPTIONS:
                self.mistakes.append("%s: kind %r is none of %s" % (where, kind, ", ".join(OPTIONS)))
                continue
            if kind == "veth":
                yield from self.veth(where, raw, namespace, owner)
            else:
                part = self.part("%s: %s" % (where, kind), raw.get(kind, {}), OPTIONS[kind])
                if kind == "ipip" and part.ttl and part.pmtudisc is False:
                    self.mistakes.append("%s: ipip: ttl %d needs pmtudisc, or ttl inherit" % (where, part.ttl))
                if kind == "vxlan" and (part is None or part.id is None):
                    self.mistakes.append("%s: vxlan: id is missing" % where)
                yield from self.link(where, raw, namespace, kind, part, owner)

    def external(self, where: str, raw: Mapping[str, Any], namespace: str, owner: str) -> Link:
        """A link that stays as it is, but that a bridge which no document owns may have it as a port."""
        allowed = ("name", "kind", "namespace", "external", *(() if owner else ("master", "port")))
        self.mistakes += [
            "%s: %s: an external link is only referred to" % (where, key) for key in raw if key not in allowed
        ]
        name = self.value("%s: name" % where, raw.get("name", "?"), interface_name, "?")
        port = self.part("%s: port" % where, raw["port"], Port) if "port" in raw else None
        master = self.fields(where, raw, {"master": optional_name})
        return Link(namespace, name, raw.get("kind", ""), port=port, external=True, **master)

    def veth(self, where: str, raw: Mapping[str, Any], namespace: str, owner: str) -> Iterator[Object]:
        keys = ("name", "namespace", "addresses", "port", *(key for key in _LINK_READERS if key != "external"))
        peer = self.mapping("%s: peer" % where, raw.get("peer", {}), keys, ("name",))
        peer_namespace = self.place("%s: peer" % where, peer)
        name, peer_name = (str(item.get("name", "?")) for item in (raw, peer))
        if (namespace, name) == (peer_namespace, peer_name):
            self.mistakes.append("%s: both ends have the same name in the same namespace" % where)
        yield from self.link(where, raw, namespace, "veth", Veth(peer_name, peer_namespace), owner)
        yield from self.link("%s: peer" % where, peer, peer_namespace, "veth", Veth(name, namespace), owner)

    def link(
        self, where: str, raw: Mapping[str, Any], namespace: str, kind: str, options: Options | None, owner: str
    ) -> Iterator[Object]:
        name = self.value("%s: name" % where, raw.get("name", "?"), interface_name, "?")
        fields = self.fields(where, raw, _LINK_READERS)
        fields.setdefault("up", True)
        port = self.part("%s: port" % where, raw["port"], Port) if "port" in raw else None
        yield Link(namespace, name, kind, options=options, port=port, owner=owner, **fields)
        for item in self.sequence("%s: addresses" % where, raw.get("addresses", [])):
            yield self.address("%s: addresses" % where, item, namespace, name)

    def part(self, where: str, raw: Any, kind: type[Any]) -> Any:
        readers = _PART_READERS[kind]
        return kind(**self.fields(where, self.mapping(where, raw, list(readers)), readers))

    def address(self, where: str, item: Any, namespace: str, dev: str) -> Address:
        raw = (
            {"address": item}
            if isinstance(item, str)
            else self.mapping(where, item, ("address", "peer", "scope"), ("address",))
        )
        local = self.value(where, raw.get("address", "0.0.0.0"), ipv4_interface, "?")
        peer = self.value("%s: peer" % where, raw["peer"], ipv4_interface, "") if "peer" in raw else ""
        scope = self.value("%s: scope" % where, raw.get("scope", "global"), choice(*SCOPES), "global")
        return Address(namespace, dev, local.split("/")[0] if peer else local, peer, scope)

    def routes(self, document: Mapping[str, Any]) -> Iterator[Object]:
        for where, item in self.items(document, "routes"):
            raw = self.mapping(where, item, (*_ROUTE_READERS, "namespace"), ("dst",))
            fields = self.fields(where, raw, _ROUTE_READERS)
            if not (fields.get("via") or fields.get("dev")) and fields.get("type", "unicast") == "unicast":
                self.mistakes.append("%s: needs via, dev or both" % where)
            if fields.get("onlink") and not (fields.get("via") and fields.get("dev")):
                self.mistakes.append("%s: onlink needs both via and dev" % where)
            yield Route(self.place(where, raw), **{"dst": "0.0.0.0/0", **fields})

    def entries(self, document: Mapping[str, Any]) -> Iterator[Object]:
        for where, item in self.items(document, "neighbours"):
            raw = self.mapping(where, item, ("dst", "lladdr", "dev", "namespace"), ("dst", "lladdr", "dev"))
            got = self.fields(where, raw, {"dev": interface_name, "dst": ipv4, "lladdr": mac})
            yield Neighbour(self.place(where, raw), **{"dev": "?", "dst": "?", "lladdr": "?", **got})
        for where, item in self.items(document, "fdb"):
            raw = self.mapping(where, item, ("lladdr", "dev", "dst", "namespace"), ("lladdr", "dev", "dst"))
            got = self.fields(where, raw, {"dev": interface_name, "lladdr": mac, "dst": ipv4})
            yield ForwardingEntry(self.place(where, raw), **{"dev": "?", "lladdr": "?", "dst": "?", **got})
        for where, item in self.items(document, "sysctls"):
            raw = self.mapping(where, item, ("name", "value", "namespace"), ("name", "value"))
            name = self.value("%s: name" % where, raw.get("name", "?"), sysctl_name, "?")
            namespace = self.place(where, raw)
            if namespace and not name.startswith("net."):
                self.mistakes.append("%s: a namespace has no sysctls of its own but those of net" % where)
            yield Sysctl(namespace, name, " ".join(str(raw.get("value", "")).split()))

    def files(self, document: Mapping[str, Any]) -> Iterator[Object]:
        for index, item in enumerate(self.sequence("files", document.get("files") or [])):
            where = "files[%s]" % (item.get("path", index) if isinstance(item, Mapping) else index)
            raw = self.mapping(where, item, ("path", "content", "mode"), ("path", "content"))
            path = self.value("%s: path" % where, raw.get("path", "/?"), absolute_path, "?")
            content = self.value("%s: content" % where, raw.get("content", ""), text_of, "")
            yield File(path, content, self.value("%s: mode" % where, raw.get("mode", "0644"), file_mode, 0))


def absolute_path(value: Any) -> str:
    """A file's path from the root, with nothing in it that leads elsewhere."""
    text = text_of(value)
    if not text.startswith("/") or "\0" in text or {"", ".", ".."} & set(text[1:].split("/")):
        raise ValueError("%r is no absolute path of a file" % text)
    return text


def file_mode(value: Any) -> int:
    """Permissions as octal digits, such as 0644."""
    if not re.fullmatch(r"0?[0-7]{3}", str(value)):
        raise ValueError("%r are no permissions such as '0644'" % (value,))
    return int(str(value), 8)


def sysctl_name(value: Any) -> str:
    """A sysctl's name, dots between its parts; an interface's own dots are slashes, as sysctl(8) has it."""
    text = str(value)
    if not re.match(r"^[A-Za-z0-9_:@-]+([./][A-Za-z0-9_:@-]+)+$", text):
        raise ValueError("%r is no sysctl name such as net.ipv4.ip_forward" % text)
    if text.find("/") != -1 and (text.find(".") == -1 or text.find("/") < text.find(".")):
        text = text.translate(str.maketrans("./", "/."))
    return text


def interface_of(sysctl: str) -> str:
    """The interface that a sysctl belongs to, or ''."""
    found = re.match(r"net[.]ipv[46][.](?:conf|neigh)[.]([^.]+)[.]", sysctl)
    return found.group(1).replace("/", ".") if found and found.group(1) not in ("all", "default") else ""


def document_name(value: Any) -> str:
    """A document's name: it is a file's name and a word of a rule's comment.

    Raises:
        Mistakes: it cannot be one.
    """
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", text):
        raise Mistakes(["name: %r is no document's name: letters, digits, '_', '.' and '-', 200 at most" % text])
    return text


def parse(document: Mapping[str, Any], owner: str = "", namespace: str = "") -> State:
    """The state that *document* desires, but for its clauses ``peers`` (see ``_peers``) and ``firewall`` (``_firewall``).

    Args:
        document: as described in ``podnet.overlay.topology``.
        owner: the document's name, which its links and namespaces will carry.
        namespace: where objects are that name no namespace of their own; in place of the document's own word on it.

    Raises:
        Mistakes: every mistake in it, each with the place where it stands.
    """
    reading = Reading(namespace)
    raw = reading.mapping("document", document, _SECTIONS)
    if not namespace and "namespace" in raw:
        reading.namespace = reading.value("namespace", raw["namespace"], namespace_name, "")
    if raw.get("version", DOCUMENT_VERSION) != DOCUMENT_VERSION:
        reading.mistakes.append(
            "version: %r is not %d, the one that this release knows" % (raw["version"], DOCUMENT_VERSION)
        )
    state: State = {}
    for section in (
        reading.namespaces(raw, owner),
        reading.links(raw, owner),
        reading.routes(raw),
        reading.entries(raw),
        reading.files(raw),
    ):
        for item in section:
            if item.key in state and not {"?", None} & set(item.key):  # those stand for what was wrong
                reading.mistakes.append("%s is there twice" % describe(item))
            state[item.key] = item
    if not reading.mistakes:
        reading.mistakes += _dangling(state)
    if reading.mistakes:
        raise Mistakes(reading.mistakes)
    return state


def _dangling(state: State) -> Iterator[str]:
    """References inside the document that cannot be right whatever the host holds."""
    for link in of_type(state, Link):
        if link.port is not None and link.master == "":
            yield "links[%s]: port options need a master" % link.name
        master = state.get(("link", link.namespace, link.master))
        if isinstance(master, Link) and master.kind not in ("", "bridge"):
            yield "links[%s]: master %s is of kind %s, not a bridge" % (link.name, master.name, master.kind)


# ------------------------------------------------------------------------------------------------ rendering


def render(state: Mapping[Key, Object], name: str = "") -> dict[str, Any]:
    """A state as a document that ``parse`` reads back to the same state."""
    document: dict[str, Any] = {"version": DOCUMENT_VERSION}
    if name:
        document["name"] = name
    sections: dict[str, list[dict[str, Any]]] = {
        "namespaces": [_render_namespace(item, state) for item in of_type(state, Namespace)],
        "links": [_render_link(item, state) for item in of_type(state, Link) if not _is_second_end(item, state)],
        "routes": [_render_route(item) for item in of_type(state, Route)],
        "neighbours": [
            _placed(item, dst=item.dst, lladdr=item.lladdr, dev=item.dev) for item in of_type(state, Neighbour)
        ],
        "fdb": [
            _placed(item, lladdr=item.lladdr, dev=item.dev, dst=item.dst) for item in of_type(state, ForwardingEntry)
        ],
        "sysctls": [_placed(item, name=item.name, value=item.value) for item in of_type(state, Sysctl)],
        "files": [
            {"path": item.path, "content": item.content, "mode": "%04o" % item.mode} for item in of_type(state, File)
        ],
    }
    document.update((section, items) for section, items in sections.items() if items)
    return document


def _placed(item: Any, **fields: Any) -> dict[str, Any]:
    return {**fields, "namespace": item.namespace} if item.namespace else fields


def _render_namespace(item: Namespace, state: Mapping[Key, Object]) -> dict[str, Any]:
    files = {file.name: file.content for file in of_type(state, NamespaceFile) if file.namespace == item.name}
    return {"name": item.name, "files": files} if files else {"name": item.name}


def _peer_key(link: Link) -> Key | None:
    return ("link", link.options.peer_namespace, link.options.peer) if isinstance(link.options, Veth) else None


def _is_second_end(link: Link, state: Mapping[Key, Object]) -> bool:
    """A pair is written once, at its end outside of pods (or the first by name)."""
    peer = _peer_key(link)
    return peer in state and not link.external and (link.namespace, link.name) > (peer or ())[1:]


def _render_link(link: Link, state: Mapping[Key, Object], peer: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = {"name": link.name}
    if not peer and link.kind:
        document["kind"] = link.kind
    if link.namespace:
        document["namespace"] = link.namespace
    if link.external:
        return {**document, "external": True}
    for field in ("up", "mtu", "address", "master"):
        value = getattr(link, field)
        if value is not None and (field, value) != ("up", True):
            document[field] = value
    addresses = [item for item in of_type(state, Address) if (item.namespace, item.dev) == (link.namespace, link.name)]
    if addresses:
        document["addresses"] = [_render_address(item) for item in addresses]
    if link.port is not None:
        document["port"] = _render_part(link.port)
    if isinstance(link.options, Veth):
        other = state.get(_peer_key(link) or ())
        if not peer:
            document["peer"] = (
                _render_link(other, state, peer=True)
                if isinstance(other, Link)
                else {"name": link.options.peer, "namespace": link.options.peer_namespace}
            )
    elif link.options is not None:
        document[link.kind] = _render_part(link.options)
    return document


def _render_part(part: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(part).items() if value is not None}


def _render_address(item: Address) -> Any:
    if not item.peer and item.scope == "global":
        return item.address
    return {
        name: getattr(item, name) for name in ("address", "peer", "scope") if getattr(item, name) not in ("", "global")
    }


def _render_route(route: Route) -> dict[str, Any]:
    defaults = Route("", "")
    document = {name: value for name, value in route._asdict().items() if value != getattr(defaults, name)}
    if "protocol" in document:
        document["protocol"] = protocol_name(route.protocol)
    return document
