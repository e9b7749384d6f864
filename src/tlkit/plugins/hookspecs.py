"""Every hook that a plugin can implement: a signature and its meaning.

A part is a name and a factory. The factory's keyword-only parameters are the part's options: their
annotations validate the recipe, their defaults and the docstring are what `tlkit plugins show` prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from tlkit.experiment.observer import Run
    from tlkit.experiment.results import PhaseResult
    from tlkit.plugins.registry import Register
    from tlkit.recipe.recipe import Phase
    from tlkit.training.history import EpochMetrics

hookspec = pluggy.HookspecMarker("tlkit")
hookimpl = pluggy.HookimplMarker("tlkit")


@hookspec
def tlkit_backbones(register: Register) -> None:
    """Register ``factory(**options) -> Backbone``: images ``(B, 3, H, W)`` to features."""


@hookspec
def tlkit_heads(register: Register) -> None:
    """Register ``factory(backbone, classes, **options) -> nn.Module``: features to logits.

    One that is also meant for several labels per image says so: ``tasks=("multiclass", "multilabel")``.
    """


@hookspec
def tlkit_losses(register: Register) -> None:
    """Register ``factory(classes, counts, **options) -> Loss``: logits and labels to each image's loss.

    `counts` are the numbers of training images of the classes. A loss for several labels per image says so:
    ``tasks=("multilabel",)``.
    """


@hookspec
def tlkit_augmentations(register: Register) -> None:
    """Register ``factory(preprocess, **options) -> Augmentation``, such as an ``albumentations.Compose``.

    It maps a decoded image, uint8 RGB ``(H, W, 3)``, to ``(size, size, 3)``, `size` being
    ``preprocess.size``.
    """


@hookspec
def tlkit_freeze_policies(register: Register) -> None:
    """Register ``policy(classifier, **options) -> set[str]``: the names of the trainable parameters."""


@hookspec
def tlkit_sources(register: Register) -> None:
    """Register ``factory(root, **options) -> Source``: class names, labelled and unlabelled images."""


@hookspec
def tlkit_engines(register: Register) -> None:
    """Register ``factory(**options) -> Engine``: computes blocks of images in workers."""


@hookspec
def tlkit_run_started(run: Run) -> None:
    """Observe: the plan is made and the run folder exists."""


@hookspec
def tlkit_phase_started(run: Run, phase: Phase) -> None:
    """Observe: a phase begins."""


@hookspec
def tlkit_epoch_ended(run: Run, phase: Phase, epoch: int, metrics: EpochMetrics) -> None:
    """Observe: an epoch is trained and validated; `epoch` counts from 1.

    `metrics` is the epoch's row of history.csv. ``run.stop_phase(reason)`` makes it the phase's last.
    """


@hookspec
def tlkit_phase_ended(run: Run, phase: Phase, result: PhaseResult) -> None:
    """Observe: a phase is evaluated; `result` is its entry in results.json."""


@hookspec
def tlkit_run_ended(run: Run) -> None:
    """Observe: all phases are done and results.json is complete."""
