"""The HTTP service of trained classifiers."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from tlkit.serving import inference_protocol, predict_api
from tlkit.serving.errors import RequestError
from tlkit.serving.limits import Limits
from tlkit.serving.service import Service

PAGE = Path(__file__).parent / "page"
#: The page loads nothing from elsewhere.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def make_app(service: Service, *, token: str | None, note: Callable[[str], object]) -> FastAPI:
    """Returns the service as an ASGI application.

    Args:
        service: what answers; it is stopped when the application ends.
        token: what clients must send; None: anyone who reaches the address may ask.
        note: is told when a model has been replaced.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        stopping = threading.Event()
        follower = threading.Thread(target=service.models.follow, args=(note, stopping), daemon=True)
        follower.start()
        yield
        stopping.set()
        service.stop()

    app = FastAPI(
        title="tlkit",
        version=version("tlkit"),
        description="Image classification by trained models.",
        lifespan=lifespan,
        # `Limits` checks the token; this says so in the description
        dependencies=[] if token is None else [Security(HTTPBearer(auto_error=False))],
    )
    metrics = service.metrics

    def observe(path: str, status: int, seconds: float) -> None:
        metrics.requests.labels(path, str(status)).inc()
        metrics.latency.labels(path).observe(seconds)

    app.add_middleware(
        Limits,
        max_bytes=service.limits.max_bytes,
        check_room=service.check_room,
        token=token,
        observe=observe,
    )
    for kind in (RequestError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(Exception, _answer_defect)
    app.include_router(predict_api.make_router(service))
    app.include_router(inference_protocol.make_router(service))
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    """Adds what belongs to no protocol: metrics, the list of models, and the page."""

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> PlainTextResponse:
        """Counters in Prometheus' text format."""
        return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/models")
    async def models() -> list[dict[str, object]]:
        """List the models and their classes."""
        return [{"name": model.name, "classes": list(model.predictor.classes)} for model in service.models]

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=PAGE_HEADERS)

    app.mount("/page", StaticFiles(directory=PAGE))


async def _answer_error(_request: Request, error: Exception) -> Response:
    """Answers every error as ``{"error": …}``."""
    if isinstance(error, RequestError):
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return JSONResponse({"error": str(error)}, error.status, headers)
    if isinstance(error, HTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)
    assert isinstance(error, RequestValidationError)  # there is no other
    item = error.errors()[0]
    key = ".".join(map(str, item["loc"]))
    return JSONResponse({"error": f"{key}: {item['msg']}"}, 422)


async def _answer_defect(_request: Request, error: Exception) -> Response:
    """Answers an unexpected exception; the server logs its traceback."""
    return JSONResponse({"error": f"the service failed ({type(error).__name__}); its log says where"}, 500)
