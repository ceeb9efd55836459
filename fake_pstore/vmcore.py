# SPDX-License-Identifier: Apache-2.0
"""Dump files of a crashed kernel's memory: what /proc/vmcore shows, and what makedumpfile makes of it.

Source: kernel/crash_core.c, fs/proc/vmcore.c; makedumpfile's diskdump_mod.h, IMPLEMENTATION and makedumpfile.h; for
snappy its format_description.txt.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from .kmemory import PAGE, Memory

ZLIB, LZO, SNAPPY, ZSTD = 1, 2, 4, 0x20
INCOMPLETE = 8
Pack = Callable[[bytes], bytes]


def runs(memory: Memory) -> Iterator[tuple[int, bytes]]:
    """Physical address and bytes of each run of pages that are there."""
    numbers = sorted(memory.pages)
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield numbers[start] * PAGE, b"".join(bytes(memory.pages[n]) for n in numbers[start:i])
            start = i


def raw(memory: Memory, base: int = 0, *, size: int = 0) -> bytes:
    """Plain memory from physical address *base* on, as a debugger saves it; of *size* bytes, if it has not more."""
    image = bytearray(max(size, (max(memory.pages) + 1) * PAGE - base))
    for number, page in memory.pages.items():
        image[number * PAGE - base : number * PAGE - base + PAGE] = page
    return bytes(image)


def elf(
    memory: Memory,
    *,
    mapped: bool = True,
    physical: bool = True,
    note: bool = True,
    cpus: int = 2,
    holes: int = 0,
    many: bool = False,
    flags: int = 0,
) -> bytes:
    """An ELF core.

    Args:
        memory: what is in it.
        mapped: p_vaddr says where memory was mapped; QEMU's cores have zeros there.
        physical: p_paddr says where it lay; cores of processes have zeros there.
        note: it has VMCOREINFO.
        cpus: notes before VMCOREINFO.
        holes: so many bytes of each segment are not in the file: p_memsz is larger.
        many: the number of headers is in section header 0.
        flags: e_flags; 1: incomplete.
    """
    machine = memory.machine
    order, wide = machine.order, machine.word == 8
    notes = b"".join(_note(order, b"CORE", 1, bytes(336)) for _ in range(cpus))
    notes += _note(order, b"VMCOREINFO", 0, memory.note()) if note else b""
    segments = [(4, 0, 0, notes, len(notes))]
    for at, data in runs(memory):
        in_image = 0 <= at - machine.image_at < 0x800000
        address = at - machine.image_at + machine.image if in_image else at + machine.direct
        segments.append((1, address if mapped else 0, at if physical else 0, data, len(data) + holes))
    head_size, one = (64, 56) if wide else (52, 32)
    sections_at = head_size + one * len(segments)
    place = sections_at + (64 if many else 0)
    headers, bodies = b"", b""
    for kind, address, at, data, size in segments:
        if wide:
            headers += struct.pack(order + "IIQQQQQQ", kind, 7, place, address, at, len(data), size, 0)
        else:
            headers += struct.pack(order + "IIIIIIII", kind, place, address, at, len(data), size, 7, 0)
        bodies += data
        place += len(data)
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    count = 0xFFFF if many else len(segments)
    head = ident + struct.pack(
        order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
        *(4, machine.elf, 1, 0, head_size, sections_at if many else 0),
        *(flags, head_size, one, count, 64 * many, many, 0),
    )  # fmt: skip
    section = struct.pack(order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII"), *(0,) * 7, len(segments), 0, 0)
    return head + headers + (section.ljust(64, b"\0") if many else b"") + bodies


def _note(order: str, name: bytes, kind: int, data: bytes) -> bytes:
    head = struct.pack(order + "III", len(name) + 1, len(data), kind)
    return head + name + bytes(4 - len(name) % 4) + data + bytes(-len(data) % 4)


def kdump(
    memory: Memory,
    *,
    flag: int = ZLIB,
    pack: Pack = zlib.compress,
    version: int = 6,
    aligned: bool = False,
    status: int = 0,
    part: range | None = None,
    note: bool = True,
) -> bytes:
    """A dump of makedumpfile's own form.

    Args:
        memory: what is in it.
        flag: how its pages are packed, those that get shorter by it.
        pack: packs one.
        version: of the header.
        aligned: with words of 4 bytes, numbers of 8 stand at multiples of 8, as on arm.
        status: bits beside *flag*.
        part: only these pages: one piece of --split.
        note: it has VMCOREINFO.
    """
    machine = memory.machine
    order, wide = machine.order, machine.word == 8
    pages = max(memory.pages) + 1
    half = -(-pages // (8 * PAGE))
    ours = [n for n in sorted(memory.pages) if part is None or n in part]
    split = (1, part.start, part.stop) if part is not None else (0, 0, 0)
    note_at = PAGE + 112
    info = memory.note() if note else b""
    names = ("Linux", "fake", memory.info[0].removeprefix("OSRELEASE="), "#1", machine.name, "(none)")
    head = b"KDUMP   " + struct.pack(order + "i", version) + b"".join(n.encode().ljust(65, b"\0") for n in names)
    head = head.ljust(408 if wide else 404, b"\0") + struct.pack(order + ("QQ" if wide else "II"), 1_795_000_000, 0)
    head += struct.pack(order + "IiiIIIIIIi", flag | status, PAGE, 1, 2 * half, pages, 0, 0, 0, 0, 1)
    base = machine.image_at - (machine.image - 0xFFFFFFFF80000000) if machine.name == "x86_64" else 0
    if wide:
        sub = struct.pack(order + "QiiQQ", base % (1 << 64), 31, *split)
        sub += struct.pack(order + "QQQQQQ", note_at, len(info), 0, 0, 0, 0)
    else:
        sub = struct.pack(order + "IiiII", 0, 31, *split)
        layout = "4xQI4xQI4xQI4x" if aligned else "QIQIQI"
        sub += struct.pack(order + layout, note_at, len(info), 0, 0, 0, 0)
    if version >= 6:
        sub += struct.pack(order + "QQQ", split[1], split[2], pages)
    bitmap = bytearray(half * PAGE)
    for number in memory.pages:
        bitmap[number >> 3] |= 1 << (number & 7)
    there = head.ljust(PAGE, b"\0") + (sub.ljust(112, b"\0") + info).ljust(PAGE, b"\0") + bitmap + bitmap
    place = len(there) + 24 * len(ours)
    descs, bodies = b"", b""
    for number in ours:
        page = bytes(memory.pages[number])
        packed = pack(page) if flag else page
        body, how = (packed, flag) if len(packed) < PAGE else (page, 0)
        descs += struct.pack(order + "qIIQ", place, len(body), how, 0)
        bodies += body
        place += len(body)
    return there + descs + bodies


def flattened(data: bytes, *, piece: int = 4096, areas: Sequence[int] = (), end: bool = True) -> bytes:
    """The same in pieces.

    Args:
        data: a dump file.
        piece: bytes of one.
        areas: beginnings of areas that are written by turns with the first.
        end: the mark of the end is there.
    """
    bounds = [0, *areas, len(data)]
    queues = [list(range(a, b, piece)) for a, b in pairwise(bounds)]
    ends = bounds[1:]
    found = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
    out = [found.ljust(4096, b"\0")]
    while any(queues):
        for queue, last in zip(queues, ends, strict=True):
            if queue:
                at = queue.pop(0)
                body = data[at : min(at + piece, last)]
                out.append(struct.pack(">qq", at, len(body)) + body)
    return b"".join(out) + (struct.pack(">qq", -1, -1) if end else b"")


def snappy(data: bytes) -> bytes:
    """A block of snappy: literals, and copies of what was seen 4 bytes long before."""
    out = bytearray(_varint(len(data)))
    seen: dict[bytes, int] = {}
    at = start = 0
    while at < len(data):
        before = seen.get(data[at : at + 4])
        seen[data[at : at + 4]] = at
        if before is None or at + 4 > len(data):
            at += 1
            continue
        length = 4
        while length < 64 and at + length < len(data) and data[before + length] == data[at + length]:
            length += 1
        out += _literal(data[start:at])
        distance = at - before
        if length < 12 and distance < 2048:
            out += bytes((1 | (length - 4) << 2 | distance >> 8 << 5, distance & 0xFF))
        elif distance < 1 << 16 and distance % 2:
            out += struct.pack("<BH", 2 | (length - 1) << 2, distance)
        else:
            out += struct.pack("<BI", 3 | (length - 1) << 2, distance)
        at += length
        start = at
    return bytes(out + _literal(data[start:]))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _literal(data: bytes) -> bytes:
    if not data:
        return b""
    length = len(data) - 1
    if length < 60:
        return bytes((length << 2,)) + data
    width = (length.bit_length() + 7) // 8
    return bytes(((59 + width) << 2,)) + length.to_bytes(width, "little") + data
