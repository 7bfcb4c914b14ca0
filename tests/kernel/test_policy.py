"""Isolation by groups: who may come to a pod, from the same node, from another, and past the node's routing."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from tests.kernel.far_end import DOUBT, LOST, PATIENCE, PROTOCOLS, Place, Seen, asked, br_netfilter, forged, heard
from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES as PLAIN
from tests.kernel.overlays import clause, document, mac, overlay, table

BACKENDS = [pytest.param("ipip", marks=pytest.mark.ipip), "vxlan", "host-gw"]
once = pytest.mark.parametrize("backend", ["vxlan"], indirect=True)
"""What has nothing to do with the way between nodes."""
STRANGER = {"stranger": "198.51.100.99"}
PODS = {"web": 2, "db": 3, "free": 4, "web2": 5, "one": 6, "two": 7}
NODES: dict[str, dict[str, Any]] = {
    name: {**node, "pods": {pod: f"10.244.{number}.{last}" for pod, last in PODS.items()}}
    for number, (name, node) in enumerate(PLAIN.items())
}
GROUP_OF = {"web": "frontend", "web2": "frontend", "db": "backend", "free": None, "one": "pair", "two": "pair"}
GROUPS = {
    group: [node["pods"][pod] for node in NODES.values() for pod, its in GROUP_OF.items() if its == group]
    for group in ("frontend", "backend", "pair")
}
DENIED: list[dict[str, Any]] = []
PORT = 7000

Hosts = Mapping[str, Host]


def allow(to: str, **conditions: Any) -> dict[str, Any]:
    return {"to": to, "from": None, "network": None, "protocol": None, "ports": [], **conditions}


def documents(backend: str, policy: Sequence[Mapping[str, Any]] | None, **wall: Any) -> dict[str, dict[str, Any]]:
    """Each node's document with this policy."""
    found = {}
    for name in NODES:
        pods = clause(name, backend, NODES)["pods"]
        grouped = [{**pod, "group": GROUP_OF[pod["name"]]} for pod in pods]
        changes = {"policy": policy, "groups": GROUPS, "pods": grouped, **wall}
        found[name] = document(name, backend, NODES, changes)
    return found


def converge(hosts: Hosts, backend: str, policy: Sequence[Mapping[str, Any]] | None = DENIED, **wall: Any) -> None:
    for name, whole in documents(backend, policy, **wall).items():
        hosts[name].module("topology", name="overlay", document=whole, peers=table(NODES))


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def hosts(backend: str) -> Iterator[Hosts]:
    with overlay(backend, NODES, {}, STRANGER) as made:
        made["stranger"].run("ip route add 10.244.0.0/24 via 198.51.100.11")
        yield made


