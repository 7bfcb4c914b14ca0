"""capture against the kernel: pods on two nodes, a tunnel between them, rules, and a recorder that is treated badly."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _recorder

from tests.kernel.hosts import CHECKOUT, MODULES, Host

WEB, DB, NEAR, FAR = "10.244.0.2", "10.244.1.2", "198.51.100.11", "198.51.100.12"
MAC, OTHER = "0a5800000001", "0a5800000002"
WIRE = {"namespace": "wire", "interface": "eth1"}
CHOSEN: dict[str, Any] = {"addresses": [WEB, DB], "underlay": [NEAR, FAR]}


@pytest.fixture
def pods(underlay: Host) -> Host:
    """The pod web behind the bridge cni0, and db on the node wire; nothing between the nodes yet."""
    underlay.sh(
        "ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0; ip link set cni0 up;"
        "ip netns add web; ip link add veth-web type veth peer name eth0 netns web; ip link set veth-web master cni0 up;"
        f"ip -n web addr add {WEB}/24 dev eth0; ip -n web link set eth0 up; ip -n web route add default via 10.244.0.1;"
        "ip netns add db; ip -n wire link add veth-db type veth peer name eth0 netns db; ip -n wire link set veth-db up;"
        "ip -n wire addr add 10.244.1.1/24 dev veth-db; ip -n db addr add 10.244.1.2/24 dev eth0;"
        "ip -n db link set eth0 up; ip -n db route add default via 10.244.1.1;"
        "echo 1 > /proc/sys/net/ipv4/ip_forward; ip netns exec wire sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"
    )
    return underlay


@pytest.fixture
def direct(pods: Host) -> Host:
    """Routes and no tunnel."""
    pods.sh(f"ip route add 10.244.1.0/24 via {FAR}; ip -n wire route add 10.244.0.0/24 via {NEAR}")
    return pods


def start(host: Host, *points: dict[str, str], **options: Any) -> dict[str, Any]:
    return host.module("capture", state="started", points=list(points), **{**CHOSEN, **options})


def stop(host: Host, **options: Any) -> dict[str, Any]:
    return host.module("capture", state="stopped", **options)


def ping(host: Host, namespace: str = "web", address: str = DB, **options: Any) -> dict[str, Any]:
    probes = [{"namespace": namespace, "targets": [address]}]
    path: dict[str, Any] = host.module("ping", probes=probes, count=1, **{"timeout": 1, **options})["paths"][0]
    return path


def remains(host: Host, *namespaces: str) -> list[str]:
    """What a capture could leave behind."""
    tables = [
        host.run(f"{enter}nft list tables").stdout for enter in ("", *(f"ip netns exec {n} " for n in namespaces))
    ]
    files = host.run("ls /run").stdout.split()
    return [line for table in tables for line in table.splitlines() if "podnet" in line] + [
        file for file in files if "podnet" in file
    ]


def recorder(host: Host) -> int:
    """The process id of the recorder: it is who listens."""
    line = host.run("ss -xlpH src /run/podnet-overlay-capture.trace").stdout
    return int(line.split("pid=")[1].split(",")[0])


def send(host: Host, *frames: str) -> None:
    """Send frames, in hexadecimal, out of the host's eth1."""
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('eth1', 0))\n"
        "for line in sys.argv[1:]: s.send(bytes.fromhex(line))"
    )
    host.run(sys.executable, "-c", script, *frames)


def lengths(answer: dict[str, Any], kind: bytes) -> dict[str, tuple[str, str, int, int]]:
    """By point, of its first frame with an echo of this KIND (8 request, 0 reply): link, direction, length, TTL."""
    found: dict[str, tuple[str, str, int, int]] = {}
    for frame in answer["frames"]:
        data = base64.b64decode(frame["data"])
        packet = data[14:] if frame["link"] == "ethernet" else data
        echo = packet[20:] if packet[9] == 1 else packet[40:] if packet[9] == 4 else packet[70:]
        if packet[:1] == b"\x45" and echo[:1] == kind:
            point = f"{frame['namespace']}/{frame['interface']}"
            found.setdefault(point, (frame["link"], frame["direction"], frame["length"], packet[8]))
    return found


POINTS = (
    {"namespace": "web", "interface": "eth0"},
    {"interface": "veth-web"},
    {"interface": "cni0"},
    {"interface": "tunnel"},
    {"interface": "eth1"},
    WIRE,
    {"namespace": "wire", "interface": "tunnel"},
    {"namespace": "wire", "interface": "veth-db"},
    {"namespace": "db", "interface": "eth0"},
)


