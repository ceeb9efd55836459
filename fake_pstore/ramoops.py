# SPDX-License-Identifier: Apache-2.0
"""A ramoops region as kernels write it: fs/pstore/ram.c, ram_core.c and lib/reed_solomon/encode_rs.c."""

import struct
from dataclasses import dataclass, field
from functools import cache

from .ftrace import Call

SIGNATURE = 0x43474244
_BLOCK = 128


def parity(data: bytes, roots: int) -> bytes:
    """What encode_rs8() makes of a block: the remainder of its polynomial by the code's, highest power first."""
    if not any(data):
        return bytes(roots)
    table = _multiples(roots)
    remainder = 0  # as one number, the highest power in its highest byte
    top, mask = 8 * (roots - 1), (1 << 8 * roots) - 1
    for byte in data:
        remainder = (remainder << 8 & mask) ^ table[byte ^ remainder >> top]
    return remainder.to_bytes(roots, "big")


def _double(value: int) -> int:
    return value << 1 ^ (0x11D if value & 0x80 else 0)


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = _double(a), b >> 1
    return product


@cache
def _multiples(roots: int) -> list[int]:
    """The code's polynomial, (x - 1)(x - 2)(x - 4)..., without its highest power, times each byte."""
    factors, root = [1], 1
    for _ in range(roots):
        factors = [a ^ _times(b, root) for a, b in zip([*factors, 0], [0, *factors], strict=True)]
        root = _double(root)
    return [int.from_bytes(bytes(_times(factor, byte) for factor in factors[1:]), "big") for byte in range(256)]


@dataclass(slots=True)
class Prz:
    """A persistent RAM zone: a ring with a header."""

    size: int
    signature: int
    ecc: int
    order: str
    """``<`` or ``>``."""
    resets: bool = True
    """A dump takes the whole zone (since 5.6); before, it went behind what was there."""
    start: int = 0
    used: int = 0
    data: bytearray = field(init=False)
    checks: bytearray = field(init=False)

    def __post_init__(self) -> None:
        room = self.size - 12
        blocks = -(-(room - self.ecc) // (_BLOCK + self.ecc)) if self.ecc else 0
        self.data = bytearray(room - (blocks + 1) * self.ecc if self.ecc else room)
        self.checks = bytearray(blocks * self.ecc)

    def write(self, text: bytes) -> None:
        """persistent_ram_write(): of what is too long the end, and around the ring."""
        text = text[-len(self.data) :]
        first = text[: len(self.data) - self.start]
        self._put(self.start, first)
        self._put(0, text[len(first) :])
        end = self.start + len(text)
        self.used = min(self.used + len(text), len(self.data))
        self.start = end - len(self.data) if end >= len(self.data) else end

    def _put(self, at: int, text: bytes) -> None:
        self.data[at : at + len(text)] = text
        if self.ecc and text:
            for block in range(at // _BLOCK, (at + len(text) - 1) // _BLOCK + 1):
                chunk = bytes(self.data[block * _BLOCK : (block + 1) * _BLOCK])
                self.checks[block * self.ecc : (block + 1) * self.ecc] = parity(chunk, self.ecc)

    def zap(self) -> None:
        """persistent_ram_zap(): only the header."""
        self.start = self.used = 0

    def image(self) -> bytes:
        """The zone as it lies in memory."""
        header = struct.pack(f"{self.order}3I", self.signature, self.start, self.used)
        end = bytes(self.checks) + (parity(header, self.ecc) if self.ecc else b"")
        return (header + bytes(self.data) + end).ljust(self.size, b"\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Of the driver."""

    mem_size: int = 0x100000
    record_size: int = 0x8000
    console_size: int = 0x8000
    ftrace_size: int = 0
    pmsg_size: int = 0x4000
    ecc: int = 0
    cpus: int = 2
    pmsg_first: bool = True
    """Since 6.2 pmsg stands before ftrace."""
    even: bool = False
    """Since 6.8 zones have even sizes."""
    version: tuple[int, int, int] = (6, 1, 192)
    order: str = "<"
    resets: bool = True


class Region:
    """A region that a kernel has taken."""

    def __init__(self, parameters: Parameters) -> None:
        p = self.parameters = parameters
        count = 0
        if p.record_size:
            count = (p.mem_size - p.console_size - p.ftrace_size - p.pmsg_size) // p.record_size
        area = p.mem_size - p.console_size - p.ftrace_size - p.pmsg_size
        major, minor, sub = p.version
        traced = SIGNATURE ^ (major << 16 | minor << 8 | min(sub, 255))
        self.dmesg = self._zones(area, count, SIGNATURE)
        self.console = self._zones(p.console_size, 1, SIGNATURE)
        self.pmsg = self._zones(p.pmsg_size, 1, SIGNATURE)
        self.ftrace = self._zones(p.ftrace_size, p.cpus, traced)
        self._slot = 0

    def _zones(self, total: int, count: int, signature: int) -> list[Prz]:
        p = self.parameters
        if not total or not count:
            return []
        size = total // count
        return [Prz(size // 2 * 2 if p.even else size, signature, p.ecc, p.order, p.resets) for _ in range(count)]

    def dump(self, text: bytes, *, seconds: int, microseconds: int = 0, compressed: bool = False) -> None:
        """ramoops_pstore_write(): into the next slot."""
        zone = self.dmesg[self._slot]
        self._slot = (self._slot + 1) % len(self.dmesg)
        if zone.resets:
            zone.zap()
        letter = b"C" if compressed else b"D"
        zone.write(b"====%d.%06d-%b\n" % (seconds, microseconds, letter) + text)

    def trace(self, calls: list[Call]) -> None:
        """Each into the zone of its CPU."""
        record = struct.Struct(f"{self.parameters.order}QQQ")
        for call in calls:
            self.ftrace[call.cpu].write(record.pack(call.ip, call.parent_ip, call.counter << 8 | call.cpu))

    def boot(self) -> None:
        """Another kernel takes it: it begins with the first slot."""
        self._slot = 0
        for zone in (*self.console, *self.pmsg):
            zone.zap()

    def zones(self) -> list[Prz]:
        """In their order in memory."""
        last = [*self.pmsg, *self.ftrace] if self.parameters.pmsg_first else [*self.ftrace, *self.pmsg]
        return [*self.dmesg, *self.console, *last]

    def image(self) -> bytes:
        """The region."""
        return b"".join(zone.image() for zone in self.zones()).ljust(self.parameters.mem_size, b"\0")
