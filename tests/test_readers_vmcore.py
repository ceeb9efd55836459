# SPDX-License-Identifier: Apache-2.0
"""vmcores: the log of a kernel, whatever machine it ran on, however old it is, in every form of dump file."""

import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lzo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_pstore import capture, kmemory, vmcore
from fake_pstore.klog import Message
from fake_pstore.kmemory import MACHINES, Kind, Memory
from pstored.intake.sources import open_source
from pstored.logs import Log
from pstored.parse.decompress import import_zstd
from pstored.parse.record import decode_record
from pstored.readers.kdump.diskdump import DiskDump
from pstored.readers.kdump.flattened import Flattened
from pstored.readers.kdump.log import MAX_TEXT
from pstored.readers.kdump.memory import KernelMemory
from pstored.readers.kdump.raw import RawMemory
from pstored.readers.kdump.ring import MAX_LOOKED_AT, MAX_MISSED, RingLog
from pstored.readers.kdump.search import CHUNK, MAX_FOUND, SIGNATURE, scan
from pstored.readers.kdump.vmcore import READER, quick
from pstored.readers.kdump.vmcore import read as read_vmcore
from pstored.readers.memory import Held
from pstored.readers.model import Options, Reader, Remark, Salvaged, Source
from tests.readers import damaged, kind_of, never_fails, panic_in_region, read

WRITTEN = [
    Message(
        level=(6, 4, 3, 30)[i % 4],
        time_us=123_456 + 1_000 * i,
        caller=f"C{i % 3}" if i % 5 else f"T{i}",
        text=""
        if i % 29 == 28
        else f"usb 1-{i}: message{' and more' * (i % 13)}" + "\n  its second line" * (i % 11 == 0),
    )
    for i in range(300)
]
"""More than a ring of 16 KiB holds."""
KINDS: list[tuple[Kind, str]] = [("ring", "6.1.0-9"), ("records", "5.4.0-1"), ("records", "3.5.7"), ("text", "3.2.0-4")]


def text_of(messages: Sequence[Message], *, callers: bool = False) -> bytes:
    """The lines of a dump in pstore: record_print_text()."""
    lines = []
    for m in messages:
        prefix = b"<%d>[%5d.%06d]" % (m.level, *divmod(m.time_us, 10**6))
        prefix += b"[%6s]" % m.caller.encode() if callers else b""
        lines += [prefix + b" " + line.encode() + b"\n" for line in m.text.split("\n")]
    return b"".join(lines)


def pack_lzo(page: bytes) -> bytes:
    """As makedumpfile packs a page."""
    return bytes(lzo.compress(page, 1, False))


def in_all_forms(memory: Memory) -> dict[str, bytes]:
    """A memory in each form that makedumpfile and /proc/vmcore give it."""
    compressed = vmcore.kdump(memory)
    descs = len(compressed) - sum(len(zlib.compress(bytes(p))) for p in memory.pages.values())
    return {
        "elf": vmcore.elf(memory),
        "elf-many": vmcore.elf(memory, many=True, holes=3 * 4096),
        "kdump": compressed,
        "flattened": vmcore.flattened(compressed, areas=[max(4096, descs)]),
        "flattened-elf": vmcore.flattened(vmcore.elf(memory), piece=1000),
    }


@pytest.mark.parametrize("allocated", [False, True], ids=["static", "allocated"])
@pytest.mark.parametrize(("kind", "release"), KINDS, ids=[release for _, release in KINDS])
@pytest.mark.parametrize("name", MACHINES)
def test_every_machine_and_every_log(name: str, kind: Kind, release: str, *, allocated: bool) -> None:
    """What is left of the log, in its lines as pstore has them; with the time of the crash, and what kernel it was."""
    memory = kmemory.crashed(MACHINES[name], WRITTEN, kind=kind, release=release, allocated=allocated)
    expected = text_of(WRITTEN)[-(1 << 14) :] if kind == "text" else text_of(memory.left)
    assert len(expected) > 10_000
    for form, data in in_all_forms(memory).items():
        if name == "armv5teb" and "elf" not in form:
            continue  # only segments say where its memory was mapped
        assert kind_of(data) == "vmcore"
        records, remarks = read("vmcore", data)
        assert not remarks, form
        (found,) = records
        assert found.data == expected, form
        assert found.name == "dmesg-kdump-1795000000"
        assert found.mtime_ns == 1_795_000_000 * 10**9
        assert not found.damage
        assert f"of kernel {release}" in found.notes[0]
        assert found.notes[1:] == (f"the kernel's build id is {'5a' * 20}", "KASLR had moved the kernel by 0x36000000")


def test_page_tables_lead_where_no_segment_does() -> None:
    """QEMU's cores say nothing of what was mapped where, and a direct map may be anywhere."""
    for name in ("x86_64", "x86_64-la57", "aarch64", "riscv64", "ppc64"):
        memory = kmemory.crashed(MACHINES[name], WRITTEN, allocated=True)
        ((found,), _) = read("vmcore", vmcore.elf(memory, mapped=False))
        assert found.data == text_of(memory.left), name


