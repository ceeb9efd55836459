# SPDX-License-Identifier: Apache-2.0
"""The daemon, ``pstored watch``: what wakes it, when it works, and the work itself in a child.

And the listener, ``pstored netconsole``, which shares a directory with it.
"""

SPOOL = "/var/lib/pstored-netconsole"
"""Where the listener leaves what it has received, for the daemon."""
WAKE = "wake"
"""In there, a FIFO of the daemon's."""
