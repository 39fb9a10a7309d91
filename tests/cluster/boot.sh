#!/bin/bash
# First process of a host: build its root file system, start sshd, reap orphans until killed.
#
#   boot.sh NAME ADDRESS FOLDER USER [SOURCE TARGET ro|rw]...
#
# FOLDER is the host's disk: etc/ home/ tmp/ host_key. Prints "born", reads a line once its network
# is configured, prints "ready".
set -euo pipefail
name=$1 address=$2 folder=$3 user=$4
shift 4
echo born
read -r _

hostname "$name"
root=$folder/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p usr etc dev proc sys home root tmp mnt run/sshd run/screen run/lock var/tmp old
chmod 1777 var/tmp run/screen
for place in bin sbin lib lib32 lib64; do
  if [ -L /$place ]; then cp -P /$place .; elif [ -d /$place ]; then mkdir $place; mount --rbind /$place $place; fi
done
mount --bind /usr usr
mount --bind /etc etc
for file in "$folder"/etc/*; do mount --bind "$file" "etc/$(basename "$file")"; done
mount --rbind /dev dev
mount -t tmpfs -o mode=1777,size=1g tmpfs dev/shm
mount --rbind /sys sys
mount -t proc proc proc
mount --bind "$folder/home" home
mount --bind "$folder/tmp" tmp
while [ $# -gt 0 ]; do
  if [ -d "$1" ]; then mkdir -p ".$2"; fi
  mount --bind "$1" ".$2"
  [ "$3" = rw ] || mount -o remount,ro,bind ".$2"
  shift 3
done
install -m 600 "$folder/host_key" run/host_key
for system in usr etc; do mount -o remount,ro,bind $system; done
pivot_root . old
umount -l /old

if [ "$user" != none ]; then
  /usr/sbin/sshd -f /dev/null -E /run/sshd.log -h /run/host_key -o ListenAddress="$address" \
    -o PidFile=none -o UsePAM=no -o PasswordAuthentication=no -o PermitRootLogin=no \
    -o AllowUsers="$user"
fi
echo ready
exec >/dev/null </dev/null
while :; do sleep 3600 & wait; done
