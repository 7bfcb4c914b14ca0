# Copyright (c) 2026, podnet.overlay contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the plan must know of a host, read without pyroute2 and without changing anything.

A process costs 50 ms on an emulated machine, so all of iproute2's answers come from one, nftables' from another,
and the rest from /proc, /sys and files.
"""

from __future__ import annotations

import glob
import importlib.util
import ipaddress
import json
import os
import re
import shutil
import sys
import typing as t

from . import _netns, _running, _sends

VERSION = 1  # of what read() returns
PYROUTE2_MINIMUM = (0, 7, 2)

# The engine's words, said again: importing its files would double the time that this first task takes on a host.
OWNER = "podnet.overlay:"  # before the document's name, in the alias of what it owns
OWN_PROTOCOLS = ("244", "podnet")  # of the routes that are ours, as number or by the name in PROTOCOL_FILE
OWN_TABLE = "podnet_overlay"

DOCUMENT_FOLDER = "/etc/podnet-overlay"
STATE_FOLDER = "/var/lib/podnet-overlay"
STATE_VERSIONS = (1, 2)
BOOT_FILE = "/etc/modules-load.d/podnet-overlay.conf"
PROTOCOL_FILE = "/etc/iproute2/rt_protos.d/podnet-overlay.conf"

ENGINE_DIGEST = "/usr/local/lib/podnet-overlay/DIGEST"
COMMAND = "/usr/local/sbin/podnet-overlay"
UNIT_FOLDER = "/etc/systemd/system"
BOOT_UNIT, WATCH_UNIT = "podnet-overlay.service", "podnet-overlay-watch.service"

MODULES_DISABLED = "kernel.modules_disabled is 1"
TUNNELS = ("ipip", "vxlan")  # backends that need a kernel module of the same name
IPROUTE_PACKAGE = {"RedHat": "iproute"}  # iproute2 elsewhere

_PROGRAMS = (  # how the names of their tables or chains begin
    ("cali-", "Calico"),
    ("CILIUM_", "Cilium"),
    ("KUBE-", "kube-proxy"),
    ("FLANNEL-", "flanneld"),
    ("NETAVARK", "Podman"),
    ("LIBVIRT_", "libvirt"),
    ("libvirt_network", "libvirt"),
    ("PVEFW-", "Proxmox VE"),
)
_LISTEN, _UNCONNECTED = 10, 7  # states of a socket: net/tcp_states.h

_CAP_NET_ADMIN = 12  # linux/capability.h

Facts = dict[str, t.Any]
Run = t.Callable[..., tuple[int, str, str]]  # (argv, data=None) -> exit code, stdout, stderr


class NodeError(Exception):
    """The host cannot be read; the text says why and what to do."""


def read(
    run: Run,
    name: str = "overlay",
    backend: str = "ipip",
    network: str | None = None,
    bridge: str = "cni0",
    tunnel: str | None = None,
    namespaces: list[str] | None = None,
    pods: bool = False,
    engine: str | None = None,
    watch: bool = True,
) -> Facts:
    """Everything that podnet.overlay.node_info returns. Raises NodeError."""
    uname = os.uname()
    privileged = os.geteuid() == 0
    os_release = _text("/etc/os-release")
    family = os_family(os_release)

    raw_links, raw_default, raw_routes = _iproute(run, family, network)
    links = link_facts(raw_links)
    default = default_route(raw_default, raw_links)
    kernel = _kernel_modules(run, uname.release, ("bridge", "veth", *TUNNELS), privileged)
    needed = {module: state for module, state in kernel.items() if module not in TUNNELS or module == backend}
    pyroute2 = _pyroute2()
    elsewhere = None if pyroute2 else _pyroute2_of_distribution()
    nft, chains, refusal = _nft(run)
    boot = _text(BOOT_FILE)
    carried, damage = _saved_state(name)
    occupied = {}
    if pods and not privileged:
        raise NodeError(f"host {uname.nodename}: only root may see which processes are in the pods: use --become")
    if pods:
        own = [item["name"] for item in _namespaces(None) if item["owner"] == name]
        foreign = [link["ifname"] for link in raw_links if link.get("master") == bridge and not _owned(link, name)]
        occupied["pods"] = _running.pods(own, foreign)

    return {
        "version": VERSION,
        "hostname": uname.nodename,
        "kernel": uname.release,
        "os_family": family,
        "privileged": privileged,
        "python": sys.executable,
        "pyroute2": pyroute2,
        "nft": nft,
        "addresses": [
            {"interface": link["name"], "address": address, "mtu": link["mtu"]}
            for link in links
            for address in link["addresses"]
        ],
        "default_route": default,
        "listening": listening(_listeners()),
        "backends": {"host-gw": True, **{kind: usable(kernel[kind]) for kind in TUNNELS}},
        "missing": missing(
            kernel=needed,
            extra_kernel_package=_module_tree(uname.release) is not None
            and (family == "RedHat" or "ubuntu" in os_release.lower()),
            pyroute2=pyroute2 or elsewhere,
            nft=nft,
            boot=boot,
            protocol_file=os.path.exists(PROTOCOL_FILE),
            engine=engine is None or _has_engine(engine, watch),
        ),
        "loaded": loaded_by_role(boot),
        "links": links,
        "namespaces": _namespaces(namespaces),
        "routes": foreign_routes(raw_routes),
        "carries": carried or carried_by_links(links, name, network, bridge, tunnel),
        "strict": strict(
            {
                interface: _text(f"/proc/sys/net/ipv4/conf/{interface}/rp_filter").strip()
                for interface in ("all", "default", *(link["name"] for link in links if link["addresses"]))
            }
        ),
        "resolv_conf": resolv_conf(_text("/etc/resolv.conf"), _text("/run/systemd/resolve/resolv.conf")),
        "obstacles": obstacles(
            chains=chains,
            legacy=_legacy_forward(run),
            rp_filter=_text("/proc/sys/net/ipv4/conf/all/rp_filter").strip(),
            capable=not privileged or _has_net_admin(_text("/proc/self/status")),
            refusal=refusal if privileged else "",
            elsewhere=elsewhere,
            damage=damage,
            unloadable=_unloadable(run, needed),
        ),
        **occupied,
    }


# Pure: from what was read to what is said


def decode(text: str) -> list[t.Any]:
    """The JSON values of `ip -j -batch`, one after another."""
    decoder, values, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        while text[at : at + 1].isspace():
            at += 1
    return values


def link_facts(links: list[Facts]) -> list[Facts]:
    """Name, kind (empty for hardware and lo), owner, alias, MTU, IPv4 addresses and a tunnel's local address."""
    return [
        {
            "name": link["ifname"],
            "kind": link.get("linkinfo", {}).get("info_kind", ""),
            "owner": _owner(link.get("ifalias", "")),
            "alias": link.get("ifalias", ""),
            "mtu": link["mtu"],
            "local": link.get("linkinfo", {}).get("info_data", {}).get("local", "").replace("any", ""),
            "addresses": [f"{a['local']}/{a['prefixlen']}" for a in _ipv4(link) if a["scope"] != "link"],
        }
        for link in links
    ]


