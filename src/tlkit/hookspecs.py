"""Every hook a plugin can implement: one signature and its meaning each.

A part is a name and a factory. The factory's keyword-only parameters are the part's options: their
annotations validate the recipe, their defaults and the docstring are what `tlkit plugins show` prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from tlkit.plugins import Register

hookspec = pluggy.HookspecMarker("tlkit")
hookimpl = pluggy.HookimplMarker("tlkit")


@hookspec
def tlkit_backbones(register: Register) -> None:
    """Register ``factory(**options) -> Backbone``: images ``(B, 3, H, W)`` to features."""


@hookspec
def tlkit_heads(register: Register) -> None:
    """Register ``factory(backbone, classes, **options) -> nn.Module``: features to logits."""


@hookspec
def tlkit_augmentations(register: Register) -> None:
    """Register ``factory(preprocess, **options)`` -> an albumentations transform.

    It takes the decoded image, uint8 RGB ``(H, W, 3)``, and gives ``(size, size, 3)``, `size` being
    ``preprocess.size``.
    """


@hookspec
def tlkit_freeze_policies(register: Register) -> None:
    """Register ``policy(classifier, **options) -> set[str]``: the names of the parameters that learn."""


@hookspec
def tlkit_sources(register: Register) -> None:
    """Register ``factory(root, **options) -> Source``: class names, labelled and unlabelled images."""


@hookspec
def tlkit_run_started(run: Any) -> None:
    """Observe: the plan is made and the run folder is there."""


@hookspec
def tlkit_phase_started(run: Any, phase: Any) -> None:
    """Observe: a phase begins."""


@hookspec
def tlkit_epoch_ended(run: Any, phase: Any, epoch: int, metrics: dict[str, float]) -> None:
    """Observe: an epoch is trained and validated; `epoch` counts from 1.

    `metrics` is the epoch's row of history.csv: epoch, train_loss, val_loss, val_accuracy, lr, seconds.
    ``run.stop_phase(reason)`` makes it the phase's last.
    """


@hookspec
def tlkit_phase_ended(run: Any, phase: Any, result: dict[str, Any]) -> None:
    """Observe: a phase is evaluated; `result` is its entry in results.json."""


@hookspec
def tlkit_run_ended(run: Any) -> None:
    """Observe: all phases are done and results.json is complete."""
