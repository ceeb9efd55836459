# SPDX-License-Identifier: Apache-2.0
"""Where the listener leaves what it has received, and how it wakes the daemon, which takes it into the archive.

::

    /var/lib/pstored-netconsole/        of root, and of the listener's group
        20261127T183008Z-10.0.0.5-1.jsonl       one crash's datagrams, whole, as `pstored import` reads them
        wake                            a FIFO of the daemon's; a byte in it, and it collects

So who talks to the net cannot write in the archive, nor read it, and a crash is on the disk as soon as it is over.
No typing here: the listener is small.
"""

import errno
import json
import os
import time

from pstored import durable
from pstored.daemon import SPOOL, WAKE
from pstored.daemon.senders import Crash
from pstored.errors import ArchiveError

SUFFIX = ".jsonl"
MAX_FILES = 1000
"""Crashes that wait for the daemon; when there are more, nobody takes them."""
MAX_SIZE = 64 << 20
"""Bytes, likewise."""
DIRECTORY_MODE = 0o750
FILE_MODE = 0o644
"""The daemon, root without capabilities, is nobody to the listener; the directory keeps others out."""


def encode(crash: Crash) -> bytes:
    """A crash as a file: a line of JSON for each datagram."""
    lines = []
    for received_ns, data in crash.datagrams:
        value: dict[str, object] = {"t": received_ns / 10**9, "from": crash.address, "data": data.decode("latin-1")}
        if crash.host:
            value["host"] = crash.host
        lines.append(json.dumps(value) + "\n")
    return "".join(lines).encode()


class Spool:
    """The directory below *root*, for the listener."""

    def __init__(self, root: str) -> None:
        self.path = os.path.join(root, SPOOL.lstrip("/"))
        self._number = 0

    def put(self, crashes: list[Crash]) -> None:
        """Write crashes, durably.

        Raises:
            ArchiveError: they cannot be written, or too many wait already.
        """
        durable.make_directory(self.path, mode=DIRECTORY_MODE)
        with durable.archive_errors("write to", self.path):
            with os.scandir(self.path) as entries:
                sizes = [e.stat(follow_symlinks=False).st_size for e in entries if e.name.endswith(SUFFIX)]
            files = {self._name(crash): encode(crash) for crash in crashes}
            if len(sizes) + len(files) > MAX_FILES or sum(sizes) + sum(map(len, files.values())) > MAX_SIZE:
                raise ArchiveError(
                    f"{len(sizes)} crashes wait in {self.path!r}, and nobody takes them into the archive",
                    hint="start pstored.service, or run: pstored import",
                )
        durable.replace_files(self.path, files, scratch=self.path, mode=FILE_MODE)

    def _name(self, crash: Crash) -> str:
        self._number += 1
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(crash.datagrams[-1][0] // 10**9))
        return f"{when}-{crash.address}-{os.getpid()}.{self._number}{SUFFIX}"

    def wake(self) -> bool:
        """Wake the daemon; gives whether there is one."""
        try:
            fd = os.open(os.path.join(self.path, WAKE), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False  # no FIFO, or nobody reads it
        try:
            os.write(fd, b"\n")
        except OSError as e:
            return e.errno == errno.EAGAIN  # full: it has not come to read it yet
        finally:
            os.close(fd)
        return True