def default_route(routes: list[Facts], links: list[Facts]) -> Facts | None:
    """Interface and source address of the default route that the kernel prefers, or None.

    The source is the route's own, else as inet_select_addr() in the kernel's net/ipv4/devinet.c chooses it:
    the first address in whose subnet the gateway lies, else the first.
    """
    usable_routes = [r for r in routes if r.get("type", "unicast") == "unicast" and (r.get("dev") or r.get("nexthops"))]
    if not usable_routes:
        return None
    route = min(usable_routes, key=lambda r: r.get("metric", 0))
    hop = route if "dev" in route else route["nexthops"][0]
    addresses = [a for link in links if link["ifname"] == hop["dev"] for a in _ipv4(link) if a["scope"] == "global"]
    source = route.get("prefsrc")
    gateway = hop.get("gateway")
    if source is None and gateway:
        source = next((a["local"] for a in addresses if _contains(f"{a['local']}/{a['prefixlen']}", gateway)), None)
    if source is None and addresses:
        source = addresses[0]["local"]
    return {"interface": hop["dev"], "source": source} if source else None


def listening(lines: t.Mapping[str, t.Iterable[str]]) -> list[Facts]:
    """The ports that processes of the host have taken, from the lines of /proc/net/tcp and the like.

    A socket of all of IPv6 takes IPv4's port too, unless it was told not to; its address is given as ``::``.
    """
    found = set()
    for table, rows in lines.items():
        for row in rows:
            words = row.split()
            if table == "sctp":  # ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS
                found |= {
                    ("sctp", address, int(words[5])) for address in words[8:] if _is_ipv4(address) or address == "::"
                }
                continue
            address, _colon, port = words[1].partition(":")
            text = _hex_address(address)
            if text:
                found.add((table.rstrip("6"), text, int(port, 16)))
    return [{"protocol": protocol, "address": address, "port": port} for protocol, address, port in sorted(found)]


