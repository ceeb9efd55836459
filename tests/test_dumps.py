# SPDX-License-Identifier: Apache-2.0
"""Parts into dumps: in order, gaps named, boots kept apart, no record lost."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, kernels, machine, names
from fake_pstore.model import Options
from fake_pstore.scenarios import SCENARIOS
from pstored.crashes.dumps import MAX_PART, PART_GAP_NS, Dump, assemble
from pstored.parse.kmsg import gap_line
from pstored.parse.record import Record, decode_record

T0 = 1_795_407_522
S = 10**9


def part(
    number: int, *, reason: str = "Panic", count: int = 1, second: int = T0, text: bytes | None = None, boot: str = "a"
) -> Record:
    """A part of an EFI dump; its text says which it is."""
    if text is None:
        text = f"<6>[{1000 - number:5d}.000000] boot {boot}, part {number}\n".encode()
    data = f"{reason}#{count} Part{number}\n".encode() + text
    return decode_record(f"dmesg-efi-{names.efi_id(second, number, count)}", data, mtime_ns=second * S)


def one(records: list[Record]) -> Dump:
    """The only dump of some records."""
    (dump,) = assemble(records)
    return dump


def scenario(name: str, backend: str, **options: object) -> list[Record]:
    """The records of a scenario, decoded."""
    settings = Options(backend=backend, era=kernels.ERAS[kernels.default_era(backend)], **options)  # type: ignore[arg-type]  # each test gives what Options takes
    found = machine.run(SCENARIOS[name], settings).records
    return [decode_record(r.name, r.data, mtime_ns=r.mtime_ns) for r in found]


def test_parts_come_in_order_whatever_the_order_of_their_names() -> None:
    """Part 1 is the newest text, so it comes last; numbers, not names, give the order."""
    records = [part(n) for n in range(1, 13)]
    random.Random(1).shuffle(records)
    dump = one(records)
    assert dump.parts == tuple(range(1, 13))
    assert [r.header.part for r in dump.records if r.header] == list(range(12, 0, -1))
    assert dump.text == b"".join(f"<6>[{1000 - n:5d}.000000] boot a, part {n}\n".encode() for n in range(12, 0, -1))
    assert dump.is_complete
    assert dump.title == "Panic#1"


def test_parts_of_one_dump_may_carry_different_seconds() -> None:
    """EFI writes each with the time of its writing; the dump's own is that of part 1."""
    dump = one([part(1, second=T0), part(2, second=T0 + 1), part(3, second=T0 + 1), part(4, second=T0 + 3)])
    assert dump.parts == (1, 2, 3, 4)
    assert dump.time_ns == T0 * S


def test_missing_parts_are_named_and_marked_in_the_text() -> None:
    """Below the highest part each must have been there."""
    dump = one([part(1), part(4), part(5), part(7)])
    assert dump.missing == (2, 3, 6)
    assert not dump.is_complete
    lines = dump.text.split(b"\n")
    assert lines[1] + b"\n" == gap_line("Panic#1: part 6 is missing")
    assert lines[4] + b"\n" == gap_line("Panic#1: part 2 to 3 is missing")


def test_a_missing_newest_part_is_missing() -> None:
    """Part 1 tells how it ended: without it the dump is not whole."""
    dump = one([part(2), part(3)])
    assert dump.missing == (1,)
    assert not dump.is_complete


def test_a_gap_at_the_end_is_marked_in_the_text() -> None:
    """The reader must see that the newest lines are not there."""
    assert b"part 1 is missing" in one([part(2), part(3)]).text


def test_reason_and_count_tell_dumps_apart() -> None:
    """An oops and the panic after it, oldest first."""
    records = [part(1, reason="Panic", count=2, second=T0 + 4), part(1, reason="Oops"), part(2, reason="Oops")]
    assert [(d.title, d.parts) for d in assemble(records)] == [("Oops#1", (1, 2)), ("Panic#2", (1,))]


def test_two_boots_with_the_same_reason_and_count_are_two_dumps() -> None:
    """Counting begins anew in every boot."""
    first, second = [part(n, boot="a") for n in (1, 2, 3)], [part(n, boot="b", second=T0 + 40) for n in (1, 2)]
    dumps = assemble([*second, *first])
    assert [d.parts for d in dumps] == [(1, 2, 3), (1, 2)]
    assert b"boot b" not in dumps[0].text
    assert b"boot a" not in dumps[1].text


def test_a_long_pause_is_another_boot() -> None:
    """Part 2 of a boot whose part 1 is lost does not join another boot's part 1."""
    late = T0 + 3 * PART_GAP_NS // S
    dumps = assemble([part(1), part(2, boot="b", second=late)])
    assert [(d.parts, d.missing) for d in dumps] == [((1,), ()), ((2,), (1,))]


