# SPDX-License-Identifier: Apache-2.0
"""The running kernel's log: an oops that did not kill the machine is archived from it at once, as a record.

pstore shows such an oops only after a remount or a reboot, if at all.  So the log is read from /dev/kmsg and, if it
tells of an oops or worse that the archive does not have, archived up to the end of that report: a harvest like any
other, with one record ``dmesg-kmsg-<number of the last message>``, in the form that a pstore dump has.  The analysis
joins the kernel's own record to it when that comes.

What is known already is found in the archive, by the first lines of the reports: a restart forgets nothing.
"""

import contextlib
import errno
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pstored import durable
from pstored.archive import Archive, Harvest
from pstored.bundle import describe, live_boot, read_back, write_bundle
from pstored.config import Config
from pstored.documents import open_own
from pstored.errors import ArchiveError
from pstored.host import Host
from pstored.logs import Log
from pstored.oops import EventKey, event_keys, find_events, is_finished
from pstored.parse.devkmsg import format_message, parse_devkmsg
from pstored.parse.filename import KMSG
from pstored.parse.kmsg import KmsgLine, gap_line, parse_kmsg
from pstored.store import MemoryStore

DEVICE = "/dev/kmsg"
MAX_TEXT = 4 * 1024 * 1024
"""Of a longer log, its last so many bytes: kernels have 128 KiB to 1 MiB, whoever asks for 64 MiB gets the newest."""
MAX_LINES = 50_000
"""Likewise: a line of one letter takes more memory than text."""
MAX_READ = 512 * 1024 * 1024
"""Reading ends here: a ring of 64 MiB, each byte escaped to four; and somebody may write as fast as we read."""
CHUNK = 64 * 1024
"""Of one read(2).  The device gives one record, which is never longer; a buffer too small for it would be EINVAL."""
MAX_HARVESTS = 16
"""Of one boot: a driver that oopses once a minute must not fill the archive with copies of one log."""
QUIET_S = 0.25
"""A serial console of 9600 baud takes 0.1 s a line, and the kernel prints no faster than that."""
SETTLE_S = 2.0
"""A report that is still being printed is waited for, but not for longer."""


class Look(NamedTuple):
    """What a look into the log gave."""

    harvest_id: str | None
    """The new bundle; None if the log tells of nothing new."""
    reports: int
    """Oopses and the like that the log tells of."""
    warnings: tuple[str, ...]
    """What somebody should know."""
    failed: bool = False
    """Whether it could not be looked into, or not be archived, though it should: worth another try."""


def look(host: Host, config: Config, *, read: Callable[[int, int], bytes] = os.read, quiet_s: float = QUIET_S) -> Look:
    """Archive the log of the running kernel if it tells of an oops that is not in the archive.

    Args:
        host: the running system.
        config: where the archive is.
        read: read(2).
        quiet_s: a report that is still being printed is at its end when nothing came for so long.

    Raises:
        ArchiveError: the archive cannot be written, or does not read back.
    """
    if host.is_crash_kernel():
        return Look(None, 0, ("this is the kdump kernel: its log is not looked into",))
    boot_id = host.boot_id()
    if boot_id is None:
        return Look(None, 0, ("which boot is running cannot be read, so its log is not looked into",), failed=True)
    try:
        log = _read(host, read, quiet_s)
    except OSError as e:
        return Look(None, 0, (f"{DEVICE} cannot be read: {os.strerror(e.errno or 0)}",), failed=True)
    if log is None:
        return Look(None, 0, ())
    archive = Archive(host.path(config.archive.path))
    with archive.lock(), durable.archive_errors("write to", archive.harvests):
        harvests = _harvests_of(archive, boot_id)
        unknown = _unknown(log.reports, _texts(archive, boot_id, harvests))
        if not unknown:
            return Look(None, len(log.reports), ())
        if len(harvests) >= MAX_HARVESTS:
            why = f"the archive has the log of this boot {len(harvests)} times already"
            return Look(None, len(log.reports), (f"{len(unknown)} new reports in {DEVICE} are not archived: {why}",))
        return Look(_archive(host, archive, log), len(log.reports), ())


# -- reading


_Report = tuple[EventKey, KmsgLine]
"""With its first line."""


class _Log(NamedTuple):
    """A log up to the end of its last report."""

    text: bytes
    reports: list[_Report]
    last: int
    """Number of the last message."""
    last_us: int
    """When that was printed, by the log's own clock."""


class _Kept(NamedTuple):
    """One message."""

    number: int
    time_us: int
    text: bytes


