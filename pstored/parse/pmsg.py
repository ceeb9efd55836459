# SPDX-License-Identifier: Apache-2.0
r"""Messages of user space: what was written to /dev/pmsg0 before the crash.

The kernel keeps the bytes of every write() one behind the other in a ring and adds nothing, so a record is what its
writers made of it.  Two forms are known, and content decides between them:

- **text**: anything.  It is shown unchanged.
- **Android**: liblog puts a header before each message (liblog/pmsg_writer.cpp).  Little-endian and packed::

      0  magic u8 'l'   len u16   uid u16   pid u16              android_pmsg_log_header_t; len counts all of it
      7  id u8   tid u16   seconds u32   nanoseconds u32         android_log_header_t; CLOCK_REALTIME
     18  text logs: priority u8, tag NUL, message NUL            main radio system crash kernel
         binary logs: tag i32, one value                         events stats security

  A value is a type byte and: 0 i32, 1 i64, 2 i32 length and text, 3 u8 count and that many values, 4 float.
  Text is ASCII or UTF-8, in which no such header can be: the bytes at 2 and 7 would be control characters.

Since a ring begins in the middle of a message, and a crash can hit one half written, the reader looks for the next
header byte by byte, as liblog's own does (pmsg_reader.cpp, PmsgRead()).  Plain lines between messages, such as the boot
stamp that pstored writes, are kept as they are; other bytes are skipped and counted.

liblog also stores small files (``__android_log_pmsg_file_write()``): messages with tag ``dir:file`` whose nanoseconds
are 1000 times the number of the piece.  They are put together again; pieces of different seconds are different
versions of the file and never mixed.

Contract: any bytes give a :class:`Pmsg`, never an error; time and memory are linear in the input, and nothing is kept
for a message but where it begins.
"""

import io
import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, overload

from pstored.errors import DamagedError

_HEADER = struct.Struct("<BHHHBHII")
# A cheap sieve before the header is really checked: magic, the high byte of a length up to 4087, a log id below 8, and
# the top byte of nanoseconds below 1e9.  It holds 18 bytes and has no repeats without bound.
_MAYBE_HEADER = re.compile(rb"l.[\x00-\x0f].{4}[\x00-\x07].{9}[\x00-\x3b]", re.DOTALL)

_LEN_MIN = 20  # a header and two bytes; liblog: more than the header and the priority
_LEN_MAX = 19 + 4068  # header, priority, LOGGER_ENTRY_MAX_PAYLOAD
_NSEC_PER_SEC = 1_000_000_000

_LOGS = ("main", "radio", "events", "system", "crash", "stats", "security", "kernel")  # log_id_t
_BINARY_LOGS = frozenset((2, 5, 6))
_FILE_LOGS = frozenset((0, 1, 3, 4))  # liblog refuses kernel, and the binary ones
_PRIORITIES = b"??VDIWEF"  # android_LogPriority; 0 and 1 are never logged
_PRIORITY_MIN, _PRIORITY_MAX = 2, 7

_INTEGER_SIZES = {0: 4, 1: 8}  # AndroidEventLogType
_STRING, _LIST, _FLOAT = 2, 3, 4
_NESTING_MAX = 8
"""Lists in lists; liblog's own ANDROID_MAX_LIST_NEST_DEPTH."""

#   file tag = dir ":" file     printable, no space, exactly one colon
_FILE_TAG = re.compile(rb"[!-9;-~]*:[!-9;-~]*")
_FILE_SEQUENCE_NS = 1000  # ANDROID_LOG_PMSG_FILE_SEQUENCE
_FILE_PIECES_MAX = 256  # ANDROID_LOG_PMSG_FILE_MAX_SEQUENCE
_ALL_PIECES_MAX = 16_384
"""Pieces of all files that are put together: 64 MiB of full ones; a bound on what is kept for hostile input."""

_CONTROL = bytes((*range(9), 11, 12, *range(14, 32), 127))
_TEXT = bytes(sorted(set(range(256)) - set(_CONTROL)))


class Framing(StrEnum):
    """What the writers of the record put round their messages."""

    TEXT = "text"
    ANDROID = "android"


