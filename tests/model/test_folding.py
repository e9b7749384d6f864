"""Batch norms folded into convolutions: fewer layers, the same results."""

from __future__ import annotations

import pytest
import torch
from networks import REGISTRY, partitioned, tiny
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.model.folding import FoldedClassifier
from tlkit.model.partition import PartitionedClassifier
from tlkit.runtime.devices import Precision, compute_config


def with_random_norms(name: str, policy: str = "backbone", **options: object) -> PartitionedClassifier:
    """Returns a partitioned timm network whose batch norms are not the identity."""
    torch.manual_seed(3)
    # VGG's two layers of 4,096 units in front of the pooled features would dwarf the rest
    model_args = {"mlp_ratio": 0.01} if name == "vgg11" else {}
    base = REGISTRY.make("backbone", name, {"weights": "none", "model_args": model_args})
    for layer in base.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    head = REGISTRY.make("head", "linear", {}, base, ["a", "b"])
    network, _ = partitioned(Classifier(base, head), policy, size=96, **options)
    assert isinstance(network, PartitionedClassifier)
    return network


def count_norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


# separate layers, timm's norm with activation, timm's own padding, networks without any
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv2_100", "tf_efficientnet_b0", "vgg11", "convnext_atto"]
)
def test_a_folded_prefix_computes_the_same_with_fewer_layers(name: str) -> None:
    network = with_random_norms(name)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.classifier.features(images)
    torch.testing.assert_close(network.prefix(images)[0], expected, rtol=1e-4, atol=1e-5)
    assert count_norms(network.prefix_module) == 0


def test_batch_norms_of_the_classifier_are_not_removed() -> None:
    network = with_random_norms("resnet18", "all-but-last-blocks", blocks=1)
    before = count_norms(network.classifier)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            network(*network.prefix(images)), network.classifier(images), rtol=1e-4, atol=1e-5
        )
    assert count_norms(network.classifier) == before


def test_layers_with_hooks_are_not_folded() -> None:
    network = with_random_norms("resnet18")
    called = []
    layer = network.classifier.backbone.get_submodule
    layer("conv1").register_forward_hook(lambda *_: called.append("convolution"))
    layer("layer1.0.bn1").register_forward_hook(lambda *_: called.append("norm"))
    network.prefix(torch.zeros(2, 3, 96, 96))
    assert called == ["convolution", "norm"]
    assert count_norms(network.prefix_module) == 2


class SharedLayers(nn.Module):
    """Uses one convolution and norm in front of the trainable layer, and behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.conv(self.last(self.norm(self.conv(images)))))
        return maps


def test_a_layer_in_front_of_the_frontier_and_behind_it() -> None:
    base = tiny(SharedLayers())
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "matching", size=32, trainable=["backbone.last.*", "head.*"])
    assert network.boundaries
    network.train()
    assert network(*network.prefix(torch.randn(4, 3, 32, 32))).shape == (4, 2)


def test_weights_that_are_loaded_later_are_folded_anew() -> None:
    network = with_random_norms("resnet18")
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    network.prefix(images)
    with torch.no_grad():
        for parameter in network.classifier.backbone.parameters():
            parameter.mul_(1.1)
        network.refresh()
        expected = network.classifier.features(images)
    torch.testing.assert_close(network.prefix(images)[0], expected, rtol=1e-4, atol=1e-5)


class DependsOnPixels(nn.Module):
    """Torch.fx cannot trace it: what it computes depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.norm(self.conv(images if images.mean() > 0 else -images))
        return maps


class CountsCalls(nn.Module):
    """Its trace computes something else than itself: a plain number is traced as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.calls = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        maps: Tensor = self.norm(self.conv(images)) * self.calls
        return maps


def folded(classifier: Classifier, size: int, precision: Precision = "float32") -> FoldedClassifier:
    return FoldedClassifier(classifier, size, compute_config(torch.device("cpu"), precision))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_a_folded_classifier_computes_the_same_and_leaves_the_classifier(name: str) -> None:
    classifier = with_random_norms(name).classifier
    before = count_norms(classifier)
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact, rounded = (folded(classifier, 96, precision) for precision in ("float32", "bfloat16"))
        expected = classifier.features(images)
        torch.testing.assert_close(exact.features(images), expected, rtol=1e-4, atol=1e-5)
        in_bfloat16 = rounded.features(images)
    assert exact.folded is not None and count_norms(exact.folded) == 0
    assert count_norms(classifier) == before
    assert in_bfloat16.dtype == torch.float32
    error = (in_bfloat16 - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize("network", [DependsOnPixels(), CountsCalls()])
def test_what_is_not_traced_as_it_computes_is_not_folded(network: nn.Module) -> None:
    base = tiny(network)
    classifier = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"])).eval()
    whole = folded(classifier, 32)
    assert whole.folded is None
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert whole.features(images).shape == (2, 3, 30, 30)
