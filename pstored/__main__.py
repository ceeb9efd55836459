# SPDX-License-Identifier: Apache-2.0
"""``pstored`` and ``python -m pstored``."""

from __future__ import annotations

import io
import os
import sys

from pstored.cli import run
from pstored.errors import PstoredError
from pstored.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Output(io.FileIO):
    """Standard output, whose errors are said like all others: behind it may be a file on a full disk."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as e:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # what the interpreter still has of it
            if isinstance(e, BrokenPipeError):
                raise
            hint = "only what was to be shown is lost: what had been done before is done"
            raise PstoredError(f"cannot write to the standard output: {e.strerror}", hint=hint) from e


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.stdout is not None:
        raw = _Output(sys.stdout.fileno(), "wb", closefd=False)
        is_terminal = sys.stdout.isatty()
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), sys.stdout.encoding, line_buffering=is_terminal)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
