# SPDX-License-Identifier: Apache-2.0
"""The report: times and their doubts, what is absent and why, and its schema."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pstored.boots.attribution import Attribution, Confidence, Method
from pstored.crashes.crash import find_crash
from pstored.crashes.incidents import Incident, group
from pstored.crashes.report import Report, build
from pstored.logs import build_time_s
from pstored.parse.record import Record, decode_record
from tests.conftest import MakeRoot, Pstored

PREFIX = "pstored: boot "
T0 = 1_795_407_522
S = 10**9
UNKNOWN = Attribution(boot_id=None, method=Method.UNKNOWN, confidence=Confidence.NONE, evidence=("nothing known",))
HARVEST: dict[str, Any] = {
    "id": "20261123T045102Z-0123456789ab",
    "boot_id": "c05000d0-fcd5-4a6e-ab69-2029de08b3f6",
    "machine_id": "5d0c1b1e0f6a4c1f9e1d3a5b7c9d0e2f",
    "time": "2026-11-23T04:51:02Z",
    "time_ns": (T0 + 100) * S,
}


def record(name: str, data: bytes, *, mtime_s: int = T0) -> Record:
    """Decode."""
    return decode_record(name, data, mtime_ns=mtime_s * S, harvest_id=str(HARVEST["id"]), sha256="0" * 64)


def incident(*records: Record) -> Incident:
    """The only incident of some records."""
    (found,) = group(records, stamp_prefix=PREFIX)
    return found


def report(
    whole: Incident,
    *,
    harvest: dict[str, Any] | None = None,
    erased: dict[tuple[str, str], dict[str, Any]] | None = None,
) -> Report:
    """Build one."""
    event = find_crash(whole)
    assert event is not None
    return build(
        crash_id=str(HARVEST["id"]),
        revision=1,
        order=0,
        incident=whole,
        event=event,
        boot=UNKNOWN,
        harvests=[dict(HARVEST | (harvest or {}))],
        erased=erased or {},
        files={},
    )


def dump(reason: str, count: int, *lines: str, slot: int = 0, at: int = 10, mtime_s: int = T0) -> Record:
    """A dmesg record of some lines, a second apart."""
    text = "".join(f"<4>[{at + n:5d}.000000] {line}\n" for n, line in enumerate(lines))
    return record(f"dmesg-ramoops-{slot}", f"{reason}#{count} Part1\n{text}".encode(), mtime_s=mtime_s)


NULL = "BUG: kernel NULL pointer dereference, address: 8"
SYSRQ = "Kernel panic - not syncing: sysrq triggered crash"


@pytest.mark.parametrize(
    ("banner", "expected"),
    [
        ("Linux version 6.1 (a@b) (gcc) #1 SMP Mon Nov 23 04:07:06 UTC 2026", 1_795_406_826),
        ("Linux version 6.1 (a@b) (gcc) #1 SMP PREEMPT_DYNAMIC Mon Nov  2 09:12:44 CEST 2026", 1_793_610_764),
        ("Linux version 6.1.0-56-amd64 (d) (gcc-12) #1 SMP Debian 6.1.192-1 (2026-11-20)", 1_795_132_800),
        ("Linux version 6.1 (a@b) #1 SMP Mon Nov 99 04:07:06 UTC 2026", None),
        ("", None),
    ],
)
def test_the_build_time_of_a_kernel_is_a_lower_bound(banner: str, expected: int | None) -> None:
    """Given as the earliest moment it can mean, 14 hours of time zones before what it says."""
    found = build_time_s(banner)
    assert found == (None if expected is None else expected - 14 * 3600)


def test_a_crash_before_its_kernel_was_built_has_a_doubtful_time() -> None:
    """The clock was wrong; the time is shown all the same, with the reason."""
    banner = "Linux version 6.1.192 (a@b) (gcc) #1 SMP Mon Nov 23 04:07:06 UTC 2026"
    time = report(incident(dump("Panic", 1, banner, SYSRQ, mtime_s=1_600_000_000))).time
    assert time.doubtful
    assert time.wall == "2020-09-13T12:26:40.000000Z"
    assert time.why is not None
    assert "built" in time.why


def test_a_crash_in_1970_has_a_doubtful_time() -> None:
    """No banner is needed to know that."""
    assert report(incident(dump("Panic", 1, SYSRQ, mtime_s=12))).time.doubtful


def test_a_crash_after_its_collection_has_a_doubtful_time() -> None:
    """One of the two clocks was wrong."""
    time = report(incident(dump("Panic", 1, SYSRQ, mtime_s=T0 + 5000))).time
    assert time.doubtful
    assert time.why is not None
    assert "still to come" in time.why


def test_a_crash_between_build_and_collection_has_a_good_time() -> None:
    """No doubt without a reason."""
    time = report(incident(dump("Panic", 1, SYSRQ))).time
    assert (time.wall, time.doubtful, time.why) == ("2026-11-23T04:18:42.000000Z", False, None)


def test_zones_alone_have_no_time() -> None:
    """Their mtime is the mount's; uptime is there."""
    time = report(incident(record("console-ramoops-0", f"[   12.500000] {SYSRQ}\n".encode()))).time
    assert (time.wall, time.uptime_s, time.doubtful) == (None, 12.5, True)
    assert time.why