def test_boots_that_crash_at_the_same_wall_time_keep_their_own_parts() -> None:
    """A board with a dead clock battery starts each boot at the same second: times interleave, texts do not."""
    seconds = {"a": [T0, T0, T0 + 1, T0 + 1], "b": [T0 + 1, T0 + 1, T0 + 2, T0 + 2]}
    records = []
    for boot, offset in (("a", 0), ("b", 7)):
        for number, second in enumerate(seconds[boot], 1):
            newest = 60 + offset - 10 * number
            text = b"".join(b"<6>[%5d.%06d] boot %s\n" % (newest + n, n, boot.encode()) for n in range(10))
            records.append(part(number, second=second, text=text))
    dumps = assemble(records)
    assert len(dumps) == 2
    assert all((b"boot a" in d.text) != (b"boot b" in d.text) for d in dumps)


def test_erst_ids_keep_two_boots_apart() -> None:
    """The id says which boot wrote the record, whatever the times say."""
    records = [
        decode_record(f"dmesg-erst-{names.erst_id(first, number)}", b"Panic#1 Part%d\n<6>x\n" % number, mtime_ns=T0 * S)
        for first in (T0, T0 + 1)
        for number in (1, 2)
    ]
    assert [d.parts for d in assemble(records)] == [(1, 2), (1, 2)]
    assert all(len({r.boot_key for r in d.records}) == 1 for d in assemble(records))


@pytest.mark.parametrize("backend", ["efi", "efi_pstore"])
def test_a_dump_of_more_than_a_hundred_parts_is_one(backend: str) -> None:
    """The part number runs over into the seconds of the id; the header has the last word."""
    dump = one(scenario("big", backend))
    assert len(dump.parts) > 100
    assert dump.parts == tuple(range(1, len(dump.parts) + 1))
    assert dump.is_complete
    times = [line.time_ns for line in dump.log.lines if line.time_ns is not None]
    assert times == sorted(times)


def test_a_record_without_header_is_a_dump_of_its_own() -> None:
    """It has no reason, no parts, and is not called complete."""
    bare = [decode_record(f"dmesg-ramoops-{n}", b"text %d\n" % n, mtime_ns=T0 * S) for n in range(3)]
    dumps = assemble(bare)
    assert [d.text for d in dumps] == [b"text 0\n", b"text 1\n", b"text 2\n"]
    assert all(d.reason is None and d.parts == () and not d.is_complete for d in dumps)
    # but where no driver writes one, nothing is missing
    (plain,) = assemble([decode_record("dmesg-nvram-1", b"some text\xff\n", mtime_ns=T0 * S)])
    assert (plain.text, plain.is_complete) == (b"some text\xff\n", True)


def test_damage_is_given_with_the_record_it_is_in() -> None:
    """And such a dump is not complete."""
    broken = decode_record("dmesg-ramoops-0.enc.z", b"\x00\xff" * 40, mtime_ns=T0 * S)
    dump = one([broken])
    assert dump.damage
    assert dump.damage[0].startswith("dmesg-ramoops-0.enc.z: ")
    assert not dump.is_complete


def test_a_part_cut_in_its_last_line_does_not_run_into_the_next() -> None:
    """Each part begins on a line of its own."""
    assert one([part(2, text=b"cut her"), part(1, text=b"next\n")]).text == b"cut her\nnext\n"


def test_absurd_part_numbers_do_not_fill_the_memory() -> None:
    """The gaps below part 4294967295 are not listed one by one."""
    dump = one([part(2**32 - 1)])
    assert len(dump.missing) <= MAX_PART
    assert not dump.is_complete


def test_an_orderly_end_is_one() -> None:
    """In the words of every kernel."""
    assert one([part(1, reason="Shutdown")]).is_shutdown
    assert one([part(1, reason="Restart")]).is_shutdown
    assert not one([part(1, reason="Emergency")]).is_shutdown


@pytest.mark.parametrize("name", [n for n in capture.names() if capture.load(n).files])
@given(st.randoms(use_true_random=False))
def test_any_subset_in_any_order_loses_no_record(name: str, rng: random.Random) -> None:
    """Every record of a real store is in exactly one dump, the order of names changes nothing, and gaps are named."""
    records = _captured(name)
    chosen = rng.sample(records, rng.randrange(1, len(records) + 1))
    dumps = assemble(chosen)
    assert sorted(r.name for d in dumps for r in d.records) == sorted(r.name for r in chosen)
    assert [d.text for d in assemble(sorted(chosen, key=lambda r: r.name))] == [d.text for d in dumps]
    for dump in dumps:
        assert len(set(dump.parts)) == len(dump.parts)
        if dump.parts:
            assert set(dump.parts) | set(dump.missing) == set(range(1, max(dump.parts) + 1))


_DECODED: dict[str, list[Record]] = {}


def _captured(name: str) -> list[Record]:
    if name not in _DECODED:
        _DECODED[name] = [
            decode_record(file, data, mtime_ns=mtime)
            for file, data, mtime in capture.load(name).records()
            if file.startswith("dmesg")
        ]
    return _DECODED[name]
