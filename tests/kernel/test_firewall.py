"""The firewall's tables in the kernel: what a clause asks for is what nft then lists, and a change is one transaction."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _firewall_clause
from hypothesis import HealthCheck, given, settings

from tests.kernel.hosts import Host
from tests.unit.plugins.module_utils.states import clauses

NOT_THE_RULES = re.compile(r"packets [0-9]+ bytes [0-9]+|# handle [0-9]+")


def written(clause: _firewall_clause.Clause) -> dict[str, Any]:
    """A clause as a document has it."""
    raw = {key: value for key, value in dataclasses.asdict(clause).items() if value not in (None, "")}
    also = raw.pop("also")
    if also:
        raw["also"] = {key: value for key, value in also.items() if value != ""}
    masquerade = raw.get("masquerade")
    if masquerade:
        masquerade["except"] = masquerade.pop("exceptions")
    for allow in raw.get("policy", ()):
        allow["from"] = allow.pop("from_group")
    return json.loads(json.dumps(raw))  # type: ignore[no-any-return]


def ruleset(host: Host) -> str:
    return NOT_THE_RULES.sub("", host.run("nft list ruleset").stdout)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(one=clauses(), other=clauses())
def test_any_clause_follows_any_other_and_then_nothing_is_left_to_do(
    host: Host, one: _firewall_clause.Clause, other: _firewall_clause.Clause
) -> None:
    for clause in (one, other):
        document = {"firewall": written(clause)}
        foreseen = host.module("topology", document=document, check=True)
        done = host.module("topology", document=document)
        assert (foreseen["operations"], foreseen["diff"]) == (done["operations"], done["diff"])
        assert not host.module("topology", document=document)["changed"]
    after = ruleset(host)
    host.module("topology", state="absent")
    assert ruleset(host) == ""
    host.module("topology", document={"firewall": written(other)})
    assert ruleset(host) == after
    assert not host.module("topology", document=host.module("topology_info")["document"])["changed"]
    host.module("topology", state="absent")


PLACE = {"bridge": "cni0", "network": "10.244.0.0/16", "subnet": "10.244.0.0/24"}


def document(**changes: Any) -> dict[str, Any]:
    clause = {
        "backend": "ipip",
        "local": "192.0.2.1",
        "tunnel": "flannel.ipip",
        "peers": {"10.244.1.0/24": "192.0.2.2"},
    }
    return {"firewall": {**clause, **changes}}


def test_a_change_of_peers_leaves_the_counters_of_the_rules_as_they_are(host: Host) -> None:
    host.module("topology", document=document())
    before = host.json("nft", "-j", "list", "chain", "inet", "podnet_overlay", "guard")["nftables"]
    host.module("topology", document=document(peers={"10.244.2.0/24": "192.0.2.3"}))
    after = host.json("nft", "-j", "list", "chain", "inet", "podnet_overlay", "guard")["nftables"]
    assert after == before  # handles included: the rules were not made anew


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.250.0.9"]}]}, {"trusted_sources": []}),
        (
            {"masquerade": {"except": ["192.0.2.0/24"]}, **PLACE},
            {"masquerade": {"except": ["203.0.113.0/24"]}, **PLACE},
        ),
    ],
)
def test_an_inner_source_that_is_a_single_address_can_go(host: Host, before: Any, after: Any) -> None:
    host.module("topology", document=document(**before))
    assert host.module("topology", document=document(**after))["changed"]
    assert not host.module("topology", document=document(**after))["changed"]


def test_the_rules_of_others_stay_as_they_are(host: Host) -> None:
    others = "nft add table inet mine; nft add chain inet mine x; nft add rule inet mine x counter drop; nft add table bridge mine"
    host.sh(others)
    before = ruleset(host)
    host.module("topology", document=document())
    host.module("topology", document=document(backend="vxlan", tunnel="flannel.1"))
    assert before in ruleset(host) or all(line in ruleset(host) for line in before.splitlines())
    host.module("topology", state="absent")
    assert ruleset(host) == before


@pytest.mark.parametrize("family", ["inet", "bridge"])
def test_a_foreign_table_of_our_name_is_named_and_nothing_is_changed(host: Host, family: str) -> None:
    host.sh(f"nft add table {family} podnet_overlay; nft add chain {family} podnet_overlay mine")
    before = ruleset(host)
    answer = host.module("topology", document=document(), fails=True)
    assert f"nftables table {family} podnet_overlay is there already and not ours" in answer["msg"]
    assert ruleset(host) == before


NFT_PATH = os.path.realpath(shutil.which("nft", path="/usr/sbin:/sbin") or "/usr/sbin/nft")
NFT = """#!{python}
import sys
sys.exit({refuse!r})
"""


@pytest.mark.parametrize(
    ("refuse", "told"),
    [
        ("Error: JSON support not compiled-in", "Install the distribution's nftables, which has it"),
        (
            "netlink: Error: Unable to initialize Netlink socket: Protocol not supported",
            "This kernel has no nftables (CONFIG_NF_TABLES)",
        ),
        ("Error: Could not process rule: Operation not supported", "lacks a part of nftables"),
    ],
)
def test_an_nft_or_kernel_that_cannot_hold_the_tables_is_named_and_nothing_is_changed(
    host: Host, tmp_path: Path, refuse: str, told: str
) -> None:
    nft = tmp_path / "nft"
    nft.write_text(NFT.format(python=sys.executable, refuse=refuse))
    nft.chmod(0o755)
    host.run(f"mount --bind {nft} {NFT_PATH}")
    answer = host.module("topology", document={**document(), "links": [{"name": "cni0", "kind": "bridge"}]}, fails=True)
    assert told in answer["msg"]
    assert "cni0" not in host.links()


def test_a_host_without_nft_is_told_what_to_install_but_foreseen_in_check_mode(host: Host) -> None:
    host.run(f"mount --bind /dev/null {NFT_PATH}")
    assert "install the package nftables" in host.module("topology", document=document(), fails=True)["msg"]
    assert host.module("topology", document=document(), check=True)["changed"]


NFT_THAT_REFUSES = """#!{python}
import os, sys
if "-f" in sys.argv and os.path.exists("/run/refuse"):
    sys.exit("Error: Could not process rule: No space left on device")
