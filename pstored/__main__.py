# SPDX-License-Identifier: Apache-2.0
"""``pstored`` and ``python -m pstored``."""

import sys

from pstored.cli import run


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
