# SPDX-License-Identifier: Apache-2.0
"""Lines of the kernel log: every prefix that printk writes, in dumps and on consoles; no byte gets lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, dump
from fake_pstore.klog import Message
from pstored.parse.kmsg import KmsgLine, parse_kmsg


def one(line: bytes) -> KmsgLine:
    """The only line of a text."""
    (found,) = parse_kmsg(line)
    return found


def kmsg(text: bytes, **fields: object) -> KmsgLine:
    """A line as expected; what is not given is not there."""
    values: dict[str, object] = dict.fromkeys(KmsgLine._fields)
    return KmsgLine(**(values | {"continuation": False, "offset": 0, "text": text} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"<6>[    1.234567] text", kmsg(b"text", level=6, facility=0, time_ns=1_234_567_000)),
        (b"[    1.234567] text", kmsg(b"text", time_ns=1_234_567_000)),
        (b"<0>[    0.000000] x", kmsg(b"x", level=0, facility=0, time_ns=0)),
        (b"<30>[   12.000001] systemd[1]: x", kmsg(b"systemd[1]: x", level=6, facility=3, time_ns=12_000_001_000)),
        (b"<12>[99999.999999] x", kmsg(b"x", level=4, facility=1, time_ns=99_999_999_999_000)),
        (b"<6>[1234567.000001] x", kmsg(b"x", level=6, facility=0, time_ns=1_234_567_000_001_000)),
        (
            b"<6>[    1.000000][    T1] x",
            kmsg(b"x", level=6, facility=0, time_ns=1_000_000_000, caller="T1"),
        ),
        (b"[    1.000000][   C12] x", kmsg(b"x", time_ns=1_000_000_000, caller="C12")),
        (b"<6>[T12345] x", kmsg(b"x", level=6, facility=0, caller="T12345")),
        # printk.time=0: no blank behind the level, so one that is there is the text's
        (b"<4>text", kmsg(b"text", level=4, facility=0)),
        (b"<4> text", kmsg(b" text", level=4, facility=0)),
        (b"<4>", kmsg(b"", level=4, facility=0)),
        (b"plain", kmsg(b"plain")),
        (b" plain", kmsg(b" plain")),
        (b"", None),
        (b"<6>[    1.234567]   two blanks are the text's", None),
        # not a prefix of the kernel's
        (b"<x>[1] y", kmsg(b"<x>[1] y")),
        (b"[    1.23456] five digits", kmsg(b"[    1.23456] five digits")),
        (b"[drm] x", kmsg(b"[drm] x")),
        (b"<6>[    1.000000] [drm] x", kmsg(b"[drm] x", level=6, facility=0, time_ns=1_000_000_000)),
        (b"<6>[    1.000000] \x1b[2J\xff\xfe\t", kmsg(b"\x1b[2J\xff\xfe\t", level=6, facility=0, time_ns=10**9)),
        (b"[    1.000000] from a serial port\r", kmsg(b"from a serial port", time_ns=10**9)),
    ],
)
def test_the_prefixes_of_printk_are_understood(line: bytes, expected: KmsgLine | None) -> None:
    """Level and facility, time, caller, with and without each; what is none of it is text."""
    if line == b"":
        assert list(parse_kmsg(line)) == []
    elif expected is None:
        assert one(line).text == b"  two blanks are the text's"
    else:
        assert one(line) == expected
        assert one(line + b"\n") == expected


def test_lines_without_prefix_after_one_with_continue_it() -> None:
    """The rest of a message of several lines; at the beginning, a line cut by a zone's wrap continues nothing."""
    text = b"rest of a cut line\n<6>[    1.000000] a\n  b\n<6>[    1.100000] c\n"
    assert [(line.continuation, line.text, line.offset) for line in parse_kmsg(text)] == [
        (False, b"rest of a cut line", 0),
        (False, b"a", 19),
        (True, b"  b", 39),
        (False, b"c", 43),
    ]


def test_empty_lines_are_lines() -> None:
    """A log with an empty line has one line more; a newline at the end makes none."""
    assert [line.text for line in parse_kmsg(b"a\n\nb\n")] == [b"a", b"", b"b"]
    assert [line.text for line in parse_kmsg(b"\n")] == [b""]


@pytest.mark.parametrize("level", range(8))
def test_level_and_facility_round_trip(level: int) -> None:
    """As the kernel prints a message in a dump, in every form of the prefix, so it is read."""
    for facility in (0, 1, 3, 23):
        for times, callers in ((True, False), (True, True), (False, True), (False, False)):
            message = Message(facility * 8 + level, 12_345_678, "T99", "what was said")
            line = one(dump.syslog_lines(message, times=times, callers=callers))
            assert (line.level, line.facility, line.text) == (level, facility, b"what was said")
            assert line.time_ns == (12_345_678_000 if times else None)
            assert line.caller == ("T99" if callers else None)


@pytest.mark.parametrize("name", [n for n in capture.names() if capture.load(n).files])
def test_every_line_of_a_real_dump_has_its_prefix(name: str) -> None:
    """In real dumps each line bears level and time, and times go forward but for a few microseconds between CPUs."""
    for filename, data, _ in capture.load(name).records():
        if filename.startswith("dmesg") and not filename.endswith(".enc.z"):
            text = data[data.index(b"\n") + 1 :].split(b"\nECC: ")[0].rstrip(b"\n")
            lines = list(parse_kmsg(text))
            assert len(lines) == text.count(b"\n") + 1
            assert all(line.level is not None and line.time_ns is not None for line in lines)
            assert not any(line.continuation for line in lines)


@given(st.binary(max_size=400) | st.text(alphabet="<>[]0123456789. TC\n\r", max_size=200).map(str.encode))
def test_every_byte_is_in_a_line(data: bytes) -> None:
    """Any bytes give lines: in order, each at its offset, text at its end; only newlines and prefixes are left out."""
    lines = list(parse_kmsg(data))
    pieces = data.removesuffix(b"\n").split(b"\n") if data else []
    assert len(lines) == len(pieces)
    at = 0
    for line, piece in zip(lines, pieces, strict=True):
        assert line.offset == at
        assert piece.removesuffix(b"\r").endswith(line.text)
        if line.level is None and line.time_ns is None and line.caller is None:
            assert line.text == piece.removesuffix(b"\r")
        at += len(piece) + 1


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_lines_of_two_texts_are_those_of_each(first: bytes, second: bytes) -> None:
    """A text may be read in pieces that end with a newline: only what continues a message knows of the line before."""
    together = [(line.text, line.time_ns) for line in parse_kmsg(first + b"\n" + second)]
    apart = [(line.text, line.time_ns) for text in (first + b"\n", second) for line in parse_kmsg(text)]
    assert together == apart
