# SPDX-License-Identifier: Apache-2.0
"""An oops of the running boot: from its log at once, from pstore when the kernel shows it, told once, as one crash."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture, devkmsg
from fake_pstore.klog import KERN_ALERT, KERN_INFO, KERN_WARNING, USER_WARNING, Message
from fake_pstore.tree import write_record
from pstored.archive import Archive
from pstored.config import Config, load
from pstored.host import Host
from pstored.intake import kernellog
from pstored.intake.kernellog import look
from pstored.parse.kmsg import parse_kmsg
from tests.conftest import BOOT_ID, MakeRoot, Pstored, Root
from tests.test_crash_safety import kill_everywhere, run_killed, told

NEXT = "99999999-8888-4777-8666-555555555555"
WALL_S = 1_795_400_100
LOOK = ("collect", "--json", "--kernel-log")


def write_log(root: Root, records: Sequence[bytes]) -> None:
    """What /dev/kmsg of the running boot gives."""
    (root.path / "dev/kmsg").write_bytes(b"".join(records))


def run_boot(root: Root, boot_id: str, *, oopses: int = 0, uptime_s: float = 100) -> None:
    """Another boot runs; it has logged nothing yet."""
    root.reboot(boot_id)
    root.write("proc/uptime", f"{uptime_s:.2f} 0.00\n")
    root.write("sys/kernel/oops_count", f"{oopses}\n")
    write_log(root, [])


def up_to(messages: Sequence[Message], text: str, nth: int = 1) -> list[Message]:
    """The messages up to the *nth* that begins so, it included."""
    places = [at for at, message in enumerate(messages) if message.text.startswith(text)]
    return list(messages[: places[nth - 1] + 1])


def oopses(count: int, *, first_s: int = 10, every_s: int = 5, text: str = "") -> list[Message]:
    """Short reports, one after the other, and a quiet line behind each."""
    found = [Message(5, 0, "T0", "Linux version 6.12.1 (builder@fake) (gcc) #1 SMP Mon Nov  2 09:12:44 UTC 2026")]
    for number in range(count):
        at = (first_s + every_s * number) * 1_000_000
        found += [
            Message(KERN_ALERT, at + 1, "T9", text or f"BUG: kernel NULL pointer dereference, address: {number:016x}"),
            Message(KERN_WARNING, at + 2, "T9", f"Oops: 0002 [#{number + 1}] PREEMPT SMP"),
            Message(KERN_WARNING, at + 3, "T9", "CPU: 1 PID: 9 Comm: gauged Not tainted 6.12.1 #1"),
            Message(KERN_WARNING, at + 4, "T9", "RIP: 0010:gauge_store+0x14/0x20 [gauge]"),
            Message(KERN_WARNING, at + 5, "T9", "---[ end trace 0000000000000000 ]---"),
            Message(KERN_INFO, at + 6, "T9", "note: gauged[9] exited with irqs disabled"),
        ]
    return found


def settings(root: Root) -> Config:
    """The tree's configuration."""
    return load(str(root.path)).config


def looked(root: Root, **seams: Any) -> kernellog.Look:
    """Look into the tree's log."""
    return look(Host(str(root.path), clock_ns=lambda: WALL_S * 10**9), settings(root), **seams)


def record_of(root: Root, number: int = -1) -> bytes:
    """The one record of a harvest, as the archive gives it."""
    ((_, data),) = Archive(str(root.archive)).read_records(root.harvests()[number].name)
    return data


def report(root: Root) -> dict[str, Any]:
    """The one crash there is."""
    (crash,) = root.crashes()
    return root.load(f"crashes/{crash.name}/crash.json")


def sent(root: Root) -> list[str]:
    """What the sink has been told."""
    path = root.path / "sink"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def quiet(root: MakeRoot) -> Root:
    """A running boot with an empty store, and a journal to tell."""
    made = root()
    made.configure("[archive]\nallow_volatile = true\n[journal]\nenabled = true\n")
    run_boot(made, BOOT_ID)
    return made


