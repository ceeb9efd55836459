# SPDX-License-Identifier: Apache-2.0
"""One record, decoded: name, ECC notice, compression, header, text."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from pstored.errors import DamagedError
from pstored.parse.decompress import UnpackError, unpack
from pstored.parse.ecc import EccNotice, split_ecc_notice
from pstored.parse.end import BootEnd, parse_end
from pstored.parse.filename import BESIDE, RecordName, erst_boot_key, split_efi_id, split_record_name
from pstored.parse.ftrace import parse_ftrace_text
from pstored.parse.hardware import parse_hardware
from pstored.parse.header import DumpHeader, split_dump_header
from pstored.parse.mce import parse_mce
from pstored.parse.pmsg import parse_pmsg

_TEXT_SAMPLE = 4096
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x80-\xff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record of any type; what is not understood is in ``damage`` or ``notes``, and the archive has the bytes."""

    name: str
    """As in pstorefs."""
    harvest_id: str
    size: int
    sha256: str
    type: str
    """By content where content and name disagree; ``unknown`` if neither says."""
    backend: str | None
    id: int | None
    time_ns: int | None
    """The crash's time by the crashed boot's clock; None for zones without one (console, pmsg, ftrace, mce), but for
    consoles that others wrote down (BESIDE): by their clock."""
    boot_key: int | None
    """Equal for ERST records of one boot; None elsewhere."""
    compression: str | None
    """The algorithm, for records that we unpacked."""
    ecc: EccNotice | None
    header: DumpHeader | None
    text: bytes | None
    """What a person reads; None if the record is not understood."""
    summary: str | None
    """One sentence, for records that are no text (mce, cper)."""
    end: BootEnd | None
    """How a boot ended that left no record: what ours of type ``end`` say."""
    damage: tuple[str, ...]
    """What is broken or missing in this record."""
    notes: tuple[str, ...]
    """What else somebody should know."""
    sender: str | None = None
    """The address that it came from, if it came over the net."""
    is_fatal: bool = False
    """Of the hardware's own records: the machine can have died of it."""


@dataclass(slots=True)
class _Draft:
    type: str
    content: bytes
    compression: str | None = None
    header: DumpHeader | None = None
    text: bytes | None = None
    summary: str | None = None
    end: BootEnd | None = None
    is_fatal: bool = False
    time_ns: int | None = None
    ecc: EccNotice | None = None
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def decode_record(
    name: str,
    data: bytes,
    *,
    mtime_ns: int,
    harvest_id: str = "",
    sha256: str = "",
    error: str | None = None,
    notes: Iterable[str] = (),
    damage: Iterable[str] = (),
    sender: str | None = None,
) -> Record:
    """Decode one record; never raises: what is wrong with it is in the result.

    Args:
        name: its name in pstorefs.
        data: its bytes, ECC notice included.
        mtime_ns: its mtime there.
        harvest_id: where it is archived.
        sha256: its digest.
        error: why reading it ended early, if it did.
        notes: what whoever found it said of it.
        damage: likewise, what of it is lost.
        sender: the address that it came from.
    """
    record_name = split_record_name(name)
    content, ecc = split_ecc_notice(data)
    draft = _Draft(type="unknown" if record_name is None else record_name.type, content=content)
    draft.notes += notes
    draft.damage += damage
    if error is not None:
        draft.damage.append(f"not all of the record could be read: {error}")
    if ecc is not None and ecc.unrecoverable_blocks:
        draft.damage.append(f"ECC could not repair {ecc.unrecoverable_blocks} blocks of the zone")
    if record_name is None:
        draft.notes.append(f"{name!r} is not the name of a record; archived as it is")
    if not data:
        draft.damage.append("the record is empty")
    if record_name is not None and record_name.type == "dmesg" and record_name.backend in BESIDE:
        draft.text = content  # without a header, and a byte that is no ASCII does not make it a packed one
    elif record_name is not None and record_name.compressed:
        _unpack(draft)
    _classify(draft)
    decoder = _DECODERS.get(draft.type)
    if decoder is not None and draft.text is None and draft.content:
        decoder(draft)
    elif decoder is None and record_name is not None and data:
        draft.notes.append(f"records of type {draft.type!r} are archived as they are, not decoded")
    return Record(
        name=name,
        harvest_id=harvest_id,
        size=len(data),
        sha256=sha256,
        type=draft.type,
        backend=None if record_name is None else record_name.backend,
        id=None if record_name is None else record_name.id,
        time_ns=_time(draft, record_name, mtime_ns),
        boot_key=_boot_key(record_name),
        compression=draft.compression,
        ecc=ecc or draft.ecc,
        header=draft.header,
        text=draft.text,
        summary=draft.summary,
        end=draft.end,
        damage=tuple(draft.damage),
        notes=tuple(draft.notes),
        sender=sender,
        is_fatal=draft.is_fatal,
    )


