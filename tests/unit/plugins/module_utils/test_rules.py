# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The judge's words and its doubts. That it agrees with the kernel is tests/kernel/test_rules.py's."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils._rules import Meta, judge, legacy, merge, passed
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"  # printed by nft 1.0.6 and iptables 1.8.9
NFT = json.loads((DATA / "nft.json").read_text())
XT = json.loads((DATA / "iptables-nft.json").read_text())
SAVED = (DATA / "iptables-nft-save.txt").read_text()

PING = Meta("cni0", "eth1", "10.244.0.2", "10.244.1.2", ttl=63, length=84, df=False, icmp_type=8)


def said(listing: Any, hook: str, meta: Meta, family: str = "ip") -> list[tuple[str, str, str, str]]:
    return [
        (ruling.verdict, ruling.where, ruling.rule, ruling.why_unsure) for ruling in judge(listing, hook, family, meta)
    ]


def one(*expressions: Any, policy: str = "accept", **table: Any) -> list[dict[str, Any]]:
    """A listing with one chain, each of its rules a list of expressions."""
    home = {"family": "inet", "table": "t"}
    chain = {**home, "name": "c", "type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    rules = [{"rule": {**home, "chain": "c", "expr": rule}} for rule in expressions]
    return [{"table": {"family": "inet", "name": "t", **table}}, {"chain": chain}, *rules]


DROP: dict[str, Any] = {"drop": None}
ACCEPT: dict[str, Any] = {"accept": None}
UNCLEAR: dict[str, Any] = {"match": {"op": "==", "left": {"ct": {"key": "mark"}}, "right": 3}}


@pytest.mark.parametrize(
    ("hook", "change", "rulings"),
    [
        ("forward", {"oif": "eth0"}, [("drop", "table inet filter chain pods", 'log prefix "pods " drop', "")]),
        (
            "forward",
            {"mark": 0x4001},
            [
                (
                    "reject",
                    "table inet filter chain forward",
                    "meta mark & 0x00004000 == 0x00004000 reject with icmp admin-prohibited",
                    "",
                )
            ],
        ),
        (
            "forward",
            {"protocol": 17, "sport": 40000, "dport": 53},
            [
                (
                    "may drop",
                    "table inet filter chain forward",
                    "ip daddr . udp dport { 10.244.1.2 . 53 } drop",
                    "unless this takes it before: ct mark 0x00000003 accept",
                )
            ],
        ),
        ("postrouting", {"dst": "192.0.2.1"}, [("masquerade", "table ip nat chain postrouting", "", "")]),
        ("postrouting", {}, [("snat", "table ip nat chain postrouting", 'oifname "eth1" snat to 198.51.100.11', "")]),
        ("postrouting", {"ct": "established"}, []),
        ("input", {"protocol": 4, "src": "203.0.113.9"}, []),
        ("input", {"protocol": 4, "src": "192.0.2.9"}, [("drop", "table inet filter chain input", "policy drop", "")]),
        (
            "input",
            {},
            [
                (
                    "may drop",
                    "table inet filter chain input",
                    "policy drop",
                    "unless this takes it before: meta l4proto icmp limit rate 10/second accept",
                )
            ],
        ),
    ],
)
def test_a_listing_of_nft(hook: str, change: dict[str, Any], rulings: list[tuple[str, ...]]) -> None:
    found = said(NFT, hook, replace(PING, **change))
    assert [
        ruling if expected[2] else (*ruling[:2], "", ruling[3]) for ruling, expected in zip(found, rulings)
    ] == rulings
    assert len(found) == len(rulings)


def test_comments_are_told() -> None:
    listing = one([DROP])
    listing[-1]["rule"]["comment"] = "closed for the night"
    assert judge(listing, "forward", "ip", PING)[0].comment == "closed for the night"


def test_a_name_that_nft_loses_is_a_doubt() -> None:
    listing = one(
        [
            {
                "match": {
                    "op": "==",
                    "left": {"meta": {"key": "iifname"}},
                    "right": {"set": [{"prefix": {"addr": "", "len": 16}}]},
                }
            },
            DROP,
        ]
    )
    assert [verdict for verdict, *_more in said(listing, "forward", PING)] == ["may drop"]


@pytest.mark.parametrize(
    ("rules", "verdicts", "why"),
    [
        ([[UNCLEAR, DROP]], ["may drop"], "depends on ct mark"),
        ([[UNCLEAR, DROP], [DROP]], ["may drop", "drop"], ""),
        ([[UNCLEAR, ACCEPT], [DROP]], ["may drop"], "unless this takes it before: ct mark 0x00000003 accept"),
        ([[DROP], [UNCLEAR, DROP]], ["drop"], ""),
        ([[{"frobnicate": {"depth": 3}}]], ["may drop"], "depends on frobnicate"),
        ([[{"xt": {"type": "target", "name": "SYNPROXY"}}]], ["may drop"], "depends on xt target SYNPROXY"),
        ([[{"xt": None}]], ["may drop"], "depends on xt"),
        ([[{"queue": {"num": 1}}]], ["may drop"], "a program decides"),
        ([[{"xt": {"type": "target", "name": "LOG"}}]], [], ""),
        ([[{"limit": {"rate": 5, "per": "second"}}, DROP]], ["may drop"], "depends on limit rate 5/second"),
        (
            [
                [UNCLEAR, {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 5}}],
                [{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 5}}, DROP],
            ],
            ["may drop"],
            "depends on meta mark",
        ),
        ([[UNCLEAR, {"masquerade": None}]], ["may masquerade"], "depends on ct mark"),
    ],
)
def test_doubt(rules: list[list[dict[str, Any]]], verdicts: list[str], why: str) -> None:
    found = said(one(*rules), "forward", PING)
    assert [verdict for verdict, *_more in found] == verdicts
    assert not found or found[-1][-1] == why


