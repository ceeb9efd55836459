# SPDX-License-Identifier: Apache-2.0
"""One record decoded: every type, and every way in which name, content and time can disagree."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, damage, kernels, machine
from fake_pstore.model import Options
from fake_pstore.scenarios import SCENARIOS
from pstored.parse.ecc import EccNotice
from pstored.parse.header import DumpHeader
from pstored.parse.record import Record, decode_record

TEXT = b"<6>[    1.000000] text\n"
DUMP = b"Panic#1 Part1\n" + TEXT
ECC = b"\nECC: No errors detected\n"
T = 1_795_407_522_123_456_789


def decode(name: str, data: bytes, *, mtime_ns: int = T, error: str | None = None) -> Record:
    """Decode."""
    return decode_record(name, data, mtime_ns=mtime_ns, error=error)


def deflate(data: bytes) -> bytes:
    """As kernels since 4.18 compress."""
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(data) + packer.flush()


def test_a_plain_dmesg_record() -> None:
    """Header and text apart, the time from its mtime, nothing to complain of."""
    record = decode("dmesg-ramoops-0", DUMP)
    assert (record.type, record.backend, record.id) == ("dmesg", "ramoops", 0)
    assert (record.header, record.text, record.time_ns) == (DumpHeader("Panic", 1, 1), TEXT, T)
    assert (record.compression, record.ecc, record.damage, record.notes) == (None, None, (), ())
    assert record.size == len(DUMP)


def test_the_ecc_notice_is_a_fact_and_no_text() -> None:
    """Clean, corrected, and beyond repair: only the last is damage."""
    clean = decode("dmesg-ramoops-0", DUMP + ECC)
    assert (clean.text, clean.ecc, clean.damage) == (TEXT, EccNotice(0, 0), ())
    corrected = decode("dmesg-ramoops-0", DUMP + damage.ecc_notice(b"", 7, 0))
    assert (corrected.text, corrected.ecc, corrected.damage) == (TEXT, EccNotice(7, 0), ())
    broken = decode("dmesg-ramoops-0", DUMP + damage.ecc_notice(b"ECC: ", 7, 2))
    assert broken.text == TEXT
    assert any("2 blocks" in d for d in broken.damage)


def test_a_compressed_record_is_unpacked() -> None:
    """The notice stands behind the packed bytes."""
    record = decode("dmesg-ramoops-0.enc.z", deflate(DUMP) + ECC)
    assert (record.header, record.text, record.damage) == (DumpHeader("Panic", 1, 1), TEXT, ())
    assert record.compression == "deflate"
    assert record.ecc == EccNotice(0, 0)


def test_a_record_that_is_only_named_as_compressed_is_read_as_it_is() -> None:
    """And it is said."""
    record = decode("dmesg-ramoops-0.enc.z", DUMP)
    assert (record.text, record.compression) == (TEXT, None)
    assert record.notes


def test_a_record_that_is_compressed_without_its_name_saying_so_is_unpacked() -> None:
    """And it is said."""
    record = decode("dmesg-ramoops-0", deflate(DUMP))
    assert (record.text, record.compression) == (TEXT, "deflate")
    assert record.notes


def test_what_cannot_be_unpacked_is_damage_and_no_text() -> None:
    """Random bytes, said to be compressed."""
    record = decode("dmesg-ramoops-0.enc.z", random.Random(1).randbytes(700))
    assert record.text is None
    assert record.damage
    assert record.type == "dmesg"


def test_a_truncated_stream_is_saved_as_far_as_it_goes() -> None:
    """What was unpacked is shown, and what is missing is said."""
    whole = b"Panic#1 Part1\n" + b"".join(b"<6>[%5d.000000] line number %d\n" % (n, n * 7919) for n in range(400))
    packed = deflate(whole)
    record = decode("dmesg-efi-179540752201001.enc.z", packed[: len(packed) // 2])
    assert record.text is not None
    assert whole[14:].startswith(record.text.rstrip(b"\n"))
    assert len(record.text) > 1000
    assert record.damage


@pytest.mark.parametrize("name", ["console-ramoops-0", "console-ramoops"])
def test_a_console_is_text_without_a_time(name: str) -> None:
    """Its mtime is that of the mount, and would be a lie."""
    record = decode(name, b"[    1.000000] text\n" + ECC)
    assert (record.type, record.text, record.time_ns) == ("console", b"[    1.000000] text\n", None)


def test_swapped_names_are_seen_through() -> None:
    """A vendor tree swaps dmesg and console: content decides, and it is said."""
    record = decode("console-ramoops-0", DUMP)
    assert (record.type, record.header, record.text) == ("dmesg", DumpHeader("Panic", 1, 1), TEXT)
    assert record.notes


def test_a_dmesg_record_without_header_is_text() -> None:
    """The nvram fallback; said, and not damage."""
    record = decode("dmesg-nvram-3", TEXT)
    assert (record.header, record.text, record.damage) == (None, TEXT, ())
    assert any("no header" in note for note in record.notes)


def test_binary_that_nothing_unpacks_is_no_text() -> None:
    """Garbage under a plain name is not shown as a log."""
    record = decode("dmesg-ramoops-0", random.Random(2).randbytes(4096))
    assert record.text is None
    assert record.damage


def test_an_empty_record_is_damage() -> None:
    """Nothing in it, and that is said."""
    assert "empty" in decode("dmesg-ramoops-0", b"").damage[0]
    assert "empty" in decode("pmsg-ramoops-0", b"").damage[0]


def test_an_error_while_reading_is_damage() -> None:
    """What was read is still decoded."""
    record = decode("dmesg-ramoops-0", DUMP, error="cannot be read: Input/output error, after 36 bytes")
    assert record.text == TEXT
    assert any("Input/output error" in d for d in record.damage)


@pytest.mark.parametrize("name", ["README", "..", "x", "dmesg-ramoops-0~", "dmesg-\x1b[2J-0"])
def test_what_is_no_record_name_is_kept_and_said(name: str) -> None:
    """Type unknown, no text, no backend; the name in the note cannot act on a terminal."""
    record = decode(name, b"bytes")
    assert (record.type, record.backend, record.id, record.text) == ("unknown", None, None, None)
    assert record.notes
    assert all(note.isprintable() for note in record.notes)


def test_a_dump_under_a_strange_name_is_a_dump() -> None:
    """Somebody copied it."""
    assert decode("my-crash.txt", DUMP).text == TEXT


@pytest.mark.parametrize("kind", ["rtas", "powerpc-ofw", "powerpc-common", "powerpc-opal", "annotate", "type9"])
def test_types_that_are_not_decoded_are_kept_and_said(kind: str) -> None:
    """Archived as they are."""
    record = decode(f"{kind}-nvram-5", b"\x01\x02")
    assert (record.type, record.text, record.damage) == (kind, None, ())
    assert any("not decoded" in note for note in record.notes)


def test_a_machine_check_is_text_and_a_sentence() -> None:
    """The real record."""
    name, data, mtime = next(r for r in capture.load("lab-erst-mce").records() if r[0].startswith("mce"))
    record = decode(name, data, mtime_ns=mtime)
    assert record.summary is not None
    assert "machine check" in record.summary
    assert record.text
    assert record.time_ns is None


def test_a_machine_check_of_a_strange_length_is_damage() -> None:
    """No field is made up."""
    record = decode("mce-erst-3", b"\x01\x02\x03")
    assert (record.text, record.summary) == (None, None)
    assert record.damage


@pytest.mark.parametrize(
    ("name", "data", "mtime_ns", "expected"),
    [
        ("dmesg-efi-179540752201001", DUMP, T, T),
        ("dmesg-efi-179540752201001", DUMP, 0, 1_795_407_522 * 10**9),
        ("dmesg-ramoops-0", b"====1795407522.170001\n" + DUMP, 5 * 10**9, 1_795_407_522_170_001_000),
        ("dmesg-ramoops-0", DUMP, T, T),
    ],
)
def test_the_time_of_a_dump_is_its_own(name: str, data: bytes, mtime_ns: int, expected: int) -> None:
    """The line inside, else the mtime, else what the id holds."""
    assert decode(name, data, mtime_ns=mtime_ns).time_ns == expected


def test_a_dump_without_any_time_has_none() -> None:
    """Zero seconds since 1970 is no time: the kernel sets none where it has none."""
    assert decode("dmesg-ramoops-0", DUMP, mtime_ns=0).time_ns is None


def test_erst_records_know_what_ties_them_together() -> None:
    """Only ERST has such ids."""
    assert decode("dmesg-erst-7711216860565340163", DUMP).boot_key == 7711216860565340163 >> 32
    assert decode("dmesg-efi-179540752201001", DUMP).boot_key is None


@pytest.mark.parametrize("kind", sorted(damage.DAMAGES))
@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("algorithm", [None, "deflate", "zstd", "lz4", "lzo", "842"])
def test_damaged_records_never_raise(kind: str, backend: str, algorithm: str | None) -> None:
    """Flipped, cut, zeroed, beheaded: a record comes back, and a packed one whose text differs says so."""
    settings = Options(
        backend=backend, era=kernels.ERAS[kernels.default_era(backend)], algorithm=algorithm, damage=(kind,) * 3
    )
    for shown in machine.run(SCENARIOS["oops-panic"], settings).records:
        record = decode(shown.name, shown.data, mtime_ns=shown.mtime_ns)
        assert record.name == shown.name
        if "damaged" not in shown.what:
            assert record.damage == ()
        assert record.text is not None or record.damage or record.notes


@given(
    st.sampled_from(["dmesg", "console", "pmsg", "ftrace", "mce", "rtas", "unknown"]),
    st.sampled_from(["ramoops", "efi", "erst", "pstore_blk", "nvram", "x"]),
    st.none() | st.integers(0, 2**64 - 1),
    st.sampled_from(["", ".enc.z"]),
    st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: DUMP + b) | st.binary(max_size=60).map(deflate),
    st.integers(0, 2**63 - 1),
)
def test_any_record_is_decoded(
    kind: str, backend: str, record_id: int | None, suffix: str, data: bytes, mtime_ns: int
) -> None:
    """Nothing raises, whatever name and bytes; what is not understood is said."""
    name = f"{kind}-{backend}" + ("" if record_id is None else f"-{record_id}") + suffix
    record = decode(name, data, mtime_ns=mtime_ns)
    assert record.name == name
    assert record.size == len(data)
    assert record.text is not None or record.damage or record.notes


@given(st.text(max_size=60), st.binary(max_size=100))
def test_any_name_is_taken(name: str, data: bytes) -> None:
    """Names are not trusted either."""
    assert decode(name, data).name == name


def test_the_log_of_a_running_kernel_is_taken_as_it_is() -> None:
    """No header is missed, and what programs say in other scripts does not make it packed."""
    data = "<30>[    1.000000] systemd[1]: Größe geändert\n<4>[    2.000000] x\x1b\n".encode()
    record = decode("dmesg-kmsg-0", data, mtime_ns=7)
    assert (record.text, record.header, record.damage, record.notes) == (data, None, (), ())
    assert (record.type, record.backend, record.time_ns) == ("dmesg", "kmsg", 7)
