"""What is made of programs that answer in another way than iproute2 and nft do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _look
from ansible_collections.podnet.overlay.plugins.module_utils._look import Look
from ansible_collections.podnet.overlay.plugins.module_utils._node import NodeError

Answer = tuple[int, str, str]


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_look, "program", lambda name: f"/sbin/{name}")


def look(answer: Callable[[str], Answer]) -> Look:
    return Look(lambda argv, data=None: answer(argv[0]))


@pytest.mark.parametrize(
    "answer",
    [
        (0, "", ""),
        (0, "BusyBox v1.35", ""),
        (0, "[]", ""),
        (0, '{"a": 1}\n[]', ""),
        (1, "", "invalid argument '-batch'"),
    ],
)
def test_an_ip_that_is_not_iproute2s_is_told(answer: Answer) -> None:
    with pytest.raises(NodeError, match="ip"):
        look(lambda _program: answer).links("")


def test_a_lookup_without_an_answer_is_no_route() -> None:
    assert look(lambda _program: (0, "[]\n[{}]", "")).route("", "10.0.0.1").error == "no answer"
    refused = look(lambda _program: (2, "", "RTNETLINK answers: No route to host\nCommand failed -:1\n"))
    assert refused.route("", "10.0.0.1").error == "No route to host"


@pytest.mark.parametrize(
    "out", ["garbage", "[]", '{"nftables": [{"rule": {}}]}', '{"nftables": [5]}', '{"nftables": 7}', "{}"]
)
def test_rules_in_an_unknown_form_are_in_doubt(out: str) -> None:
    listing, unread = look(lambda program: (0, out if program.endswith("nft") else "", "")).rules("")
    assert (listing, len(unread)) == ([], 1)


def test_a_refusing_nft_is_in_doubt() -> None:
    unread = look(
        lambda program: (1, "", "JSON support not compiled-in") if program.endswith("nft") else (0, "", "")
    ).rules("")[1]
    assert unread == ["nft tells no rules: JSON support not compiled-in"]


def test_without_nft_what_iptables_says_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_look, "program", lambda name: None if name == "nft" else f"/sbin/{name}")
    saved = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
    listing, unread = look(lambda program: (0, saved if program.endswith("iptables-nft-save") else "", "")).rules("")
    assert len(unread) == 1
    assert [item["chain"]["policy"] for item in listing if item.get("chain", {}).get("policy")] == ["drop"]
