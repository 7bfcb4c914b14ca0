"""A lab: a few hosts under one name, with all that is known of them in `.lab/NAME`.

What a lab starts is written down there before it can fail, so that `down` ends it whatever happened in between.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from . import containers, image, machines
from .process import LabError, run, say

CHECKOUT = Path(__file__).resolve().parent.parent
LABS = CHECKOUT / ".lab"
# What RFC 5737 gives to documentation: a network for each segment, or each lab of containers.
NETWORKS = tuple(IPv4Network(text) for text in ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24"))
FIRST_ADDRESS = 11
PATIENCE = 240.0  # seconds until a host must answer ssh: an emulated boot on a loaded machine is slow
VERSION = 1
MAKERS = {"demo": "make demo", "labs": "make lab LAB=flannel_ipip"}

_given_up = threading.Event()


@dataclass(frozen=True)
class Host:
    """One host: where ssh finds it, and its addresses on eth1, eth2 and so on."""

    name: str
    ssh_address: str
    ssh_port: int
    underlay: tuple[str, ...]


@dataclass(frozen=True)
class Lab:
    """What `.lab/NAME/lab.json` says: the best backend that its hosts can do, and the folder of ssh's sockets among it."""

    name: str
    kind: str
    backend: str
    control: str
    hosts: tuple[Host, ...] = ()
    version: int = VERSION

    @property
    def folder(self) -> Path:
        return LABS / self.name

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    def save(self) -> None:
        (self.folder / "lab.json").write_text(json.dumps(asdict(self), indent=2) + "\n")
        self.ssh_config.write_text(ssh_config(self))

    def check_host(self, name: str) -> None:
        known = [host.name for host in self.hosts]
        if name not in known:
            raise LabError(f"lab {self.name} has no host {name}. It has: {', '.join(known)}.")

    def ssh(self, host: str, *words: str) -> list[str]:
        self.check_host(host)
        return ["ssh", "-F", str(self.ssh_config), host, *words]


def names() -> list[str]:
    return sorted(path.parent.name for path in LABS.glob("*/lab.json"))


def load(name: str) -> Lab:
    """The lab of that name, or an error that says how to make it."""
    path = LABS / name / "lab.json"
    if not path.exists():
        maker = MAKERS.get(name, f"python3 -m lab up {name}")
        raise LabError(f"there is no lab {name}. `{maker}` makes it; `python3 -m lab list` shows what there is.")
    try:
        data = json.loads(path.read_text())
        hosts = tuple(Host(**(host | {"underlay": tuple(host["underlay"])})) for host in data.pop("hosts"))
        return Lab(**data, hosts=hosts)
    except (TypeError, ValueError, KeyError) as error:
        raise LabError(
            f"{path} is of another version or torn ({error}). `python3 -m lab up {name}` makes it anew."
        ) from error


def choose(kind: str) -> str:
    """What `auto` means here: containers where this kernel gives them ipip, else machines with a kernel of their own."""
    if kind != "auto":
        return kind
    return "container" if containers.carry_ipip() else "vm"


def up(name: str, count: int, kind: str, segments: int) -> Lab:
    """Makes a lab from nothing, whatever a former one of that name left. On any failure nothing of it remains."""
    if not name.replace("-", "").isalnum():
        raise LabError(f"{name!r} is no name for a lab: letters, digits and dashes only.")
    if segments > 1 and kind == "container":
        raise LabError("containers share one segment. For more ask for machines: --kind vm.")
    down(name)
    source = image.ensure()
    backend = "ipip" if kind == "vm" or containers.carry_ipip() else "vxlan"
    lab = Lab(name, kind, backend, tempfile.mkdtemp(prefix="podnet-lab-"))
    try:
        lab.folder.mkdir(parents=True)
        lab.save()
        shutil.copy(source.ssh_key, lab.folder / "id_ed25519")
        lab = _up_machines(lab, source, count, segments) if kind == "vm" else _up_containers(lab, source, count)
    except BaseException:
        say(f"stopping what was started of lab {name}")
        down(name)
        shutil.rmtree(lab.control, ignore_errors=True)
        raise
    say(f"lab {name} is up: {', '.join(host.name for host in lab.hosts)}; the overlay's backend here is {backend}")
    return lab


