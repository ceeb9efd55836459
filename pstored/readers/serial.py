# SPDX-License-Identifier: Apache-2.0
"""Any text log of a console: what a serial line gave, through whatever program that wrote it down; kernel.log, too.

Each boot in it that has crashed gives a record ``console-serial-N``, where N is the number of the boot in the log:
the console's text without line ends of terminals, escape sequences and the stamps of loggers, so that it can be
compared with what pstore has of that boot.  What the log says of the time is told as the record's.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from pstored.logs import Log
from pstored.oops.headers import candidates
from pstored.oops.lines import Line, parse_line
from pstored.readers.console import BLOCK, Boot, Cleaner, Splitter, may_crash
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from pstored.readers.stamps import Style, style_of

SAMPLES = 16
SAMPLE = 16 * 1024
"""Bytes of each place that is looked at to recognize a log: its beginning, its end, and some between."""
MANY = 3
"""Lines with the kernel's times, which make a text a log of it."""
REBOOT_NS = 10_000_000_000
"""A panic may be followed by another one of the same boot, but not so long after."""
NEAR = 1000
"""Lines before a report among which one has a stamp."""

_TIME = re.compile(rb"(?:^|[\]>: ])\[ {0,5}[0-9]{1,8}\.[0-9]{6}\][ \[]")
_BANNER = re.compile(rb"Linux version [0-9]{1,3}\.[0-9]{1,3}[^ ]{0,80} \(")
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f-\xff]")
_PANIC = b"Kernel panic - not syncing"
_LAST_WORDS = re.compile(rb"---\[ end Kernel panic|Rebooting in [0-9]{1,9} seconds")


def recognize(source: Source) -> bool:
    """Whether it is text, and has the kernel's times, its banner, or a report."""
    step = max(SAMPLE, source.size // SAMPLES)
    places = {*range(0, source.size, step), max(0, source.size - SAMPLE)}
    text = b"\n".join(source.read(at, SAMPLE) for at in sorted(places))
    if len(_BINARY.findall(text)) * 8 > len(text):
        return False
    text = Cleaner().feed(text + b"\n")
    times = sum(_TIME.search(line) is not None for line in text.split(b"\n"))
    return times >= MANY or _BANNER.search(text) is not None or (bool(candidates(text)) and may_crash(text))


def read(source: Source, options: Options) -> Iterator[Salvaged | Remark]:  # noqa: ARG001 - as all readers
    """Each boot with a crash."""
    crashes = Crashes("serial")
    for boot in _boots(source):
        yield from crashes.records(boot)
    yield crashes.remark()


def _boots(source: Source) -> Iterator[Boot]:
    cleaner, splitter = Cleaner(), Splitter()
    at = 0
    while piece := source.read(at, BLOCK):
        at += len(piece)
        yield from splitter.feed(cleaner.feed(piece))
    yield from splitter.feed(cleaner.end())
    yield from splitter.end()


class Crashes:
    """Gives the boots of one source their numbers, and those with a crash their records."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._boots = 0
        self._crashes = 0

    def remark(self) -> Remark:
        """How many boots there were, and how many of them crashed."""
        return Remark(f"{self._boots} boot{'s' * (self._boots != 1)}, {self._crashes or 'none'} with a crash")

    def records(self, boot: Boot) -> Iterator[Salvaged]:
        """The record of the next boot, if it has crashed; those of two, if it turns out to be two."""
        if not boot.suspect:
            self._boots += 1
            return
        lines = boot.text.split(b"\n")
        style = style_of(lines)
        plain = [style.split(line).text for line in lines]
        for first, end in pairwise([0, *_later_boots(plain), len(lines)]):
            self._boots += 1
            log = Log(b"\n".join(plain[first:end]))
            if log.event is None:
                continue
            self._crashes += 1
            header = log.event.header + max(0, end - first - len(log.lines))
            time_ns, note = _time(style, lines[max(first, first + header - NEAR) : first + header + 1])
            notes = [note] if note else []
            notes += [f"{boot.left_out} bytes of this boot's log are left out"] if boot.left_out else []
            name = f"console-{self._backend}-{self._boots}"
            yield Salvaged(name, log.text.rstrip(b"\n") + b"\n", time_ns or 0, notes=tuple(notes))


def _later_boots(lines: list[bytes]) -> list[int]:
    """Where another boot must have begun, though nothing says so: a kernel panics once."""
    panics = [i for i, line in enumerate(lines) if _PANIC in line and b"---[ end" not in line]
    if len(panics) < 2:
        return []
    found: list[int] = []
    first = panics[0]
    for later in panics[1:]:
        at = _end_of_boot([parse_line(line) for line in lines[first : later + 1]])
        if at is not None:
            found.append(first + at)
            first = later
    return found


def _end_of_boot(lines: list[Line]) -> int | None:
    """Of the lines from one panic to another, the first that the next boot has written; None if there was none."""
    ends = [i for i, line in enumerate(lines) if _LAST_WORDS.match(line.text)]
    if ends:
        return ends[-1] + 1
    panicked, again = lines[0].time_ns, lines[-1].time_ns
    if panicked is None or again is None or again - panicked < REBOOT_NS:
        return None
    return next(i for i, line in enumerate(lines) if (line.time_ns or 0) - panicked >= REBOOT_NS)


def _time(style: Style, lines: list[bytes]) -> tuple[int | None, str | None]:
    """What the stamp of the last line that has one says, and what is to be known of it."""
    for line in reversed(lines):
        stamped = style.split(line)
        if not stamped.words:
            continue
        words = stamped.words.decode(errors="backslashreplace")
        if stamped.time_ns is None:
            return None, f"the logger's time of the crash has no date, or no year: {words}"
        note = None if stamped.zoned else f"the logger's time of the crash does not say its zone, UTC is taken: {words}"
        return stamped.time_ns, note
    return None, None


READER = Reader(recognize, read)
