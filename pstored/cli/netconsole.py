# SPDX-License-Identifier: Apache-2.0
"""``netconsole``: becomes the listener."""

import os
import sys
from argparse import Namespace

EVERYWHERE = ("::", 6666)


def netconsole(options: Namespace) -> int:
    """Become the listener, as ``watch`` becomes the daemon: without what reading the command line has loaded."""
    listen = options.listen or [EVERYWHERE]
    words = [word for address, port in listen for word in (address, str(port))]
    arguments = [os.path.abspath(options.root), str(options.lines), str(options.quiet), *words]
    sys.stdout.flush()
    # -P: not from the working directory, wherever it is started
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pstored.daemon.netconsole", *arguments])
