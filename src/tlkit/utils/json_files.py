"""JSON files with a schema: written whole, and read with errors that name the file and the key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tlkit.errors import TlkitError
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.formatting import shortlist
from tlkit.utils.regular_files import read_regular

Model = TypeVar("Model", bound=BaseModel)

#: A number of images, epochs, parameters or bytes, and a part of a whole.
NonNegative = Annotated[int, Field(ge=0, le=10**15)]
Proportion = Annotated[float, Field(ge=0, le=1)]
#: How many wrong keys an error names.
KEYS_SHOWN = 3


class JsonModel(BaseModel):
    """Base of everything that is stored as JSON: immutable, without unknown keys."""

    # numbers must be finite, but an optimiser's own values, which have no type here, need not be
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
    )


def write_json(
    path: Path,
    value: BaseModel,
    *,
    exclude_none: bool = False,
    fallback: Callable[[object], object] | None = None,
) -> None:
    """Replaces a JSON file.

    Args:
        path: the file.
        value: its content.
        exclude_none: leave out keys that are None.
        fallback: converts values of types that JSON does not have.

    Raises:
        OSError: it cannot be written.
        pydantic_core.PydanticSerializationError: without a fallback, a value has such a type.
    """
    text = value.model_dump_json(indent=1, by_alias=True, exclude_none=exclude_none, fallback=fallback)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, model: type[Model], error: type[TlkitError]) -> Model:
    """Reads a JSON file as an instance of `model`; types are checked strictly.

    Raises:
        TlkitError: of type `error`; the file cannot be read, is not JSON, or a key has the wrong type.
    """
    return parse_json(read_text(path, error), model, error, str(path))


def read_text(path: Path, error: type[TlkitError]) -> str:
    """Reads a UTF-8 file.

    Raises:
        TlkitError: of type `error`; it cannot be read.
    """
    try:
        return read_regular(path).decode()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise error(f"{path} cannot be read: {reason}") from problem


def parse_json(text: str, model: type[Model], error: type[TlkitError], where: str) -> Model:
    """Parses JSON text as an instance of `model`; `where` names it in errors. See `read_json`."""
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as problem:
        raise error(f"{where} cannot be read: {_describe(problem)}") from problem


def content_sha256(text: str, *key: str) -> str:
    """Returns the sha256 of a JSON document without the key that holds it, however the keys are ordered."""
    document = json.loads(text)
    table = document
    for name in key[:-1]:
        table = table[name]
    table.pop(key[-1], None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _describe(error: ValidationError) -> str:
    """Describes what is wrong with a JSON document, each problem beginning with its key."""
    problems = []
    for item in error.errors(include_url=False):
        message = item["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
        key = ".".join(map(str, item["loc"]))
        problems.append(f"{key}: {message}" if key else message)
    return shortlist(problems, KEYS_SHOWN, "; ")
