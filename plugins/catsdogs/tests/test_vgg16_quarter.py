"""The small pretrained VGG16: its architecture, its weights and their accuracy."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tlkit_catsdogs.drawn.kinds import STUDIO
from tlkit_catsdogs.drawn.world import draw
from tlkit_catsdogs.vgg16_quarter import STUDIO_KINDS, WEIGHTS, vgg16_quarter
from torch import nn

from tlkit import TlkitError, load_registry
from tlkit.data.loader import normalize

#: A seed of other images than the weights were trained on.
OTHER_SEED = 77


def test_thirteen_convolutions_at_a_quarter_of_the_width() -> None:
    backbone = vgg16_quarter(weights="none")
    convolutions = [module for module in backbone.module.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.out_channels for convolution in convolutions] == [
        16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128,
    ]  # fmt: skip
    assert len(backbone.blocks()) == 5
    assert backbone.feature_shape == (128, 4, 4)
    pooled = vgg16_quarter(weights="none", features="pooled")
    assert pooled.feature_shape == (128,)
    assert pooled.classifier is not None
    assert (pooled.classifier.in_features, pooled.classifier.out_features) == (128, STUDIO_KINDS)
    assert len(STUDIO) == STUDIO_KINDS


def test_the_weights_file() -> None:
    assert WEIGHTS.stat().st_size < 3_000_000
    with safe_open(WEIGHTS, "pt") as file:
        metadata = file.metadata()
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}
    assert dtypes == {torch.float16, torch.int64}
    assert metadata["classes"].split(", ") == [kind.name for kind in STUDIO]
    assert {
        "recipe",
        "seed",
        "seconds",
        "accuracy",
        "accuracy_ci95",
        "test_images",
        "versions",
    } <= metadata.keys()
    assert float(metadata["accuracy"]) > 0.9


def test_the_weights_classify_the_studio() -> None:
    backbone = vgg16_quarter(features="pooled")
    assert backbone.classifier is not None
    numbers = range(STUDIO_KINDS * 8)
    pixels = np.stack(
        [backbone.preprocess(Image.open(io.BytesIO(draw("studio", OTHER_SEED, n)))) for n in numbers]
    )
    with torch.inference_mode():
        features = backbone.module.eval()(normalize(pixels, backbone.preprocess))
        predicted = backbone.classifier(features).argmax(1)
    labels = torch.tensor([n % STUDIO_KINDS for n in numbers])
    assert (predicted == labels).float().mean() > 0.9


@pytest.mark.parametrize("features", ["pooled", "map"])
def test_weights_of_another_network_are_refused(features: str, weights: Path) -> None:
    options = {"features": features, "weights": weights / "model.safetensors"}
    with pytest.raises(TlkitError, match="another network's weights"):
        load_registry().make("backbone", "vgg16-quarter", options)
