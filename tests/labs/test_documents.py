"""What a lab draws is what it makes, and `make lab` knows them all. Needs no host."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import labs, play
from lab.process import LabError

BESIDE = {"shared_namespace": ["first", ":8080", "second", ":8081", "lo", "127.0.0.1/8"]}
"""What a drawing shows that no document makes."""


def variables(name: str) -> dict[str, Any]:
    read = yaml.safe_load((play.PLAYBOOKS / f"{name}.yml").read_text())[-1]
    found: dict[str, Any] = read["vars"]
    return found


def made(document: dict[str, Any]) -> Counter[str]:
    """The names and addresses of all interfaces."""
    found: Counter[str] = Counter()
    for link in document["links"]:
        for end in (link, *([link["peer"]] if "peer" in link else [])):
            found[end["name"]] += 1
            for item in end.get("addresses", []):
                found[item if isinstance(item, str) else item["address"]] += 1
    return found


def namespaces(document: dict[str, Any]) -> set[str]:
    ends = [end for link in document["links"] for end in (link, link.get("peer", {}))]
    return {end["namespace"] for end in ends if "namespace" in end}


@pytest.mark.parametrize("name", play.NAMES)
def test_the_drawing_shows_what_the_document_makes(name: str) -> None:
    document, drawing = variables(name)["lab_document"], variables(name)["lab_drawing"]
    shown = Counter(re.findall(r"[\w.:/-]+", drawing)) - Counter(BESIDE.get(name, []))
    places = namespaces(document)
    assert {word: shown[word] for word in places} == dict.fromkeys(places, 1)
    assert Counter({word: count for word, count in shown.items() if word not in places}) == made(document)


@pytest.mark.parametrize("name", play.NAMES)
def test_nothing_is_made_outside_of_namespaces(name: str) -> None:
    document = variables(name)["lab_document"]
    parts = [
        item for part in ("links", "routes", "sysctls") for item in document.get(part, []) if isinstance(item, dict)
    ]
    assert all("namespace" in item for item in parts)
    assert all("namespace" in link["peer"] for link in document["links"] if "peer" in link)


def test_make_lab_knows_them_all() -> None:
    assert sorted(play.NAMES) == sorted(path.stem for path in play.PLAYBOOKS.glob("*.yml") if path.stem != "vars")


@pytest.mark.parametrize("name", ["", "bridges"])
def test_a_lab_that_is_not_there_is_answered_with_those_that_are(name: str) -> None:
    with pytest.raises(LabError, match=r"bridge +Two namespaces on a bridge"):
        play.play(name, "present", "auto", "nowhere", [])


@pytest.mark.parametrize(("state", "place"), [("gone", "auto"), ("", "auto"), ("present", "there")])
def test_a_state_or_a_place_that_is_not_there_is_answered_alike(state: str, place: str) -> None:
    with pytest.raises(LabError, match=r"there is no (STATE=(gone)?|WHERE=there)\. There are: "):
        play.play("bridge", state, place, "nowhere", [])


@pytest.mark.parametrize(
    ("lacking", "code", "told"),
    [("", 0, "STATE=absent WHERE=vm "), ("no ipip", 0, "STATE=absent  "), ("", 2, "LAB=NAME STATE=absent WHERE=vm ")],
)
def test_a_run_on_a_machine_tells_how_to_remove_a_lab_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lacking: str, code: int, told: str
) -> None:
    monkeypatch.setattr(play, "_lacking", lambda _: lacking)
    monkeypatch.setattr(play, "_is_up", lambda _: True)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], code))
    assert play.play("bridge", "present", "vm", "nowhere", []) == code
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "maker"), [("labs", "make lab LAB=flannel_ipip"), ("demo", "make demo"), ("x", "python3 -m lab up x")]
)
def test_a_lab_that_is_not_up_is_answered_with_what_makes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, maker: str
) -> None:
    monkeypatch.setattr(labs, "LABS", tmp_path)
    with pytest.raises(LabError, match=f"there is no lab {name}. `{maker}` makes it"):
        labs.load(name)


def test_a_machine_that_is_not_up_is_not_started_to_remove_a_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "up", lambda *_: pytest.fail("a machine was started"))
    assert play.play("bridge", "absent", "vm", "nowhere", []) == 0


def test_what_cannot_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"bridge cannot run on this machine: namespaces need root. With WHERE=vm"):
        play.play("bridge", "present", "here", "nowhere", [])
