# SPDX-License-Identifier: Apache-2.0
"""Reports into events: whom to blame, and what a person and a program want to know of it."""

import re

from pstored.oops import signature
from pstored.oops.blame import (
    Blamed,
    behind_interrupt,
    first_culprit,
    hang,
    inside_entry,
    skipped,
)
from pstored.oops.details import Details, Trace, read_details
from pstored.oops.helpers import Helper, is_helper
from pstored.oops.model import Event, Frame, Severity
from pstored.oops.names import readable, strip_syscall
from pstored.oops.reports import Report, View, lines_of

_HARMLESS = frozenset(("warning", "lockdep", "memleak", "other", "reboot"))
"""Kinds after which everything goes on."""
_NO_FUNCTION = frozenset(("sysrq", "oom", "workqueue-lockup"))
_TRACE_ONLY = frozenset(("sleeping-in-atomic", "preempt-debug", "memleak", "ubsan", "bad-page", "spinlock-bug"))
"""Kinds reported from inside: the program counter, if there is one, says nothing."""
_STALLS = frozenset(("rcu-stall", "soft-lockup"))
_LOCK_LINE = re.compile(rb"[^\n]{0,40}(?:possible|lock inversion|inconsistent|bad unlock|held|freed|still has locks|safe)")
_BY_TRACE = re.compile(rb"[^\n]{0,20}(?:[Nn]ested lock|inconsistent|.{1,30}-safe ->)")
_SUSPICIOUS = re.compile(rb"[^\n]{0,20}suspicious")
_UNTRACED = re.compile(rb"[^\n]{0,20}(?:MAX_|lock held when|still has|workqueue leaked)")


def make_event(view: View, report: Report) -> Event:
    """One event of one report."""
    details = read_details(lines_of(view, report))
    if report.reach and not details.has_trace():
        details = read_details(lines_of(view, report, reach=True))
    blamed = _blame(report, details)
    main = _main(report, details)
    title = _title(report, blamed.function)
    comm, pid, cpu = _task(report, details)
    task = details.task
    pc = details.pc()
    return Event(
        kind=report.kind,
        title=title,
        severity=_severity(report),
        function=blamed.function,
        comm=_text(comm),
        pid=pid,
        cpu=cpu,
        first=report.first,
        last=max(report.last, 0 if report.panicked_at is None else report.panicked_at + 1),
        pc_function=_pc_function(report, pc),
        principal=report.principal,
        tails=tuple(_decode(t) for t in report.tails),
        release=None if task is None else _text(task.release),
        taint=None if task is None else task.taint,
        hardware=_text(details.hardware),
        address=_address(report),
        registers=details.registers,
        call_trace=tuple(main.frames),
        stacks=details.stacks(),
        modules=details.modules,
        code=details.code,
        damaged=tuple(report.damaged + _damage(report, details)),
        loose=signature.loose(report.kind, blamed.function, title),
        strict=signature.strict(report.kind, blamed.frames, blamed.function, title),
    )


def _severity(report: Report) -> Severity:
    if report.panicked_at is not None:
        return Severity.PANIC
    return Severity.WARNING if report.kind in _HARMLESS and not report.trapped else Severity.OOPS


def _title(report: Report, function: str | None) -> str:
    if report.words is not None:
        title = "Kernel panic: " + _decode(report.header.groups.get("words", b""))
    else:
        title = _decode(report.line.text)
    if function is not None and function not in title:
        title += f" in {function}"
    return title


def _decode(text: bytes) -> str:
    return text.decode(errors="backslashreplace").strip()


def _text(text: bytes | None) -> str | None:
    return None if text is None else _decode(text)


def _task(report: Report, details: Details) -> tuple[bytes | None, int | None, int | None]:
    """Name, number and CPU of the task: the header's where it names one (a hung task is not who found it)."""
    groups = report.header.groups
    task = details.task
    comm, pid = groups.get("comm"), groups.get("pid")
    cpu = groups.get("cpu") or (None if task is None else task.cpu)
    if comm is not None and pid is not None and report.kind == "hung-task":
        return comm, int(pid), None
    if task is not None and task.comm is not None:
        return task.comm, task.pid, task.cpu if task.cpu is not None else _int(cpu)
    if comm is None and details.owner is not None:
        return details.owner[0], details.owner[1], _int(cpu)
    return comm, _int(pid), _int(cpu)


