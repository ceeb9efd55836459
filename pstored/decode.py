# SPDX-License-Identifier: Apache-2.0
"""Any log on its own, without an archive: what ``pstored decode`` says of it.

Takes bytes and gives text or JSON values; whatever comes from the log is escaped before it is shown.
"""

import lzma
import re
import zlib
from typing import Any, NamedTuple

from pstored.oops import KINDS, Event, Frame, Severity, analyze, explain_taint, principal
from pstored.parse.decompress import UnpackError, unpack
from pstored.parse.ecc import split_ecc_notice
from pstored.symbolize.disassemble import Instruction, disassemble
from pstored.symbolize.frames import Kernel, symbolize
from pstored.terminal import Style, visible

LARGEST = 1 << 30
"""Bytes of text that a packed file may give: serial captures of weeks have less."""
FRAMES_SHOWN = 30
_SAMPLE = 4096
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x80-\xff]")
_DIED = {
    Severity.PANIC: "the machine died of it",
    Severity.OOPS: "a task died of it, hangs, or goes on with damage; the machine may have gone on",
    Severity.WARNING: "everything went on",
    Severity.UNKNOWN: "not known",
}


class Decoded(NamedTuple):
    """One log, analyzed."""

    name: str
    text: bytes
    events: list[Event]
    notes: tuple[str, ...]
    """How the file was read, and what is wrong with it."""
    code: tuple[Instruction, ...] = ()
    """The instructions around the principal event's program counter, if they were looked at."""


def decode(name: str, data: bytes) -> Decoded:
    """Analyze one file: a log, raw or packed by gzip or xz, or a record of pstore, packed by the kernel or not."""
    text, notes = unwrap(data)
    return Decoded(name, text, analyze(text), notes)


def add_symbols(decoded: Decoded, kernel: Kernel) -> Decoded:
    """The same log with what a kernel's symbols tell of it."""
    events, notes = symbolize(decoded.text, decoded.events, kernel)
    return decoded._replace(events=events, notes=(*decoded.notes, *notes))


def add_code(decoded: Decoded) -> Decoded:
    """The same log with the instructions around the principal event's program counter, where capstone is installed."""
    event = principal(decoded.events)
    return decoded if event is None else decoded._replace(code=disassemble(event, decoded.text))


def unwrap(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The text of a file, and how it was come by.  What cannot be unpacked is its own text."""
    if data.startswith(b"\x1f\x8b"):
        return _inflate(data)
    if data.startswith(b"\xfd7zXZ\x00"):
        return _unxz(data)
    sample = data[:_SAMPLE]
    if len(_BINARY.findall(sample)) * 8 <= len(sample):
        return split_ecc_notice(data)[0], ()
    try:
        unpacked = unpack(split_ecc_notice(data)[0])
    except UnpackError:
        return data, ("this looks like no text, and like no packed record: analyzed as it is",)
    return unpacked.text, (f"a record packed with {unpacked.algorithm}", *unpacked.damage)


def _inflate(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    inflater = zlib.decompressobj(wbits=31)
    text = bytearray()
    try:
        while data and len(text) < LARGEST and not inflater.eof:
            text += inflater.decompress(data[:_STEP], LARGEST - len(text))
            data = inflater.unconsumed_tail + data[_STEP:]
    except zlib.error as e:
        return bytes(text), (f"the gzip file is damaged; this is what stands before the damage: {e}",)
    return bytes(text), () if inflater.eof else ("the gzip file has no end, or is too large: its first part",)


def _unxz(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    unpacker = lzma.LZMADecompressor(memlimit=LARGEST)
    text = bytearray()
    try:
        for at in range(0, len(data), _STEP):
            if len(text) >= LARGEST or unpacker.eof:
                break
            text += unpacker.decompress(data[at : at + _STEP], LARGEST - len(text))
    except lzma.LZMAError as e:
        return bytes(text), (f"the xz file is damaged; this is what stands before the damage: {e}",)
    return bytes(text), () if unpacker.eof else ("the xz file has no end, or is too large: its first part",)


_STEP = 64 * 1024

# -- for programs


def to_json(decoded: Decoded) -> dict[str, Any]:
    """The value of ``--json``: the principal report's facts, and all reports."""
    event = principal(decoded.events)
    facts = {"kind": None, "title": None, "function": None} if event is None else _facts(event)
    return {
        "schema": 1,
        "file": decoded.name,
        **facts,
        "events": [_facts(e) | _body(e) for e in decoded.events],
        "disassembly": [instruction._asdict() for instruction in decoded.code],
        "notes": list(decoded.notes),
    }


def _facts(event: Event) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "title": event.title,
        "severity": event.severity,
        "function": event.function,
        "pc_function": event.pc_function,
        "signature": event.strict,
        "signature_loose": event.loose,
        "signature_frames": list(event.named),
        "principal": event.principal,
        "tails": list(event.tails),
        "comm": event.comm,
        "pid": event.pid,
        "cpu": event.cpu,
        "release": event.release,
        "tainted": event.taint,
        "hardware": event.hardware,
        "address": _hex(event.address),
        "lines": [event.first + 1, event.last],
        "damaged": list(event.damaged),
    }


