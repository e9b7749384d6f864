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
    """What is served, how it misbehaves, and which ranges it was asked for."""

    content: bytes
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)
    portal: bytes = b""
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    def download(self, content: bytes | None = None) -> Download:
        expected = self.content if content is None else content
        return Download(f"{self.url}/photos.zip", len(expected), hashlib.sha256(expected).hexdigest())


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """Serves `content` under every path, with ranges, until the context ends."""
    state = Server(content)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            if state.portal:
                self.send_response(200)
                self.send_header("Content-Length", str(len(state.portal)))
                self.end_headers()
                self.wfile.write(state.portal)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            self.send_response(206 if wanted and state.ranges else 200)
            if wanted and state.ranges:
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

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_address[1]}"
    yield state
    running.shutdown()
    running.server_close()
