"""The walk through the overlay's own rules against real connections: who comes to whom, and under which address."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _trace
from ansible_collections.podnet.overlay.plugins.module_utils._flow import flow
from ansible_collections.podnet.overlay.plugins.module_utils._trace_text import render

from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, STRANGER, TUNNELS, converge, mac, overlay, settings

INTERNET = "192.0.2.1"  # the stranger's
MAPPED = [
    {"pod": "web", "address": "10.244.{}.2", "port": 80, "protocol": "tcp", "host_port": 8080},
    {
        "pod": "db",
        "address": "10.244.{}.3",
        "port": 80,
        "protocol": "tcp",
        "host_port": 8081,
        "host_address": "127.0.0.1",
    },
]
SERVE = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])), reuse_port=True)
print("ready", flush=True)
server.settimeout(float(sys.argv[2]))
try:
    connection, (address, _port) = server.accept()
    print(address, flush=True)
    connection.sendall(b"hello")
    connection.close()
except TimeoutError:
    print("nobody", flush=True)
"""
CONNECT = """
import socket, sys
source, target, port, sport = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
try:
    with socket.create_connection((target, port), 1.0, (source, sport)) as made:
        print("answered" if made.recv(5) else "closed")
except OSError as e:
    print(e)
"""
SWITCH = "/proc/sys/net/bridge/bridge-nf-call-iptables"
PORTS = itertools.count(42000)


def wall(name: str, **changes: Any) -> dict[str, Any]:
    """A node's firewall clause with mapped ports."""
    number = int(name[-1]) - 1
    return {"ports": [{**item, "address": item["address"].format(number)} for item in MAPPED], **changes}


@dataclass(frozen=True)
class Way:
    """A connection: who opens it to what, and who takes it, and as whose it is seen there."""

    name: str
    opens: str
    """namespace@host"""
    source: str
    target: str
    port: int
    takes: str
    seen: str
    takes_at: int = 80
    clause: dict[str, Any] = field(default_factory=dict)
    fault: str = ""


WAYS = [
    Way("to the internet", "web@node1", "10.244.0.2", INTERNET, 80, "@stranger", "198.51.100.11"),
    Way(
        "to the internet under a fixed address",
        "web@node1",
        "10.244.0.2",
        INTERNET,
        80,
        "@stranger",
        "198.51.100.111",
        clause={"masquerade": {"address": "198.51.100.111"}},
    ),
    Way(
        "to a network that is not masqueraded",
        "web@node1",
        "10.244.0.2",
        INTERNET,
        80,
        "@stranger",
        "10.244.0.2",
        clause={"masquerade": {"except": ["192.0.2.0/24"]}},
    ),
    Way(
        "without masquerade",
        "web@node1",
        "10.244.0.2",
        INTERNET,
        80,
        "@stranger",
        "10.244.0.2",
        clause={"masquerade": None},
    ),
    Way("to another node", "web@node1", "10.244.0.2", "198.51.100.12", 81, "@node2", "198.51.100.11", takes_at=81),
    Way(
        "to another node that sees pods",
        "web@node1",
        "10.244.0.2",
        "198.51.100.12",
        81,
        "@node2",
        "10.244.0.2",
        takes_at=81,
        clause={"masquerade": {"nodes": False}},
    ),
    Way("to a pod of another node", "web@node1", "10.244.0.2", "10.244.1.3", 80, "db@node2", "10.244.0.2"),
    Way("to a pod of the node", "web@node1", "10.244.0.2", "10.244.0.3", 80, "db@node1", "10.244.0.2"),
    Way(
        "from elsewhere to a mapped port",
        "@stranger",
        "198.51.100.99",
        "198.51.100.12",
        8080,
        "web@node2",
        "198.51.100.99",
    ),
    Way(
        "from a pod of another node to a mapped port",
        "db@node1",
        "10.244.0.3",
        "198.51.100.12",
        8080,
        "web@node2",
        "198.51.100.11",
    ),
    Way(
        "from the node to a mapped port by loopback",
        "@node1",
        "127.0.0.1",
        "127.0.0.1",
        8080,
        "web@node1",
        "10.244.0.1",
    ),
    Way("to a port of loopback alone", "@node1", "127.0.0.1", "127.0.0.1", 8081, "db@node1", "10.244.0.1"),
    Way(
        "from the node to a mapped port by its address",
        "@node1",
        "198.51.100.11",
        "198.51.100.11",
        8080,
        "web@node1",
        "198.51.100.11",
    ),
    Way(
        "from a pod to its own mapped port", "web@node1", "10.244.0.2", "198.51.100.11", 8080, "web@node1", "10.244.0.1"
    ),
    Way("from the other pod to a mapped port", "db@node1", "10.244.0.3", "10.244.0.1", 8080, "web@node1", "10.244.0.1"),
    Way(
        "to a port of another node's loopback",
        "web@node1",
        "10.244.0.2",
        "198.51.100.12",
        8081,
        "@node2",
        "198.51.100.11",
        takes_at=8081,
    ),
]


