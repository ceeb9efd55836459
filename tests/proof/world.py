# SPDX-License-Identifier: Apache-2.0
"""A machine with everything in its store, and what must be true of it whatever has happened: read without pstored."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fake_pstore import kernels, machine
from fake_pstore.host import MACHINE_ID, PSTORE, Host, write_host
from fake_pstore.model import BootTruth, Options, Record
from fake_pstore.scenarios import Scenario
from fake_pstore.tree import write_records
from tests.conftest import BOOT_ID, Root
from tests.journalfiles import kernel_entries, write_journal

CONFIG = """\
[archive]
allow_volatile = true
[journal]
enabled = true
restore = %s
namespace = "t"
"""
_EFI = Scenario(what="two boots crashed", boots=(("oops", "panic"), ("panic",)))
_RAMOOPS = Scenario(what="a ramoops with all its zones", boots=(("panic",),), zones=("console", "pmsg", "ftrace"))
_ERST = Scenario(what="a machine check", boots=(("mce",),), mce_lengths=(128,))
STORIES = {
    backend: replace(story, filler=500, kmsg_bytes=2500, cmdline="oops=panic")
    for backend, story in (("efi_pstore", _EFI), ("ramoops", _RAMOOPS), ("erst", _ERST))
}
"""Backend, and what happened there."""
BEGAN_US = 1_795_000_000_000_000
NO_RECORDS = ("dmesg-efi_pstore-1.d", "dmesg-efi_pstore-2.link", "dmesg-efi_pstore-3.fifo")
"""A directory, a symbolic link and a pipe in the store."""


class World(NamedTuple):
    """A tree before anything was collected."""

    root: Root
    records: dict[str, bytes]
    """All that must never be lost."""
    source: str = PSTORE
    """Where they are, below the root."""


def make_world(path: Path, *, odd: bool = True, restore: bool = False) -> World:
    """Crashes of four boots in three backends.

    Args:
        path: an empty directory.
        odd: also damage, names that are no record's, what is no file at all; then all of it is never erased.
        restore: the journal of one of the boots, too, for its last lines to be given back.
    """
    records: list[Record] = []
    boots: list[BootTruth] = []
    for backend, story in STORIES.items():
        era = kernels.ERAS[kernels.default_era(backend)]
        outcome = machine.run(story, Options(era=era, backend=backend, seed=6))
        records += outcome.records
        boots += outcome.boots
    records += _odd(records) if odd else []
    write_host(path, Host(boot_id=BOOT_ID, kernel="6.12.1", btime=1_795_500_000, backend="efi_pstore"))
    root = Root(path=path, boots=tuple(boots))
    write_records(path / PSTORE, records)
    if odd:
        directory, link, fifo = (root.store / name for name in NO_RECORDS)
        directory.mkdir()
        link.symlink_to("/etc/hostname")
        os.mkfifo(fifo)
    root.configure(CONFIG % ("true" if restore else "false"))
    if restore:
        _write_journal(root, boots[1])
    return World(root, {record.name: record.data for record in records})


def _odd(records: list[Record]) -> list[Record]:
    """What a store may also hold."""
    mtime_ns = next(r.mtime_ns for r in records if r.name.startswith("dmesg-efi_pstore"))
    lines = b"".join(b"<6>[  %3d.000001] a line of a dump that cannot be unpacked to its end\n" % n for n in range(99))
    packed = zlib.compress(b"Oops#1 Part1\n" + lines, wbits=-15)
    return [
        Record("dmesg-efi_pstore-179500000001009.enc.z", packed[:-90], mtime_ns, "packed, and damaged"),
        Record("what is this?\n\x1b[2J", b"\x00\xffnobody knows", mtime_ns, "no record's name"),
        Record("dmesg-erst-18446744073709551615", b"", mtime_ns, "empty"),
    ]


def _write_journal(root: Root, boot: BootTruth) -> None:
    """The journal of a crashed boot, without its last lines."""
    lines = [(m.time_us * 1000, m.text.encode()) for m in boot.messages][:-20]
    entries = kernel_entries(boot.boot_id, lines, began_us=boot.began * 1_000_000)
    write_journal(root.path / "var/log/journal" / MACHINE_ID, entries)


def systemd_pstore(world: World) -> World:
    """The same records where systemd-pstore would have put them, and nothing in the store."""
    source = "var/lib/systemd/pstore"
    shutil.copytree(world.root.store, world.root.path / source, symlinks=True, ignore=shutil.ignore_patterns("*.fifo"))
    shutil.rmtree(world.root.store)
    world.root.store.mkdir()
    return world._replace(source=source)


def copy(world: World, path: Path) -> World:
    """The same tree elsewhere; pipes and all."""
    subprocess.run(["cp", "-a", world.root.path, path], check=True)
    return world._replace(root=Root(path=path, boots=world.root.boots))


def remove(world: World) -> None:
    """Take the tree away."""
    shutil.rmtree(world.root.path)


# -- what there is


class Archived(NamedTuple):
    """A record in the archive, equal to its receipt."""

    name: str
    data: bytes
    error: str | None


def archived(root: Root) -> list[Archived]:
    """All records in the archive, each checked against its receipt.

    Raises:
        AssertionError: one is not what its receipt says.
    """
    found = []
    for harvest in root.harvests():
        receipts = {r["name"]: r for r in json.loads((harvest / "harvest.json").read_bytes())["records"]}
        for name, data in read_bundle(harvest):
            receipt = receipts.pop(name)
            assert (receipt["size"], receipt["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
            found.append(Archived(name, data, receipt["error"]))
        assert not receipts, f"{harvest.name} has no {sorted(receipts)}"
    return sorted(found, key=lambda a: (a.name, a.data, a.error or ""))


def read_bundle(harvest: Path) -> list[tuple[str, bytes]]:
    """What a harvest's tar holds."""
    with tarfile.open(harvest / "records.tar") as tar:
        return [(member.name, file.read()) for member in tar if (file := tar.extractfile(member)) is not None]