def test_a_header_may_name_the_wrong_machine() -> None:
    """QEMU writes "x86_64" into its compressed dumps of all machines."""
    for name in ("aarch64", "riscv64"):
        memory = kmemory.crashed(MACHINES[name], WRITTEN, allocated=True)
        data = vmcore.kdump(memory).replace(name.encode().ljust(65, b"\0"), b"x86_64".ljust(65, b"\0"))
        ((found,), _) = read("vmcore", data)
        assert found.data == text_of(memory.left), name


def test_the_record_is_one_like_any_other() -> None:
    """A dump without header that is complete: there is no header in a kernel's memory."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN)
    ((found,), _) = read("vmcore", vmcore.kdump(memory))
    record = decode_record(found.name, found.data, mtime_ns=found.mtime_ns, notes=found.notes)
    assert (record.type, record.backend, record.text) == ("dmesg", "kdump", found.data)
    assert record.time_ns == found.mtime_ns
    assert not record.damage


# -- real dumps


REAL = [name for name in capture.names() if name.endswith("-kdump")]


@pytest.mark.parametrize("name", REAL)
def test_real_dumps_have_the_log_that_others_see(name: str) -> None:
    """Line by line what makedumpfile says, what the console showed, and what pstore has of the same panic."""
    loaded = capture.load(name)
    vmcore_, text = loaded.raw("vmcore"), loaded.raw("dmesg.txt")
    assert kind_of(vmcore_) == "vmcore"
    ((found,), _) = read("vmcore", vmcore_)
    assert not found.damage
    assert f"of kernel {loaded.crash_kernel}" in found.notes[0]
    assert 0 < found.mtime_ns // 10**9 - loaded.crash_boot_time < 20
    lines = [line.partition(b">")[2] for line in found.data.splitlines()]
    ((theirs,), _) = read("vmcore-dmesg", text, "dmesg.202611271902")
    assert theirs.data.splitlines() == lines
    console = loaded.serial("crash").replace(b"\r", b"").splitlines()
    first = console.index(lines[0])
    assert console[first : first + len(lines)] == lines
    of_pstore = panic_in_region(loaded).partition(b"\n")[2]
    assert len(of_pstore) > 10_000
    assert of_pstore in found.data
    assert Log(of_pstore).same_boot(Log(theirs.data)) is True


# -- forms of dump files


@pytest.mark.parametrize(
    ("flag", "pack"),
    [(0, bytes), (vmcore.ZLIB, zlib.compress), (vmcore.LZO, pack_lzo), (vmcore.SNAPPY, vmcore.snappy)],
    ids=["plain", "zlib", "lzo", "snappy"],
)
def test_pages_packed_in_every_way(flag: int, pack: Callable[[bytes], bytes]) -> None:
    """Each by itself, and those that do not get shorter not at all."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN)
    memory.place(random.Random(1).randbytes(4096))
    ((found,), _) = read("vmcore", vmcore.kdump(memory, flag=flag, pack=pack))
    assert (found.data, found.damage) == (text_of(memory.left), ())


def test_pages_packed_by_zstd() -> None:
    """Needs the extra; without it that is said, with how to get it."""
    zstd = import_zstd()
    assert zstd is not None
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN)
    data = vmcore.kdump(memory, flag=vmcore.ZSTD, pack=zstd.compress)
    ((found,), _) = read("vmcore", data)
    assert (found.data, found.damage) == (text_of(memory.left), ())
    without = DiskDump(Held(data), find_zstd=lambda: None)
    assert without.physical(min(memory.pages) * 4096, 16) == b""
    assert without.damage[0].endswith("no zstd library: pip install 'pstored[compress]'")


@pytest.mark.parametrize("version", [3, 5, 6])
@pytest.mark.parametrize(("machine", "aligned"), [("x86_64", False), ("ppc64", False), ("i386", False), ("i386", True)])
def test_headers_of_every_version(machine: str, version: int, *, aligned: bool) -> None:
    """With words of four bytes there are two layouts, which nothing tells but what they point to."""
    memory = kmemory.crashed(MACHINES[machine], WRITTEN)
    ((found,), _) = read("vmcore", vmcore.kdump(memory, version=version, aligned=aligned))
    assert (found.data, found.damage) == (text_of(memory.left), ())


@pytest.mark.parametrize("version", [5, 6])
def test_one_piece_of_several(version: int) -> None:
    """Of a dump in pieces (--split) each has the pages of its range; that the others are elsewhere is said."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN)
    first, last = min(memory.pages), max(memory.pages)
    whole = vmcore.kdump(memory, version=version, part=range(first, last + 1))
    ((found,), _) = read("vmcore", whole)
    assert found.data == text_of(memory.left)
    assert found.damage == (f"it is one piece of a dump in several: pages {first} to {last} only",)
    middle = sorted(memory.pages)[2]
    _, remarks = read("vmcore", vmcore.kdump(memory, version=version, part=range(first, middle)))
    assert [r.is_damage for r in remarks] == [True, True]
    assert "is not in the dump" in remarks[0].text
    ((found,), _) = read("vmcore", vmcore.kdump(memory, version=version, part=range(first - 40, last + 1)))
    assert found.data == text_of(memory.left)


def test_incomplete_dumps_say_so() -> None:
    """makedumpfile marks what it had no room for; the log may be there all the same."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN)
    for data in (vmcore.kdump(memory, status=vmcore.INCOMPLETE), vmcore.elf(memory, flags=1)):
        ((found,), _) = read("vmcore", data)
        assert found.data == text_of(memory.left)
        assert found.damage == ("makedumpfile could not write all of the dump: no room?",)


