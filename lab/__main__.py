"""The command: `python3 -m lab --help`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from types import FrameType

from . import demo, image, labs, machines, play, requirements
from .process import LabError, say


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(arguments.act(arguments) or 0)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
    return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Ends by the same way as Ctrl-C, so that what was started is stopped."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m lab", description="Makes lab hosts: machines or containers.")
    acts = parser.add_subparsers(required=True, metavar="ACT")

    act = acts.add_parser("up", help="make the hosts of a lab, instead of those it had")
    act.add_argument("name")
    act.add_argument("--hosts", type=int, default=3, choices=range(1, 101), metavar="N", help="how many (default 3)")
    act.add_argument(
        "--kind", choices=("auto", "vm", "container"), default="auto", help="auto: containers if they have ipip"
    )
    act.add_argument("--segments", type=int, default=1, choices=(1, 2, 3), help="underlay segments, joined by a router")
    act.set_defaults(act=_up)

    act = acts.add_parser("down", help="end a lab and remove what it left")
    act.add_argument("name")
    act.set_defaults(act=_down)

    act = acts.add_parser("shell", help="log in to a host, or run a command there")
    act.add_argument("name")
    act.add_argument("host")
    act.add_argument("command", nargs="*", metavar="-- COMMAND")
    act.set_defaults(act=_shell)

    act = acts.add_parser("copy", help="put the checkout on a host, to run its tests there")
    act.add_argument("name")
    act.add_argument("host")
    act.add_argument("--target", default="/root/checkout", help="folder on the host (default /root/checkout)")
    act.set_defaults(act=lambda given: labs.copy(labs.load(given.name), given.host, given.target))

    acts.add_parser("list", help="the labs there are").set_defaults(act=_list)

    act = acts.add_parser("image", help="build the image and the snapshot, if the cache lacks them")
    act.set_defaults(act=_image)

    acts.add_parser("demo", help="what `make demo` does").set_defaults(act=_demo)

    act = acts.add_parser("play", help="what `make lab` does: one of the systems of docs/labs.md")
    act.add_argument("name", nargs="?", default="", metavar="LAB", help="; ".join(play.NAMES))
    act.add_argument("--state", default="present", help=", ".join(play.STATES))
    act.add_argument(
        "--where", default="auto", help=f"{', '.join(play.PLACES)}; auto: here, unless it cannot be made here"
    )
    act.add_argument("--machine", default=play.MACHINE, metavar="NAME", help="the lab whose node1 is used otherwise")
    act.add_argument("options", nargs="*", metavar="OPTION", help="for ansible-playbook")
    act.set_defaults(act=lambda given: play.play(given.name, given.state, given.where, given.machine, given.options))

    act = acts.add_parser("requirements", help="name the Debian packages that are missing")
    act.add_argument("--kind", choices=("vm", "container"), default="vm")
    act.add_argument("--install", action="store_true", help="install them, if we are root")
    act.set_defaults(act=lambda given: requirements.check(given.kind, install=given.install))
    return parser


def _up(given: argparse.Namespace) -> None:
    kind = labs.choose(given.kind)
    requirements.check(kind, install=os.geteuid() == 0)
    labs.up(given.name, given.hosts, kind, given.segments)


def _demo(_given: argparse.Namespace) -> None:
    requirements.check("vm", install=os.geteuid() == 0)
    demo.demo()


def _down(given: argparse.Namespace) -> None:
    say(f"lab {given.name} is gone" if labs.down(given.name) else f"there is no lab {given.name}")


def _shell(given: argparse.Namespace) -> int:
    return subprocess.run(labs.load(given.name).ssh(given.host, *given.command), check=False).returncode


def _list(_given: argparse.Namespace) -> None:
    for name in labs.names():
        try:
            lab = labs.load(name)
        except LabError as error:
            print(f"{name}: {error}")
            continue
        state = "running" if labs.is_running(lab) else "not running"
        print(f"{name}: {lab.kind}, {state}: {', '.join(host.name for host in lab.hosts)}")


def _image(_given: argparse.Namespace) -> None:
    requirements.check("vm", install=os.geteuid() == 0)
    source = image.ensure()
    machines.snapshot(source)
    print(source.folder)


if __name__ == "__main__":
    sys.exit(main())