def _hex_address(text: str) -> str:
    """An address as /proc/net/tcp and tcp6 print it: words of 32 bits, each in the machine's byte order."""
    packed = b"".join(int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    if len(packed) == 4:
        return str(ipaddress.IPv4Address(packed))
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or ("::" if address.is_unspecified else ""))


def foreign_routes(routes: list[Facts]) -> list[Facts]:
    """Routes that are not ours by their protocol: a thousand own ones would travel for nothing."""
    return [
        {
            "dst": route["dst"] if "/" in route["dst"] else route["dst"] + "/32",
            "via": route.get("gateway"),
            "dev": route.get("dev"),
            "protocol": route.get("protocol", ""),
            "metric": route.get("metric", 0),
        }
        for route in routes
        if route.get("protocol") not in OWN_PROTOCOLS
    ]


def strict(rp_filter: dict[str, str]) -> list[str]:
    """The interfaces whose reverse path filter is strict: the higher value counts (ip-sysctl.rst in the kernel's documentation)."""
    overall = rp_filter.get("all", "")
    return sorted(name for name, value in rp_filter.items() if name != "all" and max(overall, value) == "1")


def carried_by_document(document: Facts) -> Facts | None:
    """What a saved document says that the host carries, or None."""
    peers = document.get("peers") or {}
    if not peers.get("subnet"):
        return None
    pods = {}
    for link in document.get("links") or []:
        peer = link.get("peer") or {}
        if peer.get("namespace") and peer.get("addresses"):
            first = peer["addresses"][0]
            address = first["address"] if isinstance(first, dict) else first
            pods[peer["namespace"]] = str(ipaddress.IPv4Interface(address).ip)
    carried = {key: peers.get(key) for key in ("network", "public_ip", "backend")}
    subnet = str(ipaddress.IPv4Network(str(peers["subnet"])))
    loosened = [
        found.group(1).replace("/", ".")
        for item in document.get("sysctls") or []
        if (found := re.match(r"net\.ipv4\.conf\.([^.]+)\.rp_filter$", item["name"]))
    ]
    return {
        **carried,
        "subnet": subnet,
        "pods": pods,
        "sends": _sends.sends(document),
        "also": _sends.also(document),
        "loosened": loosened,
    }


def carried_by_links(
    links: list[Facts], name: str, network: str | None, bridge: str, tunnel: str | None
) -> Facts | None:
    """The same from the links that the document owns, for a host that lost its state file; its pods stay unknown."""
    own = [link for link in links if link["owner"] == name]
    gateway = next((link["addresses"][0] for link in own if link["name"] == bridge and link["addresses"]), None)
    if gateway is None:
        return None
    subnet = ipaddress.ip_interface(gateway).network
    through = next((link for link in own if link["kind"] in TUNNELS and tunnel in (None, link["name"])), None)
    return {
        "network": network if network and _contains(network, str(subnet.network_address)) else None,
        "subnet": str(subnet),
        "public_ip": through["local"] if through else None,
        "backend": through["kind"] if through else "host-gw",
        "pods": {},
    }


