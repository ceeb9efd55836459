# SPDX-License-Identifier: Apache-2.0
"""What begins a report: the kernel's first lines, what kind of report follows, and where the kernel prints them.

A header is told by its line's beginning, in the words of the printk() that writes it, so that a program which quotes
the kernel raises nothing.  Every rule names an anchor, a string that its line must hold: the anchors of all rules are
looked for in the whole text at once, and only the lines that hold one are looked at (see :func:`candidates`).
"""

import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import cache
from typing import NamedTuple


class Role(Enum):
    """How a line stands to the report around it."""

    REPORT = auto()
    """Begins one."""
    TRAP = auto()
    """The line of die() or its like: begins a report, unless a header stands right before it that it explains."""
    PANIC = auto()
    """``Kernel panic``; see pstored.oops.panics."""


class Rule(NamedTuple):
    """One kind of first line."""

    anchor: bytes
    kind: str
    pattern: bytes
    source: str
    """The file of the kernel that prints it."""
    role: Role = Role.REPORT


class Header(NamedTuple):
    """A first line that was found."""

    kind: str
    role: Role
    groups: dict[str, bytes]
    """``function``, ``address``, ``comm``, ``pid``, ``cpu``, where the line names them."""


_R, _T = Role.REPORT, Role.TRAP

# +0x12/0x34, in a group that names what it is of
_FN = rb"\.?(?P<function>[A-Za-z_$][\w$.]{0,511})\+0x[0-9a-f]+/0x[0-9a-f]+"
_ANY_FN = rb"\.?(?P<function>[A-Za-z_$][\w$.]{0,511})"
_AT = rb"(?:0x)?(?P<address>[0-9a-f]{4,16})"
_TASK = rb"(?P<comm>.{1,64}?)[:/](?P<pid>\d{1,10})"
_SLOT = rb"(?:CPU ?(?P<cpu>\d{1,5}):? )?"  # mips, loongarch, alpha
_WHO = rb"(?:(?P<comm>[^:]{1,64}?) ?\((?:pid )?(?P<pid>\d{1,10})\): )?"  # sparc, alpha, parisc
_WATCHDOG = rb"(?:NMI )?(?:watchdog: )?"

