# SPDX-License-Identifier: Apache-2.0
"""Whom to blame: the function of a report that somebody should look at, and the frames that tell one bug from another.

A report names where the processor was, which is often in a helper: then it is the first function up the call trace
that is none.  A CPU or a task that hangs stops anywhere in a loop: there it is the function just inside the system
call, work item or softirq, which stays the same, or what the task waits for.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pstored.oops.helpers import ALWAYS, Helper, bare, is_helper
from pstored.oops.model import Frame

# -- names

_SYSCALL = re.compile(
    r"(?:__(?:x64|ia32|arm64|arm|s390x?|riscv|powerpc|se|do|loongarch)_)?"
    r"(?:(?:__)?(?:se_|do_)?(?:compat_)?sys_|compat_SyS_|compat_SYSC_|SyS_|SYSC_|__se_sys_|__do_sys_|ksys_)"
)
_LEGACY = re.compile(r"_?_ZN")
_RUST = re.compile(r"_R[A-Z]")
_DIGITS = re.compile(r"[0-9]{1,4}")


def readable(name: str) -> str:
    """A symbol as its source has it: no compiler suffix, a mangled rust name as its last part."""
    if _RUST.match(name) or _LEGACY.match(name):
        return _last_identifier(name) or name
    return bare(name)


def _last_identifier(name: str) -> str | None:
    """The last ``<length>name`` of a mangled symbol: the function itself (RFC 2603; before it, ``_ZN...17h<hash>E``)."""
    words = []
    at = 2
    while (found := _DIGITS.search(name, at)) is not None:
        length = int(found[0])
        start = found.end() + (name[found.end() : found.end() + 1] == "_")
        word = name[start : start + length]
        if 0 < length == len(word) and word.isidentifier():
            words.append(word)
            at = start + length
        else:
            at = found.end()
    if words and re.fullmatch(r"h[0-9a-f]{16}", words[-1]):
        words.pop()
    return words[-1] if words else None


# -- what is skipped, by kind

_EXTRA: dict[str, frozenset[Helper]] = {
    "sleeping-in-atomic": frozenset((Helper.SLEEP,)),
    "preempt-debug": frozenset((Helper.SLEEP,)),
    "memleak": frozenset((Helper.ALLOCATOR,)),
    "bad-page": frozenset((Helper.ALLOCATOR,)),
    "slab-corruption": frozenset((Helper.ALLOCATOR,)),
    "stack-overflow": frozenset(),
}


def skipped(kind: str, *more: Helper) -> frozenset[Helper]:
    """The groups of helpers that are not to blame in a report of a kind."""
    return ALWAYS | _EXTRA.get(kind, frozenset()) | frozenset(more)


def first_culprit(frames: Iterable[Frame], groups: frozenset[Helper]) -> Frame | None:
    """The first frame, from the innermost, that is no helper."""
    for frame in frames:
        if frame.function is not None and not is_helper(frame.function, groups):
            return frame
    return None


# -- stalls: the function inside the entry

#   Functions that call what a device, a protocol or a file system put into a table, and those that take work out of a
#   queue; the frame just inside is the one that tells hangs apart.
_ANCHORS = re.compile(
    "(?:"
    # kernel/entry, arch/*/entry: system calls
    r"do_syscall_|do_fast_syscall_|do_int80_|sysenter_|system_call|entry_SYSCALL|entry_SYSENTER|entry_INT80|int_ret_from_sys"
    r"|syscall_(?:enter|trace|return|exit)|tracesys|ia32_sys|cstar|invoke_syscall|el0_svc|ret_fast_syscall|do_el0_svc"
    r"|x64_sys_call|ia32_sys_call|sysc_|handle_sys|ret_from_syscall|linux_sparc_syscall|syscall_exit$|system_call_exception"
    # kernel/workqueue.c, kernel/kthread.c, kernel/softirq.c, kernel/time/timer.c
    r"|process_one_work|worker_thread|kthread$|kthreadd|ret_from_fork|ret_from_kernel_thread|smpboot_thread_fn"
    r"|(?:__)?do_softirq|handle_softirqs|run_ksoftirqd|call_timer_fn|(?:__)?run_timers|expire_timers|run_timer_softirq|tasklet_action"
    r"|__napi_poll|net_rx_action|(?:__)?netif_receive_skb|rcu_do_batch|irq_exit"
    r"|start_secondary|cpu_startup_entry|start_kernel|secondary_startup_64|rest_init|do_initcalls?$|do_one_initcall|kernel_init"
    # fs/read_write.c, fs/ioctl.c, fs/open.c, fs/file_table.c, mm/mmap.c
    r"|(?:__)?vfs_(?:write|read|ioctl|open|iter_read|iter_write|fsync|fallocate|statfs|mkdir|rmdir|unlink|rename|mount)|do_iter_|new_sync_(?:read|write)"
    r"|call_(?:read|write)_iter|call_mmap|mmap_region|do_mmap|do_dentry_open|do_filp_open|blkdev_driver_ioctl|blkdev_ioctl"
    r"|do_vfs_ioctl|__fput|task_work_run|exit_to_usermode|exit_to_user_mode|do_exit$|do_group_exit"
    # net/socket.c, net/netlink
    r"|sock_(?:sendmsg|recvmsg|release|mmap|do_ioctl|ioctl|common_setsockopt|write_iter|read_iter|close)|__sock_(?:sendmsg|release)"
    r"|compat_sock_ioctl|kernel_(?:setsockopt|listen|accept|connect)|__sys_(?:setsockopt|listen|accept)|sk_common_release"
    r"|____?sys_(?:sendmsg|recvmsg)|nfnetlink_rcv_msg|rtnetlink_rcv"
    r"|(?:__x64_sys_|__do_sys_|__se_sys_|__sys_|___sys_|sys_|SyS_|SYSC_|compat_S\w{2,3}_)(?:socketpair|connect|ioctl)"
    # mm/memory.c, arch/*/mm/fault.c
    r"|__do_fault|handle_mm_fault|do_page_fault|page_fault$|exc_page_fault|asm_exc_page_fault|do_user_addr_fault"
    ")"
)
#   Waiting for the other CPUs: what counts is that they do not answer.  kernel/smp.c
_CROSS_CALL = re.compile(r"smp_call_function|smp_call_on_cpu|on_each_cpu_cond_mask$|csd_lock_wait")
#   Where an interrupt came in: what is inside is the tick that noticed.
_INTERRUPT = re.compile(
    r"apic_timer_interrupt|smp_apic_timer_interrupt|asm_sysvec_|sysvec_|asm_common_interrupt|common_interrupt|ret_from_intr"
    r"|reschedule_interrupt|asm_call_on_stack|asm_call_irq|asm_exc_nmi|end_repeat_nmi|asm_call_sysvec|nmi_restore|retint_kernel|restore_regs"
    r"|el1_irq$|el1h_64_irq$|el1_interrupt|__irq_svc|irq_svc|gic_handle_irq|generic_handle_arch_irq|do_irq$|do_IRQ"
    r"|decrementer_common|timer_interrupt|hardware_interrupt_common|do_hard_irq|handle_int$|except_vec|handle_riscv_irq|do_riscv_irq"
    r"|ext_int_handler|io_int_handler|do_ext_irq|__do_softirq_own_stack_noop|tl0_irq|tl1_irq|handle_vint"
)


def behind_interrupt(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames of what an interrupt interrupted; all if there was none."""
    at = 0
    for n, frame in enumerate(frames):
        if frame.function is not None and _INTERRUPT.match(frame.function):
            at = n + 1
    if at:
        return frames[at:]
    outside = [n for n, frame in enumerate(frames) if frame.context in ("irq", "nmi")]
    return frames[outside[-1] + 1 :] if outside else frames


