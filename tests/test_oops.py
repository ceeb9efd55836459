# SPDX-License-Identifier: Apache-2.0
"""What happened, from the kernel's own words: headers of every kind, panics that echo them, and no crash at all."""

import gc
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.oops import LONGEST, Event, EventKey, Severity, analyze, event_keys, find_events, is_finished
from pstored.parse.kmsg import KmsgLine, parse_kmsg
from tests.conftest import forked


def find_event(lines: list[KmsgLine]) -> Event | None:
    """What a log's last panic or report says."""
    return next(reversed(find_events(lines)), None)


def event(*lines: str) -> Event | None:
    """What a log of these lines tells of."""
    text = "".join(f"<4>[{n:5d}.000000] {line}\n" for n, line in enumerate(lines))
    return find_event(list(parse_kmsg(text.encode())))


def told(*lines: str) -> Event:
    """The same, of a log that does tell."""
    found = event(*lines)
    assert found is not None
    return found


RIP = "RIP: 0010:gauge_store+0x14/0x20 [gauge]"
CPU = "CPU: 1 PID: 83 Comm: gauged Tainted: G      D            6.1.192 #1"
PANIC = "Kernel panic - not syncing: Fatal exception"

HEADERS = [
    ("null-deref", "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
    ("null-deref", "BUG: unable to handle kernel NULL pointer dereference at           (null)"),
    ("null-deref", "Unable to handle kernel NULL pointer dereference at virtual address 00000000"),
    ("paging-fault", "BUG: unable to handle page fault for address: ffffffff9445aca0"),
    ("paging-fault", "BUG: unable to handle kernel paging request at ffffc90000000000"),
    ("paging-fault", "Unable to handle kernel paging request at virtual address dead000000000100"),
    ("kasan-uaf", "BUG: KASAN: slab-use-after-free in gauge_show+0x14/0x20"),
    ("kasan-uaf", "BUG: KASAN: use-after-free in gauge_show+0x14/0x20"),
    ("kasan-oob", "BUG: KASAN: slab-out-of-bounds in gauge_show+0x14/0x20"),
    ("kasan-other", "BUG: KASAN: double-free in gauge_show+0x14/0x20"),
    ("kfence", "BUG: KFENCE: use-after-free read in gauge_show+0x14/0x20"),
    ("gpf", "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP"),
    ("divide-error", "divide error: 0000 [#1] SMP PTI"),
    ("invalid-opcode", "invalid opcode: 0000 [#1] SMP PTI"),
    ("stack-overflow", "BUG: TASK stack guard page was hit at (____ptrval____) (stack is ..)"),
    ("stack-overflow", "BUG: IRQ stack guard page was hit at 00000000abcd"),
    ("double-fault", "double fault: 0000 [#1] SMP"),
    ("soft-lockup", "watchdog: BUG: soft lockup - CPU#1 stuck for 13s! [init:83]"),
    ("hard-lockup", "watchdog: Watchdog detected hard LOCKUP on cpu 2"),
    ("hard-lockup", "NMI watchdog: Watchdog detected hard LOCKUP on cpu 2"),
    ("rcu-stall", "rcu: INFO: rcu_sched self-detected stall on CPU"),
    ("rcu-stall", "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    ("hung-task", "INFO: task init:83 blocked for more than 120 seconds."),
    ("sleeping-in-atomic", "BUG: sleeping function called from invalid context at mm/slab.h:494"),
    ("sleeping-in-atomic", "BUG: scheduling while atomic: init/1/0x00000002"),
    ("spinlock-bug", "BUG: spinlock bad magic on CPU#0, init/1"),
    ("bad-page", "BUG: Bad page state in process init  pfn:1234"),
    ("bug-on", "kernel BUG at drivers/misc/gauge.c:83!"),
    ("mce", "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: be00000000800400"),
    ("oops", "int3: 0000 [#1] SMP"),
    ("invalid-opcode", "Internal error: Oops - undefined instruction: 0 [#1] SMP ARM"),
    ("oops", "Oops: 0002 [#1] PREEMPT SMP NOPTI"),
]


@pytest.mark.parametrize(("kind", "header"), HEADERS, ids=[f"{kind}-{header[:20]}" for kind, header in HEADERS])
def test_headers_of_reports_are_known(kind: str, header: str) -> None:
    """Each has its kind; the title is the kernel's own line; it killed a task, and the machine may have gone on."""
    found = told("before", header, CPU, RIP, "after")
    assert found.kind == kind
    assert found.title.startswith(header)
    assert found.severity is Severity.OOPS
    assert found.first == 1
    # a hung task is named by the header: the registers are khungtaskd's
    assert (found.comm, found.pid) == ("init" if kind == "hung-task" else "gauged", 83)


@pytest.mark.parametrize(("kind", "header"), HEADERS, ids=[f"{kind}-{header[:20]}" for kind, header in HEADERS])
def test_a_fatal_report_is_told_by_its_header_not_by_the_panic_after_it(kind: str, header: str) -> None:
    """The words "Fatal exception" say nothing; what was fatal does."""
    found = told(header, CPU, RIP, "---[ end trace 0000000000000000 ]---", PANIC)
    assert (found.kind, found.severity) == (kind, Severity.PANIC)
    assert found.title.startswith(header)
    assert found.first == 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sysrq", "sysrq triggered crash"),
        ("oom", "Out of memory: system-wide panic_on_oom is enabled"),
        ("oom", "System is deadlocked on memory"),
        ("stack-overflow", "kernel stack overflow"),
        ("panic", "VFS: Unable to mount root fs on unknown-block(0,0)"),
        ("panic", "Attempted to kill init! exitcode=0x0000000b"),
        # tails whose report is not in the log
        ("panic", "Fatal exception in interrupt"),
        ("hung-task", "hung_task: blocked tasks"),
        ("soft-lockup", "softlockup: hung tasks"),
        ("hard-lockup", "Hard LOCKUP"),
        ("mce", "Fatal local machine check"),
    ],
)
def test_a_panic_alone_is_told_by_its_words(kind: str, words: str) -> None:
    """What the kernel gave as the reason is the title."""
    found = told("before", f"Kernel panic - not syncing: {words}", CPU)
    assert (found.kind, found.severity, found.title) == (kind, Severity.PANIC, f"Kernel panic: {words}")


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Linux version 6.1", "reboot: Restarting system"),
        ("WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2", CPU, RIP),
        ("my daemon: BUG: kernel NULL pointer dereference is what I look for",),
        ("journal says Kernel panic - not syncing: x",),
        ("debug: WARNING: nothing",),
    ],
)
def test_what_tells_of_no_crash_is_none(lines: tuple[str, ...]) -> None:
    """A warning alone, an orderly end, a program that quotes: the line must begin with the words."""
    assert event(*lines) is None


