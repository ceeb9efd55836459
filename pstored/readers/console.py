# SPDX-License-Identifier: Apache-2.0
r"""A console's text, however long, as the boots it is of; of each boot is kept what may tell of a crash.

A boot begins where the kernel says its version, where its clock goes back, or where a firmware or boot loader speaks
that is known; what stands between the kernel's last line and that is the next boot's.  Kernels that boot ``quiet`` say
no version, boards have firmware of their own, lines are lost or damaged: so any one of these is enough, and none is
taken from a single line whose digits may have suffered.

Of a boot as long as this keeps in memory (MAX_KEPT), all is kept; of a longer one its beginning, its end, and what
stands around the lines that may begin a report.  The work is linear, some 40 MB/s.
"""

import re
from collections.abc import Iterator
from itertools import islice
from operator import sub
from typing import NamedTuple

from pstored.oops import Severity, analyze
from pstored.oops.headers import candidates
from pstored.parse.kmsg import gap_line
from pstored.readers.stamps import split_stamp

BLOCK = 256 * 1024
"""Bytes that are looked at, kept, and left out together."""
MAX_KEPT = 16 * BLOCK
"""Of one boot."""
MAX_LINE = BLOCK
"""A longer line is cut: it is none."""
SLACK_S = 2
"""CPUs print out of order, but not by so much."""
ALIVE_S = 2
"""A kernel whose clock has come so far has begun; before, some lines may come before its version."""

_TIME = re.compile(rb"\[ {0,5}([0-9]{1,8})\.[0-9]{6}\]")
_BANNER = re.compile(rb"Linux version [0-9]")
_BEFORE_BANNER = b"Booting Linux on physical CPU"
"""On arm, the kernel's first line of all."""
_FIRMWARE = (
    _BEFORE_BANNER,
    b"U-Boot SPL ",
    b"\nU-Boot 20",
    b"SeaBIOS (version ",
    b"EFI stub: ",
    b"BdsDxe: ",
    b"GNU GRUB  version",
    b"Welcome to GRUB!",
    b"OpenSBI v",
    b"NOTICE:  BL",
    b"coreboot-",
    b"iPXE initialising",
    b"Starting kernel ...",
)
"""Of x86, arm, RISC-V; of what is not here, the clock or the banner tells."""

_ESCAPE = re.compile(
    rb"\x1b(?:\[[0-?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b\n]{0,256}(?:\x07|\x1b\\)|[()*+][ -~]|[ -/]?[0-Z\\^-~])"
)

_LATE_RETURN = re.compile(rb"\n\r+")


class Cleaner:
    """What a terminal would not show is taken out; what comes in pieces goes out in whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The lines that are whole now: their ends are LF, and there are no NULs and no escape sequences in them."""
        data = (self._rest + data).lstrip(b"\r")  # of an LF CR that was read in two
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) > MAX_LINE else 0)
        self._rest = data[end:]
        return _clean(data[:end])

    def end(self) -> bytes:
        """What is left: a last line without an end."""
        data, self._rest = self._rest.lstrip(b"\r"), b""
        return _clean(data)


def _clean(data: bytes) -> bytes:
    data = data.translate(None, b"\0")
    if b"\r" in data:
        # terminal servers send CR CR LF, some firmware LF CR; a CR alone is a program's that draws over its line
        data = data.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n")
        data = _LATE_RETURN.sub(b"\n", data).replace(b"\r", b"\n")
    return _ESCAPE.sub(b"", data) if b"\x1b" in data else data


class Boot(NamedTuple):
    """The text of one boot."""

    text: bytes
    """As the log has it, stamps of loggers included; where something is left out, a line of ours says so."""
    left_out: int
    """Bytes."""
    suspect: bool
    """Whether a line in it may begin the report of a crash; otherwise there is none."""


