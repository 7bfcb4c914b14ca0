"""Runs on a host, without its network libraries: does a fault, and tells how long the host was not as before.

usage: measure.py look | measure.py FAULT ADDRESS PART...; what it says is JSON. ADDRESS is of a pod of another host.

The kernel's notifications, as `ip monitor` and `nft monitor` print them, say when something changed. After each burst of them
the parts that the fault is about (PARTS) are read with iproute2 and nft, only when nobody else wants the processor: the host
is repaired at the last notification before they are as before. At the end everything is read, and compared with the first time.
"""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

QUIET = 0.04  # seconds without a notification after which a burst is over
CALM = 1.0  # seconds without a notification, before a fault and after its repair
LONGEST = 30.0  # seconds that a repair may take before it is given up
LEAST = 2.0  # seconds after a fault in which it shows, if at all
FIRST = Path("/run/measure.json")
IDLE = Path("/sys/fs/cgroup/podnet-measure")

MONITORS = (
    ["ip", "-4", "-o", "monitor", "all-nsid", "link", "address", "route", "netconf"],
    ["nft", "monitor"],
)
PARTS = {
    "links": "ip -d -j address",
    "routes": "ip -j -4 route show table all",
    "ports": "bridge -d -j link",
    "firewall": "nft -j --stateless list ruleset",
    "forwarding": "grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding",
    "web": "ip -n web -d -j address && ip -n web -j route",
}
# What is another each time a link is made, or at each reading, and says nothing of whether it is as it should be.
VOLATILE = {
    "ifindex",
    "link_index",
    "link_netnsid",
    "operstate",
    "valid_life_time",
    "preferred_life_time",
    "handle",
    "index",
}
VOLATILE |= {
    "link",
    "permaddr",
    "designated_port",
    "id",
    "no",
    "port_id",
    "topology_change",
    "topology_change_detected",
    "priority",
    "state",
}


def look(parts):
    """The named parts, as lines: the same whenever the host is."""
    found = []
    for part in parts:
        script = f"echo $$ >{IDLE}/cgroup.procs; {PARTS[part]}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        found += sorted(f"{part}: {item}" for line in (done.stdout + done.stderr).splitlines() for item in items(line))
    return found


def items(line):
    """What a line of JSON lists, or the line."""
    try:
        whole = json.loads(line)
    except ValueError:
        return [line]
    whole = whole["nftables"] if isinstance(whole, dict) else whole
    return [json.dumps(settled(item), sort_keys=True) for item in whole] if isinstance(whole, list) else [line]


def settled(item):
    if isinstance(item, list):
        told = [each for each in item if each not in ("NO-CARRIER", "M-DOWN")]
        kept = [settled(each) for each in told if not (isinstance(each, dict) and each.get("family") == "inet6")]
        return sorted(kept, key=json.dumps)
    if not isinstance(item, dict):
        return item
    return {
        name: settled(value) for name, value in item.items() if name not in VOLATILE and not name.endswith("_timer")
    }


class Notifications:
    """When the kernel told that something has changed, each read the moment that it is told."""

    def __init__(self):
        self.times = []
        self.monitors = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for each in MONITORS]
        for monitor in self.monitors:
            threading.Thread(target=self.read, args=(monitor.stdout.fileno(),), daemon=True).start()

    def read(self, source):
        while os.read(source, 1 << 16):
            self.times.append(time.monotonic())

    def calm(self, seconds, longest):
        """Waits until nothing has been told for so many seconds."""
        start = time.monotonic()
        while time.monotonic() < min(start + longest, max([start, *self.times]) + seconds):
            time.sleep(0.01)

    def close(self):
        for monitor in self.monitors:
            monitor.terminate()
            monitor.wait()


def idle_watcher(longest=30.0):
    """Waits until the watcher has nothing to do."""
    ask = ["systemctl", "show", "-P", "MainPID", "podnet-overlay-watch"]
    pid = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    end, before = time.monotonic() + longest, None
    while time.monotonic() < end:
        now = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        if now == before:
            return
        before = now
        time.sleep(0.7)


def passes(longest=5.0):
    """Whether a packet of a pod reaches one of another host, and an answer comes back."""
    end = time.monotonic() + longest
    ping = ["ip", "netns", "exec", "web", "ping", "-n", "-q", "-c", "1", "-W", "1", sys.argv[2]]
    while subprocess.run(ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        if time.monotonic() > end:
            return False
    return True


def measure(fault, parts):
    told = Notifications()
    if FIRST.exists():
        before = json.loads(FIRST.read_text())
    else:
        idle_watcher()
        before = look(PARTS)
        FIRST.write_text(json.dumps(before))
    wanted = [line for line in before if line.split(":")[0] in parts]
    told.calm(CALM, 10)
    told.times.clear()
    began = time.monotonic()
    doing = subprocess.Popen(["sh", "-c", fault], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seen = restored = 0.0  # when it was seen broken last, and repaired
    while time.monotonic() < began + LONGEST:
        told.calm(QUIET, 10 * QUIET)
        start, done, last = time.monotonic(), doing.poll() is not None, max(told.times, default=0.0)
        same = look(parts) == wanted
        if not same:
            seen, restored = start, 0.0
        elif not restored and (seen or (done and last)):
            restored = last if last > seen else start  # what is not told is repaired by now
        calm = time.monotonic() - max(told.times, default=began) > CALM
        if same and done and calm and time.monotonic() > began + LEAST:
            break
    said = doing.communicate()[0]
    idle_watcher()
    after = look(PARTS)
    told.close()
    first = min([*told.times, seen or restored])
    # Fault and repair may be told at once, where the watcher has the processor before who tells: then it took less than this.
    took = (restored - first or restored - began) if restored else LONGEST if seen else 0.0
    return {
        "seconds": round(took, 2),
        "seen": bool(seen),
        "passes": passes(),
        "code": doing.returncode,
        "said": said,
        "differences": [line for line in difflib.ndiff(before, after) if line[0] in "+-"],
    }


if __name__ == "__main__":
    IDLE.mkdir(exist_ok=True)
    (IDLE / "cpu.idle").write_text("1")  # linux/Documentation/admin-guide/cgroup-v2.rst: only when nobody else runs
    if sys.argv[1] == "look":
        print(json.dumps(look(PARTS)))
    else:
        print(json.dumps(measure(sys.argv[1], sys.argv[3:])))
