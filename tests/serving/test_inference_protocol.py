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
from tlkit.serving.service import Service


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
    expected = tlkit.load(fitted).predict([photos_of_both[0]])
    described = client.get_model_metadata("by-class", "1")
    assert described["versions"] == ["1"] and client.is_model_ready("by-class", "1")
    assert described["parameters"]["instead_of_bytes"]["datatype"] == "UINT8"
    for version in ("", "1"):
        answer = client.infer("by-class", [tensor], model_version=version)
        np.testing.assert_allclose(answer.as_numpy("probabilities"), expected.probabilities, atol=1e-5)
    with pytest.raises(triton.InferenceServerException, match="by-class has one version, 1"):
        client.infer("by-class", [tensor], model_version="2")
    with pytest.raises(triton.InferenceServerException, match="there is no model 'other'"):
        client.infer("other", [tensor])
    client.close()


def uint8(shape: list[int], data: object, **parameters: object) -> dict[str, object]:
    """A request with one tensor of pixels."""
    tensor = {"name": "image", "shape": shape, "datatype": "UINT8", "data": data, "parameters": parameters}
    return {"inputs": [tensor]}


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
        ({"inputs": [{"name": "image", "shape": [-1], "datatype": "BYTES", "data": []}]}, "below 1"),
        (uint8([0, 10**18, 10**18, 3], []), "lengths below 1"),
        (uint8([1, 10**18, 10**18, 3], []), "does not fit 0 numbers"),
        (uint8([1, 1, 1, 3], [10**400, 1, 1]), "whole numbers from 0 to 255"),
        (uint8([1, 1, 1, 3], [[1, 2], 3]), "whole numbers from 0 to 255"),
        (uint8([1, 1, 1, 3], 10**12), "whole numbers from 0 to 255"),
        (uint8([1, 1, 1, 3], [1, 2, 3], binary_data_size="many"), "binary_data_size: Input should be"),
        (uint8([1, 1, 1, 3], [1, 2, 300]), "whole numbers from 0 to 255"),
        (uint8([1, 1, 1, 3], ["a"]), "whole numbers from 0 to 255"),
    ],
)
def test_bad_requests(client: TestClient, body: dict[str, object], message: str) -> None:
    response = client.post("/v2/models/by-class/infer", json=body)
    assert (response.status_code, message in response.json()["error"]) == (400, True), response.text


def test_a_binary_tensor_cut_short(client: TestClient) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    header = json.dumps({"inputs": [tensor]}).encode()
    binary = (100).to_bytes(4, "little") + b"ab"
    wrong = ("9999", "9" * 5000, "-1", "²".encode("latin-1"), "")
    cases = [
        (str(len(header)), "longer than what follows"),
        *((length, "not the length") for length in wrong),
    ]
    for length, message in cases:
        response = client.post(
            "/v2/models/by-class/infer",
            content=header + binary,
            headers={"inference-header-content-length": length},
        )
        assert (response.status_code, message in response.json()["error"]) == (400, True), response.text


def test_nested_numbers_are_pixels(client: TestClient) -> None:
    nested = client.post("/v2/models/by-class/infer", json=uint8([1, 1, 2, 3], [[[[0, 9, 255], [1, 2, 3]]]]))
    flat = client.post("/v2/models/by-class/infer", json=uint8([1, 1, 2, 3], [0, 9, 255, 1, 2, 3]))
    assert (nested.status_code, nested.json()) == (200, flat.json())


def test_a_stopping_service_is_not_ready(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ("/v2/health/ready", "/v2/models/by-class/ready")
    assert [client.get(path).status_code for path in paths] == [200, 200]
    monkeypatch.setattr(service, "stopping", True)
    assert [client.get(path).status_code for path in paths] == [503, 503]
