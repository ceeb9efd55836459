# SPDX-License-Identifier: Apache-2.0
"""One report of every architecture, written after the kernel's own show_regs() and dump_stack(), with all it says."""

from typing import Any, NamedTuple

import pytest

from pstored.oops import Event, Severity, analyze, principal


class Dialect(NamedTuple):
    """A report, and what an event of it must hold."""

    text: str
    expected: dict[str, Any]
    trace: list[str | None]


def the(text: str) -> Event:
    """The event that a text is about."""
    event = principal(analyze(text.encode()))
    assert event is not None
    return event


DIALECTS = {
    # arch/x86/mm/fault.c, show_fault_oops(); arch/x86/kernel/process_64.c, __show_regs(); since 5.1
    "x86-64": Dialect(
        """\
[   12.000001] BUG: kernel NULL pointer dereference, address: 0000000000000018
[   12.000002] #PF: supervisor read access in kernel mode
[   12.000003] #PF: error_code(0x0000) - not-present page
[   12.000004] PGD 0 P4D 0
[   12.000005] Oops: 0000 [#1] PREEMPT SMP NOPTI
[   12.000006] CPU: 3 PID: 4242 Comm: gauged Tainted: G        W  O       6.1.192 #1
[   12.000007] Hardware name: Board Maker Board Two/Three, BIOS 1.0 04/01/2014
[   12.000008] RIP: 0010:memcpy_erms+0x6/0x10
[   12.000009] Code: 90 90 eb 1e 0f 1f 00 48 89 f8 48 89 d1 <f3> a4 c3
[   12.000010] RSP: 0018:ffffc90000a3bd88 EFLAGS: 00010202
[   12.000011] RAX: ffff888003a10000 RBX: 0000000000000010 RCX: 0000000000000010
[   12.000012] CR2: 0000000000000018 CR3: 0000000003a4e000 CR4: 00000000000006f0
[   12.000013] Call Trace:
[   12.000014]  <TASK>
[   12.000015]  ? __die+0x23/0x70
[   12.000016]  gauge_show.isra.0+0x2a/0x60 [gauge]
[   12.000017]  ? __pfx_gauge_show+0x10/0x10 [gauge]
[   12.000018]  dev_attr_show+0x1a/0x40
[   12.000019]  do_syscall_64+0x38/0x90
[   12.000020]  entry_SYSCALL_64_after_hwframe+0x64/0xce
[   12.000021] RIP: 0033:0x7f0a5b1e2a90
[   12.000022]  </TASK>
[   12.000023] Modules linked in: gauge(O) nls_utf8 [last unloaded: dummy]
[   12.000024] ---[ end trace 0000000000000000 ]---
""",
        {
            "kind": "null-deref",
            "function": "gauge_show",
            "pc_function": "memcpy_erms",
            "comm": "gauged",
            "pid": 4242,
            "cpu": 3,
            "release": "6.1.192",
            "taint": "OW",
            "hardware": "Board Maker Board Two/Three, BIOS 1.0 04/01/2014",
            "address": 0x18,
            "modules": ("gauge", "nls_utf8"),
            "code": "90 90 eb 1e 0f 1f 00 48 89 f8 48 89 d1 <f3> a4 c3",
            "severity": Severity.OOPS,
            "damaged": (),
            "first": 0,
            "last": 24,
        },
        [
            "__die",
            "gauge_show.isra.0",
            "__pfx_gauge_show",
            "dev_attr_show",
            "do_syscall_64",
            "entry_SYSCALL_64_after_hwframe",
        ],
    ),
    # arch/x86/kernel/dumpstack.c up to 4.9: addresses in [<>], <IRQ> and <EOI>
    "x86-64 up to 4.9": Dialect(
        """\
[  512.000001] BUG: unable to handle kernel paging request at ffffc90000c0ffee
[  512.000002] IP: [<ffffffffa0012345>] gauge_isr+0x15/0x80 [gauge]
[  512.000003] PGD 3a4e067 PUD 0
[  512.000004] Oops: 0002 [#1] SMP
[  512.000005] CPU: 0 PID: 0 Comm: swapper/0 Not tainted 3.16.7 #1
[  512.000006] RIP: 0010:[<ffffffffa0012345>]  [<ffffffffa0012345>] gauge_isr+0x15/0x80 [gauge]
[  512.000007] Call Trace:
[  512.000008]  <IRQ>  [<ffffffff810c1c2d>] ? handle_irq_event_percpu+0x3d/0x190
[  512.000009]  [<ffffffff810c1dbd>] handle_irq_event+0x3d/0x60
[  512.000010]  <EOI>  [<ffffffff8101cec5>] default_idle+0x15/0xc0
[  512.000011] RIP  [<ffffffffa0012345>] gauge_isr+0x15/0x80 [gauge]
""",
        {
            "kind": "paging-fault",
            "function": "gauge_isr",
            "pc_function": "gauge_isr",
            "comm": "swapper/0",
            "pid": 0,
            "address": 0xFFFFC90000C0FFEE,
            "taint": "",
            "release": "3.16.7",
        },
        ["handle_irq_event_percpu", "handle_irq_event", "default_idle"],
    ),
    # arch/x86/kernel/process_32.c up to 3.x
    "i386": Dialect(
        """\
BUG: unable to handle kernel NULL pointer dereference at 00000004
IP: [<c0412345>] gauge_poll+0x5/0x40
*pde = 00000000
Oops: 0000 [#1] SMP
Pid: 512, comm: gauged Not tainted (2.6.32-21 #1) Board Two
EIP: 0060:[<c0412345>] EFLAGS: 00010246 CPU: 1
EIP is at gauge_poll+0x5/0x40
EAX: 00000000 EBX: f6a1c000 ECX: 00000000 EDX: 00000001
Call Trace:
 [<c0201234>] ? sys_poll+0x44/0xb0
 [<c0103456>] do_sys_poll+0x1f6/0x3a0
""",
        {
            "kind": "null-deref",
            "function": "gauge_poll",
            "comm": "gauged",
            "pid": 512,
            "release": "2.6.32-21",
            "address": 4,
        },
        ["sys_poll", "do_sys_poll"],
    ),
    # arch/arm/mm/fault.c, arch/arm/kernel/process.c, traps.c dump_backtrace_entry() since 5.15
    "arm": Dialect(
        """\
<1>[    5.100000] 8<--- cut here ---
<1>[    5.100001] Unable to handle kernel NULL pointer dereference at virtual address 00000010 when read
<1>[    5.100002] [00000010] *pgd=00000000
<0>[    5.100003] Internal error: Oops: 5 [#1] SMP ARM
<4>[    5.100004] CPU: 1 PID: 77 Comm: gauged Not tainted 6.6.2 #3
<4>[    5.100005] Hardware name: Generic DT based system
<4>[    5.100006] PC is at gauge_read+0x1c/0x54
<4>[    5.100007] LR is at vfs_read+0xa8/0x1f0
<4>[    5.100008] pc : [<c0612a4c>]    lr : [<c02f1a30>]    psr: 600f0013
<4>[    5.100009] sp : f0a55f20  ip : 00000000  fp : 00000000
<4>[    5.100010] r7 : 00000003  r6 : c1204f00  r5 : 00000000  r4 : c2a1d000
<4>[    5.100011]  gauge_read from vfs_read+0xa8/0x1f0
<4>[    5.100012]  vfs_read from ksys_read+0x5c/0xd8
<4>[    5.100013]  ksys_read from ret_fast_syscall+0x0/0x54
<0>[    5.100014] ---[ end trace 0000000000000000 ]---
""",
        {"kind": "null-deref", "function": "gauge_read", "comm": "gauged", "cpu": 1, "address": 0x10, "first": 0},
        ["gauge_read", "vfs_read", "ksys_read", "ret_fast_syscall"],
    ),
    # the same, 3.10 to 5.14
    "arm up to 5.14": Dialect(
        """\
[    5.100001] Unable to handle kernel paging request at virtual address dead0010
[    5.100002] pgd = c0004000
[    5.100003] Internal error: Oops: 805 [#1] PREEMPT ARM
[    5.100004] CPU: 0 PID: 1 Comm: swapper Not tainted 4.19.5 #1
[    5.100006] PC is at gauge_probe+0x8/0x30
[    5.100007] LR is at platform_drv_probe+0x48/0x98
[    5.100011] [<c0412a4c>] (gauge_probe) from [<c03f1a30>] (platform_drv_probe+0x48/0x98)
[    5.100012] [<c03f1a30>] (platform_drv_probe) from [<c03effff>] (really_probe+0x1f4/0x3c8)
""",
        {"kind": "paging-fault", "function": "gauge_probe", "address": 0xDEAD0010},
        ["gauge_probe", "platform_drv_probe", "really_probe"],
    ),
    # arch/arm64/mm/fault.c, die_kernel_fault(); arch/arm64/kernel/process.c, __show_regs()
    "arm64": Dialect(
        """\
[   33.000001][  T412] Unable to handle kernel paging request at virtual address dead000000000108
[   33.000002][  T412] Mem abort info:
[   33.000003][  T412]   ESR = 0x0000000096000044
[   33.000004][  T412] [dead000000000108] address between user and kernel address ranges
[   33.000005][  T412] Internal error: Oops: 0000000096000044 [#1] PREEMPT SMP
[   33.000006][  T412] CPU: 2 UID: 0 PID: 412 Comm: kworker/2:1 Tainted: G        W          6.12.1 #7
[   33.000007][  T412] Tainted: [W]=WARN
[   33.000008][  T412] Hardware name: Board Two (DT)
[   33.000009][  T412] pstate: 60000005 (nZCv daif -PAN -UAO -TCO -DIT -SSBS BTYPE=--)
[   33.000010][  T412] pc : __list_del_entry_valid+0x48/0xf0
[   33.000011][  T412] lr : gauge_work+0x2c/0x98 [gauge]
[   33.000012][  T412] x29: ffff80008286bd40 x28: 0000000000000000 x27: ffff0000c0a0e800
[   33.000013][  T412] Call trace:
[   33.000014][  T412]  __list_del_entry_valid+0x48/0xf0 (P)
[   33.000015][  T412]  gauge_work+0x2c/0x98 [gauge]
[   33.000016][  T412]  process_one_work+0x160/0x3a8
[   33.000017][  T412]  ret_from_fork+0x10/0x20
[   33.000018][  T412] Code: f9400401 d5033a9f (f9000420) aa0003e2
""",
        {
            "kind": "paging-fault",
            "function": "gauge_work",
            "pc_function": "__list_del_entry_valid",
            "release": "6.12.1",
            "taint": "W",
            "hardware": "Board Two (DT)",
            "address": 0xDEAD000000000108,
        },
        ["__list_del_entry_valid", "gauge_work", "process_one_work", "ret_from_fork"],
    ),
    # arch/riscv/mm/fault.c; arch/riscv/kernel/process.c, __show_regs()
    "riscv": Dialect(
        """\
[    8.000001] Unable to handle kernel access to user memory without uaccess routines at virtual address 00000100
[    8.000002] Oops [#1]
[    8.000003] CPU: 0 PID: 55 Comm: gauged Not tainted 6.6.0 #2
[    8.000004] Hardware name: riscv-virtio,qemu (DT)
[    8.000005] epc : gauge_write+0x14/0x40
[    8.000006]  ra : vfs_write+0xc2/0x3d0
[    8.000007] epc : ffffffff8060a5b0 ra : ffffffff801e7c1a sp : ff20000000a3bd20
[    8.000008]  gp : ffffffff8150f7b8 tp : ff60000003e4a640 t0 : 0000000000000000
[    8.000009] [<ffffffff8060a5b0>] gauge_write+0x14/0x40
[    8.000010] [<ffffffff801e7c1a>] vfs_write+0xc2/0x3d0
[    8.000011] [<ffffffff80003a92>] ret_from_exception+0x0/0x64
""",
        {"kind": "paging-fault", "function": "gauge_write", "address": 0x100, "comm": "gauged"},
        ["gauge_write", "vfs_write", "ret_from_exception"],
    ),
    # arch/powerpc/mm/fault.c, bad_page_fault(); arch/powerpc/kernel/process.c, show_regs(), show_stack()
    "powerpc": Dialect(
        """\
[   40.000001] BUG: Kernel NULL pointer dereference on write at 0x00000008
[   40.000002] Faulting instruction address: 0xc000000000a4b61c
[   40.000003] Oops: Kernel access of bad area, sig: 11 [#1]
[   40.000004] LE PAGE_SIZE=64K MMU=Radix SMP NR_CPUS=2048 NUMA pSeries
[   40.000005] CPU: 7 PID: 620 Comm: gauged Tainted: G           OE      6.4.0 #8
[   40.000006] NIP:  c000000000a4b61c LR: c000000000a4c310 CTR: 0000000000000000
[   40.000007] GPR00: c000000000a4c310 c00000000b207e70 c000000001222600 0000000000000008
[   40.000008] NIP [c000000000a4b61c] gauge_set+0x1c/0x80 [gauge]
[   40.000009] LR [c000000000a4c310] gauge_ioctl+0x50/0x120 [gauge]
[   40.000010] Call Trace:
[   40.000011] [c00000000b207e70] [c000000000a4b610] gauge_set+0x10/0x80 [gauge] (unreliable)
[   40.000012] [c00000000b207eb0] [c000000000a4c310] gauge_ioctl+0x50/0x120 [gauge]
[   40.000013] [c00000000b207ef0] [c00000000003e5b0] system_call_exception+0x150/0x2d0
""",
        {"kind": "null-deref", "function": "gauge_set", "cpu": 7, "taint": "EO", "address": 8},
        ["gauge_set", "gauge_ioctl", "system_call_exception"],
    ),
    # arch/s390/mm/fault.c, arch/s390/kernel/dumpstack.c, show_regs()
    "s390": Dialect(
        """\
[    2.000001] Unable to handle kernel pointer dereference in virtual kernel address space
[    2.000002] Failing address: 0000000000000000 TEID: 0000000000000803
[    2.000003] Fault in home space mode while using kernel ASCE.
[    2.000004] Oops: 0004 ilc:2 [#1] SMP
[    2.000005] CPU: 5 PID: 1201 Comm: gauged Not tainted 6.9.0 #1
[    2.000006] Hardware name: IBM 8561 T01 701 (LPAR)
[    2.000007] Krnl PSW : 0704e00180000000 000003ff9025b540 (gauge_open+0x20/0x60 [gauge])
[    2.000008]            R:0 T:1 IO:1 EX:1 Key:0 M:1 W:0 P:0 AS:3 CC:0 PM:0 RI:0 EA:3
[    2.000009] Krnl GPRS: 0000000000000000 0000000000000001 0000031f233186c9 0000000000000000
[    2.000010] Call Trace:
[    2.000011]  [<000003ff9025b540>] gauge_open+0x20/0x60 [gauge]
[    2.000012] ([<000003ff9025b538>] gauge_open+0x18/0x60 [gauge])
[    2.000013]  [<0000031f21a1e87b>] do_dentry_open+0x1aa/0x4e8
[    2.000014] Last Breaking-Event-Address:
[    2.000015]  [<0000031f21aaf3c1>] kasan_report+0x0/0x10
""",
        {"kind": "paging-fault", "function": "gauge_open", "comm": "gauged", "cpu": 5},
        ["gauge_open", "gauge_open", "do_dentry_open"],
    ),
    # arch/mips/mm/fault.c, arch/mips/kernel/traps.c
    "mips": Dialect(
        """\
[   71.000001] CPU 0 Unable to handle kernel paging request at virtual address 6fd12000, epc == 802285fc, ra == 802290c0
[   40.000002] Oops[#1]:
[   40.000003] CPU: 0 PID: 431 Comm: gauged Not tainted 5.10.7 #12
[   40.000004] $ 0   : 00000000 00000001 802285f8 6fd13000
[   40.000005] epc   : 802285fc gauge_flush+0x8/0x6c
[   40.000006] ra    : 802290c0 gauge_sync+0x124/0x1a4
[   40.000007] Call Trace:
[   40.000008] [<802285fc>] gauge_flush+0x8/0x6c
[   40.000009] [<802290c0>] gauge_sync+0x124/0x1a4
""",
        {"kind": "paging-fault", "function": "gauge_flush", "cpu": 0, "address": 0x6FD12000, "comm": "gauged"},
        ["gauge_flush", "gauge_sync"],
    ),
    # arch/sparc/mm/fault_64.c, arch/sparc/kernel/process_64.c
    "sparc": Dialect(
        """\
[   42.000001] Unable to handle kernel NULL pointer dereference
[   42.000002] tsk->{mm,active_mm}->context = 0000000000000071
[   42.000003] tsk->{mm,active_mm}->pgd = fff000000a365000
[   42.000004]               \\|/ ____ \\|/
[   42.000005] gauged(214): Oops [#1]
[   42.000006] CPU: 0 PID: 214 Comm: gauged Not tainted 6.1.0 #3
[   42.000007] TSTATE: 0000004411001602 TPC: 0000000000d5464c TNPC: 0000000000d54650 Y: 00000000    Not tainted
[   42.000008] TPC: <gauge_get+0x24/0x58>
[   42.000009] g0: fff000000b84de10 g1: 0000000000000000 g2: 000000000000006f g3: 000000002002b240
[   42.000010] RPC: <gauge_all+0x8/0x38>
[   42.000011] Call Trace:
[   42.000012] [<000000000064b3e0>] gauge_all+0x18/0x38
[   42.000013] [<0000000000406384>] linux_sparc_syscall+0x3c/0x4c
""",
        {"kind": "null-deref", "function": "gauge_get", "comm": "gauged", "pid": 214},
        ["gauge_all", "linux_sparc_syscall"],
    ),
    # arch/parisc/kernel/traps.c
    "parisc": Dialect(
        """\
[   60.000001] Backtrace:
[   60.000002] gauged (pid 512): Kernel Fault: Code=26 (Data memory access rights trap) at addr 0000000000000010
[   60.000003] CPU: 1 PID: 512 Comm: gauged Not tainted 6.1.0 #1
[   60.000004] r00-03  000000ff0905aa1e 0000000040b69830 000000004077f97c 0000001240dc5de0
[   60.000005]  IAOQ[0]: gauge_tick+0x5c/0x90
[   60.000006]  IAOQ[1]: gauge_tick+0x60/0x90
[   60.000007]  RP(r2): gauge_loop+0x20/0x60
[   60.000008] Backtrace:
[   60.000009]  [<00000000407813c4>] gauge_loop+0x20/0x60
[   60.000010]  [<000000004029c1d0>] kthread+0x134/0x140
""",
        {"kind": "paging-fault", "function": "gauge_tick", "comm": "gauged", "pid": 512},
        ["gauge_loop", "kthread"],
    ),
    # arch/loongarch/mm/fault.c, arch/loongarch/kernel/traps.c
    "loongarch": Dialect(
        """\
[    3.000001] CPU 1 Unable to handle kernel paging request at virtual address 00000028, era == 90000000a1b2c4, ra == 0
[    3.000002] Oops[#1]:
[    3.000003] CPU: 1 PID: 300 Comm: gauged Not tainted 6.6.0 #9
[    3.000004] pc 9000000000a1b2c4 ra 9000000000a1b2b0 tp 9000000102a00000 sp 9000000102a03d50
[    3.000005]    ra: 9000000000a1b2b0 gauge_all+0x30/0x80
[    3.000006]   ERA: 9000000000a1b2c4 gauge_one+0x14/0x40
[    3.000007]  CRMD: 000000b0 (PLV0 -IE -DA +PG DACF=CC DACM=CC -WE)
[    3.000008] Call Trace:
[    3.000009] [<9000000000a1b2c4>] gauge_one+0x14/0x40
[    3.000010] [<9000000000a1b2b0>] gauge_all+0x30/0x80
""",
        {"kind": "paging-fault", "function": "gauge_one", "cpu": 1, "address": 0x28},
        ["gauge_one", "gauge_all"],
    ),
    # arch/alpha/mm/fault.c, arch/alpha/kernel/traps.c
    "alpha": Dialect(
        """\
[    0.100001] Unable to handle kernel paging request at virtual address 0000000000000008
[    0.100002] gauged(31): Oops 0
[    0.100003] pc = [<fffffc0000d196f0>]  ra = [<fffffc0000d196e4>] ps = 0000    Not tainted
[    0.100004] pc is at gauge_map+0x40/0xd0
[    0.100005] ra is at gauge_map+0x34/0xd0
[    0.100006] v0 = fffffc000258b550  t0 = 0000000000000000  t1 = 0000000000000001
[    0.100007] Trace:
[    0.100008] [<fffffc0000421128>] do_one_initcall+0x48/0x1b0
""",
        {"kind": "paging-fault", "function": "gauge_map", "address": 8},
        ["do_one_initcall"],
    ),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_report_of_every_architecture_says_all_it_holds(name: str) -> None:
    """Kind, function, task, kernel, address, trace: read from the forms of that architecture."""
    event = the(DIALECTS[name].text)
    assert {key: getattr(event, key) for key in DIALECTS[name].expected} == DIALECTS[name].expected
    assert [frame.function for frame in event.call_trace] == DIALECTS[name].trace


@pytest.mark.parametrize("name", DIALECTS)
def test_a_report_is_one_event(name: str) -> None:
    """The line of die() that follows the header, and the program counter that is repeated, are no others."""
    assert len(analyze(DIALECTS[name].text.encode())) == 1


PREFIXES = {
    "none": "",
    "time": "[   12.345678] ",
    "level and time": "<4>[   12.345678] ",
    "time and task": "[   12.345678][ T4242] ",
    "task, printk.time=0": "[ T4242] ",
    "level and CPU, printk.time=0": "<4>[    C0] ",
    "level": "<4>",
    "syslog": "Nov 23 04:18:57 board kernel: [   12.345678] ",
    "syslog without times": "Nov 23 04:18:57 board kernel: ",
    "RFC 5424": "2026-11-23T04:18:57.123456+00:00 board kernel: [   12.345678] ",
    "journalctl -o short-monotonic": "[   12.345678] board kernel: ",
    "dmesg -T": "[Mon Nov 23 04:18:57 2026] ",
    "netconsole": "4,1234,12345678,-,caller=T4242;",
    "PREEMPT_RT": "[   12.345678] 003: ",
    "a login prompt before": "board login: [   12.345678] ",
    "messages lost before": "** 12 printk messages dropped ** [   12.345678] ",
}


def bare(text: str) -> list[str]:
    """Its lines without their prefixes."""
    return [line.split("] ", 1)[1] if "] " in line[:16] else line for line in text.splitlines()]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_it_is_the_same_report_behind_every_prefix(prefix: str, ending: str) -> None:
    """Syslog, journald, netconsole, consoles: what they put before does not change what is read."""
    lines = bare(DIALECTS["x86-64"].text)
    event = the("".join(PREFIXES[prefix] + line + ending for line in lines))
    wanted = the(DIALECTS["x86-64"].text)
    assert (event.kind, event.function, event.call_trace) == (wanted.kind, wanted.function, wanted.call_trace)
    assert (event.strict, event.loose) == (wanted.strict, wanted.loose)
    assert (event.comm, event.release, event.taint, event.modules) == ("gauged", "6.1.192", "OW", ("gauge", "nls_utf8"))


def test_frames_keep_what_the_line_says() -> None:
    """Offset, size, module, whether the kernel is sure, and on which stack."""
    event = the(DIALECTS["x86-64 up to 4.9"].text)
    frame = event.call_trace[0]
    assert (frame.address, frame.offset, frame.size, frame.reliable, frame.context) == (
        0xFFFFFFFF810C1C2D,
        0x3D,
        0x190,
        False,
        "irq",
    )
    assert event.call_trace[-1].context == "task"
    assert the(DIALECTS["arm64"].text).call_trace[1].module == "gauge"


@pytest.mark.parametrize(
    ("name", "register", "value"),
    [
        ("x86-64", "RAX", 0xFFFF888003A10000),
        ("i386", "EBX", 0xF6A1C000),
        ("arm", "r4", 0xC2A1D000),
        ("arm64", "x29", 0xFFFF80008286BD40),
        ("riscv", "sp", 0xFF20000000A3BD20),
        ("powerpc", "r1", 0xC00000000B207E70),
        ("s390", "r2", 0x0000031F233186C9),
        ("mips", "$2", 0x802285F8),
        ("sparc", "g2", 0x6F),
        ("parisc", "r0", 0xFF0905AA1E),
        ("alpha", "v0", 0xFFFFFC000258B550),
    ],
)
def test_registers_are_read(name: str, register: str, value: int) -> None:
    """By the names that the architecture gives them."""
    assert the(DIALECTS[name].text).registers[register] == value
