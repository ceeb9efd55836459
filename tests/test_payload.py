# SPDX-License-Identifier: Apache-2.0
"""What goes out of a crash: capped, redacted, valid UTF-8; and who sends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.delivery.payload import Reporter, Wanted, cap, choose_text, clean, make_parcel, stack_trace
from pstored.delivery.reporter import read_reporter
from pstored.host import Host
from pstored.sinks.settings import Text
from tests.conftest import MakeRoot, Pstored

REPORTER = Reporter("0", "m" * 32, None, "board", "armv7l", "6.12", "os", "1", "OS 1", "b1", None, None)
ALL = Wanted(Text.FULL, 1 << 20, True, ())


def lines(number: int) -> bytes:
    """Numbered lines of ten bytes."""
    return b"".join(b"line %04d\n" % n for n in range(number))


def test_a_short_text_goes_out_whole() -> None:
    """To the byte."""
    assert cap(lines(10), 100) == (lines(10), 0)
    assert cap(b"", 0) == (b"", 0)


def test_of_a_long_text_the_beginning_and_the_end_go_out() -> None:
    """Whole lines, more of the end; between them how much is not there, which is true."""
    kept, left_out = cap(lines(1000), 400)
    head, between, tail = kept.partition(b"--- pstored: 9600 bytes are left out here\n")
    assert (head, tail, left_out) == (lines(10), lines(1000)[-300:], 9600)
    assert between


@given(st.binary(max_size=400), st.integers(0, 300))
def test_any_bytes_are_capped(text: bytes, most: int) -> None:
    """What is kept is a beginning and an end, no more than so much of them, and the number is right."""
    kept, left_out = cap(text, most)
    if not left_out:
        assert kept == text
        return
    marker = b"--- pstored: %d bytes are left out here\n" % left_out
    head, _, tail = kept.partition(marker)
    head = head if text.startswith(head) else head[:-1]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + len(tail) == len(text) - left_out <= max(most, 0)


@pytest.mark.parametrize(("choice", "wanted"), [(Text.NONE, None), (Text.FULL, "x\\xff\n")])
def test_choices(choice: Text, wanted: str | None) -> None:
    """Bytes that are no text are escaped; without a log there is no text."""
    assert choose_text(b"x\xff\n", choice, 100)[0] == wanted
    assert choose_text(b"", choice, 100) == (None, 0)


def test_trace_is_the_kernels_reports_without_registers(root: MakeRoot, pstored: Pstored) -> None:
    """Of a real panic."""
    made = root("lab-efi-twoboots")
    pstored("collect", root=made)
    log = (made.crashes()[0] / "dmesg.txt").read_bytes()
    text, left_out = choose_text(log, Text.TRACE, 65536)
    assert text is not None
    assert "Kernel panic - not syncing: sysrq triggered crash" in text
    assert "Call Trace" in text
    assert "RAX:" not in text
    assert "BIOS-e820" not in text
    assert 0 < left_out < len(log)


def parcel(crash: dict[str, Any], log: bytes = b"", wanted: Wanted = ALL, **more: Any) -> Any:
    """A parcel."""
    given_: dict[str, Any] = {"reporter": REPORTER, "first": "2026", "last": "2026"} | more
    return make_parcel("20261123T045102Z-0123456789ab.1", crash, log, wanted=wanted, **given_)


def test_report_and_text_are_redacted_alike() -> None:
    """The same address has the same mark in both; it is said how many there were."""
    made = parcel({"id": "x", "title": "at ffff888104a2c000"}, b"RAX: ffff888104a2c000 10.0.0.1\n")
    assert made.crash["title"] == "at <pointer-1>"
    assert made.text == "RAX: <pointer-1> <ip-1>\n"
    assert made.redacted == {"ip": 1, "pointer": 2}
    plain = parcel({"id": "x", "title": "at ffff888104a2c000"}, wanted=ALL._replace(redact=False))
    assert (plain.crash["title"], plain.redacted) == ("at ffff888104a2c000", {})


def test_a_log_that_was_cut_is_still_that_machines() -> None:
    """What tells a 32-bit log may be in the part that is left out of the report's own words."""
    made = parcel({"title": "at c0123456"}, b"PC is at foo+0x1/0x2\nr0 : c0123456\n")
    assert (made.crash["title"], made.text) == ("at <pointer-1>", "PC is at foo+0x1/0x2\nr0 : <pointer-1>\n")


def test_what_is_no_unicode_is_escaped() -> None:
    """So that any receiver can read it as UTF-8."""
    made = parcel({"id": "x", "title": "a\udcff", "k\udcff": ["\ud800"]})
    assert made.crash == {"id": "x", "title": "a\\udcff", "k\\udcff": ["\\ud800"]}
    json.dumps(made.document(), ensure_ascii=False).encode()


@given(st.text(st.characters(), max_size=20))
def test_cleaned_text_is_utf8(text: str) -> None:
    """Whatever it was."""
    clean(text).encode()


def test_uid_tells_boards_apart_and_needs_no_machine_id() -> None:
    """By a digest of the id, not by itself: a uid ends up in logs and addresses."""
    made = parcel({})
    assert "m" * 12 not in made.uid
    assert made.uid != parcel({}, reporter=REPORTER._replace(machine_id="n" * 32)).uid
    assert parcel({}, reporter=REPORTER._replace(machine_id=None)).uid.startswith("20261123T045102Z-0123456789ab.1@")


def test_stack_trace_is_as_the_kernel_writes_it() -> None:
    """A line a frame; what is not known is left out."""
    frames: list[dict[str, Any]] = [
        {"function": "f", "offset": 5, "size": 7, "module": "m", "reliable": True},
        {"function": "g", "offset": 16, "size": None, "module": None, "reliable": False},
        {"function": None, "offset": None, "size": None, "module": None, "reliable": True},
    ]
    assert stack_trace(frames) == "f+0x5/0x7 [m]\n? g+0x10\n?"


def test_reporter_is_read_from_the_system(root: MakeRoot) -> None:
    """os-release as it may be written; the board by DMI, else by the device tree; what is not there is None."""
    made = root()
    made.write(
        "etc/os-release", "# c\nID=acme\nVERSION_ID='1.2'\nPRETTY_NAME=\"Acme \u00e9 1.2\"\nBUILD_ID=77\nbroken\n"
    )
    made.write("sys/firmware/devicetree/base/model", "Acme Board v3\0")
    made.write("sys/firmware/devicetree/base/compatible", "acme,board3\0arm,generic\0")
    found = read_reporter(Host(str(made.path)))
    assert found[6:] == ("acme", "1.2", "Acme \u00e9 1.2", "77", "acme", "Acme Board v3")
    made.write("sys/class/dmi/id/sys_vendor", "QEMU\n")
    made.write("sys/class/dmi/id/product_name", "To Be Filled By O.E.M.\n")
    found = read_reporter(Host(str(made.path)))
    assert (found.vendor, found.model) == ("QEMU", "Acme Board v3")
    (made.path / "etc/os-release").unlink()
    assert Host(str(made.path)).os_release() == {}
    assert read_reporter(Host(str(made.path))).os_build is None
