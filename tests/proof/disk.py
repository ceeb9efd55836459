# SPDX-License-Identifier: Apache-2.0
"""What a power cut would leave, worked out from the system calls of a run: what was flushed, and nothing else.

A file's bytes are loose from a write on until an fsync of the file; a name is loose from its making on until an fsync
of the directory that it is in.  What is renamed takes with it what is loose below it.  A call that strace only
pretended to make (``INJECTED``) has changed nothing.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.proof.strace import Point

_FD = re.compile(r"\w+\(\d+<([^>]*)>")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_RESULT = re.compile(r"\) += (-?\d+)")
_COUNT = re.compile(r"\) += (\d+)")
WRITES = ("write", "pwrite64", "writev", "ftruncate", "fallocate", "copy_file_range", "sendfile")
FLUSHES = ("fsync", "fdatasync")


class Loose(NamedTuple):
    """What would be lost."""

    kind: str
    """``bytes`` or ``name``."""
    path: str


class Disk:
    """The disk under one directory."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.loose: set[Loose] = set()
        self.read: dict[str, int] = {}
        """Bytes read of each file since it was last written."""

    def take(self, point: Point) -> None:
        """One more call."""
        if _failed(point) or "(INJECTED)" in point.text:
            return
        fd, paths = _fd(point), _PATHS.findall(point.text)
        if point.call in WRITES and fd is not None and self._is_mine(fd):
            self.loose.add(Loose("bytes", fd))
            self.read.pop(fd, None)
        elif point.call in FLUSHES and fd is not None:
            self.loose = {at for at in self.loose if at != ("bytes", fd) and not _is_name_in(at, fd)}
        elif point.call == "openat" and "O_CREAT" in point.text and self._is_mine(paths[0]):
            self.loose |= {Loose("name", paths[0])}
        elif point.call == "mkdir" and self._is_mine(paths[0]):
            self.loose.add(Loose("name", paths[0]))
        elif point.call == "rename" and self._is_mine(paths[1]):
            self._rename(paths[0], paths[1])
        elif point.call in ("unlink", "rmdir"):
            self.loose = {at for at in self.loose if at.path != paths[0]}
        elif point.call in ("read", "pread64") and fd is not None and (count := _COUNT.search(point.text)):
            self.read[fd] = self.read.get(fd, 0) + int(count[1])

    def _is_mine(self, path: str) -> bool:
        return _is_below(path, self.top)

    def _rename(self, old: str, new: str) -> None:
        below = {at for at in self.loose if at.path == old or at.path.startswith(old + "/")}
        self.loose = (self.loose - below) | {Loose(kind, new + path[len(old) :]) for kind, path in below}
        self.loose.add(Loose("name", new))

    def loose_at(self, path: str) -> set[Loose]:
        """What is loose at or below *path*, and of the names on the way to it."""
        return {at for at in self.loose if _is_below(at.path, path) or _is_below(path, at.path)}


def _is_below(path: str, top: str) -> bool:
    return f"{path}/".startswith(f"{top}/")


def _failed(point: Point) -> bool:
    result = _RESULT.search(point.text)
    return result is None or result[1].startswith("-")


def _fd(point: Point) -> str | None:
    found = _FD.match(point.text)
    return None if found is None else found[1]


def _is_name_in(at: Loose, directory: str) -> bool:
    return at.kind == "name" and os.path.dirname(at.path) == directory


def too_early(points: Iterable[Point], *, root: str, archive: str) -> list[str]:
    """What a run did before what it stands on was safe, in words; none if it may lose its power at any moment.

    Args:
        points: its system calls.
        root: the tree; what is loose is looked for below it.
        archive: in it.
    """
    disk = Disk(root)
    found: list[str] = []
    for point in points:
        paths = [] if _failed(point) else _PATHS.findall(point.text)
        if point.call == "unlink" and paths and "/sys/fs/pstore/" in paths[0]:
            name = os.path.basename(paths[0])
            found += [f"{name} is erased, and loose is {at}" for at in disk.loose_at(f"{archive}/harvests")]
            found += [f"{name} is erased, and not read back is {path}" for path in _unread(disk, archive, name)]
        elif point.call == "rename" and paths and paths[1].endswith("/analyzed.json"):
            done = disk.loose_at(f"{archive}/crashes") | disk.loose_at(f"{archive}/outbox")
            found += [f"a harvest counts as analyzed, and loose is {at}" for at in done]
        elif point.call == "unlink" and paths and f"{archive}/outbox/" in paths[0]:
            crash = os.path.basename(paths[0]).removesuffix(".json")
            receipt = f"{archive}/crashes/{crash}/delivered.json"
            found += [f"{crash} is no longer due, and loose is {at}" for at in disk.loose_at(receipt)]
        disk.take(point)
    return found


def _unread(disk: Disk, archive: str, record: str) -> list[str]:
    """The files of the newest bundle with a record, of which not every byte was read since they were written."""
    harvests = sorted(os.listdir(f"{archive}/harvests"), reverse=True)
    bundles = [f"{archive}/harvests/{harvest}" for harvest in harvests]
    bundle = next(b for b in bundles if f'"name": "{record}"' in Path(b, "harvest.json").read_text())
    paths = [f"{bundle}/{name}" for name in ("records.tar", "harvest.json")]
    return [path for path in paths if disk.read.get(path, 0) < os.path.getsize(path)]
