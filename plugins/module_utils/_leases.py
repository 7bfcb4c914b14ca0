# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The leases file: which node has which subnet, public_ip and pod addresses, and which nodes were removed.

One line for each node, so that a change of the fleet reads as a change of lines. ``parse`` and ``render`` are pure.
Only the controller uses this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import ipaddress
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._atomic import sync
from ._model import Mistakes, ipv4, read_mtu

try:
    import yaml
except ImportError:  # the controller has it: ansible-core needs it
    yaml = None  # type: ignore[assignment, unused-ignore]

LEASES_VERSION = 1
FILE_NAME = ".overlay-leases.yml"
"""Beside the inventory. The leading dot keeps Ansible from reading it as an inventory where that is a folder."""
REASONS = ("inventory", "playbook")
_KEYS = ("version", "network", "nodes", "removed")
_HEADER = "# The leases of podnet.overlay, written by overlay.yml: who has which subnet. Commit this file.\n"
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


@dataclass(frozen=True)
class Lease:
    """What a node has. ``mtu`` is its pods'; ``reason`` says why a removed one left: ``inventory`` or ``playbook``.

    A removed one that is ``freed`` only keeps the node out: others may have its subnet.
    """

    subnet: ipaddress.IPv4Network
    public_ip: str
    mtu: int | None = None
    pods: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    freed: bool = False


@dataclass(frozen=True)
class Leases:
    """A leases file."""

    network: ipaddress.IPv4Network
    nodes: Mapping[str, Lease] = field(default_factory=dict)
    removed: Mapping[str, Lease] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------ pure


def overlaps(subnets: Iterable[tuple[str, ipaddress.IPv4Network]]) -> Iterator[tuple[str, str]]:
    """Pairs of names whose subnets overlap: each that does so, with one that it overlaps. O(n log n)."""
    ordered = sorted((int(subnet.network_address), -subnet.num_addresses, name) for name, subnet in subnets)
    widest, end = "", -1
    for first, size, name in ordered:
        if first < end:
            yield name, widest
        if first - size > end:
            widest, end = name, first - size


def require(own: ipaddress.IPv4Network, network: ipaddress.IPv4Network, source: str) -> None:
    """Raises Mistakes where leases are *own*'s, and not *network*'s, which the inventory says."""
    if own != network:
        remedy = "restore the variable, or let overlay.yml give every pod another address with -e overlay_renumber=true"
        raise Mistakes([f"{source}: network: {own} is not overlay_network {network}; {remedy}"])


def parse(text: str, source: str, network: ipaddress.IPv4Network | None = None) -> Leases:
    """The leases in *text*.

    Args:
        text: the file's content.
        source: its path, for errors.
        network: the network that it has to be of, if that is known.

    Raises:
        Mistakes: it is torn or not YAML, of another version or network, or contradicts itself.
    """
    try:
        raw = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, AttributeError, LookupError, OverflowError, ValueError) as error:  # 2001-99-99 is no date
        raise Mistakes([f"{source}: is not YAML ({_one_line(error)}); restore it from version control"]) from None
    if not isinstance(raw, dict):
        raise Mistakes([f"{source}: is empty or torn; restore it from version control"])
    if raw.get("version", LEASES_VERSION) != LEASES_VERSION:
        raise Mistakes(
            [f"{source}: version: {raw['version']!r} is not {LEASES_VERSION}, the one that this release knows"]
        )
    lines = [
        f"{source}: {key}: is missing; the file is torn: restore it from version control"
        for key in _KEYS
        if raw.get(key) is None
    ]
    lines += [f"{source}: {key}: unknown key" for key in raw if key not in _KEYS]
    lines += [
        f"{source}: {key}: is no mapping"
        for key in ("nodes", "removed")
        if not isinstance(raw.get(key, {}), (dict, type(None)))
    ]
    if lines:
        raise Mistakes(lines)
    try:
        own = ipaddress.IPv4Network(str(raw["network"]))
    except ValueError as error:
        raise Mistakes([f"{source}: network: {error}"]) from None
    if network is not None:
        require(own, network, source)
    sections: dict[str, dict[str, Lease]] = {"nodes": {}, "removed": {}}
    for section, leases in sections.items():
        for name, item in raw[section].items():
            try:
                leases[str(name)] = _lease(item, own, section == "removed")
            except (TypeError, ValueError) as error:
                lines.append(f"{source}: {section}: {name}: {error}")
    everyone = {**sections["removed"], **sections["nodes"]}
    lines += [
        f"{source}: {name}: subnet: {everyone[name].subnet} overlaps {everyone[other].subnet} of {other}"
        for name, other in overlaps((name, lease.subnet) for name, lease in everyone.items() if not lease.freed)
    ]
    if lines:
        raise Mistakes(lines)
    return Leases(own, **sections)


def _lease(raw: Any, network: ipaddress.IPv4Network, removed: bool) -> Lease:
    """One line of the file.

    Raises:
        ValueError, TypeError: something in it is wrong.
    """
    if not isinstance(raw, dict):
        raise TypeError("is no mapping")
    known = ("subnet", "public_ip", "mtu", "pods", *(("reason", "freed") if removed else ()))
    unknown = [str(key) for key in raw if key not in known]
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)}")
    subnet = ipaddress.IPv4Network(str(raw.get("subnet")))
    if not subnet.subnet_of(network):
        raise ValueError(f"subnet: {subnet} is outside {network}")
    pods = raw.get("pods") or {}
    if not isinstance(pods, dict):
        raise TypeError("pods: is no mapping")
    for name, address in pods.items():
        if ipaddress.IPv4Address(str(address)) not in subnet:
            raise ValueError(f"pods: {name}: {address} is outside {subnet}")
    mtu = None if raw.get("mtu") is None else read_mtu(raw["mtu"])
    reason = raw.get("reason", "inventory") if removed else ""
    if removed and reason not in REASONS:
        raise ValueError(f"reason: {reason!r} is none of {', '.join(REASONS)}")
    freed = raw.get("freed", False)
    if not isinstance(freed, bool):
        raise TypeError(f"freed: {freed!r} is neither true nor false")
    addresses = {str(name): str(address) for name, address in pods.items()}
    return Lease(subnet, ipv4(raw.get("public_ip")), mtu, addresses, reason, freed)


