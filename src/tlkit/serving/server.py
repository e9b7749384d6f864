"""The process that answers HTTP requests for a service."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType

import uvicorn

from tlkit.serving.app import make_app
from tlkit.serving.service import Service

#: Seconds that requests in progress have when the service stops.
STOP_SECONDS = 30


class Server(uvicorn.Server):
    """Runs a service until a signal ends it, and answers what it has accepted by then."""

    def __init__(
        self, service: Service, *, host: str, port: int, token: str | None, note: Callable[[str], object]
    ) -> None:
        """Prepares the service; see `make_app`."""
        super().__init__(
            uvicorn.Config(
                make_app(service, token=token, note=note),
                host=host,
                port=port,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=STOP_SECONDS,
                server_header=False,
            )
        )
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal: the service is no longer ready."""
        self._service.stopping = True
        super().handle_exit(sig, frame)
