# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what is desired and what is there to the operations between them, in an order that is safe for traffic. Pure.

An operation is a pair of an object before and after. ``apply`` does to a state what the kernel does to a host, and the
inverse of an operation is the pair turned round: that is all that undo needs.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ._model import (
    OVERLAY_PROTOCOL,
    Accept,
    Address,
    Bridge,
    File,
    Firewall,
    ForwardingEntry,
    Ipip,
    Key,
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
    describe,
    interface_of,
    protocol_name,
)

CREATION_ORDER: tuple[type, ...] = (
    Namespace,
    NamespaceFile,
    Firewall,
    Accept,
    Sysctl,
    SysctlLine,
    Link,
    Address,
    Neighbour,
    ForwardingEntry,
    Route,
    File,
)
"""A guard is in place before its tunnel is up, and a route comes after all that it needs. Deletion is the reverse.

Files come last: who reads them (a container runtime) finds a network that is there."""


@dataclass(frozen=True)
class Operation:
    """``before`` is None for an addition, ``after`` for a deletion."""

    before: Object | None
    after: Object | None

    @property
    def item(self) -> Object:
        """The object that the operation is about."""
        return self.before if self.after is None else self.after  # type: ignore[return-value]  # one of the two is there

    @property
    def verb(self) -> str:
        return "add" if self.before is None else "delete" if self.after is None else "change"

    @property
    def inverse(self) -> Operation:
        return Operation(self.after, self.before)

    def __str__(self) -> str:
        return "%s %s" % (self.verb, describe(self.item))


def apply(state: Mapping[Key, Object], operations: Iterable[Operation]) -> State:
    """The state that *operations* make of *state*."""
    result = dict(state)
    for operation in operations:
        if operation.after is None:
            result.pop(operation.item.key, None)
        else:
            result[operation.after.key] = operation.after
    return result


def nothing(_item: Object) -> bool:
    """Owns nothing: nothing is deleted."""
    return False


def difference(
    desired: State, observed: State, owned: Callable[[Object], bool] = nothing, restored: State | None = None
) -> list[Operation]:
    """The ordered operations that bring *observed* to *desired*.

    Args:
        desired: what should be there.
        observed: what is there, foreign objects included.
        owned: whether an observed object is ours to delete when it is not desired.
        restored: what a deleted sysctl goes back to, by key.
    """
    surplus = [item for key, item in observed.items() if key not in desired and owned(item)]
    first = _first_deletions(desired, observed, surplus)
    remaining = apply(observed, first)
    changes: list[Operation] = []
    for key, wanted in desired.items():
        present = remaining.get(key)
        if present == wanted or (present is None and isinstance(wanted, Link) and wanted.external):
            continue
        old = observed.get(key)
        if present is not None:
            after = merge(wanted, present)
        elif old is not None and getattr(old, "kind", "") == getattr(wanted, "kind", ""):
            after = merge(wanted, old)  # what is made anew keeps what is left open
        else:
            after = wanted
        if after != present:
            changes.append(Operation(present, after))
    last = [
        Operation(item, (restored or {}).get(item.key))
        for item in surplus
        if item.key in remaining and (restored or {}).get(item.key) != item
    ]
    return first + sorted(changes, key=_creation_rank) + sorted(last, key=_deletion_rank, reverse=True)


def merge(wanted: Object, present: Object) -> Object:
    """*wanted* with what it leaves open (None) filled in from *present*."""
    if isinstance(wanted, Route) and isinstance(present, Route):
        same_way = not wanted.dev and (wanted.via, wanted.type) == (present.via, present.type)
        return wanted._replace(dev=present.dev) if same_way else wanted
    if not isinstance(wanted, Link) or not isinstance(present, Link):
        return wanted
    fields: dict[str, Any] = {
        field.name: _fill(getattr(wanted, field.name), getattr(present, field.name))
        for field in dataclasses.fields(Link)
    }
    # A link that is not ours to mark keeps its owner; port options vanish with the master.
    fields["owner"] = wanted.owner or present.owner
    fields["kind"], fields["external"] = wanted.kind or present.kind, False
    if fields["master"] != present.master:
        fields["port"] = wanted.port
    return Link(**fields)


def _fill(wanted: Any, present: Any) -> Any:
    if wanted is None:
        return present
    if isinstance(wanted, (Bridge, Ipip, Vxlan, Veth, Port)) and type(wanted) is type(present):
        open_fields = {name: getattr(present, name) for name, value in vars(wanted).items() if value is None}
        return dataclasses.replace(wanted, **open_fields)
    return wanted


