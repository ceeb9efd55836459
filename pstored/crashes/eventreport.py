# SPDX-License-Identifier: Apache-2.0
"""A report of the kernel as it stands in ``crash.json``: what the analyzer understood of it, bounded."""

from pydantic import BaseModel, ConfigDict, Field

from pstored.oops import Event, Frame, Severity, explain_taint
from pstored.terminal import visible

MOST_FRAMES = 64
"""Of one trace: a kernel stack of 16 KiB rarely holds more, and what recurses only repeats itself."""
LONGEST = 300
"""Characters of a text that a record wrote."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaintReport(_Model):
    """A letter behind ``Tainted:``."""

    letter: str
    meaning: str


class FrameReport(_Model):
    """A line of a call trace; null is what it does not say."""

    function: str | None = Field(description="as the kernel names it; null where only an address stands")
    offset: int | None
    size: int | None
    module: str | None
    reliable: bool = Field(description="false for what may only have been left on the stack: ?, (unreliable)")


class EventReport(_Model):
    """A report of the kernel; null is what its text does not say."""

    kind: str
    title: str
    severity: Severity
    function: str | None = Field(description="the function to look at")
    pc_function: str | None = Field(description="where the processor was")
    signature: str = Field(description="strict: by kind and the first meaningful frames; see the README")
    signature_loose: str = Field(description="by kind and function")
    tails: list[str] = Field(description="words of the panics that belong to it")
    comm: str | None
    pid: int | None
    cpu: int | None
    hardware: str | None
    taint: list[TaintReport] | None = Field(description="empty: the kernel was not tainted")
    call_trace: list[FrameReport] = Field(description=f"innermost first; at most {MOST_FRAMES} frames")
    frames_left_out: int = Field(description="frames of the trace beyond those")
    damaged: list[str] = Field(description="what makes the report doubtful; empty if nothing does")


def build_event(event: Event) -> EventReport:
    """One report, bounded."""
    return EventReport(
        kind=event.kind,
        title=one_line(event.title),
        severity=event.severity,
        function=event.function,
        pc_function=event.pc_function,
        signature=event.strict,
        signature_loose=event.loose,
        tails=[one_line(tail) for tail in event.tails],
        comm=event.comm,
        pid=event.pid,
        cpu=event.cpu,
        hardware=event.hardware,
        taint=None
        if event.taint is None
        else [TaintReport(letter=a, meaning=b) for a, b in explain_taint(event.taint)],
        call_trace=[_frame(frame) for frame in event.call_trace[:MOST_FRAMES]],
        frames_left_out=max(0, len(event.call_trace) - MOST_FRAMES),
        damaged=[one_line(doubt) for doubt in event.damaged],
    )


def _frame(frame: Frame) -> FrameReport:
    return FrameReport(
        function=frame.function, offset=frame.offset, size=frame.size, module=frame.module, reliable=frame.reliable
    )


def one_line(text: str) -> str:
    """What comes from a record on one line, with nothing that a terminal acts on."""
    return visible(text)[:LONGEST]