def resolv_conf(text: str, behind_stub: str) -> str:
    """A resolv.conf(5) for pods: the host's IPv4 nameservers that a pod can reach, and its search list.

    Where the host asks a stub on its own loopback, the servers behind it are systemd-resolved's.
    """

    def useful(of: str) -> list[str]:
        lines = []
        for line in of.splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver" and re.match(r"(?!127\.)[0-9.]+$", words[1]):
                lines.append(f"nameserver {words[1]}")
            elif len(words) > 1 and words[0] in ("search", "domain") and words[1:] != ["."]:
                lines.append(" ".join(["search", *words[1:]]))
        return lines

    lines = useful(text)
    if not any(line.startswith("nameserver") for line in lines):
        lines = useful(behind_stub) or lines
    return "".join(line + "\n" for line in lines)


def os_family(os_release: str) -> str:
    """Debian, RedHat, Suse, Archlinux (Ansible's words) or empty, from os-release(5)."""
    ids = " ".join(re.findall(r"^ID(?:_LIKE)?=(.*)$", os_release, re.MULTILINE))
    words = set(re.sub("[\"']", "", ids).lower().split())
    families = {"Debian": {"debian", "ubuntu"}, "RedHat": {"rhel", "fedora", "centos"}, "Archlinux": {"arch"}}
    if any("suse" in word for word in words):
        return "Suse"
    return next((family for family, members in families.items() if members & words), "")


def module_states(modules: t.Iterable[str], loaded: t.Container[str], builtin: str, available: str) -> dict[str, str]:
    """builtin, loaded, available or absent for each module, from modules.builtin and modules.dep (depmod(8))."""

    def state(module: str) -> str:
        if re.search(rf"/{module}\.ko", builtin):
            return "builtin"
        if module in loaded:
            return "loaded"
        return "available" if re.search(rf"/{module}\.ko", available) else "absent"

    return {module: state(module) for module in modules}


def usable(state: str) -> bool | None:
    """Whether a kernel module of this state can be used; None if that could not be found out."""
    return None if state == "unknown" else state != "absent"


def never_loaded(shown: str) -> str:
    """The line of ``modprobe --dry-run --verbose`` that shows nothing run in place of loading (modprobe.d(5)), or empty."""
    found = re.search(r"^install (\S*/)?(true|false)\s*$", shown, re.MULTILINE)
    return found.group().strip() if found else ""


def missing(
    kernel: dict[str, str],
    *,
    extra_kernel_package: bool,
    pyroute2: str | None,
    nft: str | None,
    boot: str,
    protocol_file: bool,
    engine: bool,
) -> list[str]:
    """What the role node has to bring, in the words of podnet.overlay.node_info's documentation."""
    items = []
    if pyroute2 is None or not sufficient(pyroute2):
        items.append("pyroute2")
    if nft is None:
        items.append("nftables")
    if extra_kernel_package:
        items += [f"kernel:{module}" for module, state in kernel.items() if state == "absent"]
    items += [f"module:{module}" for module, state in kernel.items() if state == "available"]
    at_boot = [module for module, state in kernel.items() if state in ("available", "loaded")]
    if not {*at_boot} <= {line for line in boot.split("\n") if not line.startswith("#")}:
        items += [f"boot:{module}" for module in at_boot]  # all of them: the file is written whole
    if not protocol_file:
        items.append("file:rt_protos")
    if not engine:
        items.append("file:engine")
    return items


def loaded_by_role(boot: str) -> list[str]:
    """The kernel modules that the role node has loaded, from its note in the boot file."""
    note = re.search(r"^# loaded: (.*)$", boot, re.MULTILINE)
    return note.group(1).split() if note else []


def sufficient(pyroute2: str) -> bool:
    """Whether this version is new enough; one that does not say is taken to be."""
    numbers = tuple(int(n) for n in re.findall(r"\d+", pyroute2)[:3])
    return not numbers or numbers >= PYROUTE2_MINIMUM


