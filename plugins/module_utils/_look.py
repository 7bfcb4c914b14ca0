# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's own answers about where a packet would go, in any of a host's namespaces. Reads, and changes nothing.

It asks iproute2 and nft, and not netlink, so that every answer comes from a command that a person can repeat, and so that
a path can be explained on a host whose pyroute2 is the thing that broke. What was asked once is kept.

Sources: ip-route(8), ip-neighbour(8), ip-netns(8), bridge(8), nft(8), iptables-save(8).
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass

from . import _netns, _rules
from ._node import NodeError, decode, program

Facts = dict[str, t.Any]
Run = t.Callable[..., tuple[int, str, str]]  # (argv, data=None) -> exit code, stdout, stderr


@dataclass(frozen=True)
class Lookup:
    """The answer to one ``ip route get``."""

    asked: str
    """The command, for a person to repeat."""
    error: str = ""
    """The kernel's refusal in its words; the rest is empty then."""
    type: str = "unicast"
    via: str = ""
    dev: str = ""
    src: str = ""
    mtu: int = 0
    """What the kernel has learned of the path's MTU, or what the route says; 0 for the device's own."""
    route: Facts | None = None
    """The route that matched, as ``ip -j route get fibmatch`` prints it."""
    others: tuple[str, ...] = ()
    """Destinations of shorter routes of that table that match too, the longest first."""


