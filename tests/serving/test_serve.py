"""The command `tlkit serve` as a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from onnx_files import colours, png, save_onnx
from processes import Started, tlkit

TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def started(colours_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Two models behind one service; the last test ends it."""
    classes = ["rouge", "vert", "bleu"]
    french = save_onnx(
        tmp_path_factory.mktemp("french") / "french.onnx",
        colours(novelty=True),
        classes=classes,
        unknown_above=0.9,
    )
    options = "--port 0 --max-megabytes 0.01 --max-waiting 4 --timeout 20 --no-unknown --reject-below 0.4"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_SERVE_TOKEN", "secret")
        process = Started(tlkit, "serve", colours_file, french, *options.split())
    deadline = time.monotonic() + 300
    while "a page to try it" not in process.stdout.read_text():
        assert time.monotonic() < deadline and process.process.is_alive(), process.stderr.read_text()
        time.sleep(0.05)
    yield process
    process.process.kill()


@pytest.fixture(scope="module")
def port(started: Started) -> int:
    line = started.stdout.read_text()
    assert line.startswith("http://127.0.0.1:"), line
    return int(line.removeprefix("http://127.0.0.1:").partition(":")[0])


def predict(
    port: int, body: bytes, query: str = "", kind: str = "image/png", **headers: str
) -> tuple[int, object]:
    """Asks for a prediction, and returns the status and the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", f"/predict{query}", body, {"Content-Type": kind, **(headers or TOKEN)})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_it_listens_on_this_machine_alone_and_asks_for_the_token(port: int) -> None:
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    status, answer = predict(port, png("red"), Authorization="Bearer no")
    assert (status, "Authorization: Bearer TOKEN" in str(answer)) == (401, True)


def test_it_serves_several_models(port: int, started: Started) -> None:
    for query, label in (("", "red"), ("?model=colours", "red"), ("?model=french", "rouge")):
        status, answer = predict(port, png("red"), query)
        assert status == 200
        assert isinstance(answer, list) and answer[0]["label"] == label
    told = started.stderr.read_text()
    assert "colours: " in told and "french: " in told and "3 classes" in told


def test_its_options_apply(port: int) -> None:
    (white, grey) = (predict(port, png(colour), "?model=french")[1] for colour in ("white", "grey"))
    for answer in (white, grey):
        assert isinstance(answer, list)
        assert (answer[0]["label"], answer[0]["novelty"]) == ("unclassified", None)
    status, answer = predict(port, b"x" * 10_001)
    assert (status, "at most 10,000 bytes" in str(answer)) == (413, True)
    status, answer = predict(port, json.dumps(["eA=="] * 5).encode(), kind="application/json")
    assert (status, "at most 4 images" in str(answer)) == (413, True)


def test_on_sigterm_it_answers_what_it_has_accepted(port: int, started: Started) -> None:
    body = png("blue")
    headers = {"Host": "x", **TOKEN, "Content-Type": "image/png", "Content-Length": str(len(body))}
    head = "\r\n".join(["POST /predict HTTP/1.1", *map(": ".join, headers.items()), "", ""])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode() + body[:10])
        # answered after those bytes have arrived
        assert predict(port, png("red"))[0] == 200
        started.process.terminate()
        deadline = time.monotonic() + 60
        with pytest.raises(ConnectionRefusedError):
            while time.monotonic() < deadline:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                time.sleep(0.02)
        connection.sendall(body[10:])
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"label":"blue"' in answer
    started.process.join(20)
    assert started.process.exitcode == -signal.SIGTERM, started.stderr.read_text()
    assert "Traceback" not in started.stderr.read_text()
