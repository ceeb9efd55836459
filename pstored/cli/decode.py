# SPDX-License-Identifier: Apache-2.0
"""``decode``: what any log says, without an archive."""

import json
import sys
from argparse import Namespace

from pstored.cli.context import page, style
from pstored.decode import decode as decode_log
from pstored.decode import render, to_json
from pstored.errors import NotFoundError

STANDARD_INPUT = "-"


def decode(options: Namespace) -> int:
    """Each file on its own."""
    pages = []
    for name in options.files or [STANDARD_INPUT]:
        decoded = decode_log(name, _read(name))
        if options.json:
            print(json.dumps(to_json(decoded)))
        else:
            pages.append(render(decoded, style=style()))
    if pages:
        page("\n".join(pages), options)
    return 0


def _read(name: str) -> bytes:
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as f:
            return f.read()
    except OSError as e:
        raise NotFoundError(f"{name!r} cannot be read: {e.strerror}") from e
