"""Image models of `transformers` as backbones: ``transformers:./folder`` or ``transformers:hub/id``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tlkit import Backbone, PluginError, Preprocess

if TYPE_CHECKING:
    from tlkit_huggingface.models import Loaded

Features = Literal["pooled", "map"]
PREFIX = "transformers:"


def names() -> Iterable[str]:
    """Nothing to choose from: an address is a folder or a hub's id."""
    return ()


def lookup(name: str) -> partial[Backbone] | None:
    """The factory of a ``transformers:…`` name."""
    return partial(from_address, name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def from_address(
    address: str, *, features: Features = "pooled", weights: Literal["pretrained", "none"] = "pretrained"
) -> Backbone:
    """An image model of transformers', with the preprocessing of its image processor.

    Its address is a folder, written with ``./``, ``../``, ``~/`` or ``/`` in front, or else an id on the hub.
    Only safetensors weights are read, and no code that comes with a model is run.

    Args:
        features: "pooled": what the model's own classifier sees, ``(B, C)``; "map": its last hidden state,
            ``(B, N, C)`` or ``(B, C, h, w)``.
        weights: "pretrained": the model's own; "none": random.
    """
    from tlkit_huggingface.models import load
    from tlkit_huggingface.preprocessing import preprocess_of

    loaded = load(address, pretrained=weights == "pretrained")
    return _backbone(loaded, features, preprocess_of(loaded.place))


def rebuilt(
    *, config: dict[str, Any], features: Features = "pooled", weights: Literal["none"] = "none"
) -> Backbone:
    """An image model of transformers' from its configuration alone, as a model folder keeps it.

    Args:
        config: what the model's config.json says; ``model_type`` is needed.
        features: "pooled": what the model's own classifier sees, ``(B, C)``; "map": its last hidden state,
            ``(B, N, C)`` or ``(B, C, h, w)``.
        weights: "none": random; a model folder brings its own.
    """
    from tlkit_huggingface.models import from_config, image_size

    loaded = from_config(config)
    return _backbone(loaded, features, Preprocess(size=image_size(loaded.model)))


def _backbone(loaded: Loaded, features: Features, preprocess: Preprocess) -> Backbone:
    from tlkit_huggingface.models import last_layer
    from tlkit_huggingface.tracing import Reading, divisible

    classifier = last_layer(loaded.model)
    reading = Reading(loaded.model, features, is_classified=classifier is not None)
    try:
        module, blocks = divisible(reading, preprocess.size)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        kind, size = type(loaded.model).__name__, preprocess.size
        raise PluginError(f"{kind} cannot be used for images of {size}x{size} pixels: {error}") from error
    blueprint = {"name": "transformers", "config": loaded.table, "features": features, "weights": "none"}
    return Backbone(module, preprocess, classifier, grouping=blocks, blueprint=blueprint)
