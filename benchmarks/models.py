"""Classifiers whose speed is measured: a backbone and a linear head that has learned nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from tlkit import load_registry
from tlkit.model.classifier import Classifier
from tlkit.model.saving import Calibration, save_model
from tlkit.parts.backbone import Backbone

CLASSES = ("cat", "dog")


def make_classifier(backbone: str) -> tuple[Classifier, Backbone]:
    """Makes a classifier; the weights are the backbone's own where they are on this machine."""
    torch.manual_seed(1)
    registry = load_registry()
    options = {"weights": "none"} if backbone.startswith("vgg") else {}
    base = registry.make("backbone", backbone, options)
    return Classifier(base, registry.make("head", "linear", {}, base, CLASSES)).eval(), base


def save_classifier(folder: Path, backbone: str) -> None:
    """Saves a classifier as a model folder."""
    classifier, base = make_classifier(backbone)
    save_model(
        folder,
        classifier,
        base,
        backbone_table={"name": backbone},
        head_table={"name": "linear"},
        classes=CLASSES,
        calibration=Calibration(temperature=1.0),
    )
