#!/bin/sh
# Which system packages are missing, and may they be installed? Usage: system.sh libnuma|chromium|systemd|qemu|debootstrap ...
# Installs with apt-get where this user may; otherwise says what is missing and what to run, and goes on:
# the program itself refuses, with the reason, where it cannot do without.
set -u

present() {
    case "$1" in
        libnuma) ldconfig -p 2>/dev/null | grep -q 'libnuma\.so\.1' ;;
        chromium) command -v chromium >/dev/null ;;
        systemd) command -v systemd-analyze >/dev/null ;;
        qemu) command -v qemu-system-x86_64 >/dev/null ;;
        debootstrap) PATH="$PATH:/usr/sbin" command -v debootstrap >/dev/null ;;
    esac
}

package() {
    case "$1" in
        libnuma) echo libnuma1 ;;
        qemu) echo qemu-system-x86 ;;
        *) echo "$1" ;;
    esac
}

wanted=""
for name in "$@"; do
    present "$name" || wanted="$wanted $(package "$name")"
done
[ -z "$wanted" ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing system packages:$wanted (Debian's names); install them with this system's package manager" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "missing system packages:$wanted; run: sudo apt-get install$wanted" >&2
    exit 0
fi
echo "installing$wanted" >&2
# shellcheck disable=SC2086
$as_root apt-get -qq update && DEBIAN_FRONTEND=noninteractive $as_root apt-get -qq install --yes --no-install-recommends $wanted >/dev/null