def _int(value: bytes | int | None) -> int | None:
    return None if value is None else int(value)


def _address(report: Report) -> int | None:
    address = report.header.groups.get("address")
    return None if address is None else int(address, 16)


def _pc_function(report: Report, pc: Frame | None) -> str | None:
    if pc is not None:
        return pc.function
    function = report.header.groups.get("function")
    return None if function is None else function.decode()


# -- blame


def _main(report: Report, details: Details) -> Trace:
    if report.kind in ("rcu-stall", "soft-lockup", "hard-lockup"):
        return _stalled(report, details)[0]
    return details.main()


def _blame(report: Report, details: Details) -> Blamed:
    kind = report.kind
    if kind in _NO_FUNCTION:
        return Blamed(None, ())
    if kind in _STALLS:
        return _blame_stall(report, details)
    trace = details.main()
    frames = trace.whole()
    if kind == "hung-task":
        found = hang(trace.frames)
        return _blamed(found, trace.frames, skipped(kind, Helper.SLEEP))
    if kind == "lockdep":
        return _blame_lock(report, details)
    if report.words is not None:
        return _blame_panic(report, details)
    groups = skipped(kind)
    named = report.header.groups.get("function")
    if kind == "kcsan" or (kind == "other" and named is None):
        return _by_name(named, frames, groups) if named is not None else Blamed(None, ())
    if kind in _TRACE_ONLY and trace.frames:
        reliable = _reliable(trace.frames)
        found = first_culprit(reliable, groups) or first_culprit(reliable, groups - {Helper.TRAP})
        return _blamed(found, trace.frames, groups)
    if kind == "stack-overflow" and (inner := inside_entry(_reliable(frames))) is not None:
        return _blamed(inner, frames, groups)
    if named is not None and kind != "hard-lockup":
        return _blame_named(report, named.decode(), frames, details)
    return _blame_fault(report, details, frames, groups)


def _reliable(frames: list[Frame]) -> list[Frame]:
    return [f for f in frames if f.reliable]


def _blame_fault(report: Report, details: Details, frames: list[Frame], groups: frozenset[Helper]) -> Blamed:
    pc = details.any_pc() if report.kind in ("hard-lockup", "panic") else details.pc()
    if pc is not None and (not frames or frames[0] is not pc):
        frames = [pc, *frames]
    if pc is None and details.lr is not None:
        frames = [details.lr, *frames]
    found = first_culprit(_reliable(frames), groups)
    if found is None:
        found = pc or next((f for f in frames if f.function is not None), None)
    return _blamed(found, frames, groups)


def _blame_named(report: Report, name: str, frames: list[Frame], details: Details) -> Blamed:
    """The header names a function; if that is a helper, who called it."""
    groups = skipped(report.kind)
    text = report.line.text
    if report.kind == "warning":
        groups -= {Helper.SANITIZER}  # they warn of themselves only
        if is_helper(name, frozenset((Helper.ALLOCATOR,))):
            groups |= {Helper.ALLOCATOR}
        if b"lib/refcount" in text:
            groups |= {Helper.ALLOCATOR}
        if b"debugobjects" in text:
            groups |= {Helper.ALLOCATOR, Helper.PAGES, Helper.RCU}
        if b"locking/lockdep" in text:
            groups |= {Helper.SOCKET}
    if b"invalid-free" in text or b"double-free" in text:
        groups |= {Helper.ALLOCATOR}
    if not is_helper(name, groups):
        return _by_name(name.encode(), frames, groups)
    found = first_culprit(_reliable(frames), groups)
    return _blamed(found or Frame(function=name), frames, groups)


def _by_name(name: bytes | None, frames: list[Frame], groups: frozenset[Helper]) -> Blamed:
    if name is None:
        return Blamed(None, ())
    function = name.decode()
    found = next((f for f in frames if f.function is not None and readable(f.function) == readable(function)), None)
    return _blamed(found or Frame(function=function), frames, groups)


