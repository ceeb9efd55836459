# SPDX-License-Identifier: Apache-2.0
"""A log as its lines, each parsed when something asks for it; frames, which most lines of a report are, in one step."""

import re
from collections.abc import Callable, Iterator, Sequence

from pstored.oops.frames import PLAIN, Words
from pstored.oops.lines import LONGEST_LINE, Line, from_kmsg, parse_line, split_joined, split_line
from pstored.parse.kmsg import KmsgLine

#   What nearly all lines of a report are: printk's own prefix, and behind it a frame in one of its frequent forms and
#   nothing else, or any text that has not another prefix in it.  What is not of this form is read by itself.
_LINES = re.compile(
    rb"^(?:<[0-7]>)?+(?:\[ {0,12}+[0-9]{1,12}+\.[0-9]{6}(\])(?:\[ {0,5}+([TC][0-9]{1,10}+)\])?+ )?+(?:%s\r?$"
    rb"|(?![^ :\n]{1,64}+ kernel: |[0-9]{3}: |c[0-9]{1,2} )([^\r\n]{1,%d}+)\r?$|[^\n]*)" % (PLAIN, LONGEST_LINE - 64),
    re.MULTILINE,
)
_TIMED, _CALLER, _NAME, _TEXT = 0, 1, 5, 12
"""Groups of the pattern."""


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

    def messages(
        self, first: int, last: int, is_ours: Callable[[str | None], bool] | None = None
    ) -> Iterator[tuple[int, bytes | Words]]:
        """What the kernel's lines from *first* up to *last* say, by index: a text, or the words of a frame.

        Args:
            first: index of the first line.
            last: index behind the last.
            is_ours: whether what this caller says counts; all do without.
        """
        rows = _LINES.findall(b"\n".join(self.raw[first:last])) if first < last else []
        known = self._known
        all_are_ours = known is None and is_ours is None
        for index, row in enumerate(rows, first):
            if all_are_ours and row[_NAME]:
                yield index, row
                continue
            caller = row[_CALLER].decode() if row[_CALLER] else None
            if row[_NAME]:
                if known is not None:
                    if known[index].facility:
                        continue
                    caller = known[index].caller or caller
                if is_ours is None or is_ours(caller):
                    yield index, row
                continue
            text = row[_TEXT]
            if known is not None or not (text and row[_TIMED]):
                text, _, caller, foreign = split_line(self.raw[index]) if known is None else from_kmsg(known[index])
                if foreign:
                    continue
            if is_ours is None or is_ours(caller):
                for piece in split_joined(text):
                    yield index, piece
