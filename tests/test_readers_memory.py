# SPDX-License-Identifier: Apache-2.0
"""Sources that are no file."""

from hypothesis import given
from hypothesis import strategies as st

from pstored.readers.memory import Held, Window

NUMBERS = st.integers(min_value=-5, max_value=40)


@given(st.binary(max_size=30), NUMBERS, NUMBERS)
def test_held_bytes_are_read_from_any_place(data: bytes, at: int, count: int) -> None:
    """As many as there are, none from before the beginning."""
    source = Held(data, "x")
    assert (source.size, source.name) == (len(data), "x")
    first = max(0, at)
    assert source.read(at, count) == bytes(data[n] for n in range(first, first + count) if n < len(data))


@given(st.binary(max_size=30), NUMBERS, st.none() | NUMBERS, NUMBERS, NUMBERS)
def test_a_window_is_a_part(data: bytes, start: int, size: int | None, at: int, count: int) -> None:
    """Nothing outside of it can be read, and a window of a window is one."""
    part = data[max(0, start) :][: None if size is None else max(0, size)]
    window = Window(Held(data, "x"), start, size)
    assert (window.size, window.name) == (len(part), "x")
    assert window.read(at, count) == Held(part).read(at, count)
    assert Window(window, at, count).read(0, 99) == Held(part).read(at, count)
