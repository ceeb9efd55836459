# SPDX-License-Identifier: Apache-2.0
"""The other side of pstored: what a kernel leaves in /sys/fs/pstore, made from facts and from real captures.

Nothing here imports pstored, and nothing there imports this: so that a misreading must happen twice to pass.
``python -m fake_pstore --list`` shows what it can make, ``capture`` holds what real kernels made.
"""
