# SPDX-License-Identifier: Apache-2.0
"""``watch``: becomes the daemon."""

import os
import sys
from argparse import Namespace


def watch(options: Namespace) -> int:
    """Become the daemon: in the same process, but without the 3 MB that reading the command line has loaded."""
    sys.stdout.flush()
    # -P: not from the working directory, wherever it is started
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pstored.watch", os.path.abspath(options.root)])
