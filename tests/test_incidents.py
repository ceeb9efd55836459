# SPDX-License-Identifier: Apache-2.0
"""What happened to each boot: dumps and zones of one boot come together, those of two stay apart, none is lost."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_pstore import capture, damage, kernels, machine, names
from fake_pstore.machine import Outcome
from fake_pstore.model import Options
from fake_pstore.scenarios import SCENARIOS
from pstored.crashes.crash import find_crash
from pstored.crashes.incidents import Incident, group
from pstored.parse.record import Record, decode_record

PREFIX = "pstored: boot "
STORES = [(scenario, backend) for scenario, told in SCENARIOS.items() for backend in told.backends]
S = 10**9
T0 = 1_795_407_522
A = "29ba41b6-8626-4f73-9871-3d09cbfdd92a"
B = "f3c134ae-dde4-4a87-867b-251d1180ad3d"


def outcome(name: str, backend: str, era: str | None = None, **options: object) -> Outcome:
    """Live through a scenario."""
    if SCENARIOS[name].needs_ecc:
        options["ecc"] = damage.ECC_NEW
    settings = Options(backend=backend, era=kernels.ERAS[era or kernels.default_era(backend)], **options)  # type: ignore[arg-type]  # each test gives what Options takes
    return machine.run(SCENARIOS[name], settings)


def decoded(found: Outcome) -> list[Record]:
    """Its records."""
    return [decode_record(r.name, r.data, mtime_ns=r.mtime_ns) for r in found.records]


def captured(name: str) -> list[Record]:
    """The records of a capture."""
    return [decode_record(file, data, mtime_ns=mtime) for file, data, mtime in capture.load(name).records()]


def dmesg(name: str, head: bytes, text: bytes, *, mtime_s: int = T0) -> Record:
    """A dmesg record."""
    return decode_record(name, head + b"\n" + text, mtime_ns=mtime_s * S)


def lines(start: int, number: int = 20, *, boot: int = 0, console: bool = False) -> bytes:
    """Log lines, one each 100 ms from *start* seconds on; another *boot*, other microseconds."""
    level = b"" if console else b"<6>"
    return b"".join(
        level + b"[%5d.%06d] line %d\n" % (start + n // 10, n % 10 * 100_000 + 17 * boot + 3, n) for n in range(number)
    )


def stamped(boot_id: str, *, at: int = 1, console: bool = False) -> bytes:
    """A stamp line."""
    return (b"" if console else b"<12>") + b"[%5d.000001] %s%s\n" % (at, PREFIX.encode(), boot_id.encode())


def titles(incidents: list[Incident]) -> list[list[str]]:
    """The dumps of each."""
    return [[d.title for d in i.dumps] for i in incidents]


def zones(incident: Incident) -> list[Record]:
    """What is no dump, proven to belong there or not."""
    return [r for r in incident.records() if r.type != "dmesg"]


def find(records: list[Record]) -> list[Incident]:
    """Group, and see that no record got lost or doubled."""
    incidents = group(records, stamp_prefix=PREFIX)
    there = sorted((r.name, r.size) for i in incidents for r in i.records())
    assert there == sorted((r.name, r.size) for r in records)
    return incidents


# -- dumps


@pytest.mark.parametrize("stamp", [PREFIX, ""], ids=["stamped", "not stamped"])
@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_an_oops_and_the_panic_after_it_are_one_incident(backend: str, stamp: str) -> None:
    """Two dumps of one boot, oldest first, on every backend, with and without a stamp."""
    incidents = find(decoded(outcome("oops-panic", backend, stamp_prefix=stamp)))
    assert titles(incidents) == [["Oops#1", "Panic#2"]]


@pytest.mark.parametrize("stamp", [PREFIX, ""], ids=["stamped", "not stamped"])
@pytest.mark.parametrize("backend", ["efi", "efi_pstore", "erst"])
def test_two_boots_in_one_store_are_two_incidents(backend: str, stamp: str) -> None:
    """Oldest first; each stamp is found in its own boot's text only."""
    found = outcome("two-boots", backend, stamp_prefix=stamp)
    incidents = find(decoded(found))
    assert titles(incidents) == [["Oops#1", "Panic#2"], ["Panic#1"]]
    if stamp:
        seen = [{boot_id for _, log in i.logs() for boot_id in log.stamps(PREFIX)} for i in incidents]
        assert seen == [{boot.boot_id} for boot in found.boots]