def inside_entry(frames: Sequence[Frame]) -> Frame | None:
    """The frame just inside the system call, work item or softirq; None if none of them is in the trace."""
    inner: Frame | None = None
    for frame in frames:
        if frame.function is None:
            continue
        if _CROSS_CALL.match(frame.function):
            return frame
        if inner is not None and _ANCHORS.match(frame.function):
            return inner
        if _ANCHORS.match(frame.function) is None:
            inner = frame
        else:
            inner = inner or None
    return None


def strip_syscall(name: str) -> str:
    """``mount`` of ``__x64_sys_mount``: the call's name, the same on every architecture and build."""
    short = _SYSCALL.sub("", name, count=1)
    return short if short and short != name else name


# -- tasks that hang

_WAITS = re.compile(
    r".*(?:sched|_lock|_slowlock|down|completion|kthread|wait|synchronize|context_switch|__switch_to|cancel_delayed_work)"
)
_BARRIERS = re.compile(r"rtnl_lock|rtnl_net_lock|synchronize_(?:rcu|srcu|net|sched|irq)|flush_work|rcu_barrier")


def hang(frames: Sequence[Frame]) -> Frame | None:
    """What a task waits in: a lock or grace period that everybody waits for, or who waits."""
    for frame in frames:
        if frame.function is not None and frame.reliable and _BARRIERS.match(frame.function.lstrip("_")):
            return frame
    for frame in frames:
        if frame.function is not None and frame.reliable and not _WAITS.match(frame.function):
            return frame
    return None


class Blamed(NamedTuple):
    """A function, and the frames from there on that tell this bug from others."""

    function: str | None
    frames: tuple[str, ...]
