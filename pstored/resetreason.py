# SPDX-License-Identifier: Apache-2.0
"""Why the machine came up again, as far as its hardware and firmware say: evidence of how the boot before ended.

Watchdog drivers' bootstatus, reset reasons of SoCs and boot loaders, ACPI's boot error record, and what the kernel's
log says of registers that reading has cleared.  Each board has few of these or none, and some say the same after an
orderly reboot: a clue is no proof.
"""

import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pstored.host import Host
from pstored.parse.devkmsg import Message, parse_devkmsg
from pstored.terminal import visible

WATCHDOGS = "/sys/class/watchdog"
# include/uapi/linux/watchdog.h, WDIOF_*
_BOOTSTATUS = (
    (0x01, "reset due to CPU overheat", "hardware"),
    (0x02, "fan failed", "hardware"),
    (0x04, "external relay 1", "other"),
    (0x08, "external relay 2", "other"),
    (0x10, "power bad, power fault", "power"),
    (0x20, "card previously reset the CPU", "watchdog"),
    (0x40, "power over voltage", "power"),
)
PLATFORM = "/sys/devices/platform"
REASON_FILES = frozenset(("power_on_reason", "reset_reason"))
"""at91 and others: Documentation/ABI/testing/sysfs-platform-power-on-reason; Tegra's pmc: sysfs-platform-tegra-pmc."""
DEPTH = 3
"""So deep below PLATFORM are they; the soc's bus is one level, the device the next."""
MAX_DIRECTORIES = 2000
CHOSEN = "/proc/device-tree/chosen"
_CHOSEN_NAME = re.compile(r"(?:.*[,-])?(?:boot|reset|power-on|poweron)-?(?:reason|cause|status)")
_CMDLINE = re.compile(r"(?:^|\s)((?:androidboot\.)?(?:bootreason|reset_reason|reset_cause))\s*=\s*\"?([^\s\"]{1,80})")
BERT = "/sys/firmware/acpi/tables/data/BERT"
_BERT = struct.Struct("<5I")
"""Generic error status block: status, raw offset, raw length, data length, severity (ACPI 6.5, 18.3.2.7.1)."""
_SEVERITIES = ("recoverable", "fatal", "corrected", "informational")
KMSG = "/dev/kmsg"
MAX_KMSG = 4 * 1024 * 1024
"""Drivers tell of it while the kernel boots, at the beginning of its log."""
_RECORD_MAX = 16 * 1024
"""One read of the device gives one message, and fails if there is less room than it may need (8 KiB)."""
# arch/x86/kernel/cpu/amd.c, print_s5_reset_status_mmio(): Previous system reset reason [0x00080800]: software wrote ...
# drivers/power/reset/at91-reset.c: Starting after watchdog reset; others: Reset reason: ..., last reset cause = ...
_KERNEL_SAYS = re.compile(
    rb"Previous system reset reason[^:]{0,20}: ([^\n]{1,200})|Starting after ([a-z0-9-]{1,30} reset)\b"
    rb"|(?:[Rr]eset|[Bb]oot)[ _-](?:reason|cause|source)(?: is)? ?[:=] ?([^\n]{1,200})"
)
_SHOWN = 80

_MEANINGS = (
    ("watchdog", re.compile(r"watchdog|\bwdt|\bwdog|\bwd_", re.IGNORECASE)),
    (
        "power",
        re.compile(r"brown|under.?volt|over.?volt|power.?(?:on|fail|loss|fault|up)|\bp[ow]r\b|cold", re.IGNORECASE),
    ),
    ("hardware", re.compile(r"therm|over.?heat|uncorrect|ecc|parity|machine.?check|bus.?error|sensor", re.IGNORECASE)),
    ("software", re.compile(r"soft|reboot|kernel|panic|warm|user|restart|shutdown", re.IGNORECASE)),
)


class Clue(NamedTuple):
    """What the hardware or the firmware says, in this boot, of how the one before it ended."""

    source: str
    """Where it stands: a file, mostly."""
    says: str
    """Its words."""
    means: str
    """``watchdog``, ``power``, ``hardware``, ``software`` (ordered by a kernel, in order or not), or ``other``."""


