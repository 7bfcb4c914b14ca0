"""Garbage in any place is a mistake that is told, never a traceback."""

from __future__ import annotations

import copy
import datetime as dt
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from ansible_collections.podnet.overlay.plugins.module_utils import _inventory, _leases, _node, _plan, _state
from ansible_collections.podnet.overlay.plugins.module_utils._model import Mistakes, describe
from ansible_collections.podnet.overlay.plugins.module_utils._state import desired_state
from hypothesis import given
from hypothesis import strategies as st

from . import fleet

TABLE = {"10.244.0.0/24": "172.16.0.1", "10.244.1.0/24": "172.16.0.2"}
LEASES = {
    "version": 1,
    "network": "10.244.0.0/16",
    "nodes": {
        "node1": {"subnet": "10.244.0.0/24", "public_ip": "172.16.0.1", "mtu": 1480, "pods": {"web": "10.244.0.2"}}
    },
    "removed": {"node9": {"subnet": "10.244.9.0/24", "public_ip": "172.16.0.9", "reason": "playbook"}},
}
DOCUMENT = {
    "version": 1,
    "name": "overlay",
    "namespaces": [{"name": "web", "files": {"hosts": "127.0.0.1 localhost\n"}}],
    "links": [
        {"name": "eth1", "external": True},
        {"name": "cni0", "kind": "bridge", "mtu": 1480, "bridge": {"stp": False, "ageing_time": 300}},
        {
            "name": "veth-web",
            "kind": "veth",
            "master": "cni0",
            "port": {"hairpin": True, "cost": 2},
            "peer": {"name": "eth0", "namespace": "web", "up": True, "addresses": ["10.244.0.2/24"]},
        },
        {
            "name": "flannel.ipip",
            "kind": "ipip",
            "ipip": {
                "local": "172.16.0.1",
                "remote": "any",
                "ttl": "inherit",
                "tos": 0,
                "pmtudisc": False,
                "link": "eth1",
            },
            "addresses": [{"address": "10.244.0.0", "peer": "10.244.0.9", "scope": "global"}],
        },
        {
            "name": "flannel.1",
            "kind": "vxlan",
            "address": "0e:58:0a:f4:00:00",
            "vxlan": {"id": 1, "local": "172.16.0.1", "link": "eth1", "port": 8472, "learning": False},
        },
    ],
    "routes": [
        {"dst": "default", "via": "10.244.0.1", "dev": "eth0", "table": "main", "metric": 1, "namespace": "web"}
    ],
    "neighbours": [{"dst": "10.244.1.0", "lladdr": "0e:58:0a:f4:01:00", "dev": "flannel.1"}],
    "fdb": [{"dst": "172.16.0.2", "lladdr": "0e:58:0a:f4:01:00", "dev": "flannel.1"}],
    "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}],
    "files": [{"path": "/run/flannel/subnet.env", "content": "FLANNEL_MTU=1450", "mode": "0644"}],
    "firewall": {
        "backend": "vxlan",
        "bridge": "cni0",
        "network": "10.244.0.0/16",
        "subnet": "10.244.0.0/24",
        "local": "172.16.0.1",
        "tunnel": "flannel.1",
        "vni": 1,
        "port": 8472,
        "peers": {"10.244.1.0/24": "172.16.0.2"},
        "trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.250.0.0/24"]}],
        "masquerade": {"nodes": True, "except": ["192.0.2.0/24"], "random_fully": True, "address": "172.16.0.1"},
        "antispoof": True,
        "pods": [
            {
                "name": "web",
                "interface": "veth-web",
                "mac": "0a:58:0a:f4:00:02",
                "address": "10.244.0.2",
                "group": "frontend",
            }
        ],
        "ports": [
            {
                "pod": "web",
                "address": "10.244.0.2",
                "port": 80,
                "protocol": "tcp",
                "host_port": 8080,
                "host_address": "172.16.0.1",
            }
        ],
        "policy": [
            {
                "to": "frontend",
                "from": "frontend",
                "network": "192.0.2.0/24",
                "protocol": "tcp",
                "ports": ["80", "8000-8100"],
            }
        ],
        "groups": {"frontend": ["10.244.0.2"]},
    },
    "peers": {
        "backend": "ipip",
        "subnet": "10.244.0.0/24",
        "public_ip": "172.16.0.1",
        "dev": "flannel.ipip",
        "interface": "eth1",
        "underlay": "172.16.0.0/12",
        "direct_routing": True,
        "network": "10.244.0.0/16",
        "table": TABLE,
    },
}
VARIABLES = {
    "overlay_network": "10.244.0.0/16",
    "overlay_subnet_len": 24,
    "overlay_backend": "vxlan",
    "overlay_direct_routing": True,
    "overlay_mtu": 1400,
    "overlay_bridge": "cni0",
    "overlay_tunnel": "flannel.9",
    "overlay_vni": 9,
    "overlay_port": 4789,
    "overlay_net_conf": {
        "Network": "10.244.0.0/16",
        "SubnetLen": 24,
        "SubnetMin": "10.244.0.0",
        "SubnetMax": "10.244.99.0",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "EnableNFTables": True,
        "Backend": {"Type": "vxlan", "VNI": 9, "Port": 4789, "MTU": 1450},
    },
    "overlay_subnet_min": "10.244.0.0",
    "overlay_subnet_max": "10.244.99.0",
    "overlay_masquerade": True,
    "overlay_masquerade_nodes": True,
    "overlay_masquerade_random_fully": True,
    "overlay_no_masquerade": ["192.0.2.0/24"],
    "overlay_trusted_sources": [{"address": "203.0.113.9", "subnets": ["10.250.0.0/24"]}],
    "overlay_antispoof": True,
    "overlay_hairpin": True,
    "overlay_policy": {
        "allow": [
            {"to": "frontend", "from": "backend", "protocol": "tcp", "ports": [80, "8000-8100"]},
            {"to": "backend", "network": "192.0.2.0/24"},
        ]
    },
    "overlay_cni": True,
    "overlay_docker": True,
    "overlay_podman": True,
    "overlay_snat_address": "172.16.0.1",
    "overlay_public_ip": "172.16.0.1",
    "overlay_interface": "eth1",
    "overlay_subnet": "10.244.0.0/24",
    "overlay_pods": [
        {"name": "web", "ports": ["8080:80", "127.0.0.1:53:5353/udp"], "group": "frontend"},
        {"name": "db", "address": "10.244.0.9", "group": "backend"},
    ],
    "overlay_pod_nameservers": ["192.0.2.53"],
    "ansible_host": "172.16.0.1",
}
"""Every variable that is read."""
SECOND = {
    **VARIABLES,
    "overlay_public_ip": "172.16.0.2",
    "overlay_subnet": "10.244.1.0/24",
    "overlay_snat_address": "172.16.0.2",
    "overlay_pods": [{"name": "web"}],
    "ansible_host": "node2",
}

