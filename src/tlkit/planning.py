"""From a recipe to networks that are ready to run, and to a plan that a person can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from tlkit.components import Backbone, Source
from tlkit.data.images import Image
from tlkit.data.pixels import View
from tlkit.data.splits import Splits
from tlkit.devices import Setting
from tlkit.devices import setting as make_setting
from tlkit.errors import RecipeError, TlkitError
from tlkit.features.extraction import Owner, Request, bytes_per_view
from tlkit.hashing import digest, seed
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.freezing import freeze, statistics_move
from tlkit.model.frontier import Split, split
from tlkit.model_folder import make_backbone
from tlkit.plugins import Registry
from tlkit.recipe import Phase, Recipe
from tlkit.recipe_tables import Data

#: Features of test and of unlabelled images are kept up to this many bytes each per phase.
SMALL = 256 * 2**20
#: How many views "auto" keeps: their accuracy is beside that of fresh ones in benchmarks/RESULTS.md.
AUTO_VIEWS = 8


@dataclass
class Prepared:
    """A phase with its network, ready to run.

    Attributes:
        phase: the recipe's row.
        backbone: what its backbone was made as.
        split: its network, divided at the frontier.
        learning: names of the parameters that learn.
        moving: names of all that may change: those, and statistics that move.
        setting: where and how precisely it computes.
        plain: the view for validation and test.
        views: what training sees, taking turns; for "fresh", one that is drawn anew each epoch.
    """

    phase: Phase
    backbone: Backbone
    split: Split
    learning: set[str]
    moving: set[str]
    setting: Setting
    plain: View
    views: tuple[View, ...]

    @property
    def keeps(self) -> bool:
        """Whether features of validation images are kept."""
        return self.phase.keep and bool(self.split.boundaries)

    @property
    def keeps_training(self) -> bool:
        """Whether features of training images are kept."""
        return self.keeps and self.phase.views != "fresh"

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.learning) and self.phase.training.epochs > 0

    def bytes_per_view(self) -> int:
        """What one image view's kept features take."""
        return bytes_per_view(self.split, self.setting)

    def keeps_small(self, images: Sequence[Image]) -> bool:
        """Whether features of test or unlabelled images are kept too: when they are small."""
        return self.keeps and 0 < self.bytes_per_view() * len(images) <= SMALL

    def requests(self, splits: Splits, unlabelled: tuple[Image, ...]) -> list[Request]:
        """The features that this phase wants kept."""
        if not self.keeps:
            return []
        wanted = []
        if self.trains and self.keeps_training:
            wanted += [Request(self.split, view, splits.train, self._owner("train")) for view in self.views]
        wanted.append(Request(self.split, self.plain, splits.val, self._owner("val")))
        for part, images in (("test", splits.test), ("unlabelled", unlabelled)):
            if self.keeps_small(images):
                wanted.append(Request(self.split, self.plain, images, self._owner(part)))
        return wanted

    def _owner(self, part: str) -> Owner:
        return self.phase.name, part


@dataclass(frozen=True)
class BlockPlan:
    """A block of a backbone in a phase.

    Attributes:
        name: the block's.
        state: "learns", "partly" or "frozen".
        parameters: how many numbers it holds.
    """

    name: str
    state: str
    parameters: int


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a plan, in numbers.

    Attributes:
        name: the phase's.
        backbone: its backbone's name.
        head: its head's name.
        start_from: the phase it starts from, or None.
        learning: how many numbers learn.
        learning_head: how many of those are the head's.
        head_untrained: whether the head has parameters, and the phase neither trains nor starts from another.
        frozen: how many do not.
        blocks: the backbone's, from input to output.
        frontier: where the first learning parameter is met.
        epochs: how long it trains.
        precision: "float32" or "bfloat16".
        image_size: pixels.
        views: image views per training image that are kept, or "fresh".
        feature_shapes: of what is kept, per image view.
        feature_bytes: of all that is kept.
        why_not: why nothing is kept, or None.
    """

    name: str
    backbone: str
    head: str
    start_from: str | None
    learning: int
    learning_head: int
    head_untrained: bool
    frozen: int
    blocks: tuple[BlockPlan, ...]
    frontier: str
    epochs: int
    precision: str
    image_size: int
    views: int | str
    feature_shapes: tuple[tuple[int, ...], ...]
    feature_bytes: int
    why_not: str | None


@dataclass(frozen=True)
class Plan:
    """What a run is going to do.

    Attributes:
        recipe: the recipe's name.
        classes: class names.
        images: how many there are per split, and unlabelled.
        rejected: (id, reason) of images that are left out.
        phases: in order.
        device: where it computes.
        about: what a reader of the results should know about the images, or nothing.
    """

    recipe: str
    classes: tuple[str, ...]
    images: Mapping[str, int]
    rejected: Sequence[tuple[str, str]]
    phases: tuple[PhasePlan, ...]
    device: str
    about: str


def find_source(data: Data, registry: Registry) -> Source:
    """The recipe's source with its list of images; none is read yet."""
    source: Source = registry.make("source", data.source.name, data.source_options(), data.root)
    return source


