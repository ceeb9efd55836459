# SPDX-License-Identifier: Apache-2.0
"""The frames of a report, found again in the symbols of the kernel that wrote it: names for addresses, files and lines.

A kernel that does not fit the report is not used: its lines would be those of another source.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pstored.errors import SymbolsError
from pstored.oops import Event, Frame, Stack

#   address "  " type " " name, as nm(1) prints them; scripts/mksysmap
_MAP_LINE = re.compile(rb"([0-9a-f]{8,16}) ([A-Za-z]) (\S{1,511})(?:[ \t][^\n]{0,100})?$")
_TEXT_TYPES = frozenset(b"tTwW")
#   arch/x86/kernel/setup.c, arch/arm64/kernel/setup.c: dump_kernel_offset()
_OFFSET = re.compile(rb"Kernel Offset: (?:0x([0-9a-f]{1,16}) from 0x[0-9a-f]{1,16}|(disabled))")
_BANNER = re.compile(rb"Linux version (\S{1,100}) [^\n]{0,600}?(#\d{1,6}[^\n]{0,200})")
#   the build id behind the version: lib/dump_stack.c, CONFIG_STACKTRACE_BUILD_ID
_BUILD_ID = re.compile(rb"PID: [^\n]{1,200} #\d{1,6}[^\n]{0,20}? ([0-9a-f]{40})\b")
#   an address and what the kernel knew to be there: "[<c0..>] (name+0x1/0x2)", "NIP [c0..] name+0x1/0x2"
_PAIR = re.compile(
    rb"\b([0-9a-f]{8,16})>?\]?\)? {1,2}(?:\? )?[({]?([A-Za-z_$][\w$.]{0,511})\+0x([0-9a-f]{1,8})/0x([0-9a-f]{1,8})"
    rb"(?![)}>]{0,2} {0,2}\[)"
)
_GENERATED = ("bpf_prog_", "bpf_trampoline_", "bpf_dispatcher_")
"""Functions that no file has: made while the kernel ran."""


class Symbol(NamedTuple):
    """A function of the kernel."""

    name: str
    address: int
    """Where it was linked to stand."""
    sizes: tuple[int, ...]
    """Bytes to the next symbol, which is what the kernel calls its size; and what the compiler says, if it does."""


class SymbolTable:
    """The functions of a kernel by name and by address."""

    def __init__(self, symbols: Iterable[tuple[int, bytes, int]]) -> None:
        """Take address, name, and size as the compiler says (0: it does not) of each symbol of its code."""
        self._rows = sorted(symbols)
        self._addresses = [row[0] for row in self._rows]
        self._named: dict[bytes, list[int]] = {}
        for index, row in enumerate(self._rows):
            self._named.setdefault(_plain(row[1]), []).append(index)

    def __len__(self) -> int:
        return len(self._rows)

    def named(self, name: str) -> list[Symbol]:
        """All functions of that name; static ones may be several."""
        return [self._symbol(index) for index in self._named.get(_plain(name.encode()), ())]

    def at(self, address: int) -> Symbol | None:
        """The function that an address is in; the last symbol has no end, and nothing is in it."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        symbol = self._symbol(bisect_right(self._addresses, self._addresses[index] - 1))
        return symbol if symbol.sizes and address - symbol.address < symbol.sizes[0] else None

    def _symbol(self, index: int) -> Symbol:
        address, name, own = self._rows[index]
        behind = bisect_right(self._addresses, address)
        gap = (self._addresses[behind] - address,) if behind < len(self._addresses) else ()
        return Symbol(name.decode(errors="backslashreplace"), address, gap + ((own,) if own else ()))


def _plain(name: bytes) -> bytes:
    """Without what clang's LTO puts behind static functions, and kallsyms takes off (kernel/kallsyms.c)."""
    return name.partition(b".llvm.")[0]


