"""Checks that a backbone can be saved, loaded, copied and moved to another device."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from tlkit.errors import RunFolderError
from tlkit.model.description import Calibration
from tlkit.model.saving import load_model, save_model
from tlkit.plugins import options
from tlkit.testing.backbone_subject import Subject
from tlkit.testing.runner import CLASSES, EXACT_TOLERANCE, CheckFailed, relative_difference
from tlkit.testing.train_step import changed_names
from tlkit.utils.formatting import shortlist


def a_model_folder_restores_it(subject: Subject) -> None:
    """Saved and loaded, it has the same state and preprocessing, and computes the same logits."""
    classifier, part = subject.classifier(), subject.part
    images = subject.images(2)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        save_model(
            folder,
            classifier,
            subject.backbone,
            backbone_table={"name": part.name, **part.options, **options.without_weights(part.factory)},
            head_table={"name": "linear"},
            classes=CLASSES,
            calibration=Calibration(temperature=1.0),
        )
        try:
            saved = load_model(folder, part)
        except RunFolderError as error:
            raise CheckFailed(
                expected="a second network with the same parameters from the same options",
                got=str(error).replace(str(folder), "the model folder"),
                fix="let the network depend on its options only, or give Backbone(blueprint=…), the table "
                "that builds it",
            ) from error
    changed = changed_names(classifier.state_dict(), saved.classifier.state_dict())
    with torch.no_grad():
        difference = relative_difference(saved.classifier(images), classifier(images))
    if changed:
        got = f"other values of {shortlist(changed)}"
    elif difference > EXACT_TOLERANCE:
        got = f"logits that differ by {difference:.1e} of the largest logit"
    elif saved.backbone.preprocess != subject.backbone.preprocess:
        got = f"{saved.backbone.preprocess}"
    else:
        return
    raise CheckFailed(
        expected="the same weights, preprocessing and logits after saving and loading",
        got=got,
        fix="let the network depend on its options only, and register everything else that it computes with "
        "as parameters or buffers (persistent=True)",
    )


def can_be_copied_and_moved(subject: Subject) -> str:
    """A deep copy computes the same and shares no parameters, and moving it moves every tensor."""
    module = subject.backbone.module
    duplicate = copy.deepcopy(module).eval()
    images = subject.images(2)
    difference = relative_difference(subject.features(images, duplicate), subject.features(images))
    addresses = {value.data_ptr() for value in module.parameters() if value.numel()}
    shared = [name for name, value in duplicate.named_parameters() if value.data_ptr() in addresses]
    if difference > EXACT_TOLERANCE or shared:
        raise CheckFailed(
            expected="the same features from a deep copy, with parameters of its own",
            got=f"shared parameters: {shortlist(shared)}"
            if shared
            else f"a difference of {difference:.1e} of the largest value",
            fix="hold parameters in modules, and other modules as attributes, not in closures or globals",
        )
    if torch.cuda.is_available():
        subject.features(images.cuda(), duplicate.cuda())
    left = [name for name, value in _plain_tensors(duplicate.to("meta")) if value.device.type != "meta"]
    if left:
        raise CheckFailed(
            expected="module.to(device) to move every tensor",
            got=f"{shortlist(left)} on the old device",
            fix="make it a buffer: self.register_buffer(name, tensor, persistent=False)",
        )
    return "" if torch.cuda.is_available() else "not run on a GPU, since there is none"


def _plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors that are ordinary attributes of modules, or in their lists and dictionaries."""
    for prefix, submodule in module.named_modules():
        for attribute, value in vars(submodule).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            values = value.values() if isinstance(value, dict) else value
            for tensor in values if isinstance(value, dict | list | tuple) else (value,):
                if isinstance(tensor, Tensor):
                    yield f"{prefix}.{attribute}".lstrip("."), tensor
