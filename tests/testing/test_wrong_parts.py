"""Parts that are wrong on purpose: the contract suite finds each mistake, and says how to fix it."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from installing import install
from PIL import Image
from torch import Tensor, nn

import tlkit
from tlkit.errors import PluginError
from tlkit.parts.backbone import Backbone, Block
from tlkit.parts.preprocess import Preprocess
from tlkit.parts.source import Sample, Source
from tlkit.testing import (
    check_augmentation,
    check_backbone,
    check_freeze_policy,
    check_head,
    check_loss,
    check_source,
    results,
)

WIDTHS = itertools.count(4)


class Network(nn.Module):
    """Two convolutions; each wrong network differs from it in one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.second = nn.Conv2d(4, 8, 3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images).relu()).relu()


def backbone(network: nn.Module, **fields: Any) -> Backbone:
    return Backbone(network, Preprocess(size=32), **fields)


def correct() -> Backbone:
    """A backbone without mistakes."""
    return backbone(Network())


def misses_a_parameter() -> Backbone:
    blocks = [Block("first", ("first.weight", "first.bias")), Block("second", ("second.weight",))]
    return backbone(Network(), grouping=blocks)


def lists_blocks_backwards() -> Backbone:
    names = ("second", "first")
    return backbone(Network(), grouping=[Block(name, (f"{name}.weight", f"{name}.bias")) for name in names])


def uses_batch_statistics() -> Backbone:
    class Centred(Network):
        def forward(self, images: Tensor) -> Tensor:
            maps = super().forward(images)
            return maps - maps.mean(0, keepdim=True)

    return backbone(Centred())


def counts_in_evaluation() -> Backbone:
    class Counting(Network):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            self.seen += len(images)
            return super().forward(images)

    return backbone(Counting())


def declares_another_shape() -> Backbone:
    class Declared(Backbone):
        @property
        def feature_shape(self) -> tuple[int, ...]:  # type: ignore[override]
            return (8, 9, 9)

    return Declared(Network(), Preprocess(size=32))


def draws_in_evaluation() -> Backbone:
    class Noisy(Network):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.dropout(super().forward(images), 0.5)

    return backbone(Noisy())


def leaves_a_tensor_behind() -> Backbone:
    class Scaled(Network):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.tensor(2.0)

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images * self.scale)

    return backbone(Scaled())


def forgets_its_weights() -> Backbone:
    class Forgetful(Network):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.rand(1) + 1, persistent=False)

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * self.scale

    return backbone(Forgetful())


def normalizes_in_255() -> Backbone:
    return Backbone(Network(), Preprocess(size=32, mean=(123.7, 116.3, 103.5)))


def takes_options_by_position(width: int = 4) -> Backbone:
    return backbone(Network())


def stops_the_gradient() -> Backbone:
    class Cut(Network):
        def forward(self, images: Tensor) -> Tensor:
            return self.second(self.first(images).relu().detach()).relu()

    return backbone(Cut())


def is_built_at_random() -> Backbone:
    width = next(WIDTHS)
    return backbone(nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU()))


def calls_a_missing_module() -> Backbone:
    class Broken(Network):
        def forward(self, images: Tensor) -> Tensor:
            return self.third(images)

    return backbone(Broken())


def has_another_networks_classifier() -> Backbone:
    class Pooled(Network):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).mean((2, 3))

    return backbone(Pooled(), classifier=nn.Linear(16, 10))


BACKBONES: list[tuple[Callable[..., Backbone], list[str]]] = [
    (
        misses_a_parameter,
        [
            "blocks cover every parameter once: expected each of 4 parameters in exactly one block; got "
            "second.bias: in no block; to fix: give Backbone(grouping=…) every name of "
            "module.named_parameters()"
        ],
    ),
    (
        lists_blocks_backwards,
        ["block 'first', listed after 'second', is used before it", "from input to output"],
    ),
    (
        uses_batch_statistics,
        [
            "images are independent: expected the same features for an image alone and in any batch",
            "track_running_stats",
        ],
    ),
    (
        counts_in_evaluation,
        [
            "evaluation changes no state: expected no change of state in a forward pass in evaluation mode; "
            "got changes of seen; to fix: change buffers only where self.training is true",
            "frozen parameters do not change: expected only the last block and the head to change in a "
            "training step, everything else to stay bit-identical; got changes of backbone.seen",
        ],
    ),
    (
        declares_another_shape,
        [
            "feature shapes agree: expected features of shape (1, 8, 9, 9), as feature_shape declares for 1 "
            "image of 32 px; got (1, 8, 7, 7); to fix: declare the shape that the network returns"
        ],
    ),
    (
        has_another_networks_classifier,
        ["expected a classifier for 8 features, as feature_shape says; got one for 16"],
    ),
    (draws_in_evaluation, ["features repeat: expected the same features", "where self.training is true"]),
    (
        leaves_a_tensor_behind,
        ["got scale on the old device; to fix: make it a buffer: self.register_buffer("],
    ),
    (forgets_its_weights, ["a model folder restores it: expected the same weights", "persistent=True"]),
    (normalizes_in_255, ["expected three numbers from 0 to 1 as mean", "by 255: Preprocess(mean=…)"]),
    (
        takes_options_by_position,
        ["width as positional arguments, which a recipe cannot set", "put a * in front", "(*, width)"],
    ),
    (
        stops_the_gradient,
        [
            "gradients reach every block: expected gradients in every block when nothing is frozen; got none "
            "in first"
        ],
    ),
    (is_built_at_random, ["expected a second network with the same parameters", "Backbone(blueprint=…)"]),
    (
        calls_a_missing_module,
        ["AttributeError: 'Broken' object has no attribute 'third' in test_wrong_parts.py, line "],
    ),
]


