# SPDX-License-Identifier: Apache-2.0
"""Real journal files, made by systemd-journal-remote(8) from the Journal Export Format.

Format: https://systemd.io/JOURNAL_EXPORT_FORMATS/ .  What journald makes of a kernel line: src/journal/journald-kmsg.c,
dev_kmsg_record().
"""

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fake_pstore.host import MACHINE_ID
from tests.conftest import require

REMOTE = "/lib/systemd/systemd-journal-remote"

Entry = Mapping[str, str | bytes | int]
"""An entry's fields; it needs __REALTIME_TIMESTAMP, __MONOTONIC_TIMESTAMP (microseconds) and _BOOT_ID."""


def export(entries: Iterable[Entry]) -> bytes:
    """The entries in the Journal Export Format; one without an empty line behind it is left out by the reader."""
    return b"".join(_export_one(entry) + b"\n" for entry in entries)


def _export_one(entry: Entry) -> bytes:
    text = b""
    for name, value in entry.items():
        data = value if isinstance(value, bytes) else str(value).encode()
        if data.isascii() and data.decode().isprintable():
            text += name.encode() + b"=" + data + b"\n"
        else:
            text += name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return text


def write_journal(directory: Path, entries: Iterable[Entry], *, name: str = "system.journal") -> Path:
    """Write the entries, in the order given, into a journal file, or add them to it; gives the file."""
    require(os.path.exists(REMOTE), "there is no systemd-journal-remote (apt-get install systemd-journal-remote)")
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    subprocess.run([REMOTE, f"--output={file}", "-"], input=export(entries), capture_output=True, check=True)
    return file


def kernel_entries(
    boot_id: str, lines: Iterable[tuple[int, bytes]], *, began_us: int, late_us: int = 0, machine_id: str = MACHINE_ID
) -> Iterator[Entry]:
    """What journald writes of kernel lines.

    Args:
        boot_id: with or without dashes.
        lines: nanoseconds since boot, and text.
        began_us: when that boot began by its own clock, microseconds since 1970.
        late_us: journald's own timestamps are later than the kernel's by so much.
        machine_id: of the machine.
    """
    for time_ns, text in lines:
        time_us = time_ns // 1000
        yield {
            "__REALTIME_TIMESTAMP": began_us + time_us + late_us,
            "__MONOTONIC_TIMESTAMP": time_us + late_us,
            "_BOOT_ID": boot_id.replace("-", ""),
            "_MACHINE_ID": machine_id,
            "_SOURCE_MONOTONIC_TIMESTAMP": time_us,
            "_TRANSPORT": "kernel",
            "SYSLOG_FACILITY": 0,
            "SYSLOG_IDENTIFIER": "kernel",
            "PRIORITY": 6,
            "MESSAGE": text,
        }
