"""A stand-in of the Hugging Face hub: enough of its HTTP interface to send and read models."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from servers import running

COMMIT = "0" * 39 + "1"


@dataclass
class Hub:
    """What was sent to it.

    Attributes:
        files: content by repository and file name.
        private: whether each repository was made private.
        validated: cards that it was asked to check.
        refuse: the status of the answer to whoever makes a repository; 0: it is made.
        url: its address.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    validated: list[str] = field(default_factory=list)
    refuse: int = 0
    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def hub() -> Iterator[Hub]:
    """Serves an empty hub until the context ends."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, content: bytes | Any = b"", status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            body, path = self._body(), self.path.strip("/")
            if path == "api/repos/create":
                asked = json.loads(body)
                name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
                if state.refuse:
                    return self._answer({"error": "no"}, state.refuse)
                state.files.setdefault(name, {})
                state.private[name] = asked.get("private") or asked.get("visibility") == "private"
                return self._answer({"url": f"{state.url}/{name}"})
            if path == "api/validate-yaml":
                state.validated.append(json.loads(body)["content"])
                return self._answer({"errors": [], "warnings": []})
            if path.endswith("/preupload/main"):
                files = [
                    {
                        "path": item["path"],
                        "uploadMode": "lfs" if item["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": False,
                    }
                    for item in json.loads(body)["files"]
                ]
                return self._answer({"files": files})
            if path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {
                        "oid": item["oid"],
                        "size": item["size"],
                        "actions": {"upload": {"href": f"{state.url}/lfs/{item['oid']}"}},
                    }
                    for item in json.loads(body)["objects"]
                ]
                return self._answer({"transfer": "basic", "objects": objects})
            if path.endswith("/commit/main"):
                name = path.removeprefix("api/models/").removesuffix("/commit/main")
                repository = state.files[name]
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        repository[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        repository[value["path"]] = state.objects[value["oid"]]
                address = f"{state.url}/{name}/commit/{COMMIT}"
                return self._answer({"commitUrl": address, "commitOid": COMMIT, "success": True})
            return self._answer(status=404)

        def do_PUT(self) -> None:
            content = self._body()
            state.objects[hashlib.sha256(content).hexdigest()] = content
            self._answer()

        def do_GET(self) -> None:
            repository, _, name = self.path.strip("/").partition("/resolve/main/")
            content = state.files.get(repository, {}).get(name)
            if self.path == "/" or content is None:
                return self._answer(status=200 if self.path == "/" else 404)
            etag = hashlib.sha256(content).hexdigest()
            return self._answer(content, X_Repo_Commit=COMMIT, ETag=f'"{etag}"')

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with running(Handler) as state.url:
        yield state