def test_every_null_has_its_reason() -> None:
    """Kernel, uptime, machine: absent is null, and a note says why."""
    whole = incident(record("dmesg-ramoops-0", b"Panic#1 Part1\n<0>" + SYSRQ.encode() + b"\n"))
    made = report(whole, harvest={"machine_id": None})
    for field in ("release", "banner", "cmdline", "hardware"):
        assert getattr(made.kernel, field) is None
        assert any(note.startswith(f"kernel.{field}:") for note in made.notes)
    assert made.time.uptime_s is None
    assert any(note.startswith("time.uptime_s:") for note in made.notes)
    assert any(note.startswith("machine_id:") for note in made.notes)


def test_what_became_of_each_record_is_said() -> None:
    """Erased, left, or not known: the last with its reason."""
    whole = incident(dump("Oops", 1, NULL), dump("Panic", 2, NULL, SYSRQ, slot=1))
    harvest = str(HARVEST["id"])
    made = report(whole, erased={(harvest, "dmesg-ramoops-0"): {"outcome": "erased", "why": "no oops"}})
    first, second = made.records
    assert (first.erased, first.outcome, first.why) == (True, "erased", "no oops")
    assert (second.erased, second.outcome) == (None, None)
    assert second.why


def test_titles_are_one_printable_line() -> None:
    """Whatever the record holds."""
    made = report(incident(record("dmesg-ramoops-0", b"Panic#1 Part1\n<0>[    1.000000] Kernel panic - not syncing: "
                                  b"\x1b]0;pwn\x07\x1b[2J\xff\xe2\x80\xae" + b"x" * 5000 + b"\n")))  # fmt: skip
    for text in (made.title, made.summary["title"], made.dumps[0].title):
        assert text is not None
        assert text.isprintable()
        assert len(text) <= 400


def test_the_summary_says_what_the_report_says() -> None:
    """`pstored list` reads only the summary."""
    made = report(incident(dump("Panic", 1, SYSRQ)))
    summary = json.loads(made.model_dump_json(by_alias=True))["summary"]
    assert summary["title"] == made.title
    assert summary["kind"] == made.kind
    assert summary["severity"] == "panic"
    assert summary["time"] == made.time.wall
    assert summary["complete"] == made.complete
    assert summary["backend"] == made.backend == "ramoops"


def test_damage_anywhere_makes_it_incomplete() -> None:
    """In a zone as in a dump."""
    text = f"[   10.000000] {SYSRQ}\n\n3 Corrected bytes, 2 unrecoverable blocks\n"
    zone = record("console-ramoops-0", text.encode())
    made = report(incident(dump("Panic", 1, SYSRQ), zone))
    assert not made.complete
    assert any("console-ramoops-0" in note and "2 blocks" in note for note in made.notes)


def test_absurd_times_do_not_break_the_report() -> None:
    """The year 584554 of a flipped bit."""
    data = b"====9999999999999999999.000001\nPanic#1 Part1\n<0>" + SYSRQ.encode()
    made = report(incident(record("dmesg-ramoops-0", data)))
    assert made.time.doubtful
    assert made.time.wall is not None


def test_the_report_goes_through_json_and_back() -> None:
    """By its own schema; an unknown field is none of ours."""
    document = json.loads(report(incident(dump("Panic", 1, SYSRQ))).model_dump_json(by_alias=True))
    assert document["schema"] == 1
    assert Report.model_validate(document).model_dump(mode="json", by_alias=True) == document
    with pytest.raises(ValidationError):
        Report.model_validate(document | {"new": 1})


def test_every_field_of_the_issue_is_there() -> None:
    """Schema 1 is a public interface."""
    document = report(incident(dump("Panic", 1, SYSRQ))).model_dump(mode="json", by_alias=True)
    expected: dict[str, set[str]] = {
        "": {
            *("schema", "id", "title", "kind", "severity", "boot", "collected", "time", "kernel", "machine_id"),
            *("backend", "dumps", "records", "files", "notes"),
        },
        "boot": {"id", "method", "confidence", "evidence"},
        "collected": {"boot_id", "time", "harvest_id"},
        "time": {"wall", "uptime_s", "doubtful", "why"},
        "kernel": {"release", "banner", "cmdline", "hardware"},
    }
    for name, fields in expected.items():
        assert fields <= set(document[name] if name else document)
    assert {"reason", "count", "parts", "missing", "complete", "lines", "damage"} <= set(document["dumps"][0])
    assert {"name", "type", "size", "sha256", "compression", "ecc", "erased", "why"} <= set(document["records"][0])


@pytest.mark.parametrize("name", ["lab-efi-twoboots", "x86_64-6.1-ramoops-all", "console-only-crash", "mce"])
def test_what_is_absent_is_null_with_its_reason(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """Every null is explained in the notes, or beside it; a guess says what is so for its kind of zone."""
    made = root(name)
    for fact in ("etc/machine-id", "proc/sys/kernel/random/boot_id"):
        (made.path / fact).unlink()
    for crash in pstored("collect", "--json", root=made).json["crashes"]:
        absent = {f"kernel.{key}" for key, value in crash["kernel"].items() if value is None}
        absent |= {key for key in ("machine_id", "backend", "function") if crash[key] is None}
        absent |= {"comm, pid"} if crash["comm"] is None else set()
        absent |= {"collected.boot_id"}
        assert "machine_id" in absent
        explained = {note.split(": ")[0] for note in crash["notes"]}
        assert absent <= explained
        assert crash["time"]["wall"] is not None or crash["time"]["why"]
        assert crash["boot"]["id"] is not None or crash["boot"]["evidence"]
        guesses = [note for note in crash["notes"] if note.startswith("a guess: ftrace")]
        assert all("may hold several" in guess for guess in guesses)
        assert bool(guesses) is (name == "x86_64-6.1-ramoops-all")
