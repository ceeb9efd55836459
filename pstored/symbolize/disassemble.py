# SPDX-License-Identifier: Apache-2.0
"""The ``Code:`` line of a report as instructions, where capstone is installed (capstone-engine.org)."""

import re
from typing import NamedTuple

from pstored.oops import Event

_BYTE = re.compile(r"(<?)([0-9a-f]{2})>?$")
_WORD = re.compile(r"(\(?)([0-9a-f]{8}|[0-9a-f]{4})\)?$")
_LONGEST_X86 = 15


class Instruction(NamedTuple):
    """One instruction of the ``Code:`` line."""

    code: str
    """Its bytes as hex, in the order of memory."""
    text: str
    """As assemblers write it; ``(bad)`` for what is none."""
    faulting: bool
    """Whether the program counter stood here."""


class _Code(NamedTuple):
    data: bytes
    fault: int
    """Index of the faulting instruction's first byte."""
    width: int
    """Bytes of a group: 1 on x86, 4 on arm and arm64, 2 for Thumb."""


def disassemble(event: Event, text: bytes) -> tuple[Instruction, ...]:
    """The instructions around the program counter; empty if capstone is missing, or the machine is another than x86,
    arm and arm64.

    The code of user space, which stands behind a trace that a system call began, is not looked at.
    x86 begins to print in the middle of an instruction: the first bytes may belong to none.
    """
    is_kernels = event.pc is not None or event.registers
    code = None if event.code is None or not is_kernels else _parse(event.code)
    if code is None:
        return ()
    try:
        import capstone
    except ImportError:
        return ()
    wide = b"RSP: " in text or b"x29: " in text
    if code.width == 1:
        mode = capstone.CS_MODE_64 if wide else capstone.CS_MODE_32
        engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
        engine.syntax = capstone.CS_OPT_SYNTAX_ATT  # the kernel's own
    elif code.width == 4 and wide:
        engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    elif _is_arm(event):
        engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_ARM if code.width == 4 else capstone.CS_MODE_THUMB)
    else:
        return ()
    step = 1 if code.width == 1 else code.width
    starts = range(min(code.fault, _LONGEST_X86) + 1) if code.width == 1 else range(1)
    for start in starts:
        before = _run(engine, code.data[start : code.fault], step)
        if all(text != _BAD for _, text in before):
            break
    else:
        start, before = 0, _run(engine, code.data[: code.fault], step)
    lead = [(code.data[:start], _BAD)] if start else []
    after = _run(engine, code.data[code.fault :], step)
    return (
        *(Instruction(data.hex(" "), text, False) for data, text in lead + before),
        *(Instruction(data.hex(" "), text, index == 0) for index, (data, text) in enumerate(after)),
    )


_BAD = "(bad)"


def _is_arm(event: Event) -> bool:
    """Registers as arch/arm/kernel/process.c names them; powerpc, mips and riscv print words, too."""
    return "r10" in event.registers and "fp" in event.registers and "ip" in event.registers


def _parse(text: str) -> _Code | None:
    """The bytes; None if they are not as x86, arm and arm64 print them, or none is marked as the faulting one."""
    groups = text.split()
    for pattern in (_BYTE, _WORD):
        found = [pattern.match(group) for group in groups]
        matches = [match for match in found if match is not None]
        marked = [index for index, match in enumerate(matches) if match[1]]
        if len(matches) == len(groups) and marked:
            break
    else:
        return None
    width = len(matches[0][2]) // 2
    if any(len(match[2]) != width * 2 for match in matches):
        return None
    data = b"".join(int(match[2], 16).to_bytes(width, "little") for match in matches)
    return _Code(data, marked[0] * width, width)


def _run(engine: "object", data: bytes, step: int) -> list[tuple[bytes, str]]:
    """Bytes and text of each instruction; what is none is passed over by *step* bytes."""
    found = []
    at = 0
    while at < len(data):
        size = 0
        for _, size, mnemonic, operands in engine.disasm_lite(data[at:], 0, 1):  # type: ignore[attr-defined]
            found.append((data[at : at + size], f"{mnemonic} {operands}".strip()))
        if not size:
            size = step
            found.append((data[at : at + step], _BAD))
        at += size
    return found
