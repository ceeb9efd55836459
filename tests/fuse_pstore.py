# SPDX-License-Identifier: Apache-2.0
"""A store as only a kernel can make one: a file system by FUSE, whose files behave as those of pstorefs can.

``st_size`` may lie, reads come in pieces and may fail after so many bytes, unlink may fail, or say it worked and do
nothing.  Speaks the FUSE protocol of <linux/fuse.h> on /dev/fuse, for as long as its process lives.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOOKUP, _FORGET, _GETATTR, _UNLINK, _OPEN, _READ, _INIT, _READDIR = 1, 2, 3, 10, 14, 15, 26, 28
_RELEASE, _OPENDIR, _RELEASEDIR, _BATCH_FORGET = 18, 27, 29, 42
_IN = struct.Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
_OUT = struct.Struct("<IiQ")  # len error unique
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_OPEN_DIRECT_IO = 1
_ROOT = 1


@dataclass(slots=True, kw_only=True)
class FuseFile:
    """One record, and how it behaves."""

    data: bytes
    shown_size: int | None = None
    """st_size, if it lies."""
    piece: int = 4096
    """No read gives more."""
    fails_after: int | None = None
    """From this offset on, reading is EIO."""
    open_error: int = 0
    """errno of open(2)."""
    unlink_error: int = 0
    """errno of unlink(2)."""
    mtime_s: int = 1_795_000_000
    on_open: Callable[[], object] | None = None
    """Called in the server at each open(2), before it is answered."""


@contextmanager
def fuse_store(directory: Path, files: dict[bytes, FuseFile]) -> Iterator[None]:
    """Mount *files* on *directory*; the caller has mounts of its own, which nobody else sees."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40750,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"pstore", os.fsencode(directory), b"fuse", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount FUSE")
    server = os.fork()
    if server == 0:
        _serve(fd, files)
    os.close(fd)
    try:
        yield
    finally:
        libc.umount2(os.fsencode(directory), 2)  # MNT_DETACH
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def _serve(fd: int, files: dict[bytes, FuseFile]) -> None:
    try:
        names = dict(enumerate(files, _ROOT + 1))
        while True:
            request = os.read(fd, 1 << 20)
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            if opcode in (_FORGET, _BATCH_FORGET):
                continue
            try:
                answer, error = _answer(opcode, node, request[_IN.size :], files, names), 0
            except OSError as e:
                answer, error = b"", e.errno or errno.EIO
            os.write(fd, _OUT.pack(_OUT.size + len(answer), -error, unique) + answer)
    finally:
        os._exit(0)


def _answer(opcode: int, node: int, body: bytes, files: dict[bytes, FuseFile], names: dict[int, bytes]) -> bytes:
    if opcode == _INIT:
        return struct.pack("<4I2H2I2H8I", 7, 31, 65536, 0, 12, 10, 65536, 1, *[0] * 10)
    if opcode == _LOOKUP:
        name = body.rstrip(b"\0")
        if name not in files:
            raise OSError(errno.ENOENT, "")
        number = next(n for n, known in names.items() if known == name)
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + _attributes(number, files[name])
    if opcode == _GETATTR:
        return struct.pack("<QII", 0, 0, 0) + _attributes(node, files.get(names.get(node, b"")))
    if opcode == _READDIR:
        return _entries(struct.unpack_from("<QQI", body), files, names)
    if opcode == _OPEN:
        file = files[names[node]]
        if file.on_open is not None:
            file.on_open()
        if file.open_error:
            raise OSError(file.open_error, "")
    if opcode in (_OPENDIR, _OPEN):
        return struct.pack("<QII", 0, _OPEN_DIRECT_IO, 0)
    if opcode == _READ:
        return _read(files[names[node]], struct.unpack_from("<QQI", body))
    if opcode == _UNLINK:
        name = body.rstrip(b"\0")
        if files[name].unlink_error:
            raise OSError(files[name].unlink_error, "")
        del files[name]
        return b""
    if opcode in (_RELEASE, _RELEASEDIR):
        return b""
    raise OSError(errno.ENOSYS, "")


def _attributes(number: int, file: FuseFile | None) -> bytes:
    if file is None:
        return _ATTR.pack(_ROOT, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o750, 2, 0, 0, 0, 4096, 0)
    size = len(file.data) if file.shown_size is None else file.shown_size
    seconds = file.mtime_s & (1 << 64) - 1
    return _ATTR.pack(number, size, 0, seconds, seconds, seconds, 0, 0, 0, stat.S_IFREG | 0o444, 1, 0, 0, 0, 4096, 0)


def _entries(asked: tuple[int, ...], files: dict[bytes, FuseFile], names: dict[int, bytes]) -> bytes:
    _, offset, size = asked
    listed = b""
    for number, name in names.items():
        if number > offset and name in files:
            entry = struct.pack("<QQII", number, number, len(name), stat.S_IFREG >> 12) + name
            entry += bytes(-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
    return listed


def _read(file: FuseFile, asked: tuple[int, ...]) -> bytes:
    _, offset, size = asked
    end = offset + min(size, file.piece)
    if file.fails_after is not None:
        if offset >= file.fails_after:
            raise OSError(errno.EIO, "")
        end = min(end, file.fails_after)
    return file.data[offset:end]
