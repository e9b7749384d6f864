"""Images of several requests and models are computed together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from onnx_files import png, save_onnx
from starlette.testclient import TestClient

import tlkit
from tlkit.data.views import Pixels
from tlkit.inference.predictor import Predictor
from tlkit.serving.app import make_app
from tlkit.serving.batching import Batcher
from tlkit.serving.models import LoadOptions, Models
from tlkit.serving.service import Service, ServiceLimits


class Gate:
    """Holds a predictor's computations until it is opened.

    Attributes:
        reached: is set as soon as the predictor computes.
    """

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        self._predict_pixels = predictor.predict_pixels
        monkeypatch.setattr(predictor, "predict_pixels", self._wait)

    def open(self) -> None:
        """Lets all computations go on."""
        self._opened.set()

    def _wait(self, pixels: list[Pixels], *, top: int) -> object:
        self.reached.set()
        assert self._opened.wait(60)
        return self._predict_pixels(pixels, top=top)


def test_models_are_batched_apart_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [save_onnx(tmp_path / f"{name}.onnx") for name in "ab"]
    predictors = [tlkit.load(file) for file in files]
    sizes: list[int] = []
    batcher = Batcher(100, sizes.append)
    gate = Gate(predictors[0], monkeypatch)
    pixels = list(np.eye(3, dtype=np.uint8)[:, None, None] * np.full((1, 8, 8, 1), 255, np.uint8))
    answers = batcher.submit(predictors[0], pixels[:1])
    assert gate.reached.wait(60)
    for number in range(2 * predictors[0].batch + 6):  # alternating, as two clients send them
        answers += batcher.submit(predictors[number % 2], [pixels[number % 3]])
    gate.open()
    wait(answers)
    batcher.stop()
    batch = predictors[0].batch
    assert sizes == [1, batch, batch, 3, 3]
    expected = [("red", "green", "blue")[number % 3] for number in range(2 * batch + 6)]
    assert [answer.result().label for answer in answers] == ["red", *expected]


def test_requests_that_wait_are_computed_together(
    colours_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(Models([colours_file], LoadOptions()), ServiceLimits(max_waiting=5))
    gate = Gate(service.models.get(None).predictor, monkeypatch)
    with TestClient(make_app(service, token=None, note=lambda _: None)) as client:
        labels: dict[str, str] = {}

        def ask(colour: str) -> None:
            headers = {"content-type": "image/png"}
            labels[colour] = client.post("/predict", content=png(colour), headers=headers).json()[0]["label"]

        colours = ("red", "lime", "blue", "grey", "white")
        threads = [threading.Thread(target=ask, args=(colour,)) for colour in colours]
        threads[0].start()
        assert gate.reached.wait(60)
        for thread in threads[1:]:
            thread.start()
        deadline = time.monotonic() + 60
        while sum(map(len, service._batcher._waiting.values())) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        refused = client.post("/predict", content=b"x" * 10, headers={"content-type": "text/plain"})
        assert refused.status_code == 429, "a full queue refuses requests before their bodies are read"
        gate.open()
        for thread in threads:
            thread.join()
        metrics = client.get("/metrics").text
    answered = ("red", "green", "blue", "unclassified", "unknown")
    assert labels == dict(zip(colours, answered, strict=True))
    assert "tlkit_batch_size_count 2.0" in metrics and "tlkit_batch_size_sum 5.0" in metrics
