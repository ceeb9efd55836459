# SPDX-License-Identifier: Apache-2.0
"""The journal as a witness, on real journal files: what it says of boots, and which boot crashed by it."""

import faulthandler
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture
from fake_pstore.host import MACHINE_ID
from pstored.analyze import analyze
from pstored.archive import Archive
from pstored.config import Config
from pstored.host import Host
from pstored.journal import bootjournal
from pstored.journal.bootjournal import MAX_ENTRIES, BootJournal, JournalBoot
from tests.conftest import MakeRoot, Pstored, Root, forked, require
from tests.journalfiles import Entry, kernel_entries, write_journal

A, B, C = (f"{n * 8}-1111-4111-8111-111111111111" for n in "abc")
YEAR_1970, YEAR_2026, YEAR_2037 = 10_000_000, 1_795_000_000_000_000, 2_120_000_000_000_000
"""Microseconds since 1970."""
JOURNAL = f"var/log/journal/{MACHINE_ID}"

Lines = list[tuple[int, bytes]]


def boots_with(journal: BootJournal, lines: Iterable[tuple[int, bytes]]) -> dict[str, int]:
    """Boot ids, and of how many of *lines* each boot's journal has the equal."""
    return {boot_id: len(found) for boot_id, found in journal.equal_lines(lines).items()}


def log(boot: int, count: int = 60) -> Lines:
    """Kernel lines: nanoseconds since boot, on the microsecond, and text; the texts are every boot's."""
    return [(3_000_000_000 + at * 1_234_567_000 + boot * 13_000, b"line %d" % at) for at in range(count)]


def journal_of(root: Path) -> BootJournal:
    """The journal of a tree."""
    return BootJournal(Host(str(root)))


def write(root: Path, *boots: tuple[str, Lines, int], **options: Any) -> Path:
    """Write the journal of a tree: boots with their lines, and when they began by their clock, microseconds."""
    entries = [e for boot_id, lines, began in boots for e in kernel_entries(boot_id, lines, began_us=began)]
    write_machine_id(root)
    return write_journal(root / JOURNAL, entries, **options)


def write_machine_id(root: Path, machine_id: str = MACHINE_ID) -> None:
    """Write etc/machine-id."""
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text(machine_id + "\n")


# -- lines


def test_the_boot_with_equal_lines_is_found(tmp_path: Path) -> None:
    """Equal text and equal microsecond, counted for each boot."""
    write(tmp_path, (A, log(1), YEAR_2026), (B, log(2), YEAR_2026 + 10**9))
    journal = journal_of(tmp_path)
    assert boots_with(journal, log(1)) == {A: 60}
    assert boots_with(journal, [*log(1)[:7], *log(2)[:5]]) == {A: 7, B: 5}
    assert journal.equal_lines([*log(1)[:2], (17, b"elsewhere")]) == {A: set(log(1)[:2])}
    assert journal.problem is None


def test_text_and_time_must_both_be_equal(tmp_path: Path) -> None:
    """One microsecond, or one byte, and it is another line."""
    write(tmp_path, (A, log(1), YEAR_2026))
    later = [(time + 1000, text) for time, text in log(1)]
    other = [(time, text + b".") for time, text in log(1)]
    journal = journal_of(tmp_path)
    assert boots_with(journal, later) == {}
    assert boots_with(journal, other) == {}
    assert journal.problem is None


def test_nanoseconds_within_the_microsecond_are_no_difference(tmp_path: Path) -> None:
    """What is asked comes back as it was asked."""
    write(tmp_path, (A, log(1), YEAR_2026))
    asked = [(time + 999, text) for time, text in log(1)[:3]]
    assert journal_of(tmp_path).equal_lines(asked) == {A: set(asked)}


