# SPDX-License-Identifier: Apache-2.0
"""What begins a report and what does not, where it ends, which lines and panics belong to it, whom it blames."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pstored.oops import KINDS, Event, Severity, analyze, explain_taint, principal
from pstored.oops.facts import TAINTS
from pstored.oops.headers import RULES, candidates, match_header
from pstored.oops.names import readable, strip_syscall
from pstored.oops.rule import Role, Rule


def events(*lines: str, start: float = 10.0, caller: str = "") -> list[Event]:
    """Of a log of these lines, a millisecond apart."""
    text = "".join(f"[{start + n / 1000:12.6f}]{caller} {line}\n" for n, line in enumerate(lines))
    return analyze(text.encode())


def only(*lines: str) -> Event:
    """The one event of a log."""
    (event,) = events(*lines)
    return event


# -- headers


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.kind}: {rule.pattern.decode()[:40]}")
@settings(max_examples=25)
@given(data=st.data())
def test_every_line_that_a_rule_fits_holds_its_anchor(rule: Rule, data: st.DataObject) -> None:
    """So that no report is lost by looking only at the lines that hold an anchor."""
    line = data.draw(st.from_regex(b"\\A(?:" + rule.pattern + b")"))
    assert rule.anchor in line
    anchors = [anchor for _, anchor in candidates(b"<0>" + line)]
    assert rule.anchor in anchors
    assert match_header(line, anchors) is not None


def test_every_rule_names_a_kind_that_is_explained_and_a_file_of_the_kernel() -> None:
    """The table is data that a person can check."""
    for rule in RULES:
        assert rule.kind in KINDS, rule
        assert rule.source, rule


HEADERS = [
    ("warning", "WARNING: CPU: 1 PID: 83 at drivers/misc/gauge.c:12 gauge_check+0x1/0x2 [gauge]", "gauge_check"),
    ("warning", "WARNING: CPU: 1 PID: 83 at gauge_check+0x1/0x2 [gauge]", "gauge_check"),
    ("warning", "WARNING: drivers/misc/gauge.c:12 at gauge_check+0x1/0x2 [gauge], CPU#1: gauged/83", "gauge_check"),
    ("warning", "WARNING: [!ready] drivers/misc/gauge.c:12 at gauge_check+0x1/0x2, CPU#1: gauged/83", "gauge_check"),
    ("warning", "WARNING: at drivers/misc/gauge.c:12 gauge_check+0x1/0x2 [gauge]()", "gauge_check"),
    ("warning", "WARNING: at arch/powerpc/platforms/pseries/gauge.c:390", None),
    ("warning", "Badness at drivers/misc/gauge.c:12", None),
    ("lockdep", "WARNING: possible circular locking dependency detected", None),
    ("lockdep", "[ INFO: possible recursive locking detected ]", None),
    ("lockdep", "WARNING: inconsistent lock state", None),
    ("lockdep", "WARNING: suspicious RCU usage", None),
    ("lockdep", "[ BUG: bad unlock balance detected! ]", None),
    ("lockdep", "[ BUG: Invalid wait context ]", None),
    ("lockdep", "WARNING: gauged/83 still has locks held!", None),
    ("lockdep", "INFO: trying to register non-static key.", None),
    ("lockdep", "BUG: MAX_LOCKDEP_CHAINS too low!", None),
    ("kasan-uaf", "BUG: KASAN: slab-use-after-free in gauge_show+0x14/0x20 [gauge]", "gauge_show"),
    ("kasan-oob", "BUG: KASAN: stack-out-of-bounds in gauge_show+0x14/0x20", "gauge_show"),
    ("kasan-other", "BUG: KASAN: double-free or invalid-free in gauge_free+0x14/0x20", "gauge_free"),
    ("kasan-other", "BUG: KASAN: wild-memory-access on address 0dead4ead0000000", None),
    ("kfence", "BUG: KFENCE: out-of-bounds read in gauge_show+0x14/0x20", "gauge_show"),
    ("kmsan", "BUG: KMSAN: uninit-value in gauge_show+0x14/0x20", "gauge_show"),
    ("kcsan", "BUG: KCSAN: data-race in gauge_show / gauge_store", "gauge_show"),
    ("ubsan", "UBSAN: shift-out-of-bounds in drivers/misc/gauge.c:12:5", None),
    ("memleak", "unreferenced object 0xffff888003a10000 (size 64):", None),
    ("bad-page", "BUG: Bad page state in process gauged  pfn:1234", None),
    ("bad-page", "BUG: Bad rss-counter state mm:00000000 type:MM_ANONPAGES val:2", None),
    ("slab-corruption", "BUG kmalloc-64 (Not tainted): Poison overwritten", None),
    ("slab-corruption", "BUG gauge_cache: Objects remaining on kmem_cache_close()", None),
    ("spinlock-bug", "BUG: spinlock bad magic on CPU#0, gauged/83", None),
    ("spinlock-bug", "BUG: rwlock wrong owner on CPU#0, gauged/83", None),
    ("sleeping-in-atomic", "BUG: scheduling while atomic: gauged/83/0x00000002", None),
    ("preempt-debug", "BUG: using smp_processor_id() in preemptible [00000000] code: gauged/83", None),
    ("rcu-stall", "rcu: INFO: rcu_preempt self-detected stall on CPU", None),
    ("rcu-stall", "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 1-...D", None),
    ("rcu-stall", "INFO: rcu_tasks detected stalls on tasks:", None),
    ("hung-task", "INFO: task gauged:83 blocked for more than 120 seconds.", None),
    ("hung-task", "INFO: task gauged:83 blocked in I/O wait for more than 120 seconds.", None),
    ("workqueue-lockup", "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 41s!", None),
    ("hard-lockup", "watchdog: CPU 3 self-detected hard LOCKUP @ gauge_poll+0x10/0x20", None),
    ("hard-lockup", "watchdog: Watchdog detected hard LOCKUP on cpu 3", None),
    ("oom", "gauged invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", None),
    ("mce", "mce: [Hardware Error]: CPU 2: Machine Check Exception: 5 Bank 4: b200000000070005", None),
    ("mce", "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1", None),
    ("gpf", "Oops: general protection fault, probably for non-canonical address 0xdead4ead00000000: 0000 [#1]", None),
    ("gpf", "segment-related general protection fault: 206c [#1] PTI", None),
    ("divide-error", "Oops: divide error: 0000 [#1] SMP", None),
    ("divide-error", "fixpoint divide exception: 0009 ilc:1 [#1] SMP", None),
    ("invalid-opcode", "Oops - illegal instruction [#1]", None),
    ("invalid-opcode", "Internal error: Oops - undefined instruction: 0 [#1] SMP ARM", None),
    ("bug-on", "Kernel BUG [#1]", None),
    ("bug-on", "Kernel bug detected[#1]:", None),
    ("double-fault", "PANIC: double fault, error_code: 0x0", None),
    ("stack-overflow", "Insufficient stack space to handle exception!", None),
    ("stack-overflow", "BUG: IRQ stack guard page was hit at 00000000abcd (stack is 0..1)", None),
    ("unhandled-fault", "Unhandled fault: imprecise external abort (0x406) at 0x00000000", None),
    ("unhandled-fault", "SError Interrupt on CPU1, code 0x00000000be000411 -- SError", None),
    ("unhandled-fault", "Internal error: synchronous external abort: 0000000096000010 [#1] PREEMPT SMP", None),
    ("unhandled-fault", "Kernel unaligned access at TPC[7b1c20] gauge_read+0x40/0x80", "gauge_read"),
    ("oops", "gauged(83): Kernel bad sw trap 5 [#1]", None),
    ("kasan-uaf", "BUG: KASan: use after free in gauge_show+0x14/0x20 at addr ffff880000000000", "gauge_show"),
    ("kasan-other", "Internal error: Oops - KASAN: 00000000f2000902 [#1] PREEMPT SMP", None),
    ("ubsan", "Internal error: UBSAN: integer subtraction overflow: 00000000f2005515 [#1] SMP", None),
    ("warning", "unchecked MSR access error: WRMSR to 0x1b0 (tried to write 0x6) at rIP: 0xffffffff8107", None),
    ("sleeping-in-atomic", "bad: scheduling from the idle thread!", None),
    ("hard-lockup", "watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 4", None),
    ("rcu-stall", "INFO: RCU detected CPU 0 stall (t=2500 jiffies)", None),
    ("unhandled-fault", "BUG: Unable to handle kernel unaligned access at 0xc000000000000123", None),
    ("unhandled-fault", "Unable to handle kernel paging request for unaligned access at address 0x00000123", None),
    ("unhandled-fault", "Unable to handle kernel synchronous tag check fault at virtual address f0ff000002b", None),
    ("unhandled-fault", "Internal error: level 2 address size fault: 0000000096000002 [#1] PREEMPT SMP", None),
    ("unhandled-fault", "Kernel ale access[#1]:", None),
    ("oops", "Unhandled 64-bit el1h sync exception on CPU2, ESR 0x0000000002000000 -- BTI", None),
    ("oops", "gauged (pid 83): Protection id trap (code 7)", None),
    ("invalid-opcode", "Internal error: Oops - Undefined instruction: 0000000002000000 [#1] SMP", None),
    ("stack-overflow", "Oops: stack guard page: 0000 [#1] SMP NOPTI", None),
    ("stack-overflow", "Internal error: kernel stack overflow: 0 [#1] SMP ARM", None),
    ("mce", "MCE: CPU5: machine check (Severe) Host UE Load/Store [Not recovered]", None),
    ("mce", "mce: CPUs not responding to MCE broadcast (may include false positives): 3", None),
    ("mce", "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1)", None),
    ("other", "unregister_netdevice: waiting for eth0 to become free. Usage count = 2", None),
    ("other", 'irq 11: nobody cared (try booting with the "irqpoll" option)', None),
]


@pytest.mark.parametrize(("kind", "line", "function"), HEADERS, ids=[line[:50] for _, line, _ in HEADERS])
def test_the_first_lines_of_reports_are_known(kind: str, line: str, function: str | None) -> None:
    """Of each kind, old forms and new ones, with the function that some of them name."""
    event = only("before", line, "after")
    assert (event.kind, event.function) == (kind, function)
    assert event.title.startswith(line)
    assert event.first == 1


FALSE_FRIENDS = [
    "WARNING: could not open configuration: see the man page",
    "WARNING: The mand mount option has been deprecated and",
    "INFO: lockdep is turned off.",
    "INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.2 msecs",
    "rcu: INFO: Stall ended before state dump start",
    "DEBUG: #03 pc 0000000000012340  /system/lib64/libgauge.so",
    "camera: INFO: check done",
    "BUG gauge_cache (Not tainted): kasan: bad access detected",
    "ODEBUG: Out of memory. ODEBUG disabled",
    "gauged[83]: segfault at 10 ip 0000000000401234 sp 00007ffc0a1b2c30 error 4 in gauged[401000+2000]",
    "traps: gauged[83] general protection fault ip:401234 sp:7ffc0a1b2c30 error:0 in gauged[401000+2000]",
    "traps: gauged[83] trap divide error ip:401234 sp:7ffc0a1b2c30 error:0 in gauged[401000+2000]",
    "gauged: Kernel panic - not syncing: what I was told to print",
    "audit: type=1400 msg='BUG: kernel NULL pointer dereference, address: 0'",
    "EXT4-fs (sda1): error count since last fsck: 3",
    "xfs: Unknown parameter 'Kernel panic - not syncing: x'",
    "Kernel command line: panic=1 oops=panic panic_on_warn=0",
    "mce: CPU supports 32 MCE banks",
    "Machine model: Board Two",
    "Unable to find a swap device",
    "Kernel Offset: disabled",
    "watchdog: Delayed init of the lockup detector failed: -19",
    "Oops handling: all tests passed",
    "warning: BUG: in the subject of a mail",
    "gauged (pid 83): Protection id trap (code 7) at 0x4012",
    "EDAC MC0: 1 CE memory read error on DIMM_A1",
    "EDAC MC: Ver: 3.0.0",
]


@pytest.mark.parametrize("line", FALSE_FRIENDS)
def test_false_friends_raise_nothing(line: str) -> None:
    """Words of reports in lines that begin none."""
    assert events("before", line, "after") == []


@pytest.mark.parametrize(
    "prefix", ["Nov 23 04:18:57 board gauged[83]: ", "2026-11-23T04:18:57.1+00:00 board gauged: ", "<12>"]
)
def test_what_a_program_says_is_no_report(prefix: str) -> None:
    """Its tag, or the facility of its line, says that the kernel did not write it."""
    assert analyze(f"{prefix}BUG: kernel NULL pointer dereference, address: 0\n".encode()) == []


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("Out of memory: Killed process 83 (gauged) total-vm:1kB, anon-rss:0kB", Severity.WARNING),
        ("mce: [Hardware Error]: Machine check events logged", Severity.WARNING),
        ("mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: 8c00004000010090", Severity.WARNING),
        ("mce: [Hardware Error]: CPU 2: Machine Check Exception: 5 Bank 4: b200000000070005", Severity.OOPS),
        ("Oops: Machine check, sig: 7 [#1]", Severity.OOPS),
        ("WARNING: possible circular locking dependency detected", Severity.WARNING),
        ("BUG: KCSAN: data-race in gauge_show / gauge_store", Severity.WARNING),
        ("Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled", Severity.PANIC),
    ],
)
def test_what_died_of_it_is_told(line: str, severity: Severity) -> None:
    """Nothing of a report after which the kernel goes on as before: it is no crash."""
    assert only(line).severity is severity


# -- bounds, tails, chains

TRACE = ("Call Trace:", " gauge_store+0x14/0x20 [gauge]", " vfs_write+0xc2/0x3d0", " do_syscall_64+0x38/0x90")


def test_a_report_begins_with_its_prelude_and_ends_with_its_mark() -> None:
    """``cut here`` before it and ``end trace`` behind it are its own."""
    event = only(
        "before",
        "------------[ cut here ]------------",
        "refcount_t: underflow; use-after-free.",
        "WARNING: CPU: 0 PID: 1 at lib/refcount.c:28 refcount_warn_saturate+0x1/0x2",
        *TRACE,
        "---[ end trace 0000000000000000 ]---",
        "after",
    )
    assert (event.first, event.last) == (1, 9)
    assert event.function == "gauge_store"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Fatal exception", "null-deref"),
        ("Fatal exception in interrupt", "null-deref"),
        ("Attempted to kill init! exitcode=0x00000009", "null-deref"),
        ("Aiee, killing interrupt handler!", "null-deref"),
        ("kernel: panic_on_warn set ...", "null-deref"),
    ],
)
def test_a_panic_that_only_says_fatal_is_a_tail(words: str, kind: str) -> None:
    """It belongs to the report before it, which then ended the machine."""
    event = only(
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "Oops: 0000 [#1] SMP",
        *TRACE,
        "---[ end trace 0000000000000000 ]---",
        f"Kernel panic - not syncing: {words}",
    )
    assert (event.kind, event.severity, event.tails) == (kind, Severity.PANIC, (words,))
    assert event.function == "gauge_store"


def test_init_that_exits_by_itself_is_a_panic_of_its_own() -> None:
    """Where no task was killed by an oops, nobody else is to blame."""
    found = events("WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2", "Kernel panic - not syncing: Attempted to kill init!")
    assert [(e.kind, e.severity) for e in found] == [("warning", Severity.WARNING), ("panic", Severity.PANIC)]


def test_what_is_left_of_a_report_before_its_panic_is_used() -> None:
    """A record that begins in the middle: the function is known, and that the beginning is missing is said."""
    event = only(
        " vfs_write+0xc2/0x3d0",
        "RIP: 0010:gauge_store+0x14/0x20 [gauge]",
        "---[ end trace 0000000000000000 ]---",
        "Kernel panic - not syncing: Fatal exception",
    )
    assert (event.kind, event.severity, event.function) == ("panic", Severity.PANIC, "gauge_store")
    assert event.damaged


def test_a_dump_without_the_first_line_of_its_report_is_still_a_crash() -> None:
    """The dump's header says what it was made for."""
    (event,) = analyze(b"Panic#2 Part1\n<4>[    1.000000]  vfs_write+0xc2/0x3d0\n")
    assert (event.kind, event.severity, event.title) == ("panic", Severity.PANIC, "Panic#2 Part1")
    assert event.damaged


