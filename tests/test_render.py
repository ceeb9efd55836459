# SPDX-License-Identifier: Apache-2.0
"""What a person sees: everything that matters, and nothing of a record that a terminal would act on."""

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.oops import KINDS
from pstored.oops.meaning import LOOK
from pstored.page.listing import render_list, short_line
from pstored.page.render import MOST_OTHERS, render_crash
from pstored.terminal import Style, visible

EVIL = "\x1b]0;pwn\x07\x1b[2J\x9b31m\r\x08\u202etxt\u2028\x00\x7f\udcff"
COLOR = Style(color=True)

CRASH: dict[str, Any] = {
    "schema": 1,
    "id": "20261123T045102Z-0123456789ab",
    "revision": 1,
    "title": "BUG: kernel NULL pointer dereference, address: 8 in gauge_store",
    "kind": "null-deref",
    "severity": "oops",
    "function": "gauge_store",
    "comm": "gauged",
    "pid": 83,
    "boot": {
        "id": "29ba41b6-8626-4f73-9871-3d09cbfdd92a",
        "method": "stamp",
        "confidence": "certain",
        "evidence": ["Oops#1 bears the stamp"],
    },
    "collected": {
        "boot_id": "c05000d0-fcd5-4a6e-ab69-2029de08b3f6",
        "time": "2026-11-23T04:51:02Z",
        "harvest_id": "20261123T045102Z-ba9876543210",
        "harvests": ["20261123T045102Z-ba9876543210"],
    },
    "time": {"wall": "2026-11-23T04:18:42.500000Z", "uptime_s": 61.25, "doubtful": False, "why": None},
    "kernel": {"release": "6.1.192", "banner": None, "cmdline": None, "hardware": "QEMU PC"},
    "machine_id": None,
    "backend": "efi",
    "dumps": [
        {
            "reason": "Oops",
            "count": 1,
            "title": "BUG: kernel NULL pointer dereference",
            "parts": [1, 2, 5, 6, 7],
            "missing": [3, 4],
            "complete": False,
            "lines": 12,
            "damage": [],
        }
    ],
    "records": [
        {
            "name": "dmesg-efi-179540752201001",
            "type": "dmesg",
            "size": 1818,
            "sha256": "0" * 64,
            "harvest_id": "20261123T045102Z-ba9876543210",
            "compression": "zstd",
            "ecc": {"corrected_bytes": 3, "unrecoverable_blocks": 0},
            "erased": True,
            "outcome": "erased",
            "why": "the id names this record",
        }
    ],
    "files": {"dmesg.txt": {"size": 100, "sha256": "0" * 64}},
    "complete": False,
    "notes": ["kernel.cmdline: the records do not hold that line"],
}
TEXT = (
    b"<6>[    1.000000] before\n"
    b"<1>[   60.000001] BUG: kernel NULL pointer dereference, address: 8\n"
    b"<4>[   60.000002] more\n"
)


def crash(**changes: Any) -> dict[str, Any]:
    """The crash above; keys as ``boot__id``."""
    made = copy.deepcopy(CRASH)
    for key, value in changes.items():
        *path, last = key.split("__")
        target = made
        for name in path:
            target = target[name]
        target[last] = value
    return made


def page(made: dict[str, Any] | None = None, text: bytes = TEXT, style: Style = Style()) -> str:  # noqa: B008
    """The page of a crash."""
    return render_crash(made or crash(), {"dmesg.txt": text}, directory="/a", style=style)


def summary(**changes: Any) -> dict[str, Any]:
    """A line for the list."""
    return {
        "id": CRASH["id"],
        "time": "2026-11-23T04:18:42.500000Z",
        "doubtful": False,
        "boot": "29ba41b6-8626-4f73-9871-3d09cbfdd92a",
        "method": "stamp",
        "confidence": "certain",
        "kernel": "6.1.192",
        "title": "Kernel panic: sysrq triggered crash",
        "kind": "sysrq",
        "severity": "panic",
        "backend": "efi",
        "complete": True,
        "sender": None,
    } | changes


