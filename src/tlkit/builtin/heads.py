"""The toolkit's own heads: features to one logit per class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tlkit.errors import PluginError, close_matches
from tlkit.parts.backbone import Backbone
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

    from tlkit.plugins.registry import Register


@hookimpl
def tlkit_heads(register: Register) -> None:
    register("linear", linear)
    register("mlp", mlp)
    register("class-groups", class_groups)


def linear(backbone: Backbone, classes: Sequence[str], *, dropout: float = 0.0) -> nn.Module:
    """One linear layer on pooled features; feature maps are averaged over their positions first.

    Args:
        dropout: the part of the features that is left out in training, 0 to 1.
    """
    from tlkit.builtin.head_modules import Mlp

    return Mlp(backbone.feature_shape, len(classes), hidden=None, dropout=dropout, pool="average")


def mlp(
    backbone: Backbone,
    classes: Sequence[str],
    *,
    hidden: int = 256,
    dropout: float = 0.5,
    pool: Literal["flatten", "average"] = "flatten",
) -> nn.Module:
    """A small fully connected network: one hidden layer with ReLU and dropout.

    Args:
        hidden: units of the hidden layer.
        dropout: the part of the hidden units that is left out in training, 0 to 1.
        pool: what becomes of feature maps: "flatten" keeps every position, "average" their mean.
    """
    from tlkit.builtin.head_modules import Mlp

    return Mlp(backbone.feature_shape, len(classes), hidden=hidden, dropout=dropout, pool=pool)


def class_groups(
    backbone: Backbone, classes: Sequence[str], *, groups: dict[str, str | list[int]]
) -> nn.Module:
    """The pretrained network's own answer, its classes grouped into yours; nothing in it learns.

    A group's logit is the logsumexp of its classes' logits, so that the softmax over groups is the
    pretrained softmax summed within each group, and renormalised over the grouped classes.

    Args:
        groups: for each class, the pretrained classes that count as it: a list of indices, or a
            text such as "151-268" or "7, 281-285".
    """
    from tlkit.builtin.head_modules import ClassGroups

    if backbone.classifier is None:
        raise PluginError(
            "head 'class-groups' needs the backbone's pretrained last layer, and this backbone brings none: "
            "use pretrained weights that come with their classes"
        )
    shape, wanted = backbone.feature_shape, backbone.classifier.in_features
    if shape != (wanted,):
        raise PluginError(
            f"head 'class-groups' reads {wanted} pooled features, and the backbone gives {shape}: "
            'set features = "pooled" in the backbone\'s table'
        )
    for name in groups:
        if name not in classes:
            raise PluginError(
                f"head 'class-groups': no class is called {name!r}{close_matches(name, classes)}"
            )
    missing = [name for name in classes if name not in groups]
    if missing:
        raise PluginError(f"head 'class-groups': no group for {', '.join(missing)}")
    count = backbone.classifier.out_features
    return ClassGroups(backbone.classifier, [_indices(name, groups[name], count) for name in classes])


def _indices(name: str, group: str | list[int], count: int) -> list[int]:
    indices: list[int] = []
    if isinstance(group, str):
        for part in group.split(","):
            found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
            if found is None:
                raise PluginError(
                    f"head 'class-groups': group {name!r}: {part!r} is no index and no range a-b"
                )
            first = int(found[1])
            indices += range(first, int(found[2] or first) + 1)
    else:
        indices = group
    if not indices or not all(0 <= index < count for index in indices):
        raise PluginError(
            f"head 'class-groups': group {name!r} must name indices from 0 to {count - 1}, and is {group!r}"
        )
    return indices
