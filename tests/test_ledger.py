# SPDX-License-Identifier: Apache-2.0
"""The ledger: a line a boot, first and last look, closed in order or not, and a file that survives damage."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.archive import Archive
from pstored.boots.ledger import (
    LOOK_AGAIN_S,
    MAX_BOOTS,
    Boot,
    Look,
    Witness,
    format_ledger,
    parse_ledger,
    read_ledger,
    see_boot,
)
from pstored.boots.resetreason import Clue
from pstored.errors import ArchiveError
from pstored.host import Facts
from pstored.stamp import Stamp
from tests.conftest import MakeRoot, Pstored, forked, require
from tests.test_boots import CRASHED, KERNEL, NOW, OLD, T0, VERSION, boot


def facts(boot_id: str | None = NOW, *, wall: float = T0 + 10.0, uptime: float | None = 10.0) -> Facts:
    """What the running system says of itself."""
    return Facts(
        boot_id=boot_id,
        machine_id=None,
        kernel_release=KERNEL,
        kernel_version=VERSION,
        cmdline=None,
        uptime_s=uptime,
        wall_ns=int(wall * 1e9),
        oops_count=0,
        tainted=0,
        backend=None,
    )


def test_the_running_boot_is_noted_once() -> None:
    """First and last look; a look soon after the last is not worth two flushes."""
    once = see_boot([], Look(facts()))
    assert once == [boot(NOW)]
    soon = facts(wall=T0 + 10 + LOOK_AGAIN_S / 2, uptime=10 + LOOK_AGAIN_S / 2)
    assert see_boot(once, Look(soon)) == once
    later = facts(wall=T0 + 10 + LOOK_AGAIN_S, uptime=10 + LOOK_AGAIN_S)
    assert see_boot(once, Look(later)) == [boot(NOW, last=10 + LOOK_AGAIN_S)]


def test_a_stamp_is_noted_at_once_and_stays_noted() -> None:
    """Whether a log would bear it decides attributions."""
    stamped_now = see_boot(see_boot([], Look(facts())), Look(facts(), stamp=Stamp(("/dev/kmsg",), 2.5)))
    assert stamped_now[0].stamped
    assert see_boot(stamped_now, Look(facts(wall=T0 + 9999.0, uptime=9999.0)))[0].stamped


@pytest.mark.parametrize("seen_before", [False, True])
def test_the_time_of_the_stamp_is_noted(seen_before: bool) -> None:
    """Whether the line is the boot's first or is brought up to date."""
    before = see_boot([], Look(facts())) if seen_before else []
    (noted,) = see_boot(before, Look(facts(), stamp=Stamp(("/dev/kmsg",), 2.5)))
    assert (noted.stamped, noted.stamped_uptime) == (True, 2.5)


def test_a_clock_that_was_set_is_noted() -> None:
    """The clock jumped by years within a minute: both beginnings are known."""
    once = see_boot([], Look(facts(wall=10.0)))
    (seen,) = see_boot(once, Look(facts(wall=T0 + 70.0, uptime=70.0)))
    assert seen.starts() == [0.0, T0]


def test_without_a_boot_id_nothing_is_noted() -> None:
    """No /proc."""
    assert see_boot([boot(OLD)], Look(facts(None))) == [boot(OLD)]


def test_the_ledger_keeps_the_newest_boots() -> None:
    """A board that reboots every minute does not fill the disk."""
    many = [boot(f"{n:08x}-1111-4111-8111-111111111111") for n in range(MAX_BOOTS)]
    seen = see_boot(many, Look(facts()))
    assert len(seen) == MAX_BOOTS
    assert seen[-1].boot_id == NOW
    assert seen[0] == many[1]


@given(
    st.lists(
        st.builds(
            Boot,
            boot_id=st.uuids().map(str),
            kernel=st.none() | st.text(max_size=20),
            version=st.none() | st.text(max_size=20),
            first_wall=st.floats(0, 1e11),
            first_uptime=st.none() | st.floats(0, 1e9),
            last_wall=st.floats(0, 1e11),
            last_uptime=st.none() | st.floats(0, 1e9),
            stamped=st.booleans(),
            stamped_uptime=st.none() | st.floats(0, 1e9),
            closes=st.booleans(),
            closed=st.booleans(),
            clues=st.lists(st.builds(Clue, st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))).map(tuple),
            witnesses=st.none() | st.lists(st.builds(Witness, st.booleans(), st.text(max_size=9))).map(tuple),
        ),
        max_size=5,
    )
)
def test_ledgers_round_trip(ledger: list[Boot]) -> None:
    """What is written is read."""
    assert parse_ledger(format_ledger(ledger)) == ledger


@given(st.binary(max_size=300))
def test_a_damaged_ledger_gives_what_is_whole_in_it(junk: bytes) -> None:
    """A torn or strange line is left out; the others count."""
    data = format_ledger([boot(OLD)]) + junk.replace(b"\n", b" ") + b"\n" + format_ledger([boot(NOW)])
    found = parse_ledger(data)
    assert found[0] == boot(OLD)
    assert found[-1] == boot(NOW)


