# SPDX-License-Identifier: Apache-2.0
"""Messages of user space: plain text and Android's framing, told apart and read."""

import struct
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.parse.pmsg import Framing, parse_pmsg

CAPTURES = Path(__file__).parent.parent / "fake_pstore" / "captures"
MAIN, RADIO, EVENTS, SYSTEM, CRASH, STATS, SECURITY, KERNEL = range(8)
TIME_S = 1795409101  # 2026-11-23 04:45:01 UTC
I32, I64, STRING, LIST, FLOAT = range(5)


def frame(payload: bytes, *, log: int = MAIN, nsec: int = 123_456_789, time_s: int = TIME_S, pid: int = 512) -> bytes:
    """A message as liblog writes it, by user 1000, thread 513."""
    return struct.pack("<BHHHBHII", ord("l"), 18 + len(payload), 1000, pid, log, 513, time_s, nsec) + payload


def text(tag: bytes, message: bytes, *, priority: int = 5, **header: int) -> bytes:
    """A message of a text log."""
    return frame(bytes([priority]) + tag + b"\0" + message + b"\0", **header)


def event(tag: int, value: bytes, *, log: int = EVENTS) -> bytes:
    """A message of a binary log."""
    return frame(struct.pack("<i", tag) + value, log=log)


def piece(name: bytes, number: int, content: bytes, *, time_s: int = TIME_S) -> bytes:
    """A piece of a file, as __android_log_pmsg_file_write() stores it."""
    return frame(b"\x04" + name + b"\0" + content, log=SYSTEM, nsec=number * 1000, time_s=time_s)


def string(value: bytes) -> bytes:
    """A string of a binary log."""
    return struct.pack("<Bi", STRING, len(value)) + value


def captured(name: str, member: str) -> bytes:
    """A record of the captures."""
    with tarfile.open(CAPTURES / name / "pstore.tar.xz") as tar:
        file = tar.extractfile(member)
        assert file is not None
        return file.read()


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("x86_64-6.1-ramoops-all", "pmsg-ramoops-0"),
        ("lk-HUNG_TASK", "pmsg-ramoops-0"),
        ("lab-blk", "pmsg-pstore_blk-0"),
    ],
)
def test_real_plain_text_is_unchanged(name: str, member: str) -> None:
    """What a plain system wrote is given as it is, with its binary bytes."""
    data = captured(name, member)
    pmsg = parse_pmsg(data)
    assert pmsg.framing is Framing.TEXT
    assert pmsg.render() is data
    assert (len(pmsg.messages), pmsg.files, pmsg.skipped, pmsg.damage) == (0, (), 0, ())


def test_lines_of_real_plain_text() -> None:
    """The capture was written as 42 lines, the last of them with bytes that are no text."""
    lines = list(parse_pmsg(captured("x86_64-6.1-ramoops-all", "pmsg-ramoops-0")).lines())
    assert lines[0] == b"pmsg line one: boot 03a27352-fb6e-40b0-83aa-006bb36351b6"
    assert lines[40] == b"app[39]: heartbeat seq=39 state=ok"
    assert lines[41] == b"binary \x00\x01\xff payload"
    assert len(lines) == 42


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"l", b"l" * 100, b"hello all\n" * 9, bytes(range(256)), "läuft\n".encode()]
)
def test_what_has_no_message_is_text(data: bytes) -> None:
    """Anything without Android's messages is text, unchanged."""
    pmsg = parse_pmsg(data)
    assert pmsg.framing is Framing.TEXT
    assert pmsg.render() == data


def test_a_text_message() -> None:
    """All fields of a message come back, and the line is what a person reads."""
    pmsg = parse_pmsg(text(b"ActivityManager", b"Low on memory"))
    assert pmsg.framing is Framing.ANDROID
    (message,) = pmsg.messages
    assert message.log == "main"
    assert (message.uid, message.pid, message.tid) == (1000, 512, 513)
    assert message.time_ns == TIME_S * 1_000_000_000 + 123_456_789
    assert (message.priority, message.tag, message.text) == ("W", b"ActivityManager", b"Low on memory")
    assert pmsg.render() == b"2026-11-23 04:45:01.123  1000 512 513 W ActivityManager: Low on memory\n"
    assert pmsg.damage == ()


