"""Checks of a backbone's preprocessing and of the features that it computes."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import torch

from tlkit.parts.preprocess import Preprocess
from tlkit.testing.backbone_subject import Subject
from tlkit.testing.images import IMAGE_SIZES, noise
from tlkit.testing.runner import (
    EXACT_TOLERANCE,
    ROUNDING_TOLERANCE,
    CheckFailed,
    relative_difference,
)
from tlkit.testing.train_step import changed_names, full_state
from tlkit.utils.formatting import plural, shortlist

BATCH_SIZES = (1, 2, 5)


def preprocessing_is_complete(subject: Subject) -> str:
    """Its values are possible, and images of any aspect ratio become uint8 ``(size, size, 3)``."""
    preprocess = subject.backbone.preprocess
    for name, values, low in (("mean", preprocess.mean, 0.0), ("std", preprocess.std, 1e-6)):
        if len(values) != 3 or not all(math.isfinite(value) and low <= value <= 1 for value in values):
            raise CheckFailed(
                expected=f"three numbers from {low:g} to 1 as {name}, for pixels scaled to 0–1",
                got=repr(tuple(values)),
                fix=f"divide values for pixels from 0 to 255 by 255: Preprocess({name}=…)",
            )
    if preprocess.size < 1 or not 0 < preprocess.crop <= 1:
        raise CheckFailed(
            expected="a size of at least 1 pixel, and a crop above 0 and at most 1",
            got=f"size {preprocess.size}, crop {preprocess.crop}",
            fix="correct them in tlkit.Preprocess(size=…, crop=…)",
        )
    expected = (preprocess.size, preprocess.size, 3)
    for width, height in IMAGE_SIZES:
        pixels = preprocess(noise(width, height))
        if pixels.dtype != np.uint8 or pixels.shape != expected:
            raise CheckFailed(
                expected=f"uint8 pixels of shape {expected} from an image {width} pixels wide and {height} "
                "high",
                got=f"{pixels.dtype} {pixels.shape}",
                fix="use tlkit.Preprocess, without another __call__",
            )
    return f"{preprocess.size} px, {preprocess.resize}"


def feature_shapes_agree(subject: Subject) -> str:
    """Features have the shape that `Backbone.feature_shape` declares, for several batch and image sizes."""
    declared = subject.backbone.feature_shape
    for count in BATCH_SIZES:
        expect_shape(subject, declared, subject.size, count)
    accepted, refused = [str(subject.size)], ""
    for size in _other_sizes(subject.size):
        try:
            subject.features(subject.images(2, size))
        except Exception as error:
            line = (str(error) or type(error).__name__).splitlines()[0]
            refused = refused or f"; refuses {size} px: {line}"
            continue
        other = replace(subject.backbone, preprocess=Preprocess(size=size))
        expect_shape(subject, other.feature_shape, size, 2)
        accepted.append(str(size))
    shape = "×".join(map(str, declared))
    return f"{shape} at {subject.size} px; takes {', '.join(accepted)} px{refused}"


def its_classifier_takes_its_features(subject: Subject) -> str:
    """The pretrained last layer, where there is one, takes pooled features as they are."""
    backbone = subject.backbone
    if backbone.classifier is None or len(backbone.feature_shape) > 1:
        return "no classifier of pooled features"
    width, (channels,) = backbone.classifier.in_features, backbone.feature_shape
    if width != channels:
        raise CheckFailed(
            expected=f"a classifier for {channels} features, as feature_shape says",
            got=f"one for {width}",
            fix="give Backbone(classifier=…) the layer that follows these features in the pretrained "
            "network, or leave it out",
        )
    return f"for {backbone.classifier.out_features:,} classes"


def _other_sizes(size: int) -> tuple[int, int]:
    """Returns a smaller and a larger size; multiples of 32, as most networks require."""
    return max(32, size // 64 * 32), (size // 32 + 1) * 32


def expect_shape(subject: Subject, declared: tuple[int, ...], size: int, count: int) -> None:
    """Raises CheckFailed unless `count` images of that size have features of the declared shape."""
    shape = tuple(subject.features(subject.images(count, size)).shape)
    if shape != (count, *declared):
        raise CheckFailed(
            expected=f"features of shape {(count, *declared)}, as feature_shape declares for "
            f"{plural(count, 'image')} of {size} px",
            got=str(shape),
            fix="declare the shape that the network returns, (C, h, w), (N, C) or (C,), and never squeeze "
            "the batch dimension",
        )


def features_repeat(subject: Subject) -> None:
    """Features are finite, and a second call computes the same."""
    images = subject.images(2)
    first, second = subject.features(images), subject.features(images)
    if not first.isfinite().all():
        raise CheckFailed(
            expected="finite features",
            got=f"{int((~first.isfinite()).sum())} that are infinite or NaN",
            fix="look for a division by zero or an overflow in the network, or for bad initial weights",
        )
    difference = relative_difference(first, second)
    if difference > EXACT_TOLERANCE:
        raise CheckFailed(
            expected="the same features on a second call in evaluation mode",
            got=f"a difference of {difference:.1e} of the largest value",
            fix="apply dropout, noise and updates of statistics only where self.training is true",
        )


def evaluation_changes_no_state(subject: Subject) -> None:
    """A forward pass in evaluation mode changes no parameter and no buffer."""
    module = copy.deepcopy(subject.backbone.module).eval()
    subject.features(subject.images(2), module)  # the first call may cache positions for the image size
    before = full_state(module)
    subject.features(subject.images(2), module)
    changed = changed_names(before, full_state(module))
    if changed:
        raise CheckFailed(
            expected="no change of state in a forward pass in evaluation mode",
            got=f"changes of {shortlist(changed)}",
            fix="change buffers only where self.training is true, since features of a frozen network are "
            "computed once and cached",
        )


def images_are_independent(subject: Subject) -> str:
    """An image's features do not depend on the other images in its batch."""
    images = subject.images(3)
    batch = subject.features(images)
    single = torch.cat([subject.features(image[None]) for image in images])
    other_batch = subject.features(torch.cat([images[:1], 3 * images[1:] + 1]))
    difference = max(relative_difference(single, batch), relative_difference(other_batch[:1], batch[:1]))
    if difference > ROUNDING_TOLERANCE:
        raise CheckFailed(
            expected="the same features for an image alone and in any batch in evaluation mode",
            got=f"a difference of {difference:.1e} of the largest value",
            fix="use no statistics over the batch (dimension 0) in evaluation mode: a batch norm needs "
            "track_running_stats=True",
        )
    return f"differ by {difference:.0e} of the largest value"


