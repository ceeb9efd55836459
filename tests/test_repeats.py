# SPDX-License-Identifier: Apache-2.0
"""Which crashes go out one by one, and which are counted: no crash is told twice, none is lost, and few messages do."""

from hypothesis import given
from hypothesis import strategies as st

from pstored.delivery.repeats import Crash, Job, Plan, plan

DAY = 86400


def loop(number: int, *, signature: str | None = "s", every_s: int = 60, start: int = 1000) -> list[Crash]:
    """A board that crashes again and again."""
    return [Crash(f"{n:06d}", 1, signature, start + n * every_s) for n in range(number)]


def planned(crashes: list[Crash], settled: dict[str, int] | None = None, now: float = 5000.0) -> Plan:
    """With the defaults: three, then a number, in a day."""
    return plan(crashes, settled or {}, first=3, window_s=DAY, now_s=now)


def members(found: Plan) -> list[list[str]]:
    """Which crashes each job stands for, numbers without their zeros."""
    return [[str(int(member)) for member in job.members] for job in found.jobs]


def test_the_first_few_go_out_one_by_one_and_the_rest_as_a_number() -> None:
    """All that there are at once: those beyond the third are one message."""
    assert members(planned(loop(10))) == [["0"], ["1"], ["2"], ["3", "4", "5", "6", "7", "8", "9"]]


def test_other_signatures_and_none_are_not_counted_together() -> None:
    """A crash that is like no other is told by itself."""
    assert len(planned(loop(10, signature=None)).jobs) == 10
    mixed = [Crash(f"{n:06d}", 1, str(n), 1000 + n) for n in range(10)]
    assert len(planned(mixed).jobs) == 10
    assert len(plan(loop(10), {}, first=0, window_s=DAY, now_s=5000).jobs) == 10


def test_as_they_come_a_number_goes_out_when_it_has_doubled() -> None:
    """One after the other: the first repeat at once, then ever more together; never the same crash twice."""
    settled: dict[str, int] = {}
    sizes = []
    for count in range(1, 68):
        found = planned(loop(count), settled)
        for job in found.jobs:
            assert not settled.keys() & set(job.members)
            sizes.append(len(job.members))
            settled |= dict.fromkeys(job.members, job.revision)
    assert sizes == [1, 1, 1, 1, 1, 2, 4, 8, 16, 32]


def test_what_is_left_goes_out_when_the_window_is_over() -> None:
    """It waits until then, and says so; a later crash begins a new window."""
    crashes = loop(10)
    settled = {crash.id: 1 for crash in crashes[:7]}
    found = planned(crashes, settled)
    assert (found.jobs, found.held, found.next_s) == ((), 3, 1000 + DAY)
    assert members(planned(crashes, settled, now=1000 + DAY)) == [["7", "8", "9"]]
    later = [*crashes, Crash("000010", 1, "s", 1000 + DAY)]
    assert members(planned(later, settled)) == [["7", "8", "9"], ["10"]]


def test_a_later_revision_goes_out_if_its_crash_did_by_itself() -> None:
    """What a later harvest adds to a repeat is nobody's news."""
    crashes = [crash._replace(revision=2) for crash in loop(5)]
    assert members(planned(crashes, {crash.id: 1 for crash in crashes})) == [["0"], ["1"], ["2"]]
    assert planned(crashes[:1], {"000000": 1}).jobs == (Job(("000000",), 2),)


def test_a_clock_that_is_behind_holds_up_no_first_crash() -> None:
    """A board without a clock thinks that it is 1970: repeats go out by their number, nothing is lost."""
    assert members(planned(loop(10), now=0.0)) == [["0"], ["1"], ["2"], ["3", "4", "5", "6", "7", "8", "9"]]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3 * DAY)), max_size=60),
    st.integers(0, 4),
    st.integers(1, 20),
)
def test_whenever_it_is_asked_each_crash_is_in_exactly_one_message(
    found: list[tuple[str, int]], first: int, step: int
) -> None:
    """Crashes come a few at a time, each time what is planned is sent; at the end of time all were told, once."""
    found.sort(key=lambda pair: pair[1])
    crashes = [Crash(f"{n:06d}", 1, signature, time_s) for n, (signature, time_s) in enumerate(found)]
    settled: dict[str, int] = {}
    told: list[str] = []
    for there in [*range(step, len(crashes), step), len(crashes), len(crashes)]:
        now = float("inf") if there == len(crashes) else crashes[there].time_s
        result = plan(crashes[:there], settled, first=first, window_s=DAY, now_s=now)
        told += [member for job in result.jobs for member in job.members]
        settled |= {member: job.revision for job in result.jobs for member in job.members}
        assert result.held == there - len(told)
    assert sorted(told) == [crash.id for crash in crashes]
