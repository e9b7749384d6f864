"""Every kind of annotation a factory may have, through describe, check and convert."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from tlkit.errors import PluginError
from tlkit.plugins import options

if TYPE_CHECKING:
    from nowhere import Network  # type: ignore[import-not-found]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class RecipeStr(str):
    """A string of a recipe, which knows the recipe's folder."""

    folder: Path


def make(
    network: Network,
    classes: int,
    *,
    rate: float,
    hidden: int = 256,
    share: Annotated[float, Field(gt=0, le=1)] = 0.5,
    flip: bool = True,
    mode: Literal["crop", "pad"] = "crop",
    level: Literal[0, 1] = 0,
    limit: int | None = None,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    sizes: Sequence[int] = (),
    names: frozenset[str] = frozenset(),
    pairs: list[tuple[int, int]] | None = None,
    groups: dict[str, str] | None = None,
    colour: Colour = Colour.RED,
    weights: Literal["pretrained", "none"] | Path = "pretrained",
    other_weights: Path | Literal["none"] = "none",
    cached: Path | None = None,
    any_weights: Path | Literal["none", 1] | None = None,
    files: dict[str, Path] | None = None,
    schema: str = "",
    anything=None,
    hook: Callable[[int], int] | None = None,
) -> Network:
    """Makes something.

    Args:
        network: not an option.
        rate: how fast: quickly,
            or slowly.
        hidden (int): units between.
        mode: what to do
            with the rest

    Returns:
        hidden: nothing.
    """


class Thing:
    """A class as a factory.

    Args:
        width: how wide.
    """

    def __init__(self, network: Network, *, width: int = 4) -> None:
        self.width = width

    def __call__(self, network: Network, *, depth: int = 1) -> int:
        return depth


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("rate", 1, 1.0),
        ("hidden", 8, 8),
        ("share", 1, 1.0),
        ("flip", False, False),
        ("mode", "pad", "pad"),
        ("level", 1, 1),
        ("limit", 3, 3),
        ("mean", [0, 0.5, 1], (0.0, 0.5, 1.0)),
        ("sizes", [1, 2], [1, 2]),
        ("names", ["a", "b"], frozenset({"a", "b"})),
        ("pairs", [[1, 2], [3, 4]], [(1, 2), (3, 4)]),
        ("groups", {"cat": "281-285"}, {"cat": "281-285"}),
        ("colour", "blue", Colour.BLUE),
        ("weights", "none", "none"),
        ("weights", Path("w"), Path("w")),
        ("other_weights", "none", "none"),
        ("any_weights", "none", "none"),
        ("any_weights", None, None),
        ("any_weights", "w", Path.cwd() / "w"),
        ("cached", "/w", Path("/w")),
        ("schema", "x", "x"),
        ("anything", [None], [None]),
    ],
)
def test_values_are_converted_to_the_types_of_the_annotations(
    name: str, written: object, value: object
) -> None:
    converted = options.convert(make, {"rate": 0.1, name: written})
    assert converted.pop(name) == value
    assert set(converted) <= {"rate"}, "defaults are left to the factory"


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("rate", "0.5", "must be float, not the string '0.5'"),
        ("rate", True, "must be float, not the boolean true"),
        ("hidden", 1.5, "must be int, not the number 1.5"),
        ("hidden", False, "must be int, not the boolean false"),
        ("hidden", "x" * 99, "must be int, not the string '" + "x" * 56 + "..."),
        ("share", 2, "must be less than or equal to 1, not the number 2"),
        ("flip", 1, "must be bool, not the number 1"),
        ("flip", "yes", "must be bool, not the string 'yes'"),
        ("mode", "squash", """must be "crop" | "pad", not the string 'squash'"""),
        ("mode", [], """must be "crop" | "pad", not the list []"""),
        ("level", True, "must be 0 | 1, not the boolean true"),
        ("limit", "3", "must be int | none, not the string '3'"),
        ("mean", "000", "must be tuple[float, float, float], not the string '000'"),
        ("mean", [1, 2, "3"], "must be tuple[float, float, float], not the list [1, 2, '3']"),
        ("mean", [1, 2], "must be tuple[float, float, float], not the list [1, 2]"),
        ("names", [1], "must be frozenset[str], not the list [1]"),
        ("pairs", [[1, True]], "must be list[tuple[int, int]] | none, not the list [[1, True]]"),
        ("groups", {"cat": 1}, "must be dict[str, str] | none, not the table {'cat': 1}"),
        ("colour", "green", """must be "red" | "blue", not the string 'green'"""),
        ("weights", 1, """must be "pretrained" | "none" | path, not the number 1"""),
        ("files", {"a": 1}, "must be dict[str, path] | none, not the table {'a': 1}"),
        ("schema", 1, "must be str, not the number 1"),
    ],
)
def test_a_mistake_names_the_expected_type_and_the_value(name: str, written: object, message: str) -> None:
    assert options.check(make, {"rate": 0.1, name: written}) == [(name, message)]


