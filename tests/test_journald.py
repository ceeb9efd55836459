# SPDX-License-Identifier: Apache-2.0
"""The journal sink against a real journald: what counts as delivered is in the journal, once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pstored.errors import SinkError
from pstored.sinks.journal import MESSAGE_ID, RESET_MESSAGE_ID, fields
from tests.conftest import REPOSITORY, Done, MakeRoot, Root, can_mount, require

pytestmark = pytest.mark.journald

PSTORED = (sys.executable, "-m", "pstored")
CONFIG = '[journal]\nenabled = true\nrestore = false\nnamespace = "t"\n'

_RUN_ALL = """
import json, subprocess, sys
done = []
for argv in json.loads(sys.argv[1]):
    r = subprocess.run(argv, capture_output=True)
    done.append([r.returncode, r.stdout.decode(errors="backslashreplace"), r.stderr.decode(errors="backslashreplace")])
print(json.dumps(done))
"""

_KILLED_BEFORE_THE_RECEIPT = """
import os, sys
from pstored import cli, steps
steps.hook = lambda name: os._exit(9) if "delivered.json" in name else None
cli.run(sys.argv[1:])
"""


def with_journald(*commands: tuple[str | Path, ...], size: str = "64M") -> list[Done]:
    """Run the commands one after the other beside a journald of their own."""
    require(can_mount(), "a journald of its own needs root and mount namespaces")
    require(os.path.exists("/lib/systemd/systemd-journald"), "there is no systemd-journald (apt-get install systemd)")
    argv = json.dumps([[str(word) for word in command] for command in commands])
    script = REPOSITORY / "tests/journald.sh"
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", script, size, sys.executable, "-c", _RUN_ALL, argv],
        capture_output=True,
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [Done(*one) for one in json.loads(done.stdout)]


def pstored(root: Root, *arguments: str) -> tuple[str | Path, ...]:
    """A command line."""
    return (*PSTORED, "--root", root.path, *arguments)


def journalctl(*arguments: str) -> tuple[str, ...]:
    """A command line."""
    return ("journalctl", "--namespace=t", "--no-pager", "-q", *arguments)


OURS = journalctl("-o", "json", "--all", f"MESSAGE_ID={MESSAGE_ID}")


def entries(done: Done) -> list[dict[str, Any]]:
    """What ``journalctl -o json`` printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def text_of(value: str | list[int]) -> bytes:
    """journalctl prints text with control characters as a list of bytes."""
    return value.encode() if isinstance(value, str) else bytes(value)


@pytest.fixture
def crashed(root: MakeRoot) -> Root:
    """A machine with one crash, whose journal is the test's."""
    made = root("oops-panic", backend="efi_pstore")
    made.configure(CONFIG)
    return made


def due(root: Root) -> list[str]:
    """What is still to be delivered."""
    directory = root.archive / "outbox/journal"
    return sorted(os.listdir(directory)) if directory.exists() else []


