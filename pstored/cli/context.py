# SPDX-License-Identifier: Apache-2.0
"""What every command needs: the host, its configuration, its archive; how to warn, and how to show."""

from __future__ import annotations

import os
import sys

from pstored.archive import Archive
from pstored.config import Config, load
from pstored.host import Host
from pstored.lean import TYPE_CHECKING
from pstored.terminal import Style

if TYPE_CHECKING:
    from argparse import Namespace


class Context:
    """The tree that a command works on."""

    def __init__(self, options: Namespace) -> None:
        self.host = Host(options.root)
        loaded = load(options.root)
        self.problems = loaded.problems
        """What is wrong with the configuration; who only reads the archive need not say so."""
        self.config = settle(loaded.config, options.root)
        self.archive = Archive(self.host.path(self.config.archive.path))


def settle(config: Config, root: str) -> Config:
    """Decide what the configuration leaves to the circumstances."""
    journal = config.journal
    if journal.enabled is None:
        journal = journal._replace(enabled=root == "/")
    if journal.restore is None:
        journal = journal._replace(restore=journal.enabled)
    return config._replace(journal=journal)


def warn(message: str) -> None:
    """Say something on standard error."""
    print(f"warning: {message}", file=sys.stderr)


def open_context(options: Namespace) -> Context:
    """What a command works on, that writes to the archive."""
    context = Context(options)
    for problem in context.problems:
        warn(problem)
    return context


# -- output for a person


def width() -> int | None:
    """Columns of the terminal; None if there is none to fit."""
    if not sys.stdout.isatty():
        return None
    import shutil  # knows COLUMNS

    return shutil.get_terminal_size().columns


def style() -> Style:
    return Style(color=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def page(text: str, options: Namespace) -> None:
    """Through a pager on a terminal, as systemd's tools do: SYSTEMD_PAGER, PAGER, less."""
    pager = os.environ.get("SYSTEMD_PAGER", os.environ.get("PAGER", "less"))
    if options.no_pager or not sys.stdout.isatty() or pager in ("", "cat"):
        sys.stdout.write(text)
        return
    import shutil
    import subprocess

    if shutil.which(pager.split()[0]) is None:
        sys.stdout.write(text)
        return
    environment = os.environ | {"LESS": os.environ.get("SYSTEMD_LESS", "FRSXMK")}
    sys.stdout.flush()
    subprocess.run(pager, shell=True, input=text.encode(errors="backslashreplace"), env=environment, check=False)