def is_harmless(text: str) -> bool:
    """Nothing but printable characters and newlines."""
    return all(line.isprintable() for line in text.split("\n"))


# -- escaping


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        (b"plain", "plain"),
        ("Ärger", "Ärger"),
        (b"a\tb", "a       b"),
        (b"\x1b[31m", "\\x1b[31m"),
        (b"a\rb\x08\x00\x7f", "a\\rb\\x08\\x00\\x7f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202e\u2066", "\\u202e\\u2066"),
        ("\x9b31m", "\\x9b31m"),
        ("\u2028\n", "\\u2028\\n"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(given_text: bytes | str, shown: str) -> None:
    """Escapes, controls of both tables, direction marks, line separators; plain text stays."""
    assert visible(given_text) == shown


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_is_shown_is_printable(text: bytes | str) -> None:
    """One line, nothing that acts."""
    assert visible(text).isprintable()


@pytest.mark.parametrize(
    "field",
    [
        "title",
        "comm",
        "kernel__release",
        "kernel__hardware",
        "boot__evidence",
        "dumps",
        "records",
        "notes",
        "time__why",
        "collected__time",
        "collected__boot_id",
        "backend",
        "compression",
        "damage",
    ],
)
def test_no_field_of_a_report_reaches_the_terminal_as_it_is(field: str) -> None:
    """Titles, names of tasks, of records, notes, evidence: all may come from a record, or from a file that was."""
    made = crash(time__doubtful=True, time__why="x")
    if field == "boot__evidence":
        made["boot"].update(evidence=[EVIL], confidence="low")
    elif field == "notes":
        made["notes"] = [EVIL]
    elif field == "dumps":
        made["dumps"][0]["title"] = EVIL
    elif field == "damage":
        made["dumps"][0]["damage"] = [EVIL]
    elif field == "records":
        made["records"][0].update(name=EVIL, outcome="failed", why=EVIL)
    elif field == "compression":
        made["records"][0]["compression"] = EVIL
    else:
        made = crash(**{field: EVIL})
    assert is_harmless(page(made))
    assert is_harmless(short_line(made))


def test_the_kernels_own_words_are_escaped() -> None:
    """The excerpt comes straight from the record."""
    text = b"<0>[    1.000000] BUG: KASAN: x\n<0>[    1.000001] \x1b]0;pwn\x07\x1b[2J\xff\xe2\x80\xae\n"
    shown = page(text=text)
    assert is_harmless(shown)
    assert "\\x1b]0;pwn\\x07" in shown


def test_a_list_is_harmless() -> None:
    """One line a crash, whatever its title."""
    table = render_list([summary(title=EVIL, kernel=EVIL), summary()])
    assert is_harmless(table)
    assert table.count("\n") == 3


# -- the page


def test_the_page_says_what_a_person_wants_at_night() -> None:
    """What, when, where, how that is known, what is missing, and where the files are."""
    shown = page()
    assert shown.startswith("BUG: kernel NULL pointer dereference, address: 8 in gauge_store\n")
    for words in (
        "29ba41b6-8626-4f73-9871-3d09cbfdd92a (certain, by stamp)",
        "2026-11-23 04:18:42",
        "UTC, 61.2 s into that boot",
        "6.1.192",
        "QEMU PC",
        "gauged, pid 83",
        "Oops#1 (5 parts, 12 lines, 2 MISSING)",
        "Oops#1: missing: part 3 to 4",
        "unpacked here: zstd",
        "ECC corrected 3 bytes",
        "[   60.000001] BUG: kernel NULL pointer dereference, address: 8",
        "kernel.cmdline: the records do not hold that line",
        "/a/dmesg.txt  100 bytes",
        "/a/crash.json",
    ):
        assert words in shown, words


def test_an_unknown_boot_is_said_with_its_reason() -> None:
    """And not dressed up as known."""
    shown = page(crash(boot__id=None, boot__method="unknown", boot__confidence="none", boot__evidence=["no stamp"]))
    assert "cannot be named" in shown
    assert "the boot that crashed cannot be named: no stamp" in shown
    assert "boot unknown" in short_line(crash(boot__id=None))


def test_a_guess_is_called_one() -> None:
    """Elimination."""
    assert "the boot is a guess" in page(crash(boot__confidence="low", boot__method="elimination"))


def test_a_doubtful_time_is_called_so() -> None:
    """On the page with the reason, on a line with a question mark."""
    made = crash(time__doubtful=True, time__why="the clock was wrong")
    assert "(doubtful)" in page(made)
    assert "time: the clock was wrong" in page(made)
    assert "2026-11-23 04:18?" in short_line(made)
    assert "2026-11-23 04:18?" in render_list([summary(doubtful=True)])


def test_an_absent_time_is_called_unknown() -> None:
    """Console only."""
    made = crash(time__wall=None, time__doubtful=True, time__why="only their mount's", time__uptime_s=None)
    assert "unknown" in page(made)
    assert "time unknown" in short_line(made)


def test_what_is_still_in_the_store_is_said() -> None:
    """With the reason, once for many records."""
    made = crash()
    left = made["records"][0] | {"erased": False, "outcome": "failed", "why": "EIO"}
    made["records"] = [left | {"name": f"dmesg-efi-{n}"} for n in range(9)]
    assert "dmesg-efi-0, dmesg-efi-1, dmesg-efi-2 and 6 more: EIO" in page(made)


def test_a_text_without_a_report_shows_its_end() -> None:
    """The last words."""
    shown = page(text=b"".join(b"<6>[%5d.000000] line %d\n" % (n, n) for n in range(100)))
    assert "line 99" in shown
    assert "line 10\n" not in shown


def test_a_long_report_is_cut_and_says_so() -> None:
    """The rest is in the file."""
    lines = [b"<0>[    1.000000] BUG: KASAN: use-after-free in f+0x1/0x2\n"]
    lines += [b"<4>[    2.000000] frame %d\n" % n for n in range(500)]
    lines += [b"<0>[    3.000000] Kernel panic - not syncing: Fatal exception\n"]
    shown = page(text=b"".join(lines))
    assert "lines more in dmesg.txt" in shown
    assert shown.count("\n") < 150


def test_without_any_text_the_page_still_stands() -> None:
    """The texts cannot be read, or there are none."""
    assert "Files" in render_crash(crash(), {}, directory="/a")


def test_an_incomplete_crash_says_so_on_one_line() -> None:
    """And a whole one does not."""
    assert short_line(crash()).endswith("(incomplete)")
    assert not short_line(crash(complete=True)).endswith("(incomplete)")


# -- colour, width


def test_without_colour_there_is_no_escape() -> None:
    """The default."""
    assert "\x1b" not in page() + render_list([summary()])


def test_colour_is_only_colour() -> None:
    """Taken away again, the text is the same."""
    table = render_list([summary()])
    for plain, coloured in ((page(), page(style=COLOR)), (table, render_list([summary()], style=COLOR))):
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize("title", ["efi", "?", "yes", "6", "-"])
def test_only_the_title_of_a_panic_is_red(title: str) -> None:
    """Even if the same letters stand in another column."""
    row = render_list([summary(title=title)], style=COLOR).split("\n")[1]
    assert row.count("\x1b[1;31m") == 1
    assert row.endswith(f"\x1b[1;31m{title}\x1b[0m")


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_list_is_cut_to_the_width(width: int) -> None:
    """Never wider than the terminal, and it shows where it was cut."""
    table = render_list([summary(title="x" * 300)], width=width)
    assert all(len(line) <= width for line in table.split("\n"))
    assert table.split("\n")[1].endswith("…")


def test_a_list_lines_up() -> None:
    """Columns begin at the same place in every row."""
    rows = render_list([summary(), summary(kernel=None, backend=None, boot=None, complete=False)]).split("\n")
    at = rows[0].index("WHAT HAPPENED")
    assert rows[1][at:] == rows[2][at:] == "Kernel panic: sysrq triggered crash"
    assert " ?  " in rows[2]
    assert " no " in rows[2]


# -- what the analyzer understood

EVENT: dict[str, Any] = {
    "kind": "null-deref",
    "title": CRASH["title"],
    "severity": "oops",
    "cpu": 3,
    "signature": "0123456789abcdef",
    "signature_loose": "fedcba9876543210",
    "taint": [{"letter": "W", "meaning": "a warning had been printed before"}, {"letter": "O", "meaning": "not ours"}],
    "call_trace": [],
}


def test_the_sentence_comes_first_and_the_kind_is_explained() -> None:
    """What it means, where to look, and the commands for what there is."""
    shown = render_crash(crash(), {"dmesg.txt": TEXT}, directory="/a", commands=["less /a/dmesg.txt", "pstored x"])
    assert shown.splitlines()[0] == CRASH["title"]
    after = shown.split("What to look at next\n")[1].splitlines()
    assert after[0].strip() == KINDS["null-deref"]
    assert after[1].strip() == f"look {LOOK['null-deref']}"
    assert after[2:4] == ["  $ less /a/dmesg.txt", "  $ pstored x"]


def test_a_kind_that_a_later_version_knows_is_no_error() -> None:
    """The archive may be newer than the program."""
    assert "look at" not in page(crash(kind="of tomorrow"))


def test_task_taint_and_signature_are_explained() -> None:
    """Every letter in words."""
    shown = page(crash(event=EVENT, other_events=[], comm="kworker/3:1"))
    assert "kworker/3:1, pid 83, on CPU 3: a thread of the kernel that runs queued work" in shown
    assert "  tainted  W: a warning had been printed before\n           O: not ours\n" in shown
    assert "signature  0123456789abcdef (loose: fedcba9876543210)" in shown
    assert "  tainted  no\n" in page(crash(event=EVENT | {"taint": []}))
    assert "tainted" not in page(crash(event=EVENT | {"taint": None}))
    assert "tainted" not in page(crash(event=None))


def test_other_reports_of_the_log_are_named() -> None:
    """Some, and how many more; what a dump has for its title is named there already."""
    others = [EVENT | {"severity": "warning", "title": f"WARNING {n}"} for n in range(9)]
    shown = page(crash(event=EVENT, other_events=[*others, EVENT | {"title": CRASH["dumps"][0]["title"]}]))
    assert "     also  warning: WARNING 0\n           warning: WARNING 1\n" in shown
    assert f"and {9 - MOST_OTHERS} more in crash.json" in shown


def test_nothing_that_the_analyzer_understood_reaches_the_terminal_as_it_is() -> None:
    """Names of tasks and titles come from records; the rest from a file that anybody may have changed."""
    evil = EVENT | {"title": EVIL, "severity": EVIL, "signature": EVIL, "taint": [{"letter": EVIL, "meaning": EVIL}]}
    made = crash(event=evil, other_events=[evil], comm=f"kworker/{EVIL}")
    assert is_harmless(render_crash(made, {}, directory="/a", commands=[EVIL]))


def test_a_usual_oops_fits_on_a_screen() -> None:
    """Fifty lines: a page that a person reads at night; registers and modules are in the file."""
    lines = [
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "#PF: supervisor read access in kernel mode",
        "Oops: 0000 [#1] PREEMPT SMP",
        "CPU: 3 PID: 83 Comm: gauged Not tainted 6.1.192 #1",
        "RIP: 0010:gauge_store+0x5/0x7 [gauge]",
        *["RAX: ffffffff97960d3d RBX: ff3c22551baa1000 RCX: 0000000000000003"] * 12,
        "Call Trace:",
        *[f" {'? ' * (n % 2)}f{n}+0x1/0x20" for n in range(12)],
        "Modules linked in: gauge(O)",
        "---[ end trace 0000000000000000 ]---",
    ]
    text = "".join(f"<4>[{n + 10:5d}.000000] {line}\n" for n, line in enumerate(lines)).encode()
    whole = crash(event=EVENT, other_events=[], notes=[], complete=True)
    whole["dumps"][0]["missing"] = []
    shown = render_crash(whole, {"dmesg.txt": text}, directory="/a", commands=["less", "journalctl", "pstored"])
    assert shown.count("\n") <= 50
