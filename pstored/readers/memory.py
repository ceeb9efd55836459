# SPDX-License-Identifier: Apache-2.0
"""Sources that are no file: bytes that somebody holds, and a part of another; and a source where a file is wanted."""

import io

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


class AsFile(io.RawIOBase):
    """A source as a file of the library's, for tarfile and zipfile."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, which may be behind the end, but not before the beginning."""
        self._at = max(0, (0, self._at, self._source.size)[whence] + offset)
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # as it is called
        """Read what fits, or less at the end."""
        data = self._source.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
