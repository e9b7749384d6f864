"""Recipes as people write them: read, extended, overridden, refused, written back."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tlkit.errors import RecipeError, close_matches
from tlkit.recipe.reader import Located
from tlkit.recipe.recipe import Part, Recipe, read_recipe

BASE = """
name = "pets"
seed = 4
goal = 0.8

[data]
source = "folders"
root = "photos"
per_class = { train = 8, val = 2, test = 3 }

[backbone]
name = "vgg16"
features = "map"

[preprocess]
size = 96
resize = "squash"

[head]
name = "mlp"
hidden = 16

[training]
epochs = 5
optimizer = { name = "sgd", lr = 1e-2, momentum = 0.9 }

[[phase]]
name = "bottleneck"

[[phase]]
name = "fine-tune"
start_from = "bottleneck"
freeze = { name = "last-blocks", blocks = 1 }
augmentation = { name = "affine", rotation = 10, views = 8 }
epochs = 2
"""
LEAST = """
name = "least"
data = { source = "folders", root = "photos" }
backbone = "vgg16"
[[phase]]
name = "only"
"""

Write = Callable[..., Path]


class StandInRegistry:
    """Stands in for the registry of parts: knows a few parts and their options' types."""

    PARTS: ClassVar[Mapping[tuple[str, str], Mapping[str, type]]] = {
        ("source", "folders"): {"unlabelled": Path, "depth": int},
        ("source", "labelled"): {},
        ("backbone", "vgg16"): {"features": str, "weights": str},
        ("head", "mlp"): {"hidden": int},
        ("head", "linear"): {},
        ("freeze-policy", "backbone"): {},
        ("freeze-policy", "last-blocks"): {"blocks": int},
        ("augmentation", "none"): {},
        ("augmentation", "affine"): {"rotation": int},
    }

    def problems(self, kind: str, name: str, given: Mapping[str, Any], /) -> list[tuple[str, str]]:
        known = self.PARTS.get((kind, name))
        if known is None:
            names = [part for of, part in self.PARTS if of == kind]
            return [("name", f"no {kind} is called {name!r}{close_matches(name, names)}")]
        unknown = [(key, f"is unknown{close_matches(key, known)}") for key in given if key not in known]
        return unknown + [
            (key, f"must be {known[key].__name__}")
            for key, value in given.items()
            if key in known and not isinstance(value, known[key])
        ]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def save(text: str, name: str = "recipe.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return save


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)
    return caught.value.problems


def found(recipe: Recipe) -> list[str]:
    return recipe.problems(StandInRegistry())


# what a recipe means


def test_phases_inherit_what_they_do_not_say(write: Write) -> None:
    recipe = read_recipe(write(BASE))
    first, second = recipe.phases
    assert (recipe.name, recipe.seed, recipe.goal) == ("pets", 4, 0.8)
    assert first.backbone == Part(name="vgg16", options={"features": "map"})
    assert second.backbone.table() == {"name": "vgg16", "features": "map"}
    assert first.preprocess == {"size": 96, "resize": "squash"}
    assert first.head == second.head == Part(name="mlp", options={"hidden": 16})
    assert (first.freeze.name, first.augmentation.name, first.views) == ("backbone", "none", 1)
    assert second.freeze == Part(name="last-blocks", options={"blocks": 1})
    assert second.augmentation == Part(name="affine", options={"rotation": 10})
    assert (second.views, second.start_from, second.statistics, second.keep) == (8, "bottleneck", None, True)
    assert (first.training.epochs, second.training.epochs) == (5, 2)
    assert second.training.optimizer.options == {"lr": 1e-2, "momentum": 0.9}
    assert recipe.data.per_class is not None
    assert recipe.data.per_class.model_dump() == {"train": 8, "val": 2, "test": 3}


def test_defaults(write: Write) -> None:
    recipe = read_recipe(write(LEAST))
    (phase,) = recipe.phases
    assert (recipe.seed, recipe.goal) == (1, None)
    assert (phase.head.name, phase.preprocess, phase.views) == ("linear", {}, 1)
    training = phase.training
    assert (training.epochs, training.batch_size, training.precision) == (30, 32, "auto")
    assert training.optimizer == Part(name="adamw", options={"lr": 1e-3})
    assert (training.schedule, training.patience, training.class_weights) == (None, None, "balanced")
    data = recipe.data
    assert (data.per_class, data.unlabelled, data.on_unreadable) == (None, None, "stop")
    assert data.fractions.model_dump() == {"val": 0.15, "test": 0.15}


