"""playbooks/trace.yml: a sound path explained and seen, broken ones told where they break, and nothing left behind."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from string import Template

import pytest

TUNNELS = {"ipip": "flannel.ipip", "vxlan": "flannel.1"}
MTUS = {"ipip": 1480, "vxlan": 1450}
# Bytes of an 84 byte packet in the tunnel device and on the underlay; 98 everywhere else.
FRAMES = {"ipip": (84, 118), "vxlan": (98, 148)}

# What a trace, or a fault below, could leave on a host besides what Node.state() shows.
REMAINS = """
pgrep -a python
find /run/podnet* /tmp
iptables-legacy-save | grep ^-A
for pod in '' $(ls /run/netns); do
    ${pod:+ip netns exec $pod} sh -c 'nft --stateless list ruleset; awk "NR > 1 {print \\$4, \\$5}" /proc/net/packet'
done
true
"""


@pytest.fixture(scope="module")
def backend(lab):
    return lab["backend"]


@pytest.fixture(scope="module", autouse=True)
def unwatched(nodes):
    """The watcher would mend what is broken here before it can be traced."""

    def on_all(words):
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(lambda node: node.host.check_output(f"systemctl {words} podnet-overlay-watch"), nodes.values())
            )

    on_all("stop")
    yield
    on_all("start")


@pytest.fixture(scope="module")
def trace(playbook):
    """Traces from a pod to another as data; returns that, and the exit code."""

    def run(*arguments, source="web@node1", target="db@node2"):
        done = playbook("trace", "-e", f"from={source}", "-e", f"to={target}", "-e", "output=json", *arguments)
        told = re.search(r"^\{$.*?^\}$", done.stdout, re.DOTALL | re.MULTILINE)
        assert told, done.stdout + done.stderr
        return json.loads(told[0]), done.returncode

    return run


@pytest.fixture(scope="module")
def before(nodes):
    return left_on(nodes)


def left_on(nodes):
    """All that a trace or a fault could leave, on each host."""

    def look(node):
        return sorted(node.state() + node.host.check_output(REMAINS).splitlines())

    with ThreadPoolExecutor() as pool:
        return dict(zip(nodes, pool.map(look, nodes.values())))


# ------------------------------------------------------------------------------------------------ a sound path


def expected(backend, first, source, last, target):
    """Host, place, bytes and TTL at each hop: the seed's numbers."""
    tunnel, (inner, outer) = TUNNELS[backend], FRAMES[backend]
    return [
        (first, f"{source}/eth0", 98, 64),
        (first, f"veth-{source}", 98, 64),
        (first, "cni0", 98, 64),
        (first, tunnel, inner, 63),
        (first, "eth1", outer, 63),
        (last, "eth1", outer, 63),
        (last, tunnel, inner, 63),
        (last, "cni0", 98, 62),
        (last, f"veth-{target}", 98, 62),
        (last, f"{target}/eth0", 98, 62),
    ]


def place(hop):
    return "/".join(filter(None, (hop["namespace"], hop["interface"])))


def innermost(packet):
    return innermost(packet["inner"]) if packet["inner"] else packet


def frames(path):
    """What tcpdump finds in a capture file: of each echo its kind, the frame's bytes, and the innermost TTL."""
    read = ["tcpdump", "-Z", "root", "-nevr", str(path)]
    text = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    found = set()
    for frame in re.split(r"^(?=\d+:\d+:\d+\.)", text, flags=re.MULTILINE):
        echo = re.search(r"ICMP echo (request|reply)", frame)
        if echo:
            length = int(re.search(r"length (\d+)", frame)[1])
            found.add((echo[1], length, int(re.findall(r"ttl (\d+)", frame)[-1])))
    return found


