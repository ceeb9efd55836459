# SPDX-License-Identifier: Apache-2.0
"""When the daemon's next run is due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.schedule import BURST, BURST_S, SETTLE_MAX_S, SETTLE_S, Schedule


def schedule(retry_s: float = 60, retry_max_s: float = 3600) -> Schedule:
    """With the default times."""
    return Schedule(retry_s=retry_s, retry_max_s=retry_max_s)


def test_nothing_is_due_until_something_is_asked_for() -> None:
    """The daemon sleeps for ever."""
    made = schedule()
    assert made.due() is None
    made.stir(5)
    assert made.due() is None
    assert made.wait_s(5) == 0


def test_a_run_waits_until_nothing_stirs() -> None:
    """One insmod, one run; but what stirs on and on holds it up no longer than some seconds."""
    made = schedule()
    made.ask(100, "a")
    assert made.due() == 100 + SETTLE_S
    made.stir(100.5)
    assert made.due() == 100.5 + SETTLE_S
    for tenth in range(100):
        made.stir(100.5 + tenth / 10)
    assert made.due() == 100 + SETTLE_MAX_S


def test_requests_together_are_one_run() -> None:
    """Its reasons are all named, each once; after it, nothing is due."""
    made = schedule()
    for why in ("a", "b", "a"):
        made.ask(100, why)
    assert made.start(101) == ("a, b", False)
    assert made.due() is None
    made.end(102, done=True, kernel_log=False)
    assert made.due() is None


def test_one_reason_for_the_kernel_log_is_enough() -> None:
    """And it does not stick to the run after that."""
    made = schedule()
    made.ask(100, "a", kernel_log=True)
    made.ask(100, "b")
    assert made.start(101)[1]
    made.ask(102, "c")
    assert not made.start(103)[1]


def test_a_person_does_not_wait() -> None:
    """Neither for silence nor for a back-off that has grown."""
    made = schedule()
    for at in (100, 200):
        made.ask(at, "a")
        made.start(at)
        made.end(at, done=False, kernel_log=False)
    made.ask(300, "a")
    made.ask(300.5, "reload", at_once=True)
    made.stir(300.6)
    assert made.due() == 300.5
    made.start(300.6)
    made.end(301, done=False, kernel_log=False)
    assert made.due() == 301 + 60


def test_what_comes_during_a_run_is_one_more() -> None:
    """Not lost, and not many."""
    made = schedule()
    made.ask(100, "a")
    made.start(101)
    made.ask(102, "b")
    made.ask(103, "c")
    made.end(104, done=True, kernel_log=False)
    assert made.due() == 102 + SETTLE_S
    assert made.start(104)[0] == "b, c"
    made.end(105, done=True, kernel_log=False)
    assert made.due() is None


def test_what_was_left_is_tried_again_ever_later() -> None:
    """Doubled up to the ceiling; as it was, with the kernel's log; a run that was done ends it."""
    made = schedule()
    made.ask(0, "a", kernel_log=True)
    at = 0.0
    for wait in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        why, kernel_log = made.start(at)
        assert kernel_log
        assert why == ("trying again" if at else "a")
        made.end(at, done=False, kernel_log=kernel_log)
        assert made.wait_s(at) == wait
        at += wait
    made.start(at)
    made.end(at, done=True, kernel_log=True)
    assert made.due() is None


def test_an_event_is_a_try_too() -> None:
    """A run in between does what was left: the try that was planned is planned anew."""
    made = schedule()
    made.ask(0, "a")
    made.start(0)
    made.end(0, done=False, kernel_log=False)
    made.ask(10, "b")
    assert made.due() == 10 + SETTLE_S
    assert made.start(11)[0] == "b"
    made.end(12, done=True, kernel_log=False)
    assert made.due() is None


def test_the_follow_up_comes_at_its_time() -> None:
    """A run before that does not take its place, one after that does."""
    made = schedule()
    made.ask(100, "oops", kernel_log=True)
    made.ask_later(130)
    made.start(101)
    made.end(102, done=True, kernel_log=True)
    assert made.due() == 130
    assert "pstore" in made.start(130)[0]
    assert made.due() is None


def test_no_more_than_a_few_runs_a_minute() -> None:
    """A kernel that says something at every run does not keep the machine busy; what is asked for waits."""
    made = schedule()
    at = 0.0
    starts = []
    for _ in range(3 * BURST):
        made.ask(at, "a")
        due = made.due()
        assert due is not None
        starts.append(due)
        made.start(due)
        at = due
    assert all(later - earlier >= BURST_S for earlier, later in zip(starts, starts[BURST:], strict=False))
    assert starts[BURST - 1] < BURST_S


@pytest.mark.parametrize("retry_max_s", [1, 10**6])
def test_many_tries_do_not_overflow(retry_max_s: int) -> None:
    """A machine whose archive is full for years."""
    made = schedule(retry_s=10**6, retry_max_s=retry_max_s)
    for _ in range(5000):
        made.start(0)
        made.end(0, done=False, kernel_log=False)
    assert 0 < made.wait_s(0) <= max(retry_max_s, BURST_S)


STEP = st.tuples(st.floats(0, 100), st.sampled_from(["ask", "at once", "stir", "later", "start", "done", "left"]))


@given(steps=st.lists(STEP, max_size=60))
def test_whatever_happens_a_request_is_answered(steps: list[tuple[float, str]]) -> None:
    """What has been asked for is due until a run starts after that, and within a minute and some seconds."""
    made = schedule()
    now = 0.0
    asked: float | None = None
    for wait, what in steps:
        now += wait
        if what in ("ask", "at once"):
            made.ask(now, "a", at_once=what == "at once")
            asked = now if asked is None else asked
        elif what == "stir":
            made.stir(now)
        elif what == "later":
            made.ask_later(now + 10)
        elif what == "start":
            made.start(now)
            asked = None
        else:
            made.end(now, done=what == "done", kernel_log=False)
        if asked is not None:
            due = made.due()
            assert due is not None
            assert due <= max(asked + SETTLE_MAX_S, now + BURST_S)
