# SPDX-License-Identifier: Apache-2.0
"""Who may do what: modes under any umask, the group that may read, and links that lead out of the archive."""

import hashlib
import importlib
import json
import os
import pkgutil
import re
import shutil
import stat
from pathlib import Path

import pytest

import pstored
from tests.conftest import ChildFailedError, Done, Root, require, run_pstored
from tests.proof import workers
from tests.proof.conftest import Tally
from tests.proof.ends import quietly
from tests.proof.world import World, copy, make_world

NOBODY, GROUP = 65534, 4711
SECRET = "what-nobody-shall-see"
SINK = "[delivery]\nretry_s = 1000000\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which everything was done once: all there is in an archive is there."""
    path = tmp_path_factory.mktemp("permissions") / "made"
    path.mkdir()
    world = make_world(path, odd=False)
    config = (path / "etc/pstored.conf").read_text()
    world.root.configure(f'{config}{SINK}[file]\npath = "{path}/no/out"\n')
    (path / "var/lib/systemd/pstore").mkdir(parents=True)
    shutil.copy(next(world.root.store.glob("dmesg-efi*")), path / "var/lib/systemd/pstore")
    # the same crash was there already, there is no journal, and the file cannot be written
    assert run_pstored("collect", root=world.root).status == 1
    there = {str(p.relative_to(world.root.archive)) for p in world.root.archive.rglob("*") if "-" not in p.name}
    assert there >= {
        "boots.jsonl",
        "imported.json",
        "harvests.index",
        "crashes.index",
        "sizes.index",
        "outbox/journal",
        "outgoing/file",
    }
    return world


@pytest.mark.parametrize(
    ("umask", "group"), [(0, None), (0o777, None), (0, GROUP), (0o22, GROUP), (0o77, GROUP), (0o777, GROUP)]
)
def test_modes_whatever_the_umask(umask: int, group: int | None, tmp_path: Path) -> None:
    """0750 and 0640; and all of it is the group's, below a directory that has the set-group-id bit."""
    require(group is None or os.geteuid() == 0, "root, to give a directory to a group")
    path = tmp_path / "world"
    path.mkdir()
    world = make_world(path, odd=False)
    if group is not None:
        world.root.archive.mkdir(parents=True)
        os.chown(world.root.archive, 0, group)
        world.root.archive.chmod(0o2750)

    def before() -> None:
        os.umask(umask)

    assert run_pstored("collect", root=world.root, before=before).status == 75
    assert run_pstored("analyze", "--all", root=world.root, before=before).status == 0
    paths = [world.root.archive, *world.root.archive.rglob("*")]
    assert len(paths) > 30
    for one in paths:
        state = one.lstat()
        wanted = 0o640 if stat.S_ISREG(state.st_mode) else 0o750 if group is None else 0o2750
        assert (stat.S_IMODE(state.st_mode), state.st_gid) == (wanted, group or 0), one


# -- a reader


def as_reader(root: Root, *words: str) -> Done:
    """Run the program as another user, who is in the archive's group and no other."""

    def become() -> None:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(NOBODY)

    return quietly(root, *words, before=become)


@pytest.fixture
def readable(made: World, tmp_path: Path) -> Root:
    """An archive as pstored.tmpfiles has it made: root's, and the group may read it."""
    require(os.geteuid() == 0, "root, to become somebody else")
    for module in pkgutil.walk_packages(pstored.__path__, "pstored."):
        if module.name != "pstored.__main__":
            importlib.import_module(module.name)
    root = copy(made, tmp_path / "root").root
    for path in (root.archive, *root.archive.rglob("*")):
        os.chown(path, 0, GROUP)
    return root


