# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, with the archive's modes, and in an order that a power cut cannot harm."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pstored import durable, steps
from pstored.errors import ArchiveError, DiskError
from tests.conftest import can_mount, forked, mount, require


def steps_of(action: Callable[[], object], base: Path) -> list[str]:
    """The steps of *action*, in order, with paths relative to *base*."""

    def child() -> list[str]:
        seen: list[str] = []
        steps.hook = seen.append
        action()
        return [step.replace(f"{base}/", "") for step in seen]

    return forked(child)


def test_replace_files_order_and_content(tmp_path: Path) -> None:
    """Each file is written and flushed in the scratch directory, then renamed; the names are flushed once."""
    (tmp_path / "d").mkdir()
    (tmp_path / "s").mkdir()
    (tmp_path / "d/b").write_bytes(b"old")
    files = {"a": b"1", "b": b"22"}
    directory, scratch = str(tmp_path / "d"), str(tmp_path / "s")
    seen = steps_of(lambda: durable.replace_files(directory, files, scratch=scratch), tmp_path)
    assert seen == [
        "create s/.new-a",
        "write s/.new-a",
        "fsync s/.new-a",
        "rename d/a",
        "create s/.new-b",
        "write s/.new-b",
        "fsync s/.new-b",
        "rename d/b",
        "fsync d",
    ]
    assert not list((tmp_path / "s").iterdir())
    assert {p.name: p.read_bytes() for p in (tmp_path / "d").iterdir()} == {"a": b"1", "b": b"22"}


def test_replace_files_that_may_be_lost(tmp_path: Path) -> None:
    """No flush at all; a killed run leaves no half all the same."""
    where = str(tmp_path)
    seen = steps_of(lambda: durable.replace_files(where, {"a": b"1"}, scratch=where, durably=False), tmp_path)
    assert seen == ["create .new-a", "write .new-a", "rename a"]


def test_replace_files_takes_the_place_of_a_link(tmp_path: Path) -> None:
    """A link of that name is replaced, not followed; nor is one under the temporary name."""
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    (tmp_path / "a").symlink_to(target)
    (tmp_path / ".new-a").symlink_to(target)
    durable.replace_files(str(tmp_path), {"a": b"mine"}, scratch=str(tmp_path))
    assert target.read_bytes() == b"untouched"
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("umask", [0, 0o27, 0o777])
def test_all_of_the_archive_is_its_group_s(tmp_path: Path, umask: int) -> None:
    """Below a directory with the set-group-id bit, as pstored.tmpfiles makes it, everything is of that group."""
    require(os.geteuid() == 0, "root, to give a directory to a group")
    os.chown(tmp_path, 0, 4711)
    tmp_path.chmod(0o2750)

    def child() -> None:
        os.umask(umask)
        durable.make_directory(str(tmp_path / "x/y"))
        durable.replace_files(str(tmp_path / "x/y"), {"a": b""}, scratch=str(tmp_path))

    forked(child)
    found = {p.name: (p.stat().st_gid, p.stat().st_mode & 0o7777) for p in tmp_path.rglob("*")}
    assert found == {"x": (4711, 0o2750), "y": (4711, 0o2750), "a": (4711, 0o640)}


@pytest.mark.parametrize("umask", [0, 0o777])
def test_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """0640 and 0750."""

    def child() -> None:
        os.umask(umask)
        durable.make_directory(str(tmp_path / "x/y"))
        durable.replace_files(str(tmp_path / "x/y"), {"a": b""}, scratch=str(tmp_path))
        durable.append_line(str(tmp_path / "x/y/log"), b"line\n")

    forked(child)
    modes = {p.name: p.stat().st_mode & 0o7777 for p in (tmp_path / "x").rglob("*")}
    assert modes == {"y": 0o750, "a": 0o640, "log": 0o640}
    assert (tmp_path / "x").stat().st_mode & 0o7777 == 0o750


