# SPDX-License-Identifier: Apache-2.0
"""How who has crashes has them delivered: by a connection to the service that may use the network, and nothing else.

``pstored-deliver.socket`` listens on a Unix socket; a connection starts the service, which makes a round and answers
every connection with one JSON object, and ends.  So who runs as root never talks to a server, who talks to servers
never writes in the archive, and neither must be allowed to start the other (sd_listen_fds(3)).
"""

import json
import os
import socket
from typing import Any

from pstored.errors import SinkError
from pstored.host import Host

SOCKET = "/run/pstored/deliver"
_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""
MAX_ANSWER = 16 * 1024 * 1024


def listener() -> socket.socket | None:
    """The socket that the service manager gave us; None if this is not the service."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdecimal():
        return None
    found = socket.socket(fileno=_FIRST_FD)
    found.setblocking(False)
    return found


def answer(listening: socket.socket, document: dict[str, Any]) -> int:
    """Answer all who have asked so far; gives how many."""
    answered = 0
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return answered
        answered += 1
        with connection:
            connection.settimeout(5)
            try:
                connection.sendall(json.dumps(document).encode())
            except OSError:
                pass  # who asked is gone


def ask(host: Host, *, timeout_s: float) -> dict[str, Any] | None:
    """Have the service make a round, and wait for its answer; None if there is no service.

    Raises:
        SinkError: there is one, but it does not answer.
    """
    path = host.path(SOCKET)
    if not os.path.lexists(path):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None  # nobody listens there any more
        except OSError as e:
            hint = "run as root" if isinstance(e, PermissionError) else None
            raise SinkError(f"cannot have it delivered through {path!r}: {e.strerror or e}", hint=hint) from e
        try:
            with connection.makefile("rb") as f:
                document = json.loads(f.read(MAX_ANSWER))
        except (OSError, ValueError) as e:
            raise SinkError(
                "the service that delivers gave no answer", hint="systemctl status pstored-deliver.service"
            ) from e
    if not isinstance(document, dict):
        raise SinkError(f"the service that delivers gave no answer that can be understood: {document!r:.100}")
    return document
