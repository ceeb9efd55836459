# SPDX-License-Identifier: Apache-2.0
"""Secrets: from systemd credentials, or files that not everybody may read; never from an argument or the configuration.

A key of the configuration that names a secret has a path, or, without a slash, the name of a credential: what a unit
has by ``LoadCredential=NAME:PATH`` is in ``$CREDENTIALS_DIRECTORY/NAME`` (systemd.exec(5)), and in nobody else's sight.
"""

import os
import stat
from collections.abc import Mapping

from pstored.config import read_plain
from pstored.errors import SinkError

MAX_SECRET = 64 * 1024


def find_secret(name: str, environ: Mapping[str, str]) -> str:
    """The path of what *name* means, a path or a credential; raises SinkError if there are no credentials."""
    if "/" in name:
        return name
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise SinkError(
            f"there is no credential {name!r}: this is not a service that has any",
            hint=f"LoadCredential={name}:/path in a drop-in for pstored-deliver.service, or give a path",
        )
    return os.path.join(directory, name)


def read_secret(name: str, environ: Mapping[str, str]) -> str:
    """What is in the file that *name* means, without a newline at its end.

    Raises:
        SinkError: it cannot be read, or everybody can, or somebody else than root or this user owns it.
    """
    path = find_secret(name, environ)
    try:
        data, state = read_plain(path, MAX_SECRET + 1)
        text = data.decode()
    except OSError as e:
        raise SinkError(f"cannot read {path!r}: {e.strerror or e}", hint="the user pstored must be able to") from e
    except UnicodeDecodeError as e:
        raise SinkError(f"{path!r} is no text: {e}") from e
    if len(data) > MAX_SECRET:
        raise SinkError(f"{path!r} has more than {MAX_SECRET} bytes: it is no secret")
    require_secret(path, state)
    return text.removesuffix("\n")


def require_secret(path: str, state: os.stat_result) -> None:
    """Refuse a file that everybody may read or write, or whose owner could be anybody; raises SinkError."""
    if state.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SinkError(
            f"{path!r} has a secret, and mode {stat.S_IMODE(state.st_mode):04o}: not used",
            hint=f"chmod 0640 {path}; chgrp pstored {path}; and change the secret, which others may have read",
        )
    if state.st_uid not in (0, os.geteuid()):
        raise SinkError(
            f"{path!r} has a secret, and belongs to user {state.st_uid}: not used", hint=f"chown root {path}"
        )


def read_headers(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """HTTP headers from a file, one a line, as ``Authorization: Bearer ...``; raises SinkError."""
    found = {}
    for number, line in enumerate(read_secret(name, environ).splitlines(), 1):
        field, colon, value = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon or not field.strip() or not line.isprintable():
            raise SinkError(f"{find_secret(name, environ)!r}, line {number}: not a header, as in 'Name: value'")
        found[field.strip()] = value.strip()
    return found
