# SPDX-License-Identifier: Apache-2.0
"""A log as its lines, each parsed when something asks for it; frames, which most lines of a report are, in one step."""

from collections.abc import Iterator, Sequence

from pstored.oops.frames import Words, split_plain
from pstored.oops.lines import Line, from_kmsg, parse_line, split_joined, split_line
from pstored.parse.kmsg import KmsgLine


class View:
    """The lines of a log."""

    def __init__(self, raw: Sequence[bytes], known: Sequence[KmsgLine] | None = None) -> None:
        self.raw = raw
        """As they stand in the log."""
        self._known = known
        """The same, parsed already."""

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: int) -> Line:
        return parse_line(self.raw[index]) if self._known is None else from_kmsg(self._known[index])

    def holding(self, word: bytes, first: int, last: int) -> Iterator[int]:
        """Those of the lines from *first* up to *last* that hold a word, once for each time."""
        text = b"\n".join(self.raw[first:last])
        index = first
        at, found = 0, text.find(word)
        while found >= 0:
            index += text.count(b"\n", at, found)
            yield index
            at, found = found, text.find(word, found + len(word))

    def messages(self, first: int, last: int) -> Iterator[tuple[int, str | None, bytes | Words]]:
        """Index, caller and text of the kernel's lines from *first* up to *last*; of a joined line, each of several.

        A line that is nothing but a frame gives the words of that instead of its text.
        """
        known = self._known
        for index in range(first, last):
            words = split_plain(self.raw[index])
            if words is None:
                if known is None:
                    text, _, caller, foreign = split_line(self.raw[index])
                else:
                    text, _, caller, foreign = from_kmsg(known[index])
                if not foreign:
                    for piece in split_joined(text):
                        yield index, caller, piece
            elif known is None or not known[index].facility:
                caller = None if words[0] is None else words[0].decode()
                yield index, caller if known is None else known[index].caller or caller, words
