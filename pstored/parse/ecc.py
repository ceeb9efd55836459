# SPDX-License-Identifier: Apache-2.0
"""The ECC notice: a line of text that ramoops puts behind every record of a region with ECC.

Source: fs/pstore/ram_core.c, persistent_ram_ecc_string().  Since Linux 6.0 it begins with ``ECC: ``; older kernels
wrote the same without.  It is no part of what crashed, and it may differ between two mounts of the same record.
"""

from __future__ import annotations

from pstored.lean import NamedTuple

MAX_NOTICE = 80
"""No notice is longer: 5 + 10 + 18 + 10 + 21 bytes and two newlines."""


class EccNotice(NamedTuple):
    """What ECC found in the record's zone when the machine booted; the counts are the whole zone's since then."""

    corrected_bytes: int
    unrecoverable_blocks: int


def split_ecc_notice(record: bytes) -> tuple[bytes, EccNotice | None]:
    r"""Cut the notice off, e.g. ``b"...\nECC: No errors detected\n"``; None if there is none.

    Text records end in a newline of their own before the notice's, which stays.
    """
    at = record.rfind(b"\n", max(0, len(record) - MAX_NOTICE), -1)
    notice = _parse(record[at + 1 : -1]) if at >= 0 and record.endswith(b"\n") else None
    return (record, None) if notice is None else (record[:at], notice)


def _parse(line: bytes) -> EccNotice | None:
    #   notice = LF ["ECC: "] ( "No errors detected" / n " Corrected bytes, " n " unrecoverable blocks" ) LF
    line = line.removeprefix(b"ECC: ")
    if line == b"No errors detected":
        return EccNotice(0, 0)
    corrected, _, rest = line.partition(b" Corrected bytes, ")
    blocks = rest.removesuffix(b" unrecoverable blocks")
    if blocks == rest or not all(number.isdigit() and len(number) <= 10 for number in (corrected, blocks)):
        return None
    return EccNotice(int(corrected), int(blocks))
