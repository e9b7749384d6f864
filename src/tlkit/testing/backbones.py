"""The contract of a backbone."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlkit.errors import RunFolderError
from tlkit.model.classifier import Classifier
from tlkit.model.saving import load_model, save_model
from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess
from tlkit.testing.images import PROPORTIONS, noise
from tlkit.testing.parameter_order import parameter_order
from tlkit.testing.runner import (
    CLASSES,
    EXACT_TOLERANCE,
    ROUNDING_TOLERANCE,
    CheckFailed,
    NotApplicable,
    PartUnderTest,
    relative_difference,
    shortlist,
)
from tlkit.testing.train_step import changed_names, fine_tune_step, full_state, partition_problem

BATCHES = (1, 2, 5)


@dataclass
class Subject:
    """A backbone under test.

    Attributes:
        bench: how it was made.
        backbone: it, its network in evaluation mode.
    """

    bench: PartUnderTest
    backbone: Backbone

    @property
    def size(self) -> int:
        """Pixels of the images it is shown."""
        return self.backbone.preprocess.size

    def images(self, count: int, size: int | None = None) -> Tensor:
        """Noise ``(count, 3, size, size)``, the same on every call."""
        length = size or self.size
        generator = torch.Generator().manual_seed(1)
        return torch.randn(count, 3, length, length, generator=generator)

    def features(self, images: Tensor, module: nn.Module | None = None) -> Tensor:
        """The network's features of `images`, or those of a copy of it."""
        with torch.no_grad():
            made: Tensor = getattr(module or self.backbone.module, self.backbone.method)(images)
        return made

    def classifier(self) -> Classifier:
        """A copy of the network with a linear head, in evaluation mode."""
        head = self.bench.registry.make("head", "linear", {}, self.backbone, CLASSES)
        return Classifier(self.backbone, head).eval()