@pytest.mark.parametrize(
    ("flags", "verdicts"),
    [("dormant", []), (["dormant"], []), (["owner", "persist"], ["drop"]), ("Lester", ["may drop"])],
)
def test_a_dormant_table_has_no_say(flags: Any, verdicts: list[str]) -> None:
    assert [verdict for verdict, *_more in said(one([DROP], flags=flags), "forward", PING)] == verdicts


def test_marks_and_translations_go_on_with_the_packet() -> None:
    mark = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 8]}}}
    assert passed(one([mark]), "forward", "ip", replace(PING, mark=2))[1] == replace(PING, mark=10)
    assert passed(NFT, "postrouting", "ip", PING)[1].src == "198.51.100.11"
    assert (
        passed(NFT, "postrouting", "ip", replace(PING, dst="192.0.2.1"))[1].src is None
    )  # the interface's, whatever it is


@pytest.mark.parametrize(
    ("dev", "hook", "verdicts"),
    [
        ("cni0", "ingress", ["drop"]),
        ("eth1", "ingress", []),
        (["a", "cni0"], "ingress", ["drop"]),
        ("eth1", "egress", ["drop"]),
    ],
)
def test_a_netdev_chain_is_its_devices(dev: Any, hook: str, verdicts: list[str]) -> None:
    listing = one([DROP])
    listing[1]["chain"].update(hook=hook, dev=dev)
    assert [verdict for verdict, *_more in said(listing, hook, PING, "netdev")] == verdicts


# ------------------------------------------------------------------------------------------------ iptables


def test_what_nft_leaves_out_of_iptables_is_a_doubt() -> None:
    assert {verdict for verdict, *_more in said(XT, "forward", PING)} == {"may drop"}


