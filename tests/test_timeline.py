# SPDX-License-Identifier: Apache-2.0
"""The history on a terminal: lines that align, and a picture that shows each end where it was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.page.timeline import DAYS, duration, render_boots, render_days
from pstored.terminal import Style

DAY = 86400
T0 = 20_000 * DAY
"""A midnight."""
KINDS = ["panic", "oops", "watchdog", "reset", "unknown", "clean", "running"]


def boot(start: float | None, uptime: float | None, kind: str = "clean", **more: Any) -> dict[str, Any]:
    """As ``pstored boots --json`` gives it."""
    return {
        "boot_id": "11111111-2222-4333-8444-555555555555",
        "kernel": "6.1.0",
        "start": None if start is None else "2024-10-04T00:00:00Z",
        "start_s": start,
        "doubtful": start is None,
        "uptime_s": uptime,
        "exact": True,
        "end": {"kind": kind, "unexplained": False, "evidence": ["because"]},
        "crashes": [],
    } | more


def rows(*boots: dict[str, Any], width: int = 80) -> list[str]:
    """The rows of the picture that are days, without their date."""
    lines = render_days(list(boots), width=width).splitlines()
    return [line[12:] for line in lines if line[:4].isdigit()]


def test_a_line_a_boot_with_its_crash_and_the_reason() -> None:
    """All that is asked at night, and no more."""
    text = render_boots(
        [
            boot(T0, 4.0, "panic", crashes=["20261123T000000Z-c3b57dbfaaaa"]),
            boot(T0 + 60, 3600.0 * 30, "reset", exact=False),
            boot(None, None, "running"),
        ]
    )
    head, panic, reset, running = text.splitlines()
    assert head.split() == ["BOOT", "START", "(UTC)", "LENGTH", "END", "CRASH", "WHY"]
    assert "4.0 s" in panic
    assert "c3b57dbf" in panic
    assert "≥ 30 h 00" in reset
    assert "unknown" in running
    assert head.index("END") == panic.index("panic") == reset.index("reset") == running.index("running")


def test_lines_are_cut_to_the_terminal_and_coloured_in_place() -> None:
    """Colour changes no column."""
    boots = [boot(T0, 4.0, kind) for kind in KINDS]
    plain = render_boots(boots, width=60).splitlines()
    assert all(len(line) <= 60 for line in plain)
    coloured = render_boots(boots, style=Style(color=True), width=60)
    assert "\x1b[1;31mpanic\x1b[0m" in coloured
    for number in ("1;31", "33", "32", "2", "0"):
        coloured = coloured.replace(f"\x1b[{number}m", "")
    assert coloured.splitlines() == plain


def test_on_a_narrow_terminal_the_end_is_shown() -> None:
    """It is what was asked."""
    for line, kind in zip(
        render_boots([boot(T0, 36000.0, k) for k in KINDS], width=40).splitlines()[1:], KINDS, strict=True
    ):
        assert len(line) <= 40
        assert kind in line


def test_evidence_cannot_act_on_the_terminal() -> None:
    """A crash title comes from a record."""
    end = {"kind": "panic", "unexplained": False, "evidence": ["\x1b[2Jgone\nnext"]}
    assert "\x1b" not in render_boots([boot(T0, 1.0, end=end)])
    assert len(render_boots([boot(T0, 1.0, end=end)]).splitlines()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_stands_where_it_was(kind: str) -> None:
    """From six to twelve: a rule, and the letter at noon; before and after, nothing is known."""
    (row,) = rows(boot(T0 + 6 * 3600, 6 * 3600.0, kind))
    assert len(row) == 48
    assert row[:12] == "·" * 12
    assert row[12:24] == "─" * 12
    assert row[24] not in "·─"
    assert row[25:] == "·" * 23


def test_of_several_ends_in_a_cell_the_worst_is_shown() -> None:
    """A panic is not hidden by the clean reboot after it."""
    (row,) = rows(boot(T0, 60.0, "panic"), boot(T0 + 100, 60.0, "clean"), boot(T0 + 200, 60.0, "reset"))
    assert row[0] == "P"


def test_a_boot_over_midnight_is_on_both_days_and_gaps_are_said() -> None:
    """A row each; days on which nothing is known are counted, not drawn."""
    text = render_days([boot(T0 + 23 * 3600, 7200.0), boot(T0 + 5 * DAY, 60.0)], width=80)
    assert len([line for line in text.splitlines() if line[:4].isdigit()]) == 3
    assert "(3 days without a boot)" in text


def test_a_machine_that_ran_for_years_has_a_bounded_picture() -> None:
    """The newest days."""
    assert len(rows(boot(T0, 4000.0 * DAY))) == DAYS


def test_boots_without_a_clock_have_no_place() -> None:
    """1970 is no day to draw."""
    assert render_days([boot(0.0, 60.0, doubtful=True), boot(None, None)]) == ""


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2e10),
            st.none() | st.floats(0, 1e9),
            st.sampled_from(KINDS),
        ),
        max_size=6,
    ),
    st.integers(20, 300),
)
def test_any_history_gives_a_picture(boots: list[tuple[float, float | None, str]], width: int) -> None:
    """Overlapping, absurd, far apart: rows of one length, and no exception."""
    made = [boot(start, uptime, kind) for start, uptime, kind in boots]
    assert len({len(row) for row in rows(*made, width=width)}) <= 1
    assert len(render_boots(made).splitlines()) == len(made) + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (119.94, "119.9 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h 00"), (172800, "2 d 00 h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """As a column wants them."""
    assert duration(seconds) == text
