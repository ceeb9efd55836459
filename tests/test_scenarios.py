# SPDX-License-Identifier: Apache-2.0
"""Every made-up story on every backend through ``pstored collect``: no failure, and as many crashes as there were."""

from typing import Any

import pytest

from fake_pstore import damage, kernels
from fake_pstore.scenarios import SCENARIOS
from pstored.crashes.report import Report
from tests.conftest import Done, MakeRoot, Pstored, Root

STORIES = [(name, backend) for name, scenario in SCENARIOS.items() for backend in scenario.backends]
NO_CRASH = {"shutdown", "console-only-clean"}


def crashes_of(name: str) -> int:
    """How many a scenario has: one a boot, but for orderly ends."""
    if name in NO_CRASH:
        return 0
    return len(SCENARIOS[name].boots)


def options(name: str, backend: str) -> dict[str, Any]:
    """What the scenario needs."""
    return {"backend": backend, **({"ecc": damage.ECC_NEW} if SCENARIOS[name].needs_ecc else {})}


def collect(root: Root, pstored: Pstored) -> Done:
    """Run it, and see that it did not fail."""
    root.configure("[archive]\nallow_volatile = true\n")  # the tests may run in memory
    done = pstored("collect", "--json", root=root)
    assert "Traceback" not in done.stderr
    assert done.status in (0, 1), done.stderr
    for crash in done.json["crashes"]:
        Report.model_validate(crash)
        assert crash["boot"]["evidence"]
    return done


@pytest.mark.parametrize(("name", "backend"), STORIES, ids=["-".join(s) for s in STORIES])
def test_a_story_gives_its_crashes(name: str, backend: str, root: MakeRoot, pstored: Pstored) -> None:
    """As many as boots that crashed, each named by its stamp if it is one of them; what is no crash is a note."""
    made = root(name, **options(name, backend))
    done = collect(made, pstored)
    crashes = done.json["crashes"]
    if name == "garbage":
        assert any(c["boot"]["id"] == made.boots[0].boot_id and c["kind"] == "sysrq" for c in crashes)
        assert done.json["harvest"]["archived"]
        return
    assert len(crashes) == crashes_of(name)
    real = {boot.boot_id for boot in made.boots}
    assert {c["boot"]["id"] for c in crashes} <= real
    assert all(c["boot"]["method"] == "stamp" for c in crashes)
    assert done.status == 0 or not all(c["complete"] for c in crashes)
    if not crashes:
        assert done.json["notes"]


@pytest.mark.parametrize("name", [n for n in SCENARIOS if n != "garbage"])
@pytest.mark.parametrize("stamp", ["stamped", "not stamped"])
def test_a_story_of_an_old_kernel_gives_its_crashes(name: str, stamp: str, root: MakeRoot, pstored: Pstored) -> None:
    """The first backend, its oldest kernel; and without a stamp no boot is named that is none of the story's."""
    backend = SCENARIOS[name].backends[0]
    since = kernels.BACKENDS[backend].since
    era = next(key for key, e in kernels.ERAS.items() if since <= e.version and (e.pmsg or "pmsg" not in name))
    more = options(name, backend) | ({} if stamp == "stamped" else {"stamp_prefix": ""})
    made = root(name, era=era, **more)
    crashes = collect(made, pstored).json["crashes"]
    assert len(crashes) == crashes_of(name)
    assert {c["boot"]["id"] for c in crashes} <= {None, *(boot.boot_id for boot in made.boots)}


@pytest.mark.parametrize("backend", ["efi", "efi_pstore", "erst"])
def test_missing_parts_are_named(backend: str, root: MakeRoot, pstored: Pstored) -> None:
    """In the report, on the page and in the text; the crash is not called complete."""
    made = root("panic", backend=backend, missing_parts=frozenset((2,)), parts=4)
    done = collect(made, pstored)
    (crash,) = done.json["crashes"]
    assert crash["dumps"][0]["missing"] == [2]
    assert crash["complete"] is False
    assert done.status == 1
    assert "missing: part 2" in pstored("show", root=made).stdout
    text = (made.crashes()[0] / "dmesg.txt").read_bytes()
    assert b"\n--- pstored: Panic#1: part 2 is missing ---\n" in text


@pytest.mark.parametrize("backend", ["efi", "efi_pstore"])
def test_more_than_a_hundred_parts_are_one_dump(backend: str, root: MakeRoot, pstored: Pstored) -> None:
    """All there, in order."""
    (crash,) = collect(root("big", backend=backend), pstored).json["crashes"]
    (dump,) = crash["dumps"]
    assert len(dump["parts"]) > 100
    assert dump["parts"] == list(range(1, len(dump["parts"]) + 1))
    assert crash["complete"] is True


@pytest.mark.parametrize("algorithm", ["zlib", "deflate", "deflate32k", "lz4", "zstd", "lzo", "842"])
@pytest.mark.parametrize("backend", ["ramoops", "efi", "erst"])
def test_records_of_another_algorithm_are_the_same_crash(
    algorithm: str, backend: str, root: MakeRoot, pstored: Pstored
) -> None:
    """The kernel that shows them cannot unpack them: pstored does."""
    (crash,) = collect(root("oops-panic", backend=backend, algorithm=algorithm), pstored).json["crashes"]
    assert [d["reason"] for d in crash["dumps"]] == ["Oops", "Panic"]
    assert crash["complete"] is True
    assert {r["compression"] for r in crash["records"]} - {None}


@pytest.mark.parametrize("kind", sorted(damage.DAMAGES))
@pytest.mark.parametrize("algorithm", [None, "deflate"])
def test_a_damaged_store_is_collected(kind: str, algorithm: str | None, root: MakeRoot, pstored: Pstored) -> None:
    """The crash is there, and what is broken in it is said."""
    made = root("oops-panic", backend="efi_pstore", damage=(kind,) * 4, algorithm=algorithm)
    done = collect(made, pstored)
    assert done.json["crashes"]
    assert any(c["boot"]["id"] == made.boots[0].boot_id for c in done.json["crashes"])