def down(name: str) -> bool:
    """Ends a lab and removes its folder; says whether there was one. Safe to repeat."""
    folder = LABS / name
    if not folder.exists():
        return False
    for pid_file in folder.glob("*.pid"):
        machines.stop(pid_file)
    try:
        state = json.loads((folder / "lab.json").read_text())
    except (OSError, ValueError):  # killed before it was written whole
        state = {}
    if state.get("kind") == "container":
        containers.down(name)
    if "control" in state:
        shutil.rmtree(state["control"], ignore_errors=True)
    shutil.rmtree(folder)
    return True


def is_running(lab: Lab) -> bool:
    if lab.kind == "vm":
        return all(machines.is_running(lab.folder / f"{host.name}.pid") for host in lab.hosts)
    return containers.is_running(lab.name)


def cut_power(lab: Lab, host: str) -> None:
    """A machine loses its power and has it again at once."""
    lab.check_host(host)
    machines.cut_power(lab.folder / f"{host}.pid")


def copy(lab: Lab, host: str, target: str) -> None:
    """Puts the checkout's files, as git knows them with what is not yet committed, into TARGET on HOST."""
    lab.check_host(host)
    listed = run(
        ["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], what="listing files"
    )
    present = "\0".join(path for path in listed.stdout.split("\0") if path and (CHECKOUT / path).exists())
    pack = ["tar", "-C", str(CHECKOUT), "-c", "--null", "--no-recursion", "-T", "-"]
    unpack = lab.ssh(host, f"mkdir -p {target} && tar -C {target} -x")
    packed = subprocess.run(pack, input=present.encode(), stdout=subprocess.PIPE, check=False)
    if packed.returncode or subprocess.run(unpack, input=packed.stdout, check=False).returncode:
        raise LabError(f"copying the checkout to {host} failed; see above.")


def ssh_config(lab: Lab) -> str:
    """One connection to each host, kept open; no host key checks, since every lab is new; ciphers that emulation bears."""
    common = {
        "User": "root",
        "IdentityFile": lab.folder / "id_ed25519",
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ConnectTimeout": 30,
        "ControlMaster": "auto",
        "ControlPath": f"{lab.control}/%C",
        "ControlPersist": "15m",
        "HostKeyAlgorithms": "ssh-ed25519",
        "KexAlgorithms": "curve25519-sha256",
        "Compression": "no",
    }
    blocks = [(host.name, {"HostName": host.ssh_address, "Port": host.ssh_port}) for host in lab.hosts]
    lines: list[str] = []
    for name, options in [*blocks, ("*", common)]:
        lines += [f"Host {name}", *(f"    {key} {value}" for key, value in options.items())]
    return "\n".join(lines) + "\n"


def _up_machines(lab: Lab, source: image.Image, count: int, segments: int) -> Lab:
    """Machines on one Ethernet segment, or spread over several that a machine called `router` joins."""
    if segments > len(NETWORKS):
        raise LabError(f"{segments} segments are more than the {len(NETWORKS)} networks that documentation may use.")
    wires = tuple(machines.Segment.free() for _ in range(segments))
    networks = NETWORKS[:segments]
    ports = machines.free_ports(count + 1)
    plan: list[tuple[machines.Machine, Host]] = []
    for index in range(count):
        name, number, wire = f"node{index + 1}", FIRST_ADDRESS + index, index * segments // count
        machine = machines.Machine(lab.folder, name, number, ports[index], (wires[wire],))
        plan.append((machine, Host(name, "127.0.0.1", ports[index], (_address(networks[wire], number),))))
    if segments > 1:
        machine = machines.Machine(lab.folder, "router", 1, ports[count], wires)
        plan.append((machine, Host("router", "127.0.0.1", ports[count], tuple(_address(each, 1) for each in networks))))
    lab = replace(lab, hosts=tuple(host for _, host in plan))
    lab.save()
    machines.snapshot(source)
    say(f"starting {len(plan)} machines with Debian's kernel ({machines.accelerator()})")
    _at_once(partial(_up_machine, lab, source, machine, host, networks) for machine, host in plan)
    return lab


def _up_machine(
    lab: Lab, source: image.Image, machine: machines.Machine, host: Host, networks: tuple[IPv4Network, ...]
) -> None:
    # The snapshot has one underlay interface: a router boots for real.
    machines.start(source, machine, thaw=len(machine.segments) == 1)
    _answer(lab, host, identity(machine, host, networks))


def _up_containers(lab: Lab, source: image.Image, count: int) -> Lab:
    """Containers on a management bridge (eth0) and an underlay bridge (eth1)."""
    network = containers.prepare(lab.name, source, NETWORKS)
    say(f"starting {count} containers on this machine's kernel")
    hosts = [Host(f"node{number + 1}", "", 22, (_address(network, FIRST_ADDRESS + number),)) for number in range(count)]
    _at_once(partial(containers.start, lab.name, source, host.name, host.underlay[0].split("/")[0]) for host in hosts)
    found = tuple(replace(host, ssh_address=containers.address(lab.name, host.name)) for host in hosts)
    lab = replace(lab, hosts=found)
    lab.save()
    _at_once(partial(_answer, lab, host, "true") for host in lab.hosts)
    return lab


def _address(network: IPv4Network, number: int) -> str:
    return f"{network[number]}/{network.prefixlen}"


def _at_once(acts: Iterable[Callable[[], None]]) -> None:
    """All acts side by side. After a failure or Ctrl-C the rest are told to give up, and have ended when it is raised."""
    with ThreadPoolExecutor(16) as pool:
        try:
            for each in [pool.submit(act) for act in acts]:
                each.result()
        except BaseException:
            _given_up.set()
            pool.shutdown(cancel_futures=True)
            raise


def _answer(lab: Lab, host: Host, script: str) -> None:
    """Waits until HOST answers ssh, and runs SCRIPT there. The connection stays open for whoever comes next."""
    deadline = time.monotonic() + PATIENCE
    while not _given_up.is_set():
        done = run(
            lab.ssh(host.name, "sh", "-s"), what=f"ssh to {host.name}", check=False, timeout=PATIENCE, stdin=script
        )
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise LabError(f"{host.name} did not answer ssh in {PATIENCE:.0f} s: {done.stderr.strip()}")
        time.sleep(0.5)


def identity(machine: machines.Machine, host: Host, networks: tuple[IPv4Network, ...]) -> str:
    """The shell script that makes HOST of the generic machine, now and for its next boot, and sets its clock."""
    script = f"""\
set -eu
date -s @{time.time():.3f} >/dev/null
echo {host.name} {time.time_ns()} >/dev/urandom
hostname {host.name}
echo {host.name} >/etc/hostname
cat >/etc/hosts <<END
127.0.0.1 localhost
127.0.1.1 {host.name}
END
"""
    for number, address in enumerate(host.underlay, 1):
        script += f"""\
ip link set eth{number} address {machine.mac(number)}
cat >/etc/systemd/network/2{number}-underlay.network <<END
[Match]
Name=eth{number}

[Network]
Address={address}
LinkLocalAddressing=no
IPv6AcceptRA=no
"""
        own = IPv4Interface(address).network
        for other in networks if len(host.underlay) == 1 else ():
            if other != own:
                script += f"\n[Route]\nDestination={other}\nGateway={own[1]}\n"
        script += "END\n"
    if len(host.underlay) > 1:
        script += "echo net.ipv4.ip_forward=1 >/etc/sysctl.d/router.conf\nsysctl -q -p /etc/sysctl.d/router.conf\n"
    return script + "networkctl reload\n"
