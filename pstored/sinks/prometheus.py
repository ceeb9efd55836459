# SPDX-License-Identifier: Apache-2.0
"""A file of metrics in a directory that the textfile collector of Prometheus' node_exporter reads.

It is never seen by halves: the collector reads every ``*.prom`` there whenever it is scraped, so that the new one has
another name until it is whole.  The old one is read first: whatever became of the archive, no counter goes back.
"""

import os
from collections.abc import Sequence

from pstored import durable
from pstored.config import read_plain
from pstored.delivery.exposition import parse_counters, render
from pstored.delivery.metrics import Family
from pstored.errors import ArchiveError, SinkError

FILE = "pstored.prom"
FILE_MODE = 0o644
"""node_exporter is another user, and there is no secret in it."""
MAX_FILE = 1 << 20


class Textfile:
    """The file."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def counters(self) -> dict[str, int]:
        """What its counters show; nothing, if it is not there, or cannot be read."""
        try:
            data, _ = read_plain(os.path.join(self._directory, FILE), MAX_FILE, flags=os.O_NOFOLLOW)
        except OSError:
            return {}
        return parse_counters(data.decode(errors="replace"))

    def write(self, families: Sequence[Family]) -> None:
        """Put the metrics into the place of those that are there, durably.

        Raises:
            SinkError: it cannot be written.
        """
        files = {FILE: render(families, self.counters())}
        try:
            durable.replace_files(self._directory, files, scratch=self._directory, mode=FILE_MODE, ending=".new")
        except ArchiveError as e:
            raise SinkError(
                str(e),
                hint="directory in [prometheus] must be there, and be who delivers' to write in; "
                "for pstored-deliver.service, ReadWritePaths= in a drop-in",
            ) from e