class _Reader:
    """Reads messages to the end of what there is, and keeps the last of them."""

    def __init__(self, fd: int, read: Callable[[int, int], bytes], *, times: bool) -> None:
        self._fd = fd
        self._read_some = read
        self._times = times
        self._rest = b""  # of a line that was cut: only in a plain file
        self._read = 0
        self._size = 0
        self._lines = 0
        self._kept: deque[_Kept] = deque()

    def read(self) -> bool:
        """Read on to the end; gives whether there was anything."""
        before = self._read
        while self._read < MAX_READ:
            try:
                data = self._read_some(self._fd, CHUNK)
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno != errno.EPIPE:
                    raise
                self._read += CHUNK  # overrun: the next read gives the oldest there is, and the numbers show the gap
                continue
            if not data:
                break
            self._read += len(data)
            self._take(data)
        return self._read > before

    def _take(self, data: bytes) -> None:
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest[:CHUNK]
        for message in parse_devkmsg(whole) if newline else ():
            text = format_message(message, times=self._times)
            lost = message.sequence - self._kept[-1].number - 1 if self._kept else 0
            if lost > 0:
                text = gap_line(f"{lost} messages are lost here") + text
            self._kept.append(_Kept(message.sequence, message.time_us, text))
            self._size += len(text)
            self._lines += text.count(b"\n")
            while self._size > MAX_TEXT or self._lines > MAX_LINES:
                dropped = self._kept.popleft().text
                self._size -= len(dropped)
                self._lines -= dropped.count(b"\n")

    def lines(self) -> list[KmsgLine]:
        """All that is kept."""
        return list(parse_kmsg(b"".join(kept.text for kept in self._kept)))

    def up_to(self, offset: int) -> list[_Kept]:
        """The messages that begin before *offset*."""
        found = []
        for kept in self._kept:
            if offset <= 0:
                break
            found.append(kept)
            offset -= len(kept.text)
        return found


def _read(host: Host, read: Callable[[int, int], bytes], quiet_s: float) -> _Log | None:
    """The log up to the end of its last report; None if it tells of none.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(host.path(DEVICE), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # what the running kernel's pstore dumps have, too; kernels without the parameter do not exist any more
        reader = _Reader(fd, read, times=host.read("/sys/module/printk/parameters/time") != "N")
        reader.read()
        lines = reader.lines()
        events = find_events(lines)
        if events and not is_finished(lines, events[-1]):
            _settle(fd, reader, quiet_s)
            lines = reader.lines()
            events = find_events(lines)
    finally:
        os.close(fd)
    if not events:
        return None
    end = events[-1].last
    messages = reader.up_to(lines[end].offset if end < len(lines) else MAX_READ)
    keys = event_keys(lines, events)
    return _Log(
        text=b"".join(m.text for m in messages),
        reports=[(key, lines[event.header]) for key, event in zip(keys, events, strict=True)],
        last=messages[-1].number,
        last_us=messages[-1].time_us,
    )


def _settle(fd: int, reader: _Reader, quiet_s: float) -> None:
    """Read on until the log is quiet."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until and poll.poll(quiet_s * 1000) and reader.read():
        pass


# -- what is known


def _harvests_of(archive: Archive, boot_id: str) -> list[Harvest]:
    """The harvests that were taken from this boot's log, newest first: the boot's are the last of all."""
    found = []
    for harvest_id in archive.newest_harvests():
        try:
            harvest = archive.load_harvest(harvest_id)
        except ArchiveError:
            continue
        if harvest.facts.get("boot_id") not in (boot_id, None):  # None: taken over from systemd-pstore
            break
        if live_boot(harvest.facts) is not None:
            found.append(harvest)
    return found


def _texts(archive: Archive, boot_id: str, harvests: list[Harvest]) -> Iterator[bytes]:
    """What the archive has of this boot's log: its crash; and what was archived, but perhaps not analyzed."""
    for crash in archive.crash_summaries():
        if crash["boot"] == boot_id:
            path = os.path.join(archive.crash_directory(crash["id"]), "dmesg.txt")
            with contextlib.suppress(OSError), open_own(path) as f:
                yield f.read()
    for harvest in harvests:
        with contextlib.suppress(ArchiveError):
            for _, data in archive.read_records(harvest.id):
                yield data


def _unknown(reports: list[_Report], texts: Iterator[bytes]) -> list[_Report]:
    """The reports that none of the texts has."""
    left = reports
    while left and (text := next(texts, None)) is not None:
        lines = Log(text).lines
        keys = set(event_keys(lines, find_events(lines)))
        # a ring that has dropped the first line of a report begins with a later one, which then looks like the first
        there = {(line.time_ns, line.text) for line in lines if line.time_ns is not None}
        left = [(key, line) for key, line in left if key not in keys and (key.time_ns, line.text) not in there]
    return left


# -- into the archive


def _archive(host: Host, archive: Archive, log: _Log) -> str:
    facts = host.facts()
    age_ns = max(0, _clock_ns(host) - log.last_us * 1000)
    name = f"dmesg-{KMSG}-{log.last}"
    bundle = write_bundle(
        archive,
        MemoryStore({name: log.text}, mtime_ns=facts.wall_ns - age_ns),
        [name],
        wall_ns=facts.wall_ns,
        describe=describe(facts, store={"path": DEVICE, "backend": KMSG, "parameters": {}}),
    )
    assert bundle is not None  # what is in memory can be read
    read_back(archive, bundle)
    archive.add_to_index(bundle)
    archive.flush_names(harvests=False)
    return bundle.id


def _clock_ns(host: Host) -> int:
    """Now by the clock of the log, which stands still while the machine sleeps; /proc/uptime goes on then."""
    if host.root == "/":
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return int((host.uptime_s() or 0.0) * 1e9)
