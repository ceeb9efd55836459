# SPDX-License-Identifier: Apache-2.0
"""Every error pstored raises on purpose.

::

    PstoredError
    ├── DamagedError     bytes are not what their format says (parse/, readers/)
    ├── StoreError       the store, or what to import, cannot be listed          exit 77 or 1
    ├── ArchiveError     the archive cannot be written or read                   exit 73
    │   └── DiskError    the system fails to: another time it may not            exit 73
    ├── NotFoundError    no such crash, or the id fits several                   exit 1
    ├── SymbolsError     a vmlinux or System.map cannot be used           exit 1
    └── SinkError        a sink did not take a crash; ``retry`` says if it may   exit 75

Messages are lower-case, without a full stop, and name the thing and the place; ``hint`` says what to do next.
"""

import sys


class PstoredError(Exception):
    """The base: a message, and a hint on what to do next where there is one."""

    exit_status = 1
    """What the process exits with when this error ends it; the table is in the README."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class DamagedError(PstoredError):
    """Bytes are not what their format says they should be."""

    def __init__(self, message: str, *, offset: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.offset = offset
        """Where in the bytes given to the parser the damage was noticed."""


class StoreError(PstoredError):
    """The pstore file system, or a directory to import from, cannot be listed."""

    def __init__(self, message: str, *, permission: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = 77 if permission else 1


class ArchiveError(PstoredError):
    """The archive cannot be written or read; nothing has been erased because of it."""

    exit_status = 73


class DiskError(ArchiveError):
    """The disk fails, is full, gives no permission, or the system lacks memory or descriptors: another time it may not.

    What is damaged, or not there, stays so.
    """


class NotFoundError(PstoredError):
    """No crash has this id, or several begin with it."""


class SymbolsError(PstoredError):
    """A vmlinux or System.map cannot be read or is damaged, or what reads it is not installed."""


class SinkError(PstoredError):
    """A sink did not take a crash."""

    exit_status = 75

    def __init__(
        self,
        message: str,
        *,
        retry: bool = True,
        pause: bool = False,
        after_s: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry = retry
        """Whether the same delivery can succeed later; otherwise it is refused for good."""
        self.pause = pause
        """Of one refused for good: whether the next may well be, too, so that it had better wait."""
        self.after_s = after_s
        """When the sink wants to be tried again, if it says so: seconds from now."""


def report(error: PstoredError) -> int:
    """Tell whoever started the program what ended it; gives the exit status."""
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_status
