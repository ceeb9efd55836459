# SPDX-License-Identifier: Apache-2.0
"""What the sections of an error record say: of a processor, of memory, of PCIe, of the firmware itself.

Source: UEFI Specification, appendix N.2.4 to N.2.7; include/linux/cper.h, drivers/firmware/efi/cper.c, cper-x86.c and
cper-arm.c.  Each section says by bits which of its fields count; what is short or unknown is shown as far as it goes.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from pstored.parse.cper import Section
from pstored.parse.mce import Mce, mce_of_bank

Row = tuple[str, str]


class Told(NamedTuple):
    """A section in words."""

    title: str
    """What failed, in one line."""
    rows: tuple[Row, ...]
    """Every field: name and value."""


def tell(section: Section) -> Told:
    """Put a section into words; one of a type that is not known is named by that."""
    name, teller = _SECTIONS.get(section.type, (f"section of type {section.type}", None))
    rows: list[Row] = []
    title = name
    if teller is not None:
        try:
            title, rows = teller(section.data)
        except struct.error:
            title, rows = f"{name}, whose description is cut", []
    if section.fru:
        rows.append(("unit", section.fru))
    return Told(title, tuple(rows))


# -- fields


class _Field(NamedTuple):
    """A number in a section."""

    name: str
    at: int
    form: str
    """As struct has it, little-endian."""
    bit: int
    """Of the validation bits."""
    show: Callable[[int], str] = "{:#x}".format


def _fields(data: bytes, valid: int, fields: Sequence[_Field]) -> Iterator[Row]:
    for field in fields:
        if valid >> field.bit & 1 and field.at + struct.calcsize(field.form) <= len(data):
            (value,) = struct.unpack_from(f"<{field.form}", data, field.at)
            yield field.name, field.show(value)


def _word(words: Sequence[str]) -> Callable[[int], str]:
    def show(value: int) -> str:
        return words[value] if value < len(words) else f"{value}, which means nothing known"

    return show


def _bits(words: dict[int, str]) -> Callable[[int], str]:
    def show(value: int) -> str:
        found = [word for bit, word in words.items() if value >> bit & 1]
        return ", ".join(found) or f"{value:#x}"

    return show


def _decimal(value: int) -> str:
    return str(value)


# -- processors

_OPERATIONS = (
    "generic error",
    "generic read",
    "generic write",
    "data read",
    "data write",
    "instruction fetch",
    "prefetch",
    "eviction",
    "snoop",
)
_TRANSACTIONS = ("instruction", "data access", "generic")
_GENERIC_ERRORS = {0: "cache", 1: "TLB", 2: "bus", 3: "micro-architectural"}

_GENERIC = (
    _Field("processor", 8, "B", 0, _word(("IA32/X64", "IA64", "ARM"))),
    _Field("instructions", 9, "B", 1, _word(("IA32", "IA64", "X64", "ARM A32/T32", "ARM A64"))),
    _Field("error", 10, "B", 2, _bits(_GENERIC_ERRORS)),
    _Field("operation", 11, "B", 3, _word(("unknown or generic", "data read", "data write", "instruction execution"))),
    _Field(
        "flags", 12, "B", 4, _bits({0: "restartable", 1: "instruction pointer exact", 2: "overflow", 3: "corrected"})
    ),
    _Field("level", 13, "B", 5, _decimal),
    _Field("version", 16, "Q", 6),
    _Field("processor id", 152, "Q", 8),
    _Field("address", 160, "Q", 9),
    _Field("requestor", 168, "Q", 10),
    _Field("responder", 176, "Q", 11),
    _Field("ip", 184, "Q", 12),
)


def _generic(data: bytes) -> tuple[str, list[Row]]:
    (valid,) = struct.unpack_from("<Q", data)
    rows = list(_fields(data, valid, _GENERIC))
    if valid >> 7 & 1:
        brand = data[24:152].partition(b"\0")[0].decode(errors="backslashreplace").strip()
        rows.insert(0, ("brand", brand))
    said = dict(rows)
    what = f"{said['error']} error" if "error" in said else "error"
    where = f" on {said['operation']}" if "operation" in said else ""
    return f"processor: {what}{where}", rows


_IA_ERRORS = {
    UUID("a55701f5-e3ef-43de-ac72-249b573fad2c"): "cache",
    UUID("fc06b535-5e1f-4562-9f25-0a3b9adb63c3"): "TLB",
    UUID("1cf3f8b3-c5b1-49a2-aa59-5eef92ffa63c"): "bus",
    UUID("48ab7f57-dc34-4f6c-a7d3-b0b5b0a74314"): "micro-architectural",
}
_IA_INFO = struct.Struct("<16s6Q")
_IA_CONTEXT = struct.Struct("<HHIQ")
_IA_MS = (
    "no error",
    "unclassified",
    "microcode ROM parity",
    "external",
    "FRC",
    "internal unclassified",
)


def _ia(data: bytes) -> tuple[str, list[Row]]:
    """IA32/X64: errors, and registers; those of AMD's machine check banks are told as a machine check."""
    valid, lapic = struct.unpack_from("<QQ", data)
    rows: list[Row] = [("APIC id", str(lapic))] if valid & 1 else []
    titles: list[str] = []
    at = 64
    for _ in range(valid >> 2 & 0x3F):
        words, more = _ia_error(_IA_INFO.unpack_from(data, at))
        titles.append(words)
        rows += more
        at += _IA_INFO.size
    for _ in range(valid >> 8 & 0x3F):
        kind, size, msr, _ = _IA_CONTEXT.unpack_from(data, at)
        registers = data[at + _IA_CONTEXT.size : at + _IA_CONTEXT.size + size]
        at += _IA_CONTEXT.size + (size + 15) // 16 * 16
        mce = _bank(kind, msr, registers)
        if mce is None:
            rows.append((f"registers of type {kind}", f"{size} bytes"))
            continue
        titles.append(f"bank {mce.bank}: {mce.error}")
        rows += [
            (f"bank {mce.bank}", f"{mce.severity} error: {mce.error}"),
            ("status", f"{mce.status:#018x}"),
            *(("", f"{name:<9}{meaning}") for name, meaning in mce.flags),
            *([("address", f"{mce.address:#x}")] if mce.address is not None else []),
        ]
    return f"processor: {'; '.join(dict.fromkeys(titles)) or 'error'}", rows