def reset_clues(host: Host) -> tuple[Clue, ...]:
    """All that this boot's hardware and firmware tell of how the boot before it ended."""
    sources = (_watchdogs, _platform_nodes, _chosen, _command_lines, _bert, _kernel_log)
    return tuple(clue for source in sources for clue in source(host))


def meaning(words: str) -> str:
    """What a reset reason in words comes to; the first of several that fits."""
    return next((means for means, pattern in _MEANINGS if pattern.search(words)), "other")


def _watchdogs(host: Host) -> Iterator[Clue]:
    """Decimal WDIOF bits; drivers that do not implement it show 0 (Documentation/ABI/testing/sysfs-class-watchdog)."""
    for name in _names(host, WATCHDOGS):
        source = f"{WATCHDOGS}/{name}/bootstatus"
        value = (host.read(source) or "").strip()
        if not value.isascii() or not value.isdigit() or len(value) > 10:
            continue
        set_bits = [(words, means) for bit, words, means in _BOOTSTATUS if int(value) & bit]
        if set_bits:
            means = "watchdog" if any(m == "watchdog" for _, m in set_bits) else set_bits[0][1]
            yield Clue(source, f"{int(value):#x}: {', '.join(words for words, _ in set_bits)}", means)


def _platform_nodes(host: Host) -> Iterator[Clue]:
    visited = 0
    pending = [(PLATFORM, 0)]
    while pending and visited < MAX_DIRECTORIES:
        directory, depth = pending.pop()
        visited += 1
        for name, is_directory in _entries(host, directory):
            path = f"{directory}/{name}"
            if is_directory and depth < DEPTH:
                pending.append((path, depth + 1))
            elif name in REASON_FILES:
                yield from _in_words(host, path)


def _chosen(host: Host) -> Iterator[Clue]:
    """What the boot loader has put into the device tree."""
    for name in _names(host, CHOSEN):
        if _CHOSEN_NAME.fullmatch(name):
            yield from _in_words(host, f"{CHOSEN}/{name}")


def _command_lines(host: Host) -> Iterator[Clue]:
    for source in ("/proc/cmdline", "/proc/bootconfig"):
        for key, words in _CMDLINE.findall(host.read(source) or ""):
            yield Clue(f"{key} in {source}", words, meaning(words))


def _in_words(host: Host, path: str) -> Iterator[Clue]:
    words = (host.read(path) or "").rstrip("\0").strip()[:_SHOWN]
    if words and words.isprintable():
        yield Clue(path, words, meaning(words))


def _bert(host: Host) -> Iterator[Clue]:
    """The kernel zeroes the status once it has printed the record: the length says whether there is one (bert.c)."""
    try:
        with open(host.path(BERT), "rb") as f:
            head = f.read(_BERT.size)
    except OSError:
        return
    if len(head) == _BERT.size:
        _, _, _, length, severity = _BERT.unpack(head)
        if length:
            word = _SEVERITIES[severity] if severity < len(_SEVERITIES) else f"severity {severity}"
            yield Clue(BERT, f"{length} bytes of {word} hardware errors", "hardware" if severity < 2 else "other")


def _kernel_log(host: Host) -> Iterator[Clue]:
    for message in _messages(host):
        found = _KERNEL_SAYS.search(message.text) if message.priority < 8 else None  # the kernel's own facility
        if found is not None:
            words = visible(next(words for words in found.groups() if words is not None))[:_SHOWN]
            yield Clue(f"{KMSG} at {message.time_us / 1e6:.6f} s", words, meaning(words))


def _messages(host: Host) -> Iterator[Message]:
    """What the kernel's log begins with; nothing if it cannot be read."""
    try:
        fd = os.open(host.path(KMSG), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        size = 0
        while size < MAX_KMSG and (data := os.read(fd, _RECORD_MAX)):
            size += len(data)
            yield from parse_devkmsg(data)
    except OSError:
        return  # EAGAIN: its end; EPIPE: overrun, and the beginning is gone
    finally:
        os.close(fd)


def _names(host: Host, directory: str) -> list[str]:
    return [name for name, _ in _entries(host, directory)]


def _entries(host: Host, directory: str) -> list[tuple[str, bool]]:
    """Names, and whether each is a directory itself, not a link to one."""
    try:
        with os.scandir(host.path(directory)) as entries:
            return sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
    except OSError:
        return []
