"""Port mappings of pods, as CNI's portmap has them, from wherever somebody may ask."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.far_end import DOUBT, LOST, PROTOCOLS, REFUSED, Place, Seen, asked, br_netfilter, forged
from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, TABLE, document, mac, overlay

BACKENDS = [pytest.param("ipip", marks=pytest.mark.ipip), "vxlan", "host-gw"]
once = pytest.mark.parametrize("backend", ["vxlan"], indirect=True)
"""What has nothing to do with the way between nodes."""
STRANGER = {"stranger": "198.51.100.99"}
WEB, DB, BRIDGE, NODE, SECOND = "10.244.0.2", "10.244.0.3", "10.244.0.1", "198.51.100.11", "198.51.100.111"
LOOPBACK = "127.0.0.1"

Hosts = Mapping[str, Host]
Mapping_ = dict[str, Any]


def mapping(host_port: int, port: int, protocol: str, pod: str = "web", host_address: str | None = None) -> Mapping_:
    address = NODES["node1"]["pods"][pod]
    where = {"host_port": host_port, "host_address": host_address}
    return {"pod": pod, "address": address, "port": port, "protocol": protocol, **where}


PORTS = [
    *[mapping(8080, 80, protocol) for protocol in PROTOCOLS],
    *[mapping(8081, 80, protocol, "db", LOOPBACK) for protocol in PROTOCOLS],
    *[mapping(8082, 80, protocol, "db", NODE) for protocol in PROTOCOLS],
]
WEBS, BOUND_TO_LOOPBACK, BOUND_TO_NODE = (8080, "web"), (8081, "db"), (8082, "db")


def converge(hosts: Hosts, backend: str, ports: Sequence[Mapping_] = PORTS, **wall: Any) -> None:
    """node1 with these mappings, as the plan makes it: with them comes the sysctl of the bridge."""
    for name in NODES:
        mine = list(ports) if name == "node1" else []
        whole = document(name, backend, firewall={"ports": mine, **wall})
        if mine:
            whole["sysctls"].append({"name": "net.ipv4.conf.cni0.route_localnet", "value": "1"})
        hosts[name].module("topology", name="overlay", document=whole, peers=TABLE)


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(backend: str) -> Iterator[Hosts]:
    with overlay(backend, firewall={}, others=STRANGER) as found:
        found["node1"].sh(f"ip addr add {SECOND}/24 dev eth1")
        yield found


@pytest.fixture
def hosts(made: Hosts, backend: str) -> Hosts:
    converge(made, backend)
    return made


@pytest.fixture(params=[0, 1], ids=["no br_netfilter", "br_netfilter"])
def filtered(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[None]:
    br_netfilter(hosts["node1"], request.param)
    yield
    br_netfilter(hosts["node1"], 1)


def seen(hosts: Hosts, client: str, target: str, mapped: tuple[int, str], protocol: str, wait: float = 2.0) -> Seen:
    """Who the pod behind a mapping sees."""
    pod, _at, host = client.rpartition("@")
    port, server = mapped
    return asked(
        Place(hosts[host], pod),
        (target, port),
        Place(hosts["node1"], server),
        protocol=protocol,
        listen=80,
        patience=wait,
    )


FROM = {
    "another host": ("stranger", NODE, STRANGER["stranger"]),
    "another host, second address": ("stranger", SECOND, STRANGER["stranger"]),
    "another node": ("node2", NODE, "198.51.100.12"),
    "the node by loopback": ("node1", LOOPBACK, BRIDGE),
    "the node by its address": ("node1", NODE, NODE),
    "the node by its bridge": ("node1", BRIDGE, BRIDGE),
    "the pod itself": ("web@node1", NODE, BRIDGE),
    "the pod itself, by the bridge": ("web@node1", BRIDGE, BRIDGE),
    "another pod of the node": ("db@node1", NODE, BRIDGE),
    "a pod of another node": ("web@node2", NODE, "198.51.100.12"),
    "a pod of another node, by the bridge": ("web@node2", BRIDGE, "10.244.1.2"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.usefixtures("filtered")
def test_a_mapped_port_answers_from_everywhere(hosts: Hosts, protocol: str) -> None:
    found = {name: str(seen(hosts, client, target, WEBS, protocol)) for name, (client, target, _s) in FROM.items()}
    assert found == {name: source for name, (_client, _target, source) in FROM.items()}


@pytest.mark.parametrize("masquerade", [None, "nodes"])
@pytest.mark.usefixtures("filtered")
def test_mappings_do_not_need_masquerade(hosts: Hosts, backend: str, masquerade: str | None) -> None:
    """Who is masqueraded is so because its answer would go astray, not because pods are."""
    other = {"nodes": False, "except": [], "random_fully": True, "address": None}
    converge(hosts, backend, masquerade=other if masquerade else None)
    found = {name: str(seen(hosts, client, target, WEBS, "udp")) for name, (client, target, _s) in FROM.items()}
    kept = {"a pod of another node": "10.244.1.2"}
    assert found == {**{name: source for name, (_client, _target, source) in FROM.items()}, **kept}


@once
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_mapping_of_one_address_answers_there_alone(hosts: Hosts, protocol: str) -> None:
    asks = {
        (client, target, mapped): str(seen(hosts, client, target, mapped, protocol, DOUBT))
        for mapped in (BOUND_TO_LOOPBACK, BOUND_TO_NODE)
        for client, target in [
            *[("node1", target) for target in (LOOPBACK, NODE, SECOND)],
            *[("stranger", target) for target in (NODE, SECOND)],
            ("web@node1", NODE),
        ]
    }
    answered = {key: source for key, source in asks.items() if source not in (str(LOST), str(REFUSED))}
    assert answered == {
        ("node1", LOOPBACK, BOUND_TO_LOOPBACK): BRIDGE,
        ("node1", NODE, BOUND_TO_NODE): NODE,
        ("web@node1", NODE, BOUND_TO_NODE): BRIDGE,
        ("stranger", NODE, BOUND_TO_NODE): STRANGER["stranger"],
    }


@once
def test_what_only_passes_is_nobodys_mapping(hosts: Hosts) -> None:
    """A pod's question to port 8080 somewhere else goes there."""
    answer = asked(Place(hosts["node1"], "db"), (STRANGER["stranger"], 8080), Place(hosts["stranger"]))
    assert str(answer) == NODE


