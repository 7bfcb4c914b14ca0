"""Lab hosts as QEMU machines: Debian's own kernel, no root needed, seconds from snapshot to ssh.

One generic machine is booted once for each image, up to its first ssh answer, and frozen with `savevm`. A lab's machine is
a copy of that file, thawed with `-loadvm`, which then learns who it is (labs.identify). The management network is QEMU's
user network, the underlay an Ethernet segment made of multicast on loopback.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .image import KERNEL_ARGUMENTS, Image, cache_lock, made_in_place
from .process import LabError, run, say

QEMU = "qemu-system-x86_64"
MEMORY = "512M"
SNAPSHOT = "ready"
READY = b"lab-ready"
PATIENCE = 300.0  # seconds an emulated boot may take on a loaded machine


@dataclass(frozen=True)
class Segment:
    """An Ethernet segment between machines: a multicast group on loopback."""

    group: str
    port: int

    @staticmethod
    def free() -> Segment:
        """One that nobody uses: a random group of the administrative scope, and a free port."""
        group = f"239.255.{secrets.randbelow(255)}.{1 + secrets.randbelow(254)}"
        return Segment(group, free_ports(1, socket.SOCK_DGRAM)[0])

    @property
    def netdev(self) -> str:
        return f"socket,mcast={self.group}:{self.port},localaddr=127.0.0.1"


@dataclass(frozen=True)
class Machine:
    """What one QEMU process is started with. The segments become eth1, eth2 and so on."""

    folder: Path
    name: str
    number: int
    ssh_port: int
    segments: tuple[Segment, ...]

    @property
    def disk(self) -> Path:
        return self.folder / f"{self.name}.qcow2"

    @property
    def pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    @property
    def console(self) -> Path:
        return self.folder / f"{self.name}.console"

    def mac(self, interface: int) -> str:
        """eth0 has the same everywhere: QEMU's user network remembers the snapshot's for ever."""
        return f"52:54:00:1a:{interface:02x}:{self.number if interface else 0:02x}"


def has_kvm() -> bool:
    """Whether KVM really works: some clouds show /dev/kvm to guests whose processor cannot use it."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return os.access("/dev/kvm", os.W_OK) and ("vmx" in flags or "svm" in flags)


def accelerator() -> str:
    """One word for people: what carries the machines."""
    return "KVM" if has_kvm() else "TCG"


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """Ports of 127.0.0.1 that are free now. All are held until the last is found, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, kind)) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def command(image: Image, machine: Machine, *, thaw: bool) -> list[str]:
    """The QEMU command line, which must be the same for freezing and thawing but for the back ends' names."""
    words = [QEMU, "-name", f"podnet-lab-{machine.name}", "-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-M", "q35,usb=off", "-smp", "1", "-m", MEMORY, *_processor()]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", KERNEL_ARGUMENTS]
    words += ["-drive", f"if=none,id=disk,file={machine.disk},format=qcow2,cache=unsafe,discard=unmap"]
    words += ["-device", "virtio-blk-pci,drive=disk"]
    words += ["-netdev", f"user,id=eth0,ipv6=off,hostfwd=tcp:127.0.0.1:{machine.ssh_port}-:22"]
    words += ["-device", f"virtio-net-pci,netdev=eth0,mac={machine.mac(0)},romfile="]
    for number, segment in enumerate(machine.segments, 1):
        words += ["-netdev", f"{segment.netdev},id=eth{number}"]
        words += ["-device", f"virtio-net-pci,netdev=eth{number},mac={machine.mac(number)},romfile="]
    words += ["-serial", f"file:{machine.console}", "-pidfile", str(machine.pid_file)]
    return [*words, "-loadvm", SNAPSHOT] if thaw else words


def _processor() -> list[str]:
    if has_kvm():
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "qemu64,+rdrand"]


def start(image: Image, machine: Machine, *, thaw: bool) -> None:
    """Starts a machine in the background. QEMU itself writes the pid file, before anything can fail."""
    if thaw:
        shutil.copyfile(snapshot(image), machine.disk)
    else:
        _new_disk(image, machine)
    run([*command(image, machine, thaw=thaw), "-daemonize"], what=f"starting {machine.name}", timeout=PATIENCE)


def stop(pid_file: Path) -> None:
    """Ends the machine of PID_FILE, if that process still is that machine. Safe to repeat."""
    pid = _living(pid_file)
    if pid:
        os.kill(pid, signal.SIGTERM)
        if not _gone(pid_file, 5):
            os.kill(pid, signal.SIGKILL)
            _gone(pid_file, 5)
    pid_file.unlink(missing_ok=True)


def cut_power(pid_file: Path) -> None:
    """The machine of PID_FILE loses its power, whatever it is writing, and has it again at once: it boots from its disk."""
    pid = _living(pid_file)
    if pid is None:
        raise LabError(f"there is no machine at {pid_file}.")
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    os.kill(pid, signal.SIGKILL)
    _gone(pid_file, 5)
    if "-loadvm" in words:
        words = words[: words.index("-loadvm")] + words[words.index("-loadvm") + 2 :]
    run(words, what=f"starting {pid_file.stem} again", timeout=PATIENCE)


def is_running(pid_file: Path) -> bool:
    return _living(pid_file) is not None


def _living(pid_file: Path) -> int | None:
    """The recorded process, if it is alive and names this very pid file on its command line."""
    try:
        pid = int(pid_file.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(pid_file).encode() in words else None


def _gone(pid_file: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_running(pid_file):
            return True
        time.sleep(0.02)
    return False


def snapshot(image: Image) -> Path:
    """The frozen machine of an image, made once for each kind of QEMU and processor."""
    version = run([QEMU, "--version"], what="QEMU").stdout
    probe = Machine(Path(), "ready", 0, 0, (Segment("", 0),))
    key = hashlib.sha256("\0".join([version, *command(image, probe, thaw=False)]).encode()).hexdigest()[:16]
    place = image.folder / f"snapshot-{key}"
    if not place.exists():
        with cache_lock():
            if not place.exists():
                with made_in_place(place) as work:
                    _freeze(image, work)
    return place / "ready.qcow2"


def _freeze(image: Image, folder: Path) -> None:
    """Boots a machine, waits until it says that it is ready, and saves its memory into its disk."""
    say(f"booting a machine once for its snapshot ({accelerator()})")
    machine = Machine(folder, "ready", 0, free_ports(1)[0], (Segment.free(),))
    _new_disk(image, machine)
    words = [*command(image, machine, thaw=False), "-monitor", "stdio", "-no-reboot"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as qemu:
        try:
            deadline = time.monotonic() + PATIENCE
            while not (machine.console.exists() and READY in machine.console.read_bytes()):
                if qemu.poll() is not None:
                    raise LabError(f"the first machine did not boot: {qemu.communicate()[1]}\n{_tail(machine.console)}")
                if time.monotonic() > deadline:
                    raise LabError(
                        f"the first machine did not boot in {PATIENCE:.0f} s. Its console:\n{_tail(machine.console)}"
                    )
                time.sleep(0.2)
            time.sleep(1)
            _, said = qemu.communicate(f"savevm {SNAPSHOT}\nquit\n", timeout=PATIENCE)
        finally:
            qemu.kill()
    if said.strip() or qemu.returncode:
        raise LabError(f"QEMU could not save the snapshot: {said}")
    say("snapshot saved")


def _new_disk(image: Image, machine: Machine) -> None:
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, machine.disk], what="disk")


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else "(empty)"
