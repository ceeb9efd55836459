# SPDX-License-Identifier: Apache-2.0
"""The crashed boot's journal ends with the panic: only what it lacks, once, in its place, whatever is killed."""

import io
import json
import os
import re
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import pstored.cli.collect
import pstored.journal.bootjournal
import pstored.sinks.restore  # noqa: F401 - slow to import: here once, not in every child
from fake_pstore.host import MACHINE_ID
from pstored import steps
from pstored.cli import run
from pstored.errors import SinkError
from pstored.host import Host
from pstored.journal.remote import PROGRAMS
from pstored.sinks.restore import RestoreSink
from tests.conftest import MakeRoot, Pstored, Root, forked, mount, require
from tests.journalfiles import Entry, write_journal
from tests.test_journald import with_journald

BOOT = "29ba41b6-8626-4f73-9871-3d09cbfdd92a"
BEGAN_US = 1_795_400_000_000_000
"""When the crashed boot began, by its own clock."""
LATE_US = 1500
"""So much later than the kernel logs a line journald has it."""
LINES = [b"<6>[%5d.%06d] line number %d" % (n // 10, n % 10 * 100_000 + n, n) for n in range(100)]
TAIL = [
    b"<4>[   10.000001] oops, its first line",
    b"<4>[   10.000001] oops, its first line",
    b"<30>[   10.000400] init[1]: going down",
    b"<0>[   10.000900] Kernel panic - not syncing: Fatal exception",
]
TEXT = b"\n".join([*LINES, *TAIL, b""])

pytestmark = pytest.mark.journald

_LINE = re.compile(rb"<(\d+)>\[ *(\d+)\.(\d{6})\] ((?:(\w+)(?:\[(\d+)\])?: )?(.*))")


@pytest.fixture(autouse=True)
def _remote() -> None:
    require(os.path.exists(PROGRAMS[0]), "no systemd-journal-remote (apt-get install systemd-journal-remote)")


NEXT_BOOT = "0" * 31 + "1"


def received(
    lines: list[bytes], *, boot_id: str = BOOT, late_us: int = LATE_US, began_us: int = BEGAN_US
) -> Iterator[Entry]:
    """What journald makes of kernel lines."""
    for line in lines:
        found = _LINE.fullmatch(line)
        assert found is not None
        time_us = int(found[2]) * 1_000_000 + int(found[3])
        facility = int(found[1]) >> 3
        name, pid, message = found.group(5, 6, 7) if facility else (b"kernel", None, found[4])
        yield {
            "__REALTIME_TIMESTAMP": began_us + time_us + late_us,
            "__MONOTONIC_TIMESTAMP": time_us + late_us,
            "_BOOT_ID": boot_id.replace("-", ""),
            "_MACHINE_ID": MACHINE_ID,
            "_HOSTNAME": "board",
            "_SOURCE_MONOTONIC_TIMESTAMP": time_us,
            "_TRANSPORT": "kernel",
            "SYSLOG_FACILITY": facility,
            **({"SYSLOG_IDENTIFIER": name} if name else {}),
            **({"SYSLOG_PID": pid} if pid else {}),
            "PRIORITY": int(found[1]) & 7,
            "MESSAGE": message,
        }


def from_user_space(monotonic_us: int, message: str = "I still live") -> Entry:
    """An entry that is no kernel line."""
    return {
        "__REALTIME_TIMESTAMP": BEGAN_US + monotonic_us,
        "__MONOTONIC_TIMESTAMP": monotonic_us,
        "_BOOT_ID": BOOT.replace("-", ""),
        "_TRANSPORT": "journal",
        "MESSAGE": message,
    }


def crash(**fields: Any) -> dict[str, Any]:
    """crash.json, as far as the sink looks at it."""
    return {
        "id": "20261123T045102Z-0123456789ab",
        "revision": 1,
        "boot": {"id": BOOT, "method": "stamp", "confidence": "certain"},
        "time": {"wall": None, "uptime_s": 10.0009},
        "machine_id": MACHINE_ID,
        "collected": {"boot_id": None},
    } | fields


class Machine:
    """A tree with a journal, and a sink on it."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.journals = root.path / f"var/log/journal/{MACHINE_ID}"
        root.archive.mkdir(parents=True)

    def write(self, *entries: Entry, name: str = "system.journal") -> None:
        """Write what journald has written."""
        write_journal(self.journals, entries, name=name)

    def deliver(self, text: bytes = TEXT, **fields: Any) -> dict[str, Any]:
        """Give back what is lacking."""
        sink = RestoreSink(Host(str(self.root.path)), str(self.root.archive))
        receipt = sink.deliver(crash(**fields), text=text, report_path="/x")
        assert receipt is not None
        return receipt

    def journalctl(self, *arguments: str) -> str:
        """What journalctl prints of that journal."""
        command = ["journalctl", "-D", str(self.journals), "--no-pager", "--utc", *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    def sound_files(self) -> int:
        """How many files there are, all of them sound."""
        done = subprocess.run(["journalctl", "-D", str(self.journals), "--verify"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr.count("PASS")

    def entries(self, *arguments: str) -> list[dict[str, Any]]:
        """Entries in journalctl's order."""
        return [json.loads(line) for line in self.journalctl("-q", "-o", "json", "--all", *arguments).splitlines()]

    def log(self) -> list[bytes]:
        """The kernel lines of the crashed boot as ``journalctl -k -b`` has them, as in a dump."""
        return [as_dumped(entry) for entry in self.entries("-k", "-b", BOOT.replace("-", ""))]

    def restored(self) -> list[dict[str, Any]]:
        """The entries that are ours."""
        return self.entries("PSTORE_RESTORED=1")

    def ours(self) -> list[str]:
        """Our files, and what is left of them."""
        return sorted(name for name in os.listdir(self.journals) if "pstored" in name)


def as_dumped(entry: dict[str, Any]) -> bytes:
    """An entry as the line of a dump."""
    time_us = int(entry["_SOURCE_MONOTONIC_TIMESTAMP"])
    name, pid = entry.get("SYSLOG_IDENTIFIER", "kernel"), entry.get("SYSLOG_PID")
    said = "" if name == "kernel" else f"{name}[{pid}]: " if pid else f"{name}: "
    level = int(entry["SYSLOG_FACILITY"]) * 8 + int(entry["PRIORITY"])
    message = entry["MESSAGE"] if isinstance(entry["MESSAGE"], str) else bytes(entry["MESSAGE"]).decode()
    return f"<{level}>[{time_us // 1_000_000:5d}.{time_us % 1_000_000:06d}] {said}{message}".encode()


@pytest.fixture
def machine(root: MakeRoot) -> Machine:
    """A machine whose journal has nothing yet."""
    return Machine(root())


# -- what is given back


def test_journal_of_the_crashed_boot_ends_with_the_panic(machine: Machine) -> None:
    """All lines, in order, each once; the files are sound and the boots as they were, but that one is longer."""
    machine.write(*received(LINES), *received(LINES[:3], boot_id=NEXT_BOOT, began_us=BEGAN_US + 60_000_000))
    assert machine.log() == LINES
    receipt = machine.deliver()
    assert machine.log() == [*LINES, *TAIL]
    assert receipt["lines"] == len(TAIL)
    assert receipt["files"] == machine.ours()
    assert receipt["said"] == f"4 kernel lines given back to the journal of boot {BOOT}"
    assert machine.sound_files() == 2
    crashed, following = machine.journalctl("-q", "--list-boots").splitlines()[-2:]
    assert (crashed.split()[:2], following.split()[:2]) == (["-1", BOOT.replace("-", "")], ["0", NEXT_BOOT])
    assert re.findall(r"\d\d:\d\d:\d\d", crashed) == ["02:13:20", "02:13:30"]


def test_restored_line_has_the_fields_of_a_kernel_line(machine: Machine) -> None:
    """As journald writes them, with the crashed boot's id, clock and name; and marked as ours."""
    machine.write(*received(LINES))
    machine.deliver()
    fields = machine.restored()[-1]
    fields = {name: value for name, value in fields.items() if not name.startswith(("__CURSOR", "__SEQNUM"))}
    assert fields == {
        "__REALTIME_TIMESTAMP": str(BEGAN_US + 10_000_900),
        "__MONOTONIC_TIMESTAMP": "10000900",
        "_BOOT_ID": BOOT.replace("-", ""),
        "_TRANSPORT": "kernel",
        "_MACHINE_ID": MACHINE_ID,
        "_HOSTNAME": "board",
        "_SOURCE_MONOTONIC_TIMESTAMP": "10000900",
        "PRIORITY": "0",
        "SYSLOG_FACILITY": "0",
        "SYSLOG_IDENTIFIER": "kernel",
        "MESSAGE": "Kernel panic - not syncing: Fatal exception",
        "PSTORE_RESTORED": "1",
        "PSTORE_CRASH_ID": crash()["id"],
    }


def test_only_what_is_lacking_is_given_back(machine: Machine) -> None:
    """Lines missing in the middle and the second of two equal ones; what is there stays alone."""
    machine.write(*received(LINES[:40] + LINES[45:]), *received(TAIL[:1]))
    assert machine.deliver()["lines"] == 5 + 3
    assert machine.log() == [*LINES, *TAIL]


def test_journal_that_has_all_gets_nothing(machine: Machine) -> None:
    """No file; the receipt says so."""
    machine.write(*received([*LINES, *TAIL]))
    receipt = machine.deliver()
    assert (receipt["lines"], receipt["files"], machine.ours()) == (0, [], [])
    assert "has all kernel lines" in receipt["said"]


def test_twice_is_once(machine: Machine) -> None:
    """Delivered again, nothing is lacking."""
    machine.write(*received(LINES))
    machine.deliver()
    assert machine.deliver()["lines"] == 0
    assert machine.log() == [*LINES, *TAIL]


@pytest.mark.parametrize(
    "text",
    [
        b"ends so\r\r",
        b"init:",
        b" init: x",
        b"init:\tx",
        b"init[]: x",
        b"kernel: x",
        b"kernel[1]: x",
        b"a\0b",
        b"\xff",
        b"",
        b"x" * 10**6,
    ],
    ids=lambda text: repr(text[:9]),
)
def test_any_text_is_given_back_once(text: bytes, machine: Machine) -> None:
    """Whatever journald's fields make of it, what user space wrote included: it is known again."""
    machine.write(*received(LINES))
    log = b"\n".join([*LINES, b"<4>[   10.000001] " + text, b"<30>[   10.000002] " + text, b""])
    assert [machine.deliver(log)["lines"], machine.deliver(log, revision=2)["lines"]] == [2, 0]


def test_a_line_with_nul_is_known(machine: Machine) -> None:
    """journald keeps the escape that /dev/kmsg has for it."""
    (entry,) = received(TAIL[:1])
    machine.write(*received(LINES), {**entry, "MESSAGE": rb"a\x00b"})
    assert machine.deliver(b"\n".join([*LINES, b"<4>[   10.000001] a\0b", b""]))["lines"] == 0


@pytest.mark.parametrize("late_us", [0, 1500, 700_000])
def test_later_revision_adds_what_is_new(late_us: int, machine: Machine) -> None:
    """First only the panic is known, then also the oops before it: two files, each line once, all in order."""
    machine.write(*received(LINES, late_us=late_us))
    machine.deliver(b"\n".join([*LINES[-10:], TAIL[3], b""]))
    assert machine.log() == [*LINES, TAIL[3]]
    assert machine.deliver(revision=2)["lines"] == 3
    assert machine.log() == [*LINES, *TAIL]
    assert len(machine.ours()) == 2


@pytest.mark.parametrize("late_us", [0, 1500, 700_000])
def test_what_journald_received_late_stays_before(late_us: int, machine: Machine) -> None:
    """The journal sorts by reception, which may be later than the panic's own time: the panic is last all the same."""
    machine.write(*received(LINES, late_us=late_us), from_user_space(10_000_000 + late_us))
    machine.deliver()
    assert machine.log() == [*LINES, *TAIL]
    assert machine.entries("-b", BOOT.replace("-", ""))[-1]["MESSAGE"].startswith("Kernel panic")
    assert machine.sound_files() == 2


@pytest.mark.parametrize("later_s", [0, 5, 10, -3600])
def test_clock_that_went_back_hides_no_boot(later_s: int, machine: Machine) -> None:
    """Without an RTC the next boot begins before the crash, by its clock: all boots stay in the list, as they were."""
    machine.write(
        *received(LINES[:9], boot_id="0" * 31 + "2", began_us=BEGAN_US - 10**10),
        *received(LINES),
        *received(LINES[:50], boot_id=NEXT_BOOT, began_us=BEGAN_US + later_s * 1_000_000),
    )
    before = [line.split()[:2] for line in machine.journalctl("-q", "--list-boots").splitlines()]
    assert machine.deliver()["lines"] == 4
    assert [line.split()[:2] for line in machine.journalctl("-q", "--list-boots").splitlines()] == before
    assert len(before) == 3
    assert machine.log() == [*LINES, *TAIL]
    assert [as_dumped(entry) for entry in machine.entries("-b", "0")] == LINES[:50]
    assert [as_dumped(entry) for entry in machine.entries("-b", "-1")] == [*LINES, *TAIL]
    assert machine.deliver(TEXT + b"<0>[   11.000000] later", revision=2)["lines"] == 1
    assert [line.split()[:2] for line in machine.journalctl("-q", "--list-boots").splitlines()] == before
    assert as_dumped(machine.entries("-b", "-1")[-1]) == b"<0>[   11.000000] later"
    assert machine.sound_files() == 3


def test_clocks_that_leave_no_room_are_left_alone(machine: Machine) -> None:
    """The boot before was later by its clock than the boot after: wherever the lines were, a boot would be hidden."""
    machine.write(
        *received(LINES[:9], boot_id="0" * 31 + "2", began_us=BEGAN_US + 10**10),
        *received(LINES),
        *received(LINES[:50], boot_id=NEXT_BOOT, began_us=BEGAN_US),
    )
    assert "leave no room for it between them" in said(machine)


def test_oops_that_was_survived_stays_at_its_time(machine: Machine) -> None:
    """User space lived on for an hour: the oops lines that journald missed are not put behind that."""
    machine.write(*received(LINES), from_user_space(3_600_000_000))
    machine.deliver()
    assert machine.log() == [*LINES, *TAIL]
    assert machine.restored()[0]["__MONOTONIC_TIMESTAMP"] == "10000001"


def test_a_damaged_time_moves_only_its_line(machine: Machine) -> None:
    """A bit has flipped in one line's time: the panic is still last, and not in another year."""
    machine.write(*received(LINES))
    damaged = b"<6>[99999999.000001] between them"
    machine.deliver(b"\n".join([*LINES, TAIL[0], damaged, *([b"<6>[   10.000100] x"] * 16), TAIL[3], b""]))
    assert machine.restored()[-1]["MESSAGE"].startswith("Kernel panic")
    assert {int(entry["__MONOTONIC_TIMESTAMP"]) // 1_000_000 for entry in machine.restored()} == {10}


def test_console_tells_no_priority(machine: Machine) -> None:
    """What it lacks, with the fields that are known; an identifier in what the journal has is no obstacle."""
    machine.write(*received([*LINES, TAIL[2]]))
    text = re.sub(rb"(?m)^<\d+>", b"", b"\n".join([*LINES, TAIL[2], TAIL[3], b"not a kernel line", b""]))
    assert machine.deliver(text)["lines"] == 2
    panic, bare = machine.restored()
    assert not {"PRIORITY", "SYSLOG_FACILITY"} & set(panic)
    assert panic["MESSAGE"] == "Kernel panic - not syncing: Fatal exception"
    assert bare["MESSAGE"] == "not a kernel line"
    assert bare["__MONOTONIC_TIMESTAMP"] == panic["__MONOTONIC_TIMESTAMP"]


def test_line_of_several_is_known(machine: Machine) -> None:
    """One message with a newline in it is one entry, and two lines in a dump."""
    (entry,) = received(TAIL[:1])
    machine.write(*received(LINES), {**entry, "MESSAGE": b"one\ntwo"})
    dumped = b"<4>[   10.000001] one\n<4>[   10.000001] two\n"
    assert machine.deliver(b"\n".join([*LINES, b""]) + dumped)["lines"] == 0


@pytest.mark.parametrize("collecting", [None, "00000000-0000-0000-0000-000000000001"])
def test_boot_of_which_the_journal_has_nothing(collecting: str | None, machine: Machine) -> None:
    """Its wall time is that of the report; the whole log is given."""
    machine.write(*received(LINES, boot_id=NEXT_BOOT, began_us=BEGAN_US + 10**11))
    time = {"wall": "2026-11-23T04:18:57.000000Z", "uptime_s": 10.0009}
    assert machine.deliver(time=time, collected={"boot_id": collecting})["lines"] == len(LINES) + len(TAIL)
    assert machine.journalctl("-q", "--list-boots").count("\n") == 2
    assert machine.log() == [*LINES, *TAIL]
    shown = machine.journalctl("-k", "-b", BOOT.replace("-", ""), "-o", "short-iso").splitlines()
    assert shown[-1].startswith("2026-11-23T04:18:57+0000")


# -- when nothing is given back


def said(machine: Machine, text: bytes = TEXT, **fields: Any) -> str:
    """Why nothing is given back."""
    receipt = machine.deliver(text, **fields)
    assert (receipt["lines"], receipt["files"]) == (0, [])
    assert machine.ours() == []
    return str(receipt["said"])


@pytest.mark.parametrize(
    "boot",
    [
        {"id": BOOT, "method": "elimination", "confidence": "low"},
        {"id": None, "method": "unknown", "confidence": "none"},
    ],
)
def test_boot_that_is_not_sure_is_left_alone(boot: dict[str, Any], machine: Machine) -> None:
    """It may be another's journal."""
    machine.write(*received(LINES))
    assert "not sure enough" in said(machine, boot=boot)


def test_boot_of_another_machine_does_not_become_one_of_this(machine: Machine) -> None:
    """Imported from a directory, of which nothing says whose it is: only if the journal knows the boot is it ours."""
    machine.write(*received(LINES, boot_id=NEXT_BOOT, began_us=BEGAN_US + 10**11))
    time = {"wall": "2026-11-23T04:18:57.000000Z", "uptime_s": 10.0009}
    assert "do not say that boot" in said(machine, machine_id=None, time=time)
    machine.write(*received(LINES))
    assert machine.deliver(machine_id=None, time=time)["lines"] == len(TAIL)


def test_boot_that_is_still_running_is_left_to_journald(machine: Machine) -> None:
    """It survived an oops, and journald may be about to write those very lines; what it loses comes when it is over."""
    machine.write(*received(LINES))
    machine.root.reboot(BOOT)
    sink = RestoreSink(Host(str(machine.root.path)), str(machine.root.archive))
    assert sink.deliver(crash(), text=TEXT, report_path="/x") is None
    assert machine.ours() == []
    machine.root.reboot()
    assert machine.deliver()["lines"] == len(TAIL)


def test_log_without_times_cannot_be_placed(machine: Machine) -> None:
    """printk.time=0."""
    machine.write(*received(LINES))
    assert "no kernel lines with a time" in said(machine, b"<0>Kernel panic\n")


def test_boot_without_any_wall_time(machine: Machine) -> None:
    """Neither a journal of it nor a time in the records."""
    machine.write(*received(LINES, boot_id=NEXT_BOOT))
    assert "do not say when that was" in said(machine)


def test_no_persistent_journal(machine: Machine) -> None:
    """A volatile one does not have the crashed boot, and is gone with this one."""
    write_journal(machine.root.path / f"run/log/journal/{MACHINE_ID}", received(LINES))
    assert "no persistent journal" in machine.deliver()["said"]
    machine.journals.mkdir(parents=True)
    assert "there is no journal in" in said(machine)


def test_without_systemd_journal_remote_it_is_said(machine: Machine) -> None:
    """No error, and not tried again."""
    machine.write(*received(LINES))
    sink = RestoreSink(Host(str(machine.root.path)), str(machine.root.archive), programs=["/nowhere"])
    receipt = sink.deliver(crash(), text=TEXT, report_path="/x")
    assert receipt is not None
    assert receipt["said"] == "nothing given back to the journal: systemd-journal-remote is not installed"


def test_program_that_fails_is_tried_again(machine: Machine) -> None:
    """With what it says; nothing is left behind."""
    machine.write(*received(LINES))
    program = machine.root.path / "remote"
    program.write_text("#!/bin/sh\necho 'it rains' >&2\n")
    program.chmod(0o755)
    sink = RestoreSink(Host(str(machine.root.path)), str(machine.root.archive), programs=[str(program)])
    with pytest.raises(SinkError, match="remote wrote 0 of 4 lines: it rains") as caught:
        sink.deliver(crash(), text=TEXT, report_path="/x")
    assert caught.value.retry
    assert machine.ours() == []
    assert os.listdir(machine.root.archive) == []


# -- files


def test_file_is_like_its_neighbours(machine: Machine) -> None:
    """Group and mode of journald's files, under a name that journald vacuums; sparse."""
    machine.write(*received(LINES))
    neighbour = machine.journals / "system.journal"
    neighbour.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(neighbour, 0, 54321)
    machine.deliver()
    (name,) = machine.ours()
    assert re.fullmatch(r"pstored@[0-9a-f]{32}-0000000000000001-[0-9a-f]{16}\.journal", name)
    assert int(name.split("-")[2].removesuffix(".journal"), 16) == BEGAN_US + 10_000_001
    state, other = (machine.journals / name).stat(), neighbour.stat()
    assert (state.st_mode, state.st_uid, state.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
    assert state.st_size >= 512 * 1024
    assert state.st_blocks * 512 < state.st_size // 4


def test_litter_of_a_killed_run_is_removed(machine: Machine) -> None:
    """Ours alone, also if there is nothing to do any more."""
    machine.write(*received([*LINES, *TAIL]))
    for name in (".new-pstored@0-1-2.journal.part", ".new-somebody's"):
        (machine.journals / name).write_bytes(b"half")
    machine.deliver()
    assert sorted(os.listdir(machine.journals)) == [".new-somebody's", "system.journal"]


def test_disk_that_is_full_is_tried_again(machine: Machine, own_mounts: Callable[[Callable[[], Any]], Any]) -> None:
    """Of the journal: nothing is left of the attempt; with room, it is done."""
    machine.write(*received(LINES))
    kept = machine.root.path / "kept"
    shutil.copytree(machine.journals, kept)

    def child() -> tuple[str, bool, list[str], int]:
        mount("-t", "tmpfs", "-o", "size=8600k", "tmpfs", machine.journals)
        shutil.copytree(kept, machine.journals, dirs_exist_ok=True)
        filler = machine.journals / "filler"
        filler.write_bytes(b"x" * (os.statvfs(machine.journals).f_bavail * 4096 - 8192))
        try:
            machine.deliver()
        except SinkError as e:
            left = machine.ours()
            filler.unlink()
            return str(e), e.retry, left, machine.deliver()["lines"]
        raise AssertionError("it had room")

    message, retry, left, lines = own_mounts(child)
    assert "No space left on device" in message
    assert (retry, left, lines) == (True, [], 4)


def test_archive_that_is_full_is_tried_again(machine: Machine, own_mounts: Callable[[Callable[[], Any]], Any]) -> None:
    """systemd-journal-remote drops entries then, and exits with 0: counted, and not believed."""
    machine.write(*received(LINES))

    def child() -> tuple[str, bool]:
        mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", machine.root.archive)
        try:
            machine.deliver()
        except SinkError as e:
            return str(e), e.retry
        raise AssertionError("it had room")

    message, retry = own_mounts(child)
    assert re.search("wrote 0 of 4 lines|No space left", message)
    assert retry
    assert machine.ours() == []


def test_many_lines_become_several_files(machine: Machine, own_mounts: Callable[[Callable[[], Any]], Any]) -> None:
    """On a small file system systemd-journal-remote makes small files, and starts new ones: all of them count."""
    machine.write(*received(LINES))
    many = [b"<6>[%5d.%06d] many" % (20 + n // 1000, n % 1000) for n in range(5000)]

    def child() -> dict[str, Any]:
        mount("-t", "tmpfs", "-o", "size=64M", "tmpfs", machine.root.archive)
        return machine.deliver(b"\n".join([*LINES, *many, *TAIL[3:]]))

    receipt = own_mounts(child)
    assert receipt["lines"] == 5001
    assert len(receipt["files"]) > 2
    assert receipt["files"] == machine.ours()
    numbers = [int(name.split("-")[1], 16) for name in receipt["files"]]
    assert (numbers[0], numbers) == (1, sorted(set(numbers)))
    log = machine.log()
    assert log[:100] == LINES
    assert log[100:-1] == many
    assert machine.sound_files() == 1 + len(receipt["files"])


@pytest.mark.parametrize("rule", ["--vacuum-time=1h", "--vacuum-files=1", "--vacuum-size=1"])
def test_vacuuming_removes_what_is_old(rule: str, machine: Machine) -> None:
    """journald's own rules, by the time in the name: ours goes, the active file stays."""
    machine.write(*received(LINES, began_us=1_600_000_000_000_000))
    machine.deliver()
    machine.journalctl("--vacuum-time=9999d")
    assert len(machine.ours()) == 1
    machine.journalctl(rule)
    assert machine.ours() == []
    assert machine.log() == LINES


def test_journald_vacuums_what_is_restored(machine: Machine) -> None:
    """A real journald that comes to its SystemMaxUse removes our file, the oldest, and is not disturbed by it."""
    machine.write(*received(LINES))
    machine.deliver()
    (name,) = machine.ours()
    script = f"""
        own=/var/log/journal/$(cat /etc/machine-id).t
        cp --sparse=always {machine.journals}/{name} $own/
        journalctl --namespace=t -q -k -b {BOOT.replace("-", "")} -o cat
        i=0
        while [ -e $own/{name} ] && [ $i -lt 400 ]; do
            head -c 98304 /dev/urandom | base64 -w 0 | systemd-cat -p info
            i=$((i + 1))
        done
        journalctl --namespace=t --sync
        echo "$i" >&2
        test ! -e $own/{name}
        journalctl --namespace=t --verify 2>&1 | grep -c FAIL >&2
    """
    (done,) = with_journald(("sh", "-c", script), size="16M")
    assert done.stdout.splitlines()[-1].startswith("Kernel panic")
    rounds, failed = done.stderr.split()[-2:]
    assert (int(rounds) > 3, failed) == (True, "0"), done.stderr


# -- the whole program


def configure(root: Root, text: str = "") -> None:
    """The restoration alone."""
    root.configure(f"[journal]\nenabled = false\nrestore = true\n{text}")


@pytest.fixture
def crashed(root: MakeRoot) -> Machine:
    """A machine that crashed, with the journal of that boot but for its last 30 lines; collected, not delivered."""
    made = root("oops-panic", backend="efi_pstore")
    machine = Machine(made)
    configure(made)
    with redirect_stdout(io.StringIO()):
        forked(lambda: run(["--root", str(made.path), "harvest"]))
        forked(lambda: run(["--root", str(made.path), "analyze"]))
    lines = dumped(machine)
    machine.write(*received(lines[:-30], boot_id=made.boots[0].boot_id))
    return machine


def dumped(machine: Machine) -> list[bytes]:
    """The crash's log."""
    return (machine.root.crashes()[0] / "dmesg.txt").read_bytes().splitlines()


def log_of(machine: Machine) -> list[bytes]:
    """As journalctl shows it."""
    return [as_dumped(e) for e in machine.entries("-k", "-b", machine.root.boots[0].boot_id.replace("-", ""))]


def test_deliver_gives_the_lines_back(crashed: Machine, pstored: Pstored) -> None:
    """Said on standard output and in delivered.json; then nothing is due."""
    lines = dumped(crashed)
    assert log_of(crashed) == lines[:-30]
    done = pstored("deliver", root=crashed.root)
    boot_id = crashed.root.boots[0].boot_id
    said = f"30 kernel lines given back to the journal of boot {boot_id}"
    assert (done.status, done.stdout) == (0, f"restore: {said}\n")
    assert log_of(crashed) == lines
    delivered = crashed.root.load(f"crashes/{crashed.root.crashes()[0].name}/delivered.json")["sinks"]["restore"]
    assert delivered["receipt"] == {"lines": 30, "files": crashed.ours(), "said": said, "has_boot": True}
    assert pstored("deliver", root=crashed.root).stdout == ""
    assert pstored("verify", root=crashed.root).status == 0


def test_export_knows_a_boot_that_was_given_lines_back(crashed: Machine, pstored: Pstored) -> None:
    """Its last entries are ours then; those of journald before them say when it was, where the records do not."""
    report = crashed.root.crashes()[0] / "crash.json"
    report.write_text(report.read_text().replace('"wall": "', '"wall": "x'))
    before = pstored("export", "--format=journal", "-1", "-o", "-", root=crashed.root)
    assert before.status == 0
    assert pstored("deliver", root=crashed.root).status == 0
    assert pstored("export", "--format=journal", "-1", "-o", "-", root=crashed.root) == before


def test_restore_is_off_below_a_root_unless_asked_for(root: MakeRoot, pstored: Pstored) -> None:
    """As the journal sink; and it goes with it where it is not configured."""
    made = root("panic", backend="efi_pstore")
    assert pstored("collect", root=made).status == 0
    assert not (made.archive / "outbox").exists()


def killed_run(root: Root, at: int) -> int | None:
    """Deliver, and end before step *at*; None if it came to its end before."""

    def child() -> int:
        passed = 0

        def hook(name: str) -> None:
            nonlocal passed
            passed += 1
            if passed == at:
                os._exit(99)

        steps.hook = hook
        with redirect_stdout(io.StringIO()):
            return run(["--root", str(root.path), "deliver"])

    child_id = os.fork()
    if child_id == 0:
        try:
            child()
            os._exit(0)
        except BaseException:  # shown, and told apart by the status  # noqa: BLE001
            traceback.print_exc()
            os._exit(98)
    status = os.waitstatus_to_exitcode(os.waitpid(child_id, 0)[1])
    assert status in (0, 99)
    return status or None


def test_killed_at_every_step(crashed: Machine, tmp_path: Path) -> None:
    """Wherever a delivery is killed, the next one leaves each line there once, and nothing half done."""
    lines = dumped(crashed)
    for at in range(1, 200):
        copy = Root(path=tmp_path / f"killed{at}", boots=crashed.root.boots)
        subprocess.run(["cp", "-a", "--sparse=always", crashed.root.path, copy.path], check=True)
        machine = Machine.__new__(Machine)
        machine.root, machine.journals = copy, copy.path / f"var/log/journal/{MACHINE_ID}"
        killed = killed_run(copy, at)
        assert log_of(machine) in (lines[:-30], lines), at
        assert killed_run(copy, 0) is None
        assert log_of(machine) == lines, at
        assert len(machine.ours()) == 1, at
        assert not copy.litter(), at
        assert not list(copy.path.rglob(".new-*")), at
        shutil.rmtree(copy.path)
        if killed is None:
            assert at > 15
            return
    raise AssertionError("it never survives")
