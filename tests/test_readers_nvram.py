# SPDX-License-Identifier: Apache-2.0
"""PowerPC NVRAM: the oops in it, in every format, and through a chain of partitions that is broken."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, nvram
from pstored.parse.record import decode_record
from pstored.readers.memory import Held
from pstored.readers.model import Remark, Salvaged
from pstored.readers.nvram import MAX_TEXT, READER
from tests import readers

TEXT = b"[   12.345678] Oops: Kernel access of bad area, sig: 11 [#1]\n" + b"".join(
    b"[   12.%06d] GPR%02d: %016x\n" % (345700 + n, n, n * 7**19 % 2**64) for n in range(32)
)
HEADER = b"Oops#1 Part1\n"
SECONDS = 1_795_408_121


def image(event: bytes, *, name: bytes = nvram.OOPS) -> bytes:
    """An NVRAM as a pSeries has it, with that event."""
    return nvram.image(
        [
            nvram.partition(0x51, b"ibm,CPU0log", b"", 8192),
            nvram.partition(nvram.COMMON, b"common", b"boot-device=disk\0", 4096),
            nvram.partition(nvram.OS, name, event, 4016),
        ]
    )


def read(data: bytes) -> tuple[list[Salvaged], list[Remark]]:
    """The records, and what was said."""
    return readers.read("nvram", data)


def test_real_nvram_has_the_oops() -> None:
    """Of a kernel without pstore; its lines are those of the serial console."""
    taken = capture.load("deb61-ppc64-nvram")
    data = taken.raw("nvram.img")
    assert READER.recognize(Held(data))
    (record,), remarks = read(data)
    assert record.name == "dmesg-nvram-1"
    assert record.mtime_ns == (taken.crash_boot_time + 1) * 10**9
    assert b"sysrq triggered crash" in record.data
    assert (record.damage, [r.is_damage for r in remarks]) == ((), [False])
    console = taken.serial("crash").replace(b"\r", b"").split(b"\n")
    kernel = [line for line in record.data.splitlines() if line.startswith(b"[")]
    assert len(kernel) > 100
    assert sum(line in console for line in kernel) > 0.9 * len(kernel)


def test_oops_as_pstore_shows_it() -> None:
    """What pstorefs gives of the same bytes, by name and content, and the packed one besides."""
    event = nvram.oops(TEXT, seconds=SECONDS, packed=True, sequence=3, header=HEADER)
    assert read(image(event))[0] == [
        Salvaged("dmesg-nvram-3", HEADER + TEXT, SECONDS * 10**9, packed=zlib.compress(HEADER + TEXT, 6))
    ]


def test_raw_deflate_as_newer_kernels_pack() -> None:
    """Since 4.18 the pstore of the kernel packs without zlib's header."""
    packer = zlib.compressobj(wbits=-15)
    stored = packer.compress(HEADER + TEXT) + packer.flush()
    event = nvram.error_log(8, 1, bytes.fromhex("1388") + len(stored).to_bytes(2, "big") + bytes(8) + stored)
    assert read(image(event))[0] == [Salvaged("dmesg-nvram-1", HEADER + TEXT, 0, packed=stored)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [nvram.OOPS, nvram.RTAS_LOG])
def test_every_format(packed: bool, name: bytes) -> None:
    """Old and new, plain and packed, in the partition of its own and in that of RTAS."""
    text = TEXT if packed else TEXT[:1500]
    for event, time_s in (
        (nvram.oops(text, seconds=SECONDS, packed=packed), SECONDS),
        (nvram.old_oops(text, packed=packed), 0),
    ):
        (record,), _ = read(image(event, name=name))
        assert (record.name, record.data, record.mtime_ns) == ("dmesg-nvram-1", text, time_s * 10**9)
        assert record.damage == record.notes == ()


def test_event_of_the_firmware() -> None:
    """As pstorefs shows it: the partition behind the two numbers; only as long as nobody has read it."""
    (record,), _ = read(image(nvram.error_log(nvram.RTAS, 9, b"rtas event"), name=nvram.RTAS_LOG))
    assert (record.name, len(record.data), record.data[:10]) == ("rtas-nvram-9", 4016 - 16 - 8, b"rtas event")
    records, remarks = read(image(nvram.error_log(nvram.LOGGED, 9, b"rtas event"), name=nvram.RTAS_LOG))
    assert (records, remarks) == ([], [Remark("ibm,rtas-log holds no oops")])


