# SPDX-License-Identifier: Apache-2.0
"""The service as a package installs it: systemd as PID 1, our units enabled, nothing of the checkout in their sight.

Each start leaves in its job what a person would have looked at: ``transcript``, commands and all they say.
"""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import kernels
from .checks import check_boots, check_text, read_collected
from .scenarios import BACKENDS, OOPS, Bench, Scenario, boot_id
from .vm import Start, Vm, ramoops

# Debian's own: the units do not see one in a home directory
PYTHON = Path("/usr/bin/python3.11")
# A start with systemd as PID 1 takes 30 s on an idle host.
TIMEOUT_S = 300.0
MESSAGE_ID = "eb9e49196125491e9e564cd5d430164f"

# What a package's scripts do. systemd-pstore stays as it is on the host: enabled, as on every Debian.
SETUP = """
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
systemd-sysusers
systemctl preset pstored-harvest.service pstored.service pstored-deliver.socket pstored-deliver.timer
systemctl is-enabled pstored-harvest.service pstored.service pstored-deliver.socket >/job/enabled
systemctl is-enabled pstored-deliver.timer systemd-pstore.service >>/job/enabled
journalctl --update-catalog
"""
# The start goes no further than basic.target and the job: what multi-user.target would do with the daemon, this does.
DAEMON = """
mkdir -p /etc/systemd/system/job.service.d
printf '[Unit]\\nWants=pstored.service\\nAfter=pstored.service\\n' >/etc/systemd/system/job.service.d/10.conf
"""
PRELUDE = """
cd /
export SYSTEMD_PAGER= SYSTEMD_COLORS=0 SYSTEMD_URLIFY=0 LC_ALL=C.UTF-8
cat /proc/sys/kernel/random/boot_id >/job/boot_id
tell() { { echo "\\$ $*"; "$@" 2>&1; echo; } >>/job/transcript; }
tell systemctl status --no-pager --full pstored-harvest.service
tell systemctl list-units --no-legend --failed
"""


