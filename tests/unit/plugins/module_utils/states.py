"""Strategies for hypothesis: states as a kernel could hold them."""

from __future__ import annotations

import ipaddress

from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    Address,
    Bridge,
    Firewall,
    ForwardingEntry,
    Ipip,
    Link,
    Namespace,
    NamespaceFile,
    Neighbour,
    Object,
    Port,
    Route,
    State,
    Sysctl,
    Veth,
    Vxlan,
    state_of,
)
from hypothesis import strategies as st

OWNER = "overlay"
NAMESPACES = ("", "web", "db")
ipv4s = st.integers(0x0A000001, 0x0AFFFFFE).map(lambda number: str(ipaddress.IPv4Address(number)))
macs = st.integers(0, 2**32 - 1).map(
    lambda number: "0a:58:" + ":".join(f"{number:08x}"[at : at + 2] for at in (0, 2, 4, 6))
)
lengths = st.integers(1, 32)
mtus = st.integers(576, 9000)
owners = st.sampled_from((OWNER, OWNER, "", "other"))


@st.composite
def networks(draw: st.DrawFn) -> str:
    return str(ipaddress.IPv4Network((draw(ipv4s), draw(lengths)), strict=False))


@st.composite
def routes(
    draw: st.DrawFn, namespaces: tuple[str, ...] = NAMESPACES, devices: tuple[str, ...] = ("cni0", "tun")
) -> Route:
    via = draw(st.one_of(st.just(""), ipv4s))
    return Route(
        draw(st.sampled_from(namespaces)),
        draw(networks()),
        via,
        draw(st.sampled_from(devices)),
        bool(via) and draw(st.booleans()),
        draw(st.sampled_from((254, 254, 100, 1000))),
        draw(st.sampled_from((0, 0, 100))),
        draw(st.one_of(st.just(""), ipv4s)),
        draw(st.sampled_from((0, 0, 1400))),
        draw(st.sampled_from((244, 244, 4))),
        draw(st.sampled_from(("unicast", "unicast", "blackhole"))),
    )


@st.composite
def links(draw: st.DrawFn, namespace: str) -> list[Object]:
    """Some links of one namespace, complete as an observed link is."""
    found: list[Object] = []
    common = {"up": draw(st.booleans()), "mtu": draw(mtus), "master": ""}
    if draw(st.booleans()):
        options = Bridge(draw(st.booleans()), draw(st.integers(0, 1000)), 15, 2, 20, 32768, draw(st.booleans()))
        found.append(
            Link(namespace, "cni0", "bridge", address=draw(macs), options=options, owner=draw(owners), **common)
        )
    if draw(st.booleans()):
        remote = draw(st.one_of(st.just("0.0.0.0"), ipv4s))
        tunnel = draw(st.sampled_from(("ipip", "vxlan")))
        if tunnel == "ipip":
            found.append(
                Link(
                    namespace,
                    "tun",
                    "ipip",
                    options=Ipip(draw(ipv4s), remote, 0, 0, False, "", draw(st.sampled_from((0, 4)))),
                    owner=draw(owners),
                    **common,
                )
            )
        else:
            vxlan = Vxlan(draw(st.integers(1, 9)), draw(ipv4s), "", 8472, False)
            found.append(
                Link(namespace, "tun", "vxlan", address=draw(macs), options=vxlan, owner=draw(owners), **common)
            )
    if draw(st.booleans()):
        owner = draw(owners)
        bridged = any(item.key[2] == "cni0" for item in found)
        port = Port(draw(st.booleans()), draw(st.booleans()), True, 32, 2) if bridged else None
        near = {**common, "master": "cni0" if bridged else ""}
        found.append(
            Link(
                namespace,
                "veth0",
                "veth",
                address=draw(macs),
                options=Veth("eth0", namespace),
                port=port,
                owner=owner,
                **near,
            )
        )
        found.append(
            Link(namespace, "eth0", "veth", address=draw(macs), options=Veth("veth0", namespace), owner=owner, **common)
        )
    for link in list(found):
        drawn = draw(st.lists(st.tuples(ipv4s, lengths), max_size=2, unique=True))
        found += [Address(namespace, link.key[2], f"{address}/{length}") for address, length in drawn]
    return found


@st.composite
def states(draw: st.DrawFn) -> State:
    """A whole host: namespaces, links, addresses, routes, neighbours, forwarding entries, sysctls, the guard."""
    found: list[Object] = []
    for namespace in NAMESPACES:
        if namespace and not draw(st.booleans()):
            continue
        if namespace:
            found.append(Namespace(namespace, draw(owners)))
            if draw(st.booleans()):
                found.append(NamespaceFile(namespace, "hosts", draw(st.text(max_size=10))))
        here = draw(links(namespace))
        found += here
        devices = tuple(item.name for item in here if isinstance(item, Link))
        if devices:
            found += draw(st.lists(routes((namespace,), devices), max_size=4))
            found += draw(
                st.lists(st.builds(Neighbour, st.just(namespace), st.sampled_from(devices), ipv4s, macs), max_size=2)
            )
        if "tun" in devices:
            found += draw(
                st.lists(st.builds(ForwardingEntry, st.just(namespace), st.just("tun"), macs, ipv4s), max_size=2)
            )
        found += draw(
            st.lists(
                st.builds(
                    Sysctl,
                    st.just(namespace),
                    st.sampled_from(("net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter")),
                    st.sampled_from("012"),
                ),
                max_size=2,
            )
        )
    if draw(st.booleans()):
        peers = tuple(sorted(draw(st.sets(ipv4s, max_size=3))))
        backend, port = draw(st.sampled_from((("ipip", 0), ("vxlan", 8472))))
        found.append(Firewall(draw(ipv4s), backend, peers, port, draw(owners)))
    return state_of(found)
