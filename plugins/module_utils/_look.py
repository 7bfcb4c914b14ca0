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
    """What the route says; 0 for the device's own."""
    learned: int = 0
    """What the kernel has learned of the path's MTU from ICMP, or what the route says; 0 for neither."""
    route: Facts | None = None
    """The route that matched, as ``ip -j route get fibmatch`` prints it."""
    others: tuple[str, ...] = ()
    """Destinations of shorter routes of that table that match too, the longest first."""


class Look:
    """One look at a host.

    Args:
        run: runs a command: (argv, data) to exit code, stdout and stderr.
        preferred: names of namespaces to call them by, where one has several (``ip netns attach``).
    """

    def __init__(self, run: Run, preferred: t.Iterable[str] = ()) -> None:
        self._run = run
        self._kept: dict[t.Any, t.Any] = {}
        self._names = {_netns.identity(): ""}
        names = _netns.names()
        for name in [*(name for name in preferred if name in names), *names]:
            self._names.setdefault(_netns.identity(name), name)
        self._aliases = {name: self._names[_netns.identity(name)] for name in names}

    def namespaces(self) -> list[str]:
        """Each namespace once: '' for the host's own, then by name."""
        return list(self._names.values())

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

        known = self._once(("numbers", namespace), lambda: self._batch(namespace, ["netns list-id"])[1][0])
        name = next((item.get("name") or "" for item in known if item["nsid"] == number), "")
        return self._aliases.get(name, "")

    def forwarding_entries(self, namespace: str) -> list[Facts]:
        """What ``bridge -j fdb show`` prints: bridges' and vxlan devices' entries."""
        return t.cast(
            "list[Facts]",
            self._once(("fdb", namespace), lambda: self._json(namespace, ["bridge", "-j", "fdb", "show"])),
        )

    def route(
        self,
        namespace: str,
        dst: str,
        src: str = "",
        *,
        iif: str = "",
        oif: str = "",
        mark: int = 0,
        protocol: str = "",
    ) -> Lookup:
        """Where a packet to *dst* goes, and by which route."""
        words = [dst]
        given = {"from": src, "iif": iif, "oif": oif, "mark": hex(mark) if mark else "", "ipproto": protocol}
        for word, value in given.items():
            words += [word, value] if value else []
        return t.cast("Lookup", self._once(("route", namespace, *words), lambda: self._lookup(namespace, words)))

    def routes(self, namespace: str, selector: str) -> list[Facts]:
        """What ``ip route show`` lists for a selector, such as ``match 10.244.1.3`` or ``table all exact 10.244.1.0/24``."""
        return t.cast(
            "list[Facts]",
            self._once(
                ("routes", namespace, selector), lambda: self._batch(namespace, [f"route show {selector}"])[1][0]
            ),
        )

    def sysctl(self, namespace: str, name: str) -> str:
        """The value of a setting by its path below /proc/sys; '' where there is none."""

        def read() -> str:
            try:
                with open("/proc/sys/" + name, encoding="ascii") as file:
                    return file.read().strip()
            except OSError:
                return ""

        return t.cast("str", self._once(("sysctl", namespace, name), lambda: _netns.inside(namespace, read)))

    def rules(self, namespace: str) -> tuple[list[Facts], list[str]]:
        """All rules of nftables and of both iptables as one listing of nft, and why others cannot be read."""
        return t.cast("tuple[list[Facts], list[str]]", self._once(("rules", namespace), lambda: self._rules(namespace)))

    # -------------------------------------------------------------------------------------------- asking

    def _network(self, namespace: str) -> tuple[list[Facts], list[Facts]]:
        """Links and neighbours, by one process."""

        def ask() -> tuple[list[Facts], list[Facts]]:
            links, neighbours = self._batch(namespace, ["addr show", "neigh show"])[1]
            return links, neighbours

        return t.cast("tuple[list[Facts], list[Facts]]", self._once(("network", namespace), ask))

    def _lookup(self, namespace: str, words: list[str]) -> Lookup:
        asked = " ".join([*(["ip", "-n", namespace] if namespace else ["ip"]), "route", "get", *words])
        query = " ".join(words)
        error, answers = self._batch(namespace, [f"route get {query}", f"route get fibmatch {query}"], force=True)
        if error or not all(answers):
            return Lookup(asked, error or "no answer")
        found, match = (answer[0] for answer in answers)
        kind = found.get("type", "unicast")
        others: list[str] = []
        if kind == "unicast":
            matches = self.routes(namespace, f"table {match.get('table', 'main')} match {words[0]}")
            others = sorted({item["dst"] for item in matches} - {match.get("dst")}, key=_length, reverse=True)
        return Lookup(
            asked,
            "",
            kind,
            found.get("gateway", ""),
            found.get("dev", ""),
            found.get("prefsrc", ""),
            _mtu(match),
            _mtu(found),
            match,
            tuple(others),
        )

    def _rules(self, namespace: str) -> tuple[list[Facts], list[str]]:
        unread: list[str] = []

        def read(name: str, *words: str) -> str:
            path = program(name)
            if path is None:
                unread.append(f"there is no program {name}: rules that it would show are not known")
                return ""
            code, out, err = self._execute(namespace, [path, *words])
            if code:
                unread.append(f"{name} tells no rules: {(err or out).strip()}")
            return "" if code else out

        text = read("nft", "-j", "list", "ruleset")
        try:
            listing = _known(json.loads(text)["nftables"]) if text.strip() else []
        except (ValueError, KeyError, TypeError, AttributeError):
            listing = []
            unread.append("nft tells rules in a form that is not known here")
        legacy = read("iptables-legacy-save") if self._legacy_tables(namespace) else ""
        if unread and program("iptables-nft-save"):  # without nft, what iptables knows of it is better than nothing
            return [
                dict(item) for item in _rules.merge(_rules.legacy(read("iptables-nft-save"), "iptables"), "", legacy)
            ], unread
        compatible = read("iptables-nft-save") if _iptables_made(listing) else ""
        return [dict(item) for item in _rules.merge(listing, compatible, legacy)], unread

    def _legacy_tables(self, namespace: str) -> bool:
        """Whether iptables-legacy has tables there: asking it would make them."""

        def read() -> bool:
            try:
                with open("/proc/thread-self/net/ip_tables_names", encoding="ascii") as file:
                    return bool(file.read().strip())
            except OSError:
                return False

        return _netns.inside(namespace, read)

    def _batch(self, namespace: str, queries: list[str], *, force: bool = False) -> tuple[str, list[list[Facts]]]:
        """What the kernel refused with, or '', and iproute2's answer to each query. With *force* a refusal is no error."""
        ip = program("ip")
        if ip is None:
            raise NodeError(f"host {os.uname().nodename} has no program ip: install the package iproute2")
        if any("#" in query for query in queries):  # a link may have it in its name, and -batch takes it for a comment
            runs = [self._execute(namespace, [ip, "-d", "-j", *query.split()]) for query in queries]
        else:
            words = [ip, "-d", "-j", *(["-force"] if force else []), "-batch", "-"]
            runs = [self._execute(namespace, words, "\n".join(queries))]
        out, err = "".join(run[1] for run in runs), "".join(run[2] for run in runs)
        failed = any(run[0] for run in runs)
        refusals = [line for line in err.splitlines() if line.strip() and "Command failed" not in line]
        if failed and not force:
            raise NodeError(f"{_where(namespace)}: ip {'; '.join(queries)}: {err.strip()}")
        try:
            answers = decode(out)
        except ValueError:
            answers = []
        if not failed and ([type(answer) for answer in answers] != [list] * len(queries)):
            raise NodeError(
                f"{_where(namespace)}: {ip} gave no JSON for {'; '.join(queries)} ({(err or out).strip()[:200]}): "
                "install iproute2 4.18 or newer in place of it"
            )
        # Of what was deleted while the kernel was asked, an empty object is left.
        return (_kernel_words(refusals) if failed else ""), [[item for item in answer if item] for answer in answers]

    def _json(self, namespace: str, argv: list[str]) -> list[Facts]:
        code, out, err = self._execute(namespace, [program(argv[0]) or argv[0], *argv[1:]])
        if code:
            raise NodeError(f"{_where(namespace)}: {' '.join(argv)}: {err.strip()}")
        return t.cast("list[Facts]", json.loads(out or "[]"))

    def _execute(self, namespace: str, argv: list[str], data: str | None = None) -> tuple[int, str, str]:
        return _netns.inside(namespace, lambda: self._run(argv, data=data))

    def _once(self, key: tuple[str, ...], ask: t.Callable[[], t.Any]) -> t.Any:
        if key not in self._kept:
            self._kept[key] = ask()
        return self._kept[key]


def _where(namespace: str) -> str:
    return f"host {os.uname().nodename}" + (f", namespace {namespace}" if namespace else "")


def _mtu(route: Facts) -> int:
    return int((route.get("metrics") or [{}])[0].get("mtu", 0))


def _length(destination: str) -> int:
    return 0 if destination == "default" else int((destination + "/32").split("/")[1])


def _kernel_words(refusals: list[str]) -> str:
    """ "RTNETLINK answers: Network is unreachable" without who says so."""
    return (refusals[0].partition(": ")[2] or refusals[0]) if refusals else "refused"


def _known(listing: list[Facts]) -> list[Facts]:
    """A listing whose chains and rules say where they belong. Raises KeyError or TypeError."""
    for item in listing:
        for body in (item[kind] for kind in ("chain", "rule") if kind in item):
            body["family"], body["table"]
    return listing


def _iptables_made(listing: list[Facts]) -> bool:
    """Whether there is a table that iptables-nft may have made: it has tables of these names, and its chains are in capitals."""
    chains = [item["chain"] for item in listing if "chain" in item]
    return any(chain["family"] in ("ip", "bridge") and chain["name"].isupper() for chain in chains)