def test_all_mistakes_are_reported_together() -> None:
    problems = dict(options.check(make, {"hiden": 1, "flip": 0, "zzz": 1}))
    assert problems["hiden"] == "is unknown (did you mean 'hidden'?)"
    assert problems["zzz"].startswith("is unknown; known: rate, hidden, share")
    assert problems["rate"] == "is missing (float)"
    assert "flip" in problems
    with pytest.raises(PluginError, match=r"option 'hiden' is unknown .*; option 'zzz'"):
        options.convert(make, {"hiden": 1, "zzz": 1})


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    path = RecipeStr("w/a.safetensors")
    path.folder = tmp_path
    written: dict[str, Any] = {
        "rate": 1,
        "weights": path,
        "other_weights": path,
        "files": {"a": path, "b": "~/b", "c": "c"},
    }
    converted = options.convert(make, written)
    expected = tmp_path / "w" / "a.safetensors"
    assert converted["weights"] == converted["other_weights"] == converted["files"]["a"] == expected
    assert converted["files"]["b"] == Path.home() / "b"
    assert converted["files"]["c"] == Path.cwd() / "c"


def test_describes_the_options() -> None:
    described = {option.name: option for option in options.describe(make)}
    assert next(iter(described)) == "rate"
    assert "network" not in described
    assert described["rate"].default is options.REQUIRED
    assert described["rate"].doc == "how fast: quickly, or slowly."
    assert described["hidden"] == options.Option("hidden", "int", 256, "units between.")
    assert described["mode"].doc == "what to do with the rest"
    assert described["weights"].type_text == '"pretrained" | "none" | path'
    assert described["anything"].type_text == "any"
    assert described["flip"].doc == ""


@pytest.mark.parametrize(
    ("docstring", "doc"),
    [
        (None, ""),
        ("Makes a part.", ""),
        (
            "Makes a part.\n\nArgs:\n    width: how wide: very.\n\nReturns:\n    width: nothing.",
            "how wide: very.",
        ),
        ("Makes a part.\n\nArgs:\n    width (int, optional): how wide.", "how wide."),
        ("Makes a part.\n\nAttributes:\n    width: an attribute.", ""),
        # not in Google's style, or broken: there is nothing to show
        ("Makes a part.\n\nParameters\n----------\nwidth : int\n    how wide.", ""),
        ("Makes a part.\n\nArgs:\n", ""),
        ("Makes a part.\n\nArgs:\n    how wide it is", ""),
        ("Makes a part.\n\nArgs:\nwidth: how wide.", ""),
    ],
)
def test_descriptions_are_taken_from_the_docstring(docstring: str | None, doc: str) -> None:
    def part(*, width: int = 1) -> None: ...

    part.__doc__ = docstring
    assert options.describe(part) == [options.Option("width", "int", 1, doc)]


def test_options_that_a_partial_has_bound_cannot_be_set() -> None:
    def part(first: int, second: int, *, width: int, depth: int = 1) -> None:
        """Makes a part.

        Args:
            depth: how deep.
        """

    bound = functools.partial(functools.partial(part, first=1), width=2)
    assert [option.name for option in options.describe(bound)] == ["depth"]
    assert options.describe(bound)[0].doc == "how deep."
    assert options.check(bound, {"width": 3})[0][0] == "width"
    assert options.convert(bound, {"depth": 2}) == {"depth": 2}


def test_classes_and_callable_objects_are_factories_too() -> None:
    assert options.describe(Thing) == [options.Option("width", "int", 4, "how wide.")]
    assert options.convert(Thing, {"width": 1}) == {"width": 1}
    assert [option.name for option in options.describe(Thing(None))] == ["depth"]


def test_a_part_without_options() -> None:
    assert options.check(lambda backbone: None, {"a": 1}) == [("a", "is unknown: this part has no options")]


def test_an_annotation_that_cannot_be_resolved_names_the_factory() -> None:
    def broken(*, network: Network) -> None: ...

    with pytest.raises(PluginError, match=r"broken: the type of an option cannot be resolved.*Network"):
        options.describe(broken)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (Literal["pretrained", "none"], {"weights": "none"}),
        (Literal["pretrained", "none"] | Path, {"weights": "none"}),
        (Path | None, {"weights": None}),
        (Path, {}),
        (str, {}),
    ],
)
def test_the_options_that_make_a_backbone_without_its_weights(weights: Any, expected: dict[str, Any]) -> None:
    def backbone(*, width: int = 8, weights: str) -> None: ...

    backbone.__annotations__["weights"] = weights
    assert options.without_weights(backbone) == expected
    assert options.without_weights(lambda *, width=8: None) == {}