SAVED = {
    "version": 1,
    "name": "overlay",
    "document": DOCUMENT,
    "before": [
        {"namespace": "", "name": "net.ipv4.ip_forward", "value": "0", "restores": [["net.ipv4.ip_forward", "0"]]}
    ],
}

ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**70, 0.5, float("nan"), [], {}, [None], {"": None}, {"name": []}, [[]]),
    *(
        "",
        "/",
        "any",
        "10.244.0.0/99",
        "10.244.9.9/24",
        "fd00::1",
        "fd00::/64",
        "0.0.0.0/0",
        "224.0.0.0/8",
        "a\x00b",
        "a\nb",
    ),
    *(
        "\ud800",
        "web",
        "eth0",
        "inherit",
        "sixteen-bytes-ab",
        dt.date(2020, 1, 1),
    ),  # YAML makes dates of 2020-01-01
]
scalars = (
    st.sampled_from(ODD).filter(lambda item: not isinstance(item, (list, dict)))
    | st.integers()
    | st.floats()
    | st.text()
)
garbage = st.recursive(
    st.sampled_from(ODD) | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in *value*, its own first."""
    yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*here, key))


def put(value: Any, path: tuple[Any, ...], item: Any) -> Any:
    """*value* with *item* at *path*; as it was where there is no such place."""
    if not path:
        return item
    copied = copy.copy(value)
    try:
        copied[path[0]] = put(value[path[0]], path[1:], item)
    except (LookupError, TypeError):
        return value
    return copied


def told(act: Callable[[], Any]) -> Any:
    """What *act* returns, or None where it tells mistakes, each a line that can be printed."""
    try:
        return act()
    except Mistakes as error:
        lines = error.lines
    assert lines
    assert not [line for line in lines if not line or "\n" in line.encode().decode()]
    return None


def take_document(document: Any) -> None:
    state = told(lambda: desired_state(document, "overlay"))
    for item in (state or {}).values():
        assert describe(item)
        hash(item.key)


def take_inventory(hosts: Any) -> None:
    variables = {
        f"node{number}": {name: value for name, value in own.items() if isinstance(name, str)}  # Ansible sees to that
        for number, own in enumerate(hosts if isinstance(hosts, list) else [], 1)
        if isinstance(own, dict)
    }
    if not variables:
        return
    for known in (None, KNOWN):
        inventory = _inventory.read("overlay", variables)
        judged = list(_plan.judge(inventory, known))
        plan = told(lambda inventory=inventory, known=known: _plan.plan(inventory, known, fleet.facts(len(variables))))
        if plan:
            assert not judged
            assert _leases.parse(_leases.render(plan.leases), "leases", inventory.settings.network) == plan.leases
            for document in plan.documents.values():
                peers = {**document["peers"], "table": json.loads(plan.peers)}
                firewall = {**document["firewall"], "groups": json.loads(plan.groups)}
                desired_state({**document, "peers": peers, "firewall": firewall}, "overlay")


def take_leases(leases: Any) -> None:
    text = _leases.yaml.safe_dump(leases)
    read = told(lambda: _leases.parse(text, "leases", IPv4Network("10.244.0.0/16")))
    if read:
        assert _leases.parse(_leases.render(read), "leases") == read


def take_saved(state: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (_state, _node):
            patch.setattr(module, "STATE_FOLDER", folder)
            patch.setattr(module, "DOCUMENT_FOLDER", os.path.join(folder, "etc"))
        pathlib.Path(folder, "overlay.json").write_text(json.dumps(state, default=str, skipkeys=True), encoding="utf-8")
        saved = told(lambda: _state.load("overlay"))
        told(lambda: saved and saved.desired)
        carried, _torn = _node._saved_state("overlay")
        if carried:
            IPv4Network(carried["subnet"])
            assert all(map(IPv4Address, carried["pods"].values()))


KNOWN = _leases.parse(json.dumps(LEASES), "leases")
SOUND: dict[Callable[[Any], None], Any] = {
    take_document: DOCUMENT,
    take_inventory: [VARIABLES, SECOND],
    take_leases: LEASES,
    take_saved: SAVED,
}


def test_what_is_spoilt_here_is_sound() -> None:
    desired_state(DOCUMENT, "overlay")
    inventory = _inventory.read("overlay", {"node1": VARIABLES, "node2": SECOND})
    assert not list(_plan.judge(inventory, KNOWN))
    assert len(_plan.plan(inventory, KNOWN, fleet.facts(2)).documents) == 2


@pytest.mark.parametrize("take", SOUND)
def test_garbage_in_each_place(take: Callable[[Any], None]) -> None:
    for path in places(SOUND[take]):
        for item in ODD:
            take(put(SOUND[take], path, item))


@pytest.mark.parametrize("take", SOUND)
@given(data=st.data())
def test_garbage_in_several_places(take: Callable[[Any], None], data: st.DataObject) -> None:
    spoilt = SOUND[take]
    paths = st.sampled_from(list(places(spoilt)))
    for path, key, item in data.draw(st.lists(st.tuples(paths, st.none() | scalars, garbage), min_size=1, max_size=3)):
        spoilt = put(spoilt, path if key is None else (*path, key), item)
    take(spoilt)


@given(st.binary())
def test_a_leases_file_of_anything(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        told(lambda: _leases.load(file.name))