def test_a_packet_over_vxlan_is_seen_at_every_point_both_ways(pods: Host) -> None:
    for enter, local, far, subnet, mac in (
        ("", NEAR, FAR, "10.244.1", MAC),
        ("-n wire ", FAR, NEAR, "10.244.0", OTHER),
    ):
        mine, its = (":".join(m[i : i + 2] for i in range(0, 12, 2)) for m in (mac, OTHER if mac == MAC else MAC))
        pods.sh(
            f"ip {enter}link add tunnel address {mine} type vxlan id 1 local {local} dev eth1 dstport 8472 nolearning;"
            f"ip {enter}link set tunnel up; ip {enter}route add {subnet}.0/24 via {subnet}.0 dev tunnel onlink;"
            f"ip {enter}neigh add {subnet}.0 lladdr {its} dev tunnel; bridge {enter}fdb add {its} dev tunnel dst {far}"
        )
    start(pods, *POINTS)
    path = ping(pods)
    answer = stop(pods)
    assert path["received"] == 1
    assert lengths(answer, b"\x08") == {
        "web/eth0": ("ethernet", "out", 98, 64),
        "/veth-web": ("ethernet", "in", 98, 64),
        "/cni0": ("ethernet", "in", 98, 64),
        "/tunnel": ("ethernet", "out", 98, 63),
        "/eth1": ("ethernet", "out", 148, 64),
        "wire/eth1": ("ethernet", "in", 148, 64),
        "wire/tunnel": ("ethernet", "in", 98, 63),
        "wire/veth-db": ("ethernet", "out", 98, 62),
        "db/eth0": ("ethernet", "in", 98, 62),
    }
    assert lengths(answer, b"\x00").keys() == lengths(answer, b"\x08").keys()
    assert answer["lost"] == 0
    assert [frame["time"] for frame in answer["frames"]] == sorted(frame["time"] for frame in answer["frames"])
    assert abs(answer["frames"][0]["time"] - time.time()) < 60
    assert remains(pods, "wire", "web", "db") == []

    frames = pytest.importorskip("ansible_collections.podnet.overlay.plugins.module_utils._frames")
    pytest.importorskip("scapy")
    decoded = [frames.decode(frame) for frame in answer["frames"]]
    (outer,) = (d for d in decoded if d["interface"] == "eth1" and not d["namespace"] and "echo request" in d["text"])
    assert [ip["ttl"] for ip in outer["ip"]] == [64, 63]
    assert (outer["udp"]["vni"], outer["icmp"]["id"], outer["icmp"]["seq"]) == (1, path["identifier"], 1)
    assert {d["icmp"]["id"] for d in decoded if d["icmp"]} == {path["identifier"]}
    assert f"Request who-has 10.244.0.1 tell {WEB}, length 28" in " ".join(d["text"] for d in decoded)


@pytest.mark.ipip
def test_a_packet_over_ipip_has_the_seeds_lengths(pods: Host) -> None:
    for enter, local, far, subnet in (("", NEAR, FAR, "10.244.1"), ("-n wire ", FAR, NEAR, "10.244.0")):
        pods.sh(
            f"ip {enter}link add tunnel type ipip local {local} ttl inherit nopmtudisc; ip {enter}link set tunnel up;"
            f"ip {enter}route add {subnet}.0/24 via {far} dev tunnel onlink"
        )
    start(pods, *POINTS)
    assert ping(pods)["received"] == 1
    answer = stop(pods)
    assert lengths(answer, b"\x08") == {
        "web/eth0": ("ethernet", "out", 98, 64),
        "/veth-web": ("ethernet", "in", 98, 64),
        "/cni0": ("ethernet", "in", 98, 64),
        "/tunnel": ("raw", "out", 84, 63),
        "/eth1": ("ethernet", "out", 118, 63),
        "wire/eth1": ("ethernet", "in", 118, 63),
        "wire/tunnel": ("raw", "in", 84, 63),
        "wire/veth-db": ("ethernet", "out", 98, 62),
        "db/eth0": ("ethernet", "in", 98, 62),
    }
    assert {v["inner"]["dst"] for v in answer["verdicts"] if v["inner"]} <= {WEB, DB}


