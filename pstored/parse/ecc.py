# SPDX-License-Identifier: Apache-2.0
"""The ECC notice: a line of text that ramoops puts behind every record of a region with ECC.

Source: fs/pstore/ram_core.c, persistent_ram_ecc_string().  Since Linux 6.0 it begins with ``ECC: ``; older kernels
wrote the same without.  It is no part of what crashed, and it may differ between two mounts of the same record.
"""

import re
from typing import NamedTuple

#   notice = LF ["ECC: "] ( "No errors detected" / n " Corrected bytes, " n " unrecoverable blocks" ) LF
_NOTICE = re.compile(
    rb"\n(?:ECC: )?(?:No errors detected|([0-9]{1,10}) Corrected bytes, ([0-9]{1,10}) unrecoverable blocks)\n\Z"
)

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
    at = max(0, len(record) - MAX_NOTICE)
    found = _NOTICE.search(record, at)
    if found is None:
        return record, None
    corrected, blocks = found.groups(b"0")
    return record[: found.start()], EccNotice(int(corrected), int(blocks))