@pytest.mark.parametrize(("priority", "letter"), list(zip(range(2, 8), "VDIWEF", strict=True)))
def test_priorities(priority: int, letter: str) -> None:
    """2 to 7 are verbose to fatal."""
    assert parse_pmsg(text(b"t", b"m", priority=priority)).messages[0].priority == letter


def test_newlines_cannot_forge_a_message() -> None:
    """Further lines of a message begin with a tab, in text and tag alike."""
    forged = b"a\n2026-11-23 04:45:01.123  0 1 1 F init: b\n"
    rendered = parse_pmsg(text(b"t", forged) + text(b"x\n2026", b"c")).render()
    assert rendered == (
        b"2026-11-23 04:45:01.123  1000 512 513 W t: a\n\t2026-11-23 04:45:01.123  0 1 1 F init: b\n"
        b"2026-11-23 04:45:01.123  1000 512 513 W x\n\t2026: c\n"
    )


@pytest.mark.parametrize(
    ("value", "shown", "defect"),
    [
        (b"", b"", None),
        (struct.pack("<Bi", I32, -7), b"-7", None),
        (struct.pack("<Bq", I64, 2**40), b"1099511627776", None),
        (string(b"screen on"), b"screen on", None),
        (struct.pack("<Bf", FLOAT, 0.5), b"0.500000", None),
        (bytes([LIST, 0]), b"[]", None),
        (
            bytes([LIST, 3]) + struct.pack("<Bi", I32, 1) + string(b"a") + bytes([LIST, 1]) + string(b"b"),
            b"[1,a,[b]]",
            None,
        ),
        (struct.pack("<Bi", I32, 5) + b"\n", b"5", None),
        (struct.pack("<Bi", I32, 5) + b"xy", b"5", "2 bytes after the value"),
        (b"\x09\x01\x02", b"", "no value, 3 bytes unreadable"),
        (struct.pack("<Bi", STRING, 99) + b"ab", b"", "value cut, 7 bytes unreadable"),
        (struct.pack("<Bi", STRING, -1), b"", "value cut, 5 bytes unreadable"),
        (bytes([LIST, 2]) + struct.pack("<Bi", I32, 1), b"[1,", "value missing, 0 bytes unreadable"),
        (bytes([LIST, 1]) * 8 + struct.pack("<Bi", I32, 1), b"[" * 8 + b"1" + b"]" * 8, None),
        (bytes([LIST, 1]) * 2000, b"[" * 8, "no value, 3984 bytes unreadable"),
    ],
)
def test_event_values(value: bytes, shown: bytes, defect: str | None) -> None:
    """Every type of value is shown as logcat does; what is no value is said, however deep it nests."""
    (message,) = parse_pmsg(event(2722, value)).messages
    assert (message.log, message.priority, message.tag) == ("events", "-", b"2722")
    assert (message.text, message.defect) == (shown, defect)


def test_events_in_print() -> None:
    """A binary log's tag is shown with its log; a defect is said in the line and as damage."""
    pmsg = parse_pmsg(
        event(2722, struct.pack("<Bi", I32, 42))
        + event(-5, b"\x09", log=SECURITY)
        + event(1937006964, string(b"s"), log=STATS)
    )
    assert pmsg.render().splitlines() == [
        b"2026-11-23 04:45:01.123  1000 512 513 - events/2722: 42",
        b"2026-11-23 04:45:01.123  1000 512 513 - security/-5:  <no value, 1 byte unreadable>",
        b"2026-11-23 04:45:01.123  1000 512 513 - stats/1937006964: s",
    ]
    assert pmsg.damage == ("1 binary message not fully readable",)


def test_a_message_without_tag_or_end() -> None:
    """A message that its writer cut has no NUL: all of it is text; one without end NUL loses nothing."""
    pmsg = parse_pmsg(frame(b"\x04no tag here") + frame(b"\x04tag\0no end"))
    assert [(m.tag, m.text) for m in pmsg.messages] == [(b"", b"no tag here"), (b"tag", b"no end")]


THREE = [text(b"one", b"first"), text(b"two", b"second", log=CRASH, priority=7), event(7, struct.pack("<Bi", I32, 1))]


