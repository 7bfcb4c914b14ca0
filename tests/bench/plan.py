#!/usr/bin/env python3
"""The CPU seconds that the plan of 100, 1,000 and 10,000 nodes takes, inventory variables' reading aside: linear, 1,000 within 1 s.

PYTHONPATH=.collections python3 tests/bench/plan.py
"""

from __future__ import annotations

import importlib.util
import pathlib
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.podnet.overlay.plugins.module_utils import _facts, _inventory, _leases, _plan

_spec = importlib.util.spec_from_file_location(
    "fleet", pathlib.Path(__file__).parents[1] / "unit/plugins/module_utils/fleet.py"
)
assert _spec
assert _spec.loader
fleet = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fleet)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    print(
        f"{'nodes':>6} {'read':>7} {'facts':>7} {'judge':>7} {'first':>7} {'again':>7} {'render':>7} {'parse':>7} {'again, all':>10}"
    )
    for count in (100, 1000, 10000):
        variables = fleet.variables(count, overlay_network="10.0.0.0/8")
        answers = {f"node{number}": fleet.answer(number) for number in range(1, count + 1)}
        read, inventory = seconds(lambda variables=variables: _inventory.read("overlay", variables))
        taken, facts = seconds(
            lambda answers=answers: {name: _facts.Facts.of(answer) for name, answer in answers.items()}
        )
        first, plan = seconds(lambda inventory=inventory, facts=facts: _plan.plan(inventory, None, facts))
        rendered, text = seconds(lambda plan=plan: _leases.render(plan.leases))
        parsed, leases = seconds(lambda text=text: _leases.parse(text, "leases"))
        judged, _none = seconds(lambda inventory=inventory, leases=leases: list(_plan.judge(inventory, leases)))
        again, _plan_again = seconds(
            lambda inventory=inventory, leases=leases, facts=facts: _plan.plan(inventory, leases, facts)
        )
        total = read + taken + judged + again + 2 * parsed
        steps = (read, taken, judged, first, again, rendered, parsed)
        print(f"{count:>6} {' '.join(f'{step:7.3f}' for step in steps)} {total:>10.3f}", flush=True)


if __name__ == "__main__":
    main()