def ip(source: str, destination: str, protocol: int, payload: str, options: str = "") -> str:
    """An IPv4 packet in hexadecimal."""
    size = 20 + len(options + payload) // 2
    ends = "".join(f"{int(part):02x}" for part in f"{source}.{destination}".split("."))
    return f"4{5 + len(options) // 8}00{size:04x}000000003f{protocol:02x}0000{ends}{options}{payload}"


def ether(packet: str, kind: str = "0800") -> str:
    return f"ffffffffffff{MAC}{kind}{packet}"


ECHO, ERROR, NOOPS = "0800000000010001", "0b00000000000000", "01010101"
ELSEWHERE, STRANGER = "10.244.9.9", "203.0.113.5"
TOLD = "0001080006040001" + MAC + "{}" + "000000000000" + "{}"


def vxlan(frame: str) -> str:
    return f"9c4021180000000008000000000001{'00'}{frame}"


def arp(sender: str, target: str) -> str:
    words = ("".join(f"{int(part):02x}" for part in address.split(".")) for address in (sender, target))
    return ether(TOLD.format(*words), "0806")


OURS = {
    "echo": ether(ip(WEB, DB, 1, ECHO)),
    "echo from a masquerading node": ether(ip(NEAR, DB, 1, ECHO)),
    "fragment": ether(ip(WEB, DB, 1, "00" * 8)),
    "error of a router to a pod": ether(ip(STRANGER, WEB, 1, ERROR)),
    "ping between nodes": ether(ip(NEAR, FAR, 1, ECHO)),
    "error of a router to a node": ether(ip(STRANGER, NEAR, 1, ERROR)),
    "ipip": ether(ip(NEAR, FAR, 4, ip(WEB, DB, 1, ECHO))),
    "ipip of a wrong sender, with IP options": ether(ip(STRANGER, FAR, 4, ip(WEB, DB, 1, ECHO), NOOPS)),
    "vxlan": ether(ip(NEAR, FAR, 17, vxlan(ether(ip(DB, WEB, 1, ECHO))))),
    "who-has a pod": arp("10.244.0.1", WEB),
    "who-has a gateway": arp(WEB, "10.244.0.1"),
    "who-has a node": arp(NEAR, FAR),
}
FOREIGN = {
    "another pod's echo": ether(ip(ELSEWHERE, STRANGER, 1, ECHO)),
    "tcp of ours": ether(ip(WEB, DB, 6, "00" * 20)),
    "a stranger's ping of a node": ether(ip(STRANGER, NEAR, 1, ECHO)),
    "another pod's ipip": ether(ip(NEAR, FAR, 4, ip(ELSEWHERE, STRANGER, 1, ECHO))),
    "tcp in ipip": ether(ip(NEAR, FAR, 4, ip(WEB, DB, 6, "00" * 20))),
    "another pod's vxlan": ether(ip(NEAR, FAR, 17, vxlan(ether(ip(ELSEWHERE, STRANGER, 1, ECHO))))),
    "no vxlan": ether(ip(NEAR, FAR, 17, "9c40003500000000" + "00" * 8)),
    "a short datagram": ether(ip(NEAR, FAR, 17, "9c40003500000000")),
    "a broken tunnel packet": ether(ip(NEAR, FAR, 4, "45")),
    "who-has a stranger": arp(ELSEWHERE, STRANGER),
    "IPv6": ether("60" + "00" * 39, "86dd"),
}


def test_the_kernel_takes_what_is_ours_and_nothing_else(underlay: Host) -> None:
    start(underlay, WIRE)
    send(underlay, *FOREIGN.values(), *OURS.values())
    taken = [base64.b64decode(frame["data"]).hex() for frame in stop(underlay)["frames"]]
    names = {frame: name for name, frame in (*OURS.items(), *FOREIGN.items())}
    told = [names[frame] for frame in taken if frame in names]  # the kernel answers some of them
    assert told == list(OURS)


def test_any_protocol_between_the_addresses_on_request(underlay: Host) -> None:
    start(underlay, WIRE, protocol="any")
    plain, tunnelled = FOREIGN["tcp of ours"], FOREIGN["tcp in ipip"]
    send(underlay, FOREIGN["a short datagram"], plain, tunnelled, ether(ip(WEB, STRANGER, 6, "00" * 20)))
    assert [base64.b64decode(frame["data"]).hex() for frame in stop(underlay)["frames"]] == [plain, tunnelled]


