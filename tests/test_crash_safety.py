# SPDX-License-Identifier: Apache-2.0
"""Killed at every step, and the power cut at every step: no crash is ever lost, and none is told twice."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pstored import deliver, steps
from pstored.cli import run
from tests.conftest import MakeRoot, Root, forked

KILLED = 99
COLLECT = ("collect", "--json")


class Ran(NamedTuple):
    """One run of the program in a child."""

    status: int
    passed: list[str]
    """The steps whose action was done."""


class FileSink:
    """A sink that is a file with one line a crash, and is asked first, as every sink is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any]:
        """Append, unless it is there."""
        line = f"{crash['id']} {crash['revision']}"
        if not self.path.exists() or line not in self.path.read_text().splitlines():
            steps.step("sink")
            with self.path.open("a") as f:
                f.write(line + "\n")
        return {"line": line}


def run_killed(root: Root, *arguments: str, at: int | None = None) -> Ran:
    """Run the program in a child that ends at step *at*, without doing that step's action."""
    log = root.path / "steps"
    log.unlink(missing_ok=True)

    def child() -> int:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        passed = 0

        def hook(name: str) -> None:
            nonlocal passed
            passed += 1
            if passed == at:
                os._exit(KILLED)
            os.write(fd, os.fsencode(name) + b"\n")

        steps.hook = hook
        deliver.SINKS["journal"] = lambda *_: FileSink(root.path / "sink")
        with redirect_stdout(io.StringIO()):
            return run(["--root", str(root.path), *arguments])

    child_id = os.fork()
    if child_id == 0:
        try:
            os._exit(child())
        except BaseException:  # shown, and told apart by the status  # noqa: BLE001
            traceback.print_exc()
            os._exit(98)
    status = os.waitstatus_to_exitcode(os.waitpid(child_id, 0)[1])
    passed = log.read_bytes().decode(errors="surrogateescape").splitlines() if log.exists() else []
    return Ran(status, passed)


def kill_everywhere(original: Root, directory: Path, *arguments: str) -> Iterator[tuple[int, Root, Ran]]:
    """A fresh copy of *original* for each step, with a run killed there; ends with the run that survives."""
    for at in range(1, 2000):
        root = Root(path=directory / f"killed{at}")
        shutil.copytree(original.path, root.path, symlinks=True)
        ran = run_killed(root, *arguments, at=at)
        if ran.status != KILLED:
            return
        yield at, root, ran
        shutil.rmtree(root.path)
    raise AssertionError("it never survives")


def stored(root: Root) -> dict[str, bytes]:
    """The records in the store."""
    return {name: (root.store / name).read_bytes() for name in root.names()}


