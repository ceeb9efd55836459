# SPDX-License-Identifier: Apache-2.0
"""Logs from beside pstore become the crashes that they tell of, the same as pstore's where it is the same crash."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fake_pstore import capture, kernels, netconsole, serial
from fake_pstore.machine import run
from fake_pstore.model import Options
from fake_pstore.scenarios import SCENARIOS
from tests.conftest import MakeRoot, Pstored, Root

RAW = {
    "lab-mtdoops": "mtd.img",
    "deb61-ppc64-nvram": "nvram.img",
    "lab-netconsole-plain": "datagrams.jsonl",
    "lab-netconsole-ext": "datagrams.jsonl",
}


def crashes(root: Root) -> list[dict[str, Any]]:
    """All reports, oldest first."""
    return [root.load(f"crashes/{path.name}/crash.json") for path in root.crashes()]


def packed(name: str, file: str) -> str:
    """Where a file of a capture is."""
    return str(capture.load(name).directory / f"{file}.xz")


@pytest.mark.parametrize("name", RAW)
def test_store_and_serial_log_of_one_crash_are_one(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """Whichever comes first; what comes later adds nothing to be told, and the same twice is not archived."""
    for files in ((RAW[name], "serial-crash.log"), ("serial-crash.log", RAW[name])):
        made = root()
        for file in files:
            assert pstored("import", packed(name, file), root=made).status == 0
        (crash,) = crashes(made)
        assert len(crash["records"]) == (3 if name == "lab-mtdoops" else 2)
        assert crash["complete"]
        assert crash["kernel"]["release"] == capture.load(name).crash_kernel
        assert crash["boot"]["id"] is None
        count = len(made.harvests())
        assert "nothing new" in pstored("import", packed(name, files[0]), root=made).stdout
        assert len(made.harvests()) == count


def test_mtdoops_has_two_dumps(root: MakeRoot, pstored: Pstored) -> None:
    """Of one boot: one crash."""
    made = root()
    pstored("import", packed("lab-mtdoops", "mtd.img"), root=made)
    (crash,) = crashes(made)
    assert [(d["backend"], d["complete"]) for d in crash["dumps"]] == [("mtdoops", True)] * 2
    assert [d["title"][:20] for d in crash["dumps"]] == ["BUG: kernel NULL poi", "kernel BUG at driver"]
    assert crash["time"]["wall"] == "2026-11-23T04:23:46.943245Z"
    assert "the log in mtdoops" in pstored("show", root=made).stdout


def test_every_crash_of_a_log_is_told(root: MakeRoot, pstored: Pstored) -> None:
    """The serial consoles of all captures, as one log: as many crashes, and the boots that they were stamped with."""
    names = [n for n in capture.names() if (capture.CAPTURES / n / "serial-crash.log.xz").exists()]
    made = root()
    made.configure(f'[boots]\nstamp_prefix = "{capture.STAMP_PREFIX}"\n')
    log = made.path / "console.log"
    log.write_bytes(b"".join(capture.load(name).serial("crash") for name in names))
    done = pstored("import", str(log), root=made)
    assert f"{len(names)} boots, {len(names)} with a crash" in done.stdout
    found = crashes(made)
    assert [c["records"][0]["name"] for c in sorted(found, key=lambda c: c["summary"]["order"])] == sorted(
        f"console-serial-{n + 1}" for n in range(len(names))
    )
    assert {c["boot"]["id"] for c in found} >= {capture.load(n).crash_boot_id for n in names if "lab" in n} - {None}


@pytest.mark.parametrize("name", ["lab-erst", "x86_64-6.1-ramoops-ecc", "x86_64-6.1deb-efi"])
def test_serial_log_of_a_crash_that_pstore_has(name: str, root: MakeRoot, pstored: Pstored) -> None:
    """Adds the console to it, and is no crash of its own."""
    made = root(name)
    pstored("collect", root=made)
    before = crashes(made)[-1]
    assert pstored("import", packed(name, "serial-crash.log"), root=made).status == 0
    (after,) = crashes(made)
    assert after["id"] == before["id"]
    assert [r["name"] for r in after["records"] if r["name"].startswith("console-serial")] == ["console-serial-1"]
    assert (after["title"], after["boot"]["id"]) == (before["title"], before["boot"]["id"])


def test_two_boots_in_one_log_are_two_crashes(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """With the times that the logger wrote; and again, once the log has grown, only what is new."""
    options = Options(backend="ramoops", era=kernels.ERAS[kernels.default_era("ramoops")])
    one, two = run(SCENARIOS["two-boots"], options).boots
    (three,) = run(SCENARIOS["panic"], Options(backend="ramoops", era=options.era, seed=1)).boots
    log = tmp_path / "minicom.log"
    log.write_bytes(serial.log([one, two], logger="minicom"))
    made = root()
    pstored("import", str(log), root=made)
    found = crashes(made)
    assert [c["boot"]["id"] for c in found] == [one.boot_id, two.boot_id]
    assert [c["boot"]["method"] for c in found] == ["stamp"] * 2
    for crash, truth in zip(found, (one, two), strict=True):
        assert crash["time"]["doubtful"]
        assert crash["time"]["why"] == "by the clock of the program that logged the console"
        panic = next(m for m in truth.messages if "Kernel panic" in m.text)
        at = datetime.fromtimestamp(truth.began + panic.time_us // 10**6, UTC)
        assert crash["time"]["wall"][:16] == at.strftime("%Y-%m-%dT%H:%M")
        assert any("does not say its zone" in note for note in crash["notes"])
    log.write_bytes(serial.log([one, two, three], logger="minicom"))
    assert "1 new record" in pstored("import", str(log), root=made).stdout
    assert [c["boot"]["id"] for c in crashes(made)] == [one.boot_id, two.boot_id, three.boot_id]


def test_oops_that_was_survived_is_a_crash(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Of a serial line there is no dump besides, so the orderly end afterwards takes nothing away."""
    (truth,) = run(SCENARIOS["oops"], Options(backend="erst", era=kernels.ERAS[kernels.default_era("erst")])).boots
    (tmp_path / "log").write_bytes(serial.log([truth]))
    made = root()
    pstored("import", str(tmp_path / "log"), root=made)
    (crash,) = crashes(made)
    assert (crash["severity"], crash["boot"]["id"]) == ("oops", truth.boot_id)