def parse_system_map(text: bytes) -> SymbolTable:
    """The functions in a System.map.

    Raises:
        SymbolsError: it is none, or damaged.
    """
    symbols = []
    for number, line in enumerate(text.splitlines(), 1):
        found = _MAP_LINE.match(line)
        if found is not None:
            if found[2][0] in _TEXT_TYPES:
                symbols.append((int(found[1], 16), found[3], 0))
        elif line.strip() and not line.lstrip().startswith(b"U "):  # undefined and weak: no address
            raise SymbolsError(f"line {number} is not what a System.map has", hint="nm -n vmlinux prints such lines")
    if not symbols:
        raise SymbolsError("there is no function in it", hint="Debian has the real one in linux-image-VERSION-dbg")
    return SymbolTable(symbols)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The symbols of a kernel, and what tells which kernel it is; None is what its file does not say."""

    name: str
    """The file's."""
    table: SymbolTable
    release: str | None = None
    banner: bytes | None = None
    """``Linux version ...``."""
    build_id: str | None = None
    moves: bool = True
    """Whether such a kernel may run elsewhere than where it was linked to (KASLR)."""
    find_line: Callable[[int], tuple[str, int] | None] = lambda _: None
    """File and line of the instruction at an address."""
    lacks: str | None = None
    """What is to be said of what it does not have."""


def symbolize(text: bytes, events: Sequence[Event], kernel: Kernel) -> tuple[list[Event], list[str]]:
    """The same events, their frames with names, files and lines; and what is to be said of it.

    Args:
        text: the log that the events are of.
    """
    if not events:
        return [], []
    log = _Log(text)
    done: list[Event] = []
    notes = [] if kernel.lacks is None else [f"{kernel.name} {kernel.lacks}"]
    for event in events:
        found = _Found(log, event, kernel)
        done.append(found.symbolized())
        where = f"lines {event.first + 1} to {event.last}: " if len(events) > 1 else ""
        notes += [where + note for note in found.notes]
    return done, notes


class _Log:
    """The lines of a log that tell which kernel ran, and where."""

    def __init__(self, text: bytes) -> None:
        self.lines = text.split(b"\n")
        self.banners: list[tuple[int, re.Match[bytes]]] = []
        self.offsets: list[tuple[int, int]] = []
        for index, line in enumerate(self.lines):
            if b"Linux version " in line and (found := _BANNER.search(line[:2048])):
                self.banners.append((index, found))
            elif b"Kernel Offset: " in line and (found := _OFFSET.search(line[:2048])):
                self.offsets.append((index, 0 if found[2] else int(found[1], 16)))

    def banner(self, event: Event) -> re.Match[bytes] | None:
        """Of the boot that the event is of."""
        return next((found for at, found in reversed(self.banners) if at <= event.first), None)

    def offset(self, event: Event) -> int | None:
        """What the panic after an event says of where the kernel stood; the next boot's does not count."""
        end = next((at for at, _ in self.banners if at > event.first), len(self.lines))
        return next((offset for at, offset in self.offsets if event.first <= at < end), None)