def test_a_named_augmentation_is_fresh_unless_told(write: Write) -> None:
    assert read_recipe(write(LEAST + 'augmentation = "affine"')).phases[0].views == "fresh"


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
    phase = read_recipe(write(BASE + more + "features = { keep = false }")).phase("fine-tune")
    assert phase.training.optimizer == Part(name="sgd", options={"lr": 1e-4, "momentum": 0.9})
    assert phase.training.schedule == Part(name="cosine")
    assert phase.preprocess == {"size": 64, "resize": "squash", "mean": [0, 0.5, 1]}
    assert not phase.keep


def test_tables_without_a_name_merge_into_the_default_part(write: Write) -> None:
    recipe = read_recipe(write(LEAST), ["training.optimizer.lr=0.5", "head.bias=false"])
    assert recipe.phases[0].training.optimizer.table() == {"name": "adamw", "lr": 0.5}
    assert recipe.phases[0].head.table() == {"name": "linear", "bias": False}


def test_a_phase_that_is_not_there(write: Write) -> None:
    with pytest.raises(RecipeError, match="did you mean 'fine-tune'"):
        read_recipe(write(BASE)).phase("finetune")


# extends


def test_extends_merges_phases_by_name_and_appends_new_ones(write: Write, tmp_path: Path) -> None:
    write(BASE, "base/pets.toml")
    write(
        'extends = "base/pets.toml"\n[backbone]\nweights = "none"\n[training]\nbatch_size = 4', "middle.toml"
    )
    recipe = read_recipe(
        write(
            'extends = "middle.toml"\nname = "mine"\nhead = "linear"\n[data]\non_unreadable = "skip"\n'
            '[[phase]]\nname = "bottleneck"\nepochs = 1\n[[phase]]\nname = "again"\nstart_from = "fine-tune"'
        )
    )
    assert (recipe.name, recipe.seed) == ("mine", 4)
    assert [phase.name for phase in recipe.phases] == ["bottleneck", "fine-tune", "again"]
    assert [phase.training.epochs for phase in recipe.phases] == [1, 2, 5]
    assert {phase.training.batch_size for phase in recipe.phases} == {4}
    assert recipe.phases[2].backbone.table() == {"name": "vgg16", "features": "map", "weights": "none"}
    assert recipe.phases[0].head == Part(name="linear")
    assert recipe.data.on_unreadable == "skip"
    assert recipe.data.root == tmp_path / "base" / "photos"


def test_a_circle_of_recipes_is_named(write: Write) -> None:
    write('extends = "recipe.toml"', "other.toml")
    (problem,) = problems(write('extends = "other.toml"'))
    assert problem.startswith("extends: ")
    assert "circle" in problem
    assert "other.toml" in problem


def test_two_phases_of_one_name_are_no_way_to_extend_one(write: Write) -> None:
    write(BASE, "base.toml")
    twice = '[[phase]]\nname = "bottleneck"\n' * 2
    assert problems(write(f'extends = "base.toml"\n{twice}')) == [
        "phase.bottleneck: there are 2 phases of this name"
    ]


def test_extends_must_be_a_path_of_a_recipe_that_is_there(write: Write) -> None:
    assert problems(write("extends = 3")) == ["extends: must be the path of a recipe"]
    with pytest.raises(RecipeError, match=r"bse\.toml: 1 problem\n.*did you mean 'base\.toml'"):
        write(BASE, "base.toml")
        read_recipe(write('extends = "bse.toml"'))


def test_a_mistake_above_does_not_break_merging(write: Write) -> None:
    write(
        BASE.replace('[backbone]\nname = "vgg16"\nfeatures = "map"', "").replace(
            "seed", "backbone = 3\nseed"
        ),
        "b.toml",
    )
    (first, _) = problems(write('extends = "b.toml"\nbackbone = { features = "map" }'))
    assert first == "phase.bottleneck.backbone: no backbone is named, neither here nor in [backbone]"


