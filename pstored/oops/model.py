# SPDX-License-Identifier: Apache-2.0
"""What an analysis of a kernel log gives: events, with everything that their reports say."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """What died of it."""

    PANIC = "panic"
    """The machine."""
    OOPS = "oops"
    """A task; the machine may have gone on."""
    WARNING = "warning"
    """Nothing."""
    RESET = "reset"
    """The machine, without a word."""
    UNKNOWN = "unknown"


class Frame(NamedTuple):
    """One line of a call trace; None is what the line does not say."""

    function: str | None
    """As the kernel names it, compiler suffixes included; None where only an address stands."""
    offset: int | None = None
    size: int | None = None
    module: str | None = None
    reliable: bool = True
    """False for what the kernel marks: found on the stack, and perhaps only left there (``?``, ``(unreliable)``)."""
    address: int | None = None
    context: str = "task"
    """What ran: ``task``, or on x86 the stack it stands on: ``irq``, ``nmi``, ``softirq``, or an exception's name."""
    file: str | None = None
    """The source file; no log says that, but the kernel's debug information does: pstored.symbolize.frames."""
    line: int | None = None
    """The line in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A call trace, or one of several in a report."""

    title: str
    """The line that leads it in, e.g. ``Call Trace:``, ``Freed by task 83:``; empty for frames without one."""
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One report of a log, and the panics that only say that it was fatal; None is what the log does not say."""

    kind: str
    """``null-deref``, ``sysrq``, ``panic``, ...; the words of the README's table."""
    title: str
    """One line."""
    severity: Severity
    function: str | None
    """Whom to blame: helpers are skipped, and for a stall it is what runs just inside the system call, work or
    softirq."""
    comm: str | None
    pid: int | None
    cpu: int | None
    first: int
    """Index of the report's first line."""
    last: int
    """Index behind its last line that we know of."""
    header: int = 0
    """Index of the line that says what it is; what is printed before it may be missing in another text."""
    pc_function: str | None = None
    """Where the processor was."""
    pc: Frame | None = None
    """The same with all that the line says; None if only the header names it."""
    principal: bool = True
    """False for a report that came of the one before it: the second oops of a disaster."""
    tails: tuple[str, ...] = ()
    """Words of the panics that belong to it: ``Fatal exception in interrupt``."""
    release: str | None = None
    """As ``uname -r``."""
    taint: str | None = None
    """Letters of kernel/panic.c, sorted, without ``G`` and blanks; empty: not tainted.  See :func:`explain_taint`."""
    hardware: str | None = None
    address: int | None = None
    """What the kernel could not reach, or KASAN complained of."""
    registers: dict[str, int] = field(default_factory=dict)
    """By the kernel's names, of the first set in the report."""
    call_trace: tuple[Frame, ...] = ()
    """The trace that counts: of the task that hangs, of the CPU that stalls."""
    stacks: tuple[Stack, ...] = ()
    """All traces of the report, in order."""
    modules: tuple[str, ...] = ()
    """Loaded modules, without flags."""
    code: str | None = None
    """The ``Code:`` line's bytes, as the kernel wrote them."""
    damaged: tuple[str, ...] = ()
    """What makes the report doubtful, in sentences; empty if nothing does."""
    loose: str = ""
    """Signature by kind and function; see pstored.oops.signature."""
    strict: str = ""
    """Signature by kind and the first meaningful frames."""
    named: tuple[str, ...] = ()
    """The functions that the strict one is made of, from the one that is blamed outwards."""
