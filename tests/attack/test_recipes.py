"""Recipes from strangers: a valid recipe, or a RecipeError that names the key; at once, in little memory."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import pytest
from guarded import run_guarded
from recipes import BASE, MINIMAL, problems, write_recipe

from tlkit.errors import PluginError, RecipeError, TlkitError
from tlkit.plugins.options import convert
from tlkit.recipe.reader import read_options
from tlkit.recipe.recipe import read_recipe
from tlkit.utils.directories import cache_folder

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.toml"))
LONG_KEY = ".".join(["a"] * 20_000)
DEEP_ARRAY = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        (f"{LONG_KEY} = 1", "a key has more than 32 parts"),
        (f"[{LONG_KEY}]", "a key has more than 32 parts"),
        (f"x = {{ {LONG_KEY} = 1 }}", "a key has more than 32 parts"),
        (f"{LONG_KEY.replace('a', chr(34) + 'a b' + chr(34))} = 1", "a key has more than 32 parts"),
        (f"x = {DEEP_ARRAY}", "nested too deeply"),
        (f"x = {'[' * 40 + ']' * 40}", "x: is nested more than 32 deep"),
        (f"x = {'{a=' * 20_000}1{'}' * 20_000}", "nested too deeply"),
        (f"x = {'1' * 5000}", "number or date cannot be read"),
        (f"x = {'1' * 4000}", "x: the number has more than 64 bits"),
        (f"x = 0x{'f' * 100_000}", "x: the number has more than 64 bits"),
        (f"x = {'1' * 5000}.0", "x: must be a finite number"),
        ("x.y = nan", "x.y: must be a finite number, and is nan"),
        ("x = [1, -inf]", "x: must be a finite number, and is -inf"),
    ],
    ids="dotted table inline quoted array shallow tables digits fewer hexadecimal float nan infinity".split(),
)
def test_what_no_recipe_needs_is_refused_at_once(addition: str, expected: str, tmp_path: Path) -> None:
    name, _, phases = MINIMAL.partition("[[phase]]")
    path = write_recipe(tmp_path, f"{name}{addition}\n[[phase]]{phases}")
    began = time.process_time()
    (problem,) = problems(path)
    assert expected in problem
    assert len(problem) < 300
    assert time.process_time() - began < 5


def test_a_long_key_takes_little_memory(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, f"{LONG_KEY} = 1\n")
    (outcome,) = run_guarded(f"import pathlib; tlkit.read_recipe(pathlib.Path({str(path)!r}))")
    assert "more than 32 parts" in outcome.error
    assert outcome.memory < 50e6


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "a." * 500_000, '"' * 10**6, '"a".' * 250_000, "a .\t" * 250_000]
)
def test_looking_for_long_keys_takes_little_time(text: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, f"# {text}\nx = '''{text}'''\n"[: 2**20])
    began = time.process_time()
    problems(path)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"data.source.x={'1' * 5000}", "number or date cannot be read"),
        (f"data.source.x={'1' * 4000}", "data.source.x: the number has more than 64 bits"),
        (f"data.source.x={DEEP_ARRAY}", "nested too deeply"),
        (f"{LONG_KEY}=1", "the key has more than 32 parts"),
        (f"data.source={{ {LONG_KEY} = 1 }}", "a key has more than 32 parts"),
        ("head.hidden=nan", "head.hidden: must be a finite number"),
        ("data.root=~nouser/photos", "data.root: the path '~nouser/photos' cannot be resolved"),
        ("backbone.name=local-dir:~nouser", "backbone.name: the path '~nouser' cannot be resolved"),
        ("training.epochs", "must be KEY=VALUE"),
    ],
)
def test_overrides_are_refused_at_once(override: str, expected: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, BASE)
    began = time.process_time()
    (problem,) = problems(path, override)
    assert expected in problem
    assert time.process_time() - began < 5


def test_options_of_a_part_are_refused_likewise() -> None:
    with pytest.raises(RecipeError, match="more than 64 bits"):
        read_options([f"hidden={'1' * 4000}"])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("seed = -1", "seed"),
        ("preprocess = { size = 1000000 }", "preprocess.size"),
        ('extends = "~nouser/recipe.toml"', "extends"),
        ('extends = "a\\u0000b"', "extends"),
        ('data.root = "~nouser/photos"', "data.root"),
        ('data.unlabelled = "a\\u0000b"', "data.unlabelled"),
        ('backbone.name = "local-dir:~nouser/model"', "backbone.name"),
        ('backbone.weights = "~nouser/x.safetensors"', "backbone.weights"),
    ],
)
def test_values_out_of_reason_are_named_by_their_key(line: str, key: str, tmp_path: Path) -> None:
    lines = ['name = "x"', "[[phase]]", 'name = "only"']
    reported = problems(write_recipe(tmp_path, "\n".join([line, *lines])))
    assert any(problem.startswith(f"{key}: ") for problem in reported), reported


def test_a_billion_views(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, BASE.replace("views = 8", "views = 1000000000"))
    (problem,) = problems(path)
    assert problem.startswith("phase.fine-tune.augmentation.views: must be a whole number from 1 to 1000")
    assert (
        read_recipe(write_recipe(tmp_path, BASE.replace("views = 8", "views = 1000"))).phases[1].views == 1000
    )


def test_a_byte_order_mark_is_no_part_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.encode())
    assert read_recipe(path).name == "pets"


def part(*, rate: float = 0.1, rates: tuple[float, ...] = (), folder: Path | None = None) -> None:
    """Has options of the kinds that can hold what is not a number."""


@pytest.mark.parametrize("options", [{"rate": float("nan")}, {"rates": [1.0, float("inf")]}])
def test_options_are_finite_numbers(options: dict[str, object]) -> None:
    with pytest.raises(PluginError, match=f"option '{next(iter(options))}'.*finite"):
        convert(part, options)


def test_the_home_of_nobody() -> None:
    with pytest.raises(PluginError, match="option 'folder' '~nouser/x' cannot be resolved"):
        convert(part, {"folder": "~nouser/x"})


def test_a_cache_in_the_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLKIT_CACHE", "~nouser/cache")
    with pytest.raises(TlkitError, match="TLKIT_CACHE: '~nouser/cache' cannot be resolved"):
        cache_folder()


VALUES = (
    "-1 0 1 1.5 true nan inf 9223372036854775808 [] {} '' 'x' [[]] {name='x'} {name=1} 1979-05-27 "
    "['a','b'] '~nouser' '\\u0000' 1e400 [1,'a']"
).split()


def mutated(text: str, rng: random.Random) -> str:
    """Returns a recipe with values replaced, and lines left out, repeated, moved or damaged."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(lines))
        key, equals, _ = lines[index].partition("=")
        change = rng.randrange(6)
        if change < 3 and equals:
            lines[index] = f"{key}= {rng.choice(VALUES)}"
        elif change == 3:
            lines.insert(rng.randrange(len(lines)), lines[index])
        elif change == 4:
            characters = list(lines[index])
            for _ in range(min(len(characters), 2)):
                characters[rng.randrange(len(characters))] = rng.choice("[]{}='\".,#\x00é\n1a")
            lines[index] = "".join(characters)
        elif len(lines) > 1:
            del lines[index]
    return "\n".join(lines)


