"""Connects to a Ray cluster, or starts one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tlkit import EngineError
from tlkit_ray.library import ray, read_ray_address

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
    address = address or os.environ.get("RAY_ADDRESS") or None
    # without an address, Ray goes to the cluster that this computer was last in, which may have ended
    ray_address = address or read_ray_address()
    if ray_address is not None:
        _check(ray_address)
        # Ray's attempts, each of 40 s where something else listens; by default 20
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(_unreachable(ray_address or "auto", error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check(address: str) -> None:
    """Checks that something listens at an address such as ``host:6379``; Ray itself waits for minutes.

    Words such as "auto", and schemes that Ray reads by other packages, are left to Ray.
    """
    scheme, separator, _ = address.rpartition("://")
    if scheme not in ("", "ray") or (not separator and ":" not in address):
        return
    try:
        parts = urlsplit(address if separator else f"//{address}")
        if parts.port is None:
            raise ValueError("it has no port: give it as host:port")
        socket.create_connection((parts.hostname or "", parts.port), PATIENCE).close()
    except (OSError, ValueError) as error:
        raise EngineError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    reason = str(error).splitlines()[0]
    return (
        f"no Ray cluster answers at {address!r} ({reason}): start one with `ray start --head`, or correct "
        "the engine's option address, or RAY_ADDRESS; `ray stop` forgets the last cluster of this computer, "
        "which is used where neither is given. A cluster that has a token, as new ones do, needs it "
        "in ~/.ray/auth_token, and RAY_AUTH_MODE=token"
    )
