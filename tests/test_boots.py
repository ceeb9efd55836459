# SPDX-License-Identifier: Apache-2.0
"""Which boot crashed: by stamp, journal, ledger, elimination; and above all, when it must not be named."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.boots.attribution import SAMPLE, Attribution, Confidence, KernelLines, Method, Question, attribute
from pstored.boots.ledger import Boot, format_ledger, parse_ledger
from pstored.crashes.incidents import Incident, group
from pstored.parse.record import decode_record

PREFIX = "pstored: boot "
OLD, CRASHED, NOW, OTHER = (f"{n}{n}{n}{n}{n}{n}{n}{n}-1111-4111-8111-111111111111" for n in "1234")
KERNEL, VERSION = "6.1.192", "#1 SMP Mon Nov  2 09:12:44 UTC 2026"
BANNER = f"Linux version {KERNEL} (b@h) (gcc (GCC) 14) {VERSION}"
T0 = 1_795_400_000
"""When the crashed boot began, Unix seconds."""


def boot(
    boot_id: str,
    began: float = T0,
    *,
    first: float = 10.0,
    last: float = 10.0,
    kernel: str | None = KERNEL,
    version: str | None = VERSION,
    stamped: bool = False,
    stamped_at: float | None = None,
) -> Boot:
    """A line of the ledger: looked at *first* and *last* seconds after it began."""
    return Boot(
        boot_id=boot_id,
        kernel=kernel,
        version=version,
        first_wall=began + first,
        first_uptime=first,
        last_wall=began + last,
        last_uptime=last,
        stamped=stamped,
        stamped_uptime=stamped_at,
    )


def dump(uptime: float = 100, *, began: float = T0, text: str = "") -> tuple[str, bytes, float]:
    """A dump written *uptime* seconds after its boot began; its log is whole, from the banner on."""
    log = f"<5>[    0.000000] {BANNER}\n{text}" + "".join(
        f"<6>[{at // 10:5d}.{at % 10}00007] line {at}\n" for at in range(1, int(uptime * 10), 50)
    )
    log += f"<0>[{int(uptime):5d}.000000] Kernel panic - not syncing: x\n"
    return "dmesg-erst-0", b"Panic#1 Part1\n" + log.encode(), began + uptime


def console(uptime: float = 100, text: str = "") -> tuple[str, bytes, float]:
    """A console zone; its mtime is that of the mount."""
    log = text + "".join(f"[{at // 10:5d}.{at % 10}00007] line {at}\n" for at in range(1, int(uptime * 10), 50))
    log += f"[{int(uptime):5d}.000000] Kernel panic - not syncing: x\n"
    return "console-ramoops-0", log.encode(), T0 + 10_000


def stamped(boot_id: str, *, level: str = "<12>") -> str:
    """A stamp line at 9 s."""
    return f"{level}[    9.000000] {PREFIX}{boot_id}\n"


def ask(
    *records: tuple[str, bytes, float],
    ledger: tuple[Boot, ...] = (),
    now: str | None = NOW,
    started_s: float | None = T0 + 130,
    journal: KernelLines | None = None,
    received: bool = False,
) -> Attribution:
    """Attribute records that are of one boot."""
    decoded = [decode_record(name, data, mtime_ns=int(mtime * 1e9)) for name, data, mtime in records]
    incidents = group(decoded, stamp_prefix=PREFIX)
    whole = incidents[0] if len(incidents) == 1 else Incident(zones=decoded)
    return attribute(
        Question(
            incident=whole,
            ledger=ledger,
            collecting_boot=now,
            started_ns=None if started_s is None else int(started_s * 1e9),
            stamp_prefix=PREFIX,
            journal=journal,
            received=received,
        )
    )


def unknown(answer: Attribution) -> bool:
    """No id, and a reason."""
    return (
        answer.boot_id is None
        and answer.method is Method.UNKNOWN
        and answer.confidence is Confidence.NONE
        and all(answer.evidence)
        and len(answer.evidence) > 0
    )


# -- the stamp


def test_a_stamp_is_proof() -> None:
    """Even with an empty ledger, and before anything the ledger says."""
    answer = ask(dump(text=stamped(CRASHED)))
    assert (answer.boot_id, answer.method, answer.confidence) == (CRASHED, Method.STAMP, Confidence.CERTAIN)
    assert "Panic#1" in answer.evidence[0]
    assert ask(dump(text=stamped(CRASHED)), ledger=(boot(OTHER), boot(NOW, T0 + 500))).boot_id == CRASHED


def test_a_stamp_in_the_console_or_in_pmsg_is_proof() -> None:
    """Consoles show no level; pmsg has the bare line."""
    assert ask(console(text=stamped(CRASHED, level=""))).boot_id == CRASHED
    assert ask(("pmsg-ramoops-0", f"{PREFIX}{CRASHED}\n".encode(), T0)).boot_id == CRASHED


def test_the_running_boots_own_record_is_named_by_its_stamp() -> None:
    """An oops that the machine survived, collected by the same boot: only the stamp may say so."""
    answer = ask(dump(text=stamped(NOW)), ledger=(boot(NOW),))
    assert (answer.boot_id, answer.method) == (NOW, Method.STAMP)


def test_conflicting_stamps_name_no_boot() -> None:
    """Two stamps in the records of one boot: one is wrong, and nobody knows which."""
    answer = ask(dump(text=stamped(CRASHED) + stamped(OTHER)), ledger=(boot(NOW, T0 + 500),))
    assert unknown(answer)
    assert any("stamps of 2 boots" in e for e in answer.evidence)


def test_conflicting_stamps_are_not_settled_by_the_ledger() -> None:
    """What contradicts itself is not made certain by the clock."""
    answer = ask(dump(text=stamped(CRASHED) + stamped(OTHER)), ledger=(boot(OLD), boot(NOW, T0 + 500)))
    assert answer.boot_id in (None, CRASHED, OTHER)


# -- the log of the running kernel


def test_what_was_read_from_the_log_of_a_running_kernel_is_of_that_boot() -> None:
    """Certain, whatever stamp somebody has written, and though it is the collecting one."""
    name, data = "dmesg-kmsg-7", stamped(OTHER).encode() + b"<1>[   10.000000] BUG: kernel NULL\n"
    (incident,) = group([decode_record(name, data, mtime_ns=int(T0 * 1e9))], stamp_prefix=PREFIX)
    question = Question(
        incident=incident, ledger=(), collecting_boot=NOW, started_ns=None, stamp_prefix=PREFIX, live=((name, NOW),)
    )
    answer = attribute(question)
    assert (answer.boot_id, answer.method, answer.confidence) == (NOW, Method.KMSG, Confidence.CERTAIN)
    assert answer.evidence == (f"{name} was read from the log of boot {NOW} while it ran",)
    assert attribute(replace(question, live=())).boot_id == OTHER


# -- the journal


class Journal:
    """A journal that has these lines of each boot."""

    problem: str | None = None

    def __init__(self, **boots: Iterable[tuple[int, bytes]]) -> None:
        self.boots = {ID[name]: set(lines) for name, lines in boots.items()}
        self.asked: list[tuple[int, bytes]] = []

    def equal_lines(self, lines: Iterable[tuple[int, bytes]]) -> dict[str, set[tuple[int, bytes]]]:
        """As BootJournal does."""
        self.asked = list(lines)
        found = {boot_id: known & set(self.asked) for boot_id, known in self.boots.items()}
        return {boot_id: equal for boot_id, equal in found.items() if equal}


ID = {"old": OLD, "crashed": CRASHED, "now": NOW, "other": OTHER}


def lines(*times_ns: int) -> list[tuple[int, bytes]]:
    """Kernel lines at these times."""
    return [(time_ns, b"line at %d" % time_ns) for time_ns in times_ns]


def record(log: list[tuple[int, bytes]], header: str = "Panic#1") -> tuple[str, bytes, float]:
    """A dump of these lines, and a panic's or an oops's last words."""
    text = b"".join(b"<6>[%5d.%06d] %s\n" % (t // 10**9, t // 1000 % 10**6, line) for t, line in log)
    words = b"Kernel panic - not syncing: x" if header.startswith("Panic") else b"BUG: Bad page state"
    return "dmesg-erst-0", header.encode() + b" Part1\n" + text + b"<0>[ 9999.000000] " + words + b"\n", T0 + 9999.0


LATE = lines(*(10_000_007_000 + at * 1_000_007_000 for at in range(40)))
"""From 10 s on."""
EARLY = lines(*(100_007_000 + at * 10_007_000 for at in range(40)))
"""0.1 s to 0.5 s."""


@pytest.mark.parametrize(
    ("known", "named", "confidence"),
    [
        (LATE, CRASHED, Confidence.CERTAIN),
        (LATE[:8], CRASHED, Confidence.CERTAIN),
        (LATE[::5], CRASHED, Confidence.CERTAIN),
        (LATE[:7], CRASHED, Confidence.HIGH),
        (LATE[::15], CRASHED, Confidence.HIGH),
        (LATE[:2], None, Confidence.NONE),
        ([], None, Confidence.NONE),
    ],
)
def test_the_boot_whose_journal_has_the_lines_is_named(
    known: list[tuple[int, bytes]], named: str | None, confidence: Confidence
) -> None:
    """By any three lines it is likely, by eight it is proven; two say nothing."""
    answer = ask(record(LATE), journal=Journal(crashed=known))
    assert (answer.boot_id, answer.confidence) == (named, confidence)
    if named is not None:
        assert answer.method is Method.JOURNAL
        words = (
            f"{len(known)} of 40 kernel lines stand in the journal of boot {CRASHED} with equal text and microsecond"
        )
        assert answer.evidence[0] == f"journal: {words}"


def test_the_journal_needs_no_clock_and_no_ledger() -> None:
    """1970, and nothing known of any boot."""
    name, data, _ = record(LATE)
    assert ask((name, data, 0.0), journal=Journal(crashed=LATE), started_s=None).boot_id == CRASHED


def test_early_lines_count_only_where_nearly_all_are_equal() -> None:
    """A board logs a line within the same few microseconds in every boot: here and there one is equal by chance."""
    assert unknown(ask(record(EARLY + LATE), journal=Journal(other=EARLY[::3])))
    assert unknown(ask(record(EARLY + LATE), journal=Journal(other=EARLY[3:7])))
    answer = ask(record(EARLY + LATE), journal=Journal(crashed=EARLY[:5] + EARLY[6:20], other=EARLY[::3]))
    assert (answer.boot_id, answer.confidence) == (CRASHED, Confidence.CERTAIN)


def test_boots_with_as_many_lines_are_not_told_apart() -> None:
    """A simulator that repeats itself; the reason names both."""
    answer = ask(record(LATE), journal=Journal(crashed=LATE, other=LATE[:20]))
    assert unknown(answer)
    (reason,) = (e for e in answer.evidence if "cannot be told apart" in e)
    assert CRASHED in reason
    assert OTHER in reason


def test_a_few_lines_of_another_boot_change_nothing() -> None:
    """One boot has far more."""
    assert ask(record(LATE), journal=Journal(crashed=LATE, other=LATE[:9])).boot_id == CRASHED


def test_the_collecting_boot_is_named_by_its_own_lines() -> None:
    """It survived an oops; but who panicked cannot have collected."""
    answer = ask(record(LATE, "Oops#1"), journal=Journal(now=LATE), ledger=(boot(NOW),))
    assert (answer.boot_id, answer.method) == (NOW, Method.JOURNAL)
    answer = ask(record(LATE, "Panic#1"), journal=Journal(now=LATE), ledger=(boot(NOW),))
    assert unknown(answer)
    assert any("cannot have panicked" in e for e in answer.evidence)


def test_the_stamp_goes_before_the_journal_and_the_journal_before_the_ledger() -> None:
    """The first that answers, wins; and stamps that contradict each other are not settled."""
    name, data, mtime = record(LATE)
    stamped_data = data + stamped(CRASHED).encode()
    assert ask((name, stamped_data, mtime), journal=Journal(other=LATE)).method is Method.STAMP
    assert unknown(ask((name, stamped_data + stamped(OLD).encode(), mtime), journal=Journal(other=LATE)))
    began = mtime - 9999.0
    assert ask(record(LATE), ledger=(boot(OLD, began), boot(NOW, T0 + 20_000))).boot_id == OLD
    assert ask(record(LATE), ledger=(boot(OLD, began),), journal=Journal(other=LATE)).boot_id == OTHER


def test_the_journal_is_asked_for_lines_from_all_over_the_log() -> None:
    """The newest may never have reached it; lines that every boot may have are left out."""
    long = lines(*(10_000_007_000 + at * 1_007_000 for at in range(5000)))
    same = lines(0, 0, 40_000_007_000 // 1000, 3 * 10**9, 4 * 10**9)
    journal = Journal()
    ask(record(same + long), journal=journal)
    assert len(journal.asked) == SAMPLE
    assert set(journal.asked) <= set(long)
    assert journal.asked == sorted(journal.asked)
    gaps = [b[0] - a[0] for a, b in zip(journal.asked, journal.asked[1:], strict=False)]
    assert max(gaps) <= 2 * min(gaps)
    assert journal.asked[0] == long[0]


def test_a_log_without_distinctive_lines_is_not_asked_of_the_journal() -> None:
    """No timestamps, or only whole milliseconds."""
    journal = Journal(crashed=LATE)
    assert unknown(ask(record(lines(3 * 10**9, 4 * 10**9)), journal=journal))
    assert journal.asked == []


def test_what_is_wrong_with_the_journal_is_said() -> None:
    """It is the reason why the boot is not named."""
    journal = Journal()
    journal.problem = "there is no journal"
    assert "there is no journal" in ask(record(LATE), journal=journal).evidence
    assert "the journal is not asked" in ask(record(LATE)).evidence


# -- the ledger


def test_the_one_boot_that_fits_is_named() -> None:
    """Kernel, build, and the beginning that clock and uptime give."""
    answer = ask(dump(), ledger=(boot(OLD, T0 - 5000), boot(CRASHED), boot(NOW, T0 + 130)))
    assert (answer.boot_id, answer.method, answer.confidence) == (CRASHED, Method.LEDGER, Confidence.HIGH)
    assert answer.evidence


def test_a_clock_set_after_the_first_look_still_fits() -> None:
    """The boot's first look was with a wrong clock, its last with the right one, which the record has, too."""
    seen = Boot(
        boot_id=CRASHED,
        kernel=KERNEL,
        version=VERSION,
        first_wall=12.0,
        first_uptime=10.0,
        last_wall=T0 + 60.0,
        last_uptime=60.0,
    )
    assert ask(dump(), ledger=(seen, boot(NOW, T0 + 130))).boot_id == CRASHED