def prepare(
    recipe: Recipe,
    phases: Sequence[Phase],
    classes: Sequence[str] | None,
    registry: Registry,
    device: torch.device,
) -> list[Prepared]:
    """Makes every phase's network and finds its frontier.

    Without classes (their source cannot be had) there are no heads, but backbones and freeze policies
    are checked all the same.

    Raises:
        RecipeError: all phases that cannot be, each with its reason.
    """
    problems: list[str] = []
    prepared: list[Prepared] = []
    backbones: dict[str, Backbone | str] = {}
    for phase in phases:
        table = phase.backbone.table()
        key = json.dumps([table, phase.preprocess], default=str, sort_keys=True)
        if key not in backbones:
            torch.manual_seed(seed(recipe.seed, "backbone", json.dumps(table, default=str)))
            try:
                backbones[key] = make_backbone(registry, table, phase.preprocess)
            except TlkitError as error:
                backbones[key] = str(error)
                problems.append(f"phase.{phase.name}.backbone: {error}")
        backbone = backbones[key]
        if isinstance(backbone, Backbone):
            try:
                head = _head(recipe, phase, backbone, classes, registry)
            except TlkitError as error:
                problems.append(f"phase.{phase.name}.head: {error}")
                continue
            try:
                item = _prepare_phase(recipe, phase, backbone, head, registry, device)
            except TlkitError as error:
                problems.append(f"phase.{phase.name}.freeze: {error}")
            else:
                prepared.append(item)
    if problems:
        raise RecipeError(problems, recipe=str(recipe.path or recipe.name))
    return prepared


def _head(
    recipe: Recipe, phase: Phase, backbone: Backbone, classes: Sequence[str] | None, registry: Registry
) -> nn.Module:
    if classes is None:
        return nn.Identity()
    # a phase that starts from another overwrites the new head, so the seed need not know of that
    torch.manual_seed(seed(recipe.seed, phase.name, "head"))
    head: nn.Module = registry.make("head", phase.head.name, phase.head.options, backbone, classes)
    return head


def _prepare_phase(
    recipe: Recipe,
    phase: Phase,
    backbone: Backbone,
    head: nn.Module,
    registry: Registry,
    device: torch.device,
) -> Prepared:
    classifier = to_layout(Classifier(backbone, head), device)
    policy = phase.freeze
    learning = set(registry.make("freeze-policy", policy.name, policy.options, classifier))
    freeze(classifier, learning)
    moves = statistics_move(classifier, learning, phase.statistics)
    size = backbone.preprocess.size
    network = split(classifier, learning, torch.zeros(1, 3, size, size, device=device), move_statistics=moves)
    statistics = {name for name, _ in classifier.named_buffers()} if moves else set()
    plain = View(backbone.preprocess)
    return Prepared(
        phase,
        backbone,
        network,
        learning,
        learning | (statistics - network.reads_in_front()),
        make_setting(device, phase.training.precision),
        plain,
        training_views(recipe, phase, plain, registry),
    )