def test_bytes_that_are_no_text_are_compared_as_bytes(tmp_path: Path) -> None:
    """journald undoes the escapes of /dev/kmsg: what is stored is what the kernel wrote."""
    odd: Lines = [
        (3_000_001_000, b"serial \xff\xfe\x80 noise"),
        (3_000_002_000, b"\x1b[31mred\x1b[0m"),
        (3_000_003_000, b"back\\slash \\x41"),
        (3_000_004_000, "Über".encode()),
        (3_000_005_000, b"  indented, and a blank behind "),
        (3_000_006_000, b"a carriage return\r"),
    ]
    write(tmp_path, (A, odd, YEAR_2026))
    asked = [(time, text.removesuffix(b"\r")) for time, text in odd]
    journal = journal_of(tmp_path)
    assert boots_with(journal, asked) == {A: len(odd)}
    assert journal.kernel_lines(A, [time // 1000 for time, _ in odd]) == Counter((t // 1000, x) for t, x in asked)


def test_a_message_of_several_lines_is_several_lines(tmp_path: Path) -> None:
    """The kernel log shows each with the same time; journald stores them as one."""
    write(tmp_path, (A, [(3_000_001_000, b"first\nsecond\nthird")], YEAR_2026))
    asked = [(3_000_001_000, b"first"), (3_000_001_000, b"third"), (3_000_001_000, b"fourth")]
    assert boots_with(journal_of(tmp_path), asked) == {A: 2}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"SYSLOG_IDENTIFIER": "systemd", "SYSLOG_PID": "1"}, b"systemd[1]: Started it."),
        ({"SYSLOG_IDENTIFIER": "dracut"}, b"dracut: Started it."),
        ({"SYSLOG_IDENTIFIER": b"n\xffame"}, b"n\xffame: Started it."),
    ],
)
def test_the_name_that_journald_takes_off_is_put_back(
    fields: dict[str, str | bytes], text: bytes, tmp_path: Path
) -> None:
    """Lines that user space wrote to /dev/kmsg stand in the kernel log with name and process."""
    (entry,) = kernel_entries(A, [(3_000_001_000, b"Started it.")], began_us=YEAR_2026)
    write_machine_id(tmp_path)
    write_journal(tmp_path / JOURNAL, [{**entry, "SYSLOG_FACILITY": 3, **fields}])
    assert boots_with(journal_of(tmp_path), [(3_000_001_000, text)]) == {A: 1}
    assert journal_of(tmp_path).kernel_lines(A, [3_000_001]) == {(3_000_001, text): 1}


