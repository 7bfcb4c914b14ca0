# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    # A module for one thing, which belongs to no document
    DOCUMENTATION = r"""
options:
  state:
    description:
      - V(present) makes it so and changes only what differs. V(absent) deletes what is named and nothing else.
    type: str
    choices: [present, absent]
    default: present
notes:
  - What an overlay or another document of M(podnet.overlay.topology) owns is never changed here. That is an error which names the document.
  - In check mode a namespace or link that is missing is a warning, since an earlier task of the play may be about to make it.
"""

    # What all links have
    LINK = r"""
options:
  name:
    description: Name of the link, at most 15 bytes.
    type: str
    required: true
  namespace:
    description: Named network namespace in which the link is. Empty is the host's own.
    type: str
    default: ""
  addresses:
    description:
      - IPv4 addresses that the link has. Others that it has stay.
      - Each is a text such as V(10.1.1.2/24), a V(/32) without a length, or a mapping of C(address), C(peer) (the far end of a
        point-to-point link) and C(scope) (V(global), V(site), V(link), V(host)).
    type: list
    elements: raw
  mtu:
    description: MTU in bytes. Without it the kernel's choice stays.
    type: int
  up:
    description: Whether the link is up.
    type: bool
    default: true
"""
