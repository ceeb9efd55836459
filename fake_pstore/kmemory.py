# SPDX-License-Identifier: Apache-2.0
"""The memory of a kernel that has crashed: its log, as its time had it, and VMCOREINFO; see vmcore.py for dump files.

Source: kernel/printk/printk_ringbuffer.h and .c (5.10 on), kernel/printk/printk.c of 4.9 (records), of 3.2 (text);
kernel/crash_core.c; arch/x86/mm for the page tables, arch/arm64/include/asm/memory.h.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from .klog import Message

PAGE = 4096
NOTE = b"VMCOREINFO\0"
Kind = Literal["ring", "records", "text"]
"""Of the log: since 5.10, 3.5 to 5.9, before."""


class Machine(NamedTuple):
    """One architecture, and where its kernel happened to be."""

    name: str
    """As uname -m."""
    elf: int
    """e_machine."""
    word: int
    order: Literal["<", ">"]
    image: int
    """Kernel address of the image's first byte."""
    image_at: int
    """Its physical address."""
    direct: int
    """Kernel address of physical address 0, in the direct map."""
    facts: tuple[str, ...] = ()
    """Lines of VMCOREINFO that are this machine's."""
    levels: int = 0
    """Of page tables, if there are to be some."""


_X86 = ("NUMBER(phys_base)={:d}", "NUMBER(pgtable_l5_enabled)={:d}", "SYMBOL(init_top_pgt)={:x}")
_ARM64 = ("NUMBER(VA_BITS)=48", "NUMBER(PHYS_OFFSET)=0x0")
_RISCV = (
    "NUMBER(KERNEL_LINK_ADDR)=0xffffffff80000000",
    "NUMBER(va_kernel_pa_offset)=0xffffffff7de00000",
    "NUMBER(PAGE_OFFSET)=0xffffffd800000000",
    "NUMBER(phys_ram_base)=0x0",
)
MACHINES = {
    "x86_64": Machine("x86_64", 62, 8, "<", 0xFFFFFFFFB7000000, 0x3000000, 0xFFFF9D8000000000, _X86, levels=4),
    "x86_64-la57": Machine("x86_64", 62, 8, "<", 0xFFFFFFFF81000000, 0x1000000, 0xFF11000000000000, _X86, levels=5),
    "aarch64": Machine(
        *("aarch64", 183, 8, "<", 0xFFFF800080000000, 0x1200000, 0xFFFF000000000000),
        (*_ARM64, "NUMBER(kimage_voffset)=0xffff80007ee00000"),
    ),
    "aarch64-5.3": Machine(
        *("aarch64", 183, 8, "<", 0xFFFF000008080000, 0x1080000, 0xFFFF800000000000),
        (*_ARM64, "NUMBER(kimage_voffset)=0xffff000007000000"),
    ),
    "aarch64-52": Machine(  # built for 52 bits of address, on a CPU with 48
        *("aarch64", 183, 8, "<", 0xFFFF800080000000, 0x1200000, 0xFFFF000000000000),
        (
            "NUMBER(VA_BITS)=52",
            "NUMBER(TCR_EL1_T1SZ)=0x10",
            "NUMBER(PHYS_OFFSET)=0xfff1000000000000",
            "NUMBER(kimage_voffset)=0xffff80007ee00000",
        ),
    ),
    "riscv64": Machine("riscv64", 243, 8, "<", 0xFFFFFFFF80000000, 0x2200000, 0xFFFFFFD800000000, _RISCV),
    "ppc64": Machine("ppc64", 21, 8, ">", 0xC000000001000000, 0x1000000, 0xC000000000000000),
    "s390x": Machine("s390x", 22, 8, ">", 0x1000000, 0x1000000, 0),
    "i386": Machine("i386", 3, 4, "<", 0xC1000000, 0x1000000, 0xC0000000),
    "armv5teb": Machine("armv5teb", 40, 4, ">", 0xC1000000, 0x1000000, 0xC0000000),
}
"""By name; the last is one whose addresses only segments tell."""