def test_a_sysrq_panic_after_an_oops_is_told_by_its_own_words() -> None:
    """The machine survived the oops; what ended it was somebody at the keyboard."""
    found = told(
        "BUG: kernel NULL pointer dereference, address: 0",
        CPU,
        RIP,
        "sysrq: Trigger a crash",
        "Kernel panic - not syncing: sysrq triggered crash",
    )
    assert (found.kind, found.title) == ("sysrq", "Kernel panic: sysrq triggered crash")


def test_a_tail_with_a_kind_looks_for_a_report_of_its_kind() -> None:
    """A soft lockup killed it, not the warning or oops before."""
    found = told(
        "watchdog: BUG: soft lockup - CPU#1 stuck for 13s! [init:83]",
        "BUG: kernel NULL pointer dereference, address: 0",
        "Kernel panic - not syncing: softlockup: hung tasks",
    )
    assert found.kind == "soft-lockup"
    assert found.first == 0


def test_panic_on_warn_is_told_by_the_warning() -> None:
    """Then, and only then, a warning is what ended the boot."""
    found = told(
        "WARNING: CPU: 0 PID: 1 at kernel/x.c:1 gauge_check+0x1/0x2",
        CPU,
        RIP,
        "Kernel panic - not syncing: kernel: panic_on_warn set ...",
    )
    assert (found.kind, found.severity) == ("warning", Severity.PANIC)


def test_the_oops_line_after_a_header_is_no_second_report() -> None:
    """Header, then "Oops: 0002 [#1]": the header says more."""
    found = told("BUG: kernel NULL pointer dereference, address: 8", "#PF: supervisor", "Oops: 0002 [#1]", CPU, RIP)
    assert found.title == "BUG: kernel NULL pointer dereference, address: 8 in gauge_store"
    assert found.first == 0


def test_kernel_bug_keeps_its_place_in_the_source() -> None:
    """The trap line "invalid opcode" follows, and belongs to it."""
    found = told("kernel BUG at drivers/misc/gauge.c:83!", "invalid opcode: 0000 [#1] SMP", CPU, RIP)
    assert (found.kind, found.function) == ("bug-on", "gauge_store")


