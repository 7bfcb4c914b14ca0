"""What the firewall costs pods of two hosts: iperf3 with no table of ours, with the whole ruleset, and with 1,000 peers, in one run.

    sudo PYTHONPATH=.:.collections .venv/bin/python tests/bench/throughput.py [vxlan|ipip|host-gw]

Two namespaces are the hosts, so that the processors are the limit and not a wire. Without a backend: vxlan here, and ipip on a
machine of the lab. TCP moves segments of 64 KiB through the rules; small UDP packets each pay for themselves.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.kernel.hosts import Host
from tests.kernel.overlays import NODES, clause, converge, overlay

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = "bench"
ROUNDS, SECONDS = 5, 2
CLIENT, SERVER = ("node1", "web"), ("node2", "db")
LOADS = {"TCP": ("-P", "1"), "UDP of 64 bytes": ("-u", "-b", "0", "-l", "64")}
MANY = {f"10.{128 + n // 256}.{n % 256}.0/24": f"203.0.{n // 250}.{n % 250 + 1}" for n in range(1000)}


def firewall(name: str, *, many: bool = False) -> dict[str, Any]:
    """All that the firewall has: isolation, mappings, exceptions and trusted sources besides the defaults."""
    pods = [{**pod, "group": "all"} for pod in clause(name, "host-gw")["pods"]]
    members = [address for node in NODES.values() for address in node["pods"].values()]
    mapping = {"pod": "web", "port": 80, "protocol": "tcp", "host_port": 8080, "host_address": None}
    return {
        "pods": pods,
        "groups": {"all": [*members, *(subnet.replace(".0/24", ".2") for subnet in (MANY if many else ()))]},
        "policy": [{"to": "all", "network": "192.0.2.0/24", "protocol": "tcp", "ports": ["80", "8000-8100"]}],
        "ports": [{**mapping, "address": NODES[name]["pods"]["web"]}],
        "trusted_sources": [{"address": "198.51.100.98", "subnets": ["10.250.0.0/24"]}],
        "masquerade": {"nodes": True, "except": ["192.0.2.0/24"], "random_fully": True, "address": None},
        "peers": MANY if many else {},
    }


FLANNEL = (
    "add table ip flannel; add chain ip flannel postrouting { type nat hook postrouting priority 100; };"
    "add rule ip flannel postrouting mark & 0x4000 == 0x4000 return;"
    "add rule ip flannel postrouting ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 return;"
    "add rule ip flannel postrouting ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random;"
    "add chain ip flannel forward { type filter hook forward priority 0; };"
    "add rule ip flannel forward ip saddr 10.244.0.0/16 accept; add rule ip flannel forward ip daddr 10.244.0.0/16 accept"
)
"""What flanneld writes, without which a pod does not reach the world: this much conntrack and no guard."""


def bare(hosts: Mapping[str, Host], rules: str = "") -> None:
    """No table of ours, and so no conntrack either, but for what *rules* bring."""
    for name in NODES:
        hosts[name].sh(
            "for table in 'inet podnet_overlay' 'bridge podnet_overlay' 'ip flannel'; do nft delete table $table || true; done"
            + (f"; nft '{rules}'" if rules else "")
        )


def measured(hosts: Mapping[str, Host], load: str) -> float:
    """What one run of iperf3 brings to the other pod: Gbit/s of TCP, thousands of UDP packets a second."""
    (client, pod), (server, _pod) = CLIENT, SERVER
    address = NODES[server]["pods"][SERVER[1]]
    words = ("iperf3", "-J", "-t", str(SECONDS), "-c", address, *LOADS[load])
    end = json.loads(hosts[client].run("ip", "netns", "exec", pod, *words).stdout)["end"]
    if load == "TCP":
        return float(end["sum_received"]["bits_per_second"]) / 1e9
    received = end["sum"]["packets"] - end["sum"]["lost_packets"]
    return float(received) / end["sum"]["seconds"] / 1e3


def main(backend: str) -> None:
    with overlay(backend, firewall=firewall) as hosts:
        states: dict[str, Callable[[], Any]] = {
            "nothing": lambda: bare(hosts),
            "Flannel's masquerade": lambda: bare(hosts, FLANNEL),
            "the ruleset": lambda: (bare(hosts), converge(hosts, backend, firewall=firewall)),
            "1,000 peers": lambda: converge(hosts, backend, firewall=functools.partial(firewall, many=True)),
        }
        results: dict[str, dict[str, list[float]]] = {load: {state: [] for state in states} for load in LOADS}
        server = hosts[SERVER[0]].popen("ip", "netns", "exec", SERVER[1], "iperf3", "-s")
        try:
            for _ in range(ROUNDS):
                for state, reach in states.items():
                    reach()
                    for load in LOADS:
                        results[load][state].append(measured(hosts, load))
        finally:
            server.terminate()
            server.wait()
    for load, found in results.items():
        unit = "Gbit/s" if load == "TCP" else "thousand packets/s"
        base = found["nothing"]
        ratios = {
            state: statistics.median(value / other for value, other in zip(values, base))
            for state, values in found.items()
            if state != "nothing"
        }
        told = ", ".join(f"{ratio:.2f} with {state}" for state, ratio in ratios.items())
        print(f"{backend}, {load}: {statistics.median(base):.2f} {unit} with no firewall; ratio {told}", flush=True)


def on_a_machine(backend: str) -> None:
    """The same on a machine of the lab, whose kernel has IPIP."""
    import ansible

    def lab(*words: str, **options: Any) -> None:
        subprocess.run([sys.executable, "-m", "lab", *words], cwd=CHECKOUT, check=True, **options)

    site = Path(ansible.__file__).parents[1]
    try:
        lab("up", LAB, "--hosts", "1", "--kind", "vm")
        lab("copy", LAB, "node1")
        packed = subprocess.run(
            ["tar", "-C", str(site), "-c", "ansible/module_utils", "ansible/release.py"],
            check=True,
            capture_output=True,
        ).stdout
        lab("shell", LAB, "node1", "--", "mkdir site && tar -x -C site && : >site/ansible/__init__.py", input=packed)
        command = f"PYTHONPATH=/root/site:.:.collections python3 tests/bench/throughput.py {backend}"
        lab("shell", LAB, "node1", "--", f"cd checkout && {command}")
    finally:
        lab("down", LAB)


if __name__ == "__main__":
    if sys.argv[1:]:
        main(sys.argv[1])
    else:
        main("vxlan")
        on_a_machine("ipip")
