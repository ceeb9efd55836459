# SPDX-License-Identifier: Apache-2.0
"""Crash variables of EFI: what is behind real records, and names of all times."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture
from fake_pstore.efivars import GUID, write_variables
from tests.readers import kind_of, read

TEXT = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"
ATTRIBUTES = b"\x07\0\0\0"


@pytest.mark.parametrize("packed", [True, False])
def test_variables_give_the_records_of_pstorefs(packed: bool, tmp_path: Path) -> None:
    """Ids, times and texts; but the backend has another name since 6.2."""
    records = list(capture.load("x86_64-6.1deb-efi").records())
    for path in write_variables(tmp_path, ((n, d) for n, d, _ in records), packed=packed):
        data = path.read_bytes()
        assert kind_of(data, str(path)) == "efi"
        (found,) = read("efi", data, str(path))[0]
        wanted = {n.replace("-efi-", "-efi_pstore-"): (d, t) for n, d, t in records}
        assert (found.data, found.mtime_ns) == wanted[found.name]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("dump-type0-3-2-1795407522-D", 179540752203002),
        ("dump-type0-3-2-1795407522", 179540752203002),
        ("dump-type0-3-1795407522", 3),
    ],
)
def test_names_of_all_times(name: str, number: int) -> None:
    """With a letter, without, and without a count."""
    (found,) = read("efi", ATTRIBUTES + TEXT, f"{name}-{GUID}")[0]
    assert (found.name, found.data) == (f"dmesg-efi_pstore-{number}", TEXT)
    assert found.mtime_ns == 1_795_407_522 * 10**9


def test_a_name_alone_is_no_proof() -> None:
    """Nor is a dump without one."""
    name = f"dump-type0-1-1-1795407522-D-{GUID}"
    assert kind_of(ATTRIBUTES + b"\0 no dump", name) != "efi"
    assert kind_of(b"\x06\0\0\0" + TEXT, name) != "efi"
    assert kind_of(ATTRIBUTES + TEXT, "Boot0001-8be4df61-93ca-11d2-aa0d-00e098032b8c") != "efi"
    records, remarks = read("efi", ATTRIBUTES + TEXT, "other")
    assert (records, remarks[0].is_damage) == ([], True)


@given(st.binary(max_size=100), st.sampled_from("CD"))
def test_any_bytes_are_survived(data: bytes, letter: str) -> None:
    """A part that is damaged is shown packed."""
    (found,) = read("efi", data, f"dump-type0-1-1-1795407522-{letter}-{GUID}")[0]
    assert found.data == data[4:] or letter == "C"
