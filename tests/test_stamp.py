# SPDX-License-Identifier: Apache-2.0
"""The stamp: the running boot's id in its own log, once."""

import os
from pathlib import Path

import pytest

from pstored.host import Host
from pstored.parse.kmsg import parse_kmsg
from pstored.stamp import Stamp, stamp, stamp_line
from tests.conftest import BOOT_ID, MakeRoot, Pstored, Root

PREFIX = "pstored: boot "


def device(root: Root, name: str) -> Path:
    """A file in the place of a device: it keeps what is written."""
    path = root.path / "dev" / name
    path.write_bytes(b"")
    return path


def test_both_devices_take_the_line_once(root: MakeRoot) -> None:
    """A second call in the same boot writes nothing, and tells the same."""
    made = root()
    paths = [device(made, "kmsg"), device(made, "pmsg0")]
    for _ in range(2):
        assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/kmsg", "/dev/pmsg0")
    for path in paths:
        assert path.read_bytes().count(BOOT_ID.encode()) == 1
        assert f"{PREFIX}{BOOT_ID}\n".encode() in path.read_bytes()


def test_line_is_marked_as_user_space() -> None:
    """Facility user, so that a kernel line that quotes it is no stamp; at a level that consoles show."""
    (line,) = parse_kmsg(stamp_line(PREFIX, BOOT_ID).replace(b">", b">[    1.000000] ", 1))
    assert (line.facility, line.text) == (1, f"{PREFIX}{BOOT_ID}".encode())


def test_device_that_comes_later_is_stamped_then(root: MakeRoot) -> None:
    """/dev/pmsg0 is there only once a backend is: a later call stamps it, and leaves the others alone."""
    made = root()
    kmsg = device(made, "kmsg")
    assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/kmsg",)
    pmsg = device(made, "pmsg0")
    for _ in range(2):
        assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/kmsg", "/dev/pmsg0")
    for path in (kmsg, pmsg):
        assert path.read_bytes().count(BOOT_ID.encode()) == 1


def test_time_of_the_first_stamp_is_told_again(root: MakeRoot) -> None:
    """The harvest stamps, a later command notes it in the ledger: of then, not of now, nor of a later device."""
    made = root()
    device(made, "kmsg")
    made.write("proc/uptime", "2.50 1.00\n")
    assert stamp(Host(str(made.path)), PREFIX).uptime_s == 2.5
    made.write("proc/uptime", "70.00 1.00\n")
    device(made, "pmsg0")
    for _ in range(2):
        assert stamp(Host(str(made.path)), PREFIX) == Stamp(("/dev/kmsg", "/dev/pmsg0"), 2.5)


def test_crash_kernel_is_not_stamped(root: MakeRoot) -> None:
    """In the kdump kernel pmsg is the crashed boot's zone: the line would name the wrong boot."""
    made = root()
    pmsg = device(made, "pmsg0")
    made.write("proc/vmcore", "")
    assert stamp(Host(str(made.path)), PREFIX).devices == ()
    assert pmsg.read_bytes() == b""


@pytest.mark.parametrize("command", ["harvest", "collect"])
def test_boot_is_stamped_before_the_store_is_looked_at(root: MakeRoot, pstored: Pstored, command: str) -> None:
    """So that a run that fails on store or archive has stamped, and a crash in the middle of it knows its boot."""
    made = root("lab-erst")
    kmsg = device(made, "kmsg")
    made.write("var/lib/pstored", "a file")
    made.configure(f'[boots]\nstamp_prefix = "{PREFIX}"\n')
    assert pstored(command, root=made).status == 73
    assert kmsg.read_text().count(f"{PREFIX}") == 1


def test_next_boot_is_stamped_anew(root: MakeRoot) -> None:
    """The mark holds the boot id, so one that outlived its boot does no harm."""
    made = root()
    kmsg = device(made, "kmsg")
    stamp(Host(str(made.path)), PREFIX)
    made.reboot("99999999-8888-4777-8666-555555555555")
    assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/kmsg",)
    assert b"99999999-8888-4777-8666-555555555555" in kmsg.read_bytes()


def test_no_device_is_never_made(root: MakeRoot, pstored: Pstored) -> None:
    """Where there is no /dev/kmsg, no file of that name appears; the command says so and exits with 1."""
    made = root()
    assert stamp(Host(str(made.path)), PREFIX).devices == ()
    assert os.listdir(made.path / "dev") == []
    done = pstored("stamp", root=made)
    assert done.status == 1
    assert "not stamped" in done.stderr


def test_unknown_boot_is_not_stamped(root: MakeRoot) -> None:
    """Without a boot id there is nothing to write."""
    made = root()
    kmsg = device(made, "kmsg")
    made.write("proc/sys/kernel/random/boot_id", "rubbish")
    assert stamp(Host(str(made.path)), PREFIX).devices == ()
    assert kmsg.read_bytes() == b""


@pytest.mark.parametrize("mark", ["", "rubbish", "\x00", BOOT_ID[:-1], f"x{BOOT_ID}"])
def test_damaged_mark_is_stamped_again(root: MakeRoot, mark: str) -> None:
    """No harm but a second line."""
    made = root()
    kmsg = device(made, "kmsg")
    made.write("run/pstored/stamped", mark)
    assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/kmsg",)
    assert BOOT_ID.encode() in kmsg.read_bytes()


def test_pipe_without_a_reader_does_not_block(root: MakeRoot) -> None:
    """A device that does not take the line at once is left out."""
    made = root()
    os.mkfifo(made.path / "dev/kmsg")
    device(made, "pmsg0")
    assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/pmsg0",)


def test_mark_that_cannot_be_written_is_no_error(root: MakeRoot) -> None:
    """/run is not there, or a file: stamped all the same."""
    made = root()
    device(made, "kmsg")
    made.write("run", "a file")
    assert stamp(Host(str(made.path)), PREFIX).devices == ("/dev/kmsg",)


def test_stamp_is_in_the_ledger(root: MakeRoot, pstored: Pstored) -> None:
    """The command writes the line and the boot's line in the ledger; an archive that is not there yet is a warning."""
    made = root()
    device(made, "kmsg")
    assert pstored("stamp", root=made).status == 0
    assert BOOT_ID in (made.archive / "boots.jsonl").read_text()
    other = root()
    device(other, "kmsg")
    other.write("var/lib/pstored", "a file")
    done = pstored("stamp", "--json", root=other)
    assert (done.status, done.json["devices"]) == (0, ["/dev/kmsg"])
    assert "ledger" in done.stderr