@pytest.mark.parametrize("backend", ["ramoops", "pstore_blk"])
@pytest.mark.parametrize("stamp", [PREFIX, ""], ids=["stamped", "not stamped"])
def test_what_is_left_of_two_boots_in_slots_is_two_incidents(backend: str, stamp: str) -> None:
    """ramoops begins with slot 0 in each boot: what it overwrote is gone, what is left is of two boots."""
    found = outcome("two-boots", backend, stamp_prefix=stamp)
    incidents = find(decoded(found))
    assert len(incidents) == 2
    assert sum(find_crash(i) is not None for i in incidents) == 2


@pytest.mark.parametrize("stamp", [PREFIX, ""], ids=["stamped", "not stamped"])
def test_the_real_two_boots_are_told_apart(stamp: str) -> None:
    """62 records with interleaved ids, both boots with an Oops#1 and a Panic#2, whether or not the stamp is known."""
    records = captured("lab-efi-twoboots")
    prefix = capture.STAMP_PREFIX if stamp else PREFIX
    incidents = group(records, stamp_prefix=prefix)
    assert titles(incidents) == [["Oops#1", "Panic#2"], ["Oops#1", "Panic#2"]]
    assert [[d.parts for d in i.dumps] for i in incidents] == [
        [tuple(range(1, 17)), tuple(range(1, 17))],
        [tuple(range(1, 16)), tuple(range(1, 17))],
    ]


def test_the_same_dump_packed_and_unpacked_is_one() -> None:
    """After a kernel update, the new kernel shows what the old one could not decompress."""
    loaded = capture.load("lab-enc-zstd")
    shown = [r for what in ("pstore", "truth") for r in loaded.records(what)]
    records = [decode_record(name, data, mtime_ns=mtime) for name, data, mtime in shown if name.startswith("dmesg")]
    assert len(records) == 4
    incidents = group(records, stamp_prefix=capture.STAMP_PREFIX)
    assert titles(incidents) == [["Oops#1", "Panic#2"]]
    assert len(incidents[0].records()) == 4


def test_equal_counts_are_two_boots_even_with_everything_else_alike() -> None:
    """One boot gives each count only once."""
    records = [
        dmesg("dmesg-ramoops-0", b"Panic#1 Part1", lines(1)),
        dmesg("dmesg-ramoops-1", b"Panic#1 Part1", lines(1, boot=1)),
    ]
    assert len(find(records)) == 2


def test_different_stamps_are_two_boots_whatever_the_clock_says() -> None:
    """Count, clock and uptime go together; the stamps do not, and they are proof."""
    records = [
        dmesg("dmesg-ramoops-0", b"Oops#1 Part1", stamped(A) + lines(10)),
        dmesg("dmesg-ramoops-1", b"Panic#2 Part1", stamped(B) + lines(30), mtime_s=T0 + 20),
    ]
    assert len(find(records)) == 2


def test_the_same_stamp_is_one_boot_whatever_the_clock_says() -> None:
    """NTP set the clock by ten years in between."""
    records = [
        dmesg("dmesg-ramoops-0", b"Oops#1 Part1", stamped(A) + lines(10), mtime_s=12),
        dmesg("dmesg-ramoops-1", b"Panic#2 Part1", stamped(A) + lines(3000), mtime_s=T0),
    ]
    assert titles(find(records)) == [["Oops#1", "Panic#2"]]


