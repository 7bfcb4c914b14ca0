# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The overlay's tables as nft lists them, and the commands that lead from one state of them to another. Pure.

Both sides of a comparison come from the same nft (see ``Kernel.as_listed``), so nothing here knows how a version writes
a rule. Sources: libnftables-json(5), nft(8).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ._model import ALIAS_PREFIX, Firewall, Mistakes
from ._nft_words import rule_text
from ._nft_words import text as words_of

TABLE = "podnet_overlay"
FAMILIES = ("inet", "bridge")

Json = dict[str, Any]


def text_of(item: Any) -> str:
    """A part of a listing as the text by which it is compared."""
    return json.dumps(item, sort_keys=True)


def in_order(objects: Sequence[Json]) -> list[Json]:
    """Tables, chains, sets and maps by name, then the rules as they stand: each names only what comes before it."""
    kinds = ("table", "chain", "set", "map")

    def place(item: Json) -> tuple[Any, ...]:
        ((kind, body),) = item.items()
        if kind == "rule":
            return (len(kinds), FAMILIES.index(body["family"]), body["chain"])
        return (kinds.index(kind), FAMILIES.index(body["family"]), body["name"])

    return sorted(objects, key=place)


def listed(listing: Iterable[Mapping[str, Any]]) -> Firewall | None:
    """The tables in a listing of nft; None where it has none. The owner is the one that the rules' comments name."""
    objects: list[Json] = []
    elements: list[tuple[str, str, str]] = []
    owner = ""
    for item in listing:
        ((kind, body),) = item.items()
        if kind == "metainfo":
            continue
        kept = {key: value for key, value in body.items() if key not in ("handle", "index", "elem")}
        if kind == "rule":
            kept["expr"] = [{"counter": None} if "counter" in part else part for part in kept["expr"]]
            comment = str(kept.get("comment", ""))
            if comment.startswith(ALIAS_PREFIX):
                owner = owner or comment[len(ALIAS_PREFIX) :].partition(" ")[0]
        elements += [(body["family"], body["name"], text_of(element)) for element in body.get("elem", ())]
        objects.append({kind: kept})
    if not objects:
        return None
    return Firewall(owner, tuple(map(text_of, in_order(objects))), tuple(sorted(elements)))


def given(raw: Mapping[str, Any], owner: str) -> Firewall:
    """A document's ``firewall`` that holds the tables themselves, under ``nft``.

    Raises:
        Mistakes: it is no listing of our tables.
    """
    items = raw["nft"]
    ours = isinstance(items, Sequence) and all(map(_is_ours, items)) and set(raw) == {"nft"}
    found = listed(items) if ours else None
    if found is None:
        raise Mistakes(["firewall: nft: is no listing of the tables %s (nft -j list table inet %s)" % (TABLE, TABLE)])
    return replace(found, owner=owner)


def _is_ours(item: Any) -> bool:
    """Whether an object of a listing is one of our tables or in one."""
    if not isinstance(item, Mapping) or len(item) != 1:
        return False
    ((kind, body),) = item.items()
    place = "name" if kind == "table" else "table"
    return (
        kind in ("table", "chain", "set", "map", "rule")
        and isinstance(body, Mapping)
        and body.get("family") in FAMILIES
        and body.get(place) == TABLE
        and ("expr" in body if kind == "rule" else "name" in body)
    )


def lines(wall: Firewall) -> list[str]:
    """The tables for people, a line for each chain, set, element and rule; the same whatever order they were made in."""
    found = ["element %s %s: %s" % (family, name, _element_text(element)) for family, name, element in wall.elements]
    for raw in wall.objects:
        ((kind, body),) = json.loads(raw).items()
        if kind == "rule":
            rule = (body["family"], body["chain"], rule_text(body), body.get("comment", ""))
            found.append("rule %s %s: %s comment %s" % (*rule[:3], json.dumps(rule[3])))
        elif kind != "table":
            kept = {key: value for key, value in body.items() if key not in ("family", "table", "name")}
            found.append("%s %s %s %s" % (kind, body["family"], body["name"], text_of(kept) if kept else ""))
    return found


