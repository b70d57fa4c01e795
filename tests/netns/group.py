"""Tests that share a configuration of the gateway, and the sockets that they work with."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from checks import Scene, Seen
from gateway import Turnpike
from lab import Namespace

Endpoint = tuple[str, int]
Test = Callable[[Scene], Seen]


@dataclass
class Group:
    """Tests that share a configuration. None: they start the gateway themselves."""

    configuration: Callable[[Scene], str] | None
    kernel: bool = False
    """Whether Linux as the gateway behaves in this way too."""
    tests: list[tuple[str, Test]] = field(default_factory=list)

    def test(self, title: str) -> Callable[[Test], Test]:
        """Adds a test to this group."""

        def add(function: Test) -> Test:
            self.tests.append((title, function))
            return function

        return add


def turnpike(scene: Scene) -> Turnpike:
    """The program under test, where a test asks for more than any gateway has."""
    assert isinstance(scene.gateway, Turnpike)
    return scene.gateway


def bound(space: Namespace, address: str, port: int = 0, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket in a namespace, bound, with a time-out of 2 s. Others may share its port."""
    with space.entered():
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.settimeout(2)
    made.bind((address, port))
    return made


def listener(space: Namespace, address: str, port: int = 0) -> socket.socket:
    """A listening TCP socket."""
    made = bound(space, address, port, socket.SOCK_STREAM)
    made.listen(16)
    return made


@contextlib.contextmanager
def sockets() -> Iterator[Callable[[socket.socket], socket.socket]]:
    """Sockets that are closed together."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


def accepted(listening: socket.socket, client: socket.socket) -> tuple[socket.socket, Endpoint]:
    """Connects, and gives the server's end and the client as the server sees it."""
    client.connect(listening.getsockname())
    return listening.accept()
