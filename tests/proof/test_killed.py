# SPDX-License-Identifier: Apache-2.0
"""Killed anywhere: SIGKILL at a system call, then once more undisturbed: nothing is lost, twice, or left behind.

Every call that changes a disk or tells somebody something is tried, one run each, and every so-many-th of the others.
The kill comes before the call is done, so one at a flush, or at a call that fails, leaves behind what one at the next
call does.  The short way, which ``make test`` goes, leaves those out, and what is printed; and of calls that do the
same to one record, file or crash after the other it takes the first and the last.  ``make proof`` leaves out nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.proof import strace, workers
from tests.proof.conftest import Tally
from tests.proof.ends import End, differences, end_of, quietly
from tests.proof.strace import FLUSHES, KILLED, Point, is_change, of_each_kind
from tests.proof.world import World, copy, lost, make_world, remove, systemd_pstore

UNCERTAIN = ("execve", "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "futex")
"""The first is strace's own; how often memory is asked for differs from run to run."""
OTHERS = 60
"""So many of the calls that change nothing; a tenth of them on the short way."""
UNEVEN = 20
"""Of so many calls one may be lacking in another run, if lines are given back to a journal: a copy of that has as many
writes as blocks, and which of them are holes differs with the times in it."""


def as_it_is(world: World) -> World:
    """A store, and no archive."""
    return world


def collected(world: World) -> World:
    """A machine on which pstored has run."""
    assert quietly(world.root, "collect").status == 1  # some of it stays in the store
    return world


def crashed_again(world: World) -> World:
    """A second crash on top of an archive with some."""
    text = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: once more\n"
    name = collected(world).root.add_erst_crash(7, text)
    return world._replace(records=world.records | {name: text})


def never_told(world: World) -> World:
    """Crashes that no sink has, since there was none; now there are two."""
    settings = (world.root.path / "etc/pstored.conf").read_text()
    world.root.configure("[archive]\nallow_volatile = true\n")
    collected(world)
    world.root.configure(settings)
    assert quietly(world.root, "analyze", "--all").status == 0
    return world


def overfull(world: World) -> World:
    """An archive that must lose harvests: neither the first nor the latest of their signature."""
    for number in range(5):
        world.root.add_erst_crash(number, b"Panic#1 Part1\n<0>[   7%d.000001] Kernel panic - not syncing: x\n" % number)
        collected(world)
    settings = (world.root.path / "etc/pstored.conf").read_text()
    world.root.configure(settings.replace("[archive]", "[archive]\nmax_harvests = 1"))
    return world


class Work(NamedTuple):
    """What is killed."""

    prepare: Callable[[World], World]
    arguments: tuple[str, ...]
    least: int
    """Points that there must be on the short way, at the least."""
    restore: bool = False
    """Lines are given back to a journal, too: on the whole way only, since each run then takes seconds."""


WORKS = {
    "collect": Work(as_it_is, ("collect",), 40, restore=True),
    "a second collect": Work(crashed_again, ("collect",), 25),
    "analyze --all": Work(collected, ("analyze", "--all"), 20),
    "deliver": Work(never_told, ("deliver",), 10, restore=True),
    "collect that prunes": Work(overfull, ("collect",), 20),
    "stamp --end": Work(as_it_is, ("stamp", "--end"), 5),
    "import": Work(systemd_pstore, ("import",), 30),
}


# -- the points


def short_way(points: list[Point]) -> list[Point]:
    """Of the points that leave something behind that no other leaves, the first and the last of each kind."""
    return of_each_kind([p for p in points if p.call not in FLUSHES and " = -1 E" not in p.text])


def some(points: list[Point], number: int) -> list[Point]:
    """So many of them, at even distances."""
    return points[:: max(1, len(points) // number)]


# -- the test


SURVIVED = "it survived"


def kill(prepared: World, work: Work, point: Point, *, wanted: End, keep: frozenset[str]) -> str | None:
    """Kill the work at one point; gives what is wrong then, or SURVIVED; None if all is well."""
    world = copy(prepared, prepared.root.path.parent / "scratch" / "killed")
    words = strace.command(world.root.path, *work.arguments)
    try:
        with workers.journald() as beside:
            done = beside(lambda: strace.inject(words, point, "signal=KILL"))
            if done.status != KILLED:
                return SURVIVED
            gone = keep.intersection(lost(world))
            end, problems = beside(lambda: end_of(world, work.arguments))
    finally:
        remove(world)
    problems += [f"lost: {sorted(gone)}"] if gone else []
    problems += differences(wanted, end)
    return "; ".join(problems) or None


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("way", ["short", pytest.param("whole", marks=pytest.mark.proof)])
def test_killed_anywhere(name: str, way: str, tmp_path: Path, tally: Tally) -> None:
    """What is in the store, in the archive, told, given back and left behind is the same in the end, wherever."""
    workers.require_all()
    work = WORKS[name]
    (tmp_path / "world").mkdir()
    (tmp_path / "scratch").mkdir()
    made = make_world(tmp_path / "world", restore=work.restore and way == "whole")
    with workers.journald() as beside:
        strace.warm_up()
        prepared = beside(lambda: work.prepare(made))
    with workers.journald() as beside:
        traced = copy(prepared, tmp_path / "scratch/traced")  # as deep as the others: each step there is a call
        words = strace.command(traced.root.path, *work.arguments)
        _, points = beside(lambda: strace.trace(words, tmp_path / "trace"))
        wanted, problems = beside(lambda: end_of(traced, work.arguments))
    assert not problems
    keep = frozenset(prepared.records).difference(lost(traced))
    changes = [p for p in points if is_change(p)]
    others = [p for p in points if not is_change(p) and p.call not in UNCERTAIN]
    if way == "short":
        changes = short_way([p for p in changes if str(traced.root.path) in p.text])
    assert len(changes) >= work.least
    tried = changes + some(others, OTHERS if way == "whole" else OTHERS // 10)

    def killed(point: Point) -> str | None:
        return kill(prepared, work, point, wanted=wanted, keep=keep)

    found = workers.in_parallel(killed, tried, scratch=tmp_path / "scratch")
    survived = found.count(SURVIVED)
    may_survive = len(tried) // UNEVEN if work.restore and way == "whole" else 0
    wrong = [f"killed at {point}: {problem}" for point, problem in zip(tried, found, strict=True) if problem]
    wrong = [w for w in wrong if not w.endswith(SURVIVED)] if survived <= may_survive else wrong
    assert not wrong, "\n".join(wrong)
    if way == "whole":  # these were all the calls there are: it survives behind the last of each name
        last = {p.call: p.number for p in points}
        beyond = [Point(call, last[call] + 1 + may_survive) for call in {p.call for p in points if is_change(p)}]
        assert set(workers.in_parallel(killed, beyond, scratch=tmp_path / "scratch")) == {SURVIVED}
    tally(f"system calls at which {name!r} was killed", len(tried) - survived)
