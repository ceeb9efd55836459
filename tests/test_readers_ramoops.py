# SPDX-License-Identifier: Apache-2.0
"""Regions of ramoops: what real kernels left, regions of every shape, and what no kernel shows."""

import random
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_pstore import capture, ftrace
from fake_pstore.ramoops import Parameters, Region
from pstored.parse.ecc import split_ecc_notice
from pstored.readers.model import Salvaged
from pstored.readers.ramoops import APPENDED, DROPPED
from tests.readers import as_in_pstorefs, kind_of, never_fails, read

CAPTURES = [c.name for c in map(capture.load, capture.names()) if "region.bin" in c.raw_files and c.files]
PANIC = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: %s\n"
LOG = b"".join(b"[%5d.%06d] a line of the console\n" % (n, n * 7919 % 10**6) for n in range(40))
S = 1_795_000_000
PACKED = zlib.compress(PANIC % b"packed")[2:-4]


def by_name(records: Iterable[Salvaged]) -> dict[str, bytes]:
    """Without ECC notices."""
    return {r.name: split_ecc_notice(r.data)[0] for r in records}


def filled(parameters: Parameters, rng: random.Random) -> tuple[Region, dict[str, bytes]]:
    """A region in which all sorts of things happened; and what pstorefs shows of it."""
    region = Region(parameters)
    shown: dict[str, bytes] = {}
    for slot in range(min(len(region.dmesg), rng.randrange(4))):
        text = PANIC % b"%d" % slot + bytes(rng.choices(b"abc \n", k=rng.randrange(800)))
        region.dump(text, seconds=S + slot, microseconds=slot)
        shown[f"dmesg-ramoops-{slot}"] = text
    for word, zones in (("console", region.console), ("pmsg", region.pmsg)):
        for zone in zones:
            stream = LOG * rng.randrange(14) if word == "console" else rng.randbytes(rng.randrange(9000))
            for at in range(0, len(stream), 500):
                zone.write(stream[at : at + 500])
            if stream:
                shown[f"{word}-ramoops-0"] = stream[-len(zone.data) :]
    if region.ftrace and rng.random() < 0.7:
        calls = ftrace.calls(rng, rng.randrange(1, 2000))
        region.trace(calls)
        held = []
        for cpu, zone in enumerate(region.ftrace):
            mine = [c for c in calls if c.cpu == cpu]
            held += mine[-(len(zone.data) // 24) :]
        shown["ftrace-ramoops-0"] = ftrace.show(ftrace.pack(sorted(held, key=lambda c: c.counter)))
    return region, shown


# --- real ones


@pytest.mark.parametrize("name", CAPTURES)
def test_a_real_region_gives_what_pstorefs_showed(name: str) -> None:
    """Names and bytes; of what that kernel could not unpack, what another kernel showed."""
    loaded = capture.load(name)
    region = loaded.raw("region.bin")
    assert kind_of(region) == "ramoops"
    records, remarks = read("ramoops", region)
    assert by_name(records) == as_in_pstorefs(loaded)
    assert all(not r.damage and not r.notes for r in records)
    assert [r for r in remarks if r.is_damage] == []
    shown = {n: (d, t) for n, d, t in loaded.records()}
    for record in records:
        if record.name in shown:
            assert record.data == shown[record.name][0], "the ECC notice, too"
        else:
            assert record.packed == shown[f"{record.name}.enc.z"][0]
        if record.mtime_ns:
            (seconds,) = {t for n, (_, t) in shown.items() if n.startswith(record.name)}
            assert record.mtime_ns // 10**9 == seconds // 10**9


@pytest.mark.parametrize("name", CAPTURES)
def test_the_parameters_say_the_same(name: str) -> None:
    """As the kernel's command line has them."""
    loaded = capture.load(name)
    words = dict(w.split("=") for w in (loaded.crash_cmdline or "").split() if w.startswith("ramoops."))
    if "ramoops.console_size" not in words:
        words |= {f"ramoops.{word}_size": "4096" for word in ("console", "ftrace", "pmsg")}
    records, remarks = read("ramoops", loaded.raw("region.bin"), parameters=words)
    assert by_name(records) == as_in_pstorefs(loaded)
    assert remarks[0].text.startswith("zones found by its parameters")


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_flipped_bits(seed: int) -> None:
    """ECC puts right what it can; the rest is said."""
    loaded = capture.load("x86_64-6.1-ramoops-ecc")
    rng = random.Random(seed)
    region = bytearray(loaded.raw("region.bin"))
    for bit in rng.sample(range(len(region) * 8), 1000):
        region[bit // 8] ^= 1 << bit % 8
    records, _ = read("ramoops", bytes(region))
    assert by_name(records) == as_in_pstorefs(loaded)
    assert any("Corrected bytes, 0 unrecoverable blocks" in r.data[-60:].decode() for r in records)
    assert any("ECC put " in note for r in records for note in r.notes)


# --- every shape

SIZES = st.sampled_from([0, 0x1000, 0x4000, 0x8000])
SHAPES = st.builds(
    Parameters,
    mem_size=st.sampled_from([0x20000, 0x40000, 0xA0000, 0x100000]),
    record_size=st.sampled_from([0x1000, 0x2000, 0x4000, 0x8000]),
    console_size=SIZES,
    ftrace_size=SIZES,
    pmsg_size=SIZES,
    ecc=st.sampled_from([0, 0, 16, 8, 32]),
    cpus=st.sampled_from([1, 2, 4]).filter(lambda n: n > 1),
    pmsg_first=st.booleans(),
    even=st.booleans(),
    order=st.sampled_from("<>"),
)


@settings(max_examples=60)
@given(SHAPES, st.integers(0, 10**6))
def test_a_region_of_any_shape_is_read_by_its_parameters(parameters: Parameters, seed: int) -> None:
    """All kernels' layouts, all sizes."""
    region, shown = filled(parameters, random.Random(seed))
    words = {f"{w}_size": hex(getattr(parameters, f"{w}_size")) for w in ("mem", "record", "console", "ftrace", "pmsg")}
    records, _ = read("ramoops", region.image(), parameters={**words, "ecc": str(parameters.ecc)})
    assert by_name(records) == shown


@settings(max_examples=60)
@given(SHAPES, st.integers(0, 10**6))
def test_a_region_of_any_shape_is_found_by_its_headers(parameters: Parameters, seed: int) -> None:
    """Without being told anything; if there are dumps in it, as there mostly are."""
    region, shown = filled(parameters, random.Random(seed))
    records, _ = read("ramoops", region.image())
    found = by_name(records)
    assert found == shown or len(shown) < 2


# --- dumps


def test_what_the_kernel_would_drop_is_kept() -> None:
    """A first line with a wrong byte; text, or packed."""
    region = Region(Parameters())
    region.dump(PANIC % b"plain", seconds=S)
    region.dump(PACKED, seconds=S, compressed=True)
    for zone in region.dmesg[:2]:
        zone.data[5] = 0x7F
    records, _ = read("ramoops", region.image())
    assert [(r.name, r.data, r.notes) for r in records] == [
        ("dmesg-ramoops-0", PANIC % b"plain", (DROPPED,)),
        ("dmesg-ramoops-1", PANIC % b"packed", (DROPPED,)),
    ]


def test_several_in_one_slot() -> None:
    """Up to 5.5 a dump goes behind the older one, and around the ring, over its beginning."""
    region = Region(Parameters(resets=False, record_size=0x1000))
    slots = len(region.dmesg)
    for number in range(2 * slots):
        region.dump(PANIC % (b"number %d" % number), seconds=S + number)
    records, _ = read("ramoops", region.image())
    assert len(records) == 2 * slots
    second = [r for r in records if APPENDED in r.notes]
    assert [r.data for r in second] == [PANIC % (b"number %d" % n) for n in range(slots, 2 * slots)]
    assert [r.mtime_ns for r in second] == [(S + n) * 10**9 for n in range(slots, 2 * slots)]
    region = Region(Parameters(resets=False, record_size=0x1000))
    long = b"".join(b"<6>[%5d.000000] filler\n" % n for n in range(100))
    region.dump(PANIC % b"older" + long, seconds=S)
    for _ in range(slots - 1):
        region.dump(b"x", seconds=S)
    region.dump(PANIC % b"newer" + long, seconds=S + 1)
    first, second_record = (r for r in read("ramoops", region.image())[0] if r.name == "dmesg-ramoops-0")
    assert first.notes == (DROPPED,)
    assert long.endswith(first.data)
    assert second_record.data == PANIC % b"newer" + long


def test_a_line_of_the_log_is_no_first_line() -> None:
    """What a program writes between two strokes."""
    region = Region(Parameters())
    text = PANIC % b"x" + b"<14>[   78.000000] progress ====100.0\n<14>[   79.000000] done\n"
    region.dump(text, seconds=S)
    assert [r.data for r in read("ramoops", region.image())[0]] == [text]


def test_packed_dumps_are_unpacked_or_kept_packed() -> None:
    """A damaged stream is shown as the kernel shows it."""
    region = Region(Parameters(ecc=16))
    region.dump(PACKED, seconds=S, microseconds=123456, compressed=True)
    region.dump(PACKED[:-8], seconds=S, compressed=True)
    whole, cut = read("ramoops", region.image())[0]
    notice = b"\nECC: No errors detected\n"
    assert (whole.name, whole.data) == ("dmesg-ramoops-0", PANIC % b"packed" + notice)
    assert (whole.packed, whole.mtime_ns) == (PACKED + notice, S * 10**9 + 123456000)
    assert (cut.name, cut.data) == ("dmesg-ramoops-1.enc.z", PACKED[:-8] + notice)


def test_the_notice_has_the_words_of_the_kernel() -> None:
    """Since 6.0 it begins with ECC."""
    for release, word in ((b"5.10.200", b""), (b"6.1.192", b"ECC: ")):
        region = Region(Parameters(ecc=16))
        region.dump(b"Oops#1 Part1\n<4>[    1.000000] CPU: 0 PID: 1 Comm: x Not tainted %b #1\n" % release, seconds=S)
        region.console[0].write(LOG)
        records, _ = read("ramoops", region.image())
        assert all(r.data.endswith(b"\n" + word + b"No errors detected\n") for r in records)


def test_damage_is_named_block_by_block() -> None:
    """Put right, or lost; and what is lost is shown all the same."""
    region = Region(Parameters(ecc=16))
    region.console[0].write(LOG)
    zone = region.console[0]
    for at in (3, 200, 201):
        zone.data[at] ^= 0xFF
    for at in range(600, 620):
        zone.data[at] ^= 0xFF
    (console,) = read("ramoops", region.image())[0]
    assert console.notes == ("ECC put 3 bytes right, in 2 blocks: 0, 1",)
    assert console.damage == ("ECC could not repair block 4, of 128 bytes each",)
    assert console.data.endswith(b"\nECC: 3 Corrected bytes, 1 unrecoverable blocks\n")
    assert len(console.data.splitlines()) > 30


# --- what was erased


def test_erased_dumps_if_asked_for() -> None:
    """Only the header is gone: a packed one has its own end, a plain one ends where no text is."""
    region = Region(Parameters())
    region.dump(PANIC % b"gone", seconds=S)
    region.dump(PACKED, seconds=S + 1, compressed=True)
    region.dump(PANIC % b"there", seconds=S + 2)
    for zone in region.dmesg[:2]:
        zone.zap()
    assert [r.data for r in read("ramoops", region.image())[0]] == [PANIC % b"there"]
    records = read("ramoops", region.image(), erased=True)[0]
    assert [(r.name, r.data, r.erased) for r in records] == [
        ("dmesg-ramoops-0", PANIC % b"gone", True),
        ("dmesg-ramoops-1", PANIC % b"packed", True),
        ("dmesg-ramoops-2", PANIC % b"there", False),
    ]


def test_a_console_that_a_new_boot_has_taken() -> None:
    """Emptied, and not yet written to."""
    region = Region(Parameters())
    region.dump(PANIC % b"x", seconds=S)
    region.console[0].write(LOG)
    region.boot()
    assert [r.name for r in read("ramoops", region.image())[0]] == ["dmesg-ramoops-0"]
    console = next(r for r in read("ramoops", region.image(), erased=True)[0] if r.name == "console-ramoops-0")
    assert (console.data, console.erased) == (LOG, True)


# --- damage of the region


def test_headers_that_are_gone() -> None:
    """The first, one in between, the last but one: the zones are where they must be, and their dumps are found."""
    for lost in (0, 2, 3):
        region = Region(Parameters())
        for number in range(5):
            region.dump(PANIC % (b"%d" % number), seconds=S + number)
        region.dmesg[lost].signature = 0
        region.dmesg[lost].used = 0xFFFFFFFF
        records, _ = read("ramoops", region.image())
        assert [r.data for r in records] == [PANIC % (b"%d" % number) for number in range(5)]
        assert "the header of its zone" in records[lost].damage[0]


def test_a_region_in_a_dump_of_memory() -> None:
    """Anywhere in it, told where or not."""
    region = Region(Parameters(ecc=16, ftrace_size=0x4000))
    region.dump(PANIC % b"there", seconds=S)
    region.console[0].write(LOG)
    image = random.Random(3).randbytes(0x7000) + region.image() + random.Random(4).randbytes(0x300000)
    records, remarks = read("ramoops", image)
    assert by_name(records) == {"dmesg-ramoops-0": PANIC % b"there", "console-ramoops-0": LOG}
    assert remarks[0].text == "a region of ramoops begins at byte 0x7000"


def test_a_region_where_the_parameters_say() -> None:
    """As the kernel's command line has them: the rest of the memory is not looked at."""
    there, other = Region(Parameters()), Region(Parameters())
    there.dump(PANIC % b"there", seconds=S)
    other.dump(PANIC % b"other", seconds=S)
    memory = bytes(0x100000) + other.image() + there.image() + bytes(0x100000)
    words = {"ramoops.mem_address": "0x200000", "ramoops.mem_size": "0x100000"}
    for more in ({}, {"record_size": "0x8000", "console_size": "0x8000", "pmsg_size": "0x4000"}):
        records, _ = read("ramoops", memory, parameters={**words, **more})
        assert [r.data for r in records] == [PANIC % b"there"]


@pytest.mark.parametrize("size", ["much", "-1", "-0x20000", "1", "16", "99999999999999999999"])
def test_wrong_parameters_are_left_aside(size: str) -> None:
    """And said; what is there is found by its headers, and no zone of some bytes is made, millions of them."""
    region = Region(Parameters())
    region.dump(PANIC % b"there", seconds=S)
    records, remarks = read("ramoops", region.image(), parameters={"record_size": size})
    assert remarks[0].is_damage
    assert "the parameters are of no use, and left aside" in remarks[0].text
    assert [r.data for r in records] == [PANIC % b"there"]


def image(rng: random.Random) -> bytes:
    """Some region."""
    shape = Parameters(
        mem_size=0x20000,
        record_size=rng.choice((0x1000, 0x4000)),
        ftrace_size=rng.choice((0, 0x1000)),
        console_size=0x2000,
        pmsg_size=rng.choice((0, 0x1000)),
        ecc=rng.choice((0, 16)),
        order=rng.choice("<>"),
    )
    return filled(shape, rng)[0].image()


@settings(max_examples=60)
@given(st.integers(min_value=0))
def test_any_damage_is_survived(seed: int) -> None:
    """No error, whatever became of it."""
    never_fails("ramoops", image, seed)


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Behind a header, or not."""
    for source in (data, b"DBGC" + data, b"DBGC" + bytes(8) + data, b"CGBD" + data):
        read("ramoops", source, erased=True)
