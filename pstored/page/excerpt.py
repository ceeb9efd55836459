# SPDX-License-Identifier: Apache-2.0
"""The kernel's own words on a page: the report without what nobody reads at night, so that a screen holds it.

Left out are registers, stack and code bytes and the list of modules, which the file has; frames that the kernel does
not vouch for are dimmed.  Everything is escaped.
"""

import re
from collections.abc import Sequence

from pstored.logs import Log
from pstored.oops import Event, find_events
from pstored.oops.facts import parse_register_row, parse_registers
from pstored.oops.frames import parse_frame
from pstored.oops.lines import LONGEST_LINE
from pstored.parse.kmsg import KmsgLine
from pstored.terminal import Style, visible

LINES = 32
"""Lines of the kernel's own words; the rest is in the file."""
BEFORE = 20
"""Lines of the report before it, if there is one: an oops that came before the panic."""
TAIL = 15
"""Lines shown where no report is found in the text."""

_BULK = (b"Modules linked in:", b"Code: ", b"Krnl Code: ", b" Code: ")
#   stacks and code in hexadecimal: "3d40: c0a03d48 00000000 ...", "ffff8000 (00000001)"
_HEXADECIMAL = re.compile(rb"[ \t0-9a-fx:<>()-]{24,}")


def excerpt(texts: dict[str, bytes], style: Style) -> list[str]:
    """Lines to show of a crash's texts: its last two reports; without any, the last lines.

    Args:
        texts: file name to text.
        style: how to dim.
    """
    for name in ("dmesg.txt", "console.txt"):
        lines = Log(texts.get(name, b"")).lines
        if not lines:
            continue
        events = find_events(lines)[-2:]
        if not events:
            return [_line(line, style) for line in lines[-TAIL:]]
        before = [line for event in events[:-1] for line in _report(lines, event, name, BEFORE, style)]
        return [*before, *([""] if before else []), *_report(lines, events[-1], name, LINES, style)]
    plain = texts.get("mce.txt", texts.get("cper.txt", texts.get("end.txt", b"")))
    return [f"  {visible(line)}".rstrip() for line in plain.decode(errors="backslashreplace").splitlines()]


def _report(lines: Sequence[KmsgLine], event: Event, name: str, limit: int, style: Style) -> list[str]:
    whole = lines[event.first : event.last]
    chosen = [line for line in whole if not _is_bulk(line.text)]
    shown = [_line(line, style) for line in chosen[:limit]]
    more = len(whole) - len(shown)
    return [*shown, style.dim(f"  ({more} lines more in {name})")] if more else shown


def _is_bulk(text: bytes) -> bool:
    """Whether a line holds nothing but registers, bytes or names of modules."""
    if text.startswith(_BULK):
        return True
    if b"+0x" in text:
        return False
    return _HEXADECIMAL.fullmatch(text) is not None or bool(parse_register_row(text) or parse_registers(text))


def _line(line: KmsgLine, style: Style) -> str:
    more = len(line.text) - LONGEST_LINE
    text = visible(line.text[:LONGEST_LINE]) + (f" ({more} bytes more)" if more > 0 else "")
    if line.time_ns is not None:
        seconds, rest = divmod(line.time_ns, 1_000_000_000)
        text = f"[{seconds:5d}.{rest // 1000:06d}] {text}"
    frame = parse_frame(line.text) if b"+0x" in line.text else None
    return f"  {text}" if frame is None or frame.reliable else style.dim(f"  {text}")
