"""The Open Inference Protocol, version 2, as KServe, Triton and Seldon speak it.

A model has one input, ``image``: BYTES ``[N]``, the content of image files (base64 in JSON), or UINT8
``[N, H, W, 3]``, RGB pixels. Its outputs are ``label`` (BYTES), ``confidence``, ``probabilities`` (FP32) and,
where the model can tell, ``novelty``. Where images may have several labels, ``label`` has all of an image's
with ``|`` between them, and ``labels`` (BOOL ``[N, classes]``), in place of ``confidence``, says whether it
has each class. The binary data extension is spoken, too.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from tlkit.inference.multilabel import MultilabelPredictor
from tlkit.inference.prediction import Prediction
from tlkit.serving.errors import RequestError
from tlkit.serving.models import ServedModel
from tlkit.serving.predict_api import ERRORS
from tlkit.serving.service import SentImage, Service

#: The header that says how long the JSON part of a body is; binary tensors follow it.
HEADER_LENGTH = "inference-header-content-length"
INPUT = "image"
#: What ``infer`` accepts, for OpenAPI.
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name", "datatype", "shape", "data"],
                            "properties": {
                                "name": {"const": INPUT},
                                "datatype": {"enum": ["BYTES", "UINT8"]},
                                "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                                "data": {"type": "array"},
                            },
                        },
                        "minItems": 1,
                        "maxItems": 1,
                    },
                },
            }
        }
    },
}


class _Parameters(BaseModel):
    """The parameters of a request or a tensor that are read."""

    model_config = ConfigDict(extra="ignore")

    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False


class _Tensor(BaseModel):
    """An input or a requested output, as it is sent."""

    model_config = ConfigDict(extra="ignore")

    name: str
    shape: list[int] = []
    datatype: str = ""
    parameters: _Parameters = _Parameters()
    data: Any = None  # validating millions of numbers one by one takes long


class _InferRequest(BaseModel):
    """The JSON part of a request."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    inputs: list[_Tensor]
    outputs: list[_Tensor] | None = None
    parameters: _Parameters = _Parameters()


@dataclass(frozen=True)
class _Output:
    """An output tensor with a row per image."""

    name: str
    datatype: str
    rows: Sequence[Any]
    shape: list[int]

    def to_bytes(self) -> bytes:
        """Returns the binary form: little-endian numbers, or strings with their lengths in front."""
        if self.datatype == "BYTES":
            encoded = [row.encode() for row in self.rows]
            return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
        return np.asarray(self.rows, "?" if self.datatype == "BOOL" else "<f4").tobytes()

    def to_list(self) -> list[Any]:
        """Returns the JSON form: flat."""
        return list(self.rows) if len(self.shape) == 1 else [value for row in self.rows for value in row]


def make_router(service: Service) -> APIRouter:
    """Returns the protocol's paths."""
    router = APIRouter(prefix="/v2", responses=ERRORS)

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Whether the service runs."""
        return {"live": True}

    @router.get("/health/ready")
    async def ready(response: Response) -> dict[str, bool]:
        """Whether the service takes requests: not while it stops."""
        if service.stopping:
            response.status_code = 503
        return {"ready": not service.stopping}

    @router.get("")
    async def server() -> dict[str, object]:
        """Describe the service."""
        return {"name": "tlkit", "version": version("tlkit"), "extensions": ["binary_tensor_data"]}

    @router.get("/models/{name}")
    @router.get("/models/{name}/versions/1")
    async def describe(name: str) -> dict[str, object]:
        """Describe a model's inputs and outputs."""
        return _describe(service.models.get(name))

    @router.get("/models/{name}/ready")
    @router.get("/models/{name}/versions/1/ready")
    async def model_ready(name: str, response: Response) -> dict[str, object]:
        """Whether a model is ready."""
        model = service.models.get(name)
        return {"name": model.name, **await ready(response)}

    @router.post("/models/{name}/infer", response_class=Response, openapi_extra={"requestBody": BODY})
    @router.post(
        "/models/{name}/versions/1/infer", response_class=Response, openapi_extra={"requestBody": BODY}
    )
    async def infer(name: str, request: Request) -> Response:
        """Label images."""
        model = service.models.get(name)
        body, length = await request.body(), request.headers.get(HEADER_LENGTH)
        header, images = await service.parse(parse_request, body, length)
        predictions = await service.predict(model, images)
        return _respond(model, header, _outputs(model, predictions))

    @router.api_route(
        "/models/{name}/versions/{number}{rest:path}", methods=["GET", "POST"], include_in_schema=False
    )
    async def other_version(name: str, number: str, rest: str) -> None:
        service.models.get(name)
        raise RequestError(404, f"{name} has one version, 1: there is nothing under {number}{rest}")

    return router