def _unpack(draft: _Draft) -> None:
    """Replace compressed content by what it holds."""
    if split_dump_header(draft.content).header is not None:
        draft.notes.append("named as compressed, but it is not")
        return
    try:
        unpacked = unpack(draft.content)
    except UnpackError as e:
        if e.missing:
            draft.notes.append(f"{e}; {e.hint}" if e.hint else str(e))
        draft.damage.append(f"cannot be unpacked: {e}")
        draft.content = b""
    except DamagedError as e:
        draft.damage.append(f"cannot be unpacked: {e}")
        draft.content = b""
    else:
        draft.content = unpacked.text
        draft.compression = unpacked.algorithm.value
        draft.damage += unpacked.damage


def _classify(draft: _Draft) -> None:
    """Second opinion on the type: some vendor trees swap the words dmesg and console (kernel-formats 1.1)."""
    if draft.type not in ("dmesg", "console", "unknown"):
        return
    split = split_dump_header(draft.content)
    if split.header is not None and draft.type != "dmesg":
        draft.notes.append(f"named {draft.type}, but holds a dump: taken as dmesg")
        draft.type = "dmesg"


def _dmesg(draft: _Draft) -> None:
    split = split_dump_header(draft.content)
    if split.header is None and _BINARY.search(draft.content[:_TEXT_SAMPLE]):
        # plain by its name, but old kernels and lost type letters happen
        try:
            unpacked = unpack(draft.content)
        except DamagedError:
            if _is_binary(draft.content):
                draft.damage.append("is not text, and nothing unpacks it")
                return
            unpacked = None
        if unpacked is not None:
            draft.notes.append("compressed, though its name does not say so")
            draft.compression = unpacked.algorithm.value
            draft.damage += unpacked.damage
            split = split_dump_header(unpacked.text)
    if split.header is None:
        draft.notes.append("has no header: reason, count and part are unknown")
    draft.header, draft.text, draft.time_ns = split.header, split.text, split.time_ns


def _is_binary(content: bytes) -> bool:
    """Whether it is no text, in which some bytes may be no ASCII, too."""
    sample = content[:_TEXT_SAMPLE]
    return len(_BINARY.findall(sample)) * 8 > len(sample)


def _console(draft: _Draft) -> None:
    draft.text = draft.content


def _pmsg(draft: _Draft) -> None:
    pmsg = parse_pmsg(draft.content)
    draft.text = pmsg.render()
    draft.damage += pmsg.damage


def _ftrace(draft: _Draft) -> None:
    ftrace = parse_ftrace_text(draft.content)
    draft.text = ftrace.text
    draft.ecc = ftrace.ecc  # kernels up to 6.12 show the notice as rows
    draft.damage += ftrace.damage


def _mce(draft: _Draft) -> None:
    try:
        mce = parse_mce(draft.content)
    except DamagedError as e:
        draft.damage.append(str(e))
        return
    draft.text, draft.summary = mce.render(), mce.summary
    draft.damage += mce.damage
    draft.is_fatal = True  # the kernel keeps none that it survives: arch/x86/kernel/cpu/mce/core.c, mce_panic()


def _cper(draft: _Draft) -> None:
    try:
        error = parse_hardware(draft.content)
    except DamagedError as e:
        draft.damage.append(str(e))
        return
    draft.text, draft.summary, draft.is_fatal = error.text, error.summary, error.is_fatal
    draft.damage += error.damage


def _end(draft: _Draft) -> None:
    try:
        draft.end = parse_end(draft.content)
    except DamagedError as e:
        draft.damage.append(str(e))
        return
    draft.text = draft.end.render().encode(errors="backslashreplace")


_DECODERS = {
    "dmesg": _dmesg,
    "console": _console,
    "pmsg": _pmsg,
    "ftrace": _ftrace,
    "mce": _mce,
    "cper": _cper,
    "end": _end,
}


def _time(draft: _Draft, name: RecordName | None, mtime_ns: int) -> int | None:
    if draft.type == "console" and name is not None and name.backend in BESIDE:
        return mtime_ns or None
    if draft.type != "dmesg":
        return None
    if draft.time_ns is not None:
        return draft.time_ns
    efi = split_efi_id(name.id) if name is not None and name.backend.startswith("efi") and name.id else None
    if mtime_ns == 0 and efi is not None:
        return efi.time_s * 1_000_000_000
    return mtime_ns or None


def _boot_key(name: RecordName | None) -> int | None:
    if name is None or name.backend != "erst" or name.id is None:
        return None
    return erst_boot_key(name.id)