def archived(root: Root) -> list[tuple[str, bytes]]:
    """The records in the archive, each checked against its receipt, without pstored's own reader."""
    found = []
    for harvest in root.harvests():
        receipts = {r["name"]: r for r in json.loads((harvest / "harvest.json").read_bytes())["records"]}
        with tarfile.open(harvest / "records.tar") as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                data = content.read()
                receipt = receipts.pop(member.name)
                assert (receipt["size"], receipt["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
                found.append((member.name, data))
        assert not receipts
    return sorted(found)


def digests(root: Root) -> list[str]:
    """The crash ids without their time."""
    return [path.name.split("-")[1] for path in root.crashes() if (path / "crash.json").exists()]


def told(root: Root) -> list[dict[str, Any]]:
    """What the reports say, but for when and by whom it was collected."""
    reports = [json.loads((path / "crash.json").read_bytes()) for path in root.crashes()]
    return [
        {k: report[k] for k in ("title", "kind", "revision", "boot", "dumps", "files", "complete")}
        | {"records": [(r["name"], r["sha256"]) for r in report["records"]]}
        for report in reports
    ]


@pytest.fixture
def mixed(root: MakeRoot) -> Root:
    """Two dumps of one EFI crash, a name that is no record's, and a live console; with a sink."""
    made = root("oops-panic", backend="efi_pstore")
    made.add("what is this?", b"\x00\x01nobody knows")
    made.add("console-ramoops-0", b"[    1.000000] all is well\n")
    made.configure("[journal]\nenabled = true\nrestore = false\n")
    return made


@pytest.fixture
def undisturbed(mixed: Root, tmp_path: Path) -> Root:
    """What a run that nobody kills makes of it."""
    root = Root(path=tmp_path / "undisturbed")
    shutil.copytree(mixed.path, root.path)
    assert run_killed(root, *COLLECT).status == 1  # the unknown name stays
    assert len(digests(root)) == 1
    assert not root.litter()
    return root


def test_killed_at_every_step_of_collect(mixed: Root, undisturbed: Root, tmp_path: Path) -> None:
    """Whatever step a collect is killed at, nothing is lost; the next one ends where an undisturbed one does.

    Nor does a report ever say of a record that a killed run erased that it is still in the store, or nothing.
    """
    records = stored(mixed)
    kills = 0
    problems = []
    for at, root, ran in kill_everywhere(mixed, tmp_path, *COLLECT):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1] if ran.passed else 'nothing'}"
        assert stored(root).items() | dict(archived(root)).items() >= records.items(), where
        again = run_killed(root, *COLLECT)
        if again.status != 1:
            problems.append(f"{where}: the next run exits with {again.status}")
        if archived(root) != sorted(records.items()):
            problems.append(f"{where}: not archived once each")
        if root.names() != undisturbed.names():
            problems.append(f"{where}: left in the store: {root.names()}")
        if digests(root) != digests(undisturbed):
            problems.append(f"{where}: crashes {digests(root)}")
        elif told(root) != told(undisturbed):
            problems.append(f"{where}: the reports differ")
        report = root.load(f"crashes/{root.crashes()[0].name}/crash.json")
        if unsaid := [r["name"] for r in report["records"] if not r["erased"] and not r["why"]]:
            problems.append(f"{where}: nothing is said of {unsaid}")
        if root.litter():
            problems.append(f"{where}: litter {root.litter()}")
        if len((root.path / "sink").read_text().splitlines()) != 1:
            problems.append(f"{where}: delivered other than once")
    assert not problems, "\n".join(problems)
    assert kills > 40


def test_killed_at_every_step_of_a_second_collect(mixed: Root, undisturbed: Root, tmp_path: Path) -> None:
    """A second crash on top of an archive with one: killed anywhere, both are there, once."""
    undisturbed.reboot()
    undisturbed.add(
        "dmesg-erst-7712345678901234561", b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"
    )
    records = archived(undisturbed)
    new = stored(undisturbed)
    for at, root, ran in kill_everywhere(undisturbed, tmp_path, *COLLECT):
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        run_killed(root, *COLLECT)
        assert {name for name, _ in archived(root)} == {name for name, _ in records} | set(new), where
        assert len(archived(root)) == len(records) + 1, where
        assert len(digests(root)) == 2, where
        assert not root.litter(), where
        assert len((root.path / "sink").read_text().splitlines()) == 2, where


def test_killed_at_every_step_of_analyze_all(undisturbed: Root, tmp_path: Path) -> None:
    """Doing the analysis anew, killed anywhere, and once more gives the same crash under the same id."""
    before = told(undisturbed)
    names = [path.name for path in undisturbed.crashes()]
    kills = 0
    for at, root, ran in kill_everywhere(undisturbed, tmp_path, "analyze", "--all"):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        assert run_killed(root, "analyze", "--all").status == 0, where
        assert [path.name for path in root.crashes()] == names, where
        assert told(root) == before, where
        assert not root.litter(), where
        assert run_killed(root, "verify").status == 0, where
        run_killed(root, "deliver")
        assert len((root.path / "sink").read_text().splitlines()) == 1, where
    assert kills > 3


