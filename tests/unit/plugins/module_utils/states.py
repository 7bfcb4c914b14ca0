"""Strategies for hypothesis: states as a kernel could hold them."""

from __future__ import annotations

import ipaddress

from ansible_collections.podnet.overlay.plugins.module_utils._firewall import tables
from ansible_collections.podnet.overlay.plugins.module_utils._firewall_clause import (
    Allow,
    Clause,
    Masquerade,
    Pod,
    PortMapping,
    TrustedSource,
)
from ansible_collections.podnet.overlay.plugins.module_utils._model import (
    Address,
    Bridge,
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
        found.append(tables(draw(clauses()), draw(owners)))
    return state_of(found)


@st.composite
def clauses(draw: st.DrawFn) -> Clause:
    """A document's firewall clause, of a node with two pods in the network 10.244.0.0/16."""
    backend = draw(st.sampled_from(("ipip", "vxlan", "host-gw")))
    tunnels = {"ipip": "flannel.ipip", "vxlan": "flannel.1", "host-gw": ""}
    groups = st.sampled_from((None, "frontend", "backend"))
    pods = tuple(
        Pod(name, "veth-" + name, "0a:58:0a:f4:00:%02x" % last, "10.244.0.%d" % last, draw(groups))
        for name, last in (("web", 2), ("db", 3))
    )
    known = sorted({pod.group for pod in pods if pod.group})
    protocols = st.sampled_from(
        (("tcp", ("80",)), ("udp", ("53", "8000-8100")), ("sctp", ()), ("icmp", ()), (None, ()))
    )
    networks = st.sampled_from(("0.0.0.0/0", "192.0.2.0/24", "203.0.113.7/32"))
    allowed = [
        Allow(to, draw(st.sampled_from((None, *known))), draw(st.none() | networks), *draw(protocols)) for to in known
    ]
    trusted = st.builds(TrustedSource, st.sampled_from(("203.0.113.9",)), st.just(("10.250.0.0/24", "10.250.0.0/25")))
    masquerade = st.builds(
        Masquerade,
        st.booleans(),
        st.sampled_from(((), ("192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0"))),
        st.booleans(),
        st.none() | ipv4s,
    )
    mapping = st.builds(
        PortMapping,
        st.just("web"),
        st.just("10.244.0.2"),
        st.just(80),
        st.sampled_from(("tcp", "udp", "sctp")),
        st.integers(1, 65535),
        st.none() | ipv4s,
    )
    local = draw(ipv4s)
    another = draw(st.none() | st.sampled_from(sorted(set(tunnels) - {backend})))
    return Clause(
        backend,
        "cni0",
        "10.244.0.0/16",
        "10.244.0.0/24",
        local if tunnels[backend] else "",
        tunnels[backend],
        also={"backend": another, "local": local, "tunnel": tunnels[another]} if another else {},
        peers=draw(st.dictionaries(st.sampled_from(("10.244.1.0/24", "10.244.2.0/24")), ipv4s)),
        trusted_sources=tuple(draw(st.lists(trusted, max_size=1))),
        masquerade=draw(st.none() | masquerade),
        antispoof=draw(st.booleans()),
        pods=pods,
        ports=tuple(draw(st.lists(mapping, max_size=2, unique_by=lambda each: (each.protocol, each.host_port)))),
        policy=draw(st.none() | st.just(tuple(allowed))),
        groups=dict.fromkeys(known, ("10.244.0.9", "10.244.1.9")),
    )