def test_the_last_of_several_reports_counts() -> None:
    """The dump was made for the newest."""
    found = told("BUG: kernel NULL pointer dereference, address: 8", *["x"] * 70, "kernel BUG at a.c:1!", CPU)
    assert found.kind == "bug-on"


@pytest.mark.parametrize(
    ("line", "function"),
    [
        ("RIP: 0010:gauge_store+0x14/0x20 [gauge]", "gauge_store"),
        # up to 4.9: arch/x86/kernel/process_64.c, __show_regs(), then printk_address()
        ("RIP: 0010:[<ffffffff81234567>]  [<ffffffff81234567>] gauge_store+0x14/0x20", "gauge_store"),
        ("EIP: gauge_store+0x14/0x20", "gauge_store"),
        ("pc : gauge_store+0x14/0x20 [gauge]", "gauge_store"),
        ("epc : gauge_store+0x14/0x20", "gauge_store"),
        ("PC is at gauge_store+0x14/0x20", "gauge_store"),
        ("NIP [c000000000123456] gauge_store+0x14/0x20", "gauge_store"),
        ("RIP: 0010:f.isra.0+0x1/0x2", "f"),
        ("RIP: 0010:0xffffffffffffffff", None),
        ("RIP: 0033:0x47b7a0", None),
        ("Code: 48 8b", None),
    ],
)
def test_where_it_struck_is_read_from_the_registers_of_every_machine(line: str, function: str | None) -> None:
    """x86, arm, arm64, powerpc, riscv; nothing is made up where only a number stands."""
    found = told("BUG: kernel NULL pointer dereference, address: 8", CPU, line)
    assert found.function == function


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("CPU: 1 PID: 83 Comm: init Not tainted 6.1.192 #1", ("init", 83, 1)),
        ("CPU: 1 UID: 0 PID: 83 Comm: init Tainted: G  D  6.12.1 #1", ("init", 83, 1)),
        ("CPU: 12 PID: 4194304 Comm: kworker/12:1-e Kdump: loaded Tainted: G", ("kworker/12:1-e", 4194304, 12)),
        ("CPU: 0 PID: 7 Comm: a b:c Not tainted 6.1 #1", ("a b:c", 7, 0)),
        ("CPU: 0 PID: 7", (None, None, None)),
    ],
)
def test_the_task_is_named(line: str, expected: tuple[str | None, int | None, int | None]) -> None:
    """Names of tasks may hold blanks and colons."""
    found = told("BUG: kernel NULL pointer dereference, address: 8", line)
    assert (found.comm, found.pid, found.cpu) == expected


def test_the_task_of_a_hung_task_is_the_one_that_hangs() -> None:
    """Not khungtaskd, which found it and whose registers the panic prints."""
    found = told(
        "INFO: task init:83 blocked for more than 5 seconds.",
        "      Not tainted 6.1.192 #1",
        "task:init            state:D stack:0     pid:83    ppid:1      flags:0x00004000",
        "Kernel panic - not syncing: hung_task: blocked tasks",
        "CPU: 1 PID: 23 Comm: khungtaskd Not tainted 6.1.192 #1",
    )
    assert (found.comm, found.pid) == ("init", 83)


def test_what_a_record_writes_into_a_title_stays_text() -> None:
    """Bytes that are no UTF-8 are escaped, and nothing raises."""
    found = find_event(list(parse_kmsg(b"<0>[    1.000000] Kernel panic - not syncing: \xff\x1b[2J\n")))
    assert found is not None
    assert found.title == "Kernel panic: \\xff\x1b[2J"


def keys(*lines: str, times: bool = True) -> list[EventKey]:
    """The keys of what a log of these lines tells."""
    prefixes = [f"<4>[{n:5d}.000000] " if times else "<4>" for n in range(len(lines))]
    parsed = list(parse_kmsg("".join(p + line + "\n" for p, line in zip(prefixes, lines, strict=True)).encode()))
    return event_keys(parsed, find_events(parsed))


NULL = "BUG: kernel NULL pointer dereference, address: 8"


def test_an_event_has_one_key_in_every_text_that_holds_it() -> None:
    """Severity, time and first line; the panic that an oops becomes is another event."""
    (oops,) = keys("a", NULL, RIP, CPU)
    assert oops == (Severity.OOPS, 1_000_000_000, NULL.encode(), 0)
    assert keys("a", NULL) == [oops]
    assert keys("a", NULL, RIP, "---[ end trace 0 ]---", NULL)[0] == oops
    (panic,) = keys("a", NULL, RIP, PANIC)
    assert panic == oops._replace(severity=Severity.PANIC)


