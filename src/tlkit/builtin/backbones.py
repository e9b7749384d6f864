"""All of timm's networks as backbones, under timm's own names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlkit.parts.backbone import Backbone
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

Features = Literal["pooled", "map"]
Weights = Literal["pretrained", "none"] | Path

SOURCES = ("local-dir:", "hf-hub:")


@hookimpl
def tlkit_backbones(register: Register) -> None:
    register.family("timm", lookup, names)


def names() -> Iterable[str]:
    """Every architecture of the installed timm, and each with the tags it has weights for."""
    import timm

    return [*timm.list_models(), *timm.list_pretrained()]


def lookup(name: str) -> partial[Backbone] | None:
    """The factory of a timm name, with or without a tag, or of a ``local-dir:`` or ``hf-hub:`` address."""
    import timm

    if name.startswith(SOURCES):
        return partial(timm_backbone, name)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or (tag and not timm.models.is_model_pretrained(name)):
        return None
    return partial(timm_backbone, name)


def timm_backbone(
    name: str,
    *,
    features: Features = "pooled",
    weights: Weights = "pretrained",
    model_args: dict[str, Any] = {},  # noqa: B006  never changed; the default is shown to users
) -> Backbone:
    """A network of timm's, with the preprocessing its weights were made for.

    Args:
        features: "pooled": what timm's own last layer sees, ``(B, C)``; "map": the last activation
            maps ``(B, C, h, w)``, or the tokens ``(B, N, C)`` of a transformer.
        weights: "pretrained": timm's own for this name; "none": random; or a .safetensors file.
        model_args: further arguments of the network, as timm.create_model takes them.
    """
    from tlkit.builtin.timm_weights import create
    from tlkit.parts.timm_backbone import from_timm, load_weights

    model = create(name, model_args, pretrained=weights == "pretrained")
    if isinstance(weights, Path):
        load_weights(model, weights)
    config = dict(model.pretrained_cfg)
    # hub and folder addresses are left behind: the model folder brings the weights itself
    arguments = {**_saved_arguments(name), **model_args}
    architecture = config["architecture"]
    blueprint: dict[str, Any] = {"name": architecture, "features": features, "weights": "none"}
    if arguments:
        blueprint["model_args"] = arguments
    return replace(
        from_timm(model, features=features),
        blueprint=blueprint,
        timm_config={"architecture": architecture, "model_args": arguments, "pretrained_cfg": config},
    )


def _saved_arguments(name: str) -> dict[str, Any]:
    """What a folder's or a hub's own config.json says the network was made with."""
    from timm.models import load_model_config_from_hf
    from timm.models._hub import load_model_config_from_path

    if not name.startswith(SOURCES):
        return {}
    source, _, address = name.partition(":")
    read = load_model_config_from_path if source == "local-dir" else load_model_config_from_hf
    return dict(read(address)[2] or {})
