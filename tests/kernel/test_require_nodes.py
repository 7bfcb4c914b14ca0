"""An inventory without nodes is refused, however the run is limited, and without contacting a host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.hosts import CHECKOUT

NOWHERE = "a[1:3] ansible_host=192.0.2.1 ansible_become=true\n"


def play(folder: Path, inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "hosts").write_text(inventory)
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [program, "-i", folder / "hosts", CHECKOUT / "playbooks" / "require_nodes.yml", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("inventory", "options"), [("[overly]\n" + NOWHERE, []), ("[overly]\n" + NOWHERE, ["--limit=a2"]), ("", [])]
)
def test_no_node_is_an_error(tmp_path: Path, inventory: str, options: list[str]) -> None:
    done = play(tmp_path, inventory, *options)
    assert done.returncode != 0
    assert "The inventory has no hosts in a group overlay." in done.stdout + done.stderr


def test_a_node_is_enough(tmp_path: Path) -> None:
    done = play(tmp_path, "[overlay]\n" + NOWHERE, "--limit=a2")
    assert done.returncode == 0, done.stdout
