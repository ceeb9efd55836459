# SPDX-License-Identifier: Apache-2.0
"""How much was proven: each test counts what it tried, and the end of the run says it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import TRIED
from tests.proof import strace, workers
from tests.proof.ends import End, end_of
from tests.proof.strace import FORKS, Point
from tests.proof.world import World, copy, make_world

Tally = Callable[[str, int], None]


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count points of a kind that were tried, and have passed."""

    def add(what: str, number: int) -> None:
        request.node.user_properties.append((TRIED, (what, number)))

    return add


HARMLESS = ("execve", "close", "exit_group", "mmap", "ioctl", "lseek", "fadvise64")
"""Not ours, or they do not fail on a plain file, or have done their work by then."""


class Prepared(NamedTuple):
    """A world, and what becomes of it."""

    world: World
    scratch: Path
    wanted: End
    points: list[Point]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """A world in which all goes well: then nothing is left in the store that is not live, and nothing to be said."""
    workers.require_all()
    for name in ("world", "scratch"):
        (tmp_path / name).mkdir()
    world = make_world(tmp_path / "world", odd=False)
    strace.warm_up()
    with workers.journald() as beside:
        traced = copy(world, tmp_path / "scratch/traced")  # as deep as the others: each step there is a call
        words = strace.command(traced.root.path, "collect")
        done, points = beside(lambda: strace.trace(words, tmp_path / "trace"))
        assert (done.status, done.stderr) == (0, "")
        wanted, problems = beside(lambda: end_of(traced, ("collect",)))
    assert not problems
    talks = ("socket", "connect", "sendto", "sendmsg", "pipe2", *FORKS)
    mine = [p for p in points if p.call not in HARMLESS and (str(traced.root.path) in p.text or p.call in talks)]
    mine += [p for p in points if "/proc/self/mountinfo" in p.text]
    texts = [p._replace(text=p.text.replace(str(traced.root.path), "")) for p in mine]
    return Prepared(world, tmp_path / "scratch", wanted, texts)
