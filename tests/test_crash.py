# SPDX-License-Identifier: Apache-2.0
"""Is it a crash, and which; and what a person reads of it."""

import random
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import kernels, machine
from fake_pstore.model import Options
from fake_pstore.scenarios import SCENARIOS
from pstored.crashes.crash import MIN_SHARED, find_crash, merge, texts
from pstored.crashes.dumps import assemble
from pstored.crashes.incidents import Incident, group
from pstored.oops import Severity
from pstored.parse.record import Record, decode_record
from tests.conftest import forked

PREFIX = "pstored: boot "
T0 = 1_795_407_522
S = 10**9


def record(name: str, data: bytes, *, mtime_s: int = T0) -> Record:
    """Decode."""
    return decode_record(name, data, mtime_ns=mtime_s * S)


def incident(*records: Record) -> Incident:
    """The only incident of some records."""
    (found,) = group(records, stamp_prefix=PREFIX)
    return found


def dump(reason: str, count: int, *lines: str, slot: int = 0, at: int = 10, mtime_s: int = T0) -> Record:
    """A dmesg record of some lines, a second apart."""
    text = "".join(f"<4>[{at + n:5d}.000000] {line}\n" for n, line in enumerate(lines))
    return record(f"dmesg-ramoops-{slot}", f"{reason}#{count} Part1\n{text}".encode(), mtime_s=mtime_s)


NULL = "BUG: kernel NULL pointer dereference, address: 8"
SYSRQ = "Kernel panic - not syncing: sysrq triggered crash"


# -- is it a crash


def test_a_panic_that_only_the_console_saw_ends_a_boot_whose_log_was_read() -> None:
    """The oops is known from the running kernel's log, which cannot know the panic."""
    lines = "".join(f"<4>[{10 + n:5d}.000123] {line}\n" for n, line in enumerate(["a", "b", "c", NULL]))
    log = record("dmesg-kmsg-7", lines.encode())
    zone = record("console-ramoops-0", (lines + f"<0>[   20.000000] {SYSRQ}\n").replace("<4>", "").encode())
    found = find_crash(incident(log, zone))
    assert found is not None
    assert found.severity is Severity.PANIC
    alone = find_crash(incident(log))
    assert alone is not None
    assert alone.severity is Severity.OOPS


def test_the_last_dump_that_tells_counts() -> None:
    """An oops, then a panic by hand: what ended the boot is the panic."""
    found = find_crash(incident(dump("Oops", 1, NULL), dump("Panic", 2, NULL, SYSRQ, slot=1)))
    assert found is not None
    assert (found.kind, found.severity) == ("sysrq", Severity.PANIC)


def test_a_panic_dump_whose_end_is_lost_is_not_told_by_an_older_oops() -> None:
    """The dump says Panic, the text holds only an oops: the oops's dump says what it can, with its own severity."""
    found = find_crash(incident(dump("Panic", 1, NULL)))
    assert found is not None
    assert (found.kind, found.severity) == ("panic", Severity.PANIC)
    assert "is not there" in found.title


@pytest.mark.parametrize("reason", ["Shutdown", "Restart", "Halt", "Poweroff", "Kexec"])
def test_an_orderly_end_is_no_crash(reason: str) -> None:
    """Whatever an older message in its log says of panics in general."""
    assert find_crash(incident(dump(reason, 1, "reboot: Restarting system"))) is None


def test_an_oops_before_an_orderly_end_is_a_crash() -> None:
    """The machine survived it and was rebooted; the oops is what happened."""
    found = find_crash(incident(dump("Oops", 1, NULL, at=10), dump("Shutdown", 2, NULL, "bye", slot=1, at=10)))
    assert found is not None
    assert (found.kind, found.severity) == ("null-deref", Severity.OOPS)


def test_an_emergency_restart_alone_is_told_as_one() -> None:
    """sysrq-b with always_kmsg_dump: no panic, no orderly end either."""
    found = find_crash(incident(dump("Emergency", 1, "sysrq: Resetting")))
    assert found is not None
    assert (found.kind, found.severity) == ("reboot", Severity.UNKNOWN)


