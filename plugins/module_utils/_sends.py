# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""By which backend a document sends, and whose packets it takes besides, in words that tell one of a kind from another. Pure.

With nothing but the standard library, as node_info needs it.
"""

from __future__ import annotations

import typing as t

_KEYS = ("backend", "tunnel", "direct_routing", "vni", "port")


def sends(document: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """By which backend the host of a document with peers sends."""
    peers = document.get("peers") or {}
    tunnel = peers.get("dev")
    links = document.get("links") or []
    vxlan = next((link.get("vxlan") or {} for link in links if link.get("name") == tunnel), {})
    told = (peers.get("backend"), tunnel, bool(peers.get("direct_routing")), vxlan.get("id"), vxlan.get("port"))
    return dict(zip(_KEYS, told))


def also(document: t.Mapping[str, t.Any]) -> dict[str, t.Any] | None:
    """Whose packets the host takes too, on its way from one backend to another; the same keys."""
    other = (document.get("firewall") or {}).get("also")
    return {key: other.get(key) for key in _KEYS} if other else None
