# SPDX-License-Identifier: Apache-2.0
"""Every error: one system call on our files fails; nothing is lost, it is said, and the next run puts all right.

The error comes once, in the place of the call, at every call on a file of the store, the archive, /proc, /sys and /etc,
and where somebody is sent something or started: with every errno that fits (``make proof``), or one (``make test``).
"""

from typing import NamedTuple

import pytest

from tests.proof import strace, workers
from tests.proof.conftest import Prepared, Tally
from tests.proof.ends import End, differences, wrong_end, wrong_words
from tests.proof.strace import CREATES, FORKS, Point, is_change, of_each_kind
from tests.proof.world import State, copy, lost, remove

WRITING = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "ENOMEM", "EINTR")
READING = ("EIO", "ENOMEM", "EACCES", "EINTR")
OPENING = ("EMFILE", "ENFILE")
FORKING = ("EAGAIN", "ENOMEM")
SENDING = ("ENOBUFS", "ECONNREFUSED", "EMFILE", "ENOMEM")
OTHERS = 100
"""Points on the short way that change nothing."""
OUTSIDE = ("/sys/fs/pstore/", "/proc/", "/sys/", "/etc/")
"""Below the root: what is not known from there makes another report than if it were, and a record comes later."""


def fitting(point: Point) -> tuple[str, ...]:
    """The errors that this call can have."""
    if point.call in FORKS or point.call == "pipe2":
        return FORKING
    if point.call in ("socket", "connect", "sendto", "sendmsg"):
        return SENDING
    if point.call in CREATES:
        return OPENING + (WRITING if "O_CREAT" in point.text else READING)
    return WRITING if is_change(point) else READING


class Injection(NamedTuple):
    """What fails, and how."""

    point: Point
    error: str

    def __str__(self) -> str:
        return f"{self.error} at {self.point}"


class Told(NamedTuple):
    """A crash, as far as it is the same whenever its records were read: what is no dump may find another place then."""

    boot: str
    severity: str
    dumps: tuple[str, ...]


def crashes_of(state: State) -> list[Told]:
    """The crashes, however many harvests they took."""
    return sorted(
        Told(str(c["boot"]["id"]), c["severity"], tuple(n for n, _ in c["records"] if n.startswith("dmesg")))
        for c in state.crashes
    )


def whole(state: State) -> list[tuple[str, bytes]]:
    """The records that are whole in the archive."""
    return [(a.name, a.data) for a in state.archived if a.error is None]


def unlike(wanted: End, end: End) -> list[str]:
    """What is not the same in the end, where an error has kept something from being seen at first."""
    found = []
    if whole(end.state) != whole(wanted.state):
        found.append(f"archived: {[name for name, _ in whole(end.state)]}")
    if crashes_of(end.state) != crashes_of(wanted.state):
        found.append(f"crashes: {crashes_of(end.state)}, not {crashes_of(wanted.state)}")
    if end.state.store != wanted.state.store:
        found.append(f"in the store: {end.state.store}")
    if end.state.sinks != wanted.state.sinks:
        found.append(f"sinks: {end.state.sinks}")
    return found


def fail(prepared: Prepared, injection: Injection) -> list[str]:
    """Fail at one point; gives what is wrong then."""
    world = copy(prepared.world, prepared.scratch / "failed")
    words = strace.command(world.root.path, "collect")
    try:
        with workers.journald() as beside:
            done = beside(lambda: strace.inject(words, injection.point, f"error={injection.error}"))
            problems = wrong_words(done, injection.error)
            if gone := lost(world):
                problems.append(f"lost: {gone}")
            is_outside = any(path in injection.point.text for path in OUTSIDE)
            if not done.status and not done.stderr and not is_outside:  # then all must be well already
                now = beside(lambda: wrong_end(world, (), unlike, prepared.wanted))
                problems += [f"without a word: {p}" for p in now]
            compare = unlike if is_outside else differences
            problems += beside(lambda: wrong_end(world, ("collect",), compare, prepared.wanted))
    finally:
        remove(world)
    return problems


def injections(points: list[Point], way: str) -> list[Injection]:
    """What fails in which way: all in all ways, or in one the first and last change of a kind, and some others."""
    if way == "whole":
        return [Injection(point, error) for point in points for error in fitting(point)]
    each = of_each_kind(points)
    others = [point for point in each if not is_change(point)]
    some = [point for point in each if is_change(point)] + others[:: max(1, len(others) // OTHERS)]
    return [Injection(point, fitting(point)[at % len(fitting(point))]) for at, point in enumerate(some)]


@pytest.mark.parametrize("way", ["short", pytest.param("whole", marks=pytest.mark.proof)])
def test_every_error(prepared: Prepared, way: str, tally: Tally) -> None:
    """Whatever fails, and however."""
    tried = injections(prepared.points, way)
    assert len(tried) > 100
    found = workers.in_parallel(lambda injection: fail(prepared, injection), tried, scratch=prepared.scratch)
    wrong = [
        f"{injection}: {'; '.join(problems)}" for injection, problems in zip(tried, found, strict=True) if problems
    ]
    assert not wrong, "\n".join(wrong)
    tally("system calls of a collect that failed once", len(tried))