os.execv("{real}", ["nft", *sys.argv[1:]])
"""


def test_a_teardown_that_nft_refuses_leaves_all_as_it_was(host: Host, tmp_path: Path) -> None:
    wanted = {
        **document(backend="vxlan", tunnel="flannel.1"),
        "namespaces": [{"name": "web"}],
        "links": [
            {"name": "cni0", "kind": "bridge", "addresses": ["10.244.0.1/24"]},
            {"name": "veth-web", "kind": "veth", "master": "cni0", "peer": {"name": "eth0", "namespace": "web"}},
            {"name": "flannel.1", "kind": "vxlan", "vxlan": {"id": 1, "local": "192.0.2.1", "port": 8472}},
        ],
    }
    host.module("topology", document=wanted)
    look = "nft list ruleset; bridge link; ip -o -d addr; ip -n web -o -d addr"
    before = re.sub("^[0-9]+: |@.*?:|link-netns.*|(valid|fe80|[0-9a-f:]{17}).*", "", host.sh(look), flags=re.MULTILINE)
    real, nft = tmp_path / "real", tmp_path / "nft"
    shutil.copy(NFT_PATH, real)
    nft.write_text(NFT_THAT_REFUSES.format(python=sys.executable, real=real))
    nft.chmod(0o755)
    host.sh(f"mount --bind {nft} {NFT_PATH}; touch /run/refuse")
    answer = host.module("topology", state="absent", fails=True)
    assert "No space left on device" in answer["msg"]
    assert "were undone" in answer["msg"]
    after = re.sub("^[0-9]+: |@.*?:|link-netns.*|(valid|fe80|[0-9a-f:]{17}).*", "", host.sh(look), flags=re.MULTILINE)
    assert sorted(after.split()) == sorted(before.split())
    host.run("rm /run/refuse")
    host.module("topology", state="absent")
    assert ruleset(host) == ""


def test_a_file_of_the_document_is_written_repaired_and_removed(host: Host) -> None:
    wanted = {"files": [{"path": "/run/flannel/subnet.env", "content": "FLANNEL_MTU=1480\n", "mode": "0640"}]}
    foreseen = host.module("topology", document=wanted, check=True)
    done = host.module("topology", document=wanted)
    assert foreseen["diff"] == done["diff"]
    assert host.run("stat -c %a /run/flannel/subnet.env").stdout == "640\n"
    host.sh("echo changed > /run/flannel/subnet.env")
    assert host.module("topology", document=wanted)["operations"][0].startswith("change file /run/flannel/subnet.env")
    assert host.run("cat /run/flannel/subnet.env").stdout == "FLANNEL_MTU=1480\n"
    assert not host.module("topology", document=wanted)["changed"]
    host.module("topology", state="absent")
    assert host.run("cat /run/flannel/subnet.env", check=False).returncode != 0


def test_a_foreign_file_in_the_way_is_named_and_stays(host: Host) -> None:
    host.sh("mkdir /run/flannel; echo FLANNEL_MTU=1500 > /run/flannel/subnet.env")
    wanted = {"files": [{"path": "/run/flannel/subnet.env", "content": "FLANNEL_MTU=1480\n"}]}
    answer = host.module("topology", document=wanted, fails=True)
    assert "file /run/flannel/subnet.env is there already and not ours" in answer["msg"]
    assert host.run("cat /run/flannel/subnet.env").stdout == "FLANNEL_MTU=1500\n"
    host.module("topology", document=wanted, adopt=True)
    assert host.run("cat /run/flannel/subnet.env").stdout == "FLANNEL_MTU=1480\n"


GUARD_OF_0_2_0 = """
table inet podnet_overlay {
  set peers { type ipv4_addr; elements = { 198.51.100.12 } }
  chain guard {
    type filter hook input priority filter - 10; policy accept;
    ip daddr 198.51.100.11 udp dport 8472 ip saddr != @peers counter drop \\
      comment "podnet.overlay:overlay vxlan to 198.51.100.11 only from peers"
  }
}
"""


def test_the_guard_of_release_0_2_0_becomes_this_ones_and_goes_with_its_document(host: Host) -> None:
    older = {
        "firewall": {"local": "198.51.100.11", "backend": "vxlan", "port": 8472},
        "peers": {
            "backend": "vxlan",
            "subnet": "10.244.0.0/24",
            "public_ip": "198.51.100.11",
            "dev": "flannel.1",
            "table": {},
        },
    }
    saved = {"version": 1, "name": "overlay", "document": older, "before": [], "previous": []}
    host.sh(
        f"printf '%s' '{GUARD_OF_0_2_0}' | nft -f -; mkdir -p /var/lib/podnet-overlay;"
        f" printf '%s' '{json.dumps(saved)}' > /var/lib/podnet-overlay/overlay.json"
    )
    wanted = document(backend="vxlan", tunnel="flannel.1")
    assert host.module("topology", document=wanted)["changed"]
    assert not host.module("topology", document=wanted)["changed"]
    host.module("topology", state="absent")
    assert ruleset(host) == ""
