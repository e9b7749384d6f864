"""``POST /predict`` and ``POST /explain``: images in the forms that people send them in."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from tlkit.inference.prediction import Prediction
from tlkit.serving.errors import RequestError
from tlkit.serving.service import Service

FORMS = "an image, multipart/form-data with images, or a JSON list of base64 strings"
BASE64 = "^([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
#: What both paths accept, for OpenAPI.
BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "minItems": 1,
                    }
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "array",
                "items": {"type": "string", "contentEncoding": "base64", "pattern": BASE64},
                "minItems": 1,
            }
        },
    },
}


class Error(BaseModel):
    """Why a request is not answered."""

    error: str


class Score(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class Answer(BaseModel):
    """The prediction for one image.

    Attributes:
        label: the class, "unknown" or "unclassified".
        score: the probability of the most probable class.
        top: the most probable classes, most probable first.
        novelty: how far the image is from the training images; None where the model cannot tell.
    """

    label: str
    score: float
    top: list[Score]
    novelty: float | None


class MultilabelAnswer(BaseModel):
    """The prediction for one image that may have several labels.

    Attributes:
        labels: the classes whose probabilities reach their thresholds, in the model's order.
        top: the most probable classes, most probable first.
    """

    labels: list[Score]
    top: list[Score]


#: The statuses of requests that are not answered.
ERRORS: dict[int | str, dict[str, object]] = {
    status: {"model": Error} for status in (400, 401, 404, 408, 413, 415, 422, 429, 503)
}
ModelQuery = Annotated[str | None, Query(description="A model's name; the first one unless given.")]


def make_router(service: Service) -> APIRouter:
    """Returns the paths."""
    router = APIRouter(responses=ERRORS)

    @router.post("/predict", openapi_extra={"requestBody": BODY})
    async def predict(
        request: Request,
        model: ModelQuery = None,
        top: Annotated[int, Query(ge=1, le=1000, description="How many classes each answer lists.")] = 5,
    ) -> list[Answer | MultilabelAnswer]:
        """Label images; see /v2 for the Open Inference Protocol."""
        chosen = service.models.get(model)
        predictions = await service.predict(chosen, await read_images(request, service))
        return [_answer(prediction, top) for prediction in predictions]

    @router.post(
        "/explain",
        openapi_extra={"requestBody": BODY},
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    async def explain(request: Request, model: ModelQuery = None) -> Response:
        """Show where the classifier looks in an image: a heat map over it, as PNG."""
        chosen = service.models.get(model)
        images = await read_images(request, service)
        if len(images) != 1:
            raise RequestError(422, f"one image is explained at a time, not {len(images)}")
        return Response(await service.explain(chosen, images[0]), media_type="image/png")

    return router


async def read_images(request: Request, service: Service) -> list[bytes]:
    """Returns the content of the image files that a request holds.

    Raises:
        RequestError: its body has another form, or there is no time to read it now.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    body = await request.body()
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [body]
    if kind == "application/json":
        return await service.parse(parse_base64, body)
    if kind != "multipart/form-data":
        raise RequestError(415, f"{kind or 'a body without a type'} is not read: send {FORMS}")
    return await service.parse(parse_form, body, content_type)


def parse_form(body: bytes, content_type: str) -> list[bytes]:
    """Returns the content of a form's files.

    Raises:
        RequestError: it is something else.
    """

    async def stream() -> AsyncGenerator[bytes]:
        yield body

    async def parse() -> list[bytes]:
        parser = MultiPartParser(Headers({"content-type": content_type}), stream())
        parser.spool_max_size = len(body) + 1  # nothing is written to a disk
        form = await parser.parse()
        contents = [value.file.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
        await form.close()
        return contents

    try:
        return asyncio.run(parse())
    except MultiPartException as error:
        raise RequestError(400, f"the form cannot be read: {error.message}") from error
    except ValueError as error:  # a charset that is none
        raise RequestError(400, f"the form cannot be read: {error}") from error


def parse_base64(body: bytes) -> list[bytes]:
    """Parses a JSON list of base64 strings.

    Raises:
        RequestError: it is something else.
    """
    try:
        values = from_json(body)
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise RequestError(422, "the body must be a JSON list of base64 strings")
    try:
        return [base64.b64decode(value, validate=True) for value in values]
    except ValueError as error:
        raise RequestError(422, f"a string is not base64: {error}") from error


def _answer(prediction: Prediction, top: int) -> Answer | MultilabelAnswer:
    if prediction.labels is not None:
        return MultilabelAnswer(labels=_scores(prediction.labels), top=_scores(prediction.top[:top]))
    assert prediction.label is not None and prediction.confidence is not None  # it could be read
    return Answer(
        label=prediction.label,
        score=prediction.confidence,
        top=_scores(prediction.top[:top]),
        novelty=prediction.novelty,
    )


def _scores(pairs: Iterable[tuple[str, float]]) -> list[Score]:
    return [Score(label=name, score=probability) for name, probability in pairs]