# Most specific first among the rules of one anchor.
RULES: tuple[Rule, ...] = (
    # -- memory debuggers
    Rule(b"BUG", "kasan-uaf", rb"BUG: KASA?N: \S*use[- ]after[- ]free(?! scope)(?:.{0,40}? in " + _ANY_FN + rb")?", "mm/kasan/report.c"),
    Rule(b"BUG", "kasan-oob", rb"BUG: KASAN: \S*out[- ]of[- ]bounds(?:.{0,40}? in " + _ANY_FN + rb")?", "mm/kasan/report.c"),
    Rule(b"BUG", "kasan-other", rb"BUG: KASA[nN]:(?:.{0,80}? in " + _ANY_FN + rb")?", "mm/kasan/report.c"),
    Rule(b"BUG", "kfence", rb"BUG: KFENCE: [^\n]{1,60}? in " + _ANY_FN, "mm/kfence/report.c"),
    Rule(b"BUG", "kfence", rb"BUG: KFENCE: ", "mm/kfence/report.c"),
    Rule(b"BUG", "kmsan", rb"BUG: KMSAN: (?:[\w-]{1,40} in " + _ANY_FN + rb")?", "mm/kmsan/report.c"),
    Rule(b"BUG", "kcsan", rb"BUG: KCSAN: (?:[^\n]{1,60}? in " + _ANY_FN + rb")?", "kernel/kcsan/report.c"),
    Rule(b"UBSAN: ", "ubsan", rb"UBSAN: ", "lib/ubsan.c"),
    Rule(b"BUG", "memleak", rb"BUG: memory leak", "mm/kmemleak.c, as its users print it"),
    Rule(b"unreferenced object 0x", "memleak", rb"(?:kmemleak: )?unreferenced object " + _AT, "mm/kmemleak.c"),
    # -- faults: x86
    Rule(b"BUG", "null-deref", rb"BUG: (?:unable to handle )?kernel NULL pointer dereference(?:,? address:| at) " + _AT, "arch/x86/mm/fault.c"),
    Rule(b"BUG", "null-deref", rb"BUG: (?:unable to handle )?kernel NULL pointer dereference", "arch/x86/mm/fault.c"),
    Rule(b"BUG", "paging-fault", rb"BUG: unable to handle (?:page fault for address:|kernel paging request at) " + _AT, "arch/x86/mm/fault.c"),
    Rule(b"BUG", "paging-fault", rb"BUG: unable to handle (?:page fault|kernel)", "arch/x86/mm/fault.c"),
    # -- faults: powerpc
    Rule(b"BUG", "null-deref", rb"BUG: Kernel NULL pointer dereference(?: on \w+)? at " + _AT, "arch/powerpc/mm/fault.c"),
    Rule(b"BUG", "null-deref", rb"BUG: Kernel NULL pointer dereference", "arch/powerpc/mm/fault.c"),
    Rule(b"BUG", "paging-fault", rb"BUG: Unable to handle (?:kernel|unaligned access)(?:[^\n]{1,60}? at " + _AT + rb")?", "arch/powerpc/mm/fault.c"),
    # -- faults: arm, arm64, riscv, s390, mips, loongarch, sparc, alpha, powerpc up to 5.1, x86 up to 2.6
    Rule(b"Unable to", "null-deref", _SLOT + rb"Unable to handle kernel NULL pointer dereference(?:[^\n]{0,60}? at (?:virtual )?(?:address )?" + _AT + rb")?", "arch/*/mm/fault.c"),
    Rule(b"Unable to", "unhandled-fault", rb"Unable to handle kernel unaligned access", "arch/riscv/kernel/traps_misaligned.c"),
    Rule(b"Unable to", "paging-fault", _SLOT + rb"Unable to handle (?:kernel )?(?:[a-z-]{1,20} ){1,9}(?:for (?:data|instruction) )?(?:at |in )?(?:virtual )?(?:user )?(?:address )?" + _AT, "arch/*/mm/fault.c"),
    Rule(b"Unable to", "paging-fault", _SLOT + rb"Unable to handle kernel (?:paging request|pointer dereference|access|instruction fetch|data|write|read|execution|execute)", "arch/*/mm/fault.c"),
    Rule(b"Fault in ", "paging-fault", rb"Fault in \S+ space mode while using kernel ASCE", "arch/s390/mm/fault.c", _T),
    Rule(b"Unhandled", "unhandled-fault", rb"Unhandled (?:fault|prefetch abort): [^\n]{1,80}? at " + _AT, "arch/arm/mm/fault.c"),
    Rule(b"Unhandled", "unhandled-fault", rb"Unhandled (?:fault|prefetch abort): ", "arch/arm/mm/fault.c"),
    Rule(b"Unhandled", "unhandled-fault", rb"Unhandled kernel unaligned access", "arch/mips/kernel/unaligned.c", _T),
    Rule(b"Alignment trap", "unhandled-fault", rb"Alignment trap: not handling instruction", "arch/arm/mm/alignment.c"),
    Rule(b"SError", "unhandled-fault", rb"SError Interrupt on CPU(?P<cpu>\d{1,5})", "arch/arm64/kernel/traps.c"),
    Rule(b"Bad", "unhandled-fault", rb"Bad mode in [\w ]{1,30} detected on CPU(?P<cpu>\d{1,5})[^\n]{0,60}SError", "arch/arm64/kernel/traps.c"),
    Rule(b"Bad", "oops", rb"Bad mode in [\w ]{1,30} detected", "arch/arm64/kernel/traps.c"),
    Rule(b"Kernel ", "unhandled-fault", rb"Kernel unaligned access at TPC\[[0-9a-f]{1,16}\] (?:" + _ANY_FN + rb")?", "arch/sparc/kernel/unaligned_64.c"),
    Rule(b"Kernel ", "paging-fault", _WHO + rb"Kernel Fault: Code=\d+[^\n]{0,80}?\(?[Aa]ddr=" + _AT, "arch/parisc/kernel/traps.c"),
    Rule(b"Kernel ", "paging-fault", _WHO + rb"Kernel Fault: ", "arch/parisc/kernel/traps.c", _T),
    Rule(b"Page fault: ", "paging-fault", rb"Page fault: (?:bad address|no context|fault above user)", "arch/parisc/kernel/traps.c"),
    Rule(b"Bad", "null-deref", rb"Bad Address \(null pointer deref\?\)(?::[^\n]{0,100}? at addr " + _AT + rb")?", "arch/parisc/kernel/traps.c"),
    Rule(b"Bad", "stack-overflow", rb"Bad kernel stack pointer ", "arch/powerpc/kernel/traps.c"),
    # -- stacks
    Rule(b"BUG", "stack-overflow", rb"BUG: (?:\S{1,20} )?stack guard page was hit", "arch/x86/kernel/dumpstack.c"),
    Rule(b"Insufficient", "stack-overflow", rb"Insufficient stack space to handle exception", "arch/arm64/kernel/traps.c, arch/riscv"),
    Rule(b"stack overflow", "stack-overflow", rb"[Kk]ernel stack overflow", "arch/x86/kernel/traps.c, arch/s390/kernel/nmi.c", _T),
    # -- traps: die() and its like
    Rule(b"PANIC: ", "double-fault", rb"(?:traps: )?PANIC: double fault", "arch/x86/kernel/traps.c", _T),
    Rule(b"[#", "double-fault", rb"(?:traps: )?(?:Oops: )?double fault", "arch/x86/kernel/traps.c", _T),
    Rule(b"rotection fault", "gpf", rb"(?:traps: )?(?:Oops: )?(?:segment-related )?general protection fault(?:[^\n]{0,60} address 0x(?P<address>[0-9a-f]{1,16}))?", "arch/x86/kernel/traps.c", _T),
    Rule(b"[#", "gpf", rb"(?:Oops: )?stack segment: [0-9a-f]{4} ", "arch/x86/kernel/traps.c", _T),
    Rule(b"[#", "divide-error", rb"(?:Oops: )?(?:divide[ _]error|(?:fixpoint|decimal) divide exception): ", "arch/x86/kernel/traps.c, arch/s390/kernel/traps.c", _T),
    Rule(b"[#", "invalid-opcode", rb"(?:Oops: )?invalid opcode: ", "arch/x86/kernel/traps.c", _T),
    Rule(b"[#", "invalid-opcode", rb"illegal op(?:eration|code): [0-9a-f]{4} ", "arch/s390/kernel/traps.c", _T),
    Rule(b"Oops", "invalid-opcode", rb"(?:Internal error: )?Oops - (?:undefined|illegal) instruction", "arch/arm/kernel/traps.c, arch/riscv/kernel/traps.c", _T),
    Rule(b"Oops", "bug-on", rb"(?:Internal error: )?Oops - BUG", "arch/arm/kernel/traps.c", _T),
    Rule(b"Oops", "paging-fault", rb"Oops: (?:Kernel access of bad area|Weird page fault)", "arch/powerpc/mm/fault.c", _T),
    Rule(b"Oops", "mce", rb"Oops: Machine check", "arch/powerpc/kernel/traps.c", _T),
    Rule(b"Oops", "paging-fault", rb"Oops - (?:load|store|instruction)[\w (/)]{0,30} access fault", "arch/riscv/kernel/traps.c", _T),
    Rule(b"Oops", "unhandled-fault", rb"Oops - (?:load|store|instruction)[\w (/)]{0,30} misaligned", "arch/riscv/kernel/traps.c", _T),
    Rule(b"Oops", "oops", _SLOT + _WHO + rb"(?:Internal error: )?Oops(?:\[#|[: ]{1,3}(?:\[#|[0-9A-Za-z-]))", "arch/*/kernel/traps.c", _T),
    Rule(b"Internal", "unhandled-fault", rb"Internal error: (?:synchronous|level \d synchronous|imprecise|precise|asynchronous)[\w -]{0,40} abort|Internal error: [\w -]{0,20}SError", "arch/arm64/mm/fault.c", _T),
    Rule(b"Internal", "oops", rb"Internal", "arch/arm64/kernel/traps.c", _T),
    Rule(b"[#", "bug-on", rb"Kernel (?:BUG|bug detected) ?\[#\d", "arch/riscv/kernel/traps.c, arch/mips/kernel/traps.c", _T),
    Rule(b"[#", "invalid-opcode", rb"Reserved instruction in kernel code ?\[#", "arch/mips/kernel/traps.c", _T),
    Rule(b"[#", "oops", _WHO + rb"(?:Kernel |Break |Trap |FPU |Unexpected )[\w ]{1,60}\[#\d", "arch/mips, arch/sparc/kernel/traps_64.c", _T),
    Rule(b"[#", "oops", rb"[A-Za-z][\w -]{2,40}: [0-9a-f]{4} (?:ilc:\d )?\[#\d{1,9}\]", "arch/x86/kernel/dumpstack.c, arch/s390/kernel/dumpstack.c", _T),
    Rule(b"[#", "oops", rb"[A-Za-z][\w :-]{2,60}\[#\d{1,9}\](?: (?:PREEMPT|SMP)|:|$)", "arch/*/kernel/traps.c", _T),
    # -- BUG() and WARN()
    Rule(b"BUG", "bug-on", rb"[kK]ernel BUG (?:at|in) ", "lib/bug.c"),
    Rule(b"WARNING: ", "lockdep", rb"WARNING: (?:possible |inconsistent lock|suspicious RCU|suspicious rcu_deref|bad unlock|bad contention|held lock freed|lock held when|[nN]ested lock|.{1,64}/\d{1,10} still has locks|SOFTIRQ-safe|HARDIRQ-safe|\S{1,30}-safe -> |unsafe lock|Nested|deadlock)", "kernel/locking/lockdep.c"),
    Rule(b"WARNING: ", "warning", rb"WARNING: CPU: (?P<cpu>\d{1,5}) PID: (?P<pid>\d{1,10}) at (?:\S{1,300}:\d{1,7} )?(?:" + _ANY_FN + rb")?", "kernel/panic.c, 3.11 to 6.16"),
    Rule(b"WARNING: ", "warning", rb"WARNING: (?:at ?)?\S{1,300}:\d{1,7} (?:at )?" + _ANY_FN + rb"(?:\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[[^\]]{1,80}\])?, CPU#(?P<cpu>\d{1,5}): (?P<comm>.{1,64})/(?P<pid>\d{1,10}))?", "kernel/panic.c, before and since"),
    Rule(b"WARNING: ", "warning", rb"WARNING: at ?\S{1,300}:\d{1,7}", "kernel/panic.c, before 3.11, other architectures"),
    Rule(b"WARNING: ", "warning", rb"WARNING: kernel stack (?:regs|frame pointer) ", "arch/x86/kernel/unwind_frame.c"),
    Rule(b"WARNING: ", "warning", rb"WARNING: \[[^\n]{1,200}?\] \S{1,300}:\d{1,7} at " + _ANY_FN + rb"(?:\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[[^\]]{1,80}\])?, CPU#(?P<cpu>\d{1,5}): (?P<comm>.{1,64})/(?P<pid>\d{1,10}))?", "kernel/panic.c, since 6.18 with the condition"),
    Rule(b"Bad", "warning", rb"Badness (?:at|in) ", "arch/powerpc/kernel/traps.c, lib/bug.c"),
    Rule(b"BUG", "warning", rb"BUG: warning at \S{1,300}:\d{1,7}/" + _ANY_FN, "include/asm-generic/bug.h, 2.6.17 to 2.6.19"),
    # -- locks
    Rule(b"INFO: ", "lockdep", rb"(?:\[ )?INFO: (?:possible |inconsistent lock|suspicious (?:RCU|rcu_deref)|trying to register non-static key|bad unlock|.{1,30}-safe -> .{1,30}-unsafe|unsafe lock|hard-safe|soft-safe)", "kernel/locking/lockdep.c"),
    Rule(b"BUG", "lockdep", rb"(?:\[ )?BUG: (?:bad unlock balance|held lock freed|lock held|bad contention|[nN]ested lock|[\w/:.-]{1,64} still has locks|(?:\S{1,64}/\d{1,10} )?still has locks|MAX_|invalid wait context|Invalid wait context|workqueue leaked|key \S{1,32} (?:not in|has not been registered)|looking up invalid|possible )", "kernel/locking/lockdep.c, kernel/workqueue.c"),
    Rule(b"BUG", "lockdep", rb"(?:\[ )?BUG: [Ii]nvalid wait context", "kernel/locking/lockdep.c"),
    Rule(b"BUG", "spinlock-bug", rb"BUG: (?:spinlock|rwlock|rt_mutex|mutex)", "kernel/locking/spinlock_debug.c"),
    Rule(b"BUG", "sleeping-in-atomic", rb"(?:\S{1,20}: )?BUG: (?:sleeping function called from|scheduling while atomic(?:: " + _TASK + rb"/0x)?|scheduling with irqs disabled)", "kernel/sched/core.c"),
    Rule(b"BUG", "preempt-debug", rb"BUG: using \S{1,60} in preemptible \[[0-9a-f]{1,16}\](?: code: " + _TASK + rb"$)?", "lib/smp_processor_id.c"),
    # -- stalls
    Rule(b"BUG", "soft-lockup", _WATCHDOG + rb"BUG: soft lockup(?: - CPU#(?P<cpu>\d{1,5}) stuck for \d{1,9}s! \[" + _TASK + rb"\])?", "kernel/watchdog.c"),
    Rule(b"BUG", "hard-lockup", rb"BUG: NMI Watchdog detected LOCKUP on CPU ?(?P<cpu>\d{1,5})", "arch/x86/kernel/nmi.c, up to 2.6.36"),
    Rule(b"LOCKUP", "hard-lockup", _WATCHDOG + rb"(?:Watchdog detected hard LOCKUP on cpu (?P<cpu>\d{1,5})|NMI Watchdog detected LOCKUP)", "kernel/watchdog.c"),
    Rule(b"LOCKUP", "hard-lockup", rb"watchdog: CPU (?P<cpu>\d{1,5}) (?:detected hard LOCKUP on other|self-detected hard LOCKUP @ (?:" + _ANY_FN + rb")?|Hard LOCKUP)", "arch/powerpc/kernel/watchdog.c"),
    Rule(b"INFO: ", "rcu-stall", rb"(?:rcu: )?INFO: \S{1,40} (?:self-)?detected (?:expedited )?stalls?", "kernel/rcu/tree_stall.h"),
    Rule(b"INFO: ", "hung-task", rb"INFO: task (?P<comm>.{1,64}):(?P<pid>\d{1,10}) (?:is )?(?:blocked (?:in I/O wait |on [^\n]{1,40} )?for more than|can't die for more than)", "kernel/hung_task.c"),
    Rule(b"BUG", "workqueue-lockup", rb"BUG: workqueue lockup", "kernel/workqueue.c"),
    # -- memory management
    Rule(b"BUG", "bad-page", rb"BUG: (?:Bad (?:page|rss)|non-zero )(?:[^\n]{1,40} in process (?P<comm>.{1,64}?) )?", "mm/page_alloc.c, mm/memory.c, kernel/fork.c"),
    Rule(b"Bad", "bad-page", rb"Bad page (?:state|map) in process", "mm/page_alloc.c, up to 2.6.28"),
    Rule(b"BUG", "slab-corruption", rb"BUG [\w:.,~()-]{1,80} ?\((?:Not tainted|Tainted: [^)\n]{1,80})\): (?!kasan)", "mm/slub.c"),
    Rule(b"BUG", "slab-corruption", rb"BUG [\w:.,~-]{1,80}: (?:Object |Redzone|Poison|Padding|Freepointer|Wrong|Freechain|Invalid)", "mm/slub.c"),
    Rule(b"INFO: ", "slab-corruption", rb"INFO: (?:Allocated|Freed) in " + _ANY_FN, "mm/slub.c"),
    Rule(b"Slab corruption", "slab-corruption", rb"Slab corruption", "mm/slab.c"),
    Rule(b"slab error in", "slab-corruption", rb"slab error in ", "mm/slab.c"),
    Rule(b"invoked oom-killer", "oom", rb"(?P<comm>.{1,64}?) invoked oom-killer: ", "mm/oom_kill.c"),
    Rule(b"ut of memory", "oom", rb"(?:Memory cgroup o|O)ut of memory(?: \(\w{1,40}\))?: Kill(?:ed)? process (?P<pid>\d{1,10}),? \(?(?P<comm>[^),]{1,64})", "mm/oom_kill.c"),
    # -- hardware
    Rule(b"Machine ", "mce", rb"(?:mce: )?\[Hardware Error\]: CPU (?P<cpu>\d{1,5}): Machine Check", "arch/x86/kernel/cpu/mce/core.c"),
    Rule(b"Machine ", "mce", rb"(?:mce: )?\[Hardware Error\]: Machine check events logged", "arch/x86/kernel/cpu/mce/dev-mcelog.c"),
    Rule(b"Machine ", "mce", rb"(?:HARDWARE ERROR\. )?CPU (?P<cpu>\d{1,5}): Machine Check Exception", "arch/x86/kernel/cpu/mce, up to 2.6.35"),
    Rule(b"Machine ", "mce", rb"(?:Machine check in kernel mode|(?:High|Low) Priority Machine Check|Machine Check Exception|Severe Machine check|Fatal Machine check)", "arch/powerpc, arch/parisc, arch/mips"),
    Rule(b"Hardware Error]", "mce", rb"(?:\{\d{1,9}\})?\[Hardware Error\]: Hardware error from APEI", "drivers/firmware/efi/cper.c"),
    Rule(b"nobody cared", "other", rb"irq \d{1,6}: nobody cared", "kernel/irq/spurious.c"),
    # -- others
    Rule(b"unregister_netdevice", "other", rb"unregister_netdevice: waiting for \S{1,32} to become free", "net/core/dev.c"),
    Rule(b"BUG", "other", rb"BUG: Dentry \S{1,80} {1,2}still in use", "fs/dcache.c"),
    Rule(b"BUG", "other", rb"(?:ALSA )?[\w/.-]{1,100}\.c:\d{1,6}: BUG", "sound/core/misc.c"),
    Rule(b"CFI failure", "other", rb"CFI failure (?:at " + _ANY_FN + rb")?", "kernel/cfi.c"),
    Rule(b"Kernel ", "panic", rb"Kernel panic - not syncing(?:: ?(?P<words>[^\n]{0,400}))?", "kernel/panic.c", Role.PANIC),
    Rule(b"Kernel ", "panic", rb"Kernel panic: (?P<words>[^\n]{0,400})", "kernel/panic.c, 2.4", Role.PANIC),
)

