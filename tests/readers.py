# SPDX-License-Identifier: Apache-2.0
"""What the tests of readers share: a reader's records, and what must hold of any bytes."""

import random
import struct
from collections.abc import Callable
from typing import Any

from fake_pstore import capture
from pstored.parse.decompress import unpack
from pstored.parse.ecc import split_ecc_notice
from pstored.readers import KINDS, load
from pstored.readers.memory import Held
from pstored.readers.model import Options, Remark, Salvaged


def read(kind: str, data: bytes, name: str = "", **options: Any) -> tuple[list[Salvaged], list[Remark]]:
    """What a reader finds in some bytes: records, and what it says of the whole."""
    found = list(load(kind).read(Held(data, name), Options(**options)))
    return [f for f in found if isinstance(f, Salvaged)], [f for f in found if isinstance(f, Remark)]


def kind_of(data: bytes, name: str = "") -> str | None:
    """The first kind that knows some bytes as its own."""
    return next((k for k, kind in KINDS.items() if kind.module and load(k).recognize(Held(data, name))), None)


def as_in_pstorefs(loaded: capture.Capture) -> dict[str, bytes]:
    """A capture's records by name, as a kernel with the right algorithm shows them, without ECC notices."""
    shown = {n: d for n, d, _ in loaded.records() if not n.endswith(".enc.z")}
    shown |= {n: d for n, d, _ in loaded.records("truth") if n.startswith("dmesg")}  # the rest is of a later boot
    return {name: split_ecc_notice(data)[0] for name, data in shown.items()}


def panic_in_region(loaded: capture.Capture) -> bytes:
    """The record of the panic in a kdump capture's ramoops region: in its first zone, as pstorefs shows it."""
    region = loaded.raw("region.bin")
    signature, _, size = struct.unpack_from("<4sII", region)
    header, _, packed = region[12 : 12 + size].partition(b"\n")
    assert (signature, header[:4], header[-2:]) == (b"DBGC", b"====", b"-C")
    return unpack(packed).text


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The same with some bytes other ones, or cut, or with a stretch moved."""
    way = rng.randrange(4)
    if way == 0:
        return data[: rng.randrange(len(data) + 1)]
    if way == 1:
        return data[rng.randrange(len(data) + 1) :]
    found = bytearray(data)
    for _ in range(rng.randrange(1, 40)):
        if found:
            found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def never_fails(kind: str, make: Callable[[random.Random], bytes], seed: int) -> None:
    """Whatever became of a source, its reader raises nothing, and gives no more than a few times what is there."""
    rng = random.Random(seed)
    data = damaged(make(rng), rng)
    load(kind).recognize(Held(data))
    records, remarks = read(kind, data, erased=rng.random() < 0.5)
    assert all(r.name and isinstance(r.data, bytes) for r in records)
    assert all(r.text for r in remarks)
