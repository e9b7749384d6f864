"""POST /predict and /explain: every form of a request, limits, and bad requests."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path

import pytest
from onnx_files import save_onnx
from PIL import Image
from starlette.testclient import TestClient

import tlkit
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
    ],
)
def test_bad_requests_are_the_clients_fault(
    client: TestClient, body: bytes, kind: str, status: int, message: str
) -> None:
    response = client.post("/predict", content=body, headers={"content-type": kind} if kind else {})
    assert (response.status_code, message in response.json()["error"]) == (status, True), response.text


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
        go.wait(10)
        return predict_pixels(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(predictor, "predict_pixels", slowly)
    body = photos_of_both[0].read_bytes()
    answers: list[int] = []
    files = [("images", ("a", body))] * 5

    def ask() -> None:
        answers.append(client.post("/predict", files=files).status_code)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(10)
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
    assert client.post("/predict", content=body, headers=JPEG).status_code == 401
    assert (
        client.post("/predict", content=body, headers={**JPEG, "authorization": "Bearer no"}).status_code
        == 401
    )
    answered = client.post("/predict", content=body, headers={**JPEG, "authorization": "Bearer secret"})
    assert answered.status_code == 200
    assert client.get("/metrics").status_code == client.get("/docs").status_code == 401
    assert client.get("/").status_code == client.get("/page/app.js").status_code == 200
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_metrics_count_requests_and_labels(client: TestClient, photos_of_both: list[Path]) -> None:
    answer = client.post("/predict", content=photos_of_both[0].read_bytes(), headers=JPEG).json()
    text = client.get("/metrics").text
    assert 'tlkit_requests_total{path="/predict",status="200"}' in text
    assert f'tlkit_images_total{{label="{answer[0]["label"]}",model="by-class"}}' in text
    assert "tlkit_waiting_images 0.0" in text


def test_a_replaced_model_is_taken_up_whole_or_not_at_all(fitted: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(fitted / "phases" / "fine-tune" / "model", model)
    models = Models([model], LoadOptions())
    served = models.get("model")
    assert served.refresh() is None
    before = served.predictor
    (model / "model.safetensors").write_bytes(b"cut short")
    assert "is not taken up" in str(served.refresh())
    assert served.predictor is before
    shutil.rmtree(model)
    assert served.refresh() is None
    shutil.copytree(fitted / "phases" / "bottleneck" / "model", model)
    assert str(served.refresh()).endswith("is served from now on")
    assert served.predictor is not before


def test_an_exported_file_is_served_and_taken_up_when_it_is_replaced(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "colours.onnx")
    service = Service(Models([file], LoadOptions()), ServiceLimits(max_bytes=1_000_000, max_waiting=8))
    app = make_app(service, token=None, note=lambda _: None)
    blue = io.BytesIO()
    Image.new("RGB", (30, 20), "blue").save(blue, "PNG")
    png = {"content-type": "image/png"}
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/predict", content=blue.getvalue(), headers=png).json()[0]["label"] == "blue"
        assert client.post("/predict?model=colours", content=blue.getvalue(), headers=png).status_code == 200
        heat = client.post("/explain", content=blue.getvalue(), headers=png)
        assert (heat.status_code, "takes the model folder" in heat.text) == (422, True)
        (served,) = service.models
        save_onnx(tmp_path / "new.onnx", classes=["rouge", "vert", "bleu"]).replace(file)
        assert "is served from now on" in str(served.refresh())
        assert client.post("/predict", content=blue.getvalue(), headers=png).json()[0]["label"] == "bleu"
