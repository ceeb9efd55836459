# SPDX-License-Identifier: Apache-2.0
"""An Android bug report, as text or zipped: the console of the boot before stands in it.

Source: frameworks/native/cmds/dumpstate.  The text is made of sections::

    ========================================================
    == dumpstate: 2026-11-23 04:18:57
    ...
    ------ LAST KMSG (/sys/fs/pstore/console-ramoops-0: 2026-11-23 04:17:01) ------
    [    0.000000] Booting Linux on physical CPU 0x0
    ...
    ------ 0.004s was the duration of 'LAST KMSG' ------

In a zip it is ``bugreport*.txt``.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from pstored.readers.lastkmsg import MAX_RECORD, RECORD
from pstored.readers.memory import AsFile
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source

HEAD = 4096
"""Bytes in which the text says what it is."""
MAX_TEXT = 4 << 30
"""Bytes of text that are unpacked: reports have some hundred MiB."""
MAX_LINE = 64 * 1024
MAX_DIRECTORY = 4 << 20
"""Bytes of a zip's directory: some ten thousand files, which is many times what a report has."""
END_RECORD = 22
MAX_COMMENT = 65535

_TEXT = re.compile(rb"(?m)^== dumpstate: ")
_ENTRY = re.compile(r"(?:[^/]*/)?bugreport[^/]*\.txt")
_BEGIN = re.compile(rb"------ LAST KMSG \((/[^)\n]{1,300})\) ------")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ABSENT = b"*** /"
"""What stands in the section where the file cannot be read: its name, and why."""


def recognize(source: Source) -> bool:
    """Whether the text begins so, or a zip has such a file."""
    head = source.read(0, HEAD)
    if not head.startswith(b"PK\x03\x04"):
        return _TEXT.search(head) is not None
    try:
        return _entry(_unzip(source)) is not None
    except zipfile.BadZipFile:
        return False


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as all readers
    """The last kmsg, if the report has one."""
    there = False
    try:
        for section in _sections(_open(source)):
            there = True
            yield section
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as e:
        yield Remark(f"the zip file is damaged: {e}", is_damage=True)
    if not there:
        yield Remark("it has no LAST KMSG: the device kept nothing of the boot before")


def _sections(text: BinaryIO) -> Iterator[Salvaged]:
    left = MAX_TEXT
    while left > 0 and (line := text.readline(MAX_LINE)):
        left -= len(line)
        found = _BEGIN.match(line) if line.startswith(b"------ ") else None
        if found is None:
            continue
        data = bytearray()
        cut = False
        while (line := text.readline(MAX_LINE)) and not line.startswith(b"------ "):
            cut = cut or len(data) + len(line) > MAX_RECORD
            data += b"" if cut else line
        if data and not data.startswith(_ABSENT):
            where = found[1].decode(errors="backslashreplace")
            damage = (f"only the first {MAX_RECORD} bytes are looked at",) if cut else ()
            yield Salvaged(RECORD, bytes(data), notes=(f"in the report it is {where}",), damage=damage)


# -- the text, wherever it is


def _open(source: Source) -> BinaryIO:
    if source.read(0, 4) != b"PK\x03\x04":
        return io.BufferedReader(AsFile(source))
    zipped = _unzip(source)
    entry = _entry(zipped)
    if entry is None:
        raise zipfile.BadZipFile("there is no bugreport*.txt in it")
    return io.BufferedReader(cast("io.RawIOBase", zipped.open(entry)))  # by itself it reads lines byte by byte


def _unzip(source: Source) -> zipfile.ZipFile:
    """Open a zip, whose directory zipfile reads as a whole.

    Raises:
        zipfile.BadZipFile: it is damaged, or has more files than any report.
    """
    at = max(0, source.size - END_RECORD - MAX_COMMENT)
    tail = source.read(at, END_RECORD + MAX_COMMENT)
    end = tail.rfind(b"PK\x05\x06")
    size = int.from_bytes(tail[end + 12 : end + 16], "little")
    if end < 0 or size > MAX_DIRECTORY:
        raise zipfile.BadZipFile("it has no end" if end < 0 else f"its directory has {size} bytes")
    try:
        return zipfile.ZipFile(AsFile(source))
    except (ValueError, OverflowError, EOFError, NotImplementedError, struct.error) as e:
        raise zipfile.BadZipFile(str(e)) from e


def _entry(zipped: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    """The largest text; a report of several users' has one each."""
    texts = [e for e in zipped.infolist() if _ENTRY.fullmatch(e.filename) and e.compress_type in _PACKED]
    return max(texts, key=lambda entry: entry.file_size, default=None)


READER = Reader(recognize, read)