class Message(NamedTuple):
    """One message of Android's liblog."""

    offset: int
    """Where its header begins in the record."""
    log: str
    """``main radio events system crash stats security kernel``."""
    uid: int
    """Modulo 65536, as are pid and tid."""
    pid: int
    tid: int
    time_ns: int
    """Wall clock of the writer, nanoseconds since 1970; only microseconds of a piece of a file are its number."""
    priority: str
    """``V D I W E F``, or ``-`` in a binary log."""
    tag: bytes
    """The tag; in a binary log its number in decimal, empty if it is missing."""
    text: bytes
    """The message without its NUL; in a binary log its value as logcat prints it, e.g. ``[1,2,on]``."""
    defect: str | None
    """Why the value of a binary message is not all there; None if it is, and in a text log."""


class PmsgFile(NamedTuple):
    """A file that a program saved in the ring, piece by piece."""

    name: bytes
    """``dir/file``."""
    log: str
    priority: str
    time_s: int
    """When it was written, wall clock of the writer, seconds since 1970."""
    pieces: tuple[tuple[int, bytes], ...]
    """Number and content, rising.  Whether the last one is the end of the file is not recorded."""

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the pieces before the last one that are gone."""
        there = {number for number, _ in self.pieces}
        return tuple(number for number in range(self.pieces[-1][0]) if number not in there)

    @property
    def content(self) -> bytes:
        """What is there of it."""
        return b"".join(piece for _, piece in self.pieces)


class Messages(Sequence[Message]):
    """The messages of a record in order; each is parsed when it is asked for."""

    __slots__ = ("_data", "_starts")

    def __init__(self, data: bytes, starts: "array[int]") -> None:
        self._data = data
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> "Messages": ...
    def __getitem__(self, index: int | slice) -> "Message | Messages":
        if isinstance(index, slice):
            return Messages(self._data, self._starts[index])
        return _message(self._data, self._starts[index])

    def __iter__(self) -> Iterator[Message]:
        return (_message(self._data, start) for start in self._starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pmsg:
    """A record of messages from user space."""

    data: bytes
    """The record."""
    framing: Framing
    messages: Messages = field(compare=False)
    """Android's messages, those that are pieces of files among them; empty for text."""
    files: tuple[PmsgFile, ...]
    """Files put together from messages, in the order of their first pieces."""
    skipped: int
    """Bytes that are neither in a message nor plain text; always 0 for text."""
    damage: tuple[str, ...]
    """What is missing, skipped or in doubt; one sentence each."""

    def lines(self) -> Iterator[bytes]:
        """Give what a person reads line by line, without newlines."""
        return (line.removesuffix(b"\n") for line in io.BytesIO(self.render()))

    def render(self) -> bytes:
        r"""Give what a person reads.

        Text is given as it is.  An Android message is a line ``2026-11-23 04:45:01.123  uid pid tid W tag: text``, in
        UTC; further lines of its text begin with a tab, so that no text can pass for a message.  In a binary log the
        tag has the log's name before it, ``events/2722``.  Files stand at the end.
        """
        if self.framing is Framing.TEXT:
            return self.data
        return _rendered(self)


def parse_pmsg(data: bytes) -> Pmsg:
    """Read a pmsg record, as text or as Android's messages, whichever it is.

    Args:
        data: the record, without its ECC notice.
    """
    starts = _message_starts(data)
    if not _is_android(data, starts):
        return Pmsg(
            data=data, framing=Framing.TEXT, messages=Messages(data, array("Q")), files=(), skipped=0, damage=()
        )
    messages = Messages(data, starts)
    damage = []
    skipped = sum(len(gap) - len(text) for _, gap, text in _gaps(data, starts))
    if skipped:
        damage.append(
            f"{_counted(skipped, 'byte', 'bytes')} of no message skipped: cut by the ring's start, or damaged"
        )
    defects = sum(message.defect is not None for message in messages)
    if defects:
        damage.append(f"{_counted(defects, 'binary message', 'binary messages')} not fully readable")
    files, complaints = _files(messages)
    return Pmsg(
        data=data,
        framing=Framing.ANDROID,
        messages=messages,
        files=files,
        skipped=skipped,
        damage=(*damage, *complaints),
    )


# --- finding messages ------------------------------------------------------------------------------------------------


def _message_starts(data: bytes) -> "array[int]":
    starts = array("Q")
    at = 0
    while found := _MAYBE_HEADER.search(data, at):
        size = _message_size(data, found.start())
        if size:
            starts.append(found.start())
        at = found.start() + (size or 1)
    return starts


