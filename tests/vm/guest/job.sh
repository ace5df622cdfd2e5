# What happens in the guest once it is up? Mounts, the proofs that the kernel's command line names, power off.
mkdir -p /mnt/site /mnt/out /mnt/model /var/cache/proofs
mount -t 9p -o trans=virtio,version=9p2000.L out /mnt/out
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro model /mnt/model
mount -o ro /dev/vdb /mnt/site
cp -r /mnt/model/. /var/cache/proofs
chmod -R a+rX /var/cache/proofs # the service unit runs as a user of its own
export HOME=/root LANG=C.UTF-8 PYTHONPATH=/mnt/project:/mnt/site PYTHONPYCACHEPREFIX=/var/tmp/pycache
exec >/dev/ttyS1 2>&1
cd /root
python3 -u /mnt/project/tests/vm/guest/prove.py $(sed 's/.*proofs=\([^ ]*\).*/\1/; s/,/ /g' /proc/cmdline)
echo "exit status: $?"
journalctl -b --no-pager -o short-monotonic >/mnt/out/journal
sync
systemctl poweroff -ff
