# SPDX-License-Identifier: Apache-2.0
"""A parcel that is too large for who is to get it: less of the text goes, then less of the report, and that is said.

Pure.  What of a crash groups it, and says which boot of which machine it was, always goes.
"""

from collections.abc import Callable

from pstored.delivery.payload import Parcel, cap

LESS = ("records", "dumps", "files", "other_events", "notes", "summary")
"""Of crash.json what goes first: it is long, and whoever wants it finds it on the machine."""
MIN_TEXT = 512
"""Bytes of text that are worth to be sent."""


def shorten(parcel: Parcel, most: int, size: Callable[[Parcel], int]) -> Parcel | None:
    """The parcel with as much as fits; None if it cannot be made to.

    Args:
        parcel: what is too large, or not.
        most: it must be.
        size: how large a parcel is, in what it is sent as.
    """
    if size(parcel) <= most:
        return parcel
    for bare in (_without_text(parcel), _without_text(_less(parcel))):
        if (room := most - size(bare)) >= 0:
            return _with_text(bare, parcel, room, size)
    return None


def _with_text(bare: Parcel, whole: Parcel, room: int, size: Callable[[Parcel], int]) -> Parcel:
    """*bare*, and as much of the text of *whole* as takes *room* bytes, of which each of its own may take several."""
    text = (whole.text or "").encode()
    base, length = size(bare), room
    while text and length >= MIN_TEXT:
        kept, left_out = cap(text, length)
        found = bare._replace(text=kept.decode(errors="replace"), left_out=whole.left_out + left_out)
        taken = size(found) - base
        if taken <= room:
            return found
        length = min(length * room // taken, length - MIN_TEXT // 4)
    return bare


def _without_text(parcel: Parcel) -> Parcel:
    if parcel.text is None:
        return parcel
    return parcel._replace(text=None, left_out=parcel.left_out + len(parcel.text.encode()))


def _less(parcel: Parcel) -> Parcel:
    kept = {key: value for key, value in parcel.crash.items() if key not in LESS}
    return parcel._replace(crash=kept, crash_left_out=tuple(key for key in LESS if key in parcel.crash))