def test_dumps_without_overlap_need_count_clock_and_uptime_to_agree() -> None:
    """The log was cleared in between; an hour of uptime is an hour of clock, or it is another boot."""
    oops = dmesg("dmesg-ramoops-0", b"Oops#1 Part1", lines(10))
    later = lines(3610)
    assert len(find([oops, dmesg("dmesg-ramoops-1", b"Panic#2 Part1", later, mtime_s=T0 + 3600)])) == 1
    assert len(find([oops, dmesg("dmesg-ramoops-1", b"Panic#2 Part1", later, mtime_s=T0 + 7200)])) == 2


def test_dumps_at_the_same_wall_time_with_other_texts_are_two_boots() -> None:
    """Without a clock each boot begins at the same second: only the microseconds tell."""
    records = [
        dmesg("dmesg-ramoops-0", b"Oops#1 Part1", lines(1, boot=1), mtime_s=3),
        dmesg("dmesg-ramoops-1", b"Panic#2 Part1", lines(1, boot=2), mtime_s=3),
    ]
    assert len(find(records)) == 2


def test_without_timestamps_near_dumps_with_rising_counts_are_one_boot() -> None:
    """printk.time=0 leaves only count and clock."""
    oops = dmesg("dmesg-ramoops-0", b"Oops#1 Part1", b"<4>oops\n")
    panic = b"<0>Kernel panic - not syncing: x\n"
    assert titles(find([oops, dmesg("dmesg-ramoops-1", b"Panic#2 Part1", panic, mtime_s=T0 + 1)])) == [
        ["Oops#1", "Panic#2"]
    ]
    assert len(find([oops, dmesg("dmesg-ramoops-1", b"Panic#2 Part1", panic, mtime_s=T0 + 9000)])) == 2


# -- zones


@pytest.mark.parametrize("stamp", [PREFIX, ""], ids=["stamped", "not stamped"])
@pytest.mark.parametrize("backend", ["ramoops", "pstore_blk"])
def test_the_zones_of_a_crash_are_with_its_dumps(backend: str, stamp: str) -> None:
    """Console by its lines; pmsg and ftrace, in which nothing names a boot, because they are the last boot's."""
    incidents = find(decoded(outcome("all-zones", backend, stamp_prefix=stamp)))
    assert titles(incidents) == [["Oops#1", "Panic#2"]]
    assert {z.type for z in zones(incidents[0])} == {"console", "pmsg", "ftrace"}
    assert any("equal lines" in e or "same stamp" in e for e in incidents[0].evidence)


def test_a_console_of_another_boot_is_not_put_to_the_dump() -> None:
    """The dump is an older boot's, not collected; the console is the boot's that followed, at the same uptimes."""
    records = [
        dmesg("dmesg-ramoops-0", b"Panic#1 Part1", lines(0, 40)),
        decode_record("console-ramoops-0", lines(0, 40, boot=1, console=True), mtime_ns=0),
    ]
    incidents = find(records)
    assert [[r.name for r in i.records()] for i in incidents] == [["dmesg-ramoops-0"], ["console-ramoops-0"]]


def test_a_console_with_another_stamp_is_not_put_to_the_dump() -> None:
    """Their texts do not overlap, but the stamps speak."""
    records = [
        dmesg("dmesg-ramoops-0", b"Panic#1 Part1", stamped(A) + lines(5)),
        decode_record("console-ramoops-0", stamped(B, at=5000, console=True) + lines(5001, console=True), mtime_ns=0),
    ]
    assert len(find(records)) == 2


def test_pmsg_with_a_stamp_goes_to_its_boot() -> None:
    """Not to the newest."""
    records = [
        dmesg("dmesg-efi-1", b"Panic#1 Part1", stamped(A) + lines(5), mtime_s=T0),
        dmesg("dmesg-efi-2", b"Panic#1 Part1", stamped(B) + lines(5, boot=1), mtime_s=T0 + 50),
        decode_record("pmsg-ramoops-0", f"{PREFIX}{A}\nhello\n".encode(), mtime_ns=0),
    ]
    incidents = find(records)
    assert [[r.name for r in i.records()] for i in incidents] == [["dmesg-efi-1", "pmsg-ramoops-0"], ["dmesg-efi-2"]]


