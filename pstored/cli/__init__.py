# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments, and errors into exit statuses.  What each command does is imported when it runs."""

from __future__ import annotations

import os
import sys

from pstored import steps
from pstored.errors import DiskError, PstoredError, report
from pstored.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Run one command; gives the exit status."""
    options = parse(arguments)
    if options.function not in _PLAIN:  # they log nothing
        _set_up_logging()
    steps.trace_from_environment()
    command = getattr(_module(f"pstored.cli.{options.module}"), options.function)
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a terminal that cannot show a name must not end the run
    try:
        status: int = command(options)
        sys.stdout.flush()
    except PstoredError as e:
        return report(e)
    except MemoryError:
        return report(DiskError("there is not enough memory", hint="what is done is kept; the next run goes on"))
    except BrokenPipeError:
        return 0  # `pstored list | head`: nobody reads on, and that is no error
    except KeyboardInterrupt:
        return 130
    return status


_PLAIN = {
    "harvest": {"module": "harvest", "json": False},
    "list": {"module": "show", "json": False, "no_pager": False},
}
"""Commands that must start quickly, with what argparse, which takes a third of their time, makes of no options."""


if TYPE_CHECKING:
    _Options = Namespace
else:

    class _Options:
        """What argparse.Namespace is."""

        def __init__(self, **options):
            self.__dict__.update(options)


def parse(arguments: Sequence[str]) -> Namespace:
    """The options; a usage error ends the process."""
    root, rest = (arguments[1], arguments[2:]) if len(arguments) > 2 and arguments[0] == "--root" else ("/", arguments)
    if len(rest) == 1 and rest[0] in _PLAIN:
        return _Options(root=root, function=rest[0], **_PLAIN[rest[0]])
    from pstored.cli import parser

    return parser.parse(arguments)


def _module(name: str) -> object:
    __import__(name)  # importlib would be another import
    return sys.modules[name]


def _set_up_logging() -> None:
    import logging

    level = os.environ.get("SYSTEMD_LOG_LEVEL", "warning").upper()
    level = {"WARN": "WARNING", "ERR": "ERROR", "NOTICE": "INFO", "CRIT": "CRITICAL"}.get(level, level)
    known = level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    for number, name in ((30, "warning"), (40, "error")):
        logging.addLevelName(number, name)
    logging.basicConfig(
        level=getattr(logging, level) if known else logging.WARNING, format="%(levelname)s: %(message)s"
    )
