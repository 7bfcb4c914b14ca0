"""Ends a run of the collection by SIGKILL at a point of its own choosing, which the same number finds again."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from typing import Any

from tests.kernel.hosts import CHECKOUT, FORK, Host

SEED = int(os.environ.get("PODNET_SEED") or int.from_bytes(os.urandom(4), "big"))
"""Of all randomness of a run. PODNET_SEED=... repeats it."""
ENGINE = f"{os.sep}module_utils{os.sep}"
TOUCHING = {
    *("open", "mkdir", "chmod", "fchmod", "write", "flush", "fsync", "replace", "unlink", "rmdir", "close", "flock"),
    *("send", "sendto", "sendmsg", "fork_exec", "symlink", "link", "rename"),
}
"""What touches files, the kernel and other programs: the points where a kill may leave something half done."""
MOUNTING = {"_mount_call", "_name_namespace", "_enter", "_run_nft"}
HALF_DONE = {"fchmod", "_mount_call"}
"""Where a file is there and not yet in its place, and where a namespace has its name and is not yet mounted there."""


class Kill:
    """Counts points, and ends this process at the one wanted; with 0 only counts."""

    def __init__(self, at: int, *, anywhere: bool = False, only: Collection[str] = ()) -> None:
        self._at, self._anywhere, self._only = at, anywhere, only
        self._seen = FORK.Value("q", 0, lock=False)

    @property
    def seen(self) -> int:
        """How many points the run came to."""
        return int(self._seen.value)

    def arm(self) -> None:
        """From now on in this process, its other threads too."""
        threading.setprofile(self._count)
        sys.setprofile(self._count)

    def _count(self, frame: Any, event: str, what: Any) -> None:
        code = frame.f_code
        if self._only:
            counts = event in ("call", "c_call") and getattr(what, "__name__", code.co_name) in self._only
        elif event.startswith("c_"):
            counts = getattr(what, "__name__", "") in TOUCHING or (self._anywhere and ENGINE in code.co_filename)
        else:
            counts = (self._anywhere and ENGINE in code.co_filename) or code.co_name in MOUNTING
        if counts:
            self._seen.value += 1
            if self._seen.value == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def module(name: str, **arguments: Any) -> Callable[[], None]:
    """A module's run, to be given to ``attempt``."""
    import importlib

    main: Callable[[], None] = importlib.import_module(
        f"ansible_collections.podnet.overlay.plugins.modules.{name}"
    ).main

    def run() -> None:
        with tempfile.NamedTemporaryFile("w+", suffix=".json", dir="/tmp") as file:
            json.dump({"ANSIBLE_MODULE_ARGS": arguments}, file)
            file.flush()
            sys.argv[1:] = [file.name]
            main()

    return run


def command(*words: str) -> Callable[[], None]:
    """A run of the command ``podnet-overlay``, to be given to ``attempt``."""
    from ansible_collections.podnet.overlay.plugins.module_utils import _cli

    return lambda: sys.exit(_cli.main(words))


def started(host: Host | None, run: Callable[[], None], kill: Kill | None = None) -> Any:
    """A process that runs it on *host*, or here."""

    def go() -> None:
        if host is not None:
            for name in ("net", "mnt"):
                descriptor = os.open(f"/proc/{host.pid}/ns/{name}", os.O_RDONLY)
                assert ctypes.CDLL(None).setns(descriptor, 0) == 0
            os.chdir(CHECKOUT)
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the process ends soon
        if kill is not None:
            kill.arm()
        run()

    process = FORK.Process(target=go)
    process.start()
    return process


def attempt(
    host: Host | None, run: Callable[[], None], at: int, *, anywhere: bool = False, only: Collection[str] = ()
) -> tuple[bool, int]:
    """Run it on *host* (or here) and kill it at the point *at*; whether that came, and how many points there were.

    With *only*, points are the beginnings of calls of these names.
    """
    kill = Kill(at, anywhere=anywhere, only=only)
    process = started(host, run, kill)
    process.join(120)
    return process.exitcode == -signal.SIGKILL, kill.seen