def test_a_ring_cut_anywhere() -> None:
    """However much of the first message the ring has overwritten, the others are read and the rest is counted."""
    data = b"".join(THREE)
    for cut in range(1, len(THREE[0]) + 1):
        pmsg = parse_pmsg(data[cut:])
        assert [m.log for m in pmsg.messages] == ["crash", "events"]
        assert pmsg.skipped == len(THREE[0]) - cut
        assert bool(pmsg.damage) == bool(pmsg.skipped)


def test_a_ring_cut_at_its_end() -> None:
    """A last message that is not whole is no message; its bytes are counted."""
    data = b"".join(THREE)
    for cut in range(1, len(THREE[2])):
        pmsg = parse_pmsg(data[:-cut])
        assert len(pmsg.messages) == 2
        assert pmsg.skipped == len(THREE[2]) - cut


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"x" + THREE[1][1:], id="magic"),
        pytest.param(THREE[1][:1] + b"\x13\0" + THREE[1][3:], id="length-too-small"),
        pytest.param(THREE[1][:1] + b"\xf8\x0f" + THREE[1][3:], id="length-too-large"),
        pytest.param(THREE[1][:7] + b"\x08" + THREE[1][8:], id="log"),
        pytest.param(THREE[1][:14] + struct.pack("<I", 1_000_000_000) + THREE[1][18:], id="nanoseconds"),
        pytest.param(THREE[1][:18] + b"\x01" + THREE[1][19:], id="priority-1"),
        pytest.param(THREE[1][:18] + b"\x08" + THREE[1][19:], id="priority-8"),
        pytest.param(b"l\0l\0\xff" * 7, id="noise"),
    ],
)
def test_a_damaged_header_costs_one_message(broken: bytes) -> None:
    """What liblog's reader refuses is skipped byte by byte; the messages round it are read, and the loss is said."""
    pmsg = parse_pmsg(THREE[0] + broken + THREE[2] + THREE[0])
    assert [m.log for m in pmsg.messages] == ["main", "events", "main"]
    assert pmsg.skipped == len(broken)
    assert pmsg.damage == (f"{len(broken)} bytes of no message skipped: cut by the ring's start, or damaged",)


def test_a_false_header_does_not_hide_the_next_message() -> None:
    """What looks like a header and is none costs one byte, even if a message begins inside of it."""
    pmsg = parse_pmsg(b"l" + bytes(7) + THREE[0])
    assert [m.tag for m in pmsg.messages] == [b"one"]
    assert pmsg.skipped == 8


def test_the_largest_message() -> None:
    """4068 bytes of payload behind the priority are the most that liblog takes."""
    whole = frame(b"\x04" + b"a" * 4068)
    assert len(parse_pmsg(whole).messages) == 1
    assert parse_pmsg(frame(b"\x04" + b"a" * 4069)).framing is Framing.TEXT


def test_plain_lines_between_messages_are_shown() -> None:
    """A boot stamp in Android's ring is text, not damage, and stands where it was written."""
    stamp = b"pstored: boot 03a27352-fb6e-40b0-83aa-006bb36351b6\n"
    pmsg = parse_pmsg(stamp + THREE[0] + THREE[1] + b"\x01\x02" + stamp + THREE[2] + stamp)
    lines = pmsg.render().splitlines(keepends=True)
    assert [line == stamp for line in lines] == [True, False, False, True, False, True]
    assert pmsg.skipped == 2


def test_one_message_by_chance_in_binary_noise_is_text() -> None:
    """A lone header in bytes that are mostly something else does not make the record Android's."""
    data = bytes(range(256)) + THREE[0] + bytes(range(256))
    assert parse_pmsg(data).framing is Framing.TEXT


def test_files_are_put_together() -> None:
    """Pieces are sorted, a repeated one replaces the first, and the file is shown once, at the end."""
    pmsg = parse_pmsg(
        piece(b"recovery:last_log", 1, b"b1\nb2\n")
        + text(b"t", b"m")
        + piece(b"recovery:last_log", 0, b"old\n")
        + piece(b"recovery:last_log", 0, b"a1\n")
        + piece(b"recovery:last_log", 2, b"c\0")
    )
    (file,) = pmsg.files
    assert (file.name, file.log, file.priority, file.time_s) == (b"recovery/last_log", "system", "I", TIME_S)
    assert file.content == b"a1\nb1\nb2\nc\0"
    assert file.missing == ()
    assert pmsg.damage == ()
    assert pmsg.render() == (
        b"2026-11-23 04:45:01.123  1000 512 513 W t: m\n"
        b"\nfile recovery/last_log, saved 2026-11-23 04:45:01 in log system\n"
        b"\ta1\n\tb1\n\tb2\n\tc\0\n"
    )