def _describe(model: ServedModel) -> dict[str, object]:
    count = len(model.predictor.classes)
    second: dict[str, object] = {"name": "confidence", "datatype": "FP32", "shape": [-1]}
    if isinstance(model.predictor, MultilabelPredictor):
        second = {"name": "labels", "datatype": "BOOL", "shape": [-1, count]}
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        second,
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, count]},
    ]
    if model.predictor.unknown is not None:
        outputs.append({"name": "novelty", "datatype": "FP32", "shape": [-1]})
    return {
        "name": model.name,
        "versions": ["1"],
        "platform": "tlkit",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
        "parameters": {
            "classes": list(model.predictor.classes),
            # a second entry of `inputs` would be a second input
            "instead_of_bytes": {"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
        },
    }


def parse_request(body: bytes, length: str | None) -> tuple[_InferRequest, list[SentImage]]:
    """Parses a request.

    Args:
        body: its JSON part, and the binary tensors behind it.
        length: the header that says how long the JSON part is; None: it is all.

    Raises:
        RequestError: it is malformed.
    """
    end = len(body)
    if length is not None:
        if not re.fullmatch("[0-9]{1,15}", length) or int(length) > len(body):
            raise RequestError(400, f"{HEADER_LENGTH}: {length!r} is not the length of a part of the body")
        end = int(length)
    try:
        header = _InferRequest.model_validate(from_json(body[:end]))
    except ValidationError as error:
        item = error.errors(include_url=False)[0]
        key = ".".join(map(str, item["loc"])) or "the body"
        raise RequestError(400, f"{key}: {item['msg']}") from error
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error
    return header, _read_images(header, body[end:])


def _read_images(header: _InferRequest, binary: bytes) -> list[SentImage]:
    if len(header.inputs) != 1 or header.inputs[0].name != INPUT:
        names = ", ".join(tensor.name for tensor in header.inputs) or "none"
        raise RequestError(400, f"there is one input, {INPUT!r}; the request has {names}")
    tensor = header.inputs[0]
    size = tensor.parameters.binary_data_size
    if size is not None and size != len(binary):
        raise RequestError(400, f"binary_data_size is {size}, and {len(binary)} bytes follow")
    if any(length < 1 for length in tensor.shape):
        raise RequestError(400, f"shape {tensor.shape} has lengths below 1")
    if tensor.datatype == "BYTES" and len(tensor.shape) == 1:
        content = _split(binary) if size is not None else _from_base64(tensor.data)
        if len(content) != tensor.shape[0]:
            raise RequestError(400, f"shape {tensor.shape} does not fit {len(content)} elements")
        return list(content)
    if tensor.datatype == "UINT8" and len(tensor.shape) == 4 and tensor.shape[3] == 3:
        numbers = binary if size is not None else _from_numbers(tensor.data)
        flat = np.frombuffer(numbers, np.uint8)
        if flat.size != math.prod(tensor.shape):
            raise RequestError(400, f"shape {tensor.shape} does not fit {flat.size} numbers")
        return list(flat.reshape(tensor.shape))
    raise RequestError(
        400,
        f"{INPUT} must be BYTES of shape [N] or UINT8 of shape [N, H, W, 3], and is {tensor.datatype} "
        f"of shape {tensor.shape}",
    )


def _split(binary: bytes) -> list[bytes]:
    """Splits elements with their lengths in front, little-endian in 4 bytes."""
    elements, start = [], 0
    while start < len(binary):
        end = start + 4 + int.from_bytes(binary[start : start + 4], "little")
        if end > len(binary):
            raise RequestError(400, "an element is longer than what follows")
        elements.append(binary[start + 4 : end])
        start = end
    return elements


def _from_base64(data: Any) -> list[bytes]:
    if not isinstance(data, list) or not all(isinstance(value, str) for value in data):
        raise RequestError(400, f"{INPUT}: data must be a list of base64 strings")
    try:
        return [base64.b64decode(value, validate=True) for value in data]
    except ValueError as error:
        raise RequestError(400, f"{INPUT}: a string is not base64: {error}") from error


def _from_numbers(data: Any) -> bytes:
    """Returns a list of numbers, flat or nested, as bytes."""
    try:
        while isinstance(data, list) and data and isinstance(data[0], list):
            data = list(chain.from_iterable(data))
        if isinstance(data, list):
            return bytes(data)
    except (TypeError, ValueError):
        pass
    raise RequestError(400, f"{INPUT}: data must be whole numbers from 0 to 255")


def _outputs(model: ServedModel, predictions: Sequence[Prediction]) -> list[_Output]:
    count, classes = len(predictions), model.predictor.classes
    rows = [[dict(prediction.top)[name] for name in classes] for prediction in predictions]
    second = _Output("confidence", "FP32", [prediction.confidence for prediction in predictions], [count])
    if isinstance(model.predictor, MultilabelPredictor):
        labels = [dict(prediction.labels or ()) for prediction in predictions]
        flags = [[name in of_image for name in classes] for of_image in labels]
        second = _Output("labels", "BOOL", flags, [count, len(classes)])
    outputs = [
        _Output("label", "BYTES", [prediction.label for prediction in predictions], [count]),
        second,
        _Output("probabilities", "FP32", rows, [count, len(classes)]),
    ]
    novelty = [prediction.novelty for prediction in predictions]
    if None not in novelty:
        outputs.append(_Output("novelty", "FP32", novelty, [count]))
    return outputs


def _respond(model: ServedModel, request: _InferRequest, outputs: Sequence[_Output]) -> Response:
    """Returns the requested outputs, each as JSON or, where that is asked for, as binary data behind it."""
    by_name = {output.name: output for output in outputs}
    everywhere = request.parameters.binary_data_output
    requested = {
        tensor.name: everywhere if tensor.parameters.binary_data is None else tensor.parameters.binary_data
        for tensor in request.outputs or [_Tensor(name=name) for name in by_name]
    }
    described, binary = [], b""
    for name, is_binary in requested.items():
        if name not in by_name:
            raise RequestError(400, f"there is no output {name!r}; there are {', '.join(by_name)}")
        output = by_name[name]
        entry: dict[str, object] = {"name": name, "datatype": output.datatype, "shape": output.shape}
        if is_binary:
            content = output.to_bytes()
            entry["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            entry["data"] = output.to_list()
        described.append(entry)
    body: dict[str, object] = {"model_name": model.name, "model_version": "1", "outputs": described}
    if request.id is not None:
        body["id"] = request.id
    header = json.dumps(body).encode()
    if not binary:
        return Response(header, media_type="application/json")
    return Response(
        header + binary,
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(header))},
    )
