# SPDX-License-Identifier: Apache-2.0
"""Flash of this machine that pstore does not show: mtdoops' partition and PowerPC's NVRAM, taken by each collect."""

from typing import Any

import pytest

from fake_pstore import capture, mtdoops
from tests.conftest import MakeRoot, Pstored, Root
from tests.test_neighbours import crashes, elsewhere, write

MTD = """dev:    size   erasesize  name
mtd0: 00400000 00020000 "u-boot"
mtd7: 00020000 00020000 "last words"
"""
PARAMETERS = "sys/module/mtdoops/parameters"
TEXT = b"<4>[   77.000000] CPU: 0\n<0>[   77.000001] Kernel panic - not syncing: %s\n"
S = 1_795_000_000


def with_mtdoops(root: Root, *dumps: mtdoops.Dump, mtddev: str = "last words") -> Root:
    """A machine with two partitions, of which mtdoops has the second."""
    write(root, "proc/mtd", MTD.encode())
    write(root, f"{PARAMETERS}/mtddev", f"{mtddev}\n".encode())
    write(root, f"{PARAMETERS}/record_size", b"8192\n")
    write(root, "dev/mtd7", mtdoops.partition([*dumps, None], 8192))
    return root


def dump(number: int, words: bytes) -> mtdoops.Dump:
    """A panic."""
    return mtdoops.Dump(number, TEXT % words, (S + number * 1000) * 10**9)


@pytest.mark.parametrize("mtddev", ["last words", "7"])
def test_dumps_of_mtdoops_are_taken_once(mtddev: str, root: MakeRoot, pstored: Pstored) -> None:
    """By the partition's name or its number; a later one is new, and nothing is written there."""
    made = with_mtdoops(root(), dump(1, b"one"), dump(2, b"two"), mtddev=mtddev)
    (done,) = elsewhere(made, pstored)
    assert (done["path"], done["kind"]) == ("/dev/mtd7", "mtdoops")
    assert done["archived"] == ["dmesg-mtdoops-1", "dmesg-mtdoops-2"]
    assert elsewhere(made, pstored) == []
    with_mtdoops(made, dump(1, b"one"), dump(2, b"two"), dump(3, b"three"), mtddev=mtddev)
    before = (made.path / "dev/mtd7").read_bytes()
    (done,) = elsewhere(made, pstored)
    assert (done["archived"], done["problems"]) == (["dmesg-mtdoops-3"], [])
    assert {c["title"] for c in crashes(made)} == {f"Kernel panic: {n}" for n in ("one", "two", "three")}
    assert (made.path / "dev/mtd7").read_bytes() == before
    assert pstored("verify", root=made).status == 0


def test_what_the_archive_has_forgotten_comes_not_back(root: MakeRoot, pstored: Pstored) -> None:
    """The flash has it still."""
    made = with_mtdoops(root(), dump(1, b"one"))
    elsewhere(made, pstored)
    pstored("prune", "--max-harvests", "0", root=made)
    assert elsewhere(made, pstored) == []


@pytest.mark.parametrize("mtddev", ["", "0", "9", "other", "last"])
def test_other_partitions_are_not_read(mtddev: str, root: MakeRoot, pstored: Pstored) -> None:
    """Without a partition of its own, mtdoops has written nothing; mtd0 has a dump, but of somebody else."""
    made = with_mtdoops(root(), dump(1, b"one"), mtddev=mtddev)
    write(made, "dev/mtd0", b"\xff" * 8192)
    assert elsewhere(made, pstored) == []


def test_nothing_is_read_if_the_configuration_says_so(root: MakeRoot, pstored: Pstored) -> None:
    """Neither of them."""
    made = with_mtdoops(with_nvram(root()), dump(1, b"one"))
    made.configure("[elsewhere]\nflash = false\n")
    assert elsewhere(made, pstored) == []


def test_a_device_that_a_service_does_not_see_is_a_note(root: MakeRoot, pstored: Pstored) -> None:
    """No failure: the dumps stay where they are."""
    made = with_mtdoops(root(), dump(1, b"one"))
    (made.path / "dev/mtd7").rename(made.path / "dev/hidden")
    done = pstored("collect", "--json", root=made)
    (taken,) = done.json["elsewhere"]
    assert taken["notes"] == ["/dev/mtd7: not there: a service sees it only by a drop-in (pstored.conf)"]
    assert done.status == 0
    (made.path / "dev/hidden").rename(made.path / "dev/mtd7")
    assert len(elsewhere(made, pstored)) == 1


def test_a_device_that_is_none_is_a_problem(root: MakeRoot, pstored: Pstored) -> None:
    """And keeps nothing else from being done."""
    made = with_mtdoops(root("lab-erst"))
    (made.path / "dev/mtd7").unlink()
    (made.path / "dev/mtd7").mkdir()
    done = pstored("collect", root=made)
    assert done.status == 1
    assert "neither a file nor a device" in done.stderr
    assert len(crashes(made)) == 1


# -- NVRAM


def with_nvram(root: Root, *, backend: str | None = None) -> Root:
    """A PowerPC machine, with what a real one's NVRAM held."""
    (root.path / "proc/powerpc").mkdir(parents=True)
    write(root, "dev/nvram", capture.load("deb61-ppc64-nvram").raw("nvram.img"))
    if backend is not None:
        write(root, "sys/module/pstore/parameters/backend", f"{backend}\n".encode())
    return root


def test_nvram_has_the_oops_once(root: MakeRoot, pstored: Pstored) -> None:
    """As `pstored import FILE` gives it."""
    made = with_nvram(root())
    (done,) = elsewhere(made, pstored)
    assert (done["path"], done["kind"], done["archived"]) == ("/dev/nvram", "nvram", ["dmesg-nvram-1"])
    (crash,) = crashes(made)
    assert crash["severity"] in ("oops", "panic")
    assert elsewhere(made, pstored) == []


def test_nvram_that_pstore_shows_is_left_to_it(root: MakeRoot, pstored: Pstored) -> None:
    """It would be the same record once more."""
    made = with_nvram(root(), backend="nvram")
    assert elsewhere(made, pstored) == []


def test_nvram_of_a_pc_is_not_read(root: MakeRoot, pstored: Pstored) -> None:
    """It is the CMOS."""
    made = with_nvram(root())
    (made.path / "proc/powerpc").rmdir()
    assert elsewhere(made, pstored) == []


def test_import_without_a_path_takes_both(root: MakeRoot, pstored: Pstored) -> None:
    """And lists them without writing."""
    made = with_mtdoops(with_nvram(root()), dump(1, b"one"))
    listed = pstored("import", "--list", root=made)
    assert "dmesg-mtdoops-1" in listed.stdout
    assert "dmesg-nvram-1" in listed.stdout
    assert not made.archive.exists()
    done: dict[str, Any] = pstored("import", "--json", root=made).json
    assert [i["archived"] for i in done["imports"]] == [["dmesg-mtdoops-1"], ["dmesg-nvram-1"]]
