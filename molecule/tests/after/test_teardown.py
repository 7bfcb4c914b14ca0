"""After teardown.yml a host is as it was before the first converge."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize("name", ["node1", "node2", "node3"])
def test_nothing_remains(nodes, saved_state, name):
    before = json.loads(saved_state.read_text())[name]

    assert nodes[name].differences(before) == []


def test_a_second_teardown_changes_nothing(play):
    output, changed = play("teardown")

    assert not any(changed.values()), output