def test_no_dump_of_a_machine() -> None:
    """The core of a process; a dump of the time before kdump; one without VMCOREINFO."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN, keeps_note=False)
    core = vmcore.elf(memory, note=False)
    assert kind_of(core) == "vmcore"
    assert "there is no VMCOREINFO" in read("vmcore", core)[1][0].text
    assert kind_of(vmcore.elf(memory, note=False, mapped=False, physical=False)) is None
    old = b"DISKDUMP" + bytes(9000)
    assert kind_of(old) == "vmcore"
    assert "old diskdump" in read("vmcore", old)[1][0].text
    assert "there is no VMCOREINFO" in read("vmcore", vmcore.kdump(memory, note=False))[1][0].text


# -- without a note


@pytest.mark.parametrize("form", ["elf", "kdump", "flattened"])
def test_vmcoreinfo_is_found_in_the_memory(form: str) -> None:
    """QEMU's dumps have no note, unless the guest told it: the kernel keeps one for kdump all the same."""
    memory = kmemory.crashed(MACHINES["x86_64-la57"], WRITTEN, allocated=True, crash_time=None)
    compressed = vmcore.kdump(memory, note=False)
    data = {
        "elf": vmcore.elf(memory, note=False, mapped=False),
        "kdump": compressed,
        "flattened": vmcore.flattened(compressed),
    }[form]
    assert kind_of(data) == "vmcore"
    ((found,), remarks) = read("vmcore", data)
    assert (found.name, found.mtime_ns, found.data) == ("dmesg-kdump-0", 0, text_of(memory.left))
    assert not found.damage
    assert not remarks
    (remark,) = quick(1 << 20).read(Held(data), Options())
    assert "there is no VMCOREINFO" in getattr(remark, "text", "")


RAW = [(name, *KINDS[0]) for name in MACHINES if name not in ("aarch64-52", "s390x")]


@pytest.mark.parametrize(("name", "kind", "release"), RAW + [("x86_64", *kind) for kind in KINDS[1:]])
def test_raw_memory(name: str, kind: Kind, release: str) -> None:
    """A board's, wherever in its physical memory the dump begins: that of the kernel's name tells."""
    machine = MACHINES[name]
    memory = kmemory.crashed(machine, WRITTEN, kind=kind, release=release, allocated=True)
    expected = text_of(WRITTEN)[-(1 << 14) :] if kind == "text" else text_of(memory.left)
    for base in (0, 0x1000000):
        image = vmcore.raw(memory, base)
        assert kind_of(image) == "ram"
        ((found,), remarks) = read("ram", image)
        assert (found.name, found.data, found.damage) == ("dmesg-kdump-0", expected, ())
        assert [r.text for r in remarks] == ["there is no header of a zone in it"]
        assert f"out of the memory of kernel {release} (raw memory)" in found.notes


