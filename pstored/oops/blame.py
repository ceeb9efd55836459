# SPDX-License-Identifier: Apache-2.0
"""Whom to blame: the function of a report that somebody should look at, and the frames that tell one bug from another.

A report names where the processor was, which is often in a helper: then it is the first function up the call trace
that is none.  A CPU or a task that hangs stops anywhere in a loop: there it is the function just inside the system
call, work item or softirq, which stays the same, or what the task waits for.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pstored.oops.helpers import ALWAYS, Helper, is_helper
from pstored.oops.model import Frame

# -- what is skipped, by kind

_EXTRA: dict[str, frozenset[Helper]] = {
    "sleeping-in-atomic": frozenset((Helper.SLEEP, Helper.ALLOCATOR, Helper.PAGES)),
    "preempt-debug": frozenset((Helper.SLEEP,)),
    "memleak": frozenset((Helper.ALLOCATOR, Helper.PAGES, Helper.ALLOCATES)),
    "bad-page": frozenset((Helper.ALLOCATOR, Helper.PAGES)),
    "slab-corruption": frozenset((Helper.ALLOCATOR, Helper.PAGES)),
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
    r"|(?:__)?do_softirq|handle_softirqs|run_ksoftirqd|call_timer_fn|hrtimer_run_softirq|(?:__)?run_timers|expire_timers|run_timer_softirq|tasklet_action"
    r"|__napi_poll|net_rx_action|(?:__)?netif_receive_skb|rcu_do_batch|irq_exit"
    r"|start_secondary|cpu_startup_entry|start_kernel|secondary_startup_64|rest_init|do_initcalls?$|do_one_initcall|kernel_init"
    # fs/read_write.c, fs/ioctl.c, fs/open.c, fs/file_table.c, mm/mmap.c
    r"|(?:__)?vfs_(?:write|read|ioctl|open|iter_read|iter_write)|do_iter_|new_sync_(?:read|write)"
    r"|call_(?:read|write)_iter|call_mmap|mmap_region|do_mmap|do_dentry_open|do_filp_open|blkdev_driver_ioctl|blkdev_ioctl"
    r"|do_vfs_ioctl|__fput|task_work_run|exit_to_usermode|exit_to_user_mode|do_exit$|do_group_exit"
    # net/socket.c, net/netlink
    r"|sock_(?:sendmsg|recvmsg|release|mmap|do_ioctl|ioctl|common_setsockopt|write_iter|read_iter|close)|__sock_(?:sendmsg|release)"
    r"|compat_sock_ioctl|kernel_(?:setsockopt|listen|accept|connect)|__sys_(?:setsockopt|listen|accept)|sk_common_release"
    r"|nfnetlink_rcv_msg|rtnetlink_rcv"
    r"|(?:__x64_sys_|__ia32_compat_sys_|__do_sys_|__se_sys_|__sys_|___sys_|sys_|SyS_|SYSC_|compat_S\w{2,3}_)(?:socketpair|connect|ioctl)"
    # mm/memory.c
    r"|__do_fault"
    ")"
)
#   A page fault of user space is an entry, too; one within a system call is not.  mm/memory.c, arch/*/mm/fault.c
_FAULTS = re.compile(r"handle_mm_fault|do_page_fault|page_fault$|exc_page_fault|asm_exc_page_fault|do_user_addr_fault")
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


#   They stand between the entry and what was queued.
_PLUMBING = frozenset(("__hrtimer_run_queues", "tasklet_action_common", "__run_hrtimer"))


def behind_interrupt(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames of what an interrupt interrupted, if the trace begins in its handler; all if there was none."""
    inside = False
    for n, frame in enumerate(frames):
        if frame.function is None:
            continue
        if _INTERRUPT.match(frame.function):
            inside = True
        elif inside:
            return frames[n:]
    outside = [n for n, frame in enumerate(frames) if frame.context in ("irq", "nmi")]
    return frames[outside[-1] + 1 :] if outside else frames


def inside_entry(frames: Sequence[Frame]) -> Frame | None:
    """The frame just inside the system call, work item or softirq; None if none of them is in the trace."""
    return _inside(frames, _ANCHORS) or _inside(frames, _FAULTS)


def _inside(frames: Sequence[Frame], anchors: re.Pattern[str]) -> Frame | None:
    inner: Frame | None = None
    for frame in frames:
        if frame.function is None:
            continue
        if _CROSS_CALL.match(frame.function):
            return frame
        if anchors.match(frame.function) is None:
            inner = inner if frame.function in _PLUMBING else frame
        elif inner is not None:
            return inner
    return None


# -- tasks that hang

_WAITS = re.compile(
    r"do_read_cache_(?:page|folio)|.*(?:sched|_lock|_slowlock|down|completion|kthread|wait|synchronize|context_switch|__switch_to|cancel_delayed_work)"
)
_BARRIERS = re.compile(r"rtnl_lock|rtnl_net_lock|synchronize_(?:rcu|srcu|net|sched|irq)")


def hang(frames: Sequence[Frame]) -> Frame | None:
    """What a task waits in: a lock or grace period that everybody waits for, or who waits."""
    for frame in frames:
        if frame.function is not None and frame.reliable and _BARRIERS.match(frame.function.lstrip("_")):
            return frame
    for frame in frames:
        if frame.function is None or not frame.reliable or _WAITS.match(frame.function):
            continue
        if not is_helper(frame.function, ALWAYS | {Helper.RCU}):
            return frame
    return None


class Blamed(NamedTuple):
    """A function, and the frames from there on that tell this bug from others."""

    function: str | None
    frames: tuple[str, ...]
