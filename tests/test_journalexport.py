# SPDX-License-Identifier: Apache-2.0
"""The Journal Export Format: binary-safe, with the fields that journald gives to kernel lines."""

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore.host import MACHINE_ID
from pstored.journalexport import (
    MAX_LINES,
    Line,
    Origin,
    clock_offset_us,
    export,
    in_order,
    kernel_lines,
)
from pstored.journalremote import PROGRAMS
from tests.conftest import MakeRoot, Pstored, Root, require
from tests.journalfiles import kernel_entries, write_journal

ORIGIN = Origin("20261123T045102Z-0123456789ab", "29ba41b6-8626-4f73-9871-3d09cbfdd92a", MACHINE_ID, "board", 10**15)


def parse(data: bytes) -> list[list[tuple[str, bytes]]]:
    """An independent reader of the format."""
    entries: list[list[tuple[str, bytes]]] = []
    fields: list[tuple[str, bytes]] = []
    stream = io.BytesIO(data)
    while line := stream.readline():
        assert line.endswith(b"\n")
        name, equals, value = line[:-1].partition(b"=")
        if not name:
            entries.append(fields)
            fields = []
        elif equals:
            assert value.decode().isprintable() or min(value.replace(b"\t", b" ")) >= 32
            fields.append((name.decode(), value))
        else:
            size = int.from_bytes(stream.read(8), "little")
            fields.append((name.decode(), stream.read(size)))
            assert stream.read(1) == b"\n"
    assert not fields, "the last entry has no end"
    return entries


def entry(line: bytes) -> dict[str, bytes]:
    """The only line of a log as an entry, without what all have in common."""
    (fields,) = parse(b"".join(export(in_order(kernel_lines(line)), ORIGIN)))
    shared = ("_BOOT_ID", "_TRANSPORT", "_MACHINE_ID", "_HOSTNAME", "PSTORE_RESTORED", "PSTORE_CRASH_ID")
    return {name: value for name, value in fields if name not in shared}


TIMES = {
    "__REALTIME_TIMESTAMP": b"1000000001234567",
    "__MONOTONIC_TIMESTAMP": b"1234567",
    "_SOURCE_MONOTONIC_TIMESTAMP": b"1234567",
}
KERNEL = {"SYSLOG_IDENTIFIER": b"kernel"}


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"<6>[    1.234567] text", {"PRIORITY": b"6", "SYSLOG_FACILITY": b"0", **KERNEL, "MESSAGE": b"text"}),
        (b"[    1.234567] text", {**KERNEL, "MESSAGE": b"text"}),
        (b"[    1.234567] init[1]: text", {**KERNEL, "MESSAGE": b"init[1]: text"}),
        (b"<0>[    1.234567][   C1] ", {"PRIORITY": b"0", "SYSLOG_FACILITY": b"0", **KERNEL, "MESSAGE": b""}),
        (b"<4>[    1.234567] a: b", {"PRIORITY": b"4", "SYSLOG_FACILITY": b"0", **KERNEL, "MESSAGE": b"a: b"}),
        (
            b"<30>[    1.234567] systemd[1]: Started x.",
            {
                "PRIORITY": b"6",
                "SYSLOG_FACILITY": b"3",
                "SYSLOG_IDENTIFIER": b"systemd",
                "SYSLOG_PID": b"1",
                "MESSAGE": b"Started x.",
            },
        ),
        (
            b"<12>[    1.234567] pstored: boot x",
            {"PRIORITY": b"4", "SYSLOG_FACILITY": b"1", "SYSLOG_IDENTIFIER": b"pstored", "MESSAGE": b"boot x"},
        ),
        (
            b"<12>[    1.234567] no identifier",
            {"PRIORITY": b"4", "SYSLOG_FACILITY": b"1", **KERNEL, "MESSAGE": b"no identifier"},
        ),
        (b"[    1.234567] \xff\x1b[m\x00=\n", {**KERNEL, "MESSAGE": b"\xff\x1b[m\x00="}),
        (b"[    1.234567] \x1b[2J", {**KERNEL, "MESSAGE": b"\x1b[2J"}),
        (b"[    1.234567] tab\tand \xc3\xa9", {**KERNEL, "MESSAGE": b"tab\tand \xc3\xa9"}),
    ],
)
def test_line_becomes_what_journald_makes_of_it(line: bytes, fields: dict[str, bytes]) -> None:
    """Priority and facility where the record has them, the identifier taken off what user space wrote."""
    assert entry(line) == TIMES | fields