@functools.cache
@kernels.alone()
def tree() -> Path:
    """Install what is in this checkout, once a test run; gives the tree, to be laid over the host's files."""
    target, made = kernels.CACHE / "tree", kernels.CACHE / "tree.run"
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    if run and made.exists() and made.read_text() == run:
        return target
    repository = kernels.HERE.parents[1]
    shutil.rmtree(target, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "-C", str(repository), "--silent", "install", f"DESTDIR={target}", f"PYTHON={PYTHON}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"make install ended with {done.returncode}:\n{done.stderr}{done.stdout}")
    made.write_text(run)
    return target


class Service:
    """A machine on which the service is installed."""

    def __init__(self, directory: Path, kernel: str, backend: str) -> None:
        """Make the machine; nothing runs yet."""
        self.bench = Bench(directory, kernel, backend)
        self.machine = self.bench.machine
        self.load = BACKENDS[backend].load

    def start(self, name: str, script: str, **more: Any) -> Start:
        """Make a start with systemd as PID 1."""
        settings: dict[str, Any] = {"load": self.load, "setup": SETUP + DAEMON} | more
        return Start(name, PRELUDE + script, mode="systemd", tree=tree(), **settings)

    def crash(self, script: str = "", **more: Any) -> Vm:
        """Boot, run *script*, panic."""
        return self.machine.crash(self.start("crash", script, **more), TIMEOUT_S)

    def run(self, name: str, script: str, **more: Any) -> Vm:
        """Boot, run *script*, power off."""
        vm = self.machine.run(self.start(name, script, **more), TIMEOUT_S)
        assert vm.status == 0, (vm.log, (vm.job / "transcript").read_text())
        return vm


# Where `read_collected` looks; the units have collected already, so there is no report, and nothing was seen before.
LOOK = """
here=/job/collect
mkdir -p $here/store $here/root/var/lib
ls /sys/fs/pstore >$here/left
cp -r /var/lib/pstored $here/root/var/lib/
find /var/lib/pstored -printf '%m %U %g %P\\n' >/job/modes
echo 0 >$here/status; : >$here/said; : >$here/report
"""

# What the daemon does it does in its own time, which on a busy host is long.
AWAIT = """
await() {
    for _ in $(seq 200); do ! "$@" >/dev/null 2>&1 || return 0; sleep 0.3; done
    tell echo "never: $*"
    tell systemctl status --no-pager --full --lines=50 pstored.service
    exit 1
}
said() { journalctl --boot=0 --unit=pstored.service --grep="$1"; }
idle() { systemctl show --property=StatusText pstored.service | grep -q "$1.*nothing due"; }
"""
STATUS = "tell systemctl status --no-pager --full --lines=20 pstored.service\n"
ENTRIES = f"journalctl --no-pager --output=json MESSAGE_ID={MESSAGE_ID} >/job/entries\n"

COLLECTED = (
    AWAIT
    + f"""
tell journalctl --no-pager --list-boots
crashed=$(journalctl --list-boots | awk '$1 == -1 {{ print $2 }}')
tell journalctl --no-pager --dmesg --boot=$crashed --lines=5
tell systemctl start pstored.service
await idle '1 crash'
journalctl --sync
systemctl show --property=ActiveState,SubState,Result,ExecMainStatus,ExecMainExitTimestampMonotonic \\
    pstored-harvest.service >/job/harvest
systemctl show --property=ActiveEnterTimestampMonotonic sysinit.target >/job/sysinit
systemctl show --property=ActiveState,ConditionResult,InactiveExitTimestampMonotonic systemd-pstore.service >/job/rival
{STATUS}
tell journalctl --no-pager --output=short-monotonic --boot=0 --unit=pstored-harvest.service --unit=pstored.service
tell journalctl --no-pager --catalog MESSAGE_ID={MESSAGE_ID}
tell journalctl --no-pager --list-boots
tell journalctl --no-pager --dmesg --boot=$crashed --lines=20
journalctl --no-pager --dmesg --boot=$crashed --output=cat >/job/restored
journalctl --no-pager --list-boots >/job/boots
{ENTRIES}
tell pstored boots
tell pstored show
"""
    + LOOK
)


def properties(path: Path) -> dict[str, str]:
    """What ``systemctl show`` printed."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def crash_ids(entries: Path) -> set[str]:
    """The crashes that are in the journal."""
    return {json.loads(line)["PSTORE_CRASH_ID"] for line in entries.read_text().splitlines()}


def check_restored(job: Path, text: bytes) -> None:
    """The journal of the crashed boot has the kernel's lines to the last, none twice."""
    wanted = [re.sub(rb"\A<\d+>\[ *\d+\.\d+\] ", b"", line) for line in text.splitlines()][-20:]
    assert (job / "restored").read_bytes().splitlines()[-20:] == wanted


def crash_is_harvested_at_boot(directory: Path, kernel: str, backend: str) -> str:
    """A panic under systemd, and the next boot: harvested before sysinit.target, in the journal, of the right boot."""
    service = Service(directory, kernel, backend)
    crashed = service.crash("journalctl --sync\n")
    vm = service.run("collect", COLLECTED, setup=SETUP)
    collected = read_collected(vm.job)

    harvest, rival = properties(vm.job / "harvest"), properties(vm.job / "rival")
    assert (harvest["ActiveState"], harvest["Result"], harvest["ExecMainStatus"]) == ("active", "success", "0"), harvest
    before = int(properties(vm.job / "sysinit")["ActiveEnterTimestampMonotonic"])
    assert 0 < int(harvest["ExecMainExitTimestampMonotonic"]) < before
    assert (vm.job / "enabled").read_text().split() == ["enabled"] * 5
    assert rival["InactiveExitTimestampMonotonic"] == "0", "systemd-pstore has run"

    assert not collected.left, f"left in the store: {sorted(collected.left)}"
    (crash,) = collected.crashes()
    check_boots(collected, [boot_id(crashed)])
    assert {record["outcome"] for record in crash["records"]} == {"erased"}
    lines = check_text(collected.text(crash), crashed.serial)
    assert (vm.job / "entries").read_text().count("\n") == 1
    check_restored(vm.job, collected.text(crash))
    listed = [line.split()[1] for line in (vm.job / "boots").read_text().splitlines() if "BOOT" not in line]
    assert listed == [boot_id(boot).replace("-", "") for boot in (crashed, vm)]
    modes = [line.split(" ")[:3] for line in (vm.job / "modes").read_text().splitlines()]
    group = modes[0][2]
    assert group != "0"
    assert {tuple(mode) for mode in modes} == {("2750", "0", group), ("640", "0", group)}, modes
    return f"{len(crash['records'])} records, {lines} lines as on the console; harvested before sysinit.target"


def late_backend(kernel: str) -> tuple[list[Path], str]:
    """The files of ramoops and the script that loads them, as modprobe would, in a running system."""
    modules = kernels.CACHE / kernel / "modules"
    prepared = [modules / name for name in (modules / "ramoops.order").read_text().split()]
    _, _, arguments = ramoops().partition(" ")
    loads = [f"insmod /job/{path.name}" for path in prepared]
    return prepared, "\n".join([*loads[:-1], f"{loads[-1]} {arguments}"]) + "\n"


# Ends in order, as an operator would have it; whoever waits for the status has it from before.
REBOOT = """
echo 0 >/job/status
journalctl --sync
systemctl reboot
sleep infinity
"""


def daemon_follows_what_happens(directory: Path, kernel: str) -> str:
    """Records that come late, a reload, a stop, an oops, an orderly end; and what the next boot makes of them."""
    service = Service(directory, kernel, "ramoops")
    crashed = service.bench.crash()
    files, insert = late_backend(kernel)
    script = f"""{AWAIT}
await idle 'no crashes'
{STATUS}
{insert}
await idle '1 crash'
{STATUS}
{ENTRIES}
pstored watch 2>/job/second; echo $? >/job/second.status
mkdir -p /etc/pstored.conf.d
printf '[harvest]\\nstore = "/nowhere"\\n' >/etc/pstored.conf.d/60-vm.conf
tell systemctl reload pstored.service
await said 'there is no /nowhere'
rm /etc/pstored.conf.d/60-vm.conf
systemctl reload pstored.service
await idle '1 crash'
{STATUS}
tell systemctl stop pstored.service
{STATUS}
systemctl show --property=Result,ExecMainCode,ExecMainStatus pstored.service >/job/stopped
tell systemctl start pstored.service
await idle '1 crash'
systemctl show --property=NRestarts pstored.service >/job/restarts
{LOOK}
{OOPS}
await idle '2 crashes'
{STATUS}
tell ls -l /sys/fs/pstore
tell pstored list
journalctl --no-pager --output=json MESSAGE_ID={MESSAGE_ID} >/job/entries.oops
{REBOOT}
"""
    vm = service.run("late", script, load=(), files=[*files, kernels.oops_module(kernel)])
    collected = read_collected(vm.job)
    assert not collected.left, f"left in the store: {sorted(collected.left)}"
    check_boots(collected, [boot_id(crashed)])
    assert (vm.job / "entries").read_text().count("\n") == 1
    assert (vm.job / "second.status").read_text() == "1\n", (vm.job / "second").read_text()
    stopped = properties(vm.job / "stopped")
    assert stopped == {"Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0"}, stopped
    assert properties(vm.job / "restarts") == {"NRestarts": "0"}

    after = service.run("after", AWAIT + "await idle '2 crashes'\n" + ENTRIES + STOPPED + STATUS + HISTORY + LOOK)
    # the oops was reported from the kernel's log; now that pstore shows it, it is the same crash
    assert crash_ids(vm.job / "entries.oops") == crash_ids(after.job / "entries")
    assert len(crash_ids(after.job / "entries")) == 2
    seen = read_collected(after.job)
    assert not seen.left, f"left in the store: {sorted(seen.left)}"
    assert seen.boots() == [boot_id(crashed), boot_id(vm)]
    assert ends(after)[boot_id(crashed)]["kind"] == "panic"
    check_closed(after, boot_id(vm))
    return "woken by insmod, reloaded, stopped, started; an oops reported once; orderly end"


def ends(vm: Vm) -> dict[str, Any]:
    """How each boot ended, as HISTORY has it."""
    return {boot["boot_id"]: boot["end"] for boot in json.loads((vm.job / "history").read_bytes())["boots"]}


def check_closed(vm: Vm, boot: str) -> None:
    """The ledger has the boot's end, and that it was in order."""
    end = ends(vm)[boot]
    assert end["kind"] == "clean", end
    assert any("ledger" in says for says in end["evidence"]), end


HISTORY = "tell pstored boots\npstored boots --json >/job/history\n"
STOPPED = "tell journalctl --no-pager --boot=-1 --unit=pstored-* --unit=pstored.service --lines=30\n"


# The archive on something like a network: its mount needs what comes after sysinit.target, and takes its time.
LATE_MOUNT = """
umount /var/lib/pstored
printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=sleep 8\\n' >/etc/systemd/system/slow.service
options=bind,nofail,x-systemd.requires=slow.service
echo "/disk/var/lib/pstored /var/lib/pstored none $options" >/etc/fstab
"""


def late_archive_holds_up_nothing(directory: Path, kernel: str) -> str:
    """The archive's file system comes after sysinit.target: that does not wait, nothing is lost, nor put below it."""
    service = Service(directory, kernel, "erst")
    crashed = service.bench.crash()
    script = f"""{AWAIT}
await idle '1 crash'
systemctl show --property=ActiveState,Result,ExecMainExitTimestampMonotonic pstored-harvest.service >/job/harvest
systemctl show --property=ActiveEnterTimestampMonotonic sysinit.target >/job/sysinit
systemctl show --property=ActiveEnterTimestampMonotonic var-lib-pstored.mount >/job/mount
{STATUS}
tell journalctl --no-pager --boot=0 --grep='ordering cycle|pstored|slow'
journalctl --no-pager --boot=0 --grep='ordering cycle' >/job/cycle
{LOOK}
mkdir /tmp/below; mount --bind / /tmp/below; find /tmp/below/var/lib/pstored >/job/below
umount /tmp/below
{REBOOT}
"""
    vm = service.run("late-archive", script, setup=SETUP + DAEMON + LATE_MOUNT)
    assert properties(vm.job / "harvest") == {
        "ActiveState": "inactive",
        "Result": "exec-condition",
        "ExecMainExitTimestampMonotonic": "0",
    }
    sysinit = int(properties(vm.job / "sysinit")["ActiveEnterTimestampMonotonic"])
    assert 0 < sysinit < int(properties(vm.job / "mount")["ActiveEnterTimestampMonotonic"])
    assert "cycle" not in (vm.job / "cycle").read_text()
    assert (vm.job / "below").read_text() == "/tmp/below/var/lib/pstored\n"
    collected = read_collected(vm.job)
    assert not collected.left, f"left in the store: {sorted(collected.left)}"
    check_boots(collected, [boot_id(crashed)])

    after = service.run("after", AWAIT + "await idle '1 crash'\n" + HISTORY, setup=SETUP + DAEMON + LATE_MOUNT)
    check_closed(after, boot_id(vm))
    return "skipped at boot, sysinit.target not held up; harvested once mounted; closed before the unmount"


# A sink that is a file, and one that is down at first: what listens there keeps what it is sent.
SINKS = """
mkdir -p /etc/pstored.conf.d /etc/pstored /etc/systemd/system/pstored-deliver.service.d
printf t0ken >/etc/pstored/token
chmod 600 /etc/pstored/token
cat >/etc/systemd/system/pstored-deliver.service.d/10.conf <<'END'
[Service]
LoadCredential=pstored.token:/etc/pstored/token
END
cat >/etc/pstored.conf.d/60-sinks.conf <<'END'
[delivery]
retry_s = 1
[file]
[prometheus]
[webhook]
url = "http://127.0.0.1:8080/hook"
token_file = "pstored.token"
END
cat >/job/receiver.py <<'END'
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/job/posted", "ab") as f:
            f.write(self.headers["Authorization"].encode() + b" " + body + b"\\n")
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
END
"""


def delivery_is_not_roots(directory: Path, kernel: str) -> str:
    """The daemon, root without a network, has crashes delivered by a service that is neither root nor may write."""
    service = Service(directory, kernel, "erst")
    service.crash()
    show = "--property=User,ExecMainStatus,Result,NRestarts"
    script = f"""{AWAIT}
waits() {{ systemctl show --property=StatusText pstored.service | grep -q 'to be delivered: webhook'; }}
delivered() {{ systemctl show --property=StatusText pstored.service | grep -q '1 crash.*nothing due$'; }}
await waits
{STATUS}
tell pstored outbox
/usr/bin/python3 /job/receiver.py & receiver=$!
await delivered
{STATUS}
rm /run/pstored-metrics/pstored.prom
systemctl start pstored-deliver.service
systemctl start pstored-deliver.timer
systemctl show --property=ActiveState,Persistent,FixedRandomDelay pstored-deliver.timer >/job/timer
systemctl show {show} pstored-deliver.service >/job/deliver
tell journalctl --no-pager --boot=0 --unit=pstored-deliver.service
tell pstored deliver
tell pstored outbox
ls -ln /var/lib/pstored/outgoing/webhook /var/lib/pstored/outgoing/file >/job/notes
id -u pstored >/job/uid
ls -ldn /run/pstored-metrics /run/pstored-metrics/pstored.prom >/job/metrics
cp /run/pstored-metrics/pstored.prom /job/
find /var/lib/pstored -user pstored >/job/owned
cp /var/log/pstored/crashes.jsonl /job/
tell ls -ln /var/log/pstored /var/lib/pstored /run/pstored
kill $receiver
{LOOK}
"""
    vm = service.run("deliver", script, setup=SETUP + DAEMON + SINKS)
    collected = read_collected(vm.job)
    (crash,) = collected.crashes()
    (posted,) = (vm.job / "posted").read_text().splitlines()
    assert posted.startswith("Bearer t0ken {")
    event = json.loads(posted.removeprefix("Bearer t0ken "))
    (line,) = (json.loads(text) for text in (vm.job / "crashes.jsonl").read_text().splitlines())
    assert event["data"]["uid"] == line["uid"]
    assert event["subject"] == line["crash"]["id"] == crash["id"]
    assert properties(vm.job / "deliver") == {
        "User": "pstored",
        "ExecMainStatus": "0",
        "Result": "success",
        "NRestarts": "0",
    }
    uid = (vm.job / "uid").read_text().strip()
    assert uid != "0"
    assert f" 1 {uid} {uid} " in (vm.job / "notes").read_text()
    owned = (vm.job / "owned").read_text().splitlines()
    assert owned[0] == "/var/lib/pstored/outgoing"
    assert all(path.startswith("/var/lib/pstored/outgoing") for path in owned)
    directory_line, file_line = (vm.job / "metrics").read_text().splitlines()
    assert directory_line.startswith("drwxr-xr-x"), directory_line
    assert file_line.startswith(f"-rw-r--r-- 1 {uid} {uid} "), file_line
    assert 'pstored_crashes_total{reason="panic"} 1\n' in (vm.job / "pstored.prom").read_text()
    assert properties(vm.job / "timer") == {"ActiveState": "active", "Persistent": "yes", "FixedRandomDelay": "yes"}
    return (
        "down, then delivered once, with a credential, by the user pstored, who wrote in outgoing/ only; metrics, too"
    )


# Another machine's last words, to the port that systemd listens on.
RECEIVE = (
    AWAIT
    + r"""
await idle 'no crashes'
tell systemctl start pstored-netconsole.socket
printf '[   12.000000] Kernel panic - not syncing: far away\n' >/dev/udp/127.0.0.1/6666
await idle '1 crash'
tell systemctl status --no-pager --full pstored-netconsole.service
tell pstored list
pstored show --json >/job/crash
find /var/lib/pstored-netconsole -printf '%m %u %g %y %P\n' >/job/spool
tell systemctl stop pstored-netconsole.socket pstored-netconsole.service
systemctl show --property=Result,ExecMainStatus pstored-netconsole.service >/job/stopped
"""
    + STATUS
)


def crash_of_another_machine_is_received(directory: Path, kernel: str) -> str:
    """The listener is started by a datagram, without a network of its own, and the daemon has what it received."""
    vm = Service(directory, kernel, "erst").run("receive", RECEIVE)
    crash = json.loads((vm.job / "crash").read_bytes())
    assert (crash["title"], crash["backend"]) == ("Kernel panic: far away", "netconsole")
    assert crash["sender"] == {"address": "127.0.0.1", "host": None}
    spool = (vm.job / "spool").read_text().splitlines()
    assert spool == ["3770 root pstored-netconsole d ", "620 root pstored-netconsole p wake"]
    assert properties(vm.job / "stopped") == {"Result": "success", "ExecMainStatus": "0"}
    return "started by a datagram, archived by the daemon, stopped"


def _table() -> Iterator[Scenario]:
    def line(name: str, function: Any, **arguments: Any) -> Scenario:
        return Scenario(name, functools.partial(function, **arguments))

    yield line("10-ramoops-6.12", crash_is_harvested_at_boot, kernel="6.12", backend="ramoops")
    yield line("11-late-6.12", daemon_follows_what_happens, kernel="6.12")
    yield line("12-archive-6.1", late_archive_holds_up_nothing, kernel="6.1")
    yield line("13-deliver-6.12", delivery_is_not_roots, kernel="6.12")
    yield line("14-netconsole-6.12", crash_of_another_machine_is_received, kernel="6.12")
    yield line("10-efi-6.1", crash_is_harvested_at_boot, kernel="6.1", backend="efi")


SERVICE_SCENARIOS = tuple(_table())
