# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: trees to run on, the program as a process, forked children, what a machine must have.

Test modules import the names they need with ``from tests.conftest import Root, require``.
"""

import ctypes
import hashlib
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import hypothesis
import pytest

from fake_pstore import capture, kernels, machine
from fake_pstore.host import PSTORE, Host, write_host
from fake_pstore.model import BootTruth, Options
from fake_pstore.names import erst_id, record_name
from fake_pstore.scenarios import SCENARIOS
from fake_pstore.tree import write_record, write_records

REPOSITORY = Path(__file__).parents[1]
BOOT_ID = "11111111-2222-4333-8444-555555555555"
"""Of the collecting boot in trees without a capture or scenario."""

T = TypeVar("T")

# no deadline: beside a busy neighbour any test takes long once
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
# by hand: pytest --hypothesis-profile=long
hypothesis.settings.register_profile("long", max_examples=500_000, deadline=None)


TRIED = "tried, and passed"
"""The user property of a test that counts what it tries: what, and how much of it (tests/proof)."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much was proven: a line for each kind, and the sum."""
    counts: dict[str, int] = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == TRIED:
                counts[value[0]] = counts.get(value[0], 0) + value[1]
    if counts:
        terminalreporter.section(f"proof: {TRIED}")
        for what, number in sorted(counts.items()):
            terminalreporter.write_line(f"{number:7} {what}")
        terminalreporter.write_line(f"{sum(counts.values()):7} in all")


def require(condition: object, reason: str) -> None:
    """Skip the test at home if *condition* is false; in CI, where everything is to be there, fail."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI must have this: {reason}")
    pytest.skip(reason)


@dataclass(slots=True, kw_only=True)
class Root:
    """A tree for ``--root``: some files of /proc and /sys, a store, and what pstored makes of it."""

    path: Path
    boots: tuple[BootTruth, ...] = ()
    """What the boots of a scenario really were, oldest first."""

    @property
    def store(self) -> Path:
        """Where the records are."""
        return self.path / PSTORE

    @property
    def archive(self) -> Path:
        """Where pstored keeps them."""
        return self.path / "var/lib/pstored"

    def write(self, path: str, text: str) -> None:
        """Write a file of the tree, e.g. ``sys/kernel/oops_count``."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", errors="surrogateescape")

    def configure(self, text: str) -> None:
        """Write etc/pstored.conf."""
        self.write("etc/pstored.conf", text)

    def add(self, name: str, data: bytes, *, mtime_ns: int = 1_795_000_000_123_456_789) -> Path:
        """Put a record into the store."""
        return write_record(self.store / name, data, mtime_ns)

    def reboot(self, boot_id: str = "99999999-8888-4777-8666-555555555555") -> None:
        """Another boot looks at the same store: no oops in it so far."""
        self.write("proc/sys/kernel/random/boot_id", f"{boot_id}\n")
        self.write("sys/kernel/oops_count", "0\n")
        self.write("proc/sys/kernel/tainted", "0\n")

    def add_erst_crash(self, number: int, data: bytes) -> str:
        """Boot *number* crashed, and the boot after it looks at the store: the id's high half is the boot's own."""
        seconds = 1_794_000_000 + 1000 * number
        self.reboot(f"{number:08x}-8888-4777-8666-555555555555")
        name = record_name("dmesg", "erst", erst_id(seconds, 1))
        self.add(name, data, mtime_ns=seconds * 1_000_000_000)
        return name

    def names(self) -> list[str]:
        """What is in the store."""
        return sorted(os.listdir(self.store))

    def harvests(self) -> list[Path]:
        """The bundles, oldest first."""
        return sorted((self.archive / "harvests").glob("[0-9]*"))

    def crashes(self) -> list[Path]:
        """The crashes' directories, oldest first."""
        return sorted((self.archive / "crashes").glob("[0-9]*"))

    def load(self, path: str) -> dict[str, Any]:
        """A JSON file below the archive."""
        loaded: dict[str, Any] = json.loads((self.archive / path).read_bytes())
        return loaded

    def litter(self) -> list[Path]:
        """Temporary files left behind, anywhere in the archive."""
        return sorted(self.archive.rglob(".new-*"))

    def snapshot(self) -> dict[str, tuple[str, int]]:
        """Every file of the archive: digest of its bytes, and mtime in ns."""
        return {
            str(path.relative_to(self.archive)): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in sorted(self.archive.rglob("*"))
            if path.is_file()
        }


