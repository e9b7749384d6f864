"""POST /predict and /explain: every form of a request, limits, and bad requests."""

from __future__ import annotations

import base64
import io
import socket
import threading
from pathlib import Path

import pytest
from onnx_files import png
from PIL import Image
from starlette.testclient import TestClient

import tlkit
from tlkit.serving import limits
from tlkit.serving.app import make_app
from tlkit.serving.models import LoadOptions, Models
from tlkit.serving.service import Service, ServiceLimits

JPEG = {"content-type": "image/jpeg"}


def test_answers_are_those_of_predict(client: TestClient, fitted: Path, photos_of_both: list[Path]) -> None:
    expected = list(tlkit.load(fitted).stream(photos_of_both, top=2))
    contents = [path.read_bytes() for path in photos_of_both]
    one_by_one = [client.post("/predict", content=body, headers=JPEG).json()[0] for body in contents]
    files = [("images", (path.name, path.read_bytes(), "image/jpeg")) for path in photos_of_both]
    together = client.post("/predict", files=files).json()
    encoded = [base64.b64encode(body).decode() for body in contents]
    from_json = client.post("/predict", json=encoded).json()
    for answers in (one_by_one, together, from_json):
        assert [answer["label"] for answer in answers] == [item.label for item in expected]
        scores = [item.confidence for item in expected]
        assert [answer["score"] for answer in answers] == pytest.approx(scores, abs=1e-5)
        assert [answer["top"][1]["label"] for answer in answers] == [item.top[1][0] for item in expected]


def test_top_limits_the_classes(client: TestClient, photos_of_both: list[Path]) -> None:
    answer = client.post("/predict?top=1", content=photos_of_both[0].read_bytes(), headers=JPEG).json()
    assert len(answer[0]["top"]) == 1


def test_explain_is_a_picture(client: TestClient, photos_of_both: list[Path]) -> None:
    response = client.post("/explain", content=photos_of_both[0].read_bytes(), headers=JPEG)
    assert response.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(response.content)).size == (128, 128)


#: A form whose file has a name that is not ASCII.
NAMED = b'--b\r\nContent-Disposition: form-data; name="\xe4"; filename="a"\r\n\r\nx\r\n--b--\r\n'


def bomb() -> bytes:
    """A small file of 144 million pixels."""
    content = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(content, "PNG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"no image", "image/png", 422, "the image cannot be read: not an image"),
        (b"", "image/png", 422, "the image cannot be read"),
        (bomb(), "image/png", 422, "pixels are more than"),
        (b"x" * 1_000_001, "image/png", 413, "at most 1,000,000 bytes"),
        (b"x", "text/plain", 415, "text/plain is not read: send an image, multipart"),
        (b"x", "", 415, "a body without a type is not read"),
        (b"[", "application/json", 400, "the body is not JSON"),
        (b"[" * 100_000, "application/json", 400, "the body is not JSON"),
        (b'{"image": 1}', "application/json", 422, "must be a JSON list of base64 strings"),
        (b'["*"]', "application/json", 422, "a string is not base64"),
        (b"[]", "application/json", 422, "the request holds no image"),
        (b"x", "multipart/form-data", 400, "the form cannot be read"),
        (b"--b\r\n\r\nx", "multipart/form-data; boundary=b", 400, "the form cannot be read"),
        (NAMED, "multipart/form-data; boundary=b; charset=undefined", 400, "the form cannot be read"),
    ],
)
def test_bad_requests_are_the_clients_fault(
    client: TestClient, body: bytes, kind: str, status: int, message: str
) -> None:
    response = client.post("/predict", content=body, headers={"content-type": kind} if kind else {})
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"no image", "image/png", 422, "the image cannot be read: not an image"),
        (b"", "application/octet-stream", 422, "the image cannot be read"),
        (b"x" * 1_000_001, "image/png", 413, "at most 1,000,000 bytes"),
        (b"x", "text/plain", 415, "text/plain is not read"),
        (b"[", "application/json", 400, "the body is not JSON"),
        (b"[]", "application/json", 422, "one image is explained at a time, not 0"),
        (b'["eA==", "eA=="]', "application/json", 422, "one image is explained at a time, not 2"),
        (b"--b", "multipart/form-data; boundary=b", 422, "one image is explained at a time, not 0"),
    ],
)
def test_bad_requests_to_explain(
    client: TestClient, body: bytes, kind: str, status: int, message: str
) -> None:
    response = client.post("/explain", content=body, headers={"content-type": kind})
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text


