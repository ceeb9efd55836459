# SPDX-License-Identifier: Apache-2.0
"""What wakes the daemon: which lines and uevents count, and the real sources."""

import os
import select
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore.capture import load, names
from pstored.daemon.wakeups import (
    BACKEND,
    BATCH,
    REPORT,
    KernelLog,
    Mounts,
    Uevents,
    attach_filter,
    is_wanted,
    look,
    read,
    reason,
)
from pstored.oops import find_events
from pstored.parse.kmsg import parse_kmsg
from pstored.parse.record import decode_record
from tests.conftest import can_mount, forked, mount, require, unshare_mounts

# -- lines of the kernel's log

HEADERS = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "BUG: unable to handle page fault for address: ffffffff9445aca0",
    "BUG: KASAN: slab-use-after-free in gauge_show+0x14/0x20",
    "BUG: TASK stack guard page was hit at (____ptrval____) (stack is ..)",
    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!",
    "BUG kmalloc-64 (Not tainted): Redzone overwritten",
    "watchdog: BUG: soft lockup - CPU#1 stuck for 13s! [init:83]",
    "watchdog: Watchdog detected hard LOCKUP on cpu 2",
    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 2",
    "Watchdog detected hard LOCKUP on cpu 2",
    "rcu: INFO: rcu_sched self-detected stall on CPU",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 0-... }",
    "INFO: task init:83 blocked for more than 120 seconds.",
    "Unable to handle kernel NULL pointer dereference at virtual address 00000000",
    "Unable to handle kernel paging request at virtual address dead000000000100",
    "Unhandled fault: imprecise external abort (0x1406) at 0x00000000",
    "SError Interrupt on CPU0, code 0xbf000002 -- SError",
    "Internal error: Oops - undefined instruction: 0 [#1] SMP ARM",
    "Internal error: synchronous external abort: 96000210 [#1] PREEMPT SMP",
    "Insufficient stack space to handle exception!",
    "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
    "general protection fault: 0000 [#1] SMP",
    "traps: PANIC: double fault, error_code: 0x0",
    "divide error: 0000 [#1] SMP PTI",
    "int3: 0000 [#1] SMP",
    "kernel BUG at drivers/misc/gauge.c:83!",
    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "Kernel bug detected[#1]:",
    "Bad page state in process init  pfn:1234",
    "UBSAN: array-index-out-of-bounds in drivers/misc/gauge.c:83:9",
    "CFI failure at gauge_show+0x14/0x20 (target: gauge+0x0/0x10; expected type: 0x01234567)",
    "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: be00000000800400",
    "Kernel panic - not syncing: sysrq triggered crash",
]


def line(text: bytes, *, facility: int = 0, level: int = 4) -> bytes:
    """As /dev/kmsg gives it."""
    return b"%d,339,5140900,-,caller=T1;%s" % (8 * facility + level, text)


@pytest.mark.parametrize("header", HEADERS)
def test_reports_of_the_kernel_are_noticed(header: str) -> None:
    """At any level, but only where the kernel itself says so, not user space."""
    for level in range(8):
        assert reason(line(header.encode(), level=level)) == REPORT
    for facility in (1, 3, 10):
        assert reason(line(header.encode(), facility=facility)) is None


def test_what_the_reader_knows_the_first_look_lets_pass() -> None:
    """Every event in a real log, of all captures, has a first line that would have woken the daemon."""
    found = 0
    for capture in map(load, names()):
        for name, data, mtime_ns in capture.records():
            lines = list(parse_kmsg(decode_record(name, data, mtime_ns=mtime_ns).text or b""))
            for event in find_events(lines):
                found += 1
                assert reason(line(lines[event.header].text)) == REPORT
    assert found > 20


