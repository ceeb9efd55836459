# SPDX-License-Identifier: Apache-2.0
"""Journal files from the Journal Export Format, through systemd-journal-remote(8): nobody else writes that format.

What it says cannot be relied on: on a full disk it drops entries and exits with 0 (systemd 252).  So the files are
read back.  It starts a new file wherever journald would (after some 17,000 lines; on a small file system, where it
makes small files, after some 1,500), so that one export may become several.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pstored.errors import SinkError
from pstored.steps import step

PROGRAMS = ("/usr/lib/systemd/systemd-journal-remote", "/lib/systemd/systemd-journal-remote")
"""Where distributions have it: not on PATH."""
TIMEOUT_S = 60
"""The most lines that we write take it a second on a slow board."""
EXPORT = "lines.export"
OUTPUT = "lines.journal"

# s=<seqnum id>;i=<seqnum>;b=<boot>;m=<monotonic>;t=<realtime>;x=<hash>, hexadecimal: sd_journal_get_cursor(3)
_CURSOR = re.compile(r"(?:^|;)i=([0-9a-f]{1,16});.*;t=([0-9a-f]{1,16});")


class JournalFile(NamedTuple):
    """A file that was written and reads back."""

    path: str
    entries: int
    first_seqnum: int
    first_wall_us: int


def find_program(paths: Iterable[str] = PROGRAMS) -> str | None:
    """The program; None if it is not installed."""
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def write_files(program: str, entries: Sequence[bytes], directory: str) -> list[JournalFile]:
    """Make journal files of exported *entries* in the empty *directory*, in order; the caller removes it.

    Raises:
        SinkError: not all entries are in them.
        OSError: the directory cannot be written.
    """
    source = os.path.join(directory, EXPORT)
    with open(source, "xb") as f:
        f.writelines(entries)
    output = os.path.join(directory, OUTPUT)
    step(f"run {program}")
    try:
        done = subprocess.run(
            [program, f"--output={output}", source],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise SinkError(f"{program} took longer than {TIMEOUT_S} s") from e
    step(f"read back {directory}")
    names = [name for name in os.listdir(directory) if name.endswith(".journal")]
    files = _read_back(os.path.join(directory, name) for name in names)
    written = sum(f.entries for f in files)
    if done.returncode != 0 or written != len(entries):
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if "Finishing" not in line]
        raise SinkError(
            f"{os.path.basename(program)} wrote {written} of {len(entries)} lines: "
            f"{said[-1] if said else f'exit {done.returncode}'}",
            hint="is there room in the archive's file system?",
        )
    return files


def _read_back(paths: Iterable[str]) -> list[JournalFile]:
    from systemd import journal

    files = []
    for path in paths:
        try:
            with journal.Reader(files=[path]) as reader:
                first = reader.get_next()
                entries = int(bool(first)) + sum(1 for _ in reader)
        except OSError as e:
            raise SinkError(f"{path!r} does not read back: {e}") from e
        if first and (found := _CURSOR.search(first["__CURSOR"])):
            files.append(JournalFile(path, entries, int(found[1], 16), int(found[2], 16)))
    return sorted(files, key=lambda file: file.first_seqnum)
