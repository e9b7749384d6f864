"""The page of a review, on this machine only."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict

from tlkit.analysis.audit_file import AuditedImage, Neighbour
from tlkit.data.corrections_file import Decision
from tlkit.data.images import UnreadableImage
from tlkit.errors import AuditFileError, DataError, RunFolderError
from tlkit.serving.listening import listening
from tlkit.serving.photos import Size
from tlkit.serving.suspects import Decisions, InvalidDecision, Suspect, SuspectKind, Verdict

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "review_page"
#: The page loads nothing from elsewhere, nobody frames it, and its address, which has the token, stays here.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Strict(BaseModel):
    """Base of what is sent: without unknown keys."""

    model_config = ConfigDict(extra="forbid")


class ShownNeighbour(Strict):
    """A similar image, as the page shows it."""

    image: str
    label: str
    similarity: float


class ShownImage(Strict):
    """An image of a suspect, as the page shows it."""

    image: str
    label: str
    split: str | None
    neighbours: list[ShownNeighbour]


class ShownSuspect(Strict):
    """A suspect, as the page shows it."""

    kind: SuspectKind
    images: list[ShownImage]
    suggested: str | None
    probability: float | None
    similarity: float | None


class ShownVerdict(Strict):
    """What was decided about a suspect, as the page shows it."""

    decision: Decision | None
    image: str
    new_label: str


class State(Strict):
    """The decisions so far.

    Attributes:
        verdicts: what was decided about each suspect.
        labels: the labels that decisions have given images, by id.
        changed: which suspect was decided, or is undecided again.
    """

    verdicts: list[ShownVerdict | None]
    labels: dict[str, str]
    changed: int | None = None


class Shown(Strict):
    """Everything that the page shows.

    Attributes:
        name: what is reviewed.
        file: the file of decisions.
        classes: the classes to choose from.
        possible: the decisions that are possible.
        explains: whether there are heat maps.
        suspects: the suspects.
        state: the decisions so far.
    """

    name: str
    file: str
    classes: list[str]
    possible: list[Decision]
    explains: bool
    suspects: list[ShownSuspect]
    state: State


class NewDecision(Strict):
    """A decision that the page sends."""

    suspect: int
    image: str
    decision: Decision
    new_label: str = ""


def make_app(review: Decisions, token: str, port: int) -> FastAPI:
    """Makes the application: every address begins with the token, and every request must be to this machine.

    Args:
        review: the review.
        token: the secret.
        port: the port that it is served on.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _refusal(request, hosts, token) or await answer(request)
        response.headers.update(HEADERS)
        return response

    app.add_exception_handler(InvalidDecision, _refuse)
    app.add_exception_handler(UnreadableImage, _refuse)
    app.add_exception_handler(AuditFileError, _refuse)
    app.add_exception_handler(DataError, _refuse)
    app.add_exception_handler(RunFolderError, _refuse)
    app.include_router(_page_routes(), prefix=f"/{token}")
    app.include_router(_review_routes(review), prefix=f"/{token}")
    return app


def _refusal(request: Request, hosts: set[str], token: str) -> Response | None:
    """Returns the answer to a request that must not be answered; None: it may be."""
    host = request.headers.get("host", "")
    if host not in hosts:  # a page elsewhere whose name was made to mean this machine
        return PlainTextResponse("this is not the address that tlkit printed", 403)
    if request.headers.get("origin", f"http://{host}") != f"http://{host}":
        return PlainTextResponse("another page may not ask", 403)
    sent = request.url.path.split("/")[1]
    if not secrets.compare_digest(sent.encode(), token.encode()):
        return PlainTextResponse("open the address that tlkit review has printed last", 403)
    return None


async def _refuse(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 500 if isinstance(error, AuditFileError) else 409)


def _page_routes() -> APIRouter:
    """Returns the routes of the page's own files."""
    routes = APIRouter()

    @routes.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @routes.get("/review.js")
    def script() -> FileResponse:
        return FileResponse(PAGE / "review.js")

    @routes.get("/review.css")
    def style() -> FileResponse:
        return FileResponse(PAGE / "review.css")

    return routes


def _review_routes(review: Decisions) -> APIRouter:
    """Returns the routes of the suspects, their photos, and decisions."""
    routes = APIRouter()

    def state(changed: int | None = None) -> State:
        verdicts = [_verdict(verdict) for verdict in review.verdicts()]
        return State(verdicts=verdicts, labels=review.labels(), changed=changed)

    @routes.get("/suspects")
    def suspects() -> Shown:
        return Shown(
            name=review.name,
            file=str(review.path),
            classes=list(review.classes),
            possible=list(review.possible),
            explains=review.photos.model is not None,
            suspects=[_suspect(review, suspect) for suspect in review.suspects],
            state=state(),
        )

    @routes.get("/photo")
    def photo(image: str, size: Size) -> Response:
        content = review.photos.preview(image, size)
        if content is None:
            raise HTTPException(404, "there is no such image")
        return Response(content, media_type="image/jpeg")

    @routes.get("/heat")
    def heat(image: str, label: str) -> Response:
        content = review.photos.heat(image, label)
        if content is None:
            raise HTTPException(404, "there is no heat map of this image")
        return Response(content, media_type="image/png")

    @routes.post("/decisions")
    def decide(new: NewDecision) -> State:
        if new.decision == "undo":
            raise InvalidDecision("undo is an address of its own")
        review.decide(new.suspect, new.image, new.decision, new.new_label)
        return state(new.suspect)

    @routes.post("/undo")
    def undo() -> State:
        return state(review.undo())

    return routes


def _suspect(review: Decisions, suspect: Suspect) -> ShownSuspect:
    names = [suspect.image, *([suspect.other] if suspect.other is not None else [])]
    return ShownSuspect(
        kind=suspect.kind,
        images=[_image(review.images[name]) for name in names],
        suggested=suspect.suggested,
        probability=suspect.probability,
        similarity=suspect.similarity,
    )


def _image(image: AuditedImage) -> ShownImage:
    return ShownImage(
        image=image.image,
        label=image.label,
        split=image.split,
        neighbours=[_neighbour(neighbour) for neighbour in image.neighbours],
    )


def _neighbour(neighbour: Neighbour) -> ShownNeighbour:
    return ShownNeighbour(image=neighbour.image, label=neighbour.label, similarity=neighbour.similarity)


def _verdict(verdict: Verdict | None) -> ShownVerdict | None:
    if verdict is None:
        return None
    return ShownVerdict(decision=verdict.decision, image=verdict.image, new_label=verdict.new_label)


def serve_review(review: Decisions, port: int | None, ready: Callable[[str], object]) -> None:
    """Serves a review until Ctrl-C.

    Args:
        review: the review.
        port: the port; None: a free one.
        ready: is called with the address as soon as it answers.

    Raises:
        ServingError: the port is taken.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    with listening(HOST, port or 0, "leave --port out for a free one") as listener:
        token, bound = secrets.token_urlsafe(24), listener.getsockname()[1]
        config = uvicorn.Config(
            make_app(review, token, bound), log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        ready(f"http://{HOST}:{bound}/{token}/")
        uvicorn.Server(config).run([listener])