@pytest.mark.parametrize(
    "text",
    [
        b"NET: Registered PF_INET protocol family",
        b"traps: gauged[83] general protection fault ip:7f0 sp:7ff error:0 in gauged[400000+1000]",
        b"gauged[83]: segfault at 8 ip 00000000 sp 00000000 error 4 in gauged[400000+1000]",
        b"Out of memory: Killed process 83 (gauged) total-vm:1kB, anon-rss:1kB",
        b"WARNING: CPU: 1 PID: 83 at drivers/misc/gauge.c:83 gauge_show+0x14/0x20",
        b"NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        b"mce: [Hardware Error]: Machine check events logged",
        b"EXT4-fs (vda): mounted filesystem with ordered data mode",
        b"x" * 300 + b"BUG: ",
    ],
)
def test_other_lines_wake_nobody(text: bytes) -> None:
    """What programs do wrong, warnings, corrected errors."""
    assert reason(line(text)) is None


def test_a_backend_that_registers_is_noticed() -> None:
    """fs/pstore/platform.c, pstore_register()."""
    assert reason(line(b"pstore: Registered efi_pstore as persistent store backend", level=6)) == BACKEND
    assert reason(line(b"pstore: Using crash dump compression: deflate", level=6)) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_line(data: bytes) -> None:
    """No exception, whatever comes."""
    assert reason(data) in (None, REPORT, BACKEND)
    reason(b"4,1,1,-;" + data)


@pytest.mark.parametrize(
    "data",
    [b"", b";", b"BUG: x", b" SUBSYSTEM=BUG: ", b"12,1,1,-;BUG: x", b"8,1,1,-;BUG: x", b"-1,1;BUG: x", b"\xb2;BUG"],
)
def test_what_is_no_line_of_the_kernels_wakes_nobody(data: bytes) -> None:
    """What a driver adds to its message, what user space wrote, rubbish."""
    assert reason(data) is None


def fifo(tmp_path: Path) -> tuple[KernelLog, int]:
    """A pipe in the place of /dev/kmsg, and its end to write to."""
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    source = KernelLog(str(path))
    return source, os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def test_lines_are_drained(tmp_path: Path) -> None:
    """All that has come, each reason once; then there is nothing."""
    source, pen = fifo(tmp_path)
    os.write(
        pen, line(b"BUG: a") + b"\n SUBSYSTEM=x\n" + line(b"pstore: Registered x") + b"\n" + line(b"BUG: b") + b"\n"
    )
    assert source.drain() == [REPORT, BACKEND]
    assert source.drain() == []
    os.close(pen)
    with pytest.raises(OSError, match="nobody writes"):
        source.drain()
    source.close()


def test_a_flood_is_drained_piece_by_piece(tmp_path: Path) -> None:
    """One call reads no more than a batch, so that the daemon comes to its signals; the next goes on from there."""
    source, pen = fifo(tmp_path)
    os.close(pen)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # as /dev/kmsg: one read, one message
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        os.dup2(theirs.fileno(), source.fd)
        os.set_blocking(source.fd, False)
        for _ in range(BATCH):
            ours.send(line(b"a line"))
        ours.send(line(b"BUG: a"))
        assert source.drain() == []
        assert source.drain() == [REPORT]
    source.close()


def test_the_kernels_own_log_is_read_from_now_on() -> None:
    """Real /dev/kmsg: what was logged before is not read."""
    require(os.access("/dev/kmsg", os.R_OK), "/dev/kmsg must be readable")
    source = KernelLog("/dev/kmsg")
    assert source.drain() == []
    source.close()


# -- uevents


def test_uevents_that_bring_records_are_wanted() -> None:
    """As kernel-formats 1.6 saw them; a module that is taken away brings nothing."""
    for module in ("efi_pstore", "ramoops", "pstore_blk", "pstore_zone", "pstore", "mtdpstore"):
        assert is_wanted("add", "module", module, None)
        assert not is_wanted("remove", "module", module, None)
    assert is_wanted("bind", "platform", "ramoops", "ramoops")
    assert is_wanted("bind", "platform", "9ff00000.ramoops", "ramoops")
    assert is_wanted("add", "pmsg", "pmsg0", None)
    assert not is_wanted("add", "platform", "ramoops", None)
    assert not is_wanted("unbind", "platform", "ramoops", "ramoops")
    assert not is_wanted("add", "module", "reed_solomon", None)
    assert not is_wanted("add", "drivers", "ramoops", None)
    assert not is_wanted(None, None, "ramoops", "ramoops")


