# SPDX-License-Identifier: Apache-2.0
"""What is done to real kernels, and what must come of it; the table SCENARIOS is at the end.

Each scenario takes a directory, starts machines in it, and gives what it found, in a few words.  The guest sees the
host's files, so what runs there is this checkout and this interpreter; see the file init for what is laid over them.
"""

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from . import kernels
from .checks import (
    Collected,
    check_all_taken,
    check_boots,
    check_nothing_lost,
    check_nothing_new,
    check_text,
    read_collected,
    read_crashes,
    read_store,
)
from .vm import Machine, Start, Vm, ramoops

# The power is cut at this many points of a collecting boot, two machines at a time.
CUTS = 24
AT_ONCE = 2

# -- what the guest is told

# The journal is no sink here: without systemd as PID 1 nobody listens, and 75 would hide what the exit status says.
PRELUDE = f"""
cd /
export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={kernels.HERE.parents[1]}
mkdir -p /etc/pstored.conf.d
printf '[journal]\\nenabled = false\\n' >/etc/pstored.conf.d/50-vm.conf
cat /proc/sys/kernel/random/boot_id >/job/boot_id
"""
STAMP = "pstored stamp\n"
REMOUNT = "umount /sys/fs/pstore; mount -t pstore pstore /sys/fs/pstore\n"
ERASE_ALL = "printf '[harvest]\\nerase = \"all\"\\n' >/etc/pstored.conf.d/60-vm.conf\n"
# a process of its own: it does not survive
OOPS = "insmod /job/oops-*.ko\n(echo >/proc/oops)\n"


def copy_store(target: str) -> str:
    """The script that copies every record to *target*: by cat, for st_size lies where ftrace is concerned."""
    return f"""
mkdir -p {target}
for record in /sys/fs/pstore/*; do [ ! -e "$record" ] || cat "$record" >{target}/"${{record##*/}}"; done
"""


def collect(suffix: str = "", command: str = "pstored collect --json") -> str:
    """The script that collects, and leaves all that `read_collected` wants to know in /job/collect*suffix*."""
    here = f"/job/collect{suffix}"
    return f"""
{copy_store(f"{here}/store")}
{command} >{here}/report 2>{here}/said
echo $? >{here}/status
ls /sys/fs/pstore >{here}/left
mkdir -p {here}/root/var/lib
cp -r /var/lib/pstored {here}/root/var/lib/
"""


# What the clock says at power on
EPOCH, PAST, FUTURE, HOST = "1970-01-01T00:00:00", "2001-02-03T04:05:06", "2037-12-31T23:00:00", None


class Backend(NamedTuple):
    """Where a machine keeps its crashes."""

    load: Sequence[str] = ()
    options: dict[str, Any] = {}  # noqa: RUF012  a NamedTuple's default, and nobody writes to it


BACKENDS = {
    "ramoops": Backend(load=(ramoops(),)),
    "efi": Backend(load=("efi_pstore",), options={"efi": True}),
    "erst": Backend(options={"erst": True}),
    "blk": Backend(load=("pstore_blk blkdev=/dev/vdb best_effort=1 kmsg_size=64",), options={"blk": True}),
}


class Bench:
    """A machine with its backend, and the starts that come again and again."""

    def __init__(self, directory: Path, kernel: str, backend: str) -> None:
        """Make the machine; nothing runs yet."""
        self.kernel = kernel
        self.backend = BACKENDS[backend]
        self.machine = Machine(directory=directory / "machine", kernel=kernel, **self.backend.options)

    def start(self, name: str, script: str, **more: Any) -> Start:
        """Make a start with the backend's modules in the host's files."""
        return Start(name, PRELUDE + script, mode="host", load=self.backend.load, **more)

    def crash(self, script: str = STAMP, **more: Any) -> Vm:
        """Boot, stamp, panic."""
        return self.machine.crash(self.start("crash", script, **more))

    def collect(self, script: str = "", after: str = "", **more: Any) -> Collected:
        """Boot, run *script*, collect, run *after*, power off."""
        return read_collected(self.machine.run(self.start("collect", script + collect() + after, **more)).job)


def boot_id(vm: Vm) -> str:
    """The boot id of a start."""
    return (vm.job / "boot_id").read_text().strip()


# -- the scenarios