class Story:
    """A boot of a scenario while it lives, and the boot after it; the store shows its records when it is told to."""

    def __init__(self, root: Root, tmp_path: Path, *, callers: bool = False) -> None:
        self.root = root
        self.callers = callers
        self.boot = root.boots[0]
        self._aside = tmp_path / "aside"
        shutil.move(root.store, self._aside)
        root.store.mkdir()
        root.configure("[archive]\nallow_volatile = true\n[journal]\nenabled = true\n")
        run_boot(root, self.boot.boot_id, oopses=1)

    def log(self, text: str, nth: int = 1) -> list[bytes]:
        """Have logged so far what goes up to the *nth* message that begins so."""
        records = devkmsg.records(up_to(self.boot.messages, text, nth), callers=self.callers)
        write_log(self.root, records)
        return records

    def show(self, only: bytes = b"") -> list[str]:
        """Have pstore show its records; of dmesg only those that begin so."""
        shown = []
        for path in sorted(self._aside.iterdir()):
            if not path.name.startswith("dmesg") or path.read_bytes().startswith(only):
                write_record(self.root.store / path.name, path.read_bytes(), path.stat().st_mtime_ns)
                path.unlink()
                shown.append(path.name)
        assert shown
        return shown

    def collect(self, *, kernel_log: bool = True) -> int:
        """`pstored collect`."""
        return run_killed(self.root, *(LOOK if kernel_log else LOOK[:-1])).status


END = "---[ end trace"


@pytest.fixture
def story(root: MakeRoot, tmp_path: Path) -> Callable[..., Story]:
    """Make a story; with a stamp in the log, or without."""

    def make(scenario: str = "oops", **options: Any) -> Story:
        options.setdefault("backend", "efi_pstore")
        return Story(root(scenario, **options), tmp_path, callers=scenario == "caller-ids")

    return make


# -- at once


def test_an_oops_is_archived_from_the_log_as_a_harvest(quiet: Root, pstored: Pstored) -> None:
    """One record up to the end of the report, as a pstore dump has it; with a receipt; `verify` finds it whole."""
    messages = oopses(1)
    write_log(quiet, devkmsg.records(messages, first=7))
    found = looked(quiet)
    (bundle,) = quiet.harvests()
    assert (found.harvest_id, found.reports, found.warnings) == (bundle.name, 1, ())
    lines = record_of(quiet).splitlines()
    assert lines[0].startswith(b"<5>[    0.000000] Linux version 6.12.1")
    assert lines[1:] == [
        b"<%d>[%5d.%06d] %s" % (m.level, *divmod(m.time_us, 10**6), m.text.encode()) for m in messages[1:6]
    ]
    facts = quiet.load(f"harvests/{bundle.name}/harvest.json")
    assert facts["store"] == {"path": "/dev/kmsg", "backend": "kmsg", "parameters": {}}
    assert facts["boot_id"] == BOOT_ID
    (receipt,) = facts["records"]
    assert receipt["name"] == "dmesg-kmsg-12"  # the number of its last message
    assert receipt["mtime_ns"] == WALL_S * 10**9 - (100 * 10**9 - 10_000_005_000)  # uptime 100 s, the oops at 10 s
    assert pstored("verify", root=quiet).status == 0


def test_it_is_a_crash_of_the_running_boot(quiet: Root, pstored: Pstored) -> None:
    """Certain, by kmsg; whole, an oops; told once; nothing is said of a store that it never was in."""
    write_log(quiet, devkmsg.records(oopses(1)))
    assert run_killed(quiet, *LOOK).status == 0
    crash = report(quiet)
    assert (crash["severity"], crash["kind"], crash["function"], crash["comm"]) == (
        "oops",
        "null-deref",
        "gauge_store",
        "gauged",
    )
    assert (crash["boot"]["id"], crash["boot"]["method"], crash["boot"]["confidence"]) == (BOOT_ID, "kmsg", "certain")
    assert "while it ran" in crash["boot"]["evidence"][0]
    assert (crash["complete"], crash["backend"], crash["revision"]) == (True, "kmsg", 1)
    assert [(d["reason"], d["count"], d["backend"]) for d in crash["dumps"]] == [(None, None, "kmsg")]
    assert [(r["erased"], r["outcome"], r["why"]) for r in crash["records"]] == [(None, None, None)]
    assert sent(quiet) == [f"{crash['id']} 1"]
    page = pstored("show", root=quiet).stdout
    assert "1 read from the log of the running kernel" in page
    assert "perhaps still in the store" not in page
    assert "BUG: kernel NULL pointer dereference" in page


