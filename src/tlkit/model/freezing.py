"""What learns, what stays, and which layers are in training mode."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlkit.errors import PluginError, close_matches
from tlkit.model.classifier import Classifier


def freeze(classifier: Classifier, learning: Collection[str]) -> None:
    """Lets the named parameters learn and no other.

    Raises:
        PluginError: a name is not one of the classifier's parameters.
    """
    known = {name for name, _ in classifier.named_parameters()}
    for name in sorted(set(learning) - known):
        raise PluginError(
            f"the freeze policy names {name!r}, which is no parameter{close_matches(name, known)}"
        )
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name in learning)


def statistics_move(classifier: Classifier, learning: Collection[str], setting: str | None) -> bool:
    """Whether batch norms update their running statistics.

    They do only where the whole backbone learns, since few images, seen in small batches, would
    spoil the pretrained ones; `setting`, "learn" or "keep", decides otherwise.
    """
    if setting is not None:
        return setting == "learn"
    return all(f"backbone.{name}" in learning for name, _ in classifier.backbone.named_parameters())


def set_modes(
    backbone: nn.Module, behind: Iterable[nn.Module] | None, *, training: bool, move_statistics: bool
) -> None:
    """Puts the backbone's layers into training or evaluation mode.

    Args:
        backbone: the network.
        behind: modules that lie behind the frontier; all others stay in evaluation mode. None: all do.
        training: whether those behind the frontier are to train.
        move_statistics: whether batch norms among them update their running statistics.
    """
    # some networks note in evaluation what they make of their weights, and drop it when told to train
    backbone.train()
    backbone.eval()
    if not training or behind is None:
        return
    for module in behind:
        module.training = True
    if not move_statistics:
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
