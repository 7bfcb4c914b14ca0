"""Real containers on the overlay: Podman on machines, on node1 by its own network file, on node2 by the CNI network.

Both files are as overlay.yml wrote them. A Podman that has a choice takes CNI where there is a network of that kind.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

PARTS = {"node1": ("10.244.0.192", "10.244.0.254"), "node2": ("10.244.1.64", "10.244.1.127")}
BACKENDS = {"node1": "netavark", "node2": "cni"}
NETAVARK = "/etc/containers/containers.conf.d/podnet-test.conf"
POD = "10.244.13.10"  # db of node3
FOLDER = "/run/podnet-test"
# The image is a busybox and a page, since there is no registry to ask. httpd says who asked it.
START = """
mkdir -p {folder}/bin {folder}/www && cp /bin/busybox {folder}/bin/ && echo {name} >{folder}/www/index.html
tar -C {folder} -c . | podman import -q - localhost/box
podman run -d --name box --network podnet-overlay -p 8080:80 localhost/box /bin/busybox httpd -f -vv -p 80 -h /www
"""
# What Podman would leave on the machine: its store, and chains without rules.
STOP = """
podman rm -f -t 0 box
rm -rf /var/lib/containers /var/lib/cni/networks/podnet-overlay {conf} {folder}
for table in nat filter; do nft delete table ip $table; nft delete table ip6 $table; done 2>/dev/null
true
"""
SERVE = """
mkdir -p {folder}/www && echo db >{folder}/www/index.html
ip netns exec db busybox httpd -f -vv -p 7000 -h {folder}/www </dev/null >/dev/null 2>{folder}/log & echo $! >{folder}/pid
"""


@pytest.fixture(scope="module")
def boxes(lab, nodes):
    """The address of the container on each node."""
    if lab["kind"] != "vm":
        pytest.skip("Podman is tried on machines only")
    nodes["node1"].host.check_output(
        f"mkdir -p $(dirname {NETAVARK}); printf '[network]\\nnetwork_backend = \"netavark\"\\n' >{NETAVARK}"
    )

    def start(name):
        nodes[name].host.check_output(START.format(folder=FOLDER, name=name))
        (box,) = nodes[name].json("podman inspect box")
        return box["NetworkSettings"]["Networks"]["podnet-overlay"]["IPAddress"]

    with ThreadPoolExecutor() as pool:
        try:
            yield dict(zip(PARTS, pool.map(start, PARTS)))
        finally:
            [*pool.map(lambda name: nodes[name].run(STOP.format(folder=FOLDER, conf=NETAVARK)), PARTS)]


@pytest.fixture(scope="module")
def pod(nodes, boxes):
    """node3, whose pod db serves a page on port 7000."""
    node = nodes["node3"]
    node.host.check_output(SERVE.format(folder=FOLDER))
    yield node
    node.run(f"kill $(cat {FOLDER}/pid); rm -r {FOLDER}")


def fetch(node, place, url):
    """What a container, a pod (``db``) or the node itself gets from a server."""
    prefix = {"box": "podman exec box /bin/", "": ""}.get(place, f"ip netns exec {place} ")
    return node.run(f"timeout 20 {prefix}busybox wget -q -O - {url}").stdout.strip()


def clients(log):
    """The addresses in what httpd -vv says."""
    return re.findall(r"^\[(?:::ffff:)?([0-9.]+)\]:\d+: response:200$", log, re.MULTILINE)


def asked_by(node):
    """Who asked the container of a node."""
    return clients(node.run("podman logs box 2>&1").stdout)


@pytest.mark.parametrize("name", PARTS)
def test_a_container_gets_an_address_of_its_part_of_the_nodes_subnet(nodes, boxes, name):
    assert nodes[name].json("podman info --format json")["host"]["networkBackend"] == BACKENDS[name]
    first, last = map(ip_address, PARTS[name])
    assert first <= ip_address(boxes[name]) <= last


def test_containers_of_two_hosts_reach_each_other_under_their_own_addresses(nodes, boxes):
    for name, other in (("node1", "node2"), ("node2", "node1")):
        assert fetch(nodes[name], "box", f"http://{boxes[other]}/") == other
        assert asked_by(nodes[other])[-1] == boxes[name]


def test_a_container_and_a_pod_of_another_host_reach_each_other_under_their_own_addresses(nodes, boxes, pod):
    for name, address in boxes.items():
        assert fetch(nodes[name], "box", f"http://{POD}:7000/") == "db"
        assert clients(pod.host.check_output(f"cat {FOLDER}/log"))[-1] == address
        assert fetch(pod, "db", f"http://{address}/") == name
        assert asked_by(nodes[name])[-1] == POD


def test_a_pod_of_the_same_host_reaches_a_container(nodes, boxes):
    for name, address in boxes.items():
        assert fetch(nodes[name], "web", f"http://{address}/") == name


def test_a_published_port_is_reached_from_other_hosts_and_the_host_itself(nodes, boxes):
    for name in boxes:
        url = f"http://{nodes[name].public_ip}:8080/"
        assert fetch(nodes["node3"], "", url) == name
        assert asked_by(nodes[name])[-1] == nodes["node3"].public_ip
        assert fetch(nodes[name], "", url) == name


def test_a_converge_changes_nothing_and_leaves_the_containers_their_ports(nodes, boxes, play):
    def ports(name):
        return {item["ifname"] for item in nodes[name].json("ip -j link show master cni0")}

    before = {name: ports(name) for name in boxes}
    assert all(len(found - {"veth-web", "veth-db", "podnet-anchor"}) == 1 for found in before.values())

    output, changed = play("overlay", "--limit", "node1,node2")

    assert not any(changed.values()), output
    assert {name: ports(name) for name in boxes} == before
    assert fetch(nodes["node1"], "box", f"http://{boxes['node2']}/") == "node2"
