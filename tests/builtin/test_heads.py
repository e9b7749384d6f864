"""The built-in heads: from features of any shape to logits."""

from __future__ import annotations

import pytest
import torch
from networks import REGISTRY
from torch import nn

from tlkit.errors import PluginError
from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess


class Constant(nn.Module):
    """Returns the same features of a given shape for every image."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features.expand(images.shape[0], *self.features.shape)


@pytest.mark.parametrize("shape", [(8, 5, 5), (7, 8), (8,)])
@pytest.mark.parametrize(
    ("name", "options"),
    [("linear", {}), ("mlp", {"hidden": 6}), ("mlp", {"hidden": 6, "pool": "average"})],
)
def test_every_feature_shape(shape: tuple[int, ...], name: str, options: dict[str, object]) -> None:
    backbone = Backbone(Constant(shape), Preprocess(size=32))
    head = REGISTRY.make("head", name, options, backbone, ["a", "b", "c"])
    logits = head(backbone.module(torch.zeros(4, 3, 32, 32)))
    assert logits.shape == (4, 3)
    logits.sum().backward()
    assert all(value.grad is not None for value in head.parameters())


def test_the_experiments_head_has_the_experiments_size() -> None:
    backbone = Backbone(Constant((512, 9, 9)), Preprocess(size=32))
    head = REGISTRY.make("head", "mlp", {"hidden": 256}, backbone, ["cat", "dog"])
    assert sum(value.numel() for value in head.parameters()) == 512 * 81 * 256 + 256 + 256 * 2 + 2


def make_groups(**options: object) -> nn.Module:
    backbone = Backbone(Constant((8,)), Preprocess(size=32), classifier=nn.Linear(8, 10))
    head: nn.Module = REGISTRY.make("head", "class-groups", options, backbone, ["cat", "dog"])
    return head


def test_groups_add_the_pretrained_probabilities() -> None:
    torch.manual_seed(0)
    classifier = nn.Linear(8, 10)
    backbone = Backbone(Constant((8,)), Preprocess(size=32), classifier=classifier)
    options = {"groups": {"cat": "1-3", "dog": [0, 9]}}
    head = REGISTRY.make("head", "class-groups", options, backbone, ["cat", "dog"])
    features = torch.randn(5, 8)
    pretrained = classifier(features).softmax(1)
    cat, dog = pretrained[:, 1:4].sum(1), pretrained[:, [0, 9]].sum(1)
    torch.testing.assert_close(head(features).softmax(1)[:, 0], cat / (cat + dog))
    assert not list(head.parameters())  # nothing is trainable


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"cat": "1-3"}, "no group for dog"),
        ({"cat": "1", "dog": "2", "dug": "3"}, "did you mean 'dog'"),
        ({"cat": "1", "dog": "10"}, "0 to 9"),
        ({"cat": "1", "dog": "3-x"}, "neither an index nor a range"),
        ({"cat": "1", "dog": []}, "must name indices"),
    ],
)
def test_invalid_groups(groups: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        make_groups(groups=groups)


def test_groups_need_the_pretrained_layer_and_its_features() -> None:
    options = {"groups": {"cat": "1", "dog": "2"}}
    untrained = Backbone(Constant((8,)), Preprocess(size=32))
    with pytest.raises(PluginError, match="last layer"):
        REGISTRY.make("head", "class-groups", options, untrained, ["cat", "dog"])
    maps = Backbone(Constant((8, 5, 5)), Preprocess(size=32), classifier=nn.Linear(8, 10))
    with pytest.raises(PluginError, match="pooled"):
        REGISTRY.make("head", "class-groups", options, maps, ["cat", "dog"])
