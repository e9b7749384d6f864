"""Prepares a run: makes every phase's network, finds its frontier, and describes the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from tlkit.data.dataset import Dataset
from tlkit.data.views import View
from tlkit.errors import RecipeError, TlkitError, TrainingError
from tlkit.experiment.plan import BlockPlan, ClassImages, DataSummary, PhasePlan, Plan
from tlkit.experiment.prepared_phase import PreparedPhase, partition_for
from tlkit.experiment.unreachable import describe_backbone_error
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.freezing import freeze, updates_statistics
from tlkit.model.saving import make_backbone
from tlkit.parts.augmentation import code_identity
from tlkit.parts.backbone import Backbone
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe
from tlkit.runtime.devices import CPU, compute_config
from tlkit.utils.hashing import digest, seed

#: How many views "auto" caches: benchmarks/RESULTS.md has their accuracy beside that of fresh ones.
AUTO_VIEWS = 8


def prepare_phases(
    recipe: Recipe,
    phases: Sequence[Phase],
    classes: Sequence[str] | None,
    registry: Registry,
    device: torch.device,
) -> list[PreparedPhase]:
    """Makes every phase's network and finds its frontier.

    Without classes (their source cannot be made) there are no heads, but backbones and freeze policies are
    checked all the same.

    Raises:
        RecipeError: all phases that cannot be prepared, each with its reason.
    """
    problems: list[str] = []
    prepared: list[PreparedPhase] = []
    backbones: dict[str, Backbone | None] = {}
    for phase in phases:
        key = "backbone"
        try:
            backbone = _backbone(recipe, phase, registry, backbones)
            if backbone is None:  # reported with the first phase that has it
                continue
            key = "head"
            head = _head(recipe, phase, backbone, classes, registry)
            key = "loss"
            _check_loss(phase, classes, registry)
            key = "freeze"
            prepared.append(_prepare_phase(recipe, phase, backbone, head, registry, device))
            key = "cutmix"
            _check_cutmix(prepared[-1])
            key = "keep"
            _check_folds(prepared[-1], recipe)
        except TlkitError as error:
            problem = describe_backbone_error(error, phase.backbone.name, registry)
            problems.append(f"phase.{phase.name}.{key}: {problem}")
    if problems:
        raise RecipeError(problems, recipe=recipe.label)
    return prepared


def _backbone(
    recipe: Recipe, phase: Phase, registry: Registry, backbones: dict[str, Backbone | None]
) -> Backbone | None:
    """Makes a phase's backbone, once for all phases with the same table; None if that failed before."""
    table = json.dumps(phase.backbone.table(), default=str)
    key = json.dumps([phase.backbone.table(), phase.preprocess], default=str, sort_keys=True)
    if key not in backbones:
        backbones[key] = None
        torch.manual_seed(seed(recipe.seed, "backbone", table))
        backbones[key] = make_backbone(registry, phase.backbone, phase.preprocess)
    return backbones[key]


def _head(
    recipe: Recipe, phase: Phase, backbone: Backbone, classes: Sequence[str] | None, registry: Registry
) -> nn.Module:
    if classes is None:
        return nn.Identity()
    # a phase that starts from another overwrites the new head, so the seed need not depend on that
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
) -> PreparedPhase:
    classifier = to_layout(Classifier(backbone, head), CPU)
    trainable = set(registry.make("freeze-policy", phase.freeze.name, phase.freeze.options, classifier))
    freeze(classifier, trainable)
    updates = updates_statistics(classifier, trainable, phase.statistics)
    network = partition_for(classifier, trainable, backbone.preprocess.size, updates)
    statistics = {name for name, _ in classifier.named_buffers()} if updates else set()
    plain = View(backbone.preprocess)
    prepared = PreparedPhase(
        phase=phase,
        backbone=backbone,
        network=network,
        updates_statistics=updates,
        trainable=trainable,
        updated=trainable | (statistics - network.prefix_state()),
        compute=compute_config(device, phase.training.precision),
        plain=plain,
        views=training_views(recipe, phase, plain, registry),
    )
    # what fits itself needs one kind of features, those that it is evaluated with
    return replace(prepared, compute=prepared.evaluation) if prepared.fits_head else prepared


def _check_loss(phase: Phase, classes: Sequence[str] | None, registry: Registry) -> None:
    """Checks that the loss can be made, which depends on the values of its options."""
    if classes is not None:
        loss = phase.training.loss
        registry.make("loss", loss.name, loss.options, classes, [1] * len(classes))


def _check_cutmix(prepared: PreparedPhase) -> None:
    """Checks that what CutMix would cut are images: the suffix of a partitioned network sees features."""
    if prepared.phase.training.cutmix and prepared.trains and prepared.network.boundaries:
        raise TrainingError(
            f"cuts pieces out of images, but this phase trains on features ({_describe_frontier(prepared)}): "
            "set cutmix = 0 in it, and mixup, which mixes features too, or make the whole network trainable"
        )


def _check_folds(prepared: PreparedPhase, recipe: Recipe) -> None:
    """Checks that folds are left to train on, beside the one that is predicted and the one that chooses."""
    two = recipe.data is not None and recipe.data.folds == 2
    if two and prepared.trains and prepared.phase.training.keep == "best":
        raise TrainingError(
            "one of two folds would choose the best epoch and the other one be predicted, which leaves none "
            'to train on: set data.folds to 3 or more, or keep = "last"'
        )