def obstacles(
    chains: list[Facts],
    *,
    legacy: str,
    rp_filter: str,
    capable: bool,
    refusal: str,
    elsewhere: str | None,
    damage: str,
    unloadable: t.Mapping[str, str],
) -> list[Facts]:
    """What may stand in the overlay's way, why, and the remedy. Where it is fatal, no task on the host can work."""
    found = []

    def tell(what: str, why: str, remedy: str, *, fatal: bool = False) -> None:
        found.append({"what": what, "why": why, "remedy": remedy, "fatal": fatal})

    for chain in chains:
        if chain.get("hook") != "forward" or chain.get("policy") != "drop" or chain.get("table") == OWN_TABLE:
            continue
        own = [c["name"] for c in chains if (c["family"], c["table"]) == (chain["family"], chain["table"])]
        if not answered(chain["table"], own):
            of = whose(chain["table"], own)
            tell(
                f"nft chain {chain['family']} {chain['table']} {chain['name']}{of and f', which looks like that of {of},'} has policy drop",
                "packets to and from pods are forwarded, and an accept in another table does not help",
                "accept the overlay's network there, as source and as destination",
            )
    names = re.findall(r"^-A FORWARD .*-j (\S+)", legacy, re.MULTILINE)
    if "-P FORWARD DROP" in legacy and not answered("filter", names):
        of = whose("filter", names)
        tell(
            f"iptables-legacy{of and f', by what looks like {of},'} has policy DROP for FORWARD",
            "packets to and from pods are forwarded",
            "iptables-legacy -A FORWARD for the overlay's network as source and as destination, or policy ACCEPT",
        )
    if rp_filter == "1":
        tell(
            "net.ipv4.conf.all.rp_filter is 1 (strict)",
            "a packet whose way back is another interface is dropped, as when only one side routes directly",
            "the same overlay_direct_routing on all nodes, or rp_filter 2 (loose)",
        )
    if not capable:
        tell(
            "root here lacks CAP_NET_ADMIN",
            "links and routes cannot be made",
            "a container needs --privileged or --cap-add NET_ADMIN,SYS_ADMIN",
            fatal=True,
        )
    elif refusal:
        tell(
            f"nft cannot tell its chains in JSON ({refusal})",
            "the overlay's firewall is written and compared by nft in JSON",
            "an nftables that is built with JSON, and a kernel with nf_tables (modprobe nf_tables)",
            fatal=True,
        )
    if elsewhere:
        tell(
            f"pyroute2 {elsewhere} is installed, but not for {sys.executable}",
            "each module starts a second time under the distribution's Python, about a second",
            "ansible_python_interpreter: /usr/bin/python3",
        )
    for module, why in unloadable.items():
        tell(
            f"the kernel module {module} cannot be loaded: {why}",
            "the overlay's links need it",
            f"have {module} loaded at boot before that is set (/etc/modules-load.d)"
            if why == MODULES_DISABLED
            else "take that line out (modprobe --showconfig | grep ^install)",
            fatal=True,
        )
    if damage:
        tell(
            damage,
            "nobody knows what the overlay has changed on the host",
            "restore it, or remove it to start from the kernel's state",
            fatal=True,
        )
    return found


def answered(table: str, chains: t.Iterable[str]) -> bool:
    """Whether a table is of Docker, firewalld or ufw, where the overlay itself asks for what it needs."""
    return table == "firewalld" or any(chain == "DOCKER-USER" or chain.startswith("ufw-") for chain in chains)


def whose(table: str, chains: t.Iterable[str]) -> str:
    """The programs that a table looks like, by its own or its chains' names; empty if nobody knows."""
    names = [table, *chains]
    return " or ".join(program for start, program in _PROGRAMS if any(name.startswith(start) for name in names))


