# SPDX-License-Identifier: Apache-2.0
"""The history of boots from ledger, journal and crashes; and the boot that ended without a word, told once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_pstore.host import MACHINE_ID
from pstored.archive import Archive
from pstored.bootjournal import BootJournal
from pstored.history import merge
from pstored.host import Host
from pstored.ledger import Look, note_boot
from tests.conftest import MakeRoot, Pstored, Root
from tests.journalfiles import Entry, write_journal
from tests.test_crash_safety import kill_everywhere, run_killed

BOOTS = [f"{n * 8}-1111-4111-8111-111111111111" for n in "abcdef"]
T0 = 1_795_000_000
STARTED, STOPPED = "f77379a8490b408bbe5f6940505a777b", "d93fb3c9c24d451a97cea615ce59c00b"
SHUTDOWN = {"MESSAGE_ID": "39f53479d3a045ac8e11786248231fbf", "UNIT": "reboot.target"}


def entry(boot_id: str, began: float, at: float, message: str, **fields: str) -> Entry:
    """An entry of a boot's journal."""
    found: dict[str, str | bytes | int] = {
        "__REALTIME_TIMESTAMP": int((began + at) * 1e6),
        "__MONOTONIC_TIMESTAMP": int(at * 1e6),
        "_BOOT_ID": boot_id.replace("-", ""),
        "_MACHINE_ID": MACHINE_ID,
        "MESSAGE": message,
        "SYSLOG_IDENTIFIER": "app",
    }
    return found | fields


def lived(boot_id: str, began: float, length: float, **last: str) -> Iterator[Entry]:
    """A boot's journal: some lines, and the fields of the last."""
    yield entry(boot_id, began, 1.0, "Journal started", MESSAGE_ID=STARTED)
    for number in range(40):
        yield entry(boot_id, began, length - 5 + number / 10, f"reading {number}")
    yield entry(boot_id, began, length, "the last of it", **last)


@pytest.fixture
def machine(root: MakeRoot) -> Root:
    """A tree with an empty store; `boot` makes it run another boot."""
    made = root()
    made.configure("[archive]\nallow_volatile = true\n")
    made.write("etc/machine-id", MACHINE_ID + "\n")
    boot(made, 0)
    return made


def boot(root: Root, number: int, *, uptime: float = 30.0) -> None:
    """Have the tree be in its boot *number*."""
    root.reboot(BOOTS[number])
    root.write("proc/uptime", f"{uptime} 1.0\n")


def log(root: Root, entries: Iterator[Entry]) -> None:
    """Add to the machine's persistent journal."""
    write_journal(root.path / "var/log/journal" / MACHINE_ID, entries)


def note(root: Root, *, closes: bool = False, closed: bool = False) -> None:
    """What the units do in the tree's boot: the ledger says that one was there, or that it saw an orderly end."""
    archive = Archive(str(root.archive))
    with archive.lock():
        note_boot(archive, Look(Host(str(root.path)).facts(), closes=closes, closed=closed))


def history(pstored: Pstored, root: Root) -> list[dict[str, Any]]:
    """`pstored boots --json`."""
    boots: list[dict[str, Any]] = pstored("boots", "--json", root=root).json["boots"]
    return boots


def ends(pstored: Pstored, root: Root) -> dict[str, str]:
    """First letter of each boot to how it ended."""
    return {b["boot_id"][0]: b["end"]["kind"] for b in history(pstored, root)}


def collect(pstored: Pstored, root: Root) -> list[dict[str, Any]]:
    """The crashes that a collect tells of."""
    done = pstored("collect", "--json", root=root)
    assert done.status == 0, done.stderr
    crashes: list[dict[str, Any]] = done.json["crashes"]
    return crashes


# -- the journal as witness


