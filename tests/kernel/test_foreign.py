"""Other programs' firewalls drop, and the overlay passes all the same; nothing else of theirs changes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.far_end import DOUBT, PATIENCE, Place, heard, passes
from tests.kernel.firewalls import FIREWALLD, UFW, Program, docker, filters
from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, STRANGER, converge, underlay

PROGRAMS = [
    pytest.param(docker("iptables-nft"), "vxlan", id="docker with iptables-nft"),
    pytest.param(docker("iptables-legacy", returns=False), "vxlan", id="docker with iptables-legacy"),
    pytest.param(FIREWALLD, "vxlan", id="firewalld with vxlan"),
    pytest.param(UFW, "vxlan", id="ufw with vxlan"),
    pytest.param(UFW, "host-gw", id="ufw with host-gw"),
]
Hosts = Mapping[str, Host]


def passing(hosts: Hosts, expected: AbstractSet[str]) -> set[str]:
    """What passes node1 or comes to it; what is *expected* is given more time to."""
    node1, node2, stranger = (Place(hosts[name]) for name in ("node1", "node2", "stranger"))
    web1, web2 = (Place(hosts[name], "web") for name in ("node1", "node2"))
    ways = {
        "another node's pod to a pod": (web2, web1, "10.244.0.2"),
        "another node to a pod": (node2, web1, "10.244.0.2"),
        "the world to a pod": (stranger, web1, "10.244.0.2"),
        "another node's pod to this node": (web2, node1, "10.244.0.1"),
        "a pod to its node": (web1, node1, "10.244.0.1"),
        "a pod to another node's pod": (web1, web2, "10.244.1.2"),
        "a pod to the world": (web1, stranger, "198.51.100.99"),
    }
    return {way for way, ends in ways.items() if passes(*ends, PATIENCE if way in expected else DOUBT)}


FORWARDED = {
    "another node's pod to a pod",
    "another node to a pod",
    "the world to a pod",
    "a pod to another node's pod",
    "a pod to the world",
}
TO_NODE = {"another node's pod to this node", "a pod to its node"}
PORT = {  # how the operator opens the node's port to pods; docs/operations/host-firewalls.md
    "firewalld": "firewall-cmd --permanent --new-zone=pods; firewall-cmd --permanent --zone=pods --add-source=10.244.0.0/16;"
    "firewall-cmd --permanent --zone=pods --add-port=5353/udp; firewall-cmd --reload",
    "ufw": "ufw allow proto udp from 10.244.0.0/16 to any port 5353",
}


@contextmanager
def machines(program: Program) -> Iterator[tuple[Hosts, str]]:
    """Two nodes to be and a stranger; node1 has *program*. With them comes what there is of the program before."""
    with underlay(NODES, STRANGER) as hosts, program.running(hosts["node1"]):
        hosts["stranger"].sh("ip route add 10.244.0.0/24 via 198.51.100.11")
        yield hosts, program.state(hosts["node1"])


def accepts(answer: Mapping[str, Any]) -> list[str]:
    return [line for line in answer["operations"] if " accept in " in line]


@pytest.mark.parametrize(("program", "backend"), PROGRAMS)
def test_all_that_is_forwarded_passes_and_teardown_leaves_the_program_as_it_was(program: Program, backend: str) -> None:
    """What pods send to the node itself is the operator's to let in, as without an overlay; Docker does not drop it."""
    unfiltered = TO_NODE if program.name == "docker" else set()
    expected = FORWARDED | unfiltered
    with machines(program) as (hosts, before):
        node1 = hosts["node1"]
        first = converge(hosts, backend, firewall={})["node1"]
        assert len(accepts(first)) == 1
        assert passing(hosts, expected) == expected
        made = program.state(node1)

        program.undone(node1)
        assert passing(hosts, unfiltered) == unfiltered
        repaired = converge(hosts, backend, firewall={})["node1"]
        assert len(accepts(repaired)) == len(repaired["operations"]) == 1
        assert passing(hosts, expected) == expected
        if program.name != "docker":  # what was undone took Docker's RETURN along
            assert program.state(node1) == made

        assert not converge(hosts, backend, firewall={})["node1"]["changed"]
        as_it_is = node1.module("topology_info")["document"]
        assert not node1.module("topology", document=as_it_is)["changed"]
        node1.module("topology", name="overlay", state="absent")
        after = program.state(node1)
        assert after == (before if program.name != "docker" else before.replace("-A DOCKER-USER -j RETURN\n", ""))


@pytest.mark.parametrize("program", [FIREWALLD, UFW], ids=lambda program: program.name)
def test_the_operator_opens_a_port_of_the_node_to_pods(program: Program) -> None:
    with machines(program) as (hosts, _before):
        converge(hosts, "vxlan", firewall={})
        assert passing(hosts, FORWARDED) == FORWARDED
        hosts["node1"].sh(PORT[program.name])
        assert passing(hosts, FORWARDED | TO_NODE) == FORWARDED | TO_NODE
        assert not converge(hosts, "vxlan", firewall={})["node1"]["changed"]


