# SPDX-License-Identifier: Apache-2.0
"""What this machine has beside the store: what netconsole received, and the last kmsg, taken by each collect."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture, netconsole
from pstored.intake.elsewhere import MAX_FILE, MAX_FILES
from tests.conftest import BOOT_ID, REPOSITORY, MakeRoot, Pstored, Root
from tests.test_import_logs import crashes

SPOOL = "var/lib/pstored-netconsole"
STEPS = "PSTORED_STEPS"


def received(root: Root, name: str, text: str, address: str = "10.0.0.5", **more: Any) -> Path:
    """A file as the listener leaves it: one datagram."""
    directory = root.path / SPOOL
    directory.mkdir(parents=True, exist_ok=True)
    value = {"t": 1_795_407_862.5, "from": address, "data": text} | more
    (directory / f"{name}.jsonl").write_text(json.dumps(value) + "\n")
    return directory / f"{name}.jsonl"


def panic(words: str) -> str:
    """What a kernel that panics says."""
    return f"[   12.000000] Kernel panic - not syncing: {words}\n"


def test_each_file_is_a_crash_of_its_sender(root: MakeRoot, pstored: Pstored) -> None:
    """Even where two machines say the very same at the same moment; the files are gone then."""
    made = root()
    for n in range(3):
        received(made, f"2026-{n}", panic("x"), f"10.0.0.{n}", host=f"web{n}", t=1_795_407_862.5 + n)
    done = pstored("collect", "--json", root=made)
    assert done.status == 0
    (imported,) = done.json["elsewhere"]
    assert (imported["path"], imported["kind"], len(imported["archived"])) == (f"/{SPOOL}", "netconsole", 3)
    found = crashes(made)
    assert [(c["sender"]["address"], c["sender"]["host"]) for c in found] == [
        (f"10.0.0.{n}", f"web{n}") for n in range(3)
    ]
    assert all(c["machine_id"] is None and c["boot"]["id"] is None for c in found)
    assert os.listdir(made.path / SPOOL) == []
    assert pstored("collect", "--json", root=made).json["elsewhere"] == []


@pytest.mark.parametrize("missed", [0, 40])
@pytest.mark.parametrize("name", ["lab-netconsole-plain", "lab-netconsole-ext"])
def test_listener_pcap_and_serial_line_tell_of_one_crash(
    name: str, missed: int, root: MakeRoot, pstored: Pstored, tmp_path: Path
) -> None:
    """A real one, even where the listener has missed its first lines; each import brings its record once."""
    made = root()
    lines = [json.loads(line) for line in capture.load(name).raw("datagrams.jsonl").splitlines()]
    datagrams = [netconsole.Datagram(float(line["t"]), "10.0.0.5", line["data"].encode("latin-1")) for line in lines]
    directory = made.path / SPOOL
    directory.mkdir(parents=True)
    (directory / "1.jsonl").write_bytes(netconsole.json_lines(datagrams[missed:]))
    (tmp_path / "packets").write_bytes(netconsole.pcap(datagrams))
    (tmp_path / "serial.log").write_bytes(capture.load(name).serial("crash"))
    pstored("collect", root=made)
    counts = [
        [len(one["archived"]) for one in pstored("import", "--json", str(tmp_path / file), root=made).json["imports"]]
        for file in ("packets", "packets", "serial.log", "serial.log")
    ]
    assert counts == [[int(missed > 0)], [0], [1], [0]]
    (crash,) = crashes(made)
    assert crash["title"] == "Kernel panic: sysrq triggered crash"
    assert crash["sender"]["address"] == "10.0.0.5"
    assert {record["name"].rsplit("-", 1)[0] for record in crash["records"]} == {"console-netconsole", "console-serial"}
    shown = pstored("show", root=made).stdout
    assert f"{len(crash['records'])} from netconsole, serial: {len(crash['records'])} imported" in shown


def test_no_boot_of_this_machine_whatever_is_sent(root: MakeRoot, pstored: Pstored) -> None:
    """A stamp with the id of the running boot."""
    made = root()
    received(made, "1", f"[    5.000000] pstored: boot {BOOT_ID}\n" + panic("x"))
    pstored("collect", root=made)
    (crash,) = crashes(made)
    assert crash["boot"]["id"] is None
    assert "stamps of boots that it cannot be of" in crash["boot"]["evidence"][0]
    pstored("analyze", "--all", root=made)
    assert crashes(made) == [crash]


def test_boots_of_other_machines_are_not_in_the_history(root: MakeRoot, pstored: Pstored) -> None:
    """Nor does their crash make the end of a boot of this one doubtful; who sent it is in the status."""
    made = root("lab-erst")
    pstored("collect", root=made)
    before = pstored("boots", root=made).stdout
    other = "12345678-1111-4111-8111-111111111111"
    received(made, "1", f"[    5.000000] pstored-lab: boot_id={other}\n" + panic("x"), host="web3")
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-m", "pstored", "--root", str(made.path), "collect", f"--status-fd={write_fd}"]
    subprocess.run(command, pass_fds=[write_fd], cwd=REPOSITORY, check=False, capture_output=True)
    os.close(write_fd)
    with open(read_fd) as f:
        assert "(10.0.0.5 (web3), boot 12345678?) panic: Kernel panic: x" in f.read()
    assert crashes(made)[-1]["boot"]["id"] == other
    assert pstored("boots", root=made).stdout == before


def test_what_tells_of_no_crash_is_dropped(root: MakeRoot, pstored: Pstored) -> None:
    """And said."""
    made = root()
    received(made, "1", "[    1.000000] usb: no BUG\n")
    done = pstored("import", root=made)
    assert "1 times nothing that was received tells of a crash" in done.stdout
    assert (crashes(made), made.harvests(), os.listdir(made.path / SPOOL)) == ([], [], [])


def test_list_changes_nothing(root: MakeRoot, pstored: Pstored) -> None:
    """It says what there is."""
    made = root()
    file = received(made, "1", panic("x"))
    done = pstored("import", "--list", root=made)
    assert "console-netconsole-1" in done.stdout
    assert file.exists()
    assert not made.archive.exists()


def test_file_is_removed_only_when_its_crash_is_durable(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """The bundle's name is flushed before."""
    made = root()
    file = received(made, "1", panic("x"))
    steps = tmp_path / "steps"
    pstored("import", root=made, env={STEPS: str(steps)})
    lines = steps.read_text().splitlines()
    removed = next(n for n, line in enumerate(lines) if line.endswith(str(file)))
    flushed = [n for n, line in enumerate(lines) if line.endswith(f"fsync {made.archive / 'harvests'}")]
    assert flushed
    renamed = next(n for n, line in enumerate(lines) if "rename" in line and "harvests" in line)
    assert renamed < flushed[0] < removed


