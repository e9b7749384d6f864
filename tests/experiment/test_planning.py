"""Plans: they write nothing, decide `views = "auto"`, and come with estimates; networks move as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from networks import classifier, partitioned
from small_runs import Runner, predictions, train_losses

import tlkit
from tlkit.experiment.estimate import Estimate
from tlkit.model.partition import PartitionedClassifier


class Estimating(tlkit.Observer):
    """Measures as soon as the run has begun."""

    def __init__(self) -> None:
        self.estimates: Mapping[str, Estimate] = {}

    @tlkit.hookimpl
    def tlkit_run_started(self, run: tlkit.Run) -> None:
        self.estimates = run.estimates()


def test_a_plan_writes_nothing(run: Runner, tmp_path: Path, cache: Path) -> None:
    plan = run(out=tmp_path / "out", plan_only=True).plan
    assert not (tmp_path / "out").exists()
    assert not cache.exists()
    assert plan is not None
    bottleneck, fine_tune = plan.phases
    assert bottleneck.frontier == "behind the backbone"
    assert fine_tune.frontier == "in front of layer4"
    assert fine_tune.feature_shapes == ((1, 256, 4, 4),)
    assert fine_tune.feature_bytes == (22 + 8) * 256 * 4 * 4 * 4


def test_auto_views_are_chosen_by_what_they_cost(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(epochs: int) -> int | str:
        auto = {"name": "affine", "rotation": 10, "views": "auto"}
        options = {"phase.fine-tune.augmentation": auto, "training.epochs": epochs}
        plan = run(overrides=options, plan_only=True).plan
        assert plan is not None
        return plan.phases[1].views

    assert chosen(8) == "fresh", "eight epochs draw as often as eight views are computed"
    assert chosen(9) == 8
    monkeypatch.setenv("TLKIT_CACHE_LIMIT", "2MB")
    assert chosen(9) == "fresh", "eight views of 16 images take 2.1 MB"


def test_estimates_are_measured_and_change_nothing(run: Runner) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": 3}}
    first, second = Estimating(), Estimating()
    measured = run(overrides=options, observer=first)
    assert measured.results.phases[0].features.computed == 22, "nothing was cached while measuring"
    again = run(overrides={**options, "training.epochs": 30}, observer=second)
    unmeasured = run(overrides=options)
    fine_tune = first.estimates["fine-tune"]
    assert fine_tune.cached is not None and fine_tune.extraction > 0
    assert fine_tune.feature_bytes == 3 * 16 * 256 * 4 * 4 * 4
    assert (fine_tune.uses_cache, fine_tune.views) == (True, 3)
    fresh = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": "fresh"}}
    instead = run(overrides=fresh, plan_only=True).estimates()["fine-tune"]
    assert (instead.uses_cache, instead.views) == (False, 8)
    assert instead.feature_bytes == 8 * 16 * 256 * 4 * 4 * 4
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
    """Phases are prepared on the CPU and moved to their device; prefix and suffix must move with them."""
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
