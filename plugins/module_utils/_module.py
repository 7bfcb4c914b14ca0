# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules share: the library they need, and how a run of the engine becomes a module's answer."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

from . import _rollback
from ._command import attempt
from ._engine import Result, converge, inventory
from ._kernel import KernelError, MissingLibrary
from ._model import Mistakes, State, parse
from ._state import Failed

LASTING = ["/usr/bin/python3", "/usr/libexec/platform-python"]
INTERPRETERS = [*LASTING, "/usr/bin/python3.12", "/usr/bin/python3.11", "/usr/bin/python3.9"]
"""Where distributions put the Python that their python3-pyroute2 belongs to."""

MOST_OPERATIONS = 200
"""So many are told one by one."""

NAMESPACE: dict[str, Any] = {"type": "str", "default": ""}
STATE: dict[str, Any] = {"type": "str", "choices": ["present", "absent"], "default": "present"}


END: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "addresses": {"type": "list", "elements": "raw"},
    "mtu": {"type": "int"},
    "up": {"type": "bool", "default": True},
}
MAC: dict[str, Any] = {"address": {"type": "str"}}
LINK: dict[str, Any] = {**END, "state": STATE, "namespace": NAMESPACE}


def link(params: dict[str, Any], kind: str, **parts: Any) -> dict[str, Any]:
    """A document's link from a module's arguments; to be absent, it is only referred to, by name and kind."""
    if params["state"] == "absent":
        return {"name": params["name"], "kind": kind, "external": True}
    return {"kind": kind, **{key: params[key] for key in (*END, *MAC) if key in params}, **parts}


def run_single(module: AnsibleModule, document: dict[str, Any], **options: Any) -> None:
    """Bring the host to a document that nobody owns; where ``state`` is absent, delete what it names and no more."""
    run(module, lambda: parse(document, namespace=module.params.get("namespace", "")), named=True, **options)


def run(module: AnsibleModule, read: Callable[[], State], *, named: bool = False, **options: Any) -> None:
    """Bring the host to the state that *read* gives and leave the module with what changed.

    Args:
        module: its check mode decides whether anything is changed.
        read: the desired state from the module's arguments; may raise ``Mistakes``.
        named: where ``state`` is absent, delete what *read* names.
        options: passed on to ``converge``.
    """

    def act() -> Result:
        if module.params["state"] == "present":
            return converge(read(), check=module.check_mode, **options)
        return converge({}, absent=tuple(read().values()) if named else (), check=module.check_mode, **options)

    result = guarded(module, act)
    for line in (*result.warnings, *result.shadowed):
        module.warn(line)
    operations = [str(operation) for operation in result.operations[:MOST_OPERATIONS]]
    if len(result.operations) > MOST_OPERATIONS:
        operations.append(f"and {len(result.operations) - MOST_OPERATIONS} more: --diff shows all")
    # A thousand hosts that get a thousand routes each would send 100 MB of text that nobody asked for.
    diff = {"diff": {"before": result.before, "after": result.after}} if module._diff else {}  # noqa: SLF001
    waits = {"unconfirmed": options["owner"] in _rollback.names()} if options.get("confirm_timeout") else {}
    module.exit_json(changed=result.changed, operations=operations, **waits, **diff)


def guarded(module: AnsibleModule, act: Callable[[], Any]) -> Any:
    """What *act* returns; its errors as the module's failure, with no traceback."""
    try:
        return act()
    except Mistakes as error:
        module.fail_json(msg=str(error), mistakes=error.lines)
    except (Failed, KernelError) as error:
        module.fail_json(msg=str(error))
    except MissingLibrary as error:
        _respawn_or_fail(module, error)
    except PermissionError as error:
        module.fail_json(msg=f"{error}. This needs root: run with become: true" if os.geteuid() else str(error))
    except OSError as error:  # a file that is in the way, or a disk that takes no more
        module.fail_json(msg=str(error))
    return None


def read_inventory(module: AnsibleModule, name: str) -> Any:
    """The live state of a document."""
    return guarded(module, lambda: inventory(name))


def _respawn_or_fail(module: AnsibleModule, error: MissingLibrary) -> None:
    """Run again under the distribution's Python where that has pyroute2 (0.8 s a task), else say what to install."""
    other = None if has_respawned() else _other_python()
    if other:
        respawn_module(other)
    module.fail_json(
        msg=(
            f"host {platform.node()}: {error}. Install it for that interpreter (package python3-pyroute2, "
            f"python-pyroute2 on Arch; or pip install pyroute2), run the role podnet.overlay.node, "
            f"or set ansible_python_interpreter to a Python that has it"
        ),
        host=platform.node(),
        interpreter=sys.executable,
        package="pyroute2",
    )


def lasting_python() -> str | None:
    """An interpreter with pyroute2 for what stays on the host; None if there is none.

    The distribution's by the name that outlives its upgrades, where this one may be python3.11 or in a virtual environment.
    """
    ask = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pyroute2') is None)"
    for path in LASTING:
        if os.access(path, os.X_OK) and attempt(path, "-I", "-c", ask).returncode == 0:
            return path
    return sys.executable if importlib.util.find_spec("pyroute2") else _other_python()


def _other_python() -> str | None:
    others = [path for path in INTERPRETERS if path != sys.executable]
    found: str | None = probe_interpreters_for_module(others, "pyroute2")
    return found
