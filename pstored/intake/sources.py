# SPDX-License-Identifier: Apache-2.0
"""Files and devices as sources for the readers: read in pieces, unpacked if gzip, xz or bzip2 packed them.

A packed file is unpacked into a temporary file without a name, since readers read from any place; runs of zeros, which
a dump of memory is full of, take no space there.
"""

import errno
import hashlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, BinaryIO, Protocol

from pstored.errors import StoreError
from pstored.readers.model import Remark

STANDARD_INPUT = "-"
CHUNK = 256 * 1024
MAX_UNPACKED = 16 << 30
"""No dump of memory that somebody sends is larger; a small file can be made that unpacks to any size."""
MAX_UNSIZED = 64 << 20
"""Of a device that does not say how large it is: NVRAM has some KiB, and /dev/zero no end."""
MAX_IN_MEMORY = 4 << 20
"""Of what is unpacked; more goes to the disk."""
MAX_XZ_MEMORY = 128 << 20
"""xz -9 takes 65 MiB; a file may ask for 4 GiB."""
MAX_DIGEST = 1 << 30
"""Of a larger source no digest is taken: it would take longer than the rest."""
FINGER = 1 << 20
"""Bytes at each end that make a fingerprint."""
_ZEROS = bytes(CHUNK)


class Opened:
    """A file, open for reading; a source for readers."""

    def __init__(
        self, file: BinaryIO, name: str, size: int, *, remarks: Sequence[Remark] = (), packed: "Opened | None" = None
    ) -> None:
        self._file = file
        self._has_holes = _has_holes(file)
        self._packed = packed
        self.name = name
        self.size = size
        self.remarks = tuple(remarks)
        """How it was come by, and what is missing of it."""
        self.problem: str | None = None
        """Why not all that was asked for could be read."""

    def read(self, at: int, count: int) -> bytes:
        """As any source; why it is short is in ``problem``."""
        pieces: list[bytes] = []
        at = max(0, at)
        left = max(0, min(count, self.size - at))
        if self._has_holes and left >= CHUNK and self._is_hole(at, left):
            return bytes(left)
        try:
            self._file.seek(at)
            while left > 0 and (piece := self._file.read(left)):
                pieces.append(piece)
                left -= len(piece)
            if left:
                self.problem = f"ends at byte {at + sum(map(len, pieces))}, and had {self.size} when it was opened"
        except (OSError, ValueError, OverflowError) as e:
            why = os.strerror(e.errno) if isinstance(e, OSError) and e.errno else str(e)
            self.problem = f"cannot be read at byte {at + sum(map(len, pieces))}: {why}"
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _is_hole(self, at: int, count: int) -> bool:
        """Whether there are only zeros that lie on no disk: reading them would fill memory with them first."""
        try:
            return os.lseek(self._file.fileno(), at, os.SEEK_DATA) >= at + count
        except OSError as e:
            return e.errno == errno.ENXIO  # no data from there on

    def facts(self) -> dict[str, object]:
        """What harvest.json says of the file as it lies there: path, size, and digest, where that is affordable."""
        file = self._packed or self
        path = os.path.abspath(self.name) if self.name else None
        facts: dict[str, object] = {"path": path, "size": file.size, "sha256": file.sha256()}
        return facts if facts["sha256"] is not None else facts | {"fingerprint": file.fingerprint()}

    def fingerprint(self) -> str:
        """The SHA-256 of size (decimal, a newline), first and last MiB: what a file too large for more is known by."""
        digest = hashlib.sha256(b"%d\n" % self.size)
        digest.update(self.read(0, FINGER))
        digest.update(self.read(max(FINGER, self.size - FINGER), FINGER))
        return digest.hexdigest()

    def sha256(self) -> str | None:
        """The digest of all of it; None if it is too large for that, or not all can be read."""
        if self.size > MAX_DIGEST:
            return None
        digest = hashlib.sha256()
        for at in range(0, self.size, CHUNK):
            piece = self.read(at, min(CHUNK, self.size - at))
            if not piece:
                return None
            digest.update(piece)
        return digest.hexdigest()

    def close(self) -> None:
        """Drop it."""
        self._file.close()
        if self._packed is not None:
            self._packed.close()


def _has_holes(file: BinaryIO) -> bool:
    """Whether a plain file takes less space than it has bytes."""
    try:
        state = os.fstat(file.fileno())
    except OSError:
        return False  # it is in memory
    return stat.S_ISREG(state.st_mode) and state.st_blocks * 512 < state.st_size


