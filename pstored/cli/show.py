# SPDX-License-Identifier: Apache-2.0
"""``list`` and ``show``: what a person asks.  No pydantic here: they must be quick."""

import builtins
import json
import os
from argparse import Namespace
from collections.abc import Sequence
from shlex import quote
from typing import Any

from pstored.cli.context import Context, page, style, width
from pstored.documents import open_own
from pstored.page.listing import render_list

LOGS = ("dmesg.txt", "console.txt", "mce.txt", "cper.txt", "end.txt")
"""What a person opens first, if it is there."""
SHORT = 8
"""Digits of a crash's digest that name it, as in the list."""


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
    from pstored.delivery.outbox import Outbox
    from pstored.page.render import render_crash

    directory = archive.crash_directory(crash_id)
    texts = {}
    for name in crash["files"]:
        try:
            with open_own(os.path.join(directory, os.path.basename(name))) as f:
                texts[name] = f.read()
        except OSError as e:
            crash["notes"].append(f"{name} cannot be read: {e.strerror}; `pstored analyze --all` makes it again")
    receipts = Outbox(archive).delivered(crash_id)
    logs = [os.path.join(directory, name) for name in LOGS if name in texts]
    commands = _commands(crash, receipts, logs=logs, root=options.root)
    page(render_crash(crash, texts, directory=directory, commands=commands, style=style()), options)
    return 0


def _commands(
    crash: dict[str, Any], receipts: dict[str, dict[str, Any]], *, logs: Sequence[str], root: str
) -> "builtins.list[str]":
    """What shows more of a crash, of what there is."""
    commands = [f"less {quote(path)}" for path in logs[:1]]
    below = "" if root == "/" else f" --root {quote(root)}"
    if crash["boot"]["id"] is not None and _is_in_journal(crash, receipts.get("restore")):
        commands.append(f"journalctl{below} -k -b {crash['boot']['id'].replace('-', '')}")
    commands.append(f"pstored{below} export {crash['id'].split('-')[1][:SHORT]}")
    return commands


def _is_in_journal(crash: dict[str, Any], restored: object) -> bool:
    """Whether the journal has that boot: it named it, or was given its lines."""
    receipt = restored.get("receipt") if isinstance(restored, dict) else None
    return crash["boot"]["method"] == "journal" or (
        isinstance(receipt, dict) and bool(receipt.get("has_boot") or receipt.get("lines"))
    )
