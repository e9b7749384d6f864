"""The detector of unknown images: wrong alarms, degenerate features, its file in a model folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_folders import change_config
from networks import REGISTRY, backbone
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlkit.errors import RunFolderError
from tlkit.model.classifier import Classifier, PredictionNetwork, average_positions
from tlkit.model.description import Calibration
from tlkit.model.saving import load_model, save_again, save_model
from tlkit.model.unknown import FILE, MIN_IMAGES, WRONG_ALARMS, fit_detector
from tlkit.utils.hashing import file_sha256

WIDTH = 512  # of resnet18's features


def draw(count: int, centre_seed: int, seed: int) -> Tensor:
    """Draws features around one of several places."""
    centre = torch.rand(WIDTH, generator=torch.Generator().manual_seed(1000 + centre_seed))
    noise = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    return (centre + 0.3 * noise).relu()


@pytest.mark.parametrize("count", [MIN_IMAGES, 60, 600])
def test_the_rate_of_wrong_alarms_is_the_stated_one(count: int) -> None:
    rates = []
    for seed in range(20):
        detector = fit_detector(draw(count, centre_seed=0, seed=seed))
        novelty = detector(draw(500, centre_seed=0, seed=100 + seed))
        rates.append(float((novelty > detector.threshold).float().mean()))
    mean = sum(rates) / len(rates)
    assert WRONG_ALARMS / 3 < mean < 1.5 * WRONG_ALARMS


def test_other_features_are_unknown() -> None:
    detector = fit_detector(torch.cat([draw(50, centre_seed=0, seed=0), draw(50, centre_seed=1, seed=1)]))
    assert (detector(draw(100, centre_seed=2, seed=2)) > detector.threshold).float().mean() > 0.95


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_equal_features_are_not_unknown(value: float) -> None:
    """A network that maps every image to the same features tells nothing, and raises no alarm either."""
    features = torch.full((30, WIDTH), value)
    detector = fit_detector(features)
    novelty = detector(features)
    assert novelty.isfinite().all()
    assert not (novelty > detector.threshold).any()


def test_features_of_maps_and_tokens_are_averaged() -> None:
    pooled = torch.randn(2, 5)
    assert torch.allclose(average_positions(pooled[:, :, None, None].expand(2, 5, 3, 4)), pooled)
    assert torch.allclose(average_positions(pooled[:, None].expand(2, 7, 5)), pooled)
    assert average_positions(pooled) is pooled


@pytest.mark.parametrize("mirror", [False, True])
def test_logits_and_novelty_come_from_one_pass(mirror: bool) -> None:
    base = backbone("residual")
    classifier = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"])).eval()
    network = PredictionNetwork(classifier, fit_detector(draw(30, 0, 0)), mirror=mirror).eval()
    images, passes = torch.randn(3, 3, 64, 64), []
    classifier.backbone.conv1.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        logits, novelty = network(images)
        views = [images, images.flip(3)] if mirror else [images]
        assert len(passes) == len(views)
        expected = sum(classifier(view) for view in views) / len(views)
    assert torch.allclose(logits, expected, atol=1e-6)
    assert novelty.shape == (3,)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with a detector."""
    base = backbone("residual")
    save_model(
        tmp_path / "model",
        Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"])).eval(),
        base,
        backbone_table={"name": "unused"},
        head_table={"name": "linear"},
        classes=["a", "b"],
        calibration=Calibration(temperature=1.0),
        unknown=fit_detector(draw(40, 0, 0)),
    )
    return tmp_path / "model"


def test_the_same_detector_comes_back(model: Path, tmp_path: Path) -> None:
    saved, expected = load_model(model, REGISTRY), fit_detector(draw(40, 0, 0))
    save_again(tmp_path / "again", saved)
    queries = draw(10, 1, 1)
    for folder in (model, tmp_path / "again"):
        detector = load_model(folder, REGISTRY).unknown
        assert detector is not None
        assert detector.threshold == expected.threshold
        assert torch.equal(detector(queries), expected(queries))
    assert (model / FILE).stat().st_size < 40 * (2 * WIDTH + 4) + 1000


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def rewritten(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """Returns a function that changes the file's tensors, and config.json with it."""

    def rewrite(path: Path) -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)
        checksum = file_sha256(path)
        change_config(path.parent, lambda config: config["tlkit"]["unknown"].update(sha256=checksum))

    return rewrite


def set_threshold(value: object) -> Callable[[Path], None]:
    return lambda path: change_config(
        path.parent, lambda config: config["tlkit"]["unknown"].update(threshold=value)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Path.unlink, r"is incomplete: it has no unknown\.safetensors"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), r"unknown\.safetensors cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0" * 10**7), "this network's has at most"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), r"is not the file that config\.json"),
        (pipe, "cannot be read: it is not a regular file"),
        (rewritten(lambda state: state.pop("offsets")), "does not belong to a network with 512 features"),
        (
            rewritten(lambda state: state.update(features=torch.zeros(40, 7).half())),
            "does not belong to a network with 512 features",
        ),
        (
            rewritten(lambda state: state.update(features=torch.zeros(0, WIDTH), offsets=torch.zeros(0))),
            "does not belong to a network with 512 features",
        ),
        (rewritten(lambda state: state["offsets"].fill_(torch.nan)), "offsets that are not finite numbers"),
        (
            rewritten(lambda state: state.update(features=torch.zeros(40, WIDTH, dtype=torch.int16))),
            "features that are not finite numbers",
        ),
        (set_threshold(float("nan")), r"tlkit\.unknown\.threshold"),
        (set_threshold(1e9), r"tlkit\.unknown\.threshold"),
    ],
)
def test_files_of_strangers(change: Callable[[Path], object], message: str, model: Path) -> None:
    change(model / FILE)
    with pytest.raises(RunFolderError, match=message) as caught:
        load_model(model, REGISTRY)
    assert str(model) in str(caught.value)


def test_a_model_may_have_none(model: Path) -> None:
    change_config(model, lambda config: config["tlkit"].pop("unknown"))
    assert load_model(model, REGISTRY).unknown is None
    assert "unknown" not in json.loads((model / "config.json").read_text())["tlkit"]
