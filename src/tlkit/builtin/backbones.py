"""All networks of timm as backbones, under timm's own names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlkit.errors import PluginError
from tlkit.parts.backbone import Backbone, WeightsOrigin
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

Features = Literal["pooled", "map"]
Weights = Literal["pretrained", "none"] | Path

#: Schemes of the addresses that timm accepts in place of a name: a folder, and a repository of the hub.
SCHEMES = ("local-dir:", "hf-hub:")


@hookimpl
def tlkit_backbones(register: Register) -> None:
    register.family("timm", lookup, names)


def names() -> Iterable[str]:
    """Returns every architecture of the installed timm, alone and with each tag that it has weights for."""
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]


def lookup(name: str) -> partial[Backbone] | None:
    """Returns the factory of a timm name, with or without a tag, or None if timm does not know it.

    Addresses that begin with ``local-dir:`` or ``hf-hub:`` are names too.

    Raises:
        PluginError: it is a folder's path without ``local-dir:``.
    """
    import timm

    if name.startswith(SCHEMES):
        return partial(timm_backbone, name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and not timm.models.is_model_pretrained(name)):
        if Path(name).is_dir():
            hint = f"for the network in that folder, write local-dir:{name}"
            raise PluginError(f"no backbone is called {name!r}: {hint}")
        return None
    return partial(timm_backbone, name)


def timm_backbone(
    name: str,
    *,
    features: Features = "pooled",
    weights: Weights = "pretrained",
    model_args: dict[str, Any] = {},  # noqa: B006  never changed; the default is shown to users
) -> Backbone:
    """Makes a network of timm, with the preprocessing that its weights were trained with.

    Args:
        features: "pooled": the input of timm's own last layer, ``(B, C)``; "map": the last feature
            maps ``(B, C, h, w)``, or the tokens ``(B, N, C)`` of a transformer.
        weights: "pretrained": timm's weights of this name; "none": random weights; or a .safetensors
            file.
        model_args: further arguments of the network, as for timm.create_model.
    """
    from tlkit.builtin.timm_weights import create_model, find_origin, saved_config
    from tlkit.parts.initial_values import without_initial_values
    from tlkit.parts.timm_backbone import divide_network, load_weights

    def make() -> Any:
        model = create_model(name, model_args, pretrained=weights == "pretrained")
        if isinstance(weights, Path):
            load_weights(model, weights)
        return model

    model = make() if weights == "none" else without_initial_values(make, lambda model: model)
    config = dict(model.pretrained_cfg)
    origin = None
    if isinstance(weights, Path):
        origin = WeightsOrigin(weights.name)
    elif weights == "pretrained":
        origin = find_origin(name, config)
    # the blueprint does not depend on a folder or the hub: a model folder has the weights itself
    architecture, saved_arguments = saved_config(name)
    arguments = {**saved_arguments, **model_args}
    blueprint: dict[str, Any] = {"name": architecture, "features": features, "weights": "none"}
    if arguments:
        blueprint["model_args"] = arguments
    return replace(
        divide_network(model, features=features),
        blueprint=blueprint,
        timm_config={"architecture": architecture, "model_args": arguments, "pretrained_cfg": config},
        weights_origin=origin,
    )
