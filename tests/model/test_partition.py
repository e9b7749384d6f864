"""The frontier: a partitioned network computes what the whole one does, and what is frozen stays so."""

from __future__ import annotations

import pytest
import torch
from networks import KINDS, REGISTRY, classifier, partitioned, tiny
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.model.partition import PartitionedClassifier, WholeClassifier

POLICIES = [("backbone", {}), ("all-but-last-blocks", {"blocks": 1}), ("all-but-last-blocks", {"blocks": 2})]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_a_partitioned_network_returns_the_logits_of_the_whole_one(
    kind: str, policy: str, options: dict[str, int], images: Tensor
) -> None:
    whole = classifier(kind)
    network, _ = partitioned(whole, policy, **options)
    assert network.boundaries
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(*network.prefix(images)), whole(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_gradients_and_dropout_are_those_of_the_whole_network(
    kind: str, policy: str, options: dict[str, int], images: Tensor
) -> None:
    whole = classifier(kind, dropout=0.5)
    network, trainable = partitioned(whole, policy, **options)
    network.train()
    crossing = network.prefix(images)
    torch.manual_seed(3)
    network(*crossing).square().sum().backward()
    gradients = {
        name: value.grad.clone() for name, value in whole.named_parameters() if value.grad is not None
    }
    whole.zero_grad()
    torch.manual_seed(3)
    whole(images).square().sum().backward()
    assert set(gradients) == trainable
    for name, value in whole.named_parameters():
        if name in trainable:
            assert value.grad is not None
            torch.testing.assert_close(gradients[name], value.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("policy", "options"),
    [*POLICIES, ("nothing", {}), ("matching", {"trainable": ["head.*"]})],
)
def test_training_changes_only_what_is_trainable(
    kind: str, policy: str, options: dict[str, object], images: Tensor
) -> None:
    whole = classifier(kind)
    network, trainable = partitioned(whole, policy, **options)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    optimizer = torch.optim.AdamW([value for value in whole.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):
        network.train()
        network.classifier.train()  # whoever calls it, network.train() decides
        network.train()
        loss = network(*network.prefix(images)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parameters = {name for name, _ in whole.named_parameters()}
    for name, value in whole.state_dict().items():
        should_change = name in trainable or (name not in parameters and policy == "nothing")
        assert torch.equal(value, before[name]) != should_change, name


def test_statistics_are_updated_only_behind_the_frontier_when_requested(images: Tensor) -> None:
    whole = classifier("residual")
    network, _ = partitioned(whole, "all-but-last-blocks", statistics="learn", blocks=1)
    before = {name: value.clone() for name, value in whole.named_buffers()}
    network.train()
    network(*network.prefix(images))
    changed = {name for name, value in whole.named_buffers() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("backbone.layer4.")}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "levit_128s", "convnext_atto"])
def test_networks_whose_boundary_is_not_one_plain_map(name: str) -> None:
    base = REGISTRY.make("backbone", name, {"weights": "none"})
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "all-but-last-blocks", size=224, blocks=1)
    assert network.boundaries, network.fallback_reason
    images = torch.randn(3, 3, 224, 224)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(*network.prefix(images)), whole(images), rtol=1e-5, atol=1e-5)


def test_blocks_follow_the_structure_of_the_network() -> None:
    vgg = REGISTRY.make("backbone", "vgg16", {"features": "map", "weights": "none"})
    sizes = dict(vgg.module.named_parameters())
    assert sum(value.numel() for value in sizes.values()) == 14_714_688
    assert len(vgg.blocks()) == 5
    assert vgg.blocks()[-1].span == "features.24–29"
    assert sum(sizes[name].numel() for name in vgg.blocks()[-1].parameters) == 7_079_424
    resnet = REGISTRY.make("backbone", "resnet18", {"weights": "none"})
    assert [resnet.blocks()[index].span for index in (0, -1)] == ["conv1–act1", "layer4"]
    vit = REGISTRY.make("backbone", "vit_tiny_patch16_224", {"weights": "none"})
    assert {name.split(".")[0] for name in vit.blocks()[-1].parameters} == {"blocks", "norm"}
    for backbone in (vgg, resnet, vit):
        grouped = [name for block in backbone.blocks() for name in block.parameters]
        assert sorted(grouped) == sorted(name for name, _ in backbone.module.named_parameters())


