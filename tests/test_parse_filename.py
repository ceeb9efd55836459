# SPDX-License-Identifier: Apache-2.0
"""File names in pstorefs: as every backend and kernel forms them, and what no kernel forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture, names
from pstored.parse.filename import (
    MAX_NAME,
    TYPES,
    EfiId,
    RecordName,
    erst_boot_key,
    split_efi_id,
    split_record_name,
)

NAMES = [
    ("dmesg-ramoops-0", RecordName("dmesg", "ramoops", 0, False)),
    ("dmesg-ramoops-12", RecordName("dmesg", "ramoops", 12, False)),
    ("dmesg-ramoops-0.enc.z", RecordName("dmesg", "ramoops", 0, True)),
    ("console-ramoops-0", RecordName("console", "ramoops", 0, False)),
    ("console-ramoops", RecordName("console", "ramoops", None, False)),
    ("ftrace-ramoops", RecordName("ftrace", "ramoops", None, False)),
    ("pmsg-ramoops-0", RecordName("pmsg", "ramoops", 0, False)),
    ("dmesg-efi-179540752201001", RecordName("dmesg", "efi", 179540752201001, False)),
    ("dmesg-efi_pstore-179540752201001", RecordName("dmesg", "efi_pstore", 179540752201001, False)),
    ("dmesg-efi-179540752201001.enc.z", RecordName("dmesg", "efi", 179540752201001, True)),
    ("mce-erst-7711216860565340163", RecordName("mce", "erst", 7711216860565340163, False)),
    ("unknown-erst-7711216860565340163", RecordName("unknown", "erst", 7711216860565340163, False)),
    ("dmesg-erst-18446744073709551615", RecordName("dmesg", "erst", 2**64 - 1, False)),
    ("dmesg-pstore_blk-1", RecordName("dmesg", "pstore_blk", 1, False)),
    ("dmesg-nvram-42", RecordName("dmesg", "nvram", 42, False)),
    ("rtas-nvram-7", RecordName("rtas", "nvram", 7, False)),
    ("powerpc-ofw-nvram-5", RecordName("powerpc-ofw", "nvram", 5, False)),
    ("powerpc-common-nvram-6", RecordName("powerpc-common", "nvram", 6, False)),
    ("powerpc-opal-nvram-8", RecordName("powerpc-opal", "nvram", 8, False)),
    ("type255-erst-3", RecordName("type255", "erst", 3, False)),
    ("annotate-ramoops-0", RecordName("annotate", "ramoops", 0, False)),
    ("boot-log-ramoops-0", RecordName("boot-log", "ramoops", 0, False)),
]


@pytest.mark.parametrize(("name", "expected"), NAMES, ids=[name for name, _ in NAMES])
def test_the_names_that_kernels_form_are_split(name: str, expected: RecordName) -> None:
    """Type, backend, id and compression of every form that is known, from the right."""
    assert split_record_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "",
        "dmesg",
        "-ramoops-0",
        "dmesg--0",
        "dmesg-ramoops-",
        "dmesg-ramoops--1",
        "dmesg-ramoops-0.enc",
        "dmesg-ramoops-0.enc.z.enc.z",
        "dmesg-ramoops-0\n",
        "dmesg-ramoops-0/../x",
        "dmesg-ramoops-\u0661",
        "DMESG-ramoops-0",
        ".dmesg-ramoops-0",
        "dmesg ramoops 0",
        "dmesg-ramoops-0\udcff",
        "dmesg-" + "r" * MAX_NAME,
        "dmesg-ramoops-" + "9" * 21,
    ],
)
def test_what_is_no_record_name_is_none(name: str) -> None:
    """No guess is made: not for odd digits, not for a newline at the end, not for what is too long."""
    assert split_record_name(name) is None


@pytest.mark.parametrize("name", capture.names())
def test_every_captured_name_is_of_its_backend(name: str) -> None:
    """Real names split into a type the kernel has and the capture's backend."""
    loaded = capture.load(name)
    for filename in [*loaded.files, *loaded.truth_files]:
        split = split_record_name(filename)
        assert split is not None
        assert split.type in TYPES
        assert split.backend == loaded.backend


@given(
    st.sampled_from(sorted(TYPES)),
    st.sampled_from(["ramoops", "efi", "efi_pstore", "erst", "pstore_blk", "nvram"]),
    st.none() | st.integers(0, 2**64 - 1),
    st.booleans(),
)
def test_names_round_trip(kind: str, backend: str, record_id: int | None, compressed: bool) -> None:
    """What a kernel puts into a name comes out of it."""
    name = names.record_name(kind, backend, record_id, compressed=compressed)
    assert split_record_name(name) == RecordName(kind, backend, record_id, compressed)


@given(st.text(max_size=400))
def test_any_text_gives_a_name_or_none(text: str) -> None:
    """No name raises; one that is split has been understood whole."""
    split = split_record_name(text)
    if split is not None:
        number = "" if split.id is None else text.removesuffix(".enc.z").rpartition("-")[2]
        parts = [split.type, split.backend, *([number] if number else [])]
        assert "-".join(parts) + (".enc.z" if split.compressed else "") == text


@pytest.mark.parametrize(
    ("record_id", "expected"),
    [
        (179540752201001, EfiId(1795407522, 1, 1)),
        (179540753816002, EfiId(1795407538, 16, 2)),
        (100_000, EfiId(1, 0, 0)),
        # part 101 runs over into the seconds: the header inside has the last word
        ((1795407522 * 100 + 101) * 1000 + 1, EfiId(1795407523, 1, 1)),
        (99_999, None),
        (14, None),
        (0, None),
    ],
)
def test_the_id_of_an_efi_record_is_taken_apart(record_id: int, expected: EfiId | None) -> None:
    """Seconds, part and count since Linux 3.12; the bare part numbers before that say nothing else."""
    assert split_efi_id(record_id) == expected


@given(st.integers(1, 2**33), st.integers(0, 99), st.integers(0, 999))
def test_efi_ids_round_trip(seconds: int, part: int, count: int) -> None:
    """Below part 100 and count 1000 nothing is lost."""
    assert split_efi_id(names.efi_id(seconds, part, count)) == EfiId(seconds, part, count)


@given(st.integers(1, 2**39 - 1), st.integers(1, 2**20))
def test_erst_ids_of_one_boot_have_one_key(first: int, number: int) -> None:
    """The key is the time of the boot's first record: before 2038, and in the other layout after it."""
    assert erst_boot_key(names.erst_id(first, number)) == first


@pytest.mark.parametrize(("record_id", "key"), [(0x6B03BFC500000004, 0x6B03BFC5), (3, None), (0, None)])
def test_an_id_without_a_time_has_no_boot_key(record_id: int, key: int | None) -> None:
    """Zero is no boot: an id that other firmware gave must not tie records together."""
    assert erst_boot_key(record_id) == key
