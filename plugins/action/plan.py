# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ..module_utils import _facts, _inventory, _leases, _package, _plan, _probes, _readers, _removal, _shares
from ..module_utils._model import Mistakes

READ = {*_inventory.GROUP_DEFAULTS, *_inventory.HOST_VARIABLES, "ansible_host", "inventory_dir"}


class ActionModule(ActionBase):
    """Plan the overlay from the whole group; see the documentation of podnet.overlay.plan."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "default": "overlay"},
                "group": {"type": "str", "default": "overlay"},
                "state": {"type": "str", "choices": ["check", "present", "removed", "absent"], "default": "present"},
                "node": {"type": "str"},
                "lease": {"type": "str", "choices": ["keep", "free"], "default": "keep"},
                "force": {"type": "bool", "default": False},
                "renumber": {"type": "bool", "default": False},
                "move_without": {"type": "bool", "default": False},
            },
            required_if=[("state", "removed", ["node"])],
        )
        try:
            return self._answer(options, task_vars or {})
        except Mistakes as e:
            return {"failed": True, "msg": "\n".join(e.lines)}

    def _answer(self, options: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        hosts = [str(host) for host in task_vars["groups"].get(options["group"], [])]
        play = [str(host) for host in task_vars.get("ansible_play_hosts", []) if host in set(hosts)]
        if not play:
            raise Mistakes(
                [
                    f"{options['group']}: is no group of the inventory with hosts of this play in it; name the nodes there"
                ]
            )
        plans = options["state"] in ("present", "removed")
        variables, facts = self._read(task_vars["hostvars"], hosts, set(play) if plans else set())
        path = leases_file(options["group"], variables)
        net_conf(options["group"], variables)
        if options["state"] == "absent":
            return self._forget(path, play)

        inventory = _inventory.read(options["group"], variables)
        everyone = set(task_vars.get("ansible_play_hosts_all", play))
        left_out = [host for host in hosts if host not in everyone]
        removal = None
        if options["node"] is not None:
            removal = _Removal(options["node"], options["lease"] == "free", left_out)
        network = inventory.settings.network if inventory.settings else None

        def load() -> _leases.Leases | None:
            return _leases.load(path, None if options["renumber"] else network)

        def here(leases: _leases.Leases | None) -> _leases.Leases | None:
            if not leases or not network or leases.network == network:
                return leases
            if left_out:
                kept = (
                    f"--limit leaves out {_shares.some(left_out)}, which would keep their addresses of {leases.network}"
                )
                raise Mistakes([f"{options['group']}: overlay_renumber: {kept}; run without it"])
            return _leases.moved(leases, network, path)

        if options["state"] == "check":
            said = {name: options[name] for name in ("node", "lease", "force")} if removal else {}
            return {**_checked(inventory, path, play, removal, lambda: here(load())), **said}
        if removal and not options["force"] and removal.node in hosts:
            answer = _plain(task_vars["hostvars"].raw_get(removal.node).get("podnet_node") or {})
            mistakes = list(_removal.running(removal.node, answer))
            if mistakes:
                raise Mistakes(mistakes)

        def planned(leases: _leases.Leases | None) -> tuple[_plan.Plan, list[str]]:
            known, warnings = removal.take(inventory, here(leases), path) if removal else (here(leases), [])
            return _plan.plan(inventory, known, facts, path, options["name"], options["move_without"]), warnings

        leases = load()
        plan, warnings = planned(leases)
        with self._locked(path, leases != plan.leases) as locked:
            now = load() if locked else leases
            if now != leases:  # another run came before
                leases, (plan, warnings) = now, planned(now)
            return {
                **self._save(path, leases, plan.leases),
                "peers": plan.peers,
                "groups": plan.groups,
                "documents": plan.documents,
                "steps": list(plan.steps),
                "probes": plan.probes,
                "mtus": plan.mtus,
                "warnings": [*warnings, *plan.warnings],
            }

    def _read(
        self, hostvars: t.Any, hosts: Sequence[str], looked_at: set[str]
    ) -> tuple[dict[str, dict[str, t.Any]], dict[str, _facts.Facts]]:
        """Each host's variables, and the facts of those that answered, in one pass, since a host's variables are dear to make.

        Raises:
            Mistakes: a variable's template fails.
        """
        variables: dict[str, dict[str, t.Any]] = {}
        facts: dict[str, _facts.Facts] = {}
        mistakes: list[str] = []
        for host in hosts:
            raw = hostvars.raw_get(host)
            templar = self._templar.copy_with_new_env(available_variables={**raw, "hostvars": hostvars})
            variables[host] = own = {}
            for name in raw:
                if name in READ:
                    try:
                        own[str(name)] = _plain(templar.template(raw[name]))
                    except AnsibleError as e:
                        mistakes.append(f"{host}: {name}: cannot be templated: {e}")
                elif name.startswith("overlay_"):
                    own[str(name)] = None  # not ours: its name is all that counts
            answer = raw.get("podnet_node") if host in looked_at else None
            if answer and answer.get("version") == 1 and not answer.get("failed"):
                facts[host] = _facts.Facts.of(_plain(answer))
        if mistakes:
            raise Mistakes(mistakes)
        return variables, facts

    def _forget(self, path: str, hosts: Sequence[str]) -> dict[str, t.Any]:
        with self._locked(path, os.path.exists(path)):
            leases = _leases.load(path)
            if leases is None:
                return {"changed": False, "leases_file": path}
            nodes, removed = (
                {name: item for name, item in part.items() if name not in hosts}
                for part in (leases.nodes, leases.removed)
            )
            return self._save(
                path, leases, dataclasses.replace(leases, nodes=nodes, removed=removed) if nodes else None
            )

    @contextlib.contextmanager
    def _locked(self, path: str, needed: bool) -> t.Iterator[bool]:
        """Hold the lock of the leases where they are to be written; the inventory's folder may be read-only elsewhere."""
        if needed and not self._task.check_mode:
            with _leases.locked(path):
                yield True
        else:
            yield False

    def _save(self, path: str, before: _leases.Leases | None, after: _leases.Leases | None) -> dict[str, t.Any]:
        """Bring the file from *before* to *after*, and say so."""
        result: dict[str, t.Any] = {"changed": before != after, "leases_file": path}
        if before == after:
            return result
        if not self._task.check_mode:
            _leases.save(path, after)
        if self._task.diff:
            result["diff"] = [
                {
                    "before_header": path,
                    "after_header": path,
                    "before": _leases.render(before),
                    "after": _leases.render(after),
                }
            ]
        return result


