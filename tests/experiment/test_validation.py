"""The parts, optimisers and schedules that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from recipes import BASE, write_recipe

from tlkit.errors import RecipeError, close_matches
from tlkit.experiment.validation import recipe_problems, validate
from tlkit.recipe.recipe import draft_recipe, read_recipe

Write = Callable[..., Path]


class StandInRegistry:
    """Stands in for the registry of parts: knows a few parts and their options' types."""

    PARTS: ClassVar[Mapping[tuple[str, str], Mapping[str, type]]] = {
        ("source", "folders"): {"unlabelled": Path, "depth": int},
        ("source", "labelled"): {},
        ("backbone", "vgg16"): {"features": str, "weights": str},
        ("head", "mlp"): {"hidden": int},
        ("head", "linear"): {},
        ("loss", "cross-entropy"): {"label_smoothing": float},
        ("freeze-policy", "backbone"): {},
        ("freeze-policy", "last-blocks"): {"blocks": int},
        ("augmentation", "none"): {},
        ("augmentation", "affine"): {"rotation": int},
    }

    def problems(self, kind: str, name: str, part_options: Mapping[str, Any], /) -> list[tuple[str, str]]:
        known = self.PARTS.get((kind, name))
        if known is None:
            names = [part for of, part in self.PARTS if of == kind]
            return [("name", f"no {kind} is called {name!r}{close_matches(name, names)}")]
        unknown = [
            (key, f"is unknown{close_matches(key, known)}") for key in part_options if key not in known
        ]
        return unknown + [
            (key, f"must be {known[key].__name__}")
            for key, value in part_options.items()
            if key in known and not isinstance(value, known[key])
        ]

    def task_problems(self, kind: str, name: str, task: str, /) -> list[tuple[str, str]]:
        return []

    def needs_root(self, source: str, /) -> bool:
        return source == "labelled"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(write_recipe, tmp_path)


def test_a_valid_recipe_has_no_problems(write: Write) -> None:
    recipe = read_recipe(
        write(BASE), ["training.schedule={name='cosine', warmup_epochs=1}", "data.unlabelled=x"]
    )
    assert recipe_problems(recipe, StandInRegistry()) == []
    validate(recipe, StandInRegistry())


@pytest.mark.parametrize(
    ("override", "beginning"),
    [
        ("data.source=folder", "data.source.name: no source is called 'folder' (did you mean 'folders'?)"),
        ("data.source.dept=1", "data.source.dept: is unknown (did you mean 'depth'?)"),
        ("backbone.name=vgg61", "backbone.name: no backbone is called 'vgg61' (did you mean 'vgg16'?)"),
        ("backbone.feature=map", "backbone.feature: is unknown (did you mean 'features'?)"),
        ("head.hidden=many", "head.hidden: must be int"),
        ("phase.fine-tune.freeze.blocks=all", "phase.fine-tune.freeze.blocks: must be int"),
        (
            "phase.bottleneck.freeze=backbon",
            "phase.bottleneck.freeze.name: no freeze-policy is called 'backbon'",
        ),
        (
            "phase.fine-tune.augmentation.rotatoin=1",
            "phase.fine-tune.augmentation.rotatoin: is unknown (did you",
        ),
        (
            "training.optimizer.name=sgdd",
            "training.optimizer.name: timm knows no optimiser 'sgdd' (did you mean",
        ),
        ("training.optimizer.lr=fast", "training.optimizer.lr: must be a number, not 'fast'"),
        ("training.optimizer.lr=true", "training.optimizer.lr: must be a number"),
        ("training.optimizer.momentun=0.9", "training.optimizer.momentun: "),
        (
            "phase.fine-tune.optimizer={name='adamx'}",
            "phase.fine-tune.optimizer.name: timm knows no optimiser",
        ),
        (
            "training.schedule=cosin",
            "training.schedule.name: timm knows no schedule 'cosin' (did you mean 'cosine'",
        ),
        (
            "phase.fine-tune.schedule={name='step', decay_epoch=1}",
            "phase.fine-tune.schedule.decay_epoch: is unknown",
        ),
        ("training.schedule={name='cosine', warmup_epochs='2'}", "training.schedule."),
        (
            "phase.fine-tune.schedule={name='cosine', warmup_epochs=2}",
            "phase.fine-tune.schedule.warmup_epochs: must be less than the phase's epochs (2), and is 2",
        ),
        ("training.optimizer.layer_decay=7", "training.optimizer.layer_decay: must be above 0"),
    ],
)
def test_mistakes_that_the_registry_and_timm_find_are_named_by_their_key(
    override: str, beginning: str, write: Write
) -> None:
    recipe = read_recipe(write(BASE), [override])
    (line,) = recipe_problems(recipe, StandInRegistry())
    assert line.startswith(beginning)
    with pytest.raises(RecipeError, match=r"recipe\.toml: 1 problem"):
        validate(recipe, StandInRegistry())


def test_a_source_without_unlabelled_images_refuses_them(write: Write) -> None:
    recipe = read_recipe(write(BASE), ["data.unlabelled=more", "data.source=labelled"])
    assert recipe_problems(recipe, StandInRegistry()) == ["data.unlabelled: is unknown"]


def test_a_mistake_is_reported_for_the_table_that_it_is_written_in(write: Write) -> None:
    recipe = read_recipe(
        write(BASE.replace("start_from", "# ")),
        [
            "phase.fine-tune.backbone.weigths=none",
            "head.hiden=3",
            "phase.bottleneck.optimizer.lr=x",
        ],
    )
    assert [line.partition(": ")[0] for line in recipe_problems(recipe, StandInRegistry())] == [
        "head.hiden",
        "phase.bottleneck.optimizer.lr",
        "phase.fine-tune.backbone.weigths",
    ]


def test_only_some_sources_need_a_folder(write: Write) -> None:
    path = write(BASE.replace('root = "photos"\n', ""))
    assert recipe_problems(read_recipe(path), StandInRegistry()) == []
    recipe = read_recipe(path, ["data.source=labelled"])
    assert recipe_problems(recipe, StandInRegistry()) == [
        "data.root: is missing: source 'labelled' needs the folder of its images"
    ]


def test_mistakes_of_the_file_and_of_its_parts_are_reported_together(write: Write) -> None:
    recipe = draft_recipe(write(BASE.replace("seed", "sede")), ["head.hidden=many", "data.source=folder"])
    assert [line.partition(": ")[0] for line in recipe_problems(recipe, StandInRegistry())] == [
        "sede",
        "data.source.name",
        "head.hidden",
    ]


def test_a_phase_without_a_name_does_not_hide_the_mistakes_of_others(write: Write) -> None:
    text = BASE.replace('name = "bottleneck"\n', "epochs = 1\n").replace('start_from = "bottleneck"\n', "")
    recipe = draft_recipe(write(text), ["head.hidden=many"])
    assert recipe_problems(recipe, StandInRegistry()) == [
        "phase.1.name: is missing",
        "head.hidden: must be int",
    ]
