# SPDX-License-Identifier: Apache-2.0
"""Which boot crashed: by stamp, by the ledger, by elimination; and above all, when it must not be named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.boots import Attribution, Confidence, Method, Question, attribute, stamp_line
from pstored.incidents import Incident, group
from pstored.ledger import Boot, format_ledger, parse_ledger
from pstored.parse.kmsg import parse_kmsg
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


def test_the_stamp_line_is_marked_as_user_space() -> None:
    """Facility user, so that a kernel line that quotes it is no stamp; at a level that consoles show."""
    (line,) = parse_kmsg(stamp_line(PREFIX, NOW).replace(b">", b">[    1.000000] ", 1))
    assert (line.facility, line.text) == (1, f"{PREFIX}{NOW}".encode())
