"""The image of all lab hosts, built from Debian's packages by name, once for each version of its recipe.

A folder of the cache, named after a hash of the recipe, holds the root file system as an archive (containers) and as an
ext4 image (machines), the kernel, an initrd and a throw-away ssh key. It is built beside its place and renamed into it,
so that it is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .process import LabError, run, say

SUITE = "bookworm"
PACKAGES = (
    "busybox-static",
    "conmon",
    "containernetworking-plugins",
    "crun",
    "dbus",
    "docker.io",
    "firewalld",
    "iperf3",
    "iproute2",
    "iptables",
    "iputils-ping",
    "kmod",
    "linux-image-cloud-amd64",
    "netavark",
    "netplan.io",
    "network-manager",
    "nftables",
    "openssh-server",
    "podman",
    "procps",
    "python3",
    "python3-hypothesis",
    "python3-pyroute2",
    "python3-pytest",
    "systemd-sysv",
    "tcpdump",
    "ufw",
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet systemd.show_status=0 net.ifnames=0 panic=1 "
    "mitigations=off audit=0 apparmor=0 selinux=0 no_timer_check"
)
GUEST = Path(__file__).parent / "guest"
# In the order in which they need each other. The cloud kernel has everything virtio as modules, and ext4 built in.
BOOT_MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
)
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module; done
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
"""
FILE_SYSTEM = "3G"
KEPT = 2


@dataclass(frozen=True)
class Image:
    """A finished image: the folder that holds it."""

    folder: Path

    @property
    def archive(self) -> Path:
        return self.folder / "root.tar"

    @property
    def disk(self) -> Path:
        return self.folder / "root.ext4"

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def ssh_key(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def key(self) -> str:
        return self.folder.name


def cache() -> Path:
    """The folder of all images of this user."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "podnet-overlay" / "lab"


def recipe_key() -> str:
    """Hash of everything that the image is made of."""
    recipe = [SUITE, PACKAGES, LEFT_OUT, BOOT_MODULES, INIT, FILE_SYSTEM]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    for path in _guest_files():
        digest.update(f"\0{path.relative_to(GUEST)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def ensure() -> Image:
    """The image of the present recipe, built if the cache lacks it."""
    image = Image(cache() / recipe_key())
    if not image.folder.exists():
        with cache_lock():
            if not image.folder.exists():
                _build(image)
                _prune(image)
    os.utime(image.folder)
    return image


@contextmanager
def cache_lock() -> Iterator[None]:
    """One builder at a time: the second finds the work done. The kernel frees the lock of a builder that dies."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that builds the image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def made_in_place(place: Path) -> Iterator[Path]:
    """A folder to fill, that becomes PLACE when the block ends well and vanishes when it does not."""
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield work
        work.rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(image: Image) -> None:
    say(f"building the image of lab hosts from {SUITE}'s packages: a minute or two, once")
    with made_in_place(image.folder) as work:
        half = Image(work)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "podnet-lab", "-f", half.ssh_key], what="ssh key")
        _bootstrap(half)
        say("packages are in; making the disk")
        tree = work / "tree"
        tree.mkdir()
        _make_disk(half, tree)
        _make_boot_files(half, tree)
        _remove_tree(tree)
    say(f"image {image.key} is ready")


def _bootstrap(image: Image) -> None:
    """Debian's packages and our guest files, as one archive."""
    additions = image.folder / "additions.tar"
    with tarfile.open(additions, "w") as archive:
        for path in _guest_files():
            _add(archive, str(path.relative_to(GUEST)), path.read_bytes())
        _add(archive, "root/.ssh/authorized_keys", image.ssh_key.with_suffix(".pub").read_bytes(), 0o600)
    command: list[str | Path] = [
        "env",
        "INITRD=No",  # the kernel's package would make one that nobody boots
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--mode=auto",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        f"--customize-hook=tar-in {additions} /",
        '--customize-hook=chroot "$1" sh /setup.sh',
        SUITE,
        image.archive,
    ]
    run(command, what="installing Debian's packages")
    additions.unlink()


def _make_disk(image: Image, tree: Path) -> None:
    """The archive as an ext4 image. fakeroot keeps the owners of files where we are not root."""
    with image.disk.open("wb") as disk:
        disk.truncate(0)
    script = 'tar -xf "$1" -C "$2" --exclude=./dev/* && mke2fs -q -F -t ext4 -E lazy_itable_init=1,nodiscard -d "$2" "$3" "$4"'
    fake = [] if os.geteuid() == 0 else ["fakeroot"]
    environment = ["env", f"PATH={os.environ.get('PATH', '')}:/usr/sbin:/sbin"]
    run(
        [*fake, *environment, "sh", "-c", script, "sh", image.archive, tree, image.disk, FILE_SYSTEM],
        what="making the disk",
    )


def _make_boot_files(image: Image, tree: Path) -> None:
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise LabError(f"the image should hold one kernel, and holds {len(kernels)}")
    modules = tree / "lib" / "modules" / kernels[0].name.removeprefix("vmlinuz-") / "kernel"
    shutil.copyfile(kernels[0], image.kernel)
    names = [Path(path).name for path in BOOT_MODULES]
    files = {
        "init": INIT.format(modules=" ".join(names)).encode(),
        "bin/busybox": (tree / "bin" / "busybox").read_bytes(),
    }
    files |= {name: (modules / path).read_bytes() for name, path in zip(names, BOOT_MODULES)}
    image.initrd.write_bytes(cpio(files, folders=("bin", "dev", "root")))


def cpio(files: dict[str, bytes], folders: tuple[str, ...]) -> bytes:
    """An archive in the `newc` form that the kernel unpacks as initramfs (Documentation/driver-api/early-userspace)."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    out = io.BytesIO()
    for number, (name, mode, content) in enumerate(entries, 1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
        out.write(b"\0" * (-out.tell() % 4) + content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def _prune(image: Image) -> None:
    """Removes all but the most recently used images, and what builders that died left behind."""
    others = sorted((path for path in cache().iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    finished = [path for path in others if not path.name.startswith(".") and path != image.folder]
    for path in [path for path in others if path.name.startswith(".")] + finished[: 1 - KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _guest_files() -> list[Path]:
    return sorted(path for path in GUEST.rglob("*") if path.is_file())


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _remove_tree(tree: Path) -> None:
    """Removes an unpacked root, whose folders may be read-only to their owner."""
    for folder, names, _ in os.walk(tree):
        for name in names:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(tree)
