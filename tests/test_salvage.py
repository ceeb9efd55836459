# SPDX-License-Identifier: Apache-2.0
"""Files, devices and directories into the archive, whatever they hold; the same twice, and the same from elsewhere."""

import gzip
import hashlib
import json
import lzma
import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture
from fake_pstore.cper import DMESG, cper_record, erst_store
from pstored.readers import KINDS, load
from tests.conftest import MakeRoot, Pstored, Root
from tests.test_crash_safety import archived

TEXT = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: x\n"


def raw(name: str, path: Path) -> Path:
    """A capture's image as a file."""
    loaded = capture.load(name)
    (image,) = loaded.raw_files
    path.write_bytes(loaded.raw(image))
    return path


def store(*texts: bytes, seconds: int = 1_795_000_000, erased: bool = False) -> bytes:
    """An ERST store with these dumps."""
    records = (
        cper_record([(DMESG, text)], record_id=(seconds << 32) + number, seconds=seconds)
        for number, text in enumerate(texts, 1)
    )
    return erst_store((record, erased) for record in records)


def texts(root: Root, name: str) -> list[bytes]:
    """One file of each crash."""
    return sorted((path / name).read_bytes() for path in root.crashes())


def crashes(root: Root) -> list[dict[str, Any]]:
    """The reports."""
    return [json.loads((path / "crash.json").read_bytes()) for path in root.crashes()]


# --- the registry


def test_every_kind_has_its_reader() -> None:
    """And every word is one that can be typed."""
    for name, kind in KINDS.items():
        assert name.replace("-", "").replace("_", "").isalnum()
        assert kind.about
        if kind.module is not None:
            assert callable(load(name).read)


def test_help_lists_the_kinds_without_importing_them(pstored: Pstored) -> None:
    """`pstored import --help`."""
    said = pstored("import", "--help").stdout
    assert all(f"\n  {name} " in said and kind.about in said for name, kind in KINDS.items())


# --- one file