def test_a_busy_link_loses_none_of_ours(direct: Host) -> None:
    start(direct, WIRE, {"interface": "eth1"}, limit=10)
    # Two floods of what the filter leaves out, while the probe runs.
    direct.sh("ip addr add 192.0.2.1/24 dev eth1; ip -n wire addr add 192.0.2.2/24 dev eth1")
    flood = direct.popen("ping", "-q", "-f", "-c", "5000", "-s", "1000", "192.0.2.2")
    received = [ping(direct)["received"] for _ in range(2)]
    out, _err = flood.communicate(timeout=60)
    answer = stop(direct)
    assert " 5000 received" in out
    assert received == [1, 1]
    assert answer["lost"] == 0
    assert len([f for f in answer["frames"] if f["length"] == 98]) == 8  # two probes, there and back, two points


def test_the_limits_are_kept_and_what_is_lost_is_counted(underlay: Host) -> None:
    start(underlay, WIRE, limit=3, snap=64)
    send(underlay, *[ether(ip(WEB, DB, 1, ECHO + "00" * 200))] * 5)
    answer = stop(underlay)
    assert [(f["length"], len(base64.b64decode(f["data"]))) for f in answer["frames"]] == [(242, 64)] * 3
    assert answer["lost"] == 2


def test_a_segment_that_gives_a_machine_its_own_frames_back_does_not_double_them(underlay: Host) -> None:
    mac = underlay.json("ip -j -n wire link show dev eth1")[0]["address"].replace(":", "")
    start(underlay, WIRE)
    send(underlay, f"{MAC}{mac}{OURS['echo'][24:]}", OURS["echo"])
    assert [base64.b64decode(f["data"]).hex() for f in stop(underlay)["frames"]] == [OURS["echo"]]


def test_loopback_shows_a_packet_once(host: Host) -> None:
    start(host, {"interface": "lo"}, addresses=["127.0.0.1"])
    ping(host, "", "127.0.0.1")
    assert lengths(stop(host), b"\x08") == {"/lo": ("ethernet", "in", 98, 64)}


def test_an_interface_that_is_down_is_heard_when_it_comes_up(direct: Host) -> None:
    direct.sh("ip link set veth-web down")
    start(direct, {"interface": "veth-web"}, {"interface": "eth1"})
    assert ping(direct, timeout=0.2)["received"] == 0
    direct.sh("ip link set veth-web up")
    time.sleep(0.1)
    assert ping(direct, timeout=3)["received"] == 1
    assert set(lengths(stop(direct), b"\x08")) == {"/veth-web", "/eth1"}


def test_an_interface_or_namespace_that_goes_away_does_not_end_the_capture(direct: Host) -> None:
    start(direct, {"interface": "veth-web"}, {"namespace": "web", "interface": "eth0"}, {"interface": "eth1"})
    assert ping(direct)["received"] == 1
    direct.sh("ip link del veth-web; ip netns del web")
    send(direct, OURS["ping between nodes"])
    points = [(f["namespace"], f["interface"]) for f in stop(direct)["frames"]]
    assert set(points) == {("", "veth-web"), ("web", "eth0"), ("", "eth1")}


def decided(answer: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(verdict[name] for name in names) for verdict in answer["verdicts"]]


def test_a_drop_is_seen_with_its_rule(direct: Host) -> None:
    direct.sh(
        "nft -f - <<'END'\ntable inet t {\n set s { type ipv4_addr; elements = { 10.244.1.2 }; }\n"
        ' chain other { ip protocol icmp counter packets 7 bytes 9 drop comment "no way"\n }\n'
        ' chain f { type filter hook forward priority 0\n iifname "cni0" ip daddr @s jump other\n }\n}\nEND'
    )
    start(direct, {"interface": "eth1"})
    path = ping(direct, timeout=0.2)
    answer = stop(direct)
    assert decided(answer, "hook", "table", "chain", "verdict", "text") == [
        ("forward", "t", "f", "jump", 'iifname "cni0" ip daddr @s jump other'),
        ("forward", "t", "other", "drop", 'ip protocol 1 counter drop comment "no way"'),
    ]
    drop = answer["verdicts"][1]
    assert (drop["iif"], drop["oif"], drop["src"], drop["dst"], drop["ttl"]) == ("cni0", "eth1", WEB, DB, 63)
    assert drop["icmp"] == {"type": 8, "code": 0, "id": path["identifier"], "seq": 1}
    assert answer["frames"] == [] or all(frame["length"] == 42 for frame in answer["frames"])
    listed = direct.json("nft -j -a list ruleset")["nftables"]
    assert drop["handle"] in [item["rule"]["handle"] for item in listed if "rule" in item]