def test_zones_that_name_no_boot_go_to_the_newest() -> None:
    """ftrace is the last boot's before the collection; that it is a guess is said."""
    records = [
        dmesg("dmesg-efi-1", b"Panic#1 Part1", lines(5), mtime_s=T0),
        dmesg("dmesg-efi-2", b"Panic#1 Part1", lines(5, boot=1), mtime_s=T0 + 50),
        decode_record("ftrace-ramoops-0", b"0 ffffffff81000000  ffffffff81000001  a <- b+0x1/0x2\n", mtime_ns=0),
    ]
    incidents = find(records)
    assert [r.name for r in incidents[1].records()] == ["dmesg-efi-2", "ftrace-ramoops-0"]
    assert any("ftrace-ramoops-0" in e for e in incidents[1].guesses)
    assert not any("ftrace-ramoops-0" in e for e in incidents[1].evidence)


def test_machine_checks_go_with_the_boot_that_wrote_them() -> None:
    """Four boots, each with its mce record and its panic: told by the ERST ids."""
    incidents = find(decoded(outcome("mce", "erst")))
    assert len(incidents) == 4
    assert all([z.type for z in zones(i)] == ["mce"] and len(i.dumps) == 1 for i in incidents)


def test_zones_alone_are_one_incident() -> None:
    """No dump: whether they show a crash is for the report to say."""
    incidents = find(decoded(outcome("console-only-clean", "ramoops")))
    assert len(incidents) == 1
    assert {z.type for z in zones(incidents[0])} == {"console", "pmsg"}


def test_nothing_is_nothing() -> None:
    """An empty store."""
    assert group([], stamp_prefix=PREFIX) == []


# -- any store, any part of it


_RECORDS: dict[tuple[str, str], list[Record]] = {}


@pytest.mark.parametrize(("name", "backend"), STORES, ids=["-".join(s) for s in STORES])
@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_any_subset_in_any_order_is_grouped_without_loss(name: str, backend: str, rng: random.Random) -> None:
    """Every record is in exactly one incident; nothing raises, in the report's question either; order is nothing."""
    if (name, backend) not in _RECORDS:
        _RECORDS[name, backend] = decoded(outcome(name, backend))
    records = _RECORDS[name, backend]
    if len(records) > 40:
        records = rng.sample(records, 40)
    chosen = rng.sample(records, rng.randrange(len(records) + 1))
    incidents = find(chosen)
    for incident in incidents:
        find_crash(incident)
    again = group(sorted(chosen, key=lambda r: r.name), stamp_prefix=PREFIX)
    assert [sorted(r.name for r in i.records()) for i in again] == [
        sorted(r.name for r in i.records()) for i in incidents
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["dmesg-ramoops-", "dmesg-efi-17954075220100", "dmesg-erst-771121686056534016", "console-ramoops-"]
            ),
            st.sampled_from([b"", b"Panic#1 Part1\n", b"Oops#1 Part2\n", b"Panic#2 Part1\n", b"Shutdown#1 Part1\n"]),
            st.sampled_from([b"", lines(0, 5), lines(0, 5, boot=1), stamped(A), stamped(B), b"\xff" * 20, b"x\n"]),
            st.sampled_from([0, T0 * S, (T0 + 3) * S, (T0 + 9999) * S]),
        ),
        max_size=8,
        unique_by=lambda r: r[0],
    )
)
def test_any_mixture_of_records_is_grouped_without_loss(drawn: list[tuple[str, bytes, bytes, int]]) -> None:
    """Backends mixed, times wrong, stamps in conflict: every record is in exactly one incident."""
    records = [
        decode_record(f"{name}{at}", head + text, mtime_ns=mtime) for at, (name, head, text, mtime) in enumerate(drawn)
    ]
    for incident in find(records):
        find_crash(incident)


def test_ids_of_erst_in_the_mixture_have_a_boot() -> None:
    """The strategy above draws ids that tie records together."""
    record = decode_record("dmesg-erst-7711216860565340163", b"Panic#1 Part1\n", mtime_ns=0)
    assert record.boot_key == 7711216860565340163 >> 32
    assert names.erst_id(record.boot_key, 3) >> 32 == record.boot_key