def _ia_error(fields: tuple[bytes, int, int, int, int, int, int]) -> tuple[str, list[Row]]:
    kind, valid, check, target, requestor, responder, ip = fields
    name = _IA_ERRORS.get(UUID(bytes_le=kind), "unknown")
    words = f"{name} error"
    rows: list[Row] = []
    if valid & 1:
        rows += _check(check, is_ms=name == "micro-architectural")
        said = dict(rows)
        words += f" on {said['operation']}" if "operation" in said else ""
    values = (("target", target), ("requestor", requestor), ("responder", responder), ("ip", ip))
    rows += [(word, f"{value:#x}") for n, (word, value) in enumerate(values, 1) if valid >> n & 1]
    return words, [("error", words), *rows]


def _check(check: int, *, is_ms: bool = False, is_arm: bool = False) -> Iterator[Row]:
    """The check information: which bits of its lower half say that those of the upper count."""
    if is_ms:
        if check & 1:
            yield "kind", _word(_IA_MS)(check >> 16 & 7)
        flags = ((1, 19), (2, 20), (3, 21), (4, 22), (5, 23))
    else:
        if check & 1:
            yield "transaction", _word(_TRANSACTIONS)(check >> 16 & 3)
        if check >> 1 & 1:
            yield "operation", _word(_OPERATIONS)(check >> 18 & 0xF)
        if check >> 2 & 1:
            yield "level", str(check >> 22 & 7)
        flags = ((3, 25), (4, 26), (5, 27), (6, 28), (7, 29))
    outcome = "corrected" if is_arm else "uncorrected"
    words = ("processor context corrupt", outcome, "instruction pointer exact", "restartable", "overflow")
    found = [word for word, (says, bit) in zip(words, flags, strict=True) if check >> says & 1 and check >> bit & 1]
    if found:
        yield "flags", ", ".join(found)


_MSR_REGISTERS = 1
_SMCA_STATUS, _SMCA_END = 0xC0002001, 0xC0003000


def _bank(kind: int, msr: int, registers: bytes) -> Mce | None:
    """AMD's BERT: status, address, misc, configuration, IPID and syndrome of a bank (mce/apei.c, smca)."""
    is_smca = _SMCA_STATUS <= msr < _SMCA_END and msr & 0xF == 1
    if kind != _MSR_REGISTERS or not is_smca or len(registers) < 48:
        return None
    status, address, misc, _, ipid, synd = struct.unpack_from("<6Q", registers)
    return mce_of_bank(bank=msr >> 4 & 0xFF, status=status, address=address, misc=misc, ipid=ipid, synd=synd)


_ARM = struct.Struct("<IHHIB3xQQII")
_ARM_INFO = struct.Struct("<BBHBHBQQQ")
_ARM_NUMBERED = ("cache", "TLB", "bus", "micro-architectural")
_ARM_BITS = {1: "cache", 2: "TLB", 3: "bus", 4: "micro-architectural"}