def crash_is_collected_once(directory: Path, backend: str, kernel: str, crashed_on: str | None = None) -> str:
    """Panic, reboot, collect: all of it, of the boot that crashed; the store is empty, and nothing comes twice."""
    bench = Bench(directory, kernel, backend)
    crashed = bench.crash(kernel=crashed_on)
    collected = bench.collect()
    check_all_taken(collected)
    check_boots(collected, [boot_id(crashed)])
    (crash,) = collected.crashes()
    assert crash["complete"], crash["dumps"]
    lines = check_text(collected.text(crash), crashed.serial)
    check_nothing_new(bench.collect(), crashes=1)
    return f"{len(collected.listed)} records, {lines} lines as on the console; store empty; nothing twice"


def fatal_mce_is_collected(directory: Path, kernel: str) -> str:
    """A machine check that nothing survives leaves its own record in ERST beside the panic's; both are one crash."""
    bench = Bench(directory, kernel, "erst")
    script = STAMP + "echo >/job/ready\nsleep 1000\n"
    with bench.machine.start(bench.start("mce", script)) as crashed:
        crashed.wait_file("ready")
        # cpu bank status mcgstatus addr misc: uncorrected, context corrupt, address and miscellaneous valid
        crashed.monitor("mce 0 4 0xbe00000000800400 0x5 0xdeadb000 0x86")
        crashed.wait_off()
        assert b"Machine check" in crashed.serial
    collected = bench.collect()
    check_all_taken(collected)
    kinds = sorted({name.split("-")[0] for name in collected.listed})
    assert kinds == ["dmesg", "mce"], kinds
    check_boots(collected, [boot_id(crashed)])
    return f"{len(collected.listed)} records ({' and '.join(kinds)}), one crash"


def new_oops_survives(directory: Path, kernel: str, *, remount: bool, policy: str = "") -> str:
    """ramoops starts again at slot 0: an oops in the running boot lies under a record already listed, and must live."""
    bench = Bench(directory, kernel, "ramoops")
    module = (kernels.oops_module(kernel),)
    first = bench.crash()
    script = STAMP + policy + OOPS + collect("-hidden") + ((REMOUNT + collect("-shown")) if remount else "")
    second = bench.machine.run(bench.start("oops", script, files=module))
    hidden = read_collected(second.job, "-hidden")
    (name,) = hidden.listed
    assert b"oops_write" not in hidden.listed[name], "the kernel shows the new oops already: nothing to test"
    last = bench.collect(STAMP)
    oopses = [crash for crash in last.crashes() if crash["boot"]["id"] == boot_id(second)]
    assert oopses, "the oops of the running boot is destroyed"
    assert b"oops_write" in last.text(oopses[0])
    check_boots(last, [boot_id(first), boot_id(second)])
    assert hidden.outcomes() == {name: "deferred"}
    assert hidden.status == 1
    assert not last.left
    if remount:
        assert len(read_collected(second.job, "-shown").crashes()) == 2
        return f"{name} deferred; the oops under it shown by a remount, and archived; store empty at the next boot"
    return f"{name} deferred; the oops under it archived at the next boot; store empty"


def new_oops_dies_without_guard(directory: Path, kernel: str) -> str:
    """The control of `new_oops_survives`: told to erase regardless, pstored destroys the oops; the check sees it."""
    with pytest.raises(AssertionError, match="is destroyed"):
        new_oops_survives(directory, kernel, remount=False, policy=ERASE_ALL)
    return 'erase = "all": the new oops is destroyed, and the check says so'


# At power on the clock says 1970 each time; both boots wait for the same second of it, the crashed one to panic, the
# running one to oops. The ids of ERST and EFI are made of that second and of a count from 1, so they are the same.
_SAME_SECOND = 'while [ "$(date +%s)" -lt 40 ]; do sleep 0.01; done\n'


def new_oops_survives_stuck_clock(directory: Path, backend: str, kernel: str) -> str:
    """With a clock that stands still between boots, an oops can lie under a listed record in ERST and EFI, too."""
    bench = Bench(directory, kernel, backend)
    first = bench.crash(STAMP + _SAME_SECOND, rtc=EPOCH)
    script = STAMP + _SAME_SECOND + OOPS + collect()
    second = bench.machine.run(bench.start("oops", script, rtc=EPOCH, files=(kernels.oops_module(kernel),)))
    hidden = read_collected(second.job)
    assert not any(b"oops_write" in record for record in hidden.listed.values()), "shown already: nothing to test"
    last = bench.collect(STAMP, rtc=EPOCH)
    assert boot_id(first) in last.boots()
    assert boot_id(second) in last.boots(), "the oops of the running boot is destroyed"
    assert not last.left
    outcomes = "/".join(sorted(set(hidden.outcomes().values())))
    return f"{len(hidden.listed)} records {outcomes}; the oops under them archived"