def test_archive_that_cannot_be_written_costs_nothing(root: MakeRoot, pstored: Pstored) -> None:
    """The files stay for the next run."""
    made = root()
    file = received(made, "1", panic("x"))
    made.archive.parent.mkdir(parents=True, exist_ok=True)
    made.archive.write_text("in the way")
    assert pstored("collect", root=made).status == 73
    assert file.exists()
    made.archive.unlink()
    assert pstored("collect", root=made).status == 0
    assert len(crashes(made)) == 1


def test_more_than_one_run_takes(root: MakeRoot, pstored: Pstored) -> None:
    """The rest is said to be left, and taken by the next."""
    made = root()
    for n in range(MAX_FILES + 3):
        received(made, f"{n:04d}", "[    1.000000] nothing\n")
    received(made, "9999", panic("x"))
    done = pstored("collect", root=made)
    assert done.status == 1
    assert "left for the next import" in done.stderr
    assert len(os.listdir(made.path / SPOOL)) == 4
    assert pstored("collect", root=made).status == 0
    assert len(crashes(made)) == 1


@pytest.mark.parametrize("what", ["link", "fifo", "directory", "large", "binary", "empty"])
def test_whoever_writes_there_is_not_trusted(what: str, root: MakeRoot, pstored: Pstored) -> None:
    """Nothing outside is read, nothing hangs, and the crash beside is told."""
    made = root()
    file = received(made, "1", "")
    received(made, "2", panic("x"))
    file.unlink()
    secret = made.path / "secret"
    secret.write_text(json.dumps({"data": panic("secret")}))
    if what == "link":
        file.symlink_to(secret)
    elif what == "fifo":
        os.mkfifo(file)
    elif what == "directory":
        file.mkdir()
    elif what == "large":
        with file.open("wb") as f:
            f.truncate(MAX_FILE + 1)
    else:
        file.write_bytes(b"\xff\x00{" * 100 if what == "binary" else b"")
    done = pstored("collect", root=made)
    assert done.status == (0 if what in ("binary", "empty") else 1)
    assert [c["title"] for c in crashes(made)] == ["Kernel panic: x"]
    assert secret.exists()


