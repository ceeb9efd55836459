# SPDX-License-Identifier: Apache-2.0
"""The one module that flushes and renames: what it has written survives a power cut, or was never there.

The order is always: write under a temporary name, fsync the file, rename, fsync the directory.  A name that does not
begin with ``.new-`` is therefore whole.  What a killed run leaves behind begins with it, and :func:`remove_litter`
takes it away; temporary files are all made in one directory of the archive, so that it knows where to look.

No fsync can promise more than the disk does: a drive that lies about its cache can still lose what it acknowledged.

Tests and the power-cut runs in ``tests/vm`` follow the order through :mod:`pstored.steps`.
"""

from __future__ import annotations

import errno
import os
import stat

from pstored.errors import DiskError
from pstored.lean import TYPE_CHECKING, contextmanager, suppress
from pstored.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NEW = ".new-"
FILE_MODE = 0o640
DIRECTORY_MODE = 0o750

_HINTS = {
    errno.ENOSPC: "free some space there, or lower max_bytes in [archive] of pstored.conf",
    errno.EDQUOT: "raise the disk quota, or lower max_bytes in [archive] of pstored.conf",
    errno.EROFS: "the file system is read-only: remount it read-write, or fix what made the kernel do so (dmesg)",
    errno.EACCES: "run as root, or as the owner of the archive",
    errno.EPERM: "run as root, or as the owner of the archive",
    errno.EIO: "the disk failed: look at dmesg and at its health",
}


@contextmanager
def archive_errors(doing: str, path: str) -> Iterator[None]:
    """Turn an OSError of the block into a :class:`DiskError` that says what could not be done, where, and why."""
    try:
        yield
    except OSError as e:
        message = f"cannot {doing} {path!r}: {os.strerror(e.errno) if e.errno else e}"
        raise DiskError(message, hint=_HINTS.get(e.errno or 0)) from e


