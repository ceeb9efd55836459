# SPDX-License-Identifier: Apache-2.0
"""The journal as a witness of earlier boots: which it knows, and what it has of a boot's kernel lines.

journald stores a line of /dev/kmsg as it was (src/journal/journald-kmsg.c, dev_kmsg_record()): the kernel's time in
``_SOURCE_MONOTONIC_TIMESTAMP``, microseconds, still so since systemd 257, which adds ``_SOURCE_BOOTTIME_TIMESTAMP``;
the text, its escapes undone, in MESSAGE, a message of several lines as one; of what user space wrote, ``name[pid]: ``
in ``SYSLOG_IDENTIFIER`` and ``SYSLOG_PID`` instead.

Every value is indexed, so that asking for a time costs a look-up in each journal file, however large.  Each question
is put in a child process: journal files are mapped into memory, so that a bad sector or a file that shrinks kills who
reads (SIGBUS), and a damaged or hostile one may keep him busy; the child then ends, and the analysis goes on.

Of a machine's journals those below its machine id are read, as journalctl(1) does, or all if it has no id.
"""

import os
import pickle
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

from pstored.host import Host
from pstored.journal.export import comparable

BASES = ("/var/log/journal", "/run/log/journal")
TIMEOUT_S = 20
"""A question that takes longer is given up; one to a journal of 4 GiB takes a tenth of a second."""
MAX_ENTRIES = 50_000
"""No more entries are looked at for one question."""
MAX_BOOTS = 2000
"""Of no more boots is it asked when they began."""
AT_ONCE = 16
"""Times in one query.  Each step in a file looks all of them up, so that many small queries cost less than a large."""

FIRST_LINES = 200
"""The kernel prints its command line among its first lines."""

# Debian's kdump-tools and Fedora's kexec-tools append reset_devices; kexec(8) elfcorehdr=, but not with a device tree
_CRASH_KERNEL = re.compile(rb"(?:Kernel c|C)ommand line: (?:[^\n]*\s)?(?:reset_devices\b|elfcorehdr=)")
_ID128 = re.compile(r"[0-9a-f]{32}")
_CURSOR = re.compile(r"s=([0-9a-f]{32});i=([0-9a-f]{1,16});")  # sd_journal_get_cursor(3): numbering and number
_DIGITS = re.compile(rb"[0-9]{1,19}")

Fields = dict[str, Any]
Answer = TypeVar("Answer")


class JournalBoot(NamedTuple):
    """A boot that the journal knows, by its first and last entry there."""

    boot_id: str
    """Lower case with dashes."""
    first_wall_us: int
    """Microseconds since 1970, by that boot's clock at that moment, right or wrong."""
    first_monotonic_us: int
    """Microseconds since that boot began."""
    last_wall_us: int
    last_monotonic_us: int


class BootJournal:
    """Reads the journal; nothing raises, and what cannot be read is an empty answer."""

    problem: str | None
    """Why nothing, or not everything, can be read."""

    def __init__(self, host: Host | None) -> None:
        """Look for it on *host*; None: there is none."""
        self.looked_at = 0
        """Entries read so far, for all questions."""
        self._directories, self.problem = ([], None) if host is None else _find_directories(host)

    def boots(self, most: int = 100) -> list[JournalBoot]:
        """The newest *most* boots, oldest first.

        Boots follow each other by the journal's own numbers, not by the clock, as far as one journald numbered them.
        Lines that pstored gave back to a boot count.
        """
        nothing: list[JournalBoot] = []
        return self._ask(lambda journals: journals.boots(), nothing)[-most:]

    def equal_lines(self, lines: Iterable[tuple[int, bytes]]) -> dict[str, set[tuple[int, bytes]]]:
        """Boot ids, and those of *lines* that each boot's journal has with equal text and equal microsecond.

        Args:
            lines: of a kernel log: nanoseconds since boot, text.  Take distinctive ones: what many boots have, makes
                many entries to look at.

        What pstored itself gave back to a boot does not count.
        """
        wanted = frozenset(lines)
        return self._ask(lambda journals: journals.equal_lines(wanted), {})

    def kernel_lines(self, boot_id: str, times_us: Iterable[int]) -> Counter[tuple[int, bytes]]:
        """The kernel lines that a boot's journal has at these times: microseconds since boot, text.

        The text is :func:`~pstored.journal.export.comparable`: an entry of several lines gives several, a name that
        journald took off is put back.  Lines that pstored gave back to the boot count.
        """
        times = frozenset(times_us)
        return self._ask(lambda journals: journals.kernel_lines(boot_id, times), Counter())

    def last_entries(self, boot_id: str, most: int = 20) -> list[Fields]:
        """A boot's last entries, oldest first.

        Fields are str, or bytes where they are no UTF-8, or a list of these; ``__REALTIME_TIMESTAMP`` and
        ``__MONOTONIC_TIMESTAMP`` are int, microseconds.  Fields of more than 64 KiB are cut.
        """
        return self._ask(lambda journals: journals.last_entries(boot_id, most), [])

    def is_crash_kernel(self, boot_id: str) -> bool:
        """Whether the boot was the kdump kernel's, by its command line: kdump-tools' and kexec-tools' own words."""
        return self._ask(lambda journals: journals.is_crash_kernel(boot_id), False)

    def _ask(self, question: "Callable[[_Journals], Answer]", nothing: Answer) -> Answer:
        """Put a question in a child; *nothing* is the answer if there is none."""
        if not self._directories:
            return nothing
        try:
            from systemd import journal  # noqa: F401  # so that not every child has to
        except ImportError as e:
            self._directories, self.problem = [], f"the journal cannot be read without systemd-python: {e}"
            return nothing
        read_fd, write_fd = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_fd)
            _answer(self._directories, question, write_fd)
        os.close(write_fd)
        with open(read_fd, "rb") as f:
            data = f.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status != 0:
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            self._directories, self.problem = [], f"reading the journal ended with {how}: is it damaged?"
            return nothing
        answer, looked_at, problem = pickle.loads(data)  # our own child's
        self.looked_at += looked_at
        self.problem = problem or self.problem
        return nothing if answer is None else cast("Answer", answer)


