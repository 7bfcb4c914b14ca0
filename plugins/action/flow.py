# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import secrets
import typing as t

from ansible.plugins.action import ActionBase

from ..module_utils import _flow
from ..module_utils._icmp import DEFAULT_SIZE
from ..module_utils._model import Mistakes
from ..module_utils._trace_text import OUTPUTS


class ActionModule(ActionBase):
    """Resolve the ends of a path; see the documentation of podnet.overlay.flow."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(
            argument_spec={
                "from": {"type": "str", "required": True},
                "to": {"type": "str", "required": True},
                "nodes": {"type": "dict", "required": True},
                "settings": {"type": "dict", "required": True},
                "hosts": {"type": "list", "elements": "str", "default": []},
                "size": {"type": "int", "default": DEFAULT_SIZE},
                "df": {"type": "bool", "default": True},
                "mark": {"type": "str", "default": "0"},
                "port": {"type": "str", "default": ""},
                "capture": {"type": "bool", "default": False},
                "output": {"type": "str", "choices": OUTPUTS, "default": OUTPUTS[0]},
            }
        )
        source, target, capture, output = (options.pop(name) for name in ("from", "to", "capture", "output"))
        try:
            path = _flow.flow(source, target, **options)
        except Mistakes as e:
            return {"failed": True, "msg": "\n".join(e.lines)}
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            return {"failed": True, "msg": f"nodes, settings: not as podnet.overlay.plan returns them: {e!r}"}
        if capture and options["port"]:
            return {
                "failed": True,
                "msg": "capture: the probe is an echo request, which goes to no port: leave out one",
            }
        # Its own name, so that of two runs at once neither ends the other's.
        name = f"trace_{secrets.token_hex(4)}" if capture else None
        return {"changed": False, **path, "capture": name, "output": output}