def test_the_command_says_what_it_found(quiet: Root, pstored: Pstored) -> None:
    """In words and in JSON; without the option the log is not looked into."""
    quiet.configure("[archive]\nallow_volatile = true\n")
    write_log(quiet, devkmsg.records(oopses(1)))
    plain = pstored("collect", "--json", root=quiet)
    assert (plain.status, plain.json["kernel_log"], plain.json["crashes"]) == (0, None, [])
    write_log(quiet, devkmsg.records(oopses(1)))
    said = pstored("collect", "--kernel-log", root=quiet)
    assert (said.status, said.stderr) == (0, "")
    assert "/dev/kmsg: the log of the running kernel tells of an oops, and is archived" in said.stdout
    again = pstored(*LOOK, root=quiet).json["kernel_log"]
    assert again == {"id": None, "reports": 1, "warnings": []}


def test_what_is_archived_is_not_archived_again(quiet: Root) -> None:
    """In another process, with more in the log, and when the ring has dropped its beginning: even half a report."""
    records = devkmsg.records(oopses(1))
    write_log(quiet, records)
    assert run_killed(quiet, *LOOK).status == 0
    before = quiet.snapshot()
    chatter = devkmsg.records([Message(KERN_INFO, 50_000_000 + n, "T1", f"usb {n}") for n in range(300)], first=500)
    for dropped in range(len(records) + 1):
        write_log(quiet, records[dropped:] + chatter)
        assert run_killed(quiet, *LOOK).status == 0
        assert quiet.snapshot() == before
    assert len(sent(quiet)) == 1


def test_an_oops_of_another_boot_with_the_same_words_is_another(quiet: Root) -> None:
    """The same driver, the same time since boot, to the microsecond."""
    for boot_id in (BOOT_ID, NEXT):
        run_boot(quiet, boot_id)
        write_log(quiet, devkmsg.records(oopses(1)))
        assert run_killed(quiet, *LOOK).status == 0
    crashes = [quiet.load(f"crashes/{path.name}/crash.json") for path in quiet.crashes()]
    assert [crash["boot"]["id"] for crash in crashes] == [BOOT_ID, NEXT]


def test_a_second_oops_is_told_as_more_of_the_same_crash(quiet: Root) -> None:
    """Seconds later: revision 2, the newest one in its title, both in one text without doubled lines."""
    messages = oopses(2)
    write_log(quiet, devkmsg.records(messages[:7]))
    run_killed(quiet, *LOOK)
    write_log(quiet, devkmsg.records(messages))
    run_killed(quiet, *LOOK)
    run_killed(quiet, *LOOK)
    crash = report(quiet)
    assert crash["revision"] == 2
    assert "0000000000000001" in crash["title"]
    assert len(quiet.harvests()) == 2
    assert sent(quiet) == [f"{crash['id']} 1", f"{crash['id']} 2"]
    lines = (quiet.crashes()[0] / "dmesg.txt").read_bytes().splitlines()
    assert len(lines) == len(set(lines)) == len(messages) - 1


def test_without_printk_time_a_second_oops_with_the_same_words_is_seen(quiet: Root) -> None:
    """The dumps of such a kernel have no times, so neither has the record: the reports are counted."""
    quiet.write("sys/module/printk/parameters/time", "N\n")
    messages = oopses(2, text="kernel BUG at drivers/gauge.c:7!")
    for count in (7, len(messages), len(messages)):
        write_log(quiet, devkmsg.records(messages[:count]))
        run_killed(quiet, *LOOK)
    assert len(quiet.harvests()) == 2
    assert report(quiet)["revision"] == 2
    assert b"[" not in record_of(quiet).splitlines()[0].split(b" ")[0]


# -- what is no oops


@pytest.mark.parametrize(
    "text",
    [
        "all is well",
        "WARNING: CPU: 0 PID: 1 at kernel/fork.c:7 copy_process+0x1/0x2",
        "gauge: BUG: kernel NULL pointer dereference, address: 0",
    ],
)
def test_a_log_without_an_oops_leaves_no_trace(text: str, quiet: Root) -> None:
    """Not even an archive is made."""
    write_log(quiet, devkmsg.records([Message(KERN_WARNING, 5_000_000, "T1", text)]))
    assert looked(quiet) == (None, 0, (), False)
    assert not quiet.archive.exists()