def has_systemd() -> bool:
    """Whether systemd runs this host (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def is_enabled(unit: str) -> bool:
    """Whether a unit of ours is started at boot."""
    return os.path.lexists(f"{UNIT_FOLDER}/multi-user.target.wants/{unit}")


def _has_engine(digest: str, watch: bool) -> bool:
    """Whether what stays on the host is of this release, and its units are enabled as wanted."""
    interpreter = _text(COMMAND).partition("\n")[0][2:]
    if _text(ENGINE_DIGEST).strip() != digest or not os.path.exists(interpreter):
        return False
    return not has_systemd() or (is_enabled(BOOT_UNIT) and is_enabled(WATCH_UNIT) == watch)


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _owned(link: Facts, name: str) -> bool:
    return _owner(link.get("ifalias", "")) == name


def _owner(alias: str) -> str:
    return alias[len(OWNER) :] if alias.startswith(OWNER) else ""


def _ipv4(link: Facts) -> list[Facts]:
    return [a for a in link.get("addr_info", []) if a.get("family") == "inet"]


def _contains(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_interface(network).network


def _has_net_admin(status: str) -> bool:
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return effective is None or bool(int(effective.group(1), 16) >> _CAP_NET_ADMIN & 1)


# Reading


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _listeners() -> dict[str, list[str]]:
    """The lines of /proc/net that are of listening sockets. The kernel prints TCP's before all others, so that a host's
    hundred thousand connections are not read."""
    found: dict[str, list[str]] = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        wanted = f"{_LISTEN if table.startswith('tcp') else _UNCONNECTED:02X}"
        rows = found[table] = []
        for row in _lines(f"/proc/net/{table}"):
            if row.split(None, 4)[3] == wanted:
                rows.append(row)
            elif table.startswith("tcp"):
                break
    found["sctp"] = [row for row in _lines("/proc/net/sctp/eps") if row.split()[3] == str(_LISTEN)]
    return found


def _lines(path: str) -> t.Iterator[str]:
    """The lines of a table of /proc/net below its head."""
    try:
        with open(path, encoding="ascii") as file:
            next(file, None)
            yield from file
    except OSError:
        return


def program(name: str) -> str | None:
    """The path of a program, which may be where only root looks."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def _iproute(run: Run, family: str, network: str | None) -> tuple[list[Facts], list[Facts], list[Facts]]:
    package = IPROUTE_PACKAGE.get(family, "iproute2")
    ip = program("ip")
    if ip is None:
        raise NodeError(f"host {os.uname().nodename} has no program ip: install the package {package}")
    queries = ["addr show", "route show table main default"]
    if network:
        queries.append(f"route show table main root {network}")
    code, out, err = run([ip, "-j", "-d", "-batch", "-"], data="\n".join(queries))
    try:
        links, default, *routes = decode(out if code == 0 else "")
    except ValueError as e:
        raise NodeError(
            f"host {os.uname().nodename}: {ip} gave no JSON ({(err or out).strip()[:200]}): "
            f"install the package {package}, 4.18 or newer, in place of busybox's or an older ip"
        ) from e
    return [link for link in links if link], default, routes[0] if routes else []


def _nft(run: Run) -> tuple[str | None, list[Facts], str]:
    """nftables' version and chains, which one process tells, and why it does not where it does not."""
    nft = program("nft")
    if nft is None:
        return None, [], ""
    code, out, err = run([nft, "-j", "list", "chains"])
    if code == 0:
        try:
            answer = json.loads(out)["nftables"]
            return answer[0]["metainfo"]["version"], [item["chain"] for item in answer if "chain" in item], ""
        except (ValueError, KeyError, IndexError, TypeError):
            pass
    refusal = " ".join((err or out).split())[:200] or f"exit code {code}"
    _code, out, _err = run([nft, "--version"])
    version = re.search(r"v(\d[\w.]*)", out)
    return (version.group(1) if version else "unknown"), [], refusal


def _legacy_forward(run: Run) -> str:
    """The FORWARD chain of iptables-legacy, asked only where that has a filter table at all."""
    if "filter" not in _text("/proc/net/ip_tables_names").split():
        return ""
    iptables = program("iptables-legacy") or program("iptables")
    return run([iptables, "-w", "-S", "FORWARD"])[1] if iptables else ""


def _pyroute2() -> str | None:
    """The version this interpreter would import. Importing takes seconds under emulation, and 0.7.2 hides its own."""
    found = importlib.util.find_spec("pyroute2")
    if found is None or not found.origin:
        return None
    return _version_beside(os.path.dirname(found.origin))


def _pyroute2_of_distribution() -> str | None:
    """The version of the distribution's package, which a module can respawn to."""
    places = ("/usr/lib/python3/dist-packages/pyroute2", "/usr/lib*/python3*/site-packages/pyroute2")
    folder = next((path for place in places for path in sorted(glob.glob(place))), None)
    return _version_beside(folder) if folder else None


