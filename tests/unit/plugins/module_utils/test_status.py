# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's status as its operator reads it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _status

DRIFT = "add route 10.244.1.0/24 via 198.51.100.12 dev flannel.ipip onlink proto podnet"
OVERLAY: dict[str, Any] = {
    "name": "overlay",
    "backend": "ipip",
    "network": "10.244.0.0/16",
    "subnet": "10.244.0.0/24",
    "public_ip": "198.51.100.11",
    "mtu": 1480,
    "routes": {"wanted": 2, "present": 2},
    "drift": [],
    "drift_count": 0,
    "shadowed": [],
    "unconfirmed": None,
    "error": "",
}


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def lines(*documents: dict[str, Any], **changes: Any) -> list[str]:
    return _status.text({"documents": list(documents), "watcher": None, "probes": [], **changes}).splitlines()


def test_a_sound_host_is_two_lines() -> None:
    assert lines(OVERLAY) == [
        "overlay: ipip, subnet 10.244.0.0/24, public_ip 198.51.100.11, mtu 1480",
        "  as it should be; 2 of 2 routes there",
    ]


def test_what_is_wrong_stands_below_its_document() -> None:
    wrong = {"drift": [DRIFT], "drift_count": 3, "shadowed": ["a takes packets from b"], "unconfirmed": 12.3}
    routes = {"wanted": 2, "present": 0}
    assert lines({**OVERLAY, **wrong, "routes": routes}, {**OVERLAY, "name": "lab", "subnet": "", "error": "torn"})[
        1:
    ] == [
        "  3 operations from its document; 0 of 2 routes there",
        f"  {DRIFT}",
        "  and 2 more",
        "  shadowed: a takes packets from b",
        "  its last change is undone in 12 s if nobody confirms it",
        "lab: not of the overlay",
        "  torn",
    ]


def test_watcher_and_probes() -> None:
    counted = {"repairs": {"route": 2, "link": 1}, "failures": 1, "held": 0, "last_repair": 1795468500.5}
    path = {"namespace": "web", "address": "10.244.1.2", "size": 1480, "sent": 3}
    probes = [
        {**path, "pod": "db", "node": "node2", "received": 3, "error": "", "time": 1795468501.0},
        {**path, "pod": "", "node": "", "received": 0, "error": "no answer", "time": 1795468501.0},
    ]
    assert lines(watcher={**counted, "running": True}, probes=probes) == [
        "watcher: running; repaired 1 link, 2 route, last 2026-11-23 21:15:00",
        "  1 repairs failed, 0 objects left alone for now",
        "probe: web to db node2 10.244.1.2: 1480 bytes, 3 of 3 answered, 2026-11-23 21:15:01",
        "probe: web to 10.244.1.2: 1480 bytes, 0 of 3 answered, no answer, 2026-11-23 21:15:01",
    ]
    idle = {"running": False, "repairs": {}, "failures": 0, "held": 0, "last_repair": None}
    assert lines(watcher=idle)[0] == "watcher: stopped; repaired nothing"


def test_a_host_without_an_overlay() -> None:
    assert lines() == ["no documents: this host has no overlay"]