@pytest.mark.parametrize(
    ("what", "ledger"),
    [
        ("no ledger", ()),
        ("only the collecting boot, which began later", (boot(NOW, T0 + 130),)),
        ("began at another time", (boot(CRASHED, T0 - 400), boot(NOW, T0 + 130))),
        ("another kernel", (boot(CRASHED, kernel="5.10.1"), boot(NOW, T0 + 130))),
        ("another build of it", (boot(CRASHED, version="#2 SMP Tue Nov  3 2026"), boot(NOW, T0 + 130))),
        ("was alive after the record's end", (boot(CRASHED, last=500.0), boot(NOW, T0 + 700))),
        ("bears a stamp that the whole log lacks", (boot(CRASHED, stamped=True), boot(NOW, T0 + 130))),
        ("two fit", (boot(CRASHED), boot(OTHER, T0 + 2), boot(NOW, T0 + 130))),
        ("the collecting boot fits", (boot(NOW),)),
        ("the collecting boot fits, too", (boot(CRASHED), boot(NOW, T0 + 1))),
    ],
)
def test_a_ledger_that_does_not_fit_exactly_once_names_no_boot(what: str, ledger: tuple[Boot, ...]) -> None:
    """Unknown with its reason is right; a wrong boot never is, and least of all the collecting one."""
    assert unknown(ask(dump(), ledger=ledger)), what


