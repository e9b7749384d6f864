"""Fits what tells which images belong to none of a phase's classes."""

from __future__ import annotations

from tlkit.experiment.phase_context import PhaseContext
from tlkit.experiment.phase_feeds import pooled_features_of
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import UnknownThreshold
from tlkit.model.unknown import MIN_IMAGES, WRONG_ALARMS, UnknownDetector, fit_detector


def fit_unknown(prepared: PreparedPhase, context: PhaseContext) -> UnknownDetector | None:
    """Fits a detector to the trained network's features; None: there are too few training images."""
    images = context.dataset.representatives
    if len(images) < MIN_IMAGES:
        return None
    return fit_detector(pooled_features_of(prepared, images, context.frozen_pass))


def describe_unknown(detector: UnknownDetector | None) -> UnknownThreshold:
    """Returns what results say of a detector."""
    if detector is None:
        why_not = f"there are fewer than {MIN_IMAGES} different training images"
        return UnknownThreshold(features=0, threshold=None, wrong_alarms=WRONG_ALARMS, why_not=why_not)
    count = len(detector.features)
    return UnknownThreshold(
        features=count, threshold=detector.threshold, wrong_alarms=WRONG_ALARMS, why_not=None
    )