def setup(bench: PartUnderTest, preprocess: Mapping[str, Any] | None = None) -> Subject:
    """Makes the backbone, with these settings in place of its own preprocessing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone: Backbone = bench.part()
    if not isinstance(backbone, Backbone):
        raise TypeError(f"the factory must return a tlkit.Backbone, not {type(backbone).__name__}")
    backbone.preprocess = backbone.preprocess.override(preprocess or {})
    backbone.module.eval()
    return Subject(bench, backbone)


def preprocessing_is_complete(subject: Subject) -> str:
    """Its numbers can be right, and images of any proportions become uint8 ``(size, size, 3)``."""
    preprocess = subject.backbone.preprocess
    for name, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        low = 0.0 if name == "mean" else 1e-6
        if len(values) != 3 or not all(math.isfinite(value) and low <= value <= 1 for value in values):
            raise CheckFailed(
                expected=f"{name} to be three numbers from {low:g} to 1, of pixels scaled to 0–1",
                came=repr(tuple(values)),
                mend=f"divide by 255 what was measured on pixels from 0 to 255: Preprocess({name}=…)",
            )
    if preprocess.size < 1 or not 0 < preprocess.crop <= 1:
        raise CheckFailed(
            expected="a size of at least 1 pixel and a crop above 0 and at most 1",
            came=f"size {preprocess.size}, crop {preprocess.crop}",
            mend="correct them in tlkit.Preprocess(size=…, crop=…)",
        )
    for width, height in PROPORTIONS:
        pixels = preprocess(noise(width, height))
        due = (preprocess.size, preprocess.size, 3)
        if pixels.dtype != np.uint8 or pixels.shape != due:
            raise CheckFailed(
                expected=f"uint8 pixels {due} from an image {width} pixels wide and {height} high",
                came=f"{pixels.dtype} {pixels.shape}",
                mend="leave __call__ to tlkit.Preprocess",
            )
    return f"{preprocess.size} px, {preprocess.resize}"


def feature_shapes_agree(subject: Subject) -> str:
    """What `Backbone.feature_shape` declares is what comes, for several batch and image sizes."""
    declared = subject.backbone.feature_shape
    for count in BATCHES:
        shape_is(subject, declared, subject.size, count)
    taken, refused = [str(subject.size)], ""
    for size in _other_sizes(subject.size):
        try:
            subject.features(subject.images(2, size))
        except Exception as error:
            line = (str(error) or type(error).__name__).splitlines()[0]
            refused = refused or f"; {size} px are refused: {line}"
            continue
        other = replace(subject.backbone, preprocess=Preprocess(size=size))
        shape_is(subject, other.feature_shape, size, 2)
        taken.append(str(size))
    shape = "×".join(map(str, declared))
    return f"{shape} at {subject.size} px; takes {', '.join(taken)} px{refused}"


def _other_sizes(size: int) -> tuple[int, int]:
    """A smaller and a larger one, multiples of 32 as most networks want them."""
    return max(32, size // 64 * 32), (size // 32 + 1) * 32


def shape_is(subject: Subject, declared: tuple[int, ...], size: int, count: int) -> None:
    """That many images of that size have features of the declared shape."""
    came = tuple(subject.features(subject.images(count, size)).shape)
    if came != (count, *declared):
        raise CheckFailed(
            expected=f"features {(count, *declared)}, as feature_shape declares for {size} px and {count} "
            f"image{'s' * (count > 1)}",
            came=str(came),
            mend="declare what the network gives, (C, h, w), (N, C) or (C,), and never squeeze the batch's "
            "dimension",
        )


def features_repeat(subject: Subject) -> None:
    """A second call gives the same, and numbers only."""
    images = subject.images(2)
    first, second = subject.features(images), subject.features(images)
    if not first.isfinite().all():
        raise CheckFailed(
            expected="finite features",
            came=f"{int((~first.isfinite()).sum())} that are infinite or no number",
            mend="look for a division by zero or an overflow in the network, or in its weights' first values",
        )
    if relative_difference(first, second) > EXACT_TOLERANCE:
        raise CheckFailed(
            expected="the same features of the same images on a second call in evaluation mode",
            came=f"a difference of {relative_difference(first, second):.1e} of the largest value",
            mend="let dropout, noise and moving statistics work only where self.training is true",
        )


def evaluation_changes_no_state(subject: Subject) -> None:
    """A forward pass in evaluation mode leaves every parameter and buffer as it was."""
    module = copy.deepcopy(subject.backbone.module).eval()
    subject.features(subject.images(2), module)  # the first may note positions for an image size
    before = full_state(module)
    subject.features(subject.images(2), module)
    changed = changed_names(before, full_state(module))
    if changed:
        raise CheckFailed(
            expected="a forward pass in evaluation mode to change nothing",
            came=f"a change of {shortlist(changed)}",
            mend="change a buffer only where self.training is true, since a frozen network's features "
            "are made once and kept",
        )


def images_are_independent(subject: Subject) -> str:
    """An image's features do not depend on the others in its batch."""
    images = subject.images(3)
    together = subject.features(images)
    alone = torch.cat([subject.features(image[None]) for image in images])
    others = subject.features(torch.cat([images[:1], 3 * images[1:] + 1]))
    distance = max(relative_difference(alone, together), relative_difference(others[:1], together[:1]))
    if distance > ROUNDING_TOLERANCE:
        raise CheckFailed(
            expected="an image's features to be the same alone and beside other images in evaluation mode",
            came=f"a difference of {distance:.1e} of the largest value",
            mend="use no statistics over the batch (dimension 0) in evaluation mode: a batch norm needs "
            "track_running_stats=True",
        )
    return f"differ by {distance:.0e} of the largest value"