# -- a console and a dump whose texts do not overlap


OTHER = "bbbbbbbb-1111-4222-8333-444444444444"


def test_a_console_that_ends_before_the_dump_is_of_another_boot() -> None:
    """The stamp of a long-lived boot has rolled out of its ring; the next boot, stamped, was reset after seconds."""
    panic = b"<0>[  640.000003] Kernel panic - not syncing: gone\n"
    dump = dmesg("dmesg-ramoops-0", b"Panic#1 Part1", lines(500, 1400) + panic)
    console = decode_record("console-ramoops-0", stamped(OTHER, console=True) + lines(2, 60, console=True), mtime_ns=0)
    assert len(find([dump, console])) == 2


def test_a_console_with_an_orderly_end_is_of_no_boot_that_panicked() -> None:
    """Without timestamps, the last words must do."""
    dump = dmesg("dmesg-ramoops-0", b"Panic#1 Part1", b"<0>Kernel panic - not syncing: gone\n")
    text = b"pstored: boot " + OTHER.encode() + b"\nreboot: Restarting system\n"
    assert len(find([dump, decode_record("console-ramoops-0", text, mtime_ns=0)])) == 2
    text = b"pstored: boot " + OTHER.encode() + b"\nKernel panic - not syncing: gone\n"
    assert len(find([dump, decode_record("console-ramoops-0", text, mtime_ns=0)])) == 1


# -- logs from beside pstore


def test_a_serial_log_is_of_no_boot_for_want_of_a_better_place() -> None:
    """It may be of any boot of any machine; ramoops' own console is of the last."""
    panic = dmesg("dmesg-ramoops-0", b"Panic#1 Part1", lines(10))
    quiet = b"a line without a time\n"
    for backend, incidents in (("ramoops", 1), ("serial", 2), ("netconsole", 2)):
        console = decode_record(f"console-{backend}-0", quiet, mtime_ns=0)
        assert len(find([panic, console])) == incidents


@pytest.mark.parametrize("name", ["console-serial-0", "console-netconsole-0", "dmesg-kdump-0", "dmesg-mtdoops-0"])
def test_a_log_from_beside_pstore_is_joined_by_its_lines(name: str) -> None:
    """Equal lines at equal times are proof, also where it was read no further than that."""
    panic = dmesg("dmesg-ramoops-0", b"Panic#1 Part1", lines(10, 80))
    other = decode_record(name, lines(10, 20, console=True), mtime_ns=0)
    (incident,) = find([panic, other])
    assert len(incident.evidence) == 1
    assert not incident.loose
    assert all(d.is_complete for d in incident.dumps)
    assert "a dump without header" not in [d.title for d in incident.dumps]


def test_two_boots_of_one_serial_line_stay_apart() -> None:
    """Nothing ties one to the other."""
    boots = [decode_record(f"console-serial-{n}", lines(10 * n, 20, boot=n, console=True), mtime_ns=0) for n in (1, 2)]
    assert len(find(boots)) == 2


def test_of_two_copies_of_a_dump_the_better_counts() -> None:
    """A region of memory, and the same with damage in it: of one second, one count, one boot."""
    text = lines(10, 80)
    bad = text[:900] + b"\x7f" * 40 + text[940:]
    for other, dumps in ((0, 1), (-123_000, 1), (2 * S, 2)):
        good = decode_record("dmesg-ramoops-0", b"Oops#1 Part1\n" + text, mtime_ns=T0 * S + 123_000)
        damaged = decode_record(
            "dmesg-ramoops-0", b"Oops#1 Part1\n" + bad, mtime_ns=T0 * S + 123_000 + other, damage=["a block is lost"]
        )
        for records in ([good, damaged], [damaged, good]):
            found = find(records)
            assert sum(len(i.dumps) for i in found) == dumps
            if dumps == 1:
                assert found[0].dumps[0].text == text
                assert found[0].dumps[0].is_complete