class Splitter:
    """Takes a console's text piece by piece, and gives each boot once it is over."""

    def __init__(self, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._held = b""  # from a last line on whose clock goes back: the next one tells whether that is true
        self._begin()

    def _begin(self) -> None:
        self._kept = _Kept(self._max_kept)
        self._has_banner = self._is_timed = self._is_alive = False
        self._before: list[int] = []  # the last two times

    def feed(self, text: bytes) -> Iterator[Boot]:
        """Take whole lines in, best some BLOCK at once."""
        text, self._held = self._held + text, b""
        while len(text) > 2 * BLOCK:
            end = text.rfind(b"\n", 0, BLOCK) + 1 or BLOCK
            yield from self._take_or_split(text[:end], is_last=False)
            text, self._held = self._held + text[end:], b""
        yield from self._take_or_split(text, is_last=True)

    def end(self) -> Iterator[Boot]:
        """Give the last boot; what is fed then is of another."""
        held, self._held = self._held, b""
        self._take(held)
        if self._kept.cost:
            yield self._close()

    def _close(self) -> Boot:
        kept = self._kept
        self._begin()
        return Boot(kept.text(), kept.left_out, kept.suspect)

    def _take_or_split(self, text: bytes, *, is_last: bool) -> Iterator[Boot]:
        seconds = [int(s) for s in _TIME.findall(text)]
        times = self._before + seconds
        falls = max(map(sub, times, islice(times, 1, None)), default=0) > SLACK_S
        if falls or _BANNER.search(text) or any(word in text for word in _FIRMWARE):
            yield from self._split(text, is_last=is_last)
            return
        self._note(*seconds[-2:])
        self._is_alive = self._is_alive or max(seconds, default=0) >= ALIVE_S
        self._take(text)

    def _take(self, text: bytes) -> None:
        if text:
            self._kept.add(text, suspect=may_crash(text))

    def _note(self, *times: int) -> None:
        self._before = [*self._before, *times][-2:]
        self._is_timed = self._is_timed or bool(times)
        self._is_alive = self._is_alive or any(t >= ALIVE_S for t in times)

    # -- where a boot begins

    def _split(self, text: bytes, *, is_last: bool) -> Iterator[Boot]:
        lines = text.splitlines(keepends=True)
        times = [None if (m := _TIME.search(line)) is None else int(m[1]) for line in lines]
        following = _following(times)
        begin = quiet = 0  # the first line of this boot; the first behind its last one with a time
        for i, (line, time) in enumerate(zip(lines, times, strict=True)):
            if self._is_back(time) and following[i] is None and (i or is_last) and sum(map(len, lines[i:])) < BLOCK:
                self._held = b"".join(lines[i:])
                lines = lines[:i]
                break
            if self._begins(line, time, following[i], lines[begin:i]):
                cut = quiet if self._is_timed and quiet > begin else i
                self._take(b"".join(lines[begin:cut]))
                if self._kept.cost:
                    yield self._close()
                begin = cut
            self._has_banner = self._has_banner or _BANNER.search(line) is not None
            if time is not None:
                self._note(time)
                quiet = i + 1
        self._take(b"".join(lines[begin:]))

    def _is_back(self, time: int | None) -> bool:
        return time is not None and bool(self._before) and all(t - SLACK_S > time for t in self._before)

    def _begins(self, line: bytes, time: int | None, following: int | None, before: list[bytes]) -> bool:
        if self._is_back(time) and self._is_back(following):
            return True
        if _BANNER.search(line) is not None:
            if self._is_timed and time is None:
                return False  # a program's: /proc/version
            ran = self._has_banner or self._is_alive or self._kept.suspect
            return ran or (not self._is_timed and may_crash(b"".join(before)))
        speaks = _BEFORE_BANNER in line or (time is None and any(word.strip() in line for word in _FIRMWARE))
        return speaks and (self._has_banner or self._is_alive)


def _following(times: list[int | None]) -> list[int | None]:
    """For each line, the time of the next that has one."""
    found: list[int | None] = []
    after = None
    for time in reversed(times):
        found.append(after)
        after = after if time is None else time
    return found[::-1]


def may_crash(text: bytes) -> bool:
    """Whether a line of some text may begin the report of a crash: a look at the lines that may alone."""
    found: dict[int, bytes] = {}
    for at, _ in candidates(text):
        if len(found) == MOST_LINES:
            return True
        begin = text.rfind(b"\n", 0, at) + 1
        if begin not in found:
            end = _end_of_line(text, at)
            behind = _end_of_line(text, end + 1)
            lines = (text[begin : min(end, begin + MAX_LOOK)], text[end + 1 : min(behind, end + MAX_LOOK)])
            found[begin] = b"\n".join(split_stamp(line).text for line in lines)
    return any(e.severity is not Severity.WARNING for e in analyze(b"\n".join(found.values())))


def _end_of_line(text: bytes, at: int) -> int:
    end = text.find(b"\n", at)
    return len(text) if end < 0 else end


MOST_LINES = 500
"""With more lines in a block that may begin a report, one of them does, or this is no log."""
MAX_LOOK = 1024
"""Bytes of a line in which it says what it is."""


# -- what is kept


class _Piece(NamedTuple):
    text: bytes
    suspect: bool
    left_out: int = 0
    """Bytes that stood here."""


def _cost(text: bytes) -> int:
    """What some text takes once it is lines: of a thousand line ends more than of a line of thousand letters."""
    return len(text) + 24 * text.count(b"\n")


class _Kept:
    """The text of one boot, within limits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[_Piece] = []
        self.cost = 0
        self.left_out = 0
        self.suspect = False

    def add(self, text: bytes, *, suspect: bool) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.text and len(last.text) + len(text) <= BLOCK:
            self._pieces[-1] = _Piece(last.text + text, suspect or last.suspect)
        else:
            self._pieces.append(_Piece(text, suspect))
        self.cost += _cost(text)
        self.suspect = self.suspect or suspect
        while self.cost > self._limit and self._leave_out():
            pass

    def _leave_out(self) -> bool:
        """Leave out one piece: not the first nor the last two, and none beside a report, if that can be helped."""
        pieces = self._pieces
        there = [i for i in range(1, len(pieces) - 2) if pieces[i].text]
        if not there:
            return False
        idle = (i for i in there if not any(piece.suspect for piece in pieces[i - 1 : i + 2]))
        at = next(idle, there[len(there) // 2])
        text = pieces[at].text
        self.cost -= _cost(text)
        self.left_out += len(text)
        begin = at - 1 if not pieces[at - 1].text else at
        end = at + 2 if not pieces[at + 1].text else at + 1
        lost = len(text) + sum(piece.left_out for piece in pieces[begin:end])
        pieces[begin:end] = [_Piece(b"", False, lost)]
        return True

    def text(self) -> bytes:
        return b"".join(p.text or gap_line(f"{p.left_out} bytes of this boot are left out here") for p in self._pieces)
