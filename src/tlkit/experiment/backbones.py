"""The default backbone, and the one that replaces it where its weights cannot be downloaded."""

from __future__ import annotations

from pathlib import Path

import torch

from tlkit.errors import TlkitError, UnreachableWeightsError
from tlkit.experiment.observer import Observer
from tlkit.experiment.unreachable import PACKAGED, describe_backbone_error
from tlkit.plugins.registry import Registry
from tlkit.runtime.distributed import broadcast_from_main, process_state

#: Small enough for a laptop; its features, pretrained on ImageNet-12k, suit most photos.
BACKBONE = "convnext_nano.in12k_ft_in1k"


def choose_backbone(name: str | None, weights: str | None, *, registry: Registry, observer: Observer) -> str:
    """Returns the name of the backbone to train with; its weights are on this machine then.

    That is the one that was asked for, else `BACKBONE`. Where the weights of `BACKBONE` are neither on this
    machine nor can be downloaded, it is `PACKAGED`, whose weights are installed, and the observer is told.
    What else is wrong with the backbone is left to `run`, which reports all mistakes together.

    Args:
        name: the backbone that was asked for, if any.
        weights: its weights, as in a recipe, if any were asked for.
        registry: of all parts.
        observer: is told of a substitution.

    Raises:
        UnreachableWeightsError: the weights are not on this machine and cannot be downloaded; the message
            says what works without them.
    """
    # of several processes one decides: a hub may answer one of them only, and one download is enough
    main = process_state().is_main_process
    choice = broadcast_from_main(_choose(name, weights, registry, observer) if main else "")
    if isinstance(choice, UnreachableWeightsError):
        raise choice
    return choice


def _choose(
    name: str | None, weights: str | None, registry: Registry, observer: Observer
) -> str | UnreachableWeightsError:
    backbone = name or BACKBONE
    try:
        # makes it once more than the run does: that downloads what is missing, whichever plugin has it
        with torch.random.fork_rng(devices=[]):
            registry.make("backbone", backbone, {} if weights is None else {"weights": weights})
    except UnreachableWeightsError as error:
        if name is None and PACKAGED in registry.names("backbone"):
            observer.note(
                f"{error}. {PACKAGED} is used instead, whose weights are installed; to use another, give "
                "--backbone NAME, --backbone local-dir:PATH or --weights PATH.safetensors"
            )
            return PACKAGED
        flags = {"set_name": "--backbone ", "set_weights": "--weights "}
        return UnreachableWeightsError(describe_backbone_error(error, backbone, registry, **flags))
    except TlkitError:
        pass
    return backbone


def absolute_name(backbone: str) -> str:
    """Returns a backbone's name, that of a folder with an absolute path."""
    source, _, path = backbone.partition(":")
    return f"{source}:{Path(path).absolute()}" if source == "local-dir" else backbone
