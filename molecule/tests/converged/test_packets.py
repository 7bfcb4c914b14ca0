"""What the overlay carries, and what it keeps out."""

from __future__ import annotations

import base64
import struct
import textwrap
import time
from itertools import permutations

import pytest

MTUS = {"ipip": 1480, "vxlan": 1450}
HEADERS = 28  # IPv4 and ICMP
# Bytes on the wire of a ping with 56 bytes of data: at the pod, at the tunnel device, on the underlay.
FRAMES = {"ipip": (98, 84, 118), "vxlan": (98, 98, 148)}
TUNNELS = {"ipip": "flannel.ipip", "vxlan": "flannel.1"}
ON_THE_WIRE = {"ipip": "proto 4", "vxlan": "udp port 8472"}
PODS = ("web", "db")
# No peer has this address.
STRANGER = 99


def address(node, pod):
    return node.json(f"ip -n {pod} -j -4 address show dev eth0")[0]["addr_info"][0]["local"]


def ping(node, pod, target, *, size=56, df=True):
    return node.run(f"ip netns exec {pod} ping -n -q -c 2 -i 0.2 -W 5 -s {size} {'-M do' if df else ''} {target}")


@pytest.mark.parametrize("source", ["node1", "node2", "node3"])
def test_every_pod_reaches_every_pod_of_other_nodes_at_full_size(nodes, lab, source):
    size = MTUS[lab["backend"]] - HEADERS
    for pod in PODS:
        for target in nodes.values():
            for other in PODS:
                if (target.name, other) != (source, pod):
                    done = ping(nodes[source], pod, address(target, other), size=size)
                    assert done.rc == 0, f"{pod} of {source} to {other} of {target.name}: {done.stdout}{done.stderr}"


def test_one_byte_more_than_the_mtu_is_refused(nodes, lab):
    done = ping(nodes["node1"], "web", address(nodes["node2"], "web"), size=MTUS[lab["backend"]] - HEADERS + 1)

    assert done.rc != 0


def test_larger_packets_pass_in_fragments(nodes):
    assert ping(nodes["node1"], "web", address(nodes["node2"], "db"), size=4000, df=False).rc == 0


def test_nodes_reach_pods_of_other_nodes(nodes):
    for source, target in permutations(nodes.values(), 2):
        done = source.run("ping -n -q -c 1 -W 5 %s", address(target, "web"))
        assert done.rc == 0, f"{source.name} to {target.name}: {done.stdout}"


def test_frames_have_the_sizes_of_one_encapsulation(nodes, lab):
    """The pod's frame, the packet in the tunnel, and the frame on the underlay: measured where they pass."""
    backend = lab["backend"]
    sender, receiver = nodes["node1"], nodes["node2"]
    target = address(receiver, "web")
    points = (
        ("ip netns exec web ", "eth0", f"icmp and dst {target}"),
        ("", TUNNELS[backend], f"icmp and dst {target}"),
        ("", "eth1", f"{ON_THE_WIRE[backend]} and src {sender.public_ip}"),
    )
    with Captures(receiver, points) as read:
        assert ping(sender, "web", target).rc == 0
        sizes = read()

    assert [set(each) for each in sizes] == [{size} for size in FRAMES[backend]]


def test_tunnel_packets_of_a_peer_arrive_and_a_strangers_do_not(nodes, lab):
    """`remote any` takes from anyone: it is the guard that knows the peers."""
    if lab["backend"] != "ipip":
        pytest.skip(f"the backend here is {lab['backend']}")
    sender, receiver = nodes["node1"], nodes["node2"]
    target = address(receiver, "web")
    stranger = sender.public_ip.rpartition(".")[0] + f".{STRANGER}"
    for source, arrives in ((sender.public_ip, True), (stranger, False)):
        with Captures(receiver, [("ip netns exec web ", "eth0", f"icmp and dst {target}")]) as read:
            sender.host.check_output(
                "python3 -c %s", FORGE.format(source=source, peer=receiver.public_ip, target=target)
            )
            (sizes,) = read()
        assert bool(sizes) is arrives, source


# Sends an ICMP echo request in IPIP from SOURCE to PEER, by hand.
FORGE = textwrap.dedent("""
    import socket, struct
    def checksum(data):
        total = sum(struct.unpack(f"!{{len(data) // 2}}H", data))
        total = (total >> 16) + (total & 0xffff)
        return ~(total + (total >> 16)) & 0xffff
    def ip(source, target, protocol, content):
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(content), 7, 0, 64, protocol, 0,
                           socket.inet_aton(source), socket.inet_aton(target))
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + content
    echo = struct.pack("!BBHHH", 8, 0, 0, 7, 7)
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    inner = ip("10.244.0.1", "{target}", 1, echo)
    for _ in range(3):
        raw.sendto(ip("{source}", "{peer}", 4, inner), ("{peer}", 0))
""")


class Captures:
    """Captures at several points of a node at once; `read` ends them and gives the sizes of what passed at each."""

    def __init__(self, node, points):
        self.node, self.points = node, points

    def __enter__(self):
        self.folder = self.node.host.check_output("mktemp -d")
        for number, (prefix, interface, what) in enumerate(self.points):
            path = f"{self.folder}/{number}"
            capture = f"{prefix}tcpdump -Z root -n -p -U -i {interface} -w {path}.pcap '{what}'"
            self.node.host.check_output(
                f"{capture} </dev/null >/dev/null 2>{path}.log & echo $! >{path}.pid; "
                f"for i in $(seq 100); do grep -q 'listening on' {path}.log && break; sleep 0.1; done"
            )
        return self.read

    def read(self):
        time.sleep(1)  # for packets that are under way, and for those that should not come
        self._stop()
        return [
            pcap_sizes(self.node.run(f"base64 -w0 {self.folder}/{number}.pcap").stdout)
            for number in range(len(self.points))
        ]

    def __exit__(self, *exception):
        self._stop()
        self.node.run(f"rm -r {self.folder}")

    def _stop(self):
        self.node.run(
            f"for pid in $(cat {self.folder}/*.pid); do kill -INT $pid; while kill -0 $pid; do sleep 0.05; done; done 2>/dev/null; true"
        )


def pcap_sizes(encoded):
    """Lengths of the packets of a capture file (pcap-savefile(5)) in base64."""
    data = base64.b64decode(encoded)
    order = "<" if data[:4] == bytes.fromhex("d4c3b2a1") else ">"
    sizes, offset = [], 24
    while offset < len(data):
        captured, length = struct.unpack_from(f"{order}8xII", data, offset)
        sizes.append(length)
        offset += 16 + captured
    return sizes