def test_the_second_oops_of_a_disaster_is_not_principal() -> None:
    """It came of the first; one a minute later did not."""
    oops = ("BUG: kernel NULL pointer dereference, address: 0", "Oops: 0000 [#1] SMP", *TRACE, "---[ end trace 0 ]---")
    assert [e.principal for e in events(*oops, *oops)] == [True, False]
    assert [e.principal for e in events(*oops) + events(*oops, start=70.0)] == [True, True]


def test_what_the_log_is_about_is_its_first_report() -> None:
    """What comes after may have come of it."""
    found = events(HEADERS[0][1], *TRACE, "kernel BUG at a.c:1!", "invalid opcode: 0000 [#1]", *TRACE)
    event = principal(found)
    assert event is found[0]
    assert principal([]) is None


def test_lines_of_other_tasks_are_told_apart_by_the_caller() -> None:
    """With CONFIG_PRINTK_CALLER two reports that are printed at once do not mix."""
    text = (
        "[   10.000001][  T100] BUG: KASAN: slab-use-after-free in gauge_show+0x1/0x2\n"
        "[   10.000002][  T200] WARNING: CPU: 1 PID: 200 at drivers/misc/dial.c:7 dial_turn+0x1/0x2\n"
        "[   10.000003][  T100] CPU: 0 PID: 100 Comm: gauged Not tainted 6.1.0 #1\n"
        "[   10.000004][  T200] CPU: 1 PID: 200 Comm: diald Tainted: G        W 6.1.0 #1\n"
        "[   10.000005][  T100] Call Trace:\n"
        "[   10.000006][  T200] Call Trace:\n"
        "[   10.000007][  T100]  gauge_show+0x1/0x2\n"
        "[   10.000008][  T200]  dial_turn+0x1/0x2\n"
        "[   10.000009][  T100]  gauge_all+0x1/0x2\n"
        "[   10.000010][  T200]  dial_all+0x1/0x2\n"
    )
    first, second = analyze(text.encode())
    assert [f.function for f in first.call_trace] == ["gauge_show", "gauge_all"]
    assert [f.function for f in second.call_trace] == ["dial_turn", "dial_all"]
    assert (first.comm, second.comm, first.taint, second.taint) == ("gauged", "diald", "", "W")


