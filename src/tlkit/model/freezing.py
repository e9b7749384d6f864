"""Freezes parameters, and puts layers into training or evaluation mode."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlkit.errors import PluginError, close_matches
from tlkit.model.classifier import Classifier


def freeze(classifier: Classifier, trainable: Collection[str]) -> None:
    """Sets ``requires_grad`` of the named parameters, and clears it for all others.

    Raises:
        PluginError: a name is not one of the classifier's parameters.
    """
    parameters = {name for name, _ in classifier.named_parameters()}
    for name in sorted(set(trainable) - parameters):
        raise PluginError(
            f"the freeze policy names {name!r}, which is not a parameter{close_matches(name, parameters)}"
        )
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name in trainable)


def updates_statistics(
    classifier: Classifier, trainable: Collection[str], statistics: Literal["learn", "keep"] | None
) -> bool:
    """Returns whether batch norms update their running statistics.

    By default only where the whole backbone is trainable, since few images in small batches would spoil the
    pretrained ones; a phase's `statistics` overrides that.
    """
    if statistics is not None:
        return statistics == "learn"
    return all(f"backbone.{name}" in trainable for name, _ in classifier.backbone.named_parameters())


def set_modes(
    backbone: nn.Module, suffix: Iterable[nn.Module] | None, *, training: bool, update_statistics: bool
) -> None:
    """Puts the backbone's layers into training or evaluation mode.

    Args:
        backbone: the network.
        suffix: modules behind the frontier; all others stay in evaluation mode. None: there are none.
        training: whether those behind the frontier go into training mode.
        update_statistics: whether batch norms among them update their running statistics.
    """
    # some networks cache in evaluation what they derive from their weights, and drop it in train()
    backbone.train()
    backbone.eval()
    if not training or suffix is None:
        return
    for module in suffix:
        module.training = True
    if not update_statistics:
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
