# SPDX-License-Identifier: Apache-2.0
"""The text beside a vmcore: its lines are those of a console, so that they compare with what pstore has."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_pstore.kdumptext import dmesg
from fake_pstore.klog import Message
from pstored.logs import Log
from pstored.readers import load
from pstored.readers.kdump.dmesgtext import MAX_TEXT
from pstored.readers.memory import Held
from pstored.readers.model import Options, Source
from tests.readers import kind_of, read

DEBIAN = "/var/crash/202611230418/dmesg.202611230418"
FEDORA = "/var/crash/127.0.0.1-2026-11-23-04:18:57/vmcore-dmesg.txt"
WRITTEN = [
    Message(5, 0, "T0", "Linux version 6.1.0-9-fake"),
    Message(6, 1_234_567, "T1", "one\n  two\n\n[    9.9] three"),
    Message(6, 1_234_568, "C0", "\x1b[0m back\\slash \\x41 tab\there"),
    Message(30, 2_000_000_001, "T4711", ""),
    Message(2, 2_000_000_002, "C12", "Kernel panic - not syncing: \udcff\udcfe"),
]


def console(*, callers: bool = False) -> bytes:
    """As the same kernel's console shows it."""
    heads = [(b"[%5d.%06d]" % divmod(m.time_us, 10**6), b"[%6s]" % m.caller.encode() * callers) for m in WRITTEN]
    return b"".join(
        time + caller + b" " + line + b"\n"
        for (time, caller), m in zip(heads, WRITTEN, strict=True)
        for line in m.text.encode(errors="surrogateescape").split(b"\n")
    )


@pytest.mark.parametrize("callers", [False, True])
@pytest.mark.parametrize("indented", [False, True])
def test_lines_are_those_of_a_console(*, indented: bool, callers: bool) -> None:
    """Whichever tool wrote it: each line with its time, and what could not be printed as it was."""
    for name, number in ((DEBIAN, 202611230418), (FEDORA, 20261123041857)):
        text = dmesg(WRITTEN, callers=callers, indented=indented)
        if not indented:
            text = text.replace(b"\n[    9.9] three", b"\n[9.9] three")  # nothing tells it from a message
        assert kind_of(text, name) == "vmcore-dmesg"
        (found,), remarks = read("vmcore-dmesg", text, name)
        assert found.name == f"console-kdump-{number}"
        assert found.data.replace(b"[9.9]", b"[    9.9]") == console(callers=callers)
        assert (found.mtime_ns, found.damage, found.notes, remarks) == (0, (), (), [])


def test_lines_are_known_again_in_a_dump_of_pstore() -> None:
    """Which has levels; without them it is the same log."""
    messages = [Message(6, 10**6 + 1111 * i, "T1", f"line {i}\nand more") for i in range(20)]
    ((found,), _) = read("vmcore-dmesg", dmesg(messages), DEBIAN)
    pstore = b"".join(
        b"<6>[%5d.%06d] %b\n" % (1, 1111 * i, t) for i in range(20) for t in (b"line %d" % i, b"and more")
    )
    assert Log(found.data).same_boot(Log(pstore)) is True


def test_of_an_old_kernel_it_is_the_log_itself() -> None:
    """Levels and all: a dump like one of pstore's."""
    text = b"<6>[    1.234567] one\n<2>[    1.234568] two\n"
    ((found,), _) = read("vmcore-dmesg", text, DEBIAN)
    assert (found.name, found.data) == ("dmesg-kdump-202611230418", text)


def test_what_is_no_log_beside_a_vmcore() -> None:
    """By its name alone or by its bytes alone it is none."""
    text = dmesg(WRITTEN)
    assert kind_of(text, "/tmp/kern.log") == "serial"
    assert kind_of(b"hello\n" + text, DEBIAN) != "vmcore-dmesg"
    assert kind_of(text + b"\0", DEBIAN) != "vmcore-dmesg"
    assert kind_of(text, "/home/me/dmesg.txt") == "serial"
    suse = "/var/crash/2026-11-23-04:18/dmesg.txt"
    for name in ("/var/crash/1/vmcore-dmesg-incomplete.txt", "dmesg.20261123", "vmcore-dmesg.txt", suse):
        assert kind_of(text, name) == "vmcore-dmesg"


def test_damage_is_told() -> None:
    """Not written to its end; longer than any log."""
    name = FEDORA.replace("dmesg.", "dmesg-incomplete.")
    ((found,), _) = read("vmcore-dmesg", dmesg(WRITTEN), name)
    assert found.damage == ("kdump did not write it to its end",)
    line = b"[    1.000000] x\n"
    ((found,), _) = read("vmcore-dmesg", line * (MAX_TEXT // len(line) + 9), FEDORA)
    assert found.damage == (f"only the last {MAX_TEXT >> 20} MiB of the log are taken",)
    assert MAX_TEXT - len(line) <= len(found.data) <= MAX_TEXT
    assert found.data.startswith(line)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_survived(data: bytes) -> None:
    """No error, and no line is lost."""
    for start in (b"", b"[    1.234567] "):
        source: Source = Held(start + data, DEBIAN)
        load("vmcore-dmesg").recognize(source)
        ((found,), _) = read("vmcore-dmesg", start + data, DEBIAN)
        assert found.data.count(b"\n") == (start + data).removesuffix(b"\n").count(b"\n") + 1
        assert list(load("vmcore-dmesg").read(source, Options())) == [found]
