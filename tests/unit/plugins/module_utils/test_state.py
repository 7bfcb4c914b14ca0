# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host keeps of its documents: what is written is read back, and what cannot be read is told."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _rollback, _state
from ansible_collections.podnet.overlay.plugins.module_utils._model import Mistakes, Sysctl
from ansible_collections.podnet.overlay.plugins.module_utils._state import Failed, Saved
from hypothesis import given
from hypothesis import strategies as st

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=40,
)
documents = st.dictionaries(st.text(min_size=1), values, max_size=6)
sysctls = st.builds(
    Sysctl,
    st.sampled_from(("", "web")),
    st.text(min_size=1),
    st.text(),
    st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple),
)


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A host's folders."""
    monkeypatch.setattr(_state, "DOCUMENT_FOLDER", str(tmp_path / "etc"))
    monkeypatch.setattr(_state, "STATE_FOLDER", str(tmp_path / "var"))
    monkeypatch.setattr(_state, "LOCK_FILE", str(tmp_path / "lock"))
    return tmp_path


def wrote(saved: Saved, before: Saved | None = None) -> None:
    _state.begin(before, saved, saved)()


@given(documents)
def test_a_document_is_read_back_as_it_was_given(document: dict[str, Any]) -> None:
    assert json.loads(_state.render(document)) == document


@given(documents)
def test_a_document_as_people_read_it_has_no_long_lines_but_for_long_values(document: dict[str, Any]) -> None:
    text = _state.render(document)
    assert text.endswith("\n")
    assert all(len(line) <= 170 or '"' in line for line in text.splitlines())


paths = st.lists(st.text(), max_size=2)


@given(st.lists(sysctls, max_size=3), st.lists(documents, max_size=2), paths, paths)
def test_what_is_kept_is_read_back(before, previous, folders, files) -> None:
    saved = Saved("overlay", {}, tuple(before), tuple(previous), tuple(folders), tuple(files))
    raw = json.loads(saved.as_json())
    assert tuple(_state._sysctl(item) for item in raw["before"]) == saved.before
    assert [item["restores"] for item in raw["before"]] == [[list(pair) for pair in item.restores] for item in before]
    assert (tuple(raw["previous"]), tuple(raw["folders"])) == (saved.previous, saved.folders)
    assert tuple(raw["files"]) == saved.files


def test_a_run_that_ends_leaves_two_files_and_one_that_is_torn_down_none(folder: pathlib.Path) -> None:
    before = (Sysctl("", "net.ipv4.ip_forward", "0", (("a", "b"),)),)
    saved = Saved("overlay", {"links": []}, before, (), ("/x",), ("/x/y",))
    with _state.locked():
        wrote(saved)
        loaded = _state.load("overlay")
        assert loaded == saved
        assert loaded is not None
        assert loaded.before[0].restores == (("a", "b"),)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json")) == [
        "etc/overlay.json",
        "var/overlay.json",
    ]
    assert oct((folder / "etc/overlay.json").stat().st_mode)[-3:] == "600"
    with _state.locked():
        _state.keep(None, "overlay")
    assert list(folder.iterdir()) == []


def test_until_its_end_the_old_document_is_the_document(folder: pathlib.Path) -> None:
    old, new = Saved("overlay", {"links": []}), Saved("overlay", {"routes": []})
    wrote(old)
    end = _state.begin(old, dataclasses.replace(old, previous=(new.document,)), new)
    assert _state.load("overlay") == dataclasses.replace(old, previous=(new.document,))
    end()
    assert _state.load("overlay") == new
    assert not [path for path in folder.rglob("*") if path.name.endswith(".new")]


def test_a_state_of_0_3_0_has_its_document_in_it_and_moves(folder: pathlib.Path) -> None:
    (folder / "var").mkdir()
    old = {"version": 1, "name": "overlay", "document": {"links": []}, "before": [], "previous": [], "folders": []}
    (folder / "var/overlay.json").write_text(json.dumps(old))
    saved = _state.load("overlay")
    assert saved == Saved("overlay", {"links": []})
    assert (_state.names(), _state.documents()) == (["overlay"], [])
    _state.begin(saved, saved, saved)()
    assert _state.documents() == ["overlay"]
    assert json.loads((folder / "var/overlay.json").read_text()) == json.loads(saved.as_json())
    assert _state.load("overlay") == saved


@given(st.integers(0, 400))
def test_a_torn_state_is_told_and_names_its_file(length: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_state, "DOCUMENT_FOLDER", f"{name}/etc")
        patch.setattr(_state, "STATE_FOLDER", f"{name}/var")
        whole = Saved("overlay", {}, (Sysctl("", "net.ipv4.ip_forward", "0"),), ({"links": []},)).as_json()
        os.mkdir(f"{name}/var")
        pathlib.Path(f"{name}/var/overlay.json").write_text(whole[: min(length, len(whole) - 2)])
        with pytest.raises(Mistakes, match=r"var/overlay\.json"):
            _state.load("overlay")


@pytest.mark.parametrize("text", ["[]", "7", '{"version": 3}', '{"version": 2}', '{"version": 2, "before": 1}', "\x00"])
def test_a_state_that_is_none_is_told(folder: pathlib.Path, text: str) -> None:
    (folder / "var").mkdir()
    (folder / "var/overlay.json").write_text(text)
    with pytest.raises(Mistakes, match=r"var/overlay\.json"):
        _state.load("overlay")


def test_what_cannot_be_written_leaves_what_was_there(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Saved("overlay", {"links": []}), Saved("overlay", {"routes": []})
    wrote(old)
    (folder / "etc/.overlay.json.new").mkdir()  # where the new document would be prepared
    with pytest.raises(Failed, match=r"cannot write .*/etc/overlay.json \(Is a directory\)"):
        _state.begin(old, dataclasses.replace(old, previous=(new.document,)), new)
    assert _state.load("overlay") == old


@pytest.mark.parametrize("forget", [lambda: _state.keep(None, "overlay"), lambda: _rollback.disarm("overlay")])
def test_what_is_forgotten_is_so_on_the_disk_too(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], object]
) -> None:
    """Else a power loss brings it back: a document that was torn down, or the undoing of a change that was confirmed."""
    monkeypatch.setattr(_rollback, "FOLDER", str(folder / "var/rollback"))
    wrote(Saved("overlay", {"links": []}))
    _rollback._write(_rollback.Pending("overlay", None, 30, 0, ""))
    unsynced: set[str] = set()

    def unlink(path: str, real: Callable[[str], None] = os.unlink) -> None:
        if os.path.exists(path):
            unsynced.add(os.path.dirname(path))
        real(path)

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        unsynced.discard(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(os, "fsync", fsync)
    forget()
    assert unsynced == set()


def test_the_lock_is_one_however_many_come_and_go(folder: pathlib.Path) -> None:
    inside, most, rounds = [], [], 40

    def work() -> None:
        for _round in range(rounds):
            with _state.locked():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 4 * rounds
    assert list(folder.iterdir()) == []


def test_a_lock_that_is_held_is_not_waited_for_without_end(folder: pathlib.Path) -> None:
    with _state.locked(), pytest.raises(Failed, match="another run holds"), _state.locked(timeout=0.1):
        pass
