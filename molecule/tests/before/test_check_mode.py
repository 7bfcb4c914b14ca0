"""Check mode on hosts that have no overlay yet: it predicts, and keeps its hands off."""

from __future__ import annotations

import json


def test_check_predicts_changes_and_makes_none(nodes, play, saved_state):
    before = {name: node.state() for name, node in nodes.items()}
    saved_state.write_text(json.dumps(before))

    output, changed = play("overlay", "--check", "--diff")

    assert all(changed[name] for name in nodes), output
    for name, node in nodes.items():
        assert node.differences(before[name]) == []
    assert not (saved_state.parent / "overlay-leases.yml").exists()
