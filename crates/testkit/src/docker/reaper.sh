# Waits until its owner has ended in whatever way, then takes away everything that ran in a folder: engines, their
# containerd, shims, containers, mounts, bridges, control groups, and the folder itself. One process for each folder;
# its stdout is the folder's lock, which so lives as long as there is something to take away.
#
# reaper.sh FOLDER CGROUP OWNER SUBNET BRIDGES
# OWNER is `stdin` (until it is closed), a pid, or `now`; BRIDGES is what their addresses begin with.
set -u
folder=$1 cgroup=$2 owner=$3 subnet=$4 bridges=$5

case $owner in
now) ;;
stdin) cat >/dev/null ;;
*) tail --pid="$owner" -s 0.2 -f /dev/null ;;
esac

# Whose arguments name a path below the folder. The pattern comes by stdin: an argument would name it too.
named() {
    printf '%s/' "$folder" | grep -alsF -f - /proc/[0-9]*/cmdline | cut -d/ -f3
}
# In each hierarchy of version 1, or in the only one of version 2.
groups="/sys/fs/cgroup/*/$cgroup /sys/fs/cgroup/$cgroup"
members() {
    cat /dev/null $(find $groups -name cgroup.procs 2>/dev/null) 2>/dev/null
}

# Nobody asks the shims for the addresses of their sockets later.
sockets=$(cat "$folder"/exec/containerd/daemon/io.containerd.runtime.v2.task/*/*/address 2>/dev/null | sed 's,unix://,\n,g')

# First what starts others. A paused container takes its signal only when it is thawed.
round=0
while [ $round -lt 100 ]; do
    for state in $(find $groups -name freezer.state 2>/dev/null); do
        echo THAWED >"$state" 2>/dev/null
    done
    for state in $(find $groups -name cgroup.freeze 2>/dev/null); do
        echo 0 >"$state" 2>/dev/null
    done
    left="$(named) $(members)"
    [ -z "$(echo $left)" ] && break
    kill -9 $left 2>/dev/null
    # Zombies whose parent takes its time to collect them are no trouble.
    live=$(for pid in $left; do grep -sl '^State:.[^ZX]' /proc/$pid/status; done)
    [ -z "$live" ] && break
    round=$((round + 1))
    sleep 0.02
done

mounts() { cut -d' ' -f2 /proc/self/mounts | grep -F "$folder/" | sort -r; }
for mount in $(mounts); do umount -l "$mount" 2>/dev/null; done
for mount in $(mounts); do umount -l "$mount" 2>/dev/null; done

for bridge in $(ip -o -4 address show 2>/dev/null | grep -F -e "$bridges" | cut -d' ' -f2); do
    ip link delete "$bridge" 2>/dev/null
done
while iptables -w -D FORWARD -s "$subnet" -d "$subnet" -j ACCEPT 2>/dev/null; do :; done
for socket in $sockets; do rm -f "$socket"; done
find $groups -depth -type d -exec rmdir {} + 2>/dev/null
rm -rf "$folder"
[ ! -e "$folder" ]