def test_a_sound_path_is_explained_and_seen_alike(trace, backend, nodes, before, tmp_path):
    told, code = trace("-e", "capture=true", "-e", f"dest={tmp_path}", "--forks", "1")

    assert (told["works"], code) == (True, 0), told["verdict"]
    assert told["probe"]["received"] == told["probe"]["sent"] == 3
    ways = {"request": ("node1", "web", "node2", "db"), "reply": ("node2", "db", "node1", "web")}
    for leg, way in ways.items():
        hops = told["legs"][leg]["hops"]
        wanted = expected(backend, *way)
        assert [(h["node"], place(h), h["length"], innermost(h["packet"])["ttl"]) for h in hops] == wanted
        assert [(h["node"], place(h), h["seen"]["length"], h["seen"]["ttl"]) for h in hops] == wanted
        for host, where, length, ttl in wanted:
            file = tmp_path / f"{host}-{where.replace('/', '-')}.pcap"
            assert (leg, length, ttl) in frames(file), file.name
    assert sorted(told["pcaps"]) == sorted(map(str, tmp_path.iterdir()))
    assert left_on(nodes) == before


# ------------------------------------------------------------------------------------------------ broken paths


@dataclass(frozen=True)
class Fault:
    """What breaks a path on a host, and what is told: leg, host, place and fault, words of the reason and of the remedy.

    The remedy told mends it, or else ``mends`` does. The commands know $tunnel, $mtu, $public_ip, and $route, which is
    the overlay's to $other, the other node's subnet.
    """

    name: str
    node: str
    breaks: str
    told: str
    reason: str
    remedy: str
    mends: str = ""
    passes: bool = False
    size: int = 84
    backends: tuple[str, ...] = ("ipip", "vxlan")


