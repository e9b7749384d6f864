"""Listens on an address of this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tlkit.errors import ServingError

#: Connections that may wait to be accepted.
BACKLOG = 1024


@contextmanager
def listening(host: str, port: int, advice: str) -> Iterator[socket.socket]:
    """Yields a socket that listens; a port that a killed service has just left is free.

    Args:
        host: the address.
        port: the port; 0: one that is free.
        advice: what to do if the port cannot be had, for the error.

    Raises:
        ServingError: it cannot be listened on.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServingError(f"{host} is not an address of this machine: {error.strerror or error}") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ServingError(f"port {port} cannot be used ({error.strerror}): {advice}") from error
        listener.listen(BACKLOG)
        yield listener
