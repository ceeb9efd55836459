# SPDX-License-Identifier: Apache-2.0
"""What the words of a panic mean: a reason of its own, or only that the report before it was fatal.

``Kernel panic - not syncing: `` and the words of panic()'s callers, from all over the kernel.
"""

import re
from functools import cache
from typing import NamedTuple


class Words(NamedTuple):
    """A panic's words, understood."""

    kind: str
    """Of the report it belongs to, or its own."""
    is_tail: bool
    """Only says that the report before it was fatal; ``kind`` is what that must have been, "
        "``panic`` if any may be."""
    warned: bool = False
    """A warning was enough."""
    function: bytes | None = None
    """That it names."""
    blames_trace: bool = False
    """It names only an address: the trace says whose."""


# Pattern, kind of the report before it, whether it may be a warning; the caller of panic().
_TAILS: tuple[tuple[bytes, str, bool], ...] = (
    (
        (
            rb"(?:[\w.]{1,20}: )?panic_on_warn set|kernel: panic_on_warn|\w{1,12}: panic_on_(?:warn"
            rb"|kmsan) set|kasan\.fault=panic|kmsan\.panic set"
        ),
        "panic",
        True,
    ),
    (
        rb"(?:[^\n:]{1,60}: ){0,2}(?:panic_on_oops|Fatal exception)",
        "panic",
        False,
    ),  # arch/*/kernel/traps.c
    (rb"Fatal hardware error", "mce", False),  # drivers/acpi/apei/ghes.c
    (
        (
            rb"Fatal (?:local )?[Mm]achine check|Machine check from unknown source"
            rb"|Timeout: Not all CPUs entered broadcast"
        ),
        "mce",
        False,
    ),
    (rb"hung_task: blocked tasks", "hung-task", False),  # kernel/hung_task.c
    (rb"softlockup: hung tasks", "soft-lockup", False),  # kernel/watchdog.c
    (rb"Hard LOCKUP|Watchdog detected hard LOCKUP", "hard-lockup", False),
    (rb"RCU Stall", "rcu-stall", False),  # kernel/rcu/tree_stall.h
    (rb"(?:Asynchronous )?SError Interrupt", "unhandled-fault", False),  # arch/arm64/kernel/traps.c
    (rb"bad mode|Unhandled exception", "panic", False),
    (rb"kernel stack overflow", "stack-overflow", False),
    (rb"Machine halted\.", "double-fault", False),  # arch/x86/kernel/doublefault_32.c
    (rb"Attempted to kill (?:init|the idle task)|Aiee, killing interrupt handler", "panic", False),  # kernel/exit.c
    (rb"UBSAN: panic_on_warn|scheduling while atomic", "panic", True),
    (rb"BUG!|Kernel mode fault|Unhandled (?:kernel )?(?:fault|trap)|Unrecoverable", "panic", False),
)
_REASONS: tuple[tuple[bytes, str], ...] = (
    (rb"[sS]ys[rR]q(?:: | )[tT]rigger", "sysrq"),  # drivers/tty/sysrq.c
    (rb"Out of memory|System is deadlocked on memory|out of memory", "oom"),  # mm/oom_kill.c
    (rb"corrupted stack end detected", "stack-overflow"),  # kernel/sched/core.c, schedule_debug()
    (rb"[^\n]{0,40}[Mm]achine [Cc]heck", "mce"),
    (rb"stack-protector: Kernel stack is corrupted in: ", "panic"),  # kernel/panic.c, __stack_chk_fail()
)
_CORRUPTED = re.compile(rb"stack-protector: Kernel stack is corrupted in: \.?([A-Za-z_][\w$.]{0,511})\+0x")


@cache
def _tails() -> tuple[tuple[re.Pattern[bytes], str, bool], ...]:
    return tuple((re.compile(pattern), kind, warned) for pattern, kind, warned in _TAILS)


@cache
def _reasons() -> tuple[tuple[re.Pattern[bytes], str], ...]:
    return tuple((re.compile(pattern), kind) for pattern, kind in _REASONS)


def understand(words: bytes) -> Words:
    """What a panic's words mean."""
    for pattern, kind, warned in _tails():
        if pattern.match(words):
            return Words(kind, True, warned)
    for reason, kind in _reasons():
        if reason.match(words):
            corrupted = _CORRUPTED.match(words)
            function = None if corrupted is None else corrupted[1]
            return Words(kind, False, function=function, blames_trace=words.startswith(b"stack-protector"))
    return Words("panic", False)