@pytest.fixture(scope="module", params=["vxlan", "host-gw", pytest.param("ipip", marks=pytest.mark.ipip)])
def fleet(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, Host]]]:
    with overlay(request.param, firewall=wall, others=STRANGER) as hosts:
        hosts["stranger"].sh(f"ip addr add {INTERNET}/32 dev lo; ip route add 10.244.0.0/24 via 198.51.100.11")
        for name in ("node1", "node2"):
            hosts[name].sh(
                f"ip route add {INTERNET}/32 via 198.51.100.99; sysctl -qw net.ipv4.conf.cni0.route_localnet=1"
            )
        hosts["node1"].sh("ip addr add 198.51.100.111/24 dev eth1")
        yield request.param, hosts


def worth_it(backend: str, opens: str, target: str) -> None:
    """What has nothing to do with IPIP need not be tried on an emulated machine too."""
    host = opens.partition("@")[2]
    if backend == "ipip" and not (target.startswith("10.244.") and owner(target) != host):
        pytest.skip("nothing of the tunnel")


def inside(place: str) -> list[str]:
    namespace = place.partition("@")[0]
    return ["ip", "netns", "exec", namespace] if namespace else []


def connects(hosts: dict[str, Host], way: Way, sport: int) -> str:
    """As whose the connection is seen by who should take it; else nobody."""
    taker, opener = hosts[way.takes.partition("@")[2]], hosts[way.opens.partition("@")[2]]
    server = taker.popen(*inside(way.takes), "python3", "-c", SERVE, str(way.takes_at), "10")
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        said = opener.run(
            *inside(way.opens), "python3", "-c", CONNECT, way.source, way.target, str(way.port), str(sport)
        ).stdout.strip()
        if said != "answered":
            server.kill()
            return "nobody"
        return str(server.stdout.readline().strip())
    finally:
        server.kill()
        server.communicate()


def legs(hosts: dict[str, Host], backend: str, way: Way, sport: int) -> list[tuple[str, dict[str, Any]]]:
    """The walks of the first packet and of its answer: host after host, by what the one before has sent."""
    packet = {"src": way.source, "dst": way.target, "protocol": "tcp", "sport": sport, "dport": way.port}
    namespace, _at, name = way.opens.partition("@")
    asked: dict[str, list[dict[str, Any]]] = {}
    told: list[tuple[str, dict[str, Any]]] = []
    step = {"name": "request", "namespace": namespace, **packet}
    for _hop in range(4):
        if name == "stranger":  # sends and answers like anybody
            left = {**packet, "inner": None} if step["name"] == "request" else None
            if left is None:
                break
            name, step = owner(way.target), arrival("request", left)
            continue
        asked.setdefault(name, []).append(step)
        step["overlay"] = {"local": NODES[name]["public_ip"]}
        walked = hosts[name].module("walk", packets=asked[name])["walks"][step["name"]]
        told.append((name, walked))
        if walked["end"] == "left":
            left = walked["left"]["packet"]
            there = owner(left["dst"])
            if there == "stranger" and step["name"] == "request":
                told.append((there, {"end": "delivered", "packet": left}))
                step = {
                    **packet,
                    "name": "reply",
                    "answers": "request",
                    "reply": True,
                }  # src and so on come from the request
                continue
            if there == "stranger":
                break
            name, step = there, arrival(step["name"], left)
        elif walked["end"] == "delivered" and step["name"] == "request":
            step = {**packet, "name": "reply", "answers": "request", "reply": True}
        else:
            break
    return told