def test_boards_without_a_clock_name_no_boot() -> None:
    """Every boot begins at the same wall time, so the beginning proves nothing."""
    ledger = tuple(boot(boot_id, 0.0) for boot_id in (OLD, CRASHED, OTHER, NOW))
    assert unknown(ask(dump(began=0.0), ledger=ledger))


def test_a_boot_that_died_unseen_on_a_board_without_a_clock_is_not_taken_for_another() -> None:
    """It crashed before pstored ran in it; the boot before it began at the same time by the same stopped clock.

    The collecting boot's clock was set before its first look, so in the ledger only one boot fits.
    """
    epoch = 1_700_000_000.0  # before this kernel was built: such a clock is wrong
    answer = ask(dump(began=epoch), ledger=(boot(OLD, epoch), boot(NOW, T0 + 500)))
    assert answer.boot_id is None


def test_a_doubtful_clock_does_not_decide() -> None:
    """1970: the record's time is no time, whatever the ledger says of that year."""
    assert ask(dump(began=0.0), ledger=(boot(OLD, 0.0), boot(NOW, T0 + 500))).boot_id is None


def test_a_boot_that_outlived_its_oops_is_named() -> None:
    """An oops kills a task: that the boot was alive later proves nothing against it."""
    name, data, mtime = dump()
    oops = data.replace(b"Panic#1", b"Oops#1").replace(b"Kernel panic - not syncing: x", b"BUG: Bad page state")
    answer = ask((name, oops, mtime), ledger=(boot(CRASHED, last=500.0), boot(NOW, T0 + 700)))
    assert (answer.boot_id, answer.method) == (CRASHED, Method.LEDGER)