def _version_beside(folder: str) -> str:
    for path in glob.glob(f"{folder}-*-info"):
        version = re.search(r"pyroute2-([^-/]+?)(?:-py[\d.]+)?\.(?:dist|egg)-info$", path)
        if version:
            return version.group(1)
    return "unknown"


def _module_tree(release: str) -> str | None:
    return next((p for p in (f"/lib/modules/{release}", f"/usr/lib/modules/{release}") if os.path.isdir(p)), None)


def _kernel_modules(run: Run, release: str, modules: tuple[str, ...], privileged: bool) -> dict[str, str]:
    tree = _module_tree(release)
    loaded = [module for module in modules if os.path.isdir(f"/sys/module/{module}")]
    if tree is not None:
        return module_states(modules, loaded, _text(f"{tree}/modules.builtin"), _text(f"{tree}/modules.dep"))
    unproven = [module for module in modules if module not in loaded]
    states = dict.fromkeys(loaded, "builtin")
    if unproven:
        made = _make(run, unproven) if privileged else None
        states.update({m: "unknown" if made is None else "builtin" if m in made else "absent" for m in unproven})
    return states


def _unloadable(run: Run, modules: t.Mapping[str, str]) -> dict[str, str]:
    """The kernel modules that would have to be loaded and cannot be, with the reason."""
    new = [module for module, state in modules.items() if state == "available"]
    modprobe = program("modprobe") if new else None
    if new and _text("/proc/sys/kernel/modules_disabled").strip() == "1":
        return dict.fromkeys(new, MODULES_DISABLED)
    lines = {module: never_loaded(run([modprobe, "--dry-run", "--verbose", module])[1]) for module in new if modprobe}
    return {module: f"modprobe.d has: {line}" for module, line in lines.items() if line}


def _make(run: Run, kinds: list[str]) -> set[str] | None:
    """The kinds of links that the kernel makes, tried in a namespace that ends with this call. For containers,
    which have no module tree but the host's kernel. None if no namespace may be made."""
    details = {"ipip": "local 127.0.0.1", "vxlan": "id 1 dstport 8472"}
    lines = [f"link add podnet-{kind} type {kind} {details.get(kind, '')}" for kind in kinds]
    argv = [program("ip"), "-force", "-j", "-batch", "-"]
    try:
        out = _netns.inside(None, lambda: run(argv, data="\n".join([*lines, "link show"])))[1]
    except OSError:
        return None
    made = {link.get("ifname") for link in decode(out)[-1]}
    return {kind for kind in kinds if f"podnet-{kind}" in made}


def _namespaces(wanted: list[str] | None) -> list[Facts]:
    try:
        names = sorted(os.listdir(_netns.FOLDER))
    except OSError:
        return []
    found = []
    for name in names:
        if wanted is not None and name not in wanted:
            continue
        try:
            alias = _netns.inside(name, _netns.loopback_alias)
        except OSError:  # a leftover that is no mounted namespace, or no privilege
            alias = ""
        found.append({"name": name, "owner": _owner(alias)})
    return found


def _saved_state(name: str) -> tuple[Facts | None, str]:
    """What the saved document says that the host carries and, if that cannot be read, what is wrong with it."""
    carried: Facts | None = None
    for folder in (STATE_FOLDER, DOCUMENT_FOLDER):
        path = f"{folder}/{name}.json"
        try:
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
        except (FileNotFoundError, PermissionError):
            continue
        except (OSError, ValueError) as e:
            return None, f"the saved state {path} is torn ({e})"
        if not isinstance(saved, dict) or (folder == STATE_FOLDER and saved.get("version") not in STATE_VERSIONS):
            return (
                None,
                f"the saved state {path} is not of version {STATE_VERSIONS[-1]}, the one that this release knows",
            )
        try:
            carried = (
                carried_by_document(saved if folder == DOCUMENT_FOLDER else saved.get("document") or {}) or carried
            )
        except (AttributeError, LookupError, TypeError, ValueError) as e:
            return None, f"the saved state {path} is damaged ({e})"
    return carried, ""