def _creation_rank(operation: Operation) -> float:
    rank = CREATION_ORDER.index(type(operation.item))
    if isinstance(operation.item, Sysctl) and interface_of(operation.item.name):
        return CREATION_ORDER.index(Link) + 0.5
    return rank


def _deletion_rank(operation: Operation) -> tuple[float, bool]:
    """A port goes before its bridge, so that undoing finds the bridge there."""
    return _creation_rank(operation), bool(getattr(operation.item, "master", ""))


# ------------------------------------------------------------------------------------------------ what must go first


def _first_deletions(desired: State, observed: State, surplus: list[Object]) -> list[Operation]:
    """What something new waits for: links that can only be made anew, and addresses and tunnels in their way.

    And tunnels that go, where the firewall stays: it is about to forget the device that it guards.
    """
    links = {
        item.key
        for item in observed.values()
        if isinstance(item, Link) and _needs_recreation(desired.get(item.key), item)
    }
    tunnels = {_endpoint(item) for key, item in desired.items() if isinstance(item, Link) and key not in observed} - {
        None
    }
    guarded = any(isinstance(item, Firewall) for item in desired.values())
    links |= {
        item.key
        for item in surplus
        if isinstance(item, Link) and (_endpoint(item) in tunnels or (guarded and _endpoint(item)))
    }
    links |= {_peer(observed[key]) for key in links} & set(observed)
    # neigh_changeaddr (net/core/neighbour.c): a new MAC takes the device's neighbours, permanent ones too.
    bare = links | {
        key for key, item in observed.items() if isinstance(item, Link) and _new_mac(desired.get(key), item)
    }
    gone = {
        key: item
        for key, item in observed.items()
        if key in links or _device(item) in (bare if isinstance(item, Neighbour) else links)
    }
    for address in _addresses_in_the_way(desired, surplus):
        gone.update(_taken_along(address, desired, observed))
    ports = [
        Operation(item, dataclasses.replace(item, master="", port=None))
        for item in observed.values()
        if isinstance(item, Link) and item.key not in gone and ("link", item.namespace, item.master) in links
    ]
    freed = [Operation(item, None) for item in gone.values()]
    return ports + sorted(freed, key=_deletion_rank, reverse=True)


def _addresses_in_the_way(desired: State, surplus: list[Object]) -> list[Address]:
    """Surplus addresses whose device keeps another of their subnet, or none at all: see ``_taken_along``.

    And those that are now a route's gateway or destination: of a node whose subnet another one gets.
    """
    routes = [item for item in desired.values() if isinstance(item, Route)]
    elsewhere = {(item.namespace, where) for item in routes for where in (item.dst, item.via)}
    kept: dict[Key, list[Address]] = {}
    for item in desired.values():
        if isinstance(item, Address):
            kept.setdefault(_device(item), []).append(item)
    return [
        item
        for item in surplus
        if isinstance(item, Address)
        and _device(item) in desired
        and (
            _device(item) not in kept
            or any(_overlap(item, other) for other in kept[_device(item)])
            or not elsewhere.isdisjoint((item.namespace, where) for where in _places(item))
        )
    ]


def _taken_along(address: Address, desired: State, observed: State) -> dict[Key, Object]:
    """*address* and what the kernel takes with it: the secondary addresses of its subnet, and with the last one the routes."""
    taken: dict[Key, Object] = {address.key: address}
    for key, item in observed.items():
        there = key in desired and _device(item) == _device(address)
        if there and (isinstance(item, Route) or (isinstance(item, Address) and _overlap(item, address))):
            taken[key] = item
    return taken


def _new_mac(wanted: Object | None, present: Link) -> bool:
    return isinstance(wanted, Link) and wanted.address not in (None, present.address)


def _needs_recreation(wanted: Object | None, present: Link) -> bool:
    """Whether the kernel refuses to change *present* into *wanted* in place."""
    if not isinstance(wanted, Link) or wanted.external:
        return False
    if wanted.kind != present.kind:
        return True
    after = _fill(wanted.options, present.options)
    if isinstance(after, Ipip) and isinstance(present.options, Ipip):
        # ipip_changelink (net/ipv4/ipip.c): from any remote to a fixed one, or back, is EINVAL; the mode is not looked at.
        return after.mode != present.options.mode or (after.remote == "0.0.0.0") != (
            present.options.remote == "0.0.0.0"
        )
    return isinstance(after, (Vxlan, Veth)) and after != present.options


