# SPDX-License-Identifier: Apache-2.0
"""Where work comes in: system calls, interrupts, queues; and what a task waits in.

A CPU that stalls stops anywhere in a loop, and its trace differs each time.  What stays the same is what it was asked
to do: the function just inside the system call, the work item, the softirq, or the operation that a file system,
protocol or driver has put into a table.
"""

from collections.abc import Callable, Sequence
from functools import cache

from pstored.oops.helpers import ALWAYS, Helper, is_helper
from pstored.oops.model import Frame
from pstored.oops.names import bare
from pstored.oops.words import Names, compile_names

_ENTRIES: Names = (
    (
        "arch/x86/entry",
        """
        do_syscall_* do_fast_syscall_* do_int80_* sysenter_* system_call* entry_SYSCALL* entry_SYSENTER* entry_INT80*
        int_ret_from_sys* tracesys* ia32_sys* cstar* x64_sys_call ia32_sys_call syscall_enter* syscall_trace*
        syscall_return* syscall_exit*
        """,
    ),
    ("arch/arm/kernel, arch/arm64/kernel", "ret_fast_syscall invoke_syscall el0_svc* do_el0_svc"),
    (
        "arch/*/kernel",
        """
        sysc_* handle_sys* ret_from_syscall linux_sparc_syscall* system_call_exception syscall_exit __do_syscall
        """,
    ),
    (
        "kernel/workqueue.c, kernel/kthread.c",
        """
        process_one_work process_scheduled_works worker_thread kthread kthreadd kthread_worker_fn ret_from_fork*
        ret_from_kernel_thread* smpboot_thread_fn
        """,
    ),
    (
        "kernel/softirq.c, kernel/time",
        """
        *do_softirq* handle_softirqs run_ksoftirqd irq_exit* tasklet_action* call_timer_fn expire_timers *run_timers
        run_timer_softirq hrtimer_run_softirq rcu_do_batch
        """,
    ),
    (
        "init/main.c, kernel/sched/idle.c",
        """
        start_secondary* cpu_startup_entry start_kernel secondary_startup_64* rest_init do_initcall* do_one_initcall
        kernel_init*
        """,
    ),
    (
        "fs/read_write.c, fs/ioctl.c, fs/open.c",
        """
        vfs_write* __vfs_write* vfs_read* __vfs_read* vfs_ioctl vfs_open vfs_iter_* do_iter_* new_sync_read
        new_sync_write call_read_iter call_write_iter do_vfs_ioctl do_dentry_open do_filp_open
        """,
    ),
    (
        "fs/proc, fs/kernfs, fs/sysfs, fs/debugfs, drivers/base/core.c, lib/kobject.c",
        """
        proc_reg_write proc_reg_read* proc_reg_*ioctl pde_* proc_sys_* kernfs_fop_write* kernfs_fop_read* sysfs_kf_*
        dev_attr_* drv_attr_* bus_attr_* kobj_attr_* full_proxy_* debugfs_attr_* simple_attr_*
        """,
    ),
    ("fs/file_table.c, kernel/task_work.c, kernel/exit.c", "__fput task_work_run exit_to_user* do_exit do_group_exit"),
    (
        "block/ioctl.c, mm/mmap.c, mm/memory.c",
        """
        blkdev_driver_ioctl blkdev_ioctl call_mmap mmap_region do_mmap* __do_fault
        """,
    ),
    (
        "net/socket.c, net/core/sock.c",
        """
        sock_sendmsg* __sock_sendmsg* sock_recvmsg* __sock_recvmsg* sock_release __sock_release sock_close sock_mmap
        sock_ioctl sock_do_ioctl compat_sock_ioctl sock_write_iter sock_read_iter sock_common_setsockopt
        sk_common_release kernel_setsockopt kernel_listen kernel_accept kernel_connect __sys_setsockopt __sys_listen*
        __sys_accept*
        """,
    ),
    ("net/core/dev.c", "*netif_receive_skb* net_rx_action __napi_poll"),
    ("net/core/rtnetlink.c, net/netfilter/nfnetlink.c", "rtnetlink_rcv* nfnetlink_rcv_msg"),
    (
        "system calls that call into a driver or protocol at once",
        """
        __x64_sys_ioctl __ia32_compat_sys_ioctl __do_sys_ioctl __se_sys_ioctl ksys_ioctl sys_ioctl SyS_ioctl
        SYSC_ioctl compat_SyS_ioctl compat_SYSC_ioctl __arm64_sys_ioctl __x64_sys_connect __sys_connect sys_connect
        SyS_connect SYSC_connect __x64_sys_socketpair __sys_socketpair SyS_socketpair SYSC_socketpair
        """,
    ),
)
#   A page fault of user space is an entry, too; one within a system call is not.
_FAULTS: Names = (
    ("mm/memory.c", "handle_mm_fault"),
    (
        "arch/*/mm/fault.c",
        """
        *do_page_fault page_fault exc_page_fault asm_exc_page_fault do_user_addr_fault do_mem_abort
        """,
    ),
)
#   They stand between an entry and what was queued there.
_PLUMBING: Names = (
    ("kernel/time/hrtimer.c, kernel/softirq.c", "__hrtimer_run_queues __run_hrtimer tasklet_action_common"),
)
#   Waiting for the other CPUs: what counts is that they do not answer.
_CROSS_CALLS: Names = (("kernel/smp.c", "smp_call_function* smp_call_on_cpu csd_lock_wait* on_each_cpu_cond_mask"),)
#   Where an interrupt came in: what is inside is the tick that noticed.
_INTERRUPTS: Names = (
    (
        "arch/x86/entry, arch/x86/kernel",
        """
        *apic_timer_interrupt* asm_sysvec_* sysvec_* *common_interrupt ret_from_intr reschedule_interrupt
        asm_call_on_stack asm_call_irq* asm_call_sysvec* asm_exc_nmi end_repeat_nmi nmi_restore retint_kernel do_IRQ
        """,
    ),
    (
        "arch/arm/kernel, arch/arm64/kernel",
        """
        __irq_svc gic_handle_irq el1_irq el1_interrupt el1h_64_irq generic_handle_arch_irq
        """,
    ),
    ("arch/powerpc/kernel", "decrementer_common* timer_interrupt hardware_interrupt_common* do_hard_irq*"),
    (
        "arch/*/kernel",
        """
        do_irq do_riscv_irq handle_riscv_irq handle_int except_vec_vi* handle_vint ext_int_handler io_int_handler
        do_ext_irq tl0_irq* tl1_irq*
        """,
    ),
)
#   Locks and grace periods that everybody waits for: what counts is who does not give them.
_BARRIERS: Names = (
    ("net/core/rtnetlink.c", "rtnl_lock* rtnl_net_lock*"),
    (
        "kernel/rcu, net/core/dev.c",
        """
        synchronize_rcu* synchronize_srcu* synchronize_sched* synchronize_net synchronize_irq
        """,
    ),
)