# What takes the guard out for `cuts_lose_without_guard`: the same program, in which no flush does anything
_NO_FLUSH = f"""{sys.executable} -c '
import os, sys
os.fsync = os.fdatasync = lambda fd: None
os.sync = lambda: None
from pstored.__main__ import main
sys.exit(main())' collect"""


def cut(machine: Machine, start: Callable[..., Start], at: int, command: str = "pstored collect --json") -> str:
    """Cut the power at step *at* of a collecting boot; gives the name of the step."""
    script = f"export PSTORED_STEPS=/job/steps PSTORED_STEP_STOP={at}\n" + collect(command=command)
    with machine.start(start(f"cut-{at}", script)) as vm:
        steps = vm.job / "steps"
        vm.wait_for(lambda: steps.exists() and f"step {at} " in steps.read_text())
        vm.cut()
    return steps.read_text().splitlines()[-1].split()[2]


def _uncut(bench: Bench) -> tuple[Collected, list[str]]:
    """What a boot collects that nobody cuts off, and the names of its steps; the machine itself is not touched."""
    whole = bench.machine.copy("whole")
    job = whole.run(bench.start("uncut", "export PSTORED_STEPS=/job/steps\n" + collect())).job
    return read_collected(job), [line.split()[2] for line in (job / "steps").read_text().splitlines()]


def check_after_cut(machine: Machine, start: Callable[..., Start], records: dict[str, bytes]) -> None:
    """Boot what was cut off: every record is in the store or whole in the archive; collecting puts all in order."""
    look = copy_store("/job/found/store") + "mkdir -p /job/found/root; cp -r /var/lib/pstored /job/found/root/\n"
    job = machine.run(start("after", look + collect())).job
    check_nothing_lost(records, read_store(job / "found/store"), job / "found/root/pstored")
    after = read_collected(job)
    check_nothing_lost(records, {}, after.archive)
    assert not after.left
    assert after.status == 0, after.said
    assert len(after.crashes()) == 1
    litter = list(after.archive.rglob(".new-*"))
    assert not litter, litter


