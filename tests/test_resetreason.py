# SPDX-License-Identifier: Apache-2.0
"""What hardware and firmware say of the last reset, and what it means."""

import struct
from pathlib import Path

import pytest

from pstored.host import Host
from pstored.resetreason import (
    BERT,
    CHOSEN,
    DEPTH,
    KMSG,
    MAX_DIRECTORIES,
    PLATFORM,
    WATCHDOGS,
    Clue,
    meaning,
    reset_clues,
)


def tree(tmp_path: Path, files: dict[str, str | bytes]) -> Host:
    """A root with these files of /sys and /proc."""
    for name, content in files.items():
        path = tmp_path / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Host(str(tmp_path))


def bert(length: int, severity: int, status: int = 0) -> bytes:
    """A generic error status block; the kernel has zeroed its status."""
    return struct.pack("<5I", status, 0, 0, length, severity) + bytes(length)


AMD = (
    "6,1,0,-;Linux version 6.16.0\n"
    "6,340,5000,-;x86/amd: Previous system reset reason [0x08000800]: an uncorrected error caused a data fabric sync "
    "flood event\n"
)


@pytest.mark.parametrize(
    ("name", "content", "means", "says"),
    [
        (f"{WATCHDOGS}/watchdog0/bootstatus", "32\n", "watchdog", "0x20: card previously reset the CPU"),
        (f"{WATCHDOGS}/watchdog1/bootstatus", "33\n", "watchdog", "0x21: reset due to CPU overheat, card previously"),
        (f"{WATCHDOGS}/watchdog0/bootstatus", "16\n", "power", "power fault"),
        (f"{PLATFORM}/soc/f8048000.rstc/power_on_reason", "watchdog timeout\n", "watchdog", "watchdog timeout"),
        (f"{PLATFORM}/rstc/power_on_reason", "brown-out reset\n", "power", "brown-out reset"),
        (f"{PLATFORM}/7000e400.pmc/reset_reason", "TEGRA_POWER_ON_RESET\n", "power", "TEGRA_POWER_ON_RESET"),
        (f"{PLATFORM}/7000e400.pmc/reset_reason", "SOFTWARE\n", "software", "SOFTWARE"),
        (f"{PLATFORM}/7000e400.pmc/reset_reason", "SENSOR\n", "hardware", "SENSOR"),
        (f"{CHOSEN}/u-boot,bootreason", "WDOG\0", "watchdog", "WDOG"),
        (f"{CHOSEN}/reset-cause", "POR\0", "power", "POR"),
        ("/proc/cmdline", "quiet androidboot.bootreason=kernel_panic rw\n", "software", "kernel_panic"),
        ("/proc/bootconfig", 'androidboot.bootreason = "watchdog"\n', "watchdog", "watchdog"),
        (KMSG, AMD, "hardware", "data fabric sync flood"),
        (KMSG, "4,7,91000,-;AT91: Starting after watchdog reset\n", "watchdog", "watchdog reset"),
        (KMSG, "6,8,1000000,-,caller=T1;pmic: reset reason: brownout\n", "power", "brownout"),
        (BERT, bert(200, 1), "hardware", "200 bytes of fatal hardware errors"),
        (BERT, bert(200, 2), "other", "corrected"),
    ],
)
def test_each_source_is_read(tmp_path: Path, name: str, content: str | bytes, means: str, says: str) -> None:
    """One clue, with its source, its words, and what they come to."""
    (clue,) = reset_clues(tree(tmp_path, {name: content}))
    assert name in clue.source
    assert says in clue.says
    assert clue.means == means


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (f"{WATCHDOGS}/watchdog0/bootstatus", "0\n"),
        (f"{WATCHDOGS}/watchdog0/bootstatus", "garbage"),
        (f"{WATCHDOGS}/watchdog0/bootstatus", "9" * 500),
        (f"{WATCHDOGS}/watchdog0/bootstatus", "64512\n"),  # none of the bits that mean a cause
        (f"{PLATFORM}/x/power_on_reason", b"\xff\x1b[2J"),
        (f"{PLATFORM}/a/b/c/d/e/reset_reason", "too deep"),
        (f"{CHOSEN}/bootargs", "root=/dev/sda1"),
        ("/proc/cmdline", "root=/dev/sda1 rebootreason_x=1"),
        (KMSG, "12,9,5000000,-;init: reset reason: watchdog\n"),  # user space wrote it
        (KMSG, "6,9,5000000,-;sd 0:0:0:0: reset in progress\n"),
        (KMSG, b"\x00garbage;reset reason: watchdog"),
        (BERT, b""),
        (BERT, bert(0, 1)),
        (BERT, b"short"),
    ],
)
def test_what_says_nothing_is_no_clue(tmp_path: Path, name: str, content: str | bytes) -> None:
    """Drivers that report nothing, damage, what is none of ours."""
    assert reset_clues(tree(tmp_path, {name: content})) == ()


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    """Most have none."""
    assert reset_clues(Host(str(tmp_path))) == ()


def test_several_sources_are_all_given(tmp_path: Path) -> None:
    """They may contradict each other; that is for whoever judges."""
    files: dict[str, str | bytes] = {f"{WATCHDOGS}/watchdog{n}/bootstatus": "32" for n in range(2)}
    clues = reset_clues(tree(tmp_path, files | {f"{PLATFORM}/a/reset_reason": "button"}))
    assert [c.means for c in clues] == ["watchdog", "watchdog", "other"]


def test_the_walk_is_bounded_and_follows_no_link(tmp_path: Path) -> None:
    """A link to the top is not followed; a tree of many devices is given up, not walked for seconds."""
    host = tree(tmp_path, {f"{PLATFORM}/a/reset_reason": "x"})
    (tmp_path / PLATFORM.lstrip("/") / "loop").symlink_to("..")
    assert reset_clues(host) == (Clue(f"{PLATFORM}/a/reset_reason", "x", "other"),)
    for number in range(MAX_DIRECTORIES + 10):
        (tmp_path / PLATFORM.lstrip("/") / f"device{number:05d}").mkdir()
    reset_clues(host)
    assert DEPTH == 3


@pytest.mark.parametrize(
    ("words", "means"),
    [
        ("watchdog reset", "watchdog"),
        ("imx2-wdt", "watchdog"),
        ("power-up", "power"),
        ("cold boot", "power"),
        ("reboot,shell", "software"),
        ("warm", "software"),
        ("thermal trip", "hardware"),
        ("pin reset", "other"),
        ("", "other"),
    ],
)
def test_words_and_what_they_come_to(words: str, means: str) -> None:
    """Vendors' words, several spellings."""
    assert meaning(words) == means
