"""The plan of a run, in numbers, as it is shown and written to plan.json."""

from __future__ import annotations

from typing import Literal

from tlkit.data.corrections import LabelChange
from tlkit.utils.formatting import bulleted, plural, shortlist
from tlkit.utils.json_files import JsonModel, NonNegative

#: A class with fewer training images than this is warned of.
FEW_IMAGES = 5


class ClassImages(JsonModel):
    """How many images of a class a run has, by split."""

    train: NonNegative
    val: NonNegative
    test: NonNegative


class DataSummary(JsonModel):
    """How many images a run has.

    Attributes:
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        per_class: the same of each class, by its name.
        unlabelled: number of images without a label.
        rejected: (id, reason) of each image that is left out.
        about: a sentence about the images that every reader of the results should know, or nothing.
        corrections: a sentence about what corrected the labels, or nothing.
        corrected: the labels that were changed.
        folds: number of folds of the training images; 0: there are validation images instead.
        repeats: how many times the folds were drawn.
    """

    train: NonNegative
    val: NonNegative
    test: NonNegative
    per_class: dict[str, ClassImages]
    unlabelled: NonNegative
    rejected: tuple[tuple[str, str], ...]
    about: str
    corrections: str = ""
    corrected: tuple[LabelChange, ...] = ()
    folds: NonNegative = 0
    repeats: NonNegative = 0

    def counts(self) -> dict[str, int]:
        """Returns the number of images per split, and without a label."""
        return {"train": self.train, "val": self.val, "test": self.test, "unlabelled": self.unlabelled}

    def describe_small_classes(self) -> str:
        """Warns of the classes that have few training images, by name; returns nothing if none has."""
        small = [
            f"class {name} has {plural(images.train, 'training image')}"
            + (f" and {plural(images.test, 'test image')}" if self.test else "")
            for name, images in self.per_class.items()
            if images.train < FEW_IMAGES
        ]
        head = (
            f"fewer than {FEW_IMAGES} training images are too few to learn a class reliably, and its scores "
            "mean little: add images, or leave these classes out"
        )
        return bulleted(head, small) if small else ""

    def describe_missing_classes(self) -> str:
        """Warns of the classes that no validation or test image has, by name; returns nothing without any."""
        untuned = [name for name, images in self.per_class.items() if self.val and not images.val]
        unscored = [name for name, images in self.per_class.items() if self.test and not images.test]
        sentences = []
        if untuned:
            sentences.append(
                f"no validation image has {shortlist(untuned)}: no threshold is chosen, it is 0.5"
            )
        if unscored:
            sentences.append(f"no test image has {shortlist(unscored)}: not scored")
        return "; ".join(sentences)


class BlockPlan(JsonModel):
    """A block of a backbone in a phase.

    Attributes:
        name: the block's.
        state: whether all, some or none of its parameters are trainable.
        parameters: number of elements in its parameters.
    """

    name: str
    state: Literal["trainable", "partly", "frozen"]
    parameters: NonNegative


class PhasePlan(JsonModel):
    """One phase of a plan.

    Attributes:
        name: the phase's.
        backbone: its backbone's name.
        head: its head's name.
        start_from: the phase that it starts from, or None.
        trainable: number of trainable parameters.
        trainable_head: how many of them are the head's.
        head_untrained: whether the head has parameters that neither this phase nor an earlier one trains.
        frozen: number of frozen parameters.
        blocks: the backbone's, from input to output.
        frontier: where the first trainable parameter is met.
        epochs: maximum number of epochs.
        precision: "float32" or "bfloat16".
        image_size: in pixels.
        views: number of cached views per training image, or "fresh".
        feature_shapes: of the cached tensors, per image view.
        feature_bytes: size of all cached features.
        why_not: why features of training images are not cached, or None.
    """

    name: str
    backbone: str
    head: str
    start_from: str | None
    trainable: NonNegative
    trainable_head: NonNegative
    head_untrained: bool
    frozen: NonNegative
    blocks: tuple[BlockPlan, ...]
    frontier: str
    epochs: NonNegative
    precision: str
    image_size: NonNegative
    views: int | Literal["fresh"]
    feature_shapes: tuple[tuple[int, ...], ...]
    feature_bytes: NonNegative
    why_not: str | None


class Plan(JsonModel):
    """What a run is going to do.

    Attributes:
        recipe: the recipe's name.
        classes: class names.
        data: how many images there are.
        phases: the phases, in order.
        device: the device that it computes on.
    """

    recipe: str
    classes: tuple[str, ...]
    data: DataSummary
    phases: tuple[PhasePlan, ...]
    device: str