class Memory:
    """Pages, by physical address; what was never written is not there."""

    def __init__(self, machine: Machine, heap: int = 0x2800000) -> None:
        self.machine = machine
        self.pages: dict[int, bytearray] = {}
        self.info: list[str] = []
        """Lines of VMCOREINFO."""
        self.left: list[Message] = []
        """What of the log is still there, but for text: it is bytes, and begins anywhere."""
        self._image = machine.image
        self._heap = machine.direct + heap

    def write(self, address: int, data: bytes) -> None:
        """Put *data* at a kernel address."""
        for at, byte_range in _cut(self.physical(address), len(data)):
            page = self.pages.setdefault(at // PAGE, bytearray(PAGE))
            page[at % PAGE : at % PAGE + len(byte_range)] = data[byte_range.start : byte_range.stop]

    def physical(self, address: int) -> int:
        """Where a kernel address lies."""
        machine = self.machine
        if 0 <= address - machine.image < 0x800000:
            return address - machine.image + machine.image_at
        return address - machine.direct

    def variable(self, size: int, *, allocated: bool = False, align: int = 8) -> int:
        """Room for *size* bytes: in the image, or allocated at boot."""
        if allocated:
            self._heap += -self._heap % PAGE
            at, self._heap = self._heap, self._heap + size
        else:
            self._image += -self._image % align
            at, self._image = self._image, self._image + size
        return at

    def place(self, data: bytes, *, allocated: bool = False) -> int:
        """Put *data* somewhere."""
        at = self.variable(len(data), allocated=allocated)
        self.write(at, data)
        return at

    def words(self, *values: int) -> bytes:
        """Numbers as ``unsigned long``."""
        word = self.machine.word
        mask = (1 << 8 * word) - 1
        return struct.pack(f"{self.machine.order}{len(values)}{'Q' if word == 8 else 'I'}", *(v & mask for v in values))

    def note(self) -> bytes:
        """VMCOREINFO."""
        return "".join(f"{line}\n" for line in self.info).encode()


def _cut(at: int, size: int) -> Iterable[tuple[int, range]]:
    done = 0
    while done < size:
        count = min(size - done, PAGE - (at + done) % PAGE)
        yield at + done, range(done, done + count)
        done += count


def crashed(
    machine: Machine,
    messages: Sequence[Message],
    *,
    kind: Kind = "ring",
    release: str = "6.1.0-9-fake",
    crash_time: int | None = 1_795_000_000,
    allocated: bool = False,
    bits: tuple[int, int] = (8, 14),
    callers: bool = False,
    keeps_note: bool = True,
    heap: int = 0x2800000,
) -> Memory:
    """A kernel that has logged *messages* and died.

    Args:
        machine: where.
        messages: the log, the oldest first; of more than fit, the newest stay.
        kind: of the log.
        release: as uname -r.
        crash_time: Unix seconds; None: it was not kdump that saved the memory.
        allocated: the log is not in the image, but allocated at boot (log_buf_len=).
        bits: of the number of descriptors, and of the bytes of text.
        callers: CONFIG_PRINTK_CALLER, which only records show.
        keeps_note: VMCOREINFO is in its memory, as the note that kdump takes.
        heap: the physical address from which on it allocates.
    """
    memory = Memory(machine, heap)
    memory.info += [f"OSRELEASE={release}", "BUILD-ID=" + "5a" * 20, f"PAGESIZE={PAGE}"]
    if machine.levels:
        root = _page_tables(memory)
        values = (machine.image_at - (machine.image - 0xFFFFFFFF80000000), machine.levels == 5, root)
        memory.info += [fact.format(value) for fact, value in zip(machine.facts, values, strict=True)]
    else:
        memory.info += [f"SYMBOL(swapper_pg_dir)={memory.variable(PAGE):x}", *machine.facts]
    if kind == "ring":
        _ring(memory, messages, allocated=allocated, bits=bits)
    elif kind == "records":
        _records(memory, messages, size=1 << bits[1], allocated=allocated, callers=callers, release=release)
    else:
        _text(memory, messages, size=1 << bits[1], allocated=allocated)
    names = ("Linux", "fake", release, "#1 SMP", machine.name, "(none)")
    uts = memory.place(bytes(4) + b"".join(n.encode().ljust(65, b"\0") for n in names))
    memory.info += [f"SYMBOL(init_uts_ns)={uts:x}", "OFFSET(uts_namespace.name)=4", "KERNELOFFSET=36000000"]
    memory.info += [] if crash_time is None else [f"CRASHTIME={crash_time}"]
    if keeps_note:
        data = memory.note()
        head = struct.pack(machine.order + "III", len(NOTE), len(data), 0)
        memory.place((head + NOTE.ljust(12, b"\0") + data).ljust(2 * PAGE, b"\0"), allocated=True)
    return memory


def _page_tables(memory: Memory) -> int:
    """Tables that map the direct map's first 64 MiB, in small pages but for the second half."""
    machine = memory.machine
    tables = [memory.variable(PAGE, align=PAGE) for _ in range(machine.levels - 1)]
    for level, table in enumerate(tables):
        shift = 12 + 9 * (machine.levels - 1 - level)
        index = machine.direct >> shift & 511
        if level < machine.levels - 2:
            memory.write(table + 8 * index, memory.words(memory.physical(tables[level + 1]) | 0x63))
            continue
        for number in range(32):  # 2 MiB each
            at = number << 21
            if number >= 16:
                entry = at | 0xE3  # a large page
            else:
                small = memory.variable(PAGE, align=PAGE)
                memory.write(small, memory.words(*(at + i * PAGE | 1 << 63 | 0x63 for i in range(512))))
                entry = memory.physical(small) | 0x63
            memory.write(table + 8 * (index + number), memory.words(entry))
    return tables[0]


# -- since 5.10


class _Record(NamedTuple):
    number: int
    begin: int
    end: int
    message: Message | None


def _ring(memory: Memory, messages: Sequence[Message], *, allocated: bool, bits: tuple[int, int]) -> None:
    machine = memory.machine
    word, order = machine.word, machine.order
    count, size = 1 << bits[0], 1 << bits[1]
    top = 1 << 8 * word
    ids = top >> 2
    descs = memory.variable(count * 3 * word, allocated=allocated)
    infos = memory.variable(count * 88, allocated=allocated)
    data = memory.variable(size, allocated=allocated)
    for at, length in ((descs, count * 3 * word), (infos, count * 88), (data, size)):
        memory.write(at, bytes(length))
    # the numbers begin such that they soon go over their end: DESC0_ID, BLK0_LPOS
    number, head = (-(count + 1)) % ids, -size % top
    memory.write(descs + (number % count) * 3 * word, memory.words(3 << 8 * word - 2 | number, 1, 1))
    there = [_Record(number, 1, 1, None)]
    for message in messages:
        number = (number + 1) % ids
        text = message.text.encode(errors="surrogateescape")
        if text:
            need = word + len(text) + -(word + len(text)) % word
            begin, head, start = _reserve(head, need, size, top)
            memory.write(data + start, memory.words(number) + text)
        else:
            begin, head, need = 3, head, 0
        end = 3 if not text else head
        for i, old in enumerate(there):
            if old.begin & 1 == 0 and (head - old.begin) % top > size:  # overwritten: a reader finds it reusable
                memory.write(descs + (old.number % count) * 3 * word, memory.words(3 << 8 * word - 2 | old.number))
                there[i] = old._replace(message=None)
        there = [*there[-count + 1 :], _Record(number, begin, end, message)]
        state = (1 if message is messages[-1] else 2) << 8 * word - 2 | number
        memory.write(descs + (number % count) * 3 * word, memory.words(state, begin, end))
        caller = int(message.caller[1:]) | (1 << 31 if message.caller.startswith("C") else 0)
        facility, level = message.level >> 3, message.level & 7
        flags = 2  # LOG_NEWLINE
        packed = flags | level << 5 if order == "<" else flags << 3 | level
        info = struct.pack(order + "QQHBBI", number, message.time_us * 1000 + 7, len(text), facility, packed, caller)
        memory.write(infos + (number % count) * 88, info.ljust(88, b"\0"))
    memory.left = [r.message for r in there if r.message is not None]
    tail = there[0].number
    pad = b"\0" * (word - 4)
    desc_ring = struct.pack(order + "I", bits[0]) + pad + memory.words(descs, infos, number, tail, number)
    text_ring = struct.pack(order + "I", bits[1]) + pad + memory.words(data, head, there[-1].begin)
    ring = memory.place(desc_ring + text_ring + memory.words(0))
    memory.info += [
        f"SYMBOL(prb)={memory.place(memory.words(ring)):x}",
        f"SIZE(printk_ringbuffer)={11 * word}",
        "OFFSET(printk_ringbuffer.desc_ring)=0",
        f"OFFSET(printk_ringbuffer.text_data_ring)={6 * word}",
        "OFFSET(prb_desc_ring.count_bits)=0",
        *(f"OFFSET(prb_desc_ring.{n})={i * word}" for i, n in enumerate(("descs", "infos", "head_id", "tail_id"), 1)),
        f"SIZE(prb_desc)={3 * word}",
        "OFFSET(prb_desc.state_var)=0",
        f"OFFSET(prb_desc.text_blk_lpos)={word}",
        "OFFSET(prb_data_blk_lpos.begin)=0",
        f"OFFSET(prb_data_blk_lpos.next)={word}",
        "SIZE(printk_info)=88",
        *(f"OFFSET(printk_info.{n})={i}" for n, i in (("seq", 0), ("ts_nsec", 8), ("text_len", 16), ("caller_id", 20))),
        "OFFSET(prb_data_ring.size_bits)=0",
        f"OFFSET(prb_data_ring.data)={word}",
        "OFFSET(atomic_long_t.counter)=0",
    ]  # fmt: skip


def _reserve(head: int, need: int, size: int, top: int) -> tuple[int, int, int]:
    """Where a block begins, where the next can, and its place in the ring: data_alloc() of 6.12."""
    begin = head
    if (begin + need) % top // size != begin // size:  # one that just fits, too
        return begin, (begin - begin % size + size + need) % top, 0
    return begin, (begin + need) % top, begin % size


# -- 3.5 to 5.9


def _records(
    memory: Memory, messages: Sequence[Message], *, size: int, allocated: bool, callers: bool, release: str
) -> None:
    order, word = memory.machine.order, memory.machine.word
    is_first = release.startswith("3.5")
    head_size = 20 if callers else 16
    buffer = bytearray(size)
    at = 0
    places: dict[int, Message] = {}
    for message in messages:
        text = message.text.encode(errors="surrogateescape")
        length = head_size + len(text)
        length += -length % word
        if at + length + head_size > size:  # room for a head of zeros is always left: logbuf_has_space()
            places = {p: m for p, m in places.items() if p < at}
            buffer[at:] = bytes(size - at)
            at = 0
        places = {p: m for p, m in places.items() if not at <= p < at + length}
        flags = 2 | 4
        packed = flags | (message.level & 7) << 5 if order == "<" else flags << 3 | message.level & 7
        kind = struct.pack(order + "H", message.level) if is_first else bytes((message.level >> 3, packed))
        head = struct.pack(order + "QHHH", message.time_us * 1000 + 7, length, len(text), 0) + kind
        if callers:
            caller = int(message.caller[1:]) | (1 << 31 if message.caller.startswith("C") else 0)
            head += struct.pack(order + "I", caller)
        buffer[at : at + length] = (head + text).ljust(length, b"\0")
        places[at] = message
        at += length
    memory.left = list(places.values())
    name = "log" if release.startswith("3.") else "printk_log"
    _log_buffer(memory, bytes(buffer), allocated=allocated)
    for symbol, value in (("log_first_idx", next(iter(places), at)), ("log_next_idx", at)):
        memory.info.append(f"SYMBOL({symbol})={memory.place(struct.pack(order + 'I', value)):x}")
    memory.info += [f"SIZE({name})={head_size}"]
    fields = [("ts_nsec", 0), ("len", 8), ("text_len", 10), ("dict_len", 12)] + [("caller_id", 16)] * callers
    memory.info += [f"OFFSET({name}.{field})={place}" for field, place in fields]


def _log_buffer(memory: Memory, data: bytes, *, allocated: bool) -> None:
    at = memory.place(data, allocated=allocated)
    memory.info.append(f"SYMBOL(log_buf)={memory.place(memory.words(at)):x}")
    length = memory.place(struct.pack(memory.machine.order + "I", len(data)))
    memory.info.append(f"SYMBOL(log_buf_len)={length:x}")


# -- before 3.5


def _text(memory: Memory, messages: Sequence[Message], *, size: int, allocated: bool) -> None:
    whole = b"".join(
        b"<%d>[%5d.%06d] %b\n" % (m.level, *divmod(m.time_us, 10**6), line)
        for m in messages
        for line in m.text.encode(errors="surrogateescape").split(b"\n")
    )
    ring = bytearray(size)
    for at in range(max(0, len(whole) - size), len(whole)):
        ring[at % size] = whole[at]
    _log_buffer(memory, bytes(ring), allocated=allocated)
    end = memory.place(struct.pack(memory.machine.order + "I", len(whole)))
    memory.info.append(f"SYMBOL(log_end)={end:x}")