def test_every_entry_says_whose_it_is() -> None:
    """Boot, machine, host, transport; and that it was restored, from which crash."""
    (fields,) = parse(b"".join(export(in_order(kernel_lines(b"[    1.000000] x")), ORIGIN)))
    assert (
        dict(fields).items()
        >= {
            "_BOOT_ID": b"29ba41b686264f7398713d09cbfdd92a",
            "_TRANSPORT": b"kernel",
            "_MACHINE_ID": MACHINE_ID.encode(),
            "_HOSTNAME": b"board",
            "PSTORE_RESTORED": b"1",
            "PSTORE_CRASH_ID": b"20261123T045102Z-0123456789ab",
        }.items()
    )
    (fields,) = parse(b"".join(export(in_order(kernel_lines(b"[    1.000000] x")), ORIGIN._replace(hostname=None))))
    assert "_HOSTNAME" not in dict(fields)


def test_lines_without_a_time() -> None:
    """They have that of the line before; without one before they cannot be placed; lines of ours are no kernel's."""
    text = b"cut off\n[    1.000000] a\nmore of a\n--- pstored: Panic#1: part 2 is missing ---\n[    2.000000] b\n"
    assert [(line.time_us, line.timed, line.text) for line in kernel_lines(text)] == [
        (1_000_000, True, b"a"),
        (1_000_000, False, b"more of a"),
        (2_000_000, True, b"b"),
    ]
    assert kernel_lines(b"no times\nat all\n") == []


def test_a_log_of_any_length_is_bounded() -> None:
    """The last lines count."""
    text = b"".join(b"[    1.000000] %d\n" % n for n in range(MAX_LINES + 7))
    lines = kernel_lines(text)
    assert (len(lines), lines[0].text) == (MAX_LINES, b"7")


def at(*times_us: int) -> list[Line]:
    """Lines at these times."""
    return [Line(time_us, True, 6, 0, b"") for time_us in times_us]


def test_a_journal_does_not_go_back_in_time() -> None:
    """A log does: other CPUs, another clock; each line is at its own time or that of the one above it."""
    assert [placed.monotonic_us for placed in in_order(at(5, 3, 7, 6))] == [5, 5, 7, 7]
    assert [placed.line.time_us for placed in in_order(at(5, 3, 7, 6))] == [5, 3, 7, 6]
    assert [placed.monotonic_us for placed in in_order(at(5, 10, 12), [5, 110, 112])] == [5, 110, 112]


def crash(wall: str | None, uptime_s: float | None) -> dict[str, Any]:
    """crash.json's times."""
    return {"time": {"wall": wall, "uptime_s": uptime_s}}


@pytest.mark.parametrize(
    ("report", "offset_us"),
    [
        (crash("1970-01-01T00:01:40.500000Z", 40.25), 60_250_000),
        (crash(None, 1.0), None),
        (crash("1970-01-01T00:01:40.000000Z", None), None),
        (crash("1970-01-01T00:00:01.000000Z", 3.0), None),
        (crash("@99999999999999", 3.0), None),
    ],
)
def test_when_a_boot_began_by_its_report(report: dict[str, Any], offset_us: int | None) -> None:
    """Wall time less uptime; nothing before 1970, nothing where one is not known."""
    assert clock_offset_us(report) == offset_us


@given(st.lists(st.binary(max_size=60) | st.from_regex(rb"<\d{1,3}>\[ {0,4}\d{1,10}\.\d{6}\] [ -~]{0,20}\Z")))
def test_any_bytes_make_entries_that_read_back(lines: list[bytes]) -> None:
    """One entry a line, none lost, no text that breaks out of its field, and times that never go back."""
    text = b"\n".join(lines)
    found = kernel_lines(text)
    entries = parse(b"".join(export(in_order(found), ORIGIN)))
    assert len(entries) == len(found)
    for line, fields in zip(found, entries, strict=True):
        values = dict(fields)
        assert len(values) == len(fields)
        assert line.text.endswith(values["MESSAGE"])
        assert values["_BOOT_ID"] == b"29ba41b686264f7398713d09cbfdd92a"
    times = [int(dict(fields)["__MONOTONIC_TIMESTAMP"]) for fields in entries]
    assert times == sorted(times)


