"""Heads that fit themselves: beside scikit-learn, with few images, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import REGISTRY
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

import tlkit
from tlkit.builtin.probe import Probe
from tlkit.utils.logistic import Rotation, draw_folds, solve

NAMES = ["probe", "prototype", "knn"]


class Features(nn.Module):
    """Stands for a backbone: has features of one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.zeros(shape))

    def forward(self, images: Tensor) -> Tensor:
        return self.features.expand(images.shape[0], *self.features.shape)


def make(name: str, shape: tuple[int, ...], classes: int, **options: object) -> nn.Module:
    backbone = tlkit.Backbone(Features(shape), tlkit.Preprocess(size=32))
    head: nn.Module = REGISTRY.make("head", name, options, backbone, [f"c{k}" for k in range(classes)])
    return head.eval()


def blobs(per_class: int, classes: int, width: int = 20, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Returns positive features of classes around random centres, and labels."""
    generator = np.random.default_rng(per_class + 10 * classes)
    centres = np.random.default_rng(3).normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), per_class)
    features = centres[labels] + noise * generator.normal(size=(len(labels), width)) + 2
    return torch.from_numpy(np.maximum(features, 0)).float(), torch.from_numpy(labels)


def fit(head: nn.Module, features: Tensor, labels: Tensor) -> str | None:
    assert isinstance(head, tlkit.SelfFittingHead)
    return head.fit_features(features, labels, torch.ones(len(labels)))


def rings(count: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Returns features of two classes, one around the other, which no plane divides."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    angles = generator.uniform(0, 2 * np.pi, count)
    radii = np.where(labels == 0, 0.4, 1.6) + 0.1 * generator.normal(size=count)
    plane = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1) + 3
    features = np.concatenate([plane**2, np.full((count, 1), 15.0)], 1)
    return torch.from_numpy(features).float(), labels


@pytest.mark.parametrize("strength", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_solver_finds_scikit_learns_probabilities(classes: int, strength: float) -> None:
    features, labels = blobs(30, classes)
    rotation = Rotation.of(features)
    targets = nn.functional.one_hot(labels, classes).float()
    penalty = torch.tensor([1 / strength])
    solution = solve(rotation, targets, torch.ones(1, len(labels)), penalty, tolerance=1e-6)[0]
    weight, bias = rotation.unrotated(solution)
    probabilities = (features @ weight.T + bias).softmax(1).numpy()
    # for two classes, scikit-learn has one row of weights where this has two of half the size
    inverse_penalty = 2 * strength if classes == 2 else strength
    peer = LogisticRegression(C=inverse_penalty, max_iter=10_000, tol=1e-8)
    expected = peer.fit(features.numpy(), labels.numpy()).predict_proba(features.numpy())
    assert np.abs(probabilities - expected).max() < 1e-3


def test_problems_solved_together_are_those_solved_alone() -> None:
    features, labels = blobs(20, 3)
    rotation, targets = Rotation.of(features), nn.functional.one_hot(labels, 3).float()
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(6, 60, generator=generator) > 0.3).float()
    penalties = torch.tensor([1e-3, 1e-2, 0.1, 1.0, 10.0, 1e-3])
    together = solve(rotation, targets, weights, penalties)
    for index in range(6):
        alone = solve(rotation, targets, weights[index : index + 1], penalties[index : index + 1])[0]
        logits = rotation.values @ together[index], rotation.values @ alone
        assert torch.allclose(logits[0].softmax(1), logits[1].softmax(1), atol=5e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_start_changes_the_way_and_not_the_solution(classes: int) -> None:
    features, labels = blobs(20, classes)
    rotation, targets = Rotation.of(features), nn.functional.one_hot(labels, classes).float()
    weights, penalty = torch.ones(1, len(labels)), torch.tensor([0.1])
    solution = solve(rotation, targets, weights, penalty, tolerance=1e-5)
    for start in (solution, -solution):
        again = solve(rotation, targets, weights, penalty, start=start, tolerance=1e-5)
        logits = rotation.values @ solution[0], rotation.values @ again[0]
        assert torch.allclose(logits[0].softmax(1), logits[1].softmax(1), atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(8, 3, 3), (7, 8), (8,)])
def test_every_shape_of_features(name: str, shape: tuple[int, ...]) -> None:
    head = make(name, shape, 3)
    pooled, labels = blobs(6, 3, width=8, noise=0.3)
    features = {
        1: pooled,
        2: pooled[:, None].expand(-1, 7, -1),
        3: pooled[:, :, None, None].expand(-1, -1, 3, 3),
    }
    fit(head, features[len(shape)], labels)
    assert (head(features[len(shape)]).argmax(1) == labels).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 5, 2), (0, 3, 3)])
def test_classes_with_one_image_or_none(name: str, counts: tuple[int, ...]) -> None:
    head = make(name, (20,), 3)
    labels = torch.from_numpy(np.repeat(np.arange(3), counts))
    features = torch.eye(20)[labels] + 0.01 * torch.rand(
        len(labels), 20, generator=torch.Generator().manual_seed(0)
    )
    fit(head, features, labels)
    logits = head(features)
    assert logits.isfinite().all() and (logits.argmax(1) == labels).all()


def test_the_probe_takes_a_kernel_where_it_is_better_and_can_be_told_not_to() -> None:
    features, labels = rings(120)
    probe, linear = make("probe", (3,), 2), make("probe", (3,), 2, kernel=False)
    chosen = fit(probe, features[:80], torch.from_numpy(labels[:80]))
    fit(linear, features[:80], torch.from_numpy(labels[:80]))
    assert chosen is not None and chosen.startswith("kernel, by log loss out of fold: linear ")
    accuracy = [(head(features[80:]).argmax(1).numpy() == labels[80:]).mean() for head in (probe, linear)]
    assert accuracy[0] > 0.95 and accuracy[1] < 0.8


def test_the_probe_is_chosen_without_the_images_that_are_not_its_own() -> None:
    """Noise has no strength that helps: out of fold the weakest weights are best, in sample the strongest."""
    generator = torch.Generator().manual_seed(2)
    features, labels = torch.rand(60, 40, generator=generator), torch.arange(60) % 2
    chosen = fit(probe := make("probe", (40,), 2), features, labels)
    assert chosen is not None
    assert probe(features).softmax(1).max() < 0.8, chosen


def test_class_weights_count() -> None:
    features, labels = blobs(40, 2, noise=4.0)
    kept = torch.cat([torch.arange(40), torch.arange(40, 45)])
    features, labels = features[kept], labels[kept]
    shares = []
    for weights in (torch.ones(45), torch.where(labels == 0, 0.5, 4.0)):
        head = make("probe", (20,), 2, kernel=False)
        assert isinstance(head, tlkit.SelfFittingHead)
        head.fit_features(features, labels, weights)
        shares.append(float((head(blobs(400, 2, noise=4.0)[0]).argmax(1) == 1).float().mean()))
    assert shares[0] < 0.25 < 0.35 < shares[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_fitted_head_is_saved_and_loaded(name: str) -> None:
    features, labels = rings(60)
    head = make(name, (3,), 2)
    fit(head, features, torch.from_numpy(labels))
    new = make(name, (3,), 2)
    new.load_state_dict(head.state_dict())
    assert torch.equal(new(features), head(features))
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(name, (4,), 2).load_state_dict(head.state_dict())


def test_the_linear_form_of_a_kernel_probe() -> None:
    features, labels = rings(60)
    probe, linear = make("probe", (3,), 2), make("probe", (3,), 2, kernel=False)
    fit(probe, features, torch.from_numpy(labels))
    fit(linear, features, torch.from_numpy(labels))
    assert isinstance(probe, tlkit.HasLinearForm)
    assert probe.use_linear_form() and not probe.use_linear_form()
    assert torch.equal(probe(features), linear(features))
    assert probe.state_dict().keys() == {"fc.weight", "fc.bias"}


def test_a_large_probe_is_small_on_disk_and_takes_seconds() -> None:
    features, labels = blobs(1500, 4, width=64, noise=2.0)
    head = make("probe", (64,), 4)
    fit(head, features, labels)
    assert sum(value.numel() for value in head.state_dict().values()) < 1000 * (64 + 4) + 1000
    assert (head(features).argmax(1) == labels).float().mean() > 0.9


def test_neighbours_vote_as_scikit_learns() -> None:
    features, labels = blobs(20, 3, noise=2.0)
    head = make("knn", (20,), 3, neighbours=1)
    fit(head, features, labels)
    others = blobs(40, 3, noise=2.0)[0]
    peer = KNeighborsClassifier(1, metric="cosine").fit(features.numpy(), labels.numpy())
    assert (head(others).argmax(1).numpy() == peer.predict(others.numpy())).all()
    with pytest.raises(tlkit.PluginError, match="neighbours must be at least 1"):
        make("knn", (20,), 3, neighbours=0)


def test_prototypes_are_the_mean_directions() -> None:
    features, labels = blobs(20, 3)
    head = make("prototype", (20,), 3)
    fit(head, features, labels)
    means = nn.functional.normalize(features, dim=1).view(3, 20, 20).mean(1)
    cosines = nn.functional.normalize(features, dim=1) @ nn.functional.normalize(means, dim=1).T
    assert torch.allclose(head(features) / head.SCALE, cosines, atol=1e-5)


def test_folds_hold_out_no_class_whole() -> None:
    labels = np.repeat(np.arange(4), (1, 2, 3, 30))
    drawn = draw_folds(labels, 5, np.random.default_rng(0))
    assert drawn[0] == -1 and len({*drawn[1:3]}) == 2 and len({*drawn[3:6]}) == 3
    assert isinstance(make("probe", (3,), 2), Probe)


def test_the_probe_of_several_labels_is_a_logistic_regression_per_class() -> None:
    features, numbers = blobs(40, 4)
    labels = torch.stack([numbers % 2, numbers // 2, (numbers == 3).long()], 1)
    head = make("probe", (20,), 3, kernel=False)
    chosen = fit(head, features, labels)
    assert chosen is not None and chosen.startswith("linear, by log loss out of fold")
    logits = head(features).detach()
    assert ((logits > 0) == (labels == 1)).all()
    strengths = [4.0**power for power in range(-2, 7)]
    scale = features.norm(dim=1).mean()
    for column in range(3):
        # of two classes' softmax, the penalty is on both weights: half of that on their difference
        expected = [
            LogisticRegression(C=2 * strength, tol=1e-8, max_iter=5000).fit(
                features / scale, labels[:, column]
            )
            for strength in strengths
        ]
        differences = [
            np.abs(model.decision_function(features / scale) - logits[:, column].numpy()).max()
            for model in expected
        ]
        assert min(differences) < 0.02 * logits[:, column].abs().max()
