# SPDX-License-Identifier: Apache-2.0
"""In which order: what a record's erase, an analysis, a receipt stands on is flushed, and read back, before.

From the system calls of real runs.  That the check sees each flush is shown in two ways: with its line taken out of the
trace, and with the flush taken out of the run (strace answers in the kernel's place, and nothing is flushed).
"""

import re

import pytest

from tests.conftest import MakeRoot, Root
from tests.proof import strace
from tests.proof.conftest import Tally
from tests.proof.disk import FLUSHES, too_early
from tests.proof.strace import Point
from tests.proof.workers import journald, require_all
from tests.proof.world import CONFIG

PANIC = b"Panic#1 Part1\n<0>[   7%d.000001] Kernel panic - not syncing: number %d\n"


@pytest.fixture(autouse=True)
def _strace() -> None:
    require_all()


def traced(root: Root, *arguments: str, inject: tuple[str, ...] = ()) -> list[Point]:
    """The system calls of a run."""
    done, points = strace.trace(strace.command(root.path, *arguments), root.path / "trace", options=inject)
    assert done.status == 0, done.stderr
    return points


def early(root: Root, points: list[Point]) -> list[str]:
    """What came too early in a run on this tree."""
    return too_early(points, root=str(root.path), archive=str(root.archive))


def erases(points: list[Point]) -> list[int]:
    """Where in the trace a record is erased."""
    return [at for at, p in enumerate(points) if p.call == "unlink" and "/sys/fs/pstore/" in p.text]


@pytest.fixture
def crashed(root: MakeRoot) -> Root:
    """Two dumps of one EFI crash, and no archive."""
    return root("oops-panic", backend="efi_pstore")


@pytest.fixture
def again(root: MakeRoot) -> Root:
    """An archive, and another crash."""
    made = root()
    made.add_erst_crash(1, PANIC % (1, 1))
    assert strace.run(strace.command(made.path, "collect")).status == 0
    made.add_erst_crash(2, PANIC % (2, 2))
    return made


def test_all_is_flushed_and_read_back_before_the_first_erase(crashed: Root) -> None:
    """The bytes, the names, and every directory on the way there; then all of it is read; then the records go."""
    points = traced(crashed, "harvest")
    assert len(erases(points)) > 3
    assert not crashed.names()
    assert early(crashed, points) == []


@pytest.mark.parametrize("name", ["crashed", "again"])
def test_collect_does_nothing_too_early(name: str, request: pytest.FixtureRequest) -> None:
    """Nor does a harvest count as analyzed before its crashes are safe, with a sink that is still to get them."""
    root: Root = request.getfixturevalue(name)
    root.configure("[journal]\nenabled = true\n")
    points = strace.trace(strace.command(root.path, "collect"), root.path / "trace")[1]  # there may be no journald
    assert [p for p in points if p.call == "rename" and "/outbox/journal/" in p.text]
    assert [p for p in points if p.call == "rename" and "/analyzed.json" in p.text]
    assert early(root, points) == []


def flushes_before(points: list[Point], at: int) -> list[Point]:
    """The flushes that come before a place in the trace."""
    return [p for p in points[:at] if p.call in FLUSHES]


@pytest.mark.parametrize("name", ["crashed", "again"])
def test_the_check_misses_no_flush(name: str, request: pytest.FixtureRequest, tally: Tally) -> None:
    """Without any one of those before the first erase, it says that the erase is too early."""
    root: Root = request.getfixturevalue(name)
    points = traced(root, "harvest")
    flushes = flushes_before(points, erases(points)[0])
    assert len(flushes) >= 4
    needless = [flush for flush in flushes if not early(root, [p for p in points if p is not flush])]
    assert not needless
    tally("flushes whose lack in a trace was noticed", len(flushes))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_run_without_a_flush_is_noticed(again: Root, number: int, tally: Tally) -> None:
    """The flush is really not made: the program is told that it was."""
    points = traced(again, "harvest", inject=("-e", f"inject=fsync:retval=0:when={number}"))
    assert early(again, points)
    tally("flushes whose lack in a run was noticed", 1)


def test_the_check_misses_no_reading_back(again: Root) -> None:
    """Without the reads of the new bundle it says so."""
    points = traced(again, "harvest")
    blind = [p for p in points if not (p.call == "read" and re.search(r"/harvests/\d[^/]+/records\.tar>", p.text))]
    assert len(blind) < len(points)
    assert any("not read back" in problem for problem in early(again, blind))


def test_what_is_due_is_so_until_the_receipt_is_safe(crashed: Root) -> None:
    """The entry in the outbox goes after delivered.json, and its name, are flushed; without that it is noticed."""
    crashed.configure(CONFIG % "false")
    words = strace.command(crashed.path, "collect")
    with journald() as beside:
        done, points = beside(lambda: strace.trace(words, crashed.path / "trace"))
    assert done.status == 0, done.stderr
    assert [p for p in points if p.call == "unlink" and "/outbox/journal/2" in p.text]
    assert early(crashed, points) == []
    last = [p for p in points if p.call in FLUSHES][-1]
    assert early(crashed, [p for p in points if p is not last])
