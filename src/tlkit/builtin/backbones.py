"""All of timm's networks as backbones, under timm's own names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlkit.components import Backbone, Preprocess
from tlkit.errors import PluginError
from tlkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

    from tlkit.components import Block
    from tlkit.plugins import Register

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
    from tlkit.builtin.timm_weights import create, load_file

    model = create(name, model_args, pretrained=weights == "pretrained")
    if isinstance(weights, Path):
        load_file(model, weights)
    config = dict(model.pretrained_cfg)
    classifier = _last_layer(model)
    # hub and folder addresses are left behind: the model folder brings the weights itself
    arguments = {**_saved_arguments(name), **model_args}
    architecture = config["architecture"]
    blueprint: dict[str, Any] = {"name": architecture, "features": features, "weights": "none"}
    if arguments:
        blueprint["model_args"] = arguments
    preprocess = _preprocess(name, config)
    module, method = _cut(model, features, preprocess)
    return Backbone(
        module,
        preprocess=preprocess,
        classifier=classifier,
        method=method,
        grouping=_blocks(module),
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


def _last_layer(model: Any) -> nn.Linear | None:
    """The last layer, apart from the network, where it is one linear layer."""
    from torch import nn

    layer = model.get_classifier()
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        linear = nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias is not None)
        linear.load_state_dict(
            {key: value.flatten(1) if value.ndim == 4 else value for key, value in layer.state_dict().items()}
        )
        return linear
    return copy.deepcopy(layer) if isinstance(layer, nn.Linear) else None


def _cut(model: Any, features: Features, preprocess: Preprocess) -> tuple[nn.Module, str]:
    """Takes off what the features do not need; the module and its method that makes them."""
    if features == "pooled":
        model.reset_classifier(0)
        return model, "forward"
    if hasattr(model, "prune_intermediate_layers"):
        # timm's own way to leave everything behind the last maps out, VGG's convolution-like head too
        model.prune_intermediate_layers(indices=1, prune_norm=False, prune_head=True)
    else:
        model.reset_classifier(0, "")
    maps = len(Backbone(model, preprocess, method="forward_features").feature_shape) == 3
    if maps and getattr(model, "output_fmt", "NCHW") == "NHWC":
        from tlkit.builtin.timm_weights import ChannelsFirst

        return ChannelsFirst(model), "forward"
    return model, "forward_features"


def _preprocess(name: str, config: Mapping[str, Any]) -> Preprocess:
    _, height, width = config["input_size"]
    if height != width:
        raise PluginError(f"backbone {name!r} takes {height}x{width} images; only square ones are supported")
    resize: dict[str, Any] = {"center": "crop", "squash": "squash", "border": "pad"}
    return Preprocess(
        size=height,
        resize=resize[config.get("crop_mode") or "center"],
        crop=config.get("crop_pct") or 0.875,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _blocks(module: nn.Module) -> list[Block]:
    from tlkit.builtin.timm_blocks import blocks

    return blocks(module)
