"""What a lab draws is what it makes, and `make lab` knows them all. Needs no host."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import yaml

from lab import play
from lab.process import LabError

BESIDE = {"shared_namespace": ["first", ":8080", "second", ":8081", "lo", "127.0.0.1/8"]}
"""What a drawing shows that no document makes."""


def variables(name: str) -> dict[str, Any]:
    (read,) = yaml.safe_load((play.PLAYBOOKS / f"{name}.yml").read_text())
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


def test_a_machine_that_is_not_up_is_not_started_to_remove_a_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play.labs, "up", lambda *_: pytest.fail("a machine was started"))
    assert play.play("bridge", "absent", "vm", "nowhere", []) == 0


def test_what_cannot_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play.os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match=r"bridge cannot run on this machine: namespaces need root. With WHERE=vm"):
        play.play("bridge", "present", "here", "nowhere", [])
