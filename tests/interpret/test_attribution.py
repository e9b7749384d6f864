"""Attribution: where a classifier looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from commands import command
from networks import REGISTRY, tiny
from PIL import Image
from tlkit_catsdogs.drawn.world import draw
from torch import nn

import tlkit
from tlkit.builtin.probe import Probe
from tlkit.data.loader import normalize
from tlkit.errors import DataError
from tlkit.inference.predictor import Predictor
from tlkit.interpret.attribution import Attribution, explain, grad_cam, last_feature_map
from tlkit.interpret.png import CAPTIONED_WIDTH, FONT_SIZE, with_caption
from tlkit.model.classifier import Classifier
from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess
from tlkit.parts.timm_backbone import from_timm
from tlkit.utils.kernel import hellinger


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.jpg"
    path.write_bytes(draw("street", 1, 4))
    return path


def make_predictor(name: str, size: int, **arguments: object) -> Predictor:
    """Returns an untrained timm network with a linear head for two classes."""
    torch.manual_seed(3)
    preprocess = Preprocess(size=size, resize="squash")
    backbone = from_timm(timm.create_model(name, **arguments), features="pooled", preprocess=preprocess)
    classifier = Classifier(backbone, nn.Linear(backbone.feature_shape[0], 2))
    return Predictor(classifier, preprocess, ("a", "b"), device="cpu")


def test_an_image_is_never_overwritten(fitted: Path, tmp_path: Path) -> None:
    image = tmp_path / "cat.png"
    Image.new("RGB", (64, 64)).save(image)
    before = image.read_bytes()
    result = command("explain", fitted, image, "--out", tmp_path)
    assert result.returncode == 2
    assert "cat.png is one of the images: name another folder with --out" in result.stderr
    assert image.read_bytes() == before


def test_grad_cam_is_captums() -> None:
    torch.manual_seed(3)
    network = timm.create_model("resnet18", num_classes=5).eval()
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    cam = LayerGradCam(network, network.layer4).attribute(images, target=2, relu_attributions=True)
    enlarged = nn.functional.interpolate(cam, size=(96, 96), mode="bicubic").clamp_min(0)[0, 0].detach()
    heat = grad_cam(network, network.layer4, images, 2)
    assert float(enlarged.max()) > 0
    assert heat == pytest.approx((enlarged / enlarged.max()).numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "module"),
    [
        ("resnet18", {}, "layer4"),
        ("vgg11", {"mlp_ratio": 0.01}, "features"),
        ("convnext_atto", {}, "norm_pre"),
    ],
)
def test_grad_cam_uses_the_final_feature_map(name: str, arguments: dict[str, object], module: str) -> None:
    predictor = make_predictor(name, 64, **arguments)
    layer, logits = last_feature_map(predictor.module, torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, 2)
    assert layer is not None
    names = {submodule: path for path, submodule in predictor.module.backbone.named_modules()}
    assert names[layer].startswith(module)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2}),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1)}),
    ],
)
def test_networks_without_feature_maps_are_explained_by_integrated_gradients(
    name: str, arguments: dict[str, object], image: Path
) -> None:
    attribution = explain(make_predictor(name, 64, **arguments), image)
    assert attribution.method == "integrated gradients"
    assert attribution.heat.shape == (64, 64)
    assert attribution.heat.max() == pytest.approx(1) and attribution.heat.min() >= 0


def test_it_looks_at_the_part_that_decides() -> None:
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
    predictor = Predictor(Classifier(Backbone(Red(), preprocess), head), preprocess, ("grey", "red"))
    pixels = np.full((64, 64, 3), 90, np.uint8)
    pixels[40:48, 8:16] = (250, 10, 10)
    attribution = explain(predictor, pixels, label="red")
    assert (attribution.label, attribution.method) == ("red", "Grad-CAM")
    row, column = np.unravel_index(attribution.heat.argmax(), attribution.heat.shape)
    assert 36 <= row < 52 and 4 <= column < 20
    assert attribution.heat[:30].max() < 0.1
    assert attribution.overlay().shape == (64, 64, 3)


def test_a_probe_with_a_kernel_is_explained(weights: Path, by_class: Path) -> None:
    """Real features are 0 in many places, where a square root has no gradient."""
    backbone = REGISTRY.make("backbone", f"local-dir:{weights}", {})
    probe = Probe(backbone.feature_shape, 2, kernel=True)
    predictor = Predictor(Classifier(backbone, probe), backbone.preprocess, ("cat", "dog"), device="cpu")
    images = [by_class / kind / f"{number}.jpg" for kind in ("cat", "dog") for number in (1, 2, 3)]
    probe.support = hellinger(torch.from_numpy(predictor.features(images)))
    assert (probe.support == 0).any()
    probe.coefficients = torch.tensor([[1.0] * 3 + [-1.0] * 3, [-1.0] * 3 + [1.0] * 3])
    probe.offset, probe.precision = torch.zeros(2), torch.tensor(1.0)
    for image in images:
        attribution = explain(predictor, image)
        assert attribution.method == "Grad-CAM"
        assert attribution.heat.max() == 1


def test_gradients_that_are_not_finite_are_said(image: Path) -> None:
    class Root(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return (features.mean((2, 3)) * 0).sqrt()[:, :2]

    backbone = tiny(nn.Conv2d(3, 4, 3))
    predictor = Predictor(Classifier(backbone, Root()), backbone.preprocess, ("a", "b"))
    with pytest.raises(DataError, match="gradients are not finite"):
        explain(predictor, image)


def test_the_probability_is_the_one_that_predict_returns(fitted: Path, image: Path) -> None:
    predictor = tlkit.load(fitted)
    labels, probabilities = predictor.predict([image])
    attribution = explain(predictor, image)
    assert attribution.label == labels[0]
    assert attribution.probability == pytest.approx(probabilities.max(), abs=1e-6)
    assert attribution.pixels.tolist() == predictor.preprocess(Image.open(image)).tolist()
    other = next(name for name in predictor.classes if name != attribution.label)
    assert explain(predictor, image, label=other).probability == pytest.approx(probabilities.min(), abs=1e-6)
    assert normalize(attribution.pixels[None], predictor.preprocess).shape == (1, 3, 128, 128)


def test_a_caption_says_that_nothing_contributes() -> None:
    pixels, heat = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32)
    blank = Attribution(pixels, heat, "cat", 0.9, "Grad-CAM")
    assert blank.is_blank and blank.caption() == "cat 90.0%\nGrad-CAM: no part of the image contributes"
    seen = Attribution(pixels, heat + 1, "cat", 0.9, "Grad-CAM")
    assert not seen.is_blank and seen.caption() == "cat 90.0%\nGrad-CAM"


def test_the_command(fitted: Path, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "again" / "cat.jpg"
    other.parent.mkdir()
    other.write_bytes(draw("street", 1, 5))
    result = command("explain", fitted, image, other, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    files = [tmp_path / "out" / folder / "cat.png" for folder in ("again", tmp_path.name)]
    assert sorted((tmp_path / "out").rglob("*.png")) == sorted(files)
    with Image.open(files[0]) as picture:
        # the map, and its class, probability, method and file below it
        assert picture.width > 128 < picture.height
        caption = np.asarray(picture.convert("L"))[128:]
    assert (caption[:, :100] < 100).sum() > 100
    assert "Grad-CAM for" in result.stdout and f"in {other}" in result.stdout
    folder = command(
        "explain", fitted, other.parent, tmp_path / "again" / "*.jpg", "--out", tmp_path / "more"
    )
    assert [file.name for file in sorted((tmp_path / "more").iterdir())] == ["cat-2.png", "cat.png"]
    assert folder.returncode == 0


def test_long_class_names_are_wrapped() -> None:
    picture = with_caption(np.zeros((40, 40, 3), np.uint8), f"{'a long name ' * 5}\nGrad-CAM")
    assert picture.shape[1] == CAPTIONED_WIDTH
    assert picture.shape[0] > 40 + 4 * FONT_SIZE
    assert (picture[:, -2:] == 255).all()


def test_bad_input(fitted: Path, image: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no class 'dgo' \(did you mean 'dog'\?\)"):
        explain(tlkit.load(fitted), image, label="dgo")
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    result = command("explain", fitted, text, image, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "text.jpg: not an image" in result.stderr
    assert (tmp_path / "out" / "cat.png").is_file()
    assert command("explain", fitted, image, "--class", "dgo", "--out", tmp_path / "o").returncode == 2
