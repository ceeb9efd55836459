# SPDX-License-Identifier: Apache-2.0
"""The journal's own way to the fleet: systemd-journal-upload(8) to systemd-journal-remote(8), real, on loopback."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pstored.sinks.journal import MESSAGE_ID, RESET_MESSAGE_ID
from tests.conftest import REPOSITORY, MakeRoot, Root, require
from tests.loopback import free_port
from tests.test_journald import CONFIG, text_of, with_journald
from tests.test_journald import pstored as command

pytestmark = pytest.mark.journald

TOOLS = ("/lib/systemd/systemd-journal-upload", "/lib/systemd/systemd-journal-remote")
OURS = ("-o", "json", "--all", f"MESSAGE_ID={MESSAGE_ID}")

UPLOAD = """
set -eu
port=$1 directory=$2 upload=$3 remote=$4
mkdir -p "$directory/arrived"
journalctl --namespace=t --sync
"$remote" --listen-http=127.0.0.1:$port --output="$directory/arrived" --split-mode=host &
pid=$!
trap 'kill $pid; wait $pid || true' EXIT
tries=0
until said=$("$upload" --url=http://127.0.0.1:$port --directory=/var/log/journal/$(cat /etc/machine-id).t \\
    --save-state="$directory/state" --follow=no 2>&1); do
    tries=$((tries + 1))
    if [ $tries -gt 100 ] || ! kill -0 $pid; then echo "$said" >&2; exit 1; fi
    sleep 0.1
done
"""


@pytest.fixture
def crashed(root: MakeRoot) -> Root:
    """A machine with one crash, whose journal is the test's."""
    for tool in TOOLS:
        require(os.path.exists(tool), f"there is no {tool} (apt-get install systemd-journal-remote)")
    made = root("oops-panic", backend="efi_pstore")
    made.configure(CONFIG)
    return made


def upload(directory: Path) -> tuple[str | Path, ...]:
    """The command that sends what the journal has and was not sent, and ends."""
    script = directory / "upload.sh"
    script.write_text(UPLOAD)
    return ("sh", script, str(free_port()), directory, *TOOLS)


def arrived(directory: Path) -> list[dict[str, Any]]:
    """Our entries on the other side."""
    (file,) = (directory / "arrived").glob("*.journal")
    assert file.name.startswith("remote-127.0.0.1")
    found = subprocess.run(["journalctl", f"--file={file}", "-q", *OURS], capture_output=True, check=True)
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_a_crash_arrives_on_the_other_side(crashed: Root, tmp_path: Path) -> None:
    """Found by the same MESSAGE_ID, with every field that the board's own journal has.

    Of systemd 252 an upload that is started anew sends the last entry once more: the crash's id tells that it is the
    same.
    """
    collected, sent, again, ours = with_journald(
        command(crashed, "collect"),
        upload(tmp_path),
        upload(tmp_path),
        ("journalctl", "--namespace=t", "-q", *OURS),
    )
    assert (collected.status, sent.status, again.status) == (0, 0, 0), sent.stderr + again.stderr
    entry, *copies = arrived(tmp_path)
    assert len(copies) <= 1
    assert all(copy["PSTORE_CRASH_ID"] == entry["PSTORE_CRASH_ID"] for copy in copies)
    (here,) = (json.loads(line) for line in ours.stdout.splitlines())
    assert {name: value for name, value in entry.items() if not name.startswith("__")} == {
        name: value for name, value in here.items() if not name.startswith("__")
    }
    assert entry["__REALTIME_TIMESTAMP"] == here["__REALTIME_TIMESTAMP"]
    (crash,) = crashed.crashes()
    assert entry["PSTORE_CRASH_ID"] == crash.name
    assert entry["PSTORE_BOOT_ID"] == crashed.boots[0].boot_id.replace("-", "")
    assert text_of(entry["PSTORE_TEXT"]) == (crash / "dmesg.txt").read_bytes()
    assert entry["_MACHINE_ID"]  # whose it is


def test_what_came_while_the_server_was_away_is_sent_later(crashed: Root, tmp_path: Path) -> None:
    """Without a server the upload fails, and the journal still has it."""
    script = tmp_path / "alone.sh"
    script.write_text(
        '"$2" --url=http://127.0.0.1:$1 --directory=/var/log/journal/$(cat /etc/machine-id).t --follow=no '
        '--save-state="$3/state"\n'
    )
    collected, failed, sent = with_journald(
        command(crashed, "collect"),
        ("sh", script, str(free_port()), TOOLS[0], tmp_path),
        upload(tmp_path),
    )
    assert (collected.status, sent.status) == (0, 0), sent.stderr
    assert failed.status != 0
    (entry,) = arrived(tmp_path)
    assert entry["PSTORE_CRASH_ID"] == crashed.crashes()[0].name


def test_the_fleets_readme_looks_for_what_is_sent() -> None:
    """Both messages, by their ids."""
    text = (REPOSITORY / "units/fleet/README.md").read_text()
    assert {word for word in text.split() if word.startswith("MESSAGE_ID=")} == {
        f"MESSAGE_ID={MESSAGE_ID}",
        f"MESSAGE_ID={RESET_MESSAGE_ID}",
    }
