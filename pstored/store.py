# SPDX-License-Identifier: Apache-2.0
"""pstorefs as a directory: list it, read a record, erase a record.  Knows nothing of what the bytes mean.

What the kernel does here (fs/pstore/inode.c): files are 0444 in a directory 0750; ``st_size`` lies for ftrace, so a
record is read to its end; only lookup and unlink exist; unlink is the backend's erase, whose failure it hides.
"""

from __future__ import annotations

import errno
import os
import stat

from pstored.errors import StoreError
from pstored.lean import TYPE_CHECKING, sha256
from pstored.parse.ecc import MAX_NOTICE, split_ecc_notice
from pstored.parse.filename import split_record_name
from pstored.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CHUNK = 256 * 1024
"""Records are read in pieces of this size, so memory does not depend on theirs."""


class RecordReadError(Exception):
    """One record cannot be read; the store's other records can."""

    def __init__(self, why: str, *, vanished: bool = False) -> None:
        super().__init__(why)
        self.vanished = vanished


class Digest:
    """The digests of a record, taken piece by piece: of all its bytes, and of them without the ECC notice."""

    def __init__(self) -> None:
        self.size = 0
        self.error: str | None = None
        """Why reading ended early, if it did."""
        self._begun = sha256()
        self._tail = b""  # held back: it may turn out to be the notice

    def update(self, piece: bytes) -> None:
        """Take the next piece in."""
        held = self._tail + piece
        begin, self._tail = held[:-MAX_NOTICE], held[-MAX_NOTICE:]
        if self.size:
            self._begun.update(begin)
        else:
            self._begun = sha256(begin)
        self.size += len(piece)

    def sha256(self) -> str:
        """Hexadecimal, of the record as it is."""
        return self._end(self._tail)

    def content_sha256(self) -> str:
        """Hexadecimal, without the ECC notice, which may change from mount to mount."""
        return self._end(split_ecc_notice(self._tail)[0])

    def _end(self, rest: bytes) -> str:
        ended = self._begun.copy()
        ended.update(rest)
        return ended.hexdigest()


def record_key(name: str, digest: Digest) -> str:
    """A record's identity: type, backend, content.  Names come again (ramoops slots), times change (remount)."""
    record = split_record_name(name)
    owner = f"{record.type}-{record.backend}" if record is not None else name
    return f"{owner}:{digest.content_sha256()}" + (":partial" if digest.error is not None else "")


class Store:
    """One pstore directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The entries, sorted; none if there is no such directory (no kernel support, or not mounted).

        Raises:
            StoreError: it may not be read.
        """
        try:
            return sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        except OSError as e:
            denied = e.errno in (errno.EACCES, errno.EPERM)
            raise StoreError(
                f"cannot list {self.path!r}: {os.strerror(e.errno or 0)}",
                permission=denied,
                hint="run as root: the kernel shows crash records to nobody else" if denied else None,
            ) from e

    def read(self, name: str) -> Iterator[bytes]:
        """The record's bytes to the end, in pieces.

        Raises:
            RecordReadError: it vanished, is no plain file, or the kernel fails to read it.
        """
        try:
            # O_NONBLOCK: a directory given by --root may hold FIFOs, whose opening would block
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(os.path.join(self.path, name), flags)
        except FileNotFoundError:
            raise RecordReadError("vanished before it was read", vanished=True) from None
        except OSError as e:
            if e.errno == errno.ELOOP:
                raise RecordReadError("is a symbolic link, not a record") from e
            raise RecordReadError(f"cannot be opened: {os.strerror(e.errno or 0)}") from e
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RecordReadError("is not a plain file, so not a record")
            while piece := os.read(fd, CHUNK):
                yield piece
        except OSError as e:
            raise RecordReadError(f"cannot be read: {os.strerror(e.errno or 0)}") from e
        finally:
            os.close(fd)

    def mtime_ns(self, name: str) -> int:
        """The record's time, in nanoseconds since 1970: the crash's for dmesg, the mount's for live zones.

        Raises:
            RecordReadError: it cannot be looked at.
        """
        try:
            return os.stat(os.path.join(self.path, name), follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            raise RecordReadError("vanished before it was read", vanished=True) from None
        except OSError as e:
            raise RecordReadError(f"cannot be looked at: {os.strerror(e.errno or 0)}") from e

    def digest(self, name: str, *, sink: Callable[[bytes], object] | None = None) -> Digest:
        """Read the record to its end, or to where reading fails, and give its digests; each piece goes to *sink*, too.

        Raises:
            RecordReadError: not a byte of it can be read.
        """
        digest = Digest()
        pieces = self.read(name)
        while True:
            try:
                piece = next(pieces, None)
            except RecordReadError as e:
                if digest.size == 0:
                    raise
                digest.error = f"{e}, after {digest.size} bytes"
                return digest
            if piece is None:
                return digest
            digest.update(piece)
            if sink is not None:
                sink(piece)

    def erase(self, name: str) -> None:
        """Unlink: the backend's erase.

        Raises:
            OSError: as unlink(2); EPERM also if the backend cannot erase, ENOENT if somebody was faster.
        """
        step(f"erase {name}")
        os.unlink(os.path.join(self.path, name))


def read_whole(directory: str, name: str, largest: int) -> bytes:
    """A plain file of somebody else's, through no link.

    Raises:
        RecordReadError: it is not there, no plain file, cannot be read, or is larger than *largest* bytes.
    """
    data = bytearray()
    for piece in Store(directory).read(name):
        data += piece
        if len(data) > largest:
            raise RecordReadError(f"is larger than {largest} bytes")
    return bytes(data)


class MemoryStore(Store):
    """Records that we hold ourselves, to be archived like any other."""

    def __init__(self, records: Mapping[str, bytes], *, mtime_ns: int = 0) -> None:
        super().__init__("(memory)")
        self._records = records
        self._mtime_ns = mtime_ns

    def read(self, name: str) -> Iterator[bytes]:
        """The record, in one piece."""
        yield self._records[name]

    def mtime_ns(self, name: str) -> int:  # noqa: ARG002 - as any store
        """One for all; 0 if they have none of their own."""
        return self._mtime_ns