def test_a_report_that_another_cuts_short_has_the_others_trace_and_says_so() -> None:
    """The same task, almost at the same place."""
    found = events(
        "BUG: KASAN: slab-out-of-bounds in memcpy+0x1/0x2",
        "general protection fault, probably for non-canonical address 0xdead4ead00000000: 0000 [#1] SMP",
        *TRACE,
    )
    assert [(e.kind, e.function) for e in found] == [("kasan-oob", "gauge_store"), ("gpf", "gauge_store")]
    assert any("another report" in doubt for doubt in found[0].damaged)


def test_a_report_without_a_trace_says_so() -> None:
    """The beginning of a report at the end of a zone."""
    assert only("BUG: kernel NULL pointer dereference, address: 0000000000000008").damaged == ("it has no call trace",)


def test_messages_that_damage_has_joined_are_taken_apart() -> None:
    """A capture that has lost newlines: each message begins with its time."""
    joined = "[   10.000002] R1: 0 [   10.000003] RIP: 0010:gauge_store+0x14/0x20 [gauge] [   10.000004] Call Trace:"
    event = only("BUG: kernel NULL pointer dereference, address: 8", joined)
    assert event.pc_function == "gauge_store"


# -- blame


@pytest.mark.parametrize(
    "helper",
    [
        "memcpy_erms",
        "__list_add_valid_or_report",
        "refcount_warn_saturate",
        "_raw_spin_lock_irqsave",
        "__mutex_lock.constprop.0",
        "__asan_load8",
        "kasan_check_range",
        "vsnprintf",
        "strnlen",
        "del_timer_sync",
        "_copy_from_user",
        "lock_acquire.part.0",
        "kobject_put",
        "debug_object_activate",
        "__warn",
        "asm_exc_page_fault",
        "el1h_64_sync_handler",
        "__sanitizer_cov_trace_pc",
    ],
)
def test_helpers_are_not_to_blame(helper: str) -> None:
    """Who called one is; where the processor was is kept."""
    event = only("Oops: 0000 [#1] SMP", f"RIP: 0010:{helper}+0x1/0x2", *TRACE)
    assert (event.function, event.pc_function) == ("gauge_store", helper)


