# SPDX-License-Identifier: Apache-2.0
"""What every form of dump file gives: physical memory, and VMCOREINFO."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from pstored.readers.kdump.info import VmcoreInfo


class Form(NamedTuple):
    """How the machine that crashed puts numbers into memory."""

    order: Literal["little", "big"]
    word: int
    """Bytes of a pointer and of an ``unsigned long``: 4 or 8."""

    def number(self, data: bytes, at: int, size: int) -> int:
        """The unsigned number of *size* bytes at *at*."""
        return int.from_bytes(data[at : at + size], self.order)

    def pointer(self, data: bytes, at: int) -> int:
        """The ``unsigned long`` at *at*."""
        return int.from_bytes(data[at : at + self.word], self.order)


class Image(Protocol):
    """The memory of a machine, as a dump file has it."""

    @property
    def kind(self) -> str:
        """What the file is, in words."""

    @property
    def form(self) -> Form:
        """How its numbers are."""

    @property
    def machine(self) -> str:
        """As ``uname -m``; empty if it is none that matters here."""

    @property
    def info(self) -> VmcoreInfo:
        """What its kernel says of itself; empty if the file does not have it."""

    @property
    def phys_base(self) -> int | None:
        """Where x86-64's image lay, less where it was made for, if the file itself says."""

    @property
    def damage(self) -> list[str]:
        """What the file as a whole lacks, in words; complete once it has been read from."""

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Where there is memory: physical address and bytes of each run."""

    def physical(self, at: int, count: int) -> bytes:
        """The memory at physical address *at*: *count* bytes, or those up to where the dump has no more."""

    def translate(self, address: int) -> int | None:
        """The physical address of a kernel address, if the file itself says."""
