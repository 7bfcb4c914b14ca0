"""The lab's parts that need no host."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from lab import image, labs, machines
from lab.process import LabError


@pytest.fixture
def empty_labs(tmp_path, monkeypatch):
    monkeypatch.setattr(labs, "LABS", tmp_path)
    return tmp_path


def make(folder, name):
    hosts = (labs.Host("node1", "127.0.0.1", 2201, ("198.51.100.11/24",)),)
    lab = labs.Lab(name, "vm", "ipip", str(folder / "control"), hosts)
    (folder / name).mkdir()
    lab.save()
    return lab


def test_a_lab_is_read_as_it_was_saved(empty_labs):
    lab = make(empty_labs, "one")

    assert labs.load("one") == lab
    assert labs.names() == ["one"]


def test_a_torn_state_file_is_an_error_that_says_what_to_do(empty_labs):
    make(empty_labs, "one")
    (empty_labs / "one" / "lab.json").write_text('{"name": "on')

    with pytest.raises(LabError, match="lab up one"):
        labs.load("one")


def test_a_lab_with_a_torn_state_file_goes_down(empty_labs):
    make(empty_labs, "one")
    (empty_labs / "one" / "lab.json").write_text('{"name": "on')

    assert labs.down("one")
    assert not labs.down("one")
    assert labs.names() == []


def test_the_inventory_finds_the_backend_in_the_state_file(empty_labs):
    make(empty_labs, "one")

    assert json.loads((empty_labs / "one" / "lab.json").read_text())["backend"] == "ipip"


def test_unknown_hosts_are_named_with_the_known_ones(empty_labs):
    with pytest.raises(LabError, match=r"no host node9.*node1"):
        make(empty_labs, "one").ssh("node9")


def test_ssh_config_is_one_that_ssh_reads(empty_labs):
    lab = make(empty_labs, "one")
    read = subprocess.run(
        ["ssh", "-G", "-F", lab.ssh_config, "node1"], capture_output=True, text=True, check=True
    ).stdout

    assert {"hostname 127.0.0.1", "port 2201", "user root", "controlmaster auto"} <= set(read.splitlines())


def test_a_pid_file_of_another_process_ends_nobody(tmp_path):
    """Process ids come round: only a process that names this very file on its command line is the machine."""
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "node1.pid").write_text(str(sleeper.pid))
        machines.stop(tmp_path / "node1.pid")

        assert sleeper.poll() is None
        assert not (tmp_path / "node1.pid").exists()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_free_ports_differ():
    assert len(set(machines.free_ports(50))) == 50


def test_a_failed_build_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), image.made_in_place(tmp_path / "key") as work:
        (work / "half").joinpath("missing").touch()

    assert list(tmp_path.iterdir()) == []


def test_a_finished_build_appears_whole(tmp_path):
    with image.made_in_place(tmp_path / "key") as work:
        (work / "root").write_text("all")

    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert (tmp_path / "key" / "root").read_text() == "all"


def test_the_recipe_decides_the_key(monkeypatch):
    before = image.recipe_key()
    assert image.recipe_key() == before

    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "more"))
    assert image.recipe_key() != before


def test_the_initrd_is_an_archive_that_cpio_reads(tmp_path):
    packed = image.cpio({"init": b"#!x", "a": b"12345"}, folders=("dev",))
    unpacked = subprocess.run(
        ["busybox", "cpio", "-i", "-d"], cwd=tmp_path, input=packed, capture_output=True, check=False
    )

    assert unpacked.returncode == 0, unpacked.stderr
    assert (tmp_path / "a").read_bytes() == b"12345"
    assert os.access(tmp_path / "init", os.X_OK)
    assert (tmp_path / "dev").is_dir()


def test_hosts_of_two_segments_have_a_route_by_the_router(tmp_path):
    first, second = labs.NETWORKS[:2]
    machine = machines.Machine(tmp_path, "node1", 11, 2201, (machines.Segment("", 0),))
    host = labs.Host("node1", "127.0.0.1", 2201, (f"{first[11]}/24",))

    script = labs.identity(machine, host, (first, second))

    assert f"Destination={second}\nGateway={first[1]}" in script
    assert f"Destination={first}" not in script