def arrival(name: str, left: dict[str, Any]) -> dict[str, Any]:
    inner = left.get("inner")
    packet = {key: (inner or left)[key] for key in ("src", "dst", "sport", "dport") if key in (inner or left)}
    outer = {key: left[key] for key in ("src", "dst")} if inner else None
    if outer:
        outer.update(
            {"protocol": "ipip"} if left["protocol"] == "ipip" else {"protocol": "vxlan", "port": 8472, "vni": 1}
        )
    return {"name": name, "arrives": True, "protocol": "tcp", "reply": name == "reply", "outer": outer, **packet}


def owner(address: str) -> str:
    if address.startswith("10.244."):
        return f"node{int(address.split('.')[2]) + 1}"
    return {"198.51.100.11": "node1", "198.51.100.111": "node1", "198.51.100.12": "node2"}.get(address, "stranger")


@pytest.mark.soak_on_ipip
@pytest.mark.parametrize("way", [pytest.param(way, id=way.name) for way in WAYS])
def test_a_connection_comes_to_whom_the_walk_says_and_as_whose(fleet: tuple[str, dict[str, Host]], way: Way) -> None:
    backend, hosts = fleet
    worth_it(backend, way.opens, way.target)
    changes = {"masquerade": {"nodes": True, "random_fully": True}}
    if "masquerade" in way.clause:
        changes["masquerade"] = way.clause["masquerade"] and {**changes["masquerade"], **way.clause["masquerade"]}
    converge(hosts, backend, firewall=lambda name: wall(name, **changes))
    sport = next(PORTS)
    told = legs(hosts, backend, way, sport)
    assert connects(hosts, way, sport) == way.seen
    assert [problem for _name, walked in told for hop in walked.get("hops", []) for problem in hop["problems"]] == []
    namespace, _at, host = way.takes.partition("@")
    reached = next(walked for name, walked in told if name == host and walked["end"] == "delivered")
    packet = reached.get("packet") or reached["hops"][-1]["packet"]
    assert (packet["src"], packet["dport"]) == (way.seen, way.takes_at)
    if host != "stranger":
        assert reached["hops"][-1]["namespace"] == namespace
    last = told[-1]
    if not way.opens.endswith("stranger"):
        assert (last[0], last[1]["end"]) == (way.opens.partition("@")[2], "delivered")
        assert last[1]["hops"][-1]["namespace"] == way.opens.partition("@")[0]
        final = last[1]["delivered"]["packet"]
        assert (final["src"], final["dst"]) == (way.target, way.source)


POLICY = [{"to": "frontend", "from": "backend", "protocol": "tcp", "ports": ["80"]}]
GROUPS = {"frontend": ["10.244.0.2", "10.244.1.2"], "backend": ["10.244.0.3"]}


def grouped(name: str) -> dict[str, Any]:
    """web in the group frontend; db of node1 in backend, which may come to it, and that of node2 in none."""
    number = int(name[-1]) - 1
    groups = {"web": "frontend", **({"db": "backend"} if number == 0 else {})}
    pods = [
        {
            "name": pod,
            "interface": f"veth-{pod}",
            "mac": mac(address),
            "address": address,
            **({"group": groups[pod]} if pod in groups else {}),
        }
        for pod, address in NODES[name]["pods"].items()
    ]
    return {"pods": pods, "policy": POLICY, "groups": GROUPS}