def test_where_all_are_helpers_the_processor_was_there_after_all() -> None:
    """Nothing is made up."""
    event = only("Oops: 0000 [#1] SMP", "RIP: 0010:memcpy_erms+0x1/0x2", "Call Trace:", " memcpy+0x1/0x2")
    assert event.function == "memcpy_erms"


def test_unreliable_frames_are_not_to_blame() -> None:
    """They are only left on the stack."""
    event = only(
        "Oops: 0000 [#1]", "RIP: 0010:memcpy+0x1/0x2", "Call Trace:", " ? old_call+0x1/0x2", " gauge_get+0x1/0x2"
    )
    assert event.function == "gauge_get"


@pytest.mark.parametrize(
    ("frames", "function"),
    [
        (("spin+0x1/0x2", "gauge_loop+0x1/0x2", "__x64_sys_gauge+0x1/0x2", "do_syscall_64+0x1/0x2"), "gauge"),
        (("spin+0x1/0x2", "gauge_write+0x1/0x2", "vfs_write+0x1/0x2", "ksys_write+0x1/0x2"), "gauge_write"),
        (("spin+0x1/0x2", "gauge_sendmsg+0x1/0x2", "sock_sendmsg+0x1/0x2"), "gauge_sendmsg"),
        (("spin+0x1/0x2", "gauge_work+0x1/0x2", "process_one_work+0x1/0x2", "kthread+0x1/0x2"), "gauge_work"),
        (("spin+0x1/0x2", "gauge_tick+0x1/0x2", "call_timer_fn+0x1/0x2", "__do_softirq+0x1/0x2"), "gauge_tick"),
        (("spin+0x1/0x2", "smp_call_function_many+0x1/0x2", "flush+0x1/0x2"), "smp_call_function_many"),
    ],
)
def test_a_stall_is_blamed_on_what_is_inside_the_entry(frames: tuple[str, ...], function: str) -> None:
    """Not on where in its loop the CPU was, nor on the tick that noticed."""
    event = only(
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "CPU: 0 PID: 83 Comm: gauged Not tainted 6.1.0 #1",
        "Call Trace:",
        " <IRQ>",
        " dump_stack+0x1/0x2",
        " update_process_times+0x1/0x2",
        " asm_sysvec_apic_timer_interrupt+0x1/0x2",
        " </IRQ>",
        *(f" {frame}" for frame in frames),
    )
    assert event.function == function


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("rcu-stall", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
        ("soft-lockup", "watchdog: BUG: soft lockup - CPU#1 stuck for 7s! [sh:96]"),
    ],
)
@pytest.mark.parametrize("glue", ["proc_reg_write", "kernfs_fop_write_iter", "full_proxy_write"])
def test_what_hands_a_file_to_its_driver_is_not_what_stalls(kind: str, header: str, glue: str) -> None:
    """The driver's function is inside of it."""
    event = only(
        header,
        "CPU: 1 PID: 96 Comm: sh Not tainted 6.1.0 #1",
        "RIP: 0010:native_queued_spin_lock_slowpath+0x30/0x2a0",
        "Call Trace:",
        " _raw_spin_lock+0x25/0x30",
        " gauge_set+0x1/0x2 [gauge]",
        " gauge_write+0x1/0x2 [gauge]",
        f" {glue}+0x56/0xa0",
        " vfs_write+0xc7/0x3f0",
        " ksys_write+0x6b/0xf0",
        " do_syscall_64+0x5d/0xb0",
    )
    assert (event.kind, event.function) == (kind, "gauge_write")