@once
def test_a_service_of_the_node_comes_back_with_the_mapping_gone(hosts: Hosts, backend: str) -> None:
    """As with portmap, a mapping goes before a service that listens there, and takes nothing away for good."""
    node, stranger = Place(hosts["node1"]), Place(hosts["stranger"])
    with node.socket("tcp", ("", 8080)) as service:
        service.listen()
        assert str(seen(hosts, "stranger", NODE, WEBS, "tcp")) == STRANGER["stranger"]
        converge(hosts, backend, [])
        with stranger.socket("tcp") as client:
            client.connect((NODE, 8080))
            assert service.accept()[1][0] == STRANGER["stranger"]


@once
@pytest.mark.parametrize(("target", "port"), [(LOOPBACK, 9000), ("127.3.2.1", 9000), (LOOPBACK, 8081)])
@pytest.mark.usefixtures("filtered")
def test_pods_do_not_reach_what_listens_on_loopback(hosts: Hosts, target: str, port: int) -> None:
    """The mappings need route_localnet on the bridge, with which the kernel takes 127.0.0.0/8 from pods too (CVE-2020-8558)."""
    node, pod = Place(hosts["node1"]), Place(hosts["node1"], "web")
    behind = Place(hosts["node1"], "db")
    assert hosts["node1"].run("sysctl -n net.ipv4.conf.cni0.route_localnet").stdout == "1\n"
    raw = pod.do(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    listener = behind.socket("udp", ("", 80)) if port == 8081 else node.socket("udp", (target, port))
    with raw, listener:
        pod.do(lambda: raw.bind(("eth0", 0)))
        listener.settimeout(DOUBT)
        raw.send(forged(WEB, target, port, mac(BRIDGE)))
        with pytest.raises(TimeoutError):
            listener.recvfrom(9)
        if port == 9000:  # the same frame arrives where nothing is in its way
            hosts["node1"].sh("nft delete table inet podnet_overlay; nft delete table bridge podnet_overlay || true")
            raw.send(forged(WEB, target, port, mac(BRIDGE)))
            assert listener.recvfrom(9)[1][0] == WEB


@contextmanager
def listening(hosts: Hosts) -> Iterator[Callable[[], list[str]]]:
    """The pods of node1 that got a datagram on port 53 since the last call."""
    sockets = {Place(hosts["node1"], pod).socket("udp", ("", 53)): pod for pod in ("web", "db")}

    def got() -> list[str]:
        ready = select.select(sockets, [], [], DOUBT)[0]
        for listener in ready:
            listener.sendto(b"answer", listener.recvfrom(9)[1])
        return [sockets[listener] for listener in ready]

    yield got
    for listener in sockets:
        listener.close()


@once
@pytest.mark.parametrize(
    ("client", "target", "host_address"),
    [("stranger", NODE, None), ("stranger", NODE, NODE), ("node1", LOOPBACK, None), ("node1", LOOPBACK, LOOPBACK)],
)
def test_a_flow_that_goes_on_follows_its_mapping(
    hosts: Hosts, backend: str, client: str, target: str, host_address: str | None
) -> None:
    """One socket, as a resolver's or a log's: to no pod, to the one, to the other, to none."""
    steps: list[list[Mapping_]] = [[], *[[mapping(5353, 53, "udp", pod, host_address)] for pod in ("web", "db")], []]
    with listening(hosts) as got, Place(hosts[client]).socket("udp") as sender:
        found = []
        for ports in steps:
            converge(hosts, backend, ports)
            try:
                sender.sendto(b"x", (target, 5353))
            except ConnectionRefusedError:  # that was the answer to the one before
                sender.sendto(b"x", (target, 5353))
            found.append(got())
    assert found == [[], ["web"], ["db"], []]


def ruleset(host: Host) -> str:
    return host.run("nft list ruleset").stdout


@once
def test_a_mapping_that_goes_leaves_nothing(hosts: Hosts, backend: str) -> None:
    assert "dnat ip to" in ruleset(hosts["node1"])
    converge(hosts, backend, [])
    assert "dnat ip to" not in ruleset(hosts["node1"])
    assert hosts["node1"].run("sysctl -n net.ipv4.conf.cni0.route_localnet").stdout == "0\n"
    found = {
        str(seen(hosts, client, target, WEBS, protocol, DOUBT))
        for client, target, _source in FROM.values()
        for protocol in PROTOCOLS
    }
    assert found <= {str(LOST), str(REFUSED)}


@once
def test_a_change_of_one_mapping_is_one_change(hosts: Hosts, backend: str) -> None:
    """Told before it is done, done in one transaction, and told no more afterwards; established connections live on."""
    others = [item for item in PORTS if item["host_port"] != 8082]
    whole = document("node1", backend, firewall={"ports": others})
    whole["sysctls"].append({"name": "net.ipv4.conf.cni0.route_localnet", "value": "1"})
    with Place(hosts["node1"], "web").socket("tcp", ("", 80)) as service, Place(hosts["stranger"]).socket("tcp") as one:
        service.listen()
        one.connect((NODE, 8080))
        peer, _address = service.accept()
        arguments: dict[str, Any] = {"name": "overlay", "document": whole, "peers": TABLE}
        predicted = hosts["node1"].module("topology", check=True, **arguments)
        done = hosts["node1"].module("topology", **arguments)
        assert predicted["operations"] == done["operations"] != []
        assert hosts["node1"].module("topology", **arguments)["operations"] == []
        with peer:
            one.send(b"still there")
            assert peer.recv(99) == b"still there"
    assert str(seen(hosts, "stranger", NODE, BOUND_TO_NODE, "tcp", DOUBT)) == str(REFUSED)
