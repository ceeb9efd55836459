# SPDX-License-Identifier: Apache-2.0
"""What holds for any bytes: events and no exception, work that grows with the text only, signatures that last."""

import re
import resource
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import pstored.decode
import pstored.oops.blame
import pstored.oops.checks
import pstored.oops.details
import pstored.oops.events
import pstored.oops.facts
import pstored.oops.faults
import pstored.oops.frames
import pstored.oops.lines
import pstored.oops.names
import pstored.oops.panics
import pstored.oops.reports
import pstored.oops.signature
from pstored.oops import Event, analyze, find_events, principal
from pstored.oops.headers import RULES
from pstored.oops.lines import LONGEST_LINE
from pstored.oops.panics import _REASONS, _TAILS
from pstored.oops.reports import LONGEST
from pstored.parse.kmsg import parse_kmsg
from tests.conftest import forked
from tests.test_oops_dialects import DIALECTS, the

# -- any bytes

OTHERS = (
    b"BUG: KASAN: use-after-free in ",
    b"Kernel panic - not syncing: Fatal exception",
    b"------------[ cut here ]------------",
    b"---[ end trace 0 ]---",
    b"Call Trace:",
    b"RIP: 0010:",
    b"+0x1/0x2",
    b" from ",
    b"[<ffffffff81000000>]",
    b"<IRQ>",
    b"[   12.345678] ",
    b"[   12.345678][  T123] ",
    b"<4>",
    b"CPU: 1 PID: 2 Comm: x Not tainted 6.1.0 #1",
    b"Modules linked in: a b(O)",
    b"RAX: 0000000000000001",
    b"is trying to acquire lock:",
    b" at: ",
    b"Panic#1 ",
    b"\xff\xfe",
    b"\0",
)
WORDS = sorted({rule.anchor for rule in RULES} | set(OTHERS))
LINES = st.lists(st.sampled_from(WORDS) | st.binary(max_size=20), max_size=6).map(b"".join)
LOGS = st.lists(LINES, max_size=40).map(b"\n".join)


def check(text: bytes) -> list[Event]:
    """Analyze; whatever is found lies in the text."""
    events = analyze(text)
    lines = text.count(b"\n") + 1
    for event in events:
        assert 0 <= event.first < event.last <= lines
        assert event.title == event.title.strip()
        assert len(event.loose) == len(event.strict) == 16
    assert sorted(e.first for e in events if not e.damaged) == [e.first for e in events if not e.damaged]
    return events


@given(st.binary(max_size=400) | LOGS)
@example(b"BUG: ")
@example(b"Panic#1 Part1\n")
@example(b"====1.2-C\nOops#1 Part1\nx")
@example(b"Kernel panic: ")
def test_any_bytes_give_events_and_no_exception(text: bytes) -> None:
    """Noise, and logs that are made of the kernel's own words."""
    check(text)
    find_events(list(parse_kmsg(text)))
    decoded = pstored.decode.decode("x", text)
    assert all(line.isprintable() for line in pstored.decode.render(decoded).split("\n"))
    pstored.decode.to_json(decoded)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_report_that_is_cut_anywhere_is_one_event_of_its_kind_or_none(name: str) -> None:
    """At the end: a zone that wrapped, a console that stopped.  The kind is known from the first line on."""
    text = DIALECTS[name].text.encode()
    kind = the(DIALECTS[name].text).kind
    for at in range(0, len(text), 7):
        event = principal(check(text[:at]))
        assert event is None or event.kind in (kind, "paging-fault", "oops")
        if event is not None and text[:at].count(b"\n") > 3:
            assert event.kind == kind


@pytest.mark.parametrize("name", DIALECTS)
def test_a_report_that_has_lost_its_beginning_raises_nothing(name: str) -> None:
    """Cut at the front, any remainder is read."""
    text = DIALECTS[name].text.encode()
    for at in range(0, len(text), 7):
        check(text[at:])