def power_cuts_lose_nothing(directory: Path, kernel: str, backend: str, count: int) -> str:
    """Cut the power at *count* points spread over a collecting boot, and at each erase besides."""
    bench = Bench(directory, kernel, backend)
    bench.crash()
    uncut, steps = _uncut(bench)
    check_all_taken(uncut)
    spread = {1 + i * (len(steps) - 1) // (count - 1) for i in range(count)}
    points = sorted(spread | {at for at, name in enumerate(steps, 1) if name == "erase"})

    def cut_and_check(at: int) -> str:
        machine = bench.machine.copy(f"cut-{at}")
        name = cut(machine, bench.start, at)
        check_after_cut(machine, bench.start, uncut.listed)
        machine.discard()
        return name

    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = list(pool.map(cut_and_check, points))
    kinds = ", ".join(f"{names.count(kind)} {kind}" for kind in sorted(set(names)))
    return f"{len(points)} of {len(steps)} steps cut ({kinds}): {len(uncut.listed)} records whole each time"


def cuts_lose_without_guard(directory: Path, kernel: str) -> str:
    """The control of `power_cuts_lose_nothing`: with flushes that do nothing, records are lost; the check sees it."""
    bench = Bench(directory, kernel, "erst")
    bench.crash()
    uncut, steps = _uncut(bench)
    last_erase = len(steps) - steps[::-1].index("erase")
    machine = bench.machine.copy("cut")
    cut(machine, bench.start, last_erase + 1, _NO_FLUSH)
    with pytest.raises(AssertionError, match="is lost"):
        check_after_cut(machine, bench.start, uncut.listed)
    return f"flushes that do nothing, cut after the last erase (step {last_erase}): lost, and the check says so"


def two_boots_are_told_apart(directory: Path, backend: str, kernel: str) -> str:
    """Two boots crash before anything is collected: two crashes, each with its own boot and its own text."""
    bench = Bench(directory, kernel, backend)
    crashed = {boot_id(vm): vm for vm in (bench.crash(), bench.crash())}
    collected = bench.collect()
    check_all_taken(collected)
    check_boots(collected, crashed)
    for crash in collected.crashes():
        assert crash["complete"], crash["dumps"]
        check_text(collected.text(crash), crashed[crash["boot"]["id"]].serial)
    return f"{len(collected.listed)} records, two crashes, each of its own boot"


class Clock(NamedTuple):
    """What the clocks of boots say at power on; the last one collects."""

    crash: Sequence[str | None]
    collect: str | None


def clock_does_not_mislead(directory: Path, backend: str, kernel: str, clock: Clock) -> str:
    """Whatever the clock says, each crash is of the boot that crashed."""
    bench = Bench(directory, kernel, backend)
    crashed = {boot_id(vm): vm for vm in [bench.crash(rtc=rtc) for rtc in clock.crash]}
    collected = bench.collect(rtc=clock.collect)
    check_all_taken(collected)
    check_boots(collected, crashed)
    for crash in collected.crashes():
        check_text(collected.text(crash), crashed[crash["boot"]["id"]].serial)
    times = ", ".join(f"{crash['time']['wall']}{'?' * crash['time']['doubtful']}" for crash in collected.crashes())
    return f"{len(crashed)} crashes, each of its own boot; times {times}"


def unstamped_boot_is_not_the_collecting_one(directory: Path, kernel: str) -> str:
    """A crash without a stamp, on a clock of 1970: the boot is unknown, or right; never the one that collects."""
    bench = Bench(directory, kernel, "ramoops")
    crashed = bench.crash(script="", rtc=EPOCH)
    collected = bench.collect(STAMP, rtc=EPOCH)
    check_all_taken(collected)
    (crash,) = collected.crashes()
    assert crash["boot"]["id"] in (None, boot_id(crashed)), crash["boot"]
    return f"boot {'unknown' if crash['boot']['id'] is None else 'right'}, by {crash['boot']['method']}"


def block_device_is_collected(directory: Path, kernel: str) -> str:
    """pstore_blk cannot write in a panic, only after an oops: that record is collected like any other."""
    bench = Bench(directory, kernel, "blk")
    # the record is written by a worker, a second or so after the oops
    script = STAMP + OOPS + "for i in 1 2 3 4 5 6; do sleep 0.5; dd if=/dev/vdb bs=16 count=1 iflag=direct; done\n"
    crashed = bench.crash(script, files=(kernels.oops_module(kernel),))
    collected = bench.collect()
    check_all_taken(collected)
    check_boots(collected, [boot_id(crashed)])
    (crash,) = collected.crashes()
    check_text(collected.text(crash), crashed.serial)
    check_nothing_new(bench.collect(), crashes=1)
    return f"{', '.join(collected.listed)}: the oops, not the panic after it; store empty"


def mtdoops_is_taken(directory: Path, kernel: str) -> str:
    """mtdoops has no pstorefs: what it has recorded is read from its partition, once."""
    bench = Bench(directory, kernel, "blk")
    load = ("block2mtd block2mtd=/dev/vdb,65536", "mtdoops mtddev=0 record_size=65536")
    bench.backend = bench.backend._replace(load=load)
    module = (kernels.oops_module(kernel),)
    bench.crash(STAMP + OOPS + "sleep 2; sync\n", files=module)
    image = (bench.machine.directory / "blk.img").read_bytes()
    assert b"oops_write" in image, "mtdoops has recorded nothing: nothing to test"
    collected = bench.collect()
    assert not collected.listed
    (crash,) = collected.crashes()
    assert (crash["severity"], crash["function"], crash["backend"]) == ("oops", "oops_write", "mtdoops")
    check_nothing_new(bench.collect(), crashes=1)
    return "a record on the device, none in pstorefs: one crash, and nothing new the second time"


def systemd_pstore_comes_first(directory: Path, kernel: str) -> str:
    """A boot with systemd as PID 1 and systemd-pstore enabled: it takes the records, pstored imports them."""
    bench = Bench(directory, kernel, "ramoops")
    crashed = bench.crash()
    script = PRELUDE + collect() + "cp -r /var/lib/systemd/pstore /job/taken; systemctl status systemd-pstore\n"
    vm = bench.machine.run(Start("systemd", script, mode="systemd", load=bench.backend.load))
    collected = read_collected(vm.job)
    taken = [path.read_bytes() for path in (vm.job / "taken").rglob("dmesg-*")]
    assert taken, "systemd-pstore has not taken the record: nothing to test"
    assert any(boot_id(crashed).encode() in text for text in taken), "the record is lost"
    assert not collected.listed
    assert "systemctl mask systemd-pstore.service" in str(collected.report["harvest"]["warnings"])
    check_nothing_lost({str(n): text for n, text in enumerate(taken)}, {}, collected.archive)
    check_boots(collected, [boot_id(crashed)])
    return "systemd-pstore took the record, pstored imported it, and says that both own the store"


# systemd-pstore runs, from its first line to its last, exactly where pstored stands at a step that begins with WHERE
_OVERTAKEN = f"""{sys.executable} -c '
import subprocess, sys
from pstored import steps
def overtake(name):
    if name.startswith("WHERE"):
        steps.hook = None
        subprocess.run(["/lib/systemd/systemd-pstore"], check=True)
steps.hook = overtake
from pstored.__main__ import main
sys.exit(main())' collect --json"""


def systemd_pstore_overtakes(directory: Path, kernel: str) -> str:
    """systemd-pstore takes all while pstored is at it: each record is whole in one archive or the other, or in both."""
    bench = Bench(directory, kernel, "erst")
    bench.crash()
    ours = {}
    for where in ("create", "erase"):
        machine = bench.machine.copy(where)
        script = collect(command=_OVERTAKEN.replace("WHERE", where)) + "cp -r /var/lib/systemd/pstore /job/taken\n"
        vm = machine.run(bench.start(where, script))
        collected = read_collected(vm.job)
        taken = {str(path): path.read_bytes() for path in (vm.job / "taken").rglob("*") if path.is_file()}
        assert taken, "systemd-pstore has taken nothing: nothing to test"
        check_nothing_lost(collected.listed, taken, collected.archive)
        assert set(collected.outcomes().values()) == {"vanished"}
        assert not collected.left
        assert collected.status == 0, collected.said
        ours[where] = len(collected.report["harvest"]["archived"])
    return f"overtaken before it reads: {ours['create']} records archived; before it erases: {ours['erase']}; none lost"


# New names throughout: a write that is refused leaves an empty file behind, and that one cannot be written again.
_FILL = """
cd /sys/firmware/efi/efivars
n=0
for size in 30000 8000 1000 500 200 100 20; do
    while { printf '\\007\\000\\000\\000'; head -c $size /dev/zero; } >/tmp/variable
        dd if=/tmp/variable of=fill$n-11111111-2222-3333-4444-555555555555 bs=70000 2>/tmp/dd
    do n=$((n + 1)); done
    n=$((n + 1))
done
cd /
"""
_DUMPS = "cat /sys/firmware/efi/efivars/dump-type0-* 2>/dev/null | wc -c >/job/variables\n"


def efi_erase_is_checked(directory: Path, kernel: str) -> str:
    """The variables are gone; a store that refuses is told, keeps its records, and is in the exit status."""
    bench = Bench(directory, kernel, "efi")
    crashed = bench.crash()
    before = bench.machine.vars.read_bytes()
    refuse = "mount -o remount,ro /sys/fs/pstore\n" + collect("-refused") + "mount -o remount,rw /sys/fs/pstore\n"
    vm = bench.machine.run(bench.start("refuse", refuse + collect() + _DUMPS))
    refused, collected = read_collected(vm.job, "-refused"), read_collected(vm.job)
    assert set(refused.outcomes().values()) == {"failed"}
    assert refused.left == set(refused.listed)
    assert refused.status == 1
    check_all_taken(collected)
    assert (vm.job / "variables").read_text().strip() == "0"
    check_boots(collected, [boot_id(crashed)])
    # a firmware that forgets what was erased: the records come back, are known, and are erased again
    bench.machine.vars.write_bytes(before)
    back = bench.collect()
    check_all_taken(back)
    assert len(back.crashes()) == 1
    assert back.report["harvest"]["known"] == len(back.listed)
    return f"{len(back.listed)} variables: refused, told, kept; then gone; back after a reboot, known, gone again"


def full_efi_store_is_told(directory: Path, kernel: str) -> str:
    """A full variable store: what is in it is collected and erased, and that no room came of it is said."""
    bench = Bench(directory, kernel, "efi")
    bench.crash()
    collected = bench.collect(_FILL)
    check_all_taken(collected)
    assert "given back" in collected.said + str(collected.report), collected.said
    return f"{len(collected.listed)} records collected from a full store; no space back in this boot, as pstored says"


def arm64_is_collected_on_the_host(directory: Path, kernel: str) -> str:
    """An arm64 machine cannot run this interpreter: its records are carried out, and collected from there."""
    machine = Machine(directory=directory / "machine", kernel=kernel, disk=False)
    region = (ramoops("arm64"),)
    # the guest has busybox only, so the stamp is written by hand
    stamp = 'boot=$(cat /proc/sys/kernel/random/boot_id); echo "$boot" >/job/boot_id\n'
    crashed = machine.crash(Start("crash", stamp + 'echo "pstored: boot $boot" >/dev/kmsg\n', load=region))
    facts = (
        "proc/sys/kernel/tainted",
        "proc/sys/kernel/osrelease",
        "proc/sys/kernel/random/boot_id",
        "sys/kernel/oops_count",
    )
    carry = "".join(f"mkdir -p /job/root/{Path(fact).parent}; cat /{fact} >/job/root/{fact}\n" for fact in facts)
    job = machine.run(Start("carry", copy_store("/job/root/sys/fs/pstore") + carry, load=region)).job
    root = job / "root"
    records = read_store(root / "sys/fs/pstore")
    pstored = [sys.executable, "-m", "pstored", "--root", str(root)]
    done = subprocess.run([*pstored, "collect"], capture_output=True, text=True)
    check_nothing_lost(records, {}, root / "var/lib/pstored")
    (crash,) = read_crashes(root / "var/lib/pstored")
    assert crash["boot"]["id"] == boot_id(crashed)
    assert crash["complete"]
    assert done.returncode == 0, done.stderr
    text = (root / "var/lib/pstored/crashes" / crash["id"] / "dmesg.txt").read_bytes()
    lines = check_text(text, crashed.serial)
    return f"{', '.join(records)} carried out; {lines} lines as on the console"


class Scenario(NamedTuple):
    """One line of the table."""

    name: str
    run: Callable[[Path], str]


def _table() -> Iterator[Scenario]:
    def line(name: str, function: Callable[..., str], **arguments: Any) -> Scenario:
        return Scenario(name, functools.partial(function, **arguments))

    for kernel in ("6.1", "6.12"):
        for backend in ("ramoops", "efi", "erst"):
            yield line(f"1-{backend}-{kernel}", crash_is_collected_once, backend=backend, kernel=kernel)
    upgrade: dict[str, Any] = {"backend": "ramoops", "kernel": "6.12", "crashed_on": "6.1"}
    yield line("1-upgrade-6.1-6.12", crash_is_collected_once, **upgrade)
    yield line("1-mce-6.1", fatal_mce_is_collected, kernel="6.1")
    yield line("2-remount-6.1", new_oops_survives, kernel="6.1", remount=True)
    yield line("2-reboot-6.12", new_oops_survives, kernel="6.12", remount=False)
    yield line("2-control-6.12", new_oops_dies_without_guard, kernel="6.12")
    yield line("2-stuck-clock-6.12", new_oops_survives_stuck_clock, backend="erst", kernel="6.12")
    yield line("3-erst-6.12", power_cuts_lose_nothing, kernel="6.12", backend="erst", count=CUTS)
    yield line("3-control-6.12", cuts_lose_without_guard, kernel="6.12")
    yield line("4-erst-6.12", two_boots_are_told_apart, backend="erst", kernel="6.12")
    yield line("4-efi-6.1", two_boots_are_told_apart, backend="efi", kernel="6.1")
    epoch = Clock((EPOCH,), EPOCH)
    yield line("5-epoch-6.1", clock_does_not_mislead, backend="ramoops", kernel="6.1", clock=epoch)
    jumps = Clock((FUTURE, PAST), HOST)
    yield line("5-jumps-6.12", clock_does_not_mislead, backend="erst", kernel="6.12", clock=jumps)
    yield line("5-unstamped-6.12", unstamped_boot_is_not_the_collecting_one, kernel="6.12")
    yield line("6-blk-6.1", block_device_is_collected, kernel="6.1")
    yield line("6-mtdoops-6.12", mtdoops_is_taken, kernel="6.12")
    yield line("7-first-6.1", systemd_pstore_comes_first, kernel="6.1")
    yield line("7-overtakes-6.12", systemd_pstore_overtakes, kernel="6.12")
    yield line("8-erase-6.12", efi_erase_is_checked, kernel="6.12")
    yield line("8-full-6.1", full_efi_store_is_told, kernel="6.1")
    yield line("9-arm64-6.1", arm64_is_collected_on_the_host, kernel="6.1-arm64")


SCENARIOS = tuple(_table())
