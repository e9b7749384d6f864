"""The results of a run: the content of results.json and run.json."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import stdev
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from tlkit.errors import RunFolderError
from tlkit.evaluation.metrics import Baselines, Scores, TestScores, baselines
from tlkit.evaluation.significance import describe_correction, holm
from tlkit.experiment.multilabel import MultilabelResult
from tlkit.experiment.plan import DataSummary, Plan
from tlkit.parts.backbone import WeightsOrigin
from tlkit.recipe.recipe import Recipe
from tlkit.recipe.schema import Monitor
from tlkit.utils.formatting import format_p_value, plural
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion

if TYPE_CHECKING:
    from tlkit.data.dataset import Dataset


class ParameterCounts(JsonModel):
    """Numbers of trainable and frozen parameters."""

    trainable: NonNegative
    frozen: NonNegative


class FeatureUse(JsonModel):
    """Cached features of training and validation images, in image views.

    A view that is computed for several phases in one pass counts for the first of them; the others reuse it.

    Attributes:
        cached: whether features of training images are cached.
        computed: number of image views computed by this run.
        reused: number of image views that were in the store.
        size: of all of them, in bytes; ``bytes`` in JSON.
        why_not: why features of training images are not cached, or None.
    """

    cached: bool
    computed: NonNegative
    reused: NonNegative
    size: NonNegative = Field(alias="bytes")
    why_not: str | None


class PhaseSeconds(JsonModel):
    """Where a phase's time went, in seconds; of interrupted executions, up to their last event."""

    total: NonNegativeFloat
    features: NonNegativeFloat
    training: NonNegativeFloat
    evaluation: NonNegativeFloat


class Versus(JsonModel):
    """A phase against an earlier one on the same test images: McNemar's exact test.

    Attributes:
        phase: the earlier phase.
        gained: number of images that only this phase predicts correctly.
        lost: number of images that only the earlier phase predicts correctly.
        p: the test's p-value, not corrected for the number of comparisons; see `describe_gains`.
    """

    phase: str
    gained: NonNegative
    lost: NonNegative
    p: Proportion


class OutOfFoldScores(TestScores):
    """Scores of out-of-fold predictions: each image's come from models that did not see it.

    Of several repeats, an image's probabilities are the mean. `ci95` is wider than that of as many test
    images: see `tlkit.evaluation.intervals`.

    Attributes:
        folds: number of folds that were trained.
        repeats: how many times the folds were drawn.
        fold_accuracies: accuracy of each fold's model on the images that it did not see.
        untested: classes with images in no fold, all of which are trained on.
    """

    folds: NonNegative
    repeats: NonNegative
    fold_accuracies: tuple[Proportion, ...]
    untested: tuple[str, ...]

    @property
    def fold_deviation(self) -> float | None:
        """The standard deviation of the folds' accuracies; None with a single fold."""
        return stdev(self.fold_accuracies) if len(self.fold_accuracies) > 1 else None


class Decision(JsonModel):
    """Whether a phase's weights are taken, in place of those that it starts from.

    They are if the out-of-fold predictions are better by more than the standard error of the difference.

    Attributes:
        taken: whether they are.
        measure: the score that was compared.
        gain: how much better the phase is in it; None: it was not tried.
        standard_error: of the gain; None: it was not tried.
        n: number of images that both predict out of fold.
        reason: why the phase was not tried, or not to its end; None: it was.
    """

    taken: bool
    measure: Monitor
    gain: float | None
    standard_error: NonNegativeFloat | None
    n: NonNegative
    reason: str | None

    def describe(self) -> str:
        """Describes the decision in words, such as "not taken: 0.3 points better out of fold, …"."""
        verdict = "taken" if self.taken else "not taken"
        if self.gain is None or self.standard_error is None:
            return f"{verdict}: {self.reason}"
        scale, unit = (1, "nats") if self.measure == "loss" else (100, "points")
        better = "better" if self.gain >= 0 else "worse"
        measure = "" if self.measure == "accuracy" else f" in {self.measure.replace('_', ' ')}"
        decimals = 2 if self.measure == "loss" else 1
        evidence = (
            f"{scale * abs(self.gain):.{decimals}f} {unit} {better}{measure} on {self.n:,} images "
            f"out of fold, standard error {scale * self.standard_error:.{decimals}f}"
        )
        return f"{verdict}: {evidence}" + (f"; {self.reason}" if self.reason else "")


