# SPDX-License-Identifier: Apache-2.0
"""The store as a directory: listing, reading to the end, digests, erasing."""

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pstored.errors import StoreError
from pstored.parse.ecc import split_ecc_notice
from pstored.store import CHUNK, Digest, RecordReadError, Store, record_key
from tests.conftest import can_mount, forked, require
from tests.fuse_pstore import FuseFile, fuse_store

NOTICES = (b"\nECC: No errors detected\n", b"\n12 Corrected bytes, 3 unrecoverable blocks\n")


def test_names_are_sorted_and_a_missing_store_is_empty(tmp_path: Path) -> None:
    """No pstore in the kernel is no error."""
    for name in ("b", "a", ".c"):
        (tmp_path / name).write_bytes(b"")
    assert Store(str(tmp_path)).names() == [".c", "a", "b"]
    assert Store(str(tmp_path / "none")).names() == []


def test_store_that_is_a_file(tmp_path: Path) -> None:
    """Something else in its place: said, exit 1."""
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        Store(str(tmp_path / "f")).names()
    assert caught.value.exit_status == 1


def test_reads_whole_and_in_pieces(tmp_path: Path) -> None:
    """All bytes, whatever the length."""
    for size in (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7):
        data = os.urandom(size)
        (tmp_path / "r").write_bytes(data)
        pieces = list(Store(str(tmp_path)).read("r"))
        assert b"".join(pieces) == data
        assert all(len(piece) <= CHUNK for piece in pieces)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: os.symlink("/etc/passwd", path), "symbolic link"),
        (lambda path: os.mkfifo(path), "not a plain file"),
        (lambda path: os.mkdir(path), "not a plain file"),
        (Path, "vanished"),
    ],
)
def test_what_is_no_record(tmp_path: Path, make: Any, why: str) -> None:
    """Not followed, not waited for; said."""
    make(tmp_path / "r")
    with pytest.raises(RecordReadError, match=why) as caught:
        Store(str(tmp_path)).digest("r")
    assert caught.value.vanished is (why == "vanished")


def test_reading_that_fails_at_once_or_later(tmp_path: Path) -> None:
    """EIO at the first byte raises; later, what was read is digested and the error is in it."""
    require(can_mount() and os.path.exists("/dev/fuse"), "needs root and /dev/fuse")
    files = {
        b"at-once": FuseFile(data=b"x" * 9000, fails_after=0),
        b"later": FuseFile(data=b"x" * 9000, fails_after=5000),
        b"closed": FuseFile(data=b"x", open_error=errno.EACCES),
    }

    def child() -> list[Any]:
        with fuse_store(tmp_path, files):
            store = Store(str(tmp_path))
            said = []
            for name in ("at-once", "closed"):
                try:
                    store.digest(name)
                except RecordReadError as e:
                    said.append((str(e), e.vanished))
            pieces: list[bytes] = []
            digest = store.digest("later", sink=pieces.append)
            return [*said, (digest.size, digest.error, digest.sha256(), b"".join(pieces))]

    at_once, closed, later = forked(child, new_mounts=True)
    assert at_once == ("cannot be read: Input/output error", False)
    assert closed == ("cannot be opened: Permission denied", False)
    assert later == (
        5000,
        "cannot be read: Input/output error, after 5000 bytes",
        hashlib.sha256(b"x" * 5000).hexdigest(),
        b"x" * 5000,
    )


@given(
    content=st.binary(max_size=300),
    notice=st.sampled_from((b"", *NOTICES)),
    cuts=st.lists(st.integers(min_value=1, max_value=40), max_size=20),
)
@example(content=bytes(range(250)), notice=NOTICES[0], cuts=[100, 100])
@example(content=bytes(range(256)) * 400, notice=NOTICES[1], cuts=[70_000, 1, 30_000])
def test_digest_however_the_pieces_fall(content: bytes, notice: bytes, cuts: list[int]) -> None:
    """The digests depend on the bytes only; that of the content is without the notice."""
    record = content + notice
    digest = Digest()
    rest = record
    for cut in cuts:
        digest.update(rest[:cut])
        rest = rest[cut:]
    digest.update(rest)
    assert digest.size == len(record)
    assert digest.sha256() == hashlib.sha256(record).hexdigest()
    assert digest.content_sha256() == hashlib.sha256(split_ecc_notice(record)[0]).hexdigest()
    assert digest.content_sha256() == digest.content_sha256()


def test_key_goes_by_type_backend_and_content() -> None:
    """Not by the id, which comes again; a record read in part is another than the whole; an unknown name is itself."""
    digest = Digest()
    digest.update(b"abc" + NOTICES[0])
    content = hashlib.sha256(b"abc").hexdigest()
    assert record_key("dmesg-ramoops-0", digest) == record_key("dmesg-ramoops-1", digest) == f"dmesg-ramoops:{content}"
    assert record_key("dmesg-efi-0", digest) == f"dmesg-efi:{content}"
    assert record_key("what?", digest) == f"what?:{content}"
    digest.error = "cannot be read"
    assert record_key("dmesg-efi-0", digest) == f"dmesg-efi:{content}:partial"


def test_erase_unlinks_the_name_itself(tmp_path: Path) -> None:
    """A link goes, its target stays; what is not there says so."""
    (tmp_path / "target").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    store = Store(str(tmp_path))
    store.erase("link")
    assert store.names() == ["target"]
    with pytest.raises(FileNotFoundError):
        store.erase("link")