# overrides


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("seed=3", lambda recipe: recipe.seed == 3),
        ("goal=0.5", lambda recipe: recipe.goal == 0.5),
        ("backbone.name=resnet50", lambda recipe: recipe.phases[0].backbone.name == "resnet50"),
        ("backbone=resnet50", lambda recipe: recipe.phases[0].backbone == Part(name="resnet50")),
        ('head={name="linear"}', lambda recipe: recipe.phases[0].head == Part(name="linear")),
        ("features.keep=false", lambda recipe: not recipe.phases[1].keep),
        ("phase.fine-tune.epochs=9", lambda recipe: [p.training.epochs for p in recipe.phases] == [5, 9]),
        ("phase.fine-tune.freeze.blocks=2", lambda recipe: recipe.phases[1].freeze.options == {"blocks": 2}),
        ("phase.fine-tune.augmentation.views=fresh", lambda recipe: recipe.phases[1].views == "fresh"),
        (
            "phase.fine-tune.optimizer.lr=1",
            lambda recipe: recipe.phases[1].training.optimizer.options["lr"] == 1,
        ),
        (
            "data.source.depth=2",
            lambda recipe: recipe.data.source == Part(name="folders", options={"depth": 2}),
        ),
    ],
)
def test_set_changes_one_key(text: str, read: Callable[[Recipe], bool], write: Write) -> None:
    path = write(BASE)
    assert read(read_recipe(path, [text]))
    assert not read(read_recipe(path))


def test_set_inside_a_phase_merges_into_its_own_table(write: Write) -> None:
    overrides = {f"phase.{name}.backbone.features": "pooled" for name in ("bottleneck", "fine-tune")}
    recipe = read_recipe(write(BASE), overrides)
    assert recipe.phases[0].backbone.table() == {"name": "vgg16", "features": "pooled"}
    assert read_recipe(write(recipe.to_toml(), "again.toml")) == recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "phase.finetune.epochs=1",
            "phase.finetune.epochs: there is no phase 'finetune' (did you mean 'fine-tune'?)",
        ),
        ("phase.x.epochs=1", "phase.x.epochs: there is no phase 'x'; there are bottleneck, fine-tune"),
        ("phase.fine-tune=1", "phase.fine-tune: name a phase and its key, such as phase.fine-tune.epochs"),
        ("phase=1", "phase: name a phase and its key, such as phase.NAME.epochs"),
        ("epochs", "--set epochs: must be KEY=VALUE, such as training.epochs=5"),
        ("seed.x=1", "seed.x: seed holds a value and no table"),
        ("extends=b.toml", "extends: can be written in a recipe only"),
        ("training.epoch=1", "training.epoch: is unknown (did you mean 'epochs'?)"),
    ],
)
def test_what_cannot_be_set(text: str, says: str, write: Write) -> None:
    assert problems(write(BASE), text) == [says]


def test_set_where_phases_are_no_list(write: Write) -> None:
    assert problems(write("phase = 3"), "phase.x.epochs=1") == [
        "phase.x.epochs: there is no phase 'x'; there are none"
    ]


# paths


