# SPDX-License-Identifier: Apache-2.0
"""What every command needs: the host, its configuration, its archive; and how to say that something is amiss."""

import sys
from argparse import Namespace

from pstored.archive import Archive
from pstored.config import Config, load
from pstored.host import Host


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
