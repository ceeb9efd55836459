# SPDX-License-Identifier: Apache-2.0
"""What the README says is so."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fake_pstore.capture import STAMP_PREFIX, load, populate_root
from pstored.cli.parser import EPILOG, make_parser
from pstored.config import Config
from pstored.delivery.redact import KINDS as REDACTED
from pstored.harvest import Pass
from pstored.oops import KINDS as REPORTS
from pstored.readers import KINDS
from pstored.sinks import settings
from pstored.sinks.journal import MESSAGE_ID, RESET_MESSAGE_ID, fields

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands that the program knows."""
    (choices,) = (a.choices for a in make_parser()._actions if a.dest == "command" or a.choices)
    assert choices is not None
    return list(choices)


def table(*columns: str) -> list[list[str]]:
    """The rows of the README's table with this header."""
    _, _, rest = README.partition("| " + " | ".join(columns) + " |\n")
    rows = []
    for line in rest.splitlines()[1:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert rows, f"no table with the columns {columns}"
    return rows


@pytest.mark.parametrize("command", commands())
def test_every_command_has_help_and_stands_in_the_readme(command: str) -> None:
    """``pstored COMMAND --help`` works, and the command is in the table."""
    done = subprocess.run([sys.executable, "-m", "pstored", command, "--help"], capture_output=True, text=True)

    assert done.returncode == 0
    assert "--root" in done.stdout
    assert f"`pstored {command}`" in [row[0] for row in table("command", "what")]


def test_kinds_of_what_can_be_imported_are_those_of_help() -> None:
    """The table and ``pstored import --help`` say the same."""
    assert {row[0].strip("`"): row[1] for row in table("kind", "what")} == {k: v.about for k, v in KINDS.items()}


def test_no_command_in_the_readme_is_made_up() -> None:
    """The table names nothing that the program does not know."""
    named = {row[0].strip("`").removeprefix("pstored ") for row in table("command", "what")}

    assert named == set(commands())


def test_exit_statuses_are_those_of_help() -> None:
    """The README's table and the epilogue of ``--help`` list the same statuses."""
    in_readme = [int(row[0]) for row in table("exit status", "meaning")]
    in_help = [int(found) for found in re.findall(r"^  (\d+) ", EPILOG, re.MULTILINE)]

    assert in_readme == in_help


def test_configuration_table_has_every_key_and_its_default() -> None:
    """Every key stands in the table with its true default, and no other."""
    said = {row[0].strip("`"): row[1].strip("`") for row in table("key", "default", "what")}
    said |= {row[0].strip("`"): row[1].strip("`") for row in table("key of what goes out", "default", "what")}
    tables = Config().tables() | {name: make() for name, make in settings.TABLES.items()}
    true = {
        f"[{name}] {key}": "unset" if value is None else json.dumps(value)
        for name, keys in tables.items()
        for key, value in keys._asdict().items()
    }

    assert said == true


def test_journal_fields_are_documented(tmp_path: Path) -> None:
    """Every PSTORE_ field that an entry can have is in the README, and no other; so is the MESSAGE_ID."""
    root = collected(tmp_path)
    crash = json.loads(run(root, "show", "--json"))

    sent = {name for name in fields(crash, text=b"x" * 10, report_path="/x", cap=5) if name.startswith("PSTORE_")}
    sent |= {"PSTORE_FUNCTION", "PSTORE_LOOP"}  # absent where the log names none, and of a boot in no loop, as here
    assert "PSTORE_SIGNATURE" in sent
    sent |= {"PSTORE_RESTORED"}  # of lines that were given back
    sent |= {"PSTORE_SENDER", "PSTORE_SENDER_HOST"}  # of what came over the net
    assert set(re.findall(r"`(PSTORE_\w+)`", README)) == sent
    for message_id in (MESSAGE_ID, RESET_MESSAGE_ID):
        assert f"MESSAGE_ID={message_id}" in README


def collected(root: Path) -> Path:
    """A tree in which the README's crash was collected."""
    populate_root(root, load("lab-efi-twoboots"))
    (root / "etc/pstored.conf").write_text(
        f'[boots]\nstamp_prefix = "{STAMP_PREFIX}"\n[archive]\nallow_volatile = true\n'
    )
    (root / "collected").write_text(run(root, "collect"))
    return root


def run(root: Path, *arguments: str) -> str:
    """The output of a command that succeeds."""
    command = [sys.executable, "-m", "pstored", "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_first_screen_is_what_the_program_prints(tmp_path: Path) -> None:
    """The session at the top, but for the root, the lab's stamp prefix and the time of the collection."""
    root = collected(tmp_path)
    shown = README.split("```console\n")[1].split("```")[0]
    said_collect, wanted, said_show = re.split(r"\n\n\$ pstored show (\w+)\n", shown)

    true_collect = (root / "collected").read_text().replace(f"--root {root} ", "")
    true_show = run(root, "show", wanted).replace(STAMP_PREFIX, "pstored: boot ")

    assert said_collect.removeprefix("$ pstored collect\n") == true_collect.rstrip("\n")
    assert timeless(said_show.partition("  ...\n")[0]) == timeless(true_show)[: len(timeless(said_show)) - 1]


def timeless(page: str) -> list[str]:
    """The lines of a page without what differs from run to run; trailing blanks are the kernel's."""
    page = re.sub(r"\d{8}T\d{6}Z|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", page)
    return [line.rstrip() for line in page.splitlines()]


def test_archive_layout_is_as_drawn(tmp_path: Path) -> None:
    """Every file in an archive is in the README's drawing."""
    archive = collected(tmp_path) / "var/lib/pstored"

    assert {p.name for p in archive.rglob("*") if p.is_file()} <= set(re.findall(r"[\w-]+\.[a-z]+", README))


def test_a_pass_over_nothing_is_status_0() -> None:
    """What the exit status table says of nothing to do."""
    assert Pass(None, (), 0, (), (), ()).exit_status() == 0


def test_what_is_left_out_of_what_goes_out_is_said() -> None:
    """Each kind of thing, in the program's words."""
    assert {row[0].strip("`"): row[1] for row in table("left out", "what it covers")} == REDACTED


def test_every_kind_is_explained_as_the_program_explains_it() -> None:
    """The table of kinds is the program's own."""
    assert {row[0].strip("`"): row[1] for row in table("kind", "what the kernel noticed")} == REPORTS
