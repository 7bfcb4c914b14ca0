# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stays on a host is whole: the command runs with these files and no others."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

from ansible_collections.podnet.overlay.plugins.module_utils import _package

ENGINE = pathlib.Path(_package.__file__).parent


def needed(names: set[str]) -> set[str]:
    """The files that *names* import, and those that these import."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        for node in ast.walk(ast.parse((ENGINE / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names |= ({node.module} if node.module else {alias.name for alias in node.names}) - found
    return found


def test_the_command_has_all_that_it_imports_and_nothing_else() -> None:
    assert set(_package.PARTS) == needed({"_cli"}) | {"_package"}


def test_the_command_runs_from_its_files_alone(tmp_path: pathlib.Path) -> None:
    for path, text in _package.contents(sys.executable, systemd=True).items():
        target = tmp_path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace(_package.FOLDER, f"{tmp_path}{_package.FOLDER}"), encoding="utf-8")
    command = tmp_path / "usr/local/sbin/podnet-overlay"
    done = subprocess.run(
        [sys.executable, "-I", str(command), "--help"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert "teardown" in done.stdout


def test_the_digest_does_not_depend_on_the_interpreter_but_on_each_file(monkeypatch) -> None:
    digest = _package.digest()
    assert _package.contents("/usr/bin/python3", systemd=False)[_package.DIGEST] == f"{digest}\n"
    monkeypatch.setattr(_package, "_source", lambda name: "" if name == "_netns" else name)
    assert _package.digest() != digest