@pytest.mark.parametrize("last", [{"MESSAGE_ID": STOPPED}, SHUTDOWN], ids=["journal stopped", "reboot.target"])
def test_boots_whose_journal_ends_in_order_are_clean(machine: Root, pstored: Pstored, last: dict[str, str]) -> None:
    """journald's own last word, or systemd's shutdown targets: no event."""
    collect(pstored, machine)
    log(machine, lived(BOOTS[0], T0, 3600.0, **last))
    boot(machine, 1)
    assert collect(pstored, machine) == []
    assert ends(pstored, machine) == {"a": "clean", "b": "running"}
    (first, _) = history(pstored, machine)
    assert (first["exact"], first["uptime_s"]) == (True, 3600.0)


def test_unexplained_reset_is_told_once(machine: Root, pstored: Pstored) -> None:
    """With its last words, which the journal will forget; in the list like a crash; and never again."""
    collect(pstored, machine)
    log(machine, lived(BOOTS[0], T0, 3600.0))
    boot(machine, 1)
    (crash,) = collect(pstored, machine)
    assert (crash["kind"], crash["severity"], crash["boot"]["id"]) == ("reset", "reset", BOOTS[0])
    assert crash["boot"]["confidence"] == "certain"
    assert crash["time"] == crash["time"] | {"uptime_s": 3600.0, "doubtful": True}
    text = (machine.archive / "crashes" / crash["id"] / "end.txt").read_text()
    assert "the last of it" in text
    assert "reading 39" in text
    assert collect(pstored, machine) == []
    boot(machine, 2)
    log(machine, lived(BOOTS[1], T0 + 4000, 60.0, MESSAGE_ID=STOPPED))
    assert collect(pstored, machine) == []
    assert ends(pstored, machine) == {"a": "reset", "b": "clean", "c": "running"}
    page = pstored("show", root=machine).stdout
    assert "the last of it" in page
    assert pstored("verify", root=machine).status == 0


def test_what_the_journal_forgets_stays_known(machine: Root, pstored: Pstored) -> None:
    """Boots are settled while their journal is there; `analyze --all` makes the same of it later."""
    collect(pstored, machine)
    log(machine, lived(BOOTS[0], T0, 3600.0, MESSAGE_ID=STOPPED))
    boot(machine, 1)
    collect(pstored, machine)
    log(machine, lived(BOOTS[1], T0 + 4000, 50.0))
    boot(machine, 2)
    (crash,) = collect(pstored, machine)
    for file in (machine.path / "var/log/journal" / MACHINE_ID).iterdir():
        file.unlink()
    assert ends(pstored, machine) == {"a": "clean", "b": "reset", "c": "running"}
    before = machine.load(f"crashes/{crash['id']}/crash.json")
    assert pstored("analyze", "--all", root=machine).status == 0
    assert machine.load(f"crashes/{crash['id']}/crash.json") == before


def test_boots_before_the_first_look_are_shown_and_no_event(machine: Root, pstored: Pstored) -> None:
    """Who installs pstored is not told of last year's resets as news."""
    log(machine, lived(BOOTS[0], T0, 3600.0))
    boot(machine, 1)
    assert collect(pstored, machine) == []
    assert ends(pstored, machine) == {"a": "reset", "b": "running"}


def test_boot_that_pstored_never_ran_in_is_an_event(machine: Root, pstored: Pstored) -> None:
    """It died before anything of ours was started; the journal knows it, and the order is the true one."""
    collect(pstored, machine)
    log(machine, lived(BOOTS[0], T0, 3600.0, MESSAGE_ID=STOPPED))
    log(machine, lived(BOOTS[1], T0 + 4000, 7.0))
    boot(machine, 2)
    (crash,) = collect(pstored, machine)
    assert crash["boot"]["id"] == BOOTS[1]
    assert ends(pstored, machine) == {"a": "clean", "b": "reset", "c": "running"}
    assert collect(pstored, machine) == []