_ANCHORS = tuple(dict.fromkeys(rule.anchor for rule in RULES))
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_LONG = 10
"""From so many bytes on, find() passes some 4 GB/s: it looks at every n-th byte only."""
_FOUND = tuple(a for a in _ANCHORS if len(a) >= _LONG or not a[:1].isupper())


@cache
def _scanner() -> re.Pattern[bytes]:
    """One pass over a text for the short anchors, which begin with a capital; by first letter, for speed."""
    letters: dict[bytes, list[bytes]] = {}
    for anchor in _ANCHORS:
        if anchor not in _FOUND:
            letters.setdefault(anchor[:1], []).append(re.escape(anchor[1:]))
    return re.compile(b"|".join(first + b"(?:" + b"|".join(rest) + b")" for first, rest in letters.items()))


@cache
def _rules(anchor: bytes) -> tuple[tuple[Rule, re.Pattern[bytes]], ...]:
    return tuple((rule, re.compile(rule.pattern)) for rule in RULES if rule.anchor == anchor)


def candidates(text: bytes) -> list[tuple[int, bytes]]:
    """Where the anchors of all rules stand in a text, in order: offset and anchor; mostly nowhere."""
    found = [
        (at, m[0]) for m in _scanner().finditer(text) if not (at := m.start()) or text[at - 1] not in _WORD
    ]  # no DEBUG
    for anchor in _FOUND:
        at = text.find(anchor)
        while at >= 0:
            found.append((at, anchor))
            at = text.find(anchor, at + 1)
    found.sort()
    return found


def match_header(text: bytes, anchors: Iterable[bytes]) -> Header | None:
    """What a line is the first of, given the anchors that it holds; None if of nothing."""
    for anchor in anchors:
        for rule, pattern in _rules(anchor):
            if (found := pattern.match(text)) is not None:
                groups = {name: value for name, value in found.groupdict().items() if value is not None}
                return Header(rule.kind, rule.role, groups)
    return None
