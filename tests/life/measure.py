"""Runs on a host, without its network libraries: does a fault, and tells how long the host was not as before.

usage: measure.py look | measure.py FAULT ADDRESS PART...; what it says is JSON. ADDRESS is of a pod of another host.

The kernel's notifications, as `ip monitor` and `nft monitor` print them, say when something changed. After each burst of them
the parts that the fault is about (PARTS; links and routes where none is named) are read with iproute2 and nft: the host is
repaired at the last notification before they are as before. At the end everything is read, and compared with the first time.
"""

from __future__ import annotations

import difflib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

QUIET = 0.04  # seconds without a notification after which a burst is over
CALM = 1.0  # seconds without a notification, before a fault and after its repair
LONGEST = 30.0  # seconds that a repair may take before it is given up
LEAST = 2.0  # seconds after a fault in which it shows, if at all
FIRST = Path("/run/measure.json")

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
        done = subprocess.run(["sh", "-c", PARTS[part]], capture_output=True, text=True, check=False)
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
    def __init__(self):
        self.monitors = [
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for words in MONITORS
        ]
        for monitor in self.monitors:
            os.set_blocking(monitor.stdout.fileno(), False)

    def next(self, timeout):
        """When something was told next; None if nothing was."""
        ready = select.select([monitor.stdout for monitor in self.monitors], [], [], timeout)[0]
        now = time.monotonic()
        if not any([source.read() for source in ready]):  # noqa: C419 - all are to be read
            return None
        return now

    def calm(self, seconds, longest):
        end = time.monotonic() + longest
        while time.monotonic() < end and self.next(seconds) is not None:
            pass

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
    began = time.monotonic()
    doing = subprocess.Popen(["sh", "-c", fault], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    broken = restored = first = last = None
    while time.monotonic() < began + LONGEST:
        at = burst = told.next(CALM)
        while at is not None and at < burst + 10 * QUIET:  # the rest of the burst
            first, last, at = first or burst, at, told.next(QUIET)
        same = look(parts) == wanted
        if not same:
            broken, restored = broken or burst or time.monotonic(), None
        elif broken:
            restored = restored or burst or time.monotonic()
        if burst is None and same and doing.poll() is not None and time.monotonic() > began + LEAST:
            break
    said = doing.communicate()[0]
    idle_watcher()
    after = look(PARTS)
    told.close()
    return {
        # Repaired sooner than one can look, all that was told was the fault and its repair.
        "seconds": round(restored - broken if restored and broken else last - first if last else 0.0, 2),
        "seen": broken is not None,
        "passes": passes(),
        "code": doing.returncode,
        "said": said,
        "differences": [line for line in difflib.ndiff(before, after) if line[0] in "+-"],
    }


if __name__ == "__main__":
    if sys.argv[1] == "look":
        print(json.dumps(look(PARTS)))
    else:
        print(json.dumps(measure(sys.argv[1], sys.argv[3:])))