def test_raw_memory_of_several_kernels() -> None:
    """What an earlier boot has left is found, too; of a kernel whose log is gone, that it has run."""
    first = kmemory.crashed(MACHINES["x86_64"], WRITTEN[:30], release="6.1.0-1", crash_time=None)
    high = MACHINES["x86_64"]._replace(image_at=0x5000000)
    second = kmemory.crashed(high, WRITTEN[100:140], release="6.12.0-2", heap=0x3800000)
    second.pages |= {n: page for n, page in first.pages.items() if n not in second.pages}
    records, remarks = read("ram", vmcore.raw(second))
    assert sorted(r.data for r in records) == sorted((text_of(first.left), text_of(second.left)))
    assert not any(r.is_damage for r in remarks)
    at = first.physical(symbol(first, "prb"))
    del second.pages[at // 4096]
    records, remarks = read("ram", vmcore.raw(second))
    assert [r.data for r in records] == [text_of(second.left)]
    assert remarks[1:] == [Remark("kernel 6.1.0-1 has run there, but its log cannot be found", is_damage=True)]


def test_raw_memory_without_a_kernel() -> None:
    """Zeros, and what looks like a note: said."""
    assert kind_of(bytes(1 << 20)) is None
    assert [r.text for r in read("ram", bytes(1 << 20))[1]][1:] == ["no kernel with VMCOREINFO has run there"]
    note = SIGNATURE + b"6.1.0\nSYMBOL(prb)=ffffffff81000000\n"
    assert "its log cannot be found" in read("ram", bytes(5000) + note + bytes(5000))[1][1].text


def test_patterns_are_found_across_pieces() -> None:
    """Wherever a piece ends, and each once."""
    for at in (0, CHUNK - 5, CHUNK, 2 * CHUNK - 1):
        image = bytearray(2 * CHUNK + 100)
        image[at : at + 6] = b"needle"
        assert scan(RawMemory(Held(bytes(image))), [b"needle", b"nee"]) == [[at], [at]]
    many = RawMemory(Held(b"ab" * 1000))
    assert len(scan(many, [b"ab"])[0]) == MAX_FOUND
    assert scan(RawMemory(Held(bytes(100) + b"ab")), [b"ab"], limit=100) == [[]]


# -- flattened


def flat_bytes(flattened: Flattened, size: int, step: int = 777) -> bytes:
    """Its first bytes, read in pieces."""
    return b"".join(flattened.read(at, min(step, size - at)) for at in range(0, size, step))


@pytest.mark.parametrize("max_marks", [4, 40, 1 << 20])
@pytest.mark.parametrize("areas", [[], [30_000], [10_000, 50_000, 60_000]])
def test_a_flattened_file_is_the_same_file(areas: list[int], max_marks: int) -> None:
    """Areas written by turns, and however few places are kept; read from the beginning, or from anywhere."""
    data = random.Random(5).randbytes(100_000)
    flat = vmcore.flattened(data, piece=500, areas=areas)
    flattened = Flattened(Held(flat), max_marks=max_marks)
    assert flat_bytes(flattened, len(data)) == data
    assert flattened.read(len(data) - 10, 100) == data[-10:]
    assert not flattened.damage
    fresh = Flattened(Held(flat), max_marks=max_marks)
    for at in (99_000, 100, 45_678, 0, 60_001):
        assert fresh.read(at, 1234) == data[at : at + 1234]


def flat(*pieces: tuple[int, bytes], end: bytes = struct.pack(">qq", -1, -1)) -> Held:
    """A flattened file with these pieces."""
    body = b"".join(struct.pack(">qq", at, len(data)) + data for at, data in pieces)
    return Held(vmcore.flattened(b"", end=False) + body + end)


def test_gaps_are_zeros() -> None:
    """As in a file that was sought over; behind the last piece there is nothing."""
    for max_marks in (2, 1 << 20):
        pieces = [(0, b"ab"), (10, b"cd"), (4, b"ef"), (20, b"gh"), (14, b"ij"), (30, b"kl"), (40, b"mn")]
        flattened = Flattened(flat(*pieces), max_marks=max_marks)
        whole = b"ab\0\0ef\0\0\0\0cd\0\0ij\0\0\0\0gh\0\0\0\0\0\0\0\0kl\0\0\0\0\0\0\0\0mn"
        assert flattened.read(0, 100) == whole
        assert flattened.read(12, 10) == whole[12:22]
        assert flattened.read(42, 1) == b""


def test_what_is_written_twice() -> None:
    """The program headers of an ELF core are written once more at the end."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN)
    data = vmcore.elf(memory)
    pieces = [(64, bytes(56)), (0, data[:64]), (120, data[120:5000]), (5000, data[5000:]), (64, data[64:120])]
    source = flat(*pieces)
    assert READER.recognize(source)
    (found,) = READER.read(source, Options())
    assert isinstance(found, Salvaged)
    assert found.data == text_of(memory.left)


def test_damage_of_a_flattened_file_is_told() -> None:
    """Cut within a piece, between two; without an end; with pieces in no order, or in too many."""
    data = random.Random(6).randbytes(20_000)
    whole = vmcore.flattened(data, piece=1000)
    for cut in (len(whole) - 16, len(whole) - 20, 4096 + 5 * 1016 + 7, 4096):
        flattened = Flattened(Held(whole[:cut]))
        found = flattened.read(0, len(data))
        assert found == data[: len(found)]
        assert len(found) >= min(len(data), (cut - 4096) // 1016 * 1000)
        flattened.to_the_end()
        assert len(flattened.damage) == 1
        assert flattened.damage[0].startswith("the flattened dump breaks off at byte ")
    backwards = Flattened(flat(*((at, b"x" * 10) for at in range(1000, 0, -10))))
    backwards.to_the_end()
    assert backwards.damage == ["84 pieces of the flattened dump are out of order, and left out"]
    many = Flattened(Held(whole), max_pieces=3)
    assert many.read(0, len(data)) == data[:3000]
    assert many.damage == [f"the flattened dump has too many pieces: what is behind byte {4096 + 3048} is left out"]


@given(st.integers(min_value=0), st.integers(min_value=2, max_value=50))
@settings(deadline=None)
def test_any_pieces_give_bytes(seed: int, max_marks: int) -> None:
    """Pieces of any order and any size: what is read is what the pieces hold, or zeros, and the end is found."""
    rng = random.Random(seed)
    pieces = [(rng.randrange(500), bytes([65 + i % 26]) * rng.randrange(1, 60)) for i in range(rng.randrange(40))]
    flattened = Flattened(flat(*pieces), max_marks=max_marks)
    flattened.to_the_end()
    found = flattened.read(0, 1000)
    assert len(found) <= max((at + len(data) for at, data in pieces), default=0)
    for i, byte in enumerate(found):
        there = [data[i - at] for at, data in pieces if 0 <= i - at < len(data)]
        assert byte in there or (byte == 0 and (not there or flattened.damage))


# -- rings


def ring(messages: Sequence[Message], machine: str = "x86_64", **more: object) -> Memory:
    """A memory with a ring."""
    return kmemory.crashed(MACHINES[machine], messages, **more)  # type: ignore[arg-type]


def found_in(memory: Memory, **parameters: str) -> Salvaged:
    """What the reader finds in it."""
    (found,) = READER.read(Held(vmcore.elf(memory)), Options(parameters))
    assert isinstance(found, Salvaged)
    return found


@pytest.mark.parametrize("machine", ["x86_64", "i386", "ppc64"])
@pytest.mark.parametrize("size", range(1, 90, 3))
def test_every_place_of_the_wrap(size: int, machine: str) -> None:
    """Blocks that end at the ring's end, before it, and that have no room there: small rings gone over many times."""
    messages = [Message(6, 1_000_000 + i, "T1", "x" * (size + i % 3) + str(i)) for i in range(100)]
    memory = ring(messages, machine, bits=(5, 9))
    found = found_in(memory)
    assert found.data == text_of(memory.left)
    assert found.data.count(b"\n") > 3
    assert not found.damage


def test_few_messages_and_none() -> None:
    """A ring that has never been full; one with nothing in it."""
    assert found_in(ring(WRITTEN[:3])).data == text_of(WRITTEN[:3])
    assert read("vmcore", vmcore.elf(ring([]))) == (
        [],
        [Remark("no message of kernel 6.1.0-9-fake is there", is_damage=True)],
    )


def test_callers_are_shown_to_those_who_know() -> None:
    """A dump has callers, but does not say whether its kernel showed them; its user may know."""
    memory = ring(WRITTEN[:50])
    assert found_in(memory).data == text_of(WRITTEN[:50])
    assert found_in(memory, CONFIG_PRINTK_CALLER="y").data == text_of(WRITTEN[:50], callers=True)


def symbol(memory: Memory, name: str) -> int:
    """The address that VMCOREINFO gives."""
    line = next(line for line in memory.info if line.startswith(f"SYMBOL({name})="))
    return int(line.partition("=")[2], 16)


def peek(memory: Memory, address: int, size: int = 8) -> int:
    """A number in a little-endian memory."""
    at = memory.physical(address)
    return int.from_bytes(memory.pages[at // 4096][at % 4096 : at % 4096 + size], "little")


def slot_of(memory: Memory, back: int) -> tuple[int, int, int]:
    """Addresses of the descriptor and the text of a message, and its number, counted from the newest."""
    ring_at = peek(memory, symbol(memory, "prb"))
    count, descs, head = 1 << peek(memory, ring_at, 4), peek(memory, ring_at + 8), peek(memory, ring_at + 24)
    number = (head - back) % (1 << 62)
    desc = descs + number % count * 24
    size = 1 << peek(memory, ring_at + 48, 4)
    return desc, peek(memory, ring_at + 56) + peek(memory, desc + 8) % size, number


def test_messages_that_are_lost_are_counted() -> None:
    """One being written, one gone, one for which there was no room, one whose text was written over."""
    messages = [m for m in WRITTEN[:40] if "\n" not in m.text and m.text]
    memory = ring(messages)
    for back, state in ((0, 0), (2, 3)):
        desc, _, number = slot_of(memory, back)
        memory.write(desc, struct.pack("<Q", state << 62 | number))
    desc, _, _ = slot_of(memory, 4)
    memory.write(desc + 8, struct.pack("<QQ", 1, 1))
    _, text, _ = slot_of(memory, 6)
    memory.write(text, struct.pack("<Q", 4711))
    desc, _, number = slot_of(memory, 8)
    memory.write(desc, struct.pack("<Q", 2 << 62 | number - 1))
    found = found_in(memory)
    left = [m for i, m in enumerate(messages) if len(messages) - 1 - i not in (0, 2, 4, 6, 8)]
    assert found.data == text_of(left)
    assert found.damage == ("2 messages of the log are lost; the newest: there was no room for this message",)
    assert found.notes[-1] == "1 message was being written as the kernel stopped"


def test_a_text_that_is_longer_than_its_block() -> None:
    """Its length says more than there is room for: what is there."""
    memory = ring([Message(6, 10**6, "T1", "hello"), Message(6, 10**6 + 1, "T1", "world")])
    ring_at = peek(memory, symbol(memory, "prb"))
    _, _, number = slot_of(memory, 1)
    info = peek(memory, ring_at + 16) + number % 256 * 88
    memory.write(info + 16, struct.pack("<H", 60_000))
    assert found_in(memory).data == b"<6>[    1.000000] hello\0\0\0\n<6>[    1.000001] world\n"


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, struct.pack("<I", 0), "makes no sense: 2**0 messages"),
        (0, struct.pack("<I", 40), "makes no sense: 2**40 messages"),
        (48, struct.pack("<I", 63), "2**63 bytes"),
    ],
)
def test_a_ring_that_makes_no_sense(at: int, value: bytes, said: str) -> None:
    """Said, with what does not."""
    memory = ring(WRITTEN[:20])
    memory.write(peek(memory, symbol(memory, "prb")) + at, value)
    (remark,) = READER.read(Held(vmcore.elf(memory)), Options())
    assert isinstance(remark, Remark)
    assert said in remark.text
    assert remark.is_damage


