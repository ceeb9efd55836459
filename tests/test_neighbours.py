# SPDX-License-Identifier: Apache-2.0
"""The store's neighbours on this machine: firmware's error record, another backend's variables, ramoops' own memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture, hardware
from fake_pstore.efivars import GUID, write_variables
from fake_pstore.hardware import CORRECTED, FATAL, boot_error_record
from fake_pstore.ramoops import Parameters, Region
from tests.conftest import MakeRoot, Pstored, Root

BERT = "sys/firmware/acpi/tables/data/BERT"
EFIVARS = "sys/firmware/efi/efivars"
RAMOOPS = "sys/module/ramoops/parameters"
FIRST, SECOND = (f"{letter * 8}-8888-4777-8666-555555555555" for letter in "ab")
PANIC = b"Panic#1 Part1\n<0>[   77.000001] Kernel panic - not syncing: %s\n"
BROKEN = boot_error_record([(hardware.MEMORY, FATAL, hardware.memory())])
S = 1_795_000_000


def crashes(root: Root) -> list[dict[str, Any]]:
    """The reports."""
    return [json.loads((path / "crash.json").read_bytes()) for path in root.crashes()]


def write(root: Root, path: str, data: bytes) -> None:
    """A file of the tree."""
    target = root.path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def elsewhere(root: Root, pstored: Pstored) -> list[dict[str, Any]]:
    """What collect took from beside the store."""
    found: list[dict[str, Any]] = pstored("collect", "--json", root=root).json["elsewhere"]
    return found


# -- the boot error record


def test_a_fatal_error_of_the_boot_before_is_a_crash(root: MakeRoot, pstored: Pstored) -> None:
    """Once, in words, of the boot before this one; that is a guess, and said to be."""
    made = root()
    made.reboot(FIRST)
    pstored("collect", root=made)
    made.reboot(SECOND)
    write(made, BERT, BROKEN)
    done = pstored("collect", root=made)
    assert f"/{BERT} (bert): 1 new record imported" in done.stdout
    (crash,) = crashes(made)
    assert crash["title"] == (
        "fatal hardware error: memory: multi-bit ECC error at 0x7d0000000 (node 0, card 1, module 2, rank 1)"
    )
    assert (crash["kind"], crash["severity"]) == ("mce", "panic")
    assert (crash["boot"]["id"], crash["boot"]["method"], crash["boot"]["confidence"]) == (FIRST, "elimination", "low")
    assert b"DIMM A1" in (made.crashes()[0] / "cper.txt").read_bytes()
    assert "DIMM A1" in pstored("show", root=made).stdout
    assert elsewhere(made, pstored) == []
    (made.archive / "elsewhere.json").unlink()
    assert [e["archived"] for e in elsewhere(made, pstored)] == [[]]
    made.reboot("cccccccc-8888-4777-8666-555555555555")
    assert elsewhere(made, pstored) == [], "firmware that shows it again at the next boot brings nothing new"
    assert pstored("verify", root=made).status == 0


def test_it_belongs_to_the_crash_of_that_boot(root: MakeRoot, pstored: Pstored) -> None:
    """What the kernel said of it is the same crash, and told more of."""
    made = root()
    made.reboot(FIRST)
    pstored("collect", root=made)
    made.reboot(SECOND)
    stamp = f"<13>[    3.000000] pstored: boot {FIRST}\n".encode()
    made.add("dmesg-erst-7711216860565340161", (PANIC % b"Fatal hardware error!").replace(b"\n", b"\n" + stamp, 1))
    write(made, BERT, BROKEN)
    assert pstored("collect", root=made).status == 0
    (crash,) = crashes(made)
    assert {r["name"] for r in crash["records"]} == {"dmesg-erst-7711216860565340161", "cper-bert-0"}
    assert (crash["boot"]["id"], crash["boot"]["method"]) == (FIRST, "stamp")
    assert crash["title"].startswith("fatal hardware error: memory: ")
    assert any(note.startswith("a guess: cper-bert-0: ") and "firmware tells" in note for note in crash["notes"])


def test_an_error_that_was_corrected_is_no_crash(root: MakeRoot, pstored: Pstored) -> None:
    """Archived all the same; zeros are nothing at all."""
    made = root()
    write(made, BERT, bytes(4096))
    assert elsewhere(made, pstored) == []
    write(made, BERT, boot_error_record([(hardware.MEMORY, CORRECTED, hardware.memory(kind=2))]))
    assert [e["archived"] for e in elsewhere(made, pstored)] == [["cper-bert-0"]]
    assert crashes(made) == []


# -- variables of EFI


def test_variables_of_a_backend_that_is_not_active(root: MakeRoot, pstored: Pstored) -> None:
    """One bundle, one crash; none of them is erased, and none is read twice."""
    loaded = capture.load("x86_64-6.1deb-efi")
    made = root()
    made.write("sys/module/pstore/parameters/backend", "ramoops\n")
    records = [(n, d) for n, d, _ in loaded.records()]
    paths = write_variables(made.path / EFIVARS, records)
    (made.path / EFIVARS / "Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(b"\x07\0\0\0\x01")
    (done,) = elsewhere(made, pstored)
    assert (done["kind"], len(done["archived"]), len(done["harvests"])) == ("efi", len(records), 1)
    (crash,) = crashes(made)
    assert crash["title"] == "Kernel panic: sysrq triggered crash"
    assert crash["dumps"][0]["parts"] == list(range(1, len(records) + 1))
    assert all(path.exists() for path in paths)
    assert elsewhere(made, pstored) == []
    paths[0].unlink()
    assert [e["archived"] for e in elsewhere(made, pstored)] == [[]]
    late = made.path / EFIVARS / f"dump-type0-1-1-{S}-D-{GUID}"
    late.write_bytes(b"\x07\0\0\0" + PANIC % b"late")
    assert [e["archived"] for e in elsewhere(made, pstored)] == [[f"dmesg-efi_pstore-{S * 100_000 + 1001}"]]


@pytest.mark.parametrize("backend", ["efi", "efi_pstore", "(null)"])
def test_variables_that_pstorefs_shows_are_left_to_it(backend: str, root: MakeRoot, pstored: Pstored) -> None:
    """Or will, once the module is loaded."""
    made = root()
    made.write("sys/module/pstore/parameters/backend", f"{backend}\n")
    write_variables(made.path / EFIVARS, [(f"dmesg-efi-{S * 100_000 + 1001}", PANIC % b"x")])
    assert elsewhere(made, pstored) == []


# -- by hand


def test_import_without_a_path_takes_them_too(root: MakeRoot, pstored: Pstored) -> None:
    """And --list says so without writing anything."""
    made = root()
    write(made, BERT, BROKEN)
    listed = pstored("import", "--list", root=made)
    assert f"/{BERT} (bert): 1 record\n  cper-bert-0 " in listed.stdout
    assert not made.archive.exists()
    assert "1 new record imported" in pstored("import", root=made).stdout
    assert len(crashes(made)) == 1


# -- the memory of ramoops


def with_memory(root: Root, region: Region, *, at: int = 0x8000000) -> Root:
    """A machine with a region in its memory, and the driver's parameters in sysfs."""
    root.configure("[elsewhere]\ndev_mem = true\n")
    path = root.path / "dev/mem"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        f.seek(at)
        f.write(region.image())
    values = region.parameters
    for name, value in (("mem_address", at), ("mem_size", values.mem_size), ("record_size", values.record_size)):
        root.write(f"{RAMOOPS}/{name}", f"{value}\n")
    for name in ("console_size", "ftrace_size", "pmsg_size", "ecc"):
        root.write(f"{RAMOOPS}/{name}", f"{getattr(values, name)}\n")
    return root


