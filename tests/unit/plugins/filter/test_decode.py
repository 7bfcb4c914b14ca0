# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter over ``_frames``: what it takes, and what it says of the rest."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.podnet.overlay.plugins.filter import decode

pytest.importorskip("scapy")

FRAME = {
    "namespace": "v1",
    "interface": "veth0",
    "link": "ethernet",
    "direction": "in",
    "time": 1617286263.636646,
    "length": 0,
    "data": "",
}


@pytest.mark.parametrize("wrong", [{}, {**FRAME, "data": "%"}, {**FRAME, "time": "x"}, "text"])
def test_what_is_no_frame_is_told(wrong: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="no frame of podnet"):
        decode.decode([wrong])


def test_the_filter_takes_a_list() -> None:
    found = decode.FilterModule().filters()["decode"]([FRAME, FRAME])
    assert [frame["interface"] for frame in found] == ["veth0", "veth0"]
    with pytest.raises(AnsibleFilterError, match="a list of frames is wanted"):
        decode.decode({})


def test_without_scapy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("scapy"):
            raise ImportError("No module named 'scapy'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AnsibleFilterError, match="pip install scapy"):
        decode.decode([FRAME])
