"""`make lab`: a system of docs/labs.md, on this machine where its kernel can, else on a lab machine that stays to be looked at."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import labs, requirements
from .process import LabError, run, say

MACHINE = "labs"
PLAYBOOKS = labs.CHECKOUT / "playbooks" / "labs"
NAMES = (
    "shared_namespace",
    "veth_pair",
    "bridge",
    "ip_forward",
    "ipip_tunnel",
    "flannel_ipip",
)  # each on the one before
STATES = ("present", "absent")
PLACES = ("auto", "here", "vm")
NO_INVENTORY = {"ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}


def play(name: str, state: str, place: str, machine: str, options: Sequence[str]) -> int:
    """Runs a lab's playbook; returns ansible-playbook's exit code."""
    if name not in NAMES:
        raise LabError(f"{f'there is no lab {name}' if name else 'LAB=NAME says which lab'}. There are:\n{_listed()}")
    for word, given, known in (("STATE", state, STATES), ("WHERE", place, PLACES)):
        if given not in known:
            raise LabError(f"there is no {word}={given}. There are: {', '.join(known)}.")
    playbook = _playbook(name)
    lacking = _lacking(playbook)
    if place == "here" and lacking:
        raise LabError(f"{name} cannot run on this machine: {lacking}. With WHERE=vm it runs on a lab machine.")
    away = place == "vm" or (place == "auto" and bool(lacking))
    if away:
        if lacking:
            say(f"{lacking}: this runs on a lab machine")
        if not _is_up(machine):
            if state == "absent":
                say("that machine is not up, and nothing else holds the lab")
                return 0
            requirements.check("vm", install=os.geteuid() == 0)
            labs.up(machine, 1, "vm", 1)
    frames = labs.CHECKOUT / ".cache" / "labs" / name
    frames.parent.mkdir(parents=True, exist_ok=True)
    command = ["ansible-playbook", str(playbook.relative_to(labs.CHECKOUT)), "-e", f"state={state}"]
    command += ["-i", "inventories/lab", "-e", "lab_host=node1"] if away else []
    environment = os.environ | NO_INVENTORY | {"PODNET_LAB": machine, "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false"}
    say(shlex.join(command))
    command += ["-e", f"dest={frames}", *options]
    code = subprocess.run(command, cwd=labs.CHECKOUT, env=environment, check=False).returncode
    where = " WHERE=vm" if away and not lacking else ""
    if code and state == "present":
        print(
            "\nThat failed. A namespace that the error tells to be there already may be another lab's:\n"
            f"    make lab LAB=NAME STATE=absent{where}    removes the lab of that name"
        )
    elif state == "present" and "--check" not in options:
        print(_closing(name, away, where))
    return code


def _listed() -> str:
    """The labs with what each is."""
    titles = [re.findall(r"^- name: (.*)", _playbook(name).read_text(), re.MULTILINE)[-1] for name in NAMES]
    return "\n".join(f"    {name:18}{title}" for name, title in zip(NAMES, titles))


def _playbook(name: str) -> Path:
    return PLAYBOOKS / f"{name}.yml"


def _lacking(playbook: Path) -> str:
    """Why this machine cannot make the links of a lab, tried in a throw-away namespace; empty if it can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "it has no unshare or no ip"
    for kind in sorted(set(re.findall(r"kind: (\w+)", playbook.read_text()))):
        # An ipip device without an address would be the one that the kernel's module makes by itself.
        own = ["local", "192.0.2.1"] if kind == "ipip" else []
        words = ["unshare", "--net", "--mount", "ip", "link", "add", "probe0", "type", kind, *own]
        if run(words, what=f"probing for {kind}", check=False).returncode:
            return f"the kernel {os.uname().release} here has no {kind}"
    return ""


def _is_up(machine: str) -> bool:
    return machine in labs.names() and labs.is_running(labs.load(machine))


def _closing(name: str, away: bool, where: str) -> str:
    shell = "make lab-shell; there: " if away else ""
    lines = {
        f"{shell}ip netns": "its namespaces; ip -n NAME address, ip netns exec NAME ping ...",
        f"ls .cache/labs/{name}": "the frames in files for tcpdump -r and Wireshark",
        f"make lab LAB={name} STATE=absent{where}": "removes it",
        **({"make lab-down": "ends the machine that it is on"} if away else {}),
    }
    return "\nTo look further:\n" + "".join(f"    {words:51}  {what}\n" for words, what in lines.items())