def blocks_cover_every_parameter_once(subject: Subject) -> str:
    """`blocks()` names each parameter in exactly one block, and no other."""
    blocks = subject.backbone.blocks()
    names = [name for name, _ in subject.backbone.module.named_parameters()]
    grouped = [name for block in blocks for name in block.parameters]
    mend = "return in Backbone(grouping=…) every name of module.named_parameters() in exactly one Block"
    missing = [name for name in names if name not in set(grouped)]
    unknown = [name for name in grouped if name not in set(names)]
    twice = sorted({name for name in grouped if grouped.count(name) > 1})
    for wrong, what in ((missing, "in no block"), (unknown, "no parameter"), (twice, "in more than one")):
        if wrong:
            raise CheckFailed(
                expected=f"each of {len(names)} parameters in one block",
                came=f"{shortlist(wrong)}: {what}",
                mend=mend,
            )
    empty = [block.name for block in blocks if not block.parameters]
    if empty:
        raise CheckFailed(
            expected="parameters in every block", came=f"none in {shortlist(empty)}", mend="leave it out"
        )
    return f"{len(blocks)} blocks, {len(names)} parameters"


def blocks_go_from_input_to_output(subject: Subject) -> None:
    """Blocks are met in their order: each one's first parameter is read behind that of the block before."""
    module = subject.backbone.module
    first = parameter_order(module, lambda: subject.features(subject.images(2)))
    met = []
    for block in subject.backbone.blocks():
        places = [first[name] for name in block.parameters if name in first]
        if places:
            met.append((min(places), block.name))
    for (place, name), (other, following) in pairwise(met):
        if other < place:
            raise CheckFailed(
                expected="blocks in the order in which an image meets them",
                came=f"block {following!r}, listed behind {name!r}, is met before it",
                mend="order Backbone(grouping=…) from input to output, and put a parameter that is read "
                "early into an early block: the last blocks are the ones that learn",
            )


def splits_at_every_block(subject: Subject) -> str:
    """In front of each number of last blocks the classifier divides, and computes what the whole does."""
    blocks = subject.backbone.blocks()
    if not blocks:
        raise NotApplicable("it has no parameters")
    classifier = subject.classifier()
    images = subject.images(2)
    reasons = [partition_problem(classifier, count, images) for count in range(len(blocks))]
    kept = sum(reason is None for reason in reasons)
    why = [f"{count} learning: {reason}" for count, reason in enumerate(reasons) if reason]
    if not kept:
        raise NotApplicable(f"it trains whole, which works but keeps no features: {why[-1]}")
    return f"at {kept} of {len(blocks)} places{'; with ' + shortlist(why, 2) if why else ''}"


def what_is_frozen_stays(subject: Subject) -> str:
    """A training step of the last block and the head moves nothing else, not by one bit."""
    if not subject.backbone.blocks():
        raise NotApplicable("it has no parameters")
    return fine_tune_step(subject.classifier(), subject.images(4))


def every_block_can_learn(subject: Subject) -> None:
    """With nothing frozen, every block has a gradient."""
    classifier = subject.classifier().train()
    for value in classifier.parameters():
        value.requires_grad_(value.is_floating_point())
    classifier(subject.images(4)).square().sum().backward()
    gradients = {name: value.grad for name, value in classifier.named_parameters()}
    without = [
        block.name
        for block in classifier.blocks()
        if all(gradients[name] is None for name in block.parameters)
    ]
    if without:
        raise CheckFailed(
            expected="a gradient for every block when nothing is frozen",
            came=f"none for {shortlist(without)}",
            mend="look for detach() or no_grad() in the network, or a block that the features do not pass",
        )


def a_model_folder_brings_it_back(subject: Subject) -> None:
    """Saved and loaded, it has the same state, the same preprocessing and the same logits."""
    classifier, bench = subject.classifier(), subject.bench
    images = subject.images(2)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        save_model(
            folder,
            classifier,
            subject.backbone,
            backbone_table={"name": bench.name, **bench.options},
            head_table={"name": "linear"},
            classes=CLASSES,
            calibration={"temperature": 1.0, "reject_below": None},
        )
        try:
            saved = load_model(folder, bench)
        except RunFolderError as error:
            raise CheckFailed(
                expected="a second network from the same options, with the same parameters",
                came=str(error).replace(str(folder), "the model folder"),
                mend="let options alone decide how it is built, or give Backbone(blueprint=…), those that do",
            ) from error
    changed = changed_names(classifier.state_dict(), saved.classifier.state_dict())
    with torch.no_grad():
        distance = relative_difference(saved.classifier(images), classifier(images))
    if changed or distance > EXACT_TOLERANCE or saved.backbone.preprocess != subject.backbone.preprocess:
        wrong = (
            f"other values of {shortlist(changed)}" if changed else f"logits that differ by {distance:.1e}"
        )
        raise CheckFailed(
            expected="the same weights, preprocessing and logits after saving and loading",
            came=wrong if changed or distance > EXACT_TOLERANCE else f"{saved.backbone.preprocess}",
            mend="let the network be made by its options alone, and register all it needs to know as "
            "parameters or buffers (persistent=True)",
        )