@pytest.mark.parametrize("name", [n for n in DIALECTS if DIALECTS[n].text.startswith("[ ")])
def test_a_program_that_writes_between_the_lines_changes_nothing(name: str) -> None:
    """A console has the lines of everybody."""
    noisy = "".join(f"{line}\ngauged: all is well\n" for line in DIALECTS[name].text.splitlines())
    assert [e.strict for e in analyze(noisy.encode())] == [e.strict for e in analyze(DIALECTS[name].text.encode())]


@given(st.lists(st.booleans(), min_size=40, max_size=40))
def test_two_reports_that_are_interleaved_are_told_apart_by_caller(order: list[bool]) -> None:
    """In whatever order the lines of two tasks come."""
    texts = [
        [line.replace("]", f"][ {caller}]", 1) for line in DIALECTS[name].text.splitlines()]
        for name, caller in (("riscv", "T100"), ("powerpc", "T200"))
    ]
    wanted = {e.strict for name in ("riscv", "powerpc") for e in analyze(DIALECTS[name].text.encode())}
    queues = [iter(lines) for lines in texts]
    mixed = [line for second in order if (line := next(queues[second], None)) is not None]
    mixed += [line for queue in queues for line in queue]
    assert {e.strict for e in analyze("\n".join(mixed).encode())} == wanted


# -- work