# -- pstored export --format=journal


@pytest.fixture
def crashed(root: MakeRoot, pstored: Pstored) -> Root:
    """A machine with one crash of a boot that is known by its stamp."""
    made = root("oops-panic", backend="efi_pstore")
    assert pstored("collect", root=made).status == 0
    return made


def test_export_writes_the_whole_log(crashed: Root, pstored: Pstored, tmp_path: Path) -> None:
    """systemd-journal-remote takes it; journalctl shows the crashed boot with every line."""
    require(os.path.exists(PROGRAMS[0]), "no systemd-journal-remote (apt-get install systemd-journal-remote)")
    done = pstored("export", "--format=journal", "-1", "-o", str(tmp_path / "x"), root=crashed)
    assert (done.status, done.stdout) == (0, f"{tmp_path}/x\n")
    journal = tmp_path / "x.journal"
    subprocess.run([PROGRAMS[0], f"--output={journal}", tmp_path / "x"], check=True, capture_output=True)
    command = ["journalctl", f"--file={journal}", "-k", "-b", crashed.boots[0].boot_id.replace("-", ""), "-o", "cat"]
    shown = subprocess.run([*command, "--all"], check=True, capture_output=True).stdout.splitlines()
    log = (crashed.crashes()[0] / "dmesg.txt").read_bytes().splitlines()
    assert len(shown) == len(log)
    assert all(line.endswith(text) for line, text in zip(log, shown, strict=True))


def test_export_to_a_file_of_its_own(crashed: Root, pstored: Pstored, tmp_path: Path) -> None:
    """-o - is standard output; the default name says which format it is."""
    there = pstored("export", "--format=journal", "-1", "-o", "-", root=crashed)
    assert there.stdout.startswith("__REALTIME_TIMESTAMP=")
    tar = pstored("export", "-1", "-o", str(tmp_path / "x.tar"), root=crashed)
    assert (tmp_path / "x.tar").read_bytes()[257:262] == b"ustar"
    assert tar.status == 0


def test_export_of_an_unknown_boot_is_an_error(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Said why, and what to do; no file."""
    made = root()
    made.add("dmesg-erst-7711219347287212033", b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n")
    pstored("collect", root=made)
    done = pstored("export", "--format=journal", "-1", "-o", str(tmp_path / "x"), root=made)
    assert done.status == 1
    assert "which boot it was is not known" in done.stderr
    assert "hint: " in done.stderr
    assert not (tmp_path / "x").exists()


def test_export_takes_the_clock_of_the_boots_own_journal(crashed: Root, pstored: Pstored) -> None:
    """Where there is one, it says better when the boot began than the records do."""
    boot_id = crashed.boots[0].boot_id
    directory = crashed.path / f"var/log/journal/{MACHINE_ID}"
    write_journal(directory, kernel_entries(boot_id, [(10**9, b"x")], began_us=10**15, machine_id=MACHINE_ID))
    done = pstored("export", "--format=journal", "-1", "-o", "-", root=crashed)
    first = parse(done.stdout.encode())[0]
    assert dict(first)["__REALTIME_TIMESTAMP"] == b"%d" % (10**15 + int(dict(first)["__MONOTONIC_TIMESTAMP"]))


def test_export_of_a_boot_without_a_wall_time_is_an_error(crashed: Root, pstored: Pstored) -> None:
    """Neither records nor journal say when it was."""
    report = crashed.crashes()[0] / "crash.json"
    report.write_text(report.read_text().replace('"wall": "', '"wall": "x'))
    done = pstored("export", "--format=journal", "-1", "-o", "-", root=crashed)
    assert done.status == 1
    assert "is not known" in done.stderr
    assert "carry no time" in done.stderr
