# SPDX-License-Identifier: Apache-2.0
"""What goes out of a crash: the report, as much of the kernel's log as is wanted, and who sends it; redacted.

Pure.  A parcel is made from the archive each time it is sent, and is the same each time: whoever gets it twice can
tell by its ``uid``.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from pstored.delivery.redact import Redactor
from pstored.page.excerpt import excerpt
from pstored.sinks.settings import Text
from pstored.terminal import Style

SCHEMA = 1
HEAD_SHARE = 4
"""Of a text that is too long a quarter is its beginning, where the machine says what it is; the rest is its end."""


class Reporter(NamedTuple):
    """Who sends: the running system, which need not be the one that crashed, after an update say; None: not known."""

    version: str
    """pstored's."""
    machine_id: str | None
    boot_id: str | None
    hostname: str | None
    architecture: str
    """As ``uname -m``."""
    kernel: str | None
    os_id: str | None
    """os-release(5): ID, VERSION_ID, PRETTY_NAME, and BUILD_ID or IMAGE_VERSION."""
    os_version: str | None
    os_name: str | None
    os_build: str | None
    vendor: str | None
    """Of the board: DMI, or the device tree."""
    model: str | None


class System(NamedTuple):
    """The system that crashed, as the ledger of boots has it; None: its boot is not named, or not in the ledger."""

    os_version: str | None = None
    os_build: str | None = None


class Parcel(NamedTuple):
    """What a sink is given."""

    uid: str
    """The same whenever the same is sent, and never for two things, whatever machine they are of."""
    crash: dict[str, Any]
    """crash.json, redacted."""
    text: str | None
    """Of the crashed kernel's log; None: none is wanted, or there is none."""
    left_out: int
    """Bytes of that log that are not in the text."""
    stands_for: int
    """How many crashes it stands for; the others were like this one."""
    first: str
    """When the first of them was collected, and the last: ISO 8601, UTC."""
    last: str
    redacted: dict[str, int]
    """Kind of what was left out to how often."""
    reporter: Reporter
    system: System
    crash_left_out: tuple[str, ...] = ()
    """Keys of crash.json that are not in it, since all of it would have been too large for who gets it."""

    def document(self) -> dict[str, Any]:
        """The parcel as JSON."""
        return {
            "schema": SCHEMA,
            "uid": self.uid,
            "count": self.stands_for,
            "first": self.first,
            "last": self.last,
            "crash": self.crash,
            "crash_left_out": list(self.crash_left_out),
            "text": self.text,
            "text_left_out": self.left_out,
            "redacted": self.redacted,
            "reporter": self.reporter._asdict(),
            "system": self.system._asdict(),
        }


class Wanted(NamedTuple):
    """What is to go out."""

    text: Text
    max_text_bytes: int
    redact: bool
    words: tuple[str, ...]
    """Shell patterns of further words to leave out."""


def make_parcel(
    name: str,
    crash: dict[str, Any],
    log: bytes,
    *,
    wanted: Wanted,
    reporter: Reporter,
    system: System = System(),  # noqa: B008 - a tuple
    stands_for: int = 1,
    first: str,
    last: str,
) -> Parcel:
    """Put a parcel together.

    Args:
        name: of the item that is sent: crash id, revision, count.
        crash: crash.json.
        log: the crashed kernel's log.
        wanted: what of it.
        reporter: who sends.
        system: which system crashed.
        stands_for: how many crashes it stands for.
        first: when the first of them was collected.
        last: when the last was.
    """
    text, left_out = choose_text(log, wanted.text, wanted.max_text_bytes)
    redacted: dict[str, int] = {}
    crash = clean(crash)
    if wanted.redact:
        redactor = Redactor(wanted.words, of=text or "")
        crash = redactor.value(crash)
        text = None if text is None else redactor.text(text)
        redacted = dict(sorted(redactor.counts.items()))
    machine_id = reporter.machine_id or crash.get("machine_id") or ""
    # ids are made from digests of records, so that two boards may have equal ones
    board = hashlib.sha256(f"pstored:{machine_id}".encode()).hexdigest()[:12]
    return Parcel(f"{name}@{board}", crash, text, left_out, stands_for, first, last, redacted, reporter, system)


def choose_text(log: bytes, choice: Text, most: int) -> tuple[str | None, int]:
    """What of a log goes out, and how many bytes of it do not."""
    if choice is Text.NONE or not log:
        return None, len(log)
    if choice is Text.TRACE:
        lines = excerpt({"dmesg.txt": log}, Style())
        trace = "\n".join(line.removeprefix("  ") for line in lines).encode(errors="backslashreplace")
        kept, _ = cap(trace, most)
        return kept.decode(errors="backslashreplace"), max(0, len(log) - len(kept))
    kept, left_out = cap(log, most)
    return kept.decode(errors="backslashreplace"), left_out


def cap(text: bytes, most: int) -> tuple[bytes, int]:
    """*text*, if it has no more than *most* bytes; else whole lines of its beginning and its end, one between.

    Returns:
        The text, and how many bytes are left out.
    """
    if len(text) <= most:
        return text, 0
    start = len(text) - (most - most // HEAD_SHARE)
    head, tail = text[: most // HEAD_SHARE], text[start:]
    head = head[: head.rfind(b"\n") + 1] or head
    tail = tail if text[start - 1 : start] == b"\n" else tail[tail.find(b"\n") + 1 :] or tail
    left_out = len(text) - len(head) - len(tail)
    between = b"" if not head or head.endswith(b"\n") else b"\n"
    return b"%b%b--- pstored: %d bytes are left out here\n%b" % (head, between, left_out, tail), left_out


def clean(value: Any) -> Any:
    """A JSON value in which all strings are UTF-8: what a record had instead is escaped."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def stack_trace(frames: Iterable[dict[str, Any]]) -> str:
    """A call trace of ``crash.json`` as the kernel writes it, a frame a line, innermost first."""
    return "\n".join(map(_frame, frames))


def _frame(frame: dict[str, Any]) -> str:
    where = frame.get("function") or "?"
    if frame.get("offset") is not None:
        where += f"+{frame['offset']:#x}"
        where += "" if frame.get("size") is None else f"/{frame['size']:#x}"
    module = f" [{frame['module']}]" if frame.get("module") else ""
    return f"{'' if frame.get('reliable') else '? '}{where}{module}"