class _Found:
    """One event in one kernel."""

    def __init__(self, log: _Log, event: Event, kernel: Kernel) -> None:
        self.event = event
        self.kernel = kernel
        self.lines = log.lines[event.first : event.last]
        self.notes: list[str] = []
        said = log.offset(event)
        seen = self._seen_offset()
        self.slide = seen if said is None else said
        if self.slide is None and not kernel.moves:
            self.slide = 0
        frames = [frame for stack in _stacks(event) for frame in stack]
        self.checked = {frame for frame in frames if _is_of_kernel(frame) and frame.size is not None}
        self.wrong = sorted({f.function or "" for f in self.checked if not self._candidates(f)})
        self.misfit = self._misfit(log.banner(event))
        if self.misfit is None and None not in (said, seen) and said != seen:
            self.misfit = f"its functions stand {seen:#x} from where they ran, and the kernel says {said:#x}"
        self._note(frames)

    def _note(self, frames: list[Frame]) -> None:
        name = self.kernel.name
        if self.misfit is not None:
            self.notes.append(f"{name} IS NOT OF THE KERNEL THAT CRASHED, and was not used: {self.misfit}")
            return
        if self.wrong:
            self.notes.append(f"{name} has no such function, or of another size: {_some(self.wrong)}")
        if frames and not self.checked and self.event.release is None:
            self.notes.append(f"nothing in the report tells whether {name} is of the kernel that crashed")
        if self.slide is None and any(f.function is None for f in frames):
            self.notes.append("no line tells where the kernel stood (Kernel Offset): addresses have no names")

    def _misfit(self, banner: re.Match[bytes] | None) -> str | None:
        """Why this is another kernel; None if nothing says so."""
        kernel, event = self.kernel, self.event
        ids = {found[1].decode() for line in self.lines if b"PID: " in line and (found := _BUILD_ID.search(line))}
        if ids and kernel.build_id is not None:
            return None if kernel.build_id in ids else f"its build id is {kernel.build_id}, the log's {min(ids)}"
        if event.release is not None and kernel.release is not None and event.release != kernel.release:
            return f"it is {kernel.release}, the log's is {event.release}"
        own = None if kernel.banner is None else _BANNER.search(kernel.banner)
        if own is not None and banner is not None and own.groups() != _stripped(banner):
            return f"it is {_text(own)}, the log's is {_text(banner)}"
        functions = {f.function for f in self.checked}
        if len(self.wrong) * 2 > len(functions):
            return f"functions are missing in it or have other sizes: {_some(self.wrong)}"
        return None

    def _seen_offset(self) -> int | None:
        """The offset by the addresses that the kernel printed beside symbols."""
        votes: Counter[int] = Counter()
        for line in self.lines:
            for found in _PAIR.finditer(line[:2048]):
                frame = Frame(found[2].decode(), int(found[3], 16), int(found[4], 16))
                symbols = self._candidates(frame)
                if len(symbols) == 1:
                    votes[int(found[1], 16) - int(found[3], 16) - symbols[0].address] += 1
        return votes.most_common(1)[0][0] if votes else None

    def _candidates(self, frame: Frame) -> list[Symbol]:
        """The functions that a frame may be in: of its name and size."""
        return [s for s in self.kernel.table.named(frame.function or "") if frame.size in s.sizes]

    def symbolized(self) -> Event:
        """The event with what was found."""
        if self.misfit is not None:
            return self.event
        trace = self._frames(self.event.call_trace)
        pc = None if self.event.pc is None else self._frame(self.event.pc, returns=False)
        stacks = tuple(Stack(title=s.title, frames=self._frames(s.frames)) for s in self.event.stacks)
        return replace(self.event, pc=pc, call_trace=trace, stacks=stacks)

    def _frames(self, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        pc = self.event.pc and self.event.pc[:2]  # arm64 and others begin the trace with it
        return tuple(self._frame(frame, returns=n > 0 or frame[:2] != pc) for n, frame in enumerate(frames))

    def _frame(self, frame: Frame, *, returns: bool) -> Frame:
        if frame.function is None:
            frame = self._name(frame)
        if not _is_of_kernel(frame) or frame.offset is None:
            return frame
        symbols = self._candidates(frame)
        if len(symbols) > 1 and frame.address is not None and self.slide is not None:
            symbols = [s for s in symbols if s.address + frame.offset + self.slide == frame.address]
        if len(symbols) != 1:
            return frame
        # what is on a stack is where a call returns to, perhaps another line's: the call stands before it
        found = self.kernel.find_line(symbols[0].address + frame.offset - (returns and frame.offset > 0))
        return frame if found is None else frame._replace(file=found[0], line=found[1])

    def _name(self, frame: Frame) -> Frame:
        """A frame of which only the address is known."""
        if frame.address is None or self.slide is None:
            return frame
        symbol = self.kernel.table.at(frame.address - self.slide - 1)  # of the call: sprint_backtrace()
        if symbol is None:
            return frame
        offset = frame.address - self.slide - symbol.address
        return frame._replace(function=symbol.name, offset=offset, size=symbol.sizes[0])


def _stacks(event: Event) -> list[tuple[Frame, ...]]:
    pc = () if event.pc is None else (event.pc,)
    return [pc, event.call_trace, *(stack.frames for stack in event.stacks)]


def _is_of_kernel(frame: Frame) -> bool:
    """Whether vmlinux has the function of a frame: no module, nor code that was generated."""
    return frame.function is not None and frame.module is None and not frame.function.startswith(_GENERATED)


def _stripped(banner: re.Match[bytes]) -> tuple[bytes, ...]:
    return tuple(part.rstrip() for part in banner.groups())


def _text(banner: re.Match[bytes]) -> str:
    return b" ".join(_stripped(banner)).decode(errors="backslashreplace")


def _some(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