def test_make_directory_makes_its_parents(tmp_path: Path) -> None:
    """From the top down, each name flushed; a second call does nothing."""
    seen = steps_of(lambda: durable.make_directory(str(tmp_path / "a/b")), tmp_path)
    assert seen == ["mkdir a", f"fsync {tmp_path}", "mkdir a/b", "fsync a"]
    assert steps_of(lambda: durable.make_directory(str(tmp_path / "a/b")), tmp_path) == []
    assert (tmp_path / "a/b").is_dir()


def test_commit_directory_order(tmp_path: Path) -> None:
    """The directory's names, then its own, then its parent's."""
    (tmp_path / ".new-x").mkdir()
    seen = steps_of(lambda: durable.commit_directory(str(tmp_path / ".new-x"), str(tmp_path / "x")), tmp_path)
    assert seen == ["fsync .new-x", "rename x", f"fsync {tmp_path}"]


def test_commit_directory_overwrites_nothing(tmp_path: Path) -> None:
    """A name that is taken by something with content is never taken over."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/precious").write_bytes(b"1")
    (tmp_path / ".new-x").mkdir()
    with pytest.raises(OSError) as caught:
        durable.commit_directory(str(tmp_path / ".new-x"), str(tmp_path / "x"))
    assert caught.value.errno in (errno.ENOTEMPTY, errno.EEXIST)
    assert (tmp_path / "x/precious").read_bytes() == b"1"


def test_litter_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Files and directories of killed runs go, also half-removed ones; the rest stays."""
    (tmp_path / ".new-a").write_bytes(b"1")
    (tmp_path / ".new-d").mkdir()
    (tmp_path / ".new-d/f").write_bytes(b"1")
    (tmp_path / ".new-link").symlink_to("/nowhere")
    (tmp_path / "new-a").write_bytes(b"1")
    (tmp_path / ".other").write_bytes(b"1")
    assert durable.remove_litter(str(tmp_path)) == 3
    assert sorted(os.listdir(tmp_path)) == [".other", "new-a"]
    assert durable.remove_litter(str(tmp_path / "not there")) == 0


def test_remove_tree_is_never_seen_half(tmp_path: Path) -> None:
    """It gets a temporary name first."""
    (tmp_path / "x").mkdir()
    for name in ("a", "b"):
        (tmp_path / "x" / name).write_bytes(b"1")
    seen = steps_of(lambda: durable.remove_tree(str(tmp_path / "x")), tmp_path)
    assert seen[0] == "rename .new-x"
    assert sorted(seen[1:]) == ["unlink .new-x/a", "unlink .new-x/b"]
    assert not list(tmp_path.iterdir())


def test_remove_tree_over_the_litter_of_the_same(tmp_path: Path) -> None:
    """A removal that was killed, and something of the same name since: it can still be removed."""
    for name in ("x", ".new-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"1")
    durable.remove_litter(str(tmp_path))
    durable.remove_tree(str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO])
def test_errors_say_what_where_why_and_what_to_do(number: int) -> None:
    """An OSError becomes an ArchiveError with a hint; exit status 73."""
    with pytest.raises(ArchiveError) as caught, durable.archive_errors("write to", "/some/where"):
        raise OSError(number, "x")
    assert str(caught.value) == f"cannot write to '/some/where': {os.strerror(number)}"
    assert caught.value.hint
    assert caught.value.exit_status == 73


def test_short_writes_are_continued(tmp_path: Path) -> None:
    """On a file system with room for half of it: an error, and no file of that name."""
    require(can_mount(), "mount namespaces need root")

    def child() -> list[Any]:
        mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path)
        try:
            durable.replace_files(str(tmp_path), {"a": bytes(1 << 20)}, scratch=str(tmp_path))
            said = "nothing"
        except ArchiveError as e:
            said = str(e)
        return [said, (tmp_path / "a").exists()]

    said, there = forked(child, new_mounts=True)
    assert "No space left on device" in said
    assert not there


