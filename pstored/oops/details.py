# SPDX-License-Identifier: Apache-2.0
"""The body of a report: its traces, and what it says of its circumstances, read line by line."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pstored.oops.facts import (
    REGISTERS,
    Task,
    has_registers,
    parse_code,
    parse_hardware,
    parse_modules,
    parse_owner,
    parse_register_row,
    parse_registers,
    parse_task,
)
from pstored.oops.frames import (
    CALLER,
    MARK,
    TITLE,
    USER_PC,
    Words,
    is_task_title,
    make_callees,
    make_caller,
    make_frames,
    parse_bare,
    parse_frame,
    parse_from,
    parse_lr,
    parse_mark,
    parse_pc,
)
from pstored.oops.model import Frame, Stack

MOST_FRAMES = 2000
"""Frames of one report: more is damage."""

#   Traces of others than the one that is reported: who allocated, freed, took a lock before.
_ASIDE = re.compile(
    r"Allocated|Freed|allocated by|freed by|Last potentially|Second to last|Uninit|Local variable"
    r"|-> #|the existing|the shortest"
    r"|the dependencies|the \S{1,40}-irq-|\.\.\.|to a |\d{1,9} locks? held|no locks held|\{|Showing all"
    r"|Last Breaking|Preemption disabled"
    r"|(?:rcu: )?RCU grace-period|rcu_\w{1,20} {2,20}[A-Z] |.{0,200} at:$|hardirqs|softirqs|irq event"
)
#   "... at: [<c0..>] lock_sock+0x1/0x2", kernel/locking/lockdep.c, print_lock()
_LOCK_AT = re.compile(rb"[^\n]{0,400}?\bat:(?: \[<[0-9a-f]{4,16}>\]){0,2} {0,2}\.?([A-Za-z_$][\w$.]{0,511})\+0x")
_LAST_FUNCTION = re.compile(rb"[ \t]{0,8}last function: ([A-Za-z_$][\w$.]{0,511})")


#   what a line begins with that is no frame: a fact of its own; registers; where user space was; a trace's title
_FACT, _REGISTERS, _USER_PC, _TITLE = range(1, 5)
_BEGINNING = re.compile(
    rb"(Modules linked in:|Hardware name: |Machine model: |Code: |Krnl Code: | Code: )|(%s)|(%s)|(%s)"
    % (REGISTERS, USER_PC, TITLE)
)
_INDENTS = (b" ", b"[", b"<", b"\t")
"""What frames and marks begin with where the line is not one that begins with a name."""
_ANOTHER = ("NMI backtrace", "CPU: ", "Sending NMI", "task:", "Task dump")
"""Titles of traces of another CPU or task."""


@dataclass(slots=True)
class Trace:
    """One trace while it is read."""

    title: str
    aside: bool = False
    """Whether it is of something else than what is reported."""
    frames: list[Frame] = field(default_factory=list)
    pc: Frame | None = None
    """Where the processor was that the trace is of."""
    inner: Frame | None = None
    """The same, printed within the trace: of the code that an interrupt or exception interrupted."""

    def whole(self) -> list[Frame]:
        """Program counter and frames, innermost first; what stands in both, once."""
        if self.pc is None:
            return self.frames
        if self.frames and self.frames[0].function == self.pc.function and self.frames[0].reliable:
            return self.frames
        return [self.pc, *self.frames]


@dataclass(slots=True)
class Details:
    """What the lines of one report say."""

    traces: list[Trace] = field(default_factory=lambda: [Trace("")])
    task: Task | None = None
    hardware: bytes | None = None
    modules: tuple[str, ...] = ()
    code: str | None = None
    registers: dict[str, int] = field(default_factory=dict)
    lr: Frame | None = None
    lock: str | None = None
    """The function that took the lock a lockdep report is about."""
    last: int = 0
    """Index of the last line that said anything."""
    others: list[bytes] = field(default_factory=list)
    """Lines of which nothing is read that every report has."""

    def main(self) -> Trace:
        """The trace of what is reported: the first with frames or a program counter that is not of something else."""
        for trace in self.traces:
            if trace.frames and not trace.aside:
                return trace
        return next((t for t in self.traces if t.frames), self.traces[0])

    def pc(self) -> Frame | None:
        """The first program counter in the kernel."""
        return next((t.pc for t in self.traces if t.pc is not None), None)

    def any_pc(self) -> Frame | None:
        """The same, even from within a trace."""
        return self.pc() or next((t.inner for t in self.traces if t.inner is not None), None)

    def owner(self) -> tuple[bytes, int] | None:
        """Name and number of the task, where only another line than its own has them."""
        return next((owner for text in self.others if (owner := parse_owner(text)) is not None), None)

    def last_function(self) -> str | None:
        """Of a work item that leaked something."""
        return next((last[1].decode() for text in self.others if (last := _LAST_FUNCTION.match(text))), None)

    def has_trace(self) -> bool:
        """Whether it says where anything was."""
        return any(trace.frames or trace.pc is not None for trace in self.traces)

    def stacks(self) -> tuple[Stack, ...]:
        """All traces that have frames."""
        return tuple(Stack(title=t.title, frames=tuple(t.frames)) for t in self.traces if t.frames)


class _Reader:
    """Reads the lines of one report; what counts is the first of everything."""

    def __init__(self) -> None:
        self.found = Details()
        self.trace = self.found.traces[0]
        self.context = "task"
        self.caller: Frame | None = None
        self.frames = 0
        self.wants_lock = False
        self.named: list[bytes] = []
        """Lines that name registers."""

    def read_lines(self, lines: Iterable[tuple[int, bytes | list[Words]]]) -> None:
        """All lines of the report."""
        for index, line in lines:
            if isinstance(line, list):
                self._read_frames(line)
            elif not self._read(line):
                continue
            self.found.last = index

    def _read(self, text: bytes) -> bool:
        """Whether the line said anything."""
        has_symbol = text.find(b"+0x") >= 0
        at = 0
        if text.startswith(_INDENTS):
            mark, at = parse_mark(text)
            if mark is not None:
                self.context = mark
                if at == len(text):
                    return True
            if not has_symbol and (bare := parse_bare(text, at, self.context)) is not None:
                self._take([bare])
                return True
        return self._read_symbol(text, at) if has_symbol else self._read_words(text)

    def _read_symbol(self, text: bytes, at: int) -> bool:
        if text.find(b" from ") >= 0 and (pair := parse_from(text, at, self.context)) is not None:
            self._take([pair[0]])
            self.caller = pair[1]
            return True
        frame = parse_frame(text, at, self.context)
        if frame is not None:
            self._take([frame])
            return True
        if self.found.lock is None and text.find(b"at:") >= 0 and (lock := _LOCK_AT.match(text)):
            self.found.lock = lock[1].decode()
        return self._read_position(text) or self._read_words(text)

    def _read_frames(self, lines: list[Words]) -> None:
        """The same of lines that are nothing but frames."""
        first = lines[0]
        if first[MARK]:
            self.context = parse_mark(first[MARK])[0] or self.context
        if first[CALLER]:
            self._take(make_callees(lines, self.context))
            self.caller = make_caller(lines[-1], self.context)
        else:
            self._take(make_frames(lines, self.context))

    def _take(self, frames: list[Frame]) -> None:
        """Add to the trace."""
        if self.wants_lock:
            self.found.lock = self.found.lock or frames[0].function
            self.wants_lock = False
        self.caller = None
        self.trace.frames += frames[: max(0, MOST_FRAMES - self.frames)]
        self.frames += len(frames)

    def finish(self) -> None:
        """Behind the last line."""
        self._flush()
        self.found.registers = parse_registers(b"\n".join(self.named)) | self.found.registers

    def _flush(self) -> None:
        """On arm, each line names callee and caller: the last caller is a frame, too."""
        if self.caller is not None:
            self.trace.frames.append(self.caller)
            self.caller = None

    def _read_position(self, text: bytes) -> bool:
        pc = parse_pc(text)
        if pc is not None:
            if self.trace.pc is None and not self.trace.frames:
                self.trace.pc = pc
            elif self.trace.frames and self.trace.frames[-1].function != pc.function:
                # behind </IRQ> or an exception: where the interrupted code was
                self.context = "task"
                self.trace.frames.append(pc)
                self.trace.inner = self.trace.inner or pc
        lr = parse_lr(text)
        if lr is not None and self.found.lr is None:
            self.found.lr = lr
        return pc is not None or lr is not None

    def _begin(self, title: str) -> None:
        self._flush()
        self.wants_lock = title.endswith(" at:")
        self.context = "task"
        trace = Trace(title, _ASIDE.match(title) is not None)
        if not self.trace.frames:
            if self.trace.title.endswith("grace-period kthread stack dump:"):
                return  # its "task:" line, or "Call Trace:"
            if not self.trace.aside and not trace.aside:
                self.trace.title = title  # registers, then "Call Trace:": one trace
                return
        self._add(trace)

    def _add(self, trace: Trace) -> None:
        self.trace = trace
        self.found.traces.append(trace)

    def _read_words(self, text: bytes) -> bool:
        if self.caller is not None:
            self._flush()
        beginning = _BEGINNING.match(text)
        what = None if beginning is None else beginning.lastindex
        if what == _FACT:
            self._read_fact(text)
            return True
        if what == _REGISTERS:  # nothing else need be looked for
            self._read_registers(text)
            return True
        titled = what == _TITLE or is_task_title(text)
        if titled:
            self._read_title(text[:200].decode(errors="backslashreplace").strip())
        if text.find(b"ainted") >= 0 and (task := parse_task(text)) is not None:
            self._take_task(task)
            return True
        if what == _USER_PC:
            return True
        self.found.others.append(text)
        return (not self.frames and self._read_registers(text)) or titled

    def _read_fact(self, text: bytes) -> None:
        found = self.found
        if text.startswith(b"Modules"):
            found.modules = found.modules or parse_modules(text)
        elif text.startswith((b"Hardware", b"Machine")):
            found.hardware = found.hardware or parse_hardware(text)
        else:
            found.code = found.code or parse_code(text)

    def _read_title(self, title: str) -> None:
        if title.startswith(_ANOTHER) and self.trace.pc is not None and not self.trace.frames:
            # the one before was interrupted in a place of which there is no trace
            self._add(Trace(title, _ASIDE.match(title) is not None))
        else:
            self._begin(title)

    def _read_registers(self, text: bytes) -> bool:
        if self.frames:
            return False  # those of user space
        if row := parse_register_row(text):
            self.found.registers = dict(row) | self.found.registers
        elif has_registers(text):
            self.named.append(text)
        else:
            return False
        return True

    def _take_task(self, task: Task) -> None:
        known = self.found.task
        if known is None:
            self.found.task = task
        elif known.comm is None and task.comm is not None:
            # lockdep: the kernel first, the task in the stack backtrace
            self.found.task = Task(
                task.comm, task.pid, task.cpu, known.release or task.release, known.taint or task.taint
            )


def read_details(lines: Iterable[tuple[int, bytes | list[Words]]]) -> Details:
    """What the lines of one report say, its first line included.

    Args:
        lines: index in the log, and text, or the words of a line that is nothing but a frame.
    """
    reader = _Reader()
    reader.read_lines(lines)
    reader.finish()
    return reader.found