def render(leases: Leases | None) -> str:
    """The file's content; empty for none."""
    if leases is None:
        return ""
    lines = [f"version: {LEASES_VERSION}", f"network: {leases.network}"]
    for section, nodes in (("nodes", leases.nodes), ("removed", leases.removed)):
        # always there and last, so that a file cut short is known for one
        lines.append(f"{section}:" if nodes else f"{section}: {{}}")
        lines += [f"  {_scalar(name)}: {{{', '.join(_items(nodes[name]))}}}" for name in sorted(nodes, key=_natural)]
    return _HEADER + "\n".join(lines) + "\n"


def moved(leases: Leases, network: ipaddress.IPv4Network, source: str) -> Leases:
    """The leases in another network: every subnet and pod as far from its beginning as before.

    Raises:
        Mistakes: they have no room there. *source* is the file's path.
    """
    by = int(network.network_address) - int(leases.network.network_address)
    lines = [
        f"{source}: {name}: subnet: {lease.subnet} of {leases.network} has no counterpart in {network}; choose a larger network"
        for name, lease in {**leases.removed, **leases.nodes}.items()
        if int(lease.subnet[-1]) - int(leases.network[0]) >= network.num_addresses
    ]
    if lines:
        raise Mistakes(lines)

    def there(lease: Lease) -> Lease:
        subnet = ipaddress.IPv4Network((int(lease.subnet[0]) + by, lease.subnet.prefixlen))
        pods = {name: str(ipaddress.IPv4Address(address) + by) for name, address in lease.pods.items()}
        return dataclasses.replace(lease, subnet=subnet, pods=pods)

    nodes, removed = ({name: there(its) for name, its in of.items()} for of in (leases.nodes, leases.removed))
    return Leases(network, nodes, removed)


def _items(lease: Lease) -> Iterator[str]:
    yield f"subnet: {lease.subnet}"
    yield f"public_ip: {lease.public_ip}"
    if lease.mtu:
        yield f"mtu: {lease.mtu}"
    if lease.pods:
        yield f"pods: {{{', '.join(f'{_scalar(name)}: {address}' for name, address in lease.pods.items())}}}"
    if lease.reason:
        yield f"reason: {lease.reason}"
    if lease.freed:
        yield "freed: true"


def _scalar(name: str) -> str:
    """A name as YAML, quoted where it could be read as something else."""
    return name if _PLAIN.fullmatch(name) and name.lower() not in _YAML_WORDS else json.dumps(name, ensure_ascii=False)


def _natural(name: str) -> list[tuple[int, str]]:
    """node2 before node10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# ------------------------------------------------------------------------------------------------ the file


def load(path: str, network: ipaddress.IPv4Network | None = None) -> Leases | None:
    """The leases in the file at *path*, or None where there is none.

    Raises:
        Mistakes: it cannot be read, or as for ``parse``.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read(), path, network)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise Mistakes([f"{path}: is not text; restore it from version control"]) from None
    except OSError as error:
        raise Mistakes([f"{path}: cannot be read: {error.strerror}"]) from None


def save(path: str, leases: Leases | None) -> None:
    """Write the file whole or not at all, its mode kept; remove it for None. Its lock is held.

    Raises:
        Mistakes: it cannot be written.
    """
    target = os.path.realpath(path)
    temporary = _beside(target, "new")
    try:
        if leases is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # of a run that was killed
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(render(leases))
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), stat.S_IMODE(os.stat(target).st_mode))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        sync(os.path.dirname(target))
    except OSError as error:
        raise Mistakes([f"{path}: cannot be written: {error.strerror}"]) from None


def _beside(path: str, ending: str) -> str:
    """A hidden file beside *path*: Ansible reads every other one in an inventory's folder."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name.lstrip('.')}.{ending}")


@contextlib.contextmanager
def locked(path: str, seconds: float = 60) -> Iterator[None]:
    """Hold the lock of the leases file at *path*: a file beside it, there only while it is held.

    Raises:
        Mistakes: another run holds it for longer than *seconds*, or it cannot be made.
    """
    lock = _beside(os.path.realpath(path), "lock")
    deadline = time.monotonic() + seconds
    try:
        descriptor = _acquire(lock)
        while descriptor is None and time.monotonic() < deadline:
            time.sleep(0.1)
            descriptor = _acquire(lock)
    except OSError as error:
        raise Mistakes([f"{lock}: cannot be made: {error.strerror}"]) from None
    if descriptor is None:
        raise Mistakes([f"{path}: another run has held its lock for {seconds:.0f} s; wait for it, or end it"])
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        os.close(descriptor)


def _acquire(lock: str) -> int | None:
    """The descriptor of the locked file, or None where somebody else has it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # its holder may have removed it between the two calls: then this lock is of a file that nobody sees
        if os.fstat(descriptor).st_ino == os.stat(lock).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