def test_a_console_alone_shows_a_crash_or_none() -> None:
    """After an orderly shutdown there is none."""
    crashed = record("console-ramoops-0", f"[    1.000000] {SYSRQ}\n".encode())
    clean = record("console-ramoops-0", b"[    1.000000] reboot: Restarting system\n")
    assert find_crash(incident(crashed)) is not None
    assert find_crash(incident(clean)) is None


def test_pmsg_alone_is_no_crash() -> None:
    """It is what programs wrote: an app that logs "Kernel panic" panicked nothing."""
    assert find_crash(incident(record("pmsg-ramoops-0", f"{SYSRQ}\n".encode()))) is None


def test_a_machine_check_alone_is_a_crash() -> None:
    """Its own record says what happened, readable or not."""
    name, data = next(
        (r.name, r.data)
        for r in machine.run(SCENARIOS["mce"], Options(backend="erst", era=kernels.ERAS["6.12"])).records
        if r.name.startswith("mce")
    )
    found = find_crash(incident(record(name, data)))
    assert found is not None
    assert (found.kind, found.severity) == ("mce", Severity.PANIC)
    broken = find_crash(incident(record(name, b"short")))
    assert broken is not None
    assert broken.kind == "mce"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("unknown-erst-3", b"\x00\x01"),
        ("annotate-ramoops-0", b"vendor\n"),
        ("rtas-nvram-1", b"\x00" * 64),
        ("notes.txt", b"hello"),
        ("dmesg-nvram-1", b"plain text without a word of a crash\n"),
    ],
)
def test_what_is_not_understood_is_no_crash(name: str, data: bytes) -> None:
    """It is archived, and a note says so; a crash is not made up."""
    assert find_crash(incident(record(name, data))) is None


def test_an_empty_dump_is_not_said_to_be_packed() -> None:
    """There is nothing to unpack: no crash, or one that says what the record is."""
    found = find_crash(incident(record("dmesg-ramoops-0", b"")))
    assert found is None or "empty" in found.title


def test_a_dump_that_cannot_be_unpacked_is_a_crash() -> None:
    """The kernel dumped; why is not readable, and an unread crash is never called none."""
    found = find_crash(incident(record("dmesg-ramoops-0.enc.z", bytes(range(256)) * 3)))
    assert found is not None
    assert found.severity is Severity.UNKNOWN


# -- texts


def merged(*dumps: Record) -> bytes:
    """The dumps of one boot as one log."""
    return merge(incident(*dumps).dumps)


def test_a_panic_that_holds_the_oops_stands_alone() -> None:
    """The usual case: nothing twice."""
    panic = dump("Panic", 2, "a", "b", NULL, SYSRQ, slot=1)
    assert merged(dump("Oops", 1, "a", "b", NULL), panic) == panic.text


def test_what_two_dumps_share_stands_once() -> None:
    """The newer one lost its beginning to the size of its slot."""
    oops = dump("Oops", 1, "a", "b", "c", NULL)
    panic = dump("Panic", 2, "c", NULL, "d", SYSRQ, slot=1, at=12)
    text = merged(oops, panic)
    assert text == b"".join(
        f"<4>[{10 + n:5d}.000000] {line}\n".encode() for n, line in enumerate(["a", "b", "c", NULL, "d", SYSRQ])
    )


def test_where_two_dumps_do_not_meet_a_line_of_ours_says_so() -> None:
    """What lies between is not in the store."""
    oops, panic = dump("Oops", 1, "a", NULL), dump("Panic", 2, "z", SYSRQ, slot=1, at=16, mtime_s=T0 + 6)
    text = merged(oops, panic)
    assert oops.text is not None
    assert panic.text is not None
    assert text.startswith(oops.text + b"--- pstored: Panic#2: ")
    assert text.endswith(b" ---\n" + panic.text)


