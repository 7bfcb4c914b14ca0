"""A fleet of virtual machines: overlay.yml and a playbook of ``ip`` commands, against a bare ping of it, in one run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = "bench"
PING = "tests/bench/ping.yml"
CONVERGE = "playbooks/overlay.yml"
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
    play(PING)


def measured(playbook: str, **settings: str) -> tuple[float, float]:
    """The seconds of a playbook, and of a ping: the mean of one right before and one right after."""
    before = play(PING, **settings)
    seconds = play(playbook, **settings)
    return seconds, (before + play(PING, **settings)) / 2


def main(hosts: int = 3) -> None:
    rows: list[tuple[str, float, float]] = []
    try:
        for name, playbook in (("ip commands by hand", "tests/bench/handwritten.yml"), ("overlay.yml", CONVERGE)):
            fresh(hosts)
            rows.append((f"{name}, first", *measured(playbook)))
            rows += [(f"{name}, no change", *measured(playbook)) for _ in range(REPEATS)]
        rows.append(("overlay.yml, no change, ansible.cfg of a user", *measured(CONVERGE, **PLAIN)))
    finally:
        lab("down", LAB)
    print(f"\n{hosts} machines; each row beside a bare ansible.builtin.ping of them, right before and after\n")
    print(f"{'':48}{'seconds':>8}{'ping':>8}{'ratio':>8}")
    for name, seconds, ping in rows:
        print(f"{name:48}{seconds:8.1f}{ping:8.1f}{seconds / ping:8.2f}")


if __name__ == "__main__":
    main()
