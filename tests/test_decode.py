# SPDX-License-Identifier: Apache-2.0
"""``pstored decode``: any log without an archive, raw or packed, for people and for programs."""

import gzip
import hashlib
import json
import lzma
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fake_pstore.capture import load
from pstored.decode import decode, render, to_json, unwrap
from tests.test_oops_dialects import DIALECTS

LOG = DIALECTS["x86-64"].text.encode()


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The command itself."""
    return subprocess.run(
        [sys.executable, "-m", "pstored", "decode", *arguments], input=stdin, capture_output=True, check=False
    )


# -- what a file is


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["raw", "gzip", "xz"])
def test_a_log_is_read_raw_or_packed(pack: object) -> None:
    """By its first bytes, whatever its name is."""
    assert callable(pack)
    assert unwrap(pack(LOG)) == (LOG, ())


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
@pytest.mark.parametrize("damage", ["cut", "broken"])
def test_of_a_damaged_file_what_stands_before_the_damage_is_read(pack: object, damage: str) -> None:
    """And the damage is said."""
    assert callable(pack)
    long = LOG + b"".join(b"[   13.%06d] more %d\n" % (n, n * n) for n in range(20_000))
    packed = bytearray(pack(long))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2] ^= 0xFF
    decoded = decode("x", bytes(packed))
    assert decoded.notes
    assert len(unwrap(bytes(packed))[0]) <= len(long) + 100_000


@pytest.mark.parametrize("name", ["lab-enc-deflate", "lab-enc-lz4", "lab-enc-lzo", "lab-enc-842"])
def test_a_record_that_the_kernel_packed_is_unpacked(name: str) -> None:
    """A ``.enc.z`` file as pstorefs shows it."""
    records = {record: data for record, data, _ in load(name).records() if record.endswith(".enc.z")}
    assert records
    for data in records.values():
        decoded = decode(name, data)
        assert "packed with" in decoded.notes[0]


def test_what_is_no_text_and_no_record_is_said_to_be_so() -> None:
    """And read as it is: nothing raises."""
    decoded = decode("x", bytes(range(256)) * 40)
    assert decoded.events == []
    assert decoded.notes


def test_a_real_record_is_understood() -> None:
    """Of a real crash: the part of the dump that has the report."""
    records = [(name, data) for name, data, _ in load("x86_64-6.1deb-ramoops").records() if name.startswith("dmesg")]
    events = [event for name, data in records for event in decode(name, data).events]
    assert events
    assert all(e.comm for e in events if not e.damaged)


# -- the command


def test_json_is_one_object_a_file_on_a_line(tmp_path: Path) -> None:
    """The first report's facts, and every report."""
    (tmp_path / "a").write_bytes(LOG)
    (tmp_path / "b").write_bytes(b"nothing\n")
    done = run("--json", str(tmp_path / "a"), str(tmp_path / "b"))
    assert done.returncode == 0
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["schema"], first["kind"], first["function"], first["pid"]) == (1, "null-deref", "gauge_show", 4242)
    assert first["events"][0]["call_trace"][1] == {
        "function": "gauge_show.isra.0",
        "offset": 0x2A,
        "size": 0x60,
        "module": "gauge",
        "reliable": True,
        "address": None,
        "context": "task",
        "file": None,
        "line": None,
    }
    assert first["address"] == "0x18"
    assert first["events"][0]["registers"]["RAX"] == "0xffff888003a10000"
    assert (second["kind"], second["events"]) == (None, [])


def test_standard_input_is_read() -> None:
    """With no file, or with ``-``."""
    for arguments in ((), ("-",)):
        assert b"gauge_show" in run(*arguments, stdin=LOG).stdout


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Which, and why; exit status 1."""
    done = run(str(tmp_path / "none"))
    assert done.returncode == 1
    assert b"No such file" in done.stderr


def test_the_page_says_what_a_person_needs() -> None:
    """Title, meaning, end, function, task, kernel, taint explained, trace; nothing of the log acts on a terminal."""
    page = render(decode("serial.log", LOG.replace(b"gauged", b"g\x1b[2Jd")))
    for words in (
        "BUG: kernel NULL pointer dereference, address: 0000000000000018 in gauge_show",
        "the kernel reached for an address near zero",
        "gauge_show (the processor was in memcpy_erms)",
        "g\\x1b[2Jd[4242] on CPU 3",
        "6.1.192",
        "O: a module from outside",
        "gauge_show.isra.0+0x2a/0x60 [gauge]",
        "? __die+0x23/0x70",
    ):
        assert words in page
    assert "\x1b" not in page


def test_other_reports_of_the_log_are_named() -> None:
    """The page is about the first."""
    page = render(decode("x", LOG + b"[   99.000000] kernel BUG at a.c:1!\n"))
    assert "Other reports" in page
    assert "kernel BUG at a.c:1!" in page


def test_a_log_without_reports_is_said_to_have_none() -> None:
    """And JSON has null."""
    decoded = decode("x", b"[    1.000000] all is well\n")
    assert "no report of the kernel" in render(decoded)
    assert to_json(decoded)["kind"] is None


def test_the_signatures_can_be_worked_out_from_what_is_said() -> None:
    """By the recipe in README, written anew here, from nothing but the JSON; for all architectures' reports."""

    def digest(*words: str) -> str:
        return hashlib.sha256("".join(f"{word}\n" for word in words).encode()).hexdigest()[:16]

    nameless = b"Kernel panic - not syncing: gave up at 0xcafe, e1000 is dead, 3 tries of ff\n"
    seen = 0
    for text in (nameless, *(dialect.text.encode() for dialect in DIALECTS.values())):
        for event in to_json(decode("x", text))["events"]:
            title = re.sub(r"0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]+", "#", event["title"])
            loose = digest(event["kind"], event["function"] or title)
            assert event["signature_loose"] == loose
            frames = event["signature_frames"]
            assert len(frames) <= 5
            assert event["signature"] == (digest(event["kind"], *frames) if frames else loose)
            seen += bool(frames)
    assert seen > 10