def test_many_dumps_of_one_log_give_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is in all: what they share is at the end of what there is so far."""
    monkeypatch.setattr("pstored.crashes.crash.LOST", 0)
    lines = [b"<6>[%5d.000000] line\n" % n for n in range(400)]
    dumps = [
        record(f"dmesg-ramoops-{n}", b"Oops#%d Part1\n" % (n + 1) + b"".join(lines[n * 6 : n * 6 + 10]))
        for n in range(66)
    ]
    assert merge(assemble(dumps)) == b"".join(lines)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_merging_two_stretches_of_one_log_gives_the_log(words: list[int], cut: int, start: int) -> None:
    """Every line of both is there, in order, and where they overlap nothing stands twice."""
    lines = [b"<6>[%5d.000000] %d\n" % (n, word) for n, word in enumerate(words)]
    cut, start = min(cut, len(lines)), min(start, len(lines) - 1)
    older = b"".join(lines[:cut])
    newer = b"".join(lines[start:])
    first = record("dmesg-ramoops-0", b"Oops#1 Part1\n" + older)
    second = record("dmesg-ramoops-1", b"Panic#2 Part1\n" + newer)
    dumps = [d for i in group([first, second], stamp_prefix=PREFIX) for d in i.dumps]
    text = b"".join(line for line in merge(dumps).splitlines(keepends=True) if not line.startswith(b"--- pstored"))
    assert text == b"".join(lines[:cut] + lines[max(start, cut) :])


@given(
    st.integers(8, 40).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, n - 4), st.randoms(use_true_random=False))
    )
)
def test_a_poor_dump_of_what_the_log_has_whole_adds_nothing(case: tuple[int, int, random.Random]) -> None:
    """Lines lost, lines damaged: the running kernel's log has them all, and stays as it is."""
    count, start, rng = case
    lines = [b"<6>[%5d.000000] line %d\n" % (n + 1, n) for n in range(count)]
    poor = [line if n % 3 != 1 else rng.choice((b"", line.replace(b"line", b"lime"))) for n, line in enumerate(lines)]
    log = record("dmesg-kmsg-7", b"".join(lines))
    dumped = record("dmesg-ramoops-0", b"Oops#1 Part1\n" + b"".join(poor[start:]))
    shared = [line for line in poor[start:] if line in lines]
    text = merge(assemble([log, dumped]))
    if len(shared) < MIN_SHARED:
        assert text.startswith(b"".join(lines))
    else:
        assert text == b"".join(lines)


def test_what_lies_before_and_behind_the_log_is_fitted_to_it() -> None:
    """The ring had dropped its beginning, the dump is damaged in the middle and goes on further."""
    lines = [f"line {n}" for n in range(12)]
    log = record(
        "dmesg-kmsg-7", "".join(f"<4>[{14 + n:5d}.000000] {line}\n" for n, line in enumerate(lines[4:9])).encode()
    )
    panic = dump("Panic", 2, *lines[:6], "damaged", *lines[7:], SYSRQ)
    whole = "".join(f"<4>[{10 + n:5d}.000000] {line}\n" for n, line in enumerate([*lines, SYSRQ]))
    assert merge(assemble([log, panic])) == whole.encode()


def test_megabytes_of_equal_lines_are_merged_in_bounded_time() -> None:
    """printk.time=0 and a driver that says one thing only: 5 s of CPU are plenty."""
    older = b"<4>again\n" * 400_000
    first = record("dmesg-ramoops-0", b"Oops#1 Part1\n" + older + b"<4>end of it\n")
    second = record("dmesg-ramoops-1", b"Panic#2 Part1\n" + older + b"<4>other end\n")

    def run() -> int:
        resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
        return len(merge(incident(first, second).dumps))

    assert forked(run) > len(older)


def test_only_texts_that_are_there_are_written() -> None:
    """A file for each kind, none that is empty."""
    whole = incident(
        dump("Panic", 1, SYSRQ),
        record("console-ramoops-0", f"[   10.000000] {SYSRQ}\n".encode()),
        record("pmsg-ramoops-0", b""),
    )
    assert set(texts(whole)) == {"dmesg.txt", "console.txt"}