class UnknownThreshold(JsonModel):
    """When a classifier calls an image unknown, as belonging to none of its classes.

    Attributes:
        features: number of training images whose features are stored with the model.
        threshold: the novelty above which an image is unknown; None: there is none.
        wrong_alarms: the part of images of the known classes that the threshold was chosen to call unknown.
        chosen_on: the images that it was chosen on, such as "120 validation images"; None: there is none.
        why_not: why there is no threshold, or None.
    """

    features: NonNegative
    threshold: float | None
    wrong_alarms: Proportion
    chosen_on: str | None
    why_not: str | None


class PhaseResult(JsonModel):
    """The results of one phase.

    Attributes:
        name: the phase's.
        epochs: number of epochs trained.
        best_epoch: the epoch whose weights were kept; 0: those that it started from.
        monitor: the score on the validation images that the epochs were compared by.
        best_value: that score of the weights that were kept, as in history.csv; None if nothing was trained.
        stopped: why a plugin ended the phase, or None.
        parameters: numbers of trainable and frozen parameters.
        weights: where the pretrained weights of its backbone come from, also if it starts from an earlier
            phase; None: they were random, or that is unknown.
        features: cached features.
        seconds: where its time went.
        temperature: logits are divided by it before the softmax.
        val: scores on the validation images, of the best epoch and after temperature scaling; its log loss is
            too good by a little, since the temperature was fitted on the same images. The losses in
            history.csv are those before temperature scaling. None in a cross-validation.
        test: scores on the test images, after temperature scaling; None without any.
        out_of_fold: scores on the training images in a cross-validation, with the temperature that was fitted
            to them; None without one.
        decision: whether the weights were taken, in a cross-validation; None: there was nothing to decide.
        fitted: what a head that fits itself chose, or None.
        unknown: the threshold above which it calls an image unknown.
        versus: comparisons with the phase before and with the first one.
        multilabel: its scores where an image may have several labels, in place of `val`, `test` and
            `out_of_fold`; None: it has one.
    """

    name: str
    epochs: NonNegative
    best_epoch: NonNegative
    monitor: Monitor
    best_value: NonNegativeFloat | None
    stopped: str | None
    parameters: ParameterCounts
    weights: WeightsOrigin | None
    features: FeatureUse
    seconds: PhaseSeconds
    temperature: PositiveFloat
    val: Scores | None
    test: TestScores | None
    out_of_fold: OutOfFoldScores | None = None
    decision: Decision | None = None
    fitted: str | None = None
    unknown: UnknownThreshold | None = None
    versus: tuple[Versus, ...] = ()
    multilabel: MultilabelResult | None = None

    @property
    def is_taken(self) -> bool:
        """Whether its weights are its own, and not those of the phase that it starts from, by a decision."""
        return self.decision is None or self.decision.taken

    @property
    def keeps_start(self) -> bool:
        """Whether it has the weights that it started from, since no epoch was better."""
        return self.epochs > 0 and self.best_epoch == 0

    @property
    def measured(self) -> TestScores:
        """The scores that tell how good the phase is: on test images, or else out of fold."""
        scores = self.test or self.out_of_fold
        if scores is None:
            raise RunFolderError(
                f'phase {self.name!r} has several labels per image (task = "multilabel"), and this needs '
                "one: see docs/multilabel.md for what there is"
            )
        return scores

    @property
    def headline(self) -> float:
        """The score that a recipe's goal is about: accuracy, or mean average precision."""
        if self.multilabel is not None:
            return self.multilabel.measured.mean_average_precision.value
        return self.measured.accuracy

    @property
    def measured_on(self) -> str:
        """What these scores were computed on: "test images" or "images out of fold"."""
        return "images out of fold" if (self.multilabel or self).test is None else "test images"

    def describe_measurement(self) -> str:
        """Describes it with numbers, such as "200 images out of fold (10 folds, drawn 10 times)"."""
        scores = self.multilabel or self
        described = f"{scores.measured.n:,} {self.measured_on}"
        if scores.test is not None or scores.out_of_fold is None:
            return described
        folds, repeats = scores.out_of_fold.folds, scores.out_of_fold.repeats
        times = f", drawn {repeats} times" if repeats > 1 else ""
        return f"{described} ({plural(folds, 'fold')}{times})"

    def describe_expectation(self) -> str:
        """Says what to expect, as in "About 98.5% of new images like these will be labelled correctly"."""
        scores = self.measured
        # that all were correct does not mean that all will be
        share = (
            f"At least {scores.ci95[0]:.1%}" if scores.correct == scores.n else f"About {scores.accuracy:.1%}"
        )
        return f"{share} of new images like these will be labelled correctly"

    def describe_evidence(self) -> str:
        """Says how that was measured, such as "Measured by cross-validation: 200 images out of fold …"."""
        measured = "on images held out for testing" if self.test else "by cross-validation"
        return f"Measured {measured}: {self.describe_measurement()}, {self.measured.correct:,} correct"

    @model_validator(mode="after")
    def _is_measured(self) -> Self:
        if self.test is None and self.out_of_fold is None and self.multilabel is None:
            raise ValueError(f"phase {self.name!r} has neither test images nor folds")
        return self

    @model_validator(mode="after")
    def _has_its_best_epoch(self) -> Self:
        if self.best_epoch > self.epochs:
            raise ValueError(f"the best epoch, {self.best_epoch}, is not one of {self.epochs}")
        return self


