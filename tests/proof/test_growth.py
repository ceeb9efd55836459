# SPDX-License-Identifier: Apache-2.0
"""What one more crash costs does not depend on how many there are: the system calls are the same."""

from collections import Counter

from tests.conftest import MakeRoot
from tests.proof import strace
from tests.proof.workers import require_all

PANIC = b"Panic#1 Part1\n<0>[   %d.000001] Kernel panic - not syncing: number %d\n"
AT_ONCE = 6
"""Crashes in a harvest; fewer than the newest, which each new crash is compared with."""


def calls_on_crashes(root: MakeRoot, harvests: int) -> Counter[str]:
    """How often what is called by a collect of one new crash, where so many harvests are."""
    made = root()
    number = 0
    for number in range(1, harvests * AT_ONCE + 1):
        made.add_erst_crash(number, PANIC % (number + 100, number))
        if number % AT_ONCE == 0:
            assert strace.run(strace.command(made.path, "collect")).status == 0
    assert (len(made.harvests()), len(made.crashes())) == (harvests, number)
    made.add_erst_crash(number + 1, PANIC % (number + 101, number + 1))
    done, points = strace.trace(strace.command(made.path, "collect"), made.path / "trace")
    assert done.status == 0
    assert len(made.crashes()) == number + 1
    return Counter(p.call for p in points if f"{made.archive}/crashes/" in p.text)


def test_collect_of_one_more_makes_the_same_calls(root: MakeRoot) -> None:
    """No old crash is opened or looked at; of the harvests, a hundred are, for their consoles."""
    require_all()
    few, many = (calls_on_crashes(root, harvests) for harvests in (4, 12))
    assert few == many
    assert few["openat"] > AT_ONCE
