"""The frontier: what is divided computes what the whole computes, and what is frozen stays."""

from __future__ import annotations

import pytest
import torch
from networks import KINDS, REGISTRY, classifier, divided, tiny
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.model.partition import PartitionedClassifier

POLICIES = [("backbone", {}), ("all-but-last-blocks", {"blocks": 1}), ("all-but-last-blocks", {"blocks": 2})]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_a_divided_network_gives_what_the_whole_gives(
    kind: str, policy: str, options: dict[str, int], images: Tensor
) -> None:
    network = classifier(kind)
    split, _ = divided(network, policy, **options)
    assert split.boundaries
    split.eval()
    with torch.no_grad():
        torch.testing.assert_close(split(*split.prefix(images)), network(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("policy", "options"), POLICIES)
def test_gradients_and_dropout_are_the_whole_networks(
    kind: str, policy: str, options: dict[str, int], images: Tensor
) -> None:
    network = classifier(kind, dropout=0.5)
    split, learning = divided(network, policy, **options)
    split.train()
    crossing = split.prefix(images)
    torch.manual_seed(3)
    split(*crossing).square().sum().backward()
    divided_gradients = {
        name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None
    }
    network.zero_grad()
    torch.manual_seed(3)
    network(images).square().sum().backward()
    assert set(divided_gradients) == learning
    for name, value in network.named_parameters():
        if name in learning:
            assert value.grad is not None
            torch.testing.assert_close(divided_gradients[name], value.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("policy", "options"),
    [*POLICIES, ("nothing", {}), ("matching", {"learn": ["head.*"]})],
)
def test_frozen_means_frozen(kind: str, policy: str, options: dict[str, object], images: Tensor) -> None:
    network = classifier(kind)
    split, learning = divided(network, policy, **options)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW([value for value in network.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):
        split.train()
        split.classifier.train()  # whoever calls it, split.train() decides
        split.train()
        loss = split(*split.prefix(images)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parameters = {name for name, _ in network.named_parameters()}
    for name, value in network.state_dict().items():
        should_move = name in learning or (name not in parameters and policy == "nothing")
        assert torch.equal(value, before[name]) != should_move, name


def test_statistics_move_only_behind_the_frontier_when_told_to(images: Tensor) -> None:
    network = classifier("residual")
    split, _ = divided(network, "all-but-last-blocks", statistics="learn", blocks=1)
    before = {name: value.clone() for name, value in network.named_buffers()}
    split.train()
    split(*split.prefix(images))
    moved = {name for name, value in network.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("backbone.layer4.")}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "levit_128s", "convnext_atto"])
def test_networks_whose_boundary_is_not_one_plain_map(name: str) -> None:
    base = REGISTRY.make("backbone", name, {"weights": "none"})
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, _ = divided(network, "all-but-last-blocks", size=224, blocks=1)
    assert split.boundaries, split.why_not
    images = torch.randn(3, 3, 224, 224)
    split.eval()
    with torch.no_grad():
        torch.testing.assert_close(split(*split.prefix(images)), network(images), rtol=1e-5, atol=1e-5)


def test_blocks_are_the_networks_own() -> None:
    vgg = REGISTRY.make("backbone", "vgg16", {"features": "map", "weights": "none"})
    sizes = dict(vgg.module.named_parameters())
    assert sum(value.numel() for value in sizes.values()) == 14_714_688
    assert len(vgg.blocks()) == 5
    assert sum(sizes[name].numel() for name in vgg.blocks()[-1].parameters) == 7_079_424
    resnet = REGISTRY.make("backbone", "resnet18", {"weights": "none"})
    assert resnet.blocks()[-1].name == "layer4"
    vit = REGISTRY.make("backbone", "vit_tiny_patch16_224", {"weights": "none"})
    assert {name.split(".")[0] for name in vit.blocks()[-1].parameters} == {"blocks", "norm"}
    for made in (vgg, resnet, vit):
        grouped = [name for block in made.blocks() for name in block.parameters]
        assert sorted(grouped) == sorted(name for name, _ in made.module.named_parameters())


class Branching(nn.Module):
    """Decides by the image's values, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        return self.second(maps if maps.mean() > 0 else -maps)


def test_what_cannot_be_traced_trains_whole_and_says_why() -> None:
    base = tiny(Branching())
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, learning = divided(network, "all-but-last-blocks", size=32, blocks=1)
    assert not split.boundaries
    assert "cannot trace" in (split.why_not or "")
    split.train()
    split(*split.prefix(torch.randn(2, 3, 32, 32))).sum().backward()
    learned = {name for name, value in network.named_parameters() if value.grad is not None}
    assert learned == learning


class Interleaved(nn.Module):
    """Puts two rows per image across the batch, not side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images).mean((2, 3))
        rows = self.fc(torch.cat([maps, 2 * maps]))
        return rows[: images.shape[0]] + rows[images.shape[0] :]


def test_rows_that_do_not_lie_together_are_not_kept() -> None:
    base = tiny(Interleaved())
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, _ = divided(network, "matching", size=32, learn=["backbone.fc.*", "head.*"])
    assert isinstance(split, PartitionedClassifier)
    assert "do not lie together" in (split.why_not or "")


def test_nothing_frozen_means_nothing_kept() -> None:
    split, _ = divided(classifier("plain"), "nothing")
    assert split.why_not == "everything learns"


def test_sizes_are_computed_again_and_not_kept() -> None:
    """A transformer's suffix asks for the batch size, which is no feature."""
    network = classifier("transformer")
    split, _ = divided(network, "all-but-last-blocks", blocks=1)
    assert [boundary.shape for boundary in split.boundaries] == [(1, 17, 192)]
    split.eval()
    for batch in (1, 2, 6):
        assert split(*split.prefix(torch.randn(batch, 3, 64, 64))).shape == (batch, 3)


class Positioned(nn.Module):
    """Adds a part of a table, as large as the image; `writes` puts something of the image into it first."""

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


@pytest.mark.parametrize(("writes", "kept"), [(False, [(1, 4, 30, 30)]), (True, [])])
def test_what_depends_on_an_images_size_alone_is_made_again(writes: bool, kept: list[object]) -> None:
    base = tiny(Positioned(writes))
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, _ = divided(network, "all-but-last-blocks", size=32, blocks=1)
    assert [boundary.shape for boundary in split.boundaries] == kept, split.why_not
    split.eval()
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(split(*split.prefix(images)), network(images))


class Noting(nn.Module):
    """Notes in evaluation what it makes of its weights, and drops it when it is told to train."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias = nn.Conv2d(3, 4, 3), nn.Parameter(torch.zeros(4))
        self.noted: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> Noting:
        if mode:
            self.noted = {}
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            bias = self.bias.exp()
        else:
            bias = self.noted.setdefault("bias", self.bias.exp().detach())
        return self.conv(images) + bias[:, None, None]


def test_what_a_network_notes_is_neither_kept_too_long_nor_spoiled() -> None:
    """Shapes are followed with tensors that hold no numbers; timm's convit and levit note such ones."""
    base = tiny(Noting())
    assert base.feature_shape == (4, 30, 30)
    assert not base.module.noted
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, _ = divided(network, "nothing", size=32)
    images = torch.randn(2, 3, 32, 32)
    split.eval()
    before = split(images)
    split.train()
    with torch.no_grad():
        network.backbone.bias += 1
    split.eval()
    assert not torch.allclose(split(images), before)
