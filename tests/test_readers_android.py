# SPDX-License-Identifier: Apache-2.0
"""The last kmsg of Android's devices: as a file, and in a bug report, zipped or not."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_pstore import capture
from pstored.readers import bugreport, lastkmsg
from pstored.readers.lastkmsg import MAX_RECORD
from pstored.readers.memory import Held
from pstored.readers.model import Remark, Salvaged
from tests import readers

HEAD = b"=" * 56 + b"\n== dumpstate: 2026-11-23 04:18:57\n" + b"=" * 56 + b"\n\nBuild: aosp_board-userdebug\n"
OTHER = (
    b"------ KERNEL LOG (dmesg) ------\n[    0.000000] Linux\n------ 0.01s was the duration of 'KERNEL LOG' ------\n"
)
END = b"------ 0.004s was the duration of 'LAST KMSG' ------\n------ LAST LOGCAT (logcat -L -b all) ------\nx\n"


def console() -> bytes:
    """The console record of a real crash."""
    records = {name: data for name, data, _ in capture.load("x86_64-6.1-ramoops-all").records()}
    return records["console-ramoops-0"]


def report(text: bytes, where: bytes = b"/sys/fs/pstore/console-ramoops-0: 2026-11-23 04:17:01") -> bytes:
    """A bug report with that as its last kmsg."""
    return HEAD + OTHER + b"------ LAST KMSG (%s) ------\n" % where + text + END


def zipped(
    text: bytes, name: str = "bugreport-board-2026-11-23-04-18-57.txt", compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """As bugreportz gives it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("main_entry.txt", name)
        archive.writestr(name, text)
        archive.writestr("FS/data/bugreport-old.log", b"no text of its own")
    return buffer.getvalue()


# -- the file


@pytest.mark.parametrize("name", ["/proc/last_kmsg", "/x/last_klog", "last_kmsg.txt"])
def test_last_kmsg_is_the_console_record(name: str) -> None:
    """By name and content that of pstorefs, so that a kernel which shows both tells it once."""
    assert lastkmsg.READER.recognize(Held(console(), name))
    assert readers.read("last-kmsg", console(), name) == ([Salvaged("console-ramoops-0", console())], [])


def test_name_alone_is_not_enough_nor_is_a_log() -> None:
    """It takes both."""
    assert not lastkmsg.READER.recognize(Held(b"hello\n" * 100, "/proc/last_kmsg"))
    assert not lastkmsg.READER.recognize(Held(console(), "/var/log/console.log"))


def test_last_kmsg_that_is_empty_or_too_large() -> None:
    """The one is said, of the other the beginning taken."""
    assert readers.read("last-kmsg", b"") == ([], [Remark("it is empty: nothing was kept of the boot before")])
    (record,), _ = readers.read("last-kmsg", b"x\n" * (MAX_RECORD // 2 + 1))
    assert len(record.data) == MAX_RECORD
    assert record.damage


# -- the report


@pytest.mark.parametrize("where", [b"/proc/last_kmsg", b"/sys/fs/pstore/console-ramoops-0: 2026-11-23 04:17:01"])
@pytest.mark.parametrize("packed", [False, True])
def test_last_kmsg_of_a_report(where: bytes, packed: bool) -> None:
    """As it was on the device, without what dumpstate puts around it."""
    data = zipped(report(console(), where)) if packed else report(console(), where)
    assert bugreport.READER.recognize(Held(data))
    records, remarks = readers.read("bugreport", data)
    assert records == [Salvaged("console-ramoops-0", console(), notes=(f"in the report it is {where.decode()}",))]
    assert remarks == []


@pytest.mark.parametrize(
    "text", [HEAD + OTHER, report(b"*** /proc/last_kmsg: No such file or directory\n"), report(b"")]
)
def test_report_without_a_last_kmsg(text: bytes) -> None:
    """The log of the running kernel is none."""
    assert bugreport.READER.recognize(Held(text))
    records, (remark,) = readers.read("bugreport", text)
    assert (records, remark.is_damage) == ([], False)


def test_report_that_was_cut_off() -> None:
    """What there is of it is given."""
    (record,), _ = readers.read(
        "bugreport", HEAD + b"------ LAST KMSG (/proc/last_kmsg) ------\n[    1.000000] a\n[   "
    )
    assert record.data == b"[    1.000000] a\n[   "


def test_damaged_zip() -> None:
    """Without its end; and with bytes that do not unpack: what came out before is not lost, and damage is said."""
    whole = zipped(report(console()))
    for data in (whole[:-30], whole[:300] + b"\xff" * 200 + whole[500:]):
        _, remarks = readers.read("bugreport", data)
        assert [r for r in remarks if r.is_damage]


def test_zip_whose_file_has_another_name() -> None:
    """In its own header it is called what is no UTF-8, though that says so; the directory is whole."""
    whole = bytearray(zipped(report(console())))
    at = whole.index(b"PK\x03\x04", 4)
    whole[at + 7] |= 0x08
    whole[at + 31] = 0xCF
    assert bugreport.READER.recognize(Held(bytes(whole)))
    _, remarks = readers.read("bugreport", bytes(whole))
    assert remarks[0].text.startswith("the zip file is damaged: 'utf-8' codec")


def test_zip_of_something_else() -> None:
    """No report in it; an unknown way of packing; a directory that would fill memory."""
    for data in (
        zipped(b"x", "notes.txt"),
        zipped(report(console()), compression=zipfile.ZIP_BZIP2),
        zipped(report(console()))[:-10] + b"\xff\xff\xff\x7f" + bytes(6),
        b"PK\x03\x04" + bytes(100),
    ):
        assert not bugreport.READER.recognize(Held(data))
        records, remarks = readers.read("bugreport", data)
        assert records == []
        assert remarks[0].is_damage


def test_section_without_an_end() -> None:
    """It is cut where no zone is so large, and that is said."""
    (record,), _ = readers.read("bugreport", report(b"[    1.000000] x\n" * (MAX_RECORD // 17 + 10)))
    assert MAX_RECORD - 100 < len(record.data) <= MAX_RECORD
    assert record.damage == (f"only the first {MAX_RECORD} bytes are looked at",)


PIECES = st.sampled_from((HEAD, OTHER, END, b"------ LAST KMSG (/x) ------\n", b"PK\x05\x06", b"PK\x03\x04", b"\n"))
REPORTS = st.lists(PIECES | st.binary(max_size=40), max_size=8).map(b"".join)
ZIPS = st.tuples(REPORTS, st.integers(0, 400), st.binary(max_size=8)).map(
    lambda p: (z := zipped(p[0]))[: p[1]] + p[2] + z[p[1] + len(p[2]) :]
)


@given(REPORTS | ZIPS)
def test_any_bytes_give_records_or_a_sentence(data: bytes) -> None:
    """Never an exception."""
    records, remarks = readers.read("bugreport", data)
    assert records or remarks
    assert bugreport.READER.recognize(Held(data)) in (True, False)