def test_journal_that_goes_on_after_an_early_stop(machine: Root, pstored: Pstored) -> None:
    """The initrd's journald says that it stops; then the real one starts, and breaks off."""
    collect(pstored, machine)
    log(
        machine,
        iter(
            [
                entry(BOOTS[0], T0, 1.0, "Journal stopped", MESSAGE_ID=STOPPED),
                entry(BOOTS[0], T0, 1.5, "Journal started", MESSAGE_ID=STARTED),
                entry(BOOTS[0], T0, 2.0, "and off"),
            ]
        ),
    )
    boot(machine, 1)
    (crash,) = collect(pstored, machine)
    assert crash["kind"] == "reset"


def test_hostile_last_words_cannot_act_on_a_terminal(machine: Root, pstored: Pstored) -> None:
    """Escapes, a huge line, a name of any bytes: shown escaped and cut."""
    collect(pstored, machine)
    log(machine, iter([entry(BOOTS[0], T0, 2.0, "\x1b[2J" + "x" * 100_000, SYSLOG_IDENTIFIER="\x1b]0;evil\x07")]))
    boot(machine, 1)
    (crash,) = collect(pstored, machine)
    text = (machine.archive / "crashes" / crash["id"] / "end.txt").read_text()
    assert "\x1b" not in text
    assert len(text) < 5000
    assert "\x1b" not in pstored("boots", root=machine).stdout


# -- no journal


def test_without_any_witness_nothing_is_claimed(machine: Root, pstored: Pstored) -> None:
    """No journal, no console, no unit: unknown is not unexplained."""
    collect(pstored, machine)
    boot(machine, 1)
    assert collect(pstored, machine) == []
    assert ends(pstored, machine) == {"a": "unknown", "b": "running"}


def test_ledger_as_the_only_witness(machine: Root, pstored: Pstored) -> None:
    """The unit that notes an orderly end was there: whether it has noted one tells."""
    note(machine, closes=True)
    note(machine, closes=True, closed=True)
    boot(machine, 1)
    note(machine, closes=True)
    assert collect(pstored, machine) == []
    boot(machine, 2)
    (crash,) = collect(pstored, machine)
    assert crash["boot"]["id"] == BOOTS[1]
    assert ends(pstored, machine) == {"a": "clean", "b": "reset", "c": "running"}


def test_watchdog_is_named_where_the_hardware_tells(machine: Root, pstored: Pstored) -> None:
    """bootstatus in the boot after it."""
    note(machine, closes=True)
    boot(machine, 1)
    machine.write("sys/class/watchdog/watchdog0/bootstatus", "32\n")
    (crash,) = collect(pstored, machine)
    assert (crash["kind"], crash["severity"]) == ("watchdog", "reset")
    assert "card previously reset the CPU" in (machine.archive / "crashes" / crash["id"] / "end.txt").read_text()


@pytest.mark.parametrize(
    ("tail", "kind"),
    [("[  200.000001] reboot: Restarting system\n", "clean"), ("[  200.000001] usb 1-1: new device\n", "reset")],
)
def test_console_as_the_only_witness(machine: Root, pstored: Pstored, tail: str, kind: str) -> None:
    """Its last lines; and they are the last words, if there are no others."""
    note(machine)
    boot(machine, 1)
    machine.add("console-ramoops-0", b"[  100.000001] all is well\n" + tail.encode())
    crashes = collect(pstored, machine)
    assert ends(pstored, machine)["a"] == kind
    assert [c["kind"] for c in crashes] == ([kind] if kind == "reset" else [])
    if crashes:
        text = (machine.archive / "crashes" / crashes[0]["id"] / "end.txt").read_text()
        assert "usb 1-1: new device" in text


# -- crashes


def panic(boot_id: str) -> bytes:
    """A dump with the stamp of its boot."""
    return (
        f"Panic#1 Part1\n<13>[    5.000001] pstored: boot {boot_id}\n"
        "<0>[   97.000001] Kernel panic - not syncing: late\n"
    ).encode()