def test_crash_arrives_with_its_fields(crashed: Root) -> None:
    """One entry; found by MESSAGE_ID, by the crash's id and by its words; every field as the report has it."""
    collected, ours, by_id, grepped = with_journald(
        pstored(crashed, "collect"),
        OURS,
        journalctl("-o", "cat", f"MESSAGE_ID={MESSAGE_ID}"),
        journalctl("-o", "cat", "-g", "Kernel panic|Fatal exception|BUG: "),
    )
    assert collected.status == 0
    (crash,) = crashed.crashes()
    report = crashed.load(f"crashes/{crash.name}/crash.json")
    (entry,) = entries(ours)
    assert entry["MESSAGE"].startswith(report["title"])
    assert report["boot"]["id"] in entry["MESSAGE"]
    assert by_id.stdout == grepped.stdout == entry["MESSAGE"] + "\n"
    assert entry["PRIORITY"] == "2"
    assert entry["SYSLOG_IDENTIFIER"] == "pstored"
    assert entry["PSTORE_CRASH_ID"] == crash.name
    assert entry["PSTORE_BOOT_ID"] == crashed.boots[0].boot_id.replace("-", "")
    assert entry["PSTORE_BOOT_METHOD"] == "stamp"
    assert entry["PSTORE_TITLE"] == report["title"]
    assert entry["PSTORE_KERNEL"] == report["kernel"]["release"]
    assert entry["PSTORE_BACKEND"] == "efi_pstore"
    assert entry["PSTORE_COMPLETE"] == "1"
    assert entry["PSTORE_REVISION"] == "1"
    assert entry["PSTORE_REPORT"] == str(crash / "crash.json")
    text = (crash / "dmesg.txt").read_bytes()
    assert text_of(entry["PSTORE_TEXT"]) == text
    assert "PSTORE_TEXT_TRUNCATED" not in entry
    delivered = json.loads((crash / "delivered.json").read_bytes())["sinks"]["journal"]
    assert delivered["revision"] == 1
    assert delivered["receipt"]["cursor"] == entry["__CURSOR"]
    assert not due(crashed)


def test_crash_is_delivered_once(crashed: Root) -> None:
    """Collect, collect and deliver again: one entry."""
    *_, ours = with_journald(
        pstored(crashed, "collect"), pstored(crashed, "collect"), pstored(crashed, "deliver"), OURS
    )
    assert len(entries(ours)) == 1


def test_killed_between_send_and_receipt_sends_once(crashed: Root) -> None:
    """The journal has it, pstored does not know: the next delivery looks first, and only notes it."""
    killed, before, again, ours = with_journald(
        (sys.executable, "-c", _KILLED_BEFORE_THE_RECEIPT, "--root", crashed.path, "collect"),
        ("sh", "-c", f"ls {crashed.archive}/outbox/journal {crashed.archive}/crashes/*"),
        pstored(crashed, "deliver"),
        OURS,
    )
    assert killed.status == 9
    assert "delivered.json" not in before.stdout
    assert ".json" in before.stdout
    assert again.status == 0
    assert len(entries(ours)) == 1
    assert not due(crashed)
    assert (crashed.crashes()[0] / "delivered.json").exists()


def test_lost_receipt_sends_nothing_twice(crashed: Root) -> None:
    """delivered.json gone and all analyzed anew: due again, and found in the journal."""
    collected, _, analyzed, delivered, ours = with_journald(
        pstored(crashed, "collect"),
        ("sh", "-c", f"rm {crashed.archive}/crashes/*/delivered.json"),
        pstored(crashed, "analyze", "--all"),
        pstored(crashed, "deliver"),
        OURS,
    )
    assert (collected.status, analyzed.status, delivered.status) == (0, 0, 0)
    assert len(entries(ours)) == 1


