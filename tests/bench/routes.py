"""Ten thousand routes: the engine against iproute2, in one run, in a network namespace of its own. Needs root.

    sudo .venv/bin/python tests/bench/routes.py [COUNT]

Writing starts at the peer table and the text of a batch; what ``ip -j route show`` prints is read, as any user of it must.
The engine's start and imports are left out, as is the start of ``ip -batch`` (an empty one is taken off).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

if os.environ.get("PODNET_BENCH") != "inside":
    os.execvpe(  # noqa: S606 - the whole benchmark runs in namespaces of its own
        "unshare", ["unshare", "-mn", sys.executable, *sys.argv], {**os.environ, "PODNET_BENCH": "inside"}
    )

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".collections"))
from ansible_collections.podnet.overlay.plugins.module_utils._difference import difference
from ansible_collections.podnet.overlay.plugins.module_utils._kernel import Kernel
from ansible_collections.podnet.overlay.plugins.module_utils._model import Route, of_type
from ansible_collections.podnet.overlay.plugins.module_utils._state import desired_state

COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
REPEATS = 5


def sh(command: str, text: str = "") -> None:
    subprocess.run(["sh", "-euc", command], input=text, check=True, text=True, stdout=subprocess.DEVNULL)


def best(act: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """The shortest of some runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        prepare()
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)


def flush() -> None:
    sh("ip route flush proto 244; ip route flush proto boot")


def main() -> None:
    sh("mount -t tmpfs none /run; ip link set lo up; ip link add eth1 type bridge")
    sh("ip addr add 198.51.100.11/24 dev eth1; ip link set eth1 up")
    table = {f"10.{n // 256}.{n % 256}.0/24": f"198.51.100.{12 + n % 200}" for n in range(COUNT)}
    clause = {
        "backend": "ipip",
        "subnet": "203.0.113.0/24",
        "public_ip": "198.51.100.11",
        "dev": "eth1",
        "table": table,
    }
    batch = "".join(f"route add {dst} via {via} dev eth1 onlink proto 244\n" for dst, via in table.items())

    with Kernel() as kernel:
        desired = desired_state({"peers": clause}, "overlay")

        def write() -> None:
            kernel.perform(difference(desired_state({"peers": clause}, "overlay"), {}))

        def compare() -> None:
            assert difference(desired, kernel.observe([""])) == []

        empty = best(lambda: sh("ip -batch -"))
        ip_write = best(lambda: sh("ip -batch -", batch), flush) - empty
        our_write = best(write, flush)
        assert len(list(of_type(kernel.observe([""]), Route))) >= COUNT
        ip_show = best(lambda: subprocess.run(["ip", "-j", "route", "show"], check=True, stdout=subprocess.PIPE))
        our_compare = best(compare)
    for name, ours, theirs, limit in (("write", our_write, ip_write, 2), ("dump and compare", our_compare, ip_show, 3)):
        what = "ip -batch" if name == "write" else "ip -j route show"
        print(
            f"{COUNT} routes, {name}: {ours:.3f} s, {what}: {theirs:.3f} s, ratio {ours / theirs:.2f} (at most {limit})"
        )


if __name__ == "__main__":
    main()
