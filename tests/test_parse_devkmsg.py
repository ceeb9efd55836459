# SPDX-License-Identifier: Apache-2.0
"""Records of /dev/kmsg into the lines of a pstore dump: what a kernel gives, and what it never would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import devkmsg
from fake_pstore.dump import syslog_lines
from fake_pstore.klog import Message as Logged
from pstored.parse.devkmsg import Message, format_message, parse_devkmsg
from pstored.parse.kmsg import parse_kmsg


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (b"6,339,5140900,-;NET: Registered\n", b"<6>[    5.140900] NET: Registered\n"),
        (b"6,339,5140900,-,caller=T1;NET: Registered\n", b"<6>[    5.140900][    T1] NET: Registered\n"),
        (b"4,12,99999999999,c,caller=C113;x\n", b"<4>[99999.999999][  C113] x\n"),
        (b"7,160,424069,-;pci 0: up\n SUBSYSTEM=acpi\n DEVICE=+acpi:PNP0A03:00\n", b"<7>[    0.424069] pci 0: up\n"),
        (b"6,1,2,-,caller=T7,cpu=3,taskname=x=y;later kernels\n", b"<6>[    0.000002][    T7] later kernels\n"),
        (b"12,1,2,-;a\\x0ab\\x09c\n", b"<12>[    0.000002] a\n<12>[    0.000002] b\tc\n"),
        (b"30,1,2,-;\\x5cx41; \\xc3\\xa4\n", b"<30>[    0.000002] \\x41; \xc3\xa4\n"),
        (b"0,0,0,-;\n", b"<0>[    0.000000] \n"),
        (b"6,1,2,-;;;,,;\n", b"<6>[    0.000002] ;;,,;\n"),
    ],
)
def test_a_record_is_the_line_of_a_dump(record: bytes, line: bytes) -> None:
    """Priority, time, caller and text as kernel/printk/printk.c formats them for kmsg_dump_get_buffer()."""
    (message,) = parse_devkmsg(record)
    assert format_message(message, times=True) == line


def test_without_printk_time_there_is_no_time() -> None:
    """And no blank, unless there is a caller."""
    assert format_message(Message(6, 1, 2, None, b"x\ny"), times=False) == b"<6>x\n<6>y\n"
    assert format_message(Message(6, 1, 2, b"T1", b"x"), times=False) == b"<6>[    T1] x\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b" KEY=6,1,2,-;x\n",
        b"<13>pstored: boot\n",
        b"6,1,2;x\n",
        b"-6,1,2,-;x\n",
        b"6,1,2,-x\n",
        b"\0\xff\n",
    ],
)
def test_what_is_no_record_is_passed_over(data: bytes) -> None:
    """A plain file in a test, or a kernel to come."""
    assert list(parse_devkmsg(data)) == []


def test_user_space_cannot_pass_for_the_kernel() -> None:
    """A newline in what a program wrote begins a line with the program's own priority, not one without any."""
    text = "x\n6,1,2,-;BUG: kernel NULL pointer dereference\n<0>[    0.000001] Kernel panic - not syncing: no"
    data = devkmsg.record(Logged(12, 7_000_000, "T1", text), 5)
    (message,) = parse_devkmsg(data)
    lines = list(parse_kmsg(format_message(message, times=True)))
    assert [line.facility for line in lines] == [1, 1, 1]


MESSAGES = st.builds(
    Logged,
    st.integers(0, 191),
    st.integers(0, 10**15),
    st.sampled_from(("T0", "T1", "C0", "C113", "T4194304")),
    st.binary(max_size=60).map(lambda b: b.decode(errors="surrogateescape")),
)


@given(st.lists(MESSAGES, max_size=8), st.booleans(), st.booleans())
def test_what_a_kernel_gives_reads_as_its_dump(messages: list[Logged], times: bool, callers: bool) -> None:
    """The independent writer's records give, byte for byte, the independent writer's dump."""
    data = b"".join(devkmsg.records(messages, first=100, callers=callers))
    found = list(parse_devkmsg(data))
    assert [m.sequence for m in found] == list(range(100, 100 + len(messages)))
    wanted = [b"".join(syslog_bytes(m, times=times, callers=callers)) for m in messages]
    assert [format_message(m, times=times) for m in found] == wanted


def syslog_bytes(message: Logged, *, times: bool, callers: bool) -> list[bytes]:
    """The writer's lines; its own encoding knows no bytes that are no UTF-8, so each line goes through on its own."""
    head = syslog_lines(message._replace(text=""), times=times, callers=callers)[:-1]
    return [head + line + b"\n" for line in message.text.encode(errors="surrogateescape").split(b"\n")]


@given(st.binary(max_size=400))
def test_any_bytes_give_messages_or_nothing(data: bytes) -> None:
    """Never an exception, and no more text than there was; what is found formats to whole lines of kernel log."""
    messages = list(parse_devkmsg(data))
    assert sum(len(m.text) for m in messages) <= len(data)
    for message in messages:
        text = format_message(message, times=True)
        assert text.endswith(b"\n")
        assert all(line.level is not None for line in parse_kmsg(text))