@pytest.fixture(params=[0, 1], ids=["no br_netfilter", "br_netfilter"])
def filtered(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[None]:
    for name in NODES:
        br_netfilter(hosts[name], request.param)
    yield
    for name in NODES:
        br_netfilter(hosts[name], 1)


def place(hosts: Hosts, name: str) -> Place:
    pod, _at, host = name.rpartition("@")
    return Place(hosts[host], pod)


def ask(hosts: Hosts, client: str, server: str, protocol: str = "tcp", port: int = PORT) -> Seen:
    pod, _at, host = server.rpartition("@")
    return asked(
        place(hosts, client),
        (NODES[host]["pods"][pod], port),
        place(hosts, server),
        protocol=protocol,
        patience=DOUBT,
    )


def passing(
    hosts: Hosts, clients: Sequence[str], servers: Sequence[str], protocols: Sequence[str] = PROTOCOLS
) -> set[tuple[str, str]]:
    """Who gets an answer from whom, all asking at once; where that differs by protocol it is told with the server."""
    with contextlib.ExitStack() as stack:
        listeners = []
        for server, protocol in itertools.product(servers, protocols):
            listeners.append(stack.enter_context(place(hosts, server).socket(protocol, ("", PORT))))
            if protocol == "tcp":
                listeners.pop().listen()
        asking = {}
        for client, server, protocol in itertools.product(clients, servers, protocols):
            sender = stack.enter_context(place(hosts, client).socket(protocol))
            sender.setblocking(False)
            pod, _at, host = server.rpartition("@")
            with contextlib.suppress(BlockingIOError):
                sender.connect((NODES[host]["pods"][pod], PORT))
            if protocol == "udp":
                sender.send(b"question")
            asking[sender] = (client, server, protocol)
        answered: dict[tuple[str, str], list[str]] = {}
        while asking:
            connecting = [sender for sender, (_client, _server, protocol) in asking.items() if protocol == "tcp"]
            ready = select.select([*listeners, *asking], connecting, [], DOUBT)
            if not any(ready):
                break
            for one in {*ready[0], *ready[1]}:
                if one in asking:
                    client, server, protocol = asking.pop(one)
                    if protocol == "udp" or one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        answered.setdefault((client, server), []).append(protocol)
                else:
                    one.sendto(b"answer", one.recvfrom(99)[1])
        return {
            (client, server if sorted(by) == sorted(protocols) else f"{server} by {by}")
            for (client, server), by in answered.items()
        }


EVERYBODY = ["web@node1", "db@node1", "free@node1", "web2@node1", "web@node2", "db@node2", "free@node2"]
EVERYBODY += ["node1", "node2", "stranger"]
SERVERS = ["web@node1", "db@node1", "free@node1"]
BY_ITSELF = {
    *[(client, "free@node1") for client in EVERYBODY],
    *[(client, "web@node1") for client in ("web@node1", "web2@node1", "web@node2", "node1")],
    *[(client, "db@node1") for client in ("db@node1", "db@node2", "node1")],
}
"""Without any rule: a group among itself, its own node, and everybody to a pod in no group."""


@pytest.mark.usefixtures("filtered")
def test_groups_are_closed_and_the_rest_is_open(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend)
    assert passing(hosts, EVERYBODY, SERVERS) == BY_ITSELF


@once
def test_without_a_policy_nobody_is_isolated(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend, None)
    assert passing(hosts, EVERYBODY, SERVERS) == {(client, server) for client in EVERYBODY for server in SERVERS}


@pytest.mark.usefixtures("filtered")
def test_a_group_is_let_in_by_its_name_on_one_port(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend, [allow("backend", **{"from": "frontend"}, protocol="tcp", ports=[str(PORT)])])
    clients = ["web@node1", "web@node2", "free@node1", "stranger"]
    expected = {(client, "db@node1 by ['tcp']") for client in clients[:2]}
    assert passing(hosts, clients, ["db@node1"]) == expected
    assert ask(hosts, "web@node1", "db@node1", port=PORT + 1) == LOST
    assert passing(hosts, ["db@node1", "db@node2"], ["web@node1"]) == set()  # and not the other way


ALLOWANCES: dict[str, tuple[dict[str, Any], set[tuple[str, int, str]]]] = {
    "anybody": (allow("backend"), {("stranger", 81, "tcp"), ("stranger", 82, "udp"), ("free@node2", 81, "tcp")}),
    "a network": (
        allow("backend", network="198.51.100.96/27"),
        {("stranger", 81, "tcp"), ("stranger", 82, "udp")},
    ),
    "a network of pods": (allow("backend", network="10.244.1.0/24"), {("free@node2", 81, "tcp")}),
    "a protocol": (allow("backend", protocol="tcp"), {("stranger", 81, "tcp"), ("free@node2", 81, "tcp")}),
    "a port": (allow("backend", protocol="udp", ports=["82"]), {("stranger", 82, "udp")}),
    "ports and ranges": (
        allow("backend", protocol="tcp", ports=["22", "80-90"]),
        {("stranger", 81, "tcp"), ("free@node2", 81, "tcp")},
    ),
    "a range past it": (allow("backend", protocol="tcp", ports=["82-90"]), set()),
    "all of it": (
        allow("backend", network="198.51.100.99", protocol="udp", ports=["80-82"]),
        {("stranger", 82, "udp")},
    ),
}


@once
@pytest.mark.parametrize("name", ALLOWANCES)
def test_what_a_rule_lets_in(hosts: Hosts, backend: str, name: str) -> None:
    rule, expected = ALLOWANCES[name]
    converge(hosts, backend, [rule])
    asks = [("stranger", 81, "tcp"), ("stranger", 82, "udp"), ("free@node2", 81, "tcp")]
    assert {one for one in asks if ask(hosts, one[0], "db@node1", one[2], one[1]) != LOST} == expected


@once
@pytest.mark.usefixtures("filtered")
def test_pings_are_a_protocol_too(hosts: Hosts, backend: str) -> None:
    def ping(client: str) -> bool:
        pod, _at, host = client.rpartition("@")
        words = ["ping", "-c", "1", "-W", "1", NODES["node1"]["pods"]["db"]]
        return hosts[host].run("ip", "netns", "exec", pod, *words, check=False).returncode == 0

    clients = ["web@node1", "db@node2", "web@node2"]
    converge(hosts, backend)
    assert [ping(client) for client in clients] == [False, True, False]
    converge(hosts, backend, [allow("backend", **{"from": "frontend"}, protocol="icmp")])
    assert [ping(client) for client in clients] == [True, True, True]


@pytest.mark.parametrize("client", ["web@node1", "web@node2"])
def test_connections_go_on_while_new_ones_are_refused(hosts: Hosts, backend: str, client: str) -> None:
    """A policy says who may begin. It knows what was begun before it came, where the node has seen the beginning.

    It sees that between two of its own pods with br_netfilter only: without, such a connection ends.
    """
    br_netfilter(hosts["node1"], 1)
    converge(hosts, backend, None)
    target = (NODES["node1"]["pods"]["db"], PORT)
    service = place(hosts, "db@node1").socket("tcp", ("", PORT))
    with service, place(hosts, client).socket("tcp") as old, place(hosts, client).socket("tcp") as new:
        service.listen()
        old.connect(target)
        with service.accept()[0] as peer:
            peer.settimeout(PATIENCE)
            converge(hosts, backend)
            old.send(b"question")
            assert peer.recv(99) == b"question"
            peer.send(b"answer")
            assert old.recv(99) == b"answer"
            new.settimeout(DOUBT)
            with pytest.raises(TimeoutError):
                new.connect(target)


@pytest.mark.usefixtures("filtered")
def test_isolated_pods_get_their_answers(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend)
    asks = [("db@node1", server, protocol) for server in ("free@node1", "free@node2") for protocol in PROTOCOLS]
    assert [str(ask(hosts, *one)) for one in asks] == ["10.244.0.3"] * len(asks)


@once
@pytest.mark.usefixtures("filtered")
def test_a_mapped_port_of_an_isolated_pod_asks_the_policy(hosts: Hosts, backend: str) -> None:
    """The policy sees who asks, not the address that the masquerade for the answer gives him."""
    ports = [
        {
            "pod": "db",
            "address": "10.244.0.3",
            "port": PORT,
            "protocol": "tcp",
            "host_port": 8080,
            "host_address": None,
        }
    ]

    def mapped(client: str) -> bool:
        where = ("198.51.100.11", 8080)
        return asked(place(hosts, client), where, place(hosts, "db@node1"), listen=PORT, patience=DOUBT) != LOST

    clients = ["stranger", "web@node1", "free@node1", "db@node1", "node1"]
    for rules, expected in (
        (DENIED, ["db@node1", "node1"]),
        ([allow("backend", **{"from": "frontend"})], ["web@node1", "db@node1", "node1"]),
        ([allow("backend", network="198.51.100.0/24")], ["stranger", "db@node1", "node1"]),
    ):
        for name, whole in documents(backend, rules).items():
            if name == "node1":
                whole["firewall"]["ports"] = ports
            hosts[name].module("topology", name="overlay", document=whole, peers=table(NODES))
        assert [client for client in clients if mapped(client)] == expected


BROADCAST, MULTICAST = "ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03"
DB = mac("10.244.0.3")


FRAMES = [
    (BROADCAST, "10.244.0.255"),
    (BROADCAST, "255.255.255.255"),
    (BROADCAST, "10.244.0.3"),
    (MULTICAST, "239.1.2.3"),
    (MULTICAST, "10.244.0.3"),
    (DB, "10.244.0.3"),
    (DB, "10.244.0.255"),
    (DB, "255.255.255.255"),
    (DB, "239.1.2.3"),
]


@once
@pytest.mark.usefixtures("filtered")
def test_no_frame_goes_round_the_policy(hosts: Hosts, backend: str) -> None:
    """However a pod addresses its frames: pods take broadcasts, and unicasts in them, as any host does."""
    pod, there = place(hosts, "web@node1"), place(hosts, "db@node1")
    raw = pod.do(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with contextlib.ExitStack() as stack:
        stack.enter_context(raw)
        pod.do(lambda: raw.bind(("eth0", 0)))
        listeners = {}
        for port, (frame, target) in enumerate(FRAMES, PORT):
            listener = stack.enter_context(there.socket("udp", ("", port)))
            member = socket.inet_aton("239.1.2.3") + socket.inet_aton("10.244.0.3")
            there.do(partial(listener.setsockopt, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member))
            listeners[listener] = (frame, target)
        for policy, expected in ((DENIED, []), (None, FRAMES)):
            converge(hosts, backend, policy)
            for port, (frame, target) in enumerate(FRAMES, PORT):
                raw.send(forged("10.244.0.2", target, port, frame))
            time.sleep(DOUBT)
            assert [listeners[one] for one in select.select(listeners, [], [], 0)[0]] == expected


@once
@pytest.mark.usefixtures("filtered")
def test_ipv6_of_the_link_is_no_way_round(hosts: Hosts, backend: str) -> None:
    """Pods have link-local addresses whether anybody wants IPv6 or not."""
    converge(hosts, backend)

    def connects(client: str, server: str) -> bool:
        here, there = place(hosts, client), place(hosts, server)
        address = _link_local(there)
        listener = there.do(lambda: socket.create_server(("::", PORT), family=socket.AF_INET6))
        sender = here.do(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        index = here.do(lambda: socket.if_nametoindex("eth0"))
        with listener, sender:
            sender.settimeout(DOUBT)
            try:
                sender.connect((address, PORT, 0, index))
            except OSError:
                return False
        return True

    assert not connects("web@node1", "db@node1")
    converge(hosts, backend, None)
    # A neighbour that could not be found is unreachable until the kernel has asked once more.
    assert any(connects("web@node1", "db@node1") for _try in range(10))


def _link_local(there: Place) -> str:
    found = there.host.json("ip", "-n", there.pod, "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link")
    address: str = found[0]["addr_info"][0]["local"]
    return address


@once
def test_no_redirect_tells_a_pod_to_go_past_the_policy(hosts: Hosts, backend: str) -> None:
    """What comes from the bridge and goes back there is what a router sends redirects for."""
    converge(hosts, backend)
    hosts["node1"].sh("sysctl -qw net.ipv4.conf.all.send_redirects=1")

    def redirects(client: str, server: str) -> set[int]:
        """The types of ICMP messages that come of a flow; NAT itself holds back what its first packet brings about."""
        with heard(place(hosts, client), socket.IPPROTO_ICMP) as icmp, place(hosts, client).socket("udp") as sender:
            for _number in range(8):
                sender.sendto(b"x", (NODES["node1"]["pods"][server], PORT))
                time.sleep(0.05)
            return {packet[20] for packet in icmp()}

    # Pods that no other test lets speak: the kernel tells each of them so a few times only.
    with place(hosts, "one@node1").socket("udp", ("", PORT)), place(hosts, "two@node1").socket("udp", ("", PORT)):
        assert redirects("one@node1", "two") == set()
        hosts["node1"].run("nft flush chain inet podnet_overlay output")
        assert redirects("two@node1", "one") == {5}  # so there is something to hold back


def rules(host: Host) -> int:
    listed = [host.json("nft", "-j", "list", "table", family, "podnet_overlay") for family in ("inet", "bridge")]
    return sum("rule" in item for answer in listed for item in answer["nftables"])


@once
def test_rules_do_not_grow_with_pods_and_nodes(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend, [allow("backend", **{"from": "frontend"})])
    before = rules(hosts["node1"])
    crowd = {
        group: [*members, *(f"10.244.{node}.{number}" for node in range(2, 200) for number in (last, last + 100))]
        for last, (group, members) in enumerate(GROUPS.items(), 2)
    }
    name = "node1"
    whole = documents(backend, [allow("backend", **{"from": "frontend"})], groups=crowd)[name]
    pods = whole["firewall"]["pods"]
    pods += [
        {**pods[0], "name": f"more{number}", "interface": f"veth-{number}", "address": f"10.244.0.{number}"}
        for number in range(100, 150)
    ]
    peers = {**table(NODES), **{f"10.244.{node}.0/24": f"198.51.100.{node}" for node in range(20, 90)}}
    arguments: dict[str, Any] = {"name": "overlay", "document": whole, "peers": peers}
    assert hosts[name].module("topology", **arguments)["changed"]
    assert rules(hosts[name]) == before
    assert str(ask(hosts, "web@node2", "db@node1")) != str(LOST)
    done = hosts[name].module("topology", **arguments)
    assert (done["changed"], done["operations"]) == (False, [])
    converge(hosts, backend)


@once
def test_a_policy_that_goes_leaves_nothing(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend)
    assert "to-backend" in hosts["node1"].run("nft list ruleset").stdout
    converge(hosts, backend, None)
    left = hosts["node1"].run("nft list ruleset").stdout
    assert [word for word in ("to-backend", "group-", "isolated") if word in left] == []


@once
def test_an_unknown_group_is_named_and_nothing_changes(hosts: Hosts, backend: str) -> None:
    converge(hosts, backend)
    before = hosts["node1"].run("nft list ruleset").stdout
    whole = documents(backend, [allow("cache", **{"from": "nobody"})])["node1"]
    said = hosts["node1"].module("topology", fails=True, name="overlay", document=whole, peers=table(NODES))["msg"]
    assert "cache" in said
    assert "nobody" in said
    assert hosts["node1"].run("nft list ruleset").stdout == before
