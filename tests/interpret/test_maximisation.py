"""Activation maximisation: what layers respond to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import command
from networks import classifier
from PIL import Image

import tlkit
from tlkit.errors import DataError
from tlkit.interpret.layers import find_layer, parse_channels, representative_layers
from tlkit.interpret.maximisation import REGULARIZATIONS, Regularization, maximize
from tlkit.parts.preprocess import Preprocess


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_the_activation_rises_by_a_factor(regularization: Regularization, fitted: Path) -> None:
    predictor = tlkit.load(fitted)
    layer = representative_layers(predictor.module)[1]
    channels = [0, 3, 9]
    first, second = (
        maximize(
            predictor.module,
            predictor.preprocess,
            layer,
            channels,
            regularization=regularization,
            size=64,
            steps=24,
        )
        for _ in range(2)
    )
    assert first.images.shape == (3, 64, 64, 3) and first.images.dtype == np.uint8
    rise = (first.after - first.before) / np.abs(first.before).clip(1e-3)
    assert (rise > 1).all(), "each is more than twice as active"
    assert (second.images == first.images).all()


def test_regularised_images_are_smoother(fitted: Path) -> None:
    predictor = tlkit.load(fitted)
    layer = representative_layers(predictor.module)[1]
    images = {
        regularization: maximize(
            predictor.module,
            predictor.preprocess,
            layer,
            [0, 3],
            regularization=regularization,
            size=64,
            steps=24,
        ).images
        for regularization in REGULARIZATIONS
    }
    roughness = {
        name: np.abs(np.diff(pixels.astype(float), axis=2)).mean() for name, pixels in images.items()
    }
    spread = {name: pixels.std() for name, pixels in images.items()}
    assert roughness["blur"] < roughness["none"]
    assert spread["l2"] < spread["none"]


@pytest.mark.parametrize("kind", ["residual", "transformer"])
def test_layers_of_other_networks(kind: str) -> None:
    network = classifier(kind).eval()
    names = representative_layers(network)
    assert len(names) == 3
    for name in names:
        maximized = maximize(network, Preprocess(size=64), name, [0, 1], steps=4)
        assert (maximized.after > maximized.before).all()


def test_bad_input(fitted: Path) -> None:
    predictor = tlkit.load(fitted)
    layer = representative_layers(predictor.module)[0]
    with pytest.raises(DataError, match="did you mean"):
        maximize(predictor.module, predictor.preprocess, f"{layer}x", [0])
    with pytest.raises(DataError, match="is neither a convolution nor a linear layer"):
        maximize(predictor.module, predictor.preprocess, "features", [0])
    with pytest.raises(DataError, match="has channels 0 to 15, not 16, 99"):
        maximize(predictor.module, predictor.preprocess, layer, [0, 16, 99])
    with pytest.raises(DataError, match=r"write them as 0,7,30-33"):
        parse_channels(find_layer(predictor.module, layer), "a-b")
    transformer = classifier("transformer").eval()
    with pytest.raises(DataError, match="does not accept 48x48 images"):
        maximize(transformer, Preprocess(size=64), representative_layers(transformer)[0], [0], size=48)


def test_channels_are_chosen_by_number(fitted: Path) -> None:
    network = tlkit.load(fitted).module
    layer = find_layer(network, representative_layers(network)[0])
    assert parse_channels(layer, "0,7,10-12") == [0, 7, 10, 11, 12]
    assert parse_channels(layer, None) == [0, 4, 8, 12]
    name = representative_layers(network)[0]
    for channels in (7, "7", [7]):
        (maximized,) = tlkit.visualize(fitted, name, channels=channels, steps=1, size=32)
        assert maximized.channels == (7,)
    with pytest.raises(DataError, match="has channels 0 to 15, not 99"):
        tlkit.visualize(fitted, name, channels=99, steps=1, size=32)


def test_the_command(fitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = command("visualize", fitted, "--channels", "0,1", "--steps", 2, "--size", 32, "--out", out)
    assert result.returncode == 0, result.stderr
    files = list(out.iterdir())
    assert len(files) == 3
    with Image.open(files[0]) as picture:
        assert picture.size == (64, 32)
    assert "mean activation of channel 0: " in result.stdout
    wrong = command("visualize", fitted, "--layer", "nowhere", "--out", out)
    assert wrong.returncode == 2
    assert "layer 'nowhere' of the backbone does not exist" in wrong.stderr