def training_views(recipe: Recipe, phase: Phase, plain: View, registry: Registry) -> tuple[View, ...]:
    """What a phase trains on, besides the plain image: the views that take turns, or one drawn afresh."""
    part = phase.augmentation
    if part.name == "none":
        return (plain,)
    transform = registry.make("augmentation", part.name, part.options, plain.preprocess)
    found = registry.find("augmentation", part.name)
    name = digest(part.name, sorted(part.options.items()), found.owner, found.version, found.code())
    if phase.views == "fresh":
        return (View(plain.preprocess, transform, (recipe.seed, phase.name), name),)
    # a kept view is drawn from its number and the image's bytes, so that runs and seeds share it
    count = AUTO_VIEWS if phase.views == "auto" else phase.views
    return (plain, *(View(plain.preprocess, transform, (number,), name) for number in range(1, count)))


def settle(item: Prepared, recipe: Recipe, registry: Registry, images: int, limit: int) -> Prepared:
    """A phase whose ``views = "auto"`` is decided.

    Each kept view costs one pass through the frozen part, and so does each epoch of fresh ones. Eight are
    kept where that is less, and where they fit; time is not measured for it, so that the same recipe
    always does the same.

    Args:
        item: the phase.
        recipe: it is from.
        registry: of parts.
        images: how many it trains on.
        limit: bytes that may be kept.
    """
    if item.phase.views != "auto":
        return item
    cheaper = item.keeps and item.phase.training.epochs > AUTO_VIEWS
    keep = cheaper and AUTO_VIEWS * images * item.bytes_per_view() <= limit
    phase = replace(item.phase, views=AUTO_VIEWS if keep else "fresh")
    return replace(item, phase=phase, views=training_views(recipe, phase, item.plain, registry))


def known_beforehand(item: Prepared, recipe: Recipe, every: Mapping[str, Prepared]) -> bool:
    """Whether no phase that this one starts from changes what its kept features depend on."""
    reads = item.split.reads_in_front()
    start = item.phase.start_from
    while start is not None:
        before = every.get(start)
        if before is None or not reads.isdisjoint(before.moving):
            return False
        start = recipe.phase(start).start_from
    return True


def parameters(item: Prepared) -> dict[str, int]:
    """How many numbers learn, and how many do not."""
    learning = item.split.classifier.count(item.learning)
    total = sum(value.numel() for value in item.split.classifier.parameters())
    return {"learning": learning, "frozen": total - learning}


def describe(item: Prepared, splits: Splits) -> PhasePlan:
    """A prepared phase in numbers."""
    classifier, phase, split = item.split.classifier, item.phase, item.split
    kept = (len(splits.val) if item.keeps else 0) + (len(splits.test) if item.keeps_small(splits.test) else 0)
    if item.trains and item.keeps_training:
        kept += len(splits.train) * len(item.views)
    return PhasePlan(
        name=phase.name,
        backbone=phase.backbone.name,
        head=phase.head.name,
        start_from=phase.start_from,
        **parameters(item),
        learning_head=classifier.count({name for name in item.learning if name.startswith("head.")}),
        head_untrained=not item.trains and not phase.start_from and bool([*classifier.head.parameters()]),
        blocks=tuple(
            BlockPlan(
                block.name, _state(block.parameters, item.learning), classifier.count(set(block.parameters))
            )
            for block in classifier.blocks()
        ),
        frontier=_frontier(item),
        epochs=phase.training.epochs if item.learning else 0,
        precision=str(item.setting.dtype).removeprefix("torch."),
        image_size=item.plain.preprocess.size,
        views="fresh" if phase.views == "fresh" else len(item.views),
        feature_shapes=tuple(boundary.shape for boundary in split.boundaries) if item.keeps else (),
        feature_bytes=kept * item.bytes_per_view(),
        why_not=why_not(item),
    )


def why_not(item: Prepared) -> str | None:
    """Why a phase keeps no features of its training images, or None if it does."""
    if not item.phase.keep:
        return "features.keep is false"
    if item.split.why_not is not None:
        return item.split.why_not
    return "views are drawn afresh each epoch" if item.phase.views == "fresh" else None


def _state(names: Sequence[str], learning: set[str]) -> str:
    inside = sum(name in learning for name in names)
    return "learns" if inside == len(names) else "partly" if inside else "frozen"


def _frontier(item: Prepared) -> str:
    blocks = item.split.classifier.blocks()
    first = next((block.name for block in blocks if not item.learning.isdisjoint(block.parameters)), None)
    if first is None:
        return "behind the backbone"
    if not item.split.boundaries:
        return "at the image"
    return f"in {first}" if first == blocks[0].name else f"in front of {first}"
