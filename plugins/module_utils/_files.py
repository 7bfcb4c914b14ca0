# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files by which other programs join the overlay: what flanneld would write, and settings of CNI, Docker and Podman.

All put containers on the overlay's own bridge. Who gives addresses has a quarter of the node's subnet, so that nobody
has to know of the others' addresses. Pure: the engine writes the files.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from typing import Any

Network = ipaddress.IPv4Network

NAME = "podnet-overlay"
"""The network's name in CNI and Podman."""
SUBNET_ENV = "/run/flannel/subnet.env"
CONFLIST = f"/etc/cni/net.d/10-{NAME}.conflist"
DOCKER = "/etc/docker/daemon.json"
PODMAN = f"/etc/containers/networks/{NAME}.json"
PARTS = ("pods", "cni", "docker", "podman")
ANCHOR = "podnet-anchor"
LONGEST = 28
"""The longest prefix of a subnet that can be shared: of a longer one, overlay_pods' quarter holds no usable address."""


def parts(subnet: Network) -> dict[str, tuple[str, str]]:
    """The first and last address that each of ``PARTS`` may give to its containers.

    Quarters, since Docker takes its part as a network only (fixed-cidr); without the network's own address, the
    gateway's and the broadcast address.

    Raises:
        ValueError: the subnet is too small to be shared.
    """
    usable = range(int(subnet.network_address) + 2, int(subnet.broadcast_address))
    found = {}
    for name, quarter in _quarters(subnet).items():
        first = max(int(quarter.network_address), usable[0])
        last = min(int(quarter.broadcast_address), usable[-1])
        found[name] = (str(ipaddress.IPv4Address(first)), str(ipaddress.IPv4Address(last)))
    return found


def files(
    *,
    bridge: str,
    network: Network,
    subnet: Network,
    mtu: int,
    masquerade: bool,
    hairpin: bool,
    cni: bool,
    docker: bool,
    podman: bool,
) -> list[dict[str, str]]:
    """The document's ``files``: subnet.env, and the settings of the programs that are asked for.

    Raises:
        ValueError: the subnet is too small to be shared by the programs that are asked for.
    """
    contents = {SUBNET_ENV: subnet_env(network, subnet, mtu, masquerade=masquerade)}
    if cni:
        contents[CONFLIST] = _json(conflist(bridge, network, subnet, mtu, hairpin=hairpin))
    if docker:
        contents[DOCKER] = _json(docker_daemon(bridge, subnet, mtu))
    if podman:
        contents[PODMAN] = _json(podman_network(bridge, subnet, mtu))
    return [{"path": path, "content": content, "mode": "0644"} for path, content in contents.items()]


def subnet_env(network: Network, subnet: Network, mtu: int, *, masquerade: bool) -> str:
    """What flanneld writes for those who start containers (flannel, pkg/subnet/subnet.go: WriteSubnetFile)."""
    gateway = f"{_gateway(subnet)}/{subnet.prefixlen}"
    return (
        f"FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={gateway}\n"
        f"FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={'true' if masquerade else 'false'}\n"
    )


def conflist(bridge: str, network: Network, subnet: Network, mtu: int, *, hairpin: bool) -> dict[str, Any]:
    """A CNI network, as Flannel's plugin delegates it to the plugin ``bridge``, and ``portmap`` as in Flannel's manifest.

    Masquerade is the overlay's own matter, so ``ipMasq`` is off.
    """
    first, last = parts(subnet)["cni"]
    gateway = _gateway(subnet)
    span = {"subnet": str(subnet), "rangeStart": first, "rangeEnd": last, "gateway": gateway}
    # Without a gateway the route is the same, but the plugin's CHECK (1.1.1) does not find it again.
    route = {"dst": str(network), "gw": gateway}
    return {
        "cniVersion": "1.0.0",
        "name": NAME,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isDefaultGateway": True,
                "hairpinMode": hairpin,
                "ipMasq": False,
                "mtu": mtu,
                "ipam": {"type": "host-local", "ranges": [[span]], "routes": [route]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }


def docker_daemon(bridge: str, subnet: Network, mtu: int) -> dict[str, Any]:
    """Docker's daemon.json (dockerd(8)). The gateway is the bridge's own address, which Docker reads from it."""
    return {
        "bridge": bridge,
        "fixed-cidr": str(_quarters(subnet)["docker"]),
        "ip-masq": False,
        "mtu": mtu,
    }


def podman_network(bridge: str, subnet: Network, mtu: int) -> dict[str, Any]:
    """A network of Podman's netavark backend (containers/common, libnetwork/types: Network)."""
    first, last = parts(subnet)["podman"]
    return {
        "name": NAME,
        "id": hashlib.sha256(NAME.encode()).hexdigest(),
        "driver": "bridge",
        "network_interface": bridge,
        "subnets": [
            {
                "subnet": str(subnet),
                "gateway": _gateway(subnet),
                "lease_range": {"start_ip": first, "end_ip": last},
            }
        ],
        "ipv6_enabled": False,
        "internal": False,
        "dns_enabled": False,
        "options": {"mtu": str(mtu)},
        "ipam_options": {"driver": "host-local"},
    }


def anchor(bridge: str, mtu: int) -> dict[str, Any]:
    """A link of the document that keeps the bridge where Podman is: a port that is down and carries nothing.

    Netavark before 1.14 knows only bridges of its own, and deletes one when it takes away the last port
    (containers/podman#17844): on a node without pods, with the last container.
    """
    ends = {"mtu": mtu, "up": False}
    return {"name": ANCHOR, "kind": "veth", "master": bridge, "peer": {"name": f"{ANCHOR}0", **ends}, **ends}


def _quarters(subnet: Network) -> dict[str, Network]:
    if subnet.prefixlen > LONGEST:
        raise ValueError(
            f"{subnet} is too small to be shared by {', '.join(PARTS)}; choose an overlay_subnet_len of {LONGEST} or less"
        )
    return dict(zip(PARTS, subnet.subnets(prefixlen_diff=2)))


def _gateway(subnet: Network) -> str:
    return str(subnet.network_address + 1)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
