"""The examples in the modules' documentation: each is taken by its module."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from tests.kernel.hosts import MODULES, Host

yaml = pytest.importorskip("yaml")


@pytest.mark.parametrize("name", ["bridge", "ipip", "netns", "route", "sysctl", "topology", "veth"])
def test_examples_run(underlay: Host, name: str) -> None:
    underlay.run("ip netns add ns1")
    tasks: list[dict[str, Any]] = yaml.safe_load(importlib.import_module(f"{MODULES}.{name}").EXAMPLES)
    for task in tasks:
        for item in task.get("loop", [""]):
            arguments = json.loads(json.dumps(task[f"podnet.overlay.{name}"]).replace("{{ item }}", item))
            if "{{" not in json.dumps(arguments):
                assert not underlay.module(name, check=True, **arguments).get("failed"), task["name"]