def test_without_the_kernels_name_the_answer_is_less_sure() -> None:
    """The beginning of the log is gone."""
    name, data, mtime = dump()
    bare = b"Panic#1 Part1\n" + b"\n".join(data.split(b"\n")[2:])
    answer = ask((name, bare, mtime), ledger=(boot(CRASHED), boot(NOW, T0 + 130)))
    assert (answer.boot_id, answer.confidence) == (CRASHED, Confidence.LOW)


def test_a_log_without_timestamps_is_not_asked_of_the_ledger() -> None:
    """The wall clock alone never decides."""
    record = ("dmesg-erst-0", b"Panic#1 Part1\n<0>Kernel panic - not syncing: x\n", T0 + 100.0)
    assert unknown(ask(record, ledger=(boot(CRASHED), boot(NOW, T0 + 130))))


# -- elimination


def test_a_console_is_the_boot_before_the_collecting_one() -> None:
    """The ledger has one boot before; the answer says what it rests on."""
    answer = ask(console(), ledger=(boot(OLD, T0 - 900), boot(CRASHED), boot(NOW, T0 + 130)))
    assert (answer.boot_id, answer.method, answer.confidence) == (CRASHED, Method.ELIMINATION, Confidence.LOW)
    assert any("cannot be ruled out" in e for e in answer.evidence)