def _find_directories(host: Host) -> tuple[list[str], str | None]:
    """Where the machine's journal files are; or why there is nothing to read."""
    machine_id = (host.read("/etc/machine-id") or "").strip()
    found, refused = [], []
    for base in map(host.path, BASES):
        try:
            names = [machine_id] if _ID128.fullmatch(machine_id) else sorted(filter(_ID128.fullmatch, os.listdir(base)))
        except OSError:
            continue
        for directory in (os.path.join(base, name) for name in names):
            try:
                files = [n for n in os.listdir(directory) if n.endswith((".journal", ".journal~"))]
            except FileNotFoundError:
                continue
            except OSError as e:
                refused.append(f"{directory} cannot be read: {e.strerror}")
                continue
            paths = [os.path.join(directory, name) for name in files]
            # a user's own journal alone tells nothing of a boot's end; what is rotated away meanwhile is not denied
            if any(os.path.exists(path) and not os.access(path, os.R_OK) for path in paths):
                refused.append(f"no permission to read the journal files in {directory}")
            elif files:
                found.append(directory)
    if not found and not refused:
        refused.append(f"there is no journal in {' or '.join(BASES)}")
    return found, refused[0] if refused else None


# -- in the child


def _answer(directories: list[str], question: "Callable[[_Journals], object]", write_fd: int) -> None:
    """Answer, and end this process."""
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(TIMEOUT_S)
        journals = _Journals(directories)
        try:
            answer = question(journals)
        except (OSError, ValueError) as e:
            answer, journals.problem = None, f"the journal cannot be read: {e}"
        with open(write_fd, "wb") as f:
            pickle.dump((answer, journals.looked_at, journals.problem), f)
        status = 0
    finally:
        os._exit(status)