@cache
def _compiled(*tables: Names) -> Callable[[str], bool]:
    return compile_names(*tables)


def behind_interrupt(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The frames of what an interrupt interrupted, if the trace begins in its handler; all if there was none."""
    is_interrupt = _compiled(_INTERRUPTS)
    inside = False
    for n, frame in enumerate(frames):
        if frame.function is None:
            continue
        if is_interrupt(bare(frame.function)):
            inside = True
        elif inside:
            return frames[n:]
    outside = [n for n, frame in enumerate(frames) if frame.context in ("irq", "nmi")]
    return frames[outside[-1] + 1 :] if outside else frames


def inside_entry(frames: Sequence[Frame]) -> Frame | None:
    """The frame just inside the system call, work item or softirq; None if none of them is in the trace."""
    return _inside(frames, _compiled(_ENTRIES)) or _inside(frames, _compiled(_FAULTS))


def _inside(frames: Sequence[Frame], is_entry: Callable[[str], bool]) -> Frame | None:
    is_plumbing, is_cross_call = _compiled(_PLUMBING), _compiled(_CROSS_CALLS)
    inner: Frame | None = None
    for frame in frames:
        if frame.function is None:
            continue
        name = bare(frame.function)
        if is_cross_call(name):
            return frame
        if not is_entry(name):
            inner = inner if is_plumbing(name) else frame
        elif inner is not None:
            return inner
    return None


_WAITING = ALWAYS | {Helper.SLEEP, Helper.RCU, Helper.WAIT}


def waiting_in(frames: Sequence[Frame]) -> Frame | None:
    """What a task waits in: a lock or grace period that everybody waits for, else the function that waits."""
    is_barrier = _compiled(_BARRIERS)
    named = [frame for frame in frames if frame.function is not None and frame.reliable]
    for frame in named:
        if is_barrier(bare(frame.function or "").lstrip("_")):
            return frame
    return next((frame for frame in named if not is_helper(frame.function or "", _WAITING)), None)