class Look:
    """One look at a host. *run* runs a command: (argv, data) to exit code, stdout and stderr."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._kept: dict[t.Any, t.Any] = {}

    def namespaces(self) -> list[str]:
        """The named namespaces, after '' for the host's own."""
        return ["", *self._once(("namespaces",), _netns.names)]

    def exists(self, namespace: str) -> bool:
        return namespace in self.namespaces()

    def links(self, namespace: str) -> dict[str, Facts]:
        """Links by name, with addresses, as ``ip -d -j addr show`` prints them."""
        return {link["ifname"]: link for link in self._network(namespace)[0]}

    def neighbours(self, namespace: str) -> list[Facts]:
        return [item for item in self._network(namespace)[1] if ":" not in item["dst"]]

    def peer(self, namespace: str, link: Facts) -> tuple[str, str] | None:
        """The other end of a veth pair as (namespace, interface), or None if it is in no namespace with a name.

        The ends name each other's index; the namespace's number tells hosts apart that were made alike.
        """
        if link.get("link_netnsid") is None:
            return (namespace, link["link"]) if link.get("link") else None
        other = self._name_of(namespace, link["link_netnsid"])
        if not other and not namespace:
            return None
        for candidate in self.links(other).values():
            if (candidate["ifindex"], candidate.get("link_index")) == (link.get("link_index"), link["ifindex"]):
                # Only the host's own namespace has no name and can be entered: is it that one? It knows our name.
                sure = other or self._name_of(other, candidate.get("link_netnsid")) == namespace
                return (other, candidate["ifname"]) if sure else None
        return None

    def _name_of(self, namespace: str, number: int | None) -> str:
        """The name of the namespace that *namespace* knows by a number, '' where it has none."""

        def ask() -> list[Facts]:
            (numbers,) = self._batch(namespace, ["netns list-id"])[1]
            return [item for item in numbers if item]

        known = self._once(("numbers", namespace), ask)
        return next((item.get("name") or "" for item in known if item["nsid"] == number), "")

    def forwarding_entries(self, namespace: str) -> list[Facts]:
        """What ``bridge -j fdb show`` prints: bridges' and vxlan devices' entries."""
        return t.cast(
            "list[Facts]",
            self._once(("fdb", namespace), lambda: self._json(namespace, ["bridge", "-j", "fdb", "show"])),
        )

    def route(self, namespace: str, dst: str, src: str = "", iif: str = "", mark: int = 0) -> Lookup:
        """Where a packet to *dst* goes, and by which route."""
        words = [dst, *(["from", src] if src else []), *(["iif", iif] if iif else [])]
        words += ["mark", hex(mark)] if mark else []
        return t.cast("Lookup", self._once(("route", namespace, *words), lambda: self._lookup(namespace, words)))

    def sysctl(self, namespace: str, name: str) -> str:
        """The value of a setting by its path below /proc/sys; '' where there is none."""

        def read() -> str:
            try:
                with open("/proc/sys/" + name, encoding="ascii") as file:
                    return file.read().strip()
            except OSError:
                return ""

        return t.cast("str", self._once(("sysctl", namespace, name), lambda: self._within(namespace, read)))

    def rules(self, namespace: str) -> list[Facts]:
        """All rules of nftables and of both iptables, as one listing of nft."""
        return t.cast("list[Facts]", self._once(("rules", namespace), lambda: self._rules(namespace)))

    # -------------------------------------------------------------------------------------------- asking

    def _network(self, namespace: str) -> tuple[list[Facts], list[Facts]]:
        """Links and neighbours, by one process."""

        def ask() -> tuple[list[Facts], list[Facts]]:
            links, neighbours = self._batch(namespace, ["addr show", "neigh show"])[1]
            # Of what was deleted while the kernel was asked, an empty object is left.
            return [link for link in links if link], [entry for entry in neighbours if entry]

        return t.cast("tuple[list[Facts], list[Facts]]", self._once(("network", namespace), ask))

    def _lookup(self, namespace: str, words: list[str]) -> Lookup:
        asked = " ".join([*(["ip", "-n", namespace] if namespace else ["ip"]), "route", "get", *words])
        query = " ".join(words)
        error, answers = self._batch(namespace, [f"route get {query}", f"route get fibmatch {query}"], force=True)
        if error or len(answers) < 2:
            return Lookup(asked, error or "no answer")
        (found,), (match,) = answers[:2]
        kind = found.get("type", "unicast")
        metrics = (found.get("metrics") or [{}])[0]
        others: list[str] = []
        if kind == "unicast":
            (matches,) = self._batch(namespace, [f"route show table {match.get('table', 'main')} match {words[0]}"])[1]
            others = sorted({item["dst"] for item in matches} - {match["dst"]}, key=_length, reverse=True)
        return Lookup(
            asked,
            "",
            kind,
            found.get("gateway", ""),
            found.get("dev", ""),
            found.get("prefsrc", ""),
            int(metrics.get("mtu", 0)),
            match,
            tuple(others),
        )

    def _rules(self, namespace: str) -> list[Facts]:
        listing: list[Facts] = []
        if nft := program("nft"):
            code, out, err = self._execute(namespace, [nft, "-j", "list", "ruleset"])
            if code:
                raise NodeError(f"{_where(namespace)}: nft list ruleset: {err.strip() or out.strip()}")
            listing = json.loads(out)["nftables"] if out.strip() else []
        compatible = self._saved(namespace, "iptables-nft-save") if _iptables_made(listing) else ""
        legacy = self._saved(namespace, "iptables-legacy-save") if self._legacy_tables(namespace) else ""
        return [dict(item) for item in _rules.merge(listing, compatible, legacy)]

    def _saved(self, namespace: str, name: str) -> str:
        saver = program(name)
        return self._execute(namespace, [saver])[1] if saver else ""

    def _legacy_tables(self, namespace: str) -> bool:
        """Whether iptables-legacy has tables there: asking it would make them."""

        def read() -> bool:
            try:
                with open("/proc/thread-self/net/ip_tables_names", encoding="ascii") as file:
                    return bool(file.read().strip())
            except OSError:
                return False

        return self._within(namespace, read)

    def _batch(self, namespace: str, queries: list[str], *, force: bool = False) -> tuple[str, list[t.Any]]:
        """What the kernel refused with, or '', and iproute2's answers."""
        ip = program("ip")
        if ip is None:
            raise NodeError(f"host {os.uname().nodename} has no program ip: install the package iproute2")
        code, out, err = self._execute(
            namespace,
            [ip, "-d" if not force else "-o", "-j", *(["-force"] if force else []), "-batch", "-"],
            "\n".join(queries),
        )
        if code and not force:
            raise NodeError(f"{_where(namespace)}: ip {'; '.join(queries)}: {err.strip()}")
        refusals = [
            line.partition(": ")[2] for line in err.splitlines() if ": " in line and "Command failed" not in line
        ]
        return (refusals[0] if code and refusals else ""), decode(out)

    def _json(self, namespace: str, argv: list[str]) -> list[Facts]:
        code, out, err = self._execute(namespace, [program(argv[0]) or argv[0], *argv[1:]])
        if code:
            raise NodeError(f"{_where(namespace)}: {' '.join(argv)}: {err.strip()}")
        return t.cast("list[Facts]", json.loads(out or "[]"))

    def _execute(self, namespace: str, argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        return self._within(namespace, lambda: self._run(argv, data=data))

    def _within(self, namespace: str, work: t.Callable[[], _T]) -> _T:
        return _netns.inside(namespace, work) if namespace else work()

    def _once(self, key: tuple[str, ...], ask: t.Callable[[], t.Any]) -> t.Any:
        if key not in self._kept:
            self._kept[key] = ask()
        return self._kept[key]


_T = t.TypeVar("_T")


def _where(namespace: str) -> str:
    return f"host {os.uname().nodename}" + (f", namespace {namespace}" if namespace else "")


def _length(destination: str) -> int:
    return 0 if destination == "default" else int((destination + "/32").split("/")[1])


def _iptables_made(listing: list[Facts]) -> bool:
    """Whether there is a table that iptables-nft may have made: it has tables of these names, and its chains are in capitals."""
    return any(
        item["chain"]["family"] in ("ip", "bridge") and item["chain"]["name"].isupper()
        for item in listing
        if "chain" in item
    )