def test_lines_of_a_later_version_are_read() -> None:
    """Keys that this version does not know are nothing to it."""
    line = json.loads(format_ledger([boot(CRASHED)])) | {"ended": "clean"}
    assert parse_ledger(json.dumps(line).encode()) == [boot(CRASHED)]


def test_an_orderly_end_is_noted_at_once() -> None:
    """The last look at a boot is as good as the next one, however soon it comes after the one before."""
    once = see_boot([], Look(facts(), closes=True))
    (closed,) = see_boot(once, Look(facts(wall=T0 + 11.0, uptime=11.0), closes=True, closed=True))
    assert (closed.closed, closed.last_uptime) == (True, 11.0)


def test_a_stop_that_was_called_off_is_none() -> None:
    """A shutdown can be cancelled: whoever looks after it sees a running system."""
    closed = see_boot(see_boot([], Look(facts())), Look(facts(), closed=True))
    assert not see_boot(closed, Look(facts()))[0].closed


def test_nobody_there_to_note_an_end_is_no_witness() -> None:
    """The unit was stopped by hand: that no orderly end is noted from then on means nothing."""
    noted = see_boot(see_boot([], Look(facts(), closes=True)), Look(facts(), closes=False))
    assert not noted[0].closes
    assert see_boot(noted, Look(facts(), closes=True))[0].closes
    kept = see_boot(see_boot([], Look(facts(), closes=True)), Look(facts()))
    assert kept[0].closes  # it could not be told


def test_clues_are_asked_for_once() -> None:
    """They are of the boot before, and do not change; a walk through sysfs at every run would be for nothing."""
    asked: list[str] = []

    def clues() -> tuple[Clue, ...]:
        asked.append("")
        return (Clue("a", "b", "power"),)

    once = see_boot([], Look(facts(), clues=clues))
    assert see_boot(once, Look(facts(wall=T0 + 9999.0, uptime=9999.0), clues=clues))[0].clues == clues()
    assert len(asked) == 2  # the first look, and this test


@pytest.mark.parametrize(
    "change",
    [
        {"boot_id": 7},
        {"version": 7},
        {"first_wall": 1e308},
        {"last_wall": float("nan")},
        {"last_wall": 10**400},
        {"last_wall": None},
        {"last_uptime": -5},
        {"stamped_uptime": "7"},
        {"closed": "no"},
    ],
)
def test_a_line_with_values_that_none_can_have_is_left_out(change: dict[str, object]) -> None:
    """They would be reckoned with, and shown as dates."""
    line = json.loads(format_ledger([boot(OLD)])) | change
    assert parse_ledger(json.dumps(line).encode()) == []


def test_a_line_that_is_nested_without_end_is_left_out() -> None:
    """Python's JSON reader gives up with an error of its own."""
    assert parse_ledger(b"[" * 100_000 + b"\n" + format_ledger([boot(OLD)])) == [boot(OLD)]


def test_a_boot_counts_once() -> None:
    """A file put together from two backups."""
    assert parse_ledger(format_ledger([boot(OLD), boot(NOW), boot(OLD)])) == [boot(OLD), boot(NOW)]


@pytest.mark.parametrize("change", [{"clues": [["a", "b"]]}, {"clues": [1]}, {"witnesses": [[True, 7]]}, {"clues": 7}])
def test_a_line_with_damaged_witnesses_is_left_out(change: dict[str, object]) -> None:
    """Nobody reads half a witness."""
    line = json.loads(format_ledger([boot(OLD)])) | change
    assert parse_ledger(json.dumps(line).encode()) == []


def test_who_may_not_read_the_ledger_is_told(tmp_path: Path) -> None:
    """An empty history would be a lie."""
    require(os.geteuid() == 0, "to lose permissions one must have some")
    (tmp_path / "boots.jsonl").write_bytes(format_ledger([boot(OLD)]))
    tmp_path.chmod(0o700)
    archive = Archive(str(tmp_path))

    def read() -> str:
        os.setgroups([])
        os.setuid(65534)
        with pytest.raises(ArchiveError, match="Permission denied") as e:
            read_ledger(archive)
        return e.value.hint or ""

    assert "run as root" in forked(read)
    assert read_ledger(archive) == [boot(OLD)]


def test_ledger_that_cannot_be_read_now_is_not_forgotten(root: MakeRoot, pstored: Pstored) -> None:
    """Written anew it would know this boot only: it is left as it is, exit 73, and crashes are told all the same."""
    made = root()
    assert pstored("collect", root=made).status == 0
    made.reboot()
    made.add_erst_crash(2, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n")
    ledger = made.archive / "boots.jsonl"
    before = ledger.read_bytes()
    ledger.rename(ledger.with_name("aside"))
    ledger.mkdir()
    done = pstored("collect", root=made)
    assert done.status == 73
    assert "the boots seen so far count for nothing now: cannot read " in done.stderr
    assert len(made.crashes()) == 1
    ledger.rmdir()
    ledger.with_name("aside").rename(ledger)
    assert pstored("collect", root=made).status == 0
    assert ledger.read_bytes().startswith(before.splitlines()[0])
    assert len(read_ledger(Archive(str(made.archive)))) == 2
