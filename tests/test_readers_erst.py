# SPDX-License-Identifier: Apache-2.0
"""QEMU's ERST store: what real kernels left in it, and stores that somebody damaged."""

import zlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture
from fake_pstore.cper import DMESG, DMESG_COMPRESSED, MCE, SLOT, cper_record, erst_store
from pstored.readers import load
from pstored.readers.memory import Held
from pstored.readers.model import Options
from tests.readers import as_in_pstorefs, kind_of, never_fails, read

TEXT = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"
CAPTURES = ["lab-erst", "lab-erst-mce", "x86_64-6.1deb-erst"]


def packed(text: bytes) -> bytes:
    """As a kernel since 4.18 does it."""
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(text) + deflate.flush()


def record(number: int, data: bytes = TEXT) -> bytes:
    """A dump of some boot."""
    return cper_record([(DMESG, data)], record_id=(1_795_000_000 << 32) + number, seconds=1_795_000_000 + number)


@pytest.mark.parametrize("name", CAPTURES)
def test_a_real_store_gives_what_pstorefs_showed(name: str) -> None:
    """Names, bytes and times; the machine check has no time of its own."""
    loaded = capture.load(name)
    image = loaded.raw("erst.img")
    assert kind_of(image) == "erst"
    records, remarks = read("erst", image)
    assert {r.name: r.data for r in records} == as_in_pstorefs(loaded)
    assert not remarks
    times = {n: t for n, _, t in loaded.records()}
    assert {r.name: r.mtime_ns for r in records if r.mtime_ns} == {n: t for n, t in times.items() if n[:5] == "dmesg"}


def test_packed_and_plain_machine_check_and_unknown() -> None:
    """As the kernel tells them apart, by the first section; what others wrote is kept whole."""
    odd = cper_record([(MCE, b"m" * 88)], record_id=4, seconds=None)
    other = cper_record([(MCE, b"w")], record_id=9, seconds=None, creator=DMESG)
    unknown = cper_record([(UUID(int=7), b"?")], record_id=5, seconds=None)
    squeezed = cper_record([(DMESG_COMPRESSED, packed(TEXT))], record_id=3, seconds=1_795_000_000)
    broken = cper_record([(DMESG_COMPRESSED, packed(TEXT)[:-9])], record_id=2, seconds=1_795_000_000)
    store = erst_store((r, False) for r in (odd, other, unknown, squeezed, broken))
    records = {r.name: r for r in read("erst", store)[0]}
    assert {name: r.data for name, r in records.items()} == {
        "mce-erst-4": b"m" * 88,
        "cper-erst-9": other,
        "unknown-erst-5": b"?",
        "dmesg-erst-3": TEXT,
        "dmesg-erst-2.enc.z": packed(TEXT)[:-9],
    }
    assert records["dmesg-erst-3"].packed == packed(TEXT)
    assert records["dmesg-erst-3"].mtime_ns == 1_795_000_000 * 10**9


def test_cleared_records_are_shown_if_asked_for() -> None:
    """QEMU clears the map, and leaves the record."""
    store = erst_store([(record(1), True), (record(2), False)])
    assert [(r.data, r.erased) for r in read("erst", store)[0]] == [(TEXT, False)]
    assert [r.erased for r in read("erst", store, erased=True)[0]] == [True, False]


def test_a_damaged_header_hides_nothing() -> None:
    """Wrong sizes, a wrong count, a map that names what is not there: all is said, and the records are found."""
    store = bytearray(erst_store([(record(1), False), (record(2), False)]))
    assert len(read("erst", bytes(store))[0]) == 2
    wrong = bytes(store[:8]) + b"\xff" * 8 + bytes(store[16:])
    records, remarks = read("erst", wrong, erased=True)
    assert len(records) == 2
    assert "header is damaged" in remarks[0].text
    assert remarks[0].is_damage
    gone = bytes(store[:SLOT]) + bytes(SLOT) + bytes(store[2 * SLOT :])
    records, remarks = read("erst", gone)
    assert len(records) == 1
    assert "is not there" in remarks[0].text
    store[20] = 9
    assert "counts 9 records, its map 2" in read("erst", bytes(store))[1][0].text


def test_many_that_are_not_there_take_few_words() -> None:
    """A map of nonsense."""
    store = erst_store([(record(number), False) for number in range(1, 21)], slots=32)
    records, remarks = read("erst", store[:SLOT] + bytes(len(store) - SLOT))
    assert records == []
    assert sum("is not there" in r.text for r in remarks) == 8
    assert remarks[-1].text == "12 more slots: their records are not there"
    assert len(remarks) == 9


def test_a_record_that_is_cut_says_so() -> None:
    """The length in its header is longer than its slot."""
    long = bytearray(record(1, TEXT * 100))
    long[20:24] = (2 * SLOT).to_bytes(4, "little")
    (found,) = read("erst", erst_store([(bytes(long), False)]))[0]
    assert found.data.startswith(TEXT)
    assert found.damage == (f"the record has {2 * SLOT} bytes, of which {SLOT} are missing",)


def test_a_store_without_an_end_is_not_read_for_ever() -> None:
    """A file of 1 TiB of holes, which says that it has slots of 4 KiB."""

    class Endless(Held):
        @property
        def size(self) -> int:
            return 1 << 40

    head = erst_store([], slots=2, size=4096)
    (remark,) = load("erst").read(Endless(head), Options())
    assert "of which the first 65536 are looked at" in getattr(remark, "text", "")


@given(st.integers(min_value=0))
def test_any_damage_is_survived(seed: int) -> None:
    """No error, whatever became of it."""
    never_fails("erst", lambda rng: erst_store((record(n), rng.random() < 0.3) for n in range(3)), seed)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    """With the right magic and with any."""
    for source in (data, b"ERSTSTOR" + data):
        assert (kind_of(source) == "erst") == source.startswith(b"ERSTSTOR")
        read("erst", source)