def bound_device() -> Path:
    """A platform device with a driver: root may have its uevent sent again."""
    found = [p for p in Path("/sys/devices/platform").glob("*/driver") if os.access(p.parent / "uevent", os.W_OK)]
    require(found, "a platform device with a driver, and root, are needed")
    return found[0].parent


def test_real_uevents_come_through() -> None:
    """Action, subsystem, name and driver, as the kernel sends them; nothing else of that is wanted."""
    device = bound_device()
    seen = []

    def wanted(action: str | None, subsystem: str | None, name: str, driver: str | None) -> bool:
        seen.append((action, subsystem, name, driver))
        return action == "bind" and name == device.name

    source = Uevents(is_wanted=wanted)
    (device / "uevent").write_text("change")
    (device / "uevent").write_text("bind")
    assert select.select([source.fd], [], [], 10)[0]
    assert source.drain() == [f"bind of platform {device.name}"]
    driver = (device / "driver").resolve().name
    assert ("change", "platform", device.name, driver) not in seen
    assert ("bind", "platform", device.name, driver) in seen
    assert source.drain() == []
    source.close()


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        (b"add@/module/ramoops", True),
        (b"bind@/devices/platform/9ff00000.ramoops", True),
        (b"add@/devices/virtual/pmsg/pmsg0", True),
        (b"remove@/module/ramoops", False),
        (b"add@/devices/virtual/bdi/0:39", False),
        (b"change@/devices/LNXSYSTM:00/PNP0C0A:00/power_supply/BAT0", False),
        (b"add@/devices/virtual/net/veth0", False),
        (b"add@", False),
        (b"a", False),
    ],
)
def test_the_kernel_drops_what_does_not_matter(message: bytes, passes: bool) -> None:
    """What batteries, network devices and mounts do all day wakes nobody.  The filter works on any socket."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, kernels:
        attach_filter(ours.fileno())
        kernels.send(message + b"\0ACTION=x\0SEQNUM=1\0")
        assert bool(select.select([ours], [], [], 0)[0]) is passes


# -- mounts, and what is compared


def test_a_change_of_mounts_wakes_once() -> None:
    """Epoll is quiet before, tells of a mount, and is quiet again without anything being read."""
    require(can_mount(), "mount namespaces need root")

    def watch() -> list[bool]:
        unshare_mounts()
        source = Mounts()
        epoll = select.epoll()
        epoll.register(source.fd, source.events)
        told = [bool(epoll.poll(0))]
        mount("-t", "tmpfs", "none", "/mnt")
        told += [bool(epoll.poll(5)), bool(epoll.poll(0))]
        assert source.drain() == []
        return told

    assert forked(watch) == [False, True, False]


def test_a_store_mounted_anew_is_another() -> None:
    """Real pstorefs: unmounted and mounted again between two looks, which mountinfo need not show."""
    require(can_mount(), "mount namespaces need root")

    def mounted() -> list[object]:
        unshare_mounts()
        looks: list[object] = [look("/", "/mnt")]
        for _ in range(2):
            mount("-t", "pstore", "none", "/mnt")
            looks += [look("/", "/mnt"), look("/", "/mnt")]
            os.system("umount /mnt")
        return looks

    require("pstore" in Path("/proc/filesystems").read_text(), "a kernel with pstore")
    before, first, again, second, _ = forked(mounted)
    assert first == again
    assert before != first != second


def test_what_cannot_be_looked_at_is_nothing(tmp_path: Path) -> None:
    """A kernel without pstore; and what is there, below the root."""
    assert look(str(tmp_path), "/sys/fs/pstore") == ("", None, "")
    (tmp_path / "sys/fs/pstore").mkdir(parents=True)
    (tmp_path / "sys/kernel").mkdir()
    (tmp_path / "sys/kernel/oops_count").write_text("3\n")
    _, mounted, oopses = look(str(tmp_path), "/sys/fs/pstore")
    assert (mounted is not None, oopses) == (True, "3")
    assert read(str(tmp_path), "/sys/fs/pstore") == ""
