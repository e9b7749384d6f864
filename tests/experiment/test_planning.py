"""Plans: they write nothing, decide `views = "auto"`, and come with estimates; networks move as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from networks import REGISTRY, classifier, partitioned
from small_runs import Runner, predictions, train_losses

import tlkit
from tlkit.errors import RecipeError
from tlkit.experiment.estimate import Estimate
from tlkit.experiment.planning import prepare_phases
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.model.partition import PartitionedClassifier
from tlkit.recipe.recipe import make_recipe

#: In front of the small recipe's last block, per image.
NUMBERS = 192 * (4 * 4 + 2 * 2)


class Estimating(tlkit.Observer):
    """Measures as soon as the run has begun."""

    def __init__(self) -> None:
        self.estimates: Mapping[str, Estimate] = {}

    @tlkit.hookimpl
    def tlkit_run_started(self, run: tlkit.Run) -> None:
        self.estimates = run.estimates()


def test_a_plan_writes_nothing_but_hashes(run: Runner, tmp_path: Path, cache: Path) -> None:
    # a GPU evaluates in another precision than it trains: its features take more bytes
    plan = run(out=tmp_path / "out", plan_only=True, device="cpu").plan
    assert not (tmp_path / "out").exists()
    # the hashes of the images, which the run need not read again
    assert [path.name for path in cache.iterdir()] == ["hashes"]
    assert plan is not None
    bottleneck, fine_tune = plan.phases
    assert bottleneck.frontier == "behind the backbone"
    assert fine_tune.frontier == "in front of layer4"
    assert fine_tune.feature_shapes == ((1, 192, 4, 4), (1, 192, 2, 2))
    assert fine_tune.feature_bytes == (22 + 8) * NUMBERS * 4


def test_auto_views_are_chosen_by_what_they_cost(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(epochs: int) -> int | str:
        auto = {"name": "affine", "rotation": 10, "views": "auto"}
        options = {"phase.fine-tune.augmentation": auto, "training.epochs": epochs}
        plan = run(overrides=options, plan_only=True).plan
        assert plan is not None
        return plan.phases[1].views

    assert chosen(8) == "fresh", "eight epochs draw as often as eight views are computed"
    assert chosen(9) == 8
    monkeypatch.setenv("TLKIT_CACHE_LIMIT", "1.9MB")
    assert chosen(9) == "fresh", "eight views of 16 images take 1.97 MB"


def test_estimates_are_measured_and_change_nothing(run: Runner) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": 3}}
    first, second = Estimating(), Estimating()
    measured = run(overrides=options, observer=first)
    assert measured.results.phases[0].features.computed == 22, "nothing was cached while measuring"
    again = run(overrides={**options, "training.epochs": 10}, observer=second)
    unmeasured = run(overrides=options)
    fine_tune = first.estimates["fine-tune"]
    assert fine_tune.cached is not None and fine_tune.extraction > 0
    assert fine_tune.feature_bytes == 3 * 16 * NUMBERS * 4
    assert (fine_tune.uses_cache, fine_tune.views) == (True, 3)
    fresh = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": "fresh"}}
    instead = run(overrides=fresh, plan_only=True).estimates()["fine-tune"]
    assert (instead.uses_cache, instead.views) == (False, 8)
    assert instead.feature_bytes == 8 * 16 * NUMBERS * 4
    assert instead.cached is not None and instead.extraction > 0
    later = second.estimates["fine-tune"]
    assert later.extraction == 0, "all are in the store"
    assert later.cached is not None and 0 < later.cached < later.fresh
    assert again.results.phases[1].features.computed == 0
    for name in ("bottleneck", "fine-tune"):
        assert predictions(measured, name) == predictions(unmeasured, name)
        assert train_losses(measured, name) == train_losses(unmeasured, name)


@pytest.mark.parametrize("kind", ["plain", "residual", "transformer"])
def test_a_network_that_is_moved_leaves_no_tensor_behind(kind: str) -> None:
    """Prefix and suffix share the network's tensors, and must move with it."""
    network, _ = partitioned(classifier(kind), "all-but-last-blocks", blocks=1)
    assert isinstance(network, PartitionedClassifier)
    crossing = network.prefix(torch.zeros(2, 3, 64, 64))  # makes the folded prefix, on the CPU
    network.to("meta")
    for part in (network, network.prefix_module, *network._suffixes.values()):
        tensors = dict([*part.named_parameters(), *part.named_buffers()])
        assert tensors
        assert [name for name, value in tensors.items() if value.device.type != "meta"] == []
    moved = network.prefix(torch.zeros(2, 3, 64, 64, device="meta"))
    assert [(tensor.device.type, tensor.shape) for tensor in moved] == [
        ("meta", tensor.shape) for tensor in crossing
    ]
    for training in (False, True):
        assert network.train(training)(*moved).device.type == "meta"