def test_comments_of_rules_may_be_any_bytes(direct: Host) -> None:
    chain = r"chain f { type filter hook forward priority 0\n counter drop comment \042\377\ntable\042\n }"
    direct.sh(rf"printf 'table ip t {{\n{chain}\n}}\n' | nft -f -")
    start(direct, {"interface": "eth1"})
    ping(direct, timeout=0.2)
    assert decided(stop(direct), "verdict", "text") == [("drop", 'counter drop comment "\ufffd\ntable"')]


def test_a_policy_is_seen_in_each_namespace_of_the_points(direct: Host) -> None:
    direct.sh(
        "ip netns exec wire nft 'add table ip t'; "
        "ip netns exec wire nft 'add chain ip t f { type filter hook forward priority 0; policy drop; }'"
    )
    start(direct, {"interface": "eth1"}, WIRE)
    ping(direct, timeout=0.2)
    found = decided(stop(direct), "namespace", "family", "hook", "handle", "verdict", "text")
    assert found == [("wire", "ip", "forward", None, "drop", "policy drop")]


def test_a_bridges_own_rules_are_seen(direct: Host) -> None:
    direct.sh("nft add table bridge t; nft 'add chain bridge t i { type filter hook input priority 0; }'")
    direct.sh("nft add rule bridge t i ether type ip drop")
    start(direct, {"interface": "cni0"})
    ping(direct, timeout=0.2)
    assert ("bridge", "input", "drop", "veth-web") in decided(stop(direct), "family", "hook", "verdict", "iif")


def test_other_packets_are_not_traced(direct: Host) -> None:
    direct.sh("nft add table ip t; nft 'add chain ip t i { type filter hook input priority 0; }'")
    start(direct, {"interface": "eth1"}, addresses=[ELSEWHERE], underlay=[])
    assert ping(direct)["received"] == 1
    answer = stop(direct)
    assert (answer["frames"], answer["verdicts"]) == ([], [])


def test_a_killed_recorder_leaves_a_socket_that_the_next_start_clears(direct: Host) -> None:
    start(direct, {"interface": "eth1"}, WIRE)
    assert len(remains(direct, "wire")) == 5  # a table of two families in two namespaces, and the socket
    direct.run(f"kill -9 {recorder(direct)}")
    time.sleep(0.2)
    assert remains(direct, "wire") == ["podnet-overlay-capture.trace"]
    start(direct, {"interface": "eth1"})
    assert ping(direct)["received"] == 1
    assert lengths(stop(direct), b"\x08")
    start(direct, {"interface": "eth1"})
    direct.run(f"kill -9 {recorder(direct)}")
    time.sleep(0.2)
    answer = stop(direct)
    assert (answer["changed"], answer["frames"], remains(direct)) == (False, [], [])


def test_a_recorder_that_is_told_to_end_leaves_nothing(underlay: Host) -> None:
    start(underlay, WIRE)
    underlay.run(f"kill {recorder(underlay)}")
    time.sleep(0.3)
    assert remains(underlay, "wire") == []


def test_a_flood_of_what_is_recorded_does_not_keep_it_from_its_end(underlay: Host) -> None:
    start(underlay, WIRE, {"interface": "eth1"}, timeout=1, limit=10)
    floods = [underlay.popen("ping", "-q", "-f", "-s", "0", "-w", "6", FAR) for _ in range(3)]
    time.sleep(2.5)
    left = remains(underlay, "wire")
    for flood in floods:
        flood.terminate()
        flood.communicate(timeout=10)
    assert left == []


def test_a_capture_ends_by_itself(underlay: Host) -> None:
    start(underlay, {"interface": "eth1"}, timeout=0.5)
    pid = recorder(underlay)
    deadline = time.monotonic() + 5
    while remains(underlay) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert remains(underlay) == []
    assert underlay.run(f"ps -o stat= -p {pid}", check=False).stdout[:1] in (
        "",
        "Z",
    )  # who reaps orphans may take its time
    answer = stop(underlay)
    assert (answer["changed"], answer["frames"], answer["verdicts"], answer["lost"]) == (False, [], [], 0)