@pytest.mark.parametrize(
    ("what", "ledger"),
    [
        ("no ledger", ()),
        ("no boot before", (boot(NOW, T0 + 130),)),
        ("the collecting boot is not in it", (boot(OLD), boot(CRASHED))),
        ("the last one lived longer than the record", (boot(CRASHED, last=800.0), boot(NOW, T0 + 900))),
    ],
)
def test_elimination_needs_a_boot_that_can_be_meant(what: str, ledger: tuple[Boot, ...]) -> None:
    """Otherwise there was another in between, or nothing is known."""
    assert unknown(ask(console(), ledger=ledger)), what


def test_a_console_of_another_kernel_is_not_the_last_boots() -> None:
    """Somebody booted another kernel in between."""
    answer = ask(
        console(text=f"[    0.000000] {BANNER}\n"), ledger=(boot(CRASHED, kernel="5.10.1"), boot(NOW, T0 + 130))
    )
    assert unknown(answer)


def test_a_console_without_the_stamp_is_not_a_stamped_boots() -> None:
    """The last boot in the ledger is known to bear the stamp; this log is whole and has none: another boot, unseen."""
    text = f"[    0.000000] {BANNER}\n"
    answer = ask(console(text=text), ledger=(boot(OLD, stamped=True), boot(NOW, T0 + 130)))
    assert answer.boot_id is None


def test_a_console_that_begins_after_the_stamp_need_not_bear_it() -> None:
    """The harvest stamps long before the first look into the ledger; a ring that has wrapped since has lost it."""
    text = "".join(f"[{at:5d}.000007] line {at}\n" for at in range(20, 100, 5))
    record = ("console-ramoops-0", text.encode() + b"[  100.000000] Kernel panic - not syncing: x\n", T0 + 130)
    early = boot(OLD, T0, first=60.0, last=60.0, stamped=True, stamped_at=2.0)
    late = boot(OLD, T0, first=60.0, last=60.0, stamped=True, stamped_at=60.0)
    assert ask(record, ledger=(early, boot(NOW, T0 + 130))).boot_id == OLD
    assert ask(record, ledger=(late, boot(NOW, T0 + 130))).boot_id is None
    whole = console(text=f"[    0.000000] {BANNER}\n")
    assert ask(whole, ledger=(early, boot(NOW, T0 + 130))).boot_id is None