class Branching(nn.Module):
    """Branches on the image's values, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        return self.second(maps if maps.mean() > 0 else -maps)


def test_a_network_that_cannot_be_traced_trains_whole_with_the_reason() -> None:
    base = tiny(Branching())
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, trainable = partitioned(whole, "all-but-last-blocks", size=32, blocks=1)
    assert isinstance(network, WholeClassifier)
    assert not network.boundaries
    assert "cannot trace" in (network.fallback_reason or "")
    network.train()
    network(*network.prefix(torch.randn(2, 3, 32, 32))).sum().backward()
    with_gradient = {name for name, value in whole.named_parameters() if value.grad is not None}
    assert with_gradient == trainable


class Interleaved(nn.Module):
    """Puts two rows per image across the batch, not side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images).mean((2, 3))
        rows = self.fc(torch.cat([maps, 2 * maps]))
        return rows[: images.shape[0]] + rows[images.shape[0] :]


def test_rows_that_do_not_lie_together_are_not_cached() -> None:
    base = tiny(Interleaved())
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "matching", size=32, trainable=["backbone.fc.*", "head.*"])
    assert isinstance(network, WholeClassifier)
    assert "do not lie together" in (network.fallback_reason or "")


def test_without_frozen_parameters_the_network_is_not_partitioned() -> None:
    network, _ = partitioned(classifier("plain"), "nothing")
    assert isinstance(network, WholeClassifier)
    assert network.fallback_reason == "all parameters are trainable"


def test_sizes_are_computed_again_and_not_cached() -> None:
    """A transformer's suffix reads the batch size, which is not a feature."""
    whole = classifier("transformer")
    network, _ = partitioned(whole, "all-but-last-blocks", blocks=1)
    assert isinstance(network, PartitionedClassifier)
    assert [boundary.shape for boundary in network.boundaries] == [(1, 17, 192)]
    network.eval()
    for batch in (1, 2, 6):
        assert network(*network.prefix(torch.randn(batch, 3, 64, 64))).shape == (batch, 3)


class Positioned(nn.Module):
    """Adds a part of a table, as large as the maps; `writes` writes the maps' mean into it first."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.table, self.writes = nn.Parameter(torch.randn(40, 40)), writes
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        height, width = maps.shape[-2:]
        table = self.table[: height - 2, : width - 2].sin()
        if self.writes:
            table[0] = maps.mean()
        return self.second(maps) + table


@pytest.mark.parametrize(("writes", "shapes"), [(False, [(1, 4, 30, 30)]), (True, [])])
def test_tensors_that_depend_only_on_an_images_size_are_computed_again(
    writes: bool, shapes: list[object]
) -> None:
    base = tiny(Positioned(writes))
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "all-but-last-blocks", size=32, blocks=1)
    assert [boundary.shape for boundary in network.boundaries] == shapes, network.fallback_reason
    network.eval()
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(network(*network.prefix(images)), whole(images))


class Memoizing(nn.Module):
    """Caches in evaluation what it derives from its weights, and drops it in train()."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias = nn.Conv2d(3, 4, 3), nn.Parameter(torch.zeros(4))
        self.derived: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Memoizing:
        if mode:
            self.derived = {}
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            bias = self.bias.exp()
        else:
            bias = self.derived.setdefault("bias", self.bias.exp().detach())
        return self.conv(images) + bias[:, None, None]


class AsksForTheDevice(nn.Module):
    """Makes a tensor where the first layer's output is, behind it, and has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        ones = torch.ones(5, 1, 1, device=features.device.type)
        # bool() of a Proxy cannot be traced, a number can be
        return self.norm(self.last(features + 0)) + ones * features.is_cpu.real


def test_a_device_is_that_of_the_images_and_not_the_one_that_shapes_are_propagated_on() -> None:
    base = tiny(AsksForTheDevice())
    assert base.feature_shape == (5, 28, 28)
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "all-but-last-blocks", blocks=2, size=32)
    assert network.boundaries
    images = torch.randn(2, 3, 32, 32)
    network.eval()
    torch.testing.assert_close(network(*network.prefix(images)), whole(images), rtol=1e-5, atol=1e-6)
    assert not base.module.norm.running_mean.any(), "statistics are those from before"


def test_tensors_that_a_network_derives_from_its_weights_are_neither_stale_nor_without_values() -> None:
    """Shapes are propagated on the meta device; timm's convit and levit would keep tensors of it."""
    base = tiny(Memoizing())
    assert base.feature_shape == (4, 30, 30)
    assert not base.module.derived
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "nothing", size=32)
    images = torch.randn(2, 3, 32, 32)
    network.eval()
    before = network(images)
    network.train()
    with torch.no_grad():
        whole.backbone.bias += 1
    network.eval()
    assert not torch.allclose(network(images), before)
