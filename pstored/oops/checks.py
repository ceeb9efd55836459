# SPDX-License-Identifier: Apache-2.0
"""First lines of what the kernel itself noticed: debuggers, BUG and WARN, locks, stalls, memory, panics."""

from pstored.oops.rule import FN, TASK, TRAP, WATCHDOG, WHERE, Role, Rule

# Most specific first among the rules of one anchor.
CHECKS: tuple[Rule, ...] = (
    # -- memory debuggers
    Rule(
        b"BUG",
        "kasan-uaf",
        rb"BUG: KAS[Aa][Nn]: [\w-]{0,40}?use[- ]after[- ]free(?:.{0,40}? in " + FN + rb")?",
        "mm/kasan/report.c",
    ),
    Rule(
        b"BUG",
        "kasan-oob",
        rb"BUG: KAS[Aa][Nn]: [\w-]{0,40}?out[- ]of[- ]bounds(?:.{0,40}? in " + FN + rb")?",
        "mm/kasan/report.c",
    ),
    Rule(b"BUG", "kasan-other", rb"BUG: KAS[Aa][Nn]:(?:.{0,80}? in " + FN + rb")?", "mm/kasan/report.c"),
    Rule(b"BUG", "kfence", rb"BUG: KFENCE: [^\n]{1,60}? in " + FN, "mm/kfence/report.c"),
    Rule(b"BUG", "kfence", rb"BUG: KFENCE: ", "mm/kfence/report.c"),
    Rule(b"BUG", "kmsan", rb"BUG: KMSAN: (?:[\w-]{1,40} in " + FN + rb")?", "mm/kmsan/report.c"),
    Rule(b"BUG", "kcsan", rb"BUG: KCSAN: (?:[^\n]{1,60}? in " + FN + rb")?", "kernel/kcsan/report.c"),
    Rule(
        b"KASAN: ",
        "kasan-other",
        rb"KASAN: [\w-]{1,20} ?[\w-]{1,40} in range \[0x(?P<address>[0-9a-f]{1,16})-",
        "mm/kasan/report.c, kasan_non_canonical_hook(): behind the line of the trap",
        TRAP,
    ),
    Rule(b"UBSAN: ", "ubsan", rb"UBSAN: ", "lib/ubsan.c"),
    Rule(b"BUG", "memleak", rb"BUG: memory leak", "mm/kmemleak.c, as its users print it"),
    Rule(
        b"unreferenced object 0x",
        "memleak",
        rb"(?:kmemleak: )?unreferenced object 0x(?P<address>[0-9a-f]{4,16})",
        "mm/kmemleak.c",
    ),
    # -- BUG() and WARN()
    Rule(b"BUG", "bug-on", rb"[kK]ernel BUG (?:at|in) ", "lib/bug.c"),
    Rule(
        b"WARNING: ",
        "lockdep",
        rb"WARNING: (?:possible |inconsistent lock|suspicious RCU|suspicious rcu_deref|bad unlock"
        rb"|bad contention|held lock freed|lock held when|[nN]ested lock"
        rb"|.{1,64}/\d{1,10} still has locks|SOFTIRQ-safe|HARDIRQ-safe|\S{1,30}-safe -> |unsafe lock"
        rb"|Nested|deadlock)",
        "kernel/locking/lockdep.c",
    ),
    Rule(
        b"WARNING: ",
        "warning",
        rb"WARNING: CPU: (?P<cpu>\d{1,5}) PID: (?P<pid>\d{1,10}) at (?:\S{1,300}:\d{1,7} )?(?:" + FN + rb")?",
        "kernel/panic.c, 3.11 to 6.16",
    ),
    Rule(
        b"WARNING: ",
        "warning",
        rb"WARNING: (?:at ?)?\S{1,300}:\d{1,7} (?:at )?" + FN + WHERE,
        "kernel/panic.c, before and since",
    ),
    Rule(
        b"WARNING: ", "warning", rb"WARNING: at ?\S{1,300}:\d{1,7}", "kernel/panic.c, before 3.11, other architectures"
    ),
    Rule(b"WARNING: ", "warning", rb"WARNING: kernel stack (?:regs|frame pointer) ", "arch/x86/kernel/unwind_frame.c"),
    Rule(b"unchecked MSR access", "warning", rb"unchecked MSR access error: ", "arch/x86/mm/extable.c"),
    Rule(
        b"WARNING: ",
        "warning",
        rb"WARNING: \[[^\n]{1,200}?\] \S{1,300}:\d{1,7} at " + FN + WHERE,
        "kernel/panic.c, since 6.18 with the condition",
    ),
    Rule(b"Bad", "warning", rb"Badness (?:at|in) ", "arch/powerpc/kernel/traps.c, lib/bug.c"),
    Rule(
        b"BUG",
        "warning",
        rb"BUG: warning at \S{1,300}:\d{1,7}/" + FN,
        "include/asm-generic/bug.h, 2.6.17 to 2.6.19",
    ),
    # -- locks
    Rule(
        b"INFO: ",
        "lockdep",
        rb"(?:\[ )?INFO: (?:possible |inconsistent lock|suspicious (?:RCU|rcu_deref)"
        rb"|trying to register non-static key|bad unlock|.{1,30}-safe -> .{1,30}-unsafe|unsafe lock"
        rb"|hard-safe|soft-safe)",
        "kernel/locking/lockdep.c",
    ),
    Rule(
        b"BUG",
        "lockdep",
        rb"(?:\[ )?BUG: (?:bad unlock balance|held lock freed|lock held|bad contention|[nN]ested lock"
        rb"|[\w/:.-]{1,64} still has locks|(?:\S{1,64}/\d{1,10} )?still has locks|MAX_"
        rb"|invalid wait context|Invalid wait context|workqueue leaked|key \S{1,32} (?:not in"
        rb"|has not been registered)|looking up invalid|possible )",
        "kernel/locking/lockdep.c, kernel/workqueue.c",
    ),
    Rule(b"BUG", "lockdep", rb"(?:\[ )?BUG: [Ii]nvalid wait context", "kernel/locking/lockdep.c"),
    Rule(b"BUG", "spinlock-bug", rb"BUG: (?:spinlock|rwlock|rt_mutex|mutex)", "kernel/locking/spinlock_debug.c"),
    Rule(
        b"BUG",
        "sleeping-in-atomic",
        rb"(?:\S{1,20}: )?BUG: (?:sleeping function called from|scheduling while atomic(?:: "
        + TASK
        + rb"/0x)?|scheduling with irqs disabled)",
        "kernel/sched/core.c",
    ),
    Rule(b"bad: scheduling", "sleeping-in-atomic", rb"bad: scheduling from the idle thread!", "kernel/sched/idle.c"),
    Rule(
        b"BUG",
        "preempt-debug",
        rb"BUG: using \S{1,60} in preemptible \[[0-9a-f]{1,16}\](?: code: " + TASK + rb"$)?",
        "lib/smp_processor_id.c",
    ),
    Rule(b"BUG", "preempt-debug", rb"BUG: assuming (?:atomic|non migratable) context at ", "kernel/sched/core.c"),
    # -- stalls
    Rule(
        b"BUG",
        "soft-lockup",
        WATCHDOG + rb"BUG: soft lockup(?: - CPU#(?P<cpu>\d{1,5}) stuck for \d{1,9}s! \[" + TASK + rb"\])?",
        "kernel/watchdog.c",
    ),
    Rule(
        b"BUG",
        "hard-lockup",
        rb"BUG: NMI Watchdog detected LOCKUP on CPU ?(?P<cpu>\d{1,5})",
        "arch/x86/kernel/nmi.c, up to 2.6.36",
    ),
    Rule(
        b"LOCKUP",
        "hard-lockup",
        WATCHDOG
        + rb"(?:CPU\d{1,5}: )?(?:Watchdog detected hard LOCKUP on cpu (?P<cpu>\d{1,5})|NMI Watchdog detected LOCKUP)",
        "kernel/watchdog.c",
    ),
    Rule(
        b"LOCKUP",
        "hard-lockup",
        rb"watchdog: CPU (?P<cpu>\d{1,5}) (?:detected hard LOCKUP on other|self-detected hard LOCKUP @ "
        rb"(?:" + FN + rb")?|Hard LOCKUP)",
        "arch/powerpc/kernel/watchdog.c",
    ),
    Rule(
        b"INFO: ",
        "rcu-stall",
        rb"(?:rcu: )?INFO: (?:\S{1,40} (?:self-)?detected (?:expedited )?stalls?|RCU detected CPU )",
        "kernel/rcu/tree_stall.h, kernel/rcutree.c",
    ),
    Rule(
        b"INFO: ",
        "hung-task",
        rb"INFO: task (?P<comm>.{1,64}):(?P<pid>\d{1,10}) (?:is )?(?:blocked (?:in I/O wait "
        rb"|on [^\n]{1,40} )?for more than|can't die for more than)",
        "kernel/hung_task.c",
    ),
    Rule(b"BUG", "workqueue-lockup", rb"BUG: workqueue lockup", "kernel/workqueue.c"),
    # -- memory management
    Rule(
        b"BUG",
        "bad-page",
        rb"BUG: (?:Bad (?:page|rss)|non-zero )(?:[^\n]{1,40} in process (?P<comm>.{1,64}?) )?",
        "mm/page_alloc.c, mm/memory.c, kernel/fork.c",
    ),
    Rule(b"Bad", "bad-page", rb"Bad page (?:state|map) in process", "mm/page_alloc.c, up to 2.6.28"),
    Rule(
        b"BUG",
        "slab-corruption",
        rb"BUG [\w:.,~()-]{1,80} ?\((?:Not tainted|Tainted: [^)\n]{1,80})\): (?!kasan)",
        "mm/slub.c",
    ),
    Rule(
        b"BUG",
        "slab-corruption",
        rb"BUG [\w:.,~-]{1,80}: (?:Object|Redzone|Poison|Padding|Freepointer|Wrong|Freechain|Invalid)",
        "mm/slub.c",
    ),
    Rule(b"INFO: ", "slab-corruption", rb"INFO: (?:Allocated|Freed) in " + FN, "mm/slub.c"),
    Rule(b"Slab corruption", "slab-corruption", rb"Slab corruption", "mm/slab.c"),
    Rule(b"slab error in", "slab-corruption", rb"slab error in ", "mm/slab.c"),
    Rule(b"invoked oom-killer", "oom", rb"(?P<comm>.{1,64}?) invoked oom-killer: ", "mm/oom_kill.c"),
    Rule(
        b"ut of memory",
        "oom",
        rb"(?:Memory cgroup o|O)ut of memory(?: \(\w{1,40}\))?: Kill"
        rb"(?:ed)? process (?P<pid>\d{1,10}),? \(?(?P<comm>[^),]{1,64})",
        "mm/oom_kill.c",
    ),
    # -- others
    Rule(
        b"unregister_netdevice",
        "other",
        rb"unregister_netdevice: waiting for \S{1,32} to become free",
        "net/core/dev.c",
    ),
    Rule(b"BUG", "other", rb"BUG: Dentry \S{1,80} {1,2}still in use", "fs/dcache.c"),
    Rule(b"BUG", "other", rb"(?:ALSA )?[\w/.-]{1,100}\.c:\d{1,6}: BUG", "sound/core/misc.c"),
    Rule(b"CFI failure", "other", rb"CFI failure (?:at " + FN + rb")?", "kernel/cfi.c"),
    Rule(
        b"Kernel ", "panic", rb"Kernel panic - not syncing(?:: ?(?P<words>[^\n]{0,400}))?", "kernel/panic.c", Role.PANIC
    ),
    Rule(b"Kernel ", "panic", rb"Kernel panic: (?P<words>[^\n]{0,400})", "kernel/panic.c, 2.4", Role.PANIC),
)
