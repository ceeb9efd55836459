# SPDX-License-Identifier: Apache-2.0
"""What crash.json says of the kernel's reports: the one that names the crash, and the others in its log, bounded."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.boots.attribution import Attribution, Confidence, Method
from pstored.crashes.crash import find_crash
from pstored.crashes.eventreport import LONGEST, MOST_FRAMES, build_event
from pstored.crashes.incidents import group
from pstored.crashes.report import MOST_REPORTS, build
from pstored.oops import analyze
from pstored.oops.signature import loose
from pstored.parse.record import Record, decode_record

T0 = 1_795_407_522
S = 10**9
OOPS = (
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "#PF: supervisor read access in kernel mode",
    "Oops: 0000 [#1] PREEMPT SMP",
    "CPU: 3 PID: 83 Comm: gauged Tainted: G        W  O       6.1.192 #1",
    "Hardware name: QEMU Standard PC",
    "RIP: 0010:gauge_store+0x5/0x7 [gauge]",
    "Call Trace:",
    " <TASK>",
    " ? __die+0x1f/0x60",
    " kernfs_fop_write_iter+0x11b/0x1f0",
    " vfs_write+0x237/0x2e0",
    " </TASK>",
    "---[ end trace 0000000000000000 ]---",
)
WARNING = (
    "------------[ cut here ]------------",
    "WARNING: CPU: 1 PID: 7 at drivers/gauge.c:12 gauge_probe+0x11/0x20",
    "CPU: 1 PID: 7 Comm: probed Not tainted 6.1.192 #1",
    "RIP: 0010:gauge_probe+0x11/0x20",
    "Call Trace:",
    " really_probe+0x1/0x20",
    "---[ end trace 0000000000000000 ]---",
)
FATAL = ("Kernel panic - not syncing: Fatal exception",)


def dump(reason: str, count: int, *lines: str, slot: int = 0, at: int = 10) -> Record:
    """A dmesg record of some lines, a second apart."""
    text = "".join(f"<4>[{at + n:5d}.000000] {line}\n" for n, line in enumerate(lines))
    data = f"{reason}#{count} Part1\n{text}".encode()
    return decode_record(f"dmesg-ramoops-{slot}", data, mtime_ns=(T0 + count) * S, harvest_id="h", sha256="0" * 64)


def report(*records: Record) -> dict[str, Any]:
    """crash.json of some records, as JSON."""
    (whole,) = group(records, stamp_prefix="pstored: boot ")
    event = find_crash(whole)
    assert event is not None
    made = build(
        crash_id="20261123T045102Z-0123456789ab",
        revision=1,
        order=0,
        incident=whole,
        event=event,
        boot=Attribution(boot_id=None, method=Method.UNKNOWN, confidence=Confidence.NONE, evidence=("none",)),
        harvests=[{"id": "h"}],
        erased={},
        files={},
    )
    document: dict[str, Any] = json.loads(made.model_dump_json(by_alias=True))
    return document


def test_the_report_that_names_the_crash_is_there_with_all_that_is_known_of_it() -> None:
    """Task, CPU, machine, taint in words, trace, signatures."""
    event = report(dump("Oops", 1, *OOPS))["event"]
    assert (event["kind"], event["function"], event["pc_function"]) == ("null-deref", "gauge_store", "gauge_store")
    assert (event["comm"], event["pid"], event["cpu"]) == ("gauged", 83, 3)
    assert event["hardware"] == "QEMU Standard PC"
    assert event["taint"] == [
        {"letter": "O", "meaning": "a module from outside the kernel's tree was loaded"},
        {"letter": "W", "meaning": "a warning had been printed before"},
    ]
    assert [(f["function"], f["reliable"]) for f in event["call_trace"]] == [
        ("__die", False),
        ("kernfs_fop_write_iter", True),
        ("vfs_write", True),
    ]
    assert event["call_trace"][1] | {"function": ""} == {
        "function": "",
        "offset": 0x11B,
        "size": 0x1F0,
        "module": None,
        "reliable": True,
    }
    assert event["signature_loose"] == loose("null-deref", "gauge_store", "")
    assert event["signature"] != event["signature_loose"]


def test_the_summary_has_the_signatures() -> None:
    """`pstored list --json`."""
    made = report(dump("Oops", 1, *OOPS))
    assert made["summary"]["signature"] == made["event"]["signature"]
    assert made["summary"]["signature_loose"] == made["event"]["signature_loose"]


def test_a_report_without_a_taint_line_says_nothing_of_taint() -> None:
    """Null is not known, an empty list is not tainted."""
    assert report(dump("Oops", 1, OOPS[0]))["event"]["taint"] is None
    clean = [line.replace("Tainted: G        W  O      ", "Not tainted") for line in OOPS]
    assert report(dump("Oops", 1, *clean))["event"]["taint"] == []


def test_other_reports_of_the_log_are_there_in_order_warnings_included() -> None:
    """What came before may be the cause."""
    made = report(dump("Oops", 1, *WARNING, *OOPS))
    assert made["event"]["kind"] == "null-deref"
    assert [(e["kind"], e["function"], e["severity"]) for e in made["other_events"]] == [
        ("warning", "gauge_probe", "warning")
    ]


def test_what_two_dumps_of_a_boot_share_is_there_once() -> None:
    """The panic's dump holds the oops again, and is the one that names the crash."""
    made = report(dump("Oops", 1, *WARNING, *OOPS), dump("Panic", 2, *OOPS, *FATAL, slot=1, at=10 + len(WARNING)))
    assert (made["severity"], made["event"]["kind"]) == ("panic", "null-deref")
    assert made["event"]["tails"] == ["Fatal exception"]
    assert [e["kind"] for e in made["other_events"]] == ["warning"]