def test_killed_at_every_step_of_deliver(mixed: Root, tmp_path: Path) -> None:
    """A delivery killed anywhere is still due, or done; the next one does not tell the sink twice."""
    mixed.configure("")
    assert run_killed(mixed, *COLLECT).status == 1
    mixed.configure("[journal]\nenabled = true\nrestore = false\n")
    assert run_killed(mixed, "analyze", "--all").status == 0  # now there is a sink: the crash is due
    assert list((mixed.archive / "outbox/journal").iterdir())
    kills = 0
    for at, root, ran in kill_everywhere(mixed, tmp_path, "deliver"):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        crash = root.crashes()[0]
        due = bool(list((root.archive / "outbox/journal").glob("[0-9]*.json")))
        assert due or (crash / "delivered.json").exists(), where
        assert run_killed(root, "deliver").status == 0, where
        assert (root.path / "sink").read_text() == f"{crash.name} 1\n", where
        assert not list((root.archive / "outbox/journal").iterdir()), where
        assert json.loads((crash / "delivered.json").read_bytes())["sinks"]["journal"]["revision"] == 1
        assert not root.litter(), where
    assert kills >= 6


# --- what a power cut would leave: a killed process keeps its page cache, so it proves nothing about flushes


class Disk:
    """What of the archive is durable, worked out from the steps: what is written but not flushed is *loose*."""

    def __init__(self, archive: Path) -> None:
        self.archive = str(archive)
        self.loose: set[tuple[str, str]] = set()

    def take(self, step: str) -> None:
        """One step whose action was done."""
        what, _, path = step.partition(" ")
        if what in ("create", "write"):
            self.loose.add(("bytes", path))
        if what in ("create", "mkdir", "rename"):
            self.loose.add(("name", path))
        if what == "rename":
            directory, name = os.path.split(path)
            if directory == f"{self.archive}/harvests":
                self._move(f"{directory}/.new-harvest", path)
            elif not name.startswith(".new-"):
                self._move(f"{self.archive}/.new-{name}", path)
        if what == "unlink":
            self.loose -= {("bytes", path), ("name", path)}
        if what == "fsync":
            self.loose -= {("bytes", path)}
            self.loose -= {(kind, p) for kind, p in self.loose if kind == "name" and os.path.dirname(p) == path}

    def _move(self, old: str, new: str) -> None:
        """What was loose under the old name is under the new one; the old name itself is no more."""
        below = {(kind, p) for kind, p in self.loose if p == old or p.startswith(old + "/")}
        self.loose -= below
        self.loose |= {(kind, new + p[len(old) :]) for kind, p in below if (kind, p) != ("name", old)}

    def loose_below(self, directory: str) -> set[tuple[str, str]]:
        """What of a directory of the archive, and of the way to it, would be lost now."""
        path = f"{self.archive}/{directory}"
        return {(kind, p) for kind, p in self.loose if p.startswith(path + "/") or (path + "/").startswith(p + "/")}


def early_erases(disk: Disk, passed: list[str], where: str) -> list[str]:
    """The erases in *passed* that came before what they erase was durable."""
    early = []
    for step in passed:
        if step.startswith("erase ") and (loose := disk.loose_below("harvests")):
            early.append(f"{where}: {step} while not durable: {sorted(loose)}")
        disk.take(step)
    return early


def test_bundle_is_durable_before_the_first_erase(mixed: Root) -> None:
    """In an undisturbed run every byte and every name on the way to the bundle is flushed before anything is erased."""
    ran = run_killed(mixed, "harvest")
    assert sum(step.startswith("erase ") for step in ran.passed) > 3
    assert not early_erases(Disk(mixed.archive), ran.passed, "undisturbed")


def test_deep_archive_is_durable_before_the_first_erase(mixed: Root) -> None:
    """However many directories above the archive are made with it, the name of each is flushed, too."""
    mixed.configure('[archive]\npath = "/srv/crashes/of/this/machine"\n')
    ran = run_killed(mixed, "harvest")
    assert sum(step.startswith("erase ") for step in ran.passed) > 3
    assert not early_erases(Disk(mixed.path / "srv/crashes/of/this/machine"), ran.passed, "undisturbed")


def without_flushes(passed: list[str], of: str) -> list[str]:
    """The steps, but for the flushes of files or directories with this name."""
    kept = [step for step in passed if not (step.startswith("fsync ") and step.endswith("/" + of))]
    assert len(kept) < len(passed)
    return kept