def _message_size(data: bytes, start: int) -> int:
    """The length of the message at *start*; 0 if none is there.  Checks what PmsgRead() checks."""
    size: int
    _, size, _, _, log, _, _, nsec = _HEADER.unpack_from(data, start)
    if not _LEN_MIN <= size <= _LEN_MAX or start + size > len(data) or nsec >= _NSEC_PER_SEC:
        return 0
    if log not in _BINARY_LOGS and not _PRIORITY_MIN <= data[start + _HEADER.size] <= _PRIORITY_MAX:
        return 0
    return size


def _is_android(data: bytes, starts: "array[int]") -> bool:
    # One header can stand in random bytes by chance (once in 2 MB), but hardly where another message begins or the
    # record ends; and a record that is mostly messages is one of messages.
    covered = 0
    for i, start in enumerate(starts):
        end = start + _message_size(data, start)
        covered += end - start
        if end == len(data) or (i + 1 < len(starts) and end == starts[i + 1]):
            return True
    return 0 < len(data) <= covered * 2


def _gaps(data: bytes, starts: "array[int]") -> Iterator[tuple[int, bytes, bytes]]:
    """The bytes between messages: where they end, all of them, and those that are plain lines."""
    end = 0
    for start in chain(starts, (len(data),)):
        if start > end:
            gap = data[end:start]
            yield start, gap, _plain_lines(gap)
        end = start if start == len(data) else start + _message_size(data, start)


def _plain_lines(gap: bytes) -> bytes:
    text = gap[len(gap.rstrip(_TEXT)) :]
    try:
        text.decode()
    except UnicodeDecodeError:
        return b""
    return text if text.endswith(b"\n") else b""


# --- reading one message ---------------------------------------------------------------------------------------------


def _message(data: bytes, start: int) -> Message:
    _, size, uid, pid, log, tid, sec, nsec = _HEADER.unpack_from(data, start)
    payload = data[start + _HEADER.size : start + size]
    defect = None
    if log in _BINARY_LOGS:
        priority = "-"
        tag, text, defect = _binary_payload(payload)
    else:
        priority = chr(_PRIORITIES[payload[0]])
        tag, text = _text_payload(payload)
    return Message(
        offset=start,
        log=_LOGS[log],
        uid=uid,
        pid=pid,
        tid=tid,
        time_ns=sec * _NSEC_PER_SEC + nsec,
        priority=priority,
        tag=tag,
        text=text,
        defect=defect,
    )


def _text_payload(payload: bytes) -> tuple[bytes, bytes]:
    tag, nul, text = payload[1:].partition(b"\0")
    if not nul:  # cut by the writer at LOGGER_ENTRY_MAX_PAYLOAD, or by a program that has no tags
        return b"", tag
    return tag, text.removesuffix(b"\0")


def _binary_payload(payload: bytes) -> tuple[bytes, bytes, str | None]:
    if len(payload) < 4:
        return b"", b"", "tag missing"
    tag = b"%d" % int.from_bytes(payload[:4], "little", signed=True)
    out: list[bytes] = []
    end = 4
    try:
        if len(payload) > end:
            end = _append_value(payload, end, out, 0)
    except DamagedError as e:
        return tag, b"".join(out), f"{e}, {_counted(len(payload) - e.offset, 'byte', 'bytes')} unreadable"
    rest = payload[end:]
    # old liblog wrote a newline behind the value
    defect = None if rest in (b"", b"\n") else f"{_counted(len(rest), 'byte', 'bytes')} after the value"
    return tag, b"".join(out), defect


def _append_value(payload: bytes, at: int, out: list[bytes], depth: int) -> int:
    """Append the value at *at* as logcat prints it; gives where it ends."""
    if at >= len(payload):
        raise DamagedError("value missing", offset=at)
    kind = payload[at]
    if kind in _INTEGER_SIZES:
        end = _end(payload, at, at + 1 + _INTEGER_SIZES[kind])
        out.append(b"%d" % int.from_bytes(payload[at + 1 : end], "little", signed=True))
    elif kind == _STRING:
        text = _end(payload, at, at + 5)
        end = _end(payload, at, text + int.from_bytes(payload[at + 1 : text], "little"))
        out.append(payload[text:end])
    elif kind == _FLOAT:
        end = _end(payload, at, at + 5)
        out.append(b"%f" % float(struct.unpack("<f", payload[at + 1 : end])[0]))
    elif kind == _LIST and depth < _NESTING_MAX:
        end = _append_list(payload, at, out, depth)
    else:
        raise DamagedError("no value", offset=at)
    return end