def test_oops_that_was_logged_already() -> None:
    """Is there all the same."""
    event = bytearray(nvram.oops(TEXT, seconds=SECONDS, packed=True))
    event[:4] = bytes(4)
    (record,), _ = read(image(bytes(event)))
    assert (record.data, record.notes) == (TEXT, ("the kernel has it marked as logged",))


def test_nothing_has_happened_yet() -> None:
    """Partitions without an event, and none for one."""
    assert read(image(b"")) == ([], [Remark("lnx,oops-log holds no oops")])
    records, (remark,) = read(nvram.image([nvram.partition(nvram.COMMON, b"common", b"", 4096)]))
    assert (records, remark.is_damage) == ([], False)


def test_broken_chain_is_taken_up_again() -> None:
    """A header with a wrong checksum hides only its own partition."""
    data = bytearray(image(nvram.oops(TEXT, seconds=SECONDS, packed=True)))
    data[8192 + 5] ^= 1
    assert not READER.recognize(Held(bytes(data)))
    (record,), (remark,) = read(bytes(data))
    assert record.data == TEXT
    assert remark == Remark("the chain of partitions is broken: 4096 bytes are of none", is_damage=True)


def test_image_that_ends_too_early() -> None:
    """What there is of the text comes out, and that it is not all is said."""
    whole = image(nvram.oops(TEXT, seconds=SECONDS, packed=True))
    (record,), (remark,) = read(whole[: 8192 + 4096 + 16 + 20 + 300])
    assert 200 < len(record.data) < len(TEXT)
    assert TEXT.startswith(record.data)
    assert [d.endswith(end) for d, end in zip(record.damage, ("are missing", "unpacked"), strict=True)] == [True] * 2
    assert remark.is_damage


def test_what_zlib_does_not_unpack_is_given_as_it_is() -> None:
    """Under the name that a kernel gives what it cannot unpack; the analysis tries all it has."""
    event = nvram.error_log(8, 2, bytes.fromhex("1388000a") + bytes(8) + b"\xff" * 10)
    assert read(image(event))[0] == [Salvaged("dmesg-nvram-2.enc.z", b"\xff" * 10, 0)]


def test_bomb_is_cut_off() -> None:
    """No partition holds more log."""
    event = nvram.oops(bytes(3 * MAX_TEXT), seconds=SECONDS, packed=True)
    data = nvram.image([nvram.partition(nvram.OS, nvram.OOPS, event, 4016 * 2)])
    (record,), _ = read(data)
    assert len(record.data) == MAX_TEXT
    assert record.damage


@pytest.mark.parametrize("data", [b"", bytes(4096), b"\xff" * 4096, b"\xa0\x4f\x00\xfblnx,oops-lo", TEXT])
def test_other_bytes_are_not_recognized(data: bytes) -> None:
    """One byte of checksum is soon met by chance: two partitions must stand in a row."""
    assert not READER.recognize(Held(data))


EVENTS = st.tuples(st.sampled_from((0, 1, 2, 4, 8, 9)), st.integers(0, 2**32 - 1), st.binary(max_size=60)).map(
    lambda parts: nvram.error_log(*parts)
)
NAMES = st.sampled_from((nvram.OOPS, nvram.RTAS_LOG, b"common", b"\xff\0\xff"))
CHAINS = st.lists(
    st.builds(nvram.partition, st.sampled_from((nvram.OS, nvram.FREE)), NAMES, EVENTS, st.just(112))
    | st.binary(max_size=40),
    max_size=6,
).map(b"".join)


@given(CHAINS)
def test_any_bytes_give_records_or_a_sentence(data: bytes) -> None:
    """Never an exception; each of the two partitions gives one record, or a sentence."""
    records, remarks = read(data)
    assert len(records) <= 2
    assert records or remarks
    assert READER.recognize(Held(data)) in (True, False)
    for record in records:
        decode_record(record.name, record.data, mtime_ns=record.mtime_ns)
