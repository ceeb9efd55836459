# SPDX-License-Identifier: Apache-2.0
"""``list`` and ``show``: what a person asks.  No pydantic here: they must be quick."""

import json
import os
import sys
from argparse import Namespace

from pstored.cli.context import Context
from pstored.listing import render_list
from pstored.terminal import Style


def list(options: Namespace) -> int:  # noqa: A001 - the command's name
    """One line for each crash."""
    summaries = Context(options).archive.crash_summaries()
    if options.json:
        print(json.dumps({"schema": 1, "crashes": summaries}, indent=2))
        return 0
    if not summaries:
        print("no crashes in the archive")
        return 0
    page(render_list(summaries, style=style(), width=_width()), options)
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


def _width() -> int | None:
    """Columns of the terminal; None if there is none to fit."""
    if not sys.stdout.isatty():
        return None
    import shutil  # knows COLUMNS

    return shutil.get_terminal_size().columns


def style() -> Style:
    """How to write on standard output."""
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
