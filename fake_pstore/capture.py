# SPDX-License-Identifier: Apache-2.0
"""Real crashes: what real kernels left behind, in ``captures/`` (its README says how they were made).

``load("lab-efi-twoboots").unpack(directory)`` gives the records as the collecting boot showed them.
"""

import json
import lzma
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .host import MACHINE_ID, PSTORE, Host, write_host
from .tree import write_record

CAPTURES = Path(__file__).parent / "captures"

STAMP_PREFIX = "pstored-lab: boot_id="
"""What the captured guests wrote to /dev/kmsg before their boot id."""

Shown = Literal["pstore", "truth"]
"""The records as the collecting boot showed them, or as a kernel with the right decompressor does."""

_MOUNT_TIMED = ("console-", "pmsg-", "ftrace-")
"""Records without a time of their own: their mtime is when the collecting boot mounted pstore."""

# rtc_cmos 00:04: setting system clock to 2026-11-23T04:19:10 UTC (1795407550), behind its [    2.448520]
_CLOCK = re.compile(rb"\[ {0,4}(\d{1,5})\.\d{6}\] rtc[^\n]{0,80}setting system clock to [^\n]{0,40}\((\d{1,10})\)")
_BANNER = re.compile(rb"\] (Linux version [ -~]{1,400})")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What capture.json says of one record."""

    size: int
    """Bytes that can be read; for ftrace more than the kernel's st_size said."""
    sha256: str
    mtime: int
    """Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One real crash; all fields but *directory* are those of its capture.json."""

    directory: Path
    name: str
    backend: str
    """``ramoops efi erst pstore_blk``, or a mechanism beside pstore: ``nvram mtdoops netconsole``."""
    what: str
    """How it crashed and what is there, in a sentence."""
    crash_boot_id: str
    """The last boot that crashed, with hyphens."""
    crash_boot_time: int
    """Unix seconds, by the guest's clock, when its init ran: a few seconds after the boot began."""
    crash_kernel: str
    crash_cmdline: str | None
    collect_boot_id: str | None
    """None where no boot collected: the capture then has no records, only raw storage or datagrams."""
    collect_boot_time: int | None
    """As crash_boot_time.  0 in lab-enc-zstd, whose guest said it on a garbled line."""
    collect_kernel: str | None
    collect_cmdline: str | None
    stamped_boot_ids: tuple[str, ...]
    """Boots whose id stands in the records, behind STAMP_PREFIX."""
    compression: str | None
    params: str | None
    raw_files: tuple[str, ...]
    """Names for raw()."""
    files: Mapping[str, FileFacts]
    truth_files: Mapping[str, FileFacts]

    def raw(self, filename: str) -> bytes:
        """A file of the capture, unpacked: ``region.bin``, ``erst.img``, ``datagrams.jsonl``, ..."""
        return lzma.decompress((self.directory / f"{filename}.xz").read_bytes())

    def serial(self, boot: Literal["crash", "collect"]) -> bytes:
        """The serial console of the crashed or of the collecting boot, firmware noise included."""
        return self.raw(f"serial-{boot}.log")

    def records(self, what: Shown = "pstore") -> Iterator[tuple[str, bytes, int]]:
        """Name, content and mtime in nanoseconds of every record, in name order."""
        expected = self.files if what == "pstore" else self.truth_files
        if not expected:
            return
        with tarfile.open(self.directory / f"{what}.tar.xz", "r:xz") as tar:
            for member in sorted(tar, key=lambda member: member.name):
                content = tar.extractfile(member)
                assert content is not None, f"{self.name} holds {member.name!r}, which is no plain file"
                yield member.name, content.read(), int(member.mtime) * 1_000_000_000

    def unpack(self, directory: Path, *, what: Shown = "pstore") -> list[Path]:
        """Write the records into *directory* (made if missing), mtimes kept, mode 0444 as in pstorefs."""
        os.makedirs(directory, exist_ok=True)
        return [write_record(directory / name, data, mtime) for name, data, mtime in self.records(what)]

    def btime(self) -> int:
        """Unix seconds when the boot that showed the records began, as its /proc/stat had it.

        From the line in which the kernel sets its clock.  In lab-enc-* the records were shown by a boot in
        between that capture.json does not describe, and which only the mount time of the zones tells.
        """
        found = _CLOCK.search(self.serial("collect"))
        assert found is not None, f"{self.name}: no clock line on the serial console"
        mounted = [facts.mtime for name, facts in self.files.items() if name.startswith(_MOUNT_TIMED)]
        return min([int(found[2]) - int(found[1]), *(mtime - 2 for mtime in mounted)])


def names() -> list[str]:
    """Every capture there is, in name order."""
    return sorted(path.parent.name for path in CAPTURES.glob("*/capture.json"))


def load(name: str) -> Capture:
    """The capture of that name.

    Raises:
        FileNotFoundError: there is none.
    """
    directory = CAPTURES / name
    said: dict[str, Any] = json.loads((directory / "capture.json").read_bytes())
    return Capture(
        directory=directory,
        name=said["name"],
        backend=said["backend"],
        what=said["what"],
        crash_boot_id=said["crash_boot_id"],
        crash_boot_time=said["crash_boot_time"],
        crash_kernel=said["crash_kernel"],
        crash_cmdline=said.get("crash_cmdline"),
        collect_boot_id=said.get("collect_boot_id"),
        collect_boot_time=said.get("collect_boot_time"),
        collect_kernel=said.get("collect_kernel"),
        collect_cmdline=said.get("collect_cmdline"),
        stamped_boot_ids=tuple(said.get("stamped_boot_ids", ())),
        compression=said.get("compression"),
        params=said.get("params"),
        raw_files=tuple(said.get("raw", ())),
        files={name: FileFacts(**facts) for name, facts in said.get("files", {}).items()},
        truth_files={name: FileFacts(**facts) for name, facts in said.get("truth_files", {}).items()},
    )


def populate_root(
    root: Path,
    capture: Capture,
    *,
    what: Shown = "pstore",
    uptime_s: float = 8.0,
    machine_id: str = MACHINE_ID,
) -> Path:
    """Make below *root* what the collecting boot of *capture* saw; give the directory with the records.

    Boot id, release, banner and command line are those of the collecting boot; write_host() has the list.

    Raises:
        ValueError: no boot collected this capture.
    """
    if capture.collect_boot_id is None:
        raise ValueError(f"no boot collected capture {capture.name!r}")
    found = _BANNER.search(capture.serial("collect"))
    assert found is not None, f"{capture.name}: no banner on the serial console"
    banner = found[1].decode("ascii").rstrip()
    write_host(
        root,
        Host(
            boot_id=capture.collect_boot_id,
            kernel=banner.split()[2],  # not collect_kernel: the guest of lab-enc-zstd said that on a garbled line
            btime=capture.btime(),
            backend=capture.backend,
            banner=banner,
            cmdline=capture.collect_cmdline or "",
            uptime_s=uptime_s,
            machine_id=machine_id,
        ),
    )
    capture.unpack(root / PSTORE, what=what)
    return root / PSTORE
