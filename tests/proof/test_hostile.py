# SPDX-License-Identifier: Apache-2.0
"""Records that somebody has made to do harm: all of the program on them, with little memory and little time.

All in one store, beside a record that is as it should be; the long way takes each alone, and those that are large.
Nothing is lost, nothing else is stopped, nothing reaches the terminal as it is, and what is wrong is said.
"""

import io
import json
import os
import random
import re
import resource
import socket
import stat
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fake_pstore import compress
from fake_pstore.host import Host, write_host
from fake_pstore.mce import mce_record
from fake_pstore.names import erst_id
from tests.conftest import BOOT_ID, REPOSITORY, Done, Root, run_pstored
from tests.proof.conftest import Tally
from tests.proof.ends import quietly
from tests.proof.world import archived
from tests.test_journalexport import parse as parse_entries
from tests.test_parse_decompress import bombs

MIB = 1 << 20
HEAD = b"Panic#1 Part1\n"
GOOD = HEAD + b"<0>[   77.000001] Kernel panic - not syncing: as it should be\n"
ROOM = 160 * MIB
"""Of address space: 96 MiB for the interpreter with all libraries, and the design's 64; besides, 4 times a record."""
CPU_S = 30
"""Of the processor for one command; a slow machine's."""


class Case(NamedTuple):
    """A record, and what is to be said of it."""

    name: str | None
    """None: of a crash of its own, packed if *packed*."""
    data: Callable[[], bytes]
    said: str = ""
    """A regular expression for what ``show`` of the crash says; empty: it is no crash, or nothing is to be said."""
    packed: bool = False
    mtime_s: int | None = None
    large: bool = False
    """It takes seconds: on the long way only."""


def case(
    data: bytes | Callable[[], bytes],
    said: str = "",
    *,
    name: str | None = None,
    packed: bool = False,
    mtime_s: int | None = None,
    large: bool = False,
) -> Case:
    """A row of the table."""
    return Case(name, data if callable(data) else lambda: data, said, packed, mtime_s, large)


def line(text: bytes, seconds: bytes = b"   77.000001") -> bytes:
    """A dump whose panic says that."""
    return HEAD + b"<0>[%s] Kernel panic - not syncing: %s\n" % (seconds, text)