class _Journals:
    """The journals of a machine, opened."""

    def __init__(self, directories: list[str]) -> None:
        from systemd import journal

        names = (*journal.DEFAULT_CONVERTERS, "MESSAGE", "SYSLOG_IDENTIFIER")
        as_they_are = dict.fromkeys(names, lambda value: value)  # a damaged time would not convert
        self.looked_at = 0
        self.problem: str | None = None
        self._readers = []
        for directory in directories:
            try:
                self._readers.append(journal.Reader(path=directory, converters=as_they_are))
            except OSError as e:
                self.problem = f"the journal in {directory} cannot be opened: {e.strerror}"

    def boots(self) -> list[JournalBoot]:
        numbered: dict[str, tuple[str, int]] = {}
        boots: dict[str, JournalBoot] = {}
        for reader in self._readers:
            known_here = reader.query_unique("_BOOT_ID")
            if len(known_here) > MAX_BOOTS:
                self.problem = f"the journal has {len(known_here)} boots: {MAX_BOOTS} of them are looked at"
            for value in islice(known_here, MAX_BOOTS):
                self._match(reader, [], value)
                reader.seek_head()
                first = next(self._entries(reader.get_next), None)
                reader.seek_tail()
                last = next(self._entries(reader.get_previous), None)
                boot_id = _boot_id(value)
                if first is None or last is None or boot_id is None:
                    continue
                seen = JournalBoot(boot_id, *_times(first), *_times(last))
                known = boots.get(boot_id, seen)
                boots[boot_id] = JournalBoot(
                    boot_id,
                    *min(known[1:3], seen[1:3], key=lambda times: times[1]),
                    *max(known[3:5], seen[3:5], key=lambda times: times[1]),
                )
                numbered.setdefault(boot_id, _number(first))
        return _in_order(boots.values(), numbered)

    def equal_lines(self, wanted: frozenset[tuple[int, bytes]]) -> dict[str, set[tuple[int, bytes]]]:
        originals = {(time_ns // 1000, comparable(text)): (time_ns, text) for time_ns, text in wanted}
        found: dict[str, set[tuple[int, bytes]]] = defaultdict(set)
        for entry in self._kernel_entries({time_us for time_us, _ in originals}):
            boot_id = _boot_id(entry.get("_BOOT_ID"))
            if boot_id is not None and "PSTORE_RESTORED" not in entry:
                found[boot_id].update(originals[line] for line in _lines(entry) if line in originals)
        return {boot_id: lines for boot_id, lines in found.items() if lines}

    def kernel_lines(self, boot_id: str, times_us: frozenset[int]) -> Counter[tuple[int, bytes]]:
        found: Counter[tuple[int, bytes]] = Counter()
        for entry in self._kernel_entries(times_us, boot_id.replace("-", "").encode()):
            found.update(_lines(entry))
        return found

    def last_entries(self, boot_id: str, most: int) -> list[Fields]:
        found: list[Fields] = []
        for reader in self._readers:
            self._match(reader, [], boot_id.replace("-", "").encode())
            reader.seek_tail()
            found += reversed(list(islice(self._entries(reader.get_previous), most)))
        return [_readable(e) for e in sorted(found, key=lambda entry: _times(entry)[1])[-most:]]

    def is_crash_kernel(self, boot_id: str) -> bool:
        for reader in self._readers:
            self._match(reader, [], boot_id.replace("-", "").encode())
            reader.add_match(_TRANSPORT="kernel")
            reader.seek_head()
            for entry in islice(self._entries(reader.get_next), FIRST_LINES):
                message = entry.get("MESSAGE")
                if isinstance(message, bytes) and _CRASH_KERNEL.match(message):
                    return True
        return False

    def _kernel_entries(self, times_us: Iterable[int], boot_id: bytes | None = None) -> Iterator[Fields]:
        """Entries of kernel lines at these times."""
        times = sorted(times_us)
        for reader in self._readers:
            for at in range(0, len(times), AT_ONCE):
                self._match(reader, times[at : at + AT_ONCE], boot_id)
                reader.seek_head()
                for entry in self._entries(reader.get_next):
                    if entry.get("_TRANSPORT") == "kernel":
                        yield entry

    def _match(self, reader: Any, times_us: Iterable[int], boot_id: bytes | None) -> None:
        reader.flush_matches()
        for time_us in times_us:
            reader.add_match(_SOURCE_MONOTONIC_TIMESTAMP=time_us)
        if boot_id is not None:
            reader.add_match(_BOOT_ID=boot_id)

    def _entries(self, step: Callable[[], Fields]) -> Iterator[Fields]:
        """Entries one after the other, those that are damaged left out, until there are no more, or enough."""
        while self.looked_at < MAX_ENTRIES:
            self.looked_at += 1
            try:
                entry = step()
            except ValueError:
                continue
            except OSError as e:
                self.problem = f"the journal cannot be read to its end: {e.strerror}"
                return
            if not entry:
                self.looked_at -= 1
                return
            yield entry
        self.problem = f"more than {MAX_ENTRIES} entries of the journal would have to be looked at"


def _times(entry: Fields) -> tuple[int, int]:
    """Wall clock and monotonic, microseconds."""
    return entry["__REALTIME_TIMESTAMP"], entry["__MONOTONIC_TIMESTAMP"][0]


def _boot_id(value: object) -> str | None:
    """With dashes; None if it is none."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else ""
    if not _ID128.fullmatch(text):
        return None
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _number(entry: Fields) -> tuple[str, int]:
    """Which journald's numbering, and the entry's number in it (sd_journal_get_seqnum(3) is too new)."""
    found = _CURSOR.match(entry["__CURSOR"])
    return (found[1], int(found[2], 16)) if found else ("", 0)


def _in_order(boots: Iterable[JournalBoot], numbered: dict[str, tuple[str, int]]) -> list[JournalBoot]:
    """By number; what was numbered by different journalds, by the newest wall clock that each of them has seen."""
    newest: dict[str, int] = defaultdict(int)
    for boot in boots:
        numbering = numbered[boot.boot_id][0]
        newest[numbering] = max(newest[numbering], boot.last_wall_us)
    return sorted(boots, key=lambda boot: (newest[numbered[boot.boot_id][0]], numbered[boot.boot_id]))


def _lines(entry: Fields) -> Iterator[tuple[int, bytes]]:
    """What the kernel log showed: microseconds since boot and comparable text of each line."""
    time_us, message = entry.get("_SOURCE_MONOTONIC_TIMESTAMP"), entry.get("MESSAGE")
    if not isinstance(time_us, bytes) or not _DIGITS.fullmatch(time_us) or not isinstance(message, bytes):
        return
    name, pid = entry.get("SYSLOG_IDENTIFIER"), entry.get("SYSLOG_PID")
    if isinstance(name, bytes) and (name != b"kernel" or entry.get("SYSLOG_FACILITY") not in (None, b"0")):
        message = name + (b"[" + pid + b"]: " if isinstance(pid, bytes) else b": ") + message
    for line in message.split(b"\n"):
        yield int(time_us), comparable(line)


def _readable(entry: Fields) -> Fields:
    readable = {name: _decoded(value) for name, value in entry.items()}
    wall_us, monotonic_us = _times(entry)
    return readable | {"__REALTIME_TIMESTAMP": wall_us, "__MONOTONIC_TIMESTAMP": monotonic_us}


def _decoded(value: object) -> object:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value