def test_what_came_over_the_net_goes_first(root: MakeRoot, pstored: Pstored) -> None:
    """A flood of crashes drives out no crash of this machine."""
    made = root("lab-erst")
    pstored("collect", root=made)
    (own,) = crashes(made)
    made.configure('[boots]\nstamp_prefix = "pstored-lab: boot_id="\n[archive]\nmax_harvests = 5\n')
    for n in range(12):
        received(made, f"{n:04d}", panic(f"bug {n}"), f"10.0.0.{n}", t=1_795_407_862.5 + n)
    pstored("collect", root=made)
    found = crashes(made)
    assert len(found) == 5
    assert own["id"] in [c["id"] for c in found]


def test_the_journal_gets_no_lines_of_another_machine(root: MakeRoot, pstored: Pstored) -> None:
    """They are not restored: the crash is not of here."""
    made = root()
    received(made, "1", panic("x"))
    pstored("collect", root=made)
    facts = made.load(f"harvests/{made.harvests()[0].name}/harvest.json")
    assert facts["store"]["sender"] == {"address": "10.0.0.5", "host": None}
    assert (facts["machine_id"], facts["boot_id"]) == (None, None)


# -- the last kmsg


@pytest.mark.parametrize("name", ["last_kmsg", "last_klog"])
def test_last_kmsg_is_the_console_of_the_boot_before(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """Archived once, as the record that it is."""
    made = root("x86_64-6.1-ramoops-all")
    console = (made.store / "console-ramoops-0").read_bytes()
    for path in made.store.iterdir():
        path.unlink()
    made.write(f"proc/{name}", console.decode("latin-1"))
    (made.path / "proc" / name).write_bytes(console)
    done = pstored("collect", "--json", root=made)
    (imported,) = done.json["elsewhere"]
    assert (imported["path"], imported["kind"], imported["archived"]) == (
        f"/proc/{name}",
        "last-kmsg",
        ["console-ramoops-0"],
    )
    (crash,) = crashes(made)
    assert crash["boot"]["id"] == capture.load("x86_64-6.1-ramoops-all").crash_boot_id
    again = pstored("collect", "--json", root=made).json["elsewhere"]
    assert [(one["archived"], one["known"]) for one in again] == [([], 1)]
    assert len(crashes(made)) == 1


def test_last_kmsg_beside_pstore_is_known(root: MakeRoot, pstored: Pstored) -> None:
    """A kernel that shows the same zone twice."""
    made = root("x86_64-6.1-ramoops-all")
    console = (made.store / "console-ramoops-0").read_bytes()
    (made.path / "proc/last_kmsg").write_bytes(console)
    done = pstored("collect", "--json", root=made)
    assert [(one["archived"], one["known"]) for one in done.json["elsewhere"]] == [([], 1)]
    assert len(crashes(made)) == 1