def test_a_stack_is_used_up_by_what_calls_itself() -> None:
    """Or, where several call each other, by what the system call asked for."""
    header = ("BUG: TASK stack guard page was hit at 000000009fdcb162 (stack is 0000000086d5d0d4..0)",)
    inside = (" gauge_write+0x1/0x2", " proc_reg_write+0x1/0x2", " vfs_write+0x1/0x2", " do_syscall_64+0x1/0x2")
    pc = "RIP: 0010:gauge_walk+0x1f/0x50 [gauge]"
    event = only(*header, pc, "Call Trace:", *[" gauge_walk+0x2f/0x50 [gauge]"] * 30, *inside)
    assert event.function == "gauge_walk"
    event = only(*header, pc, "Call Trace:", *[" gauge_down+0x1/0x2", " gauge_walk+0x2f/0x50 [gauge]"] * 15, *inside)
    assert event.function == "gauge_write"


def test_the_kthread_of_rcu_is_not_what_stalls() -> None:
    """Its trace stands in the report of a stall that it could not end."""
    event = only(
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: RCU grace-period kthread stack dump:",
        "task:rcu_preempt     state:R  running task     stack:0     pid:15    ppid:2",
        "Call Trace:",
        " schedule_timeout+0x1/0x2",
        " rcu_gp_kthread+0x1/0x2",
        "NMI backtrace for cpu 0",
        "CPU: 0 PID: 83 Comm: gauged Not tainted 6.1.0 #1",
        "RIP: 0010:gauge_loop+0x1/0x2",
        "Call Trace:",
        " gauge_work+0x1/0x2",
        " process_one_work+0x1/0x2",
    )
    assert (event.function, event.comm) == ("gauge_work", "gauged")


