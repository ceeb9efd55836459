# SPDX-License-Identifier: Apache-2.0
"""What each kind of report means, and where to look; what a task is."""

import pytest

from pstored.oops import KINDS
from pstored.oops.meaning import LOOK, describe_task

LINE = 118
"""Columns of a page that are left for it."""


def test_every_kind_has_two_lines() -> None:
    """What it means, and where to look: no kind without, none that is not one, in one order."""
    assert list(LOOK) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_lines_are_lines(kind: str) -> None:
    """Of a page at night."""
    for text in (KINDS[kind], f"look {LOOK[kind]}"):
        assert text.isprintable()
        assert len(text) <= LINE
        assert not text.endswith(".")
    assert LOOK[kind].startswith("at ")


@pytest.mark.parametrize(
    ("comm", "pid", "words"),
    [
        ("swapper/1", 0, "idle task"),
        ("systemd", 1, "first process"),
        ("kworker/0:1", 83, "queued work"),
        ("kworker/0:1", None, "queued work"),
        ("init", 83, None),
        ("init", None, None),
    ],
)
def test_a_task_is_explained_where_name_and_number_tell(comm: str, pid: int | None, words: str | None) -> None:
    """And nothing is made up of the others."""
    said = describe_task(comm, pid)
    assert said == words or (said is not None and words is not None and words in said)
