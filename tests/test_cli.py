# SPDX-License-Identifier: Apache-2.0
"""The command line: what each command prints and how it ends; ids, roots, terminals, damage."""

import contextlib
import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_pstore import capture
from pstored.cli import parse, parser
from pstored.crashes.report import Report
from tests.conftest import BOOT_ID, REPOSITORY, Done, MakeRoot, Pstored, Root

PAIR = "lab-efi-twoboots"
EVIL = b"\x1b]0;pwn\x07\x1b[2J\x9b31m\r\x08\xff"
VOLATILE = f'[archive]\nallow_volatile = true\n[boots]\nstamp_prefix = "{capture.STAMP_PREFIX}"\n'
"""The tests may run in memory."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with two crashes, collected; not to be written to."""
    path = tmp_path_factory.mktemp("collected")
    capture.populate_root(path, capture.load(PAIR))
    Root(path=path).configure(VOLATILE)
    done = subprocess.run(
        [sys.executable, "-m", "pstored", "--root", str(path), "collect"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def pair(template: Path, tmp_path: Path) -> Root:
    """A copy of it."""
    shutil.copytree(template, tmp_path / "root")
    return Root(path=tmp_path / "root")


def harmless(text: str) -> bool:
    """Nothing that a terminal would act on."""
    return all(line.isprintable() for line in text.split("\n"))


# -- collect


def test_collect_says_what_it_did(root: MakeRoot, pstored: Pstored) -> None:
    """What was archived and erased, each crash on a line, and where to look; then nothing."""
    made = root(PAIR)
    made.configure(VOLATILE)
    done = pstored("collect", root=made)
    assert (done.status, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "/sys/fs/pstore: 63 new records archived, 63 erased from the store"
    assert sum("Kernel panic: sysrq triggered crash" in line for line in lines) == 2
    assert lines[-1].startswith(f"see: pstored --root {made.path} show ")
    again = pstored("collect", root=made)
    assert (again.status, again.stdout, again.stderr) == (0, "nothing taken from /sys/fs/pstore\n", "")


def test_the_advice_that_collect_gives_works(root: MakeRoot, pstored: Pstored) -> None:
    """The last line is a command."""
    made = root(PAIR)
    made.configure(VOLATILE)
    advice = pstored("collect", root=made).stdout.splitlines()[-1].removeprefix("see: pstored ").split()
    done = pstored(*advice)
    assert done.status == 0
    assert "29ba41b6-8626-4f73-9871-3d09cbfdd92a" in done.stdout


def test_the_stages_alone_give_the_same(root: MakeRoot, pstored: Pstored) -> None:
    """harvest, analyze, deliver."""
    made = root(PAIR)
    made.configure(VOLATILE)
    harvested = pstored("harvest", "--json", root=made)
    assert (harvested.status, len(harvested.json["harvest"]["archived"])) == (0, 63)
    assert made.crashes() == []
    analyzed = pstored("analyze", "--json", root=made)
    assert (analyzed.status, len(analyzed.json["crashes"])) == (0, 2)
    delivered = pstored("deliver", "--json", root=made)
    assert (delivered.status, delivered.json["delivery"]) == (0, {"delivered": [], "pending": []})
    assert len(pstored("list", "--json", root=made).json["crashes"]) == 2


def test_an_empty_store_is_nothing_to_do(root: MakeRoot, pstored: Pstored) -> None:
    """Exit status 0, nothing archived."""
    made = root()
    done = pstored("collect", root=made)
    assert (done.status, done.stdout) == (0, "nothing taken from /sys/fs/pstore\n")
    assert made.harvests() == []


def test_a_root_without_anything_is_nothing_to_do(tmp_path: Path, pstored: Pstored) -> None:
    """No store, no /proc: a rescue system's empty mount point."""
    done = pstored("collect", "--json", root=Root(path=tmp_path))
    assert done.status == 0
    assert done.json["crashes"] == []


# -- list, show


def test_list_is_one_line_a_crash(pair: Root, pstored: Pstored) -> None:
    """Oldest first, with a heading."""
    done = pstored("list", root=pair)
    assert done.status == 0
    heading, first, second = done.stdout.splitlines()
    assert heading.split()[0] == "ID"
    for line, boot in ((first, "f3c134ae"), (second, "29ba41b6")):
        for words in (
            "2026-11-23 04:18",
            boot,
            "6.1.192-pstorelab",
            "efi",
            "yes",
            "Kernel panic: sysrq triggered crash",
        ):
            assert words in line


def test_list_of_nothing_says_so(root: MakeRoot, pstored: Pstored) -> None:
    """No table without rows, and no archive is made by looking."""
    made = root()
    done = pstored("list", root=made)
    assert (done.status, done.stdout) == (0, "no crashes in the archive\n")
    assert not made.archive.exists()
    assert pstored("list", "--json", root=made).json == {"schema": 1, "crashes": []}


def ids(pair: Root, pstored: Pstored) -> list[str]:
    """The crashes' ids, oldest first."""
    return [c["id"] for c in pstored("list", "--json", root=pair).json["crashes"]]


def test_show_takes_every_form_of_an_id(pair: Root, pstored: Pstored) -> None:
    """Whole, begun, the digest, begun, and counted from the newest; the newest by default."""
    first, second = ids(pair, pstored)
    assert first < second or first[:16] == second[:16]
    for wanted, found in (
        (first, first),
        (first.split("-")[1], first),
        (first.split("-")[1][:6], first),
        (second.split("-")[1][:8], second),
        ("-1", second),
        ("-2", first),
    ):
        done = pstored("show", "--json", wanted, root=pair)
        assert (done.status, done.json["id"]) == (0, found), wanted
    assert pstored("show", "--json", root=pair).json["id"] == second


@pytest.mark.parametrize("wanted", ["nothing", "-3", "-0", "20", "", "../../etc", "20261123T"])
@pytest.mark.parametrize("command", ["show", "export"])
def test_an_id_that_fits_none_or_several_is_an_error(
    command: str, wanted: str, pair: Root, pstored: Pstored, tmp_path: Path
) -> None:
    """Exit status 1, a reason, a hint; nothing is shown or written."""
    more = ["-o", str(tmp_path / "x.tar")] if command == "export" else []
    done = pstored(command, wanted, *more, root=pair)
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert not (tmp_path / "x.tar").exists()


def test_an_ambiguous_id_names_those_it_fits(pair: Root, pstored: Pstored) -> None:
    """Both begin with the year."""
    done = pstored("show", "20", root=pair)
    assert done.status == 1
    assert all(crash_id in done.stderr for crash_id in ids(pair, pstored))


def test_show_is_what_a_person_wants_at_night(pair: Root, pstored: Pstored) -> None:
    """In one sentence, when and where, how that is known, the kernel's own words, the files."""
    done = pstored("show", "-1", root=pair)
    assert done.status == 0
    assert done.stdout.startswith("Kernel panic: sysrq triggered crash\n")
    for words in (
        "29ba41b6-8626-4f73-9871-3d09cbfdd92a (certain, by stamp)",
        "2026-11-23 04:18:57",
        "6.1.192-pstorelab",
        "Oops#1 (15 parts",
        "Panic#2 (16 parts",
        "Kernel panic - not syncing: sysrq triggered crash",
        str(pair.archive),
        "dmesg.txt",
    ):
        assert words in done.stdout, words


def commands_of(page: str) -> list[str]:
    """The commands that a page of ``show`` names."""
    return [line.removeprefix("  $ ") for line in page.splitlines() if line.startswith("  $ ")]


def test_show_names_the_commands_for_what_there_is(pair: Root, pstored: Pstored) -> None:
    """The log and the export; they work as they stand."""
    first, _ = ids(pair, pstored)
    directory = pair.archive / "crashes" / first
    less, export = commands_of(pstored("show", first, root=pair).stdout)
    assert less == f"less {directory}/dmesg.txt"
    assert export == f"pstored --root {pair.path} export {first.split('-')[1][:8]}"
    assert pstored(*export.split()[3:], "-o", str(pair.path / "x.tar"), root=pair).status == 0
    (directory / "dmesg.txt").unlink()
    assert (
        commands_of(pstored("show", first, root=pair).stdout)[0] == f"less {directory}/console.txt"
        or not (directory / "console.txt").exists()
    )


@pytest.mark.parametrize(
    ("receipt", "named"),
    [
        ({"lines": 30, "files": ["x"], "said": "30 kernel lines given back", "has_boot": True}, True),
        ({"lines": 30, "files": ["x"], "said": "as before there was has_boot"}, True),
        ({"lines": 0, "files": [], "said": "it has all", "has_boot": True}, True),
        ({"lines": 0, "files": [], "said": "nothing given back to the journal: no persistent journal"}, False),
        ("rubbish", False),
    ],
)
def test_show_names_the_journal_only_if_it_has_that_boot(
    pair: Root, pstored: Pstored, receipt: object, named: bool
) -> None:
    """As far as the receipt of what was given back says; the id as journalctl takes it."""
    first, _ = ids(pair, pstored)
    boot = pstored("show", first, "--json", root=pair).json["boot"]["id"].replace("-", "")
    sinks = {"restore": {"revision": 1, "time": "2026-11-23T04:51:02Z", "receipt": receipt}}
    (pair.archive / "crashes" / first / "delivered.json").write_text(json.dumps({"schema": 1, "sinks": sinks}))
    assert (f"journalctl --root {pair.path} -k -b {boot}" in commands_of(pstored("show", first, root=pair).stdout)) is (
        named
    )


def test_show_names_the_journal_that_named_the_boot(pair: Root, pstored: Pstored) -> None:
    """It was found there."""
    first, _ = ids(pair, pstored)
    path = pair.archive / "crashes" / first / "crash.json"
    crash = json.loads(path.read_text())
    crash["boot"]["method"] = "journal"
    path.write_text(json.dumps(crash))
    assert any(command.startswith("journalctl ") for command in commands_of(pstored("show", first, root=pair).stdout))


def test_show_without_its_texts_says_what_is_gone(pair: Root, pstored: Pstored) -> None:
    """The report is there, the text is not."""
    for crash in pair.crashes():
        (crash / "dmesg.txt").unlink()
    done = pstored("show", root=pair)
    assert done.status == 0
    assert "dmesg.txt cannot be read" in done.stdout


# -- roots


@pytest.mark.parametrize("order", ["before", "after", "equals"])
def test_root_stands_before_or_after_the_command(order: str, pair: Root, pstored: Pstored) -> None:
    """Both are what people type."""
    arguments = {
        "before": ["--root", str(pair.path), "list", "--json"],
        "after": ["list", "--json", "--root", str(pair.path)],
        "equals": ["list", f"--root={pair.path}", "--json"],
    }[order]
    assert len(pstored(*arguments).json["crashes"]) == 2


def test_a_relative_root_works(pair: Root) -> None:
    """From the directory that the user is in."""
    done = subprocess.run(
        [sys.executable, "-m", "pstored", "--root", "root", "list", "--json"],
        cwd=pair.path.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=True,
    )
    assert len(json.loads(done.stdout)["crashes"]) == 2


# -- json everywhere


@pytest.mark.parametrize(
    "command",
    [
        ["collect", "--json"],
        ["harvest", "--json"],
        ["analyze", "--json"],
        ["analyze", "--all", "--json"],
        ["deliver", "--json"],
        ["list", "--json"],
        ["show", "--json"],
        ["verify", "--json"],
        ["check-config", "--json"],
    ],
    ids=" ".join,
)
def test_json_has_a_schema_key_and_nothing_else_is_printed(command: list[str], pair: Root, pstored: Pstored) -> None:
    """Standard output is one JSON object."""
    done = pstored(*command, root=pair)
    assert done.status == 0, done.stderr
    assert done.json["schema"] == 1


def test_every_report_fits_the_schema(pair: Root, pstored: Pstored) -> None:
    """`pstored schema` is what pydantic makes of the report; each crash.json is one."""
    done = pstored("schema")
    assert done.status == 0
    schema = done.json
    assert schema == json.loads(json.dumps(Report.model_json_schema(by_alias=True)))
    for crash in pair.crashes():
        document = json.loads((crash / "crash.json").read_bytes())
        Report.model_validate(document)
        assert set(document) == set(schema["properties"])
        assert set(schema["required"]) <= set(document)


# -- export


def test_export_writes_one_tar_of_everything(pair: Root, pstored: Pstored, tmp_path: Path) -> None:
    """The report, the texts, the raw records with their times, the harvest's papers; under the crash's id."""
    _, second = ids(pair, pstored)
    done = pstored("export", "-1", "-o", str(tmp_path / "out.tar"), root=pair)
    assert (done.status, done.stdout) == (0, f"{tmp_path / 'out.tar'}\n")
    loaded = capture.load(PAIR)
    with tarfile.open(tmp_path / "out.tar") as tar:
        members = {m.name.removeprefix(f"{second}/"): m for m in tar}
        assert all(name.startswith(f"{second}/") for name in tar.getnames())
        report = json.loads(tar.extractfile(f"{second}/crash.json").read())  # type: ignore[union-attr]  # it is a file
        records = {n.rpartition("/")[2]: n for n in members if n.startswith("records/") and not n.endswith(".json")}
        assert sorted(records) == sorted(r["name"] for r in report["records"])
        for name, data, mtime_ns in loaded.records():
            if name in records:
                file = tar.extractfile(f"{second}/{records[name]}")
                assert file is not None
                assert file.read() == data
                assert int(members[records[name]].mtime) == mtime_ns // 10**9
    assert {"crash.json", "dmesg.txt"} <= set(members)
    assert any(name.endswith(".harvest.json") for name in members)


@pytest.mark.parametrize("command", ["list", "show -1", "collect", "export -1 -o -"])
def test_output_that_cannot_be_written_is_said(command: str, pair: Root) -> None:
    """A full disk behind `pstored list > FILE`: no traceback, and not for nothing."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pstored", "--root", str(pair.path), *command.split()],
            cwd=REPOSITORY,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: cannot write to the standard output: No space left on device",
        "hint: only what was to be shown is lost: what had been done before is done",
    ]


def test_export_goes_to_standard_output(pair: Root) -> None:
    """For ssh and pipes: nothing but the tar."""
    done = subprocess.run(
        [sys.executable, "-m", "pstored", "--root", str(pair.path), "export", "-1", "-o", "-"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert any(name.endswith("/crash.json") for name in tar.getnames())


def test_export_overwrites_nothing(pair: Root, pstored: Pstored, tmp_path: Path) -> None:
    """An old export stays."""
    (tmp_path / "out.tar").write_text("mine")
    done = pstored("export", "-1", "-o", str(tmp_path / "out.tar"), root=pair)
    assert done.status == 1
    assert "there already" in done.stderr
    assert (tmp_path / "out.tar").read_text() == "mine"


# -- verify


def verified(pair: Root, pstored: Pstored) -> Done:
    """verify --json."""
    done = pstored("verify", "--json", root=pair)
    assert "Traceback" not in done.stderr
    assert (done.status == 0) == (done.json["problems"] == [])
    return done


def test_a_sound_archive_is_sound(pair: Root, pstored: Pstored) -> None:
    """Everything was read."""
    done = verified(pair, pstored)
    assert done.status == 0
    assert done.json["records"] == 63
    assert done.json["crashes"] == 2
    assert done.json["files"] == 2
    assert pstored("verify", root=pair).stdout == "63 records, 2 crashes, 2 files: all as written\n"


def flip(path: Path, at: int) -> None:
    """One bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def record_bytes(pair: Root) -> list[int]:
    """Offsets in records.tar of bytes of records: the first, one in the middle and the last of some of them."""
    with tarfile.open(pair.harvests()[0] / "records.tar") as tar:
        members = list(tar)[::9]
    return [at for m in members for at in (m.offset_data, m.offset_data + m.size // 2, m.offset_data + m.size - 1)]


def test_verify_notices_a_flipped_bit_in_any_record(pair: Root, pstored: Pstored) -> None:
    """First, middle and last byte of every ninth."""
    path = pair.harvests()[0] / "records.tar"
    offsets = record_bytes(pair)
    whole = path.read_bytes()
    for at in offsets:
        flip(path, at)
    problems = verified(pair, pstored).json["problems"]
    assert len(problems) == len(offsets) // 3
    for at in offsets[:3]:
        path.write_bytes(whole)
        flip(path, at)
        assert verified(pair, pstored).status == 1


@pytest.mark.parametrize("at", [0, 100, 130, 140, 150, 257])
def test_verify_notices_a_flipped_bit_in_a_tar_header(at: int, pair: Root, pstored: Pstored) -> None:
    """Name, mode, size, time, checksum, magic."""
    flip(pair.harvests()[0] / "records.tar", at)
    assert verified(pair, pstored).status == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_verify_notices_a_flipped_bit_in_a_text(share: float, pair: Root, pstored: Pstored) -> None:
    """Anywhere, and says how to make it again."""
    path = pair.crashes()[0] / "dmesg.txt"
    flip(path, int(path.stat().st_size * share))
    (problem,) = verified(pair, pstored).json["problems"]
    assert "dmesg.txt" in problem
    assert "analyze --all" in problem


def test_verify_notices_a_flipped_bit_in_a_report(pair: Root, pstored: Pstored) -> None:
    """A digit of the boot id, a letter of the title: the report is what is believed."""
    path = pair.crashes()[0] / "crash.json"
    for words in (b'"title": "Kernel', b'"method": "stamp', b'"complete": true'):
        whole = path.read_bytes()
        flip(path, whole.index(words) + len(words) - 1)
        assert verified(pair, pstored).status == 1, words
        path.write_bytes(whole)


def test_verify_notices_a_flipped_bit_in_the_papers_of_a_harvest(pair: Root, pstored: Pstored) -> None:
    """A digest, and the boot that collected."""
    path = pair.harvests()[0] / "harvest.json"
    for words in (b'"sha256": "', b'"boot_id": "', b'"mtime_ns": '):
        whole = path.read_bytes()
        flip(path, whole.index(words) + len(words))
        assert verified(pair, pstored).status == 1, words
        path.write_bytes(whole)


MISSING: dict[str, Callable[[Root], Path]] = {
    "records": lambda r: r.harvests()[0] / "records.tar",
    "papers": lambda r: r.harvests()[0] / "harvest.json",
    "report": lambda r: r.crashes()[0] / "crash.json",
    "text": lambda r: r.crashes()[1] / "dmesg.txt",
    "crash": lambda r: r.crashes()[0],
}


@pytest.mark.parametrize("what", MISSING)
def test_verify_notices_what_is_missing(what: str, pair: Root, pstored: Pstored) -> None:
    """A file, or a whole crash."""
    path = MISSING[what](pair)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert verified(pair, pstored).status == 1


@pytest.mark.parametrize("what", MISSING)
@pytest.mark.parametrize("how", ["empty", "cut", "rubbish"])
def test_verify_notices_what_is_damaged(what: str, how: str, pair: Root, pstored: Pstored) -> None:
    """Cut short, emptied, overwritten."""
    path = MISSING[what](pair)
    path = path / "crash.json" if path.is_dir() else path
    path.write_bytes({"empty": b"", "cut": path.read_bytes()[:-2000], "rubbish": b"\xff" * 700}[how])
    assert verified(pair, pstored).status == 1


def test_what_is_derived_is_made_again_as_verify_says(pair: Root, pstored: Pstored) -> None:
    """`pstored analyze --all`, and all is well."""
    for crash in pair.crashes():
        (crash / "dmesg.txt").write_bytes(b"")
    shutil.rmtree(pair.crashes()[0])
    assert verified(pair, pstored).status == 1
    assert pstored("analyze", "--all", root=pair).status == 0
    assert verified(pair, pstored).status == 0


# -- check-config


def test_check_config_shows_what_counts(pair: Root, pstored: Pstored) -> None:
    """Files and values."""
    done = pstored("check-config", root=pair)
    assert done.status == 0
    assert str(pair.path / "etc/pstored.conf") in done.stdout
    assert 'stamp_prefix = "pstored-lab: boot_id="' in done.stdout
    assert pstored("check-config", "--json", root=pair).json["config"]["archive"]["allow_volatile"] is True


@pytest.mark.parametrize(
    "text", ["[harvest", "[nonsense]\n", "[harvest]\nerase = 7\n", "[boots]\nprefix = 'x'\n", "\x00"]
)
def test_check_config_is_strict_where_collect_is_not(text: str, pair: Root, pstored: Pstored) -> None:
    """78 for the one; the other warns, and goes on."""
    pair.configure(text)
    done = pstored("check-config", root=pair)
    assert done.status == 78
    assert "problem: " in done.stdout
    collected = pstored("collect", root=pair)
    assert collected.status == 0
    assert "warning: " in collected.stderr
    assert pstored("check-config", "--json", root=pair).json["problems"]


def test_check_config_checks_one_file(pair: Root, pstored: Pstored, tmp_path: Path) -> None:
    """Before it is put in place."""
    (tmp_path / "new.conf").write_text("[nonsense]\n")
    assert pstored("check-config", str(tmp_path / "new.conf"), root=pair).status == 78
    assert pstored("check-config", str(tmp_path / "none.conf"), root=pair).status == 78


@pytest.mark.parametrize(
    ("sink", "key"), [("webhook", "url"), ("mqtt", "server"), ("sentry", "dsn_file"), ("exec", "command")]
)
def test_check_config_knows_what_a_sink_must_have(sink: str, key: str, pair: Root, pstored: Pstored) -> None:
    """A table without it would deliver nothing; one that is turned off may lack it."""
    pair.configure(f"[{sink}]\n")
    done = pstored("check-config", root=pair)
    assert done.status == 78
    assert f"problem: {key!r} in [{sink}] must be set" in done.stdout.splitlines()
    pair.configure(f"[{sink}]\nenabled = false\n")
    assert pstored("check-config", root=pair).status == 0


# -- how it ends


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["list", "--nonsense"], ["show", "a", "b"], ["export"]])
def test_wrong_usage_is_2(arguments: list[str], pstored: Pstored) -> None:
    """With the usage on standard error."""
    done = pstored(*arguments)
    assert (done.status, done.stdout) == (2, "")
    assert "usage: pstored" in done.stderr


def test_help_has_every_command_and_exit_status(pstored: Pstored) -> None:
    """And each command has its own."""
    done = pstored("--help")
    assert done.status == 0
    for word in (
        "collect",
        "harvest",
        "analyze",
        "deliver",
        "list",
        "show",
        "export",
        "verify",
        "check-config",
        "schema",
    ):
        assert re.search(rf"^ +{word}\b", done.stdout, re.MULTILINE), word
        assert pstored(word, "--help").status == 0
    for status in ("0", "1", "2", "73", "75", "77", "78"):
        assert re.search(rf"^ +{status} ", done.stdout, re.MULTILINE)


def test_an_archive_that_cannot_be_written_is_73(root: MakeRoot, pstored: Pstored) -> None:
    """A file stands where the archive should be: nothing is erased."""
    made = root(PAIR)
    made.archive.parent.mkdir(parents=True, exist_ok=True)
    made.archive.write_text("in the way")
    done = pstored("collect", root=made)
    assert done.status == 73
    assert done.stderr.startswith("error: ")
    assert len(made.names()) == 63


def test_what_is_left_in_the_store_is_1(root: MakeRoot, pstored: Pstored) -> None:
    """An oops in this boot: the slots may hold a newer crash; a second run is still 1, and archives nothing new."""
    made = root("panic", backend="ramoops")
    made.configure(VOLATILE)
    made.write("sys/kernel/oops_count", "1\n")
    for archived in (1, 0):
        done = pstored("collect", "--json", root=made)
        assert done.status == 1
        assert len(done.json["harvest"]["archived"]) == archived
        assert {r["outcome"] for r in done.json["harvest"]["records"]} == {"deferred"}


def test_a_reader_that_goes_away_is_no_error(pair: Root) -> None:
    """`pstored list | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "pstored", "--root", str(pair.path), "show"],
        cwd=REPOSITORY,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


# -- terminals


@pytest.fixture
def evil(root: MakeRoot, pstored: Pstored) -> Root:
    """A crash whose every word acts on a terminal: in its text, its title, the name of its task; in names of files."""
    made = root(boot_id=BOOT_ID)
    made.configure(VOLATILE)
    lines = [
        b"Linux version 6.1-" + EVIL + b" (a@b) #1 " + EVIL,
        b"Command line: " + EVIL,
        b"BUG: KASAN: use-after-free in " + EVIL + b"+0x1/0x2",
        b"CPU: 1 PID: 83 Comm: " + EVIL + b" Not tainted 6.1 #1",
        b"Hardware name: " + EVIL,
        b"Kernel panic - not syncing: Fatal exception " + EVIL,
    ]
    text = b"".join(b"<0>[    %d.000000] %s\n" % (n, line) for n, line in enumerate(lines))
    made.add("dmesg-ramoops-0", b"Panic#1 Part1\n" + text)
    made.add("dmesg-\x1b[2J-0", b"not a record\n")
    made.add("evil\x9b31m", b"not a record\n")
    return made


def test_nothing_in_a_record_acts_on_a_terminal(evil: Root, pstored: Pstored) -> None:
    """collect, list, show, verify: also their errors."""
    for command in (["collect"], ["list"], ["show"], ["verify"], ["collect"], ["analyze", "--all"]):
        done = pstored(*command, root=evil)
        assert "Traceback" not in done.stderr
        assert harmless(done.stdout), command
        assert harmless(done.stderr), command
    assert "\\x1b" in pstored("show", root=evil).stdout


def on_a_terminal(*arguments: str, env: dict[str, str] | None = None) -> str:
    """Run pstored on a terminal of 100 columns; give what the terminal got."""
    main, other = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PAGER", "SYSTEMD_PAGER", "LESS")}
    child = subprocess.Popen(
        [sys.executable, "-m", "pstored", *arguments],
        cwd=REPOSITORY,
        stdin=other,
        stdout=other,
        stderr=other,
        env={**environment, "COLUMNS": "100", **(env or {})},
    )
    os.close(other)
    got = b""
    with contextlib.suppress(OSError):  # EIO: the child has closed its end
        while select.select([main], [], [], 20)[0] and (piece := os.read(main, 65536)):
            got += piece
    os.close(main)
    child.wait(20)
    return got.decode(errors="backslashreplace").replace("\r\n", "\n")


def test_a_terminal_gets_colour_unless_it_asks_for_none(pair: Root) -> None:
    """NO_COLOR, whatever its value."""
    where = ["--root", str(pair.path)]
    assert "\x1b[" in on_a_terminal(*where, "show", "--no-pager")
    assert "\x1b" not in on_a_terminal(*where, "show", "--no-pager", env={"NO_COLOR": "1"})
    assert "\x1b" not in on_a_terminal(*where, "list", "--no-pager", env={"NO_COLOR": "1"})


def test_a_list_fits_the_terminal(pair: Root) -> None:
    """No line is wrapped."""
    shown = on_a_terminal("--root", str(pair.path), "list", "--no-pager", env={"NO_COLOR": "1", "COLUMNS": "60"})
    assert max(len(line) for line in shown.split("\n")) <= 60


def test_the_pager_is_used_on_a_terminal_only(pair: Root, pstored: Pstored, tmp_path: Path) -> None:
    """SYSTEMD_PAGER before PAGER; none where nobody looks, where it is empty, or with --no-pager."""
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > {tmp_path}/paged\necho PAGED\n")
    pager.chmod(0o755)
    where = ["--root", str(pair.path)]
    env = {"SYSTEMD_PAGER": str(pager), "PAGER": "false"}
    assert "PAGED" not in pstored("show", root=pair, env=env).stdout
    assert not (tmp_path / "paged").exists()
    assert on_a_terminal(*where, "show", env=env) == "PAGED\n"
    assert "sysrq triggered crash" in (tmp_path / "paged").read_text()
    assert "PAGED" not in on_a_terminal(*where, "show", "--no-pager", env=env)
    assert "PAGED" not in on_a_terminal(*where, "show", env={"SYSTEMD_PAGER": "", "PAGER": str(pager)})


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_a_terminal_without_unicode_ends_nothing(locale: str, pair: Root, pstored: Pstored) -> None:
    """Names and titles may hold anything; what cannot be shown is escaped."""
    path = pair.crashes()[0] / "crash.json"
    path.write_text(path.read_text().replace("Kernel panic: sysrq", "Kernel p\u00e4nic \u2014 sysrq"))
    done = pstored("show", "-2", root=pair, env={"LC_ALL": locale, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.status == 0, done.stderr
    assert pstored("list", root=pair, env={"LC_ALL": locale, "PYTHONUTF8": "0"}).status == 0


@pytest.mark.parametrize("command", ["harvest", "list"])
@pytest.mark.parametrize("root", [[], ["--root", "/somewhere"]])
def test_a_plain_command_is_what_argparse_makes_of_it(command: str, root: list[str]) -> None:
    """The short way past argparse gives the same options; with any option, argparse is asked."""
    assert vars(parse([*root, command])) == vars(parser.parse([*root, command]))
    assert parse([*root, command, "--json"]).json


def test_a_plain_harvest_imports_nothing_slow(pstored: Pstored, root: MakeRoot) -> None:
    """Neither argparse, tarfile, logging nor OpenSSL: they take as long as all the rest."""
    program = "import sys; from pstored.cli import run; run(['--root', sys.argv[1], 'harvest']); print(*sys.modules)"
    made = root("panic", backend="efi_pstore")
    done = subprocess.run([sys.executable, "-c", program, str(made.path)], capture_output=True, text=True, check=True)

    assert not {"argparse", "tarfile", "logging", "tomllib", "subprocess", "_hashlib"} & set(done.stdout.split())