def _element_text(element: str) -> str:
    raw = json.loads(element)
    return " : ".join(map(words_of, raw)) if isinstance(raw, list) else words_of(raw)


def verbatim(wall: Firewall) -> list[Json]:
    """The tables in nft's own JSON, as a document has them under ``nft``."""
    of_sets: dict[tuple[str, str], list[Any]] = {}
    for family, name, element in wall.elements:
        of_sets.setdefault((family, name), []).append(json.loads(element))
    objects: list[Json] = [json.loads(text) for text in wall.objects]
    for item in objects:
        ((kind, body),) = item.items()
        if kind in ("set", "map") and (body["family"], body["name"]) in of_sets:
            body["elem"] = of_sets[body["family"], body["name"]]
    return objects


def commands(before: Firewall | None, after: Firewall | None) -> list[Json]:
    """nft's JSON commands from one state of the tables to another, to be sent as one transaction.

    Where only elements of sets differ, only those change: a new peer costs an element of each of its sets, and no
    counter begins anew.
    """
    if before is not None and after is not None and before.objects == after.objects:
        old, new = set(before.elements), set(after.elements)
        intervals = _intervals(before)
        deleted = _elements("delete", [_as_range(element, intervals) for element in old - new])
        return [*deleted, *_elements("add", new - old)]
    made: list[Json] = []
    for family in FAMILIES:
        table = {"table": {"family": family, "name": TABLE}}
        made += [{"add": table}, {"delete": table}]  # a table that is not there cannot be deleted
    if after is not None:
        objects = [json.loads(text) for text in after.objects]
        rules = [item for item in objects if "rule" in item]
        made += [{"add": item} for item in objects if "rule" not in item]
        made += [*_elements("add", after.elements), *({"add": item} for item in rules)]
    return made


def _intervals(wall: Firewall) -> set[tuple[str, str]]:
    """The sets of networks."""
    bodies = [body for text in wall.objects for body in json.loads(text).values()]
    return {(body["family"], body["name"]) for body in bodies if "interval" in body.get("flags", ())}


def _as_range(element: tuple[str, str, str], intervals: set[tuple[str, str]]) -> tuple[str, str, str]:
    """A single address at the end of a concatenation as a network: nft 1.0.6 else deletes no range, and finds none."""
    family, name, text = element
    item = json.loads(text)
    parts = item.get("concat") if isinstance(item, dict) else None
    if (family, name) not in intervals or not parts or not isinstance(parts[-1], str):
        return element
    return family, name, text_of({"concat": [*parts[:-1], {"prefix": {"addr": parts[-1], "len": 32}}]})


def _elements(verb: str, elements: Iterable[tuple[str, str, str]]) -> Iterator[Json]:
    of_sets: dict[tuple[str, str], list[Any]] = {}
    for family, name, element in sorted(elements):
        of_sets.setdefault((family, name), []).append(json.loads(element))
    for (family, name), some in of_sets.items():
        yield {verb: {"element": {"family": family, "table": TABLE, "name": name, "elem": some}}}


def udp_mappings(wall: Firewall | None) -> set[tuple[str, int, str]]:
    """The UDP port mappings in the tables: host address ("" for any), port, and the whole rule."""
    found = set()
    for text in wall.objects if wall else ():
        rule = json.loads(text).get("rule", {})
        if rule.get("chain") != "ports":
            continue
        rights = {text_of(part["match"]["left"]): part["match"]["right"] for part in rule["expr"] if "match" in part}
        port = rights.get(text_of({"payload": {"protocol": "udp", "field": "dport"}}))
        if port is not None:
            found.add(
                (str(rights.get(text_of({"payload": {"protocol": "ip", "field": "daddr"}}), "")), int(port), text)
            )
    return found
