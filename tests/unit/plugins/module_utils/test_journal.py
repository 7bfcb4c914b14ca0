# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines of the journal, and what becomes of them where it does not take them."""

from __future__ import annotations

import os
import pathlib
import select
import socket
from collections.abc import Iterator

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _journal

MANY = 1000
"""More lines than any queue holds here (net.unix.max_dgram_qlen)."""


@pytest.fixture
def journal(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A journal that is there."""
    monkeypatch.setattr(_journal, "SOCKET", str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(_journal.SOCKET)
        yield receiver


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Both ends of standard error."""
    reading, writing = os.pipe()
    monkeypatch.setattr(_journal, "_STANDARD_ERROR", writing)
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue


def test_a_line_has_its_fields(journal: socket.socket) -> None:
    _journal.log("two\nlines", _journal.NOTICE, PODNET_BY="ip")
    lines = journal.recv(1 << 12)
    assert lines.startswith(b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=5\n")
    assert lines.endswith(b"PODNET_BY=ip\n")


def test_nobody_waits_for_a_journal_that_does_not_read(journal: socket.socket, stream: tuple[int, int]) -> None:
    for number in range(MANY):
        _journal.log(f"line {number}")
    assert b"MESSAGE=line 0\n" in journal.recv(1 << 12)
    assert select.select([stream[0]], [], [], 0)[0] == []


@pytest.mark.usefixtures("journal")
def test_what_is_too_long_for_the_journal_goes_to_standard_error_as_far_as_it_fits(stream: tuple[int, int]) -> None:
    _journal.log("x" * (16 << 20))
    assert os.read(stream[0], 1 << 16) == b"x" * (select.PIPE_BUF - 1) + b"\n"


def test_without_a_journal_it_goes_to_standard_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, stream: tuple[int, int]
) -> None:
    monkeypatch.setattr(_journal, "SOCKET", str(tmp_path / "none"))
    _journal.log("line")
    assert os.read(stream[0], 100) == b"line\n"
    for number in range(MANY):
        _journal.log(f"line {number} {'x' * 1000}")  # nobody reads it
    os.close(stream[0])
    _journal.log("nobody can")
    os.close(stream[1])
    _journal.log("nor is it open")
