# SPDX-License-Identifier: Apache-2.0
"""The program as the kernel sees it: its system calls listed, one of them made to fail, or to be its last.

strace(1) counts the calls of each name by itself, in each thread by itself; so the Nth ``write`` of the program is a
point that comes again in every run of the same work.  Its children are not followed: they are other programs.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import REPOSITORY, Done

CHANGES = (
    *("write", "pwrite64", "writev", "sendfile", "copy_file_range", "fsync", "fdatasync", "sync_file_range", "syncfs"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat"),
    *("symlink", "symlinkat", "ftruncate", "truncate", "fallocate", "chmod", "fchmod", "fchmodat", "chown", "fchown"),
    *("fchownat", "utimensat", "sendto", "sendmsg", "sendmmsg"),
)
"""Calls that change a disk, or tell somebody something."""
CREATES = ("open", "openat", "creat")
"""They change a disk if they are asked to create."""
FLUSHES = ("fsync", "fdatasync", "sync_file_range", "syncfs")
FORKS = ("clone", "clone3", "fork", "vfork")

_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)")


class Point(NamedTuple):
    """A system call of a run."""

    call: str
    number: int
    """From 1, among those of its name."""
    text: str = ""
    """Its line in the trace: descriptors with their paths."""

    def __str__(self) -> str:
        return f"{self.call} number {self.number}: {self.text[:160]}"


def command(root: Path, *arguments: str) -> list[str]:
    """The program's command line, as it is installed."""
    return [sys.executable, "-m", "pstored", "--root", str(root), *arguments]


ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY),
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
}
"""Two runs make the same calls."""


def warm_up() -> None:
    """Compile the program, so that no run differs from another in doing it."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", REPOSITORY / "pstored"], check=True)


def run(words: Sequence[str | Path], *, timeout: float = 60) -> Done:
    """Run a command to its end; the status is negative if a signal ended it."""
    done = subprocess.run(
        words,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        timeout=timeout,
        check=False,
    )
    return Done(done.returncode, *(s.decode(errors="backslashreplace") for s in (done.stdout, done.stderr)))


def trace(words: Sequence[str], log: Path, *, options: Sequence[str] = ()) -> tuple[Done, list[Point]]:
    """Run a command; gives its system calls in their order, those that never returned left out."""
    done = run(["strace", "-y", "-qq", "-s", "64", "-e", "signal=none", *options, "-o", log, *words])
    counts: dict[str, int] = {}
    points = []
    for line in log.read_text(errors="backslashreplace").splitlines():
        if (found := _LINE.fullmatch(line)) is not None:
            call = found[1]
            counts[call] = counts.get(call, 0) + 1
            points.append(Point(call, counts[call], line))
    return done, points


def inject(words: Sequence[str], point: Point, how: str) -> Done:
    """Run a command with something done to one of its calls, e.g. ``signal=KILL``, ``error=EIO``.

    Killed at a call, the program has not done it any more.
    """
    what = f"inject={point.call}:{how}:when={point.number}"
    options = ("-e", "signal=none", "-e", f"trace={point.call}", "-e", what, "-o", "/dev/null")
    return run(["strace", "-qq", *options, *words])


KILLED = -signal.SIGKILL


# -- which points


def is_change(point: Point) -> bool:
    """Whether a call changes something, or starts somebody who may."""
    creates = point.call in CREATES and "O_CREAT" in point.text
    return point.call in CHANGES or creates or point.call in FORKS


def of_each_kind(points: list[Point]) -> list[Point]:
    """The first and the last of the calls that do the same to record after record, crash after crash."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        target = _RECORD.sub("RECORD", _ID.sub("ID", point.text))
        kinds.setdefault(f"{point.call} {target.split(',')[:2]}", []).append(point)
    return [point for kind in kinds.values() for point in (kind[:1] + kind[1:][-1:])]


_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
_RECORD = re.compile(r"(?<=pstore/)[^\"]+(?=\")")
