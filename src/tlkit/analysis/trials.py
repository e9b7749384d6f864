"""The trials of a search: Optuna chooses settings, and each is cross-validated and written at once."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

from tlkit.analysis.head_folds import FoldedFeatures, out_of_fold_logits
from tlkit.analysis.range_test import RangeTest, range_test
from tlkit.analysis.search_space import SearchSpace, Settings
from tlkit.analysis.selection_bias import corrected_accuracy
from tlkit.errors import RunFolderError, TrainingError
from tlkit.experiment.observer import Observer
from tlkit.parts.backbone import Backbone
from tlkit.parts.head import SelfFittingHead
from tlkit.parts.loss import Loss
from tlkit.plugins.registry import Registry
from tlkit.recipe.schema import Monitor, TrainingSpec
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.hashing import seed

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "optuna.journal"
#: The user attribute of a trial that failed by itself, and was not cut short.
PROBLEM = "problem"
#: How much a difference in log loss counts where the accuracies are equal.
TIE = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        number: the trial's.
        settings: what it chose.
        losses: the log loss of each image that was predicted out of fold, in nats.
        correct: whether its prediction is correct.
    """

    number: int
    settings: Settings
    losses: NDArray[np.float64]
    correct: NDArray[np.bool_]


class Trials:
    """The trials of one search, in a folder.

    Attributes:
        failed: number of trials whose training failed.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        data: FoldedFeatures,
        backbone: Backbone,
        classes: Sequence[str],
        registry: Registry,
    ) -> None:
        """Opens the study, or the one that an earlier execution of the search has begun."""
        self._folder, self._space, self._data = folder, space, data
        self._backbone, self._classes, self._registry = backbone, classes, registry
        self._tested = np.flatnonzero(data.folds >= 0)
        # settings that were tried before have the same outcome
        self._known: dict[str, Outcome] = {}
        self._study = _open_study(folder / JOURNAL, space.recipe.seed)

    @property
    def failed(self) -> int:
        """The number of trials whose training failed, without those that were cut short."""
        return sum(PROBLEM in trial.user_attrs for trial in self._study.get_trials(deepcopy=False))

    def run(self, count: int, observer: Observer) -> None:
        """Tries settings until there are `count` trials; those that were cut short are tried again."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=[TrialState.RUNNING]):
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
        self._known = {_key(outcome.settings): outcome for outcome in self.outcomes()}
        done = len(self._ended()) + self.failed
        with observer.progress("tuning", count, "trials", min(done, count)) as tick:
            for _ in range(done, count):
                self._try(self._study.ask(), observer)
                tick(1)

    def _try(self, trial: Trial, observer: Observer) -> None:
        from optuna.trial import TrialState

        settings = self._space.suggest(trial)
        try:
            outcome = self._known.get(_key(settings)) or self._cross_validate(trial.number, settings)
        except TrainingError as error:
            trial.set_user_attr(PROBLEM, str(error))
            self._study.tell(trial, state=TrialState.FAIL)
            observer.note(f"trial {trial.number} failed: {error}")
            return
        self._known[_key(settings)] = outcome
        self._write(trial.number, outcome)
        self._study.tell(trial, float(self.mean_scores([outcome])[0]))

    def _cross_validate(self, number: int, settings: Settings) -> Outcome:
        with torch.random.fork_rng(devices=[]):
            head, training, loss = self._make(settings)
            logits = out_of_fold_logits(head, self._data, training, loss)[self._tested]
        labels = self._data.labels[self._tested]
        losses = torch.nn.functional.cross_entropy(
            torch.from_numpy(logits), torch.from_numpy(labels), reduction="none"
        ).numpy()
        return Outcome(number, settings, losses, logits.argmax(1) == labels)

    def _make(self, settings: Settings) -> tuple[nn.Module, TrainingSpec, Loss]:
        """Makes the head and the loss of a trial."""
        phase, labels = self._space.tuned(settings).phase(self._space.phase.name), self._data.labels
        counts = np.bincount(labels, minlength=len(self._classes)).tolist()
        torch.manual_seed(seed(self._space.recipe.seed, phase.name, "head"))
        head = self._registry.make("head", phase.head.name, phase.head.options, self._backbone, self._classes)
        name, options = phase.training.loss.name, phase.training.loss.options
        return head, phase.training, self._registry.make("loss", name, options, self._classes, counts)

    def range_test(self, settings: Settings) -> RangeTest | None:
        """Tries learning rates with a trial's settings; returns None if its head fits itself."""
        with torch.random.fork_rng(devices=[]):
            head, training, loss = self._make(settings)
            return None if isinstance(head, SelfFittingHead) else range_test(head, self._data, training, loss)

    def outcomes(self) -> list[Outcome]:
        """Reads the outcomes of all trials that ended, in their order."""
        return [self._read(trial) for trial in self._ended()]

    def mean_scores(self, outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
        """Returns what trials are compared by, higher being better, ``(trials,)``."""
        weights = self._image_weights()
        mean: NDArray[np.float64] = self._scores(outcomes) @ weights / weights.sum()
        return mean

    def choose(self, outcomes: Sequence[Outcome]) -> tuple[int, float]:
        """Returns the position of the best trial, and the accuracy to expect of its settings.

        Raises:
            TrainingError: no trial ended.
        """
        if not outcomes:
            raise TrainingError(f"training failed in all {self.failed} trials: search smaller learning rates")
        # trials that repeat others' settings are no other candidates
        best = int(self.mean_scores(outcomes).argmax())
        unique = list({_key(outcome.settings): outcome for outcome in outcomes}.values())
        correct = np.stack([outcome.correct for outcome in unique])
        accuracy = corrected_accuracy(
            self._scores(unique), correct, self._image_weights(), self._space.recipe.seed
        )
        return best, accuracy

    def _scores(self, outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
        """Returns each trial's score on each image, ``(trials, N)``."""
        losses = np.stack([outcome.losses for outcome in outcomes])
        if self._measure == "loss":
            return -losses
        correct = np.stack([outcome.correct for outcome in outcomes])
        return correct - TIE * losses

    def _image_weights(self) -> NDArray[np.float64]:
        """Returns the weight of each image in a trial's score: for balanced accuracy, classes weigh alike."""
        labels = self._data.labels[self._tested]
        if self._measure != "balanced_accuracy":
            return np.ones(len(labels))
        weights: NDArray[np.float64] = 1 / np.bincount(labels)[labels]
        return weights

    @property
    def _measure(self) -> Monitor:
        return self._space.phase.training.monitor

    def _ended(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return list(self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))

    def _file(self, number: int) -> Path:
        return self._folder / "trials" / f"{number}.safetensors"

    def _write(self, number: int, outcome: Outcome) -> None:
        file = self._file(number)
        try:
            with atomic_write(file, durable=False) as temporary:
                save_file({"losses": outcome.losses, "correct": outcome.correct}, temporary)
        except OSError as error:
            raise RunFolderError(f"{file} cannot be written: {error.strerror or error}") from error

    def _read(self, trial: FrozenTrial) -> Outcome:
        file = self._file(trial.number)
        try:
            tensors = load_file(file)
            losses, correct = tensors["losses"], tensors["correct"]
        except Exception as error:  # safetensors has errors of its own
            raise RunFolderError(f"{file} cannot be read: {error}; name another --out") from error
        if losses.shape != self._tested.shape or correct.shape != self._tested.shape:
            raise RunFolderError(f"{file} belongs to other images: name another --out")
        return Outcome(trial.number, dict(trial.params), losses.astype(np.float64), correct.astype(bool))


def _open_study(journal: Path, recipe_seed: int) -> Study:
    """Opens Optuna's study in its journal file; its sampler goes on from the trials that it holds.

    The caller holds the search's own lock.
    """
    # a process that was killed leaves Optuna's lock behind: a link to the path below, which Optuna waits for,
    # for ever if the path is relative and the link therefore dangles
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Optuna calls experimental
        import optuna
        from optuna.storages.journal import JournalFileBackend

        logging.getLogger("optuna").setLevel(logging.WARNING)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal.absolute())))
        study = optuna.create_study(
            storage=storage, study_name="tune", direction="maximize", load_if_exists=True
        )
        sampler = optuna.samplers.TPESampler(seed=seed(recipe_seed, len(study.trials)) % 2**32)
    study.sampler = sampler
    return study


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
