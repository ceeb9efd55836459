# SPDX-License-Identifier: Apache-2.0
"""``export`` and ``verify``: the archive itself."""

import hashlib
import io
import json
import os
import sys
import tarfile
from argparse import Namespace
from collections.abc import Iterator
from typing import IO

from pstored.archive import Archive
from pstored.cli.context import Context, warn
from pstored.documents import is_sealed, load_json, open_own
from pstored.errors import ArchiveError, PstoredError
from pstored.ustar import decimal_seconds


def export(options: Namespace) -> int:
    """One file: everything about a crash, or its kernel log as a journal has it."""
    context = Context(options)
    crash_id = context.archive.find_crash(options.crash)
    entries = _journal_entries(context, crash_id) if options.format == "journal" else []

    def write(out: IO[bytes]) -> None:
        if options.format == "journal":
            out.writelines(entries)
        else:
            _write_tar(context.archive, crash_id, out)

    if options.output == "-":
        write(sys.stdout.buffer)
        return 0
    path = options.output or f"pstored-{crash_id}.{options.format}"
    try:
        with open(path, "xb") as f:
            write(f)
    except FileExistsError:
        raise PstoredError(f"{path!r} is there already", hint="name another with -o") from None
    except OSError as e:
        raise PstoredError(f"cannot write {path!r}: {e.strerror}") from e
    print(path)
    return 0


def _journal_entries(context: Context, crash_id: str) -> list[bytes]:
    """All lines of the crashed kernel's log."""
    from pstored.journal.bootjournal import BootJournal
    from pstored.journal.export import export, in_order, kernel_lines
    from pstored.sinks.restore import SURE, find_origin, last_entries

    crash = context.archive.load_crash(crash_id)
    boot_id = crash["boot"]["id"]
    if boot_id is None:
        raise PstoredError(
            f"crash {crash_id} cannot be exported for a journal: which boot it was is not known",
            hint="`pstored show` says why; --format=tar exports it as it is",
        )
    journal = BootJournal(context.host)
    origin = find_origin(context.host, crash, last_entries(journal, boot_id))
    if origin is None:
        raise PstoredError(
            f"crash {crash_id} cannot be exported for a journal: when boot {boot_id} was is not known",
            hint=f"its records carry no time, and {journal.problem or 'the journal does not know that boot'}; "
            "--format=tar exports it as it is",
        )
    lines = kernel_lines(context.archive.kernel_log(crash_id))
    if not lines:
        raise PstoredError(
            f"crash {crash_id} cannot be exported for a journal: it has no kernel lines with a time",
            hint="--format=tar exports it as it is",
        )
    if crash["boot"]["confidence"] not in SURE:
        warn(f"that it was boot {boot_id} is not sure: `pstored show {crash_id}` says why")
    return list(export(in_order(lines), origin))


def _write_tar(archive: Archive, crash_id: str, out: IO[bytes]) -> None:
    crash = archive.load_crash(crash_id)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, data in _members(archive, crash_id, crash["collected"]["harvests"]):
            info = tarfile.TarInfo(f"{crash_id}/{name}")
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
        wanted = {(r["harvest_id"], r["name"]) for r in crash["records"]}
        for harvest_id in crash["collected"]["harvests"]:
            times = {r.name: r.mtime_ns for r in archive.load_harvest(harvest_id).receipts}
            for member, data in archive.read_records(harvest_id):
                if (harvest_id, member.name) in wanted:
                    info = tarfile.TarInfo(f"{crash_id}/records/{harvest_id}/{member.name}")
                    info.size, info.mode = len(data), 0o444
                    _set_mtime(info, times.get(member.name, 0))
                    tar.addfile(info, io.BytesIO(data))


def _set_mtime(info: tarfile.TarInfo, mtime_ns: int) -> None:
    """Exactly: a fraction goes into an extended header, as a decimal, which no float can be."""
    info.mtime = mtime_ns // 1_000_000_000
    if mtime_ns % 1_000_000_000:
        info.pax_headers = {"mtime": decimal_seconds(mtime_ns)}


