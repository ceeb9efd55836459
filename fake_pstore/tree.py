# SPDX-License-Identifier: Apache-2.0
"""Records as files, as pstorefs shows them."""

import os
from collections.abc import Iterable
from pathlib import Path

from .model import Record


def write_record(path: Path, data: bytes, mtime_ns: int) -> Path:
    """Write one file as pstorefs shows it: mode 0444, mtime (and atime) as given."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    path.chmod(0o444)
    return path


def write_records(directory: Path, records: Iterable[Record]) -> list[Path]:
    """Write all records into *directory*, which is made if missing."""
    os.makedirs(directory, exist_ok=True)
    return [write_record(directory / record.name, record.data, record.mtime_ns) for record in records]
