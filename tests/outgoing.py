# SPDX-License-Identifier: Apache-2.0
"""For the tests of what goes out: archives with any number of crashes, made of one real one; a sink that is told."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pstored.archive import Archive
from pstored.delivery.metrics import Family
from pstored.delivery.payload import Parcel
from pstored.errors import SinkError
from pstored.ids import id_stamp
from pstored.sinks.base import OutgoingSink
from tests.conftest import Pstored, Root, run_pstored

START_S = 1_796_000_000
"""When the first crash of a copied archive was collected."""


def crash_id(number: int, every_s: int = 60) -> str:
    """The id of crash *number*."""
    return f"{id_stamp(START_S + number * every_s)}-{number:012x}"


def copy_crashes(
    root: Root, count: int, *, every_s: int = 60, signature: Callable[[int], str | None] = lambda n: f"{n:016x}"
) -> Archive:
    """Collect the one crash of *root*, and put copies in its place, one every so often; gives the archive."""
    assert run_pstored("collect", root=root).status in (0, 75)
    (first,) = root.crashes()
    template = json.loads((first / "crash.json").read_bytes())
    text = (first / "dmesg.txt").read_bytes()
    for path in first.iterdir():
        path.unlink()
    first.rmdir()
    for number in range(count):
        add_crash(root, template, text, crash_id(number, every_s), signature=signature(number))
    return Archive(str(root.archive))


def add_crash(
    root: Root, template: dict[str, Any], text: bytes, name: str, *, signature: str | None, revision: int = 1
) -> None:
    """Put a copy of a crash into the archive."""
    directory = root.archive / "crashes" / name
    directory.mkdir(exist_ok=True)
    summary = template["summary"] | {"signature_loose": signature, "revision": revision}
    crash = template | {"id": name, "revision": revision, "summary": summary}
    (directory / "dmesg.txt").write_bytes(text)
    (directory / "crash.json").write_text(json.dumps(crash))


def revise(root: Root, name: str, revision: int) -> None:
    """A later harvest told more of a crash."""
    path = root.archive / "crashes" / name / "crash.json"
    crash = json.loads(path.read_bytes())
    crash["revision"] = crash["summary"]["revision"] = revision
    path.write_text(json.dumps(crash))


class ScriptedSink(OutgoingSink):
    """Keeps what it takes; fails as told: *script* says what happens to a crash at its n-th delivery."""

    def __init__(self, script: Callable[[str, int], BaseException | None] = lambda *_: None) -> None:
        self.script = script
        self.got: list[Parcel] = []
        self.asked: list[str] = []
        self.measured: list[Sequence[Family]] = []

    def deliver(self, parcel: Parcel) -> dict[str, Any]:
        """Take it, or not."""
        name = parcel.crash["id"]
        self.asked.append(name)
        if (error := self.script(name, self.asked.count(name))) is not None:
            raise error
        self.got.append(parcel)
        return {"number": len(self.got)}

    def measure(self, families: Sequence[Family]) -> None:
        """Take metrics."""
        self.measured.append(families)

    def names(self) -> list[str]:
        """The crashes it has, in the order of their arrival."""
        return [parcel.crash["id"] for parcel in self.got]


def down(*_: object) -> SinkError:
    """A script: nothing is taken."""
    return SinkError("down")


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of the file sink."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def uids(path: Path) -> list[str]:
    """The uids in it."""
    return [line["uid"] for line in lines(path)]


def names(parcels: Iterable[Parcel]) -> list[str]:
    """Which items they are: the uids without the board."""
    return [parcel.uid.partition("@")[0] for parcel in parcels]


def deliver_until_done(pstored: Pstored, root: Root, out: Path, ids: list[str]) -> int:
    """Deliver until nothing waits; after each round a file sink, *out*, has all, whatever the other sink does.

    Gives how often it took another round.
    """
    rounds = 0
    while (done := pstored("deliver", root=root)).status:
        assert done.status == 75
        assert [line["crash"]["id"] for line in lines(out)] == ids
        time.sleep(0.5)
        rounds += 1
        assert rounds < 10
    return rounds
