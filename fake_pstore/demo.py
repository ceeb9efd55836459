# SPDX-License-Identifier: Apache-2.0
"""pstored at work on a real crash, in a throw-away directory: ``make demo``."""

import subprocess
import sys
import tempfile
from pathlib import Path

from .capture import STAMP_PREFIX, load, populate_root

CAPTURE = "lab-efi-twoboots"
_COMMANDS = (("collect",), ("list",), ("show", "-1"))
_SOMETHING_LEFT = 1  # pstored: something is damaged, deferred or left in the store, which a demo may show


def demo() -> int:
    """Collect, list and show that crash.

    Returns:
        The first exit status that is neither 0 nor 1, else 0.
    """
    with tempfile.TemporaryDirectory(prefix="pstored-demo-") as name:
        root = Path(name)
        capture = load(CAPTURE)
        records = populate_root(root, capture)
        # the capture's stamp is the lab's; and a demo may run where /tmp is a tmpfs
        settings = f'[boots]\nstamp_prefix = "{STAMP_PREFIX}"\n[archive]\nallow_volatile = true\n'
        (root / "etc/pstored.conf").write_text(settings, encoding="ascii")
        count = len(list(records.iterdir()))
        print(f"{count} records of a real crash in {records}:\n{capture.what}", flush=True)
        return _run_all(root)


def _run_all(root: Path) -> int:
    for command in _COMMANDS:
        print(f"\n$ pstored --root {root} {' '.join(command)}", flush=True)
        argv = [sys.executable, "-m", "pstored", "--root", str(root), *command]
        done = subprocess.run(argv, cwd=Path(__file__).parents[1], check=False)
        if done.returncode not in (0, _SOMETHING_LEFT):
            return done.returncode
    return 0
