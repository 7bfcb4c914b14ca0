# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may pass, from an inventory's variables through the playbooks to packets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.fleets import Fleet, fleet_of
from tests.kernel.hosts import Host

SERVE = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as server:
    print("listens", flush=True)
    while True:
        server.accept()[0].close()
"""
ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(2, tmp_path) as fleet:
        yield fleet


@contextmanager
def serving(host: Host, port: int, *inside: str) -> Iterator[None]:
    process = host.popen(*inside, sys.executable, "-c", SERVE, str(port))
    try:
        assert process.stdout
        assert process.stdout.readline() == "listens\n"
        yield
    finally:
        process.kill()
        process.communicate()


def answers(host: Host, pod: str, address: str, port: int) -> bool:
    inside = ("ip", "netns", "exec", pod) if pod else ()
    return host.run(*inside, sys.executable, "-c", ASK, address, str(port), check=False).returncode == 0


def test_what_may_pass_goes_from_variables_to_packets(pair: Fleet) -> None:
    client, server = pair.hosts["node1"], pair.hosts["node2"]
    pair.group.update(
        overlay_cni=True,
        overlay_policy={"allow": [{"to": "servers", "from": "clients", "protocol": "tcp", "ports": [80]}]},
    )
    pair.variables["node1"]["overlay_pods"] = [{"name": "friend", "group": "clients"}, {"name": "stranger"}]
    pair.variables["node2"]["overlay_pods"] = [{"name": "web", "group": "servers", "ports": ["8080:80"]}]
    before = pair.picture()

    with serving(server, 8080):
        said = pair.refused("overlay")
    assert (
        "node2: overlay_pods: web: 8080:80/tcp: a process of the host listens on 0.0.0.0 port 8080/tcp already" in said
    )

    pair.works("overlay")
    assert not any(pair.works("overlay").changed.values())
    inside = ("ip", "netns", "exec", "web")
    with serving(server, 80, *inside), serving(server, 81, *inside):
        assert answers(client, "friend", "10.244.1.2", 80)
        assert not answers(client, "friend", "10.244.1.2", 81)
        assert not answers(client, "stranger", "10.244.1.2", 80)
        assert answers(server, "", "127.0.0.1", 8080)

        pair.variables["node1"]["overlay_pods"][1]["group"] = "clients"
        changed = pair.works("overlay", "--diff")
        assert changed.changed["node2"], changed.out  # the group's members are of the whole fleet
        assert answers(client, "stranger", "10.244.1.2", 80)

    assert "FLANNEL_SUBNET=10.244.1.1/24" in server.sh("cat /run/flannel/subnet.env")
    assert '"rangeStart": "10.244.1.64"' in server.sh("cat /etc/cni/net.d/*.conflist")
    pair.works("teardown")
    assert not [line for line in pair.picture() ^ before if not line.startswith("leases: ")]