def _endpoint(item: Object) -> Any:
    """What of a tunnel may be there only once."""
    options = item.options if isinstance(item, Link) else None
    if isinstance(options, Ipip):
        return (item.key[1], options.local, options.remote or "0.0.0.0")
    return (item.key[1], options.id, options.port) if isinstance(options, Vxlan) else None


def _peer(item: Object) -> Key:
    options = item.options if isinstance(item, Link) else None
    return ("link", options.peer_namespace, options.peer) if isinstance(options, Veth) else ()


def _device(item: Object) -> Key:
    """The key of the link that an object lives on."""
    if isinstance(item, (Address, Route, Neighbour, ForwardingEntry)) and item.dev:
        return ("link", item.namespace, item.dev)
    if isinstance(item, Sysctl) and interface_of(item.name):
        return ("link", item.namespace, interface_of(item.name))
    return ()


def _places(address: Address) -> tuple[str, str]:
    """The destination of the route that the kernel makes of an address, and the address itself."""
    interface = ipaddress.IPv4Interface(address.address)
    return str(interface.network), str(interface.ip)


def _overlap(one: Address, other: Address) -> bool:
    first, second = (ipaddress.IPv4Interface(item.address).network for item in (one, other))
    return first.overlaps(second)


# ------------------------------------------------------------------------------------------------ conflicts


def conflicts(
    desired: State,
    observed: State,
    owner: str,
    owned: Callable[[Object], bool],
    adopt: bool = False,
    absent: Iterable[Object] = (),
) -> list[str]:
    """Everything that is in the way of *desired*, one sentence each: what, where, whose it looks like, what to do.

    Args:
        desired: what should be there.
        observed: what is there.
        owner: the document's name, or '' for a single thing, which may change what no document owns.
        owned: whether an observed object is the document's.
        adopt: foreign objects may be taken over, other documents' may not.
        absent: single things that are to go.
    """
    found = list(in_the_way(desired, observed, owner, owned, adopt).values())
    for wanted in absent:
        present = observed.get(wanted.key)
        if present is not None and _foreign(wanted, present, "", adopt):
            reasons = (_name(wanted), _whose(wanted, present), _remedy(wanted, present, ""))
            found.append("%s is not what was named (%s): %s" % reasons)
    return found + list(taken_endpoints(desired, observed, owned).values()) + missing(desired, observed)


def in_the_way(
    desired: State, observed: State, owner: str, owned: Callable[[Object], bool], adopt: bool = False
) -> dict[Key, str]:
    """What is desired and has something foreign in its place, with a sentence on that. The arguments are those of ``conflicts``."""
    found = {}
    for key, wanted in desired.items():
        present = observed.get(key)
        if present is None or owned(present) or _goes_with_its_address(present, desired, observed, owned):
            continue
        if _foreign(wanted, present, owner, adopt):
            named = present if isinstance(wanted, Firewall) else wanted
            reasons = (_name(named), _whose(wanted, present), _remedy(wanted, present, owner))
            found[key] = "%s is there already and not ours (%s): %s" % reasons
    return found


def _goes_with_its_address(item: Object, desired: State, observed: State, owned: Callable[[Object], bool]) -> bool:
    """Whether *item* is the kernel's own route of an address that is ours to delete."""
    return (
        isinstance(item, Route)
        and any(
            isinstance(other, Address) and _device(other) == _device(item) and _places(other)[0] == item.dst
            for key, other in observed.items()
            if key not in desired and owned(other)
        )
        and protocol_name(item.protocol) == "kernel"
    )


def _foreign(wanted: Object, present: Object, owner: str, adopt: bool) -> bool:
    """Whether *present*, which is not the document's, keeps *wanted* from being there."""
    if not isinstance(wanted, (Link, Namespace, Route, Firewall, File)) or wanted == present:
        return False
    if isinstance(wanted, Link) and isinstance(present, Link) and wanted.external and not wanted.master:
        return bool(wanted.kind and not owner) and (wanted.kind != present.kind or bool(present.owner))
    if getattr(present, "owner", ""):
        return True
    if isinstance(wanted, Namespace) and isinstance(present, Namespace) and wanted.pid not in (None, present.pid):
        return True
    if isinstance(wanted, Link) and isinstance(present, Link):
        other_kind = wanted.kind not in ("", present.kind)
        if other_kind or _busy_port(wanted, present) or (not owner and _other_pair(wanted, present)):
            return True
    if isinstance(wanted, Route) and isinstance(present, Route):
        if wanted.protocol == present.protocol:
            return bool(owner)
        return not adopt or (not owner and present.protocol == OVERLAY_PROTOCOL)
    return bool(owner) and not adopt