@pytest.mark.parametrize(
    ("frames", "function"),
    [
        (("__schedule", "schedule", "wait_for_completion", "gauge_flush", "vfs_fsync"), "gauge_flush"),
        (("__schedule", "schedule", "io_schedule", "folio_wait_bit_common", "gauge_read"), "gauge_read"),
        (("__schedule", "schedule_preempt_disabled", "__mutex_lock", "rtnl_lock", "gauge_ioctl"), "rtnl_lock"),
        (("__schedule", "schedule", "synchronize_rcu_expedited", "gauge_exit"), "synchronize_rcu_expedited"),
    ],
)
def test_a_hung_task_is_blamed_on_what_it_waits_in(frames: tuple[str, ...], function: str) -> None:
    """Not on how it waits; a lock that everybody waits for is named itself."""
    event = only(
        "INFO: task gauged:83 blocked for more than 120 seconds.",
        "      Not tainted 6.1.0 #1",
        "task:gauged          state:D stack:0     pid:83    ppid:1      flags:0x00000000",
        "Call Trace:",
        *(f" {frame}+0x1/0x2" for frame in frames),
    )
    assert (event.function, event.comm, event.pid, event.release) == (function, "gauged", 83, "6.1.0")


def test_a_deadlock_is_blamed_on_who_takes_the_lock() -> None:
    """The function behind ``at:``; what the stack trace begins with only reports it."""
    event = only(
        "WARNING: possible circular locking dependency detected",
        "6.1.0 #1 Tainted: G        W",
        "gauged/83 is trying to acquire lock:",
        "ffff888003a10000 (&gauge->lock){+.+.}-{3:3}, at: gauge_set+0x2c/0x98 [gauge]",
        "but task is already holding lock:",
        "ffff888003a10100 (&dial->lock){+.+.}-{3:3}, at: dial_turn+0x2c/0x98",
        "stack backtrace:",
        "CPU: 0 PID: 83 Comm: gauged Tainted: G        W 6.1.0 #1",
        "Call Trace:",
        " dump_stack_lvl+0x1/0x2",
        " print_circular_bug+0x1/0x2",
    )
    assert (event.function, event.comm, event.pid, event.taint) == ("gauge_set", "gauged", 83, "W")


