#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A journald of its own for one command, without PID 1 and unseen by the rest of the system:
#     unshare -m --propagation private sh tests/journald.sh SystemMaxUse COMMAND...
# Inside, sd_journal_send(3) reaches it; it is journal namespace "t" to journalctl and sd_journal_open_namespace(3).
# SystemMaxUse "off": no journald at all; "none": one that keeps nothing.
set -eu
size=$1
shift
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
if [ "$size" = off ]; then
    exec "$@"
fi
# without MaxRetentionSec, the journald of a namespace leaves after 30 s without clients
mkdir -p /var/log/journal /run/systemd/journal.t /run/systemd/journal /run/systemd/journald@t.conf.d
storage=persistent
if [ "$size" = none ]; then
    storage=none size=64M
fi
cat > /run/systemd/journald@t.conf.d/10.conf <<END
[Journal]
Storage=$storage
RateLimitIntervalSec=0
SystemMaxUse=$size
MaxRetentionSec=1day
END
# journald names its directory after the machine
if [ ! -s /etc/machine-id ]; then
    echo 5d0c1b1e0f6a4c1f9e1d3a5b7c9d0e2f > /run/machine-id
    mount --bind /run/machine-id /etc/machine-id
fi
RUNTIME_DIRECTORY=/run/systemd/journal.t /lib/systemd/systemd-journald t < /dev/null &
pid=$!
tries=0
while [ ! -S /run/systemd/journal.t/io.systemd.journal ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 1000 ] || ! kill -0 "$pid"; then
        echo "journald does not come up" >&2
        exit 99
    fi
    sleep 0.01
done
mount --bind /run/systemd/journal.t /run/systemd/journal
rc=0
"$@" || rc=$?
kill "$pid"
wait "$pid" || true
exit "$rc"