def make_directory(path: str, *, durably: bool = True, mode: int = DIRECTORY_MODE) -> None:
    """Make *path*, whatever the umask, and its parents with the archive's mode; durable on return, if asked for."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        make_directory(parent)
    with archive_errors("make the directory", path):
        step(f"mkdir {path}")
        with suppress(FileExistsError):  # somebody else was faster: as good
            mkdir(path, mode)
        if durably:
            flush_directory(parent)


def mkdir(path: str, mode: int = DIRECTORY_MODE) -> None:
    """Make one directory, whatever the umask.

    A set-group-id bit that it has from its parent stays, so that all of the archive is of that group.  Without
    CAP_FSETID a chmod drops it, or is refused (RestrictSUIDSGID= in the units), so there is one only if it must be.
    """
    os.mkdir(path, mode)
    made = stat.S_IMODE(os.stat(path).st_mode)
    if made & 0o777 != mode:
        os.chmod(path, mode | made & stat.S_ISGID)


def is_there(path: str) -> bool:
    """Whether there is such a file.

    Raises:
        DiskError: that cannot be told now.
    """
    with archive_errors("look at", path):
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
    return True


def refuse_link(path: str) -> None:
    """Look that a directory of the archive is none that a symbolic link leads to.

    Raises:
        DiskError: it is.
    """
    if os.path.islink(path):
        hint = "nothing in the archive is one: find out who made it, and remove it"
        raise DiskError(f"{path!r} is a symbolic link, which is not followed", hint=hint)


def flush_directory(path: str) -> None:
    """Make the names in the directory *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        step(f"fsync {path}")
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: str, mode: int = FILE_MODE) -> int:
    """Open a new, empty file for reading and writing; an old one of that name (litter of a killed run) is dropped."""
    step(f"create {path}")
    with suppress(FileNotFoundError):
        os.unlink(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    os.fchmod(fd, mode)
    return fd


def flush(fd: int, path: str) -> None:
    """Make the bytes behind *fd* durable."""
    step(f"fsync {path}")
    os.fsync(fd)


def write_flushed(path: str, data: bytes, mode: int = FILE_MODE) -> None:
    """Write a new file and flush it; its name is durable only after :func:`flush_directory`."""
    _write(path, data, mode, flushed=True)


def _write(path: str, data: bytes, mode: int, *, flushed: bool) -> None:
    fd = create(path, mode)
    try:
        step(f"write {path}")
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if flushed:
            flush(fd, path)
    finally:
        os.close(fd)


def replace_files(
    directory: str,
    files: Mapping[str, bytes],
    *,
    scratch: str,
    durably: bool = True,
    mode: int = FILE_MODE,
    ending: str = "",
) -> None:
    """Put *files* (name to content) into *directory*, in this order, each whole or not at all.

    Args:
        directory: where to; no link, unless it is *scratch*, the archive itself, which may lie behind one.
        files: what.
        scratch: a directory on the same file system, for the temporary names.
        durably: flush files and directory, so that a power cut after the return cannot undo it.  Without, it can, and
            leave the old file, none, or one that is torn: for what may be lost, and whose readers look.
        mode: of each.
        ending: of the temporary names, where others take whatever ends as the files do.

    Raises:
        DiskError: one could not be written; those before it may be there, whole.
    """
    if directory != scratch:
        refuse_link(directory)
    with archive_errors("write to", directory):
        for name, data in files.items():
            temporary = os.path.join(scratch, NEW + name + ending)
            _write(temporary, data, mode, flushed=durably)
            step(f"rename {directory}/{name}")
            os.rename(temporary, os.path.join(directory, name))
        if durably:
            flush_directory(directory)


def put_sparse_copy(source: str, directory: str, name: str, *, like: str) -> None:
    """Put a copy of the file *source* into a directory of somebody else's, whole or not at all; durable on return.

    Args:
        source: a file, perhaps on another file system; blocks of zeros in it become holes.
        directory: where to.
        name: what it is to be called.  Until it is whole its name does not end as this does.
        like: a file whose owner, group and mode it gets.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    temporary = os.path.join(directory, f"{NEW}{name}.part")
    try:
        fd = create(temporary)
        try:
            step(f"write {temporary}")
            _copy_sparse(source, fd)
            _make_alike(fd, os.stat(like))
            flush(fd, temporary)
        finally:
            os.close(fd)
        step(f"rename {directory}/{name}")
        os.rename(temporary, os.path.join(directory, name))
    except OSError:
        with suppress(OSError):
            remove_file(temporary)
        raise
    flush_directory(directory)


_BLOCK = 4096
"""What file systems keep holes in."""


def _copy_sparse(source: str, fd: int) -> None:
    with open(source, "rb", buffering=1 << 20) as f:
        while block := f.read(_BLOCK):
            if block.count(0) == len(block):
                os.lseek(fd, len(block), os.SEEK_CUR)
                continue
            view = memoryview(block)
            while view:
                view = view[os.write(fd, view) :]
        os.ftruncate(fd, f.tell())


def _make_alike(fd: int, other: os.stat_result) -> None:
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) != (other.st_uid, other.st_gid):
        os.fchown(fd, other.st_uid, other.st_gid)
    os.fchmod(fd, stat.S_IMODE(other.st_mode))


def commit_directory(temporary: str, final: str) -> None:
    """Give a directory of flushed files its final name; durable on return.  Never overwrites another."""
    flush_directory(temporary)
    step(f"rename {final}")
    os.rename(temporary, final)  # fails on a directory that has files: names are never taken over
    flush_directory(os.path.dirname(final))


def append_line(path: str, line: bytes) -> None:
    """Append to a *cache*: no flush, a torn line is possible, and readers check each line."""
    step(f"append {path}")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(fd, FILE_MODE)
        os.write(fd, line)
    finally:
        os.close(fd)


def append_durably(path: str, line: bytes) -> None:
    """Append a line to a file, made if it is not there: whole or not at all.

    What a run that was killed, or a disk that was full, has left of a line at the end is taken away first.

    Raises:
        ArchiveError: it cannot be written; nothing of it is left.
    """
    with archive_errors("write to", path):
        step(f"append {path}")
        is_new = not os.path.exists(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, FILE_MODE)
        try:
            end = _end_of_lines(fd)
            os.ftruncate(fd, end)
            os.lseek(fd, end, os.SEEK_SET)
            try:
                view = memoryview(line)
                while view:
                    view = view[os.write(fd, view) :]
                flush(fd, path)
            except OSError:
                os.ftruncate(fd, end)
                raise
        finally:
            os.close(fd)
        if is_new:
            flush_directory(os.path.dirname(path) or ".")


def _end_of_lines(fd: int) -> int:
    """Where the last whole line of a file ends."""
    at = os.fstat(fd).st_size
    while at:
        start = max(0, at - (1 << 16))
        newline = os.pread(fd, at - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        at = start
    return 0


def remove_tree(path: str) -> None:
    """Remove a directory of files; it first gets a temporary name, so that no half of it is ever seen.

    A link to a directory goes, and not what it leads to.
    """
    parent, name = os.path.split(path)
    if not name.startswith(NEW):
        doomed = os.path.join(parent, NEW + name)
        step(f"rename {doomed}")
        os.rename(path, doomed)
        path = doomed
    if os.path.islink(path):
        os.unlink(path)
        return
    for entry in os.scandir(path):
        step(f"unlink {entry.path}")
        os.unlink(entry.path)
    os.rmdir(path)


def remove_file(path: str) -> None:
    """Remove one file, if it is there."""
    step(f"unlink {path}")
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_litter(directory: str, *, prefix: str = NEW) -> int:
    """Remove what killed runs left in *directory*; the caller holds the archive's lock.  Gives how many.

    Args:
        directory: where.
        prefix: of the names; a directory that is not ours alone needs a longer one.
    """
    removed = 0
    try:
        entries = [entry for entry in os.scandir(directory) if entry.name.startswith(prefix)]
    except FileNotFoundError:
        return 0
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            remove_file(entry.path)
        removed += 1
    return removed
