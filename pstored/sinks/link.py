# SPDX-License-Identifier: Apache-2.0
"""The way to a server: how to know it and be known, how long it may take, and what is said when it is not reached."""

import contextlib
import os
import signal
import ssl
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import NamedTuple, NoReturn

from pstored.delivery.credentials import find_secret, require_secret
from pstored.errors import SinkError


class Tls(NamedTuple):
    """How to know the server, and to be known; empty: the system's certificate authorities, and not at all."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    """A path, or the name of a credential."""


def make_context(tls: Tls, environ: Mapping[str, str]) -> ssl.SSLContext:
    """How to talk TLS; raises SinkError if a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
        if tls.cert_file:
            key = find_secret(tls.key_file or tls.cert_file, environ)
            require_secret(key, os.stat(key))
            context.load_cert_chain(find_secret(tls.cert_file, environ), key)
    except OSError as e:  # ssl.SSLError is one
        raise SinkError(f"the certificates cannot be used: {reason(e)}", hint="ca_file=, cert_file=, key_file=") from e
    return context


@contextlib.contextmanager
def reaching(where: str, seconds: float) -> Iterator[None]:
    """A block that talks to *where*: what goes wrong on the way is a SinkError, to be tried again, as is slowness."""
    try:
        with time_limit(seconds):
            yield
    except ssl.SSLCertVerificationError as e:
        raise SinkError(
            f"{where} is not who it should be: {e.verify_message}", hint="ca_file= names who vouches for it"
        ) from e
    except TimeoutError as e:
        raise SinkError(f"{where} takes longer than {seconds:g} s") from e
    except (OSError, ValueError) as e:
        raise SinkError(f"{where} cannot be reached: {reason(e)}") from e


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """A block that takes longer ends with TimeoutError: whatever it waits for, a byte at a time or a name server.

    By SIGALRM, so in the main thread only: a sink's process has no other.
    """

    def over(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def reason(error: Exception) -> str:
    """Why, in the system's words."""
    return str(getattr(error, "strerror", None) or error)
