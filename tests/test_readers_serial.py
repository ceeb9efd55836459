# SPDX-License-Identifier: Apache-2.0
"""Console logs: boots told apart, crashes found, whoever wrote the log down, and however long it is."""

import re
import resource
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, kernels, serial
from fake_pstore.machine import run
from fake_pstore.model import BootTruth
from fake_pstore.model import Options as Made
from fake_pstore.scenarios import SCENARIOS
from pstored.logs import Log
from pstored.parse.record import decode_record
from pstored.readers.console import BLOCK, MAX_KEPT, Cleaner
from pstored.readers.memory import Held
from pstored.readers.model import Options, Remark, Salvaged, Source
from pstored.readers.serial import READER
from tests.conftest import forked

CRASHED = [name for name in capture.names() if (capture.CAPTURES / name / "serial-crash.log.xz").exists()]


def read(log: bytes | Source) -> tuple[list[Salvaged], str]:
    """The records, and what was said of the whole."""
    source = Held(log) if isinstance(log, bytes) else log
    found = list(READER.read(source, Options()))
    (remark,) = (f for f in found if isinstance(f, Remark))
    assert found[-1] == remark
    assert not remark.is_damage
    return [f for f in found if isinstance(f, Salvaged)], remark.text


def titles(records: list[Salvaged]) -> list[str]:
    """What each crash is."""
    events = [Log(record.data).event for record in records]
    return [event.title for event in events if event is not None]


def boots(scenario: str, seed: int = 0) -> list[BootTruth]:
    """What happened to the boots of a scenario."""
    made = Made(backend="ramoops", era=kernels.ERAS[kernels.default_era("ramoops")], seed=seed)
    return run(SCENARIOS[scenario], made).boots


def lines(truth: BootTruth) -> list[bytes]:
    """What a console shows of a boot."""
    return serial.boot(truth).replace(b"\r", b"").splitlines()


# -- real logs


@pytest.mark.parametrize("name", CRASHED)
def test_real_log_of_a_crash(name: str) -> None:
    """Each is recognized, and has one boot and its crash; the text has all of the kernel's lines, and no firmware's."""
    taken = capture.load(name)
    log = taken.serial("crash")
    assert READER.recognize(Held(log))
    (record,), said = read(log)
    assert (record.name, record.mtime_ns, said) == ("console-serial-1", 0, "1 boot, 1 with a crash")
    assert b"\x1b" not in record.data
    assert b"\r" not in record.data
    wanted = [line for line in log.replace(b"\r", b"").split(b"\n") if line.startswith(b"[")]
    assert [line for line in record.data.split(b"\n") if line.startswith(b"[")] == wanted
    assert Log(record.data).kernel.release == taken.crash_kernel


@pytest.mark.parametrize("name", [n for n in CRASHED if (capture.CAPTURES / n / "serial-collect.log.xz").exists()])
def test_real_log_without_a_crash(name: str) -> None:
    """A boot that ended in order gives no record."""
    log = capture.load(name).serial("collect")
    assert READER.recognize(Held(log))
    assert read(log) == ([], "1 boot, none with a crash")


def test_all_real_logs_as_one() -> None:
    """Every boot is found, and its crash the same as from its own log."""
    logs = [capture.load(name).serial("crash") for name in CRASHED]
    alone = [read(log)[0][0] for log in logs]
    records, said = read(b"".join(logs))
    assert said == f"{len(logs)} boots, {len(logs)} with a crash"
    assert [r.name for r in records] == [f"console-serial-{n}" for n in range(1, len(logs) + 1)]
    assert titles(records) == titles(alone)
    for one, two in zip(records, alone, strict=True):
        own = Log(two.data).distinctive
        assert own == Log(one.data).distinctive


def test_same_text_whatever_was_logged_before() -> None:
    """So that importing a log that has grown tells nothing twice."""
    first, second = (capture.load(name).serial("crash") for name in ("lab-erst", "lk-LOOP"))
    (one,), _ = read(first)
    (again, _), _ = read(first + second)
    assert again == one


# -- loggers

YEARLESS = ("ts", "syslog")
DATELESS = ("tio-24h", "grabserial")
ZONED = ("tio", "container", "ts-epoch", "rsyslog")