def document(network: str = "10.244.0.0/16", backend: str = "host-gw", **words: Any) -> dict[str, Any]:
    """A node's firewall and nothing else."""
    clause = {"backend": backend, "bridge": "cni0", "network": network, "subnet": network.replace("/16", "/24")}
    if backend == "vxlan":
        clause.update(local="198.51.100.11", tunnel="flannel.1", vni=1, port=8472)
    if backend == "ipip":
        clause.update(local="198.51.100.11", tunnel="flannel.ipip")
    return {"firewall": {**clause, **words}}


def came(hosts: Hosts, protocol: int) -> bool:
    """Whether packets of a protocol reach node1 itself."""
    sender = Place(hosts["node2"]).do(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
    with sender, heard(Place(hosts["node1"]), protocol) as packets:
        sender.sendto(b"packed", ("198.51.100.11", 0))
        return bool(packets())


@pytest.mark.parametrize("program", [FIREWALLD, UFW], ids=lambda program: program.name)
def test_ipips_packets_come_in_and_no_other_protocol_does(program: Program) -> None:
    """Without a tunnel, since not every kernel has one: what the program lets through is the matter here."""
    with underlay(NODES) as hosts, program.running(hosts["node1"]):
        node1 = hosts["node1"]
        node1.sh("sysctl -qw net.netfilter.nf_conntrack_generic_timeout=1")
        assert not came(hosts, socket.IPPROTO_IPIP)
        node1.module("topology", name="overlay", document=document(backend="ipip"))
        assert came(hosts, socket.IPPROTO_IPIP)
        assert not came(hosts, socket.IPPROTO_GRE)
        node1.module("topology", name="overlay", document=document(backend="host-gw"))
        time.sleep(1.5)  # the connection is forgotten
        assert not came(hosts, socket.IPPROTO_IPIP)


def chain(host: Host, command: str = "iptables-nft") -> list[str]:
    lines = host.run(command, "-S", "DOCKER-USER").stdout.splitlines()
    return [line.removeprefix("-A DOCKER-USER ") for line in lines if line.startswith("-A ")]


MARK = '-m comment --comment "podnet.overlay:overlay"'
OURS = [f"-d 10.244.0.0/16 {MARK} -j ACCEPT", f"-s 10.244.0.0/16 {MARK} -j ACCEPT"]


@pytest.mark.parametrize(
    "change",
    [
        "{iptables} -D DOCKER-USER -s 10.244.0.0/16 {mark} -j ACCEPT",
        "{iptables} -I DOCKER-USER -s 10.244.0.0/16 {mark} -j ACCEPT",
        "{iptables} -I DOCKER-USER -s 10.244.0.0/17 {mark} -j ACCEPT",
        "{iptables} -I DOCKER-USER -s 10.244.0.0/16 {other} -j ACCEPT",
        "{iptables} -I DOCKER-USER 2 -j RETURN; {iptables} -D DOCKER-USER 5",
        "{iptables} -D DOCKER-USER 2; {iptables} -A DOCKER-USER -d 10.244.0.0/16 {mark} -j ACCEPT",
    ],
    ids=["one is gone", "one is twice", "one of before", "one of another owner", "after RETURN", "one after RETURN"],
)
def test_dockers_chain_is_repaired_whatever_became_of_our_rules(host: Host, change: str) -> None:
    with docker("iptables-nft").running(host):
        operators = "-s 203.0.113.0/24 -j DROP"
        host.sh(f"iptables-nft -I DOCKER-USER {operators}")
        host.module("topology", name="overlay", document=document())
        assert chain(host) == [operators, *OURS, "-j RETURN"]
        host.sh(change.format(iptables="iptables-nft", mark=MARK, other=MARK.replace(":overlay", ":another")))
        assert chain(host) != [operators, *OURS, "-j RETURN"]
        assert host.module("topology", name="overlay", document=document())["changed"]
        assert chain(host) == [operators, *OURS, "-j RETURN"]
        assert not host.module("topology", name="overlay", document=document())["changed"]
        host.module("topology", name="overlay", document=document("10.250.0.0/16"))
        assert chain(host) == [operators, *(rule.replace("10.244", "10.250") for rule in OURS), "-j RETURN"]
        host.module("topology", name="overlay", state="absent")
        assert chain(host) == [operators, "-j RETURN"]


def test_both_iptables_have_dockers_chain_and_both_are_answered(host: Host) -> None:
    host.sh("iptables-legacy -N DOCKER-USER")
    with docker("iptables-nft").running(host):
        host.module("topology", name="overlay", document=document())
        assert chain(host) == [*OURS, "-j RETURN"]
        assert chain(host, "iptables-legacy") == OURS
        host.run("iptables-legacy", "-F", "DOCKER-USER")
        assert host.module("topology", name="overlay", document=document())["changed"]
        assert chain(host, "iptables-legacy") == OURS
        host.module("topology", name="overlay", state="absent")
        assert (chain(host), chain(host, "iptables-legacy")) == (["-j RETURN"], [])


def test_where_docker_has_made_no_chain_nothing_is_made(host: Host) -> None:
    host.sh("ip link add docker0 type bridge")
    assert not accepts(host.module("topology", name="overlay", document=document()))
    host.module("topology", name="overlay", state="absent")
    assert filters(host) == "" == host.run("nft list ruleset").stdout
    assert "filter" not in host.run("cat /proc/net/ip_tables_names").stdout


def ufw_rules(host: Host) -> list[str]:
    return host.run("ufw show added").stdout.splitlines()[1:]


def test_ufw_has_after_a_reload_what_it_had_before(host: Host) -> None:
    with UFW.running(host):
        host.run("ufw deny from 203.0.113.0/24")
        before = UFW.state(host)
        for backend in ("vxlan", "ipip"):
            host.module("topology", name="overlay", document=document(backend=backend))
            made = UFW.state(host)
            host.run("ufw reload")
            assert UFW.state(host) == made
            assert not host.module("topology", name="overlay", document=document(backend=backend))["changed"]
        assert "-A ufw-before-input -p ipencap" in made
        host.module("topology", name="overlay", state="absent")
        assert UFW.state(host) == before


def test_a_rule_that_the_operator_has_in_ufw_stays_the_operators(host: Host) -> None:
    with UFW.running(host):
        host.run("ufw allow 8472/udp")
        before = UFW.state(host)
        host.module("topology", name="overlay", document=document(backend="vxlan"))
        assert "ufw allow 8472/udp" in ufw_rules(host)
        assert not host.module("topology", name="overlay", document=document(backend="vxlan"))["changed"]
        host.module("topology", name="overlay", state="absent")
        assert UFW.state(host) == before
        host.module("topology", name="overlay", document=document(backend="vxlan"))
        host.run("ufw delete allow 8472/udp")
        assert host.module("topology", name="overlay", document=document(backend="vxlan"))["changed"]
        assert "ufw allow 8472/udp comment 'podnet.overlay:overlay'" in ufw_rules(host)


@pytest.mark.parametrize(
    "change",
    [
        "ufw route delete allow to 10.244.0.0/16",
        "iptables -D ufw-user-forward -s 10.244.0.0/16 -j ACCEPT",
        "iptables -D ufw-before-input -p 4 -m comment --comment podnet.overlay:overlay -j ACCEPT",
        "sed -i /podnet.overlay:overlay.-j/d /etc/ufw/before.rules",
        "sed -i 's/ -p 4 / -p 47 /' /etc/ufw/before.rules; ufw reload",
        "ufw route allow from 10.0.0.0/8 comment podnet.overlay:overlay",
        "ufw route allow from 10.244.0.0/16 comment podnet.overlay:another",
    ],
)
def test_ufw_is_repaired_whatever_became_of_our_rules(host: Host, change: str) -> None:
    with UFW.running(host):
        host.module("topology", name="overlay", document=document(backend="ipip"))
        made = UFW.state(host)
        host.sh(change)
        assert UFW.state(host) != made
        assert host.module("topology", name="overlay", document=document(backend="ipip"))["changed"]
        assert sorted(UFW.state(host).splitlines()) == sorted(made.splitlines())
        assert not host.module("topology", name="overlay", document=document(backend="ipip"))["changed"]


def test_ufw_that_is_disabled_is_left_alone_and_keeps_ours_until_teardown(host: Host) -> None:
    before = UFW.state(host)
    assert not accepts(host.module("topology", name="overlay", document=document(backend="ipip")))
    assert UFW.state(host) == before
    with UFW.running(host):
        host.module("topology", name="overlay", document=document(backend="ipip"))
        made = UFW.state(host)
        host.run("ufw disable")
        assert not host.module("topology", name="overlay", document=document(backend="ipip"))["changed"]
        host.run("ufw --force enable")
        assert UFW.state(host) == made
        host.run("ufw disable")
    host.module("topology", name="overlay", state="absent")
    assert ufw_rules(host) == ["(None)"]
    assert "podnet" not in host.sh("cat /etc/ufw/*.rules")


def test_what_ufw_refuses_is_told_in_its_own_words(host: Host) -> None:
    with UFW.running(host):
        host.sh("sed -i s/DEFAULT_INPUT_POLICY=.*/DEFAULT_INPUT_POLICY=never/ /etc/default/ufw")
        said = host.module("topology", name="overlay", document=document(), fails=True)["msg"]
        assert "comment podnet.overlay:overlay: ERROR: Invalid policy 'never' for 'input'" in said


RUNTIME_ONLY = """
firewall-cmd --zone=public --add-port=7777/tcp --add-port=8888/udp
firewall-cmd --zone=public --remove-service=ssh
firewall-cmd --zone=public --add-masquerade
firewall-cmd --zone=dmz --add-interface=eth9
firewall-cmd --zone=internal --add-source=203.0.113.0/24
firewall-cmd --zone=public --add-rich-rule='rule family="ipv4" source address="192.0.2.7" drop'
firewall-cmd --zone=public --add-forward-port=port=80:proto=tcp:toport=8080:toaddr=192.0.2.9
firewall-cmd --policy=allow-host-ipv6 --add-service=http
firewall-cmd --direct --add-chain ipv4 filter THEIRS
firewall-cmd --direct --add-rule ipv4 filter THEIRS 0 -m comment --comment "two words" -j DROP
iptables -N OTHERS; iptables -A OTHERS -s 192.0.2.8 -j DROP; iptables -A FORWARD -j OTHERS; iptables -P FORWARD DROP
iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
ip6tables -A INPUT -s 2001:db8::1 -j DROP
firewall-cmd --permanent --zone=work --add-port=6666/tcp
"""


def firewalld_in_force(host: Host) -> str:
    text = host.sh(
        "firewall-cmd --list-all-zones; firewall-cmd --list-all-policies; firewall-cmd --direct --get-all-rules;"
        "firewall-cmd --direct --get-all-chains; firewall-cmd --permanent --list-all-zones"
    )
    return text + filters(host, "iptables", "ip6tables")


def test_firewalld_loses_nothing_that_others_have_in_force_only(host: Host) -> None:
    with FIREWALLD.running(host):
        host.sh(RUNTIME_ONLY)
        before = firewalld_in_force(host)
        host.module("topology", name="overlay", document=document(backend="vxlan"))
        assert "podnet-input (active)" in host.run("firewall-cmd --list-all-policies").stdout

        table = host.sh("nft -a list tables | grep firewalld")
        host.module("topology", name="overlay", document=document(backend="ipip"))
        assert "protocols: 4" in host.run("firewall-cmd --info-policy=podnet-input").stdout
        assert host.sh("nft -a list tables | grep firewalld") == table, "it was reloaded"

        host.module("topology", name="overlay", document=document(backend="host-gw"))
        assert "podnet-input" not in host.run("firewall-cmd --list-all-policies").stdout
        assert host.run("ls /etc/firewalld/policies").stdout == "podnet-forward.xml\n"

        host.module("topology", name="overlay", state="absent")
        assert firewalld_in_force(host) == before


def test_firewalld_is_repaired_whatever_became_of_our_policies_and_they_go_while_it_does_not_run(host: Host) -> None:
    document_ = document(backend="ipip")
    with FIREWALLD.running(host):
        host.module("topology", name="overlay", document=document_)
        made = FIREWALLD.state(host)
        for change in (
            "firewall-cmd --policy=podnet-input --remove-protocol=4; firewall-cmd --policy=podnet-forward --add-service=ssh",
            "firewall-cmd --permanent --policy=podnet-input --set-target=ACCEPT; firewall-cmd --reload",
            "rm /etc/firewalld/policies/podnet-input.xml",
        ):
            host.sh(change)
            assert accepts(host.module("topology", name="overlay", document=document_)), change
            assert not host.module("topology", name="overlay", document=document_)["changed"], change
        host.sh("rm /etc/firewalld/policies/*.old")  # firewalld's copies, of what was done to them by its own command
        assert FIREWALLD.state(host) == made
    assert not host.module("topology", name="overlay", document=document_)["changed"]
    host.module("topology", name="overlay", state="absent")
    assert host.run("ls /etc/firewalld/policies").stdout == ""


def test_a_foreign_policy_of_our_name_and_what_firewalld_refuses_are_told(host: Host) -> None:
    with FIREWALLD.running(host):
        host.run("firewall-cmd --permanent --new-policy=podnet-input")
        said = host.module("topology", name="overlay", document=document(), fails=True)["msg"]
        assert "/etc/firewalld/policies/podnet-input.xml is there and not ours" in said
        assert host.run("ls /etc/firewalld/policies").stdout == "podnet-input.xml\n"
        host.sh(
            "rm /etc/firewalld/policies/podnet-input.xml; echo '<zone><nonsense/></zone>' >/etc/firewalld/zones/bad.xml"
        )
        said = host.module("topology", name="overlay", document=document(), fails=True)["msg"]
        assert "firewall-cmd --reload: " in said