def lost(world: World) -> list[str]:
    """Records that are neither in the store nor whole in the archive: at no instant may there be one."""
    there = {a.name: a.data for a in archived(world.root)}
    gone = []
    for name, data in world.records.items():
        path = world.root.path / world.source / name
        in_store = path.exists() and path.read_bytes() == data
        if not in_store and there.get(name) != data:
            gone.append(name)
    return gone


def litter(root: Root) -> list[str]:
    """What a run must not leave behind, anywhere; a new archive's mark stays until there is something in it."""
    names = [str(p.relative_to(root.path)) for p in root.path.rglob("*")]
    left = [n for n in names if "/.new-" in n or re.search(r"/outbox/[^/]+/", n)]
    return left + [n for n in names if n.endswith("/unflushed") and root.harvests()]


class State(NamedTuple):
    """What is in a tree after all is done, without what differs from run to run: times, and the ids made of them."""

    store: list[str]
    archived: list[Archived]
    files: list[str]
    """Of the archive; but for erased.json, which a harvest that was killed has only if one of its records is left."""
    crashes: list[dict[str, Any]]
    sinks: list[list[str]]
    """Of each crash."""
    restored: int
    """Lines given back to the journal."""
    boots: int
    """In the ledger."""


_TIME = re.compile(r"\d{8}T\d{6}Z")


def state_of(root: Root) -> State:
    """What is there now."""
    files = [
        str(p.relative_to(root.archive)) for p in root.archive.rglob("*") if p.is_file() and p.name != "erased.json"
    ]
    crashes = [root.load(f"crashes/{path.name}/crash.json") for path in root.crashes()]
    return State(
        store=root.names(),
        archived=archived(root),
        files=sorted(_TIME.sub("TIME", f) for f in files),
        crashes=sorted((_told(crash) for crash in crashes), key=lambda c: str(c["records"])),
        sinks=[sorted(root.load(f"crashes/{p.name}/delivered.json")["sinks"]) for p in root.crashes()],
        restored=_restored(root),
        boots=len((root.archive / "boots.jsonl").read_bytes().splitlines()),
    )


_SAID = ("title", "kind", "severity", "boot", "dumps", "files", "complete", "function", "kernel", "notes")


def _told(crash: dict[str, Any]) -> dict[str, Any]:
    """What a report says, but for when it was collected.

    Of a record that a killed run erased nobody knows that it did; then the report says so.
    """
    for r in crash["records"]:
        assert r["erased"] or r["why"], f"nothing is said of what became of {r['name']}"
    records = [(r["name"], r["sha256"]) for r in crash["records"]]
    said: dict[str, Any] = json.loads(_TIME.sub("TIME", json.dumps({k: crash[k] for k in _SAID})))
    return said | {"records": records}


def _restored(root: Root) -> int:
    directory = root.path / "var/log/journal" / MACHINE_ID
    if not directory.is_dir():
        return 0
    command: list[str | Path] = ["journalctl", "-q", "--no-pager", "-o", "cat", "-D", directory, "PSTORE_RESTORED=1"]
    return len(subprocess.run(command, capture_output=True, check=True).stdout.splitlines())
