# SPDX-License-Identifier: Apache-2.0
"""Records of how a boot ended: what was written, and anything else."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pstored.errors import DamagedError
from pstored.parse.end import BootEnd, format_end, parse_end

TEXTS = st.text(max_size=20)
NUMBERS = st.none() | st.floats(-1e12, 1e12)
ENDS = st.builds(
    BootEnd,
    boot_id=TEXTS,
    kernel=st.none() | TEXTS,
    kind=TEXTS,
    title=TEXTS,
    evidence=st.lists(TEXTS, max_size=3).map(tuple),
    wall=NUMBERS,
    uptime_s=NUMBERS,
    last_words=st.lists(TEXTS, max_size=3).map(tuple),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OTHERS = st.fixed_dictionaries({}, optional=dict.fromkeys(BootEnd._fields, VALUES)) | VALUES


@given(ENDS)
def test_round_trip(end: BootEnd) -> None:
    """What one run writes, another reads."""
    assert parse_end(format_end(end)) == end


@given(st.binary(max_size=100) | OTHERS.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_end_or_damaged(data: bytes) -> None:
    """Whatever is read can be shown, and written again."""
    try:
        end = parse_end(data)
    except DamagedError:
        return
    assert end.render().endswith("\n")
    assert parse_end(format_end(end)) == end