def test_missing_pieces_are_named() -> None:
    """Pieces that the ring has overwritten are said, and nothing is joined across them unmarked."""
    pmsg = parse_pmsg(piece(b"a:b", 2, b"two\n") + piece(b"a:b", 5, b"five\n"))
    assert pmsg.files[0].missing == (0, 1, 3, 4)
    assert pmsg.damage == ("4 pieces of saved files missing",)
    assert b"<2 pieces missing>\n\ttwo\n<2 pieces missing>\n\tfive\n" in pmsg.render()


def test_versions_of_a_file_are_not_mixed() -> None:
    """A shorter file saved later does not get the old one's end."""
    old = [piece(b"a:b", n, b"old %d\n" % n) for n in range(3)]
    new = [piece(b"a:b", 0, b"new\n", time_s=TIME_S + 60)]
    assert [f.content for f in parse_pmsg(b"".join(old + new)).files] == [b"old 0\nold 1\nold 2\n", b"new\n"]


@pytest.mark.parametrize(
    "message",
    [
        text(b"dir:file", b"x", nsec=1001),
        text(b"dir:file", b"x", nsec=256_000),
        text(b"dirfile", b"x", nsec=1000),
        text(b"a:b:c", b"x", nsec=1000),
        text(b"a:b c", b"x", nsec=1000),
        text(b"a:b", b"", nsec=1000),
        text(b"a:b", b"x", nsec=1000, log=KERNEL),
        event(1, string(b"x")),
    ],
)
def test_messages_that_are_no_pieces(message: bytes) -> None:
    """The rules of liblog's own reader: number, tag and log must be those of a file."""
    pmsg = parse_pmsg(message)
    assert pmsg.files == ()
    assert pmsg.render().count(b"\n") == 1


FRAMES = st.builds(
    lambda payload, log, nsec: frame(payload, log=log, nsec=nsec),
    st.one_of(
        st.binary(min_size=2, max_size=40),
        st.builds(
            lambda p, t, m: bytes([p]) + t + b"\0" + m, st.integers(2, 7), st.binary(max_size=8), st.binary(max_size=9)
        ),
        st.lists(st.sampled_from([b"\x03\x01", b"\x00\x01\x00\x00\x00", b"\x02\x01\x00\x00\x00a"])).map(b"tag\0".join),
    ).filter(lambda payload: len(payload) > 1),
    st.integers(0, 9),
    st.sampled_from([0, 1000, 255_000, 999_999_999, 1_000_000_000]),
)


@given(st.lists(st.one_of(FRAMES, st.binary(max_size=30), st.just(b"a line\n")), max_size=12).map(b"".join))
def test_any_bytes_give_messages(data: bytes) -> None:
    """Any bytes give a value, never an exception, and every byte is in a message, a plain line or counted."""
    pmsg = parse_pmsg(data)
    assert isinstance(pmsg.render(), bytes)
    if pmsg.framing is Framing.TEXT:
        assert pmsg.render() == data
        return
    sizes = [int.from_bytes(data[m.offset + 1 : m.offset + 3], "little") for m in pmsg.messages]
    ends = [m.offset + size for m, size in zip(pmsg.messages, sizes, strict=True)]
    assert all(end <= m.offset for end, m in zip([0, *ends], pmsg.messages, strict=False))
    assert 0 <= pmsg.skipped <= len(data) - sum(sizes)


@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(frame(b"\x04\0"), id="smallest-messages"),
        pytest.param(frame(b"\x04\0" + b"\n" * 4000), id="newlines"),
        pytest.param(frame(b"\x04:\0x", nsec=0), id="pieces-of-files"),
        pytest.param(b"l\0\0\0\0\0\0\0", id="almost-headers"),
    ],
)
def test_memory_is_bounded_by_the_input(unit: bytes) -> None:
    """Hostile records take less than four times their size and what files may take."""
    data = unit * (400_000 // len(unit))
    tracemalloc.start()
    try:
        pmsg = parse_pmsg(data)
        pmsg.render()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data) + 5 * 2**20