@dataclasses.dataclass(frozen=True)
class _Removal:
    """The node that is to leave, whether its subnet is freed, and the hosts that would not learn of it."""

    node: str
    free: bool
    left_out: Sequence[str]

    def judge(self, inventory: _inventory.Inventory, leases: _leases.Leases | None, path: str) -> t.Iterator[str]:
        return _removal.judge(self.node, inventory, leases, path, self.left_out)

    def take(
        self, inventory: _inventory.Inventory, leases: _leases.Leases | None, path: str
    ) -> tuple[_leases.Leases, list[str]]:
        """The leases without the node, and warnings.

        Raises:
            Mistakes: all that speaks against it.
        """
        mistakes = list(self.judge(inventory, leases, path))
        if mistakes or leases is None:
            raise Mistakes(mistakes)
        return _removal.without(leases, self.node, free=self.free), list(_removal.already(self.node, leases))


def _checked(
    inventory: _inventory.Inventory,
    path: str,
    play: Sequence[str],
    removal: _Removal | None,
    load: t.Callable[[], _leases.Leases | None],
) -> dict[str, t.Any]:
    """What can be said before any host is contacted: the settings, and by the leases who would probe whom.

    Raises:
        Mistakes: all that inventory and leases show.
    """
    leases, mistakes = None, []
    try:
        leases = load()
    except Mistakes as e:
        mistakes = e.lines
    else:
        mistakes += removal.judge(inventory, leases, path) if removal else ()
    mistakes += _plan.judge(inventory, leases)
    if not os.path.isdir(os.path.dirname(path)):
        mistakes.append(f"{path}: its folder is not there; make it, or set overlay_leases_file")
    if mistakes or inventory.settings is None:
        raise Mistakes(mistakes)
    nodes = {name: leases.nodes[name] for name in inventory.nodes if name in leases.nodes} if leases else {}
    kept_out = [name for name in inventory.nodes if leases and _shares.kept_out(name, leases)]
    hosts = [host for host in play if host not in set(kept_out)]
    return {
        "changed": False,
        "leases_file": path,
        "settings": inventory.settings.as_dict(),
        "engine": _package.digest(),
        "nodes": {
            name: {
                "subnet": str(lease.subnet),
                "public_ip": lease.public_ip,
                "mtu": lease.mtu,
                "pods": dict(lease.pods),
            }
            for name, lease in nodes.items()
        },
        "kept_out": kept_out,
        "probes": _probes.probes(nodes, hosts),
        "mtus": {
            host: nodes[host].mtu or _readers.LOWEST_MTU if host in nodes else _readers.LOWEST_MTU for host in hosts
        },
        "warnings": list(inventory.warnings),
    }


def leases_file(group: str, variables: Mapping[str, Mapping[str, t.Any]]) -> str:
    """The path of the leases file. A relative one starts at the inventory's folder, or here where it has none.

    Raises:
        Mistakes: there is no way to tell.
    """
    folder = next(iter(_folders(variables)), None)
    said = next((own["overlay_leases_file"] for own in variables.values() if own.get("overlay_leases_file")), None)
    if said:
        return os.path.abspath(os.path.join(folder or os.getcwd(), os.path.expanduser(str(said))))
    if folder is None:
        raise Mistakes(
            [
                (
                    f"{group}: overlay_leases_file: the inventory has no folder to keep leases in; "
                    "set it, as in -e overlay_leases_file=leases.yml"
                )
            ]
        )
    if len(_folders(variables)) > 1:
        several = ", ".join(_folders(variables))
        raise Mistakes(
            [
                f"{group}: overlay_leases_file: the group's hosts are of inventories in several folders ({several}); set it"
            ]
        )
    return os.path.join(folder, _leases.FILE_NAME)


def _folders(variables: Mapping[str, Mapping[str, t.Any]]) -> list[str]:
    return sorted({own["inventory_dir"] for own in variables.values() if own.get("inventory_dir")})


def net_conf(group: str, variables: Mapping[str, dict[str, t.Any]]) -> None:
    """Replace each ``overlay_net_conf`` that is a file's path with its text; a relative path starts at the inventory's folder."""
    texts: dict[str, str] = {}
    for own in variables.values():
        said = own.get("overlay_net_conf")
        if isinstance(said, str) and not said.lstrip().startswith("{"):
            path = os.path.join(own.get("inventory_dir") or os.getcwd(), os.path.expanduser(said))
            try:
                if path not in texts:
                    with open(path, encoding="utf-8") as file:
                        texts[path] = file.read()
            except (OSError, UnicodeDecodeError) as e:
                raise Mistakes(
                    [f"{group}: overlay_net_conf: {path} cannot be read: {getattr(e, 'strerror', None) or e}"]
                ) from None
            own["overlay_net_conf"] = texts[path]


def _plain(value: t.Any) -> t.Any:
    """A value of Ansible's without its tags and lazy containers, which cost time and do not go into JSON."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value