def test_a_dump_is_not_named_by_elimination() -> None:
    """Dumps stay in the store over many boots: only zones are the previous boot's."""
    assert unknown(ask(dump(), ledger=(boot(CRASHED, T0 - 7000), boot(NOW, T0 + 130))))


def test_without_a_collecting_boot_id_nothing_is_eliminated() -> None:
    """No /proc."""
    assert unknown(ask(console(), ledger=(boot(CRASHED),), now=None))


@given(
    st.lists(
        st.builds(
            boot,
            st.sampled_from([OLD, CRASHED, OTHER, NOW]),
            st.sampled_from([0.0, T0, T0 + 3.0, T0 + 500.0]),
            first=st.sampled_from([0.0, 10.0, 90.0]),
            last=st.sampled_from([90.0, 100.0, 1000.0]),
            kernel=st.sampled_from([KERNEL, None, "5.10.1"]),
            stamped=st.booleans(),
        ),
        max_size=5,
        unique_by=lambda b: b.boot_id,
    ),
    st.booleans(),
    st.booleans(),
)
def test_without_its_stamp_the_collecting_boot_is_never_named(ledger: list[Boot], zone: bool, timed: bool) -> None:
    """Whatever the ledger says; and what is named was in the ledger."""
    records = ([dump(began=T0 if timed else 0.0)] if timed or not zone else []) + ([console()] if zone else [])
    answer = ask(*records, ledger=tuple(ledger))
    assert answer.boot_id != NOW
    assert answer.boot_id is None or answer.boot_id in [b.boot_id for b in ledger]
    assert answer.evidence


# -- the ledger's file


@pytest.mark.parametrize(
    "change",
    [
        {"boot_id": None},
        {"boot_id": 7},
        {"first_wall": "now"},
        {"first_wall": None},
        {"last_uptime": "x"},
        {"kernel": 7},
        {"kernel": ["6.1"]},
        {"first_wall": float("nan")},
        {"stamped": "yes"},
    ],
)
def test_a_line_with_wrong_types_is_left_out_or_harmless(change: dict[str, object]) -> None:
    """Whatever stands in the ledger, an attribution does not fail on it."""
    line = json.loads(format_ledger([boot(CRASHED)])) | change
    found = parse_ledger(json.dumps(line).encode() + b"\n" + format_ledger([boot(NOW, T0 + 130)]))
    assert all(isinstance(b.boot_id, str) for b in found)
    assert ask(dump(), ledger=tuple(found)).evidence
    assert ask(console(), ledger=tuple(found)).evidence


# -- what came over the net


@pytest.mark.parametrize("boot_id", [OLD, NOW])
def test_what_came_over_the_net_is_of_no_boot_of_this_machine(boot_id: str) -> None:
    """Whatever it says: anybody can send a stamp."""
    record = ("console-netconsole-1", console(text=stamped(boot_id))[1], T0 + 100)
    answer = ask(record, ledger=(boot(OLD), boot(NOW, T0 + 130)), received=True)
    assert (answer.boot_id, answer.method) == (None, Method.UNKNOWN)
    assert answer.evidence == (
        f"it came over the net with stamps of boots that it cannot be of, or of several: {boot_id}",
    )


def test_stamp_that_came_over_the_net_is_its_senders_word() -> None:
    """And no more than that."""
    record = ("console-netconsole-1", console(text=stamped(OTHER))[1], T0 + 100)
    answer = ask(record, ledger=(boot(OLD), boot(NOW)), received=True)
    assert (answer.boot_id, answer.method, answer.confidence) == (OTHER, Method.STAMP, Confidence.LOW)
    bare = ask(("console-netconsole-1", console()[1], T0 + 100), ledger=(boot(OLD),), received=True)
    assert (bare.boot_id, bare.confidence) == (None, Confidence.NONE)
    assert "bears no stamp" in bare.evidence[0]
