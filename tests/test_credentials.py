# SPDX-License-Identifier: Apache-2.0
"""Secrets: where they may be, and who may be able to read them."""

import os
from pathlib import Path

import pytest

from pstored.delivery.credentials import MAX_SECRET, read_headers, read_secret
from pstored.errors import SinkError
from tests.conftest import require


def write(path: Path, data: bytes, mode: int = 0o640) -> str:
    """A file with a secret."""
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def test_a_path_or_a_credential(tmp_path: Path) -> None:
    """With a slash it is a path, without the name of a credential; without its newline."""
    path = write(tmp_path / "token", b"s3cret\n")
    assert read_secret(path, {}) == "s3cret"
    assert read_secret("token", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "s3cret"
    with pytest.raises(SinkError) as caught:
        read_secret("token", {})
    assert caught.value.hint is not None
    assert "LoadCredential=token:" in caught.value.hint


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o666])
def test_what_others_may_read_or_write_is_no_secret(tmp_path: Path, mode: int) -> None:
    """Refused, and the secret itself is not repeated."""
    path = write(tmp_path / "token", b"s3cret", mode)
    with pytest.raises(SinkError) as caught:
        read_secret(path, {})
    assert f"mode {mode:04o}: not used" in str(caught.value)
    assert "s3cret" not in str(caught.value) + str(caught.value.hint)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_what_the_group_may_read_is(tmp_path: Path, mode: int) -> None:
    """root:pstored 0640 is how a file is given to the service."""
    assert read_secret(write(tmp_path / "token", b"x", mode), {}) == "x"


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Who owns it can change it."""
    require(os.geteuid() == 0, "root, to give a file away")
    path = write(tmp_path / "token", b"x", 0o600)
    os.chown(path, 12345, 0)
    with pytest.raises(SinkError, match="belongs to user 12345"):
        read_secret(path, {})


def test_files_that_are_none(tmp_path: Path) -> None:
    """Not there, a directory, a pipe, too long, no text: said, at once."""
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "long", b"x" * (MAX_SECRET + 1))
    write(tmp_path / "binary", b"\xff")
    for name, why in (
        ("none", "No such file"),
        (".", "not a plain file|directory"),
        ("pipe", "not a plain file"),
        ("long", "more than"),
        ("binary", "no text"),
    ):
        with pytest.raises(SinkError, match=why):
            read_secret(str(tmp_path / name), {})


def test_headers(tmp_path: Path) -> None:
    """A line each; comments and empty lines are none; anything else is said with its line."""
    path = write(tmp_path / "h", b"# ours\nAuthorization: Basic eDp5\n\nX-Scope-OrgID:team: a\n")
    assert read_headers(path, {}) == {"Authorization": "Basic eDp5", "X-Scope-OrgID": "team: a"}
    for bad in (b"nothing\n", b": x\n", b"A: b\x00\n"):
        with pytest.raises(SinkError, match="line 1: not a header"):
            read_headers(write(tmp_path / "bad", bad), {})