def test_any_change_leaves_a_recipe_or_a_recipe_error(tmp_path: Path) -> None:
    rng = random.Random(5)
    texts = [BASE, MINIMAL, *(path.read_text(encoding="utf-8") for path in EXAMPLES)]
    for path in EXAMPLES:  # others extend them
        (tmp_path / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "mutant.toml"
    outcomes = {"recipe": 0, "error": 0}
    for _ in range(600):
        text = mutated(rng.choice(texts), rng)
        file.write_text(text, encoding="utf-8")
        try:
            recipe = read_recipe(file)
        except RecipeError as error:
            assert error.problems, text
            outcomes["error"] += 1
        else:
            (tmp_path / "again.toml").write_text(recipe.to_toml(), encoding="utf-8")
            assert read_recipe(tmp_path / "again.toml").phases == recipe.phases, text
            outcomes["recipe"] += 1
    assert min(outcomes.values()) > 50


@pytest.mark.skipif(sys.platform != "linux", reason="needs devices of Linux")
@pytest.mark.parametrize("kind", ["pipe", "/dev/urandom", "/proc/kmsg"])
def test_recipes_that_are_no_regular_files(kind: str, tmp_path: Path) -> None:
    """Reading them could wait for ever, also behind a link, and where another recipe extends them."""
    odd, recipe = tmp_path / "odd.toml", tmp_path / "recipe.toml"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(kind)
    recipe.write_text('extends = "odd.toml"\n')
    began = time.monotonic()
    for path in (odd, recipe):
        # a file of /proc has no size, and is read as an empty one
        with pytest.raises(RecipeError, match="not a regular file" if kind != "/proc/kmsg" else "is missing"):
            read_recipe(path)
    assert time.monotonic() - began < 5