@pytest.mark.parametrize("dropped", ["records.tar", "harvest.json", ".new-harvest", "harvests", "pstored", "lib"])
def test_the_model_of_the_disk_misses_no_flush(mixed: Root, dropped: str) -> None:
    """The tests above fail if the flush of any file or directory were removed from the program."""
    ran = run_killed(mixed, "harvest")
    assert early_erases(Disk(mixed.archive), without_flushes(ran.passed, dropped), "without")


@pytest.mark.parametrize("dropped", ["records.tar", "harvest.json", ".new-harvest", "harvests"])
def test_no_flush_of_a_later_pass_is_too_much(root: MakeRoot, dropped: str) -> None:
    """Where there is an archive already, each flush before the erase is there once, and needed."""
    made = root()
    for number in range(3):
        made.add(f"dmesg-efi-{number}", b"number %d" % number)
        ran = run_killed(made, "harvest")
    first = next(i for i, step in enumerate(ran.passed) if step.startswith("erase "))
    assert sum(step.startswith("fsync ") for step in ran.passed[:first]) == 4
    assert not early_erases(Disk(made.archive), ran.passed, "undisturbed")
    assert early_erases(Disk(made.archive), without_flushes(ran.passed, dropped), "without")


@pytest.mark.parametrize("newcomer", [False, True], ids=["alone", "with a new record"])
def test_killed_run_then_erase_by_the_next_is_durable(mixed: Root, tmp_path: Path, newcomer: bool) -> None:
    """What a killed run did not come to flush, the next one flushes before it erases anything."""
    problems = []
    for at, root, ran in kill_everywhere(mixed, tmp_path, "harvest"):
        disk = Disk(root.archive)
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        problems += early_erases(disk, ran.passed, where)
        if newcomer:
            root.add("dmesg-efi-1", b"since then")
        again = run_killed(root, "harvest")
        problems += early_erases(disk, again.passed, where)[:1]
    assert not problems, "\n".join(problems)


def test_crash_is_durable_before_its_harvest_counts_as_analyzed(mixed: Root) -> None:
    """analyzed.json is what keeps the next run from looking again: nothing it vouches for may be lost by then."""
    ran = run_killed(mixed, *COLLECT)
    disk = Disk(mixed.archive)
    loose: set[tuple[str, str]] = set()
    for step in ran.passed:
        if step.startswith("rename ") and step.endswith("/analyzed.json"):
            loose |= disk.loose_below("crashes") | disk.loose_below("outbox")
        disk.take(step)
    assert [step for step in ran.passed if step.endswith("/analyzed.json")]
    assert not loose


def test_pruning_killed_at_every_step(root: MakeRoot, tmp_path: Path) -> None:
    """A quota at work, killed anywhere: what is listed is whole, and the next run clears the rest away."""
    made = root()
    for number in range(3):
        text = f"Panic#1 Part1\n<0>[   {number}7.000001] Kernel panic - not syncing: number {number}\n"
        made.add_erst_crash(number, text.encode())
        assert run_killed(made, *COLLECT).status in (0, 1)
    assert len(made.harvests()) == len(made.crashes()) == 3
    made.configure("[archive]\nmax_harvests = 2\n")
    made.add_erst_crash(9, b"Panic#1 Part1\n<0>[  97.000001] Kernel panic - not syncing: last\n")
    for at, killed, ran in kill_everywhere(made, tmp_path, *COLLECT):
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        run_killed(killed, *COLLECT)
        assert run_killed(killed, "verify").status == 0, where
        assert not killed.litter(), where
        assert len(killed.harvests()) == len(killed.crashes()) == 2, where
        for harvest in killed.harvests():
            assert (harvest / "records.tar").exists(), where


def test_forked_children_are_really_killed(mixed: Root) -> None:
    """The hook ends the process at the step it names: nothing after it is done."""
    ran = run_killed(mixed, "harvest", at=1)
    assert ran == Ran(KILLED, [])
    assert not mixed.archive.exists()
    assert forked(lambda: 3) == 3
