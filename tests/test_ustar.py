# SPDX-License-Identifier: Apache-2.0
"""Headers of tars, against Python's own tarfile: byte for byte what it writes, and what it reads."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.ustar import END, decimal_seconds, member_header, padding

RAW_NAMES = st.binary(min_size=1, max_size=255).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))


def theirs(name: str, size: int, mtime_ns: int) -> bytes:
    """The same by tarfile."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    info.mtime = mtime_ns // 1_000_000_000
    if mtime_ns % 1_000_000_000:
        info.pax_headers = {"mtime": decimal_seconds(mtime_ns)}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@given(
    RAW_NAMES.map(lambda raw: raw.decode(errors="surrogateescape")) | st.just("dmesg-efi_pstore-179540752201001"),
    st.integers(0, 1 << 40),
    st.integers(-(1 << 63), 1 << 66),
)
def test_a_header_is_tarfiles(name: str, size: int, mtime_ns: int) -> None:
    """Whatever the name's bytes, the size and the time."""
    assert member_header(name, size, mtime_ns) == theirs(name, size, mtime_ns)


@pytest.mark.parametrize("mtime_ns", [0, 1, -1, 1_795_407_522_000_000_001, 10**18, 8**11 * 10**9, -5 * 10**9])
@pytest.mark.parametrize("name", ["dmesg-ramoops-0", "x" * 100, "x" * 101, "Ω" * 60, "\udcff\udc80", "a\nb=c"])
def test_tarfile_reads_it(name: str, mtime_ns: int) -> None:
    """Name, size, time and bytes come back."""
    data = b"last words\n"
    tar = member_header(name, len(data), mtime_ns) + data + padding(len(data)) + END
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as read:
        (member,) = read.getmembers()
        file = read.extractfile(member)
        assert file is not None
        assert file.read() == data
    assert member.name == name
    assert abs(member.mtime * 10**9 - mtime_ns) <= max(1000, abs(mtime_ns) >> 50)
    if mtime_ns % 10**9:
        assert member.pax_headers["mtime"] == decimal_seconds(mtime_ns)
