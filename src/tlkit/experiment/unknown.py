"""Fits the detector of images that belong to none of a phase's classes.

A network that was trained knows its training images too well: their features lie closer together than those
of other images. The threshold is then chosen on images that it was not trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tlkit.data.folds import Folds
from tlkit.experiment.fold_files import fold_file, read_fold_state
from tlkit.experiment.folds import copy_state, load_copy
from tlkit.experiment.phase_context import PhaseContext
from tlkit.experiment.phase_feeds import pooled_features_of
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import UnknownThreshold
from tlkit.model.unknown import MIN_IMAGES, WRONG_ALARMS, UnknownDetector, choose_threshold, fit_detector
from tlkit.runtime.distributed import broadcast_from_main


@dataclass(frozen=True)
class FittedDetector:
    """A detector, or none, and what results say of it."""

    detector: UnknownDetector | None
    threshold: UnknownThreshold


def fit_unknown(prepared: PreparedPhase, context: PhaseContext) -> FittedDetector:
    """Fits a detector to the features of the trained network."""
    images, folds = context.dataset.representatives, context.dataset.folds
    val = context.dataset.splits.val
    if len(images) < MIN_IMAGES:
        return _none(f"there are fewer than {MIN_IMAGES} different training images")
    trained = _backbone_is_trained(prepared)
    if trained and folds is None and len(val) < MIN_IMAGES:
        return _none(f"the backbone was trained, and there are fewer than {MIN_IMAGES} validation images")
    detector = fit_detector(pooled_features_of(prepared, images, context.frozen_pass))
    chosen_on, count = "training images, each left out in turn", len(images)
    if trained:
        if folds is None:
            novelty = detector(pooled_features_of(prepared, val, context.frozen_pass))
            chosen_on = "validation images"
        else:
            novelty = _novelty_out_of_fold(prepared, context, folds)
            chosen_on = "images out of fold"
        if len(novelty) < MIN_IMAGES:  # most classes have one image, and are in no fold
            return _none(f"the backbone was trained, and there are {len(novelty)} {chosen_on}")
        detector.threshold, count = choose_threshold(novelty), len(novelty)
    described = UnknownThreshold(
        features=len(images),
        threshold=detector.threshold,
        wrong_alarms=WRONG_ALARMS,
        chosen_on=f"{count} {chosen_on}",
        why_not=None,
    )
    return FittedDetector(detector, described)


def _none(why_not: str) -> FittedDetector:
    described = UnknownThreshold(
        features=0, threshold=None, wrong_alarms=WRONG_ALARMS, chosen_on=None, why_not=why_not
    )
    return FittedDetector(None, described)


def _backbone_is_trained(prepared: PreparedPhase) -> bool:
    """Returns whether this phase or an earlier one has changed the backbone that it was made with."""
    made_with = prepared.backbone.module.state_dict()
    now = prepared.network.classifier.backbone.state_dict()
    return any(not torch.equal(value.cpu(), made_with[name].cpu()) for name, value in now.items())


def _novelty_out_of_fold(prepared: PreparedPhase, context: PhaseContext, folds: Folds) -> Tensor:
    """Returns the novelty of training images by networks that were not trained on them, ``(n,)``."""
    images, final = context.dataset.representatives, copy_state(prepared)
    position = {image.sha256: index for index, image in enumerate(context.dataset.splits.train)}
    assigned = folds.assignment[0][[position[image.sha256] for image in images]]
    novelty = []
    for fold in range(folds.count):
        held_out = torch.from_numpy(assigned == fold)
        # a cross-validation may have ended before its last fold
        if not broadcast_from_main(fold_file(context, prepared.phase.name, fold).is_file()):
            break
        load_copy(prepared, read_fold_state(context, prepared.phase.name, fold))
        pooled = pooled_features_of(prepared, images, context.frozen_pass)
        novelty.append(fit_detector(pooled[~held_out])(pooled[held_out]))
    load_copy(prepared, final)
    return torch.cat(novelty)