def training_views(recipe: Recipe, phase: Phase, plain: View, registry: Registry) -> tuple[View, ...]:
    """Returns the views that a phase trains on in turn, the plain one first, or one that is drawn afresh."""
    part = phase.augmentation
    if part.name == "none":
        return (plain,)
    augmentation = registry.make("augmentation", part.name, part.options, plain.preprocess)
    registered = registry.find("augmentation", part.name)
    code = registered.owner, registered.version, registered.code(), code_identity(augmentation)
    name = digest(part.name, sorted(part.options.items()), *code)
    if phase.views == "fresh":
        return (View(plain.preprocess, augmentation, (recipe.seed, phase.name), name),)
    # a cached view is drawn from its number and the image's bytes, so that runs and seeds share it
    count = AUTO_VIEWS if phase.views == "auto" else phase.views
    return (plain, *(View(plain.preprocess, augmentation, (number,), name) for number in range(1, count)))


def resolve_auto_views(
    prepared: PreparedPhase, recipe: Recipe, registry: Registry, images: int, limit: int
) -> PreparedPhase:
    """Decides ``views = "auto"``.

    Each cached view costs one pass through the prefix, and so does each epoch of fresh ones. Eight are cached
    where that is less and where they fit; time is not measured, so that the same recipe always does the same.

    Args:
        prepared: the phase.
        recipe: the recipe that it belongs to.
        registry: all parts.
        images: the number of training images.
        limit: bytes that may be cached.
    """
    if prepared.phase.views != "auto":
        return prepared
    cheaper = prepared.caches_features and prepared.phase.training.epochs > AUTO_VIEWS
    fits = AUTO_VIEWS * images * prepared.bytes_per_view() <= limit
    phase = replace(prepared.phase, views=AUTO_VIEWS if cheaper and fits else "fresh")
    return replace(prepared, phase=phase, views=training_views(recipe, phase, prepared.plain, registry))


def features_known_beforehand(
    prepared: PreparedPhase, recipe: Recipe, phases: Mapping[str, PreparedPhase]
) -> bool:
    """Returns whether no phase that this one starts from changes what its cached features depend on."""
    reads = prepared.network.prefix_state()
    start = prepared.phase.start_from
    while start is not None:
        before = phases.get(start)
        if before is None or not reads.isdisjoint(before.updated):
            return False
        start = recipe.phase(start).start_from
    return True


def describe_plan(
    recipe: Recipe, dataset: Dataset, phases: Sequence[PreparedPhase], device: torch.device
) -> Plan:
    """Describes what a run is going to do."""
    splits = dataset.splits
    data = DataSummary(
        train=len(splits.train),
        val=len(splits.val),
        test=len(splits.test),
        per_class=_count_per_class(dataset),
        unlabelled=len(dataset.unlabelled),
        rejected=dataset.rejected,
        about=dataset.about,
        corrections=dataset.corrections,
        corrected=dataset.corrected,
        folds=dataset.folds.count if dataset.folds else 0,
        repeats=dataset.folds.repeats if dataset.folds else 0,
    )
    return Plan(
        recipe=recipe.name,
        classes=dataset.classes,
        data=data,
        phases=tuple(_describe_phase(prepared, dataset) for prepared in phases),
        device=str(device),
    )


def _count_per_class(dataset: Dataset) -> dict[str, ClassImages]:
    splits = dataset.splits
    train, val, test = (dataset.count_classes(images) for images in (splits.train, splits.val, splits.test))
    return {
        name: ClassImages(train=train[label], val=val[label], test=test[label])
        for label, name in enumerate(dataset.classes)
    }


def _describe_phase(prepared: PreparedPhase, dataset: Dataset) -> PhasePlan:
    network, phase = prepared.network, prepared.phase
    classifier = network.classifier
    counts = prepared.parameter_counts()
    head = {name for name in prepared.trainable if name.startswith("head.")}
    has_head = any(True for _ in classifier.head.parameters())
    return PhasePlan(
        name=phase.name,
        backbone=phase.backbone.name,
        head=phase.head.name,
        start_from=phase.start_from,
        trainable=counts.trainable,
        trainable_head=classifier.count(head),
        head_untrained=not (prepared.trains or prepared.fits_head) and not phase.start_from and has_head,
        frozen=counts.frozen,
        blocks=tuple(
            BlockPlan(
                name=block.span,
                state=_block_state(block.parameters, prepared.trainable),
                parameters=classifier.count(set(block.parameters)),
            )
            for block in classifier.blocks()
        ),
        frontier=_describe_frontier(prepared),
        epochs=phase.training.epochs if prepared.trains else 0,
        precision=str(prepared.compute.dtype).removeprefix("torch."),
        image_size=prepared.plain.preprocess.size,
        views="fresh" if phase.views == "fresh" else len(prepared.views),
        feature_shapes=(
            tuple(boundary.shape for boundary in network.boundaries) if prepared.caches_features else ()
        ),
        feature_bytes=prepared.feature_bytes(dataset),
        why_not=prepared.why_not_cached,
    )


def _block_state(names: Sequence[str], trainable: set[str]) -> Literal["trainable", "partly", "frozen"]:
    count = sum(name in trainable for name in names)
    return "trainable" if count == len(names) else "partly" if count else "frozen"


def _describe_frontier(prepared: PreparedPhase) -> str:
    blocks = prepared.network.classifier.blocks()
    first = next((block for block in blocks if not prepared.trainable.isdisjoint(block.parameters)), None)
    if first is None:
        return "behind the backbone"
    if not prepared.network.boundaries:
        return "at the image"
    return f"in {first.span}" if first == blocks[0] else f"in front of {first.start or first.name}"
