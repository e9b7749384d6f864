"""The results of a run: the content of results.json and run.json."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from tlkit.evaluation.metrics import Baselines, Scores, TestScores, baselines
from tlkit.experiment.plan import DataSummary, Plan
from tlkit.parts.backbone import WeightsOrigin
from tlkit.recipe.recipe import Recipe
from tlkit.recipe.schema import Monitor
from tlkit.utils.formatting import format_p_value
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion


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
    """Where a phase's time went, in seconds."""

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
        p: the test's p-value.
    """

    phase: str
    gained: NonNegative
    lost: NonNegative
    p: Proportion

    def describe(self, images: int) -> str:
        """Describes the gain over the earlier phase on that many test images, and how significant it is."""
        points = 100 * (self.gained - self.lost) / images
        return f"{points:+.1f} points over {self.phase} ({format_p_value(self.p)})"


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
            history.csv are those before temperature scaling.
        test: scores on the test images, after temperature scaling.
        versus: comparisons with the phase before and with the first one.
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
    val: Scores
    test: TestScores
    versus: tuple[Versus, ...] = ()

    @model_validator(mode="after")
    def _has_its_best_epoch(self) -> Self:
        if self.best_epoch > self.epochs:
            raise ValueError(f"the best epoch, {self.best_epoch}, is not one of {self.epochs}")
        return self


class Results(JsonModel):
    """The content of results.json, as far as the run has come.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        recipe: the recipe's name.
        classes: class names; confusions are in this order.
        goal: accuracy that the last phase must reach on the test images, or None.
        goal_met: whether it does; None while phases are missing.
        data: how many images there are.
        baselines: accuracies on the test images without looking at them; the majority class is the one with
            most training images.
        phases: results of the phases that have ended.
    """

    schema_version: Literal[1] = Field(alias="schema")
    recipe: str
    classes: tuple[str, ...]
    goal: float | None
    goal_met: bool | None
    data: DataSummary
    baselines: Baselines
    phases: tuple[PhaseResult, ...]

    @model_validator(mode="after")
    def _has_a_row_per_class(self) -> Self:
        count = len(self.classes)
        for phase in self.phases:
            rows = phase.test.confusion
            if len(rows) != count or any(len(row) != count for row in rows):
                raise ValueError(f"phase {phase.name!r}: the confusion matrix is not of {count} classes")
        return self

    @staticmethod
    def empty(recipe: Recipe, plan: Plan) -> Results:
        """Returns the results of a run of which no phase has ended."""
        per_class = plan.data.per_class
        return Results(
            schema_version=1,
            recipe=recipe.name,
            classes=plan.classes,
            goal=recipe.goal,
            goal_met=None,
            data=plan.data,
            baselines=baselines(
                {name: images.test for name, images in per_class.items()},
                majority_class=max(per_class, key=lambda name: per_class[name].train),
            ),
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
