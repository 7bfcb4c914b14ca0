# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nft's JSON (libnftables-json(5)) as the text that nft prints, for people. Pure."""

from __future__ import annotations

import re
import typing as t

Item = t.Mapping[str, t.Any]

_TEMPLATES = {  # the first of which all parts are there
    "payload": ("{protocol} {field}", "@{base},{offset},{len}"),
    "meta": ("meta {key}",),
    "ct": ("ct {dir} {key}", "ct {key}"),
    "fib": ("fib {flags} {result}",),
    "prefix": ("{addr}/{len}",),
    "elem": ("{val}",),
    "map": ("{key} map {data}",),
    "vmap": ("{key} vmap {data}",),
    "mangle": ("{key} set {value}",),
    "set": ("{op} {set} {{ {elem} }}",),
    "jump": ("jump {target}",),
    "goto": ("goto {target}",),
    "reject": ("reject with {type} {expr}", "reject with {type}"),
    "queue": ("queue num {num}",),
    "log": ('log prefix "{prefix}"',),
    "limit": ("limit rate {rate} {rate_unit}/{per}", "limit rate {rate}/{per}"),
    "xt": ("xt {type} {name}",),
    **{
        kind: (f"{kind} to {{addr}}:{{port}}", f"{kind} to {{addr}}", f"{kind} to :{{port}}")
        for kind in ("masquerade", "snat", "dnat", "redirect")
    },
}
_JOINTS = {"concat": " . ", "range": "-", "set": ", ", **{sign: f" {sign} " for sign in ("&", "|", "^", "<<", ">>")}}


def rule_text(rule: Item) -> str:
    """A rule without its counter and comment."""
    words = rule.get("text") or " ".join(text(part) for part in rule["expr"] if "counter" not in part)
    return re.sub(r"\bmeta ([io]if)", r"\1", words)


def text(expression: t.Any, scalar: str = "{}") -> str:
    """An expression or statement as nft prints it."""
    if isinstance(expression, list):
        return ",".join(text(part, scalar) for part in expression)
    if not isinstance(expression, dict):
        name = '"' in scalar and not str(expression).startswith("@")
        return scalar.format(expression) if isinstance(expression, int) or name else str(expression)
    kind, body = next(iter(expression.items()))
    if kind == "match":
        left, sign, right = body["left"], body["op"], body["right"]
        form = '"{}"' if text(left).endswith("ifname") else "0x{:08x}" if "mark" in text(left) else "{}"
        shown = "" if sign == "in" or (sign == "==" and "&" not in left) else f"{sign} "
        return f"{text(left, form)} {shown}{text(right, form)}"
    if kind in _JOINTS and isinstance(body, list):
        parts = (
            " : ".join(map(text, part)) if kind == "set" and isinstance(part, list) else text(part, scalar)
            for part in body
        )
        joined = _JOINTS[kind].join(parts)
        return f"{{ {joined} }}" if kind == "set" else joined
    if kind == "fib":
        body = {**body, "flags": " . ".join(body["flags"])}
    for template in _TEMPLATES.get(kind, ()):
        try:
            return template.format_map({key: text(part) for key, part in (body or {}).items()})
        except KeyError:
            continue
    return str(kind)
