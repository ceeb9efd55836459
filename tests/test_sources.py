# SPDX-License-Identifier: Apache-2.0
"""Files and devices as sources: packed, cut, endless, unreadable."""

import bz2
import gzip
import hashlib
import lzma
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.errors import StoreError
from pstored.intake.sources import MAX_DIGEST, MAX_IN_MEMORY, MAX_UNSIZED, Opened, open_source
from tests.conftest import REPOSITORY, can_mount, forked, require
from tests.fuse_pstore import FuseFile, fuse_store

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
TEXT = b"".join(b"[%5d.000000] line\n" % n for n in range(20_000))


def said(opened: Opened) -> list[str]:
    """Its remarks."""
    return [remark.text for remark in opened.remarks]


def opened(path: Path, data: bytes) -> Opened:
    """A file with these bytes."""
    path.write_bytes(data)
    return open_source(str(path))


@pytest.mark.parametrize("word", PACKERS)
@pytest.mark.parametrize("data", [b"", b"x", TEXT, bytes(3 << 20) + TEXT * 10 + bytes(2 << 20)])
def test_packed_files_are_unpacked(word: str, data: bytes, tmp_path: Path) -> None:
    """Whole, from any place; zeros on the disk are holes; digest and size are the file's as it lies there."""
    packed = PACKERS[word](data)
    source = opened(tmp_path / "x", packed)
    assert (source.size, source.read(0, len(data) + 9)) == (len(data), data)
    assert source.read(len(data) // 2, 100) == data[len(data) // 2 :][:100]
    assert said(source) == [f"unpacked by {word}"]
    assert source.facts() == {
        "path": str(tmp_path / "x"),
        "size": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    source.close()


@pytest.mark.parametrize("word", PACKERS)
def test_several_packed_in_a_row_are_one(word: str, tmp_path: Path) -> None:
    """As the tools do it; what else stands behind is left alone."""
    source = opened(tmp_path / "x", PACKERS[word](b"one ") + PACKERS[word](b"two") + bytes(8))
    assert source.read(0, 99) == b"one two"
    source.close()


@pytest.mark.parametrize("word", PACKERS)
def test_what_stands_before_the_damage_is_used(word: str, tmp_path: Path) -> None:
    """Cut, or with other bytes in it: said."""
    packed = PACKERS[word](os.urandom(1 << 20) + TEXT)
    cut = opened(tmp_path / "cut", packed[:-10])
    assert cut.remarks[-1].is_damage
    assert "has no end: it was cut" in said(cut)[-1]
    broken = opened(tmp_path / "broken", packed[:-5000] + bytes(4000) + packed[-1000:])
    assert "is damaged" in said(broken)[-1]
    for source in (cut, broken):
        assert source.size <= len(TEXT) + (1 << 20)
        source.close()
    if word != "bzip2":  # which gives blocks of 900 kB, or nothing
        assert cut.size > 0


@given(st.binary(max_size=200), st.sampled_from([b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"BZh9", b""]))
def test_any_bytes_can_be_opened(data: bytes, magic: bytes) -> None:
    """Whatever they seem to be."""
    path = Path(f"/tmp/pstored-test-{os.getpid()}")
    source = opened(path, magic + data)
    source.read(0, 100)
    source.close()
    path.unlink()


def test_a_plain_file_is_itself(tmp_path: Path) -> None:
    """Read in pieces, from any place, and no further than it goes."""
    source = opened(tmp_path / "x", TEXT)
    assert (source.size, source.name, said(source)) == (len(TEXT), str(tmp_path / "x"), [])
    assert source.read(300_000, 200_000) == TEXT[300_000:]
    assert source.read(-5, 5) == TEXT[:5]
    assert source.read(1 << 70, 5) == b""
    source.close()


def test_standard_input_is_read_whole(tmp_path: Path) -> None:
    """Packed or not, whatever its length."""
    code = (
        "from pstored.intake.sources import open_source\n"
        "s = open_source('-')\n"
        "print(s.size, s.read(s.size - 5, 5), s.facts()['path'], [r.text for r in s.remarks])"
    )
    for data in (TEXT * 20, gzip.compress(TEXT * 20)):
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=REPOSITORY, check=True)
        assert done.stdout.decode().startswith(f"{len(TEXT) * 20} b'line\\n' None")
    assert len(TEXT) * 20 > MAX_IN_MEMORY


def test_devices(tmp_path: Path) -> None:
    """One without an end, with an end that is said, and an empty one."""
    zero = open_source("/dev/zero")
    assert (zero.size, zero.read(MAX_UNSIZED - 3, 9)) == (MAX_UNSIZED, bytes(3))
    assert zero.remarks[-1].is_damage
    zero.close()
    said_so = open_source("/dev/zero", 1 << 40)
    assert said_so.size == 1 << 40
    said_so.close()
    null = open_source("/dev/null")
    assert null.size == 0
    null.close()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """Said, and not waited for."""
    os.mkfifo(tmp_path / "fifo")
    for path, why in ((tmp_path / "no", "there is no"), (tmp_path / "fifo", "neither"), (tmp_path, "neither")):
        with pytest.raises(StoreError, match=why):
            open_source(str(path))


def test_what_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    """A disk that fails: what there is, and why there is no more."""
    require(can_mount() and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")

    def child() -> tuple[int, str | None, str | None]:
        with fuse_store(tmp_path, {b"image": FuseFile(data=TEXT, fails_after=8192)}):
            source = open_source(str(tmp_path / "image"))
            return len(source.read(0, len(TEXT))), source.problem, source.sha256()

    size, problem, digest = forked(child, new_mounts=True)
    assert size <= 8192
    assert problem is not None
    assert "Input/output error" in problem
    assert digest is None


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """What is left of it is given, and that some is not is said."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with closing(open_source(str(path))) as opened:
        os.truncate(path, 1000)
        assert opened.read(900, 200) == b"x" * 100
        assert opened.problem == "ends at byte 1000, and had 5000 when it was opened"
    with closing(open_source(str(path))) as opened:
        assert opened.read(900, 200) == b"x" * 100, "that is all there is"
        assert opened.problem is None


def test_memory_is_bounded(tmp_path: Path) -> None:
    """4 GiB of holes, a xz of 2 GiB of zeros, and a header that asks for 1.5 GiB, in 300 MiB of address space."""
    holes = tmp_path / "holes"
    with open(holes, "wb") as f:
        f.truncate(4 << 30)
    bomb = tmp_path / "bomb.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as packed:
        for _ in range(64):
            packed.write(bytes(8 << 20))
    greedy = tmp_path / "greedy.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(TEXT, filters=filters, check=lzma.CHECK_NONE))
    at = data.index(b"\x21\x01") + 2
    data[at] = 38  # 1.5 GiB
    data[20:24] = __import__("zlib").crc32(bytes(data[12:20])).to_bytes(4, "little")
    greedy.write_bytes(data)

    def child() -> list[tuple[int, int, list[str], bool]]:
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
        found = []
        for path in (holes, bomb, greedy):
            source = open_source(str(path))
            tail = source.read(max(0, source.size - 10), 10)
            found.append((source.size, len(tail), said(source), source.sha256() is None))
            source.close()
        return found

    large, unpacked, refused = forked(child)
    assert large == (4 << 30, 10, [], MAX_DIGEST < (4 << 30))
    assert unpacked == (512 << 20, 10, ["unpacked by gzip"], False)
    assert refused[0] == 0
    assert "is damaged" in refused[2][-1]