def test_what_user_space_writes_is_no_oops(quiet: Root) -> None:
    """A program may write any text to /dev/kmsg, newlines included; its facility gives it away."""
    words = [m.text for m in oopses(1)] + ["Kernel panic - not syncing: Fatal exception"]
    forged = [Message(USER_WARNING, 5_000_000 + n, "T7", t) for n, t in enumerate([*words, "\n".join(words)])]
    write_log(quiet, devkmsg.records(forged))
    assert looked(quiet) == (None, 0, (), False)


def test_user_space_cannot_end_or_colour_a_report(quiet: Root) -> None:
    """Its lines between those of the kernel are kept, but name neither function nor task, and are no end."""
    messages = oopses(1)
    forged = [
        Message(USER_WARNING, 10_000_002, "T7", text)
        for text in ("RIP: 0010:innocent+0x1/0x2", "CPU: 0 PID: 1 Comm: victim Not tainted 6 #1", f"{END} 0 ]---")
    ]
    write_log(quiet, devkmsg.records([*messages[:2], *forged, *messages[2:]]))
    run_killed(quiet, *LOOK)
    crash = report(quiet)
    assert (crash["function"], crash["comm"]) == ("gauge_store", "gauged")
    assert record_of(quiet).endswith(b"---[ end trace 0000000000000000 ]---\n")
    assert b"innocent" in record_of(quiet)


def test_what_lasts_is_told_once(quiet: Root) -> None:
    """A lockup is reported again every 20 s, with another number."""
    messages = []
    for n in range(9):
        text = f"watchdog: BUG: soft lockup - CPU#0 stuck for {22 + 22 * n}s! [gauged:77]"
        messages.append(Message(0, (40 + 22 * n) * 10**6, "C0", text))
        messages.append(Message(KERN_WARNING, (40 + 22 * n) * 10**6 + 3, "C0", f"RIP: 0010:spin_{n}+0x1/0x2"))
        write_log(quiet, devkmsg.records(messages))
        run_killed(quiet, *LOOK)
    assert len(quiet.harvests()) == len(sent(quiet)) == 1
    write_log(quiet, devkmsg.records([*messages, *oopses(1, first_s=400)[1:]]))
    run_killed(quiet, *LOOK)
    assert len(sent(quiet)) == 2


def test_a_boot_that_oopses_without_end_does_not_fill_the_archive(quiet: Root) -> None:
    """So many harvests of one boot, then no more; it is said."""
    messages = oopses(20)
    for count in range(1, 20):
        write_log(quiet, devkmsg.records(messages[: 1 + 6 * count]))
        found = looked(quiet)
        assert (found.harvest_id is not None) == (count <= kernellog.MAX_HARVESTS)
    assert "not archived" in found.warnings[0]
    assert not found.failed  # the next try would end the same
    assert len(quiet.harvests()) == kernellog.MAX_HARVESTS


# -- the log as the kernel gives it


class Ring:
    """/dev/kmsg as read(2) gives it: a record a call, errors in between, EAGAIN at the end."""

    def __init__(self, *answers: bytes | int) -> None:
        self.answers = [*answers, errno.EAGAIN]

    def read(self, _fd: int, size: int) -> bytes:
        """The next answer; the last comes again and again."""
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        assert len(answer) <= size
        return answer


def test_an_overrun_is_said_and_read_over(quiet: Root) -> None:
    """EPIPE: the ring went over what was to be read; the messages lost are counted in the text."""
    records = devkmsg.records(oopses(1))
    early = devkmsg.records([Message(KERN_INFO, n, "T0", f"early {n}") for n in range(3)])
    late = devkmsg.records(oopses(1), first=50)
    assert records
    found = looked(quiet, read=Ring(*early, errno.EPIPE, *late).read)
    assert found.reports == 1
    assert b"early 2\n--- pstored: 47 messages are lost here ---\n<5>[" in record_of(quiet)


def test_a_log_that_cannot_be_read_to_its_end_is_a_warning(quiet: Root) -> None:
    """Nothing is taken from half a log."""
    found = looked(quiet, read=Ring(*devkmsg.records(oopses(1)), errno.EIO).read)
    assert found == (None, 0, ("/dev/kmsg cannot be read: Input/output error",), True)


