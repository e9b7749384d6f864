"""Connects to a Ray cluster, or starts one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tlkit import EngineError
from tlkit_ray.library import ray

#: Seconds that a cluster has to answer.
PATIENCE = 10.0


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connects to a cluster; disconnects afterwards, unless the caller was connected already.

    Raises:
        EngineError: no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        _check(address)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(_unreachable(address or "auto", error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Checks that something listens at an address such as ``host:6379``; Ray itself waits for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # a word that Ray knows, such as "auto"
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise EngineError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return (
        f"no Ray cluster answers at {address!r} ({reason}): start one with `ray start --head`, or correct "
        "compute.engine.address or RAY_ADDRESS. A cluster that has a token, as new ones do, needs it in "
        "~/.ray/auth_token, and RAY_AUTH_MODE=token"
    )
