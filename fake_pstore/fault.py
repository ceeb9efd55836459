# SPDX-License-Identifier: Apache-2.0
"""What a kernel says when it oopses or panics, in the words of its time."""

from .klog import KERN_ALERT, KERN_EMERG, KERN_INFO, KERN_WARNING, Log

PANIC_FATAL = "Fatal exception"
PANIC_SYSRQ = "sysrq triggered crash"
PANIC_MCE = "Fatal machine check"

_CODE = "48 8b 47 18 48 85 c0 74 0d 0f 1f 44 00 00 31 d2 <89> 14 25 00 00 00 00 c3 0f 1f 44 00 00 f3 0f 1e fa eb"
_TRACE_STORE = (
    "gauge_show_range+0x14/0x20 [gauge]",
    "gauge_store+0x4f/0xb0 [gauge]",
    "kernfs_fop_write_iter+0x126/0x1b0",
    "vfs_write+0x21c/0x400",
    "ksys_write+0x6b/0xf0",
    "do_syscall_64+0x5b/0xc0",
    "entry_SYSCALL_64_after_hwframe+0x64/0xce",
)
_TRACE_SYSRQ = (
    "dump_stack_lvl+0x44/0x5c",
    "panic+0x118/0x2ed",
    "sysrq_handle_crash+0x16/0x20",
    "__handle_sysrq+0xac/0x1c0",
    "write_sysrq_trigger+0x24/0x40",
    "proc_reg_write+0x57/0xa0",
    "vfs_write+0xc7/0x3f0",
    "ksys_write+0x6b/0xf0",
    "do_syscall_64+0x5b/0xc0",
    "entry_SYSCALL_64_after_hwframe+0x64/0xce",
)
_REGISTERS = ("RAX RBX RCX", "RDX RSI RDI", "RBP R08 R09", "R10 R11 R12", "R13 R14 R15")


def _task(log: Log, pid: int, comm: str, taint: str) -> str:
    uid = "UID: 0 " if log.era.version >= (6, 12) else ""
    return f"CPU: 1 {uid}PID: {pid} Comm: {comm} {taint} {log.era.release} #1"


def _call_trace(log: Log, frames: tuple[str, ...], *, certain: int) -> list[str]:
    # What comes behind *certain* is a guess, marked "? ".  Up to v4.9 each frame has its address, since v5.16 or so
    # the stack it is on is named.
    marked = [f"{'' if n < certain else '? '}{frame}" for n, frame in enumerate(frames)]
    if log.era.version <= (4, 9):
        base = 0xFFFFFFFF81000000 + log.kaslr
        marked = [f"[<{base + log.rng.randrange(1 << 22):016x}>] {frame}" for frame in marked]
    elif log.era.version >= (5, 16):
        marked = ["<TASK>", *marked, "</TASK>"]
    return ["Call Trace:", *(f" {line}" for line in marked)]


def _registers(log: Log) -> list[str]:
    lines = [f"RIP: 0010:{_TRACE_STORE[0]}", f"Code: {_CODE}", f"RSP: 0018:{log.address()} EFLAGS: 00010246"]
    for row in _REGISTERS:
        values = [log.address() if log.rng.random() < 0.6 else f"{log.rng.randrange(64):016x}" for _ in range(3)]
        lines.append(" ".join(f"{name}: {value}" for name, value in zip(row.split(), values, strict=True)))
    return [
        *lines,
        f"FS:  00007f{log.rng.randrange(1 << 40):010x}(0000) GS:{log.address()}(0000) knlGS:0000000000000000",
        "CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033",
        f"CR2: 0000000000000000 CR3: {log.rng.randrange(1 << 20) << 12:016x} CR4: 00000000003506e0",
    ]


def _say_all(log: Log, level: int, lines: list[str]) -> None:
    for line in lines:
        log.say(level, line, after_us=log.rng.randrange(1, 60))