@pytest.mark.parametrize("what", ["missing", "directory", "no boot id", "kdump"])
def test_a_log_that_cannot_be_read_stops_nothing(what: str, quiet: Root, pstored: Pstored) -> None:
    """The rest is collected; it is said, and in the exit status."""
    quiet.configure("[archive]\nallow_volatile = true\n")
    log = quiet.path / "dev/kmsg"
    write_log(quiet, devkmsg.records(oopses(1)))
    if what in ("missing", "directory"):
        log.unlink()
    if what == "directory":
        log.mkdir()
    if what == "no boot id":
        quiet.write("proc/sys/kernel/random/boot_id", "\n")
    if what == "kdump":
        quiet.write("proc/vmcore", "")
    else:
        quiet.add_erst_crash(1, b"Panic#1 Part1\n<0>[    7.000001] Kernel panic - not syncing: x\n")
    if what == "no boot id":
        quiet.write("proc/sys/kernel/random/boot_id", "\n")
    done = pstored(*LOOK, root=quiet)
    assert done.status == (what != "kdump")
    assert done.json["kernel_log"]["id"] is None
    assert len(done.json["kernel_log"]["warnings"]) == 1
    assert len(done.json["crashes"]) == (what != "kdump")


def test_an_archive_that_cannot_be_made_is_an_error(quiet: Root, pstored: Pstored) -> None:
    """And says so; the next look finds the oops all the same."""
    write_log(quiet, devkmsg.records(oopses(1)))
    quiet.archive.write_text("no directory")
    done = pstored(*LOOK, root=quiet)
    assert done.status == 73
    assert "Traceback" not in done.stderr
    quiet.archive.unlink()
    assert looked(quiet).harvest_id is not None


def test_a_report_that_is_being_printed_is_waited_for(quiet: Root) -> None:
    """The rest comes while we look: all of it is archived."""
    log = quiet.path / "dev/kmsg"
    log.unlink()
    os.mkfifo(log)
    records = devkmsg.records(oopses(1))
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)  # so that opening for writing does not block
    writer = os.open(log, os.O_WRONLY)
    os.write(writer, b"".join(records[:3]))
    at_the_end = threading.Event()

    def read(fd: int, size: int) -> bytes:
        try:
            return os.read(fd, size)
        except BlockingIOError:
            at_the_end.set()
            raise

    def go_on() -> None:
        at_the_end.wait()
        for record in records[3:]:
            os.write(writer, record)
        os.close(writer)

    thread = threading.Thread(target=go_on)
    thread.start()
    found = looked(quiet, read=read, quiet_s=30)
    thread.join()
    os.close(reader)
    assert found.reports == 1
    assert record_of(quiet).endswith(b"---[ end trace 0000000000000000 ]---\n")


def test_a_report_without_an_end_is_not_waited_for_in_a_plain_file(quiet: Root) -> None:
    """Nothing more will come: what there is, is archived."""
    write_log(quiet, devkmsg.records(oopses(1)[:4]))
    assert looked(quiet, quiet_s=30).harvest_id is not None
    assert record_of(quiet).endswith(b"Not tainted 6.12.1 #1\n")


def test_a_huge_log_is_cut_to_its_newest(quiet: Root) -> None:
    """log_buf_len may be 64 MiB: memory and archive have a bound, and the report is there."""
    chatter = [Message(KERN_INFO, n, "T1", f"usb {n}: {'x' * 900}") for n in range(9000)]
    write_log(quiet, devkmsg.records([*chatter, *oopses(1)]))
    assert looked(quiet).reports == 1
    data = record_of(quiet)
    assert kernellog.MAX_TEXT - 2000 < len(data) <= kernellog.MAX_TEXT
    assert data.endswith(b"---[ end trace 0000000000000000 ]---\n")


def test_a_log_of_tiny_lines_is_cut_to_its_newest(quiet: Root) -> None:
    """Each takes as much memory as a long one."""
    chatter = [Message(KERN_INFO, n, "T1", "\n" * 1000) for n in range(60)]
    write_log(quiet, devkmsg.records([*chatter, *oopses(1)]))
    assert looked(quiet).reports == 1
    assert kernellog.MAX_LINES - 2000 < record_of(quiet).count(b"\n") <= kernellog.MAX_LINES