def _busy_port(wanted: Link, present: Link) -> bool:
    return wanted.external and bool(wanted.master) and present.master not in ("", wanted.master)


def _other_pair(wanted: Link, present: Link) -> bool:
    return isinstance(wanted.options, Veth) and wanted.options != present.options


def taken_endpoints(desired: State, observed: State, owned: Callable[[Object], bool]) -> dict[Key, str]:
    """New tunnels whose endpoints another one has and keeps, with a sentence on that: to the kernel that is EEXIST."""
    new = {_endpoint(item): item for key, item in desired.items() if key not in observed and _endpoint(item)}
    return {
        new[ends].key: "%s cannot have the endpoints of %s: there is one tunnel between the same two"
        % (_name(new[ends]), _name(item))
        for ends, item in ((_endpoint(item), item) for item in observed.values())
        if ends in new and not owned(item)
    }


def missing(desired: State, observed: State) -> list[str]:
    """Namespaces, links and masters that objects name and that neither the document nor the host has."""
    places = {getattr(item, "namespace", "") for item in desired.values()} - {""}
    nowhere = {name for name in places if ("namespace", name) not in desired and ("namespace", name) not in observed}
    wanted: set[tuple[str, Key]] = set()
    for item in desired.values():
        if isinstance(item, Link) and item.external:
            wanted.add(("bridge %s" % item.master if item.master else "the document", item.key))
            continue
        if _device(item):
            wanted.add((_name(item) if not isinstance(item, Route) else "a route", _device(item)))
        if isinstance(item, Link) and item.master:
            wanted.add((_name(item), ("link", item.namespace, item.master)))
        if isinstance(item, Link) and isinstance(item.options, (Ipip, Vxlan)) and item.options.link:
            wanted.add((_name(item), ("link", item.namespace, item.options.link)))
    return ["namespace %s is not there: make it first" % name for name in sorted(nowhere)] + [
        "%s needs the link %s%s, which is not there" % (who, key[2], " in namespace %s" % key[1] if key[1] else "")
        for who, key in sorted(wanted)
        if key not in observed and key[1] not in nowhere and getattr(desired.get(key), "external", True)
    ]


def _name(item: Object) -> str:
    if isinstance(item, Link):
        return "link %s%s" % (item.name, " in namespace %s" % item.namespace if item.namespace else "")
    if isinstance(item, File):
        return "file %s" % item.path
    if isinstance(item, Firewall):
        return "nftables table %s podnet_overlay" % ("inet" if '"inet"' in "".join(item.objects) else "bridge")
    return describe(item)


def _whose(wanted: Object, item: Object) -> str:
    if getattr(item, "owner", ""):
        return "it belongs to the document %r" % item.owner  # type: ignore[union-attr]
    if isinstance(item, Route):
        return "%s; protocol %s" % (describe(item), protocol_name(item.protocol))
    if isinstance(item, Namespace) and isinstance(wanted, Namespace) and wanted.pid is not None:
        return "it is not the namespace of process %d" % wanted.pid
    if isinstance(item, Link) and isinstance(wanted, Link) and _busy_port(wanted, item):
        return "it is a port of %s" % item.master
    if (
        isinstance(wanted, Link)
        and isinstance(item, Link)
        and isinstance(item.options, Veth)
        and _other_pair(wanted, item)
    ):
        where = " in namespace %s" % item.options.peer_namespace if item.options.peer_namespace else ""
        return "its other end is %s%s" % (item.options.peer or "in a namespace that was not named", where)
    if isinstance(item, Link):
        guess = _LOOKS_LIKE.get(item.name) or (
            "a physical or virtual interface" if not item.kind else "a %s made by hand or another tool" % item.kind
        )
        return "it looks like %s" % guess
    return "it was made by hand or by another tool"


_LOOKS_LIKE = {
    "cni0": "the bridge of a CNI plugin (Kubernetes, k3s)",
    "flannel.ipip": "flanneld's tunnel",
    "flannel.1": "flanneld's vxlan device",
    "docker0": "Docker's bridge",
    "tunl0": "the kernel's own fallback tunnel",
}


def _remedy(wanted: Object, item: Object, owner: str) -> str:
    if getattr(item, "owner", ""):
        return "change it through that document, or tear that one down"
    if isinstance(item, Route):
        return "remove it, or take it over with adopt: true"
    if isinstance(item, (File, Firewall)):
        return "remove it, or take it over with adopt: true"
    if owner and getattr(wanted, "kind", "") == getattr(item, "kind", ""):
        return "remove it, choose another name, or take it over with adopt: true"
    return "remove it, or choose another name"