@pytest.mark.parametrize(
    ("listing", "tool"),
    [(merge(XT, SAVED), "iptables"), (merge([], "", SAVED), "iptables-legacy"), (legacy(SAVED), "iptables-legacy")],
)
def test_iptables_says_it_in_its_own_words(listing: Any, tool: str) -> None:
    mark = "-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP"
    assert said(listing, "forward", replace(PING, mark=0x8000)) == [
        ("drop", f"{tool} table filter chain KUBE-FIREWALL", mark, "")
    ]
    assert said(listing, "forward", PING)[1:] == [("drop", f"{tool} table filter chain FORWARD", "-P FORWARD DROP", "")]
    assert said(listing, "forward", PING)[0][::3] == ("may drop", "depends on xt match recent")
    assert said(listing, "forward", replace(PING, ct="established")) == []
    assert [verdict for verdict, *_more in said(listing, "postrouting", PING)] == ["masquerade"]


def test_a_chain_that_iptables_does_not_print_whole_stays_nfts() -> None:
    fewer = "".join(line for line in SAVED.splitlines(keepends=True) if "recent" not in line)
    wheres = {where for _verdict, where, *_more in said(merge(XT, fewer), "forward", PING)}
    assert wheres == {"table ip filter chain KUBE-FIREWALL", "iptables table filter chain FORWARD"}


def test_nfts_other_tables_stay_whole() -> None:
    assert merge(NFT, SAVED) == NFT
    assert merge(NFT) == NFT


def test_both_kinds_of_iptables_have_their_say() -> None:
    assert [
        where for _v, where, rule, _w in said(merge(XT, SAVED, SAVED), "forward", PING) if rule == "-P FORWARD DROP"
    ] == [
        "iptables table filter chain FORWARD",
        "iptables-legacy table filter chain FORWARD",
    ]


def test_comments_and_counters_of_iptables() -> None:
    text = '*filter\n:FORWARD ACCEPT [0:0]\n[5:420] -A FORWARD -m comment --comment "a \\"b\\" -j c" -s 10.0.0.0/8 -j DROP\nCOMMIT\n'
    (ruling,) = judge(legacy(text), "forward", "ip", PING)
    assert (ruling.rule, ruling.comment) == ("-A FORWARD -s 10.0.0.0/8 -j DROP", 'a "b" -j c')


@given(st.lists(st.sampled_from([*SAVED.split(), "!", "-m", "-j", "-p", "--mark", "--dport", "x", "1:2"]), max_size=8))
def test_a_line_that_nobody_understands_is_in_doubt_or_a_rule(words: list[str]) -> None:
    judge(legacy(f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {' '.join(words)}\nCOMMIT\n"), "forward", "ip", PING)


# ------------------------------------------------------------------------------------------------ what holds of any packet

PACKETS = st.builds(
    Meta,
    iif=st.sampled_from(["", "cni0", "wg0"]),
    oif=st.sampled_from(["", "eth0", "eth1"]),
    src=st.sampled_from(["10.244.0.2", "203.0.113.5", "192.0.2.1"]),
    dst=st.sampled_from(["10.244.1.2", "192.0.2.1"]),
    protocol=st.sampled_from([1, 4, 17]),
    mark=st.sampled_from([0, 0x4000, 0x8000]),
    dport=st.sampled_from([53, 80]),
    ct=st.sampled_from(["new", "established"]),
)
FORGETTABLE = [field.name for field in fields(Meta) if "None" in str(field.type)]


@given(
    st.sampled_from([NFT, merge(XT, SAVED)]),
    st.sampled_from(["input", "forward", "postrouting"]),
    PACKETS,
    st.sets(st.sampled_from(FORGETTABLE)),
)
def test_who_knows_less_of_a_packet_is_less_sure_but_says_nothing_else(
    listing: Any, hook: str, packet: Meta, forgotten: set[str]
) -> None:
    def verdicts(meta: Meta) -> tuple[bool, bool]:
        rulings = judge(listing, hook, "ip", meta)
        return any(ruling.stops for ruling in rulings), any(
            ruling.stops or ruling.verdict == "may drop" for ruling in rulings
        )

    surely, maybe = verdicts(packet)
    surely_less, maybe_less = verdicts(replace(packet, **dict.fromkeys(forgotten)))
    assert surely_less <= surely
    assert maybe <= maybe_less
