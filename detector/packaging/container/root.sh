#!/bin/sh
# root.sh BINARY FOLDER: makes in FOLDER all that the container's image has: dupip, the libraries that it is linked to, and
# what a name server or the server of a hook is trusted by. No shell, and no other program.
set -eu
binary=$1 root=$2

install -D -m 0755 "$binary" "$root/usr/bin/dupip"
# One library a line, with its path; that of the loader stands alone. What the kernel itself brings has none.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
done
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
# What is mounted here: a root that nobody can write to must have the places.
mkdir -p "$root/etc/dupip" "$root/var/lib/dupip" "$root/run/dupip" "$root/run/netns" "$root/proc" "$root/sys" "$root/dev"
