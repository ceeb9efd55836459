# SPDX-License-Identifier: Apache-2.0
"""The systemd journal: one entry a crash, found again by ``journalctl MESSAGE_ID=...`` and ``-g 'Kernel panic'``.

Fields are documented in the README.  A client cannot set ``_BOOT_ID``: the crashed boot is in PSTORE_BOOT_ID.
"""

from typing import Any

from pstored import journald
from pstored.config import Journal
from pstored.errors import SinkError

MESSAGE_ID = "eb9e49196125491e9e564cd5d430164f"
"""A kernel crash was collected (sd_id128 of our own)."""

_PRIORITIES = {"panic": "2", "oops": "3", "warning": "4"}
"""LOG_CRIT, LOG_ERR, LOG_WARNING."""


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
        journald.require_running()
        matches = {
            "MESSAGE_ID": MESSAGE_ID,
            "PSTORE_CRASH_ID": crash["id"],
            "PSTORE_REVISION": str(crash["revision"]),
        }
        namespace = self._config.namespace
        entry = journald.find(matches, namespace)
        if entry is None:
            journald.send(fields(crash, text=text, report_path=report_path, cap=self._config.max_text_bytes))
            journald.sync(namespace)
            entry = journald.find(matches, namespace)
        if entry is None:
            raise SinkError(
                "journald took the entry, but the journal does not have it",
                hint="it may be larger than SystemMaxUse/8: lower max_text_bytes in [journal]; or Storage=none is set: "
                "then set enabled = false there",
            )
        return {"cursor": str(entry.get("__CURSOR"))}


def fields(crash: dict[str, Any], *, text: bytes, report_path: str, cap: int) -> dict[str, str | bytes]:
    """The entry's fields."""
    boot = crash["boot"]["id"]
    where = f"boot {boot}" if boot else "a boot that cannot be named"
    title = crash["title"]
    if crash["severity"] == "panic" and "panic" not in title:
        title += ", then panic"
    found: dict[str, str | bytes | None] = {
        "MESSAGE": f"{title} ({where}, kernel {crash['kernel']['release'] or 'unknown'})",
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": _PRIORITIES.get(crash["severity"], "3"),
        "SYSLOG_IDENTIFIER": "pstored",
        "PSTORE_CRASH_ID": crash["id"],
        "PSTORE_REVISION": str(crash["revision"]),
        "PSTORE_KIND": crash["kind"],
        "PSTORE_SEVERITY": crash["severity"],
        "PSTORE_TITLE": crash["title"],
        "PSTORE_FUNCTION": crash["function"],
        "PSTORE_BOOT_ID": boot,
        "PSTORE_BOOT_METHOD": crash["boot"]["method"],
        "PSTORE_BOOT_CONFIDENCE": crash["boot"]["confidence"],
        "PSTORE_TIME": crash["time"]["wall"],
        "PSTORE_KERNEL": crash["kernel"]["release"],
        "PSTORE_BACKEND": crash["backend"],
        "PSTORE_COMPLETE": "1" if crash["complete"] else "0",
        "PSTORE_REPORT": report_path,
        "PSTORE_TEXT": text[-cap:] if cap else None,
        "PSTORE_TEXT_TRUNCATED": "1" if len(text) > cap else None,
    }
    return {name: value for name, value in found.items() if value is not None}