def _append_list(payload: bytes, at: int, out: list[bytes], depth: int) -> int:
    end = _end(payload, at, at + 2)
    out.append(b"[")
    for i in range(payload[at + 1]):
        if i:
            out.append(b",")
        end = _append_value(payload, end, out, depth + 1)
    out.append(b"]")
    return end


def _end(payload: bytes, start: int, end: int) -> int:
    if end > len(payload):
        raise DamagedError("value cut", offset=start)
    return end


# --- files -----------------------------------------------------------------------------------------------------------


def _piece_number(message: Message) -> int | None:
    """Which piece of a file the message is; None if it is none.  The rules of __android_log_pmsg_file_read()."""
    number, rest = divmod(message.time_ns % _NSEC_PER_SEC, _FILE_SEQUENCE_NS)
    if rest or number >= _FILE_PIECES_MAX or _LOGS.index(message.log) not in _FILE_LOGS:
        return None
    return number if message.text and _FILE_TAG.fullmatch(message.tag) else None


def _piece(messages: Messages, message: Message) -> bytes:
    # not message.text: a NUL at the end of a piece belongs to the file
    data, start = messages._data, message.offset
    return data[start + _HEADER.size + 1 + len(message.tag) + 1 : start + _message_size(data, start)]


def _files(messages: Messages) -> tuple[tuple[PmsgFile, ...], list[str]]:
    versions: dict[tuple[str, str, bytes, int], dict[int, bytes]] = {}
    kept = over = 0
    for message in messages:
        number = _piece_number(message)
        if number is None:
            continue
        if kept == _ALL_PIECES_MAX:
            over += 1
            continue
        kept += 1
        key = (message.log, message.priority, message.tag, message.time_ns // _NSEC_PER_SEC)
        versions.setdefault(key, {})[number] = _piece(messages, message)
    files = tuple(
        PmsgFile(tag.replace(b":", b"/"), log, priority, time_s, tuple(sorted(pieces.items())))
        for (log, priority, tag, time_s), pieces in versions.items()
    )
    missing = sum(file.pieces[-1][0] + 1 - len(file.pieces) for file in files)
    damage = []
    if missing:
        damage.append(f"{_counted(missing, 'piece', 'pieces')} of saved files missing")
    if over:
        damage.append(
            f"{_counted(over, 'piece', 'pieces')} of saved files left as messages: more than {_ALL_PIECES_MAX}"
        )
    return files, damage


# --- what a person reads ---------------------------------------------------------------------------------------------


def _rendered(pmsg: Pmsg) -> bytes:
    # The ends of the gaps are starts of messages, so both come in order.
    gaps = _gaps(pmsg.data, pmsg.messages._starts)
    gap = next(gaps, None)
    out = io.BytesIO()
    pieces = 0
    for message in pmsg.messages:
        if gap is not None and gap[0] == message.offset:
            out.write(gap[2])
            gap = next(gaps, None)
        if pieces < _ALL_PIECES_MAX and _piece_number(message) is not None:
            pieces += 1
        else:
            out.write(_message_line(message))
    if gap is not None:
        out.write(gap[2])
    for file in pmsg.files:
        _write_file(out, file)
    return out.getvalue()


def _message_line(message: Message) -> bytes:
    sec, nsec = divmod(message.time_ns, _NSEC_PER_SEC)
    log = b"" if message.priority != "-" else message.log.encode() + b"/"
    defect = f" <{message.defect}>".encode() if message.defect else b""
    return b"%b.%03d  %d %d %d %b %b%b: %b%b\n" % (
        _utc(sec),
        nsec // 1_000_000,
        message.uid,
        message.pid,
        message.tid,
        message.priority.encode(),
        log,
        message.tag.replace(b"\n", b"\n\t"),
        message.text.rstrip(b"\n").replace(b"\n", b"\n\t"),
        defect,
    )


def _write_file(out: io.BytesIO, file: PmsgFile) -> None:
    out.write(b"\nfile %b, saved %b in log %b\n" % (file.name, _utc(file.time_s), file.log.encode()))
    expected = 0
    for number, piece in file.pieces:
        if number > expected:
            out.write(b"<%d pieces missing>\n" % (number - expected))
        out.write(b"\t" + piece.removesuffix(b"\n").replace(b"\n", b"\n\t") + b"\n")
        expected = number + 1


@lru_cache(maxsize=64)
def _utc(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S").encode("ascii")


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