def large(root: MakeRoot, size: int, config: str) -> Root:
    """A crash with that many bytes of text."""
    made = root()
    lines = b"".join(b"<6>[%5d.%06d] filler number %d %s\n" % (n, n, n, b"." * 100) for n in range(size // 140))
    made.add(
        "dmesg-erst-7711219347287212033",
        b"Panic#1 Part1\n" + lines + b"<0>[99999.000001] Kernel panic - not syncing: big\n",
    )
    made.configure(CONFIG + config)
    return made


@pytest.mark.parametrize(("cap", "kept"), [(1024, 1024), (300 * 1024, 300 * 1024), (3 << 20, (3 << 20) // 8)])
def test_entry_that_journald_drops_is_sent_with_less_text(root: MakeRoot, cap: int, kept: int) -> None:
    """journald drops an entry over SystemMaxUse/8 (2 MiB here) without a word to the sender: it gets a smaller one."""
    made = large(root, 4 << 20, f"max_text_bytes = {cap}\n")
    collected, ours = with_journald(pstored(made, "collect"), OURS, size="16M")
    assert collected.status == 0
    (entry,) = entries(ours)
    text = (made.crashes()[0] / "dmesg.txt").read_bytes()
    assert len(text) > 4_000_000
    assert text_of(entry["PSTORE_TEXT"]) == text[-kept:]
    assert entry["PSTORE_TEXT_TRUNCATED"] == "1"
    assert not due(made)


def test_entry_that_journald_keeps_in_no_size_is_not_delivered(root: MakeRoot) -> None:
    """With Storage=none nothing is kept: still due, exit 75, said why and what to do."""
    made = large(root, 1 << 20, "")
    collected, again, ours = with_journald(pstored(made, "collect"), pstored(made, "deliver"), OURS, size="none")
    for done in (collected, again):
        assert done.status == 75
        assert "not delivered yet" in done.stderr
        assert "the journal does not have it" in done.stderr
        assert "Storage=none" in done.stderr
    assert entries(ours) == []
    (entry,) = due(made)
    facts = made.load(f"outbox/journal/{entry}")
    assert facts["attempts"] == 2
    assert "does not have it" in facts["error"]
    assert not (made.crashes()[0] / "delivered.json").exists()


@pytest.mark.parametrize("cap", [0, 100])
def test_cap_of_the_text(root: MakeRoot, cap: int) -> None:
    """max_text_bytes keeps the last so many bytes; 0 keeps no text at all, and says that it is cut."""
    made = large(root, 1000, f"max_text_bytes = {cap}\n")
    collected, ours = with_journald(pstored(made, "collect"), OURS)
    assert collected.status == 0
    (entry,) = entries(ours)
    text = (made.crashes()[0] / "dmesg.txt").read_bytes()
    assert text_of(entry.get("PSTORE_TEXT", "")) == text[len(text) - cap :]
    assert entry["PSTORE_TEXT_TRUNCATED"] == "1"


def test_no_journald_is_a_delivery_still_due(crashed: Root) -> None:
    """Exit 75, everything else is done; once there is a journald, it is delivered."""
    (collected,) = with_journald(pstored(crashed, "collect"), size="off")
    assert collected.status == 75
    assert "no journald listens" in collected.stderr
    assert len(due(crashed)) == len(crashed.crashes()) == 1
    assert crashed.names() == []
    delivered, ours = with_journald(pstored(crashed, "deliver"), OURS)
    assert delivered.status == 0
    assert len(entries(ours)) == 1
    assert not due(crashed)


def test_bytes_of_any_kind_arrive(root: MakeRoot) -> None:
    """NULs, newlines and what is no UTF-8 in the log: the entry has the bytes as dmesg.txt has them."""
    made = root()
    made.add(
        "dmesg-erst-7711219347287212033",
        b"Panic#1 Part1\n<0>[    1.000001] Kernel panic - not syncing: \xff\xfe\x00\x1b[31m\n"
        b"<0>[    1.000002] MESSAGE_ID=no\n",
    )
    made.configure(CONFIG)
    collected, ours = with_journald(pstored(made, "collect"), OURS)
    assert collected.status in (0, 1)
    (entry,) = entries(ours)
    assert text_of(entry["PSTORE_TEXT"]) == (made.crashes()[0] / "dmesg.txt").read_bytes()


def test_wrong_namespace_is_not_delivered(crashed: Root) -> None:
    """Where the journal cannot be read back, nothing counts as delivered."""
    crashed.configure('[journal]\nenabled = true\nnamespace = "nowhere"\n')
    (collected,) = with_journald(pstored(crashed, "collect"))
    assert collected.status == 75
    assert len(due(crashed)) == 1


def test_sink_error_says_whether_to_try_again() -> None:
    """By default a delivery may succeed later."""
    assert SinkError("x").retry is True


LITTLE: dict[str, Any] = {
    "id": "20261123T045102Z-0123456789ab",
    "revision": 1,
    "title": "something",
    "kind": "unknown",
    "severity": "notice",
    "function": None,
    "boot": {"id": None, "method": "unknown", "confidence": "none"},
    "time": {"wall": None},
    "kernel": {"release": None},
    "backend": "ramoops",
    "complete": False,
}
"""crash.json, as far as the sink looks at it."""


def test_fields_of_a_crash_of_which_little_is_known() -> None:
    """Absent fields are left out, not sent empty."""
    found = fields(LITTLE, text=b"", report_path="/x", cap=10)
    assert found["MESSAGE"] == "something (a boot that cannot be named, kernel unknown)"
    assert found["PSTORE_COMPLETE"] == "0"
    absent = {"PSTORE_BOOT_ID", "PSTORE_FUNCTION", "PSTORE_TIME", "PSTORE_KERNEL", "PSTORE_TEXT"}
    assert not absent & set(found)
    assert found["PRIORITY"] == "3"


BOOT = "f3c134ae-8626-4f73-9871-3d09cbfdd92a"
RESET = LITTLE | {
    "title": "the watchdog ran out",
    "kind": "watchdog",
    "severity": "reset",
    "boot": {"id": BOOT, "method": "ledger", "confidence": "high"},
    "backend": None,
}


def test_boot_that_ended_without_a_word_has_a_message_of_its_own() -> None:
    """Another MESSAGE_ID; the sentence names the boot and does not speak of a crash."""
    found = fields(RESET, text=b"", report_path="/x", cap=10)
    assert found["MESSAGE_ID"] == RESET_MESSAGE_ID != MESSAGE_ID
    assert found["PRIORITY"] == "3"
    assert found["MESSAGE"] == f"Boot {BOOT} ended without a word: the watchdog ran out (kernel unknown)"
    assert not {"PSTORE_TEXT", "PSTORE_TEXT_TRUNCATED", "PSTORE_BACKEND"} & set(found)


CATALOG = REPOSITORY / "units/pstored.catalog"

_SEND = "import sys, json; from pstored import journald; journald.send(json.loads(sys.argv[1])); journald.sync('t')"


def test_catalog_explains_both_messages(crashed: Root, tmp_path: Path) -> None:
    """``journalctl -x`` shows what happened, where the report is and what to do, with the entry's own values."""
    target = tmp_path / "catalog/usr/lib/systemd/catalog/pstored.catalog"
    target.parent.mkdir(parents=True)
    target.write_bytes(CATALOG.read_bytes())
    made = tmp_path / "catalog/var/lib/systemd/catalog"
    made.mkdir(parents=True)
    reset = json.dumps(fields(RESET, text=b"", report_path="/x/crash.json", cap=10))
    updated, listed, mounted, _, _, crash, ended = with_journald(
        ("journalctl", "--update-catalog", f"--root={tmp_path}/catalog"),
        ("journalctl", "--list-catalog", f"--root={tmp_path}/catalog"),
        ("sh", "-c", f"mkdir -p /var/lib/systemd/catalog && mount --bind {made} /var/lib/systemd/catalog"),
        pstored(crashed, "collect"),
        (sys.executable, "-c", _SEND, reset),
        journalctl("-x", f"MESSAGE_ID={MESSAGE_ID}"),
        journalctl("-x", f"MESSAGE_ID={RESET_MESSAGE_ID}"),
    )
    assert (updated.status, updated.stderr) == (0, "")
    assert sorted(line.split()[0] for line in listed.stdout.splitlines()) == sorted([MESSAGE_ID, RESET_MESSAGE_ID])
    assert mounted.status == 0
    (path,) = crashed.crashes()
    report = crashed.load(f"crashes/{path.name}/crash.json")
    assert f"The kernel crashed: {report['title']}" in crash.stdout
    boot_id = report["boot"]["id"].replace("-", "")  # journalctl takes it in no other form
    for said in (f"pstored show {path.name}", f"journalctl -k -b {boot_id}", f"{path}/crash.json"):
        assert said in crash.stdout
    assert "A boot ended without a word: the watchdog ran out" in ended.stdout
    assert f"journalctl -e -b {BOOT.replace('-', '')}" in ended.stdout
    assert "@" not in crash.stdout + ended.stdout
