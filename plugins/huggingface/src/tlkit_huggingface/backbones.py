"""Image models of `transformers` as backbones: ``transformers:./folder`` or ``transformers:hub/id``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tlkit import Backbone, PluginError, Preprocess, WeightsOrigin

if TYPE_CHECKING:
    from tlkit_huggingface.models import Loaded

Features = Literal["pooled", "map"]
PREFIX = "transformers:"


def list_names() -> Iterable[str]:
    """Returns no names: an address is any folder or hub id."""
    return ()


def find_factory(name: str) -> partial[Backbone] | None:
    """Returns the factory of a ``transformers:…`` name; None for other names."""
    return partial(from_address, name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def from_address(
    address: str, *, features: Features = "pooled", weights: Literal["pretrained", "none"] = "pretrained"
) -> Backbone:
    """An image model of transformers, with the preprocessing of its image processor.

    Its address is a folder, which begins with ``./``, ``../``, ``~/`` or ``/``, or else an id on the hub.
    Only safetensors weights are read, and code that comes with a model is never run.

    Args:
        features: "pooled": the input of the model's own classifier, ``(B, C)``; "map": its last hidden state,
            ``(B, N, C)`` or ``(B, C, h, w)``.
        weights: "pretrained": the model's own; "none": random.
    """
    from tlkit_huggingface.models import find_origin, load
    from tlkit_huggingface.preprocessing import read_preprocess

    loaded = load(address, pretrained=weights == "pretrained")
    origin = find_origin(address, loaded.location) if weights == "pretrained" else None
    return _backbone(loaded, features, read_preprocess(loaded.location), origin)


def from_config(
    *, config: dict[str, Any], features: Features = "pooled", weights: Literal["none"] = "none"
) -> Backbone:
    """An image model of transformers, made of its configuration alone, as a model folder holds it.

    Args:
        config: the content of the model's config.json; ``model_type`` is required.
        features: "pooled": the input of the model's own classifier, ``(B, C)``; "map": its last hidden state,
            ``(B, N, C)`` or ``(B, C, h, w)``.
        weights: "none": random; a model folder has its own.
    """
    from tlkit_huggingface.models import image_size, load_config

    loaded = load_config(config)
    return _backbone(loaded, features, Preprocess(size=image_size(loaded.model)))


def _backbone(
    loaded: Loaded, features: Features, preprocess: Preprocess, origin: WeightsOrigin | None = None
) -> Backbone:
    from tlkit_huggingface.models import remove_classifier
    from tlkit_huggingface.tracing import FeatureNetwork, traceable

    classifier = remove_classifier(loaded.model)
    network = FeatureNetwork(loaded.model, features, had_classifier=classifier is not None)
    try:
        module, blocks = traceable(network, preprocess.size)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        name, size = type(loaded.model).__name__, preprocess.size
        raise PluginError(f"{name} cannot be used for images of {size}x{size} pixels: {error}") from error
    blueprint = {"name": "transformers", "config": loaded.config, "features": features, "weights": "none"}
    return Backbone(
        module, preprocess, classifier, grouping=blocks, blueprint=blueprint, weights_origin=origin
    )