def many(size: int, tail: bytes) -> Callable[[], bytes]:
    """A dump of so many bytes."""
    return lambda: HEAD + b"<6>[   76.000001] a line like any other, of which there are many\n" * (size // 66) + tail


PANIC = b"<0>[   77.000001] Kernel panic - not syncing: at the end\n"
BOMBS = {
    f"bomb of {name}": case(make, rf"the {name} stream gives more than \d+ bytes of text", packed=True)
    for name, make in bombs().items()
}
CASES: dict[str, Case] = {
    **BOMBS,
    "bomb of lz4hc": case(
        lambda: compress.compress_lz4hc(HEAD + bytes(16 * MIB)), "the lz4 stream gives more than", packed=True
    ),
    "packed noise": case(lambda: random.Random(1).randbytes(5000), "no algorithm unpacks this", packed=True),
    "escapes": case(
        line(b"\x1b[2J\x1b]0;mine\x07\x9b31m\x08\x7f"), re.escape(r"\x1b[2J\x1b]0;mine\x07\x9b31m\x08\x7f")
    ),
    "no UTF-8": case(line(b"\xff\xfe\xc3\x28\xed\xa0\x80"), re.escape(r"\xff\xfe\xc3(\xed\xa0\x80")),
    "NUL": case(line(b"a\0b"), re.escape(r"a\x00b")),
    "directions": case(line("a\u202eb\u2066c\u200b".encode()), re.escape(r"a\u202eb\u2066c\u200b")),
    "JSON": case(line(b'"}],"boot":{"id":"mine"},"x":[{"y":"\\'), re.escape('"}],"boot":{"id":"mine"}')),
    "fields of the journal": case(line(b"x\rMESSAGE_ID=mine\r__CURSOR=mine\x0bPRIORITY=7"), "MESSAGE_ID=mine"),
    "no time at all": case(line(b"never", b"99999999999999999999.999999"), "Kernel panic"),
    "numbers without end": case(
        b"Panic#99999999999999999999999 Part1\n<0>[   77.000001] Kernel panic - not syncing: count\n",
        "Kernel panic: count",
    ),
    "levels without end": case(
        HEAD + b"<99999999999999999999>[    1.000001] Kernel panic - not syncing: level\n", "level"
    ),
    "addresses without end": case(
        HEAD
        + b"<1>[    1.000001] BUG: unable to handle page fault for address: %s\n" % (b"f" * 300)
        + b"<4>[    1.000002] RIP: 0010:x+0x%s/0x%s\n" % (b"9" * 200, b"9" * 200)
        + b"<4>[    1.000003] CR2: %s CPU: %s PID: %s Comm: x\n" % (b"f" * 99, b"9" * 99, b"9" * 99)
        + b"<4>[    1.000004] ---[ end trace 0000000000000000 ]---\n"
        + PANIC,
        "Kernel panic: at the end|page fault",
    ),
    "one line": case(lambda: line(b"x" * (2 * MIB)), "Kernel panic: xxx"),
    "only newlines": case(lambda: HEAD + b"\n" * (256 * 1024) + PANIC, "at the end"),
    "braces": case(lambda: line(b"[" * 100_000 + b"<" * 100_000), "Kernel panic"),
    "traces without end": case(
        lambda: HEAD + b"<4>[    1.000001] Call Trace:\n" + b"<4>[    1.000001]  f+0x1/0x2\n" * 20_000 + PANIC,
        "at the end",
    ),
    "reports without end": case(
        lambda: HEAD + b"<4>[    1.000001] BUG: unable to handle page fault for address: 1\n" * 5_000 + PANIC, "."
    ),
    "before 1970": case(line(b"long ago"), "long ago", mtime_s=-2_000_000_000),
    "after 2106": case(line(b"the future"), "the future", mtime_s=1 << 33),
    "far after": case(line(b"beyond"), "beyond", mtime_s=13_000_000_000),
    "machine check of nothing": case(lambda: b"\xff" * 128, "", name="mce-erst-7711216860565340999"),
    "machine check at the end of time": case(
        lambda: mce_record(128, time=(1 << 64) - 1, ip=(1 << 64) - 1), "", name="mce-erst-7711216860565340998"
    ),
    "firmware's noise": case(lambda: b"CPER" + b"\xff" * 400, "", name="cper-erst-7711216860565340997"),
    "a trace of noise": case(lambda: random.Random(2).randbytes(24 * 999), "", name="ftrace-ramoops-0"),
    "messages of noise": case(
        lambda: b"".join(
            struct.pack("<BHI", 108, 0xFFFF, 1 << 31) + random.Random(3).randbytes(99) for _ in range(200)
        ),
        name="pmsg-ramoops-0",
    ),
    "a boot that never ended": case(b'{"boot_id": ' + b"[" * 100_000, "", name="end-pstored-7"),
    "no dump": case(b"", "", name="dmesg-erst-7711216860565340996"),
    "an id without end": case(line(b"id"), "Kernel panic: id", name="dmesg-efi_pstore-" + "9" * 60),
    "an id below zero": case(line(b"below"), "Kernel panic: below", name="dmesg-efi_pstore--1"),
    "two lines": case(b"x", "", name="dmesg-efi_pstore-1\nerased: all\n"),
    "a name of escapes": case(b"x", "", name="\x1b[2J\x1b]0;mine\x07"),
    "a name of fields": case(b"x", "", name='","erased":true,"x":"'),
    "a name that is no UTF-8": case(b"x", "", name=os.fsdecode(b"dmesg-\xff\xfe-1")),
    "a name as long as can be": case(b"x", "", name="d" * 255),
    "three dots": case(b"x", "", name="..."),
    "a name as ours": case(b"x", "", name=".new-dmesg-erst-1"),
    "a name of options": case(b"x", "", name="--root=x"),
    "a million lines": case(lambda: HEAD + b"<6>[    1.000001] x\n" * 1_000_000 + PANIC, "at the end", large=True),
    "64 MiB of a dump": case(many(64 * MIB, PANIC), "at the end", large=True),
    "64 MiB of a console": case(many(64 * MIB, PANIC), "at the end", name="console-ramoops-0", large=True),
    "64 MiB of nothing": case(lambda: bytes(64 * MIB), "", name="console-ramoops-1", large=True),
    "64 MiB of noise": case(lambda: random.Random(4).randbytes(64 * MIB), "", large=True),
    "64 MiB of packed noise": case(lambda: random.Random(5).randbytes(64 * MIB), "", packed=True, large=True),
    "64 MiB of a trace": case(
        lambda: b"CPU:0 ts:1 ffffffff81000000  ffffffff81000000  a <- b\n" * (64 * MIB // 54),
        "",
        name="ftrace-ramoops-1",
        large=True,
    ),
    "64 MiB of messages": case(
        lambda: b"a message of some program\n" * (64 * MIB // 26), "", name="pmsg-ramoops-1", large=True
    ),
}
"""What it is, and the record."""
STAMP = b"<12>[    1.000000] pstored: boot %s\n"
BOOTS = ("aaaaaaaa-8888-4777-8666-555555555555", "bbbbbbbb-8888-4777-8666-555555555555")


def store_of(path: Path, cases: dict[str, Case]) -> tuple[Root, dict[str, bytes], dict[str, str]]:
    """A machine with these records, and a good one; gives their bytes by name, and the names by case."""
    write_host(path, Host(boot_id=BOOT_ID, kernel="6.12.1", btime=1_795_400_000))
    root = Root(path=path)
    root.configure("[archive]\nallow_volatile = true\n")
    records, names = {}, {}
    for number, (what, one) in enumerate(cases.items()):
        name = one.name or f"dmesg-erst-{erst_id(1_794_000_000 + 1000 * number, 1)}" + ".enc.z" * one.packed
        seconds = 1_794_000_000 + 1000 * number if one.mtime_s is None else one.mtime_s
        records[name], names[what] = one.data(), name
        root.add(name, records[name], mtime_ns=seconds * 10**9)
    name = f"dmesg-erst-{erst_id(1_795_000_000, 1)}"
    records[name] = GOOD.replace(HEAD, HEAD + STAMP % BOOTS[0].encode())
    root.add(name, records[name])
    return root, records, names


def limits(largest: int) -> Callable[[], None]:
    """For a process of its own: memory as the design has it, beside the interpreter's; and time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (ROOM + 4 * largest,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))

    return limit


def limits_beside(largest: int) -> Callable[[], None]:
    """For a child of this process, which is large already."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 64 * MIB + 4 * largest
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + CPU_S,) * 2)

    return limit


def is_shown_safely(text: str) -> bool:
    """Whether a terminal does nothing but show it."""
    return all(line.isprintable() for line in text.split("\n"))


class Seen(NamedTuple):
    """What all of the program said."""

    collected: Done
    crashes: dict[str, str]
    """Crash id, and what ``show`` says."""
    records: dict[str, list[str]]
    """Name, and the crashes that it is in."""


def see_all(root: Root, records: dict[str, bytes]) -> Seen:
    """Collect, list, show and export all there is; whatever must hold of any record is checked here."""
    largest = max(map(len, records.values()))
    done = run_pstored("collect", root=root, before=limits(largest))
    assert done.status in (0, 1), done
    beside = limits_beside(largest)
    outputs = [done, *(quietly(root, *words, before=beside) for words in (("list",), ("boots",), ("verify",)))]
    listed = quietly(root, "list", "--json", before=beside)
    shown: dict[str, str] = {}
    holders: dict[str, list[str]] = {}
    for crash_id in (crash["id"] for crash in json.loads(listed.stdout)["crashes"]):
        outputs.append(quietly(root, "show", crash_id, before=beside))
        shown[crash_id] = outputs[-1].stdout
        report = json.loads(quietly(root, "show", "--json", crash_id, before=beside).stdout)
        outputs.append(quietly(root, "export", "-o", "exported.tar", crash_id, before=beside))
        there = dict(members(root.path / "exported.tar", crash_id))
        (root.path / "exported.tar").unlink()
        for record in report["records"]:
            holders.setdefault(record["name"], []).append(crash_id)
            assert there[f"records/{record['harvest_id']}/{record['name']}"] == records[record["name"]]
    for one in outputs:
        assert one.status in (0, 1), one
        assert is_shown_safely(one.stdout + one.stderr), one
        assert "Traceback" not in one.stderr
    assert {a.name: a.data for a in archived(root)} == records
    assert any("Kernel panic: as it should be" in text for text in shown.values())
    return Seen(done, shown, holders)


def members(path: Path, crash_id: str) -> Iterator[tuple[str, bytes]]:
    """What an export holds, below the crash's name; nothing in it leads anywhere else."""
    with tarfile.open(path) as opened:
        for member in opened:
            below = member.name.removeprefix(f"{crash_id}/")
            assert member.isreg()
            assert below != member.name
            assert ".." not in below.split("/")
            file = opened.extractfile(member)
            assert file is not None
            yield below, file.read()


def unsaid(seen: Seen, cases: dict[str, Case], names: dict[str, str]) -> dict[str, list[str]]:
    """Cases of which what is to be said is not said, and what is."""
    wrong = {}
    for what, one in cases.items():
        texts = [seen.crashes[crash_id] for crash_id in seen.records.get(names[what], [])]
        if one.said and not any(re.search(one.said, text) for text in texts):
            wrong[what] = texts or ["no crash has it"]
    return wrong


SMALL = {what: one for what, one in CASES.items() if not one.large}


def test_all_of_them_at_once(tmp_path: Path, tally: Tally) -> None:
    """Some forty records in one store: each is archived and erased as any other, and said for what it is."""
    root, records, names = store_of(tmp_path, SMALL)
    seen = see_all(root, records)
    assert unsaid(seen, SMALL, names) == {}

    tally("hostile records, all at once", len(SMALL))


@pytest.mark.proof
@pytest.mark.parametrize("what", CASES)
def test_each_alone(what: str, tmp_path: Path, tally: Tally) -> None:
    """So that none is shielded by another; 64 MiB, too."""
    cases = {what: CASES[what]}
    root, records, names = store_of(tmp_path, cases)
    assert unsaid(see_all(root, records), cases, names) == {}
    tally("hostile records, each alone", 1)


def test_a_thousand_million_parts(tmp_path: Path) -> None:
    """Two there are, the first and one far away: what is missing between them is said, and not counted one by one."""
    numbers = (1, 1_000_000_000)
    root, records, _ = store_of(tmp_path, {})
    for number in numbers:
        name = f"dmesg-efi_pstore-{(1_795_407_510 * 100 + number) * 1000 + 1}"
        records[name] = b"Panic#1 Part%d\n<0>[   77.000001] Kernel panic - not syncing: far apart\n" % number
        root.add(name, records[name], mtime_ns=1_795_407_510 * 10**9)
    (text,) = {text for text in see_all(root, records).crashes.values() if "far apart" in text}
    assert re.search(r"parts? 2 to 999999999\b|2-999999999|999999998 parts", text), text


def test_what_is_no_file_is_left_alone(tmp_path: Path, tally: Tally) -> None:
    """Links, pipes, sockets, devices and directories under the names of records: none is opened for long, nor lost."""
    root, records, _ = store_of(tmp_path, {})
    names = {
        kind: f"dmesg-erst-771121686056534{number:04}"
        for number, kind in enumerate(("link", "nowhere", "itself", "directory", "pipe", "socket"))
    }
    paths = {kind: root.store / name for kind, name in names.items()}
    paths["link"].symlink_to("/etc/passwd")
    paths["nowhere"].symlink_to("/nowhere/at/all")
    paths["itself"].symlink_to(paths["itself"].name)
    paths["directory"].mkdir()
    os.mkfifo(paths["pipe"])
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(root.store)
        try:
            listening.bind(names["socket"])
        finally:
            os.chdir(REPOSITORY)
    if os.geteuid() == 0:
        names["device"] = "dmesg-erst-7711216860565349999"
        os.mknod(root.store / names["device"], stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: it has no end
    seen = see_all(root, records)
    assert root.names() == sorted(names.values())
    assert seen.collected.status == 1
    assert "warning: unreadable: " in seen.collected.stderr
    assert "so not a record" in seen.collected.stderr
    tally("what is no file, in a store", len(names))


OUTSIDE = ("../../outside", "/outside", "a/../../outside", "sys/fs/pstore/../../../outside")


def test_names_in_a_tar_lead_nowhere(tmp_path: Path) -> None:
    """Only what is named as a record is one, under its last name; links are none, and nothing is written elsewhere."""
    (tmp_path / "root").mkdir()
    root, records, _ = store_of(tmp_path / "root", {})
    assert run_pstored("collect", root=root).status == 0
    path = tmp_path / "records.tar"
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate((*OUTSIDE, "dmesg-erst-\n7", "\x1b[2J")):
            for member in (name, f"{name}/dmesg-erst-77112168605653{number:05}"):
                data = GOOD.replace(b"as it should be", b"number %d" % number)
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"dmesg-erst-88112168605653{number:05}")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    done = run_pstored("import", str(path), root=root, before=limits(MIB))
    assert done.status in (0, 1), done
    assert is_shown_safely(done.stdout + done.stderr)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["records.tar", "root"]
    there = {a.name: a.data for a in archived(root)}
    assert set(there) == records.keys() | {f"dmesg-erst-77112168605653{number:05}" for number in range(6)}


def test_no_line_of_a_record_becomes_a_field_of_the_journal(tmp_path: Path) -> None:
    """What is exported for a journal has the lines as they are, in the fields that it has for every line."""
    lines = [b"x\rMESSAGE_ID=mine", b"__CURSOR=mine\x0bPRIORITY=7", b"a\0b\x1b[2J\xff", b"=", b"\t"]
    root, records, _ = store_of(tmp_path, {})
    name = f"dmesg-erst-{erst_id(1_795_100_000, 1)}"
    records[name] = HEAD + STAMP % BOOTS[1].encode()
    records[name] += b"".join(b"<4>[   70.%06d] %s\n" % (n, text) for n, text in enumerate(lines)) + PANIC
    root.add(name, records[name], mtime_ns=1_795_100_000 * 10**9)
    see_all(root, records)
    exported = run_pstored("export", "--format=journal", "-o", "-", "-1", root=root)
    assert exported.status == 0, exported
    path = tmp_path / "journal"
    assert run_pstored("export", "--format=journal", "-o", str(path), "-1", root=root).status == 0
    entries = parse_entries(path.read_bytes())
    assert [dict(entry)["MESSAGE"] for entry in entries][1:-1] == lines
    assert {field for entry in entries for field, _ in entry} == {field for field, _ in entries[-1]}
