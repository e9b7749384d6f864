"""The built-in heads: features to one logit per class."""

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
    register("linear", linear, tasks=("multiclass", "multilabel"))
    register("mlp", mlp, tasks=("multiclass", "multilabel"))
    register("probe", probe, tasks=("multiclass", "multilabel"))
    register("prototype", prototype)
    register("knn", knn)
    register("class-groups", class_groups)


def linear(backbone: Backbone, classes: Sequence[str], *, dropout: float = 0.0) -> nn.Module:
    """Makes one linear layer on pooled features; feature maps and tokens are averaged over their positions.

    Args:
        dropout: probability that a feature is dropped in training, 0 to 1.
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
    """Makes a fully connected network with one hidden layer, ReLU and dropout.

    Args:
        hidden: number of hidden units.
        dropout: probability that a hidden unit is dropped in training, 0 to 1.
        pool: "flatten" keeps every position of feature maps and tokens, "average" averages over them.
    """
    from tlkit.builtin.head_modules import Mlp

    return Mlp(backbone.feature_shape, len(classes), hidden=hidden, dropout=dropout, pool=pool)


def probe(backbone: Backbone, classes: Sequence[str], *, kernel: bool = True) -> nn.Module:
    """Makes a logistic regression on pooled features that fits itself.

    Its strength, and whether it is linear or has a kernel, are chosen by log loss out of fold among the
    training images. The kernel is radial, on the features' square roots, as wide as the median distance.

    Args:
        kernel: whether the kernel form is tried beside the linear one.
    """
    from tlkit.builtin.probe import Probe

    return Probe(backbone.feature_shape, len(classes), kernel=kernel)


def prototype(backbone: Backbone, classes: Sequence[str]) -> nn.Module:
    """Makes a head that compares pooled features with each class's mean by cosine; it fits itself."""
    from tlkit.builtin.head_modules import Prototypes

    return Prototypes(backbone.feature_shape, len(classes))


def knn(
    backbone: Backbone, classes: Sequence[str], *, neighbours: int = 20, temperature: float = 0.07
) -> nn.Module:
    """Makes a head that lets the most similar training images vote; it fits itself.

    The model folder holds the pooled features of all training images.

    Args:
        neighbours: number of training images that vote.
        temperature: a vote weighs ``exp(cosine / temperature)``.
    """
    from tlkit.builtin.head_modules import Neighbours

    if neighbours < 1 or not 0 < temperature <= 100:
        raise PluginError(
            "head 'knn': neighbours must be at least 1, and temperature above 0 and at most 100"
        )
    return Neighbours(backbone.feature_shape, len(classes), neighbours=neighbours, temperature=temperature)


def class_groups(
    backbone: Backbone, classes: Sequence[str], *, groups: dict[str, str | list[int]]
) -> nn.Module:
    """Groups the classes of the pretrained network into yours; it has no trainable parameters.

    A group's logit is the logsumexp of its classes' logits. The softmax over groups is therefore the
    pretrained softmax, summed within each group and renormalised over the grouped classes.

    Args:
        groups: for each class, the pretrained classes that belong to it: a list of indices, or a
            string such as "151-268" or "7, 281-285".
    """
    from tlkit.builtin.head_modules import ClassGroups

    if backbone.classifier is None:
        raise PluginError(
            "head 'class-groups' needs the pretrained last layer, which this backbone does not have: "
            "use pretrained weights that include their classifier"
        )
    shape, width = backbone.feature_shape, backbone.classifier.in_features
    if shape != (width,):
        raise PluginError(
            f"head 'class-groups' needs {width} pooled features, but the backbone's features have the shape "
            f'{shape}: set features = "pooled" in the backbone\'s table'
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
    """Returns the indices of the `count` pretrained classes that a group consists of."""
    indices = _parse_ranges(name, group) if isinstance(group, str) else group
    if not indices or not all(0 <= index < count for index in indices):
        raise PluginError(
            f"head 'class-groups': group {name!r} must name indices from 0 to {count - 1}, and is {group!r}"
        )
    return indices


def _parse_ranges(name: str, text: str) -> list[int]:
    indices: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise PluginError(
                f"head 'class-groups': group {name!r}: {part!r} is neither an index nor a range a-b"
            )
        first = int(match[1])
        indices += range(first, int(match[2] or first) + 1)
    return indices
