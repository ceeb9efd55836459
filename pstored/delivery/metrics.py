# SPDX-License-Identifier: Apache-2.0
"""The archive in numbers: families of metrics, whoever wants them.

Pure.  Names follow Prometheus' conventions (base units, ``_total``); OTLP's are the same with dots, and without the
suffixes that its metrics have units and types for.  No label has many values: no signature, no boot.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

REASONS = ("panic", "oops", "warning", "reset", "unknown")
"""What became of a boot that crashed: pstored.oops.model.Severity."""
ENDS = ("clean", "panic", "oops", "watchdog", "reset", "unknown")
"""How boots end: pstored.boots.ends.EndKind, without the running one."""

Sample = tuple[Mapping[str, str], int | float]
"""Labels and a value."""


class Family(NamedTuple):
    """Metrics of one name."""

    name: str
    """As Prometheus has it: ``pstored_crashes_total``."""
    dotted: str
    """As OTLP has it: ``pstored.crashes``."""
    help: str
    unit: str
    """UCUM: ``By``, ``s``, ``{crash}``."""
    is_counter: bool
    """It only grows, as long as the notes it is kept in are there; else it is a gauge."""
    samples: tuple[Sample, ...]
    start_ns: int = 0
    """Of a counter: since when, Unix nanoseconds."""


class Counted(NamedTuple):
    """What has been counted so far; kept on disk, so that counters do not go back when the archive forgets."""

    start_ns: int
    crashes: Mapping[str, int]
    """Severity to how many crashes there were."""
    ecc_corrected_bytes: int
    known: frozenset[str]
    """The crashes of the archive that are counted."""
    boots: Mapping[str, int] = MappingProxyType({})
    """How they ended to how many boots there were."""
    known_boots: frozenset[str] = frozenset()
    """The boots of the ledger that are counted."""


class NewCrash(NamedTuple):
    """A crash that is to be counted."""

    id: str
    severity: str
    ecc_corrected_bytes: int


def count(counted: Counted, archived: Iterable[str], new: Iterable[NewCrash]) -> Counted:
    """Add *new*, each once; what is no more among the *archived* need not be known any longer."""
    crashes, corrected = dict(counted.crashes), counted.ecc_corrected_bytes
    known = set(counted.known)
    for crash in new:
        if crash.id not in known:
            known.add(crash.id)
            crashes[crash.severity] = crashes.get(crash.severity, 0) + 1
            corrected += crash.ecc_corrected_bytes
    return counted._replace(
        crashes=crashes, ecc_corrected_bytes=corrected, known=frozenset(known.intersection(archived))
    )


def count_boots(counted: Counted, ledger: Iterable[str], ended: Mapping[str, str]) -> Counted:
    """Add the boots that have *ended* (their ids, and how), each once; those that left the *ledger* are forgotten."""
    boots, known = dict(counted.boots), set(counted.known_boots)
    for boot_id, end in ended.items():
        if boot_id not in known:
            known.add(boot_id)
            boots[end] = boots.get(end, 0) + 1
    return counted._replace(boots=boots, known_boots=frozenset(known.intersection(ledger)))


class Standing(NamedTuple):
    """How things stand now."""

    version: str
    backend: str | None
    last_crash_s: float | None
    """When the newest crash of the archive happened, Unix seconds; if that is not known, when it was collected."""
    records: int
    """In the archive."""
    archive_bytes: int
    archive_limit_bytes: int
    pending: Mapping[str, int]
    """Sink to how many crashes it is still to get."""
    failures: Mapping[str, int]
    """Sink to how often it has failed in all."""


def families(counted: Counted, standing: Standing) -> tuple[Family, ...]:
    """All of them."""

    def gauge(name: str, dotted: str, text: str, unit: str, *samples: Sample) -> Family:
        return Family(name, dotted, text, unit, False, samples)

    def counter(name: str, dotted: str, text: str, unit: str, *samples: Sample) -> Family:
        return Family(name, dotted, text, unit, True, samples, counted.start_ns)

    last: list[Sample] = [] if standing.last_crash_s is None else [({}, standing.last_crash_s)]
    return (
        gauge(
            "pstored_build_info",
            "pstored.build_info",
            "pstored, and the backend that pstore has now.",
            "1",
            ({"version": standing.version, "backend": standing.backend or "none"}, 1),
        ),
        counter(
            "pstored_crashes_total",
            "pstored.crashes",
            "Crashes collected, by what became of the boot.",
            "{crash}",
            *(({"reason": reason}, number) for reason, number in _all(REASONS, counted.crashes)),
        ),
        counter(
            "pstored_boots_total",
            "pstored.boots",
            "Boots that are over, by how they ended, as far as was known when the next one had begun.",
            "{boot}",
            *(({"end": end}, number) for end, number in _all(ENDS, counted.boots)),
        ),
        gauge(
            "pstored_last_crash_timestamp_seconds",
            "pstored.last_crash.timestamp",
            "When the newest crash happened; if that is not known, when it was collected.",
            "s",
            *last,
        ),
        gauge(
            "pstored_records",
            "pstored.records",
            "Records of pstore, by where they are.",
            "{record}",
            ({"state": "archived"}, standing.records),
        ),
        gauge(
            "pstored_archive_bytes",
            "pstored.archive.size",
            "Bytes in the archive.",
            "By",
            ({}, standing.archive_bytes),
        ),
        gauge(
            "pstored_archive_limit_bytes",
            "pstored.archive.limit",
            "Bytes from which on the oldest go; 0: no limit.",
            "By",
            ({}, standing.archive_limit_bytes),
        ),
        counter(
            "pstored_ecc_corrected_bytes_total",
            "pstored.ecc.corrected",
            "Bytes of records that the kernel had to correct.",
            "By",
            ({}, counted.ecc_corrected_bytes),
        ),
        gauge(
            "pstored_sink_pending",
            "pstored.sink.pending",
            "Crashes that a sink is still to get.",
            "{crash}",
            *(({"sink": sink}, number) for sink, number in sorted(standing.pending.items())),
        ),
        counter(
            "pstored_sink_failures_total",
            "pstored.sink.failures",
            "Rounds in which a sink failed.",
            "{failure}",
            *(({"sink": sink}, number) for sink, number in sorted(standing.failures.items())),
        ),
    )


def _all(words: Iterable[str], numbers: Mapping[str, int]) -> list[tuple[str, int]]:
    """With 0 where there was none yet: of a counter that begins with 1, nobody sees that it has grown."""
    return sorted((dict.fromkeys(words, 0) | dict(numbers)).items())
