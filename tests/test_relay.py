# SPDX-License-Identifier: Apache-2.0
"""Asking the service that delivers: over a real socket, with a peer that answers, or does not."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pstored.delivery.relay import SOCKET, answer, ask, listener
from pstored.errors import SinkError
from pstored.host import Host


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Where the socket is to be."""
    (tmp_path / os.path.dirname(SOCKET).lstrip("/")).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def listening(tree: Path) -> Iterator[socket.socket]:
    """What systemd has, and hands on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(str(tree / SOCKET.lstrip("/")))
        made.listen()
        yield made


class Asker(threading.Thread):
    """Somebody who asks."""

    def __init__(self, tree: Path) -> None:
        super().__init__()
        self.host = Host(str(tree))
        self.found: Any = None

    def run(self) -> None:
        """Ask, and keep the answer, or why there is none."""
        try:
            self.found = ask(self.host, timeout_s=30)
        except SinkError as e:
            self.found = e


def test_without_a_service_there_is_no_answer(tree: Path) -> None:
    """No socket; or one that nobody listens on any more."""
    assert ask(Host(str(tree)), timeout_s=5) is None
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tree / SOCKET.lstrip("/")))
    assert ask(Host(str(tree)), timeout_s=5) is None


def test_all_who_ask_are_answered(tree: Path, listening: socket.socket) -> None:
    """With the same, however large; who is gone by then costs nothing."""
    document = {"x": "y" * 500_000}
    listening.settimeout(30)
    asker = Asker(tree)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.connect(listening.getsockname())
    asker.start()
    answered = 0
    while asker.is_alive():
        listening.setblocking(False)
        answered += answer(listening, document)
        asker.join(0.01)
    assert asker.found == document
    assert answered == 2


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1]", b'"x"'])
def test_an_answer_that_is_none(tree: Path, listening: socket.socket, data: bytes) -> None:
    """The service died, or is another version: said, nothing is done in its place."""
    asker = Asker(tree)
    asker.start()
    connection, _ = listening.accept()
    with connection:
        connection.sendall(data)
    asker.join(30)
    assert isinstance(asker.found, SinkError)
    assert "gave no answer" in str(asker.found)


def test_a_service_that_never_answers(tree: Path, listening: socket.socket) -> None:
    """Nobody waits for ever."""
    with pytest.raises(SinkError, match="gave no answer"):
        ask(Host(str(tree)), timeout_s=0.2)


def test_who_was_given_no_socket_is_not_the_service() -> None:
    """sd_listen_fds(3): the variables must be this process's own."""
    assert listener() is None
