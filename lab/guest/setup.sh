#!/bin/sh
# Runs once in the new root file system: leaves out of systemd's boot what a lab host never needs.
set -eu

mask() {
    for unit in "$@"; do ln -sf /dev/null "/etc/systemd/system/$unit"; done
}

mask systemd-logind.service dbus-org.freedesktop.login1.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-binfmt.service systemd-random-seed.service systemd-journal-flush.service \
    systemd-networkd-wait-online.service systemd-user-sessions.service \
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount \
    e2scrub_reap.service getty.target getty-static.service nftables.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    systemd-tmpfiles-clean.timer

# In a container udev would give the interfaces new MAC addresses and poke the devices of the machine around it.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-networkd.service systemd-networkd.socket; do
    mkdir -p "/etc/systemd/system/$unit.d"
    printf '[Unit]\nConditionVirtualization=!container\n' >"/etc/systemd/system/$unit.d/machines-only.conf"
done

# dbus starts when something calls it.
rm -f /etc/systemd/system/multi-user.target.wants/dbus.service /lib/systemd/system/multi-user.target.wants/dbus.service
# A test starts what it is about.
systemctl --quiet disable firewalld.service ufw.service podman.service podman.socket podman-auto-update.service \
    podman-auto-update.timer podman-restart.service docker.service docker.socket containerd.service \
    NetworkManager.service NetworkManager-dispatcher.service NetworkManager-wait-online.service
systemctl --quiet enable ssh.service systemd-networkd.service lab-ready.service

# The subsystem is set in sshd_config.d, and may be set once only.
sed -i '/^Subsystem/d' /etc/ssh/sshd_config
echo "nameserver 10.0.2.3" >/etc/resolv.conf
chown -R root:root /root /etc/systemd /etc/ssh
chmod 700 /root /root/.ssh
python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.11 || true
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /setup.sh
