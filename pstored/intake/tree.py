# SPDX-License-Identifier: Apache-2.0
"""A directory tree that somebody else made: looked at without following links, and not for ever."""

import os
import stat
from collections.abc import Iterator
from itertools import islice

from pstored.terminal import some

MAX_DEPTH = 3
"""systemd-pstore makes two levels, kdump one; one more for a directory with copies of several."""
MAX_ENTRIES = 50_000
"""So many files and directories are looked at; EFI space for as many records is in no machine."""


class Sayings:
    """What is to be said of files: each sentence once, with all that it is about."""

    def __init__(self) -> None:
        self._paths: dict[str, list[str]] = {}

    def say(self, sentence: str, path: str) -> None:
        """Say it of *path*, too."""
        self._paths.setdefault(sentence, []).append(path)

    def sentences(self) -> tuple[str, ...]:
        """All of it, safe to show."""
        return tuple(f"{some(sorted(paths))}: {sentence}" for sentence, paths in self._paths.items())


def walk(top: str, problems: Sayings) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below *top* but the directories that were looked into: path relative to it, and lstat(2).

    Args:
        top: where.
        problems: told of directories that cannot be listed, and if there is more than is looked at.
    """
    waiting = [""]
    left = MAX_ENTRIES
    while waiting and left >= 0:
        where = waiting.pop()
        try:
            with os.scandir(os.path.join(top, where)) as entries:
                listed = list(islice(entries, left + 1))
        except OSError as e:
            if not isinstance(e, FileNotFoundError):
                problems.say(f"cannot be listed: {e.strerror}", where or top)
            continue
        left -= len(listed)
        for entry in listed:
            path = os.path.join(where, entry.name)
            try:
                state = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # vanished
            if stat.S_ISDIR(state.st_mode) and path.count("/") < MAX_DEPTH:
                waiting.append(path)
            else:
                yield path, state
    if left < 0:
        problems.say(f"more than {MAX_ENTRIES} entries, not all looked at", top)