@pytest.fixture
def fine_tuning(few_photos: Path) -> PreparedPhase:
    """A prepared phase whose device is the CPU by another name, which is a device of its own to tlkit."""
    tables = {
        "name": "moving",
        "data": {"source": "catsdogs", "root": str(few_photos)},
        "backbone": {"name": "resnet18", "weights": "none"},
        "preprocess": {"size": 64},
        "training": {"precision": "float32"},
        "phase": [{"name": "fine-tune", "freeze": {"name": "all-but-last-blocks", "blocks": 1}}],
    }
    recipe = make_recipe(tables)
    (prepared,) = prepare_phases(recipe, recipe.phases, ["cat", "dog"], REGISTRY, torch.device("cpu", 0))
    return prepared


def test_a_phase_is_partitioned_on_its_own_device(fine_tuning: PreparedPhase) -> None:
    """Graphs contain devices and tensors of the device that they were traced on."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    on_cpu = fine_tuning.network
    before = on_cpu.eval()(*on_cpu.prefix(images))
    with fine_tuning.on_device():
        network = fine_tuning.network
        assert network is not on_cpu and network.classifier is on_cpu.classifier
        assert [boundary.shape for boundary in network.boundaries] == [
            boundary.shape for boundary in on_cpu.boundaries
        ]
        assert torch.equal(network.eval()(*network.prefix(images)), before)
        with torch.no_grad():  # as if trained, and as if started from other weights
            for value in network.classifier.parameters():
                value.mul_(1.01)
    assert fine_tuning.network is on_cpu
    after = on_cpu.eval()(*on_cpu.prefix(images))
    assert not torch.equal(after, before)
    assert torch.allclose(after, on_cpu.classifier.eval()(images), atol=1e-4)


def test_a_phase_that_fails_is_back_on_the_cpu(fine_tuning: PreparedPhase) -> None:
    on_cpu = fine_tuning.network
    with pytest.raises(KeyboardInterrupt), fine_tuning.on_device():
        raise KeyboardInterrupt
    assert fine_tuning.network is on_cpu


def test_cutmix_is_refused_where_features_are_trained_on(few_photos: Path) -> None:
    def prepare(**phase: object) -> PreparedPhase:
        tables = {
            "name": "cut",
            "data": {"source": "catsdogs", "root": str(few_photos)},
            "backbone": {"name": "test_resnet", "weights": "none"},
            "preprocess": {"size": 64},
            "training": {"cutmix": 1.0, "mixup": 0.2},
            "phase": [{"name": "only", **phase}],
        }
        recipe = make_recipe(tables)
        return prepare_phases(recipe, recipe.phases, ["cat", "dog"], REGISTRY, torch.device("cpu"))[0]

    for policy, where in (
        ("backbone", "behind the backbone"),
        ({"name": "all-but-last-blocks", "blocks": 1}, "in front of layer4"),
    ):
        with pytest.raises(RecipeError) as caught:
            prepare(freeze=policy)
        (problem,) = caught.value.problems
        assert problem.startswith("phase.only.cutmix: cuts pieces out of images, but this phase trains on")
        assert f"features ({where}): set cutmix = 0" in problem
        with pytest.raises(RecipeError):  # not a matter of caching
            prepare(freeze=policy, features={"cache": False})
    assert not prepare(freeze="nothing").network.boundaries
    assert prepare(freeze="backbone", cutmix=0.0).phase.training.mixup == 0.2
    assert not prepare(freeze="backbone", epochs=0).trains


def test_two_folds_leave_nothing_to_train_on_where_one_chooses_the_epoch(few_photos: Path) -> None:
    def prepare(folds: int, keep: str) -> int:
        tables = {
            "name": "folds",
            "data": {"source": "folder", "root": str(few_photos), "folds": folds},
            "backbone": {"name": "test_resnet", "weights": "none"},
            "preprocess": {"size": 64},
            "phase": [{"name": "only", "keep": keep}],
        }
        recipe = make_recipe(tables)
        return len(prepare_phases(recipe, recipe.phases, ("cat", "dog"), REGISTRY, torch.device("cpu")))

    with pytest.raises(RecipeError, match=r"phase\.only\.keep: one of two folds would choose the best epoch"):
        prepare(2, "best")
    assert prepare(3, "best") == prepare(2, "last") == 1