def test_a_ring_with_wrong_ends() -> None:
    """More messages between its ends than there is room for: those that are there are given."""
    memory = ring(WRITTEN[:20])
    memory.write(peek(memory, symbol(memory, "prb")) + 32, struct.pack("<Q", 77))
    found = found_in(memory)
    assert found.data == text_of(WRITTEN[:20])
    assert "the ring buffer is damaged: " in found.damage[0]


# -- records


def test_callers_of_records_are_shown_if_there_are_any() -> None:
    """5.1 to 5.9 have the field only if the kernel shows it."""
    for machine in ("x86_64", "ppc64", "i386"):
        memory = ring(WRITTEN, machine, kind="records", release="5.4.0", callers=True)
        assert found_in(memory).data == text_of(memory.left, callers=True)


def pieces(flags: Sequence[int], release: str) -> bytes:
    """What becomes of records with these flags."""
    texts = "abcdefgh"
    memory = ring([Message(6, 10**6 + i, "T1", texts[i]) for i in range(len(flags))], kind="records", release=release)
    buffer = peek(memory, symbol(memory, "log_buf"))
    for i, flag in enumerate(flags):
        memory.write(buffer + 24 * i + 15, bytes((6 << 5 | flag,)))
    return found_in(memory).data


def test_lines_in_several_records() -> None:
    """Up to 4.9 a line may be in pieces, put together as msg_print_text() does; later each piece is a line."""
    whole = 2 | 4
    first, middle, last = 4 | 8, 8, 8 | 2
    p = [b"<6>[    1.00000%d] " % i for i in range(8)]
    assert pieces([whole, first, middle, last, whole], "4.9.0") == p[0] + b"a\n" + p[1] + b"bcd\n" + p[4] + b"e\n"
    assert pieces([first, first, whole], "3.16.0") == p[0] + b"ab" + p[2] + b"c\n"
    assert pieces([last, 2], "4.9.0") == p[0] + b"a\nb\n"
    each = b"".join(p[i] + b"abcd"[i : i + 1] + b"\n" for i in range(4))
    assert pieces([whole, first, middle, last], "4.10.0") == each