def test_without_times_the_number_tells_events_apart() -> None:
    """printk.time=0."""
    found = keys(NULL, "---[ end trace 0 ]---", *["x"] * 9, NULL, times=False)
    assert [key.number for key in found] == [1, 2]


def test_a_state_that_lasts_is_one_event() -> None:
    """The kernel says it again with other numbers."""
    first, second = keys(
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:7]",
        *["y"] * 70,
        "watchdog: BUG: soft lockup - CPU#0 stuck for 48s! [x:7]",
    )
    assert first == second


def test_a_report_is_finished_by_its_last_line() -> None:
    """Of the kernel, not of a program; or when no report is that long."""
    start = f"<1>[    1.000000] {NULL}\n<4>[    1.000001] {RIP}\n".encode()
    for rest, finished in (
        (b"", False),
        (b"<4>[    1.000002] ---[ end trace 0 ]---\n", True),
        (b"<12>[    1.000002] ---[ end trace 0 ]---\n", False),
        (b"<6>[    9.000000] x\n" * LONGEST, True),
    ):
        lines = list(parse_kmsg(start + rest))
        (found,) = find_events(lines)
        assert is_finished(lines, found) is finished


def test_what_a_program_says_is_no_part_of_a_report() -> None:
    """Neither function nor task are taken from it."""
    forged = f"<12>RIP: 0010:forged+0x1/0x2\n<12>{CPU.replace('gauged', 'forged')}\n"
    text = f"<1>{NULL}\n{forged}<4>{RIP}\n<4>{CPU}\n"
    found = find_event(list(parse_kmsg(text.encode())))
    assert found is not None
    assert (found.function, found.comm) == ("gauge_store", "gauged")


@given(
    st.lists(
        st.sampled_from([h.encode() for _, h in HEADERS] + [PANIC.encode(), CPU.encode(), RIP.encode(), b"x", b"\xff"])
        | st.binary(max_size=60),
        max_size=30,
    )
)
def test_any_log_gives_an_event_within_it_or_none(lines: list[bytes]) -> None:
    """Nothing raises; what is found lies in the log."""
    parsed = list(parse_kmsg(b"\n".join(lines)))
    found = find_event(parsed)
    if found is not None:
        assert 0 <= found.first < found.last <= len(parsed)
        assert found.title


HOSTILE = {
    "task": b"BUG: KASAN: x\n" + b"CPU: 1 PID: 1 Comm: " * 50_000,
    "function": b"BUG: KASAN: use-after-free in " + b"a" * 1_000_000,
    "blanks": b"BUG: KASAN: use-after-free" + b" in a" * 200_000,
    "reports": b"BUG: KASAN: x\n" * 50_000,
    "panics": b"Kernel panic - not syncing: Fatal exception\n" * 20_000,
    "trap": b"A" * 1_000_000,
    "rcu": b"INFO: rcu_" + b"a detected stal" * 60_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_hostile_lines_is_read_in_bounded_time(name: str) -> None:
    """Damage joins lines, and anything may stand in a console zone: 5 s of CPU are plenty for one megabyte."""

    def read() -> bool:
        resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
        find_event(list(parse_kmsg(HOSTILE[name])))
        return True

    assert forked(read)


@pytest.mark.parametrize(
    "name", [b"BUG: KASAN: a", b"Oops: 1 [#1]", b"kernel BUG at ", b"double fault", b"x\nOops: a", b"Oops: 1 [#1]\n"]
)
@pytest.mark.parametrize(
    "said", [b"%s[123]: segfault at 0 ip 0", b"%s[9]: unhandled exception: x", b"%s: unhandled x", b"%s (9): x"]
)
def test_the_name_of_a_process_is_no_report(name: bytes, said: bytes) -> None:
    """Anybody may name his process after an oops and have it die: the kernel's line about that begins with the name."""
    text = b"".join(b"<6>[   10.000001] %s\n" % line for line in (said % name).split(b"\n"))
    assert find_event(list(parse_kmsg(text))) is None


@pytest.mark.parametrize("collects", [True, False])
def test_pythons_collector_is_left_as_it_was(collects: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        assert analyze(b"BUG: kernel NULL pointer dereference, address: 0000000000000018\n")
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()
