# SPDX-License-Identifier: Apache-2.0
"""mtdoops: every dump of a partition, whichever kernel wrote it, and what damage leaves of one."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, mtdoops
from fake_pstore.mtdoops import Dump
from pstored.parse.record import decode_record
from pstored.readers.memory import Held
from pstored.readers.model import Options, Remark, Salvaged, Source
from pstored.readers.mtdoops import MAX_PAGES, READER
from tests import readers

TEXT = b"<4>[   12.345678] Oops: 0002 [#1] SMP\n<4>[   12.345999] ---[ end trace 0000000000000000 ]---\n"


def read(image: bytes, **parameters: str) -> tuple[list[Salvaged], list[Remark]]:
    """The dumps, and what was said."""
    return readers.read("mtdoops", image, parameters=parameters)


def test_real_partition_has_both_dumps() -> None:
    """Two oopses of one boot, each with all of the log before it, as the serial console has it."""
    taken = capture.load("lab-mtdoops")
    image = taken.raw("mtd.img")
    assert READER.recognize(Held(image))
    dumps, remarks = read(image)
    assert [d.name for d in dumps] == ["dmesg-mtdoops-1", "dmesg-mtdoops-2"]
    assert [d.mtime_ns // 10**9 - taken.crash_boot_time for d in dumps] == [1, 4]
    assert not any(d.damage or d.notes for d in dumps)
    assert [r.text for r in remarks] == ["2 dumps; number 2 is the newest"]
    console = set(taken.serial("crash").replace(b"\r", b"").split(b"\n"))
    for dump in dumps:
        assert dump.data.endswith(b"---[ end trace 0000000000000000 ]---\n")
        lines = [line.partition(b">")[2] for line in dump.data.splitlines()]
        missing = [line for line in lines if line not in console]
        assert len(missing) < 40  # debug messages are for no console
    assert dumps[1].data.startswith(dumps[0].data[:20_000])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("time_ns", [None, 1_795_000_000_123_456_789])
@pytest.mark.parametrize("size", [4096, 65536])
def test_every_version_and_order_of_bytes(order: mtdoops.Order, time_ns: int | None, size: int) -> None:
    """The time comes with 5.19; the rest is the same."""
    image = mtdoops.partition([Dump(7, TEXT, time_ns), None, Dump(8, TEXT * 2, time_ns), None], size, order=order)
    assert READER.recognize(Held(image))
    dumps, _ = read(image)
    assert dumps == [
        Salvaged("dmesg-mtdoops-7", TEXT, time_ns or 0),
        Salvaged("dmesg-mtdoops-8", TEXT * 2, time_ns or 0),
    ]


@pytest.mark.parametrize(
    ("there", "ordered"),
    [
        ([3, 4, 1, 2], [1, 2, 3, 4]),
        ([1, 0xFFFFFFFE, 0], [0xFFFFFFFE, 0, 1]),
        ([0xC0000000, 5], [5, 0xC0000000]),
        ([0xC0000001, 0x3FFFFFFF], [0xC0000001, 0x3FFFFFFF]),
        ([0xC0000001, 0x40000000], [0x40000000, 0xC0000001]),
        ([0xC0000001, 0x40000000, 1], [0x40000000, 0xC0000001, 1]),
    ],
)
def test_newest_is_last_even_where_the_numbers_wrapped(there: list[int], ordered: list[int]) -> None:
    """find_next_position(): below 0x40000000 is newer than above 0xc0000000."""
    dumps, remarks = read(mtdoops.partition([Dump(n, TEXT) for n in there]))
    assert [d.name for d in dumps] == [f"dmesg-mtdoops-{n}" for n in ordered]
    assert remarks[-1].text.endswith(f"number {ordered[-1]} is the newest")


def test_text_that_fills_its_page_ends_there() -> None:
    """Right before the next header, and before a page that was never used."""
    text = (b"<6>[    1.000000] %080d\n" % 0) * 100
    image = mtdoops.partition([Dump(1, text), Dump(2, text), None])
    dumps, _ = read(image)
    assert [text.endswith(d.data) and 3900 < len(d.data) < 4096 and not d.damage for d in dumps] == [True, True]


def test_dump_that_was_not_written_to_its_end() -> None:
    """The machine died over it: no NUL, and flash as it was erased."""
    image = bytearray(mtdoops.partition([Dump(1, TEXT, 5), None], 8192))
    image[60:8192] = b"\xff" * (8192 - 60)
    (dump,), _ = read(bytes(image))
    assert dump.data == TEXT[:44]
    assert dump.damage == ("the end of its text is missing: the machine died while it was written",)


def test_record_size_as_the_user_says() -> None:
    """Nothing else ends a text without a NUL before junk."""
    image = (b"\1\0\0\0\0\x5d\0\x5d" + b"x" * 4088) + b"y" * 4096
    assert len(read(image)[0][0].data) == 4088 + 4096
    assert read(image, **{"mtdoops.record_size": "0x1000"})[0][0].data == b"x" * 4088
    assert len(read(image, **{"mtdoops.record_size": "four"})[0][0].data) == 4088 + 4096


@pytest.mark.parametrize("size", ["-5", "much"])
def test_record_size_that_is_none_is_said(size: str) -> None:
    """And the dumps are read without it."""
    image = mtdoops.partition([Dump(1, b"<0>[    1.000000] one\n")])
    records, remarks = readers.read("mtdoops", image, parameters={"mtdoops.record_size": size})
    assert [r.data for r in records] == [b"<0>[    1.000000] one\n"]
    assert [r.text for r in remarks if r.is_damage] == ["mtdoops.record_size is no number of bytes, and left aside"]


def test_other_flash_is_not_recognized() -> None:
    """Erased, zeroed, text; and a page that only looks like a header."""
    for image in (b"", b"\xff" * 9000, bytes(9000), TEXT * 100, b"\1\0\0\0\0\x5e\0\x5d" + bytes(4088)):
        assert not READER.recognize(Held(image))
    assert read(b"\xff" * 9000) == ([], [Remark("no page holds a dump")])


class _BadBlocks(Held):
    """Flash of which some bytes cannot be read."""

    def __init__(self, data: bytes, bad: range) -> None:
        super().__init__(data)
        self._bad = bad

    def read(self, at: int, count: int) -> bytes:
        if at in self._bad:
            return b""
        end = self._bad.start if at < self._bad.start else self.size
        return super().read(at, min(count, end - at))


def test_bad_block_hides_only_its_own() -> None:
    """And is said."""
    image = mtdoops.partition([Dump(1, TEXT), Dump(2, TEXT), Dump(3, TEXT)])
    found = list(READER.read(_BadBlocks(image, range(4096, 8192)), Options()))
    assert [f.name for f in found if isinstance(f, Salvaged)] == ["dmesg-mtdoops-1", "dmesg-mtdoops-3"]
    assert found[0] == Remark("1 times 4096 bytes cannot be read: bad blocks?", is_damage=True)


class _Endless:
    """4 GiB of which each page holds a dump."""

    name = ""
    size = 4 << 30
    page = mtdoops.page(Dump(1, TEXT), 4096)

    def read(self, at: int, count: int) -> bytes:
        count = max(0, min(count, self.size - at))
        return (self.page * (count // 4096 + 2))[at % 4096 : at % 4096 + count]


def peak(function: Callable[[], object]) -> int:
    """Bytes that it takes at its most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_source() -> None:
    """Nor with the dumps in it: no partition has more than 2048."""
    source: Source = _Endless()
    found: list[Salvaged | Remark] = []
    assert (
        peak(
            lambda: found.extend(
                f._replace(data=b"") if isinstance(f, Salvaged) else f for f in READER.read(source, Options())
            )
        )
        < 8 << 20
    )
    assert sum(isinstance(f, Salvaged) for f in found) == MAX_PAGES
    assert any(isinstance(f, Remark) and f.is_damage for f in found)


PIECES = st.sampled_from((b"\0\x5d\0\x5d", b"\0\x5e\0\x5d", b"\x5d\0\x5e\0", b"\xff" * 16, b"\0")) | st.binary(
    max_size=20
)
PAGES = st.lists(st.lists(PIECES, max_size=5).map(lambda p: b"".join(p).ljust(4096, b"\xff")[:4096]), max_size=4)


@given(PAGES.map(b"".join) | st.binary(max_size=200))
def test_any_bytes_give_dumps_or_a_sentence(image: bytes) -> None:
    """Never an exception, and no byte that is not there."""
    dumps, remarks = read(image)
    assert remarks
    assert all(d.data in image for d in dumps)
    assert READER.recognize(Held(image)) in (True, False)
    for dump in dumps:
        decode_record(dump.name, dump.data, mtime_ns=dump.mtime_ns)