@pytest.mark.parametrize(("at", "length", "said"), [(1, 3, "go astray after 1"), (2, 60_000, "go astray after 3")])
def test_records_that_go_astray(at: int, length: int, said: str) -> None:
    """A length that is none: what comes before it is given."""
    memory = ring([Message(6, 10**6 + i, "T1", "x") for i in range(5)], kind="records", release="4.19.0")
    memory.write(peek(memory, symbol(memory, "log_buf")) + 24 * at + 8, struct.pack("<H", length))
    found = found_in(memory)
    assert said in found.damage[0]
    assert found.data == text_of([Message(6, 10**6 + i, "T1", "x") for i in range(5)])[: found.data.count(b"\n") * 20]
    assert found.data


def test_records_in_a_circle() -> None:
    """The end is never met: the second time at the ring's beginning is too often."""
    memory = ring([Message(6, 10**6 + i, "T1", "x") for i in range(5)], kind="records", release="4.19.0")
    memory.write(symbol(memory, "log_next_idx"), struct.pack("<I", 9))
    found = found_in(memory)
    assert "go astray" in found.damage[0]
    assert found.data.startswith(b"<6>[    1.000000] x\n")


# -- bounds


class Counting:
    """A source that counts what is read of it."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self.size = source.size
        self.bytes = self.reads = 0
        self._source = source

    def read(self, at: int, count: int) -> bytes:
        """As any source."""
        found = self._source.read(at, count)
        self.bytes += len(found)
        self.reads += 1
        return found


def test_of_a_hundred_gigabytes_little_is_read(tmp_path: Path) -> None:
    """A machine with 100 GiB whose kernel lay at their end: ELF, and makedumpfile's forms."""
    high = MACHINES["x86_64"]._replace(image_at=99 << 30)
    memory = kmemory.crashed(high, WRITTEN)
    whole = vmcore.elf(memory)
    path = tmp_path / "vmcore"
    # one segment of 100 GiB, as /proc/vmcore has it
    head = bytearray(whole[: 64 + 56 * 2])
    place = len(whole)
    offset, address = place, high.direct
    struct.pack_into("<H", head, 56, 2)
    struct.pack_into("<IIQQQQQQ", head, 64 + 56, 1, 7, offset, address, 0, 100 << 30, 100 << 30, 0)
    with path.open("wb") as file:
        file.write(bytes(head) + whole[len(head) :])
        for at, data in vmcore.runs(memory):
            file.seek(offset + at)
            file.write(data)
        file.truncate(offset + (100 << 30))
    assert os.stat(path).st_size > 100 << 30
    opened = open_source(str(path))
    counted = Counting(opened)
    assert READER.recognize(counted)
    (found,) = READER.read(counted, Options())
    opened.close()
    assert isinstance(found, Salvaged)
    assert found.data == text_of(memory.left)
    assert counted.bytes < 1 << 20
    for data in (vmcore.kdump(memory), vmcore.flattened(vmcore.kdump(memory), piece=65536)):
        counted = Counting(Held(data))
        tracemalloc.start()
        (found,) = READER.read(counted, Options())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(found, Salvaged)
        assert found.data == text_of(memory.left)
        assert counted.bytes < 8 << 20  # a bit for each page: 3 MiB
        assert peak < 8 << 20