def test_a_defect_is_told_in_the_form_of_all_errors(
    service: Service, client: TestClient, photos_of_both: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(service.models.get(None).predictor, "predict_pixels", fail)
    response = client.post("/predict", content=photos_of_both[0].read_bytes(), headers=JPEG)
    assert response.status_code == 500
    assert response.json() == {"error": "the service failed (ZeroDivisionError); its log says where"}


def test_a_body_that_does_not_arrive(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("module", ["predict_api.parse_base64", "predict_api.parse_form"])
def test_other_requests_are_answered_while_a_body_is_parsed(
    client: TestClient, photos_of_both: list[Path], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, answered = threading.Event(), threading.Event()

    def parse(*_: object) -> list[bytes]:
        parsing.set()
        return [photos_of_both[0].read_bytes()] if answered.wait(60) else []

    monkeypatch.setattr(f"tlkit.serving.{module}", parse)
    kind = "application/json" if "base64" in module else "multipart/form-data"
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.post("/predict", content=b"x", headers={"content-type": kind}).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    assert parsing.wait(60)
    assert client.get("/v2/health/live").status_code == 200
    answered.set()
    thread.join()
    assert statuses == [200]


def test_explained_images_wait_in_the_same_queue(colours_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()

    def explain(*_: object) -> bytes:
        begun.set()
        assert go.wait(60)
        return b"a picture"

    monkeypatch.setattr("tlkit.serving.service._explain", explain)
    service = Service(Models([colours_file], LoadOptions()), ServiceLimits(max_waiting=1))
    with TestClient(make_app(service, token=None, note=lambda _: None)) as client:
        answers: list[bytes] = []
        headers = {"content-type": "image/png"}

        def ask() -> None:
            answers.append(client.post("/explain", content=png("red"), headers=headers).content)

        first = threading.Thread(target=ask)
        first.start()
        assert begun.wait(60)
        refused = client.post("/explain", content=png("red"), headers=headers)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        go.set()
        first.join()
        assert answers == [b"a picture"]
        assert client.post("/explain", content=png("red"), headers=headers).status_code == 200


def test_one_bad_image_of_several_is_named(client: TestClient, photos_of_both: list[Path]) -> None:
    files = [("images", (name, body)) for name, body in (("a", photos_of_both[0].read_bytes()), ("b", b"x"))]
    response = client.post("/predict", files=files)
    assert response.status_code == 422
    assert response.json()["error"].startswith("image 2 of 2 cannot be read")


def test_unknown_models_and_paths(client: TestClient, photos_of_both: list[Path]) -> None:
    body = photos_of_both[0].read_bytes()
    response = client.post("/predict?model=by-clas", content=body, headers=JPEG)
    assert (response.status_code, "did you mean 'by-class'" in response.text) == (404, True)
    assert client.get("/nothing").json() == {"error": "Not Found"}
    assert client.post("/predict?top=0", content=body, headers=JPEG).status_code == 422


def test_more_images_than_may_wait(client: TestClient, photos_of_both: list[Path]) -> None:
    images = [("images", ("a", photos_of_both[0].read_bytes()))] * 9
    response = client.post("/predict", files=images)
    assert response.status_code == 413
    assert "at most 8 images" in response.json()["error"]


def test_a_full_queue_is_told_to_come_back(
    service: Service, client: TestClient, photos_of_both: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, begun = threading.Event(), threading.Event()
    predictor = service.models.get(None).predictor
    predict_pixels = predictor.predict_pixels

    def slowly(*arguments: object, **options: object) -> object:
        begun.set()
        go.wait(60)
        return predict_pixels(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "predict_pixels", slowly)
    body = photos_of_both[0].read_bytes()
    answers: list[int] = []
    files = [("images", ("a", body))] * 5

    def ask() -> None:
        answers.append(client.post("/predict", files=files).status_code)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(60)
    refused = client.post("/predict", files=files)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    go.set()
    first.join()
    assert answers == [200]
    assert client.post("/predict", files=files).status_code == 200


def test_no_answer_in_time_is_503(fitted: Path, photos_of_both: list[Path]) -> None:
    service = Service(Models([fitted], LoadOptions()), ServiceLimits(seconds=1e-6))
    with TestClient(make_app(service, token=None, note=lambda _: None)) as client:
        response = client.post("/predict", content=photos_of_both[0].read_bytes(), headers=JPEG)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_a_token_is_asked_for_but_by_the_page(service: Service, photos_of_both: list[Path]) -> None:
    app = make_app(service, token="secret", note=lambda _: None)
    client = TestClient(app)  # not entered: the service goes on for the other tests
    body = photos_of_both[0].read_bytes()

    def status(**headers: str) -> int:
        return client.post("/predict", content=body, headers={**JPEG, **headers}).status_code

    assert status() == 401
    for sent in ("Bearer no", "secret", "Basic secret", "Bearer", "Bearer  ", "bearersecret"):
        assert status(authorization=sent) == 401, sent
    for sent in ("Bearer secret", "bearer secret", "BEARER  secret"):
        assert status(authorization=sent) == 200, sent
    assert client.get("/metrics").status_code == client.get("/models").status_code == 401
    assert client.get("/docs").status_code == 200
    described = client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    assert described["paths"]["/predict"]["post"]["security"] == [{"HTTPBearer": []}]
    assert client.get("/").status_code == client.get("/page/app.js").status_code == 200
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_metrics_count_requests_and_labels(client: TestClient, photos_of_both: list[Path]) -> None:
    answer = client.post("/predict", content=photos_of_both[0].read_bytes(), headers=JPEG).json()
    text = client.get("/metrics").text
    assert 'tlkit_requests_total{path="/predict",status="200"}' in text
    assert f'tlkit_images_total{{label="{answer[0]["label"]}",model="by-class"}}' in text
    assert "tlkit_waiting_images 0.0" in text
