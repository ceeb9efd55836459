# SPDX-License-Identifier: Apache-2.0
"""Reports into events: whom to blame, and what a person and a program want to know of it."""

import re

from pstored.oops import signature
from pstored.oops.blame import blame
from pstored.oops.details import Details, read_details
from pstored.oops.model import Event, Frame, Severity
from pstored.oops.reports import Report, lines_of
from pstored.oops.view import View

_HARMLESS = frozenset(
    ("warning", "lockdep", "memleak", "other", "reboot", "oom", "ubsan", "kcsan", "preempt-debug", "mce")
)
"""Kinds after which the kernel goes on as before, unless it says otherwise."""
_FATAL_MCE = re.compile(rb"[^\n]{0,60}(?:Exception|HPMC|Severe|Fatal|kernel mode)")
_TRACELESS = frozenset(("sysrq", "oom", "workqueue-lockup", "mce", "other", "reboot", "panic"))
"""Kinds that need not have a call trace."""
UNTOLD = 60
"""Lines of a report of which nothing but the header is understood."""
_INNER_TIME = re.compile(rb"\[ {0,4}\d{1,12}\.\d{6}\]")


def make_event(view: View, report: Report) -> Event:
    """One event of one report."""
    details = read_details(lines_of(view, report))
    if report.reach and not details.has_trace():
        details = read_details(lines_of(view, report, reach=True))
    blamed = blame(report, details)
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
        last=max(_last(report, details), 0 if report.panicked_at is None else report.panicked_at + 1),
        header=report.at,
        pc_function=_pc_function(report, pc),
        pc=pc,
        principal=report.principal,
        tails=tuple(_decode(t) for t in report.tails),
        release=None if task is None else _text(task.release),
        taint=None if task is None else task.taint,
        hardware=_text(details.hardware),
        address=_address(report),
        registers=details.registers,
        call_trace=blamed.trace,
        stacks=details.stacks(),
        modules=details.modules,
        code=details.code,
        damaged=tuple(report.damaged + _damage(report, details)),
        loose=signature.loose(report.kind, blamed.function, title),
        strict=signature.strict(report.kind, blamed.frames, blamed.function, title),
        named=blamed.frames[: signature.FRAMES],
    )


def _last(report: Report, details: Details) -> int:
    """Without an end mark, a report goes as far as anything in it can be told; where nothing can, some lines."""
    if report.ended:
        return report.last
    if details.has_trace():
        return max(report.at, min(details.last, report.last - 1)) + 1
    return min(report.last, report.at + UNTOLD)


def _severity(report: Report) -> Severity:
    if report.panicked_at is not None:
        return Severity.PANIC
    if report.trapped or (report.kind == "mce" and _FATAL_MCE.match(report.line.text)):
        return Severity.OOPS
    return Severity.WARNING if report.kind in _HARMLESS else Severity.OOPS


def _title(report: Report, function: str | None) -> str:
    if report.words is not None:
        words = _decode(report.header.groups.get("words", b""))
        title = f"Kernel panic: {words}" if words else "Kernel panic"
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
    if comm is None and (owner := details.owner()) is not None:
        return *owner, _int(cpu)
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


# -- damage


def _damage(report: Report, details: Details) -> list[str]:
    found: list[str] = []
    if report.kind not in _TRACELESS and not details.has_trace():
        found.append("it has no call trace")
    if _INNER_TIME.search(report.line.text):
        found.append("another line runs into its first")
    return found
