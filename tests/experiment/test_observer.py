"""Observers: their event hooks are called as plugins' are, and misspelt ones are errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_runs import Runner

import tlkit
from tlkit.errors import PluginError
from tlkit.experiment.results import PhaseResult
from tlkit.recipe.recipe import Phase
from tlkit.training.history import EpochMetrics


class Recording(tlkit.Observer):
    """Records each event with what is known at that time."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.metrics: list[EpochMetrics] = []
        self.results: list[PhaseResult] = []
        self.work: dict[str, list[int]] = {}

    @tlkit.hookimpl
    def tlkit_run_started(self, run: tlkit.Run) -> None:
        assert run.plan is not None
        self.events.append(("run started", [phase.name for phase in run.plan.phases], run.folder.is_dir()))

    @tlkit.hookimpl
    def tlkit_phase_started(self, run: tlkit.Run, phase: Phase) -> None:
        self.events.append(("phase started", phase.name, len(run.results.phases)))

    @tlkit.hookimpl
    def tlkit_epoch_ended(self, run: tlkit.Run, phase: Phase, epoch: int, metrics: EpochMetrics) -> None:
        self.events.append(("epoch ended", phase.name, epoch))
        self.metrics.append(metrics)
        if phase.name == "bottleneck" and epoch == 2:
            run.stop_phase("two are enough")

    @tlkit.hookimpl
    def tlkit_phase_ended(self, run: tlkit.Run, phase: Phase, result: PhaseResult) -> None:
        self.events.append(("phase ended", phase.name, len(run.results.phases)))
        self.results.append(result)

    @tlkit.hookimpl
    def tlkit_run_ended(self, run: tlkit.Run) -> None:
        self.events.append(("run ended", run.results.goal_met is not None))

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        steps = self.work.setdefault(task, [])
        yield steps.append
        assert unit == "images"
        if not task.startswith("training"):  # which may stop early
            assert sum(steps) == total, task


def test_an_observer_is_told_of_every_event(run: Runner) -> None:
    observer = Recording()
    # a GPU evaluates in full float32, where it trains in TF32: it computes features for both
    ended = run(observer=observer, device="cpu")
    assert observer.events == [
        ("run started", ["bottleneck", "fine-tune"], True),
        ("phase started", "bottleneck", 0),
        ("epoch ended", "bottleneck", 1),
        ("epoch ended", "bottleneck", 2),
        ("phase ended", "bottleneck", 1),
        ("phase started", "fine-tune", 1),
        ("epoch ended", "fine-tune", 1),
        ("epoch ended", "fine-tune", 2),
        ("epoch ended", "fine-tune", 3),
        ("phase ended", "fine-tune", 2),
        ("run ended", True),
    ]
    assert [metrics.epoch for metrics in observer.metrics] == [1, 2, 1, 2, 3]
    assert tuple(observer.results) == ended.results.phases
    assert [result.stopped for result in observer.results] == ["two are enough", None]
    assert [result.epochs for result in observer.results] == [2, 3]
    tasks = ["reading images", "frozen pass", "training bottleneck", "evaluating bottleneck"]
    assert list(observer.work) == [*tasks, "training fine-tune", "evaluating fine-tune"]
    assert sum(observer.work["training fine-tune"]) == 3 * 16


def test_a_finished_run_that_is_read_again_has_no_events(run: Runner, tmp_path: Path) -> None:
    run(out=tmp_path / "out", overrides={"training.epochs": 1})
    observer = Recording()
    run(out=tmp_path / "out", overrides={"training.epochs": 1}, observer=observer)
    assert not observer.events


def test_a_misspelt_hook_is_an_error_before_any_work(run: Runner, tmp_path: Path) -> None:
    class Misspelt(tlkit.Observer):
        @tlkit.hookimpl
        def tlkit_epoch_endet(self, epoch: int) -> None:
            pytest.fail("it is not a hook")

    with pytest.raises(PluginError, match=r"no hook 'tlkit_epoch_endet' \(did you mean 'tlkit_epoch_ended'"):
        run(out=tmp_path / "out", observer=Misspelt())
    assert not (tmp_path / "out").exists()


def test_a_hook_with_an_unknown_argument_is_an_error_before_any_work(run: Runner, tmp_path: Path) -> None:
    class Asking(tlkit.Observer):
        @tlkit.hookimpl
        def tlkit_epoch_ended(self, row: object) -> None:
            pytest.fail("there is no such argument")

    with pytest.raises(PluginError, match="row"):
        run(out=tmp_path / "out", observer=Asking())
    assert not (tmp_path / "out").exists()


def test_an_observer_may_implement_no_hook_at_all(run: Runner) -> None:
    ended = run(observer=tlkit.Observer(), overrides={"training.epochs": 1}, phases=["bottleneck"])
    assert [phase.name for phase in ended.results.phases] == ["bottleneck"]
