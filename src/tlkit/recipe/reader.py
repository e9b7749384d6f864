"""Reads recipe files: follows `extends`, applies `--set`, resolves paths.

A recipe is handled here as the plain tables that TOML has; `schema.py` says what they may contain.
"""

from __future__ import annotations

import copy
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlkit.errors import RecipeError, close_matches
from tlkit.utils.regular_files import read_regular
from tlkit.utils.sequences import as_list

Tree = dict[str, Any]

#: A recipe is smaller than this, in bytes.
MAX_BYTES = 2**20
#: Tables and arrays are nested less deeply than this, which Python's recursion could not follow for ever.
MAX_DEPTH = 32
#: TOML's own limit: 64 bits. Longer numbers cannot always be printed.
INTEGERS = range(-(2**63), 2**63)
#: A key of more than MAX_DEPTH parts, for which tomllib takes minutes and gigabytes. No other text that a
#: recipe has reason to hold, such as an address, has so many words with dots between them.
LONG_KEY = re.compile(
    r"""(?<![\w-])(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
    rf"""(?:[ \t]*+\.[ \t]*+(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')){{{MAX_DEPTH}}}"""
)
#: Tables that describe a part: one with a name replaces the inherited one, one without merges into it.
PARTS = frozenset(
    {"source", "backbone", "head", "freeze", "augmentation", "loss", "optimizer", "schedule", "engine"}
)
#: Keys whose value is a path, besides any string that ends in .safetensors.
PATHS = frozenset({("data", name) for name in ("root", "splits", "unlabelled", "corrections")})


class _Refused(ValueError):
    """What is wrong with a recipe's text or with one of its values."""


class Located(str):
    """A string from a recipe that knows the folder that it is relative to if it is a path."""

    __slots__ = ("folder",)
    folder: Path

    def __new__(cls, text: str, folder: Path) -> Located:
        located = super().__new__(cls, text)
        located.folder = folder
        return located

    def __deepcopy__(self, memo: dict[int, Any]) -> Located:
        return self

    def __getnewargs__(self) -> tuple[str, Path]:  # type: ignore[override]
        """Lets it be pickled."""
        return str(self), self.folder


def read_tree(path: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Tree:
    """Reads a recipe's tables, with `extends` followed and `overrides` applied.

    Args:
        path: the recipe, or a folder that holds ``recipe.toml``.
        overrides: ``{"dotted.key": value}``, or strings ``"dotted.key=value"`` with TOML values.

    Raises:
        RecipeError: a file is missing or not TOML, recipes extend each other in a circle, or a key
            cannot be set.
    """
    file = path / "recipe.toml" if path.is_dir() else path
    tree = _read(file.absolute(), ())
    problems: list[str] = []
    for key, value in _pairs(overrides, problems):
        problem = _set(tree, key, value)
        if problem:
            problems.append(problem)
    if problems:
        raise RecipeError(problems, recipe=str(file))
    return tree


def read_options(texts: Sequence[str]) -> Tree:
    """Parses a part's options from strings ``"option=value"`` with TOML values.

    Raises:
        RecipeError: a string does not have this form.
    """
    problems: list[str] = []
    options = {".".join(key): value for key, value in _pairs(texts, problems)}
    if problems:
        raise RecipeError(problems, recipe="--set")
    return options


def merge_part(base: Any, override: Any) -> Any:
    """Replaces a part's table by one with a name, or merges one without a name into it."""
    if not isinstance(override, dict) or "name" in override:
        return override
    inherited = {"name": base} if isinstance(base, str) else base
    return {**inherited, **override} if isinstance(inherited, dict) else override


def merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> Tree:
    """Merges two trees of tables: parts as parts, other tables key by key, phases by name."""
    merged = dict(base)
    for key, value in override.items():
        if key == "phase" and isinstance(value, list) and isinstance(base.get(key), list):
            merged[key] = _merge_phases(base[key], value)
        elif key in PARTS and key in base:
            merged[key] = merge_part(base[key], value)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = merge(base[key], value)
        else:
            merged[key] = value
    return merged


def plain(value: Any) -> Any:
    """Converts a value to what TOML can represent, leaving out keys that are None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, (str, Path)) else value


def is_same(tree: Tree, text: str) -> bool:
    """Returns whether TOML has these tables, apart from the one that says where they are computed."""
    try:
        other = _parse(text)
    except (tomllib.TOMLDecodeError, _Refused):
        return False
    return all(tree.get(key) == other.get(key) for key in (tree.keys() | other.keys()) - {"compute"})


def _merge_phases(base: Sequence[Any], override: Sequence[Any]) -> list[Any]:
    merged = list(base)
    names = [phase.get("name") if isinstance(phase, dict) else None for phase in base]
    for phase in override:
        name = phase.get("name") if isinstance(phase, dict) else None
        if name is not None and name in names:
            index = names.index(name)
            merged[index] = merge(merged[index], phase)
            names[index] = None  # a second phase of this name is a mistake, which merging would hide
        else:
            merged.append(phase)
    return merged


def _read(file: Path, extended_by: tuple[Path, ...]) -> Tree:
    if file in extended_by:
        circle = " extends ".join(str(path) for path in (*extended_by, file))
        raise RecipeError([f"extends: recipes extend each other in a circle: {circle}"], recipe=str(file))
    if file.suffix.lower() == ".csv":
        problem = "is a CSV file, not a recipe: `tlkit fit` trains on it, and a recipe names it with "
        problem += f'data.source = {{ name = "csv", file = "{file.name}" }}'
        raise RecipeError([problem], recipe=str(file))
    try:
        tree = _parse(read_regular(file, MAX_BYTES).decode("utf-8-sig"))
        located: Tree = _locate(tree, file.parent)
    except FileNotFoundError as error:
        siblings = sorted(path.name for path in file.parent.glob("*.toml")) if file.parent.is_dir() else []
        hint = close_matches(file.name, siblings)
        hint = hint or (f"; there are {', '.join(siblings)}" if siblings else "")
        raise RecipeError([f"no such file{hint}"], recipe=str(file)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError([f"cannot be read: {error}"], recipe=str(file)) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([f"is not TOML: {error}"], recipe=str(file)) from error
    except _Refused as error:
        raise RecipeError([str(error)], recipe=str(file)) from error
    base = located.pop("extends", None)
    if base is None:
        return located
    if not isinstance(base, str):
        raise RecipeError(["extends: must be the path of a recipe"], recipe=str(file))
    try:
        path = _absolute(base, file.parent, ("extends",))
    except _Refused as error:
        raise RecipeError([str(error)], recipe=str(file)) from error
    return merge(_read(path, (*extended_by, file)), located)


def _parse(text: str) -> Tree:
    """Parses TOML, in a time and with a memory that its length bounds.

    Raises:
        TOMLDecodeError: it is not TOML.
        _Refused: it is TOML that no recipe needs.
    """
    if match := LONG_KEY.search(text):
        raise _Refused(f"{match[0][:40]}…: a key has more than {MAX_DEPTH} parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise _Refused("its tables or arrays are nested too deeply") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # Python's own limit for the digits of a number
        raise _Refused(f"a number or date cannot be read: {error}") from error


def _locate(value: Any, folder: Path, key: tuple[str, ...] = (), depth: int = 0) -> Any:
    """Makes known paths absolute, and lets every other string know its folder.

    Raises:
        _Refused: a value is too large, not a number, or nested too deeply, or a path cannot be resolved.
    """
    if depth > MAX_DEPTH:
        raise _Refused(f"{_dotted(key)}: is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return {name: _locate(item, folder, (*key, name), depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_locate(item, folder, key, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise _Refused(f"{_dotted(key)}: must be a finite number, and is {value}")
    if isinstance(value, int) and value not in INTEGERS:
        raise _Refused(f"{_dotted(key)}: the number has more than 64 bits")
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or isinstance(value, Located):
        return value
    kind, colon, path = value.partition(":")
    # a plugin's names may be addresses too; with ./ they name a folder
    if kind == "local-dir" or (colon and path.startswith(("./", "../", "~/"))):
        return Located(f"{kind}:{_absolute(path, folder, key)}", folder)
    if key in PATHS or value.endswith(".safetensors"):
        return Located(str(_absolute(value, folder, key)), folder)
    return Located(value, folder)


def _absolute(text: str, folder: Path, key: tuple[str, ...]) -> Path:
    try:
        return (folder / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # ~nobody, a null character, links in a circle
        raise _Refused(f"{_dotted(key)}: the path {text[:100]!r} cannot be resolved: {error}") from error


def _dotted(key: Sequence[str]) -> str:
    """Joins a key, or the beginning of one that is too long to be shown."""
    text = ".".join(key)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _pairs(
    overrides: Mapping[str, Any] | Sequence[str], problems: list[str]
) -> Iterator[tuple[list[str], Any]]:
    """Yields keys and values; paths among the values are relative to the current folder."""
    for key, value in _key_values(overrides, problems):
        parts = key.split(".")
        try:
            if len(parts) > MAX_DEPTH:
                raise _Refused(f"{_dotted(parts)}: the key has more than {MAX_DEPTH} parts")
            parsed = parse_value(value) if isinstance(overrides, Sequence) else value
            yield parts, _locate(parsed, Path.cwd(), tuple(parts))
        except _Refused as error:
            problems.append(str(error))


def _key_values(
    overrides: Mapping[str, Any] | Sequence[str], problems: list[str]
) -> Iterator[tuple[str, Any]]:
    """Yields keys and values, which of strings are still TOML's text."""
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    for text in as_list(overrides):
        key, equals, toml_value = text.partition("=")
        if equals and key.strip():
            yield key.strip(), toml_value.strip()
        else:
            problems.append(f"--set {text}: must be KEY=VALUE, such as training.epochs=5")


def parse_value(toml_value: str) -> Any:
    """Parses a TOML value; anything that is not TOML is a string."""
    try:
        return _parse(f"value = {toml_value}")["value"]
    except tomllib.TOMLDecodeError:
        return toml_value


def _set(tree: Tree, key: list[str], value: Any) -> str | None:
    """Sets one key; returns what is wrong with it, or None."""
    table, rest, dotted = tree, key, ".".join(key)
    if key == ["extends"]:
        return "extends: can be written in a recipe only"
    if key[0] == "phase":
        rows = tree.get("phase")
        phases = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        if len(key) < 3:
            return f"{dotted}: name a phase and its key, such as phase.{key[1] if key[1:] else 'NAME'}.epochs"
        named = [phase for phase in phases if phase.get("name") == key[1]]
        if not named:
            names = [str(phase.get("name")) for phase in phases]
            hint = close_matches(key[1], names) or f"; there are {', '.join(names) or 'none'}"
            return f"{dotted}: there is no phase {key[1]!r}{hint}"
        table, rest = named[0], key[2:]
    for name in rest[:-1]:
        inner = table.get(name, {})
        if name in PARTS and isinstance(inner, str):
            inner = {"name": inner}
        if not isinstance(inner, dict):
            return f"{dotted}: {name} is a value, not a table"
        table[name] = copy.copy(inner)
        table = table[name]
    table[rest[-1]] = value
    return None
