"""A served classifier of several labels per image."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawings import CLASSES
from starlette.testclient import TestClient

import tlkit
from tlkit.serving.app import make_app
from tlkit.serving.models import LoadOptions, Models
from tlkit.serving.service import Service, ServiceLimits


@pytest.fixture(scope="module")
def drawings(several_labels: Path) -> Iterator[TestClient]:
    service = Service(Models([several_labels / "run"], LoadOptions()), ServiceLimits())
    with TestClient(make_app(service, token=None, note=lambda _: None)) as client:
        yield client


def test_answers_list_the_labels(drawings: TestClient, several_labels: Path) -> None:
    files = [several_labels / "images" / f"{number}.png" for number in range(8)]
    contents = [base64.b64encode(file.read_bytes()).decode() for file in files]
    predicted = list(tlkit.load(several_labels / "run").stream(files, top=2))
    answers = drawings.post("/predict", json=contents).json()
    for answer, expected in zip(answers, predicted, strict=True):
        assert set(answer) == {"labels", "top"} and expected.labels is not None
        assert [score["label"] for score in answer["labels"]] == [name for name, _ in expected.labels]
        scores = [score["score"] for score in answer["labels"]]
        assert scores == pytest.approx([value for _, value in expected.labels], abs=1e-5)
        assert [score["label"] for score in answer["top"]] == [name for name, _ in expected.top]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [8], "data": contents}
    body = drawings.post("/v2/models/drawings/infer", json={"inputs": [tensor]}).json()
    outputs = {output["name"]: output for output in body["outputs"]}
    assert outputs["label"]["data"] == [expected.label for expected in predicted]
    said = np.array(outputs["labels"]["data"]).reshape(8, 2)
    has = [[name in dict(expected.labels or ()) for name in CLASSES] for expected in predicted]
    assert outputs["labels"]["shape"] == [8, 2] and said.tolist() == has
    described = drawings.get("/v2/models/drawings").json()["outputs"]
    assert [output["name"] for output in described] == ["label", "labels", "probabilities"]
    assert {"name": "labels", "datatype": "BOOL", "shape": [-1, 2]} in described
    counted = drawings.get("/metrics").text
    assert 'label="circle"' in counted and 'label="circle|red"' not in counted