@pytest.mark.parametrize(
    "junk", [b"", b"\0" * 100_000, b"6,1,2,-;" + b"x" * 200_000 + b"\n", b"\n" * 9999, b",;" * 9999]
)
def test_any_bytes_before_and_behind_hide_no_report(junk: bytes, quiet: Root) -> None:
    """Lines that no kernel gives, longer than any: passed over."""
    records = b"".join(devkmsg.records(oopses(1), first=10))
    (quiet.path / "dev/kmsg").write_bytes(junk + b"\n" + records + junk)
    assert looked(quiet).reports == 1


# -- then from pstore


@pytest.mark.parametrize("stamp", ["pstored: boot ", ""], ids=["stamped", "not stamped"])
@pytest.mark.parametrize("backend", ["efi_pstore", "erst", "ramoops", "pstore_blk"])
def test_the_same_oops_in_pstore_is_the_same_crash(backend: str, stamp: str, story: Callable[..., Story]) -> None:
    """Shown by the next boot: records of both in it, not one line doubled, and nothing is told again."""
    told_once = story(backend=backend, stamp_prefix=stamp)
    root = told_once.root
    records = told_once.log(END)
    assert told_once.collect() == 0
    first = report(root)
    assert len(sent(root)) == 1
    run_boot(root, NEXT)
    shown = told_once.show()
    assert told_once.collect() == 0
    crash = report(root)
    assert (crash["id"], crash["revision"]) == (first["id"], 1)
    assert sent(root) == [f"{first['id']} 1"]
    assert {r["name"] for r in crash["records"]} == {*shown, f"dmesg-kmsg-{len(records) - 1}"}
    assert (crash["boot"]["id"], crash["boot"]["method"]) == (told_once.boot.boot_id, "kmsg")
    assert (crash["severity"], crash["backend"], crash["complete"]) == ("oops", backend, True)
    assert [d["reason"] for d in crash["dumps"]] == [None, "Oops"]
    lines = (root.crashes()[0] / "dmesg.txt").read_bytes().splitlines()
    assert len(lines) == len(set(lines))
    assert (root.crashes()[0] / "dmesg.txt").read_bytes() == record_of(root, 0)


@pytest.mark.parametrize(
    "damage", [(), ("flip",), ("zeros",), ("truncate",)], ids=["whole", "flip", "zeros", "truncate"]
)
@pytest.mark.parametrize(
    "missing", [frozenset(), frozenset((2,)), frozenset((1,))], ids=["all", "without 2", "without 1"]
)
def test_a_poor_record_of_a_known_oops_is_nothing_new(
    missing: frozenset[int], damage: tuple[str, ...], story: Callable[..., Story]
) -> None:
    """A part is missing, or bits are wrong: the log has it all, so nothing is told again, and no line is doubled."""
    poor = story(backend="efi_pstore", missing_parts=missing, damage=damage)
    root = poor.root
    poor.log(END)
    assert poor.collect() == 0
    text = (root.crashes()[0] / "dmesg.txt").read_bytes()
    run_boot(root, NEXT)
    poor.show()
    poor.collect()
    crash = report(root)
    assert crash["revision"] == 1
    assert len(sent(root)) == 1
    assert (root.crashes()[0] / "dmesg.txt").read_bytes() == text


