"""A network from images to features, as a plugin hands it over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from tlkit.errors import PluginError
from tlkit.parts.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn


#: How long the texts of a `WeightsOrigin` may be.
MAX_ORIGIN = 1000


@dataclass(frozen=True, slots=True)
class Block:
    """A group of a backbone's parameters that is frozen or trainable as one.

    Attributes:
        name: the module that ends the block, or what its author calls it.
        parameters: names as in ``module.named_parameters()``.
        start: the module that begins the block, where that has another name.
    """

    name: str
    parameters: tuple[str, ...]
    start: str | None = None

    @property
    def span(self) -> str:
        """Its first and its last module: ``blocks.5–6``, or ``layer4`` where they are the same."""
        if self.start is None or self.start == self.name:
            return self.name
        folder, _, last = self.name.rpartition(".")
        is_beside = bool(folder) and self.start.rpartition(".")[0] == folder
        return f"{self.start}–{last if is_beside else self.name}"


@dataclass(frozen=True, slots=True)
class WeightsOrigin:
    """Where pretrained weights come from, as results and model folders name it.

    Attributes:
        source: an address on the hub, a URL, a package with its version, or a file's or folder's name; never
            a path of this machine.
        license: their licence, as whoever published them names it; None: unknown.
    """

    source: str
    license: str | None = None

    def __post_init__(self) -> None:
        for value in (self.source, self.license or "unknown"):
            if not isinstance(value, str) or not 0 < len(value) <= MAX_ORIGIN:
                raise ValueError(
                    f"source and license are texts of 1 to {MAX_ORIGIN} characters, not {value!r:.40}"
                )

    def describe(self) -> str:
        """Returns both in one line."""
        return f"{self.source}, licence {self.license or 'unknown'}"


@dataclass
class Backbone:
    """A network from images to features.

    Attributes:
        module: maps float images ``(B, 3, H, W)`` to ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``.
        preprocess: the preprocessing that its images need.
        classifier: the pretrained last layer, from pooled features to the classes it was trained
            on, or None.
        method: the module's method that computes the features.
        grouping: its blocks from input to output; None: one per direct child with parameters.
        layers: names of its parameters by layer from input to output, finer than blocks, for layer-wise
            learning rates; the head belongs to the last one. None: a layer per block, and one for the head.
        blueprint: the recipe table that builds the same network without its weights, for a model
            folder; None: the table it was made from.
        timm_config: what timm needs to build it (``architecture``, ``model_args``, ``pretrained_cfg``);
            None: timm does not know it.
        weights_origin: where its pretrained weights come from; None: they are random, or it is unknown.
    """

    module: nn.Module
    preprocess: Preprocess = field(default_factory=Preprocess)
    classifier: nn.Linear | None = None
    method: str = "forward"
    grouping: Sequence[Block] | None = None
    layers: Sequence[Sequence[str]] | None = None
    blueprint: Mapping[str, Any] | None = None
    timm_config: Mapping[str, Any] | None = None
    weights_origin: WeightsOrigin | None = None

    def blocks(self) -> tuple[Block, ...]:
        """Returns the groups of parameters from input to output; each parameter is in exactly one."""
        if self.grouping is not None:
            return tuple(self.grouping)
        groups: dict[str, list[str]] = {}
        for name, _ in self.module.named_parameters():
            groups.setdefault(name.split(".")[0], []).append(name)
        return tuple(Block(name, tuple(names)) for name, names in groups.items())

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one image's features at ``preprocess.size``: ``(C, h, w)``, ``(N, C)`` or ``(C,)``.

        Shapes are propagated through the network without computing; a network that does not allow that is
        run once.

        Raises:
            PluginError: the network's output is not one tensor of such a shape.
        """
        import torch

        from tlkit.parts.shapes import preserve_values, shapes_only

        def shape() -> tuple[int, ...]:
            # two images, since some networks squeeze a batch of one away
            images = torch.zeros(2, 3, self.preprocess.size, self.preprocess.size)
            features = getattr(self.module.eval(), self.method)(images)
            if not isinstance(features, torch.Tensor) or features.ndim not in (2, 3, 4):
                shown = tuple(features.shape) if torch.is_tensor(features) else type(features)
                raise PluginError(
                    f"{type(self.module).__name__}.{self.method} must return features of shape (B, C, h, w), "
                    f"(B, N, C) or (B, C), not {shown}"
                )
            return tuple(features.shape[1:])

        try:
            with shapes_only(self.module):
                return shape()
        except PluginError:
            raise
        except Exception:
            with preserve_values(self.module):
                return shape()


class BlockNetwork(Protocol):
    """What a freeze policy is given: a network that knows its blocks, with a head named ``head.…``."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """Returns every parameter with its name."""

    def blocks(self) -> Sequence[Block]:
        """Returns the backbone's blocks from input to output, with the names of `named_parameters`."""
