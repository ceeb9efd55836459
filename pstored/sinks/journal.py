# SPDX-License-Identifier: Apache-2.0
"""The systemd journal: one entry a crash, found again by ``journalctl MESSAGE_ID=...`` and ``-g 'Kernel panic'``.

Fields are documented in the README.  A client cannot set ``_BOOT_ID``: the crashed boot is in PSTORE_BOOT_ID, written
as journald writes ids, without dashes, since ``journalctl -b`` takes no others.
"""

import os
from collections.abc import Iterator
from typing import Any

from pstored.config import Journal
from pstored.crashes.loops import words
from pstored.errors import SinkError
from pstored.journal import journald

MESSAGE_ID = "eb9e49196125491e9e564cd5d430164f"
"""A kernel crash was collected (sd_id128 of our own; units/pstored.catalog explains it)."""
RESET_MESSAGE_ID = "24d847391cfe4573842fd49d9722d516"
"""A boot ended without a word of its kernel: a reset, a watchdog, a loss of power (likewise)."""

_PRIORITIES = {"panic": "2", "oops": "3", "warning": "4"}
"""LOG_CRIT, LOG_ERR, LOG_WARNING."""

LESS_TEXT = 8
"""An entry that vanished is sent again with so many times less text, in the end without."""
SMALL_TEXT = 4096
"""Less is never what made an entry vanish: journald's smallest files have 512 KiB."""


class JournalSink:
    """Delivers to the journal of the running system."""

    name = "journal"

    def __init__(self, config: Journal) -> None:
        self._config = config

    def deliver(self, crash: dict[str, Any], *, text: bytes, report_path: str) -> dict[str, Any]:
        """Send a crash, and see that it is there; sends nothing if it already is.

        Args:
            crash: crash.json.
            text: the crashed kernel's log.
            report_path: where crash.json is.

        Returns:
            The receipt: the entry's cursor.

        Raises:
            SinkError: it is not in the journal.
        """
        matches = {
            "MESSAGE_ID": message_id(crash),
            "PSTORE_CRASH_ID": crash["id"],
            "PSTORE_REVISION": str(crash["revision"]),
            "_UID": str(os.geteuid()),  # journald's word: anybody may send an entry with these fields
        }
        namespace = self._config.namespace
        journald.require_running(namespace)
        entry = journald.find(matches, namespace)
        for size in _sizes(min(self._config.max_text_bytes, len(text))):
            if entry is not None:
                break
            journald.send(fields(crash, text=text, report_path=report_path, cap=size))
            journald.sync(namespace)
            # twice: sd-journal passes over a file that it cannot open just now, and says nothing
            entry = journald.find(matches, namespace) or journald.find(matches, namespace)
        if entry is None:
            raise SinkError(
                "journald took the entry, but the journal does not have it, not even without the kernel's text",
                hint="what journald says: journalctl -u systemd-journald; MaxLevelStore= must let it through; with "
                "Storage=none, set enabled = false in [journal]",
            )
        return {"cursor": str(entry.get("__CURSOR"))}


def _sizes(size: int) -> Iterator[int]:
    """Sizes of text to try: journald drops an entry over SystemMaxUse/8, and says so only in its own log."""
    while size > SMALL_TEXT:
        yield size
        size //= LESS_TEXT
    yield size
    if size:
        yield 0


def message_id(crash: dict[str, Any]) -> str:
    """Which kind of entry a crash is."""
    return RESET_MESSAGE_ID if crash["severity"] == "reset" else MESSAGE_ID


def message(crash: dict[str, Any]) -> str:
    """What happened, on which boot and kernel, in one line."""
    boot = crash["boot"]["id"]
    where = f"boot {boot}" if boot else "a boot that cannot be named"
    if sender := crash.get("sender"):
        where = f"{sender['host'] or sender['address']}, {where}"
    kernel = f"kernel {crash['kernel']['release'] or 'unknown'}"
    title = crash["title"]
    if crash["severity"] == "reset":
        return f"{where[0].upper()}{where[1:]} ended without a word: {title} ({kernel})"
    if crash["severity"] == "panic" and "panic" not in title:
        title += ", then panic"
    loop = crash.get("loop")
    if loop is not None:
        title = f"{words(loop['count'], loop['since'])}: {title}"
    return f"{title} ({where}, {kernel})"


def fields(crash: dict[str, Any], *, text: bytes, report_path: str, cap: int) -> dict[str, str | bytes]:
    """The entry's fields."""
    boot = crash["boot"]["id"]
    event = crash.get("event") or {}  # an older report has none
    sender = crash.get("sender") or {}
    found: dict[str, str | bytes | None] = {
        "MESSAGE": message(crash),
        "MESSAGE_ID": message_id(crash),
        "PRIORITY": _PRIORITIES.get(crash["severity"], "3"),
        "SYSLOG_IDENTIFIER": "pstored",
        "PSTORE_CRASH_ID": crash["id"],
        "PSTORE_REVISION": str(crash["revision"]),
        "PSTORE_KIND": crash["kind"],
        "PSTORE_SEVERITY": crash["severity"],
        "PSTORE_TITLE": crash["title"],
        "PSTORE_FUNCTION": crash["function"],
        "PSTORE_SIGNATURE": event.get("signature"),
        "PSTORE_SIGNATURE_LOOSE": event.get("signature_loose"),
        "PSTORE_BOOT_ID": boot and boot.replace("-", ""),
        "PSTORE_BOOT_METHOD": crash["boot"]["method"],
        "PSTORE_BOOT_CONFIDENCE": crash["boot"]["confidence"],
        "PSTORE_TIME": crash["time"]["wall"],
        "PSTORE_KERNEL": crash["kernel"]["release"],
        "PSTORE_SENDER": sender.get("address") or None,
        "PSTORE_SENDER_HOST": sender.get("host"),
        "PSTORE_BACKEND": crash["backend"],
        "PSTORE_LOOP": None if crash.get("loop") is None else str(crash["loop"]["count"]),
        "PSTORE_COMPLETE": "1" if crash["complete"] else "0",
        "PSTORE_REPORT": report_path,
        "PSTORE_TEXT": text[-cap:] if cap and text else None,
        "PSTORE_TEXT_TRUNCATED": "1" if len(text) > cap else None,
    }
    return {name: value for name, value in found.items() if value is not None}
