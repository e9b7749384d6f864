"""A real HTTP server on this machine, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tlkit.parts.source import Download


@dataclass
class Server:
    """What a server serves, how it misbehaves, and which ranges it was asked for.

    Attributes:
        content: served under every path.
        ranges: whether it supports ranges.
        break_after: number of bytes after which each of the next responses breaks off.
        portal: a login page that is served in place of the content, or nothing.
        asked: the Range header of each request.
        url: the server's address.
    """

    content: bytes
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    portal: bytes = b""
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def download(self, content: bytes | None = None) -> Download:
        """Returns a download of the server's content, which expects `content` if that is not None."""
        expected = self.content if content is None else content
        return Download(f"{self.url}/photos.zip", len(expected), hashlib.sha256(expected).hexdigest())


@contextmanager
def running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Runs an HTTP server on this machine until the context ends, and yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # shutdown() waits for the next poll, half a second by default
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """Serves `content` under every path, with ranges, until the context ends."""
    state = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            requested = self.headers.get("Range")
            state.asked.append(requested)
            if state.portal:
                self.send_response(200)
                self.send_header("Content-Length", str(len(state.portal)))
                self.end_headers()
                self.wfile.write(state.portal)
                return
            partial = requested is not None and state.ranges
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and partial else 0
            self.send_response(206 if partial else 200)
            if partial:
                last = len(state.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            rest = state.content[start:]
            if state.break_after:
                rest = rest[: state.break_after.pop(0)]
            with suppress(OSError):  # the client may have hung up, as it should
                self.wfile.write(rest)
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with running(Handler) as state.url:
        yield state
