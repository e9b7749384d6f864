"""Batch norms folded into convolutions: fewer layers, the same results."""

from __future__ import annotations

import pytest
import torch
from networks import REGISTRY, divided, tiny
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.model.partition import PartitionedClassifier


def pretrained(name: str, policy: str = "backbone", **options: object) -> PartitionedClassifier:
    """A network of timm's whose batch norms have something to do, divided."""
    torch.manual_seed(3)
    base = REGISTRY.make("backbone", name, {"weights": "none"})
    for layer in base.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    head = REGISTRY.make("head", "linear", {}, base, ["a", "b"])
    return divided(Classifier(base, head), policy, size=96, **options)[0]


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


# separate layers, timm's norm with activation, timm's own padding, networks without any
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv2_100", "tf_efficientnet_b0", "vgg11", "convnext_atto"]
)
def test_a_folded_network_computes_the_same_with_fewer_layers(name: str) -> None:
    split = pretrained(name)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = split.classifier.features(images)
    torch.testing.assert_close(split.prefix(images)[0], expected, rtol=1e-4, atol=1e-5)
    assert norms(split.frozen) == 0


def test_what_learns_keeps_its_batch_norms() -> None:
    split = pretrained("resnet18", "all-but-last-blocks", blocks=1)
    before = norms(split.classifier)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            split(*split.prefix(images)), split.classifier(images), rtol=1e-4, atol=1e-5
        )
    assert norms(split.classifier) == before


def test_layers_with_hooks_stay_as_they_are() -> None:
    split = pretrained("resnet18")
    heard = []
    layers = split.classifier.backbone.get_submodule
    layers("conv1").register_forward_hook(lambda *_: heard.append("convolution"))
    layers("layer1.0.bn1").register_forward_hook(lambda *_: heard.append("norm"))
    split.prefix(torch.zeros(2, 3, 96, 96))
    assert heard == ["convolution", "norm"]
    assert norms(split.frozen) == 2


class Shared(nn.Module):
    """Uses one convolution and norm in front of what learns, and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.norm(self.conv(self.last(self.norm(self.conv(images)))))
        return found


def test_a_layer_that_is_used_in_training_too() -> None:
    base = tiny(Shared())
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, _ = divided(network, "matching", size=32, learn=["backbone.last.*", "head.*"])
    assert split.boundaries
    split.train()
    assert split(*split.prefix(torch.randn(4, 3, 32, 32))).shape == (4, 2)


def test_weights_that_are_loaded_later_are_folded_anew() -> None:
    split = pretrained("resnet18")
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    split.prefix(images)
    with torch.no_grad():
        for parameter in split.classifier.backbone.parameters():
            parameter.mul_(1.1)
        split.refresh()
        expected = split.classifier.features(images)
    torch.testing.assert_close(split.prefix(images)[0], expected, rtol=1e-4, atol=1e-5)