def test_a_leak_is_blamed_on_who_asked_for_the_memory() -> None:
    """Not on the allocators, whatever they are called."""
    event = only(
        "unreferenced object 0xffff888003a10000 (size 64):",
        '  comm "gauged", pid 83, jiffies 4294944192',
        "  backtrace:",
        "    [<00000000aaaaaaaa>] kmalloc_trace+0x1/0x2",
        "    [<00000000bbbbbbbb>] gauge_alloc_table+0x1/0x2",
        "    [<00000000cccccccc>] gauge_probe+0x1/0x2",
    )
    assert (event.function, event.address) == ("gauge_probe", 0xFFFF888003A10000)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("gauge_store", "gauge_store"),
        ("gauge_store.isra.0", "gauge_store"),
        ("gauge_store.constprop.0.cold", "gauge_store"),
        ("gauge_store.part.12", "gauge_store"),
        ("gauge_store.llvm.1234567890", "gauge_store"),
        ("gauge_store$abc", "gauge_store"),
        (".gauge_store", "gauge_store"),
        ("_RNvMs_NtCs8aB3d_5gauge4dialNtB5_4Dial4turn", "turn"),
        ("_ZN5gauge4dial4turn17h0123456789abcdefE", "turn"),
    ],
)
def test_names_are_read_without_what_compilers_add(symbol: str, name: str) -> None:
    """Suffixes of gcc and clang, ppc64's dot, rust's mangling, old and new."""
    assert readable(symbol) == name


