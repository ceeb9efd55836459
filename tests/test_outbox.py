# SPDX-License-Identifier: Apache-2.0
"""The outbox: what is still due is on disk until the receipt is."""

import os
from pathlib import Path

import pytest

from pstored import steps
from pstored.archive import Archive
from pstored.config import Config, Journal
from pstored.delivery.outbox import Entry, Outbox, enabled_sinks
from tests.conftest import forked

ID = "20261123T045102Z-0123456789ab"
LATER = "20261123T045103Z-0123456789ab"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """An empty one, of an archive with two crashes."""
    archive = Archive(str(tmp_path))
    for crash_id in (ID, LATER):
        os.makedirs(archive.crash_directory(crash_id))
    return Outbox(archive)


def test_put_pending_done(outbox: Outbox) -> None:
    """Due until done; then not due again, but for a newer revision."""
    outbox.put("journal", LATER, 1)
    outbox.put("journal", ID, 1)
    assert [e.crash_id for e in outbox.pending("journal")] == [ID, LATER]
    entry = next(outbox.pending("journal"))
    outbox.done(entry, {"cursor": "c"})
    assert [e.crash_id for e in outbox.pending("journal")] == [LATER]
    said = outbox.delivered(ID)["journal"]
    assert (said["revision"], said["receipt"]) == (1, {"cursor": "c"})
    outbox.put("journal", ID, 1)
    assert [e.crash_id for e in outbox.pending("journal")] == [LATER]
    outbox.put("journal", ID, 2)
    assert [(e.crash_id, e.revision) for e in outbox.pending("journal")] == [(ID, 2), (LATER, 1)]


def test_sinks_do_not_know_of_each_other(outbox: Outbox) -> None:
    """One sink's receipt is not the other's."""
    for sink in ("journal", "mqtt"):
        outbox.put(sink, ID, 1)
    outbox.done(next(outbox.pending("journal")), {})
    assert list(outbox.pending("journal")) == []
    outbox.done(next(outbox.pending("mqtt")), {"id": 7})
    assert set(outbox.delivered(ID)) == {"journal", "mqtt"}


def test_receipt_is_durable_before_the_entry_goes(outbox: Outbox) -> None:
    """The other way round, a power cut could lose both the entry and the receipt."""
    outbox.put("journal", ID, 1)

    def child() -> list[str]:
        seen: list[str] = []
        steps.hook = seen.append
        outbox.done(next(outbox.pending("journal")), {})
        return [step.replace(outbox.archive.path + "/", "") for step in seen]

    assert forked(child) == [
        "create .new-delivered.json",
        "write .new-delivered.json",
        "fsync .new-delivered.json",
        f"rename crashes/{ID}/delivered.json",
        f"fsync crashes/{ID}",
        f"unlink outbox/journal/{ID}.json",
    ]


def test_failed_keeps_count_and_reason(outbox: Outbox) -> None:
    """Attempts add up; a refusal is kept as one."""
    outbox.put("journal", ID, 1)
    outbox.failed(next(outbox.pending("journal")), "down", refused=False)
    outbox.failed(next(outbox.pending("journal")), "too large", refused=True)
    assert list(outbox.pending("journal")) == [Entry("journal", ID, 1, 2, "too large", True)]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"revision": "x", "attempts": 0}', b'{"revision": null}', b"\xff"]
)
def test_damaged_entry_is_begun_anew(outbox: Outbox, data: bytes) -> None:
    """It is due all the same."""
    outbox.put("journal", ID, 1)
    Path(outbox.archive.outbox, "journal", f"{ID}.json").write_bytes(data)
    (entry,) = outbox.pending("journal")
    assert (entry.crash_id, entry.attempts, entry.refused) == (ID, 0, False)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"sinks": 1}', b'{"sinks": {"journal": 1}}', b'{"sinks": {"journal": {"revision": "x"}}}'],
)
def test_damaged_receipt_is_none(outbox: Outbox, data: bytes) -> None:
    """Then the crash is due again, and the sink is asked; nothing stops."""
    Path(outbox.archive.crash_directory(ID), "delivered.json").write_bytes(data)
    outbox.put("journal", ID, 1)
    (entry,) = outbox.pending("journal")
    outbox.done(entry, {})
    assert outbox.delivered(ID)["journal"]["revision"] == 1


def test_other_files_are_no_entries(outbox: Outbox) -> None:
    """Litter, notes of a person, directories: ignored."""
    outbox.put("journal", ID, 1)
    directory = Path(outbox.archive.outbox, "journal")
    for name in (f".new-{LATER}.json", "README", f"{LATER}.json.bak", "x.json"):
        (directory / name).write_bytes(b"{}")
    assert [e.crash_id for e in outbox.pending("journal")] == [ID]
    assert list(outbox.pending("nobody")) == []


def test_enabled_sinks() -> None:
    """The journal, if it is on; undecided is not on."""
    assert enabled_sinks(Config(journal=Journal(enabled=True))) == ["journal"]
    assert enabled_sinks(Config(journal=Journal(enabled=False))) == []
    assert enabled_sinks(Config()) == []
