# SPDX-License-Identifier: Apache-2.0
"""Sources that are no file: bytes that somebody holds, and a part of another source."""

from pstored.readers.model import Source


class Held:
    """Bytes in memory."""

    def __init__(self, data: bytes, name: str = "") -> None:
        self.name = name
        self._data = data

    @property
    def size(self) -> int:
        """As any source."""
        return len(self._data)

    def read(self, at: int, count: int) -> bytes:
        """As any source."""
        return self._data[max(0, at) : max(0, at) + max(0, count)]


class Window:
    """A part of another source: a partition, a region within a dump of all memory."""

    def __init__(self, source: Source, at: int, size: int | None = None) -> None:
        """Give the *size* bytes from *at* on; None: all there are.  No more than there are."""
        self.name = source.name
        self._source = source
        self._at = max(0, at)
        left = max(0, source.size - self._at)
        self.size = left if size is None else max(0, min(size, left))

    def read(self, at: int, count: int) -> bytes:
        """As any source."""
        at = max(0, at)
        return self._source.read(self._at + at, max(0, min(count, self.size - at)))