def open_source(path: str, end: int | None = None, *, unpacked: bool = True) -> Opened:
    """Open a file, a device, or standard input (``-``), and unpack it if it is packed.

    Args:
        path: which.
        end: up to which byte it is to be read, if that is known: a device like /dev/mem does not say where it ends.
        unpacked: a packed file is to be read as what it holds; that may take long.

    Raises:
        StoreError: it cannot be opened, or is nothing that can be read from any place.
    """
    if path == STANDARD_INPUT:
        return _unpack(_spool(iter(lambda: sys.stdin.buffer.read(CHUNK), b""), "", [], MAX_UNPACKED))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would block
    except FileNotFoundError:
        raise StoreError(f"there is no {path!r}") from None
    except OSError as e:
        denied = isinstance(e, PermissionError)
        message = f"cannot open {path!r}: {os.strerror(e.errno or 0)}"
        raise StoreError(message, permission=denied, hint="run as root" if denied else None) from e
    state = os.fstat(fd)
    is_file = stat.S_ISREG(state.st_mode)
    if not is_file and not stat.S_ISBLK(state.st_mode) and not stat.S_ISCHR(state.st_mode):
        os.close(fd)
        raise StoreError(f"{path!r} is neither a file nor a device")
    file = open(fd, "rb", buffering=0)  # closed by whoever asked for it  # noqa: SIM115
    if not is_file:
        return _open_device(file, path, end)
    opened = Opened(file, path, state.st_size)
    return _unpack(opened) if unpacked else opened


def _open_device(file: BinaryIO, path: str, end: int | None) -> Opened:
    size = 0
    with suppress(OSError):
        size = file.seek(0, os.SEEK_END)
    if size or end is not None:
        return Opened(file, path, size or end or 0)
    with closing(Opened(file, path, MAX_UNSIZED)) as device:
        return _spool((device.read(at, CHUNK) for at in range(0, MAX_UNSIZED, CHUNK)), path, [], MAX_UNSIZED)


# -- packed files


class _Unpacker(Protocol):
    """What bz2 and lzma give, and :class:`_Gzip`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """zlib's, with the manners of the others."""

    def __init__(self) -> None:
        import zlib

        self._inflater = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)


def _xz() -> _Unpacker:
    import lzma

    return lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY)


def _bzip2() -> _Unpacker:
    import bz2

    return bz2.BZ2Decompressor()


_PACKERS: dict[bytes, tuple[str, Callable[[], _Unpacker]]] = {
    b"\x1f\x8b\x08": ("gzip", _Gzip),
    b"\xfd7zXZ\x00": ("xz", _xz),
    b"BZh": ("bzip2", _bzip2),
}


def _unpack(packed: Opened) -> Opened:
    """What a packed file holds; a file that is not packed as it is."""
    head = packed.read(0, 8)
    for magic, (word, make) in _PACKERS.items():
        if head.startswith(magic):
            remarks = [*packed.remarks, Remark(f"unpacked by {word}")]
            return _spool(_pieces(packed, magic, word, make, remarks), packed.name, remarks, MAX_UNPACKED, packed)
    return packed


def _pieces(
    packed: Opened, magic: bytes, word: str, make: Callable[[], _Unpacker], remarks: list[Remark]
) -> Iterator[bytes]:
    """The bytes that a packed file gives, as far as it is whole; several of its kind in a row are one."""
    unpacker = make()
    at, given, rest = 0, 0, b""
    try:
        while True:
            if not rest and unpacker.needs_input:
                rest = packed.read(at, CHUNK)
                at += len(rest)
                if not rest:
                    remarks.append(Remark(f"the {word} file has no end: it was cut", is_damage=True))
                    return
            piece = unpacker.decompress(rest, CHUNK)
            rest = b""
            given += len(piece)
            yield piece
            if unpacker.eof:
                rest = unpacker.unused_data
                more = packed.read(at, CHUNK)
                at, rest = at + len(more), rest + more
                if not rest.startswith(magic):
                    return
                unpacker = make()
    except Exception as e:  # each library has errors of its own  # noqa: BLE001
        remarks.append(Remark(f"the {word} file is damaged, {given} bytes stand before that: {e}", is_damage=True))


def _spool(
    pieces: Iterator[bytes], name: str, remarks: list[Remark], largest: int, packed: Opened | None = None
) -> Opened:
    """Bytes that come one after the other, as a source; no more than *largest* of them."""
    file: Any = io.BytesIO()
    size = 0
    try:
        for piece in pieces:
            if isinstance(file, io.BytesIO) and size + len(piece) > MAX_IN_MEMORY:
                held = file.getvalue()
                file = tempfile.TemporaryFile(dir=_directory())  # likewise  # noqa: SIM115
                file.write(held)
            if isinstance(file, io.BytesIO) or not _ZEROS.startswith(piece):
                file.write(piece)
            else:
                file.seek(len(piece), os.SEEK_CUR)
            size += len(piece)
            if size >= largest:
                remarks.append(Remark(f"only its first {size} bytes are looked at", is_damage=True))
                break
        file.truncate(size)
        file.flush()
    except OSError as e:
        text = f"only its first {size} bytes could be unpacked, into {_directory()!r}: {os.strerror(e.errno or 0)}"
        remarks.append(Remark(text, is_damage=True))
    if not isinstance(file, io.BytesIO):
        file = file.detach()  # without a buffer, which would not know of what is done behind its back
    return Opened(file, name, size, remarks=remarks, packed=packed)


def _directory() -> str:
    """For large temporary files: /tmp is often in memory (file-hierarchy(7))."""
    return os.environ.get("TMPDIR") or "/var/tmp"
