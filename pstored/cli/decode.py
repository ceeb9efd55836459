# SPDX-License-Identifier: Apache-2.0
"""``decode``: what any log says, without an archive."""

import json
import sys
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext

from pstored.cli.context import page, style
from pstored.decode import add_code, add_symbols, render, to_json
from pstored.decode import decode as decode_log
from pstored.errors import NotFoundError
from pstored.symbolize.frames import Kernel

STANDARD_INPUT = "-"


def decode(options: Namespace) -> int:
    """Each file on its own."""
    pages = []
    with _kernel(options) as kernel:
        for name in options.files or [STANDARD_INPUT]:
            decoded = add_code(decode_log(name, _read(name)))
            if kernel is not None:
                decoded = add_symbols(decoded, kernel)
            if options.json:
                print(json.dumps(to_json(decoded)))
            else:
                pages.append(render(decoded, style=style()))
    if pages:
        page("\n".join(pages), options)
    return 0


def _kernel(options: Namespace) -> AbstractContextManager[Kernel | None]:
    if options.vmlinux is None and options.system_map is None:
        return nullcontext()
    from pstored.symbolize.vmlinux import open_vmlinux, read_system_map

    if options.vmlinux is not None:
        return open_vmlinux(options.vmlinux)
    return nullcontext(read_system_map(options.system_map))


def _read(name: str) -> bytes:
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        with open(name, "rb") as f:
            return f.read()
    except OSError as e:
        raise NotFoundError(f"{name!r} cannot be read: {e.strerror}") from e