def oops(log: Log, *, number: int = 1, comm: str = "gauged") -> list[str]:
    """A write through a null pointer in a module; up to the line with which the kernel dumps the log.

    Returns:
        The register lines, which repeat_registers() says again.
    """
    pid = log.rng.randrange(400, 4000)
    log.caller = f"T{pid}"
    taint = "Tainted: G           O" if number == 1 else "Tainted: G      D    O"
    modern = log.era.version >= (5, 0)
    head = [
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0002) - not-present page",
    ]
    if not modern:
        head = ["BUG: unable to handle kernel NULL pointer dereference at           (null)"]
    _say_all(log, KERN_ALERT, head)
    log.say(KERN_INFO, "PGD 0 P4D 0 " if log.era.version > (4, 9) else "PGD 0 ", after_us=30)
    twice = "Oops: " if log.era.version >= (6, 12) else ""
    registers = _registers(log)
    end = "0" * 16 if log.era.version >= (5, 16) else f"{log.rng.randrange(1 << 64):016x}"
    lines = [
        f"{twice}Oops: 0002 [#{number}] PREEMPT SMP NOPTI",
        _task(log, pid, comm, taint),
        "Hardware name: Fake Systems Demo Board/Demo, BIOS 1.0 04/01/2026",
        *registers,
        *_call_trace(log, _TRACE_STORE, certain=len(_TRACE_STORE)),
        "Modules linked in: gauge(O) virtio_net net_failover failover virtio_blk [last unloaded: probe]",
        "CR2: 0000000000000000",
        f"---[ end trace {end} ]---",
    ]
    _say_all(log, KERN_WARNING, lines)
    return registers


def repeat_registers(log: Log, registers: list[str]) -> None:
    """After the dump the registers are said once more (x86, when the oops is not the death of the machine)."""
    _say_all(log, KERN_WARNING, registers)


def survive(log: Log, *, comm: str = "gauged") -> None:
    """The task is dead, the kernel goes on."""
    log.say(KERN_INFO, f"note: {comm}[{log.caller[1:]}] exited with irqs disabled")


def machine_check(log: Log) -> None:
    """What the kernel says of a machine check before it panics."""
    log.caller = "C1"
    ip = 0xFFFFFFFF81000000 + log.kaslr
    _say_all(
        log,
        KERN_EMERG,
        [
            "mce: [Hardware Error]: CPU 1: Machine Check Exception: 5 Bank 4: be00000000800400",
            f"mce: [Hardware Error]: RIP !INEXACT! 10:<{ip:x}> {{default_idle+0xf/0x20}}",
            "mce: [Hardware Error]: TSC 4c5740ee6 ADDR deadb000 MISC 86",
            "mce: [Hardware Error]: Machine check: Processor context corrupt",
        ],
    )


def panic(log: Log, cause: str, *, trace: bool = True) -> None:
    """Up to the last line that a dump of the panic holds."""
    log.say(KERN_EMERG, f"Kernel panic - not syncing: {cause}", after_us=200)
    if trace:
        _say_all(
            log,
            KERN_WARNING,
            [
                _task(log, int(log.caller[1:]), "sh", "Tainted: G           O"),
                *_call_trace(log, _TRACE_SYSRQ, certain=len(_TRACE_SYSRQ)),
            ],
        )
    relocation = "(relocation range: 0xffffffff80000000-0xffffffffbfffffff)"
    log.say(KERN_EMERG, f"Kernel Offset: 0x{log.kaslr:x} from 0xffffffff81000000 {relocation}", after_us=900)


def after_panic(log: Log, cause: str, *, reboots: bool = True) -> None:
    """What only a console sees: these lines come after the dump."""
    if reboots:
        log.say(KERN_EMERG, "Rebooting in 1 seconds..", after_us=40)
    else:
        log.say(KERN_EMERG, f"---[ end Kernel panic - not syncing: {cause} ]---", after_us=40)
