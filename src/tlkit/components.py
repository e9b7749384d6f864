"""What parts look like: plain values that hooks hand to the toolkit.

Importing this module imports neither torch nor Pillow, so a plugin stays cheap to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tlkit.errors import PluginError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import nn

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

#: What files of an image folder count as images. Formats that cannot be read are among them on
#: purpose: a photo in one is then reported, not overlooked.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .tif .tiff .webp .ppm .pgm .pbm .pnm "
    ".avif .heic .heif .jp2 .jxl".split()
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file.

    Attributes:
        id: unique and stable within its source, with ``/`` between folders: what results name it by.
        path: the file.
        label: index into the source's classes, or None for an unlabelled image.
        split: where the source says it belongs, or None where the toolkit is to draw it.
    """

    id: str
    path: Path
    label: int | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """Something a source can be fetched from.

    Attributes:
        url: where it is.
        bytes: its size.
        sha256: its checksum, in hexadecimal.
        unpack_to: folder to unpack it into, relative to the source's root.
    """

    url: str
    bytes: int
    sha256: str
    unpack_to: str = "."


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled images, and unlabelled ones where there are any.

    Attributes:
        classes: class names; a label is an index into them.
        samples: the labelled images.
        unlabelled: images without a label.
        downloads: what `tlkit fetch` can get when the images are not there.
        make: gives the content of an image's file where there is none yet, for sources that make
            their images themselves; always the same for the same sample.
        about: what a reader of results should know about the images; shown with every result.
    """

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    unlabelled: Sequence[Sample] = ()
    downloads: Sequence[Download] = ()
    make: Callable[[Sample], bytes] | None = None
    about: str = ""

    def __len__(self) -> int:
        """How many images there are, with and without a label."""
        return len(self.samples) + len(self.unlabelled)


@dataclass(frozen=True)
class Preprocess:
    """The fixed way from a decoded image to a network's input; it travels with the model.

    Resizing is timm's own, on Pillow images, so the pixels are those the weights were made for.

    Attributes:
        size: height and width of the result, in pixels.
        resize: "crop": shorter side to ``size / crop``, then the centre; "squash": both sides,
            whatever the proportions; "pad": longer side, then a border.
        crop: the part of the resized image that the centre crop keeps, above 0 and at most 1.
        interpolation: "bilinear", "bicubic", "lanczos" or "nearest".
        mean: per channel, of pixels scaled to 0–1.
        std: per channel, of pixels scaled to 0–1.
    """

    size: int = 224
    resize: Literal["crop", "squash", "pad"] = "crop"
    crop: float = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def override(self, options: Mapping[str, Any]) -> Preprocess:
        """These settings with `options` in place of their own.

        Squashing or padding is meant to keep the whole image, so it sets ``crop`` to 1 unless
        `options` says otherwise.
        """
        changes = dict(options)
        if changes.get("resize", "crop") != "crop":
            changes.setdefault("crop", 1.0)
        for name in ("mean", "std"):
            if name in changes:
                changes[name] = tuple(changes[name])
        return replace(self, **changes)

    @cached_property
    def _resizing(self) -> Callable[[Image.Image], NDArray[np.uint8]]:
        from timm.data import create_transform

        mode = {"crop": "center", "squash": "squash", "pad": "border"}[self.resize]
        # use_prefetcher makes timm end with uint8 pixels instead of a normalised tensor
        pipeline: Any = create_transform(
            (3, self.size, self.size),
            is_training=False,
            use_prefetcher=True,
            interpolation=self.interpolation,
            crop_pct=self.crop,
            crop_mode=mode,
        )
        return pipeline  # type: ignore[no-any-return]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resizes and crops a decoded RGB image.

        Returns:
            Pixels, uint8 RGB ``(size, size, 3)``, not yet normalised.
        """
        import numpy as np

        return np.ascontiguousarray(np.asarray(self._resizing(image)).transpose(1, 2, 0))


@dataclass(frozen=True, slots=True)
class Block:
    """A group of a backbone's parameters that is frozen or learns as one.

    Attributes:
        name: the module that ends the block, or what its author calls it.
        parameters: names as in ``module.named_parameters()``.
    """

    name: str
    parameters: tuple[str, ...]


@dataclass
class Backbone:
    """A network from images to features.

    Attributes:
        module: takes float images ``(B, 3, H, W)``, gives ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``.
        preprocess: what its images must have gone through.
        classifier: the pretrained last layer, from pooled features to the classes it was trained
            on, or None.
        method: the module's method that makes the features.
        grouping: its blocks from input to output; None: one per direct child with parameters.
        blueprint: the recipe table that builds the same network without its weights, for a model
            folder; None: the table it was made from.
        timm_config: what timm would need to build it (``architecture``, ``model_args``,
            ``pretrained_cfg``); None: timm does not know it.
    """

    module: nn.Module
    preprocess: Preprocess = field(default_factory=Preprocess)
    classifier: nn.Linear | None = None
    method: str = "forward"
    grouping: Sequence[Block] | None = None
    blueprint: Mapping[str, Any] | None = None
    timm_config: Mapping[str, Any] | None = None

    def blocks(self) -> tuple[Block, ...]:
        """The groups of parameters from input to output; each parameter is in exactly one."""
        if self.grouping is not None:
            return tuple(self.grouping)
        groups: dict[str, list[str]] = {}
        for name, _ in self.module.named_parameters():
            groups.setdefault(name.split(".")[0], []).append(name)
        return tuple(Block(name, tuple(names)) for name, names in groups.items())

    @cached_property
    def feature_shape(self) -> tuple[int, ...]:
        """One image's features at ``preprocess.size``: ``(C, h, w)``, ``(N, C)`` or ``(C,)``.

        Found by following shapes through the network, without computing; only a network that does
        not allow that is run once.
        """
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        def shape() -> tuple[int, ...]:
            # two images, since some networks drop a dimension of length one
            images = torch.zeros(2, 3, self.preprocess.size, self.preprocess.size)
            with torch.no_grad(), untouched(self.module):
                features = getattr(self.module.eval(), self.method)(images)
            if not isinstance(features, torch.Tensor) or features.ndim not in (2, 3, 4):
                raise PluginError(
                    f"{type(self.module).__name__}.{self.method} gives no features (B, C, h, w), (B, N, C) "
                    f"or (B, C) but {tuple(features.shape) if torch.is_tensor(features) else type(features)}"
                )
            return tuple(features.shape[1:])

        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                return shape()
        except PluginError:
            raise
        except Exception:
            return shape()


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Puts every attribute and buffer of a network back afterwards.

    Some networks note positions or sizes for the next call; what they note while shapes alone
    are followed cannot be computed with.
    """
    attributes = [vars(each) for each in module.modules()]
    # dictionaries among them hold buffers, or what a network has noted by size or device
    notes = [value for each in attributes for value in each.values() if isinstance(value, dict)]
    before = [(each, dict(each)) for each in (*attributes, *notes)]
    try:
        yield
    finally:
        for each, content in before:
            each.clear()
            each.update(content)


class BlockNetwork(Protocol):
    """What a freeze policy is given: a network that knows its blocks, its head named ``head.…``."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """Every parameter with its name."""

    def blocks(self) -> Sequence[Block]:
        """The backbone's blocks from input to output, with the names that `named_parameters` uses."""