def test_record_that_turns_up_late_makes_the_same_event_a_crash(machine: Root, pstored: Pstored) -> None:
    """A backend that registers after the first look: one crash, a second revision, and the history says panic."""
    note(machine, closes=True)
    boot(machine, 1)
    (reset,) = collect(pstored, machine)
    machine.add("dmesg-erst-7000000000000000001", panic(BOOTS[0]))
    (crash,) = collect(pstored, machine)
    assert crash["id"] == reset["id"]
    assert (crash["revision"], crash["severity"]) == (2, "panic")
    assert "late" in crash["title"]
    assert ends(pstored, machine) == {"a": "panic", "b": "running"}
    assert len(machine.crashes()) == 1
    assert pstored("analyze", "--all", root=machine).status == 0
    again = machine.load(f"crashes/{crash['id']}/crash.json")
    assert (again["severity"], again["boot"]) == ("panic", crash["boot"])


def test_crash_record_leaves_nothing_unexplained(machine: Root, pstored: Pstored) -> None:
    """The journal breaks off, of course; the record says why."""
    collect(pstored, machine)
    log(machine, lived(BOOTS[0], T0, 90.0))
    boot(machine, 1)
    machine.add("dmesg-erst-7000000000000000001", panic(BOOTS[0]))
    (crash,) = collect(pstored, machine)
    assert crash["severity"] == "panic"
    first = history(pstored, machine)[0]
    assert (first["end"]["kind"], first["crashes"]) == ("panic", [crash["id"]])
    assert (first["exact"], first["uptime_s"]) == (True, 97.000001)


def test_killed_at_every_step_an_unexplained_reset_is_told_once(machine: Root, tmp_path: Path) -> None:
    """Between the record, its analysis and the ledger: the next run ends where an undisturbed one does."""
    note(machine, closes=True)
    boot(machine, 1)
    machine.configure("[archive]\nallow_volatile = true\n[journal]\nenabled = true\n")
    kills = 0
    for at, killed, ran in kill_everywhere(machine, tmp_path, "collect"):
        kills += 1
        where = f"killed at step {at}, after {ran.passed[-1:]}"
        assert run_killed(killed, "collect").status == 0, where
        assert run_killed(killed, "verify").status == 0, where
        assert len(killed.crashes()) == 1, where
        assert not killed.litter(), where
        assert len((killed.path / "sink").read_text().splitlines()) == 1, where
    assert kills > 20


# -- orders


@pytest.mark.parametrize(
    ("ledger", "journal", "order"),
    [
        ("", "", ""),
        ("abc", "", "abc"),
        ("", "abc", "abc"),
        ("ac", "abc", "abc"),
        ("abd", "bcd", "abcd"),
        ("bd", "abcde", "abcde"),
        ("ab", "cd", "abcd"),  # nothing shared: by time, which here is the alphabet
        ("ad", "bc", "abcd"),
        ("cab", "cxb", "caxb"),
    ],
)
def test_two_orders_become_one(ledger: str, journal: str, order: str) -> None:
    """Each keeps its own; what both know holds them together."""
    assert "".join(merge(list(ledger), list(journal), lambda name: float(ord(name)))) == order


def test_wrong_clock_does_not_turn_the_order_of_the_ledger() -> None:
    """The ledger is in the order of boots, whatever their clocks said."""
    clock = {"a": 500.0, "b": 1.0, "c": 300.0, "x": 400.0}
    assert merge(["a", "b", "c"], ["x"], clock.get) == ["x", "a", "b", "c"]


def test_no_boot_at_all(machine: Root, pstored: Pstored) -> None:
    """A fresh tree: said in words, and as JSON."""
    assert "no boot is known" in pstored("boots", root=machine).stdout
    assert pstored("boots", "--json", root=machine).json["boots"] == []
    assert BootJournal(Host(str(machine.path))).problem
