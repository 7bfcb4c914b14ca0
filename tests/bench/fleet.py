"""A fleet of virtual machines: overlay.yml and a playbook of ``ip`` commands, against a bare ping of it, in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = "bench"
REPEATS = 2
PLAIN = {"ANSIBLE_PIPELINING": "False", "ANSIBLE_FORKS": "5"}
"""What a user's ansible.cfg has where it says nothing."""


def lab(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "lab", *words], cwd=CHECKOUT, check=True)


def play(playbook: str, **settings: str) -> float:
    """The seconds that a playbook takes."""
    environment = {**os.environ, **settings, "PODNET_LAB": LAB}
    start = time.perf_counter()
    command = ["ansible-playbook", "-i", "inventories/lab", playbook]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{playbook} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def fresh(hosts: int) -> None:
    lab("up", LAB, "--hosts", str(hosts), "--kind", "vm")
    play("tests/bench/ping.yml")


def main(hosts: int = 3) -> None:
    rows: list[tuple[str, float]] = []
    try:
        fresh(hosts)
        ping = min(play("tests/bench/ping.yml") for _ in range(REPEATS))
        for name, playbook in (
            ("ip commands by hand", "tests/bench/handwritten.yml"),
            ("overlay.yml", "playbooks/overlay.yml"),
        ):
            fresh(hosts)
            rows.append((f"{name}, first", play(playbook)))
            rows.append((f"{name}, no change", min(play(playbook) for _ in range(REPEATS))))
        plain = play("tests/bench/ping.yml", **PLAIN)
        rows.append(("overlay.yml, no change, without pipelining", play("playbooks/overlay.yml", **PLAIN)))
        rows.append(("ping, without pipelining", plain))
    finally:
        lab("down", LAB)
    print(f"\n{hosts} machines; ratio to a bare ansible.builtin.ping of them in the same run\n")
    print(f"{'ping':44}{ping:7.1f} s{1:7.2f}")
    for name, seconds in rows:
        print(f"{name:44}{seconds:7.1f} s{seconds / ping:7.2f}")


if __name__ == "__main__":
    main()
