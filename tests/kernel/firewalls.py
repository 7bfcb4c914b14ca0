"""Other programs' firewalls on a namespace host: the real ones where that goes, and Docker's chains made by hand.

None of them is ever started outside a namespace host.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.kernel.hosts import Host

# The machine's own configuration would start polkitd, which is nothing for root.
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*" eavesdrop="true"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""
PATIENCE = 30
"""Seconds until firewalld answers; it takes one."""


@dataclass(frozen=True)
class Program:
    """A program with a firewall of its own."""

    name: str
    """As the module knows it."""
    running: Callable[[Host], AbstractContextManager[None]]
    """The firewall is in force on a host, with its default policy for what comes in or is forwarded: it goes no further."""
    state: Callable[[Host], str]
    """All that there is of it: what is in force and what is on disk."""
    undone: Callable[[Host], object]
    """Someone takes away what lets the overlay pass."""


def needs(*programs: str) -> None:
    """To be installed for a test is not worth what firewalld does to a machine that it is installed on: Debian starts it."""
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed; if you install it here, mask its service first")


@contextmanager
def ended(host: Host, words: Sequence[str]) -> Iterator[None]:
    """A process of the host's, which is ended afterwards."""
    process = host.popen(*words)
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@contextmanager
def bus(host: Host) -> Iterator[None]:
    """A D-Bus of the host's own."""
    needs("dbus-daemon")
    host.sh(f"mkdir -p /run/dbus; cat >/run/dbus/bus.conf <<'E'\n{BUS}E\n")
    with ended(host, ["dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile"]):
        host.sh(
            f"for i in $(seq {10 * PATIENCE}); do [ -S /run/dbus/system_bus_socket ] && exit; sleep 0.1; done; exit 1"
        )
        yield


def filters(host: Host, *programs: str) -> str:
    """iptables-save, but for counters and dates."""
    texts = [host.run(f"{program}-save").stdout for program in programs or ["iptables-nft", "iptables-legacy"]]
    return re.sub(r"^#.*\n|\[\d+:\d+\]", "", "".join(texts), flags=re.MULTILINE)


# ------------------------------------------------------------------------------------------------ Docker


def docker(command: str, *, returns: bool = True) -> Program:
    """Docker's chains as dockerd makes them with ``iptables``; *returns*: as it did before 28, with a RETURN at the end."""

    @contextmanager
    def running(host: Host) -> Iterator[None]:
        host.sh(
            f"ip link add docker0 type bridge; {command} -N DOCKER-USER; {command} -N DOCKER-FORWARD;"
            f"{command} -A FORWARD -j DOCKER-USER; {command} -A FORWARD -j DOCKER-FORWARD; {command} -P FORWARD DROP;"
            f"{command} -A DOCKER-FORWARD -i docker0 -j ACCEPT;"
            + (f"{command} -A DOCKER-USER -j RETURN" if returns else "")
        )
        yield

    return Program("docker", running, filters, lambda host: host.run(command, "-F", "DOCKER-USER"))


# ------------------------------------------------------------------------------------------------ firewalld


def _firewalld_state(host: Host) -> str:
    return host.sh(
        "nft list table inet firewalld; firewall-cmd --list-all-zones; firewall-cmd --list-all-policies;"
        "cd /etc/firewalld; find . -type f | sort | xargs sha256sum"
    ) + filters(host)


@contextmanager
def _firewalld(host: Host) -> Iterator[None]:
    needs("firewalld")
    with ExitStack() as stack:
        stack.enter_context(bus(host))
        stack.enter_context(ended(host, ["firewalld", "--nofork", "--nopid"]))
        until = time.monotonic() + PATIENCE
        while host.run("firewall-cmd", "--state", check=False).returncode:
            assert time.monotonic() < until, "firewalld does not start"
            time.sleep(0.1)
        yield


FIREWALLD = Program(
    "firewalld",
    _firewalld,
    _firewalld_state,
    lambda host: [
        host.run("firewall-cmd", f"--policy=podnet-{policy}", "--remove-ingress-zone=ANY")
        for policy in ("forward", "input")
    ],
)

# ------------------------------------------------------------------------------------------------ ufw


@contextmanager
def _ufw(host: Host) -> Iterator[None]:
    needs("ufw")
    host.run("ufw --force enable")
    yield


def _ufw_undone(host: Host) -> None:
    for line in host.run("ufw show added").stdout.splitlines():
        if "podnet.overlay:" in line:
            verb, rule = line.split(" comment ")[0].removeprefix("ufw ").rsplit("allow ", 1)
            host.sh(f"ufw {verb} delete allow {rule}")
    host.sh("sed -i '/BEGIN podnet.overlay/,/END podnet.overlay/d' /etc/ufw/before.rules; ufw reload")


UFW = Program(
    "ufw",
    _ufw,
    lambda host: (
        host.sh("ufw status verbose; ufw show added; cat /etc/ufw/*.rules; stat -c '%n %a' /etc/ufw/*") + filters(host)
    ),
    _ufw_undone,
)
