# SPDX-License-Identifier: Apache-2.0
"""Logs compared: are they of one boot, which stamps do they bear, what do they say of their kernel."""

import random
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, dump, kernels, klog
from pstored.logs import KEPT_LINES, MAX_LINES, Kernel, Log
from tests.conftest import forked

PREFIX = "pstored: boot "
BOOT = "29ba41b6-8626-4f73-9871-3d09cbfdd92a"
OTHER = "f3c134ae-dde4-4a87-867b-251d1180ad3d"


def boot_log(seed: int, *, times: bool = True) -> list[bytes]:
    """The lines of a made-up boot, as a dump has them."""
    log = klog.Log(kernels.ERAS["6.1"], random.Random(seed))
    klog.start(log, backend="efi", boot_id=BOOT, began=1_795_000_000, clock_text="2026", stamp_prefix="")
    klog.fill(log, 2000)
    return [dump.syslog_lines(message, times=times) for message in log.messages]


def console(lines: list[bytes]) -> bytes:
    """The same lines as a console has them: without level."""
    return b"".join(line.partition(b">")[2] for line in lines)


def captured_dumps(name: str) -> list[Log]:
    """The dumps of a capture whose dumps have one part."""
    records = [data for file, data, _ in capture.load(name).records("truth") if file.startswith("dmesg")]
    return [Log(data.split(b"\nECC: ")[0].partition(b"\n")[2]) for data in records]


# -- one boot or two


def test_a_log_is_of_one_boot_with_itself_and_its_console() -> None:
    """All of it, its end alone, and the console's form of it."""
    lines = boot_log(1)
    log = Log(b"".join(lines))
    assert log.same_boot(Log(b"".join(lines))) is True
    assert log.same_boot(Log(b"".join(lines[40:]))) is True
    assert log.same_boot(Log(console(lines[:60]))) is True


def test_a_console_that_lost_a_line_is_still_of_the_same_boot() -> None:
    """A partial first line, and one in fifty lost."""
    lines = boot_log(1)
    text = console([line for at, line in enumerate(lines) if at % 50 != 7])
    assert Log(b"".join(lines)).same_boot(Log(text[17:])) is True


def test_logs_of_two_boots_are_told_apart() -> None:
    """The same machine, the same messages, other microseconds."""
    assert Log(b"".join(boot_log(1))).same_boot(Log(b"".join(boot_log(2)))) is False


def test_lines_at_time_zero_prove_nothing() -> None:
    """Banner and command line stand at 0.000000 in every boot."""
    same = b"".join(b"<6>[    0.000000] line %d\n" % n for n in range(50))
    first = same + b"".join(boot_log(1)[40:80])
    second = same + b"".join(boot_log(2)[40:80])
    assert Log(first).same_boot(Log(second)) is False
    assert Log(same).same_boot(Log(same)) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"", b""),
        (b"<6>no times\n" * 20, b"<6>no times\n" * 20),
        (b"<6>[    1.000000] a\n<6>[    2.000000] b\n", b"<6>[    1.000000] a\n<6>[    2.000000] b\n"),
        (b"".join(boot_log(1)[:30]), b"".join(boot_log(1)[40:])),
    ],
    ids=["empty", "printk.time=0", "two lines", "no overlap"],
)
def test_too_little_overlap_says_nothing(first: bytes, second: bytes) -> None:
    """Neither yes nor no: who asks must decide by other means."""
    assert Log(first).same_boot(Log(second)) is None


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_comparing_is_symmetric_and_never_wrong_for_one_boot(a: int, b: int, c: int, d: int) -> None:
    """Any two stretches of one boot's log are of one boot, or nothing is said; whoever is asked."""
    lines = boot_log(1)
    first, second = Log(b"".join(lines[min(a, b) : max(a, b)])), Log(b"".join(lines[min(c, d) : max(c, d)]))
    answer = first.same_boot(second)
    assert answer in (True, None)
    assert second.same_boot(first) is answer


@pytest.mark.parametrize("name", [n for n in capture.names() if n.startswith("lab-enc-")])
def test_real_oops_and_panic_dumps_are_of_one_boot(name: str) -> None:
    """The two dumps of a real crash overlap; those of two real crashes do not."""
    oops, panic = captured_dumps(name)
    assert oops.same_boot(panic) is True
    for other in [n for n in capture.names() if n.startswith("lab-enc-") and n != name]:
        assert oops.same_boot(captured_dumps(other)[1]) is False


# -- stamps


@pytest.mark.parametrize(
    "line",
    [
        b"<12>[    5.000000] " + PREFIX.encode() + BOOT.encode(),
        b"<13>[    5.000000] " + PREFIX.encode() + BOOT.encode(),
        b"<12>[    5.000000][  T300] " + PREFIX.encode() + BOOT.encode(),
        b"[    5.000000] " + PREFIX.encode() + BOOT.encode(),
        b"[    5.000000] " + PREFIX.encode() + BOOT.encode() + b"\r",
        b"<12>" + PREFIX.encode() + BOOT.encode(),
        PREFIX.encode() + BOOT.encode(),
    ],
)
def test_a_stamp_is_found_in_dumps_consoles_and_pmsg(line: bytes) -> None:
    """With and without level, time, caller."""
    assert Log(b"<6>[    4.000000] before\n" + line + b"\n").stamps(PREFIX) == [BOOT]


