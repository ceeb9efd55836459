# SPDX-License-Identifier: Apache-2.0
"""Many pieces of work side by side, in children that have a memory file system and a journald of their own."""

import ctypes
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.conftest import REPOSITORY, can_mount, forked, mount, require, unshare_mounts

T = TypeVar("T")
R = TypeVar("R")
_CLONE_NEWNS = 0x20000


def require_all() -> None:
    """Skip at home, and fail in CI, where something is missing that these tests stand on."""
    import shutil

    require(can_mount(), "mount namespaces need root")
    require(shutil.which("strace"), "there is no strace (apt-get install strace)")
    require(os.path.exists("/lib/systemd/systemd-journald"), "there is no systemd-journald (apt-get install systemd)")


def in_parallel(work: Callable[[T], R], items: Sequence[T], *, scratch: Path) -> list[R]:
    """What *work* gives for each item, in their order; one child for each core, with a tmpfs on *scratch*.

    On a tmpfs a flush costs nothing, and proves nothing: what is flushed is another test's.

    Raises:
        AssertionError: it raised; with the child's traceback.
    """
    number = min(os.cpu_count() or 1, len(items)) or 1
    children = []
    for at in range(number):
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_fd)
            _work(work, items[at::number], scratch, write_fd)
        os.close(write_fd)
        children.append((child, read_fd))
    results: list[list[R]] = []
    failed: list[str] = []
    for child, read_fd in children:
        with open(read_fd, "rb") as f:
            answer = f.read()
        os.waitpid(child, 0)
        outcome: tuple[bool, Any] = pickle.loads(answer) if answer else (False, "a child ended by itself")
        worked, value = outcome
        if worked:
            results.append(value)
        else:
            failed.append(str(value))
    assert not failed, "\n".join(failed)
    return [results[at % number][at // number] for at in range(len(items))]


def _work(work: Callable[[T], R], items: Sequence[T], scratch: Path, write_fd: int) -> None:
    try:
        unshare_mounts()
        mount("-t", "tmpfs", "tmpfs", scratch)
        answer: tuple[bool, object] = (True, [work(item) for item in items])
    except BaseException:  # whatever it is, the parent shall see it  # noqa: BLE001
        answer = (False, traceback.format_exc())
    with open(write_fd, "wb") as f:
        f.write(pickle.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


@contextmanager
def journald() -> Iterator[Callable[[Callable[[], T]], T]]:
    """A journald of its own; gives what runs a function in a child beside it."""
    script = REPOSITORY / "tests/journald.sh"
    process = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", script, "64M", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n", "journald does not come up"
        namespace = f"/proc/{process.pid}/ns/mnt"
        yield lambda function: forked(lambda: _beside(namespace, function))
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _beside(namespace: str, function: Callable[[], T]) -> T:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)
    os.chdir(REPOSITORY)
    return function()