def test_a_store_image_tells_what_pstorefs_told(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """The same records under the same keys: whichever comes second brings nothing."""
    for name in ("lab-erst", "lab-erst-mce"):
        image = raw(name, tmp_path / name)
        for first in ("collect", "import"):
            made = root(name)
            commands = [["collect"], ["import", str(image)]]
            for command in commands if first == "collect" else commands[::-1]:
                assert pstored(*command, root=made).status == 0
            assert len(made.harvests()) == len(made.crashes()) == 1
            assert {n for n, _ in archived(made)} == set(capture.load(name).files)


def test_what_is_said_and_noted_of_an_import(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """In words, in JSON, in harvest.json, in the report; a second time there is nothing new."""
    made = root()
    image = raw("lab-erst", tmp_path / "erst.img")
    first = pstored("import", str(image), root=made)
    assert (first.status, first.stderr) == (0, "")
    assert f"{image} (erst): 4 new records imported\n" in first.stdout
    assert "Kernel panic: sysrq triggered crash" in first.stdout
    again = pstored("import", "--json", str(image), root=made)
    assert again.status == 0
    (done,) = again.json["imports"]
    assert (done["kind"], done["archived"], done["known"], again.json["crashes"]) == ("erst", [], 4, [])
    facts = made.load(f"harvests/{made.harvests()[0].name}/harvest.json")
    assert (facts["boot_id"], facts["machine_id"], facts["uptime_s"]) == (None, None, None)
    assert facts["store"] == {
        "path": str(image),
        "kind": "erst",
        "sources": [
            {
                "path": str(image),
                "size": image.stat().st_size,
                "sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
            }
        ],
        "remarks": [],
    }
    (crash,) = crashes(made)
    assert crash["collected"]["imported_from"] == str(image)
    assert {(r["outcome"], r["why"]) for r in crash["records"]} == {("imported", f"from {image}")}
    assert f"from {image}\n" in pstored("show", root=made).stdout
    assert pstored("verify", root=made).status == 0


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_and_from_standard_input(pack: Any, root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """As it comes by mail."""
    made = root()
    image = tmp_path / "x"
    image.write_bytes(pack(store(TEXT)))
    done = pstored("import", str(image), root=made)
    assert "1 new record imported" in done.stdout
    assert "unpacked by" in done.stdout
    command = ["sh", "-c", f"exec '{sys.executable}' -m pstored --root '{made.path}' import - <'{image}'"]
    again = subprocess.run(command, capture_output=True, check=False)
    assert again.stdout.startswith(b"standard input (erst): nothing new, 1 archived before\n")


def test_list_writes_nothing(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Not even an archive; what is known is said to be."""
    made = root()
    image = tmp_path / "x"
    image.write_bytes(store(TEXT, TEXT.replace(b"x\n", b"y\n")))
    done = pstored("import", "--list", str(image), root=made)
    assert done.status == 0
    assert done.stdout.startswith(f"{image} (erst): 2 records\n")
    assert done.stdout.count("2026-11-18T11:06:40Z  new\n") == 2
    assert not made.archive.exists()
    pstored("import", str(image), root=made)
    before = made.snapshot()
    facts = pstored("import", "--list", "--json", str(image), root=made).json
    assert [r["fate"] for r in facts["imports"][0]["records"]] == ["archived before"] * 2
    assert "crashes" not in facts
    assert made.snapshot() == before


def test_erased_records_only_if_asked_for(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """And then the report says that they were."""
    made = root()
    image = tmp_path / "x"
    image.write_bytes(store(TEXT, erased=True))
    assert "nothing new" in pstored("import", str(image), root=made).stdout
    assert pstored("import", "--deleted", str(image), root=made).status == 0
    (crash,) = crashes(made)
    assert any("the kernel had erased it" in note for note in crash["notes"])


def test_damage_is_in_the_report(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Of a record: in its crash; of the whole: in the output, harvest.json and the exit status."""
    made = root()
    record = bytearray(cper_record([(DMESG, TEXT)], record_id=7 << 32, seconds=1_795_000_000))
    record[20:24] = (9000).to_bytes(4, "little")
    image = tmp_path / "x"
    image.write_bytes(erst_store([(bytes(record), False)])[:8192] + record.ljust(8192, b"\0")[:8192] + bytes(100))
    done = pstored("import", "--json", str(image), root=made)
    assert done.status == 1
    (crash,) = crashes(made)
    assert crash["complete"] is False
    assert "of which 808 are missing" in crash["dumps"][0]["damage"][0]
    assert pstored("analyze", "--all", root=made).status == 0
    assert crashes(made)[0]["dumps"] == crash["dumps"]
    image.write_bytes(gzip.compress(store(TEXT.replace(b"x", b"z"))[:-5])[:-4])
    done = pstored("import", str(image), root=made)
    assert done.status == 1
    assert "the gzip file has no end" in done.stderr
    facts = made.load(f"harvests/{made.harvests()[-1].name}/harvest.json")
    assert any("the gzip file has no end" in remark for remark in facts["store"]["remarks"])


# --- what it is


def test_kind_and_part_can_be_said(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """--as, --offset and --size: an image within another file."""
    image = tmp_path / "x"
    image.write_bytes(b"#" * 5000 + store(TEXT) + b"rest")
    none = pstored("import", str(image), root=root())
    assert none.status == 1
    assert "say which (--as)" in none.stderr
    size = str(len(store(TEXT)))
    made = root()
    found = pstored("import", "--offset", "5000", "--size", size, str(image), root=made)
    assert "1 new record imported" in found.stdout
    facts = made.load(f"harvests/{made.harvests()[0].name}/harvest.json")
    assert (facts["store"]["offset"], facts["store"]["size"]) == (5000, int(size))
    assert "1 new record" in pstored("import", "--as", "erst", "--offset", "5000", str(image), root=root()).stdout
    wrong = pstored("import", "--as", "cper", str(image), root=root())
    assert wrong.status == 1
    assert "no record at byte 0" in wrong.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--as", "nonsense"], ["--offset", "x"], ["--offset", "-1"], ["--size", "1Q"], ["--parameter", "=3"]],
)
def test_wrong_usage(arguments: list[str], root: MakeRoot, pstored: Pstored) -> None:
    """Said before anything is done."""
    done = pstored("import", *arguments, "/dev/null", root=root())
    assert done.status == 2
    assert "argument" in done.stderr


def test_one_that_cannot_be_read_does_not_keep_the_others_out(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """The exit status is that of the first error."""
    made = root()
    image = tmp_path / "x"
    image.write_bytes(store(TEXT))
    done = pstored("import", str(tmp_path / "no"), str(image), root=made)
    assert done.status == 1
    assert "there is no" in done.stderr
    assert len(made.crashes()) == 1


# --- the same from elsewhere

CAPTURED = [
    "lab-blk",
    "lab-erst",
    "lab-erst-mce",
    "lab-enc-lz4",
    "lab-enc-zstd",
    "x86_64-6.1-ramoops-all",
    "x86_64-6.1-ramoops-ecc",
    "x86_64-6.1deb-ramoops",
]


@pytest.mark.parametrize("name", CAPTURED)
def test_raw_and_from_pstorefs_are_one(name: str, root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """The same dumps, text for text; and whichever comes second brings nothing, packed or not."""
    made, late = root(name), root()
    image = raw(name, tmp_path / name)
    assert pstored("collect", root=made).status in (0, 1)
    assert pstored("import", str(image), root=late).status in (0, 1)
    assert texts(made, "dmesg.txt") == texts(late, "dmesg.txt") != []
    again = pstored("import", "--json", str(image), root=made)
    assert again.json["imports"][0]["archived"] == []
    assert len(made.crashes()) == 1


def test_a_damaged_region_adds_nothing_to_a_whole_one(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Put right by ECC it is the same; what ECC cannot put right is another copy of the same crash."""
    name = "x86_64-6.1-ramoops-ecc"
    made = root(name)
    assert pstored("collect", root=made).status == 0
    before = texts(made, "dmesg.txt")
    image = raw(name, tmp_path / name)
    data = bytearray(image.read_bytes())
    rng = random.Random(5)
    for bit in rng.sample(range(len(data) * 8), 1000):
        data[bit // 8] ^= 1 << bit % 8
    image.write_bytes(data)
    done = pstored("import", "--json", str(image), root=made)
    assert (done.json["imports"][0]["archived"], done.status) == ([], 0)
    for at in range(12 + 128 * 60, 12 + 128 * 60 + 20):
        data[at] ^= 0xFF
    image.write_bytes(data)
    done = pstored("import", "--json", str(image), root=made)
    assert len(done.json["imports"][0]["archived"]) == 1
    (crash,) = crashes(made)
    assert any("ECC could not repair block 60" in note for note in crash["notes"])
    assert texts(made, "dmesg.txt") == before


@pytest.mark.parametrize("name", ["lab-erst", "x86_64-6.1-ramoops-ecc", "lk-LOOP"])
@pytest.mark.parametrize("first", ["store", "serial"])
def test_the_serial_log_of_the_same_boot_is_the_same_crash(
    name: str, first: str, root: MakeRoot, pstored: Pstored, tmp_path: Path
) -> None:
    """By equal lines at equal times, whichever comes first: no stamp means anything here."""
    made = root(name)
    log = tmp_path / "minicom.cap"
    log.write_bytes(capture.load(name).serial("crash"))
    commands = [["collect"], ["import", str(log)]]
    for command in commands if first == "store" else commands[::-1]:
        assert pstored(*command, root=made).status in (0, 1)
    (crash,) = crashes(made)
    assert {r["type"] for r in crash["records"]} >= {"dmesg", "console"}
    assert crash["title"] == "Kernel panic: sysrq triggered crash" or name == "lk-LOOP"
    assert crash["boot"]["method"] != "elimination"


def test_an_old_crash_is_found_among_many(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """A serial log that somebody brings when a dozen other crashes have come since."""
    made = root("lab-erst")
    assert pstored("collect", root=made).status in (0, 1)
    others = tmp_path / "others"
    others.mkdir()
    for number in range(12):
        path = others / f"dmesg-efi-{1_795_900_000 + number}01001"
        path.write_bytes(b"Panic#1 Part1\n<0>[%5d.000001] Kernel panic - not syncing: number %d\n" % (number, number))
        os.utime(path, (1_795_900_000 + number, 1_795_900_000 + number))
    assert pstored("import", str(others), root=made).status == 0
    assert len(made.crashes()) == 13
    log = tmp_path / "minicom.cap"
    log.write_bytes(capture.load("lab-erst").serial("crash"))
    assert pstored("import", str(log), root=made).status == 0
    assert len(made.crashes()) == 13
    assert {"console", "dmesg"} <= {r["type"] for r in crashes(made)[0]["records"]}
    before = sorted(str(path) for path in made.crashes())
    assert pstored("analyze", "--all", root=made).status == 0
    assert sorted(str(path) for path in made.crashes()) == before


# --- directories


def test_a_directory_of_all_sorts(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Records by name, images by content, each a bundle; the rest is named."""
    made = root()
    top = tmp_path / "from the field"
    (top / "board 7").mkdir(parents=True)
    (top / "dmesg-efi-179540752201001").write_bytes(TEXT.replace(b"x\n", b"efi\n"))
    (top / "board 7/erst").write_bytes(store(TEXT.replace(b"x\n", b"seven\n")))
    (top / "board 8.gz").write_bytes(gzip.compress(store(TEXT.replace(b"x\n", b"eight\n"), seconds=1_795_000_100)))
    (top / "holiday.jpeg").write_bytes(b"\xff\xd8\xff\xe0")
    (top / "empty").write_bytes(b"")
    os.symlink(top / "board 7/erst", top / "link")
    done = pstored("import", str(top), root=made)
    assert (done.status, done.stderr) == (0, "")
    assert {c["title"] for c in crashes(made)} == {f"Kernel panic: {w}" for w in ("efi", "seven", "eight")}
    assert len(made.harvests()) == 3
    assert "empty, holiday.jpeg: left out, nothing in it that pstored knows how to read" in done.stdout
    again = pstored("import", "--json", str(top), root=made).json["imports"]
    assert [i["archived"] for i in again] == [[]] * 4
    assert sum(i["known"] for i in again) == 3


def test_a_directory_without_anything(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Nothing to import is said, and is no error."""
    (tmp_path / "d").mkdir()
    done = pstored("import", str(tmp_path / "d"), root=root())
    assert (done.status, done.stdout) == (0, "nothing to import\n")


# --- limits


def test_memory_is_bounded(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """4 GiB of memory with a region of ramoops in it, 4 GiB of holes behind a store, 4 GiB with nothing in them."""
    made = root()
    top = tmp_path / "large"
    top.mkdir()
    region = capture.load("x86_64-6.1-ramoops-ecc").raw("region.bin")
    for name, at, data in (("ram", 3 << 30, region), ("store", 0, store(TEXT)), ("nothing", 0, b"")):
        with open(top / name, "wb") as f:
            f.seek(at)
            f.write(data)
            f.truncate(4 << 30)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))

    done = pstored("import", str(top), root=made, before=limit)
    assert "Traceback" not in done.stderr
    assert {c["title"] for c in crashes(made)} == {"Kernel panic: x", "Kernel panic: sysrq triggered crash"}
    assert f"a region of ramoops begins at byte {3 << 30:#x}" in done.stdout


def test_the_kdump_kernel_imports_nothing(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """There is little memory, and a root that may not be the right one."""
    made = root()
    made.write("proc/vmcore", "")
    (tmp_path / "x").write_bytes(store(TEXT))
    assert pstored("import", str(tmp_path / "x"), root=made).stdout == "nothing to import\n"