@pytest.mark.parametrize(
    "line",
    [
        b"<6>[    5.000000] " + PREFIX.encode() + BOOT.encode(),  # by the kernel: user space cannot write facility 0
        b"<12>[    5.000000] x " + PREFIX.encode() + BOOT.encode(),
        b"<12>[    5.000000] " + PREFIX.encode() + BOOT.upper().encode(),
        b"<12>[    5.000000] " + PREFIX.encode() + BOOT[:-1].encode(),
        b"<12>[    5.000000] " + PREFIX.encode() + BOOT.encode() + b"0",
        b"<12>[    5.000000] " + PREFIX.encode() + b"\x1b[2J" + BOOT.encode(),
        b"<12>[    5.000000] " + PREFIX.encode(),
        b"<12>[    5.000000] another: " + BOOT.encode(),
    ],
)
def test_what_is_no_stamp_is_not_taken_for_one(line: bytes) -> None:
    """A wrong stamp names a wrong boot: only the whole line counts."""
    assert Log(line + b"\n").stamps(PREFIX) == []


def test_all_stamps_are_given_in_order() -> None:
    """More than one is a conflict, and whoever attributes must see it."""
    lines = [f"<12>[    {n}.000000] {PREFIX}{boot}\n" for n, boot in enumerate([OTHER, BOOT, OTHER])]
    assert Log("".join(lines).encode()).stamps(PREFIX) == [OTHER, BOOT]


# -- the kernel


def test_the_kernel_is_known_from_its_first_lines() -> None:
    """Release, version, banner, command line, machine."""
    banner = b"Linux version 6.1.0-56-amd64 (d@debian.org) (gcc-12 (D 12.2), GNU ld 2.4) #1 SMP PREEMPT (2026-11-20)"
    rest = b"<6>[    0.000000] Command line: a=1 b\n<6>[    0.000000] DMI: QEMU PC, BIOS 1\n"
    log = Log(b"<5>[    0.000000] %s\n" % banner + rest)
    assert log.kernel == Kernel(
        release="6.1.0-56-amd64",
        version="#1 SMP PREEMPT (2026-11-20)",
        banner=banner.decode(),
        cmdline="a=1 b",
        hardware="QEMU PC, BIOS 1",
    )


@pytest.mark.parametrize(
    "line",
    [
        b"CPU: 1 PID: 83 Comm: init Tainted: G      D            6.1.192-pstorelab #1",
        b"CPU: 0 UID: 0 PID: 83 Comm: init Not tainted 6.1.192-pstorelab #1",
        b"CPU: 0 PID: 1 Comm: a 5.4 #2 b Not tainted 6.1.192-pstorelab #1",
    ],
)
def test_without_its_banner_the_release_is_known_from_an_oops(line: bytes) -> None:
    """The beginning of the log is gone: no version, no banner, and the release from the line that has it."""
    kernel = Log(b"<4>[    9.000000] " + line + b"\n<4>[    9.000001] Hardware name: Board\n").kernel
    assert kernel == Kernel(release="6.1.192-pstorelab", version=None, banner=None, cmdline=None, hardware="Board")


def test_a_log_that_says_nothing_of_its_kernel_gives_nothing() -> None:
    """Absent is None."""
    assert Log(b"<6>[    1.000000] text\n").kernel == Kernel(
        release=None, version=None, banner=None, cmdline=None, hardware=None
    )


@given(st.binary(max_size=300))
def test_any_bytes_can_be_asked(data: bytes) -> None:
    """Nothing raises."""
    log = Log(data)
    assert log.kernel is not None
    assert log.stamps("") is not None
    assert log.same_boot(Log(data + b"\n")) in (True, None)


HOSTILE = {
    "Linux version": b"Linux version a " * 60_000,
    "CPU": b"CPU: 1 PID: 1 Comm: " * 50_000,
    "release": b"CPU: 1 PID: 1 Comm: " + b"1.1" * 300_000,
    "release and number": b"CPU: 1 PID: 1 Comm: a " + b"1.1 " * 250_000 + b"x",
    "hash": b"Linux version a " + b"#" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_on_one_line_is_searched_in_bounded_time(name: str) -> None:
    """A damaged record, or one that somebody wrote into pmsg, cannot stop the analysis: 3 s of CPU are plenty."""

    def search() -> bool:
        resource.setrlimit(resource.RLIMIT_CPU, (3, 3))
        return Log(HOSTILE[name]).kernel is not None

    assert forked(search)


def test_long_logs_are_not_all_kept() -> None:
    """Of many long ones, the lines of one at a time; they are the last, and the same whenever they are asked for."""
    texts = [b"".join(b"[    1.%06d] %d\n" % (n, which) for n in range(MAX_LINES + 5)) for which in range(2)]
    first, second = map(Log, texts)
    lines = first.lines
    assert (len(lines), lines[0].time_ns) == (MAX_LINES, 1_000_005_000)
    assert first.lines is lines
    assert second.lines[0].text == b"1"
    assert first.lines is not lines
    assert first.lines == lines
    assert len(first.distinctive) <= KEPT_LINES
