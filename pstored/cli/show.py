# SPDX-License-Identifier: Apache-2.0
"""``list`` and ``show``: what a person asks.  No pydantic here: they must be quick."""

import json
import os
from argparse import Namespace

from pstored.cli.context import Context, page, style, width
from pstored.listing import render_list


def list(options: Namespace) -> int:  # noqa: A001 - the command's name
    """One line for each crash."""
    summaries = Context(options).archive.crash_summaries()
    if options.json:
        print(json.dumps({"schema": 1, "crashes": summaries}, indent=2))
        return 0
    if not summaries:
        print("no crashes in the archive")
        return 0
    page(render_list(summaries, style=style(), width=width()), options)
    return 0


def show(options: Namespace) -> int:
    """One crash."""
    archive = Context(options).archive
    crash_id = archive.find_crash(options.crash)
    crash = archive.load_crash(crash_id)
    if options.json:
        print(json.dumps(crash, indent=2))
        return 0
    from pstored.render import render_crash

    directory = archive.crash_directory(crash_id)
    texts = {}
    for name in crash["files"]:
        try:
            with open(os.path.join(directory, os.path.basename(name)), "rb") as f:
                texts[name] = f.read()
        except OSError as e:
            crash["notes"].append(f"{name} cannot be read: {e.strerror}; `pstored analyze --all` makes it again")
    page(render_crash(crash, texts, directory=directory, style=style()), options)
    return 0
