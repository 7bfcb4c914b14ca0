# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one file that talks to the kernel: rtnetlink by pyroute2's message types, /proc/sys, /run/netns and nft.

It knows how a thing is read and written, not what is desired or why. Messages are sent in batches over plain netlink
sockets, one in each namespace, because pyroute2's own socket asks for one answer per request (1,400 routes/s against
50,000) and does so differently in 0.7 and 0.9. Routes, the one hot message, are encoded and parsed here by hand;
a property test holds that codec against pyroute2's.

Sources: rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_link.h, ip-netns(8), libnftables-json(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.util
import json
import os
import socket
import stat
import struct
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import Any

from . import _command, _conntrack, _foreign, _netns, _nft
from ._atomic import write_atomically
from ._difference import Operation
from ._model import (
    ALIAS_PREFIX,
    ROUTE_TYPES,
    SCOPES,
    Accept,
    Address,
    Bridge,
    File,
    Firewall,
    ForwardingEntry,
    Ipip,
    Link,
    Namespace,
    NamespaceFile,
    Neighbour,
    Object,
    Port,
    Route,
    State,
    Sysctl,
    SysctlLine,
    Veth,
    Vxlan,
    sysctl_name,
)
from ._netlink import HEADER, attribute, attributes, messages
from ._netns import FOLDER as NETNS_FOLDER
from ._netns import inside, loopback_alias

NETNS_FILES = "/etc/netns"


class MissingLibrary(RuntimeError):
    """pyroute2 is not there for this interpreter."""


def _message_types() -> tuple[Any, Any]:
    """pyroute2's types of link and address messages (0.7.2 and newer).

    Importing ``pyroute2`` runs its ``__init__``, which imports all of its 370 modules: 3 to 6 s on a slow host. The
    message types alone need 20 of them, so the package is entered by its folder while they are imported.
    """
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingLibrary("pyroute2 is not installed for %s" % sys.executable)
    loaded = sys.modules.get("pyroute2")
    if loaded is None:
        package = types.ModuleType("pyroute2")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["pyroute2"] = package
    try:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    except ImportError as error:
        raise MissingLibrary("pyroute2 of %s cannot be used: %s" % (sys.executable, error)) from error
    finally:
        if loaded is None:
            del sys.modules["pyroute2"]
    return ifinfmsg, ifaddrmsg


@dataclass(frozen=True)
class Failure:
    """The kernel's answer to a request that failed: ``code`` is an errno, ``text`` its extended acknowledgement."""

    code: int
    text: str = ""

    def __str__(self) -> str:
        reason = os.strerror(self.code) if self.code else ""
        return ": ".join(part for part in dict.fromkeys((reason, self.text)) if part)


class KernelError(Exception):
    """An operation failed. ``done`` are those of the same run that had been carried out before, in order.

    ``others`` are those that failed along with it, in the same batch.
    """

    def __init__(
        self,
        operation: Operation | None,
        failure: Failure,
        done: Sequence[Operation] = (),
        others: Sequence[Operation] = (),
    ) -> None:
        self.operation, self.failure, self.done, self.others = operation, failure, list(done), list(others)
        what = "cannot %s: " % operation if operation else ""
        cause = _likely_cause(operation, failure.code)
        super().__init__("%s%s%s" % (what, failure, ". " + cause if cause else ""))


def _likely_cause(operation: Operation | None, code: int) -> str:
    item = operation.item if operation else None
    if code in (errno.EPERM, errno.EACCES):
        return "This needs root (CAP_NET_ADMIN): run with become: true"
    if isinstance(item, Link):
        if code == errno.EOPNOTSUPP and isinstance(item.options, Bridge) and item.options.vlan_filtering:
            return "This kernel's bridges may have no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)"
        if code == errno.EOPNOTSUPP:
            others = ", or use another backend (%s)" % _OTHERS[item.kind] if item.kind in _OTHERS else ""
            return "This kernel has no %s device: load the module %s%s" % (item.kind, item.kind, others)
        if code == errno.EEXIST and item.kind in ("ipip", "vxlan"):
            return "Another %s device has the same endpoints: ip -d link show type %s" % (item.kind, item.kind)
        if code == errno.EINVAL and item.mtu:
            return "MTU %d or another option is out of this device's range" % item.mtu
    if isinstance(item, Route) and code == errno.ENETUNREACH:
        return "The gateway %s is on no network of the host: onlink and dev say where it is" % item.via
    if isinstance(item, Route) and code in (errno.ENETDOWN, errno.EINVAL):
        return "The device is down, or the source address is not the host's"
    if isinstance(item, Sysctl) and code in (errno.EINVAL, errno.ERANGE):
        return "The kernel does not take this value"
    return ""


_OTHERS = {"ipip": "vxlan, host-gw", "vxlan": "ipip, host-gw"}


# ------------------------------------------------------------------------------------------------ netlink transport

_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT = 270, 10, 11, 12
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
_DUMP_INTERRUPTED, _ACK_CAPPED, _ACK_HAS_TLVS = 0x10, 0x100, 0x200
_ERROR, _DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _DELADDR, _GETADDR = 16, 17, 18, 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEIGH, _DELNEIGH, _GETNEIGH = 24, 25, 26, 28, 29, 30
_GETNSID, _NETNSA_NSID, _NETNSA_FD = 90, 1, 3  # linux/net_namespace.h
_IFF_UP = 0x1
_SKIP_STATISTICS = 8
_BATCH = 1000


class _Socket:
    """A route netlink socket of one namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: a thousand refusals fit
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The datagrams that answer a dump request, each with one or more messages. Repeated while a change interrupts it."""
        while True:
            parts, interrupted = self._dump_once(kind, body)
            if not interrupted:
                return parts

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._socket.send(HEADER.pack(16 + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
        parts: list[bytes] = []
        interrupted = False
        while True:
            part = self._socket.recv(1 << 17)
            for offset, size, message, flags in _messages(part):
                interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
                if message == _DONE:
                    return parts, interrupted
                if message == _ERROR:
                    raise KernelError(None, _failure(part, offset, size, flags))
                break  # the first message's flags speak for the datagram
            parts.append(part)
            if _ends(part):
                return parts, interrupted

    def namespace_id(self, descriptor: int) -> int:
        """The number that this socket's namespace has for another one, -1 where it has none (RTM_GETNSID)."""
        body = struct.pack("=B3x", 0) + _WORD.pack(8, _NETNSA_FD, descriptor)
        self._socket.send(HEADER.pack(16 + len(body), _GETNSID, _REQUEST, 1, 0) + body)
        part = self._socket.recv(1 << 16)
        raw = attributes(part, 20, len(part)).get(_NETNSA_NSID)
        return int(struct.unpack("=i", raw)[0]) if raw else -1

    def send(self, messages: Sequence[bytes]) -> dict[int, Failure]:
        """Send requests in order; the failures by position. Only the last is acknowledged: refusals always are."""
        failures: dict[int, Failure] = {}
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            last = len(batch) - 1
            request = b"".join(
                HEADER.pack(len(data), kind, flags | (_ACK if index == last else 0), index, 0) + data[16:]
                for index, data in enumerate(batch)
                for _length, kind, flags, _sequence, _port in (HEADER.unpack_from(data),)
            )
            self._socket.send(request)
            answered = False
            while not answered:
                part = self._socket.recv(1 << 17)
                for offset, size, message, flags in _messages(part):
                    if message == _ERROR:
                        index = int(HEADER.unpack_from(part, offset)[3])
                        failure = _failure(part, offset, size, flags)
                        if failure.code:
                            failures[start + index] = failure
                        answered = answered or index == last
        return failures


def _messages(part: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(offset, length, type, flags) of each message of a datagram."""
    offset, end = 0, len(part)
    while offset + 16 <= end:
        size, kind, flags, _sequence, _port = HEADER.unpack_from(part, offset)
        yield offset, size, kind, flags
        offset += (size + 3) & ~3


def _ends(part: bytes) -> bool:
    """Whether a dump's datagram holds the final message, which a short dump carries along."""
    return (
        len(part) >= 20
        and struct.unpack_from("=H", part, len(part) - 16)[0] == _DONE
        and struct.unpack_from("=I", part, len(part) - 20)[0] == 20
    )


def _failure(part: bytes, offset: int, size: int, flags: int) -> Failure:
    code = -struct.unpack_from("=i", part, offset + 16)[0]
    text = ""
    if flags & _ACK_HAS_TLVS:
        inner = struct.unpack_from("=I", part, offset + 20)[0]
        start = offset + 20 + (16 if flags & _ACK_CAPPED else (inner + 3) & ~3)
        text = attributes(part, start, offset + size).get(1, b"").split(b"\0")[0].decode("utf-8", "replace")
    return Failure(code, text)


# ------------------------------------------------------------------------------------------------ the route codec

_ROUTE = struct.Struct("=IHHIIBBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_WORD = struct.Struct("=HHI")
_WORD_AT = struct.Struct("=I").unpack_from
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
_RTAX_MTU, _ONLINK = 2, 4
_SCOPE_LINK, _ANY_SCOPE = 253, 255
_TYPE_NAMES = {number: name for name, number in ROUTE_TYPES.items()}


def encode_route(route: Route, oif: int, kind: int = _NEWROUTE, flags: int = _REQUEST | _CREATE) -> bytes:
    """An RTM_NEWROUTE or RTM_DELROUTE request (rtnetlink(7)); *oif* is the device's index, or 0."""
    network, _slash, length = route.dst.partition("/")
    bits = int(length)
    table = route.table
    body = _WORD.pack(8, _RTA_TABLE, table)
    if bits:
        body += _ATTRIBUTE.pack(8, _RTA_DST) + socket.inet_aton(network)
    if route.via:
        body += _ATTRIBUTE.pack(8, _RTA_GATEWAY) + socket.inet_aton(route.via)
    if oif:
        body += _WORD.pack(8, _RTA_OIF, oif)
    if route.metric:
        body += _WORD.pack(8, _RTA_PRIORITY, route.metric)
    if route.src:
        body += _ATTRIBUTE.pack(8, _RTA_PREFSRC) + socket.inet_aton(route.src)
    if route.mtu:
        body += _ATTRIBUTE.pack(12, _RTA_METRICS) + _WORD.pack(8, _RTAX_MTU, route.mtu)
    scope = 0 if route.via or route.type != "unicast" else _SCOPE_LINK
    scope = _ANY_SCOPE if kind == _DELROUTE else scope
    return (
        _ROUTE.pack(
            28 + len(body),
            kind,
            flags,
            0,
            0,
            socket.AF_INET,
            bits,
            0,
            0,
            table if table < 256 else 0,
            route.protocol,
            scope,
            ROUTE_TYPES[route.type],
            _ONLINK if route.onlink else 0,
        )
        + body
    )


def decode_routes(
    part: bytes, namespace: str, names: Mapping[int, str], tables: Collection[int] = ()
) -> Iterator[Route]:
    """The IPv4 routes of a dump's datagram; *names* gives devices by index. The table local, and tos routes, are left out."""
    ntoa = socket.inet_ntoa
    header, attribute, word = _ROUTE.unpack_from, _ATTRIBUTE.unpack_from, _WORD_AT
    offset, end = 0, len(part)
    while offset + 28 <= end:
        size, kind, _f, _s, _p, family, bits, _src, tos, table, protocol, _scope, rtype, flags = header(part, offset)
        stop, at = offset + size, offset + 28
        offset = (stop + 3) & ~3
        if kind != _NEWROUTE or family != 2 or tos or (table == 255 and 255 not in tables):
            continue
        dst, via, dev, src, metric, mtu = "0.0.0.0", "", "", "", 0, 0
        while at < stop:
            length, what = attribute(part, at)
            value = at + 4
            if what == _RTA_TABLE:
                table = word(part, value)[0]
            elif what == _RTA_DST:
                dst = ntoa(part[value : value + 4])
            elif what == _RTA_GATEWAY:
                via = ntoa(part[value : value + 4])
            elif what == _RTA_OIF:
                dev = names.get(word(part, value)[0], "?")
            elif what == _RTA_PRIORITY:
                metric = word(part, value)[0]
            elif what == _RTA_PREFSRC:
                src = ntoa(part[value : value + 4])
            elif what == _RTA_METRICS:
                mtu = _metrics_mtu(part, value, at + length)
            at += (length + 3) & ~3
        yield Route(
            namespace,
            "%s/%d" % (dst, bits),
            via,
            dev,
            flags & _ONLINK != 0,
            table,
            metric,
            src,
            mtu,
            protocol,
            _TYPE_NAMES.get(rtype, str(rtype)),
        )


def _metrics_mtu(part: bytes, offset: int, end: int) -> int:
    raw = attributes(part, offset, end).get(_RTAX_MTU)
    return int(struct.unpack("=I", raw)[0]) if raw else 0


# ------------------------------------------------------------------------------------------------ neighbours and forwarding entries

_ENTRY = struct.Struct("=BxxxiHBB")  # linux/neighbour.h: ndmsg
_NDA_DST, _NDA_LLADDR, _PERMANENT, _SELF = 1, 2, 0x80, 0x02


def encode_entry(item: Neighbour | ForwardingEntry, index: int, kind: int, flags: int) -> bytes:
    """An RTM_NEWNEIGH or RTM_DELNEIGH request (rtnetlink(7)) of a permanent entry; *index* is the device's."""
    family, own = (socket.AF_INET, 0) if isinstance(item, Neighbour) else (socket.AF_BRIDGE, _SELF)
    body = _ENTRY.pack(family, index, _PERMANENT, own, 0)
    body += attribute(_NDA_DST, socket.inet_aton(item.dst))
    body += attribute(_NDA_LLADDR, bytes.fromhex(item.lladdr.replace(":", "")))
    return HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body


def decode_entries(part: bytes, namespace: str, names: Mapping[int, str]) -> Iterator[Neighbour | ForwardingEntry]:
    """The permanent IPv4 neighbours, and forwarding entries with an IPv4 destination, of a dump's datagram."""
    for message in messages(part):
        if message.kind != _NEWNEIGH:
            continue
        family, index, state, _flags, _type = _ENTRY.unpack_from(message.payload)
        found = attributes(message.payload, _ENTRY.size)
        dst = found.get(_NDA_DST, b"")
        if not state & _PERMANENT or len(dst) != 4:
            continue
        lladdr = found.get(_NDA_LLADDR, b"").hex(":")
        if family == socket.AF_INET:
            yield Neighbour(namespace, names.get(index, "?"), socket.inet_ntoa(dst), lladdr)
        elif family == socket.AF_BRIDGE:
            yield ForwardingEntry(namespace, names.get(index, "?"), lladdr, socket.inet_ntoa(dst))


# ------------------------------------------------------------------------------------------------ the kernel

_BRIDGE_TIMES = ("ageing_time", "forward_delay", "hello_time", "max_age")  # in hundredths of a second in the kernel
_BRIDGE = {
    "stp": "IFLA_BR_STP_STATE",
    "ageing_time": "IFLA_BR_AGEING_TIME",
    "forward_delay": "IFLA_BR_FORWARD_DELAY",
    "hello_time": "IFLA_BR_HELLO_TIME",
    "max_age": "IFLA_BR_MAX_AGE",
    "priority": "IFLA_BR_PRIORITY",
    "vlan_filtering": "IFLA_BR_VLAN_FILTERING",
    "no_linklocal_learn": "IFLA_BR_MULTI_BOOLOPT",
}
_IPIP = {
    "mode": "IFLA_IPIP_PROTO",
    "local": "IFLA_IPIP_LOCAL",
    "remote": "IFLA_IPIP_REMOTE",
    "ttl": "IFLA_IPIP_TTL",
    "tos": "IFLA_IPIP_TOS",
    "pmtudisc": "IFLA_IPIP_PMTUDISC",
    "link": "IFLA_IPIP_LINK",
}
_VXLAN = {
    "id": "IFLA_VXLAN_ID",
    "local": "IFLA_VXLAN_LOCAL",
    "link": "IFLA_VXLAN_LINK",
    "port": "IFLA_VXLAN_PORT",
    "learning": "IFLA_VXLAN_LEARNING",
}
_PORT = {
    "hairpin": "IFLA_BRPORT_MODE",
    "isolated": "IFLA_BRPORT_ISOLATED",
    "learning": "IFLA_BRPORT_LEARNING",
    "priority": "IFLA_BRPORT_PRIORITY",
    "cost": "IFLA_BRPORT_COST",
}
_OPTION_NAMES = {Bridge: _BRIDGE, Ipip: _IPIP, Vxlan: _VXLAN}
_ISOLATED_TYPE, _BOOLOPT_TYPE = 33, 46  # linux/if_link.h: IFLA_BRPORT_ISOLATED, IFLA_BR_MULTI_BOOLOPT
_BOOLOPT = struct.Struct("=II")  # linux/if_bridge.h: br_boolopt_multi, values and mask; bit 0 is BR_BOOLOPT_NO_LL_LEARN


class Kernel:
    """The host's kernel, seen and changed through one netlink socket for each namespace. A context manager.

    Raises:
        MissingLibrary: on creation, where pyroute2 is not installed.
    """

    def __init__(self) -> None:
        self._ifinfmsg, self._ifaddrmsg = _message_types()
        _teach(self._ifinfmsg)
        self._fds = {"": os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)}
        self._sockets: dict[str, _Socket] = {}
        self._index: dict[tuple[str, str], int] = {}
        self._writers: dict[type, Callable[[Operation, Any], list[Failure]]] = {
            Namespace: self._write_namespace,
            NamespaceFile: self._write_file,
            File: self._write_whole_file,
            Firewall: self._write_firewall,
            Accept: self._write_accept,
            Sysctl: self._write_sysctl,
            SysctlLine: self._write_sysctl_line,
            Link: self._write_link,
            Address: self._write_address,
        }

    def __enter__(self) -> Kernel:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_exception: object) -> None:
        for netlink in self._sockets.values():
            netlink.close()
        for descriptor in self._fds.values():
            os.close(descriptor)

    # -------------------------------------------------------------------------------------------- namespaces

    def _descriptor(self, namespace: str) -> int:
        if namespace not in self._fds:
            self._fds[namespace] = os.open(os.path.join(NETNS_FOLDER, namespace), os.O_RDONLY | os.O_CLOEXEC)
        return self._fds[namespace]

    def _forget_namespace(self, namespace: str) -> None:
        """Close what keeps it alive."""
        if namespace in self._sockets:
            self._sockets.pop(namespace).close()
        if namespace in self._fds:
            os.close(self._fds.pop(namespace))
        self._index = {key: index for key, index in self._index.items() if key[0] != namespace}

    def _socket(self, namespace: str) -> _Socket:
        if namespace not in self._sockets:
            self._sockets[namespace] = inside(namespace, _Socket)
        return self._sockets[namespace]

    # -------------------------------------------------------------------------------------------- observing

    def observe(
        self,
        namespaces: Iterable[str],
        entries: bool = False,
        *,
        rules: bool = False,
        programs: bool = False,
        tables: Collection[int] = (),
    ) -> State:
        """What is in *namespaces*: links, addresses, routes; with *entries* also neighbours and forwarding entries.

        With *rules* our nftables too, and with *programs* what of ours other programs have.

        Those are there without asking where a document's vxlan device is, which lives by them.
        A namespace that is not there is simply absent from the answer.
        """
        found: list[Object] = []
        present = {"", *_netns.names()}
        wanted = [name for name in namespaces if name in present]
        raw = {name: list(self._decoded(name, _GETLINK, self._ifinfmsg)) for name in wanted}
        names = {name: {link["index"]: link.get_attr("IFLA_IFNAME") for link in links} for name, links in raw.items()}
        found += [file for name in namespaces if name for file in _files(name)]
        for name in wanted:
            self._index.update(((name, link), index) for index, link in names[name].items())
            if name:
                alias = next((link.get_attr("IFLA_IFALIAS") for link in raw[name] if link["index"] == 1), None)
                found.append(Namespace(name, _owner(alias)))
            links = list(self._links(name, raw, names))
            found += links
            found += self._addresses(name, names[name])
            for part in self._socket(name).dump(_GETROUTE, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 0, 0, 0, 0, 0)):
                found += decode_routes(part, name, names[name], tables)
            if entries or any(link.kind == "vxlan" and link.owner for link in links):
                found += self._entries(name, names[name])
        if rules:
            found += [wall for wall in [read_firewall()] if wall]
        if programs:
            found += _foreign.read()
        state: State = {}
        for item in found:
            state.setdefault(item.key, item)  # of several routes to one place the kernel takes the first
        return state

    @staticmethod
    def has_process(pid: int) -> bool:
        """Whether there is such a process."""
        return os.path.exists("/proc/%d/ns/net" % pid)

    @staticmethod
    def is_namespace_of(name: str, pid: int) -> bool:
        """Whether a named namespace is the one that a process is in."""
        with contextlib.suppress(OSError):
            return os.path.samefile(os.path.join(NETNS_FOLDER, name), "/proc/%d/ns/net" % pid)
        return False

    def namespace_owners(self) -> dict[str, str]:
        """Each named namespace with the document that owns it, '' for a foreign one."""
        return {name: _owner(inside(name, loopback_alias)) for name in _netns.names()}

    def _decoded(self, namespace: str, kind: int, message: Any, family: int = 0) -> Iterator[Any]:
        query = message()
        query["family"] = family
        if kind == _GETLINK:
            query["attrs"] = [("IFLA_EXT_MASK", _SKIP_STATISTICS)]
        query.encode()
        for part in self._socket(namespace).dump(kind, bytes(query.data)[16:]):
            for offset, size, answer, _flags in _messages(part):
                if answer == kind - 2:
                    decoded = message(part[offset : offset + size])
                    decoded.decode()
                    yield decoded

    def _links(
        self, namespace: str, raw: Mapping[str, list[Any]], names: Mapping[str, Mapping[int, str]]
    ) -> Iterator[Link]:
        for link in raw[namespace]:
            info = link.get_attr("IFLA_LINKINFO")
            kind = info.get_attr("IFLA_INFO_KIND") or "" if info else ""
            options = self._options(kind, link, info, namespace, raw, names)
            owner = _owner(link.get_attr("IFLA_IFALIAS")) if link["index"] != 1 else ""
            if isinstance(options, Veth) and not owner and options.peer:
                # A kill between a pair's creation and its second alias leaves an end without: the pair is one thing.
                others = raw[options.peer_namespace or ""]
                aliases = {other.get_attr("IFLA_IFNAME"): other.get_attr("IFLA_IFALIAS") for other in others}
                owner = _owner(aliases[options.peer])
            yield Link(
                namespace,
                link.get_attr("IFLA_IFNAME"),
                kind,
                bool(link["flags"] & _IFF_UP),
                link.get_attr("IFLA_MTU"),
                (link.get_attr("IFLA_ADDRESS") or "") if kind != "ipip" else None,
                names[namespace].get(link.get_attr("IFLA_MASTER") or 0, ""),
                options,
                self._port(info),
                owner,
            )

    def _options(
        self,
        kind: str,
        link: Any,
        info: Any,
        namespace: str,
        raw: Mapping[str, list[Any]],
        names: Mapping[str, Mapping[int, str]],
    ) -> Any:
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        if kind == "veth":
            return self._veth(link, namespace, raw)
        part = {"bridge": Bridge, "ipip": Ipip, "vxlan": Vxlan}.get(kind)
        if part is None or data is None:
            return None
        values = {name: data.get_attr(attribute) for name, attribute in _OPTION_NAMES[part].items()}
        if part is Bridge:
            values.update({name: (values[name] or 0) // 100 for name in _BRIDGE_TIMES})
            values.update({name: bool(values[name]) for name in ("stp", "vlan_filtering")})
            told = values["no_linklocal_learn"]  # before Linux 4.20 nothing is, and counts as what is wanted
            values["no_linklocal_learn"] = told is None or bool(_BOOLOPT.unpack(told)[0] & 1)
        elif part is Ipip:
            values.update(
                {
                    "local": values["local"] or "0.0.0.0",
                    "remote": values["remote"] or "0.0.0.0",
                    "ttl": values["ttl"] or 0,
                    "tos": values["tos"] or 0,
                    "pmtudisc": bool(values["pmtudisc"]),
                    "mode": values["mode"] or 0,
                    "link": names[namespace].get(values["link"] or 0, ""),
                }
            )
        else:
            values.update({"link": names[namespace].get(values["link"] or 0, ""), "learning": bool(values["learning"])})
        return part(**values)

    def _veth(self, link: Any, namespace: str, raw: Mapping[str, list[Any]]) -> Veth:
        """The peer, where it is in an observed namespace: the ends name each other's index and namespace.

        Indexes alone do not tell: hosts made alike in namespaces have the same ones.
        """
        index, peer_index, number = link["index"], link.get_attr("IFLA_LINK"), link.get_attr("IFLA_LINK_NETNSID")
        for other_namespace, others in raw.items():
            if (number is None) != (other_namespace == namespace):
                continue
            for other in others:
                if (
                    other["index"] == peer_index
                    and other.get_attr("IFLA_LINK") == index
                    and (number is None or number == self._namespace_id(namespace, other_namespace))
                ):
                    return Veth(other.get_attr("IFLA_IFNAME"), other_namespace)
        return Veth("", "")

    def _namespace_id(self, namespace: str, other: str) -> int:
        return self._socket(namespace).namespace_id(self._descriptor(other))

    @staticmethod
    def _port(info: Any) -> Port | None:
        if not info or info.get_attr("IFLA_INFO_SLAVE_KIND") != "bridge":
            return None
        data = info.get_attr("IFLA_INFO_SLAVE_DATA")
        values = {name: data.get_attr(attribute) for name, attribute in _PORT.items()}
        values.update({name: bool(values[name]) for name in ("hairpin", "isolated", "learning")})
        return Port(**values)

    def _addresses(self, namespace: str, names: Mapping[int, str]) -> Iterator[Address]:
        scopes = {number: name for name, number in SCOPES.items()}
        for message in self._decoded(namespace, _GETADDR, self._ifaddrmsg, socket.AF_INET):
            far, local = message.get_attr("IFA_ADDRESS"), message.get_attr("IFA_LOCAL")
            scope = scopes.get(message["scope"], "global")
            length = message["prefixlen"]
            dev = names.get(message["index"], "?")
            if local and local != far:
                yield Address(namespace, dev, local, "%s/%d" % (far, length), scope)
            else:
                yield Address(namespace, dev, "%s/%d" % (far, length), "", scope)

    def _entries(self, namespace: str, names: Mapping[int, str]) -> Iterator[Neighbour | ForwardingEntry]:
        for family in (socket.AF_INET, socket.AF_BRIDGE):
            for part in self._socket(namespace).dump(_GETNEIGH, _ENTRY.pack(family, 0, 0, 0, 0)):
                yield from decode_entries(part, namespace, names)

    def sysctl(self, namespace: str, name: str) -> Sysctl | None:
        """A sysctl as it is, or None where the kernel (or the interface) has none of that name."""
        try:
            text = inside(namespace, lambda: _read(_sysctl_path(name)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Sysctl(namespace, name, " ".join(text.split()))

    @staticmethod
    def has_nft() -> bool:
        """Whether nft is installed."""
        return _command.found("nft")

    @staticmethod
    @lru_cache(maxsize=8)
    def as_listed(wall: Firewall) -> Firewall:
        """The tables as this host's nft prints them, found out in a network namespace that ends with this call.

        Each version of nft has its own way to write a rule, so what is desired and what is there are both taken from it.

        Raises:
            KernelError: nft or the kernel refuses them.
        """

        def tried() -> Any:
            _run_nft(_nft.commands(None, wall))
            return _run_nft(None, "list", "ruleset")

        try:
            found = _nft.listed(inside(None, tried)["nftables"])
        except FileNotFoundError:
            raise KernelError(
                None, Failure(errno.ENOENT, "nft is not installed: install the package nftables")
            ) from None
        return replace(found, owner=wall.owner) if found else wall

    @staticmethod
    def file(path: str) -> File | None:
        """A file with its text, or None where there is none."""
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            open(path, encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            return File(path, file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        return None

    @staticmethod
    def sysctl_line(path: str, name: str) -> SysctlLine | None:
        """What a file such as those of sysctl.d(5) says of a sysctl: the last of its lines counts."""
        values = [value for key, value in map(_sysctl_setting, _lines_of(path)) if key == name]
        return SysctlLine(path, name, values[-1]) if values else None

    def before_forwarding(self, namespace: str) -> tuple[tuple[str, str], ...]:
        """What turning ip_forward also turns (``inet_forward_change``, net/ipv4/devinet.c): each interface's forwarding, and redirects."""
        interfaces = inside(namespace, lambda: sorted(os.listdir("/proc/sys/net/ipv4/conf")))
        names = ["net.ipv4.conf.%s.forwarding" % name.replace(".", "/") for name in interfaces if name != "all"]
        found = [self.sysctl(namespace, name) for name in ["net.ipv4.conf.all.accept_redirects", *names]]
        return tuple((item.name, item.value) for item in found if item)

    # -------------------------------------------------------------------------------------------- changing

    def perform(self, operations: Sequence[Operation]) -> None:
        """Carry *operations* out in order.

        Raises:
            KernelError: at the first that fails, with those that were done.
        """
        done: list[Operation] = []
        for group in _groups(operations):
            failed = self._batch(group, done) if isinstance(group[0].item, _BATCHED) else self._one(group[0], done)
            if failed:
                (operation, failure), *others = failed
                raise KernelError(operation, failure, done, [other for other, _failure in others])

    def _one(self, operation: Operation, done: list[Operation]) -> list[tuple[Operation, Failure]]:
        try:
            failures = self._writers[type(operation.item)](operation, operation.item)
        except OSError as error:
            failures = [Failure(error.errno or errno.EIO, error.strerror or str(error))]
        except KernelError as error:
            failures = [error.failure]
        if not failures:
            done.append(operation)
            return []
        if operation.verb == "change" or isinstance(operation.item, Accept):  # a part of it may have been done
            with contextlib.suppress(OSError, KernelError):
                self._writers[type(operation.item)](operation.inverse, operation.before)
        return [(operation, failures[0])]

    def _batch(self, group: Sequence[Operation], done: list[Operation]) -> list[tuple[Operation, Failure]]:
        requests = []
        for operation in group:
            try:
                requests.append(self._encoded(operation, operation.item))
            except OSError as error:
                return [(operation, Failure(error.errno or errno.EIO, error.strerror or ""))]
        failures = self._socket(group[0].item.namespace).send(requests)  # type: ignore[union-attr]
        for index in [index for index, failure in failures.items() if failure.code == errno.EEXIST]:
            if self._uncovers(group[index]):
                del failures[index]
        for index, operation in enumerate(group):
            gone = operation.after is None and index in failures and failures[index].code in (errno.ESRCH, errno.ENOENT)
            if index not in failures or gone:  # gone with its device or its source address: as wanted
                done.append(operation)
                failures.pop(index, None)
        return [(group[index], failure) for index, failure in failures.items()]

    def _uncovers(self, operation: Operation) -> bool:
        """Whether a route that could not be replaced is gone now, since what should replace it stands behind it already.

        The kernel takes the first of several routes to one place, and replaces none by another of them (fib_table_insert).
        """
        before = operation.before
        if not isinstance(before, Route) or operation.after is None:
            return False
        try:
            request = self._encoded(Operation(before, None), before)
        except OSError:  # its link has just gone: the next look tells
            return False
        return not self._socket(before.namespace).send([request])

    def _encoded(self, operation: Operation, item: Any) -> bytes:
        index = self._index_of(item.namespace, item.dev) if item.dev else 0
        if not isinstance(item, Route):
            made = operation.after is not None
            return encode_entry(
                item, index, _NEWNEIGH if made else _DELNEIGH, _REQUEST | (_CREATE | _REPLACE if made else 0)
            )
        if operation.after is None:
            return encode_route(item, index, _DELROUTE, _REQUEST)
        return encode_route(
            item, index, _NEWROUTE, _REQUEST | _CREATE | (_EXCL if operation.before is None else _REPLACE)
        )

    def _index_of(self, namespace: str, name: str) -> int:
        if (namespace, name) not in self._index:
            try:
                self._index[namespace, name] = inside(namespace, lambda: socket.if_nametoindex(name))
            except OSError:
                raise OSError(errno.ENODEV, "there is no link %s" % name) from None
        return self._index[namespace, name]

    def _request(self, namespace: str, messages: Sequence[Any]) -> list[Failure]:
        return list(self._send(namespace, messages).values())

    def _send(self, namespace: str, messages: Sequence[Any]) -> dict[int, Failure]:
        encoded = []
        for kind, flags, message in messages:
            message["header"]["type"], message["header"]["flags"] = kind, _REQUEST | flags
            message.encode()
            encoded.append(bytes(message.data))
        return self._socket(namespace).send(encoded)

    def _write_namespace(self, operation: Operation, item: Namespace) -> list[Failure]:
        path = os.path.join(NETNS_FOLDER, item.name)
        if operation.after is None:
            self._forget_namespace(item.name)
            _mount_call("umount2", os.fsencode(path), 2)  # MNT_DETACH
            os.unlink(path)
        elif operation.before is not None:
            return self._mark_namespace(item)
        else:
            self._create_namespace(item, path)
        return []

    def _create_namespace(self, item: Namespace, path: str) -> None:
        """Mark it before it gets its name, so that a kill in between leaves nothing of ours unmarked."""
        _prepare_netns_folder()
        if item.pid is not None:
            _name_namespace("/proc/%d/ns/net" % item.pid, path)
            return

        def make() -> None:
            self._sockets[item.name] = _Socket()
            failures = self._mark_namespace(item)
            if failures:
                raise KernelError(None, failures[0])
            _name_namespace("/proc/thread-self/ns/net", path)

        try:
            inside(None, make)
        except BaseException:
            self._forget_namespace(item.name)
            raise

    def _mark_namespace(self, item: Namespace) -> list[Failure]:
        message = self._ifinfmsg()
        message["index"], message["flags"], message["change"] = 1, _IFF_UP, _IFF_UP
        message["attrs"] = [("IFLA_IFALIAS", ALIAS_PREFIX + item.owner)] if item.owner else []
        return self._request(item.name, [(_NEWLINK, 0, message)])

    def _write_file(self, operation: Operation, item: NamespaceFile) -> list[Failure]:
        path = os.path.join(NETNS_FILES, item.namespace, item.name)
        if operation.after is None:
            os.unlink(path)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))
        else:
            write_atomically(path, item.content)
        return []

    def _write_firewall(self, operation: Operation, _item: Firewall) -> list[Failure]:
        before, after = operation.before, operation.after
        _run_nft(_nft.commands(before, after))  # type: ignore[arg-type]
        old, new = _nft.udp_mappings(before), _nft.udp_mappings(after)  # type: ignore[arg-type]
        with contextlib.suppress(OSError):  # a flow sticks to the mapping that it began with, but ends by itself too
            _conntrack.forget_udp({(address, port) for address, port, _rule in old ^ new})
        return []

    def _write_accept(self, operation: Operation, _item: Accept) -> list[Failure]:
        _foreign.write(operation.before, operation.after)  # type: ignore[arg-type]
        return []

    def _write_whole_file(self, operation: Operation, item: File) -> list[Failure]:
        if operation.after is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(item.path)
        else:
            write_atomically(item.path, item.content, item.mode)
        return []

    def _write_sysctl(self, operation: Operation, _item: Sysctl) -> list[Failure]:
        item = operation.after
        if isinstance(item, Sysctl):
            for name, value in ((item.name, item.value), *item.restores):
                try:
                    inside(item.namespace, partial(_write, _sysctl_path(name), value))
                except FileNotFoundError:
                    if name == item.name:
                        raise
        return []

    def _write_sysctl_line(self, operation: Operation, item: SysctlLine) -> list[Failure]:
        kept = [line for line in _lines_of(item.path) if _sysctl_setting(line)[0] != item.name]
        if operation.after is not None:
            kept.append("%s = %s\n" % (item.name, item.value))
        path = os.path.realpath(item.path)
        if any(line.strip() for line in kept):
            write_atomically(path, "".join(kept))
        else:
            os.unlink(path)
        return []

    def _write_link(self, operation: Operation, item: Link) -> list[Failure]:
        before, after = operation.before, operation.after
        if after is None:
            self._index.pop((item.namespace, item.name), None)
            message = self._ifinfmsg()
            message["attrs"] = [("IFLA_IFNAME", item.name)]
            failures = self._request(item.namespace, [(_DELLINK, 0, message)])
            return [] if item.kind == "veth" and failures and failures[0].code == errno.ENODEV else failures
        created = before is None and not self._made_with_its_peer(item)
        failures = self._create_link(item) if created else []
        if not failures:
            settings = self._settings(before if isinstance(before, Link) else None, item, created)
            failures = self._request(item.namespace, list(settings))
            if created and failures:
                self._write_link(Operation(item, None), item)
        return failures

    def _create_link(self, link: Link) -> list[Failure]:
        """Make it and mark it in one send, so that a kill leaves nothing of ours unmarked."""

        def alias(text: str) -> tuple[int, int, Any]:
            message = self._ifinfmsg()
            message["attrs"] = [("IFLA_IFNAME", link.name), ("IFLA_IFALIAS", text)]
            return _NEWLINK, 0, message

        marking = [alias(ALIAS_PREFIX + link.owner)] if link.owner else []
        failures = self._send(link.namespace, [(_NEWLINK, _CREATE | _EXCL, self._creation(link)), *marking])
        if marking and 0 in failures and 1 not in failures:  # somebody made one of this name since we looked
            self._send(link.namespace, [alias("")])
        return [failures[position] for position in sorted(failures)]

    def _made_with_its_peer(self, link: Link) -> bool:
        if link.kind != "veth":
            return False
        with contextlib.suppress(OSError):
            return bool(self._index_of(link.namespace, link.name))
        return False

    def _creation(self, link: Link) -> Any:
        info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", link.kind)]
        if isinstance(link.options, Veth):
            peer: dict[str, Any] = {"attrs": [("IFLA_IFNAME", link.options.peer)]}
            if link.options.peer_namespace != link.namespace:
                peer["attrs"].append(("IFLA_NET_NS_FD", self._descriptor(link.options.peer_namespace or "")))
            info.append(("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]}))
        elif link.options is not None:
            info.append(("IFLA_INFO_DATA", {"attrs": self._option_attributes(link, Bridge(vlan_filtering=False))}))
        message = self._ifinfmsg()
        plain = self._plain_attributes(None, link)
        if link.kind == "bridge":  # given with the creation it would not count as set, and follow the ports
            plain = [pair for pair in plain if pair[0] != "IFLA_MTU"]
        message["attrs"] = [("IFLA_IFNAME", link.name), *plain, ("IFLA_LINKINFO", {"attrs": info})]
        return message

    @staticmethod
    def _plain_attributes(before: Link | None, after: Link) -> list[tuple[str, Any]]:
        return [
            (attribute, getattr(after, name))
            for name, attribute in (("address", "IFLA_ADDRESS"), ("mtu", "IFLA_MTU"))
            if getattr(after, name) not in (None, "")
            and (before is None or getattr(before, name) != getattr(after, name))
        ]

    def _option_attributes(self, link: Link, before: Any) -> list[tuple[str, Any]]:
        """A bridge is told what changes, since a kernel without VLAN filtering refuses to hear of it; tunnels are told all."""
        options: Any = link.options
        attributes = []
        same = asdict(before) if isinstance(options, Bridge) else {}
        for name, value in asdict(options).items():
            if value in (None, "", same.get(name)) or (name, value) in (("local", "0.0.0.0"), ("remote", "0.0.0.0")):
                continue
            raw: Any
            if name == "link":
                raw = self._index_of(link.namespace, value)
            elif name in _BRIDGE_TIMES:
                raw = value * 100
            elif name == "no_linklocal_learn":
                raw = _BOOLOPT.pack(int(value), 1)
            else:
                raw = int(value) if isinstance(value, bool) else value
            attributes.append((_OPTION_NAMES[type(options)][name], raw))
        return attributes

    def _settings(self, before: Link | None, after: Link, created: bool) -> Iterator[tuple[int, int, Any]]:
        """What the creating message cannot carry, or all that changes: state, master, then the port's options."""
        message = self._ifinfmsg()
        attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", after.name)]
        if created:
            attributes += [("IFLA_MTU", after.mtu)] if after.kind == "bridge" and after.mtu else []
        else:
            attributes += self._plain_attributes(before, after)
            if before is not None and before.options != after.options and not isinstance(after.options, Veth):
                data = {"attrs": self._option_attributes(after, before.options)}
                attributes.append(
                    ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", after.kind), ("IFLA_INFO_DATA", data)]})
                )
                if isinstance(after.options, Ipip) and after.mtu == before.mtu:
                    attributes.append(("IFLA_MTU", after.mtu))  # else a changed link resets it (ip_tunnel_update)
        if after.owner and not created and (before is None or before.owner != after.owner):
            attributes.append(("IFLA_IFALIAS", ALIAS_PREFIX + after.owner))
        if (after.master or "") != (before.master or "" if before else "") and after.master is not None:
            attributes.append(("IFLA_MASTER", self._index_of(after.namespace, after.master) if after.master else 0))
        if after.up is not None and (before is None or before.up != after.up):
            message["flags"], message["change"] = (_IFF_UP if after.up else 0), _IFF_UP
        message["attrs"] = attributes
        yield _NEWLINK, 0, message
        if after.port is not None and (before is None or before.port != after.port):
            port = self._ifinfmsg()
            values = [(_PORT[name], int(value)) for name, value in asdict(after.port).items() if value is not None]
            slave = {"attrs": [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": values})]}
            port["attrs"] = [("IFLA_IFNAME", after.name), ("IFLA_LINKINFO", slave)]
            yield _NEWLINK, 0, port

    def _write_address(self, operation: Operation, item: Address) -> list[Failure]:
        far, _slash, length = (item.peer or item.address).partition("/")
        local = item.address.partition("/")[0]
        message = self._ifaddrmsg()
        message["family"], message["prefixlen"], message["scope"] = socket.AF_INET, int(length), SCOPES[item.scope]
        message["index"] = self._index_of(item.namespace, item.dev)
        message["attrs"] = [("IFA_LOCAL", local), ("IFA_ADDRESS", far)]
        if not item.peer and int(length) < 31:
            message["attrs"].append(("IFA_BROADCAST", _broadcast(local, int(length))))
        if operation.after is None:
            failures = self._request(item.namespace, [(_DELADDR, 0, message)])
            return [failure for failure in failures if failure.code != errno.EADDRNOTAVAIL]
        return self._request(item.namespace, [(_NEWADDR, _CREATE | _REPLACE, message)])


_BATCHED = (Route, Neighbour, ForwardingEntry)
"""What a host may have thousands of."""


def _groups(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Runs of such operations of one kind and namespace go in one batch, everything else one by one."""
    group: list[Operation] = []
    for operation in operations:
        item = operation.item
        if group and not (
            isinstance(item, _BATCHED)
            and type(item) is type(group[0].item)
            and item.namespace == group[0].item.namespace
        ):
            yield group
            group = []
        group.append(operation)
    if group:
        yield group


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _mount_call(name: str, *arguments: Any) -> None:
    """mount(2) or umount2(2)."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, "%s: %s" % (name, os.strerror(code)))


def _prepare_netns_folder() -> None:
    """As ip-netns(8) does: a shared mount, so that names given in one mount namespace are seen in the others."""
    os.makedirs(NETNS_FOLDER, mode=0o755, exist_ok=True)
    folder = os.fsencode(NETNS_FOLDER)
    shared = 0x100000 | 0x4000  # MS_SHARED | MS_REC
    try:
        _mount_call("mount", b"", folder, b"none", shared, None)
    except OSError:
        _mount_call("mount", folder, folder, b"none", 0x1000 | 0x4000, None)  # MS_BIND | MS_REC
        _mount_call("mount", b"", folder, b"none", shared, None)


def _name_namespace(source: str, path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    try:
        _mount_call("mount", os.fsencode(source), os.fsencode(path), b"none", 0x1000, None)  # MS_BIND
    except OSError:
        os.unlink(path)
        raise


def _teach(message: Any) -> None:
    """pyroute2 ends its lists of attributes early: of ports in 0.7.2, of bridges in 0.9.7 too."""
    for part, name, number, form in (
        ("bridge_slave_data", "IFLA_BRPORT_ISOLATED", _ISOLATED_TYPE, "uint8"),
        ("bridge_data", "IFLA_BR_MULTI_BOOLOPT", _BOOLOPT_TYPE, "cdata"),
    ):
        known = getattr(message.ifinfo, part).nla_map
        if all(known_name != name for known_name, *_rest in known):
            fill = tuple(("%s_BEFORE_%d" % (name, other), "hex") for other in range(len(known), number))
            getattr(message.ifinfo, part).nla_map = (*known, *fill, (name, form))


def _owner(alias: str | None) -> str:
    return alias[len(ALIAS_PREFIX) :] if alias and alias.startswith(ALIAS_PREFIX) else ""


def _broadcast(address: str, length: int) -> str:
    return socket.inet_ntoa(
        struct.pack("!I", struct.unpack("!I", socket.inet_aton(address))[0] | (1 << (32 - length)) - 1)
    )


def _sysctl_path(name: str) -> str:
    return "/proc/sys/" + name.translate(str.maketrans("./", "/."))


def _lines_of(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return [line if line.endswith("\n") else line + "\n" for line in file]
    return []


def _sysctl_setting(line: str) -> tuple[str, str]:
    """A line of sysctl.d(5) as name and value, the name '' for another kind of line."""
    name, equals, value = line.partition("=")
    try:
        return sysctl_name(name.strip().lstrip("-")) if equals else "", " ".join(value.split())
    except ValueError:
        return "", ""


def _files(namespace: str) -> Iterator[NamespaceFile]:
    folder = os.path.join(NETNS_FILES, namespace)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(os.listdir(folder)):
            with (
                contextlib.suppress(OSError),
                open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file,
            ):
                yield NamespaceFile(namespace, name, file.read())


# ------------------------------------------------------------------------------------------------ nft


def read_firewall() -> Firewall | None:
    """Our tables as they are in the kernel."""
    listing: list[Mapping[str, Any]] = []
    for family in _nft.FAMILIES:
        with contextlib.suppress(FileNotFoundError):
            listing += _run_nft(None, "list", "table", family, _nft.TABLE).get("nftables", ())
    return _nft.listed(listing)


def _run_nft(commands: Sequence[Mapping[str, Any]] | None, *arguments: str) -> Any:
    """Run nft with JSON in and out; an empty answer where a listed table is not there.

    Raises:
        FileNotFoundError: nft is not installed.
        KernelError: nft's own words.
    """
    if not _command.found("nft"):
        raise FileNotFoundError(errno.ENOENT, "nft is not installed: install the package nftables")
    text = json.dumps({"nftables": commands}) if commands is not None else ""
    answer = _command.attempt("nft", "-j", *(arguments or ("-f", "-")), text=text)  # -n swaps EtherTypes' bytes (1.0.6)
    if answer.returncode == 0:
        return json.loads(answer.stdout) if answer.stdout.strip() else {}
    if arguments and "No such file or directory" in answer.stderr:
        return {}
    reason = " ".join(answer.stderr.split())
    code, remedy = next(((code, remedy) for sign, code, remedy in _NFT_REFUSALS if sign in reason), (errno.EINVAL, ""))
    raise KernelError(None, Failure(code, "nft: %s%s" % (reason, remedy)))


_NFT_REFUSALS = (
    ("JSON support not compiled", errno.EOPNOTSUPP, ". Install the distribution's nftables, which has it"),
    ("Netlink socket", errno.EPROTONOSUPPORT, ". This kernel has no nftables (CONFIG_NF_TABLES)"),
    ("not permitted", errno.EPERM, ""),
    ("not supported", errno.EOPNOTSUPP, ". This kernel lacks a part of nftables: load or install its nft_ modules"),
)
