"""Served classifiers: of cats and dogs, and a small one of colours."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from onnx_files import colours, save_onnx
from starlette.testclient import TestClient

from tlkit.serving.app import make_app
from tlkit.serving.models import LoadOptions, Models
from tlkit.serving.service import Service, ServiceLimits

#: Requests of the tests are small.
MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def service(fitted: Path) -> Service:
    return Service(Models([fitted], LoadOptions()), ServiceLimits(max_bytes=MAX_BYTES, max_waiting=8))


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    """A client of the service, whose errors are answers as over a network."""
    app = make_app(service, token=None, note=lambda _: None)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def colours_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file: grey is unclassified, and white unknown."""
    file = tmp_path_factory.mktemp("colours") / "colours.onnx"
    return save_onnx(file, colours(novelty=True), reject_below=0.5, unknown_above=0.9)


@pytest.fixture(scope="session")
def photos_of_both(by_class: Path) -> list[Path]:
    """Two cats and two dogs."""
    return [path for kind in ("cat", "dog") for path in sorted((by_class / kind).iterdir())[:2]]


@pytest.fixture(scope="module")
def address(service: Service, client: TestClient) -> Iterator[str]:
    """The service on a port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = make_app(service, token=None, note=lambda _: None)
    # the other client ends the service
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()
