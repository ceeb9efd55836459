# SPDX-License-Identifier: Apache-2.0
"""Parcels that are too large: they get smaller, in order of what matters, and never more than need be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pstored.delivery.payload import Parcel, System
from pstored.delivery.shorten import LESS, MIN_TEXT, shorten
from tests.test_courier import REPORTER

REPORT = {
    "id": "20261127T213851Z-14aeca875b51",
    "title": "BUG",
    "event": {"signature": "6d3804ae345361c6"},
    "records": [{"name": f"dmesg-{n}", "sha256": "0" * 64} for n in range(20)],
    "other_events": [{"title": "x" * 100}] * 5,
    "notes": ["y" * 100],
}
LOG = "".join(f"[{n:12.6f}] line {n} of the log\n" for n in range(500))


def parcel(text: str | None = LOG) -> Parcel:
    """One with a report and a text."""
    return Parcel("u", REPORT, text, 7, 1, "f", "l", {}, REPORTER, System())


def size(one: Parcel) -> int:
    """As JSON."""
    return len(json.dumps(one.document()))


def test_what_fits_stays_as_it_is() -> None:
    """The very same."""
    one = parcel()
    assert shorten(one, size(one), size) is one


@pytest.mark.parametrize(
    "text", [LOG, "\x1b" * 20_000, "ä" * 20_000, '"\\\n' * 9000], ids=["log", "esc", "utf", "json"]
)
def test_the_text_goes_first(text: str) -> None:
    """Head and tail stay, as much as fits, however it is escaped; what is left out is counted."""
    one = parcel(text)
    found = shorten(one, 16_000, size)
    assert found is not None
    assert 13_000 < size(found) <= 16_000
    assert found.crash == REPORT
    assert found.text is not None
    assert found.text[:20] == text[:20]
    assert found.text[-20:] == text[-20:]
    head, _, tail = found.text.partition("--- pstored: ")
    kept = len((head + tail.partition("\n")[2]).encode())
    assert abs(found.left_out - (7 + len(text.encode()) - kept)) < 10


def test_then_the_report() -> None:
    """What names the crash stays; what is gone is named."""
    one = parcel()
    bare = size(one._replace(text=None, left_out=99999))
    found = shorten(one, bare - 1, size)
    assert found is not None
    assert found.crash == {key: value for key, value in REPORT.items() if key not in LESS}
    assert found.document()["crash_left_out"] == ["records", "other_events", "notes"]
    assert found.text is not None  # there is room again
    least = size(found._replace(text=None))
    assert shorten(one, least - 100, size) is None


@given(most=st.integers(0, 60_000), text=st.text(max_size=3000), times=st.integers(1, 30))
def test_never_too_large(most: int, text: str, times: int) -> None:
    """Whatever the text; nothing only if nothing fits."""
    one = parcel((text * times).encode(errors="replace").decode() or None)
    found = shorten(one, most, size)
    if found is not None:
        assert size(found) <= most
        assert found.crash["id"] == REPORT["id"]
    else:
        assert most < 1500 + MIN_TEXT