def describe_gains(phases: Sequence[PhaseResult]) -> dict[str, list[str]]:
    """Describes each phase's gains over earlier ones, such as "+1.2 points over bottleneck (p = 0.03)".

    The p-values are corrected for the number of comparisons among all phases; see `holm`.

    Returns:
        A phase's descriptions, by its name: over the phase before, and over the first one.
    """
    corrected = iter(holm([versus.p for result in phases for versus in result.versus]))
    return {
        result.name: [
            f"{100 * (versus.gained - versus.lost) / result.measured.n:+.1f} points over {versus.phase} "
            f"({format_p_value(next(corrected))})"
            for versus in result.versus
        ]
        for result in phases
    }


def describe_gains_correction(phases: Sequence[PhaseResult]) -> str:
    """Describes how the p-values of `describe_gains` were corrected; nothing if there is only one."""
    return describe_correction(sum(len(result.versus) for result in phases))


class Results(JsonModel):
    """The content of results.json, as far as the run has come.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        recipe: the recipe's name.
        classes: class names; confusions are given by index into them.
        goal: accuracy, or, with several labels per image, mean average precision, that the last phase must
            reach on the test images; or None.
        goal_met: whether it does; None while phases are missing.
        data: how many images there are.
        baselines: accuracies on the images that the phases are measured on, without looking at them; the
            majority class is the one with most training images. None with several labels per image.
        phases: results of the phases that have ended.
    """

    schema_version: Literal[1] = Field(alias="schema")
    recipe: str
    classes: tuple[str, ...]
    goal: float | None
    goal_met: bool | None
    data: DataSummary
    baselines: Baselines | None
    phases: tuple[PhaseResult, ...]

    @model_validator(mode="after")
    def _has_known_classes(self) -> Self:
        count = len(self.classes)
        for phase in self.phases:
            for scores in (phase.test, phase.out_of_fold):
                cells = scores.confusion if scores else ()
                if any(max(cell.label, cell.predicted) >= count for cell in cells):
                    raise ValueError(f"phase {phase.name!r}: the confusions are not of {count} classes")
        return self

    @model_validator(mode="after")
    def _has_baselines(self) -> Self:
        if self.baselines is None and any(phase.multilabel is None for phase in self.phases):
            raise ValueError("baselines: must not be null where images have one label")
        return self

    @staticmethod
    def empty(recipe: Recipe, plan: Plan, dataset: Dataset) -> Results:
        """Returns the results of a run of which no phase has ended."""
        per_class, guessed = plan.data.per_class, None
        if recipe.task == "multiclass":
            counts = dataset.count_classes(dataset.measured)
            guessed = baselines(
                dict(zip(dataset.classes, counts, strict=True)),
                majority_class=max(per_class, key=lambda name: per_class[name].train),
            )
        return Results(
            schema_version=1,
            recipe=recipe.name,
            classes=plan.classes,
            goal=recipe.goal,
            goal_met=None,
            data=plan.data,
            baselines=guessed,
            phases=(),
        )

    def phase(self, name: str) -> PhaseResult | None:
        """Returns the result of that phase, or None if it has not ended."""
        return next((result for result in self.phases if result.name == name), None)

    def with_phase(self, result: PhaseResult) -> Results:
        """Returns these results with one more phase."""
        return self.model_copy(update={"phases": (*self.phases, result)})


class RunDescription(JsonModel):
    """The content of run.json: what a run's numbers depend on besides its recipe.

    Attributes:
        versions: of the libraries, by name.
        python: version of Python.
        machine: operating system and architecture.
        device: the device that it computed on.
        threads: number of torch's threads.
        seed: the recipe's.
        command: the command line.
        finished: whether all phases have ended.
    """

    versions: dict[str, str]
    python: str
    machine: str
    device: str
    threads: int
    seed: int
    command: tuple[str, ...]
    finished: bool
