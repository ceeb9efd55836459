# SPDX-License-Identifier: Apache-2.0
"""Killed anywhere: SIGKILL at a system call, then once more undisturbed: nothing is lost, twice, or left behind.

Every call that changes a disk or tells somebody something is tried, one run each, and every so-many-th of the others.
The kill comes before the call is done, so one at a flush, or at a call that fails, leaves behind what one at the next
call does.  The short way, which ``make test`` goes, leaves those out, and what is printed; and of calls that do the
same to one record, file or crash after the other it takes the first and the last.  ``make proof`` leaves out nothing.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import pstored.cli.archive
import pstored.cli.collect
import pstored.cli.imports
import pstored.quota
import pstored.report
import pstored.sinks.restore
import pstored.stages  # noqa: F401 - slow to import: here once, not in every child
from pstored.cli import run
from pstored.sinks.journal import MESSAGE_ID
from tests.conftest import Done, Root, forked
from tests.proof import strace, workers
from tests.proof.conftest import Tally
from tests.proof.strace import CHANGES, CREATES, FORKS, KILLED, Point
from tests.proof.world import State, World, copy, litter, lost, make_world, remove, state_of, systemd_pstore

FLUSHES = ("fsync", "fdatasync", "sync_file_range", "syncfs")
UNCERTAIN = ("execve", "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "futex")
"""The first is strace's own; how often memory is asked for differs from run to run."""
OTHERS = 60
"""So many of the calls that change nothing; a tenth of them on the short way."""


def quietly(root: Root, *arguments: str) -> Done:
    """Run the program to its end, in a child, where everything is imported already."""

    def child() -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run(["--root", str(root.path), *arguments])
        return Done(status, out.getvalue(), err.getvalue())

    return forked(child)


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
    """An archive that must lose harvests."""
    for number in range(3):
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


class End(NamedTuple):
    """How a world is after the work was done to its end."""

    state: State
    told: list[str]


def end_of(world: World, arguments: tuple[str, ...]) -> tuple[End, list[str]]:
    """Do the work undisturbed, and collect; gives how things are then, and what must not be so."""
    problems = []
    for words in (arguments, ("collect",)):
        done = quietly(world.root, *words)
        if done.status not in (0, 1):
            problems.append(f"{words[0]} exits with {done.status}: {done.stderr}")
    verified = quietly(world.root, "verify")
    if verified.status:
        problems.append(f"verify: {verified.stderr}")
    if left := litter(world.root):
        problems.append(f"litter: {left}")
    told = _told()
    if len(set(told)) < len(told):
        problems.append(f"told twice: {told}")
    crashes = {path.name for path in world.root.crashes()}
    if unknown := [t for t in told if t.split()[0] not in crashes]:
        problems.append(f"told of crashes that are none: {unknown}")
    return End(state_of(world.root), sorted(t.split("-")[1] for t in told)), problems


def _told() -> list[str]:
    """Crash id and revision of each entry in the journal beside us."""
    command = ["journalctl", "--namespace=t", "-q", "--no-pager", "-o", "json", f"MESSAGE_ID={MESSAGE_ID}"]
    entries = map(json.loads, strace.run(command).stdout.splitlines())
    return [f"{entry['PSTORE_CRASH_ID']} {entry['PSTORE_REVISION']}" for entry in entries]


# -- the points


def short_way(points: list[Point], root: Path) -> list[Point]:
    """Of the points that leave something behind that no other leaves, the first and the last of each kind."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        if point.call in FLUSHES or str(root) not in point.text or " = -1 E" in point.text:
            continue
        target = _ID.sub("ID", point.text.partition(str(root))[2])
        target = _RECORD.sub("RECORD", target)
        kinds.setdefault(f"{point.call} {target.split(',')[0]}", []).append(point)
    return [point for kind in kinds.values() for point in (kind[:1] + kind[1:][-1:])]


_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
_RECORD = re.compile(r"(?<=pstore/)[^\"]+(?=\")")


def is_change(point: Point) -> bool:
    """Whether a call changes something, or starts somebody who may."""
    creates = point.call in CREATES and "O_CREAT" in point.text
    return point.call in CHANGES or creates or point.call in FORKS


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


def differences(wanted: End, end: End) -> list[str]:
    """In words."""
    found = [f"told {end.told}, not {wanted.told}"] if end.told != wanted.told else []
    for name, mine, theirs in zip(State._fields, end.state, wanted.state, strict=True):
        if mine != theirs:
            found.append(f"{name}: {_shorter(mine, theirs)}, not {_shorter(theirs, mine)}")
    return found


def _shorter(mine: object, theirs: object) -> str:
    """What is only in *mine*, if they are lists."""
    if isinstance(mine, list) and isinstance(theirs, list):
        mine = [x for x in mine if x not in theirs]
    return repr(mine)[:500]


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
        prepared = beside(lambda: work.prepare(made))
    with workers.journald() as beside:
        traced = copy(prepared, tmp_path / "traced")
        words = strace.command(traced.root.path, *work.arguments)
        _, points = beside(lambda: strace.trace(words, tmp_path / "trace"))
        wanted, problems = beside(lambda: end_of(traced, work.arguments))
    assert not problems
    keep = frozenset(prepared.records).difference(lost(traced))
    changes = [p for p in points if is_change(p)]
    others = [p for p in points if not is_change(p) and p.call not in UNCERTAIN]
    if way == "short":
        changes = short_way(changes, traced.root.path)
    assert len(changes) >= work.least
    tried = changes + some(others, OTHERS if way == "whole" else OTHERS // 10)

    def killed(point: Point) -> str | None:
        return kill(prepared, work, point, wanted=wanted, keep=keep)

    found = workers.in_parallel(killed, tried, scratch=tmp_path / "scratch")
    wrong = [f"killed at {point}: {problem}" for point, problem in zip(tried, found, strict=True) if problem]
    assert not wrong, "\n".join(wrong)
    if way == "whole":  # these were all the calls there are: it survives behind the last of each name
        last = {p.call: p.number for p in points if is_change(p)}
        beyond = [Point(call, number + 1) for call, number in last.items()]
        assert set(workers.in_parallel(killed, beyond, scratch=tmp_path / "scratch")) == {SURVIVED}
    tally(f"system calls at which {name!r} was killed", len(tried))
