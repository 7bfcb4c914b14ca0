"""Running commands, saying what happens, and the one error of this package."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_started = time.monotonic()


class LabError(Exception):
    """What went wrong, why, and what to do; printed without a traceback."""


def say(text: str) -> None:
    """Prints one line of progress with the seconds since the start."""
    print(f"lab {time.monotonic() - _started:5.1f}s  {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    check: bool = True,
    timeout: float | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs COMMAND quietly; a failure becomes a LabError that ends with the command's own last words."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            input="" if stdin is None else stdin,
        )
    except FileNotFoundError as error:
        raise LabError(
            f"{what}: {words[0]} is not installed. `python3 -m lab requirements` says how to get it."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: no end after {timeout:.0f} s: {shlex.join(words)}") from error
    if check and done.returncode:
        words_said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise LabError(f"{what}: exit {done.returncode} from {shlex.join(words)}\n{words_said}")
    return done
