"""The tables of a recipe: every mistake is reported with the file's own key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import BASE, MINIMAL, problems

from tlkit.errors import RecipeError
from tlkit.recipe.recipe import read_recipe

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("old", "new", "beginnings"),
    [
        ("epochs = 5", "epochs = true", ["training.epochs: must be a whole number, and is true"]),
        ("epochs = 5", 'epochs = "5"', ['training.epochs: must be a whole number, and is "5"']),
        (
            "epochs = 2",
            "epochs = -1",
            ["phase.fine-tune.epochs: must be greater than or equal to 0, and is -1"],
        ),
        (
            "epochs = 5",
            "batch_size = 0",
            ["training.batch_size: must be greater than or equal to 1, and is 0"],
        ),
        ("epochs = 5", "patience = 0", ["training.patience: must be greater than or equal to 1, and is 0"]),
        (
            "epochs = 5",
            "precision = 'half'",
            ["training.precision: must be 'auto', 'float32' or 'bfloat16', and is \"half\""],
        ),
        ("epochs = 2", "epocs = 2", ["phase.fine-tune.epocs: is unknown (did you mean 'epochs'"]),
        (
            "epochs = 5",
            "qqq = 2",
            ["training.qqq: is unknown; known here: batch_size, class_weights, clip_grad, "],
        ),
        ("seed = 4", "sede = 4", ["sede: is unknown (did you mean 'seed'?)"]),
        ("seed = 4", "seed = 4.0", ["seed: must be a whole number, and is 4.0"]),
        ("seed = 4", "features = { cahce = true }", ["features.cahce: is unknown (did you mean 'cache'?)"]),
        ("seed = 4", 'features = { cache = "no" }', ['features.cache: must be true or false, and is "no"']),
        ("goal = 0.8", "goal = 80", ["goal: must be less than or equal to 1, and is 80"]),
        ("goal = 0.8", "goal = -0.1", ["goal: must be greater than 0, and is -0.1"]),
        ("goal = 0.8", "goal = true", ["goal: must be a number, and is true"]),
        ('name = "pets"', "", ["name: is missing"]),
        ('name = "pets"', 'name = "my pets"', ["name: must begin with a letter or digit and hold only"]),
        ('"fine-tune"', '"../x"', ["phase.../x.name: must begin with a letter or digit and hold only"]),
        ('root = "photos"', "root = 3", ["data.root: must be a path, and is 3"]),
        ('source = "folders"', "source = { depth = 1 }", ["data.source: needs a name"]),
        ('source = "folders"', "source = 3", ["data.source: must be a name or a table, and is 3"]),
        (
            'root = "photos"',
            'root = "p"\non_unreadable = "go"',
            ["data.on_unreadable: must be 'stop' or 'skip', and is \"go\""],
        ),
        (
            "train = 8, val = 2,",
            "train = 0,",
            [
                "data.per_class.train: must be greater than or equal to 1, and is 0",
                "data.per_class.val: is missing",
            ],
        ),
        ("test = 3 }", "test = 3, tset = 1 }", ["data.per_class.tset: is unknown (did you mean 'test'?)"]),
        (
            'root = "photos"',
            'root = "p"\nfractions = { val = 0, test = 1.0 }',
            [
                "data.fractions.val: must be greater than 0, and is 0",
                "data.fractions.test: must be less than 1, and is 1.0",
            ],
        ),
        ('name = "vgg16"\n', "name = 16\n", ["backbone: its name must be a string, and is 16"]),
        ("size = 96", "size = 0", ["preprocess.size: must be greater than or equal to 1, and is 0"]),
        ("size = 96", "crop = 1.5", ["preprocess.crop: must be less than or equal to 1, and is 1.5"]),
        ("size = 96", "mean = [0.5]", ["preprocess.mean: must have 3 values, one per channel, and has 1"]),
        ("size = 96", "std = [1, 0, 1]", ["preprocess.std.1: must be greater than or equal to 0.0001,"]),
        ("size = 96", 'std = "1"', ['preprocess.std: must be a list, and is "1"']),
        (
            "size = 96",
            'interpolation = "area"',
            ["preprocess.interpolation: must be 'nearest', 'bilinear', "],
        ),
        (
            "epochs = 2",
            "preprocess = { siz = 2 }",
            ["phase.fine-tune.preprocess.siz: is unknown (did you mean"],
        ),
        ("epochs = 5", "ema = 1.0", ["training.ema: must be less than 1, and is 1.0"]),
        ("epochs = 5", "ema = -0.1", ["training.ema: must be greater than or equal"]),
        ("epochs = 2", "clip_grad = -1", ["phase.fine-tune.clip_grad: must be greater than or equal to 0"]),
        (
            "epochs = 2",
            'monitor = "f1"',
            ["phase.fine-tune.monitor: must be 'accuracy', 'balanced_accuracy', 'loss' or"],
        ),
        (
            "epochs = 2",
            'statistics = "off"',
            ["phase.fine-tune.statistics: must be 'learn' or 'keep', and is"],
        ),
    ],
)
def test_a_mistake_is_named_by_its_key(old: str, new: str, beginnings: list[str], write: Write) -> None:
    assert BASE.count(old) == 1
    lines = problems(write(BASE.replace(old, new)))
    assert len(lines) == len(beginnings), lines
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    "key", ["backbone", "head", "freeze", "augmentation", "optimizer", "schedule", "preprocess", "start_from"]
)
def test_a_number_in_place_of_a_part_or_table(key: str, write: Write) -> None:
    (line,) = problems(write(MINIMAL + f"{key} = 3"))
    assert line.startswith(f"phase.only.{key}: must be ")
    assert line.endswith(", and is 3")


def test_a_recipe_needs_phases(write: Write) -> None:
    for text in ("", "phase = []", 'phase = "all"', "[phase]\nname = 'x'"):
        lines = problems(write(MINIMAL.partition("[[")[0] + text))
        assert lines == ["phase: a recipe needs at least one phase, written as [[phase]]"]


def test_all_mistakes_are_reported_together(write: Write) -> None:
    text = BASE.replace("seed", "sede").replace('"bottleneck"\n\n', '"bottleneck"\nepochs = true\n\n')
    text = text.replace("train = 8", 'train = "8"').replace(
        'start_from = "bottleneck"', 'start_from = "botleneck"'
    )
    with pytest.raises(RecipeError) as caught:
        read_recipe(
            write(text + 'optimizer = { name = 3 }\n[[phase]]\nname = "third"\nfreeze = { blocks = 2 }')
        )
    keys = [line.partition(": ")[0] for line in caught.value.problems]
    assert sorted(keys) == [
        "data.per_class.train",
        "phase.bottleneck.epochs",
        "phase.fine-tune.optimizer",
        "phase.fine-tune.start_from",
        "phase.third.freeze",
        "sede",
    ]
    assert str(caught.value).startswith(f"{write(text)}: 6 problems\n")
