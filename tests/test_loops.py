# SPDX-License-Identifier: Apache-2.0
"""Crash loops: what is a row of boots, what ends it, and where it is said."""

import json
from typing import Any

import pytest

from pstored.crashes.loops import SOON_S, End, Ended, Row, Rows, follow, read_row, words
from pstored.sinks.journal import fields
from tests.conftest import MakeRoot, Pstored, Root

BOOTS = tuple(f"{n:08x}-8888-4777-8666-555555555555" for n in range(10))
SAME = b"Panic#1 Part1\n<12>[    1.000000] pstored: boot %s\n<0>[   77.000001] Kernel panic - not syncing: the same\n"


def end(boot: int, **fields: Any) -> End:
    """Boot number *boot* panicked soon, and the next one collected that."""
    known: dict[str, Any] = {
        "boot": BOOTS[boot],
        "signature": "s",
        "panicked": True,
        "uptime_s": 12.0,
        "wall": f"2026-11-23T04:0{boot}:00Z",
        "collected_by": BOOTS[boot + 1],
    }
    return End(**known | fields)


def rows(ends: list[End], boots: tuple[str, ...] = BOOTS) -> list[int]:
    """How many in a row at each of these crashes, collected one after the other."""
    seen = Rows()
    counts = []
    for at, one in enumerate(ends):
        crash_id = f"20261123T04{at:02d}00Z-0123456789ab"
        row = follow(seen.before(crash_id, 0), one, boots)
        counts.append(row.length)
        summary = {"boot": one.boot, "signature_loose": one.signature}
        kept = {"count": row.length, "since": row.since, "collected_by": row.collected_by}
        seen.put(summary | {"id": crash_id, "order": 0, "row": kept})
    return counts


def test_boots_that_follow_one_another_are_a_row() -> None:
    """Each is collected by the one that crashes next."""
    assert rows([end(n) for n in range(5)]) == [1, 2, 3, 4, 5]


def test_row_knows_when_it_began() -> None:
    """By the clock of its first boot."""
    first = Ended("20261123T040000Z", 0, "20261123T040000Z-0123456789ab", BOOTS[0], "s", Row(7, "then", BOOTS[1]))
    assert follow(first, end(1), BOOTS) == Row(8, "then", BOOTS[2])
    assert words(8, "2026-11-23T04:18:57Z") == "crash loop: 8 boots in a row since 2026-11-23 04:18"
    assert words(8, None) == "crash loop: 8 boots in a row"


@pytest.mark.parametrize(
    "other",
    [{"signature": "t"}, {"signature": None}, {"panicked": False}, {"uptime_s": SOON_S + 1}, {"uptime_s": None}],
    ids=str,
)
def test_another_end_ends_the_row(other: dict[str, Any]) -> None:
    """Another bug, an oops that was survived, a boot that was of use, or nobody knows how long it lived."""
    assert rows([end(0), end(1), end(2, **other), end(3), end(4)])[3:] == [1, 2]


def test_boot_that_lived_in_between_ends_the_row() -> None:
    """It collected the crash, and did not crash; it is in the ledger, or crashed before anybody could note it."""
    assert rows([end(0), end(1), end(3), end(4)]) == [1, 2, 1, 2]
    assert rows([end(0), end(2, collected_by=BOOTS[3])], boots=(BOOTS[0], BOOTS[1], BOOTS[3])) == [1, 1]


def test_boot_that_is_not_named_is_the_one_in_between() -> None:
    """If there is one; of two, one has lived."""
    assert rows([end(n)._replace(boot=None) for n in range(4)]) == [1, 2, 3, 4]
    assert rows([end(0)._replace(boot=None), end(2)._replace(boot=None)]) == [1, 1]


def test_boots_that_crashed_before_the_ledger_are_a_row() -> None:
    """EFI and ERST hold several; one boot collects them all."""
    all_at_once = [end(n, collected_by=BOOTS[9]) for n in range(4)]
    assert rows(all_at_once, boots=(BOOTS[9],)) == [1, 2, 3, 4]
    assert rows([one._replace(boot=None) for one in all_at_once], boots=()) == [1, 2, 3, 4]


def test_another_crash_of_the_same_boot_counts_once() -> None:
    """What could not be told to be one crash is of one boot all the same."""
    assert rows([end(0), end(1), end(1), end(2)]) == [1, 2, 2, 3]


def test_order_is_that_of_collection() -> None:
    """Whatever order crashes are read in, and however often."""
    seen = Rows()
    for at in (3, 1, 2, 1):
        kept = {"count": at, "since": None, "collected_by": None}
        row = {"id": f"2026112{at}T000000Z-0123456789ab", "order": 0, "boot": None, "signature_loose": "s", "row": kept}
        seen.put(row)
    before = seen.before("20261123T000000Z-0123456789ab", 0)
    assert before is not None
    assert before.row.length == 2
    assert seen.before("20261121T000000Z-0123456789ab", 0) is None