def works_under_autocast(subject: Subject) -> str:
    """Under autocast with bfloat16, features are finite and have the same shape."""
    images = subject.images(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = subject.features(images)
    expected = subject.features(images)
    if features.shape != expected.shape or not features.isfinite().all():
        raise CheckFailed(
            expected=f"finite features of shape {tuple(expected.shape)} under torch.autocast with bfloat16",
            got=f"{tuple(features.shape)} with {int((~features.isfinite()).sum())} that are infinite or NaN",
            fix="compute sensitive operations in float32: x.float()",
        )
    return f"differ by {relative_difference(features, expected):.0e} of the largest value"


def works_in_channels_last(subject: Subject) -> None:
    """Features are the same in channels-last memory format."""
    module = copy.deepcopy(subject.backbone.module).eval()
    module.to(memory_format=torch.channels_last)
    images = subject.images(2)
    features = subject.features(images.to(memory_format=torch.channels_last), module)
    difference = relative_difference(features, subject.features(images))
    if difference > ROUNDING_TOLERANCE:
        raise CheckFailed(
            expected="the same features in channels-last memory format, which is faster for convolutions",
            got=f"a difference of {difference:.1e} of the largest value",
            fix="use reshape() and flatten() instead of view() and strides, which assume a memory layout",
        )
