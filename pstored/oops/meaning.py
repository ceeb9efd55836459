# SPDX-License-Identifier: Apache-2.0
"""Where a person looks next, by the kind of report: what holds for all of that kind, and nothing about the cause.

Goes with what the kind means (:data:`pstored.oops.kinds.KINDS`): the two lines that ``pstored show`` has of each.
"""

LOOK: dict[str, str] = {
    "null-deref": "at the function's source: the address is mostly the offset of a field in the missing structure",
    "paging-fault": "at the address and registers: one may have a fill pattern (6b6b: freed, 5a5a: not set)",
    "gpf": "at the registers: one that can be no address, or has a fill pattern (6b6b: freed, 5a5a: not set)",
    "double-fault": "at the stack pointer and the length of the trace: a fault on a stack that is used up ends so",
    "unhandled-fault": "at the fault's code and address: an address of a device points to its clock, power or driver",
    "stack-overflow": "at names that repeat in the trace, and at functions that move the stack pointer far",
    "divide-error": "at the function's divisions: by what, and who sets it; on x86 INT_MIN / -1 is one, too",
    "invalid-opcode": "at the Code: line: the byte in <> is where the processor stopped; on x86 0f 0b is a BUG()",
    "oops": "at the first line for the exception's name, and at the program counter",
    "bug-on": "at the file and line that it names: the condition there was found broken; who broke it was before",
    "warning": "at the file and line that it names: the condition there is what the kernel did not expect",
    "kasan-uaf": "at the traces behind 'Allocated by' and 'Freed by': the second says who freed it before it was used",
    "kasan-oob": "at the trace behind 'Allocated by', and how many bytes behind or before the object the access was",
    "kasan-other": "at the traces behind 'Allocated by' and 'Freed by', if there are any, and at the address",
    "kfence": "at the traces of who allocated and freed the object; KFENCE samples: other accesses went unseen",
    "kmsan": "at 'Uninit was created at' or 'Local variable': where the value came from that nobody had set",
    "kcsan": "at the two traces: each says who read or wrote the data, and whether it was marked",
    "ubsan": "at the file, line and values that it names",
    "memleak": "at the backtrace: who allocated it; kmemleak can be wrong where pointers are kept in disguise",
    "bad-page": "at the flags and counts behind 'page:', and at earlier reports: the damage is older than this",
    "slab-corruption": "at what the object was overwritten with, and who had it last; the damage is older than this",
    "lockdep": "at the chain of locks that it prints: each of the orders has its trace; it need not have hung yet",
    "spinlock-bug": "at the lock's .magic and .owner: dead4ead is right, another magic was overwritten or never set",
    "sleeping-in-atomic": "at in_atomic() and irqs_disabled(), and up the trace: where either was brought about",
    "preempt-debug": "at the caller: it needs preemption disabled, or the variant that copes without",
    "soft-lockup": "at the CPU's trace: the loop that it is in, or the lock that it waits for, and then who holds that",
    "hard-lockup": "at the CPU's trace: what it spins in; if that is a lock, at the other CPUs' for who holds it",
    "rcu-stall": "at the traces of the CPUs and tasks that it names, and whether the rcu kthread was starved",
    "hung-task": "at what the task waits in; 'Showing all locks held', if it is there, says who holds a lock",
    "workqueue-lockup": "at 'Showing busy workqueues': which work was in flight on the pool that is stuck",
    "mce": "at bank, status and address; rasdaemon and mcelog name the part; does it come again at one address?",
    "oom": "at 'Mem-Info' and the table of tasks: who had the memory, or what limit (memcg, node) was reached",
    "sysrq": "at who can write to /proc/sysrq-trigger or reach the console: the kernel did as it was told",
    "panic": "at the words behind 'Kernel panic - not syncing', and at the lines before them",
    "reboot": "at the last lines before it, the watchdogs, and the power: pstored boots says what is known",
    "other": "at its own words, and at the lines before it",
}

KWORKER = "kworker/"
"""Begins the names of the threads that run queued work; kernel/workqueue.c, create_worker()."""


def describe_task(comm: str, pid: int | None) -> str | None:
    """What a task is, where name and number tell; None where they do not."""
    if pid == 0:
        return "the idle task of its CPU: an interrupt ran, or nothing"
    if pid == 1:
        return "the first process, which must not end"
    if comm.startswith(KWORKER):
        return "a thread of the kernel that runs queued work"
    return None
