# SPDX-License-Identifier: Apache-2.0
"""A log as its lines, each parsed when something asks for it; frames, which most lines of a report are, in one step."""

import re
from collections.abc import Callable, Iterator, Sequence

from pstored.oops.frames import CALLER, MARK, NAME, PLAIN, Words
from pstored.oops.lines import JOINED, LONGEST_LINE, Line, from_kmsg, parse_line, split_joined, split_line
from pstored.parse.kmsg import KmsgLine

#   What nearly all lines of a report are: printk's own prefix, and behind it a frame in one of its frequent forms and
#   nothing else, or any text that has not another prefix in it.  What is not of this form is read by itself.
_LINES = re.compile(
    rb"^(?:<[0-7]>)?+(?:\[ {0,12}+[0-9]{1,12}+\.[0-9]{6}(\])(?:\[ {0,5}+([TC][0-9]{1,10}+)\])?+ )?+(?:%s\r?$"
    rb"|(?![^ :\n]{1,64}+ kernel: |[0-9]{3}: |c[0-9]{1,2} )([^\n]{0,%d}[^\r\n])\r?$|[^\n]*)"
    % (PLAIN, LONGEST_LINE - 65),
    re.MULTILINE,
)
_TIMED, _WRITER, _TEXT = 0, 1, 12
"""Groups of the pattern that are no words of a frame."""


IsOurs = Callable[[str | None], bool]
"""Whether what a caller says counts."""


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

    def text(self, index: int) -> bytes:
        """What a line says, its prefixes taken off."""
        return split_line(self.raw[index])[0] if self._known is None else from_kmsg(self._known[index]).text

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
        self, first: int, last: int, is_ours: IsOurs | None = None
    ) -> Iterator[tuple[int, bytes | list[Words]]]:
        """What the kernel's lines from *first* up to *last* say: a text, or the words of frames.

        The index is that of the last line.  Of frames that stand together, only the first may have a mark, and all have
        callers or none has.

        Args:
            first: index of the first line.
            last: index behind the last.
            is_ours: whether what this caller says counts; all do without.
        """
        rows = _LINES.findall(b"\n".join(self.raw[first:last])) if first < last else []
        known = self._known
        all_count = known is None and is_ours is None
        frames: list[Words] = []
        at = first
        for index, row in enumerate(rows, first):
            if row[NAME]:
                if all_count or self._counts(index, row, is_ours):
                    if frames and (row[MARK] or (not row[CALLER]) != (not frames[0][CALLER])):
                        yield at, frames
                        frames = []
                    frames.append(row)
                    at = index
                continue
            if frames:
                yield at, frames
                frames = []
            text = row[_TEXT]
            if all_count and text and row[_TIMED]:
                pieces = [text] if len(text) < JOINED else split_joined(text)
            else:
                pieces = self._texts(index, row, is_ours)
            for piece in pieces:
                yield index, piece
        if frames:
            yield at, frames

    def _counts(self, index: int, row: Words, is_ours: IsOurs | None) -> bool:
        """Whether a frame is the kernel's, and of the caller that is asked for."""
        caller = row[_WRITER].decode() or None
        if self._known is not None:
            known = self._known[index]
            if known.facility:
                return False
            caller = known.caller or caller
        return is_ours is None or is_ours(caller)

    def _texts(self, index: int, row: Words, is_ours: IsOurs | None) -> list[bytes]:
        """The messages of any other line, if they count."""
        text, caller, foreign = row[_TEXT], row[_WRITER].decode() or None, False
        if self._known is not None:
            text, _, caller, foreign = from_kmsg(self._known[index])
        elif not (text and row[_TIMED]):
            text, _, caller, foreign = split_line(self.raw[index])
        return [] if foreign or not (is_ours is None or is_ours(caller)) else split_joined(text)