def works_under_autocast(subject: Subject) -> str:
    """Under bfloat16 autocast the features have the same shape and are numbers."""
    images = subject.images(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = subject.features(images)
    plain = subject.features(images)
    if features.shape != plain.shape or not features.isfinite().all():
        raise CheckFailed(
            expected=f"finite features {tuple(plain.shape)} under torch.autocast with bfloat16",
            came=f"{tuple(features.shape)}, {int((~features.isfinite()).sum())} not finite",
            mend="compute sensitive steps in float32: x.float()",
        )
    return f"differ by {relative_difference(features, plain):.0e} of the largest value"


def works_in_channels_last(subject: Subject) -> None:
    """In channels-last layout the features are the same."""
    module = copy.deepcopy(subject.backbone.module).eval()
    module.to(memory_format=torch.channels_last)
    images = subject.images(2)
    came = subject.features(images.to(memory_format=torch.channels_last), module)
    distance = relative_difference(came, subject.features(images))
    if distance > ROUNDING_TOLERANCE:
        raise CheckFailed(
            expected="the same features in channels-last layout, which is faster for convolutions",
            came=f"a difference of {distance:.1e} of the largest value",
            mend="use reshape() and flatten() where view() or strides assume an order in memory",
        )


def can_be_copied_and_moved(subject: Subject) -> str:
    """A copy computes the same and shares nothing, and no tensor stays behind when it is moved."""
    module = subject.backbone.module
    twin = copy.deepcopy(module).eval()
    images = subject.images(2)
    distance = relative_difference(subject.features(images, twin), subject.features(images))
    own = {value.data_ptr() for value in module.parameters() if value.numel()}
    shared = [name for name, value in twin.named_parameters() if value.data_ptr() in own]
    if distance > EXACT_TOLERANCE or shared:
        raise CheckFailed(
            expected="a deep copy to compute the same with parameters of its own",
            came=f"shared {shortlist(shared)}" if shared else f"a difference of {distance:.1e}",
            mend="hold parameters in modules, and other modules as attributes, never in closures or globals",
        )
    if torch.cuda.is_available():
        subject.features(images.cuda(), twin.cuda())
    left = [name for name, value in _plain_tensors(twin.to("meta")) if value.device.type != "meta"]
    if left:
        raise CheckFailed(
            expected="module.to(device) to move every tensor",
            came=f"{shortlist(left)} left behind",
            mend="make it a buffer: self.register_buffer(name, tensor, persistent=False)",
        )
    return "" if torch.cuda.is_available() else "no graphics card here: what moves was looked at, not run"


def _plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that modules hold as ordinary attributes, in lists and dictionaries too."""
    for prefix, owner in module.named_modules():
        for key, value in vars(owner).items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            inner = value.values() if isinstance(value, dict) else value
            held = list(inner) if isinstance(inner, (list, tuple, type({}.values()))) else [value]
            for each in held:
                if isinstance(each, Tensor):
                    yield f"{prefix}.{key}".lstrip("."), each


CHECKS = (
    preprocessing_is_complete,
    feature_shapes_agree,
    features_repeat,
    evaluation_changes_no_state,
    images_are_independent,
    blocks_cover_every_parameter_once,
    blocks_go_from_input_to_output,
    splits_at_every_block,
    what_is_frozen_stays,
    every_block_can_learn,
    a_model_folder_brings_it_back,
    works_under_autocast,
    works_in_channels_last,
    can_be_copied_and_moved,
)