def _blame_lock(report: Report, details: Details) -> Blamed:
    text = report.line.text
    trace = details.main()
    groups = skipped("lockdep")
    if _UNTRACED.match(text) and b"workqueue" in text:
        function = details.last_function
        return Blamed(function, (function,) if function else ())
    if b"MAX_" in text:
        return Blamed(None, ())
    if _SUSPICIOUS.match(text):
        groups |= {Helper.RCU, Helper.ALLOCATOR, Helper.PAGES, Helper.SLEEP}
    elif details.lock is not None and not (_BY_TRACE.match(text) and trace.frames):
        if not is_helper(details.lock, groups | {Helper.KTHREAD}):
            return _by_name(details.lock.encode(), trace.frames, groups)
    groups |= {Helper.KTHREAD}
    for trace in (trace, *details.traces):
        found = first_culprit(_reliable(trace.frames), groups)
        if found is not None:
            return _blamed(found, trace.frames, groups)
    return _by_name(None if details.lock is None else details.lock.encode(), trace.frames, groups)


def _blame_panic(report: Report, details: Details) -> Blamed:
    assert report.words is not None
    trace = details.main()
    if report.words.function is not None:
        return _by_name(report.words.function, trace.frames, skipped("panic"))
    if report.kind == "stack-overflow":
        groups = skipped("panic", Helper.SLEEP)
        inner = [f for f in _reliable(trace.frames) if f.function and not is_helper(f.function, groups)]
        return _blamed(inside_entry(inner), trace.frames, groups)
    if report.headless and details.any_pc() is not None:
        return _blame_fault(report, details, trace.whole(), skipped("panic"))
    if report.kind == "panic" and report.line.text.find(b"stack-protector") >= 0:
        return _blamed(first_culprit(_reliable(trace.frames), skipped("panic")), trace.frames, skipped("panic"))
    return Blamed(None, ())


def _blame_stall(report: Report, details: Details) -> Blamed:
    trace, frames = _stalled(report, details)
    groups = skipped(report.kind, Helper.SLEEP)
    found = inside_entry(frames)
    pc = trace.pc or trace.inner
    if report.kind == "soft-lockup" and pc is not None and not is_helper(pc.function or "", groups):
        # one CPU, in one function that nobody called for help: it spins there
        found = pc
    if found is None:
        found = first_culprit(frames, groups)
    return _blamed(found, frames, groups)


def _stalled(report: Report, details: Details) -> tuple[Trace, list[Frame]]:
    """The trace of the CPU that stalls, and its frames without the interrupt that noticed."""
    choices = [t for t in details.traces if (t.frames or t.pc is not None) and not t.aside]
    for trace in choices:
        frames = _interrupted(trace)
        if inside_entry(frames) is not None:
            return trace, frames
    for trace in choices:
        frames = _interrupted(trace)
        if frames:
            return trace, frames
    return details.main(), []


def _interrupted(trace: Trace) -> list[Frame]:
    """What ran when the stall was noticed: from the program counter, where registers were printed with the trace."""
    frames = trace.whole() if trace.pc is not None else behind_interrupt(trace.frames)
    return [f for f in frames if f.reliable]


def _blamed(found: Frame | None, frames: list[Frame] | tuple[Frame, ...], groups: frozenset[Helper]) -> Blamed:
    """A frame and those outside it, by name."""
    if found is None or found.function is None:
        return Blamed(None, ())
    names = [readable(found.function)]
    at = next((n for n, f in enumerate(frames) if f is found), None)
    for frame in () if at is None else frames[at + 1 :]:
        if frame.function is not None and frame.reliable and not is_helper(frame.function, groups):
            names.append(strip_syscall(readable(frame.function)))
        if len(names) == signature.FRAMES:
            break
    return Blamed(strip_syscall(names[0]), tuple(names))


# -- damage


def _damage(report: Report, details: Details) -> list[str]:
    found = []
    if report.kind in _NO_FUNCTION or report.kind in ("mce", "other", "reboot", "panic"):
        return found
    if not details.has_trace():
        found.append("it has no call trace")
    if re.search(rb"\[ {0,4}\d{1,10}\.\d{6}\]", report.line.text):
        found.append("another line runs into its first")
    return found
