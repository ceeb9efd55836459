# SPDX-License-Identifier: Apache-2.0
"""Whom to blame: the function of a report that somebody should look at, and the frames that tell one bug from another.

A report names where the processor was, which is often in a helper: then it is the first function up the call trace
that is none.  A CPU or a task that hangs stops anywhere in a loop: there it is the function just inside the system
call, work item or softirq, which stays the same, or what the task waits for.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pstored.oops import signature
from pstored.oops.details import Details, Trace
from pstored.oops.entries import behind_interrupt, inside_entry, waiting_in
from pstored.oops.helpers import ALWAYS, Helper, is_helper
from pstored.oops.model import Frame
from pstored.oops.names import readable, strip_syscall
from pstored.oops.reports import Report

_Groups = frozenset[Helper]
_ALLOCATORS: _Groups = frozenset((Helper.ALLOCATOR, Helper.PAGES))
_EXTRA: dict[str, _Groups] = {
    "sleeping-in-atomic": _ALLOCATORS | {Helper.SLEEP},
    "preempt-debug": frozenset((Helper.SLEEP,)),
    "memleak": _ALLOCATORS | {Helper.ALLOCATES},
    "bad-page": _ALLOCATORS,
    "slab-corruption": _ALLOCATORS,
    "hung-task": frozenset((Helper.SLEEP,)),
    "rcu-stall": frozenset((Helper.SLEEP,)),
    "soft-lockup": frozenset((Helper.SLEEP,)),
}
"""What is skipped, by kind, besides what always is."""
_NAMELESS = frozenset(("sysrq", "oom", "workqueue-lockup"))
"""Kinds of which no function is the cause."""
_FROM_INSIDE = frozenset(("sleeping-in-atomic", "preempt-debug", "memleak", "ubsan", "bad-page", "spinlock-bug"))
"""Kinds that code reports of itself: a program counter, if there is one, is an interrupt's."""

# lockdep's reports that are about a place, not about the lock taken last
_BY_TRACE = re.compile(rb"[^\n]{0,20}(?:[Nn]ested lock|inconsistent|[^\n]{1,30}-safe ->)")


class Blamed(NamedTuple):
    """A function, and what tells this bug from others."""

    function: str | None
    frames: tuple[str, ...] = ()
    """Names from the function outwards, helpers left out; at most signature.FRAMES."""
    trace: tuple[Frame, ...] = ()
    """The trace that counts."""


def blame(report: Report, details: Details) -> Blamed:
    """The function to look at, by the kind of report."""
    kind = report.kind
    if kind in _NAMELESS or (report.headless and details.any_pc() is None):
        return Blamed(None, trace=tuple(details.main().frames))
    if kind in ("rcu-stall", "soft-lockup"):
        return _blame_stall(report, details)
    trace = details.main()
    groups = ALWAYS | _EXTRA.get(kind, frozenset())
    if kind == "hung-task":
        return _blamed(waiting_in(trace.frames), trace.frames, groups)
    if kind == "lockdep":
        return _blame_lock(report, details, groups)
    if report.words is not None:
        return _blame_panic(report, details, groups)
    if kind in _FROM_INSIDE and trace.frames:
        frames = _reliable(trace.frames)
        # a page fault handler that sleeps is to blame itself
        found = _culprit(frames, groups) or _culprit(frames, groups - {Helper.TRAP})
        return _blamed(found, trace.frames, groups)
    if kind == "stack-overflow":
        frames = _reliable(trace.whole())
        # of many that call each other, which was the last is as random as in a stall
        if (inner := _recursing(frames) or inside_entry(frames)) is not None:
            return _with(trace, _blamed(inner, trace.whole(), groups))
    named = report.header.groups.get("function")
    if named is not None and kind != "hard-lockup":
        return _with(trace, _blame_named(report, named.decode(), trace.whole(), groups))
    if kind in ("other", "kcsan"):
        return Blamed(None, trace=tuple(trace.frames))
    return _blame_fault(report, details, groups)


def _culprit(frames: Iterable[Frame], groups: _Groups) -> Frame | None:
    """The first frame, from the innermost, that is no helper."""
    return next((f for f in frames if f.function is not None and not is_helper(f.function, groups)), None)


def _reliable(frames: Iterable[Frame]) -> list[Frame]:
    return [frame for frame in frames if frame.reliable]


def _blamed(found: Frame | None, frames: Sequence[Frame], groups: _Groups) -> Blamed:
    """A frame, and those outside it by name."""
    if found is None or found.function is None:
        return Blamed(None, trace=tuple(frames))
    names = [strip_syscall(readable(found.function))]
    at = next((n for n, frame in enumerate(frames) if frame is found), len(frames))
    for frame in frames[at + 1 :]:
        if len(names) == signature.FRAMES:
            break
        if frame.function is None or not frame.reliable or is_helper(frame.function, groups):
            continue
        name = strip_syscall(readable(frame.function))
        if name != names[-1]:  # printed twice: by register and by frame, or inlined into itself
            names.append(name)
    return Blamed(names[0], tuple(names), tuple(frames))