def test_a_correct_backbone_passes() -> None:
    outcomes = {result.outcome for result in check_backbone(correct)}
    assert outcomes == {"passed"}


@pytest.mark.parametrize(("factory", "fragments"), BACKBONES, ids=[row[0].__name__ for row in BACKBONES])
def test_wrong_backbones(factory: Callable[..., Backbone], fragments: list[str]) -> None:
    with pytest.raises(AssertionError) as failed:
        check_backbone(factory)
    text = str(failed.value)
    assert text.startswith(f"backbone '{factory.__name__}' fails ")
    for fragment in fragments:
        assert fragment in text


class Draws(A.ImageOnlyTransform):
    """Adds one number, drawn by a function, to all of an image's pixels."""

    def __init__(self, draw: Callable[[Any], int]) -> None:
        super().__init__(p=1.0)
        self.draw = draw

    def apply(self, img: Any, **params: Any) -> Any:
        return (img // 2 + self.draw(self)).astype(np.uint8)


def with_steps(*steps: Any) -> Callable[[Preprocess], Any]:
    def factory(preprocess: Preprocess) -> Any:
        return A.Compose([A.Resize(preprocess.size, preprocess.size), *steps])

    return factory


class OfTheProcess:
    """Draws from torch's global generator, as transforms of torchvision do."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.size = preprocess.size

    def set_random_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def __call__(self, *, image: Any) -> dict[str, Any]:
        resized = np.asarray(Image.fromarray(image).resize((self.size, self.size)))
        return {"image": resized // 2 + np.uint8(torch.randint(100, ()).item())}


@pytest.mark.parametrize(
    ("factory", "fragment"),
    [
        (OfTheProcess, "threads do not disturb each other: expected the same pixels in 4 threads at once"),
        (
            with_steps(A.HorizontalFlip(), A.ToFloat(max_value=255)),
            "got float32 (32, 32, 3); to fix: return pixels",
        ),
        (with_steps(Draws(lambda _: 100)), "got the same image from all of them; to fix: draw in every call"),
        (
            with_steps(Draws(lambda _: int(np.random.randint(100)))),
            "expected the same pixels when seed 0 is drawn again; got 1024 different pixels; to fix: draw "
            "from the albumentations transform's own generators",
        ),
        (
            lambda preprocess: A.Compose([A.HorizontalFlip()]),
            "expected uint8 pixels of shape (32, 32, 3) from an image 64",
        ),
        (lambda preprocess: lambda image: image, "must return an albumentations.Compose"),
    ],
)
def test_wrong_augmentations(factory: Callable[..., Any], fragment: str) -> None:
    with pytest.raises(AssertionError) as failed:
        check_augmentation(factory)
    assert fragment in str(failed.value)


def test_a_step_that_draws_but_declares_to_be_fixed() -> None:
    class Flip(A.HorizontalFlip):
        fixed = True

    with pytest.raises(AssertionError) as failed:
        check_augmentation(lambda preprocess: A.Compose([Flip(p=0.5), *with_steps()(preprocess).transforms]))
    message = "expected the same pixels from Flip, which declares fixed = True; got different pixels"
    assert message in str(failed.value)


def test_a_step_that_modifies_cached_pixels() -> None:
    class Small(A.Resize):
        fixed = True

    class Brighter(A.ImageOnlyTransform):
        def apply(self, img: Any, **params: Any) -> Any:
            img //= 2
            img += self.py_random.randrange(100)
            return img

    with pytest.raises(AssertionError) as failed:
        check_augmentation(
            lambda preprocess: A.Compose([Small(preprocess.size, preprocess.size), Brighter(p=1)])
        )
    assert "expected the output of its fixed steps to stay unchanged; got " in str(failed.value)


def test_wrong_heads() -> None:
    class Idle(nn.Module):
        def __init__(self, width: int, classes: int) -> None:
            super().__init__()
            self.fc, self.idle = nn.Linear(width, classes), nn.Linear(width, classes)

        def forward(self, features: Tensor) -> Tensor:
            return self.fc(features.flatten(1))

    def idle(shape: tuple[int, ...], classes: int) -> nn.Module:
        return Idle(torch.Size(shape).numel(), classes)

    with pytest.raises(AssertionError) as failed:
        check_head(lambda backbone, classes: idle(backbone.feature_shape, len(classes)))
    assert "got none for idle.weight, idle.bias; to fix: use it in forward" in str(failed.value)
    with pytest.raises(AssertionError) as failed:
        check_head(lambda backbone, classes: idle(backbone.feature_shape, 1))
    message = "expected finite logits of shape (1, 3) from features of shape (1, 16); got (1, 1)"
    assert message in str(failed.value)

    class Probable(nn.Module):
        def __init__(self, width: int, classes: int) -> None:
            super().__init__()
            self.fc = nn.Linear(width, classes)

        def forward(self, features: Tensor) -> Tensor:
            return self.fc(features.flatten(1)).softmax(1)

    with pytest.raises(AssertionError) as failed:
        check_head(
            lambda backbone, classes: Probable(torch.Size(backbone.feature_shape).numel(), len(classes))
        )
    message = "logits are no probabilities: expected logits without limits from 100 times the usual features"
    assert message in str(failed.value)

    class Drawn(nn.Linear):
        def __init__(self, width: int, classes: int) -> None:
            super().__init__(8, classes)
            self.basis = torch.randn(width, 8)

        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features @ self.basis)

    def drawn(backbone: Backbone, classes: list[str]) -> nn.Module:
        if len(backbone.feature_shape) != 1:
            raise PluginError("pooled features only")
        return Drawn(backbone.feature_shape[0], len(classes))

    with pytest.raises(AssertionError, match="its state can be loaded: expected the same logits"):
        check_head(drawn)


def test_correct_parts_that_look_wrong() -> None:
    def starts_at_zero(backbone: Backbone, classes: list[str]) -> nn.Module:
        last = nn.Linear(8, len(classes))
        nn.init.zeros_(last.weight)
        width = torch.Size(backbone.feature_shape).numel()
        return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), last)

    check_head(starts_at_zero)
    collected = check_augmentation(with_steps(A.HorizontalFlip(p=0.03)))
    assert re.fullmatch(r"2 different images from \d+ seeds", collected[-2].message)


def test_wrong_losses() -> None:
    entropy = nn.functional.cross_entropy

    def made(loss: Any) -> Callable[..., Any]:
        return lambda classes, counts: loss

    with pytest.raises(AssertionError, match=r"finite losses of shape \(1,\).*; got \(\); to fix: return"):
        check_loss(made(entropy))
    with pytest.raises(AssertionError, match="images are independent: expected the same loss"):
        check_loss(made(lambda logits, labels: entropy(logits - logits.mean(0), labels, reduction="none")))
    with pytest.raises(AssertionError, match="better predictions cost less: expected a lower loss"):
        check_loss(made(lambda logits, labels: 9 - entropy(logits, labels, reduction="none")))
    with pytest.raises(AssertionError, match=r"gradients are finite: .* where a logit is 60 larger"):
        probability = lambda logits, labels: logits.softmax(1).gather(1, labels[:, None])[:, 0]  # noqa: E731
        check_loss(made(lambda logits, labels: (1 - probability(logits, labels)) ** 0.5))

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return entropy(self.scale * logits, labels, reduction="none")

    with pytest.raises(AssertionError, match="without trainable parameters; got scale"):
        check_loss(made(Scaled()))
    with pytest.raises(AssertionError, match="must return a function or a module; it returned float"):
        check_loss(made(1.0))


def test_wrong_freeze_policies() -> None:
    with pytest.raises(AssertionError) as failed:
        check_freeze_policy(lambda classifier: {"backbone.last.0.wieght"})
    assert (
        "every name is a parameter: expected names of the classifier's parameters, which begin with "
        "backbone. or head.; got backbone.last.0.wieght "
        "(did you mean 'backbone.last.0.weight'" in str(failed.value)
    )

    def freezes(classifier: nn.Module) -> set[str]:
        classifier.requires_grad_(False)
        return {"head.fc.weight"}

    advice = "to fix: only return names: tlkit freezes the parameters that are not among them"
    with pytest.raises(AssertionError, match=advice):
        check_freeze_policy(freezes)
    with pytest.raises(AssertionError, match="expected a set of parameter names; got list"):
        check_freeze_policy(lambda classifier: ["head.fc.weight"])
    with pytest.raises(AssertionError, match="got a set that contains Parameter"):
        check_freeze_policy(lambda classifier: set(classifier.parameters()))


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"id": "0.png"}, "ids are unique: expected a unique id for every image, which results name it by; "
                          "got 0.png more than once; to fix: use the path relative to the root"),
        ({"label": 2}, "expected labels from 0 to 1, indices into ('cat', 'dog'); got 2 for '3.png'"),
        ({"path": "0.png", "split": "test"}, "got '0.png' in train and in test; to fix: list every "
                                              "file once"),
        ({"path": "gone.png"}, "expected a file for every sample; got none for 3.png"),
        ({"split": None}, "expected a split for all labelled images, train and test among them, or for none; "
                          "got no split for 3.png; to fix: leave Sample(split=…) out"),
        ({"id": "/home/me/3.png"}, "expected ids that are the same on every machine; got absolute "
                                   "paths: /home/me/3.png"),
        ({"split": "tset"}, "expected one of the splits train, val, test, or None; got 'tset' for '3.png'"),
    ],
)  # fmt: skip
def test_wrong_sources(tmp_path: Path, change: dict[str, Any], fragment: str) -> None:
    for number in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")

    def source(root: Path) -> Source:
        fields = [
            {"id": f"{number}.png", "path": f"{number}.png", "label": number % 2}
            | {"split": "train" if number < 2 else "test"}
            for number in range(4)
        ]
        fields[3] |= change
        samples = [Sample(**{**values, "path": root / values["path"]}) for values in fields]
        return Source(("cat", "dog"), samples)

    with pytest.raises(AssertionError) as failed:
        check_source(source, tmp_path)
    assert fragment in str(failed.value)


def test_a_source_whose_classes_have_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one process a set has one order, so the source is made in another process too."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(16):
        Image.new("RGB", (8, 8)).save(images / f"{'abcdefgh'[number % 8]}{number}.png")
    code = (
        "import tlkit\n@tlkit.hookimpl\ndef tlkit_sources(register):\n    register('unordered', source)\n"
        "def source(root):\n    files = sorted(root.glob('*.png'))\n"
        "    classes = tuple({file.name[0] for file in files})\n"
        "    return tlkit.Source(classes, [\n"
        "        tlkit.Sample(f.name, f, classes.index(f.name[0])) for f in files])\n"
    )
    monkeypatch.syspath_prepend(install(tmp_path / "site", "unordered", code))
    with pytest.raises(AssertionError, match=r"expected the classes .* on a second call; got .* sort them"):
        check_source("unordered", images)


def test_a_source_that_differs_on_a_second_call(tmp_path: Path) -> None:
    calls: list[int] = []

    def source(root: Path | None) -> Source:
        calls.append(1)
        samples = [Sample(f"{len(calls)}-{number}", tmp_path, number) for number in range(2)]
        return Source(("cat", "dog"), samples, make=lambda sample: b"")

    with pytest.raises(AssertionError, match="expected the same 2 images in the same order on a second call"):
        check_source(source)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (lambda: bytes([next(WIDTHS)]), "got different bytes on the second call; to fix: draw from a gen"),
        (lambda: "text", "expected bytes from make for '0'; got str"),
    ],
)
def test_a_source_that_generates_wrong_images(content: Callable[[], Any], fragment: str) -> None:
    def source(root: Path | None) -> Source:
        samples = [Sample(str(label), Path(f"{label}.png"), label) for label in range(2)]
        return Source(("cat", "dog"), samples, make=lambda sample: content())

    with pytest.raises(AssertionError) as failed:
        check_source(source)
    assert fragment in str(failed.value)


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'heads' is not one of backbone, head"):
        results("heads", "linear")


def test_a_users_mistakes_are_not_failed_checks(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"no head is called 'lineer' .did you mean 'linear'"):
        check_head("lineer")
    with pytest.raises(PluginError, match=r"option 'hiden' is unknown .did you mean 'hidden'"):
        check_head("mlp", hiden=3)
    with pytest.raises(tlkit.TlkitError, match="does not exist"):
        check_source("folder", tmp_path / "nowhere")


def test_an_error_is_located_in_the_parts_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tlkit_night"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "layers.py").write_text(
        "from torch import nn\nclass Broken(nn.Module):\n"
        "    def forward(self, features):\n        return nn.functional.linear(features, self.weight)\n"
        "    weight = nn.Parameter(__import__('torch').zeros(3, 7))\n"
    )
    (package / "heads.py").write_text(
        "from tlkit_night.layers import Broken\ndef night(backbone, classes):\n    return Broken()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    factory = importlib.import_module("tlkit_night.heads").night
    with pytest.raises(AssertionError, match=r"in tlkit_night/layers\.py, line 4;"):
        check_head(factory)
