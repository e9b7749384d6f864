"""Recipes: what phases inherit, and what is wrong with their order and their parts' tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import BASE, MINIMAL, problems

from tlkit.errors import RecipeError
from tlkit.recipe.recipe import draft_recipe, read_recipe
from tlkit.recipe.schema import PartSpec

Write = Callable[..., Path]


def test_phases_inherit_the_keys_that_they_leave_out(write: Write) -> None:
    recipe = read_recipe(write(BASE))
    first, second = recipe.phases
    assert (recipe.name, recipe.seed, recipe.goal) == ("pets", 4, 0.8)
    assert first.backbone == PartSpec(name="vgg16", options={"features": "map"})
    assert second.backbone.table() == {"name": "vgg16", "features": "map"}
    assert first.preprocess == {"size": 96, "resize": "squash"}
    assert first.head == second.head == PartSpec(name="mlp", options={"hidden": 16})
    assert (first.freeze.name, first.augmentation.name, first.views) == ("backbone", "none", 1)
    assert second.freeze == PartSpec(name="last-blocks", options={"blocks": 1})
    assert second.augmentation == PartSpec(name="affine", options={"rotation": 10})
    assert (second.views, second.start_from, second.statistics, second.cache_features) == (
        8,
        "bottleneck",
        None,
        True,
    )
    assert (first.training.epochs, second.training.epochs) == (5, 2)
    assert second.training.optimizer.options == {"lr": 1e-2, "momentum": 0.9}
    assert recipe.data.per_class is not None
    assert recipe.data.per_class.model_dump() == {"train": 8, "val": 2, "test": 3}


def test_defaults(write: Write) -> None:
    recipe = read_recipe(write(MINIMAL))
    (phase,) = recipe.phases
    assert (recipe.seed, recipe.goal) == (1, None)
    assert (phase.head.name, phase.preprocess, phase.views) == ("linear", {}, 1)
    training = phase.training
    assert (training.epochs, training.batch_size, training.precision) == (30, 32, "auto")
    assert training.optimizer == PartSpec(name="adamw", options={"lr": 1e-3})
    assert (training.schedule, training.patience, training.class_weights) == (None, None, "balanced")
    data = recipe.data
    assert (data.per_class, data.unlabelled, data.on_unreadable) == (None, None, "stop")
    assert data.fractions.model_dump() == {"val": 0.15, "test": 0.15}


def test_an_augmentation_has_fresh_views_by_default(write: Write) -> None:
    assert read_recipe(write(MINIMAL + 'augmentation = "affine"')).phases[0].views == "fresh"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('backbone = "other"', {"name": "other"}),
        ('backbone = { name = "other" }', {"name": "other"}),
        ('backbone = { features = "pooled" }', {"name": "vgg16", "features": "pooled"}),
        ('backbone = { weights = "none" }', {"name": "vgg16", "features": "map", "weights": "none"}),
    ],
)
def test_a_part_with_a_name_replaces_and_one_without_merges(
    table: str, expected: dict[str, str], write: Write
) -> None:
    text = BASE.replace('name = "bottleneck"', f'name = "bottleneck"\n{table}').replace("start_from", "# ")
    recipe = read_recipe(write(text))
    assert recipe.phase("bottleneck").backbone.table() == expected
    assert recipe.phase("fine-tune").backbone.table() == {"name": "vgg16", "features": "map"}


def test_training_parts_and_preprocess_merge_in_a_phase(write: Write) -> None:
    more = 'optimizer = { lr = 1e-4 }\nschedule = "cosine"\npreprocess = { size = 64, mean = [0, 0.5, 1] }\n'
    phase = read_recipe(write(BASE + more + "features = { cache = false }")).phase("fine-tune")
    assert phase.training.optimizer == PartSpec(name="sgd", options={"lr": 1e-4, "momentum": 0.9})
    assert phase.training.schedule == PartSpec(name="cosine")
    assert phase.preprocess == {"size": 64, "resize": "squash", "mean": [0, 0.5, 1]}
    assert not phase.cache_features


def test_tables_without_a_name_merge_into_the_default_part(write: Write) -> None:
    recipe = read_recipe(write(MINIMAL), ["training.optimizer.lr=0.5", "head.bias=false"])
    assert recipe.phases[0].training.optimizer.table() == {"name": "adamw", "lr": 0.5}
    assert recipe.phases[0].head.table() == {"name": "linear", "bias": False}


def test_a_phase_that_does_not_exist(write: Write) -> None:
    with pytest.raises(RecipeError, match="did you mean 'fine-tune'"):
        read_recipe(write(BASE)).phase("finetune")


@pytest.mark.parametrize(
    ("old", "new", "beginnings"),
    [
        (
            'name = "bottleneck"',
            "",
            ["phase.1.name: is missing", "phase.fine-tune.start_from: there is no phase"],
        ),
        (
            'root = "photos"',
            'root = "p"\nfractions = { val = 0.5, test = 0.5 }',
            ["data.fractions: val and test leave nothing to train on"],
        ),
        (
            'name = "vgg16"\n',
            "",
            [
                "phase.bottleneck.backbone: no backbone is named, neither here nor in [backbone]",
                "phase.fine-tune.backbone: no backbone is named, neither here nor in [backbone]",
            ],
        ),
        ("epochs = 2", "schedule = { warmup_epochs = 2 }", ["phase.fine-tune.schedule: needs a name"]),
        ('name = "last-blocks", ', "", ["phase.fine-tune.freeze: needs a name"]),
        (
            "views = 8",
            "views = 0",
            [
                'phase.fine-tune.augmentation.views: must be a whole number from 1 to 1000, "fresh" or '
                '"auto", and is 0'
            ],
        ),
        (
            "views = 8",
            'views = "new"',
            [
                'phase.fine-tune.augmentation.views: must be a whole number from 1 to 1000, "fresh" or '
                '"auto", and'
            ],
        ),
        (
            'name = "affine", rotation = 10',
            'name = "none"',
            ["phase.fine-tune.augmentation.views: without an augmentation there is one view"],
        ),
        (
            '"fine-tune"\nstart_from = "bottleneck"',
            '"bottleneck"',
            ["phase.bottleneck: there are 2 phases of this name"],
        ),
        (
            'start_from = "bottleneck"',
            'start_from = "botleneck"',
            ["phase.fine-tune.start_from: there is no phase 'botleneck' (did you mean 'bottleneck'?)"],
        ),
        (
            'start_from = "bottleneck"',
            'start_from = "x"',
            ["phase.fine-tune.start_from: there is no phase 'x'; there are bottleneck, fine-tune"],
        ),
        (
            'start_from = "bottleneck"',
            'start_from = "fine-tune"',
            ["phase.fine-tune.start_from: a phase cannot start from itself"],
        ),
        (
            'name = "bottleneck"',
            'name = "bottleneck"\nstart_from = "fine-tune"',
            ["phase.bottleneck.start_from: 'fine-tune' comes later: move it in front of 'bottleneck'"],
        ),
        (
            "epochs = 2",
            'head = "linear"\nbackbone = { features = "pooled" }',
            [
                "phase.fine-tune.start_from: 'bottleneck' has another backbone (",
                "phase.fine-tune.start_from: 'bottleneck' has another head (",
            ],
        ),
    ],
)
def test_a_mistake_is_named_by_its_key(old: str, new: str, beginnings: list[str], write: Write) -> None:
    assert BASE.count(old) == 1
    lines = problems(write(BASE.replace(old, new)))
    assert len(lines) == len(beginnings), lines
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(beginning)


def test_a_phase_with_a_mistake_is_still_one_to_start_from(write: Write) -> None:
    assert problems(write(BASE), "phase.bottleneck.freeze={blocks=1}") == [
        "phase.bottleneck.freeze: needs a name"
    ]


def test_a_draft_collects_the_mistakes_and_leaves_out_what_has_them(write: Write) -> None:
    text = BASE.replace("train = 8", 'train = "8"').replace('name = "last-blocks", ', "")
    recipe = draft_recipe(write(text))
    assert [flaw.partition(": ")[0] for flaw in recipe.flaws] == [
        "data.per_class.train",
        "phase.fine-tune.freeze",
    ]
    assert [phase.name for phase in recipe.phases] == ["bottleneck"]
    assert recipe.data is not None
    assert recipe.data.per_class is None
