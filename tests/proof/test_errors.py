# SPDX-License-Identifier: Apache-2.0
"""Every error: a system call on our files fails, once; nothing is lost, it is said, and the next run puts it right."""

WRITING = ("ENOSPC", "EIO", "EROFS", "EDQUOT", "ENOMEM", "EINTR")
READING = ("EIO", "ENOMEM", "EINTR", "EACCES")
OPENING = ("EMFILE", "ENFILE")
STATUSES = (0, 1, 73, 75, 77)
"""Those of the README; 78 is check-config's."""