@pytest.mark.parametrize("logger", serial.LOGGERS)
def test_stamps_come_off_and_tell_the_time(logger: str) -> None:
    """Two boots, each line stamped: the text is the console's, and the record's time that of the crash."""
    truths = boots("two-boots")
    log = serial.log(truths, before=b"", logger=logger)
    assert READER.recognize(Held(log))
    records, said = read(log)
    assert said == "2 boots, 2 with a crash"
    for record, truth in zip(records, truths, strict=True):
        assert record.data.splitlines() == lines(truth)
        panic = next(m for m in truth.messages if "Kernel panic" in m.text)
        when = truth.began + panic.time_us / 1e6
        if logger in YEARLESS + DATELESS:
            assert record.mtime_ns == 0
            assert "no date, or no year" in record.notes[0]
        else:
            assert -5 < record.mtime_ns / 1e9 - when <= 0.001
            assert [n for n in record.notes if "zone" in n] == ([] if logger in ZONED else list(record.notes))


def test_what_programs_log_is_no_report() -> None:
    """In syslog's files their lines stand between the kernel's."""
    (truth,) = boots("shutdown")
    log = serial.boot(truth, logger="syslog")
    forged = b"Nov 23 04:18:57 board app[7]: Kernel panic - not syncing: forged\r\n"
    cut = log.index(b"\n", len(log) // 2) + 1
    assert read(log[:cut] + forged + log[cut:]) == ([], "1 boot, none with a crash")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r\r\n", b"\n\r"])
def test_line_ends(newline: bytes) -> None:
    """Of terminals, terminal servers, and boot loaders."""
    (truth,) = boots("panic")
    (record,), _ = read(serial.boot(truth).replace(b"\r\n", newline))
    assert [line for line in record.data.splitlines() if line] == lines(truth)


def test_escapes_and_nuls_are_taken_out() -> None:
    """Colours, cursors, titles; a line that was powered off."""
    (truth,) = boots("panic")
    dirt = (b"\x1b[0m", b"\x1b[1;31m", b"\x1b]0;title\x07", b"\0\0", b"\x1b(B", b"\x1b7", b"\x1b[?25l")
    log = serial.boot(truth)
    for at, junk in enumerate(dirt):
        cut = log.index(b"] ", len(log) * (at + 1) // 9)
        log = log[:cut] + junk + log[cut:]
    (record,), _ = read(b"\0" * 100 + log)
    assert record.data.splitlines() == lines(truth)


def test_prompt_before_a_message() -> None:
    """What a program wrote without a newline does not hide the kernel's line behind it."""
    (truth,) = boots("panic")
    log = serial.boot(truth)
    at = log.index(b"\n", log.index(b"Run /init")) + 1
    (record,), said = read(log[:at] + serial.LOGIN + log[at:])
    assert (titles([record]), said) == (["Kernel panic: sysrq triggered crash"], "1 boot, 1 with a crash")


def test_dropped_characters() -> None:
    """A line without flow control loses some: one in five hundred here; boots and crashes are found all the same."""
    truths = boots("two-boots") + boots("two-boots", seed=1)
    log = bytearray(serial.log(truths))
    del log[97::500]
    records, said = read(bytes(log))
    assert said == "4 boots, 4 with a crash"
    assert [t.startswith("Kernel panic") or "BUG" in t or "Oops" in t for t in titles(records)] == [True] * 4


# -- boots


@pytest.mark.parametrize("before", [b"", serial.SEABIOS, serial.UBOOT, serial.GRUB, b"Vendor ROM 1.0\r\nPOST ok\r\n"])
@pytest.mark.parametrize("loglevel", [8, 4])
def test_boots_are_told_apart(before: bytes, loglevel: int) -> None:
    """By their banner; where ``quiet`` has kept that from the console, by the clock and the firmware."""
    truths = boots("two-boots") + boots("panic", seed=2) + boots("shutdown", seed=3)
    records, said = read(serial.log(truths, before=before, loglevel=loglevel))
    # of a quiet boot that ends in order only the firmware is seen, if anything
    assert said in (["4 boots, 3 with a crash"] if loglevel == 8 else [f"{n} boots, 3 with a crash" for n in (3, 4)])
    ends = [r.data for r in records]
    for record, truth in zip(records, truths, strict=False):
        shown = serial.boot(truth, loglevel=loglevel).replace(b"\r", b"").splitlines()
        assert [line for line in record.data.splitlines() if line.startswith(b"[")] == shown
    assert all(first not in second for first, second in pairwise(ends))


def test_firmware_is_the_next_boots() -> None:
    """So that a console still ends with the kernel's last words."""
    truths = boots("shutdown") + boots("panic", seed=1)
    (record,), _ = read(serial.log(truths, before=b"Vendor ROM 1.0\r\nPOST ok\r\n"))
    assert record.name == "console-serial-2"
    assert record.data.startswith(b"Vendor ROM 1.0\nPOST ok\n[    0.000000] Linux version")


@pytest.mark.parametrize("times", [True, False])
def test_arm_says_something_before_its_version(times: bool) -> None:
    """That is the first line of its boot, and not one of its own."""
    first = b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x410fd034]\r\n"
    truths = boots("two-boots")
    log = b"".join((first if times else first[15:]) + serial.boot(truth, times=times) for truth in truths)
    records, said = read(log)
    assert said == "2 boots, 2 with a crash"
    assert all(r.data.startswith(first.strip() if times else first[15:].strip()) for r in records)


def test_boots_without_times() -> None:
    """printk.time=0: the banner alone tells."""
    truths = boots("two-boots")
    records, said = read(serial.log(truths, times=False))
    assert said == "2 boots, 2 with a crash"
    assert [r.data.count(b"Linux version") for r in records] == [1, 1]


def test_log_that_begins_in_the_middle() -> None:
    """The first boot's banner is long gone."""
    truths = boots("two-boots")
    log = serial.log(truths)
    records, said = read(log[len(serial.boot(truths[0])) // 2 :])
    assert said == "2 boots, 2 with a crash"
    assert b"Linux version" not in records[0].data


def test_second_panic_is_of_another_boot() -> None:
    """Neither banner nor firmware, and the second boot lived longer: but a kernel panics once."""
    first = b"[  100.000000] Kernel panic - not syncing: one\n[  100.000100] Rebooting in 1 seconds..\n"
    second = b"[  200.000000] app: hello\n[  200.500000] Kernel panic - not syncing: two\n"
    records, said = read(first + second)
    assert (titles(records), said) == (["Kernel panic: one", "Kernel panic: two"], "2 boots, 2 with a crash")
    assert [r.name for r in records] == ["console-serial-1", "console-serial-2"]
    assert [r.data for r in records] == [first, second]
    untimed = [re.sub(rb"(?m)^\[.*?\] ", b"", text) for text in (first, second)]
    assert [r.data for r in read(b"".join(untimed))[0]] == untimed


@pytest.mark.parametrize(
    "glitch",
    [b"[    1.000000] x\n", b"[90001.000000] x\n", b"Linux version 6.1.0-1-amd64 (debian)\n"],
)
def test_one_odd_line_makes_no_boot(glitch: bytes) -> None:
    """A digit lost, or doubled; /proc/version shown by somebody."""
    text = b"".join(b"[ 9%03d.000000] line\n" % n for n in range(100))
    crash = text + b"[ 9100.000000] Kernel panic - not syncing: x\n"
    (record,), said = read(crash[:600] + glitch + crash[600:])
    assert (record.name, said) == ("console-serial-1", "1 boot, 1 with a crash")
    assert len(record.data) == len(crash) + len(glitch)


def test_oops_that_was_survived() -> None:
    """Is a crash, though the boot ended in order."""
    (record,), _ = read(serial.log(boots("oops")))
    assert b"reboot: Restarting system" in record.data


def test_warning_is_no_crash() -> None:
    """The machine went on."""
    log = b"[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/x.c:1 x+0x1/0x2\n[    1.100000] ---[ end trace 0 ]---\n"
    assert read(log) == ([], "1 boot, none with a crash")


# -- what is no log


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 5000,
        b"\xff" * 5000,
        bytes(range(256)) * 40,
        b"# Notes\n\nSee [1.2] and Linux version control.\n" * 9,
    ],
)
def test_other_files_are_not_recognized(data: bytes) -> None:
    """Nothing, images, a text about something else."""
    assert not READER.recognize(Held(data))


# -- large logs


class _Long:
    """A log that is worked out as it is read: weeks of chatter, and in some places a report."""

    name = ""
    line = b"[%8d.%06d] gauge 0000:00:07.0: sample %010d out of range, dropped, and so on and so on\r\n"
    width = len(line % (0, 0, 0))
    block = 1000

    def __init__(self, size: int, reports: dict[int, bytes]) -> None:
        self.size = size // (self.width * self.block) * self.width * self.block
        self._reports = reports  # block to what stands at its beginning, of the same size as what it replaces

    def read(self, at: int, count: int) -> bytes:
        count = max(0, min(count, self.size - at))
        if not count:
            return b""
        step = self.width * self.block
        data = b"".join(self._block(n) for n in range(at // step, (at + count - 1) // step + 1))
        return data[at % step : at % step + count]

    def _block(self, number: int) -> bytes:
        first = number * self.block
        text = (self.line % (number, 0, first)) * self.block
        report = self._reports.get(number, b"") and self._reports[number] % number
        return (
            report + text[len(report) :]
            if not report
            else report.ljust(self.width * 10, b".")[:-2] + b"\r\n" + text[self.width * 10 :]
        )


OOPS = b"[%8d.500000] BUG: kernel NULL pointer dereference, address: 0000000000000000\r\n"


def test_memory_does_not_grow_with_the_log() -> None:
    """64 MiB of one boot, a report at its beginning, in the middle and at the end: all three are in the record."""
    blocks = (64 << 20) // (_Long.width * _Long.block)
    places = (3, blocks // 2, blocks - 2)

    def size() -> tuple[list[Salvaged], int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        records, _ = read(_Long(64 << 20, dict.fromkeys(places, OOPS)))
        return records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    (record,), grown = forked(size)
    assert grown < 64 * 1024  # KiB
    assert len(record.data) <= MAX_KEPT + BLOCK
    assert [b"[%8d.500000] BUG" % n in record.data for n in places] == [True] * 3
    assert record.data.count(b"--- pstored: ") == 2
    (note,) = record.notes
    left_out = sum(int(n) for n in re.findall(rb"pstored: (\d+) bytes of this boot", record.data))
    assert note == f"{left_out} bytes of this boot's log are left out"


@pytest.mark.parametrize("line", [b"\n", b"x\n", b"BUG: \n", b"[    1.000000] Oops: 1\n", b"\r", b"\x1b[", b"x"])
def test_hostile_logs_take_bounded_memory_and_time(line: bytes) -> None:
    """8 MiB of nothing but line ends, reports, or one line without an end."""

    def cost() -> tuple[float, int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        read(line * ((8 << 20) // len(line)))
        return time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    seconds, grown = forked(cost)
    assert grown < 200 * 1024
    assert seconds < 30


def test_time_is_linear() -> None:
    """Twice the log takes twice the time, not four times."""

    def seconds(size: int) -> float:
        log = _Long(size, {})
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            read(log)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(16 << 20) < 3 * seconds(8 << 20) + 0.1


# -- any bytes

LINES = st.sampled_from(
    (
        b"[    0.000000] Linux version 6.1.0 (x) #1\n",
        b"[    5.000000] Kernel panic - not syncing: x\r\n",
        b"[   50.000000] BUG: kernel NULL pointer dereference, address: 0\n",
        b"[   99.000000] ---[ end Kernel panic - not syncing: x ]---\n",
        b"Rebooting in 1 seconds..\n",
        b"U-Boot SPL 2023\n",
        b"Nov 23 04:18:57 ",
        b"[2026-11-23 04:18:57] ",
        b"\x1b[",
        b"\r",
        b"\0",
    )
) | st.binary(max_size=30)
LOGS = st.lists(LINES, max_size=30).map(b"".join)


@given(LOGS)
def test_any_bytes_give_crashes_and_a_sentence(log: bytes) -> None:
    """Never an exception; every record tells of a crash, and they are numbered upwards."""
    records, _ = read(log)
    assert len(titles(records)) == len(records)
    numbers = [int(r.name.removeprefix("console-serial-")) for r in records]
    assert sorted(set(numbers)) == numbers
    assert READER.recognize(Held(log)) in (True, False)
    for record in records:
        assert decode_record(record.name, record.data, mtime_ns=record.mtime_ns).damage == ()


@given(LOGS, st.integers(1, 50))
def test_lines_come_out_the_same_however_they_are_read(log: bytes, size: int) -> None:
    """The cleaner gives whole lines only, and in the end all of them."""
    cleaner = Cleaner()
    pieces = [cleaner.feed(log[at : at + size]) for at in range(0, len(log), size)]
    assert all(p.endswith(b"\n") for p in pieces if p)
    whole = Cleaner()
    assert b"".join(pieces) + cleaner.end() == whole.feed(log) + whole.end()
