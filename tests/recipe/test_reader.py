"""Recipe files: read, extended, overridden, with paths relative to the file that they are written in."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import BASE, MINIMAL, problems

from tlkit.errors import RecipeError
from tlkit.recipe.reader import Located
from tlkit.recipe.recipe import Recipe, read_recipe
from tlkit.recipe.schema import PartSpec

Write = Callable[..., Path]

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
    assert recipe.phases[0].head == PartSpec(name="linear")
    assert recipe.data.on_unreadable == "skip"
    assert recipe.data.root == tmp_path / "base" / "photos"


def test_a_circle_of_recipes_is_named(write: Write) -> None:
    write('extends = "recipe.toml"', "other.toml")
    (problem,) = problems(write('extends = "other.toml"'))
    assert problem.startswith("extends: ")
    assert "circle" in problem
    assert "other.toml" in problem


def test_two_phases_of_one_name_do_not_both_extend_it(write: Write) -> None:
    write(BASE, "base.toml")
    twice = '[[phase]]\nname = "bottleneck"\n' * 2
    assert problems(write(f'extends = "base.toml"\n{twice}')) == [
        "phase.bottleneck: there are 2 phases of this name"
    ]


def test_extends_must_be_the_path_of_a_recipe_that_exists(write: Write) -> None:
    assert problems(write("extends = 3")) == ["extends: must be the path of a recipe"]
    with pytest.raises(RecipeError, match=r"bse\.toml: 1 problem\n.*did you mean 'base\.toml'"):
        write(BASE, "base.toml")
        read_recipe(write('extends = "bse.toml"'))


def test_a_mistake_in_the_extended_recipe_does_not_break_merging(write: Write) -> None:
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
    ("override", "is_set"),
    [
        ("seed=3", lambda recipe: recipe.seed == 3),
        ("goal=0.5", lambda recipe: recipe.goal == 0.5),
        ("backbone.name=resnet50", lambda recipe: recipe.phases[0].backbone.name == "resnet50"),
        ("backbone=resnet50", lambda recipe: recipe.phases[0].backbone == PartSpec(name="resnet50")),
        ('head={name="linear"}', lambda recipe: recipe.phases[0].head == PartSpec(name="linear")),
        ("features.cache=false", lambda recipe: not recipe.phases[1].cache_features),
        (
            "phase.fine-tune.epochs=9",
            lambda recipe: [phase.training.epochs for phase in recipe.phases] == [5, 9],
        ),
        ("phase.fine-tune.freeze.blocks=2", lambda recipe: recipe.phases[1].freeze.options == {"blocks": 2}),
        ("phase.fine-tune.augmentation.views=fresh", lambda recipe: recipe.phases[1].views == "fresh"),
        (
            "phase.fine-tune.optimizer.lr=1",
            lambda recipe: recipe.phases[1].training.optimizer.options["lr"] == 1,
        ),
        (
            "data.source.depth=2",
            lambda recipe: recipe.data.source == PartSpec(name="folders", options={"depth": 2}),
        ),
    ],
)
def test_set_changes_one_key(override: str, is_set: Callable[[Recipe], bool], write: Write) -> None:
    path = write(BASE)
    assert is_set(read_recipe(path, [override]))
    assert not is_set(read_recipe(path))


def test_set_inside_a_phase_merges_into_its_own_table(write: Write) -> None:
    overrides = {f"phase.{name}.backbone.features": "pooled" for name in ("bottleneck", "fine-tune")}
    recipe = read_recipe(write(BASE), overrides)
    assert recipe.phases[0].backbone.table() == {"name": "vgg16", "features": "pooled"}
    assert read_recipe(write(recipe.to_toml(), "again.toml")) == recipe


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "phase.finetune.epochs=1",
            "phase.finetune.epochs: there is no phase 'finetune' (did you mean 'fine-tune'?)",
        ),
        ("phase.x.epochs=1", "phase.x.epochs: there is no phase 'x'; there are bottleneck, fine-tune"),
        ("phase.fine-tune=1", "phase.fine-tune: name a phase and its key, such as phase.fine-tune.epochs"),
        ("phase=1", "phase: name a phase and its key, such as phase.NAME.epochs"),
        ("epochs", "--set epochs: must be KEY=VALUE, such as training.epochs=5"),
        ("seed.x=1", "seed.x: seed is a value, not a table"),
        ("extends=b.toml", "extends: can be written in a recipe only"),
        ("training.epoch=1", "training.epoch: is unknown (did you mean 'epochs'?)"),
    ],
)
def test_keys_that_cannot_be_set(override: str, problem: str, write: Write) -> None:
    assert problems(write(BASE), override) == [problem]


def test_set_where_phases_are_not_a_list(write: Write) -> None:
    assert problems(write("phase = 3"), "phase.x.epochs=1") == [
        "phase.x.epochs: there is no phase 'x'; there are none"
    ]


# paths


def test_paths_are_relative_to_the_file_that_they_are_written_in(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MINIMAL.replace('"photos" }', '"~/photos", unlabelled = "more" }')
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
    path = write(MINIMAL, "folder/recipe.toml")
    recipe = read_recipe(path, ["data.root=here", "backbone.name=local-dir:net", "head.table=t.csv"])
    assert recipe.data.root == tmp_path / "here"
    assert recipe.phases[0].backbone.name == f"local-dir:{tmp_path / 'net'}"
    assert recipe.phases[0].head.options["table"].folder == tmp_path
    assert read_recipe(path, {"data.root": Path("there")}).data.root == tmp_path / "there"


@pytest.mark.parametrize(
    ("path", "expected"), [("./net", "folder/net"), ("../net", "net"), ("~/net", "home/net")]
)
def test_a_plugins_name_may_be_the_address_of_a_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    recipe = read_recipe(write(MINIMAL + f'backbone = "any:{path}"', "folder/recipe.toml"))
    assert recipe.phases[0].backbone.name == f"any:{tmp_path / expected}"
    plain = read_recipe(write(MINIMAL + 'backbone = "any:net/work"', "folder/recipe.toml"))
    assert plain.phases[0].backbone.name == "any:net/work"


# files


def test_a_file_that_is_not_toml(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.toml: 1 problem\n  - is not TOML: .*line 2") as caught:
        read_recipe(write('name = "x"\nseed == 3'))
    assert len(caught.value.problems) == 1
    path = write("")
    path.write_bytes(b"\xff\xfe")
    assert problems(path)[0].startswith("cannot be read: ")
    (problem,) = problems(write("path,label", "labels.csv"))
    assert problem.startswith("is a CSV file, not a recipe: `tlkit fit` trains on it")


def test_a_file_that_does_not_exist(write: Write, tmp_path: Path) -> None:
    path = write(MINIMAL, "pets.toml")
    assert problems(tmp_path / "pet.toml") == ["no such file (did you mean 'pets.toml'?)"]
    assert problems(tmp_path) == ["no such file (did you mean 'pets.toml'?)"]
    assert problems(tmp_path / "xyz") == ["no such file; there are pets.toml"]
    path.unlink()
    assert problems(tmp_path / "nowhere" / "x.toml") == ["no such file"]


def test_a_recipe_that_is_written_back_reads_as_an_equal_one(write: Write, tmp_path: Path) -> None:
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


def test_reading_a_recipe_imports_neither_torch_nor_timm(write: Write) -> None:
    code = (
        "import sys, pathlib; from tlkit.recipe.recipe import read_recipe; "
        "read_recipe(pathlib.Path(sys.argv[1])); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(write(BASE))], check=True)