def calls(run: Callable[[], Any]) -> int:
    """How many functions are called, ours and the interpreter's: work, on any machine."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


REPORT = DIALECTS["x86-64"].text.encode()
GROWING: dict[str, Callable[[int], bytes]] = {
    "nothing": lambda n: b"[    1.000000] usb 1-1: new high-speed USB device number 2 using xhci_hcd\n" * n,
    "reports": lambda n: REPORT * (n // 20),
    "headers": lambda n: b"[    1.000000] BUG: KASAN: use-after-free in f+0x1/0x2\n" * n,
    "headers of many tasks": lambda n: b"".join(
        b"[    1.000000][%6s] BUG: KASAN: x\n" % (b"T%d" % i) for i in range(n)
    ),
    "headers of nine tasks": lambda n: b"".join(
        b"[    1.000000][   T%d] %s\n" % (i % 9, b" f+0x1/0x2" if i % 200 > 9 else b"BUG: KASAN: x") for i in range(n)
    ),
    "traps": lambda n: b"[    1.000000] Oops: 0000 [#1] SMP\n" * n,
    "panics": lambda n: b"[    1.000000] Kernel panic - not syncing: Fatal exception\n" * n,
    "panics of another kind": lambda n: (
        b"[    1.000000] BUG: KASAN: x\n" * n
        + b"[    1.000000] Kernel panic - not syncing: hung_task: blocked tasks\n" * n
    ),
    "what is left before panics": lambda n: (
        (b"x\n" * 99 + b"Kernel panic - not syncing: Fatal exception\n") * (n // 100)
    ),
    "joined lines": lambda n: (b"BUG: KASAN: x\n" + b"[    1.000000] x" * 200 + b"\n") * (n // 20),
    "one endless trace": lambda n: REPORT[:800] + b"[    1.000000]  f+0x1/0x2\n" * n,
    "merged headers": lambda n: b"[    1.000000] mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 1: 0\n" * n,
    "stalls": lambda n: b"[    1.000000] rcu: INFO: rcu_sched self-detected stall on CPU\n[    1.0] x\n" * (n // 2),
    "preludes": lambda n: b"[    1.000000] ------------[ cut here ]------------\n" * n + REPORT,
    "words without headers": lambda n: b"[    1.000000] BUG Unable to Kernel [# Machine INFO: x\n" * n,
}


@pytest.mark.parametrize("name", GROWING)
def test_work_grows_with_the_text_and_no_faster(name: str) -> None:
    """Four times the text is at most four times the calls, and a little."""
    small, large = GROWING[name](500), GROWING[name](2000)
    analyze(small)  # patterns are compiled when they are first needed
    assert calls(lambda: analyze(large)) <= 4.4 * calls(lambda: analyze(small)) + 200


def test_a_text_without_reports_is_not_split_into_lines() -> None:
    """Only searched: the calls do not depend on its length."""
    analyze(b"")
    assert calls(lambda: analyze(GROWING["nothing"](20_000))) == calls(lambda: analyze(GROWING["nothing"](10)))


def test_the_longest_report_and_line_are_bounded() -> None:
    """Neither holds up the rest: an endless trace ends, an endless line is cut."""
    (event,) = analyze(GROWING["one endless trace"](5000))
    assert event.last - event.first <= LONGEST
    (event,) = analyze(b"BUG: KASAN: use-after-free in " + b"a" * 1_000_000)
    assert len(event.title) <= LONGEST_LINE + 100


# -- expressions

MODULES: tuple[ModuleType, ...] = (
    pstored.decode,
    pstored.oops.blame,
    pstored.oops.checks,
    pstored.oops.details,
    pstored.oops.events,
    pstored.oops.facts,
    pstored.oops.faults,
    pstored.oops.frames,
    pstored.oops.lines,
    pstored.oops.names,
    pstored.oops.panics,
    pstored.oops.reports,
    pstored.oops.signature,
)


def expressions() -> Iterator[Any]:
    """Every regular expression of the analyzer."""
    for module in MODULES:
        yield from (value for value in vars(module).values() if isinstance(value, re.Pattern))
    yield from (re.compile(rule.pattern) for rule in RULES)
    yield from (re.compile(tail[0]) for tail in _TAILS)
    yield from (re.compile(reason[0]) for reason in _REASONS)


def repeats(parsed: Any, *, endless: bool = False) -> Iterator[bool]:
    """For each repeat without bound in a parsed expression: whether it is of one character, and not within another."""
    for op, argument in parsed:
        if op in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            is_endless = argument[1] == constants.MAXREPEAT
            if is_endless:
                yield len(argument[2]) == 1 and argument[2][0][0] is not constants.SUBPATTERN and not endless
            yield from repeats(argument[2], endless=endless or is_endless)
        elif op is constants.SUBPATTERN:
            yield from repeats(argument[3], endless=endless)
        elif op is constants.BRANCH:
            for branch in argument[1]:
                yield from repeats(branch, endless=endless)


@pytest.mark.parametrize("pattern", list(expressions()), ids=lambda pattern: repr(pattern.pattern)[:60])
def test_no_expression_can_go_back_without_bound(pattern: re.Pattern[bytes]) -> None:
    """At most one repeat is endless, of single characters, and none is in another."""
    found = list(repeats(parser.parse(pattern.pattern)))
    assert len(found) <= 1
    assert all(found)


HOSTILE = (
    b"1 ",
    b"a:1 at ",
    b"x (pid 1): ",
    b"a+0x1/0x1 in ",
    b"[<00000000> ",
    b"a/1 is ",
    b": ",
    b"] ",
    b"\x80",
    b"[ 1.000001] ",
)


def test_hostile_lines_of_every_rule_are_read_in_bounded_time() -> None:
    """Damage joins lines: behind every beginning, 8 KiB of what the patterns look for; 20 s of CPU for 5 MB of it."""
    starts = sorted(
        {rule.anchor for rule in RULES} | {b"WARNING: at ", b"BUG: Bad page ", b"CPU: 1 PID: 1 Comm: ", b""}
    )
    text = b"\n".join(start + piece * (8192 // len(piece)) for start in starts for piece in HOSTILE)

    def read() -> bool:
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        analyze(text)
        return True

    assert forked(read)


# -- signatures


def changed(text: str, *changes: tuple[str, str]) -> Event:
    """The event of a text in which something is different."""
    for old, new in changes:
        assert re.search(old, text), old
        text = re.sub(old, new, text)
    return the(text)


CHANGES = {
    "addresses": [(r"ffff8880[0-9a-f]{8}", "ffff88810badcafe"), (r"(address: 0{14})18", r"\g<1>48")],
    "offsets and sizes": [(r"\+0x2a/0x60", "+0x3b/0x80"), (r"\+0x1a/0x40", "+0x1c/0x44")],
    "CPU": [(r"CPU: 3", "CPU: 11")],
    "task": [(r"PID: 4242 Comm: gauged", "PID: 17 Comm: dialer")],
    "kernel": [(r"6\.1\.192 #1", "6.6.30-vendor #77"), (r"Tainted: G        W  O     ", "Not tainted")],
    "compiler suffixes": [(r"gauge_show\.isra\.0", "gauge_show.constprop.0.cold")],
    "unreliable frames": [
        (r"(?m)^.*\? __die.*\n", ""),
        (r"(?m)^(.*)  (dev_attr_show)", r"\1  ? stale+0x1/0x2\n\1  \2"),
    ],
    "times": [(r"\[   12\.0", "[99999.0")],
    "modules": [(r"\[gauge\]", "[gauge_ng]"), (r"Modules linked in: .*", "Modules linked in: other")],
    "a newer kernel's words": [(r"Oops: 0000 \[#1\]", "Oops: Oops: 0000 [#2]")],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_signature_is_stable_over(name: str) -> None:
    """The same bug on another board, in another boot, of another build."""
    before, after = the(DIALECTS["x86-64"].text), changed(DIALECTS["x86-64"].text, *CHANGES[name])
    assert (after.loose, after.strict) == (before.loose, before.strict)


def test_a_signature_is_the_same_behind_a_helper() -> None:
    """Which of the string functions was hit says nothing."""
    before, after = (
        the(DIALECTS["x86-64"].text),
        changed(DIALECTS["x86-64"].text, (r"RIP: 0010:\w+", "RIP: 0010:strlen")),
    )
    assert after.strict == before.strict


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gauge_show", "gauge_store"),
        ("kernel NULL pointer dereference, address:", "unable to handle page fault for address:"),
    ],
    ids=["function", "kind"],
)
def test_a_signature_differs_with(old: str, new: str) -> None:
    """Other bugs are others."""
    before, after = the(DIALECTS["x86-64"].text), changed(DIALECTS["x86-64"].text, (old, new))
    assert after.strict != before.strict
    assert after.loose != before.loose


def test_the_loose_signature_does_not_look_at_callers_and_the_strict_one_does() -> None:
    """Two strengths."""
    before, after = the(DIALECTS["x86-64"].text), changed(DIALECTS["x86-64"].text, ("dev_attr_show", "kernfs_show"))
    assert after.loose == before.loose
    assert after.strict != before.strict


def test_signatures_can_be_worked_out_by_others() -> None:
    """As the README says."""
    from hashlib import sha256

    event = the(DIALECTS["x86-64"].text)
    frames = ["gauge_show", "dev_attr_show", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]
    assert event.loose == sha256(b"null-deref\ngauge_show\n").hexdigest()[:16]
    assert event.strict == sha256("".join(f"{x}\n" for x in ["null-deref", *frames]).encode()).hexdigest()[:16]


def test_without_a_function_the_words_are_the_signature_but_not_their_numbers() -> None:
    """A panic for the same reason, of another task."""
    first, second = (the(f"Kernel panic - not syncing: no gauge {n} at 0x{n:08x}\n") for n in (12, 97))
    assert first.loose == second.loose == first.strict
    assert the("Kernel panic - not syncing: no dial 12 at 0x0000000c\n").loose != first.loose


def test_every_dialect_has_its_own_signatures() -> None:
    """No two of these reports are of one bug."""
    signatures = sorted(the(dialect.text).strict for dialect in DIALECTS.values())
    assert all(one != other for one, other in pairwise(signatures))