AGAIN = "run overlay.yml again"
FORWARDING = "sysctl -w net.ipv4.ip_forward={}"
FAULTS = [
    Fault(
        "no route",
        "node1",
        "ip route del $other",
        "request node1 cni0 no_route",
        "the route of the overlay is missing",
        AGAIN,
        "ip route add $route",
    ),
    Fault(
        "wrong gateway",
        "node2",
        "ip route replace $other via 198.51.100.99 dev $tunnel onlink proto 244",
        "reply node2 cni0 wrong_gateway",
        "via 198.51.100.99",
        AGAIN,
        "ip route replace $route",
    ),
    Fault(
        "tunnel down",
        "node1",
        "ip link set $tunnel down",
        "request node1 cni0 tunnel_down",
        "the tunnel $tunnel is down, and its routes went with it",
        AGAIN,
    ),
    Fault(
        "tunnel missing",
        "node2",
        "ip link del $tunnel",
        "request node2 eth1 tunnel_missing",
        "there is no $backend device",
        AGAIN,
    ),
    Fault(
        "wrong local address",
        "node1",
        "ip link set $tunnel type ipip local 198.51.100.77",
        "request node1 $tunnel wrong_local",
        "sends as 198.51.100.77, which is no address of this host",
        "ip link set $tunnel type ipip local $public_ip",
        backends=("ipip",),
    ),
    Fault(
        "forwarding off at the first node",
        "node1",
        FORWARDING.format(0),
        "request node1 cni0 forwarding_off",
        "net.ipv4.ip_forward is 0",
        FORWARDING.format(1),
    ),
    Fault(
        "forwarding off at the far node",
        "node2",
        FORWARDING.format(0),
        "request node2 $tunnel forwarding_off",
        "net.ipv4.ip_forward is 0",
        FORWARDING.format(1),
    ),
    Fault(
        "strict rp_filter",
        "node2",
        "sysctl -w net.ipv4.conf.all.rp_filter=1; ip route replace $other dev cni0",
        "request node2 $tunnel rp_filter",
        "the way back to it goes by cni0, and not by $tunnel",
        "put the route back to 10.244.0.2 right",
        "sysctl -w net.ipv4.conf.all.rp_filter=0; ip route replace $route",
    ),
    Fault(
        "DROP in FORWARD by iptables",
        "node1",
        "iptables-nft -P FORWARD DROP",
        "request node1 cni0 filtered",
        "-P FORWARD DROP",
        "in the configuration of whoever wrote it",
        "nft delete table ip filter",
    ),
    Fault(
        "DROP in FORWARD by legacy iptables",
        "node2",
        "iptables-legacy -A FORWARD -d 10.244.1.0/24 -j DROP",
        "request node2 $tunnel filtered",
        "-A FORWARD -d 10.244.1.0/24 -j DROP",
        "in the configuration of whoever wrote it",
        "iptables-legacy -D FORWARD -d 10.244.1.0/24 -j DROP",
    ),
    Fault(
        "DROP in FORWARD by nft",
        "node2",
        "nft 'table inet foreign { chain c { type filter hook forward priority 0; ip daddr 10.244.0.2 drop; }; }'",
        "reply node2 cni0 filtered",
        "table inet foreign chain c drops it at forward: ip daddr 10.244.0.2 drop",
        "in the configuration of whoever wrote it",
        "nft delete table inet foreign",
    ),
    Fault(
        "MTU too large with DF",
        "node1",
        "for dev in veth-web cni0; do ip link set $dev mtu 1500; done; ip -n web link set eth0 mtu 1500",
        "request node1 $tunnel mtu",
        "has 1500 bytes and DF, and $tunnel takes $mtu",
        "lower the MTU of whoever sends it to $mtu",
        "for dev in veth-web cni0; do ip link set $dev mtu $mtu; done; ip -n web link set eth0 mtu $mtu",
        size=1500,
    ),
    Fault(
        "pod interface down",
        "node1",
        "ip -n web link set eth0 down",
        "request node1 web/eth0 interface_down",
        "eth0 of web is down",
        AGAIN,
        "ip -n web link set eth0 up; for to in default 10.244.0.0/16; do ip -n web route add $to via 10.244.0.1 proto 244; done",
    ),
    Fault(
        "bridge port missing",
        "node2",
        "ip link set veth-db nomaster",
        "request node2 cni0 bridge_port_missing",
        "veth-db, behind which eth0 of db has 10.244.1.3, is no port of cni0",
        "ip link set veth-db master cni0",
        "ip link set veth-db master cni0; bridge link set dev veth-db hairpin on",
    ),
    Fault(
        "duplicate pod address",
        "node2",
        "ip netns add other; ip link add veth-other type veth peer name eth0 netns other;"
        "ip link set veth-other master cni0 up; ip -n other link set eth0 up; ip -n other addr add 10.244.1.3/24 dev eth0",
        "request node2 cni0 duplicate_address",
        "10.244.1.3 is held by eth0 of db and eth0 of other",
        "take the address from all but one",
        "ip netns del other",
        passes=True,
    ),
    Fault(
        "stale neighbour",
        "node2",
        "ip neigh replace 10.244.1.3 lladdr 02:00:00:00:00:99 dev cni0 nud permanent",
        "request node2 cni0 stale_neighbour",
        "10.244.1.3 is at 02:00:00:00:00:99",
        "ip neigh flush to 10.244.1.3 dev cni0 nud permanent",
    ),
]


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in FAULTS])
def test_a_broken_path_is_told_where_it_breaks(trace, play, nodes, backend, fault):
    if backend not in fault.backends:
        pytest.skip(f"nothing that {backend} has")
    node = nodes[fault.node]
    words = surroundings(nodes, backend, fault.node)
    told_at, why, remedy = (filled(text, words) for text in (fault.told, fault.reason, fault.remedy))
    node.host.check_output(filled(fault.breaks, words))
    try:
        with ThreadPoolExecutor() as pool:
            answered = pool.submit(pinged, nodes, fault.size)
            told, code = trace("-e", f"size={fault.size}")
    finally:
        if fault.remedy == AGAIN and not fault.mends:
            play("overlay", "--limit", fault.node)
        else:
            node.host.check_output(filled(fault.mends or fault.remedy, words))

    assert answered.result() == fault.passes
    fatal = [problem for problem in told["problems"] if problem["fatal"]]
    assert len(fatal) == 1, told["verdict"]
    (problem,) = fatal
    assert "{leg} {node} {where} {fault}".format(**problem) == told_at
    assert why in problem["reason"]
    assert remedy in problem["remedy"]
    assert (told["works"], code) == (False, 2)
    assert pinged(nodes, wait=5), "it is not mended"


