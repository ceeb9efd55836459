# SPDX-License-Identifier: Apache-2.0
"""Devices of pstore_blk: a real one, those of other machines, erased dumps, damage."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import blk, capture, ftrace
from tests.readers import as_in_pstorefs, kind_of, never_fails, read

TEXT = b"Oops#1 Part1\n<4>[   77.000001] Oops: %s\n"
PACKED = zlib.compress(TEXT % b"packed")[2:-4]
SIZE = 0x10000
S = 1_795_000_000


def test_a_real_device_gives_what_pstorefs_showed() -> None:
    """Names, bytes, and the time of the dump."""
    loaded = capture.load("lab-blk")
    image = loaded.raw("blk.img")
    assert kind_of(image) == "pstore_blk"
    records, remarks = read("pstore_blk", image)
    assert {r.name: r.data for r in records} == as_in_pstorefs(loaded)
    assert not remarks
    (time_ns,) = {t for n, _, t in loaded.records() if n.startswith("dmesg")}
    assert records[0].mtime_ns // 10**9 == time_ns // 10**9


def device(*zones: bytes) -> bytes:
    """Zones one behind the other, and behind them what was never written to."""
    return b"".join(zones) + bytes(SIZE)


@pytest.mark.parametrize("machine", blk.HEADERS)
def test_dumps_of_any_machine(machine: str) -> None:
    """Plain with the line that the kernel adds, packed without; slots by their places."""
    plain = blk.Dump(TEXT % b"plain", S, 123_456_789, reason=b"Oops", counter=7)
    packed = blk.Dump(PACKED, S + 1, compressed=True)
    image = device(blk.dump_zone(plain, SIZE, machine), bytes(SIZE), blk.dump_zone(packed, SIZE, machine))
    assert kind_of(image) == "pstore_blk"
    first, second = read("pstore_blk", image)[0]
    assert (first.name, first.data) == ("dmesg-pstore_blk-0", b"Oops: Total 7 times\n" + TEXT % b"plain")
    assert first.mtime_ns == S * 10**9 + 123_456_789
    # with two headers the distance of one slot is not seen
    assert (second.data, second.packed) == (TEXT % b"packed", PACKED)


def test_slots_are_numbered_by_their_distance() -> None:
    """As far as the headers tell."""
    zones = [blk.dump_zone(blk.Dump(TEXT % b"%d" % n, S + n), SIZE) for n in range(4)]
    zones[2] = bytes(SIZE)
    assert [r.name[-1] for r in read("pstore_blk", device(*zones))[0]] == ["0", "1", "3"]


def test_rings_that_have_wrapped_and_traces() -> None:
    """Oldest byte first; the zones of the CPUs together."""
    room = SIZE - 12
    stream = random.Random(1).randbytes(room + 5000)
    content, start = blk.ring(stream, room)
    calls = ftrace.calls(random.Random(2), 500)
    image = device(
        blk.zone("pmsg", content, SIZE, start=start),
        blk.zone("console", b"[    1.000000] line\n", SIZE),
        *(blk.zone("ftrace", ftrace.pack([c for c in calls if c.cpu == cpu]), SIZE) for cpu in (0, 1)),
    )
    records = {r.name: r.data for r in read("pstore_blk", image)[0]}
    assert records == {
        "pmsg-pstore_blk-0": stream[-room:],
        "console-pstore_blk-0": b"[    1.000000] line\n",
        "ftrace-pstore_blk-0": ftrace.show(ftrace.pack(calls)),
    }


def test_erased_dumps_if_asked_for() -> None:
    """Only the length is 0."""
    image = device(
        blk.dump_zone(blk.Dump(TEXT % b"gone", S, erased=True), SIZE),
        blk.dump_zone(blk.Dump(PACKED, S, compressed=True, erased=True), SIZE),
    )
    assert read("pstore_blk", image)[0] == []
    records = read("pstore_blk", image, erased=True)[0]
    assert [(r.data[-40:], r.erased) for r in records] == [
        ((TEXT % b"gone")[-40:], True),
        ((TEXT % b"packed")[-40:], True),
    ]


def test_damage_is_said() -> None:
    """A length that runs into the next zone, a header without sense."""
    long = bytearray(blk.dump_zone(blk.Dump(TEXT % b"long", S), SIZE))
    long[4:8] = (3 * SIZE).to_bytes(4, "little")
    bad = bytearray(blk.dump_zone(blk.Dump(TEXT % b"bad", S), SIZE))
    bad[12 + 16 : 12 + 24] = b"\xff" * 8
    first, second = read("pstore_blk", device(bytes(long), bytes(bad)))[0]
    assert "the next zone begins before" in first.damage[0]
    assert "the header of the dump is damaged" in second.damage[0]
    assert TEXT % b"bad" in second.data


@given(st.integers(min_value=0))
def test_any_damage_is_survived(seed: int) -> None:
    """No error, whatever became of it."""

    def make(rng: random.Random) -> bytes:
        return device(
            blk.zone("pmsg", rng.randbytes(500), 4096),
            *(blk.dump_zone(blk.Dump(PACKED, S, compressed=rng.random() < 0.5), 4096) for _ in range(3)),
        )

    never_fails("pstore_blk", make, seed)


@given(st.binary(max_size=200), st.sampled_from([b"DBGC", b"CBGC", b"FBGC", b"CGBD"]))
def test_any_bytes_are_survived(data: bytes, signature: bytes) -> None:
    """Behind any header."""
    read("pstore_blk", signature + data, erased=True)
