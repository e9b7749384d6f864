"""Bounds what a request may take: its size, its time, and whether its sender is known."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tlkit.serving.errors import RequestError

#: Paths that answer without a token: the page and its files, how to call the service, and whether it lives.
OPEN_PATHS = ("/", "/docs", "/openapi.json")
OPEN_FOLDERS = ("/page/", "/v2/health/")
#: Seconds within which a request's body must have arrived.
BODY_SECONDS = 60.0

#: Path as routed, status and seconds of an answered request.
Observe = Callable[[str, int, float], object]


class Limits:
    """ASGI middleware: reads each body before the service does, and answers what must not reach it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        check_room: Callable[[], object],
        token: str | None,
        observe: Observe,
    ) -> None:
        """Keeps the limits.

        Args:
            app: the service.
            max_bytes: size of a request's body.
            check_room: raises a `RequestError` where there is no room for an image now.
            token: what clients must send; None: nothing.
            observe: is told of each answer.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._check_room = check_room
        self._token = token
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_token(scope)
            if scope["method"] == "POST":  # before its images are in memory
                self._check_room()
            body = await self._read(scope, receive)
            await self._app(scope, _replay(body, receive), send_and_note)
        except RequestError as error:
            await respond_error(error, send_and_note)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._observe(path, status, time.monotonic() - began)

    def _check_token(self, scope: Scope) -> None:
        path = scope["path"]
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            return
        headers = dict(scope["headers"])
        scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(sent.strip(), self._token.encode()):
            raise RequestError(401, "send the service's token in a header: Authorization: Bearer TOKEN")

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Returns a request's body.

        Raises:
            RequestError: it is too large, or too slow.
        """
        too_large = RequestError(413, f"a request may have at most {self._max_bytes:,} bytes")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        # Python converts no more than some thousand digits
        if length.isdigit() and (len(length) > 15 or int(length) > self._max_bytes):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > self._max_bytes:
                        raise too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise RequestError(408, f"the request did not arrive within {BODY_SECONDS:.0f} s") from error


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that gives a body that has been read, then waits for the client to go."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def respond_error(error: RequestError, send: Send) -> None:
    """Answers with an error as a JSON object."""
    content = json.dumps({"error": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
