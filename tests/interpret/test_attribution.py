"""Where a classifier looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from commands import command
from PIL import Image
from tlkit_catsdogs.drawn.world import draw
from torch import nn

import tlkit
from tlkit.data.loader import normalize
from tlkit.errors import DataError
from tlkit.inference.predictor import Predictor
from tlkit.interpret.attribution import explain, grad_cam, last_map
from tlkit.model.classifier import Classifier
from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess
from tlkit.parts.timm_backbone import from_timm


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.jpg"
    path.write_bytes(draw("street", 1, 4))
    return path


def predictor(name: str, size: int, **arguments: object) -> Predictor:
    """An untrained network of timm's with a linear head for two classes."""
    torch.manual_seed(3)
    preprocess = Preprocess(size=size, resize="squash")
    backbone = from_timm(timm.create_model(name, **arguments), features="pooled", preprocess=preprocess)
    return Predictor(Classifier(backbone, nn.Linear(backbone.feature_shape[0], 2)), preprocess, ("a", "b"))


def test_an_image_is_never_written_over(fitted: Path, tmp_path: Path) -> None:
    image = tmp_path / "cat.png"
    Image.new("RGB", (64, 64)).save(image)
    before = image.read_bytes()
    done = command("explain", fitted, image, "--out", tmp_path)
    assert done.returncode == 2
    assert "cat.png is one of the images: name another folder with --out" in done.stderr
    assert image.read_bytes() == before


def test_grad_cam_is_captum_s_own() -> None:
    torch.manual_seed(3)
    net = timm.create_model("resnet18", num_classes=5).eval()
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    due = LayerGradCam(net, net.layer4).attribute(images, target=2, relu_attributions=True)
    large = nn.functional.interpolate(due, size=(96, 96), mode="bicubic").clamp_min(0)[0, 0].detach()
    found = grad_cam(net, net.layer4, images, 2)
    assert float(large.max()) > 0
    assert found == pytest.approx((large / large.max()).numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "module"), [("resnet18", "layer4"), ("vgg11", "features"), ("convnext_atto", "norm_pre")]
)
def test_grad_cam_is_taken_of_the_last_map(name: str, module: str) -> None:
    made = predictor(name, 64)
    layer, logits = last_map(made.module, torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, 2)
    assert layer is not None
    names = {each: key for key, each in made.module.backbone.named_modules()}
    assert names[layer].startswith(module)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}),
    ],
)
def test_networks_without_a_map_are_explained_by_integrated_gradients(
    name: str, arguments: dict[str, object], image: Path
) -> None:
    found = explain(predictor(name, 64, **arguments), image)
    assert found.method == "integrated gradients"
    assert found.heat.shape == (64, 64)
    assert found.heat.max() == pytest.approx(1) and found.heat.min() >= 0


def test_it_looks_at_what_decides() -> None:
    """A network that only sees red, and an image with one red spot."""

    class Red(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 8, 8, bias=False)
            self.conv.weight.data.copy_(torch.tensor([1.0, -0.5, -0.5]).view(1, 3, 1, 1).expand(1, 3, 8, 8))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.conv(images).relu()

    preprocess = Preprocess(size=64)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    head[2].weight.data.copy_(torch.tensor([[-1.0], [1.0]]))
    made = Predictor(Classifier(Backbone(Red(), preprocess), head), preprocess, ("grey", "red"))
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[40:48, 8:16] = (250, 10, 10)
    found = explain(made, pixels, label="red")
    assert (found.label, found.method) == ("red", "Grad-CAM")
    row, column = np.unravel_index(found.heat.argmax(), found.heat.shape)
    assert 36 <= row < 52 and 4 <= column < 20
    assert found.heat[:30].max() < 0.1
    assert found.overlay().shape == (64, 64, 3)


def test_it_gives_the_probability_that_predict_gives(fitted: Path, image: Path) -> None:
    made = tlkit.load(fitted)
    labels, probabilities = made.predict([image])
    found = explain(made, image)
    assert found.label == labels[0]
    assert found.probability == pytest.approx(probabilities.max(), abs=1e-6)
    assert found.pixels.tolist() == made.preprocess(Image.open(image)).tolist()
    other = next(name for name in made.classes if name != found.label)
    assert explain(made, image, label=other).probability == pytest.approx(probabilities.min(), abs=1e-6)
    assert normalize(found.pixels[None], made.preprocess).shape == (1, 3, 128, 128)


def test_the_command(fitted: Path, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "again" / "cat.jpg"
    other.parent.mkdir()
    other.write_bytes(draw("street", 1, 5))
    done = command("explain", fitted, image, other, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["cat-2.png", "cat.png"]
    with Image.open(files[0]) as picture:
        assert picture.size == (128, 128)
    assert "Grad-CAM for" in done.stdout


def test_bad_input(fitted: Path, image: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no class 'dgo' \(did you mean 'dog'\?\)"):
        explain(tlkit.load(fitted), image, label="dgo")
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    done = command("explain", fitted, text, image, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "text.jpg: not an image" in done.stderr
    assert (tmp_path / "out" / "cat.png").is_file()
    assert command("explain", fitted, image, "--class", "dgo", "--out", tmp_path / "o").returncode == 2