def test_all_that_is_missing_is_told_and_nothing_starts(underlay: Host) -> None:
    underlay.sh("touch /run/netns/torn")
    points = [{"interface": "eth7"}, {"interface": "eth1"}]
    points += [{"namespace": name, "interface": "eth0"} for name in ("gone", "torn")]
    answer = host_fails(underlay, points=[*points, {"namespace": "wire", "interface": "eth8"}])
    for word in (
        "no interface eth7 on this host",
        "no network namespace gone",
        "no network namespace torn",
        "no interface eth8 in the network namespace wire",
    ):
        assert word in answer
    assert "eth1" not in answer
    assert remains(underlay, "wire") == []


def host_fails(host: Host, **options: Any) -> str:
    arguments = {"state": "started", "points": [{"interface": "lo"}], **CHOSEN, **options}
    message: str = host.module("capture", fails=True, **arguments)["msg"]
    return message


def test_mistakes_are_all_told(host: Host) -> None:
    message = host_fails(
        host, name="a/b", addresses=["10.244"], underlay=["::1"], timeout=0, limit=0, snap=1,
        points=[{"namespace": "x/y", "interface": "a-name-that-is-too-long"}],
    )  # fmt: skip
    for word in ("a/b", "10.244", "::1", "timeout", "limit", "snap", "x/y", "a-name-that-is-too-long"):
        assert word in message
    for name in ("a\0", ".."):
        message = host_fails(host, points=[{"namespace": name, "interface": "lo"}, {"interface": name}])
        assert [word in message for word in ("no name of a namespace", "no name of an interface")] == [True, True]
    assert "at least one" in host_fails(host, addresses=[], underlay=[])
    assert "MiB of the host's memory" in host_fails(host, limit=100000, snap=65535)
    many = [f"10.0.{i // 250}.{i % 250}" for i in range(600)]
    assert "too many addresses" in host_fails(host, addresses=many)


def test_check_mode_predicts_and_does_nothing(underlay: Host) -> None:
    arguments = {"state": "started", "points": [WIRE], **CHOSEN}
    assert underlay.module("capture", check=True, **arguments)["changed"]
    assert remains(underlay, "wire") == []
    assert not underlay.module("capture", check=True, state="stopped")["changed"]
    start(underlay, WIRE)
    assert underlay.module("capture", check=True, state="stopped")["changed"]
    assert stop(underlay)["changed"]


def test_two_captures_of_one_name_are_an_error_and_of_two_names_are_not(underlay: Host) -> None:
    start(underlay, WIRE)
    for point in (WIRE, {"interface": "lo"}):
        assert "a capture trace runs already" in host_fails(underlay, points=[point])
    start(underlay, WIRE, name="other")
    send(underlay, OURS["echo"])
    for name in ("trace", "other"):
        assert len(stop(underlay, name=name)["frames"]) == 1
    assert remains(underlay, "wire") == []


def test_who_locks_the_folder_does_not_keep_a_capture_waiting_for_ever(
    underlay: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recorder, "_PATIENCE", 0.2)
    with underlay.popen("flock", "/run", "sleep", "30") as other:
        time.sleep(0.2)
        assert "another process has /run locked" in host_fails(underlay)
        other.kill()


def program(host: Host, *before: str) -> dict[str, Any]:
    """Start a capture as Ansible does: a program that is waited for until nobody holds the other ends of its pipes."""
    arguments = {"ANSIBLE_MODULE_ARGS": {"state": "started", "points": [{"interface": "lo"}], **CHOSEN}}
    path = ":".join([f"{CHECKOUT}/.collections", *filter(None, sys.path)])
    command = ["env", f"PYTHONPATH={path}", *before, sys.executable, "-m", f"{MODULES}.capture", json.dumps(arguments)]
    out, err = host.popen(*command).communicate(timeout=20)
    assert out, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_the_recorder_keeps_no_descriptor_that_a_connection_waits_for(host: Host) -> None:
    assert program(host)["changed"]
    descriptors = host.run("ls", f"/proc/{recorder(host)}/fd").stdout.split()
    assert len(descriptors) == 6  # the standard ones, which are nothing; a listener, a point, a trace
    assert stop(host)["changed"]


def test_without_privilege_the_error_says_so(host: Host) -> None:
    assert "capturing needs root" in program(host, "setpriv", "--bounding-set=-all")["msg"]