def tree(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a directory, and the directory: what it is, whose, and what is in it."""
    found: dict[str, tuple[object, ...]] = {}
    for one in (path, *sorted(path.rglob("*"))):
        state = one.lstat()
        data = one.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        digest = hashlib.sha256(data).hexdigest()
        found[str(one)] = (state.st_mode, state.st_uid, state.st_gid, state.st_ino, state.st_mtime_ns, digest)
    return found


Words = tuple[str, ...]
READS: list[Words] = [
    ("list",),
    ("list", "--json"),
    ("show", "-1"),
    ("show", "--json", "-1"),
    ("export", "-o", "-", "-1"),
    ("boots",),
    ("verify",),
    ("outbox",),
    ("schema",),
]


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_reader_sees_all_there_is_to_see(words: Words, readable: Root) -> None:
    """What root sees, and nothing is changed."""
    before = tree(readable.archive)
    done = as_reader(readable, *words)
    assert tree(readable.archive) == before
    assert done.status == 0
    assert done.stdout
    assert done == quietly(readable, *words)


WRITES: list[Words] = [
    ("collect",),
    ("harvest",),
    ("analyze",),
    ("analyze", "--all"),
    ("deliver",),
    ("outbox", "--retry"),
    ("outbox", "--drop", "journal"),
    ("import",),
]


@pytest.mark.parametrize("words", WRITES, ids=" ".join)
def test_reader_changes_nothing(words: Words, readable: Root) -> None:
    """It is said what failed, with what, and what to do; with the status that the README has for it."""
    readable.reboot()
    name = readable.add_erst_crash(99, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n")
    before = tree(readable.path)
    done = as_reader(readable, *words)
    assert done.status in (73, 77), done
    assert "Permission denied" in done.stderr
    assert "hint: run as root" in done.stderr
    assert "Traceback" not in done.stderr
    assert name in readable.names()
    assert tree(readable.path) == before


def test_nobody_else_sees_anything(readable: Root) -> None:
    """Not in the group: not even how many crashes there are."""
    for path in (readable.archive, *readable.archive.rglob("*")):
        os.chown(path, 0, 0)
    for words in READS[:-1]:
        done = as_reader(readable, *words)
        assert (done.status, done.stdout) == (73, ""), done
        assert "Permission denied" in done.stderr
        assert "hint: run as root, or " in done.stderr


# -- links that lead out


def work(root: Root) -> list[Done]:
    """Everything that reads or writes an archive, once; in the end all but one harvest has to go."""
    done = [quietly(root, *words) for words in READS[1:]]
    root.reboot()
    root.add_erst_crash(7, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: one more\n")
    done += [quietly(root, *words) for words in (("collect",), ("analyze", "--all"), ("deliver",))]
    config = (root.path / "etc/pstored.conf").read_text()
    root.configure(config.replace("[archive]\n", "[archive]\nmax_harvests = 1\n"))
    root.add_erst_crash(8, b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: and one more\n")
    return [*done, quietly(root, "collect")]


def names_of(archive: Path, *, each: bool) -> list[str]:
    """Every name in an archive; but for *each*, of names that differ in their ids only, one."""
    found = [str(p.relative_to(archive)) for p in sorted(archive.rglob("*"))]
    kinds = {re.sub(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}", "ID", name): name for name in found}
    return found if each else list(kinds.values())


def plant(archive: Path, name: str, outside: Path) -> None:
    """Where something of the archive was, a link that leads out: to the same, outside."""
    path = archive / name
    there = outside / path.name
    if path.is_dir():
        shutil.copytree(path, there)
        (there / "secret").write_text(SECRET)
        (there / ".new-secret").write_text(SECRET)
        shutil.rmtree(path)
    else:
        there.write_text(SECRET)
        path.unlink()
    path.symlink_to(there)


def goes_wrong(made: World, scratch: Path, name: str) -> list[str]:
    """What is wrong after all was done in an archive in which one name is a link."""
    root = copy(made, scratch / "root").root
    outside = scratch / "outside"
    outside.mkdir()
    plant(root.archive, name, outside)
    before = tree(outside)
    try:
        done = work(root)
    except ChildFailedError as e:
        return [f"{name}: {e}"]
    problems = [f"{name}: changed outside: {k}" for k, v in tree(outside).items() if before.get(k) != v]
    problems += [f"{name}: gone: {k}" for k in before.keys() - tree(outside).keys()]
    for one in done:
        if SECRET in one.stdout + one.stderr or "Traceback" in one.stderr or one.status not in (0, 1, 73, 75):
            problems.append(f"{name}: {one.status} {one.stdout[-300:]} {one.stderr[-1500:]}")
    at_rest = [root.path / "sys/fs/pstore" / n for n in root.names() if n.startswith("dmesg-erst")]
    if len(at_rest) < 2 and not any(b"one more" in p.read_bytes() for p in root.archive.rglob("records.tar")):
        problems.append(f"{name}: a record is lost")
    shutil.rmtree(root.path)
    shutil.rmtree(outside)
    return problems


@pytest.mark.parametrize("each", [False, pytest.param(True, marks=pytest.mark.proof)])
def test_no_link_leads_out_of_the_archive(each: bool, made: World, tmp_path: Path, tally: Tally) -> None:
    """At each name in it: nothing outside is changed, shown or removed, and the work goes on, or it is said why not."""
    workers.require_all()
    (tmp_path / "scratch").mkdir()
    names = names_of(made.root.archive, each=each)
    problems = workers.in_parallel(
        lambda n: goes_wrong(made, tmp_path / "scratch", n), names, scratch=tmp_path / "scratch"
    )
    assert not any(problems), "\n".join(p for found in problems for p in found)
    tally("links planted in the archive", len(names))


@pytest.mark.parametrize(
    "harvest", ["../../../../outside", "/outside", "..", ".new-x", 7, "20261123T063707Z-a1e203f3e722/../../.."]
)
def test_no_id_in_a_report_leads_out(made: World, tmp_path: Path, harvest: object) -> None:
    """Of what is over the limits, what a report names as its harvest is removed: only if it is one."""
    root = copy(made, tmp_path / "root").root
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "harvest.json").write_text(SECRET)
    for path in root.crashes():
        report = root.load(f"crashes/{path.name}/crash.json")
        report["summary"]["harvests"] = report["collected"]["harvests"] = [harvest]
        (path / "crash.json").write_text(json.dumps(report))
    before = tree(outside)
    for one in work(root):
        assert one.status in (0, 1, 73, 75), one
        assert SECRET not in one.stdout + one.stderr
        assert "Traceback" not in one.stderr
    assert tree(outside) == before