def _members(archive: Archive, crash_id: str, harvests: list[str]) -> Iterator[tuple[str, bytes]]:
    yield from _files(archive.crash_directory(crash_id), "")
    for harvest_id in harvests:
        for name, data in _files(archive.harvest_directory(harvest_id), f"records/{harvest_id}."):
            if name.endswith(".json"):
                yield name, data


def _files(directory: str, prefix: str) -> Iterator[tuple[str, bytes]]:
    for name in sorted(os.listdir(directory)):
        if not name.startswith(".") and name != "records.tar":
            path = os.path.join(directory, name)
            try:
                with open_own(path) as f:
                    yield prefix + name, f.read()
            except FileNotFoundError as e:
                warn(f"{path!r} is left out: {e.strerror}")


REMAKE = "`pstored analyze --all` makes it again"


def verify(options: Namespace) -> int:
    """Every record against its receipt, every text against the report."""
    archive = Context(options).archive
    problems: list[str] = []
    records = files = 0
    crashes = archive.crash_ids()
    for harvest_id in archive.harvest_ids():
        count, found = _verify_harvest(archive, harvest_id, frozenset(crashes))
        records += count
        problems += found
    for crash_id in crashes:
        count, found = _verify_crash(archive, crash_id)
        files += count
        problems += found
    if options.json:
        facts = {"records": records, "crashes": len(crashes), "files": files, "problems": problems}
        print(json.dumps({"schema": 1} | facts, indent=2))
    else:
        for problem in problems:
            print(problem)
        verdict = f"{len(problems)} problems" if problems else "all as written"
        print(f"{records} records, {len(crashes)} crashes, {files} files: {verdict}")
    return int(bool(problems))


def _verify_harvest(archive: Archive, harvest_id: str, crashes: frozenset[str]) -> tuple[int, list[str]]:
    problems = []
    seen = 0
    analyzed = os.path.join(archive.harvest_directory(harvest_id), "analyzed.json")
    if os.path.exists(analyzed):
        try:
            problems += [f"crash {c} is missing; {REMAKE}" for c in load_json(analyzed)["crashes"] if c not in crashes]
        except (ArchiveError, KeyError, TypeError) as e:
            problems.append(f"harvest {harvest_id}: {e}")
    try:
        harvest = archive.load_harvest(harvest_id)
        if not is_sealed(harvest.facts):
            problems.append(f"harvest {harvest_id}: harvest.json is not what was written")
        receipts = {r.name: r for r in harvest.receipts}
        for member, data in archive.read_records(harvest_id):
            receipt = receipts.pop(member.name, None)
            seen += 1
            if receipt is None:
                problems.append(f"harvest {harvest_id}: record {member.name!r} has no receipt")
            elif hashlib.sha256(data).hexdigest() != receipt.sha256:
                problems.append(f"harvest {harvest_id}: record {member.name!r} is not what was archived")
        problems += [f"harvest {harvest_id}: record {name!r} is missing" for name in receipts]
    except ArchiveError as e:
        problems.append(f"harvest {harvest_id}: {e}")
    return seen, problems


def _verify_crash(archive: Archive, crash_id: str) -> tuple[int, list[str]]:
    directory = archive.crash_directory(crash_id)
    problems = []
    try:
        crash = archive.load_crash(crash_id)
        files = {name: facts["sha256"] for name, facts in crash["files"].items()}
    except (ArchiveError, KeyError, TypeError) as e:
        return 0, [f"crash {crash_id}: {e}; {REMAKE}"]
    if not is_sealed(crash):
        problems.append(f"crash {crash_id}: crash.json is not what was written; {REMAKE}")
    for name, sha256 in files.items():
        try:
            with open_own(os.path.join(directory, os.path.basename(name))) as f:
                digest = hashlib.sha256(f.read()).hexdigest()
        except OSError as e:
            problems.append(f"crash {crash_id}: {name}: {e.strerror}; {REMAKE}")
            continue
        if digest != sha256:
            problems.append(f"crash {crash_id}: {name} is not what was written; {REMAKE}")
    return len(files), problems