def _body(event: Event) -> dict[str, Any]:
    return {
        "registers": {name: _hex(value) for name, value in event.registers.items()},
        "pc": None if event.pc is None else _frame(event.pc),
        "call_trace": [_frame(frame) for frame in event.call_trace],
        "stacks": [{"title": s.title, "frames": [_frame(frame) for frame in s.frames]} for s in event.stacks],
        "modules": list(event.modules),
        "code": event.code,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    return frame._asdict() | {"address": _hex(frame.address)}


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


# -- for people


def render(decoded: Decoded, *, style: Style = Style()) -> str:  # noqa: B008
    """What a person reads: every report, the principal one whole, the others in short."""
    lines = [style.dim(visible(decoded.name)), *(style.yellow(visible(n)) for n in decoded.notes)]
    event = principal(decoded.events)
    if event is None:
        return "\n".join([*lines, "no report of the kernel in it", ""])
    lines += _render_event(event, style)
    if decoded.code:
        lines += ["", style.dim("  code")]
        lines += [_render_instruction(instruction, style) for instruction in decoded.code]
    others = [e for e in decoded.events if e is not event]
    if others:
        lines += ["", style.dim("Other reports in it")]
        lines += [f"  lines {e.first + 1} to {e.last}: {visible(e.title)}" for e in others]
    return "\n".join([*lines, ""])


def _render_event(event: Event, style: Style) -> list[str]:
    paint = style.red if event.severity is Severity.PANIC else style.bold
    lines = [paint(visible(event.title)), ""]
    lines += [f"{style.dim(name.rjust(9))}  {visible(value)}" for name, value in _rows(event)]
    if event.pc is not None and event.pc.file is not None:
        lines += ["", style.dim("  program counter"), _render_frame(event.pc, style)]
    if event.call_trace:
        lines += ["", style.dim("  call trace")]
        lines += [_render_frame(frame, style) for frame in event.call_trace[:FRAMES_SHOWN]]
        more = len(event.call_trace) - FRAMES_SHOWN
        lines += [style.dim(f"    and {more} more")] if more > 0 else []
    return lines


def _rows(event: Event) -> list[tuple[str, str]]:
    rows = [("kind", f"{event.kind}: {KINDS[event.kind]}"), ("end", _DIED[event.severity])]
    rows += [("tail", words) for words in event.tails]
    if event.function is not None:
        also = event.pc_function not in (None, event.function)
        rows.append(("function", event.function + (f" (the processor was in {event.pc_function})" if also else "")))
    if event.comm is not None:
        rows.append(("task", f"{event.comm}[{event.pid}]" + ("" if event.cpu is None else f" on CPU {event.cpu}")))
    elif event.cpu is not None:
        rows.append(("cpu", str(event.cpu)))
    for name, value in (("address", _hex(event.address)), ("kernel", event.release), ("machine", event.hardware)):
        rows += [] if value is None else [(name, value)]
    rows += [("tainted", f"{letter}: {meaning}") for letter, meaning in explain_taint(event.taint or "")]
    rows.append(("lines", f"{event.first + 1} to {event.last}"))
    rows.append(("signature", f"{event.strict} (strict), {event.loose} (loose)"))
    return rows + [("doubt", doubt) for doubt in event.damaged]


def _render_frame(frame: Frame, style: Style) -> str:
    if frame.function is None:
        text = f"{frame.address:#x}"
    else:
        place = "" if frame.offset is None else f"+{frame.offset:#x}/{frame.size:#x}"
        text = frame.function + place + ("" if frame.module is None else f" [{frame.module}]")
    text += "" if frame.file is None else f" at {frame.file}:{frame.line}"
    text = f"    {'' if frame.reliable else '? '}{visible(text)}"
    return text if frame.reliable else style.dim(text)


def _render_instruction(instruction: Instruction, style: Style) -> str:
    text = f"  {'>' if instruction.faulting else ' '} {instruction.code.ljust(30)} {visible(instruction.text)}".rstrip()
    return style.bold(text) if instruction.faulting else text