def _recursing(frames: Sequence[Frame]) -> Frame | None:
    """The function that calls itself, and has filled the stack: most of the trace is its frames."""
    names = Counter(frame.function for frame in frames)
    name, times = names.most_common(1)[0] if names else (None, 0)
    return next((f for f in frames if f.function == name), None) if times > max(2, len(frames) // 2) else None


def _with(trace: Trace, blamed: Blamed) -> Blamed:
    """The same with the trace as it is printed: without the program counter."""
    return Blamed(blamed.function, blamed.frames, tuple(trace.frames))


def _by_name(name: str, frames: Sequence[Frame], groups: _Groups) -> Blamed:
    """A function that a line names, found in the trace if it is there."""
    found = next((f for f in frames if f.function is not None and readable(f.function) == readable(name)), None)
    return _blamed(found or Frame(function=name), frames, groups)


# -- by kind


def _blame_fault(report: Report, details: Details, groups: _Groups) -> Blamed:
    """Where the processor was; if that is a helper, who called it; if all are, where it was after all."""
    frames = details.main().whole()
    # other CPUs write between the lines of a hard lockup, and what is left of a cut report may begin in its trace
    pc = details.any_pc() if report.kind == "hard-lockup" or report.headless else details.pc()
    inner = pc or details.lr
    if inner is not None and (not frames or frames[0].function != inner.function):
        frames = [inner, *frames]
    named = (frame for frame in frames if frame.function is not None)
    found = _culprit(_reliable(frames), groups) or pc or next(named, None)
    return _with(details.main(), _blamed(found, frames, groups))


def _blame_named(report: Report, name: str, frames: Sequence[Frame], groups: _Groups) -> Blamed:
    """The header names a function; if that is a helper, who called it."""
    groups = _adjust(report, name, groups)
    if report.kind == "kcsan" or not is_helper(name, groups):
        return _by_name(name, frames, groups)
    return _blamed(_culprit(_reliable(frames), groups) or Frame(function=name), frames, groups)


def _adjust(report: Report, name: str, groups: _Groups) -> _Groups:
    """What else is skipped because of where a check is that complains of its callers."""
    text = report.line.text
    if b"invalid-free" in text or b"double-free" in text:
        return groups | {Helper.ALLOCATOR}
    if report.kind != "warning":
        return groups
    groups -= {Helper.SANITIZER}  # they warn of themselves only
    if b"lib/refcount" in text or is_helper(name, frozenset((Helper.ALLOCATOR,))):
        groups |= {Helper.ALLOCATOR}
    if b"lib/debugobjects" in text:
        groups |= _ALLOCATORS | {Helper.RCU}
    if b"locking/lockdep" in text:
        groups |= {Helper.SOCKET}
    return groups


def _blame_lock(report: Report, details: Details, groups: _Groups) -> Blamed:
    text = report.line.text
    main = details.main()
    if b"workqueue leaked" in text:
        function = details.last_function()
        return Blamed(function, () if function is None else (function,))
    if b"MAX_" in text:  # lockdep's own tables are full
        return Blamed(None, trace=tuple(main.frames))
    groups |= {Helper.KTHREAD}
    if b"uspicious" in text:
        groups |= _ALLOCATORS | {Helper.RCU, Helper.SLEEP}
    elif details.lock is not None and not (_by_place(text, main) or is_helper(details.lock, groups)):
        return _by_name(details.lock, main.frames, groups)
    for trace in (main, *details.traces):
        found = _culprit(_reliable(trace.frames), groups)
        if found is not None:
            return _blamed(found, trace.frames, groups)
    return Blamed(None) if details.lock is None else _by_name(details.lock, main.frames, groups)


def _by_place(text: bytes, trace: Trace) -> bool:
    return bool(trace.frames) and _BY_TRACE.match(text) is not None


def _blame_panic(report: Report, details: Details, groups: _Groups) -> Blamed:
    assert report.words is not None
    trace = details.main()
    if report.words.function is not None:
        return _by_name(report.words.function.decode(), trace.frames, groups)
    if report.kind == "stack-overflow":
        groups |= {Helper.SLEEP}
        frames = [f for f in _reliable(trace.frames) if f.function and not is_helper(f.function, groups)]
        return _blamed(inside_entry(frames), trace.frames, groups)
    if report.headless and details.any_pc() is not None:
        return _blame_fault(report, details, groups)
    if report.words.blames_trace:
        return _blamed(_culprit(_reliable(trace.frames), groups), trace.frames, groups)
    return Blamed(None, trace=tuple(trace.frames))


# -- stalls


def _blame_stall(report: Report, details: Details) -> Blamed:
    trace, frames = _stalled(details)
    groups = ALWAYS | _EXTRA[report.kind]
    pc = trace.pc or trace.inner
    found = None
    if report.kind == "soft-lockup" and pc is not None and not is_helper(pc.function or "", groups):
        found = pc  # one CPU, in one function that nobody called for help: it spins there
    found = found or inside_entry(frames) or _culprit(frames, groups)
    return _with(trace, _blamed(found, frames, groups))


def _stalled(details: Details) -> tuple[Trace, list[Frame]]:
    """The trace of the CPU that stalls, and its frames without the interrupt that noticed."""
    choices = [
        (trace, _interrupted(trace))
        for trace in details.traces
        if (trace.frames or trace.pc is not None) and not trace.aside
    ]
    for trace, frames in choices:
        if inside_entry(frames) is not None:
            return trace, frames
    return next(((trace, frames) for trace, frames in choices if frames), (details.main(), []))


def _interrupted(trace: Trace) -> list[Frame]:
    """What ran when the stall was noticed: from the program counter, where registers were printed with the trace."""
    return _reliable(trace.whole() if trace.pc is not None else behind_interrupt(trace.frames))