@pytest.mark.parametrize(
    "symbol",
    ["__x64_sys_mount", "__ia32_sys_mount", "__arm64_sys_mount", "__se_sys_mount", "__do_sys_mount", "SyS_mount",
     "SYSC_mount", "ksys_mount", "sys_mount", "__s390x_sys_mount", "__riscv_sys_mount"],
)  # fmt: skip
def test_system_calls_are_named_without_their_wrappers(symbol: str) -> None:
    """The same on every architecture and kernel."""
    assert strip_syscall(symbol) == "mount"


def test_taint_is_explained() -> None:
    """Every letter of kernel/panic.c, and one that is not known yet."""
    assert explain_taint("OW") == [("O", TAINTS["O"]), ("W", TAINTS["W"])]
    assert explain_taint("?")[0][1]


def test_panics_are_no_reports() -> None:
    """Their rules are told apart."""
    assert {rule.role for rule in RULES if rule.kind == "panic"} == {Role.PANIC}


def test_a_function_named_after_oopses_may_be_to_blame() -> None:
    """Only the kernel's own oops_begin() and its like are helpers: a driver may call its functions so."""
    text = (
        b"<1>[    5.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000\n"
        b"<4>[    5.000002] Oops: 0002 [#1] PREEMPT SMP NOPTI\n"
        b"<4>[    5.000003] CPU: 0 PID: 1 Comm: sh Not tainted 6.12.0 #1\n"
        b"<4>[    5.000004] RIP: 0010:oops_write+0x5/0x10 [oops]\n"
        b"<4>[    5.000005] Call Trace:\n"
        b"<4>[    5.000006]  <TASK>\n"
        b"<4>[    5.000007]  proc_reg_write+0x5a/0xa0\n"
        b"<4>[    5.000008]  </TASK>\n"
    )
    (event,) = analyze(text)
    assert event.function == "oops_write"
