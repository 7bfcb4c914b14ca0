"""What a container runtime does with a CNI network: runs its chain of plugins (CNI specification 1.0.0, libcni)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

PLUGINS = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins are."""


@dataclass
class Runtime:
    """Runs a conflist's text, unchanged, by the plugins of a host, for which *sh* runs a shell script."""

    sh: Callable[[str], str]
    conflist: str
    results: dict[str, Any] = field(default_factory=dict)

    def add(self, container: str, *ports: str) -> dict[str, Any]:
        """A namespace with eth0 on the network; ports as ``8080:80/tcp``. What the last plugin answered."""
        self.sh(f"ip netns add {container}; ip -n {container} link set lo up")
        result: dict[str, Any] | None = None
        for plugin in self._plugins(ports):
            result = json.loads(self._run("ADD", container, plugin, result))
        assert result is not None
        self.results[container] = (result, ports)
        return result

    def check(self, container: str) -> None:
        """Fails where a plugin does not find what it made."""
        result, ports = self.results[container]
        for plugin in self._plugins(ports):
            self._run("CHECK", container, plugin, result)

    def delete(self, container: str) -> None:
        """Undoes ``add``."""
        result, ports = self.results.pop(container)
        for plugin in reversed(self._plugins(ports)):
            self._run("DEL", container, plugin, result)
        self.sh(f"ip netns del {container}")

    def _plugins(self, ports: Iterable[str]) -> list[dict[str, Any]]:
        conf = json.loads(self.conflist)
        wanted = {"portMappings": [_mapping(text) for text in ports]}
        plugins = []
        for plugin in conf["plugins"]:
            given = {name: wanted[name] for name, able in plugin.get("capabilities", {}).items() if able}
            own = {key: value for key, value in plugin.items() if key != "capabilities"}
            runtime = {"runtimeConfig": given} if given else {}
            plugins.append({**own, **runtime, "name": conf["name"], "cniVersion": conf["cniVersion"]})
        return plugins

    def _run(self, command: str, container: str, plugin: dict[str, Any], result: dict[str, Any] | None) -> str:
        told = {**plugin, **({"prevResult": result} if result else {})}
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
        }
        environment = " ".join(f"{name}={value}" for name, value in variables.items())
        # A plugin tells its error on standard output.
        return self.sh(
            f"said=$(printf %s {shlex.quote(json.dumps(told))} | {environment} {PLUGINS}/{plugin['type']})"
            ' || { echo "$said" >&2; exit 1; }; printf %s "$said"'
        )


def _mapping(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+):(\d+)/(\w+)", text)
    assert match, text
    return {"hostPort": int(match[1]), "containerPort": int(match[2]), "protocol": match[3]}
