# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # A module that brings something to a desired state
    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/podnet.overlay.overlay) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - podnet.overlay.overlay
  check_mode:
    description: Can run in C(check_mode) and predict its changes without making them.
    support: full
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing and says so.
    support: full
  platform:
    description: Operating systems of the hosts.
    support: full
    platforms: linux
"""

    # A module that only looks
    INFO = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/podnet.overlay.overlay) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - podnet.overlay.overlay
  check_mode:
    description: Can run in C(check_mode) and predict its changes without making them.
    support: full
    details:
      - This module does not modify state.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
    support: N/A
    details:
      - This module does not modify state.
  idempotent:
    description: A second run with the same arguments changes nothing and says so.
    support: full
    details:
      - This module does not modify state.
  platform:
    description: Operating systems of the hosts.
    support: full
    platforms: linux
"""

    # An action that runs on the controller, once for all hosts
    ACTION = r"""
options: {}
attributes:
  action:
    description: Has an action plugin of the same name, which runs on the controller.
    support: full
  bypass_host_loop:
    description: Runs once for all hosts, whatever C(run_once) says.
    support: none
  platform:
    description: Operating systems of the hosts.
    support: full
    platforms: all
"""