def test_a_ring_with_very_many_messages() -> None:
    """Without text, so that they take no room: the newest so many."""
    memory = ring([Message(6, 10**6, "T1", "")], allocated=True)
    ring_at = peek(memory, symbol(memory, "prb"))
    memory.write(ring_at, struct.pack("<I", 20) + bytes(4))
    memory.write(ring_at + 24, struct.pack("<QQ", (1 << 20) - 1, 0))
    room = memory.variable(24 << 20, allocated=True)

    class Filled(KernelMemory):
        """All descriptors of which are finished, and empty."""

        def read(self, address: int, count: int) -> bytes:
            if count == 24:
                return struct.pack("<QQQ", 2 << 62 | (address - room) // 24, 3, 3)
            return super().read(address, count) if count < 88 else bytes(count)

    memory.write(ring_at + 8, struct.pack("<QQ", room, room))
    log = RingLog(Filled(DiskDump(Held(vmcore.kdump(memory)))))
    assert sum(1 for _ in log.newest_first()) == MAX_LOOKED_AT
    assert log.damage == [f"messages older than the last {MAX_LOOKED_AT} are left out"]


def test_a_long_log_keeps_its_end() -> None:
    """More than MAX_TEXT: the newest; it is said, and so is what stands at the oldest end."""
    messages = [Message(6, 10**6 + i, "T1", f"{i:06d} " + "\n" * 3000) for i in range(200)]
    memory = ring(messages, bits=(8, 20), allocated=True)
    found = found_in(memory)
    assert MAX_TEXT - 3001 * 30 < len(found.data) <= MAX_TEXT
    assert text_of(messages).endswith(found.data)
    assert found.damage == (f"only the last {MAX_TEXT >> 20} MiB of the log are taken",)


class Repeated:
    """A source whose bytes behind a head are one page again and again; as large as one likes."""

    name = ""
    size = 1 << 50

    def __init__(self, head: bytes, page: bytes) -> None:
        self._head, self._page = head, page

    def read(self, at: int, count: int) -> bytes:
        """As any source."""
        if at >= self.size:
            return b""
        found = self._head[at : at + count]
        first = at + len(found)
        more = self._page * (2 + (count - len(found)) // len(self._page))
        start = (first - len(self._head)) % len(self._page)
        return found + more[start : start + count - len(found)]


def bounded(source: Source, seconds: float, reader: Reader = READER) -> list[Salvaged | Remark]:
    """What the reader gives, in bounded time and memory."""
    tracemalloc.start()
    began = time.process_time()
    found = list(reader.read(source, Options()))
    took = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < seconds, took
    assert peak < 64 << 20, peak
    return found


def test_headers_that_promise_the_world() -> None:
    """Counts and sizes as large as they can be, and a source that has as many bytes: an end is found, and said."""
    memory = ring(WRITTEN[:20])
    ring_at = peek(memory, symbol(memory, "prb"))
    memory.write(ring_at, struct.pack("<I", 30))
    memory.write(ring_at + 32, struct.pack("<Q", 5))
    found = bounded(Held(vmcore.elf(memory)), 20)
    assert Remark(f"messages older than the last {MAX_MISSED} are left out", is_damage=True) in found
    header = struct.pack("<IIQQQQQQ", 1, 7, 4096, 1 << 63, 0, 4096, 1 << 62, 0)
    data = bytearray(vmcore.elf(memory, many=True)[: 64 + 56])
    struct.pack_into("<Q", data, 40, 64 + 56)  # the section header, too, is one of these: 1 << 30 program headers
    endless = Repeated(bytes(data), header[:28] + struct.pack("<I", 1 << 30) + header[32:])
    many = bounded(endless, 20, quick(1 << 20))
    assert "there is no VMCOREINFO" in str(many[0])
    compressed = bytearray(vmcore.kdump(memory))
    struct.pack_into("<I", compressed, 436, 0xFFFFFFFE)
    struct.pack_into("<QQQ", compressed, 4096 + 80, 0, 0, 1 << 60)
    assert bounded(Repeated(bytes(compressed), b"\xff" * 4096), 30)


def test_memory_without_an_end() -> None:
    """An ELF core that claims 1 PiB: it is looked through for VMCOREINFO, and not for ever."""

    class Zeros(Held):
        size = 1 << 50

        def read(self, at: int, count: int) -> bytes:
            return super().read(at, count).ljust(count, b"\0")

    data = bytearray(vmcore.elf(kmemory.crashed(MACHINES["x86_64"], [], keeps_note=False), note=False)[: 64 + 56 * 2])
    struct.pack_into("<IIQQQQQQ", data, 64 + 56, 1, 7, 4096, 0, 4096, 1 << 50, 1 << 50, 0)
    struct.pack_into("<H", data, 56, 2)
    source = Counting(Zeros(bytes(data)))
    (remark,) = bounded(source, 60, Reader(READER.recognize, partial(read_vmcore, max_search=1 << 26)))
    assert "there is no VMCOREINFO" in getattr(remark, "text", "")
    assert source.bytes < 1 << 27


def test_pieces_without_an_end() -> None:
    """Millions of pieces of one byte, in order or in none: some of them are looked at, and memory does not grow."""

    class Pieces(Repeated):
        step = 0

        def read(self, at: int, count: int) -> bytes:
            number, within = divmod(at - 4096, 17)
            if count == 16 and within == 0 and at >= 4096:
                return struct.pack(">qq", self.step * number, 1)
            return super().read(at, count)

    for step in (0, 1):
        source = Pieces(vmcore.flattened(b"", end=False), b"x")
        source.step = step
        flattened = Flattened(source, max_pieces=1 << 16, max_marks=1 << 10)
        tracemalloc.start()
        began = time.process_time()
        flattened.to_the_end()
        took = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert "too many pieces" in flattened.damage[0]
        assert took < 10
        assert peak < 1 << 20


@given(st.integers(min_value=0))
@settings(deadline=None)
def test_any_damage_is_survived(seed: int) -> None:
    """No error, and no more than there was, whatever became of a dump file."""

    def make(rng: random.Random) -> bytes:
        kind, release = rng.choice(KINDS)
        memory = kmemory.crashed(
            MACHINES[rng.choice(list(MACHINES))],
            WRITTEN[: rng.randrange(1, 60)],
            kind=kind,
            release=release,
            allocated=rng.random() < 0.5,
            bits=(5, 12),
        )
        return rng.choice(list(in_all_forms(memory).values()))

    never_fails("vmcore", make, seed)


@given(st.integers(min_value=0))
@settings(deadline=None)
def test_any_memory_is_survived(seed: int) -> None:
    """The same of what is in memory: the log's own structures, VMCOREINFO, page tables."""
    rng = random.Random(seed)
    kind, release = rng.choice(KINDS)
    memory = kmemory.crashed(
        MACHINES[rng.choice(list(MACHINES))], WRITTEN[:40], kind=kind, release=release, allocated=True, bits=(5, 11)
    )
    for page in memory.pages.values():
        for _ in range(rng.randrange(4)):
            at = rng.randrange(4096)
            page[at] = rng.randrange(256)
    lines = [line for line in memory.info if rng.random() < 0.98]
    memory.info = [damaged(x.encode(), rng).decode("latin-1") if rng.random() < 0.02 else x for x in lines]
    memory.info = [x.encode("ascii", "replace").decode() for x in memory.info]
    for found in READER.read(Held(vmcore.elf(memory, mapped=rng.random() < 0.5)), Options()):
        assert isinstance(found, Remark) or len(found.data) <= MAX_TEXT


@given(st.integers(min_value=0))
@settings(deadline=None)
def test_any_raw_memory_is_survived(seed: int) -> None:
    """A board's, damaged."""

    def make(rng: random.Random) -> bytes:
        machine = MACHINES[rng.choice(list(MACHINES))]._replace(image_at=0x10000)
        machine = machine._replace(levels=0, facts=())
        memory = kmemory.crashed(machine, WRITTEN[:20], bits=(5, 11), heap=0x40000)
        return vmcore.raw(memory, min(memory.pages) * 4096)

    never_fails("ram", make, seed)


@given(st.binary(max_size=600))
@settings(deadline=None)
def test_any_bytes_are_survived(data: bytes) -> None:
    """With the right magic and with any."""
    for head in (
        b"",
        b"KDUMP   ",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x04\0",
        b"\x7fELF\x01\x02",
        b"DISKDUMP",
    ):
        READER.recognize(Held(head + data))
        read("vmcore", head + data)
        flattened = vmcore.flattened(head + data, piece=100)
        READER.recognize(Held(flattened))
        read("vmcore", flattened)


def test_memory_is_read_across_pages_and_not_beyond() -> None:
    """A read that ends where the dump does; addresses at the end of all."""
    memory = ring(WRITTEN[:20])
    image = DiskDump(Held(vmcore.kdump(memory)))
    kernel = KernelMemory(image)
    start = symbol(memory, "prb") & ~0xFFF
    assert len(kernel.read(start - 4096, 5000)) == 5000
    assert RingLog(kernel).notes == []
    for address in (0, (1 << 64) - 8, 1 << 47, start + (1 << 28)):
        with pytest.raises(Exception, match="is not in the dump"):
            kernel.read(address, 16)


def test_damaged_page_is_none_the_second_time_too() -> None:
    """It is looked for again, and not waited for."""
    memory = kmemory.crashed(MACHINES["x86_64"], WRITTEN[:20], bits=(5, 10))
    image = DiskDump(Held(vmcore.kdump(memory, pack=lambda page: b"no" + page[:9])))
    at = min(memory.pages) * 4096
    assert [image.physical(at, 16) for _ in range(3)] == [b""] * 3
    assert [word for word in image.damage if "cannot be unpacked" in word]