def test_lines_that_pstored_gave_back_are_no_witnesses(tmp_path: Path) -> None:
    """Who named the boot would confirm himself; but they are there, and need not be given back again."""
    restored: list[Entry] = [{**entry, "PSTORE_RESTORED": 1} for entry in kernel_entries(A, log(1), began_us=YEAR_2026)]
    write_machine_id(tmp_path)
    write_journal(tmp_path / JOURNAL, restored, name="pstored.journal")
    journal = journal_of(tmp_path)
    assert boots_with(journal, log(1)) == {}
    assert len(journal.kernel_lines(A, [time // 1000 for time, _ in log(1)])) == 60
    assert [boot.boot_id for boot in journal.boots()] == [A]


def test_only_kernel_lines_count(tmp_path: Path) -> None:
    """Another transport's text is not the kernel's."""
    entries: list[Entry] = [{**e, "_TRANSPORT": "syslog"} for e in kernel_entries(A, log(1), began_us=YEAR_2026)]
    write_machine_id(tmp_path)
    write_journal(tmp_path / JOURNAL, entries)
    journal = journal_of(tmp_path)
    assert boots_with(journal, log(1)) == {}
    assert journal.kernel_lines(A, [time // 1000 for time, _ in log(1)]) == Counter()


def test_kernel_lines_are_counted_for_one_boot(tmp_path: Path) -> None:
    """At the times asked for and no other; a line that is there twice is twice."""
    same: Lines = [(0, b"at zero"), (0, b"at zero"), (0, b"too"), (5_000_000_000, b"later")]
    write(tmp_path, (A, same, YEAR_2026), (B, same, YEAR_2026 + 10**9))
    journal = journal_of(tmp_path)
    assert journal.kernel_lines(A, [0]) == {(0, b"at zero"): 2, (0, b"too"): 1}
    assert journal.kernel_lines(B, [0, 5_000_000, 77])[5_000_000, b"later"] == 1
    assert journal.kernel_lines(C, [0]) == Counter()
    assert journal.kernel_lines(A, []) == Counter()


# -- boots


def test_boots_have_their_first_and_last_entry(tmp_path: Path) -> None:
    """By both clocks, oldest first."""
    write(tmp_path, (A, log(1), YEAR_2026), (B, log(2), YEAR_2026 + 10**9))
    first, last = log(1)[0][0] // 1000, log(1)[-1][0] // 1000
    boots = journal_of(tmp_path).boots()
    assert boots[0] == JournalBoot(A, YEAR_2026 + first, first, YEAR_2026 + last, last)
    assert [boot.boot_id for boot in boots] == [A, B]


def test_the_newest_boots_are_given(tmp_path: Path) -> None:
    """Two journal reads a boot, not the whole journal."""
    ids = [f"{n:08x}-1111-4111-8111-111111111111" for n in range(30)]
    write(tmp_path, *((boot_id, log(n), YEAR_2026 + n * 10**9) for n, boot_id in enumerate(ids)))
    journal = journal_of(tmp_path)
    assert [boot.boot_id for boot in journal.boots(4)] == ids[-4:]
    assert journal.looked_at == 2 * len(ids)
    assert [boot.boot_id for boot in journal.boots()] == ids


@pytest.mark.parametrize("began", [(YEAR_2037, YEAR_1970, YEAR_2026), (YEAR_2026, YEAR_2037, YEAR_1970)])
def test_boots_follow_each_other_whatever_their_clocks_say(began: tuple[int, int, int], tmp_path: Path) -> None:
    """journald numbers its entries."""
    write(tmp_path, *zip((A, B, C), (log(1), log(2), log(3)), began, strict=True))
    assert [boot.boot_id for boot in journal_of(tmp_path).boots()] == [A, B, C]


def test_a_boot_whose_clock_was_set_is_one_boot(tmp_path: Path) -> None:
    """First and last go by the time since boot."""
    early, late = log(1)[:30], log(1)[30:]
    write(tmp_path, (A, early, YEAR_2037), (A, late, YEAR_2026))
    (boot,) = journal_of(tmp_path).boots()
    assert boot.first_wall_us == YEAR_2037 + early[0][0] // 1000
    assert boot.last_wall_us == YEAR_2026 + late[-1][0] // 1000
    assert boot.last_monotonic_us == late[-1][0] // 1000


def test_a_boot_in_the_volatile_and_in_the_persistent_journal_is_one(tmp_path: Path) -> None:
    """/run/log/journal holds what was not flushed to /var; the clock was set back in between."""
    write(tmp_path, (A, log(1)[:30], YEAR_2037))
    write_journal(tmp_path / f"run/log/journal/{MACHINE_ID}", kernel_entries(A, log(1)[30:], began_us=YEAR_2026))
    journal = journal_of(tmp_path)
    (boot,) = journal.boots()
    assert (boot.first_monotonic_us, boot.last_monotonic_us) == (log(1)[0][0] // 1000, log(1)[-1][0] // 1000)
    assert boot.last_wall_us == YEAR_2026 + boot.last_monotonic_us
    assert boots_with(journal, log(1)) == {A: 60}
    assert [e["MESSAGE"] for e in journal.last_entries(A, 40)] == [text.decode() for _, text in log(1)[20:]]


def test_the_last_entries_of_a_boot(tmp_path: Path) -> None:
    """Oldest first, whole, and no other boot's."""
    write(tmp_path, (A, [*log(1), (10**12, b"the end\xff")], YEAR_2026), (B, log(2), YEAR_2026 + 10**9))
    entries = journal_of(tmp_path).last_entries(A, 3)
    assert [e["MESSAGE"] for e in entries] == ["line 58", "line 59", b"the end\xff"]
    assert entries[-1]["__MONOTONIC_TIMESTAMP"] == 10**9
    assert entries[-1]["__REALTIME_TIMESTAMP"] == YEAR_2026 + 10**9
    assert entries[-1]["SYSLOG_IDENTIFIER"] == "kernel"
    assert entries[-1]["_BOOT_ID"] == A.replace("-", "")
    assert journal_of(tmp_path).last_entries(C) == []


# -- which journal


def test_no_journal(tmp_path: Path) -> None:
    """Nothing is known, and that is said."""
    journal = journal_of(tmp_path)
    assert journal.problem is not None
    assert "there is no journal in" in journal.problem
    assert knows_nothing(journal)


def knows_nothing(journal: BootJournal) -> bool:
    """Every answer is empty."""
    return not (
        journal.boots()
        or boots_with(journal, log(1))
        or journal.kernel_lines(A, [3_000_000])
        or journal.last_entries(A)
    )


def test_another_machines_journal_is_left_alone(tmp_path: Path) -> None:
    """journalctl does not show it, either; without a machine id of its own, a tree has no other."""
    write(tmp_path, (A, log(1), YEAR_2026))
    write_machine_id(tmp_path, "0" * 31 + "1")
    journal = journal_of(tmp_path)
    assert knows_nothing(journal)
    assert journal.problem is not None
    (tmp_path / "etc/machine-id").unlink()
    assert boots_with(journal_of(tmp_path), log(1)) == {A: 60}


def test_a_directory_that_is_no_machines_is_not_looked_into(tmp_path: Path) -> None:
    """journal-remote's is /var/log/journal/remote: other machines."""
    write_journal(tmp_path / "var/log/journal/remote", kernel_entries(A, log(1), began_us=YEAR_2026))
    assert knows_nothing(journal_of(tmp_path))


def test_without_permission_nothing_is_known(tmp_path: Path) -> None:
    """And that is said: an empty answer would look like a journal without the boot."""
    require(os.geteuid() == 0, "another user is tried, which needs root")
    file = write(tmp_path, (A, log(1), YEAR_2026))
    file.chmod(0o600)
    tmp_path.chmod(0o755)
    here = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    def as_nobody() -> str | None:
        os.fchdir(here)  # pytest's directories above are closed to others
        os.setuid(65534)
        return journal_of(Path()).problem

    assert "no permission to read" in (forked(as_nobody) or "")
    own = write_journal(tmp_path / JOURNAL, kernel_entries(A, log(1), began_us=YEAR_2026), name="user-65534.journal")
    own.chmod(0o644)
    assert "no permission to read" in (forked(as_nobody) or "")  # a user's own journal breaks off in every boot
    (tmp_path / JOURNAL).chmod(0o700)
    assert "cannot be read: Permission denied" in (forked(as_nobody) or "")
    os.close(here)


# -- damage


def test_an_empty_file_is_no_journal(tmp_path: Path) -> None:
    """journald was killed as it made it."""
    write_machine_id(tmp_path)
    (tmp_path / JOURNAL).mkdir(parents=True)
    (tmp_path / JOURNAL / "system.journal").touch()
    assert knows_nothing(journal_of(tmp_path))


def test_a_file_that_is_none_does_not_hide_the_others(tmp_path: Path) -> None:
    """Only the good one answers."""
    write(tmp_path, (A, log(1), YEAR_2026))
    (tmp_path / JOURNAL / "system@0-0-0.journal").write_bytes(b"LPKSHHRH" + bytes(4000))
    (tmp_path / JOURNAL / "system@1.journal~").write_bytes(random.Random(1).randbytes(100_000))
    (tmp_path / JOURNAL / "system@2.journal").mkdir()
    assert boots_with(journal_of(tmp_path), log(1)) == {A: 60}


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_survived(share: float, tmp_path: Path) -> None:
    """Whatever is still to be had of it."""
    file = write(tmp_path, (A, log(1), YEAR_2026))
    os.truncate(file, int(file.stat().st_size * share))
    journal = journal_of(tmp_path)
    assert set(boots_with(journal, log(1))) <= {A}
    assert {boot.boot_id for boot in journal.boots()} <= {A}
    journal.last_entries(A)


def test_any_damage_is_survived(tmp_path: Path) -> None:
    """Bytes overwritten anywhere: nothing raises, and what is named was asked for or is a boot id."""
    file = write(tmp_path, (A, log(1), YEAR_2026), (B, log(2), YEAR_2026 + 10**9))
    whole = file.read_bytes()
    used = [at for at in range(len(whole.rstrip(b"\0"))) if whole[at]]
    chance = random.Random(4)
    for _ in range(60):
        data = bytearray(whole)
        for at in chance.sample(used, chance.choice((1, 8, 64))):
            data[at] = chance.randrange(256)
        file.write_bytes(data)
        journal = journal_of(tmp_path)
        for lines in journal.equal_lines(log(1)).values():
            assert lines <= set(log(1))
        assert all(re.fullmatch(r"[0-9a-f-]{36}", boot.boot_id) for boot in journal.boots())
        journal.last_entries(A)
        journal.kernel_lines(A, [time // 1000 for time, _ in log(1)])


class _Shrinking(BootJournal):
    """A journal whose file shrinks while it is read."""

    file: Path

    def shrink(self) -> dict[str, int]:
        def question(journals: Any) -> dict[str, int]:
            faulthandler.disable()  # pytest's: what comes is meant
            next(journals._kernel_entries([3_000_000]), None)  # now it is mapped
            os.truncate(self.file, 0)
            return {boot_id: len(lines) for boot_id, lines in journals.equal_lines(frozenset(log(1))).items()}

        return self._ask(question, {})


def test_a_file_that_shrinks_kills_only_the_child(tmp_path: Path) -> None:
    """As a bad sector does: SIGBUS.  It is said, and not tried again."""
    write(tmp_path, (A, log(1), YEAR_2026), name="user-1000.journal")
    file = write(tmp_path, (A, log(1), YEAR_2026))
    journal = _Shrinking(Host(str(tmp_path)))
    journal.file = file
    assert journal.shrink() == {}
    assert journal.problem is not None
    assert "SIGBUS" in journal.problem
    assert knows_nothing(journal)


def test_a_question_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """The child has an alarm set, which nothing in it handles."""
    write(tmp_path, (A, log(1), YEAR_2026))
    journal = journal_of(tmp_path)

    def hang(journals: Any) -> int:
        assert 0 < signal.alarm(1) <= bootjournal.TIMEOUT_S  # what was left of it
        signal.pause()
        return 1

    assert journal._ask(hang, 0) == 0
    assert journal.problem is not None
    assert "SIGALRM" in journal.problem


# -- size


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with a journal of 200,000 entries: 100 boots, every one with the same texts."""
    root = tmp_path_factory.mktemp("large")
    write(root, *((number(n), log(n, 2000), YEAR_2026 + n * 10**10) for n in range(100)))
    return root


def number(n: int) -> str:
    """A boot id."""
    return f"{n:08x}-1111-4111-8111-111111111111"


def test_a_large_journal_is_not_scanned(large: Path) -> None:
    """What is looked at is what was asked for."""
    journal = journal_of(large)
    sample = log(42, 2000)[::20]
    assert boots_with(journal, sample) == {number(42): len(sample)}
    assert journal.looked_at == len(sample)
    assert len(journal.kernel_lines(number(7), [time // 1000 for time, _ in log(7, 2000)[:500]])) == 500
    assert journal.looked_at == len(sample) + 500
    assert [boot.boot_id for boot in journal.boots()] == [number(n) for n in range(100)]
    assert journal.looked_at == len(sample) + 500 + 200
    assert len(journal.last_entries(number(99), 20)) == 20
    assert journal.looked_at == len(sample) + 500 + 200 + 20
    assert journal.problem is None


def test_a_journal_that_repeats_itself_is_not_looked_through(tmp_path: Path) -> None:
    """More than so many entries are not looked at, and that is said."""
    write(tmp_path, (A, [(3_000_001_000, b"again")] * (MAX_ENTRIES + 10), YEAR_2026))
    journal = journal_of(tmp_path)
    assert boots_with(journal, [(3_000_001_000, b"again")]) == {A: 1}
    assert journal.looked_at == MAX_ENTRIES
    assert journal.problem is not None
    assert "more than" in journal.problem


# -- which boot crashed


ALLOW = "[archive]\nallow_volatile = true\n"  # the tests may run in memory
_LINE = re.compile(rb"^<\d+>\[ *(\d+)\.(\d{6})\] ?(.*)$", re.MULTILINE)
NEW, OLD = "29ba41b6-8626-4f73-9871-3d09cbfdd92a", "f3c134ae-dde4-4a87-867b-251d1180ad3d"


@pytest.fixture
def two_boots(root: MakeRoot, pstored: Pstored) -> tuple[Root, dict[str, Lines]]:
    """Two real crashes of two boots, without the prefix of their stamps; and the kernel lines of both boots."""
    stamped = root("lab-efi-twoboots")
    stamped.configure(f'{ALLOW}[boots]\nstamp_prefix = "{capture.STAMP_PREFIX}"\n')
    lines = {}
    for crash in pstored("collect", "--json", root=stamped).json["crashes"]:
        assert crash["boot"]["method"] == "stamp"
        text = (stamped.archive / "crashes" / crash["id"] / "dmesg.txt").read_bytes()
        lines[crash["boot"]["id"]] = [(int(s) * 10**9 + int(us) * 1000, t) for s, us, t in _LINE.findall(text)]
    made = root("lab-efi-twoboots")
    made.configure(ALLOW)
    return made, lines


def boots_of(pstored: Pstored, root: Root, *command: str) -> list[tuple[str | None, str, str]]:
    """The crashes' boots, how they were found out, and how sure that is."""
    crashes = pstored(*(command or ("collect",)), "--json", root=root).json["crashes"]
    return [(c["boot"]["id"], c["boot"]["method"], c["boot"]["confidence"]) for c in crashes]


def lost(lines: Lines, last: int = 60) -> Lines:
    """What reached the journal: not the newest."""
    return lines[:-last]


NAMED = [(OLD, "journal", "certain"), (NEW, "journal", "certain")]
NOT_NAMED = [(None, "unknown", "none")] * 2


@pytest.mark.parametrize(
    ("old", "new"),
    [(YEAR_2026, YEAR_2026 + 20_000_000), (YEAR_1970, YEAR_1970), (YEAR_2037, YEAR_1970), (YEAR_2037, YEAR_2026)],
)
@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_real_crashes_are_named_by_the_journal(
    old: int, new: int, order: tuple[str, str], two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored
) -> None:
    """The journal lacks the end of both; its clocks, and the order of the boots in it, are of no importance."""
    made, lines = two_boots
    began = {OLD: old, NEW: new}
    write(made.path, *((boot_id, lost(lines[boot_id]), began[boot_id]) for boot_id in order))
    assert boots_of(pstored, made) == NAMED
    evidence = pstored("show", root=made).stdout
    assert re.search(rf"journal: \d+ of 128 kernel lines stand in the journal of boot {NEW} with equal text", evidence)


def test_a_journal_with_gaps_names_the_boot(two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored) -> None:
    """Lines lost in between, and more than half of one boot's."""
    made, lines = two_boots
    old = [line for at, line in enumerate(lost(lines[OLD], 200)) if at % 6]
    new = [line for at, line in enumerate(lost(lines[NEW], 40)) if at // 10 % 5]
    write(made.path, (OLD, old, YEAR_2026), (NEW, new, YEAR_2026 + 20_000_000))
    assert boots_of(pstored, made) == NAMED


def test_only_the_boot_that_the_journal_has_is_named(
    two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored
) -> None:
    """The other one's journal is gone: it is not taken for this one."""
    made, lines = two_boots
    write(made.path, (NEW, lost(lines[NEW]), YEAR_2026))
    assert boots_of(pstored, made) == [NOT_NAMED[0], NAMED[1]]


def test_two_boots_with_the_same_lines_are_not_told_apart(
    two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored
) -> None:
    """A simulator that repeats each microsecond: no answer, with the reason."""
    made, lines = two_boots
    write(
        made.path, *((boot_id, lost(lines[OLD]), YEAR_2026) for boot_id in (OLD, A)), (NEW, lost(lines[NEW]), YEAR_1970)
    )
    assert boots_of(pstored, made) == [NOT_NAMED[0], NAMED[1]]
    (reason,) = (
        e for e in pstored("show", "-2", "--json", root=made).json["boot"]["evidence"] if "cannot be told" in e
    )
    assert OLD in reason
    assert A in reason


def test_the_journal_can_be_left_alone(two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored) -> None:
    """By configuration."""
    made, lines = two_boots
    made.configure(f"{ALLOW}[boots]\njournal = false\n")
    write(made.path, (OLD, lines[OLD], YEAR_2026), (NEW, lines[NEW], YEAR_2026))
    assert boots_of(pstored, made) == NOT_NAMED


def test_without_a_journal_the_reason_is_given(two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored) -> None:
    """In the report."""
    made, _ = two_boots
    assert boots_of(pstored, made) == NOT_NAMED
    assert "there is no journal in" in pstored("show", root=made).stdout


def test_a_damaged_journal_stops_nothing(two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored) -> None:
    """The crashes are there, with no boot."""
    made, lines = two_boots
    file = write(made.path, (OLD, lines[OLD], YEAR_2026))
    os.truncate(file, 5000)
    assert boots_of(pstored, made) == NOT_NAMED


def test_what_the_journal_has_forgotten_stays_known(two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored) -> None:
    """All is done again, even twice, after the journal was rotated away: the same answer, and where it is from."""
    made, lines = two_boots
    write(made.path, *((boot_id, lost(lines[boot_id]), YEAR_2026) for boot_id in (OLD, NEW)))
    assert boots_of(pstored, made) == NAMED
    before = pstored("show", "--json", root=made).json["boot"]["evidence"]
    shutil.rmtree(made.path / JOURNAL)
    for _ in range(2):
        assert boots_of(pstored, made, "analyze", "--all") == NAMED
    after = pstored("show", "--json", root=made).json["boot"]["evidence"]
    assert after == [f"found earlier, and no longer in the journal: {before[0]}", *before[1:]]


def test_a_crash_that_is_brought_up_to_date_keeps_its_boot(
    two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored
) -> None:
    """Its records are erased later, when the journal has forgotten its boot: crash.json is written anew."""
    made, lines = two_boots
    write(made.path, *((boot_id, lost(lines[boot_id]), YEAR_2026) for boot_id in (OLD, NEW)))
    assert boots_of(pstored, made) == NAMED
    shutil.rmtree(made.path / JOURNAL)
    archive = Archive(str(made.archive))
    with archive.lock():
        analyze(archive, Config(), touched=archive.harvest_ids())
    boot = pstored("show", "--json", root=made).json["boot"]
    assert (boot["id"], boot["method"], boot["confidence"]) == NAMED[1]
    assert boot["evidence"][0].startswith("found earlier")


def test_what_the_journal_learns_later_is_found_by_doing_all_again(
    two_boots: tuple[Root, dict[str, Lines]], pstored: Pstored
) -> None:
    """The journal's disk was mounted late."""
    made, lines = two_boots
    assert boots_of(pstored, made) == NOT_NAMED
    write(made.path, *((boot_id, lost(lines[boot_id]), YEAR_2026) for boot_id in (OLD, NEW)))
    assert boots_of(pstored, made, "analyze", "--all") == NAMED


def test_a_crash_that_grew_by_the_journal_stays_whole(root: MakeRoot, pstored: Pstored) -> None:
    """Its two dumps came with two harvests, and nothing but the journal ties them together, which then forgets."""
    made = root()
    made.configure(ALLOW)
    early, late = log(1)[:20], log(1)[40:]
    write(made.path, (A, [*early, *late], YEAR_2026))
    made.add("dmesg-erst-1", dump("Oops#1", early, b"Oops: 0000 [#1] SMP"), mtime_ns=10**18)
    assert boots_of(pstored, made) == [(A, "journal", "certain")]
    made.reboot()
    made.add("dmesg-erst-2", dump("Panic#2", late, b"Kernel panic - not syncing: x"), mtime_ns=2 * 10**18)
    assert boots_of(pstored, made) == [(A, "journal", "certain")]
    assert len(made.crashes()) == 1
    shutil.rmtree(made.path / JOURNAL)
    assert boots_of(pstored, made, "analyze", "--all") == [(A, "journal", "certain")]
    assert len(made.crashes()) == 1


def dump(header: str, lines: Iterable[tuple[int, bytes]], end: bytes) -> bytes:
    """A record of these lines, and one more."""
    text = b"".join(b"<6>[%5d.%06d] %s\n" % (t // 10**9, t // 1000 % 10**6, line) for t, line in lines)
    return header.encode() + b" Part1\n" + text + b"<0>[%5d.000001] " % (999) + end + b"\n"
