# SPDX-License-Identifier: Apache-2.0
"""``harvest``, the first stage: it runs early at boot, and so imports nothing that it does not need."""

from __future__ import annotations

from pstored.cli import output
from pstored.cli.context import open_context
from pstored.harvest import harvest as do_harvest
from pstored.lean import TYPE_CHECKING
from pstored.stamp import stamp as do_stamp

if TYPE_CHECKING:
    from argparse import Namespace


def harvest(options: Namespace) -> int:
    """The first stage alone: what runs early at boot."""
    context = open_context(options)
    do_stamp(context.host, context.config.boots.stamp_prefix)  # before anything that may fail, or take long
    done = do_harvest(context.host, context.config)
    if options.json:
        output.print_json({"harvest": output.pass_facts(done)})
    else:
        output.print_pass(done, context.config.harvest.store)
    return done.exit_status()