@pytest.mark.parametrize("name", ["lk-WRITE_RO", "lk-HUNG_TASK", "lk-LOOP", "lk-CORRUPT_STACK", "lab-erst"])
def test_a_real_record_joins_the_log_it_was_made_from(name: str, root: MakeRoot, tmp_path: Path) -> None:
    """A capture's own dump as the running kernel's log; then the capture: one crash, told once but for its panic."""
    made = root(name)
    loaded = capture.load(name)
    (boot_id,) = set(loaded.stamped_boot_ids) or {loaded.crash_boot_id}
    other = root(name)
    assert run_killed(other, *LOOK[:-1]).status in (0, 1)
    whole = (other.crashes()[0] / "dmesg.txt").read_bytes()
    messages = [
        devkmsg.record(
            Message((line.facility or 0) * 8 + (line.level or 0), (line.time_ns or 0) // 1000, line.caller or "T0", ""),
            n,
        ).rstrip(b"\n")
        + line.text.replace(b"\\", b"\\x5c").replace(b"\t", b"\\x09")
        + b"\n"
        for n, line in enumerate(parse_kmsg(whole))
        if not line.text.startswith(b"Kernel panic")
    ]
    shutil.move(made.store, tmp_path / "aside")
    made.store.mkdir()
    now = (made.path / "proc/sys/kernel/random/boot_id").read_text().strip()
    run_boot(made, boot_id)
    write_log(made, messages)
    made.configure((made.path / "etc/pstored.conf").read_text() + "[journal]\nenabled = true\n")
    run_killed(made, *LOOK)
    first = report(made)
    assert (first["boot"]["id"], first["severity"], first["revision"]) == (boot_id, "oops", 1)
    run_boot(made, now)
    shutil.copytree(tmp_path / "aside", made.store, dirs_exist_ok=True)
    run_killed(made, *LOOK)
    crash = report(made)
    wanted = json.loads((other.crashes()[0] / "crash.json").read_bytes())
    assert crash["severity"] == wanted["severity"]
    assert crash["title"] == wanted["title"]
    assert crash["revision"] == (2 if wanted["severity"] == "panic" else 1)
    lines = [line for line in (made.crashes()[0] / "dmesg.txt").read_bytes().splitlines() if b"]" in line]
    assert len(lines) == len(set(lines)) or len(whole.splitlines()) - len(set(whole.splitlines()))


def test_shown_in_the_same_boot_it_is_told_once(story: Callable[..., Story]) -> None:
    """pstore.update_ms, or a remount: one collection finds both; what pstore has stays until it is safe to erase."""
    both = story(backend="ramoops")
    both.log(END)
    both.show()
    assert both.collect() == 1  # deferred: an oops has happened in this boot
    assert len(sent(both.root)) == 1
    assert both.root.names() == ["dmesg-ramoops-0"]
    crash = report(both.root)
    assert (crash["revision"], [d["reason"] for d in crash["dumps"]]) == (1, [None, "Oops"])
    assert crash["records"][-1]["outcome"] == "deferred"
    both.collect()
    assert len(sent(both.root)) == 1
    assert len(both.root.harvests()) == 2


def test_what_pstore_has_told_already_is_not_taken_from_the_log(story: Callable[..., Story]) -> None:
    """Collected from the store first, of this boot by its stamp: the log has nothing new."""
    known = story(backend="efi_pstore")
    known.log(END)
    known.show()
    known.collect(kernel_log=False)
    assert report(known.root)["boot"]["method"] == "stamp"
    known.log(END)
    known.collect()
    assert len(known.root.harvests()) == len(sent(known.root)) == 1


@pytest.mark.parametrize("backend", ["efi_pstore", "erst", "ramoops"])
def test_a_panic_after_it_is_told_as_more(backend: str, story: Callable[..., Story]) -> None:
    """Revision 2, a panic; what oops and panic share stands once."""
    dies = story("oops-panic", backend=backend)
    dies.log(END)
    assert dies.collect() == 0
    first = report(dies.root)
    assert (first["severity"], first["revision"]) == ("oops", 1)
    run_boot(dies.root, NEXT)
    dies.show()
    assert dies.collect() == 0
    crash = report(dies.root)
    assert (crash["id"], crash["revision"], crash["severity"]) == (first["id"], 2, "panic")
    assert [d["reason"] for d in crash["dumps"]] == [None, "Oops", "Panic"]
    assert sent(dies.root) == [f"{first['id']} 1", f"{first['id']} 2"]
    lines = (dies.root.crashes()[0] / "dmesg.txt").read_bytes().splitlines()
    assert len(lines) == len(set(lines))
    assert not any(line.startswith(b"---") for line in lines)


def test_a_panic_that_only_the_console_saw_is_told_as_more(story: Callable[..., Story]) -> None:
    """No dump of it is stored."""
    dies = story("console-only-crash", backend="ramoops")
    dies.log(END)
    dies.collect()
    assert report(dies.root)["severity"] == "oops"
    run_boot(dies.root, NEXT)
    dies.show()
    dies.collect()
    crash = report(dies.root)
    assert (crash["revision"], crash["severity"]) == (2, "panic")


def test_the_wall_clock_set_in_between_puts_nothing_out_of_order(story: Callable[..., Story]) -> None:
    """The dumps bear a time of 1970, the look came when the clock was right; the panic is the end all the same."""
    dies = story("oops-panic", backend="pstore_blk")
    dies.log(END)
    dies.collect()
    run_boot(dies.root, NEXT)
    for name in dies.show():
        path = dies.root.store / name
        write_record(path, path.read_bytes(), 25 * 10**9)
    dies.collect()
    crash = report(dies.root)
    assert (crash["severity"], crash["dumps"][-1]["reason"]) == ("panic", "Panic")
    assert "missing" not in crash["title"]


def test_two_oopses_and_their_records_are_one_crash(story: Callable[..., Story]) -> None:
    """Each told when it happened, and pstore's records of both are nothing new."""
    two = story("two-oopses", backend="erst")
    for nth in (1, 2):
        two.log(END, nth)
        assert two.collect() == 0
    assert report(two.root)["revision"] == len(sent(two.root)) == 2
    text = (two.root.crashes()[0] / "dmesg.txt").read_bytes()
    run_boot(two.root, NEXT)
    two.show()
    assert two.collect() == 0
    crash = report(two.root)
    assert (crash["revision"], len(sent(two.root))) == (2, 2)
    assert [d["reason"] for d in crash["dumps"]] == [None, "Oops", None, "Oops"]
    assert (two.root.crashes()[0] / "dmesg.txt").read_bytes() == text


def test_a_second_oops_that_only_pstore_saw_is_told(story: Callable[..., Story]) -> None:
    """The daemon was gone by then."""
    two = story("two-oopses", backend="erst")
    two.log(END)
    two.collect()
    run_boot(two.root, NEXT)
    two.show()
    two.collect()
    assert report(two.root)["revision"] == len(sent(two.root)) == 2


def test_an_orderly_end_after_it_does_not_unmake_it(story: Callable[..., Story]) -> None:
    """The boot goes on and is rebooted: its console is no crash, and the oops stays one."""
    lives = story("console-only-clean", backend="ramoops")
    messages = [*up_to(lives.boot.messages, "pstored: boot")]
    last_s = messages[-1].time_us // 10**6
    write_log(lives.root, devkmsg.records([*messages, *oopses(1, first_s=last_s)[1:]]))
    lives.collect()
    before = report(lives.root)
    assert before["severity"] == "oops"
    run_boot(lives.root, NEXT)
    lives.show()
    assert run_killed(lives.root, *LOOK).status == 0
    assert report(lives.root) == before


def test_doing_all_again_gives_the_same(story: Callable[..., Story]) -> None:
    """Reports, texts and revisions."""
    dies = story("oops-panic", backend="erst")
    dies.log(END)
    dies.collect()
    run_boot(dies.root, NEXT)
    dies.show()
    dies.collect()
    before = told(dies.root), [p.read_bytes() for p in sorted(dies.root.crashes()[0].glob("*.txt"))]
    assert run_killed(dies.root, "analyze", "--all").status == 0
    assert (told(dies.root), [p.read_bytes() for p in sorted(dies.root.crashes()[0].glob("*.txt"))]) == before
    assert len(sent(dies.root)) == 2


# -- killed


def test_killed_at_every_step_it_is_archived_and_told_once(quiet: Root, tmp_path: Path) -> None:
    """Whatever step a look is killed at, the next one ends with one harvest, one crash, told once."""
    write_log(quiet, devkmsg.records(oopses(1)))
    kills = 0
    for at, root, ran in kill_everywhere(quiet, tmp_path, *LOOK):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        assert run_killed(root, *LOOK).status == 0, where
        assert len(root.harvests()) == len(root.crashes()) == len(sent(root)) == 1, where
        assert report(root)["revision"] == 1, where
        assert not root.litter(), where
        assert run_killed(root, "verify").status == 0, where
    assert kills > 15


def test_killed_at_every_step_of_the_join_it_is_told_once(story: Callable[..., Story], tmp_path: Path) -> None:
    """The record of pstore comes, and the run is killed: in the end one crash of both, and nothing told again."""
    known = story(backend="ramoops")
    known.log(END)
    known.collect()
    run_boot(known.root, NEXT)
    known.show()
    kills = 0
    for at, root, ran in kill_everywhere(known.root, tmp_path, *LOOK):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        assert run_killed(root, *LOOK).status == 0, where
        assert len(report(root)["records"]) == 2, where
        assert report(root)["revision"] == len(sent(root)) == 1, where
    assert kills > 15