def _arm(data: bytes) -> tuple[str, list[Row]]:
    valid, count, _, _, level, mpidr, midr, running, psci = _ARM.unpack_from(data)
    rows: list[Row] = [("MIDR", f"{midr:#x}")]
    rows += [("MPIDR", f"{mpidr:#x}")] if valid & 1 else []
    rows += [("affinity level", str(level))] if valid & 2 else []
    if valid & 4:
        rows.append(("state", "running" if running & 1 else f"not running, PSCI state {psci:#x}"))
    titles: list[str] = []
    at = _ARM.size
    for _ in range(min(count, 64)):
        version, size, flags, kind, multiple, more, info, virtual, physical = _ARM_INFO.unpack_from(data, at)
        at += max(size, _ARM_INFO.size)
        # a number up to UEFI 2.9, bits since; 2 is a bus then, and a cache now
        words = (
            _ARM_NUMBERED[kind] if version == 0 and kind < len(_ARM_NUMBERED) and kind != 2 else _bits(_ARM_BITS)(kind)
        )
        said = dict(_check(info, is_arm=True)) if flags & 4 else {}
        words += " error" + (f" on {said['operation']}" if "operation" in said else "")
        titles.append(words)
        rows.append(("error", words))
        rows += said.items()
        rows += [("errors", f"{multiple + 1} or more")] if flags & 1 and multiple else []
        if flags & 2:
            rows.append(
                ("report", _bits({0: "first of several", 1: "last of several", 2: "propagated", 3: "overflow"})(more))
            )
        rows += [("virtual address", f"{virtual:#x}")] if flags & 8 else []
        rows += [("physical address", f"{physical:#x}")] if flags & 16 else []
    return f"processor: {'; '.join(dict.fromkeys(titles)) or 'error'}", rows


# -- memory

_MEMORY_ERRORS = (
    "unknown error",
    "no error",
    "single-bit ECC error",
    "multi-bit ECC error",
    "single-symbol chipkill ECC error",
    "multi-symbol chipkill ECC error",
    "master abort",
    "target abort",
    "parity error",
    "watchdog timeout",
    "invalid address",
    "broken mirror",
    "memory sparing",
    "error corrected by scrubbing",
    "error not corrected by scrubbing",
    "physical memory map-out",
)
_PLACES = (
    _Field("node", 32, "H", 3, _decimal),
    _Field("card", 34, "H", 4, _decimal),
    _Field("module", 36, "H", 5, _decimal),
    _Field("bank", 38, "H", 6, _decimal),
    _Field("device", 40, "H", 7, _decimal),
    _Field("row", 42, "H", 8, _decimal),
    _Field("column", 44, "H", 9, _decimal),
    _Field("bit", 46, "H", 10, _decimal),
    _Field("rank", 74, "H", 15, _decimal),
)
_MEMORY = (
    _Field("error status", 8, "Q", 0),
    _Field("address", 16, "Q", 1),
    _Field("address mask", 24, "Q", 2),
    _Field("requestor", 48, "Q", 11),
    _Field("responder", 56, "Q", 12),
    _Field("target", 64, "Q", 13),
    _Field("error", 72, "B", 14, _word(_MEMORY_ERRORS)),
    *_PLACES,
    _Field("card handle", 76, "H", 16),
    _Field("module handle", 78, "H", 17),
)


def _memory(data: bytes) -> tuple[str, list[Row]]:
    (valid,) = struct.unpack_from("<Q", data)
    rows = list(_fields(data, valid, _MEMORY))
    said = dict(rows)
    place = [f"{f.name} {said[f.name]}" for f in _PLACES if f.name in said]
    where = f" at {said['address']}" if "address" in said else ""
    return f"memory: {said.get('error', 'error')}{where}" + (f" ({', '.join(place)})" if place else ""), rows


# -- PCIe

_PORTS = (
    "endpoint",
    "legacy endpoint",
    "unknown",
    "unknown",
    "root port",
    "upstream switch port",
    "downstream switch port",
    "PCIe to PCI/PCI-X bridge",
    "PCI/PCI-X to PCIe bridge",
    "integrated endpoint of the root complex",
    "event collector of the root complex",
)
_UNCORRECTABLE = {
    4: "data link protocol",
    5: "surprise down",
    12: "poisoned TLP",
    13: "flow control protocol",
    14: "completion timeout",
    15: "completer abort",
    16: "unexpected completion",
    17: "receiver overflow",
    18: "malformed TLP",
    19: "ECRC",
    20: "unsupported request",
    21: "ACS violation",
    22: "internal error",
    23: "multicast blocked TLP",
    24: "atomic operation blocked",
    25: "TLP prefix blocked",
    26: "poisoned TLP blocked",
}
_CORRECTABLE = {
    0: "receiver error",
    6: "bad TLP",
    7: "bad DLLP",
    8: "replay number rollover",
    12: "replay timer timeout",
    13: "advisory non-fatal",
    14: "corrected internal error",
    15: "header log overflow",
}


