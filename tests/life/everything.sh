# All that an overlay may touch on a host, as text that stays the same while nobody touches it. It comes by its standard output.
ip -d link | sed 's/^[0-9]*: //; s/ [a-z_]*_timer *[0-9.]*//g; s/ permaddr [0-9a-f:]*//'
ip -d address | sed 's/ valid_lft .*//; s/^[0-9]*: //; s/ [a-z_]*_timer *[0-9.]*//g; s/ permaddr [0-9a-f:]*//'
ip route show table all
ip rule
ip neigh show nud permanent
ip netns
nft --stateless list ruleset
sysctl -a --pattern '^net[.]' 2>/dev/null | grep -v -e stable_secret -e conntrack_count -e random
lsmod | cut -d' ' -f1 | sort
find /etc /usr/local /var/lib /run /opt -xdev ! -path '/run/systemd/*' ! -path '/run/udev/*' ! -path '/run/log/*' \
    ! -path '/var/lib/dpkg/*' ! -path '/var/lib/systemd/*' ! -name '__pycache__' ! -name '*.pyc' | sort