@pytest.mark.soak_on_ipip
@pytest.mark.parametrize("netfilter", ["0", "1"])
@pytest.mark.parametrize(
    ("opens", "source", "target", "port", "takes", "told"),
    [
        ("db@node1", "10.244.0.3", "10.244.0.2", 80, "web@node1", None),
        ("db@node1", "10.244.0.3", "10.244.0.2", 81, "web@node1", ("node1", "cni0", "isolated")),
        ("db@node1", "10.244.0.3", "10.244.1.2", 80, "web@node2", None),
        ("db@node2", "10.244.1.3", "10.244.1.2", 80, "web@node2", ("node2", "cni0", "isolated")),
        ("db@node2", "10.244.1.3", "10.244.0.2", 80, "web@node1", ("node1", "{arrival}", "isolated")),
        ("web@node1", "10.244.0.2", "10.244.1.2", 81, "web@node2", None),
        ("web@node1", "10.244.0.2", "10.244.1.3", 81, "db@node2", None),
        ("web@node2", "10.244.1.2", "10.244.1.3", 81, "db@node2", None),
        ("@node1", "10.244.0.1", "10.244.0.2", 81, "web@node1", None),
    ],
)
def test_what_isolated_pods_take_goes_by_the_stack_and_is_told(
    fleet: tuple[str, dict[str, Host]],
    netfilter: str,
    opens: str,
    source: str,
    target: str,
    port: int,
    takes: str,
    told: tuple[str, str, str] | None,
) -> None:
    backend, hosts = fleet
    worth_it(backend, opens, target)
    converge(hosts, backend, firewall=grouped)
    for name in ("node1", "node2"):
        hosts[name].sh(f"test ! -e {SWITCH} || echo {netfilter} >{SWITCH}")
    way = Way("", opens, source, target, port, takes, source, takes_at=port)
    sport = next(PORTS)
    walked = legs(hosts, backend, way, sport)
    assert connects(hosts, way, sport) == ("nobody" if told else source)
    found = [
        (name, hop["interface"], problem["fault"])
        for name, walk in walked
        for hop in walk["hops"]
        for problem in hop["problems"]
    ]
    arrival = TUNNELS[backend] or "eth1"
    assert found == ([(told[0], told[1].format(arrival=arrival), told[2])] if told else [])
    if not told:
        assert (walked[-1][0], walked[-1][1]["end"]) == (opens.partition("@")[2], "delivered")


NODES_SEE = {"masquerade": {"nodes": False}}
FIXED = {"masquerade": {"address": "198.51.100.111"}}


@pytest.mark.parametrize(
    ("source", "target", "port", "changes", "works", "says"),
    [
        ("web@node1", "db@node2", "", {}, True, ""),
        ("web@node1", "db@node2", "80", {}, True, "10.244.0.2 > 10.244.1.3.80: TCP"),
        ("web@node1", "198.51.100.12", "", {}, True, "masquerade: its source 10.244.0.2 becomes 198.51.100.11"),
        ("web@node1", "198.51.100.12", "", NODES_SEE, True, ""),
        ("web@node1", "198.51.100.12", "", FIXED, None, "goes on as 198.51.100.111 to 198.51.100.12, and how node2"),
        (
            "db@node1",
            "198.51.100.12",
            "8080/tcp",
            {},
            True,
            "destination 198.51.100.12 port 8080 becomes 10.244.1.2 port 80",
        ),
        ("db@node1", "198.51.100.12", "8080/tcp", NODES_SEE, True, "its source 10.244.1.2 becomes 198.51.100.12"),
        ("db@node1", "10.244.1.1", "8080/tcp", {}, True, "its source 10.244.1.2 becomes 10.244.1.1"),
        ("db@node1", "10.244.0.1", "8080/tcp", {}, True, "its source 10.244.0.3 becomes 10.244.0.1"),
        ("web@node1", "198.51.100.11", "8080/tcp", {}, True, "its source 10.244.0.2 becomes 10.244.0.1"),
        (
            "web@node1",
            INTERNET,
            "",
            {},
            None,
            "it leaves node1 by eth1 as 198.51.100.11, and what comes then is not known",
        ),
        ("web@node1", INTERNET, "443", FIXED, None, "it leaves node1 by eth1 as 198.51.100.111"),
        ("web@node1", INTERNET, "", {"masquerade": None}, None, "it leaves node1 by eth1 as 10.244.0.2"),
    ],
)
def test_a_trace_tells_who_is_translated_and_whether_it_works(
    fleet: tuple[str, dict[str, Host]],
    source: str,
    target: str,
    port: str,
    changes: dict[str, Any],
    works: bool | None,
    says: str,
) -> None:
    backend, hosts = fleet
    worth_it(backend, source, "10.244.1.3" if target == "db@node2" else target)
    default = {"masquerade": {"nodes": True, "random_fully": True}}
    converge(hosts, backend, firewall=lambda name: wall(name, **{**default, **changes}))
    path = flow(source, target, NODES, settings(backend), port=port)
    walks = {name: hosts[name].module("walk", packets=path["packets"][name])["walks"] for name in path["nodes"]}
    trace = _trace.join(path, walks, {})
    text = render(trace)
    assert trace.works is works, text
    assert says in text
    assert trace.legs[-1].end == ("translated" if "goes on as" in says else "delivered")
    if not port:
        pinged = hosts["node1"].run("ip", "netns", "exec", "web", "ping", "-c", "1", "-W", "1", path["destination"])
        assert "1 received" in pinged.stdout