def test_paths_are_relative_to_the_file_that_says_them(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = LEAST.replace('"photos" }', '"~/photos", unlabelled = "more" }')
    text += 'backbone = { name = "local-dir:net", weights = "w/net.safetensors", table = "t.csv" }'
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = read_recipe(write(text, "folder/recipe.toml").parent)
    folder = tmp_path / "folder"
    assert recipe.path == folder / "recipe.toml"
    assert (recipe.data.root, recipe.data.unlabelled) == (tmp_path / "home" / "photos", folder / "more")
    options = recipe.phases[0].backbone.table()
    assert options["name"] == f"local-dir:{folder / 'net'}"
    assert options["weights"] == str(folder / "w" / "net.safetensors")
    assert isinstance(options["table"], Located)
    assert (options["table"], options["table"].folder) == ("t.csv", folder)


def test_paths_on_the_command_line_are_relative_to_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(LEAST, "folder/recipe.toml")
    recipe = read_recipe(path, ["data.root=here", "backbone.name=local-dir:net", "head.table=t.csv"])
    assert recipe.data.root == tmp_path / "here"
    assert recipe.phases[0].backbone.name == f"local-dir:{tmp_path / 'net'}"
    assert recipe.phases[0].head.options["table"].folder == tmp_path
    assert read_recipe(path, {"data.root": Path("there")}).data.root == tmp_path / "there"


@pytest.mark.parametrize(
    ("path", "found"), [("./net", "folder/net"), ("../net", "net"), ("~/net", "home/net")]
)
def test_a_plugins_name_may_be_the_address_of_a_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, found: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = read_recipe(write(LEAST + f'backbone = "any:{path}"', "folder/recipe.toml"))
    assert recipe.phases[0].backbone.name == f"any:{tmp_path / found}"
    plain = read_recipe(write(LEAST + 'backbone = "any:net/work"', "folder/recipe.toml"))
    assert plain.phases[0].backbone.name == "any:net/work"


# writing back


def test_what_is_written_reads_back_as_an_equal_recipe(write: Write, tmp_path: Path) -> None:
    write(BASE, "base/recipe.toml")
    text = 'extends = "base/recipe.toml"\n[data]\nunlabelled = "more"\n[[phase]]\nname = "plain"'
    recipe = read_recipe(write(text), ["phase.plain.schedule={name='cosine', warmup_epochs=2}", "seed=9"])
    again = read_recipe(write(recipe.to_toml(), "elsewhere/recipe.toml"))
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()
    tree = tomllib.loads(recipe.to_toml())
    assert "extends" not in tree
    assert tree["data"]["root"] == str(tmp_path / "base" / "photos")
    assert tree["data"]["unlabelled"] == str(tmp_path / "more")


# what is wrong with a recipe by itself


@pytest.mark.parametrize(
    ("old", "new", "says"),
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
            ["training.qqq: is unknown; known here: batch_size, class_weights, epochs, "],
        ),
        ("seed = 4", "sede = 4", ["sede: is unknown (did you mean 'seed'?)"]),
        ("seed = 4", "seed = 4.0", ["seed: must be a whole number, and is 4.0"]),
        ("seed = 4", "features = { kep = true }", ["features.kep: is unknown (did you mean 'keep'?)"]),
        ("seed = 4", 'features = { keep = "no" }', ['features.keep: must be true or false, and is "no"']),
        ("goal = 0.8", "goal = 80", ["goal: must be less than or equal to 1, and is 80"]),
        ("goal = 0.8", "goal = -0.1", ["goal: must be greater than 0, and is -0.1"]),
        ("goal = 0.8", "goal = true", ["goal: must be a number, and is true"]),
        ('name = "pets"', "", ["name: is missing"]),
        ('name = "pets"', 'name = "my pets"', ["name: must begin with a letter or digit and hold only"]),
        ('"fine-tune"', '"../x"', ["phase.../x.name: must begin with a letter or digit and hold only"]),
        (
            'name = "bottleneck"',
            "",
            ["phase.1.name: is missing", "phase.fine-tune.start_from: there is no phase"],
        ),
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
        ('name = "vgg16"\n', "name = 16\n", ["backbone: its name must be a text, and is 16"]),
        ("size = 96", "size = 0", ["preprocess.size: must be greater than or equal to 1, and is 0"]),
        ("size = 96", "crop = 1.5", ["preprocess.crop: must be less than or equal to 1, and is 1.5"]),
        ("size = 96", "mean = [0.5]", ["preprocess.mean: must have 3 values, one per channel, and has 1"]),
        ("size = 96", "std = [1, 0, 1]", ["preprocess.std.1: must be greater than 0, and is 0"]),
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
        ("epochs = 2", "schedule = { warmup_epochs = 2 }", ["phase.fine-tune.schedule: needs a name"]),
        (
            "epochs = 2",
            'statistics = "off"',
            ["phase.fine-tune.statistics: must be 'learn' or 'keep', and is"],
        ),
        ('name = "last-blocks", ', "", ["phase.fine-tune.freeze: needs a name"]),
        (
            "views = 8",
            "views = 0",
            [
                'phase.fine-tune.augmentation.views: must be a whole number from 1, "fresh" or "auto", '
                "and is 0"
            ],
        ),
        (
            "views = 8",
            'views = "new"',
            ['phase.fine-tune.augmentation.views: must be a whole number from 1, "fresh" or "auto", and'],
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
def test_a_mistake_is_named_by_its_key(old: str, new: str, says: list[str], write: Write) -> None:
    assert BASE.count(old) == 1
    lines = problems(write(BASE.replace(old, new)))
    assert len(lines) == len(says), lines
    for line, beginning in zip(lines, says, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    "key", ["backbone", "head", "freeze", "augmentation", "optimizer", "schedule", "preprocess", "start_from"]
)
def test_a_number_where_none_can_be(key: str, write: Write) -> None:
    (line,) = problems(write(LEAST + f"{key} = 3"))
    assert line.startswith(f"phase.only.{key}: must be ")
    assert line.endswith(", and is 3")


def test_a_recipe_needs_phases(write: Write) -> None:
    for text in ("", "phase = []", 'phase = "all"', "[phase]\nname = 'x'"):
        lines = problems(write(LEAST.partition("[[")[0] + text))
        assert lines == ["phase: a recipe needs at least one phase, written as [[phase]]"]


def test_all_mistakes_are_said_at_once(write: Write) -> None:
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


def test_a_phase_that_is_wrong_is_still_a_phase_to_start_from(write: Write) -> None:
    assert problems(write(BASE), "phase.bottleneck.freeze={blocks=1}") == [
        "phase.bottleneck.freeze: needs a name"
    ]


def test_a_file_that_is_no_toml(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml: 1 problem\n  - is not TOML: .*line 2") as caught:
        read_recipe(write('name = "x"\nseed == 3'))
    assert len(caught.value.problems) == 1
    path = write("")
    path.write_bytes(b"\xff\xfe")
    assert problems(path)[0].startswith("cannot be read: ")


def test_a_file_that_is_not_there(write: Write, tmp_path: Path) -> None:
    path = write(LEAST, "pets.toml")
    assert problems(tmp_path / "pet.toml") == ["no such file (did you mean 'pets.toml'?)"]
    assert problems(tmp_path) == ["no such file (did you mean 'pets.toml'?)"]
    assert problems(tmp_path / "xyz") == ["no such file; there are pets.toml"]
    path.unlink()
    assert problems(tmp_path / "nowhere" / "x.toml") == ["no such file"]


# what is wrong with its parts


def test_a_sound_recipe_has_no_problems(write: Write) -> None:
    recipe = read_recipe(
        write(BASE), ["training.schedule={name='cosine', warmup_epochs=2}", "data.unlabelled=x"]
    )
    assert found(recipe) == []
    recipe.validate(StandInRegistry())


@pytest.mark.parametrize(
    ("text", "says"),
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
    ],
)
def test_what_the_registry_and_timm_refuse_is_named_by_its_key(text: str, says: str, write: Write) -> None:
    recipe = read_recipe(write(BASE), [text])
    (line,) = found(recipe)
    assert line.startswith(says)
    with pytest.raises(RecipeError, match=r"recipe\.toml: 1 problem"):
        recipe.validate(StandInRegistry())


def test_unlabelled_images_are_the_sources_affair(write: Write) -> None:
    recipe = read_recipe(write(BASE), ["data.unlabelled=more", "data.source=labelled"])
    assert found(recipe) == ["data.unlabelled: is unknown"]


def test_a_part_that_merges_blames_the_table_with_the_mistake(write: Write) -> None:
    recipe = read_recipe(
        write(BASE.replace("start_from", "# ")),
        [
            "phase.fine-tune.backbone.weigths=none",
            "head.hiden=3",
            "phase.bottleneck.optimizer.lr=x",
        ],
    )
    assert [line.partition(": ")[0] for line in found(recipe)] == [
        "head.hiden",
        "phase.bottleneck.optimizer.lr",
        "phase.fine-tune.backbone.weigths",
    ]


def test_reading_a_recipe_imports_neither_torch_nor_timm(write: Write) -> None:
    code = (
        "import sys, pathlib; from tlkit.recipe import read_recipe; "
        "read_recipe(pathlib.Path(sys.argv[1])); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(write(BASE))], check=True)
