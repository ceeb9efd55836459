# SPDX-License-Identifier: Apache-2.0
"""Our JSON files: what is damaged, what is not there, and what cannot be read now are three things."""

import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.documents import MAX_JSON, dump_json, is_sealed, load_json, recall, seal, to_json
from pstored.errors import ArchiveError, DiskError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """A round trip; bytes of a name that are no UTF-8 come back as they were."""
    document = {"a": [1, "\udcff"], "b": None}
    (tmp_path / "x").write_bytes(dump_json(document))
    assert load_json(str(tmp_path / "x")) == recall(str(tmp_path / "x")) == document


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_damage_is_nothing_to_remember(tmp_path: Path, data: bytes) -> None:
    """It stays so, and is no failure of the disk."""
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ArchiveError, match="x") as caught:
        load_json(str(tmp_path / "x"))
    assert not isinstance(caught.value, DiskError)
    assert recall(str(tmp_path / "x")) == {}


def test_what_is_not_there_is_nothing_to_remember(tmp_path: Path) -> None:
    """Nor where a file stands in the way."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "x", tmp_path / "file/x"):
        with pytest.raises(ArchiveError, match="there is no") as caught:
            load_json(str(path))
        assert not isinstance(caught.value, DiskError)
        assert recall(str(path)) == {}


def test_what_cannot_be_read_now_is_not_forgotten(tmp_path: Path) -> None:
    """Else it would be written anew without it."""
    (tmp_path / "x").mkdir()
    for read in (load_json, recall):
        with pytest.raises(DiskError, match="Is a directory"):
            read(str(tmp_path / "x"))


def test_what_is_too_large_is_not_ours(tmp_path: Path) -> None:
    """And is not taken into memory."""
    with (tmp_path / "x").open("wb") as f:
        f.truncate(MAX_JSON + 1)
    with pytest.raises(ArchiveError, match="JSON object"):
        load_json(str(tmp_path / "x"))


def test_seal_notices_every_change() -> None:
    """Of a value, of a key, of what is missing."""
    sealed = seal({"a": 1, "b": {"c": 2}})
    assert is_sealed(sealed)
    assert not is_sealed(sealed | {"a": 2})
    assert not is_sealed(sealed | {"d": 1})
    assert not is_sealed({k: v for k, v in sealed.items() if k != "a"})
    assert not is_sealed({})


def test_only_plain_files_are_ours(tmp_path: Path) -> None:
    """No link is followed, no pipe waited for: then there is none."""
    (tmp_path / "there").write_bytes(b'{"a": 1}')
    (tmp_path / "link").symlink_to(tmp_path / "there")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for name in ("link", "pipe", "socket"):
        with pytest.raises(ArchiveError, match="it is no plain file, so it is none of ours"):
            load_json(str(tmp_path / name))
        assert recall(str(tmp_path / name)) == {}
    assert recall(str(tmp_path / "there")) == {"a": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(['"', "\\", "a\nb", "\x7f"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_json_is_written_as_the_library_writes_it(value: object) -> None:
    """To the byte: digests were made of it."""
    assert to_json(value) == json.dumps(value, indent=2)
    assert to_json(value, compact=True) == json.dumps(value, sort_keys=True, separators=(",", ":"))