@pytest.mark.parametrize(
    "row",
    [
        None,
        7,
        [],
        {},
        {"count": 1},
        {"count": "x", "since": None, "collected_by": None},
        {"count": float("inf"), "since": None, "collected_by": None},
        {"count": 3, "since": 7, "collected_by": None},
        {"count": 3, "since": None, "collected_by": []},
    ],
)
def test_rows_that_are_none(row: object) -> None:
    """Of an older report, of a machine of which nothing is known, or damaged."""
    summary = {"id": "20261123T000000Z-0123456789ab", "order": 0, "boot": None, "signature_loose": None, "row": row}
    assert read_row(summary) is None
    assert Rows([summary]).before("20271123T000000Z-0123456789ab", 0) is None


@pytest.mark.parametrize("again", [True, False])
def test_row_keeps_the_count_of_a_crash_that_was_an_oops_first(again: bool) -> None:
    """The oops' harvest is taken, then the panic's, in one run; the crashes before it are pruned."""
    had = {"count": 5, "since": "then", "collected_by": None}
    crash_id = "20261123T040000Z-0123456789ab"
    summary = {"id": crash_id, "order": 0, "boot": "b", "signature_loose": "s"}
    seen = Rows([summary | {"row": had}], again=again)
    oops = End("b", "s", False, 12.0, "w", None)
    row = seen.row(crash_id, 0, oops, [])
    assert row.length == 0
    seen.put(summary | {"row": row.document()})
    assert seen.row(crash_id, 0, oops._replace(panicked=True), []) == Row(5, "then", None)


# -- the whole way


def crash(root: Root, number: int) -> None:
    """The boot that runs is *number*: the one before it has left its crash."""
    before = f"{number - 1:08x}-8888-4777-8666-555555555555"
    root.add_erst_crash(number, SAME % before.encode())


def test_loop_is_said_everywhere(root: MakeRoot, pstored: Pstored) -> None:
    """From the third boot on: what collect says, the list, the page, crash.json; and done anew, the same."""
    made = root()
    said = []
    for number in range(1, 5):
        crash(made, number)
        done = pstored("collect", root=made)
        assert done.status == 0
        said.append("(crash loop: " in done.stdout)
    assert said == [False, False, True, True]
    reports = [made.load(f"crashes/{path.name}/crash.json") for path in made.crashes()]
    assert [None if r["loop"] is None else r["loop"]["count"] for r in reports] == [None, None, 3, 4]
    assert [r["boot"]["id"] for r in reports] == [BOOTS[n] for n in range(4)]
    assert reports[3]["loop"]["since"] == reports[0]["time"]["wall"]
    *_, third, fourth = pstored("list", root=made).stdout.splitlines()
    assert third.endswith("(crash loop: 3 boots in a row since 2026-11-06 21:36)")
    assert "4 boots in a row" in fourth
    assert "crash loop: 4 boots in a row since" in pstored("show", root=made).stdout
    entries = [fields(report, text=b"", report_path="/x", cap=0) for report in reports]
    assert [entry.get("PSTORE_LOOP") for entry in entries] == [None, None, "3", "4"]
    assert str(entries[3]["MESSAGE"]).startswith("crash loop: 4 boots in a row since 2026-11-06 21:36: Kernel panic")
    assert pstored("analyze", "--all", root=made).status == 0
    assert [made.load(f"crashes/{path.name}/crash.json")["loop"] for path in made.crashes()] == [
        r["loop"] for r in reports
    ]


def test_loop_is_counted_on_when_the_first_are_gone(root: MakeRoot, pstored: Pstored) -> None:
    """The archive's limits take most of a long loop; how long it was, is still said, also when all is done anew."""
    made = root()
    made.configure("[archive]\nmax_harvests = 2\n")
    for number in range(1, 8):
        crash(made, number)
        assert pstored("collect", root=made).status == 0
    assert [s["row"]["count"] for s in json.loads(pstored("list", "--json", root=made).stdout)["crashes"]] == [1, 7]
    assert pstored("analyze", "--all", root=made).status == 0
    assert [s["row"]["count"] for s in json.loads(pstored("list", "--json", root=made).stdout)["crashes"]] == [1, 7]


def test_boot_that_lives_ends_the_loop(root: MakeRoot, pstored: Pstored) -> None:
    """Somebody has mended it: the next crash is the first of another row."""
    made = root()
    for number in (1, 2, 3):
        crash(made, number)
        assert pstored("collect", root=made).status == 0
    made.reboot("77777777-8888-4777-8666-555555555555")
    assert pstored("collect", root=made).status == 0
    crash(made, 5)
    assert "crash loop" not in pstored("collect", root=made).stdout
