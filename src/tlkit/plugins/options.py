"""Describes, checks and converts a part's options: the keyword-only parameters of its factory.

Types are strict on purpose: in a recipe, ``"0.5"`` or ``true`` in place of a number is a mistake.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from docstring_parser import DocstringStyle
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticCustomError

from tlkit.errors import PluginError, close_matches

Factory = Callable[..., Any]


class _Required:
    def __repr__(self) -> str:
        return "required"


#: The default of an option that has none.
REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a part.

    Attributes:
        name: the key in the recipe.
        type_text: its type, as shown to people.
        default: its value when left out, or REQUIRED.
        doc: its description in the factory's docstring.
    """

    name: str
    type_text: str
    default: Any
    doc: str


def describe(factory: Factory) -> list[Option]:
    """Returns the options of a factory, in the order of its signature."""
    types, docs = _types(factory), _docs(factory)
    return [
        Option(name, _text(types[name]), _default(parameter), docs.get(name, ""))
        for name, parameter in _parameters(factory).items()
    ]


def check(factory: Factory, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what is wrong with `options`: (option name, message) pairs, empty if nothing is."""
    return _validate(factory, options)[1]


def convert(factory: Factory, options: Mapping[str, Any]) -> dict[str, Any]:
    """Converts `options` to the types that the factory's annotations ask for, without filling in defaults.

    Raises:
        PluginError: an option is unknown, missing or of the wrong type.
    """
    values, problems = _validate(factory, options)
    if problems:
        raise PluginError("; ".join(f"option {name!r} {message}" for name, message in problems))
    return values


def without_weights(factory: Factory) -> dict[str, Any]:
    """Returns the options that make a backbone without loading weights, such as ``{"weights": "none"}``.

    Empty where the factory has no option `weights` that can be "none" or None.
    """
    allowed = get_args(_types(factory).get("weights"))
    named = any(get_origin(choice) is Literal and "none" in get_args(choice) for choice in allowed)
    if named or "none" in allowed:  # alone, Literal's arguments are its values
        return {"weights": "none"}
    return {"weights": None} if NoneType in allowed else {}


def paths(factory: Factory) -> list[str]:
    """Returns the names of the options whose values may be paths."""
    return [name for name, annotation in _types(factory).items() if _has_path(annotation)]


def module_file(factory: Factory) -> str | None:
    """Returns the file that a factory is defined in, or None."""
    try:
        return inspect.getsourcefile(inspect.unwrap(_function(_unbind(factory)[0])))
    except TypeError:
        return None


def _validate(factory: Factory, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    parameters, types = _parameters(factory), _types(factory)
    problems = [(name, _unknown(name, list(parameters))) for name in options if name not in parameters]
    model = _model(factory, parameters, types)
    try:
        checked = model.model_validate({name: options[name] for name in options if name in parameters})
    except ValidationError as error:
        by_option: dict[str, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            by_option.setdefault(str(detail["loc"][0]), []).append(detail)
        for name, details in by_option.items():
            text = _text(types[name])
            missing = name not in options
            message = f"is missing ({text})" if missing else _describe_mistake(text, details, options[name])
            problems.append((name, message))
        return {}, problems
    fields = type(checked).model_fields
    return {str(fields[key].alias): getattr(checked, key) for key in checked.model_fields_set}, problems


def _model(
    factory: Factory, parameters: Mapping[str, inspect.Parameter], types: Mapping[str, Any]
) -> type[BaseModel]:
    # aliases, since pydantic reserves some names ("schema", "copy")
    fields: dict[str, Any] = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        default = ... if parameter.default is parameter.empty else None
        fields[f"option_{index}"] = (_recipe_type(types[name]), Field(default, alias=name))
    config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        return create_model("Options", __config__=config, **fields)
    except Exception as error:
        raise PluginError(f"{_name(factory)}: its options cannot be validated: {error}") from error


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return "is unknown: this part has no options"
    return f"is unknown{close_matches(name, known) or '; known: ' + ', '.join(known)}"


def _describe_mistake(type_text: str, details: list[ErrorDetails], value: Any) -> str:
    """Describes a mistake; a violated limit is more helpful than the list of a union's types."""
    types = {"literal_error", "enum", "none_required", "is_instance_of", "missing"}
    for detail in details:
        if not (detail["type"].endswith("_type") or detail["type"] in types):
            message = detail["msg"].removeprefix("Value error, ")
            expected = message.replace("Input should be", "must be")
            return message if expected == message else f"{expected}, not {_describe_value(detail['input'])}"
    return f"must be {type_text}, not {_describe_value(value)}"


def _describe_value(value: Any) -> str:
    kinds = {str: "string", bool: "boolean", list: "list", dict: "table", float: "number", int: "number"}
    kind = next((kind for base, kind in kinds.items() if isinstance(value, base)), type(value).__name__)
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return f"the {kind} {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _unbind(factory: Factory) -> tuple[Factory, set[str]]:
    """Returns the function that a partial finally calls, and the keywords that it has bound."""
    bound: set[str] = set()
    while isinstance(factory, partial):
        bound.update(factory.keywords)
        factory = factory.func
    return factory, bound


def _function(factory: Factory) -> Any:
    if isinstance(factory, type):
        return factory.__init__  # type: ignore[misc]
    return factory if inspect.isroutine(factory) else type(factory).__call__


def _parameters(factory: Factory) -> dict[str, inspect.Parameter]:
    # not the partial's own signature: there, what follows a bound keyword is keyword-only too
    factory, bound = _unbind(factory)
    return {
        name: parameter
        for name, parameter in inspect.signature(_function(factory)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in bound
    }


def _types(factory: Factory) -> dict[str, Any]:
    # only the options' annotations are resolved: the others may name imports for type checkers alone
    annotations = {
        name: Any if parameter.annotation is parameter.empty else parameter.annotation
        for name, parameter in _parameters(factory).items()
    }
    scope = getattr(inspect.unwrap(_function(_unbind(factory)[0])), "__globals__", {})
    try:
        return get_type_hints(SimpleNamespace(__annotations__=annotations), scope, include_extras=True)
    except Exception as error:
        raise PluginError(f"{_name(factory)}: the type of an option cannot be resolved: {error}") from error


def _name(factory: Factory) -> str:
    factory, _ = _unbind(factory)
    named = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{named.__module__}.{named.__qualname__}"


def _default(parameter: inspect.Parameter) -> Any:
    return REQUIRED if parameter.default is parameter.empty else parameter.default


def _docs(factory: Factory) -> dict[str, str]:
    """Returns the entries of the docstring's ``Args:`` section, each on one line."""
    factory, _ = _unbind(factory)
    docs: dict[str, str] = {}
    for documented in (_function(factory), factory):
        try:
            parsed = docstring_parser.parse(inspect.getdoc(documented) or "", DocstringStyle.GOOGLE)
        except docstring_parser.ParseError:  # a plugin's docstring of another form has nothing to show
            continue
        docs.update(
            {
                entry.arg_name: " ".join((entry.description or "").split())
                for entry in parsed.params
                if entry.args[0] == "param"  # not an attribute
            }
        )
    return docs


def _recipe_type(annotation: Any) -> Any:
    """Makes an annotation accept what TOML has: lists for tuples and sets, strings for paths."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Path:
        return Annotated[Path, BeforeValidator(_path)]
    if origin is Literal:
        has_bool = bool in map(type, arguments)
        return annotation if has_bool else Annotated[annotation, BeforeValidator(_not_bool)]
    if origin is Annotated:
        return Annotated[(_recipe_type(arguments[0]), *annotation.__metadata__)]
    if origin in (Union, UnionType):
        words = {word for choice in arguments if get_origin(choice) is Literal for word in get_args(choice)}
        path = Annotated[Path, BeforeValidator(partial(_path, words=words))]
        return Union[tuple(path if choice is Path else _recipe_type(choice) for choice in arguments)]  # noqa: UP007
    container: Any = origin or annotation
    if not isinstance(container, type):
        return annotation
    if origin and arguments and origin is not Callable:
        annotation = origin[tuple(map(_recipe_type, arguments))]
    lenient = issubclass(container, tuple | set | frozenset | Enum)
    return Annotated[annotation, Strict(False)] if lenient else annotation


def _path(value: Any, words: Collection[Any] = ()) -> Any:
    """Resolves a path relative to the recipe that it is written in, whose folder its string carries.

    Args:
        value: the option's value.
        words: the literals of a union with a path, which are not paths.
    """
    if not isinstance(value, str) or value in words:
        return value
    try:
        return getattr(value, "folder", Path.cwd()) / Path(value).expanduser()
    except RuntimeError as error:  # there is no user of that name
        raise ValueError(f"{value!r} cannot be resolved: {error}") from error


def _has_path(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return True
    return any(_has_path(argument) for argument in get_args(annotation))


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):  # True == 1 in Python
        raise PydanticCustomError("literal_error", "Input should be one of the literals")
    return value


def _text(annotation: Any) -> str:
    """Formats a type for people: ``"crop" | "pad"``, ``list[int]``, ``path``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _text(arguments[0])
    if origin is Literal:
        return " | ".join(json.dumps(value, default=str) for value in arguments)
    if origin in (Union, UnionType):
        return " | ".join(map(_text, arguments))
    if origin is not None:
        return f"{_text(origin)}[{', '.join(map(_text, arguments))}]"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(json.dumps(member.value, default=str) for member in annotation)
    for special, text in ((Path, "path"), (NoneType, "none"), (Any, "any"), (Ellipsis, "...")):
        if annotation is special:
            return text
    return getattr(annotation, "__name__", str(annotation))