class MakeRoot(Protocol):
    """The ``root`` fixture."""

    def __call__(
        self, name: str | None = None, *, era: str | None = None, what: capture.Shown = "pstore", **options: Any
    ) -> Root:
        """A new tree: a capture or a scenario by name, or an empty store.

        Args:
            name: of a capture, or of a scenario; None for an empty store.
            era: the scenario's kernel, a key of ERAS; by default the newest with the backend.
            what: the capture's records as shown, or as decompressed.
            options: fields of fake_pstore.model.Options (``backend="efi_pstore"`` ...), for a scenario; of
                fake_pstore.host.Host for an empty store.
        """


@pytest.fixture
def root(tmp_path: Path) -> MakeRoot:
    """Make trees to run on; a capture's own stamp prefix is configured."""
    made = 0

    def make(
        name: str | None = None, *, era: str | None = None, what: capture.Shown = "pstore", **options: Any
    ) -> Root:
        nonlocal made
        made += 1
        path = tmp_path / f"root{made}"
        path.mkdir()
        if name is None:
            host: dict[str, Any] = {"boot_id": BOOT_ID, "kernel": "6.12.1", "btime": 1_795_400_000} | options
            write_host(path, Host(**host))
            return Root(path=path)
        if name in SCENARIOS:
            backend = options.setdefault("backend", SCENARIOS[name].backends[0])
            settings = Options(era=kernels.ERAS[era or kernels.default_era(backend)], **options)
            outcome = machine.run(SCENARIOS[name], settings)
            write_host(path, outcome.host)
            write_records(path / PSTORE, outcome.records)
            return Root(path=path, boots=tuple(outcome.boots))
        capture.populate_root(path, capture.load(name), what=what)
        made_root = Root(path=path)
        made_root.configure(f'[boots]\nstamp_prefix = "{capture.STAMP_PREFIX}"\n')
        return made_root

    return make


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        loaded: dict[str, Any] = json.loads(self.stdout)
        return loaded


class Pstored(Protocol):
    """The ``pstored`` fixture."""

    def __call__(
        self,
        *arguments: str,
        root: Root | None = None,
        env: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Done:
        """Run ``pstored [--root ROOT] ARGUMENTS``; *before* runs in the child (limits, umask)."""


def run_pstored(
    *arguments: str,
    root: Root | None = None,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Done:
    """As the ``pstored`` fixture, for children that have none."""
    where = [] if root is None else ["--root", str(root.path)]
    done = subprocess.run(
        [sys.executable, "-m", "pstored", *where, *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})},
        timeout=60,
        check=False,
        preexec_fn=before,
    )
    return Done(done.returncode, *(s.decode(errors="backslashreplace") for s in (done.stdout, done.stderr)))


@pytest.fixture
def pstored() -> Pstored:
    """The program, as a process of its own."""
    return run_pstored


# --- children in which anything may be done


class ChildFailedError(AssertionError):
    """The child of :func:`forked` raised, or ended in another way than by returning."""


def forked(function: Callable[[], T], *, new_mounts: bool = False) -> T:
    """What *function* returns in a forked child, where umask, limits, hooks and mounts are its own.

    Raises:
        ChildFailedError: it raised, or ended by itself; ``args[1]`` is its exit status then.
    """
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_fd)
        _run_child(function, write_fd, new_mounts=new_mounts)
    os.close(write_fd)
    with open(read_fd, "rb") as f:
        answer = f.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answer:
        raise ChildFailedError("the child ended by itself", status)
    worked, value = pickle.loads(answer)  # our own child's
    if not worked:
        raise ChildFailedError(value, status)
    result: T = value
    return result


def _run_child(function: Callable[[], Any], write_fd: int, *, new_mounts: bool) -> NoReturn:
    try:
        if new_mounts:
            unshare_mounts()
        answer = (True, function())
    except BaseException:  # whatever it is, the parent shall see it  # noqa: BLE001
        answer = (False, traceback.format_exc())
    with open(write_fd, "wb") as f:
        f.write(pickle.dumps(answer))
    os._exit(0)


_CLONE_NEWNS = 0x20000


def unshare_mounts() -> None:
    """Give this process mounts of its own, that nobody else sees."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")


def mount(*arguments: str | Path) -> None:
    """mount(8)."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def can_mount() -> bool:
    """Whether this process may have mounts of its own."""
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def own_mounts() -> Callable[[Callable[[], T]], T]:
    """Run a function in a child with mounts of its own."""
    require(can_mount(), "mount namespaces need root")
    return lambda function: forked(function, new_mounts=True)
