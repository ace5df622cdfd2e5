# What happens in the guest once it is up? Mounts, the proofs that the kernel's command line names, power off.
# A proof may ask for a boot (75): then this runs again, and goes on where that proof says.
mkdir -p /mnt/site /mnt/out /mnt/model /var/cache/proofs
mount -t 9p -o trans=virtio,version=9p2000.L out /mnt/out
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro model /mnt/model
mount -o ro /dev/vdb /mnt/site
[ -e /var/lib/proofs/next ] || cp -r /mnt/model/. /var/cache/proofs
chmod -R a+rX /var/cache/proofs # the service unit runs as a user of its own
export HOME=/root LANG=C.UTF-8 PYTHONPATH=/mnt/project:/mnt/site PYTHONPYCACHEPREFIX=/var/tmp/pycache
exec >/dev/ttyS1 2>&1
cd /root
python3 -u /mnt/project/tests/vm/guest/prove.py $(sed 's/.*proofs=\([^ ]*\).*/\1/; s/,/ /g' /proc/cmdline)
status=$?
journalctl --no-pager -o short-monotonic >/mnt/out/journal
if [ $status = 75 ]; then
    sync
    systemctl reboot
    exit 0
fi
echo "exit status: $status"
sync
systemctl poweroff -ff