def test_dumps_that_the_kernel_does_not_show(root: MakeRoot, pstored: Pstored) -> None:
    """One whose first line is damaged; what pstorefs has shown is known, and the live console is left alone."""
    region = Region(Parameters())
    region.dump(PANIC % b"shown", seconds=S)
    region.dump(PANIC % b"dropped", seconds=S)
    region.dmesg[1].data[5] = 0x7F
    region.console[0].write(b"[    1.000000] of the running boot\n")
    made = with_memory(root(), region)
    made.add("dmesg-ramoops-0", PANIC % b"shown", mtime_ns=S * 10**9)
    (done,) = elsewhere(made, pstored)
    assert (done["archived"], done["known"]) == (["dmesg-ramoops-1"], 1)
    assert {c["title"] for c in crashes(made)} == {"Kernel panic: shown", "Kernel panic: dropped"}
    assert elsewhere(made, pstored) == []


def test_it_is_read_only_if_somebody_asks(root: MakeRoot, pstored: Pstored) -> None:
    """By default it is not even opened."""
    region = Region(Parameters())
    region.dump(PANIC % b"x", seconds=S)
    made = with_memory(root(), region)
    made.configure("")
    assert elsewhere(made, pstored) == []


def test_a_memory_that_cannot_be_read_is_said(root: MakeRoot, pstored: Pstored) -> None:
    """The kernel refuses, or there is no such device."""
    made = with_memory(root(), Region(Parameters()))
    (made.path / "dev/mem").unlink()
    done = pstored("collect", root=made)
    assert done.status == 1
    assert "there is no" in done.stderr


@pytest.mark.parametrize("memory", ["", "{}", '{"seen": 7}', '{"seen": {"bert": 3}}', '{"seen": {"bert": [7]}}'])
def test_memory_that_is_damaged_is_made_again(memory: str, root: MakeRoot, pstored: Pstored) -> None:
    """The archive itself tells what is in it."""
    made = root()
    write(made, BERT, BROKEN)
    elsewhere(made, pstored)
    good = made.load("elsewhere.json")
    Path(made.archive / "elsewhere.json").write_text(memory)
    (done,) = elsewhere(made, pstored)
    assert (done["archived"], done["known"]) == ([], 1)
    assert made.load("elsewhere.json") == good
