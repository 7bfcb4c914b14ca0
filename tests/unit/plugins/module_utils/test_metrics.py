# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The counters: what is written is read back, whatever a document is called."""

from __future__ import annotations

from ansible_collections.podnet.overlay.plugins.module_utils._metrics import METRICS, parse, render, sample
from hypothesis import example, given
from hypothesis import strategies as st

labels = st.dictionaries(st.sampled_from(("document", "kind")), st.text(), max_size=2)
values = st.dictionaries(
    st.tuples(st.sampled_from(sorted(METRICS)), labels).map(lambda pair: sample(pair[0], **pair[1])),
    st.floats(allow_nan=False) | st.integers(0, 2**53),
    max_size=8,
)


@given(values)
def test_what_is_written_is_read_back(counters) -> None:
    assert parse(render(counters)) == counters


@given(values)
def test_each_line_is_one_of_the_format(counters) -> None:
    lines = render(counters).split("\n")
    assert lines.pop() == ""
    assert sum(not line.startswith("#") for line in lines) == len(counters)
    assert [line.split()[2] for line in lines if line.startswith("# TYPE ")] == list(METRICS)


def test_a_name_with_what_the_format_has_a_meaning_for() -> None:
    (line,) = [
        line
        for line in render({sample("podnet_overlay_held", document='a "b"\\\n'): 1}).split("\n")
        if line.startswith("podnet_overlay_held")
    ]
    assert line == 'podnet_overlay_held{document="a \\"b\\"\\\\\\n"} 1'


@given(st.text())
@example("0 :")
def test_a_file_that_is_no_such_file_is_read_as_far_as_it_is(text: str) -> None:
    try:
        parse(text)
    except ValueError:
        raise AssertionError(text) from None