def test_append_line_keeps_what_is_there(tmp_path: Path) -> None:
    """Lines are added at the end; a link is not followed."""
    path = tmp_path / "log"
    durable.append_line(str(path), b"1\n")
    durable.append_line(str(path), b"2\n")
    assert path.read_bytes() == b"1\n2\n"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError):
        durable.append_line(str(tmp_path / "link"), b"3\n")


# -- files of somebody else's


def test_sparse_copy_order_and_content(tmp_path: Path) -> None:
    """Written and flushed under a name that ends in nothing known, then renamed, and the name is flushed."""
    source, like, there = tmp_path / "source", tmp_path / "like", tmp_path / "there"
    there.mkdir()
    data = b"head" + bytes(300_000) + b"middle" + bytes(8192)
    source.write_bytes(data)
    like.write_bytes(b"")
    like.chmod(0o604)
    put = lambda: durable.put_sparse_copy(str(source), str(there), "x.journal", like=str(like))  # noqa: E731
    assert steps_of(put, tmp_path) == [
        "create there/.new-x.journal.part",
        "write there/.new-x.journal.part",
        "fsync there/.new-x.journal.part",
        "rename there/x.journal",
        "fsync there",
    ]
    (file,) = there.iterdir()
    assert file.read_bytes() == data
    assert file.stat().st_mode & 0o7777 == 0o604
    assert file.stat().st_blocks * 512 <= 64 * 1024


def test_sparse_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The file that was there before, if any, stays as it was."""
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "source").write_bytes(b"new")
    with pytest.raises(FileNotFoundError):
        durable.put_sparse_copy(str(tmp_path / "source"), str(tmp_path), "x", like=str(tmp_path / "nowhere"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_litter_of_one_prefix_only(tmp_path: Path) -> None:
    """In a directory that is not ours alone, what others left is theirs."""
    (tmp_path / ".new-ours").write_bytes(b"")
    (tmp_path / ".new-theirs").write_bytes(b"")
    assert durable.remove_litter(str(tmp_path), prefix=".new-o") == 1
    assert [p.name for p in tmp_path.iterdir()] == [".new-theirs"]


def test_append_durably_order(tmp_path: Path) -> None:
    """The line is flushed; of a new file the name, too."""
    path = str(tmp_path / "f")
    assert steps_of(lambda: durable.append_durably(path, b"a\n"), tmp_path) == [
        "append f",
        "fsync f",
        f"fsync {tmp_path}",
    ]
    assert steps_of(lambda: durable.append_durably(path, b"b\n"), tmp_path) == ["append f", "fsync f"]
    assert (tmp_path / "f").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"a\nto", b"a\nx\n"), (b"torn", b"x\n"), (b"a\n" + b"t" * 200_000, b"a\nx\n"), (b"a\n\n", b"a\n\nx\n")],
)
def test_append_durably_takes_a_torn_line_away(tmp_path: Path, before: bytes, after: bytes) -> None:
    """However long; whole lines stay."""
    (tmp_path / "f").write_bytes(before)
    durable.append_durably(str(tmp_path / "f"), b"x\n")
    assert (tmp_path / "f").read_bytes() == after


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """A directory that is a link is not written to, and goes without what it leads to."""
    there = tmp_path / "there"
    there.mkdir()
    (there / "a").write_bytes(b"untouched")
    link = tmp_path / "link"
    link.symlink_to(there)
    with pytest.raises(DiskError, match="is a symbolic link, which is not followed"):
        durable.replace_files(str(link), {"a": b"mine"}, scratch=str(tmp_path))
    durable.replace_files(str(link), {"b": b"mine"}, scratch=str(link))  # the archive itself may be behind one
    durable.remove_tree(str(link))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]
    assert {p.name: p.read_bytes() for p in there.iterdir()} == {"a": b"untouched", "b": b"mine"}


def test_append_line_waits_for_no_pipe(tmp_path: Path) -> None:
    """Nobody reads it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError) as raised:
        durable.append_line(str(tmp_path / "pipe"), b"line\n")
    assert raised.value.errno == errno.ENXIO