def surroundings(nodes, backend, name):
    """What the words of a fault on this host mean."""
    other = {"node1": "node2", "node2": "node1"}[name]
    subnet = {"node1": "10.244.0.0", "node2": "10.244.1.0"}[other]
    tunnel = TUNNELS[backend]
    gateway = nodes[other].public_ip if backend == "ipip" else subnet
    return {
        "backend": backend,
        "tunnel": tunnel,
        "mtu": str(MTUS[backend]),
        "public_ip": nodes[name].public_ip,
        "other": f"{subnet}/24",
        "route": f"{subnet}/24 via {gateway} dev {tunnel} onlink proto 244",
    }


def filled(text, words):
    return Template(text).safe_substitute(words)


def pinged(nodes, size=84, wait=1):
    """Whether node2's pod answers node1's."""
    ping = f"ip netns exec web ping -n -q -c 1 -w {wait} -M do -s {size - 28} 10.244.1.3"
    return nodes["node1"].run(ping).rc == 0


# ------------------------------------------------------------------------------------------------ broken between hosts


@pytest.fixture
def detour(nodes):
    """What node1 sends to node2 passes node3, which can be told what to drop of it, as nft says it."""
    there = nodes["node2"].public_ip
    quiet = "sysctl -w net.ipv4.conf.all.send_redirects={0} net.ipv4.conf.eth1.send_redirects={0}"
    chain = "table inet foreign { chain c { type filter hook forward priority 0; ip daddr %s %s drop; }; }"
    nodes["node3"].host.check_output(quiet.format(0))
    nodes["node1"].host.check_output("ip route add %s via %s", there, nodes["node3"].public_ip)
    try:
        yield lambda what: nodes["node3"].host.check_output("nft %s", chain % (there, what))
    finally:
        nodes["node1"].run("ip route del %s", there)
        nodes["node3"].run("nft delete table inet foreign; " + quiet.format(1))


def test_a_tunnel_filtered_between_hosts_is_told_by_what_was_seen(playbook, backend, detour, tmp_path):
    detour({"ipip": "ip protocol 4", "vxlan": "udp dport 8472"}[backend])

    options = ("from=web@node1", "to=db@node2", "capture=true", f"dest={tmp_path}")
    done = playbook("trace", *(word for option in options for word in ("-e", option)))

    what = {"ipip": "IP protocol 4", "vxlan": "UDP port 8472"}[backend]
    assert done.returncode == 2, done.stdout + done.stderr
    wanted = (
        "     *** lost between hosts\n",
        f"a ping between the public addresses is answered; {what} is filtered on the way",
        f"must let {what} pass",
    )
    assert [text for text in wanted if text not in done.stdout] == []
    request, _, beyond = done.stdout.partition("request on node1\n")[2].partition("request on node2\n")
    assert [len(re.findall(r"^     seen +\d", part, re.MULTILINE)) for part in (request, beyond)] == [5, 0]
    assert beyond.count("not here") == 5


# ------------------------------------------------------------------------------------------------ bad input


def test_ends_that_are_not_there_are_named(playbook):
    mistakes = ["node node1 has no pod cache; its pods are db, web", "there is no node node9"]
    done = playbook("trace", "-e", "from=cache@node1", "-e", "to=db@node9", "-e", "capture=true")

    assert done.returncode != 0
    assert [mistake for mistake in mistakes if mistake not in done.stdout] == []


def test_a_host_that_does_not_answer_leaves_no_capture_on_the_other(trace, nodes, before, tmp_path):
    deaf = tmp_path / "deaf.yml"
    deaf.write_text("all: {hosts: {node2: {ansible_port: 1}}}")

    told, code = trace("-i", str(deaf), "-e", "capture=true", "-e", f"dest={tmp_path}")

    assert code != 0
    assert list(told["silent"]) == ["node2"]
    assert told["silent"]["node2"].startswith("unreachable")
    assert [hop["seen"]["length"] for hop in told["legs"]["request"]["hops"]][:3] == [98] * 3
    # Of this, and of all that was broken above.
    assert left_on(nodes) == before