def test_sender_is_shown(root: MakeRoot, pstored: Pstored, tmp_path: Path) -> None:
    """Of what came over the net: in the report, on the page, in the list, which else has no such column."""
    datagrams = []
    for seed, (source, host) in enumerate((("10.0.0.5", "web3"), ("2001:db8::7", None))):
        options = Options(backend="ramoops", era=kernels.ERAS[kernels.default_era("ramoops")], seed=seed)
        (truth,) = run(SCENARIOS["panic"], options).boots
        for number, message in enumerate(truth.messages):
            sent = netconsole.extended(message, number, data=[f"hostname={host}"] if host else [])
            datagrams += [netconsole.Datagram(truth.began + message.time_us / 1e6, source, data) for data in sent]
    (tmp_path / "x.pcap").write_bytes(netconsole.pcap(sorted(datagrams)))
    made = root()
    pstored("import", str(tmp_path / "x.pcap"), root=made)
    found = crashes(made)
    assert sorted((c["sender"]["address"], c["sender"]["host"]) for c in found) == [
        ("10.0.0.5", "web3"),
        ("2001:db8::7", None),
    ]
    assert not any(c["time"]["doubtful"] for c in found)
    listed = pstored("list", root=made).stdout
    assert "SENDER" in listed.splitlines()[0]
    assert "10.0.0.5 (web3)  " in listed
    pages = [pstored("show", number, root=made).stdout for number in ("-1", "-2")]
    assert any("sender  10.0.0.5 web3\n" in page for page in pages)
    other = root()
    pstored("import", packed("lab-mtdoops", "mtd.img"), root=other)
    assert "SENDER" not in pstored("list", root=other).stdout
