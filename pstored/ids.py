# SPDX-License-Identifier: Apache-2.0
"""The ids of harvests and crashes: ``<UTC time>-<digest>``.

The time is that of the collection, or one second after the newest id's if the clock is behind that: so ids sort in the
order of collection even on a board without a clock.
"""

from __future__ import annotations

import time

from pstored.lean import TYPE_CHECKING, sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHAPE = "00000000T000000Z-"
_ZEROS = str.maketrans("123456789", "000000000")
_HEX = frozenset("0123456789abcdef")


def make_id(digest_of: Iterable[str], *, wall_ns: int, after: str | None) -> str:
    """An id for things whose digests are given, later than the id *after*."""
    stamp = id_stamp(wall_ns // 1_000_000_000)
    if after is not None and stamp <= (newest := after.split("-")[0]):
        stamp = id_stamp(stamp_seconds(newest) + 1)
    return join_id(stamp, digest_of)


def join_id(stamp: str, digest_of: Iterable[str]) -> str:
    """The id of things whose digests are given, with the time *stamp*."""
    digest = sha256("\n".join(digest_of).encode(errors="surrogateescape")).hexdigest()
    return f"{stamp}-{digest[:12]}"


_STAMP = "%Y%m%dT%H%M%SZ"
_LAST_SECOND = 253_402_300_798
"""9999-12-31: ids have four digits for the year."""


def is_id(name: str) -> bool:
    """Whether it has the form of a harvest's or a crash's id: 20261123T063707Z-a1e203f3e722."""
    return len(name) == 29 and name[:17].translate(_ZEROS) == _SHAPE and _HEX.issuperset(name[17:])


def id_stamp(seconds: int) -> str:
    """The time in an id: Unix seconds as UTC, no earlier than 1970."""
    return time.strftime(_STAMP, time.gmtime(min(max(0, seconds), _LAST_SECOND)))


def stamp_seconds(stamp: str) -> int:
    """Unix seconds of an id's time; 0 if it is no date."""
    from datetime import datetime  # takes this form without the 5 ms that strptime() takes to load

    try:
        return int(datetime.fromisoformat(stamp).timestamp())
    except ValueError:
        return 0
