# SPDX-License-Identifier: Apache-2.0
"""Which crashes go out one by one, and which as a number: a board that crashes in a loop tells so, and floods nobody.

Of the crashes of one loose signature in a window of time the first few go out one by one, each with its report.  The
others are repeats: they go out together, as the newest of them and the number that it stands for.  Not one message
for each: the first at once, and then as many as were told before, so that n repeats are some log2(n) messages; what
is left when the window is over then.  Each crash is in exactly one message, so that numbers can be added up.

Pure.  Time is that of the crash's id, which never goes back, whatever clock the board has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Crash(NamedTuple):
    """A crash of the archive, as far as it matters here."""

    id: str
    revision: int
    signature: str | None
    """The loose one; None: it is like no other."""
    time_s: int
    """Of its id."""


class Job(NamedTuple):
    """Crashes to be sent together, oldest first; mostly one."""

    members: tuple[str, ...]
    revision: int
    """Of the last."""


class Plan(NamedTuple):
    """What is to be sent."""

    jobs: tuple[Job, ...]
    """In order of their last crash."""
    held: int
    """How many crashes wait for others like them."""
    next_s: int | None
    """When those are due at the latest; None if there are none."""


@dataclass(slots=True)
class _Window:
    start_s: int
    crashes: int = 0
    told: int = 0
    """Repeats that went out."""
    repeats: list[Crash] = field(default_factory=list)
    """That did not."""


def plan(
    crashes: Sequence[Crash],
    settled: Mapping[str, int],
    *,
    first: int,
    window_s: int,
    now_s: float,
) -> Plan:
    """What is to be sent of *crashes*.

    Args:
        crashes: all of the archive, in order of their ids.
        settled: crash to the newest revision that is sent, or is in a message already made up.
        first: so many of one signature in a window go out one by one; 0: all.
        window_s: how long a window is.
        now_s: Unix seconds.
    """
    jobs: list[Job] = []
    windows: dict[str, _Window] = {}
    over: list[_Window] = []
    for crash in crashes:
        revision = settled.get(crash.id, 0)
        if crash.signature is None or not first:
            if revision < crash.revision:
                jobs.append(Job((crash.id,), crash.revision))
            continue
        window = windows.get(crash.signature)
        if window is None or crash.time_s >= window.start_s + window_s:
            over += [] if window is None else [window]
            window = windows[crash.signature] = _Window(crash.time_s)
        window.crashes += 1
        if window.crashes <= first:
            if revision < crash.revision:
                jobs.append(Job((crash.id,), crash.revision))
        elif revision:  # what a later revision adds to a repeat is nobody's news
            window.told += 1
        else:
            window.repeats.append(crash)
    held, next_s = 0, None
    for window in windows.values():
        end_s = window.start_s + window_s
        # a clock that is behind what the archive has seen cannot tell: then the number decides
        if now_s >= end_s or len(window.repeats) >= max(1, window.told):
            over.append(window)
        elif window.repeats:
            held += len(window.repeats)
            next_s = end_s if next_s is None else min(next_s, end_s)
    jobs += [Job(tuple(c.id for c in w.repeats), w.repeats[-1].revision) for w in over if w.repeats]
    return Plan(tuple(sorted(jobs, key=lambda job: job.members[-1])), held, next_s)
