"""What a host is, in words of ip, bridge, nft and ls that two looks can be compared by."""

from __future__ import annotations

import re
from typing import Any

from tests.kernel.hosts import Host

FOLDERS = ("/etc/podnet-overlay", "/var/lib/podnet-overlay", "/var/lib/podnet-overlay/rollback")
OWN = re.compile(
    r"^\d+: |@if\d+|link-netnsid \d+|packets \d+ bytes \d+|\w*timer *\S+|port_(id|no) \S+|designated_\w+ \S+"
    r"|state \w+|,LOWER_UP|NO-CARRIER,|,M-DOWN|linkdown"
)
"""What a device made anew has of its own: indexes, random MACs, timers; and what is counted."""


def everything(host: Host) -> str:
    """All that a document may touch, without counters and timers, nor what a bridge learns and forgets."""
    return host.sh(
        "ip -d link | sed 's/gc_timer *[0-9.]*//; s/forward_delay_timer *[0-9.]*//';"
        "ip -4 addr; ip -4 route show table all; ip neigh show nud permanent;"
        "bridge fdb | grep permanent || true; nft list ruleset | sed 's/counter packets.*bytes [0-9]*//';"
        "ip netns; ls -R /etc/netns 2>/dev/null || true;"
        "sysctl -a 2>/dev/null | grep -E 'forward|accept_redirects' || true; ls /var/lib"
    )


def picture(host: Host) -> list[str]:
    """What a document makes, in the words of ip and nft."""
    text = host.sh(
        "set +e; for n in '' $(ls /run/netns); do ip=\"ip ${n:+-n $n}\"; echo \"namespace $n\"; $ip -d link | grep -v 'link/ether';"
        "$ip -4 -o addr; $ip -4 route; done; ip neigh show nud permanent; bridge fdb | grep dst; nft list ruleset;"
        "find /etc/netns -type f; "
        "sysctl net.ipv4.ip_forward net.ipv4.conf.all.arp_announce; cat /etc/netns/*/* /etc/cni/net.d/10-test.conf 2>/dev/null || true"
    )
    return sorted(OWN.sub("", line) for line in text.splitlines())


def files(host: Host) -> set[str]:
    """All paths where something of ours may be left."""
    places = "/etc /var/lib /run /usr/local/sbin /usr/local/lib/podnet-overlay"
    return set(
        host.sh(f"find {places} -path /run/etc -prune -o -path /run/local -prune -o -print 2>/dev/null || true").split(
            "\n"
        )
    )


def routes(host: Host, namespace: str = "") -> dict[str, tuple[str | None, str]]:
    words = f"ip -j -n {namespace} route" if namespace else "ip -j route"
    return {item["dst"]: (item.get("gateway"), item["dev"]) for item in host.json(words)}


def bridge(host: Host) -> Any:
    """What everybody on the bridge relies on."""
    (link,) = host.json("ip", "-j", "-d", "address", "show", "dev", "cni0")
    return {
        "addresses": [item["local"] for item in link["addr_info"] if item["family"] == "inet"],
        **{key: link[key] for key in ("ifindex", "address", "mtu", "flags", "ifalias")},
    }


def ports(host: Host) -> dict[str, Any]:
    return {item["ifname"]: item for item in host.json("bridge", "-j", "-d", "link")}