def _pcie(data: bytes) -> tuple[str, list[Row]]:
    (valid,) = struct.unpack_from("<Q", data)
    rows = list(_fields(data, valid, (_Field("port", 8, "I", 0, _word(_PORTS)),)))
    title = f"PCIe: error at a {rows[0][1]}" if rows else "PCIe: error"
    if valid >> 2 & 1:
        command, status = struct.unpack_from("<HH", data, 16)
        rows.append(("command, status", f"{command:#06x}, {status:#06x}"))
    if valid >> 3 & 1:
        vendor, device, kind, function, number, segment, bus, second, slot = struct.unpack_from("<HH3sBBHBBH", data, 24)
        where = f"{segment:04x}:{bus:02x}:{number:02x}.{function}"
        title += f" {where}"
        rows += [
            ("device", where),
            ("vendor, device", f"{vendor:04x}:{device:04x}"),
            ("class", kind[::-1].hex()),
            ("slot", str(slot >> 3)),
            ("secondary bus", f"{second:02x}"),
        ]
    if valid >> 4 & 1:
        low, high = struct.unpack_from("<II", data, 40)
        rows.append(("serial number", f"{high:08x}{low:08x}"))
    if valid >> 7 & 1:
        uncorrectable, mask, severe, correctable = struct.unpack_from("<4I", data, 116)
        what = [
            text
            for value, words in ((uncorrectable, _UNCORRECTABLE), (correctable, _CORRECTABLE))
            if value
            for text in (_bits(words)(value),)
        ]
        title += f": {', '.join(what)}" if what else ""
        rows += [
            ("uncorrectable", _bits(_UNCORRECTABLE)(uncorrectable) if uncorrectable else "none"),
            ("of these fatal", _bits(_UNCORRECTABLE)(uncorrectable & severe) if uncorrectable & severe else "none"),
            ("masked", f"{mask:#x}"),
            ("correctable", _bits(_CORRECTABLE)(correctable) if correctable else "none"),
        ]
    return title, rows


# -- firmware

_FIRMWARE_RECORDS = (
    "IPF SAL error record",
    "SOC firmware error record, type 1 (CrashLog)",
    "SOC firmware error record, type 2",
)


def _firmware(data: bytes) -> tuple[str, list[Row]]:
    kind, revision, number = struct.unpack_from("<BB6xQ", data)
    what = _word(_FIRMWARE_RECORDS)(kind)
    rows: list[Row] = [("record", what), ("revision", str(revision)), ("identifier", f"{number:#x}")]
    if len(data) >= 32:
        rows.append(("GUID", str(UUID(bytes_le=data[16:32]))))
    if len(data) > 32:
        rows.append(("data", f"{len(data) - 32} bytes, which only the firmware's maker reads"))
    return f"firmware: {what}", rows


_Teller = Callable[[bytes], tuple[str, list[Row]]]
_SECTIONS: dict[UUID, tuple[str, _Teller | None]] = {
    UUID("9876ccad-47b4-4bdb-b65e-16f193c4f3db"): ("processor error", _generic),
    UUID("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"): ("processor error", _ia),
    UUID("e19e3d16-bc11-11e4-9caa-c2051d5d46b0"): ("processor error", _arm),
    UUID("e429faf1-3cb7-11d4-bca7-0080c73c8881"): ("IA64 processor error", None),
    UUID("a5bc1114-6f64-4ede-b863-3e83ed7c83b1"): ("memory error", _memory),
    UUID("61ec04fc-48e6-d813-25c9-8daa44750b12"): ("memory error, second form", None),
    UUID("d995e954-bbc1-430f-ad91-b44dcb3c6f35"): ("PCIe error", _pcie),
    UUID("c5753963-3b84-4095-bf78-eddad3f9c9dd"): ("PCI bus error", None),
    UUID("eb5e4685-ca66-4769-b6a2-26068b001326"): ("PCI device error", None),
    UUID("81212a96-09ed-4996-9471-8d729c8e69ed"): ("firmware error record", _firmware),
    UUID("5b51fef7-c79d-4434-8f1b-aa62de3e2c64"): ("DMA remapping error", None),
    UUID("71761d37-32b2-45cd-a7d0-b0fedd93e8cf"): ("VT-d error", None),
    UUID("036f84e1-7f37-428c-a79e-575fdfaa84ec"): ("IOMMU error", None),
    UUID("91335ef6-ebfb-4478-a6a6-88b728cf75d7"): ("CCIX error", None),
    UUID("80b9efb4-52b5-4de3-a777-68784b771048"): ("CXL protocol error", None),
    UUID("fbcd0a77-c260-417f-85a9-088b1621eba6"): ("CXL memory event", None),
    UUID("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624"): ("CXL DRAM event", None),
    UUID("fe927475-dd59-4339-a586-79bab113bc74"): ("CXL module event", None),
}

KNOWN = frozenset(_SECTIONS)
"""Types of sections that have a name."""
