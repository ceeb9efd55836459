# SPDX-License-Identifier: Apache-2.0
"""Tars of records: as people pack them, with all that is in the way, and damaged."""

import io
import lzma
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture
from tests.conftest import MakeRoot, Pstored
from tests.readers import kind_of, read

NS = 1_795_000_000_123_456_789


def packed(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT, mtime: str | None = None) -> bytes:
    """A tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), NS // 10**9
            if mtime is not None:
                info.pax_headers = {"mtime": mtime}
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_records_by_their_names(form: int) -> None:
    """In whatever directory; the rest is named."""
    tar = packed(
        ("pstore/", b""),
        ("pstore/dmesg-ramoops-0", b"text"),
        ("./1795407522/001/dmesg-efi_pstore-179540752201001.enc.z", b"packed"),
        ("holiday.jpeg", b"\xff\xd8"),
        ("x" * 150 + "/console-ramoops-0" if form != tarfile.USTAR_FORMAT else "x/console-ramoops-0", b"log"),
        form=form,
    )
    assert kind_of(tar) == "tar"
    records, remarks = read("tar", tar)
    assert [(r.name, r.data, r.mtime_ns) for r in records] == [
        ("dmesg-ramoops-0", b"text", NS // 10**9 * 10**9),
        ("dmesg-efi_pstore-179540752201001.enc.z", b"packed", NS // 10**9 * 10**9),
        ("console-ramoops-0", b"log", NS // 10**9 * 10**9),
    ]
    assert "holiday.jpeg" in remarks[0].text


def test_times_are_exact_where_the_tar_is() -> None:
    """A pax header has a decimal, which no float can be."""
    ((record,), _) = read("tar", packed(("dmesg-erst-7", b"x"), mtime="1795000000.123456789"))
    assert record.mtime_ns == NS
    for wrong in ("nan", "x", "1e999999999", "-5"):
        records, remarks = read("tar", packed(("dmesg-erst-7", b"x"), mtime=wrong))
        assert [r.mtime_ns for r in records] == [0] or remarks


@pytest.mark.parametrize("name", ["lab-erst", "lab-efi-twoboots", "x86_64-6.1-ramoops-all", "lab-enc-zstd"])
def test_a_real_tar_is_what_the_store_was(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """After the collect of the same store, nothing of it is new."""
    made = root(name)
    assert pstored("collect", root=made).status in (0, 1)
    path = capture.load(name).directory / "pstore.tar.xz"
    done = pstored("import", "--json", str(path), root=made)
    (imported,) = done.json["imports"]
    assert (imported["kind"], imported["archived"], done.status) == ("tar", [], 0)
    assert imported["known"] == len(capture.load(name).files)


def test_a_tar_without_a_record_is_none() -> None:
    """Whatever else is in it."""
    assert kind_of(packed(("notes", b"x"), ("vendor-thing-7", b"x"))) != "tar"


def test_a_tar_that_is_cut_gives_what_it_has() -> None:
    """At any place; and what of a record is missing is said."""
    tar = packed(("dmesg-ramoops-0", b"a" * 700), ("dmesg-ramoops-1", b"b" * 700))
    for size in range(0, len(tar), 100):
        records, remarks = read("tar", tar[:size])
        assert all(len(r.data) == 700 or r.damage for r in records)
        assert len(records) == 2 or size < 3200 or remarks


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_any_bytes_are_survived(data: bytes, at: int) -> None:
    """Alone, and over a tar."""
    tar = packed(("dmesg-ramoops-0", b"a" * 700), ("dmesg-ramoops-1", b"b" * 700))
    for source in (data, lzma.compress(data)[:50], tar[:at] + data + tar[at + len(data) :]):
        kind_of(source)
        read("tar", source)