def test_a_crash_that_no_report_tells_of_has_none() -> None:
    """An emergency restart, and what the log held besides."""
    made = report(dump("Emergency", 1, "nothing", "at all"))
    assert made["event"] is None
    assert made["other_events"] == []
    assert (made["summary"]["signature"], made["summary"]["signature_loose"]) == (None, None)


def test_traces_and_reports_are_bounded() -> None:
    """And what is left out is counted."""
    trace = [f" f{n}+0x1/0x20" for n in range(MOST_FRAMES + 36)]
    event = report(dump("Oops", 1, *OOPS[:7], *trace))["event"]
    assert (len(event["call_trace"]), event["frames_left_out"]) == (MOST_FRAMES, 36)
    warnings = [line for n in range(MOST_REPORTS + 8) for line in (*WARNING[:1], WARNING[1].replace("12", str(n)))]
    made = report(dump("Oops", 1, *warnings, *OOPS))
    assert len(made["other_events"]) == MOST_REPORTS
    assert any(note.startswith("other_events: 8 earlier") for note in made["notes"])


@given(st.binary(max_size=400))
def test_any_report_is_json_on_printable_lines(rubbish: bytes) -> None:
    """Whatever stands in it."""
    for event in analyze(b"BUG: unable to handle page fault for address: 8\n" + rubbish + b"\nKernel panic - not "
                         b"syncing: " + rubbish):  # fmt: skip
        made = json.loads(build_event(event).model_dump_json())
        for text in (made["title"], *made["tails"], *made["damaged"]):
            assert text.isprintable()
            assert len(text) <= LONGEST


@pytest.mark.parametrize("fatal", [True, False])
def test_a_panic_of_which_only_the_console_tells_is_named_by_the_console(fatal: bool) -> None:
    """Then its reports are the others."""
    text = "".join(f"<4>[{10 + n:5d}.000123] {line}\n" for n, line in enumerate((*WARNING, *OOPS, *FATAL * fatal)))
    zone = decode_record("console-ramoops-0", text.encode(), mtime_ns=T0 * S, harvest_id="h", sha256="0" * 64)
    made = report(zone)
    assert (made["event"]["kind"], made["event"]["tails"]) == ("null-deref", ["Fatal exception"] * fatal)
    assert [e["kind"] for e in made["other_events"]] == ["warning"]
