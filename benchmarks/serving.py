"""Measures `tlkit serve` under load, beside `Predictor.predict` in turn with it, and its manners.

uv run python -m benchmarks.serving ../shared/catsdogs-photos/train

Clients send photos as fast as they are answered, from a process of their own on the same machine, which takes
processor time that prediction alone has to itself: so images per second of processor time are compared, too.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated
from urllib.parse import urlsplit

import numpy as np
import psutil
import typer

from benchmarks.models import save_classifier

Send = Callable[[int], bytes]
#: Seconds that the service answers, and that prediction alone runs, by turns.
TURN = 10.0
PHOTOS = 256


@dataclass
class Answers:
    """What clients were told.

    Attributes:
        seconds: from sending a request to its answer.
        statuses: how often each HTTP status was answered.
        unanswered: when requests were sent on connections that were closed instead of an answer.
        refused: connections that were not accepted.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: list[float] = field(default_factory=list)
    refused: int = 0


def request(body: bytes, kind: str = "image/jpeg", path: str = "/predict", header: str = "X: ") -> bytes:
    """Returns a request's bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, header, "", ""]).encode("latin-1") + body


async def ask(port: int, clients: int, send: Send, until: Callable[[int], bool]) -> Answers:
    """Lets clients send the requests that `send` makes of their numbers, until there are enough."""
    answers, number = Answers(), iter(range(2**62))

    async def client() -> None:
        reader = writer = None
        while not until(current := next(number)):
            began = time.perf_counter()
            try:
                if writer is None or writer.is_closing():
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert reader is not None
                writer.write(send(current))
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(line for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
            except ConnectionRefusedError:
                answers.refused += 1
                await asyncio.sleep(0.1)
                continue
            except (OSError, asyncio.IncompleteReadError):
                answers.unanswered.append(began)
                writer = None
                continue
            answers.statuses[int(lines[0].split()[1])] += 1
            answers.seconds.append(time.perf_counter() - began)
            if b"connection: close" in lines:
                writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


@contextmanager
def served(model: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Yields the process of a service, and its port."""
    command = [sys.executable, "-m", "tlkit", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(": ")[0]
        try:
            yield psutil.Process(process.pid), urlsplit(address).port or 0
        finally:
            process.send_signal(signal.SIGTERM)


def predict_when_asked(connection: Connection, model: Path, photos: Sequence[Path]) -> None:
    """Predicts photos for as many seconds as it is told; returns images, seconds and processor seconds."""
    import tlkit

    predictor = tlkit.load(model)
    predictor.predict(photos[:64])
    connection.send(None)
    while (seconds := connection.recv()) is not None:
        began, used, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            count += len(predictor.predict(photos).labels)
        connection.send((count, time.perf_counter() - began, time.process_time() - used))


def load(
    port: int, service: psutil.Process, model: Path, photos: Sequence[Path], clients: int, turns: int
) -> None:
    """Prints throughput and latency, in turn with prediction alone."""
    here, there = multiprocessing.Pipe()
    alone = multiprocessing.get_context("spawn").Process(
        target=predict_when_asked, args=(there, model, photos), daemon=True
    )
    alone.start()
    here.recv()
    requests = [request(photo.read_bytes()) for photo in photos]
    rates, per_cpu = list[tuple[float, float]](), list[tuple[float, float]]()
    own, latencies, memory = list[float](), list[float](), list[int]()

    def send(number: int) -> bytes:
        return requests[number % len(requests)]

    asyncio.run(ask(port, clients, send, lambda number: number >= 4 * clients))
    for _ in range(turns):
        here.send(TURN)
        count, seconds, used = here.recv()
        began, cpu, client = time.perf_counter(), cpu_seconds(service), time.process_time()
        end = began + TURN
        answers = asyncio.run(ask(port, clients, send, lambda _, end=end: time.perf_counter() > end))  # type: ignore[misc]
        elapsed = time.perf_counter() - began
        number = answers.statuses[200]
        assert set(answers.statuses) == {200} and not answers.unanswered, answers.statuses
        latencies += answers.seconds
        rates.append((number / elapsed, count / seconds))
        per_cpu.append((number / (cpu_seconds(service) - cpu), count / used))
        own.append((time.process_time() - client) / number)
        memory.append(service.memory_info().rss)
    here.send(None)
    typer.echo("| images | served | predict alone | served / alone |\n| --- | ---: | ---: | ---: |")
    for title, rows in (("per second", rates), ("per second of processor time", per_cpu)):
        one, other = (median(column) for column in zip(*rows, strict=True))
        ratio = median(served_rate / alone_rate for served_rate, alone_rate in rows)
        typer.echo(f"| {title} | {one:.1f} | {other:.1f} | {ratio:.2f} |")
    p50, p99 = np.percentile(latencies, [50, 99])
    typer.echo(f"\n{len(latencies):,} requests of {clients} clients: p50 {p50:.2f} s, p99 {p99:.2f} s")
    typer.echo(f"the clients' own processor time: {1000 * median(own):.2f} ms an image")
    typer.echo(
        "memory of the service after each turn, MB: " + ", ".join(f"{size / 1e6:.0f}" for size in memory)
    )


def cpu_seconds(process: psutil.Process) -> float:
    """Returns the processor time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def tensor(datatype: str, shape: Sequence[int], *data: object) -> bytes:
    """Returns a request of the Open Inference Protocol with one tensor."""
    return json.dumps(
        {"inputs": [{"name": "image", "datatype": datatype, "shape": shape, "data": data}]}
    ).encode()


def bad_requests(photo: bytes) -> list[bytes]:
    """Returns requests that are the clients' fault, of every kind."""
    random.seed(1)
    cut = [photo[: len(photo) // share] for share in (2, 3, 10, 50)]
    noise = [random.randbytes(size) for size in (0, 1, 100, 100_000)]
    lists = [b"", b"[", b"{}", b"[1]", b'["*"]', b"[]", b"[" * 100_000, b'["eA=="]']
    forms = [b"", b"--b", b"--b\r\n\r\nx"]
    tensors = [
        *(b"", b"{}", b'{"inputs": []}', b'{"inputs": [{"name": "image"}]}', b"[" * 100_000),
        *(tensor("BYTES", shape, data) for shape, data in (([1], "*"), ([2], "eA=="), ([-1], ""))),
        tensor("UINT8", [0, 10**18, 10**18, 3]),
        *(
            tensor("UINT8", [1, 1, 1, 3], *data)
            for data in ((1, 2), (10**400, 1, 1), (1, 2, "a"), (1, [2], 3))
        ),
        tensor("FP32", [1], 1.0),
    ]
    lengths = ["\xb2", "9" * 5000, "-1", "9999", "1"]
    infer = "/v2/models/model/infer"
    return [
        *(request(body, kind) for body in (*cut, *noise) for kind in ("image/jpeg", "image/png")),
        *(
            request(body, kind, path)
            for path in ("/predict", "/explain")
            for kind, bodies in (("application/json", lists), ("multipart/form-data; boundary=b", forms))
            for body in bodies
        ),
        *(request(body, path="/explain") for body in (*cut[-1:], *noise)),
        *(request(body, "application/json", infer) for body in tensors),
        *(
            request(tensors[-1], path=infer, header=f"Inference-Header-Content-Length: {length}")
            for length in lengths
        ),
        request(photo, "text/plain"),
        request(photo, ""),
        *(request(photo, path=path) for path in ("/predict?model=nobody", "/predict?top=x", "/nowhere")),
    ]


def stop_in_the_middle(port: int, service: psutil.Process, body: bytes, clients: int) -> None:
    """Ends a service while clients send requests, and prints which of them were answered.

    The service closes connections with their last answer: what a client sends on one at that moment has not
    been accepted.
    """
    began, stopped = time.perf_counter(), list[float]()

    def stop(_: int) -> bool:
        now = time.perf_counter()
        if now - began > 3 and not stopped:
            service.send_signal(signal.SIGTERM)
            stopped.append(now)
        return now - began > 8

    answers = asyncio.run(ask(port, clients, lambda _: body, stop))
    before = sum(sent < stopped[0] for sent in answers.unanswered)
    typer.echo(
        f"stopped in the middle: {dict(answers.statuses)} by status; unanswered: {before} of those", nl=False
    )
    typer.echo(f" sent before, {len(answers.unanswered) - before} later ones; {answers.refused} refused")


def main(
    photos: Annotated[Path, typer.Argument(help="A folder of JPEGs.")],
    backbone: Annotated[
        str, typer.Option(help="Any, also local-dir:PATH.")
    ] = "local-dir:../shared/weights/mobilenetv2_100",
    clients: int = 32,
    turns: Annotated[int, typer.Option(help="Of ten seconds each.")] = 6,
    bad: Annotated[int, typer.Option(help="How many bad requests are sent.")] = 10_000,
) -> None:
    """Print throughput beside prediction alone, latency and memory; then what bad requests and a stop get."""
    paths = sorted(photos.glob("*.jpg"))[:PHOTOS]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        save_classifier(model, backbone)
        with served(model) as (service, port):
            load(port, service, model, paths, clients, turns)
            photo = paths[0].read_bytes()
            requests = bad_requests(photo)
            answers = asyncio.run(
                ask(port, clients, lambda n: requests[n % len(requests)], lambda n: n >= bad)
            )
            typer.echo(f"bad requests, by status: {dict(sorted(answers.statuses.items()))}", nl=False)
            typer.echo(f", {len(answers.unanswered)} without an answer", nl=False)
            typer.echo(f"; memory then {service.memory_info().rss / 1e6:.0f} MB")
            stop_in_the_middle(port, service, request(photo), clients)


if __name__ == "__main__":
    typer.run(main)
