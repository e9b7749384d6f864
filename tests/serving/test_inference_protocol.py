"""The Open Inference Protocol, spoken with Triton's own client."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from starlette.testclient import TestClient

import tlkit


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_predicts_answers(
    address: str, fitted: Path, photos_of_both: list[Path], binary: bool
) -> None:
    expected = tlkit.load(fitted).predict(photos_of_both)
    client = triton.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("by-class")
    described = client.get_model_metadata("by-class")
    assert described["parameters"]["classes"] == ["cat", "dog"]
    contents = [path.read_bytes() for path in photos_of_both]
    if not binary:
        contents = [base64.b64encode(content) for content in contents]
    tensor = triton.InferInput("image", [len(contents)], "BYTES")
    tensor.set_data_from_numpy(np.array(contents, object), binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
    answer = client.infer("by-class", [tensor], outputs=outputs, request_id="7")
    labels = [label.decode() if binary else label for label in answer.as_numpy("label").tolist()]
    assert labels == expected.labels
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected.probabilities, atol=1e-5)
    assert answer.get_response()["id"] == "7"
    client.close()


def test_pixels_are_those_of_the_file(address: str, fitted: Path, photos_of_both: list[Path]) -> None:
    pixels = np.asarray(Image.open(photos_of_both[0]).convert("RGB"))[None]
    client = triton.InferenceServerClient(address)
    tensor = triton.InferInput("image", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    answer = client.infer("by-class", [tensor])
    expected = tlkit.load(fitted).predict([photos_of_both[0]])
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected.probabilities, atol=1e-5)
    with pytest.raises(triton.InferenceServerException, match="there is no model 'other'"):
        client.infer("other", [tensor])
    client.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "inputs: Field required"),
        ({"inputs": []}, "there is one input, 'image'; the request has none"),
        ({"inputs": [{"name": "x"}]}, "the request has x"),
        ({"inputs": [{"name": "image", "shape": [1], "datatype": "FP32", "data": [1]}]}, "must be BYTES"),
        ({"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["aa"]}]}, "not base64"),
        (
            {"inputs": [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["aaaa"]}]},
            "does not fit",
        ),
        ({"inputs": [{"name": "image", "shape": [-1], "datatype": "BYTES", "data": []}]}, "negative"),
        (
            {"inputs": [{"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 300]}]},
            "whole numbers from 0 to 255",
        ),
        (
            {"inputs": [{"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": ["a"]}]},
            "data must be numbers",
        ),
    ],
)
def test_bad_requests(client: TestClient, body: dict[str, object], message: str) -> None:
    response = client.post("/v2/models/by-class/infer", json=body)
    assert (response.status_code, message in response.json()["error"]) == (400, True), response.text


def test_a_binary_tensor_cut_short(client: TestClient) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    header = json.dumps({"inputs": [tensor]}).encode()
    binary = (100).to_bytes(4, "little") + b"ab"
    for length, message in ((str(len(header)), "longer than what follows"), ("9999", "not the length")):
        response = client.post(
            "/v2/models/by-class/infer",
            content=header + binary,
            headers={"inference-header-content-length": length},
        )
        assert (response.status_code, message in response.json()["error"]) == (400, True), response.text
